//! Listening to a link: who is new, who moved, who quarrels, who lies. Nothing is ever sent.

mod memory;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use memory::{BadMemory, Former, Memory, SCHEMA, Station};

use super::conversation::{Conversation, Outgoing, Step};
use super::frame::{self, Advert, Heard};
use super::judge::Severity;
use super::vendor::{self, Vendors};
use crate::wire::{Arp, ArpOperation, EtherHeader, MacAddr};

const SECOND: u64 = 1000;
/// Two answers to one request come within this time, milliseconds.
const TOGETHER: u64 = SECOND;
/// An address that goes back and forth within this time is had by both.
const QUARREL: u64 = 10 * SECOND;
/// A reply to a request is no older.
const ASKED: u64 = 5 * SECOND;
/// The same thing is told again after this time.
const AGAIN: u64 = 60 * SECOND;
/// A station that answers for so many addresses is worth a word.
const MANY: usize = 8;
/// Room for requests, and for what was told, before old ones go.
const ROOM: usize = 50_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An address that was not known.
    New,
    /// An address went to another station.
    Moved,
    /// An address went back to the station that had it before.
    FlipFlop,
    /// Two stations use one address at the same time.
    Duplicate,
    /// Another station uses this host's own address.
    OwnAddress,
    /// A station announces its address to all (gratuitous ARP, unsolicited advertisement).
    Announcement,
    /// A station asks whether an address is free (duplicate address detection).
    Probe,
    /// The gateway's address went to another station.
    GatewayChanged,
    /// A frame names another sender than sent it.
    SenderDiffers,
    /// A reply to a question that nobody asked.
    UnaskedReply,
    /// One station answers for many addresses.
    ManyAddresses,
    /// A router says to be the master of virtual addresses.
    VrrpMaster,
    /// Two routers say to be the master of the same virtual addresses.
    VrrpTwoMasters,
}

impl Kind {
    /// The name in JSON and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Moved => "moved",
            Self::FlipFlop => "flip_flop",
            Self::Duplicate => "duplicate",
            Self::OwnAddress => "own_address",
            Self::Announcement => "announcement",
            Self::Probe => "probe",
            Self::GatewayChanged => "gateway_changed",
            Self::SenderDiffers => "sender_differs",
            Self::UnaskedReply => "unasked_reply",
            Self::ManyAddresses => "many_addresses",
            Self::VrrpMaster => "vrrp_master",
            Self::VrrpTwoMasters => "vrrp_two_masters",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What.
    pub event: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// The address.
    pub ip: IpAddr,
    /// The station.
    pub mac: MacAddr,
    /// The station before, or the other one.
    pub other: Option<MacAddr>,
    /// Who made the station's hardware.
    pub vendor: Option<String>,
    /// In a sentence.
    pub summary: String,
    /// The evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
}

/// What is known of the link before anything is heard.
#[derive(Debug, Clone, Default)]
pub struct Home {
    /// This host's addresses.
    pub own: Vec<IpAddr>,
    /// This host's hardware addresses.
    pub own_macs: Vec<MacAddr>,
    /// Its gateways.
    pub gateways: Vec<IpAddr>,
}

/// A watch under way.
#[derive(Debug)]
pub struct Watch {
    home: Home,
    vendors: Vendors,
    memory: Memory,
    /// Added to the conversation's clock to get the time of day, nanoseconds.
    offset_ns: u64,
    begun_ms: Option<u64>,
    /// Who asked for what, and when.
    asked: HashMap<(MacAddr, IpAddr), u64>,
    /// The last reply for an address to an asker.
    replied: HashMap<(IpAddr, MacAddr), (MacAddr, u64)>,
    /// What each station answered for.
    answers: HashMap<MacAddr, BTreeSet<IpAddr>>,
    told: HashMap<(Kind, IpAddr, MacAddr), u64>,
    masters: HashMap<(u8, bool), (Advert, u64)>,
    events: Vec<Event>,
    /// Frames that said something.
    pub frames: u64,
    until_ns: Option<u64>,
}

/// How a claim was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Request,
    Reply { to: MacAddr },
    Announced,
}

impl Watch {
    /// Begins with what is remembered.
    pub fn new(home: Home, memory: Memory, vendors: Vendors) -> Self {
        Self {
            home,
            vendors,
            memory,
            offset_ns: 0,
            begun_ms: None,
            asked: HashMap::new(),
            replied: HashMap::new(),
            answers: HashMap::new(),
            told: HashMap::new(),
            masters: HashMap::new(),
            events: Vec::new(),
            frames: 0,
            until_ns: None,
        }
    }

    /// When driven as a conversation: what to add to its clock for the time of day, and when to end.
    #[must_use]
    pub fn on_clock(mut self, offset_ns: u64, until_ns: Option<u64>) -> Self {
        (self.offset_ns, self.until_ns) = (offset_ns, until_ns);
        self
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What is known by now.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes a frame that was on the link at this time (milliseconds since 1970-01-01 UTC).
    pub fn hear(&mut self, at_ms: u64, bytes: &[u8]) {
        let Some(heard) = frame::read(bytes) else { return };
        self.begun_ms.get_or_insert(at_ms);
        self.frames += 1;
        match heard {
            Heard::Arp(ether, arp) => self.arp(at_ms, &ether, &arp),
            Heard::Nd { ether, src, message } => {
                let target = IpAddr::V6(message.target);
                let mac = message.link_address.unwrap_or(ether.src);
                if message.advertisement {
                    let manner = if message.solicited { Manner::Reply { to: ether.dst } } else { Manner::Announced };
                    self.claim(at_ms, target, mac, manner, ether.src);
                } else if src.is_unspecified() {
                    self.probe(at_ms, target, ether.src);
                } else {
                    self.claim(at_ms, src.into(), mac, Manner::Request, ether.src);
                }
            }
            Heard::Vrrp(advert) => self.advert(at_ms, advert),
            Heard::Echo { .. } | Heard::Error { .. } => {}
        }
    }

    fn arp(&mut self, at: u64, ether: &EtherHeader, arp: &Arp) {
        let (sender, target) = (IpAddr::V4(arp.sender_ip), IpAddr::V4(arp.target_ip));
        match arp.operation {
            ArpOperation::Request if arp.sender_ip.is_unspecified() => self.probe(at, target, arp.sender_mac),
            ArpOperation::Request | ArpOperation::Reply if sender == target => {
                self.claim(at, sender, arp.sender_mac, Manner::Announced, ether.src);
            }
            ArpOperation::Request => {
                room(&mut self.asked, at);
                self.asked.insert((arp.sender_mac, target), at);
                self.claim(at, sender, arp.sender_mac, Manner::Request, ether.src);
            }
            ArpOperation::Reply if ether.dst.is_multicast() => {
                self.claim(at, sender, arp.sender_mac, Manner::Announced, ether.src);
            }
            ArpOperation::Reply => {
                self.claim(at, sender, arp.sender_mac, Manner::Reply { to: ether.dst }, ether.src);
            }
            ArpOperation::Other(_) => {}
        }
    }

    fn event(
        &mut self,
        at: u64,
        kind: Kind,
        severity: Severity,
        (ip, mac, other): (IpAddr, MacAddr, Option<MacAddr>),
        summary: String,
        because: Vec<String>,
    ) {
        let key = (kind, ip, mac);
        if self.told.get(&key).is_some_and(|told| at.saturating_sub(*told) < AGAIN) {
            return;
        }
        room(&mut self.told, at);
        self.told.insert(key, at);
        let vendor = vendor::note(mac).or_else(|| self.vendors.name(mac).map(str::to_owned));
        self.events.push(Event { at_ms: at, event: kind, severity, ip, mac, other, vendor, summary, because });
    }

    fn probe(&mut self, at: u64, target: IpAddr, mac: MacAddr) {
        if self.home.own_macs.contains(&mac) || target.is_unspecified() {
            return;
        }
        if self.home.own.contains(&target) {
            let summary = format!("{mac} wants to use {target}, which is this host's own address.");
            self.event(at, Kind::OwnAddress, Severity::Warning, (target, mac, None), summary, Vec::new());
            return;
        }
        // After an echo of our own, or of a host that has it already, it is no news.
        let held = self.memory.get(target).is_some_and(|station| station.mac == mac);
        if !held {
            let summary = format!("{mac} asks whether {target} is free: it is about to use it.");
            self.event(at, Kind::Probe, Severity::Info, (target, mac, None), summary, Vec::new());
        }
    }

    fn claim(&mut self, at: u64, ip: IpAddr, mac: MacAddr, manner: Manner, ether_src: MacAddr) {
        let group = mac.is_multicast() && mac.0[..2] != [0x03, 0xbf];
        if group || mac == MacAddr::ZERO || super::targets::no_station(ip).is_some() {
            return;
        }
        if self.home.own_macs.contains(&ether_src) {
            return;
        }
        if ether_src != mac && !vendor::is_virtual_router(mac) {
            let because = vec!["a proxy, a bond or a bridge that rewrites does so; so does a forger".to_owned()];
            let summary = format!("{ether_src} sent a frame that names {mac} for {ip}.");
            self.event(at, Kind::SenderDiffers, Severity::Warning, (ip, mac, Some(ether_src)), summary, because);
        }
        if self.home.own.contains(&ip) {
            let because = vec!["it spoke with it as its own".to_owned()];
            let summary = format!("{mac} uses {ip}, this host's own address.");
            return self.event(at, Kind::OwnAddress, Severity::Problem, (ip, mac, None), summary, because);
        }
        let unasked = self.unasked(at, ip, mac, manner);
        let together = self.together(at, ip, mac, manner);
        let before = self.memory.note(ip, mac, at);
        match before {
            None => {
                let what = vendor::note(mac).or_else(|| self.vendors.name(mac).map(str::to_owned));
                let what = what.map_or_else(String::new, |what| format!(" ({what})"));
                let summary = format!("{ip} is at {mac}{what}.");
                self.event(at, Kind::New, Severity::Info, (ip, mac, None), summary, Vec::new());
            }
            Some(before) if before.mac != mac => {
                self.changed(at, ip, mac, &before, manner, (unasked, together.is_some()));
            }
            Some(_) => {}
        }
        if manner == Manner::Announced {
            let summary = format!("{mac} announces {ip} to all, unasked.");
            self.event(at, Kind::Announcement, Severity::Info, (ip, mac, None), summary, Vec::new());
        }
        if let Some(because) = together {
            let (other, why) = because;
            self.duplicate(at, ip, mac, other, vec![why]);
        }
        if matches!(manner, Manner::Reply { .. }) {
            self.many(at, ip, mac);
        }
    }

    /// Who else answered the same request a moment ago, in words too.
    fn together(&mut self, at: u64, ip: IpAddr, mac: MacAddr, manner: Manner) -> Option<(MacAddr, String)> {
        let Manner::Reply { to } = manner else { return None };
        room(&mut self.replied, at);
        let (other, then) = self.replied.insert((ip, to), (mac, at))?;
        let since = at.saturating_sub(then);
        let both = other != mac && since < TOGETHER;
        both.then(|| (other, format!("both answered one request of {to}, {since} ms apart")))
    }

    /// Whether nobody was heard to ask for what is answered. In the first seconds that is not known.
    fn unasked(&mut self, at: u64, ip: IpAddr, mac: MacAddr, manner: Manner) -> bool {
        let Manner::Reply { to } = manner else { return false };
        let early = self.begun_ms.is_none_or(|begun| at.saturating_sub(begun) < ASKED);
        if early || ip.is_ipv6() || self.asked.get(&(to, ip)).is_some_and(|asked| at.saturating_sub(*asked) <= ASKED) {
            return false;
        }
        // Requests by unicast between two others are not heard; ours are.
        if !self.home.own_macs.is_empty() && !self.home.own_macs.contains(&to) {
            return false;
        }
        let summary = format!("{mac} answered for {ip}, which {to} had not asked for.");
        let because = vec!["an unasked reply makes caches believe it; forgers send them over and over".to_owned()];
        self.event(at, Kind::UnaskedReply, Severity::Warning, (ip, mac, Some(to)), summary, because);
        true
    }

    fn changed(
        &mut self,
        at: u64,
        ip: IpAddr,
        mac: MacAddr,
        before: &Station,
        manner: Manner,
        (unasked, together): (bool, bool),
    ) {
        let since = at.saturating_sub(before.last_ms);
        let mut because = vec![format!("{} was heard with it {} before", before.mac, span(since))];
        let mut evidence = 0;
        let others: Vec<IpAddr> = self
            .memory
            .addresses_of(mac)
            .into_iter()
            .filter(|other| *other != ip && other.is_ipv4() == ip.is_ipv4())
            .collect();
        let routers = vendor::is_virtual_router(mac) || vendor::is_virtual_router(before.mac);
        let vrrp = self.masters.values().any(|(advert, _)| advert.addresses.contains(&ip));
        if routers || vrrp {
            because.push("it is a virtual address (VRRP or the like): a failover".to_owned());
        }
        if let Some(other) = others.first() {
            because.push(format!("{mac} has {other} too"));
            evidence += 1;
        }
        if unasked {
            because.push("the reply was not asked for".to_owned());
            evidence += 1;
        }
        if manner == Manner::Announced {
            because.push("it was announced to all".to_owned());
        }
        if together {
            // Told as a duplicate.
        } else if let Some(former) = before.former.iter().find(|former| former.mac == mac) {
            let away = at.saturating_sub(former.last_ms);
            if away < QUARREL {
                because.push(format!("{mac} was heard with it {} before, too", span(away)));
                self.duplicate(at, ip, mac, before.mac, because.clone());
            } else {
                let summary = format!("{ip} went back from {} to {mac}, which had it {} ago.", before.mac, span(away));
                let severity = if routers || vrrp { Severity::Info } else { Severity::Warning };
                self.event(at, Kind::FlipFlop, severity, (ip, mac, Some(before.mac)), summary, because.clone());
            }
        } else {
            let summary = format!("{ip} went from {} to {mac}.", before.mac);
            let severity = if routers || vrrp { Severity::Info } else { Severity::Warning };
            self.event(at, Kind::Moved, severity, (ip, mac, Some(before.mac)), summary, because.clone());
        }
        if self.home.gateways.contains(&ip) && !routers && !vrrp {
            let (severity, meaning) = if evidence > 0 {
                (Severity::Problem, "Most likely someone takes the gateway's place (ARP spoofing)")
            } else {
                (Severity::Warning, "A new router, a failover, or someone who takes its place (ARP spoofing)")
            };
            let summary = format!("The gateway {ip} is now at {mac}, no longer at {}. {meaning}.", before.mac);
            self.event(at, Kind::GatewayChanged, severity, (ip, mac, Some(before.mac)), summary, because);
        }
    }

    fn duplicate(&mut self, at: u64, ip: IpAddr, mac: MacAddr, other: MacAddr, mut because: Vec<String>) {
        // One telling for the pair, whoever spoke last.
        let (first, second) = if mac < other { (mac, other) } else { (other, mac) };
        because.push(format!("conflict, ARP flux or interception? `reachwhy arp lookup {ip}` tells"));
        let summary = format!("{ip} is used by {first} and {second} at the same time.");
        self.event(at, Kind::Duplicate, Severity::Problem, (ip, first, Some(second)), summary, because);
    }

    fn many(&mut self, at: u64, ip: IpAddr, mac: MacAddr) {
        if ip.is_ipv6() || (self.answers.len() >= ROOM && !self.answers.contains_key(&mac)) {
            return;
        }
        let all = self.answers.entry(mac).or_default();
        if all.len() < 4096 && all.insert(ip) && all.len() == MANY {
            let summary = format!("{mac} answers for {MANY} addresses and more: proxy ARP, or one host with many.");
            let because = vec![format!("`reachwhy arp lookup {ip}` tells which")];
            self.event(at, Kind::ManyAddresses, Severity::Warning, (ip, mac, None), summary, because);
        }
    }

    fn advert(&mut self, at: u64, advert: Advert) {
        let Some(ip) = advert.addresses.first().copied() else { return };
        let key = (advert.router, advert.from.is_ipv4());
        let list: Vec<String> = advert.addresses.iter().map(ToString::to_string).collect();
        let (from, mac, router, priority) = (advert.from, advert.mac, advert.router, advert.priority);
        let last = self.masters.insert(key, (advert, at));
        match last {
            Some((other, then)) if other.from != from => {
                let since = at.saturating_sub(then);
                // A master that steps down says so with priority 0; one that was taken over falls silent.
                if since < 3 * SECOND && other.priority != 0 && priority != 0 && self.was_master(key, from, at) {
                    let because = vec![
                        format!(
                            "{from} (priority {priority}) and {} (priority {}) advertise within {}",
                            other.from,
                            other.priority,
                            span(since)
                        ),
                        "they do not hear each other's advertisements (IP protocol 112), or have different keys"
                            .to_owned(),
                    ];
                    let summary = format!(
                        "{from} and {} are both master of virtual router {router} ({}): split brain.",
                        other.from,
                        list.join(", ")
                    );
                    self.event(
                        at,
                        Kind::VrrpTwoMasters,
                        Severity::Problem,
                        (ip, mac.min(other.mac), Some(mac.max(other.mac))),
                        summary,
                        because,
                    );
                } else {
                    let summary = format!(
                        "{from} is now master of virtual router {router} ({}); it was {}.",
                        list.join(", "),
                        other.from
                    );
                    self.event(at, Kind::VrrpMaster, Severity::Info, (ip, mac, Some(other.mac)), summary, Vec::new());
                }
            }
            Some(_) => {}
            None => {
                let summary =
                    format!("{from} is master of virtual router {router} ({}), priority {priority}.", list.join(", "));
                self.event(at, Kind::VrrpMaster, Severity::Info, (ip, mac, None), summary, Vec::new());
            }
        }
        self.told.insert((Kind::VrrpMaster, from, MacAddr([0, 0, 0, 0, u8::from(key.1), router])), at);
    }

    /// Whether this router advertised a moment ago already: then it is no takeover.
    fn was_master(&self, key: (u8, bool), from: IpAddr, at: u64) -> bool {
        let mark = (Kind::VrrpMaster, from, MacAddr([0, 0, 0, 0, u8::from(key.1), key.0]));
        self.told.get(&mark).is_some_and(|then| at.saturating_sub(*then) < QUARREL)
    }
}

/// Drops what is old where a map has grown beyond its room.
fn room<K: std::hash::Hash + Eq, V: Time>(map: &mut HashMap<K, V>, at: u64) {
    if map.len() >= ROOM {
        map.retain(|_, value| at.saturating_sub(value.time()) < ASKED);
        if map.len() >= ROOM {
            map.clear();
        }
    }
}

trait Time {
    fn time(&self) -> u64;
}

impl Time for u64 {
    fn time(&self) -> u64 {
        *self
    }
}

impl Time for (MacAddr, u64) {
    fn time(&self) -> u64 {
        self.1
    }
}

/// `350 ms`, `12 s`, `3 min`, `2 h`, `5 d`.
fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..86_400_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

impl Conversation for Watch {
    fn poll(&mut self, now: u64, _out: &mut Vec<Outgoing>) -> Step {
        match self.until_ns {
            Some(until) if now >= until => Step::Done,
            Some(until) => Step::Until(until),
            None => Step::Until(now + 1_000_000_000),
        }
    }

    fn sent(&mut self, _token: u64, _at: u64) {}

    fn heard(&mut self, at: u64, frame: &[u8]) {
        self.hear(at.saturating_add(self.offset_ns) / 1_000_000, frame);
    }
}
