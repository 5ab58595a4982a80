//! From an arrival to the try it answers.

use std::net::{IpAddr, SocketAddr};

use super::{Attempt, Engine, Phase, Probe, StampedReply, Token, build};
use crate::probe::{IcmpReport, Moment, Outcome, ProbeKind, Reply, ReplyKind, RttSource, TcpReply};
use crate::wire::{
    ArpOperation, Decoded, Encapsulation, Extension, HexBytes, IcmpFamily, IcmpHeader, MacAddr, Network, Quoted,
    TcpFlags, TcpHeader, code_name, protocol, type_name,
};

/// When something arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The program's clock, just after the system call.
    pub user: Moment,
    /// The kernel's stamp, wall clock, nanoseconds since 1970-01-01 UTC.
    pub kernel_ns: Option<u64>,
}

/// A packet that arrived, without its IP header.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Its source.
    pub from: IpAddr,
    /// TTL or hop limit on arrival.
    pub ttl: Option<u8>,
    /// When.
    pub at: Received,
    /// From the upper header (for datagrams: from the payload) on.
    pub bytes: &'a [u8],
}

/// An ICMP error as a socket's error queue gives it (ip(7), `IP_RECVERR`).
#[derive(Debug, Clone, Copy)]
pub struct QueuedError<'a> {
    /// Who sent it; unspecified where the kernel does not say.
    pub offender: IpAddr,
    /// Type.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// The kernel's `ee_info`: the MTU for "fragmentation needed" and "packet too big".
    pub info: u32,
    /// TTL or hop limit of the error itself.
    pub ttl: Option<u8>,
    /// When.
    pub at: Received,
    /// Where the packet that caused it was going.
    pub dst: SocketAddr,
    /// From which port it left.
    pub local_port: u16,
    /// Its protocol.
    pub protocol: u8,
    /// Its bytes: for ICMP from the ICMP header on; for UDP and TCP, from the payload on.
    pub bytes: &'a [u8],
    /// The RFC 4884 extension structure behind it, where the kernel found one.
    pub extensions: Option<&'a [u8]>,
}

/// What the kernel says about a connection that stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConnectedSocket {
    /// The handshake's round trip as TCP measured it, microseconds; `None` where it did not.
    pub rtt_us: Option<u32>,
    /// How often the SYN was repeated.
    pub retransmits: u32,
    /// From where.
    pub local: Option<SocketAddr>,
}

/// Who answered, and when.
#[derive(Clone, Copy)]
struct Sender {
    from: IpAddr,
    mac: Option<MacAddr>,
    ttl: Option<u8>,
    at: Received,
}

impl Arrival<'_> {
    fn sender(&self) -> Sender {
        Sender { from: self.from, mac: None, ttl: self.ttl, at: self.at }
    }
}

struct Match {
    attempt: u32,
    exact: bool,
}

impl Engine {
    /// A whole IP packet.
    pub fn on_ip(&mut self, bytes: &[u8], at: Received) {
        let decoded = Decoded::parse(Encapsulation::Ip, bytes);
        let (Some(from), Some(number)) = (decoded.src(), decoded.protocol()) else {
            self.strays.malformed += 1;
            return;
        };
        let start = match &decoded.network {
            Some(Network::Ipv4(ip)) if ip.fragment_offset == 0 => 20 + ip.options.len(),
            Some(Network::Ipv6(_, upper)) if upper.fragment_offset.unwrap_or(0) == 0 => upper.offset,
            _ => return,
        };
        let Some(upper) = bytes.get(start..) else { return };
        let arrival = Arrival { from, ttl: decoded.ttl(), at, bytes: upper };
        match number {
            protocol::TCP => self.on_tcp(&arrival),
            protocol::ICMP => self.on_icmp(IcmpFamily::V4, &arrival),
            protocol::ICMPV6 => self.on_icmp(IcmpFamily::V6, &arrival),
            protocol::UDP => {
                if let Some((sport, dport)) = decoded.ports() {
                    self.on_udp(dport, sport, &Arrival { bytes: decoded.payload, ..arrival });
                }
            }
            _ => {}
        }
    }

    /// An ICMP or ICMPv6 message.
    pub fn on_icmp(&mut self, family: IcmpFamily, arrival: &Arrival<'_>) {
        let Ok(header) = IcmpHeader::parse(family, arrival.bytes) else {
            self.strays.malformed += 1;
            return;
        };
        let body = &arrival.bytes[IcmpHeader::LEN..];
        if header.kind == family.echo_reply() {
            match self.match_echo_reply(family, &header, arrival.from, body) {
                Some(found) => self.reply(&found, arrival.sender(), ReplyKind::EchoReply, None),
                None => self.strays.icmp += 1,
            }
            return;
        }
        let Some(quoted) = header.is_error().then(|| Quoted::parse(family, body)).flatten() else {
            // Loopback shows us our own requests.
            self.strays.icmp += u64::from(header.kind != family.echo_request());
            return;
        };
        let Some(found) = self.match_quoted(&quoted) else {
            self.strays.icmp += 1;
            return;
        };
        let report = IcmpReport {
            icmp_type: header.kind,
            code: header.code,
            says: header.describe(),
            next_hop_mtu: header.next_hop_mtu(),
            quoted: Some(Box::new(quoted)),
            extensions: Extension::parse_all(&header, body),
        };
        self.reply(&found, arrival.sender(), ReplyKind::IcmpError(report), None);
    }

    /// A TCP segment.
    pub fn on_tcp(&mut self, arrival: &Arrival<'_>) {
        let Ok((segment, _)) = TcpHeader::parse(arrival.bytes) else {
            self.strays.malformed += 1;
            return;
        };
        let tuple = (protocol::TCP, arrival.from, segment.sport, segment.dport);
        let Some(latest) = self.tuples.get(&tuple).copied() else {
            self.strays.tcp += 1;
            return;
        };
        let named = self.match_segment(&segment, arrival.from);
        let found = named.map_or(Match { attempt: latest, exact: false }, |attempt| Match { attempt, exact: true });
        let has = |flags| segment.flags.contains(flags);
        let kind = if has(TcpFlags::RST) {
            ReplyKind::Rst
        } else if has(TcpFlags::SYN | TcpFlags::ACK) {
            ReplyKind::SynAck
        } else {
            ReplyKind::TcpOther
        };
        let tcp = TcpReply {
            flags: Some(segment.flags),
            window: Some(segment.window),
            options: Some(segment.parsed_options()),
            acknowledges: found.exact,
            retransmits: None,
        };
        self.reply(&found, arrival.sender(), kind, Some(tcp));
    }

    /// A datagram to one of our ports, from a port.
    pub fn on_udp(&mut self, local_port: u16, from_port: u16, arrival: &Arrival<'_>) {
        let Some(attempt) = self.tuples.get(&(protocol::UDP, arrival.from, from_port, local_port)).copied() else {
            self.strays.udp += 1;
            return;
        };
        let kind = ReplyKind::UdpData { payload: HexBytes(arrival.bytes.to_vec()) };
        // A service that echoes sends the mark back; another answers one of the probes that share the port.
        let found = self.by_cookie(arrival.bytes, attempt).unwrap_or_else(|| self.only_if_alone(attempt));
        self.reply(&found, arrival.sender(), kind, None);
    }

    /// An ICMP error from a socket's error queue.
    pub fn on_queued_error(&mut self, error: &QueuedError<'_>) {
        let found = match error.protocol {
            protocol::UDP => {
                let tuple = (protocol::UDP, error.dst.ip(), error.dst.port(), error.local_port);
                let latest = self.tuples.get(&tuple).copied();
                latest.map(|latest| self.by_cookie(error.bytes, latest).unwrap_or_else(|| self.only_if_alone(latest)))
            }
            number => {
                // The kernel has matched the source already; the destination is checked like any quote's.
                let dst = error.dst.ip();
                self.match_quoted(&Quoted::from_upper(dst, dst, number, error.bytes))
            }
        };
        match found {
            Some(found) => self.queued_reply(&found, error),
            None => self.strays.icmp += 1,
        }
    }

    /// An ICMP error from the error queue of a connection's own socket (Linux 5.18 and later).
    pub fn on_connect_error_queued(&mut self, token: Token, error: &QueuedError<'_>) {
        self.queued_reply(&Match { attempt: token.0, exact: true }, error);
    }

    /// The path probe whose payload this is, of the flow that `latest` belongs to.
    fn by_cookie(&self, payload: &[u8], latest: u32) -> Option<Match> {
        let cookie = payload.get(2..10)?;
        let flow = |attempt: u32| match self.kind_of(attempt) {
            ProbeKind::Path(path) => Some((path.dst, path.flow)),
            _ => None,
        };
        let wanted = flow(latest)?;
        // The cookie is the token under a mask that is known here.
        let token = build::token_of(self.config.nonce, cookie)?;
        let known = (token as usize) < self.attempts.len() && flow(token) == Some(wanted);
        known.then_some(Match { attempt: token, exact: true })
    }

    fn queued_reply(&mut self, found: &Match, error: &QueuedError<'_>) {
        let family = IcmpFamily::of(error.dst.ip());
        let too_big = matches!((family, error.icmp_type, error.code), (IcmpFamily::V4, 3, 4) | (IcmpFamily::V6, 2, _));
        let says = match code_name(family, error.icmp_type, error.code) {
            Some(code) => format!("{}: {code}", type_name(family, error.icmp_type)),
            None => type_name(family, error.icmp_type).to_owned(),
        };
        let report = IcmpReport {
            icmp_type: error.icmp_type,
            code: error.code,
            says,
            next_hop_mtu: (too_big && error.info != 0).then_some(error.info),
            quoted: None,
            extensions: error.extensions.map(Extension::parse_structure).unwrap_or_default(),
        };
        let sender = Sender { from: error.offender, mac: None, ttl: error.ttl, at: error.at };
        self.reply(found, sender, ReplyKind::IcmpError(report), None);
    }

    /// A connection stands, or failed with an errno (its name).
    pub fn on_connect(&mut self, token: Token, result: Result<ConnectedSocket, &str>, at: Received) {
        let Some(attempt) = self.attempts.get_mut(token.0 as usize) else { return };
        let from = self.probes[attempt.probe].spec.kind.dst();
        let found = Match { attempt: token.0, exact: true };
        let sender = Sender { from, mac: None, ttl: None, at };
        match result {
            Ok(socket) => {
                attempt.local = socket.local.or(attempt.local);
                let tcp = TcpReply {
                    flags: None,
                    window: None,
                    options: None,
                    acknowledges: true,
                    retransmits: Some(socket.retransmits),
                };
                self.reply(&found, sender, ReplyKind::Connected, Some(tcp));
                // The kernel's own measurement is free of our scheduling; after a repeated SYN it may be of either.
                let index = self.attempts[token.0 as usize].probe;
                if let (Some(rtt), Some(last), 0) =
                    (socket.rtt_us, self.probes[index].replies.last_mut(), socket.retransmits)
                {
                    (last.reply.rtt_us, last.reply.rtt_source) = (Some(f64::from(rtt)), Some(RttSource::Kernel));
                }
            }
            Err(errno) => {
                let kind = ReplyKind::ConnectError { errno: errno.to_owned() };
                self.reply(&found, sender, kind, None);
            }
        }
    }

    /// An Ethernet frame with an ARP packet or a neighbour advertisement.
    pub fn on_frame(&mut self, interface: &str, bytes: &[u8], at: Received) {
        let decoded = Decoded::parse(Encapsulation::Ethernet, bytes);
        let Some(ether) = &decoded.ether else {
            self.strays.malformed += 1;
            return;
        };
        let (target, mac, kind) = match &decoded.network {
            Some(Network::Arp(arp)) if arp.operation == ArpOperation::Reply => {
                let ether_src = (ether.src != arp.sender_mac).then_some(ether.src);
                (IpAddr::V4(arp.sender_ip), arp.sender_mac, ReplyKind::ArpReply { ether_src })
            }
            // RFC 4861 §7.1.2: a hop limit other than 255 comes from beyond the link.
            Some(Network::Ipv6(ip, _)) if ip.hop_limit == 255 => {
                let Some(advert) = decoded.neighbour().filter(|message| message.advertisement) else { return };
                let kind = ReplyKind::NeighbourAdvert { router: advert.router, overrides: advert.overrides };
                (IpAddr::V6(advert.target), advert.link_address.unwrap_or(ether.src), kind)
            }
            _ => return,
        };
        let asked_here = |attempt: &Attempt| match &self.probes[attempt.probe].spec.kind {
            ProbeKind::Arp { interface: asked, .. } | ProbeKind::Ndp { interface: asked, .. } => asked == interface,
            _ => false,
        };
        let mut tries = self.neighbours.get(&target).into_iter().flatten().copied();
        let Some(latest) = tries.rfind(|token| asked_here(&self.attempts[*token as usize])) else {
            self.strays.neighbour += 1;
            return;
        };
        // The kernel asks for neighbours too: what came before our request left answers another.
        let sent = self.attempts[latest as usize].sent.map(|sent| self.wall(sent));
        let early = |(at, sent): (u64, u64)| at < sent && sent - at < 1_000_000_000;
        if sent.is_none() || at.kernel_ns.zip(sent).is_some_and(early) {
            self.strays.neighbour += 1;
            return;
        }
        let found = self.only_if_alone(latest);
        let sender = Sender { from: target, mac: Some(mac), ttl: decoded.ttl(), at };
        self.reply(&found, sender, kind, None);
    }

    /// The kernel's stamp of a packet that left: the packet itself comes back, from its link header on.
    ///
    /// How long that header is depends on the device, so the first place where a packet of ours is found counts.
    pub fn on_sent_stamp(&mut self, looped: &[u8], kernel_ns: u64) {
        for start in [14, 0, 18, 4, 16] {
            let Some(packet) = looped.get(start..) else { continue };
            let family = match packet.first().map(|octet| octet >> 4) {
                Some(4) => IcmpFamily::V4,
                Some(6) => IcmpFamily::V6,
                _ => continue,
            };
            let found = Quoted::parse(family, packet).and_then(|quoted| self.match_quoted(&quoted));
            if let Some(found) = found {
                self.stamp(found.attempt, kernel_ns);
                return;
            }
        }
        let decoded = Decoded::parse(Encapsulation::Ethernet, looped);
        let target = match &decoded.network {
            Some(Network::Arp(arp)) => Some(IpAddr::V4(arp.target_ip)),
            Some(Network::Ipv6(..)) => decoded.neighbour().map(|message| IpAddr::V6(message.target)),
            _ => None,
        };
        let tries = target.and_then(|target| self.neighbours.get(&target)).into_iter().flatten();
        let unstamped = |token: &&u32| self.attempts[**token as usize].kernel_ns.is_none();
        if let Some(token) = tries.copied().collect::<Vec<_>>().iter().find(unstamped) {
            self.stamp(*token, kernel_ns);
        }
    }

    /// The kernel's stamp of a packet that can be named.
    pub fn stamp(&mut self, attempt: u32, kernel_ns: u64) {
        if let Some(attempt) = self.attempts.get_mut(attempt as usize) {
            attempt.kernel_ns.get_or_insert(kernel_ns);
        }
    }

    fn match_echo_reply(&self, family: IcmpFamily, header: &IcmpHeader, from: IpAddr, body: &[u8]) -> Option<Match> {
        let (id, sequence) = header.echo()?;
        let attempt = *self.echoes.get(&(family, id, sequence))?;
        let right = || body.get(..8).is_some_and(|cookie| cookie == build::cookie(self.config.nonce, attempt));
        if let ProbeKind::Path(_) = self.kind_of(attempt) {
            return right().then_some(Match { attempt, exact: true });
        }
        let ProbeKind::IcmpEcho { dst, payload_len, .. } = self.kind_of(attempt) else { return None };
        if *payload_len >= 8 {
            // With the cookie intact the answer may come from another of the host's addresses.
            return right().then_some(Match { attempt, exact: true });
        }
        (*dst == from || dst.is_multicast()).then_some(Match { attempt, exact: true })
    }

    /// The try a quoted packet belongs to: every field that was quoted must fit.
    fn match_quoted(&self, quoted: &Quoted) -> Option<Match> {
        if let Some(found) = self.match_path(quoted) {
            return Some(found);
        }
        match quoted.protocol {
            protocol::ICMP | protocol::ICMPV6 => {
                let (id, sequence) = quoted.echo?;
                let attempt = *self.echoes.get(&(IcmpFamily::of(quoted.dst), id, sequence))?;
                (self.kind_of(attempt).dst() == quoted.dst).then_some(Match { attempt, exact: true })
            }
            protocol::TCP => {
                let (sport, dport) = quoted.ports?;
                let latest = *self.tuples.get(&(protocol::TCP, quoted.dst, dport, sport))?;
                let Some(seq) = quoted.seq else { return Some(self.only_if_alone(latest)) };
                let attempt = *self.segments.get(&seq)?;
                self.same_flow(attempt, quoted.dst, dport, sport).then_some(Match { attempt, exact: true })
            }
            protocol::UDP => {
                let (sport, dport) = quoted.ports?;
                let latest = *self.tuples.get(&(protocol::UDP, quoted.dst, dport, sport))?;
                Some(self.only_if_alone(latest))
            }
            _ => None,
        }
    }

    /// The path probe a quoted packet belongs to. Address translators on the way may have changed some of its fields,
    /// so the mark must fit, and all but one of the others that were quoted.
    fn match_path(&self, quoted: &Quoted) -> Option<Match> {
        if self.marks.is_empty() {
            return None;
        }
        let word = |at: usize| quoted.upper.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]));
        let mark = match quoted.protocol {
            protocol::ICMP | protocol::ICMPV6 => quoted.echo.map(|(_, sequence)| sequence),
            protocol::UDP => word(6),
            _ => None,
        };
        let by_seq = quoted.seq.and_then(|seq| self.segments.get(&seq)).copied();
        let known = |mark: u16| self.marks.get(&(quoted.protocol, mark)).copied();
        let cookie_at = if quoted.protocol == protocol::UDP { 10 } else { 8 };
        let cookie = quoted.upper.get(cookie_at..cookie_at + 8);
        let by_cookie = cookie
            .filter(|_| quoted.protocol != protocol::TCP)
            .and_then(|cookie| build::token_of(self.config.nonce, cookie))
            .filter(|token| (*token as usize) < self.attempts.len());
        let candidates = [by_cookie, by_seq, mark.and_then(known), quoted.id.and_then(known)];
        let fits = |attempt: &u32| {
            let ProbeKind::Path(path) = self.kind_of(*attempt) else { return false };
            let local = self.attempts[*attempt as usize].local.map(|local| local.port());
            let near = match quoted.protocol {
                protocol::ICMP | protocol::ICMPV6 => quoted.echo.map(|(id, _)| Some(id) == local),
                _ => quoted.ports.map(|(sport, dport)| Some(sport) == local && Some(dport) == path.method.dport()),
            };
            let marked = [by_seq, by_cookie].contains(&Some(*attempt)) || mark.and_then(known) == Some(*attempt);
            let identified = quoted.id.is_some_and(|id| known(id) == Some(*attempt));
            let addressed = quoted.dst == path.dst;
            let right = [marked, identified, addressed, near == Some(true)].into_iter().filter(|fits| *fits).count();
            path.method.protocol(path.dst.is_ipv6()) == quoted.protocol
                && path.dst.is_ipv6() == quoted.dst.is_ipv6()
                && (right + usize::from(quoted.id.is_none()) >= 3 || (by_cookie == Some(*attempt) && right >= 2))
        };
        candidates.into_iter().flatten().find(fits).map(|attempt| Match { attempt, exact: true })
    }

    /// The try whose sequence number this segment acknowledges (RFC 9293 §3.10.7.1: how a reset gets its numbers).
    fn match_segment(&self, segment: &TcpHeader, from: IpAddr) -> Option<u32> {
        let flags_of = |attempt: u32| match self.kind_of(attempt) {
            ProbeKind::TcpSyn { flags, .. } => *flags,
            ProbeKind::Path(_) => TcpFlags::SYN,
            _ => TcpFlags::default(),
        };
        let by_ack = (0..=2).find_map(|taken: u32| {
            let attempt = *self.segments.get(&segment.ack.wrapping_sub(taken))?;
            (flags_of(attempt).sequence_len() == taken && segment.flags.contains(TcpFlags::ACK)).then_some(attempt)
        });
        let by_seq = || {
            let attempt = *self.segments.get(&segment.seq)?;
            flags_of(attempt).contains(TcpFlags::ACK).then_some(attempt)
        };
        by_ack.or_else(by_seq).filter(|attempt| self.same_flow(*attempt, from, segment.sport, segment.dport))
    }

    fn same_flow(&self, attempt: u32, dst: IpAddr, dport: u16, sport: u16) -> bool {
        let local = self.attempts[attempt as usize].local.map(|local| local.port());
        let there = match self.kind_of(attempt) {
            ProbeKind::TcpSyn { dst: to, dport: port, .. } => *to == dst && *port == dport,
            ProbeKind::Path(path) => path.dst == dst && path.method.dport() == Some(dport),
            _ => false,
        };
        there && local == Some(sport)
    }

    fn kind_of(&self, attempt: u32) -> &ProbeKind {
        &self.probes[self.attempts[attempt as usize].probe].spec.kind
    }

    /// Tries that share a flow cannot be told apart: the try is certain only while it is the only one of it.
    fn only_if_alone(&self, attempt: u32) -> Match {
        let Attempt { probe, source, .. } = self.attempts[attempt as usize];
        if let ProbeKind::Path(path) = self.probes[probe].spec.kind {
            let shares = |other: &Probe| match &other.spec.kind {
                ProbeKind::Path(one) => other.phase == Phase::Open && one.dst == path.dst && one.flow == path.flow,
                _ => false,
            };
            // Looking at more would cost more than it could tell.
            let recent = self.probes.iter().rev().take(256);
            return Match { attempt, exact: recent.filter(|other| shares(other)).count() <= 1 };
        }
        let same = self.probes[probe].attempts.iter().filter(|other| self.attempts[**other as usize].source == source);
        Match { attempt, exact: same.count() <= 1 }
    }

    fn reply(&mut self, found: &Match, sender: Sender, kind: ReplyKind, tcp: Option<TcpReply>) {
        let Sender { from, mac, ttl, at } = sender;
        self.last = self.last.max(at.user);
        let attempt = &self.attempts[found.attempt as usize];
        let trip = found.exact.then(|| Self::round_trip(attempt, at)).flatten();
        let (index, number) = (attempt.probe, attempt.number);
        let reply = Reply {
            from,
            mac,
            kind,
            ttl,
            rtt_us: trip.map(|trip| trip.0),
            rtt_source: trip.map(|trip| trip.1),
            at_ns: at.kernel_ns.unwrap_or_else(|| self.wall(at.user)),
            number,
            tcp,
            duplicate: self.probes[index].replies.iter().any(|stamped| stamped.reply.is_conclusive()),
            late: self.probes[index].phase == Phase::Done,
        };
        let probe = &mut self.probes[index];
        let (conclusive, outcome) = (reply.is_conclusive(), reply.outcome());
        self.events.push_back(super::Event::Reply { id: probe.spec.id, reply: Box::new(reply.clone()) });
        probe.replies.push(StampedReply { reply, attempt: found.attempt, received: at, exact: found.exact });
        if probe.phase == Phase::Open && conclusive {
            debug_assert_ne!(outcome, Outcome::Cancelled);
            self.conclude(index, outcome);
        }
    }
}
