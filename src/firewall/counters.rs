//! Which rules have seen packets between two dumps: the evidence that a rule and no other acted.

use super::ruleset::{Chain, Rule, Ruleset, Table};
use super::walk::{DecidedBy, Stack};
use crate::firewall::ruleset::Hook;

/// A rule or policy whose packet counter grew.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// The rule or policy, as it stands in the later dump.
    pub rule: DecidedBy,
    /// Packets in the earlier dump.
    pub packets_before: u64,
    /// Packets in the later dump.
    pub packets_after: u64,
}

/// The rules and policies whose packet counters grew, in the order of the later dump.
///
/// A rule is the same where family, table, chain, backend and its handle agree, or, without
/// handles, its number and its meaning. Rules that were not there before are left out: what
/// they had seen is not known.
pub fn moved(before: &Stack, after: &Stack) -> Vec<Moved> {
    let mut out = Vec::new();
    for (_, ruleset, table, chain) in after.chains() {
        let Some(old) = same_chain(before, ruleset, table, chain) else { continue };
        for (index, rule) in chain.rules.iter().enumerate() {
            let Some(now) = rule.counters else { continue };
            let Some(then) = same_rule(old, rule, index).and_then(|rule| rule.counters) else { continue };
            if now.packets > then.packets {
                let number = u32::try_from(index + 1).ok();
                let at = DecidedBy {
                    rule: number,
                    line: rule.line,
                    text: rule.text.clone(),
                    handle: rule.handle,
                    ..place(ruleset, table, chain)
                };
                out.push(Moved { rule: at, packets_before: then.packets, packets_after: now.packets });
            }
        }
        let policy = |chain: &Chain| chain.base.as_ref().and_then(|base| base.counters);
        if let (Some(then), Some(now)) = (policy(old), policy(chain))
            && now.packets > then.packets
        {
            let dropped = chain.base.as_ref().is_some_and(|b| b.policy == super::ruleset::Policy::Drop);
            let text = if dropped { "policy DROP" } else { "policy ACCEPT" }.to_owned();
            let at = DecidedBy { text, ..place(ruleset, table, chain) };
            out.push(Moved { rule: at, packets_before: then.packets, packets_after: now.packets });
        }
    }
    out
}

fn same_chain<'a>(before: &'a Stack, ruleset: &Ruleset, table: &Table, chain: &Chain) -> Option<&'a Chain> {
    before
        .rulesets()
        .iter()
        .filter(|old| old.backend == ruleset.backend)
        .filter_map(|old| old.table(table.family, &table.name))
        .find_map(|old| old.chain(&chain.name))
}

fn same_rule<'a>(old: &'a Chain, rule: &Rule, index: usize) -> Option<&'a Rule> {
    if rule.handle.is_some() {
        return old.rules.iter().find(|r| r.handle == rule.handle);
    }
    let alike = |r: &&Rule| r.matches == rule.matches && r.statements == rule.statements && r.target == rule.target;
    old.rules.get(index).filter(alike).or_else(|| {
        // Rules were inserted or deleted above: a rule that stands alone is still known.
        let mut found = old.rules.iter().filter(alike);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    })
}

fn place(ruleset: &Ruleset, table: &Table, chain: &Chain) -> DecidedBy {
    DecidedBy {
        table: table.name.clone(),
        family: table.family,
        chain: chain.name.clone(),
        rule: None,
        line: chain.line,
        text: String::new(),
        backend: ruleset.backend,
        handle: chain.handle,
        source: ruleset.source.clone(),
        hook: chain.base.as_ref().map_or(Hook::Input, |base| base.hook),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::parse;
    use crate::firewall::ruleset::Family;
    use crate::host::Backend;

    fn stack(rules: &str, policy: u64) -> Stack {
        let text = format!("*filter\n:INPUT DROP [{policy}:0]\n{rules}COMMIT\n");
        Stack::from_rulesets([parse::iptables_save(&text, Family::Ip, Backend::Nft, "t").unwrap().ruleset])
    }

    #[test]
    fn only_what_grew_is_named() {
        let before = stack("[1:40] -A INPUT -p tcp -j ACCEPT\n[5:50] -A INPUT -p udp -j DROP\n", 2);
        let after = stack(
            "[0:0] -A INPUT -i lo -j ACCEPT\n[1:40] -A INPUT -p tcp -j ACCEPT\n[7:70] -A INPUT -p udp -j DROP\n",
            3,
        );
        let moved = moved(&before, &after);
        let seen: Vec<_> = moved.iter().map(|m| (m.rule.rule, m.packets_before, m.packets_after)).collect();
        assert_eq!(seen, [(Some(3), 5, 7), (None, 2, 3)]);
    }
}
