//! Policy rules (RTM_GETRULE).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::Nla as _;
use netlink_packet_route::rule::{RuleAction as KernelAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::lenient::{Table, dump};
use crate::host::{PolicyRule, RuleAction};
use crate::os::netlink::{Netlink, NetlinkError};

/// `include/uapi/linux/fib_rules.h`, since 6.13 and later: the selectors that the packet crate has no name for.
const FRA_DSCP: u16 = 25;
const FRA_FLOWLABEL: u16 = 26;
const FRA_FLOWLABEL_MASK: u16 = 27;
const FRA_SPORT_MASK: u16 = 28;
const FRA_DPORT_MASK: u16 = 29;
const FRA_DSCP_MASK: u16 = 30;

/// The rules of one family, in the order the kernel tries them.
pub(super) fn rules(netlink: &mut Netlink, family: AddressFamily) -> Result<Table<PolicyRule>, NetlinkError> {
    let mut question = RuleMessage::default();
    question.header.family = family;
    let table = dump(netlink, "list the policy rules", RouteNetlinkMessage::GetRule(question))?;
    let mut rules = Vec::with_capacity(table.entries.len());
    let mut damaged = table.damaged;
    for entry in table.entries {
        let RouteNetlinkMessage::NewRule(message) = entry else { continue };
        if message.header.family != family {
            continue;
        }
        match rule(&message) {
            Some(rule) => rules.push(rule),
            None => damaged += 1,
        }
    }
    // The kernel keeps them by priority already, and equal ones in the order they were made.
    rules.sort_by_key(|rule| rule.priority);
    Ok(Table { entries: rules, damaged })
}

fn rule(message: &RuleMessage) -> Option<PolicyRule> {
    let header = &message.header;
    let v6 = header.family == AddressFamily::Inet6;
    let zero: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let (mut from, mut to, mut mark, mut mask) = (zero, zero, None, None);
    let (mut table, mut target) = (u32::from(header.table), 0);
    let mut newer = Vec::new();
    let mut rule = PolicyRule {
        not: header.flags.contains(RuleFlags::Invert),
        tos: header.tos,
        detached: header.flags.intersects(RuleFlags::IifDetached | RuleFlags::OifDetached),
        ..PolicyRule::for_all(0, v6, RuleAction::Nop)
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => from = *address,
            RuleAttribute::Destination(address) => to = *address,
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = Some(*value),
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::Oifname(name) => rule.oif = Some(name.clone()),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Goto(priority) => target = *priority,
            RuleAttribute::IpProtocol(protocol) => rule.ipproto = Some(u8::from(*protocol)),
            RuleAttribute::SourcePortRange(range) => rule.sport = Some((range.start, range.end)),
            RuleAttribute::DestinationPortRange(range) => rule.dport = Some((range.start, range.end)),
            RuleAttribute::UidRange(range) => rule.uid = Some((range.start, range.end)),
            RuleAttribute::SuppressPrefixLen(length) if *length != u32::MAX => {
                rule.suppress_prefix_len = Some(*length);
            }
            RuleAttribute::SuppressIfGroup(group) if *group != u32::MAX => {
                rule.other_selectors.push(format!("suppress_ifgroup {group}"));
            }
            RuleAttribute::TunId(id) if *id != 0 => rule.other_selectors.push(format!("tun_id {id}")),
            RuleAttribute::L3MDev(true) => rule.other_selectors.push("l3mdev".to_owned()),
            RuleAttribute::Other(nla) => {
                let mut value = vec![0; nla.value_len()];
                nla.emit_value(&mut value);
                newer.push((nla.kind(), value));
            }
            _ => {}
        }
    }
    for (kind, value) in newer {
        newer_selector(&mut rule, kind, &value);
    }
    if header.src_len > 0 {
        rule.from = Some(IpNetwork::new(from, header.src_len).ok()?);
    }
    if header.dst_len > 0 {
        rule.to = Some(IpNetwork::new(to, header.dst_len).ok()?);
    }
    // A mask alone selects too: `fwmark 0/0xff`.
    if mark.is_some() || mask.is_some_and(|mask| mask != 0) {
        rule.fwmark = Some((mark.unwrap_or(0), mask.unwrap_or(u32::MAX)));
    }
    rule.action = match header.action {
        KernelAction::ToTable => RuleAction::Table(table),
        KernelAction::Goto => RuleAction::Goto(target),
        KernelAction::Blackhole => RuleAction::Blackhole,
        KernelAction::Unreachable => RuleAction::Unreachable,
        KernelAction::Prohibit => RuleAction::Prohibit,
        KernelAction::Nop => RuleAction::Nop,
        other => {
            rule.other_selectors.push(format!("action {}", u8::from(other)));
            RuleAction::Nop
        }
    };
    Some(rule)
}

/// A selector that is not modelled goes to [`PolicyRule::other_selectors`]; a mask of all ones says nothing.
fn newer_selector(rule: &mut PolicyRule, kind: u16, value: &[u8]) {
    let selector = match (kind, value) {
        (FRA_DSCP, [dscp]) => format!("dscp {dscp}"),
        (FRA_FLOWLABEL, octets) => format!("flowlabel 0x{}", hex(octets)),
        (FRA_DSCP_MASK, [0x3f])
        | (FRA_FLOWLABEL_MASK, [0, 0x0f, 0xff, 0xff])
        | (FRA_SPORT_MASK | FRA_DPORT_MASK, [0xff, 0xff]) => return,
        // With a mask the port is a pattern, no range.
        (FRA_SPORT_MASK, octets) => format!("sport {}", pattern(rule.sport.take(), octets)),
        (FRA_DPORT_MASK, octets) => format!("dport {}", pattern(rule.dport.take(), octets)),
        (FRA_DSCP_MASK, octets) => format!("dscp mask 0x{}", hex(octets)),
        (FRA_FLOWLABEL_MASK, octets) => format!("flowlabel mask 0x{}", hex(octets)),
        (kind, _) => format!("attribute {kind}"),
    };
    rule.other_selectors.push(selector);
}

/// `0x1f90/0xfff0`; the mask comes in the machine's octet order.
fn pattern(port: Option<(u16, u16)>, mask: &[u8]) -> String {
    let mask = mask.first_chunk::<2>().map_or(0, |octets| u16::from_ne_bytes(*octets));
    format!("{:#x}/{mask:#x}", port.map_or(0, |(port, _)| port))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |text, octet| text + &format!("{octet:02x}"))
}
