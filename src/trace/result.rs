//! What came of a trace.

use std::net::IpAddr;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Finding;
use super::quote::{Change, InterfaceInfo};
use crate::probe::RttSource;
use crate::wire::HexBytes;

/// Why a trace ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// The destination answered.
    Reached,
    /// A router says that it cannot be reached.
    Unreachable,
    /// Routers answered up to the last TTL that was tried.
    MaxTtl,
    /// Nothing answers behind the last hop.
    Silent,
}

/// An MPLS label stack entry (RFC 3032 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Label {
    /// Label, 20 bits.
    pub label: u32,
    /// Traffic class.
    pub tc: u8,
    /// Bottom of the stack.
    pub bottom: bool,
    /// TTL.
    pub ttl: u8,
}

/// Type and code of an ICMP message, and both in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IcmpSaid {
    /// Type.
    #[serde(rename = "type")]
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// In words.
    pub says: String,
}

/// What kind of answer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The TTL ran out here.
    TimeExceeded,
    /// The destination's own answer: an echo reply.
    EchoReply,
    /// The destination has no such port: it was reached.
    PortUnreachable,
    /// SYN-ACK.
    SynAck,
    /// Reset.
    Rst,
    /// A segment that is neither.
    TcpOther,
    /// Data from a UDP service.
    Data,
    /// A larger packet than the next link takes.
    TooBig,
    /// Some other ICMP error.
    Unreachable,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Who.
    pub address: IpAddr,
    /// Round trip, milliseconds; `None` where it cannot be told which probe was answered.
    pub rtt_ms: Option<f64>,
    /// Who measured it.
    pub rtt_source: Option<RttSource>,
    /// What.
    pub said: Said,
    /// As ICMP, where it was one.
    pub icmp: Option<IcmpSaid>,
    /// TTL or hop limit of the answer on arrival.
    pub reply_ttl: Option<u8>,
    /// TTL that the probe had left when the sender of the error saw it.
    pub quoted_ttl: Option<u8>,
    /// MPLS labels that the probe carried (RFC 4950).
    pub mpls: Vec<Label>,
    /// Interface and next hop as the router names them (RFC 5837).
    pub interface: Vec<InterfaceInfo>,
    /// MTU of the link that the probe did not fit.
    pub mtu: Option<u32>,
    /// What was changed on the way there.
    pub changed: Vec<Change>,
    /// The quoted packet, from its upper header on.
    pub quoted: Option<HexBytes>,
}

/// What became of one probe.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeResult {
    /// It was answered.
    Answered(Box<Answer>),
    /// No answer came in time.
    Lost,
    /// This host did not send it: the errno's name.
    NotSent(String),
}

impl ProbeResult {
    /// The answer.
    pub fn answer(&self) -> Option<&Answer> {
        if let Self::Answered(answer) = self { Some(answer) } else { None }
    }
}

impl Serialize for ProbeResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Lost => map.serialize_entry("lost", &true)?,
            Self::NotSent(errno) => {
                map.serialize_entry("lost", &true)?;
                map.serialize_entry("error", errno)?;
            }
            Self::Answered(answer) => {
                map.serialize_entry("address", &answer.address)?;
                map.serialize_entry("rtt_ms", &answer.rtt_ms)?;
                map.serialize_entry("rtt_source", &answer.rtt_source)?;
                map.serialize_entry("answer", &answer.said)?;
                map.serialize_entry("icmp", &answer.icmp)?;
                map.serialize_entry("reply_ttl", &answer.reply_ttl)?;
                map.serialize_entry("mpls", &answer.mpls)?;
                map.serialize_entry("mtu", &answer.mtu)?;
                if let Some(ttl) = answer.quoted_ttl {
                    map.serialize_entry("quoted_ttl", &ttl)?;
                }
                if !answer.interface.is_empty() {
                    map.serialize_entry("interface", &answer.interface)?;
                }
                if !answer.changed.is_empty() {
                    map.serialize_entry("changed", &answer.changed)?;
                }
            }
        }
        map.end()
    }
}

/// One TTL.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hop {
    /// TTL of its probes.
    pub ttl: u8,
    /// In the order sent.
    pub probes: Vec<ProbeResult>,
    /// Names of its addresses, where there are any.
    pub names: Vec<String>,
    /// Autonomous systems of its addresses, from a local database.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asns: Vec<String>,
    /// Largest packet that got here, octets, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl Hop {
    /// Its answers.
    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.probes.iter().filter_map(ProbeResult::answer)
    }

    /// The addresses that answered, each once, in order of their first answer.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for answer in self.answers() {
            if !found.contains(&answer.address) {
                found.push(answer.address);
            }
        }
        found
    }

    /// Probes that were not answered.
    pub fn lost(&self) -> usize {
        self.probes.iter().filter(|probe| **probe == ProbeResult::Lost).count()
    }
}

/// A router's refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Who says so.
    pub by: IpAddr,
    /// At which TTL first.
    pub ttl: u8,
    /// What.
    pub icmp: IcmpSaid,
}

/// What came of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// As the user wrote it.
    pub target: String,
    /// Its address.
    pub address: IpAddr,
    /// This host's address.
    pub source: IpAddr,
    /// `icmp`, `udp` or `tcp`.
    pub protocol: &'static str,
    /// Destination port.
    pub port: Option<u16>,
    /// The hops, from the first TTL on; what is silent behind the last answer is left out.
    pub hops: Vec<Hop>,
    /// Whether the destination answered.
    pub reached: bool,
    /// Why it ended.
    pub stopped: Stopped,
    /// Who refused.
    pub unreachable: Option<Refusal>,
    /// Largest packet that gets to the destination, octets, where measured.
    pub path_mtu: Option<u32>,
    /// Every path, where asked for: addresses hop by hop, `None` where one is silent.
    pub paths: Option<Vec<Vec<Option<IpAddr>>>>,
    /// The same as a graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<super::graph::Graph>,
    /// What it means.
    pub findings: Vec<Finding>,
    /// By raw sockets: without them some of what routers quote cannot be seen.
    pub raw: bool,
    /// Whether it came to its own end.
    pub complete: bool,
    /// From the first packet to the end, milliseconds.
    pub elapsed_ms: f64,
}
