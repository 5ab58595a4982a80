//! Neighbour discovery (RFC 4861): solicitation and advertisement.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::{IcmpFamily, IcmpHeader, MacAddr, Malformed, take};

/// A neighbour solicitation (type 135) or advertisement (type 136).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourMessage {
    /// Advertisement; else solicitation.
    pub advertisement: bool,
    /// R: the sender is a router (advertisement only).
    #[serde(default)]
    pub router: bool,
    /// S: in answer to a solicitation.
    #[serde(default)]
    pub solicited: bool,
    /// O: overrides what is cached.
    #[serde(default, rename = "override")]
    pub overrides: bool,
    /// The address asked for or advertised.
    pub target: Ipv6Addr,
    /// Source (solicitation) or target (advertisement) link-layer address option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_address: Option<MacAddr>,
}

impl NeighbourMessage {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;

    /// Reads an ICMPv6 message (from its type on).
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "neighbour discovery message";
        let fixed = take(WHAT, bytes, 24)?;
        let advertisement = match (fixed[0], fixed[1]) {
            (Self::SOLICITATION, 0) => false,
            (Self::ADVERTISEMENT, 0) => true,
            _ => return Err(Malformed::Invalid { what: WHAT, why: "another type or code" }),
        };
        let mut target = [0; 16];
        target.copy_from_slice(&fixed[8..24]);
        let flag = |bit: u8| advertisement && fixed[4] & bit != 0;
        let wanted = if advertisement { 2 } else { 1 };
        let mut link_address = None;
        let mut rest = &bytes[24..];
        while let [kind, units, ..] = *rest {
            let length = usize::from(units) * 8;
            // RFC 4861 §4.6: a length of 0 must be discarded, or the walk would not end.
            let Some(option) = rest.get(..length).filter(|option| !option.is_empty()) else { break };
            if kind == wanted && length == 8 {
                link_address = MacAddr::from_slice(&option[2..8]);
            }
            rest = &rest[length..];
        }
        Ok(Self {
            advertisement,
            router: flag(0x80),
            solicited: flag(0x40),
            overrides: flag(0x20),
            target: target.into(),
            link_address,
        })
    }

    /// The ICMPv6 message, checksum computed.
    pub fn emit(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let kind = if self.advertisement { Self::ADVERTISEMENT } else { Self::SOLICITATION };
        let bit = |set: bool, bit: u8| if self.advertisement && set { bit } else { 0 };
        let flags = bit(self.router, 0x80) | bit(self.solicited, 0x40) | bit(self.overrides, 0x20);
        let mut body = self.target.octets().to_vec();
        if let Some(mac) = self.link_address {
            body.extend([if self.advertisement { 2 } else { 1 }, 1]);
            body.extend(mac.0);
        }
        let header = IcmpHeader { family: IcmpFamily::V6, kind, code: 0, checksum: 0, rest: [flags, 0, 0, 0] };
        header.message(src.into(), dst.into(), &body)
    }
}

/// The solicited-node group of an address: `ff02::1:ffXX:XXXX` (RFC 4291 §2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let octets = target.octets();
    let low = [octets[13], octets[14], octets[15]];
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, low[0], low[1], low[2]])
}

/// The Ethernet group that carries [`solicited_node`] (RFC 2464 §7).
pub fn solicited_node_mac(target: Ipv6Addr) -> MacAddr {
    let octets = target.octets();
    MacAddr([0x33, 0x33, 0xff, octets[13], octets[14], octets[15]])
}
