//! Text: what the tools take is read without complaint, what is written back they take again and it
//! reads the same, and what they refuse is not read in silence.

use reachwhy::firewall::parse;

use crate::check;
use crate::generate;
use crate::kernel::{Kernel, feed};
use crate::line::Line;
use crate::random::Random;
use crate::rules::{Kind, Rules};

/// What the texts gave.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub rulesets: u64,
    pub mutated: u64,
    pub refused: u64,
    /// Both refuse or both take; else the text and who took it.
    pub differ: Vec<String>,
    pub bad: Vec<String>,
}

fn tool(rules: &Rules) -> &'static str {
    match (rules.kind, rules.v6) {
        (Kind::Legacy, false) => "iptables-legacy-restore",
        (Kind::Legacy, true) => "ip6tables-legacy-restore",
        (_, false) => "iptables-nft-restore",
        (_, true) => "ip6tables-nft-restore",
    }
}

/// Whether the reader takes a text without a word.
fn read(rules: &Rules, text: &str) -> Result<(), String> {
    let dump = check::dumps_of(rules, text, "").remove(0);
    let parsed = parse::dump(&dump).map_err(|error| error.to_string())?;
    parsed.warnings.first().map_or(Ok(()), |warning| Err(warning.to_string()))
}

/// The text with one word of one rule changed.
fn mutated(r: &mut Random, text: &str) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let rules: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].starts_with("-A")).collect();
    if rules.is_empty() {
        return None;
    }
    let at = r.pick(&rules);
    if lines[at].contains('"') {
        return None;
    }
    let mut words: Vec<String> = lines[at].split(' ').map(str::to_owned).collect();
    if words.len() < 4 {
        return None;
    }
    let n = 2 + r.below(words.len() - 2);
    match r.below(6) {
        0 => drop(words.remove(n)),
        1 => words.insert(n, "!".to_owned()),
        2 => words.insert(n, words[n].clone()),
        3 => words[n].push_str(r.pick(&["0", "x", ",", "/", ":"])),
        4 => {
            r.pick(&["0", "-1", "65536", "4294967296", "x", "1:0", "0x", "10.0.0.1", "fd00::1", "tcp", "ALL", ""])
                .clone_into(&mut words[n]);
        }
        _ => {
            let other = 2 + r.below(words.len() - 2);
            words.swap(n, other);
        }
    }
    lines[at] = words.join(" ");
    Some(lines.join("\n") + "\n")
}

/// Reads, writes and spoils random rulesets.
pub(crate) fn run(seed: u64, rulesets: u64, spoiled: u64) -> Result<Seen, String> {
    let _line = Line::new()?;
    let _kernel = Kernel::listen()?;
    let mut seen = Seen::default();
    for n in 0..rulesets {
        let kind = [Kind::Nft, Kind::Legacy][usize::try_from(n % 2).unwrap()];
        let mut r = Random(seed.wrapping_add(n) ^ 5 << 57);
        let history = r.chance(30);
        let mut rules = generate::ruleset(&mut r, kind, true, history);
        // Sets need not be there for a text to be right.
        rules.sets.clear();
        let text: String =
            rules.text().lines().filter(|line| !line.contains("--match-set")).map(|line| format!("{line}\n")).collect();
        let test = |text: &str| feed(tool(&rules), &["--test"], text);
        if test(&text).is_err() {
            continue;
        }
        seen.rulesets += 1;
        let parsed = |text: &str| {
            let mut ruleset = parse::dump(&check::dumps_of(&rules, text, "")[0]).map_err(|e| e.to_string())?.ruleset;
            for rule in ruleset.tables.iter_mut().flat_map(|t| &mut t.chains).flat_map(|c| &mut c.rules) {
                rule.text.clear();
                rule.line = None;
            }
            for chain in ruleset.tables.iter_mut().flat_map(|t| &mut t.chains) {
                chain.line = None;
            }
            Ok::<_, String>(ruleset)
        };
        let first = parsed(&text)?;
        let written = first.to_string();
        match test(&written) {
            Err(why) => seen.bad.push(format!("what is written back is refused: {why}\n{written}")),
            Ok(_) => match parsed(&written) {
                Ok(second) if second == first => (),
                Ok(_) => seen.bad.push(format!("what is written back reads otherwise:\n{text}---\n{written}")),
                Err(why) => seen.bad.push(format!("what is written back is not read: {why}\n{written}")),
            },
        }
        for _ in 0..spoiled {
            let Some(spoiled) = mutated(&mut r, &text) else { continue };
            seen.mutated += 1;
            let (theirs, ours) = (test(&spoiled), read(&rules, &spoiled));
            seen.refused += u64::from(theirs.is_err());
            if theirs.is_ok() != ours.is_ok() {
                let changed: Vec<&str> = spoiled.lines().filter(|line| !text.lines().any(|old| old == *line)).collect();
                let who = if theirs.is_ok() { "the tool takes" } else { "we take" };
                let why = theirs.err().or(ours.err()).unwrap_or_default();
                let why = why.lines().next().unwrap_or_default().to_owned();
                seen.differ.push(format!("{who} {kind:?} {}: {why}", changed.join(" | ")));
            }
        }
    }
    Ok(seen)
}
