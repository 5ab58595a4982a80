//! Small phrases that several views need.

use crate::wire::TcpOptions;

/// Options as tcpdump's readers know them: `mss 1460, sackOK, TS, wscale 7`.
pub fn options(options: &TcpOptions) -> String {
    let mut words = Vec::new();
    if let Some(mss) = options.mss {
        words.push(format!("mss {mss}"));
    }
    if options.sack_permitted {
        words.push("sackOK".to_owned());
    }
    if let Some((value, echo)) = options.timestamps {
        words.push(format!("TS val {value} ecr {echo}"));
    }
    if let Some(shift) = options.window_scale {
        words.push(format!("wscale {shift}"));
    }
    for (left, right) in &options.sack {
        words.push(format!("sack {left}-{right}"));
    }
    if options.broken {
        words.push("broken option".to_owned());
    }
    words.join(", ")
}

/// A span of time for people: `0.21 ms`, `1.50 s`.
pub fn span(ns: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..100_000 => format!("{:.1} µs", value / 1e3),
        100_000..10_000_000 => format!("{:.2} ms", value / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// A number of octets for people: `1.4 MB`.
pub fn octets(count: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = count as f64;
    match count {
        0..10_000 => format!("{count} B"),
        10_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

/// `1 packet`, `2 packets`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Nanoseconds as milliseconds, for JSON.
#[allow(clippy::cast_precision_loss, reason = "a microsecond in a day is far above the error")]
pub fn ms(ns: u64) -> f64 {
    (ns as f64 / 1000.0).round() / 1000.0
}

/// Seconds since 1970, rounded once: a number of nanoseconds since then does not fit into a float.
#[allow(clippy::cast_precision_loss, reason = "a fraction of a microsecond is lost, as it must be in a float")]
pub fn seconds(ns: u64) -> f64 {
    const SECOND: u64 = 1_000_000_000;
    (ns / SECOND) as f64 + (ns % SECOND) as f64 / 1e9
}
