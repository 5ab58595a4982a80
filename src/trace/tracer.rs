//! One trace: which probe next, which answer means what, when silence is certain.
//!
//! All hops are asked at once, as far as a window allows that answers and time widen. The end of the path is the
//! lowest TTL that the destination (or a refusing router) answers. A hop that others behind it have outrun is asked
//! once more, all such hops together, and then waited for once: silence costs one adaptive timeout in all.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::quote;
use super::result::{Answer, Hop, IcmpSaid, ProbeResult, Refusal, Said, Stopped, Trace};
use super::{Patience, TraceRequest};
use crate::probe::{Moment, PathMethod, PathProbe, Reply, ReplyKind};
use crate::wire::HexBytes;

/// While nothing comes back, the window is widened this often.
const RELEASE: Duration = Duration::from_millis(1);
/// A router's default limit on errors gives back one token in this time (Linux: `icmp_ratelimit`).
const TOKEN: Duration = Duration::from_millis(1050);
/// Segments to an open port that are tried again: its half-open connection swallows what comes too close.
const REPAIRS: u8 = 4;

#[derive(Debug, Clone, PartialEq)]
enum State {
    Waiting,
    Answered(Box<Answer>),
    NotSent(String),
    /// Something else took its place.
    Withdrawn,
}

#[derive(Debug, Clone)]
struct Slot {
    ttl: u8,
    /// Asked of the destination with another protocol, to learn whether it is there at all.
    side: Option<PathMethod>,
    sent: Option<Moment>,
    packet: Option<HexBytes>,
    state: State,
}

/// One trace under way.
#[derive(Debug, Clone)]
pub struct Tracer {
    request: TraceRequest,
    raw: bool,
    sides: Vec<PathMethod>,
    slots: Vec<Slot>,
    queue: VecDeque<u8>,
    window: usize,
    waiting: usize,
    release: Option<Moment>,
    patience: Patience,
    started: Option<Moment>,
    last_sent: Moment,
    last_answer: Option<Moment>,
    reached: Option<u8>,
    refused: Option<Refusal>,
    asked_again: bool,
    asked_late: bool,
    tail_asked: Option<Moment>,
    /// When the silent were asked for the last time.
    late: Option<Moment>,
    repairs: u8,
    wake: Option<Moment>,
    ended: Option<Moment>,
    complete: bool,
}

impl Tracer {
    /// `raw`: probes go by raw sockets, and quotes are whole. `sides`: what else may be asked of a destination that
    /// does not answer. `window`: probes under way at a time, to begin with.
    pub fn new(request: TraceRequest, raw: bool, sides: Vec<PathMethod>, window: usize) -> Self {
        // A SYN to an open port must not meet the half-open connection of the one before.
        let each = if matches!(request.method, PathMethod::Tcp { .. }) { 1 } else { request.queries.max(1) };
        let queue = (request.first..=request.max).flat_map(|ttl| std::iter::repeat_n(ttl, each.into())).collect();
        Self {
            patience: Patience::new(request.wait),
            request,
            raw,
            sides,
            slots: Vec::new(),
            queue,
            window: window.max(1),
            waiting: 0,
            release: None,
            started: None,
            last_sent: Moment(0),
            last_answer: None,
            reached: None,
            refused: None,
            asked_again: false,
            asked_late: false,
            tail_asked: None,
            late: None,
            repairs: 0,
            wake: None,
            ended: None,
            complete: false,
        }
    }

    /// What it was asked.
    pub fn request(&self) -> &TraceRequest {
        &self.request
    }

    /// Whether nothing more is to be learnt.
    pub fn is_done(&self) -> bool {
        self.ended.is_some()
    }

    /// When it has something to do next.
    pub fn wake(&self) -> Option<Moment> {
        self.wake.filter(|_| !self.is_done())
    }

    /// Ends it with what was found so far.
    pub fn stop(&mut self, now: Moment) {
        self.ended.get_or_insert(now);
    }

    /// Round trips seen so far.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Where the path ends, as far as known.
    fn end(&self) -> Option<u8> {
        self.reached.or(self.refused.as_ref().map(|refusal| refusal.ttl))
    }

    fn last_answered(&self) -> Option<u8> {
        let answered = self.slots.iter().filter(|slot| slot.side.is_none() && slot.answer().is_some());
        answered.map(|slot| slot.ttl).max()
    }

    fn of(&self, ttl: u8) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| slot.ttl == ttl && slot.side.is_none() && slot.state != State::Withdrawn)
    }

    fn order(&mut self, ttl: u8, side: Option<PathMethod>) -> (usize, PathProbe) {
        self.slots.push(Slot { ttl, side, sent: None, packet: None, state: State::Waiting });
        self.waiting += usize::from(side.is_none());
        let mut probe = self.request.probe(ttl);
        probe.method = side.unwrap_or(probe.method);
        (self.slots.len() - 1, probe)
    }

    /// What is to be sent now, each with its number.
    pub fn plan(&mut self, now: Moment) -> Vec<(usize, PathProbe)> {
        let mut orders = Vec::new();
        if self.is_done() {
            return orders;
        }
        self.started.get_or_insert(now);
        self.wake = None;
        while let Some(ttl) = self.queue.front().copied() {
            if self.end().is_some_and(|end| ttl > end) {
                self.queue.clear();
                break;
            }
            if self.waiting >= self.window {
                // What still waits to be sent here has had no time to be answered.
                if self.slots.iter().any(|slot| slot.sent.is_none() && slot.state == State::Waiting) {
                    self.release = None;
                    return orders;
                }
                let release = *self.release.get_or_insert(now + RELEASE);
                if release > now {
                    self.wake = Some(release);
                    return orders;
                }
                self.release = None;
                self.window += 12;
            }
            self.queue.pop_front();
            orders.push(self.order(ttl, None));
        }
        if orders.is_empty() && self.slots.iter().all(|slot| slot.sent.is_some() || slot.state != State::Waiting) {
            self.conclude(now, &mut orders);
        }
        orders
    }

    /// All of the first wave has left: waits, asks again, ends.
    fn conclude(&mut self, now: Moment, orders: &mut Vec<(usize, PathProbe)>) {
        let last = self.last_answered();
        let end = self.end().or(last.filter(|last| *last == self.request.max));
        let Some(end) = end else { return self.conclude_tail(now, orders) };
        let silent: Vec<u8> =
            (self.request.first..=end).filter(|ttl| self.of(*ttl).all(|slot| slot.answer().is_none())).collect();
        let open: Vec<Moment> = self.open(end);
        if !self.asked_again && !silent.is_empty() {
            let at = self.last_sent + self.patience.overtaking();
            if now < at {
                self.wake = Some(at);
                return;
            }
            self.asked_again = true;
            orders.extend(silent.iter().map(|ttl| self.order(*ttl, None)).collect::<Vec<_>>());
            return;
        }
        if let Some(latest) = open.iter().max() {
            let at = *latest + self.patience.hop();
            if now < at {
                self.wake = Some(at);
                return;
            }
        }
        if self.repair(end, orders) {
            return;
        }
        // All (or nearly all) routers silent, but the destination answers: their limit may have been used up by
        // somebody just before. One more question each, when a usual limit has given a token back.
        let routers = usize::from(end - self.request.first);
        if !self.asked_late && self.reached.is_some() && silent.len() >= 2 && silent.len() * 10 >= routers * 8 {
            let at = self.started.unwrap_or(now) + TOKEN;
            if now < at {
                self.wake = Some(at);
                return;
            }
            self.asked_late = true;
            orders.extend(silent.iter().map(|ttl| self.order(*ttl, None)).collect::<Vec<_>>());
            return;
        }
        self.complete = true;
        self.ended = Some(now);
    }

    /// When the probes up to `end` left that still wait.
    fn open(&self, end: u8) -> Vec<Moment> {
        let waits = |slot: &&Slot| slot.ttl <= end && slot.state == State::Waiting && slot.side.is_none();
        self.slots.iter().filter(waits).filter_map(|slot| slot.sent).collect()
    }

    /// A TCP destination answers each segment by itself, so what it did not answer met the connection before it.
    fn repair(&mut self, end: u8, orders: &mut Vec<(usize, PathProbe)>) -> bool {
        let tcp = matches!(self.request.method, PathMethod::Tcp { .. });
        let answered = self.of(end).filter(|slot| slot.answer().is_some()).count();
        let wanted = usize::from(self.request.queries);
        if !tcp || self.reached != Some(end) || self.repairs >= REPAIRS || answered == 0 || answered >= wanted {
            return false;
        }
        self.repairs += 1;
        for slot in self.slots.iter_mut().filter(|slot| slot.ttl == end && slot.state == State::Waiting) {
            slot.state = State::Withdrawn;
            self.waiting = self.waiting.saturating_sub(1);
        }
        orders.push(self.order(end, None));
        true
    }

    /// Nothing has ended the path yet.
    fn conclude_tail(&mut self, now: Moment, orders: &mut Vec<(usize, PathProbe)>) {
        let (first, second) = self.patience.tail();
        let latest = |base: Moment| self.last_answer.map_or(base, |answer| base.max(answer));
        let Some(asked) = self.tail_asked else {
            let at = latest(self.last_sent) + first;
            if now < at {
                self.wake = Some(at);
                return;
            }
            self.tail_asked = Some(now);
            let silent: Vec<u8> = (self.request.first..=self.request.max)
                .filter(|ttl| self.of(*ttl).all(|slot| slot.answer().is_none()))
                .collect();
            orders.extend(silent.into_iter().map(|ttl| self.order(ttl, None)).collect::<Vec<_>>());
            let sides = std::mem::take(&mut self.sides);
            orders.extend(sides.iter().map(|method| self.order(64, Some(*method))).collect::<Vec<_>>());
            return;
        };
        // Routers whose limit somebody used up just before: one more question each, when a usual limit has given a token
        // back. Where all answered as often as they were asked there is no sign of one.
        if !self.asked_late && self.request.wait.is_none() && self.looks_limited() {
            let at = self.started.unwrap_or(now) + TOKEN;
            if now < at {
                self.wake = Some(at);
                return;
            }
            self.asked_late = true;
            let silent: Vec<u8> = (self.request.first..=self.request.max)
                .filter(|ttl| self.of(*ttl).all(|slot| slot.answer().is_none()))
                .collect();
            orders.extend(silent.into_iter().map(|ttl| self.order(ttl, None)).collect::<Vec<_>>());
            self.late = Some(now);
            return;
        }
        let at = match self.late {
            Some(late) => latest(late) + first / 2,
            None => latest(asked) + second,
        };
        if now < at {
            self.wake = Some(at);
            return;
        }
        self.complete = true;
        self.ended = Some(now);
    }

    /// Whether a hop up to the last that answered, or all of them, may be silent because of a limit.
    fn looks_limited(&self) -> bool {
        let Some(last) = self.last_answered() else { return self.slots.iter().any(|slot| slot.sent.is_some()) };
        let answered = |ttl: u8| self.of(ttl).filter(|slot| slot.answer().is_some()).count();
        (self.request.first..=last).any(|ttl| answered(ttl) < usize::from(self.request.queries))
    }

    /// A probe has left.
    pub fn sent(&mut self, number: usize, packet: Option<HexBytes>, now: Moment) {
        if let Some(slot) = self.slots.get_mut(number) {
            (slot.sent, slot.packet) = (Some(now), packet);
            self.last_sent = self.last_sent.max(now);
        }
    }

    /// This host did not send a probe: the errno's name.
    pub fn not_sent(&mut self, number: usize, errno: &str, now: Moment) {
        let Some(slot) = self.slots.get_mut(number).filter(|slot| slot.state == State::Waiting) else { return };
        slot.state = State::NotSent(errno.to_owned());
        if slot.side.is_none() {
            self.waiting = self.waiting.saturating_sub(1);
            // What one probe meets here, all will.
            if self.last_answer.is_none() && self.slots.iter().all(|slot| matches!(slot.state, State::NotSent(_))) {
                self.complete = true;
                self.ended = Some(now);
            }
        }
    }

    /// An answer has come.
    pub fn heard(&mut self, number: usize, reply: &Reply, now: Moment) {
        if reply.duplicate || !reply.is_conclusive() || self.is_done() {
            return;
        }
        let dst = self.request.dst;
        let Some(answer) = answer(reply, dst, self.slots.get(number).and_then(|slot| slot.packet.as_ref()), self.raw)
        else {
            return;
        };
        // Data from a UDP service does not say which probe it answers: the first that can have got there.
        let number = if answer.said == Said::Data && answer.rtt_ms.is_none() { self.likely(number) } else { number };
        let Some(slot) = self.slots.get_mut(number).filter(|slot| slot.state == State::Waiting) else { return };
        let (ttl, side) = (slot.ttl, slot.side.is_some());
        if let Some(rtt) = answer.rtt_ms.filter(|_| !side) {
            self.patience.add(Duration::from_secs_f64(rtt.clamp(0.0, 60_000.0) / 1000.0));
        }
        let (said, from, icmp) = (answer.said, answer.address, answer.icmp.clone());
        slot.state = State::Answered(Box::new(answer));
        if side {
            return;
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.last_answer = Some(now);
        // While answers come they make room by themselves.
        self.release = None;
        if is_arrival(said) || (said == Said::Unreachable && from == dst) {
            self.reached = Some(self.reached.map_or(ttl, |known| known.min(ttl)));
        }
        if let (Said::Unreachable | Said::TooBig, Some(icmp)) = (said, icmp)
            && self.refused.as_ref().is_none_or(|known| ttl < known.ttl)
        {
            self.refused = Some(Refusal { by: from, ttl, icmp });
        }
        let tcp = matches!(self.request.method, PathMethod::Tcp { .. });
        let beyond = self.end().is_some_and(|end| ttl > end);
        if tcp && !beyond && self.of(ttl).count() < usize::from(self.request.queries) {
            self.queue.push_front(ttl);
        }
    }

    /// Of the flow's waiting probes, the first behind the last router that answered.
    fn likely(&self, number: usize) -> usize {
        let router = self.slots.iter().filter(|slot| slot.answer().is_some_and(|a| a.said == Said::TimeExceeded));
        let last = router.map(|slot| slot.ttl).max().unwrap_or(0);
        let fits = |slot: &Slot| slot.ttl > last && slot.side.is_none() && slot.state == State::Waiting;
        self.slots.iter().position(fits).unwrap_or(number)
    }

    /// How many hops from the first on are certain by now: nothing that still comes will change them.
    pub fn certain(&self, now: Moment) -> usize {
        let last = self.end().or(self.last_answered()).unwrap_or(0);
        let wait = self.patience.hop();
        let is_certain = |ttl: &u8| {
            let (mut count, mut answered, mut open) = (0, false, false);
            for slot in self.of(*ttl) {
                count += 1;
                answered |= slot.answer().is_some();
                open |= slot.state == State::Waiting && slot.sent.is_none_or(|sent| now < sent + wait);
            }
            self.is_done() || (count >= usize::from(self.request.queries.max(1)) && answered && !open)
        };
        (self.request.first..=last).take_while(is_certain).count()
    }

    /// All addresses that answered so far, each once.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for answer in self.slots.iter().filter_map(Slot::answer) {
            if !found.contains(&answer.address) {
                found.push(answer.address);
            }
        }
        found
    }

    /// One hop as it stands.
    pub fn hop(&self, ttl: u8) -> Hop {
        let probes = self.of(ttl).map(|slot| match &slot.state {
            State::Answered(answer) => ProbeResult::Answered(answer.clone()),
            State::NotSent(errno) => ProbeResult::NotSent(errno.clone()),
            State::Waiting | State::Withdrawn => ProbeResult::Lost,
        });
        Hop { ttl, probes: probes.collect(), names: Vec::new(), asns: Vec::new(), mtu: None }
    }

    /// When each probe of a hop left, and whether it was answered.
    pub fn timeline(&self, ttl: u8) -> Vec<(Duration, bool)> {
        let start = self.started.unwrap_or_default();
        let point = |slot: &Slot| Some((slot.sent?.since(start), slot.answer().is_some()));
        self.of(ttl).filter_map(point).collect()
    }

    /// What the destination said to other protocols.
    pub fn side_answers(&self) -> Vec<(PathMethod, &Answer)> {
        self.slots.iter().filter_map(|slot| Some((slot.side?, slot.answer()?))).collect()
    }

    /// The packets sent for a TTL, each with what came back.
    pub fn exchanges(&self, ttl: u8) -> Vec<(Option<&HexBytes>, Option<&Answer>)> {
        self.of(ttl).map(|slot| (slot.packet.as_ref(), slot.answer())).collect()
    }

    /// The result as it stands.
    pub fn result(&self, now: Moment) -> Trace {
        let last = self.end().or(self.last_answered());
        let hops: Vec<Hop> = match last {
            Some(last) => (self.request.first..=last).map(|ttl| self.hop(ttl)).collect(),
            // What this host itself refused to send is worth a line.
            None => Some(self.hop(self.request.first))
                .filter(|hop| matches!(hop.probes.first(), Some(ProbeResult::NotSent(_))))
                .into_iter()
                .collect(),
        };
        let stopped = if self.reached.is_some() {
            Stopped::Reached
        } else if self.refused.is_some() {
            Stopped::Unreachable
        } else if last == Some(self.request.max) {
            Stopped::MaxTtl
        } else {
            Stopped::Silent
        };
        let elapsed = self.ended.unwrap_or(now).since(self.started.unwrap_or(now));
        let mut trace = Trace {
            target: self.request.target.clone(),
            address: self.request.dst,
            source: self.request.src,
            protocol: self.request.method.name(),
            port: self.request.method.dport(),
            hops,
            reached: self.reached.is_some(),
            stopped,
            unreachable: self.refused.clone(),
            path_mtu: None,
            paths: None,
            graph: None,
            findings: Vec::new(),
            raw: self.raw,
            complete: self.complete,
            elapsed_ms: elapsed.as_secs_f64() * 1000.0,
        };
        trace.findings = super::findings(&trace, self);
        trace
    }
}

impl Slot {
    fn answer(&self) -> Option<&Answer> {
        if let State::Answered(answer) = &self.state { Some(answer) } else { None }
    }
}

fn is_arrival(said: Said) -> bool {
    matches!(said, Said::EchoReply | Said::PortUnreachable | Said::SynAck | Said::Rst | Said::Data)
}

/// What a reply means for a trace to `dst`; `None` where it means nothing.
pub fn answer(reply: &Reply, dst: IpAddr, sent: Option<&HexBytes>, raw: bool) -> Option<Answer> {
    let mut answer = Answer {
        address: reply.from,
        rtt_ms: reply.rtt_us.map(|us| us / 1000.0),
        rtt_source: reply.rtt_source,
        said: Said::EchoReply,
        icmp: None,
        reply_ttl: reply.ttl,
        quoted_ttl: None,
        mpls: Vec::new(),
        interface: Vec::new(),
        mtu: None,
        changed: Vec::new(),
        quoted: None,
    };
    let v6 = dst.is_ipv6();
    match &reply.kind {
        ReplyKind::EchoReply => {
            let icmp_type = if v6 { 129 } else { 0 };
            answer.icmp = Some(IcmpSaid { icmp_type, code: 0, says: "echo reply".to_owned() });
        }
        ReplyKind::SynAck | ReplyKind::Connected => answer.said = Said::SynAck,
        ReplyKind::Rst => answer.said = Said::Rst,
        ReplyKind::ConnectError { errno } if errno == "ECONNREFUSED" => answer.said = Said::Rst,
        ReplyKind::UdpData { .. } => answer.said = Said::Data,
        ReplyKind::TcpOther => answer.said = Said::TcpOther,
        ReplyKind::IcmpError(icmp) => {
            answer.said = match (v6, icmp.icmp_type, icmp.code) {
                (false, 11, 0) | (true, 3, 0) => Said::TimeExceeded,
                (false, 3, 3) | (true, 1, 4) if reply.from == dst => Said::PortUnreachable,
                (false, 3, 4) | (true, 2, _) => Said::TooBig,
                // Reassembly ran out of time: it says nothing of the path.
                (false, 11, _) | (true, 3, _) => return None,
                _ => Said::Unreachable,
            };
            answer.icmp = Some(IcmpSaid { icmp_type: icmp.icmp_type, code: icmp.code, says: icmp.says.clone() });
            answer.mtu = icmp.next_hop_mtu;
            answer.mpls = quote::labels(&icmp.extensions);
            answer.interface = quote::interfaces(&icmp.extensions);
            if let Some(quoted) = icmp.quoted.as_deref().filter(|_| raw) {
                answer.quoted_ttl = Some(quoted.ttl);
                answer.quoted = Some(quoted.upper.clone());
                answer.changed = sent.map(|sent| quote::changes(sent, quoted)).unwrap_or_default();
            }
        }
        _ => return None,
    }
    Some(answer)
}
