//! `reachwhy fw sim`.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::packets::{self, Kind};
use super::rules::{Loaded, RulesArgs, clean, warn};
use super::{pcap, read};
use crate::cli::{Exit, Failure, Global};
use crate::firewall::walk::{Answer, Facts, Stack, Verdict};
use crate::firewall::{Compiled, History, Packet, ParseError};
use crate::host::HostFacts;
use crate::os::gather::{GatherOptions, Part, gather};
use crate::view::{Style, fw as view};

/// Of so many packets the nearest miss is looked for without being asked for it, and in all of them
/// together past so many rules: it is a walk past every rule.
const NEAR_PACKETS: usize = 1000;
const NEAR_RULES: usize = 200_000;
/// A line of a stream is no longer.
const LINE: u64 = 4 << 20;

/// What `reachwhy fw sim` takes.
#[derive(Debug, Args)]
#[command(after_help = "Packets: `in=eth0 tcp 192.168.1.5:40000 > 192.168.1.2:53 syn`, or as JSON\n\
    {\"in\": \"eth0\", \"src\": \"192.168.1.5\", \"dst\": \"192.168.1.2\", \"proto\": \"udp\", \"dport\": 53}\n\
    A packet with in= starts at prerouting, one without at output; hook=input and the like start elsewhere.\n\
    A file is read whole before the first answer, so that a bad line means no answer at all; lines on\n\
    standard input are answered as they come, and a bad one ends the stream with exit 2.\n\
    The nearest miss is looked for in the first packets of many; with -v in all of them.\n\
    Exit: 0 every packet has a certain verdict (a drop is an answer), 2 bad usage or input,\n\
    3 some verdict is unknown")]
#[command(group(ArgGroup::new("what").required(true)))]
pub(super) struct SimArgs {
    #[command(flatten)]
    rules: RulesArgs,
    /// What is known of the host besides: what `reachwhy facts --json` printed there
    #[arg(long, value_name = "FACTS.json")]
    host: Option<PathBuf>,
    /// A packet, as an expression or as JSON; may be given several times
    #[arg(long, value_name = "EXPR", group = "what")]
    packet: Vec<String>,
    /// Packets from a file, a line each, or from a pcap file; `-` is standard input
    #[arg(long, value_name = "FILE", group = "what")]
    packets: Option<PathBuf>,
    /// The packets are one history: connection tracking, translation, limits and lists live on. Time
    /// passes between the frames of a capture, and not between others
    #[arg(long)]
    stateful: bool,
    /// The interface that packets came in by which do not say
    #[arg(long = "in", value_name = "IFACE")]
    in_: Option<String>,
}

/// Answers every packet.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &SimArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let stdin = args.packets.as_deref().is_some_and(|file| file.as_os_str() == "-");
    if stdin && args.rules.reads_stdin() {
        return Err(Failure::usage("standard input cannot hold both the rules and the packets", None));
    }
    let host = host(args)?;
    let Loaded { stack, warnings, .. } = args.rules.load()?;
    warn(&warnings, global.verbose, style);
    let facts = host.as_ref().map_or_else(Facts::none, Facts::of);
    let mut answers = Answers {
        out: BufWriter::with_capacity(1 << 16, std::io::stdout().lock()),
        line: Vec::new(),
        json: global.json,
        style,
        verbose: global.verbose > 0,
        tally: view::Tally::default(),
    };
    let mut history = args.stateful.then(History::new);
    let compiled = Compiled::new(&stack);
    let rules = stack.chains().map(|(.., chain)| chain.rules.len()).sum::<usize>();
    let mut near = (NEAR_RULES / rules.max(1)).clamp(16, NEAR_PACKETS);
    let mut answer = |asked: Asked, alone: bool, answers: &mut Answers<'_>| -> anyhow::Result<()> {
        let (mut packet, at) = asked;
        if let (Some(history), Some(at)) = (&mut history, at) {
            history.at(at);
        }
        if packet.in_.is_none() && packet.hook != Some(crate::firewall::Hook::Output) {
            packet.in_.clone_from(&args.in_);
        }
        let mut told = if near > 0 || answers.verbose {
            near = near.saturating_sub(1);
            compiled.explain(&packet, &facts, history.as_mut())
        } else {
            compiled.answer(&packet, &facts, history.as_mut())
        };
        if !told.is_decided() && told.verdict() == Verdict::Accept && !sees(&stack, packet.is_v6()) {
            let family = if packet.is_v6() { "IPv6" } else { "IPv4" };
            told.assume(format!("this host has no rules for {family}: none were given"));
        }
        answers.one(&stack, &packet, told, alone)
    };
    match &args.packets {
        None => {
            let list = given(&args.packet)?;
            warn(&args.packet.iter().zip(&list).filter_map(bare_port).collect::<Vec<_>>(), global.verbose, style);
            let alone = list.len() == 1;
            for asked in list {
                answer(asked, alone, &mut answers)?;
            }
        }
        Some(file) if stdin => stream(file, host.as_ref(), global, style, &mut |asked, flush| {
            answer(asked, false, &mut answers)?;
            if flush {
                answers.out.flush()?;
            }
            Ok(())
        })?,
        Some(file) => {
            let bytes = read::whole(file)?;
            let list = file_packets(file, &bytes, host.as_ref(), global, style)?;
            let alone = list.len() == 1;
            for asked in list {
                answer(asked, alone, &mut answers)?;
            }
        }
    }
    let code = answers.end();
    // The program ends here: taking a large ruleset apart, piece by piece, would only take time.
    drop(compiled);
    std::mem::forget(stack);
    code
}

/// A packet, and when it was seen, where a capture says: measured from 1970-01-01 UTC.
type Asked = (Packet, Option<Duration>);

/// The packets of `--packet`.
fn given(texts: &[String]) -> anyhow::Result<Vec<Asked>> {
    let mut list = Vec::new();
    for text in texts {
        let line = text.replace(['\n', '\r'], " ");
        match packets::line("--packet", 1, &line).map_err(|error| bad(&error))? {
            Some(packet) => list.push((packet, None)),
            None => return Err(Failure::usage("--packet: there is no packet in it", None)),
        }
    }
    Ok(list)
}

/// `fd00::2:443` is an address; whoever writes it after `tcp` may have meant a port.
fn bare_port((text, (packet, _)): (&String, &Asked)) -> Option<String> {
    if !packet.is_v6() || packet.dport.is_some() || !matches!(packet.protocol().0, 6 | 17) {
        return None;
    }
    let word = text.split_whitespace().find(|word| word.parse() == Ok(packet.dst))?;
    let (addr, port) = word.rsplit_once(':')?;
    let meant = addr.parse::<std::net::Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok();
    meant.then(|| format!("`{word}` is an address; with a port it is `[{addr}]:{port}`"))
}

fn bad(error: &ParseError) -> anyhow::Error {
    Failure::usage(clean(&error.to_string()), None)
}

/// All packets of a file, none where one of them is bad.
fn file_packets(
    file: &Path,
    bytes: &[u8],
    host: Option<&HostFacts>,
    global: &Global,
    style: Style,
) -> anyhow::Result<Vec<Asked>> {
    let source = read::name(file);
    match packets::kind(bytes) {
        Kind::Pcapng => Err(packets::pcapng(file)),
        Kind::Pcap => {
            let captured = pcap::read(bytes, &source, host).map_err(|what| Failure::usage(what, None))?;
            warn(&captured.warnings, global.verbose, style);
            Ok(captured.packets.into_iter().map(|(packet, at)| (packet, Some(at))).collect())
        }
        Kind::Lines => {
            let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(&source, bytes, error.valid_up_to()))?;
            let list = packets::lines(&source, text).map_err(|error| bad(&error))?;
            if list.is_empty() {
                return Err(Failure::usage(format!("{source}: there is no packet in it"), None));
            }
            Ok(list.into_iter().map(|packet| (packet, None)).collect())
        }
    }
}

fn not_utf8(source: &str, bytes: &[u8], at: usize) -> anyhow::Error {
    let before = bytes.get(..at).unwrap_or_default();
    let line = before.split(|byte| *byte == b'\n').count();
    let column = before.len() - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1) + 1;
    Failure::usage(
        format!("{source}:{line}:{column}: this is no UTF-8 text and no capture"),
        Some("packets are lines of JSON, expressions, or a pcap file"),
    )
}

/// What takes each packet; the flag says whether its answer must be seen at once.
type Take<'t> = dyn FnMut(Asked, bool) -> anyhow::Result<()> + 't;

/// Answers the lines of standard input as they come.
fn stream(
    file: &Path,
    host: Option<&HostFacts>,
    global: &Global,
    style: Style,
    take: &mut Take<'_>,
) -> anyhow::Result<()> {
    let source = read::name(file);
    let mut input = BufReader::new(std::io::stdin().lock());
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {source}: {error}"), None);
    let head = input.fill_buf().map_err(cannot)?;
    if !matches!(packets::kind(head), Kind::Lines) {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(cannot)?;
        for asked in file_packets(file, &bytes, host, global, style)? {
            take(asked, false)?;
        }
        return Ok(());
    }
    let (mut number, mut answered) = (0u32, 0usize);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if (&mut input).take(LINE).read_until(b'\n', &mut bytes).map_err(cannot)? == 0 {
            break;
        }
        number = number.saturating_add(1);
        let ended = |error: anyhow::Error| match error.downcast::<Failure>() {
            Ok(failure) if answered > 0 => {
                let told = format!("{}\n{answered} packets before it are answered, nothing after it", failure.what);
                Failure::usage(told, failure.hint.as_deref())
            }
            Ok(failure) => failure.into(),
            Err(error) => error,
        };
        if bytes.len() as u64 == LINE {
            return Err(ended(Failure::usage(format!("{source}:{number}: a line of more than 4 MiB"), None)));
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let place = format!("{source}:{number}:{}", error.valid_up_to() + 1);
            ended(Failure::usage(format!("{place}: this is no UTF-8 text"), None))
        })?;
        if let Some(packet) = packets::line(&source, number, text).map_err(|error| ended(bad(&error)))? {
            // Whoever types, or a program that asks and waits, sees each answer at once.
            take((packet, None), input.buffer().is_empty())?;
            answered += 1;
        }
    }
    if answered == 0 {
        return Err(Failure::usage(format!("{source}: there is no packet in it"), None));
    }
    Ok(())
}

/// Whether some table sees packets of this family at all.
fn sees(stack: &Stack, v6: bool) -> bool {
    stack.rulesets().iter().flat_map(|ruleset| &ruleset.tables).any(|table| table.family.sees(v6))
}

/// What is known of the host: a file's facts, or this host's where its rulesets are meant.
fn host(args: &SimArgs) -> anyhow::Result<Option<HostFacts>> {
    match &args.host {
        Some(file) => facts_of(file).map(Some),
        None => Ok(args.rules.is_live().then(live_facts)),
    }
}

/// This host's facts, as far as the walk asks for them.
pub(super) fn live_facts() -> HostFacts {
    gather(&GatherOptions::only([Part::Links, Part::Addresses, Part::Routes, Part::Rules, Part::Sysctls]))
}

/// The facts in a file.
///
/// # Errors
/// Usage: it cannot be read, or holds something else.
pub(super) fn facts_of(file: &Path) -> anyhow::Result<HostFacts> {
    let hint = Some("a host's facts are what `reachwhy facts --json` prints");
    let bytes = read::whole(file)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("{}:{}:{}", read::name(file), error.line(), error.column());
        let told = error.to_string();
        let why = told.split(" at line ").next().unwrap_or(&told).to_owned();
        Failure::usage(format!("{place}: these are no host's facts: {why}"), hint)
    })
}

/// Where answers go.
struct Answers<'a> {
    out: BufWriter<std::io::StdoutLock<'a>>,
    /// One answer as JSON.
    line: Vec<u8>,
    json: bool,
    style: Style,
    verbose: bool,
    tally: view::Tally,
}

impl Answers<'_> {
    fn one(&mut self, stack: &Stack, packet: &Packet, answer: Answer<'_>, alone: bool) -> anyhow::Result<()> {
        self.tally.count(answer.verdict());
        if self.json {
            self.line.clear();
            serde_json::to_writer(&mut self.line, &answer)?;
            self.line.push(b'\n');
            self.out.write_all(&self.line)?;
        } else if alone || self.verbose {
            if self.tally.total() > 1 {
                writeln!(self.out)?;
            }
            view::outcome(&mut self.out, stack, packet, &answer.outcome(), self.style)?;
        } else {
            view::brief(&mut self.out, packet, &answer.outcome(), self.style)?;
        }
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<u8> {
        if !self.json && self.tally.total() > 1 {
            view::tally(&mut self.out, &self.tally, self.style)?;
        }
        self.out.flush()?;
        Ok(if self.tally.of(Verdict::Unknown) > 0 { Exit::Unknown.code() } else { 0 })
    }
}
