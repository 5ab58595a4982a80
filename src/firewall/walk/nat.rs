//! Address translation of a flow's first packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::ruleset::{CtStates, Hook, NatRange, Net, Target};

use super::flow::Run;
use super::stack::ChainAt;

impl Run<'_> {
    /// Whether a nat chain sees this packet: the first of its flow only
    /// (`net/netfilter/nf_nat_core.c`, `nf_nat_inet_fn`).
    pub(super) fn nat_applies(&mut self, at: ChainAt) -> bool {
        if let Some(session) = &self.session {
            return self.nat_undecided(session);
        }
        if self.live.state.intersects(CtStates(CtStates::NEW.0 | CtStates::RELATED.0)) {
            return true;
        }
        let untracked = CtStates(CtStates::INVALID.0 | CtStates::UNTRACKED.0);
        let has_rules = self.stack.at(at).is_some_and(|(_, _, chain)| !chain.rules.is_empty());
        if has_rules && !self.live.state.intersects(untracked) {
            self.live.assume("its flow is not translated (nat rules see only the first packet of a flow)");
        }
        false
    }

    pub(super) fn translate(&mut self, target: &Target) {
        if self.session.is_some() {
            self.bind_target(target);
            return;
        }
        match target {
            Target::Dnat(range) => self.destination(range),
            Target::Snat(range) => self.source(range),
            Target::Masquerade(range) => {
                let out = self.live.packet.out.clone();
                if let Some(addr) = self.masquerade_address() {
                    self.live.packet.src = addr;
                } else {
                    let out = out.unwrap_or_else(|| "its interface".to_owned());
                    self.live.assume(format!("the source becomes the address of {out}, which is not known"));
                }
                self.source(range);
            }
            Target::Redirect(range) => {
                match self.redirect_address() {
                    Some(addr) => self.live.packet.dst = addr,
                    None => self.live.assume("the destination becomes this host's own address, which is not known"),
                }
                self.live.redirected = true;
                self.destination(range);
            }
            Target::Netmap(net) => {
                let to_source = matches!(self.live.hook, Hook::Postrouting | Hook::Input);
                let addr = if to_source { &mut self.live.packet.src } else { &mut self.live.packet.dst };
                *addr = mapped(*addr, net);
                self.live.state.0 |= if to_source { CtStates::SNAT.0 } else { CtStates::DNAT.0 };
            }
            _ => (),
        }
    }

    fn destination(&mut self, range: &NatRange) {
        if let Some((from, to)) = range.addrs {
            self.live.packet.dst = from;
            if from != to {
                self.live.assume(format!("the destination becomes one of {from}-{to}; the first is taken"));
            }
        }
        if let Some(ports) = range.ports {
            let keep = self.live.packet.dport.is_some_and(|port| ports.contains(port));
            if !keep {
                self.live.packet.dport = Some(ports.from);
                if ports.from != ports.to {
                    self.live.assume(format!("the destination port becomes one of {ports}; the first is taken"));
                }
            }
        }
        self.live.state.0 |= CtStates::DNAT.0;
    }

    fn source(&mut self, range: &NatRange) {
        if let Some((from, to)) = range.addrs {
            self.live.packet.src = from;
            if from != to {
                self.live.assume(format!("the source becomes one of {from}-{to}; the first is taken"));
            }
        }
        if let Some(ports) = range.ports {
            let keep = self.live.packet.sport.is_some_and(|port| ports.contains(port));
            if !keep {
                self.live.packet.sport = Some(ports.from);
            }
        }
        self.live.state.0 |= CtStates::SNAT.0;
    }

    /// The source that MASQUERADE gives.
    pub(super) fn masquerade_address(&self) -> Option<IpAddr> {
        self.own_address(self.live.packet.out.as_deref())
    }

    /// The destination that REDIRECT gives (`nf_nat_redirect.c`).
    pub(super) fn redirect_address(&self) -> Option<IpAddr> {
        if self.live.hook == Hook::Output {
            return Some(if self.live.v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() });
        }
        self.own_address(self.live.packet.in_.as_deref())
    }

    /// The first address of an interface, where the host is known.
    fn own_address(&self, interface: Option<&str>) -> Option<IpAddr> {
        let addresses = self.facts.host?.addresses.as_deref()?;
        let fits =
            |a: &&crate::host::Address| Some(a.interface.as_str()) == interface && a.address.is_ipv6() == self.live.v6;
        addresses.iter().find(fits).map(|a| a.address)
    }
}

/// The address with its network bits replaced.
pub(super) fn mapped(addr: IpAddr, net: &Net) -> IpAddr {
    match (addr, net.addr, net.mask) {
        (IpAddr::V4(a), IpAddr::V4(n), IpAddr::V4(m)) => {
            IpAddr::V4(Ipv4Addr::from(a.to_bits() & !m.to_bits() | n.to_bits()))
        }
        (IpAddr::V6(a), IpAddr::V6(n), IpAddr::V6(m)) => {
            IpAddr::V6(Ipv6Addr::from(a.to_bits() & !m.to_bits() | n.to_bits()))
        }
        _ => addr,
    }
}
