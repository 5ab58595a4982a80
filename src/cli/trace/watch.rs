//! `reachwhy trace --live` and `--report`: paths watched for longer.

use std::io::IsTerminal as _;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};

use super::target::cannot;
use super::{Lookups, Means, NAME_GRACE, Report, TraceArgs, print};
use crate::cli::{Failure, Global};
use crate::os::interrupt;
use crate::os::probe::{self, RunOptions};
use crate::probe::PathNeeds;
use crate::trace::TraceRequest;
use crate::trace::monitor::{Monitor, WatchReport};
use crate::view::trace::{Labels as _, live, report};
use crate::view::{Style, trace::live::Choice};

/// Rounds of a report when nobody says how many.
const ROUNDS: u32 = 10;
/// The screen is drawn so often.
const FRAME: Duration = Duration::from_millis(100);

fn needs(requests: &[TraceRequest]) -> Vec<PathNeeds> {
    let mut needs = Vec::new();
    for request in requests {
        let need = PathNeeds { v6: request.dst.is_ipv6(), method: request.method };
        if !needs.contains(&need) {
            needs.push(need);
        }
    }
    needs
}

/// Watches for a number of rounds, then reports.
pub(super) fn report(
    args: &TraceArgs,
    global: &Global,
    format: Report,
    requests: Vec<TraceRequest>,
    means: &Means,
    lookups: &mut Lookups,
    style: Style,
) -> anyhow::Result<u8> {
    let needs = needs(&requests);
    let options = RunOptions { cancel: Some(interrupt::flag()), unprivileged: !means.raw, ..RunOptions::default() };
    let rounds = args.count.unwrap_or(ROUNDS);
    let news = |reports: &[WatchReport]| {
        for hop in reports.iter().flat_map(|report| &report.hops) {
            hop.addresses.iter().for_each(|address| lookups.ask(*address));
        }
    };
    let mut monitor = Monitor::new(requests, means.raw, args.interval, Some(rounds), Box::new(news));
    probe::conduct(&mut monitor, &needs, &options).map_err(|error| cannot(&error))?;
    let mut reports = monitor.reports();
    drop(monitor);
    lookups.wait(NAME_GRACE);
    name(&mut reports, lookups);
    match format {
        _ if global.json => json(&reports)?,
        Report::Json => json(&reports)?,
        Report::Text => print(&report::text(&reports, style))?,
        Report::Csv => print(&report::csv(&reports))?,
        Report::Md => print(&report::markdown(&reports))?,
    }
    Ok(code(&reports))
}

fn json(reports: &[WatchReport]) -> anyhow::Result<()> {
    if let [one] = reports { crate::cli::print_json(one) } else { crate::cli::print_json(&reports) }
}

fn code(reports: &[WatchReport]) -> u8 {
    u8::from(reports.iter().any(|report| !report.reached))
}

fn name(reports: &mut [WatchReport], lookups: &mut Lookups) {
    for hop in reports.iter_mut().flat_map(|report| &mut report.hops) {
        hop.names = hop.addresses.iter().filter_map(|address| lookups.name(*address)).collect();
    }
}

/// Shows the paths on the screen until the viewer has seen enough.
pub(super) fn live(
    args: &TraceArgs,
    requests: &[TraceRequest],
    means: &Means,
    lookups: &mut Lookups,
    style: Style,
) -> anyhow::Result<u8> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("--live needs a terminal", Some("--report=text prints the same once")));
    }
    let stop = interrupt::flag();
    let needs = needs(requests);
    let shared: Mutex<Vec<WatchReport>> = Mutex::new(Vec::new());
    let mut choice = Choice { color: style.color, ..Choice::default() };
    let mut last = Vec::new();
    loop {
        let mut again = false;
        let requests = requests.to_vec();
        let outcome = std::thread::scope(|scope| {
            let prober = scope.spawn(|| {
                let options = RunOptions { cancel: Some(stop), unprivileged: !means.raw, ..RunOptions::default() };
                let news = |reports: &[WatchReport]| {
                    reports.clone_into(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
                };
                let mut monitor = Monitor::new(requests, means.raw, args.interval, args.count, Box::new(news));
                probe::conduct(&mut monitor, &needs, &options).map(|_| ())
            });
            let mut terminal = ratatui::init();
            let mut shown = || -> std::io::Result<()> {
                while !prober.is_finished() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if !choice.frozen {
                        last.clone_from(&shared.lock().unwrap_or_else(PoisonError::into_inner));
                        for hop in last.iter().flat_map(|report: &WatchReport| &report.hops) {
                            hop.addresses.iter().for_each(|address| lookups.ask(*address));
                        }
                        name(&mut last, lookups);
                    }
                    terminal.draw(|frame| live::draw(frame, &last, &choice))?;
                    if !event::poll(FRAME)? {
                        continue;
                    }
                    match key(&event::read()?, &mut choice, &last) {
                        Wish::Go => {}
                        Wish::End => break,
                        Wish::Anew => {
                            again = true;
                            break;
                        }
                    }
                }
                Ok(())
            };
            let drawn = shown();
            ratatui::restore();
            stop.store(true, Ordering::Relaxed);
            let probed = prober.join().unwrap_or(Ok(()));
            drawn.map_err(anyhow::Error::from).and_then(|()| probed.map_err(|error| cannot(&error)))
        });
        outcome?;
        // What came after the last picture counts too.
        last.clone_from(&shared.lock().unwrap_or_else(PoisonError::into_inner));
        name(&mut last, lookups);
        if !again {
            break;
        }
        stop.store(false, Ordering::Relaxed);
    }
    print(&report::text(&last, style))?;
    Ok(code(&last))
}

enum Wish {
    Go,
    End,
    Anew,
}

fn key(input: &Input, choice: &mut Choice, reports: &[WatchReport]) -> Wish {
    let Input::Key(key) = input else { return Wish::Go };
    if key.kind == KeyEventKind::Release {
        return Wish::Go;
    }
    let hops = reports.get(choice.target).map_or(0, |report| report.hops.len());
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::End,
        KeyCode::Char('q') | KeyCode::Esc => return Wish::End,
        KeyCode::Char('r') => return Wish::Anew,
        KeyCode::Char(' ' | 'p') => choice.frozen = !choice.frozen,
        KeyCode::Up | KeyCode::Char('k') => choice.hop = choice.hop.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => choice.hop = (choice.hop + 1).min(hops.saturating_sub(1)),
        KeyCode::Enter | KeyCode::Char('d') => choice.details = !choice.details,
        KeyCode::Char('?') => choice.help = !choice.help,
        KeyCode::Right | KeyCode::Tab => choice.target = (choice.target + 1) % reports.len().max(1),
        KeyCode::Left => choice.target = (choice.target + reports.len().saturating_sub(1)) % reports.len().max(1),
        _ => {}
    }
    Wish::Go
}
