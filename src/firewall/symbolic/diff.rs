//! What changes between two hosts' rulesets: exactly the packets that meet another end.

use serde::Serialize;

use crate::firewall::walk::{DecidedBy, Facts, Outcome, Stack, Verdict, walk};

use super::bdd::{NONE, Set};
use super::check::Checked;
use super::env::Env;
use super::expr::Packets;
use super::model::{Fate, Model, States};
use super::policy::{Expect, Policy, Quantifier};
use super::query::{agrees, decided, families};
use super::region::{Region, regions};
use super::space::Space;
use super::survey;

/// Packets whose fate changes.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// What became of them.
    pub from: String,
    /// What becomes of them.
    pub to: String,
    /// Which.
    #[serde(flatten)]
    pub region: Region,
    /// The rule that decided for the example.
    pub old_rule: Option<DecidedBy>,
    /// The rule that decides for it now.
    pub new_rule: Option<DecidedBy>,
    /// Whether the walk of the example says the same, on both sides.
    pub confirmed: bool,
}

/// Two rulesets, compared.
#[derive(Debug, Clone, Serialize)]
pub struct Diff {
    /// Whether no packet meets another end.
    pub equal: bool,
    /// The packets that do.
    pub regions: Vec<Change>,
    /// Whether these are all; there may be too many to tell.
    pub complete: bool,
    /// What the comparison does not look at.
    pub notes: Vec<String>,
}

/// Compares two rulesets over all packets.
pub fn diff(old: &Stack, new: &Stack, only_newly_accepted: bool, limit: usize) -> Diff {
    outside(old, new, Limits { only_newly_accepted, limit, fragments: false }, &[])
}

/// The same with later fragments, which the two iptables read differently.
pub(super) fn diff_fragments(old: &Stack, new: &Stack, limit: usize) -> Diff {
    outside(old, new, Limits { only_newly_accepted: false, limit, fragments: true }, &[])
}

/// What of the changes is asked for.
#[derive(Clone, Copy)]
struct Limits {
    only_newly_accepted: bool,
    limit: usize,
    fragments: bool,
}

/// The changes but for those that are allowed, each with the packets and to what they may change.
fn outside(old: &Stack, new: &Stack, limits: Limits, allowed: &[(&Packets, Option<Expect>)]) -> Diff {
    let Limits { only_newly_accepted, limit, fragments } = limits;
    let mut found = Diff { equal: true, regions: Vec::new(), complete: true, notes: Vec::new() };
    for v6 in families(&[old, new]) {
        let names: Vec<String> = allowed.iter().flat_map(|(packets, _)| packets.interfaces()).collect();
        let mut space =
            if fragments { survey::widest(&[old, new], v6) } else { survey::space(&[old, new], v6, &names) };
        let untracked = false;
        let mut model = Model::new(old, &mut space);
        let before = model.fates(untracked);
        let (old_finals, old_envs) = (std::mem::take(&mut model.finals), std::mem::take(&mut model.envs));
        let mut model = Model::new(new, &mut space);
        let after = model.fates(untracked);
        let (new_finals, new_envs) = (std::mem::take(&mut model.finals), std::mem::take(&mut model.envs));
        let other_ends = translated(&mut space, (&old_finals, &old_envs), (&new_finals, &new_envs));
        for ((way, before), (_, after)) in before.iter().zip(&after) {
            let universe = space.universe(*way, untracked);
            for (from, old_set) in before {
                for (to, new_set) in after {
                    let both_pass = *from == Fate::Accept && *to == Fate::Accept;
                    if from == to && !both_pass || only_newly_accepted && (*to != Fate::Accept || both_pass) {
                        continue;
                    }
                    let mut set = space.bdd.and(*old_set, *new_set);
                    if both_pass {
                        set = space.bdd.and(set, other_ends);
                    }
                    for (packets, may) in allowed {
                        let fits = match may {
                            None => true,
                            Some(Expect::Accept | Expect::Works) => *to == Fate::Accept,
                            Some(Expect::Drop | Expect::Fails) => to.verdict().blocks(),
                            Some(Expect::Reject) => matches!(to, Fate::Reject(_)),
                        };
                        if fits && (packets.ways.is_empty() || packets.ways.contains(way)) {
                            let own = packets.set(&mut space);
                            set = space.bdd.minus(set, own);
                        }
                    }
                    if set.is_none() {
                        continue;
                    }
                    found.equal = false;
                    let left = limit.saturating_sub(found.regions.len());
                    let (boxes, whole) = regions(&mut space, set, universe, *way, left);
                    found.complete &= whole;
                    let pair = Pair { old, new, from, to, both_pass };
                    found.regions.extend(boxes.into_iter().map(|region| pair.change(region)));
                }
            }
        }
    }
    for (stack, other, name) in [(old, new, "new"), (new, old, "old")] {
        for v6 in families(&[stack]) {
            if !families(&[other]).contains(&v6) && !found.equal {
                let family = if v6 { "IPv6" } else { "IPv4" };
                found.notes.push(format!("the {name} side has no {family} ruleset: every such packet passes there"));
            }
        }
    }
    found
}

/// Whether nothing changes against an older ruleset but what policies list.
pub fn changes(old: &Stack, new: &Stack, policies: &[Policy]) -> Vec<Checked> {
    let allowed: Vec<(&Packets, Option<Expect>)> =
        policies.iter().flat_map(|policy| &policy.changes).map(|(packets, may)| (packets, *may)).collect();
    let found = outside(old, new, Limits { only_newly_accepted: false, limit: 20, fragments: false }, &allowed);
    let source = policies.first().map_or(String::new(), |policy| policy.source.clone());
    let checked = |name: String| Checked {
        policy: source.clone(),
        name,
        expect: "accept",
        packets: Vec::new(),
        quantifier: Quantifier::All,
        ok: true,
        reason: None,
        example: None,
        verdict: None,
        decided_by: None,
        when: Vec::new(),
        path: Vec::new(),
    };
    if found.equal {
        return vec![checked("nothing changes but what is listed".to_owned())];
    }
    let change = |change: Change| Checked {
        ok: false,
        reason: Some(format!("{} → {}: {}", change.from, change.to, change.region.text)),
        example: Some(change.region.example.to_string()),
        decided_by: change.new_rule,
        when: change.region.when(),
        expect: "unchanged",
        ..checked("a change that is not listed".to_owned())
    };
    found.regions.into_iter().map(change).collect()
}

struct Pair<'a> {
    old: &'a Stack,
    new: &'a Stack,
    from: &'a Fate,
    to: &'a Fate,
    both_pass: bool,
}

impl Pair<'_> {
    fn change(&self, region: Region) -> Change {
        let before = walk(self.old, &region.example, &Facts::none());
        let after = walk(self.new, &region.example, &Facts::none());
        let mut confirmed = agrees(&before, self.from) && agrees(&after, self.to);
        let (mut from, mut to) = (self.from.words(), self.to.words());
        if self.both_pass {
            (from, to) = (ends(&before), ends(&after));
            // Under a test that may go either way the walk follows one way only.
            confirmed &= from != to
                || !region.given.is_empty()
                || before.verdict == Verdict::Unknown
                || after.verdict == Verdict::Unknown;
            let (a, b) = (by_nat(&before), by_nat(&after));
            return Change { from, to, region, old_rule: a, new_rule: b, confirmed };
        }
        let (old_rule, new_rule) = (decided(&before, self.from), decided(&after, self.to));
        Change { from, to, region, old_rule, new_rule, confirmed }
    }
}

/// What leaves, where it was translated.
fn ends(outcome: &Outcome) -> String {
    let nat: Vec<&str> = outcome
        .path
        .iter()
        .map(|step| step.action.as_str())
        .filter(|action| matches!(*action, "dnat" | "snat" | "masquerade" | "redirect" | "netmap"))
        .collect();
    if nat.is_empty() {
        return "accept".to_owned();
    }
    let end = |addr: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) if addr.is_ipv6() => format!("[{addr}]:{port}"),
        Some(port) => format!("{addr}:{port}"),
        None => addr.to_string(),
    };
    let out = &outcome.packet_out;
    format!("accept ({}: {} > {})", nat.join(", "), end(out.src, out.sport), end(out.dst, out.dport))
}

/// The rule that translates the example, else the one that accepts it.
fn by_nat(outcome: &Outcome) -> Option<DecidedBy> {
    let nat = |action: &str| matches!(action, "dnat" | "snat" | "masquerade" | "redirect" | "netmap");
    let step = outcome.path.iter().find(|step| nat(&step.action));
    step.map(|step| step.at.clone()).or_else(|| outcome.decided_by.clone())
}

/// Packets that leave both sides, but not with the same addresses and ports.
fn translated(space: &mut Space, old: (&States, &[Env]), new: (&States, &[Env])) -> Set {
    let shape = |env: &Env| Env { hook: crate::firewall::Hook::Postrouting, ..bare(env) };
    let mut all = NONE;
    let keys: Vec<Env> = old
        .0
        .iter()
        .map(|(_, env)| shape(&old.1[*env]))
        .chain(new.0.iter().map(|(_, env)| shape(&new.1[*env])))
        .collect();
    let mut done: Vec<Env> = Vec::new();
    for key in keys {
        if done.contains(&key) {
            continue;
        }
        let mut sides = [NONE, NONE];
        for (side, (states, envs)) in sides.iter_mut().zip([old, new]) {
            for (set, env) in states {
                if shape(&envs[*env]) == key {
                    *side = space.bdd.or(*side, *set);
                }
            }
        }
        let apart = space.bdd.differ(sides[0], sides[1]);
        let translated = space.translated();
        let apart = space.bdd.some(apart, &|level| translated.contains(&level));
        all = space.bdd.or(all, apart);
        done.push(key);
    }
    all
}

/// The env's places of addresses and ports alone.
fn bare(env: &Env) -> Env {
    let no: Vec<Set> = Vec::new();
    Env {
        came_in: false,
        early: false,
        mark_open: false,
        rerouted: false,
        mark: no.clone(),
        connmark: no.clone(),
        ct: no.clone(),
        ttl: no.clone(),
        tos: no,
        snat: NONE,
        dnat: NONE,
        ..env.clone()
    }
}
