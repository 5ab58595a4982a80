//! `doctor TARGET --watch`: looks again and again until it breaks or heals, and tells the changes.

use std::io::Write;
use std::time::Duration;

use super::look::{Look, failed};
use crate::cli::{Exit, Global};
use crate::doctor::vantage::AgentError;
use crate::doctor::{Code, Diagnosis, Verdict, judge};
use crate::os::{clock, interrupt};
use crate::view::doctor_runs::{WatchEvent, watched};
use crate::view::{self, Style};

/// How often, and how many times.
pub(super) struct Plan {
    pub(super) interval: Duration,
    pub(super) count: Option<u32>,
}

/// Why a watch is over.
#[derive(Clone, Copy, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Why {
    Broke,
    Healed,
    Count,
    Interrupted,
}

#[derive(serde::Serialize)]
struct Line<'a> {
    event: WatchEvent,
    time_ms: u64,
    round: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
}

/// What of a diagnosis must differ for it to be news.
fn essence(diagnosis: &Diagnosis) -> (Verdict, Option<(Code, String)>) {
    (diagnosis.verdict, diagnosis.root_cause.as_ref().map(|cause| (cause.code, cause.object.clone())))
}

/// Watches. The exit code is that of the last state.
pub(super) fn run(mut look: Look, plan: &Plan, global: &Global, style: Style) -> anyhow::Result<u8> {
    interrupt::flag();
    let mut last: Option<Diagnosis> = None;
    // The state it began with, once it was known.
    let mut began: Option<Verdict> = None;
    let mut round = 0_u32;
    loop {
        round += 1;
        let mut progress = look.progress();
        let found = look.case(&mut |what| progress.say(what));
        progress.clear();
        drop(progress);
        let at = clock::wall_ns();
        let diagnosis = match found {
            Ok(case) => judge(&case),
            Err(AgentError::Interrupted) => return end(last.as_ref(), round - 1, Why::Interrupted, global, style),
            // Nothing was ever seen: that is no watch.
            Err(error) if last.is_none() => return Err(failed(&error)),
            Err(error) => unknown(&look, &error),
        };
        let event = match (&last, began) {
            (None, _) => Some(WatchEvent::Start),
            (Some(before), _) if essence(before) == essence(&diagnosis) => None,
            (_, Some(Verdict::Ok)) if diagnosis.verdict == Verdict::Fault => Some(WatchEvent::Breaks),
            (_, Some(Verdict::Fault)) if diagnosis.verdict == Verdict::Ok => Some(WatchEvent::Heals),
            _ => Some(WatchEvent::Changes),
        };
        if let Some(event) = event {
            tell(&Line { event, time_ms: at / 1_000_000, round, why: None, diagnosis: &diagnosis }, at, global, style)?;
        }
        if began.is_none() && diagnosis.verdict != Verdict::Unknown {
            began = Some(diagnosis.verdict);
        }
        last = Some(diagnosis);
        let why = match event {
            Some(WatchEvent::Breaks) => Some(Why::Broke),
            Some(WatchEvent::Heals) => Some(Why::Healed),
            _ if plan.count.is_some_and(|count| round >= count) => Some(Why::Count),
            _ => None,
        };
        if let Some(why) = why {
            return end(last.as_ref(), round, why, global, style);
        }
        let until = clock::monotonic_ns() + u64::try_from(plan.interval.as_nanos()).unwrap_or(u64::MAX >> 1);
        while clock::monotonic_ns() < until {
            if interrupt::asked() {
                return end(last.as_ref(), round, Why::Interrupted, global, style);
            }
            let left = Duration::from_nanos(until.saturating_sub(clock::monotonic_ns()));
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// The way in is gone: that is no verdict on the connection.
fn unknown(look: &Look, error: &AgentError) -> Diagnosis {
    Diagnosis {
        target: look.target.to_string(),
        verdict: Verdict::Unknown,
        root_cause: None,
        also_possible: Vec::new(),
        next: None,
        changed: Vec::new(),
        checks: Vec::new(),
        unseen: vec![error.to_string()],
        ladder: Vec::new(),
    }
}

fn tell(line: &Line<'_>, at_ns: u64, global: &Global, style: Style) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if global.json {
        serde_json::to_writer(&mut out, line)?;
        writeln!(out)?;
    } else {
        watched(&mut out, at_ns, line.event, line.diagnosis, style)?;
        if line.event == WatchEvent::Breaks
            || line.event == WatchEvent::Start && line.diagnosis.verdict == Verdict::Fault
        {
            writeln!(out)?;
            view::doctor::diagnosis(&mut out, line.diagnosis, style, global.verbose > 0)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn end(last: Option<&Diagnosis>, rounds: u32, why: Why, global: &Global, style: Style) -> anyhow::Result<u8> {
    let Some(last) = last else { return Ok(Exit::Unknown.code()) };
    let at = clock::wall_ns();
    if global.json {
        let line =
            Line { event: WatchEvent::End, time_ms: at / 1_000_000, round: rounds, why: Some(why), diagnosis: last };
        tell(&line, at, global, style)?;
    } else if matches!(why, Why::Count | Why::Interrupted) {
        let mut out = std::io::stdout().lock();
        watched(&mut out, at, WatchEvent::End, last, style)?;
        let rounds = if rounds == 1 { "1 look".to_owned() } else { format!("{rounds} looks") };
        writeln!(out, "          {rounds}{}", if matches!(why, Why::Interrupted) { "; stopped" } else { "" })?;
    }
    Ok(last.exit_code())
}
