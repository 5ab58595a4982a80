//! Two captures of one connection, from two places, laid beside each other.
//!
//! Each segment that one capture has is looked for in the other: it arrived, was lost, was changed on the way, or
//! arrived without ever having been sent. The clocks of the two hosts differ; what is taken off is half the difference
//! of the shortest one-way times, which is right where both ways are equally long.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::connection::{Connection, Step};
use super::report::CloseBy;
use super::words;
use crate::wire::TcpFlags;

/// What became of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// In both captures.
    Arrived,
    /// In both, but not the same.
    Changed,
    /// Its data arrived in other segments: split or joined on the way, or by a network card.
    Resegmented,
    /// Only where it was sent.
    Lost,
    /// It was sent once and arrived again: copied on the way.
    Duplicated,
    /// Only where it arrived: something between made it, or the other capture missed it.
    NotSent,
}

/// One segment in both captures.
#[derive(Debug, Clone, Serialize)]
pub struct Pairing {
    /// Who sent it.
    pub from: CloseBy,
    /// Its frame where it was sent.
    pub sent: Option<u64>,
    /// Its frame where it arrived.
    pub arrived: Option<u64>,
    /// What became of it.
    pub fate: Fate,
    /// Flags, numbers, length.
    pub segment: String,
    /// What was changed on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// How long it was on its way, the clocks' difference taken off, milliseconds.
    pub transit_ms: Option<f64>,
    /// Routers between the two places, by the TTL.
    pub hops: Option<u8>,
}

/// One connection in both captures.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The client.
    pub client: String,
    /// The server.
    pub server: String,
    /// Its stream number in each capture.
    pub streams: [u64; 2],
    /// Which capture was taken nearer to the client: `a` or `b`.
    pub client_side: &'static str,
    /// How the two captures were matched, where addresses or ports differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translated: Option<String>,
    /// The clock of B minus that of A, milliseconds; `None` where traffic in one direction alone was in both.
    pub clock_offset_ms: Option<f64>,
    /// How often each fate was met.
    pub counts: HashMap<&'static str, usize>,
    /// All segments in order.
    pub segments: Vec<Pairing>,
    /// What to make of it.
    pub verdict: String,
}

impl Fate {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Changed => "changed",
            Self::Resegmented => "resegmented",
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::NotSent => "not-sent",
        }
    }
}

/// Finds the connections that both captures have.
pub fn pairs<'a>(a: &'a [Connection], b: &'a [Connection]) -> Vec<(&'a Connection, &'a Connection)> {
    let name = |connection: &Connection| {
        let client = connection.client();
        (connection.ends[client].address, connection.ends[1 - client].address)
    };
    let isn = |connection: &Connection| connection.ends[connection.client()].syn.map(|syn| syn.seq);
    let mut left: Vec<&Connection> = b.iter().collect();
    let mut found = Vec::new();
    for one in a {
        let same = left.iter().position(|other| {
            name(other) == name(one) && (isn(one).is_none() || isn(other).is_none() || isn(one) == isn(other))
        });
        // Behind a NAT the addresses differ, the initial number stays.
        let same = same.or_else(|| left.iter().position(|other| isn(one).is_some() && isn(other) == isn(one)));
        // Where the numbers were rewritten too (a proxy that keeps addresses), the name must do.
        let same = same.or_else(|| left.iter().position(|other| name(other) == name(one)));
        if let Some(at) = same {
            found.push((one, left.remove(at)));
        }
    }
    found
}

/// Compares one connection's two captures; the segments of both must have been kept.
pub fn compare(a: &Connection, b: &Connection) -> Comparison {
    let (ca, cb) = (a.client(), b.client());
    let near_a = nearness(a) <= nearness(b);
    let (near, far, cn, cf) = if near_a { (a, b, ca, cb) } else { (b, a, cb, ca) };
    let mut segments = Vec::new();
    // What the client sends is seen first near the client, what the server sends near the server.
    let up = match_side(near, cn, far, cf, CloseBy::Client);
    let down = match_side(far, 1 - cf, near, 1 - cn, CloseBy::Server);
    let offset = offset(&up, &down);
    for (found, flip) in [(up, false), (down, true)] {
        for pair in found {
            segments.push(pairing(&pair, offset, flip));
        }
    }
    // In the order of the near capture's clock.
    segments.sort_by_key(|one| one.0);
    let segments: Vec<Pairing> = segments.into_iter().map(|(_, pairing)| pairing).collect();
    let mut counts: HashMap<&'static str, usize> = HashMap::new();
    for one in &segments {
        *counts.entry(one.fate.name()).or_default() += 1;
    }
    let same = a.ends[ca].address == b.ends[cb].address && a.ends[1 - ca].address == b.ends[1 - cb].address;
    let translated = (!same).then(|| {
        format!(
            "{} → {} in A is {} → {} in B: addresses were translated on the way",
            a.ends[ca].address,
            a.ends[1 - ca].address,
            b.ends[cb].address,
            b.ends[1 - cb].address
        )
    });
    let verdict = verdict(&segments, translated.as_deref());
    // `offset` is that of the far clock against the near one.
    let offset = offset.map(|ns| if near_a { ns } else { -ns });
    Comparison {
        client: near.ends[cn].address.to_string(),
        server: near.ends[1 - cn].address.to_string(),
        streams: [a.stream, b.stream],
        client_side: if near_a { "a" } else { "b" },
        translated,
        clock_offset_ms: offset.map(signed_ms),
        counts,
        segments,
        verdict,
    }
}

#[allow(clippy::cast_precision_loss, reason = "clocks differ by far less than 2^53 ns")]
fn signed_ms(ns: i64) -> f64 {
    (ns as f64 / 1000.0).round() / 1000.0
}

/// How far from the client a capture was taken: the time from SYN-ACK to ACK; without a handshake, by the TTL.
fn nearness(connection: &Connection) -> u64 {
    let client = connection.client();
    let answer = connection.ends[1 - client].syn.map(|syn| syn.at.ns);
    match (answer, connection.third) {
        (Some(answer), Some(third)) => third.ns.saturating_sub(answer),
        _ => u64::from(connection.ends[client].ttl.map_or(255, |ttl| 255 - ttl)) << 32,
    }
}

/// A segment as it was sent and as it arrived.
struct Pair<'a> {
    by: CloseBy,
    sent: Option<&'a Step>,
    arrived: Option<&'a Step>,
    resegmented: bool,
    /// A copy of one that was sent.
    copy: bool,
    /// Relative numbers, for the words.
    base: (u32, u32),
}

type Key = (u32, u32, u32, u8);

/// Matches what one side sent (`from`) with what arrived (`to`).
fn match_side<'a>(
    from: &'a Connection,
    from_side: usize,
    to: &'a Connection,
    to_side: usize,
    by: CloseBy,
) -> Vec<Pair<'a>> {
    let bases = |connection: &Connection, side: usize| {
        let base = |side: usize| connection.ends[side].direction.base.unwrap_or(0);
        (base(side), base(1 - side))
    };
    let (from_base, to_base) = (bases(from, from_side), bases(to, to_side));
    let key = |step: &Step, base: (u32, u32)| -> Key {
        let ack = if step.flags.contains(TcpFlags::ACK) { step.ack.wrapping_sub(base.1) } else { 0 };
        // PSH and the ECN flags may be changed on the way, and are compared after.
        (step.seq.wrapping_sub(base.0), ack, step.len, step.flags.0 & 0x17)
    };
    let mut waiting: HashMap<Key, Vec<&Step>> = HashMap::new();
    for step in to.steps.iter().filter(|step| step.side == to_side).rev() {
        waiting.entry(key(step, to_base)).or_default().push(step);
    }
    let mut pairs = Vec::new();
    let mut rest: Vec<&Step> = Vec::new();
    let sent: Vec<&Step> = from.steps.iter().filter(|step| step.side == from_side).collect();
    // How many copies of each were sent: where fewer arrived, the last ones did, as a receiver needs no more.
    let mut left: HashMap<Key, usize> = HashMap::new();
    let mut named: HashMap<(Key, u16), usize> = HashMap::new();
    for step in &sent {
        *left.entry(key(step, from_base)).or_default() += 1;
        if let Some(id) = step.ip_id {
            *named.entry((key(step, from_base), id)).or_default() += 1;
        }
    }
    for step in sent {
        let key = key(step, from_base);
        let copies = left.entry(key).or_default();
        let there = waiting.get_mut(&key);
        let arrived = match there {
            Some(there) if !there.is_empty() => {
                // The IP identification tells copies apart, where the sender counts it.
                let alone = step.ip_id.filter(|id| *id != 0 && named.get(&(key, *id)) == Some(&1));
                let by_id = alone.and_then(|id| there.iter().position(|other| other.ip_id == Some(id)));
                match by_id {
                    Some(at) => Some(there.remove(at)),
                    None if there.len() >= *copies => there.pop(),
                    None => None,
                }
            }
            _ => None,
        };
        *copies = copies.saturating_sub(1);
        match arrived {
            Some(arrived) => {
                pairs.push(Pair {
                    by,
                    sent: Some(step),
                    arrived: Some(arrived),
                    resegmented: false,
                    copy: false,
                    base: from_base,
                });
            }
            None => rest.push(step),
        }
    }
    let mut extra: Vec<&Step> = waiting.into_values().flatten().collect();
    extra.sort_by_key(|step| step.at.frame);
    // Large segments of a sending card arrive as several, and a receiving card joins several into one.
    let covered = |step: &Step, base: (u32, u32), others: &[&Step], other_base: (u32, u32)| {
        step.len > 0 && {
            let (start, end) = (step.seq.wrapping_sub(base.0), step.seq.wrapping_sub(base.0).wrapping_add(step.len));
            let mut pieces: Vec<(u32, u32)> = others
                .iter()
                .filter(|other| other.len > 0)
                .map(|other| {
                    let from = other.seq.wrapping_sub(other_base.0);
                    (from, from.wrapping_add(other.len))
                })
                .collect();
            pieces.sort_unstable();
            let mut at = start;
            for (from, to) in pieces {
                if from <= at && to > at {
                    at = to;
                }
            }
            at >= end
        }
    };
    let lost = rest.clone();
    for step in rest {
        let resegmented = covered(step, from_base, &extra, to_base);
        pairs.push(Pair { by, sent: Some(step), arrived: None, resegmented, copy: false, base: from_base });
    }
    for step in extra {
        let copy = left.contains_key(&key(step, to_base));
        let resegmented = !copy && covered(step, to_base, &lost, from_base);
        pairs.push(Pair { by, sent: None, arrived: Some(step), resegmented, copy, base: to_base });
    }
    pairs
}

/// The far clock minus the near one, nanoseconds.
fn offset(up: &[Pair<'_>], down: &[Pair<'_>]) -> Option<i64> {
    let shortest = |pairs: &[Pair<'_>]| {
        pairs
            .iter()
            .filter_map(|pair| Some(pair.arrived?.at.ns.cast_signed().wrapping_sub(pair.sent?.at.ns.cast_signed())))
            .min()
    };
    // Up: the way there plus the offset. Down: the way back minus it.
    let (there, back) = (shortest(up)?, shortest(down)?);
    Some((there.wrapping_sub(back)) / 2)
}

fn pairing(pair: &Pair<'_>, offset: Option<i64>, flip: bool) -> (i128, Pairing) {
    let Pair { by, sent, arrived, resegmented, copy, base } = *pair;
    let mut changes = Vec::new();
    if let (Some(sent), Some(arrived)) = (sent, arrived) {
        if sent.options != arrived.options && changed_options(&sent.options, &arrived.options) {
            changes.push(format!("options <{}> became <{}>", sent.options, arrived.options));
        }
        if sent.flags != arrived.flags {
            changes.push(format!("flags {} became {}", sent.flags, arrived.flags));
        }
        if sent.raw_window != arrived.raw_window {
            changes.push(format!("window {} became {}", sent.raw_window, arrived.raw_window));
        }
        if !sent.data.is_empty() && !arrived.data.is_empty() {
            let both = sent.data.len().min(arrived.data.len());
            if sent.data[..both] != arrived.data[..both] {
                changes.push("its data is not the same".to_owned());
            }
        }
    }
    let transit = match (sent, arrived, offset) {
        (Some(sent), Some(arrived), Some(offset)) => {
            let raw = arrived.at.ns.cast_signed().wrapping_sub(sent.at.ns.cast_signed());
            Some(if flip { raw.wrapping_add(offset) } else { raw.wrapping_sub(offset) })
        }
        _ => None,
    };
    let hops = match (sent, arrived) {
        (Some(sent), Some(arrived)) => sent.ttl.checked_sub(arrived.ttl),
        _ => None,
    };
    let fate = match (sent.is_some(), arrived.is_some()) {
        (true, true) if changes.is_empty() => Fate::Arrived,
        (true, true) => Fate::Changed,
        _ if resegmented => Fate::Resegmented,
        (true, _) => Fate::Lost,
        _ if copy => Fate::Duplicated,
        _ => Fate::NotSent,
    };
    // All on the near clock.
    let own = |step: &Step, far: bool| i128::from(step.at.ns) - if far { i128::from(offset.unwrap_or(0)) } else { 0 };
    let place = match (sent, arrived) {
        (Some(step), _) => own(step, flip),
        (_, Some(step)) => own(step, !flip),
        _ => 0,
    };
    let step = sent.or(arrived);
    let segment = step.map_or(String::new(), |step| {
        let mut text = format!("{} seq {}", step.flags, step.seq.wrapping_sub(base.0));
        if step.flags.contains(TcpFlags::ACK) {
            let _ = write!(text, " ack {}", step.ack.wrapping_sub(base.1));
        }
        if step.len > 0 {
            let _ = write!(text, " len {}", step.len);
        }
        text
    });
    let pairing = Pairing {
        from: by,
        sent: sent.map(|step| step.at.frame),
        arrived: arrived.map(|step| step.at.frame),
        fate,
        segment,
        changes,
        transit_ms: transit.map(signed_ms),
        hops,
    };
    (place, pairing)
}

/// Timestamps are the sender's, and translated by nobody; sequence numbers in SACK blocks may be.
fn changed_options(sent: &str, arrived: &str) -> bool {
    let plain = |text: &str| text.split(", ").filter(|word| !word.starts_with("sack ")).collect::<Vec<_>>().join(", ");
    plain(sent) != plain(arrived)
}

fn verdict(segments: &[Pairing], translated: Option<&str>) -> String {
    let of =
        |fate: Fate, from: CloseBy| segments.iter().filter(move |one| one.fate == fate && one.from == from).count();
    let mut parts = Vec::new();
    for (from, who) in [(CloseBy::Client, "client"), (CloseBy::Server, "server")] {
        let lost = of(Fate::Lost, from);
        if lost > 0 {
            parts.push(format!("{} of the {who} lost on the way", words::count(lost as u64, "segment")));
        }
        let copied = of(Fate::Duplicated, from);
        if copied > 0 {
            parts.push(format!("{} of the {who} arrived twice", words::count(copied as u64, "segment")));
        }
        let forged = segments.iter().filter(|one| one.fate == Fate::NotSent && one.from == from);
        let resets = forged.clone().filter(|one| one.segment.contains("RST")).count();
        if resets > 0 {
            parts.push(format!(
                "{} in the {who}'s name that the {who} never sent: something between made it",
                words::count(resets as u64, "RST")
            ));
        }
        let others = forged.count() - resets;
        if others > 0 {
            parts.push(format!(
                "{} of the {who} arrived that the other capture does not have",
                words::count(others as u64, "segment")
            ));
        }
        let changed = of(Fate::Changed, from);
        if changed > 0 {
            let what = segments.iter().find(|one| one.fate == Fate::Changed && one.from == from);
            let example = what.map(|one| one.changes.join("; ")).unwrap_or_default();
            parts.push(format!(
                "{} of the {who} changed on the way ({example})",
                words::count(changed as u64, "segment")
            ));
        }
    }
    if let Some(text) = translated {
        parts.push(text.to_owned());
    }
    if parts.is_empty() {
        "Everything that was sent arrived, unchanged.".to_owned()
    } else {
        let mut text = parts.join("; ");
        if let Some(first) = text.get(..1) {
            text = first.to_uppercase() + &text[1..];
        }
        text + "."
    }
}
