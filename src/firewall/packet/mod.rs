//! One packet at one place, as a question to a ruleset.

mod expr;
mod octets;
mod quick;
mod reply;
mod values;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::wire::MacAddr;

use super::ruleset::{CtStates, CtStatuses, Hook, PktType, TcpFlags};

pub use expr::BadPacket;
pub(crate) use octets::{Layout, hex, patched, sum_is_right, tcp_options, unhex};
pub(crate) use reply::{About, NatEnds, icmp_error};
pub use reply::{Reply, reply};
pub use values::Proto;

/// A packet. All but the addresses may be left out; a header field that is not given takes what a
/// fresh packet would have, and the answer says so where it mattered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    /// Given back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<serde_json::Value>,
    /// Where it starts; default prerouting where `in` is set, else output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// The interface it came in by.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    pub in_: Option<String>,
    /// The interface it goes out by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
    /// The routing decision, where no host's facts give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<To>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Protocol; default by the other fields, else TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// TCP flags, as a list of names.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "values::tcp_flags")]
    pub tcp_flags: Option<TcpFlags>,
    /// Numbers of the TCP options present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_options: Option<Vec<u8>>,
    /// The maximum segment size that a TCP option offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss: Option<u16>,
    /// ICMP or ICMPv6 type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP or ICMPv6 code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// TTL or hop limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// TOS or traffic class octet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Length of the IP packet, octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// Fragment offset, units of eight octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frag_offset: Option<u16>,
    /// The MF bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_fragments: Option<bool>,
    /// The packet's mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Its flow's mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connmark: Option<u32>,
    /// Its conntrack state; default NEW.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "values::ct_states")]
    pub ctstate: Option<CtStates>,
    /// Its flow's conntrack status.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "values::ct_statuses")]
    pub ctstatus: Option<CtStatuses>,
    /// Source hardware address of the frame it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_src: Option<MacAddr>,
    /// Whom the frame was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkttype: Option<PktType>,
    /// User id of the sending socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group id of the sending socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Octets after the transport header, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The whole IP packet in hexadecimal, for what no field tells: extension headers, options,
    /// checksums. Where a field says otherwise, the field holds. [`Packet::from_octets`] reads all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<String>,
}

/// Where routing sends a packet that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum To {
    /// To this host.
    Local,
    /// On to another.
    Forward,
}

impl Packet {
    /// A packet of which only the addresses are known.
    pub fn new(src: IpAddr, dst: IpAddr) -> Self {
        Self {
            id: None,
            hook: None,
            in_: None,
            out: None,
            to: None,
            src,
            dst,
            proto: None,
            sport: None,
            dport: None,
            tcp_flags: None,
            tcp_options: None,
            mss: None,
            icmp_type: None,
            icmp_code: None,
            ttl: None,
            tos: None,
            length: None,
            frag_offset: None,
            more_fragments: None,
            mark: None,
            connmark: None,
            ctstate: None,
            ctstatus: None,
            mac_src: None,
            pkttype: None,
            uid: None,
            gid: None,
            payload: None,
            octets: None,
        }
    }

    /// A TCP segment with these flags.
    pub fn tcp(src: IpAddr, sport: u16, dst: IpAddr, dport: u16, flags: TcpFlags) -> Self {
        let ports = (Some(sport), Some(dport));
        Self { proto: Some(Proto(6)), sport: ports.0, dport: ports.1, tcp_flags: Some(flags), ..Self::new(src, dst) }
    }

    /// A UDP datagram.
    pub fn udp(src: IpAddr, sport: u16, dst: IpAddr, dport: u16) -> Self {
        Self { proto: Some(Proto(17)), sport: Some(sport), dport: Some(dport), ..Self::new(src, dst) }
    }

    /// An ICMP or ICMPv6 message, by the family of the addresses.
    pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8) -> Self {
        let proto = if src.is_ipv6() { 58 } else { 1 };
        Self { proto: Some(Proto(proto)), icmp_type: Some(kind), icmp_code: Some(code), ..Self::new(src, dst) }
    }

    /// Starting at this hook.
    #[must_use]
    pub fn at(mut self, hook: Hook) -> Self {
        self.hook = Some(hook);
        self
    }

    /// In this conntrack state.
    #[must_use]
    pub fn in_state(mut self, state: CtStates) -> Self {
        self.ctstate = Some(state);
        self
    }

    /// Whether it is IPv6.
    pub fn is_v6(&self) -> bool {
        self.dst.is_ipv6()
    }

    /// The hook it starts at.
    pub fn start(&self) -> Hook {
        self.hook.unwrap_or(if self.in_.is_some() { Hook::Prerouting } else { Hook::Output })
    }

    /// The protocol, and whether it had to be guessed from nothing.
    pub fn protocol(&self) -> (u8, bool) {
        match self.proto {
            Some(proto) => (proto.0, false),
            None if self.icmp_type.is_some() => (if self.is_v6() { 58 } else { 1 }, false),
            None => (6, self.sport.is_none() && self.dport.is_none() && self.tcp_flags.is_none()),
        }
    }
}

/// The packet as an expression: `in=eth0 tcp 192.168.1.5:40000 > 192.168.1.2:53 syn`.
impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expr::write(self, f)
    }
}

impl std::str::FromStr for Packet {
    type Err = BadPacket;

    fn from_str(text: &str) -> Result<Self, BadPacket> {
        expr::read(text)
    }
}
