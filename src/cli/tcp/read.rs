//! `reachwhy tcp read FILE`.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use serde_json::json;

use super::{Failure, Global, filter, line, warn};
use crate::cli::Exit;
use crate::os::capture::Stop;
use crate::os::{capture_file, files};
use crate::tcp::filter::Filter;
use crate::tcp::{Connection, ConnectionReport, Crowd, Keep, Limits, Reading, Tally, framing, lesson, stream};
use crate::view::{self, Progress, Style};
use crate::wire::capture::{CaptureReader, Damage};

/// Segments kept of a connection that is drawn, and of all that might be.
const DRAWN: usize = 3000;
const DRAWN_IN_ALL: usize = 400_000;
/// Connections listed on a page.
const LISTED: usize = 5000;
/// Packets read before Ctrl-C and the progress line are looked at.
const BATCH: u64 = 1 << 16;
/// Ctrl-C in words.
const INTERRUPTED: &str = "interrupted";
/// Connections drawn on a page.
const PAGE: usize = 25;

/// Which file, and how much to show of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "FILE is pcap or pcapng, plain or packed with gzip or zstd; - is standard input.\n\
    Streams count from 0, as Wireshark's tcp.stream; frames count from 1.\n\
    Exit: 0 nothing wrong, 1 something was found, 2 bad usage or a damaged file, 3 could not find out")]
pub(super) struct ReadArgs {
    /// The capture
    file: PathBuf,
    #[arg(
        long,
        value_name = "EXPRESSION",
        value_parser = filter,
        help = "Only packets that match, as tcpdump has it: `host 10.0.0.1 and tcp port 80`, `tcp[13] & 2 != 0`"
    )]
    filter: Option<Filter>,
    /// One connection in detail, with its messages beside its segments
    #[arg(long, value_name = "N")]
    stream: Option<u64>,
    /// Draw a connection as a sequence diagram: that of --stream, else the first with a problem
    #[arg(long)]
    ladder: bool,
    /// Teach TCP on a connection's own packets
    #[arg(long)]
    explain: bool,
    /// Show what the applications of a connection said
    #[arg(long, value_name = "N", conflicts_with_all = ["stream", "ladder", "explain", "frames"])]
    follow: Option<u64>,
    /// With --follow: as hexadecimal
    #[arg(long, requires = "follow")]
    hex: bool,
    /// One JSON line for each TCP frame: its flags, codes, states
    #[arg(long, conflicts_with_all = ["ladder", "explain"])]
    frames: bool,
    /// Write the sequence diagram as a drawing
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Write a page with all connections, drawings and plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

impl ReadArgs {
    /// Whether one connection is asked for, not the list.
    fn single(&self) -> bool {
        self.stream.is_some() || self.ladder || self.explain || self.follow.is_some() || self.svg.is_some()
    }

    fn limits(&self) -> Limits {
        let keep = if self.follow.is_some() || self.stream.is_some() {
            Keep { steps: 1_000_000, data: 1 << 18, octets: 512 << 20 }
        } else if self.single() || self.report.is_some() {
            Keep { steps: DRAWN, data: 0, octets: 0 }
        } else {
            Keep::default()
        };
        let steps = if self.follow.is_some() || self.stream.is_some() { keep.steps } else { DRAWN_IN_ALL };
        Limits { only: self.follow.or(self.stream), keep, steps, ..Limits::default() }
    }
}

/// Everything that is written, as it comes.
struct Output<'a> {
    args: &'a ReadArgs,
    json: bool,
    list: view::tcp::List,
    /// With `--report`: all of them.
    reports: Vec<ConnectionReport>,
    /// Those that may be drawn.
    drawn: Vec<Connection>,
    crowd: Crowd,
    problem: bool,
}

/// Reads, judges, shows.
pub(super) fn run(args: &ReadArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let name = args.file.display();
    let source =
        capture_file::open(&args.file).map_err(|error| Failure::usage(format!("cannot read {name}: {error}"), None))?;
    let mut reader = CaptureReader::new(source).map_err(|damage| {
        let hint = "pcap and pcapng are what tcpdump, dumpcap, tshark and Wireshark write";
        Failure::usage(format!("{name}: {damage}"), matches!(damage, Damage::Format(_)).then_some(hint))
    })?;
    let mut reading = Reading::new(args.limits(), super::seed());
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut output = Output {
        args,
        json: global.json,
        list: view::tcp::List::default(),
        reports: Vec::new(),
        drawn: Vec::new(),
        crowd: Crowd::default(),
        problem: false,
    };
    // A pipe may keep us waiting: there Ctrl-C must end us at once.
    let stop = if capture_file::is_regular(&args.file) { Stop::listen().ok() } else { None };
    let mut progress = Progress::new(std::io::stderr(), std::io::stderr().is_terminal() && !args.frames);
    let damage = loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break None,
            Err(damage) => break Some(damage.to_string()),
        };
        if reading.tally.frames % BATCH == BATCH - 1 {
            progress.say(&format!("{} packets, {} connections", reading.tally.frames, reading.table.streams()));
            if stop.as_ref().is_some_and(Stop::is_told) {
                break Some(INTERRUPTED.to_owned());
            }
        }
        if args.filter.as_ref().is_some_and(|filter| !filter.matches(&packet)) {
            reading.pass_over();
            continue;
        }
        let heard = reading.packet(&packet);
        if args.frames
            && let Some(heard) = heard
            && args.stream.is_none_or(|stream| stream == heard.connection.stream)
        {
            line(&mut out, &heard.report())?;
        }
        if reading.table.has_done() {
            for connection in reading.table.take_done() {
                output.crowd.add(&connection);
                output.take(connection, &mut out)?;
            }
        }
    };
    progress.clear();
    let Reading { table, tally, .. } = reading;
    let early = table.early();
    for connection in table.live() {
        output.crowd.add(connection);
    }
    for mut connection in table.drain() {
        connection.partial |= damage.is_some();
        output.take(connection, &mut out)?;
    }
    let partial = damage.map(|damage| format!("{damage}; {} frames were read, the result is partial", tally.frames));
    output.finish(&mut out, &tally, early, partial.as_deref(), style)?;
    out.flush()?;
    drop(out);
    for complaint in tally.complaints() {
        warn(&complaint);
    }
    if let Some(partial) = partial {
        warn(&format!("{name}: {partial}"));
        let told = partial.starts_with(INTERRUPTED);
        return Ok(if told { Exit::Unknown.code() } else { Exit::Usage.code() });
    }
    Ok(u8::from(output.problem))
}

impl Output<'_> {
    /// Shows a connection, or keeps it for the end.
    fn take(&mut self, connection: Connection, out: &mut impl Write) -> anyhow::Result<()> {
        let mut report = ConnectionReport::new(&connection);
        for finding in self.crowd.judge(&connection) {
            report.add(finding);
        }
        self.problem |= report.has_problem();
        if self.args.frames {
            return Ok(());
        }
        if self.args.single() || self.args.report.is_some() {
            let wanted = self.args.limits().only.is_none_or(|only| only == connection.stream);
            if wanted && !connection.steps.is_empty() {
                self.keep_drawn(connection, &report);
            }
        }
        if self.args.report.is_some() && self.reports.len() < LISTED {
            self.reports.push(report.clone());
        }
        if self.args.single() {
            return Ok(());
        }
        if self.json {
            line(out, &report)?;
        } else {
            self.list.add(report);
        }
        Ok(())
    }

    /// Keeps what may be drawn: one, or a page of them, the bad ones first.
    fn keep_drawn(&mut self, connection: Connection, report: &ConnectionReport) {
        let most = if self.args.report.is_some() { PAGE } else { 1 };
        if self.drawn.len() < most {
            self.drawn.push(connection);
        } else if report.has_problem() {
            let good = self.drawn.iter().position(|one| !ConnectionReport::new(one).has_problem());
            if let Some(good) = good {
                self.drawn[good] = connection;
            }
        }
    }

    fn finish(
        &mut self,
        out: &mut impl Write,
        tally: &Tally,
        early: u64,
        partial: Option<&str>,
        style: Style,
    ) -> anyhow::Result<()> {
        if let Some(file) = &self.args.report {
            self.reports.sort_by_key(|report| report.stream);
            let title = self.args.file.display().to_string();
            let page = view::tcp::html(&title, &self.reports, &self.drawn, tally, partial);
            save(file, &page)?;
        }
        if self.args.single() {
            return self.one(out, style);
        }
        if !self.json && !self.args.frames {
            view::tcp::list(out, &self.list, tally, &self.crowd.all(), early, style)?;
        }
        Ok(())
    }

    /// Shows the one connection that was asked for.
    fn one(&self, out: &mut impl Write, style: Style) -> anyhow::Result<()> {
        if self.args.frames {
            return Ok(());
        }
        let Some(connection) = self.drawn.first() else {
            let what = match self.args.follow.or(self.args.stream) {
                Some(stream) => format!("there is no TCP stream {stream} in {}", self.args.file.display()),
                None => format!("there is no TCP in {}", self.args.file.display()),
            };
            return Err(Failure::usage(what, Some("streams count from 0; without --stream all are listed")));
        };
        let report = ConnectionReport::new(connection);
        let client = connection.client();
        if let Some(file) = &self.args.svg {
            save(file, &view::tcp::svg(connection))?;
        }
        if self.args.follow.is_some() {
            return self.follow(out, connection, client, style);
        }
        let framing = [client, 1 - client].map(|side| framing::find(&stream::side(connection, side)));
        let lessons = self.args.explain.then(|| lesson::lessons(connection, &report));
        if self.json {
            let mut document = serde_json::to_value(&report)?;
            if let Some(object) = document.as_object_mut() {
                object.insert("messages".to_owned(), json!({"client": framing[0], "server": framing[1]}));
                if let Some(lessons) = lessons {
                    object.insert("lessons".to_owned(), serde_json::to_value(lessons)?);
                }
            }
            return line(out, &document);
        }
        if self.args.stream.is_some() && !self.args.ladder && !self.args.explain {
            view::tcp::detail(out, &report, &framing, style)?;
        }
        if self.args.ladder || self.args.explain {
            view::tcp::ladder(out, connection, style)?;
            write!(out, "{}", view::text::hang("", &report.verdict, style.width))?;
        }
        if let Some(lessons) = lessons {
            view::tcp::explain(out, &lessons, style)?;
        }
        Ok(())
    }

    fn follow(&self, out: &mut impl Write, connection: &Connection, client: usize, style: Style) -> anyhow::Result<()> {
        let chunks = stream::chunks(connection);
        if !self.json {
            view::tcp::follow(out, &chunks, client, self.args.hex, style)?;
            return Ok(());
        }
        for chunk in chunks {
            let hex = crate::wire::HexBytes(chunk.bytes.clone()).to_string();
            let from = if chunk.side == client { "client" } else { "server" };
            line(
                out,
                &json!({
                    "from": from, "frame": chunk.frame, "offset": chunk.offset, "len": chunk.len, "push": chunk.push,
                    "missing_before": chunk.missing, "data": hex, "text": String::from_utf8_lossy(&chunk.bytes),
                }),
            )?;
        }
        Ok(())
    }
}

fn save(file: &std::path::Path, text: &str) -> anyhow::Result<()> {
    files::write_whole(file, text.as_bytes())
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", file.display()), None))
}
