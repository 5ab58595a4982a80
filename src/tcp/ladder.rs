//! The rows of a sequence diagram: what to draw, before it is known how.

use super::code::Severity;
use super::connection::{Connection, Step};
use super::state::State;
use super::words;
use crate::wire::TcpFlags;
use std::fmt::Write as _;

/// As many uneventful segments in a row are drawn one by one; more are drawn as one line.
const RUN: usize = 8;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A segment.
    Segment(Arrow),
    /// Uneventful segments that were left out.
    Fold {
        /// How many.
        segments: usize,
        /// Octets of data the client sent in them.
        from_client: u64,
        /// Octets of data the server sent in them.
        from_server: u64,
        /// When the first and the last came, since the connection began, nanoseconds.
        span: (u64, u64),
    },
}

/// A segment to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrow {
    /// Its frame.
    pub frame: u64,
    /// Since the connection began, nanoseconds.
    pub ns: u64,
    /// The client sent it.
    pub from_client: bool,
    /// `SYN,ACK seq 0 ack 1 …`.
    pub label: String,
    /// The client's and the server's state after it, where it changed.
    pub states: [Option<State>; 2],
    /// What was found on it, with how grave it is.
    pub notes: Vec<(String, Severity)>,
}

/// The diagram of a connection whose segments were kept.
pub fn rows(connection: &Connection) -> Vec<Row> {
    let client = connection.client();
    let mut rows = Vec::new();
    let mut states = [State::Unknown; 2];
    let mut run: Vec<(&Step, Arrow)> = Vec::new();
    for step in &connection.steps {
        let now = [step.states[client], step.states[1 - client]];
        let changed = [0, 1].map(|end| (now[end] != states[end]).then_some(now[end]));
        states = now;
        let arrow = arrow(connection, step, client, changed);
        let eventful = changed.iter().any(Option::is_some)
            || !arrow.notes.is_empty()
            || step.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) != 0;
        if eventful {
            flush(&mut rows, &mut run, connection, client);
            rows.push(Row::Segment(arrow));
        } else {
            run.push((step, arrow));
        }
    }
    flush(&mut rows, &mut run, connection, client);
    rows
}

fn flush(rows: &mut Vec<Row>, run: &mut Vec<(&Step, Arrow)>, connection: &Connection, client: usize) {
    let taken = std::mem::take(run);
    if taken.len() <= RUN {
        rows.extend(taken.into_iter().map(|(_, arrow)| Row::Segment(arrow)));
        return;
    }
    let edge = RUN / 2;
    let last = taken.len() - edge;
    let middle = &taken[edge..last];
    let data =
        |side: usize| middle.iter().filter(|(step, _)| step.side == side).map(|(step, _)| u64::from(step.len)).sum();
    let since = |index: usize| middle.get(index).map_or(0, |(step, _)| step.at.ns.saturating_sub(connection.first.ns));
    let fold = Row::Fold {
        segments: middle.len(),
        from_client: data(client),
        from_server: data(1 - client),
        span: (since(0), since(middle.len() - 1)),
    };
    let mut taken = taken.into_iter().map(|(_, arrow)| Row::Segment(arrow));
    rows.extend(taken.by_ref().take(edge));
    rows.push(fold);
    rows.extend(taken.skip(last - edge));
}

fn arrow(connection: &Connection, step: &Step, client: usize, states: [Option<State>; 2]) -> Arrow {
    let relative = |number: u32, side: usize| number.wrapping_sub(connection.ends[side].direction.base.unwrap_or(0));
    let mut label = format!("{} seq {}", step.flags, relative(step.seq, step.side));
    if step.flags.contains(TcpFlags::ACK) {
        let _ = write!(label, " ack {}", relative(step.ack, 1 - step.side));
    }
    if step.len > 0 {
        let _ = write!(label, " len {}", step.len);
    }
    let _ = write!(label, " win {}", step.window);
    if step.flags.contains(TcpFlags::SYN) && !step.options.is_empty() {
        let _ = write!(label, " <{}>", step.options);
    }
    let notes = step
        .codes
        .iter()
        .filter(|code| code.severity() > Severity::Chat)
        // The general word beside the special one says nothing new.
        .filter(|code| {
            *code != super::Code::Retransmission
                || !step.codes.any(&[super::Code::FastRetransmission, super::Code::SpuriousRetransmission])
        })
        .map(|code| (code.name().replace('_', " "), code.severity()))
        .collect();
    Arrow {
        frame: step.at.frame,
        ns: step.at.ns.saturating_sub(connection.first.ns),
        from_client: step.side == client,
        label,
        states,
        notes,
    }
}

/// A fold in words.
pub fn fold_words(segments: usize, from_client: u64, from_server: u64, span: (u64, u64)) -> String {
    format!(
        "{segments} more segments in {}: {} →, {} ←",
        words::span(span.1.saturating_sub(span.0)),
        words::octets(from_client),
        words::octets(from_server)
    )
}
