//! From a captured packet to the TCP segment in it, without a copy.
//!
//! [`Decoded`](super::Decoded) gives every layer as a value; that is too dear where millions of packets pass by.
//! A [`Peeler`] goes through link header, VLAN tags, MPLS labels, PPPoE, IP with its options and extension headers,
//! and tunnels (GRE, VXLAN, Geneve, IP in IP), puts fragments together, and ends at a [`Segment`] that borrows from
//! the capture. Lengths are what the packet had on the wire: a capture that keeps 96 octets of each packet still
//! knows how much data passed.

mod fragments;
mod link;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fragments::{Fragments, Piece};

use super::capture::RawPacket;
use super::{TcpFlags, TcpOptions, ethertype, protocol};

/// Headers within headers that are followed; more is taken as an attack.
const DEPTH: usize = 16;
const PROTOCOL_IPIP: u8 = 4;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_GRE: u8 = 47;
const PROTOCOL_AH: u8 = 51;
/// Ethernet in GRE.
const TRANSPARENT_BRIDGING: u16 = 0x6558;
const PORT_VXLAN: u16 = 4789;
const PORT_GENEVE: u16 = 6081;

/// One TCP segment as it was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The eight flags.
    pub flags: TcpFlags,
    /// The four bits in front of the flags; the last of them is AE (draft-ietf-tcpm-accurate-ecn).
    pub reserved: u8,
    /// Window as sent.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Length of the header as it says itself, octets.
    pub header_len: u8,
    /// The options that were captured.
    pub options: &'a [u8],
    /// Octets of data; `None` where it cannot be known (the first fragment of a datagram that stayed incomplete, a
    /// packet shorter than its own header, a quote in an ICMP error).
    pub data_len: Option<u32>,
    /// The data that was captured.
    pub data: &'a [u8],
    /// Header and data as they were captured, for the checksum.
    pub whole: &'a [u8],
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub ip_id: Option<u16>,
    /// IPv4 DF; always set with IPv6.
    pub dont_fragment: bool,
    /// DSCP and ECN.
    pub tos: u8,
    /// The capture ends inside the TCP header.
    pub cut: bool,
    /// It is the packet that an ICMP error is about.
    pub quoted: bool,
}

impl Segment<'_> {
    /// Octets of data; 0 where not known.
    pub fn len(&self) -> u32 {
        self.data_len.unwrap_or(0)
    }

    /// Whether it carries no data, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all flags of `flags` are set.
    pub fn has(&self, flags: TcpFlags) -> bool {
        self.flags.contains(flags)
    }

    /// The options in words.
    pub fn parsed_options(&self) -> TcpOptions {
        TcpOptions::parse(self.options)
    }

    /// Whether the checksum is right; `None` where the capture does not hold all of the segment.
    pub fn checksum_good(&self) -> Option<bool> {
        let length = usize::from(self.header_len) + self.data_len? as usize;
        let whole = self.whole.get(..length)?;
        Some(super::checksum::transport(self.src, self.dst, protocol::TCP, whole) == 0)
    }

    /// Whether the checksum field was not filled in: it holds the sum of the pseudo-header alone, which a kernel leaves
    /// there for the card, or nothing.
    pub fn checksum_partial(&self) -> bool {
        let (Some(length), Some(field)) = (self.data_len, self.whole.get(16..18)) else { return false };
        if field == [0, 0] {
            return true;
        }
        let length = u32::from(self.header_len) + length;
        let sum = super::checksum::pseudo(self.src, self.dst, protocol::TCP, length);
        u16::from_be_bytes([field[0], field[1]]) == sum
    }
}

/// An ICMP error about a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError<'a> {
    /// Who sent it.
    pub from: IpAddr,
    /// Whether it is ICMPv6.
    pub v6: bool,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The next hop's MTU, of a "fragmentation needed" or "packet too big".
    pub mtu: Option<u32>,
    /// The segment it is about; often only ports and sequence number were quoted, and the rest is 0.
    pub about: Segment<'a>,
    /// Whether flags, window and acknowledgement number were quoted too.
    pub complete: bool,
}

/// What a packet was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeled<'a> {
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// An ICMP error about one.
    Icmp(IcmpError<'a>),
    /// A fragment that was kept until the others come.
    Fragment,
    /// Something that is not TCP.
    Other,
    /// It says that it is TCP, or should hold an IP packet, and cannot be read.
    Unreadable(&'static str),
    /// The link type is not known here.
    UnknownLink(u32),
}

/// Goes through packets. Its only memory is that of incomplete fragments.
#[derive(Debug, Default)]
pub struct Peeler {
    fragments: Fragments,
    assembled: Vec<u8>,
}

/// What is left to read of a packet: its octets, and how many there were on the wire.
#[derive(Debug, Clone, Copy)]
struct Rest<'a> {
    bytes: &'a [u8],
    wire: usize,
}

impl Rest<'_> {
    fn after(self, count: usize) -> Option<Self> {
        Some(Self { bytes: self.bytes.get(count..)?, wire: self.wire.saturating_sub(count) })
    }

    fn limit(self, wire: usize) -> Self {
        let wire = wire.min(self.wire);
        Self { bytes: &self.bytes[..wire.min(self.bytes.len())], wire }
    }

    fn half(self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes.get(at..at + 2)?.try_into().ok()?))
    }

    fn word(self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }
}

/// The fields of an IP header that a segment keeps.
#[derive(Debug, Clone, Copy)]
struct Ip {
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    id: Option<u16>,
    dont_fragment: bool,
    tos: u8,
    /// First fragment of a datagram of which the rest cannot be put to it.
    partial: bool,
}

/// Where the network layer of a packet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkLayer<'a> {
    /// Its EtherType.
    pub kind: u16,
    /// Its octets.
    pub bytes: &'a [u8],
    /// The outermost VLAN identifier.
    pub vlan: Option<u16>,
}

/// Goes through a packet's link header and tags; `None` where nothing is known of the link, or it is cut short.
pub fn network_layer<'a>(packet: &RawPacket<'a>) -> Option<NetworkLayer<'a>> {
    use super::capture::linktype as lt;

    let rest = Rest { bytes: packet.bytes, wire: (packet.orig_len as usize).max(packet.bytes.len()) };
    let outer = match packet.link {
        lt::ETHERNET => rest.half(12),
        lt::LINUX_SLL => rest.half(14),
        lt::LINUX_SLL2 => rest.half(0),
        _ => None,
    };
    let head = match packet.link {
        lt::ETHERNET => 14,
        lt::LINUX_SLL => 16,
        _ => 20,
    };
    if outer == Some(ethertype::ARP) {
        return Some(NetworkLayer { kind: ethertype::ARP, bytes: packet.bytes.get(head..)?, vlan: None });
    }
    let tagged = outer.is_some_and(|kind| kind == ethertype::VLAN || kind == ethertype::QINQ);
    let vlan = if tagged { rest.half(head).map(|tag| tag & 0xfff) } else { None };
    let (kind, rest) = link::network(packet.link, rest)?;
    Some(NetworkLayer { kind, bytes: rest.bytes, vlan })
}

/// Where a step of the way leads.
enum Next<'a> {
    Network(u16, Rest<'a>),
    Link(Rest<'a>),
    Done(Peeled<'a>),
    /// A whole datagram was put together: its header, the upper protocol, its octets.
    Assembled(Ip, u8, Vec<u8>),
}

impl Peeler {
    /// Finds the TCP segment of a packet.
    #[inline]
    pub fn peel<'a>(&'a mut self, packet: &RawPacket<'a>) -> Peeled<'a> {
        let rest = Rest { bytes: packet.bytes, wire: (packet.orig_len as usize).max(packet.bytes.len()) };
        let Some((kind, rest)) = link::network(packet.link, rest) else {
            return if super::capture::linktype::is_known(packet.link) {
                Peeled::Other
            } else {
                Peeled::UnknownLink(packet.link)
            };
        };
        let Self { fragments, assembled } = self;
        match walk(kind, rest, fragments, packet.at_ns) {
            Next::Assembled(ip, upper, bytes) => {
                *assembled = bytes;
                let rest = Rest { bytes: assembled, wire: assembled.len() };
                match transport(upper, ip, rest) {
                    Next::Done(found) => found,
                    Next::Network(kind, rest) => last(&walk(kind, rest, fragments, packet.at_ns)),
                    Next::Link(rest) => match link::network(super::capture::linktype::ETHERNET, rest) {
                        Some((kind, rest)) => last(&walk(kind, rest, fragments, packet.at_ns)),
                        None => Peeled::Other,
                    },
                    Next::Assembled(..) => Peeled::Other,
                }
            }
            other => last(&other),
        }
    }
}

/// The end of a walk; fragments within fragments are not put together.
fn last<'a>(next: &Next<'a>) -> Peeled<'a> {
    if let Next::Done(found) = next { *found } else { Peeled::Unreadable("fragments within fragments") }
}

#[inline]
fn walk<'a>(mut kind: u16, mut rest: Rest<'a>, fragments: &mut Fragments, at_ns: u64) -> Next<'a> {
    for _ in 0..DEPTH {
        let next = match kind {
            ethertype::IPV4 => ipv4(rest, fragments, at_ns),
            ethertype::IPV6 => ipv6(rest, fragments, at_ns),
            _ => Next::Done(Peeled::Other),
        };
        match next {
            Next::Network(inner, inside) => (kind, rest) = (inner, inside),
            Next::Link(inside) => match link::network(super::capture::linktype::ETHERNET, inside) {
                Some((inner, inside)) => (kind, rest) = (inner, inside),
                None => return Next::Done(Peeled::Other),
            },
            end => return end,
        }
    }
    Next::Done(Peeled::Unreadable("more than 16 headers within each other"))
}

fn unreadable<'a>(why: &'static str) -> Next<'a> {
    Next::Done(Peeled::Unreadable(why))
}

#[inline]
fn ipv4<'a>(rest: Rest<'a>, fragments: &mut Fragments, at_ns: u64) -> Next<'a> {
    let Some(header) = rest.bytes.first_chunk::<20>() else {
        return unreadable("the IPv4 header is cut short");
    };
    if header[0] >> 4 != 4 {
        return unreadable("an IPv4 packet whose version is not 4");
    }
    let header_len = usize::from(header[0] & 15) * 4;
    if header_len < 20 {
        return unreadable("an IPv4 header shorter than 20 octets");
    }
    let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let total = usize::from(half(2));
    // 0 comes from segmentation offload: the kernel fills the length in later, so all there is belongs to it.
    let whole = if total == 0 { rest } else { rest.limit(total) };
    if total != 0 && total < header_len {
        return unreadable("an IPv4 packet shorter than its header");
    }
    let Some(inside) = whole.after(header_len) else {
        return unreadable("the IPv4 options are cut short");
    };
    let (word, number) = (half(6), header[9]);
    let mut ip = Ip {
        src: address(12),
        dst: address(16),
        ttl: header[8],
        id: Some(half(4)),
        dont_fragment: word & 0x4000 != 0,
        tos: header[1],
        partial: false,
    };
    if word & 0x3fff != 0 {
        let piece = Piece {
            src: ip.src,
            dst: ip.dst,
            id: half(4).into(),
            protocol: number,
            offset: usize::from(word & 0x1fff) * 8,
            more: word & 0x2000 != 0,
        };
        return match fragment(piece, inside, fragments, at_ns) {
            Kept::Whole(bytes) => Next::Assembled(ip, number, bytes),
            Kept::Waits => Next::Done(Peeled::Fragment),
            Kept::First => {
                ip.partial = true;
                transport(number, ip, inside)
            }
        };
    }
    transport(number, ip, inside)
}

#[inline]
fn ipv6<'a>(rest: Rest<'a>, fragments: &mut Fragments, at_ns: u64) -> Next<'a> {
    let Some(header) = rest.bytes.first_chunk::<40>() else {
        return unreadable("the IPv6 header is cut short");
    };
    if header[0] >> 4 != 6 {
        return unreadable("an IPv6 packet whose version is not 6");
    }
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().unwrap_or_default();
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut ip = Ip {
        src: address(8),
        dst: address(24),
        ttl: header[7],
        id: None,
        dont_fragment: true,
        tos: header[0] << 4 | header[1] >> 4,
        partial: false,
    };
    let claimed = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // 0: a jumbogram (RFC 2675) or segmentation offload; all there is belongs to it.
    let whole = if claimed == 0 { rest } else { rest.limit(40 + claimed) };
    let mut number = header[6];
    let Some(mut inside) = whole.after(40) else { return unreadable("the IPv6 header is cut short") };
    // An extension header has at least 8 octets, so this ends.
    loop {
        let length = match number {
            0 | 43 | 60 | 135 | 139 | 140 => inside.bytes.get(1).map(|units| (usize::from(*units) + 1) * 8),
            PROTOCOL_AH => inside.bytes.get(1).map(|units| (usize::from(*units) + 2) * 4),
            44 => {
                let (Some(word), Some(id)) = (inside.half(2), inside.word(4)) else {
                    return unreadable("the IPv6 fragment header is cut short");
                };
                let upper = inside.bytes[0];
                let Some(after) = inside.after(8) else { return unreadable("the IPv6 fragment header is cut short") };
                if word & 0xfff9 == 0 {
                    // RFC 6946: an atomic fragment is a whole packet.
                    (number, inside) = (upper, after);
                    continue;
                }
                let piece = Piece {
                    src: ip.src,
                    dst: ip.dst,
                    id,
                    protocol: upper,
                    offset: usize::from(word & 0xfff8),
                    more: word & 1 != 0,
                };
                return match fragment(piece, after, fragments, at_ns) {
                    Kept::Whole(bytes) => Next::Assembled(ip, upper, bytes),
                    Kept::Waits => Next::Done(Peeled::Fragment),
                    Kept::First => {
                        ip.partial = true;
                        transport(upper, ip, after)
                    }
                };
            }
            _ => return transport(number, ip, inside),
        };
        let step = length.and_then(|length| Some((*inside.bytes.first()?, inside.after(length)?)));
        let Some((upper, after)) = step else { return unreadable("an IPv6 extension header is cut short") };
        (number, inside) = (upper, after);
    }
}

/// What became of a fragment.
enum Kept {
    Whole(Vec<u8>),
    Waits,
    /// The first of a datagram that can never be whole here: its header is there to be read.
    First,
}

fn fragment(piece: Piece, inside: Rest<'_>, fragments: &mut Fragments, at_ns: u64) -> Kept {
    if inside.bytes.len() < inside.wire {
        // The capture did not keep all of it.
        return if piece.offset == 0 { Kept::First } else { Kept::Waits };
    }
    fragments.add(piece, inside.bytes, at_ns).map_or(Kept::Waits, Kept::Whole)
}

#[inline]
fn transport(number: u8, ip: Ip, rest: Rest<'_>) -> Next<'_> {
    match number {
        protocol::TCP => Next::Done(match segment(ip, rest) {
            Some((segment, true)) => Peeled::Tcp(segment),
            _ => Peeled::Unreadable("the TCP header is cut short"),
        }),
        _ if ip.partial => Next::Done(Peeled::Other),
        PROTOCOL_IPIP => Next::Network(ethertype::IPV4, rest),
        PROTOCOL_IPV6 => Next::Network(ethertype::IPV6, rest),
        PROTOCOL_GRE => gre(rest),
        PROTOCOL_AH => match rest.bytes {
            [upper, units, ..] => match rest.after((usize::from(*units) + 2) * 4) {
                Some(after) if *upper != PROTOCOL_AH => transport(*upper, ip, after),
                _ => Next::Done(Peeled::Other),
            },
            _ => Next::Done(Peeled::Other),
        },
        protocol::UDP => udp(rest),
        protocol::ICMP if ip.src.is_ipv4() => Next::Done(icmp(ip, rest)),
        protocol::ICMPV6 if ip.src.is_ipv6() => Next::Done(icmp(ip, rest)),
        _ => Next::Done(Peeled::Other),
    }
}

/// Generic routing encapsulation (RFC 2784, RFC 2890; version 1 is PPTP's).
fn gre(rest: Rest<'_>) -> Next<'_> {
    let (Some(flags), Some(kind)) = (rest.half(0), rest.half(2)) else {
        return Next::Done(Peeled::Other);
    };
    let mut length = 4;
    for bit in [0x8000, 0x2000, 0x1000] {
        if flags & bit != 0 {
            length += 4;
        }
    }
    if flags & 7 == 1 {
        // RFC 2637 §4.1: an acknowledgement number may follow, and inside is PPP.
        length += if flags & 0x0080 == 0 { 0 } else { 4 };
        let inside = rest.after(length).and_then(link::ppp);
        return inside.map_or(Next::Done(Peeled::Other), |(kind, inside)| Next::Network(kind, inside));
    }
    match (kind, rest.after(length)) {
        (_, None) => Next::Done(Peeled::Other),
        (TRANSPARENT_BRIDGING, Some(inside)) => Next::Link(inside),
        (kind, Some(inside)) => match link::ethertype(kind, inside) {
            Some((kind, inside)) => Next::Network(kind, inside),
            None => Next::Done(Peeled::Other),
        },
    }
}

/// Tunnels over UDP: VXLAN (RFC 7348) and Geneve (RFC 8926).
fn udp(rest: Rest<'_>) -> Next<'_> {
    let (Some(port), Some(inside)) = (rest.half(2), rest.after(8)) else { return Next::Done(Peeled::Other) };
    let found = match port {
        // The I flag says that there is a network identifier.
        PORT_VXLAN if inside.bytes.first().is_some_and(|flags| flags & 0x08 != 0) => inside.after(8).map(Next::Link),
        PORT_GENEVE => inside.bytes.first().and_then(|first| {
            let options = usize::from(first & 0x3f) * 4;
            let kind = inside.half(2)?;
            let within = inside.after(8 + options)?;
            if kind == TRANSPARENT_BRIDGING { Some(Next::Link(within)) } else { Some(Next::Network(kind, within)) }
        }),
        _ => None,
    };
    found.unwrap_or(Next::Done(Peeled::Other))
}

/// Reads a TCP header; also says whether ports, numbers and flags were all there.
#[inline]
fn segment(ip: Ip, rest: Rest<'_>) -> Option<(Segment<'_>, bool)> {
    let bytes = rest.bytes;
    let mut fixed = [0; 20];
    let have = bytes.len().min(20);
    fixed[..have].copy_from_slice(&bytes[..have]);
    if have < 8 {
        return None;
    }
    let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let header_len = (fixed[12] >> 4) * 4;
    let length = usize::from(header_len);
    let known = !ip.partial && rest.wire >= length;
    let header_end = length.clamp(20, bytes.len().max(20));
    let segment = Segment {
        src: ip.src,
        dst: ip.dst,
        sport: half(0),
        dport: half(2),
        seq: word(4),
        ack: word(8),
        flags: TcpFlags(fixed[13]),
        reserved: fixed[12] & 15,
        window: half(14),
        urgent: half(18),
        header_len,
        options: bytes.get(20..header_end).unwrap_or_default(),
        data_len: known.then(|| u32::try_from(rest.wire - length).unwrap_or(u32::MAX)),
        data: bytes.get(length.max(20)..).unwrap_or_default(),
        whole: bytes,
        ttl: ip.ttl,
        ip_id: ip.id,
        dont_fragment: ip.dont_fragment,
        tos: ip.tos,
        cut: bytes.len() < length.max(20),
        quoted: false,
    };
    Some((segment, have >= 16))
}

/// ICMP errors about TCP (RFC 792, RFC 4443).
fn icmp(ip: Ip, rest: Rest<'_>) -> Peeled<'_> {
    let v6 = ip.src.is_ipv6();
    let (Some([kind, code]), Some(inside)) = (rest.bytes.first_chunk::<2>(), rest.after(8)) else {
        return Peeled::Other;
    };
    let (kind, code) = (*kind, *code);
    let error = if v6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
    if !error {
        return Peeled::Other;
    }
    let mtu = match (v6, kind, code) {
        (false, 3, 4) => rest.half(6).filter(|mtu| *mtu > 0).map(u32::from),
        (true, 2, _) => rest.word(4),
        _ => None,
    };
    let header = if v6 { quoted_v6(inside) } else { quoted_v4(inside) };
    let Some((about, rest)) = header else { return Peeled::Other };
    match segment(about, rest) {
        Some((mut about, complete)) => {
            about.quoted = true;
            about.data_len = None;
            Peeled::Icmp(IcmpError { from: ip.src, v6, kind, code, mtu, about, complete })
        }
        None => Peeled::Other,
    }
}

fn quoted_v4(rest: Rest<'_>) -> Option<(Ip, Rest<'_>)> {
    let header = rest.bytes.first_chunk::<20>()?;
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let fits = header[0] >> 4 == 4 && header[9] == protocol::TCP && half(6) << 3 == 0;
    let ip = Ip {
        src: address(12),
        dst: address(16),
        ttl: header[8],
        id: Some(half(4)),
        dont_fragment: half(6) & 0x4000 != 0,
        tos: header[1],
        partial: true,
    };
    fits.then(|| rest.after(usize::from(header[0] & 15) * 4)).flatten().map(|rest| (ip, rest))
}

fn quoted_v6(rest: Rest<'_>) -> Option<(Ip, Rest<'_>)> {
    let header = rest.bytes.first_chunk::<40>()?;
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().unwrap_or_default();
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let ip = Ip {
        src: address(8),
        dst: address(24),
        ttl: header[7],
        id: None,
        dont_fragment: true,
        tos: header[0] << 4 | header[1] >> 4,
        partial: true,
    };
    let mut number = header[6];
    let mut inside = rest.after(40)?;
    while matches!(number, 0 | 43 | 60) {
        let length = (usize::from(*inside.bytes.get(1)?) + 1) * 8;
        (number, inside) = (*inside.bytes.first()?, inside.after(length)?);
    }
    (header[0] >> 4 == 6 && number == protocol::TCP).then_some((ip, inside))
}

#[cfg(test)]
mod tests;
