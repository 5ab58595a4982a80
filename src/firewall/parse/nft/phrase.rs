//! nft's text statements as libnftables-json has them.

use serde_json::{Value, json};

use super::lex::{Kind, Token, Wrong};
use super::literal::{number, said, seconds};
use super::value::Cursor;

/// The statements of a rule, and its comment.
pub(super) struct Phrases {
    pub(super) expr: Vec<Value>,
    pub(super) comment: Option<String>,
}

/// Reads a rule's tokens. What begins no known statement is kept to the rule's end as one unknown.
pub(super) fn read(tokens: &[Token], after: &Token) -> Result<Phrases, Wrong> {
    let mut cursor = Cursor::new(tokens, after);
    let mut out = Phrases { expr: Vec::new(), comment: None };
    loop {
        cursor.skip_newlines();
        if cursor.peek().is_none() {
            return Ok(out);
        }
        if cursor.word() == Some("comment") {
            cursor.at += 1;
            out.comment = Some(cursor.name("the comment")?);
            continue;
        }
        let statement = cursor.statement()?;
        out.expr.push(statement);
    }
}

impl Cursor<'_> {
    fn statement(&mut self) -> Result<Value, Wrong> {
        let Some(word) = self.word() else {
            return if self.next_is("{") || self.next_is("(") || matches!(self.here().kind, Kind::Quoted(_)) {
                Err(self.here().wrong(format!("{} begins no statement", self.here().says())))
            } else {
                Err(self.expected("a statement"))
            };
        };
        let word = word.to_owned();
        let next = self.word_at(1).unwrap_or_default().to_owned();
        match (word.as_str(), next.as_str()) {
            ("accept" | "drop" | "return" | "continue" | "notrack", _) => {
                self.at += 1;
                Ok(json!({ word: null }))
            }
            ("jump" | "goto", _) => {
                self.at += 1;
                let target = self.name("the name of a chain")?;
                Ok(json!({ word: { "target": target } }))
            }
            ("counter", _) => self.counter(),
            ("log", _) => self.log(),
            ("limit", _) => self.limit(),
            ("quota", _) => self.quota(),
            ("last", _) => Ok(self.rest_as("last", 3, &["used", "never"])),
            ("reject", _) => self.reject(),
            ("dnat" | "snat" | "masquerade" | "redirect", _) => self.nat(&word),
            ("queue", _) => self.queue(),
            ("tproxy", _) => self.tproxy(),
            ("synproxy", _) => self.synproxy(),
            ("dup" | "fwd", _) => {
                self.at += 1;
                self.take_word("to");
                let addr = self.expr()?;
                let dev = if self.take_word("device") { Some(self.expr()?) } else { None };
                Ok(json!({ word: { "addr": addr, "dev": dev } }))
            }
            ("flow", "add" | "offload") => {
                self.at += 2;
                let table = self.name("a flowtable")?;
                Ok(json!({ "flow": { "op": "add", "flowtable": table } }))
            }
            ("add" | "update" | "delete", name) if name.starts_with('@') => {
                self.at += 1;
                let set = self.name("a set")?;
                self.set_statement(&word, set, false)
            }
            ("set", "add" | "update" | "delete") => {
                self.at += 2;
                self.set_statement(&next, String::new(), true)
            }
            ("ct", "count") => {
                self.at += 2;
                let over = self.take_word("over");
                let value = self.literal()?;
                Ok(if over {
                    json!({ "ct count": { "val": value, "inv": true } })
                } else {
                    json!({ "ct count": { "val": value } })
                })
            }
            ("ct", "helper" | "timeout" | "expectation") if self.word_at(2) == Some("set") => {
                self.at += 3;
                let name = self.name("the object's name")?;
                Ok(json!({ format!("ct {next}"): name }))
            }
            ("meta", "secmark") if self.word_at(2) == Some("set") => {
                self.at += 3;
                Ok(json!({ "secmark": self.name("the object's name")? }))
            }
            ("xt", _) => Ok(self.unknown()),
            _ => self.relation(),
        }
    }

    /// All that is left of the rule, kept as it stands.
    fn unknown(&mut self) -> Value {
        let text = said(self.tokens.get(self.at..).unwrap_or_default());
        self.at = self.tokens.len();
        json!({ "unknown": text })
    }

    /// A statement with up to `limit` words after it, of which only those listed stand alone.
    fn rest_as(&mut self, name: &str, limit: usize, known: &[&str]) -> Value {
        self.at += 1;
        let mut taken = 0;
        while taken < limit && self.word().is_some_and(|w| known.contains(&w) || seconds(w).is_some()) {
            self.at += 1;
            taken += 1;
        }
        json!({ name: null })
    }

    /// A comparison, a map of verdicts, or a field that is set.
    fn relation(&mut self) -> Result<Value, Wrong> {
        let from = self.at;
        let left = self.expr()?;
        if left.is_string() || left.is_number() {
            // A word alone that is no field: not a statement known here.
            self.at = from;
            return Ok(self.unknown());
        }
        if self.take_word("vmap") {
            let data = self.map_data()?;
            return Ok(json!({ "vmap": { "key": left, "data": data } }));
        }
        if self.word() == Some("set") {
            self.at += 1;
            let value = self.mapped()?;
            return Ok(json!({ "mangle": { "key": left, "value": value } }));
        }
        // `tcp flags syn / fin,syn`
        let explicit = ["==", "!=", "<=", ">=", "<", ">", "!"].into_iter().find(|op| self.next_is(op));
        self.at += usize::from(explicit.is_some());
        if self.peek().is_none() {
            return Err(self.expected("a value to compare with"));
        }
        let mut right = self.right()?;
        // libnftables-json has times in seconds.
        if left.get("ct").is_some_and(|ct| ct["key"] == "expiration")
            && let Some(time) = right.as_str().and_then(seconds)
        {
            right = json!(time);
        }
        if self.take_word("/") {
            let mask = self.right()?;
            let op = explicit.unwrap_or("==");
            return Ok(json!({ "match": { "op": op, "left": { "&": [left, mask] }, "right": right } }));
        }
        let in_set = right.get("set").is_some() || right.as_str().is_some_and(|name| name.starts_with('@'));
        let op = explicit.unwrap_or(if is_flags(&left) && !in_set { "in" } else { "==" });
        Ok(json!({ "match": { "op": op, "left": left, "right": right } }))
    }

    /// `@name` or `{ … }`
    fn map_data(&mut self) -> Result<Value, Wrong> {
        self.skip_newlines();
        if self.next_is("{") {
            return self.set();
        }
        match self.word().filter(|word| word.starts_with('@')) {
            Some(_) => Ok(json!(self.name("a map")?)),
            None => Err(self.expected("`{` or the name of a map such as `@name`")),
        }
    }

    /// A value, or a map that gives it.
    fn mapped(&mut self) -> Result<Value, Wrong> {
        let value = self.right()?;
        if self.take_word("map") {
            let data = self.map_data()?;
            return Ok(json!({ "map": { "key": value, "data": data } }));
        }
        Ok(value)
    }

    fn counter(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        if self.take_word("name") {
            let name = self.mapped()?;
            return Ok(json!({ "counter": name }));
        }
        let (mut packets, mut bytes) = (None, None);
        loop {
            let slot = match self.word() {
                Some("packets") => &mut packets,
                Some("bytes") => &mut bytes,
                _ => break,
            };
            self.at += 1;
            *slot = Some(self.literal()?);
        }
        Ok(match packets.zip(bytes) {
            Some((packets, bytes)) => json!({ "counter": { "packets": packets, "bytes": bytes } }),
            None => json!({ "counter": null }),
        })
    }

    fn log(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        let mut log = json!({});
        loop {
            match self.word() {
                Some(key @ ("prefix" | "level")) => {
                    self.at += 1;
                    log[key] = json!(self.name("a value")?);
                }
                Some(key @ ("group" | "snaplen" | "queue-threshold")) => {
                    self.at += 1;
                    log[key] = self.literal()?;
                }
                Some("flags") => {
                    self.at += 1;
                    let first = self.name("what to log")?;
                    let mut flags = vec![first.clone()];
                    // `flags tcp sequence,options`, `flags ip options`
                    if matches!(first.as_str(), "tcp" | "ip") {
                        flags.push(self.name("what to log")?);
                    }
                    while self.take(",") {
                        flags.push(self.name("what to log")?);
                    }
                    log["flags"] = json!(flags);
                }
                _ => break,
            }
        }
        Ok(json!({ "log": log }))
    }

    /// `limit rate [over] 10/second [burst 5 packets]`, `limit name "x"`
    fn limit(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        if self.take_word("name") {
            let name = self.mapped()?;
            return Ok(json!({ "limit": name }));
        }
        if !self.take_word("rate") {
            return Err(self.expected("`rate`"));
        }
        let over = self.over();
        let amount = self.name("a rate such as 10/second")?;
        let (count, mut per) = match amount.split_once('/') {
            Some((count, per)) => (count.to_owned(), per.to_owned()),
            None => (amount, String::new()),
        };
        let Some(rate) = number(&count) else { return Err(self.expected("a rate such as 10/second")) };
        let mut limit = json!({ "rate": rate });
        if per.is_empty() {
            // `10 mbytes/second`, `10 / second`
            let unit = self.name("a rate such as 10/second")?;
            match unit.split_once('/') {
                Some((unit, time)) => {
                    if !unit.is_empty() && unit != "packets" {
                        limit["rate_unit"] = json!(unit);
                    }
                    time.clone_into(&mut per);
                }
                None => return Err(self.expected("a rate such as 10/second")),
            }
            if per.is_empty() {
                per = self.name("a time")?;
            }
        }
        limit["per"] = json!(per);
        let mut burst = None;
        if self.take_word("burst") {
            burst = Some(self.literal()?);
            if let Some(unit) = self.word().filter(|w| w.ends_with("bytes") || *w == "packets") {
                self.at += 1;
                if unit != "packets" {
                    limit["burst_unit"] = json!(unit);
                }
            }
        }
        // What nft prints where none is given.
        limit["burst"] = burst.unwrap_or_else(|| if limit.get("rate_unit").is_some() { json!(0) } else { json!(5) });
        if over {
            limit["inv"] = json!(true);
        }
        Ok(json!({ "limit": limit }))
    }

    /// Whether `over` stands here; `until` is its opposite and the default.
    fn over(&mut self) -> bool {
        let over = self.take_word("over");
        if !over {
            self.take_word("until");
        }
        over
    }

    /// `quota over 10 mbytes used 0 bytes`
    fn quota(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        if self.take_word("name") {
            let name = self.mapped()?;
            return Ok(json!({ "quota": name }));
        }
        let over = self.over();
        let value = self.literal()?;
        let unit = self.name("a unit such as bytes")?;
        let mut quota = json!({ "val": value, "val_unit": unit });
        if self.take_word("used") {
            quota["used"] = self.literal()?;
            quota["used_unit"] = json!(self.name("a unit such as bytes")?);
        }
        if over {
            quota["inv"] = json!(true);
        }
        Ok(json!({ "quota": quota }))
    }

    fn reject(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        if !self.take_word("with") {
            return Ok(json!({ "reject": null }));
        }
        let kind = self.name("icmp, icmpv6, icmpx or tcp")?;
        if kind == "tcp" {
            if !self.take_word("reset") {
                return Err(self.expected("`reset`"));
            }
            return Ok(json!({ "reject": { "type": "tcp reset" } }));
        }
        if !matches!(kind.as_str(), "icmp" | "icmpv6" | "icmpx") {
            self.at -= 1;
            return Err(self.expected("icmp, icmpv6, icmpx or tcp"));
        }
        self.take_word("type");
        let code = self.name("an ICMP code such as port-unreachable")?;
        Ok(json!({ "reject": { "type": kind, "expr": code } }))
    }

    /// `dnat [ip|ip6] [addr . port] to ADDRESS[:PORT] [flags]`
    fn nat(&mut self, name: &str) -> Result<Value, Wrong> {
        self.at += 1;
        let mut nat = json!({});
        if let Some(family @ ("ip" | "ip6")) = self.word() {
            self.at += 1;
            nat["family"] = json!(family);
        }
        if self.take_word("addr") {
            self.take_word(".");
            self.take_word("port");
        }
        let mut flags = Vec::new();
        if self.take_word("prefix") {
            flags.push("prefix".to_owned());
        }
        if self.take_word("to") {
            if !self.next_is(":") {
                nat["addr"] = self.mapped()?;
            }
            if self.take(":") {
                nat["port"] = self.mapped()?;
            }
        } else if matches!(name, "dnat" | "snat") {
            return Err(self.expected("`to`"));
        }
        while let Some(flag @ ("random" | "fully-random" | "persistent")) = self.word() {
            flags.push(flag.to_owned());
            self.at += 1;
            self.take(",");
        }
        if let [one] = flags.as_slice() {
            nat["flags"] = json!(one);
        } else if !flags.is_empty() {
            nat["flags"] = json!(flags);
        }
        Ok(json!({ name: nat }))
    }

    fn queue(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        let mut queue = json!({});
        loop {
            if self.take_word("flags") {
                queue["flags"] = json!([self.name("a flag")?]);
                while self.take(",") {
                    let flag = self.name("a flag")?;
                    queue["flags"] = json!([queue["flags"], flag]);
                }
            } else if self.take_word("to") || self.take_word("num") {
                queue["num"] = self.mapped()?;
            } else if let Some(flag @ ("bypass" | "fanout")) = self.word() {
                self.at += 1;
                self.take(",");
                queue["flags"] = json!([queue["flags"], flag]);
            } else {
                return Ok(json!({ "queue": queue }));
            }
        }
    }

    fn tproxy(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        let mut proxy = json!({});
        if let Some(family @ ("ip" | "ip6")) = self.word() {
            self.at += 1;
            proxy["family"] = json!(family);
        }
        if !self.take_word("to") {
            return Err(self.expected("`to`"));
        }
        if !self.next_is(":") {
            proxy["addr"] = self.mapped()?;
        }
        if self.take(":") {
            proxy["port"] = self.mapped()?;
        }
        Ok(json!({ "tproxy": proxy }))
    }

    fn synproxy(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        let mut proxy = json!({});
        loop {
            match self.word() {
                Some(key @ ("mss" | "wscale")) => {
                    self.at += 1;
                    proxy[key] = self.literal()?;
                }
                Some(flag @ ("timestamp" | "sack-perm")) => {
                    self.at += 1;
                    match proxy.get_mut("flags").and_then(Value::as_array_mut) {
                        Some(flags) => flags.push(json!(flag)),
                        None => proxy["flags"] = json!([flag]),
                    }
                }
                Some("name") => {
                    self.at += 1;
                    let name = self.name("the object's name")?;
                    return Ok(json!({ "synproxy": name }));
                }
                _ => return Ok(json!({ "synproxy": proxy })),
            }
        }
    }

    /// `add @set { ip saddr timeout 1m limit rate 3/minute }`, `set add ip saddr @set`
    fn set_statement(&mut self, op: &str, set: String, old: bool) -> Result<Value, Wrong> {
        self.skip_newlines();
        if !old && !self.take("{") {
            return Err(self.expected("`{`"));
        }
        let mut elem = self.expr()?;
        let (mut stmts, mut set, mut data) = (Vec::new(), set, None);
        loop {
            self.skip_newlines();
            match self.word() {
                Some("timeout") => {
                    self.at += 1;
                    let time = self.name("a time")?;
                    elem =
                        json!({ "elem": { "val": elem, "timeout": seconds(&time).map_or(json!(time), |s| json!(s)) } });
                }
                Some("comment") => {
                    self.at += 1;
                    self.name("the comment")?;
                }
                Some("limit" | "counter" | "quota" | "ct" | "last") => stmts.push(self.statement()?),
                Some(name) if old && name.starts_with('@') => {
                    name.clone_into(&mut set);
                    self.at += 1;
                    break;
                }
                _ if self.take(":") => data = Some(self.expr()?),
                _ if !old && self.take("}") => break,
                _ => return Err(self.expected(if old { "the set" } else { "`}`" })),
            }
        }
        let mut out = json!({ "op": op, "elem": elem });
        let name = if data.is_some() { "map" } else { "set" };
        out[name] = json!(set);
        if let Some(data) = data {
            out["data"] = data;
        }
        if !stmts.is_empty() {
            out["stmt"] = json!(stmts);
        }
        Ok(json!({ name: out }))
    }
}

/// Whether a plain comparison of the field asks for one of several flags.
fn is_flags(left: &Value) -> bool {
    let tcp = left.get("payload").is_some_and(|p| p["protocol"] == "tcp" && p["field"] == "flags");
    tcp || left
        .get("ct")
        .and_then(|ct| ct.get("key"))
        .is_some_and(|key| key == "state" || key == "status" || key == "label")
}
