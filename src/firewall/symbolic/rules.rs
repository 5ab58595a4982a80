//! One chain, rule by rule.

use crate::firewall::ruleset::{ConnmarkOp, Hook, NatRange, Side, Target, TargetExt, Test, TtlOp, VerdictMap};
use crate::firewall::walk::ChainAt;

use super::bdd::{ALL, NONE, Set};
use super::condition::Asker;
use super::env::{Addr, Env};
use super::model::{Fate, Model, Seen, States, Summary};
use super::space::{Field, number};

/// Chains call each other no deeper; the kernel's own limits are smaller.
const MAX_DEPTH: usize = 200;

/// A chain being worked out.
struct Going {
    /// The packets that have not left the chain yet.
    left: Set,
    env: usize,
    ret: States,
    pass: States,
    ends: Vec<(Fate, Set)>,
    calls: Vec<(usize, Set, usize)>,
}

impl Model<'_> {
    pub(super) fn chain(&mut self, at: ChainAt, env: usize, comes: Set) -> Summary {
        let stack = self.stack;
        let mut going =
            Going { left: comes, env, ret: Vec::new(), pass: Vec::new(), ends: Vec::new(), calls: Vec::new() };
        let mut summary = Summary {
            at,
            ret: None,
            pass: Vec::new(),
            ends: Vec::new(),
            seen: Vec::new(),
            envs: Vec::new(),
            end: NONE,
            calls: Vec::new(),
        };
        let Some((_, _, chain)) = stack.at(at) else { return summary };
        if self.depth > MAX_DEPTH {
            summary.ends.push((Fate::Unknown("the chains call each other too deeply".to_owned()), ALL));
            summary.seen = vec![Seen { reach: NONE, hit: NONE, matched: NONE }; chain.rules.len()];
            summary.envs = vec![env; chain.rules.len()];
            return summary;
        }
        let mut world = self.envs[env].clone();
        for (index, rule) in chain.rules.iter().enumerate() {
            if summary.envs.last().copied().unwrap_or(env) != going.env {
                world = self.envs[going.env].clone();
            }
            let reach = going.left;
            let asker = Asker { at, index, rule };
            let matched = self.matched(asker, &world);
            let hit = self.space.bdd.and(reach, matched);
            summary.seen.push(Seen { reach, hit, matched });
            summary.envs.push(going.env);
            if hit.is_none() {
                continue;
            }
            let mut hit = hit;
            for target in rule.statements.iter().chain(&rule.target) {
                hit = self.target(&mut going, asker, hit, target);
            }
        }
        summary.end = going.left;
        let (left, env) = (going.left, going.env);
        match &chain.base {
            None => self.add(&mut going.ret, left, env),
            // What returns from a base chain meets its policy.
            Some(base) => {
                self.add(&mut going.ret, left, env);
                for (set, env) in std::mem::take(&mut going.ret) {
                    summary.end = self.space.bdd.or(summary.end, set);
                    match Self::policy_of(base) {
                        Some(fate) => self.end(&mut going.ends, fate, set),
                        None => self.add(&mut going.pass, set, env),
                    }
                }
            }
        }
        // Packets that go back are of one shape: what translates ends the chain.
        let mut ret = None;
        for (set, env) in going.ret {
            ret = match ret {
                None => Some((set, env)),
                Some((before, old)) => {
                    let joined = self.envs[env].join(set, &self.envs[old], self.space);
                    Some((self.space.bdd.or(before, set), self.intern(joined)))
                }
            };
        }
        Summary { ret, pass: going.pass, ends: going.ends, calls: going.calls, ..summary }
    }

    /// Does a target with packets of the chain; gives those that go on to the next statement.
    fn target(&mut self, going: &mut Going, asker: Asker<'_>, hit: Set, target: &Target) -> Set {
        if hit.is_none() {
            return NONE;
        }
        let env = going.env;
        match target {
            Target::Accept => {
                self.add(&mut going.pass, hit, env);
                self.gone(going, hit)
            }
            Target::Drop => self.ends(going, hit, Fate::Drop),
            Target::Reject(with) => self.ends(going, hit, Fate::Reject(with.for_packet(self.space.v6))),
            Target::Queue { .. } => self.ends(going, hit, Fate::Queue),
            Target::Return => {
                self.add(&mut going.ret, hit, env);
                self.gone(going, hit)
            }
            Target::Jump(name) => self.call(going, asker, hit, name, false),
            Target::Goto(name) => self.call(going, asker, hit, name, true),
            Target::Dnat(_) | Target::Snat(_) | Target::Masquerade(_) | Target::Redirect(_) | Target::Netmap(_) => {
                for (set, world) in self.translated(hit, env, target) {
                    let env = self.intern(world);
                    self.add(&mut going.pass, set, env);
                }
                self.gone(going, hit)
            }
            Target::VerdictMap(map) => self.verdict_map(going, asker, hit, map),
            Target::Ext(ext) => self.target_ext(going, asker, hit, ext),
            Target::Unknown { name, options } => {
                let what = format!("{name} {options}");
                let on = self.target_open(asker, "goes on", what.trim());
                let pass = self.target_open(asker, "accepts", what.trim());
                let ends = self.space.bdd.minus(hit, on);
                let passes = self.space.bdd.and(ends, pass);
                self.add(&mut going.pass, passes, env);
                let dropped = self.space.bdd.minus(ends, pass);
                self.end(&mut going.ends, Fate::Drop, dropped);
                self.gone(going, ends);
                self.space.bdd.and(hit, on)
            }
            other => {
                self.change(going, hit, other);
                hit
            }
        }
    }

    fn target_open(&mut self, asker: Asker<'_>, does: &str, what: &str) -> Set {
        let mut told = self.told(asker, &Test::Comment(String::new()));
        told.text = format!("target `{what}` {does}");
        let key = format!("{:?} {} {does} {what}", asker.at, asker.index);
        self.space.free(key, || told)
    }

    fn gone(&mut self, going: &mut Going, hit: Set) -> Set {
        going.left = self.space.bdd.minus(going.left, hit);
        NONE
    }

    fn ends(&mut self, going: &mut Going, hit: Set, fate: Fate) -> Set {
        self.end(&mut going.ends, fate, hit);
        self.gone(going, hit)
    }

    fn call(&mut self, going: &mut Going, asker: Asker<'_>, hit: Set, name: &str, goes: bool) -> Set {
        let Some(at) = self.stack.sibling(asker.at, name) else {
            return self.ends(going, hit, Fate::Unknown(format!("chain {name} is not in the dump")));
        };
        let (hook, came_in) = (self.envs[going.env].hook, self.envs[going.env].came_in);
        let blind = hook == Hook::Output && !self.envs[going.env].early && self.blind.contains(&at);
        let entering = if blind { self.in_place(going.env, Hook::Prerouting, true) } else { going.env };
        let Some(id) = self.summary(at, entering, hit) else {
            return self.ends(going, hit, Fate::Unknown("the chains call each other in a circle".to_owned()));
        };
        going.calls.push((asker.index, hit, id));
        let (ret, pass, ends) = {
            let summary = &self.summaries[id];
            (summary.ret, summary.pass.clone(), summary.ends.clone())
        };
        for (set, env) in pass {
            let set = self.space.bdd.and(hit, set);
            let env = if blind { self.in_place(env, hook, came_in) } else { env };
            self.add_of(&mut going.pass, set, env, hit);
        }
        for (fate, set) in ends {
            let set = self.space.bdd.and(hit, set);
            self.end(&mut going.ends, fate, set);
        }
        let back = ret.map_or(NONE, |(set, _)| self.space.bdd.and(hit, set));
        if goes || back != hit {
            let gone = if goes { hit } else { self.space.bdd.minus(hit, back) };
            going.left = self.space.bdd.minus(going.left, gone);
        }
        let Some((_, env)) = ret else { return NONE };
        if back.is_none() {
            return NONE;
        }
        let env = if blind { self.in_place(env, hook, came_in) } else { env };
        if goes {
            self.add(&mut going.ret, back, env);
            return NONE;
        }
        if env != going.env {
            let joined = self.envs[env].join(hit, &self.envs[going.env], self.space);
            going.env = self.intern(joined);
        }
        back
    }

    fn verdict_map(&mut self, going: &mut Going, asker: Asker<'_>, hit: Set, map: &VerdictMap) -> Set {
        let stack = self.stack;
        let elements = match &map.name {
            None => &map.elements,
            Some(name) => {
                let set = stack.at(asker.at).and_then(|(_, table, _)| table.sets.iter().find(|set| set.name == *name));
                match set {
                    Some(set) => &set.verdicts,
                    None => return self.ends(going, hit, Fate::Unknown(format!("map {name} is not in the dump"))),
                }
            }
        };
        let world = self.envs[going.env].clone();
        let there = self.fields_there(&world, &map.key);
        let mut open = self.space.bdd.and(hit, there);
        let mut on = self.space.bdd.minus(hit, there);
        for (key, verdict) in elements {
            if open.is_none() {
                break;
            }
            let fits = self.key(asker, &world, &map.key, None, key);
            let own = self.space.bdd.and(open, fits);
            open = self.space.bdd.minus(open, fits);
            let goes = self.target(going, asker, own, verdict);
            on = self.space.bdd.or(on, goes);
        }
        self.space.bdd.or(on, open)
    }

    fn target_ext(&mut self, going: &mut Going, asker: Asker<'_>, hit: Set, ext: &TargetExt) -> Set {
        match ext {
            TargetExt::EcnRemove | TargetExt::Tcpoptstrip(_) | TargetExt::Set(_) => hit,
            TargetExt::Tproxy(t) => {
                let socket = self.target_open(asker, "finds a socket", "TPROXY");
                let taken = self.space.bdd.and(hit, socket);
                let mut world = self.envs[going.env].clone();
                world.mark = marked(&world.mark, t.value, t.mask);
                let env = self.intern(world);
                self.add(&mut going.pass, taken, env);
                let dropped = self.space.bdd.minus(hit, socket);
                self.end(&mut going.ends, Fate::Drop, dropped);
                self.gone(going, hit)
            }
            TargetExt::Synproxy(_) => {
                let (tcp, whole) = (self.proto(6), self.whole());
                let syn = self.space.masked(Field::Flags, 0x02, 0x17);
                let ack = self.space.masked(Field::Flags, 0x10, 0x17);
                let flags = self.space.bdd.or(syn, ack);
                let own = self.space.bdd.and(tcp, whole);
                let own = self.space.bdd.and(own, flags);
                let own = self.space.bdd.and(own, hit);
                self.ends(going, own, Fate::Drop);
                self.space.bdd.minus(hit, own)
            }
            TargetExt::Hmark(_) => {
                let mut world = self.envs[going.env].clone();
                world.mark_open = true;
                going.env = self.intern(world);
                hit
            }
        }
    }

    /// Targets that change packets or their flows and let them go on.
    fn change(&mut self, going: &mut Going, hit: Set, target: &Target) {
        let world = &self.envs[going.env];
        let mut new = world.clone();
        let mut hit = hit;
        match target {
            Target::Mark { value, mask } => {
                new.mark = marked(&world.mark, *value, *mask);
                new.mark_open &= *mask != u32::MAX;
            }
            Target::Connmark(op) => {
                let world = world.clone();
                let flow = world.has_flow(self.space);
                hit = self.space.bdd.and(hit, flow);
                match op {
                    ConnmarkOp::Set { value, mask } => new.connmark = marked(&world.connmark, *value, *mask),
                    ConnmarkOp::Save { nfmask, ctmask } => {
                        new.connmark = self.copied(&world.connmark, *ctmask, &world.mark, *nfmask);
                    }
                    ConnmarkOp::Restore { nfmask, ctmask } => {
                        new.mark = self.copied(&world.mark, *nfmask, &world.connmark, *ctmask);
                    }
                }
            }
            Target::Notrack if world.early => new.ct = vec![ALL, NONE, NONE],
            Target::Ttl { op, value, .. } => {
                let (op, value, ttl) = (*op, *value, world.ttl.clone());
                new.ttl = self.shifted(&ttl, |ttl| match op {
                    TtlOp::Set => value,
                    TtlOp::Inc => ttl.saturating_add(value),
                    TtlOp::Dec => ttl.saturating_sub(value),
                });
            }
            Target::Tos { value, mask, .. } => {
                for (n, bit) in new.tos.iter_mut().enumerate() {
                    let (value, mask) = (value >> (7 - n) & 1 == 1, mask >> (7 - n) & 1 == 1);
                    let kept = if mask { NONE } else { *bit };
                    *bit = if value { !kept } else { kept };
                }
            }
            _ => return,
        }
        let open = new.mark_open;
        let old = self.envs[going.env].clone();
        let mut joined = new.join(hit, &old, self.space);
        joined.mark_open = open;
        going.env = self.intern(joined);
    }

    /// `(to & !clear) ^ (from & take)`, bit by bit.
    fn copied(&mut self, to: &[Set], clear: u32, from: &[Set], take: u32) -> Vec<Set> {
        let bits = to.iter().zip(from).enumerate().map(|(n, (to, from))| {
            let kept = if clear >> (31 - n) & 1 == 1 { NONE } else { *to };
            let taken = if take >> (31 - n) & 1 == 1 { *from } else { NONE };
            (kept, taken)
        });
        let bits: Vec<_> = bits.collect();
        bits.into_iter().map(|(kept, taken)| self.space.bdd.differ(kept, taken)).collect()
    }

    /// The packets as a nat target leaves them.
    fn translated(&mut self, hit: Set, env: usize, target: &Target) -> Vec<(Set, Env)> {
        let world = self.envs[env].clone();
        let source = matches!(world.hook, Hook::Postrouting | Hook::Input);
        let local = if self.space.v6 { 1 } else { 0x7f00_0001 };
        let (range, addr, source) = match target {
            Target::Dnat(range) => (range.clone(), range.addrs.map(|(from, _)| number(from)), false),
            Target::Snat(range) => (range.clone(), range.addrs.map(|(from, _)| number(from)), true),
            Target::Masquerade(range) => (NatRange { addrs: None, ..range.clone() }, None, true),
            Target::Redirect(range) => {
                let addr = range.addrs.map(|(from, _)| number(from));
                (range.clone(), addr.or((world.hook == Hook::Output).then_some(local)), false)
            }
            Target::Netmap(net) => {
                let (value, mask) = (number(net.addr), number(net.mask));
                let mut new = world.clone();
                let side = if source { Side::Source } else { Side::Destination };
                let same = self.addr_masked(&world, side, value, mask);
                if source {
                    new.src = Addr::Mapped(value, mask);
                } else {
                    new.dst = Addr::Mapped(value, mask);
                }
                self.note_change(&mut new, source, hit, !same);
                return vec![(hit, new)];
            }
            _ => return vec![(hit, world)],
        };
        let side = if source { Side::Source } else { Side::Destination };
        let (new_addr, new_port) =
            if source { (Field::NewSrc, Field::NewSport) } else { (Field::NewDst, Field::NewDport) };
        let mut new = world.clone();
        new.redirected |= matches!(target, Target::Redirect(_));
        new.masked |= matches!(target, Target::Masquerade(_));
        let (mut set, mut same) = (hit, ALL);
        if let Some(addr) = addr {
            same = self.addr_masked(&world, side, addr, super::space::low_bits(if self.space.v6 { 128 } else { 32 }));
            let last = range.addrs.filter(|_| self.cautious).map_or(addr, |(_, to)| number(to));
            let moved = self.space.within(new_addr, &[(addr, last)]);
            same = self.space.bdd.given(same, &self.given.0);
            set = self.space.bdd.and(set, moved);
            if source { new.src = Addr::New } else { new.dst = Addr::New }
        }
        if addr.is_none() && self.cautious && matches!(target, Target::Redirect(_) | Target::Masquerade(_)) {
            // The interface's own address, whichever that is.
            if source { new.src = Addr::New } else { new.dst = Addr::New }
        }
        let mut out = Vec::new();
        if let Some(ports) = range.ports {
            let fits = self.ports(&world, side, &[ports]);
            let fits = self.space.bdd.given(fits, &self.given.0);
            let last = if self.cautious { ports.to } else { ports.from };
            let moved = self.space.within(new_port, &[(ports.from.into(), last.into())]);
            let other = self.space.bdd.minus(set, fits);
            let other = self.space.bdd.and(other, moved);
            let mut world = new.clone();
            if source {
                world.new_sport = true;
            } else {
                world.new_dport = true;
            }
            self.note_change(&mut world, source, other, ALL);
            out.push((other, world));
            set = self.space.bdd.and(set, fits);
        }
        self.note_change(&mut new, source, set, !same);
        out.push((set, new));
        out
    }

    /// Flows whose addresses really change are in the state SNAT or DNAT.
    fn note_change(&mut self, env: &mut Env, source: bool, set: Set, changed: Set) {
        if !self.asks_nat {
            return;
        }
        let own = self.space.bdd.and(set, changed);
        let state = if source { &mut env.snat } else { &mut env.dnat };
        *state = self.space.bdd.or(*state, own);
    }
}

/// `(mark & !mask) ^ value`, bit by bit.
fn marked(mark: &[Set], value: u32, mask: u32) -> Vec<Set> {
    let bit = |(n, own): (usize, &Set)| {
        let kept = if mask >> (31 - n) & 1 == 1 { NONE } else { *own };
        if value >> (31 - n) & 1 == 1 { !kept } else { kept }
    };
    mark.iter().enumerate().map(bit).collect()
}
