//! Reading listings: `iptables -L [-n] [-v] [--line-numbers]` and `iptables -S`.
//!
//! A listing is for people: without `-v` it has no interfaces, and what modules print is their own
//! affair. What is not surely understood makes its rule undecidable.

use crate::firewall::names;
use crate::firewall::ruleset::{Base, Chain, Counters, Family, Match, Policy, Rule, Table, Target, Test, quote};
use crate::host::Backend;

use super::error::{Fault, ParseError};
use super::listing_extras;
use super::save::Reader;
use super::words::Word;
use super::{Parsed, rule};

pub(super) fn read(text: &str, family: Family, backend: Backend, source: &str) -> Result<Parsed, ParseError> {
    let mut listing = Listing {
        reader: Reader::new(family, backend, source),
        columns: Columns::default(),
        chain: None,
        named: None,
        blind: false,
    };
    for (number, line) in (1u32..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        listing.line(number, line).map_err(|fault| fault.at(source, number, line))?;
    }
    listing.reader.table = None;
    for table in 0..listing.reader.ruleset.tables.len() {
        listing.name_table(table);
        listing.reader.resolve_targets(table);
    }
    if listing.blind {
        let first = text.lines().next().unwrap_or("").to_owned();
        let message = "a listing without -v has no interfaces: a rule for all packets may be one for lo only";
        listing.reader.warn(1, 1, &first, message);
    }
    Ok(Parsed { ruleset: listing.reader.ruleset, warnings: listing.reader.warnings })
}

/// Which columns a listing has.
#[derive(Default, Clone, Copy)]
struct Columns {
    num: bool,
    counters: bool,
    interfaces: bool,
}

struct Listing<'a> {
    reader: Reader<'a>,
    columns: Columns,
    /// The chain being read, in the last table.
    chain: Option<usize>,
    /// The table that a command before the listing names.
    named: Option<String>,
    blind: bool,
}

impl Listing<'_> {
    fn line(&mut self, number: u32, line: &str) -> Result<(), Fault> {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Ok(());
        }
        let words: Vec<&str> = trimmed.split_whitespace().collect();
        if let Some(at) = words.iter().position(|w| w.ends_with("iptables") || w.ends_with("ip6tables"))
            && words[..at].iter().all(|w| w.contains(['#', '$', '@']) || *w == "sudo")
        {
            // The command whose output follows.
            self.reader.family = if words[at].ends_with("ip6tables") { Family::Ip6 } else { Family::Ip };
            let name = words.iter().position(|w| *w == "-t").and_then(|t| words.get(t + 1));
            self.named = Some(name.copied().unwrap_or("filter").to_owned());
            self.reader.table = None;
            return Ok(());
        }
        if trimmed.starts_with('#') {
            return Ok(());
        }
        if words[0] == "Chain" {
            return self.header(number, line, &words);
        }
        if words.contains(&"target") && words.contains(&"prot") && words.contains(&"source") {
            let has = |name: &str| words.contains(&name);
            self.columns = Columns { num: has("num"), counters: has("pkts"), interfaces: has("in") };
            return Ok(());
        }
        if trimmed.starts_with('-') && trimmed.chars().nth(1).is_some_and(|c| "PNAI".contains(c)) {
            let repeated = self.reader.table.is_some_and(|t| {
                let ends =
                    self.reader.ruleset.tables.get(t).is_some_and(|t| t.chains.iter().any(|c| !c.rules.is_empty()));
                ends && words[0] == "-P"
            });
            let table = self.table_of("", repeated);
            return self.reader.rule_line(table, number, line);
        }
        let Some(chain) = self.chain else {
            return Err(
                Fault::new(1, "this line is in no chain").hint("a listing begins with `Chain INPUT (policy …)`")
            );
        };
        let row = self.row(number, line, trimmed)?;
        let table = self.reader.table.unwrap_or(0);
        if let Some(chain) = self.reader.ruleset.tables.get_mut(table).and_then(|t| t.chains.get_mut(chain)) {
            chain.rules.extend(row);
        }
        Ok(())
    }

    /// The table being read; a new one where there is none, or where this one has the chain already.
    fn table_of(&mut self, chain: &str, anew: bool) -> usize {
        let has = |t: &Table| !chain.is_empty() && t.chain(chain).is_some();
        match self.reader.table {
            Some(index) if !anew && !self.reader.ruleset.tables.get(index).is_some_and(has) => index,
            _ => {
                let name = self.named.take().unwrap_or_default();
                let mut table = Table::empty(self.reader.family, name.clone());
                if chain.is_empty() {
                    // `-S` names only policies: the built-in chains are there.
                    let name = if name.is_empty() { "filter" } else { &name };
                    name.clone_into(&mut table.name);
                    for chain in ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"] {
                        let base = Base::of_iptables(name, chain);
                        table.chains.extend(base.map(|base| Chain { base: Some(base), ..Chain::user(chain) }));
                    }
                }
                self.reader.names = table.chains.iter().enumerate().map(|(n, c)| (c.name.clone(), n)).collect();
                self.reader.ruleset.tables.push(table);
                let index = self.reader.ruleset.tables.len() - 1;
                self.reader.table = Some(index);
                index
            }
        }
    }

    /// `Chain INPUT (policy ACCEPT 12 packets, 720 bytes)`, `Chain user (1 references)`
    fn header(&mut self, number: u32, line: &str, words: &[&str]) -> Result<(), Fault> {
        let Some(name) = words.get(1) else { return Err(Fault::new(1, "the name of the chain is missing")) };
        let column =
            |word: &str| line.find(word).map_or(1, |at| u32::try_from(line[..at].chars().count() + 1).unwrap_or(1));
        let index = self.table_of(name, false);
        let mut chain = Chain { line: Some(number), ..Chain::user(*name) };
        if words.get(2) == Some(&"(policy") {
            let word = words.get(3).copied().unwrap_or("");
            let policy = match word.trim_end_matches(')') {
                "ACCEPT" => Policy::Accept,
                "DROP" => Policy::Drop,
                other => {
                    return Err(Fault::new(column("(policy"), format!("`{other}` is no policy")).hint("ACCEPT or DROP"));
                }
            };
            let any = Base::of_iptables("filter", name).or_else(|| Base::of_iptables("mangle", name));
            let Some(mut base) = any else {
                return Err(Fault::new(column(name), format!("`{name}` is no built-in chain and has no policy")));
            };
            base.policy = policy;
            let number = |word: Option<&&str>| word.and_then(|w| amount(w));
            base.counters =
                number(words.get(4)).zip(number(words.get(6))).map(|(packets, bytes)| Counters { packets, bytes });
            chain.base = Some(base);
        }
        let chains = &mut self.reader.ruleset.tables[index].chains;
        chains.push(chain);
        self.chain = Some(chains.len() - 1);
        self.columns = Columns::default();
        Ok(())
    }

    /// A table is told by its built-in chains; hooks and priorities then are that table's.
    fn name_table(&mut self, index: usize) {
        let Some(table) = self.reader.ruleset.tables.get_mut(index) else { return };
        let has = |name: &str| table.chains.iter().any(|c| c.base.is_some() && c.name == name);
        if table.name.is_empty() {
            let name = match (has("PREROUTING"), has("FORWARD"), has("POSTROUTING")) {
                (true, true, true) => "mangle",
                (_, _, true) => "nat",
                (true, _, false) => "raw",
                _ => "filter",
            };
            name.clone_into(&mut table.name);
        }
        let name = table.name.clone();
        for chain in &mut table.chains {
            if let (Some(base), Some(own)) = (&mut chain.base, Base::of_iptables(&name, &chain.name)) {
                (base.kind, base.priority) = (own.kind, own.priority);
            }
        }
    }

    /// One rule of `-L`.
    fn row(&mut self, number: u32, line: &str, trimmed: &str) -> Result<Option<Rule>, Fault> {
        let columns = self.columns;
        let v6 = self.reader.family == Family::Ip6;
        let words: Vec<&str> = trimmed.split_whitespace().collect();
        let mut at = usize::from(columns.num);
        let mut counters = None;
        if columns.counters {
            let pair = words.get(at).and_then(|w| amount(w)).zip(words.get(at + 1).and_then(|w| amount(w)));
            let Some((packets, bytes)) = pair else {
                return Err(Fault::new(1, "this row has no counters, though the head has"));
            };
            counters = Some(Counters { packets, bytes });
            at += 2;
        }
        let fit = [true, false]
            .into_iter()
            .find_map(|target| fields(&words[at.min(words.len())..], target, columns.interfaces));
        let Some(fields) = fit else {
            return Err(Fault::new(1, "this row does not fit the columns of `iptables -L`")
                .hint("target, prot, opt, [in, out,] source, destination"));
        };
        if fields.source.contains('.') && v6 || fields.source.contains(':') && !v6 && self.reader.table.is_some() {
            let family = if v6 { Family::Ip } else { Family::Ip6 };
            self.reader.family = family;
            let index = self.reader.table.unwrap_or(0);
            if let Some(table) = self.reader.ruleset.tables.get_mut(index) {
                table.family = family;
            }
        }
        // The extras stand after the destination, as they are.
        let rest = nth_rest(trimmed, at + fields.count);
        let mut extras = listing_extras::read(rest, fields.target);
        let mut arguments: Vec<String> = Vec::new();
        let mut say = |option: &str, value: &str| {
            let (negated, value) = value.strip_prefix('!').map_or((false, value), |value| (true, value));
            if negated {
                arguments.push("!".to_owned());
            }
            arguments.extend([option.to_owned(), value.to_owned()]);
        };
        let everywhere = ["0.0.0.0/0", "::/0", "anywhere"];
        for (option, value) in [("-s", fields.source), ("-d", fields.destination)] {
            if !everywhere.contains(&value) {
                say(option, value);
            }
        }
        for (option, value) in [("-i", fields.input), ("-o", fields.output)] {
            if !matches!(value, "*" | "any" | "") {
                say(option, value);
            }
        }
        if !matches!(fields.protocol, "all" | "0") {
            say("-p", fields.protocol);
        }
        if fields.options == "-f" || fields.options == "!f" {
            arguments.extend((fields.options == "!f").then(|| "!".to_owned()));
            arguments.push("-f".to_owned());
        }
        arguments.append(&mut extras.arguments);
        if let Some(target) = fields.target {
            arguments.extend([if extras.goto { "-g" } else { "-j" }.to_owned(), target.to_owned()]);
            arguments.append(&mut extras.target);
        }
        let mut rule = self.rule(number, line, &arguments, fields.target);
        for (module, options) in extras.stateful {
            rule.matches.push(Match::is(Test::Stateful { module, options }));
        }
        if let Some(unknown) = extras.unknown {
            let column = line.find(&unknown).map_or(1, |at| u32::try_from(line[..at].chars().count() + 1).unwrap_or(1));
            self.reader.warn(
                number,
                column,
                line,
                format!("`{unknown}` is not evaluated: this rule may or may not match"),
            );
            rule.matches.push(Match::is(Test::Unknown { module: String::new(), options: unknown }));
        }
        if !columns.interfaces {
            self.blind = true;
            if rule.matches.iter().all(|m| matches!(m.test, Test::Comment(_))) {
                let options = "the interfaces, which are not listed".to_owned();
                rule.matches.push(Match::is(Test::Unknown { module: String::new(), options }));
            }
        }
        rule.counters = counters;
        rule.line = Some(number);
        trimmed.clone_into(&mut rule.text);
        Ok(Some(rule))
    }

    fn rule(&mut self, number: u32, line: &str, arguments: &[String], target: Option<&str>) -> Rule {
        let word = |text: &String| {
            // Where the listing has the same word, a fault points at it.
            let at = line.find(text.as_str()).map_or(1, |at| line[..at].chars().count() + 1);
            let quoted = !text.starts_with('-') && text != "!";
            Word { text: text.clone(), column: u32::try_from(at).unwrap_or(1), quoted }
        };
        let words: Vec<Word> = arguments.iter().map(word).collect();
        match rule::read(&words, self.reader.family, line) {
            Ok((rules, notes)) => {
                for (column, note) in notes {
                    self.reader.warn(number, column, line, format!("{note}: this rule may or may not match"));
                }
                rules.into_iter().next().unwrap_or_default()
            }
            Err(fault) => {
                // A listing is no syntax: what cannot be told is kept as not known.
                let said: Vec<String> = arguments.iter().map(|a| quote(a)).collect();
                self.reader.warn(
                    number,
                    fault.column,
                    line,
                    format!("{}: this rule may or may not match", fault.message),
                );
                let options = said.join(" ");
                let target = target.map(|name| Target::Unknown { name: name.to_owned(), options: String::new() });
                Rule {
                    matches: vec![Match::is(Test::Unknown { module: String::new(), options })],
                    target,
                    ..Rule::default()
                }
            }
        }
    }
}

/// The columns of one row.
struct Fields<'l> {
    target: Option<&'l str>,
    protocol: &'l str,
    options: &'l str,
    input: &'l str,
    output: &'l str,
    source: &'l str,
    destination: &'l str,
    /// How many words they are.
    count: usize,
}

/// Reads a row with or without a target; `None` where it does not fit. ip6tables leaves the column
/// of options empty.
fn fields<'l>(words: &[&'l str], target: bool, interfaces: bool) -> Option<Fields<'l>> {
    let mut at = 0;
    let mut next = || {
        at += 1;
        words.get(at - 1).copied()
    };
    let target = if target { Some(next()?) } else { None };
    let protocol = next()?;
    let bare = protocol.trim_start_matches('!');
    if bare != "all" && names::protocol(bare).is_none() {
        return None;
    }
    let mut first = next()?;
    let mut options = "--";
    if matches!(first, "--" | "-f" | "!f") {
        options = first;
        first = next()?;
    }
    let (input, output, source) = if interfaces { (first, next()?, next()?) } else { ("", "", first) };
    let destination = next()?;
    let place = |text: &str| {
        text.contains(['.', ':', '/'])
            || text.trim_start_matches('!').chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    (place(source) && place(destination)).then_some(Fields {
        target,
        protocol,
        options,
        input,
        output,
        source,
        destination,
        count: at,
    })
}

/// What stands after the first `count` words.
fn nth_rest(text: &str, count: usize) -> &str {
    let mut rest = text.trim_start();
    for _ in 0..count {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        rest = rest[end..].trim_start();
    }
    rest
}

/// `12`, `12K`, `3M`: what -v rounds so.
fn amount(text: &str) -> Option<u64> {
    let text = text.trim_end_matches([')', ',']);
    let (digits, factor) = match text.chars().last()? {
        'K' => (&text[..text.len() - 1], 1_000),
        'M' => (&text[..text.len() - 1], 1_000_000),
        'G' => (&text[..text.len() - 1], 1_000_000_000),
        'T' => (&text[..text.len() - 1], 1_000_000_000_000),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}
