//! Bytes ↔ typed headers. Pure: needs nothing but the packet types it is built on.
//!
//! Each header is a small owned struct with `parse` (bytes → header and how many bytes it took) and
//! `emit` (header → bytes). A capture cuts packets short and a hostile host sends lies, so `parse`
//! checks every length before a field is read: pnet's views are only made over bytes that are there.
//! [`Decoded`] puts the layers together and keeps what it could read of a packet that is cut short.

mod arp;
pub mod calendar;
pub mod capture;
pub mod checksum;
mod decode;
mod ether;
mod hex;
mod icmp;
mod icmp_name;
mod ipv4;
mod ipv6;
mod mac;
mod ndp;
pub mod pcap;
mod peel;
mod quote;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

pub use arp::{Arp, ArpOperation};
pub use decode::{Decoded, Encapsulation, Network, Transport};
pub use ether::{EtherHeader, VlanTag, ethertype};
pub use hex::HexBytes;
pub use icmp::{IcmpFamily, IcmpHeader};
pub use icmp_name::{code_name, type_name};
pub use ipv4::Ipv4Header;
pub use ipv6::{Ipv6Header, UpperLayer};
pub use mac::{BadMac, MacAddr};
pub use ndp::{NeighbourMessage, solicited_node, solicited_node_mac};
pub use peel::{IcmpError, NetworkLayer, Peeled, Peeler, Segment, network_layer};
pub use quote::{Extension, Quoted};
pub use tcp::{BadFlags, TcpFlags, TcpHeader, TcpOptions};
pub use udp::UdpHeader;

/// Protocol numbers of the IP header (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// Internet Control Message Protocol (RFC 792).
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol (RFC 9293).
    pub const TCP: u8 = 6;
    /// User Datagram Protocol (RFC 768).
    pub const UDP: u8 = 17;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// Why bytes could not be read as a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, serde::Serialize)]
pub enum Malformed {
    /// Fewer bytes than the header needs; normal for captures and for quotes in ICMP errors.
    #[error("{what}: cut short: {have} bytes where {need} are needed")]
    Short {
        /// Which header.
        what: &'static str,
        /// Bytes it needs.
        need: usize,
        /// Bytes there were.
        have: usize,
    },
    /// A field contradicts the protocol.
    #[error("{what}: {why}")]
    Invalid {
        /// Which header.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// `need` bytes at the start of `bytes`, or [`Malformed::Short`].
fn take<'a>(what: &'static str, bytes: &'a [u8], need: usize) -> Result<&'a [u8], Malformed> {
    bytes.get(..need).ok_or(Malformed::Short { what, need, have: bytes.len() })
}
