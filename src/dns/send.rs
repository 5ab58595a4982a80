//! Getting an answer from the configured servers, as glibc's `__res_context_send` does it
//! (resolv/res_send.c): one server after the other, in rounds, A and AAAA together.

use std::sync::Arc;
use std::time::Duration;

use super::conf::Conf;
use super::message::{Malformed, Manner, Message, Question, Rcode};
use super::wire::{NetError, NetErrorKind, Server, Transport, Wire};

/// glibc waits without limit for a connection and for what comes over it; here nobody waits longer than this.
pub const STREAM_PATIENCE: Duration = Duration::from_secs(30);
/// `RESOLV_EDNS_BUFFER_SIZE`.
const EDNS_SIZE: u16 = 1200;

/// One question to one server, and what came of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// What was asked.
    pub question: Question,
    /// Whom.
    pub server: Server,
    /// How.
    pub transport: Transport,
    /// The round over all servers, from 1.
    pub round: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// From the sending to the end.
    pub took: Duration,
    /// When it was sent.
    pub sent_at: Duration,
    /// What arrived and was thrown away, and why.
    pub ignored: Vec<String>,
}

/// How a question to a server ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// With an answer that counts.
    Answer(Arc<Message>),
    /// With one that makes glibc turn to the next server: what it is.
    PassedOver(Arc<Message>, &'static str),
    /// With "there is more than fits": asked again by TCP.
    Truncated(Arc<Message>),
    /// Nothing came in time.
    Timeout,
    /// The system reported an error.
    Net(NetError),
    /// What came was too short to be a message.
    Malformed(Malformed),
    /// Given up because the other question's end decided.
    Abandoned,
}

impl Outcome {
    /// The message, where one came.
    pub fn message(&self) -> Option<&Arc<Message>> {
        match self {
            Self::Answer(message) | Self::PassedOver(message, _) | Self::Truncated(message) => Some(message),
            _ => None,
        }
    }
}

/// `errno` as far as glibc looks at it afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errno {
    None,
    ConnRefused,
    TimedOut,
    Other,
}

/// What the two answer buffers hold.
#[derive(Debug, Clone)]
pub(super) struct Replies {
    pub(super) first: Option<Arc<Message>>,
    pub(super) second: Option<Arc<Message>>,
}

enum Turn {
    Next,
    ByTcp,
    Done(Replies),
    Fatal,
}

/// The state that lives through one lookup.
pub(super) struct Sender<'a, W: Wire> {
    pub(super) wire: &'a mut W,
    pub(super) conf: &'a Conf,
    pub(super) log: Vec<Exchange>,
    pub(super) errno: Errno,
    /// The code in the first answer buffer's header, which stays there after a failure.
    pub(super) buffer_rcode: Rcode,
    pub(super) interrupted: bool,
    single: bool,
    reopen: bool,
    rotation: usize,
    rotated: bool,
    got_somewhere: bool,
    stream_error: Errno,
}

impl<'a, W: Wire> Sender<'a, W> {
    pub(super) fn new(wire: &'a mut W, conf: &'a Conf) -> Self {
        let options = conf.options();
        Self {
            wire,
            conf,
            log: Vec::new(),
            errno: Errno::None,
            buffer_rcode: Rcode::NOERROR,
            interrupted: false,
            single: options.single_request || options.single_request_reopen,
            reopen: options.single_request_reopen,
            rotation: 0,
            rotated: false,
            got_somewhere: false,
            stream_error: Errno::TimedOut,
        }
    }

    /// Asks the servers until one answers. `None` is the failure that [`Self::errno`] tells of.
    pub(super) fn send(&mut self, questions: &[Question]) -> Option<Replies> {
        let options = self.conf.options().clone();
        let manner = Manner {
            recurse: true,
            authentic: options.trust_ad,
            edns: options.edns0.then_some(EDNS_SIZE),
            ..Manner::default()
        };
        let asked: Vec<Asked> = questions
            .iter()
            .map(|question| {
                let id = self.wire.random();
                Asked { question: question.clone(), id, octets: question.encode(id, manner) }
            })
            .collect();
        let servers = self.conf.servers.len();
        self.got_somewhere = false;
        self.stream_error = Errno::TimedOut;
        let mut stream = options.use_vc;
        let offset = self.offset(servers);
        let mut round = 0;
        while round < options.attempts {
            round += 1;
            let this_round = round;
            for shift in 0..servers {
                let index = (shift + offset) % servers;
                let mut turn = Turn::ByTcp;
                if !stream {
                    turn = self.datagrams(index, &asked, this_round);
                }
                if matches!(turn, Turn::ByTcp) {
                    // At most one attempt per server from here on.
                    stream = true;
                    round = options.attempts;
                    turn = self.stream(index, &asked, this_round);
                }
                match turn {
                    Turn::Done(replies) => {
                        self.wire.close();
                        return Some(replies);
                    }
                    Turn::Fatal => return None,
                    Turn::Next | Turn::ByTcp => {}
                }
            }
        }
        self.wire.close();
        self.errno = match (stream, self.got_somewhere) {
            (true, _) => self.stream_error,
            (false, true) => Errno::TimedOut,
            (false, false) => Errno::ConnRefused,
        };
        None
    }

    /// `rotate`: begins anywhere, and goes on from there.
    fn offset(&mut self, servers: usize) -> usize {
        if servers <= 1 || !self.conf.options().rotate {
            return 0;
        }
        if self.rotated {
            self.rotation += 1;
        } else {
            self.rotation = usize::from(self.wire.random());
            self.rotated = true;
        }
        self.rotation % servers
    }

    /// How long a server is given: `timeout`, doubled with each place in the list, shared by all (`send_dg`).
    fn patience(&self, index: usize) -> Duration {
        patience(self.conf.options().timeout, index, self.conf.servers.len())
    }

    /// `send_dg`.
    fn datagrams(&mut self, index: usize, asked: &[Asked], round: u32) -> Turn {
        let server = self.conf.servers[index].clone();
        let two = asked.len() == 2;
        let saved = self.got_somewhere;
        let seconds = self.patience(index);
        let mut first: Option<Arc<Message>> = None;
        'again: loop {
            let now = self.wire.now();
            if let Err(error) = self.wire.open(&server, Transport::Udp, now + seconds) {
                self.failed(&server, Transport::Udp, asked, round, &error);
                return if error.kind == NetErrorKind::Family { self.fatal() } else { Turn::Next };
            }
            let finish = self.wire.now() + seconds;
            let mut got = [false, !two];
            let mut open = [None; 2];
            let at_once = if two && !self.single { 2 } else { 1 };
            let mut written = 0;
            while written < at_once {
                if let Err(error) = self.wire.send(&server, Transport::Udp, &asked[written].octets) {
                    self.end_all(&open, &Outcome::Net(error.clone()));
                    self.failed(&server, Transport::Udp, &asked[written..at_once], round, &error);
                    return self.give_up(&[None; 2]);
                }
                open[written] = Some(self.begin(&server, Transport::Udp, &asked[written], round));
                written += 1;
            }
            let mut second: Option<Arc<Message>> = None;
            loop {
                let octets = match self.wire.receive(&server, Transport::Udp, finish) {
                    Ok(Some(octets)) => octets,
                    Ok(None) => {
                        self.end_all(&open, &Outcome::Timeout);
                        if first.is_some() && (got[0] || (two && got[1])) {
                            if !self.single {
                                // Some servers and firewalls drop the second of two questions from one port.
                                self.single = true;
                                self.got_somewhere = saved;
                                continue 'again;
                            }
                            if !self.reopen {
                                self.reopen = true;
                                self.got_somewhere = saved;
                                self.wire.close();
                                continue 'again;
                            }
                            return Turn::Done(Replies { first, second: None });
                        }
                        self.got_somewhere = true;
                        return Turn::Next;
                    }
                    Err(error) => {
                        if error.kind == NetErrorKind::Interrupted {
                            self.interrupted = true;
                            self.end_all(&open, &Outcome::Net(error));
                            return self.fatal();
                        }
                        self.end_all(&open, &Outcome::Net(error));
                        return self.give_up(&[None; 2]);
                    }
                };
                self.got_somewhere = true;
                self.errno = Errno::None;
                let message = match Message::parse(&octets) {
                    Ok(message) => Arc::new(message),
                    Err(malformed) => {
                        self.end_all(&open, &Outcome::Malformed(malformed));
                        return self.give_up(&[None; 2]);
                    }
                };
                let to_first = !got[0] && (!two || !got[1]);
                if to_first {
                    self.buffer_rcode = message.header_rcode();
                }
                let Some(which) = (0..asked.len()).rfind(|which| !got[*which] && asked[*which].matched_by(&message))
                else {
                    self.ignore(&open, &message, asked);
                    continue;
                };
                if let Some(why) = passed_over(&message) {
                    self.end(open[which].take(), Outcome::PassedOver(message, why));
                    if got[0] || (two && got[1]) {
                        self.end_all(&open, &Outcome::Abandoned);
                        return match first {
                            Some(_) => Turn::Done(Replies { first, second: None }),
                            None => Turn::Next,
                        };
                    }
                    if two && !self.single {
                        first = None;
                        got[which] = true;
                        continue;
                    }
                    return self.give_up(&open);
                }
                if message.truncated() {
                    self.end(open[which].take(), Outcome::Truncated(message));
                    self.end_all(&open, &Outcome::Abandoned);
                    self.wire.close();
                    return Turn::ByTcp;
                }
                self.end(open[which].take(), Outcome::Answer(Arc::clone(&message)));
                got[which] = true;
                if to_first {
                    first = Some(message);
                } else {
                    second = Some(message);
                }
                if got == [true; 2] {
                    return Turn::Done(Replies { first, second });
                }
                if self.single {
                    if self.reopen {
                        self.wire.close();
                        let now = self.wire.now();
                        if let Err(error) = self.wire.open(&server, Transport::Udp, now + seconds) {
                            self.failed(&server, Transport::Udp, &asked[1..], round, &error);
                            return Turn::Next;
                        }
                    }
                    if let Err(error) = self.wire.send(&server, Transport::Udp, &asked[1].octets) {
                        self.failed(&server, Transport::Udp, &asked[1..], round, &error);
                        return self.give_up(&[None; 2]);
                    }
                    open[1] = Some(self.begin(&server, Transport::Udp, &asked[1], round));
                }
            }
        }
    }

    /// `send_vc`: both questions at once over one connection; whatever comes counts.
    fn stream(&mut self, index: usize, asked: &[Asked], round: u32) -> Turn {
        let server = self.conf.servers[index].clone();
        let mut reset = false;
        loop {
            let until = self.wire.now() + STREAM_PATIENCE;
            if let Err(error) = self.wire.open(&server, Transport::Tcp, until) {
                self.failed(&server, Transport::Tcp, asked, round, &error);
                return self.stream_failed(&error);
            }
            let octets: Vec<&[u8]> = asked.iter().map(|one| one.octets.as_slice()).collect();
            let mut open = [None; 2];
            for (at, one) in asked.iter().enumerate() {
                open[at] = Some(self.begin(&server, Transport::Tcp, one, round));
            }
            for message in octets {
                if let Err(error) = self.wire.send(&server, Transport::Tcp, message) {
                    self.end_all(&open, &Outcome::Net(error.clone()));
                    return self.stream_failed(&error);
                }
            }
            let mut replies = Replies { first: None, second: None };
            let mut got = [false, asked.len() < 2];
            let error = loop {
                let octets = match self.wire.receive(&server, Transport::Tcp, until) {
                    Ok(Some(octets)) => octets,
                    Ok(None) => {
                        let says = format!("nothing came in {} s (glibc waits on)", STREAM_PATIENCE.as_secs());
                        break NetError::new(NetErrorKind::TimedOut, says);
                    }
                    Err(error) => break error,
                };
                let message = match Message::parse(&octets) {
                    Ok(message) => Arc::new(message),
                    Err(malformed) => {
                        self.end_all(&open, &Outcome::Malformed(malformed.clone()));
                        return self.stream_failed(&NetError::new(NetErrorKind::Other, malformed.to_string()));
                    }
                };
                let Some(which) = (0..asked.len()).find(|which| !got[*which] && asked[*which].id == message.id) else {
                    self.ignore(&open, &message, asked);
                    continue;
                };
                got[which] = true;
                self.end(open[which].take(), Outcome::Answer(Arc::clone(&message)));
                if replies.first.is_none() {
                    self.buffer_rcode = message.header_rcode();
                    replies.first = Some(message);
                } else {
                    replies.second = Some(message);
                }
                if got == [true; 2] {
                    return Turn::Done(replies);
                }
            };
            self.end_all(&open, &Outcome::Net(error.clone()));
            self.wire.close();
            if error.kind == NetErrorKind::Interrupted {
                self.interrupted = true;
                return self.fatal();
            }
            if error.kind != NetErrorKind::Reset || reset {
                return self.stream_failed(&error);
            }
            reset = true;
        }
    }

    fn stream_failed(&mut self, error: &NetError) -> Turn {
        self.wire.close();
        self.stream_error = match error.kind {
            NetErrorKind::Refused => Errno::ConnRefused,
            NetErrorKind::TimedOut => Errno::TimedOut,
            NetErrorKind::Closed => Errno::None,
            _ => Errno::Other,
        };
        Turn::Next
    }

    fn fatal(&mut self) -> Turn {
        self.errno = Errno::Other;
        Turn::Fatal
    }

    fn give_up(&mut self, open: &[Option<usize>; 2]) -> Turn {
        self.end_all(open, &Outcome::Abandoned);
        self.wire.close();
        Turn::Next
    }

    fn begin(&mut self, server: &Server, transport: Transport, asked: &Asked, round: u32) -> usize {
        self.log.push(Exchange {
            question: asked.question.clone(),
            server: server.clone(),
            transport,
            round,
            outcome: Outcome::Abandoned,
            took: Duration::ZERO,
            sent_at: self.wire.now(),
            ignored: Vec::new(),
        });
        self.log.len() - 1
    }

    fn end(&mut self, entry: Option<usize>, outcome: Outcome) {
        let now = self.wire.now();
        if let Some(exchange) = entry.and_then(|entry| self.log.get_mut(entry)) {
            exchange.outcome = outcome;
            exchange.took = now.saturating_sub(exchange.sent_at);
        }
    }

    fn end_all(&mut self, open: &[Option<usize>; 2], outcome: &Outcome) {
        for entry in open.iter().flatten() {
            // One that has ended keeps its end.
            if matches!(self.log.get(*entry).map(|one| &one.outcome), Some(Outcome::Abandoned)) {
                self.end(Some(*entry), outcome.clone());
            }
        }
    }

    fn failed(&mut self, server: &Server, transport: Transport, asked: &[Asked], round: u32, error: &NetError) {
        for one in asked {
            let entry = self.begin(server, transport, one, round);
            self.end(Some(entry), Outcome::Net(error.clone()));
        }
    }

    fn ignore(&mut self, open: &[Option<usize>; 2], message: &Message, asked: &[Asked]) {
        let why = why_ignored(message, asked.iter().map(|one| (one.id, &one.question)));
        if let Some(exchange) = open.iter().flatten().next().and_then(|entry| self.log.get_mut(*entry)) {
            // A flood of forged answers is told of, not kept.
            if exchange.ignored.len() < 20 {
                exchange.ignored.push(why);
            }
        }
    }
}

/// How long glibc gives the server at `index` of `count`.
pub fn patience(timeout: u32, index: usize, count: usize) -> Duration {
    let shift = u32::try_from(index).unwrap_or(0).min(8);
    let mut seconds = u64::from(timeout) << shift;
    if index > 0 {
        seconds /= count.max(1) as u64;
    }
    Duration::from_secs(seconds.max(1))
}

/// Why a message is no answer to what was asked.
pub(super) fn why_ignored<'q>(message: &Message, asked: impl Iterator<Item = (u16, &'q Question)>) -> String {
    let asked: Vec<_> = asked.collect();
    if !asked.iter().any(|(id, _)| *id == message.id) {
        return format!("an answer with the number {:#06x}, which was not asked with: late or forged", message.id);
    }
    match message.questions.first() {
        Some(question) => format!("an answer to {} {}, which was not asked", question.name, question.rtype),
        None => "an answer that does not repeat the question".to_owned(),
    }
}

/// Why glibc asks the next server in spite of an answer.
fn passed_over(message: &Message) -> Option<&'static str> {
    match message.header_rcode() {
        Rcode::SERVFAIL => Some("SERVFAIL"),
        Rcode::NOTIMP => Some("NOTIMP"),
        Rcode::REFUSED => Some("REFUSED"),
        Rcode::NOERROR
            if message.counts[1] == 0
                && !message.authoritative()
                && !message.recursion_available()
                && message.counts[3] == 0 =>
        {
            Some("lame")
        }
        _ => None,
    }
}

struct Asked {
    question: Question,
    id: u16,
    octets: Vec<u8>,
}

impl Asked {
    /// The test of `send_dg`: glibc looks at the number and the question, and lets errors without a
    /// question pass; it neither asks whether the message is a reply nor from where it came (the socket is
    /// connected).
    fn matched_by(&self, message: &Message) -> bool {
        let bare = message.size == 12
            && message.counts[0] == 0
            && matches!(message.header_rcode(), Rcode::SERVFAIL | Rcode::NOTIMP | Rcode::REFUSED);
        // A question section that cannot be read counts as the right one.
        let unread = message.counts[0] == 1 && message.questions.is_empty();
        message.id == self.id && (bare || unread || message.answers_to(self.id, &self.question))
    }
}
