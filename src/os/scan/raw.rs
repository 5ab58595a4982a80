//! Packets of our own making, and a packet socket for what comes back.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::late::PacketSocket;
use super::super::sys::{self, Inbox, OutMessage};
use super::crew::{Crew, spread};
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

/// What is asked of whom, and how it is signed.
pub(super) struct Probes {
    technique: Technique,
    signature: Signature,
    hosts: Vec<(IpAddr, u32)>,
    sources: Vec<Result<IpAddr, &'static str>>,
    ports: Vec<u16>,
}

impl Probes {
    /// Whether a shot goes by IPv6.
    pub(super) fn is_v6(&self, shot: Shot) -> bool {
        self.hosts.get(shot.host as usize).is_some_and(|host| host.0.is_ipv6())
    }

    /// A shot as a packet; an errno's name where there is no way.
    pub(super) fn message(&self, shot: Shot) -> Result<OutMessage, &'static str> {
        let Some((dst, link)) = self.hosts.get(shot.host as usize) else { return Err("EINVAL") };
        let src = self.sources[shot.host as usize]?;
        let port = match shot.aim {
            Aim::Echo => None,
            Aim::Port(place) => self.ports.get(place as usize).copied(),
        };
        let packet = self.signature.packet(self.technique, src, *dst, port, shot);
        Ok(OutMessage::to(scoped(*dst, 0, *link), packet))
    }
}

/// The sockets of a raw scan.
pub(super) struct Raw {
    probes: Arc<Probes>,
    /// Where an asked address is in the plan, and a port.
    host_of: HashMap<IpAddr, u32>,
    port_of: Vec<u32>,
    senders: [Option<Socket>; 2],
    crew: Option<Crew>,
    /// Answers that may belong to a batch of which it is not yet known when it left: they wait for batches below this
    /// number.
    held: VecDeque<(u64, u32, Aim, Reply, Moment)>,
    receivers: Vec<PacketSocket>,
    drops: Vec<u32>,
    /// They keep other programs (and the kernel's own answers) off our source ports.
    _reserved: Vec<Socket>,
    inbox: Inbox,
}

/// No such port in the plan.
const NONE: u32 = u32::MAX;
/// Fewer questions than this are asked by one thread, which knows exactly when each left.
const MANY: usize = 4096;

impl Raw {
    pub(super) fn open(request: &Request, secret: u64, clock: Clock) -> Result<Self, ScanError> {
        let udp = request.technique == Technique::Udp;
        let (reserved, own) = reserve(udp)?;
        let range = (own.iter().min().copied().unwrap_or(0), own.iter().max().copied().unwrap_or(0));
        let families = [false, true].map(|v6| request.hosts.iter().any(|(address, _)| address.is_ipv6() == v6));
        let senders = open_senders(families).map_err(|error| denied(error, request.technique, "open a raw socket"))?;
        let mut receivers = Vec::new();
        for v6 in [false, true].into_iter().filter(|v6| families[usize::from(*v6)]) {
            let receiver =
                listen(v6, range).map_err(|error| denied(error, request.technique, "open a packet socket"))?;
            receivers.push(receiver.into());
        }
        let mut port_of = vec![NONE; 1 << 16];
        for (place, port) in request.ports.iter().enumerate() {
            port_of[usize::from(*port)] = u32::try_from(place).unwrap_or(NONE);
        }
        let host_of = request.hosts.iter().enumerate().map(|(at, host)| (host.0, u32::try_from(at).unwrap_or(NONE)));
        let probes = Arc::new(Probes {
            technique: request.technique,
            signature: Signature { secret, sources: own, echo_id: u16::try_from(secret >> 48).unwrap_or(0) },
            sources: sources(&request.hosts),
            hosts: request.hosts.clone(),
            ports: request.ports.clone(),
        });
        let many = request.hosts.len() * request.ports.len() >= MANY;
        let crew = if many { Crew::hire(&probes, clock, || open_senders(families).ok()) } else { None };
        Ok(Self {
            probes,
            host_of: host_of.collect(),
            port_of,
            senders,
            crew,
            held: VecDeque::new(),
            drops: vec![0; receivers.len()],
            receivers,
            _reserved: reserved,
            inbox: Inbox::new(),
        })
    }

    /// Tells what is known by now of batches that others send; with `wait`, not before there is something to tell.
    fn hear_crew(&mut self, scan: &mut Scan, clock: Clock, wait: bool) {
        let Some(crew) = &mut self.crew else { return };
        let mut wait = wait;
        while let Some(sent) = crew.take(std::mem::take(&mut wait)) {
            sent.left.into_iter().for_each(|(shot, at)| scan.left(shot, at));
            sent.refused.into_iter().for_each(|(shot, errno)| scan.refused(shot, errno, clock.now()));
        }
        while self.held.front().is_some_and(|(after, ..)| crew.is_over(*after)) {
            let Some((_, host, aim, reply, at)) = self.held.pop_front() else { return };
            scan.heard(host, aim, reply, at);
        }
    }
}

/// IPPROTO_RAW: the IP header is ours (raw(7), ipv6(7)), and nothing is received.
fn open_senders(families: [bool; 2]) -> std::io::Result<[Option<Socket>; 2]> {
    let mut opened = [None, None];
    for v6 in [false, true].into_iter().filter(|v6| families[usize::from(*v6)]) {
        let sender = Socket::new(domain(v6), Type::from(libc::SOCK_RAW), Some(Protocol::from(libc::IPPROTO_RAW)))?;
        sender.set_nonblocking(true)?;
        let _ = sys::set_int(&sender, libc::SOL_SOCKET, libc::SO_BROADCAST, 1);
        widen(&sender);
        opened[usize::from(v6)] = Some(sender);
    }
    Ok(opened)
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
        if self.crew.is_some() {
            self.hear_crew(scan, clock, false);
            if self.crew.as_mut().is_some_and(|crew| crew.give(shots)) {
                return Ok(shots.len());
            }
            self.hear_crew(scan, clock, true);
            return Ok(if self.crew.as_mut().is_some_and(|crew| crew.give(shots)) { shots.len() } else { 0 });
        }
        let Some(first) = shots.first() else { return Ok(0) };
        let v6 = self.probes.is_v6(*first);
        let mut messages = Vec::with_capacity(shots.len());
        // The other family has its own turn.
        for shot in shots.iter().take_while(|shot| self.probes.is_v6(**shot) == v6) {
            match self.probes.message(*shot) {
                Ok(message) => messages.push(message),
                Err(errno) if messages.is_empty() => {
                    scan.refused(*shot, errno, clock.now());
                    return Ok(1);
                }
                Err(_) => break,
            }
        }
        let Some(socket) = &self.senders[usize::from(v6)] else { return Ok(shots.len()) };
        let before = clock.now();
        match sys::send_batch(socket.as_fd(), &messages) {
            Ok(sent) => {
                spread(&shots[..sent], before, clock.now()).for_each(|(shot, at)| scan.left(shot, at));
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
        let given = self.crew.as_ref().map(Crew::given);
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
                    let Some(heard) = self.probes.signature.read(self.probes.technique, message.bytes) else {
                        continue;
                    };
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
                    match given {
                        Some(given) => self.held.push_back((given, *host, aim, reply, at)),
                        None => scan.heard(*host, aim, reply, at),
                    }
                }
                if got < sys::BATCH {
                    break;
                }
            }
        }
        // Nothing to read while batches are under way: the next thing to happen is that one of them is over.
        let waiting = !any && !self.held.is_empty();
        self.hear_crew(scan, clock, waiting);
        Ok(any || waiting)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.receivers.iter().map(|socket| socket.as_fd()).collect()
    }
}
