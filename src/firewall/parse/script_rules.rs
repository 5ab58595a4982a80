//! The `iptables` commands of a script, carried out on the ruleset read so far.

use crate::firewall::ruleset::{Base, Chain, Family, Rule, Table, quote};

use super::error::Fault;
use super::rule;
use super::script::{Plain, Script};
use super::script_words::{At, Wrong};
use super::words::Word;

impl Script<'_> {
    /// Turns to a table; it has its built-in chains from the start.
    pub(super) fn table(&mut self, family: Family, name: &str) -> usize {
        let tables = &mut self.reader.ruleset.tables;
        let index = tables.iter().position(|t| t.family == family && t.name == name).unwrap_or_else(|| {
            let mut table = Table::empty(family, name);
            for chain in ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"] {
                if let Some(base) = Base::of_iptables(name, chain) {
                    table.chains.push(Chain { base: Some(base), ..Chain::user(chain) });
                }
            }
            tables.push(table);
            tables.len() - 1
        });
        if self.reader.table != Some(index) || self.reader.family != family {
            self.reader.family = family;
            self.reader.table = Some(index);
            self.names(index);
        }
        index
    }

    /// Learns a table's chains anew.
    fn names(&mut self, index: usize) {
        let chains = self.reader.ruleset.tables[index].chains.iter().enumerate();
        self.reader.names = chains.map(|(n, chain)| (chain.name.clone(), n)).collect();
    }

    pub(super) fn iptables(&mut self, family: Family, program: &Plain, words: &[Plain]) -> Result<(), Wrong> {
        let (mut rest, mut table, mut family) = (Vec::new(), "filter".to_owned(), family);
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            match word.text.as_str() {
                "-t" | "--table" => {
                    let name = words.next().ok_or_else(|| word.at.wrong("`-t` needs the name of a table", ""))?;
                    if !matches!(name.text.as_str(), "filter" | "nat" | "mangle" | "raw" | "security") {
                        return Err(name.at.wrong(
                            format!("there is no table `{}`", name.text),
                            "the tables are filter, nat, mangle, raw, security",
                        ));
                    }
                    table.clone_from(&name.text);
                }
                "-w" | "--wait" | "-W" | "--wait-interval" => {
                    words.next_if(|w| w.text.chars().all(|c| c.is_ascii_digit()));
                }
                "-6" | "--ipv6" => family = Family::Ip6,
                "-v" | "--verbose" | "-n" | "--numeric" | "--line-numbers" | "-x" | "-4" | "--ipv4" => (),
                _ => rest.push(word.clone()),
            }
        }
        // The command may stand behind its options.
        let commands = [
            "-A",
            "--append",
            "-I",
            "--insert",
            "-D",
            "--delete",
            "-R",
            "--replace",
            "-N",
            "--new-chain",
            "-P",
            "--policy",
            "-F",
            "--flush",
            "-X",
            "--delete-chain",
            "-Z",
            "--zero",
            "-L",
            "--list",
            "-S",
            "--list-rules",
            "-E",
            "--rename-chain",
            "-C",
            "--check",
            "-h",
            "-V",
            "--version",
        ];
        let Some(at) = rest.iter().position(|w| !w.quoted && commands.contains(&w.text.as_str())) else {
            return Err(program.at.wrong("no command such as -A, -I, -P or -F is given", ""));
        };
        let length =
            1 + rest[at + 1..].iter().take(2).take_while(|w| !w.text.starts_with('-') && w.text != "!").count();
        let tail = rest.split_off(at + length);
        let mut command = rest.split_off(at);
        command.extend(rest);
        command.extend(tail);
        let index = self.table(family, &table);
        self.carry_out(index, family, &command)
    }

    fn carry_out(&mut self, index: usize, family: Family, command: &[Plain]) -> Result<(), Wrong> {
        let places: Vec<(At, usize)> = command.iter().map(|w| (w.at, w.text.chars().count())).collect();
        // A column tells the word it belongs to: see `real`.
        let words: Vec<Word> = command
            .iter()
            .zip(1u32..)
            .map(|(w, n)| Word { text: w.text.clone(), column: n * 1000, quoted: w.quoted })
            .collect();
        let line = command.first().map_or(1, |w| w.at.line);
        let shown: Vec<String> = command
            .iter()
            .map(|w| if w.quoted || w.text.is_empty() { quote(&w.text) } else { w.text.clone() })
            .collect();
        let shown = shown.join(" ");
        let before = self.reader.warnings.len();
        let result = match words.first().map_or("", |w| w.text.as_str()) {
            "-A" | "--append" | "-I" | "--insert" | "-N" | "--new-chain" | "-P" | "--policy" | "-F" | "--flush" => {
                self.flushed |= words[0].text.starts_with("-F") || words[0].text == "--flush";
                self.reader.words(index, line, "", &words, None, &shown)
            }
            "-D" | "--delete" | "-R" | "--replace" => self.edit(index, family, line, &words, &shown),
            "-X" | "--delete-chain" => {
                let name = words.get(1).map(|w| w.text.clone());
                let chains = &mut self.reader.ruleset.tables[index].chains;
                chains.retain(|chain| chain.base.is_some() || name.as_ref().is_some_and(|name| *name != chain.name));
                self.names(index);
                Ok(())
            }
            "-E" | "--rename-chain" => {
                if let (Some(old), Some(new)) = (words.get(1), words.get(2)) {
                    if let Some(chain) = self.reader.ruleset.tables[index].chain_mut(&old.text) {
                        chain.name.clone_from(&new.text);
                    }
                    self.names(index);
                }
                Ok(())
            }
            // They only list, count or ask.
            _ => Ok(()),
        };
        let real = |column: u32| -> At {
            let word = usize::try_from(column / 1000).unwrap_or(0);
            match word.checked_sub(1).and_then(|n| places.get(n)) {
                Some((at, _)) => At { line: at.line, column: at.column + column % 1000 },
                None => places.last().map_or(At { line, column: 1 }, |(at, length)| At {
                    line: at.line,
                    column: at.column + u32::try_from(*length).unwrap_or(0),
                }),
            }
        };
        for n in before..self.reader.warnings.len() {
            let at = real(self.reader.warnings[n].column);
            let text = self.text_of(at.line);
            let warning = &mut self.reader.warnings[n];
            (warning.line, warning.column, warning.text) = (at.line, at.column, text);
            warning.refused_by_restore = false;
        }
        result.map_err(|mut fault| {
            let at = real(fault.column);
            fault.column = at.column;
            Wrong { line: at.line, fault }
        })
    }

    /// `-D CHAIN RULE`, `-D CHAIN NUMBER`, `-R CHAIN NUMBER RULE`
    fn edit(&mut self, index: usize, family: Family, line: u32, words: &[Word], shown: &str) -> Result<(), Fault> {
        let replace = words[0].text.starts_with("-R") || words[0].text == "--replace";
        let name = words.get(1).ok_or_else(|| Fault::new(1, "the name of a chain is missing"))?;
        let number = words.get(2).and_then(|w| w.text.parse::<usize>().ok());
        let from = if number.is_some() { 3 } else { 2 };
        let (rules, _) = rule::read(words.get(from..).unwrap_or_default(), family, "")?;
        let chain = self.reader.ruleset.tables[index].chain_mut(&name.text);
        let Some(chain) = chain else {
            return Err(Fault::new(name.column, format!("there is no chain `{}` here", name.text)));
        };
        let bare = |rule: &Rule| (rule.matches.clone(), rule.target.clone());
        if let Some(number) = number {
            let at = number.wrapping_sub(1);
            if at >= chain.rules.len() {
                let column = words[2].column;
                return Err(Fault::new(column, format!("chain {} has no rule {number} here", name.text)));
            }
            chain.rules.remove(at);
            if replace {
                for mut rule in rules.into_iter().take(1) {
                    rule.line = Some(line);
                    shown.clone_into(&mut rule.text);
                    chain.rules.insert(at, rule);
                }
            }
            return Ok(());
        }
        for rule in rules {
            if let Some(at) = chain.rules.iter().position(|old| bare(old) == bare(&rule)) {
                chain.rules.remove(at);
            } else {
                let message = format!("chain {} has no such rule here: nothing is deleted", name.text);
                self.reader.warn(line, words[0].column, shown, message);
                return Ok(());
            }
        }
        Ok(())
    }
}
