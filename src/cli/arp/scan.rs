//! `reachwhy arp scan`.

use std::collections::BTreeMap;
use std::io::Stderr;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::{Failure, Global};
use super::link::{Here, Spot};
use super::{OnLink, chance, failed, inquire, kernel, scan6, show, stop, vendors, views, watched, write_capture};
use crate::arp::filter::Ear;
use crate::arp::frame::{Advert, Speaker};
use crate::arp::judge::{Evidence, Scene, judge, worth_a_trial, worth_listening};
use crate::arp::report::{self, ArpReport, Coverage};
use crate::arp::sweep::{Plan, Responder, Sweep, SweepOutcome};
use crate::arp::targets::{BadTargets, Targets};
use crate::arp::trial::Trial;
use crate::os::neighbour::{Ended, Stop, Wire};
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
    pub(super) on: OnLink,
    /// The IPv6 stations of the link, by multicast and what follows from it
    #[arg(short = '6', long, conflicts_with = "targets")]
    ipv6: bool,
    /// Requests a second; by default what the link takes without trouble
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Ask for each silent address so many times; by default as often as the loss asks for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=10))]
    rounds: Option<u8>,
}

/// An advertisement is waited for three of the usual seconds, and a little.
pub(super) const LISTEN: u64 = 3_300_000_000;

/// What a sweep and a closer look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) outcome: Option<SweepOutcome>,
    pub(super) answers: BTreeMap<IpAddr, Vec<Responder>>,
    pub(super) trials: Vec<Trial>,
    pub(super) adverts: Vec<Advert>,
    pub(super) listened: u64,
    pub(super) stopped: bool,
    pub(super) frames: Vec<(u64, Vec<u8>)>,
}

/// What to scan.
enum Task {
    /// Each of these addresses.
    Each(Targets, Spot),
    /// An IPv6 link, or the part of it in this prefix.
    Link(Spot, Option<ipnetwork::Ipv6Network>),
}

pub(super) fn run(args: &ScanArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let here = Here::look()?;
    let (targets, spot) = match task(args, &here)? {
        Task::Each(targets, spot) => (targets, spot),
        Task::Link(spot, within) => return scan6::run(args, &here, &spot, within, global, style),
    };
    if kernel::is_needed() {
        return kernel::ask(&targets, &spot, &args.on, &setcap_hint(), global, style);
    }
    let first = targets.get(0).ok_or_else(|| Failure::usage("no address was given", None))?;
    let speaker = spot.speaker(first, args.on.source)?;
    let scene = here.scene(&spot, targets.len());
    let stop = stop()?;
    let mut progress = Progress::new(std::io::stderr(), watched(global));
    let begun = crate::os::clock::monotonic_ns();
    let plan = plan(args, global, &spot);
    let mut found = sweep(args, &spot, speaker, &targets, &scene.own, plan, &stop, &mut progress, begun)?;
    closer(args, &spot, speaker, &scene, &stop, &mut progress, &mut found)?;
    progress.clear();
    let saved = write_capture(args.on.pcap.as_deref(), std::mem::take(&mut found.frames));
    let findings = judge(&Evidence {
        answers: &found.answers,
        trials: &found.trials,
        adverts: &found.adverts,
        listened: found.listened,
        scene: &scene,
    });
    let mut entries = report::entries(&found.answers, &vendors());
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
        partial: found.stopped,
        method: "wire".to_owned(),
        source: speaker.ip,
        seconds: found.outcome.as_ref().map(|outcome| report::millis(outcome.took) / 1000.0),
        coverage: found.outcome.as_ref().map(|outcome| Coverage::of(targets.describe(), outcome)),
        trials: found.trials,
        notes: other_networks(args, &spot),
        ..ArpReport::default()
    };
    let exit = show(&report, global, |out| views::scan(out, &report, style))?;
    saved.map(|()| exit)
}

/// The interface's further networks, which were not asked for.
fn other_networks(args: &ScanArgs, spot: &Spot) -> Vec<String> {
    let mut networks: Vec<String> = spot
        .networks(false)
        .into_iter()
        .filter_map(|network| IpNetwork::new(network.network(), network.prefix()).ok())
        .filter(|network| network.prefix() < 32)
        .map(|network| network.to_string())
        .collect();
    networks.dedup();
    if !args.targets.is_empty() || networks.len() < 2 {
        return Vec::new();
    }
    let others = networks[1..].join(" ");
    vec![format!("{} is in other networks too, which were not asked for: reachwhy arp scan {others}", spot.link.name)]
}

/// Asks for every target.
#[expect(clippy::too_many_arguments, reason = "what a sweep needs, from two callers")]
pub(super) fn sweep(
    args: &ScanArgs,
    spot: &Spot,
    speaker: Speaker,
    targets: &Targets,
    own: &[IpAddr],
    plan: Plan,
    stop: &Stop,
    progress: &mut Progress<Stderr>,
    begun: u64,
) -> anyhow::Result<Found> {
    let ear = if targets.is_v6() { Ear::Advertisements } else { Ear::ArpReplies };
    let mut wire = Wire::open(&spot.link.name, spot.link.index, ear, args.on.pcap.is_some()).map_err(failed)?;
    let mut sweep = Sweep::new(speaker, targets.clone(), own, plan);
    let ended = wire
        .run(&mut sweep, stop, &mut |sweep| {
            let since = crate::os::clock::monotonic_ns().saturating_sub(begun);
            progress.say(&views::scan_progress(&sweep.progress(), since));
            true
        })
        .map_err(failed)?;
    let outcome = sweep.outcome();
    Ok(Found {
        answers: outcome.answers.clone(),
        outcome: Some(outcome),
        stopped: ended == Ended::Stopped,
        frames: wire.take_record(),
        ..Found::default()
    })
}

/// Looks closer at what is odd in the answers.
pub(super) fn closer(
    args: &ScanArgs,
    spot: &Spot,
    speaker: Speaker,
    scene: &Scene,
    stop: &Stop,
    progress: &mut Progress<Stderr>,
    found: &mut Found,
) -> anyhow::Result<()> {
    let trials = worth_a_trial(&found.answers, scene);
    if trials.is_empty() || found.stopped || args.on.arp_only {
        return Ok(());
    }
    let record = args.on.pcap.is_some();
    progress.say("looking closer at odd answers");
    let tried = inquire(spot, speaker, trials, 0, record, stop)?;
    found.frames.extend(tried.frames);
    (found.trials, found.stopped) = (tried.trials, tried.stopped);
    if worth_listening(&found.answers, &found.trials, scene) && !found.stopped {
        progress.say("several hosts have one address: listening for VRRP");
        let heard = inquire(spot, speaker, Vec::new(), LISTEN, record, stop)?;
        (found.adverts, found.listened, found.stopped) = (heard.adverts, heard.listened, heard.stopped);
        found.frames.extend(heard.frames);
    }
    Ok(())
}

/// Which addresses on which interface.
fn task(args: &ScanArgs, here: &Here) -> anyhow::Result<Task> {
    let named = args.on.interface.as_deref().map(|name| here.spot(name)).transpose()?;
    if args.targets.is_empty() {
        let spot = match named {
            Some(spot) => spot,
            None if args.ipv6 => here.default_spot(true)?,
            None => here.default_spot(false).or_else(|error| here.default_spot(true).map_err(|_| error))?,
        };
        let networks = spot.networks(false);
        return match networks.iter().find(|network| network.prefix() < 32) {
            Some(network) if !args.ipv6 => {
                Ok(Task::Each(Targets::network(*network).map_err(|error| bad(&error))?, spot))
            }
            _ if args.ipv6 || !spot.networks(true).is_empty() => Ok(Task::Link(spot, None)),
            _ => Err(Failure::usage(
                format!("{} has no network of its own to scan", spot.link.name),
                Some("name the addresses: reachwhy arp scan -i INTERFACE CIDR"),
            )),
        };
    }
    // An IPv6 prefix too large to go through.
    if let [one] = args.targets.as_slice()
        && let Ok(IpNetwork::V6(network)) = one.parse::<IpNetwork>()
        && network.prefix() < 106
    {
        let inside = |spot: &Spot| {
            spot.networks(true).iter().any(|own| matches!(own, IpNetwork::V6(own) if network.contains(own.network()) || own.contains(network.network())))
        };
        let spot = match named {
            Some(spot) => spot,
            None => here.find(inside).ok_or_else(|| {
                Failure::usage(format!("{network} is on no link of this host: only neighbours can be asked for"), None)
            })?,
        };
        return Ok(Task::Link(spot, Some(network)));
    }
    let targets = Targets::parse(args.targets.iter().map(String::as_str)).map_err(|error| bad(&error))?;
    let spot = match named {
        Some(spot) => spot,
        None => here.spot_for(&targets)?,
    };
    Ok(Task::Each(targets, spot))
}

fn bad(error: &BadTargets) -> anyhow::Error {
    let hint = match error {
        BadTargets::TooMany(_) => Some("name a part of it: reachwhy arp scan 10.0.0.0/16"),
        BadTargets::TwoFamilies => Some("run it once for each"),
        _ => None,
    };
    Failure::usage(error, hint)
}

pub(super) fn plan(args: &ScanArgs, global: &Global, spot: &Spot) -> Plan {
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
