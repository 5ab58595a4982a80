//! The nouns of a packet filter: ruleset, table, chain, rule.
//!
//! One model holds both x_tables rules (iptables) and native nf_tables rules. [`std::fmt::Display`]
//! prints the syntax of iptables-save, which iptables-restore reads back.

mod bpf;
mod compare;
mod ext;
mod matches;
mod matches_header;
mod matches_host;
mod matches_payload;
mod set;
mod srh;
mod stateful;
mod target;
mod target_ext;
mod time;
mod values;
mod write;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::Backend;

pub use bpf::{BpfContext, BpfOp, BpfProgram};
pub use compare::{CompareOp, Comparison, Field, Operand};
pub use ext::Ext;
pub use matches::{
    AddrTypes, CtModule, CtStates, CtStatuses, CtTest, Match, Order, OwnerTest, PktType, Side, TcpFlags, Test,
    Transport,
};
pub use matches_header::{
    Chunk, ChunkMode, ChunkTest, DCCP_TYPES, EcnTest, FragTest, Ipv6HeaderTest, OptionsTest, OsfTest, RtTest, Span,
    SpiModule, SpiTest,
};
pub use matches_host::{
    CgroupTest, ClusterTest, ConnlabelTest, DevGroupTest, HelperTest, Masked, PhysdevTest, PolicyElement, PolicyTest,
    RealmTest, RpfilterTest, SocketTest,
};
pub use matches_payload::{Bits, NotGiven, Octet, StringTest, U32Op, U32Part, U32Test};
pub use set::{Element, ElementPart, Set};
pub use srh::{IpvsPart, IpvsTest, SrhPart, SrhTest, SrhValue};
pub use stateful::{ConnbytesMode, HashKey, Hashlimit, Rate, Recent, RecentOp, Stateful};
pub use target::{ConnmarkOp, NatRange, RejectWith, Target, TtlOp, VerdictMap};
pub use target_ext::{SetOp, TargetExt, TargetSet, Tproxy};
pub use time::TimeTest;
pub use values::{Iface, Net, PortRange};
pub(super) use write::quote;

/// The address family of a table (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both of IPv4 and IPv6 (nf_tables only).
    Inet,
    /// ARP packets.
    Arp,
    /// Frames through a bridge.
    Bridge,
    /// All frames of one device (nf_tables only).
    Netdev,
}

impl Family {
    /// The family's name in nft.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }

    /// Whether tables of this family see routed IP packets of the given version.
    pub fn sees(self, v6: bool) -> bool {
        match self {
            Self::Ip => !v6,
            Self::Ip6 => v6,
            Self::Inet | Self::Netdev => true,
            Self::Arp | Self::Bridge => false,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where in the stack a base chain is called (`NF_INET_*`, `NF_NETDEV_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// As the frame leaves the driver (netdev and inet families).
    Ingress,
    /// Before the routing decision.
    Prerouting,
    /// For this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing, before the device.
    Postrouting,
    /// As the frame enters the driver (netdev family).
    Egress,
}

impl Hook {
    /// The hook's name in nft and in packets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }

    /// The hook that an iptables built-in chain hangs on.
    pub fn of_builtin(chain: &str) -> Option<Self> {
        Some(match chain {
            "PREROUTING" => Self::Prerouting,
            "INPUT" => Self::Input,
            "FORWARD" => Self::Forward,
            "OUTPUT" => Self::Output,
            "POSTROUTING" => Self::Postrouting,
            _ => return None,
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One dump's tables and sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Which code in the kernel runs it.
    pub backend: Backend,
    /// Where the text came from: a file's name, `netlink`, or the command that printed it.
    pub source: String,
    /// The tables in the order of the dump.
    pub tables: Vec<Table>,
    /// Sets that belong to no table (ipset).
    pub sets: Vec<Set>,
}

impl Ruleset {
    /// A ruleset with nothing in it.
    pub fn empty(backend: Backend, source: impl Into<String>) -> Self {
        Self { backend, source: source.into(), tables: Vec::new(), sets: Vec::new() }
    }

    /// The table with this family and name.
    pub fn table(&self, family: Family, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.family == family && table.name == name)
    }

    /// The same rules without their places: lines, original text and kernel handles. Two rulesets
    /// that mean the same compare equal after this.
    #[must_use]
    pub fn without_places(mut self) -> Self {
        self.source.clear();
        for table in &mut self.tables {
            table.handle = None;
            for chain in &mut table.chains {
                chain.line = None;
                chain.handle = None;
                for rule in &mut chain.rules {
                    rule.line = None;
                    rule.handle = None;
                    rule.text.clear();
                }
            }
        }
        self
    }
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// `filter`, `nat`, …; any name for nf_tables.
    pub name: String,
    /// Its chains in the order of the dump.
    pub chains: Vec<Chain>,
    /// Named sets and maps (nf_tables).
    pub sets: Vec<Set>,
    /// The kernel's handle (nf_tables).
    pub handle: Option<u64>,
}

impl Table {
    /// A table with nothing in it.
    pub fn empty(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into(), chains: Vec::new(), sets: Vec::new(), handle: None }
    }

    /// The chain with this name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// The chain with this name, to change it.
    pub fn chain_mut(&mut self, name: &str) -> Option<&mut Chain> {
        self.chains.iter_mut().find(|chain| chain.name == name)
    }

    /// Whether its nat, mangle, … built-in chains are those of iptables: a table that `iptables`
    /// (legacy or nft) manages.
    pub fn is_iptables_shaped(&self) -> bool {
        matches!(self.family, Family::Ip | Family::Ip6)
            && matches!(self.name.as_str(), "filter" | "nat" | "mangle" | "raw" | "security")
            && self
                .chains
                .iter()
                .filter_map(|chain| Some((chain.base.as_ref()?, chain)))
                .all(|(base, chain)| Base::of_iptables(&self.name, &chain.name).is_some_and(|b| b.hook == base.hook))
    }
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// `INPUT`, or any name.
    pub name: String,
    /// Where it hangs; `None` for a user chain, which runs only when jumped to.
    pub base: Option<Base>,
    /// Its rules, first to last.
    pub rules: Vec<Rule>,
    /// The line of the dump that declares it, from 1.
    pub line: Option<u32>,
    /// The kernel's handle (nf_tables).
    pub handle: Option<u64>,
}

impl Chain {
    /// A user chain without rules.
    pub fn user(name: impl Into<String>) -> Self {
        Self { name: name.into(), base: None, rules: Vec::new(), line: None, handle: None }
    }
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// What the chain is for.
    pub kind: ChainKind,
    /// Where it is called.
    pub hook: Hook,
    /// In which order: lower first.
    pub priority: i32,
    /// What happens at its end.
    pub policy: Policy,
    /// Packets that the policy decided, where the dump says (iptables only).
    pub counters: Option<Counters>,
    /// The devices it is bound to (netdev family); empty for all.
    pub devices: Vec<String>,
}

impl Base {
    /// The built-in chain of an iptables table as this backend hooks it: iptables-nft puts its
    /// security table at 150 (iptables/nft.c, `xtables_ipv4`), behind the SNAT of INPUT.
    pub fn of_backend(backend: Backend, table: &str, chain: &str) -> Option<Self> {
        let mut base = Self::of_iptables(table, chain)?;
        if backend == Backend::Nft && table == "security" {
            base.priority = 150;
        }
        Some(base)
    }

    /// The built-in chain of an iptables table, with policy ACCEPT.
    ///
    /// Priorities: `include/uapi/linux/netfilter_ipv4.h`, `enum nf_ip_hook_priorities`.
    pub fn of_iptables(table: &str, chain: &str) -> Option<Self> {
        let hook = Hook::of_builtin(chain)?;
        let kind = match table {
            "nat" => ChainKind::Nat,
            "mangle" if hook == Hook::Output => ChainKind::Route,
            _ => ChainKind::Filter,
        };
        let priority = match (table, hook) {
            ("filter", Hook::Input | Hook::Forward | Hook::Output) => 0,
            ("security", Hook::Input | Hook::Forward | Hook::Output) => 50,
            ("mangle", _) => -150,
            ("raw", Hook::Prerouting | Hook::Output) => -300,
            ("nat", Hook::Prerouting | Hook::Output) => -100,
            ("nat", Hook::Input | Hook::Postrouting) => 100,
            _ => return None,
        };
        Some(Self { kind, hook, priority, policy: Policy::Accept, counters: None, devices: Vec::new() })
    }
}

/// The type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of each flow and translates it.
    Nat,
    /// Sees every packet and has it routed again when it changed it.
    Route,
}

/// What happens to a packet at the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It goes on to the next base chain.
    Accept,
    /// It is dropped.
    Drop,
}

/// What a rule or policy has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

/// One rule: when every match holds, its statements run and its target decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// Statements that run before the target and decide nothing (nf_tables allows several).
    pub statements: Vec<Target>,
    /// What then happens; `None` only counts.
    pub target: Option<Target>,
    /// What it has seen, where the dump says.
    pub counters: Option<Counters>,
    /// The line of the dump, from 1.
    pub line: Option<u32>,
    /// The rule as its dump has it (for nft JSON: in nft's text syntax).
    pub text: String,
    /// The kernel's handle (nf_tables).
    pub handle: Option<u64>,
}

impl Rule {
    /// The first comment on the rule.
    pub fn comment(&self) -> Option<&str> {
        self.matches.iter().find_map(|m| match &m.test {
            Test::Comment(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The parts that this program does not know, in words; such a rule may or may not match.
    pub fn unknown_parts(&self) -> Vec<String> {
        let tests = self.matches.iter().filter_map(|m| match &m.test {
            Test::Unknown { module, options } => Some(format!("match `{}`", join(module, options))),
            _ => None,
        });
        let targets = self.statements.iter().chain(&self.target).filter_map(|t| match t {
            Target::Unknown { name, options } => Some(format!("target `{}`", join(name, options))),
            _ => None,
        });
        tests.chain(targets).collect()
    }
}

/// `name options`, without a blank where one of them is empty.
fn join(name: &str, options: &str) -> String {
    format!("{name} {options}").trim().to_owned()
}
