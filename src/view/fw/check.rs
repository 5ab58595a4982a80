//! Claims proved and refuted: for people, as TAP 14, as JUnit XML.

use std::io::{self, Write};

use super::query::decided;
use super::{bare, clean};
use crate::firewall::symbolic::{Checked, Quantifier, Report, Unexercised};
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Writes what came of every claim.
///
/// # Errors
/// Those of `out`.
pub fn check(out: &mut dyn Write, report: &Report, style: Style) -> io::Result<()> {
    for check in &report.checks {
        let (mark, paint) = if check.ok { ("✓", Paint::Good) } else { ("✗", Paint::Bad) };
        let text = hang(&format!("{mark} "), &clean(&check.name), style.width);
        write!(out, "{}", text.replacen(mark, &style.paint(paint, mark), 1))?;
        if check.ok && check.reason.is_none() {
            continue;
        }
        if let Some(reason) = &check.reason {
            write!(out, "{}", hang("    ", &clean(reason), style.width))?;
        }
        if let Some(example) = &check.example {
            let word = if check.quantifier == Quantifier::All { "counterexample: " } else { "e.g. " };
            write!(out, "{}", hang(&format!("    {word}"), &clean(example), style.width))?;
        }
        decided(out, "by", check.decided_by.as_ref(), style)?;
        for step in &check.path {
            let line = step.at.line.map_or(String::new(), |line| format!(" (line {line})"));
            let text = format!("{}{line}: {}", step.at.place(), step.action);
            for line in hang("      · ", &clean(&text), style.width).lines() {
                writeln!(out, "{}", style.paint(Paint::Dim, line))?;
            }
        }
    }
    let sum = format!("{} proved, {} refuted", report.passed, report.failed);
    writeln!(out, "\n{}", style.paint(if report.ok { Paint::Good } else { Paint::Bad }, sum))
}

/// Writes the rules that no claim exercises.
///
/// # Errors
/// Those of `out`.
pub fn coverage(out: &mut dyn Write, missing: &[Unexercised], count: usize, style: Style) -> io::Result<()> {
    writeln!(out, "\nClaims exercise {} of {count} rules.", count - missing.len())?;
    for rule in missing {
        let line = rule.line.map_or(String::new(), |line| format!(" (line {line})"));
        let text = format!("{} {} rule {}{line}: {}", rule.table, rule.chain, rule.rule, bare(&rule.text));
        write!(out, "{}", hang("  not exercised: ", &clean(&text), style.width))?;
    }
    Ok(())
}

/// Writes TAP version 14 (testanything.org).
///
/// # Errors
/// Those of `out`.
pub fn tap(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(out, "TAP version 14\n1..{}", report.checks.len())?;
    for (number, check) in (1..).zip(&report.checks) {
        let name = clean(&check.name).replace('\\', "\\\\").replace('#', "\\#");
        writeln!(out, "{} {number} - {name}", if check.ok { "ok" } else { "not ok" })?;
        if check.ok {
            continue;
        }
        writeln!(out, "  ---")?;
        for (key, value) in details(check) {
            writeln!(out, "  {key}: {}", serde_json::Value::String(value))?;
        }
        writeln!(out, "  ...")?;
    }
    Ok(())
}

fn details(check: &Checked) -> Vec<(&'static str, String)> {
    let mut all = vec![("policy", check.policy.clone()), ("expect", check.expect.to_owned())];
    all.extend(check.reason.clone().map(|reason| ("message", reason)));
    all.extend(check.example.clone().map(|example| ("counterexample", example)));
    all.extend(check.verdict.map(|verdict| ("verdict", verdict.to_owned())));
    if let Some(by) = &check.decided_by {
        let line = by.line.map_or(String::new(), |line| format!(", line {line}"));
        all.push(("decided_by", format!("{}{line}: {}", by.place(), bare(&by.text))));
    }
    all
}

/// Writes JUnit XML, as continuous integration reads it.
///
/// # Errors
/// Those of `out`.
pub fn junit(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    let (count, failed) = (report.checks.len(), report.failed);
    writeln!(out, "<testsuites name=\"reachwhy fw check\" tests=\"{count}\" failures=\"{failed}\">")?;
    let mut policies: Vec<&str> = Vec::new();
    for check in &report.checks {
        if !policies.contains(&check.policy.as_str()) {
            policies.push(&check.policy);
        }
    }
    for policy in policies {
        let own: Vec<&Checked> = report.checks.iter().filter(|check| check.policy == policy).collect();
        let failed = own.iter().filter(|check| !check.ok).count();
        writeln!(out, "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\">", xml(policy), own.len())?;
        for check in own {
            write!(out, "    <testcase classname=\"{}\" name=\"{}\"", xml(policy), xml(&check.name))?;
            if check.ok {
                writeln!(out, "/>")?;
                continue;
            }
            let message = check.reason.as_deref().unwrap_or("refuted");
            writeln!(out, ">\n      <failure message=\"{}\" type=\"refuted\">", xml(message))?;
            for (key, value) in details(check) {
                writeln!(out, "{}: {}", xml(key), xml(&value))?;
            }
            writeln!(out, "      </failure>\n    </testcase>")?;
        }
        writeln!(out, "  </testsuite>")?;
    }
    writeln!(out, "</testsuites>")
}

/// Text as XML has it; characters that XML cannot hold are replaced.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}
