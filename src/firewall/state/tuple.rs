//! What names one direction of a flow (`include/net/netfilter/nf_conntrack_tuple.h`).

use std::net::IpAddr;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Source port, or the identifier of an ICMP query; 0 where the protocol has none.
    pub sport: u16,
    /// Destination port, or `type << 8 | code` of an ICMP message; 0 where the protocol has none.
    pub dport: u16,
}

/// ICMP queries and their answers (`nf_conntrack_proto_icmp.c`, `invmap`).
const ICMP: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
/// The same of ICMPv6: echo and node information.
const ICMP6: [(u8, u8); 2] = [(128, 129), (139, 140)];

impl Tuple {
    /// The tuple of the answer; `None` for an ICMP message that has none.
    #[must_use]
    pub fn invert(self) -> Option<Self> {
        let swapped = Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..self };
        let pairs: &[(u8, u8)] = match self.proto {
            1 => &ICMP,
            58 => &ICMP6,
            _ => return Some(swapped),
        };
        let kind = self.icmp_type();
        let other = pairs.iter().find_map(|&(query, answer)| match kind {
            kind if kind == query => Some(answer),
            kind if kind == answer => Some(query),
            _ => None,
        })?;
        Some(Self { sport: self.sport, dport: u16::from(other) << 8 | self.dport & 0xff, ..swapped })
    }

    /// Source, protocol and source port.
    pub(crate) fn source(self) -> (IpAddr, u8, u16) {
        (self.src, self.proto, self.sport)
    }

    /// The ICMP type, where the protocol is ICMP or ICMPv6.
    pub fn icmp_type(self) -> u8 {
        (self.dport >> 8) as u8
    }

    /// Whether a message of this type can be the first of a flow: a query.
    pub fn is_icmp_query(self) -> bool {
        let pairs: &[(u8, u8)] = if self.proto == 58 { &ICMP6 } else { &ICMP };
        pairs.iter().any(|(query, _)| *query == self.icmp_type())
    }

    /// Whether the protocol has ports that NAT can change.
    pub fn has_ports(self) -> bool {
        matches!(self.proto, 6 | 17 | 33 | 132 | 136)
    }
}

/// A direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dir {
    /// As its first packet.
    Original,
    /// As the answers.
    Reply,
}

impl Dir {
    /// 0 and 1, as the kernel counts.
    pub(crate) fn index(self) -> usize {
        usize::from(self == Self::Reply)
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        if self == Self::Original { Self::Reply } else { Self::Original }
    }
}
