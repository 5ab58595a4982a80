//! Asking the kernel which way it would take (RTM_GETROUTE, `ip route get`).

use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::host::{RouteAnswer, RouteResult};
use crate::os::gather::routes::{ip, kind, mtu, via};
use crate::os::netlink::{Netlink, NetlinkError};

/// Asks the kernel, in the calling thread's network namespace, how it would send a packet to `dst`.
///
/// - `src`: as if sent from this address. A connect(2) without an address looks twice, once without
///   and once with the source it found, and policy rules may send the second look elsewhere: ask both.
/// - `iif`: as if received there, to be forwarded or taken (needs `src`); then the answer includes
///   source validation (refused with `EXDEV`, by new kernels with `EINVAL`, where the reverse path is wrong).
/// - `ports`: IP protocol, source and destination port, for policy rules and multipath hashes.
///
/// # Errors
/// When the kernel could not be asked. That it knows no way is an answer:
/// [`RouteResult::Refused`] with `ENETUNREACH`, `EHOSTUNREACH`, `EACCES`, `EINVAL`, …; `ENODEV` where
/// there is no interface of that name.
pub fn route_get(
    dst: IpAddr,
    src: Option<IpAddr>,
    iif: Option<&str>,
    oif: Option<&str>,
    mark: Option<u32>,
    ports: Option<(u8, u16, u16)>,
) -> Result<RouteAnswer, NetlinkError> {
    let answer = |result| RouteAnswer { destination: dst, asked_from: src, result };
    let refused = |errno: Errno| answer(RouteResult::Refused { errno: format!("{errno:?}") });

    let length = if dst.is_ipv4() { 32 } else { 128 };
    let mut question = RouteMessage::default();
    question.header.address_family = if dst.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    question.header.destination_prefix_length = length;
    question.header.flags = RouteFlags::LookupTable;
    let attributes = &mut question.attributes;
    attributes.push(RouteAttribute::Destination(dst.into()));
    if let Some(src) = src {
        if src.is_ipv4() != dst.is_ipv4() {
            return Ok(refused(Errno::EAFNOSUPPORT));
        }
        question.header.source_prefix_length = length;
        attributes.push(RouteAttribute::Source(src.into()));
    }
    for (name, attribute) in [(iif, RouteAttribute::Iif as fn(u32) -> _), (oif, RouteAttribute::Oif)] {
        if let Some(name) = name {
            match if_nametoindex(name) {
                Ok(index) => attributes.push(attribute(index)),
                Err(errno) => return Ok(refused(errno)),
            }
        }
    }
    if let Some(mark) = mark {
        attributes.push(RouteAttribute::Mark(mark));
    }
    if let Some((protocol, sport, dport)) = ports {
        attributes.push(RouteAttribute::IpProto(protocol));
        // A protocol without ports is refused when given some (`net/ipv4/ip_input.c` rtm_getroute_parse_ip_proto).
        for (port, attribute) in [(sport, RouteAttribute::Sport as fn(u16) -> _), (dport, RouteAttribute::Dport)] {
            if port != 0 {
                attributes.push(attribute(port));
            }
        }
    }

    let mut netlink = Netlink::open(libc::NETLINK_ROUTE as isize)?;
    let replies = match netlink.request(&format!("find the way to {dst}"), RouteNetlinkMessage::GetRoute(question), 0) {
        Ok(replies) => replies,
        Err(NetlinkError::Refused { source, .. }) => {
            return Ok(refused(source.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)));
        }
        Err(error) => return Err(error),
    };
    let found = replies.into_iter().find_map(|reply| match reply {
        RouteNetlinkMessage::NewRoute(message) => Some(found(&message)),
        _ => None,
    });
    found.map(answer).ok_or_else(|| NetlinkError::Malformed {
        what: format!("find the way to {dst}"),
        why: "it holds no route".to_owned(),
    })
}

fn found(message: &RouteMessage) -> RouteResult {
    let (mut gateway, mut interface, mut source, mut pinned) = (None, None, None, None);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(address) => gateway = via(address),
            RouteAttribute::Oif(index) => {
                interface = if_indextoname(*index).ok().map(|name| name.to_string_lossy().into_owned());
            }
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Metrics(metrics) => pinned = mtu(metrics),
            _ => {}
        }
    }
    RouteResult::Found {
        kind: kind(message.header.kind),
        gateway,
        interface,
        source,
        table: (table != 0).then_some(table),
        mtu: pinned,
    }
}
