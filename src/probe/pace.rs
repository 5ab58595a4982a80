//! Rate control: a token bucket with the time as an argument.

use std::time::Duration;

use super::Moment;

/// Lets `rate` packets a second pass, and bursts of up to 10 ms worth of them (one at least).
#[derive(Debug, Clone)]
pub(super) struct Pacer {
    gap: Option<Duration>,
    burst: Duration,
    /// When the bucket would be full again: lies at most `burst` in the future for a packet to pass.
    full_at: Moment,
}

impl Pacer {
    /// `None` or 0: no limit.
    pub(super) fn new(rate: Option<u32>) -> Self {
        let gap = rate.filter(|rate| *rate > 0).map(|rate| Duration::from_secs(1) / rate);
        let burst = Duration::from_millis(10).saturating_sub(gap.unwrap_or_default());
        Self { gap, burst, full_at: Moment(0) }
    }

    /// When the next packet may pass; a time not after `now` means at once.
    pub(super) fn next(&self) -> Moment {
        Moment(self.full_at.0.saturating_sub(u64::try_from(self.burst.as_nanos()).unwrap_or(0)))
    }

    /// Takes one packet's worth.
    pub(super) fn take(&mut self, now: Moment) {
        if let Some(gap) = self.gap {
            self.full_at = self.full_at.max(now) + gap;
        }
    }
}
