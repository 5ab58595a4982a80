//! Looking closer at odd answers: echo requests with TTL 1 to those who gave them, and an ear for VRRP.

use super::conversation::{Conversation, Outgoing, Step};
use super::frame::{self, Advert, Heard, Speaker};
use super::trial::{Trial, TrialOutcome};

const MS: u64 = 1_000_000;
/// An unanswered echo request is repeated after this long.
const RETRY: u64 = 40 * MS;
/// Requests for each trial.
const TRIES: u8 = 4;
/// Between one request and the next: hosts limit how many they answer.
const SPACING: u64 = MS / 2;
/// Advertisements kept: there is one a second from each master.
const ADVERTS: usize = 1000;

/// An inquiry under way.
#[derive(Debug)]
pub struct Inquiry {
    speaker: Speaker,
    trials: Vec<Trial>,
    tries: Vec<u8>,
    id: u16,
    at: usize,
    next_at: u64,
    round_end: u64,
    listen: u64,
    begun: Option<u64>,
    now: u64,
    adverts: Vec<Advert>,
}

impl Inquiry {
    /// `trials` to make; `listen`: for how long to wait for VRRP advertisements at least, nanoseconds.
    pub fn new(speaker: Speaker, trials: Vec<Trial>, id: u16, listen: u64) -> Self {
        let tries = vec![0; trials.len()];
        Self {
            speaker,
            trials,
            tries,
            id,
            at: 0,
            next_at: 0,
            round_end: 0,
            listen,
            begun: None,
            now: 0,
            adverts: Vec::new(),
        }
    }

    /// What was found out: the trials, the advertisements, and how long those were listened for.
    pub fn finish(self) -> (Vec<Trial>, Vec<Advert>, u64) {
        let listened = self.now.saturating_sub(self.begun.unwrap_or(self.now));
        (self.trials, self.adverts, if self.listen == 0 { 0 } else { listened })
    }
}

impl Conversation for Inquiry {
    fn poll(&mut self, now: u64, out: &mut Vec<Outgoing>) -> Step {
        self.now = now;
        let begun = *self.begun.get_or_insert(now);
        while self.at < self.trials.len() {
            if now < self.next_at {
                return Step::Until(self.next_at);
            }
            let at = self.at;
            self.at += 1;
            if self.trials[at].outcome != TrialOutcome::Silent || self.tries[at] >= TRIES {
                continue;
            }
            let Trial { ip, via, .. } = self.trials[at];
            let sequence = u16::try_from(at).unwrap_or(u16::MAX);
            let Some(bytes) = frame::echo(self.speaker, ip, via, self.id, sequence) else {
                self.tries[at] = TRIES;
                continue;
            };
            self.tries[at] += 1;
            self.next_at = now + SPACING;
            self.round_end = now + RETRY;
            out.push(Outgoing { token: at as u64, bytes });
            return Step::Until(self.next_at);
        }
        let open = |(trial, tries): (&Trial, &u8)| trial.outcome == TrialOutcome::Silent && *tries > 0;
        let pairs = || self.trials.iter().zip(&self.tries);
        if pairs().any(open) && now < self.round_end {
            return Step::Until(self.round_end);
        }
        if pairs().any(|(trial, tries)| trial.outcome == TrialOutcome::Silent && *tries < TRIES) {
            self.at = 0;
            return Step::Until(now);
        }
        let end = begun + self.listen;
        if now < end { Step::Until(end) } else { Step::Done }
    }

    fn sent(&mut self, token: u64, at: u64) {
        if let Some(trial) = usize::try_from(token).ok().and_then(|number| self.trials.get_mut(number)) {
            trial.sent = Some(at);
        }
    }

    fn heard(&mut self, _at: u64, bytes: &[u8]) {
        let Some(heard) = frame::read(bytes) else { return };
        let id = match &heard {
            Heard::Vrrp(advert) => {
                if self.adverts.len() < ADVERTS && !self.adverts.contains(advert) {
                    self.adverts.push(advert.clone());
                }
                return;
            }
            Heard::Echo { id, .. } | Heard::Error { id: Some(id), .. } => *id,
            _ => return,
        };
        if id.0 == self.id
            && let Some(trial) = self.trials.get_mut(usize::from(id.1))
            && trial.outcome == TrialOutcome::Silent
        {
            trial.take(&heard);
        }
    }
}
