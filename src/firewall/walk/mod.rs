//! One walk of one packet through all rulesets of a host: the verdict and its cause together.
//!
//! Order (`include/uapi/linux/netfilter_ipv4.h`): the hooks as the packet meets them; at a hook the
//! base chains of all tables, nf_tables and x_tables alike, by priority. ACCEPT ends its own base
//! chain only; DROP is final. Whatever cannot be known forks the walk: if all branches agree that
//! is the verdict, otherwise it is unknown and the branches are the alternatives.

mod answer;
mod asks;
mod bytes;
mod chain;
mod changing;
mod compare;
mod flow;
mod live;
mod matching;
mod nat;
mod near;
mod place;
mod route;
mod sets;
mod stack;
mod target_ext;
mod test_ext;
mod test_header;
mod test_wire;
mod track;

use serde::Serialize;

use crate::host::{Backend, HostFacts};

use super::packet::{Packet, Reply};
use super::ruleset::{Family, Hook};
use super::state::History;

pub(in crate::firewall) use compare::nft_states;
pub(in crate::firewall) use flow::{Mode, run};
pub(in crate::firewall) use live::Live;
pub use near::NearMiss;
pub use place::Answer;
pub use stack::{ChainAt, Issue, Stack};
pub(in crate::firewall) use track::is_core;

/// What is known of the host besides its rulesets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The host's addresses, routes and sysctls.
    pub host: Option<&'a HostFacts>,
    /// The time of day in seconds since 1970 (UTC), for `-m time`.
    pub clock: Option<u64>,
}

impl<'a> Facts<'a> {
    /// Nothing is known.
    pub fn none() -> Self {
        Self { host: None, clock: None }
    }

    /// What this snapshot says.
    pub fn of(host: &'a HostFacts) -> Self {
        Self { host: Some(host), clock: None }
    }

    /// The same at this second since 1970 (UTC).
    #[must_use]
    pub fn at(mut self, clock: u64) -> Self {
        self.clock = Some(clock);
        self
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passes.
    Accept,
    /// It is dropped without a word.
    Drop,
    /// It is dropped and its sender told.
    Reject,
    /// It is handed to a program.
    Queue,
    /// It rests on what is not known.
    Unknown,
}

impl Verdict {
    /// The verdict's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Queue => "queue",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the packet is certain not to pass.
    pub fn blocks(self) -> bool {
        matches!(self, Self::Drop | Self::Reject)
    }
}

/// A rule, or the policy of a chain, by its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecidedBy {
    /// Table.
    pub table: String,
    /// The table's family.
    pub family: Family,
    /// Chain.
    pub chain: String,
    /// The rule's number in its chain, from 1; `None` for the policy.
    pub rule: Option<u32>,
    /// Line of the dump; for a policy the line that declares the chain.
    pub line: Option<u32>,
    /// The rule as its dump has it; for a policy `policy DROP`.
    pub text: String,
    /// Which code in the kernel runs it.
    pub backend: Backend,
    /// The kernel's handle (nf_tables).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
    /// The file or command the ruleset came from.
    pub source: String,
    /// The hook at which the walk met it.
    pub hook: Hook,
}

impl DecidedBy {
    /// The place in words: `filter INPUT rule 2`, `filter OUTPUT policy`.
    pub fn place(&self) -> String {
        let table = if matches!(self.family, Family::Ip | Family::Ip6) && self.backend == Backend::Legacy {
            self.table.clone()
        } else {
            format!("{} {}", self.family, self.table)
        };
        match self.rule {
            Some(rule) => format!("{table} {} rule {rule}", self.chain),
            None => format!("{table} {} policy", self.chain),
        }
    }
}

/// One rule that matched, or one policy that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where.
    #[serde(flatten)]
    pub at: DecidedBy,
    /// What it did: `accept`, `drop`, `reject`, `queue`, `return`, `jump NAME`, `goto NAME`,
    /// `continue`, `maybe`, `dnat`, `snat`, `masquerade`, `redirect`, `mark 0x1`, …
    pub action: String,
}

/// One way the walk can go where something is not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Branch {
    /// What must hold for this branch.
    pub given: Vec<String>,
    /// What then becomes of the packet.
    pub verdict: Verdict,
    /// What its sender is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_with: Option<String>,
    /// What then decides.
    pub decided_by: Option<DecidedBy>,
}

/// The answer to one packet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The packet's id.
    pub id: Option<serde_json::Value>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// What its sender is told, by iptables' name (`icmp-port-unreachable`, `tcp-reset`).
    pub reject_with: Option<String>,
    /// The packet that tells it, and whether the host's own rules let that leave; `None` where the
    /// kernel stays silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// The rule or policy that decided. `None` where no chain saw the packet, where something
    /// other than a rule decided ([`Outcome::reason`]), and where the branches differ.
    pub decided_by: Option<DecidedBy>,
    /// Why, where no rule is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every rule that matched and every policy reached, in the kernel's order.
    pub path: Vec<Step>,
    /// The header fields as they leave.
    pub packet_out: Packet,
    /// What the answer rests on that was not given.
    pub assumed: Vec<String>,
    /// The alternatives, where something undecidable was met.
    pub branches: Vec<Branch>,
    /// The rule that would have decided otherwise but for one field.
    pub near_miss: Option<NearMiss>,
}

/// The walk that asks every rule, and so knows the nearest miss.
const PLAIN: Mode<'_> = Mode { index: None, near: true, one_hook: false, about: None };

/// Walks the packet from its first hook to its last: prerouting → input, or prerouting → forward →
/// postrouting, or output → postrouting.
pub fn walk(stack: &Stack, packet: &Packet, facts: &Facts<'_>) -> Outcome {
    run(stack, packet, *facts, None, PLAIN).outcome()
}

/// Walks the packet as [`walk()`] does, with what the host remembers: the packet's state is that of
/// its flow, and what the packet changes is kept.
pub fn walk_with(stack: &Stack, packet: &Packet, facts: &Facts<'_>, history: Option<&mut History>) -> Outcome {
    run(stack, packet, *facts, history, PLAIN).outcome()
}

/// Walks the packet through its first hook only.
pub fn walk_hook(stack: &Stack, packet: &Packet, facts: &Facts<'_>) -> Outcome {
    run(stack, packet, *facts, None, Mode { one_hook: true, ..PLAIN }).outcome()
}
