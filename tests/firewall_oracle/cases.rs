//! Named cases: mismatches of the past, kept with what the kernel did.
//!
//! `cases/NAME.json` holds the packet and what became of it, `cases/NAME.rules` the ruleset as it was
//! loaded (for nft's own as `nft -j` lists it, beside the text in `NAME.nft`), `cases/NAME.ipset` the
//! sets. They are asked of the walk without a kernel, and of the kernel again where there is one.

use std::fmt::Write as _;
use std::path::PathBuf;

use reachwhy::firewall::Packet;
use reachwhy::host::{HostFacts, RulesetDump};
use serde::{Deserialize, Serialize};

use crate::check::{self, Fate};
use crate::history::HistoryCase;
use crate::packets::Shot;
use crate::rules::{Focus, Kind, Rules};

/// The part of a case that is not its ruleset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Case {
    /// What it shows.
    pub about: String,
    pub kind: Kind,
    pub v6: bool,
    pub focus: Focus,
    /// Conntrack runs.
    pub flows: bool,
    pub packet: Packet,
    /// IPv6 extension headers on the wire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<u8>,
    /// It is sent in two fragments, cut here (in units of eight octets).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<u16>,
    pub kernel: Option<Fate>,
}

/// A case with its files read.
#[derive(Debug)]
pub(crate) struct Read {
    pub name: String,
    pub case: Case,
    pub rules: Rules,
    pub dumps: Vec<RulesetDump>,
}

impl Read {
    pub(crate) fn shot(&self) -> Shot {
        Shot { split: self.case.split, ..Shot::of_case(&self.case.packet, &self.case.extensions) }
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/firewall_oracle/cases")
}

/// The router's facts, for where there is none.
pub(crate) fn host() -> HostFacts {
    serde_json::from_str(&std::fs::read_to_string(folder().join("host.facts")).unwrap()).unwrap()
}

/// All cases, by name.
pub(crate) fn all() -> Vec<Read> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    names.into_iter().map(read).collect()
}

fn read(name: String) -> Read {
    let text = |end: &str| std::fs::read_to_string(folder().join(format!("{name}.{end}"))).ok();
    let case: Case = serde_json::from_str(&text("json").unwrap()).unwrap_or_else(|e| panic!("{name}.json: {e}"));
    let listed = text("rules").unwrap_or_else(|| panic!("{name}.rules is missing"));
    let loaded = if case.kind == Kind::Native { text("nft").unwrap() } else { listed.clone() };
    let sets = text("ipset").map_or(Vec::new(), |text| text.lines().map(str::to_owned).collect());
    let rules = Rules {
        kind: case.kind,
        v6: case.v6,
        focus: case.focus,
        nat: case.flows,
        tables: Vec::new(),
        sets,
        verbatim: Some(loaded),
    };
    let dumps = check::dumps_of(&rules, &listed, &rules.sets_text());
    Read { name, case, rules, dumps }
}

/// A named history with its files read.
#[derive(Debug)]
pub(crate) struct ReadHistory {
    pub name: String,
    pub case: HistoryCase,
    pub rules: Rules,
    pub dumps: Vec<RulesetDump>,
}

/// All histories (`cases/NAME.history`, with `.rules`, `.nft` and `.ipset` as for cases), by name.
pub(crate) fn histories() -> Vec<ReadHistory> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().strip_suffix(".history").map(str::to_owned)
        })
        .collect();
    names.sort();
    let read = |name: String| {
        let text = |end: &str| std::fs::read_to_string(folder().join(format!("{name}.{end}"))).ok();
        let case: HistoryCase = serde_json::from_str(&text("history").unwrap()).unwrap();
        let listed = text("rules").unwrap_or_else(|| panic!("{name}.rules is missing"));
        let loaded = if case.kind == Kind::Native { text("nft").unwrap() } else { listed.clone() };
        let sets = text("ipset").map_or(Vec::new(), |text| text.lines().map(str::to_owned).collect());
        let rules = Rules {
            kind: case.kind,
            v6: case.v6,
            focus: Focus::Forward,
            nat: true,
            tables: Vec::new(),
            sets,
            verbatim: Some(loaded),
        };
        let dumps = check::dumps_of(&rules, &listed, &rules.sets_text());
        ReadHistory { name, case, rules, dumps }
    };
    names.into_iter().map(read).collect()
}

/// Keeps what the kernel did now with a history (REACHWHY_ORACLE_RECORD=1).
pub(crate) fn record_history(name: &str, case: &HistoryCase) {
    let text = serde_json::to_string_pretty(case).unwrap() + "\n";
    std::fs::write(folder().join(format!("{name}.history")), text).unwrap();
}

/// The files of a new case, as text to be saved; also saved, where REACHWHY_ORACLE_SAVE names a folder.
pub(crate) fn written(name: &str, case: &Case, rules: &Rules, dumps: &[RulesetDump]) -> String {
    let mut files = vec![
        ("json", serde_json::to_string_pretty(case).unwrap() + "\n"),
        ("rules", dumps.first().map_or(String::new(), |dump| dump.text.clone())),
    ];
    if rules.kind == Kind::Native {
        files.push(("nft", rules.text()));
    }
    if !rules.sets.is_empty() {
        files.push(("ipset", rules.sets_text()));
    }
    let mut out = String::new();
    for (end, text) in files {
        if let Ok(folder) = std::env::var("REACHWHY_ORACLE_SAVE") {
            std::fs::write(PathBuf::from(folder).join(format!("{name}.{end}")), &text).unwrap();
        }
        write!(out, "--- {name}.{end}\n{text}").unwrap();
    }
    out
}

/// Keeps what the kernel did now as what is expected (REACHWHY_ORACLE_RECORD=1).
pub(crate) fn record(read: &Read, fate: &Fate) {
    let case = Case { kernel: Some(fate.clone()), ..read.case.clone() };
    let text = serde_json::to_string_pretty(&case).unwrap() + "\n";
    std::fs::write(folder().join(format!("{}.json", read.name)), text).unwrap();
}

/// Keeps the router's facts (REACHWHY_ORACLE_RECORD=1).
pub(crate) fn record_host(facts: &HostFacts) {
    let mut facts = facts.clone();
    (facts.taken_at_ms, facts.hostname, facts.kernel) = (None, None, None);
    std::fs::write(folder().join("host.facts"), serde_json::to_string_pretty(&facts).unwrap() + "\n").unwrap();
}
