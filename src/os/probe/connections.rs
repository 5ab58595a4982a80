//! The part of the loop that opens connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use socket2::Socket;

use super::connect::{self, Begun};
use super::deliver::{ORIGIN_ICMP, ORIGIN_ICMP6};
use super::errno_name;
use super::run::{CONNECTION, Driver};
use crate::probe::{Local, ProbeKind, QueuedError, Received, Token, Transmit};
use crate::wire::protocol;

impl Driver {
    /// Opens a connection; the error is a local errno's name.
    pub(super) fn open_connection(&mut self, transmit: &Transmit) -> Result<(), String> {
        let spec = self.engine.spec(transmit);
        let (dst, src, ttl) = match spec.kind {
            ProbeKind::TcpConnect { dst, src } => (dst, src, None),
            ProbeKind::Path(path) => {
                let port = path.method.dport().unwrap_or(0);
                (SocketAddr::new(path.dst, port), Some(SocketAddr::new(path.src, 0)), Some(path.ttl))
            }
            _ => return Err("EINVAL".to_owned()),
        };
        let via = spec.via.clone();
        let token = transmit.token;
        let _ = self.engine.prepare(transmit, Local::Address(dst));
        let now = self.now();
        let (socket, result) = match connect::begin(dst, src, via.as_deref(), ttl) {
            Begun::Busy(error) => {
                self.engine.busy(token, &errno_name(&error));
                return Ok(());
            }
            Begun::Refused(error) => return Err(errno_name(&error)),
            Begun::Pending(socket) => (socket, None),
            Begun::Done(socket, result) => (socket, Some(result)),
        };
        self.engine.sent(token, now);
        if let Some(local) = socket.local_addr().ok().and_then(|local| local.as_socket()) {
            self.engine.local_address(token, local);
        }
        if let Some(result) = result {
            self.connection_over(token, &socket, result);
            return Ok(());
        }
        let watch = EpollEvent::new(EpollFlags::EPOLLOUT, CONNECTION + u64::from(token.0));
        self.epoll.add(&socket, watch).map_err(|errno| format!("{errno:?}"))?;
        self.connections.insert(token, socket);
        Ok(())
    }

    /// epoll has something to say about a connection.
    pub(super) fn on_connection(&mut self, token: Token, events: EpollFlags) {
        let Some(socket) = self.connections.remove(&token) else { return };
        let queued = events.contains(EpollFlags::EPOLLERR) && self.connection_errors(token, &socket);
        match connect::outcome(&socket) {
            // An ICMP error in the queue has ended the probe, and says more than its errno.
            Some(Err(_)) | None if queued => {}
            Some(result) => self.connection_over(token, &socket, result),
            // Without one it goes on.
            None => {
                self.connections.insert(token, socket);
            }
        }
    }

    fn connection_over(&mut self, token: Token, socket: &Socket, result: io::Result<()>) {
        let received = Received { user: self.now(), kernel_ns: None };
        match result {
            Ok(()) => self.engine.on_connect(token, Ok(connect::describe(socket)), received),
            Err(error) => {
                // The error queue knows who said so; only where it does not, the errno has to do.
                if !self.connection_errors(token, socket) {
                    self.engine.on_connect(token, Err(&errno_name(&error)), received);
                }
            }
        }
    }

    /// Reads a connection's error queue; whether an ICMP error was in it.
    fn connection_errors(&mut self, token: Token, socket: &Socket) -> bool {
        let mut found = false;
        while let Ok(count @ 1..) = self.inbox.receive(socket.as_fd(), true) {
            let user = self.now();
            for at in 0..count {
                let message = self.inbox.get(at);
                let (Some(error), Some(dst)) = (message.error, message.peer) else { continue };
                if !matches!(error.origin, ORIGIN_ICMP | ORIGIN_ICMP6) {
                    continue;
                }
                found = true;
                let queued = QueuedError {
                    offender: error.offender.unwrap_or(dst.ip()),
                    icmp_type: error.icmp_type,
                    code: error.code,
                    info: error.info,
                    ttl: message.ttl,
                    at: Received { user, kernel_ns: message.stamp_ns },
                    dst,
                    local_port: 0,
                    protocol: protocol::TCP,
                    bytes: message.bytes,
                    extensions: None,
                };
                self.engine.on_connect_error_queued(token, &queued);
            }
        }
        found
    }
}
