//! What the rules ask about: the interfaces they name, and which of a packet's states matter.

use std::collections::{HashMap, HashSet};

use crate::firewall::overview::called;
use crate::firewall::ruleset::{CtStates, CtTest, ElementPart, Field as Nft, Operand, Rule, Target, Test};
use crate::firewall::walk::{ChainAt, Stack};

use super::interfaces::Names;
use super::space::Space;

/// Variables for these hosts' rulesets. Later fragments are among the packets where rules ask about
/// them; else packets are whole, as they are wherever conntrack works.
pub fn space(stacks: &[&Stack], v6: bool, extra: &[String]) -> Space {
    let fragments = !stacks.iter().any(|stack| tracks(stack, v6)) && stacks.iter().any(|stack| asks_fragments(stack));
    with_fragments(stacks, v6, extra, fragments)
}

/// The same with later fragments wherever there can be some.
pub(super) fn widest(stacks: &[&Stack], v6: bool) -> Space {
    with_fragments(stacks, v6, &[], !stacks.iter().any(|stack| tracks(stack, v6)))
}

fn with_fragments(stacks: &[&Stack], v6: bool, extra: &[String], fragments: bool) -> Space {
    let (mut exact, mut prefixes) = (Vec::new(), Vec::new());
    for name in extra {
        match name.strip_suffix('+').or_else(|| name.strip_suffix('*')) {
            Some(prefix) => prefixes.push(prefix.to_owned()),
            None => exact.push(name.clone()),
        }
    }
    for stack in stacks {
        names(stack, &mut exact, &mut prefixes);
    }
    Space::new(v6, Names::new(exact, prefixes), fragments)
}

fn names(stack: &Stack, exact: &mut Vec<String>, prefixes: &mut Vec<String>) {
    let mut operand = |operand: &Operand, exact: &mut Vec<String>| {
        if let Operand::Name(name) = operand {
            match name.strip_suffix('*') {
                Some(prefix) => prefixes.push(prefix.to_owned()),
                None => exact.push(name.clone()),
            }
        }
    };
    for ruleset in stack.rulesets() {
        for set in &ruleset.sets {
            for part in set.elements.iter().flat_map(|element| &element.parts) {
                if let ElementPart::Iface(name) = part {
                    exact.push(name.clone());
                }
            }
        }
        for table in &ruleset.tables {
            for set in &table.sets {
                let keys = set.keys.iter().chain(set.verdicts.iter().map(|(key, _)| key));
                keys.flatten().for_each(|part| operand(part, exact));
            }
            for chain in &table.chains {
                exact.extend(chain.base.iter().flat_map(|base| base.devices.iter().cloned()));
                for rule in &chain.rules {
                    for m in &rule.matches {
                        if let Test::Compare(comparison) = &m.test {
                            comparison.operands.iter().flatten().for_each(|part| operand(part, exact));
                        }
                    }
                    for target in rule.statements.iter().chain(&rule.target) {
                        if let Target::VerdictMap(map) = target {
                            map.elements.iter().flat_map(|(key, _)| key).for_each(|part| operand(part, exact));
                        }
                    }
                }
            }
        }
    }
    for (_, _, _, chain) in stack.chains() {
        for m in chain.rules.iter().flat_map(|rule| &rule.matches) {
            if let Test::InInterface(iface) | Test::OutInterface(iface) = &m.test {
                if iface.prefix { prefixes.push(iface.name.clone()) } else { exact.push(iface.name.clone()) }
            }
        }
    }
}

fn rules(stack: &Stack) -> impl Iterator<Item = &Rule> {
    stack.chains().flat_map(|(_, _, _, chain)| &chain.rules)
}

/// Chains that one rule alone jumps to, in tables whose rules change marks or addresses.
pub(super) fn called_once(stack: &Stack) -> HashSet<ChainAt> {
    let mut calls: HashMap<ChainAt, usize> = HashMap::new();
    let mut changing: HashSet<(usize, usize)> = HashSet::new();
    for (at, _, table, chain) in stack.chains() {
        for rule in &chain.rules {
            for name in called(rule, table) {
                if let Some(to) = stack.sibling(at, name) {
                    *calls.entry(to).or_default() += 1;
                }
            }
            let changes = |target: &Target| {
                !target.only_observes()
                    && !matches!(
                        target,
                        Target::Accept
                            | Target::Drop
                            | Target::Reject(_)
                            | Target::Return
                            | Target::Jump(_)
                            | Target::Goto(_)
                    )
            };
            if rule.statements.iter().chain(&rule.target).any(changes) {
                changing.insert((at.ruleset, at.table));
            }
        }
    }
    let once = calls.into_iter().filter(|(at, count)| *count == 1 && changing.contains(&(at.ruleset, at.table)));
    once.map(|(at, _)| at).collect()
}

/// Chains that do the same with a packet in PREROUTING and in OUTPUT, and whatever they call.
pub(super) fn blind(stack: &Stack) -> HashSet<ChainAt> {
    let sees_alike = |test: &Test| {
        matches!(
            test,
            Test::Source(_)
                | Test::Destination(_)
                | Test::IpRange { .. }
                | Test::Protocol(_)
                | Test::Header(_)
                | Test::Port { .. }
                | Test::Multiport { .. }
                | Test::TcpFlags { .. }
                | Test::Icmp { .. }
                | Test::Mark { .. }
                | Test::AddrType { limit_iface: None, .. }
                | Test::Stateful { .. }
                | Test::Comment(_)
        )
    };
    let does_alike = |target: &Target| {
        matches!(
            target,
            Target::Accept
                | Target::Drop
                | Target::Reject(_)
                | Target::Return
                | Target::Jump(_)
                | Target::Goto(_)
                | Target::Mark { .. }
                | Target::Dnat(_)
        )
    };
    let mut callers: HashMap<ChainAt, Vec<ChainAt>> = HashMap::new();
    let (mut blind, mut seeing) = (HashSet::new(), Vec::new());
    for (at, _, table, chain) in stack.chains() {
        let alike = |rule: &Rule| {
            rule.statements.is_empty()
                && rule.matches.iter().all(|m| sees_alike(&m.test))
                && rule.target.iter().all(does_alike)
        };
        if chain.base.is_none() && chain.rules.iter().all(alike) {
            blind.insert(at);
        } else {
            seeing.push(at);
        }
        for name in chain.rules.iter().flat_map(|rule| called(rule, table)) {
            if let Some(to) = stack.sibling(at, name) {
                callers.entry(to).or_default().push(at);
            }
        }
    }
    while let Some(at) = seeing.pop() {
        for caller in callers.get(&at).into_iter().flatten() {
            if blind.remove(caller) {
                seeing.push(*caller);
            }
        }
    }
    blind
}

fn asks_fragments(stack: &Stack) -> bool {
    rules(stack).flat_map(|rule| &rule.matches).any(|m| match &m.test {
        Test::Fragment | Test::Ext(crate::firewall::ruleset::Ext::Frag(_)) => true,
        Test::Compare(c) => c.fields.iter().any(|f| matches!(f, Nft::Other(text) if text.contains("frag"))),
        _ => false,
    })
}

/// Whether conntrack works for this family: then packets are put together before any rule sees them.
fn tracks(stack: &Stack, v6: bool) -> bool {
    stack.translates(v6)
        || stack.chains().filter(|(_, _, table, _)| table.family.sees(v6)).any(|(_, _, _, chain)| {
            chain.rules.iter().any(|rule| {
                let test = |test: &Test| match test {
                    Test::Conntrack { .. } | Test::Connmark { .. } => true,
                    Test::Compare(comparison) => comparison
                        .fields
                        .iter()
                        .any(|f| matches!(f, Nft::CtState | Nft::CtMark | Nft::CtStatus | Nft::CtDirection)),
                    Test::Stateful { module, .. } => matches!(module.as_str(), "connlimit" | "connbytes"),
                    _ => false,
                };
                let target =
                    |target: &Target| matches!(target, Target::Connmark(_) | Target::Notrack | Target::Ct { .. });
                rule.matches.iter().any(|m| test(&m.test)) || rule.statements.iter().chain(&rule.target).any(target)
            })
        })
}

/// Whether rules ask for the states SNAT and DNAT, and for the hop count.
pub(super) fn asks(stack: &Stack) -> (bool, bool) {
    let (mut nat, mut ttl) = (false, false);
    for m in rules(stack).flat_map(|rule| &rule.matches) {
        match &m.test {
            Test::Conntrack { tests, .. } => {
                nat |= tests.iter().any(|(_, test)| match test {
                    CtTest::State(states) => states.intersects(CtStates(CtStates::SNAT.0 | CtStates::DNAT.0)),
                    CtTest::Status(_) => true,
                    _ => false,
                });
            }
            Test::Ttl { .. } => ttl = true,
            Test::Compare(comparison) => {
                nat |= comparison.fields.contains(&Nft::CtStatus);
                ttl |= comparison.fields.contains(&Nft::Ttl);
            }
            _ => (),
        }
    }
    (nat, ttl)
}
