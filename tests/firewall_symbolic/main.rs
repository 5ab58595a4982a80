//! Answers for all packets, checked against the walk of one packet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(
    clippy::manual_is_multiple_of,
    clippy::many_single_char_names,
    clippy::format_collect,
    reason = "plain in tests"
)]

mod agree;
mod answers;
mod random;

use reachwhy::firewall::Stack;
use reachwhy::host::{Backend, DumpFormat, RulesetDump};

/// The rulesets of one host from texts.
pub(crate) fn stack(rules: &str, v6: bool, backend: Backend) -> Stack {
    let format = if v6 { DumpFormat::Ip6tablesSave } else { DumpFormat::IptablesSave };
    let format = if rules.starts_with("table") { DumpFormat::NftText } else { format };
    let dumps = [
        RulesetDump { backend, format, via: "rules".to_owned(), text: rules.to_owned() },
        RulesetDump { backend, format: DumpFormat::IpsetSave, via: "sets".to_owned(), text: random::SETS.to_owned() },
    ];
    let (stack, issues) = Stack::from_dumps(&dumps);
    assert!(issues.is_empty(), "{}\n{rules}", issues.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    stack
}
