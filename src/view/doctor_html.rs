//! A diagnosis as one HTML page that needs nothing besides itself: no script, no font, no network.

use std::fmt::Write as _;

use super::doctor::{duration, grouped, label, place, sentence};
use crate::doctor::{Check, Diagnosis, Evidence, Fix, RootCause, Rung, Status, Verdict, Where};

const STYLE: &str = "
:root { color-scheme: light dark; --fg: #1c2128; --dim: #667; --bg: #fff; --box: #f4f5f7; --line: #d5d9e0;
  --good: #1a7f37; --bad: #c62828; --warn: #9a6700; --cmd: #0b4fa0; }
@media (prefers-color-scheme: dark) { :root { --fg: #e6e8eb; --dim: #9aa4b2; --bg: #14171c; --box: #1e232b;
  --line: #38404c; --good: #4cc26a; --bad: #ff6b6b; --warn: #e3b341; --cmd: #7ab7ff; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.35rem; line-height: 1.35; border-left: .4rem solid var(--tone); padding-left: .8rem; }
h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
code, pre, .code { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: var(--box); padding: .6rem .8rem; border-radius: .3rem; overflow-x: auto; color: var(--cmd); margin: .4rem 0; }
table { border-collapse: collapse; width: 100%; }
td { padding: .25rem .6rem .25rem 0; vertical-align: top; border-top: 1px solid var(--line); }
td.mark { width: 1.2rem; text-align: center; } td.step { white-space: nowrap; }
.pass { color: var(--good); } .fail { color: var(--bad); } .warn { color: var(--warn); } .dim { color: var(--dim); }
ul { padding-left: 1.2rem; } li { margin: .3rem 0; } .source { color: var(--dim); font-size: .9em; }
svg { width: 100%; height: auto; background: var(--box); border-radius: .4rem; } svg text { fill: var(--fg); font: 12px system-ui, sans-serif; }
svg .small { font-size: 10.5px; fill: var(--dim); }
footer { margin-top: 3rem; color: var(--dim); font-size: .85em; }
";

/// The whole page.
pub fn page(diagnosis: &Diagnosis) -> String {
    let (tone, headline) = match (diagnosis.verdict, &diagnosis.root_cause) {
        (Verdict::Ok, _) => ("good", format!("{} answers as it should.", diagnosis.target)),
        (_, Some(cause)) => ("bad", cause.summary.clone()),
        (_, None) => ("warn", format!("Whether {} works could not be found out from here.", diagnosis.target)),
    };
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">");
    out += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
    let _ = write!(out, "<title>{} · reachwhy</title><style>{STYLE}</style></head>\n<body>\n", text(&diagnosis.target));
    let _ =
        writeln!(out, "<p class=\"dim\">reachwhy doctor <span class=\"code\">{}</span></p>", text(&diagnosis.target));
    let _ = writeln!(out, "<h1 style=\"--tone: var(--{tone})\">{}</h1>", text(&headline));
    if let Some(cause) = &diagnosis.root_cause {
        let _ = writeln!(
            out,
            "<p><code>{}</code> · on the {} · {} · to change: <span class=\"code\">{}</span></p>",
            cause.code,
            place(cause.place),
            cause.confidence,
            text(&cause.object)
        );
        fixes(&mut out, cause);
    }
    if let Some(next) = &diagnosis.next {
        let _ = writeln!(out, "<h2>To settle it</h2>\n<pre>{}</pre>", text(next));
    }
    drawing(&mut out, &diagnosis.ladder);
    walk(&mut out, &diagnosis.checks);
    if let Some(cause) = &diagnosis.root_cause {
        evidence(&mut out, "Why we say so", &cause.evidence);
        let codes = grouped(cause);
        list(&mut out, "Ruled out", codes.iter().map(String::as_str));
    }
    let also = diagnosis.also_possible.iter().map(|code| format!("{code}: {}", code.meaning()));
    let also: Vec<String> = also.collect();
    list(&mut out, "Not told apart from here", also.iter().map(String::as_str));
    list(&mut out, "Not seen", diagnosis.unseen.iter().map(String::as_str));
    list(&mut out, "Touched while measuring", diagnosis.changed.iter().map(String::as_str));
    if let Ok(json) = serde_json::to_string_pretty(diagnosis) {
        let _ = writeln!(
            out,
            "<details><summary class=\"dim\">The same as JSON</summary><pre>{}</pre></details>",
            text(&json)
        );
    }
    let _ = writeln!(out, "<footer>reachwhy {}</footer>\n</body>\n</html>", env!("CARGO_PKG_VERSION"));
    out
}

/// Text that stands between tags or in a quoted attribute.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for letter in raw.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(letter),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

fn fixes(out: &mut String, cause: &RootCause) {
    for Fix { explain, command, undo, on, verified } in &cause.fix {
        let verified = if *verified { " <span class=\"pass\">(verified)</span>" } else { "" };
        let _ = writeln!(out, "<h2>Fix on the {}{verified}</h2>\n<p>{}</p>", place(*on), text(&sentence(explain)));
        if !command.is_empty() {
            let _ = writeln!(out, "<pre>{}</pre>", text(command));
        }
        if !undo.is_empty() {
            let _ = writeln!(out, "<p class=\"dim\">undo: <span class=\"code\">{}</span></p>", text(undo));
        }
    }
}

fn walk(out: &mut String, checks: &[Check]) {
    *out += "<h2>The walk</h2>\n<table>\n";
    for check in checks {
        let (mark, class) = match check.status {
            Status::Pass => ("✓", "pass"),
            Status::Fail => ("✗", "fail"),
            Status::Warn => ("!", "warn"),
            Status::Skip => ("-", "dim"),
            Status::Info => ("·", "dim"),
        };
        let time = check.ms.map(|ms| format!(" <span class=\"dim\">({})</span>", duration(ms))).unwrap_or_default();
        let _ = write!(
            out,
            "<tr><td class=\"mark {class}\">{mark}</td><td class=\"step\">{}</td><td>{}{time}",
            text(&label(check)),
            text(&check.summary)
        );
        for seen in &check.evidence {
            let _ = write!(out, "<div class=\"source\">{} [{}]</div>", text(&seen.says), text(&seen.source));
        }
        *out += "</td></tr>\n";
    }
    *out += "</table>\n";
}

fn evidence(out: &mut String, title: &str, seen: &[Evidence]) {
    if seen.is_empty() {
        return;
    }
    let _ = writeln!(out, "<h2>{title}</h2>\n<ul>");
    for Evidence { says, source } in seen {
        let _ = writeln!(out, "<li>{}<div class=\"source\">{}</div></li>", text(says), text(source));
    }
    *out += "</ul>\n";
}

fn list<'a>(out: &mut String, title: &str, lines: impl Iterator<Item = &'a str>) {
    let mut items = String::new();
    for line in lines {
        let _ = writeln!(items, "<li>{}</li>", text(line));
    }
    if !items.is_empty() {
        let _ = writeln!(out, "<h2>{title}</h2>\n<ul>\n{items}</ul>");
    }
}

/// One place on a packet's way, and how many were counted there.
struct Stop {
    name: String,
    host: Where,
    count: u64,
}

/// Both ways as two rows of stops: the request from left to right, the answer back below it.
fn drawing(out: &mut String, rungs: &[Rung]) {
    let stop = |rung: &Rung, count: u64| Stop { name: rung.at.clone(), host: rung.host, count };
    let there: Vec<Stop> = rungs.iter().filter_map(|rung| rung.request.map(|n| stop(rung, n))).collect();
    // The ladder is listed host by host; an answer leaves the server's hooks, then both wires, then ours.
    let mut back: Vec<(u8, Stop)> = Vec::new();
    for rung in rungs {
        let Some(count) = rung.reply else { continue };
        let turn = match (rung.host, rung.at == "wire") {
            (Where::Server, false) => 0,
            (Where::Server, true) => 1,
            (_, true) => 2,
            (_, false) => 3,
        };
        back.push((turn, stop(rung, count)));
    }
    back.sort_by_key(|(turn, _)| *turn);
    let back: Vec<Stop> = back.into_iter().map(|(_, stop)| stop).collect();
    let most = there.len().max(back.len());
    if most == 0 {
        return;
    }
    let width = 60 + most * 100;
    *out += "<h2>Where the packets were counted</h2>\n";
    let _ = writeln!(out, "<svg viewBox=\"0 0 {width} 210\" role=\"img\" aria-label=\"packets counted on the way\">");
    row(out, "request →", &there, 20, width, false);
    row(out, "← answer", &back, 115, width, true);
    *out += "</svg>\n";
}

fn row(out: &mut String, title: &str, stops: &[Stop], top: usize, width: usize, leftward: bool) {
    if stops.is_empty() {
        return;
    }
    let _ = writeln!(out, "<text x=\"16\" y=\"{top}\">{title}</text>");
    let place = |index: usize| if leftward { width - 80 - index * 100 } else { 80 + index * 100 };
    let y = top + 30;
    // A nought is a loss only where packets of that way were counted at all.
    let seen = stops.iter().any(|stop| stop.count > 0);
    for (index, stop) in stops.iter().enumerate() {
        let x = place(index);
        let colour = if stop.count > 0 {
            "good"
        } else if seen {
            "bad"
        } else {
            "dim"
        };
        if index > 0 {
            let before = place(index - 1);
            let dash = if stop.count == 0 { " stroke-dasharray=\"4 4\"" } else { "" };
            let (from, to) = if leftward { (before - 16, x + 16) } else { (before + 16, x - 16) };
            let _ = writeln!(
                out,
                "<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" stroke=\"var(--{colour})\" stroke-width=\"2\"{dash}/>"
            );
        }
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"15\" fill=\"var(--bg)\" stroke=\"var(--{colour})\" stroke-width=\"2\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" class=\"small\">{}</text>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" class=\"small\">{}</text>",
            y + 4,
            stop.count,
            y + 31,
            stop.host,
            y + 44,
            text(&stop.name)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_becomes_markup() {
        assert_eq!(text("<b a='\"'>&\u{1b}[0m"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;\u{fffd}[0m");
    }
}
