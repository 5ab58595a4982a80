//! A host's settings as lines, and what differs between two times. What moves by itself (counters,
//! neighbours that were learnt) is left out, so that a difference is a change somebody made.

use crate::firewall::walk::Stack;
use crate::host::{HostFacts, NudState};

/// Our own counting tables come and go while we look.
const OWN: &str = "reachwhy_";

/// The settings of a host, a line each, in an order that stays.
pub(super) fn state(facts: &HostFacts) -> Vec<String> {
    let mut lines = Vec::new();
    for link in facts.links.iter().flatten() {
        let up = if link.up { "up" } else { "down" };
        let arp = if link.noarp { " arp off" } else { "" };
        lines.push(format!("link {} {up} mtu {}{arp}", link.name, link.mtu));
    }
    lines.extend(facts.addresses.iter().flatten().map(|address| format!("address {address}")));
    lines
        .extend(facts.routes.iter().flatten().filter(|route| route.table != 255).map(|route| format!("route {route}")));
    lines.extend(facts.rules.iter().flatten().map(|rule| format!("rule {rule}")));
    let fixed = |state: NudState| matches!(state, NudState::Permanent | NudState::Noarp);
    lines.extend(
        facts
            .neighbours
            .iter()
            .flatten()
            .filter(|entry| {
                entry.proxy || fixed(entry.state) && entry.address.is_ipv4() && !entry.address.is_multicast()
            })
            .map(|entry| format!("neighbour {entry}")),
    );
    lines.extend(
        facts
            .sysctls
            .iter()
            .filter(|(name, _)| !name.ends_with("_count"))
            .map(|(name, value)| format!("{name} = {}", value.split_whitespace().collect::<Vec<_>>().join(" "))),
    );
    let (stack, _) = Stack::from_dumps(facts.firewall.as_deref().unwrap_or_default());
    for (_, ruleset, table, chain) in stack.chains().filter(|(_, _, table, _)| !table.name.starts_with(OWN)) {
        let backend = if ruleset.backend == crate::host::Backend::Legacy { "legacy " } else { "" };
        let place = format!("firewall {backend}{} {} {}", table.family, table.name, chain.name);
        if let Some(base) = &chain.base {
            lines.push(format!("{place}: policy {:?}", base.policy).to_lowercase().replacen(
                &place.to_lowercase(),
                &place,
                1,
            ));
        }
        lines.extend(chain.rules.iter().map(|rule| format!("{place}: {}", still(&rule.text))));
    }
    lines.extend(stack.unread().iter().map(|unread| format!("firewall: {unread}")));
    lines
}

/// A rule without its counters.
fn still(rule: &str) -> String {
    let rule = match rule.split_once("] ") {
        Some((counters, rest)) if counters.starts_with('[') => rest,
        _ => rule,
    };
    let mut words: Vec<&str> = Vec::new();
    for word in rule.split_whitespace() {
        let counted = word.parse::<u64>().is_ok() && matches!(words.last(), Some(&"packets" | &"bytes"));
        if !counted {
            words.push(word);
        }
    }
    words.join(" ")
}

/// What differs: `- …` was there and is not, `+ …` is there and was not. Where the same lines stand
/// in another order, that is said.
pub(super) fn changes(before: &[String], after: &[String]) -> Vec<String> {
    let mut new: Vec<&String> = after.iter().collect();
    let mut gone = Vec::new();
    for line in before {
        match new.iter().position(|other| *other == line) {
            Some(at) => {
                new.remove(at);
            }
            None => gone.push(line),
        }
    }
    let mut all: Vec<String> = gone.into_iter().map(|line| format!("- {line}")).collect();
    all.extend(new.into_iter().map(|line| format!("+ {line}")));
    if all.is_empty()
        && before != after
        && let Some((line, _)) = before.iter().zip(after).find(|(old, new)| old != new)
    {
        all.push(format!("~ another order from `{line}` on"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_by_itself_is_no_change() {
        assert_eq!(still("[5:300] -A INPUT -j DROP"), "-A INPUT -j DROP");
        assert_eq!(still("tcp dport 80 counter packets 7 bytes 420 drop"), "tcp dport 80 counter packets bytes drop");
    }

    #[test]
    fn changes_are_told_line_by_line() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(changes(&lines("a b c"), &lines("a c d")), ["- b", "+ d"]);
        assert_eq!(changes(&lines("a a"), &lines("a")), ["- a"]);
        assert_eq!(changes(&lines("a b"), &lines("b a")), ["~ another order from `a` on"]);
        assert!(changes(&lines("a b"), &lines("a b")).is_empty());
    }
}
