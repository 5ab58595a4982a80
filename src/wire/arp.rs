//! ARP for IPv4 over Ethernet (RFC 826); how to ask without owning an address: RFC 5227.

use std::net::Ipv4Addr;

use pnet_packet::arp::ArpPacket;
use serde::{Deserialize, Serialize};

use super::{MacAddr, Malformed, take};

/// What an ARP packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArpOperation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
    /// Any other number (RARP, InARP, …).
    Other(u16),
}

impl From<u16> for ArpOperation {
    fn from(number: u16) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Reply,
            other => Self::Other(other),
        }
    }
}

impl From<ArpOperation> for u16 {
    fn from(operation: ArpOperation) -> Self {
        match operation {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
            ArpOperation::Other(number) => number,
        }
    }
}

/// An ARP packet: IPv4 addresses, 48-bit hardware addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arp {
    /// Request or reply.
    pub operation: ArpOperation,
    /// Who sends; need not be the Ethernet source (then something answers for another).
    pub sender_mac: MacAddr,
    /// The address the sender claims; 0.0.0.0 in an RFC 5227 probe.
    pub sender_ip: Ipv4Addr,
    /// Whom the sender speaks to; zero in a request.
    pub target_mac: MacAddr,
    /// The address asked for.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Length of the packet, octets.
    pub const LEN: usize = 28;

    /// Reads a packet; trailing padding is ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "ARP packet";
        let bytes = take(WHAT, bytes, Self::LEN)?;
        let view = ArpPacket::new(bytes).ok_or(Malformed::Short { what: WHAT, need: Self::LEN, have: bytes.len() })?;
        if bytes[..6] != [0, 1, 8, 0, 6, 4] {
            return Err(Malformed::Invalid { what: WHAT, why: "not IPv4 over Ethernet" });
        }
        Ok(Self {
            operation: view.get_operation().0.into(),
            sender_mac: MacAddr(view.get_sender_hw_addr().octets()),
            sender_ip: view.get_sender_proto_addr(),
            target_mac: MacAddr(view.get_target_hw_addr().octets()),
            target_ip: view.get_target_proto_addr(),
        })
    }

    /// The packet's bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0, 1, 8, 0, 6, 4];
        bytes.extend(u16::from(self.operation).to_be_bytes());
        bytes.extend(self.sender_mac.0);
        bytes.extend(self.sender_ip.octets());
        bytes.extend(self.target_mac.0);
        bytes.extend(self.target_ip.octets());
        bytes
    }
}
