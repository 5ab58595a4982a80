//! Packets of our own making, and a packet socket for what comes back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::super::late::PacketSocket;
use super::super::sys::{self, Inbox, OutMessage};
use super::{
    Clock, Request, ScanError, Wire, domain, errno, is_busy, scoped, setcap_hint, sources, system, unspecified, widen,
};
use crate::port::packet::{SOURCES, Signature};
use crate::port::scan::{Aim, Reply, Scan, Shot};
use crate::port::{Technique, filter};
use crate::probe::Moment;

/// `SOF_TIMESTAMPING_{RX_SOFTWARE, SOFTWARE}`.
const STAMPS: i32 = (1 << 3) | (1 << 4);
/// Readings before it is time to send again.
const ROUNDS: usize = 8;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// The sockets of a raw scan.
pub(super) struct Raw {
    technique: Technique,
    signature: Signature,
    hosts: Vec<(IpAddr, u32)>,
    sources: Vec<Result<IpAddr, &'static str>>,
    ports: Vec<u16>,
    /// Where an asked address is in the plan, and a port.
    host_of: HashMap<IpAddr, u32>,
    port_of: Vec<u32>,
    senders: [Option<Socket>; 2],
    receivers: Vec<PacketSocket>,
    drops: Vec<u32>,
    /// They keep other programs (and the kernel's own answers) off our source ports.
    _reserved: Vec<Socket>,
    inbox: Inbox,
}

/// No such port in the plan.
const NONE: u32 = u32::MAX;

impl Raw {
    pub(super) fn open(request: &Request, secret: u64) -> Result<Self, ScanError> {
        let udp = request.technique == Technique::Udp;
        let (reserved, own) = reserve(udp)?;
        let range = (own.iter().min().copied().unwrap_or(0), own.iter().max().copied().unwrap_or(0));
        let mut senders = [None, None];
        let mut receivers = Vec::new();
        for v6 in [false, true] {
            if !request.hosts.iter().any(|(address, _)| address.is_ipv6() == v6) {
                continue;
            }
            // IPPROTO_RAW: the IP header is ours (raw(7), ipv6(7)).
            let sender = Socket::new(domain(v6), Type::from(libc::SOCK_RAW), Some(Protocol::from(libc::IPPROTO_RAW)))
                .map_err(|error| denied(error, request.technique, "open a raw socket"))?;
            sender.set_nonblocking(true).map_err(system("prepare a raw socket"))?;
            let _ = sys::set_int(&sender, libc::SOL_SOCKET, libc::SO_BROADCAST, 1);
            widen(&sender);
            // IPPROTO_RAW sockets receive nothing.
            senders[usize::from(v6)] = Some(sender);
            receivers.push(
                listen(v6, range).map_err(|error| denied(error, request.technique, "open a packet socket"))?.into(),
            );
        }
        let mut port_of = vec![NONE; 1 << 16];
        for (place, port) in request.ports.iter().enumerate() {
            port_of[usize::from(*port)] = u32::try_from(place).unwrap_or(NONE);
        }
        let host_of = request.hosts.iter().enumerate().map(|(at, host)| (host.0, u32::try_from(at).unwrap_or(NONE)));
        Ok(Self {
            technique: request.technique,
            signature: Signature { secret, sources: own, echo_id: u16::try_from(secret >> 48).unwrap_or(0) },
            sources: sources(&request.hosts),
            hosts: request.hosts.clone(),
            ports: request.ports.clone(),
            host_of: host_of.collect(),
            port_of,
            senders,
            drops: vec![0; receivers.len()],
            receivers,
            _reserved: reserved,
            inbox: Inbox::new(),
        })
    }

    fn message(&self, shot: Shot) -> Result<(bool, OutMessage), &'static str> {
        let Some((dst, link)) = self.hosts.get(shot.host as usize) else { return Err("EINVAL") };
        let src = self.sources[shot.host as usize]?;
        let port = match shot.aim {
            Aim::Echo => None,
            Aim::Port(place) => self.ports.get(place as usize).copied(),
        };
        let packet = self.signature.packet(self.technique, src, *dst, port, shot);
        Ok((dst.is_ipv6(), OutMessage::to(scoped(*dst, 0, *link), packet)))
    }
}

fn denied(error: std::io::Error, technique: Technique, operation: &'static str) -> ScanError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => ScanError::Privilege { technique: technique.name(), hint: setcap_hint() },
        _ => system(operation)(error),
    }
}

/// Takes source ports out of other programs' reach: dual-stack sockets, which hold a port in both families.
fn reserve(udp: bool) -> Result<(Vec<Socket>, Vec<u16>), ScanError> {
    let (kind, protocol) = if udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let (mut sockets, mut ports) = (Vec::new(), Vec::<u16>::new());
    let bind = |v6: bool, port: u16| -> std::io::Result<(Socket, u16)> {
        let socket = Socket::new(domain(v6), kind, Some(protocol))?;
        if v6 {
            socket.set_only_v6(false)?;
        }
        if udp {
            // It is never read.
            let _ = sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 0);
        }
        socket.bind(&std::net::SocketAddr::new(unspecified(v6), port).into())?;
        let port = socket.local_addr()?.as_socket().map_or(0, |local| local.port());
        Ok((socket, port))
    };
    // A kernel without IPv6 has the other family alone.
    let any = |port: u16| bind(true, port).or_else(|_| bind(false, port));
    for _ in 0..SOURCES {
        // In a row where that can be had: the filter knows but one range.
        let next = ports.last().and_then(|last| last.checked_add(1));
        let bound = next.map_or_else(|| any(0), |next| any(next).or_else(|_| any(0)));
        let (socket, port) = bound.map_err(system("reserve a source port"))?;
        sockets.push(socket);
        ports.push(port);
    }
    Ok((sockets, ports))
}

/// A packet socket that hears arriving IP packets of one family that may be answers.
fn listen(v6: bool, ports: (u16, u16)) -> std::io::Result<Socket> {
    // Protocol 0 hears nothing until it is bound, so that no packet passes before the filter is there.
    let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::DGRAM, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    sys::attach_filter(&socket, &filter::answers(v6, ports))?;
    let _ = sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, STAMPS);
    let _ = sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    widen(&socket);
    // Bound to one protocol it hears what arrives, not what leaves.
    sys::bind_link(&socket, 0, if v6 { ETH_P_IPV6 } else { ETH_P_IP })?;
    Ok(socket)
}

impl Wire for Raw {
    fn send(&mut self, shots: &[Shot], scan: &mut Scan, clock: Clock) -> Result<usize, ScanError> {
        let Some(first) = shots.first() else { return Ok(0) };
        let v6 = self.hosts.get(first.host as usize).is_some_and(|host| host.0.is_ipv6());
        let mut messages = Vec::with_capacity(shots.len());
        for shot in shots {
            match self.message(*shot) {
                Ok((family, message)) if family == v6 => messages.push(message),
                // The other family has its own turn.
                Ok(_) => break,
                Err(errno) => {
                    if messages.is_empty() {
                        scan.refused(*shot, errno, clock.now());
                        return Ok(1);
                    }
                    break;
                }
            }
        }
        let Some(socket) = &self.senders[usize::from(v6)] else { return Ok(shots.len()) };
        let before = clock.now();
        match sys::send_batch(socket.as_fd(), &messages) {
            Ok(sent) => {
                // Within a batch each packet left in its turn.
                let span = clock.now().since(before).as_nanos();
                for (place, shot) in shots.iter().take(sent).enumerate() {
                    let share = span * place as u128 / sent.max(1) as u128;
                    scan.left(*shot, Moment(before.0 + u64::try_from(share).unwrap_or(0)));
                }
                Ok(sent)
            }
            Err(error) if is_busy(&error) => Ok(0),
            Err(error) => {
                scan.refused(*first, errno(&error), clock.now());
                Ok(1)
            }
        }
    }

    fn receive(&mut self, scan: &mut Scan, clock: Clock) -> Result<bool, ScanError> {
        let mut any = false;
        for (socket, drops) in self.receivers.iter().zip(&mut self.drops) {
            for _ in 0..ROUNDS {
                let got = match self.inbox.receive(socket.as_fd(), false) {
                    Ok(got) => got,
                    // The link that was heard last went down: others remain.
                    Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => 0,
                    Err(error) => return Err(system("receive")(error)),
                };
                for at in 0..got {
                    let message = self.inbox.get(at);
                    if let Some(count) = message.drops.filter(|count| *count != *drops) {
                        *drops = count;
                        scan.overflowed(clock.now());
                    }
                    let Some(heard) = self.signature.read(self.technique, message.bytes) else { continue };
                    let Some(host) = self.host_of.get(&heard.asked) else { continue };
                    let aim = match heard.port.map(|port| self.port_of[usize::from(port)]) {
                        None => Aim::Echo,
                        Some(NONE) => continue,
                        Some(place) => Aim::Port(place),
                    };
                    any = true;
                    let at = clock.of_stamp(message.stamp_ns);
                    let reply =
                        Reply { number: heard.number, by: heard.by, ttl: Some(heard.ttl), answer: heard.answer };
                    scan.heard(*host, aim, reply, at);
                }
                if got < sys::BATCH {
                    break;
                }
            }
        }
        Ok(any)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.receivers.iter().map(|socket| socket.as_fd()).collect()
    }
}
