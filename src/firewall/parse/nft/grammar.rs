//! nft's text syntax: tables, chains, sets, and commands (`nft list ruleset`, files for `nft -f`).
//!
//! Everything becomes the items of libnftables-json, which one lowering gives its meaning.

use std::collections::HashSet;
use std::rc::Rc;

use serde_json::{Value, json};

use super::lex::{self, Kind, Token, Wrong};
use super::literal::{number, said};
use super::phrase;
use super::quick::{self, Home, Ready};
use super::variables;

/// One table, chain, set, map or rule.
pub(super) struct Item {
    /// As libnftables-json has it.
    pub(super) value: Value,
    pub(super) line: u32,
    pub(super) column: u32,
    /// Where `insert rule` or an index puts a rule; `None` for the end.
    pub(super) position: Option<usize>,
    /// The rule's own words.
    pub(super) text: String,
    /// A rule that was read the quick way; it has no value.
    pub(super) ready: Option<Ready>,
}

impl Item {
    fn is_rule(&self) -> bool {
        self.ready.is_some() || self.value.get("rule").is_some()
    }

    fn of_table(&self, family: &str, table: &str) -> bool {
        match &self.ready {
            Some(ready) => ready.home.family == family && ready.home.table == table,
            None => of_table(&self.value, family, table),
        }
    }

    fn of_chain(&self, chain: &str) -> bool {
        match &self.ready {
            Some(ready) => ready.home.chain == chain,
            None => self.value.get("rule").is_some_and(|rule| rule["chain"] == chain),
        }
    }
}

/// What was read, and what was odd: lines, columns and words.
#[derive(Default)]
pub(super) struct Items {
    pub(super) items: Vec<Item>,
    pub(super) notes: Vec<(u32, u32, String)>,
}

const FAMILIES: [&str; 6] = ["ip", "ip6", "inet", "arp", "bridge", "netdev"];

/// Reads a text.
pub(super) fn read(text: &str) -> Result<Items, Wrong> {
    let tokens = variables::expand(lex::split(text)?)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut parser =
        Parser { tokens: &tokens, at: 0, out: Items::default(), lines, chains: HashSet::new(), home: None };
    while parser.skip_ends() {
        parser.command()?;
    }
    Ok(parser.out)
}

pub(super) struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    pub(super) out: Items,
    lines: Vec<&'t str>,
    /// Chains that are there already: family, table, name.
    chains: HashSet<(String, String, String)>,
    /// The chain of the last rule.
    home: Option<Rc<Home>>,
}

/// Whose block is read.
pub(super) struct Place {
    pub(super) family: String,
    pub(super) table: String,
}

impl<'t> Parser<'t> {
    /// Skips what ends statements; `false` at the end of the text.
    pub(super) fn skip_ends(&mut self) -> bool {
        while self.tokens.get(self.at).is_some_and(|t| matches!(t.kind, Kind::Newline | Kind::Handle(_)) || t.is(";")) {
            self.at += 1;
        }
        self.at < self.tokens.len()
    }

    pub(super) fn here(&self) -> Token {
        let last = || self.tokens.last().cloned();
        let nothing = || Token { kind: Kind::Newline, line: 1, column: 1 };
        self.tokens.get(self.at).cloned().or_else(last).unwrap_or_else(nothing)
    }

    fn word(&self) -> Option<&'t str> {
        match &self.tokens.get(self.at)?.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.word() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn next_is(&self, mark: &str) -> bool {
        self.tokens.get(self.at).is_some_and(|t| t.is(mark))
    }

    pub(super) fn take(&mut self, mark: &str) -> bool {
        let found = self.next_is(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn name(&mut self, what: &str) -> Result<String, Wrong> {
        match self.tokens.get(self.at).map(|t| &t.kind) {
            Some(Kind::Word(word) | Kind::Quoted(word)) => {
                self.at += 1;
                Ok(word.clone())
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(super) fn expected(&self, what: &str) -> Wrong {
        let here = self.here();
        here.wrong(format!("{what} is expected here, not {}", here.says()))
    }

    pub(super) fn handle(&mut self) -> Option<u64> {
        match self.tokens.get(self.at)?.kind {
            Kind::Handle(number) => {
                self.at += 1;
                Some(number)
            }
            _ => None,
        }
    }

    /// The tokens up to the end of a statement, and the token that ends it. Braces and round
    /// brackets may hold line ends.
    pub(super) fn statement(&mut self) -> (&'t [Token], Token) {
        let from = self.at;
        let mut depth = 0u32;
        while let Some(token) = self.tokens.get(self.at) {
            match &token.kind {
                Kind::Mark("{" | "(") => depth += 1,
                Kind::Mark("}" | ";") | Kind::Newline | Kind::Handle(_) if depth == 0 => break,
                Kind::Mark("}" | ")") => depth = depth.saturating_sub(1),
                _ => (),
            }
            self.at += 1;
        }
        (&self.tokens[from..self.at], self.here())
    }

    pub(super) fn item(&mut self, value: Value, token: &Token) {
        let text = String::new();
        let (line, column) = (token.line, token.column);
        self.out.items.push(Item { value, line, column, position: None, text, ready: None });
    }

    fn note(&mut self, token: &Token, message: impl Into<String>) {
        self.out.notes.push((token.line, token.column, message.into()));
    }

    fn command(&mut self) -> Result<(), Wrong> {
        let token = self.here();
        if self.take("}") {
            return Err(token.wrong("this `}` closes nothing"));
        }
        let Some(word) = self.word() else { return Err(self.expected("`table`, `add` or another command")) };
        let hinted = |message: String, hint: &str| {
            let mut wrong = token.wrong(message);
            wrong.fault = wrong.fault.hint(hint);
            wrong
        };
        match word {
            "table" => {
                self.at += 1;
                self.table(&token)
            }
            "include" => Err(hinted(
                "other files are not read from within this one".to_owned(),
                "put the included text here, or take `nft list ruleset`, which has it all",
            )),
            "flush" => {
                self.at += 1;
                self.flush(&token)
            }
            "add" | "create" | "insert" => {
                self.at += 1;
                self.add(&token, word == "insert")
            }
            "delete" | "destroy"
                if self.tokens.get(self.at + 1).is_some_and(|t| t.kind == Kind::Word("table".into())) =>
            {
                self.at += 2;
                let (family, table) = self.table_name()?;
                self.out.items.retain(|item| !item.of_table(&family, &table));
                self.chains.retain(|(f, t, _)| (f, t) != (&family, &table));
                Ok(())
            }
            "delete" | "destroy" | "replace" | "rename" | "reset" | "import" => {
                Err(hinted(format!("`{word}` is not carried out"), "take `nft list ruleset` after it ran"))
            }
            "list" | "monitor" | "export" | "describe" => {
                self.statement();
                self.note(&token, format!("`{word}` changes nothing: ignored"));
                Ok(())
            }
            _ => Err(hinted(
                format!("{} begins nothing that nft knows", token.says()),
                "a ruleset is made of `table FAMILY NAME { … }`",
            )),
        }
    }

    fn flush(&mut self, token: &Token) -> Result<(), Wrong> {
        match self.word() {
            Some("ruleset") => {
                self.at += 1;
                self.out.items.clear();
                self.chains.clear();
            }
            Some("table") => {
                self.at += 1;
                let (family, table) = self.table_name()?;
                self.out.items.retain(|item| !item.is_rule() || !item.of_table(&family, &table));
            }
            Some("chain") => {
                self.at += 1;
                let (family, table) = self.table_name()?;
                let chain = self.name("the chain's name")?;
                self.out.items.retain(|item| !(item.of_chain(&chain) && item.of_table(&family, &table)));
            }
            _ => return Err(token.wrong("only `flush ruleset`, `flush table` and `flush chain` are carried out")),
        }
        self.statement();
        Ok(())
    }

    /// `[family] name`; `ip` where no family is given.
    fn table_name(&mut self) -> Result<(String, String), Wrong> {
        let first = self.name("the table's family and name")?;
        match self.tokens.get(self.at).map(|t| &t.kind) {
            Some(Kind::Word(_) | Kind::Quoted(_)) if FAMILIES.contains(&first.as_str()) => {
                Ok((first, self.name("the table's name")?))
            }
            _ => Ok(("ip".to_owned(), first)),
        }
    }

    fn add(&mut self, token: &Token, insert: bool) -> Result<(), Wrong> {
        let what = self.name("what to add")?;
        if what == "table" {
            return self.table(token);
        }
        if FAMILIES.contains(&what.as_str()) {
            // `add inet t c …` is a rule.
            self.at -= 1;
            return self.add_rule(insert);
        }
        if what == "rule" {
            return self.add_rule(insert);
        }
        let (family, table) = if matches!(
            what.as_str(),
            "chain"
                | "set"
                | "map"
                | "element"
                | "flowtable"
                | "counter"
                | "quota"
                | "limit"
                | "ct"
                | "secmark"
                | "synproxy"
        ) {
            // The kind of a `ct` object stands before the names.
            if what == "ct" {
                self.at += 1;
            }
            // Family, table and name, or table and name.
            if self.word().is_some_and(|w| FAMILIES.contains(&w)) {
                self.table_name()?
            } else {
                ("ip".to_owned(), self.name("the table's name")?)
            }
        } else {
            return Err(token.wrong(format!("`add {what}` is nothing that nft knows")));
        };
        let place = Place { family, table };
        match what.as_str() {
            "chain" => self.chain(&place, token),
            "set" | "map" => self.set(&place, &what, token),
            "element" => self.elements(&place, token),
            _ => {
                self.name("a name")?;
                self.block_away();
                Ok(())
            }
        }
    }

    fn add_rule(&mut self, insert: bool) -> Result<(), Wrong> {
        let (family, table) = if self.word().is_some_and(|w| FAMILIES.contains(&w)) {
            self.table_name()?
        } else {
            ("ip".to_owned(), self.name("the table's name")?)
        };
        let chain = self.name("the chain's name")?;
        let mut position = insert.then_some(0);
        let here = self.here();
        match self.word() {
            Some("index") => {
                self.at += 1;
                let index = self.name("a number")?;
                let index = number(&index).and_then(|n| usize::try_from(n).ok());
                let Some(index) = index else { return Err(here.wrong("`index` needs a number")) };
                position = Some(if insert { index } else { index.saturating_add(1) });
            }
            Some("handle" | "position") => {
                return Err(
                    here.wrong("a rule cannot be placed by its handle here: the text does not say which rule has it")
                );
            }
            _ => (),
        }
        self.rule(&Place { family, table }, &chain, position)
    }

    fn table(&mut self, token: &Token) -> Result<(), Wrong> {
        let (family, table) = self.table_name()?;
        let mut item = json!({ "family": family, "name": table });
        let place = Place { family, table };
        if !self.take("{") {
            self.item(json!({ "table": item }), token);
            self.statement();
            return Ok(());
        }
        if let Some(handle) = self.handle() {
            item["handle"] = json!(handle);
        }
        let index = self.out.items.len();
        self.item(json!({ "table": item }), token);
        loop {
            if !self.skip_ends() {
                return Err(token.wrong("the `{` of this table is not closed"));
            }
            if self.take("}") {
                return Ok(());
            }
            let here = self.here();
            match self.word() {
                Some("chain") => {
                    self.at += 1;
                    self.chain(&place, &here)?;
                }
                Some(kind @ ("set" | "map")) => {
                    self.at += 1;
                    self.set(&place, kind, &here)?;
                }
                Some("flags") => {
                    self.at += 1;
                    let (flags, _) = self.statement();
                    if let Some(item) = self.out.items.get_mut(index) {
                        item.value["table"]["flags"] = json!(said(flags));
                    }
                }
                Some("comment") => {
                    self.statement();
                }
                Some("counter" | "quota" | "limit" | "ct" | "secmark" | "synproxy" | "flowtable" | "tunnel") => {
                    self.block_away();
                }
                _ => {
                    let mut wrong = here.wrong(format!("{} begins nothing that a table holds", here.says()));
                    wrong.fault = wrong.fault.hint("a table holds chains, sets, maps and named objects");
                    return Err(wrong);
                }
            }
        }
    }

    /// Skips an object whose content decides nothing here.
    fn block_away(&mut self) {
        while self.tokens.get(self.at).is_some_and(|t| matches!(t.kind, Kind::Word(_) | Kind::Quoted(_))) {
            self.at += 1;
        }
        if !self.next_is("{") {
            return;
        }
        let mut depth = 0u32;
        while let Some(token) = self.tokens.get(self.at) {
            self.at += 1;
            if token.is("{") {
                depth += 1;
            } else if token.is("}") {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
        }
    }

    fn chain(&mut self, place: &Place, token: &Token) -> Result<(), Wrong> {
        let name = self.name("the chain's name")?;
        let index = self.out.items.len();
        let known = !self.chains.insert((place.family.clone(), place.table.clone(), name.clone()));
        self.item(json!({ "chain": { "family": place.family, "table": place.table, "name": name } }), token);
        let mut kept = !known;
        if self.take("{") {
            if let Some(handle) = self.handle() {
                self.out.items[index].value["chain"]["handle"] = json!(handle);
            }
            loop {
                if !self.skip_ends() {
                    return Err(token.wrong("the `{` of this chain is not closed"));
                }
                if self.take("}") {
                    break;
                }
                let next = match self.tokens.get(self.at + 1).map(|t| &t.kind) {
                    Some(Kind::Word(word)) => word.as_str(),
                    _ => "",
                };
                match self.word() {
                    Some("type") if matches!(next, "filter" | "nat" | "route") => {
                        self.hook(place, index)?;
                        kept = true;
                    }
                    Some("policy") => {
                        self.at += 1;
                        let policy = self.name("accept or drop")?;
                        if !matches!(policy.as_str(), "accept" | "drop") {
                            self.at -= 1;
                            return Err(self.expected("accept or drop"));
                        }
                        self.out.items[index].value["chain"]["policy"] = json!(policy);
                    }
                    Some("comment" | "flags") => {
                        self.statement();
                    }
                    Some("device" | "devices") => {
                        let (devices, _) = self.statement();
                        self.devices(index, devices);
                    }
                    _ => self.rule(place, &name, None)?,
                }
            }
        }
        if !kept {
            // A second block only adds rules to the first.
            self.out.items.remove(index);
        }
        Ok(())
    }

    fn devices(&mut self, index: usize, tokens: &[Token]) {
        let names = tokens.iter().filter_map(|token| match &token.kind {
            Kind::Word(word) | Kind::Quoted(word) if !matches!(word.as_str(), "device" | "devices") => {
                Some(word.clone())
            }
            _ => None,
        });
        let names: Vec<String> = names.collect();
        self.out.items[index].value["chain"]["dev"] = json!(names);
    }

    /// `type filter hook input [device "eth0"] priority filter - 10; policy drop;`
    fn hook(&mut self, place: &Place, index: usize) -> Result<(), Wrong> {
        self.at += 1;
        let kind = self.name("the chain's type")?;
        if !self.take_word("hook") {
            return Err(self.expected("`hook`"));
        }
        let hook = self.name("a hook")?;
        if matches!(self.word(), Some("device" | "devices")) {
            let from = self.at;
            while self.at < self.tokens.len() && self.word() != Some("priority") && !self.next_is(";") {
                self.at += 1;
            }
            let tokens = self.tokens;
            self.devices(index, &tokens[from..self.at]);
        }
        if !self.take_word("priority") {
            return Err(self.expected("`priority`"));
        }
        let (words, after) = self.statement();
        let Some(priority) = priority(&said(words), &place.family) else {
            return Err(words
                .first()
                .unwrap_or(&after)
                .wrong("a priority is a number, a name such as filter, or a name and an offset"));
        };
        let chain = &mut self.out.items[index].value["chain"];
        chain["type"] = json!(kind);
        chain["hook"] = json!(hook);
        chain["prio"] = json!(priority);
        if chain.get("policy").is_none() {
            chain["policy"] = json!("accept");
        }
        Ok(())
    }

    fn rule(&mut self, place: &Place, chain: &str, position: Option<usize>) -> Result<(), Wrong> {
        let token = self.here();
        let (tokens, after) = self.statement();
        let plain = super::family_of(&place.family).and_then(|family| quick::read(tokens, family));
        let (mut value, mut ready) = (Value::Null, None);
        if let Some(mut rule) = plain {
            rule.handle = self.handle();
            ready = Some(Ready { home: self.home(place, chain), rule });
        } else {
            let phrases = phrase::read(tokens, &after)?;
            let mut rule =
                json!({ "family": place.family, "table": place.table, "chain": chain, "expr": phrases.expr });
            if let Some(handle) = self.handle() {
                rule["handle"] = json!(handle);
            }
            if let Some(comment) = phrases.comment {
                rule["comment"] = json!(comment);
            }
            value = json!({ "rule": rule });
        }
        let own_line = tokens.iter().all(|t| t.line == token.line) && after.kind == Kind::Newline
            || matches!(after.kind, Kind::Handle(_));
        let line = usize::try_from(token.line).ok().and_then(|n| self.lines.get(n.wrapping_sub(1)));
        let text = match line {
            Some(line) if own_line && position.is_none() => {
                let from = usize::try_from(token.column).unwrap_or(1).saturating_sub(1);
                let text: String = line.chars().skip(from).collect();
                text.split(" # handle ").next().unwrap_or_default().trim().to_owned()
            }
            _ => said(tokens),
        };
        self.out.items.push(Item { value, line: token.line, column: token.column, position, text, ready });
        Ok(())
    }

    /// The chain, named once for all its rules.
    fn home(&mut self, place: &Place, chain: &str) -> Rc<Home> {
        let same = |home: &&Rc<Home>| home.chain == chain && home.table == place.table && home.family == place.family;
        if let Some(home) = self.home.as_ref().filter(same) {
            return Rc::clone(home);
        }
        let home = Rc::new(Home { family: place.family.clone(), table: place.table.clone(), chain: chain.to_owned() });
        self.home = Some(Rc::clone(&home));
        home
    }
}

/// Whether an item is the table, or in it.
pub(super) fn of_table(item: &Value, family: &str, table: &str) -> bool {
    let inner = item.as_object().and_then(|object| object.iter().next());
    inner.is_some_and(|(kind, inner)| {
        inner["family"] == family && inner[if kind == "table" { "name" } else { "table" }] == table
    })
}

/// A priority by number or name (`src/rule.c` of nftables, `prio2str`).
fn priority(text: &str, family: &str) -> Option<i32> {
    let text = text.replace(' ', "");
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let split = text.find(['+', '-']).unwrap_or(text.len());
    let (name, offset) = text.split_at(split);
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    let base: i32 = match (name, family) {
        ("dstnat" | "srcnat", "arp" | "netdev") => return None,
        ("dstnat", "bridge") | ("raw", _) => -300,
        ("filter", "bridge") => -200,
        ("srcnat", "bridge") => 300,
        ("out", "bridge") | ("srcnat", _) => 100,
        ("mangle", _) => -150,
        ("dstnat", _) => -100,
        ("filter", _) => 0,
        ("security", _) => 50,
        _ => return None,
    };
    base.checked_add(offset)
}
