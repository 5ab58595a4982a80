//! `reachwhy arp lookup`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::super::{Exit, Failure, Global};
use super::link::{Here, Spot, Way};
use super::{
    OnLink, chance, echo_id, failed, inquire, kernel, scan, show, stop, vendors, views, watched, write_capture,
};
use crate::arp::dad::Dad;
use crate::arp::filter::Ear;
use crate::arp::frame::{self, Reach};
use crate::arp::judge::{Evidence, judge, worth_listening};
use crate::arp::lookup::{Lookup, Question};
use crate::arp::report::{ArpReport, Entry, Exchange, millis};
use crate::arp::targets::{Targets, no_station};
use crate::arp::trial::TrialOutcome;
use crate::os::neighbour::{Ended, Wire};
use crate::os::probe::setcap_hint;
use crate::view::{Progress, Style};

/// Whom to ask for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit: 0 one station answered, 1 a conflict or the like was found, 2 bad usage,\n\
    3 nobody answered, or could not ask")]
pub(super) struct LookupArgs {
    /// The address; of a link-local one also the interface: fe80::1%eth0
    #[arg(value_name = "IP")]
    target: String,
    #[command(flatten)]
    on: OnLink,
    /// Find out whether the address is free, as a host must before it uses one (RFC 5227, RFC 4862)
    #[arg(long, conflicts_with_all = ["count", "source"])]
    dad: bool,
    /// Ask so many times
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Seconds between one request and the next
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = super::super::seconds)]
    interval: Duration,
}

pub(super) fn run(args: &LookupArgs, explain: bool, global: &Global, style: Style) -> anyhow::Result<u8> {
    let (target, scope) = parse(&args.target)?;
    let named = args.on.interface.as_deref().or(scope);
    let here = Here::look()?;
    let everywhere = matches!(target, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let spot = match named {
        Some(name) => here.spot(name)?,
        None if everywhere && here.several() => {
            return Err(Failure::usage(
                format!("{target} may be on any link of this host"),
                Some(&format!("name the interface: {target}%INTERFACE")),
            ));
        }
        None => match here.way(target)? {
            Way::Here(spot) => spot,
            Way::Behind(spot, gateway) => return behind(explain, target, &spot, gateway, &here, global, style),
        },
    };
    if kernel::is_needed() && !args.dad && args.count == 1 {
        let targets = Targets::one(target).map_err(|error| Failure::usage(error, None))?;
        return kernel::ask(&targets, &spot, &args.on, &setcap_hint(), global, style);
    }
    if args.dad {
        return dad(args, explain, target, &spot, global, style);
    }
    let own = spot.addresses.iter().any(|address| address.address == target);
    let mut speaker = spot.speaker(target, args.on.source)?;
    if own && args.on.source.is_none() {
        // As nobody: a request for one's own address would make neighbours rewrite what they know.
        speaker.ip = None;
    }
    let record = args.on.pcap.is_some();
    let stop = stop()?;
    let mut wire = Wire::open(&spot.link.name, spot.link.index, Ear::Everything, record).map_err(failed)?;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let question = Question {
        target,
        count: args.count,
        interval: nanos(args.interval),
        patience: nanos(global.timeout.unwrap_or(Duration::from_secs(1))),
        verify: !args.on.arp_only,
        id: echo_id(),
    };
    let mut lookup = Lookup::new(speaker, question);
    let ended = wire.run(&mut lookup, &stop, &mut |_| true).map_err(failed)?;
    let mut partial = ended == Ended::Stopped;
    let mut frames = wire.take_record();

    let scene = here.scene(&spot, 1);
    let mut answers = BTreeMap::new();
    if !lookup.responders().is_empty() {
        answers.insert(target, lookup.responders().to_vec());
    }
    let mut trials = lookup.trials();
    let (mut adverts, mut listened) = (Vec::new(), 0);
    if lookup.responders().len() > 1 && !args.on.arp_only && !partial {
        let open = trials.iter().any(|trial| trial.outcome == TrialOutcome::Silent);
        if open {
            let again = inquire(&spot, speaker, trials, 0, record, &stop)?;
            partial |= again.stopped;
            trials = again.trials;
            frames.extend(again.frames);
        }
        if worth_listening(&answers, &trials, &scene) && !partial {
            let heard = inquire(&spot, speaker, Vec::new(), scan::LISTEN, record, &stop)?;
            partial |= heard.stopped;
            (adverts, listened) = (heard.adverts, heard.listened);
            frames.extend(heard.frames);
        }
    }
    let saved = write_capture(args.on.pcap.as_deref(), frames);
    let findings = judge(&Evidence { answers: &answers, trials: &trials, adverts: &adverts, listened, scene: &scene });
    let mut entry = Entry::answered(target, lookup.responders(), &vendors());
    entry.own = own;
    if scene.gateways.contains(&target) {
        entry.role.push("gateway".to_owned());
    }
    let exchanges = (1..)
        .zip(lookup.asked())
        .map(|(n, asked)| Exchange {
            n,
            answers: asked.answers.iter().map(|(mac, rtt)| (*mac, millis(*rtt))).collect(),
        })
        .collect();
    let report = ArpReport {
        interface: Some(spot.link.name.clone()),
        entries: vec![entry],
        findings,
        partial,
        method: "wire".to_owned(),
        source: speaker.ip,
        seconds: Some(millis(lookup.took()) / 1000.0),
        exchanges,
        trials,
        ..ArpReport::default()
    };
    let silent = lookup.responders().is_empty();
    let reply = lookup.reply().map(<[u8]>::to_vec);
    let exit = show(&report, global, |out| {
        if explain {
            let request = frame::request(speaker, target, Reach::All);
            views::explain::lookup(out, target, &request, reply.as_deref(), style)?;
        }
        views::lookup(out, &report, speaker, style)
    })?;
    saved?;
    // Silence is what one hopes for where the address is our own.
    Ok(if silent && !own { Exit::Unknown.code() } else { exit })
}

fn parse(text: &str) -> anyhow::Result<(IpAddr, Option<&str>)> {
    let (address, scope) = text.split_once('%').map_or((text, None), |(address, scope)| (address, Some(scope)));
    let ip: IpAddr = address.parse().map_err(|_| {
        Failure::usage(
            format!("`{text}` is no IP address"),
            Some("ARP asks for addresses, not for names: reachwhy arp lookup 192.168.1.1"),
        )
    })?;
    match no_station(ip) {
        Some(what) => {
            Err(Failure::usage(format!("{ip} is {what}: no station has it, so nobody can be asked for it"), None))
        }
        None => Ok((ip, scope)),
    }
}

/// Duplicate address detection.
fn dad(
    args: &LookupArgs,
    explain: bool,
    target: IpAddr,
    spot: &Spot,
    global: &Global,
    style: Style,
) -> anyhow::Result<u8> {
    let record = args.on.pcap.is_some();
    let stop = stop()?;
    let mut wire = Wire::open(&spot.link.name, spot.link.index, Ear::Everything, record).map_err(failed)?;
    let mut progress = Progress::new(std::io::stderr(), watched(global));
    progress.say("probing and listening: this takes up to 7 seconds");
    let mut dad = Dad::new(spot.mac, target, chance());
    let ended = wire.run(&mut dad, &stop, &mut |_| true).map_err(failed)?;
    progress.clear();
    let saved = write_capture(args.on.pcap.as_deref(), wire.take_record());
    let partial = ended == Ended::Stopped;
    let result = dad.report();
    let found = result.objections.first().map(|one| one.mac);
    let mut entry = Entry::of(target, found, if found.is_some() { "answered" } else { "silent" }, &vendors());
    entry.own = spot.addresses.iter().any(|address| address.address == target);
    entry.duplicate = result.objections.iter().skip(1).map(|one| one.mac).filter(|mac| Some(*mac) != found).collect();
    let exit = match result.verdict.as_str() {
        "free" if partial => Exit::Unknown.code(),
        "free" => 0,
        _ => Exit::Problem.code(),
    };
    let report = ArpReport {
        interface: Some(spot.link.name.clone()),
        entries: vec![entry],
        partial,
        method: "wire".to_owned(),
        dad: Some(result),
        ..ArpReport::default()
    };
    show(&report, global, |out| {
        if explain {
            views::explain::dad(out, target, style)?;
        }
        views::dad(out, &report, style)
    })?;
    saved.map(|()| exit)
}

/// The address is in another network: what its packets are handed to instead.
fn behind(
    explain: bool,
    target: IpAddr,
    spot: &Spot,
    gateway: IpAddr,
    here: &Here,
    global: &Global,
    style: Style,
) -> anyhow::Result<u8> {
    let scene = here.scene(spot, 0);
    let known = scene.known.iter().find(|(ip, ..)| *ip == gateway);
    let mut entry = Entry::of(gateway, known.map(|(_, mac, _)| *mac), "unknown", &vendors());
    if let Some((_, _, state)) = known {
        entry.state = format!("{state:?}").to_lowercase();
    }
    entry.role.push("gateway".to_owned());
    let report = ArpReport {
        interface: Some(spot.link.name.clone()),
        entries: vec![entry],
        method: "kernel".to_owned(),
        notes: vec![
            format!(
                "{target} is not on the link {}: its packets go to the gateway {gateway}, and their frames to the gateway's hardware address.",
                spot.link.name
            ),
            format!(
                "Nothing was sent. To ask for the gateway: reachwhy arp lookup {gateway}; to ask for {target} on the link nevertheless: add -i {}.",
                spot.link.name
            ),
        ],
        ..ArpReport::default()
    };
    show(&report, global, |out| {
        views::behind(out, &report, style)?;
        if explain { views::explain::behind(out, target, gateway, spot.link.name.as_str(), style) } else { Ok(()) }
    })?;
    Ok(if known.is_some() { 0 } else { Exit::Unknown.code() })
}
