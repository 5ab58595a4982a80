//! Ethernet II framing with IEEE 802.1Q / 802.1ad tags.

use serde::{Deserialize, Serialize};

use super::{MacAddr, Malformed, take};

/// EtherType values (IEEE registration authority).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IEEE 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// IEEE 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
}

/// More tags than this on one frame are no network but an attack on the reader.
const MAX_TAGS: usize = 4;

/// One VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanTag {
    /// The tag's own EtherType: [`ethertype::VLAN`] or [`ethertype::QINQ`].
    pub tpid: u16,
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub tci: u16,
}

impl VlanTag {
    /// The VLAN identifier, 0 to 4095.
    pub fn id(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// The header of an Ethernet II frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtherHeader {
    /// To whom.
    pub dst: MacAddr,
    /// From whom.
    pub src: MacAddr,
    /// Tags, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<VlanTag>,
    /// What is inside, after the tags. Below 0x600 it is an IEEE 802.3 length.
    pub ethertype: u16,
}

impl EtherHeader {
    /// Reads the header and its tags; also gives the number of bytes it took.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        const WHAT: &str = "Ethernet header";
        let fixed = take(WHAT, bytes, 14)?;
        let mac = |at: usize| MacAddr::from_slice(&fixed[at..at + 6]).unwrap_or(MacAddr::ZERO);
        let mut at = 12;
        let mut vlans = Vec::new();
        loop {
            let word = |at: usize| Ok(u16::from_be_bytes([take(WHAT, bytes, at + 2)?[at], bytes[at + 1]]));
            let kind = word(at)?;
            at += 2;
            if !matches!(kind, ethertype::VLAN | ethertype::QINQ) || vlans.len() == MAX_TAGS {
                return Ok((Self { dst: mac(0), src: mac(6), vlans, ethertype: kind }, at));
            }
            vlans.push(VlanTag { tpid: kind, tci: word(at)? });
            at += 2;
        }
    }

    /// The header's bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(14 + 4 * self.vlans.len());
        bytes.extend(self.dst.0);
        bytes.extend(self.src.0);
        for tag in &self.vlans {
            bytes.extend(tag.tpid.to_be_bytes());
            bytes.extend(tag.tci.to_be_bytes());
        }
        bytes.extend(self.ethertype.to_be_bytes());
        bytes
    }
}
