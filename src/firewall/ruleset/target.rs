//! What a rule does with a packet.

use std::net::IpAddr;

use super::compare::{Field, Operand};
use super::target_ext::TargetExt;
use super::values::{Net, PortRange};

/// What a rule does with a packet that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Ends this base chain; the packet goes on to the next.
    Accept,
    /// Ends the packet.
    Drop,
    /// Ends the packet and tells its sender.
    Reject(RejectWith),
    /// Goes back to the caller, or to the policy.
    Return,
    /// `-j CHAIN`: runs the chain and comes back.
    Jump(String),
    /// `-g CHAIN`: runs the chain and comes back to this chain's caller.
    Goto(String),
    /// QUEUE, NFQUEUE: hands the packet to a program.
    Queue {
        /// The queue's number.
        number: u16,
        /// `--queue-bypass`: accept where no program listens.
        bypass: bool,
        /// The options, verbatim.
        options: String,
    },
    /// LOG: counts and goes on.
    Log {
        /// The options, verbatim.
        options: String,
    },
    /// NFLOG: counts and goes on.
    Nflog {
        /// The options, verbatim.
        options: String,
    },
    /// MARK: `mark = (mark & !mask) ^ value`.
    Mark {
        /// The bits to flip in after clearing.
        value: u32,
        /// The bits to clear.
        mask: u32,
    },
    /// CONNMARK.
    Connmark(ConnmarkOp),
    /// NOTRACK, `CT --notrack`: the packet belongs to no flow.
    Notrack,
    /// CT with any other option: zone, helper, events, timeout.
    Ct {
        /// The options, verbatim.
        options: String,
    },
    /// DNAT: another destination for this packet and its flow.
    Dnat(NatRange),
    /// SNAT: another source for this packet and its flow.
    Snat(NatRange),
    /// MASQUERADE: the outgoing interface's address as source.
    Masquerade(NatRange),
    /// REDIRECT: this host as destination.
    Redirect(NatRange),
    /// NETMAP: another network, host bits kept.
    Netmap(Net),
    /// TCPMSS: `None` for `--clamp-mss-to-pmtu`.
    Tcpmss(Option<u16>),
    /// TTL, HL.
    Ttl {
        /// Hop limit (IPv6).
        v6: bool,
        /// How.
        op: TtlOp,
        /// By or to what.
        value: u8,
    },
    /// TOS, DSCP: `tos = (tos & !mask) ^ value`.
    Tos {
        /// The bits to flip in after clearing.
        value: u8,
        /// The bits to clear.
        mask: u8,
        /// The target was written DSCP.
        dscp: bool,
    },
    /// Another target known to decide nothing (CHECKSUM, CLASSIFY, TRACE, AUDIT, …).
    Continue {
        /// The target.
        name: String,
        /// The options, verbatim.
        options: String,
    },
    /// One of the rarer targets that change or keep the packet.
    Ext(TargetExt),
    /// A native verdict map: the field's value picks the verdict; no element means no verdict.
    VerdictMap(VerdictMap),
    /// A target this program does not know: it may decide or not.
    Unknown {
        /// The target.
        name: String,
        /// The options, verbatim.
        options: String,
    },
}

impl Target {
    /// Whether the walk goes on after it with nothing changed that a later rule can see.
    pub fn only_observes(&self) -> bool {
        matches!(
            self,
            Self::Log { .. }
                | Self::Nflog { .. }
                | Self::Continue { .. }
                | Self::Ct { .. }
                | Self::Ext(TargetExt::Set(_))
        )
    }

    /// Whether it always ends the base chain.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Accept
                | Self::Drop
                | Self::Reject(_)
                | Self::Queue { .. }
                | Self::Dnat(_)
                | Self::Snat(_)
                | Self::Masquerade(_)
                | Self::Redirect(_)
                | Self::Netmap(_)
                | Self::Ext(TargetExt::Tproxy(_))
        )
    }
}

/// What a rejected packet's sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectWith {
    /// ICMP type 3 with this code.
    Icmp(u8),
    /// ICMPv6 type 1 with this code.
    Icmp6(u8),
    /// nft's `icmpx`: ICMP or ICMPv6 by the packet, the code by name.
    Icmpx(u8),
    /// A TCP segment with RST.
    TcpReset,
}

impl RejectWith {
    const V4: [(&'static str, u8); 7] = [
        ("icmp-net-unreachable", 0),
        ("icmp-host-unreachable", 1),
        ("icmp-proto-unreachable", 2),
        ("icmp-port-unreachable", 3),
        ("icmp-net-prohibited", 9),
        ("icmp-host-prohibited", 10),
        ("icmp-admin-prohibited", 13),
    ];
    const V6: [(&'static str, u8); 6] = [
        ("icmp6-no-route", 0),
        ("icmp6-adm-prohibited", 1),
        ("icmp6-addr-unreachable", 3),
        ("icmp6-port-unreachable", 4),
        ("icmp6-policy-fail", 5),
        ("icmp6-reject-route", 6),
    ];

    const OTHER_V4: [&'static str; 7] =
        ["net-unreach", "host-unreach", "proto-unreach", "port-unreach", "net-prohib", "host-prohib", "admin-prohib"];
    const OTHER_V6: [&'static str; 6] =
        ["no-route", "adm-prohibited", "addr-unreach", "port-unreach", "policy-fail", "reject-route"];

    /// The name in iptables; for `icmpx` the one that IPv4 packets get.
    pub fn name(self) -> String {
        let find = |table: &[(&str, u8)], code| table.iter().find(|(_, c)| *c == code).map(|(n, _)| (*n).to_owned());
        match self {
            Self::Icmp(code) => find(&Self::V4, code).unwrap_or_else(|| format!("icmp-code-{code}")),
            Self::Icmp6(code) => find(&Self::V6, code).unwrap_or_else(|| format!("icmp6-code-{code}")),
            Self::Icmpx(code) => Self::Icmpx(code).for_packet(false).name(),
            Self::TcpReset => "tcp-reset".to_owned(),
        }
    }

    /// `icmpx` as the packet's own family has it (`nft_reject_icmp_code`).
    #[must_use]
    pub fn for_packet(self, v6: bool) -> Self {
        match (self, v6) {
            // NFT_REJECT_ICMPX_{NO_ROUTE, PORT_UNREACH, HOST_UNREACH, ADMIN_PROHIBITED}
            (Self::Icmpx(code), false) => Self::Icmp(match code {
                0 => 0,
                2 => 1,
                3 => 13,
                _ => 3,
            }),
            (Self::Icmpx(code), true) => Self::Icmp6(match code {
                0 => 0,
                2 => 3,
                3 => 1,
                _ => 4,
            }),
            (other, _) => other,
        }
    }

    /// The value of `--reject-with`, with the older and the shorter names.
    pub fn of_name(name: &str, v6: bool) -> Option<Self> {
        // The beginning of a name or of its other name, in either case, the first in the table
        // (`libipt_REJECT.c`, `libip6t_REJECT.c`: strncasecmp by the argument's length).
        let begins = |full: &str| full.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        let exact = |full: &str| full.eq_ignore_ascii_case(name);
        if name.is_empty() {
            return None;
        }
        let (names, others): (&[(&str, u8)], &[&str]) =
            if v6 { (&Self::V6, &Self::OTHER_V6) } else { (&Self::V4, &Self::OTHER_V4) };
        let code = |fits: &dyn Fn(&str) -> bool| {
            let found = names.iter().zip(others).find(|((full, _), other)| fits(full) || fits(other));
            found.map(|((_, code), _)| if v6 { Self::Icmp6(*code) } else { Self::Icmp(*code) })
        };
        let reset = |fits: &dyn Fn(&str) -> bool| (fits("tcp-reset") || fits("tcp-rst")).then_some(Self::TcpReset);
        code(&exact).or_else(|| reset(&exact)).or_else(|| code(&begins)).or_else(|| reset(&begins))
    }
}

/// What CONNMARK does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnmarkOp {
    /// `--set-xmark`: `connmark = (connmark & !mask) ^ value`.
    Set {
        /// The bits to flip in after clearing.
        value: u32,
        /// The bits to clear.
        mask: u32,
    },
    /// `--save-mark`: `connmark = (connmark & !ctmask) ^ (mark & nfmask)`.
    Save {
        /// Bits of the packet mark used.
        nfmask: u32,
        /// Bits of the connection mark replaced.
        ctmask: u32,
    },
    /// `--restore-mark`: `mark = (mark & !nfmask) ^ (connmark & ctmask)`.
    Restore {
        /// Bits of the packet mark replaced.
        nfmask: u32,
        /// Bits of the connection mark used.
        ctmask: u32,
    },
}

/// Where NAT leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NatRange {
    /// First and last address; `None` keeps it, or takes the interface's.
    pub addrs: Option<(IpAddr, IpAddr)>,
    /// Ports; `None` keeps them where possible.
    pub ports: Option<PortRange>,
    /// The port that the range's first is for; the others follow (`--to-destination A:P-Q/BASE`).
    pub base: Option<u16>,
    /// Flags, verbatim (`--random --persistent`).
    pub flags: String,
}

/// How TTL and HL change the hop count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtlOp {
    /// `--ttl-set`
    Set,
    /// `--ttl-inc`
    Inc,
    /// `--ttl-dec`
    Dec,
}

/// A native verdict map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictMap {
    /// The fields looked up, concatenated.
    pub key: Vec<Field>,
    /// The elements: key parts and the verdict.
    pub elements: Vec<(Vec<Operand>, Target)>,
    /// The name of a map of the table, where it is not anonymous; its elements are in the table.
    pub name: Option<String>,
}
