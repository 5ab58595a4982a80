//! A case: everything that was seen of one connection, as data.
//!
//! A bug report is a case file; a test is a case file. [`super::judge()`] needs nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::target::Target;
use crate::arp::judge::Finding;
use crate::dns::report::Connect;
use crate::host::drops::KernelDrop;
use crate::host::{HostFacts, Neighbour, RouteAnswer, RulesetDump, RungCount, SocketFact};
use crate::probe::exchange::ExchangeReport;
use crate::probe::{CapturedFrame, ProbeReport};

/// The version of the case file; raised when a key changes its meaning.
pub const CASE_SCHEMA: u32 = 1;

/// One connection, looked at from one end or both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// [`CASE_SCHEMA`] of the program that wrote this.
    pub schema: u32,
    /// What was to be reached.
    pub target: Target,
    /// How the name resolved; `None` for a numeric target.
    pub name: Option<Resolution>,
    /// The address that was tried; `None` where the name gave none.
    pub address: Option<IpAddr>,
    /// The end that asks.
    pub client: End,
    /// The end that is asked, where it let us look.
    pub server: Option<End>,
    /// What was tried on the wire; `None` where there was no address to try.
    pub trial: Option<Trial>,
}

/// What the system's resolver said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// The name asked for.
    pub name: String,
    /// The addresses, in the order an application would try them.
    pub addresses: Vec<IpAddr>,
    /// The resolver's error in its own words, where it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `EAI_NONAME`, `EAI_AGAIN`, …, where the error is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eai: Option<String>,
    /// How long it took, milliseconds.
    pub ms: f64,
    /// Where the first address came from: `hosts line 3`, `192.168.1.53 (line 1)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What is wrong with the name, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<NameFinding>,
}

/// Something that is wrong with a name, or with those who answer for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFinding {
    /// `dns.hosts_override`, …
    pub code: String,
    /// Whether it alone is a fault; else it only looks odd.
    pub fault: bool,
    /// What to change.
    pub object: String,
    /// In a sentence.
    pub message: String,
    /// What it rests on.
    pub evidence: Vec<String>,
    /// What to do.
    pub fix: Option<String>,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The vantage, as it was given: `local`, `netns:api`.
    pub vantage: String,
    /// Facts from before the trial.
    pub facts: HostFacts,
    /// The kernel's way to the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteAnswer>,
    /// What was seen while the trial ran.
    #[serde(default)]
    pub watch: Watch,
}

/// What one end saw of the trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// The hook ladder; `None` where it could not be put up.
    pub ladder: Option<Vec<RungCount>>,
    /// The frames of the flow on this host's interfaces; `None` where it could not be captured.
    pub frames: Option<Vec<CapturedFrame>>,
    /// Frames that the capture lost; above 0, absence proves nothing.
    pub frames_lost: u64,
    /// Facts from the end of the trial, while the connection was still held.
    pub after: Option<After>,
    /// What the kernel dropped on the whole machine while one more packet was sent after the trial; `None` where it
    /// could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops: Option<Vec<KernelDrop>>,
    /// What was put into the host to look, and that it was removed.
    pub changed: Vec<String>,
    /// What could not be watched, and why.
    pub unseen: Vec<String>,
}

/// The facts that a trial moves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct After {
    /// Kernel counters.
    pub counters: BTreeMap<String, u64>,
    /// Sockets.
    pub sockets: Option<Vec<SocketFact>>,
    /// The neighbour table.
    pub neighbours: Option<Vec<Neighbour>>,
    /// The rulesets, with their counters.
    pub firewall: Option<Vec<RulesetDump>>,
}

/// What was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The conversation an application would have; `None` where the target is a host alone.
    pub exchange: Option<ExchangeReport>,
    /// The next hop asked for on its link; `None` where that was not possible or makes no sense.
    pub neighbour: Option<ProbeReport>,
    /// An ICMP echo to the target.
    pub echo: Option<ProbeReport>,
    /// The connection once more, by the probe engine, where the first attempt was refused and no capture shows by
    /// whom: the kernel's error queue names the sender of an ICMP error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<ProbeReport>,
    /// Probes with a rising TTL to the target's port: how far they come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<ProbeReport>,
    /// Other addresses that were tried because the first one failed or took its time: the name's own, and those
    /// that somebody else gives it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Connect>,
    /// The request by way of the proxy that the client's variables name, where they name one for this target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_proxy: Option<ByProxy>,
    /// What is odd about the stations that answered for the next hop, where more than one did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stations: Vec<Finding>,
    /// Which sizes of packet pass, where the answer stopped on its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<SizeProbe>,
}

/// A request by way of a proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ByProxy {
    /// The variable that names the proxy.
    pub variable: String,
    /// What it says, without a password.
    pub value: String,
    /// How it went.
    pub report: Option<ExchangeReport>,
}

/// An echo request of a certain size that must not be cut into fragments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeProbe {
    /// Whether the server sent it (to the client).
    pub from_server: bool,
    /// Octets of the whole IP packet.
    pub length: u16,
    /// Whether it was answered.
    pub answered: bool,
    /// The ICMP error that came back instead, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
}
