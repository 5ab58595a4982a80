//! A path watched for longer: round after round, what each hop answered, how fast, and what changed.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::bucket::{self, Bucket};
use super::result::{Answer, Said};
use super::{Patience, TraceRequest};
use crate::probe::{Conductor, Event, Moment, Outcome, Plan, ProbeKind, ProbeSpec};
use crate::wire::HexBytes;

/// Round trips kept for the strip of each hop.
pub const STRIP: usize = 120;
/// Probes kept for the fit of a limit.
const FITTED: usize = 400;
/// Probes kept open for late answers.
const KEPT: Duration = Duration::from_secs(10);
/// Silent hops that are asked behind the last that answered, once the path is known.
const BEYOND: u8 = 3;

/// Round trips of a hop, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// The latest.
    pub last_ms: Option<f64>,
    /// Mean.
    pub avg_ms: Option<f64>,
    /// Shortest.
    pub best_ms: Option<f64>,
    /// Longest.
    pub worst_ms: Option<f64>,
    /// Standard deviation; `None` with fewer than two.
    pub stddev_ms: Option<f64>,
    /// Mean difference of one from the next; `None` with fewer than two.
    pub jitter_ms: Option<f64>,
    #[serde(skip)]
    pub(crate) count: u32,
    #[serde(skip)]
    pub(crate) squares: f64,
    #[serde(skip)]
    pub(crate) steps: f64,
}

impl Times {
    fn add(&mut self, ms: f64) {
        self.count += 1;
        let count = f64::from(self.count);
        let mean = self.avg_ms.unwrap_or(0.0);
        // Welford's way: no sum of squares that would lose its small digits.
        let next = mean + (ms - mean) / count;
        self.squares += (ms - mean) * (ms - next);
        self.avg_ms = Some(next);
        if let Some(last) = self.last_ms {
            self.steps += (ms - last).abs();
            self.jitter_ms = Some(self.steps / (count - 1.0));
            self.stddev_ms = Some((self.squares / (count - 1.0)).sqrt());
        }
        self.last_ms = Some(ms);
        self.best_ms = Some(self.best_ms.map_or(ms, |best| best.min(ms)));
        self.worst_ms = Some(self.worst_ms.map_or(ms, |worst| worst.max(ms)));
    }
}

/// A hop that answered from another address than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PathChange {
    /// In which round, from 1.
    pub round: u32,
    /// At which hop.
    pub ttl: u8,
    /// Who answered before.
    pub from: IpAddr,
    /// Who does now.
    pub to: IpAddr,
}

/// One hop as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HopReport {
    /// TTL.
    pub ttl: u8,
    /// Addresses that answered, the latest first.
    pub addresses: Vec<IpAddr>,
    /// Their names.
    pub names: Vec<String>,
    /// Probes whose time is over.
    pub sent: u32,
    /// Answers.
    pub received: u32,
    /// Share that was not answered, per cent.
    pub loss_percent: Option<f64>,
    /// Round trips.
    #[serde(flatten)]
    pub times: Times,
    /// A limit on its answers.
    pub rate_limit: Option<Bucket>,
    /// What the loss is, in words.
    pub verdict: Option<String>,
    /// Latest round trips, `None` where lost.
    #[serde(skip)]
    pub strip: Vec<Option<f64>>,
    /// The latest answer.
    #[serde(skip)]
    pub answer: Option<Answer>,
    /// The latest probe.
    #[serde(skip)]
    pub packet: Option<HexBytes>,
}

/// One target as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WatchReport {
    /// As the user wrote it.
    pub target: String,
    /// Its address.
    pub address: IpAddr,
    /// `icmp`, `udp` or `tcp`.
    pub protocol: &'static str,
    /// Rounds begun.
    pub rounds: u32,
    /// Whether the destination answered in the end.
    pub reached: bool,
    /// The hops.
    pub hops: Vec<HopReport>,
    /// What changed meanwhile.
    pub changes: Vec<PathChange>,
}

#[derive(Debug, Clone, Default)]
struct Stats {
    addresses: Vec<IpAddr>,
    sent: u32,
    received: u32,
    times: Times,
    strip: VecDeque<Option<f64>>,
    timeline: VecDeque<(Duration, bool)>,
    answer: Option<Answer>,
    packet: Option<HexBytes>,
}

#[derive(Debug, Clone)]
struct Under {
    ttl: u8,
    sent: Option<Moment>,
    packet: Option<HexBytes>,
}

#[derive(Debug, Clone)]
struct Watched {
    request: TraceRequest,
    patience: Patience,
    hops: BTreeMap<u8, Stats>,
    end: Option<u8>,
    round: u32,
    /// TTLs still to be asked in this round, and when.
    due: VecDeque<(Moment, u8)>,
    next_round: Option<Moment>,
    under_way: BTreeMap<u32, Under>,
    changes: Vec<PathChange>,
}

/// Is told how it stands.
pub type News<'a> = dyn FnMut(&[WatchReport]) + 'a;

/// Watches paths.
pub struct Monitor<'a> {
    targets: Vec<Watched>,
    interval: Duration,
    rounds: Option<u32>,
    raw: bool,
    next_id: u32,
    owner: BTreeMap<u32, usize>,
    start: Option<Moment>,
    news: Box<News<'a>>,
    told: Option<Moment>,
}

/// News are told at most so often.
const NEWS: Duration = Duration::from_millis(100);

impl<'a> Monitor<'a> {
    /// A round each `interval`, so many of them, or without end. `news` is told how it stands, some times a second.
    pub fn new(
        requests: Vec<TraceRequest>,
        raw: bool,
        interval: Duration,
        rounds: Option<u32>,
        news: Box<News<'a>>,
    ) -> Self {
        let watched = |request: TraceRequest| Watched {
            patience: Patience::new(request.wait),
            request,
            hops: BTreeMap::new(),
            end: None,
            round: 0,
            due: VecDeque::new(),
            next_round: None,
            under_way: BTreeMap::new(),
            changes: Vec::new(),
        };
        Self {
            targets: requests.into_iter().map(watched).collect(),
            interval,
            rounds,
            raw,
            next_id: 0,
            owner: BTreeMap::new(),
            start: None,
            news,
            told: None,
        }
    }

    /// How it stands.
    pub fn reports(&self) -> Vec<WatchReport> {
        self.targets.iter().map(Watched::report).collect()
    }
}

impl Watched {
    fn last_answered(&self) -> u8 {
        self.hops.iter().filter(|(_, stats)| stats.received > 0).map(|(ttl, _)| *ttl).max().unwrap_or(0)
    }

    fn begin_round(&mut self, now: Moment, interval: Duration) {
        self.round += 1;
        self.next_round = Some(now + interval);
        let last = match self.end {
            Some(end) => end,
            None if self.round == 1 => self.request.max,
            None => self.last_answered().saturating_add(BEYOND).min(self.request.max),
        };
        let ttls: Vec<u8> = (self.request.first..=last.max(self.request.first)).collect();
        // The first round shows the path at once; later ones are spread, so that no router is asked in bursts.
        let gap =
            if self.round == 1 { Duration::ZERO } else { interval / 2 / u32::try_from(ttls.len()).unwrap_or(1).max(1) };
        self.due = ttls.into_iter().zip(0u32..).map(|(ttl, at)| (now + gap * at, ttl)).collect();
    }

    /// What has waited long enough is lost.
    fn expire(&mut self, now: Moment, start: Moment, wait: Duration) {
        let over: Vec<u32> = self
            .under_way
            .iter()
            .filter(|(_, probe)| probe.sent.is_some_and(|sent| now >= sent + wait))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            let Some(probe) = self.under_way.remove(&id) else { continue };
            // Behind the end of the path there is nothing to lose.
            if self.end.is_none_or(|end| probe.ttl <= end) {
                self.note(probe, None, start);
            }
        }
    }

    fn note(&mut self, probe: Under, answer: Option<Answer>, start: Moment) {
        let round = self.round;
        let stats = self.hops.entry(probe.ttl).or_default();
        stats.sent += 1;
        let rtt = answer.as_ref().and_then(|answer| answer.rtt_ms);
        if stats.strip.len() >= STRIP {
            stats.strip.pop_front();
        }
        stats.strip.push_back(rtt);
        if stats.timeline.len() >= FITTED {
            stats.timeline.pop_front();
        }
        stats.timeline.extend(probe.sent.map(|sent| (sent.since(start), answer.is_some())));
        stats.packet = probe.packet.or(stats.packet.take());
        let Some(answer) = answer else { return };
        stats.received += 1;
        if let Some(rtt) = rtt {
            stats.times.add(rtt);
            self.patience.add(Duration::from_secs_f64(rtt.clamp(0.0, 60_000.0) / 1000.0));
        }
        if let Some(before) = stats.addresses.first().copied().filter(|before| *before != answer.address) {
            self.changes.push(PathChange { round, ttl: probe.ttl, from: before, to: answer.address });
        }
        stats.addresses.retain(|known| *known != answer.address);
        stats.addresses.insert(0, answer.address);
        stats.answer = Some(answer);
    }

    fn report(&self) -> WatchReport {
        let last = self.end.unwrap_or(self.last_answered());
        let shown: Vec<(u8, Stats)> =
            (self.request.first..=last).map(|ttl| (ttl, self.hops.get(&ttl).cloned().unwrap_or_default())).collect();
        let mut hops: Vec<HopReport> = Vec::new();
        for (at, (ttl, stats)) in shown.iter().enumerate() {
            let percent = |lost: u32| f64::from(lost) * 100.0 / f64::from(stats.sent.max(1));
            let lost = stats.sent - stats.received;
            let timeline: Vec<(Duration, bool)> = stats.timeline.iter().copied().collect();
            let rate_limit = bucket::fit(&timeline);
            // Loss on the way to a hop is loss for all behind it, so the least of those is an upper bound.
            let behind = shown[at + 1..].iter().filter(|(_, later)| later.received > 0);
            let least = behind.map(|(_, later)| f64::from(later.sent - later.received) / f64::from(later.sent.max(1)));
            let least =
                least.fold(None, |known: Option<f64>, share| Some(known.map_or(share, |known| known.min(share))));
            let own = f64::from(lost) / f64::from(stats.sent.max(1));
            let verdict = if lost == 0 {
                None
            } else if stats.received == 0 {
                least.map(|_| "forwards, but does not tell when a TTL runs out".to_owned())
            } else if let Some(limit) = &rate_limit {
                Some(format!("{}: a limit, not loss", super::limit_in_words(limit)))
            } else if least.is_some_and(|least| least + 0.05 < own) {
                Some("its answers are limited or lost; traffic passes".to_owned())
            } else {
                Some("loss".to_owned())
            };
            hops.push(HopReport {
                ttl: *ttl,
                addresses: stats.addresses.clone(),
                names: Vec::new(),
                sent: stats.sent,
                received: stats.received,
                loss_percent: (stats.sent > 0).then(|| percent(lost)),
                times: stats.times,
                rate_limit,
                verdict,
                strip: stats.strip.iter().copied().collect(),
                answer: stats.answer.clone(),
                packet: stats.packet.clone(),
            });
        }
        WatchReport {
            target: self.request.target.clone(),
            address: self.request.dst,
            protocol: self.request.method.name(),
            rounds: self.round,
            reached: self.end.is_some(),
            hops,
            changes: self.changes.clone(),
        }
    }
}

impl Conductor for Monitor<'_> {
    fn heard(&mut self, event: &Event, now: Moment) {
        let (Event::Sent { id, .. } | Event::Reply { id, .. } | Event::Done { id, .. }) = event;
        let Some(watched) = self.owner.get(id).map(|index| &mut self.targets[*index]) else { return };
        let start = self.start.unwrap_or(now);
        match event {
            Event::Sent { packet, .. } => {
                if let Some(probe) = watched.under_way.get_mut(id) {
                    (probe.sent, probe.packet) = (Some(now), packet.clone());
                }
            }
            Event::Reply { reply, .. } if reply.is_conclusive() => {
                let dst = watched.request.dst;
                let packet = watched.under_way.get(id).and_then(|probe| probe.packet.as_ref());
                let Some(answer) = super::answer(reply, dst, packet, self.raw) else { return };
                let Some(probe) = watched.under_way.remove(id) else { return };
                let ttl = probe.ttl;
                let ends = answer.said != Said::TimeExceeded;
                let from_there = answer.address == dst;
                if !ends || watched.end.is_none_or(|end| ttl <= end) {
                    watched.note(probe, Some(answer), start);
                }
                if ends && (from_there || watched.end.is_none()) && watched.end.is_none_or(|end| ttl < end) {
                    watched.end = Some(ttl);
                    watched.due.retain(|(_, due)| *due <= ttl);
                    watched.hops.retain(|hop, _| *hop <= ttl);
                }
            }
            Event::Done { outcome, .. } => {
                if *outcome == Outcome::LocalError
                    && let Some(probe) = watched.under_way.remove(id)
                {
                    watched.note(probe, None, start);
                }
                self.owner.remove(id);
            }
            Event::Reply { .. } => {}
        }
    }

    fn plan(&mut self, now: Moment) -> Plan {
        let start = *self.start.get_or_insert(now);
        let mut plan = Plan::default();
        let mut wake: Option<Moment> = None;
        let mut soonest = |at: Moment| wake = Some(wake.map_or(at, |known| known.min(at)));
        let mut over = true;
        for (index, watched) in self.targets.iter_mut().enumerate() {
            // Far more than the usual: what comes later is lost, as it is for whoever waits for it.
            let wait = watched.request.wait.unwrap_or((watched.patience.hop() * 2).max(self.interval).min(KEPT));
            watched.expire(now, start, wait);
            let more = self.rounds.is_none_or(|rounds| watched.round < rounds);
            if more && watched.next_round.is_none_or(|next| now >= next) {
                watched.begin_round(now, self.interval);
            }
            while let Some((at, ttl)) = watched.due.front().copied() {
                if at > now {
                    soonest(at);
                    break;
                }
                watched.due.pop_front();
                let id = self.next_id;
                self.next_id = self.next_id.wrapping_add(1);
                self.owner.insert(id, index);
                watched.under_way.insert(id, Under { ttl, sent: None, packet: None });
                let via = watched.request.via.clone();
                let probe = ProbeKind::Path(watched.request.probe(ttl));
                plan.send.push(ProbeSpec { via, ..ProbeSpec::new(id, probe).timeout(KEPT) });
            }
            let more = self.rounds.is_none_or(|rounds| watched.round < rounds);
            if more {
                watched.next_round.into_iter().for_each(&mut soonest);
            }
            // Answered before the last wait is over: all that is still open lies behind the end.
            let waits = watched.under_way.values().any(|probe| watched.end.is_none_or(|end| probe.ttl <= end));
            over &= !more && watched.due.is_empty() && !waits;
            let next = watched.under_way.values().filter_map(|probe| probe.sent).min().map(|sent| sent + wait);
            next.into_iter().for_each(&mut soonest);
        }
        plan.wake = wake;
        plan.done = over;
        if self.told.is_none_or(|told| now >= told + NEWS) || over {
            self.told = Some(now);
            let reports = self.reports();
            (self.news)(&reports);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_textbook() {
        let mut times = Times::default();
        for ms in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            times.add(ms);
        }
        assert_eq!(
            (times.avg_ms, times.best_ms, times.worst_ms, times.last_ms),
            (Some(5.0), Some(2.0), Some(9.0), Some(9.0))
        );
        assert!((times.stddev_ms.unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(times.jitter_ms, Some(1.0));
        let mut one = Times::default();
        one.add(3.0);
        assert_eq!((one.stddev_ms, one.jitter_ms), (None, None));
    }
}
