//! Drives a port scan ([`crate::port::scan`]) with real sockets: one thread decides and reads, and sends in batches,
//! large raw scans with the help of others (`crew`).
//!
//! Three ways to ask: raw packets (answers are taken from a packet socket behind a filter, before any local
//! firewall rule sees them; the kernel itself resets the connections that a SYN opens), datagrams whose
//! errors come by the socket's error queue, and connections by the kernel. The last two need no privilege.

pub mod banner;
mod connect;
mod crew;
mod datagram;
pub mod near;
mod raw;

use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use super::{clock, sys};
use crate::port::Technique;
use crate::port::scan::{HostSeen, Next, Plan, Progress, Scan, Shot};
use crate::probe::Moment;

pub use super::probe::setcap_hint;

/// Between two reports of progress.
const TOLD: Duration = Duration::from_millis(100);
/// The longest sleep: so soon a cancel flag is noticed.
const NAP: Duration = Duration::from_millis(50);
/// Probes to hosts on the same link, or to this host, leave at this rate while nothing answers; others at the second.
const FLOORS: (f64, f64) = (20_000.0, 4_000.0);
/// Datagrams and connections without an answer, a second.
const MODEST: f64 = 2_000.0;

/// Why a scan could not be done at all.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// This process may not open the sockets that were asked for.
    #[error("{technique} probes need CAP_NET_RAW, which this process does not have")]
    Privilege {
        /// Which.
        technique: &'static str,
        /// The command that grants it.
        hint: String,
    },
    /// A system call failed that has no business failing.
    #[error("port: cannot {operation}: {source}")]
    System {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn system(operation: &'static str) -> impl FnOnce(io::Error) -> ScanError {
    move |source| ScanError::System { operation, source }
}

/// What is asked of whom.
#[derive(Debug, Clone)]
pub struct Request {
    /// The hosts, each with the number of its link where its address needs one.
    pub hosts: Vec<(IpAddr, u32)>,
    /// The ports.
    pub ports: Vec<u16>,
    /// How.
    pub technique: Technique,
    /// Never more probes a second.
    pub rate: Option<u32>,
    /// Never more tries than this for a port.
    pub tries: u8,
    /// How long the last try waits.
    pub timeout: Option<Duration>,
    /// All hosts are on links of this host.
    pub near: bool,
    /// Hosts whose neighbour entry says that they are there.
    pub present: Vec<bool>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// By host, in the request's order.
    pub hosts: Vec<HostSeen>,
    /// It was cut short.
    pub partial: bool,
    /// Probes sent.
    pub sent: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The share of exchanges that were lost.
    pub loss: Option<f64>,
}

/// Whether single segments and datagrams of our own making may be sent from here.
pub fn may_send_raw() -> bool {
    let abilities = super::probe::abilities();
    abilities.raw && abilities.packet
}

/// A way to send probes and to hear of answers.
trait Wire {
    /// Sends what it can of these; tells the scan what was refused. Gives how many were dealt with.
    fn send(&mut self, shots: &[Shot], scan: &mut Scan, clock: Clock) -> Result<usize, ScanError>;
    /// Reads what has arrived and tells the scan. Whether there was something.
    fn receive(&mut self, scan: &mut Scan, clock: Clock) -> Result<bool, ScanError>;
    /// What to wait for.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
}

/// The run's clock: monotonic, with the wall clock's offset as it was at the start (packets are stamped by that).
#[derive(Debug, Clone, Copy)]
struct Clock {
    origin: u64,
    wall: u64,
}

impl Clock {
    fn start() -> Self {
        Self { origin: clock::monotonic_ns(), wall: clock::wall_ns() }
    }

    fn now(self) -> Moment {
        Moment(clock::monotonic_ns().saturating_sub(self.origin))
    }

    /// The moment of a packet's stamp; a stamp that cannot be (a clock that was set) is now.
    fn of_stamp(self, stamp: Option<u64>) -> Moment {
        let now = self.now();
        let at = stamp.and_then(|stamp| stamp.checked_sub(self.wall)).map(Moment);
        at.filter(|at| *at <= now && now.since(*at) < Duration::from_secs(2)).unwrap_or(now)
    }
}

/// Asks, until all is known or `cancel` is set.
///
/// # Errors
/// [`ScanError::Privilege`] before anything was sent.
pub fn run(
    request: &Request,
    cancel: &AtomicBool,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<Outcome, ScanError> {
    let clock = Clock::start();
    let hosts: Vec<IpAddr> = request.hosts.iter().map(|(address, _)| *address).collect();
    let secret = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let raw = request.technique != Technique::Connect && may_send_raw();
    let mut most_in_flight = None;
    let mut wire: Box<dyn Wire> = match request.technique {
        _ if raw => Box::new(raw::Raw::open(request, secret, clock)?),
        Technique::Udp => Box::new(datagram::Datagrams::open(request)?),
        Technique::Connect => {
            let connections = connect::Connections::open(request)?;
            most_in_flight = Some(connections.room());
            Box::new(connections)
        }
        other => return Err(ScanError::Privilege { technique: other.name(), hint: setcap_hint() }),
    };
    let floor = match (raw, request.near) {
        _ if request.technique == Technique::Udp => MODEST,
        (false, _) => MODEST,
        (true, true) => FLOORS.0,
        (true, false) => FLOORS.1,
    };
    let plan = Plan {
        hosts,
        ports: request.ports.clone(),
        technique: request.technique,
        secret,
        rate: request.rate,
        floor,
        most_in_flight,
        tries: request.tries,
        timeout: request.timeout,
        echo: raw,
        present: request.present.clone(),
    };
    let mut scan = Scan::new(plan, clock.now());
    let partial = drive(&mut scan, wire.as_mut(), clock, cancel, on_progress)?;
    let progress = scan.progress();
    on_progress(&progress);
    let elapsed = Duration::from_nanos(clock.now().0);
    Ok(Outcome { hosts: scan.finish(), partial, sent: progress.sent, elapsed, loss: progress.loss })
}

fn drive(
    scan: &mut Scan,
    wire: &mut dyn Wire,
    clock: Clock,
    cancel: &AtomicBool,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<bool, ScanError> {
    let cells = scan.plan().hosts.len() * scan.plan().ports.len();
    // The fewer probes, the more exact each one's time of leaving is wanted.
    let batch = if cells <= 256 { 1 } else { sys::BATCH };
    let mut told = clock.now();
    let mut shots: Vec<Shot> = Vec::with_capacity(batch);
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let now = clock.now();
        let mut wait = None;
        while shots.len() < batch {
            match scan.next(now) {
                Next::Send(shot) => shots.push(shot),
                Next::Wait(until) => {
                    wait = Some(until.since(now));
                    break;
                }
                Next::Done => {
                    if shots.is_empty() {
                        return Ok(false);
                    }
                    break;
                }
            }
        }
        let dealt = if shots.is_empty() { 0 } else { wire.send(&shots, scan, clock)? };
        let stuck = dealt < shots.len();
        shots.drain(..dealt);
        let heard = wire.receive(scan, clock)?;
        if now.since(told) >= TOLD {
            told = now;
            on_progress(&scan.progress());
        }
        if heard || (wait.is_none() && !stuck) || (!shots.is_empty() && !stuck) {
            continue;
        }
        let nap = if stuck { Duration::from_millis(1) } else { wait.unwrap_or(NAP).min(NAP) };
        let mut descriptors: Vec<PollFd<'_>> =
            wire.descriptors().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let _ = ppoll(&mut descriptors, Some(TimeSpec::from_duration(nap)), None);
    }
}

fn domain(v6: bool) -> Domain {
    if v6 { Domain::IPV6 } else { Domain::IPV4 }
}

fn unspecified(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// An address with its link where it needs one.
fn scoped(address: IpAddr, port: u16, link: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if link != 0 => std::net::SocketAddrV6::new(v6, port, 0, link).into(),
        _ => SocketAddr::new(address, port),
    }
}

/// The addresses that the kernel would send from, by destination; an errno's name where there is no way.
///
/// Found by connecting a datagram socket, which sends nothing.
fn sources(hosts: &[(IpAddr, u32)]) -> Vec<Result<IpAddr, &'static str>> {
    let find = |(address, link): &(IpAddr, u32)| -> io::Result<IpAddr> {
        let socket = Socket::new(domain(address.is_ipv6()), Type::DGRAM, Some(Protocol::UDP))?;
        socket.connect(&scoped(*address, 9, *link).into())?;
        Ok(socket.local_addr()?.as_socket().map_or(unspecified(address.is_ipv6()), |local| local.ip()))
    };
    hosts.iter().map(|host| find(host).map_err(|error| errno(&error))).collect()
}

/// The name of an errno that a probe may meet.
fn errno(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM",
        Some(libc::EACCES) => "EACCES",
        Some(libc::ENETUNREACH) => "ENETUNREACH",
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH",
        Some(libc::EHOSTDOWN) => "EHOSTDOWN",
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(libc::ECONNRESET) => "ECONNRESET",
        Some(libc::ETIMEDOUT) => "ETIMEDOUT",
        Some(libc::ENOPROTOOPT) => "ENOPROTOOPT",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::EMSGSIZE) => "EMSGSIZE",
        Some(libc::ENETDOWN) => "ENETDOWN",
        Some(libc::ENODEV | libc::ENXIO) => "ENODEV",
        _ => "EIO",
    }
}

/// Whether the same packet can be sent a moment later.
fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR))
}

/// The widest buffers that the kernel grants.
fn widen(socket: impl AsFd + Copy) {
    const BUFFER: i32 = 16 << 20;
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if sys::set_int(socket, libc::SOL_SOCKET, force, BUFFER).is_err() {
            let _ = sys::set_int(socket, libc::SOL_SOCKET, plain, BUFFER);
        }
    }
}
