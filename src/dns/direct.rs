//! One server asked by itself, beside the resolver's own rules: what would it say?

use std::sync::Arc;
use std::time::Duration;

use super::message::{Manner, Message, Question, RType, Rcode};
use super::send::{Exchange, Outcome, why_ignored};
use super::wire::{NetError, NetErrorKind, Server, Transport, Wire};

/// Receive buffer told to servers: what the path can carry (the DNS flag day's figure of 2020).
const EDNS_SIZE: u16 = 1232;

/// What a server makes of DNSSEC for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dnssec {
    /// It has checked the signatures (AD), over a path that is as trustworthy as the way to it.
    Validated,
    /// There are signatures, and it has not checked them.
    SignedOnly,
    /// There are none.
    Unsigned,
    /// It refuses to answer, and answers when told not to check: the signatures are wrong.
    Bogus,
}

/// A server's word on one name.
#[derive(Debug, Clone)]
pub struct View {
    /// Whom.
    pub server: Server,
    /// The name asked for.
    pub name: String,
    /// What was sent and came back, the types in order; with retries.
    pub exchanges: Vec<Exchange>,
    /// The reply to each type that got one.
    pub replies: Vec<(RType, Arc<Message>)>,
    /// DNSSEC, where an answer came.
    pub dnssec: Option<Dnssec>,
    /// The server does not understand EDNS(0).
    pub no_edns: bool,
}

impl View {
    /// The first error code, or NOERROR.
    pub fn rcode(&self) -> Option<Rcode> {
        let codes: Vec<Rcode> = self.replies.iter().map(|(_, reply)| reply.rcode()).collect();
        codes.iter().copied().find(|code| *code != Rcode::NOERROR).or(codes.first().copied())
    }

    /// Why there is no answer at all.
    pub fn failure(&self) -> Option<String> {
        if !self.replies.is_empty() {
            return None;
        }
        self.exchanges.last().map(|exchange| match &exchange.outcome {
            Outcome::Net(error) => error.says.clone(),
            Outcome::Malformed(malformed) => format!("malformed answer: {malformed}"),
            _ => "no answer".to_owned(),
        })
    }

    /// The first answer's round trip.
    pub fn rtt(&self) -> Option<Duration> {
        self.exchanges.iter().find(|one| matches!(one.outcome, Outcome::Answer(_))).map(|one| one.took)
    }
}

/// Asks `server` for `name`, each of the types, at most `tries` times within `patience` each.
pub fn view<W: Wire>(
    wire: &mut W,
    server: &Server,
    question: &super::DomainName,
    types: &[RType],
    patience: Duration,
    tries: u32,
) -> View {
    let mut state = Asking { wire, server, patience, tries, log: Vec::new() };
    let mut view = View {
        server: server.clone(),
        name: question.to_string(),
        exchanges: Vec::new(),
        replies: Vec::new(),
        dnssec: None,
        no_edns: false,
    };
    let full = Manner { recurse: true, authentic: true, edns: Some(EDNS_SIZE), dnssec: true, ..Manner::default() };
    let plain = Manner { recurse: true, ..Manner::default() };
    let (mut authentic, mut signed, mut bogus) = (true, false, false);
    for rtype in types {
        let one = Question { name: question.clone(), rtype: *rtype };
        let manner = if view.no_edns { plain } else { full };
        let mut reply = state.ask(&one, manner);
        let odd = |reply: &Arc<Message>| {
            matches!(reply.header_rcode(), Rcode::FORMERR | Rcode::NOTIMP) && reply.edns.is_none()
        };
        if manner.edns.is_some() && reply.as_ref().is_some_and(odd) {
            view.no_edns = true;
            reply = state.ask(&one, plain);
        }
        let Some(reply) = reply else {
            // One that is silent to the first question is not asked a second.
            break;
        };
        if reply.rcode() == Rcode::SERVFAIL && !view.no_edns {
            let unchecked = Manner { unchecked: true, ..full };
            bogus |= state.ask(&one, unchecked).is_some_and(|again| again.rcode() != Rcode::SERVFAIL);
        }
        authentic &= reply.authentic();
        signed |= reply.answers.iter().chain(&reply.authorities).any(|record| record.rtype == RType::RRSIG);
        view.replies.push((*rtype, reply));
    }
    view.dnssec = (!view.replies.is_empty()).then_some(match (bogus, authentic, signed) {
        (true, _, _) => Dnssec::Bogus,
        (_, true, _) => Dnssec::Validated,
        (_, _, true) => Dnssec::SignedOnly,
        _ => Dnssec::Unsigned,
    });
    view.exchanges = state.log;
    state.wire.close();
    view
}

/// One question to one server, as [`view()`] asks it; for iteration, without recursion.
pub(super) fn ask_once<W: Wire>(
    wire: &mut W,
    server: &Server,
    question: &Question,
    manner: Manner,
    patience: Duration,
    tries: u32,
) -> (Option<Arc<Message>>, Vec<Exchange>) {
    let mut state = Asking { wire, server, patience, tries, log: Vec::new() };
    let reply = state.ask(question, manner);
    let log = state.log;
    wire.close();
    (reply, log)
}

/// One question as a validator asks it: with all signatures, and without the server's own checks, which would
/// keep a wrong answer from us. The reply is what the wire received last.
///
/// # Errors
/// Why there is none, in words.
pub fn ask_for_validation<W: Wire>(
    wire: &mut W,
    server: &Server,
    question: &Question,
    patience: Duration,
) -> Result<(), String> {
    let manner = Manner { recurse: true, unchecked: true, edns: Some(EDNS_SIZE), dnssec: true, ..Manner::default() };
    let (reply, log) = ask_once(wire, server, question, manner, patience, 2);
    if reply.is_some() {
        return Ok(());
    }
    Err(log.last().map_or("no answer".to_owned(), |exchange| match &exchange.outcome {
        Outcome::Net(error) => error.says.clone(),
        Outcome::Malformed(malformed) => format!("malformed answer: {malformed}"),
        _ => "no answer".to_owned(),
    }))
}

struct Asking<'a, W: Wire> {
    wire: &'a mut W,
    server: &'a Server,
    patience: Duration,
    tries: u32,
    log: Vec<Exchange>,
}

impl<W: Wire> Asking<'_, W> {
    fn ask(&mut self, question: &Question, manner: Manner) -> Option<Arc<Message>> {
        let id = self.wire.random();
        let octets = question.encode(id, manner);
        let mut transport = self.server.transport;
        let mut round = 0;
        while round < self.tries {
            round += 1;
            let outcome = self.once(question, id, &octets, transport, round);
            match outcome {
                Outcome::Answer(reply) => return Some(reply),
                Outcome::Truncated(_) => {
                    transport = Transport::Tcp;
                    round -= 1;
                    self.tries = self.tries.min(round + 1);
                }
                Outcome::Net(NetError { kind: NetErrorKind::Interrupted | NetErrorKind::Family, .. }) => return None,
                // Over a stream the kernel has tried again already.
                _ if transport != Transport::Udp => return None,
                _ => {}
            }
        }
        None
    }

    fn once(&mut self, question: &Question, id: u16, octets: &[u8], transport: Transport, round: u32) -> Outcome {
        let begun = self.wire.now();
        let mut ignored = Vec::new();
        let outcome = self.exchange(question, id, octets, transport, &mut ignored);
        let took = self.wire.now().saturating_sub(begun);
        self.log.push(Exchange {
            question: question.clone(),
            server: self.server.clone(),
            transport,
            round,
            outcome: outcome.clone(),
            took,
            sent_at: begun,
            ignored,
        });
        if !matches!(outcome, Outcome::Answer(_)) && transport != Transport::Udp {
            self.wire.close();
        }
        outcome
    }

    fn exchange(
        &mut self,
        question: &Question,
        id: u16,
        octets: &[u8],
        transport: Transport,
        ignored: &mut Vec<String>,
    ) -> Outcome {
        // A handshake takes its time too.
        let allowed = if transport == Transport::Udp { self.patience } else { self.patience * 2 };
        let until = self.wire.now() + allowed;
        let sent =
            self.wire.open(self.server, transport, until).and_then(|()| self.wire.send(self.server, transport, octets));
        if let Err(error) = sent {
            return Outcome::Net(error);
        }
        loop {
            let octets = match self.wire.receive(self.server, transport, until) {
                Ok(Some(octets)) => octets,
                Ok(None) => return Outcome::Timeout,
                Err(error) => return Outcome::Net(error),
            };
            let message = match Message::parse(&octets) {
                Ok(message) => Arc::new(message),
                Err(malformed) => return Outcome::Malformed(malformed),
            };
            let bare_error = message.id == id && message.counts[0] == 0 && message.rcode() != Rcode::NOERROR;
            let unread = message.id == id && message.questions.is_empty() && message.malformed.is_some();
            if message.is_reply() && (message.answers_to(id, question) || bare_error || unread) {
                return if message.truncated() && transport == Transport::Udp {
                    Outcome::Truncated(message)
                } else {
                    Outcome::Answer(message)
                };
            }
            if ignored.len() < 20 {
                ignored.push(why_ignored(&message, std::iter::once((id, question))));
            }
        }
    }
}
