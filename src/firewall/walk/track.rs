//! The packet and its flow, where the walk has a history.

use std::net::IpAddr;

use crate::firewall::ruleset::{Base, ChainKind, CtStates, CtTest, Hook, NatRange, Net, PortRange, Side, Target, Test};
use crate::firewall::state::{
    Ask, Chosen, Dir, Look, Manip, Seen, Segment, Session, Status, Tracked, Tuple, Wanted, is_icmp_error,
};
use crate::host::Backend;
use crate::wire::{HexBytes, IcmpFamily, Quoted};

use super::flow::Run;
use super::live::Truth;
use super::nat::{best_address, has_ports, mapped};
use super::stack::ChainAt;

/// At which priority a hook translates (`NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`), and which end.
pub(super) fn nat_point(hook: Hook) -> Option<(i32, Manip)> {
    match hook {
        Hook::Prerouting | Hook::Output => Some((-100, Manip::Destination)),
        Hook::Input | Hook::Postrouting => Some((100, Manip::Source)),
        _ => None,
    }
}

/// When a base chain runs: nat chains run where their hook translates, in the order of their own
/// priorities (`net/netfilter/nf_nat_core.c`, `nf_nat_register_fn`).
pub(super) fn runs_at(base: &Base) -> (i32, i32) {
    match nat_point(base.hook) {
        Some((at, _)) if base.kind == ChainKind::Nat => (at, base.priority),
        _ => (base.priority, base.priority),
    }
}

/// Whether x_tables itself looks at it, before any module.
pub(in crate::firewall) fn is_core(test: &Test) -> bool {
    matches!(
        test,
        Test::Source(_)
            | Test::Destination(_)
            | Test::InInterface(_)
            | Test::OutInterface(_)
            | Test::Protocol(_)
            | Test::Fragment
    )
}

impl Run<'_> {
    /// Finds the packet's flow, or begins one.
    pub(super) fn track(&mut self) {
        if self.session.is_none() || self.live.state.intersects(CtStates::UNTRACKED) {
            return;
        }
        let tuple = self.tuple();
        let flags = if tuple.proto == 6 { self.live.tcp_flags() } else { crate::firewall::ruleset::TcpFlags(0) };
        // What a packet's size is matters to few rules; those name it when they look at it.
        let assumed = self.live.assumed.len();
        let length = u64::from(self.live.length());
        self.live.assumed.truncate(assumed);
        let quoted = self.quoted(tuple);
        let loose = self.facts.host.and_then(|h| h.sysctl("net.netfilter.nf_conntrack_tcp_loose")) != Some(0);
        let by_lo = self.live.hook == Hook::Prerouting && self.live.packet.in_.as_deref() == Some("lo");
        let given = self.live.packet.ctstate;
        let segment = (tuple.proto == 6).then(|| self.live.wire_now()).flatten().and_then(|octets| {
            let at = usize::try_from(self.live.network_header()).ok()?;
            Segment::of(octets.get(at..)?)
        });
        let seen = Seen { flags, quoted, length, loose, given, by_lo, segment };
        let Some(session) = &mut self.session else { return };
        let tracked = session.track(tuple, &seen);
        self.live.state = match tracked {
            Tracked::New => CtStates::NEW,
            Tracked::Established => CtStates::ESTABLISHED,
            Tracked::Related => CtStates::RELATED,
            Tracked::Invalid => CtStates::INVALID,
            Tracked::Untracked => CtStates::UNTRACKED,
        };
        if let Some(current) = &mut session.current {
            if let (None, Some(mark)) = (current.id, self.live.packet.connmark) {
                current.flow.mark = mark;
            }
            self.live.connmark = current.flow.mark;
        }
        self.translated_states();
    }

    /// The packet's own tuple.
    fn tuple(&mut self) -> Tuple {
        let (src, dst, proto) = (self.live.packet.src, self.live.packet.dst, self.live.proto);
        let (sport, dport) = match proto {
            1 | 58 => {
                let (kind, code) = self.live.icmp();
                (self.live.icmp_id(), u16::from(kind) << 8 | u16::from(code))
            }
            6 | 17 | 33 | 132 | 136 => {
                if self.live.packet.dport.is_none() {
                    self.live.assume("destination port 0");
                }
                (self.live.sport(), self.live.packet.dport.unwrap_or(0))
            }
            _ => (0, 0),
        };
        Tuple { src, dst, proto, sport, dport }
    }

    /// The tuple of the packet that an ICMP error quotes. Where the quote is not given, it may be
    /// any packet that this host saw from the one whom the error is for.
    fn quoted(&mut self, tuple: Tuple) -> Option<Tuple> {
        if !is_icmp_error(tuple.proto, tuple.icmp_type()) {
            return None;
        }
        if let Some(hex) = &self.live.packet.payload {
            let bytes: HexBytes = serde_json::from_value(serde_json::Value::String(hex.clone())).ok()?;
            let family = if self.live.v6 { IcmpFamily::V6 } else { IcmpFamily::V4 };
            let quoted = Quoted::parse(family, &bytes.0)?;
            let (sport, dport) = match (quoted.protocol, quoted.ports, quoted.upper.0.as_slice()) {
                // A packet given by its fields has no identifier: it is 0 for all.
                (1 | 58, _, [kind, code, _, _, high, low, ..]) if self.live.wire.is_some() => {
                    (u16::from_be_bytes([*high, *low]), u16::from(*kind) << 8 | u16::from(*code))
                }
                (1 | 58, _, [kind, code, ..]) => (0, u16::from(*kind) << 8 | u16::from(*code)),
                (_, Some(ports), _) => ports,
                (_, None, [a, b, c, d, ..]) if matches!(quoted.protocol, 6 | 17 | 33 | 132 | 136) => {
                    (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
                }
                _ => (0, 0),
            };
            return Some(Tuple { src: quoted.src, dst: quoted.dst, proto: quoted.protocol, sport, dport });
        }
        let session = self.session.as_ref()?;
        let about = session.flows().find_map(|(_, flow)| {
            let dir = [Dir::Original, Dir::Reply].into_iter().find(|dir| flow.tuple(*dir).dst == tuple.dst)?;
            flow.tuple(dir).invert()
        })?;
        self.live
            .assume(format!("the ICMP error quotes a packet {} > {} (its payload is not given)", about.src, about.dst));
        Some(about)
    }

    /// SNAT and DNAT are states that are OR-ed in (`conntrack_mt`).
    fn translated_states(&mut self) {
        let Some(current) = self.session.as_ref().and_then(|session| session.current.as_ref()) else { return };
        for (status, state) in [(Status::SRC_NAT, CtStates::SNAT), (Status::DST_NAT, CtStates::DNAT)] {
            if current.flow.status.has(status) {
                self.live.state.0 |= state.0;
            }
        }
    }

    /// Whether nat chains of this hook see the packet: its flow is new and this end not yet bound.
    pub(super) fn nat_undecided(&self, session: &Session<'_>) -> bool {
        let fresh = self.live.state.intersects(CtStates(CtStates::NEW.0 | CtStates::RELATED.0));
        let error = session.current.as_ref().is_none_or(|current| current.error);
        fresh && !error && nat_point(self.live.hook).is_some_and(|(_, manip)| !session.bound(manip))
    }

    /// After the nat chains of a hook: a flow that none of them bound is bound as it is, and the
    /// packet gets the addresses of its flow's binding.
    pub(super) fn finish_nat(&mut self) {
        let Some((_, manip)) = nat_point(self.live.hook) else { return };
        let Some(session) = &self.session else { return };
        if !self.stack.translates(self.live.v6) {
            return;
        }
        if self.nat_undecided(session) {
            self.bind(manip, &Wanted::default());
        }
        let Some(session) = &self.session else { return };
        let Some(tuple) = session.translated(manip) else { return };
        let error = session.current.as_ref().is_some_and(|current| current.error);
        let ports = tuple.has_ports() && !error;
        let packet = &mut self.live.packet;
        match manip {
            Manip::Source => {
                packet.src = tuple.src;
                if ports {
                    packet.sport = Some(tuple.sport);
                }
            }
            Manip::Destination => {
                packet.dst = tuple.dst;
                if ports {
                    packet.dport = Some(tuple.dport);
                }
            }
        }
        if error && self.live.packet.payload.is_some() {
            self.live.quote_open = true;
            self.live.assume("the packet that the ICMP error quotes is translated too, which is not shown");
        }
    }

    fn bind(&mut self, manip: Manip, wanted: &Wanted) {
        let Some(session) = &mut self.session else { return };
        let chosen = session.bind(manip, wanted);
        match chosen {
            Chosen::Sure => (),
            Chosen::OneOf(range) => {
                let end = if manip == Manip::Source { "source" } else { "destination" };
                self.live.assume(format!("the {end} port becomes any free one of {range}; the first is taken"));
            }
            Chosen::NoneFree => self.live.assume("no free port is left to translate to"),
        }
        self.translated_states();
    }

    /// What a nat target does to a new flow. The packet itself changes after the chain.
    pub(super) fn bind_target(&mut self, target: &Target) {
        let Some((_, manip)) = nat_point(self.live.hook) else { return };
        let (range, own) = match target {
            Target::Dnat(range) | Target::Snat(range) => (range.clone(), None),
            Target::Masquerade(range) => {
                let out = self.live.packet.out.clone();
                let own = self.masquerade_address();
                if own.is_none() {
                    let out = out.unwrap_or_else(|| "its interface".to_owned());
                    self.live.assume(format!("the source becomes the address of {out}, which is not known"));
                }
                (range.clone(), own)
            }
            Target::Redirect(range) => {
                let own = self.redirect_address();
                if own.is_none() {
                    self.live.assume("the destination becomes this host's own address, which is not known");
                }
                self.live.redirected = true;
                (range.clone(), own)
            }
            Target::Netmap(net) => (NatRange::default(), Some(self.mapped_end(manip, net))),
            _ => return,
        };
        let within = own.map(|own| (own, own)).or(range.addrs);
        let as_others = self.as_others(manip, within, &range);
        if let Some((addr, port)) = as_others {
            let changed = self.live.packet.sport.is_some_and(|own| own != port);
            let ports = changed.then_some(PortRange { from: port, to: port });
            self.bind(manip, &Wanted { addr: Some(addr), ports, ..Wanted::default() });
            return;
        }
        let addr = own.or_else(|| self.address_of(manip, &range));
        let random = range.flags.contains("random");
        self.bind(manip, &Wanted { addr, ports: range.ports, base: range.base, random });
    }

    /// What the source becomes since another flow of it became that; not where it may stay as it is.
    fn as_others(&self, manip: Manip, within: Option<(IpAddr, IpAddr)>, range: &NatRange) -> Option<(IpAddr, u16)> {
        let (from, to) = within?;
        let packet = &self.live.packet;
        let stays = (from..=to).contains(&packet.src)
            && range.ports.is_none_or(|ports| packet.sport.is_some_and(|port| ports.contains(port)));
        if manip != Manip::Source || stays || range.flags.contains("random") {
            return None;
        }
        self.session.as_ref()?.source_of_others(within, range.ports)
    }

    fn mapped_end(&self, manip: Manip, net: &Net) -> IpAddr {
        mapped(if manip == Manip::Source { self.live.packet.src } else { self.live.packet.dst }, net)
    }

    /// One address of a range (`find_best_ips_proto`).
    fn address_of(&mut self, manip: Manip, range: &NatRange) -> Option<IpAddr> {
        let (from, to) = range.addrs?;
        let own = if manip == Manip::Source { self.live.packet.src } else { self.live.packet.dst };
        if from != to && manip == Manip::Source && (from..=to).contains(&own) {
            return Some(own);
        }
        if from == to {
            return Some(from);
        }
        let persistent = range.flags.contains("persistent");
        // The tuple as it is now: NAT of the other end may have changed it.
        let (src, dst) = (self.live.original.0, self.live.packet.dst);
        Some(best_address((from, to), (src, dst), persistent, manip == Manip::Destination))
    }

    /// What one option of `-m conntrack` says of the packet's flow, where there is a history.
    pub(super) fn ct_of_flow(&self, test: &CtTest) -> Option<Truth> {
        let session = self.session.as_ref()?;
        let Some(current) = &session.current else { return Some(Truth::Absent) };
        let flow = &current.flow;
        Some(Truth::of(match test {
            CtTest::State(_) => return Some(Truth::Yes),
            CtTest::Proto(number) => flow.tuples[0].proto == *number,
            CtTest::Status(statuses) => flow.status.0 & u16::from(statuses.0) != 0,
            CtTest::Direction(reply) => (current.dir == Dir::Reply) == *reply,
            CtTest::Expire(text) => {
                let left = flow.expires.saturating_sub(session.now()).as_secs();
                let (from, to) = text.split_once(':').unwrap_or((text, text));
                let number = |text: &str, empty| if text.is_empty() { Some(empty) } else { text.parse::<u64>().ok() };
                match (number(from, 0), number(to, u64::MAX)) {
                    (Some(from), Some(to)) => (from..=to).contains(&left),
                    _ => return None,
                }
            }
            CtTest::Addr { reply, side, net } => {
                let tuple = flow.tuples[usize::from(*reply)];
                net.contains(if *side == Side::Source { tuple.src } else { tuple.dst })
            }
            CtTest::Port { reply, side, range } => {
                let tuple = flow.tuples[usize::from(*reply)];
                range.contains(if *side == Side::Source { tuple.sport } else { tuple.dport })
            }
        }))
    }

    /// Whether a match that remembers holds; without a history that is not known.
    pub(super) fn stateful(&mut self, at: ChainAt, module: &str, options: &str) -> Truth {
        if self.session.is_none() || self.musing {
            return Truth::Maybe(format!("{module} rests on history, chance or time"));
        }
        let assumed = self.live.assumed.len();
        let look = Look {
            src: self.live.packet.src,
            dst: self.live.packet.dst,
            // Of other protocols they count as 0 (xt_hashlimit.c, hashlimit_init_dst).
            sport: self.live.packet.sport.unwrap_or(if has_ports(self.live.proto) { 40_000 } else { 0 }),
            dport: self.live.packet.dport.unwrap_or(0),
            proto: self.live.proto,
            // As before it was forwarded (xt_recent.c).
            ttl: self.live.ttl.wrapping_add(u8::from(
                self.live.came_in && self.live.hook != Hook::Prerouting && self.live.hook != Hook::Input,
            )),
            length: u64::from(self.live.length()),
            legacy: self.stack.at(at).is_some_and(|(ruleset, _, _)| ruleset.backend == Backend::Legacy),
            recent_mask: self.recent_mask(module, options),
        };
        if !matches!(module, "quota" | "connbytes") {
            self.live.assumed.truncate(assumed);
        }
        let (rule, index) = self.here;
        let Some(session) = &mut self.session else { return Truth::No };
        match session.ask((at, rule, index), module, options, &look) {
            Ask::Yes => Truth::Yes,
            Ask::No => Truth::No,
            Ask::Maybe(why) => Truth::Maybe(why),
        }
    }

    fn recent_mask(&self, module: &str, options: &str) -> Option<IpAddr> {
        if module != "recent" {
            return None;
        }
        let mut words = options.split_ascii_whitespace().skip_while(|word| *word != "--name").skip(1);
        let name = words.next().map_or("DEFAULT", |word| word.trim_matches('"'));
        self.stack.recent_mask(name, self.live.v6)
    }

    /// The walk is over: what the packet's flow keeps.
    pub(super) fn settle(&mut self) {
        let Some(current) = self.session.as_mut().and_then(|session| session.current.as_mut()) else { return };
        current.flow.mark = self.live.connmark;
        if self.live.packet.out.as_deref() == Some("lo") && !self.live.came_in {
            current.flow.by_lo = true;
        }
    }
}
