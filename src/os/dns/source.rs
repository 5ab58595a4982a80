//! From which address each destination would be reached: what sorting goes by (RFC 6724 5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::dns::SourceFact;
use crate::os::gather::{GatherOptions, Part, gather};

/// For each address the source the kernel would choose. A UDP socket is connected and nothing is sent.
pub fn sources(addresses: &[IpAddr]) -> Vec<SourceFact> {
    let known = gather(&GatherOptions::only([Part::Addresses])).addresses.unwrap_or_default();
    addresses
        .iter()
        .map(|address| {
            let Some(source) = source(*address) else { return SourceFact::default() };
            // Any of 127.0.0.0/8 may be the source on loopback, while the interface has but one.
            let listed = match source {
                IpAddr::V4(v4) if v4.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                other => other,
            };
            let own = known.iter().find(|one| one.address == listed);
            SourceFact {
                address: Some(source),
                prefix: own.map_or(0, |one| one.prefix_len),
                index: own.map(|one| one.index),
                deprecated: own.is_some_and(|one| one.deprecated),
                home: false,
                tunnel: own.is_some_and(|one| is_tunnel(&one.interface)),
            }
        })
        .collect()
}

fn source(address: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((address, 0)).or_else(|_| socket.connect((address, 9))).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// ARPHRD_TUNNEL, ARPHRD_TUNNEL6, ARPHRD_SIT (`__check_native`).
fn is_tunnel(interface: &str) -> bool {
    let kind = std::fs::read_to_string(format!("/sys/class/net/{interface}/type")).unwrap_or_default();
    matches!(kind.trim(), "768" | "769" | "776")
}
