//! Which ports of which hosts answer, and who says no.
//!
//! [`list`] and [`hosts`] read what the user asks for, [`scan`] decides what to send when, [`packet`] writes
//! probes and reads answers, [`report`] gives every port a state and a reason in nmap's words, and [`judge`]
//! says what that means: closed by the host, rejected by its firewall, rejected or dropped on the way, host
//! down. [`locate`] reads a TTL sweep on the same port, which finds the hop that forged an answer or dropped
//! the question. Pure; the sockets are `os::scan`'s.

pub mod banner;
pub mod certificate;
pub mod filter;
pub mod hosts;
pub mod judge;
pub mod list;
pub mod locate;
pub mod packet;
pub mod report;
pub mod scan;
pub mod services;

use serde::{Deserialize, Serialize};

use crate::wire::TcpFlags;

/// How ports are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Technique {
    /// A SYN; the connection is never completed.
    Syn,
    /// A connection by the kernel.
    Connect,
    /// A datagram that the usual service answers.
    Udp,
    /// An ACK that belongs to nothing: a stack resets it, a stateful filter drops it.
    Ack,
    /// FIN alone.
    Fin,
    /// No flag.
    Null,
    /// FIN, PSH and URG.
    Xmas,
}

impl Technique {
    /// The flags of its probe; none for what is not a single TCP segment.
    pub fn flags(self) -> Option<TcpFlags> {
        Some(match self {
            Self::Syn => TcpFlags::SYN,
            Self::Ack => TcpFlags::ACK,
            Self::Fin => TcpFlags::FIN,
            Self::Null => TcpFlags(0),
            Self::Xmas => TcpFlags::FIN | TcpFlags::PSH | TcpFlags::URG,
            Self::Connect | Self::Udp => return None,
        })
    }

    /// `tcp` or `udp`.
    pub fn proto(self) -> &'static str {
        if self == Self::Udp { "udp" } else { "tcp" }
    }

    /// As the user types it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Connect => "connect",
            Self::Udp => "udp",
            Self::Ack => "ack",
            Self::Fin => "fin",
            Self::Null => "null",
            Self::Xmas => "xmas",
        }
    }
}
