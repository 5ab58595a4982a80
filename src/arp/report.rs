//! What the commands answer: one type for lookup, scan and table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::dad::DadReport;
use super::judge::{Finding, Severity};
use super::sweep::{Responder, SweepOutcome};
use super::table::Oddity;
use super::trial::Trial;
use super::vendor::{self, Vendors};
use crate::wire::MacAddr;

/// One address and who has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The address.
    pub ip: IpAddr,
    /// Who answered first, or whom the kernel believes in; `None`: nobody.
    pub mac: Option<MacAddr>,
    /// Who made it (IEEE listing); `None` where the listing has no name.
    pub vendor: Option<String>,
    /// What the hardware address says of itself: a virtual router, a container, a random address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// `answered` or `silent`; in a table what the kernel believes: `reachable`, `stale`, ….
    pub state: String,
    /// From request to reply, milliseconds; `None` where it was not measured.
    pub rtt_ms: Option<f64>,
    /// Others who answered for it.
    pub duplicate: Vec<MacAddr>,
    /// The interface, where a report has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Of a table: times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ages: Option<Ages>,
    /// `gateway`, `router`, `proxied here`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub role: Vec<String>,
    /// This host's own address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
}

/// How long ago, seconds (`struct nda_cacheinfo`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ages {
    /// It was known to be true.
    pub confirmed_s: f64,
    /// It was used.
    pub used_s: f64,
    /// It was changed.
    pub updated_s: f64,
}

/// What a sweep cost and how complete it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// What was asked for, in words.
    pub targets: String,
    /// Addresses to ask for.
    pub addresses: usize,
    /// Those that were asked for.
    pub asked: usize,
    /// Requests sent.
    pub requests: u64,
    /// Rounds.
    pub rounds: u8,
    /// Share of exchanges lost, 0 to 1; `None` where nobody answered twice.
    pub loss: Option<f64>,
    /// Stations expected to have been missed.
    pub expected_missed: Option<f64>,
    /// Frames lost on arrival.
    pub overrun: u64,
}

/// One request of a lookup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// From 1.
    pub n: usize,
    /// Who answered, and after how many milliseconds.
    pub answers: Vec<(MacAddr, f64)>,
}

/// The answer of `arp lookup`, `arp scan` and `arp table`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArpReport {
    /// On which interface; `None` where there were several.
    pub interface: Option<String>,
    /// Who has what.
    pub entries: Vec<Entry>,
    /// What is odd.
    pub findings: Vec<Finding>,
    /// What is odd in the kernel's table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub oddities: Vec<Oddity>,
    /// It was ended before it was finished.
    pub partial: bool,
    /// How it was found out: `wire`, or `kernel` where this process may not ask by itself.
    pub method: String,
    /// Whom the requests named as their sender; `None`: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Seconds it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Of a scan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Of a lookup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<Exchange>,
    /// Of duplicate address detection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dad: Option<DadReport>,
    /// Echo requests with TTL 1 and what came of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Trial>,
    /// What else is worth knowing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Nanoseconds as milliseconds.
#[allow(clippy::cast_precision_loss, reason = "times of a run are far below 2^53 ns")]
pub fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

impl Entry {
    /// An address whose hardware address is `mac`.
    pub fn of(ip: IpAddr, mac: Option<MacAddr>, state: &str, vendors: &Vendors) -> Self {
        Self {
            ip,
            mac,
            vendor: mac.and_then(|mac| vendors.name(mac)).map(str::to_owned),
            note: mac.and_then(vendor::note),
            state: state.to_owned(),
            rtt_ms: None,
            duplicate: Vec::new(),
            interface: None,
            ages: None,
            role: Vec::new(),
            own: false,
        }
    }

    /// From who answered, in the order of their answers.
    pub fn answered(ip: IpAddr, responders: &[Responder], vendors: &Vendors) -> Self {
        let first = responders.first();
        let mut entry =
            Self::of(ip, first.map(|one| one.mac), if first.is_some() { "answered" } else { "silent" }, vendors);
        entry.rtt_ms = first.and_then(|one| one.rtt_ns).map(millis);
        entry.duplicate = responders.iter().skip(1).map(|one| one.mac).collect();
        entry
    }
}

/// The entries of a sweep.
pub fn entries(answers: &BTreeMap<IpAddr, Vec<Responder>>, vendors: &Vendors) -> Vec<Entry> {
    answers.iter().map(|(ip, responders)| Entry::answered(*ip, responders, vendors)).collect()
}

impl Coverage {
    /// Of a sweep over `targets`.
    pub fn of(targets: String, outcome: &SweepOutcome) -> Self {
        Self {
            targets,
            addresses: outcome.targets,
            asked: outcome.asked,
            requests: outcome.sent,
            rounds: outcome.rounds,
            loss: outcome.loss,
            expected_missed: outcome.missed,
            overrun: outcome.overrun,
        }
    }
}

impl ArpReport {
    /// Whether something was found that breaks connections.
    pub fn has_problem(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Problem)
    }
}
