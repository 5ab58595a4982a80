//! A line for each round, and for each change.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::super::style::{Paint, Style};
use super::{meaning, paint, time};
use crate::port::report::{HostReport, PortReport, State};

/// What was seen of a port over the rounds.
#[derive(Debug, Clone, Default)]
struct Track {
    state: Option<State>,
    rounds: u32,
    open: u32,
    changes: u32,
    times: Vec<f64>,
}

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    ports: BTreeMap<(String, u16), Track>,
}

/// Hours, minutes, seconds, UTC.
fn clock(at_ns: u64) -> String {
    let seconds = at_ns / 1_000_000_000 % 86_400;
    let ms = at_ns / 1_000_000 % 1000;
    format!("{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

impl Watch {
    /// Tells of one round.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn round(
        &mut self,
        out: &mut dyn Write,
        number: u32,
        at_ns: u64,
        reports: &[HostReport],
        style: Style,
    ) -> io::Result<()> {
        let ports: usize = reports.iter().map(|report| report.ports.len()).sum();
        for report in reports {
            for port in &report.ports {
                let track = self.ports.entry((report.address.clone(), port.port)).or_default();
                let before = track.state.replace(port.state);
                track.rounds += 1;
                track.open += u32::from(port.state == State::Open);
                track.times.extend(port.rtt_ms);
                let changed = before.is_some_and(|before| before != port.state);
                track.changes += u32::from(changed);
                // Few ports have a line each time; many only when something happens.
                if changed || before.is_none() || ports <= 4 {
                    Self::line(out, number, at_ns, report, port, before.filter(|_| changed), style)?;
                }
            }
        }
        Ok(())
    }

    fn line(
        out: &mut dyn Write,
        number: u32,
        at_ns: u64,
        report: &HostReport,
        port: &PortReport,
        before: Option<State>,
        style: Style,
    ) -> io::Result<()> {
        let was = before.map_or(String::new(), |before| format!(" (was {})", before.word()));
        let rtt = port.rtt_ms.map_or(String::new(), |ms| format!(" {}", time(ms)));
        let says = meaning(report, port);
        let says = if says.is_empty() { says } else { format!("  {says}") };
        writeln!(
            out,
            "{} #{number} {} {}/{} {}{was} {}{rtt}{says}",
            style.paint(Paint::Dim, clock(at_ns)),
            report.address,
            port.port,
            port.proto,
            style.paint(paint(port.state), port.state.word()),
            port.reason,
        )
    }

    /// Sums up.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn end(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        for ((address, port), track) in &self.ports {
            let mut text =
                format!("{address} {port}: {} of {} rounds open, {} changes", track.open, track.rounds, track.changes);
            if let Some(first) = track.times.first() {
                let low = track.times.iter().copied().fold(*first, f64::min);
                let high = track.times.iter().copied().fold(*first, f64::max);
                #[allow(clippy::cast_precision_loss, reason = "a count of rounds")]
                let count = track.times.len() as f64;
                let mean = track.times.iter().sum::<f64>() / count;
                let spread = (track.times.iter().map(|ms| (ms - mean).powi(2)).sum::<f64>() / count).sqrt();
                let numbers = [low, mean, high, spread].map(time).join(" / ");
                text = format!("{text}; min / mean / max / deviation {numbers}");
            }
            writeln!(out, "{}", style.paint(Paint::Bold, text))?;
        }
        Ok(())
    }
}
