//! Connections by the kernel's own TCP. Each try is a socket; the error queue names who sent an ICMP error.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Protocol, Socket, Type};

use super::super::sys::{self, Inbox};
use super::{Clock, Request, ScanError, Wire, domain, errno, is_busy, scoped, system};
use crate::port::scan::{Aim, Answer, Reply, Scan, Shot};
use crate::probe::Moment;

/// Descriptors left for everything else.
const SPARE: usize = 40;
/// More sockets than this at once help nobody.
const MOST: usize = 8192;
/// So many attempts in a row that were not over at once, and nobody looks at once any more.
const AT_ONCE: i8 = 16;
/// `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6`.
const BY_ICMP: [u8; 2] = [2, 3];

struct Attempt {
    socket: Socket,
    shot: Shot,
}

pub(super) struct Connections {
    hosts: Vec<(IpAddr, u32)>,
    ports: Vec<u16>,
    room: usize,
    epoll: Epoll,
    open: HashMap<u64, Attempt>,
    /// In the order of their opening: when there is no more room the oldest goes.
    order: VecDeque<u64>,
    next: u64,
    /// Attempts in a row that were over when `connect` came back, or not: where that is the rule (links without delay)
    /// it is worth looking at once.
    at_once: i8,
    inbox: Inbox,
}

impl Connections {
    pub(super) fn open(request: &Request) -> Result<Self, ScanError> {
        let wanted = (request.hosts.len() * request.ports.len() * 2).clamp(64, MOST);
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| system("open an epoll")(errno.into()))?;
        Ok(Self {
            hosts: request.hosts.clone(),
            ports: request.ports.clone(),
            room: descriptors(wanted),
            epoll,
            open: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
            at_once: AT_ONCE,
            inbox: Inbox::for_packets(2),
        })
    }

    /// How many connections may be on their way at once: earlier tries of a port stay open beside the latest.
    pub(super) fn room(&self) -> usize {
        (self.room / 2).max(1)
    }

    /// Ends an attempt (epoll forgets a socket that is closed).
    fn close(&mut self, token: u64) {
        self.open.remove(&token);
    }

    /// Ends a connection that stands: by a reset instead of a farewell, as nobody was to be spoken with.
    fn reset(&mut self, token: u64) {
        if let Some(attempt) = self.open.remove(&token) {
            let _ = attempt.socket.set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Tells the scan how an attempt ended, if it has. Whether it has.
    fn settle(&mut self, token: u64, scan: &mut Scan, clock: Clock) -> bool {
        let Some((shot, by, ttl, answer, at)) = self.outcome(token, clock) else { return false };
        if answer == Answer::Connected {
            self.reset(token);
        } else {
            self.close(token);
        }
        scan.heard(shot.host, shot.aim, Reply { number: Some(shot.number), by, ttl, answer }, at);
        true
    }

    /// Reads how an attempt ended; none while it has not.
    fn outcome(&mut self, token: u64, clock: Clock) -> Option<(Shot, IpAddr, Option<u8>, Answer, Moment)> {
        let attempt = self.open.get(&token)?;
        let shot = attempt.shot;
        let asked = self.hosts.get(shot.host as usize)?.0;
        let now = clock.now();
        match attempt.socket.take_error() {
            Ok(None) => match attempt.socket.peer_addr() {
                Ok(_) => Some((shot, asked, None, Answer::Connected, now)),
                Err(_) => self.told(token, clock).map(|(by, ttl, answer, at)| (shot, by, ttl, answer, at)),
            },
            Ok(Some(error)) | Err(error) => {
                if let Some((by, ttl, answer, at)) = self.told(token, clock) {
                    return Some((shot, by, ttl, answer, at));
                }
                let answer = match error.raw_os_error() {
                    Some(libc::ECONNREFUSED | libc::ECONNRESET) => Answer::Refused,
                    _ => Answer::Failed(errno(&error)),
                };
                Some((shot, asked, None, answer, now))
            }
        }
    }

    /// The ICMP error in the socket's error queue.
    fn told(&mut self, token: u64, clock: Clock) -> Option<(IpAddr, Option<u8>, Answer, Moment)> {
        let attempt = self.open.get(&token)?;
        let asked = self.hosts.get(attempt.shot.host as usize)?.0;
        // Control messages are made when the queue is read: the TTL need not be asked for before.
        let (level, name) = if asked.is_ipv6() {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)
        } else {
            (libc::IPPROTO_IP, libc::IP_RECVTTL)
        };
        let _ = sys::set_int(&attempt.socket, level, name, 1);
        let got = self.inbox.receive(attempt.socket.as_fd(), true).unwrap_or(0);
        (0..got).find_map(|at| {
            let message = self.inbox.get(at);
            let error = message.error.filter(|error| BY_ICMP.contains(&error.origin))?;
            let answer = Answer::Icmp { v6: error.origin == 3, kind: error.icmp_type, code: error.code };
            Some((error.offender.unwrap_or(asked), message.ttl, answer, clock.of_stamp(message.stamp_ns)))
        })
    }

    fn begin(&mut self, shot: Shot, scan: &mut Scan, clock: Clock) -> Result<bool, ScanError> {
        let Aim::Port(place) = shot.aim else { return Ok(true) };
        let (Some((address, link)), Some(port)) = (self.hosts.get(shot.host as usize), self.ports.get(place as usize))
        else {
            return Ok(true);
        };
        let (address, link, port) = (*address, *link, *port);
        while self.open.len() >= self.room {
            let Some(oldest) = self.order.pop_front() else { break };
            self.close(oldest);
        }
        let kind = Type::from(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        let socket = match Socket::new(domain(address.is_ipv6()), kind, Some(Protocol::TCP)) {
            Ok(socket) => socket,
            Err(error) if is_busy(&error) || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                match self.order.pop_front() {
                    Some(oldest) => self.close(oldest),
                    None => return Err(system("open a socket")(error)),
                }
                return Ok(false);
            }
            Err(error) => {
                scan.refused(shot, errno(&error), clock.now());
                return Ok(true);
            }
        };
        // With an error queue the ICMP error that ends the attempt names its sender (Linux 5.18).
        if address.is_ipv6() {
            let _ = sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1);
        } else {
            let _ = sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
        }
        let token = self.next;
        self.next += 1;
        scan.left(shot, clock.now());
        let connected = socket.connect(&scoped(address, port, link).into());
        match &connected {
            Err(error) if is_busy(error) && error.raw_os_error() != Some(libc::EINPROGRESS) => return Ok(false),
            Err(error)
                if !matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::ECONNREFUSED | libc::ETIMEDOUT)) =>
            {
                scan.refused(shot, errno(error), clock.now());
                return Ok(true);
            }
            _ => {}
        }
        self.open.insert(token, Attempt { socket, shot });
        match connected {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                if self.at_once > 0 {
                    if self.settle(token, scan, clock) {
                        self.at_once = AT_ONCE;
                        return Ok(true);
                    }
                    self.at_once -= 1;
                }
                let events = EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP | EpollFlags::EPOLLET;
                let event = EpollEvent::new(events, token);
                if let Some(attempt) = self.open.get(&token) {
                    self.epoll.add(&attempt.socket, event).map_err(|errno| system("watch a socket")(errno.into()))?;
                }
                self.order.push_back(token);
            }
            other => {
                // Over at once: this host, or an answer that was faster than the call.
                let told = self.told(token, clock);
                let (by, ttl, answer, at) = told.unwrap_or_else(|| {
                    let answer = match other {
                        Ok(()) => Answer::Connected,
                        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Answer::Refused,
                        Err(error) => Answer::Failed(errno(&error)),
                    };
                    (address, None, answer, clock.now())
                });
                self.close(token);
                scan.heard(shot.host, shot.aim, Reply { number: Some(shot.number), by, ttl, answer }, at);
            }
        }
        Ok(true)
    }
}

/// How many sockets may be open; asks for more when that would help.
fn descriptors(wanted: usize) -> usize {
    let count = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(SPARE).max(2);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 256 };
    if wanted <= count(soft) {
        return wanted;
    }
    let raised = hard.min((wanted + SPARE) as u64);
    let limit = if raised > soft && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_ok() { raised } else { soft };
    count(limit).min(wanted)
}

impl Wire for Connections {
    fn send(&mut self, shots: &[Shot], scan: &mut Scan, clock: Clock) -> Result<usize, ScanError> {
        for (at, shot) in shots.iter().enumerate() {
            if !self.begin(*shot, scan, clock)? {
                return Ok(at);
            }
        }
        Ok(shots.len())
    }

    fn receive(&mut self, scan: &mut Scan, clock: Clock) -> Result<bool, ScanError> {
        let mut events = [EpollEvent::empty(); 256];
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..ready] {
            let token = event.data();
            self.settle(token, scan, clock);
        }
        // Attempts whose port was answered by another try, and closed ones, are done with.
        while let Some(token) = self.order.front().copied() {
            let done = self.open.get(&token).is_none_or(|attempt| match attempt.shot.aim {
                Aim::Port(port) => scan.is_settled(attempt.shot.host, port),
                Aim::Echo => true,
            });
            if !done {
                break;
            }
            self.order.pop_front();
            self.close(token);
        }
        Ok(ready > 0)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.epoll.0.as_fd()]
    }
}
