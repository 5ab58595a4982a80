//! Without the right to send frames: an empty UDP datagram makes the kernel ask for a neighbour, and its table
//! says what came of it. One answer for each address is all that can be seen so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::clock;
use super::gather::{GatherOptions, Part, gather};
use super::neighbour::Stop;
use crate::host::NudState;
use crate::wire::MacAddr;

/// Discard (RFC 863): an empty datagram to it asks nothing of anyone.
const PORT: u16 = 9;
/// Datagrams at once; the kernel keeps a few waiting for each neighbour, and a table entry.
const BURST: usize = 64;
const MS: u64 = 1_000_000;

/// What the kernel's table says of an address.
pub type Believed = (Option<MacAddr>, NudState);

/// Makes the kernel ask for these addresses on an interface, and waits at most `patience` (nanoseconds) after the
/// last for answers. Gives the entries, and whether someone asked to stop.
///
/// # Errors
/// When no datagram can be sent at all: no socket, no such interface.
pub fn poke(
    targets: &[IpAddr],
    interface: &str,
    index: u32,
    patience: u64,
    stop: &Stop,
) -> io::Result<(BTreeMap<IpAddr, Believed>, bool)> {
    let v6 = targets.first().is_some_and(IpAddr::is_ipv6);
    let socket = Socket::new(if v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Since Linux 5.7 without privilege. Where it is refused the route decides, as for any packet: on the same link.
    let _ = setsockopt(&socket, sockopt::BindToDevice, &OsString::from(interface));
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    let mut stopped = false;
    for burst in targets.chunks(BURST) {
        for target in burst {
            let to: SocketAddr = match *target {
                IpAddr::V4(ip) => SocketAddr::new(ip.into(), PORT),
                IpAddr::V6(ip) => SocketAddrV6::new(ip, PORT, 0, index).into(),
            };
            // An errno here is about an earlier datagram, or this one's neighbour: the table will say.
            if socket.send_to(&[], &to.into()).is_err() {
                let _ = socket.take_error();
                let _ = socket.send_to(&[], &to.into());
            }
        }
        stopped = stop.wait(None, clock::monotonic_ns() + if targets.len() > BURST { 50 * MS } else { 0 })?;
        if stopped {
            break;
        }
    }
    let end = clock::monotonic_ns() + patience;
    loop {
        let table = entries(targets, interface);
        let open = targets.iter().any(|ip| !matches!(table.get(ip), Some((Some(_), _) | (None, NudState::Failed))));
        if stopped || !open || clock::monotonic_ns() >= end {
            return Ok((table, stopped));
        }
        stopped = stop.wait(None, clock::monotonic_ns() + if targets.len() > 1 { 50 * MS } else { MS })?;
    }
}

fn entries(targets: &[IpAddr], interface: &str) -> BTreeMap<IpAddr, Believed> {
    let wanted: std::collections::BTreeSet<&IpAddr> = targets.iter().collect();
    let facts = gather(&GatherOptions::only([Part::Links, Part::Neighbours]));
    facts
        .neighbours
        .into_iter()
        .flatten()
        .filter(|entry| entry.interface == interface && !entry.proxy && wanted.contains(&entry.address))
        .map(|entry| (entry.address, (entry.mac, entry.state)))
        .collect()
}
