//! UDP (RFC 768).

use std::net::IpAddr;

use pnet_packet::udp::{MutableUdpPacket, UdpPacket};
use serde::{Deserialize, Serialize};

use super::{Malformed, checksum, protocol, take};

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpHeader {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Octets of header and payload.
    pub length: u16,
    /// Checksum as read; 0 over IPv4 means the sender made none.
    pub checksum: u16,
}

impl UdpHeader {
    /// Length, octets.
    pub const LEN: usize = 8;

    /// Reads the header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "UDP header";
        let view = UdpPacket::new(take(WHAT, bytes, Self::LEN)?).ok_or(Malformed::Short {
            what: WHAT,
            need: Self::LEN,
            have: bytes.len(),
        })?;
        Ok(Self {
            sport: view.get_source(),
            dport: view.get_destination(),
            length: view.get_length(),
            checksum: view.get_checksum(),
        })
    }

    /// The header's bytes exactly as the fields say.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::LEN];
        if let Some(mut view) = MutableUdpPacket::new(&mut bytes) {
            view.set_source(self.sport);
            view.set_destination(self.dport);
            view.set_length(self.length);
            view.set_checksum(self.checksum);
        }
        bytes
    }

    /// A whole datagram with length and checksum computed.
    pub fn datagram(src: IpAddr, dst: IpAddr, sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(Self::LEN + payload.len()).unwrap_or(u16::MAX);
        let mut bytes = Self { sport, dport, length, checksum: 0 }.emit();
        bytes.extend_from_slice(payload);
        let sum = match checksum::transport(src, dst, protocol::UDP, &bytes) {
            // 0 is kept for "none made" (RFC 768).
            0 => 0xffff,
            sum => sum,
        };
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}
