//! A rule's expressions, which work on registers, as the statements that nft prints.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::expr::{Base, Data, Expr, Nat, Op};
use super::super::iptables::slot;
use super::super::objects::{Rule, Ruleset, family};
use super::field::{self, Headers};
use super::kind::{ICMP_CODE, ICMPV6_CODE, Kind, prefix_len};
use super::load::{Loaded, Source, ct_json, load, meta_json};
use super::{sets, statement};

/// One rule on its way.
pub(super) struct Decoder<'a> {
    ruleset: &'a Ruleset,
    rule: &'a Rule,
    headers: Headers,
    registers: BTreeMap<u32, Loaded>,
    /// Statements; one that only says what a later one implies is taken out.
    out: Vec<Option<Value>>,
    /// Which statements establish the link, network and transport header.
    says_link: Option<usize>,
    says_network: Option<usize>,
    says_transport: Option<usize>,
    /// A lower bound: its statement, what was compared, and with what.
    lower: Option<(usize, Loaded, Vec<u8>)>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(ruleset: &'a Ruleset, rule: &'a Rule) -> Self {
        let network = match rule.family {
            family::IPV4 | family::IPV6 | family::ARP => Some(rule.family),
            _ => None,
        };
        Self {
            ruleset,
            rule,
            headers: Headers { network, transport: None },
            registers: BTreeMap::new(),
            out: Vec::new(),
            says_link: None,
            says_network: None,
            says_transport: None,
            lower: None,
        }
    }

    pub(super) fn statements(mut self) -> Vec<Value> {
        for expr in &self.rule.exprs {
            if self.expr(expr).is_none() {
                self.out.push(Some(statement::unknown(expr)));
            }
        }
        self.out.into_iter().flatten().collect()
    }

    fn push(&mut self, statement: Value) {
        self.out.push(Some(statement));
    }

    fn register(&self, register: u32) -> Option<&Loaded> {
        self.registers.get(&slot(register))
    }

    fn expr(&mut self, expr: &Expr) -> Option<()> {
        if let Some((register, loaded)) = load(expr, self.rule.family) {
            self.registers.insert(slot(register), loaded);
            return Some(());
        }
        match expr {
            Expr::Immediate { dreg: 0, data: Data::Verdict(verdict) } => self.push(statement::verdict(verdict)),
            Expr::Immediate { dreg, data: Data::Value(value) } => {
                let len = u32::try_from(value.len()).ok()?;
                let loaded = Loaded::new(Source::Constant(value.clone()), Kind::Number, len);
                self.registers.insert(slot(*dreg), loaded);
            }
            Expr::Bitwise { sreg, dreg, op, mask, xor, shift, .. } => {
                let mut loaded = self.register(*sreg)?.clone();
                match op {
                    0 if loaded.mask.is_none() && loaded.shift.is_none() => {
                        loaded.mask = Some((mask.clone(), xor.clone()));
                    }
                    1 if loaded.shift.is_none() => loaded.shift = Some(("<<", *shift)),
                    2 if loaded.shift.is_none() => loaded.shift = Some((">>", *shift)),
                    _ => return None,
                }
                self.registers.insert(slot(*dreg), loaded);
            }
            Expr::Byteorder { sreg, dreg, .. } => {
                let mut loaded = self.register(*sreg)?.clone();
                loaded.kind = loaded.kind.swapped();
                self.registers.insert(slot(*dreg), loaded);
            }
            Expr::Cmp { sreg, op, data } => {
                let loaded = self.register(*sreg)?.clone();
                self.compare(&loaded, *op, data)?;
            }
            Expr::Range { sreg, neq, from, to } => {
                let loaded = self.register(*sreg)?.clone();
                let (left, kind) = self.left(&loaded)?;
                let right = json!({"range": [kind.value(from), kind.value(to)]});
                self.push(matches(if *neq { "!=" } else { "==" }, &left, &right));
            }
            Expr::Lookup { sreg, set, dreg, invert, .. } => self.lookup(*sreg, set, *dreg, *invert)?,
            Expr::MetaSet { key, sreg } => {
                let kind = if *key == 3 { Kind::HostNumber } else { Kind::Number };
                let value = self.value(*sreg, kind)?;
                self.push(json!({"mangle": {"key": meta_json(*key)?, "value": value}}));
            }
            Expr::CtSet { key, sreg, direction } => {
                let value = self.value(*sreg, Kind::HostNumber)?;
                self.push(json!({"mangle": {"key": ct_json(*key, *direction)?, "value": value}}));
            }
            Expr::PayloadSet { sreg, base, offset, len } => {
                let field = field::find(*base, *offset, *len, self.headers);
                let key = field.map_or_else(|| field::raw(*base, *offset, *len), |field| field.json());
                let value = self.value(*sreg, field.map_or(Kind::Number, |field| field.kind))?;
                self.push(json!({"mangle": {"key": key, "value": value}}));
            }
            Expr::Reject { kind, code } => self.reject(*kind, *code)?,
            Expr::Nat(nat) => {
                let name = if nat.kind == 1 { "dnat" } else { "snat" };
                self.nat(name, nat)?;
            }
            Expr::Masq(nat) => self.nat("masquerade", nat)?,
            Expr::Redir(nat) => self.nat("redirect", nat)?,
            Expr::Dynset { set, op, sreg, data, timeout, exprs } => {
                if data.is_some() {
                    return None;
                }
                self.dynset(set, *op, *sreg, *timeout, exprs)?;
            }
            other => self.push(statement::simple(other)),
        }
        Some(())
    }

    /// A register as the left side of a comparison, without its mask; what established the header
    /// that it is in need not be said again.
    fn plain(&mut self, loaded: &Loaded) -> (Value, Kind) {
        match &loaded.source {
            Source::Json(value) => (value.clone(), loaded.kind),
            Source::Constant(value) => (loaded.kind.value(value), loaded.kind),
            Source::Payload { base, offset } => match field::find(*base, *offset, loaded.len, self.headers) {
                Some(field) => {
                    self.implied(*base);
                    (field.json(), field.kind)
                }
                None => (field::raw(*base, *offset, loaded.len), Kind::Number),
            },
        }
    }

    fn implied(&mut self, base: Base) {
        let icmp = matches!(self.headers.transport, Some(1 | 58));
        let said = match base {
            Base::Link => [self.says_link, None],
            Base::Network => [self.says_network, None],
            Base::Transport if icmp => [self.says_transport, self.says_network],
            Base::Transport => [self.says_transport, None],
            Base::Inner => [None, None],
        };
        for index in said.into_iter().flatten() {
            if let Some(statement) = self.out.get_mut(index) {
                *statement = None;
            }
        }
    }

    /// With mask, flipped bits and shift.
    fn left(&mut self, loaded: &Loaded) -> Option<(Value, Kind)> {
        let (mut left, mut kind) = self.plain(loaded);
        if let Some((mask, xor)) = &loaded.mask {
            if mask.iter().any(|byte| *byte != u8::MAX) {
                let mask = if kind.is_flags() { kind.flags(kind.number(mask)?) } else { json!(kind.number(mask)?) };
                left = json!({"&": [left, mask]});
            }
            if xor.iter().any(|byte| *byte != 0) {
                left = json!({"^": [left, kind.number(xor)?]});
            }
            if !kind.is_flags() {
                kind = if kind.is_host() { Kind::HostNumber } else { Kind::Number };
            }
        }
        if let Some((operator, bits)) = loaded.shift {
            left = json!({operator: [left, bits]});
        }
        Some((left, kind))
    }

    fn compare(&mut self, loaded: &Loaded, op: Op, data: &[u8]) -> Option<()> {
        let equal = match op {
            Op::Eq => true,
            Op::Neq => false,
            _ => return self.order(loaded, op, data),
        };
        let sign = if equal { "==" } else { "!=" };
        if let (Some((mask, xor)), None) = (&loaded.mask, loaded.shift)
            && xor.iter().all(|byte| *byte == 0)
            && self.masked(loaded, mask, equal, data).is_some()
        {
            return Some(());
        }
        if let (Source::Payload { base, offset }, None, None) = (&loaded.source, &loaded.mask, loaded.shift)
            && field::find(*base, *offset, loaded.len, self.headers).is_none()
            && let Some(fields) = field::split(*base, *offset, loaded.len, self.headers)
            && (equal || fields.len() == 1)
        {
            self.implied(*base);
            let mut rest = data;
            for field in fields {
                let (part, tail) = rest.split_at_checked((field.len as usize).min(rest.len()))?;
                rest = tail;
                let short = part.len() < field.len as usize;
                let right = if short {
                    field.kind.prefix(part, u32::try_from(part.len() * 8).ok()?)?
                } else {
                    field.kind.value(part)
                };
                self.push(matches(sign, &field.json(), &right));
            }
            return Some(());
        }
        let (left, kind) = self.left(loaded)?;
        let right = kind.value(data);
        // nft writes a comparison of flags with one value as it is, and a test of any as `in`.
        self.push(matches(sign, &left, &right));
        if equal && loaded.mask.is_none() {
            self.established(loaded, data);
        }
        Some(())
    }

    /// `<`, `>` and the two halves of a range.
    fn order(&mut self, loaded: &Loaded, op: Op, data: &[u8]) -> Option<()> {
        if op == Op::Lte
            && let Some((index, lower, from)) = self.lower.take()
            && lower == *loaded
            && index + 1 == self.out.len()
        {
            let (left, kind) = self.left(loaded)?;
            let right = sets::span(kind, &from, data);
            self.out[index] = Some(matches("==", &left, &right));
            return Some(());
        }
        let sign = match op {
            Op::Lt => "<",
            Op::Gt => ">",
            Op::Lte => "<=",
            _ => ">=",
        };
        let (left, kind) = self.left(loaded)?;
        self.push(matches(sign, &left, &kind.value(data)));
        if op == Op::Gte {
            self.lower = Some((self.out.len() - 1, loaded.clone(), data.to_vec()));
        }
        Some(())
    }

    /// Prefixes, tests of any of some flags, and parts of an octet; `None` if it is none of these.
    fn masked(&mut self, loaded: &Loaded, mask: &[u8], equal: bool, data: &[u8]) -> Option<()> {
        let sign = if equal { "==" } else { "!=" };
        if let Source::Payload { base: Base::Network, offset } = loaded.source {
            // The six upper bits of the traffic class.
            let (name, shift) = match (self.headers.network, offset, mask) {
                (Some(family::IPV4), 1, [0xfc]) => ("ip", 2),
                (Some(family::IPV6), 0, [0x0f, 0xc0]) => ("ip6", 6),
                _ => ("", 0),
            };
            if !name.is_empty() {
                let value = Kind::Number.number(data)? >> shift;
                self.implied(Base::Network);
                let left = json!({"payload": {"protocol": name, "field": "dscp"}});
                self.push(matches(sign, &left, &Kind::Dscp.value(&[u8::try_from(value).ok()?])));
                return Some(());
            }
        }
        let (left, kind) = self.plain(loaded);
        if let Some(prefix) = prefix_len(mask).and_then(|len| kind.prefix(data, len)) {
            self.push(matches(sign, &left, &prefix));
            return Some(());
        }
        if kind.is_flags() && !equal && data.iter().all(|byte| *byte == 0) {
            self.push(matches("in", &left, &kind.flags(kind.number(mask)?)));
            return Some(());
        }
        None
    }

    /// Takes note of the headers that an equality establishes.
    fn established(&mut self, loaded: &Loaded, data: &[u8]) {
        let index = self.out.len().checked_sub(1);
        let ether = |bytes: &[u8]| match bytes {
            [0x08, 0x00] => Some(family::IPV4),
            [0x86, 0xdd] => Some(family::IPV6),
            [0x08, 0x06] => Some(family::ARP),
            _ => None,
        };
        match (&loaded.source, loaded.meta) {
            (_, Some(8)) => self.says_link = index,
            (_, Some(15)) => {
                self.headers.network = data.first().copied();
                self.says_network = index;
            }
            (_, Some(1)) | (Source::Payload { base: Base::Link, offset: 12 }, None) => {
                if let Some(network) = ether(data) {
                    self.headers.network = Some(network);
                    self.says_network = index;
                }
            }
            (_, Some(16)) => {
                self.headers.transport = data.first().copied();
                self.says_transport = index;
            }
            (Source::Payload { base: Base::Network, offset }, None)
                if matches!((self.headers.network, offset), (Some(2), 9) | (Some(10), 6)) =>
            {
                self.headers.transport = data.first().copied();
            }
            _ => {}
        }
    }

    fn lookup(&mut self, sreg: u32, name: &str, dreg: Option<u32>, invert: bool) -> Option<()> {
        let set = self.ruleset.set(self.rule.family, &self.rule.table, name);
        let key = self.key(sreg, set.map_or(0, |set| set.key_len))?;
        let right = match set {
            Some(set) if set.flags & 1 != 0 => json!({"set": sets::elements(set)}),
            _ => json!(format!("@{name}")),
        };
        match dreg {
            None => self.push(matches(if invert { "!=" } else { "==" }, &key, &right)),
            Some(0) => self.push(json!({"vmap": {"key": key, "data": right}})),
            Some(dreg) => {
                let value = json!({"map": {"key": key, "data": right}});
                self.registers.insert(slot(dreg), Loaded::new(Source::Json(value), Kind::Number, 4));
            }
        }
        Some(())
    }

    /// A set's key: one register, or several in a row.
    fn key(&mut self, sreg: u32, len: u32) -> Option<Value> {
        let (mut at, end) = (slot(sreg), slot(sreg) + len.div_ceil(4));
        let mut parts = Vec::new();
        loop {
            let loaded = self.registers.get(&at)?.clone();
            parts.push(self.left(&loaded)?.0);
            at += loaded.len.div_ceil(4).max(1);
            if at >= end {
                break;
            }
        }
        Some(if parts.len() == 1 { parts.remove(0) } else { json!({"concat": parts}) })
    }

    /// A register as a value: a constant of this kind, or what was loaded.
    fn value(&mut self, register: u32, kind: Kind) -> Option<Value> {
        let loaded = self.register(register)?.clone();
        match &loaded.source {
            Source::Constant(value) => Some(kind.value(value)),
            _ => Some(self.left(&loaded)?.0),
        }
    }

    fn reject(&mut self, kind: u32, code: u8) -> Option<()> {
        let named = |names: &[(u64, &str)]| {
            let found = names.iter().find(|(number, _)| *number == u64::from(code));
            found.map_or(json!(code), |(_, name)| json!(name))
        };
        let reject = match (kind, self.headers.network) {
            (1, _) => json!({"type": "tcp reset"}),
            (0, Some(family::IPV6)) => json!({"type": "icmpv6", "expr": named(ICMPV6_CODE)}),
            (0, Some(family::IPV4)) => json!({"type": "icmp", "expr": named(ICMP_CODE)}),
            (2, _) => {
                let names =
                    [(0, "no-route"), (1, "port-unreachable"), (2, "host-unreachable"), (3, "admin-prohibited")];
                json!({"type": "icmpx", "expr": named(&names)})
            }
            _ => return None,
        };
        self.push(json!({"reject": reject}));
        Some(())
    }

    fn nat(&mut self, name: &str, nat: &Nat) -> Option<()> {
        let mut entry = Map::new();
        let address = match nat.family {
            10 => Kind::Ipv6,
            _ => Kind::Ipv4,
        };
        if self.rule.family == family::INET && nat.address.0.is_some() {
            entry.insert("family".to_owned(), json!(if address == Kind::Ipv6 { "ip6" } else { "ip" }));
        }
        for (key, (first, last), kind) in [("addr", nat.address, address), ("port", nat.port, Kind::Number)] {
            let Some(first) = first else { continue };
            // The port of a map that gives address and port is in the map's data.
            if key == "port" && self.register(first).is_none() && entry.contains_key("addr") {
                continue;
            }
            let from = self.value(first, kind)?;
            let value = match last.filter(|last| *last != first) {
                Some(last) => match self.value(last, kind)? {
                    to if to == from => from,
                    to => json!({"range": [from, to]}),
                },
                None => from,
            };
            entry.insert(key.to_owned(), value);
        }
        let names = [(4, "random"), (16, "fully-random"), (8, "persistent"), (64, "netmap")];
        statement::insert_flags(&mut entry, nat.flags, &names);
        self.push(if entry.is_empty() { json!({name: null}) } else { json!({name: entry}) });
        Some(())
    }

    fn dynset(&mut self, name: &str, op: u32, sreg: u32, timeout: Option<u64>, exprs: &[Expr]) -> Option<()> {
        let op = ["add", "update", "delete"].get(op as usize)?;
        let len = self.ruleset.set(self.rule.family, &self.rule.table, name).map_or(0, |set| set.key_len);
        let mut elem = self.key(sreg, len)?;
        if let Some(timeout) = timeout.filter(|timeout| *timeout > 0) {
            elem = json!({"elem": {"val": elem, "timeout": timeout / 1000}});
        }
        let mut entry = json!({"op": op, "elem": elem, "set": format!("@{name}")});
        if !exprs.is_empty() {
            entry["stmt"] = json!(exprs.iter().map(statement::simple).collect::<Vec<_>>());
        }
        self.push(json!({"set": entry}));
        Some(())
    }
}

fn matches(op: &str, left: &Value, right: &Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}
