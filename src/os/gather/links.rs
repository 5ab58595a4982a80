//! Links and addresses (RTM_GETLINK, RTM_GETADDR).

use std::collections::HashMap;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope as KernelScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, State, XdpAttached};

use super::lenient::{Table, dump};
use crate::host::{Address, AddressScope, Link, LinkStats, OperState};
use crate::os::netlink::{Netlink, NetlinkError};
use crate::wire::MacAddr;

/// Names of links by kernel index.
pub(crate) type LinkNames = HashMap<u32, String>;

/// The name of link `index`; `if7` where it is not known (it went away since).
pub(crate) fn name_of(names: &LinkNames, index: u32) -> String {
    names.get(&index).cloned().unwrap_or_else(|| format!("if{index}"))
}

/// All links of the namespace, by index.
pub(super) fn links(netlink: &mut Netlink) -> Result<Table<Link>, NetlinkError> {
    let table = dump(netlink, "list the links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let mut links: Vec<Link> = Vec::with_capacity(table.entries.len());
    let mut damaged = table.damaged;
    for entry in table.entries {
        let RouteNetlinkMessage::NewLink(message) = entry else { continue };
        match link(&message) {
            Some(link) => links.push(link),
            None => damaged += 1,
        }
    }
    links.sort_by_key(|link| link.index);
    Ok(Table { entries: links, damaged })
}

/// All addresses of both families, in the kernel's order (it prefers earlier ones as sources).
pub(super) fn addresses(netlink: &mut Netlink, names: &LinkNames) -> Result<Table<Address>, NetlinkError> {
    let table = dump(netlink, "list the addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let mut addresses = Vec::with_capacity(table.entries.len());
    let mut damaged = table.damaged;
    for entry in table.entries {
        let RouteNetlinkMessage::NewAddress(message) = entry else { continue };
        match address(&message, names) {
            Some(address) => addresses.push(address),
            None => damaged += 1,
        }
    }
    Ok(Table { entries: addresses, damaged })
}

fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: None,
        oper: OperState::Unknown,
        loopback: flags.contains(LinkFlags::Loopback),
        noarp: flags.contains(LinkFlags::Noarp),
        point_to_point: flags.contains(LinkFlags::Pointopoint),
        master: None,
        parent: None,
        stats: None,
        xdp: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(octets) => link.mac = MacAddr::from_slice(octets),
            LinkAttribute::Carrier(carrier) => link.carrier = Some(*carrier != 0),
            LinkAttribute::OperState(state) => link.oper = oper(*state),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) if *index != 0 => link.parent = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Stats64(stats) => {
                link.stats = Some(LinkStats {
                    rx_packets: stats.rx_packets,
                    tx_packets: stats.tx_packets,
                    rx_errors: stats.rx_errors,
                    tx_errors: stats.tx_errors,
                    rx_dropped: stats.rx_dropped,
                    tx_dropped: stats.tx_dropped,
                });
            }
            LinkAttribute::Xdp(parts) => {
                link.xdp =
                    parts.iter().any(|part| matches!(part, LinkXdp::Attached(mode) if *mode != XdpAttached::None));
            }
            _ => {}
        }
    }
    if link.loopback {
        // All zeros: a loopback has no station address.
        link.mac = None;
    }
    (!link.name.is_empty()).then_some(link)
}

fn oper(state: State) -> OperState {
    match state {
        State::NotPresent => OperState::NotPresent,
        State::Down => OperState::Down,
        State::LowerLayerDown => OperState::LowerLayerDown,
        State::Testing => OperState::Testing,
        State::Dormant => OperState::Dormant,
        State::Up => OperState::Up,
        _ => OperState::Unknown,
    }
}

fn address(message: &AddressMessage, names: &LinkNames) -> Option<Address> {
    let (mut local, mut prefix, mut broadcast) = (None, None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => prefix = Some(*address),
            AddressAttribute::Broadcast(address) => broadcast = Some((*address).into()),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // IFA_ADDRESS is the prefix's address: the peer's on a point-to-point link, else the own one.
    // IPv6 gives IFA_LOCAL with a peer only (`net/ipv6/addrconf.c` inet6_fill_ifaddr).
    let address = local.or(prefix)?;
    Some(Address {
        index: message.header.index,
        interface: name_of(names, message.header.index),
        address,
        prefix_len: message.header.prefix_len,
        peer: prefix.filter(|prefix| *prefix != address),
        broadcast,
        scope: match message.header.scope {
            KernelScope::Site => AddressScope::Site,
            KernelScope::Link => AddressScope::Link,
            KernelScope::Host => AddressScope::Host,
            KernelScope::Nowhere => AddressScope::Nowhere,
            _ => AddressScope::Global,
        },
        tentative: flags.contains(AddressFlags::Tentative),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
        deprecated: flags.contains(AddressFlags::Deprecated),
        secondary: flags.contains(AddressFlags::Secondary),
    })
}
