//! One `iptables` command carried out on iptables-save text: what a printed fix does, without the
//! command.

use std::fmt::Write as _;

use super::parse;
use super::ruleset::{Base, Family, Rule, Ruleset, Table, Target};
use crate::host::Backend;

/// Why a command cannot be carried out on a text. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is no ruleset, or would be none with the change.
    #[error("{0}")]
    Text(String),
    /// The command is not one that changes rules, or lacks a word.
    #[error("iptables {command}: {why}")]
    Command {
        /// Its words.
        command: String,
        /// What is wrong.
        why: String,
    },
}

/// Built-in chains of a table that the text does not have yet.
const BUILTIN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Applies one `iptables [-t TABLE] -A|-I|-D|-R|-P|-F|-N|-X …` command to an iptables-save text and
/// returns the new text. `command` is the words of the command; a leading `iptables` or `ip6tables`
/// (with `sudo` before it) is allowed, and `ip6tables` makes the text an ip6tables one.
///
/// A rule to be deleted is found by what it means, not by how it is written.
///
/// # Errors
/// [`EditError`], as `iptables` would refuse it: a chain that is not there, a number past the end, a
/// rule that no rule equals, an option that does not exist.
pub fn edit_iptables(text: &str, command: &[String]) -> Result<String, EditError> {
    let said = command.join(" ");
    let mut words = command;
    let mut family = Family::Ip;
    while let Some((first, rest)) = words.split_first().filter(|(first, _)| !first.starts_with('-')) {
        match first.as_str() {
            "sudo" => {}
            name if name.starts_with("ip6tables") => family = Family::Ip6,
            name if name.starts_with("iptables") => {}
            other => return Err(bad(&said, format!("`{other}` is no iptables command"))),
        }
        words = rest;
    }
    let mut words: Vec<String> =
        words.iter().filter(|word| !matches!(word.as_str(), "-w" | "--wait")).cloned().collect();
    let mut table = "filter".to_owned();
    if let Some(at) = words.iter().position(|word| word == "-t" || word == "--table") {
        if at + 1 >= words.len() {
            return Err(bad(&said, "-t needs a table"));
        }
        table = words.remove(at + 1);
        words.remove(at);
    }
    let mut editor = Editor::new(text, family, &table, &said)?;
    let mut words = words.into_iter();
    let verb = words.next().ok_or_else(|| bad(&said, "there is nothing to do"))?;
    let chain = words.next();
    let rest: Vec<String> = words.collect();
    editor.run(&verb, chain.as_deref(), &rest)?;
    editor.finish()
}

fn bad(command: &str, why: impl Into<String>) -> EditError {
    EditError::Command { command: command.to_owned(), why: why.into() }
}

struct Editor<'a> {
    lines: Vec<String>,
    family: Family,
    table: &'a str,
    said: &'a str,
    /// How many rules of the text jumped nowhere before the command.
    astray: usize,
}

fn read(text: &str, family: Family) -> Result<Ruleset, EditError> {
    parse::iptables_save(text, family, Backend::Nft, "ruleset")
        .map(|parsed| parsed.ruleset)
        .map_err(|error| EditError::Text(error.to_string()))
}

/// The number of rules whose target is neither a chain of their table nor a target that is known.
fn astray(text: &str, family: Family) -> Result<usize, EditError> {
    let ruleset = read(text, family)?;
    let rules = ruleset.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    let unknown = |rule: &&Rule| matches!(&rule.target, Some(Target::Unknown { options, .. }) if options.is_empty());
    Ok(rules.filter(unknown).count())
}

impl<'a> Editor<'a> {
    fn new(text: &str, family: Family, table: &'a str, said: &'a str) -> Result<Self, EditError> {
        // A header comment may say that the text is of the other family.
        let parsed = read(text, family)?;
        let family = parsed.tables.first().map_or(family, |table| table.family);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if parsed.table(family, table).is_none() {
            let chains: Vec<_> = BUILTIN.iter().filter(|chain| Base::of_iptables(table, chain).is_some()).collect();
            if chains.is_empty() {
                return Err(bad(said, format!("there is no table `{table}`")));
            }
            lines.push(format!("*{table}"));
            lines.extend(chains.iter().map(|chain| format!(":{chain} ACCEPT [0:0]")));
            lines.push("COMMIT".to_owned());
        }
        let astray = astray(text, family)?;
        Ok(Self { lines, family, table, said, astray })
    }

    fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    fn model(&self) -> Result<Table, EditError> {
        let parsed = read(&self.text(), self.family)?;
        let table = parsed.tables.into_iter().find(|table| table.name == self.table);
        table.ok_or_else(|| bad(self.said, format!("there is no table `{}`", self.table)))
    }

    /// The table's first line and its COMMIT, counting lines from 0.
    fn section(&self) -> Result<(usize, usize), EditError> {
        let head = format!("*{}", self.table);
        // A table that is there twice is, to iptables-restore, what its last part says.
        let begin = self.lines.iter().rposition(|line| line.trim() == head);
        let begin = begin.ok_or_else(|| bad(self.said, format!("there is no table `{}`", self.table)))?;
        let end = self.lines[begin..].iter().position(|line| line.trim() == "COMMIT");
        Ok((begin, begin + end.ok_or_else(|| bad(self.said, "the table has no COMMIT"))?))
    }

    fn run(&mut self, verb: &str, chain: Option<&str>, rest: &[String]) -> Result<(), EditError> {
        let named = || chain.ok_or_else(|| bad(self.said, "a chain is missing"));
        match verb {
            "-A" | "--append" => {
                let at = self.section()?.1;
                self.insert(at, named()?, rest)
            }
            "-I" | "--insert" => {
                let chain = named()?;
                let (number, spec) = numbered(rest);
                let rules = self.rules(chain)?;
                let at = match number.unwrap_or(1) {
                    0 => return Err(bad(self.said, "rules count from 1")),
                    number if number <= rules.len() => self.line_of(&rules, number)?,
                    number if number == rules.len() + 1 => self.section()?.1,
                    number => return Err(self.no_rule(chain, number, rules.len())),
                };
                self.insert(at, chain, spec)
            }
            "-D" | "--delete" | "-R" | "--replace" => {
                let chain = named()?;
                let rules = self.rules(chain)?;
                let (number, spec) = numbered(rest);
                let replace = matches!(verb, "-R" | "--replace");
                let number = match number {
                    Some(number) if (1..=rules.len()).contains(&number) => number,
                    Some(number) => return Err(self.no_rule(chain, number, rules.len())),
                    None if replace => return Err(bad(self.said, "the number of the rule to replace is missing")),
                    None => self.find(chain, &rules, spec)?,
                };
                let at = self.line_of(&rules, number)?;
                if rules.iter().filter(|rule| rule.line == rules[number - 1].line).count() > 1 {
                    return Err(bad(self.said, "its line holds several rules (a list of addresses)"));
                }
                self.lines.remove(at);
                if replace { self.insert(at, chain, spec) } else { Ok(()) }
            }
            "-P" | "--policy" => {
                let chain = named()?;
                let policy = match rest {
                    [policy] if policy == "ACCEPT" || policy == "DROP" => policy,
                    _ => return Err(bad(self.said, "a policy is ACCEPT or DROP")),
                };
                if Base::of_iptables(self.table, chain).is_none() {
                    return Err(bad(self.said, format!("`{chain}` is no built-in chain of {}", self.table)));
                }
                let line = format!(":{chain} {policy} [0:0]");
                if let Some(at) = self.declaration(chain)? {
                    self.lines[at] = line;
                } else {
                    let at = self.section()?.0 + 1;
                    self.lines.insert(at, line);
                }
                Ok(())
            }
            "-N" | "--new-chain" => {
                let chain = named()?;
                if self.model()?.chain(chain).is_some() {
                    return Err(bad(self.said, format!("the chain `{chain}` is there already")));
                }
                let at = self.section()?.0 + 1;
                self.lines.insert(at, format!(":{chain} - [0:0]"));
                Ok(())
            }
            "-F" | "--flush" => {
                let model = self.model()?;
                if let Some(chain) = chain.filter(|chain| model.chain(chain).is_none()) {
                    return Err(self.no_chain(chain));
                }
                let chains = model.chains.iter().filter(|other| chain.is_none_or(|chain| other.name == chain));
                let mut gone: Vec<_> = chains.flat_map(|chain| &chain.rules).filter_map(place).collect();
                gone.sort_unstable();
                gone.dedup();
                for at in gone.into_iter().rev() {
                    self.lines.remove(at);
                }
                Ok(())
            }
            "-X" | "--delete-chain" => {
                let chain = named()?;
                if !self.rules(chain)?.is_empty() {
                    return Err(bad(self.said, format!("the chain `{chain}` has rules")));
                }
                match self.declaration(chain)? {
                    Some(at) if Base::of_iptables(self.table, chain).is_none() => {
                        self.lines.remove(at);
                        Ok(())
                    }
                    _ => Err(bad(self.said, format!("`{chain}` is no chain of a user's"))),
                }
            }
            other => Err(bad(self.said, format!("`{other}` is no command that changes rules"))),
        }
    }

    fn rules(&self, chain: &str) -> Result<Vec<Rule>, EditError> {
        self.model()?.chain(chain).map(|chain| chain.rules.clone()).ok_or_else(|| self.no_chain(chain))
    }

    fn no_chain(&self, chain: &str) -> EditError {
        bad(self.said, format!("there is no chain `{chain}` in {}", self.table))
    }

    fn no_rule(&self, chain: &str, number: usize, count: usize) -> EditError {
        bad(self.said, format!("there is no rule {number}: {chain} has {count}"))
    }

    fn line_of(&self, rules: &[Rule], number: usize) -> Result<usize, EditError> {
        let at = number.checked_sub(1).and_then(|index| rules.get(index)).and_then(place);
        at.filter(|at| *at < self.lines.len()).ok_or_else(|| bad(self.said, "the rule's line is not known"))
    }

    fn declaration(&self, chain: &str) -> Result<Option<usize>, EditError> {
        let (begin, end) = self.section()?;
        let is = |line: &String| {
            line.trim().strip_prefix(':').and_then(|rest| rest.split_whitespace().next()) == Some(chain)
        };
        Ok(self.lines[begin..end].iter().position(is).map(|at| begin + at))
    }

    fn insert(&mut self, at: usize, chain: &str, spec: &[String]) -> Result<(), EditError> {
        if self.model()?.chain(chain).is_none() {
            return Err(self.no_chain(chain));
        }
        self.lines.insert(at, rule_line(chain, spec));
        Ok(())
    }

    /// The number of the rule that means what these words mean.
    fn find(&self, chain: &str, rules: &[Rule], spec: &[String]) -> Result<usize, EditError> {
        let mut other = Self { lines: self.lines.clone(), ..*self };
        let at = other.section()?.1;
        other.lines.insert(at, rule_line(chain, spec));
        let all = other.rules(chain)?;
        let wanted = all.get(rules.len()).ok_or_else(|| bad(self.said, "it has no rule"))?;
        let same = |rule: &Rule| {
            (&rule.matches, &rule.statements, &rule.target) == (&wanted.matches, &wanted.statements, &wanted.target)
        };
        rules
            .iter()
            .position(same)
            .map(|index| index + 1)
            .ok_or_else(|| bad(self.said, format!("there is no such rule in {chain}")))
    }

    /// The new text, which must be a ruleset, and have no jump to nowhere that it had not before.
    fn finish(self) -> Result<String, EditError> {
        let text = self.text();
        if astray(&text, self.family)? > self.astray {
            return Err(bad(self.said, "a rule would jump to a chain or target that is not there"));
        }
        Ok(text)
    }
}

/// Where the rule stands, counting lines from 0.
fn place(rule: &Rule) -> Option<usize> {
    usize::try_from(rule.line?).ok()?.checked_sub(1)
}

fn numbered(rest: &[String]) -> (Option<usize>, &[String]) {
    match rest.split_first().and_then(|(first, tail)| Some((first.parse().ok()?, tail))) {
        Some((number, tail)) => (Some(number), tail),
        None => (None, rest),
    }
}

fn rule_line(chain: &str, spec: &[String]) -> String {
    let mut line = format!("-A {chain}");
    for word in spec {
        let bare = !word.is_empty() && word.chars().all(|c| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\'));
        line.push(' ');
        if bare {
            line.push_str(word);
        } else {
            let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
            let _ = write!(line, "\"{escaped}\"");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Generated by iptables-save\n*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n:x - [0:0]\n\
        [5:300] -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A OUTPUT -o lo -j ACCEPT\n\
        -A INPUT -s 10.0.0.0/8 -m comment --comment \"a b\" -j x\nCOMMIT\n";

    fn edit(command: &str) -> Result<String, String> {
        let words: Vec<String> = command.split(' ').map(|word| word.replace('_', " ")).collect();
        edit_iptables(TEXT, &words).map_err(|error| error.to_string())
    }

    fn rules(text: &str, chain: &str) -> Vec<String> {
        let prefix = format!("-A {chain} ");
        text.lines().filter_map(|line| line.split_once(&prefix).map(|(_, rule)| rule.to_owned())).collect()
    }

    #[test]
    fn rules_are_added_where_the_command_says() {
        let text = edit("iptables -A OUTPUT -p tcp --sport 8080 -j ACCEPT").unwrap();
        assert_eq!(rules(&text, "OUTPUT"), ["-o lo -j ACCEPT", "-p tcp --sport 8080 -j ACCEPT"]);
        let text = edit("sudo iptables -I INPUT -i lo -j ACCEPT").unwrap();
        assert_eq!(rules(&text, "INPUT")[0], "-i lo -j ACCEPT");
        let text = edit("-I INPUT 2 -i lo -m comment --comment two_words -j ACCEPT").unwrap();
        assert_eq!(rules(&text, "INPUT")[1], "-i lo -m comment --comment \"two words\" -j ACCEPT");
        let text = edit("-I INPUT 3 -i lo -j ACCEPT").unwrap();
        assert_eq!(rules(&text, "INPUT")[2], "-i lo -j ACCEPT");
        assert!(edit("-I INPUT 4 -i lo -j ACCEPT").unwrap_err().contains("has 2"));
    }

    #[test]
    fn rules_are_deleted_by_number_and_by_meaning() {
        assert_eq!(rules(&edit("-D INPUT 1").unwrap(), "INPUT").len(), 1);
        // Written another way than in the text.
        let text = edit("-D INPUT -p tcp --dport 22 -j ACCEPT").unwrap();
        assert_eq!(rules(&text, "INPUT"), ["-s 10.0.0.0/8 -m comment --comment \"a b\" -j x"]);
        assert!(edit("-D INPUT -p tcp --dport 23 -j ACCEPT").unwrap_err().contains("no such rule"));
        assert!(edit("-D INPUT 3").unwrap_err().contains("no rule 3"));
        let text = edit("-R INPUT 2 -j DROP").unwrap();
        assert_eq!(rules(&text, "INPUT")[1], "-j DROP");
    }

    #[test]
    fn policies_chains_and_tables() {
        assert!(edit("-P INPUT DROP").unwrap().contains(":INPUT DROP [0:0]"));
        assert!(edit("-P FORWARD DROP").unwrap().contains(":FORWARD DROP [0:0]"));
        assert!(edit("-P x DROP").is_err());
        assert!(edit("-N y").unwrap().contains(":y - [0:0]"));
        assert!(edit("-N x").is_err());
        assert!(rules(&edit("-F INPUT").unwrap(), "INPUT").is_empty());
        assert!(edit("-X x").unwrap_err().contains("jump to a chain"), "a rule still jumps to it");
        let text = edit("-t nat -A POSTROUTING -o eth0 -j MASQUERADE").unwrap();
        assert!(text.contains("*nat\n:PREROUTING ACCEPT [0:0]\n") && text.starts_with(TEXT));
    }

    #[test]
    fn what_iptables_refuses_is_refused() {
        for command in [
            "-A nowhere -j DROP",
            "-A INPUT -j nowhere",
            "-A INPUT --dport 5 -j DROP",
            "-A",
            "",
            "-t",
            "-t none -A INPUT -j DROP",
            "rm -rf /",
            "-L",
        ] {
            assert!(edit(command).is_err(), "{command}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_or_command_panics(text in "[-*:A-Z a-z\\n]{0,60}", command: Vec<String>) {
            let _ = edit_iptables(&text, &command);
            let _ = edit_iptables(TEXT, &command);
        }
    }
}
