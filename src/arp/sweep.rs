//! Asking for many addresses at once: in rounds, at a steady rate, for as long as another round could
//! still find someone.
//!
//! Each round asks for every address that has not answered. In the second round some that have are asked
//! again: how many of them stay silent is the link's loss, and from it follows how many rounds it takes
//! until nobody is likely to have been missed. A quiet link is done after two or three; one that loses
//! packets gets more.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::conversation::{Conversation, Outgoing, Step};
use super::frame::{self, Reach, Speaker};
use super::targets::Targets;
use crate::wire::MacAddr;

/// Frames given out at once.
const BATCH: usize = 32;
/// Most rounds without a fixed number of them.
const MOST_ROUNDS: u8 = 10;
/// Stations asked again in the second round to measure the loss.
const SAMPLE: usize = 1024;
/// The sweep ends when fewer stations than this are expected to have been missed.
const MISSED: f64 = 0.005;
/// More stations than this for one address are forged.
pub(super) const MOST_RESPONDERS: usize = 64;
const MS: u64 = 1_000_000;

/// How to sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Requests a second.
    pub rate: f64,
    /// Rounds; `None`: as many as the loss asks for.
    pub rounds: Option<u8>,
    /// An address is not asked for again sooner, nanoseconds.
    pub gap: u64,
    /// How long answers are waited for after the last request, nanoseconds.
    pub last: u64,
    /// Chosen at random: begins the order of the requests.
    pub seed: u64,
}

impl Plan {
    /// For a quick link.
    pub const LOCAL: Self = Self { rate: 20_000.0, rounds: None, gap: 60 * MS, last: 150 * MS, seed: 0 };
    /// For radio, where stations sleep and broadcasts are slow.
    pub const RADIO: Self = Self { rate: 500.0, rounds: None, gap: 350 * MS, last: 1000 * MS, seed: 0 };
}

/// One station's answers for one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responder {
    /// The hardware address it gave.
    pub mac: MacAddr,
    /// The frame's source where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ether_src: Option<MacAddr>,
    /// Replies counted.
    pub replies: u32,
    /// Rounds in which it answered, a bit each, the first lowest.
    pub rounds: u16,
    /// From request to first reply; `None` where the reply may belong to either of two requests.
    pub rtt_ns: Option<u64>,
    /// When it answered first.
    pub first_at: u64,
}

/// How far a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepProgress {
    /// From 1.
    pub round: u8,
    /// Addresses in all.
    pub targets: usize,
    /// Addresses gone through in this round.
    pub done: usize,
    /// Addresses that answered.
    pub answered: usize,
    /// Requests sent.
    pub sent: u64,
}

/// What a sweep found.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepOutcome {
    /// Who answered for what.
    pub answers: BTreeMap<IpAddr, Vec<Responder>>,
    /// Addresses that were to be asked for.
    pub targets: usize,
    /// Those that were, once at least.
    pub asked: usize,
    /// Requests sent.
    pub sent: u64,
    /// Rounds begun.
    pub rounds: u8,
    /// Share of exchanges that were lost, as measured; `None` where nobody could be asked twice.
    pub loss: Option<f64>,
    /// Stations that are expected to have been missed; `None` where the loss is not known.
    pub missed: Option<f64>,
    /// Frames lost on arrival.
    pub overrun: u64,
    /// It came to its end.
    pub complete: bool,
    /// Nanoseconds it took.
    pub took: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Requests are being sent.
    Asking,
    /// All of this round are sent; answers to the last are waited for.
    Listening {
        until: u64,
    },
    /// No more rounds; the last answers.
    Ending {
        until: u64,
    },
    Done,
}

/// A sweep under way.
#[derive(Debug)]
pub struct Sweep {
    speaker: Speaker,
    targets: Targets,
    /// Places whose address is the speaker's own: asked for as nobody, so that no cache is touched.
    own: Vec<usize>,
    plan: Plan,
    stride: usize,
    begun: Option<u64>,
    ended: u64,
    round: u8,
    round_begun: u64,
    /// Steps of this round gone through.
    at: usize,
    /// In a round of re-asking, one of so many that answered is asked again.
    every: usize,
    seen_answered: usize,
    phase: Phase,
    tokens: f64,
    filled: u64,
    rate: f64,
    /// Requests for each address, at most 255.
    tries: Vec<u8>,
    /// When an address was asked for first and last, microseconds after the beginning, plus 1.
    first: Vec<u32>,
    last: Vec<u32>,
    answers: BTreeMap<usize, Vec<Responder>>,
    /// Asked again in this round, and whether they answered.
    again: BTreeMap<usize, bool>,
    trials: u32,
    hits: u32,
    sent: u64,
    asked: usize,
    last_sent: u64,
    slowest: u64,
    overrun: u64,
    overrun_handled: u64,
}

impl Sweep {
    /// A sweep of `targets`; `own` are the speaker's own addresses among them.
    pub fn new(speaker: Speaker, targets: Targets, own: &[IpAddr], plan: Plan) -> Self {
        let count = targets.len();
        let own = own.iter().filter_map(|ip| targets.place(*ip)).collect();
        Self {
            speaker,
            own,
            stride: stride(count),
            begun: None,
            ended: 0,
            round: 1,
            round_begun: 0,
            at: 0,
            every: 1,
            seen_answered: 0,
            phase: Phase::Asking,
            tokens: 1.0,
            filled: 0,
            rate: plan.rate.max(1.0),
            tries: vec![0; count],
            first: vec![0; count],
            last: vec![0; count],
            answers: BTreeMap::new(),
            again: BTreeMap::new(),
            trials: 0,
            hits: 0,
            sent: 0,
            asked: 0,
            last_sent: 0,
            slowest: 0,
            overrun: 0,
            overrun_handled: 0,
            targets,
            plan,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> SweepProgress {
        SweepProgress {
            round: self.round,
            targets: self.targets.len(),
            done: self.at,
            answered: self.answers.len(),
            sent: self.sent,
        }
    }

    /// What was found until now.
    pub fn outcome(&self) -> SweepOutcome {
        let loss = (self.trials > 0).then(|| 1.0 - f64::from(self.hits) / f64::from(self.trials));
        SweepOutcome {
            answers: self
                .answers
                .iter()
                .filter_map(|(place, responders)| Some((self.targets.get(*place)?, responders.clone())))
                .collect(),
            targets: self.targets.len(),
            asked: self.asked,
            sent: self.sent,
            rounds: self.round,
            loss,
            missed: loss.map(|_| self.missed(self.round)),
            overrun: self.overrun,
            complete: self.phase == Phase::Done,
            took: self.ended.saturating_sub(self.begun.unwrap_or(self.ended)),
        }
    }

    /// The share of exchanges that fail, from what was measured, leaning towards the worse.
    fn failing(&self) -> f64 {
        let (trials, misses) = (f64::from(self.trials), f64::from(self.trials - self.hits));
        let mean = (misses + 0.5) / (trials + 8.0);
        (mean + (mean * (1.0 - mean) / (trials + 8.0)).sqrt()).min(0.9)
    }

    /// Stations expected to have stayed silent in all of so many rounds.
    fn missed(&self, rounds: u8) -> f64 {
        let p = self.failing().powi(rounds.into());
        #[allow(clippy::cast_precision_loss, reason = "counts of stations are far below 2^52")]
        let found = self.answers.len().max(1) as f64;
        found * p / (1.0 - p)
    }

    fn another_round(&self) -> bool {
        if let Some(rounds) = self.plan.rounds {
            return self.round < rounds.max(1);
        }
        // Who was found by few asks says little about the others.
        let least = if self.trials >= 100 && self.hits == self.trials { 2 } else { 3 };
        let lost_here = self.overrun > self.overrun_handled;
        self.round < least || (self.round < MOST_ROUNDS && (self.missed(self.round) > MISSED || lost_here))
    }

    fn begin_round(&mut self, now: u64) {
        self.round += 1;
        self.round_begun = now;
        self.at = 0;
        self.seen_answered = 0;
        self.again.clear();
        self.every = self.answers.len().div_ceil(SAMPLE).max(1);
        if self.overrun > self.overrun_handled {
            self.overrun_handled = self.overrun;
            self.rate = (self.rate / 2.0).max(100.0);
        }
        // No burst: each address keeps its distance from its last request.
        (self.tokens, self.filled) = (1.0, now);
        self.phase = Phase::Asking;
    }

    /// Whether an address that answered is asked again now: two stations always, others in the second round.
    fn asks_again(&mut self, place: usize) -> bool {
        let several = self.answers.get(&place).is_some_and(|responders| responders.len() > 1);
        if several {
            return self.round <= 3;
        }
        self.seen_answered += 1;
        self.round == 2 && self.seen_answered.is_multiple_of(self.every)
    }

    /// The next place of this round to ask for.
    fn next(&mut self) -> Option<usize> {
        while self.at < self.targets.len() {
            let place = self.nth(self.at);
            self.at += 1;
            if !self.answers.contains_key(&place) {
                return Some(place);
            }
            if self.asks_again(place) {
                // Who is slow to answer (a proxy) says nothing about loss: the reply may come in the next round.
                let quick = |one: &Responder| one.rtt_ns.is_some_and(|rtt| rtt < self.plan.gap / 4);
                if self.answers.get(&place).is_some_and(|all| all.iter().any(quick)) {
                    self.again.insert(place, false);
                }
                return Some(place);
            }
        }
        None
    }

    /// The order: every place once, spread over the whole.
    fn nth(&self, step: usize) -> usize {
        let count = self.targets.len() as u128;
        let place = (u128::from(self.plan.seed) + step as u128 * self.stride as u128) % count;
        usize::try_from(place).unwrap_or(0)
    }

    /// How long after the first request an answer is still waited for before the address is asked for again.
    fn gap(&self) -> u64 {
        self.plan.gap.max((3 * self.slowest).min(1000 * MS))
    }

    fn micros(&self, at: u64) -> u32 {
        let since = at.saturating_sub(self.begun.unwrap_or(at)) / 1000 + 1;
        u32::try_from(since).unwrap_or(u32::MAX)
    }
}

/// A step through `count` places that meets each once: near the golden section, without a common divisor.
fn stride(count: usize) -> usize {
    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    let golden = (count as u128 * 618_034 / 1_000_000) as usize;
    (golden.max(1)..=count.max(1)).find(|step| divisor(*step, count.max(1)) == 1).unwrap_or(1)
}

impl Conversation for Sweep {
    fn poll(&mut self, now: u64, out: &mut Vec<Outgoing>) -> Step {
        let begun = *self.begun.get_or_insert(now);
        if self.filled == 0 {
            (self.filled, self.round_begun) = (now, begun);
        }
        self.ended = now;
        // What was not used in a few milliseconds is not made up for by a burst.
        let since = std::time::Duration::from_nanos(now.saturating_sub(self.filled)).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + since * self.rate).min((self.rate * 0.004).clamp(4.0, 512.0));
        loop {
            match self.phase {
                Phase::Asking => {
                    while out.len() < BATCH && self.tokens >= 1.0 {
                        let Some(place) = self.next() else {
                            let patience = (2 * self.slowest).clamp(15 * MS, 1000 * MS);
                            let until = (self.last_sent.max(now) + patience).max(self.round_begun + self.gap());
                            self.phase = Phase::Listening { until };
                            break;
                        };
                        let Some(target) = self.targets.get(place) else { continue };
                        self.tokens -= 1.0;
                        let own = self.own.contains(&place);
                        let speaker = Speaker { ip: self.speaker.ip.filter(|_| !own), ..self.speaker };
                        let bytes = frame::request(speaker, target, Reach::All);
                        out.push(Outgoing { token: place as u64, bytes });
                    }
                    if self.phase == Phase::Asking {
                        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, small")]
                        let wait = ((1.0 - self.tokens).max(0.0) / self.rate * 1e9) as u64;
                        // Waking for each single frame costs more than the frame.
                        return Step::Until(now + wait.max(if out.is_empty() { 100_000 } else { 0 }));
                    }
                    if !out.is_empty() {
                        return Step::Until(now);
                    }
                }
                Phase::Listening { until } | Phase::Ending { until } if now < until => return Step::Until(until),
                Phase::Listening { .. } => {
                    for answered in std::mem::take(&mut self.again).into_values() {
                        self.trials += 1;
                        self.hits += u32::from(answered);
                    }
                    if self.another_round() {
                        self.begin_round(now);
                    } else {
                        let last = self.plan.last.max((2 * self.slowest).min(1200 * MS));
                        self.phase = Phase::Ending { until: self.last_sent + last };
                    }
                }
                Phase::Ending { .. } => self.phase = Phase::Done,
                Phase::Done => return Step::Done,
            }
        }
    }

    fn sent(&mut self, token: u64, at: u64) {
        let micros = self.micros(at);
        let Ok(place) = usize::try_from(token) else { return };
        let Some(tries) = self.tries.get_mut(place) else { return };
        if *tries == 0 {
            self.asked += 1;
            self.first[place] = micros;
        }
        *tries = tries.saturating_add(1);
        self.last[place] = micros;
        self.sent += 1;
        self.last_sent = self.last_sent.max(at);
    }

    fn heard(&mut self, at: u64, frame: &[u8]) {
        let Some(heard) = frame::read(frame) else { return };
        let own = |ip: IpAddr| self.targets.place(ip).filter(|place| self.own.contains(place));
        let answer = heard.answer(self.speaker).or_else(|| {
            let nobody = Speaker { ip: None, ..self.speaker };
            heard.answer(nobody).filter(|answer| own(answer.ip).is_some())
        });
        let Some(answer) = answer else { return };
        let Some(place) = self.targets.place(answer.ip).filter(|place| self.tries[*place] > 0) else { return };
        if let Some(again) = self.again.get_mut(&place) {
            *again = true;
        }
        let now = self.micros(at);
        let (first, last, tries) = (self.first[place], self.last[place], self.tries[place]);
        let (since_first, since_last) = (now.saturating_sub(first), now.saturating_sub(last));
        let slowest = u32::try_from(self.slowest / 1000).unwrap_or(u32::MAX);
        // Of two requests, the reply is the later one's where others were as quick.
        let rtt = match tries {
            1 => Some(since_first),
            _ if since_last <= slowest.saturating_mul(2).max(2000) => Some(since_last),
            _ => None,
        };
        let responders = self.answers.entry(place).or_default();
        let bit = 1u16 << (self.round - 1).min(15);
        if let Some(known) = responders.iter_mut().find(|known| known.mac == answer.mac) {
            known.replies = known.replies.saturating_add(1);
            known.rounds |= bit;
            return;
        }
        if responders.len() >= MOST_RESPONDERS {
            return;
        }
        let ether_src = (answer.ether_src != answer.mac).then_some(answer.ether_src);
        // The small clock ends after 71 minutes; a time below its grain is not 0.
        let rtt_ns = rtt.filter(|_| now < u32::MAX).map(|micros| u64::from(micros.max(1)) * 1000);
        responders.push(Responder { mac: answer.mac, ether_src, replies: 1, rounds: bit, rtt_ns, first_at: at });
        self.slowest =
            self.slowest.max(rtt_ns.unwrap_or(0)).max(if tries == 1 { u64::from(since_first) * 1000 } else { 0 });
    }

    fn overrun(&mut self, frames: u64) {
        self.overrun += frames;
    }

    fn congested(&mut self, now: u64) {
        self.rate = (self.rate * 0.7).max(100.0);
        self.tokens = 0.0;
        self.filled = now;
    }
}
