//! What came of it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::wire::{Extension, HexBytes, MacAddr, Quoted, TcpFlags, TcpOptions};

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The right answer came: echo reply, SYN-ACK, data, ARP reply, advertisement.
    Answered,
    /// The connection stands.
    Connected,
    /// A TCP reset (or ECONNREFUSED, which Linux also makes of an ICMP port unreachable: see the replies).
    Refused,
    /// An ICMP error about it came; the reply says whose and which.
    IcmpError,
    /// The connection failed later with an errno that names no offender.
    ConnectFailed,
    /// This host did not send it; `local_error` says why.
    LocalError,
    /// Nothing came in time.
    Silent,
    /// The run ended before this probe did.
    Cancelled,
}

/// One packet sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Which try, from 1.
    #[serde(rename = "try")]
    pub number: u8,
    /// When, nanoseconds since 1970-01-01 UTC.
    pub at_ns: u64,
    /// Stamped by the kernel when it gave the packet to the device; else just before the system call.
    pub kernel_time: bool,
    /// From which address and port, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
}

/// Who measured a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RttSource {
    /// The kernel at both ends of the interval.
    Kernel,
    /// This program: includes the time until it was scheduled.
    User,
}

/// The TCP header of an answer, or what the kernel says of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpReply {
    /// Flags as received; `None` for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<TcpFlags>,
    /// Window, unscaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u16>,
    /// Options as received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<TcpOptions>,
    /// Whether the numbers in it acknowledge this probe. A real stack's always do; an answer that does not
    /// is kept as evidence (a forged reset, an old connection) and ends nothing.
    pub acknowledges: bool,
    /// How often the kernel repeated the SYN of a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u32>,
}

/// An ICMP error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpReport {
    /// Type (of ICMP or ICMPv6, by the family of `from`).
    #[serde(rename = "type")]
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// Both in words.
    pub says: String,
    /// MTU of the next hop, octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_mtu: Option<u32>,
    /// The packet it quotes; `None` where only the kernel saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quoted: Option<Box<Quoted>>,
    /// Extension objects (MPLS labels).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<Extension>,
}

/// What kind of answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReplyKind {
    /// Echo reply.
    EchoReply,
    /// SYN-ACK.
    SynAck,
    /// Reset.
    Rst,
    /// Another TCP segment of this conversation (a challenge ACK, a simultaneous SYN).
    TcpOther,
    /// An ICMP error that quotes the probe.
    IcmpError(IcmpReport),
    /// A datagram from the address and port asked.
    UdpData {
        /// Its payload.
        payload: HexBytes,
    },
    /// An ARP reply.
    ArpReply {
        /// The Ethernet source, where it is not the address that ARP itself names: something answers for another.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ether_src: Option<MacAddr>,
    },
    /// A neighbour advertisement.
    NeighbourAdvert {
        /// The sender is a router.
        router: bool,
        /// It overrides what is cached; proxies leave this clear (RFC 4861 §7.2.8).
        #[serde(rename = "override")]
        overrides: bool,
    },
    /// The connection stands.
    Connected,
    /// The connection failed.
    ConnectError {
        /// The errno's name.
        errno: String,
    },
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Who says so: the outer source address.
    pub from: IpAddr,
    /// The sender's hardware address (ARP, NDP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// What.
    #[serde(flatten)]
    pub kind: ReplyKind,
    /// TTL or hop limit on arrival.
    pub ttl: Option<u8>,
    /// Round trip, microseconds; `None` where it cannot be told which try is answered.
    pub rtt_us: Option<f64>,
    /// Who measured it.
    pub rtt_source: Option<RttSource>,
    /// When it came, nanoseconds since 1970-01-01 UTC.
    pub at_ns: u64,
    /// The try it answers, from 1; the latest where it cannot be told.
    #[serde(rename = "try")]
    pub number: u8,
    /// TCP's part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpReply>,
    /// A further answer to a probe that had one.
    pub duplicate: bool,
    /// It came when the probe was over, and decided nothing: after its time, or (an ICMP error of this host's own
    /// firewall) beside the errno that ended it.
    #[serde(default)]
    pub late: bool,
}

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The caller's number.
    pub id: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The errno's name, when this host did not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_error: Option<String>,
    /// What was sent.
    pub sent: Vec<Sent>,
    /// What came back, in order of arrival.
    pub replies: Vec<Reply>,
}

impl ProbeReport {
    /// The reply that decided the outcome.
    pub fn deciding(&self) -> Option<&Reply> {
        self.replies.iter().find(|reply| !reply.duplicate && !reply.late && reply.is_conclusive())
    }

    /// The ICMP error, where that decided.
    pub fn icmp(&self) -> Option<&IcmpReport> {
        match &self.deciding()?.kind {
            ReplyKind::IcmpError(icmp) => Some(icmp),
            _ => None,
        }
    }

    /// All hardware addresses that answered, each once, in order of arrival.
    pub fn macs(&self) -> Vec<MacAddr> {
        let mut macs = Vec::new();
        for mac in self.replies.iter().filter_map(|reply| reply.mac) {
            if !macs.contains(&mac) {
                macs.push(mac);
            }
        }
        macs
    }
}

impl Reply {
    /// Whether it ends the probe, by itself.
    pub fn is_conclusive(&self) -> bool {
        match &self.kind {
            // Redirect and source quench are advice: the packet was passed on.
            ReplyKind::IcmpError(icmp) if self.from.is_ipv4() => !matches!(icmp.icmp_type, 4 | 5),
            ReplyKind::TcpOther => false,
            _ => self.tcp.as_ref().is_none_or(|tcp| tcp.acknowledges),
        }
    }

    /// The outcome it gives a probe.
    pub(super) fn outcome(&self) -> Outcome {
        match &self.kind {
            ReplyKind::Rst => Outcome::Refused,
            ReplyKind::IcmpError(_) => Outcome::IcmpError,
            ReplyKind::Connected => Outcome::Connected,
            ReplyKind::ConnectError { errno } if errno == "ECONNREFUSED" => Outcome::Refused,
            ReplyKind::ConnectError { errno } if errno == "ETIMEDOUT" => Outcome::Silent,
            ReplyKind::ConnectError { .. } => Outcome::ConnectFailed,
            _ => Outcome::Answered,
        }
    }
}

/// What arrived and belonged to no probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strays {
    /// ICMP messages.
    pub icmp: u64,
    /// TCP segments.
    pub tcp: u64,
    /// Datagrams.
    pub udp: u64,
    /// ARP and NDP.
    pub neighbour: u64,
    /// Could not be read.
    pub malformed: u64,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// One for each spec, in the order given.
    pub probes: Vec<ProbeReport>,
    /// Whether every probe came to its own end.
    pub complete: bool,
    /// From first to last, milliseconds.
    pub elapsed_ms: f64,
    /// What arrived and matched nothing.
    pub strays: Strays,
    /// Packets the kernel dropped because this program read too slowly: silence may be ours where not 0.
    pub receive_drops: u64,
}

impl RunReport {
    /// The report of the probe with the caller's number.
    pub fn probe(&self, id: u32) -> Option<&ProbeReport> {
        self.probes.iter().find(|probe| probe.id == id)
    }
}

/// What happens during a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A try was sent.
    Sent {
        /// The caller's number.
        id: u32,
        /// Which try, from 1.
        number: u8,
        /// The whole IP packet of a path probe; what the kernel fills in itself (without raw sockets) is 0.
        packet: Option<HexBytes>,
    },
    /// An answer came.
    Reply {
        /// The caller's number.
        id: u32,
        /// The answer; its round trip may be made more exact later, by the kernel's stamp.
        reply: Box<Reply>,
    },
    /// A probe ended.
    Done {
        /// The caller's number.
        id: u32,
        /// How.
        outcome: Outcome,
        /// The errno's name, when this host did not send it.
        local_error: Option<String>,
    },
}
