//! What is wrong with a ruleset, where that is true for every packet.
//!
//! Nothing is called dead that some packet, on some host, could bring to life: what the walk assumes
//! of a host is left open here ([`Model::cautious`]), and tests on history, chance or unknown parts
//! may always answer either way.

mod cover;
mod dead;
mod names;
mod services;
mod slips;

use serde::Serialize;

use crate::firewall::parse::Warning;
use crate::firewall::ruleset::Family;
use crate::firewall::traps::traps;
use crate::firewall::walk::{ChainAt, Stack};

use super::bdd::Set;
use super::model::Model;
use super::query::families;
use super::space::{Space, Way};
use super::survey;

/// The codes, and what each says.
pub const CODES: &[(&str, &str)] = &[
    ("shadowed", "Earlier rules take every packet that the rule is about"),
    ("redundant", "Without the rule every packet meets the same end"),
    ("contradiction", "No packet that comes to the rule can match it"),
    ("unreachable-chain", "The chain is jumped to, but no packet comes to it"),
    ("unused-chain", "No rule jumps to the chain"),
    ("undefined-chain", "The rule jumps to a chain that is not there"),
    ("undefined-set", "The rule asks for a set that is not there"),
    ("unused-set", "No rule asks for the set"),
    ("half-open-flow", "The rule lets connections in whose answers are dropped"),
    ("no-loopback", "The host's own packets over lo are dropped"),
    ("no-established", "Answers to the host's own connections are dropped"),
    ("policy-accept", "What no rule is about is let in"),
    ("open-to-world", "The rule lets anyone in to anything, or to a service that is not for everyone"),
    ("order-dependent", "Two rules of opposite verdicts share packets; which comes first decides"),
    ("accept-before-drop", "An ACCEPT takes all packets of a more specific DROP behind it"),
    ("dns-tcp-only", "DNS is opened or closed over TCP alone"),
    ("dns-udp-only", "DNS is opened or closed over UDP alone"),
    ("backend-differs", "iptables-legacy and iptables-nft treat some packets differently"),
    ("docker-bypass", "A published port reaches a container past the rules of INPUT"),
    ("v4-v6-disagree", "A service is open over one IP version and closed over the other"),
    ("unknown-part", "A match or target that is not known"),
    ("syntax", "The kernel or iptables-restore would refuse the rule"),
];

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Probably not meant.
    Warning,
    /// Surely not meant, or a door that stands open.
    Error,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// The table's family.
    pub family: Option<Family>,
    /// The table; empty where the finding is about no table.
    pub table: String,
    /// The chain; empty where the finding is about no chain.
    pub chain: String,
    /// The rule's number in its chain, from 1.
    pub rule: Option<u32>,
    /// Its line.
    pub line: Option<u32>,
    /// What is wrong, and what it does.
    pub message: String,
    /// Lines of the rules that make it so.
    pub because: Vec<u32>,
    /// A packet that shows it.
    pub example: Option<String>,
    /// The file or command the ruleset came from.
    pub source: String,
}

impl Finding {
    pub(super) fn new(code: &'static str, severity: Severity, message: String) -> Self {
        Self {
            code,
            severity,
            family: None,
            table: String::new(),
            chain: String::new(),
            rule: None,
            line: None,
            message,
            because: Vec::new(),
            example: None,
            source: String::new(),
        }
    }

    /// At a chain, or at one of its rules.
    pub(super) fn at(mut self, stack: &Stack, at: ChainAt, index: Option<usize>) -> Self {
        if let Some((ruleset, table, chain)) = stack.at(at) {
            self.family = Some(table.family);
            self.table.clone_from(&table.name);
            self.chain.clone_from(&chain.name);
            self.source.clone_from(&ruleset.source);
            self.line = chain.line;
            if let Some(index) = index {
                self.rule = u32::try_from(index + 1).ok();
                self.line = chain.rules.get(index).and_then(|rule| rule.line);
            }
        }
        self
    }

    pub(super) fn because(mut self, lines: impl IntoIterator<Item = Option<u32>>) -> Self {
        self.because = lines.into_iter().flatten().collect();
        self.because.sort_unstable();
        self.because.dedup();
        self
    }
}

/// One family's packets through the rulesets.
pub(super) struct Sight<'a, 'b> {
    pub(super) model: Model<'a>,
    /// What comes to each summary.
    pub(super) entered: Vec<Set>,
    pub(super) fates: Vec<(Way, Vec<(super::model::Fate, Set)>)>,
    pub(super) v6: bool,
    marker: std::marker::PhantomData<&'b ()>,
}

/// Finds what is wrong.
pub fn lint(stack: &Stack, warnings: &[Warning]) -> Vec<Finding> {
    let mut found = names::look(stack, warnings);
    let mut spaces: Vec<Space> = families(&[stack]).into_iter().map(|v6| survey::widest(&[stack], v6)).collect();
    let mut sights: Vec<Sight<'_, '_>> = spaces
        .iter_mut()
        .map(|space| {
            let v6 = space.v6;
            let mut model = Model::new(stack, space);
            model.cautious = true;
            model.verdicts_only = true;
            let fates = model.fates(true);
            let entered = model.entered();
            Sight { model, entered, fates, v6, marker: std::marker::PhantomData }
        })
        .collect();
    dead::look(stack, &mut sights, &mut found);
    slips::look(stack, &mut sights, &mut found);
    services::look(stack, &mut sights, &mut found);
    drop(sights);
    slips::backends(stack, &mut found);
    for trap in traps(stack) {
        let (code, severity) = match trap.code {
            "dns-tcp-only" => ("dns-tcp-only", Severity::Warning),
            "dns-udp-only" => ("dns-udp-only", Severity::Warning),
            "half-open-flow" => ("half-open-flow", Severity::Error),
            "not-known" => ("unknown-part", Severity::Info),
            _ => continue,
        };
        let source = stack
            .rulesets()
            .iter()
            .find(|r| r.tables.iter().any(|t| t.family == trap.family && t.name == trap.table))
            .map_or(String::new(), |r| r.source.clone());
        found.push(Finding {
            family: Some(trap.family),
            table: trap.table,
            chain: trap.chain,
            rule: trap.rule,
            line: trap.line,
            because: trap.because,
            example: trap.example,
            source,
            ..Finding::new(code, severity, trap.message)
        });
    }
    found.sort_by(|a, b| {
        (&a.source, a.line, std::cmp::Reverse(a.severity), a.code).cmp(&(
            &b.source,
            b.line,
            std::cmp::Reverse(b.severity),
            b.code,
        ))
    });
    found.dedup();
    found
}
