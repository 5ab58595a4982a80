//! `reachwhy dns NAME [TYPE]`, and `reachwhy dns hosts`.

mod batch;
mod hosts;

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::{Failure, Global, print_json};
use crate::dns::dnssec::{TrustAnchors, Validation, read_anchors};
use crate::dns::report::{Checked, Gathered, Report, ServerView};
use crate::dns::{
    Conf, Dnssec, DomainName, Eai, Extra, Family, GivenServer, Lookup, Outcome, Placed, RType, ResolverFacts, Server,
    SourceFact, TraceOptions, View, judge, literal, lookup, order, records, reverse, trace,
};
use crate::os::dns::check::{self, Check};
use crate::os::dns::validate::{ValidateOptions, validate};
use crate::os::dns::{SocketWire, Stop, compare, facts, resolved, source};
use crate::view::{self, Progress, Style};

/// What a host resolves a name to, and who says otherwise.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Servers: 192.168.1.53, 192.168.1.53:5353, [fd00::53]:53, tcp://…, tls://NAME, https://NAME/dns-query\n\
        Exit: 0 it resolves and nobody disagrees, 1 a problem was found, 2 bad usage or input, 3 could not find out"
)]
pub(super) struct DnsArgs {
    #[command(subcommand)]
    command: Option<DnsCommand>,
    #[command(flatten)]
    query: QueryArgs,
}

#[derive(Debug, clap::Subcommand)]
enum DnsCommand {
    /// List, check, look up and change the hosts file
    Hosts(hosts::HostsArgs),
}

#[derive(Debug, clap::Args)]
struct QueryArgs {
    /// The name, or an address for its names
    #[arg(required_unless_present = "batch")]
    name: Option<String>,
    /// The record type: A, AAAA, MX, TXT, …; without one both addresses, as applications ask
    #[arg(value_name = "TYPE")]
    rtype: Option<String>,
    /// Compare with this server too (with --batch: ask it instead); repeatable
    #[arg(short, long, value_name = "SERVER")]
    server: Vec<String>,
    /// Ask from the root servers down to the servers in charge
    #[arg(long)]
    trace: bool,
    /// Begin --trace at this root server; repeatable
    #[arg(long, value_name = "ADDRESS", requires = "trace")]
    root: Vec<String>,
    /// Connect to this TCP port of each address, to see whether the first one tried works
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    connect: Option<u16>,
    /// Check the DNSSEC signatures from the root down, even where no server shows any (else: where one does)
    #[arg(long)]
    dnssec: bool,
    /// Trust the DNSKEY records in this file instead of the root zone's keys
    #[arg(long, value_name = "FILE")]
    anchor: Option<std::path::PathBuf>,
    /// Do not ask each server by itself: only what an application would cause
    #[arg(long)]
    no_compare: bool,
    /// Resolve each line of this file (- for standard input), many at once; NAME is then the TYPE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "connect", "dnssec", "anchor"])]
    batch: Option<std::path::PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &DnsArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    match &args.command {
        Some(DnsCommand::Hosts(args)) => hosts::run(args, global, style),
        None => query(&args.query, global, style),
    }
}

/// What `reachwhy nss-module` prints for the one who started it.
pub(super) fn module(service: &str, family: u8, name: &str) -> anyhow::Result<u8> {
    let family = match family {
        4 => Family::V4,
        6 => Family::V6,
        _ => Family::Any,
    };
    let line = crate::os::dns::module::answer(service, family, name).unwrap_or_default();
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(0)
}

/// What is asked for.
enum Wanted {
    Addresses(Family),
    Records(RType),
    Names(IpAddr),
}

impl Wanted {
    fn read(name: &str, rtype: Option<&str>) -> Result<Self, String> {
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

    fn types(&self) -> Vec<RType> {
        match self {
            Self::Addresses(Family::Any) => vec![RType::A, RType::AAAA],
            Self::Addresses(Family::V4) => vec![RType::A],
            Self::Addresses(Family::V6) => vec![RType::AAAA],
            Self::Records(rtype) => vec![*rtype],
            Self::Names(_) => vec![RType::PTR],
        }
    }

    fn words(&self) -> String {
        self.types().iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
    }
}

fn query(args: &QueryArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let given = servers(&args.server)?;
    let hint = Some("A, AAAA, CNAME, MX, NS, TXT, SOA, SRV, PTR, CAA, DS, DNSKEY, HTTPS, TYPE65, …");
    if let Some(file) = &args.batch {
        // Where the names are in a file, the word behind the options is the type.
        let types = match args.rtype.as_deref().or(args.name.as_deref()) {
            Some(text) => vec![text.parse().map_err(|error: String| Failure::usage(error, hint))?],
            None => vec![RType::A, RType::AAAA],
        };
        return batch::run(file, types, given, patience(global), global, style);
    }
    let Some(name) = &args.name else {
        return Err(Failure::usage("no name was given", Some("reachwhy dns www.example.com")));
    };
    let wanted = Wanted::read(name, args.rtype.as_deref()).map_err(|error| Failure::usage(error, hint))?;
    if name.is_empty() || name.contains(|c: char| c.is_control()) {
        return Err(Failure::usage("this is no name: it is empty, or has control characters in it", None));
    }
    let roots = roots(&args.root)?;
    let anchors = anchors(args.anchor.as_deref())?;
    let stop = Stop::watch();
    let facts = facts::resolver_facts();
    let word = if matches!(wanted, Wanted::Names(_)) { None } else { Some(name.as_str()) };
    let conf = Conf::read(&facts, word);
    let mut progress = Progress::new(std::io::stderr(), std::io::stderr().is_terminal() && !global.json);
    let asked = Asked {
        name,
        wanted,
        conf: &conf,
        facts: &facts,
        given,
        roots,
        anchors,
        args,
        stop,
        patience: patience(global),
    };
    let report = asked.report(&mut progress);
    progress.clear();
    if global.json {
        print_json(&report)?;
    } else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        view::dns::report(&mut out, &report, style, global.verbose > 0)?;
        out.flush()?;
    }
    Ok(report.exit_code())
}

fn patience(global: &Global) -> Duration {
    global.timeout.unwrap_or(Duration::from_secs(1))
}

/// Reads the servers; one that is given by name is looked up as any other name.
fn servers(given: &[String]) -> anyhow::Result<Vec<Server>> {
    let hint =
        Some("192.168.1.53, [fd00::53]:53, tcp://192.168.1.53, tls://dns.example, https://dns.example/dns-query");
    let mut servers = Vec::new();
    for text in given {
        let server: GivenServer =
            text.parse().map_err(|error| Failure::usage(format!("--server {text}: {error}"), hint))?;
        let (address, name) = if let Some(address) = server.address() {
            (address, None)
        } else {
            let found = check::addresses(&server.host).map_err(|error| {
                Failure::unknown(format!("--server {text}: {}: {error}", server.host), Some("give its address"))
            })?;
            (found[0], Some(server.host.clone()))
        };
        servers.push(Server {
            transport: server.transport,
            tls_name: server.tls_name.or(name),
            path: server.path,
            ..Server::udp(SocketAddr::from((address, server.port)))
        });
    }
    Ok(servers)
}

/// The root zone's keys as IANA publishes them, or those of a file.
fn anchors(path: Option<&Path>) -> anyhow::Result<TrustAnchors> {
    let Some(path) = path else { return Ok(TrustAnchors::default()) };
    let octets = crate::os::files::read_whole(path)
        .map_err(|error| Failure::usage(format!("--anchor {}: {error}", path.display()), None))?;
    read_anchors(&String::from_utf8_lossy(&octets)).map_err(|error| {
        let hint = Some(". 3600 IN DNSKEY 257 3 8 AwEAAa…, as zone files have it");
        Failure::usage(format!("--anchor {}: {error}", path.display()), hint)
    })
}

fn roots(given: &[String]) -> anyhow::Result<Option<TraceOptions>> {
    let mut options = TraceOptions::default();
    if !given.is_empty() {
        options.roots.clear();
    }
    for text in given {
        let server: GivenServer =
            text.parse().map_err(|error| Failure::usage(format!("--root {text}: {error}"), None))?;
        let address = server
            .address()
            .ok_or_else(|| Failure::usage(format!("--root {text}: an address is needed"), Some("--root 198.41.0.4")))?;
        options.roots.push(SocketAddr::from((address, server.port)));
    }
    Ok(Some(options))
}

struct Asked<'a> {
    name: &'a str,
    wanted: Wanted,
    conf: &'a Conf,
    facts: &'a ResolverFacts,
    given: Vec<Server>,
    roots: Option<TraceOptions>,
    anchors: TrustAnchors,
    args: &'a QueryArgs,
    stop: Stop,
    patience: Duration,
}

impl Asked<'_> {
    fn report(&self, progress: &mut Progress<std::io::Stderr>) -> Report {
        let check = match self.wanted {
            Wanted::Addresses(family) => Some(Check::begin(self.name, family)),
            _ => None,
        };
        progress.say("resolving as an application does");
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
            progress.say("asking systemd-resolved");
            report.resolved = resolved(self.name, *family, self.patience * 2);
        }
        report.dnssec = self.validation(&lookup, &views, progress);
        self.trace(&lookup, progress, &mut report);
        if let Some(port) = self.args.connect.filter(|_| !self.stop.stopped()) {
            progress.say("connecting to the addresses");
            let list: Vec<IpAddr> = report.answers.iter().filter_map(|answer| answer.address).collect();
            report.connects = compare::connects(&list, port, self.patience);
        }
        if let Some(check) = check {
            progress.say("waiting for getaddrinfo");
            report.check = Some(self.checked(&check, &lookup, &placed));
        }
        report.partial |= self.stop.stopped();
        judge(&mut report, &gathered, &extra);
        report
    }

    /// The servers that are worth asking by themselves, and what they say.
    fn views(&self, lookup: &Lookup, progress: &mut Progress<std::io::Stderr>, extra: &mut Extra) -> Vec<View> {
        let own = !self.args.no_compare && worth_comparing(self.name, lookup, &self.wanted);
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
        progress.say("asking each server by itself");
        let types = self.wanted.types();
        let views = compare::views(&servers, &name, &types, self.patience, 2, &self.stop);
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
    fn validation(
        &self,
        lookup: &Lookup,
        views: &[View],
        progress: &mut Progress<std::io::Stderr>,
    ) -> Option<Validation> {
        let shows = |view: &&View| matches!(view.dnssec, Some(Dnssec::Validated | Dnssec::SignedOnly | Dnssec::Bogus));
        let answers = |view: &&View| self.args.dnssec && !view.replies.is_empty();
        let view = views.iter().find(shows).or_else(|| views.iter().find(answers))?;
        if self.stop.stopped() {
            return None;
        }
        let name = self.asked_name(lookup)?;
        progress.say("checking the signatures");
        let options =
            ValidateOptions { server: &view.server, anchors: &self.anchors, patience: self.patience, stop: &self.stop };
        Some(validate(&name, &self.wanted.types(), &options))
    }

    fn trace(&self, lookup: &Lookup, progress: &mut Progress<std::io::Stderr>, report: &mut Report) {
        let Some(options) = self.roots.as_ref().filter(|_| self.args.trace && !lookup.interrupted) else { return };
        let Some(name) = self.asked_name(lookup) else { return };
        progress.say("asking from the root down");
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
