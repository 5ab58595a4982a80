//! The hook ladder: how many packets of one flow passed each place in a host's network stack.
//!
//! The first rung that no longer counts brackets whatever took the packet, be it a firewall of any
//! kind, the routing decision or reverse-path filtering.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What the counted flow carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LadderTransport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// Echo request and reply, ICMP or ICMPv6 as the addresses are.
    Icmp,
}

/// Which flow to count, and where beside the five IP hooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderSpec {
    /// What the flow carries.
    pub transport: LadderTransport,
    /// Who asks; its family is the flow's.
    pub client: IpAddr,
    /// Who answers, of the same family.
    pub server: IpAddr,
    /// The server's port; `None` counts all ports, and is the rule for ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Interfaces to count at as packets enter (nf_tables' netdev ingress).
    #[serde(default)]
    pub devices: Vec<String>,
}

/// What one rung has counted since the ladder was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungCount {
    /// `ingress`, `prerouting`, `input`, `forward`, `output` or `postrouting`.
    pub hook: String,
    /// Where in the hook: lower is called earlier (raw is -300, conntrack -200, mangle -150,
    /// destination NAT -100, filter 0, source NAT 100).
    pub priority: i32,
    /// The interface, at `ingress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Packets from the client to the server.
    pub request: u64,
    /// Packets from the server to the client.
    pub reply: u64,
    /// ICMP errors (unreachable, time exceeded, packet too big) about a packet of these two
    /// addresses, on their way to the one that sent it.
    pub icmp_error: u64,
}
