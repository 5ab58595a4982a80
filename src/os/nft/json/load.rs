//! Expressions that load a register, as the left sides of comparisons.

use serde_json::{Map, Value, json};

use super::super::expr::{Base, Expr};
use super::super::objects::family;
use super::kind::Kind;

/// Where a register's content came from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// Bytes of the packet, named when it is known which header they are in.
    Payload { base: Base, offset: u32 },
    /// Anything that JSON already says.
    Json(Value),
    /// A constant.
    Constant(Vec<u8>),
}

/// What a register holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loaded {
    pub(super) source: Source,
    pub(super) kind: Kind,
    pub(super) len: u32,
    /// `(value & mask) ^ xor`.
    pub(super) mask: Option<(Vec<u8>, Vec<u8>)>,
    /// `<<` or `>>` by so many bits.
    pub(super) shift: Option<(&'static str, u32)>,
    /// `NFT_META_*`, for the keys that say which headers follow.
    pub(super) meta: Option<u32>,
}

impl Loaded {
    pub(super) fn new(source: Source, kind: Kind, len: u32) -> Self {
        Self { source, kind, len, mask: None, shift: None, meta: None }
    }
}

const META: &[(&str, Kind, u32)] = &[
    ("length", Kind::HostNumber, 4),
    ("protocol", Kind::EtherType, 2),
    ("priority", Kind::HostNumber, 4),
    ("mark", Kind::HostNumber, 4),
    ("iif", Kind::IfIndex, 4),
    ("oif", Kind::IfIndex, 4),
    ("iifname", Kind::IfName, 16),
    ("oifname", Kind::IfName, 16),
    ("iiftype", Kind::HostNumber, 2),
    ("oiftype", Kind::HostNumber, 2),
    ("skuid", Kind::HostNumber, 4),
    ("skgid", Kind::HostNumber, 4),
    ("nftrace", Kind::Number, 1),
    ("rtclassid", Kind::HostNumber, 4),
    ("secmark", Kind::HostNumber, 4),
    ("nfproto", Kind::NfProto, 1),
    ("l4proto", Kind::Protocol, 1),
    ("ibrname", Kind::IfName, 16),
    ("obrname", Kind::IfName, 16),
    ("pkttype", Kind::PktType, 1),
    ("cpu", Kind::HostNumber, 4),
    ("iifgroup", Kind::HostNumber, 4),
    ("oifgroup", Kind::HostNumber, 4),
    ("cgroup", Kind::HostNumber, 4),
    ("random", Kind::HostNumber, 4),
    ("ipsec", Kind::Boolean, 1),
    ("iifkind", Kind::IfName, 16),
    ("oifkind", Kind::IfName, 16),
    ("ibrpvid", Kind::HostNumber, 2),
    ("ibrvproto", Kind::EtherType, 2),
    ("time", Kind::HostNumber, 8),
    ("day", Kind::Day, 1),
    ("hour", Kind::HostNumber, 4),
    ("sdif", Kind::IfIndex, 4),
    ("sdifname", Kind::IfName, 16),
];

const CT: &[(&str, Kind, u32)] = &[
    ("state", Kind::CtState, 4),
    ("direction", Kind::CtDirection, 1),
    ("status", Kind::CtStatus, 4),
    ("mark", Kind::HostNumber, 4),
    ("secmark", Kind::HostNumber, 4),
    ("expiration", Kind::HostNumber, 4),
    ("helper", Kind::Text, 16),
    ("l3proto", Kind::NfProto, 1),
    ("saddr", Kind::Ipv4, 4),
    ("daddr", Kind::Ipv4, 4),
    ("protocol", Kind::Protocol, 1),
    ("proto-src", Kind::Number, 2),
    ("proto-dst", Kind::Number, 2),
    ("label", Kind::Text, 16),
    ("packets", Kind::HostNumber, 8),
    ("bytes", Kind::HostNumber, 8),
    ("avgpkt", Kind::HostNumber, 8),
    ("zone", Kind::HostNumber, 2),
    ("event", Kind::HostNumber, 4),
    ("ip saddr", Kind::Ipv4, 4),
    ("ip daddr", Kind::Ipv4, 4),
    ("ip6 saddr", Kind::Ipv6, 16),
    ("ip6 daddr", Kind::Ipv6, 16),
    ("id", Kind::HostNumber, 4),
];

/// `{"meta": {"key": "mark"}}`.
pub(super) fn meta_json(key: u32) -> Option<Value> {
    let (name, ..) = META.get(key as usize)?;
    Some(json!({"meta": {"key": name}}))
}

/// `{"ct": {"key": "mark"}}`.
pub(super) fn ct_json(key: u32, direction: Option<u8>) -> Option<Value> {
    let (name, ..) = CT.get(key as usize)?;
    let mut ct = json!({"key": name});
    if let Some(direction) = direction {
        ct["dir"] = json!(if direction == 0 { "original" } else { "reply" });
    }
    Some(json!({"ct": ct}))
}

/// The register that an expression loads, and with what; `None` for one that loads none, or one not known.
pub(super) fn load(expr: &Expr, table_family: u8) -> Option<(u32, Loaded)> {
    let json = |dreg: &u32, value: Value, kind, len| Some((*dreg, Loaded::new(Source::Json(value), kind, len)));
    match expr {
        Expr::Payload { dreg, base, offset, len } => {
            let source = Source::Payload { base: *base, offset: *offset };
            Some((*dreg, Loaded::new(source, Kind::Number, *len)))
        }
        Expr::Meta { key, dreg } => {
            let (_, kind, len) = *META.get(*key as usize)?;
            let loaded = Loaded::new(Source::Json(meta_json(*key)?), kind, len);
            Some((*dreg, Loaded { meta: Some(*key), ..loaded }))
        }
        Expr::Ct { key, dreg, direction } => {
            let (_, kind, len) = *CT.get(*key as usize)?;
            let wide = table_family == family::IPV6 && matches!(key, 8 | 9);
            let (kind, len) = if wide { (Kind::Ipv6, 16) } else { (kind, len) };
            json(dreg, ct_json(*key, *direction)?, kind, len)
        }
        Expr::Fib { dreg, result, flags } => {
            let names = [(1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif")];
            let set: Vec<_> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
            let (name, kind, len) = match result {
                1 => ("oif", Kind::IfIndex, 4),
                2 => ("oifname", Kind::IfName, 16),
                3 => ("type", Kind::AddrType, 4),
                _ => return None,
            };
            let kind = if flags & 32 != 0 { Kind::Boolean } else { kind };
            json(dreg, json!({"fib": {"result": name, "flags": set}}), kind, len)
        }
        Expr::Rt { dreg, key } => {
            let (value, kind, len) = match key {
                0 => (json!({"key": "classid"}), Kind::HostNumber, 4),
                1 => (json!({"key": "nexthop", "family": "ip"}), Kind::Ipv4, 4),
                2 => (json!({"key": "nexthop", "family": "ip6"}), Kind::Ipv6, 16),
                3 => (json!({"key": "mtu"}), Kind::HostNumber, 2),
                4 => (json!({"key": "ipsec"}), Kind::Boolean, 1),
                _ => return None,
            };
            json(dreg, json!({"rt": value}), kind, len)
        }
        Expr::Socket { dreg, key, .. } => {
            let name = ["transparent", "mark", "wildcard"].get(*key as usize)?;
            let (kind, len) = if *key == 1 { (Kind::HostNumber, 4) } else { (Kind::Number, 1) };
            json(dreg, json!({"socket": {"key": name}}), kind, len)
        }
        Expr::Numgen { dreg, modulus, random, offset } => {
            let mode = if *random { "random" } else { "inc" };
            let value = json!({"numgen": {"mode": mode, "mod": modulus, "offset": offset}});
            json(dreg, value, Kind::HostNumber, 4)
        }
        Expr::Exthdr { dreg, kind, offset, len, op, present } => {
            let (value, kind) = exthdr(*op, *kind, *offset, *len, *present)?;
            json(dreg, value, kind, *len)
        }
        _ => None,
    }
}

fn exthdr(op: u32, number: u8, offset: u32, len: u32, present: bool) -> Option<(Value, Kind)> {
    let (outer, name, field) = match op {
        0 => {
            let names = [(0, "hbh"), (43, "rt"), (44, "frag"), (51, "ah"), (60, "dst"), (135, "mh")];
            let name = names.iter().find(|(kind, _)| *kind == number)?.1;
            let field = match (number, offset, len) {
                (_, 0, 1) => Some("nexthdr"),
                (0 | 43 | 51 | 60, 1, 1) => Some("hdrlength"),
                (44, 4, 4) => Some("id"),
                (43, 2, 1) => Some("type"),
                (43, 3, 1) => Some("seg-left"),
                _ => None,
            };
            ("exthdr", name, field)
        }
        1 => {
            let names =
                [(0, "eol"), (1, "nop"), (2, "maxseg"), (3, "window"), (4, "sack-perm"), (5, "sack"), (8, "timestamp")];
            let Some((_, name)) = names.iter().find(|(kind, _)| *kind == number) else {
                let raw = json!({"base": number, "offset": u64::from(offset) * 8, "len": u64::from(len) * 8});
                return Some((json!({"tcp option": raw}), if present { Kind::Boolean } else { Kind::Number }));
            };
            let field = match (number, offset, len) {
                (2, 2, 2) => Some("size"),
                (3, 2, 1) => Some("count"),
                (8, 2, 4) => Some("tsval"),
                (8, 6, 4) => Some("tsecr"),
                (_, 1, 1) => Some("length"),
                _ => None,
            };
            ("tcp option", *name, field)
        }
        _ => return None,
    };
    let mut inner = Map::new();
    inner.insert("name".to_owned(), json!(name));
    if !present {
        inner.insert("field".to_owned(), json!(field?));
    }
    Some((json!({outer: inner}), if present { Kind::Boolean } else { Kind::Number }))
}
