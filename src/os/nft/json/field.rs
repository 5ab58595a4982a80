//! Payload offsets as header fields.

use serde_json::{Value, json};

use super::super::expr::Base;
use super::kind::Kind;

/// Which headers a rule has established so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Headers {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6` or `NFPROTO_ARP`.
    pub(super) network: Option<u8>,
    /// IANA protocol number.
    pub(super) transport: Option<u8>,
}

/// A field of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) protocol: &'static str,
    pub(super) name: &'static str,
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) kind: Kind,
}

type Fields = &'static [(&'static str, u32, u32, Kind)];

const ETHER: Fields = &[("daddr", 0, 6, Kind::Ether), ("saddr", 6, 6, Kind::Ether), ("type", 12, 2, Kind::EtherType)];
const IP: Fields = &[
    ("length", 2, 2, Kind::Number),
    ("id", 4, 2, Kind::Number),
    ("frag-off", 6, 2, Kind::Number),
    ("ttl", 8, 1, Kind::Number),
    ("protocol", 9, 1, Kind::Protocol),
    ("checksum", 10, 2, Kind::Number),
    ("saddr", 12, 4, Kind::Ipv4),
    ("daddr", 16, 4, Kind::Ipv4),
];
const IP6: Fields = &[
    ("length", 4, 2, Kind::Number),
    ("nexthdr", 6, 1, Kind::Protocol),
    ("hoplimit", 7, 1, Kind::Number),
    ("saddr", 8, 16, Kind::Ipv6),
    ("daddr", 24, 16, Kind::Ipv6),
];
const ARP: Fields = &[
    ("htype", 0, 2, Kind::Number),
    ("ptype", 2, 2, Kind::EtherType),
    ("hlen", 4, 1, Kind::Number),
    ("plen", 5, 1, Kind::Number),
    ("operation", 6, 2, Kind::ArpOperation),
    ("saddr ether", 8, 6, Kind::Ether),
    ("saddr ip", 14, 4, Kind::Ipv4),
    ("daddr ether", 18, 6, Kind::Ether),
    ("daddr ip", 24, 4, Kind::Ipv4),
];
const TCP: Fields = &[
    ("sport", 0, 2, Kind::Number),
    ("dport", 2, 2, Kind::Number),
    ("sequence", 4, 4, Kind::Number),
    ("ackseq", 8, 4, Kind::Number),
    ("flags", 13, 1, Kind::TcpFlags),
    ("window", 14, 2, Kind::Number),
    ("checksum", 16, 2, Kind::Number),
    ("urgptr", 18, 2, Kind::Number),
];
const UDP: Fields = &[
    ("sport", 0, 2, Kind::Number),
    ("dport", 2, 2, Kind::Number),
    ("length", 4, 2, Kind::Number),
    ("checksum", 6, 2, Kind::Number),
];
const PORTS: Fields = &[("sport", 0, 2, Kind::Number), ("dport", 2, 2, Kind::Number)];
const ICMP: Fields = &[
    ("type", 0, 1, Kind::IcmpType),
    ("code", 1, 1, Kind::IcmpCode),
    ("checksum", 2, 2, Kind::Number),
    ("id", 4, 2, Kind::Number),
    ("sequence", 6, 2, Kind::Number),
];
const ICMPV6: Fields = &[
    ("type", 0, 1, Kind::Icmpv6Type),
    ("code", 1, 1, Kind::Icmpv6Code),
    ("checksum", 2, 2, Kind::Number),
    ("id", 4, 2, Kind::Number),
    ("sequence", 6, 2, Kind::Number),
];
const ESP: Fields = &[("spi", 0, 4, Kind::Number), ("sequence", 4, 4, Kind::Number)];

fn header(base: Base, headers: Headers) -> Option<(&'static str, Fields)> {
    Some(match (base, headers.network, headers.transport) {
        (Base::Link, ..) => ("ether", ETHER),
        (Base::Network, Some(2), _) => ("ip", IP),
        (Base::Network, Some(10), _) => ("ip6", IP6),
        (Base::Network, Some(3), _) => ("arp", ARP),
        (Base::Transport, _, Some(1)) => ("icmp", ICMP),
        (Base::Transport, _, Some(6)) => ("tcp", TCP),
        (Base::Transport, _, Some(17)) => ("udp", UDP),
        (Base::Transport, _, Some(33)) => ("dccp", PORTS),
        (Base::Transport, _, Some(50)) => ("esp", ESP),
        (Base::Transport, _, Some(58)) => ("icmpv6", ICMPV6),
        (Base::Transport, _, Some(132)) => ("sctp", PORTS),
        (Base::Transport, _, Some(136)) => ("udplite", UDP),
        (Base::Transport, _, None) => ("th", PORTS),
        _ => return None,
    })
}

/// The field that these bytes are, whole.
pub(super) fn find(base: Base, offset: u32, len: u32, headers: Headers) -> Option<Field> {
    starting(base, offset, headers).filter(|field| field.len == len)
}

fn starting(base: Base, offset: u32, headers: Headers) -> Option<Field> {
    let (protocol, fields) = header(base, headers)?;
    let (name, offset, len, kind) = *fields.iter().find(|(_, at, ..)| *at == offset)?;
    Some(Field { protocol, name, offset, len, kind })
}

/// The fields that these bytes run over; the last may be the beginning of an address (a prefix).
pub(super) fn split(base: Base, offset: u32, len: u32, headers: Headers) -> Option<Vec<Field>> {
    let (mut at, end) = (offset, offset.checked_add(len)?);
    let mut fields = Vec::new();
    while at < end {
        let field = starting(base, at, headers)?;
        let whole = at + field.len <= end;
        if !whole && !matches!(field.kind, Kind::Ipv4 | Kind::Ipv6) {
            return None;
        }
        fields.push(field);
        at += field.len;
    }
    Some(fields)
}

impl Field {
    /// `{"payload": {"protocol": "tcp", "field": "dport"}}`.
    pub(super) fn json(&self) -> Value {
        json!({"payload": {"protocol": self.protocol, "field": self.name}})
    }
}

/// Bytes that are no field: base, and offset and length in bits.
pub(super) fn raw(base: Base, offset: u32, len: u32) -> Value {
    let base = match base {
        Base::Link => "ll",
        Base::Network => "nh",
        Base::Transport => "th",
        Base::Inner => "ih",
    };
    json!({"payload": {"base": base, "offset": u64::from(offset) * 8, "len": u64::from(len) * 8}})
}
