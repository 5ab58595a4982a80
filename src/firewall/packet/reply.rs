//! The packet that REJECT sends back.

use std::net::IpAddr;

use serde::Serialize;

use crate::firewall::ruleset::{RejectWith, TcpFlags};
use crate::firewall::walk::{DecidedBy, Verdict};

use super::{Packet, Proto};

/// What the sender of a rejected packet gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reply {
    /// Who sends it: the rejected packet's destination for a TCP reset; for an ICMP error an address
    /// of the host that rejects, which is `None` where the packet was not for it.
    pub from: Option<IpAddr>,
    /// To whom.
    pub to: IpAddr,
    /// 6, 1 or 58.
    pub proto: Proto,
    /// ICMP type and code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// TCP flags, `rst` or `rst,ack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<String>,
    /// TCP ports of the reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<(Option<u16>, Option<u16>)>,
    /// Sequence and acknowledgement numbers of the reset, where the rejected packet's octets are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u32>,
    /// See `seq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack: Option<u32>,
    /// Octets of the whole IP packet.
    pub length: u32,
    /// Its conntrack state is RELATED: the rejected packet has a flow.
    pub related: bool,
    /// Its TOS octet.
    #[serde(skip)]
    pub(crate) tos: u8,
    /// The ends that it gets when it leaves.
    #[serde(skip)]
    pub(crate) before_nat: Option<NatEnds>,
    #[serde(skip)]
    pub(crate) about: Option<About>,
    /// Whether the host's own rules let it leave; `None` where its source is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The rule of this host that keeps the answer from leaving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Box<DecidedBy>>,
}

/// The ends of a flow before translation, where they are others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NatEnds {
    pub(crate) from: Option<(IpAddr, Option<u16>)>,
    pub(crate) to: Option<(IpAddr, Option<u16>)>,
}

/// Source, destination and their ports.
pub(crate) type Ends = (IpAddr, IpAddr, Option<u16>, Option<u16>);

/// The flow of the packet that is answered: the answer is RELATED to it (`nf_ct_attach`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct About {
    /// Its directions; `None` where not known.
    pub(crate) tuples: Option<[Ends; 2]>,
    pub(crate) proto: u8,
    /// The answer goes the way of the flow's answers.
    pub(crate) reply: Option<bool>,
    /// SNAT and DNAT.
    pub(crate) states: u8,
    pub(crate) mark: u32,
}

impl Reply {
    fn to(to: IpAddr) -> Self {
        Self {
            from: None,
            to,
            proto: Proto(1),
            icmp: None,
            tcp_flags: None,
            ports: None,
            seq: None,
            ack: None,
            length: 0,
            related: false,
            tos: 0,
            before_nat: None,
            about: None,
            verdict: None,
            blocked_by: None,
        }
    }
}

/// What REJECT sends back; `None` where the kernel stays silent: to a reset, to an ICMP error, to a
/// later fragment, to what was sent to many (`net/ipv4/netfilter/nf_reject_ipv4.c`,
/// `net/ipv6/netfilter/nf_reject_ipv6.c`, RFC 1122 section 3.2.2). `local` says that the packet was for this host.
pub fn reply(packet: &Packet, with: RejectWith, local: bool) -> Option<Reply> {
    let (proto, _) = packet.protocol();
    if packet.frag_offset.unwrap_or(0) > 0 {
        return None;
    }
    let (kind, code) = match with.for_packet(packet.is_v6()) {
        RejectWith::TcpReset => {
            let flags = packet.tcp_flags.unwrap_or(TcpFlags::SYN);
            if proto != 6 || flags.0 & TcpFlags::RST.0 != 0 {
                return None;
            }
            // An acknowledgement is answered by a bare RST with its number; anything else is acknowledged.
            let ack = flags.0 & TcpFlags::ACK.0 != 0;
            return Some(Reply {
                from: Some(packet.dst),
                proto: Proto(6),
                tcp_flags: Some(if ack { "rst" } else { "rst,ack" }.to_owned()),
                ports: Some((packet.dport, packet.sport)),
                ..Reply::to(packet.src)
            });
        }
        RejectWith::Icmp6(code) => (1, code),
        RejectWith::Icmp(code) | RejectWith::Icmpx(code) => (3, code),
    };
    icmp_error(packet, kind, code, local)
}

/// The ICMP error about a packet; `None` where the kernel stays silent.
pub(crate) fn icmp_error(packet: &Packet, kind: u8, code: u8, local: bool) -> Option<Reply> {
    let (v6, (proto, _)) = (packet.is_v6(), packet.protocol());
    let many = packet.dst.is_multicast() || matches!(packet.dst, IpAddr::V4(a) if a.is_broadcast());
    if packet.frag_offset.unwrap_or(0) > 0 {
        return None;
    }
    let error = match (proto, packet.icmp_type) {
        // Only these are no errors to the kernel (net/ipv4/icmp.c, icmp_pointers).
        (1, Some(own)) => !matches!(own, 0 | 8 | 13..=18),
        (58, Some(own)) => own < 128,
        _ => false,
    };
    if many || error {
        return None;
    }
    Some(Reply {
        from: local.then_some(packet.dst),
        proto: Proto(if v6 { 58 } else { 1 }),
        icmp: Some((kind, code)),
        ..Reply::to(packet.src)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(text: &str) -> Packet {
        text.parse().unwrap()
    }

    #[test]
    fn a_reset_answers_tcp_and_an_error_the_rest() {
        let syn = packet("in=eth0 tcp 10.0.0.1:4000 > 10.0.0.2:22 syn");
        let reset = reply(&syn, RejectWith::TcpReset, true).unwrap();
        assert_eq!((reset.from, reset.ports), (Some(syn.dst), Some((Some(22), Some(4000)))));
        assert_eq!(reset.tcp_flags.as_deref(), Some("rst,ack"));
        let ack = packet("in=eth0 tcp 10.0.0.1:4000 > 10.0.0.2:22 ack");
        assert_eq!(reply(&ack, RejectWith::TcpReset, true).unwrap().tcp_flags.as_deref(), Some("rst"));
        let rst = packet("in=eth0 tcp 10.0.0.1:4000 > 10.0.0.2:22 rst");
        assert_eq!(reply(&rst, RejectWith::TcpReset, true), None);
        assert_eq!(reply(&syn, RejectWith::Icmp(13), false).unwrap().icmp, Some((3, 13)));
        assert_eq!(reply(&syn, RejectWith::Icmp(13), false).unwrap().from, None);
        let six = Packet::udp("fd00::1".parse().unwrap(), 1, "fd00::2".parse().unwrap(), 2);
        assert_eq!(reply(&six, RejectWith::Icmpx(1), true).unwrap().icmp, Some((1, 4)));
    }

    #[test]
    fn errors_and_groups_get_no_error() {
        let with = RejectWith::Icmp(3);
        assert!(reply(&packet("in=eth0 icmp 10.0.0.1 > 10.0.0.2 type=8"), with, true).is_some());
        assert!(reply(&packet("in=eth0 icmp 10.0.0.1 > 10.0.0.2 type=3"), with, true).is_none());
        assert!(reply(&packet("in=eth0 udp 10.0.0.1:1 > 224.0.0.1:2"), with, true).is_none());
        assert!(reply(&packet("in=eth0 udp 10.0.0.1:1 > 10.0.0.2:2 frag_offset=3"), with, true).is_none());
    }
}
