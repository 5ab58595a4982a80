//! Through the rules of one base chain and the chains it calls (`net/ipv4/netfilter/ip_tables.c`,
//! `ipt_do_table`; `net/netfilter/nf_tables_core.c`, `nft_do_chain`).

use crate::firewall::ruleset::{
    Base, ChainKind, ConnmarkOp, CtStates, Family, Hook, Match, Policy, RejectWith, Rule, Target, Test, TtlOp,
    VerdictMap,
};
use crate::host::Backend;

use super::flow::{End, Run};
use super::live::Truth;
use super::stack::ChainAt;
use super::target_ext::Done;
use super::track::is_core;
use super::{DecidedBy, Step, Verdict};

/// How deep chains may call each other; the kernel's own limits are smaller or refuse the ruleset.
const MAX_DEPTH: usize = 1024;

/// What a rule does with the walk.
enum Next {
    /// On to the next rule.
    Go,
    /// The base chain ends, the packet passes it.
    Pass,
    Return,
    Jump(ChainAt),
    Goto(ChainAt),
    End(End),
}

impl Run<'_> {
    /// Walks one base chain; `None` where the packet passes it.
    pub(super) fn base_chain(&mut self, start: ChainAt, base: &Base) -> Option<End> {
        // Without conntrack no packet has a flow to be translated (nf_nat_inet_fn).
        if base.kind == ChainKind::Nat && (!self.stack.tracks(self.live.v6) || !self.nat_applies(start)) {
            return None;
        }
        let mut at = start;
        let mut next = 0;
        let mut callers: Vec<(ChainAt, usize)> = Vec::new();
        loop {
            let (_, _, chain) = self.stack.at(at)?;
            let Some(rule) = chain.rules.get(next) else {
                match callers.pop() {
                    Some((caller, rule)) => (at, next) = (caller, rule),
                    None => return self.policy(start, base),
                }
                continue;
            };
            next += 1;
            if !self.spend() {
                return Some(unknown("the chains call each other in a circle"));
            }
            if !self.rule_matches(at, next, rule) {
                if std::mem::take(&mut self.live.hotdrop) {
                    return Some(self.hotdrop(at, next, rule));
                }
                continue;
            }
            match self.apply(at, next, rule, base) {
                Next::Go => (),
                Next::Pass => return None,
                Next::End(end) => return Some(end),
                Next::Return => match callers.pop() {
                    Some((caller, rule)) => (at, next) = (caller, rule),
                    None => return self.policy(start, base),
                },
                Next::Jump(chain) => {
                    if callers.len() >= MAX_DEPTH {
                        return Some(unknown("the chains call each other too deeply"));
                    }
                    callers.push((at, next));
                    (at, next) = (chain, 0);
                }
                Next::Goto(chain) => (at, next) = (chain, 0),
            }
        }
    }

    /// `number` counts from 1.
    pub(super) fn place(&self, at: ChainAt, number: usize, rule: &Rule) -> DecidedBy {
        let mut place = self.chain_place(at);
        place.rule = u32::try_from(number).ok();
        place.line = rule.line;
        place.text.clone_from(&rule.text);
        if place.text.is_empty() {
            place.text = format!("-A {} {rule}", place.chain);
        }
        place.handle = rule.handle;
        place
    }

    fn chain_place(&self, at: ChainAt) -> DecidedBy {
        let mut place = DecidedBy {
            table: String::new(),
            family: Family::Inet,
            chain: String::new(),
            rule: None,
            line: None,
            text: String::new(),
            backend: Backend::Nft,
            handle: None,
            source: String::new(),
            hook: self.live.hook,
        };
        if let Some((ruleset, table, chain)) = self.stack.at(at) {
            table.name.clone_into(&mut place.table);
            place.family = table.family;
            chain.name.clone_into(&mut place.chain);
            place.line = chain.line;
            place.backend = ruleset.backend;
            place.handle = chain.handle;
            ruleset.source.clone_into(&mut place.source);
        }
        place
    }

    fn step(&mut self, at: DecidedBy, action: impl Into<String>) {
        self.path.push(Step { at, action: action.into() });
    }

    fn policy(&mut self, at: ChainAt, base: &Base) -> Option<End> {
        let mut place = self.chain_place(at);
        let (name, action) = match base.policy {
            Policy::Accept => ("policy ACCEPT", "accept"),
            Policy::Drop => ("policy DROP", "drop"),
        };
        name.clone_into(&mut place.text);
        self.step(place.clone(), action);
        if base.policy == Policy::Drop {
            return Some(end(Verdict::Drop, None, &place));
        }
        self.accept_by(place, base);
        None
    }

    /// Remembers what let the packet pass. Many chains let it pass; the one to name is the filter
    /// at input, forward or output, and there a rule rather than a policy.
    fn accept_by(&mut self, place: DecidedBy, base: &Base) {
        let filter = base.kind == ChainKind::Filter
            && matches!(base.hook, Hook::Input | Hook::Forward | Hook::Output)
            && base.priority > -100;
        let weight = 4 * u8::from(filter) + 2 * u8::from(place.rule.is_some()) + u8::from(base.kind != ChainKind::Nat);
        if self.accepted.as_ref().is_none_or(|(old, _)| weight >= *old) {
            self.accepted = Some((weight, place));
        }
    }

    /// Whether all of a rule's matches hold.
    fn rule_matches(&mut self, at: ChainAt, number: usize, rule: &Rule) -> bool {
        let mut maybe: Vec<(usize, String)> = Vec::new();
        // x_tables looks at addresses, interfaces and protocol before it asks any module; with a
        // history the order tells which modules are asked at all.
        let passes = if self.session.is_some() { 2 } else { 1 };
        let order =
            (0..passes).flat_map(|pass| rule.matches.iter().enumerate().map(move |(index, m)| (pass, index, m)));
        for (pass, index, m) in order {
            if passes == 2 && is_core(&m.test) != (pass == 0) {
                continue;
            }
            self.here = (number, index);
            if self.session.is_some() && matches!(m.test, Test::Stateful { .. }) {
                // It must not remember a packet that never came to it.
                for (index, why) in std::mem::take(&mut maybe) {
                    let m = &rule.matches[index];
                    let (key, says) = self.question(at, number, m, &why);
                    if self.choose(key, says) == m.negated {
                        return false;
                    }
                }
            }
            match self.holds(at, m) {
                Truth::Yes => (),
                // The rule's earlier matches, where not known, decide whether it got so far.
                Truth::Absent if self.live.hotdrop => {
                    let held = maybe.into_iter().all(|(index, why)| {
                        let m = &rule.matches[index];
                        let (key, says) = self.question(at, number, m, &why);
                        self.choose(key, says) != m.negated
                    });
                    self.live.hotdrop = held;
                    return false;
                }
                Truth::No | Truth::Absent => {
                    self.musing = true;
                    self.note_miss(at, number, rule);
                    self.musing = false;
                    return false;
                }
                Truth::Maybe(why) => maybe.push((index, why)),
            }
        }
        if maybe.is_empty() {
            return true;
        }
        let target = rule.target.as_ref();
        let idle = target.is_none_or(Target::only_observes) && rule.statements.iter().all(Target::only_observes);
        if idle {
            // Whether it counts or logs makes no difference to the packet.
            let place = self.place(at, number, rule);
            self.step(place, "maybe");
            return false;
        }
        for (index, why) in maybe {
            let m = &rule.matches[index];
            let (key, says) = self.question(at, number, m, &why);
            if self.choose(key, says) == m.negated {
                return false;
            }
        }
        true
    }

    /// A module saw a header that is cut short, or a fragment made to overwrite one: the kernel
    /// drops the packet before the rule counts it. nf_tables reports that as the rule's own drop
    /// (`net/netfilter/nft_compat.c`), x_tables not at all.
    fn hotdrop(&mut self, at: ChainAt, number: usize, rule: &Rule) -> End {
        let place = self.place(at, number, rule);
        let reason = format!("{}: its match drops packets whose header is cut short", place.place());
        let by = (place.backend == Backend::Nft).then_some(place);
        if let Some(place) = &by {
            self.step(place.clone(), "drop");
        }
        End { verdict: Verdict::Drop, reject_with: None, reply: None, by, reason: Some(reason) }
    }

    /// A question's key and words: whether the test (not negated) holds.
    fn question(&self, at: ChainAt, number: usize, m: &Match, why: &str) -> (String, String) {
        let text = Match::is(m.test.clone()).to_string();
        let name = self.stack.at(at).map_or("", |(_, _, chain)| chain.name.as_str());
        let module = m.test.module().map_or(String::new(), |module| format!("-m {module} "));
        let says = format!("{name} rule {number}: `{module}{text}` holds ({why})");
        // What rests on history or chance is a question of its own at each rule; a fact is one fact.
        let key = match &m.test {
            Test::Stateful { .. } | Test::Unknown { .. } => format!("{at:?} {number} {text}"),
            _ => format!("{module}{text}"),
        };
        (key, says)
    }

    fn apply(&mut self, at: ChainAt, number: usize, rule: &Rule, base: &Base) -> Next {
        let place = self.place(at, number, rule);
        for statement in &rule.statements {
            match self.target(at, &place, statement, base) {
                Next::Go => (),
                other => return other,
            }
        }
        match &rule.target {
            None => {
                self.step(place, "continue");
                Next::Go
            }
            Some(target) => self.target(at, &place, target, base),
        }
    }

    fn target(&mut self, at: ChainAt, place: &DecidedBy, target: &Target, base: &Base) -> Next {
        if self.changes_set(target) {
            self.step(place.clone(), "set");
            return Next::Go;
        }
        let action = action(target, self.live.v6);
        if !matches!(target, Target::VerdictMap(_) | Target::Unknown { .. }) {
            self.step(place.clone(), action);
        }
        match target {
            Target::Accept => {
                self.accept_by(place.clone(), base);
                Next::Pass
            }
            Target::Drop => Self::end(Verdict::Drop, None, place),
            Target::Reject(with) => {
                let with = with.for_packet(self.live.v6);
                let mut end = end(Verdict::Reject, Some(with.name()), place);
                end.reply = self.answer(with).map(Box::new);
                if let (true, Some(session)) = (with == RejectWith::TcpReset && end.reply.is_some(), &mut self.session)
                {
                    session.close();
                }
                Next::End(end)
            }
            Target::Queue { .. } => Self::end(Verdict::Queue, None, place),
            Target::Return => Next::Return,
            Target::Jump(name) => match self.stack.sibling(at, name) {
                Some(chain) => Next::Jump(chain),
                None => Next::End(unknown(&format!("chain {name} is not in the dump"))),
            },
            Target::Goto(name) => match self.stack.sibling(at, name) {
                Some(chain) => Next::Goto(chain),
                None => Next::End(unknown(&format!("chain {name} is not in the dump"))),
            },
            Target::Dnat(_) | Target::Snat(_) | Target::Masquerade(_) | Target::Redirect(_) | Target::Netmap(_) => {
                self.translate(target);
                self.accept_by(place.clone(), base);
                Next::Pass
            }
            Target::VerdictMap(map) => self.verdict_map(at, place, map, base),
            Target::Tcpmss(size) => match self.tcpmss(*size) {
                Done::Dropped(why) => dropped(why, place),
                _ => Next::Go,
            },
            Target::Ext(ext) => match self.target_ext(place, ext) {
                Done::Goes => Next::Go,
                Done::Passes => {
                    self.accept_by(place.clone(), base);
                    Next::Pass
                }
                Done::Dropped(why) => dropped(why, place),
            },
            Target::Unknown { name, options } => {
                // The target is one of: goes on, accepts, drops. Two questions give all three.
                let what = format!("{name} {options}");
                let key = format!("{at:?} {:?} target", place.rule);
                let on = self.choose(
                    format!("{key} on"),
                    format!("{}: target `{}` lets the packet go on", place.place(), what.trim()),
                );
                if on {
                    self.step(place.clone(), "continue");
                    return Next::Go;
                }
                let pass =
                    self.choose(format!("{key} pass"), format!("{}: target `{}` accepts", place.place(), what.trim()));
                self.step(place.clone(), if pass { "accept" } else { "drop" });
                if pass {
                    self.accept_by(place.clone(), base);
                    return Next::Pass;
                }
                Self::end(Verdict::Drop, None, place)
            }
            other => {
                self.change(other);
                Next::Go
            }
        }
    }

    fn end(verdict: Verdict, reject_with: Option<String>, place: &DecidedBy) -> Next {
        Next::End(end(verdict, reject_with, place))
    }

    /// Targets that change the packet or its flow and go on.
    fn change(&mut self, target: &Target) {
        // A packet without a flow has no connection mark to change or to take (xt_connmark.c).
        if matches!(target, Target::Connmark(_)) && !self.live.has_flow() {
            return;
        }
        let live = &mut self.live;
        match target {
            Target::Mark { value, mask } => {
                live.mark = (live.mark & !mask) ^ value;
                if *mask == u32::MAX {
                    live.mark_open = None;
                }
            }
            Target::Connmark(ConnmarkOp::Set { value, mask }) => live.connmark = (live.connmark & !mask) ^ value,
            Target::Connmark(ConnmarkOp::Save { nfmask, ctmask }) => {
                live.connmark = (live.connmark & !ctmask) ^ (live.mark & nfmask);
            }
            Target::Connmark(ConnmarkOp::Restore { nfmask, ctmask }) => {
                live.mark = (live.mark & !nfmask) ^ (live.connmark & ctmask);
            }
            // Only a packet that has no flow yet can be kept from getting one (xt_CT.c).
            Target::Notrack if live.priority < -200 => (live.state, live.notrack) = (CtStates::UNTRACKED, true),
            Target::Ttl { op, value, .. } => {
                live.ttl = match op {
                    TtlOp::Set => *value,
                    TtlOp::Inc => live.ttl.saturating_add(*value),
                    TtlOp::Dec => live.ttl.saturating_sub(*value),
                };
            }
            Target::Tos { value, mask, .. } => live.tos = (live.tos & !mask) ^ value,
            _ => (),
        }
    }

    fn verdict_map(&mut self, at: ChainAt, place: &DecidedBy, map: &VerdictMap, base: &Base) -> Next {
        let elements = match &map.name {
            None => map.elements.clone(),
            Some(name) => {
                let set = self.stack.at(at).and_then(|(_, table, _)| table.sets.iter().find(|set| set.name == *name));
                match set {
                    Some(set) => set.verdicts.clone(),
                    None => return Next::End(unknown(&format!("map {name} is not in the dump"))),
                }
            }
        };
        for (key, verdict) in &elements {
            let holds = match self.key_matches(at, &map.key, None, key) {
                Truth::Yes => true,
                Truth::No => false,
                Truth::Absent => return Next::Go,
                Truth::Maybe(why) => {
                    let says = format!("{}: the element `{}` fits ({why})", place.place(), verdict.nft_word());
                    self.choose(format!("{at:?} {:?} {key:?}", place.rule), says)
                }
            };
            if holds {
                return self.target(at, place, verdict, base);
            }
        }
        Next::Go
    }
}

fn end(verdict: Verdict, reject_with: Option<String>, place: &DecidedBy) -> End {
    End { verdict, reject_with, reply: None, by: Some(place.clone()), reason: None }
}

/// A target that is no DROP drops the packet.
fn dropped(why: String, place: &DecidedBy) -> Next {
    let mut end = end(Verdict::Drop, None, place);
    end.reason = Some(why);
    Next::End(end)
}

fn unknown(why: &str) -> End {
    End { verdict: Verdict::Unknown, reject_with: None, reply: None, by: None, reason: Some(why.to_owned()) }
}

/// What a target does, in a step's words.
fn action(target: &Target, v6: bool) -> String {
    match target {
        Target::Accept => "accept".to_owned(),
        Target::Drop => "drop".to_owned(),
        Target::Reject(with) => format!("reject {}", with.for_packet(v6).name()),
        Target::Return => "return".to_owned(),
        Target::Jump(name) => format!("jump {name}"),
        Target::Goto(name) => format!("goto {name}"),
        Target::Queue { .. } => "queue".to_owned(),
        Target::Mark { .. } => "mark".to_owned(),
        Target::Connmark(_) => "connmark".to_owned(),
        Target::Notrack => "notrack".to_owned(),
        Target::Dnat(_) => "dnat".to_owned(),
        Target::Snat(_) => "snat".to_owned(),
        Target::Masquerade(_) => "masquerade".to_owned(),
        Target::Redirect(_) => "redirect".to_owned(),
        Target::Netmap(_) => "netmap".to_owned(),
        Target::Log { .. } | Target::Nflog { .. } => "log".to_owned(),
        _ => "continue".to_owned(),
    }
}
