//! The least change to a ruleset that lets one packet through.

use std::fmt::Write as _;

use serde::Serialize;

use super::explain;
use super::packet::Packet;
use super::parse;
use super::ruleset::{Chain, CompareOp, Family, Field, Hook, Match, Rule, Ruleset, Side, Target, TcpFlags, Test};
use super::walk::{DecidedBy, Outcome, Stack};
use crate::host::Backend;

/// A change to one ruleset, as commands and as a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FixProposal {
    /// What the change allows, in a sentence.
    pub explain: String,
    /// The command that makes it.
    pub command: String,
    /// The command that takes it back.
    pub undo: String,
    /// The rule that is added.
    #[serde(skip)]
    pub rule: Rule,
    /// The chain it is added to, by one of its rules or its policy.
    #[serde(skip)]
    pub chain: DecidedBy,
    /// Its number in the chain from 1; `None` for the end.
    #[serde(skip)]
    pub position: Option<u32>,
}

impl FixProposal {
    /// Puts the rule into the ruleset it was made for; false where the ruleset is another one.
    pub fn apply(&self, ruleset: &mut Ruleset) -> bool {
        if ruleset.backend != self.chain.backend {
            return false;
        }
        let table = ruleset.tables.iter_mut().find(|t| t.family == self.chain.family && t.name == self.chain.table);
        let Some(chain) = table.and_then(|table| table.chain_mut(&self.chain.chain)) else { return false };
        let at = self.position.and_then(|n| usize::try_from(n).ok()).map_or(chain.rules.len(), |n| n.saturating_sub(1));
        chain.rules.insert(at.min(chain.rules.len()), self.rule.clone());
        true
    }
}

/// The least change that lets this packet through at the place that stopped it; `None` where no
/// rule or policy stopped it.
///
/// The new rule stands right before the rule that stopped the packet, or at the end of the chain
/// whose policy did. It asks for the protocol and the server's port; for the peer's address only
/// where the rules beside it do; for the connection's state only in a ruleset that uses it.
pub fn allow(stack: &Stack, outcome: &Outcome, packet: &Packet) -> Option<FixProposal> {
    if !outcome.verdict.blocks() {
        return None;
    }
    let by = outcome.decided_by.as_ref()?;
    let (ruleset, chain) = find(stack, by)?;
    let table = ruleset.table(by.family, &by.table)?;
    // What the deciding chain saw may have been translated before it.
    let seen = &outcome.packet_out;
    let position = by.rule.or_else(|| before_policy(outcome, by));
    let native = table.handle.is_some() || by.handle.is_some() || !table.is_iptables_shaped();
    let ask = Ask::new(seen, packet, by, chain, ruleset);
    let rule = ask.rule(by)?;
    let explain = format!("{} {}", ask.says(by), where_to(by, position));
    let (command, undo) = if native { ask.nft(by, chain, position) } else { ask.iptables(by, position) };
    Some(FixProposal { explain, command, undo, rule, chain: by.clone(), position })
}

fn find<'a>(stack: &'a Stack, by: &DecidedBy) -> Option<(&'a Ruleset, &'a Chain)> {
    stack
        .rulesets()
        .iter()
        .filter(|r| r.backend == by.backend && r.source == by.source)
        .find_map(|r| Some((r, r.table(by.family, &by.table)?.chain(&by.chain)?)))
}

/// Where a packet left the chain for its policy before the chain's end: by RETURN or goto.
fn before_policy(outcome: &Outcome, by: &DecidedBy) -> Option<u32> {
    let mine = |at: &DecidedBy| {
        (&at.table, at.family, &at.chain, at.backend, at.hook) == (&by.table, by.family, &by.chain, by.backend, by.hook)
    };
    let last = outcome.path.iter().rev().find(|step| mine(&step.at) && step.at.rule.is_some())?;
    (last.action == "return" || last.action.starts_with("goto ")).then_some(last.at.rule)?
}

fn where_to(by: &DecidedBy, position: Option<u32>) -> String {
    match position {
        Some(n) => format!("(in {} before rule {n})", by.chain),
        None => format!("(at the end of {}, whose policy drops it now)", by.chain),
    }
}

/// What the new rule asks for.
struct Ask {
    v6: bool,
    proto: u8,
    /// The server's port, and whether it is the packet's source port.
    port: Option<(u16, bool)>,
    icmp: Option<u8>,
    established: bool,
    source: Option<std::net::IpAddr>,
    destination: Option<std::net::IpAddr>,
}

impl Ask {
    fn new(seen: &Packet, given: &Packet, by: &DecidedBy, chain: &Chain, ruleset: &Ruleset) -> Self {
        let (proto, _) = given.protocol();
        let port = server_port(seen, proto);
        let reply = port.is_some_and(|(_, reply)| reply);
        let stateful = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules).any(uses_state);
        let peer = |side: Side| chain.rules.iter().any(|rule| beside(rule, proto) && names_peer(rule, side));
        let source = matches!(by.hook, Hook::Input | Hook::Forward | Hook::Prerouting) && peer(Side::Source);
        let destination =
            matches!(by.hook, Hook::Output | Hook::Forward | Hook::Postrouting) && peer(Side::Destination);
        Self {
            v6: seen.is_v6(),
            proto,
            port,
            icmp: if matches!(proto, 1 | 58) { seen.icmp_type } else { None },
            established: reply && stateful,
            source: source.then_some(seen.src),
            destination: destination.then_some(seen.dst),
        }
    }

    fn says(&self, by: &DecidedBy) -> String {
        let what = explain::protocol(self.proto);
        let way = match by.hook {
            Hook::Output | Hook::Postrouting | Hook::Egress => "leave this host",
            Hook::Forward => "pass through this host",
            Hook::Input | Hook::Prerouting | Hook::Ingress => "reach this host",
        };
        let peer = match (self.source, self.destination) {
            (Some(addr), None) => format!(" from {addr}"),
            (None, Some(addr)) => format!(" to {addr}"),
            (Some(from), Some(to)) => format!(" from {from} to {to}"),
            (None, None) => String::new(),
        };
        match self.port {
            Some((port, true)) => format!("lets the {what} replies from port {port}{peer} {way}"),
            Some((port, false)) => format!("lets {what} to port {port}{peer} {way}"),
            None => format!("lets {what}{peer} {way}"),
        }
    }

    /// The specification of an iptables rule, as people write it.
    fn spec(&self) -> String {
        let mut words = Vec::new();
        if let Some(addr) = self.source {
            words.push(format!("-s {addr}"));
        }
        if let Some(addr) = self.destination {
            words.push(format!("-d {addr}"));
        }
        words.push(format!("-p {}", super::names::portable_protocol(self.proto)));
        if let Some((port, source)) = self.port {
            words.push(format!("{} {port}", if source { "--sport" } else { "--dport" }));
        }
        if let Some(kind) = self.icmp {
            words.push(format!("{} {kind}", if self.v6 { "--icmpv6-type" } else { "--icmp-type" }));
        }
        if self.established {
            words.push("-m conntrack --ctstate ESTABLISHED".to_owned());
        }
        words.push("-j ACCEPT".to_owned());
        words.join(" ")
    }

    /// The rule of the model.
    fn rule(&self, by: &DecidedBy) -> Option<Rule> {
        let family = if self.v6 { Family::Ip6 } else { Family::Ip };
        let text = format!("*filter\n-A INPUT {}\nCOMMIT\n", self.spec());
        let parsed = parse::iptables_save(&text, family, by.backend, "fix").ok()?;
        let mut rule = parsed.ruleset.tables.first()?.chains.first()?.rules.first()?.clone();
        rule.line = None;
        rule.text = format!("-A {} {rule}", by.chain);
        Some(rule)
    }

    fn iptables(&self, by: &DecidedBy, position: Option<u32>) -> (String, String) {
        let mut tool = if by.family == Family::Ip6 { "ip6tables" } else { "iptables" }.to_owned();
        if by.backend == Backend::Legacy {
            tool += "-legacy";
        }
        if by.table != "filter" {
            let _ = write!(tool, " -t {}", by.table);
        }
        let (chain, spec) = (super::ruleset::quote(&by.chain), self.spec());
        let command = match position {
            Some(n) => format!("{tool} -I {chain} {n} {spec}"),
            None => format!("{tool} -A {chain} {spec}"),
        };
        (command, format!("{tool} -D {chain} {spec}"))
    }

    fn nft(&self, by: &DecidedBy, chain: &Chain, position: Option<u32>) -> (String, String) {
        let place = format!("{} {} {}", by.family, by.table, by.chain);
        let ip = if self.v6 { "ip6" } else { "ip" };
        let mut words = Vec::new();
        if let Some(addr) = self.source {
            words.push(format!("{ip} saddr {addr}"));
        }
        if let Some(addr) = self.destination {
            words.push(format!("{ip} daddr {addr}"));
        }
        let name = super::names::protocol_name(self.proto);
        match (self.port, self.icmp) {
            (Some((port, source)), _) => {
                words.push(format!("{name} {} {port}", if source { "sport" } else { "dport" }));
            }
            (None, Some(kind)) => words.push(format!("{} type {kind}", if self.v6 { "icmpv6" } else { "icmp" })),
            (None, None) => words.push(format!("meta l4proto {}", self.proto)),
        }
        if self.established {
            words.push("ct state established".to_owned());
        }
        words.push("accept".to_owned());
        let spec = words.join(" ");
        let handle =
            position.and_then(|n| chain.rules.get(usize::try_from(n).ok()?.checked_sub(1)?)).and_then(|r| r.handle);
        let command = match (position, handle) {
            (Some(_), Some(handle)) => format!("nft insert rule {place} position {handle} {spec}"),
            (Some(n), None) => format!("nft insert rule {place} index {} {spec}", n - 1),
            (None, _) => format!("nft add rule {place} {spec}"),
        };
        // nft deletes by handle only, and the new rule's handle is known once it is there.
        let undo = format!(
            "nft delete rule {place} handle \"$(nft -a list chain {place} | sed -n 's/^[[:space:]]*{spec} # handle //p' | head -n 1)\""
        );
        (command, undo)
    }
}

/// The server's port of a packet, and whether the packet comes from it.
fn server_port(packet: &Packet, proto: u8) -> Option<(u16, bool)> {
    if !matches!(proto, 6 | 17 | 33 | 132 | 136) {
        return None;
    }
    let flags = packet.tcp_flags.unwrap_or_default().0;
    let (syn, ack) = (flags & TcpFlags::SYN.0 != 0, flags & TcpFlags::ACK.0 != 0);
    match (packet.sport, packet.dport) {
        (_, Some(dport)) if syn && !ack => Some((dport, false)),
        (Some(sport), _) if syn && ack => Some((sport, true)),
        (Some(sport), Some(dport)) => {
            // The client's port is an ephemeral one (net.ipv4.ip_local_port_range begins at 32768).
            let reply = match (sport >= 32_768, dport >= 32_768) {
                (true, false) => false,
                (false, true) => true,
                _ => sport < dport,
            };
            Some(if reply { (sport, true) } else { (dport, false) })
        }
        (None, Some(dport)) => Some((dport, false)),
        (Some(sport), None) => Some((sport, true)),
        (None, None) => None,
    }
}

fn uses_state(rule: &Rule) -> bool {
    rule.matches.iter().any(|m| match &m.test {
        Test::Conntrack { .. } => true,
        Test::Compare(comparison) => comparison.fields.contains(&Field::CtState),
        _ => false,
    })
}

/// A rule that accepts packets of the same protocol, as the new one will.
fn beside(rule: &Rule, proto: u8) -> bool {
    let same = |m: &Match| match &m.test {
        Test::Protocol(number) => !m.negated && *number == proto,
        Test::Compare(c) => {
            c.fields.iter().any(|f| matches!(f, Field::Sport(Some(p)) | Field::Dport(Some(p)) if *p == proto))
        }
        _ => false,
    };
    rule.target == Some(Target::Accept) && rule.matches.iter().any(same)
}

fn names_peer(rule: &Rule, side: Side) -> bool {
    rule.matches.iter().any(|m| match &m.test {
        Test::Source(_) => side == Side::Source,
        Test::Destination(_) => side == Side::Destination,
        Test::IpRange { side: own, .. } => *own == side,
        Test::Compare(c) if c.op == CompareOp::Eq => c.fields.iter().any(|f| match side {
            Side::Source => matches!(f, Field::Saddr { .. }),
            _ => matches!(f, Field::Daddr { .. }),
        }),
        _ => false,
    })
}
