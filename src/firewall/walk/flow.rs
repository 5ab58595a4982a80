//! The way through the hooks, and the branches where something is not known.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::firewall::compile::Index;
use crate::firewall::packet::{About, Packet, Reply, To};
use crate::firewall::ruleset::{ChainKind, Hook};
use crate::firewall::state::{History, Session};
use crate::host::{Address, HostFacts, RouteKind};

use super::live::Live;
use super::near::Misses;
use super::place::{Answer, Place, Trod, Way};
use super::stack::Stack;
use super::track::{nat_point, runs_at};
use super::{Facts, NearMiss, Verdict};

/// More alternatives than this are not followed.
const MAX_BRANCHES: usize = 64;
/// Rules looked at in one walk; chains that call each other in a circle would go on for ever.
const MAX_RULES: u32 = 2_000_000;
/// Rules looked at in all branches together.
const MAX_RULES_IN_ALL: u32 = 10_000_000;
/// Rules that matched in one walk; only chains in a circle have so many.
const MAX_STEPS: usize = 50_000;

/// Where conntrack looks at a packet (`NF_IP_PRI_CONNTRACK`).
const CONNTRACK: i32 = -200;

/// How a walk ends early.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) verdict: Verdict,
    pub(super) reject_with: Option<String>,
    /// The packet that REJECT sends back.
    pub(super) reply: Option<Box<Reply>>,
    pub(super) by: Option<Place>,
    pub(super) reason: Option<Cow<'static, str>>,
}

/// How a walk goes about it; what it answers is the same.
#[derive(Clone, Copy)]
pub(in crate::firewall) struct Mode<'a> {
    /// Passes rules over that the index tells cannot match.
    pub(in crate::firewall) index: Option<&'a Index>,
    /// Looks for the nearest miss, which asks every rule.
    pub(in crate::firewall) near: bool,
    /// Only the first hook.
    pub(in crate::firewall) one_hook: bool,
    /// The packet is this host's answer to one of this flow.
    pub(in crate::firewall) about: Option<About>,
}

/// One question that the walk could not answer, and the answer tried.
#[derive(Debug, Clone)]
struct Choice {
    key: String,
    says: String,
    holds: bool,
}

/// One walk along one branch.
pub(super) struct Run<'a> {
    pub(super) stack: &'a Stack,
    pub(super) facts: Facts<'a>,
    pub(super) live: Live,
    pub(super) path: Vec<Trod>,
    pub(super) misses: Misses,
    /// Whether misses are looked for.
    pub(super) near: bool,
    pub(super) index: Option<&'a Index>,
    /// The accept that would be named if nothing stops the packet, and its weight.
    pub(super) accepted: Option<(u8, Place)>,
    /// What the host remembers, where the walk has a history.
    pub(super) session: Option<Session<'a>>,
    /// The rule and the match being looked at: from 1, from 0.
    pub(super) here: (usize, usize),
    /// What is asked now is only of interest; nothing may remember it.
    pub(super) musing: bool,
    budget: u32,
    choices: Vec<Choice>,
    /// Choices already made for this branch.
    preset: usize,
    /// What this branch takes for granted contradicts itself: no packet goes this way.
    pub(super) impossible: bool,
}

/// What one branch gave.
struct Ended {
    end: End,
    path: Vec<Trod>,
    out: Packet,
    assumed: Vec<Cow<'static, str>>,
    given: Vec<String>,
    near: Option<NearMiss>,
}

pub(in crate::firewall) fn run<'s>(
    stack: &'s Stack,
    packet: &Packet,
    facts: Facts<'_>,
    history: Option<&mut History>,
    mode: Mode<'_>,
) -> Answer<'s> {
    let mut ended: Vec<Ended> = Vec::new();
    let mut choices: Vec<Choice> = Vec::new();
    let (mut cut, mut spent) = (false, 0u32);
    // Without an index every rule is asked anyway.
    let near = mode.near && mode.index.is_none();
    let mut kept = None;
    loop {
        let mut run = begin(stack, packet, facts, history.as_deref(), choices, mode.index, near);
        run.live.about = mode.about;
        let end = run.go(mode.one_hook);
        run.settle();
        let draft = run.session.take().map(Session::draft);
        let mut near = run.misses.nearest(stack, &end);
        choices = run.choices;
        spent = spent.saturating_add(MAX_RULES - run.budget);
        let no_more = !choices.iter().any(|choice| choice.holds);
        if mode.near && mode.index.is_some() && no_more {
            // The last branch, once more and past every rule.
            let mut again = begin(stack, packet, facts, history.as_deref(), choices.clone(), None, true);
            let end = again.go(mode.one_hook);
            near = again.misses.nearest(stack, &end);
        }
        if !run.impossible || no_more && ended.is_empty() {
            // Only the last branch's path is told.
            if let Some(before) = ended.last_mut() {
                before.path = Vec::new();
            }
            ended.push(Ended {
                path: run.path,
                given: choices.iter().map(said).collect(),
                near,
                assumed: std::mem::take(&mut run.live.assumed),
                out: run.live.leaving(packet, draft.is_some()),
                end,
            });
            kept = draft;
        }
        // The next branch: the last question answered "yes" is answered "no".
        while choices.last().is_some_and(|choice| !choice.holds) {
            choices.pop();
        }
        match choices.last_mut() {
            Some(last) => last.holds = false,
            None => break,
        }
        if ended.len() >= MAX_BRANCHES || spent > MAX_RULES_IN_ALL {
            cut = true;
            break;
        }
    }
    // Where branches differ the history goes on with the last, in which the fewest undecidable
    // rules apply.
    let passed = ended.last().is_some_and(|e| e.end.verdict == Verdict::Accept);
    let several = ended.len() > 1;
    let with_history = kept.is_some();
    if let (Some(history), Some(draft)) = (history, kept) {
        history.keep(draft, passed);
    }
    let mut answer = conclude(stack, packet, ended, cut);
    if let Some(reply) = &mut answer.reply {
        super::answer::leaves(stack, facts, reply);
    }
    if with_history && several && answer.verdict == Verdict::Unknown {
        answer.assume("the history goes on as in the last branch");
    }
    answer
}

fn begin<'r>(
    stack: &'r Stack,
    packet: &Packet,
    facts: Facts<'r>,
    history: Option<&'r History>,
    choices: Vec<Choice>,
    index: Option<&'r Index>,
    near: bool,
) -> Run<'r> {
    Run {
        stack,
        facts,
        live: Live::new(packet),
        path: Vec::with_capacity(8),
        misses: Misses::default(),
        near,
        index,
        accepted: None,
        session: history.map(Session::new),
        here: (0, 0),
        musing: false,
        budget: MAX_RULES,
        preset: choices.len(),
        choices,
        impossible: false,
    }
}

fn said(choice: &Choice) -> String {
    if choice.holds { choice.says.clone() } else { format!("not: {}", choice.says) }
}

/// Makes one answer of all branches.
fn conclude<'a>(stack: &'a Stack, packet: &Packet, mut ended: Vec<Ended>, cut: bool) -> Answer<'a> {
    let (mut assumed, mut branches) = (Vec::new(), Vec::new());
    if let [one] = ended.as_mut_slice() {
        assumed = std::mem::take(&mut one.assumed);
    } else {
        for what in ended.iter_mut().flat_map(|e| std::mem::take(&mut e.assumed)) {
            if !assumed.contains(&what) {
                assumed.push(what);
            }
        }
        let way = |e: &Ended| Way {
            given: e.given.clone(),
            verdict: e.end.verdict,
            reject_with: e.end.reject_with.clone(),
            by: e.end.by,
        };
        branches = ended.iter().map(way).collect();
    }
    // The branch in which the fewest undecidable rules apply stands last; it is the one without
    // them, and the one to name where all agree.
    let agree = !cut
        && ended.iter().all(|e| e.end.verdict == ended[0].end.verdict && e.end.reject_with == ended[0].end.reject_with);
    if cut {
        assumed.push("there are too many alternatives; not all were followed".into());
    }
    if !agree {
        for branch in &ended {
            for what in &branch.given {
                let open = format!("not known: {}", what.strip_prefix("not: ").unwrap_or(what));
                if !assumed.iter().any(|known| *known == open) {
                    assumed.push(open.into());
                }
            }
        }
    }
    let id = packet.id.clone();
    let Some(last) = ended.pop() else {
        // Unreachable: the loop above always ends one branch.
        let (verdict, out) = (Verdict::Unknown, packet.clone());
        let (reject_with, reply, by, reason, path, near) = (None, None, None, None, Vec::new(), None);
        return Answer { stack, id, verdict, reject_with, reply, by, reason, path, out, assumed, branches, near };
    };
    Answer {
        stack,
        id,
        verdict: if agree { last.end.verdict } else { Verdict::Unknown },
        reject_with: if agree { last.end.reject_with } else { None },
        reply: if agree { last.end.reply.map(|reply| *reply) } else { None },
        by: if agree { last.end.by } else { None },
        reason: if agree { last.end.reason } else { None },
        path: last.path,
        out: last.out,
        assumed,
        branches,
        near: if agree { last.near } else { None },
    }
}

impl Run<'_> {
    fn go(&mut self, one_hook: bool) -> End {
        let start = self.live.hook;
        if !matches!(start, Hook::Ingress | Hook::Prerouting | Hook::Output) {
            self.track();
        }
        let stopped = if one_hook { self.hook(start) } else { self.all_hooks(start) };
        if let Some(end) = stopped {
            return end;
        }
        if let Some(first) = self.stack.unread().first() {
            let first = format!("a ruleset that could not be read: {first}");
            self.live.assume(first);
            return End {
                verdict: Verdict::Unknown,
                reject_with: None,
                reply: None,
                by: None,
                reason: Some("a ruleset of this host could not be read".into()),
            };
        }
        if self.session.as_ref().is_some_and(Session::clashes) {
            let reason = "another flow has the same addresses and ports behind translation: it cannot be confirmed";
            return End {
                verdict: Verdict::Drop,
                reject_with: None,
                reply: None,
                by: None,
                reason: Some(reason.into()),
            };
        }
        let by = self.accepted.take().map(|(_, by)| by);
        let reason = if by.is_none() { Some("no chain looks at this packet".into()) } else { None };
        End { verdict: Verdict::Accept, reject_with: None, reply: None, by, reason }
    }

    fn all_hooks(&mut self, start: Hook) -> Option<End> {
        let mut hook = start;
        let first = matches!(hook, Hook::Ingress | Hook::Prerouting | Hook::Output);
        if first && self.live.is_fragment() && self.stack.defragments(self.live.v6) {
            self.live.put_together("conntrack is in use");
        }
        if hook == Hook::Ingress || hook == Hook::Prerouting {
            for at in [Hook::Ingress, Hook::Prerouting] {
                if let Some(end) = self.hook(at) {
                    return Some(end);
                }
            }
            hook = match self.route_in() {
                Ok(To::Local) => {
                    // net/ipv4/ip_input.c, ip_local_deliver; IPv6 does so behind INPUT.
                    if self.live.is_fragment() && !self.live.v6 {
                        self.live.put_together("it is for this host");
                    }
                    Hook::Input
                }
                Ok(To::Forward) => Hook::Forward,
                Err(end) => return Some(*end),
            };
        }
        if hook == Hook::Output
            && let Some(end) = self.route_out()
        {
            return Some(end);
        }
        let before = (self.live.packet.dst, self.live.mark, self.live.tos);
        if let Some(end) = self.hook(hook) {
            return Some(end);
        }
        if hook == Hook::Output
            && let Some(end) = self.route_again(before)
        {
            return Some(end);
        }
        if matches!(hook, Hook::Forward | Hook::Output) {
            return self.hook(Hook::Postrouting).or_else(|| self.hook(Hook::Egress));
        }
        None
    }

    fn hook(&mut self, hook: Hook) -> Option<End> {
        self.live.hook = hook;
        let mut tracked = !matches!(hook, Hook::Prerouting | Hook::Output);
        let point = nat_point(hook).map(|(at, _)| at);
        let mut translated = point.is_none();
        let stack = self.stack;
        for (at, base) in stack.bases_at(hook, self.live.v6) {
            let (priority, _) = runs_at(base);
            self.live.priority = priority;
            if !tracked && priority >= CONNTRACK {
                tracked = true;
                self.track();
            }
            if !translated && base.kind != ChainKind::Nat && point.is_some_and(|point| priority > point) {
                translated = true;
                self.finish_nat();
            }
            if !base.devices.is_empty() {
                let device = if hook == Hook::Egress { &self.live.packet.out } else { &self.live.packet.in_ };
                if device.as_ref().is_none_or(|device| !base.devices.contains(device)) {
                    continue;
                }
            }
            if let Some(end) = self.base_chain(at, base) {
                return Some(end);
            }
        }
        if !tracked {
            self.track();
        }
        if !translated {
            self.finish_nat();
        }
        None
    }

    /// Counts one rule; false where the walk has gone on for too long.
    pub(super) fn spend(&mut self) -> bool {
        self.budget = self.budget.saturating_sub(1);
        self.budget > 0 && self.path.len() < MAX_STEPS
    }

    /// Whether this branch has the address for one of this host's; `None` where it was not asked.
    pub(super) fn taken_for_local(&self, addr: IpAddr) -> Option<bool> {
        let key = local_key(addr);
        self.choices.iter().find(|choice| choice.key == key).map(|choice| choice.holds)
    }

    /// Answers a question that the facts do not: as this branch has it. The same question gets the
    /// same answer within a branch.
    pub(super) fn choose(&mut self, key: String, says: String) -> bool {
        if let Some(choice) = self.choices.iter().find(|choice| choice.key == key) {
            return choice.holds;
        }
        debug_assert!(self.choices.len() >= self.preset, "a branch repeats its prefix");
        self.choices.push(Choice { key, says, holds: true });
        true
    }
}

/// The question whether an address is this host's own, whoever asks it.
pub(super) fn local_key(addr: IpAddr) -> String {
    format!("local {addr}")
}

/// Whether a packet to this address is delivered here.
pub(super) fn is_local(host: &HostFacts, dst: IpAddr) -> bool {
    let own = |a: &Address| a.address == dst || a.broadcast == Some(dst);
    dst.is_loopback()
        || dst.is_multicast()
        || matches!(dst, IpAddr::V4(a) if a.is_broadcast())
        || host.addresses.as_deref().unwrap_or(&[]).iter().any(own)
        || host.routes.as_deref().unwrap_or(&[]).iter().any(|route| {
            matches!(route.kind, RouteKind::Local | RouteKind::Broadcast) && route.destination.contains(dst)
        })
}
