//! `reachwhy guard` keeps a change on trial, `reachwhy relay` carries questions to a doctor that serves.
//! Not for people; an agent starts the one, a doctor the other.

use super::Failure;
use crate::os::{guard, handoff};

/// Reads the order, and answers until the trial ends.
pub(super) fn run() -> anyhow::Result<u8> {
    guard::run(std::io::stdin(), std::io::stdout())?;
    Ok(0)
}

/// Carries questions and answers until the input ends.
pub(super) fn relay(host: &str, port: u16) -> anyhow::Result<u8> {
    handoff::relay(host, port, std::io::stdin(), std::io::stdout()).map_err(|error| Failure::unknown(error, None))?;
    Ok(0)
}
