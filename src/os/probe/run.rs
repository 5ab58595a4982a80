//! The loop.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::Socket;

use super::super::clock;
use super::super::sys::{self, BATCH, Inbox, OutMessage};
use super::deliver::{deliver, out_message};
use super::link::{Interface, interfaces};
use super::setup::{attach_filters, descriptors, fixed_port};
use super::sockets::{Role, Sockets, scoped};
use super::{ProbeError, RunOptions, errno_name};
use crate::probe::{
    Conductor, Config, Engine, Event, Local, Moment, NoConductor, Packet, PathNeeds, ProbeKind, ProbeSpec, Received,
    RunReport, Strays, Token, Transmit,
};
use crate::wire::ethertype;

/// epoll's mark of the timer, and of connections (whose token is added).
const TIMER: u64 = u64::MAX;
pub(super) const CONNECTION: u64 = 1 << 32;
/// Readings of one socket before others have their turn.
const ROUNDS: usize = 16;
/// So often a cancel flag is looked at.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);
/// A device that takes nothing for this long will not.
const STUCK: Duration = Duration::from_secs(5);
/// Shorter waits are not slept: kernels without high-resolution timers round them up to a tick of some milliseconds.
const TICK: Duration = Duration::from_micros(1500);

/// Sends these probes and reports what came back.
///
/// Blocks until every probe is over. Events are told as they happen. What a single packet meets (no route,
/// refused by a local firewall, no answer) is in its report; an error here means that nothing could be asked.
///
/// # Errors
/// [`ProbeError::Privilege`] when a probe needs sockets that this process may not open, and nothing was sent.
pub fn run(
    specs: Vec<ProbeSpec>,
    options: &RunOptions<'_>,
    on_event: &mut dyn FnMut(&Event),
) -> Result<RunReport, ProbeError> {
    let mut needs: Vec<PathNeeds> = Vec::new();
    for spec in &specs {
        let ProbeKind::Path(path) = &spec.kind else { continue };
        let need = PathNeeds { v6: path.dst.is_ipv6(), method: path.method };
        if !needs.iter().any(|have| have.v6 == need.v6 && have.method == need.method) {
            needs.push(need);
        }
    }
    let mut driver = Driver::new(specs, &needs, options)?;
    driver.drive(options, &mut NoConductor, on_event)?;
    Ok(driver.report())
}

/// What is left to say of a conducted run: its conductor has heard all the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conducted {
    /// It came to its own end.
    pub complete: bool,
    /// What arrived and matched nothing.
    pub strays: Strays,
    /// Packets the kernel dropped because this program read too slowly.
    pub receive_drops: u64,
}

/// Sends what `conductor` wants sent, until it wants no more. `needs`: all the kinds of path probes it may want.
///
/// # Errors
/// As [`run`].
pub fn conduct(
    conductor: &mut dyn Conductor,
    needs: &[PathNeeds],
    options: &RunOptions<'_>,
) -> Result<Conducted, ProbeError> {
    let mut driver = Driver::new(Vec::new(), needs, options)?;
    driver.drive(options, conductor, &mut |_| ())?;
    let complete = !driver.engine.is_cancelled();
    Ok(Conducted { complete, strays: driver.engine.strays(), receive_drops: driver.receive_drops })
}

pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) sockets: Sockets,
    pub(super) connections: HashMap<Token, Socket>,
    interfaces: HashMap<String, Interface>,
    indexes: HashMap<String, u32>,
    pub(super) epoll: Epoll,
    timer: TimerFd,
    pub(super) inbox: Inbox,
    origin: u64,
    receive_drops: u64,
}

fn io_error(errno: nix::errno::Errno) -> io::Error {
    errno.into()
}

impl Driver {
    fn new(specs: Vec<ProbeSpec>, needs: &[PathNeeds], options: &RunOptions<'_>) -> Result<Self, ProbeError> {
        let mut sockets = Sockets::open(&specs, options.unprivileged)?;
        let paths = !needs.is_empty();
        sockets.open_path(needs, options.unprivileged)?;
        let nonce = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let links = specs.iter().any(|spec| matches!(spec.kind, ProbeKind::Arp { .. } | ProbeKind::Ndp { .. }));
        let interfaces =
            if links { interfaces().map_err(ProbeError::system("list the interfaces"))? } else { HashMap::new() };
        let mut driver_links = Vec::new();
        for spec in &specs {
            let (name, kind) = match &spec.kind {
                ProbeKind::Arp { interface, .. } => (interface, ethertype::ARP),
                ProbeKind::Ndp { interface, .. } => (interface, ethertype::IPV6),
                _ => continue,
            };
            if let Some(interface) = interfaces.get(name).filter(|interface| interface.sender().is_ok()) {
                driver_links.push(sockets.link_channel(name, interface.index, kind)?);
            }
        }
        let connects = specs.iter().filter(|spec| matches!(spec.kind, ProbeKind::TcpConnect { .. })).count();
        // Both clocks are read together once; from then on only the monotonic one counts.
        let (origin, wall_ns) = (clock::monotonic_ns(), clock::wall_ns());
        let config = Config {
            wall_ns,
            nonce,
            rate: options.rate,
            deadline: options.deadline.map(|deadline| Moment(0) + deadline),
            neighbour_grace: options.neighbour_grace,
            max_connects: descriptors(connects),
            echo_id: u16::try_from(nonce >> 48).unwrap_or(0),
            kernel_echo_id: sockets.kernel_echo_id,
        };
        let tries: usize = specs.iter().map(|spec| usize::from(spec.tries.max(1))).sum();
        let echo_id = config.echo_id;
        let fixed: Vec<u16> = specs.iter().filter_map(|spec| fixed_port(&spec.kind)).collect();
        let engine = Engine::new(specs, config);
        for v6 in [false, true] {
            if sockets.tcp_channel(v6).is_some() && !paths {
                let lanes = engine
                    .lanes(|kind| matches!(kind, ProbeKind::TcpSyn { dst, sport: None, .. } if dst.is_ipv6() == v6));
                sockets.reserve(v6, lanes)?;
            }
            if !paths {
                attach_filters(&sockets, v6, echo_id, tries, &fixed)?;
            }
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io_error);
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC);
        let driver = Self {
            engine,
            sockets,
            connections: HashMap::new(),
            interfaces,
            indexes: HashMap::new(),
            epoll: epoll.map_err(ProbeError::system("open an epoll"))?,
            timer: timer.map_err(io_error).map_err(ProbeError::system("open a timer"))?,
            inbox: Inbox::new(),
            origin,
            receive_drops: 0,
        };
        let watch = EpollEvent::new(EpollFlags::EPOLLIN, TIMER);
        driver.epoll.add(&driver.timer, watch).map_err(io_error).map_err(ProbeError::system("watch a timer"))?;
        for index in 0..driver.sockets.channels.len() {
            driver.watch(index)?;
        }
        Ok(driver)
    }

    pub(super) fn watch(&self, index: usize) -> Result<(), ProbeError> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
        let channel = &self.sockets.channels[index];
        self.epoll.add(channel, event).map_err(io_error).map_err(ProbeError::system("watch a socket"))
    }

    pub(super) fn now(&self) -> Moment {
        Moment(clock::monotonic_ns().saturating_sub(self.origin))
    }

    fn drive(
        &mut self,
        options: &RunOptions<'_>,
        conductor: &mut dyn Conductor,
        on_event: &mut dyn FnMut(&Event),
    ) -> Result<(), ProbeError> {
        let mut ready = vec![EpollEvent::empty(); 256];
        loop {
            if options.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                self.engine.cancel();
            }
            let now = self.now();
            self.engine.advance(now);
            self.tell(conductor, on_event);
            let plan = conductor.plan(now);
            if plan.ends(self.engine.is_done()) || self.engine.is_cancelled() && self.engine.is_done() {
                return Ok(());
            }
            plan.send.into_iter().for_each(|spec| self.engine.push(spec));
            let sending = self.send()?;
            for token in self.engine.closed() {
                self.connections.remove(&token);
            }
            let told = self.tell(conductor, on_event);
            let wait = if sending || told { Duration::ZERO } else { self.arm(plan.wake, options)? };
            let wait = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX);
            let count = match self.epoll.wait(&mut ready, wait) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(ProbeError::system("wait for packets")(errno.into())),
            };
            if count > 0 {
                self.read_stamps();
            }
            for event in &ready[..count] {
                match event.data() {
                    TIMER => {
                        let _ = self.timer.wait();
                    }
                    data if data >= CONNECTION => {
                        self.on_connection(Token(u32::try_from(data - CONNECTION).unwrap_or(u32::MAX)), event.events());
                    }
                    data => self.receive(usize::try_from(data).unwrap_or(usize::MAX)),
                }
            }
        }
    }

    fn tell(&mut self, conductor: &mut dyn Conductor, on_event: &mut dyn FnMut(&Event)) -> bool {
        let now = self.now();
        let mut told = false;
        while let Some(event) = self.engine.event() {
            conductor.heard(&event, now);
            on_event(&event);
            told = true;
        }
        told
    }

    /// Sets the timer to when the engine wants to be woken; gives the longest wait beside it.
    fn arm(&self, wake: Option<Moment>, options: &RunOptions<'_>) -> Result<Duration, ProbeError> {
        if self.is_stuck() {
            return Ok(Duration::from_millis(1));
        }
        let longest = if options.cancel.is_some() { CANCEL_INTERVAL } else { Duration::from_secs(60) };
        let Some(at) = [self.engine.wake_at(), wake].into_iter().flatten().min() else { return Ok(longest) };
        let span = at.since(self.now());
        if span < TICK {
            std::thread::yield_now();
            return Ok(Duration::ZERO);
        }
        let expiration = Expiration::OneShot(TimeSpec::from(span));
        self.timer
            .set(expiration, TimerSetTimeFlags::empty())
            .map_err(io_error)
            .map_err(ProbeError::system("set a timer"))?;
        Ok(longest)
    }

    /// Sends what is due, one batch; whether there may be more at once.
    fn send(&mut self) -> Result<bool, ProbeError> {
        let mut count = 0;
        while count < BATCH && !self.is_stuck() {
            let now = self.now();
            let Some(transmit) = self.engine.poll(now) else { break };
            count += 1;
            let interface = match self.engine.spec(&transmit).via.clone().map(|via| self.interface_index(&via)) {
                None => 0,
                Some(Ok(index)) => index,
                Some(Err(errno)) => {
                    self.engine.failed(transmit.token, &errno);
                    continue;
                }
            };
            if let Err(errno) = self.dispatch(&transmit, interface)? {
                self.engine.failed(transmit.token, &errno);
            }
        }
        for index in 0..self.sockets.channels.len() {
            self.flush(index);
        }
        Ok(count == BATCH)
    }

    /// Whether the kernel has yet to take what was given to it.
    fn is_stuck(&self) -> bool {
        self.sockets.channels.iter().any(|channel| !channel.out.is_empty() && channel.stuck.is_some())
    }

    fn interface_index(&mut self, name: &str) -> Result<u32, String> {
        if let Some(index) = self.indexes.get(name) {
            return Ok(*index);
        }
        let index = if_nametoindex(name).map_err(|errno| format!("{errno:?}"))?;
        self.indexes.insert(name.to_owned(), index);
        Ok(index)
    }

    /// Puts a try into its socket's queue. The inner error is the name of a local errno.
    fn dispatch(&mut self, transmit: &Transmit, interface: u32) -> Result<Result<(), String>, ProbeError> {
        let kind = &self.engine.spec(transmit).kind;
        if let Some(path) = super::path::of(kind) {
            return self.dispatch_path(transmit, path, interface);
        }
        let v6 = kind.dst().is_ipv6();
        let (channel, local) = match kind {
            ProbeKind::TcpConnect { .. } | ProbeKind::Path(_) => return Ok(self.open_connection(transmit)),
            ProbeKind::IcmpEcho { .. } => {
                (self.sockets.icmp_channel(v6), Local::Address(SocketAddr::new(kind.dst(), 0)))
            }
            ProbeKind::TcpSyn { dst, src, .. } => {
                let (dst, src) = (*dst, *src);
                let ip = match src.map_or_else(|| self.sockets.source_for(dst, interface), Ok) {
                    Ok(ip) => ip,
                    Err(errno) => return Ok(Err(errno)),
                };
                let port = self.sockets.tcp_port(v6, transmit.source);
                (self.sockets.tcp_channel(v6), Local::Address(SocketAddr::new(ip, port)))
            }
            ProbeKind::Udp { src, .. } => {
                let src = *src;
                let (index, port, new) = match self.sockets.udp_channel(v6, src, transmit.source) {
                    Ok(found) => found,
                    Err(error) => return Ok(Err(errno_name(&error))),
                };
                if new {
                    self.watch(index)?;
                }
                let ip = src.unwrap_or(super::sockets::unspecified(v6));
                (Some(index), Local::Address(SocketAddr::new(ip, port)))
            }
            ProbeKind::Arp { interface: name, .. } | ProbeKind::Ndp { interface: name, .. } => {
                let Some(found) = self.interfaces.get(name) else { return Ok(Err("ENODEV".to_owned())) };
                let mac = match found.sender() {
                    Ok(mac) => mac,
                    Err(errno) => return Ok(Err(errno.to_owned())),
                };
                let ethertype = if v6 { ethertype::IPV6 } else { ethertype::ARP };
                let local = Local::Link(mac, found.address_for(kind.dst()));
                let (index, name) = (found.index, name.clone());
                let (channel, new) = self.sockets.link_channel(&name, index, ethertype)?;
                if new {
                    self.watch(channel)?;
                }
                let packet = self.engine.prepare(transmit, local);
                if let Packet::Frame(bytes) = packet {
                    let message = OutMessage::frame(index, ethertype, bytes);
                    self.sockets.channels[channel].out.push((transmit.token, message));
                }
                return Ok(Ok(()));
            }
        };
        let Some(channel) = channel else { return Ok(Err("ENOTSOCK".to_owned())) };
        let message = match self.engine.prepare(transmit, local) {
            Packet::Ip { src, dst, ttl, bytes, .. } => {
                out_message(scoped(dst, 0, interface), src, ttl, interface, bytes)
            }
            Packet::Udp { dst, ttl, payload } => {
                out_message(scoped(dst.ip(), dst.port(), interface), None, ttl, interface, payload)
            }
            Packet::Connect { .. } | Packet::Frame(_) | Packet::Whole { .. } => return Ok(Err("EINVAL".to_owned())),
        };
        self.sockets.channels[channel].out.push((transmit.token, message));
        Ok(Ok(()))
    }

    fn flush(&mut self, index: usize) {
        let mut out = std::mem::take(&mut self.sockets.channels[index].out);
        let mut retried = None;
        while !out.is_empty() {
            // A batch does not say why it stopped, so its failing packet has to be sent twice to know: local
            // firewalls would count it twice. Small runs, where someone may look at counters, go one by one.
            let size = if out.len() <= 8 { 1 } else { out.len().min(BATCH) };
            let messages: Vec<OutMessage> = out[..size].iter().map(|(_, message)| message.clone()).collect();
            let now = self.now();
            match sys::send_batch(self.sockets.channels[index].as_fd(), &messages) {
                Ok(0) => break,
                Ok(count) => {
                    self.sockets.channels[index].stuck = None;
                    for (token, _) in out.drain(..count) {
                        self.engine.sent(token, now);
                    }
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => {
                    // The device's queue, or the socket's buffer, is full: the rest waits its turn.
                    let since = *self.sockets.channels[index].stuck.get_or_insert(now);
                    if now.since(since) < STUCK {
                        break;
                    }
                    out.drain(..).for_each(|(token, _)| self.engine.failed(token, &errno_name(&error)));
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // The error of an earlier packet waits on this socket and was reported instead of sending this
                // one (ip(7), IP_RECVERR). Taking it off the queue clears it.
                Err(error) if retried != Some(out[0].0) => {
                    retried = Some(out[0].0);
                    if self.may_be_pending(index, &error) {
                        self.receive(index);
                    } else {
                        retried = None;
                        let (token, _) = out.remove(0);
                        self.engine.failed(token, &errno_name(&error));
                    }
                }
                Err(error) => {
                    let (token, _) = out.remove(0);
                    self.engine.failed(token, &errno_name(&error));
                }
            }
        }
        let channel = &mut self.sockets.channels[index];
        out.append(&mut channel.out);
        channel.out = out;
    }

    /// Whether an errno can be that of an earlier packet. No ICMP error becomes EPERM (`icmp_err_convert`): that is a
    /// local firewall, which would count a second attempt.
    fn may_be_pending(&self, index: usize, error: &io::Error) -> bool {
        error.raw_os_error() != Some(libc::EPERM)
            && matches!(self.sockets.channels[index].role, Role::Ping(_) | Role::Udp(_))
    }

    /// Reads what waits on a socket: its error queue first, so that stamps of sent packets are there before answers.
    pub(super) fn receive(&mut self, index: usize) {
        for error_queue in [true, false] {
            for _ in 0..ROUNDS {
                let Some(channel) = self.sockets.channels.get_mut(index) else { return };
                // A pending socket error is reported once here instead of packets; reading on is right.
                let count = match self.inbox.receive(channel.socket.as_fd(), error_queue) {
                    Ok(count) => count,
                    Err(_) if !error_queue => continue,
                    Err(_) => break,
                };
                let user = Moment(clock::monotonic_ns().saturating_sub(self.origin));
                for at in 0..count {
                    let message = self.inbox.get(at);
                    if let Some(drops) = message.drops {
                        self.receive_drops += u64::from(drops.wrapping_sub(channel.drops));
                        channel.drops = drops;
                    }
                    let received = Received { user, kernel_ns: message.stamp_ns };
                    deliver(&mut self.engine, &channel.role, &message, received);
                }
                if count < BATCH {
                    break;
                }
            }
        }
    }

    fn report(mut self) -> RunReport {
        // Stamps of the last packets sent may still wait.
        for index in 0..self.sockets.channels.len() {
            self.receive(index);
        }
        self.engine.finish_run(self.receive_drops)
    }
}
