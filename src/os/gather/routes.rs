//! Routes of all tables (RTM_GETROUTE dump).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RoutePreference, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::lenient::{Table, dump};
use super::links::{LinkNames, name_of};
use crate::host::{NextHop, Route, RouteKind};
use crate::os::netlink::{Netlink, NetlinkError};

/// All routes of one family, in the kernel's order.
pub(super) fn routes(
    netlink: &mut Netlink,
    family: AddressFamily,
    names: &LinkNames,
) -> Result<Table<Route>, NetlinkError> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    let table = dump(netlink, "list the routes", RouteNetlinkMessage::GetRoute(question))?;
    let mut routes = Vec::with_capacity(table.entries.len());
    let mut damaged = table.damaged;
    for entry in table.entries {
        let RouteNetlinkMessage::NewRoute(message) = entry else { continue };
        // A kernel without this family answers with all others; a cloned route is a cached answer
        // (a learnt path MTU, a redirect), not one that anybody made.
        if message.header.address_family != family || message.header.flags.contains(RouteFlags::Cloned) {
            continue;
        }
        match route(&message, names) {
            Some(route) => routes.push(route),
            None => damaged += 1,
        }
    }
    Ok(Table { entries: routes, damaged })
}

/// The fact that a route message tells; `None` where it makes no sense.
pub(crate) fn route(message: &RouteMessage, names: &LinkNames) -> Option<Route> {
    let header = &message.header;
    let zero = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut destination = zero;
    let mut from = None;
    let mut route = Route {
        table: header.table.into(),
        kind: kind(header.kind),
        destination: IpNetwork::new(zero, header.destination_prefix_length).ok()?,
        gateway: None,
        interface: None,
        source: None,
        metric: 0,
        protocol: protocol(header.protocol),
        scope: scope(header.scope),
        mtu: None,
        multipath: Vec::new(),
        dead: header.flags.contains(RouteFlags::Dead),
        onlink: header.flags.contains(RouteFlags::Onlink),
        linkdown: header.flags.contains(RouteFlags::Linkdown),
        from: None,
        tos: header.tos,
        preference: None,
        nexthop_id: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Source(address) => from = ip(address),
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Via(address) => route.gateway = via(address),
            RouteAttribute::Oif(index) => route.interface = Some(name_of(names, *index)),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Metrics(metrics) => route.mtu = mtu(metrics),
            RouteAttribute::MultiPath(hops) => {
                route.multipath = hops.iter().map(|hop| next_hop(hop, names)).collect();
            }
            RouteAttribute::NhId(id) => route.nexthop_id = Some(*id),
            RouteAttribute::Preference(preference) => {
                route.preference = match preference {
                    RoutePreference::Low => Some("low".to_owned()),
                    RoutePreference::Medium => Some("medium".to_owned()),
                    RoutePreference::High => Some("high".to_owned()),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    route.destination = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
    if header.source_prefix_length > 0 {
        route.from = Some(IpNetwork::new(from.unwrap_or(zero), header.source_prefix_length).ok()?);
    }
    // All hops dead: IPv4 says so on the route, IPv6 only on each hop.
    if !route.multipath.is_empty() {
        route.dead |= route.multipath.iter().all(|hop| hop.dead);
        route.linkdown |= route.multipath.iter().all(|hop| hop.linkdown);
    }
    Some(route)
}

fn next_hop(hop: &RouteNextHop, names: &LinkNames) -> NextHop {
    NextHop {
        gateway: hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            RouteAttribute::Via(address) => via(address),
            _ => None,
        }),
        interface: (hop.interface_index != 0).then(|| name_of(names, hop.interface_index)),
        weight: u32::from(hop.hops) + 1,
        dead: hop.flags.contains(RouteNextHopFlags::Dead),
        linkdown: hop.flags.contains(RouteNextHopFlags::Linkdown),
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
    }
}

/// The address behind a route attribute, where it is one of IP.
pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// A gateway of the other family (RFC 5549).
pub(crate) fn via(address: &RouteVia) -> Option<IpAddr> {
    match address {
        RouteVia::Inet(address) => Some((*address).into()),
        RouteVia::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// `RTAX_MTU`, where it is set.
pub(crate) fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
        _ => None,
    })
}

pub(crate) fn kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Anycast => RouteKind::Anycast,
        RouteType::Multicast => RouteKind::Multicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        RouteType::Nat => RouteKind::Nat,
        _ => RouteKind::Other,
    }
}

/// The names of `/usr/share/iproute2/rt_protos`.
fn protocol(protocol: RouteProtocol) -> String {
    let number = u8::from(protocol);
    let name = match number {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        18 => "keepalived",
        42 => "babel",
        99 => "openr",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// The names of `/usr/share/iproute2/rt_scopes`.
fn scope(scope: RouteScope) -> String {
    let number = u8::from(scope);
    match number {
        0 => "global".to_owned(),
        200 => "site".to_owned(),
        253 => "link".to_owned(),
        254 => "host".to_owned(),
        255 => "nowhere".to_owned(),
        _ => number.to_string(),
    }
}
