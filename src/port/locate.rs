//! A TTL sweep on the same port: which hop answers, or after which hop nothing is heard.
//!
//! The same probe with TTL 1, 2, 3, … comes back as "time exceeded" from each router it passes; where the
//! final answer begins sits who gave it. An echo swept alike names the hops and the host's own distance.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::probe::{ProbeKind, ProbeSpec, ReplyKind, RunReport};
use crate::wire::TcpFlags;

/// Ports that one sweep looks at: each costs every router an ICMP error, of which Linux sends six at once.
pub const MOST: usize = 3;
/// Hops that are looked at where the distance is not known.
const FAR: u8 = 20;

/// What is swept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepPlan {
    /// The host.
    pub host: IpAddr,
    /// The ports.
    pub ports: Vec<u16>,
    /// Routers on the way back, by the TTL of an answer.
    pub passed: Option<u8>,
    /// The probes' flags; none for datagrams.
    pub flags: Option<TcpFlags>,
    /// The link, for a link-local address.
    pub via: Option<String>,
}

/// What answers at one TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtTtl {
    /// A router: it would have passed it on.
    Router(IpAddr),
    /// The final answer.
    Final(IpAddr),
}

/// A sweep of one port, or of the echo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// By TTL.
    pub hops: BTreeMap<u8, AtTtl>,
}

/// All sweeps of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Located {
    /// By port.
    pub ports: BTreeMap<u16, Sweep>,
    /// The echo's.
    pub echo: Sweep,
}

impl SweepPlan {
    fn last(&self) -> u8 {
        // The way there may be longer than the way back.
        self.passed.map_or(FAR, |passed| passed.saturating_add(4)).clamp(2, 32)
    }

    /// The probes. Their ids say port (by its place, from 1; 0: echo) and TTL.
    pub fn specs(&self) -> Vec<ProbeSpec> {
        let mut specs = Vec::new();
        for ttl in 1..=self.last() {
            for (place, port) in std::iter::once(None).chain(self.ports.iter().map(Some)).enumerate() {
                let dst = self.host;
                let kind = match (port, self.flags) {
                    (None, _) => ProbeKind::IcmpEcho { dst, src: None, ttl: Some(ttl), payload_len: 16 },
                    (Some(port), Some(flags)) => {
                        ProbeKind::TcpSyn { dst, dport: *port, src: None, sport: None, ttl: Some(ttl), flags }
                    }
                    (Some(port), None) => {
                        let payload = crate::probe::payload::for_udp_port(*port).unwrap_or_default();
                        let payload = payload.to_vec().into();
                        ProbeKind::Udp { dst, dport: *port, src: None, sport: None, ttl: Some(ttl), payload }
                    }
                };
                let id = u32::try_from(place).unwrap_or(0) << 8 | u32::from(ttl);
                let mut spec = ProbeSpec::new(id, kind);
                spec.via.clone_from(&self.via);
                specs.push(spec.tries(2, Duration::from_millis(300)).timeout(Duration::from_millis(400)));
            }
        }
        specs
    }

    /// What came of them.
    pub fn read(&self, report: &RunReport) -> Located {
        let mut located = Located::default();
        for probe in &report.probes {
            let (place, ttl) = ((probe.id >> 8) as usize, u8::try_from(probe.id & 0xff).unwrap_or(0));
            let Some(reply) = probe.deciding() else { continue };
            let router = match &reply.kind {
                ReplyKind::IcmpError(icmp) => icmp.icmp_type == if reply.from.is_ipv4() { 11 } else { 3 },
                _ => false,
            };
            let seen = if router { AtTtl::Router(reply.from) } else { AtTtl::Final(reply.from) };
            let sweep = match place.checked_sub(1) {
                None => &mut located.echo,
                Some(place) => {
                    let Some(port) = self.ports.get(place) else { continue };
                    located.ports.entry(*port).or_default()
                }
            };
            sweep.hops.insert(ttl, seen);
        }
        for port in &self.ports {
            located.ports.entry(*port).or_default();
        }
        located
    }
}

impl Sweep {
    /// The first TTL that reaches whoever answers, and who that claims to be.
    pub fn answered_at(&self) -> Option<(u8, IpAddr)> {
        self.hops.iter().find_map(|(ttl, seen)| match seen {
            AtTtl::Final(by) => Some((*ttl, *by)),
            AtTtl::Router(_) => None,
        })
    }

    /// The last router that was heard of, before the answer if there is one.
    pub fn last_router(&self) -> Option<(u8, IpAddr)> {
        let end = self.answered_at().map_or(u8::MAX, |(ttl, _)| ttl);
        self.hops.iter().rev().find_map(|(ttl, seen)| match seen {
            AtTtl::Router(by) if *ttl < end => Some((*ttl, *by)),
            _ => None,
        })
    }
}

impl Located {
    /// Who sits at a hop, by any of the sweeps.
    pub fn router(&self, ttl: u8) -> Option<IpAddr> {
        std::iter::once(&self.echo).chain(self.ports.values()).find_map(|sweep| match sweep.hops.get(&ttl) {
            Some(AtTtl::Router(by)) => Some(*by),
            _ => None,
        })
    }

    /// The hop at which this router was met.
    pub fn hop_of(&self, router: IpAddr) -> Option<u8> {
        let all = std::iter::once(&self.echo).chain(self.ports.values());
        let hops = all.flat_map(|sweep| sweep.hops.iter());
        hops.filter(|(_, seen)| **seen == AtTtl::Router(router)).map(|(ttl, _)| *ttl).min()
    }

    /// The host's own distance: what answers furthest away in its name.
    pub fn distance(&self, host: IpAddr) -> Option<u8> {
        let all = std::iter::once(&self.echo).chain(self.ports.values());
        all.filter_map(Sweep::answered_at).filter(|(_, by)| *by == host).map(|(ttl, _)| ttl).max()
    }
}
