//! nft expressions: the fields compared, and the operands.

use std::net::IpAddr;

use serde_json::Value;

use crate::firewall::names;
use crate::firewall::parse::values::dscp_class;
use crate::firewall::ruleset::{AddrTypes, Field, Net, Operand};
use crate::wire::MacAddr;

use super::text;

/// The fields of a left side; several where it is a concatenation.
pub(super) fn fields(value: &Value) -> Vec<Field> {
    match value.get("concat").and_then(Value::as_array) {
        Some(parts) => parts.iter().map(field).collect(),
        None => vec![field(value)],
    }
}

/// One field.
pub(super) fn field(value: &Value) -> Field {
    let other = || Field::Other(text::expr(value));
    let key = |kind: &str| value.get(kind).and_then(|v| v.get("key")).and_then(Value::as_str);
    if let Some(payload) = value.get("payload") {
        let get = |key: &str| payload.get(key).and_then(Value::as_str).unwrap_or_default();
        let proto = get("protocol");
        return match (proto, get("field")) {
            ("ip", "saddr") => Field::Saddr { v6: false },
            ("ip6", "saddr") => Field::Saddr { v6: true },
            ("ip", "daddr") => Field::Daddr { v6: false },
            ("ip6", "daddr") => Field::Daddr { v6: true },
            ("ip", "protocol") => Field::Protocol { v6: false },
            ("ip6", "nexthdr") => Field::Protocol { v6: true },
            ("ip", "ttl") | ("ip6", "hoplimit") => Field::Ttl,
            ("ip" | "ip6", "dscp") => Field::Dscp,
            ("tcp" | "udp" | "sctp" | "dccp" | "udplite", "sport") => Field::Sport(names::protocol(proto)),
            ("tcp" | "udp" | "sctp" | "dccp" | "udplite", "dport") => Field::Dport(names::protocol(proto)),
            ("th", "sport") => Field::Sport(None),
            ("th", "dport") => Field::Dport(None),
            ("tcp", "flags") => Field::TcpFlags,
            ("icmp", "type") => Field::IcmpType { v6: false },
            ("icmp", "code") => Field::IcmpCode { v6: false },
            ("icmpv6", "type") => Field::IcmpType { v6: true },
            ("icmpv6", "code") => Field::IcmpCode { v6: true },
            ("ether", "saddr") => Field::EtherSaddr,
            ("ether", "type") => Field::EtherType,
            _ => other(),
        };
    }
    if let Some(key) = key("meta") {
        return match key {
            "iifname" | "iif" => Field::Iifname,
            "oifname" | "oif" => Field::Oifname,
            "mark" => Field::Mark,
            "l4proto" => Field::L4Proto,
            "nfproto" => Field::NfProto,
            "protocol" => Field::EtherType,
            "length" => Field::Length,
            "skuid" => Field::Skuid,
            "skgid" => Field::Skgid,
            "pkttype" => Field::PktType,
            _ => other(),
        };
    }
    if let Some(ct) = value.get("ct") {
        let original = ct.get("dir").is_none();
        return match ct.get("key").and_then(Value::as_str) {
            Some("state") => Field::CtState,
            Some("status") => Field::CtStatus,
            Some("mark") => Field::CtMark,
            Some("direction") => Field::CtDirection,
            Some("l4proto" | "protocol") if original => Field::L4Proto,
            _ => other(),
        };
    }
    if let Some(fib) = value.get("fib") {
        let flags: Vec<_> = match fib.get("flags") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        return match (fib.get("result").and_then(Value::as_str), flags.as_slice()) {
            (Some("type"), ["daddr"]) => Field::FibType { destination: true },
            (Some("type"), ["saddr"]) => Field::FibType { destination: false },
            _ => other(),
        };
    }
    other()
}

/// The operands of a right side: each a part for every field.
pub(super) fn operands(fields: &[Field], value: &Value) -> Vec<Vec<Operand>> {
    if let Some(set) = value.get("set") {
        return match set {
            Value::Array(list) => list.iter().map(|element| key(fields, unwrapped(element))).collect(),
            one => vec![key(fields, unwrapped(one))],
        };
    }
    vec![key(fields, value)]
}

/// An element out of its wrapping with timeout, comment or counter.
pub(super) fn unwrapped(element: &Value) -> &Value {
    element.get("elem").and_then(|elem| elem.get("val")).unwrap_or(element)
}

/// One key.
pub(super) fn key(fields: &[Field], value: &Value) -> Vec<Operand> {
    if let Some(name) = value.as_str().and_then(|text| text.strip_prefix('@')) {
        return vec![Operand::Set(name.to_owned())];
    }
    if value.as_str() == Some("*") && !matches!(fields, [Field::Iifname | Field::Oifname]) {
        return vec![Operand::Any];
    }
    match (value.get("concat").and_then(Value::as_array), fields) {
        (Some(parts), fields) if parts.len() == fields.len() => {
            parts.iter().zip(fields).map(|(part, field)| operand(field, part)).collect()
        }
        (None, [field]) => vec![operand(field, value)],
        _ => vec![Operand::Unknown(text::expr(value))],
    }
}

fn operand(field: &Field, value: &Value) -> Operand {
    let unknown = || Operand::Unknown(text::expr(value));
    if matches!(field, Field::Saddr { .. } | Field::Daddr { .. }) {
        return addresses(value).map_or_else(unknown, |(from, to)| Operand::AddrRange(from, to));
    }
    if matches!(field, Field::Iifname | Field::Oifname) {
        return value.as_str().map_or_else(unknown, |name| Operand::Name(name.to_owned()));
    }
    if let Some(range) = value.get("range").and_then(Value::as_array) {
        return match range.as_slice() {
            [from, to] => match (number(field, from), number(field, to)) {
                (Some(from), Some(to)) => Operand::NumberRange(from, to),
                _ => unknown(),
            },
            _ => unknown(),
        };
    }
    if let (Field::Mark | Field::CtMark, Some(_)) = (field, value.get("prefix")) {
        return unknown();
    }
    number(field, value).map_or_else(unknown, Operand::Number)
}

/// An address, a prefix or a range as first and last address.
pub(super) fn addresses(value: &Value) -> Option<(IpAddr, IpAddr)> {
    if let Some(text) = value.as_str() {
        let addr = text.parse().ok()?;
        return Some((addr, addr));
    }
    if let Some(prefix) = value.get("prefix") {
        let addr: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
        let net = Net::prefix(addr, u8::try_from(prefix.get("len")?.as_u64()?).ok()?)?;
        let last = match (net.addr, net.mask) {
            (IpAddr::V4(a), IpAddr::V4(m)) => IpAddr::V4((a.to_bits() | !m.to_bits()).into()),
            (IpAddr::V6(a), IpAddr::V6(m)) => IpAddr::V6((a.to_bits() | !m.to_bits()).into()),
            _ => return None,
        };
        return Some((net.addr, last));
    }
    match value.get("range")?.as_array()?.as_slice() {
        [from, to] => Some((from.as_str()?.parse().ok()?, to.as_str()?.parse().ok()?)),
        _ => None,
    }
}

/// A value of a field as a number: itself, a name, or several flags joined.
pub(super) fn number(field: &Field, value: &Value) -> Option<u64> {
    if let Some(n) = value.as_u64() {
        return Some(n);
    }
    let joined = value.get("|").and_then(Value::as_array).or_else(|| value.as_array());
    if let Some(list) = joined {
        return list.iter().try_fold(0, |all, part| Some(all | number(field, part)?));
    }
    named(field, value.as_str()?)
}

fn named(field: &Field, name: &str) -> Option<u64> {
    let pick = |table: &[(&str, u64)]| table.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    match field {
        Field::TcpFlags => {
            pick(&[("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ecn", 64), ("cwr", 128)])
        }
        Field::CtState => pick(&[("invalid", 1), ("established", 2), ("related", 4), ("new", 8), ("untracked", 64)]),
        Field::CtStatus => pick(&[
            ("expected", 1),
            ("seen-reply", 2),
            ("assured", 4),
            ("confirmed", 8),
            ("snat", 16),
            ("dnat", 32),
            ("dying", 512),
        ]),
        Field::CtDirection => pick(&[("original", 0), ("reply", 1)]),
        Field::L4Proto | Field::Protocol { .. } => names::protocol(name).map(u64::from),
        Field::NfProto => pick(&[("ipv4", 2), ("ipv6", 10)]),
        Field::EtherType => {
            pick(&[("ip", 0x0800), ("ip6", 0x86dd), ("arp", 0x0806), ("vlan", 0x8100), ("8021q", 0x8100)])
        }
        Field::Sport(_) | Field::Dport(_) => names::port(name).map(u64::from),
        Field::IcmpType { v6 } => icmp_type(name, *v6),
        Field::IcmpCode { v6: false } => pick(&[
            ("net-unreachable", 0),
            ("host-unreachable", 1),
            ("prot-unreachable", 2),
            ("port-unreachable", 3),
            ("frag-needed", 4),
            ("net-prohibited", 9),
            ("host-prohibited", 10),
            ("admin-prohibited", 13),
        ]),
        Field::IcmpCode { v6: true } => pick(&[
            ("no-route", 0),
            ("admin-prohibited", 1),
            ("addr-unreachable", 3),
            ("port-unreachable", 4),
            ("policy-fail", 5),
            ("reject-route", 6),
        ]),
        Field::Dscp => dscp_class(name).map(u64::from),
        Field::PktType => pick(&[("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)]),
        Field::EtherSaddr => {
            let mac: MacAddr = name.parse().ok()?;
            Some(mac.0.iter().fold(0, |n, octet| n << 8 | u64::from(*octet)))
        }
        Field::FibType { .. } => {
            let upper = name.to_ascii_uppercase();
            AddrTypes::NAMES.iter().position(|n| *n == upper).and_then(|n| u64::try_from(n).ok())
        }
        Field::Skuid | Field::Skgid => pick(&[("root", 0)]),
        Field::Other(_) => name.parse().ok(),
        _ => None,
    }
}

/// nft's names of ICMP types that iptables spells otherwise, then the common ones.
fn icmp_type(name: &str, v6: bool) -> Option<u64> {
    let own = match (name, v6) {
        ("nd-router-solicit", true) => Some(133),
        ("nd-router-advert", true) => Some(134),
        ("nd-neighbor-solicit", true) => Some(135),
        ("nd-neighbor-advert", true) => Some(136),
        ("nd-redirect", true) => Some(137),
        ("router-renumbering", true) => Some(138),
        ("ind-neighbor-solicit", true) => Some(141),
        ("ind-neighbor-advert", true) => Some(142),
        ("mld2-listener-report", true) => Some(143),
        ("mld-listener-reduction" | "mld-listener-done", true) => Some(132),
        ("info-request", false) => Some(15),
        ("info-reply", false) => Some(16),
        _ => None,
    };
    own.or_else(|| names::icmp_type(name, v6).and_then(|(kind, _, _)| kind).map(u64::from))
}
