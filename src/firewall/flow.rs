//! A whole connection through the rules of the hosts on its way: the direction in which people get
//! rules wrong is the one back.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::packet::{Packet, To};
use super::ruleset::{CtStates, TcpFlags};
use super::state::History;
use super::walk::{DecidedBy, Facts, Outcome, Stack, Verdict};

/// A host on the way.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// What to call it.
    pub name: &'a str,
    /// Its rulesets.
    pub stack: &'a Stack,
    /// What is known of it.
    pub facts: Facts<'a>,
}

/// The answer: does the connection work, and if not, which packet is stopped where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowOutcome {
    /// Every packet of it passes every host.
    pub works: bool,
    /// Every packet at every host, in order of time; ends with the first that is stopped.
    pub packets: Vec<FlowPacket>,
    /// The first packet that is not certain to pass.
    pub first_blocked: Option<FlowPacket>,
}

/// One packet at one host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowPacket {
    /// Its number in the connection, from 1. A packet that passes two hosts is there twice.
    pub n: u32,
    /// Which way it goes.
    pub dir: Way,
    /// Its TCP flags (`syn`, `ack`), or the name of its ICMP type; none for UDP.
    pub flags: Vec<String>,
    /// The host.
    pub host: String,
    /// What becomes of it there.
    pub verdict: Verdict,
    /// The rule or policy that decides.
    pub decided_by: Option<DecidedBy>,
    /// What decides, where no rule does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What its sender is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_with: Option<String>,
    /// Its conntrack state there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The packet as it comes to the host.
    pub packet: String,
    /// What the answer rests on that was not given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
}

/// A direction of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From who opened it.
    Original,
    /// Back to it.
    Reply,
}

/// How a host takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Router,
    Server,
}

/// A host at its place on the way. The same host may be there twice: as client and as server.
struct Place {
    host: usize,
    role: Role,
    /// The interfaces towards the client and towards the server.
    near: Option<String>,
    far: Option<String>,
}

/// Runs the connection that `first` opens through hosts that are named from the client's side.
///
/// With one host, `first` says what it is: the client where the packet has no `in`, a router where it
/// has `out` or `to=forward` too, else the server. With several, the first is the client unless the
/// packet has an `in`; the last is the server unless its routes say otherwise.
/// Every host begins with an empty history.
pub fn run(first: &Packet, hosts: &[Host<'_>]) -> FlowOutcome {
    let mut packets = Vec::new();
    let mut histories: Vec<History> = hosts.iter().map(|_| History::new()).collect();
    let mut places = places(first, hosts);
    // As the client and as the server have the connection: source, destination and their ports.
    let client = ends(first);
    let mut server = client;
    for (index, (way, flags)) in script(first).into_iter().enumerate() {
        let n = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let mut now = match way {
            Way::Original => client,
            Way::Reply => (server.1, server.0, server.3, server.2),
        };
        let order: Vec<usize> = match way {
            Way::Original => (0..places.len()).collect(),
            Way::Reply => (0..places.len()).rev().collect(),
        };
        for at in order {
            let place = &mut places[at];
            let Some(host) = hosts.get(place.host) else { continue };
            let history = &mut histories[place.host];
            history.at(Duration::from_millis(u64::from(n)));
            let packet = packet_at(first, place, way, &flags, now);
            let outcome = history.step(host.stack, &packet, &host.facts);
            learn(place, way, &outcome);
            now = ends(&outcome.packet_out);
            let seen = seen(n, way, &flags, host.name, &packet, outcome);
            packets.push(seen.clone());
            if seen.verdict != Verdict::Accept {
                return FlowOutcome { works: false, packets, first_blocked: Some(seen) };
            }
        }
        if way == Way::Original {
            server = now;
        } else if let Some(last) = packets.last_mut()
            && now != (client.1, client.0, client.3, client.2)
        {
            last.verdict = Verdict::Drop;
            last.decided_by = None;
            last.reason =
                Some(format!("the client opened no connection to {}: the answer has another address or port", now.0));
            let blocked = last.clone();
            return FlowOutcome { works: false, packets, first_blocked: Some(blocked) };
        }
    }
    FlowOutcome { works: true, packets, first_blocked: None }
}

type Ends = (IpAddr, IpAddr, Option<u16>, Option<u16>);

fn ends(packet: &Packet) -> Ends {
    (packet.src, packet.dst, packet.sport, packet.dport)
}

fn places(first: &Packet, hosts: &[Host<'_>]) -> Vec<Place> {
    let loopback = first.dst.is_loopback()
        || first.src == first.dst
        || first.in_.as_deref() == Some("lo")
        || first.out.as_deref() == Some("lo");
    let lo = || Some("lo".to_owned());
    if hosts.len() == 1 && loopback {
        return vec![
            Place { host: 0, role: Role::Client, near: None, far: lo() },
            Place { host: 0, role: Role::Server, near: lo(), far: None },
        ];
    }
    let last = hosts.len().saturating_sub(1);
    let place = |host: usize| {
        let from_here = host == 0 && first.in_.is_none();
        let role = match () {
            () if from_here => Role::Client,
            () if host < last => Role::Router,
            () if last == 0 && (first.out.is_some() || first.to == Some(To::Forward)) => Role::Router,
            () => Role::Server,
        };
        let near = if role != Role::Client && (host == last || host == 0) { first.in_.clone() } else { None };
        let far = if host == 0 && role != Role::Server { first.out.clone() } else { None };
        Place { host, role, near, far }
    };
    (0..hosts.len()).map(place).collect()
}

/// The packets of a connection: which way, and what they are.
fn script(first: &Packet) -> Vec<(Way, Vec<String>)> {
    use Way::{Original, Reply};
    let (proto, _) = first.protocol();
    let tcp = [
        (Original, "syn"),
        (Reply, "syn,ack"),
        (Original, "ack"),
        (Original, "psh,ack"),
        (Reply, "ack"),
        (Reply, "psh,ack"),
        (Original, "ack"),
        (Original, "fin,ack"),
        (Reply, "fin,ack"),
        (Original, "ack"),
    ];
    let words = |list: &[(Way, &str)]| {
        let split = |text: &str| text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        list.iter().map(|(way, flags)| (*way, split(flags))).collect()
    };
    match proto {
        6 => words(&tcp),
        1 | 58 => words(&[(Original, "echo-request"), (Reply, "echo-reply")]),
        // A question and its answer: what a datagram service needs to be of use.
        _ => words(&[(Original, ""), (Reply, "")]),
    }
}

/// The packet as it comes to a host, or as that sends it.
fn packet_at(first: &Packet, place: &Place, way: Way, flags: &[String], (src, dst, sport, dport): Ends) -> Packet {
    let (proto, _) = first.protocol();
    let original = way == Way::Original;
    let sent = matches!((place.role, way), (Role::Client, Way::Original) | (Role::Server, Way::Reply));
    let (came, goes) = if original { (&place.near, &place.far) } else { (&place.far, &place.near) };
    let own = original && place.host == 0;
    let mut packet = if own { first.clone() } else { Packet::new(src, dst) };
    (packet.src, packet.dst, packet.sport, packet.dport) = (src, dst, sport, dport);
    packet.proto = Some(super::packet::Proto(proto));
    packet.ttl = first.ttl;
    packet.tos = first.tos;
    packet.ctstate = None;
    packet.ctstatus = None;
    packet.id = None;
    // What arrives without a name of its interface is still no packet of this host's.
    packet.hook = Some(if sent { super::ruleset::Hook::Output } else { super::ruleset::Hook::Prerouting });
    packet.in_ = if sent { None } else { came.clone() };
    packet.out = if place.role == Role::Router || sent { goes.clone() } else { None };
    packet.to = match place.role {
        _ if sent => None,
        Role::Router => Some(To::Forward),
        Role::Server if original => first.to.filter(|_| place.host == 0),
        _ => Some(To::Local),
    };
    match proto {
        6 => {
            let names = TcpFlags::NAMES.iter();
            let bits = names.filter(|(name, _)| flags.iter().any(|flag| flag.eq_ignore_ascii_case(name)));
            packet.tcp_flags = Some(TcpFlags(bits.fold(0, |all, (_, bit)| all | bit)));
        }
        1 | 58 => {
            let kinds = if proto == 1 { (8, 0) } else { (128, 129) };
            packet.icmp_type = Some(if original { kinds.0 } else { kinds.1 });
            packet.icmp_code = Some(0);
        }
        _ => (),
    }
    packet
}

/// What the walk found out about the host's place.
fn learn(place: &mut Place, way: Way, outcome: &Outcome) {
    let out = outcome.packet_out.out.clone();
    match (place.role, way) {
        // Its routes forward what was meant for it.
        (Role::Server, Way::Original) if out.is_some() => (place.role, place.far) = (Role::Router, out),
        (Role::Client | Role::Router, Way::Original) if place.far.is_none() => place.far = out,
        _ => (),
    }
}

fn seen(n: u32, dir: Way, flags: &[String], host: &str, packet: &Packet, outcome: Outcome) -> FlowPacket {
    let state = outcome.packet_out.ctstate.map(CtStates::names).filter(|names| !names.is_empty());
    FlowPacket {
        n,
        dir,
        flags: flags.to_vec(),
        host: host.to_owned(),
        verdict: outcome.verdict,
        decided_by: outcome.decided_by,
        reason: outcome.reason,
        reject_with: outcome.reject_with,
        state,
        packet: packet.to_string(),
        assumed: outcome.assumed,
    }
}
