//! The neighbour table, ARP and NDP (RTM_GETNEIGH).

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::lenient::{Table, dump};
use super::links::{LinkNames, name_of};
use crate::host::{Neighbour, NudState};
use crate::os::netlink::{Netlink, NetlinkError};
use crate::wire::MacAddr;

/// The neighbours of one family, or (`proxies`) the addresses this host answers for.
pub(super) fn neighbours(
    netlink: &mut Netlink,
    family: AddressFamily,
    proxies: bool,
    names: &LinkNames,
) -> Result<Table<Neighbour>, NetlinkError> {
    let mut question = NeighbourMessage::default();
    question.header.family = family;
    if proxies {
        // `net/core/neighbour.c` neigh_dump_info: exactly this flag dumps the proxy table instead.
        question.header.flags = NeighbourFlags::Proxy;
    }
    let table = dump(netlink, "list the neighbours", RouteNetlinkMessage::GetNeighbour(question))?;
    let mut neighbours = Vec::with_capacity(table.entries.len());
    let mut damaged = table.damaged;
    for entry in table.entries {
        let RouteNetlinkMessage::NewNeighbour(message) = entry else { continue };
        if message.header.family != family {
            continue;
        }
        match neighbour(&message, names) {
            Some(neighbour) => neighbours.push(neighbour),
            None => damaged += 1,
        }
    }
    Ok(Table { entries: neighbours, damaged })
}

fn neighbour(message: &NeighbourMessage, names: &LinkNames) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some((*v4).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some((*v6).into()),
            NeighbourAttribute::LinkLayerAddress(octets) => mac = MacAddr::from_slice(octets),
            _ => {}
        }
    }
    Some(Neighbour {
        interface: name_of(names, message.header.ifindex),
        address: address?,
        mac,
        state: match message.header.state {
            NeighbourState::Incomplete => NudState::Incomplete,
            NeighbourState::Reachable => NudState::Reachable,
            NeighbourState::Stale => NudState::Stale,
            NeighbourState::Delay => NudState::Delay,
            NeighbourState::Probe => NudState::Probe,
            NeighbourState::Failed => NudState::Failed,
            NeighbourState::Noarp => NudState::Noarp,
            NeighbourState::Permanent => NudState::Permanent,
            _ => NudState::None,
        },
        router: message.header.flags.contains(NeighbourFlags::Router),
        proxy: message.header.flags.contains(NeighbourFlags::Proxy),
    })
}
