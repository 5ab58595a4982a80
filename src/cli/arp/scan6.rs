//! `reachwhy arp scan -6`: an IPv6 link, whose addresses cannot be asked for one by one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::Ipv6Network;

use super::super::{Failure, Global};
use super::link::{Here, Spot};
use super::scan::{Found, ScanArgs, closer, plan, sweep};
use super::{chance, echo_id, failed, show, stop, vendors, views, write_capture};
use crate::arp::discover::Discover;
use crate::arp::filter::Ear;
use crate::arp::frame::Speaker;
use crate::arp::judge::{Evidence, judge};
use crate::arp::report::{self, ArpReport, Coverage, Entry};
use crate::arp::targets::Targets;
use crate::os::neighbour::{Ended, Wire};
use crate::os::probe::setcap_hint;
use crate::view::{Progress, Style};

/// Scans a link by multicast and guesses; only addresses in `within` count, where it is given.
pub(super) fn run(
    args: &ScanArgs,
    here: &Here,
    spot: &Spot,
    within: Option<Ipv6Network>,
    global: &Global,
    style: Style,
) -> anyhow::Result<u8> {
    if super::kernel::is_needed() {
        return Err(Failure::unknown(
            "finding the stations of an IPv6 link needs CAP_NET_RAW, which this process does not have",
            Some(&setcap_hint()),
        ));
    }
    let own: Vec<IpAddr> = spot.addresses.iter().map(|address| address.address).filter(IpAddr::is_ipv6).collect();
    let speakers: Vec<Speaker> = own.iter().map(|ip| Speaker { mac: spot.mac, ip: Some(*ip) }).collect();
    if speakers.is_empty() {
        return Err(Failure::unknown(format!("{} has no IPv6 address to ask from", spot.link.name), None));
    }
    let scene = here.scene(spot, 0);
    let record = args.on.pcap.is_some();
    let stop = stop()?;
    let begun = crate::os::clock::monotonic_ns();
    let mut progress = Progress::new(std::io::stderr(), super::watched(global));
    progress.say("asking all nodes (ff02::1)");
    let mut wire = Wire::open(&spot.link.name, spot.link.index, Ear::Everything, record).map_err(failed)?;
    let mut discover = Discover::new(speakers, echo_id());
    let ended = wire.run(&mut discover, &stop, &mut |_| true).map_err(failed)?;
    let mut frames = wire.take_record();

    let known: Vec<_> = scene.known.iter().map(|(ip, mac, _)| (*ip, *mac)).collect();
    let networks: Vec<Ipv6Network> = spot
        .networks(true)
        .into_iter()
        .filter_map(|network| if let ipnetwork::IpNetwork::V6(v6) = network { Some(v6) } else { None })
        .collect();
    let wanted = |ip: &IpAddr| match (ip, within) {
        (IpAddr::V6(ip), Some(within)) => within.contains(*ip),
        (IpAddr::V6(_), None) => true,
        _ => false,
    };
    let mut candidates: BTreeSet<IpAddr> = discover.candidates(&known, &networks);
    candidates.retain(|ip| wanted(ip) && !own.contains(ip));
    let names: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    let mut found = Found::default();
    if !names.is_empty() && ended == Ended::Finished {
        let targets = Targets::parse(names.iter().map(String::as_str)).map_err(|error| Failure::usage(error, None))?;
        let first = targets.get(0).unwrap_or(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
        let speaker = spot.speaker(first, args.on.source)?;
        let mut plan = plan(args, global, spot);
        plan.seed = chance();
        found = sweep(args, spot, speaker, &targets, &own, plan, &stop, &mut progress, begun)?;
        frames.append(&mut found.frames);
        closer(args, spot, speaker, &scene, &stop, &mut progress, &mut found)?;
        frames.append(&mut found.frames);
    }
    progress.clear();
    let saved = write_capture(args.on.pcap.as_deref(), frames);
    let vendors = vendors();
    let mut entries = report::entries(&found.answers, &vendors);
    for (ip, mac) in discover.heard().iter().filter(|(ip, _)| wanted(ip) && !own.contains(ip)) {
        if !found.answers.contains_key(ip) {
            entries.push(Entry::of(*ip, Some(*mac), "heard", &vendors));
        }
    }
    entries.sort_by_key(|entry| entry.ip);
    for entry in entries.iter_mut().filter(|entry| scene.gateways.contains(&entry.ip)) {
        entry.role.push("gateway".to_owned());
    }
    let findings = judge(&Evidence {
        answers: &found.answers,
        trials: &found.trials,
        adverts: &found.adverts,
        listened: found.listened,
        scene: &scene,
    });
    let report = ArpReport {
        interface: Some(spot.link.name.clone()),
        entries,
        findings,
        partial: found.stopped || ended == Ended::Stopped,
        method: "wire".to_owned(),
        seconds: Some(report::millis(crate::os::clock::monotonic_ns().saturating_sub(begun)) / 1000.0),
        coverage: found.outcome.as_ref().map(|outcome| Coverage::of("addresses heard, known or guessed (IPv6)".to_owned(), outcome)),
        trials: found.trials,
        notes: vec![
            "An IPv6 network has too many addresses to ask for each. All nodes were asked at once (ff02::1), and what was heard, known or to be guessed from hardware addresses was asked for. A host that ignores the group and chose a random address stays unseen.".to_owned(),
        ],
        ..ArpReport::default()
    };
    let exit = show(&report, global, |out| views::scan(out, &report, style))?;
    saved.map(|()| exit)
}
