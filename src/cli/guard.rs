//! `reachwhy guard`: keeps a change on trial. Not for people; an agent starts it.

use crate::os::guard;

/// Reads the order, and answers until the trial ends.
pub(super) fn run() -> anyhow::Result<u8> {
    guard::run(std::io::stdin(), std::io::stdout())?;
    Ok(0)
}
