//! Reading iptables-save and ip6tables-save.

use crate::firewall::keyed::{ByName, Names};
use crate::firewall::ruleset::{Base, Chain, Counters, Family, Policy, Ruleset, Table, Target};
use crate::host::Backend;

use super::Parsed;
use super::error::{Fault, ParseError, Warning};
use super::words::{self, Word};
use super::{quick, rule};

pub(super) fn read(text: &str, family: Family, backend: Backend, source: &str) -> Result<Parsed, ParseError> {
    let mut reader = Reader::new(family, backend, source);
    for (number, line) in (1u32..).zip(text.split('\n')) {
        let line = reader.without_cr(number, line);
        reader.line(number, line).map_err(|fault| fault.at(source, number, line))?;
    }
    reader.finish(text);
    Ok(Parsed { ruleset: reader.ruleset, warnings: reader.warnings })
}

pub(super) struct Reader<'a> {
    pub(super) ruleset: Ruleset,
    pub(super) warnings: Vec<Warning>,
    pub(super) family: Family,
    /// Index of the table being read.
    pub(super) table: Option<usize>,
    /// Its chains by name: a table may have tens of thousands.
    pub(super) names: ByName<String, usize>,
    /// The chain of the last plain rule; rules of a chain follow each other.
    last: usize,
    source: &'a str,
    crlf: bool,
}

/// What a rule line does with its rule.
enum Command {
    Append,
    Insert(usize),
}

impl<'a> Reader<'a> {
    pub(super) fn new(family: Family, backend: Backend, source: &'a str) -> Self {
        Self {
            ruleset: Ruleset::empty(backend, source),
            warnings: Vec::new(),
            family,
            table: None,
            names: ByName::default(),
            last: 0,
            source,
            crlf: false,
        }
    }

    pub(super) fn warn(&mut self, line: u32, column: u32, text: &str, message: impl Into<String>) {
        let source = self.source.to_owned();
        let message = message.into();
        self.warnings.push(Warning { source, line, column, message, text: text.to_owned(), refused_by_restore: false });
    }

    /// A warning of what iptables-restore (legacy or nft) does not take.
    pub(super) fn refused(&mut self, line: u32, column: u32, text: &str, message: impl Into<String>) {
        self.warn(line, column, text, message);
        self.warnings.iter_mut().next_back().into_iter().for_each(|warning| warning.refused_by_restore = true);
    }

    fn without_cr<'t>(&mut self, number: u32, line: &'t str) -> &'t str {
        let Some(bare) = line.strip_suffix('\r') else { return line };
        if !self.crlf {
            self.crlf = true;
            let column = u32::try_from(bare.chars().count() + 1).unwrap_or(u32::MAX);
            self.refused(number, column, bare, "lines end with CR LF; iptables-restore refuses such a file");
        }
        bare
    }

    fn finish(&mut self, text: &str) {
        if let Some(index) = self.table {
            let name = self.ruleset.tables.get(index).map_or(String::new(), |t| t.name.clone());
            let line = u32::try_from(text.lines().count().max(1)).unwrap_or(u32::MAX);
            let last = text.lines().last().unwrap_or("").to_owned();
            self.refused(line, 1, &last, format!("table {name} has no COMMIT: iptables-restore would not load it"));
        }
        if !text.ends_with('\n') && text.trim_end().ends_with("COMMIT") {
            let line = u32::try_from(text.lines().count().max(1)).unwrap_or(u32::MAX);
            let message = "the last line has no line end: legacy iptables-restore refuses it";
            self.refused(line, 7, "COMMIT", message);
        }
        // A target that is no extension and no chain of the table: only now are all chains known.
        for table in 0..self.ruleset.tables.len() {
            self.resolve_targets(table);
        }
    }

    pub(super) fn resolve_targets(&mut self, index: usize) {
        let Some(table) = self.ruleset.tables.get_mut(index) else { return };
        let users: Names<&str> =
            table.chains.iter().filter(|c| c.base.is_none()).map(|chain| chain.name.as_str()).collect();
        let mut lost = Vec::new();
        for (c, chain) in table.chains.iter().enumerate() {
            for (r, rule) in chain.rules.iter().enumerate() {
                if let Some(Target::Jump(name) | Target::Goto(name)) = &rule.target
                    && !users.contains(name.as_str())
                {
                    lost.push((c, r, name.clone()));
                }
            }
        }
        let mut bad = Vec::new();
        for (c, r, unknown) in lost {
            let Some(rule) = table.chains.get_mut(c).and_then(|chain| chain.rules.get_mut(r)) else { continue };
            let is_goto = matches!(rule.target, Some(Target::Goto(_)));
            bad.push((rule.line, rule.text.clone(), unknown.clone(), is_goto));
            rule.target = Some(Target::Unknown { name: unknown, options: String::new() });
        }
        for (line, text, name, is_goto) in bad {
            let kind = if is_goto { "chain" } else { "chain or target" };
            let column =
                text.find(&name).and_then(|at| u32::try_from(text[..at].chars().count() + 1).ok()).unwrap_or(1);
            self.refused(
                line.unwrap_or(1),
                column,
                &text,
                format!("there is no {kind} `{name}` here: what this rule does is not known"),
            );
        }
    }

    pub(super) fn line(&mut self, number: u32, line: &str) -> Result<(), Fault> {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Ok(());
        }
        let indent = u32::try_from(line.chars().take_while(|c| c.is_whitespace()).count()).unwrap_or(0) + 1;
        if trimmed.starts_with('#') {
            if indent > 1 {
                let message = "a comment begins its line; iptables-restore refuses blanks before it";
                self.refused(number, 1, line, message);
            }
            if trimmed.contains("ip6tables-save") {
                self.family = Family::Ip6;
            } else if trimmed.contains("iptables-save") {
                self.family = Family::Ip;
            }
            return Ok(());
        }
        if let Some(name) = trimmed.strip_prefix('*') {
            return self.begin_table(number, line, name.trim(), indent + 1);
        }
        if trimmed == "COMMIT" {
            if line != trimmed {
                self.refused(number, indent, line, "blanks around COMMIT: iptables-restore refuses them");
            }
            if self.table.take().is_none() {
                return Err(
                    Fault::new(indent, "COMMIT without a table").hint("a table begins with a line such as `*filter`")
                );
            }
            return Ok(());
        }
        if let Some(rest) = trimmed.strip_prefix(':') {
            let table = self.in_table(indent)?;
            return self.chain(table, number, line, rest, indent);
        }
        if trimmed.starts_with('-') || trimmed.starts_with('[') {
            let table = self.in_table(indent)?;
            return self.rule_line(table, number, line);
        }
        if self.table.is_none() && looks_like_prompt(trimmed) {
            let message = "a line of a terminal, not of a ruleset: ignored; iptables-restore refuses it";
            self.refused(number, indent, line, message);
            return Ok(());
        }
        Err(Fault::new(indent, format!("`{}` begins no line of a ruleset", first_word(trimmed)))
            .hint("lines are `*table`, `:CHAIN POLICY [0:0]`, `-A CHAIN …`, `COMMIT`, or `# comment`"))
    }

    fn in_table(&self, column: u32) -> Result<usize, Fault> {
        self.table.ok_or_else(|| {
            Fault::new(column, "this line is in no table")
                .hint("begin the table with `*filter`, and end it with COMMIT")
        })
    }

    fn begin_table(&mut self, number: u32, line: &str, name: &str, column: u32) -> Result<(), Fault> {
        if self.table.is_some() {
            self.refused(
                number,
                column,
                line,
                "the table before this one has no COMMIT: iptables-restore would not load it",
            );
        }
        if !matches!(name, "filter" | "nat" | "mangle" | "raw" | "security") {
            return Err(Fault::new(column, format!("there is no table `{name}`"))
                .hint("the tables are filter, nat, mangle, raw, security"));
        }
        if let Some(index) = self.ruleset.tables.iter().position(|t| t.name == name && t.family == self.family) {
            self.warn(
                number,
                column,
                line,
                format!("table {name} is here a second time and replaces the first, as iptables-restore would do"),
            );
            self.ruleset.tables.remove(index);
        }
        self.ruleset.tables.push(Table::empty(self.family, name));
        self.table = Some(self.ruleset.tables.len() - 1);
        self.names.clear();
        Ok(())
    }

    pub(super) fn chain(
        &mut self,
        table: usize,
        number: u32,
        line: &str,
        rest: &str,
        indent: u32,
    ) -> Result<(), Fault> {
        let mut words = rest.split_whitespace();
        let name = words.next().ok_or_else(|| Fault::new(indent, "a chain's name is missing"))?;
        let policy_column = indent + 1 + u32::try_from(name.chars().count() + 1).unwrap_or(0);
        let policy = words.next();
        let counters = words.next().map(|text| counters(text, policy_column)).transpose()?;
        let table_name = self.ruleset.tables[table].name.clone();
        let base = Base::of_backend(self.ruleset.backend, &table_name, name);
        let base = match (base, policy) {
            (Some(mut base), Some(policy)) => {
                base.policy = match policy {
                    "ACCEPT" | "-" => Policy::Accept,
                    "DROP" => Policy::Drop,
                    other => {
                        return Err(Fault::new(policy_column, format!("`{other}` is no policy")).hint("ACCEPT or DROP"));
                    }
                };
                base.counters = counters;
                Some(base)
            }
            (None, None | Some("-")) => None,
            (Some(base), None) => {
                let message = "this chain has no policy; ACCEPT is taken, iptables-restore refuses the line";
                self.refused(number, indent, line, message);
                Some(base)
            }
            (None, Some(policy)) => {
                return Err(Fault::new(policy_column, format!("chain {name} of table {table_name} is no built-in chain and has no policy, yet `{policy}` is given"))
                    .hint(format!("write `:{name} - [0:0]`")));
            }
        };
        let known = self.names.get(name).copied();
        let table = &mut self.ruleset.tables[table];
        if let Some(chain) = known.and_then(|index| table.chains.get_mut(index)) {
            // iptables-restore flushes a chain that is declared again.
            chain.rules.clear();
            chain.base = base;
            chain.line = Some(number);
        } else {
            self.names.insert(name.to_owned(), table.chains.len());
            table.chains.push(Chain { base, line: Some(number), ..Chain::user(name) });
        }
        Ok(())
    }

    fn chain_named(&self, table: usize, name: &str) -> Option<usize> {
        let last = self.ruleset.tables.get(table)?.chains.get(self.last);
        if last.is_some_and(|chain| chain.name == name) {
            return Some(self.last);
        }
        self.names.get(name).copied()
    }

    pub(super) fn rule_line(&mut self, table: usize, number: u32, line: &str) -> Result<(), Fault> {
        if let Some((chain, mut rule)) = quick::read(line, self.family)
            && let Some(index) = self.chain_named(table, chain)
            && let Some(chain) = self.ruleset.tables.get_mut(table).and_then(|t| t.chains.get_mut(index))
        {
            self.last = index;
            rule.line = Some(number);
            line.trim().clone_into(&mut rule.text);
            chain.rules.push(rule);
            return Ok(());
        }
        let mut words = words::split(line)?;
        let mut rule_counters = None;
        if let Some(first) = words.first()
            && first.text.starts_with('[')
        {
            rule_counters = Some(counters(&first.text, first.column)?);
            words.remove(0);
        }
        if words.is_empty() {
            return Err(Fault::new(1, "counters without a rule"));
        }
        if line.contains('\'') {
            let single = words.iter().find(|w| w.quoted && char_at(line, w.column) == Some('\''));
            if let Some(column) = single.map(|w| w.column) {
                self.refused(number, column, line, "iptables-restore knows only `\"` as a quote and refuses this");
            }
        }
        self.words(table, number, line, &words, rule_counters, line.trim())
    }

    /// A rule line's words; `shown` becomes the rule's text.
    pub(super) fn words(
        &mut self,
        table: usize,
        number: u32,
        line: &str,
        words: &[Word],
        rule_counters: Option<Counters>,
        shown: &str,
    ) -> Result<(), Fault> {
        let (command, chain, rest) = self.command(table, number, line, words)?;
        let Some(command) = command else { return Ok(()) };
        let (rules, notes) = rule::read(rest, self.family, line)?;
        for (column, note) in notes {
            if note.starts_with('`') && note.contains("refuses it") {
                self.refused(number, column, line, note);
            } else {
                self.warn(number, column, line, format!("{note}: this rule may or may not match"));
            }
        }
        if !self.names.contains_key(&chain) {
            let base = Base::of_backend(self.ruleset.backend, &self.ruleset.tables[table].name, &chain);
            if base.is_none() {
                self.refused(
                    number,
                    1,
                    line,
                    format!(
                        "chain {chain} is not declared by a line `:{chain} - [0:0]`; iptables-restore would refuse this"
                    ),
                );
            }
            self.names.insert(chain.clone(), self.ruleset.tables[table].chains.len());
            self.ruleset.tables[table].chains.push(Chain { base, ..Chain::user(chain.clone()) });
        }
        let index = self.names.get(&chain).copied();
        let Some(chain) = index.and_then(|index| self.ruleset.tables[table].chains.get_mut(index)) else {
            return Ok(());
        };
        let at = match command {
            Command::Append => chain.rules.len(),
            Command::Insert(position) => position.saturating_sub(1).min(chain.rules.len()),
        };
        for (at, mut rule) in (at..).zip(rules) {
            rule.line = Some(number);
            rule.counters = rule.counters.or(rule_counters);
            shown.clone_into(&mut rule.text);
            chain.rules.insert(at, rule);
        }
        Ok(())
    }

    /// The command of a rule line; `None` where it has been carried out.
    fn command<'w>(
        &mut self,
        table: usize,
        number: u32,
        line: &str,
        words: &'w [Word],
    ) -> Result<(Option<Command>, String, &'w [Word]), Fault> {
        let first = &words[0];
        let end = u32::try_from(line.chars().count() + 1).unwrap_or(u32::MAX);
        let chain = || {
            words
                .get(1)
                .filter(|w| !w.is_option())
                .ok_or_else(|| Fault::new(end, format!("`{}` needs the name of a chain", first.text)))
        };
        match first.text.as_str() {
            "-A" | "--append" => Ok((Some(Command::Append), chain()?.text.clone(), &words[2..])),
            "-I" | "--insert" => {
                let name = chain()?.text.clone();
                let position = words.get(2).and_then(|w| w.text.parse::<usize>().ok().filter(|n| *n > 0));
                let rest = if position.is_some() { &words[3..] } else { &words[2..] };
                Ok((Some(Command::Insert(position.unwrap_or(1))), name, rest))
            }
            "-N" | "--new-chain" => {
                let name = chain()?.text.clone();
                let table = &mut self.ruleset.tables[table];
                if !self.names.contains_key(&name) {
                    self.names.insert(name.clone(), table.chains.len());
                    table.chains.push(Chain { line: Some(number), ..Chain::user(name.clone()) });
                }
                Ok((None, name, &[]))
            }
            "-P" | "--policy" => {
                let name = chain()?.clone();
                let policy = words.get(2).ok_or_else(|| Fault::new(end, "`-P` needs a policy"))?;
                // Other than a line `:CHAIN …`, this leaves the rules alone.
                let known = self.names.get(&name.text).copied();
                let chain = known.and_then(|index| self.ruleset.tables[table].chains.get_mut(index));
                let rules = chain.map_or(Vec::new(), |chain| std::mem::take(&mut chain.rules));
                self.chain(table, number, line, &format!("{} {}", name.text, policy.text), name.column)?;
                let known = self.names.get(&name.text).copied();
                if let Some(chain) = known.and_then(|index| self.ruleset.tables[table].chains.get_mut(index)) {
                    chain.rules = rules;
                }
                Ok((None, name.text, &[]))
            }
            "-F" | "--flush" => {
                let name = words.get(1).map(|w| w.text.clone());
                for chain in &mut self.ruleset.tables[table].chains {
                    if name.as_ref().is_none_or(|name| *name == chain.name) {
                        chain.rules.clear();
                    }
                }
                Ok((None, name.unwrap_or_default(), &[]))
            }
            other => Err(Fault::new(first.column, format!("`{other}` begins no rule"))
                .hint("a rule of a chain is appended by `-A CHAIN …`")),
        }
    }
}

/// The character in a column, from 1.
fn char_at(line: &str, column: u32) -> Option<char> {
    line.chars().nth(usize::try_from(column).ok()?.checked_sub(1)?)
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or(text)
}

/// `root@host:~# iptables-save`, `$ sudo iptables-save`
fn looks_like_prompt(line: &str) -> bool {
    line.contains("tables-save")
        || line.starts_with('$')
        || line.starts_with("~#")
        || line.contains('@') && line.contains(['#', '$'])
}

/// `[packets:bytes]`
pub(super) fn counters(text: &str, column: u32) -> Result<Counters, Fault> {
    let pair = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).and_then(|t| t.split_once(':'));
    let parsed = pair.and_then(|(p, b)| Some(Counters { packets: p.parse().ok()?, bytes: b.parse().ok()? }));
    parsed.ok_or_else(|| {
        Fault::new(column, format!("`{text}` is no pair of counters")).hint("counters look like `[packets:bytes]`")
    })
}
