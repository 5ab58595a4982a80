//! Services: those that are not for everyone, published ports, and the two IP versions.

use crate::firewall::names::service_name;
use crate::firewall::ruleset::Hook;
use crate::firewall::walk::{Facts, Stack, walk};

use super::super::bdd::{ALL, NONE, Set};
use super::super::env::Addr;
use super::super::model::Fate;
use super::super::space::{Field, Way};
use super::slips::{accepted, filter_chain, without_way};
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
    let sets = [
        space.within(Field::In, &not_lo),
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

/// Ports that DNAT sends past INPUT to a container.
fn published(stack: &Stack, sight: &mut Sight<'_, '_>, found: &mut Vec<Finding>) {
    let docker = |name: &str| {
        name == "DOCKER"
            || name.starts_with("DOCKER-")
            || name == "NETAVARK-HOSTPORT-DNAT"
            || name == "CNI-HOSTPORT-DNAT"
    };
    if !stack.chains().any(|(_, _, _, chain)| docker(&chain.name)) {
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
    let mut left = sight.model.space.bdd.and(moved, blocked);
    left = sight.model.space.bdd.and(left, asked);
    for _ in 0..64 {
        let Some((packet, _)) = sight.model.space.packet(left, Way::Forward) else { return };
        let port = packet.dport.unwrap_or(0);
        let of = sight.model.space.equals(Field::Dport, port.into());
        left = sight.model.space.bdd.minus(left, of);
        let outcome = walk(stack, &packet, &Facts::none());
        let Some(step) = outcome.path.iter().find(|step| step.action == "dnat") else { continue };
        let by = step.at.clone();
        let out = &outcome.packet_out;
        let message = format!(
            "port {port} is published to {} and reachable, although INPUT would drop it: DNAT sends it through FORWARD. \
             Rules for it belong into DOCKER-USER",
            out.dport.map_or(out.dst.to_string(), |port| format!("{}:{port}", out.dst))
        );
        let mut finding = Finding::new("docker-bypass", Severity::Warning, message);
        finding.family = Some(by.family);
        finding.table = by.table;
        finding.chain = by.chain;
        finding.rule = by.rule;
        finding.line = by.line;
        finding.source = by.source;
        finding.example = Some(packet.to_string());
        finding.because =
            filter_chain(stack, Hook::Input, sight.v6).and_then(|(at, _)| stack.at(at)?.2.line).into_iter().collect();
        found.push(finding);
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
