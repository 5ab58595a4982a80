//! How long silence is waited for, learnt from the answers that came.

use std::time::Duration;

use crate::probe::RttEstimator;

/// Two limits: for a hop that others behind it have outrun, and for the end of a path that may have no end.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    longest: Option<Duration>,
    estimate: RttEstimator,
    fixed: Option<Duration>,
}

const MS: Duration = Duration::from_millis(1);

impl Patience {
    /// `fixed`: what the user wants; it replaces both.
    pub fn new(fixed: Option<Duration>) -> Self {
        Self { longest: None, estimate: RttEstimator::new(MS * 500, MS, MS * 5000), fixed }
    }

    /// Takes in a round trip of any hop.
    pub fn add(&mut self, rtt: Duration) {
        self.longest = Some(self.longest.map_or(rtt, |longest| longest.max(rtt)));
        self.estimate.add(rtt);
    }

    /// The longest round trip seen.
    pub fn longest(&self) -> Option<Duration> {
        self.longest
    }

    /// For a hop when a later one has answered. Routers make errors when they have time, so it is far more than
    /// the round trip: 20 of them, at least 6 ms, and above 250 ms only what three round trips and four times their
    /// variation need.
    pub fn hop(&self) -> Duration {
        self.fixed.unwrap_or_else(|| {
            let Some(longest) = self.longest else { return MS * 500 };
            let generous = (longest * 20).clamp(MS * 6, MS * 250);
            generous.max(longest * 3).max(self.estimate.timeout()).min(MS * 5000)
        })
    }

    /// Before the silent are asked again when others behind them have answered: as long as packets may overtake each
    /// other.
    pub fn overtaking(&self) -> Duration {
        self.longest.map_or(MS * 100, |longest| (longest * 2).clamp(MS, MS * 500))
    }

    /// For what lies behind the last that answered: first wait, then, after all were asked again, the last.
    pub fn tail(&self) -> (Duration, Duration) {
        if let Some(fixed) = self.fixed {
            return (fixed / 2, fixed);
        }
        let longest = self.longest.unwrap_or_default();
        ((MS * 350).max(longest * 2), (MS * 600).max(longest * 3))
    }
}
