//! `reachwhy arp scan`.

use std::io::IsTerminal;

use super::super::{Failure, Global};
use super::link::{Here, Spot};
use super::{Inquired, OnLink, chance, failed, inquire, kernel, show, stop, vendors, views, write_capture};
use crate::arp::filter::Ear;
use crate::arp::judge::{Evidence, judge, worth_a_trial, worth_listening};
use crate::arp::report::{self, ArpReport, Coverage};
use crate::arp::sweep::{Plan, Sweep};
use crate::arp::targets::{BadTargets, Targets};
use crate::os::neighbour::{Ended, Wire};
use crate::os::probe::setcap_hint;
use crate::view::{Progress, Style};

/// Which addresses, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "TARGET: 10.0.0.0/24, 10.0.0.5, 10.0.0.1-50, several with commas or spaces between.\n\
    Exit: 0 no trouble, 1 a conflict or the like was found, 2 bad usage, 3 could not ask")]
pub(super) struct ScanArgs {
    /// Addresses to ask for; without any, the interface's own network
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    #[command(flatten)]
    on: OnLink,
    /// Requests a second; by default what the link takes without trouble
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Ask for each silent address so many times; by default as often as the loss asks for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=10))]
    rounds: Option<u8>,
}

/// What an advertisement is waited for: three of the usual second, and a little.
const LISTEN: u64 = 3_300_000_000;

pub(super) fn run(args: &ScanArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let here = Here::look()?;
    let (targets, spot) = place(args, &here)?;
    if kernel::is_needed() {
        return kernel::ask(&targets, &spot, &args.on, &setcap_hint(), global, style);
    }
    let first = targets.get(0).ok_or_else(|| Failure::usage("no address was given", None))?;
    let speaker = spot.speaker(first, args.on.source)?;
    let scene = here.scene(&spot, targets.len());
    let plan = plan(args, global, &spot);
    let ear = if targets.is_v6() { Ear::Advertisements } else { Ear::ArpReplies };
    let record = args.on.pcap.is_some();
    let stop = stop()?;
    let mut wire = Wire::open(&spot.link.name, spot.link.index, ear, record).map_err(failed)?;
    let watched = std::io::stderr().is_terminal() && !global.json;
    let mut progress = Progress::new(std::io::stderr(), watched);
    let mut sweep = Sweep::new(speaker, targets.clone(), &scene.own, plan);
    let begun = crate::os::clock::monotonic_ns();
    let ended = wire
        .run(&mut sweep, &stop, &mut |sweep| {
            let seconds = crate::os::clock::monotonic_ns().saturating_sub(begun);
            progress.say(&views::scan_progress(&sweep.progress(), seconds));
            true
        })
        .map_err(failed)?;
    let outcome = sweep.outcome();
    let mut partial = ended == Ended::Stopped;
    let mut frames = wire.take_record();

    let mut closer =
        Inquired { trials: Vec::new(), adverts: Vec::new(), listened: 0, stopped: false, frames: Vec::new() };
    let trials = worth_a_trial(&outcome.answers, &scene);
    if !trials.is_empty() && !partial && !args.on.arp_only {
        progress.say("looking closer at odd answers");
        closer = inquire(&spot, speaker, trials, 0, record, &stop)?;
        frames.append(&mut closer.frames);
        if worth_listening(&outcome.answers, &closer.trials, &scene) && !closer.stopped {
            progress.say("several hosts have one address: listening for VRRP");
            let heard = inquire(&spot, speaker, Vec::new(), LISTEN, record, &stop)?;
            (closer.adverts, closer.listened, closer.stopped) = (heard.adverts, heard.listened, heard.stopped);
            frames.extend(heard.frames);
        }
        partial |= closer.stopped;
    }
    progress.clear();
    if let Some(file) = &args.on.pcap {
        write_capture(file, frames)?;
    }

    let findings = judge(&Evidence {
        answers: &outcome.answers,
        trials: &closer.trials,
        adverts: &closer.adverts,
        listened: closer.listened,
        scene: &scene,
    });
    let vendors = vendors();
    let mut entries = report::entries(&outcome.answers, &vendors);
    for entry in &mut entries {
        entry.own = scene.own.contains(&entry.ip);
        if scene.gateways.contains(&entry.ip) {
            entry.role.push("gateway".to_owned());
        }
    }
    let report = ArpReport {
        interface: Some(spot.link.name.clone()),
        entries,
        findings,
        partial,
        method: "wire".to_owned(),
        source: speaker.ip,
        seconds: Some(report::millis(outcome.took) / 1000.0),
        coverage: Some(Coverage::of(targets.describe(), &outcome)),
        trials: closer.trials,
        ..ArpReport::default()
    };
    show(&report, global, |out| views::scan(out, &report, style))
}

/// Which addresses on which interface.
fn place(args: &ScanArgs, here: &Here) -> anyhow::Result<(Targets, Spot)> {
    let named = args.on.interface.as_deref().map(|name| here.spot(name)).transpose()?;
    if args.targets.is_empty() {
        let spot = match named {
            Some(spot) => spot,
            None => here.default_spot(false)?,
        };
        let networks = spot.networks(false);
        let Some(network) = networks.iter().find(|network| network.prefix() < 32) else {
            return Err(Failure::usage(
                format!("{} has no IPv4 network of its own to scan", spot.link.name),
                Some("name the addresses: reachwhy arp scan -i INTERFACE CIDR"),
            ));
        };
        let targets = Targets::network(*network).map_err(|error| bad(&error))?;
        return Ok((targets, spot));
    }
    let targets = Targets::parse(args.targets.iter().map(String::as_str)).map_err(|error| bad(&error))?;
    let spot = match named {
        Some(spot) => spot,
        None => here.spot_for(&targets)?,
    };
    Ok((targets, spot))
}

fn bad(error: &BadTargets) -> anyhow::Error {
    let hint = match error {
        BadTargets::TooMany(_) => Some("name a part of it: reachwhy arp scan 10.0.0.0/16"),
        BadTargets::TwoFamilies => Some("run it once for each"),
        _ => None,
    };
    Failure::usage(error, hint)
}

fn plan(args: &ScanArgs, global: &Global, spot: &Spot) -> Plan {
    let (rate, radio) = spot.rate();
    let mut plan = if radio { Plan::RADIO } else { Plan { rate, ..Plan::LOCAL } };
    if let Some(rate) = args.rate {
        plan.rate = rate.into();
    }
    plan.rounds = args.rounds;
    plan.seed = chance();
    if let Some(timeout) = global.timeout {
        plan.last = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    }
    plan
}
