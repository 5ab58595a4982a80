//! The packet that REJECT sends back, and its way out (`net/ipv4/netfilter/nf_reject_ipv4.c`,
//! `net/ipv6/netfilter/nf_reject_ipv6.c`).

use std::net::IpAddr;

use crate::firewall::packet::{Packet, Reply, reply};
use crate::firewall::ruleset::{CtStates, Hook, PktType, RejectWith, TcpFlags};
use crate::host::fib::{Flow, explain_flow, source_for};

use super::flow::{Run, is_local};
use super::stack::Stack;
use super::{Facts, Verdict};

impl Run<'_> {
    /// What the sender of the packet as it is now is sent.
    pub(super) fn answer(&mut self, with: RejectWith) -> Option<Reply> {
        let cast = self.live.packet.pkttype;
        if cast.is_some_and(|kind| kind != PktType::Unicast) && self.live.came_in {
            return None;
        }
        // Without its whole header a packet has no valid checksum.
        let header = match self.live.proto {
            6 => 20,
            17 | 136 | 1 | 58 => 8,
            _ => 0,
        };
        if !self.live.has_octets(header) {
            return None;
        }
        let mut packet = self.live.packet.clone();
        if packet.tcp_flags.is_none() && self.live.proto == 6 {
            packet.tcp_flags = Some(self.live.tcp_flags());
        }
        if let Some(host) = self.facts.host
            && matches!(packet.dst, IpAddr::V4(_))
            && host.addresses.iter().flatten().any(|address| address.broadcast == Some(packet.dst))
        {
            return None;
        }
        let local = self.live.hook == Hook::Input
            || self.live.hook == Hook::Output
            || self.facts.host.is_some_and(|host| is_local(host, packet.dst));
        let local = local && (self.live.hook != Hook::Output || self.is_own(packet.dst));
        let mut answer = reply(&packet, with, local)?;
        if answer.from.is_none() {
            answer.from = self.facts.host.and_then(|host| {
                let explained = explain_flow(host, &Flow::to(packet.src));
                source_for(host, &explained)
            });
        }
        if let (Some(6), Some(octets)) = (Some(answer.proto.0), self.live.wire_now()) {
            let at = usize::try_from(self.live.network_header()).ok()?;
            let number = |from: usize| {
                let four = octets.get(at + from..at + from + 4)?;
                Some(four.iter().fold(0u32, |n, octet| n << 8 | u32::from(*octet)))
            };
            let flags = self.live.tcp_flags();
            if flags.0 & TcpFlags::ACK.0 != 0 {
                (answer.seq, answer.ack) = (number(8), Some(0));
            } else {
                let header = self.live.tcp_header()?;
                let data = octets.len().saturating_sub(at + header);
                let one = u32::from(flags.0 & TcpFlags::SYN.0 != 0) + u32::from(flags.0 & TcpFlags::FIN.0 != 0);
                let data = u32::try_from(data).unwrap_or(0);
                (answer.seq, answer.ack) = (Some(0), number(4).map(|n| n.wrapping_add(one).wrapping_add(data)));
            }
        }
        // It belongs to the packet's flow, where that has one (nf_ct_attach).
        answer.related = self.live.has_flow_now();
        let answered = self.live.length();
        answer.length = match answer.icmp {
            None if self.live.v6 => 60,
            None => 40,
            Some(_) if self.live.v6 => 48 + answered.min(1280 - 48),
            Some(_) => 28 + answered.min(576 - 28),
        };
        Some(answer)
    }

    fn is_own(&self, addr: IpAddr) -> bool {
        addr.is_loopback()
            || self.facts.host.is_some_and(|host| host.addresses.iter().flatten().any(|own| own.address == addr))
    }
}

/// Walks the answer through the hooks of what this host sends.
pub(super) fn leaves(stack: &Stack, facts: Facts<'_>, reply: &mut Reply) {
    let Some(from) = reply.from else { return };
    let mut packet = Packet::new(from, reply.to).at(Hook::Output);
    packet.proto = Some(reply.proto);
    packet.length = Some(reply.length);
    packet.ctstate = Some(if reply.related { CtStates::RELATED } else { CtStates::INVALID });
    if let Some((kind, code)) = reply.icmp {
        (packet.icmp_type, packet.icmp_code) = (Some(kind), Some(code));
    } else {
        (packet.sport, packet.dport) = reply.ports.unwrap_or_default();
        let ack = reply.tcp_flags.as_deref() == Some("rst,ack");
        packet.tcp_flags = Some(TcpFlags(TcpFlags::RST.0 | if ack { TcpFlags::ACK.0 } else { 0 }));
        packet.tcp_options = Some(Vec::new());
    }
    packet.mark = Some(0);
    let outcome = super::flow::run(stack, &packet, facts, false, None);
    reply.blocked_by = if outcome.verdict.blocks() || outcome.verdict == Verdict::Unknown {
        outcome.decided_by.clone().map(Box::new)
    } else {
        None
    };
    reply.verdict = Some(outcome.verdict);
}
