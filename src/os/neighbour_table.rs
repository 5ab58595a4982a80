//! The kernel's neighbour table with its times, which [`crate::host::HostFacts`] leave out, and its limits.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Netlink, NetlinkError};
use crate::arp::report::Ages;
use crate::arp::table::Limits;

/// `NDA_CACHEINFO` counts in hundredths of a second (`USER_HZ`).
const HZ: f64 = 100.0;

/// How long ago each entry was confirmed, used, changed; by interface index and address.
///
/// # Errors
/// When the kernel will not list it.
pub fn ages() -> Result<HashMap<(u32, IpAddr), Ages>, NetlinkError> {
    let mut netlink = Netlink::open(libc::NETLINK_ROUTE as isize)?;
    let mut found = HashMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = NeighbourMessage::default();
        question.header.family = family;
        let entries = netlink.dump("list the neighbours", &RouteNetlinkMessage::GetNeighbour(question))?;
        for entry in entries {
            let RouteNetlinkMessage::NewNeighbour(message) = entry else { continue };
            let (mut address, mut ages) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
                    NeighbourAttribute::CacheInfo(info) => {
                        let seconds = |ticks: u32| f64::from(ticks) / HZ;
                        ages = Some(Ages {
                            confirmed_s: seconds(info.confirmed),
                            used_s: seconds(info.used),
                            updated_s: seconds(info.updated),
                        });
                    }
                    _ => {}
                }
            }
            if let (Some(address), Some(ages)) = (address, ages) {
                found.insert((message.header.ifindex, address), ages);
            }
        }
    }
    Ok(found)
}

/// The sizes at which the kernel begins to forget neighbours and refuses new ones (arp(7)); of IPv4, of IPv6.
/// `None` where this namespace does not show them.
pub fn limits() -> [Option<Limits>; 2] {
    ["ipv4", "ipv6"].map(|family| {
        let read = |name: &str| -> Option<usize> {
            let path = format!("/proc/sys/net/{family}/neigh/default/{name}");
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        Some(Limits { soft: read("gc_thresh2")?, hard: read("gc_thresh3")? })
    })
}
