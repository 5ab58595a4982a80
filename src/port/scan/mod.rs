//! The scan engine, sans-IO: it is told the time and what arrived, and says which port of which host to ask
//! next. Retransmission, timeouts, pace and the number of tries are decided here; sockets are `os::scan`'s.
//!
//! Every port keeps accepting an answer until the whole scan ends. How often it is asked follows from the
//! loss seen so far (`control`); a port that was given up early is asked again when more loss comes to light.

mod cells;
mod control;
mod slow;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

pub use cells::{Answer, Evidence, Reply};

use super::Technique;
use crate::probe::{Moment, RttEstimator};
use cells::{Cell, Status};
use control::Control;
use slow::Limit;

/// How long a try waits before the next, while the round trip is not known.
const GAP_UNKNOWN: Duration = Duration::from_millis(200);
/// How long the last try waits then.
const LAST_UNKNOWN: Duration = Duration::from_millis(800);
/// Bounds of the wait once it is known.
const GAP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// A router says that a host is down when its third request for the host's address has gone unanswered
/// (`arp_ip_output`, retrans_time_ms 1000, mcast_solicit 3).
const HOST_DOWN_AFTER: Duration = Duration::from_millis(3300);
/// Between two canaries of one host.
const CANARY: Duration = Duration::from_millis(50);
/// Echoes to a host that answers nothing.
const ECHOES: u8 = 4;
/// This many "host unreachable" without one sign of life: the host is down, no more is asked of it.
const DOWN: u32 = 5;
/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aim {
    /// The port at this place in the plan's list.
    Port(u32),
    /// Whether the host is there at all.
    Echo,
}

/// One probe to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shot {
    /// Which host, by its place in the plan.
    pub host: u32,
    /// What is asked.
    pub aim: Aim,
    /// Which try it is, from 1.
    pub number: u8,
}

/// What is to be found out, and how hard to try.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The hosts, each once.
    pub hosts: Vec<IpAddr>,
    /// The ports, each once.
    pub ports: Vec<u16>,
    /// How they are asked.
    pub technique: Technique,
    /// Orders the questions and signs them.
    pub secret: u64,
    /// Never more probes a second than this.
    pub rate: Option<u32>,
    /// Silent probes a second to begin with.
    pub floor: f64,
    /// Never more probes in flight than this (sockets, for connections).
    pub most_in_flight: Option<usize>,
    /// Never more tries than this for a port.
    pub tries: u8,
    /// How long the last try waits; none: as the round trip says.
    pub timeout: Option<Duration>,
    /// Whether hosts are asked for an echo as well.
    pub echo: bool,
    /// Hosts known to be there although they may say nothing: nobody need wait for a router's word.
    pub present: Vec<bool>,
}

/// What the driver shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send this.
    Send(Shot),
    /// Nothing before this moment, unless something arrives.
    Wait(Moment),
    /// All is over.
    Done,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Ports that are settled.
    pub done: u64,
    /// Ports in all.
    pub total: u64,
    /// Probes sent.
    pub sent: u64,
    /// The share of exchanges that were lost; none before there was one.
    pub loss: Option<f64>,
}

/// What was heard of one host.
#[derive(Debug, Clone, Default)]
pub struct HostSeen {
    /// The echo's answer.
    pub echo: Option<Evidence>,
    /// The ports that answered: their place in the plan's list, and what came.
    pub answers: Vec<(u32, Evidence)>,
    /// Places of the ports that were asked in vain.
    pub silent: Vec<u32>,
    /// How many were not asked (to the end): the scan was cut short, or the host was found to be down.
    pub unasked: u64,
    /// Whether that was because routers said that the host is not there.
    pub given_up: bool,
    /// ICMP errors came, but fewer than questions: what stayed silent may be what the limit hid.
    pub icmp_limited: bool,
}

#[derive(Debug, Clone)]
struct Host {
    rtt: RttEstimator,
    first_sent: Option<Moment>,
    /// Answers that only a living host gives.
    alive: u32,
    /// "Host unreachable".
    unreachable: u32,
    /// This host itself refused to send to it.
    refused: bool,
    down: bool,
    echo_tries: u8,
    echo_sent: Moment,
    echo: Option<u32>,
    echo_pending: bool,
    /// Port-unreachables (UDP), and the ports still to be asked slowly.
    errors: u32,
    slow: VecDeque<u32>,
    next_slow: Moment,
    limit: Limit,
}

/// A running scan.
#[derive(Debug)]
pub struct Scan {
    plan: Plan,
    control: Control,
    hosts: Vec<Host>,
    cells: Vec<Cell>,
    evidence: Vec<Evidence>,
    /// The order of first tries: a step through all cells that meets each once.
    order: cells::Order,
    retry: VecDeque<u32>,
    given_up: Vec<u32>,
    timers: BinaryHeap<Reverse<(Moment, u32, u8)>>,
    echo_queue: VecDeque<u32>,
    in_flight: usize,
    sent: u64,
    done: u64,
    turn: u8,
    last_canary: Moment,
    linger: bool,
    /// The scan is in its slow last part (UDP behind an ICMP limit).
    slow: usize,
}

/// Timers of echoes are told from those of ports by this bit.
const ECHO_BIT: u32 = 1 << 31;

impl Scan {
    /// Most cells (hosts times ports) one scan may have.
    pub const MOST: usize = 4 << 20;

    /// A scan that begins at `now`.
    pub fn new(plan: Plan, now: Moment) -> Self {
        let control = Control::new(plan.floor, plan.rate, plan.most_in_flight, now);
        let host = Host {
            rtt: RttEstimator::new(GAP_UNKNOWN, GAP.0, GAP.1),
            first_sent: None,
            alive: 0,
            unreachable: 0,
            refused: false,
            down: false,
            echo_tries: 0,
            echo_sent: now,
            echo: None,
            echo_pending: false,
            errors: 0,
            slow: VecDeque::new(),
            next_slow: now,
            limit: Limit::Unasked,
        };
        let count = plan.hosts.len() * plan.ports.len();
        let echo_queue =
            if plan.echo { (0..u32::try_from(plan.hosts.len()).unwrap_or(0)).collect() } else { VecDeque::new() };
        Self {
            control,
            hosts: vec![host; plan.hosts.len()],
            cells: vec![Cell::default(); count],
            evidence: Vec::new(),
            order: cells::Order::new(count, plan.secret),
            retry: VecDeque::new(),
            given_up: Vec::new(),
            timers: BinaryHeap::new(),
            echo_queue,
            in_flight: 0,
            sent: 0,
            done: 0,
            turn: 0,
            last_canary: now,
            linger: plan.technique != Technique::Udp,
            slow: 0,
            plan,
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress { done: self.done, total: self.cells.len() as u64, sent: self.sent, loss: self.control.loss() }
    }

    /// Whether this port has its answer.
    pub fn is_settled(&self, host: u32, port: u32) -> bool {
        self.cell(host, port).is_some_and(|cell| self.cells[cell as usize].answer.is_some())
    }

    fn cell(&self, host: u32, port: u32) -> Option<u32> {
        let ports = u32::try_from(self.plan.ports.len()).ok()?;
        (port < ports && (host as usize) < self.hosts.len()).then(|| host * ports + port)
    }

    fn split(&self, cell: u32) -> (u32, u32) {
        let ports = u32::try_from(self.plan.ports.len().max(1)).unwrap_or(1);
        (cell / ports, cell % ports)
    }

    fn gap(&self, host: &Host) -> Duration {
        let gap = host.rtt.timeout();
        self.plan.timeout.map_or(gap, |most| gap.min(most))
    }

    fn last_wait(&self, host: &Host) -> Duration {
        let own = host.rtt.smoothed().map_or(LAST_UNKNOWN, |_| (host.rtt.timeout() * 2).clamp(GAP.0 * 3 / 2, GAP.1));
        self.plan.timeout.unwrap_or(own)
    }

    /// What to do now.
    pub fn next(&mut self, now: Moment) -> Next {
        self.expire(now);
        loop {
            let Some(shot) = self.candidate(now) else {
                return self.idle(now);
            };
            match self.control.take(now, self.in_flight) {
                Ok(silent) => {
                    let shot = if silent { self.canary(now).unwrap_or(shot) } else { shot };
                    if let Some(shot) = self.launch(shot, now) {
                        return Next::Send(shot);
                    }
                }
                Err(when) => {
                    let timer = self.timers.peek().map_or(when, |Reverse((at, ..))| when.min(*at));
                    return Next::Wait(timer.max(now + Duration::from_micros(20)));
                }
            }
        }
    }

    /// The next probe in line, not yet taken out of it.
    fn candidate(&mut self, now: Moment) -> Option<Shot> {
        if let Some(host) = self.echo_queue.front() {
            return Some(Shot { host: *host, aim: Aim::Echo, number: 0 });
        }
        while self.order.peek().is_some_and(|cell| self.hosts[self.split(cell).0 as usize].down) {
            self.order.pop();
        }
        while self.retry.front().is_some_and(|cell| self.is_over(*cell)) {
            self.retry.pop_front();
        }
        let (fresh, again) = (self.order.peek(), self.retry.front().copied());
        // Mostly new ports, but some of the silent ones in between: they tell what is lost.
        let cell = if again.is_some() && (fresh.is_none() || self.turn == 0) { again } else { fresh };
        if let Some(cell) = cell {
            let (host, port) = self.split(cell);
            return Some(Shot { host, aim: Aim::Port(port), number: 0 });
        }
        if self.in_flight > 0 && self.slow == 0 {
            return None;
        }
        self.reopen();
        if let Some(cell) = self.retry.front() {
            let (host, port) = self.split(*cell);
            return Some(Shot { host, aim: Aim::Port(port), number: 0 });
        }
        self.slow_candidate(now)
    }

    fn is_over(&self, cell: u32) -> bool {
        self.cells[cell as usize].answer.is_some() || self.hosts[self.split(cell).0 as usize].down
    }

    /// A canary in place of a silent probe, when it is time for one.
    fn canary(&mut self, now: Moment) -> Option<Shot> {
        if now.since(self.last_canary) < CANARY || !self.plan.echo {
            return None;
        }
        let count = self.hosts.len();
        let start = usize::try_from(self.sent).unwrap_or(0) % count.max(1);
        let willing = |host: &Host| host.echo.is_some() && !host.echo_pending && !host.down;
        let found = (start..count).chain(0..start).take(64).find(|host| willing(&self.hosts[*host]))?;
        self.last_canary = now;
        Some(Shot { host: u32::try_from(found).ok()?, aim: Aim::Echo, number: 0 })
    }

    /// Takes the probe out of its line and notes that it is on its way.
    fn launch(&mut self, shot: Shot, now: Moment) -> Option<Shot> {
        let (gap, last) = (self.gap(&self.hosts[shot.host as usize]), self.last_wait(&self.hosts[shot.host as usize]));
        let most = self.control.tries(self.plan.tries);
        let host = &mut self.hosts[shot.host as usize];
        host.first_sent.get_or_insert(now);
        let number = match shot.aim {
            Aim::Echo => {
                if self.echo_queue.front() == Some(&shot.host) {
                    self.echo_queue.pop_front();
                }
                host.echo_tries = if host.echo_tries >= 200 { ECHOES } else { host.echo_tries + 1 };
                (host.echo_sent, host.echo_pending) = (now, true);
                self.timers.push(Reverse((now + gap, shot.host | ECHO_BIT, host.echo_tries)));
                host.echo_tries
            }
            Aim::Port(port) => {
                let cell = self.cell(shot.host, port)?;
                if self.order.peek() == Some(cell) {
                    self.order.pop();
                } else if self.retry.front() == Some(&cell) {
                    self.retry.pop_front();
                }
                self.turn = (self.turn + 1) % 4;
                let slow = self.slow > 0;
                let state = &mut self.cells[cell as usize];
                if state.answer.is_some() {
                    // A control question: only how many answers come counts.
                    self.sent += 1;
                    return Some(Shot { number: state.tries, ..shot });
                }
                state.send(now);
                if !state.in_flight {
                    state.in_flight = true;
                    self.in_flight += 1;
                }
                let wait = if state.tries >= most || slow { last } else { gap };
                let number = state.tries;
                self.timers.push(Reverse((now + wait, cell, number)));
                number
            }
        };
        self.sent += 1;
        Some(Shot { number, ..shot })
    }

    /// What has waited long enough is asked again, or given up.
    fn expire(&mut self, now: Moment) {
        while let Some(Reverse((at, cell, number))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            if cell & ECHO_BIT != 0 {
                self.echo_expired(cell & !ECHO_BIT, number);
                continue;
            }
            let most = self.control.tries(self.plan.tries);
            let state = &mut self.cells[cell as usize];
            if state.answer.is_some() || state.tries != number || !state.in_flight {
                continue;
            }
            state.in_flight = false;
            self.in_flight -= 1;
            if self.slow > 0 {
                self.slow_expired(cell);
            } else if number < most && number < self.plan.tries {
                self.retry.push_back(cell);
            } else {
                self.done += u64::from(state.status != Status::Silent);
                state.status = Status::Silent;
                self.given_up.push(cell);
            }
        }
    }

    fn echo_expired(&mut self, host: u32, number: u8) {
        let state = &mut self.hosts[host as usize];
        if !state.echo_pending || state.echo_tries != number {
            return;
        }
        state.echo_pending = false;
        if state.echo.is_some() {
            self.control.canary(false);
        } else if number < ECHOES && state.rtt.smoothed().is_none() && !state.down {
            self.echo_queue.push_back(host);
        }
    }

    /// Ports that were given up when less loss was known have another chance.
    fn reopen(&mut self) {
        let most = self.control.tries(self.plan.tries);
        let mut kept = Vec::new();
        for cell in std::mem::take(&mut self.given_up) {
            if self.is_over(cell) {
                continue;
            }
            if self.cells[cell as usize].tries < most && self.slow == 0 {
                self.retry.push_back(cell);
            } else {
                kept.push(cell);
            }
        }
        self.given_up = kept;
    }

    /// Nothing is to be sent: when to look again, or that all is over.
    fn idle(&mut self, now: Moment) -> Next {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        if self.in_flight > 0 {
            return Next::Wait(timer.unwrap_or(now + GAP.0));
        }
        if self.slow > 0 {
            let begins = self.hosts.iter().filter(|host| !host.slow.is_empty()).map(|host| host.next_slow).min();
            return begins.map_or(Next::Done, |at| Next::Wait(at.max(now + Duration::from_millis(1))));
        }
        // Hosts of which nothing at all was heard: a router may still say that they are down.
        let lost = |(index, host): (usize, &Host)| {
            let mute =
                !host.refused && host.alive == 0 && host.unreachable == 0 && host.errors == 0 && host.echo.is_none();
            let absent = !self.plan.present.get(index).copied().unwrap_or(false);
            host.first_sent.filter(|_| mute && absent).map(|first| first + HOST_DOWN_AFTER)
        };
        let until = if self.linger && self.plan.timeout.is_none() {
            self.hosts.iter().enumerate().filter_map(lost).max()
        } else {
            None
        };
        let echoing = self.hosts.iter().any(|host| host.echo_pending && host.echo.is_none() && host.alive == 0);
        match until.filter(|until| *until > now) {
            Some(until) => {
                Next::Wait(timer.map_or(until, |timer| timer.min(until)).max(now + Duration::from_millis(1)))
            }
            None if echoing => timer.map_or(Next::Done, Next::Wait),
            None => Next::Done,
        }
    }

    /// The driver tells when a probe really left, where that is not the moment it was handed out.
    pub fn left(&mut self, shot: Shot, at: Moment) {
        match shot.aim {
            Aim::Echo => self.hosts[shot.host as usize].echo_sent = at,
            Aim::Port(port) => {
                if let Some(cell) = self.cell(shot.host, port) {
                    self.cells[cell as usize].left(shot.number, at);
                }
            }
        }
    }

    /// This program's own receive buffer overflowed.
    pub fn overflowed(&mut self, now: Moment) {
        self.control.overflowed(now);
    }

    /// An answer. `number` is the try it names; none where it cannot be told.
    pub fn heard(&mut self, host: u32, aim: Aim, reply: Reply, now: Moment) {
        let Reply { number, by, ttl, answer } = reply;
        let Some(state) = self.hosts.get_mut(host as usize) else { return };
        let lives = answer.shows_life(self.plan.hosts[host as usize] == by);
        state.alive += u32::from(lives);
        if answer.says_host_unreachable() {
            state.unreachable += 1;
            state.down |= state.alive == 0 && state.unreachable >= DOWN && state.echo.is_none();
        }
        let Aim::Port(port) = aim else {
            self.heard_echo(host, Reply { number, by, ttl, answer }, now);
            return;
        };
        let Some(cell) = self.cell(host, port) else { return };
        let state = &mut self.cells[cell as usize];
        if state.tries == 0 {
            return;
        }
        let number = number.filter(|number| (1..=state.tries).contains(number));
        // Without its number an answer to a port that was asked once is still that try's.
        let number = number.or((state.tries == 1).then_some(1));
        let sent = number.and_then(|number| state.sent_at(number));
        let rtt = sent.filter(|sent| now >= *sent).map(|sent| now.since(sent));
        if let Some(before) = state.answer {
            // An ICMP error never unsays what the host itself said; the other way round it does.
            if let Limit::Asking { cell: control, heard, .. } | Limit::Waiting { cell: control, heard, .. } =
                &mut self.hosts[host as usize].limit
            {
                *heard += u8::from(*control == cell && matches!(answer, Answer::Icmp { .. }));
            }
            let before = &mut self.evidence[before as usize];
            if before.answer.yields_to(&answer) {
                *before = Evidence { answer, by, ttl, rtt, number };
            }
            return;
        }
        let lost = number.filter(|number| *number > 1).and_then(|number| state.sent_at(number - 1));
        state.answer = u32::try_from(self.evidence.len()).ok();
        if state.in_flight {
            state.in_flight = false;
            self.in_flight -= 1;
            // In the slow part everything in flight is one of those that were lined up for it.
            self.slow = self.slow.saturating_sub(1);
        }
        self.done += u64::from(state.status != Status::Silent);
        state.status = Status::Answered;
        let errors = matches!(answer, Answer::Icmp { .. });
        self.evidence.push(Evidence { answer, by, ttl, rtt, number });
        let state = &mut self.hosts[host as usize];
        state.errors += u32::from(errors);
        // A router that has waited for a host's address says nothing about round trips.
        if let Some(rtt) = rtt.filter(|_| !errors || rtt.is_some_and(|rtt| rtt < Duration::from_millis(500))) {
            state.rtt.add(rtt);
        }
        // Errors are limited at their source, so that a missing one says nothing about the path.
        if let (Some(number), false) = (number, errors) {
            self.control.answered(now, number, lost);
        }
    }

    fn heard_echo(&mut self, host: u32, reply: Reply, now: Moment) {
        let Reply { number, by, ttl, answer } = reply;
        let state = &mut self.hosts[host as usize];
        let latest = number.is_none_or(|number| number == state.echo_tries);
        let rtt = (latest && now >= state.echo_sent).then(|| now.since(state.echo_sent));
        if let (Some(rtt), Answer::Echo) = (rtt, &answer) {
            state.rtt.add(rtt);
        }
        if !matches!(answer, Answer::Echo) {
            return;
        }
        if state.echo_pending && latest {
            state.echo_pending = false;
            self.control.canary(true);
        }
        if state.echo.is_none() {
            state.echo = u32::try_from(self.evidence.len()).ok();
            self.evidence.push(Evidence { answer, by, ttl, rtt, number });
        }
    }

    /// This host refused to send it.
    pub fn refused(&mut self, shot: Shot, errno: &'static str, now: Moment) {
        let by = self.plan.hosts.get(shot.host as usize).copied();
        let Some(by) = by else { return };
        self.hosts[shot.host as usize].refused = true;
        match shot.aim {
            Aim::Echo => {
                let state = &mut self.hosts[shot.host as usize];
                (state.echo_pending, state.echo_tries) = (false, ECHOES.max(state.echo_tries));
            }
            Aim::Port(_) => {
                let reply = Reply { number: None, by, ttl: None, answer: Answer::Local(errno) };
                self.heard(shot.host, shot.aim, reply, now);
            }
        }
    }

    /// Ends it and gives what was heard, host by host in the plan's order.
    pub fn finish(mut self) -> Vec<HostSeen> {
        let ports = self.plan.ports.len().max(1);
        let echoes = self.hosts.iter().map(|host| host.echo).collect::<Vec<_>>();
        let mut all: Vec<Option<Evidence>> = std::mem::take(&mut self.evidence).into_iter().map(Some).collect();
        let mut take = |at: Option<u32>| at.and_then(|at| all.get_mut(at as usize)?.take());
        let mut found = Vec::with_capacity(self.hosts.len());
        for (index, host) in self.hosts.iter().enumerate() {
            let mut seen = HostSeen { echo: take(echoes[index]), given_up: host.down, ..HostSeen::default() };
            let first = index * ports;
            for (port, cell) in self.cells.iter().skip(first).take(self.plan.ports.len()).enumerate() {
                let port = u32::try_from(port).unwrap_or(u32::MAX);
                match take(cell.answer) {
                    Some(evidence) => seen.answers.push((port, evidence)),
                    None if cell.status == Status::Silent => seen.silent.push(port),
                    None => seen.unasked += 1,
                }
            }
            seen.icmp_limited = host.limit == Limit::Limited;
            found.push(seen);
        }
        found
    }
}
