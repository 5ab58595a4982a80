//! The hosts file itself: what is wrong with it, and what it would be after a change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::name::DomainName;
use super::report::Severity;
use crate::host::hosts::{HostsEntry, HostsFile};

/// Something about a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineFinding {
    /// `syntax`, `duplicate`, `conflict`, `loopback`, `bad-name`, `crlf`, `missing-localhost`, `missing-hostname`.
    pub code: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// The line, from 1; `None` for what is missing.
    pub line: Option<usize>,
    /// In a sentence.
    pub message: String,
}

/// Looks for what is not read as it was meant. `hostname` is the host's own name.
pub fn lint(text: &str, hostname: Option<&str>) -> Vec<LineFinding> {
    let file = HostsFile::parse(text);
    let mut found = Vec::new();
    let mut note = |code, severity, line, message: String| found.push(LineFinding { code, severity, line, message });
    for issue in &file.issues {
        note("syntax", Severity::Fault, Some(issue.line), issue.message.clone());
    }
    if let Some(at) = text.lines().position(|_| text.contains("\r\n")) {
        let line = text.split('\n').position(|line| line.ends_with('\r')).unwrap_or(at) + 1;
        note(
            "crlf",
            Severity::Info,
            Some(line),
            "lines end with a carriage return, which glibc takes as a blank".to_owned(),
        );
    }
    let mut seen: BTreeMap<(String, bool), Vec<(usize, IpAddr)>> = BTreeMap::new();
    for entry in &file.entries {
        for name in std::iter::once(&entry.name).chain(&entry.aliases) {
            if let Some(why) = bad_name(name) {
                note("bad-name", Severity::Warning, Some(entry.line), format!("`{name}` {why}"));
            }
            let key = (name.to_ascii_lowercase(), entry.address.is_ipv4());
            seen.entry(key).or_default().push((entry.line, entry.address));
        }
        let is_localhost = entry.has("localhost");
        if is_localhost && !entry.address.is_loopback() {
            let message = format!("localhost is {}, which is not this host's loopback", entry.address);
            note("loopback", Severity::Fault, Some(entry.line), message);
        }
    }
    for ((name, _), lines) in &seen {
        let (first_line, first) = lines[0];
        for (line, address) in &lines[1..] {
            if *line == first_line {
                note("duplicate", Severity::Info, Some(*line), format!("`{name}` stands twice on this line"));
            } else if *address == first {
                let message = format!("`{name}` is {address} on line {first_line} already");
                note("duplicate", Severity::Info, Some(*line), message);
            } else {
                let message = format!(
                    "`{name}` is {first} on line {first_line} and {address} here: applications get both, the first one first"
                );
                note("conflict", Severity::Warning, Some(*line), message);
            }
        }
    }
    if !seen.contains_key(&("localhost".to_owned(), true)) {
        let message = "no line names 127.0.0.1 localhost; programs that need it ask the DNS".to_owned();
        note("missing-localhost", Severity::Warning, None, message);
    }
    if let Some(own) = hostname.filter(|own| !own.is_empty()) {
        let known = |v4| seen.contains_key(&(own.to_ascii_lowercase(), v4));
        if !known(true) && !known(false) {
            let message = format!("no line has this host's own name `{own}`; sudo and others then ask the DNS for it");
            note("missing-hostname", Severity::Info, None, message);
        }
    }
    found.sort_by_key(|finding| (finding.line.is_none(), finding.line, finding.severity));
    found
}

/// Why nobody finds a name that stands there.
fn bad_name(name: &str) -> Option<&'static str> {
    if name.parse::<IpAddr>().is_ok() {
        Some("is an address: a name was expected, and addresses are never looked up here")
    } else if name.ends_with('.') {
        Some("ends with a dot: it is found only by who asks with the dot")
    } else if !name.is_ascii() {
        Some("is not ASCII: applications ask for the xn-- form")
    } else if !DomainName::parse(name).is_ok_and(|name| name.is_host()) {
        Some("is no host name: letters, digits, - and _ in labels of up to 63 are")
    } else {
        None
    }
}

/// `127.0.0.1=www.163.com,163.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// The address.
    pub address: IpAddr,
    /// Its names.
    pub names: Vec<String>,
}

impl std::str::FromStr for Addition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, names) = text.split_once('=').ok_or("it must be ADDRESS=NAME, as in 127.0.0.1=www.163.com")?;
        let address: IpAddr = address.trim().parse().map_err(|_| format!("`{address}` is no address"))?;
        let names: Vec<String> =
            names.split([',', ' ', '\t']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.is_empty() {
            return Err("a name is missing behind the `=`".to_owned());
        }
        for name in &names {
            if let Some(why) = bad_name(name) {
                return Err(format!("`{name}` {why}"));
            }
        }
        Ok(Self { address, names })
    }
}

/// A file before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The new text.
    pub text: String,
    /// Lines of the old file, each with what becomes of it: `None` is taken out.
    lines: Vec<(String, Option<String>)>,
    /// Lines put at the end.
    added: Vec<String>,
    /// What to know about it.
    pub notes: Vec<String>,
}

/// What the file would be: names of `remove` are taken out first (a line without any left goes with them),
/// then what is not there yet is put at the end.
pub fn edit(text: &str, add: &[Addition], remove: &[String]) -> Edited {
    let crlf = text.contains("\r\n");
    let mut notes = Vec::new();
    let file = HostsFile::parse(text);
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let mut lines: Vec<(String, Option<String>)> =
        all.iter().map(|line| ((*line).to_owned(), Some((*line).to_owned()))).collect();
    let mut gone = Vec::new();
    for entry in &file.entries {
        let out = |name: &String| remove.iter().any(|gone| gone.eq_ignore_ascii_case(name));
        let names: Vec<&String> = std::iter::once(&entry.name).chain(&entry.aliases).collect();
        let left: Vec<&String> = names.iter().copied().filter(|name| !out(name)).collect();
        if left.len() == names.len() {
            continue;
        }
        gone.extend(names.iter().filter(|name| out(name)).map(|name| name.to_ascii_lowercase()));
        if let Some(slot) = lines.get_mut(entry.line - 1) {
            slot.1 = (!left.is_empty()).then(|| without(&slot.0, &out));
        }
    }
    for name in remove {
        if !gone.contains(&name.to_ascii_lowercase()) {
            notes.push(format!("no line has `{name}`"));
        }
    }
    let kept: String = lines.iter().filter_map(|(_, new)| new.as_deref()).collect();
    let after = HostsFile::parse(&kept);
    let mut added = Vec::new();
    for addition in add {
        let missing: Vec<&String> = addition
            .names
            .iter()
            .filter(|name| {
                let same = |entry: &&HostsEntry| entry.address == addition.address;
                let there = after.lookup(name).find(same);
                if let Some(entry) = there {
                    notes.push(format!(
                        "`{name}` is {} already, on line {}",
                        addition.address,
                        line_of(&lines, entry.line)
                    ));
                }
                there.is_none()
            })
            .collect();
        for name in &missing {
            let family = |entry: &&HostsEntry| entry.address.is_ipv4() == addition.address.is_ipv4();
            for entry in after.lookup(name).filter(family) {
                notes.push(format!(
                    "`{name}` stays {} on line {}: applications would get both, that one first; --remove {name} takes it out",
                    entry.address,
                    line_of(&lines, entry.line)
                ));
            }
        }
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
            added.push(format!("{}\t{}{}", addition.address, names.join(" "), if crlf { "\r\n" } else { "\n" }));
        }
    }
    let mut new = kept;
    if !added.is_empty() && !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.extend(added.iter().map(String::as_str));
    Edited { text: new, lines, added, notes }
}

/// The line in the old file of a line in the kept part.
fn line_of(lines: &[(String, Option<String>)], kept: usize) -> usize {
    let mut left = kept;
    for (at, (_, new)) in lines.iter().enumerate() {
        left -= usize::from(new.is_some());
        if left == 0 {
            return at + 1;
        }
    }
    kept
}

/// The line without some of its names; blanks and the comment stay as they are.
fn without(line: &str, out: &dyn Fn(&String) -> bool) -> String {
    let end = line.find('#').unwrap_or(line.len());
    let (content, comment) = line.split_at(end);
    let mut kept = String::new();
    let mut gap = String::new();
    let mut word = String::new();
    let mut count = 0;
    let mut flush = |gap: &mut String, word: &mut String, kept: &mut String| {
        if word.is_empty() {
            return;
        }
        count += 1;
        if count == 1 || !out(word) {
            kept.push_str(gap);
            kept.push_str(word);
        }
        gap.clear();
        word.clear();
    };
    for c in content.chars() {
        if c.is_ascii_whitespace() || c == '\x0b' {
            flush(&mut gap, &mut word, &mut kept);
            gap.push(c);
        } else {
            word.push(c);
        }
    }
    flush(&mut gap, &mut word, &mut kept);
    format!("{kept}{gap}{comment}")
}

impl Edited {
    /// Whether anything changes.
    pub fn changes(&self) -> bool {
        !self.added.is_empty() || self.lines.iter().any(|(old, new)| new.as_ref() != Some(old))
    }

    /// The change as `diff -u` writes it.
    pub fn diff(&self, path: &str) -> String {
        let mut rows: Vec<(char, &str)> = Vec::new();
        for (old, new) in &self.lines {
            match new {
                Some(new) if new == old => rows.push((' ', old)),
                new => {
                    rows.push(('-', old));
                    rows.extend(new.as_deref().map(|new| ('+', new)));
                }
            }
        }
        // A last line without an end gets one when something follows it.
        let open = self.lines.last().filter(|(old, new)| !old.ends_with('\n') && new.as_ref() == Some(old));
        let ended = open.map(|(old, _)| format!("{old}\n")).filter(|_| !self.added.is_empty());
        if let Some(ended) = &ended {
            let last = rows.pop().map_or("", |row| row.1);
            rows.extend([('-', last), ('+', ended.as_str())]);
        }
        rows.extend(self.added.iter().map(|line| ('+', line.as_str())));
        unified(&rows, path)
    }
}

fn unified(rows: &[(char, &str)], path: &str) -> String {
    const CONTEXT: usize = 3;
    let changed: Vec<usize> = rows.iter().enumerate().filter(|(_, row)| row.0 != ' ').map(|(at, _)| at).collect();
    if changed.is_empty() {
        return String::new();
    }
    let mut text = format!("--- {path}\n+++ {path} (changed)\n");
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for at in changed {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(rows.len()));
        match hunks.last_mut() {
            Some(last) if from <= last.1 => last.1 = to,
            _ => hunks.push((from, to)),
        }
    }
    for (from, to) in hunks {
        let count = |rows: &[(char, &str)], not: char| rows.iter().filter(|row| row.0 != not).count();
        let (old_before, new_before) = (count(&rows[..from], '+'), count(&rows[..from], '-'));
        let (old, new) = (count(&rows[from..to], '+'), count(&rows[from..to], '-'));
        // A hunk of no lines stands behind the line before it.
        let begin = |before: usize, length: usize| if length == 0 { before } else { before + 1 };
        let _ = writeln!(text, "@@ -{},{old} +{},{new} @@", begin(old_before, old), begin(new_before, new));
        for (mark, line) in &rows[from..to] {
            text.push(*mark);
            text.push_str(line);
            if !line.ends_with('\n') {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "127.0.0.1 localhost\n# x\n10.0.0.1\tapi.lab  API web.lab # both\n10.0.0.2 api.lab\n1.2.3 bad\n";

    fn add(text: &str) -> Addition {
        text.parse().unwrap()
    }

    #[test]
    fn lint_names_line_and_kind() {
        let found = lint(FILE, Some("me"));
        let kinds: Vec<_> = found.iter().map(|finding| (finding.code, finding.line)).collect();
        assert_eq!(kinds, [("conflict", Some(4)), ("syntax", Some(5)), ("missing-hostname", None)]);
        let kinds = |text: &str| lint(text, None).iter().map(|finding| finding.code).collect::<Vec<_>>();
        assert_eq!(kinds("10.0.0.1 localhost\n"), ["loopback"]);
        assert_eq!(
            kinds("127.0.0.1 localhost a a b.\r\n127.0.0.1 A\n"),
            ["bad-name", "crlf", "duplicate", "duplicate"]
        );
        assert_eq!(kinds(""), ["missing-localhost"]);
    }

    #[test]
    fn a_change_is_shown_before_it_is_made() {
        let edited = edit(FILE, &[add("127.0.0.1=www.163.com")], &[]);
        assert!(edited.text.ends_with("1.2.3 bad\n127.0.0.1\twww.163.com\n"));
        assert_eq!(
            edited.diff("/etc/hosts"),
            "--- /etc/hosts\n+++ /etc/hosts (changed)\n@@ -3,3 +3,4 @@\n 10.0.0.1\tapi.lab  API web.lab # both\n \
             10.0.0.2 api.lab\n 1.2.3 bad\n+127.0.0.1\twww.163.com\n"
        );
        let edited = edit(FILE, &[], &["api.lab".to_owned(), "none".to_owned()]);
        assert!(
            edited.text.contains("10.0.0.1  API web.lab # both\n") && !edited.text.contains("10.0.0.2"),
            "{}",
            edited.text
        );
        assert_eq!(edited.notes, ["no line has `none`"]);
        let same = edit(FILE, &[add("10.0.0.1=api.lab")], &[]);
        assert!(!same.changes() && same.diff("x").is_empty() && same.text == FILE);
        let both = edit(FILE, &[add("10.0.0.3=web.lab")], &[]);
        assert!(both.notes[0].contains("line 3"), "{:?}", both.notes);
        assert_eq!(edit("a", &[add("::1=x")], &[]).diff("h").matches("No newline").count(), 1);
        for bad in ["", "1.2.3.4", "1.2.3=x", "1.2.3.4=", "1.2.3.4=a#b", "1.2.3.4=5.6.7.8", "1.2.3.4=a\nb"] {
            assert!(bad.parse::<Addition>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_added_is_found_and_the_rest_stays(text in "([0-9a-z.:# \t]{0,20}\r?\n){0,6}[0-9a-z. ]{0,5}", number in 1_u8..) {
            let addition = Addition { address: [10, 9, 8, number].into(), names: vec!["new.example".to_owned()] };
            let edited = edit(&text, std::slice::from_ref(&addition), &[]);
            prop_assert!(HostsFile::parse(&edited.text).lookup("new.example").any(|entry| entry.address == addition.address));
            prop_assert!(edited.text.starts_with(&text));
            let back = edit(&edited.text, &[], &["new.example".to_owned()]);
            prop_assert_eq!(back.text.trim_end_matches('\n'), text.trim_end_matches('\n'));
            let _ = (edited.diff("x"), lint(&text, Some("me")));
        }

        #[test]
        fn no_text_makes_it_panic(text: String, name: String) {
            let _ = (lint(&text, Some(&name)), edit(&text, &[], std::slice::from_ref(&name)).diff(&name));
        }
    }
}
