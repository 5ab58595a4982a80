//! From packets to connections: the loop that `read` and `watch` share, without their input and output.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::analysis::Judged;
use super::code::Codes;
use super::connection::Connection;
use super::end::Mark;
use super::report::Pair;
use super::state::State;
use super::table::{Limits, Seeded, Table};
use super::words;
use crate::wire::capture::{RawPacket, linktype};
use crate::wire::{Peeled, Peeler, Segment, TcpFlags};

/// What was read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Packets of the capture.
    pub frames: u64,
    /// TCP segments among them.
    pub segments: u64,
    /// ICMP errors about TCP.
    pub errors: u64,
    /// Fragments that were put together, or wait for the rest.
    pub fragments: u64,
    /// Packets that are neither.
    pub other: u64,
    /// Packets that should have been TCP and could not be read, by reason.
    pub unreadable: BTreeMap<&'static str, u64>,
    /// Packets of link types that are not known here.
    pub unknown_links: BTreeMap<u32, u64>,
    /// Packets that the filter left out.
    pub filtered: u64,
    /// Octets on the wire.
    pub bytes: u64,
    /// When the first and the last packet came, nanoseconds since 1970.
    #[serde(skip)]
    pub span: Option<(u64, u64)>,
}

impl Tally {
    /// What could not be read, in words.
    pub fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (link, count) in &self.unknown_links {
            all.push(format!("{} of {} cannot be read", words::count(*count, "packet"), linktype::name(*link)));
        }
        for (why, count) in &self.unreadable {
            all.push(format!("{}: {why}", words::count(*count, "packet")));
        }
        all
    }
}

/// One frame of `--frames`.
#[derive(Debug, Clone, Serialize)]
pub struct FrameReport {
    /// Its number, from 1.
    pub frame: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// Its connection.
    pub stream: u64,
    /// Who sent it.
    pub src: SocketAddr,
    /// To whom.
    pub dst: SocketAddr,
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number, relative to the sender's first.
    pub seq: u32,
    /// Acknowledgement number, relative to the peer's first.
    pub ack: u32,
    /// Octets of data.
    pub len: u32,
    /// Window as sent.
    pub window: u16,
    /// What was found.
    pub codes: Codes,
    /// Both ends' states after it.
    pub states: Pair<State>,
    /// Round trip of what it acknowledges, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// A segment and what was made of it.
#[derive(Debug)]
pub struct Heard<'a> {
    /// Where.
    pub at: Mark,
    /// The segment.
    pub segment: Segment<'a>,
    /// Its connection, the segment taken in.
    pub connection: &'a Connection,
    /// What the analysis says.
    pub judged: Judged,
}

impl Heard<'_> {
    /// As `--frames` shows it.
    pub fn report(&self) -> FrameReport {
        let Self { at, segment, connection, judged } = self;
        let side = connection.side_of(segment.src, segment.sport);
        let client = connection.client();
        let relative =
            |number: u32, side: usize| number.wrapping_sub(connection.ends[side].direction.base.unwrap_or(0));
        FrameReport {
            frame: at.frame,
            time: words::seconds(at.ns),
            stream: connection.stream,
            src: SocketAddr::new(segment.src, segment.sport),
            dst: SocketAddr::new(segment.dst, segment.dport),
            flags: segment.flags,
            seq: relative(segment.seq, side),
            ack: if segment.has(TcpFlags::ACK) { relative(segment.ack, 1 - side) } else { 0 },
            len: segment.len(),
            window: segment.window,
            codes: judged.codes,
            states: Pair { client: connection.ends[client].state, server: connection.ends[1 - client].state },
            rtt_ms: judged.acks.map(|(_, ns)| words::ms(ns)),
        }
    }
}

/// Takes packets, keeps connections.
#[derive(Debug)]
pub struct Reading {
    peeler: Peeler,
    /// The connections.
    pub table: Table<Seeded>,
    /// What was read.
    pub tally: Tally,
}

impl Reading {
    /// Nothing read yet; `seed` is any number that the writer of a capture cannot know.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self { peeler: Peeler::default(), table: Table::new(limits, Seeded(seed)), tally: Tally::default() }
    }

    /// Counts a packet that is not to be looked into.
    pub fn pass_over(&mut self) {
        self.tally.frames += 1;
        self.tally.filtered += 1;
    }

    /// Takes in the next packet; the segment in it, if there is one.
    #[inline]
    pub fn packet<'a>(&'a mut self, packet: &RawPacket<'a>) -> Option<Heard<'a>> {
        let Self { peeler, table, tally } = self;
        tally.frames += 1;
        tally.bytes += u64::from(packet.orig_len);
        let at = Mark { frame: tally.frames, ns: packet.at_ns };
        let span = tally.span.get_or_insert((packet.at_ns, packet.at_ns));
        span.1 = packet.at_ns;
        match peeler.peel(packet) {
            Peeled::Tcp(segment) => {
                tally.segments += 1;
                let wire = packet.orig_len.max(u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX));
                let (connection, judged) = table.segment(&segment, at, wire);
                return Some(Heard { at, segment, connection, judged });
            }
            Peeled::Icmp(error) => {
                tally.errors += 1;
                table.error(&error, at);
            }
            Peeled::Fragment => tally.fragments += 1,
            Peeled::Other => tally.other += 1,
            Peeled::Unreadable(why) => *tally.unreadable.entry(why).or_default() += 1,
            Peeled::UnknownLink(link) => *tally.unknown_links.entry(link).or_default() += 1,
        }
        None
    }
}
