//! How fast: a congestion window where answers come, a paced rate where none do, and both learn.
//!
//! Where answers come the window works as TCP's does (RFC 5681), with one difference: a path that loses a
//! packet now and then is not slowed for it, only one that loses more than [`TOLERATED`] or whose answers
//! are fewer than the questions. Silence proves nothing about the path, so that silent ports are asked at a
//! steady rate instead, which canaries (echoes of a host that is known to answer them) raise and lower.

use std::time::Duration;

use crate::probe::Moment;

/// Share of lost exchanges above which the rate is to blame.
const TOLERATED: f64 = 0.2;
/// A port is given up when the chance that an answer was lost every time is below this.
const MISSED: f64 = 1e-6;
/// The window's bounds, probes in flight.
const WINDOW: (f64, f64) = (16.0, 2048.0);
/// Bounds of the rate of silent probes, a second.
const FLOOR: (f64, f64) = (250.0, 60_000.0);
/// Lowest rate that loss can bring about, probes a second.
const SLOWEST: f64 = 50.0;
/// Probes that may leave together.
const BURST: f64 = 32.0;
/// Over this time the rate of answers is measured.
const MEASURED: Duration = Duration::from_millis(200);

/// A bucket that fills by a rate; each probe takes one.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Moment,
}

impl Bucket {
    fn fill(&mut self, now: Moment, rate: f64, most: f64) {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * rate).min(most);
        self.at = self.at.max(now);
    }

    /// When there will be `wanted` of them.
    fn when(&self, wanted: f64, rate: f64) -> Moment {
        self.at + Duration::try_from_secs_f64(((wanted - self.tokens) / rate).max(1e-6)).unwrap_or(Duration::MAX)
    }
}

/// The pace of one scan.
#[derive(Debug, Clone)]
pub(super) struct Control {
    window: f64,
    threshold: f64,
    most: f64,
    floor: f64,
    floor_bucket: Bucket,
    /// What the user allows, and what loss has taught, probes a second.
    allowed: Option<f64>,
    learned: Option<f64>,
    cap_bucket: Bucket,
    /// Exchanges that came about and sends that did not, of late and in all.
    recent: (f64, f64),
    total: (f64, f64),
    last_cut: Moment,
    last_raise: Moment,
    /// Answers since when.
    answers: (u32, Moment),
    answer_rate: f64,
}

impl Control {
    /// `floor`: silent probes a second to begin with; `rate`: never more than this; `most`: never more in flight.
    pub(super) fn new(floor: f64, rate: Option<u32>, most: Option<usize>, now: Moment) -> Self {
        let bucket = Bucket { tokens: BURST, at: now };
        #[allow(clippy::cast_precision_loss, reason = "a count of sockets")]
        let most = most.map_or(WINDOW.1, |most| (most as f64).clamp(1.0, WINDOW.1));
        Self {
            window: WINDOW.0.min(most),
            threshold: most,
            most,
            floor,
            floor_bucket: bucket,
            allowed: rate.map(|rate| f64::from(rate.max(1))),
            learned: None,
            cap_bucket: Bucket { tokens: 1.0, at: now },
            recent: (0.0, 0.0),
            total: (0.0, 0.0),
            last_cut: Moment(0),
            last_raise: now,
            answers: (0, now),
            answer_rate: 0.0,
        }
    }

    /// Takes leave for one probe; else when to ask again. `Ok(true)`: it leaves without an answer to pay for it.
    pub(super) fn take(&mut self, now: Moment, in_flight: usize) -> Result<bool, Moment> {
        let cap = match (self.allowed, self.learned) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(cap) = cap {
            self.cap_bucket.fill(now, cap, (cap / 100.0).clamp(1.0, BURST));
            if self.cap_bucket.tokens < 1.0 {
                return Err(self.cap_bucket.when(1.0, cap));
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let silent = in_flight as f64 >= self.window;
        if silent {
            self.floor_bucket.fill(now, self.floor, BURST);
            if self.floor_bucket.tokens < 1.0 {
                return Err(self.floor_bucket.when(8.0, self.floor));
            }
            self.floor_bucket.tokens -= 1.0;
        }
        if cap.is_some() {
            self.cap_bucket.tokens -= 1.0;
        }
        Ok(silent)
    }

    /// An answer came to the `number`-th try; `lost` is when the try before it left, where that one was lost.
    pub(super) fn answered(&mut self, now: Moment, number: u8, lost: Option<Moment>) {
        let losses = f64::from(number.saturating_sub(1));
        for count in [&mut self.recent, &mut self.total] {
            count.0 += 1.0;
            count.1 += losses;
        }
        if self.recent.0 + self.recent.1 > 400.0 {
            self.recent = (self.recent.0 / 2.0, self.recent.1 / 2.0);
        }
        self.window = if self.window < self.threshold { self.window + 1.0 } else { self.window + 1.0 / self.window };
        self.window = self.window.min(self.most);
        self.answers.0 += 1;
        let span = now.since(self.answers.1);
        if span >= MEASURED {
            self.answer_rate = f64::from(self.answers.0) / span.as_secs_f64();
            self.answers = (0, now);
        }
        match lost {
            Some(sent) if sent > self.last_cut && self.recent_loss() > TOLERATED => self.cut(now),
            _ => self.raise(now),
        }
    }

    /// The receiving side dropped: this program or its buffers were too slow.
    pub(super) fn overflowed(&mut self, now: Moment) {
        if now.since(self.last_cut) > Duration::from_millis(20) {
            self.window = (self.window / 2.0).max(4.0);
            self.threshold = self.window;
            self.last_cut = now;
        }
    }

    fn cut(&mut self, now: Moment) {
        self.window = (self.window / 2.0).max(4.0);
        self.threshold = self.window;
        let rate = if self.answer_rate > 0.0 { self.answer_rate } else { self.learned.unwrap_or(self.floor) };
        self.learned = Some((rate * 0.9).max(SLOWEST));
        self.floor = self.floor.min(rate).max(FLOOR.0);
        self.recent = (0.0, 0.0);
        (self.last_cut, self.last_raise) = (now, now);
    }

    fn raise(&mut self, now: Moment) {
        if let Some(learned) = self.learned.filter(|_| now.since(self.last_raise) > Duration::from_millis(250)) {
            self.learned = Some(learned * 1.2).filter(|rate| *rate < 200_000.0);
            self.last_raise = now;
        }
    }

    /// A canary came back, or did not.
    pub(super) fn canary(&mut self, came: bool) {
        if came {
            self.total.0 += 1.0;
            self.floor = (self.floor * 1.5).min(FLOOR.1);
        } else {
            self.total.1 += 1.0;
            self.floor = (self.floor / 2.0).max(FLOOR.0);
        }
    }

    fn recent_loss(&self) -> f64 {
        self.recent.1 / (self.recent.0 + self.recent.1).max(1.0)
    }

    /// How often a silent port is asked: the loss seen so far, with an allowance for how little was seen, must
    /// leave less than [`MISSED`] of a chance that an answer was lost each time.
    pub(super) fn tries(&self, most: u8) -> u8 {
        let (came, lost) = self.total;
        let chance = ((lost + 1.0) / (came + lost + 8.0)).clamp(1e-9, 0.9);
        let wanted = (MISSED.ln() / chance.ln()).ceil().clamp(2.0, f64::from(most.max(2)));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 2 and 255 by the clamp")]
        let wanted = wanted as u8;
        wanted.min(most)
    }

    /// The share of exchanges that were lost; none before there was one.
    pub(super) fn loss(&self) -> Option<f64> {
        let sum = self.total.0 + self.total.1;
        (sum > 0.0).then(|| self.total.1 / sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn the_window_opens_with_answers_and_closes_with_much_loss() {
        let mut control = Control::new(1000.0, None, None, at(0));
        for _ in 0..1000 {
            control.answered(at(1), 1, None);
        }
        assert!(control.window > 1000.0);
        for ms in 10..400 {
            // One in ten is lost: the path is like that.
            control.answered(at(ms), if ms % 10 == 0 { 2 } else { 1 }, (ms % 10 == 0).then(|| at(ms - 1)));
        }
        assert!(control.window > 1000.0 && control.learned.is_none());
        for ms in 400..600 {
            control.answered(at(ms), 3, Some(at(ms - 1)));
        }
        assert!(control.window < 100.0, "{control:?}");
        assert!(control.learned.is_some());
    }

    #[test]
    fn more_loss_needs_more_tries() {
        let mut control = Control::new(1000.0, None, None, at(0));
        assert_eq!(control.tries(10), 7, "nothing is known");
        for _ in 0..5000 {
            control.answered(at(1), 1, None);
        }
        assert_eq!(control.tries(10), 2);
        for _ in 0..1000 {
            control.answered(at(1), 2, None);
        }
        assert!(control.tries(10) >= 6, "{}", control.tries(10));
        assert_eq!(control.tries(1), 1, "the user's word counts");
    }

    #[test]
    fn silence_is_paced_and_the_user_s_rate_is_kept() {
        let mut control = Control::new(1000.0, Some(100), None, at(0));
        let mut left = 0;
        let mut now = at(0);
        while now < at(1000) {
            match control.take(now, 5000) {
                Ok(_) => left += 1,
                Err(later) => now = later,
            }
        }
        assert!((95..=105).contains(&left), "{left}");
        let mut free = Control::new(1000.0, None, None, at(0));
        let mut left = 0;
        let mut now = at(0);
        while now < at(1000) {
            match free.take(now, 5000) {
                Ok(silent) => {
                    assert!(silent);
                    left += 1;
                }
                Err(later) => now = later,
            }
        }
        assert!((990..=1040).contains(&left), "{left}");
    }
}
