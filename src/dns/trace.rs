//! From the roots down: who is in charge of a name, and what does the one in charge say?

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::direct::ask_once;
use super::message::{Data, Manner, Message, Question, RType, Rcode, Record};
use super::name::DomainName;
use super::report::{Alias, chain_of, ms};
use super::send::Outcome;
use super::wire::{NetErrorKind, Server, Wire};

/// The root servers' IPv4 addresses (IANA's hints file).
pub const ROOTS: [(&str, Ipv4Addr); 13] = [
    ("a.root-servers.net", Ipv4Addr::new(198, 41, 0, 4)),
    ("b.root-servers.net", Ipv4Addr::new(170, 247, 170, 2)),
    ("c.root-servers.net", Ipv4Addr::new(192, 33, 4, 12)),
    ("d.root-servers.net", Ipv4Addr::new(199, 7, 91, 13)),
    ("e.root-servers.net", Ipv4Addr::new(192, 203, 230, 10)),
    ("f.root-servers.net", Ipv4Addr::new(192, 5, 5, 241)),
    ("g.root-servers.net", Ipv4Addr::new(192, 112, 36, 4)),
    ("h.root-servers.net", Ipv4Addr::new(198, 97, 190, 53)),
    ("i.root-servers.net", Ipv4Addr::new(192, 36, 148, 17)),
    ("j.root-servers.net", Ipv4Addr::new(192, 58, 128, 30)),
    ("k.root-servers.net", Ipv4Addr::new(193, 0, 14, 129)),
    ("l.root-servers.net", Ipv4Addr::new(199, 7, 83, 42)),
    ("m.root-servers.net", Ipv4Addr::new(202, 12, 27, 33)),
];

/// Steps before it is called a loop.
const MOST_STEPS: usize = 60;
/// Aliases followed.
const MOST_ALIASES: usize = 12;

/// What iteration found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Traced {
    /// Each server asked.
    pub steps: Vec<TraceStep>,
    /// What the servers in charge say; empty where they say no.
    pub answers: Vec<String>,
    /// The code of the last word.
    pub rcode: Option<String>,
    /// The servers in charge of the last name: name and address.
    pub authority: Vec<String>,
    /// The zone they are in charge of.
    pub zone: Option<String>,
    /// Aliases followed on the way.
    pub chain: Vec<Alias>,
    /// The smallest TTL.
    pub ttl: Option<u32>,
    /// Why it came to no end.
    pub failure: Option<String>,
    /// Servers that are named as in charge and are not, or do not answer.
    pub lame: Vec<String>,
}

/// One question on the way down.
#[derive(Debug, Clone, Serialize)]
pub struct TraceStep {
    /// The zone the server should know about.
    pub zone: String,
    /// Whom.
    pub server: String,
    /// What was asked.
    pub query: String,
    /// What came of it.
    pub result: String,
    /// Milliseconds.
    pub ms: f64,
}

/// How iteration goes about it.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// Where to begin.
    pub roots: Vec<SocketAddr>,
    /// How long a server is waited for.
    pub patience: Duration,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            roots: ROOTS.iter().map(|(_, address)| SocketAddr::from((*address, 53))).collect(),
            patience: Duration::from_secs(1),
        }
    }
}

#[derive(Clone)]
struct Cut {
    zone: DomainName,
    /// Name and address of each server; those without an address must be looked up first.
    servers: Vec<(String, Option<SocketAddr>)>,
}

/// Asks from the roots down.
pub fn trace<W: Wire>(wire: &mut W, name: &DomainName, rtype: RType, options: &TraceOptions) -> Traced {
    let mut state = Tracer { wire, options, done: Traced::default(), interrupted: false };
    let mut name = name.clone();
    for _ in 0..MOST_ALIASES {
        let Some(reply) = state.descend(&name, rtype, 0) else { return state.done };
        state.done.rcode = Some(reply.rcode().to_string());
        let chain = chain_of(&reply.answers);
        let wanted: Vec<&Record> = reply.answers.iter().filter(|record| record.rtype == rtype).collect();
        state.done.ttl = wanted.iter().map(|record| record.ttl).chain(state.done.ttl).min();
        state.done.answers = wanted.iter().map(|record| record.data.to_string()).collect();
        let last = chain.last().and_then(|alias| DomainName::parse(&alias.to).ok());
        state.done.chain.extend(chain);
        match last {
            Some(next) if state.done.answers.is_empty() && rtype != RType::CNAME && next != name => name = next,
            _ => return state.done,
        }
    }
    state.done.failure = Some(format!("more than {MOST_ALIASES} aliases follow each other: a loop"));
    state.done
}

struct Tracer<'a, W: Wire> {
    wire: &'a mut W,
    options: &'a TraceOptions,
    done: Traced,
    interrupted: bool,
}

impl<W: Wire> Tracer<'_, W> {
    /// The last word on `name`, from the servers in charge.
    fn descend(&mut self, name: &DomainName, rtype: RType, depth: usize) -> Option<Message> {
        let roots = self.options.roots.iter().map(|address| {
            let known = ROOTS.iter().find(|(_, root)| IpAddr::from(*root) == address.ip());
            (known.map_or_else(|| address.to_string(), |(name, _)| (*name).to_owned()), Some(*address))
        });
        let mut cut = Cut { zone: DomainName::root(), servers: roots.collect() };
        loop {
            if self.done.steps.len() >= MOST_STEPS {
                self.done.failure.get_or_insert_with(|| "more than 60 servers lead on to each other".to_owned());
                return None;
            }
            let question = Question { name: name.clone(), rtype };
            let reply = self.ask_any(&cut, &question, depth)?;
            let referral = (!reply.authoritative() || reply.answers.is_empty() && reply.rcode() == Rcode::NOERROR)
                .then(|| next_cut(&reply, &cut.zone, name))
                .flatten();
            if let Some(next) = referral {
                cut = next;
                continue;
            }
            if depth == 0 {
                self.done.zone = Some(cut.zone.to_string());
                self.done.authority = cut
                    .servers
                    .iter()
                    .map(|(name, address)| match address {
                        Some(address) if *name != address.to_string() => format!("{name} ({})", address.ip()),
                        _ => name.clone(),
                    })
                    .collect();
            }
            return Some(reply);
        }
    }

    /// The first usable reply of a zone's servers.
    fn ask_any(&mut self, cut: &Cut, question: &Question, depth: usize) -> Option<Message> {
        let mut servers = cut.servers.clone();
        // Those with known addresses first.
        servers.sort_by_key(|(_, address)| address.is_none());
        let mut last = None;
        for (name, address) in servers {
            let address = match address {
                Some(address) => Some(address),
                None if depth < 4 => self.address_of(&name, depth),
                None => None,
            };
            let Some(address) = address else {
                self.done.lame.push(format!("{name}: it has no address"));
                continue;
            };
            let reply = self.ask(&cut.zone, &name, address, question);
            if self.interrupted {
                return None;
            }
            match reply {
                Ok(reply) if usable(&reply, &cut.zone, question) => return Some(reply),
                Ok(reply) => {
                    let why = match reply.rcode() {
                        Rcode::NOERROR => "lame: it is not in charge of the zone".to_owned(),
                        code => code.to_string(),
                    };
                    self.done.lame.push(format!("{name} ({}): {why}", address.ip()));
                    last = Some(reply);
                }
                Err(why) => self.done.lame.push(format!("{name} ({}): {why}", address.ip())),
            }
        }
        if depth == 0 {
            let zone = &cut.zone;
            self.done.failure.get_or_insert_with(|| format!("no server of `{zone}` gives a usable answer"));
            self.done.zone = Some(zone.to_string());
        }
        last.filter(|_| depth == 0)
    }

    fn address_of(&mut self, name: &str, depth: usize) -> Option<SocketAddr> {
        let name = DomainName::parse(name).ok()?;
        let reply = self.descend(&name, RType::A, depth + 1)?;
        reply.addresses().next().map(|(address, _)| SocketAddr::from((address, 53)))
    }

    fn ask(
        &mut self,
        zone: &DomainName,
        name: &str,
        address: SocketAddr,
        question: &Question,
    ) -> Result<Message, String> {
        let server = Server::udp(address);
        let manner = Manner { edns: Some(1232), ..Manner::default() };
        let (reply, log) = ask_once(self.wire, &server, question, manner, self.options.patience, 2);
        let took: Duration = log.iter().map(|exchange| exchange.took).sum();
        let why = log.last().map_or_else(|| "not asked".to_owned(), super::report::result);
        self.interrupted |= log.last().is_some_and(
            |exchange| matches!(&exchange.outcome, Outcome::Net(error) if error.kind == NetErrorKind::Interrupted),
        );
        let result = match &reply {
            Some(reply) => match next_cut(reply, zone, &question.name) {
                Some(next) if reply.answers.is_empty() => {
                    let names: Vec<&str> = next.servers.iter().map(|(name, _)| name.as_str()).collect();
                    let more = if names.len() > 3 { ", …" } else { "" };
                    format!("`{}` is run by {}{more}", next.zone, names[..names.len().min(3)].join(", "))
                }
                _ => why.clone(),
            },
            None => why.clone(),
        };
        let shown = if name == address.to_string() { name.to_owned() } else { format!("{name} ({})", address.ip()) };
        self.done.steps.push(TraceStep {
            zone: zone.to_string(),
            server: shown,
            query: format!("{} {}", question.name, question.rtype),
            result,
            ms: ms(took),
        });
        reply.map(|reply| (*reply).clone()).ok_or(why)
    }
}

/// Whether a server is in charge of the zone, or knows who is further down.
fn usable(reply: &Message, zone: &DomainName, question: &Question) -> bool {
    match reply.rcode() {
        Rcode::NXDOMAIN => true,
        Rcode::NOERROR => {
            reply.authoritative() || !reply.answers.is_empty() || next_cut(reply, zone, &question.name).is_some()
        }
        _ => false,
    }
}

/// The zone cut a reply refers to: below `zone`, and above or at `name`; anything else leads in circles.
fn next_cut(reply: &Message, zone: &DomainName, name: &DomainName) -> Option<Cut> {
    let below = |owner: &DomainName| owner.is_under(zone) && owner != zone && name.is_under(owner);
    let owner = reply
        .authorities
        .iter()
        .filter(|record| record.rtype == RType::NS && below(&record.owner))
        .map(|record| record.owner.clone())
        .next()?;
    let mut servers: Vec<(String, Option<SocketAddr>)> = Vec::new();
    for record in reply.authorities.iter().filter(|record| record.rtype == RType::NS && record.owner == owner) {
        let Data::Name(server) = &record.data else { continue };
        let glue = reply.additionals.iter().filter(|glue| glue.owner == *server).find_map(|glue| match glue.data {
            Data::Address(address @ IpAddr::V4(_)) => Some(address),
            _ => None,
        });
        let glue = glue.or_else(|| {
            reply.additionals.iter().filter(|glue| glue.owner == *server).find_map(|glue| match glue.data {
                Data::Address(address) => Some(address),
                _ => None,
            })
        });
        servers.push((server.to_string(), glue.map(|address| SocketAddr::from((address, 53)))));
    }
    Some(Cut { zone: owner, servers })
}
