//! Reading shell scripts of `iptables …`, `ip6tables …` and `ipset …` commands.
//!
//! Variables and `for` loops over lists are carried out; what could change the result in a way that
//! is not seen from the text (a condition, a function, another command's output) is refused.

use std::collections::HashMap;

use crate::firewall::ruleset::{Family, quote};
use crate::host::Backend;

use super::error::ParseError;
use super::save::Reader;
use super::script_words::{self, At, Document, Part, Piece, Raw, Wrong};
use super::{Parsed, ipset};

/// Commands that one script may run, its loops unrolled.
const MAX_COMMANDS: usize = 2_000_000;
/// How deep loops may nest.
const MAX_DEPTH: usize = 8;

pub(super) fn read(text: &str, backend: Backend, source: &str) -> Result<Parsed, ParseError> {
    let (prepared, prompt) = without_prompts(text);
    let at_line = |line: u32| {
        let index = usize::try_from(line).unwrap_or(1).saturating_sub(1);
        text.split('\n').nth(index).unwrap_or("").to_owned()
    };
    let mut script = Script {
        reader: Reader::new(Family::Ip, backend, source),
        variables: HashMap::new(),
        lines: text.split('\n').collect(),
        commands: 0,
        flushed: false,
        skipped: Vec::new(),
        ended: false,
    };
    if let Some(line) = prompt {
        let message = "a terminal's prompt stands before the commands; iptables-restore refuses such a file";
        script.reader.refused(line, 1, &at_line(line), message);
    }
    let outcome = script_words::split(&prepared).and_then(|pieces| script.block(&pieces, 0));
    outcome.map_err(|wrong| wrong.fault.at(source, wrong.line, &at_line(wrong.line)))?;
    script.reader.table = None;
    for table in 0..script.reader.ruleset.tables.len() {
        script.reader.resolve_targets(table);
    }
    if !script.flushed && !script.reader.ruleset.tables.is_empty() {
        script.reader.warn(
            1,
            1,
            &at_line(1),
            "the script flushes nothing; it is read as if there were no rules before it",
        );
    }
    Ok(Parsed { ruleset: script.reader.ruleset, warnings: script.reader.warnings })
}

/// Whether a line, its prompt taken off, is one of the commands that matter.
fn is_command(text: &str) -> bool {
    let text = text.trim_start().strip_prefix("sudo ").unwrap_or(text.trim_start());
    let program = text.split_whitespace().next().unwrap_or("");
    matches!(
        base_name(program),
        "iptables" | "ip6tables" | "ipset" | "iptables-legacy" | "iptables-nft" | "ip6tables-legacy" | "ip6tables-nft"
    )
}

/// Whether a line is a prompt with one of the commands that matter.
pub(super) fn is_prompted(line: &str) -> bool {
    after_prompt(line).is_some()
}

/// Whether a line looks like one of a shell script.
pub(super) fn is_shell(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or("");
    let assigns = word
        .split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    is_command(line)
        || assigns
        || word.starts_with('$') && word.len() > 1
        || matches!(
            word,
            "for" | "if" | "while" | "set" | "export" | "function" | "sudo" | "iptables-restore" | "ip6tables-restore"
        )
        || harmless(word)
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The text after a prompt (`# `, `$ `, `root@host:~# `, `[root@host ~]# `), where there is one.
fn after_prompt(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("# ").or_else(|| line.split_once("$ "))?;
    let before = before.trim();
    let prompt =
        before.is_empty() || before.contains('@') && before.len() < 80 || before == "~" || before.starts_with('[');
    (prompt && is_command(after)).then_some(after)
}

/// A terminal's text with only its commands left, at their columns; the first line with a prompt.
/// `# iptables …` in a file that has commands without a prompt too is a comment.
fn without_prompts(text: &str) -> (String, Option<u32>) {
    let lines: Vec<&str> = text.split('\n').collect();
    let bare = lines.iter().any(|line| {
        is_command(line)
            || line.trim_start().starts_with('$')
                && line.trim_start().chars().nth(1).is_some_and(|c| c.is_ascii_alphabetic() || c == '{')
    });
    let mut first = None;
    let mut continued = false;
    let prepared = lines.iter().zip(1u32..).map(|(line, number)| {
        let after = after_prompt(line).filter(|_| !bare);
        let goes_on = continued;
        continued = line.trim_end().ends_with('\\') && (after.is_some() || goes_on);
        match after {
            Some(after) => {
                first = first.or(Some(number));
                let indent = line.chars().count() - after.chars().count();
                format!("{:indent$}{after}", "")
            }
            None => (*line).to_owned(),
        }
    });
    let prepared: Vec<String> = prepared.collect();
    (prepared.join("\n"), first)
}

pub(super) struct Script<'a> {
    pub(super) reader: Reader<'a>,
    variables: HashMap<String, String>,
    lines: Vec<&'a str>,
    commands: usize,
    pub(super) flushed: bool,
    /// Programs that were said to be skipped.
    skipped: Vec<String>,
    /// `exit` was reached.
    ended: bool,
}

/// A word with its variables put in.
#[derive(Clone)]
pub(super) struct Plain {
    pub(super) text: String,
    pub(super) at: At,
    pub(super) quoted: bool,
}

impl Script<'_> {
    fn block(&mut self, pieces: &[Piece], depth: usize) -> Result<(), Wrong> {
        let mut at = 0;
        while at < pieces.len() && !self.ended {
            let end = pieces[at..].iter().position(|p| matches!(p, Piece::End(_))).map_or(pieces.len(), |n| at + n);
            let command = &pieces[at..end];
            at = end + 1;
            let Some(Piece::Word(first)) = command.first() else {
                match command.first() {
                    Some(Piece::Operator(operator, place)) => {
                        return Err(place.wrong(
                            format!("`{operator}` is not supported here"),
                            "write plain commands, a line each",
                        ));
                    }
                    _ => continue,
                }
            };
            match first.plain().unwrap_or("") {
                "for" => at = self.for_loop(pieces, at, command, first.at, depth)?,
                "do" | "done" => return Err(first.at.wrong("this belongs to no `for` loop", "")),
                word @ ("if" | "while" | "until" | "case" | "select" | "function" | "[" | "[[" | "{" | "then"
                | "else" | "fi" | "test") => {
                    return Err(first.at.wrong(
                        format!("`{word}` makes the rules depend on what is not seen here"),
                        "run the script and take what iptables-save then prints",
                    ));
                }
                _ => self.command(command)?,
            }
        }
        Ok(())
    }

    /// `for X in a b c; do …; done`; where to go on.
    fn for_loop(
        &mut self,
        pieces: &[Piece],
        after: usize,
        head: &[Piece],
        place: At,
        depth: usize,
    ) -> Result<usize, Wrong> {
        let words: Vec<&Raw> =
            head.iter().filter_map(|p| if let Piece::Word(w) = p { Some(w) } else { None }).collect();
        let (Some(name), Some("in")) = (words.get(1).and_then(|w| w.plain()), words.get(2).and_then(|w| w.plain()))
        else {
            return Err(place.wrong("only `for NAME in LIST; do … done` is supported", ""));
        };
        if words.len() != head.len() {
            return Err(place.wrong("only plain words can be looped over here", ""));
        }
        if depth >= MAX_DEPTH {
            return Err(place.wrong("loops nest too deep here", ""));
        }
        let is = |piece: &Piece, text: &str| matches!(piece, Piece::Word(w) if w.plain() == Some(text));
        let mut at = after;
        while matches!(pieces.get(at), Some(Piece::End(_))) {
            at += 1;
        }
        if !pieces.get(at).is_some_and(|p| is(p, "do")) {
            return Err(place.wrong("this `for` has no `do`", "write `for X in a b; do … done`"));
        }
        at += 1;
        let (start, mut open, mut begins) = (at, 1, true);
        let end = loop {
            let Some(piece) = pieces.get(at) else { return Err(place.wrong("this `for` has no `done`", "")) };
            if begins && is(piece, "for") {
                open += 1;
            } else if begins && is(piece, "done") {
                open -= 1;
                if open == 0 {
                    break at;
                }
            }
            begins = matches!(piece, Piece::End(_)) || is(piece, "do");
            at += 1;
        };
        let list: Vec<Plain> = self.expand(&words[3..])?;
        let mut body = pieces[start..end].to_vec();
        body.push(Piece::End(place));
        for value in list {
            self.variables.insert(name.to_owned(), value.text);
            self.block(&body, depth + 1)?;
            // An empty body spends too.
            self.spend(place)?;
        }
        Ok(end + 1)
    }

    fn spend(&mut self, place: At) -> Result<(), Wrong> {
        self.commands += 1;
        if self.commands > MAX_COMMANDS {
            return Err(place.wrong("the loops run more commands than can be read", ""));
        }
        Ok(())
    }

    /// Puts the variables in; what is not quoted is split at blanks.
    fn expand(&self, words: &[&Raw]) -> Result<Vec<Plain>, Wrong> {
        let mut out = Vec::new();
        for raw in words {
            let mut word: Option<Plain> = None;
            let new = || Plain { text: String::new(), at: raw.at, quoted: false };
            for part in &raw.parts {
                let (text, quoted, split) = match part {
                    Part::Plain(text, quoted) => (text.as_str(), *quoted, false),
                    Part::Output(at) => {
                        let hint = "what a command prints is not known here: write the value itself";
                        return Err(at.wrong("the output of a command cannot stand here", hint));
                    }
                    Part::Variable(name, default, quoted) => {
                        let value = self.variables.get(name).map(String::as_str).or(default.as_deref());
                        let Some(value) = value else {
                            return Err(raw.at.wrong(
                                format!("the variable ${name} has no value here"),
                                &format!("set it before: `{name}=…`"),
                            ));
                        };
                        (value, *quoted, !*quoted)
                    }
                };
                if !split {
                    let word = word.get_or_insert_with(new);
                    word.text.push_str(text);
                    word.quoted |= quoted;
                    continue;
                }
                if text.starts_with(char::is_whitespace) {
                    out.extend(word.take());
                }
                for (n, field) in text.split_whitespace().enumerate() {
                    if n > 0 {
                        out.extend(word.take());
                    }
                    word.get_or_insert_with(new).text.push_str(field);
                }
                if text.ends_with(char::is_whitespace) {
                    out.extend(word.take());
                }
            }
            out.extend(word);
        }
        Ok(out)
    }

    fn command(&mut self, pieces: &[Piece]) -> Result<(), Wrong> {
        let (mut raws, mut document, mut input) = (Vec::new(), None, None);
        let mut pieces = pieces.iter();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Word(raw) => raws.push(raw),
                Piece::Document(given) => document = Some(given),
                Piece::Redirect(operator, at) => {
                    pieces.next();
                    if *operator == "<" {
                        input = Some(*at);
                    }
                }
                // `|| true` keeps `set -e` from ending the script.
                Piece::Operator("||", at) => match pieces.next() {
                    Some(Piece::Word(raw)) if matches!(raw.plain(), Some("true" | ":")) => (),
                    _ => {
                        return Err(
                            at.wrong("`||` makes the rules depend on what is not seen here", "write plain commands")
                        );
                    }
                },
                Piece::Operator("&&", at) => {
                    return Err(at.wrong("`&&` is not supported here", "write the commands on lines of their own"));
                }
                Piece::Operator(operator, at) => {
                    return Err(
                        at.wrong(format!("`{operator}` is not supported here"), "write plain commands, a line each")
                    );
                }
                Piece::End(_) => (),
            }
        }
        // Assignments before the command, or alone.
        while let Some(raw) = raws.first() {
            let Some(Part::Plain(text, false)) = raw.parts.first() else { break };
            let Some((name, value)) = text.split_once('=') else { break };
            let named = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty();
            if !named || name.starts_with(|c: char| c.is_ascii_digit()) {
                break;
            }
            let mut parts = vec![Part::Plain(value.to_owned(), true)];
            // Within an assignment nothing is split at blanks.
            parts.extend(raw.parts[1..].iter().map(|part| match part {
                Part::Plain(text, _) => Part::Plain(text.clone(), true),
                Part::Variable(name, default, _) => Part::Variable(name.clone(), default.clone(), true),
                Part::Output(at) => Part::Output(*at),
            }));
            let whole = Raw { parts, at: raw.at };
            let value = self.expand(&[&whole])?.pop().map_or(String::new(), |w| w.text);
            self.variables.insert(name.to_owned(), value);
            raws.remove(0);
        }
        let Some(first) = raws.first() else { return Ok(()) };
        self.spend(first.at)?;
        if matches!(first.plain(), Some("export" | "readonly" | "local" | "declare" | "typeset")) {
            let rest: Vec<Piece> = raws[1..].iter().map(|raw| Piece::Word((*raw).clone())).collect();
            let assigns =
                raws.get(1).is_some_and(|r| matches!(r.parts.first(), Some(Part::Plain(t, false)) if t.contains('=')));
            return if assigns { self.command(&rest) } else { Ok(()) };
        }
        let mut words = self.expand_command(&raws)?;
        while words.first().is_some_and(|w| matches!(w.text.as_str(), "sudo" | "exec" | "command" | "-E" | "-n")) {
            words.remove(0);
        }
        let Some(program) = words.first().cloned() else { return Ok(()) };
        words.remove(0);
        self.run(&program, &words, document, input)
    }

    /// Like [`Self::expand`], but commands that are skipped may use what is not known.
    fn expand_command(&self, raws: &[&Raw]) -> Result<Vec<Plain>, Wrong> {
        match self.expand(raws) {
            Err(wrong) if raws.first().and_then(|w| w.plain()).is_some_and(harmless) => {
                self.expand(&raws[..1]).map_err(|_| wrong)
            }
            other => other,
        }
    }

    fn run(
        &mut self,
        program: &Plain,
        words: &[Plain],
        document: Option<&Document>,
        input: Option<At>,
    ) -> Result<(), Wrong> {
        let name = base_name(&program.text);
        let family = if name.starts_with("ip6") { Family::Ip6 } else { Family::Ip };
        let plain = name.trim_end_matches("-legacy").trim_end_matches("-nft");
        if name.ends_with("-legacy") {
            self.reader.ruleset.backend = Backend::Legacy;
        }
        match plain {
            "iptables" | "ip6tables" => self.iptables(family, program, words),
            "iptables-restore" | "ip6tables-restore" | "iptables-legacy-restore" | "iptables-nft-restore" => {
                let Some(document) = document else {
                    let place = input.unwrap_or(program.at);
                    return Err(
                        place.wrong("the rules that are restored here are in another file", "give that file instead")
                    );
                };
                self.restore(family, document, words)
            }
            "ipset" => self.ipset(program, words, document, input),
            "exit" => {
                self.ended = true;
                Ok(())
            }
            _ if harmless(name) => {
                if !matches!(name, "echo" | "printf" | "set" | "true" | ":") && !self.skipped.iter().any(|s| s == name)
                {
                    self.skipped.push(name.to_owned());
                    self.warn(program.at, format!("`{name}` is skipped: it changes no rule"));
                }
                Ok(())
            }
            "service" | "netfilter-persistent" if words.iter().any(|w| w.text == "save") => Ok(()),
            _ => Err(program.at.wrong(
                format!("what `{}` does to the rules is not known here", program.text),
                "leave it out, or run the script and take what iptables-save then prints",
            )),
        }
    }

    fn warn(&mut self, at: At, message: String) {
        let line = self.text_of(at.line);
        self.reader.warn(at.line, at.column, &line, message);
        if let Some(warning) = self.reader.warnings.last_mut() {
            warning.refused_by_restore = false;
        }
    }

    pub(super) fn text_of(&self, line: u32) -> String {
        let index = usize::try_from(line).unwrap_or(1).saturating_sub(1);
        self.lines.get(index).copied().unwrap_or("").to_owned()
    }

    /// `iptables-restore <<EOF`
    fn restore(&mut self, family: Family, document: &Document, words: &[Plain]) -> Result<(), Wrong> {
        let keep = words.iter().any(|w| matches!(w.text.as_str(), "-n" | "--noflush"));
        self.flushed |= !keep;
        self.reader.family = family;
        self.reader.table = None;
        for (number, line) in (document.first..).zip(&document.lines) {
            let text = if document.verbatim { line.clone() } else { self.put_in(number, line)? };
            let known = text.trim().strip_prefix('*').map(str::trim);
            if let (true, Some(table)) = (keep, known) {
                self.table(family, table);
                continue;
            }
            self.reader.line(number, &text).map_err(|fault| Wrong { line: number, fault })?;
        }
        self.reader.table = None;
        Ok(())
    }

    /// Puts the variables into a line that is no shell command.
    fn put_in(&self, number: u32, line: &str) -> Result<String, Wrong> {
        let mut out = String::new();
        let mut rest = line;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let column = u32::try_from(line.chars().count() - rest[at..].chars().count() + 1).unwrap_or(1);
            let place = At { line: number, column };
            rest = &rest[at + 1..];
            let braced = rest.starts_with('{');
            rest = if braced { &rest[1..] } else { rest };
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let name = &rest[..end];
            rest = &rest[end..];
            if name.is_empty() || braced && !rest.starts_with('}') {
                return Err(place.wrong("this `$` is not supported here", "plain variables are: `$X`, `${X}`"));
            }
            rest = if braced { &rest[1..] } else { rest };
            let value = self.variables.get(name);
            out.push_str(value.ok_or_else(|| place.wrong(format!("the variable ${name} has no value here"), ""))?);
        }
        out.push_str(rest);
        Ok(out)
    }

    fn ipset(
        &mut self,
        program: &Plain,
        words: &[Plain],
        document: Option<&Document>,
        input: Option<At>,
    ) -> Result<(), Wrong> {
        let mut words: Vec<&Plain> = words
            .iter()
            .filter(|w| !matches!(w.text.as_str(), "-exist" | "-!" | "--exist" | "-q" | "-quiet"))
            .collect();
        match words.first().map(|w| w.text.as_str()) {
            Some("restore" | "-R") => {
                let Some(document) = document else {
                    let place = input.unwrap_or(program.at);
                    return Err(
                        place.wrong("the sets that are restored here are in another file", "give that file instead")
                    );
                };
                for (number, line) in (document.first..).zip(&document.lines) {
                    if !line.trim().is_empty() {
                        self.set_line(line, At { line: number, column: 1 })?;
                    }
                }
                Ok(())
            }
            Some("destroy" | "-X" | "x" | "flush" | "-F") => {
                let name = words.get(1).map(|w| w.text.clone());
                let destroy = !matches!(words[0].text.as_str(), "flush" | "-F");
                let sets = &mut self.reader.ruleset.sets;
                if destroy {
                    sets.retain(|set| name.as_ref().is_some_and(|name| *name != set.name));
                } else {
                    sets.iter_mut()
                        .filter(|s| name.as_ref().is_none_or(|n| *n == s.name))
                        .for_each(|s| s.elements.clear());
                }
                Ok(())
            }
            Some("list" | "-L" | "save" | "-S" | "test" | "-T") => Ok(()),
            Some("create" | "-N" | "n" | "new" | "add" | "-A" | "a") => {
                let place = words[0].at;
                words.retain(|w| !w.text.is_empty());
                let line: Vec<String> = words.iter().map(|w| quote(&w.text)).collect();
                self.set_line(&line.join(" "), place)
            }
            _ => {
                Err(program.at.wrong("this ipset command is not supported here", "create, add, flush and destroy are"))
            }
        }
    }

    fn set_line(&mut self, line: &str, at: At) -> Result<(), Wrong> {
        let note = ipset::read_line(&mut self.reader.ruleset, line)
            .map_err(|fault| Wrong { line: at.line, fault: super::error::Fault { column: at.column, ..fault } })?;
        if let Some((_, message)) = note {
            self.warn(at, message);
        }
        Ok(())
    }
}

/// Programs that change no rule.
fn harmless(name: &str) -> bool {
    matches!(
        base_name(name),
        "echo"
            | "printf"
            | "modprobe"
            | "insmod"
            | "depmod"
            | "lsmod"
            | "sysctl"
            | "set"
            | "sleep"
            | "logger"
            | "true"
            | ":"
            | "iptables-save"
            | "ip6tables-save"
            | "unset"
            | "shopt"
            | "cd"
            | "mkdir"
            | "touch"
            | "chmod"
            | "chown"
            | "date"
            | "clear"
            | "cat"
            | "ip"
            | "ifconfig"
            | "route"
            | "tc"
            | "ebtables"
            | "arptables"
            | "umask"
            | "trap"
            | "wait"
            | "return"
            | "conntrack"
            | "hostname"
            | "id"
            | "which"
            | "tee"
    )
}
