//! What is told of a name: the document of `reachwhy dns --json`, and the value that the text is drawn from.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::conf::Conf;
use super::direct::{Dnssec, View};
use super::dnssec::Validation;
use super::lookup::{Lookup, Origin, ServiceRun};
use super::message::{Data, Message, RType, Rcode, Record};
use super::name::DomainName;
use super::order::{Placed, SourceFact};
use super::resolved::ResolvedAnswer;
use super::send::{Exchange, Outcome};
use super::trace::Traced;
use super::wire::{Server, Transport};

/// The whole answer to `reachwhy dns NAME`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// As it was asked for.
    pub name: String,
    /// `A+AAAA`, `MX`, …
    #[serde(rename = "type")]
    pub rtype: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What an application gets, in the order it gets it.
    pub answers: Vec<Answer>,
    /// What an application gets instead.
    pub error: Option<Failed>,
    /// Each thing that was asked, in time.
    pub steps: Vec<Step>,
    /// Why the addresses stand in this order (RFC 6724).
    pub order: Vec<Place>,
    /// Who says something else; `None` where nobody was compared.
    pub disagreement: Option<Vec<Difference>>,
    /// Each server's own word.
    pub servers: Vec<ServerView>,
    /// The signatures checked here, from the trust anchor down; `None` where nothing is signed and nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnssec: Option<Validation>,
    /// The aliases followed.
    pub chain: Vec<Alias>,
    /// The delivery network the aliases lead to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdn: Option<&'static str>,
    /// What the C library said to the same question.
    pub check: Option<Checked>,
    /// Iteration from the roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Traced>,
    /// Connections tried to the addresses, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connects: Vec<Connect>,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// The sources by nsswitch.conf.
    pub nsswitch: Sources,
    /// How the local stub passes the name on (systemd-resolved).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stub: Option<String>,
    /// What systemd-resolved itself says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ResolvedAnswer>,
    /// Milliseconds the lookup took an application.
    pub ms: f64,
    /// It was ended by Ctrl-C: what stands here is a part.
    pub partial: bool,
}

/// How a lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It resolves, and nobody disagrees.
    Ok,
    /// Something is wrong.
    Problem,
    /// It could not be found out.
    Unknown,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The address; `None` for other records.
    pub address: Option<IpAddr>,
    /// `hosts`, `dns`, `literal`, or the name of the service.
    pub source: String,
    /// The server that said it.
    pub server: Option<String>,
    /// Seconds it may be kept.
    pub ttl: Option<u32>,
    /// The line of the hosts file.
    pub line: Option<usize>,
    /// The record's type, where it is one.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub rtype: Option<RType>,
    /// What the record says, where it is no address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Whose record it is, where that is not the name asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How the server was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The server's round trip, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// An error in the C library's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// `EAI_NONAME`, …
    pub eai: &'static str,
    /// `Name or service not known`, …
    pub says: &'static str,
}

/// One thing that was asked.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// `hosts`, `dns` or the name of the service.
    pub source: String,
    /// The name, and for the DNS its type.
    pub query: String,
    /// Whom.
    pub server: Option<String>,
    /// What came of it.
    pub result: String,
    /// Milliseconds.
    pub ms: f64,
    /// `udp`, `tcp`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The round over all servers, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// The server's line in resolv.conf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The code of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// The flags of the reply, in dig's words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<&'static str>,
    /// Octets of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// What the server says of its failure (RFC 8914).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extended_errors: Vec<String>,
    /// What arrived besides and was thrown away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// For a service: what follows by nsswitch.conf (`return`, `continue`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The suffix of the search list in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
}

/// An address in its place.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// The address it would be reached from; `None` without a route.
    pub from: Option<IpAddr>,
    /// The rule that puts it before the next one; `None` for the last.
    pub rule: Option<u8>,
    /// The rule in words.
    pub because: Option<String>,
}

/// Two who say different things.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// `hosts`, `servers`, `asked` (by --server), `authority`, `getaddrinfo`.
    pub between: &'static str,
    /// In a sentence.
    pub says: String,
    /// Who says what.
    pub parties: Vec<Party>,
}

/// One of those who say different things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Party {
    /// Who.
    pub who: String,
    /// What.
    pub answer: Vec<String>,
}

/// A server's own word.
#[derive(Debug, Clone, Serialize)]
pub struct ServerView {
    /// Whom.
    pub server: String,
    /// Its line in resolv.conf; `None` for one given by --server.
    pub line: Option<usize>,
    /// `udp`, `tcp`, `tls`, `https`: how the answer came.
    pub transport: Transport,
    /// The name asked for.
    pub query: String,
    /// The code; `None` where no answer came.
    pub rcode: Option<String>,
    /// What it says: addresses or records.
    pub answers: Vec<String>,
    /// The smallest TTL.
    pub ttl: Option<u32>,
    /// The first answer's flags.
    pub flags: Vec<&'static str>,
    /// Milliseconds.
    pub rtt_ms: Option<f64>,
    /// DNSSEC.
    pub dnssec: Option<Dnssec>,
    /// Why there is no answer.
    pub failure: Option<String>,
    /// What it says of its failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extended_errors: Vec<String>,
    /// It does not understand EDNS(0).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_edns: bool,
    /// How long "no" may be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_ttl: Option<u32>,
    /// What is wrong with its answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub malformed: Vec<String>,
    /// What arrived besides, as if from it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

/// An alias and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alias {
    /// The alias.
    pub from: String,
    /// Where it leads.
    pub to: String,
    /// Seconds it may be kept.
    pub ttl: u32,
}

/// The C library's own answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// Who answered.
    pub by: &'static str,
    /// Its addresses in its order.
    pub addresses: Vec<IpAddr>,
    /// Its error.
    pub error: Option<String>,
    /// Whether it says what is told here; `None` when it took too long to say.
    pub agrees: Option<bool>,
    /// Milliseconds.
    pub ms: Option<f64>,
}

/// A connection tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    /// To whom.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// What went wrong; `None` where it was accepted.
    pub error: Option<String>,
    /// Milliseconds.
    pub ms: f64,
}

/// What nsswitch.conf has for hosts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sources {
    /// The line's number; `None` where glibc's own `files dns` stands in.
    pub line: Option<usize>,
    /// The services with their actions.
    pub services: Vec<String>,
    /// Those that nobody came to.
    pub never_asked: Vec<String>,
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The name does not resolve, or not to what it should.
    Fault,
    /// It may be what is wanted.
    Warning,
    /// Good to know.
    Info,
}

/// Something to be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A code of the catalogue (`dns.…`).
    pub code: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// What to change: a file and line, a server.
    pub object: String,
    /// In a sentence.
    pub message: String,
    /// What it rests on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Milliseconds, to the microsecond.
pub fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// All that was gathered about a name.
pub struct Gathered<'a> {
    /// As it was asked for.
    pub name: &'a str,
    /// What was asked for.
    pub rtype: String,
    /// The host's files.
    pub conf: &'a Conf,
    /// The replay.
    pub lookup: &'a Lookup,
    /// The ways to its addresses.
    pub sources: &'a [SourceFact],
    /// The addresses in their places.
    pub placed: &'a [Placed],
    /// The servers by themselves; empty where nobody was compared.
    pub views: &'a [View],
}

impl Report {
    /// Puts together what was gathered, before it is judged.
    pub fn of(gathered: &Gathered<'_>) -> Self {
        let lookup = gathered.lookup;
        let (chain, end) = aliases(lookup);
        Self {
            name: gathered.name.to_owned(),
            rtype: gathered.rtype.clone(),
            verdict: Verdict::Ok,
            answers: answers(gathered),
            error: lookup.error.map(|error| Failed { eai: error.name(), says: error.says() }),
            steps: lookup.runs.iter().flat_map(|run| steps(gathered.name, run)).collect(),
            order: places(gathered),
            disagreement: None,
            servers: gathered.views.iter().map(ServerView::of).collect(),
            dnssec: None,
            cdn: end.as_deref().and_then(super::cdn::named),
            chain,
            check: None,
            trace: None,
            connects: Vec::new(),
            findings: Vec::new(),
            nsswitch: Sources {
                line: gathered.conf.services_line,
                services: gathered.conf.services.iter().map(ToString::to_string).collect(),
                never_asked: lookup.never_asked.clone(),
            },
            stub: None,
            resolved: None,
            ms: ms(lookup.took),
            partial: lookup.interrupted,
        }
    }

    /// The exit code of the contract.
    pub const fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Ok => 0,
            Verdict::Problem => 1,
            Verdict::Unknown => 3,
        }
    }
}

fn answers(gathered: &Gathered<'_>) -> Vec<Answer> {
    let lookup = gathered.lookup;
    let Some(run) = lookup.runs.last() else {
        return lookup.found.iter().map(|found| Answer { address: Some(found.address), ..blank("literal") }).collect();
    };
    let asked = DomainName::parse(gathered.name).ok();
    let whole = |origin: &Origin| {
        let mut answer = blank(source_word(&run.service.name));
        match origin {
            Origin::Hosts(line) => answer.line = Some(*line),
            Origin::Dns { exchange, owner, ttl } => {
                answer.ttl = Some(*ttl);
                answer.owner = Some(owner).filter(|owner| Some(*owner) != asked.as_ref()).map(ToString::to_string);
                if let Some(exchange) = run.exchanges.get(*exchange) {
                    answer.server = Some(exchange.server.to_string());
                    answer.transport = Some(exchange.transport);
                    answer.rtt_ms = Some(ms(exchange.took));
                }
            }
            Origin::Module | Origin::Literal => {}
        }
        answer
    };
    let placed = gathered.placed.iter().filter_map(|placed| lookup.found.get(placed.index));
    let mut answers: Vec<Answer> =
        placed.map(|found| Answer { address: Some(found.address), ..whole(&found.origin) }).collect();
    for found in &lookup.records {
        let address = match found.record.data {
            Data::Address(address) => Some(address),
            _ => None,
        };
        let data = address.is_none().then(|| found.record.data.to_string());
        answers.push(Answer { address, data, rtype: Some(found.record.rtype), ..whole(&found.origin) });
    }
    answers
}

fn blank(source: &str) -> Answer {
    Answer {
        address: None,
        source: source.to_owned(),
        server: None,
        ttl: None,
        line: None,
        rtype: None,
        data: None,
        owner: None,
        transport: None,
        rtt_ms: None,
    }
}

/// The contract's word for a service.
fn source_word(service: &str) -> &str {
    match service {
        "files" => "hosts",
        mdns if mdns.starts_with("mdns") => "mdns",
        other => other,
    }
}

fn steps(name: &str, run: &ServiceRun) -> Vec<Step> {
    let mut steps = Vec::new();
    let source = source_word(&run.service.name).to_owned();
    let blank = |query: String, result: String, took: Duration| Step {
        source: source.clone(),
        query,
        server: None,
        result,
        ms: ms(took),
        transport: None,
        round: None,
        line: None,
        rcode: None,
        flags: Vec::new(),
        size: None,
        extended_errors: Vec::new(),
        ignored: Vec::new(),
        action: None,
        suffix: None,
    };
    for (at, exchange) in run.exchanges.iter().enumerate() {
        let suffix = run.candidates.iter().find(|one| one.exchanges.contains(&at)).and_then(|one| one.suffix.clone());
        let query = format!("{} {}", exchange.question.name, exchange.question.rtype);
        let reply = exchange.outcome.message();
        steps.push(Step {
            server: Some(exchange.server.to_string()),
            transport: Some(exchange.transport),
            round: Some(exchange.round),
            line: exchange.server.line,
            rcode: reply.map(|reply| reply.rcode().to_string()),
            flags: reply.map(|reply| reply.flag_words()).unwrap_or_default(),
            size: reply.map(|reply| reply.size),
            extended_errors: reply.map(|reply| reply.extended_errors.clone()).unwrap_or_default(),
            ignored: exchange.ignored.clone(),
            suffix,
            ..blank(query, result(exchange), exchange.took)
        });
    }
    let status = format!("{:?}", run.status).to_uppercase();
    let action = format!("[{status}={}]", format!("{:?}", run.action).to_lowercase());
    let line = run.lines.first().map(|entry| entry.line).filter(|_| !run.found.is_empty());
    let summary = blank(name.to_owned(), run.says.clone(), run.took);
    steps.push(Step { action: Some(action), line, ..summary });
    steps
}

/// What came of a question, in a few words.
pub fn result(exchange: &Exchange) -> String {
    match &exchange.outcome {
        Outcome::Answer(reply) => said(reply, exchange.question.rtype),
        Outcome::PassedOver(reply, why) => {
            let extra = reply.extended_errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            match *why {
                "lame" => "lame: neither an answer nor a server that would ask others; next server".to_owned(),
                why => format!("{why}{extra}: next server"),
            }
        }
        Outcome::Truncated(_) => "truncated: asked again by TCP".to_owned(),
        Outcome::Timeout => format!("no answer in {} ms", exchange.took.as_millis()),
        Outcome::Net(error) => error.says.clone(),
        Outcome::Malformed(malformed) => format!("malformed: {malformed}"),
        Outcome::Abandoned => "not waited for".to_owned(),
    }
}

fn said(reply: &Message, rtype: RType) -> String {
    if reply.rcode() != Rcode::NOERROR {
        let extra = reply.extended_errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return format!("{}{extra}", reply.rcode());
    }
    let wanted: Vec<String> = reply
        .answers
        .iter()
        .filter(|record| record.rtype == rtype || rtype == RType(255))
        .map(|record| record.data.to_string())
        .collect();
    let text = match (wanted.len(), reply.answers.first()) {
        (0, Some(record)) => format!("{} {}", record.rtype, record.data),
        (0, None) => "NODATA: the name is there, without a record of this type".to_owned(),
        (1..=4, _) => wanted.join(", "),
        (count, _) => format!("{}, … ({count})", wanted[..3].join(", ")),
    };
    match &reply.malformed {
        Some(malformed) => format!("{text} (malformed: {malformed})"),
        None => text,
    }
}

fn places(gathered: &Gathered<'_>) -> Vec<Place> {
    let address = |index: usize| gathered.lookup.found.get(index).map(|found| found.address);
    gathered
        .placed
        .iter()
        .filter_map(|placed| {
            Some(Place {
                address: address(placed.index)?,
                from: gathered.sources.get(placed.index).and_then(|source| source.address),
                rule: placed.rule.map(super::order::Rule::number),
                because: placed.rule.map(|rule| rule.because().to_owned()),
            })
        })
        .collect()
}

/// The aliases of the reply that decided, and the last name.
fn aliases(lookup: &Lookup) -> (Vec<Alias>, Option<String>) {
    let origins = lookup.found.iter().map(|one| &one.origin).chain(lookup.records.iter().map(|one| &one.origin));
    let exchange = origins.into_iter().find_map(|origin| match origin {
        Origin::Dns { exchange, .. } => Some(*exchange),
        _ => None,
    });
    let run = lookup.runs.last();
    let reply = run.zip(exchange).and_then(|(run, exchange)| run.exchanges.get(exchange)?.outcome.message().cloned());
    let chain: Vec<Alias> = reply.map(|reply| chain_of(&reply.answers)).unwrap_or_default();
    let end = chain.last().map(|alias| alias.to.clone());
    (chain, end)
}

pub(super) fn chain_of(answers: &[Record]) -> Vec<Alias> {
    let alias = |record: &Record| match &record.data {
        Data::Name(target) if record.rtype == RType::CNAME => {
            Some(Alias { from: record.owner.to_string(), to: target.to_string(), ttl: record.ttl })
        }
        _ => None,
    };
    answers.iter().filter_map(alias).collect()
}

impl ServerView {
    /// As it is shown.
    pub fn of(view: &View) -> Self {
        let replies = || view.replies.iter().map(|(_, reply)| reply);
        let wanted = |rtype: RType| move |record: &&Record| record.rtype == rtype || rtype == RType(255);
        let records: Vec<&Record> =
            view.replies.iter().flat_map(|(rtype, reply)| reply.answers.iter().filter(wanted(*rtype))).collect();
        let first = replies().next();
        let transport = view.exchanges.last().map_or(view.server.transport, |exchange| exchange.transport);
        Self {
            server: view.server.to_string(),
            line: view.server.line,
            transport,
            query: view.name.clone(),
            rcode: view.rcode().map(|code| code.to_string()),
            answers: records.iter().map(|record| record.data.to_string()).collect(),
            ttl: records.iter().map(|record| record.ttl).min(),
            flags: first.map(|reply| reply.flag_words()).unwrap_or_default(),
            rtt_ms: view.rtt().map(ms),
            dnssec: view.dnssec,
            failure: view.failure(),
            extended_errors: replies().flat_map(|reply| reply.extended_errors.clone()).collect(),
            no_edns: view.no_edns,
            negative_ttl: records.is_empty().then(|| replies().find_map(|reply| reply.negative_ttl())).flatten(),
            malformed: replies().filter_map(|reply| Some(reply.malformed.as_ref()?.to_string())).collect(),
            ignored: view.exchanges.iter().flat_map(|exchange| exchange.ignored.clone()).collect(),
        }
    }

    /// Whether it is one of the host's own.
    pub const fn configured(&self) -> bool {
        self.line.is_some()
    }
}

/// `192.168.1.53 (line 2)`.
pub(super) fn server_with_line(server: &Server) -> String {
    match server.line {
        Some(line) => format!("{server} (line {line})"),
        None => server.to_string(),
    }
}
