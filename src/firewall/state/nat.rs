//! Bindings: which addresses a flow has after translation (`net/netfilter/nf_nat_core.c`).

use std::net::IpAddr;

use crate::firewall::ruleset::PortRange;

use super::conntrack::Status;
use super::session::Session;
use super::tuple::Tuple;

/// Which end of a flow is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manip {
    Source,
    Destination,
}

impl Manip {
    fn bit(self) -> u16 {
        if self == Self::Source { Status::SRC_NAT } else { Status::DST_NAT }
    }

    fn done(self) -> u16 {
        if self == Self::Source { Status::SRC_NAT_DONE } else { Status::DST_NAT_DONE }
    }
}

/// What a nat rule asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// The address, chosen already.
    pub(crate) addr: Option<IpAddr>,
    pub(crate) ports: Option<PortRange>,
    /// The port that the range's first is for.
    pub(crate) base: Option<u16>,
    /// `--random`, `--random-fully`: any free port.
    pub(crate) random: bool,
}

/// How a port was chosen, where not by necessity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// As the kernel does.
    Sure,
    /// The kernel takes any free one of these.
    OneOf(PortRange),
    /// No port is free; the flow keeps the one it had, and is likely dropped.
    NoneFree,
}

/// The kernel gives up after so many (`nf_nat_l4proto_unique_tuple`).
const ATTEMPTS: u32 = 128;

impl Session<'_> {
    /// Whether it was decided how this end is translated.
    pub(crate) fn bound(&self, manip: Manip) -> bool {
        self.current.as_ref().is_none_or(|current| current.flow.status.has(manip.done()))
    }

    /// Binds one end of the packet's flow (`nf_nat_setup_info`).
    pub(crate) fn bind(&mut self, manip: Manip, wanted: &Wanted) -> Chosen {
        let Some(now) = self.current.as_ref().and_then(|current| current.flow.tuples[1].invert()) else {
            return Chosen::Sure;
        };
        let (new, chosen) = self.unique(now, manip, wanted);
        let Some(current) = &mut self.current else { return chosen };
        if new != now
            && let Some(reply) = new.invert()
        {
            current.flow.tuples[1] = reply;
            current.flow.status.set(manip.bit());
        }
        current.flow.status.set(manip.done());
        chosen
    }

    /// The source that another flow of the packet's own source got, where that is within the range and free:
    /// it is kept (`find_appropriate_src`).
    pub(crate) fn source_of_others(
        &self,
        addrs: Option<(IpAddr, IpAddr)>,
        ports: Option<PortRange>,
    ) -> Option<(IpAddr, u16)> {
        let now = self.current.as_ref()?.flow.tuples[1].invert()?;
        let mapped = self.flows_of(&now).find_map(|flow| {
            let other = flow.tuples[1].invert()?;
            let fits = addrs.is_none_or(|(from, to)| (from..=to).contains(&other.src))
                && ports.is_none_or(|ports| ports.contains(other.sport));
            fits.then_some(Tuple { src: other.src, sport: other.sport, ..now })
        })?;
        let free = mapped.invert().is_some_and(|reply| !self.taken(&reply));
        free.then_some((mapped.src, mapped.sport))
    }

    /// `get_unique_tuple`
    fn unique(&self, now: Tuple, manip: Manip, wanted: &Wanted) -> (Tuple, Chosen) {
        let mut new = now;
        if let Some(addr) = wanted.addr {
            match manip {
                Manip::Source => new.src = addr,
                Manip::Destination => new.dst = addr,
            }
        }
        let free = |tuple: Tuple| tuple.invert().is_some_and(|reply| !self.taken(&reply));
        if new.is_icmp_query() && matches!(new.proto, 1 | 58) && !free(new) {
            // Another identifier is looked for.
            return (new, Chosen::OneOf(PortRange { from: 0, to: u16::MAX }));
        }
        if !new.has_ports() {
            return (new, Chosen::Sure);
        }
        let port = if manip == Manip::Source { new.sport } else { new.dport };
        let fits = match wanted.ports {
            Some(range) => wanted.base.is_none() && range.contains(port) && (range.from == range.to || free(new)),
            None => free(new),
        };
        if fits && !wanted.random {
            return (new, Chosen::Sure);
        }
        let range = match (wanted.ports, manip) {
            (Some(range), _) => range,
            // A destination port is never changed unasked.
            (None, Manip::Destination) => return (new, Chosen::Sure),
            (None, Manip::Source) => match port {
                0..=511 => PortRange { from: 1, to: 511 },
                512..=1023 => PortRange { from: 600, to: 1023 },
                _ => PortRange { from: 1024, to: u16::MAX },
            },
        };
        let chance = range.from != range.to && (manip == Manip::Source || wanted.random) && wanted.base.is_none();
        let size = u32::from(range.to.saturating_sub(range.from)) + 1;
        for off in 0..size.min(ATTEMPTS) {
            // In 16 bits (nf_nat_l4proto_unique_tuple).
            let shift = wanted.base.map_or(0, |base| u32::from(port.wrapping_sub(base)));
            let port = range.from.saturating_add(u16::try_from((off + shift) % size).unwrap_or(u16::MAX));
            match manip {
                Manip::Source => new.sport = port,
                Manip::Destination => new.dport = port,
            }
            if free(new) {
                return (new, if chance { Chosen::OneOf(range) } else { Chosen::Sure });
            }
        }
        (new, Chosen::NoneFree)
    }

    /// The tuple whose source or destination the packet gets at a hook that translates `manip`;
    /// `None` where it stays as it is (`nf_nat_packet`).
    pub(crate) fn translated(&self, manip: Manip) -> Option<Tuple> {
        let current = self.current.as_ref()?;
        let other = match manip {
            Manip::Source => Manip::Destination,
            Manip::Destination => Manip::Source,
        };
        let reply = current.dir == super::tuple::Dir::Reply;
        let bit = if reply { other.bit() } else { manip.bit() };
        if !current.flow.status.has(bit) {
            return None;
        }
        current.flow.tuple(current.dir.other()).invert()
    }
}
