//! Asking again: until all is open, or for ever.

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::{Exit, Global};
use super::Job;
use crate::os::clock;
use crate::port::report::{HostReport, State};
use crate::view::{self, Style};

/// How long one try of a round waits when the user names no time: a service that is about to start answers at once.
const PATIENCE: Duration = Duration::from_secs(1);

fn sleep(job: &Job<'_>, span: Duration) {
    let end = clock::monotonic_ns() + u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 2);
    while !job.stop.load(Ordering::Relaxed) {
        let left = Duration::from_nanos(end.saturating_sub(clock::monotonic_ns()));
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}

fn all_open(reports: &[HostReport]) -> bool {
    let good =
        |report: &HostReport| report.ports.iter().all(|port| matches!(port.state, State::Open | State::Unfiltered));
    reports.iter().all(|report| report.not_asked == 0 && good(report))
}

/// One round, its reports kept.
fn once(job: &Job<'_>) -> anyhow::Result<Vec<HostReport>> {
    let mut reports = Vec::new();
    job.round(false, &mut |report| {
        reports.push(report);
        Ok(())
    })?;
    Ok(reports)
}

/// Until all ports are open.
pub(super) fn wait(job: &Job<'_>, limit: Duration, global: &Global, style: Style) -> anyhow::Result<u8> {
    let start = clock::monotonic_ns();
    let spent = || Duration::from_nanos(clock::monotonic_ns().saturating_sub(start));
    let interval = job.args.interval.unwrap_or(Duration::from_millis(250));
    let mut patient = Job { timeout: Some(job.timeout.unwrap_or(PATIENCE)), ..job.copy() };
    let (reports, open) = loop {
        // The last round must not outlast the limit by much.
        let left = limit.saturating_sub(spent()).max(Duration::from_millis(50));
        patient.timeout = Some(patient.timeout.map_or(left, |timeout| timeout.min(left)));
        let reports = once(&patient)?;
        let open = all_open(&reports);
        let over = spent() + interval >= limit;
        if open || over || job.stop.load(Ordering::Relaxed) {
            break (reports, open);
        }
        sleep(job, interval);
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for report in &reports {
        if global.json {
            serde_json::to_writer(&mut out, report)?;
            out.write_all(b"\n")?;
        } else {
            view::port::host(&mut out, report, view::port::Options { open_only: false, all: false }, style)?;
        }
    }
    if !global.json {
        view::port::waited(&mut out, spent(), open, job.stop.load(Ordering::Relaxed), style)?;
    }
    out.flush()?;
    Ok(match (open, job.stop.load(Ordering::Relaxed)) {
        (true, _) => 0,
        (false, true) => Exit::Unknown.code(),
        (false, false) => Exit::Problem.code(),
    })
}

/// Until Ctrl-C, or for the rounds that were asked for.
pub(super) fn watch(job: &Job<'_>, global: &Global, style: Style) -> anyhow::Result<u8> {
    let interval = job.args.interval.unwrap_or(Duration::from_secs(1));
    let patient = Job { timeout: Some(job.timeout.unwrap_or(PATIENCE)), ..job.copy() };
    let mut watch = view::port::Watch::default();
    let mut out = std::io::stdout().lock();
    let mut last_open = false;
    let mut rounds = 0u32;
    while !job.stop.load(Ordering::Relaxed) && job.args.count.is_none_or(|count| rounds < count) {
        if rounds > 0 {
            sleep(job, interval);
            if job.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let reports = once(&patient)?;
        if job.stop.load(Ordering::Relaxed) && reports.iter().any(|report| report.partial) {
            break;
        }
        rounds += 1;
        last_open = all_open(&reports);
        let at = clock::wall_ns();
        if global.json {
            for report in &reports {
                let line = serde_json::json!({"round": rounds, "at_ns": at, "report": report});
                serde_json::to_writer(&mut out, &line)?;
                out.write_all(b"\n")?;
            }
        } else {
            watch.round(&mut out, rounds, at, &reports, style)?;
        }
        out.flush()?;
    }
    if !global.json {
        watch.end(&mut out, style)?;
    }
    out.flush()?;
    Ok(if rounds == 0 {
        Exit::Unknown.code()
    } else if last_open {
        0
    } else {
        Exit::Problem.code()
    })
}
