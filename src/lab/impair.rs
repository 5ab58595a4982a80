//! What a bad cable does to frames, decided from a seed: delay, jitter, loss, duplication, reordering,
//! a rate with a queue. Pure: a frame and the time go in, delivery times come out. Stands in for the
//! kernel's netem, which many machines lack.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// What goes wrong on a cable, the same in both directions. All zero (or none): nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Impairment {
    /// Time that every frame takes, in milliseconds, each way.
    pub delay_ms: f64,
    /// Spread around it: each frame takes between `delay_ms - jitter_ms` and `delay_ms + jitter_ms`.
    pub jitter_ms: f64,
    /// Share of frames that are lost, 0 to 1.
    pub loss: f64,
    /// Share of frames that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Share of frames that are sent without the delay and so overtake others, 0 to 1.
    pub reorder: f64,
    /// Octets per second; none: no limit.
    pub rate: Option<u64>,
    /// Frames that wait for the rate before further ones are dropped; none: 100.
    pub queue: Option<usize>,
    /// Where chance begins: the same seed and frames give the same fate.
    pub seed: u64,
}

/// One direction of an impaired cable.
#[derive(Debug)]
pub struct Direction {
    what: Impairment,
    chance: ChaCha8Rng,
    /// Until when the wire is busy with what was sent before.
    busy: Duration,
    /// When each frame that waits for the rate will have left.
    waiting: std::collections::VecDeque<Duration>,
    /// The last delivery of a frame in order: jitter alone must not reorder.
    last: Duration,
}

impl Direction {
    /// A direction; `number` tells the two directions of a cable apart, so that their chances differ.
    pub fn new(what: Impairment, number: u64) -> Self {
        let chance = ChaCha8Rng::seed_from_u64(what.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { what, chance, busy: Duration::ZERO, waiting: std::collections::VecDeque::new(), last: Duration::ZERO }
    }

    /// True for this share of calls. Always draws, so that one setting does not shift another's chances.
    fn happens(&mut self, share: f64) -> bool {
        self.draw() < share
    }

    /// Evenly from 0 to below 1.
    fn draw(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        #[allow(clippy::cast_precision_loss, reason = "the value is below 2^53")]
        let value = (self.chance.next_u64() >> 11) as f64;
        value / 9_007_199_254_740_992.0
    }

    /// When a frame of `length` octets that is sent at `now` (since any fixed start) arrives: never,
    /// once or twice.
    pub fn send(&mut self, now: Duration, length: usize) -> Vec<Duration> {
        let (lost, twice, early, spread) = (
            self.happens(self.what.loss),
            self.happens(self.what.duplicate),
            self.happens(self.what.reorder),
            self.draw(),
        );
        if lost {
            return Vec::new();
        }
        let Some(left) = self.leave(now, length) else { return Vec::new() };
        let millis = (self.what.delay_ms + self.what.jitter_ms * (2.0 * spread - 1.0)).max(0.0);
        let delay = Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::ZERO);
        let arrives = if early {
            left
        } else {
            self.last = (left + delay).max(self.last);
            self.last
        };
        if twice { vec![arrives, arrives] } else { vec![arrives] }
    }

    /// When the frame has gone through the rate limit; none when the queue is full.
    fn leave(&mut self, now: Duration, length: usize) -> Option<Duration> {
        let Some(rate) = self.what.rate.filter(|rate| *rate > 0) else { return Some(now) };
        while self.waiting.front().is_some_and(|left| *left <= now) {
            self.waiting.pop_front();
        }
        if self.waiting.len() >= self.what.queue.unwrap_or(100).max(1) {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a frame's length and a rate need no more than 53 bits")]
        let takes = Duration::try_from_secs_f64(length as f64 / rate as f64).unwrap_or(Duration::MAX / 4);
        self.busy = self.busy.max(now).saturating_add(takes);
        self.waiting.push_back(self.busy);
        Some(self.busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn run(what: &Impairment, frames: u32) -> Vec<Vec<Duration>> {
        let mut direction = Direction::new(what.clone(), 0);
        (0..frames).map(|n| direction.send(MS * n, 100)).collect()
    }

    #[test]
    fn nothing_impaired_is_nothing_changed() {
        for (n, times) in run(&Impairment::default(), 50).into_iter().enumerate() {
            assert_eq!(times, [MS * u32::try_from(n).unwrap()]);
        }
    }

    #[test]
    fn the_same_seed_is_the_same_fate() {
        let what =
            Impairment { loss: 0.3, jitter_ms: 4.0, delay_ms: 5.0, duplicate: 0.1, seed: 7, ..Impairment::default() };
        assert_eq!(run(&what, 200), run(&what, 200));
        assert_ne!(run(&what, 200), run(&Impairment { seed: 8, ..what.clone() }, 200));
        let mut other_way = Direction::new(what.clone(), 1);
        assert_ne!(run(&what, 200), (0..200).map(|n| other_way.send(MS * n, 100)).collect::<Vec<_>>());
    }

    #[test]
    fn loss_and_duplication_come_in_their_shares() {
        let what = Impairment { loss: 0.25, duplicate: 0.5, seed: 1, ..Impairment::default() };
        let fates = run(&what, 4000);
        let lost = fates.iter().filter(|times| times.is_empty()).count();
        let twice = fates.iter().filter(|times| times.len() == 2).count();
        assert!((900..1100).contains(&lost), "{lost}");
        assert!((1380..1620).contains(&twice), "{twice}");
    }

    #[test]
    fn the_rate_spaces_frames_and_the_queue_overflows() {
        let mut direction = Direction::new(Impairment { rate: Some(1000), queue: Some(3), ..Impairment::default() }, 0);
        let times: Vec<_> = (0..5).map(|_| direction.send(Duration::ZERO, 100)).collect();
        assert_eq!(times[..3], [vec![MS * 100], vec![MS * 200], vec![MS * 300]]);
        assert!(times[3].is_empty() && times[4].is_empty());
        assert_eq!(direction.send(MS * 150, 100), [MS * 400]);
    }

    #[test]
    fn reordered_frames_overtake() {
        let what = Impairment { delay_ms: 50.0, reorder: 0.2, seed: 3, ..Impairment::default() };
        let times: Vec<_> = run(&what, 100).into_iter().flatten().collect();
        assert!(times.windows(2).any(|pair| pair[1] < pair[0]));
    }

    proptest! {
        #[test]
        fn no_frame_arrives_before_it_was_sent(
            delay in -5.0..100.0f64, jitter in -5.0..50.0f64, loss in -1.0..2.0f64, reorder in 0.0..1.0f64,
            rate in proptest::option::of(0u64..u64::MAX), seed: u64, length in 0usize..70000,
        ) {
            let what = Impairment { delay_ms: delay, jitter_ms: jitter, loss, reorder, rate, seed, ..Impairment::default() };
            let mut direction = Direction::new(what, 0);
            for n in 0..50 {
                let now = MS * n;
                for time in direction.send(now, length) {
                    prop_assert!(time >= now);
                }
            }
        }
    }
}
