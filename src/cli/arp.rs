//! `reachwhy arp …`: who is on the link. ARP for IPv4, neighbour discovery for IPv6.

mod kernel;
mod link;
mod lookup;
mod scan;
mod scan6;
mod table;
mod vendors;
mod watch;

use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Failure, Global, print_json};
use crate::arp::filter::Ear;
use crate::arp::frame::Advert;
use crate::arp::frame::Speaker;
use crate::arp::inquiry::Inquiry;
use crate::arp::report::ArpReport;
use crate::arp::trial::Trial;
use crate::arp::vendor::Vendors;
use crate::os::neighbour::{Ended, NeighbourError, Stop, Wire, capture_file};
use crate::os::{clock, files};
use crate::view::Style;
use crate::view::arp as views;
use crate::view::arp::explain::Topic;

/// What to do with the neighbours.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct ArpArgs {
    #[command(subcommand)]
    command: Option<Verb>,
    /// Teach: why the request goes to all, every field of it, and what another network would change
    #[arg(long, global = true)]
    explain: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the kernel's neighbour table, and what is odd in it
    Table(table::TableArgs),
    /// Ask the link who has an address, and show who answers
    Lookup(lookup::LookupArgs),
    /// Find every station on the link
    Scan(scan::ScanArgs),
    /// Listen: report new, moved, quarrelling and lying stations, and remember them
    Watch(watch::WatchArgs),
    /// Name the vendor of a hardware address; renew the table of vendors
    Vendors(vendors::VendorsArgs),
}

/// What lookup and scan share.
#[derive(Debug, Clone, clap::Args)]
struct OnLink {
    /// Ask on this interface, whatever the routes say
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// The address that asks; 0.0.0.0 or :: asks as nobody, which no cache learns from
    #[arg(short, long, value_name = "IP")]
    source: Option<IpAddr>,
    /// Write what was sent and heard to a capture file
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Send nothing but ARP or NDP: no echo request (TTL 1) to tell conflict, flux and proxy apart
    #[arg(long)]
    arp_only: bool,
}

/// Runs one of the verbs.
///
/// # Errors
/// Bad usage, missing privilege, a closed standard output.
pub(super) fn run(args: &ArpArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    if args.explain && global.json {
        return Err(Failure::usage("--explain is for people", Some("leave out --json")));
    }
    let explain = args.explain;
    if explain && !matches!(args.command, Some(Verb::Lookup(_))) {
        let topic = match &args.command {
            Some(Verb::Table(_)) => Topic::Table,
            Some(Verb::Scan(_)) => Topic::Scan,
            Some(Verb::Watch(_)) => Topic::Watch,
            _ => Topic::Exchange,
        };
        let mut out = std::io::stdout().lock();
        views::explain::lesson(&mut out, topic, style)?;
        out.flush()?;
    }
    match &args.command {
        Some(Verb::Table(args)) => table::run(args, global, style),
        Some(Verb::Lookup(args)) => lookup::run(args, explain, global, style),
        Some(Verb::Scan(args)) => scan::run(args, global, style),
        Some(Verb::Watch(args)) => watch::run(args, global, style),
        Some(Verb::Vendors(args)) => vendors::run(args, global, style),
        None => Ok(0),
    }
}

/// The vendor table; the embedded where the user's own cannot be read (`arp vendors` says why).
fn vendors() -> Vendors {
    vendors::table().map(|(table, _)| table).unwrap_or_default()
}

/// Whether someone sees the progress.
fn watched(global: &Global) -> bool {
    std::io::stderr().is_terminal() && !global.json
}

/// Begins to notice Ctrl-C.
fn stop() -> anyhow::Result<Stop> {
    Stop::watch().context("cannot watch for signals")
}

fn failed(error: NeighbourError) -> anyhow::Error {
    match &error {
        NeighbourError::Privilege { hint } => Failure::unknown(&error, Some(hint)),
        _ => Failure::unknown(error, None),
    }
}

/// A number that differs from run to run; nothing secret hangs on it.
fn chance() -> u64 {
    clock::wall_ns() ^ u64::from(std::process::id()).rotate_left(32)
}

fn echo_id() -> u16 {
    u16::try_from((chance() / 1000) & 0xffff).unwrap_or(1)
}

/// Writes the capture file, where one is wanted. What was found out is shown even where this fails: keep the
/// result until then.
fn write_capture(file: Option<&Path>, frames: Vec<(u64, Vec<u8>)>) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    files::write_whole(file, &capture_file(frames))
        .with_context(|| format!("cannot write the capture to {}", file.display()))
}

/// What an inquiry found out.
struct Inquired {
    trials: Vec<Trial>,
    adverts: Vec<Advert>,
    listened: u64,
    stopped: bool,
    frames: Vec<(u64, Vec<u8>)>,
}

/// Looks closer at odd answers.
fn inquire(
    spot: &link::Spot,
    speaker: Speaker,
    trials: Vec<Trial>,
    listen: u64,
    record: bool,
    stop: &Stop,
) -> anyhow::Result<Inquired> {
    let mut wire = Wire::open(&spot.link.name, spot.link.index, Ear::Everything, record).map_err(failed)?;
    let mut inquiry = Inquiry::new(speaker, trials, echo_id(), listen);
    let ended = wire.run(&mut inquiry, stop, &mut |_| true).map_err(failed)?;
    let (trials, adverts, listened) = inquiry.finish();
    Ok(Inquired { trials, adverts, listened, stopped: ended == Ended::Stopped, frames: wire.take_record() })
}

/// Shows a report and gives the exit code that it asks for.
fn show(
    report: &ArpReport,
    global: &Global,
    draw: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> anyhow::Result<u8> {
    if global.json {
        print_json(report)?;
    } else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        draw(&mut out)?;
        out.flush()?;
    }
    Ok(u8::from(report.has_problem()))
}
