//! The packet that REJECT sends back, and its way out (`net/ipv4/netfilter/nf_reject_ipv4.c`,
//! `net/ipv6/netfilter/nf_reject_ipv6.c`).

use std::net::IpAddr;

use crate::firewall::packet::{About, Packet, Reply, icmp_error, reply, sum_is_right};
use crate::firewall::ruleset::{CtStates, Hook, PktType, RejectWith, TcpFlags};
use crate::firewall::state::Dir;
use crate::host::fib::{Flow, explain_flow, source_for};

use super::flow::{Mode, Run, is_local, run};
use super::stack::Stack;
use super::{Facts, Verdict};
use crate::firewall::packet::NatEnds;

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
            17 => 8,
            1 | 58 if self.live.wire.is_none() => 8,
            // Whether it is an error itself cannot be seen (net/ipv4/icmp.c, net/ipv6/icmp.c, is_ineligible).
            1 | 58 => 1,
            // Over IPv6 something must follow the headers (nf_reject_v6_csum_ok).
            _ if self.live.v6 && self.live.wire.is_some() => 1,
            _ => 0,
        };
        // ipv6_skip_exthdr ends at "no next header".
        if self.live.v6 && self.live.proto == 59 {
            return None;
        }
        if !self.live.has_octets(header) || self.live.wire_now().is_some_and(|octets| !sum_is_right(&octets)) {
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
        self.sent_from(&mut answer);
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
                let header = usize::from(octets.get(at + 12)? >> 4) * 4;
                let data = octets.len().saturating_sub(at + header);
                let one = u32::from(flags.0 & TcpFlags::SYN.0 != 0) + u32::from(flags.0 & TcpFlags::FIN.0 != 0);
                let data = u32::try_from(data).unwrap_or(0);
                (answer.seq, answer.ack) = (Some(0), number(4).map(|n| n.wrapping_add(one).wrapping_add(data)));
            }
        }
        self.measure(&mut answer);
        answer.before_nat = self.before_nat(&packet);
        Some(answer)
    }

    /// The ends of the packet before it was translated: an answer of its flow gets them back
    /// (`nf_nat_icmp_reply_translation`, `nf_nat_packet`).
    fn before_nat(&self, packet: &Packet) -> Option<NatEnds> {
        let (src, dst, sport, dport) = self.live.original;
        let moved = (src, sport) != (packet.src, packet.sport);
        let changed = (dst, dport) != (packet.dst, packet.dport);
        let ends = NatEnds { to: moved.then_some((src, sport)), from: changed.then_some((dst, dport)) };
        (self.live.has_flow_now() && (moved || changed)).then_some(ends)
    }

    /// What the sender of a packet that cannot be forwarded is told: time exceeded.
    pub(super) fn expired(&mut self) -> Option<Reply> {
        if self.live.packet.pkttype.is_some_and(|kind| kind != PktType::Unicast) {
            return None;
        }
        if self.live.wire.is_some() && matches!(self.live.proto, 1 | 58) && !self.live.has_octets(1) {
            return None;
        }
        let kind = if self.live.v6 { 3 } else { 11 };
        let mut answer = icmp_error(&self.live.packet, kind, 0, false)?;
        self.sent_from(&mut answer);
        self.measure(&mut answer);
        answer.before_nat = self.before_nat(&self.live.packet);
        Some(answer)
    }

    /// The source of an answer that is not the packet's destination: an address of the way back; over
    /// IPv6 one of the interface that the packet came in by (`net/ipv6/icmp.c`, `icmpv6_rt_has_prefsrc`).
    fn sent_from(&self, answer: &mut Reply) {
        let Some(host) = self.facts.host.filter(|_| answer.from.is_none()) else { return };
        let explained = explain_flow(host, &Flow::to(answer.to));
        let preferred = explained.route.as_ref().and_then(|route| route.source);
        answer.from = match (answer.to, &self.live.packet.in_) {
            (IpAddr::V6(to), Some(in_)) if preferred.is_none() => {
                let own = host.addresses.iter().flatten().filter(|own| own.interface == *in_);
                let own = own.filter_map(|own| match own.address {
                    IpAddr::V6(addr) if addr.segments()[0] & 0xffc0 != 0xfe80 => Some(addr),
                    _ => None,
                });
                own.max_by_key(|own| (own.to_bits() ^ to.to_bits()).leading_zeros()).map(IpAddr::V6)
            }
            _ => source_for(host, &explained),
        };
    }

    fn measure(&mut self, answer: &mut Reply) {
        // It belongs to the packet's flow, where that has one (nf_ct_attach).
        answer.related = self.live.has_flow_now();
        answer.about = answer.related.then(|| self.about());
        // net/ipv4/icmp.c, __icmp_send: internetwork control, with the packet's own bits of service.
        if answer.icmp.is_some() && !self.live.v6 {
            answer.tos = self.live.tos & 0x1e | 0xc0;
        }
        let assumed = self.live.assumed.len();
        let answered = self.live.length();
        // Its size is no part of the verdict.
        self.live.assumed.truncate(assumed);
        answer.length = match answer.icmp {
            None if self.live.v6 => 60,
            None => 40,
            Some(_) if self.live.v6 => 48 + answered.min(1280 - 48),
            Some(_) => 28 + answered.min(576 - 28),
        };
    }

    fn about(&self) -> About {
        let live = &self.live;
        let states = live.state.0 & (CtStates::SNAT.0 | CtStates::DNAT.0);
        if let Some(current) = self.session.as_ref().and_then(|session| session.current.as_ref()) {
            let ends = |dir| {
                let tuple = current.flow.tuple(dir);
                (tuple.src, tuple.dst, Some(tuple.sport), Some(tuple.dport))
            };
            return About {
                tuples: Some([ends(Dir::Original), ends(Dir::Reply)]),
                proto: current.flow.tuples[0].proto,
                reply: Some(current.dir == Dir::Original),
                states,
                mark: live.connmark,
            };
        }
        let fresh = live.state.intersects(CtStates::NEW);
        let packet = &live.packet;
        let back = (packet.dst, packet.src, packet.dport, packet.sport);
        let tuples = fresh.then_some([live.original, back]);
        About { tuples, proto: live.proto, reply: fresh.then_some(true), states, mark: live.connmark }
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
    (packet.tos, packet.ttl) = (Some(reply.tos), Some(64));
    packet.ctstate = Some(match reply.about {
        Some(about) => CtStates(CtStates::RELATED.0 | about.states),
        None => CtStates::INVALID,
    });
    packet.connmark = reply.about.map(|about| about.mark);
    if let Some((kind, code)) = reply.icmp {
        (packet.icmp_type, packet.icmp_code) = (Some(kind), Some(code));
    } else {
        (packet.sport, packet.dport) = reply.ports.unwrap_or_default();
        let ack = reply.tcp_flags.as_deref() == Some("rst,ack");
        packet.tcp_flags = Some(TcpFlags(TcpFlags::RST.0 | if ack { TcpFlags::ACK.0 } else { 0 }));
        packet.tcp_options = Some(Vec::new());
    }
    packet.mark = Some(0);
    let mode = Mode { index: None, near: false, one_hook: false, about: reply.about.take() };
    let outcome = run(stack, &packet, facts, None, mode).outcome();
    reply.blocked_by = if outcome.verdict.blocks() || outcome.verdict == Verdict::Unknown {
        outcome.decided_by.map(Box::new)
    } else {
        None
    };
    reply.verdict = Some(outcome.verdict);
    let Some(ends) = reply.before_nat.take() else { return };
    let ports = reply.ports.as_mut();
    if let Some((addr, port)) = ends.from {
        reply.from = Some(addr);
        if let Some(ports) = ports {
            ports.0 = port;
        }
    }
    if let Some((addr, port)) = ends.to {
        reply.to = addr;
        if let Some(ports) = &mut reply.ports {
            ports.1 = port;
        }
    }
}
