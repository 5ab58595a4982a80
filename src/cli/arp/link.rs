//! Which interface to speak on, and as whom.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::Failure;
use crate::arp::frame::Speaker;
use crate::arp::judge::Scene;
use crate::arp::targets::{Targets, no_station};
use crate::host::{Address, HostFacts, Link, NudState, RouteKind, RouteResult};
use crate::os::gather::{GatherOptions, Part, gather};
use crate::os::neighbour::{Medium, medium};
use crate::os::route_get::route_get;
use crate::wire::MacAddr;

/// What this host has.
pub(super) struct Here {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) facts: HostFacts,
}

/// An interface to speak on.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) link: Link,
    pub(super) mac: MacAddr,
    pub(super) addresses: Vec<Address>,
}

/// Where an address is asked for.
pub(super) enum Way {
    /// On this link.
    Here(Spot),
    /// Behind a router on this link.
    Behind(Spot, IpAddr),
}

impl Here {
    pub(super) fn look() -> anyhow::Result<Self> {
        let facts = gather(&GatherOptions::only([Part::Links, Part::Addresses, Part::Neighbours]));
        let unread = || Failure::unknown("this host's interfaces could not be listed", None);
        let links = facts.links.clone().ok_or_else(unread)?;
        let addresses = facts.addresses.clone().unwrap_or_default();
        Ok(Self { links, addresses, facts })
    }

    /// The interface of this name, if neighbours can be asked for on it.
    pub(super) fn spot(&self, name: &str) -> anyhow::Result<Spot> {
        let Some(link) = self.links.iter().find(|link| link.name == name) else {
            return Err(self.no_interface(name));
        };
        match unusable(link) {
            Some(why) => Err(Failure::unknown(format!("{name}: {why}"), None)),
            None => Ok(self.spot_of(link)),
        }
    }

    pub(super) fn no_interface(&self, name: &str) -> anyhow::Error {
        let names: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
        Failure::usage(format!("there is no interface `{name}`"), Some(&format!("this host has {}", names.join(", "))))
    }

    fn spot_of(&self, link: &Link) -> Spot {
        let addresses = self.addresses.iter().filter(|address| address.index == link.index).cloned().collect();
        Spot { link: link.clone(), mac: link.mac.unwrap_or(MacAddr::ZERO), addresses }
    }

    fn usable(&self) -> impl Iterator<Item = Spot> + '_ {
        self.links.iter().filter(|link| unusable(link).is_none()).map(|link| self.spot_of(link))
    }

    /// Whether there is more than one interface to ask on.
    pub(super) fn several(&self) -> bool {
        self.usable().nth(1).is_some()
    }

    /// The first usable interface of which this is true.
    pub(super) fn find(&self, fits: impl Fn(&Spot) -> bool) -> Option<Spot> {
        self.usable().find(|spot| fits(spot))
    }

    /// The interface to scan from when none is named: where the default route leads, else the first with an
    /// address of the family.
    pub(super) fn default_spot(&self, v6: bool) -> anyhow::Result<Spot> {
        let outside: IpAddr = if v6 { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() } else { [192, 0, 2, 1].into() };
        let by_route = match route_get(outside, None, None, None, None, None).map(|answer| answer.result) {
            Ok(RouteResult::Found { interface: Some(name), .. }) => self.spot(&name).ok(),
            _ => None,
        };
        let fits = |spot: &Spot| spot.addresses.iter().any(|address| address.address.is_ipv6() == v6);
        by_route.filter(fits).or_else(|| self.usable().find(fits)).ok_or_else(|| {
            let family = if v6 { "IPv6" } else { "IPv4" };
            Failure::unknown(
                format!("no interface of this host is up, has an {family} address and neighbours to ask for"),
                Some("reachwhy arp scan -i INTERFACE CIDR"),
            )
        })
    }

    /// The interface that has all these targets on its link.
    pub(super) fn spot_for(&self, targets: &Targets) -> anyhow::Result<Spot> {
        let on = |spot: &Spot| {
            targets.ends().all(|(first, last)| {
                spot.addresses.iter().any(|address| address.on_link(first) && address.on_link(last))
            })
        };
        self.usable().find(on).ok_or_else(|| {
            Failure::usage(
                format!("{} is on no link of this host: only neighbours can be asked for", targets.describe()),
                Some("what is behind a router answers no ARP; to ask nevertheless, name the interface: -i INTERFACE"),
            )
        })
    }

    /// The way to one address, as the kernel would take it.
    pub(super) fn way(&self, ip: IpAddr) -> anyhow::Result<Way> {
        if let Some(own) = self.addresses.iter().find(|address| address.address == ip) {
            return self.spot(&own.interface).map(Way::Here).map_err(|_| {
                Failure::unknown(
                    format!("{ip} is this host's own address, on {}, which has no neighbours", own.interface),
                    Some("to see who else answers for it, name a link: -i INTERFACE"),
                )
            });
        }
        let answer = route_get(ip, None, None, None, None, None)
            .map_err(|error| Failure::unknown(format!("the way to {ip} could not be asked for: {error}"), None))?;
        match answer.result {
            RouteResult::Found { kind: RouteKind::Unicast, gateway, interface: Some(name), .. } => {
                let spot = self.spot(&name)?;
                Ok(match gateway {
                    None => Way::Here(spot),
                    Some(gateway) => Way::Behind(spot, gateway),
                })
            }
            RouteResult::Found { kind: RouteKind::Broadcast, .. } => {
                Err(Failure::usage(format!("{ip} is a broadcast address: no station has it"), None))
            }
            RouteResult::Found { kind, .. } => Err(Failure::unknown(
                format!("{ip} has no neighbour: its route is of the kind {kind:?}").to_lowercase(),
                None,
            )),
            RouteResult::Refused { errno } => Err(Failure::unknown(
                format!("this host has no route to {ip} ({errno}), so it would ask nobody for it"),
                Some("to ask nevertheless, name the interface: -i INTERFACE"),
            )),
        }
    }

    /// What is known beside the answers of a link.
    pub(super) fn scene(&self, spot: &Spot, asked: usize) -> Scene {
        let neighbours = self.facts.neighbours.iter().flatten();
        let routes = gather(&GatherOptions::only([Part::Links, Part::Routes])).routes.unwrap_or_default();
        let gateways = routes
            .iter()
            .filter(|route| route.interface.as_deref() == Some(spot.link.name.as_str()))
            .filter_map(|route| route.gateway);
        let gateways: std::collections::BTreeSet<IpAddr> = gateways.collect();
        Scene {
            own: spot.addresses.iter().map(|address| address.address).collect(),
            own_macs: self.links.iter().filter_map(|link| Some((link.mac?, link.name.clone()))).collect(),
            gateways: gateways.into_iter().collect(),
            known: neighbours
                .filter(|entry| entry.interface == spot.link.name && !entry.proxy && entry.state != NudState::Noarp)
                .filter_map(|entry| Some((entry.address, entry.mac?, entry.state)))
                .collect(),
            asked,
        }
    }
}

fn unusable(link: &Link) -> Option<String> {
    if link.loopback {
        return Some("the loopback interface has no neighbours".to_owned());
    }
    if link.mac.is_none() || link.noarp {
        let kind = link.kind.as_deref().unwrap_or("no Ethernet");
        return Some(format!("this link ({kind}) has no hardware addresses to ask for"));
    }
    if !link.up {
        return Some(format!("the interface is down (ip link set {} up)", link.name));
    }
    (link.carrier == Some(false))
        .then(|| "the interface has no carrier: no cable, or nothing at its other end".to_owned())
}

impl Spot {
    /// Its networks of a family.
    pub(super) fn networks(&self, v6: bool) -> Vec<IpNetwork> {
        let of_family = self.addresses.iter().filter(|address| address.address.is_ipv6() == v6);
        of_family
            .filter_map(|address| IpNetwork::new(address.peer.unwrap_or(address.address), address.prefix_len).ok())
            .collect()
    }

    /// Who asks for `target` here: the source the user chose, else the address whose network it is in, else any.
    pub(super) fn speaker(&self, target: IpAddr, source: Option<IpAddr>) -> anyhow::Result<Speaker> {
        if let Some(source) = source {
            if source.is_ipv4() != target.is_ipv4() {
                return Err(Failure::usage(
                    format!("{source} cannot ask for {target}: they are of two families"),
                    None,
                ));
            }
            if !source.is_unspecified()
                && let Some(what) = no_station(source)
            {
                return Err(Failure::usage(format!("{source} cannot ask: it is {what}"), None));
            }
            return Ok(Speaker { mac: self.mac, ip: Some(source).filter(|ip| !ip.is_unspecified()) });
        }
        let local = matches!(target, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let fit = |address: &&Address| {
            address.address.is_ipv4() == target.is_ipv4() && !address.tentative && !address.dad_failed
        };
        let link_local = |address: &Address| matches!(address.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let mut all: Vec<&Address> = self.addresses.iter().filter(fit).collect();
        all.sort_by_key(|address| (!address.on_link(target), link_local(address) != local, address.deprecated));
        Ok(Speaker { mac: self.mac, ip: all.first().map(|address| address.address) })
    }

    /// Requests a second that the link and its switch take without trouble.
    pub(super) fn rate(&self) -> (f64, bool) {
        match (medium(&self.link.name), self.link.kind.as_deref()) {
            (Medium::Radio, _) => (500.0, true),
            // No cable at all.
            (_, Some("veth" | "bridge" | "macvlan" | "ipvlan" | "dummy")) => (100_000.0, false),
            (Medium::Cable(Some(megabits)), _) => (f64::from(megabits.clamp(20, 2000)) * 50.0, false),
            (Medium::Cable(None), _) => (10_000.0, false),
        }
    }
}
