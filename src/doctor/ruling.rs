//! What a host's rulesets say of the trial's packets, and which of their counters moved.

use super::diagnosis::Where;
use super::evidence::{Direction, Evidence};
use super::target::Scheme;
use crate::firewall::counters::{self, Moved};
use crate::firewall::fix;
use crate::firewall::packet::{Packet, Proto};
use crate::firewall::ruleset::{CtStates, Hook, TcpFlags};
use crate::firewall::walk::{DecidedBy, Facts, NearMiss, Outcome, Stack, Verdict, walk_hook};
use crate::host::{HostFacts, RouteKind, RouteResult, RulesetDump};

/// One host's rulesets, before and after the trial.
pub(crate) struct Firewall<'a> {
    before: Stack,
    after: Option<Stack>,
    facts: &'a HostFacts,
    place: Where,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It passes.
    Accept,
    /// It is dropped.
    Drop,
    /// It is dropped and its sender told.
    Reject,
    /// The rules leave it open.
    Unknown,
}

/// What a ruleset does with one packet, with its cause.
#[derive(Debug, Clone)]
pub(crate) struct Ruling {
    /// What.
    pub(crate) decision: Decision,
    /// The rule or policy; `None` where nothing decided but the end of the walk.
    pub(crate) by: Option<DecidedBy>,
    /// The rule as text.
    pub(crate) text: String,
    /// Its counter before and after the trial.
    pub(crate) counted: Option<(u64, u64)>,
    /// The rule that would have let it pass, but for one field.
    pub(crate) near_miss: Option<String>,
    /// The least change that lets it pass: explanation, command, undo.
    pub(crate) fix: Option<(String, String, String)>,
    /// Whether the rule speaks of everything: a policy, or a rule without conditions on the packet.
    pub(crate) catch_all: bool,
    /// Whether the rule is a rate or connection limit.
    pub(crate) limits: bool,
    /// Whether the rule selects packets that connection tracking calls invalid.
    pub(crate) invalid: bool,
    /// What the rules leave open.
    pub(crate) open: Vec<String>,
}

impl Ruling {
    /// The rule in a sentence's place: `Rule 2 of chain INPUT (table filter)`.
    pub(crate) fn name(&self) -> String {
        let Some(by) = &self.by else { return "The ruleset".to_owned() };
        let line = by.line.map(|line| format!(", line {line}")).unwrap_or_default();
        match by.rule {
            Some(rule) => format!("Rule {rule} of chain {} (table {}{line})", by.chain, by.table),
            None => format!("Policy DROP of chain {} (table {}{line})", by.chain, by.table),
        }
    }

    /// The thing to change.
    pub(crate) fn object(&self) -> String {
        match &self.by {
            Some(by) => format!("{}: {}", by.place(), self.text),
            None => self.text.clone(),
        }
    }

    /// Where the rule was read.
    pub(crate) fn source(&self, place: Where) -> String {
        match &self.by {
            Some(by) => match by.line {
                Some(line) => format!("line {line} of the {place}'s ruleset ({}, {})", by.source, backend(by)),
                None => format!("the {place}'s ruleset ({}, {})", by.source, backend(by)),
            },
            None => format!("the {place}'s ruleset"),
        }
    }
}

/// The rule as a person would look for it: without its counters; a policy as its chain's line.
fn shown(by: &DecidedBy) -> String {
    if by.rule.is_none() && by.line.is_some() && by.handle.is_none() {
        let policy = by.text.strip_prefix("policy ").unwrap_or(&by.text);
        return format!(":{} {}", by.chain, policy.to_uppercase());
    }
    match by.text.split_once("] ") {
        Some((counters, rule)) if counters.starts_with('[') => rule.to_owned(),
        _ => by.text.clone(),
    }
}

fn backend(by: &DecidedBy) -> &'static str {
    match by.backend {
        crate::host::Backend::Nft => "nf_tables",
        crate::host::Backend::Legacy => "iptables-legacy",
    }
}

impl<'a> Firewall<'a> {
    /// Reads a host's dumps; `None` where its rulesets could not be seen.
    pub(crate) fn read(
        before: Option<&[RulesetDump]>,
        after: Option<&[RulesetDump]>,
        facts: &'a HostFacts,
        place: Where,
    ) -> Option<Self> {
        let (stack, _) = Stack::from_dumps(before?);
        Some(Self { before: stack, after: after.map(|after| Stack::from_dumps(after).0), facts, place })
    }

    /// Walks the trial's packet of one direction through one hook.
    pub(crate) fn rule_on(&self, known: &Evidence<'_>, hook: &str, direction: Direction) -> Ruling {
        let Some(packet) = self.packet(known, hook, direction) else {
            return Ruling::open(vec!["the packet's addresses are not known".to_owned()]);
        };
        let outcome = walk_hook(&self.before, &packet, &Facts::of(self.facts));
        self.ruling(&outcome, &packet)
    }

    /// Whether NAT at the first hook gives the packet another destination.
    pub(crate) fn rewrites(&self, known: &Evidence<'_>, direction: Direction) -> bool {
        let Some(packet) = self.packet(known, "prerouting", direction) else { return false };
        let out = walk_hook(&self.before, &packet, &Facts::of(self.facts)).packet_out;
        (out.dst, out.dport) != (packet.dst, packet.dport)
    }

    /// Among the rules at a hook whose counters grew, one that drops or rejects.
    pub(crate) fn guilty(&self, hook: &str) -> Option<Ruling> {
        let after = self.after.as_ref()?;
        let moved = counters::moved(&self.before, after);
        let blames = |moved: &&Moved| {
            let text = moved.rule.text.to_ascii_lowercase();
            let takes =
                ["-j drop", "-j reject", "policy drop", " drop", " reject"].iter().any(|word| text.contains(word));
            takes && moved.rule.hook.to_string().eq_ignore_ascii_case(hook)
        };
        let moved = moved.iter().find(blames)?;
        let reject = moved.rule.text.to_ascii_lowercase().contains("reject");
        let mut ruling = Ruling::of(if reject { Decision::Reject } else { Decision::Drop }, Some(moved.rule.clone()));
        ruling.counted = Some((moved.packets_before, moved.packets_after));
        Some(ruling)
    }

    fn ruling(&self, outcome: &Outcome, packet: &Packet) -> Ruling {
        let decision = match outcome.verdict {
            Verdict::Accept => Decision::Accept,
            Verdict::Drop => Decision::Drop,
            Verdict::Reject => Decision::Reject,
            Verdict::Queue | Verdict::Unknown => Decision::Unknown,
        };
        let mut ruling = Ruling::of(decision, outcome.decided_by.clone());
        ruling.open =
            outcome.branches.iter().flat_map(|branch| branch.given.clone()).chain(outcome.assumed.clone()).collect();
        ruling.near_miss = outcome.near_miss.as_ref().map(NearMiss::sentence);
        if let (Some(by), Some(after)) = (&outcome.decided_by, &self.after) {
            ruling.counted = counters::moved(&self.before, after)
                .into_iter()
                .find(|moved| moved.rule.place() == by.place() && moved.rule.backend == by.backend)
                .map(|moved| (moved.packets_before, moved.packets_after));
        }
        if matches!(decision, Decision::Drop | Decision::Reject) {
            ruling.fix = fix::allow(&self.before, outcome, packet).map(|fix| (fix.explain, fix.command, fix.undo));
        }
        ruling
    }

    /// The trial's packet as it stands at a hook of this host.
    pub(crate) fn packet(&self, known: &Evidence<'_>, hook: &str, direction: Direction) -> Option<Packet> {
        let (client, server) = (known.source?, known.address?);
        let (src, dst) = match direction {
            Direction::Request => (client, server),
            Direction::Reply => (server, client),
        };
        let mut packet = Packet::new(src, dst);
        packet.hook = Some(match hook {
            "prerouting" => Hook::Prerouting,
            "input" => Hook::Input,
            "forward" => Hook::Forward,
            "output" => Hook::Output,
            _ => Hook::Postrouting,
        });
        let leaves = matches!(hook, "output" | "postrouting");
        let link = self.link(known);
        if leaves {
            packet.out = link;
        } else {
            packet.in_ = link;
        }
        let port = known.case.target.port;
        let own = known.exchange().and_then(|exchange| exchange.local).map_or(40_000, |local| local.port());
        let ports = match direction {
            Direction::Request => (Some(own), port),
            Direction::Reply => (port, Some(own)),
        };
        match (known.case.target.scheme, server.is_ipv4()) {
            (Scheme::Host, v4) => {
                packet.proto = Some(Proto(if v4 { 1 } else { 58 }));
                packet.icmp_type = Some(match (direction, v4) {
                    (Direction::Request, true) => 8,
                    (Direction::Reply, true) => 0,
                    (Direction::Request, false) => 128,
                    (Direction::Reply, false) => 129,
                });
                packet.icmp_code = Some(0);
            }
            (Scheme::Udp, _) => {
                packet.proto = Some(Proto(17));
                (packet.sport, packet.dport) = ports;
            }
            _ => {
                packet.proto = Some(Proto(6));
                (packet.sport, packet.dport) = ports;
                packet.tcp_flags = Some(match direction {
                    Direction::Request => TcpFlags::SYN,
                    Direction::Reply => TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0),
                });
            }
        }
        packet.ctstate = Some(match direction {
            Direction::Request => CtStates::NEW,
            Direction::Reply => CtStates::ESTABLISHED,
        });
        if leaves && self.place == Where::Client {
            packet.uid = Some(self.facts.privileges.euid);
        }
        Some(packet)
    }

    /// The interface that the flow uses on this host.
    fn link(&self, known: &Evidence<'_>) -> Option<String> {
        let side = if self.place == Where::Client { &known.client } else { known.server.as_ref()? };
        if known.is_self() {
            return Some("lo".to_owned());
        }
        match &side.end.route.as_ref()?.result {
            RouteResult::Found { kind: RouteKind::Local, .. } => Some("lo".to_owned()),
            RouteResult::Found { interface, .. } => interface.clone(),
            RouteResult::Refused { .. } => None,
        }
    }
}

impl Ruling {
    fn open(open: Vec<String>) -> Self {
        Self { open, ..Self::of(Decision::Unknown, None) }
    }

    fn of(decision: Decision, by: Option<DecidedBy>) -> Self {
        let text = by.as_ref().map_or_else(String::new, shown);
        let words: Vec<&str> = text.split_whitespace().collect();
        let policy = by.as_ref().is_some_and(|by| by.rule.is_none());
        // A rule that names no address, port, protocol or interface speaks of everything.
        let selects = words.iter().any(|word| {
            matches!(
                *word,
                "-s" | "-d"
                    | "-p"
                    | "-i"
                    | "-o"
                    | "-m"
                    | "saddr"
                    | "daddr"
                    | "sport"
                    | "dport"
                    | "iifname"
                    | "oifname"
                    | "ct"
                    | "meta"
            )
        });
        let module = |names: &[&str]| words.windows(2).any(|pair| pair[0] == "-m" && names.contains(&pair[1]));
        Self {
            decision,
            catch_all: policy || (by.is_some() && !selects),
            limits: module(&["limit", "hashlimit", "connlimit", "recent"]),
            invalid: text.contains("INVALID") || text.contains("ct state invalid"),
            text,
            by,
            counted: None,
            near_miss: None,
            fix: None,
            open: Vec::new(),
        }
    }
}
