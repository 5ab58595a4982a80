//! How long to wait, learnt from the round trips seen (RFC 6298).

use std::time::Duration;

/// Smoothed round-trip time and its variation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RttEstimator {
    smoothed: Option<(Duration, Duration)>,
    initial: Duration,
    min: Duration,
    max: Duration,
}

impl RttEstimator {
    /// Before the first measurement the timeout is `initial`; it is never below `min` or above `max`.
    pub fn new(initial: Duration, min: Duration, max: Duration) -> Self {
        Self { smoothed: None, initial, min, max }
    }

    /// Takes in one round trip. Leave out those of repeated probes that cannot tell their tries apart (Karn).
    pub fn add(&mut self, rtt: Duration) {
        self.smoothed = Some(match self.smoothed {
            // RFC 6298 (2.2): the first measurement.
            None => (rtt, rtt / 2),
            // RFC 6298 (2.3): RTTVAR is updated with the old SRTT.
            Some((srtt, rttvar)) => ((srtt * 7 + rtt) / 8, (rttvar * 3 + srtt.abs_diff(rtt)) / 4),
        });
    }

    /// How long to wait for an answer: SRTT + 4 RTTVAR.
    pub fn timeout(&self) -> Duration {
        let timeout = self.smoothed.map_or(self.initial, |(srtt, rttvar)| srtt + rttvar * 4);
        timeout.max(self.min).min(self.max)
    }

    /// The smoothed round trip, where one was measured.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|(srtt, _)| srtt)
    }
}
