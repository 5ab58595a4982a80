//! What a router saw of a probe, against what was sent: the ICMP error carries the start of the packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::result::Label;
use crate::wire::{Decoded, Encapsulation, Extension, Quoted, TcpHeader, TcpOptions, protocol};

/// A field that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which.
    pub field: &'static str,
    /// As sent.
    pub sent: String,
    /// As quoted.
    pub seen: String,
}

impl Change {
    /// Whether an address translator is the likely cause.
    pub fn is_rewriting(&self) -> bool {
        matches!(self.field, "source" | "destination" | "source port" | "destination port" | "identifier")
    }
}

/// An interface as a router names it (RFC 5837 §4).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct InterfaceInfo {
    /// `incoming`, `sub-ip`, `outgoing` or `next-hop`.
    pub role: &'static str,
    /// SNMP ifIndex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its MTU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// All labels of all MPLS objects.
pub fn labels(extensions: &[Extension]) -> Vec<Label> {
    let entries = extensions.iter().filter_map(Extension::mpls).flatten();
    entries.map(|(label, tc, bottom, ttl)| Label { label, tc, bottom, ttl }).collect()
}

/// All interface information objects that can be read; a broken one is left out.
pub fn interfaces(extensions: &[Extension]) -> Vec<InterfaceInfo> {
    extensions.iter().filter(|object| object.class == 2).filter_map(interface).collect()
}

fn interface(object: &Extension) -> Option<InterfaceInfo> {
    let role = ["incoming", "sub-ip", "outgoing", "next-hop"][usize::from(object.ctype >> 6)];
    let mut info = InterfaceInfo { role, ..InterfaceInfo::default() };
    let mut rest: &[u8] = &object.data;
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at_checked(count)?;
        rest = tail;
        Some(head)
    };
    let word = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    // RFC 5837 §4.1: the low four bits say what follows, in this order.
    if object.ctype & 8 != 0 {
        info.index = word(take(4)?);
    }
    if object.ctype & 4 != 0 {
        // Address family number and a reserved field of 2 octets each.
        info.address = match take(4)? {
            [0, 1, ..] => Some(Ipv4Addr::from(<[u8; 4]>::try_from(take(4)?).ok()?).into()),
            [0, 2, ..] => Some(Ipv6Addr::from(<[u8; 16]>::try_from(take(16)?).ok()?).into()),
            _ => return None,
        };
    }
    if object.ctype & 2 != 0 {
        // A length octet that counts itself, padding included.
        let length = usize::from(*take(1)?.first()?);
        let name = String::from_utf8_lossy(take(length.checked_sub(1)?)?).into_owned();
        // What a router sends must not move a terminal's cursor.
        info.name = Some(name.trim_end_matches('\0').chars().filter(|c| !c.is_control()).collect());
    }
    if object.ctype & 1 != 0 {
        info.mtu = word(take(4)?);
    }
    Some(info)
}

/// Compares a probe with its quote, field by field, as far as it was quoted.
///
/// Left out is what routers must change or cannot keep: TTL, the IP checksum, and total length where a router
/// quotes it in its own way (some count the payload alone).
pub fn changes(sent: &[u8], quoted: &Quoted) -> Vec<Change> {
    let packet = Decoded::parse(Encapsulation::Ip, sent);
    let (Some(src), Some(dst), Some(number)) = (packet.src(), packet.dst(), packet.protocol()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut differ = |field: &'static str, sent: String, seen: String| {
        if sent != seen {
            found.push(Change { field, sent, seen });
        }
    };
    differ("source", src.to_string(), quoted.src.to_string());
    differ("destination", dst.to_string(), quoted.dst.to_string());
    let (tos, start) = match &packet.network {
        Some(crate::wire::Network::Ipv4(ip)) => {
            // 0 was left to the kernel.
            if let Some(id) = quoted.id.filter(|_| ip.id != 0) {
                differ("IP identification", ip.id.to_string(), id.to_string());
            }
            (ip.tos, 20 + ip.options.len())
        }
        Some(crate::wire::Network::Ipv6(ip, upper)) => (ip.traffic_class, upper.offset),
        _ => return found,
    };
    differ("DSCP", (tos >> 2).to_string(), (quoted.tos >> 2).to_string());
    differ("ECN", (tos & 3).to_string(), (quoted.tos & 3).to_string());
    if number != quoted.protocol {
        differ("protocol", number.to_string(), quoted.protocol.to_string());
        return found;
    }
    let Some(upper) = sent.get(start..) else { return found };
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    let mut field = |name: &'static str, at: usize| {
        if let (Some(sent), Some(seen)) = (word(upper, at), word(&quoted.upper, at)) {
            differ(name, sent.to_string(), seen.to_string());
        }
    };
    match number {
        protocol::ICMP | protocol::ICMPV6 => {
            field("identifier", 4);
            field("sequence", 6);
            field("checksum", 2);
        }
        protocol::UDP => {
            field("source port", 0);
            field("destination port", 2);
            field("UDP length", 4);
            field("checksum", 6);
        }
        protocol::TCP => {
            field("source port", 0);
            field("destination port", 2);
            segment(upper, &quoted.upper, &mut differ);
        }
        _ => {}
    }
    found
}

fn segment(sent: &[u8], seen: &[u8], differ: &mut dyn FnMut(&'static str, String, String)) {
    let seq = |bytes: &[u8]| bytes.get(4..8).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    if let (Some(sent), Some(seen)) = (seq(sent), seq(seen)) {
        differ("sequence number", sent.to_string(), seen.to_string());
    }
    let (Ok((one, _)), Ok((two, _))) = (TcpHeader::parse(sent), TcpHeader::parse(seen)) else { return };
    differ("TCP flags", one.flags.to_string(), two.flags.to_string());
    differ("window", one.window.to_string(), two.window.to_string());
    let (sent, seen) = (one.parsed_options(), two.parsed_options());
    let show = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let kept = |options: &TcpOptions| {
        [
            ("TCP option MSS", show(options.mss.map(|mss| mss.to_string()))),
            ("TCP option window scale", show(options.window_scale.map(|scale| scale.to_string()))),
            ("TCP option SACK permitted", show(options.sack_permitted.then(|| "set".to_owned()))),
            ("TCP option timestamps", show(options.timestamps.map(|(value, _)| value.to_string()))),
        ]
    };
    for ((name, one), (_, two)) in kept(&sent).into_iter().zip(kept(&seen)) {
        differ(name, one, two);
    }
}
