//! Connections by the kernel's own TCP.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::sys;
use super::sockets::prepare;
use crate::probe::ConnectedSocket;

/// How the opening of a connection began.
pub(super) enum Begun {
    /// The answer is still to come.
    Pending(Socket),
    /// It was there at once (loopback).
    Done(Socket, io::Result<()>),
    /// No socket could be had for now.
    Busy(io::Error),
    /// This host refused.
    Refused(io::Error),
}

/// Begins to open a connection.
pub(super) fn begin(dst: SocketAddr, src: Option<SocketAddr>, via: Option<&str>, ttl: Option<u8>) -> Begun {
    let domain = if dst.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = match Socket::new(domain, Type::STREAM, Some(Protocol::TCP)) {
        Ok(socket) => socket,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)) => {
            return Begun::Busy(error);
        }
        Err(error) => return Begun::Refused(error),
    };
    let ready = || -> io::Result<()> {
        // With an error queue the ICMP error that ends the attempt names its sender (Linux 5.18).
        prepare(&socket, dst.is_ipv6(), true)?;
        if let Some(ttl) = ttl {
            let (level, name) = if dst.is_ipv6() {
                (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
            } else {
                (libc::IPPROTO_IP, libc::IP_TTL)
            };
            sys::set_int(&socket, level, name, ttl.into())?;
        }
        if let Some(via) = via {
            sys::set_bytes(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, via.as_bytes())?;
        }
        if let Some(src) = src {
            socket.set_reuse_address(true)?;
            socket.bind(&src.into())?;
        }
        Ok(())
    };
    if let Err(error) = ready() {
        return Begun::Refused(error);
    }
    match socket.connect(&dst.into()) {
        Ok(()) => Begun::Done(socket, Ok(())),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS) => Begun::Pending(socket),
            Some(libc::ECONNREFUSED | libc::ETIMEDOUT) => Begun::Done(socket, Err(error)),
            _ => Begun::Refused(error),
        },
    }
}

/// What became of a pending one: `None` while it is still pending.
pub(super) fn outcome(socket: &Socket) -> Option<io::Result<()>> {
    match socket.take_error() {
        Ok(Some(error)) | Err(error) => Some(Err(error)),
        Ok(None) => match socket.peer_addr() {
            Ok(_) => Some(Ok(())),
            Err(_) => None,
        },
    }
}

/// What TCP knows of the handshake (`struct tcp_info`).
pub(super) fn describe(socket: &Socket) -> ConnectedSocket {
    /// Octets from the start of `struct tcp_info` (include/uapi/linux/tcp.h), stable since Linux 2.6.
    const RTT: usize = 68;
    const TOTAL_RETRANS: usize = 100;
    let info = sys::get_bytes::<104>(socket, libc::IPPROTO_TCP, libc::TCP_INFO).unwrap_or_default();
    let word = |at: usize| info.get(at..at + 4).and_then(|word| Some(u32::from_ne_bytes(word.try_into().ok()?)));
    ConnectedSocket {
        rtt_us: word(RTT).filter(|rtt| *rtt != 0),
        retransmits: word(TOTAL_RETRANS).unwrap_or(0),
        local: socket.local_addr().ok().and_then(|local| local.as_socket()),
    }
}
