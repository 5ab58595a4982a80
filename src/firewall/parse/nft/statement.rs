//! nft statements: matches, verdicts, and what is done on the way.

use std::net::IpAddr;

use serde_json::Value;

use crate::firewall::ruleset::{
    CompareOp, Comparison, ConnmarkOp, Family, Field, Match, NatRange, Net, Operand, PortRange, RejectWith, Target,
    Test, TtlOp, VerdictMap,
};

use super::maps::{self, OfTable};
use super::{expr, text};

/// What one statement is to a rule.
pub(super) enum Read {
    Match(Match),
    Counter(u64, u64),
    Target(Target),
    Nothing,
}

pub(super) fn read(statement: &Value, maps: &OfTable<'_>) -> Read {
    let family = maps.family;
    let Some((name, value)) = statement.as_object().and_then(|object| object.iter().next()) else {
        // `"accept"` as a plain word is not libnftables' way, yet plain.
        return match statement.as_str() {
            Some(word) => Read::Target(verdict(&serde_json::json!({ word: null }))),
            None => Read::Match(unknown_match(statement)),
        };
    };
    let stateful = |module: &str| {
        Read::Match(Match::is(Test::Stateful { module: module.to_owned(), options: text::statement(statement) }))
    };
    let observe = || Read::Target(Target::Continue { name: name.clone(), options: text::statement(statement) });
    match name.as_str() {
        "match" => Read::Match(comparison(value)),
        "accept" | "drop" | "return" | "jump" | "goto" => Read::Target(verdict(statement)),
        "continue" => Read::Nothing,
        "vmap" => Read::Target(verdict_map(value)),
        "counter" => match (value.get("packets").and_then(Value::as_u64), value.get("bytes").and_then(Value::as_u64)) {
            (Some(packets), Some(bytes)) => Read::Counter(packets, bytes),
            _ => Read::Nothing,
        },
        "log" => Read::Target(Target::Log { options: text::statement(statement) }),
        "reject" => Read::Target(Target::Reject(reject(value, family))),
        "limit" | "quota" | "ct count" | "connlimit" | "last" => stateful(name),
        "set" | "map" => {
            // A rate limit within makes the statement a match.
            let inner = value.get("stmt").and_then(Value::as_array);
            if inner.is_some_and(|list| list.iter().any(|s| s.get("counter").is_none())) {
                stateful("set")
            } else {
                observe()
            }
        }
        "notrack" => Read::Target(Target::Notrack),
        "queue" => {
            let number = value.get("num").and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
            let bypass = value.get("flags").is_some_and(|flags| flags.to_string().contains("bypass"));
            Read::Target(Target::Queue { number, bypass, options: text::statement(statement) })
        }
        "mangle" => mangle(statement, value, maps),
        "dnat" | "snat" | "masquerade" | "redirect" => Read::Target(nat(name, value, statement, maps)),
        "dup" | "flow" | "ct helper" | "ct timeout" | "ct expectation" | "secmark" => observe(),
        // What the text reader could not read.
        "unknown" => {
            let text = value.as_str().unwrap_or_default();
            Read::Target(Target::Unknown { name: text.to_owned(), options: String::new() })
        }
        _ => Read::Target(Target::Unknown { name: name.clone(), options: text::expr(value) }),
    }
}

fn unknown_match(value: &Value) -> Match {
    Match::is(Test::Unknown { module: String::new(), options: text::statement(value) })
}

/// `ip saddr & 255.0.0.255 == 10.0.0.5`
fn masked_address(field: &Field, mask: &Value, right: &Value, op: &str) -> Option<Match> {
    if !matches!(field, Field::Saddr { .. } | Field::Daddr { .. }) || !matches!(op, "==" | "!=") {
        return None;
    }
    let address = |value: &Value| value.as_str()?.parse::<std::net::IpAddr>().ok();
    let value = address(right)?;
    // With bits beyond the mask it never holds.
    let net = Net::masked(value, address(mask)?).filter(|net| net.addr == value)?;
    let operands = vec![vec![Operand::AddrMasked(net)]];
    let test = Test::Compare(Comparison { fields: vec![field.clone()], mask: None, op: CompareOp::Eq, operands });
    Some(Match::new(op == "!=", test))
}

fn comparison(value: &Value) -> Match {
    let (Some(left), Some(right)) = (value.get("left"), value.get("right")) else { return unknown_match(value) };
    let op = value.get("op").and_then(Value::as_str).unwrap_or("==");
    let (left, mask) = match left.get("&").and_then(Value::as_array).map(Vec::as_slice) {
        Some([inner, mask]) => {
            let field = expr::field(inner);
            if let Some(masked) = masked_address(&field, mask, right, op) {
                return masked;
            }
            match expr::number(&field, mask) {
                Some(mask) => (inner, Some(mask)),
                None => return unknown_match(&serde_json::json!({ "match": value })),
            }
        }
        _ => (left, None),
    };
    let fields = expr::fields(left);
    let has_flags = matches!(fields.as_slice(), [field] if field.is_flags());
    // A plain list of flags means their sum (`["established", "related"]`).
    let listed = right.as_array().is_some_and(|list| has_flags && list.iter().all(|v| v.is_string() || v.is_number()));
    let operands = match (listed, fields.as_slice()) {
        (true, [field]) => match expr::number(field, right) {
            Some(number) => vec![vec![Operand::Number(number)]],
            None => return unknown_match(&serde_json::json!({ "match": value })),
        },
        _ => expr::operands(&fields, right),
    };
    let (op, negated) = match op {
        "==" | "in" if op == "==" || !has_flags => (CompareOp::Eq, false),
        "!=" => (CompareOp::Eq, true),
        "in" if has_flags => (CompareOp::Flags, false),
        "!" => (CompareOp::Flags, true),
        "<" => (CompareOp::Lt, false),
        ">" => (CompareOp::Gt, false),
        "<=" => (CompareOp::Le, false),
        ">=" => (CompareOp::Ge, false),
        _ => return unknown_match(&serde_json::json!({ "match": value })),
    };
    Match::new(negated, Test::Compare(Comparison { fields, mask, op, operands }))
}

/// A verdict: `{"accept": null}`, `{"jump": {"target": "x"}}`.
pub(super) fn verdict(value: &Value) -> Target {
    let Some((name, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return Target::Unknown { name: text::expr(value), options: String::new() };
    };
    let chain = || inner.get("target").and_then(Value::as_str).unwrap_or_default().to_owned();
    match name.as_str() {
        "accept" => Target::Accept,
        "drop" => Target::Drop,
        "return" => Target::Return,
        "jump" => Target::Jump(chain()),
        "goto" => Target::Goto(chain()),
        "continue" => Target::Continue { name: "continue".to_owned(), options: String::new() },
        _ => Target::Unknown { name: name.clone(), options: text::expr(inner) },
    }
}

fn verdict_map(value: &Value) -> Target {
    let unknown = || Target::Unknown { name: "vmap".to_owned(), options: text::expr(value) };
    let (Some(key), Some(data)) = (value.get("key"), value.get("data")) else { return unknown() };
    let key = expr::fields(key);
    if let Some(name) = data.as_str().and_then(|name| name.strip_prefix('@')) {
        return Target::VerdictMap(VerdictMap { key, elements: Vec::new(), name: Some(name.to_owned()) });
    }
    let Some(list) = data.get("set").and_then(Value::as_array) else { return unknown() };
    let mut elements = Vec::new();
    for element in list {
        match element.as_array().map(Vec::as_slice) {
            Some([from, to]) => elements.push((expr::key(&key, expr::unwrapped(from)), verdict(to))),
            _ => return unknown(),
        }
    }
    // The default is what is left when no other element fits.
    elements.sort_by_key(|(key, _)| key.as_slice() == [crate::firewall::ruleset::Operand::Any]);
    Target::VerdictMap(VerdictMap { key, elements, name: None })
}

fn reject(value: &Value, family: Family) -> RejectWith {
    let name = value.get("expr").and_then(Value::as_str);
    let pick = |table: &[(&str, u8)], default| {
        name.and_then(|name| table.iter().find(|(n, _)| *n == name)).map_or(default, |(_, code)| *code)
    };
    match (value.get("type").and_then(Value::as_str), family) {
        (Some("tcp reset"), _) => RejectWith::TcpReset,
        (Some("icmp"), _) | (None, Family::Ip) => RejectWith::Icmp(pick(
            &[
                ("net-unreachable", 0),
                ("host-unreachable", 1),
                ("prot-unreachable", 2),
                ("net-prohibited", 9),
                ("host-prohibited", 10),
                ("admin-prohibited", 13),
            ],
            3,
        )),
        (Some("icmpv6"), _) | (None, Family::Ip6) => RejectWith::Icmp6(pick(
            &[
                ("no-route", 0),
                ("admin-prohibited", 1),
                ("addr-unreachable", 3),
                ("policy-fail", 5),
                ("reject-route", 6),
            ],
            4,
        )),
        _ => RejectWith::Icmpx(pick(&[("no-route", 0), ("host-unreachable", 2), ("admin-prohibited", 3)], 1)),
    }
}

fn mangle(statement: &Value, value: &Value, maps: &OfTable<'_>) -> Read {
    if let Some(map) = value.get("value").and_then(|to| to.get("map")) {
        let one = |data: &Value| {
            let mut plain = value.clone();
            *plain.get_mut("value")? = data.clone();
            match mangle(statement, &plain, maps) {
                Read::Target(Target::Unknown { .. } | Target::VerdictMap(_)) => None,
                Read::Target(target) => Some(target),
                _ => None,
            }
        };
        let unknown = || Target::Unknown { name: text::statement(statement), options: String::new() };
        return Read::Target(maps::lower(map, maps, one).unwrap_or_else(unknown));
    }
    let unknown = || Read::Target(Target::Unknown { name: text::statement(statement), options: String::new() });
    let (Some(key), Some(to)) = (value.get("key"), value.get("value")) else { return unknown() };
    let mark = |value: &Value| matches!(expr::field(value), Field::Mark);
    let ct_mark = |value: &Value| matches!(expr::field(value), Field::CtMark);
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let octet = |value: &Value| value.as_u64().and_then(|n| u8::try_from(n).ok());
    let target = match expr::field(key) {
        Field::Mark if ct_mark(to) => Target::Connmark(ConnmarkOp::Restore { nfmask: u32::MAX, ctmask: u32::MAX }),
        Field::CtMark if mark(to) => Target::Connmark(ConnmarkOp::Save { nfmask: u32::MAX, ctmask: u32::MAX }),
        Field::Mark => match set_bits(to, mark).or_else(|| number(to).map(|n| (n, u32::MAX))) {
            Some((value, mask)) => Target::Mark { value, mask },
            None => return unknown(),
        },
        Field::CtMark => match set_bits(to, ct_mark).or_else(|| number(to).map(|n| (n, u32::MAX))) {
            Some((value, mask)) => Target::Connmark(ConnmarkOp::Set { value, mask }),
            None => return unknown(),
        },
        Field::Ttl => match octet(to) {
            Some(value) => Target::Ttl { v6: false, op: TtlOp::Set, value },
            None => return unknown(),
        },
        Field::Dscp => match expr::number(&Field::Dscp, to).and_then(|n| u8::try_from(n).ok()) {
            Some(class) if class < 64 => Target::Tos { value: class << 2, mask: 0xfc, dscp: true },
            _ => return unknown(),
        },
        // Addresses and ports rewritten in place change what later rules see.
        Field::Saddr { .. } | Field::Daddr { .. } | Field::Sport(_) | Field::Dport(_) | Field::TcpFlags => {
            return unknown();
        }
        _ => Target::Continue { name: "mangle".to_owned(), options: text::statement(statement) },
    };
    Read::Target(target)
}

/// `mark | n`, `mark & n`, `mark ^ n` as (value, mask) of `(mark & !mask) ^ value`.
fn set_bits(value: &Value, own: impl Fn(&Value) -> bool) -> Option<(u32, u32)> {
    let (op, parts) = value.as_object()?.iter().next()?;
    let [left, right] = parts.as_array()?.as_slice() else { return None };
    let n = u32::try_from(right.as_u64()?).ok()?;
    if !own(left) {
        // (mark & a) | b
        let ("|" | "^", Some((0, cleared))) = (op.as_str(), set_bits(left, own)) else { return None };
        let cleared = if op == "|" { cleared | n } else { cleared };
        return Some((n, cleared));
    }
    match op.as_str() {
        "|" => Some((n, n)),
        "&" => Some((0, !n)),
        "^" => Some((n, 0)),
        _ => None,
    }
}

fn nat(name: &str, value: &Value, statement: &Value, maps: &OfTable<'_>) -> Target {
    let unknown = || Target::Unknown { name: name.to_owned(), options: text::statement(statement) };
    for part in ["addr", "port"] {
        let Some(map) = value.get(part).and_then(|v| v.get("map")) else { continue };
        let one = |data: &Value| {
            let mut plain = value.clone();
            // `80 : 10.0.0.1 . 8080` gives both.
            match data.get("concat").and_then(Value::as_array).map(Vec::as_slice) {
                Some([addr, port]) if part == "addr" && value.get("port").is_none() => {
                    plain["addr"] = addr.clone();
                    plain["port"] = port.clone();
                }
                _ => plain[part] = data.clone(),
            }
            match nat(name, &plain, statement, maps) {
                Target::Unknown { .. } | Target::VerdictMap(_) => None,
                target => Some(target),
            }
        };
        return maps::lower(map, maps, one).unwrap_or_else(unknown);
    }
    let mut range = NatRange::default();
    if let Some(addr) = value.get("addr") {
        let read: Option<(IpAddr, IpAddr)> = expr::addresses(addr);
        match read {
            Some(addrs) => range.addrs = Some(addrs),
            None => return unknown(),
        }
    }
    if let Some(port) = value.get("port") {
        let one = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
        let ends = match port.get("range").and_then(Value::as_array).map(Vec::as_slice) {
            Some([from, to]) => one(from).zip(one(to)),
            _ => one(port).map(|port| (port, port)),
        };
        match ends {
            Some((from, to)) => range.ports = Some(PortRange { from, to }),
            None => return unknown(),
        }
    }
    if let Some(flags) = value.get("flags") {
        let words = match flags {
            Value::String(word) => vec![word.as_str()],
            _ => flags.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        };
        if words.iter().any(|word| word.contains("prefix")) {
            return unknown();
        }
        range.flags = words.join(" ");
    }
    match name {
        "dnat" => Target::Dnat(range),
        "snat" => Target::Snat(range),
        "masquerade" => Target::Masquerade(range),
        _ => Target::Redirect(range),
    }
}
