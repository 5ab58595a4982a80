//! How hosts stand to this one: this host itself, a neighbour (and then whether it is there), or behind routers.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::host::{NudState, RouteKind, RouteResult};
use crate::os::gather::{GatherOptions, Part, gather};
use crate::os::probe::{self, RunOptions};
use crate::os::route_get::route_get;
use crate::port::judge::Nearness;
use crate::probe::{Outcome, ProbeKind, ProbeSpec};

/// More hosts than these are not looked at one by one.
const MOST: usize = 8192;
/// Asks for a neighbour, and the time between two.
const ASKS: u8 = 5;
const BETWEEN: Duration = Duration::from_millis(130);

/// What is known of a host before its ports are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Where it is.
    pub nearness: Nearness,
    /// On the same link: whether it answers for its address; none where that was not asked.
    pub neighbour: Option<bool>,
}

/// Finds out. Neighbours are asked by ARP or NDP where this process may (`ask`).
pub fn standings(hosts: &[(IpAddr, Option<String>)], ask: bool, cancel: &AtomicBool) -> Vec<Standing> {
    if hosts.len() > MOST {
        return vec![Standing::default(); hosts.len()];
    }
    let mut found = Vec::with_capacity(hosts.len());
    let mut specs = Vec::new();
    for (at, (address, link)) in hosts.iter().enumerate() {
        let (nearness, interface) = nearness(*address, link.as_deref());
        if let (Nearness::OnLink, Some(interface)) = (nearness, interface) {
            let kind = match address {
                IpAddr::V4(target) => ProbeKind::Arp { interface, target: *target, source: None },
                IpAddr::V6(target) => ProbeKind::Ndp { interface, target: *target, source: None },
            };
            let spec = ProbeSpec::new(u32::try_from(at).unwrap_or(u32::MAX), kind);
            specs.push(spec.tries(ASKS, BETWEEN).timeout(BETWEEN * 2));
        }
        found.push(Standing { nearness, neighbour: None });
    }
    if !ask || specs.is_empty() {
        return found;
    }
    // An entry that was set by hand needs no answer.
    let facts = gather(&GatherOptions::only([Part::Neighbours]));
    let fixed: HashSet<IpAddr> = facts
        .neighbours
        .into_iter()
        .flatten()
        .filter(|one| matches!(one.state, NudState::Permanent | NudState::Noarp))
        .map(|one| one.address)
        .collect();
    specs.retain(|spec| !fixed.contains(&spec.kind.dst()));
    let rate = (specs.len() > 64).then_some(4000);
    let options = RunOptions { rate, cancel: Some(cancel), neighbour_grace: Duration::ZERO, ..RunOptions::default() };
    if let Ok(report) = probe::run(specs, &options, &mut |_| {}) {
        for one in report.probes {
            let Some(standing) = found.get_mut(one.id as usize) else { continue };
            standing.neighbour = match one.outcome {
                Outcome::Answered => Some(true),
                Outcome::Silent => Some(false),
                // A link without hardware addresses.
                _ => None,
            };
        }
    }
    found
}

fn nearness(address: IpAddr, link: Option<&str>) -> (Nearness, Option<String>) {
    match route_get(address, None, None, link, None, None).map(|answer| answer.result) {
        Ok(RouteResult::Found { kind: RouteKind::Local, .. }) => (Nearness::Local, None),
        Ok(RouteResult::Found { kind: RouteKind::Unicast, gateway: None, interface, .. }) => {
            (Nearness::OnLink, interface)
        }
        _ => (Nearness::Routed, None),
    }
}
