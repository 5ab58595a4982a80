//! Histories: conversations through the router, packet after packet, with all that rules and conntrack
//! remember. A reply answers what was seen to arrive, so that it follows translation.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reachwhy::firewall::ruleset::PktType;
use reachwhy::firewall::{Facts, History, Packet, Stack};
use reachwhy::host::HostFacts;
use reachwhy::wire::{
    Decoded, Encapsulation, IcmpFamily, IcmpHeader, Ipv4Header, Ipv6Header, TcpFlags, TcpHeader, UdpHeader,
};
use serde::{Deserialize, Serialize};

use crate::check::{self, Fate};
use crate::kernel::Kernel;
use crate::line::{CLIENT_MAC, Line, SERVER_MAC};
use crate::matches;
use crate::packets::{hex, unhex};
use crate::random::Random;
use crate::rules::{Focus, Kind, Rules};

/// The kernel counts connections by jiffies (`net/netfilter/nf_conncount.c`); so long after a packet it has
/// the right number.
const SETTLED: Duration = Duration::from_millis(9);

/// One packet of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// By the server's cable; else by the client's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_server: bool,
    /// Milliseconds since the first.
    pub at_ms: u64,
    /// The packet.
    pub octets: String,
    /// What the kernel did with it.
    pub kernel: Option<Fate>,
}

/// A named history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryCase {
    pub about: String,
    pub kind: Kind,
    pub v6: bool,
    pub events: Vec<Event>,
}

/// A conversation between a client and a server.
#[derive(Debug, Clone)]
struct Talk {
    proto: u8,
    client: (IpAddr, u16),
    server: (IpAddr, u16),
    /// As the server sees it: source, destination.
    seen: Option<((IpAddr, u16), (IpAddr, u16))>,
    /// The last packet that came to the server.
    last: Vec<u8>,
    next: [u32; 2],
    /// Numbers of their SYNs.
    first: [Option<u32>; 2],
    step: usize,
    script: &'static [(bool, u8, usize)],
}

const S: u8 = 2;
const A: u8 = 0x10;
const SA: u8 = 0x12;
const FA: u8 = 0x11;
const PA: u8 = 0x18;
const R: u8 = 4;
const RA: u8 = 0x14;

/// From the server?, TCP flags, octets of payload.
const TCP: [&[(bool, u8, usize)]; 6] = [
    &[
        (false, S, 0),
        (true, SA, 0),
        (false, A, 0),
        (false, PA, 10),
        (true, A, 0),
        (true, PA, 30),
        (false, A, 0),
        (false, FA, 0),
        (true, A, 0),
        (true, FA, 0),
        (false, A, 0),
    ],
    &[(false, S, 0), (true, RA, 0), (false, S, 0), (true, SA, 0), (false, A, 0), (false, R, 0)],
    &[
        (false, S, 0),
        (true, SA, 0),
        (false, A, 0),
        (true, FA, 0),
        (false, FA, 0),
        (true, A, 0),
        (false, S, 0),
        (true, SA, 0),
    ],
    &[
        (false, S, 0),
        (false, S, 0),
        (true, SA, 0),
        (true, SA, 0),
        (false, A, 0),
        (false, PA, 5),
        (true, R, 0),
        (false, PA, 5),
    ],
    &[(false, A, 0), (true, A, 0), (false, PA, 8), (true, PA, 8), (false, A, 0)],
    &[(false, S, 0), (true, SA, 0), (false, A, 0), (false, 0x29, 0), (true, 0, 0), (false, PA, 50), (true, A, 0)],
];
const PLAIN: [&[(bool, u8, usize)]; 3] = [
    &[(false, 0, 4), (true, 0, 8), (false, 0, 0), (true, 0, 20)],
    &[(false, 0, 0), (false, 0, 0), (true, 0, 0), (false, 0, 9)],
    &[(false, 0, 12), (true, 0xff, 0), (false, 0, 1), (true, 0, 3)],
];

fn talk(r: &mut Random, v6: bool) -> Talk {
    let proto = r.pick(&[6, 6, 6, 17, 17, if v6 { 58 } else { 1 }]);
    let script = if proto == 6 { r.pick(&TCP) } else { r.pick(&PLAIN) };
    let client = (matches::source(r, v6), r.pick(&[1000, 1001, 40_000, 40_001]));
    let server = (matches::destination(r, v6, Focus::Forward), r.pick(&[22, 53, 80, 8080]));
    let next = [1000, 5000];
    Talk { proto, client, server, seen: None, last: Vec::new(), next, first: [None; 2], step: 0, script }
}

impl Talk {
    /// The next packet, and whether the server sends it.
    fn packet(&self, id: u32, ttl: u8) -> Option<(bool, Vec<u8>)> {
        let (from_server, flags, length) = *self.script.get(self.step)?;
        let (mut src, mut dst) = (self.client, self.server);
        if from_server {
            let (seen_src, seen_dst) = self.seen?;
            (src, dst) = (seen_dst, seen_src);
        }
        let payload = vec![0x42; length];
        let body = match self.proto {
            6 => {
                let mut header = TcpHeader::new(src.1, dst.1, TcpFlags(flags));
                let own = usize::from(from_server);
                header.seq = self.first[own].filter(|_| flags & S != 0).unwrap_or(self.next[own]);
                header.ack = if flags & A != 0 { self.next[1 - own] } else { 0 };
                header.window = 60_000;
                header.segment(src.0, dst.0, &payload)
            }
            17 if flags == 0xff => return Some((true, self.error(src.0, dst.0, id))),
            17 => UdpHeader::datagram(src.0, dst.0, src.1, dst.1, &payload),
            _ if flags == 0xff => return Some((true, self.error(src.0, dst.0, id))),
            _ => {
                let header = IcmpHeader::new_echo(IcmpFamily::of(dst.0), !from_server, self.client.1, 1);
                header.message(src.0, dst.0, &payload)
            }
        };
        Some((from_server, framed(src.0, dst.0, self.proto, ttl, id, &body)))
    }

    /// An ICMP error about what the server got.
    fn error(&self, src: IpAddr, dst: IpAddr, id: u32) -> Vec<u8> {
        let mut header = IcmpHeader::new_echo(IcmpFamily::of(dst), true, 0, 0);
        (header.kind, header.code) = if dst.is_ipv6() { (1, 4) } else { (3, 3) };
        let body = header.message(src, dst, &self.last);
        framed(src, dst, if dst.is_ipv6() { 58 } else { 1 }, 64, id, &body)
    }

    /// The packet passed.
    fn passed(&mut self, whole: &[u8]) {
        let (from_server, flags, length) = self.script[self.step];
        self.step += 1;
        if flags == 0xff {
            return;
        }
        let own = usize::from(from_server);
        // What no TCP sends counts for nobody.
        let odd = self.proto == 6 && !matches!(flags, S | A | SA | FA | PA | R | RA);
        if odd {
            return;
        }
        let extra = u32::from(flags & 2 != 0) + u32::from(flags & 1 != 0);
        let from = if flags & S != 0 { *self.first[own].get_or_insert(self.next[own]) } else { self.next[own] };
        self.next[own] = from.wrapping_add(u32::try_from(length).unwrap() + extra);
        if !from_server {
            let decoded = Decoded::parse(Encapsulation::Ip, whole);
            let (Some(src), Some(dst)) = (decoded.src(), decoded.dst()) else { return };
            let ports = decoded.ports().unwrap_or((self.client.1, self.server.1));
            self.seen = Some(((src, ports.0), (dst, ports.1)));
            self.last = whole.to_vec();
        }
    }
}

fn framed(src: IpAddr, dst: IpAddr, proto: u8, ttl: u8, id: u32, body: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = Ipv4Header::new(src, dst, proto);
            (header.id, header.ttl, header.dont_fragment) = (u16::try_from(id).unwrap(), ttl, false);
            header.packet(body)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = Ipv6Header::new(src, dst, proto);
            (header.flow_label, header.hop_limit) = (id, ttl);
            header.packet(body)
        }
        _ => panic!("both addresses are of one family"),
    }
}

fn asked(event: &Event) -> Packet {
    let octets = unhex(&event.octets);
    let mut packet = Packet::from_octets(&octets).unwrap();
    packet.in_ = Some(if event.from_server { "eth1" } else { "eth0" }.to_owned());
    packet.mac_src = Some(if event.from_server { SERVER_MAC } else { CLIENT_MAC });
    packet.pkttype = Some(PktType::Unicast);
    packet
}

/// What the walk makes of the next packet; `None` where it leaves it open.
fn ours(stack: &Stack, history: &mut History, event: &Event, facts: &HostFacts) -> Option<Fate> {
    history.at(Duration::from_millis(event.at_ms));
    let packet = asked(event);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let outcome = history.step(stack, &packet, &Facts::of(facts).at(clock));
    let hidden = outcome.assumed.iter().any(|what| what.contains("is not shown"));
    let mut fate = check::fate(&outcome, &packet)?;
    if hidden {
        fate.whole = None;
    }
    Some(fate)
}

/// Leaves out of both what cannot be compared.
fn level(ours: &mut Fate, theirs: &mut Fate) {
    if ours.answer.as_deref() == Some("?") {
        (ours.answer, theirs.answer) = (None, None);
    }
    if ours.whole.is_none() || theirs.whole.is_none() {
        (ours.whole, theirs.whole) = (None, None);
    }
}

/// The number in a packet's header.
fn id_of(event: &Event) -> u32 {
    crate::kernel::packet_id(&unhex(&event.octets))
}

fn theirs(line: &Line, kernel: &mut Kernel, rules: &Rules, event: &Event, patience: Duration) -> Fate {
    let raw = unhex(&event.octets);
    line.drain();
    kernel.drain(0);
    if event.from_server {
        line.arrive_from_server(&raw);
    } else {
        line.arrive(crate::line::ROUTER_MAC, CLIENT_MAC, &raw);
    }
    std::thread::sleep(patience);
    check::observed(line, kernel, rules, &asked(event), id_of(event))
}

/// What one ruleset's history gave.
pub(crate) enum End {
    /// So many packets agreed; the walk left one open, or not.
    Agreed(u64, bool),
    Differs(Box<HistoryCase>),
}

/// Runs conversations through a loaded ruleset.
pub(crate) fn run(line: &Line, kernel: &mut Kernel, rules: &Rules, stack: &Stack, r: &mut Random, packets: u64) -> End {
    let begun = Instant::now();
    let mut history = History::new();
    let mut events: Vec<Event> = Vec::new();
    let mut talks: Vec<Talk> = (0..3).map(|_| talk(r, rules.v6)).collect();
    for n in 0..packets {
        let at = r.below(talks.len());
        let id = u32::try_from(n + 1).unwrap();
        let ttl = r.pick(&[64, 64, 63]);
        let Some((from_server, octets)) = talks[at].packet(id, ttl) else {
            // Sometimes the same two talk again.
            let old = talks[at].clone();
            talks[at] = talk(r, rules.v6);
            let anew = talks[at].proto != 6 || talks[at].script[0].1 == S;
            if r.chance(30) && old.proto == talks[at].proto && anew {
                (talks[at].client, talks[at].server) = (old.client, old.server);
                talks[at].next = [old.next[0].wrapping_add(100_000), old.next[1].wrapping_add(100_000)];
            }
            continue;
        };
        let at_ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
        let event = Event { from_server, at_ms, octets: hex(&octets), kernel: None };
        events.push(event.clone());
        let Some(mut a) = ours(stack, &mut history, &event, &line.facts) else {
            return End::Agreed(n, true);
        };
        let mut b = theirs(line, kernel, rules, &event, Duration::ZERO);
        let whole = b.whole.clone();
        events.last_mut().unwrap().kernel = Some(b.clone());
        level(&mut a, &mut b);
        // What the host itself says to it is no part of the history.
        if a.path.iter().any(|place| place.contains(" INPUT ") || place.starts_with("t kept")) {
            return End::Agreed(n, true);
        }
        if a != b {
            let case = HistoryCase { about: String::new(), kind: rules.kind, v6: rules.v6, events };
            return End::Differs(Box::new(case));
        }
        match whole {
            Some(whole) => talks[at].passed(&unhex(&whole)),
            // It is sent again, or they give up.
            None if r.chance(50) => talks[at] = talk(r, rules.v6),
            None => (),
        }
    }
    End::Agreed(packets, false)
}

/// Replays events; the place and the two fates of the first difference.
fn replay(line: &Line, kernel: &mut Kernel, rules: &Rules, events: &[Event]) -> Option<(Vec<Event>, String)> {
    kernel.load(rules).ok()?;
    let stack = check::stack(&check::dumps(rules).ok()?).ok()?;
    let (mut history, begun) = (History::new(), Instant::now());
    let mut done: Vec<Event> = Vec::new();
    for event in events {
        let event = Event { at_ms: u64::try_from(begun.elapsed().as_millis()).unwrap(), ..event.clone() };
        let mut a = ours(&stack, &mut history, &event, &line.facts)?;
        let mut b = theirs(line, kernel, rules, &event, SETTLED);
        done.push(Event { kernel: Some(b.clone()), ..event });
        level(&mut a, &mut b);
        if a != b {
            return Some((done, format!("packet {}: the walk says {a:?}\nthe kernel {b:?}", events.len())));
        }
    }
    None
}

/// A named history with what the walk makes of it: the first packet where it differs from what is kept.
pub(crate) fn replayed(case: &HistoryCase, stack: &Stack, facts: &HostFacts) -> Option<String> {
    let mut history = History::new();
    case.events.iter().enumerate().find_map(|(n, event)| {
        let mut kept = event.kernel.clone().unwrap();
        let Some(mut walk) = ours(stack, &mut history, event, facts) else {
            return Some(format!("packet {} is left open", n + 1));
        };
        level(&mut walk, &mut kept);
        (walk != kept).then(|| format!("packet {}: the walk says {walk:?}\nthe kernel said {kept:?}", n + 1))
    })
}

/// The same packets through the kernel again, in their own time.
pub(crate) fn recorded(line: &Line, kernel: &mut Kernel, rules: &Rules, case: &HistoryCase) -> HistoryCase {
    let begun = Instant::now();
    let mut case = case.clone();
    for event in &mut case.events {
        std::thread::sleep(Duration::from_millis(event.at_ms).saturating_sub(begun.elapsed()));
        event.kernel = Some(theirs(line, kernel, rules, event, SETTLED));
    }
    case
}

/// The mismatch at its smallest, told in full and saved; `None` where it does not come again: the kernel
/// counts connections no more often than every few milliseconds (`net/netfilter/nf_conncount.c`).
pub(crate) fn told(line: &Line, kernel: &mut Kernel, rules: &Rules, case: &HistoryCase, seed: u64) -> Option<String> {
    let begun = Instant::now();
    let mut rules = rules.clone();
    let (mut events, mut told) = replay(line, kernel, &rules, &case.events)?;
    let late = || begun.elapsed() > Duration::from_secs(10);
    'again: loop {
        for smaller in crate::shrink::smaller(&rules) {
            if late() {
                break 'again;
            }
            if let Some(found) = replay(line, kernel, &smaller, &events) {
                rules = smaller;
                (events, told) = found;
                continue 'again;
            }
        }
        for n in 0..events.len().saturating_sub(1) {
            if late() {
                break 'again;
            }
            let mut fewer = events.clone();
            fewer.remove(n);
            if let Some(found) = replay(line, kernel, &rules, &fewer) {
                (events, told) = found;
                continue 'again;
            }
        }
        break;
    }
    let name = format!("history_{:?}_{seed}", rules.kind).to_lowercase();
    let case = HistoryCase { about: format!("found with seed {seed}"), kind: rules.kind, v6: rules.v6, events };
    let dumps = kernel.load(&rules).and_then(|()| check::dumps(&rules)).unwrap_or_default();
    let mut files = vec![
        ("history", serde_json::to_string_pretty(&case).unwrap() + "\n"),
        ("rules", dumps.first().map_or(String::new(), |dump| dump.text.clone())),
    ];
    if rules.kind == Kind::Native {
        files.push(("nft", rules.text()));
    }
    if !rules.sets.is_empty() {
        files.push(("ipset", rules.sets_text()));
    }
    let mut out = format!("{name}: {told}\n");
    for (end, text) in files {
        if let Ok(folder) = std::env::var("REACHWHY_ORACLE_SAVE") {
            std::fs::write(PathBuf::from(folder).join(format!("{name}.{end}")), &text).unwrap();
        }
        write!(out, "--- {name}.{end}\n{text}").unwrap();
    }
    Some(out)
}
