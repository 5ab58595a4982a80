//! `reachwhy arp watch`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::super::{Failure, Global};
use super::link::Here;
use super::{failed, stop, vendors, views, write_capture};
use crate::arp::filter::Ear;
use crate::arp::judge::Severity;
use crate::arp::watch::{Event, Home, Memory, Watch};
use crate::os::neighbour::Wire;
use crate::os::{capture_file, clock, files};
use crate::view::Style;
use crate::wire::capture::{CaptureReader, Damage, linktype};
use crate::wire::pcap;

/// Where to listen, and what to remember.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is sent. JSON is one line an event.\n\
    Exit: 0 nothing wrong was heard, 1 a conflict, a taken gateway or the like was, 2 bad usage, 3 cannot listen")]
pub(super) struct WatchArgs {
    /// Listen on this interface
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// Read a capture (pcap or pcapng, also compressed; - is standard input) instead of listening
    #[arg(long, value_name = "FILE", conflicts_with_all = ["interface", "seconds", "pcap"])]
    read: Option<PathBuf>,
    /// Remember the stations here; by default in the user's state folder, one file an interface
    #[arg(long, value_name = "FILE", conflicts_with = "no_memory")]
    memory: Option<PathBuf>,
    /// Remember nothing
    #[arg(long)]
    no_memory: bool,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = super::super::seconds)]
    seconds: Option<Duration>,
    /// Write what was heard to a capture file
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// The gateway's address, where a capture does not tell (repeatable)
    #[arg(long, value_name = "IP")]
    gateway: Vec<std::net::IpAddr>,
    /// Only what is odd: no new stations, announcements and probes
    #[arg(short, long)]
    quiet: bool,
}

/// How often the memory is written while listening, nanoseconds.
const SAVE: u64 = 60_000_000_000;

pub(super) fn run(args: &WatchArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    match &args.read {
        Some(file) => read(args, file, global, style),
        None => listen(args, global, style),
    }
}

/// Prints what happened; whether something is wrong.
fn tell(events: Vec<Event>, args: &WatchArgs, global: &Global, style: Style) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let mut wrong = false;
    for event in events {
        wrong |= event.severity == Severity::Problem;
        if args.quiet && event.severity == Severity::Info {
            continue;
        }
        if global.json {
            serde_json::to_writer(&mut out, &event)?;
            writeln!(out)?;
        } else {
            views::event(&mut out, &event, style)?;
        }
    }
    out.flush()?;
    Ok(wrong)
}

fn read(args: &WatchArgs, file: &Path, global: &Global, style: Style) -> anyhow::Result<u8> {
    let name = file.display();
    let source =
        capture_file::open(file).map_err(|error| Failure::usage(format!("cannot read {name}: {error}"), None))?;
    let mut reader = CaptureReader::new(source).map_err(|damage| {
        let hint = "pcap and pcapng are what tcpdump, dumpcap, tshark and Wireshark write";
        Failure::usage(format!("{name}: {damage}"), matches!(damage, Damage::Format(_)).then_some(hint))
    })?;
    let memory = args.memory.as_deref().map_or_else(|| Ok(Memory::default()), remembered)?;
    let home = Home { gateways: args.gateway.clone(), ..Home::default() };
    let mut watch = Watch::new(home, memory, vendors());
    let (mut wrong, mut ethernet, mut other) = (false, false, None);
    let damaged = loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break None,
            Err(damage) => break Some(damage),
        };
        if packet.link == pcap::ETHERNET {
            ethernet = true;
            watch.hear(packet.at_ns / 1_000_000, packet.bytes);
            wrong |= tell(watch.take_events(), args, global, style)?;
        } else {
            other = Some(packet.link);
        }
    };
    if let Some(link) = other.filter(|_| !ethernet) {
        return Err(Failure::usage(
            format!("{name}: its packets have no Ethernet header ({})", linktype::name(link)),
            Some("capture on the interface itself, not on `any`: tcpdump -i eth0 -w FILE arp or icmp6"),
        ));
    }
    if let Some(path) = &args.memory {
        save(path, watch.memory())?;
    }
    finish(&watch, damaged.is_some(), global, style)?;
    if let Some(error) = damaged {
        return Err(Failure::usage(format!("{name}: {error}; what stands before it was read"), None));
    }
    Ok(u8::from(wrong))
}

fn listen(args: &WatchArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let here = Here::look()?;
    let spot = match &args.interface {
        Some(name) => here.spot(name)?,
        None => here.default_spot(false).or_else(|_| here.default_spot(true))?,
    };
    let path = match (&args.memory, args.no_memory) {
        (Some(path), _) => Some(path.clone()),
        (None, true) => None,
        (None, false) => default_memory(&spot.link.name),
    };
    let memory = path.as_deref().map_or_else(|| Ok(Memory::default()), remembered)?;
    let known = memory.len();
    let scene = here.scene(&spot, 0);
    let home = Home {
        own: scene.own,
        own_macs: scene.own_macs.iter().map(|(mac, _)| *mac).collect(),
        gateways: scene.gateways.into_iter().chain(args.gateway.iter().copied()).collect(),
    };
    let stop = stop()?;
    let record = args.pcap.is_some();
    let mut wire = Wire::open(&spot.link.name, spot.link.index, Ear::Conversation, record).map_err(failed)?;
    let now = clock::monotonic_ns();
    let until = args.seconds.map(|time| now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)));
    let mut watch = Watch::new(home, memory, vendors()).on_clock(clock::wall_ns().saturating_sub(now), until);
    if !global.json && std::io::stderr().is_terminal() {
        let remembered = if known > 0 { format!("; {known} addresses are remembered") } else { String::new() };
        let _ = writeln!(std::io::stderr(), "listening on {}{remembered}; Ctrl-C ends it", spot.link.name);
    }
    let (mut wrong, mut trouble, mut saved) = (false, None, now);
    let ended = wire
        .run(&mut watch, &stop, &mut |watch| {
            let told = tell(watch.take_events(), args, global, style);
            let at = clock::monotonic_ns();
            match &path {
                Some(path) if at.saturating_sub(saved) > SAVE => {
                    saved = at;
                    // What cannot be written now is told at the end.
                    let _ = save(path, watch.memory());
                }
                _ => {}
            }
            match told {
                Ok(told) => wrong |= told,
                Err(error) => trouble = Some(error),
            }
            trouble.is_none()
        })
        .map_err(failed);
    // Whatever ended it: what was learnt is kept.
    let kept = path.as_deref().map_or(Ok(()), |path| save(path, watch.memory()));
    let saved = write_capture(args.pcap.as_deref(), wire.take_record());
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    ended?;
    wrong |= tell(watch.take_events(), args, global, style)?;
    finish(&watch, false, global, style)?;
    saved?;
    match kept {
        // Nobody asked for a memory in this very place.
        Err(error) if args.memory.is_none() => {
            let _ = writeln!(std::io::stderr(), "warning: what was learnt is not remembered: {error:#}");
        }
        other => other?,
    }
    Ok(u8::from(wrong))
}

fn finish(watch: &Watch, damaged: bool, global: &Global, style: Style) -> anyhow::Result<()> {
    if global.json {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    views::watched(&mut out, watch.frames, watch.memory().len(), damaged, style)?;
    out.flush()?;
    Ok(())
}

/// `$XDG_STATE_HOME/reachwhy/stations-eth0.json`; `None` without a home.
fn default_memory(interface: &str) -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("reachwhy").join(format!("stations-{interface}.json")))
}

/// The memory in a file; empty where there is none yet.
fn remembered(path: &Path) -> anyhow::Result<Memory> {
    match files::read_whole(path) {
        Ok(text) => Memory::parse(&text).map_err(|error| {
            Failure::usage(
                format!("{}:{error}", path.display()),
                Some("move the file away, or name another: --memory FILE"),
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Memory::default()),
        Err(error) => Err(Failure::usage(format!("cannot read {}: {error}", path.display()), None)),
    }
}

fn save(path: &Path, memory: &Memory) -> anyhow::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        files::make_folder(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    files::write_whole(path, memory.to_json().as_bytes())
        .with_context(|| format!("cannot write the memory to {}", path.display()))
}
