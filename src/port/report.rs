//! What is told of a host and its ports.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::Technique;
use super::banner::Banner;
use super::scan::{Answer, Evidence};
use crate::wire::{IcmpFamily, IcmpHeader};

/// A port's state, in nmap's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum State {
    /// Something listens.
    #[serde(rename = "open")]
    Open,
    /// The host is reached and nothing listens.
    #[serde(rename = "closed")]
    Closed,
    /// A filter lets nothing of it be known.
    #[serde(rename = "filtered")]
    Filtered,
    /// The host is reached; whether something listens was not asked.
    #[serde(rename = "unfiltered")]
    Unfiltered,
    /// Silence, which an open port of this kind may keep.
    #[serde(rename = "open|filtered")]
    OpenOrFiltered,
}

impl State {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Filtered => "filtered",
            Self::Unfiltered => "unfiltered",
            Self::OpenOrFiltered => "open|filtered",
        }
    }
}

/// What the state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A service of the host answers.
    Open,
    /// A device on the way answers for the host.
    OpenByProxy,
    /// The host says that nothing listens.
    ClosedByHost,
    /// The host is there, but a filter of its own refuses.
    RejectedByHost,
    /// A device on the way refuses, in its own name.
    RejectedOnTheWay,
    /// A device on the way refuses in the host's name.
    ForgedReset,
    /// The host's own firewall takes it and says nothing.
    DroppedByHost,
    /// Lost at the host or at the last router before it.
    DroppedAtTheEnd,
    /// Lost at a router before that.
    DroppedOnTheWay,
    /// Lost somewhere.
    Dropped,
    /// The host's stack passes it, stateful filters would not.
    Unfiltered,
    /// No answer, as from an open port or from a filter.
    NoAnswer,
    /// A router has no way there.
    NoRouteOnTheWay,
    /// Nobody is at that address.
    HostDown,
    /// This host has no way there.
    NoRoute,
    /// This host's own firewall did not let it out.
    LocalFirewall,
    /// This host could not send it.
    LocalError,
}

/// An ICMP error in numbers and words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IcmpWords {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Both in words.
    pub says: String,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PortReport {
    /// Its number.
    pub port: u16,
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// The usual service.
    pub service: Option<String>,
    /// nmap's state.
    pub state: State,
    /// nmap's reason: `syn-ack`, `reset`, `conn-refused`, `no-response`, `port-unreach`, ….
    pub reason: &'static str,
    /// Who said it.
    pub by: Option<IpAddr>,
    /// TTL or hop limit of the answer.
    pub reply_ttl: Option<u8>,
    /// Round trip; for a connection the time until it stood.
    pub rtt_ms: Option<f64>,
    /// What that means.
    pub verdict: Verdict,
    /// The hop that answered or after which nothing was heard, by a TTL sweep on this port or one that behaves alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop: Option<u8>,
    /// The device at that hop, where it gave its name to the sweep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop_address: Option<IpAddr>,
    /// The ICMP error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpWords>,
    /// What the service says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banner: Option<Banner>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostReport {
    /// As the user named it.
    pub host: String,
    /// Its address.
    pub address: String,
    /// Whether it is there; none where nothing tells.
    pub host_up: Option<bool>,
    /// How its ports were asked.
    pub technique: Technique,
    /// The ports that were asked, ascending.
    pub ports: Vec<PortReport>,
    /// Asked for, and not asked to the end.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_asked: u64,
    /// The scan was cut short.
    pub partial: bool,
    /// Round trip of an echo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo_ms: Option<f64>,
    /// TTL or hop limit of the echo's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo_ttl: Option<u8>,
    /// Hops to it, by a sweep; 1 on the same link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<u8>,
    /// What else is to be known about these answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl HostReport {
    /// How many ports are in each state.
    pub fn count(&self, state: State) -> usize {
        self.ports.iter().filter(|port| port.state == state).count()
    }
}

/// Milliseconds.
pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// State and reason of an answer to a probe of this kind; `own` is whether the asked address itself gave it.
pub fn state_of(technique: Technique, answer: &Answer, own: bool) -> (State, &'static str) {
    use Technique::{Ack, Connect, Fin, Null, Syn, Udp, Xmas};
    match answer {
        Answer::SynAck { .. } | Answer::Connected => (State::Open, "syn-ack"),
        Answer::Data(_) => (State::Open, "udp-response"),
        Answer::Reset { .. } => match technique {
            Ack => (State::Unfiltered, "reset"),
            Syn | Connect | Udp | Fin | Null | Xmas => (State::Closed, "reset"),
        },
        Answer::Refused => (State::Closed, "conn-refused"),
        Answer::Icmp { v6, kind, code } => {
            let reason = icmp_reason(*v6, *kind, *code);
            let closed = technique == Udp && own && reason == "port-unreach";
            (if closed { State::Closed } else { State::Filtered }, reason)
        }
        Answer::Failed(errno) => (State::Filtered, failed_reason(errno)),
        Answer::Local(errno) => (State::Filtered, local_reason(errno)),
        Answer::Echo => silent(technique),
    }
}

/// State and reason of a port that gave no answer.
pub fn silent(technique: Technique) -> (State, &'static str) {
    match technique {
        Technique::Syn | Technique::Connect | Technique::Ack => (State::Filtered, "no-response"),
        _ => (State::OpenOrFiltered, "no-response"),
    }
}

/// nmap's word for an ICMP error (`portreasons.cc`).
pub fn icmp_reason(v6: bool, kind: u8, code: u8) -> &'static str {
    match (v6, kind, code) {
        (false, 3, 0) => "net-unreach",
        (false, 3, 1) | (true, 1, 3) => "host-unreach",
        (false, 3, 2) => "proto-unreach",
        (false, 3, 3) | (true, 1, 4) => "port-unreach",
        (false, 3, 9) => "net-prohibited",
        (false, 3, 10) => "host-prohibited",
        (false, 3, 13) | (true, 1, 1 | 5) => "admin-prohibited",
        (true, 1, 0) => "no-route",
        (true, 1, 2) => "beyond-scope",
        (true, 1, 6) => "reject-route",
        (false, 11, _) | (true, 3, _) => "time-exceeded",
        (false, 12, _) | (true, 4, _) => "param-problem",
        _ => "dest-unreach",
    }
}

fn failed_reason(errno: &str) -> &'static str {
    match errno {
        "EHOSTUNREACH" | "EHOSTDOWN" => "host-unreach",
        "ENETUNREACH" => "net-unreach",
        "ENOPROTOOPT" => "proto-unreach",
        "EACCES" | "EPERM" => "local-firewall",
        "ETIMEDOUT" => "no-response",
        _ => "dest-unreach",
    }
}

fn local_reason(errno: &str) -> &'static str {
    match errno {
        "EPERM" | "EACCES" => "local-firewall",
        "ENETUNREACH" | "EHOSTUNREACH" => "no-route",
        _ => "local-error",
    }
}

/// The ICMP error in words.
pub fn icmp_words(answer: &Answer) -> Option<IcmpWords> {
    let Answer::Icmp { v6, kind, code } = *answer else { return None };
    let family = if v6 { IcmpFamily::V6 } else { IcmpFamily::V4 };
    let says = IcmpHeader { family, kind, code, checksum: 0, rest: [0; 4] }.describe();
    Some(IcmpWords { kind, code, says })
}

/// How many routers an answer has passed, from what its TTL began with: the next of 32, 64, 128, 255.
pub fn routers_passed(ttl: u8) -> u8 {
    [32, 64, 128, 255].into_iter().find(|initial| ttl <= *initial).map_or(0, |initial| initial - ttl)
}

/// The same of an answer.
pub fn passed(evidence: &Evidence) -> Option<u8> {
    evidence.ttl.map(routers_passed)
}
