//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the common header, echo, and errors.

use std::net::IpAddr;

use pnet_packet::icmp::IcmpPacket;
use serde::{Deserialize, Serialize};

use super::{Malformed, checksum, code_name, protocol, take, type_name};

/// Which of the two protocols a type number belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IcmpFamily {
    /// ICMP, with IPv4.
    V4,
    /// ICMPv6.
    V6,
}

impl IcmpFamily {
    /// The family that reports about packets to this address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The type of an echo request.
    pub fn echo_request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    /// The type of an echo reply.
    pub fn echo_reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }

    /// The protocol number in the IP header.
    pub fn protocol(self) -> u8 {
        match self {
            Self::V4 => protocol::ICMP,
            Self::V6 => protocol::ICMPV6,
        }
    }

    /// Whether messages of this type quote the packet that caused them.
    pub fn quotes(self, kind: u8) -> bool {
        match self {
            Self::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
            // RFC 4443 §2.1: error messages have types 0 to 127.
            Self::V6 => kind < 128,
        }
    }
}

/// The first eight octets, common to all messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpHeader {
    /// Which protocol.
    pub family: IcmpFamily,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum as read.
    pub checksum: u16,
    /// The four octets whose meaning depends on the type: id and sequence, gateway, MTU, pointer.
    pub rest: [u8; 4],
}

impl IcmpHeader {
    /// Length, octets.
    pub const LEN: usize = 8;

    /// Reads the header.
    pub fn parse(family: IcmpFamily, bytes: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "ICMP header";
        let fixed = take(WHAT, bytes, Self::LEN)?;
        let view = IcmpPacket::new(fixed).ok_or(Malformed::Invalid { what: WHAT, why: "too short" })?;
        let (kind, code) = (view.get_icmp_type().0, view.get_icmp_code().0);
        Ok(Self { family, kind, code, checksum: view.get_checksum(), rest: [fixed[4], fixed[5], fixed[6], fixed[7]] })
    }

    /// The header's bytes exactly as the fields say.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code];
        bytes.extend(self.checksum.to_be_bytes());
        bytes.extend(self.rest);
        bytes
    }

    /// Identifier and sequence number of an echo request or reply.
    pub fn echo(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = self.rest;
        (self.kind == self.family.echo_request() || self.kind == self.family.echo_reply())
            .then(|| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// Whether the message quotes a packet.
    pub fn is_error(&self) -> bool {
        self.family.quotes(self.kind)
    }

    /// The MTU of the next hop: RFC 1191 §4 (0 from routers older than that is `None`), RFC 4443 §3.2.
    pub fn next_hop_mtu(&self) -> Option<u32> {
        let [a, b, c, d] = self.rest;
        let mtu = match (self.family, self.kind, self.code) {
            (IcmpFamily::V4, 3, 4) => u32::from(u16::from_be_bytes([c, d])),
            (IcmpFamily::V6, 2, _) => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        };
        (mtu != 0).then_some(mtu)
    }

    /// Type and code in words: `destination unreachable: port unreachable`.
    pub fn describe(&self) -> String {
        let name = type_name(self.family, self.kind);
        match code_name(self.family, self.kind, self.code) {
            Some(code) => format!("{name}: {code}"),
            None if self.code == 0 => name.to_owned(),
            None => format!("{name}: code {}", self.code),
        }
    }

    /// A whole message, the checksum computed (over the pseudo-header for ICMPv6).
    pub fn message(&self, src: IpAddr, dst: IpAddr, body: &[u8]) -> Vec<u8> {
        let mut bytes = Self { checksum: 0, ..*self }.emit();
        bytes.extend_from_slice(body);
        let sum = match self.family {
            IcmpFamily::V4 => checksum::internet(&[&bytes]),
            IcmpFamily::V6 => checksum::transport(src, dst, protocol::ICMPV6, &bytes),
        };
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The header of an echo request (`request`) or reply.
    pub fn new_echo(family: IcmpFamily, request: bool, id: u16, sequence: u16) -> Self {
        let kind = if request { family.echo_request() } else { family.echo_reply() };
        let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
        Self { family, kind, code: 0, checksum: 0, rest: [a, b, c, d] }
    }
}
