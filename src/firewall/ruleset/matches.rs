//! What a rule asks of a packet.

use std::net::IpAddr;

use crate::wire::MacAddr;

use super::compare::Comparison;
use super::ext::Ext;
use super::stateful::Stateful;
use super::values::{Iface, Net, PortRange};

/// One test with its negation (`! -s …`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Holds where the test does not.
    pub negated: bool,
    /// The test.
    pub test: Test,
}

impl Match {
    /// A test that must hold.
    pub fn is(test: Test) -> Self {
        Self { negated: false, test }
    }

    /// A test that must hold, or must not.
    pub fn new(negated: bool, test: Test) -> Self {
        Self { negated, test }
    }
}

/// One test.
///
/// Options of one iptables module are tests of their own, all of which must hold, except those of
/// conntrack, which interact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// `-s`
    Source(Net),
    /// `-d`
    Destination(Net),
    /// `-i`
    InInterface(Iface),
    /// `-o`
    OutInterface(Iface),
    /// `-p`; IANA protocol number, 0 (any) is never stored.
    Protocol(u8),
    /// `-f`: a second or later fragment.
    Fragment,
    /// `-m tcp` (udp, icmp, …) without options: the header is there and whole.
    Header(Transport),
    /// `-m tcp --sport`, `-m udp --dport`, …
    Port {
        /// The module that asks.
        module: Transport,
        /// Source or destination.
        side: Side,
        /// The ports.
        range: PortRange,
    },
    /// `-m tcp --tcp-flags`: of `mask`, exactly `set`.
    TcpFlags {
        /// The flags looked at.
        mask: TcpFlags,
        /// Those that must be set among them.
        set: TcpFlags,
    },
    /// `-m tcp --tcp-option`
    TcpOption(u8),
    /// `-m icmp --icmp-type`, `-m icmp6 --icmpv6-type`.
    Icmp {
        /// ICMPv6.
        v6: bool,
        /// The type; `None` for any.
        kind: Option<u8>,
        /// First and last code.
        codes: (u8, u8),
    },
    /// `-m multiport`
    Multiport {
        /// Which port.
        side: Side,
        /// One of these.
        ranges: Vec<PortRange>,
    },
    /// `-m conntrack`, `-m state`; each with its own negation.
    Conntrack {
        /// The module it was written with.
        module: CtModule,
        /// The tests.
        tests: Vec<(bool, CtTest)>,
    },
    /// `-m mark --mark`
    Mark {
        /// What the masked mark must be.
        value: u32,
        /// The bits looked at.
        mask: u32,
    },
    /// `-m connmark --mark`
    Connmark {
        /// What the masked mark must be.
        value: u32,
        /// The bits looked at.
        mask: u32,
    },
    /// `-m comment`: always holds.
    Comment(String),
    /// `-m iprange`
    IpRange {
        /// Which address.
        side: Side,
        /// First, included.
        from: IpAddr,
        /// Last, included.
        to: IpAddr,
    },
    /// `-m mac --mac-source`
    Mac(MacAddr),
    /// `-m addrtype`
    AddrType {
        /// Which address.
        side: Side,
        /// One of these.
        types: AddrTypes,
        /// `--limit-iface-in` (`Source`) or `--limit-iface-out` (`Destination`).
        limit_iface: Option<Side>,
    },
    /// `-m owner`
    Owner(OwnerTest),
    /// `-m length`: of the IP packet, octets.
    Length {
        /// First, included.
        from: u16,
        /// Last, included.
        to: u16,
    },
    /// `-m ttl`, `-m hl`
    Ttl {
        /// Hop limit (IPv6).
        v6: bool,
        /// How to compare.
        order: Order,
        /// With what.
        value: u8,
    },
    /// `-m tos --tos`
    Tos {
        /// What the masked octet must be.
        value: u8,
        /// The bits looked at.
        mask: u8,
    },
    /// `-m dscp --dscp`
    Dscp(u8),
    /// `-m pkttype`
    PktType(PktType),
    /// `-m set --match-set`
    Set {
        /// The set's name.
        name: String,
        /// `src`/`dst` for each dimension.
        sides: Vec<Side>,
        /// Further options, verbatim; they may make the match undecidable.
        options: String,
    },
    /// limit, hashlimit, recent, statistic, time, quota, connlimit, …: rests on chance, time or
    /// history.
    Stateful {
        /// The module.
        module: String,
        /// Its options, verbatim.
        options: String,
    },
    /// One of the rarer modules, with its options.
    Ext(Ext),
    /// A native nf_tables comparison.
    Compare(Comparison),
    /// A test this program does not know: the rule may or may not match.
    Unknown {
        /// The module; empty for a core option whose value could not be read.
        module: String,
        /// Its options, verbatim.
        options: String,
    },
}

impl Test {
    /// The iptables module that carries this test; `None` for core tests and native ones.
    pub fn module(&self) -> Option<&str> {
        Some(match self {
            Self::Source(_)
            | Self::Destination(_)
            | Self::InInterface(_)
            | Self::OutInterface(_)
            | Self::Protocol(_)
            | Self::Fragment
            | Self::Compare(_) => return None,
            Self::Header(module) | Self::Port { module, .. } => module.module(),
            Self::TcpFlags { .. } | Self::TcpOption(_) => "tcp",
            Self::Icmp { v6: false, .. } => "icmp",
            Self::Icmp { v6: true, .. } => "icmp6",
            Self::Multiport { .. } => "multiport",
            Self::Conntrack { module: CtModule::State, .. } => "state",
            Self::Conntrack { module: CtModule::Conntrack, .. } => "conntrack",
            Self::Mark { .. } => "mark",
            Self::Connmark { .. } => "connmark",
            Self::Comment(_) => "comment",
            Self::IpRange { .. } => "iprange",
            Self::Mac(_) => "mac",
            Self::AddrType { .. } => "addrtype",
            Self::Owner(_) => "owner",
            Self::Length { .. } => "length",
            Self::Ttl { v6: false, .. } => "ttl",
            Self::Ttl { v6: true, .. } => "hl",
            Self::Tos { .. } => "tos",
            Self::Dscp(_) => "dscp",
            Self::PktType(_) => "pkttype",
            Self::Set { .. } => "set",
            Self::Stateful { module, .. } => module,
            Self::Ext(ext) => ext.module(),
            Self::Unknown { module, .. } => return Some(module.as_str()).filter(|m| !m.is_empty()),
        })
    }
}

impl Test {
    /// The parameters of a test on history or chance; `None` for other tests, and where the options
    /// cannot be read.
    pub fn stateful(&self) -> Option<Stateful> {
        match self {
            Self::Stateful { module, options } => Stateful::read(module, options).ok(),
            _ => None,
        }
    }

    /// Whether it goes under the `-m` of the test before it, which is of the same module.
    pub(super) fn shares_module(&self, before: &Self) -> bool {
        match (before, self) {
            (_, Self::Port { .. } | Self::TcpFlags { .. } | Self::TcpOption(_))
            | (Self::IpRange { side: Side::Source, .. }, Self::IpRange { side: Side::Destination, .. })
            | (
                Self::AddrType { side: Side::Source, limit_iface: None, .. },
                Self::AddrType { side: Side::Destination, limit_iface: None, .. },
            )
            | (Self::Owner(OwnerTest::Uid(..)), Self::Owner(OwnerTest::Gid(..)) | Self::Ext(Ext::Groups(..))) => true,
            (_, Self::Ext(ext)) => ext.is_one_option(),
            _ => false,
        }
    }
}

/// Which of a packet's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
    /// One or the other (multiport `--ports`).
    Either,
}

/// A protocol whose header an iptables module reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `-m tcp`
    Tcp,
    /// `-m udp`
    Udp,
    /// `-m udplite`
    UdpLite,
    /// `-m sctp`
    Sctp,
    /// `-m dccp`
    Dccp,
    /// `-m icmp`
    Icmp,
    /// `-m icmp6`
    Icmp6,
}

impl Transport {
    /// The module's name.
    pub fn module(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Sctp => "sctp",
            Self::Dccp => "dccp",
            Self::Icmp => "icmp",
            Self::Icmp6 => "icmp6",
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::UdpLite => 136,
            Self::Sctp => 132,
            Self::Dccp => 33,
            Self::Icmp => 1,
            Self::Icmp6 => 58,
        }
    }

    /// The module with this name.
    pub fn of_module(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::UdpLite, Self::Sctp, Self::Dccp, Self::Icmp, Self::Icmp6]
            .into_iter()
            .find(|t| t.module() == name)
    }
}

/// A set of TCP flags, bits as in the header (FIN is bit 0).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: Self = Self(0x01);
    /// SYN.
    pub const SYN: Self = Self(0x02);
    /// RST.
    pub const RST: Self = Self(0x04);
    /// PSH.
    pub const PSH: Self = Self(0x08);
    /// ACK.
    pub const ACK: Self = Self(0x10);
    /// URG.
    pub const URG: Self = Self(0x20);
    /// ECE (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// CWR (RFC 3168).
    pub const CWR: Self = Self(0x80);
    /// Names in the order of iptables-save.
    pub const NAMES: [(&'static str, u8); 6] =
        [("FIN", 0x01), ("SYN", 0x02), ("RST", 0x04), ("PSH", 0x08), ("ACK", 0x10), ("URG", 0x20)];

    /// `a,b` as iptables writes them; `NONE` for none.
    pub fn names(self) -> String {
        let names: Vec<_> = Self::NAMES.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(name, _)| *name).collect();
        if names.is_empty() { "NONE".to_owned() } else { names.join(",") }
    }
}

/// Which module a conntrack test was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtModule {
    /// `-m state`
    State,
    /// `-m conntrack`
    Conntrack,
}

/// One option of `-m conntrack`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CtTest {
    /// `--ctstate`, `--state`
    State(CtStates),
    /// `--ctstatus`
    Status(CtStatuses),
    /// `--ctproto`
    Proto(u8),
    /// `--ctorigsrc`, `--ctorigdst`, `--ctreplsrc`, `--ctrepldst`
    Addr {
        /// Of the reply direction.
        reply: bool,
        /// Which address.
        side: Side,
        /// Where it must be.
        net: Net,
    },
    /// `--ctorigsrcport` …
    Port {
        /// Of the reply direction.
        reply: bool,
        /// Which port.
        side: Side,
        /// Where it must be.
        range: PortRange,
    },
    /// `--ctdir`: `true` for REPLY.
    Direction(bool),
    /// `--ctexpire`, verbatim.
    Expire(String),
}

/// A set of conntrack states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CtStates(pub u8);

impl CtStates {
    /// No flow this packet could belong to.
    pub const INVALID: Self = Self(0x01);
    /// Of a flow that has seen packets both ways.
    pub const ESTABLISHED: Self = Self(0x02);
    /// Of a flow that another flow expects or caused.
    pub const RELATED: Self = Self(0x04);
    /// Of a flow that has seen packets one way only.
    pub const NEW: Self = Self(0x08);
    /// Not tracked on purpose.
    pub const UNTRACKED: Self = Self(0x10);
    /// Of a flow whose source is translated.
    pub const SNAT: Self = Self(0x20);
    /// Of a flow whose destination is translated.
    pub const DNAT: Self = Self(0x40);
    /// Names in the order of iptables-save.
    pub const NAMES: [(&'static str, u8); 7] = [
        ("INVALID", 0x01),
        ("NEW", 0x08),
        ("RELATED", 0x04),
        ("ESTABLISHED", 0x02),
        ("UNTRACKED", 0x10),
        ("SNAT", 0x20),
        ("DNAT", 0x40),
    ];

    /// Whether the two sets share a state.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// `A,B` in the order of iptables-save.
    pub fn names(self) -> String {
        let names: Vec<_> = Self::NAMES.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(name, _)| *name).collect();
        names.join(",")
    }
}

/// A set of conntrack statuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CtStatuses(pub u8);

impl CtStatuses {
    /// Names in the order of iptables-save; NONE is no bit at all.
    pub const NAMES: [(&'static str, u8); 4] =
        [("EXPECTED", 0x01), ("SEEN_REPLY", 0x02), ("ASSURED", 0x04), ("CONFIRMED", 0x08)];

    /// `A,B`; `NONE` for none.
    pub fn names(self) -> String {
        let names: Vec<_> = Self::NAMES.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(name, _)| *name).collect();
        if names.is_empty() { "NONE".to_owned() } else { names.join(",") }
    }
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Equal.
    Eq,
    /// Less.
    Lt,
    /// Greater.
    Gt,
}

/// Whose socket a packet of this host comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerTest {
    /// `--uid-owner`, first and last.
    Uid(u32, u32),
    /// `--gid-owner`, first and last.
    Gid(u32, u32),
    /// `--socket-exists`
    SocketExists,
}

/// Who a frame was for (`PACKET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PktType {
    /// This host.
    Unicast,
    /// Everyone.
    Broadcast,
    /// A group.
    Multicast,
}

impl PktType {
    /// The name in iptables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
        }
    }
}

/// A set of address types, bit n for `RTN_*` n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddrTypes(pub u16);

impl AddrTypes {
    /// An address of this host.
    pub const LOCAL: Self = Self(1 << 2);

    /// Names, `RTN_UNSPEC` first.
    pub const NAMES: [&'static str; 12] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
        "NAT",
        "XRESOLVE",
    ];

    /// `A,B`.
    pub fn names(self) -> String {
        let names: Vec<_> =
            Self::NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name).collect();
        names.join(",")
    }
}
