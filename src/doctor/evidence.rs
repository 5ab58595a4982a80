//! A case laid out for judging: the numbers that the checks reason with, each `None` where it was
//! not measured.

use std::net::IpAddr;

use super::case::{Case, End, Trial};
use super::diagnosis::Where;
use super::ruling::Firewall;
use super::sightings::{self, Seen, Sighting};
use super::target::Scheme;
use crate::host::{Address, Link, Neighbour, RouteKind, RouteResult, RungCount};
use crate::probe::exchange::{ExchangeReport, Outcome};
use crate::probe::{Reply, ReplyKind};
use crate::wire::MacAddr;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Reply,
}

/// One end, laid out.
pub(crate) struct Side<'a> {
    /// Which.
    pub(crate) place: Where,
    /// Its facts and what it saw.
    pub(crate) end: &'a End,
    /// The capture, read; `None` where there was none.
    pub(crate) frames: Option<Vec<Sighting>>,
    /// Its rulesets, before and after; `None` where they could not be read.
    pub(crate) firewall: Option<Firewall<'a>>,
}

/// The whole case, laid out.
pub(crate) struct Evidence<'a> {
    /// The case.
    pub(crate) case: &'a Case,
    /// The end that asks.
    pub(crate) client: Side<'a>,
    /// The end that is asked, where it let us look.
    pub(crate) server: Option<Side<'a>>,
    /// The address that was tried.
    pub(crate) address: Option<IpAddr>,
    /// The address it was tried from.
    pub(crate) source: Option<IpAddr>,
}

impl<'a> Evidence<'a> {
    /// Lays a case out.
    pub(crate) fn new(case: &'a Case) -> Self {
        let client = Side::new(Where::Client, &case.client);
        let source = match case.client.route.as_ref().map(|route| &route.result) {
            Some(RouteResult::Found { source, .. }) => *source,
            _ => None,
        };
        let server = case.server.as_ref().map(|end| Side::new(Where::Server, end));
        Self { case, client, server, address: case.address, source }
    }

    /// What was tried on the wire.
    pub(crate) fn trial(&self) -> Option<&'a Trial> {
        self.case.trial.as_ref()
    }

    /// The conversation, where there was one.
    pub(crate) fn exchange(&self) -> Option<&'a ExchangeReport> {
        self.trial()?.exchange.as_ref()
    }

    /// Whether the packets demonstrably went both ways: the handshake was completed, a datagram or an echo was answered.
    pub(crate) fn reached(&self) -> bool {
        match (self.case.target.scheme, self.exchange()) {
            (Scheme::Host, _) => self.echoed() == Some(true),
            (_, Some(exchange)) => exchange.connect == Outcome::Done,
            (_, None) => false,
        }
    }

    /// Whether the target answered an echo; `None` where none could be sent.
    pub(crate) fn echoed(&self) -> Option<bool> {
        let report = self.trial()?.echo.as_ref()?;
        if report.local_error.is_some() && report.replies.is_empty() {
            return None;
        }
        Some(report.replies.iter().any(is_echo_reply))
    }

    /// The errno of the conversation's first step, where it ended with one.
    pub(crate) fn errno(&self) -> Option<&'a str> {
        match &self.exchange()?.connect {
            Outcome::Error { errno } => Some(errno),
            Outcome::Done | Outcome::Timeout => None,
        }
    }

    /// The client's route, where the kernel found one: (kind, gateway, interface).
    pub(crate) fn way(&self) -> Option<(RouteKind, Option<IpAddr>, Option<&'a str>)> {
        match &self.case.client.route.as_ref()?.result {
            RouteResult::Found { kind, gateway, interface, .. } => Some((*kind, *gateway, interface.as_deref())),
            RouteResult::Refused { .. } => None,
        }
    }

    /// Whether the target is one of the client's own addresses.
    pub(crate) fn is_self(&self) -> bool {
        matches!(self.way(), Some((RouteKind::Local, ..)))
    }

    /// The address that the client looks for on its link: the gateway, or the target itself.
    pub(crate) fn next_hop(&self) -> Option<IpAddr> {
        match self.way()? {
            (RouteKind::Unicast, gateway, _) => gateway.or(self.address),
            _ => None,
        }
    }

    /// Whether a router is between.
    pub(crate) fn routed(&self) -> bool {
        matches!(self.way(), Some((_, Some(_), _)))
    }

    /// The server's port, 0 for a host alone.
    pub(crate) fn port(&self) -> u16 {
        self.case.target.port.unwrap_or(0)
    }

    /// Packets of a direction that a side's frames show going out (or coming in); `None` without a whole capture.
    pub(crate) fn on_wire(&self, side: &Side<'_>, direction: Direction) -> Option<u64> {
        let frames = side.frames.as_ref()?;
        let outgoing = (side.place == Where::Client) == (direction == Direction::Request);
        let count = frames.iter().filter(|f| f.outgoing == outgoing && self.is_flow(f, direction)).count();
        if count == 0 && side.end.watch.frames_lost > 0 { None } else { Some(count as u64) }
    }

    /// Whether a frame is one of the flow's packets in that direction.
    pub(crate) fn is_flow(&self, frame: &Sighting, direction: Direction) -> bool {
        if !frame.ours {
            return false;
        }
        let (Some(server), port) = (self.address, self.port()) else { return false };
        let to_server = |src: IpAddr, dst: IpAddr, sport: u16, dport: u16| match direction {
            Direction::Request => dst == server && dport == port && self.source.is_none_or(|source| src == source),
            Direction::Reply => src == server && sport == port && self.source.is_none_or(|source| dst == source),
        };
        match &frame.what {
            Seen::Tcp { src, dst, .. } | Seen::Udp { src, dst } => {
                self.case.target.port.is_some() && to_server(src.0, dst.0, src.1, dst.1)
            }
            Seen::Icmp { src, dst, error: false, .. } => self.case.target.port.is_none() && to_server(*src, *dst, 0, 0),
            Seen::Icmp { .. } | Seen::Neighbour { .. } => false,
        }
    }

    /// ICMP errors about the flow that came in at the client: (sender, type, code, words).
    pub(crate) fn icmp_errors(&self) -> Vec<(IpAddr, u8, u8, &str)> {
        let captured = self.client.frames.iter().flatten().filter_map(|frame| match &frame.what {
            Seen::Icmp { src, kind, code, error: true, words, .. } if !frame.outgoing => {
                Some((*src, *kind, *code, words.as_str()))
            }
            _ => None,
        });
        let again = self.trial().and_then(|trial| trial.again.as_ref());
        let queued = again.into_iter().flat_map(|report| &report.replies).filter_map(|reply| match &reply.kind {
            ReplyKind::IcmpError(icmp) => Some((reply.from, icmp.icmp_type, icmp.code, icmp.says.as_str())),
            _ => None,
        });
        captured.chain(queued).collect()
    }

    /// Hardware addresses that answered for the next hop, each once.
    pub(crate) fn neighbour_macs(&self) -> Option<Vec<MacAddr>> {
        let report = self.trial()?.neighbour.as_ref()?;
        if report.local_error.is_some() && report.replies.is_empty() {
            return None;
        }
        let mut macs = Vec::new();
        for mac in report.replies.iter().filter_map(|reply| reply.mac) {
            if !macs.contains(&mac) {
                macs.push(mac);
            }
        }
        Some(macs)
    }
}

impl<'a> Side<'a> {
    fn new(place: Where, end: &'a End) -> Self {
        let frames = end.watch.frames.as_deref().map(sightings::read);
        let before = end.facts.firewall.as_deref();
        let after = end.watch.after.as_ref().and_then(|after| after.firewall.as_deref());
        Self { place, end, frames, firewall: Firewall::read(before, after, &end.facts, place) }
    }

    /// The rung at this hook and priority.
    pub(crate) fn rung(&self, hook: &str, priority: i32) -> Option<&'a RungCount> {
        let rungs = self.end.watch.ladder.as_deref()?;
        rungs.iter().find(|rung| rung.hook == hook && rung.priority == priority && rung.device.is_none())
    }

    /// What a rung counted in a direction.
    pub(crate) fn counted(&self, hook: &str, priority: i32, direction: Direction) -> Option<u64> {
        let rung = self.rung(hook, priority)?;
        Some(match direction {
            Direction::Request => rung.request,
            Direction::Reply => rung.reply,
        })
    }

    /// What the first and the last rung of a hook counted.
    pub(crate) fn through(&self, hook: &str, direction: Direction) -> Option<(u64, u64)> {
        let first = if hook == "prerouting" { -450 } else { -500 };
        Some((self.counted(hook, first, direction)?, self.counted(hook, 500, direction)?))
    }

    /// By how much a kernel counter grew during the trial.
    pub(crate) fn grew(&self, counter: &str) -> Option<u64> {
        let after = self.end.watch.after.as_ref()?.counters.get(counter)?;
        Some(after.saturating_sub(self.end.facts.counters.get(counter).copied().unwrap_or(0)))
    }

    /// The interface and address entry that owns this address here.
    pub(crate) fn owns(&self, address: IpAddr) -> Option<&'a Address> {
        self.end.facts.addresses.as_deref()?.iter().find(|entry| entry.address == address)
    }

    /// The link an address is on.
    pub(crate) fn link_of(&self, address: &Address) -> Option<&'a Link> {
        self.end.facts.link_by_index(address.index)
    }

    /// What the kernel believes of a neighbour at the end of the trial, else before it.
    pub(crate) fn neighbour(&self, address: IpAddr) -> Option<&'a Neighbour> {
        let after = self.end.watch.after.as_ref().and_then(|after| after.neighbours.as_deref());
        let table = after.or(self.end.facts.neighbours.as_deref())?;
        table.iter().find(|entry| entry.address == address && !entry.proxy)
    }
}

/// Whether a reply is an echo reply.
pub(crate) fn is_echo_reply(reply: &Reply) -> bool {
    reply.kind == ReplyKind::EchoReply
}

/// An ICMP error's type and code.
pub(crate) fn icmp_error(reply: &Reply) -> Option<(u8, u8)> {
    match &reply.kind {
        ReplyKind::IcmpError(icmp) => Some((icmp.icmp_type, icmp.code)),
        _ => None,
    }
}

/// Whether a router says that the TTL ran out on its way there (RFC 792 type 11, RFC 4443 type 3).
pub(crate) fn is_time_exceeded(reply: &Reply) -> bool {
    icmp_error(reply).is_some_and(|(kind, code)| code == 0 && kind == if reply.from.is_ipv4() { 11 } else { 3 })
}
