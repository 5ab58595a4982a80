//! Native nf_tables comparisons: a field, an operator, operands.

use std::net::IpAddr;

use super::values::Net;

/// What nf_tables loads into a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `ip saddr`, `ip6 saddr`.
    Saddr {
        /// Of IPv6.
        v6: bool,
    },
    /// `ip daddr`, `ip6 daddr`.
    Daddr {
        /// Of IPv6.
        v6: bool,
    },
    /// `ip protocol` (false), `ip6 nexthdr` (true): the number in the fixed header.
    Protocol {
        /// Of IPv6.
        v6: bool,
    },
    /// `meta l4proto`
    L4Proto,
    /// `meta nfproto`: 2 for IPv4, 10 for IPv6.
    NfProto,
    /// `meta protocol`, `ether type`: 0x0800, 0x86dd.
    EtherType,
    /// `tcp sport`, `udp sport`, `th sport`: with the protocol the header must have.
    Sport(Option<u8>),
    /// `tcp dport`, `udp dport`, `th dport`.
    Dport(Option<u8>),
    /// `tcp flags`
    TcpFlags,
    /// `icmp type` (false), `icmpv6 type` (true).
    IcmpType {
        /// ICMPv6.
        v6: bool,
    },
    /// `icmp code` (false), `icmpv6 code` (true).
    IcmpCode {
        /// ICMPv6.
        v6: bool,
    },
    /// `meta iifname`, `meta iif`
    Iifname,
    /// `meta oifname`, `meta oif`
    Oifname,
    /// `meta mark`
    Mark,
    /// `ct mark`
    CtMark,
    /// `ct state`
    CtState,
    /// `ct status`
    CtStatus,
    /// `ct direction`
    CtDirection,
    /// `ip ttl`, `ip6 hoplimit`
    Ttl,
    /// `ip dscp`, `ip6 dscp`
    Dscp,
    /// `meta length`, octets of the packet.
    Length,
    /// `meta skuid`
    Skuid,
    /// `meta skgid`
    Skgid,
    /// `meta pkttype`
    PktType,
    /// `ether saddr`
    EtherSaddr,
    /// `fib daddr type` (true) or `fib saddr type` (false).
    FibType {
        /// Of the destination.
        destination: bool,
    },
    /// Anything else, in nft's words.
    Other(String),
}

impl Field {
    /// The field in nft's words.
    pub fn name(&self) -> String {
        let ip = |v6: &bool| if *v6 { "ip6" } else { "ip" };
        let th = |proto: &Option<u8>| match proto {
            Some(6) => "tcp".to_owned(),
            Some(17) => "udp".to_owned(),
            Some(132) => "sctp".to_owned(),
            Some(33) => "dccp".to_owned(),
            Some(136) => "udplite".to_owned(),
            _ => "th".to_owned(),
        };
        match self {
            Self::Saddr { v6 } => format!("{} saddr", ip(v6)),
            Self::Daddr { v6 } => format!("{} daddr", ip(v6)),
            Self::Protocol { v6: false } => "ip protocol".into(),
            Self::Protocol { v6: true } => "ip6 nexthdr".into(),
            Self::L4Proto => "meta l4proto".into(),
            Self::NfProto => "meta nfproto".into(),
            Self::EtherType => "meta protocol".into(),
            Self::Sport(p) => format!("{} sport", th(p)),
            Self::Dport(p) => format!("{} dport", th(p)),
            Self::TcpFlags => "tcp flags".into(),
            Self::IcmpType { v6 } => format!("{} type", if *v6 { "icmpv6" } else { "icmp" }),
            Self::IcmpCode { v6 } => format!("{} code", if *v6 { "icmpv6" } else { "icmp" }),
            Self::Iifname => "iifname".into(),
            Self::Oifname => "oifname".into(),
            Self::Mark => "meta mark".into(),
            Self::CtMark => "ct mark".into(),
            Self::CtState => "ct state".into(),
            Self::CtStatus => "ct status".into(),
            Self::CtDirection => "ct direction".into(),
            Self::Ttl => "ip ttl".into(),
            Self::Dscp => "ip dscp".into(),
            Self::Length => "meta length".into(),
            Self::Skuid => "meta skuid".into(),
            Self::Skgid => "meta skgid".into(),
            Self::PktType => "meta pkttype".into(),
            Self::EtherSaddr => "ether saddr".into(),
            Self::FibType { destination: true } => "fib daddr type".into(),
            Self::FibType { destination: false } => "fib saddr type".into(),
            Self::Other(text) => text.clone(),
        }
    }

    /// Whether the field holds flags, so that a plain comparison tests for one of them.
    pub fn is_flags(&self) -> bool {
        matches!(self, Self::TcpFlags | Self::CtState | Self::CtStatus)
    }
}

/// How the field is compared. Negation is the match's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// Is one of the operands.
    Eq,
    /// Has one of these flags set.
    Flags,
    /// Less.
    Lt,
    /// Greater.
    Gt,
    /// Less or equal.
    Le,
    /// Greater or equal.
    Ge,
}

/// One value, or several, to compare with. Numbers in host order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// A number.
    Number(u64),
    /// Numbers from and to, both included.
    NumberRange(u64, u64),
    /// Addresses from and to, both included.
    AddrRange(IpAddr, IpAddr),
    /// An address, of which some bits are looked at.
    AddrMasked(Net),
    /// A name, or the beginning of one where it ends with `*`.
    Name(String),
    /// A named set of the table.
    Set(String),
    /// Everything (`*`, the map's default).
    Any,
    /// Something this program does not know, in nft's words.
    Unknown(String),
}

/// `field op operands`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The fields; several where they are concatenated.
    pub fields: Vec<Field>,
    /// The bits of the (one) field looked at; `None` for all.
    pub mask: Option<u64>,
    /// How.
    pub op: CompareOp,
    /// With what: one of these, each with a part for each field.
    pub operands: Vec<Vec<Operand>>,
}

impl Comparison {
    /// Whether it only asks for an interface or a protocol, which many packets share.
    pub(in crate::firewall) fn is_weak(&self) -> bool {
        use Field::{EtherType, Iifname, L4Proto, NfProto, Oifname, Protocol};
        let weak = |f: &Field| matches!(f, Iifname | Oifname | L4Proto | NfProto | EtherType | Protocol { .. });
        self.fields.iter().all(weak)
    }
}
