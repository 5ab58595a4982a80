//! The largest packet that passes each hop, and who drops larger ones without saying so.
//!
//! A packet as large as the own link takes is sent towards every hop at once, not to be fragmented. A router whose
//! next link is smaller says so, with its MTU (RFC 1191, RFC 8201), and the next round is of that size. Where larger
//! packets vanish and nobody says so (a black hole, RFC 2923), the size that passes is searched for.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::batch::{Batch, Item};
use super::result::{Said, Trace};
use super::{Finding, Patience, TraceRequest};
use crate::probe::{Conductor, Event, Moment, PathMethod, Plan};

/// Sizes worth a try where nobody names one: what tunnels and links leave, and the plateaus of RFC 1191 §7.
const USUAL: [u16; 22] = [
    9000, 8166, 4464, 4352, 2002, 1500, 1492, 1480, 1476, 1472, 1460, 1450, 1440, 1420, 1412, 1400, 1380, 1350, 1300,
    1280, 1006, 576,
];
/// Sizes asked for at once while searching.
const FANS: u16 = 8;

/// A link that is smaller than those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Narrowing {
    /// Behind this hop; 0: this host's own link.
    pub after_ttl: u8,
    /// The router that should say so.
    pub router: Option<IpAddr>,
    /// The largest packet behind it, octets.
    pub mtu: u16,
    /// It said so.
    pub told: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MtuReport {
    /// Largest packet that gets to the end of the path, octets.
    pub path_mtu: Option<u16>,
    /// By TTL: the largest packet that got there.
    pub hops: Vec<(u8, u16)>,
    /// Where it gets narrower.
    pub narrowings: Vec<Narrowing>,
}

enum Phase {
    Probe,
    /// Between a size that passes and one that does not, seen at this TTL, behind that hop.
    Search {
        low: u16,
        high: u16,
        ttl: u8,
        after: u8,
        usual: bool,
    },
    /// The end alone did not answer: perhaps its limit on answers is used up. Asked again when a token must be back.
    Paced,
    Done,
}

/// A usual limit has given a token back by then.
const TOKEN: Duration = Duration::from_millis(1100);

/// The search under way.
pub struct MtuSearch {
    request: TraceRequest,
    /// TTL and address of the hops that answer; the last is the end of the path.
    hops: Vec<(u8, IpAddr)>,
    size: u16,
    phase: Phase,
    batch: Batch,
    report: MtuReport,
    rounds: u8,
    now: Moment,
    /// The end stopped answering packets of the size that it had answered.
    lost_end: bool,
}

fn floor(v6: bool) -> u16 {
    if v6 { 1280 } else { 68 }
}

impl MtuSearch {
    /// Over the hops of a trace; `link`: the MTU of the interface that probes leave by.
    pub fn new(trace: &Trace, request: TraceRequest, patience: Patience, link: u16) -> Self {
        let hops: Vec<(u8, IpAddr)> =
            trace.hops.iter().filter_map(|hop| Some((hop.ttl, *hop.addresses().first()?))).collect();
        let batch = Batch::new(request.dst, trace.raw, request.via.clone(), patience);
        let mut search = Self {
            hops,
            size: link,
            phase: Phase::Probe,
            batch,
            report: MtuReport::default(),
            rounds: 0,
            now: Moment(0),
            lost_end: false,
            request,
        };
        if search.hops.is_empty() {
            search.phase = Phase::Done;
        } else {
            search.ask_all();
        }
        search
    }

    fn item(&self, ttl: u8, size: u16) -> Item {
        let mut probe = self.request.probe(ttl);
        probe.length = size;
        Item::new(probe, 2)
    }

    fn ask_all(&mut self) {
        self.rounds += 1;
        let items = self.hops.iter().map(|(ttl, _)| self.item(*ttl, self.size)).collect();
        self.batch.begin(items);
    }

    fn note(&mut self, ttl: u8, size: u16) {
        match self.report.hops.iter_mut().find(|(known, _)| *known == ttl) {
            Some((_, known)) => *known = (*known).max(size),
            None => self.report.hops.push((ttl, size)),
        }
    }

    /// A round is over.
    fn decide(&mut self) {
        match self.phase {
            Phase::Probe => self.decide_probe(),
            Phase::Search { low, high, ttl, after, usual } => self.decide_search(low, high, ttl, after, usual),
            Phase::Paced => {
                let passes =
                    self.batch.items.iter().any(|item| item.answer.as_ref().is_some_and(|a| a.said != Said::TooBig));
                let last = self.hops.last().map_or(0, |hop| hop.0);
                if passes {
                    self.note(last, self.size);
                    self.report.path_mtu = Some(self.size);
                    self.phase = Phase::Done;
                } else {
                    let before = self.hops.iter().rev().nth(1).map_or(0, |hop| hop.0);
                    self.start_search(last, before);
                }
            }
            Phase::Done => {}
        }
    }

    fn start_search(&mut self, ttl: u8, passed: u8) {
        let low = floor(self.request.dst.is_ipv6()).max(self.request.length).min(self.size);
        self.search(low, self.size, ttl, passed, true);
        // The size that is known to pass goes along: without its answer, silence says nothing of sizes.
        let control = self.item(ttl, low);
        self.batch.items.push(control);
    }

    fn decide_probe(&mut self) {
        let size = self.size;
        let items = std::mem::take(&mut self.batch.items);
        let (mut told, mut refused_here) = (None, false);
        let mut passed = 0;
        for item in &items {
            match &item.answer {
                Some(answer) if answer.said == Said::TooBig => {
                    told.get_or_insert((answer.address, answer.mtu));
                }
                Some(_) => {
                    self.note(item.probe.ttl, size);
                    passed = passed.max(item.probe.ttl);
                }
                None => refused_here |= item.error.as_deref() == Some("EMSGSIZE"),
            }
        }
        let last = self.hops.last().map_or(0, |hop| hop.0);
        if passed == last {
            self.report.path_mtu = Some(size);
            self.phase = Phase::Done;
            return;
        }
        let v6 = self.request.dst.is_ipv6();
        let lower = |below: u16| USUAL.into_iter().find(|usual| *usual < below).unwrap_or_else(|| floor(v6));
        if let Some((router, mtu)) = told {
            let said = mtu.and_then(|mtu| u16::try_from(mtu).ok()).filter(|mtu| *mtu < size && *mtu >= 68);
            // Routers older than RFC 1191 name none: down to the next plateau.
            let next = said.unwrap_or_else(|| lower(size));
            let after = self.hops.iter().find(|hop| hop.1 == router).map_or(passed, |hop| hop.0);
            self.report.narrowings.push(Narrowing { after_ttl: after, router: Some(router), mtu: next, told: true });
            self.again(next);
        } else if refused_here {
            self.again(lower(size));
        } else {
            let before = self.hops.iter().rev().nth(1).map_or(0, |hop| hop.0);
            if passed >= before && self.request.method != PathMethod::Icmp {
                self.phase = Phase::Paced;
                let mut item = self.item(last, size);
                item.not_before = self.now + TOKEN;
                self.batch.begin(vec![item]);
            } else {
                self.start_search(last, passed);
            }
        }
    }

    fn again(&mut self, size: u16) {
        // Each round goes lower, so this bounds a liar's game, no honest path.
        if self.rounds >= 40 || size >= self.size {
            self.phase = Phase::Done;
            return;
        }
        self.size = size;
        self.ask_all();
    }

    fn search(&mut self, low: u16, high: u16, ttl: u8, after: u8, usual: bool) {
        self.rounds += 1;
        let mut sizes: Vec<u16> = if usual {
            USUAL.into_iter().filter(|size| *size > low && *size < high).collect()
        } else {
            (1..=FANS)
                .map(|part| {
                    low + u16::try_from(u32::from(high - low) * u32::from(part) / u32::from(FANS + 1)).unwrap_or(0)
                })
                .collect()
        };
        sizes.retain(|size| *size > low && *size < high);
        sizes.sort_unstable();
        sizes.dedup();
        if usual && sizes.is_empty() {
            return self.search(low, high, ttl, after, false);
        }
        self.phase = Phase::Search { low, high, ttl, after, usual };
        let items = sizes.into_iter().map(|size| self.item(ttl, size)).collect();
        self.batch.begin(items);
    }

    fn decide_search(&mut self, low: u16, high: u16, ttl: u8, after: u8, usual: bool) {
        let items = std::mem::take(&mut self.batch.items);
        let passes = |item: &&Item| item.answer.as_ref().is_some_and(|answer| answer.said != Said::TooBig);
        let control = items.iter().any(|item| item.probe.length == low && !passes(&item));
        if control && !items.iter().any(|item| passes(&item)) {
            // Its answers are limited: the next hop behind the narrow place has answered less so far.
            match self.hops.iter().find(|hop| hop.0 > after && hop.0 < ttl).map(|hop| hop.0) {
                Some(nearer) if self.rounds < 40 => self.start_search(nearer, after),
                _ => {
                    self.lost_end = true;
                    self.phase = Phase::Done;
                }
            }
            return;
        }
        let best = items.iter().filter(passes).map(|item| item.probe.length).max().unwrap_or(low);
        let too_big = items.iter().filter(|item| !passes(item)).map(|item| item.probe.length);
        let least = too_big.filter(|size| *size > best).min().unwrap_or(high);
        if least - best > 1 && self.rounds < 40 {
            return self.search(best, least, ttl, after, usual && best == low);
        }
        let router = self.hops.iter().find(|hop| hop.0 == after).map(|hop| hop.1);
        self.report.narrowings.push(Narrowing { after_ttl: after, router, mtu: best, told: false });
        // Once more to all hops with what passes.
        self.size = best + 1;
        self.phase = Phase::Probe;
        self.again(best);
    }

    /// What was found, put into the trace.
    pub fn finish(mut self, trace: &mut Trace) -> MtuReport {
        self.report.hops.sort_unstable();
        for hop in &mut trace.hops {
            hop.mtu = self.report.hops.iter().find(|(ttl, _)| *ttl == hop.ttl).map(|(_, mtu)| u32::from(*mtu));
        }
        if trace.reached {
            trace.path_mtu = self.report.path_mtu.map(u32::from);
        }
        if self.lost_end {
            let says = "the end of the path stopped answering while it was asked for its MTU: its answers are limited; \
                        with ICMP (the default) most hosts answer more";
            trace.findings.push(Finding::new("mtu_unknown", self.hops.last().map(|hop| hop.0), says));
        }
        for narrowing in &self.report.narrowings {
            let router = narrowing.router.map_or_else(|| "this host".to_owned(), |router| router.to_string());
            let Narrowing { after_ttl, mtu, told, .. } = narrowing;
            let finding = if *told {
                let says = format!(
                    "behind hop {after_ttl} ({router}) packets of at most {mtu} octets pass; the router says so"
                );
                Finding::new("mtu", Some(*after_ttl), says)
            } else {
                let says = format!(
                    "behind hop {after_ttl} ({router}) packets of more than {mtu} octets vanish, and nobody says so: the router \
                     that drops them should send \"fragmentation needed\" (IPv6: \"packet too big\"), or what it sends is \
                     filtered. Connections will stall there; `tcp-mss-clamp` or an MTU of {mtu} helps"
                );
                Finding::new("mtu_blackhole", Some(*after_ttl), says.replace("`tcp-mss-clamp`", "clamping the MSS"))
            };
            trace.findings.push(finding);
        }
        self.report
    }
}

impl Conductor for MtuSearch {
    fn heard(&mut self, event: &Event, now: Moment) {
        self.batch.heard(event, now);
    }

    fn plan(&mut self, now: Moment) -> Plan {
        self.now = now;
        let mut plan = self.batch.plan(now);
        while self.batch.is_over() && !matches!(self.phase, Phase::Done) {
            self.decide();
            plan = self.batch.plan(now);
        }
        plan.done = matches!(self.phase, Phase::Done);
        plan
    }
}
