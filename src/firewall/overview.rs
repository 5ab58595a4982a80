//! A host's rulesets as a page to read: tables, chains with who calls them, rules in words, sets.

use std::collections::HashMap;

use serde::Serialize;

use crate::host::Backend;

use super::explain;
use super::ruleset::{Chain, ChainKind, Counters, Family, Hook, Policy, Rule, Ruleset, Set, Side, Table, Target, Test};
use super::walk::Stack;

/// All tables and sets, in the order of the dumps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// The tables.
    pub tables: Vec<TableView>,
    /// Sets that belong to no table (ipset).
    pub sets: Vec<SetView>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableView {
    /// Which packets it sees.
    pub family: Family,
    /// Its name.
    pub table: String,
    /// Which code in the kernel runs it.
    pub backend: Backend,
    /// The file or command it came from.
    pub source: String,
    /// Its chains.
    pub chains: Vec<ChainView>,
    /// Its own sets and maps (nf_tables).
    pub sets: Vec<SetView>,
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainView {
    /// Its name.
    pub chain: String,
    /// Where it hangs; `None` for a user chain.
    pub hook: Option<Hook>,
    /// `filter`, `nat`, `route`; `None` for a user chain.
    pub kind: Option<&'static str>,
    /// In which order at its hook.
    pub priority: Option<i32>,
    /// `accept` or `drop`; `None` for a user chain.
    pub policy: Option<&'static str>,
    /// The policy in a sentence.
    pub policy_sentence: Option<String>,
    /// What the policy has decided, where the dump says.
    pub policy_counters: Option<Counters>,
    /// Rules that jump or go here: `INPUT rule 3`.
    pub called_by: Vec<String>,
    /// The line that declares it.
    pub line: Option<u32>,
    /// Its rules.
    pub rules: Vec<RuleView>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleView {
    /// Its number in its chain, from 1.
    pub rule: u32,
    /// The line of the dump.
    pub line: Option<u32>,
    /// What it has seen, where the dump says.
    pub counters: Option<Counters>,
    /// The rule as its dump has it.
    pub text: String,
    /// What it means, in a sentence.
    pub sentence: String,
    /// What it does: `ACCEPT`, `REJECT --reject-with tcp-reset`, `jump web`, `count`.
    pub action: String,
    /// Its protocol, `None` for any.
    pub protocol: Option<String>,
    /// The incoming interface.
    #[serde(rename = "in")]
    pub in_: Option<String>,
    /// The outgoing interface.
    pub out: Option<String>,
    /// Source address and port.
    pub source: Option<String>,
    /// Destination address and port.
    pub destination: Option<String>,
    /// All that has no column of its own.
    pub more: String,
    /// Its comment.
    pub comment: Option<String>,
}

/// One set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetView {
    /// Its name.
    pub set: String,
    /// Its type.
    pub kind: String,
    /// How many elements it has.
    pub elements: usize,
    /// Why its content cannot be relied on, if so.
    pub unreliable: Option<String>,
}

/// What to look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Only<'a> {
    /// Tables of this name.
    pub table: Option<&'a str>,
    /// Chains of this name.
    pub chain: Option<&'a str>,
}

/// Lays out what is asked for.
pub fn overview(stack: &Stack, only: Only<'_>) -> Overview {
    let mut out = Overview { tables: Vec::new(), sets: Vec::new() };
    for ruleset in stack.rulesets() {
        for table in ruleset.tables.iter().filter(|table| only.table.is_none_or(|name| name == table.name)) {
            let view = table_view(ruleset, table, only.chain);
            if only.chain.is_none() || !view.chains.is_empty() {
                out.tables.push(view);
            }
        }
        out.sets.extend(ruleset.sets.iter().map(set_view));
    }
    out
}

fn table_view(ruleset: &Ruleset, table: &Table, chain: Option<&str>) -> TableView {
    let callers = callers(table);
    let chains = table.chains.iter().filter(|c| chain.is_none_or(|name| name == c.name));
    TableView {
        family: table.family,
        table: table.name.clone(),
        backend: ruleset.backend,
        source: ruleset.source.clone(),
        chains: chains.map(|chain| chain_view(chain, callers.get(chain.name.as_str()))).collect(),
        sets: table.sets.iter().map(set_view).collect(),
    }
}

/// Chain name → the rules that call it.
fn callers(table: &Table) -> HashMap<&str, Vec<String>> {
    let mut found: HashMap<&str, Vec<String>> = HashMap::new();
    for chain in &table.chains {
        for (number, rule) in (1u32..).zip(&chain.rules) {
            for name in called(rule, table) {
                found.entry(name).or_default().push(format!("{} rule {number}", chain.name));
            }
        }
    }
    found
}

/// The chains that a rule may jump or go to.
pub(super) fn called<'a>(rule: &'a Rule, table: &'a Table) -> Vec<&'a str> {
    let mut names = Vec::new();
    for target in rule.statements.iter().chain(&rule.target) {
        match target {
            Target::Jump(name) | Target::Goto(name) => names.push(name.as_str()),
            Target::VerdictMap(map) => {
                let named = map.name.as_ref().and_then(|name| table.sets.iter().find(|set| set.name == *name));
                let elements = map.elements.iter().chain(named.map_or(&[][..], |set| &set.verdicts));
                names.extend(elements.filter_map(|(_, verdict)| match verdict {
                    Target::Jump(name) | Target::Goto(name) => Some(name.as_str()),
                    _ => None,
                }));
            }
            _ => (),
        }
    }
    names
}

fn chain_view(chain: &Chain, callers: Option<&Vec<String>>) -> ChainView {
    let base = chain.base.as_ref();
    ChainView {
        chain: chain.name.clone(),
        hook: base.map(|base| base.hook),
        kind: base.map(|base| match base.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        }),
        priority: base.map(|base| base.priority),
        policy: base.map(|base| if base.policy == Policy::Accept { "accept" } else { "drop" }),
        policy_sentence: explain::policy(chain),
        policy_counters: base.and_then(|base| base.counters),
        called_by: callers.cloned().unwrap_or_default(),
        line: chain.line,
        rules: (1u32..).zip(&chain.rules).map(|(number, rule)| rule_view(chain, number, rule)).collect(),
    }
}

fn rule_view(chain: &Chain, number: u32, rule: &Rule) -> RuleView {
    let mut view = RuleView {
        rule: number,
        line: rule.line,
        counters: rule.counters,
        text: if rule.text.is_empty() { format!("-A {} {rule}", chain.name) } else { rule.text.clone() },
        sentence: explain::rule(chain, rule),
        action: action(rule),
        protocol: None,
        in_: None,
        out: None,
        source: None,
        destination: None,
        more: String::new(),
        comment: rule.comment().map(str::to_owned),
    };
    let (mut ports, mut more) = ((None, None), Vec::new());
    for m in &rule.matches {
        let not = if m.negated { "not " } else { "" };
        // A second test of the same field stands with the rest: all of them must hold.
        let put = |slot: &mut Option<String>, text: String, more: &mut Vec<String>| match slot {
            None => *slot = Some(format!("{not}{text}")),
            Some(_) => more.push(m.to_string()),
        };
        match &m.test {
            Test::Protocol(number) => put(&mut view.protocol, super::names::protocol_name(*number), &mut more),
            Test::InInterface(iface) => put(&mut view.in_, iface.to_string(), &mut more),
            Test::OutInterface(iface) => put(&mut view.out, iface.to_string(), &mut more),
            Test::Source(net) => put(&mut view.source, explain::net(net), &mut more),
            Test::Destination(net) => put(&mut view.destination, explain::net(net), &mut more),
            Test::Port { side: Side::Source, range, .. } => put(&mut ports.0, range.to_string(), &mut more),
            Test::Port { side: Side::Destination, range, .. } => put(&mut ports.1, range.to_string(), &mut more),
            Test::Multiport { side, ranges } if *side != Side::Either => {
                let list: Vec<_> = ranges.iter().map(ToString::to_string).collect();
                let slot = if *side == Side::Source { &mut ports.0 } else { &mut ports.1 };
                put(slot, list.join(","), &mut more);
            }
            Test::Comment(_) | Test::Header(_) => (),
            _ => more.push(m.to_string()),
        }
    }
    view.source = with_port(view.source, ports.0);
    view.destination = with_port(view.destination, ports.1);
    view.more = more.join(" ");
    view
}

fn with_port(addr: Option<String>, port: Option<String>) -> Option<String> {
    match (addr, port) {
        (addr, None) => addr,
        (None, Some(port)) => Some(format!("port {port}")),
        (Some(addr), Some(port)) => Some(format!("{addr} port {port}")),
    }
}

fn action(rule: &Rule) -> String {
    let words: Vec<String> = rule.statements.iter().chain(&rule.target).map(super::phases::target_words).collect();
    if words.is_empty() { "count".to_owned() } else { words.join(", ") }
}

fn set_view(set: &Set) -> SetView {
    SetView {
        set: set.name.clone(),
        kind: set.kind.clone(),
        elements: set.elements.len().max(set.keys.len()).max(set.verdicts.len()),
        unreliable: set.unreliable.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::parse;

    #[test]
    fn a_rule_is_taken_apart_and_callers_are_named() {
        let text = "*filter\n:INPUT DROP [5:50]\n:web - [0:0]\n:old - [0:0]\n\
            [1:2] -A INPUT ! -i lo -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -m limit --limit 1/s -m comment --comment hi -j web\n\
            -A web -j REJECT\nCOMMIT\n";
        let stack = Stack::from_rulesets([parse::iptables_save(text, Family::Ip, Backend::Nft, "t").unwrap().ruleset]);
        let page = overview(&stack, Only::default());
        let chains = &page.tables[0].chains;
        assert_eq!(chains[0].policy_counters.map(|c| c.packets), Some(5));
        assert_eq!((chains[1].called_by.as_slice(), chains[2].called_by.len()), (&["INPUT rule 1".to_owned()][..], 0));
        let rule = &chains[0].rules[0];
        assert_eq!(
            (rule.in_.as_deref(), rule.source.as_deref(), rule.destination.as_deref(), rule.action.as_str()),
            (Some("not lo"), Some("10.0.0.0/8"), Some("port 80"), "web")
        );
        assert!(rule.more.contains("--limit 1/s") && rule.comment.as_deref() == Some("hi"), "{rule:?}");
        let one = overview(&stack, Only { chain: Some("web"), ..Only::default() });
        assert_eq!(one.tables[0].chains.len(), 1);
    }
}
