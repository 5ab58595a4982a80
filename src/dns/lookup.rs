//! `getaddrinfo` as an application calls it: nsswitch.conf's services in their order, what each says,
//! and what follows from it (`get_nss_addresses` in sysdeps/posix/getaddrinfo.c, nss_files, nss_dns).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::conf::Conf;
use super::message::{Data, Message, RType, Rcode, Record};
use super::name::DomainName;
use super::search::{Candidate, HostError, search};
use super::send::{Errno, Exchange};
use super::wire::{ModuleAnswer, Wire};
use crate::host::hosts::HostsEntry;
use crate::host::nsswitch::{Action, Service, Status};
use crate::host::resolv::inet_aton;

/// Which addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Both: `AF_UNSPEC`, what most applications ask for.
    Any,
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

impl Family {
    fn types(self) -> &'static [RType] {
        match self {
            Self::Any => &[RType::A, RType::AAAA],
            Self::V4 => &[RType::A],
            Self::V6 => &[RType::AAAA],
        }
    }

    const fn only(self) -> Option<RType> {
        match self {
            Self::Any => None,
            Self::V4 => Some(RType::A),
            Self::V6 => Some(RType::AAAA),
        }
    }
}

/// The error an application gets (netdb.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eai {
    /// No such name, or none with an address.
    NoName,
    /// Nobody could say; it may pass.
    Again,
    /// The name is there, and has no address of the kind.
    NoData,
    /// Something on this host failed.
    System,
    /// A literal address of the other family.
    AddrFamily,
}

impl Eai {
    /// Its name in netdb.h.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoName => "EAI_NONAME",
            Self::Again => "EAI_AGAIN",
            Self::NoData => "EAI_NODATA",
            Self::System => "EAI_SYSTEM",
            Self::AddrFamily => "EAI_ADDRFAMILY",
        }
    }

    /// What applications print (`gai_strerror`).
    pub const fn says(self) -> &'static str {
        match self {
            Self::NoName => "Name or service not known",
            Self::Again => "Temporary failure in name resolution",
            Self::NoData => "No address associated with hostname",
            Self::System => "System error",
            Self::AddrFamily => "Address family for hostname not supported",
        }
    }
}

/// Where an address stems from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It was given as an address.
    Literal,
    /// A line of the hosts file.
    Hosts(usize),
    /// An answer: index of the exchange, owner of the record, seconds to live.
    Dns {
        /// Index into the service's exchanges.
        exchange: usize,
        /// Whose record it is.
        owner: DomainName,
        /// Its TTL.
        ttl: u32,
    },
    /// A module of the C library.
    Module,
}

/// An address and where it stems from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// Its source.
    pub origin: Origin,
}

/// What one service was asked and said.
#[derive(Debug, Clone)]
pub struct ServiceRun {
    /// The service with its actions, as in nsswitch.conf.
    pub service: Service,
    /// How it ended.
    pub status: Status,
    /// What followed.
    pub action: Action,
    /// In words.
    pub says: String,
    /// Lines of the hosts file that have the name.
    pub lines: Vec<HostsEntry>,
    /// The names tried with the DNS.
    pub candidates: Vec<Candidate>,
    /// What was sent to servers.
    pub exchanges: Vec<Exchange>,
    /// What was found; kept only if the service decided.
    pub found: Vec<Found>,
    /// The name that HOSTALIASES put in its place.
    pub alias: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// Whether it is the C library's word that could not be had.
    pub unknown: bool,
}

/// A record other than an address that was looked for, and where it stems from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRecord {
    /// The record.
    pub record: Record,
    /// Its source.
    pub origin: Origin,
}

/// The whole of a lookup.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The services asked, in order.
    pub runs: Vec<ServiceRun>,
    /// Services of the line that nobody came to.
    pub never_asked: Vec<String>,
    /// What was found, in the order the sources gave it.
    pub found: Vec<Found>,
    /// The records, where no addresses were asked for.
    pub records: Vec<FoundRecord>,
    /// The error instead.
    pub error: Option<Eai>,
    /// How long it took.
    pub took: Duration,
    /// Ctrl-C.
    pub interrupted: bool,
}

impl Lookup {
    /// The service that decided: the last one asked, if it found something.
    pub fn decided_by(&self) -> Option<&ServiceRun> {
        self.runs.last().filter(|_| !self.found.is_empty() || !self.records.is_empty())
    }

    fn new() -> Self {
        Self {
            runs: Vec::new(),
            never_asked: Vec::new(),
            found: Vec::new(),
            records: Vec::new(),
            error: None,
            took: Duration::ZERO,
            interrupted: false,
        }
    }
}

impl ServiceRun {
    fn new(service: Service) -> Self {
        Self {
            service,
            status: Status::NotFound,
            action: Action::Continue,
            says: String::new(),
            lines: Vec::new(),
            candidates: Vec::new(),
            exchanges: Vec::new(),
            found: Vec::new(),
            alias: None,
            took: Duration::ZERO,
            unknown: false,
        }
    }
}

/// Resolves `name` as `getaddrinfo` does.
pub fn lookup<W: Wire>(wire: &mut W, conf: &Conf, name: &str, family: Family) -> Lookup {
    let start = wire.now();
    let mut done = Lookup::new();
    match literal(name, family) {
        Some(Ok(address)) => done.found = vec![Found { address, origin: Origin::Literal }],
        Some(Err(error)) => done.error = Some(error),
        // The older functions, which serve AF_INET alone, know such names to be wrong addresses.
        None if family == Family::V4 && digits_and_dots(name) => done.error = Some(Eai::NoName),
        None => walk(wire, conf, name, family, &mut done),
    }
    done.took = wire.now().saturating_sub(start);
    done
}

/// A numeric name: `inet_aton` (with its short and octal forms) first, then IPv6 with a scope.
pub fn literal(name: &str, family: Family) -> Option<Result<IpAddr, Eai>> {
    if let Some(v4) = inet_aton(name) {
        return Some(if family == Family::V6 { Err(Eai::AddrFamily) } else { Ok(v4.into()) });
    }
    let v6: Ipv6Addr = name.split('%').next().unwrap_or_default().parse().ok()?;
    Some(match family {
        Family::V4 => v6.to_ipv4_mapped().map(IpAddr::V4).ok_or(Eai::AddrFamily),
        _ => Ok(v6.into()),
    })
}

fn digits_and_dots(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
        && !name.ends_with('.')
        && name.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn walk<W: Wire>(wire: &mut W, conf: &Conf, name: &str, family: Family, done: &mut Lookup) {
    // What the errors of the last service leave behind: `no_data`, `h_errno`.
    // The older functions, which serve AF_INET alone, pass over services that are not there.
    let older = family == Family::V4;
    let (mut status, mut host_error) =
        (Status::Unavail, if conf.services.is_empty() { HostError::Internal } else { HostError::None });
    for (at, service) in conf.services.iter().enumerate() {
        let begun = wire.now();
        let mut run = ServiceRun::new(service.clone());
        let said = match service.name.as_str() {
            "files" => files(conf, name, family, &mut run),
            "dns" => dns(wire, conf, name, family, &mut run, &mut done.interrupted),
            other => module(wire, other, name, family, &mut run),
        };
        run.status = said.0;
        // A service that found something leaves no error, whatever was there before.
        if !(older && said == (Status::Unavail, HostError::Internal)) {
            (status, host_error) = said;
        }
        run.action = service.action(run.status);
        run.took = wire.now().saturating_sub(begun);
        let (action, found) = (run.action, run.found.clone());
        done.runs.push(run);
        let rest = || conf.services[at + 1..].iter().map(|service| service.name.clone()).collect();
        if done.interrupted || action == Action::Return {
            done.found = if status == Status::Success { found } else { Vec::new() };
            done.never_asked = rest();
            break;
        }
        if action == Action::Merge && at + 1 < conf.services.len() {
            // "The hosts database does not support MERGE": what was found is lost, and nobody else is asked.
            let failed = matches!(status, Status::TryAgain | Status::Unavail);
            done.error = Some(if failed { Eai::System } else { error(family, status, host_error) });
            done.never_asked = rest();
            return;
        }
        done.found = if at + 1 == conf.services.len() && status == Status::Success { found } else { Vec::new() };
    }
    // Who was interrupted knows of no error.
    if done.found.is_empty() && !done.interrupted {
        done.error = Some(error(family, status, host_error));
    }
}

fn error(family: Family, status: Status, host_error: HostError) -> Eai {
    let failed = matches!(status, Status::TryAgain | Status::Unavail);
    match host_error {
        HostError::NoData => Eai::NoData,
        // `try_simple_gethostbyname`: what has failed without a better word is "no data".
        HostError::None | HostError::Internal if family == Family::V4 => Eai::NoName,
        HostError::TryAgain if family == Family::V4 && !failed => Eai::NoName,
        HostError::HostNotFound | HostError::NoRecovery if family == Family::V4 && failed => Eai::NoData,
        HostError::Internal if failed => Eai::System,
        HostError::TryAgain => Eai::Again,
        _ => Eai::NoName,
    }
}

/// nss_files: every line with the name, or the first alone without `multi on`.
fn files(conf: &Conf, name: &str, family: Family, run: &mut ServiceRun) -> (Status, HostError) {
    let Some(hosts) = &conf.hosts else {
        run.says = format!("{} cannot be read", conf.paths.hosts);
        return (Status::Unavail, HostError::NoData);
    };
    run.lines = hosts.lookup(name).cloned().collect();
    for entry in &run.lines {
        let address = match family {
            Family::Any => Some(entry.address),
            Family::V4 => entry.as_ipv4().map(IpAddr::V4),
            Family::V6 => Some(entry.address).filter(IpAddr::is_ipv6),
        };
        if let Some(address) = address {
            run.found.push(Found { address, origin: Origin::Hosts(entry.line) });
            if !conf.multi {
                break;
            }
        }
    }
    if run.found.is_empty() {
        run.says = match run.lines.first() {
            Some(entry) => format!("line {} has the name, without an address of the wanted kind", entry.line),
            None => "no line has the name".to_owned(),
        };
        return (Status::NotFound, HostError::HostNotFound);
    }
    let lines: Vec<String> = run
        .found
        .iter()
        .filter_map(|one| match one.origin {
            Origin::Hosts(line) => Some(format!("line {line}: {}", one.address)),
            _ => None,
        })
        .collect();
    run.says = lines.join(", ");
    (Status::Success, HostError::None)
}

fn dns<W: Wire>(
    wire: &mut W,
    conf: &Conf,
    name: &str,
    family: Family,
    run: &mut ServiceRun,
    interrupted: &mut bool,
) -> (Status, HostError) {
    // `check_name`: such a name is not even asked for.
    if !DomainName::parse(name).is_ok_and(|domain| domain.is_host()) || !name.is_ascii() {
        "this is no host name (letters, digits, - and _ in labels of up to 63): nothing is asked"
            .clone_into(&mut run.says);
        return (Status::NotFound, HostError::HostNotFound);
    }
    let searched = search(wire, conf, name, family.types());
    run.candidates = searched.candidates;
    run.exchanges = searched.exchanges;
    run.alias = searched.alias;
    *interrupted = searched.interrupted;
    let Some(replies) = searched.replies else {
        let status = match searched.errno {
            Errno::ConnRefused | Errno::TimedOut => Status::Unavail,
            _ => Status::NotFound,
        };
        run.says = run.candidates.last().map_or("nothing was asked", |last| last.result).to_owned();
        return (status, searched.host_error);
    };
    let (mut status, mut host_error) = (Status::NotFound, HostError::HostNotFound);
    for (number, reply) in [replies.first, replies.second].into_iter().enumerate() {
        let Some(reply) = reply else { continue };
        if number == 1 && status == Status::Unavail {
            break;
        }
        let exchange = run
            .exchanges
            .iter()
            .position(|one| one.outcome.message().is_some_and(|message| Arc::ptr_eq(message, &reply)))
            .unwrap_or(0);
        // What stood before the damage in a second answer stays, where the first one was good.
        let (own, error) = slice(&reply, family, exchange, &mut run.found);
        host_error = error;
        if number == 0 || (status != Status::Success && own != Status::NotFound) {
            status = own;
        }
    }
    run.says = match status {
        Status::Success => {
            let list: Vec<String> = run.found.iter().map(|one| one.address.to_string()).collect();
            in_short(&list)
        }
        Status::Unavail => "the answer is damaged, and glibc throws it away".to_owned(),
        _ => "the answer has an alias, and no address for it".to_owned(),
    };
    if status != Status::Success {
        run.found.clear();
    }
    (status, host_error)
}

/// A list of which only the beginning is said, where it is long.
pub(super) fn in_short(list: &[String]) -> String {
    if list.len() > 8 { format!("{}, … ({} in all)", list[..8].join(", "), list.len()) } else { list.join(", ") }
}

/// `gaih_getanswer_slice` (and `getanswer_r`): addresses of the name, or of the last alias before them.
fn slice(reply: &Message, family: Family, exchange: usize, found: &mut Vec<Found>) -> (Status, HostError) {
    let Some(question) = reply.questions.first().filter(|_| reply.counts[0] == 1) else {
        return (Status::Unavail, HostError::NoRecovery);
    };
    let nothing = (Status::NotFound, HostError::HostNotFound);
    if reply.counts[1] == 0
        || !question.name.is_host()
        || reply.header_rcode() == Rcode::NXDOMAIN && family != Family::Any
    {
        return nothing;
    }
    let mut expected = &question.name;
    let before = found.len();
    for record in &reply.answers {
        match &record.data {
            Data::Name(target) if record.rtype == RType::CNAME => expected = target,
            Data::Address(address) if record.rtype == question.rtype && record.owner == *expected => {
                let origin = Origin::Dns { exchange, owner: record.owner.clone(), ttl: record.ttl };
                found.push(Found { address: *address, origin });
            }
            _ => {}
        }
    }
    if reply.answers_cut() {
        return (Status::Unavail, HostError::NoRecovery);
    }
    if found.len() > before {
        (Status::Success, HostError::None)
    } else if family == Family::Any {
        nothing
    } else {
        (Status::TryAgain, HostError::NoRecovery)
    }
}

fn module<W: Wire>(
    wire: &mut W,
    service: &str,
    name: &str,
    family: Family,
    run: &mut ServiceRun,
) -> (Status, HostError) {
    match wire.module(service, name, family.only()) {
        ModuleAnswer::Missing => {
            run.says = format!("libnss_{service}.so.2 is not installed");
            (Status::Unavail, HostError::Internal)
        }
        ModuleAnswer::Found(list) => {
            let words: Vec<String> = list.iter().map(ToString::to_string).collect();
            run.says = words.join(", ");
            run.found = list.into_iter().map(|address| Found { address, origin: Origin::Module }).collect();
            (Status::Success, HostError::None)
        }
        ModuleAnswer::Failed(status, eai) => {
            run.says = match status {
                Status::NotFound => "does not know the name".to_owned(),
                Status::TryAgain => "failed for now".to_owned(),
                _ => "does not serve this name, or not now".to_owned(),
            };
            let host_error = match eai {
                Eai::Again => HostError::TryAgain,
                Eai::NoData => HostError::NoData,
                Eai::System => HostError::Internal,
                _ => HostError::HostNotFound,
            };
            (status, host_error)
        }
        ModuleAnswer::Unknown(why) => {
            run.says = format!("could not be asked: {why}");
            run.unknown = true;
            (Status::Unavail, HostError::HostNotFound)
        }
    }
}

/// Looks up records of another type with the search list, as `res_search` does for those who ask the DNS
/// itself: no service but `dns` knows them.
pub fn records<W: Wire>(wire: &mut W, conf: &Conf, name: &str, rtype: RType) -> Lookup {
    let start = wire.now();
    let mut done = Lookup::new();
    let mut run = ServiceRun::new(Service::new("dns"));
    let searched = search(wire, conf, name, &[rtype]);
    run.exchanges = searched.exchanges;
    run.candidates = searched.candidates;
    run.alias = searched.alias;
    done.interrupted = searched.interrupted;
    settle(&mut done, &mut run, searched.replies.and_then(|replies| replies.first), rtype, searched.host_error);
    done.error = done.error.filter(|_| !done.interrupted);
    run.took = wire.now().saturating_sub(start);
    done.took = run.took;
    done.runs.push(run);
    done
}

fn settle(
    done: &mut Lookup,
    run: &mut ServiceRun,
    reply: Option<Arc<Message>>,
    rtype: RType,
    host_error: HostError,
) -> (Status, HostError) {
    let Some(reply) = reply else {
        run.says = run.candidates.last().map_or("nothing was asked", |last| last.result).to_owned();
        run.status = if host_error == HostError::TryAgain { Status::Unavail } else { Status::NotFound };
        done.error = Some(error(Family::Any, run.status, host_error));
        return (run.status, host_error);
    };
    let exchange = run
        .exchanges
        .iter()
        .position(|one| one.outcome.message().is_some_and(|message| Arc::ptr_eq(message, &reply)))
        .unwrap_or(0);
    let any = RType(255);
    let wanted = |record: &&Record| record.rtype == rtype || rtype == any;
    for record in reply.answers.iter().filter(wanted) {
        let origin = Origin::Dns { exchange, owner: record.owner.clone(), ttl: record.ttl };
        done.records.push(FoundRecord { record: record.clone(), origin });
    }
    if done.records.is_empty() {
        "the answer has an alias, and nothing of this type for it".clone_into(&mut run.says);
        done.error = Some(Eai::NoData);
        return (Status::NotFound, HostError::NoData);
    }
    run.says = in_short(&done.records.iter().map(|found| found.record.data.to_string()).collect::<Vec<_>>());
    run.status = Status::Success;
    run.action = Action::Return;
    (Status::Success, HostError::None)
}

/// The names of an address, as `getnameinfo` finds them: the first line of the hosts file that has it,
/// else PTR.
pub fn reverse<W: Wire>(wire: &mut W, conf: &Conf, address: IpAddr) -> Lookup {
    let start = wire.now();
    let mut done = Lookup::new();
    let (mut status, mut host_error) = (Status::Unavail, HostError::None);
    let name = DomainName::reverse(address);
    for (at, service) in conf.services.iter().enumerate() {
        let begun = wire.now();
        let mut run = ServiceRun::new(service.clone());
        done.records.clear();
        done.error = None;
        (status, host_error) = match service.name.as_str() {
            "files" => reverse_files(conf, address, &name, &mut run, &mut done),
            "dns" => {
                let absolute = format!("{name}.");
                let searched = search(wire, conf, &absolute, &[RType::PTR]);
                run.exchanges = searched.exchanges;
                run.candidates = searched.candidates;
                done.interrupted = searched.interrupted;
                let reply = searched.replies.and_then(|replies| replies.first);
                settle(&mut done, &mut run, reply, RType::PTR, searched.host_error)
            }
            other => {
                run.says = format!("reverse lookups by `{other}` are not followed here");
                run.unknown = true;
                (Status::Unavail, HostError::HostNotFound)
            }
        };
        run.status = status;
        run.action = service.action(status);
        run.took = wire.now().saturating_sub(begun);
        let action = run.action;
        done.runs.push(run);
        if done.interrupted || action == Action::Return {
            done.never_asked = conf.services[at + 1..].iter().map(|service| service.name.clone()).collect();
            break;
        }
    }
    if done.records.is_empty() {
        done.error = (!done.interrupted).then(|| error(Family::Any, status, host_error));
    }
    done.took = wire.now().saturating_sub(start);
    done
}

fn reverse_files(
    conf: &Conf,
    address: IpAddr,
    owner: &DomainName,
    run: &mut ServiceRun,
    done: &mut Lookup,
) -> (Status, HostError) {
    let Some(hosts) = &conf.hosts else {
        run.says = format!("{} cannot be read", conf.paths.hosts);
        return (Status::Unavail, HostError::NoData);
    };
    let same = |entry: &&HostsEntry| match address {
        IpAddr::V4(v4) => entry.as_ipv4() == Some(v4),
        IpAddr::V6(_) => entry.address == address,
    };
    run.lines = hosts.entries.iter().filter(same).cloned().collect();
    let Some(entry) = run.lines.first() else {
        "no line has the address".clone_into(&mut run.says);
        return (Status::NotFound, HostError::HostNotFound);
    };
    let data = DomainName::parse(&entry.name).map_or_else(|_| Data::Text(entry.name.clone()), Data::Name);
    run.says = format!("line {}: {}", entry.line, entry.name);
    let record = Record { owner: owner.clone(), rtype: RType::PTR, ttl: 0, data };
    done.records.push(FoundRecord { record, origin: Origin::Hosts(entry.line) });
    (Status::Success, HostError::None)
}
