//! Answers for all packets, checked against the walk of one packet.
#![allow(clippy::print_stdout, reason = "what was skipped, and what was done")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(
    clippy::manual_is_multiple_of,
    clippy::many_single_char_names,
    clippy::format_collect,
    reason = "plain in tests"
)]

mod agree;
mod answers;
mod kernel;
mod random;
mod universe;

use reachwhy::firewall::symbolic::Packets;
use reachwhy::firewall::{Packet, Stack};
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

/// Whether a packet is in a box, by the box's words alone: asked as a set of this one packet.
pub(crate) fn holds(way: &str, packets: &Packets, one: &Packet) -> bool {
    use reachwhy::firewall::symbolic::{Names, Space};
    let own = match (one.to, one.in_.is_some()) {
        (Some(reachwhy::firewall::packet::To::Forward), _) => "forward",
        (_, true) => "input",
        _ => "output",
    };
    if own != way {
        return false;
    }
    let mut names: Vec<String> = ["eth0", "eth1", "lo", "wlan0"].map(str::to_owned).to_vec();
    names.extend(packets.interfaces());
    let prefixes: Vec<String> = names.iter().filter_map(|n| n.strip_suffix('+').map(str::to_owned)).collect();
    names.retain(|n| !n.ends_with('+'));
    let mut space = Space::new(one.is_v6(), Names::new(names, prefixes), true);
    let mine = Packets::read(&one.to_string().replace("hook=", "")).unwrap();
    let (mine, theirs) = (mine.set(&mut space), packets.set(&mut space));
    !space.bdd.and(mine, theirs).is_none()
}

/// The rules without one.
pub(crate) fn without(rules: &str, line: u32) -> String {
    let at = usize::try_from(line).unwrap() - 1;
    rules.lines().enumerate().filter(|(n, _)| *n != at).map(|(_, text)| format!("{text}\n")).collect()
}
