//! Services: those that are not for everyone, published ports, and the two IP versions.

use std::net::IpAddr;

use crate::firewall::names::service_name;
use crate::firewall::ruleset::{Hook, Target, Test};
use crate::firewall::walk::{Facts, Stack, walk};

use super::super::bdd::{ALL, NONE, Set};
use super::super::env::Addr;
use super::super::model::Fate;
use super::super::space::{Field, Way};
use super::slips::{accepted, all_of, filter_chain, without_way};
use super::{Finding, Severity, Sight};

/// Services that nobody means to offer to everyone.
const PRIVATE: [(u16, &str); 17] = [
    (23, "telnet"),
    (111, "rpcbind"),
    (135, "MS RPC"),
    (139, "NetBIOS"),
    (445, "SMB"),
    (1433, "MS SQL"),
    (1521, "Oracle"),
    (2049, "NFS"),
    (2375, "Docker"),
    (2379, "etcd"),
    (3306, "MySQL"),
    (3389, "RDP"),
    (5432, "PostgreSQL"),
    (5900, "VNC"),
    (6379, "Redis"),
    (9200, "Elasticsearch"),
    (27_017, "MongoDB"),
];

pub(super) fn look(stack: &Stack, sights: &mut [Sight<'_, '_>], found: &mut Vec<Finding>) {
    for sight in sights.iter_mut() {
        private(stack, sight, found);
        published(stack, sight, found);
    }
    disagree(stack, sights, found);
}

/// New TCP connections from any interface but lo.
fn new_tcp(sight: &mut Sight<'_, '_>, way: Way) -> Set {
    let space = &mut *sight.model.space;
    let not_lo = space.names.ranges(|name| name != "lo");
    // Loopback addresses do not come by other interfaces (`net/ipv4/route.c`, `ip_route_input_slow`).
    let own = if space.v6 { (1, 1) } else { (0x7f00_0000, 0x7fff_ffff) };
    let sets = [
        space.within(Field::In, &not_lo),
        !space.within(Field::Dst, &[own]),
        !space.within(Field::Src, &[own]),
        space.equals(Field::Proto, 6),
        space.equals(Field::Ct, 0),
        space.equals(Field::Flags, 0x02),
        space.universe(way, false),
    ];
    sets.into_iter().fold(ALL, |all, set| sight.model.space.bdd.and(all, set))
}

/// Whether a filter chain with a closed door is what keeps strangers out.
fn is_closed(stack: &Stack, sight: &mut Sight<'_, '_>) -> bool {
    let asked = new_tcp(sight, Way::Input);
    let passes = accepted(sight, Way::Input);
    filter_chain(stack, Hook::Input, sight.v6).is_some() && !sight.model.space.bdd.within(asked, passes)
}

fn private(stack: &Stack, sight: &mut Sight<'_, '_>, found: &mut Vec<Finding>) {
    if !is_closed(stack, sight) {
        return;
    }
    let asked = new_tcp(sight, Way::Input);
    let passes = accepted(sight, Way::Input);
    for (port, name) in PRIVATE {
        let of = sight.model.space.equals(Field::Dport, port.into());
        let asked = sight.model.space.bdd.and(asked, of);
        if asked.is_none() || !sight.model.space.bdd.within(asked, passes) {
            continue;
        }
        let Some((packet, _)) = sight.model.space.packet(asked, Way::Input) else { continue };
        let outcome = walk(stack, &packet, &Facts::none());
        let Some(by) = outcome.decided_by.filter(|by| by.rule.is_some()) else { continue };
        // What accepts everything is told as that.
        if found.iter().any(|own| own.code == "open-to-world" && own.line == by.line && own.table == by.table) {
            continue;
        }
        let message = format!("{name} (TCP {port}) is open to every address: such services are not meant for everyone");
        let mut finding = Finding::new("open-to-world", Severity::Warning, message);
        finding.family = Some(by.family);
        finding.table = by.table;
        finding.chain = by.chain;
        finding.rule = by.rule;
        finding.line = by.line;
        finding.source = by.source;
        finding.example = Some(packet.to_string());
        found.push(finding);
    }
}

/// Whether containers are published here: by the chains that their engines make, or by their bridges.
fn has_containers(stack: &Stack) -> bool {
    let chain = |name: &str| {
        let name = name.to_ascii_uppercase();
        ["DOCKER", "NETAVARK", "CNI-"].iter().any(|begin| name.starts_with(begin))
    };
    let bridge = |name: &str| {
        let made =
            name.strip_prefix("br-").is_some_and(|id| id.len() == 12 && id.chars().all(|c| c.is_ascii_hexdigit()));
        made || ["docker", "podman", "cni-podman"].iter().any(|begin| name.starts_with(begin))
    };
    stack.chains().any(|(_, _, table, own)| {
        chain(&own.name)
            || table.name.starts_with("docker")
            || own
                .rules
                .iter()
                .flat_map(|rule| &rule.matches)
                .any(|m| matches!(&m.test, Test::InInterface(iface) | Test::OutInterface(iface) if bridge(&iface.name)))
    })
}

/// Ports that DNAT sends past INPUT to a container.
fn published(stack: &Stack, sight: &mut Sight<'_, '_>, found: &mut Vec<Finding>) {
    if !has_containers(stack) {
        return;
    }
    let finals = sight.model.finals.clone();
    let asked = new_tcp(sight, Way::Forward);
    let mut moved = NONE;
    for (set, env) in finals {
        let env = &sight.model.envs[env];
        if env.came_in && (env.dst == Addr::New) {
            let own = sight.model.space.bdd.and(set, asked);
            moved = sight.model.space.bdd.or(moved, own);
        }
    }
    let moved = sight.model.as_they_came(moved);
    let moved = without_way(&mut sight.model, moved);
    // What INPUT would do with the same packets, were they for this host.
    let local = new_tcp(sight, Way::Input);
    let answer = sight.model.through(Hook::Input, local);
    let mut blocked = NONE;
    for (fate, set) in answer.fates {
        if matches!(fate, Fate::Drop | Fate::Reject(_)) {
            let set = without_way(&mut sight.model, set);
            blocked = sight.model.space.bdd.or(blocked, set);
        }
    }
    let left = all_of(sight, &[moved, blocked, asked]);
    if left.is_none() {
        return;
    }
    let input = filter_chain(stack, Hook::Input, sight.v6).and_then(|(at, _)| stack.at(at)?.2.line);
    for id in 0..sight.model.summaries.len() {
        let (at, entered) = (sight.model.summaries[id].at, sight.entered[id]);
        let Some((_, _, chain)) = stack.at(at) else { continue };
        for (index, rule) in chain.rules.iter().enumerate() {
            let Some(Target::Dnat(to)) = &rule.target else { continue };
            let hit = sight.model.summaries[id].seen[index].hit;
            let own = all_of(sight, &[entered, hit, left]);
            let Some((packet, _)) = sight.model.space.packet(own, Way::Forward) else { continue };
            let (start, width) = sight.model.space.bits(Field::Dport);
            let ports = sight.model.space.bdd.some(own, &|level| !(start..start + width).contains(&level));
            let ports = sight.model.space.ranges_of(Field::Dport, ports, 8);
            let ports: Vec<String> =
                ports.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
            let place = to.addrs.map_or("another port".to_owned(), |(addr, _)| match (addr, to.ports) {
                (addr, None) => addr.to_string(),
                (IpAddr::V6(addr), Some(ports)) => format!("[{addr}]:{}", ports.from),
                (addr, Some(ports)) => format!("{addr}:{}", ports.from),
            });
            let message = format!(
                "TCP {} is published to {place} and reachable from elsewhere, although INPUT would drop it: DNAT sends it \
                 through FORWARD, where DOCKER-USER (or a chain like it) is the place to block it",
                ports.join(", "),
            );
            let finding = Finding::new("docker-bypass", Severity::Warning, message).at(stack, at, Some(index));
            found.push(Finding { example: Some(packet.to_string()), ..finding.because([input]) });
        }
    }
}

/// TCP ports that strangers reach.
fn open_ports(sight: &mut Sight<'_, '_>) -> Vec<(u128, u128)> {
    let asked = new_tcp(sight, Way::Input);
    let passes = accepted(sight, Way::Input);
    let set = sight.model.space.bdd.and(passes, asked);
    let (start, width) = sight.model.space.bits(Field::Dport);
    let ports = sight.model.space.bdd.some(set, &|level| !(start..start + width).contains(&level));
    sight.model.space.ranges_of(Field::Dport, ports, 4096)
}

fn disagree(stack: &Stack, sights: &mut [Sight<'_, '_>], found: &mut Vec<Finding>) {
    let [first, second] = sights else { return };
    // One that filters nothing at all is told by its policy, or not meant to filter.
    let closed = (is_closed(stack, first), is_closed(stack, second));
    let of = |stack: &Stack, v6: bool| filter_chain(stack, Hook::Input, v6);
    let (Some(four), Some(six)) = (of(stack, false), of(stack, true)) else { return };
    if !closed.0 && !closed.1 {
        return;
    }
    let (open4, open6) = (open_ports(first), open_ports(second));
    let only = |mine: &[(u128, u128)], theirs: &[(u128, u128)]| -> Vec<(u128, u128)> {
        let mut left = Vec::new();
        for (from, to) in mine {
            let mut at = *from;
            for (start, end) in theirs.iter().filter(|(_, end)| end >= from) {
                if *start > *to {
                    break;
                }
                if *start > at {
                    left.push((at, start - 1));
                }
                at = at.max(end + 1);
            }
            if at <= *to {
                left.push((at, *to));
            }
        }
        left
    };
    for (ports, open, shut, at) in
        [(only(&open4, &open6), "IPv4", "IPv6", six.0), (only(&open6, &open4), "IPv6", "IPv4", four.0)]
    {
        if ports.is_empty() {
            continue;
        }
        let names: Vec<String> = ports
            .iter()
            .take(12)
            .map(|(from, to)| {
                let one = |n: u128| {
                    u16::try_from(n).ok().and_then(service_name).map_or(n.to_string(), |name| format!("{n} ({name})"))
                };
                if from == to { one(*from) } else { format!("{from}-{to}") }
            })
            .collect();
        let more = if ports.len() > 12 { " and more" } else { "" };
        let message = format!("TCP {}{more} can be reached over {open} and not over {shut}", names.join(", "));
        found.push(Finding::new("v4-v6-disagree", Severity::Warning, message).at(stack, at, None));
    }
}
