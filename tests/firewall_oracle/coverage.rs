//! What is compared with the kernel: `coverage.txt`, made of what the generators draw
//! (REACHWHY_ORACLE_RECORD=1) and checked against it.
//!
//! `compared`: drawn in random rulesets; `read`: read and written, and as far as it can be evaluated, but
//! not compared; `lacks`: neither, since the kernel of the recording has no such module.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::kernel::feed;
use crate::line::Line;
use crate::random::Random;
use crate::rules::Kind;
use crate::{generate, native, sets};

/// Rulesets of each kind whose words count as drawn.
const RULESETS: u64 = 1500;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// `-m NAME`, `-j NAME` and `--OPTION` of a rule, by kind of word.
fn words(rule: &str, seen: &mut BTreeMap<String, BTreeSet<&'static str>>, by: &'static str) {
    let mut before = "";
    for word in rule.split_ascii_whitespace() {
        let name = word.trim_matches('"');
        let told = match before {
            "-m" => Some(format!("match {name}")),
            "-j" if name.chars().all(|c| c.is_ascii_uppercase()) => Some(format!("target {name}")),
            _ if name.starts_with("--") && name.len() > 3 && !word.contains('"') => Some(format!("option {name}")),
            _ => None,
        };
        if let Some(told) = told {
            seen.entry(told).or_default().insert(by);
        }
        before = word;
    }
}

/// The vocabulary's rules: family, table, chain, rule.
fn vocabulary() -> Vec<[String; 4]> {
    let text = std::fs::read_to_string(file("firewall/vocabulary.rules")).unwrap();
    let rules = text.lines().filter(|line| !line.starts_with('#'));
    rules
        .filter_map(|line| {
            let mut parts = line.splitn(4, ' ').map(str::to_owned);
            Some([parts.next()?, parts.next()?, parts.next()?, parts.next()?])
        })
        .collect()
}

/// Words that the kernel takes in some rule of the vocabulary, in the calling thread's namespace.
fn taken() -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    for [family, .., rule] in vocabulary() {
        let words: Vec<&str> = rule.split(' ').collect();
        for pair in words.windows(2).filter(|pair| pair[0].ends_with("-set") && pair[0].starts_with("--")) {
            let family = if family == "6" { "inet6" } else { "inet" };
            let _ = feed("ipset", &["create", pair[1].trim_matches('"'), "hash:ip", "family", family, "-exist"], "");
        }
    }
    for [family, table, chain, rule] in vocabulary() {
        let tool = if family == "6" { "ip6tables-legacy-restore" } else { "iptables-legacy-restore" };
        let own = if chain.chars().all(|c| c.is_ascii_uppercase()) { "" } else { ":own - [0:0]\n" };
        if feed(tool, &["--noflush"], &format!("*{table}\n{own}-A {chain} {rule}\nCOMMIT\n")).is_ok() {
            words(&rule, &mut seen, "kernel");
        }
    }
    seen.into_keys().collect()
}

/// The list as it is now; `lacking` tells of a word whether the kernel has none.
fn list(lacking: &dyn Fn(&str) -> bool) -> String {
    let mut seen = BTreeMap::new();
    for [.., rule] in vocabulary() {
        words(&rule, &mut seen, "read");
    }
    let mut nft = BTreeSet::new();
    for n in 0..RULESETS {
        let mut r = Random(n ^ 9 << 57);
        for (kind, nat, history) in [(Kind::Nft, false, false), (Kind::Legacy, true, false), (Kind::Nft, true, true)] {
            for rule in
                generate::ruleset(&mut r, kind, nat, history).text().lines().filter(|line| line.starts_with("-A"))
            {
                words(rule, &mut seen, "compared");
            }
        }
        for history in [false, true] {
            let text = native::ruleset(&mut r, n % 2 == 0 || history, history).text();
            for rule in text.lines().filter_map(|line| line.strip_prefix("add rule ")) {
                nft.extend(native::words(rule));
            }
        }
    }
    let mut out = String::from(
        "# Which words are compared with the kernel, packet for packet (tests/firewall_oracle/coverage.rs makes this).\n",
    );
    for (word, by) in &seen {
        let told = match () {
            () if by.contains("compared") => "compared",
            () if !word.starts_with("option") && lacking(word) => "lacks",
            () => "read",
        };
        writeln!(out, "{told:<9}{word}").unwrap();
    }
    for kind in sets::TYPES {
        let told = if kind != "list:set" && !sets::here().contains(&kind) { "lacks" } else { "compared" };
        writeln!(out, "{told:<9}set {kind}").unwrap();
    }
    for word in nft {
        writeln!(out, "{:<9}nft {word}", "compared").unwrap();
    }
    out
}

/// What differs from the list that is kept; an error is a reason to skip.
pub(crate) fn run() -> Result<(String, String), String> {
    let _line = Line::new()?;
    let path = file("firewall_oracle/coverage.txt");
    if std::env::var("REACHWHY_ORACLE_RECORD").is_ok() {
        let taken = taken();
        std::fs::write(&path, list(&|word| !taken.contains(word))).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let lacks: BTreeSet<String> =
        kept.lines().filter_map(|line| line.strip_prefix("lacks")).map(|word| word.trim().to_owned()).collect();
    // Another kernel may have other sets.
    let without_sets = |text: &str| {
        text.lines().filter(|line| !line.contains(" set ")).map(|line| format!("{line}\n")).collect::<String>()
    };
    Ok((without_sets(&kept), without_sets(&list(&|word| lacks.contains(word)))))
}
