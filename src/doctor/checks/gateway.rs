//! Which gateway a route that is missing or wrong would take: only what was seen to be one.

use std::net::IpAddr;

use super::super::evidence::Side;
use crate::host::RouteKind;
use crate::wire::MacAddr;

/// A gateway, as a command wants it, and how it was found.
pub(super) struct Gateway {
    /// `192.168.1.1`, or `GATEWAY` where none was seen.
    pub(super) address: String,
    /// The interface it is on, or `DEVICE`.
    pub(super) device: String,
    /// ` (packets of the request came from its hardware address)`; empty where none was seen.
    pub(super) because: String,
}

/// The gateway of `side` for the family of `to`, but not `not`, which was found wanting. `came` is the
/// hardware address that a packet from there was sent by, and `device` the interface it came in by.
pub(super) fn of(
    side: &Side<'_>,
    to: IpAddr,
    not: Option<IpAddr>,
    came: Option<MacAddr>,
    device: Option<&str>,
) -> Gateway {
    let facts = &side.end.facts;
    let fits = |address: &IpAddr| address.is_ipv6() == to.is_ipv6() && Some(*address) != not && *address != to;
    let after = side.end.watch.after.as_ref().and_then(|after| after.neighbours.as_deref());
    let neighbours = || after.into_iter().chain(facts.neighbours.as_deref()).flatten();
    let found = |address: IpAddr, interface: Option<&str>, because: &str| Gateway {
        address: address.to_string(),
        device: interface.or(device).unwrap_or("DEVICE").to_owned(),
        because: format!(" ({because})"),
    };
    // Whoever brought the packet here knows the way to its sender.
    if let Some(mac) = came
        && let Some(entry) = neighbours().find(|entry| entry.mac == Some(mac) && fits(&entry.address))
    {
        return found(entry.address, Some(&entry.interface), "the request came from its hardware address");
    }
    let routes = facts.routes.iter().flatten();
    let other = routes
        .filter(|route| route.kind == RouteKind::Unicast && !route.dead)
        .find_map(|route| route.gateway.filter(fits).map(|gateway| (gateway, route)));
    if let Some((gateway, route)) = other {
        return found(gateway, route.interface.as_deref(), "other routes of this host lead through it");
    }
    if let Some(router) = neighbours().find(|entry| entry.router && fits(&entry.address)) {
        return found(router.address, Some(&router.interface), "it announces itself as a router");
    }
    Gateway { address: "GATEWAY".to_owned(), device: device.unwrap_or("DEVICE").to_owned(), because: String::new() }
}
