//! The live view: what a screen shows of paths that are being watched.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState, Wrap};

use super::milliseconds;
use super::report::who;
use crate::trace::monitor::{HopReport, WatchReport};
use crate::trace::return_length;
use crate::wire::{Decoded, Encapsulation};

/// What the viewer has chosen.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Which target.
    pub target: usize,
    /// Which hop, by its place.
    pub hop: usize,
    /// Whether the picture stands still.
    pub frozen: bool,
    /// Whether the chosen hop is shown in detail.
    pub details: bool,
    /// Whether the keys are shown.
    pub help: bool,
    /// Whether colours may be used.
    pub color: bool,
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Choice {
    fn paint(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, reports: &[WatchReport], choice: &Choice) {
    let Some(report) = reports.get(choice.target.min(reports.len().saturating_sub(1))) else { return };
    let lower = if choice.help {
        9
    } else if choice.details {
        16
    } else {
        (2 + u16::try_from(report.changes.len()).unwrap_or(0)).min(5)
    };
    let parts = [Constraint::Length(2), Constraint::Min(4), Constraint::Length(lower), Constraint::Length(1)];
    let [top, middle, below, bottom] = Layout::vertical(parts).areas(frame.area());
    head(frame, top, reports, report, choice);
    hops(frame, middle, report, choice);
    if choice.help {
        keys(frame, below);
    } else if choice.details {
        details(frame, below, report, choice);
    } else {
        changes(frame, below, report);
    }
    let text = "q quit  space freeze  ↑↓ hop  enter details  ←→ target  r reset  ? keys";
    frame.render_widget(Paragraph::new(text).style(Style::new().add_modifier(Modifier::DIM)), bottom);
}

fn head(frame: &mut Frame<'_>, area: Rect, reports: &[WatchReport], report: &WatchReport, choice: &Choice) {
    let mut spans = vec![Span::styled("reachwhy trace ", Style::new().add_modifier(Modifier::BOLD))];
    for (at, one) in reports.iter().enumerate() {
        let style = if at == choice.target && reports.len() > 1 {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        spans.push(Span::styled(format!(" {} ", one.target), style));
    }
    let state = if choice.frozen { "  FROZEN" } else { "" };
    let reached = if report.reached { "destination answers" } else { "destination does not answer" };
    let second = format!("{} by {}, round {}, {reached}{state}", report.address, report.protocol, report.rounds);
    frame.render_widget(Paragraph::new(vec![Line::from(spans), Line::from(second)]), area);
}

/// Round trips as bars, × where nothing came back.
pub fn strip(values: &[Option<f64>], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let most = shown.iter().flatten().copied().fold(0.0_f64, f64::max).max(1e-9);
    let bar = |value: &Option<f64>| match value {
        None => '×',
        Some(value) => {
            // The share is between 0 and 1.
            let level = BARS.iter().zip(1u8..).find(|(_, level)| value / most <= f64::from(*level) / 8.0);
            level.map_or('█', |(bar, _)| *bar)
        }
    };
    shown.iter().map(bar).collect()
}

fn hops(frame: &mut Frame<'_>, area: Rect, report: &WatchReport, choice: &Choice) {
    let wide = area.width >= 100;
    let address = if wide { 38 } else { 24 };
    let mut widths = vec![Constraint::Length(3), Constraint::Length(address)];
    let mut names = vec!["hop", "address", "loss%", "sent", "last", "avg", "best", "worst"];
    if wide {
        names.extend(["stddev", "jitter"]);
    }
    widths.extend(names.iter().skip(2).map(|_| Constraint::Length(6)));
    names.push("history");
    widths.push(Constraint::Min(8));
    let taken: usize = 4 + usize::from(address) + 7 * (names.len() - 3) + 2;
    let room = usize::from(area.width).saturating_sub(taken).clamp(8, crate::trace::monitor::STRIP);
    let rows = report.hops.iter().map(|hop| row(hop, wide, room, choice));
    let header = Row::new(names).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let table =
        Table::new(rows, widths).header(header).row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(choice.hop.min(report.hops.len().saturating_sub(1))));
    frame.render_stateful_widget(table, area, &mut state);
}

fn row<'a>(hop: &HopReport, wide: bool, room: usize, choice: &Choice) -> Row<'a> {
    let ms = |value: Option<f64>| Cell::from(value.map_or("-".to_owned(), milliseconds));
    let loss = hop.loss_percent.unwrap_or(0.0);
    // A limit on answers is no loss, and is not shown as if it were.
    let limited = hop.rate_limit.is_some();
    let color = match loss {
        _ if limited => Color::Cyan,
        _ if loss >= 50.0 => Color::Red,
        _ if loss > 0.0 => Color::Yellow,
        _ => Color::Green,
    };
    let shown = hop.loss_percent.map_or("-".to_owned(), |loss| format!("{loss:.1}{}", if limited { "L" } else { "" }));
    let mut cells = vec![
        Cell::from(format!("{:>3}", hop.ttl)),
        Cell::from(who(hop)),
        Cell::from(shown).style(choice.paint(color)),
        Cell::from(hop.sent.to_string()),
        ms(hop.times.last_ms),
        ms(hop.times.avg_ms),
        ms(hop.times.best_ms),
        ms(hop.times.worst_ms),
    ];
    if wide {
        cells.extend([ms(hop.times.stddev_ms), ms(hop.times.jitter_ms)]);
    }
    cells.push(Cell::from(strip(&hop.strip, room)));
    Row::new(cells)
}

fn changes(frame: &mut Frame<'_>, area: Rect, report: &WatchReport) {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for hop in &report.hops {
        if let Some(verdict) = &hop.verdict {
            lines.push(Line::from(format!("hop {}: {verdict}", hop.ttl)));
        }
    }
    for change in report.changes.iter().rev() {
        lines.push(Line::from(format!(
            "round {}: hop {} changed from {} to {}",
            change.round, change.ttl, change.from, change.to
        )));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn keys(frame: &mut Frame<'_>, area: Rect) {
    let text = "q, Esc, Ctrl-C  end\nspace, p  freeze the picture; probing goes on\n↑ ↓ j k  choose a hop\nenter, d  the hop in detail, \
                its packets decoded\n← → tab  another target\nr  begin to count anew\n?  these keys\nloss with an L is a limit on answers, no loss";
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title("keys")), area);
}

fn details(frame: &mut Frame<'_>, area: Rect, report: &WatchReport, choice: &Choice) {
    let Some(hop) = report.hops.get(choice.hop.min(report.hops.len().saturating_sub(1))) else { return };
    let mut text = String::new();
    if let Some(verdict) = &hop.verdict {
        let _ = writeln!(text, "{verdict}");
    }
    if hop.addresses.len() > 1 {
        let all: Vec<String> = hop.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "addresses: {}", all.join(" "));
    }
    if let Some(packet) = &hop.packet {
        let _ = writeln!(text, "sent: {}, {} octets", Decoded::parse(Encapsulation::Ip, packet), packet.len());
        for line in packet.chunks(16).take(4) {
            let octets: Vec<String> = line.iter().map(|octet| format!("{octet:02x}")).collect();
            let _ = writeln!(text, "      {}", octets.join(" "));
        }
    }
    if let Some(answer) = &hop.answer {
        let says = answer.icmp.as_ref().map_or(format!("{:?}", answer.said), |icmp| {
            format!("ICMP type {} code {}: {}", icmp.icmp_type, icmp.code, icmp.says)
        });
        let _ = writeln!(text, "came back: {says}");
        if let Some(ttl) = answer.reply_ttl {
            let back = return_length(answer).map_or(String::new(), |back| format!(", {back} hops back"));
            let _ = writeln!(text, "      TTL {ttl} on arrival{back}");
        }
        if let Some(quoted) = &answer.quoted {
            let octets: Vec<String> = quoted.iter().take(28).map(|octet| format!("{octet:02x}")).collect();
            let _ = writeln!(text, "      quotes {} octets behind the IP header: {}", quoted.len(), octets.join(" "));
        }
        for change in &answer.changed {
            let _ = writeln!(text, "      {} changed from {} to {}", change.field, change.sent, change.seen);
        }
        for label in &answer.mpls {
            let _ = writeln!(text, "      MPLS label {} tc {} ttl {}", label.label, label.tc, label.ttl);
        }
    }
    let title = format!("hop {} {}", hop.ttl, who(hop));
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(Block::bordered().title(title)), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::monitor::Times;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn report(hops: u8) -> WatchReport {
        let hop = |ttl: u8| HopReport {
            ttl,
            addresses: vec![format!("10.0.0.{ttl}").parse().unwrap()],
            names: vec![],
            sent: 9,
            received: 8,
            loss_percent: Some(11.1),
            times: Times { last_ms: Some(1.25), ..Times::default() },
            rate_limit: None,
            verdict: Some("loss".to_owned()),
            strip: vec![Some(1.0), None, Some(8.0)],
            answer: None,
            packet: Some(vec![0x45; 60].into()),
        };
        WatchReport {
            target: "x".to_owned(),
            address: "10.0.0.9".parse().unwrap(),
            protocol: "icmp",
            rounds: 9,
            reached: true,
            hops: (1..=hops).map(hop).collect(),
            changes: vec![],
        }
    }

    fn screen(width: u16, height: u16, reports: &[WatchReport], choice: &Choice) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, reports, choice)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn shows_hops_with_their_history() {
        let text = screen(100, 20, &[report(3)], &Choice::default());
        assert!(text.contains("10.0.0.2") && text.contains("11.1") && text.contains("▁×█"), "{text}");
    }

    #[test]
    fn any_size_and_choice_can_be_drawn() {
        for (width, height) in [(1, 1), (20, 5), (40, 24), (200, 60)] {
            for choice in [
                Choice::default(),
                Choice { details: true, hop: 99, target: 7, ..Choice::default() },
                Choice { help: true, frozen: true, color: true, ..Choice::default() },
            ] {
                screen(width, height, &[], &choice);
                screen(width, height, &[report(0), report(30)], &choice);
            }
        }
    }
}
