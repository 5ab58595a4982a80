//! What people get wrong in rulesets, where it is certain from the rules alone.
//!
//! A trap is told only where no packet and no fact could make it untrue. Rules that rest on
//! history, chance, marks or unknown parts prove nothing about others, and no trap is built on them.

mod cover;
mod half_open;

use std::collections::HashSet;

use serde::Serialize;

use super::overview::called;
use super::ruleset::{Chain, CtStates, CtTest, Family, Hook, Policy, PortRange, Rule, Side, Table, Target, Test};
use super::walk::Stack;

use cover::{Coverer, decides};
use half_open::half_open;

/// Chains longer than this are not searched for rules that hide each other: the search compares
/// every rule with all before it.
const MAX_PAIRED: usize = 20_000;

/// So many rules of a chain are tried with a connection, and so many of them told.
const MAX_RUN: usize = 200;
const MAX_TOLD: usize = 20;

/// One trap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trap {
    /// What kind: `half-open-flow`, `shadowed`, `redundant`, `dns-udp-only`, `dns-tcp-only`, `accepts-all`,
    /// `policy-accept`, `unused-chain`, `not-known`.
    pub code: &'static str,
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's number in its chain; `None` where the chain itself is meant.
    pub rule: Option<u32>,
    /// Its line.
    pub line: Option<u32>,
    /// What is wrong, and what it does.
    pub message: String,
    /// Lines of the rules that make it so.
    pub because: Vec<u32>,
    /// A packet that shows it, as an expression.
    pub example: Option<String>,
}

/// The traps of all rulesets, in the order of their rules.
pub fn traps(stack: &Stack) -> Vec<Trap> {
    let mut found = Vec::new();
    for ruleset in stack.rulesets() {
        for table in &ruleset.tables {
            let used: HashSet<&str> =
                table.chains.iter().flat_map(|c| &c.rules).flat_map(|rule| called(rule, table)).collect();
            for chain in &table.chains {
                let looker = Looker { stack, table, chain, found: &mut found };
                looker.look(used.contains(chain.name.as_str()));
            }
        }
    }
    found
}

struct Looker<'a> {
    stack: &'a Stack,
    table: &'a Table,
    chain: &'a Chain,
    found: &'a mut Vec<Trap>,
}

impl Looker<'_> {
    fn look(mut self, used: bool) {
        let chain = self.chain;
        if chain.base.is_none() && !used && !chain.rules.is_empty() {
            self.tell("unused-chain", None, "no rule jumps to this chain: its rules never run".to_owned(), &[]);
        }
        let reached = self.shadows();
        for (index, rule) in chain.rules.iter().enumerate() {
            for part in rule.unknown_parts() {
                self.tell("not-known", Some(index), format!("{part}: what this rule does is not known"), &[]);
            }
            if reached[index] {
                self.dns(index, rule);
            }
        }
        self.half_open(&reached);
        self.open_door();
    }

    /// Connections that are let in and never answered. Each is run, so that the example is true.
    fn half_open(&mut self, reached: &[bool]) {
        let told = self.found.len();
        for (index, _) in reached.iter().enumerate().filter(|(_, reached)| **reached).take(MAX_RUN) {
            let Some(half) = half_open(self.stack, self.table, self.chain, index) else { continue };
            let Some(by) = half.blocked.decided_by.as_ref() else { continue };
            let message = format!(
                "connections come in by this rule and their answers do not go out: {} stops the {} of {}",
                by.place(),
                half.blocked.flags.join(","),
                half.example
            );
            self.tell("half-open-flow", Some(index), message, &[]);
            if let Some(trap) = self.found.last_mut() {
                trap.because = by.line.into_iter().collect();
                trap.example = Some(half.example.to_string());
            }
            if self.found.len() - told >= MAX_TOLD {
                break;
            }
        }
    }

    fn tell(&mut self, code: &'static str, index: Option<usize>, message: String, because: &[usize]) {
        let rule = index.and_then(|index| self.chain.rules.get(index));
        self.found.push(Trap {
            code,
            family: self.table.family,
            table: self.table.name.clone(),
            chain: self.chain.name.clone(),
            rule: index.and_then(|index| u32::try_from(index + 1).ok()),
            line: if index.is_some() { rule.and_then(|rule| rule.line) } else { self.chain.line },
            message,
            because: because.iter().filter_map(|index| self.chain.rules.get(*index)?.line).collect(),
            example: None,
        });
    }

    /// Tells rules that an earlier one leaves nothing; gives for each rule whether it is reached.
    fn shadows(&mut self) -> Vec<bool> {
        let rules = &self.chain.rules;
        let mut reached = vec![true; rules.len()];
        if rules.len() > MAX_PAIRED {
            return reached;
        }
        let raw = self.table.name == "raw";
        let mut coverers: Vec<(usize, Coverer<'_>)> = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let by = coverers.iter().find(|(_, coverer)| coverer.covers(rule)).map(|(at, _)| *at);
            if let Some(at) = by {
                reached[index] = false;
                let (code, message) = hidden(at, &rules[at], rule);
                self.tell(code, Some(index), message, &[at]);
                continue;
            }
            if let Some(coverer) = Coverer::new(rule, raw) {
                coverers.push((index, coverer));
            }
        }
        reached
    }

    /// DNS is UDP and TCP (RFC 7766): a rule about one of them, and none about the other.
    fn dns(&mut self, index: usize, rule: &Rule) {
        let Some((proto, side)) = dns_port(rule) else { return };
        let verb = match rule.target {
            Some(Target::Accept) => "opens",
            Some(Target::Drop | Target::Reject(_)) => "closes",
            _ => return,
        };
        let other = if proto == 17 { 6 } else { 17 };
        let kept = |rule: &Rule| {
            let target = match rule.target {
                Some(Target::Accept) => "opens",
                Some(Target::Drop | Target::Reject(_)) => "closes",
                // What another chain does with it is not looked into.
                Some(Target::Jump(_) | Target::Goto(_)) => verb,
                _ => return false,
            };
            target == verb && may_be_dns(rule, other, side)
        };
        if self.chain.rules.iter().any(kept) {
            return;
        }
        // A closed door needs no second lock: the policy or a last rule drops the rest.
        if verb == "closes" && self.closes_the_rest(index) {
            return;
        }
        let (code, one, two) =
            if proto == 17 { ("dns-udp-only", "UDP", "TCP") } else { ("dns-tcp-only", "TCP", "UDP") };
        let why = if proto == 17 {
            "a resolver repeats over TCP what did not fit into a datagram (RFC 7766)"
        } else {
            "nearly every question goes over UDP"
        };
        let message = format!("this {verb} DNS over {one} only, and no rule here {verb} it over {two}: {why}");
        self.tell(code, Some(index), message, &[]);
    }

    fn closes_the_rest(&self, index: usize) -> bool {
        let drops = |rule: &Rule| {
            matches!(rule.target, Some(Target::Drop | Target::Reject(_))) && rule.matches.iter().all(is_nothing)
        };
        self.chain.base.as_ref().is_none_or(|base| base.policy == Policy::Drop)
            || self.chain.rules.iter().skip(index).any(drops)
    }

    /// A chain that keeps nobody out although it looks like a door.
    fn open_door(&mut self) {
        let chain = self.chain;
        let Some(base) = chain.base.as_ref().filter(|base| matches!(base.hook, Hook::Input | Hook::Forward)) else {
            return;
        };
        let all = |rule: &Rule| rule.matches.iter().all(is_nothing) && rule.target == Some(Target::Accept);
        if let Some(index) = chain.rules.iter().position(all) {
            let idle = if base.policy == Policy::Drop { ", and the policy DROP never acts" } else { "" };
            let message = format!("this accepts every packet that comes this far: no rule behind it runs{idle}");
            self.tell("accepts-all", Some(index), message, &[]);
            return;
        }
        let accepts = |rule: &Rule| rule.statements.is_empty() && rule.target == Some(Target::Accept);
        if base.policy == Policy::Accept && !chain.rules.is_empty() && chain.rules.iter().all(accepts) {
            let message = "every rule accepts, and so does the policy: this chain keeps nothing out".to_owned();
            self.tell("policy-accept", None, message, &[]);
        }
    }
}

/// What to say of a rule that an earlier one hides.
fn hidden(at: usize, before: &Rule, rule: &Rule) -> (&'static str, String) {
    let number = at + 1;
    let word = |rule: &Rule| rule.target.as_ref().map_or("none".to_owned(), super::phases::target_words);
    let same = before.target == rule.target || !decides(rule);
    let line = before.line.map_or(String::new(), |line| format!(" (line {line})"));
    if same && before.target == rule.target {
        let says = format!("rule {number}{line} does the same with all these packets before: this rule never acts");
        return ("redundant", says);
    }
    let says = match (&before.target, &rule.target) {
        (Some(Target::Accept), Some(Target::Drop | Target::Reject(_))) => {
            let word = word(rule);
            let word = word.split_whitespace().next().unwrap_or_default().to_owned();
            format!(
                "this {word} stands behind an ACCEPT, rule {number}{line}, that takes all its packets: it never acts"
            )
        }
        _ => format!("rule {number}{line}, {}, takes all these packets before: this rule never acts", word(before)),
    };
    ("shadowed", says)
}

/// Whether a match leaves every packet in.
fn is_nothing(m: &super::ruleset::Match) -> bool {
    match &m.test {
        Test::Comment(_) => true,
        Test::Source(net) | Test::Destination(net) => net.is_any() && !m.negated,
        _ => false,
    }
}

/// The protocol and the side of port 53, where the rule is about DNS and nothing else.
fn dns_port(rule: &Rule) -> Option<(u8, Side)> {
    let proto = rule.matches.iter().find_map(|m| match m.test {
        Test::Protocol(number) if !m.negated => Some(number),
        _ => None,
    })?;
    let side = rule.matches.iter().find_map(|m| match &m.test {
        Test::Port { side, range, .. } if !m.negated && *range == PortRange::one(53) => Some(*side),
        Test::Multiport { side, ranges } if !m.negated && ranges.contains(&PortRange::one(53)) => Some(*side),
        _ => None,
    })?;
    (matches!(proto, 6 | 17) && side != Side::Either).then_some((proto, side))
}

/// Whether a rule may be about port 53 of a protocol. In doubt it is.
fn may_be_dns(rule: &Rule, proto: u8, side: Side) -> bool {
    rule.matches.iter().all(|m| match &m.test {
        Test::Protocol(number) => (*number == proto) != m.negated,
        Test::Port { side: at, range, .. } if *at == side => range.contains(53) != m.negated,
        Test::Multiport { side: at, ranges } if *at == side => ranges.iter().any(|r| r.contains(53)) != m.negated,
        // A packet of the pair's other direction, the loopback, or of a flow that is open already.
        Test::Port { .. } => false,
        Test::Conntrack { tests, .. } => !tests.iter().any(
            |(negated, test)| matches!(test, CtTest::State(states) if !negated && !states.intersects(CtStates::NEW)),
        ),
        Test::InInterface(iface) | Test::OutInterface(iface) => m.negated || iface.name != "lo",
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::parse;
    use crate::host::Backend;

    #[track_caller]
    fn codes(policy: &str, rules: &str) -> Vec<String> {
        let text = format!("*filter\n:INPUT {policy} [0:0]\n:u - [0:0]\n{rules}\nCOMMIT\n");
        let parsed = parse::iptables_save(&text, Family::Ip, Backend::Nft, "t").unwrap();
        let place = |trap: &Trap| format!("{} {}", trap.code, trap.rule.map_or(0, |rule| rule));
        traps(&Stack::from_rulesets([parsed.ruleset])).iter().map(place).collect()
    }

    #[test]
    fn a_drop_behind_an_accept_never_acts() {
        for (rules, expect) in [
            ("-A INPUT -p tcp -j ACCEPT\n-A INPUT -s 10.0.0.1 -p tcp --dport 22 -j DROP", "shadowed 2"),
            ("-A INPUT -s 10.0.0.0/8 -j ACCEPT\n-A INPUT -s 10.1.0.0/16 -j DROP", "shadowed 2"),
            (
                "-A INPUT -p tcp -m multiport --dports 22,80:90 -j ACCEPT\n-A INPUT -p tcp --dport 85 -j DROP",
                "shadowed 2",
            ),
            ("-A INPUT -p tcp --dport 1:100 -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT", "redundant 2"),
            (
                "-A INPUT -m conntrack --ctstate NEW,ESTABLISHED -j DROP\n-A INPUT -m state --state NEW -j ACCEPT",
                "shadowed 2",
            ),
        ] {
            assert_eq!(codes("DROP", rules), [expect], "{rules}");
        }
    }

    #[test]
    fn nothing_is_said_of_what_is_not_certain() {
        for rules in [
            "-A INPUT -s 10.1.0.0/16 -j ACCEPT\n-A INPUT -s 10.0.0.0/8 -j DROP",
            "-A INPUT -p tcp -m tcp -j ACCEPT\n-A INPUT -p tcp -j DROP",
            "-A INPUT -m limit --limit 1/s -j ACCEPT\n-A INPUT -m limit --limit 1/s -j DROP",
            "-A INPUT -m mark --mark 1 -j ACCEPT\n-A INPUT -m mark --mark 1 -j DROP",
            "-A INPUT -p tcp -j LOG\n-A INPUT -p tcp -j DROP",
            "-A INPUT -i eth0 -j ACCEPT\n-A INPUT -i eth+ -j DROP",
            "-A INPUT ! -s 10.0.0.0/8 -j ACCEPT\n-A INPUT -s 10.0.0.0/8 -j DROP",
            "-A INPUT -p tcp --sport 22 -j ACCEPT\n-A INPUT -p tcp --dport 22 -j DROP",
        ] {
            assert_eq!(codes("DROP", rules), Vec::<String>::new(), "{rules}");
        }
    }

    #[test]
    fn a_door_that_lets_in_and_not_out_is_half_open() {
        let check = |output: &str| {
            let text = format!(
                "*filter\n:INPUT DROP [0:0]\n:OUTPUT DROP [0:0]\n\
                -A INPUT -s 10.1.0.0/16 -i eth1 -p tcp --dport 8080 -j ACCEPT\n{output}COMMIT\n"
            );
            let parsed = parse::iptables_save(&text, Family::Ip, Backend::Nft, "t").unwrap();
            traps(&Stack::from_rulesets([parsed.ruleset]))
        };
        let found = check("");
        assert_eq!((found.len(), found[0].code, found[0].because.as_slice()), (1, "half-open-flow", &[3][..]));
        assert_eq!(found[0].example.as_deref(), Some("in=eth1 to=local tcp 10.1.0.2:40000 > 192.0.2.1:8080 syn"));
        for output in
            ["-A OUTPUT -p tcp --sport 8080 -j ACCEPT\n", "-A OUTPUT -m state --state ESTABLISHED -j ACCEPT\n"]
        {
            assert_eq!(check(output), [], "{output}");
        }
    }

    #[test]
    fn dns_needs_both_and_doors_need_a_lock() {
        assert_eq!(codes("DROP", "-A INPUT -p udp --dport 53 -j ACCEPT"), ["dns-udp-only 1"]);
        assert_eq!(codes("ACCEPT", "-A INPUT -p tcp --dport 53 -j DROP"), ["dns-tcp-only 1"]);
        // What lets in answers alone opens no port.
        assert_eq!(
            codes(
                "DROP",
                "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p tcp --dport 53 -j ACCEPT"
            ),
            ["dns-tcp-only 2"]
        );
        assert_eq!(codes("DROP", "-A INPUT -p tcp --dport 53 -j DROP"), Vec::<String>::new());
        let both = "-A INPUT -p udp --dport 53 -j ACCEPT\n-A INPUT -p tcp -m multiport --dports 53,80 -j ACCEPT";
        assert_eq!(codes("DROP", both), Vec::<String>::new());
        assert_eq!(codes("DROP", "-A INPUT -j ACCEPT"), ["accepts-all 1"]);
        assert_eq!(codes("ACCEPT", "-A INPUT -p tcp --dport 22 -j ACCEPT"), ["policy-accept 0"]);
        assert_eq!(codes("DROP", "-A u -p tcp -j DROP"), ["unused-chain 0"]);
        assert_eq!(codes("DROP", "-A INPUT -m geoip --src-cc DE -j DROP"), ["not-known 1"]);
    }
}
