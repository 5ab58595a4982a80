//! What is asked of the engine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PathProbe;
use crate::wire::{HexBytes, TcpFlags};

/// A point on a monotonic clock, nanoseconds since a start that only the driver knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Time from `earlier` to here; zero when it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// One question to the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// The caller's own number, repeated in every event and in the report.
    pub id: u32,
    /// What is sent.
    #[serde(flatten)]
    pub kind: ProbeKind,
    /// How often it is sent while nothing answers; 0 counts as 1. A TCP connection is opened once and the
    /// kernel repeats its SYN; its time is that of all tries together.
    pub tries: u8,
    /// How long the last try waits. An answer to an earlier try counts until then.
    pub timeout: Duration,
    /// Time between two tries; zero: as long as `timeout`.
    pub retry_gap: Duration,
    /// Send out of this interface (needed for link-local destinations). ARP and NDP name their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Numbers and data of a TCP segment that are not to be the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub craft: Option<Craft>,
}

/// What a crafted TCP segment carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Craft {
    /// Sequence number; `None`: one that nobody can guess.
    pub seq: Option<u32>,
    /// Acknowledgement number, put there whatever the flags are.
    pub ack: Option<u32>,
    /// Data.
    pub data: HexBytes,
}

impl Craft {
    /// Octets of data.
    pub(super) fn data_len(&self) -> u32 {
        u32::try_from(self.data.0.len()).unwrap_or(u32::MAX)
    }
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "snake_case")]
pub enum ProbeKind {
    /// An echo request.
    IcmpEcho {
        /// To whom.
        dst: IpAddr,
        /// From which of this host's addresses; `None`: as the routing table says.
        src: Option<IpAddr>,
        /// TTL or hop limit; `None`: the system's default.
        ttl: Option<u8>,
        /// Octets behind the ICMP header. With 8 or more the reply is also checked against a cookie.
        payload_len: u16,
    },
    /// One TCP segment from a raw socket; the kernel resets the connection when it is accepted.
    TcpSyn {
        /// To whom.
        dst: IpAddr,
        /// To which port.
        dport: u16,
        /// From which of this host's addresses.
        src: Option<IpAddr>,
        /// From which port; `None`: one port for each try, so that an answer names its try.
        sport: Option<u16>,
        /// TTL or hop limit.
        ttl: Option<u8>,
        /// SYN for the usual question; ACK, FIN or none to tell kinds of filters apart.
        flags: TcpFlags,
    },
    /// A connection by the kernel's own TCP: needs no privilege.
    TcpConnect {
        /// To where.
        dst: SocketAddr,
        /// From where; port 0: any.
        src: Option<SocketAddr>,
    },
    /// A datagram.
    Udp {
        /// To whom.
        dst: IpAddr,
        /// To which port.
        dport: u16,
        /// From which of this host's addresses.
        src: Option<IpAddr>,
        /// From which port; `None`: one port for each try.
        sport: Option<u16>,
        /// TTL or hop limit.
        ttl: Option<u8>,
        /// What it carries ([`super::payload`] has what common services answer to).
        payload: HexBytes,
    },
    /// Who has this IPv4 address?
    Arp {
        /// On which link.
        interface: String,
        /// The address asked for.
        target: Ipv4Addr,
        /// Who asks; `None`: an address of the interface, 0.0.0.0 if it has none (RFC 5227 §2.1.1).
        source: Option<Ipv4Addr>,
    },
    /// Who has this IPv6 address?
    Ndp {
        /// On which link.
        interface: String,
        /// The address asked for.
        target: Ipv6Addr,
        /// Who asks; `None`: an address of the interface, `::` if it has none (RFC 4862 §5.4.2).
        source: Option<Ipv6Addr>,
    },
    /// One packet along a path, sent once: it says itself which of its fields name it.
    Path(PathProbe),
}

impl ProbeSpec {
    /// One try, one second.
    pub fn new(id: u32, kind: ProbeKind) -> Self {
        Self { id, kind, tries: 1, timeout: Duration::from_secs(1), retry_gap: Duration::ZERO, via: None, craft: None }
    }

    /// The same with `tries` tries, `gap` apart.
    #[must_use]
    pub fn tries(self, tries: u8, gap: Duration) -> Self {
        Self { tries, retry_gap: gap, ..self }
    }

    /// The same with another timeout.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Time between two tries.
    pub(super) fn gap(&self) -> Duration {
        if self.retry_gap.is_zero() { self.timeout } else { self.retry_gap }
    }

    /// Tries that the engine itself makes.
    pub(super) fn sends(&self) -> u8 {
        if matches!(self.kind, ProbeKind::TcpConnect { .. } | ProbeKind::Path(_)) { 1 } else { self.tries.max(1) }
    }

    /// How long the last of those tries waits.
    pub(super) fn patience(&self) -> Duration {
        if let ProbeKind::Path(_) = self.kind {
            return self.timeout;
        }
        let kernel_tries = self.tries.max(1) - self.sends();
        self.gap() * u32::from(kernel_tries) + self.timeout
    }
}

impl ProbeKind {
    /// An echo request of the usual size.
    pub fn echo(dst: IpAddr) -> Self {
        Self::IcmpEcho { dst, src: None, ttl: None, payload_len: 56 }
    }

    /// A SYN.
    pub fn syn(dst: IpAddr, dport: u16) -> Self {
        Self::TcpSyn { dst, dport, src: None, sport: None, ttl: None, flags: TcpFlags::SYN }
    }

    /// A connection.
    pub fn connect(dst: SocketAddr) -> Self {
        Self::TcpConnect { dst, src: None }
    }

    /// A datagram with a payload.
    pub fn udp(dst: IpAddr, dport: u16, payload: &[u8]) -> Self {
        Self::Udp { dst, dport, src: None, sport: None, ttl: None, payload: HexBytes(payload.to_vec()) }
    }

    /// The address that is asked or asked for.
    pub fn dst(&self) -> IpAddr {
        match self {
            Self::IcmpEcho { dst, .. } | Self::TcpSyn { dst, .. } | Self::Udp { dst, .. } => *dst,
            Self::TcpConnect { dst, .. } => dst.ip(),
            Self::Arp { target, .. } => (*target).into(),
            Self::Ndp { target, .. } => (*target).into(),
            Self::Path(path) => path.dst,
        }
    }
}
