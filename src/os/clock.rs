//! The two clocks.

use nix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> u64 {
    // Neither clock can fail on Linux; both count from 1970 or from boot, never below 0.
    let time = clock_gettime(clock).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    u64::try_from(time.0).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.1).unwrap_or(0)
}

/// Nanoseconds that only ever grow (`CLOCK_MONOTONIC`).
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds since 1970-01-01 UTC (`CLOCK_REALTIME`, the clock of the kernel's packet stamps); it can be set.
pub fn wall_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}
