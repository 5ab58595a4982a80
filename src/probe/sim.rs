//! An in-memory network for tests and explanations: the same engine, a clock that only this loop moves.
//!
//! A [`Network`] is told of each packet that leaves and says what arrives, and when. [`Hosts`] is one with
//! plain scripted hosts; [`Weather`] wraps any other with delay, loss and duplication from a seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{
    Conductor, Config, ConnectedSocket, Engine, Event, Local, Moment, NoConductor, Packet, ProbeKind, ProbeSpec,
    Received, RunReport, SourcePort, Transmit,
};
use crate::wire::{
    Arp, ArpOperation, Decoded, Encapsulation, EtherHeader, IcmpFamily, IcmpHeader, Ipv4Header, Ipv6Header, MacAddr,
    Network as NetworkLayer, TcpFlags, TcpHeader, UdpHeader, ethertype, protocol,
};

/// The simulated prober's own addresses.
pub const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// See [`OWN_V4`].
pub const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// See [`OWN_V4`].
pub const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// First of the simulated prober's source ports.
pub const FIRST_PORT: u16 = 40000;

/// What travels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parcel {
    /// An IP packet.
    Ip(Vec<u8>),
    /// An Ethernet frame on an interface.
    Frame(String, Vec<u8>),
    /// Outwards: a connection is being opened to there.
    Connect(SocketAddr),
    /// Back: how that went; an errno's name, if badly.
    Connected(Result<(), String>),
}

/// What answers.
pub trait Network {
    /// The answers to a parcel that left `now`, and how long after it each arrives. An error is an errno's name:
    /// this host refused to send.
    fn carry(&mut self, parcel: &Parcel, now: Moment) -> Result<Vec<(Duration, Parcel)>, String>;
}

impl<F> Network for F
where
    F: FnMut(&Parcel, Moment) -> Result<Vec<(Duration, Parcel)>, String>,
{
    fn carry(&mut self, parcel: &Parcel, now: Moment) -> Result<Vec<(Duration, Parcel)>, String> {
        self(parcel, now)
    }
}

/// When it arrives, in which order among equals, at which connection, what.
type Delivery = Reverse<(Moment, usize, Option<u32>, Parcel)>;

/// Runs probes over a network until all are over; gives also all that happened, in order.
pub fn run(specs: Vec<ProbeSpec>, config: Config, network: &mut dyn Network) -> (RunReport, Vec<Event>) {
    let (engine, events) = go(Engine::new(specs, config), network, &mut NoConductor);
    (engine.finish_run(0), events)
}

/// Runs what a conductor wants sent, until it wants no more; gives all that happened, in order.
pub fn conduct(conductor: &mut dyn Conductor, config: Config, network: &mut dyn Network) -> Vec<Event> {
    go(Engine::new(Vec::new(), config), network, conductor).1
}

fn go(mut engine: Engine, network: &mut dyn Network, conductor: &mut dyn Conductor) -> (Engine, Vec<Event>) {
    let mut under_way: BinaryHeap<Delivery> = BinaryHeap::new();
    let (mut now, mut count, mut events) = (Moment(0), 0, Vec::new());
    loop {
        engine.advance(now);
        while let Some(event) = engine.event() {
            conductor.heard(&event, now);
            events.push(event);
        }
        let plan = conductor.plan(now);
        if plan.ends(engine.is_done()) {
            break;
        }
        plan.send.into_iter().for_each(|spec| engine.push(spec));
        while let Some(transmit) = engine.poll(now) {
            let parcel = leave(&mut engine, &transmit);
            match network.carry(&parcel, now) {
                Err(errno) => engine.failed(transmit.token, &errno),
                Ok(answers) => {
                    engine.sent(transmit.token, now);
                    let token = matches!(parcel, Parcel::Connect(_)).then_some(transmit.token.0);
                    for (after, answer) in answers {
                        count += 1;
                        under_way.push(Reverse((now + after, count, token, answer)));
                    }
                }
            }
        }
        while under_way.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, token, parcel))) = under_way.pop() else { break };
            arrive(&mut engine, token, &parcel, now);
        }
        while let Some(event) = engine.event() {
            conductor.heard(&event, now);
            events.push(event);
        }
        let _ = engine.closed();
        let arrival = under_way.peek().map(|Reverse((at, ..))| *at);
        let Some(next) = [engine.wake_at(), arrival, plan.wake].into_iter().flatten().min() else { break };
        // An engine that is due now and does nothing would stop the clock.
        now = next.max(now + Duration::from_nanos(u64::from(next <= now)));
    }
    events.extend(std::iter::from_fn(|| engine.event()));
    (engine, events)
}

fn leave(engine: &mut Engine, transmit: &Transmit) -> Parcel {
    let spec = engine.spec(transmit);
    let v6 = spec.kind.dst().is_ipv6();
    let own: IpAddr = if v6 { OWN_V6.into() } else { OWN_V4.into() };
    let port = match transmit.source {
        SourcePort::Lane(lane) => FIRST_PORT + lane,
        SourcePort::Fixed(port) => port,
        SourcePort::None => 0,
    };
    let interface = match &spec.kind {
        ProbeKind::Arp { interface, .. } | ProbeKind::Ndp { interface, .. } => Some(interface.clone()),
        _ => None,
    };
    let local = match interface {
        Some(_) => Local::Link(OWN_MAC, Some(own)),
        None if matches!(spec.kind, ProbeKind::Path(_)) => Local::Whole(SocketAddr::new(own, port)),
        None => Local::Address(SocketAddr::new(own, port)),
    };
    match engine.prepare(transmit, local) {
        Packet::Frame(bytes) => Parcel::Frame(interface.unwrap_or_default(), bytes),
        Packet::Connect { dst, .. } => Parcel::Connect(dst),
        Packet::Whole { bytes, .. } => Parcel::Ip(bytes),
        Packet::Udp { dst, ttl, payload } => {
            let datagram = UdpHeader::datagram(own, dst.ip(), port, dst.port(), &payload);
            Parcel::Ip(ip_packet(own, dst.ip(), protocol::UDP, ttl.unwrap_or(64), &datagram))
        }
        Packet::Ip { src, dst, protocol, ttl, bytes } => {
            Parcel::Ip(ip_packet(src.unwrap_or(own), dst, protocol, ttl.unwrap_or(64), &bytes))
        }
    }
}

fn arrive(engine: &mut Engine, token: Option<u32>, parcel: &Parcel, now: Moment) {
    let at = Received { user: now, kernel_ns: None };
    match parcel {
        Parcel::Ip(bytes) => engine.on_ip(bytes, at),
        Parcel::Frame(interface, bytes) => engine.on_frame(interface, bytes, at),
        Parcel::Connected(result) => {
            let Some(token) = token else { return };
            let socket = ConnectedSocket { rtt_us: None, retransmits: 0, local: None };
            let result = result.as_ref().map(|()| socket).map_err(String::as_str);
            engine.on_connect(super::Token(token), result, at);
        }
        Parcel::Connect(_) => {}
    }
}

/// An IP packet of either family; empty when the families do not fit.
pub fn ip_packet(src: IpAddr, dst: IpAddr, protocol: u8, ttl: u8, upper: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4Header { ttl, ..Ipv4Header::new(src, dst, protocol) }.packet(upper),
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            Ipv6Header { hop_limit: ttl, ..Ipv6Header::new(src, dst, protocol) }.packet(upper)
        }
        _ => Vec::new(),
    }
}

/// An ICMP error about a packet, quoting its first `quote` octets behind the IP header.
pub fn icmp_error(from: IpAddr, about: &[u8], kind: u8, code: u8, quote: usize) -> Option<Vec<u8>> {
    let packet = Decoded::parse(Encapsulation::Ip, about);
    let (to, family) = (packet.src()?, IcmpFamily::of(from));
    let header_len = match packet.network.as_ref()? {
        NetworkLayer::Ipv4(ip) => Ipv4Header::MIN_LEN + ip.options.len(),
        _ => Ipv6Header::LEN,
    };
    let quoted = &about[..about.len().min(header_len + quote)];
    let header = IcmpHeader { family, kind, code, checksum: 0, rest: [0; 4] };
    Some(ip_packet(from, to, family.protocol(), 64, &header.message(from, to, quoted)))
}

/// How a port of a scripted host behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// SYN-ACK; a datagram is sent back.
    Open,
    /// Reset; port unreachable.
    Closed,
    /// Nothing.
    Silent,
    /// This ICMP type and code from this address.
    Rejected(IpAddr, u8, u8),
}

/// A scripted host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Whether it answers echo requests.
    pub echo: bool,
    /// Ports that are special.
    pub ports: HashMap<u16, Port>,
    /// All others.
    pub otherwise: Port,
    /// Who answers for it on its link.
    pub macs: Vec<MacAddr>,
    /// One way, and the same back.
    pub delay: Duration,
}

impl Default for Host {
    fn default() -> Self {
        let delay = Duration::from_millis(1);
        Self { echo: true, ports: HashMap::new(), otherwise: Port::Closed, macs: Vec::new(), delay }
    }
}

/// Scripted hosts; to all others there is no route.
#[derive(Debug, Clone, Default)]
pub struct Hosts(pub HashMap<IpAddr, Host>);

impl Hosts {
    fn answer(host: &Host, bytes: &[u8]) -> Option<Vec<u8>> {
        let packet = Decoded::parse(Encapsulation::Ip, bytes);
        let (src, dst) = (packet.src()?, packet.dst()?);
        if let Some(icmp) = packet.icmp() {
            let (id, sequence) = icmp.echo().filter(|_| host.echo)?;
            let header = IcmpHeader::new_echo(icmp.family, false, id, sequence);
            return Some(ip_packet(dst, src, icmp.family.protocol(), 64, &header.message(dst, src, packet.payload)));
        }
        let (sport, dport) = packet.ports()?;
        let port = host.ports.get(&dport).copied().unwrap_or(host.otherwise);
        match (port, packet.tcp()) {
            (Port::Silent, _) => None,
            (Port::Rejected(from, kind, code), _) => icmp_error(from, bytes, kind, code, 8),
            (Port::Open, Some(tcp)) if tcp.flags == TcpFlags::SYN => {
                let flags = TcpFlags::SYN | TcpFlags::ACK;
                let reply = TcpHeader { ack: tcp.seq.wrapping_add(1), ..TcpHeader::new(dport, sport, flags) };
                Some(ip_packet(dst, src, protocol::TCP, 64, &reply.segment(dst, src, &[])))
            }
            (_, Some(tcp)) => {
                // RFC 9293 §3.10.7.1: a reset takes its numbers from what it answers.
                let reply = if tcp.flags.contains(TcpFlags::ACK) {
                    TcpHeader { seq: tcp.ack, ..TcpHeader::new(dport, sport, TcpFlags::RST) }
                } else {
                    let ack = tcp.seq.wrapping_add(tcp.flags.sequence_len());
                    TcpHeader { ack, ..TcpHeader::new(dport, sport, TcpFlags::RST | TcpFlags::ACK) }
                };
                Some(ip_packet(dst, src, protocol::TCP, 64, &reply.segment(dst, src, &[])))
            }
            (Port::Open, None) => {
                let datagram = UdpHeader::datagram(dst, src, dport, sport, packet.payload);
                Some(ip_packet(dst, src, protocol::UDP, 64, &datagram))
            }
            (Port::Closed, None) => {
                let (kind, code) = if dst.is_ipv4() { (3, 3) } else { (1, 4) };
                icmp_error(dst, bytes, kind, code, 8)
            }
        }
    }

    fn arp_answers(&self, interface: &str, bytes: &[u8]) -> Vec<(Duration, Parcel)> {
        let packet = Decoded::parse(Encapsulation::Ethernet, bytes);
        let Some(NetworkLayer::Arp(request)) = &packet.network else { return Vec::new() };
        let Some(host) = self.0.get(&IpAddr::V4(request.target_ip)) else { return Vec::new() };
        let reply = |mac: &MacAddr| {
            let header =
                EtherHeader { dst: request.sender_mac, src: *mac, vlans: Vec::new(), ethertype: ethertype::ARP };
            let arp = Arp {
                operation: ArpOperation::Reply,
                sender_mac: *mac,
                sender_ip: request.target_ip,
                target_mac: request.sender_mac,
                target_ip: request.sender_ip,
            };
            let frame = [header.emit(), arp.emit()].concat();
            (host.delay * 2, Parcel::Frame(interface.to_owned(), frame))
        };
        host.macs.iter().map(reply).collect()
    }
}

impl Network for Hosts {
    fn carry(&mut self, parcel: &Parcel, _now: Moment) -> Result<Vec<(Duration, Parcel)>, String> {
        let unreachable = || "ENETUNREACH".to_owned();
        match parcel {
            Parcel::Frame(interface, bytes) => Ok(self.arp_answers(interface, bytes)),
            Parcel::Ip(bytes) => {
                let dst = Decoded::parse(Encapsulation::Ip, bytes).dst().ok_or_else(unreachable)?;
                let host = self.0.get(&dst).ok_or_else(unreachable)?;
                let answer = Self::answer(host, bytes);
                Ok(answer.map(|answer| (host.delay * 2, Parcel::Ip(answer))).into_iter().collect())
            }
            Parcel::Connect(dst) => {
                let host = self.0.get(&dst.ip()).ok_or_else(unreachable)?;
                let result = match host.ports.get(&dst.port()).copied().unwrap_or(host.otherwise) {
                    Port::Open => Ok(()),
                    Port::Closed => Err("ECONNREFUSED".to_owned()),
                    Port::Rejected(..) => Err("EHOSTUNREACH".to_owned()),
                    Port::Silent => return Ok(Vec::new()),
                };
                Ok(vec![(host.delay * 2, Parcel::Connected(result))])
            }
            Parcel::Connected(_) => Ok(Vec::new()),
        }
    }
}

/// Delay, loss and duplication around another network, the same for the same seed.
#[derive(Debug, Clone)]
pub struct Weather<N> {
    /// What is wrapped.
    pub inner: N,
    /// Of 100 answers, how many are lost.
    pub loss_percent: u8,
    /// Of 100 answers, how many come twice.
    pub twice_percent: u8,
    /// Added to each answer, between none and this.
    pub jitter: Duration,
    /// Where the dice begin.
    pub seed: u64,
}

impl<N> Weather<N> {
    /// SplitMix64 (Steele, Lea, Flood 2014): 0 to 99.
    fn dice(&mut self) -> u8 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((mixed ^ (mixed >> 31)) % 100).unwrap_or(0)
    }
}

impl<N: Network> Network for Weather<N> {
    fn carry(&mut self, parcel: &Parcel, now: Moment) -> Result<Vec<(Duration, Parcel)>, String> {
        let mut delivered = Vec::new();
        for (after, answer) in self.inner.carry(parcel, now)? {
            if self.dice() < self.loss_percent {
                continue;
            }
            let after = after + self.jitter * u32::from(self.dice()) / 100;
            if self.dice() < self.twice_percent {
                delivered.push((after + Duration::from_micros(10), answer.clone()));
            }
            delivered.push((after, answer));
        }
        Ok(delivered)
    }
}
