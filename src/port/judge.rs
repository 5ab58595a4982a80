//! What the answers mean. A pure function of what was heard of a host, and of sweeps where there were some.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;

use super::Technique;
use super::locate::{Located, MOST, SweepPlan};
use super::report::{HostReport, PortReport, State, Verdict, icmp_words, ms, passed, silent, state_of};
use super::scan::{Answer, Evidence, HostSeen};
use super::services::Services;

/// How a host stands to this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nearness {
    /// It is this host.
    Local,
    /// On the same link: no router is between.
    OnLink,
    /// Behind at least one router, or not known.
    #[default]
    Routed,
}

/// A host as it was asked for, and what came of it.
#[derive(Debug)]
pub struct HostCase<'a> {
    /// As the user named it.
    pub name: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// The link, where the address needs one.
    pub via: Option<&'a str>,
    /// How it was asked.
    pub technique: Technique,
    /// The ports that were asked for.
    pub ports: &'a [u16],
    /// What was heard.
    pub seen: &'a HostSeen,
    /// How it stands to us.
    pub nearness: Nearness,
    /// Whether it is known by its neighbour's answer (ARP, NDP) to be there, or not there.
    pub neighbour: Option<bool>,
    /// The scan was cut short.
    pub partial: bool,
}

impl HostCase<'_> {
    fn up(&self) -> Option<bool> {
        let own = |evidence: &Evidence| match evidence.answer {
            Answer::Failed(_) | Answer::Local(_) => false,
            Answer::Icmp { .. } => evidence.by == self.address,
            _ => true,
        };
        if self.seen.echo.is_some() || self.seen.answers.iter().any(|(_, evidence)| own(evidence)) {
            return Some(true);
        }
        if self.neighbour.is_some() {
            return self.neighbour;
        }
        let down = |evidence: &Evidence| {
            matches!(state_of(self.technique, &evidence.answer, false).1, "host-unreach")
                && !matches!(evidence.answer, Answer::Local(_))
        };
        self.seen.answers.iter().any(|(_, evidence)| down(evidence)).then_some(false)
    }

    /// Routers that an answer which is surely the host's own has passed: one that only its service or its echo gives.
    fn reference(&self) -> Option<u8> {
        let answers = self.seen.answers.iter().map(|(_, evidence)| evidence);
        let sure = answers.clone().find(|e| matches!(e.answer, Answer::Data(_) | Answer::SynAck { options: true, .. }));
        if let Some(passed) = self.seen.echo.as_ref().or(sure).and_then(passed) {
            return Some(passed);
        }
        // Of resets that come from different distances the farthest are the host's.
        let resets = answers.filter(|evidence| matches!(evidence.answer, Answer::Reset { .. }));
        resets.filter_map(passed).max()
    }

    /// Whether an answer in the host's name came a shorter way than the host's own do.
    fn is_suspect(&self, evidence: &Evidence) -> bool {
        self.nearness == Nearness::Routed
            && evidence.by == self.address
            && matches!(evidence.answer, Answer::Reset { .. } | Answer::SynAck { .. })
            && matches!((passed(evidence), self.reference()), (Some(own), Some(known)) if own != known)
    }

    /// Which ports a TTL sweep should look at: one of each kind of answer that the sweep can tell more about.
    pub fn sweep(&self) -> Option<SweepPlan> {
        if self.nearness != Nearness::Routed || self.partial || self.technique == Technique::Connect {
            return None;
        }
        let any = self.seen.echo.is_some() || !self.seen.answers.is_empty();
        let mut kinds: Vec<(u8, u32)> = Vec::new();
        let mut met: Vec<(u8, Option<IpAddr>, Option<u8>)> = Vec::new();
        for (port, evidence) in &self.seen.answers {
            let weight = match evidence.answer {
                Answer::Reset { .. } | Answer::SynAck { .. } if self.is_suspect(evidence) => 0,
                Answer::Icmp { .. } if self.technique != Technique::Udp || evidence.by != self.address => 2,
                _ => continue,
            };
            let key = (weight, Some(evidence.by), evidence.ttl);
            if !met.contains(&key) {
                met.push(key);
                kinds.push((weight, *port));
            }
        }
        if let Some(port) = self.seen.silent.first().filter(|_| any) {
            kinds.push((1, *port));
        }
        kinds.sort_unstable();
        let port = |place: &u32| self.ports.get(*place as usize).copied();
        let ports: Vec<u16> = kinds.iter().take(MOST).filter_map(|(_, place)| port(place)).collect();
        if ports.is_empty() {
            return None;
        }
        let passed = self.reference();
        let via = self.via.map(str::to_owned);
        Some(SweepPlan { host: self.address, ports, passed, flags: self.technique.flags(), via })
    }

    /// The report.
    pub fn judge(&self, located: &Located, services: &Services) -> HostReport {
        let up = self.up();
        let udp = self.technique == Technique::Udp;
        let mut ports = Vec::with_capacity(self.seen.answers.len() + self.seen.silent.len());
        let number = |place: u32| self.ports.get(place as usize).copied();
        let blank = |port: u16, (state, reason): (State, &'static str), verdict: Verdict| PortReport {
            port,
            proto: self.technique.proto(),
            service: services.name(udp, port).map(str::to_owned),
            state,
            reason,
            by: None,
            reply_ttl: None,
            rtt_ms: None,
            verdict,
            hop: None,
            hop_address: None,
            icmp: None,
            banner: None,
        };
        let distance = self.distance(located);
        let like = Likeness::new(self, located);
        for (place, evidence) in &self.seen.answers {
            let Some(port) = number(*place) else { continue };
            let own = evidence.by == self.address;
            let mut swept = like.sweep(port, evidence);
            if !own {
                // The sweeps met that router by its name.
                swept = located.hop_of(evidence.by).or(swept);
            }
            let (verdict, hop) = self.meaning(evidence, swept, distance);
            let report = blank(port, state_of(self.technique, &evidence.answer, own), verdict);
            let said = !matches!(evidence.answer, Answer::Local(_) | Answer::Failed(_));
            ports.push(PortReport {
                by: said.then_some(evidence.by),
                reply_ttl: evidence.ttl,
                rtt_ms: evidence.rtt.map(ms),
                hop,
                hop_address: hop.and_then(|hop| located.router(hop)),
                icmp: icmp_words(&evidence.answer),
                ..report
            });
        }
        let quiet =
            located.ports.iter().find(|(port, _)| self.seen.silent.iter().any(|place| number(*place) == Some(**port)));
        for place in &self.seen.silent {
            let Some(port) = number(*place) else { continue };
            let (verdict, hop) = self.silence(up, quiet.and_then(|(_, sweep)| sweep.last_router()), distance);
            let absent = self.neighbour == Some(false) && verdict == Verdict::HostDown;
            let told = if absent { (State::Filtered, "host-unreach") } else { silent(self.technique) };
            let report = blank(port, told, verdict);
            ports.push(PortReport { hop, hop_address: hop.and_then(|hop| located.router(hop)), ..report });
        }
        ports.sort_by_key(|port| port.port);
        HostReport {
            host: self.name.to_owned(),
            address: self.via.map_or_else(|| self.address.to_string(), |via| format!("{}%{via}", self.address)),
            host_up: up,
            technique: self.technique,
            notes: self.notes(&ports, up),
            ports,
            not_asked: self.seen.unasked,
            partial: self.partial,
            echo_ms: self.seen.echo.as_ref().and_then(|echo| echo.rtt).map(ms),
            echo_ttl: self.seen.echo.as_ref().and_then(|echo| echo.ttl),
            distance,
        }
    }

    fn distance(&self, located: &Located) -> Option<u8> {
        match self.nearness {
            Nearness::Local => None,
            Nearness::OnLink => Some(1),
            Nearness::Routed => {
                // A forger answers in the host's name as well, but from nearer.
                let swept = located.distance(self.address)?;
                let echo = located.echo.answered_at().filter(|(_, by)| *by == self.address);
                Some(echo.map_or(swept, |(ttl, _)| ttl.max(swept)))
            }
        }
    }

    fn meaning(&self, evidence: &Evidence, swept: Option<u8>, distance: Option<u8>) -> (Verdict, Option<u8>) {
        let own = evidence.by == self.address;
        let forger = self.forger(evidence, swept, distance);
        let nearer = forger.is_some();
        let swept = forger.and_then(|forger| forger.hop).or(swept);
        match &evidence.answer {
            Answer::SynAck { .. } if nearer => (Verdict::OpenByProxy, swept),
            Answer::Reset { .. } if nearer => (Verdict::ForgedReset, swept),
            Answer::SynAck { .. } | Answer::Connected | Answer::Data(_) => (Verdict::Open, None),
            Answer::Reset { .. } if self.technique == Technique::Ack => (Verdict::Unfiltered, None),
            Answer::Reset { .. } | Answer::Refused => (Verdict::ClosedByHost, None),
            Answer::Icmp { v6, kind, code } => {
                let word = super::report::icmp_reason(*v6, *kind, *code);
                let verdict = match word {
                    "port-unreach" if own && self.technique == Technique::Udp => Verdict::ClosedByHost,
                    _ if own => Verdict::RejectedByHost,
                    "host-unreach" if self.up() == Some(false) => Verdict::HostDown,
                    "net-unreach" | "no-route" | "reject-route" if self.up() != Some(true) => Verdict::NoRouteOnTheWay,
                    _ => Verdict::RejectedOnTheWay,
                };
                (verdict, swept.filter(|_| verdict != Verdict::ClosedByHost))
            }
            Answer::Failed("EHOSTUNREACH" | "EHOSTDOWN") if self.up() == Some(false) => (Verdict::HostDown, None),
            Answer::Failed("EACCES" | "EPERM") | Answer::Local("EPERM" | "EACCES") => (Verdict::LocalFirewall, None),
            Answer::Failed("ETIMEDOUT") => (Verdict::Dropped, None),
            Answer::Failed(_) => (Verdict::RejectedOnTheWay, None),
            Answer::Local("ENETUNREACH" | "EHOSTUNREACH") => (Verdict::NoRoute, None),
            Answer::Local(_) => (Verdict::LocalError, None),
            Answer::Echo => (Verdict::NoAnswer, None),
        }
    }

    /// Whether an answer in the host's name is another's, and whose hop that is where a sweep tells.
    ///
    /// A Linux router decrements the TTL before its forward chain sees the packet, so one at hop k forges from TTL
    /// k + 1 on; a bridge or a box that does not route does so from TTL k on. The answer's own TTL says which.
    fn forger(&self, evidence: &Evidence, swept: Option<u8>, distance: Option<u8>) -> Option<Forger> {
        if !self.is_suspect(evidence) {
            return None;
        }
        let own = passed(evidence)?;
        let shorter = self.reference().is_some_and(|known| own < known);
        match (swept, distance) {
            (Some(begins), Some(distance)) if begins <= distance => {
                let router = begins.saturating_sub(1).max(1);
                let fits = own + 1 == router || (shorter && begins == distance);
                (begins < distance || fits).then_some(Forger { hop: Some(if fits { router } else { begins }) })
            }
            (Some(_), Some(_)) => None,
            _ => shorter.then_some(Forger { hop: None }),
        }
    }

    /// `last`: where a sweep of such a port was heard of for the last time.
    fn silence(&self, up: Option<bool>, last: Option<(u8, IpAddr)>, distance: Option<u8>) -> (Verdict, Option<u8>) {
        if up == Some(false) {
            return (Verdict::HostDown, None);
        }
        let unsure = !matches!(self.technique, Technique::Syn | Technique::Connect | Technique::Ack);
        let hop = last.map(|(hop, _)| hop);
        let verdict = match (self.nearness, hop, distance) {
            _ if unsure => Verdict::NoAnswer,
            (Nearness::Local | Nearness::OnLink, ..) if up == Some(true) => Verdict::DroppedByHost,
            (Nearness::Routed, Some(hop), Some(distance)) if hop + 1 >= distance => Verdict::DroppedAtTheEnd,
            (Nearness::Routed, Some(_), Some(_)) => Verdict::DroppedOnTheWay,
            _ => Verdict::Dropped,
        };
        (verdict, hop.filter(|_| !unsure))
    }

    fn notes(&self, ports: &[PortReport], up: Option<bool>) -> Vec<String> {
        let mut notes = Vec::new();
        let open = ports.iter().filter(|port| port.state == State::Open).count();
        if open == ports.len() && open >= 100 {
            notes.push(format!("all {open} ports are open: something answers for every port; try --banner"));
        }
        let empty = |evidence: &Evidence| matches!(evidence.answer, Answer::SynAck { window: 0, options: false });
        if self.seen.answers.iter().any(|(_, evidence)| empty(evidence)) {
            notes.push("a SYN-ACK has window 0 and no options: a SYN proxy, not a service, answers so".to_owned());
        }
        if self.technique == Technique::Udp {
            let errors = ports.iter().any(|port| port.reason == "port-unreach");
            let quiet = ports.iter().filter(|port| port.state == State::OpenOrFiltered).count();
            if quiet > 0 && !errors && up != Some(false) {
                notes.push(
                    "no ICMP error came for any port: that closed ports would be told cannot be taken for granted"
                        .to_owned(),
                );
            }
            if self.seen.icmp_limited {
                notes.push("its ICMP errors are limited, so silent ports were asked again slowly".to_owned());
            }
        }
        if self.seen.given_up {
            notes.push("asking ended early: \"host unreachable\" is all that came".to_owned());
        }
        notes
    }
}

/// Somebody who answers in the host's name.
#[derive(Debug, Clone, Copy)]
struct Forger {
    /// Where, if a sweep tells.
    hop: Option<u8>,
}

/// Which sweep stands for which port: the same kind of answer from the same sender with the same TTL.
struct Likeness<'a> {
    located: &'a Located,
    kinds: HashMap<(IpAddr, Option<u8>, bool), u8>,
}

impl<'a> Likeness<'a> {
    fn new(case: &HostCase<'_>, located: &'a Located) -> Self {
        let mut kinds = HashMap::new();
        for (place, evidence) in &case.seen.answers {
            let Some(port) = case.ports.get(*place as usize) else { continue };
            if let Some((hop, _)) = located.ports.get(port).and_then(super::locate::Sweep::answered_at) {
                kinds.insert(Self::kind(evidence), hop);
            }
        }
        Self { located, kinds }
    }

    fn kind(evidence: &Evidence) -> (IpAddr, Option<u8>, bool) {
        (evidence.by, evidence.ttl, matches!(evidence.answer, Answer::Icmp { .. }))
    }

    fn sweep(&self, port: u16, evidence: &Evidence) -> Option<u8> {
        let own = self.located.ports.get(&port).and_then(super::locate::Sweep::answered_at);
        own.map(|(hop, _)| hop).or_else(|| self.kinds.get(&Self::kind(evidence)).copied())
    }
}
