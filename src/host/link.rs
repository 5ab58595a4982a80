//! Interfaces and their addresses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::wire::MacAddr;

/// RFC 2863 operational state, as `IFLA_OPERSTATE` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperState {
    /// The driver does not say (loopback, many tunnels): judge by flags and carrier.
    #[default]
    Unknown,
    /// The hardware is absent.
    NotPresent,
    /// Down.
    Down,
    /// Up, but the layer below it is not.
    LowerLayerDown,
    /// A test mode that passes no traffic.
    Testing,
    /// Waiting for an external event (802.1X, a bond's negotiation).
    Dormant,
    /// Passing packets.
    Up,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Kernel index, unique in its namespace.
    pub index: u32,
    /// `eth0`.
    pub name: String,
    /// What made it: `veth`, `bridge`, `vlan`, `tun`, …; `None` for plain devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Hardware address, where the link has a 48-bit one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Largest IP packet this link sends whole, octets.
    pub mtu: u32,
    /// `IFF_UP`: switched on by the administrator.
    pub up: bool,
    /// `IFLA_CARRIER`: the medium is there; `None` where the driver does not say.
    pub carrier: Option<bool>,
    /// RFC 2863 state.
    pub oper: OperState,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// `IFF_NOARP`: this link asks no neighbour for an address.
    pub noarp: bool,
    /// `IFF_POINTOPOINT`.
    pub point_to_point: bool,
    /// Index of the bridge or bond it is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<u32>,
    /// Index of the peer or parent device (`eth0@if7`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// Packets and errors counted since the link was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<LinkStats>,
    /// An XDP program is attached: packets can vanish before any capture sees them.
    #[serde(default)]
    pub xdp: bool,
}

/// `IFLA_STATS64`, the part that tells a broken link from a quiet one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Packets dropped instead of sent.
    pub tx_dropped: u64,
}

/// How far an address is valid (`RT_SCOPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressScope {
    /// Everywhere.
    Global,
    /// Its site.
    Site,
    /// Its link (`fe80::/10`, `169.254/16`).
    Link,
    /// This host.
    Host,
    /// Nowhere.
    Nowhere,
}

/// One address on one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Index of the interface.
    pub index: u32,
    /// Name of the interface.
    pub interface: String,
    /// The host's own address.
    pub address: IpAddr,
    /// Prefix length, bits.
    pub prefix_len: u8,
    /// The other end of a point-to-point link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Broadcast address, v4 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<IpAddr>,
    /// How far it is valid.
    pub scope: AddressScope,
    /// `IFA_F_TENTATIVE`: duplicate detection has not finished, so it cannot be used yet.
    #[serde(default)]
    pub tentative: bool,
    /// `IFA_F_DADFAILED`: another host has it.
    #[serde(default)]
    pub dad_failed: bool,
    /// `IFA_F_DEPRECATED`: not chosen as a source.
    #[serde(default)]
    pub deprecated: bool,
    /// `IFA_F_SECONDARY` (v4) / `IFA_F_TEMPORARY` (v6).
    #[serde(default)]
    pub secondary: bool,
}

impl Link {
    /// Switched on and, as far as the driver says, with a medium.
    pub fn usable(&self) -> bool {
        self.up && self.carrier != Some(false)
    }
}

impl Address {
    /// Whether `other` is inside this address's prefix, so that it is asked for on the link itself.
    pub fn on_link(&self, other: IpAddr) -> bool {
        let net = self.peer.unwrap_or(self.address);
        ipnetwork::IpNetwork::new(net, self.prefix_len).is_ok_and(|net| net.contains(other))
    }
}
