//! One host's rulesets as functions on sets of packets.
//!
//! Each chain is worked out once for each state of the world it is called in ([`Env`]): what it does
//! with every packet there is, as if all came to it ([`Summary`]). A jump then is one intersection
//! for each of its outcomes, however often and from wherever the chain is called, so that the work
//! grows with the number of rules and not with the number of paths. What each rule sees follows from
//! the top down afterwards ([`Model::entered`]).

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault};

use hashbrown::HashTable;

use crate::firewall::ruleset::{Base, ChainKind, Hook, Policy, RejectWith};
use crate::firewall::walk::{ChainAt, Stack, Verdict};

use super::bdd::{ALL, Mix, NONE, Set};
use super::env::{Addr, Env};
use super::space::{Field, Space, Way};

/// What becomes of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// They pass.
    Accept,
    /// They are dropped.
    Drop,
    /// They are dropped and their sender told.
    Reject(RejectWith),
    /// They are handed to a program.
    Queue,
    /// It is not known, and why.
    Unknown(String),
}

impl Fate {
    /// The verdict of one packet.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Accept => Verdict::Accept,
            Self::Drop => Verdict::Drop,
            Self::Reject(_) => Verdict::Reject,
            Self::Queue => Verdict::Queue,
            Self::Unknown(_) => Verdict::Unknown,
        }
    }

    /// In words: `accept`, `reject (tcp-reset)`.
    pub fn words(&self) -> String {
        match self {
            Self::Reject(with) => format!("reject ({})", with.name()),
            other => other.verdict().name().to_owned(),
        }
    }
}

/// What one rule does within its chain, as if all packets came to the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The packets that come as far as the rule.
    pub(super) reach: Set,
    /// Those of them that it matches.
    pub(super) hit: Set,
    /// All packets that it matches, reached or not.
    pub(super) matched: Set,
}

/// What a chain does with every packet there is.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    pub(super) at: ChainAt,
    /// Packets that go back to the caller, and what has become of them.
    pub(super) ret: Option<(Set, usize)>,
    /// Packets that pass the base chain.
    pub(super) pass: Vec<(Set, usize)>,
    /// Packets that end here.
    pub(super) ends: Vec<(Fate, Set)>,
    /// For each rule.
    pub(super) seen: Vec<Seen>,
    /// For each rule the world in which it looks.
    pub(super) envs: Vec<usize>,
    /// The packets that come to the chain's end.
    pub(super) end: Set,
    /// Calls of other chains: the rule, the packets, the summary of the chain called.
    pub(super) calls: Vec<(usize, Set, usize)>,
}

/// The rulesets of one host, over the packets of one family.
pub struct Model<'a> {
    pub(super) stack: &'a Stack,
    /// The variables, which may be shared with another host's.
    pub space: &'a mut Space,
    pub(super) envs: Vec<Env>,
    env_ids: HashTable<usize>,
    pub(super) summaries: Vec<Summary>,
    memo: HashMap<(ChainAt, usize, Set, Set), Option<usize>>,
    /// Chains with one caller in tables that change marks or addresses: they are worked out for what
    /// that caller sends alone, so that no mark is worked out for packets that never come.
    pub(super) inlined: HashSet<ChainAt>,
    /// Chains that do the same in PREROUTING and in OUTPUT.
    pub(super) blind: HashSet<ChainAt>,
    /// The bits that all packets have that come to the chain being worked out, and the same as a set:
    /// what is worked out there is right for such packets, and says nothing of these bits.
    pub(super) given: (Vec<(u32, bool)>, Set),
    /// Base chains as they were entered: summary and packets.
    pub(super) entries: Vec<(usize, Set)>,
    pub(super) occurrences: HashMap<String, Vec<(ChainAt, usize, usize)>>,
    pub(super) sets: HashMap<(String, String), Set>,
    /// Whether a rule asks for the states SNAT and DNAT, and for the hop count.
    pub(super) asks_nat: bool,
    pub(super) asks_ttl: bool,
    pub(super) depth: usize,
    /// What the walk assumes of the host (no bridge, no IPsec, no extension headers, the first address
    /// of a range) is left open, so that what is called impossible is so everywhere.
    pub cautious: bool,
    /// Which packets pass is asked, and not what becomes of those that pass: where the last chains
    /// drop nothing they need not be told apart.
    pub(super) verdicts_only: bool,
    /// What [`Model::fates`] found.
    known: HashMap<bool, Fates>,
    /// Packets that passed at last, and what has become of them.
    pub(super) finals: States,
}

/// For each way its packets, by what becomes of them.
pub type Fates = Vec<(Way, Vec<(Fate, Set)>)>;

/// States of packets under way: each a set and what has become of its packets.
pub(super) type States = Vec<(Set, usize)>;

/// What became of all packets of one start.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The packets, by what becomes of them; over translated fields too.
    pub(super) fates: Vec<(Fate, Set)>,
    /// Those that pass, and what has become of them.
    pub(super) passed: States,
}

impl<'a> Model<'a> {
    /// A model of these rulesets over these variables.
    pub fn new(stack: &'a Stack, space: &'a mut Space) -> Self {
        let (asks_nat, asks_ttl) = super::survey::asks(stack);
        let inlined = super::survey::called_once(stack);
        let blind = super::survey::blind(stack);
        Self {
            stack,
            space,
            envs: Vec::new(),
            env_ids: HashTable::new(),
            summaries: Vec::new(),
            memo: HashMap::new(),
            inlined,
            blind,
            given: (Vec::new(), ALL),
            entries: Vec::new(),
            occurrences: HashMap::new(),
            sets: HashMap::new(),
            asks_nat,
            asks_ttl,
            depth: 0,
            cautious: false,
            verdicts_only: false,
            known: HashMap::new(),
            finals: Vec::new(),
        }
    }

    pub(super) fn intern(&mut self, env: Env) -> usize {
        let hash = |env: &Env| BuildHasherDefault::<Mix>::default().hash_one(env);
        let own = hash(&env);
        if let Some(id) = self.env_ids.find(own, |id| self.envs[*id] == env) {
            return *id;
        }
        let id = self.envs.len();
        self.envs.push(env);
        self.env_ids.insert_unique(own, id, |id| hash(&self.envs[*id]));
        id
    }

    /// Adds packets to states, joined with those of the same shape.
    pub(super) fn add(&mut self, states: &mut States, set: Set, env: usize) {
        self.add_of(states, set, env, set);
    }

    /// The same where all packets of the state lie outside `of`, a simple set with all of `set` in it.
    pub(super) fn add_of(&mut self, states: &mut States, set: Set, env: usize, of: Set) {
        if set.is_none() {
            return;
        }
        for state in states.iter_mut() {
            if state.1 == env {
                state.0 = self.space.bdd.or(state.0, set);
                return;
            }
            if self.envs[state.1].same_shape(&self.envs[env]) {
                let joined = self.envs[env].join(of, &self.envs[state.1], self.space);
                *state = (self.space.bdd.or(state.0, set), self.intern(joined));
                return;
            }
        }
        states.push((set, env));
    }

    /// Adds packets to those of the same fate.
    pub(super) fn end(&mut self, ends: &mut Vec<(Fate, Set)>, fate: Fate, set: Set) {
        if set.is_none() {
            return;
        }
        match ends.iter_mut().find(|(own, _)| *own == fate) {
            Some((_, own)) => *own = self.space.bdd.or(*own, set),
            None => ends.push((fate, set)),
        }
    }

    /// What a chain does in a world; `None` where chains call each other in a circle.
    pub(super) fn summary(&mut self, at: ChainAt, env: usize, comes: Set) -> Option<usize> {
        let comes = if self.inlined.contains(&at) { comes } else { ALL };
        let (mut values, rest) = self.space.bdd.fixed(comes);
        let mut env = env;
        let given = if comes.is_all() {
            (Vec::new(), ALL)
        } else {
            env = self.env_given(env, &values);
            values.extend(&self.given.0);
            values.sort_unstable();
            let set = self.space.cube(&values);
            (values, set)
        };
        let key = (at, env, given.1, rest);
        if let Some(known) = self.memo.get(&key) {
            return *known;
        }
        self.memo.insert(key, None);
        let outside = std::mem::replace(&mut self.given, given);
        self.depth += 1;
        let made = self.chain(at, env, rest);
        self.depth -= 1;
        self.given = outside;
        self.summaries.push(made);
        let id = self.summaries.len() - 1;
        self.memo.insert(key, Some(id));
        Some(id)
    }

    /// The world as packets with these bits see it.
    fn env_given(&mut self, env: usize, values: &[(u32, bool)]) -> usize {
        let mut world = self.envs[env].clone();
        let bdd = &mut self.space.bdd;
        let words = [&mut world.mark, &mut world.connmark, &mut world.ct, &mut world.ttl, &mut world.tos];
        for bit in words.into_iter().flatten() {
            *bit = bdd.given(*bit, values);
        }
        world.snat = bdd.given(world.snat, values);
        world.dnat = bdd.given(world.dnat, values);
        self.intern(world)
    }

    /// What a blind chain, worked out as for PREROUTING, does elsewhere.
    pub(super) fn in_place(&mut self, env: usize, hook: Hook, came_in: bool) -> usize {
        if (self.envs[env].hook, self.envs[env].came_in) == (hook, came_in) {
            return env;
        }
        let world = Env { hook, came_in, ..self.envs[env].clone() };
        self.intern(world)
    }

    /// All packets of a start at one hook on their way to the end.
    pub(super) fn through(&mut self, start: Hook, set: Set) -> Answer {
        let entering = Env::entering(self.space, start);
        let env = self.intern(entering);
        let mut answer = Answer::default();
        let mut states: States = vec![(set, env)];
        match start {
            Hook::Ingress | Hook::Prerouting => {
                for hook in [Hook::Ingress, Hook::Prerouting] {
                    states = self.hook(hook, states, &mut answer);
                }
                let (local, on) = self.route(states);
                let local = self.hook(Hook::Input, local, &mut answer);
                self.finish(local, &mut answer);
                states = self.hook(Hook::Forward, on, &mut answer);
            }
            Hook::Output => {
                states = self.hook(Hook::Output, states, &mut answer);
                states = self.rerouted(states);
            }
            Hook::Input => {
                let states = self.hook(Hook::Input, states, &mut answer);
                self.finish(states, &mut answer);
                return answer;
            }
            Hook::Forward => states = self.hook(Hook::Forward, states, &mut answer),
            Hook::Postrouting | Hook::Egress => (),
        }
        for hook in [Hook::Postrouting, Hook::Egress] {
            states = self.hook(hook, states, &mut answer);
        }
        self.finish(states, &mut answer);
        answer
    }

    fn finish(&mut self, states: States, answer: &mut Answer) {
        for (set, env) in states {
            self.end(&mut answer.fates, Fate::Accept, set);
            answer.passed.push((set, env));
        }
    }

    /// The base chains of one hook, in the kernel's order.
    fn hook(&mut self, hook: Hook, states: States, answer: &mut Answer) -> States {
        let stack = self.stack;
        let mut states: States = states
            .into_iter()
            .map(|(set, env)| {
                let env = Env { hook, ..self.envs[env].clone() };
                (set, self.intern(env))
            })
            .collect();
        let chains = stack.base_chains(hook, self.space.v6);
        let last = chains.len().checked_sub(1).filter(|_| self.verdicts_only && hook == Hook::Postrouting);
        for (n, (at, base)) in chains.into_iter().enumerate() {
            let priority = match (hook, base.kind) {
                (Hook::Prerouting | Hook::Output, ChainKind::Nat) => -100,
                (Hook::Input | Hook::Postrouting, ChainKind::Nat) => 100,
                _ => base.priority,
            };
            let early = priority < -200 && matches!(hook, Hook::Prerouting | Hook::Output | Hook::Ingress);
            let mut next: States = Vec::new();
            for (set, env) in states {
                let world = Env { early, ..self.envs[env].clone() };
                let seen = self.sees_packets(&world, base, hook);
                let past = self.space.bdd.minus(set, seen);
                let set = self.space.bdd.and(set, seen);
                let env = self.intern(world);
                self.add(&mut next, past, env);
                if set.is_none() {
                    continue;
                }
                let Some(id) = self.summary(at, env, set) else { continue };
                self.entries.push((id, set));
                if last == Some(n) && self.summaries[id].ends.is_empty() {
                    self.add(&mut next, set, env);
                    continue;
                }
                let summary = self.summaries[id].clone();
                for (own, env) in summary.pass {
                    let own = self.space.bdd.and(set, own);
                    self.add(&mut next, own, env);
                }
                for (fate, own) in summary.ends {
                    let own = self.space.bdd.and(set, own);
                    self.end(&mut answer.fates, fate, own);
                }
            }
            states = next;
        }
        states
            .into_iter()
            .map(|(set, env)| {
                let env = Env { early: false, ..self.envs[env].clone() };
                (set, self.intern(env))
            })
            .collect()
    }

    /// The packets that a base chain looks at.
    fn sees_packets(&mut self, env: &Env, base: &Base, hook: Hook) -> Set {
        let mut seen = ALL;
        if !base.devices.is_empty() {
            let ranges = self.space.names.ranges(|name| base.devices.iter().any(|device| device == name));
            seen = self.space.within(if hook == Hook::Egress { Field::Out } else { Field::In }, &ranges);
        }
        if base.kind == ChainKind::Nat {
            // The first packet of a flow, and only while this end of it is not translated yet.
            let done = match hook {
                Hook::Prerouting | Hook::Output => env.dst != Addr::Kept || env.new_dport || env.redirected,
                _ => env.src != Addr::Kept || env.new_sport || env.masked,
            };
            if done {
                return NONE;
            }
            let first = env.state(self.space, &[0, 2]);
            seen = self.space.bdd.and(seen, first);
        }
        seen
    }

    /// Routing of what came in: to this host, or on.
    fn route(&mut self, states: States) -> (States, States) {
        let on = self.space.equals(Field::To, 1);
        let (mut local, mut forward) = (States::new(), States::new());
        for (set, env) in states {
            let here = self.space.bdd.minus(set, on);
            self.add(&mut local, here, env);
            // A packet that REDIRECT sent to this host is not sent on.
            if !self.envs[env].redirected {
                let there = self.space.bdd.and(set, on);
                let mut world = self.envs[env].clone();
                if self.asks_ttl {
                    world.ttl = self.shifted(&world.ttl, |ttl| ttl.saturating_sub(1));
                }
                let env = self.intern(world);
                self.add(&mut forward, there, env);
            }
        }
        (local, forward)
    }

    /// What OUTPUT sent elsewhere is routed again.
    fn rerouted(&mut self, states: States) -> States {
        let mut out = States::new();
        for (set, env) in states {
            let world = self.envs[env].clone();
            let env = if world.dst == Addr::Kept { env } else { self.intern(Env { rerouted: true, ..world }) };
            self.add(&mut out, set, env);
        }
        out
    }

    /// An octet given by its bits, each of its values replaced.
    pub(super) fn shifted(&mut self, word: &[Set], with: impl Fn(u8) -> u8) -> Vec<Set> {
        let mut bits = vec![NONE; 8];
        for value in 0..=u8::MAX {
            let here = self.space.word_masked(word, value.into(), 0xff);
            for (n, bit) in bits.iter_mut().enumerate() {
                if with(value) >> (7 - n) & 1 == 1 {
                    *bit = self.space.bdd.or(*bit, here);
                }
            }
        }
        bits
    }

    /// The packets that come to each summary's chain, in the order of [`Model::summaries`].
    pub(super) fn entered(&mut self) -> Vec<Set> {
        let mut sets = vec![NONE; self.summaries.len()];
        for (id, set) in self.entries.clone() {
            sets[id] = self.space.bdd.or(sets[id], set);
        }
        // A chain called is worked out before its caller.
        for id in (0..self.summaries.len()).rev() {
            if sets[id].is_none() {
                continue;
            }
            for (_, hit, called) in self.summaries[id].calls.clone() {
                let comes = self.space.bdd.and(sets[id], hit);
                sets[called] = self.space.bdd.or(sets[called], comes);
            }
        }
        sets
    }

    /// The set without translated fields: the packets as they came.
    pub fn as_they_came(&mut self, set: Set) -> Set {
        let translated = self.space.translated();
        self.space.bdd.some(set, &|level| translated.contains(&level))
    }

    /// All packets that there can be on these ways, and what becomes of them: for each way the
    /// packets, by their fate.
    pub fn fates(&mut self, untracked: bool) -> Fates {
        if let Some(known) = self.known.get(&untracked) {
            return known.clone();
        }
        let found = self.work_out(untracked);
        self.known.insert(untracked, found.clone());
        found
    }

    fn work_out(&mut self, untracked: bool) -> Fates {
        let parts: Vec<Set> = Way::EVERY.iter().map(|way| self.space.universe(*way, untracked)).collect();
        let arriving = self.space.bdd.or(parts[0], parts[1]);
        let came = self.through(Hook::Prerouting, arriving);
        let sent = self.through(Hook::Output, parts[2]);
        let mut found = Vec::new();
        self.finals = came.passed.iter().chain(&sent.passed).copied().collect();
        for (way, part) in Way::EVERY.into_iter().zip(parts) {
            let answer = if way == Way::Output { &sent } else { &came };
            let mut fates = Vec::new();
            for (fate, set) in answer.fates.clone() {
                let own = self.space.bdd.and(set, part);
                let own = self.as_they_came(own);
                self.end(&mut fates, fate, own);
            }
            found.push((way, fates));
        }
        found
    }

    pub(super) fn policy_of(base: &Base) -> Option<Fate> {
        (base.policy == Policy::Drop).then_some(Fate::Drop)
    }
}
