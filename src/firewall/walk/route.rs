//! Where routing sends the packet: what the host's facts say, else what the rules make evident,
//! else both ways.

use std::net::IpAddr;

use crate::firewall::packet::To;
use crate::firewall::ruleset::{Hook, PktType, Policy};
use crate::host::fib::{Flow, RouteExplanation, RouteVerdict, explain_flow};
use crate::host::{HostFacts, sysctl};

use super::Verdict;
use super::flow::{End, Run, is_local};

/// The packet ends in routing.
#[allow(clippy::unnecessary_box_returns, reason = "results stay small that seldom are an end")]
fn ends(reason: &str) -> Box<End> {
    let reason = Some(format!("routing: {reason}").into());
    Box::new(End { verdict: Verdict::Drop, reject_with: None, reply: None, by: None, reason })
}

impl Run<'_> {
    /// The routing decision for a packet that came in (`net/ipv4/route.c`, `ip_route_input_slow`).
    pub(super) fn route_in(&mut self) -> Result<To, Box<End>> {
        let to = match self.live.packet.to {
            _ if self.live.redirected => To::Local,
            Some(to) => to,
            None => match self.facts.host.filter(|host| host.addresses.is_some() || host.routes.is_some()) {
                Some(host) => self.route_by(host)?,
                None => self.route_by_rules(),
            },
        };
        // What a rule's branch took the address for holds for routing too. A packet for all is taken
        // in though its address is nobody's own.
        let for_one = matches!(self.live.packet.pkttype, None | Some(PktType::Unicast));
        match self.taken_for_local(self.live.packet.dst) {
            Some(true) if to == To::Forward => self.impossible = true,
            Some(false) if to == To::Local && for_one && !self.live.redirected => self.impossible = true,
            _ => (),
        }
        if to == To::Forward {
            // ip_forward, ip6_forward: before the FORWARD hook.
            if let Some(kind) = self.live.packet.pkttype.filter(|kind| *kind != PktType::Unicast) {
                return Err(ends(&format!("a {} frame is not forwarded", kind.name())));
            }
            if self.live.ttl <= 1 {
                let mut end = ends("it has no hops left (its sender is told: time exceeded)");
                end.reply = self.expired().map(Box::new);
                return Err(end);
            }
            self.live.ttl -= 1;
        }
        Ok(to)
    }

    fn route_by(&mut self, host: &HostFacts) -> Result<To, Box<End>> {
        let (src, dst) = (self.live.packet.src, self.live.packet.dst);
        let in_ = self.live.packet.in_.clone();
        let by_lo = in_.as_deref() == Some("lo");
        if !by_lo && let Some(why) = martian(host, in_.as_deref(), src, dst) {
            return Err(ends(&why));
        }
        let local = match host.routes.as_ref().map(|_| self.explain(host, in_.as_deref())) {
            _ if host.addresses.is_some() && is_local(host, dst) => true,
            Some(found) => match found.verdict {
                RouteVerdict::Local | RouteVerdict::Broadcast | RouteVerdict::Multicast => true,
                RouteVerdict::Sent => {
                    self.way_out(&found);
                    false
                }
                RouteVerdict::Unknown => {
                    self.live.assume(format!("the way to {dst} is not certain: {}", found.notes.join("; ")));
                    false
                }
                other => {
                    self.forwards(host, in_.as_deref())?;
                    return Err(ends(&format!("{dst} {}", refusal(other))));
                }
            },
            None => false,
        };
        if !local {
            self.forwards(host, in_.as_deref())?;
        }
        if !by_lo && !dst.is_multicast() {
            self.source_is_valid(host, in_.as_deref())?;
        }
        Ok(if local { To::Local } else { To::Forward })
    }

    fn explain(&self, host: &HostFacts, in_: Option<&str>) -> RouteExplanation {
        let packet = &self.live.packet;
        explain_flow(
            host,
            &Flow {
                dst: packet.dst,
                src: Some(packet.src),
                mark: self.live.mark,
                iif: in_,
                oif: None,
                protocol: Some(self.live.proto),
                ports: packet.sport.zip(packet.dport),
                uid: if in_.is_none() { packet.uid } else { None },
            },
        )
    }

    /// Takes the outgoing interface from a route, where none was given.
    fn way_out(&mut self, found: &RouteExplanation) {
        let Some(route) = &found.route else { return };
        if self.live.packet.out.is_some() {
            return;
        }
        let alive = || route.multipath.iter().filter(|hop| !hop.dead);
        self.live.packet.out = route.interface.clone().or_else(|| alive().find_map(|hop| hop.interface.clone()));
        if route.interface.is_none() && alive().count() > 1 {
            self.live.assume("of several next hops the first is taken");
        }
    }

    fn forwards(&mut self, host: &HostFacts, in_: Option<&str>) -> Result<(), Box<End>> {
        let (v6, dst) = (self.live.v6, self.live.packet.dst);
        let global = if v6 { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" };
        let own = in_.and_then(|in_| {
            Some((sysctl::conf(v6, in_, "forwarding"), sysctl::effective(host, v6, in_, "forwarding")?))
        });
        let (name, value) = match own {
            Some((name, value)) => (if v6 { global.to_owned() } else { name }, Some(value)),
            None => (global.to_owned(), host.sysctl(global)),
        };
        // For IPv4 the interface's own setting decides; writing ip_forward sets it on all.
        match value {
            Some(0) => {
                let name = if host.sysctl(global) == Some(0) { global.to_owned() } else { name };
                Err(ends(&format!("{dst} is not this host's and it does not forward ({name} = 0)")))
            }
            Some(_) => Ok(()),
            None => {
                self.live.assume("this host forwards packets");
                Ok(())
            }
        }
    }

    /// `fib_validate_source`: martian sources and reverse path filtering, IPv4 only.
    fn source_is_valid(&mut self, host: &HostFacts, in_: Option<&str>) -> Result<(), Box<End>> {
        let (src, dst) = (self.live.packet.src, self.live.packet.dst);
        let (Some(in_), IpAddr::V4(v4)) = (in_, src) else { return Ok(()) };
        if v4.is_unspecified() {
            return Ok(());
        }
        let accept_local = sysctl::effective(host, false, in_, "accept_local").unwrap_or(0) != 0;
        let own = host.addresses.iter().flatten().any(|address| address.address == src);
        if own && !accept_local {
            return Err(ends(&format!("{src} is this host's own address: a martian source on {in_}")));
        }
        let Some(strict) = sysctl::effective(host, false, in_, "rp_filter") else {
            if host.routes.is_some() {
                self.live.assume(format!("rp_filter of {in_} lets it pass (the setting was not seen)"));
            }
            return Ok(());
        };
        if strict == 0 || host.routes.is_none() {
            return Ok(());
        }
        let marked = sysctl::effective(host, false, in_, "src_valid_mark").unwrap_or(0) != 0;
        let back = explain_flow(
            host,
            &Flow {
                src: Some(dst),
                mark: if marked { self.live.mark } else { 0 },
                protocol: Some(self.live.proto),
                ports: self.live.packet.dport.zip(self.live.packet.sport),
                ..Flow::to(src)
            },
        );
        let refuse = |why: String| Err(ends(&format!("reverse path filter on {in_} (rp_filter = {strict}): {why}")));
        match back.verdict {
            RouteVerdict::Unknown => {
                self.live.assume(format!("rp_filter of {in_} lets it pass: {}", back.notes.join("; ")));
                Ok(())
            }
            RouteVerdict::Sent => {
                let route = back.route.as_ref();
                let by = |name: &str| {
                    route.is_some_and(|route| {
                        route.interface.as_deref() == Some(name)
                            || route.multipath.iter().any(|hop| hop.interface.as_deref() == Some(name))
                    })
                };
                if strict == 1 && !by(in_) {
                    let way = route.map(|route| format!(" (`{route}`)")).unwrap_or_default();
                    return refuse(format!("the way back to {src} does not leave by {in_}{way}"));
                }
                Ok(())
            }
            RouteVerdict::Local if accept_local => Ok(()),
            RouteVerdict::Local | RouteVerdict::Broadcast | RouteVerdict::Multicast => {
                Err(ends(&format!("{src} is no address of a single other host: a martian source on {in_}")))
            }
            other => refuse(format!("the way back to {src} {}", refusal(other))),
        }
    }

    /// Without the host's facts: what is evident, else both ways.
    fn route_by_rules(&mut self) -> To {
        let dst = self.live.packet.dst;
        if self.live.packet.out.is_some() {
            return To::Forward;
        }
        if let Some(local) = self.taken_for_local(dst) {
            return if local { To::Local } else { To::Forward };
        }
        let moved = dst != self.live.original.1;
        let for_all = dst.is_multicast() || dst.is_loopback() || matches!(dst, IpAddr::V4(a) if a.is_broadcast());
        if for_all || self.live.packet.in_.as_deref() == Some("lo") || !moved && !self.filters(Hook::Forward) {
            self.live.assume("routing delivers it to this host");
            return To::Local;
        }
        // A router's rules that let nothing in by name are about what it forwards.
        let question = "routing sends it on to another host".to_owned();
        self.live.assume("where routing sends it is not given (`to`): both ways are looked at");
        if self.choose("routing".to_owned(), question) { To::Forward } else { To::Local }
    }

    /// Whether rules of this hook can stop a packet. A policy alone, as on most hosts that are no
    /// routers, says nothing of where packets go.
    fn filters(&self, hook: Hook) -> bool {
        let mut chains = self.stack.bases_at(hook, self.live.v6);
        chains.any(|(at, _)| self.stack.at(at).is_some_and(|(_, _, chain)| !chain.rules.is_empty()))
            || self.stack.bases_at(hook, self.live.v6).any(|(_, base)| base.policy == Policy::Drop)
                && self.stack.bases_at(Hook::Input, self.live.v6).all(|(at, base)| {
                    base.policy == Policy::Accept
                        && self.stack.at(at).is_some_and(|(_, _, chain)| chain.rules.is_empty())
                })
    }

    /// The way of a packet that this host sends.
    pub(super) fn route_out(&mut self) -> Option<End> {
        let host = self.facts.host?;
        let dst = self.live.packet.dst;
        if self.live.packet.out.is_some() {
            return None;
        }
        if host.addresses.is_some() && is_local(host, dst) && !for_many(dst) {
            self.live.packet.out = Some("lo".to_owned());
            return None;
        }
        host.routes.as_ref()?;
        let found = self.explain(host, None);
        match found.verdict {
            RouteVerdict::Sent | RouteVerdict::Broadcast | RouteVerdict::Multicast => self.way_out(&found),
            RouteVerdict::Local => self.live.packet.out = Some("lo".to_owned()),
            RouteVerdict::Unknown => {
                self.live.assume(format!("the way to {dst} is not certain: {}", found.notes.join("; ")));
            }
            other => return Some(*ends(&format!("{dst} {}", refusal(other)))),
        }
        None
    }

    /// OUTPUT changed what routing looks at: the packet is routed again (`ip_route_me_harder`). The
    /// chains of OUTPUT itself see the interface of the first decision.
    pub(super) fn route_again(&mut self, (dst, mark, tos): (IpAddr, u32, u8)) -> Option<End> {
        let live = &self.live;
        if live.packet.dst == dst && (live.mark, live.tos) == (mark, tos) {
            return None;
        }
        let has_facts = self.facts.host.is_some_and(|host| host.routes.is_some() || host.addresses.is_some());
        if !has_facts && live.packet.dst == dst {
            return None;
        }
        let given = self.live.packet.out.take();
        let end = self.route_out();
        if has_facts && self.live.packet.out.is_none() {
            self.live.packet.out = given;
        }
        end
    }
}

/// Addresses that no single host has.
fn for_many(dst: IpAddr) -> bool {
    dst.is_multicast() || matches!(dst, IpAddr::V4(a) if a.is_broadcast())
}

fn refusal(verdict: RouteVerdict) -> &'static str {
    match verdict {
        RouteVerdict::Blackhole => "falls into a blackhole route",
        RouteVerdict::Unreachable => "has an unreachable route",
        RouteVerdict::Prohibit => "has a prohibit route",
        RouteVerdict::NoRoute => "has no route",
        _ => "has no usable route",
    }
}

/// Addresses that no packet on a wire may have; IPv6 drops them before any hook (`ip6_rcv_core`).
fn martian(host: &HostFacts, in_: Option<&str>, src: IpAddr, dst: IpAddr) -> Option<String> {
    let on = in_.map(|name| format!(" on {name}")).unwrap_or_default();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let localnet = in_.is_some_and(|name| sysctl::effective(host, false, name, "route_localnet") == Some(1));
            if src.is_multicast() || src.is_broadcast() {
                return Some(format!("{src} is no source: a martian{on}"));
            }
            if dst.is_broadcast() || src.is_unspecified() && dst.is_unspecified() {
                return None;
            }
            if src.octets()[0] == 0 && !(src.is_unspecified() && dst.is_multicast()) {
                return Some(format!("{src} is no source: a martian{on}"));
            }
            if dst.octets()[0] == 0 {
                return Some(format!("{dst} is no destination: a martian{on}"));
            }
            (!localnet && (src.is_loopback() || dst.is_loopback()))
                .then(|| format!("127.0.0.0/8 does not come from outside: a martian{on}"))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) if src.is_multicast() || src.is_loopback() || dst.is_loopback() => {
            Some(format!("{src} > {dst} does not come from outside{on}"))
        }
        _ => None,
    }
}
