//! A filter against a packet.

use std::net::IpAddr;

use super::{Base, Direction, Operator, Proto, Relation, Sum, Test};
use crate::wire::capture::RawPacket;
use crate::wire::{NetworkLayer, ethertype, network_layer, protocol};

/// The parts of a packet that filters ask for.
struct Parts<'a> {
    packet: &'a RawPacket<'a>,
    network: Option<NetworkLayer<'a>>,
    ends: Option<(IpAddr, IpAddr)>,
    /// Protocol and its octets; none for a later fragment.
    transport: Option<(u8, &'a [u8])>,
    /// Protocol number, of later fragments too.
    number: Option<u8>,
}

pub(super) fn matches(test: &Test, packet: &RawPacket<'_>) -> bool {
    holds(test, &Parts::new(packet))
}

impl<'a> Parts<'a> {
    fn new(packet: &'a RawPacket<'a>) -> Self {
        let network = network_layer(packet);
        let mut parts = Self { packet, network, ends: None, transport: None, number: None };
        match parts.network {
            Some(NetworkLayer { kind: ethertype::IPV4, bytes, .. }) => parts.ipv4(bytes),
            Some(NetworkLayer { kind: ethertype::IPV6, bytes, .. }) => parts.ipv6(bytes),
            _ => {}
        }
        parts
    }

    fn ipv4(&mut self, bytes: &'a [u8]) {
        let Some(header) = bytes.first_chunk::<20>() else { return };
        let address = |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        self.ends = Some((address(12), address(16)));
        self.number = Some(header[9]);
        let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
        if !later && let Some(rest) = bytes.get(usize::from(header[0] & 15) * 4..) {
            self.transport = Some((header[9], rest));
        }
    }

    fn ipv6(&mut self, bytes: &'a [u8]) {
        let Some(header) = bytes.first_chunk::<40>() else { return };
        let address = |at: usize| {
            let octets: [u8; 16] = header[at..at + 16].try_into().unwrap_or_default();
            IpAddr::from(octets)
        };
        self.ends = Some((address(8), address(24)));
        let (mut number, mut rest) = (header[6], &bytes[40..]);
        let mut later = false;
        while matches!(number, 0 | 43 | 44 | 60) {
            let Some(fixed) = rest.first_chunk::<8>() else { return };
            let length = if number == 44 { 8 } else { (usize::from(fixed[1]) + 1) * 8 };
            later |= number == 44 && u16::from_be_bytes([fixed[2], fixed[3]]) & 0xfff8 != 0;
            number = fixed[0];
            let Some(after) = rest.get(length..) else { return };
            rest = after;
            if later {
                break;
            }
        }
        self.number = Some(number);
        if !later {
            self.transport = Some((number, rest));
        }
    }

    fn is(&self, proto: Proto) -> bool {
        let kind = self.network.map(|network| network.kind);
        match proto {
            Proto::Ip => kind == Some(ethertype::IPV4),
            Proto::Ip6 => kind == Some(ethertype::IPV6),
            Proto::Arp => kind == Some(ethertype::ARP),
            Proto::Tcp => self.number == Some(protocol::TCP),
            Proto::Udp => self.number == Some(protocol::UDP),
            Proto::Icmp => self.number == Some(protocol::ICMP) && kind == Some(ethertype::IPV4),
            Proto::Icmp6 => self.number == Some(protocol::ICMPV6) && kind == Some(ethertype::IPV6),
            Proto::Number(number) => self.number == Some(number),
        }
    }

    fn ports(&self) -> Option<(u16, u16)> {
        let (number, bytes) = self.transport?;
        // TCP, UDP, SCTP.
        if !matches!(number, 6 | 17 | 132) {
            return None;
        }
        let fixed = bytes.first_chunk::<4>()?;
        Some((u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[2], fixed[3]])))
    }
}

fn directed<T>(direction: Direction, ends: Option<(T, T)>, fits: impl Fn(T) -> bool) -> bool {
    let Some((src, dst)) = ends else { return false };
    match direction {
        Direction::Src => fits(src),
        Direction::Dst => fits(dst),
        Direction::Either => fits(src) || fits(dst),
        Direction::Both => fits(src) && fits(dst),
    }
}

fn holds(test: &Test, parts: &Parts<'_>) -> bool {
    match test {
        Test::Always => true,
        Test::Is(proto) => parts.is(*proto),
        Test::Net { proto, direction, net, bits } => {
            proto.is_none_or(|proto| parts.is(proto))
                && directed(*direction, parts.ends, |address| within(address, *net, *bits))
        }
        Test::Port { proto, direction, low, high } => {
            proto.is_none_or(|proto| parts.is(proto))
                && directed(*direction, parts.ports(), |port| (*low..=*high).contains(&port))
        }
        Test::Vlan(id) => {
            let tagged = parts.network.and_then(|network| network.vlan);
            tagged.is_some_and(|tag| id.is_none_or(|id| id == tag))
        }
        Test::Compare { left, relation, right } => {
            let (Some(left), Some(right)) = (value(left, parts), value(right, parts)) else { return false };
            match relation {
                Relation::Equal => left == right,
                Relation::Unequal => left != right,
                Relation::Less => left < right,
                Relation::AtMost => left <= right,
                Relation::Greater => left > right,
                Relation::AtLeast => left >= right,
            }
        }
        Test::Not(test) => !holds(test, parts),
        Test::And(a, b) => holds(a, parts) && holds(b, parts),
        Test::Or(a, b) => holds(a, parts) || holds(b, parts),
    }
}

fn within(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    match (address, net) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            (address.to_bits() ^ net.to_bits()) & keep == 0
        }
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            (address.to_bits() ^ net.to_bits()) & keep == 0
        }
        _ => false,
    }
}

/// A sum's value; `None` where octets are asked for that are not there: then no comparison holds.
fn value(sum: &Sum, parts: &Parts<'_>) -> Option<u32> {
    match sum {
        Sum::Number(number) => Some(*number),
        Sum::Length => Some(parts.packet.orig_len),
        Sum::Octets { base, at, size } => {
            let bytes = match base {
                Base::Link => parts.packet.bytes,
                Base::Network(proto) => parts.network.filter(|_| parts.is(*proto))?.bytes,
                Base::Transport(proto) => parts.transport.filter(|_| parts.is(*proto))?.1,
            };
            let at = usize::try_from(value(at, parts)?).ok()?;
            let octets = bytes.get(at..at.checked_add(usize::from(*size))?)?;
            Some(octets.iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet)))
        }
        Sum::Apply(left, operator, right) => {
            let (left, right) = (value(left, parts)?, value(right, parts)?);
            match operator {
                Operator::Plus => Some(left.wrapping_add(right)),
                Operator::Minus => Some(left.wrapping_sub(right)),
                Operator::Times => Some(left.wrapping_mul(right)),
                Operator::Over => left.checked_div(right),
                Operator::Modulo => left.checked_rem(right),
                Operator::And => Some(left & right),
                Operator::Or => Some(left | right),
                Operator::Xor => Some(left ^ right),
                Operator::Left => Some(left.checked_shl(right).unwrap_or(0)),
                Operator::Right => Some(left.checked_shr(right).unwrap_or(0)),
            }
        }
    }
}
