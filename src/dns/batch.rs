//! Many names at once: the same files, servers and search list as for one, with many questions under way.
//!
//! The engine has no socket and no clock: it says what to send and is told what came. Answers come in the
//! order of the servers, not in that of RFC 6724, and modules other than `files` and `dns` are not asked.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::conf::Conf;
use super::lookup::{Family, literal};
use super::message::{Data, Manner, Message, Question, RType, Rcode};
use super::name::DomainName;

/// Questions under way at the beginning: what a server's socket buffer holds.
const WINDOW: usize = 200;
/// And at the most, where the way is long.
const LARGEST_WINDOW: usize = 2000;
/// A round trip that makes more questions worth while.
const LONG_WAY: Duration = Duration::from_millis(5);
/// A question is not repeated sooner.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// How a name ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With answers.
    Found,
    /// The servers say no: `NXDOMAIN`, `NODATA`, `SERVFAIL`, …
    Said(String),
    /// Nobody answered in time.
    Timeout,
    /// There is no such name.
    BadName(String),
    /// The answer does not fit into a datagram: to be asked again by TCP, of this server.
    Truncated(usize),
}

/// One answer to a name of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The address or what else the record says.
    pub data: Data,
    /// Its TTL; `None` from the hosts file.
    pub ttl: Option<u32>,
    /// The hosts file's line.
    pub line: Option<usize>,
}

/// A name that is done.
#[derive(Debug, Clone)]
pub struct BatchResult {
    /// Its place in the input, from 0.
    pub index: usize,
    /// As given.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// What was found.
    pub answers: Vec<BatchAnswer>,
    /// Index of the server that said so.
    pub server: Option<usize>,
    /// From the first question to the end.
    pub took: Duration,
    /// The name that was asked for last.
    pub asked: Option<DomainName>,
}

/// A datagram to be sent.
#[derive(Debug)]
pub struct Datagram {
    /// To which of the servers.
    pub server: usize,
    /// What.
    pub octets: Vec<u8>,
}

struct Job {
    index: usize,
    name: String,
    candidates: Vec<DomainName>,
    at: usize,
    open: usize,
    began: Duration,
    answers: Vec<BatchAnswer>,
    server: Option<usize>,
    worst: Option<Ending>,
    absent: bool,
}

struct Flight {
    job: usize,
    question: Question,
    tries: usize,
    sent: Duration,
}

/// The engine.
pub struct Batch<'a> {
    conf: &'a Conf,
    servers: usize,
    types: Vec<RType>,
    patience: Duration,
    tries: usize,
    hosts: HashMap<String, Vec<(usize, IpAddr)>>,
    jobs: Vec<Option<Job>>,
    free: Vec<usize>,
    flights: Vec<Vec<Option<Box<Flight>>>>,
    under_way: usize,
    deadlines: BinaryHeap<Reverse<(Duration, usize, u16, Duration)>>,
    window: usize,
    /// Smoothed, and the shortest seen: a queue makes the one long, the way the other.
    round_trip: Option<(Duration, Duration)>,
    dice: u64,
    outbox: Vec<Datagram>,
    done: Vec<BatchResult>,
}

impl<'a> Batch<'a> {
    /// An engine for `servers` servers. `seed` makes the question numbers, which must not be guessed.
    pub fn new(conf: &'a Conf, servers: usize, types: Vec<RType>, patience: Duration, seed: u64) -> Self {
        let mut hosts: HashMap<String, Vec<(usize, IpAddr)>> = HashMap::new();
        let files_first =
            conf.services.iter().take_while(|service| service.name != "dns").any(|one| one.name == "files");
        let wanted = |address: IpAddr| types.contains(&if address.is_ipv4() { RType::A } else { RType::AAAA });
        for entry in conf.hosts.iter().filter(|_| files_first).flat_map(|file| &file.entries) {
            for name in std::iter::once(&entry.name).chain(&entry.aliases).filter(|_| wanted(entry.address)) {
                let own = hosts.entry(name.to_ascii_lowercase()).or_default();
                if conf.multi || own.is_empty() {
                    own.push((entry.line, entry.address));
                }
            }
        }
        Self {
            conf,
            servers,
            types,
            patience,
            tries: servers.max(1) * 4,
            hosts,
            jobs: Vec::new(),
            free: Vec::new(),
            flights: (0..servers).map(|_| std::iter::repeat_with(|| None).take(1 << 16).collect()).collect(),
            under_way: 0,
            deadlines: BinaryHeap::new(),
            window: WINDOW,
            round_trip: None,
            dice: seed | 1,
            outbox: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Whether another name may begin.
    pub fn has_room(&self) -> bool {
        self.under_way + self.types.len() <= self.window
    }

    /// Whether questions are under way.
    pub const fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// Begins with a name.
    pub fn begin(&mut self, index: usize, name: &str, now: Duration) {
        let result = |ending, answers| BatchResult {
            index,
            name: name.to_owned(),
            ending,
            answers,
            server: None,
            took: Duration::ZERO,
            asked: None,
        };
        if let Some(Ok(address)) = literal(name, Family::Any) {
            let answer = BatchAnswer { data: Data::Address(address), ttl: None, line: None };
            self.done.push(result(Ending::Found, vec![answer]));
            return;
        }
        if let Some(lines) = self.hosts.get(&name.to_ascii_lowercase()) {
            let answer = |(line, address): &(usize, IpAddr)| BatchAnswer {
                data: Data::Address(*address),
                ttl: None,
                line: Some(*line),
            };
            let answers = lines.iter().map(answer).collect();
            self.done.push(result(Ending::Found, answers));
            return;
        }
        let candidates: Vec<DomainName> =
            candidates(self.conf, name).iter().filter_map(|name| DomainName::parse(name).ok()).collect();
        if candidates.is_empty() || self.servers == 0 {
            let why = DomainName::parse(name).err().map_or_else(String::new, |error| error.to_string());
            self.done.push(result(Ending::BadName(why), Vec::new()));
            return;
        }
        let job = Job {
            index,
            name: name.to_owned(),
            candidates,
            at: 0,
            open: 0,
            began: now,
            answers: Vec::new(),
            server: None,
            worst: None,
            absent: false,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        self.jobs[slot] = Some(job);
        self.ask_candidate(slot, now);
    }

    /// What is to be sent now.
    pub fn take_outbox(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.outbox)
    }

    /// The names that are done.
    pub fn take_done(&mut self) -> Vec<BatchResult> {
        std::mem::take(&mut self.done)
    }

    /// When something is given up next.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadlines.peek().map(|Reverse((deadline, ..))| *deadline)
    }

    /// A datagram came from a server.
    pub fn receive(&mut self, server: usize, octets: &[u8], now: Duration) {
        let Some(id) = octets.first_chunk::<2>().map(|two| u16::from_be_bytes(*two)) else { return };
        let slot = self.flights.get_mut(server).and_then(|flights| flights.get_mut(usize::from(id)));
        let Some(slot) = slot.filter(|slot| slot.is_some()) else { return };
        let Ok(message) = Message::parse(octets) else { return };
        let answers = slot.as_ref().is_some_and(|flight| {
            let bare = message.counts[0] == 0 && message.rcode() != Rcode::NOERROR;
            message.is_reply() && (bare || message.answers_to(id, &flight.question))
        });
        if !answers {
            // Forged, late or broken: the right one may still come.
            return;
        }
        let Some(flight) = slot.take() else { return };
        self.under_way -= 1;
        let took = now.saturating_sub(flight.sent);
        let (smooth, shortest) = self.round_trip.unwrap_or((took, took));
        let shortest = shortest.min(took);
        self.round_trip = Some(((smooth * 7 + took) / 8, shortest));
        if shortest > LONG_WAY && self.window < LARGEST_WINDOW {
            self.window += 1;
        }
        self.settle(*flight, server, &message, now);
    }

    /// The time is `now`: gives up what has waited too long.
    pub fn tick(&mut self, now: Duration) {
        while let Some(Reverse((deadline, server, id, sent))) = self.deadlines.peek().copied() {
            if deadline > now {
                return;
            }
            self.deadlines.pop();
            let slot = &mut self.flights[server][usize::from(id)];
            // The number may have been used again since.
            if slot.as_ref().is_none_or(|flight| flight.sent != sent) {
                continue;
            }
            let Some(flight) = slot.take() else { continue };
            self.under_way -= 1;
            self.window = (self.window * 3 / 4).max(16);
            self.again(*flight, server, Ending::Timeout, now);
        }
    }

    /// A server cannot be sent to: what was to go there has failed.
    pub fn refused(&mut self, server: usize, now: Duration) {
        let failed: Vec<usize> =
            (0..self.flights[server].len()).filter(|id| self.flights[server][*id].is_some()).collect();
        for id in failed {
            if let Some(flight) = self.flights[server][id].take() {
                self.under_way -= 1;
                self.again(*flight, server, Ending::Said("refused".to_owned()), now);
            }
        }
    }

    fn ask_candidate(&mut self, slot: usize, now: Duration) {
        let Some(name) = self.jobs[slot].as_ref().and_then(|job| job.candidates.get(job.at)).cloned() else { return };
        if let Some(job) = &mut self.jobs[slot] {
            job.open = self.types.len();
            job.absent = false;
        }
        for rtype in self.types.clone() {
            let question = Question { name: name.clone(), rtype };
            self.fly(Flight { job: slot, question, tries: 0, sent: now }, 0, now);
        }
    }

    fn fly(&mut self, mut flight: Flight, server: usize, now: Duration) {
        let mut id = self.number();
        while self.flights[server][usize::from(id)].is_some() {
            id = id.wrapping_add(1);
        }
        flight.sent = now;
        let manner = Manner { recurse: true, edns: self.conf.options().edns0.then_some(1232), ..Manner::default() };
        self.outbox.push(Datagram { server, octets: flight.question.encode(id, manner) });
        self.deadlines.push(Reverse((now + self.wait(flight.tries), server, id, now)));
        self.flights[server][usize::from(id)] = Some(Box::new(flight));
        self.under_way += 1;
    }

    /// Most of what is lost is lost on the way, so that the first repetition need not wait for long.
    fn wait(&self, tries: usize) -> Duration {
        match self.round_trip {
            Some((smooth, _)) if tries == 0 => (smooth * 8).clamp(SHORTEST_WAIT.min(self.patience), self.patience),
            _ => self.patience,
        }
    }

    /// xorshift64*.
    fn number(&mut self) -> u16 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        u16::try_from(self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 48).unwrap_or(0)
    }

    fn again(&mut self, mut flight: Flight, server: usize, why: Ending, now: Duration) {
        flight.tries += 1;
        // Each server has two chances to be heard; one that answers with an error has had its say.
        let same = why == Ending::Timeout && flight.tries % 2 == 1;
        if flight.tries < self.tries {
            self.fly(flight, if same { server } else { (server + 1) % self.servers }, now);
        } else {
            self.close(flight.job, Some(why), server, now);
        }
    }

    fn settle(&mut self, flight: Flight, server: usize, message: &Message, now: Duration) {
        let rcode = message.rcode();
        if matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED | Rcode::NOTIMP) {
            // Once at each server is enough.
            let mut flight = flight;
            if flight.tries + 1 >= self.servers {
                flight.tries = self.tries;
            }
            self.again(flight, server, Ending::Said(rcode.to_string()), now);
            return;
        }
        if message.truncated() {
            self.close(flight.job, Some(Ending::Truncated(server)), server, now);
            return;
        }
        let any = flight.question.rtype == RType(255);
        let Some(job) = self.jobs.get_mut(flight.job).and_then(Option::as_mut) else { return };
        let before = job.answers.len();
        let wanted = message.answers.iter().filter(|record| record.rtype == flight.question.rtype || any);
        job.answers.extend(wanted.map(|record| BatchAnswer {
            data: record.data.clone(),
            ttl: Some(record.ttl),
            line: None,
        }));
        if job.answers.len() > before {
            job.server = Some(server);
        } else if rcode == Rcode::NXDOMAIN {
            job.absent = true;
        }
        let odd = !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN);
        self.close(flight.job, odd.then(|| Ending::Said(rcode.to_string())), server, now);
    }

    /// One question of a name has ended; with the last one the name has, or the next candidate begins.
    fn close(&mut self, slot: usize, failed: Option<Ending>, server: usize, now: Duration) {
        let Some(job) = self.jobs.get_mut(slot).and_then(Option::as_mut) else { return };
        job.open -= 1;
        job.server = job.server.or(Some(server));
        if let Some(failed) = failed {
            job.worst = Some(failed);
        }
        if job.open > 0 {
            return;
        }
        let more = job.at + 1 < job.candidates.len();
        let failed_hard = matches!(job.worst, Some(Ending::Timeout | Ending::Truncated(_)));
        if job.answers.is_empty() && more && !failed_hard {
            job.at += 1;
            self.ask_candidate(slot, now);
            return;
        }
        let Some(job) = self.jobs[slot].take() else { return };
        self.free.push(slot);
        let ending = match job.worst {
            Some(Ending::Truncated(server)) => Ending::Truncated(server),
            _ if !job.answers.is_empty() => Ending::Found,
            Some(worst) => worst,
            None => Ending::Said(if job.absent { "NXDOMAIN" } else { "NODATA" }.to_owned()),
        };
        self.done.push(BatchResult {
            index: job.index,
            name: job.name,
            ending,
            answers: job.answers,
            server: job.server,
            took: now.saturating_sub(job.began),
            asked: job.candidates.get(job.at).cloned(),
        });
    }
}

/// The names that are asked for, in order.
fn candidates(conf: &Conf, name: &str) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let dots = u32::try_from(name.matches('.').count()).unwrap_or(u32::MAX);
    let first = dots >= conf.options().ndots;
    let mut list: Vec<String> = first.then(|| name.to_owned()).into_iter().collect();
    list.extend(conf.search.iter().map(|suffix| format!("{name}.{}", suffix.strip_prefix('.').unwrap_or(suffix))));
    let barred = dots == 0 && conf.options().no_tld_query && !conf.search.is_empty();
    if !first && !barred {
        list.push(name.to_owned());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ResolverFacts;

    fn conf(resolv: &str) -> Conf {
        let mut facts = ResolverFacts::default();
        facts.names.resolv_conf.text = Some(resolv.to_owned());
        facts.names.hosts.text = Some("10.0.0.1 known.lab\n".to_owned());
        Conf::read(&facts, None)
    }

    fn reply(datagram: &Datagram, rcode: u16, address: Option<[u8; 4]>) -> Vec<u8> {
        let mut octets = datagram.octets.clone();
        octets[2] |= 0x80;
        octets[3] = u8::try_from(rcode).unwrap();
        if let Some(address) = address {
            octets[7] = 1;
            octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            octets.extend_from_slice(&address);
        }
        octets
    }

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn files_search_list_and_servers_in_turn() {
        let conf = conf("nameserver 10.0.0.53\nnameserver 10.0.0.54\nsearch lab\n");
        let mut batch = Batch::new(&conf, 2, vec![RType::A], at(100), 7);
        batch.begin(0, "KNOWN.lab", at(0));
        assert_eq!(batch.take_done()[0].answers[0].line, Some(1));
        batch.begin(1, "api", at(0));
        let sent = batch.take_outbox();
        assert_eq!(Message::parse(&sent[0].octets).unwrap().questions[0].name.to_string(), "api.lab");
        // Another number, another question: not the answer.
        let mut forged = reply(&sent[0], 0, Some([6, 6, 6, 6]));
        forged[13] ^= 1;
        batch.receive(0, &forged, at(1));
        batch.receive(0, &reply(&sent[0], 2, None), at(1));
        let sent = batch.take_outbox();
        assert_eq!(sent[0].server, 1, "the other server is asked after a failure");
        batch.receive(1, &reply(&sent[0], 3, None), at(2));
        let sent = batch.take_outbox();
        assert_eq!(Message::parse(&sent[0].octets).unwrap().questions[0].name.to_string(), "api");
        batch.tick(at(102));
        let sent = batch.take_outbox();
        assert_eq!(sent[0].server, 0, "and the same one again after silence");
        batch.tick(at(203));
        let sent = batch.take_outbox();
        assert_eq!(sent[0].server, 1, "but not for ever");
        batch.receive(1, &reply(&sent[0], 0, Some([10, 0, 0, 9])), at(204));
        let done = batch.take_done();
        assert_eq!((done[0].ending.clone(), done[0].server), (Ending::Found, Some(1)));
        assert!(batch.is_idle());
    }

    #[test]
    fn silence_ends_too() {
        let conf = conf("nameserver 10.0.0.53\n");
        let mut batch = Batch::new(&conf, 1, vec![RType::A, RType::AAAA], at(10), 7);
        batch.begin(0, "api.lab", at(0));
        batch.begin(1, "a..b", at(0));
        for round in 1..10 {
            batch.tick(at(round * 20));
            batch.take_outbox();
        }
        let done = batch.take_done();
        assert!(matches!(done[0].ending, Ending::BadName(_)));
        assert_eq!(done[1].ending, Ending::Timeout);
        assert!(batch.is_idle() && batch.deadline().is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_makes_it_panic(octets: Vec<u8>, name: String) {
            let conf = conf("nameserver 10.0.0.53\n");
            let mut batch = Batch::new(&conf, 1, vec![RType::A], at(10), 7);
            batch.begin(0, &name, at(0));
            batch.receive(0, &octets, at(1));
            for sent in batch.take_outbox() {
                let mut reply = sent.octets.clone();
                reply[2] |= 0x80;
                reply.extend(&octets);
                batch.receive(0, &reply, at(1));
            }
        }
    }
}
