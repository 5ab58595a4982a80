//! Through the rules of one base chain and the chains it calls (`net/ipv4/netfilter/ip_tables.c`,
//! `ipt_do_table`; `net/netfilter/nf_tables_core.c`, `nft_do_chain`).

use crate::firewall::compile::Cursor;
use crate::firewall::ruleset::{
    AddrTypes, Base, ChainKind, ConnmarkOp, CtStates, Hook, Match, Policy, RejectWith, Rule, Side, Target, Test, TtlOp,
    VerdictMap,
};
use crate::host::Backend;

use super::Verdict;
use super::flow::{End, Run, local_key};
use super::live::Truth;
use super::place::{Action, Place, Trod};
use super::stack::ChainAt;
use super::target_ext::Done;
use super::track::is_core;

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

impl<'a> Run<'a> {
    /// Walks one base chain; `None` where the packet passes it.
    pub(super) fn base_chain(&mut self, start: ChainAt, base: &Base) -> Option<End> {
        // Without conntrack no packet has a flow to be translated (nf_nat_inet_fn).
        if base.kind == ChainKind::Nat && (!self.stack.tracks(self.live.v6) || !self.nat_applies(start)) {
            return None;
        }
        let mut at = start;
        let mut next = 0;
        let mut callers: Vec<(ChainAt, usize)> = Vec::new();
        let mut cursor = Cursor::every();
        self.aim(&mut cursor, at);
        loop {
            let (_, _, chain) = self.stack.at(at)?;
            let found = cursor.seek(next);
            let Some(rule) = chain.rules.get(found) else {
                match callers.pop() {
                    Some((caller, rule)) => (at, next) = (caller, rule),
                    None => return self.policy(start, base),
                }
                self.aim(&mut cursor, at);
                continue;
            };
            next = found + 1;
            if !self.spend() {
                return Some(unknown("the chains call each other in a circle"));
            }
            if !self.rule_matches(at, next, rule) {
                if std::mem::take(&mut self.live.hotdrop) {
                    return Some(self.hotdrop(at, next));
                }
                // What has been assumed is assumed no more.
                if cursor.may_change() {
                    self.aim(&mut cursor, at);
                }
                continue;
            }
            let hot = std::mem::take(&mut self.live.hotdrop);
            match self.apply(at, next, rule, base) {
                applied if hot => {
                    let mut end = self.hotdrop(at, next);
                    end.by = Some(self.place(at, next));
                    if let Next::End(own) = applied {
                        end.reply = own.reply;
                    }
                    return Some(end);
                }
                // The rule may have changed the packet.
                Next::Go if !cursor.chooses() => continue,
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
            self.aim(&mut cursor, at);
        }
    }

    /// Aims at the rules of a chain that can match, where there is an index.
    fn aim(&self, cursor: &mut Cursor<'a>, at: ChainAt) {
        if let Some(index) = self.index {
            index.aim(cursor, self.stack, at, &self.live, self.session.is_some());
        }
    }

    /// `number` counts from 1; 0 is the policy.
    pub(super) fn place(&self, at: ChainAt, number: usize) -> Place {
        Place { at, rule: u32::try_from(number).ok().filter(|number| *number > 0), hook: self.live.hook }
    }

    fn step(&mut self, at: Place, action: Action) {
        self.path.push(Trod { at, action });
    }

    fn policy(&mut self, at: ChainAt, base: &Base) -> Option<End> {
        let place = self.place(at, 0);
        self.step(place, Action::Is(if base.policy == Policy::Drop { "drop" } else { "accept" }));
        if base.policy == Policy::Drop {
            return Some(end(Verdict::Drop, None, place));
        }
        self.accept_by(place, base);
        None
    }

    /// Remembers what let the packet pass. Many chains let it pass; the one to name is the filter
    /// at input, forward or output, and there a rule rather than a policy.
    fn accept_by(&mut self, place: Place, base: &Base) {
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
                // x_tables goes on with a rule whose negated test holds by failing, and drops the packet after it.
                Truth::Absent if std::mem::take(&mut self.live.hot_but_matching) && m.negated && self.is_legacy(at) => {
                }
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
                    if self.near {
                        let hot = self.live.hotdrop;
                        self.musing = true;
                        self.note_miss(at, number, rule);
                        self.musing = false;
                        self.live.hotdrop = hot;
                    }
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
            self.step(self.place(at, number), Action::Is("maybe"));
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
    fn hotdrop(&mut self, at: ChainAt, number: usize) -> End {
        let place = self.place(at, number);
        let told = self.stack.told(place);
        let reason = format!("{}: its match drops packets whose header is cut short", told.place());
        let by = (told.backend == Backend::Nft).then_some(place);
        if let Some(place) = by {
            self.step(place, Action::Is("drop"));
        }
        End { verdict: Verdict::Drop, reject_with: None, reply: None, by, reason: Some(reason.into()) }
    }

    fn is_legacy(&self, at: ChainAt) -> bool {
        self.stack.at(at).is_some_and(|(ruleset, _, _)| ruleset.backend == Backend::Legacy)
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
            Test::AddrType { side, types: AddrTypes::LOCAL, limit_iface: None } => {
                local_key(if *side == Side::Source { self.live.packet.src } else { self.live.packet.dst })
            }
            _ => format!("{module}{text}"),
        };
        (key, says)
    }

    fn apply(&mut self, at: ChainAt, number: usize, rule: &'a Rule, base: &Base) -> Next {
        let place = self.place(at, number);
        for statement in &rule.statements {
            match self.target(place, statement, base) {
                Next::Go => (),
                other => return other,
            }
        }
        match &rule.target {
            None => {
                self.step(place, Action::Is("continue"));
                Next::Go
            }
            Some(target) => self.target(place, target, base),
        }
    }

    fn target(&mut self, place: Place, target: &'a Target, base: &Base) -> Next {
        let at = place.at;
        if self.changes_set(target) {
            self.step(place, Action::Is("set"));
            return Next::Go;
        }
        let called = match target {
            Target::Jump(name) | Target::Goto(name) => self.stack.sibling(at, name),
            _ => None,
        };
        let action = action(target, called, self.live.v6);
        if !matches!(target, Target::VerdictMap(_) | Target::Unknown { .. }) {
            self.step(place, action);
        }
        match target {
            Target::Accept => {
                self.accept_by(place, base);
                Next::Pass
            }
            Target::Drop => halt(Verdict::Drop, None, place),
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
            Target::Queue { .. } => halt(Verdict::Queue, None, place),
            Target::Return => Next::Return,
            Target::Jump(name) | Target::Goto(name) => match called {
                Some(chain) if matches!(target, Target::Jump(_)) => Next::Jump(chain),
                Some(chain) => Next::Goto(chain),
                None => Next::End(unknown(&format!("chain {name} is not in the dump"))),
            },
            Target::Dnat(_) | Target::Snat(_) | Target::Masquerade(_) | Target::Redirect(_) | Target::Netmap(_) => {
                self.translate(target);
                self.accept_by(place, base);
                Next::Pass
            }
            Target::VerdictMap(map) => self.verdict_map(place, map, base),
            Target::Tcpmss(size) => match self.tcpmss(*size) {
                Done::Dropped(why) => dropped(why, place),
                _ => Next::Go,
            },
            Target::Ext(ext) => match self.target_ext(place, ext) {
                Done::Goes => Next::Go,
                Done::Passes => {
                    self.accept_by(place, base);
                    Next::Pass
                }
                Done::Dropped(why) => dropped(why, place),
            },
            Target::Unknown { name, options } => {
                // The target is one of: goes on, accepts, drops. Two questions give all three.
                let what = format!("{name} {options}");
                let key = format!("{at:?} {:?} target", place.rule);
                let told = self.stack.told(place).place();
                let on =
                    self.choose(format!("{key} on"), format!("{told}: target `{}` lets the packet go on", what.trim()));
                if on {
                    self.step(place, Action::Is("continue"));
                    return Next::Go;
                }
                let pass = self.choose(format!("{key} pass"), format!("{told}: target `{}` accepts", what.trim()));
                self.step(place, Action::Is(if pass { "accept" } else { "drop" }));
                if pass {
                    self.accept_by(place, base);
                    return Next::Pass;
                }
                halt(Verdict::Drop, None, place)
            }
            other => {
                self.change(other);
                Next::Go
            }
        }
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
            Target::Notrack if live.priority < -200 && !live.template => {
                (live.state, live.notrack) = (CtStates::UNTRACKED, true);
            }
            Target::Ct { .. } => live.template = true,
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

    fn verdict_map(&mut self, place: Place, map: &'a VerdictMap, base: &Base) -> Next {
        let at = place.at;
        let elements = match &map.name {
            None => &map.elements,
            Some(name) => {
                let set = self.stack.at(at).and_then(|(_, table, _)| table.sets.iter().find(|set| set.name == *name));
                match set {
                    Some(set) => &set.verdicts,
                    None => return Next::End(unknown(&format!("map {name} is not in the dump"))),
                }
            }
        };
        let mut cursor = Cursor::every();
        let mut next = 0;
        while let Some((key, verdict)) = elements.get(next) {
            let holds = match self.key_matches(at, &map.key, None, key) {
                Truth::Yes => true,
                Truth::No => false,
                Truth::Absent => return Next::Go,
                Truth::Maybe(why) => {
                    let told = self.stack.told(place).place();
                    let says = format!("{told}: the element `{}` fits ({why})", verdict.nft_word());
                    self.choose(format!("{at:?} {:?} {key:?}", place.rule), says)
                }
            };
            if holds {
                return self.target(place, verdict, base);
            }
            if next == 0 {
                let all = &mut elements.iter().map(|(key, _)| key.as_slice());
                self.aim_at_keys(&mut cursor, elements.as_ptr() as usize, all, &map.key, None);
            }
            next = cursor.seek(next + 1);
        }
        Next::Go
    }
}

fn end(verdict: Verdict, reject_with: Option<String>, place: Place) -> End {
    End { verdict, reject_with, reply: None, by: Some(place), reason: None }
}

/// A target that is no DROP drops the packet.
fn dropped(why: String, place: Place) -> Next {
    let mut end = end(Verdict::Drop, None, place);
    end.reason = Some(why.into());
    Next::End(end)
}

fn halt(verdict: Verdict, reject_with: Option<String>, place: Place) -> Next {
    Next::End(end(verdict, reject_with, place))
}

fn unknown(why: &str) -> End {
    End { verdict: Verdict::Unknown, reject_with: None, reply: None, by: None, reason: Some(why.to_owned().into()) }
}

/// What a target does, in a step's words.
fn action(target: &Target, called: Option<ChainAt>, v6: bool) -> Action {
    Action::Is(match (target, called) {
        (Target::Reject(with), _) => return Action::Reject(with.for_packet(v6)),
        (Target::Jump(_), Some(chain)) => return Action::Jump(chain),
        (Target::Goto(_), Some(chain)) => return Action::Goto(chain),
        (Target::Jump(name), None) => return Action::Says(format!("jump {name}").into()),
        (Target::Goto(name), None) => return Action::Says(format!("goto {name}").into()),
        (target, _) => word(target),
    })
}

fn word(target: &Target) -> &'static str {
    match target {
        Target::Accept => "accept",
        Target::Drop => "drop",
        Target::Return => "return",
        Target::Queue { .. } => "queue",
        Target::Mark { .. } => "mark",
        Target::Connmark(_) => "connmark",
        Target::Notrack => "notrack",
        Target::Dnat(_) => "dnat",
        Target::Snat(_) => "snat",
        Target::Masquerade(_) => "masquerade",
        Target::Redirect(_) => "redirect",
        Target::Netmap(_) => "netmap",
        Target::Log { .. } | Target::Nflog { .. } => "log",
        _ => "continue",
    }
}
