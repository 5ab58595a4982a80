//! Making and changing links, addresses, routes, rules and neighbours by rtnetlink (rtnetlink(7)):
//! what the `ip` command does, without the command.

mod spec;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

pub use spec::{Hop, NeighbourSpec, RouteKind, RouteSpec, RuleSpec, SpecError};

use crate::os::netlink::{Netlink, NetlinkError};
use crate::os::netns::NetNs;
use crate::wire::MacAddr;

/// `NETLINK_ROUTE` (include/uapi/linux/netlink.h).
const NETLINK_ROUTE: isize = 0;
/// Loopback's index in every namespace.
const LOOPBACK: u32 = 1;

/// One end of a virtual cable, and the namespace it is put into.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// The link's name there, at most 15 octets.
    pub name: &'a str,
    /// Its link-layer address; none lets the kernel draw one.
    pub mac: Option<MacAddr>,
    /// Its index there. The two ends' must differ: the kernel tells a cable's end by that, and takes up
    /// to a second longer to start a link that it takes for another kind (linkwatch_urgent_event).
    pub index: u32,
    /// Where it lives.
    pub namespace: &'a NetNs,
}

/// What is seen of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSeen {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Set up by the administrator.
    pub up: bool,
    /// It has a carrier and the kernel has noticed (operational state UP, RFC 2863). The flag IFF_RUNNING
    /// says less: it is also set while the state is not yet known.
    pub running: bool,
    /// Its MTU in octets.
    pub mtu: Option<u32>,
    /// Its link-layer address.
    pub mac: Option<MacAddr>,
}

/// Orders to one network namespace: the one that the thread was in when it was opened, wherever the
/// thread goes afterwards.
pub struct Links {
    netlink: Netlink,
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn no_such_link(name: &str) -> NetlinkError {
    NetlinkError::Refused { what: format!("link {name}"), source: io::Error::from_raw_os_error(libc::ENODEV) }
}

impl Links {
    /// For the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { netlink: Netlink::open(NETLINK_ROUTE)? })
    }

    fn order(&mut self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.netlink.request(what, message, flags).map(drop)
    }

    /// All links.
    pub fn list(&mut self) -> Result<Vec<LinkSeen>, NetlinkError> {
        let answers = self.netlink.dump("list the links", &RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(seen(&link)),
                _ => None,
            })
            .collect())
    }

    /// The link of this name.
    ///
    /// # Errors
    /// ENODEV where there is none.
    pub fn find(&mut self, name: &str) -> Result<LinkSeen, NetlinkError> {
        self.list()?.into_iter().find(|link| link.name == name).ok_or_else(|| no_such_link(name))
    }

    fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        if name == "lo" { Ok(LOOPBACK) } else { self.find(name).map(|link| link.index) }
    }

    /// Whether a link carries packets by now.
    ///
    /// The kernel marks the state first and starts the queues after, under one lock; an order that takes
    /// that lock and changes nothing returns when both are done (net/core/link_watch.c).
    pub fn works(&mut self, name: &str) -> Result<bool, NetlinkError> {
        Ok(self.find(name)?.running && self.set(name, "wait for it", |_| ()).is_ok())
    }

    /// Makes a virtual cable with each end in its own namespace.
    pub fn add_veth(&mut self, a: VethEnd<'_>, b: VethEnd<'_>, mtu: Option<u32>) -> Result<(), NetlinkError> {
        let end = |end: VethEnd<'_>| {
            let mut message = LinkMessage::default();
            message.header.index = end.index;
            message.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
            message.attributes.push(LinkAttribute::NetNsFd(end.namespace.file().as_raw_fd()));
            message.attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
            message.attributes.extend(mtu.map(LinkAttribute::Mtu));
            message
        };
        let mut message = end(a);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(b)))),
        ]));
        let what = format!("make the cable {} – {}", a.name, b.name);
        self.order(&what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a bridge, without spanning tree, so that its ports forward at once.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        let what = format!("make the bridge {name}");
        self.order(&what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a link (and, for a cable, its other end).
    pub fn delete(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        self.order(&format!("remove the link {name}"), RouteNetlinkMessage::DelLink(message), 0)
    }

    fn set(&mut self, name: &str, what: &str, change: impl FnOnce(&mut LinkMessage)) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        change(&mut message);
        self.order(&format!("link {name}: {what}"), RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets flags (IFF_…) on or off.
    pub fn set_flags(&mut self, name: &str, flags: LinkFlags, on: bool) -> Result<(), NetlinkError> {
        self.set(name, "set its flags", |message| {
            message.header.flags = if on { flags } else { LinkFlags::empty() };
            message.header.change_mask = flags;
        })
    }

    /// Sets a link up or down.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), NetlinkError> {
        self.set_flags(name, LinkFlags::Up, up)
    }

    /// Turns address resolution on the link on or off (`ip link set … arp off`).
    pub fn set_arp(&mut self, name: &str, on: bool) -> Result<(), NetlinkError> {
        self.set_flags(name, LinkFlags::Noarp, !on)
    }

    /// Sets the MTU, in octets.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        self.set(name, "set its MTU", |message| message.attributes.push(LinkAttribute::Mtu(mtu)))
    }

    /// Sets the link-layer address.
    pub fn set_mac(&mut self, name: &str, mac: MacAddr) -> Result<(), NetlinkError> {
        self.set(name, "set its address", |message| message.attributes.push(LinkAttribute::Address(mac.0.to_vec())))
    }

    /// Lets no frame larger than the MTU leave the host: segmentation is done before the link, as on a
    /// card without offload.
    pub fn no_large_frames(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.set(name, "limit its segments", |message| message.attributes.push(LinkAttribute::GsoMaxSegs(1)))
    }

    /// Renames a link that is down.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<(), NetlinkError> {
        self.set(name, "rename it", |message| message.attributes.push(LinkAttribute::IfName(new.to_owned())))
    }

    /// Moves a link to another namespace.
    pub fn move_to(&mut self, name: &str, namespace: &NetNs) -> Result<(), NetlinkError> {
        let fd = namespace.file().as_raw_fd();
        self.set(name, "move it", |message| message.attributes.push(LinkAttribute::NetNsFd(fd)))
    }

    /// Plugs a link into a bridge of the same namespace.
    pub fn set_bridge(&mut self, name: &str, bridge: &str) -> Result<(), NetlinkError> {
        let bridge = self.index(bridge)?;
        self.set(name, "plug it in", |message| message.attributes.push(LinkAttribute::Controller(bridge)))
    }

    fn address(&mut self, name: &str, net: IpNetwork) -> Result<AddressMessage, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family(net.ip());
        message.header.prefix_len = net.prefix();
        message.header.index = self.index(name)?;
        message.header.scope = if net.ip().is_loopback() { AddressScope::Host } else { AddressScope::Universe };
        message.attributes.push(AddressAttribute::Local(net.ip()));
        message.attributes.push(AddressAttribute::Address(net.ip()));
        Ok(message)
    }

    /// Gives a link an address. IPv6 ones are usable at once: duplicates are not looked for (nodad).
    pub fn add_address(&mut self, name: &str, net: IpNetwork) -> Result<(), NetlinkError> {
        let mut message = self.address(name, net)?;
        if net.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        } else if let (IpNetwork::V4(v4), true) = (net, net.prefix() < 31 && name != "lo") {
            message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        let what = format!("address {net} on {name}");
        self.order(&what, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, name: &str, net: IpNetwork) -> Result<(), NetlinkError> {
        let message = self.address(name, net)?;
        self.order(&format!("remove {net} from {name}"), RouteNetlinkMessage::DelAddress(message), 0)
    }

    fn next_hop(&mut self, hop: &Hop) -> Result<RouteNextHop, NetlinkError> {
        let mut next = RouteNextHop::default();
        next.hops = hop.weight.unwrap_or(1).saturating_sub(1);
        if let Some(dev) = &hop.dev {
            next.interface_index = self.index(dev)?;
        }
        if hop.onlink {
            next.flags = RouteNextHopFlags::Onlink;
        }
        next.attributes.extend(hop.via.map(|via| RouteAttribute::Gateway(RouteAddress::from(via))));
        Ok(next)
    }

    fn route(&mut self, spec: &RouteSpec) -> Result<RouteMessage, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(spec.to.ip());
        message.header.destination_prefix_length = spec.to.prefix();
        message.header.table = match spec.table {
            None => RouteHeader::RT_TABLE_MAIN,
            Some(table) => u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        };
        message.attributes.extend(spec.table.map(RouteAttribute::Table));
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = match spec.kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Prohibit => RouteType::Prohibit,
            RouteKind::Throw => RouteType::Throw,
        };
        let on_link = spec.kind == RouteKind::Unicast && spec.hops.iter().all(|hop| hop.via.is_none());
        message.header.scope = if on_link && spec.to.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        if spec.to.prefix() > 0 {
            message.attributes.push(RouteAttribute::Destination(spec.to.network().into()));
        }
        message.attributes.extend(spec.src.map(|src| RouteAttribute::PrefSource(src.into())));
        message.attributes.extend(spec.metric.map(RouteAttribute::Priority));
        match spec.hops.as_slice() {
            [] => {}
            [hop] => {
                message.attributes.extend(hop.via.map(|via| RouteAttribute::Gateway(RouteAddress::from(via))));
                if let Some(dev) = &hop.dev {
                    message.attributes.push(RouteAttribute::Oif(self.index(dev)?));
                }
                if hop.onlink {
                    message.header.flags = RouteFlags::Onlink;
                }
            }
            hops => {
                let hops = hops.iter().map(|hop| self.next_hop(hop)).collect::<Result<_, _>>()?;
                message.attributes.push(RouteAttribute::MultiPath(hops));
            }
        }
        Ok(message)
    }

    /// Adds a route.
    pub fn add_route(&mut self, spec: &RouteSpec) -> Result<(), NetlinkError> {
        let message = self.route(spec)?;
        self.order(&format!("add the route {spec}"), RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a route, in the place of one with the same destination and metric.
    pub fn replace_route(&mut self, spec: &RouteSpec) -> Result<(), NetlinkError> {
        let message = self.route(spec)?;
        let what = format!("replace the route {spec}");
        self.order(&what, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes the first route that matches what is given.
    pub fn delete_route(&mut self, spec: &RouteSpec) -> Result<(), NetlinkError> {
        let mut message = self.route(spec)?;
        // Nothing said about these means any (RT_SCOPE_NOWHERE is the kernel's word for it, fib_semantics.c).
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        if spec.kind == RouteKind::Unicast {
            message.header.kind = RouteType::Unspec;
        }
        self.order(&format!("delete the route {spec}"), RouteNetlinkMessage::DelRoute(message), 0)
    }

    fn rule(spec: &RuleSpec) -> RuleMessage {
        let mut message = RuleMessage::default();
        let ends = spec.from.into_iter().chain(spec.to);
        message.header.family = ends.map(|net| family(net.ip())).next().unwrap_or(AddressFamily::Inet);
        if let Some(from) = spec.from {
            message.header.src_len = from.prefix();
            message.attributes.push(RuleAttribute::Source(from.ip()));
        }
        if let Some(to) = spec.to {
            message.header.dst_len = to.prefix();
            message.attributes.push(RuleAttribute::Destination(to.ip()));
        }
        message.attributes.extend(spec.mark.map(RuleAttribute::FwMark));
        message.attributes.extend(spec.priority.map(RuleAttribute::Priority));
        message.header.action = match spec.kind {
            RouteKind::Unicast | RouteKind::Throw => RuleAction::ToTable,
            RouteKind::Blackhole => RuleAction::Blackhole,
            RouteKind::Unreachable => RuleAction::Unreachable,
            RouteKind::Prohibit => RuleAction::Prohibit,
        };
        if message.header.action == RuleAction::ToTable {
            let table = spec.table.unwrap_or(u32::from(RouteHeader::RT_TABLE_MAIN));
            message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
            message.attributes.push(RuleAttribute::Table(table));
        }
        message
    }

    /// Adds a policy rule.
    pub fn add_rule(&mut self, spec: &RuleSpec) -> Result<(), NetlinkError> {
        self.order("add a rule", RouteNetlinkMessage::NewRule(Self::rule(spec)), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes the policy rule that matches.
    pub fn delete_rule(&mut self, spec: &RuleSpec) -> Result<(), NetlinkError> {
        let mut message = Self::rule(spec);
        if spec.kind == RouteKind::Unicast && spec.table.is_none() {
            message.header.action = RuleAction::Unspec;
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Table(_)));
        }
        self.order("delete a rule", RouteNetlinkMessage::DelRule(message), 0)
    }

    fn neighbour(&mut self, spec: &NeighbourSpec) -> Result<NeighbourMessage, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(spec.ip);
        message.header.ifindex = self.index(&spec.dev)?;
        message.header.state = if spec.permanent { NeighbourState::Permanent } else { NeighbourState::Reachable };
        message.attributes.push(NeighbourAttribute::Destination(match spec.ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }));
        message.attributes.extend(spec.mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
        Ok(message)
    }

    /// Writes a neighbour's entry, over one that is there.
    pub fn replace_neighbour(&mut self, spec: &NeighbourSpec) -> Result<(), NetlinkError> {
        let message = self.neighbour(spec)?;
        let what = format!("neighbour {} on {}", spec.ip, spec.dev);
        self.order(&what, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes what was learned about the neighbours on a link; entries that were set stay.
    pub fn forget_neighbours(&mut self, name: &str) -> Result<(), NetlinkError> {
        let index = self.index(name)?;
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        for answer in self.netlink.dump("list the neighbours", &all)? {
            let RouteNetlinkMessage::NewNeighbour(entry) = answer else { continue };
            let set = matches!(entry.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
            if entry.header.ifindex != index || set {
                continue;
            }
            let mut order = NeighbourMessage::default();
            order.header.family = entry.header.family;
            order.header.ifindex = index;
            order.attributes =
                entry.attributes.into_iter().filter(|a| matches!(a, NeighbourAttribute::Destination(_))).collect();
            match self.order("forget a neighbour", RouteNetlinkMessage::DelNeighbour(order), 0) {
                // It may age away between the list and the order.
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Deletes a neighbour's entry.
    pub fn delete_neighbour(&mut self, spec: &NeighbourSpec) -> Result<(), NetlinkError> {
        let message = self.neighbour(spec)?;
        let what = format!("delete neighbour {} on {}", spec.ip, spec.dev);
        self.order(&what, RouteNetlinkMessage::DelNeighbour(message), 0)
    }
}

fn seen(link: &LinkMessage) -> LinkSeen {
    let mut seen = LinkSeen {
        index: link.header.index,
        name: String::new(),
        up: link.header.flags.contains(LinkFlags::Up),
        running: false,
        mtu: None,
        mac: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => seen.name.clone_from(name),
            LinkAttribute::OperState(state) => seen.running = *state == State::Up,
            LinkAttribute::Mtu(mtu) => seen.mtu = Some(*mtu),
            LinkAttribute::Address(bytes) => seen.mac = MacAddr::from_slice(bytes),
            _ => {}
        }
    }
    seen
}

/// Writes a sysctl (`net.ipv4.ip_forward`) of the calling thread's namespace.
///
/// # Errors
/// `InvalidInput` for a key that leaves `/proc/sys`; else what the kernel says.
pub fn write_sysctl(key: &str, value: &str) -> io::Result<()> {
    fs::write(sysctl_path(key)?, value)
}

/// Reads a sysctl of the calling thread's namespace, without its line end.
pub fn read_sysctl(key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(sysctl_path(key)?)?.trim_end().to_owned())
}

/// Both spellings of sysctl(8): dots, or slashes (where a link's name has a dot in it).
fn sysctl_path(key: &str) -> io::Result<String> {
    let slashed = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    let plain = slashed.split('/').all(|part| !part.is_empty() && part != "..");
    if !plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{key}` is no sysctl")));
    }
    Ok(format!("/proc/sys/{slashed}"))
}
