//! What a host is: serialisable facts, and pure parsers of its files.
//!
//! Every fact can be saved and replayed. A fact that could not be read is `None`, and
//! [`HostFacts::unseen`] says why; it is never an empty list.

pub mod counters;
pub mod drops;
pub mod fib;
mod firewall;
pub mod hosts;
mod ladder;
mod link;
mod names;
pub mod nsswitch;
pub mod plain;
pub mod proxy;
pub mod remedy;
pub mod resolv;
mod route;
pub mod show;
mod socket;
pub mod sysctl;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use firewall::{Backend, DumpFormat, RulesetDump};
pub use ladder::{LadderSpec, LadderTransport, RungCount};
pub use link::{Address, AddressScope, Link, LinkStats, OperState};
pub use names::{Issue, NameFacts, TextFile};
pub use route::{Neighbour, NextHop, NudState, PolicyRule, Route, RouteAnswer, RouteKind, RouteResult, RuleAction};
pub use socket::{SocketFact, SocketOwner, SocketState, Transport};

/// The version of the [`HostFacts`] document; raised when a key changes its meaning.
pub const FACTS_SCHEMA: u32 = 1;

/// One host's (precisely: one network namespace's) snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// [`FACTS_SCHEMA`] of the program that wrote this.
    pub schema: u32,
    /// Wall clock when the snapshot began, milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at_ms: Option<u64>,
    /// `uname -n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `uname -r`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// What this process may do, and how to allow what it may not.
    pub privileges: Privileges,
    /// Network interfaces (RTM_GETLINK).
    pub links: Option<Vec<Link>>,
    /// Interface addresses, both families (RTM_GETADDR).
    pub addresses: Option<Vec<Address>>,
    /// Routes of all tables, both families (RTM_GETROUTE).
    pub routes: Option<Vec<Route>>,
    /// Policy rules, both families, in the order the kernel tries them (RTM_GETRULE).
    pub rules: Option<Vec<PolicyRule>>,
    /// The neighbour (ARP and NDP) table (RTM_GETNEIGH).
    pub neighbours: Option<Vec<Neighbour>>,
    /// TCP and UDP sockets (sock_diag).
    pub sockets: Option<Vec<SocketFact>>,
    /// The sysctls that change who can talk to whom, by dotted name: `net.ipv4.ip_forward` → `1`.
    pub sysctls: BTreeMap<String, String>,
    /// The files that decide how a name resolves here.
    pub names: NameFacts,
    /// The rulesets in force, as text in formats people know.
    pub firewall: Option<Vec<RulesetDump>>,
    /// Kernel counters (`nstat` names: `IpOutNoRoutes`, `TcpExtListenOverflows`, …).
    pub counters: BTreeMap<String, u64>,
    /// What could not be seen, why, and what would allow it.
    pub unseen: Vec<Unseen>,
}

/// A fact that could not be gathered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// The key of [`HostFacts`] (or a part of it: `firewall.iptables-legacy`).
    pub fact: String,
    /// Why not.
    pub why: String,
    /// What would allow it, as a command where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What the process that looked may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Effective user id, in its own user namespace.
    pub euid: u32,
    /// `CAP_NET_RAW` effective: raw and packet sockets.
    pub net_raw: bool,
    /// `CAP_NET_ADMIN` effective: rulesets, temporary counting chains.
    pub net_admin: bool,
    /// `CAP_SYS_ADMIN` effective: entering namespaces.
    pub sys_admin: bool,
    /// `CAP_SYS_PTRACE` or root: whose process owns a socket.
    pub sys_ptrace: bool,
    /// Whether `net.ipv4.ping_group_range` lets this process open ICMP datagram sockets.
    pub ping_socket: bool,
    /// The exact command that would grant what is missing; `None` when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
}

impl HostFacts {
    /// The link with this kernel index.
    pub fn link_by_index(&self, index: u32) -> Option<&Link> {
        self.links.as_deref()?.iter().find(|link| link.index == index)
    }

    /// The link with this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.as_deref()?.iter().find(|link| link.name == name)
    }

    /// A sysctl's value as a number, where it is known and is one.
    pub fn sysctl(&self, name: &str) -> Option<i64> {
        self.sysctls.get(name)?.trim().parse().ok()
    }
}
