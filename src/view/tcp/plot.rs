//! Plots of a connection over time, as drawings.

use std::fmt::Write;

use super::svg::escape;
use crate::tcp::{Code, Connection};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 30.0;
const TOP: f64 = 24.0;

/// Points of one colour.
struct Series {
    name: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
    line: bool,
}

#[allow(clippy::cast_precision_loss, reason = "for the eye")]
fn seconds(connection: &Connection, ns: u64) -> f64 {
    ns.saturating_sub(connection.first.ns) as f64 / 1e9
}

/// Time-sequence, round trips, window, throughput: of the end that sent more.
pub(super) fn plots(connection: &Connection) -> String {
    let side = usize::from(connection.ends[1].data > connection.ends[0].data);
    let mut text = String::new();
    text.push_str(&draw("sequence number (octets)", &sequence(connection, side)));
    text.push_str(&draw("round trip (ms)", &round_trips(connection)));
    text.push_str(&draw("in flight and window (octets)", &windows(connection, side)));
    text.push_str(&draw("throughput (kB/s)", &throughput(connection, side)));
    text
}

fn sequence(connection: &Connection, side: usize) -> Vec<Series> {
    let base = connection.ends[side].direction.base.unwrap_or(0);
    let mut sent = Vec::new();
    let mut again = Vec::new();
    let mut acked = Vec::new();
    for step in &connection.steps {
        let x = seconds(connection, step.at.ns);
        if step.side == side && step.len > 0 {
            let y = f64::from(step.seq.wrapping_sub(base));
            let repeated = step.codes.any(&[Code::Retransmission, Code::OutOfOrder]);
            if repeated { again.push((x, y)) } else { sent.push((x, y)) }
        } else if step.side != side && step.flags.contains(crate::wire::TcpFlags::ACK) {
            acked.push((x, f64::from(step.ack.wrapping_sub(base))));
        }
    }
    vec![
        Series { name: "acknowledged", colour: "#2a2", points: acked, line: true },
        Series { name: "sent", colour: "#06a", points: sent, line: false },
        Series { name: "sent again", colour: "#c00", points: again, line: false },
    ]
}

#[allow(clippy::cast_precision_loss, reason = "for the eye")]
fn round_trips(connection: &Connection) -> Vec<Series> {
    let of = |side: usize| {
        let steps = connection.steps.iter().filter(|step| step.side != side);
        steps.filter_map(|step| Some((seconds(connection, step.at.ns), step.acks?.1 as f64 / 1e6))).collect()
    };
    let client = connection.client();
    vec![
        Series { name: "to the server", colour: "#06a", points: of(client), line: false },
        Series { name: "to the client", colour: "#b60", points: of(1 - client), line: false },
    ]
}

fn windows(connection: &Connection, side: usize) -> Vec<Series> {
    let mut flight = Vec::new();
    let mut window = Vec::new();
    for step in &connection.steps {
        let x = seconds(connection, step.at.ns);
        if step.side == side {
            flight.push((x, f64::from(step.in_flight)));
        } else {
            window.push((x, f64::from(step.window)));
        }
    }
    vec![
        Series { name: "window of the receiver", colour: "#b60", points: window, line: true },
        Series { name: "in flight", colour: "#06a", points: flight, line: true },
    ]
}

fn throughput(connection: &Connection, side: usize) -> Vec<Series> {
    const SLOTS: usize = 60;
    let length = seconds(connection, connection.last.ns).max(1e-6);
    let mut slots = [0.0f64; SLOTS];
    for step in connection.steps.iter().filter(|step| step.side == side) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a slot"
        )]
        let slot = (seconds(connection, step.at.ns) / length * SLOTS as f64) as usize;
        slots[slot.min(SLOTS - 1)] += f64::from(step.len);
    }
    #[allow(clippy::cast_precision_loss, reason = "60 slots")]
    let points = slots
        .iter()
        .enumerate()
        .map(|(n, octets)| ((n as f64 + 0.5) / SLOTS as f64 * length, octets / 1000.0 / (length / SLOTS as f64)))
        .collect();
    vec![Series { name: "data", colour: "#06a", points, line: true }]
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.1}G", value / 1e9),
        v if v >= 1e6 => format!("{:.1}M", value / 1e6),
        v if v >= 1e4 => format!("{:.0}k", value / 1e3),
        v if v >= 10.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

fn draw(title: &str, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|one| one.points.iter());
    let (far, high) = all().fold((1e-6f64, 1e-6f64), |(far, high), (x, y)| (far.max(*x), high.max(*y)));
    let x = |value: f64| LEFT + value / far * (WIDTH - LEFT - 12.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / high * (HEIGHT - BOTTOM - TOP);
    let mut text = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="10" role="img"><rect width="100%" height="100%" fill="#fff"/><text x="{LEFT}" y="14" font-weight="bold">{}</text>"##,
        escape(title)
    );
    for tick in 0..=4 {
        let part = f64::from(tick) / 4.0;
        let (tx, ty) = (x(part * far), y(part * high));
        let _ = write!(
            text,
            r##"<path d="M{LEFT} {ty:.1}H{right}" stroke="#eee"/><text x="{label}" y="{under:.1}" text-anchor="end">{}</text><text x="{tx:.1}" y="{foot}" text-anchor="middle">{}s</text>"##,
            number(part * high),
            number(part * far),
            right = WIDTH - 12.0,
            label = LEFT - 4.0,
            under = ty + 3.0,
            foot = HEIGHT - 14.0,
        );
    }
    let mut legend = LEFT;
    for one in series {
        let _ = write!(
            text,
            r#"<text x="{legend}" y="{}" fill="{}">■ {}</text>"#,
            HEIGHT - 2.0,
            one.colour,
            escape(one.name)
        );
        legend += 14.0 + 6.0 * f64::from(u32::try_from(one.name.len()).unwrap_or(0));
        if one.line && one.points.len() > 1 {
            let path: Vec<String> = one.points.iter().map(|(px, py)| format!("{:.1} {:.1}", x(*px), y(*py))).collect();
            let _ = write!(text, r#"<path d="M{}" fill="none" stroke="{}"/>"#, path.join("L"), one.colour);
        } else {
            for (px, py) in &one.points {
                let _ =
                    write!(text, r#"<circle cx="{:.1}" cy="{:.1}" r="1.6" fill="{}"/>"#, x(*px), y(*py), one.colour);
            }
        }
    }
    text.push_str("</svg>\n");
    text
}
