//! Without CAP_NET_RAW: the kernel asks for us, and less can be seen.

use std::net::IpAddr;
use std::time::Duration;

use super::super::{Exit, Failure, Global};
use super::link::Spot;
use super::{OnLink, show, stop, vendors, views};
use crate::arp::report::{ArpReport, Entry};
use crate::arp::targets::Targets;
use crate::host::NudState;
use crate::os::neighbour_poke::poke;
use crate::os::{clock, privilege};
use crate::view::Style;

/// More would crowd the kernel's table (1024 entries for all interfaces by default).
const MOST: usize = 512;

/// Whether this process may not send frames itself.
pub(super) fn is_needed() -> bool {
    !privilege::privileges().net_raw
}

/// Asks by way of the kernel.
pub(super) fn ask(
    targets: &Targets,
    spot: &Spot,
    on: &OnLink,
    setcap: &str,
    global: &Global,
    style: Style,
) -> anyhow::Result<u8> {
    for (given, option) in [(on.pcap.is_some(), "--pcap"), (on.source.is_some(), "--source")] {
        if given {
            return Err(Failure::unknown(
                format!("{option} needs CAP_NET_RAW, which this process does not have"),
                Some(setcap),
            ));
        }
    }
    if targets.len() > MOST {
        return Err(Failure::unknown(
            format!(
                "asking for {} addresses needs CAP_NET_RAW: without it the kernel must ask, and its table has room for few",
                targets.len()
            ),
            Some(setcap),
        ));
    }
    let on_link = |ip: IpAddr| spot.addresses.iter().any(|address| address.on_link(ip));
    if !targets.ends().all(|(first, last)| on_link(first) && on_link(last)) {
        // The kernel would send the datagram to a gateway.
        return Err(Failure::unknown(
            format!(
                "{} is not in a network of {}: asking for it there needs CAP_NET_RAW",
                targets.describe(),
                spot.link.name
            ),
            Some(setcap),
        ));
    }
    let own: Vec<IpAddr> = spot.addresses.iter().map(|address| address.address).collect();
    let asked: Vec<IpAddr> = targets.iter().filter(|ip| !own.contains(ip)).collect();
    if asked.is_empty() {
        return Err(Failure::unknown(
            "whether another host has this host's own address can only be asked with CAP_NET_RAW",
            Some(setcap),
        ));
    }
    let patience = global.timeout.unwrap_or(Duration::from_millis(1500));
    let begun = clock::monotonic_ns();
    let stop = stop()?;
    let (found, stopped) =
        poke(&asked, &spot.link.name, spot.link.index, u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX), &stop)
            .map_err(|error| Failure::unknown(format!("the kernel could not be made to ask: {error}"), Some(setcap)))?;
    let vendors = vendors();
    let single = targets.len() == 1;
    let mut entries = Vec::new();
    for ip in &asked {
        let (mac, state) = found.get(ip).copied().unwrap_or((None, NudState::None));
        if mac.is_some() || single {
            let state = if mac.is_none() { "silent".to_owned() } else { format!("{state:?}").to_lowercase() };
            entries.push(Entry::of(*ip, mac, &state, &vendors));
        }
    }
    let silent = entries.iter().all(|entry| entry.mac.is_none());
    let report = ArpReport {
        interface: Some(spot.link.name.clone()),
        entries,
        partial: stopped,
        method: "kernel".to_owned(),
        seconds: Some(crate::arp::report::millis(clock::monotonic_ns().saturating_sub(begun)) / 1000.0),
        notes: vec![
            "Asked by way of the kernel, with an empty UDP datagram to each address: this process may not send frames itself (CAP_NET_RAW). Only one answer for each address can be seen so: conflicts, ARP flux, proxies and round trip times cannot.".to_owned(),
            format!("To see them: {setcap}"),
        ],
        ..ArpReport::default()
    };
    show(&report, global, |out| views::by_kernel(out, &report, style))?;
    Ok(if silent && single { Exit::Unknown.code() } else { 0 })
}
