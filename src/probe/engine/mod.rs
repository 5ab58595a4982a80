//! The engine: which try is due, which try an arrival answers, when a probe is over.

mod build;
mod matching;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use build::{Local, Packet};
pub use matching::{Arrival, ConnectedSocket, QueuedError, Received};

use super::pace::Pacer;
use super::{Event, Moment, Outcome, ProbeKind, ProbeReport, ProbeSpec, Reply, RttSource, RunReport, Sent, Strays};
use crate::wire::{HexBytes, IcmpFamily};

/// More source ports than this are not reserved for probes of one and the same port: they are used again.
const MAX_LANES: u16 = 512;

/// One try of one probe, to be handed back when something becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u32);

/// Which source port a try leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourcePort {
    /// The n-th that the driver reserved: no two tries to the same port share one while they can be confused.
    Lane(u16),
    /// The one that the caller named.
    Fixed(u16),
    /// The probe has no ports.
    None,
}

/// A try that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Its name.
    pub token: Token,
    /// Index of the spec.
    pub probe: usize,
    /// From which port.
    pub source: SourcePort,
}

/// What the driver knows when a run begins.
#[derive(Debug, Clone)]
pub struct Config {
    /// Wall clock at [`Moment`] 0, nanoseconds since 1970-01-01 UTC.
    pub wall_ns: u64,
    /// A number nobody can guess: sequence numbers and cookies come from it.
    pub nonce: u64,
    /// Packets a second; `None`: as fast as the driver takes them.
    pub rate: Option<u32>,
    /// The run ends here, whatever is open.
    pub deadline: Option<Moment>,
    /// How long ARP and NDP probes wait for a second answer after the first.
    pub neighbour_grace: Duration,
    /// Connections open at a time (file descriptors).
    pub max_connects: usize,
    /// First ICMP identifier for v4 and v6, where the sender chooses it (raw sockets).
    pub echo_id: u16,
    /// The identifiers that the kernel forces on datagram sockets, v4 and v6.
    pub kernel_echo_id: [Option<u16>; 2],
}

impl Default for Config {
    fn default() -> Self {
        Self {
            wall_ns: 0,
            nonce: 0,
            rate: None,
            deadline: None,
            neighbour_grace: Duration::from_millis(200),
            max_connects: 500,
            echo_id: 0x5257,
            kernel_echo_id: [None, None],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Answered, but further answers are waited for.
    Lingering,
    Done,
}

struct Probe {
    spec: ProbeSpec,
    phase: Phase,
    tries: u8,
    lane: u16,
    outcome: Outcome,
    local_error: Option<String>,
    attempts: Vec<u32>,
    replies: Vec<StampedReply>,
}

struct StampedReply {
    reply: Reply,
    attempt: u32,
    received: Received,
    /// Whether `attempt` is certain.
    exact: bool,
}

struct Attempt {
    probe: usize,
    number: u8,
    source: SourcePort,
    /// User-space clock just before the system call.
    sent: Option<Moment>,
    /// Kernel's stamp, wall clock.
    kernel_ns: Option<u64>,
    local: Option<SocketAddr>,
    /// TCP sequence number.
    isn: u32,
    /// A path probe's packet, until it is told.
    packet: Option<HexBytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Retry,
    End,
    LingerEnd,
}

/// One run of many probes. See the module's documentation for how it is driven.
pub struct Engine {
    config: Config,
    probes: Vec<Probe>,
    attempts: Vec<Attempt>,
    ready: VecDeque<usize>,
    /// Connections that wait for a free descriptor.
    parked: VecDeque<usize>,
    timers: BinaryHeap<Reverse<(Moment, usize, Timer)>>,
    pacer: Pacer,
    open: usize,
    connects: usize,
    closed: Vec<Token>,
    events: VecDeque<Event>,
    echoes: HashMap<(IcmpFamily, u16, u16), u32>,
    segments: HashMap<u32, u32>,
    /// (protocol, mark) → latest path probe with it.
    marks: HashMap<(u8, u16), u32>,
    /// (protocol, destination, destination port, source port) → latest try.
    tuples: HashMap<(u8, IpAddr, u16, u16), u32>,
    neighbours: HashMap<IpAddr, Vec<u32>>,
    strays: Strays,
    started: Option<Moment>,
    last: Moment,
    cancelled: bool,
}

impl Engine {
    /// A run of these probes, in this order.
    pub fn new(specs: Vec<ProbeSpec>, config: Config) -> Self {
        let mut lanes: HashMap<(bool, IpAddr, u16), u16> = HashMap::new();
        let mut lane = |spec: &ProbeSpec| {
            let key = match &spec.kind {
                ProbeKind::TcpSyn { dst, dport, sport: None, .. } => (true, *dst, *dport),
                ProbeKind::Udp { dst, dport, sport: None, .. } => (false, *dst, *dport),
                _ => return 0,
            };
            let used = lanes.entry(key).or_default();
            let first = *used;
            *used = (*used + u16::from(spec.sends())) % MAX_LANES;
            first
        };
        let probes: Vec<Probe> = specs
            .into_iter()
            .map(|spec| Probe {
                lane: lane(&spec),
                spec,
                phase: Phase::Open,
                tries: 0,
                outcome: Outcome::Cancelled,
                local_error: None,
                attempts: Vec::new(),
                replies: Vec::new(),
            })
            .collect();
        Self {
            pacer: Pacer::new(config.rate),
            config,
            attempts: Vec::with_capacity(probes.len()),
            ready: (0..probes.len()).collect(),
            parked: VecDeque::new(),
            timers: BinaryHeap::new(),
            open: probes.len(),
            probes,
            connects: 0,
            closed: Vec::new(),
            events: VecDeque::new(),
            echoes: HashMap::new(),
            segments: HashMap::new(),
            marks: HashMap::new(),
            tuples: HashMap::new(),
            neighbours: HashMap::new(),
            strays: Strays::default(),
            started: None,
            last: Moment(0),
            cancelled: false,
        }
    }

    /// Adds a probe to the run.
    pub fn push(&mut self, spec: ProbeSpec) {
        self.ready.push_back(self.probes.len());
        self.open += 1;
        self.probes.push(Probe {
            lane: 0,
            spec,
            phase: Phase::Open,
            tries: 0,
            outcome: Outcome::Cancelled,
            local_error: None,
            attempts: Vec::new(),
            replies: Vec::new(),
        });
    }

    /// What arrived so far and matched nothing.
    pub fn strays(&self) -> Strays {
        self.strays
    }

    /// Whether it was told to end ([`Self::cancel`], or its deadline has come).
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// What a try belongs to.
    pub fn spec(&self, transmit: &Transmit) -> &ProbeSpec {
        &self.probes[transmit.probe].spec
    }

    /// Lets timers fire; call it before [`Self::poll`] and whenever [`Self::wake_at`] has come.
    pub fn advance(&mut self, now: Moment) {
        self.started.get_or_insert(now);
        self.last = self.last.max(now);
        if self.config.deadline.is_some_and(|deadline| now >= deadline) {
            self.cancel();
        }
        while let Some(Reverse((at, probe, timer))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            match (timer, self.probes[probe].phase) {
                (Timer::Retry, Phase::Open) => self.ready.push_back(probe),
                (Timer::End, Phase::Open) => self.conclude(probe, Outcome::Silent),
                (Timer::LingerEnd, Phase::Lingering) => self.finish(probe),
                _ => {}
            }
        }
    }

    /// The next try that may leave now. Every try given out must come back by [`Self::sent`],
    /// [`Self::failed`] or [`Self::busy`].
    pub fn poll(&mut self, now: Moment) -> Option<Transmit> {
        if self.cancelled || self.pacer.next() > now {
            return None;
        }
        if self.connects < self.config.max_connects.max(1) {
            self.ready.extend(self.parked.pop_front());
        }
        loop {
            let index = self.ready.pop_front()?;
            let probe = &self.probes[index];
            if probe.phase != Phase::Open {
                continue;
            }
            let connect = matches!(probe.spec.kind, ProbeKind::TcpConnect { .. });
            if connect && self.connects >= self.config.max_connects.max(1) {
                self.parked.push_back(index);
                continue;
            }
            let Ok(token) = u32::try_from(self.attempts.len()) else { return None };
            let source = match probe.spec.kind {
                ProbeKind::Path(path) => SourcePort::Lane(path.flow),
                ProbeKind::TcpSyn { sport: Some(port), .. } | ProbeKind::Udp { sport: Some(port), .. } => {
                    SourcePort::Fixed(port)
                }
                ProbeKind::TcpSyn { .. } | ProbeKind::Udp { .. } => {
                    SourcePort::Lane((probe.lane + u16::from(probe.tries)) % MAX_LANES)
                }
                _ => SourcePort::None,
            };
            let number = probe.tries.saturating_add(1);
            self.attempts.push(Attempt {
                probe: index,
                number,
                source,
                sent: None,
                kernel_ns: None,
                local: None,
                isn: build::sequence_number(self.config.nonce, token),
                packet: None,
            });
            self.connects += usize::from(connect);
            self.pacer.take(now);
            return Some(Transmit { token: Token(token), probe: index, source });
        }
    }

    /// Whether the n-th lane is used by any probe to come (so that ports can be reserved before the first is sent).
    pub fn lanes(&self, wanted: impl Fn(&ProbeKind) -> bool) -> u16 {
        let lanes = self.probes.iter().filter(|probe| wanted(&probe.spec.kind));
        lanes.map(|probe| (probe.lane + u16::from(probe.spec.sends())).min(MAX_LANES)).max().unwrap_or(0)
    }

    /// The try is about to leave: the clock is read just before the system call.
    pub fn sent(&mut self, token: Token, now: Moment) {
        let Some(attempt) = self.attempts.get_mut(token.0 as usize) else { return };
        attempt.sent = Some(now);
        let (index, number, packet) = (attempt.probe, attempt.number, attempt.packet.take());
        let probe = &mut self.probes[index];
        probe.tries = number;
        probe.attempts.push(token.0);
        let (timer, span) = if number < probe.spec.sends() {
            (Timer::Retry, probe.spec.gap())
        } else {
            (Timer::End, probe.spec.patience())
        };
        self.timers.push(Reverse((now + span, index, timer)));
        self.events.push_back(Event::Sent { id: probe.spec.id, number, packet });
    }

    /// This host refused to send the try. That is a result: the errno's name is kept.
    pub fn failed(&mut self, token: Token, errno: &str) {
        let Some(index) = self.withdraw(token) else { return };
        let probe = &mut self.probes[index];
        if matches!(probe.spec.kind, ProbeKind::TcpConnect { .. }) {
            self.connects = self.connects.saturating_sub(1);
        }
        if probe.phase == Phase::Open {
            probe.local_error = Some(errno.to_owned());
            self.conclude(index, Outcome::LocalError);
        }
    }

    /// The try could not leave for want of descriptors or buffers (the errno's name): it is due again when one
    /// is freed. Where none is in use by this run, none will be, and the errno is its result.
    pub fn busy(&mut self, token: Token, errno: &str) {
        let Some(index) = self.withdraw(token) else { return };
        let connect = matches!(self.probes[index].spec.kind, ProbeKind::TcpConnect { .. });
        if !connect || self.connects <= 1 {
            return self.failed(token, errno);
        }
        self.connects -= 1;
        self.config.max_connects = self.connects;
        self.parked.push_front(index);
    }

    /// Takes back what [`Self::sent`] noted, should the system call have failed after it.
    fn withdraw(&mut self, token: Token) -> Option<usize> {
        let attempt = self.attempts.get_mut(token.0 as usize)?;
        let index = attempt.probe;
        if attempt.sent.take().is_some() {
            let number = attempt.number;
            let probe = &mut self.probes[index];
            probe.attempts.retain(|known| *known != token.0);
            probe.tries = number - 1;
        }
        Some(index)
    }

    /// When [`Self::advance`] or [`Self::poll`] has something to do next; `None`: only an arrival will bring it on.
    pub fn wake_at(&self) -> Option<Moment> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let sending = (!self.ready.is_empty() && !self.cancelled).then(|| self.pacer.next());
        [timer, sending, self.config.deadline].into_iter().flatten().min()
    }

    /// Ends the run: open probes are [`Outcome::Cancelled`], or [`Outcome::Silent`] never without their full wait.
    pub fn cancel(&mut self) {
        self.cancelled = true;
        self.ready.clear();
        self.parked.clear();
        for index in 0..self.probes.len() {
            match self.probes[index].phase {
                Phase::Open => self.conclude(index, Outcome::Cancelled),
                Phase::Lingering => self.finish(index),
                Phase::Done => {}
            }
        }
    }

    /// Whether every probe is over.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// Connections that are no longer of use, so that their sockets can be closed.
    pub fn closed(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.closed)
    }

    /// The next event.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn conclude(&mut self, index: usize, outcome: Outcome) {
        let probe = &mut self.probes[index];
        if probe.phase != Phase::Open {
            return;
        }
        probe.outcome = outcome;
        let neighbour = matches!(probe.spec.kind, ProbeKind::Arp { .. } | ProbeKind::Ndp { .. });
        if neighbour && outcome == Outcome::Answered && !self.config.neighbour_grace.is_zero() {
            probe.phase = Phase::Lingering;
            self.timers.push(Reverse((self.last + self.config.neighbour_grace, index, Timer::LingerEnd)));
        } else {
            self.finish(index);
        }
    }

    fn finish(&mut self, index: usize) {
        let probe = &mut self.probes[index];
        probe.phase = Phase::Done;
        self.open -= 1;
        if let ProbeKind::Path(_) = probe.spec.kind {
            self.closed.extend(probe.attempts.last().map(|token| Token(*token)));
        }
        if matches!(probe.spec.kind, ProbeKind::TcpConnect { .. }) {
            // One that was never begun holds no socket.
            self.closed.extend(probe.attempts.last().map(|token| Token(*token)));
            self.connects = self.connects.saturating_sub(probe.attempts.len());
        }
        let local_error = probe.local_error.clone();
        self.events.push_back(Event::Done { id: probe.spec.id, outcome: probe.outcome, local_error });
    }

    fn wall(&self, moment: Moment) -> u64 {
        self.config.wall_ns.saturating_add(moment.0)
    }

    /// The round trip of a try, by the kernel's two stamps where both are there and can be true.
    ///
    /// Between them lies less than between the program's own two clock readings; stamps that say otherwise
    /// come from a clock that was set in between, or from the kernel's late start of stamping.
    fn round_trip(attempt: &Attempt, received: Received) -> Option<(f64, RttSource)> {
        const SLACK: Duration = Duration::from_micros(5);
        let user = received.user.since(attempt.sent?);
        let kernel = received.kernel_ns.zip(attempt.kernel_ns).and_then(|(back, out)| back.checked_sub(out));
        Some(match kernel.map(Duration::from_nanos) {
            Some(kernel) if kernel <= user + SLACK => (microseconds(kernel), RttSource::Kernel),
            _ => (microseconds(user), RttSource::User),
        })
    }

    /// The results. Probes not over by now count as cancelled.
    pub fn finish_run(mut self, receive_drops: u64) -> RunReport {
        let complete = self.open == 0 && !self.cancelled;
        self.cancel();
        let mut reports = Vec::with_capacity(self.probes.len());
        for probe in &self.probes {
            let sent = probe.attempts.iter().map(|index| {
                let attempt = &self.attempts[*index as usize];
                let user = self.wall(attempt.sent.unwrap_or_default());
                // A stamp from before the call, or a second after it, is another packet's or another clock's.
                let kernel = attempt.kernel_ns.filter(|at| at.abs_diff(user) < 1_000_000_000);
                Sent {
                    number: attempt.number,
                    at_ns: kernel.unwrap_or(user),
                    kernel_time: kernel.is_some(),
                    local: attempt.local,
                }
            });
            let replies = probe.replies.iter().map(|stamped| {
                let mut reply = stamped.reply.clone();
                // The kernel's stamp of the sending may have come after the reply itself.
                if stamped.exact && reply.rtt_source == Some(RttSource::User) {
                    let trip = Self::round_trip(&self.attempts[stamped.attempt as usize], stamped.received);
                    (reply.rtt_us, reply.rtt_source) = (trip.map(|trip| trip.0), trip.map(|trip| trip.1));
                }
                reply
            });
            reports.push(ProbeReport {
                id: probe.spec.id,
                outcome: probe.outcome,
                local_error: probe.local_error.clone(),
                sent: sent.collect(),
                replies: replies.collect(),
            });
        }
        let elapsed = self.last.since(self.started.unwrap_or(self.last));
        let elapsed_ms = f64::from(u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX)) / 1000.0;
        RunReport { probes: reports, complete, elapsed_ms, strays: self.strays, receive_drops }
    }
}

/// With three decimals, no more: nothing is known below the nanosecond, and such numbers survive JSON unchanged.
fn microseconds(span: Duration) -> f64 {
    let nanos = span.subsec_nanos() % 1000;
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    (f64::from(micros) * 1000.0 + f64::from(nanos)) / 1000.0
}
