//! Chains and sets that are named and not there, or there and not named; rules that are refused.

use std::collections::{HashMap, HashSet};

use crate::firewall::overview::called;
use crate::firewall::parse::Warning;
use crate::firewall::ruleset::{ElementPart, Hook, Operand, Rule, Target, Test};
use crate::firewall::walk::{ChainAt, Stack};

use super::{Finding, Severity};

/// Chains that iptables makes itself, and that others fill: their emptiness says nothing.
pub(super) fn look(stack: &Stack, warnings: &[Warning]) -> Vec<Finding> {
    let mut found: Vec<Finding> = warnings.iter().map(syntax).collect();
    let mut asked: HashSet<&str> = HashSet::new();
    let mut calls: HashMap<(usize, usize), HashSet<&str>> = HashMap::new();
    for (at, _, table, chain) in stack.chains() {
        for rule in &chain.rules {
            calls.entry((at.ruleset, at.table)).or_default().extend(called(rule, table));
            asked.extend(
                rule.matches
                    .iter()
                    .filter_map(|m| if let Test::Set { name, .. } = &m.test { Some(name.as_str()) } else { None }),
            );
        }
    }
    let sets: Vec<_> =
        stack.rulesets().iter().flat_map(|ruleset| ruleset.sets.iter().map(move |set| (ruleset, set))).collect();
    for (_, set) in &sets {
        asked.extend(
            set.elements
                .iter()
                .flat_map(|e| &e.parts)
                .filter_map(|part| if let ElementPart::Set(name) = part { Some(name.as_str()) } else { None }),
        );
    }
    for (at, _, table, chain) in stack.chains() {
        let used = calls.get(&(at.ruleset, at.table)).is_some_and(|names| names.contains(chain.name.as_str()));
        if chain.base.is_none() && !used {
            let what = if chain.rules.is_empty() { "it is empty, too" } else { "its rules never run" };
            let message = format!("no rule jumps to chain {}: {what}", chain.name);
            let severity = if chain.rules.is_empty() { Severity::Info } else { Severity::Warning };
            found.push(Finding::new("unused-chain", severity, message).at(stack, at, None));
        }
        for (index, rule) in chain.rules.iter().enumerate() {
            for name in called(rule, table) {
                if stack.sibling(at, name).is_none() {
                    let message = format!("there is no chain {name}: the ruleset cannot be loaded");
                    found.push(Finding::new("undefined-chain", Severity::Error, message).at(stack, at, Some(index)));
                }
            }
            for name in sets_of(rule) {
                let there = match name {
                    Named::Ipset(name) => stack.set(name).is_some(),
                    Named::Nft(name) => table.sets.iter().any(|set| set.name == name),
                };
                if !there {
                    let (Named::Ipset(name) | Named::Nft(name)) = name;
                    let message = format!(
                        "set {name} is not among those given: the kernel refuses the rule unless it is there (`--ipset FILE` gives `ipset save`'s output)"
                    );
                    found.push(Finding::new("undefined-set", Severity::Error, message).at(stack, at, Some(index)));
                }
            }
            if let Some(why) = refused(stack, at, rule) {
                found.push(Finding::new("syntax", Severity::Error, why).at(stack, at, Some(index)));
            }
        }
    }
    let any_rule = stack.chains().any(|(_, _, _, chain)| !chain.rules.is_empty());
    for (ruleset, set) in sets {
        if any_rule && !asked.contains(set.name.as_str()) && !changed_by_rule(stack, &set.name) {
            let mut finding = Finding::new("unused-set", Severity::Info, format!("no rule asks for set {}", set.name));
            finding.source.clone_from(&ruleset.source);
            found.push(finding);
        }
    }
    found
}

fn syntax(warning: &Warning) -> Finding {
    let severity = if warning.refused_by_restore { Severity::Error } else { Severity::Info };
    let mut finding = Finding::new("syntax", severity, warning.message.clone());
    finding.source.clone_from(&warning.source);
    finding.line = Some(warning.line);
    finding
}

enum Named<'a> {
    Ipset(&'a str),
    Nft(&'a str),
}

fn sets_of(rule: &Rule) -> Vec<Named<'_>> {
    let mut names = Vec::new();
    for m in &rule.matches {
        match &m.test {
            Test::Set { name, .. } => names.push(Named::Ipset(name)),
            Test::Compare(comparison) => {
                let parts = comparison.operands.iter().flatten();
                names.extend(
                    parts.filter_map(|part| if let Operand::Set(name) = part { Some(Named::Nft(name)) } else { None }),
                );
            }
            _ => (),
        }
    }
    for target in rule.statements.iter().chain(&rule.target) {
        if let Target::VerdictMap(map) = target {
            names.extend(map.name.as_deref().map(Named::Nft));
        }
    }
    names
}

fn changed_by_rule(stack: &Stack, name: &str) -> bool {
    let word = format!(" {name} ");
    stack.chains().flat_map(|(_, _, _, chain)| &chain.rules).any(|rule| {
        rule.statements
            .iter()
            .chain(&rule.target)
            .any(|target| matches!(target, Target::Ext(_)) && format!("{target} ").contains(&word))
    })
}

/// Why the kernel would refuse a rule of iptables (`xt_check_target`: tables and hooks of targets).
fn refused(stack: &Stack, at: ChainAt, rule: &Rule) -> Option<String> {
    let (_, table, chain) = stack.at(at)?;
    if !table.is_iptables_shaped() {
        return None;
    }
    let name = table.name.as_str();
    let hook = chain.base.as_ref().map(|base| base.hook);
    let nat_hook = |fine: &[Hook]| hook.is_some_and(|hook| !fine.contains(&hook));
    let target = rule.target.as_ref()?;
    let word = |what: &str| Some(format!("the kernel refuses it: {what}"));
    match target {
        Target::Drop if name == "nat" => word("the nat table does not filter; DROP belongs into the filter table"),
        Target::Reject(_) if name != "filter" => word("REJECT works in the filter table alone"),
        Target::Dnat(_) | Target::Redirect(_) if name != "nat" => word("DNAT and REDIRECT work in the nat table alone"),
        Target::Snat(_) | Target::Masquerade(_) if name != "nat" => {
            word("SNAT and MASQUERADE work in the nat table alone")
        }
        Target::Dnat(_) | Target::Redirect(_) if nat_hook(&[Hook::Prerouting, Hook::Output]) => {
            word("the destination is translated in PREROUTING and OUTPUT")
        }
        Target::Snat(_) if nat_hook(&[Hook::Postrouting, Hook::Input]) => {
            word("the source is translated in POSTROUTING and INPUT")
        }
        Target::Masquerade(_) if nat_hook(&[Hook::Postrouting]) => word("MASQUERADE works in POSTROUTING alone"),
        Target::Notrack if name != "raw" => word("NOTRACK works in the raw table alone"),
        Target::Ttl { .. } | Target::Tos { .. } if name != "mangle" => {
            word("TTL and TOS are changed in the mangle table alone")
        }
        _ => {
            let core = |m: &crate::firewall::Match| match (&m.test, hook) {
                (Test::OutInterface(_), Some(Hook::Input | Hook::Prerouting)) => {
                    Some("iptables refuses -o here: no packet has an outgoing interface yet")
                }
                (Test::InInterface(_), Some(Hook::Output | Hook::Postrouting)) => {
                    Some("iptables refuses -i here: no packet has an incoming interface any more")
                }
                (Test::Mac(_), Some(Hook::Output | Hook::Postrouting)) => Some("mac works where packets come in"),
                _ => None,
            };
            rule.matches.iter().find_map(core).map(str::to_owned)
        }
    }
}
