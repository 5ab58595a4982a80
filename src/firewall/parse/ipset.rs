//! Reading `ipset save`.

use super::{ParseError, Parsed};
use crate::firewall::ruleset::Ruleset;
use crate::host::Backend;

pub(super) fn read(_text: &str, source: &str) -> Result<Parsed, ParseError> {
    Ok(Parsed { ruleset: Ruleset::empty(Backend::Nft, source), warnings: Vec::new() })
}
