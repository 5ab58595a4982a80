//! One address: who has it? All who answer, how long each took, and whether the address ends there.
//!
//! Requests go to all, like any host's. Each station that answers is handed an echo request with TTL 1
//! for the same address ([`super::frame::echo`]): whoever owns the address answers it, whoever only
//! answers for another must report it expired. Nothing but the address itself is ever asked for.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::conversation::{Conversation, Outgoing, Step};
use super::frame::{self, Heard, Reach, Speaker};
use super::sweep::{MOST_RESPONDERS, Responder};
use super::trial::{Trial, TrialOutcome};
use crate::wire::MacAddr;

const MS: u64 = 1_000_000;
/// After the first answer, others are waited for three times as long as it took, within these bounds.
const GRACE: (u64, u64) = (2 * MS, 4 * MS);
/// An unanswered request is repeated after this long, then after twice as long, ….
const RETRY: u64 = 50 * MS;
/// Tokens of echo requests begin here; below are requests.
const ECHO: u64 = 1 << 32;

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Whom is asked for.
    pub target: IpAddr,
    /// Requests: after an answer to one, the next. One ends with the first answers.
    pub count: u32,
    /// Between one request and the next where there are several, nanoseconds.
    pub interval: u64,
    /// Silence for this long is an answer too, nanoseconds.
    pub patience: u64,
    /// Hand echo requests to those who answer.
    pub verify: bool,
    /// Chosen at random: tells our echo requests from others'.
    pub id: u16,
}

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// When it left; `None`: not yet.
    pub sent: Option<u64>,
    /// Who answered it, and after how long.
    pub answers: Vec<(MacAddr, u64)>,
}

/// A lookup under way.
#[derive(Debug)]
pub struct Lookup {
    speaker: Speaker,
    question: Question,
    begun: Option<u64>,
    now: u64,
    asked: Vec<Asked>,
    next_at: u64,
    retry: u64,
    /// When the last answer, or the first of the last request's, came.
    first_answer: Option<u64>,
    last_frame: Option<Vec<u8>>,
    responders: Vec<Responder>,
    trials: Vec<Trial>,
    done: bool,
}

impl Lookup {
    /// Begins with the first poll.
    pub fn new(speaker: Speaker, question: Question) -> Self {
        Self {
            speaker,
            question,
            begun: None,
            now: 0,
            asked: Vec::new(),
            next_at: 0,
            retry: RETRY,
            first_answer: None,
            last_frame: None,
            responders: Vec::new(),
            trials: Vec::new(),
            done: false,
        }
    }

    /// Who answered.
    pub fn responders(&self) -> &[Responder] {
        &self.responders
    }

    /// What the echo requests showed.
    pub fn trials(&self) -> Vec<Trial> {
        // Without a source address none could be sent.
        self.trials.iter().filter(|trial| trial.sent != Some(0)).cloned().collect()
    }

    /// The requests in order.
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// The first reply's frame.
    pub fn reply(&self) -> Option<&[u8]> {
        self.last_frame.as_deref()
    }

    /// Nanoseconds since the beginning.
    pub fn took(&self) -> u64 {
        self.now.saturating_sub(self.begun.unwrap_or(self.now))
    }

    /// Whether the last request was answered.
    fn answered(&self) -> bool {
        self.asked.last().is_some_and(|asked| !asked.answers.is_empty())
    }

    fn ask(&mut self, now: u64, out: &mut Vec<Outgoing>) {
        self.asked.push(Asked { sent: None, answers: Vec::new() });
        let bytes = frame::request(self.speaker, self.question.target, Reach::All);
        out.push(Outgoing { token: self.asked.len() as u64 - 1, bytes });
        if self.question.count > 1 {
            self.next_at = now + self.question.interval;
        } else {
            self.next_at = now + self.retry;
            self.retry = (self.retry * 2).min(400 * MS);
        }
    }

    fn verify(&mut self, out: &mut Vec<Outgoing>) {
        if !self.question.verify {
            return;
        }
        for number in 0..self.trials.len() {
            if self.trials[number].sent.is_none() && !out.iter().any(|frame| frame.token == ECHO + number as u64) {
                let Trial { via, .. } = self.trials[number];
                let sequence = u16::try_from(number).unwrap_or(u16::MAX);
                match frame::echo(self.speaker, self.question.target, via, self.question.id, sequence) {
                    Some(bytes) => out.push(Outgoing { token: ECHO + number as u64, bytes }),
                    None => self.trials[number].sent = Some(0),
                }
            }
        }
    }
}

impl Conversation for Lookup {
    fn poll(&mut self, now: u64, out: &mut Vec<Outgoing>) -> Step {
        self.now = now;
        let begun = *self.begun.get_or_insert(now);
        if self.asked.is_empty() {
            self.ask(now, out);
            return Step::Until(now);
        }
        self.verify(out);
        if self.done {
            return Step::Done;
        }
        let took = self.responders.first().and_then(|one| one.rtt_ns).unwrap_or(GRACE.1);
        let grace = self.first_answer.map(|at| at + (took * 3).clamp(GRACE.0, GRACE.1));
        if self.question.count <= 1 {
            if let Some(grace) = grace {
                if now >= grace {
                    self.done = true;
                    return Step::Done;
                }
                return Step::Until(grace);
            }
            let end = begun + self.question.patience;
            if now >= end {
                self.done = true;
                return Step::Done;
            }
            if now >= self.next_at {
                self.ask(now, out);
            }
            return Step::Until(self.next_at.min(end));
        }
        let finished = self.asked.len() >= self.question.count as usize;
        // The last of several is over with its answers; without, after as long as the others had.
        let end = if self.answered() {
            grace.unwrap_or(now)
        } else {
            self.next_at.max(begun + self.question.patience.min(self.question.interval))
        };
        match (finished, now >= if finished { end } else { self.next_at }) {
            (true, true) => {
                self.done = true;
                Step::Done
            }
            (true, false) => Step::Until(end),
            (false, true) => {
                self.ask(now, out);
                Step::Until(now)
            }
            (false, false) => Step::Until(self.next_at),
        }
    }

    fn sent(&mut self, token: u64, at: u64) {
        if let Some(number) = token.checked_sub(ECHO) {
            if let Some(trial) = usize::try_from(number).ok().and_then(|number| self.trials.get_mut(number)) {
                trial.sent = Some(at);
            }
        } else if let Some(asked) = usize::try_from(token).ok().and_then(|number| self.asked.get_mut(number)) {
            asked.sent = Some(at);
        }
    }

    fn heard(&mut self, at: u64, bytes: &[u8]) {
        let Some(heard) = frame::read(bytes) else { return };
        if let Some(answer) = heard.answer(self.speaker).filter(|answer| answer.ip == self.question.target) {
            let sent: Vec<u64> = self.asked.iter().filter_map(|asked| asked.sent).collect();
            let Some(last) = sent.last().copied() else { return };
            if !self.answered() {
                self.first_answer = Some(at);
            }
            if self.last_frame.is_none() {
                self.last_frame = Some(bytes.to_vec());
            }
            let rtt = at.saturating_sub(last);
            if let Some(asked) = self.asked.last_mut().filter(|asked| asked.answers.len() < 1024) {
                asked.answers.push((answer.mac, rtt));
            }
            let bit = 1u16 << (sent.len() - 1).min(15);
            if let Some(known) = self.responders.iter_mut().find(|known| known.mac == answer.mac) {
                known.replies += 1;
                known.rounds |= bit;
                return;
            }
            if self.responders.len() >= MOST_RESPONDERS {
                return;
            }
            // Of several requests for one answer the reply may belong to any, where it came late.
            let certain = sent.len() == 1 || self.question.count > 1 || rtt < RETRY / 4;
            self.responders.push(Responder {
                mac: answer.mac,
                ether_src: (answer.ether_src != answer.mac).then_some(answer.ether_src),
                replies: 1,
                rounds: bit,
                rtt_ns: certain.then_some(rtt),
                first_at: at,
            });
            self.trials.push(Trial::new(answer.ip, answer.mac));
            return;
        }
        let id = match &heard {
            Heard::Echo { id, .. } | Heard::Error { id: Some(id), .. } => *id,
            _ => return,
        };
        if id.0 == self.question.id
            && let Some(trial) = self.trials.get_mut(usize::from(id.1))
            && trial.outcome == TrialOutcome::Silent
        {
            trial.take(&heard);
        }
    }
}
