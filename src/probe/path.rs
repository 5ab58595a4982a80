//! A probe that is meant to die on the way: which fields name it, and which keep its path the same.
//!
//! Routers with several equal ways choose by the fields of the *flow*: addresses, protocol, ports (of ICMP:
//! identifier and checksum), and IPv6's flow label. All probes of one flow have these alike (Augustin et al.,
//! "Avoiding traceroute anomalies with Paris traceroute", 2006). What tells the probes of a flow apart is a
//! *mark* in fields that no router looks at: IPv4's identification, and the sequence number of an echo request,
//! the checksum of a datagram, the sequence number of a segment. All of these lie in the 8 octets that every
//! router quotes.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Conductor;
use crate::wire::{
    HexBytes, IcmpFamily, IcmpHeader, Ipv4Header, Ipv6Header, TcpFlags, TcpHeader, TcpOptions, UdpHeader, protocol,
};

/// What a path probe is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum PathMethod {
    /// Echo requests.
    Icmp,
    /// Datagrams.
    Udp {
        /// To this port.
        dport: u16,
    },
    /// TCP segments that ask for a connection.
    Tcp {
        /// To this port.
        dport: u16,
    },
}

impl PathMethod {
    /// The protocol number in the IP header of such a probe.
    pub fn protocol(self, v6: bool) -> u8 {
        match self {
            Self::Icmp if v6 => protocol::ICMPV6,
            Self::Icmp => protocol::ICMP,
            Self::Udp { .. } => protocol::UDP,
            Self::Tcp { .. } => protocol::TCP,
        }
    }

    /// The port it goes to.
    pub fn dport(self) -> Option<u16> {
        match self {
            Self::Icmp => None,
            Self::Udp { dport } | Self::Tcp { dport } => Some(dport),
        }
    }

    /// `icmp`, `udp` or `tcp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Udp { .. } => "udp",
            Self::Tcp { .. } => "tcp",
        }
    }
}

/// One packet along a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathProbe {
    /// To whom.
    pub dst: IpAddr,
    /// From which of this host's addresses: checksums cover it.
    pub src: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What it is.
    #[serde(flatten)]
    pub method: PathMethod,
    /// Which flow: another number gives another source port (ICMP: identifier and checksum) and flow label.
    pub flow: u16,
    /// Octets of the whole IP packet; what is too short for the headers is made longer.
    pub length: u16,
    /// TOS or traffic class.
    pub tos: u8,
}

/// Identifies one probe in its own header fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMark {
    /// 1 to 65534.
    pub number: u16,
    /// TCP's sequence number.
    pub isn: u32,
    /// What an echo must bring back.
    pub cookie: [u8; 8],
    /// The run's secret, from which flow labels and checksums come.
    pub nonce: u64,
}

impl PathMark {
    /// The number of the n-th try of a run; repeats after 65534.
    pub fn number_of(token: u32) -> u16 {
        u16::try_from(token % 65534).unwrap_or(0) + 1
    }
}

/// A word that is the same for a flow in a run, neither 0 nor all ones (both mean "none" somewhere).
fn flow_word(nonce: u64, flow: u16) -> u16 {
    let mixed = (nonce ^ (u64::from(flow) << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    u16::try_from(mixed % 65534).unwrap_or(0) + 1
}

fn ones_add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

impl PathProbe {
    /// The flow label: 20 bits, never 0 (RFC 6437 §2).
    pub fn flow_label(&self, nonce: u64) -> u32 {
        (u32::from(flow_word(nonce, self.flow)) << 4) | 1
    }

    fn headers(&self) -> u16 {
        let ip = if self.dst.is_ipv6() { 40 } else { 20 };
        ip + match self.method {
            // Behind the header: the cookie and the word that makes the checksum come out.
            PathMethod::Icmp | PathMethod::Udp { .. } => 8 + 10,
            PathMethod::Tcp { .. } => 40,
        }
    }

    /// Octets of data behind the header of a segment.
    pub fn segment_data(&self) -> u32 {
        u32::from(self.length.saturating_sub(self.headers()))
    }

    /// Everything behind the IP header. `local`: source address and port, or ICMP identifier.
    pub fn upper(&self, local: SocketAddr, mark: &PathMark) -> Vec<u8> {
        let ip = if self.dst.is_ipv6() { 40 } else { 20 };
        let room = usize::from(self.length.max(self.headers()) - ip);
        // Each octet its own offset, the usual pattern of ping.
        let pattern = |count: usize| (0..=255u8).cycle().take(count).collect::<Vec<u8>>();
        match self.method {
            PathMethod::Icmp => {
                let family = IcmpFamily::of(self.dst);
                let mut body = pattern(room - 8);
                body[..8].copy_from_slice(&mark.cookie);
                body[8..10].fill(0);
                let header = IcmpHeader::new_echo(family, true, local.port(), mark.number);
                let mut bytes = header.message(local.ip(), self.dst, &body);
                settle(&mut bytes, 2, 16, flow_word(mark.nonce, self.flow));
                bytes
            }
            PathMethod::Udp { dport } => {
                let mut payload = pattern(room - 8);
                payload[..2].fill(0);
                payload[2..10].copy_from_slice(&mark.cookie);
                let mut bytes = UdpHeader::datagram(local.ip(), self.dst, local.port(), dport, &payload);
                settle(&mut bytes, 6, 8, mark.number);
                bytes
            }
            PathMethod::Tcp { dport } => {
                let mss = if self.dst.is_ipv6() { 1440 } else { 1460 };
                let options = TcpOptions {
                    mss: Some(mss),
                    sack_permitted: true,
                    timestamps: Some((mark.isn ^ 0x5257_0000, 0)),
                    window_scale: Some(7),
                    ..TcpOptions::default()
                };
                let header = TcpHeader {
                    seq: mark.isn,
                    options: HexBytes(options.emit()),
                    ..TcpHeader::new(local.port(), dport, TcpFlags::SYN)
                };
                // Data in a SYN would be dropped by many: only a probe of the path's MTU is filled up.
                header.segment(local.ip(), self.dst, &pattern(room.saturating_sub(40)))
            }
        }
    }

    /// The whole packet as a raw socket sends it.
    pub fn packet(&self, local: SocketAddr, mark: &PathMark) -> Vec<u8> {
        let upper = self.upper(local, mark);
        let number = self.method.protocol(self.dst.is_ipv6());
        match (local.ip(), self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header =
                    Ipv4Header { tos: self.tos, id: mark.number, ttl: self.ttl, ..Ipv4Header::new(src, dst, number) };
                header.packet(&upper)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    traffic_class: self.tos,
                    flow_label: self.flow_label(mark.nonce),
                    hop_limit: self.ttl,
                    ..Ipv6Header::new(src, dst, number)
                };
                header.packet(&upper)
            }
            // The families are made to fit where probes are made; nothing sensible could be sent.
            _ => Vec::new(),
        }
    }
}

/// Makes the checksum at `sum_at` be `wanted`, by the word at `word_at`, which holds 0.
fn settle(bytes: &mut [u8], sum_at: usize, word_at: usize, wanted: u16) {
    let now = u16::from_be_bytes([bytes[sum_at], bytes[sum_at + 1]]);
    // RFC 1624: in ones' complement the word has to be the difference of the complements.
    let word = ones_add(!wanted, now);
    bytes[word_at..word_at + 2].copy_from_slice(&word.to_be_bytes());
    bytes[sum_at..sum_at + 2].copy_from_slice(&wanted.to_be_bytes());
}

/// What path probes of a run need from the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathNeeds {
    /// IPv6.
    pub v6: bool,
    /// Which sockets.
    pub method: PathMethod,
}

/// Sends nothing: what runs without one have.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoConductor;

impl Conductor for NoConductor {
    fn heard(&mut self, _: &super::Event, _: super::Moment) {}

    fn plan(&mut self, _: super::Moment) -> super::Plan {
        super::Plan::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Quoted, checksum};

    fn mark(token: u32) -> PathMark {
        let number = PathMark::number_of(token);
        PathMark {
            number,
            isn: token.wrapping_mul(77),
            cookie: u64::from(token).to_be_bytes(),
            nonce: 0x1234_5678_9abc_def0,
        }
    }

    fn probe(v6: bool, method: PathMethod, ttl: u8, flow: u16, length: u16) -> (PathProbe, SocketAddr) {
        let (src, dst) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
        let src: IpAddr = src.parse().unwrap();
        let probe = PathProbe { dst: dst.parse().unwrap(), src, ttl, method, flow, length, tos: 0 };
        (probe, SocketAddr::new(src, 40000 + flow))
    }

    proptest::proptest! {
        /// What routers hash by stays the same for all probes of a flow; checksums are right.
        #[test]
        fn a_flow_is_constant_and_its_checksums_are_right(v6: bool, kind in 0..3u8, token: u32, other: u32, flow in 0u16..9, length in 0u16..300) {
            let method = [PathMethod::Icmp, PathMethod::Udp { dport: 33434 }, PathMethod::Tcp { dport: 80 }][usize::from(kind)];
            let (one, local) = probe(v6, method, 3, flow, length);
            let (two, _) = probe(v6, method, 9, flow, length);
            let (a, b) = (one.packet(local, &mark(token)), two.packet(local, &mark(other)));
            let ip = if v6 { 40 } else { 20 };
            if v6 {
                assert_eq!(a[..4], b[..4]);
            } else {
                assert_eq!(checksum::internet(&[&a[..20]]), 0);
            }
            assert_eq!(a[ip..ip + 4], b[ip..ip + 4]);
            if method == PathMethod::Icmp {
                assert_eq!(a[ip..ip + 6], b[ip..ip + 6]);
                assert_eq!(checksum::transport(one.src, one.dst, protocol::ICMPV6, &a[ip..]) == 0, v6);
                assert_eq!(checksum::internet(&[&a[ip..]]) == 0, !v6);
            } else {
                assert_eq!(checksum::transport(one.src, one.dst, method.protocol(v6), &a[ip..]), 0);
            }
            // Eight octets of the upper header are enough to know the probe.
            let family = if v6 { IcmpFamily::V6 } else { IcmpFamily::V4 };
            let quoted = Quoted::parse(family, &a[..ip + 8]).unwrap();
            match method {
                PathMethod::Icmp => assert_eq!(quoted.echo.unwrap().1, mark(token).number),
                PathMethod::Udp { .. } => assert_eq!(quoted.upper[6..8], mark(token).number.to_be_bytes()),
                PathMethod::Tcp { .. } => assert_eq!(quoted.seq, Some(mark(token).isn)),
            }
            assert_eq!(a.len(), usize::from(length.max(one.headers())));
        }
    }
}
