//! A name's whole report: the replay, the servers by themselves, the C library's own answer, the judgement.

use std::net::IpAddr;
use std::time::Duration;

use super::check::Check;
use super::validate::{ValidateOptions, validate};
use super::{SocketWire, Stop, compare, resolved, source};
use crate::dns::dnssec::{TrustAnchors, Validation};
use crate::dns::report::{Checked, Gathered, Report, ServerView};
use crate::dns::{
    Conf, Dnssec, DomainName, Eai, Extra, Family, Lookup, Outcome, Placed, RType, ResolverFacts, Server, SourceFact,
    TraceOptions, View, judge, literal, lookup, order, records, reverse, trace,
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The addresses of a name.
    Addresses(Family),
    /// Records of a type.
    Records(RType),
    /// The names of an address.
    Names(IpAddr),
}

impl Wanted {
    /// From the words of a command line.
    ///
    /// # Errors
    /// When the second word is no record type.
    pub fn read(name: &str, rtype: Option<&str>) -> Result<Self, String> {
        match rtype {
            None => Ok(match literal(name, Family::Any) {
                Some(Ok(address)) => Self::Names(address),
                _ => Self::Addresses(Family::Any),
            }),
            Some(text) => Ok(match text.parse::<RType>()? {
                RType::A => Self::Addresses(Family::V4),
                RType::AAAA => Self::Addresses(Family::V6),
                RType::PTR => match literal(name, Family::Any) {
                    Some(Ok(address)) => Self::Names(address),
                    _ => Self::Records(RType::PTR),
                },
                other => Self::Records(other),
            }),
        }
    }

    /// The record types it stands for.
    pub fn types(&self) -> Vec<RType> {
        match self {
            Self::Addresses(Family::Any) => vec![RType::A, RType::AAAA],
            Self::Addresses(Family::V4) => vec![RType::A],
            Self::Addresses(Family::V6) => vec![RType::AAAA],
            Self::Records(rtype) => vec![*rtype],
            Self::Names(_) => vec![RType::PTR],
        }
    }

    /// `A+AAAA`, `MX`, …
    pub fn words(&self) -> String {
        self.types().iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
    }
}

/// One question, with all that is to be done about it.
pub struct Asked<'a> {
    /// The name, or the address.
    pub name: &'a str,
    /// What of it.
    pub wanted: Wanted,
    /// How this host resolves.
    pub conf: &'a Conf,
    /// What that was read from.
    pub facts: &'a ResolverFacts,
    /// Servers to compare with.
    pub given: Vec<Server>,
    /// Where iteration from the roots begins; `None`: none is done.
    pub roots: Option<TraceOptions>,
    /// What signatures are checked against; `None`: they are not checked.
    pub anchors: Option<TrustAnchors>,
    /// Whether they are checked even where no server shows any.
    pub dnssec: bool,
    /// Whether each configured server is asked by itself.
    pub compare: bool,
    /// The TCP port to which each address is connected.
    pub connect: Option<u16>,
    /// What ends all of it early.
    pub stop: Stop,
    /// How long a server that is asked by itself, or a connection, is waited for.
    pub patience: Duration,
    /// How often a server that is asked by itself is asked.
    pub tries: u32,
}

impl Asked<'_> {
    /// Asks, and judges; `progress` hears what is being done.
    pub fn report(&self, progress: &mut dyn FnMut(&str)) -> Report {
        let check = match self.wanted {
            Wanted::Addresses(family) => Some(Check::begin(self.name, family)),
            _ => None,
        };
        progress("resolving as an application does");
        let mut wire = SocketWire::new(self.stop.clone());
        let lookup = match &self.wanted {
            Wanted::Addresses(family) => lookup(&mut wire, self.conf, self.name, *family),
            Wanted::Records(rtype) => records(&mut wire, self.conf, self.name, *rtype),
            Wanted::Names(address) => reverse(&mut wire, self.conf, *address),
        };
        let addresses: Vec<IpAddr> = lookup.found.iter().map(|found| found.address).collect();
        let sources = if addresses.len() > 1 { source::sources(&addresses) } else { Vec::new() };
        let placed = order(&addresses, &sources, &self.conf.gai);
        let mut extra = Extra { nscd: self.facts.nscd, ..Extra::default() };
        let views = if lookup.interrupted { Vec::new() } else { self.views(&lookup, progress, &mut extra) };
        let gathered = Gathered {
            name: self.name,
            rtype: self.wanted.words(),
            conf: self.conf,
            lookup: &lookup,
            sources: &sources,
            placed: &placed,
            views: &views,
        };
        let mut report = Report::of(&gathered);
        report.stub = self.stub();
        let used = report.stub.is_some() || self.conf.services.iter().any(|service| service.name == "resolve");
        if let (Wanted::Addresses(family), true, false) = (&self.wanted, used, lookup.runs.is_empty()) {
            progress("asking systemd-resolved");
            report.resolved = resolved(self.name, *family, self.patience * 2);
        }
        report.dnssec = self.validation(&lookup, &views, progress);
        self.trace(&lookup, progress, &mut report);
        if let Some(port) = self.connect.filter(|_| !self.stop.stopped()) {
            progress("connecting to the addresses");
            let list: Vec<IpAddr> = report.answers.iter().filter_map(|answer| answer.address).collect();
            report.connects = compare::connects(&list, port, self.patience);
        }
        if let Some(check) = check {
            progress("waiting for getaddrinfo");
            report.check = Some(self.checked(&check, &lookup, &placed));
        }
        report.partial |= self.stop.stopped();
        judge(&mut report, &gathered, &extra);
        report
    }

    /// The servers that are worth asking by themselves, and what they say.
    fn views(&self, lookup: &Lookup, progress: &mut dyn FnMut(&str), extra: &mut Extra) -> Vec<View> {
        let own = self.compare && worth_comparing(self.name, lookup, &self.wanted);
        let mut servers = if own { self.conf.servers.clone() } else { Vec::new() };
        // One that was silent to the replay is silent still.
        let silent = |server: &Server| {
            let mut asked =
                lookup.runs.iter().flat_map(|run| &run.exchanges).filter(|one| one.server == *server).peekable();
            asked.peek().is_some() && asked.all(|one| matches!(one.outcome, Outcome::Timeout))
        };
        servers.retain(|server| !silent(server));
        // Without a configured server there is nobody to compare with 127.0.0.1.
        servers.retain(|server| server.line.is_some() || !lookup.runs.iter().any(|run| run.service.name == "dns"));
        servers.extend(self.given.iter().cloned());
        extra.compared = !servers.is_empty();
        let Some(name) = self.asked_name(lookup) else { return Vec::new() };
        if servers.is_empty() {
            return Vec::new();
        }
        progress("asking each server by itself");
        let types = self.wanted.types();
        let views = compare::views(&servers, &name, &types, self.patience, self.tries, &self.stop);
        self.beyond(lookup, &views, extra);
        views
    }

    /// The name that servers are compared on: the one that answered, else the first one tried.
    fn asked_name(&self, lookup: &Lookup) -> Option<DomainName> {
        if let Wanted::Names(address) = self.wanted {
            return Some(DomainName::reverse(address));
        }
        let candidates = lookup.runs.iter().rfind(|run| !run.candidates.is_empty()).map(|run| &run.candidates);
        let best = candidates.and_then(|list| list.iter().find(|one| one.answered).or(list.first()));
        DomainName::parse(best.map_or(self.name, |one| one.name.as_str()))
            .ok()
            .filter(|name| !name.is_root() || self.name == ".")
    }

    /// Where the search list is in doubt: do its domains exist, and what is the name without them?
    fn beyond(&self, lookup: &Lookup, views: &[View], extra: &mut Extra) {
        let Some(run) = lookup.runs.iter().rfind(|run| run.service.name == "dns") else { return };
        let Some(server) = views.iter().find(|view| !view.replies.is_empty()).map(|view| view.server.clone()) else {
            return;
        };
        let ask = |name: &str, types: &[RType]| {
            let name = DomainName::parse(name).ok()?;
            compare::views(std::slice::from_ref(&server), &name, types, self.patience, 1, &self.stop).pop()
        };
        let answered = run.candidates.iter().find(|one| one.answered);
        let unknown = matches!(lookup.error, Some(Eai::NoName | Eai::NoData));
        if unknown && !self.name.contains('.') {
            for suffix in self.conf.search.iter().filter(|suffix| !suffix.trim_matches('.').is_empty()).take(6) {
                let view = ask(suffix, &[RType::SOA]);
                if view.and_then(|view| view.rcode()) == Some(crate::dns::Rcode::NXDOMAIN) {
                    extra.missing_suffixes.push(suffix.clone());
                }
            }
        }
        if answered.is_some_and(|one| one.suffix.is_some()) && self.name.contains('.') {
            extra.as_is = ask(self.name, &self.wanted.types()).as_ref().map(ServerView::of);
        }
    }

    /// The signatures, where a server shows any or it was asked for; with what that server sends.
    fn validation(&self, lookup: &Lookup, views: &[View], progress: &mut dyn FnMut(&str)) -> Option<Validation> {
        let anchors = self.anchors.as_ref()?;
        let shows = |view: &&View| matches!(view.dnssec, Some(Dnssec::Validated | Dnssec::SignedOnly | Dnssec::Bogus));
        let answers = |view: &&View| self.dnssec && !view.replies.is_empty();
        let view = views.iter().find(shows).or_else(|| views.iter().find(answers))?;
        if self.stop.stopped() {
            return None;
        }
        let name = self.asked_name(lookup)?;
        progress("checking the signatures");
        let options = ValidateOptions { server: &view.server, anchors, patience: self.patience, stop: &self.stop };
        Some(validate(&name, &self.wanted.types(), &options))
    }

    fn trace(&self, lookup: &Lookup, progress: &mut dyn FnMut(&str), report: &mut Report) {
        let Some(options) = self.roots.as_ref().filter(|_| !lookup.interrupted) else { return };
        let Some(name) = self.asked_name(lookup) else { return };
        progress("asking from the root down");
        let rtype = self.wanted.types()[0];
        let options = TraceOptions { patience: self.patience, ..options.clone() };
        report.trace = Some(trace(&mut SocketWire::new(self.stop.clone()), &name, rtype, &options));
    }

    fn checked(&self, check: &Check, lookup: &Lookup, placed: &[Placed]) -> Checked {
        // Both began at the same time, so that it should be ready about when the replay was.
        let patience = Duration::from_millis(500) + lookup.took;
        let Some(answer) = check.wait(patience, &self.stop) else {
            return Checked { by: "getaddrinfo", addresses: Vec::new(), error: None, agrees: None, ms: None };
        };
        let mine: Vec<IpAddr> =
            placed.iter().filter_map(|placed| Some(lookup.found.get(placed.index)?.address)).collect();
        if lookup.interrupted {
            return Checked {
                by: "getaddrinfo",
                addresses: answer.addresses,
                error: None,
                agrees: None,
                ms: Some(answer.ms),
            };
        }
        let agrees = match (&answer.error, lookup.error) {
            (Some(eai), Some(error)) => eai == error.name(),
            (None, None) => same_order(&mine, &answer.addresses, self.conf),
            _ => false,
        };
        Checked {
            by: "getaddrinfo",
            addresses: answer.addresses,
            error: answer.error,
            agrees: Some(agrees),
            ms: Some((answer.ms * 1e3).round() / 1e3),
        }
    }

    /// How systemd-resolved's stub passes the name on.
    fn stub(&self) -> Option<String> {
        let stub = self.conf.servers.iter().find(|server| {
            matches!(server.address.ip(), IpAddr::V4(v4) if v4.octets() == [127, 0, 0, 53] || v4.octets() == [127, 0, 0, 54])
        })?;
        let Some(resolved) = &self.facts.resolved else {
            return Some(format!("{stub} is where systemd-resolved listens; its state cannot be read here"));
        };
        let ways: Vec<String> = resolved
            .route(self.name)
            .into_iter()
            .map(|(link, domain)| match domain {
                Some(domain) => format!("{} on {} (domain {domain})", link.servers.join(", "), link.interface),
                None => format!("{} on {}", link.servers.join(", "), link.interface),
            })
            .collect();
        let ways = if ways.is_empty() { resolved.uplinks.join(", ") } else { ways.join("; ") };
        Some(format!("{stub} is systemd-resolved, which asks {ways}"))
    }
}

/// Servers often turn the order of equal addresses; then the same set in an order that the rules allow is the
/// same answer.
fn same_order(mine: &[IpAddr], theirs: &[IpAddr], conf: &Conf) -> bool {
    let mut unique: Vec<IpAddr> = Vec::new();
    for address in mine {
        if !unique.contains(address) {
            unique.push(*address);
        }
    }
    if unique == theirs {
        return true;
    }
    let sorted = |list: &[IpAddr]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    if sorted(&unique) != sorted(theirs) {
        return false;
    }
    let sources: Vec<SourceFact> = source::sources(theirs);
    order(theirs, &sources, &conf.gai).iter().enumerate().all(|(at, placed)| placed.index == at)
}

/// A name that only this host gives itself is not put to servers: they would learn of it and know nothing.
fn worth_comparing(name: &str, lookup: &Lookup, wanted: &Wanted) -> bool {
    let from_hosts = lookup.decided_by().is_some_and(|run| run.service.name != "dns");
    let local = |name: &str| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        !name.contains('.') || name == "localhost" || name.ends_with(".localhost") || name.ends_with(".localdomain")
    };
    match wanted {
        // An address given as a name, or one that cannot be a name.
        Wanted::Addresses(_) if lookup.runs.is_empty() => false,
        Wanted::Names(address) => !(address.is_loopback() || from_hosts),
        _ => !(from_hosts && local(name)),
    }
}
