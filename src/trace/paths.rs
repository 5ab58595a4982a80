//! Every equal way to a host: the multipath detection algorithm.
//!
//! A router with several equal next hops spreads flows over them. To find all of them, enough flows that pass it must
//! be followed one hop further: after n flows that showed k next hops, the chance that there is one more is known
//! (Veitch, Augustin, Teixeira, Friedman, "Failure control in multipath route tracing", 2009). That is done for every
//! router at once. Where a router limits its answers and one hop seems to be known as a whole, a single flow from
//! each router before it has to do (MDA-Lite, Vermeulen and others, 2018), and the result says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::batch::{Batch, Item};
use super::graph::{Balancer, Edge, Graph, Node, Spread};
use super::result::{Said, Trace};
use super::{TraceRequest, Tracer};
use crate::probe::{Conductor, Event, Moment, Plan, ProbeKind, ProbeSpec};

/// More flows than this are not tried.
pub const FLOWS: u16 = 512;
/// Ids of probes of the first trace are below, those of the rounds from here on.
const ROUNDS: u32 = 1 << 24;
/// Probes to one TTL at once; more are spread (Linux answers 50 at once and then 1000 a second in all:
/// `icmp_msgs_burst`, `icmp_msgs_per_sec`).
const AT_ONCE: u32 = 36;
/// A usual limit gives a token back in this time.
const TOKEN: Duration = Duration::from_millis(1050);

/// How many flows must have shown no more than `found` next hops for there to be no other, with this confidence.
///
/// The chance that n flows miss at least one of k + 1 equally likely next hops is
/// Σ (-1)^(i+1) C(k+1, i) (1 - i/(k+1))^n.
pub fn flows_needed(found: usize, confidence: f64) -> usize {
    let ways = found.clamp(1, 256) + 1;
    let count = f64::from(u32::try_from(ways).unwrap_or(u32::MAX));
    let missing = |flows: usize| {
        let (mut sum, mut choose) = (0.0, 1.0);
        let power = i32::try_from(flows).unwrap_or(i32::MAX);
        for part in 1..=ways {
            let i = f64::from(u32::try_from(part).unwrap_or(u32::MAX));
            choose *= (count - i + 1.0) / i;
            let term = choose * (1.0 - i / count).max(0.0).powi(power);
            sum += if part % 2 == 1 { term } else { -term };
            if term < 1e-12 {
                break;
            }
        }
        sum
    };
    // Below that the sum of large alternating terms is noise, and no such number can be enough.
    let mut flows = ways;
    while missing(flows) > 1.0 - confidence || (ways > 2 && flows < 2 * ways) {
        flows += 1;
    }
    flows
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Router(IpAddr),
    /// The destination, or a refusal: nothing lies behind.
    End(IpAddr),
    /// Asked as often as makes sense.
    Silent,
}

impl Seen {
    fn address(self) -> Option<IpAddr> {
        match self {
            Self::Router(address) | Self::End(address) => Some(address),
            Self::Silent => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Trace,
    Rounds,
    /// The same flow several times: is the choice made per flow or per packet?
    Repeat,
    Done,
}

/// The search under way.
pub struct PathSearch {
    request: TraceRequest,
    tracer: Tracer,
    orders: Vec<usize>,
    confidence: f64,
    budget: Duration,
    phase: Phase,
    batch: Batch,
    /// By TTL, then flow.
    seen: BTreeMap<u8, BTreeMap<u16, Seen>>,
    attempts: HashMap<(u8, u16), u8>,
    rtts: HashMap<(u8, IpAddr), f64>,
    next_flow: u16,
    probes: u32,
    started: Option<Moment>,
    partial: BTreeSet<u8>,
    per_packet: BTreeSet<(u8, IpAddr)>,
    repeats: Vec<(u8, IpAddr, IpAddr)>,
    stopped: bool,
    last: Moment,
}

impl PathSearch {
    /// `confidence`: between 0 and 1, for each router. `budget`: no new questions after this time.
    pub fn new(mut request: TraceRequest, raw: bool, confidence: f64, budget: Duration) -> Self {
        request.queries = 1;
        request.flow = 0;
        let tracer = Tracer::new(request.clone(), raw, Vec::new(), 24);
        let mut batch = Batch::new(request.dst, raw, request.via.clone(), *tracer.patience());
        batch.first_id(ROUNDS);
        Self {
            tracer,
            orders: Vec::new(),
            confidence: confidence.clamp(0.5, 0.999_999),
            budget,
            phase: Phase::Trace,
            batch,
            seen: BTreeMap::new(),
            attempts: HashMap::new(),
            rtts: HashMap::new(),
            next_flow: 1,
            probes: 0,
            started: None,
            partial: BTreeSet::new(),
            per_packet: BTreeSet::new(),
            repeats: Vec::new(),
            stopped: false,
            last: Moment(0),
            request,
        }
    }

    /// The first trace, of one flow.
    pub fn trace(&self) -> Trace {
        let mut trace = self.tracer.result(self.last);
        let all = self.last.since(self.started.unwrap_or(self.last));
        trace.elapsed_ms += all.as_secs_f64() * 1000.0;
        trace
    }

    fn seed(&mut self) {
        self.batch.patience = *self.tracer.patience();
        let trace = self.tracer.result(self.last);
        for hop in &trace.hops {
            let seen = match hop.answers().next() {
                Some(answer) => {
                    self.rtts.extend(answer.rtt_ms.map(|rtt| ((hop.ttl, answer.address), rtt)));
                    if answer.said == Said::TimeExceeded {
                        Seen::Router(answer.address)
                    } else {
                        Seen::End(answer.address)
                    }
                }
                None => Seen::Silent,
            };
            self.seen.entry(hop.ttl).or_default().insert(0, seen);
        }
    }

    fn of(&self, ttl: u8, flow: u16) -> Option<Seen> {
        self.seen.get(&ttl)?.get(&flow).copied()
    }

    fn limited(&self, ttl: u8) -> bool {
        self.attempts.iter().any(|((at, _), attempts)| *at == ttl && *attempts >= 3)
    }

    /// The flows that pass each place of a hop; TTL 0 of the first hop stands for this host, which all pass.
    fn places(&self, ttl: u8) -> Vec<(Option<IpAddr>, Vec<u16>)> {
        if ttl < self.request.first {
            return vec![(None, (0..self.next_flow).collect())];
        }
        let mut places: BTreeMap<Option<IpAddr>, Vec<u16>> = BTreeMap::new();
        for (flow, seen) in self.seen.get(&ttl).into_iter().flatten() {
            if !matches!(seen, Seen::End(_)) {
                places.entry(seen.address()).or_default().push(*flow);
            }
        }
        places.into_iter().collect()
    }

    /// What has to be asked next: TTL and flow.
    fn wanted(&mut self) -> BTreeSet<(u8, u16)> {
        let mut wanted = BTreeSet::new();
        let last = self
            .seen
            .iter()
            .rev()
            .find(|(_, flows)| flows.values().any(|seen| *seen != Seen::Silent))
            .map_or(0, |(ttl, _)| *ttl);
        for ttl in self.request.first - 1..self.request.max.min(last.saturating_add(1)) {
            let next = ttl + 1;
            let whole: BTreeSet<IpAddr> =
                self.seen.get(&next).into_iter().flatten().filter_map(|(_, seen)| seen.address()).collect();
            let places = self.places(ttl);
            let total: usize = places.iter().map(|(_, flows)| flows.len()).sum();
            let samples =
                self.seen.get(&next).map_or(0, |flows| flows.values().filter(|seen| seen.address().is_some()).count());
            let known_as_a_whole = samples >= flows_needed(whole.len(), self.confidence);
            let limited = self.limited(next);
            for (_, flows) in places {
                let known: Vec<Seen> = flows.iter().filter_map(|flow| self.of(next, *flow)).collect();
                let ways: BTreeSet<IpAddr> = known.iter().filter_map(|seen| seen.address()).collect();
                let mut need = flows_needed(ways.len(), self.confidence);
                if limited && known_as_a_whole {
                    self.partial.insert(next);
                    need = 1;
                }
                // Silence all along says nothing of how many are silent.
                if ways.is_empty() && known.len() >= 2 {
                    continue;
                }
                let mut short = need.saturating_sub(known.len());
                for flow in flows.iter().filter(|flow| self.of(next, **flow).is_none()) {
                    if short == 0 {
                        break;
                    }
                    wanted.insert((next, *flow));
                    short -= 1;
                }
                if short > 0 {
                    // More flows are needed that pass here; of new ones, so many will.
                    let share = total.checked_div(flows.len().max(1)).unwrap_or(1).max(1);
                    let want = (short * share).min(96);
                    self.more_flows(ttl, want, &mut wanted);
                }
            }
        }
        self.unlinked(last, &mut wanted);
        wanted
    }

    /// Routers that were seen by flows of which it is not known where they were a hop before: one of their flows is
    /// asked there, so that each has a way that leads to it.
    fn unlinked(&self, last: u8, wanted: &mut BTreeSet<(u8, u16)>) {
        for ttl in self.request.first..last {
            let mut linked: BTreeMap<IpAddr, (bool, Option<u16>, u8)> = BTreeMap::new();
            for (flow, seen) in self.seen.get(&(ttl + 1)).into_iter().flatten() {
                let Some(address) = seen.address() else { continue };
                let entry = linked.entry(address).or_default();
                match self.of(ttl, *flow) {
                    Some(Seen::Silent) => entry.2 = entry.2.saturating_add(1),
                    Some(_) => entry.0 = true,
                    None => entry.1 = entry.1.or(Some(*flow)),
                }
            }
            // A hop that is silent as a whole leads on as it is.
            let answers = self.seen.get(&ttl).is_some_and(|flows| flows.values().any(|seen| seen.address().is_some()));
            for (linked, flow, silent) in linked.into_values() {
                wanted.extend(flow.filter(|_| answers && !linked && silent < 3).map(|flow| (ttl, flow)));
            }
        }
    }

    /// Asks so many flows at a TTL that were not asked there, making new ones where needed.
    fn more_flows(&mut self, ttl: u8, count: usize, wanted: &mut BTreeSet<(u8, u16)>) {
        let mut left = count;
        if ttl >= self.request.first {
            let idle: Vec<u16> = (0..self.next_flow).filter(|flow| self.of(ttl, *flow).is_none()).collect();
            for flow in idle {
                if left == 0 {
                    return;
                }
                // What is asked already in this round counts.
                wanted.insert((ttl, flow));
                left -= 1;
            }
        }
        while left > 0 && self.next_flow < FLOWS {
            let flow = self.next_flow;
            self.next_flow += 1;
            if ttl >= self.request.first {
                wanted.insert((ttl, flow));
            } else {
                wanted.insert((self.request.first, flow));
            }
            left -= 1;
        }
    }

    fn round(&mut self, now: Moment) {
        let started = *self.started.get_or_insert(now);
        let late = now.since(started) > self.budget;
        let wanted = if late { BTreeSet::new() } else { self.wanted() };
        if late && !self.wanted().is_empty() {
            self.stopped = true;
        }
        if wanted.is_empty() {
            self.begin_repeat();
            return;
        }
        let mut at: HashMap<(u8, u8), u32> = HashMap::new();
        let mut items = Vec::new();
        for (ttl, flow) in wanted {
            let attempts = self.attempts.get(&(ttl, flow)).copied().unwrap_or(0);
            let place = at.entry((ttl, attempts.min(2))).or_default();
            let routers = self.seen.get(&ttl).map_or(1, |flows| {
                flows.values().filter_map(|seen| seen.address()).collect::<BTreeSet<_>>().len().max(1)
            });
            let routers = u32::try_from(routers).unwrap_or(1);
            let delay = match attempts {
                0 => Duration::from_micros(1100) * place.saturating_sub(AT_ONCE),
                1 => Duration::from_millis(50) + Duration::from_micros(1100) * *place,
                _ => TOKEN * (*place / routers + 1),
            };
            // What would come after the time is up is not asked.
            if now.since(started) + delay > self.budget + TOKEN {
                self.stopped = true;
                self.seen.entry(ttl).or_default().insert(flow, Seen::Silent);
                continue;
            }
            *place += 1;
            let mut probe = self.request.probe(ttl);
            probe.flow = flow;
            let mut item = Item::new(probe, 1);
            item.not_before = now + delay;
            items.push(item);
        }
        self.batch.begin(items);
    }

    fn learn(&mut self) {
        let items = std::mem::take(&mut self.batch.items);
        for item in items {
            self.probes += 1;
            let (ttl, flow) = (item.probe.ttl, item.probe.flow);
            let attempts = self.attempts.entry((ttl, flow)).or_default();
            *attempts += 1;
            let tried = *attempts;
            if let Some(answer) = &item.answer {
                let seen = if answer.said == Said::TimeExceeded {
                    Seen::Router(answer.address)
                } else {
                    Seen::End(answer.address)
                };
                self.rtts.extend(answer.rtt_ms.map(|rtt| ((ttl, answer.address), rtt)));
                self.seen.entry(ttl).or_default().insert(flow, seen);
                continue;
            }
            // A hop that answers others is limited, or a packet was lost: asked again until the time is up.
            let answers = self.seen.get(&ttl).is_some_and(|flows| flows.values().any(|seen| seen.address().is_some()));
            if (!answers && tried >= 2) || tried >= 20 {
                self.seen.entry(ttl).or_default().insert(flow, Seen::Silent);
            }
        }
    }

    /// Where flows part: one flow five times more. If it shows another way, packets are spread one by one.
    fn begin_repeat(&mut self) {
        self.phase = Phase::Repeat;
        let mut items = Vec::new();
        for ttl in self.request.first - 1..self.request.max {
            for (_, flows) in self.places(ttl) {
                let next: Vec<(u16, IpAddr)> =
                    flows.iter().filter_map(|flow| Some((*flow, self.of(ttl + 1, *flow)?.address()?))).collect();
                let ways: BTreeSet<IpAddr> = next.iter().map(|(_, address)| *address).collect();
                let Some((flow, address)) = next.first().copied().filter(|_| ways.len() > 1) else { continue };
                self.repeats.push((ttl + 1, address, address));
                for _ in 0..flows_needed(1, self.confidence) - 1 {
                    let mut probe = self.request.probe(ttl + 1);
                    probe.flow = flow;
                    items.push((Item::new(probe, 1), ttl + 1, address));
                }
            }
        }
        self.repeats.clear();
        for (_, ttl, address) in &items {
            self.repeats.push((*ttl, *address, *address));
        }
        self.batch.begin(items.into_iter().map(|(item, ..)| item).collect());
    }

    fn end_repeat(&mut self) {
        let items = std::mem::take(&mut self.batch.items);
        for (item, (ttl, expected, _)) in items.iter().zip(&self.repeats) {
            self.probes += 1;
            if item.answer.as_ref().is_some_and(|answer| answer.address != *expected) {
                self.per_packet.insert((*ttl, *expected));
            }
        }
        self.phase = Phase::Done;
    }

    /// What was found.
    pub fn graph(&self) -> Graph {
        let mut nodes: Vec<Node> = Vec::new();
        let mut flows_at: Vec<Vec<u16>> = Vec::new();
        let first = self.request.first - 1;
        nodes.push(Node {
            id: 0,
            ttl: first,
            address: Some(self.request.src),
            end: false,
            rtt_ms: None,
            flows: self.next_flow,
        });
        flows_at.push((0..self.next_flow).collect());
        let last = self
            .seen
            .iter()
            .filter(|(_, flows)| flows.values().any(|seen| seen.address().is_some()))
            .map(|(ttl, _)| *ttl)
            .max();
        for (ttl, flows) in self.seen.iter().filter(|(ttl, _)| Some(**ttl) <= last) {
            let mut by: BTreeMap<(Option<IpAddr>, bool), Vec<u16>> = BTreeMap::new();
            let some_answer = flows.values().any(|seen| seen.address().is_some());
            for (flow, seen) in flows {
                // Unanswered where others of the hop answer is a limit, not another router.
                if seen.address().is_some() || !some_answer {
                    by.entry((seen.address(), matches!(seen, Seen::End(_)))).or_default().push(*flow);
                }
            }
            for ((address, end), flows) in by {
                let rtt_ms = address.and_then(|address| self.rtts.get(&(*ttl, address)).copied());
                let count = u16::try_from(flows.len()).unwrap_or(u16::MAX);
                nodes.push(Node { id: nodes.len(), ttl: *ttl, address, end, rtt_ms, flows: count });
                flows_at.push(flows);
            }
        }
        let mut edges: Vec<Edge> = Vec::new();
        for (from, one) in nodes.iter().enumerate() {
            for (to, two) in nodes.iter().enumerate().filter(|(_, two)| two.ttl == one.ttl + 1) {
                let common = flows_at[from].iter().filter(|flow| flows_at[to].contains(flow)).count();
                if common > 0 && !one.end {
                    edges.push(Edge { from, to: two.id, flows: u16::try_from(common).unwrap_or(u16::MAX) });
                }
            }
        }
        let width = |ttl: u8| nodes.iter().filter(|node| node.ttl == ttl).count();
        // Where packets are spread one by one, two packets of a flow are at two routers of the next hop: what was seen
        // of the flow behind it joins routers that need not be joined, until all ways meet again.
        let (mut blurred, mut blurred_hops) = (false, Vec::new());
        for ttl in first..last.unwrap_or(first) {
            blurred = width(ttl) > 1 && (blurred || self.per_packet.iter().any(|(at, _)| *at == ttl));
            if blurred && width(ttl + 1) > 1 {
                blurred_hops.push(ttl + 1);
            }
        }
        let mut balancers = Vec::new();
        for node in &nodes {
            let ways: Vec<&Edge> =
                edges.iter().filter(|edge| edge.from == node.id && nodes[edge.to].address.is_some()).collect();
            if ways.len() > 1 {
                let per_packet = ways.iter().any(|edge| {
                    nodes[edge.to]
                        .address
                        .is_some_and(|address| self.per_packet.contains(&(nodes[edge.to].ttl, address)))
                });
                let spread = match per_packet {
                    _ if blurred_hops.contains(&(node.ttl + 1)) => Spread::Unknown,
                    true => Spread::PerPacket,
                    false => Spread::PerFlow,
                };
                balancers.push(Balancer { node: node.id, ways: ways.len(), spread });
            }
        }
        Graph {
            confidence: self.confidence,
            flows: self.next_flow,
            probes: self.probes,
            complete: !self.stopped && self.phase == Phase::Done,
            one_sample_hops: self.partial.iter().copied().collect(),
            blurred_hops,
            nodes,
            edges,
            balancers,
        }
    }
}

impl Conductor for PathSearch {
    fn heard(&mut self, event: &Event, now: Moment) {
        self.last = self.last.max(now);
        let (Event::Sent { id, .. } | Event::Reply { id, .. } | Event::Done { id, .. }) = event;
        if *id >= ROUNDS {
            self.batch.heard(event, now);
            return;
        }
        let Some(number) = self.orders.get(*id as usize).copied() else { return };
        match event {
            Event::Sent { packet, .. } => self.tracer.sent(number, packet.clone(), now),
            Event::Reply { reply, .. } => self.tracer.heard(number, reply, now),
            Event::Done { local_error: Some(errno), .. } => self.tracer.not_sent(number, errno, now),
            Event::Done { .. } => {}
        }
    }

    fn plan(&mut self, now: Moment) -> Plan {
        self.last = self.last.max(now);
        if self.phase == Phase::Trace {
            let mut plan = Plan::default();
            for (number, probe) in self.tracer.plan(now) {
                self.probes += 1;
                let Ok(id) = u32::try_from(self.orders.len()) else { continue };
                self.orders.push(number);
                let spec = ProbeSpec::new(id, ProbeKind::Path(probe)).timeout(Duration::from_secs(60));
                plan.send.push(ProbeSpec { via: self.request.via.clone(), ..spec });
            }
            if !self.tracer.is_done() {
                plan.wake = self.tracer.wake();
                return plan;
            }
            self.seed();
            self.phase = Phase::Rounds;
            if self.seen.is_empty() {
                self.phase = Phase::Done;
            }
        }
        let mut plan = self.batch.plan(now);
        while self.batch.is_over() && self.phase != Phase::Done {
            match self.phase {
                Phase::Rounds => {
                    self.learn();
                    self.round(now);
                }
                Phase::Repeat => self.end_repeat(),
                Phase::Trace | Phase::Done => {}
            }
            plan = self.batch.plan(now);
        }
        plan.done = self.phase == Phase::Done;
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published stopping points (Veitch and others; scamper has the same).
    #[test]
    fn the_stopping_points_are_the_published_ones() {
        let at = |confidence| (1..=16).map(|k| flows_needed(k, confidence)).collect::<Vec<_>>();
        assert_eq!(at(0.95), [6, 11, 16, 21, 27, 33, 38, 44, 51, 57, 63, 70, 76, 83, 90, 96]);
        assert_eq!(at(0.99), [8, 15, 21, 28, 36, 43, 51, 58, 66, 74, 82, 90, 98, 106, 115, 123]);
    }
}
