//! The packet an ICMP error quotes, and the extensions behind it.
//!
//! A router must quote 8 octets of the upper header at least (RFC 792); RFC 1812 asks for up to 576
//! octets in all. RFC 4884 puts extension objects (MPLS labels, RFC 4950) behind a padded quote.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{HexBytes, IcmpFamily, IcmpHeader, Ipv4Header, Ipv6Header, checksum, protocol};

/// The quoted packet, as far as it was quoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quoted {
    /// Source as the offender saw it: not ours behind a NAT.
    pub src: IpAddr,
    /// Destination as the offender saw it.
    pub dst: IpAddr,
    /// Upper protocol.
    pub protocol: u8,
    /// TTL or hop limit when it reached the offender.
    pub ttl: u8,
    /// TOS or traffic class when it reached the offender.
    pub tos: u8,
    /// IPv4 identification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
    /// Total length by the quoted header, octets.
    pub length: u32,
    /// Source and destination port, TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
    /// TCP sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u32>,
    /// Identifier and sequence number of a quoted echo request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<(u16, u16)>,
    /// The upper header and payload, as far as quoted.
    pub upper: HexBytes,
}

impl Quoted {
    /// Reads a quoted IP packet; `None` when not even its IP header is there.
    pub fn parse(family: IcmpFamily, bytes: &[u8]) -> Option<Self> {
        match family {
            IcmpFamily::V4 => {
                let (ip, length) = Ipv4Header::parse(bytes).ok()?;
                let upper = bytes.get(length..)?;
                let mut quoted = Self::from_upper(
                    ip.src.into(),
                    ip.dst.into(),
                    ip.protocol,
                    if ip.fragment_offset == 0 { upper } else { &[] },
                );
                (quoted.ttl, quoted.tos, quoted.id, quoted.length) =
                    (ip.ttl, ip.tos, Some(ip.id), u32::from(ip.total_len));
                Some(quoted)
            }
            IcmpFamily::V6 => {
                let ip = Ipv6Header::parse(bytes).ok()?;
                let walk = ip.walk(bytes).ok()?;
                let first = walk.fragment_offset.unwrap_or(0) == 0;
                let upper = if first { bytes.get(walk.offset..)? } else { &[] };
                let mut quoted = Self::from_upper(ip.src.into(), ip.dst.into(), walk.protocol, upper);
                (quoted.ttl, quoted.tos) = (ip.hop_limit, ip.traffic_class);
                quoted.length = u32::from(ip.payload_len) + 40;
                Some(quoted)
            }
        }
    }

    /// From addresses known otherwise and the upper header's bytes (a socket's error queue gives no IP header).
    /// TTL, TOS and length are 0 then.
    pub fn from_upper(src: IpAddr, dst: IpAddr, protocol: u8, upper: &[u8]) -> Self {
        let word = |at: usize| upper.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]));
        let ports = || word(0).zip(word(2));
        let (mut quoted_ports, mut seq, mut echo) = (None, None, None);
        match protocol {
            protocol::TCP => {
                quoted_ports = ports();
                seq = word(4).zip(word(6)).map(|(high, low)| (u32::from(high) << 16) | u32::from(low));
            }
            protocol::UDP => quoted_ports = ports(),
            protocol::ICMP if upper.first() == Some(&8) => echo = word(4).zip(word(6)),
            protocol::ICMPV6 if upper.first() == Some(&128) => echo = word(4).zip(word(6)),
            _ => {}
        }
        let upper = HexBytes(upper.to_vec());
        Self { src, dst, protocol, ttl: 0, tos: 0, id: None, length: 0, ports: quoted_ports, seq, echo, upper }
    }
}

/// One extension object (RFC 4884 §8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Class: 1 is an MPLS label stack (RFC 4950), 2 interface information (RFC 5837).
    pub class: u8,
    /// Sub-type within the class.
    pub ctype: u8,
    /// The object's data.
    pub data: HexBytes,
}

impl Extension {
    /// Reads the extension objects behind the quote of an error message. `body` begins after the 8 octet header.
    ///
    /// Where the length field is 0, routers older than RFC 4884 put the structure at 128 octets (§5.5); that
    /// is believed only when its checksum holds. A broken structure gives what was whole before the break.
    pub fn parse_all(header: &IcmpHeader, body: &[u8]) -> Vec<Self> {
        let claimed = match header.family {
            IcmpFamily::V4 if matches!(header.kind, 3 | 11 | 12) => usize::from(header.rest[1]) * 4,
            IcmpFamily::V6 if matches!(header.kind, 1 | 3) => usize::from(header.rest[0]) * 8,
            _ => return Vec::new(),
        };
        let Some(structure) = body.get(if claimed == 0 { 128 } else { claimed }..) else { return Vec::new() };
        if structure.len() < 8 || structure[0] >> 4 != 2 {
            return Vec::new();
        }
        let unsummed = structure[2..4] == [0, 0];
        if (claimed == 0 || !unsummed) && checksum::internet(&[structure]) != 0 {
            return Vec::new();
        }
        Self::parse_structure(structure)
    }

    /// Reads an extension structure that is known to be one: its header of 4 octets, then objects (RFC 4884 §7).
    pub fn parse_structure(structure: &[u8]) -> Vec<Self> {
        if structure.len() < 8 || structure[0] >> 4 != 2 {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut rest = &structure[4..];
        while let [a, b, class, ctype, ..] = *rest {
            let length = usize::from(u16::from_be_bytes([a, b]));
            let Some(data) = rest.get(4..length) else { break };
            found.push(Self { class, ctype, data: HexBytes(data.to_vec()) });
            rest = &rest[length..];
        }
        found
    }

    /// The labels of an MPLS stack entry list: label (20 bits), traffic class (3), bottom of stack, TTL.
    pub fn mpls(&self) -> Option<Vec<(u32, u8, bool, u8)>> {
        (self.class == 1 && self.ctype == 1).then(|| {
            let entry = |word: &[u8]| {
                let bits = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
                let small = |bits: u32| u8::try_from(bits & 0xff).unwrap_or(0);
                (bits >> 12, small((bits >> 9) & 7), bits & 0x100 != 0, small(bits))
            };
            self.data.chunks_exact(4).map(entry).collect()
        })
    }
}
