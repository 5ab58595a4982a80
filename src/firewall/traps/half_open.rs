//! A rule that lets connections in whose answers are dropped.

use std::net::IpAddr;

use crate::firewall::flow::{self, FlowPacket, Host, Way};
use crate::firewall::packet::To;
use crate::firewall::ruleset::{Family, Hook, Net, Rule, Side, Table, TcpFlags, Test};
use crate::firewall::walk::{Facts, Stack};
use crate::firewall::{Chain, Packet, Target};

/// A client for which the rule opens the door and no answer comes, and the packet that is stopped.
pub(super) struct HalfOpen {
    pub(super) example: Packet,
    pub(super) blocked: FlowPacket,
}

/// Runs one connection that this rule of an input chain accepts; `None` where its answers pass, or
/// where no packet could be made that comes by this rule.
pub(super) fn half_open(stack: &Stack, table: &Table, chain: &Chain, index: usize) -> Option<HalfOpen> {
    let rule = chain.rules.get(index)?;
    let base = chain.base.as_ref()?;
    if base.hook != Hook::Input || rule.target != Some(Target::Accept) {
        return None;
    }
    let example = syn(table.family, rule)?;
    let outcome = flow::run(&example, &[Host { name: "server", stack, facts: Facts::none() }]);
    let first = outcome.packets.first()?.decided_by.as_ref()?;
    let number = usize::try_from(first.rule?).ok()?;
    if (number, first.chain.as_str(), first.table.as_str()) != (index + 1, chain.name.as_str(), table.name.as_str()) {
        return None;
    }
    let blocked = outcome.first_blocked?;
    let answer = blocked.dir == Way::Reply && blocked.verdict.blocks() && blocked.decided_by.is_some();
    answer.then_some(HalfOpen { example, blocked })
}

/// A first segment that the rule's own words describe.
fn syn(family: Family, rule: &Rule) -> Option<Packet> {
    // Documentation addresses (RFC 5737, RFC 3849).
    let (mut src, mut dst): (IpAddr, IpAddr) = match family {
        Family::Ip => ("192.0.2.2".parse().ok()?, "192.0.2.1".parse().ok()?),
        Family::Ip6 => ("2001:db8::2".parse().ok()?, "2001:db8::1".parse().ok()?),
        _ => return None,
    };
    let (mut tcp, mut port, mut iface) = (false, None, "eth0".to_owned());
    for m in rule.matches.iter().filter(|m| !m.negated) {
        match &m.test {
            Test::Protocol(number) => tcp = *number == 6,
            Test::Port { side: Side::Destination, range, .. } => port = Some(range.from),
            Test::Multiport { side: Side::Destination, ranges } => port = ranges.first().map(|range| range.from),
            Test::Source(net) if !net.is_any() => src = within(net),
            Test::Destination(net) if !net.is_any() => dst = within(net),
            Test::InInterface(name) if name.name == "lo" => return None,
            Test::InInterface(name) if name.prefix => iface = format!("{}0", name.name),
            Test::InInterface(name) => iface.clone_from(&name.name),
            _ => (),
        }
    }
    if !tcp {
        return None;
    }
    let mut packet = Packet::tcp(src, 40_000, dst, port?, TcpFlags::SYN);
    packet.in_ = Some(iface);
    packet.to = Some(To::Local);
    Some(packet)
}

/// An address of a network that is no network's own: the second.
fn within(net: &Net) -> IpAddr {
    let next = match net.addr {
        IpAddr::V4(addr) => IpAddr::from(std::net::Ipv4Addr::from_bits(addr.to_bits().wrapping_add(2))),
        IpAddr::V6(addr) => IpAddr::from(std::net::Ipv6Addr::from_bits(addr.to_bits().wrapping_add(2))),
    };
    if net.contains(next) { next } else { net.addr }
}
