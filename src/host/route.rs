//! Routes, policy rules, neighbours, and the kernel's own answer to "which way?".

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::wire::MacAddr;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// `RTN_*`: what a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Delivers it here.
    Local,
    /// Delivers it here and sends it to all.
    Broadcast,
    /// Delivers it to one of several.
    Anycast,
    /// Sends it to a group.
    Multicast,
    /// Drops it without a word.
    Blackhole,
    /// Drops it with "host unreachable".
    Unreachable,
    /// Drops it with "communication prohibited".
    Prohibit,
    /// Goes on with the next policy rule.
    Throw,
    /// Translates it (obsolete).
    Nat,
    /// A type this program has no name for.
    Other,
}

/// One route of any table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Table number: 254 main, 255 local, 253 default.
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Destination; `0.0.0.0/0` or `::/0` for a default route.
    pub destination: IpNetwork,
    /// Next hop, `None` where the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Outgoing interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Source address it suggests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Metric: lower wins among routes to one prefix.
    pub metric: u32,
    /// Who made it: `kernel`, `boot`, `static`, `dhcp`, `ra`, `bird`, or a number.
    pub protocol: String,
    /// Scope: `global`, `link`, `host`.
    pub scope: String,
    /// Path MTU pinned on it, octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Further next hops of a multipath route: (gateway, interface, weight).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub multipath: Vec<NextHop>,
    /// `RTNH_F_DEAD`: the kernel has it, and does not use it.
    #[serde(default)]
    pub dead: bool,
    /// `RTNH_F_LINKDOWN`: its link has no carrier. The kernel still uses it unless
    /// `ignore_routes_with_linkdown` is set (then it says `dead` as well).
    #[serde(default)]
    pub linkdown: bool,
    /// Only for packets from here (IPv6 subtrees, `ip -6 route add … from PREFIX`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNetwork>,
    /// Only for packets with this TOS or traffic class (the DSCP bits), 0 for all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tos: u8,
    /// RFC 4191 router preference of an IPv6 route: `low`, `medium`, `high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<String>,
    /// Id of the next hop object (`ip nexthop`) that the route names, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nexthop_id: Option<u32>,
    /// `RTNH_F_ONLINK`.
    #[serde(default)]
    pub onlink: bool,
}

/// One next hop of a multipath route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Next hop address.
    pub gateway: Option<IpAddr>,
    /// Outgoing interface.
    pub interface: Option<String>,
    /// Relative weight, from 1.
    pub weight: u32,
    /// `RTNH_F_DEAD`: not used.
    #[serde(default)]
    pub dead: bool,
    /// `RTNH_F_LINKDOWN`: its link has no carrier.
    #[serde(default)]
    pub linkdown: bool,
    /// `RTNH_F_ONLINK`: taken as on the link though no prefix says so.
    #[serde(default)]
    pub onlink: bool,
}

/// `FR_ACT_*`: what a policy rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// Looks the table up.
    Table(u32),
    /// Jumps to a rule with this priority.
    Goto(u32),
    /// Nothing.
    Nop,
    /// Drops without a word.
    Blackhole,
    /// Drops with "net unreachable".
    Unreachable,
    /// Drops with "prohibited".
    Prohibit,
}

/// One policy rule (`ip rule`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Priority: lower is tried first.
    pub priority: u32,
    /// `true` for IPv6.
    pub v6: bool,
    /// Inverts the selector.
    #[serde(default)]
    pub not: bool,
    /// `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNetwork>,
    /// `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpNetwork>,
    /// `iif`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// `oif`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oif: Option<String>,
    /// `fwmark` as (value, mask).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<(u32, u32)>,
    /// `tos` / `dsfield`, 0 for all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tos: u8,
    /// `ipproto`: IP protocol number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipproto: Option<u8>,
    /// `sport`: first and last source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<(u16, u16)>,
    /// `dport`: first and last destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<(u16, u16)>,
    /// `uidrange`: first and last user id of the sending process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<(u32, u32)>,
    /// The interface it names does not exist now, so it applies to nothing.
    #[serde(default)]
    pub detached: bool,
    /// `suppress_prefixlength`: an answer with a prefix this short or shorter does not count, and the
    /// next rule is tried (0: the default route of that table is not taken).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress_prefix_len: Option<u32>,
    /// What it does.
    pub action: RuleAction,
    /// Selectors of a kind this program does not model, in words: the rule may or may not apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_selectors: Vec<String>,
}

impl PolicyRule {
    /// A rule for all packets of a family.
    pub fn for_all(priority: u32, v6: bool, action: RuleAction) -> Self {
        Self {
            priority,
            v6,
            not: false,
            from: None,
            to: None,
            iif: None,
            oif: None,
            fwmark: None,
            tos: 0,
            ipproto: None,
            sport: None,
            dport: None,
            uid: None,
            detached: false,
            suppress_prefix_len: None,
            action,
            other_selectors: Vec::new(),
        }
    }

    /// The rules that every namespace begins with (`net/ipv4/fib_rules.c` fib_default_rules_init).
    pub fn builtin(v6: bool) -> Vec<Self> {
        let tables: &[(u32, u32)] =
            if v6 { &[(0, 255), (32766, 254)] } else { &[(0, 255), (32766, 254), (32767, 253)] };
        tables.iter().map(|(priority, table)| Self::for_all(*priority, v6, RuleAction::Table(*table))).collect()
    }
}

/// `NUD_*`: what the kernel believes of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NudState {
    /// Being asked for, no answer yet.
    Incomplete,
    /// Answered lately.
    Reachable,
    /// Answered once; will be checked when used.
    Stale,
    /// Used while stale, about to be probed.
    Delay,
    /// Being probed by unicast.
    Probe,
    /// Did not answer.
    Failed,
    /// This link needs no neighbour addresses.
    Noarp,
    /// Set by hand; the kernel never asks.
    Permanent,
    /// No state.
    None,
}

/// One entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its interface.
    pub interface: String,
    /// Its network address.
    pub address: IpAddr,
    /// Its hardware address, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// What the kernel believes.
    pub state: NudState,
    /// `NTF_ROUTER` (v6).
    #[serde(default)]
    pub router: bool,
    /// `NTF_PROXY`: an address this host answers for on another's behalf.
    #[serde(default)]
    pub proxy: bool,
}

/// The kernel's own answer to `ip route get`: the truth that tables and rules only explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAnswer {
    /// The address asked for.
    pub destination: IpAddr,
    /// The source address asked with, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_from: Option<IpAddr>,
    /// What the kernel said.
    #[serde(flatten)]
    pub result: RouteResult,
}

/// The two ways the kernel answers a route question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "answer")]
pub enum RouteResult {
    /// A way was found.
    Found {
        /// The kind of the route used.
        kind: RouteKind,
        /// Next hop, `None` where the destination is on the link.
        gateway: Option<IpAddr>,
        /// Outgoing interface.
        interface: Option<String>,
        /// Source address the kernel would take.
        source: Option<IpAddr>,
        /// Table the route came from.
        table: Option<u32>,
        /// Path MTU the kernel has learnt or been given, octets.
        mtu: Option<u32>,
    },
    /// No way, with the errno by its name: `ENETUNREACH`, `EHOSTUNREACH`, `EACCES`, `EINVAL`.
    Refused {
        /// The errno's name.
        errno: String,
    },
}
