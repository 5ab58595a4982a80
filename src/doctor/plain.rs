//! An end that was looked at with plain tools alone: what is said of it is less certain.

use super::case::Case;
use super::diagnosis::{Confidence, Evidence, RootCause, Where};
use crate::host::plain::BY_TOOLS;

/// Weakens what rests on tools' texts alone: nobody saw the packets there.
pub(super) fn temper(case: &Case, cause: &mut RootCause) {
    let plain = |end: &super::case::End| end.facts.unseen.iter().any(|unseen| unseen.fact == BY_TOOLS);
    let tools = match cause.place {
        Where::Server => case.server.as_ref().is_some_and(plain),
        Where::Client => plain(&case.client),
        Where::Path | Where::Dns => plain(&case.client) || case.server.as_ref().is_some_and(plain),
    };
    if tools && cause.confidence == Confidence::Proven {
        cause.confidence = Confidence::Likely;
    }
    if tools {
        let says = "a host was looked at with its own tools alone; its packets were not watched";
        cause.evidence.push(Evidence::new(says, "ip, ss, iptables-save, nft over ssh"));
    }
}
