//! `reachwhy tcp read FILE`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use super::{Failure, Global};
use crate::os::capture_file;
use crate::tcp::{Connection, ConnectionReport, Limits, Reading};
use crate::view::{self, Style};
use crate::wire::capture::{CaptureReader, Damage};

/// Which file, and how much to show of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "FILE is pcap or pcapng, plain or packed with gzip or zstd; - is standard input.\n\
    Streams count from 0, as Wireshark's tcp.stream; frames count from 1.\n\
    Exit: 0 nothing wrong, 1 something was found, 2 bad usage or a damaged file, 3 could not find out")]
pub(super) struct ReadArgs {
    /// The capture
    file: PathBuf,
    /// One JSON line for each TCP frame: its flags, codes, states
    #[arg(long)]
    frames: bool,
}

/// Reads, judges, shows.
pub(super) fn run(args: &ReadArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let name = args.file.display();
    let source = capture_file::open(&args.file)
        .map_err(|error| Failure::usage(format!("cannot read {name}: {error}"), None))?;
    let hint = Some("pcap and pcapng are what tcpdump, dumpcap, tshark and Wireshark write");
    let mut reader = CaptureReader::new(source).map_err(|damage| match damage {
        Damage::Format(_) => Failure::usage(format!("{name}: {damage}"), hint),
        damage => Failure::usage(format!("{name}: {damage}"), None),
    })?;
    let mut reading = Reading::new(Limits::default(), seed());
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut shown = view::tcp::List::default();
    let mut problem = false;
    let damage = loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break None,
            Err(damage) => break Some(damage),
        };
        let heard = reading.packet(&packet);
        if args.frames && let Some(heard) = heard {
            line(&mut out, &heard.report())?;
        }
        if reading.table.has_done() {
            for connection in reading.table.take_done() {
                problem |= one(&connection, args, global, &mut out, &mut shown)?;
            }
        }
    };
    let Reading { table, tally, .. } = reading;
    let early = table.early();
    for mut connection in table.finish() {
        connection.partial |= damage.is_some();
        problem |= one(&connection, args, global, &mut out, &mut shown)?;
    }
    if !global.json && !args.frames {
        view::tcp::list(&mut out, &shown, &tally, early, style)?;
    }
    out.flush()?;
    drop(out);
    for complaint in tally.complaints() {
        warn(&complaint);
    }
    if let Some(damage) = damage {
        warn(&format!("{name}: {damage}; {} frames were read, the result is partial", tally.frames));
        return Ok(super::super::Exit::Usage.code());
    }
    Ok(u8::from(problem))
}

fn warn(text: &str) {
    // Nobody to tell is no reason to fail.
    let _ = writeln!(std::io::stderr(), "warning: {text}");
}

/// Shows one connection, or keeps it for the list; whether something was wrong with it.
fn one(
    connection: &Connection,
    args: &ReadArgs,
    global: &Global,
    out: &mut impl Write,
    shown: &mut view::tcp::List,
) -> anyhow::Result<bool> {
    let report = ConnectionReport::new(connection);
    let problem = report.has_problem();
    if args.frames {
    } else if global.json {
        line(out, &report)?;
    } else {
        shown.add(report);
    }
    Ok(problem)
}

fn line(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// A number that no capture's author knows.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
