//! `reachwhy dns --batch FILE`: many names, a line of output for each.

use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::cli::{Failure, Global};
use crate::dns::{BatchResult, Conf, Data, Ending, RType, Server};
use crate::os::dns::{BatchOptions, Stop, facts, run_batch};
use crate::os::files;
use crate::view::{Paint, Style};

/// Resolves each line of `file`.
pub(super) fn run(
    file: &Path,
    types: Vec<RType>,
    given: Vec<Server>,
    patience: Duration,
    global: &Global,
    style: Style,
) -> anyhow::Result<u8> {
    let text = read(file)?;
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split('#').next()?.split_whitespace().next())
        .filter(|name| !name.is_empty())
        .collect();
    let stop = Stop::watch();
    let conf = Conf::read(&facts::resolver_facts(), None);
    let servers = if given.is_empty() { conf.servers.clone() } else { given };
    let options = BatchOptions { servers, types, patience, stop };
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let (mut found, mut told) = (0_usize, 0_usize);
    let report = run_batch(&names, &conf, &options, &mut |result| {
        told += 1;
        found += usize::from(result.ending == Ending::Found);
        if global.json { json(&mut out, &result, &options.servers) } else { line(&mut out, &result, style) }
    })?;
    out.flush()?;
    if std::io::stderr().is_terminal() || global.verbose > 0 {
        let seconds = report.took.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = told as f64 / seconds.max(1e-9);
        let partial = if report.stopped { "; interrupted, this is a part" } else { "" };
        let text = format!("{told} names in {seconds:.2} s ({rate:.0}/s), {found} found{partial}\n");
        let _ = std::io::stderr().write_all(style.paint(Paint::Dim, text).as_bytes());
    }
    Ok(if report.stopped { 3 } else { u8::from(found < names.len()) })
}

fn read(file: &Path) -> anyhow::Result<String> {
    let octets = if file == Path::new("-") {
        let mut octets = Vec::new();
        std::io::stdin().lock().take(256 << 20).read_to_end(&mut octets).map(|_| octets)
    } else {
        files::read_whole(file)
    };
    let octets = octets.map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display()), None))?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// `NAME<tab>ANSWER ANSWER…`, or what was said instead.
fn line(out: &mut dyn Write, result: &BatchResult, style: Style) -> std::io::Result<()> {
    write!(out, "{}\t", result.name.escape_debug())?;
    for (at, answer) in result.answers.iter().enumerate() {
        let gap = if at > 0 { " " } else { "" };
        write!(out, "{gap}{}", answer.data)?;
    }
    match words(&result.ending) {
        Some(words) => writeln!(out, "{}", style.paint(Paint::Warn, words)),
        None => writeln!(out),
    }
}

fn words(ending: &Ending) -> Option<String> {
    match ending {
        Ending::Found => None,
        Ending::Said(words) => Some(words.clone()),
        Ending::Timeout | Ending::Truncated(_) => Some("timeout".to_owned()),
        Ending::BadName(why) => Some(format!("bad name: {why}")),
    }
}

fn json(out: &mut dyn Write, result: &BatchResult, servers: &[Server]) -> std::io::Result<()> {
    let server = result.server.and_then(|server| servers.get(server)).map(ToString::to_string);
    let answers: Vec<serde_json::Value> = result
        .answers
        .iter()
        .map(|answer| {
            let address = match answer.data {
                Data::Address(address) => Some(address),
                _ => None,
            };
            let source = match (answer.line, answer.ttl) {
                (Some(_), _) => "hosts",
                (None, Some(_)) => "dns",
                (None, None) => "literal",
            };
            let mut value = serde_json::json!({
                "address": address, "source": source, "ttl": answer.ttl, "line": answer.line,
                "server": answer.ttl.and(server.as_ref()),
            });
            if address.is_none() {
                value["data"] = answer.data.to_string().into();
            }
            value
        })
        .collect();
    let value = serde_json::json!({
        "name": result.name, "answers": answers, "error": words(&result.ending), "server": server,
        "asked": result.asked, "ms": crate::dns::report::ms(result.took),
    });
    serde_json::to_writer(&mut *out, &value)?;
    out.write_all(b"\n")
}
