//! A packet by its octets: where its headers are, its fields, and its octets with fields changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::ruleset::TcpFlags;
use crate::wire::checksum::internet;

use super::{Packet, Proto};

/// One IPv6 extension header, or the AH of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extension {
    /// 0 hop-by-hop, 43 routing, 44 fragment, 51 authentication, 60 destination options.
    pub(crate) kind: u8,
    /// Where it begins, from the IP header's first octet.
    pub(crate) at: usize,
    /// Its length as it says itself, octets.
    pub(crate) length: usize,
}

/// The fragment's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// In units of eight octets.
    pub(crate) offset: u16,
    pub(crate) more: bool,
    /// The reserved fields of the IPv6 fragment header.
    pub(crate) reserved: u16,
    pub(crate) id: u32,
}

/// Where the headers of a packet are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where the upper layer begins.
    pub(crate) transport: usize,
    /// Its protocol.
    pub(crate) proto: u8,
    /// In their order.
    pub(crate) extensions: Vec<Extension>,
    pub(crate) fragment: Option<Fragment>,
    /// The extension headers end beyond the packet: there is no upper layer to be found.
    pub(crate) cut: bool,
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]))
}

fn addr4(octets: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(octets.get(at..at + 4)?.first_chunk::<4>().copied()?))
}

fn addr6(octets: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(octets.get(at..at + 16)?.first_chunk::<16>().copied()?))
}

impl Layout {
    /// `None` where this is no IP packet.
    pub(crate) fn of(octets: &[u8]) -> Option<Self> {
        match octets.first()? >> 4 {
            4 => Self::of_v4(octets),
            6 => Self::of_v6(octets),
            _ => None,
        }
    }

    fn of_v4(octets: &[u8]) -> Option<Self> {
        let header = usize::from(octets.first()? & 0x0f) * 4;
        if header < 20 || octets.len() < header {
            return None;
        }
        let bits = word(octets, 6)?;
        let (offset, more) = (bits & 0x1fff, bits & 0x2000 != 0);
        let id = u32::from(word(octets, 4)?);
        let fragment = (offset > 0 || more).then_some(Fragment { offset, more, reserved: 0, id });
        Some(Self { transport: header, proto: *octets.get(9)?, fragment, ..Self::default() })
    }

    /// `net/ipv6/exthdrs_core.c`, `ipv6_find_hdr` with no header named: AH is an extension header.
    fn of_v6(octets: &[u8]) -> Option<Self> {
        let mut layout = Self { transport: 40, proto: *octets.get(6)?, ..Self::default() };
        if octets.len() < 40 {
            return None;
        }
        while matches!(layout.proto, 0 | 43 | 44 | 51 | 60) {
            let (kind, at) = (layout.proto, layout.transport);
            let (Some(next), Some(size)) = (octets.get(at), octets.get(at + 1)) else {
                layout.cut = true;
                return Some(layout);
            };
            let length = match kind {
                44 => 8,
                51 => (usize::from(*size) + 2) * 4,
                _ => (usize::from(*size) + 1) * 8,
            };
            layout.extensions.push(Extension { kind, at, length });
            if kind == 44 {
                let (Some(bits), Some(high), Some(low)) =
                    (word(octets, at + 2), word(octets, at + 4), word(octets, at + 6))
                else {
                    layout.cut = true;
                    return Some(layout);
                };
                let reserved = u16::from(*size) << 2 | bits >> 1 & 3;
                let id = u32::from(high) << 16 | u32::from(low);
                layout.fragment = Some(Fragment { offset: bits >> 3, more: bits & 1 != 0, reserved, id });
            }
            (layout.proto, layout.transport) = (*next, at + length);
            // What follows in a later fragment is no header.
            if layout.fragment.is_some_and(|fragment| fragment.offset > 0) {
                break;
            }
        }
        Some(layout)
    }

    fn is_later(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }
}

/// One TCP option: number, where it begins from the TCP header's first octet, its length.
pub(crate) fn tcp_options(segment: &[u8]) -> Vec<(u8, usize, usize)> {
    let end = usize::from(segment.get(12).copied().unwrap_or(0x50) >> 4) * 4;
    let (mut at, mut out) = (20, Vec::new());
    while at < end.min(segment.len()) {
        let Some(kind) = segment.get(at).copied() else { break };
        let length = match kind {
            0 => break,
            1 => 1,
            _ => match segment.get(at + 1) {
                Some(length) if *length >= 2 => usize::from(*length),
                _ => break,
            },
        };
        out.push((kind, at, length));
        at += length;
    }
    out
}

/// Octets in hexadecimal.
pub(crate) fn hex(octets: &[u8]) -> String {
    use std::fmt::Write as _;
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// The octets that hexadecimal digits write.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

impl Packet {
    /// The packet that these octets are, from the IP header on, with all its fields; `None` where they
    /// are no IP packet. Where and how it came is not among them.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let layout = Layout::of(octets)?;
        let v6 = octets.first()? >> 4 == 6;
        let (src, dst): (IpAddr, IpAddr) = if v6 {
            (addr6(octets, 8)?.into(), addr6(octets, 24)?.into())
        } else {
            (addr4(octets, 12)?.into(), addr4(octets, 16)?.into())
        };
        let mut packet = Self::new(src, dst);
        packet.proto = Some(Proto(layout.proto));
        packet.length = u32::try_from(octets.len()).ok();
        (packet.ttl, packet.tos) = if v6 {
            (octets.get(7).copied(), Some(*octets.first()? << 4 | octets.get(1)? >> 4))
        } else {
            (octets.get(8).copied(), octets.get(1).copied())
        };
        if let Some(fragment) = layout.fragment {
            (packet.frag_offset, packet.more_fragments) = (Some(fragment.offset), Some(fragment.more));
        }
        packet.octets = Some(hex(octets));
        let upper = octets.get(layout.transport..).unwrap_or_default();
        if layout.is_later() || layout.cut {
            packet.payload = (!upper.is_empty() && layout.is_later()).then(|| hex(upper));
            return Some(packet);
        }
        let header;
        match layout.proto {
            6 | 17 | 33 | 132 | 136 => {
                (packet.sport, packet.dport) = (word(upper, 0), word(upper, 2));
                let doff = usize::from(upper.get(12).copied().unwrap_or(0x50) >> 4) * 4;
                header = match layout.proto {
                    6 => doff,
                    17 | 136 => 8,
                    _ => 12,
                };
                if layout.proto == 6 {
                    packet.tcp_flags = upper.get(13).copied().map(TcpFlags);
                    if upper.len() >= header.max(20) {
                        let options = tcp_options(upper);
                        packet.mss = options
                            .iter()
                            .find(|(kind, _, length)| (*kind, *length) == (2, 4))
                            .and_then(|(_, at, _)| word(upper, at + 2));
                        packet.tcp_options =
                            Some(options.into_iter().map(|(kind, ..)| kind).filter(|kind| *kind > 1).collect());
                    }
                }
            }
            1 | 58 => {
                (packet.icmp_type, packet.icmp_code) = (upper.first().copied(), upper.get(1).copied());
                header = 8;
            }
            _ => header = 0,
        }
        packet.payload = upper.get(header..).filter(|payload| !payload.is_empty()).map(hex);
        Some(packet)
    }
}

/// The one's complement sum of RFC 1071, of octets that are changed in place.
struct Sum(u32);

impl Sum {
    /// What stands in the header.
    fn field(&self) -> u16 {
        !u16::try_from(self.0 & 0xffff).unwrap_or(0)
    }

    /// `csum_replace2` (RFC 1624).
    fn replace(&mut self, old: u16, new: u16) {
        self.0 = self.0.wrapping_add(u32::from(!old)).wrapping_add(u32::from(new));
        // The first carry may bring another.
        for _ in 0..2 {
            self.0 = (self.0 & 0xffff) + (self.0 >> 16);
        }
    }
}

/// The octets with the packet's fields in place of what they were, and its checksums made right by as
/// much as they were before.
pub(crate) fn patched(packet: &Packet, octets: &[u8]) -> Vec<u8> {
    let Some(layout) = Layout::of(octets) else { return octets.to_vec() };
    let mut out = octets.to_vec();
    network(packet, &mut out);
    if !layout.is_later() && !layout.cut {
        transport(packet, &layout, &mut out);
    }
    correct(&layout, octets, &mut out);
    out
}

fn put(out: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = out.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}

fn network(packet: &Packet, out: &mut [u8]) {
    match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            put(out, 12, &src.octets());
            put(out, 16, &dst.octets());
            if let Some(tos) = packet.tos {
                put(out, 1, &[tos]);
            }
            if let Some(ttl) = packet.ttl {
                put(out, 8, &[ttl]);
            }
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            put(out, 8, &src.octets());
            put(out, 24, &dst.octets());
            if let Some(ttl) = packet.ttl {
                put(out, 7, &[ttl]);
            }
            if let (Some(tos), [first, second, ..]) = (packet.tos, &mut *out) {
                *first = *first & 0xf0 | tos >> 4;
                *second = *second & 0x0f | tos << 4;
            }
        }
        _ => (),
    }
}

fn transport(packet: &Packet, layout: &Layout, out: &mut Vec<u8>) {
    let at = layout.transport;
    if matches!(layout.proto, 6 | 17 | 33 | 132 | 136) {
        if let Some(port) = packet.sport {
            put(out, at, &port.to_be_bytes());
        }
        if let Some(port) = packet.dport {
            put(out, at + 2, &port.to_be_bytes());
        }
    }
    if layout.proto != 6 {
        return;
    }
    if let Some(flags) = packet.tcp_flags {
        put(out, at + 13, &[flags.0]);
    }
    let Some(kept) = &packet.tcp_options else { return };
    let options = tcp_options(out.get(at..).unwrap_or_default());
    let mut mss = None;
    for (kind, from, length) in options {
        // Overwritten by NOPs (xt_TCPOPTSTRIP.c).
        if kind > 1 && !kept.contains(&kind) {
            put(out, at + from, &vec![1; length]);
        } else if kind == 2 {
            mss = Some(at + from + 2);
        }
    }
    match (packet.mss, mss) {
        (Some(size), Some(at)) => put(out, at, &size.to_be_bytes()),
        // One that was put before the others and then stripped.
        (None, None) if kept.contains(&1) && out.len() >= at + 20 => {
            out.splice(at + 20..at + 20, [1; 4]);
            if let Some(offset) = out.get_mut(at + 12) {
                *offset = offset.wrapping_add(0x10);
            }
            longer(layout, out);
        }
        // Put before all other options (xt_TCPMSS.c).
        (Some(size), None) if kept.contains(&2) && out.len() >= at + 20 => {
            let [high, low] = size.to_be_bytes();
            out.splice(at + 20..at + 20, [2, 4, high, low]);
            if let Some(offset) = out.get_mut(at + 12) {
                *offset = offset.wrapping_add(0x10);
            }
            longer(layout, out);
        }
        _ => (),
    }
}

/// The IP header says that the packet is four octets longer.
fn longer(layout: &Layout, out: &mut [u8]) {
    let at = if out.first().is_some_and(|first| first >> 4 == 6) { 4 } else { 2 };
    debug_assert!(layout.transport >= 20, "a packet has a network header");
    if let Some(length) = word(out, at) {
        put(out, at, &length.wrapping_add(4).to_be_bytes());
    }
}

/// Makes the checksums right: the IPv4 header's, and that of the upper layer by what was changed.
fn correct(layout: &Layout, old: &[u8], out: &mut [u8]) {
    let v4 = out.first().is_some_and(|first| first >> 4 == 4);
    if v4 {
        let mut sum = Sum(u32::from(!word(old, 10).unwrap_or(0)));
        for at in (0..layout.transport).step_by(2).filter(|at| *at != 10) {
            sum.replace(word(old, at).unwrap_or(0), word(out, at).unwrap_or(0));
        }
        put(out, 10, &sum.field().to_be_bytes());
    }
    let place = match layout.proto {
        6 => 16,
        17 | 33 | 136 => 6,
        58 => 2,
        _ => return,
    };
    let at = layout.transport + place;
    let Some(before) = word(old, at).filter(|_| !layout.is_later() && !layout.cut) else { return };
    // A UDP datagram without a checksum stays so.
    if layout.proto == 17 && v4 && before == 0 {
        return;
    }
    let mut sum = Sum(u32::from(!before));
    let ends = if v4 { 12..20 } else { 8..40 };
    for from in ends.step_by(2) {
        sum.replace(word(old, from).unwrap_or(0), word(out, from).unwrap_or(0));
    }
    let grown = out.len() - old.len().min(out.len());
    let segment = |octets: &[u8], from: usize| {
        let high = octets.get(from).copied().unwrap_or(0);
        u16::from_be_bytes([high, octets.get(from + 1).copied().unwrap_or(0)])
    };
    if grown > 0 {
        // The pseudo header's length.
        let length = |octets: &[u8]| u16::try_from(octets.len() - layout.transport).unwrap_or(u16::MAX);
        sum.replace(length(old), length(out));
    }
    for from in (layout.transport..out.len()).step_by(2).filter(|from| *from != at) {
        sum.replace(segment(old, from), segment(out, from));
    }
    let mut sum = sum.field();
    if sum == 0 && layout.proto == 17 {
        sum = 0xffff;
    }
    put(out, at, &sum.to_be_bytes());
}

/// Whether REJECT answers for the checksum of these octets (`include/net/netfilter/nf_reject.h`,
/// `nf_reject_verify_csum`): of TCP and UDP, and over IPv6 of all, with the pseudo header, of the others
/// without. Protocols that have another kind of checksum are not looked at.
pub(crate) fn sum_is_right(octets: &[u8]) -> bool {
    let Some(layout) = Layout::of(octets) else { return false };
    let v6 = octets.first().is_some_and(|first| first >> 4 == 6);
    let Some(upper) = octets.get(layout.transport..).filter(|upper| !upper.is_empty()) else { return !v6 };
    let free = matches!(layout.proto, 50 | 51 | 132 | 136 | 47)
        || layout.proto == 17 && word(upper, 6) == Some(0) && !v6
        || v6 && layout.proto == 59;
    if free {
        return true;
    }
    let pseudo = if v6 { octets.get(8..40) } else { octets.get(12..20) }.unwrap_or_default();
    let length = u16::try_from(upper.len()).unwrap_or(u16::MAX).to_be_bytes();
    let named = [length, [0, layout.proto]].concat();
    if v6 || matches!(layout.proto, 6 | 17) {
        internet(&[pseudo, &named, upper]) == 0
    } else {
        // Of zeros alone the sum is right too (measured).
        matches!(internet(&[upper]), 0 | 0xffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Ipv4Header, TcpHeader, UdpHeader};

    fn syn() -> Vec<u8> {
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut tcp = TcpHeader::new(4000, 22, crate::wire::TcpFlags::SYN);
        tcp.options = crate::wire::HexBytes(vec![2, 4, 5, 0xb4, 4, 2, 1, 1]);
        Ipv4Header::new(src, dst, 6).packet(&tcp.segment(src.into(), dst.into(), &[]))
    }

    #[test]
    fn octets_have_fields_and_fields_change_octets() {
        let octets = syn();
        let mut packet = Packet::from_octets(&octets).unwrap();
        assert_eq!((packet.sport, packet.dport, packet.mss), (Some(4000), Some(22), Some(1460)));
        assert_eq!(packet.tcp_options, Some(vec![2, 4]));
        assert_eq!(patched(&packet, &octets), octets, "nothing changed");
        packet.src = "192.0.2.1".parse().unwrap();
        (packet.sport, packet.mss, packet.ttl) = (Some(9), Some(1200), Some(7));
        packet.tcp_options = Some(vec![2]);
        let changed = patched(&packet, &octets);
        let IpAddr::V4(src) = packet.src else { panic!() };
        let mut tcp = TcpHeader::new(9, 22, crate::wire::TcpFlags::SYN);
        tcp.options = crate::wire::HexBytes(vec![2, 4, 4, 0xb0, 1, 1, 1, 1]);
        let mut ip = Ipv4Header::new(src, Ipv4Addr::new(10, 0, 0, 2), 6);
        (ip.ttl, ip.dont_fragment, ip.id) = (7, octets[6] & 0x40 != 0, word(&octets, 4).unwrap());
        assert_eq!(changed, ip.packet(&tcp.segment(src.into(), packet.dst, &[])));
    }

    #[test]
    fn extension_headers_are_passed() {
        let (src, dst): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let udp = UdpHeader::datagram(src.into(), dst.into(), 5, 53, b"x");
        let mut body = vec![44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9];
        body.extend(&udp);
        let octets = crate::wire::Ipv6Header::new(src, dst, 60).packet(&body);
        let packet = Packet::from_octets(&octets).unwrap();
        assert_eq!((packet.proto, packet.dport, packet.frag_offset), (Some(Proto(17)), Some(53), Some(0)));
        let layout = Layout::of(&octets).unwrap();
        assert_eq!((layout.transport, layout.fragment.unwrap().id), (56, 9));
        assert!(Layout::of(&octets[..47]).unwrap().cut);
    }

    proptest::proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..90), v6 in proptest::bool::ANY) {
            let mut octets = octets;
            if let Some(first) = octets.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 | *first & 1 };
            }
            if let Some(mut packet) = Packet::from_octets(&octets) {
                packet.mss = Some(5);
                (packet.sport, packet.tcp_options) = (Some(1), packet.tcp_options.map(|_| vec![2]));
                let _ = patched(&packet, &octets);
            }
        }
    }
}
