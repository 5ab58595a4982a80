//! Several servers asked at once, each in a thread, so that a dead one delays nobody.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::stop::Stop;
use super::wire::{SocketWire, net_error};
use crate::dns::report::{Connect, ms};
use crate::dns::{DomainName, RType, Server, View, view};

/// What each server says by itself; in the order of `servers`.
pub fn views(
    servers: &[Server],
    name: &DomainName,
    types: &[RType],
    patience: Duration,
    tries: u32,
    stop: &Stop,
) -> Vec<View> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = servers
            .iter()
            .map(|server| {
                scope.spawn(move || view(&mut SocketWire::new(stop.clone()), server, name, types, patience, tries))
            })
            .collect();
        asked.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

/// Connects to each address in turn, as an application does that takes the first that works; goes on to
/// the end, to see which do.
pub fn connects(addresses: &[IpAddr], port: u16, patience: Duration) -> Vec<Connect> {
    addresses.iter().map(|address| connect(*address, port, patience)).collect()
}

/// The same, to all at once.
pub fn connects_at_once(addresses: &[IpAddr], port: u16, patience: Duration) -> Vec<Connect> {
    std::thread::scope(|scope| {
        let tried: Vec<_> =
            addresses.iter().map(|address| scope.spawn(move || connect(*address, port, patience))).collect();
        tried.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn connect(address: IpAddr, port: u16, patience: Duration) -> Connect {
    let to = SocketAddr::from((address, port));
    let begun = Instant::now();
    let done = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))
        .and_then(|socket| socket.connect_timeout(&to.into(), patience));
    let error = done.err().map(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => net_error(&error).says,
    });
    Connect { address, port, error, ms: ms(begun.elapsed()) }
}
