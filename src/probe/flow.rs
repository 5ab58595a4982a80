//! Which packets a capture is for, and what it kept.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::bpf::{self, Instruction};
use crate::wire::{Decoded, Encapsulation, HexBytes, Network, pcap};

/// One conversation, both directions. What is `None` is not asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// One end.
    pub a: Option<IpAddr>,
    /// The other end.
    pub b: Option<IpAddr>,
    /// Protocol number.
    pub protocol: Option<u8>,
    /// Port of `a`.
    pub a_port: Option<u16>,
    /// Port of `b`.
    pub b_port: Option<u16>,
}

/// Which packets to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// These conversations; none: all IP packets.
    pub flows: Vec<Flow>,
    /// And the ICMP errors that quote a packet of theirs, whoever sends them.
    pub icmp_errors: bool,
    /// And ARP and neighbour discovery.
    pub neighbours: bool,
}

impl Flow {
    /// The conversation between these two addresses.
    pub fn between(a: IpAddr, b: IpAddr) -> Self {
        Self { a: Some(a), b: Some(b), ..Self::default() }
    }

    /// All packets to or from this port of this address.
    pub fn with_server(address: IpAddr, protocol: u8, port: u16) -> Self {
        Self { b: Some(address), protocol: Some(protocol), b_port: Some(port), ..Self::default() }
    }

    /// Whether a packet from the first of each to the second belongs to it. Ports that are not known
    /// (a later fragment) fit.
    fn fits(&self, src: IpAddr, dst: IpAddr, protocol: u8, ports: Option<(u16, u16)>) -> bool {
        let one_way = |from: Option<IpAddr>, to: Option<IpAddr>, sport: Option<u16>, dport: Option<u16>| {
            from.is_none_or(|from| from == src)
                && to.is_none_or(|to| to == dst)
                && ports.is_none_or(|ports| {
                    sport.is_none_or(|port| port == ports.0) && dport.is_none_or(|port| port == ports.1)
                })
        };
        self.protocol.is_none_or(|wanted| wanted == protocol)
            && (one_way(self.a, self.b, self.a_port, self.b_port) || one_way(self.b, self.a, self.b_port, self.a_port))
    }
}

impl FlowFilter {
    /// Everything that is IP.
    pub fn all() -> Self {
        Self::default()
    }

    /// One conversation with the errors about it.
    pub fn flow(flow: Flow) -> Self {
        Self { flows: vec![flow], icmp_errors: true, neighbours: false }
    }

    /// Whether the packet is wanted.
    pub fn matches(&self, packet: &Decoded<'_>) -> bool {
        let (src, dst, protocol) = match (&packet.network, packet.src(), packet.dst(), packet.protocol()) {
            (Some(Network::Arp(_)), ..) => return self.neighbours,
            (Some(_), Some(src), Some(dst), Some(protocol)) => (src, dst, protocol),
            _ => return false,
        };
        // Types 133 to 137: router and neighbour discovery, redirect.
        let icmp6 = packet.icmp().filter(|icmp| icmp.family == crate::wire::IcmpFamily::V6);
        if self.neighbours && icmp6.is_some_and(|icmp| (133..=137).contains(&icmp.kind)) {
            return true;
        }
        if self.flows.is_empty() || self.flows.iter().any(|flow| flow.fits(src, dst, protocol, packet.ports())) {
            return true;
        }
        let quoted = self.icmp_errors.then(|| packet.quoted()).flatten();
        quoted.is_some_and(|quoted| {
            self.flows.iter().any(|flow| flow.fits(quoted.src, quoted.dst, quoted.protocol, quoted.ports))
        })
    }

    /// A program for the kernel that lets through all that [`Self::matches`] wants, and little else.
    pub fn program(&self) -> Vec<Instruction> {
        bpf::flows(self)
    }
}

/// How a captured frame stood to this host (`PACKET_*` in `if_packet.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// To this host's hardware address.
    Host,
    /// To all stations.
    Broadcast,
    /// To a group.
    Multicast,
    /// To another station (on a bridge port, or flooded).
    Otherhost,
    /// Sent by this host.
    Outgoing,
}

/// One captured frame; it can be saved in a case file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedFrame {
    /// When the kernel saw it, nanoseconds since 1970-01-01 UTC.
    pub at_ns: u64,
    /// On which interface.
    pub interface: String,
    /// How it stood to this host.
    pub pkttype: FrameKind,
    /// Sent by this host.
    pub outgoing: bool,
    /// What the bytes begin with.
    pub encapsulation: Encapsulation,
    /// What was kept.
    pub bytes: HexBytes,
    /// Octets it had.
    pub orig_len: u32,
}

impl CapturedFrame {
    /// Its layers.
    pub fn decode(&self) -> Decoded<'_> {
        Decoded::parse(self.encapsulation, &self.bytes)
    }

    /// A pcap file of these frames. A file has one link type: where frames of both kinds are mixed, all begin with
    /// their IP header, and what is not IP is left out.
    pub fn to_pcap(frames: &[Self]) -> Vec<u8> {
        let ethernet = frames.iter().all(|frame| frame.encapsulation == Encapsulation::Ethernet);
        let mut writer = pcap::Writer::new(if ethernet { pcap::ETHERNET } else { pcap::RAW });
        for frame in frames {
            let mut skip = 0;
            if !ethernet && frame.encapsulation == Encapsulation::Ethernet {
                let Ok((header, length)) = crate::wire::EtherHeader::parse(&frame.bytes) else { continue };
                if !matches!(header.ethertype, crate::wire::ethertype::IPV4 | crate::wire::ethertype::IPV6) {
                    continue;
                }
                skip = length;
            }
            let cut = u32::try_from(skip).unwrap_or(0);
            writer.push(frame.at_ns, frame.orig_len.saturating_sub(cut), &frame.bytes[skip..]);
        }
        writer.finish()
    }
}
