//! `doctor matrix`: every host of a fleet tries every other, and the root causes are grouped.

pub mod inventory;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Barrier, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::causes::{Code, Layer};
use super::diagnosis::{Confidence, Diagnosis, Verdict, Where};
use super::examine::{Patience, examine};
use super::judge::judge;
use super::target::Target;
use super::vantage::protocol::{Answer, Ask};
use super::vantage::{Agent, AgentError, Vantage, stopped};
use crate::host::{AddressScope, HostFacts};
pub use inventory::{BadInventory, Member, inventory, member};

/// How long a host may take to tell its facts.
const LOOK: Duration = Duration::from_secs(30);

/// What to try between all hosts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The target, with `{}` for the other host's address: `tcp://{}:8080`.
    pub target: String,
    /// How many pairs are tried at once.
    pub jobs: usize,
    /// How long things may take.
    pub patience: Patience,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// What was tried, with `{}` for the address.
    pub target: String,
    /// The hosts.
    pub hosts: Vec<HostRow>,
    /// Every pair, by the host that asks, then by the one that is asked.
    pub pairs: Vec<Pair>,
    /// The root causes, those of most pairs first.
    pub causes: Vec<Group>,
    /// Pairs that work.
    pub ok: usize,
    /// Pairs that do not.
    pub faults: usize,
    /// Pairs of which it could not be found out.
    pub unknown: usize,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// What it is called.
    pub name: String,
    /// How it is looked from.
    pub vantage: String,
    /// The address given for it; `None`: one of its own is taken.
    pub address: Option<IpAddr>,
    /// Why it cannot be looked from; `None` where it can.
    pub error: Option<String>,
}

/// One pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The host that asks.
    pub from: String,
    /// The host that is asked.
    pub to: String,
    /// What was tried; `None` where there was nothing to try.
    pub target: Option<String>,
    /// The answer in one word.
    pub verdict: Verdict,
    /// The root cause's code.
    pub code: Option<Code>,
    /// The number of its group in `causes`, from 0.
    pub cause: Option<usize>,
    /// Why it could not be found out.
    pub error: Option<String>,
}

/// A root cause, with all pairs that it breaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its code.
    pub code: Code,
    /// Its codes in other pairs: one rule may stop requests of one and answers of another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Code>,
    /// The host it is on; `None` where it is between two.
    pub host: Option<String>,
    /// The thing to change.
    pub object: String,
    /// One sentence.
    pub summary: String,
    /// How sure, at the best of its pairs.
    pub confidence: Confidence,
    /// The commands that mend it for its pairs, each once.
    pub fix: Vec<String>,
    /// The pairs: who asks, who is asked.
    pub pairs: Vec<(String, String)>,
}

impl Matrix {
    /// 0 all work, 1 one does not, 3 it could not be found out of all.
    pub fn exit_code(&self) -> u8 {
        match (self.faults, self.unknown) {
            (0, 0) => 0,
            (0, _) => 3,
            _ => 1,
        }
    }
}

/// A host as it stands.
#[derive(Default)]
struct Post {
    /// Taken out while a pair uses it.
    agent: Option<Agent>,
    /// Its addresses, as (address, prefix length).
    addresses: Vec<(IpAddr, u8)>,
    error: Option<String>,
}

/// What of the pairs is still to do.
struct Board {
    waiting: Vec<(usize, usize)>,
    busy: Vec<bool>,
    done: Vec<(usize, usize, Pair, Option<Diagnosis>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a worker left half done is an answer that is missing; the rest is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries all pairs. A host takes part in one pair at a time, so that nobody's packets are counted with
/// another's. `progress` hears how many of how many pairs are done.
pub fn matrix(members: &[Member], plan: &Plan, progress: &(dyn Fn(usize, usize) + Sync)) -> Matrix {
    let count = members.len();
    let posts: Vec<Mutex<Post>> = members.iter().map(|_| Mutex::new(Post::default())).collect();
    // Neighbours in the list last, so that at first all hosts find one to pair with.
    let waiting: Vec<(usize, usize)> =
        (1..count).flat_map(|step| (0..count).map(move |from| (from, (from + step) % count))).collect();
    let total = waiting.len();
    let board = Mutex::new(Board { waiting, busy: vec![false; count], done: Vec::new() });
    let (freed, next) = (Condvar::new(), Mutex::new(0..count));
    let jobs = plan.jobs.clamp(1, count.max(1));
    // An agent dies with the thread that started it, so none may leave before all are done.
    let (met, over) = (Barrier::new(jobs), Barrier::new(jobs));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(at) = { lock(&next).next() } {
                    if let (Some(member), Some(post)) = (members.get(at), posts.get(at)) {
                        *lock(post) = occupy(&member.vantage);
                    }
                }
                met.wait();
                while let Some((from, to)) = take(&board, &freed) {
                    let (pair, diagnosis) = try_pair(members, &posts, (from, to), plan);
                    let mut board = lock(&board);
                    for host in [from, to] {
                        if let Some(busy) = board.busy.get_mut(host) {
                            *busy = false;
                        }
                    }
                    board.done.push((from, to, pair, diagnosis));
                    progress(board.done.len(), total);
                    drop(board);
                    freed.notify_all();
                }
                over.wait();
            });
        }
    });
    let mut done = board.into_inner().unwrap_or_else(PoisonError::into_inner).done;
    done.sort_by_key(|(from, to, ..)| (*from, *to));
    let hosts = members
        .iter()
        .zip(&posts)
        .map(|(member, post)| HostRow {
            name: member.name.clone(),
            vantage: member.vantage.to_string(),
            address: member.address,
            error: lock(post).error.clone(),
        })
        .collect();
    group(&plan.target, hosts, done)
}

/// Starts a host's agent and learns its addresses.
fn occupy(vantage: &Vantage) -> Post {
    let mut post = Post::default();
    let facts = Agent::start(vantage).and_then(|mut agent| match agent.ask(&Ask::Facts, LOOK)? {
        Answer::Facts(facts) => Ok((agent, facts)),
        _ => Err(agent.nonsense()),
    });
    match facts {
        Ok((agent, facts)) => {
            post.addresses = addresses(&facts);
            post.agent = Some(agent);
        }
        Err(error) => post.error = Some(error.to_string()),
    }
    post
}

/// Where others may reach a host, IPv4 first.
fn addresses(facts: &HostFacts) -> Vec<(IpAddr, u8)> {
    let usable = |entry: &&crate::host::Address| {
        entry.scope == AddressScope::Global && !entry.tentative && !entry.dad_failed && !entry.address.is_loopback()
    };
    let mut found: Vec<(IpAddr, u8)> =
        facts.addresses.iter().flatten().filter(usable).map(|entry| (entry.address, entry.prefix_len)).collect();
    found.sort_by_key(|(address, _)| address.is_ipv6());
    found
}

/// The next pair whose hosts are both idle; waits where there is none, `None` where all are taken.
fn take(board: &Mutex<Board>, freed: &Condvar) -> Option<(usize, usize)> {
    let mut held = lock(board);
    loop {
        if held.waiting.is_empty() {
            return None;
        }
        let idle = |busy: &[bool], host: usize| busy.get(host).is_some_and(|busy| !busy);
        let free = held.waiting.iter().position(|(from, to)| idle(&held.busy, *from) && idle(&held.busy, *to));
        if let Some(at) = free {
            let (from, to) = held.waiting.remove(at);
            for host in [from, to] {
                if let Some(busy) = held.busy.get_mut(host) {
                    *busy = true;
                }
            }
            return Some((from, to));
        }
        held = freed.wait(held).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The address at which one host is to reach another: the given one, one on a common network, the first.
fn address(asker: &Post, asked: &Post, given: Option<IpAddr>) -> Option<IpAddr> {
    let shared = || {
        asked.addresses.iter().map(|(address, _)| *address).find(|address| {
            asker.addresses.iter().any(|(own, length)| {
                own.is_ipv4() == address.is_ipv4()
                    && ipnetwork::IpNetwork::new(*own, *length).is_ok_and(|network| network.contains(*address))
            })
        })
    };
    given.or_else(shared).or_else(|| asked.addresses.first().map(|(address, _)| *address))
}

/// The target with an address, or a name, in its place.
///
/// # Errors
/// When it is no target then.
pub fn fill(target: &str, host: &str) -> Result<Target, super::target::BadTarget> {
    let bracketed = host.contains(':') && target != "{}";
    let host = if bracketed { format!("[{host}]") } else { host.to_owned() };
    target.replace("{}", &host).parse()
}

/// Has one host try another.
fn try_pair(
    members: &[Member],
    posts: &[Mutex<Post>],
    (from, to): (usize, usize),
    plan: &Plan,
) -> (Pair, Option<Diagnosis>) {
    let (asker, asked) = (&members[from], &members[to]);
    let mut pair = Pair {
        from: asker.name.clone(),
        to: asked.name.clone(),
        target: None,
        verdict: Verdict::Unknown,
        code: None,
        cause: None,
        error: None,
    };
    let (mut client, place) = {
        let (mut asker_post, asked_post) = (lock(&posts[from]), lock(&posts[to]));
        let place = address(&asker_post, &asked_post, asked.address).map(|address| address.to_string());
        (asker_post.agent.take(), place)
    };
    let mut server = lock(&posts[to]).agent.take();
    // A host that cannot be looked from can still be asked, by the name that ssh knows it by.
    let place = place.or_else(|| match &asked.vantage {
        Vantage::Ssh { destination, .. } => Some(destination.rsplit('@').next().unwrap_or(destination).to_owned()),
        _ => None,
    });
    let mut trouble = None;
    let result = match (place, &mut client) {
        (None, _) => Err(format!("{} has no address to try", asked.name)),
        (_, None) if stopped() => Err(AgentError::Interrupted.to_string()),
        (_, None) => Err(lock(&posts[from]).error.clone().unwrap_or_else(|| "it cannot be looked from".to_owned())),
        (Some(place), Some(agent)) => {
            fill(&plan.target, &place).map_err(|error| error.to_string()).and_then(|target| {
                pair.target = Some(target.to_string());
                match examine(&target, agent, server.as_mut(), plan.patience, &mut |_| {}) {
                    Ok(case) => Ok(judge(&case)),
                    Err(error) => {
                        let why = error.to_string();
                        trouble = Some(error);
                        Err(why)
                    }
                }
            })
        }
    };
    if let Some(error) = trouble {
        // Which of the two is out of step is not known, so both are started again.
        (client, server) = (None, None);
        revive(members, posts, &[from, to], &error);
    }
    for (host, agent) in [(from, client), (to, server)] {
        if agent.is_some() {
            lock(&posts[host]).agent = agent;
        }
    }
    match result {
        Ok(diagnosis) => {
            pair.verdict = diagnosis.verdict;
            pair.code = diagnosis.root_cause.as_ref().map(|cause| cause.code);
            (pair, Some(diagnosis))
        }
        Err(why) => {
            pair.error = Some(why);
            (pair, None)
        }
    }
}

fn revive(members: &[Member], posts: &[Mutex<Post>], hosts: &[usize], error: &AgentError) {
    if matches!(error, AgentError::Interrupted) {
        return;
    }
    for host in hosts {
        // One that could never be looked from is not tried again.
        let tried = lock(&posts[*host]).error.is_some();
        if !tried {
            *lock(&posts[*host]) = occupy(&members[*host].vantage);
        }
    }
}

/// Puts together what has the same root cause.
fn group(target: &str, hosts: Vec<HostRow>, done: Vec<(usize, usize, Pair, Option<Diagnosis>)>) -> Matrix {
    let mut groups: BTreeMap<(String, Option<String>, String), Group> = BTreeMap::new();
    let mut pairs = Vec::new();
    let mut keys = Vec::new();
    for (_, _, pair, diagnosis) in done {
        let key = diagnosis.and_then(|diagnosis| diagnosis.root_cause).map(|cause| {
            let host = match cause.place {
                Where::Client | Where::Dns => Some(pair.from.clone()),
                Where::Server => Some(pair.to.clone()),
                Where::Path => None,
            };
            // One rule of a filter is one thing, whatever it does to whom.
            let rule = cause.layer == Layer::Firewall;
            let code = if rule { String::new() } else { cause.code.as_str().to_owned() };
            let key = (code, host.clone(), cause.object.clone());
            let summary = match &host {
                // Who is the client and who the server differs from pair to pair.
                Some(host) => cause.summary.replace(&format!("of the {}", cause.place), &format!("of {host}")),
                None => cause.summary,
            };
            let group = groups.entry(key.clone()).or_insert_with(|| Group {
                code: cause.code,
                also: Vec::new(),
                host,
                object: cause.object,
                summary,
                confidence: cause.confidence,
                fix: Vec::new(),
                pairs: Vec::new(),
            });
            group.confidence = group.confidence.max(cause.confidence);
            if cause.code != group.code && !group.also.contains(&cause.code) {
                group.also.push(cause.code);
            }
            let command = cause.fix.into_iter().map(|fix| fix.command).find(|command| !command.is_empty());
            if let Some(command) = command.filter(|command| !group.fix.contains(command)) {
                group.fix.push(command);
            }
            group.pairs.push((pair.from.clone(), pair.to.clone()));
            key
        });
        keys.push(key);
        pairs.push(pair);
    }
    let mut causes: Vec<(_, Group)> = groups.into_iter().collect();
    causes.sort_by_key(|(_, group)| std::cmp::Reverse(group.pairs.len()));
    for (pair, key) in pairs.iter_mut().zip(keys) {
        pair.cause = key.and_then(|key| causes.iter().position(|(other, _)| *other == key));
    }
    let of = |verdict: Verdict| pairs.iter().filter(|pair| pair.verdict == verdict).count();
    Matrix {
        target: target.to_owned(),
        hosts,
        ok: of(Verdict::Ok),
        faults: of(Verdict::Fault),
        unknown: of(Verdict::Unknown),
        causes: causes.into_iter().map(|(_, group)| group).collect(),
        pairs,
    }
}
