//! From words to a request: the address of a host, the source, the means.

use std::net::IpAddr;

use super::{Failure, Global, TraceArgs};
use crate::os::probe::{self, ProbeError};
use crate::os::resolve;
use crate::probe::PathMethod;
use crate::trace::TraceRequest;

/// How probes can be sent here.
pub(super) struct Means {
    pub(super) raw: bool,
    pub(super) method: PathMethod,
    pub(super) sides: Vec<PathMethod>,
}

/// The address of a host, and the interface where the address needs one (`fe80::1%eth0`).
pub(super) fn target(host: &str, args: &TraceArgs) -> anyhow::Result<(IpAddr, Option<String>)> {
    let hint = Some("a host name or an address: reachwhy trace 192.168.1.3");
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Failure::usage(format!("`{}` is no host", host.escape_debug()), hint));
    }
    let (bare, via) = match host.split_once('%') {
        Some((bare, via)) => (bare, Some(via.to_owned())),
        None => (host, None),
    };
    let bare = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(bare);
    let fits = |address: &IpAddr| !(args.four && address.is_ipv6() || args.six && address.is_ipv4());
    if let Ok(address) = bare.parse::<IpAddr>() {
        let address = address.to_canonical();
        if !fits(&address) {
            let family = if args.four { "IPv4" } else { "IPv6" };
            return Err(Failure::usage(format!("{address} is no {family} address"), None));
        }
        let of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if of_link && via.is_none() {
            let hint = format!("name the interface: {address}%eth0");
            return Err(Failure::usage(
                format!("{address} is an address of one link, and there may be several"),
                Some(&hint),
            ));
        }
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::from([255; 4]) {
            return Err(Failure::usage(format!("{address} is no host's address: there is no path to it"), None));
        }
        return Ok((address, via));
    }
    if host.contains('/') || host.contains(':') {
        return Err(Failure::usage(format!("`{host}` is no host"), hint));
    }
    let resolved = resolve::resolve(bare);
    let found = resolved.addresses.iter().find(|address| fits(address)).copied();
    match found {
        Some(address) => Ok((address, via)),
        None if !resolved.addresses.is_empty() => {
            let family = if args.four { "IPv4" } else { "IPv6" };
            Err(Failure::unknown(format!("{host} has no {family} address"), Some("leave -4 and -6 away to take any")))
        }
        None => {
            let why = resolved.error.unwrap_or_else(|| "it has no address".to_owned());
            Err(Failure::unknown(
                format!("cannot find the address of {host}: {why}"),
                Some("check the spelling and /etc/resolv.conf, or give an address"),
            ))
        }
    }
}

pub(super) fn means(args: &TraceArgs, targets: &[(IpAddr, Option<String>)]) -> Means {
    let can = probe::path_abilities();
    let raw = can.raw && !args.unprivileged;
    let echo = targets.iter().all(|(dst, _)| if dst.is_ipv6() { can.echo6 } else { can.echo4 });
    let udp = PathMethod::Udp { dport: args.port.unwrap_or(33434) };
    let method = match args.tcp {
        Some(dport) => PathMethod::Tcp { dport },
        None if args.udp => udp,
        // Many routers spread ICMP by its addresses alone: all of it goes one way.
        None if args.paths.is_some() && !args.icmp => udp,
        None if raw || echo || args.icmp => PathMethod::Icmp,
        // Closed ping_group_range: datagrams need no privilege at all.
        None => udp,
    };
    let sides = if raw {
        vec![PathMethod::Icmp, PathMethod::Tcp { dport: 443 }, PathMethod::Tcp { dport: 80 }, udp]
    } else {
        Vec::new()
    };
    Means { raw, method, sides }
}

pub(super) fn request(
    args: &TraceArgs,
    global: &Global,
    host: &str,
    dst: IpAddr,
    via: Option<String>,
    method: PathMethod,
) -> anyhow::Result<TraceRequest> {
    let src = match args.source {
        Some(source) if source.is_ipv6() != dst.is_ipv6() => {
            return Err(Failure::usage(format!("{source} cannot send to {dst}: they are of different families"), None));
        }
        Some(source) => source,
        None => probe::source_address(dst, via.as_deref()).map_err(|errno| no_route(dst, &errno))?,
    };
    Ok(TraceRequest {
        via,
        first: args.first_ttl,
        max: args.max_ttl,
        queries: args.queries,
        wait: global.timeout,
        length: args.length.unwrap_or(if dst.is_ipv6() { 80 } else { 60 }),
        tos: args.tos,
        flow: args.flow,
        ..TraceRequest::new(host, dst, src, method)
    })
}

fn no_route(dst: IpAddr, errno: &str) -> anyhow::Error {
    let why = match errno {
        "ENETUNREACH" => "this host has no route to it",
        "EHOSTUNREACH" => "this host's routes say it is unreachable",
        "EACCES" => "this host's routes prohibit it",
        "EINVAL" => "this host's routes throw it away (blackhole)",
        "ENODEV" => "there is no such interface",
        "EADDRNOTAVAIL" | "EAFNOSUPPORT" => "this host does not speak its address family",
        _ => "this host cannot send to it",
    };
    let hint = format!("`reachwhy doctor {dst}` says which route is missing");
    Failure::unknown(format!("cannot trace to {dst}: {why} ({errno})"), Some(&hint))
}

pub(super) fn cannot(error: &ProbeError) -> anyhow::Error {
    match error {
        ProbeError::Privilege { hint, .. } => {
            Failure::unknown(error, Some(&format!("{hint}  (or trace with --udp, which needs no privilege)")))
        }
        ProbeError::System { .. } => Failure::unknown(error, None),
    }
}
