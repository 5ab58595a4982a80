//! nft's text expressions as libnftables-json has them, so that both have one meaning.

use serde_json::{Value, json};

use super::lex::{Kind, Token, Wrong};
use super::literal::{atom, literal, said, seconds};

/// How deep brackets may nest.
const MAX_DEPTH: u32 = 32;

/// A reader of the tokens of one rule, or of one set.
pub(super) struct Cursor<'t> {
    pub(super) tokens: &'t [Token],
    pub(super) at: usize,
    depth: u32,
    /// Stands for what is expected after the last token.
    end: Token,
}

const UNQUALIFIED_META: [&str; 24] = [
    "mark",
    "iif",
    "iifname",
    "iiftype",
    "oif",
    "oifname",
    "oiftype",
    "skuid",
    "skgid",
    "nftrace",
    "rtclassid",
    "ibriport",
    "obriport",
    "ibrname",
    "obrname",
    "pkttype",
    "cpu",
    "iifgroup",
    "oifgroup",
    "cgroup",
    "time",
    "day",
    "hour",
    "ibridgename",
];

const PROTOCOLS: [&str; 22] = [
    "ether", "vlan", "arp", "ip", "ip6", "icmp", "icmpv6", "igmp", "tcp", "udp", "udplite", "sctp", "dccp", "ah",
    "esp", "comp", "th", "gre", "gretap", "vxlan", "geneve", "mld",
];

impl<'t> Cursor<'t> {
    /// `after` is the token that ends what is read.
    pub(super) fn new(tokens: &'t [Token], after: &Token) -> Self {
        Self { tokens, at: 0, depth: 0, end: after.clone() }
    }

    pub(super) fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at)
    }

    /// The next token, or the one that ends it all.
    pub(super) fn here(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&self.end)
    }

    pub(super) fn skip_newlines(&mut self) {
        while self.peek().is_some_and(|t| t.kind == Kind::Newline) {
            self.at += 1;
        }
    }

    pub(super) fn next_is(&self, mark: &str) -> bool {
        self.peek().is_some_and(|t| t.is(mark))
    }

    pub(super) fn take(&mut self, mark: &str) -> bool {
        let found = self.next_is(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn word(&self) -> Option<&'t str> {
        match &self.peek()?.kind {
            Kind::Word(text) => Some(text),
            _ => None,
        }
    }

    /// The word `offset` tokens on.
    pub(super) fn word_at(&self, offset: usize) -> Option<&'t str> {
        match &self.tokens.get(self.at + offset)?.kind {
            Kind::Word(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.word() == Some(word);
        self.at += usize::from(found);
        found
    }

    /// A word, quoted or not.
    pub(super) fn name(&mut self, what: &str) -> Result<String, Wrong> {
        match self.peek().map(|t| &t.kind) {
            Some(Kind::Word(text) | Kind::Quoted(text)) => {
                self.at += 1;
                Ok(text.clone())
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(super) fn expected(&self, what: &str) -> Wrong {
        let here = self.here();
        here.wrong(format!("{what} is expected here, not {}", here.says()))
    }

    /// A concatenation, or what it is made of.
    pub(super) fn expr(&mut self) -> Result<Value, Wrong> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.here().wrong("brackets nest too deep here"));
        }
        let first = self.or()?;
        let mut parts = vec![first];
        while self.take_word(".") {
            self.skip_newlines();
            parts.push(self.or()?);
        }
        self.depth -= 1;
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { json!({ "concat": parts }) })
    }

    fn binary(&mut self, marks: &[&'static str], inner: fn(&mut Self) -> Result<Value, Wrong>) -> Result<Value, Wrong> {
        let mut left = inner(self)?;
        let mut count = 0;
        while let Some(mark) = marks.iter().find(|mark| self.next_is(mark)) {
            count += 1;
            if count > 16 {
                return Err(self.here().wrong("more than 16 operators in a row"));
            }
            self.at += 1;
            let right = inner(self)?;
            left = json!({ *mark: [left, right] });
        }
        Ok(left)
    }

    fn or(&mut self) -> Result<Value, Wrong> {
        self.binary(&["|"], Self::xor)
    }

    fn xor(&mut self) -> Result<Value, Wrong> {
        self.binary(&["^"], Self::and)
    }

    fn and(&mut self) -> Result<Value, Wrong> {
        self.binary(&["&"], Self::shift)
    }

    fn shift(&mut self) -> Result<Value, Wrong> {
        self.binary(&["<<", ">>"], Self::primary)
    }

    fn primary(&mut self) -> Result<Value, Wrong> {
        let Some(token) = self.peek() else { return Err(self.expected("a value")) };
        match &token.kind {
            Kind::Quoted(text) => {
                self.at += 1;
                if self.word() == Some("-") {
                    self.at += 1;
                    let to = self.name("the end of the range")?;
                    return Ok(json!({ "range": [text, to] }));
                }
                Ok(json!(text))
            }
            Kind::Mark("(") => {
                self.at += 1;
                self.skip_newlines();
                let mut list = vec![self.expr()?];
                while self.take(",") {
                    list.push(self.expr()?);
                }
                self.skip_newlines();
                if !self.take(")") {
                    return Err(self.expected("`)`"));
                }
                Ok(if list.len() == 1 { list.swap_remove(0) } else { Value::Array(list) })
            }
            Kind::Mark("{") => self.set(),
            Kind::Word(text) => self.worded(text),
            _ => Err(self.expected("a value")),
        }
    }

    /// An expression that begins with a word.
    fn worded(&mut self, word: &'t str) -> Result<Value, Wrong> {
        let second = self.word_at(1);
        match word {
            "meta" => {
                self.at += 1;
                let key = self.name("what of `meta`")?;
                Ok(json!({ "meta": { "key": key } }))
            }
            "ct" => self.ct(),
            "fib" => self.fib(),
            "socket" => {
                self.at += 1;
                let key = self.name("what of `socket`")?;
                if key == "cgroupv2" && self.take_word("level") {
                    let level = self.literal()?;
                    return Ok(json!({ "socket": { "key": key, "level": level } }));
                }
                Ok(json!({ "socket": { "key": key } }))
            }
            "osf" => {
                self.at += 1;
                let mut ttl = None;
                if self.take_word("ttl") {
                    ttl = Some(self.name("how to take the TTL")?);
                }
                let key = self.name("`name` or `version`")?;
                Ok(json!({ "osf": { "key": key, "ttl": ttl } }))
            }
            "numgen" => {
                self.at += 1;
                let mode = self.name("`inc` or `random`")?;
                if !self.take_word("mod") {
                    return Err(self.expected("`mod`"));
                }
                let modulus = self.literal()?;
                let offset = if self.take_word("offset") { self.literal()? } else { json!(0) };
                Ok(json!({ "numgen": { "mode": mode, "mod": modulus, "offset": offset } }))
            }
            "jhash" | "symhash" => self.hash(word),
            "rt" if matches!(second, Some("classid" | "nexthop" | "mtu" | "ipsec" | "ip" | "ip6")) => {
                self.at += 1;
                let family = self.take_word("ip").then_some("ip").or_else(|| self.take_word("ip6").then_some("ip6"));
                let key = self.name("what of `rt`")?;
                Ok(match family {
                    Some(family) => json!({ "rt": { "key": key, "family": family } }),
                    None => json!({ "rt": { "key": key } }),
                })
            }
            "rt" | "frag" | "hbh" | "dst" | "mh" | "srh" if second.is_some() => {
                self.at += 2;
                Ok(json!({ "exthdr": { "name": word, "field": second } }))
            }
            "exthdr" => {
                self.at += 1;
                let name = self.name("an extension header")?;
                Ok(json!({ "exthdr": { "name": name } }))
            }
            "ipsec" => {
                let from = self.at;
                while self.word().is_some_and(|w| !matches!(w, "==" | "vmap")) && self.at - from < 5 {
                    self.at += 1;
                    if matches!(self.word_at(0), Some("reqid" | "spi" | "saddr" | "daddr")) {
                        self.at += 1;
                        break;
                    }
                }
                Ok(json!({ "ipsec": { "key": said(&self.tokens[from..self.at]) } }))
            }
            "tcp" | "sctp" | "dccp" | "ip" if matches!(second, Some("option" | "chunk")) => self.option(word),
            "exists" => Ok(self.literally(json!(true))),
            "missing" => Ok(self.literally(json!(false))),
            _ if word.starts_with('@') && matches!(&word[1..], "ll" | "nh" | "th" | "ih") => self.raw(&word[1..]),
            _ if UNQUALIFIED_META.contains(&word) => {
                self.at += 1;
                Ok(json!({ "meta": { "key": word } }))
            }
            _ if PROTOCOLS.contains(&word) && second.is_some_and(|s| is_field(s, self.word_at(2))) => {
                self.at += 2;
                let mut field = second.unwrap_or_default().to_owned();
                // `arp saddr ip`, `arp daddr ether`
                if word == "arp" && matches!(field.as_str(), "saddr" | "daddr") {
                    field = format!("{field} {}", self.name("`ip` or `ether`")?);
                }
                Ok(json!({ "payload": { "protocol": word, "field": field } }))
            }
            _ => self.literal(),
        }
    }

    fn literally(&mut self, value: Value) -> Value {
        self.at += 1;
        value
    }

    fn ct(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        let dir = self.word().filter(|w| matches!(*w, "original" | "reply"));
        self.at += usize::from(dir.is_some());
        let mut key = self.name("what of `ct`")?;
        if dir.is_some() && matches!(key.as_str(), "ip" | "ip6") {
            key = format!("{key} {}", self.name("which address")?);
        }
        Ok(match dir {
            Some(dir) => json!({ "ct": { "key": key, "dir": dir } }),
            None => json!({ "ct": { "key": key } }),
        })
    }

    fn fib(&mut self) -> Result<Value, Wrong> {
        self.at += 1;
        let mut flags = vec![json!(self.name("a field of the lookup")?)];
        while self.take_word(".") {
            flags.push(json!(self.name("a field of the lookup")?));
        }
        let result = self.name("`type`, `oif` or `oifname`")?;
        Ok(json!({ "fib": { "result": result, "flags": flags } }))
    }

    fn hash(&mut self, name: &str) -> Result<Value, Wrong> {
        self.at += 1;
        let inner = if name == "jhash" { Some(self.expr()?) } else { None };
        if !self.take_word("mod") {
            return Err(self.expected("`mod`"));
        }
        let modulus = self.literal()?;
        let mut out = json!({ "mod": modulus });
        if let Some(inner) = inner {
            out["expr"] = inner;
        }
        for key in ["seed", "offset"] {
            if self.take_word(key) {
                out[key] = self.literal()?;
            }
        }
        Ok(json!({ name: out }))
    }

    /// `tcp option maxseg size`, `ip option lsrr ptr`, `sctp chunk data exists`
    fn option(&mut self, protocol: &str) -> Result<Value, Wrong> {
        let kind = self.word_at(1).unwrap_or("option").to_owned();
        self.at += 2;
        let name = self.name("the option's name")?;
        let field = self.word().filter(|w| is_option_field(w)).map(str::to_owned);
        self.at += usize::from(field.is_some());
        Ok(json!({ format!("{protocol} {kind}"): { "name": name, "field": field } }))
    }

    /// `@th,16,16`
    fn raw(&mut self, base: &str) -> Result<Value, Wrong> {
        self.at += 1;
        let mut numbers = [Value::Null, Value::Null];
        for number in &mut numbers {
            if !self.take(",") {
                return Err(self.expected("`,`"));
            }
            *number = self.literal()?;
        }
        let [offset, len] = numbers;
        Ok(json!({ "payload": { "base": base, "offset": offset, "len": len } }))
    }

    /// A number, a name, an address, a network, a range.
    pub(super) fn literal(&mut self) -> Result<Value, Wrong> {
        let text = self.name("a value")?;
        // `22 - 25`
        if self.word() == Some("-") {
            self.at += 1;
            let to = self.name("the end of the range")?;
            return Ok(json!({ "range": [atom(&text), atom(&to)] }));
        }
        Ok(literal(&text))
    }

    /// `{ … }`, of a set or a map.
    pub(super) fn set(&mut self) -> Result<Value, Wrong> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.here().wrong("brackets nest too deep here"));
        }
        self.at += 1;
        let mut out = Vec::new();
        loop {
            self.skip_newlines();
            if self.take("}") {
                break;
            }
            if self.next_is("{") {
                // A variable that holds a set, within a set.
                match self.set()?["set"].take() {
                    Value::Array(inner) => out.extend(inner),
                    one => out.push(one),
                }
            } else {
                out.push(self.element()?);
            }
            self.skip_newlines();
            if !self.take(",") && !self.next_is("}") {
                return Err(self.expected("`,` or `}`"));
            }
        }
        self.depth -= 1;
        Ok(json!({ "set": out }))
    }

    fn element(&mut self) -> Result<Value, Wrong> {
        let key = self.expr()?;
        let mut options = serde_json::Map::new();
        self.element_options(&mut options)?;
        let mut data = None;
        self.skip_newlines();
        if self.take(":") {
            self.skip_newlines();
            data = Some(self.data()?);
            self.element_options(&mut options)?;
        }
        let key = if options.is_empty() {
            key
        } else {
            options.insert("val".to_owned(), key);
            json!({ "elem": options })
        };
        Ok(match data {
            Some(data) => json!([key, data]),
            None => key,
        })
    }

    fn element_options(&mut self, options: &mut serde_json::Map<String, Value>) -> Result<(), Wrong> {
        while let Some(word) = self.word() {
            match word {
                "timeout" | "expires" => {
                    self.at += 1;
                    let time = self.name("a time")?;
                    options.insert(word.to_owned(), seconds(&time).map_or(json!(time), |s| json!(s)));
                }
                "comment" => {
                    self.at += 1;
                    options.insert(word.to_owned(), json!(self.name("the comment")?));
                }
                "counter" => {
                    self.at += 1;
                    let mut counter = json!({});
                    while let Some(key @ ("packets" | "bytes")) = self.word() {
                        self.at += 1;
                        counter[key] = self.literal()?;
                    }
                    options.insert(word.to_owned(), counter);
                }
                "limit" | "quota" | "last" | "ct" => {
                    // Statements of their own for each element.
                    let from = self.at;
                    while !self.tokens.get(self.at).is_none_or(|t| t.is(",") || t.is(":") || t.is("}")) {
                        self.at += 1;
                    }
                    options.insert(word.to_owned(), json!(said(&self.tokens[from..self.at])));
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// What a map leads to: a verdict or a value.
    fn data(&mut self) -> Result<Value, Wrong> {
        match self.word() {
            Some(word @ ("accept" | "drop" | "return" | "continue")) => {
                self.at += 1;
                Ok(json!({ word: null }))
            }
            Some(word @ ("jump" | "goto")) => {
                self.at += 1;
                let target = self.name("the name of a chain")?;
                Ok(json!({ word: { "target": target } }))
            }
            _ => self.expr(),
        }
    }

    /// The right side of a comparison: an expression, or flags with commas between.
    pub(super) fn right(&mut self) -> Result<Value, Wrong> {
        let first = self.expr()?;
        if !self.next_is(",") {
            return Ok(first);
        }
        let mut list = vec![first];
        while self.take(",") {
            self.skip_newlines();
            list.push(self.expr()?);
        }
        Ok(Value::Array(list))
    }
}

/// Whether the word after a protocol's name is one of its fields: `tcp dport`, not `tcp accept`.
fn is_field(word: &str, _next: Option<&str>) -> bool {
    !matches!(
        word,
        "accept"
            | "drop"
            | "return"
            | "continue"
            | "jump"
            | "goto"
            | "counter"
            | "log"
            | "limit"
            | "reject"
            | "vmap"
            | "map"
            | "ct"
            | "meta"
            | "dnat"
            | "snat"
            | "masquerade"
            | "redirect"
            | "queue"
            | "notrack"
            | "set"
            | "comment"
            | "tcp"
            | "udp"
            | "ip"
            | "ip6"
            | "th"
            | "icmp"
            | "icmpv6"
            | "ether"
            | "fib"
            | "iif"
            | "oif"
            | "iifname"
            | "oifname"
            | "mark"
            | "quota"
            | "."
            | "tproxy"
            | "dup"
            | "fwd"
            | "add"
            | "update"
            | "flow"
            | "delete"
            | "synproxy"
            | "numgen"
            | "socket"
            | "rt"
            | "timeout"
            | "expires"
    ) && !word.starts_with('@')
}

fn is_option_field(word: &str) -> bool {
    matches!(
        word,
        "kind"
            | "length"
            | "size"
            | "count"
            | "tsval"
            | "tsecr"
            | "left"
            | "right"
            | "left1"
            | "right1"
            | "left2"
            | "right2"
            | "left3"
            | "right3"
            | "ptr"
            | "value"
            | "type"
            | "addr"
            | "flags"
    )
}
