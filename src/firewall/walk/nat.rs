//! Address translation of a flow's first packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::packet::Packet;
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
        let ends = |packet: &Packet| ((packet.src, packet.sport), (packet.dst, packet.dport));
        let before = ends(&self.live.packet);
        self.rewrite(target);
        let after = ends(&self.live.packet);
        // Only what has changed counts as translated (nf_nat_core.c, nf_nat_setup_info).
        if before.0 != after.0 {
            self.live.state.0 |= CtStates::SNAT.0;
        }
        if before.1 != after.1 {
            self.live.state.0 |= CtStates::DNAT.0;
        }
    }

    fn rewrite(&mut self, target: &Target) {
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
            }
            _ => (),
        }
    }

    fn destination(&mut self, range: &NatRange) {
        let ends = (self.live.packet.src, self.live.packet.dst);
        if let Some(addrs) = range.addrs {
            self.live.packet.dst = best_address(addrs, ends, range.flags.contains("persistent"), true);
        }
        let Some(ports) = range.ports.filter(|_| has_ports(self.live.proto)) else { return };
        let (random, own) = (range.flags.contains("random"), self.live.packet.dport);
        let size = u32::from(ports.to - ports.from) + 1;
        self.live.packet.dport = match (range.base, own) {
            (Some(base), Some(port)) => {
                // In 16 bits (net/netfilter/nf_nat_core.c, nf_nat_l4proto_unique_tuple).
                let off = u32::from(port.wrapping_sub(base)) % size;
                Some(ports.from + u16::try_from(off).unwrap_or(0))
            }
            (None, Some(port)) if ports.contains(port) && !random => own,
            _ => Some(ports.from),
        };
        if range.base.is_some() && own.is_none() || range.base.is_none() && random && size > 1 {
            self.live.assume(format!("the destination port becomes one of {ports}; the first is taken"));
        }
    }

    fn source(&mut self, range: &NatRange) {
        let ends = (self.live.packet.src, self.live.packet.dst);
        let persistent = range.flags.contains("persistent");
        if let Some(addrs) = range.addrs
            && !super::matching::in_range(ends.0, addrs.0, addrs.1)
        {
            self.live.packet.src = best_address(addrs, ends, persistent, false);
        }
        let Some(ports) = range.ports.filter(|_| has_ports(self.live.proto)) else { return };
        let keep = self.live.packet.sport.is_some_and(|port| ports.contains(port)) && !range.flags.contains("random");
        if !keep {
            self.live.packet.sport = Some(ports.from);
            if ports.from != ports.to {
                self.live.assume(format!("the source port becomes any free one of {ports}; the first is taken"));
            }
        }
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

/// Whether NAT has ports to change.
pub(super) fn has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 33 | 132 | 136)
}

/// The address that the kernel takes of a range for a flow from `src` to `dst`: by a hash of both, with
/// `--persistent` of the source alone (`net/netfilter/nf_nat_core.c`, `find_best_ips_proto`).
pub(super) fn best_address(
    (from, to): (IpAddr, IpAddr),
    (src, dst): (IpAddr, IpAddr),
    persistent: bool,
    of_destination: bool,
) -> IpAddr {
    if from == to {
        return from;
    }
    let native = |addr: IpAddr| -> [u32; 4] {
        let mut octets = [0u8; 16];
        match addr {
            IpAddr::V4(a) => octets.iter_mut().zip(a.octets()).for_each(|(to, from)| *to = from),
            IpAddr::V6(a) => octets = a.octets(),
        }
        let mut words = [0; 4];
        // As they lie in memory of a little-endian machine.
        for (word, four) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_le_bytes(four.try_into().unwrap_or_default());
        }
        words
    };
    let words = |addr: IpAddr| native(addr).map(u32::swap_bytes);
    let (low, high, other) = (words(from), words(to), native(dst));
    let last = if from.is_ipv6() { 3 } else { 0 };
    let seed = if persistent { 0 } else { other.get(last).copied().unwrap_or(0) };
    let mut hash = super::test_ext::jhash(&native(src), seed);
    let (mut chosen, mut full) = ([0u32; 4], false);
    for (index, place) in chosen.iter_mut().enumerate().take(last + 1) {
        let (low, high) = (low.get(index).copied().unwrap_or(0), high.get(index).copied().unwrap_or(0));
        // Once below the end, every value of the further words is in the range.
        let (low, size) = if full { (0, u64::from(u32::MAX)) } else { (low, u64::from(high.wrapping_sub(low)) + 1) };
        *place = low.wrapping_add(u32::try_from((u64::from(hash) * (size & 0xffff_ffff)) >> 32).unwrap_or(0));
        full |= *place != high;
        if !persistent {
            // A destination is replaced word by word already.
            let replaced = if of_destination { place.swap_bytes() } else { other.get(index).copied().unwrap_or(0) };
            hash ^= replaced;
        }
    }
    match from {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(chosen[0])),
        IpAddr::V6(_) => {
            let bits = chosen.iter().fold(0u128, |bits, word| bits << 32 | u128::from(*word));
            IpAddr::V6(Ipv6Addr::from(bits))
        }
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
