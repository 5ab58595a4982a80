//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use pnet_packet::ipv4::{Ipv4Packet, MutableIpv4Packet};
use serde::{Deserialize, Serialize};

use super::{HexBytes, Malformed, checksum, take};

/// An IPv4 header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Header {
    /// DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// Octets of header and payload, as the header says (0 from some offloading drivers).
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// DF.
    pub dont_fragment: bool,
    /// MF.
    pub more_fragments: bool,
    /// Where this fragment's payload begins, in units of 8 octets.
    pub fragment_offset: u16,
    /// Time to live, hops.
    pub ttl: u8,
    /// What is inside ([`super::protocol`]).
    pub protocol: u8,
    /// The header checksum as it was read.
    pub checksum: u16,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Options, 0 to 40 octets, a multiple of 4.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub options: HexBytes,
}

fn is_empty(bytes: &HexBytes) -> bool {
    bytes.is_empty()
}

impl Ipv4Header {
    /// Length without options, octets.
    pub const MIN_LEN: usize = 20;

    /// What a fresh packet has: no options, not a fragment, DF, TTL 64. Lengths and checksum are set by [`Self::emit`].
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> Self {
        Self {
            tos: 0,
            total_len: 0,
            id: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol,
            checksum: 0,
            src,
            dst,
            options: HexBytes::default(),
        }
    }

    /// Reads the header with its options; also gives its length in octets.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        const WHAT: &str = "IPv4 header";
        let invalid = |why| Malformed::Invalid { what: WHAT, why };
        let fixed = take(WHAT, bytes, Self::MIN_LEN)?;
        let view = Ipv4Packet::new(fixed).ok_or(invalid("too short"))?;
        if view.get_version() != 4 {
            return Err(invalid("the version is not 4"));
        }
        let length = usize::from(view.get_header_length()) * 4;
        if length < Self::MIN_LEN {
            return Err(invalid("the header length is below 20 octets"));
        }
        let options = take(WHAT, bytes, length)?[Self::MIN_LEN..].to_vec();
        let flags = view.get_flags();
        let header = Self {
            tos: fixed[1],
            total_len: view.get_total_length(),
            id: view.get_identification(),
            dont_fragment: flags & 2 != 0,
            more_fragments: flags & 1 != 0,
            fragment_offset: view.get_fragment_offset(),
            ttl: view.get_ttl(),
            protocol: view.get_next_level_protocol().0,
            checksum: view.get_checksum(),
            src: view.get_source(),
            dst: view.get_destination(),
            options: HexBytes(options),
        };
        Ok((header, length))
    }

    /// Whether this is a fragment, and so whether the upper header may be missing or incomplete.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// The header's bytes exactly as the fields say, lengths and checksum included.
    pub fn emit(&self) -> Vec<u8> {
        // The length field has 4 bits: at most 40 octets of options.
        let options = &self.options[..self.options.len().min(40) & !3];
        let length = Self::MIN_LEN + options.len();
        let mut bytes = vec![0; length];
        if let Some(mut view) = MutableIpv4Packet::new(&mut bytes) {
            view.set_version(4);
            view.set_header_length(u8::try_from(length / 4).unwrap_or(5));
            view.set_total_length(self.total_len);
            view.set_identification(self.id);
            view.set_flags((u8::from(self.dont_fragment) << 1) | u8::from(self.more_fragments));
            view.set_fragment_offset(self.fragment_offset & 0x1fff);
            view.set_ttl(self.ttl);
            view.set_next_level_protocol(pnet_packet::ip::IpNextHeaderProtocol(self.protocol));
            view.set_checksum(self.checksum);
            view.set_source(self.src);
            view.set_destination(self.dst);
        }
        bytes[1] = self.tos;
        bytes[Self::MIN_LEN..].copy_from_slice(options);
        bytes
    }

    /// The bytes of a whole packet: total length and checksum computed.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut header = self.clone();
        let length = Self::MIN_LEN + header.options.len().min(40) + payload.len();
        header.total_len = u16::try_from(length).unwrap_or(u16::MAX);
        header.checksum = 0;
        header.checksum = checksum::internet(&[&header.emit()]);
        let mut bytes = header.emit();
        bytes.extend_from_slice(payload);
        bytes
    }
}
