//! `reachwhy tcp watch IFACE`.

use std::io::{BufWriter, IsTerminal, Write};
use std::time::Duration;

use super::{Failure, Global, line, warn};
use crate::cli::Exit;
use crate::os::capture::{CaptureError, Stop, Tap};
use crate::os::clock;
use crate::tcp::filter::Filter;
use crate::tcp::{Connection, ConnectionReport, Limits, Reading};
use crate::view::{self, Progress, Style};

/// A connection that is over is shown this long after its last segment: late ones still belong to it.
const LINGER_NS: u64 = 500_000_000;
/// Packets taken before signals and the clock are looked at.
const BATCH: usize = 4096;

/// What to hear, and for how long.
#[derive(Debug, clap::Args)]
#[command(after_help = "Needs CAP_NET_RAW. Ends with Ctrl-C; what is still open then is shown too.\n\
    Exit: 0 nothing wrong, 1 something was found, 2 bad usage, 3 could not watch, or packets were lost")]
pub(super) struct WatchArgs {
    /// The interface; `any` is all of them
    interface: String,
    /// Only packets that match, as in `tcp read --filter`
    filter: Vec<String>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = crate::cli::seconds)]
    duration: Option<Duration>,
    /// End after so many packets
    #[arg(long, value_name = "N")]
    packets: Option<u64>,
    /// Each TCP frame as a JSON line, as it comes
    #[arg(long)]
    frames: bool,
}

/// Watches until it is told to stop.
pub(super) fn run(args: &WatchArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let filter = super::filter(&args.filter.join(" ")).map_err(|why| Failure::usage(format!("filter: {why}"), None))?;
    let interface = (args.interface != "any").then_some(args.interface.as_str());
    let stop = Stop::listen().map_err(|error| Failure::unknown(format!("cannot listen for Ctrl-C: {error}"), None))?;
    let mut tap = Tap::open(interface).map_err(|error| match &error {
        CaptureError::Privilege { hint } => Failure::unknown(&error, Some(hint)),
        CaptureError::NoInterface(_) => {
            Failure::usage(&error, Some("`reachwhy facts` lists the interfaces; `any` is all"))
        }
        CaptureError::System { .. } => Failure::unknown(&error, None),
    })?;
    let mut progress =
        Progress::new(std::io::stderr(), std::io::stderr().is_terminal() && !global.json && !args.frames);
    let mut watch = Watch { args, json: global.json, style, filter, problem: false, failed: None };
    let mut reading = Reading::new(Limits::default(), super::seed());
    let mut out = BufWriter::new(std::io::stdout());
    let begun = clock::monotonic_ns();
    let mut told_drops = 0;
    loop {
        let mut taken = 0;
        while taken < BATCH && tap.next(&mut |packet| watch.packet(packet, &mut reading, &mut out)) {
            taken += 1;
        }
        if let Some(error) = watch.failed.take() {
            return Err(error);
        }
        let until = clock::wall_ns().saturating_sub(LINGER_NS);
        if taken < BATCH {
            reading.table.reap(until);
        }
        let done = reading.table.take_done();
        if !done.is_empty() {
            progress.clear();
        }
        for connection in done {
            watch.show(&connection, &mut out)?;
        }
        out.flush()?;
        let drops = tap.drops();
        if drops > told_drops {
            progress.clear();
            warn(&format!("{drops} packets were lost: this host could not keep up"));
            told_drops = drops;
        }
        let over = args.packets.is_some_and(|most| reading.tally.frames >= most)
            || args.duration.is_some_and(|most| u128::from(clock::monotonic_ns() - begun) >= most.as_nanos())
            || stop.is_told();
        if over {
            break;
        }
        if taken < BATCH {
            let (frames, streams) = (reading.tally.frames, reading.table.streams());
            progress.say(&format!("{}: {frames} packets, {streams} connections; Ctrl-C ends", args.interface));
            tap.wait(Some(std::os::fd::AsFd::as_fd(&stop)), Duration::from_millis(200));
        }
    }
    progress.clear();
    let drops = tap.drops();
    let Reading { table, tally, .. } = reading;
    let streams = table.streams();
    for connection in table.drain() {
        watch.show(&connection, &mut out)?;
    }
    if !global.json && !args.frames {
        writeln!(out, "{} packets, {} TCP, {streams} connections, {drops} packets lost", tally.frames, tally.segments)?;
    }
    out.flush()?;
    if drops > 0 {
        return Ok(Exit::Unknown.code());
    }
    Ok(u8::from(watch.problem))
}

/// What the loop carries with it.
struct Watch<'a> {
    args: &'a WatchArgs,
    json: bool,
    style: Style,
    filter: Filter,
    problem: bool,
    failed: Option<anyhow::Error>,
}

impl Watch<'_> {
    fn packet(&mut self, packet: &crate::wire::capture::RawPacket<'_>, reading: &mut Reading, out: &mut impl Write) {
        if !self.args.filter.is_empty() && !self.filter.matches(packet) {
            return;
        }
        let heard = reading.packet(packet);
        if self.args.frames
            && let Some(heard) = heard
            && let Err(error) = line(out, &heard.report())
        {
            self.failed = Some(error);
        }
    }

    fn show(&mut self, connection: &Connection, out: &mut impl Write) -> anyhow::Result<()> {
        let report = ConnectionReport::new(connection);
        self.problem |= report.has_problem();
        if self.args.frames {
            return Ok(());
        }
        if self.json {
            return line(out, &report);
        }
        view::tcp::connection(out, &report, self.style)?;
        Ok(())
    }
}
