//! DNSSEC validation: `hickory_net`'s validator, fed with what our own sockets fetch from one server.
//!
//! The validator is written for an asynchronous runtime; here each of its questions is answered before it is
//! waited for, so that one poll brings it to its end and neither runtime nor thread is needed.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::{FutureExt, Ready, ready};
use futures_util::stream::{Once, once};
use hickory_net::dnssec::DnssecDnsHandle;
use hickory_net::proto::dnssec::{Proof, TrustAnchors};
use hickory_net::proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_net::proto::rr::{Name, RData, Record, RecordType};
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::xfer::FirstAnswer;
use hickory_net::{DnsError, DnsHandle, NetError as HickoryError};

use super::stop::Stop;
use super::wire::SocketWire;
use crate::dns::dnssec::{Heard, Security, Validation, chain};
use crate::dns::{DomainName, ModuleAnswer, NetError, Question, RType, Server, Transport, Wire, ask_for_validation};

/// A hostile chain of delegations ends here.
const MOST_QUESTIONS: usize = 120;

/// Aliases that are followed.
const MOST_ALIASES: usize = 12;

/// What a validation needs.
pub struct ValidateOptions<'a> {
    /// Whom the records are fetched from.
    pub server: &'a Server,
    /// The keys that are trusted to begin with.
    pub anchors: &'a TrustAnchors,
    /// How long a question waits.
    pub patience: Duration,
    /// What ends it early.
    pub stop: &'a Stop,
}

/// Fetches the records of `name` with all signatures up to the trust anchors, and judges them.
pub fn validate(name: &DomainName, types: &[RType], options: &ValidateOptions<'_>) -> Validation {
    let asking = Asking(Arc::new(Mutex::new(Inner {
        wire: Tape { wire: SocketWire::new(options.stop.clone()), last: Vec::new() },
        server: options.server.clone(),
        patience: options.patience,
        until: Instant::now() + options.patience * 12,
        heard: Vec::new(),
        known: HashMap::new(),
        failed: None,
        silent: false,
    })));
    let handle = DnssecDnsHandle::with_trust_anchor(asking.clone(), Arc::new(options.anchors.clone()));
    let proto = Name::from_ascii(absolute(name)).unwrap_or_else(|_| Name::root());
    let mut asked = Vec::new();
    for rtype in types {
        for question in asking.by_way_of_aliases(&proto, RecordType::from(rtype.0)) {
            if !asked.contains(&question) {
                asked.push(question);
            }
        }
    }
    let mut worst = Proof::Secure;
    for (name, rtype) in &asked {
        let mut request = DnsRequestOptions::default();
        request.edns_set_dnssec_ok = true;
        let answer = pin!(handle.lookup(Query::query(name.clone(), *rtype), request).first_answer()).now_or_never();
        worst = worst.min(judged(answer));
    }
    let inner = asking.0.lock().unwrap_or_else(PoisonError::into_inner);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Seconds are counted round in 32 bits (RFC 4034 3.1.5).
    let now = u32::try_from(now & u64::from(u32::MAX)).unwrap_or(0);
    let links = chain(&inner.heard, &asked, options.anchors, now);
    let bare = inner.heard.iter().any(|one| one.rtype == RecordType::DNSKEY && !has_signatures(one))
        && !inner.heard.iter().any(has_signatures);
    let (state, because) = match (worst, &inner.failed) {
        (Proof::Secure, _) => (Security::Secure, "every signature from the trust anchor down holds".to_owned()),
        (Proof::Insecure, _) => {
            let cut = links.iter().find(|link| link.rtype == "DS" && link.says.starts_with("there is none"));
            let says = cut.map_or("a zone above it is not signed".to_owned(), |link| {
                format!("the zone `{}` is not signed, as its parent proves", link.owner)
            });
            (Security::Insecure, says)
        }
        (_, Some(failed)) => (Security::Indeterminate, failed.clone()),
        _ if bare => {
            let says = "the server does not pass signatures on, so nothing can be checked".to_owned();
            (Security::Indeterminate, says)
        }
        (Proof::Indeterminate, None) => (Security::Indeterminate, "what is needed could not be had".to_owned()),
        (Proof::Bogus, None) => match links.iter().find(|link| !link.holds) {
            // A private root, or a server that knows no root: whose zones these are cannot be told with this anchor.
            Some(link) if link.owner == "." => {
                let says = format!("the root zone that this server knows is not the trust anchor's ({})", link.says);
                (Security::Indeterminate, says)
            }
            Some(link) => (Security::Bogus, format!("{} {}: {}", link.owner, link.rtype, link.says)),
            // What cannot be shown is not claimed.
            None => {
                let says = "every signature holds, but the proof of what does not exist could not be followed";
                (Security::Indeterminate, says.to_owned())
            }
        },
    };
    let questions = inner.heard.len();
    Validation { state, because, server: options.server.to_string(), chain: links, questions }
}

fn has_signatures(heard: &Heard) -> bool {
    let mut all = heard.message.answers.iter().chain(&heard.message.authorities);
    all.any(|record| record.record_type() == RecordType::RRSIG)
}

fn absolute(name: &DomainName) -> String {
    let text = name.to_string();
    if text.ends_with('.') { text } else { format!("{text}.") }
}

/// The weakest record decides.
fn judged(answer: Option<Result<DnsResponse, HickoryError>>) -> Proof {
    let weakest = |records: &[Record]| {
        records.iter().filter(|record| record.record_type() != RecordType::RRSIG).map(|record| record.proof).min()
    };
    match answer {
        Some(Ok(message)) => weakest(&message.answers)
            .or_else(|| weakest(&message.authorities))
            // A bare "no" that was let pass: the zone is known not to be signed.
            .unwrap_or(Proof::Insecure),
        Some(Err(HickoryError::Dns(DnsError::Nsec { proof, .. }))) => proof,
        Some(Err(_)) | None => Proof::Bogus,
    }
}

#[derive(Clone)]
struct Asking(Arc<Mutex<Inner>>);

struct Inner {
    wire: Tape,
    server: Server,
    patience: Duration,
    until: Instant,
    heard: Vec<Heard>,
    known: HashMap<(Name, RecordType), Vec<u8>>,
    /// Why the first question that got no answer did not.
    failed: Option<String>,
    /// A question was not answered at all: no more of them are waited for.
    silent: bool,
}

impl DnsHandle for Asking {
    type Response = Once<Ready<Result<DnsResponse, HickoryError>>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        once(ready(inner.answer(&request)))
    }
}

impl Asking {
    /// The questions that a validator can judge one by one: each alias on the way, then the records at its end. What
    /// an answer proves of the last name, the validator would look for at the first.
    fn by_way_of_aliases(&self, name: &Name, rtype: RecordType) -> Vec<(Name, RecordType)> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut questions: Vec<(Name, RecordType)> = Vec::new();
        let mut name = name.clone();
        while !matches!(rtype, RecordType::CNAME | RecordType::DNAME) && questions.len() < MOST_ALIASES {
            let Ok(message) = inner
                .known(&name, rtype)
                .and_then(|octets| DnsResponse::from_buffer(octets).map_err(|error| error.to_string()))
            else {
                break;
            };
            let alias = message.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if record.name == name => Some(target.0.clone()),
                _ => None,
            });
            let Some(target) = alias else { break };
            // The alias that follows from a DNAME has no signature of its own.
            let above = message.answers.iter().find(|record| record.record_type() == RecordType::DNAME);
            questions.push(match above.filter(|record| record.name.zone_of(&name)) {
                Some(record) => (record.name.clone(), RecordType::DNAME),
                None => (name, RecordType::CNAME),
            });
            name = target;
        }
        questions.push((name, rtype));
        questions
    }
}

impl Inner {
    /// The reply to a question, asked once.
    fn known(&mut self, name: &Name, rtype: RecordType) -> Result<Vec<u8>, String> {
        let name = name.to_lowercase();
        if let Some(octets) = self.known.get(&(name.clone(), rtype)) {
            return Ok(octets.clone());
        }
        self.ask(&name, rtype).inspect_err(|why| {
            self.failed.get_or_insert_with(|| format!("{} was asked for {name} {rtype}: {why}", self.server));
        })
    }

    fn answer(&mut self, request: &DnsRequest) -> Result<DnsResponse, HickoryError> {
        let query = request.queries.first().ok_or("no question")?;
        Ok(DnsResponse::from_buffer(self.known(query.name(), query.query_type())?)?)
    }

    fn ask(&mut self, name: &Name, rtype: RecordType) -> Result<Vec<u8>, String> {
        if self.heard.len() >= MOST_QUESTIONS || Instant::now() >= self.until {
            return Err("it would take too many questions".to_owned());
        }
        if self.silent {
            return Err("it left an earlier question without an answer".to_owned());
        }
        let question = Question {
            name: DomainName::parse(&name.to_ascii()).map_err(|error| error.to_string())?,
            rtype: RType(rtype.into()),
        };
        self.wire.last.clear();
        ask_for_validation(&mut self.wire, &self.server, &question, self.patience)
            .inspect_err(|_| self.silent = true)?;
        let octets = std::mem::take(&mut self.wire.last);
        let response = DnsResponse::from_buffer(octets.clone()).map_err(|error| error.to_string())?;
        match response.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            other => return Err(format!("the answer is {other}")),
        }
        self.heard.push(Heard { name: name.clone(), rtype, message: response.into_message() });
        self.known.insert((name.clone(), rtype), octets.clone());
        Ok(octets)
    }
}

/// A wire that keeps the last message, octet for octet, and its connections from question to question.
struct Tape {
    wire: SocketWire,
    last: Vec<u8>,
}

impl Wire for Tape {
    fn now(&mut self) -> Duration {
        self.wire.now()
    }

    fn random(&mut self) -> u16 {
        self.wire.random()
    }

    fn open(&mut self, server: &Server, transport: Transport, until: Duration) -> Result<(), NetError> {
        self.wire.open(server, transport, until)
    }

    fn send(&mut self, server: &Server, transport: Transport, message: &[u8]) -> Result<(), NetError> {
        let sent = self.wire.send(server, transport, message);
        if sent.is_err() {
            // A server may close a connection that it thinks has been quiet for too long.
            self.wire.close();
        }
        sent
    }

    fn receive(&mut self, server: &Server, transport: Transport, until: Duration) -> Result<Option<Vec<u8>>, NetError> {
        let message = self.wire.receive(server, transport, until);
        match &message {
            Ok(Some(octets)) => self.last.clone_from(octets),
            Ok(None) if transport == Transport::Udp => {}
            // A late answer would be taken for that to the next question.
            Ok(None) | Err(_) => self.wire.close(),
        }
        message
    }

    fn close(&mut self) {}

    fn module(&mut self, service: &str, name: &str, wanted: Option<RType>) -> ModuleAnswer {
        self.wire.module(service, name, wanted)
    }
}
