//! A whole packet, layer by layer, as far as its bytes go.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    Arp, EtherHeader, IcmpFamily, IcmpHeader, Ipv4Header, Ipv6Header, Malformed, NeighbourMessage, Quoted, TcpHeader,
    UdpHeader, UpperLayer, ethertype, protocol,
};

/// What a frame's bytes begin with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// An Ethernet II header.
    #[default]
    Ethernet,
    /// An IPv4 or IPv6 header (tun devices, raw sockets).
    Ip,
}

/// The network layer of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Network {
    /// ARP.
    Arp(Arp),
    /// IPv4.
    Ipv4(Ipv4Header),
    /// IPv6 and where its extension headers end.
    Ipv6(Ipv6Header, UpperLayer),
}

/// The transport layer of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Transport {
    /// TCP.
    Tcp(TcpHeader),
    /// UDP.
    Udp(UdpHeader),
    /// ICMP or ICMPv6.
    Icmp(IcmpHeader),
    /// A protocol this program does not look into, or a later fragment, which has no upper header.
    Opaque(u8),
}

/// A decoded packet. Layers that could not be read are `None`, and `fault` says why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decoded<'a> {
    /// The frame's header, when there was one.
    pub ether: Option<EtherHeader>,
    /// ARP or IP.
    pub network: Option<Network>,
    /// TCP, UDP, ICMP.
    pub transport: Option<Transport>,
    /// What follows the last header that was read; without Ethernet padding where IP says its length.
    #[serde(skip)]
    pub payload: &'a [u8],
    /// Where reading stopped, when it did so early.
    pub fault: Option<Malformed>,
}

impl<'a> Decoded<'a> {
    /// Reads as many layers as the bytes hold. Never fails: an unreadable packet has no layers.
    pub fn parse(encapsulation: Encapsulation, bytes: &'a [u8]) -> Self {
        let mut decoded = Self { ether: None, network: None, transport: None, payload: bytes, fault: None };
        if let Err(fault) = decoded.read(encapsulation) {
            decoded.fault = Some(fault);
        }
        decoded
    }

    fn read(&mut self, encapsulation: Encapsulation) -> Result<(), Malformed> {
        let kind = match encapsulation {
            Encapsulation::Ethernet => {
                let (header, length) = EtherHeader::parse(self.payload)?;
                let kind = header.ethertype;
                self.ether = Some(header);
                self.payload = &self.payload[length..];
                kind
            }
            Encapsulation::Ip => match self.payload.first().map(|byte| byte >> 4) {
                Some(4) => ethertype::IPV4,
                Some(6) => ethertype::IPV6,
                _ => return Err(Malformed::Invalid { what: "IP packet", why: "the version is neither 4 nor 6" }),
            },
        };
        match kind {
            ethertype::ARP => {
                self.network = Some(Network::Arp(Arp::parse(self.payload)?));
                self.payload = &[];
                Ok(())
            }
            ethertype::IPV4 => self.read_ipv4(),
            ethertype::IPV6 => self.read_ipv6(),
            _ => Ok(()),
        }
    }

    fn read_ipv4(&mut self) -> Result<(), Malformed> {
        let (header, length) = Ipv4Header::parse(self.payload)?;
        let total = usize::from(header.total_len);
        // 0 comes from segmentation offload (the kernel fills it in later): then all there is belongs to it.
        let end = if total < length { self.payload.len() } else { total.min(self.payload.len()) };
        self.payload = &self.payload[length..end.max(length)];
        let (protocol, later) = (header.protocol, header.fragment_offset != 0);
        self.network = Some(Network::Ipv4(header));
        self.read_transport(protocol, later)
    }

    fn read_ipv6(&mut self) -> Result<(), Malformed> {
        let header = Ipv6Header::parse(self.payload)?;
        let claimed = usize::from(header.payload_len);
        let end = if claimed == 0 { self.payload.len() } else { (Ipv6Header::LEN + claimed).min(self.payload.len()) };
        let packet = &self.payload[..end];
        self.payload = &packet[Ipv6Header::LEN..];
        let fallback = UpperLayer {
            protocol: header.next_header,
            offset: Ipv6Header::LEN,
            fragment_offset: None,
            more_fragments: false,
        };
        let walked = header.walk(packet);
        let upper = walked.unwrap_or(fallback);
        self.network = Some(Network::Ipv6(header, upper));
        walked?;
        self.payload = packet.get(upper.offset..).unwrap_or_default();
        self.read_transport(upper.protocol, upper.fragment_offset.is_some_and(|offset| offset != 0))
    }

    fn read_transport(&mut self, number: u8, later_fragment: bool) -> Result<(), Malformed> {
        let v4 = matches!(self.network, Some(Network::Ipv4(_)));
        let (transport, length) = match number {
            _ if later_fragment => (Transport::Opaque(number), 0),
            protocol::TCP => {
                let (header, length) = TcpHeader::parse(self.payload)?;
                (Transport::Tcp(header), length)
            }
            protocol::UDP => (Transport::Udp(UdpHeader::parse(self.payload)?), UdpHeader::LEN),
            protocol::ICMP if v4 => {
                (Transport::Icmp(IcmpHeader::parse(IcmpFamily::V4, self.payload)?), IcmpHeader::LEN)
            }
            protocol::ICMPV6 if !v4 => {
                (Transport::Icmp(IcmpHeader::parse(IcmpFamily::V6, self.payload)?), IcmpHeader::LEN)
            }
            other => (Transport::Opaque(other), 0),
        };
        self.transport = Some(transport);
        self.payload = &self.payload[length..];
        Ok(())
    }

    /// Source address of IP, sender address of ARP.
    pub fn src(&self) -> Option<IpAddr> {
        Some(match self.network.as_ref()? {
            Network::Arp(arp) => arp.sender_ip.into(),
            Network::Ipv4(ip) => ip.src.into(),
            Network::Ipv6(ip, _) => ip.src.into(),
        })
    }

    /// Destination address of IP, target address of ARP.
    pub fn dst(&self) -> Option<IpAddr> {
        Some(match self.network.as_ref()? {
            Network::Arp(arp) => arp.target_ip.into(),
            Network::Ipv4(ip) => ip.dst.into(),
            Network::Ipv6(ip, _) => ip.dst.into(),
        })
    }

    /// TTL or hop limit.
    pub fn ttl(&self) -> Option<u8> {
        match self.network.as_ref()? {
            Network::Arp(_) => None,
            Network::Ipv4(ip) => Some(ip.ttl),
            Network::Ipv6(ip, _) => Some(ip.hop_limit),
        }
    }

    /// Protocol number above IP.
    pub fn protocol(&self) -> Option<u8> {
        match self.network.as_ref()? {
            Network::Arp(_) => None,
            Network::Ipv4(ip) => Some(ip.protocol),
            Network::Ipv6(_, upper) => Some(upper.protocol),
        }
    }

    /// Source and destination port.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport.as_ref()? {
            Transport::Tcp(tcp) => Some((tcp.sport, tcp.dport)),
            Transport::Udp(udp) => Some((udp.sport, udp.dport)),
            _ => None,
        }
    }

    /// The TCP header.
    pub fn tcp(&self) -> Option<&TcpHeader> {
        if let Some(Transport::Tcp(tcp)) = &self.transport { Some(tcp) } else { None }
    }

    /// The ICMP header.
    pub fn icmp(&self) -> Option<&IcmpHeader> {
        if let Some(Transport::Icmp(icmp)) = &self.transport { Some(icmp) } else { None }
    }

    /// The packet an ICMP error quotes.
    pub fn quoted(&self) -> Option<Quoted> {
        let icmp = self.icmp().filter(|icmp| icmp.is_error())?;
        Quoted::parse(icmp.family, self.payload)
    }

    /// The neighbour discovery message in it.
    pub fn neighbour(&self) -> Option<NeighbourMessage> {
        let icmp = self.icmp().filter(|icmp| icmp.family == IcmpFamily::V6)?;
        let mut bytes = icmp.emit();
        bytes.extend_from_slice(self.payload);
        NeighbourMessage::parse(&bytes).ok()
    }
}

/// One line: `192.168.1.2:40000 > 192.168.1.3:8080 tcp SYN`.
impl fmt::Display for Decoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Network::Arp(arp)) = &self.network {
            return match arp.operation {
                super::ArpOperation::Request => write!(f, "arp who has {}? tell {}", arp.target_ip, arp.sender_ip),
                super::ArpOperation::Reply => write!(f, "arp {} is at {}", arp.sender_ip, arp.sender_mac),
                super::ArpOperation::Other(number) => write!(f, "arp operation {number}"),
            };
        }
        let (Some(src), Some(dst)) = (self.src(), self.dst()) else {
            return match &self.ether {
                Some(ether) => write!(f, "{} > {} ethertype 0x{:04x}", ether.src, ether.dst, ether.ethertype),
                None => f.write_str("unreadable packet"),
            };
        };
        if let Some((sport, dport)) = self.ports() {
            write!(f, "{} > {}", std::net::SocketAddr::new(src, sport), std::net::SocketAddr::new(dst, dport))?;
        } else {
            write!(f, "{src} > {dst}")?;
        }
        match &self.transport {
            Some(Transport::Tcp(tcp)) => write!(f, " tcp {}", tcp.flags)?,
            Some(Transport::Udp(_)) => f.write_str(" udp")?,
            Some(Transport::Icmp(icmp)) => write!(f, " icmp {}", icmp.describe())?,
            Some(Transport::Opaque(number)) => write!(f, " protocol {number}")?,
            None => f.write_str(" (cut short)")?,
        }
        match &self.transport {
            Some(Transport::Tcp(_) | Transport::Udp(_)) if !self.payload.is_empty() => {
                write!(f, " {} bytes", self.payload.len())
            }
            _ => Ok(()),
        }
    }
}
