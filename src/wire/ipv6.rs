//! IPv6 (RFC 8200) and the walk through its extension headers.

use std::net::Ipv6Addr;

use pnet_packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use serde::{Deserialize, Serialize};

use super::{Malformed, take};

/// An IPv6 fixed header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Header {
    /// DSCP (6 bits) and ECN (2 bits).
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Octets after this header, extension headers included.
    pub payload_len: u16,
    /// What follows: an extension header or the upper layer.
    pub next_header: u8,
    /// Hops this packet may still make.
    pub hop_limit: u8,
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
}

/// Where the extension headers end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpperLayer {
    /// Protocol number found last; [`super::protocol`].
    pub protocol: u8,
    /// Octets from the start of the IPv6 header to it.
    pub offset: usize,
    /// Offset of this fragment in units of 8 octets, where a fragment header was met.
    pub fragment_offset: Option<u16>,
    /// M flag of the fragment header.
    pub more_fragments: bool,
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

impl Ipv6Header {
    /// Length, octets.
    pub const LEN: usize = 40;

    /// What a fresh packet has: hop limit 64, no flow label. The length is set by [`Self::packet`].
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8) -> Self {
        Self { traffic_class: 0, flow_label: 0, payload_len: 0, next_header, hop_limit: 64, src, dst }
    }

    /// Reads the fixed header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "IPv6 header";
        let fixed = take(WHAT, bytes, Self::LEN)?;
        let view = Ipv6Packet::new(fixed).ok_or(Malformed::Invalid { what: WHAT, why: "too short" })?;
        if view.get_version() != 6 {
            return Err(Malformed::Invalid { what: WHAT, why: "the version is not 6" });
        }
        Ok(Self {
            traffic_class: view.get_traffic_class(),
            flow_label: view.get_flow_label(),
            payload_len: view.get_payload_length(),
            next_header: view.get_next_header().0,
            hop_limit: view.get_hop_limit(),
            src: view.get_source(),
            dst: view.get_destination(),
        })
    }

    /// Walks the extension headers of the packet that begins with this header.
    ///
    /// The walk ends at the first header that is none, or where a fragment other than the first begins:
    /// what follows there is the middle of something. The work is bounded by the packet's length.
    pub fn walk(&self, packet: &[u8]) -> Result<UpperLayer, Malformed> {
        const WHAT: &str = "IPv6 extension header";
        let mut upper =
            UpperLayer { protocol: self.next_header, offset: Self::LEN, fragment_offset: None, more_fragments: false };
        loop {
            let rest = packet.get(upper.offset..).unwrap_or_default();
            let length = match upper.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => (usize::from(take(WHAT, rest, 2)?[1]) + 1) * 8,
                // RFC 4302 §2.2: in units of 4 octets, minus 2.
                AUTHENTICATION => (usize::from(take(WHAT, rest, 2)?[1]) + 2) * 4,
                FRAGMENT => {
                    let header = take(WHAT, rest, 8)?;
                    let word = u16::from_be_bytes([header[2], header[3]]);
                    upper.fragment_offset = Some(word >> 3);
                    upper.more_fragments = word & 1 == 1;
                    8
                }
                _ => return Ok(upper),
            };
            let header = take(WHAT, rest, length)?;
            upper.protocol = header[0];
            upper.offset += length;
            if upper.fragment_offset.is_some_and(|offset| offset != 0) {
                return Ok(upper);
            }
        }
    }

    /// The header's bytes exactly as the fields say.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::LEN];
        if let Some(mut view) = MutableIpv6Packet::new(&mut bytes) {
            view.set_version(6);
            view.set_traffic_class(self.traffic_class);
            view.set_flow_label(self.flow_label & 0xf_ffff);
            view.set_payload_length(self.payload_len);
            view.set_next_header(pnet_packet::ip::IpNextHeaderProtocol(self.next_header));
            view.set_hop_limit(self.hop_limit);
            view.set_source(self.src);
            view.set_destination(self.dst);
        }
        bytes
    }

    /// The bytes of a whole packet, the length computed.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let header = Self { payload_len: u16::try_from(payload.len()).unwrap_or(u16::MAX), ..self.clone() };
        let mut bytes = header.emit();
        bytes.extend_from_slice(payload);
        bytes
    }
}
