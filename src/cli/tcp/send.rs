//! `reachwhy tcp send HOST:PORT --flags X`.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Failure, Global};
use crate::cli::{Exit, print_json};
use crate::os::probe::{ProbeError, RunOptions, run as probe};
use crate::os::resolve::resolve;
use crate::probe::{Craft, Outcome, ProbeKind, ProbeReport, ProbeSpec, Reply, ReplyKind};
use crate::tcp::flags::{Came, FlagSet, Judgement, judge};
use crate::tcp::words::options;
use crate::view::text::hang;
use crate::view::{Paint, Style};
use crate::wire::{HexBytes, TcpFlags};

/// What to send where.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs CAP_NET_RAW. The kernel's own TCP knows nothing of the segment, and resets what would open.\n\
    Exit: 0 answered as an open or free port does, 1 closed or answered oddly, 2 bad usage, 3 no answer or no privilege"
)]
pub(super) struct SendArgs {
    #[arg(help = "HOST:PORT or [ADDRESS]:PORT")]
    target: String,
    /// The flags: SYN, 0x12, SA, xmas, null …
    #[arg(long, short = 'F', value_name = "FLAGS", default_value = "SYN")]
    flags: String,
    /// TTL or hop limit
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    ttl: Option<u8>,
    /// Source port; none: a free one
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    sport: Option<u16>,
    /// Sequence number; none: one that nobody can guess
    #[arg(long, value_name = "N")]
    seq: Option<u32>,
    /// Acknowledgement number; none: 0, or with ACK a number of no connection
    #[arg(long, value_name = "N")]
    ack: Option<u32>,
    /// Data behind the header; \r \n \t \0 \\ and \xNN are understood
    #[arg(long, value_name = "TEXT", value_parser = octets)]
    data: Option<Octets>,
    /// How often to send while nothing answers
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    tries: u8,
}

/// What `--data` stands for.
#[derive(Debug, Clone)]
struct Octets(Vec<u8>);

/// The most that fits into a segment on an Ethernet.
const MOST_DATA: usize = 1400;

fn octets(text: &str) -> Result<Octets, String> {
    let mut octets = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        octets.push(match rest.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                let value = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
                value.ok_or_else(|| format!("`\\x{digits}` is no octet; it takes two hexadecimal digits"))?
            }
            other => return Err(format!("`\\{}` stands for nothing", other.map_or(String::new(), String::from))),
        });
    }
    if octets.len() > MOST_DATA {
        return Err(format!("{} octets do not fit into a segment; {MOST_DATA} do", octets.len()));
    }
    Ok(Octets(octets))
}

/// Sends, waits, judges.
pub(super) fn run(args: &SendArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let set = super::flags::parse(&args.flags)?;
    if set.ae {
        return Err(Failure::usage("AE cannot be sent", Some("the eight flags FIN SYN RST PSH ACK URG ECE CWR can")));
    }
    let target = target(&args.target)?;
    let mut kind = ProbeKind::syn(target.ip(), target.port());
    if let ProbeKind::TcpSyn { flags, ttl, sport, .. } = &mut kind {
        (*flags, *ttl, *sport) = (set.flags, args.ttl, args.sport);
    }
    let timeout = global.timeout.unwrap_or(Duration::from_secs(1));
    let mut spec = ProbeSpec::new(0, kind).tries(args.tries, timeout).timeout(timeout);
    if args.seq.is_some() || args.ack.is_some() || args.data.is_some() {
        let data = HexBytes(args.data.clone().map(|data| data.0).unwrap_or_default());
        spec.craft = Some(Craft { seq: args.seq, ack: args.ack, data });
    }
    let report = probe(vec![spec], &RunOptions::default(), &mut |_| {}).map_err(|error| match &error {
        ProbeError::Privilege { hint, .. } => Failure::unknown(&error, Some(hint)),
        ProbeError::System { .. } => Failure::unknown(&error, None),
    })?;
    let Some(probe) = report.probes.first() else {
        return Err(Failure::unknown("nothing was sent", None));
    };
    if probe.outcome == Outcome::LocalError {
        let why = probe.local_error.as_deref().unwrap_or("an unknown error");
        return Err(Failure::unknown(format!("this host did not send it: {why}"), None));
    }
    let judgement = judge(set.flags, came(probe));
    show(args, global, style, target, set, probe, &judgement)?;
    Ok(match (judgement.port, judgement.conforms) {
        (_, Some(false)) | ("closed", _) => Exit::Problem.code(),
        ("filtered" | "open|filtered", _) if probe.replies.is_empty() => Exit::Unknown.code(),
        ("filtered", _) => Exit::Problem.code(),
        _ => 0,
    })
}

fn target(text: &str) -> anyhow::Result<SocketAddr> {
    let hint = Some("192.168.1.3:80, example.org:443, [fd00::3]:22");
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err(Failure::usage("port 0 is reserved", hint)) } else { Ok(address) };
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Failure::usage(format!("`{text}` has no port"), hint));
    };
    let port: u16 = match port.parse() {
        Ok(port) if port > 0 => port,
        _ => return Err(Failure::usage(format!("`{port}` is no port"), hint)),
    };
    if host.is_empty() || host.contains(char::is_whitespace) || host.contains(':') {
        return Err(Failure::usage(format!("`{host}` is no host"), hint));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    let found = resolve(host);
    if let Some(address) = found.addresses.first() {
        return Ok(SocketAddr::new(*address, port));
    }
    let why = found.error.unwrap_or_else(|| "it has no address".to_owned());
    Err(Failure::unknown(format!("cannot find {host}: {why}"), None))
}

/// The answer that decides, else any.
fn came(probe: &ProbeReport) -> Came {
    let Some(reply) = probe.deciding().or_else(|| probe.replies.first()) else { return Came::Nothing };
    match (&reply.kind, &reply.tcp) {
        (ReplyKind::IcmpError(icmp), _) => {
            let v6 = reply.from.is_ipv6();
            let prohibited = if v6 {
                icmp.icmp_type == 1 && matches!(icmp.code, 1 | 5 | 6)
            } else {
                icmp.icmp_type == 3 && matches!(icmp.code, 9 | 10 | 13)
            };
            Came::Icmp { prohibited }
        }
        (_, Some(tcp)) => Came::Segment(tcp.flags.unwrap_or_default(), tcp.acknowledges),
        _ => Came::Nothing,
    }
}

fn show(
    args: &SendArgs,
    global: &Global,
    style: Style,
    target: SocketAddr,
    set: FlagSet,
    probe: &ProbeReport,
    judgement: &Judgement,
) -> anyhow::Result<()> {
    if global.json {
        return print_json(&json!({
            "target": args.target,
            "address": target.to_string(),
            "flags": set.flags.to_string(),
            "seq": args.seq,
            "ack": args.ack,
            "data_len": args.data.as_ref().map_or(0, |data| data.0.len()),
            "sent": probe.sent,
            "answers": probe.replies.iter().map(answer).collect::<Vec<Value>>(),
            "judgement": judgement,
        }));
    }
    let mut out = std::io::stdout().lock();
    for sent in &probe.sent {
        let from = sent.local.map_or(String::new(), |local| format!("{local} → "));
        let numbers = [
            args.seq.map(|seq| format!(" seq {seq}")),
            args.ack.map(|ack| format!(" ack {ack}")),
            args.data.as_ref().map(|data| format!(" len {}", data.0.len())),
        ];
        let numbers: String = numbers.into_iter().flatten().collect();
        writeln!(out, "{}  {from}{target}  {}{numbers}", style.paint(Paint::Name, "sent"), set.flags)?;
    }
    for reply in &probe.replies {
        writeln!(out, "{}  {}", style.paint(Paint::Name, "came"), words(reply))?;
    }
    if probe.replies.is_empty() {
        writeln!(out, "{}  nothing", style.paint(Paint::Name, "came"))?;
    }
    let paint = match (judgement.port, judgement.conforms) {
        (_, Some(false)) | ("closed", _) => Paint::Bad,
        ("open" | "unfiltered", _) => Paint::Good,
        _ => Paint::Warn,
    };
    let text = hang(&format!("{}: ", judgement.port), &judgement.says, style.width);
    write!(out, "{}", text.replacen(judgement.port, &style.paint(paint, judgement.port), 1))?;
    match judgement.conforms {
        Some(true) => writeln!(out, "The answer is what RFC 9293 §3.10.7 asks for.")?,
        Some(false) => writeln!(out, "The answer is not what RFC 9293 §3.10.7 asks for.")?,
        None => {}
    }
    out.flush()?;
    Ok(())
}

fn answer(reply: &Reply) -> Value {
    let mut value = json!({
        "from": reply.from,
        "ttl": reply.ttl,
        "rtt_ms": reply.rtt_us.map(|us| (us / 10.0).round() / 100.0),
    });
    let Some(object) = value.as_object_mut() else { return value };
    if let Some(tcp) = &reply.tcp {
        object.insert("flags".to_owned(), json!(tcp.flags));
        object.insert("window".to_owned(), json!(tcp.window));
        object.insert("options".to_owned(), json!(tcp.options));
        object.insert("acknowledges".to_owned(), json!(tcp.acknowledges));
    }
    if let ReplyKind::IcmpError(icmp) = &reply.kind {
        object.insert("icmp".to_owned(), json!({"type": icmp.icmp_type, "code": icmp.code, "says": icmp.says}));
    }
    value
}

fn words(reply: &Reply) -> String {
    let what = match (&reply.kind, &reply.tcp) {
        (ReplyKind::IcmpError(icmp), _) => format!("ICMP {}", icmp.says),
        (_, Some(tcp)) => {
            let flags = tcp.flags.unwrap_or(TcpFlags(0));
            let window = tcp.window.map(|window| format!(" window {window}")).unwrap_or_default();
            let given = tcp.options.as_ref().map(options).filter(|text| !text.is_empty());
            let fits = if tcp.acknowledges { "" } else { ", its numbers do not answer ours" };
            format!("{flags}{window}{}{fits}", given.map(|text| format!(" <{text}>")).unwrap_or_default())
        }
        _ => "something else".to_owned(),
    };
    let ttl = reply.ttl.map(|ttl| format!(", TTL {ttl}")).unwrap_or_default();
    let rtt = reply.rtt_us.map(|us| format!(", after {:.2} ms", us / 1000.0)).unwrap_or_default();
    format!("{}  {what}{ttl}{rtt}", reply.from)
}
