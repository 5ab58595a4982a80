//! Rules that no packet comes to, that no packet matches, and that make no difference.

use std::collections::HashMap;

use crate::firewall::ruleset::{Policy, Rule, Target, Test};
use crate::firewall::walk::{ChainAt, Stack};

use super::super::bdd::{NONE, Set};
use super::super::model::Fate;
use super::super::space::Way;
use super::cover::{coverers, own_match};
use super::{Finding, Severity, Sight};

/// Pairs of rules are looked for in chains no longer, and no more of them told of one chain.
const MAX_PAIRED: usize = 400;
const MAX_PAIRS: usize = 8;
/// With so many told of the whole ruleset, no more chains are searched for them.
const MAX_ORDERED: usize = 40;

/// The summaries of each chain that packets come to: which sight, which summary.
type Entered = HashMap<ChainAt, Vec<(usize, usize)>>;

pub(super) fn look(stack: &Stack, sights: &mut [Sight<'_, '_>], found: &mut Vec<Finding>) {
    let mut entered: Entered = HashMap::new();
    for (n, sight) in sights.iter().enumerate() {
        for (id, comes) in sight.entered.iter().enumerate() {
            if !comes.is_none() {
                entered.entry(sight.model.summaries[id].at).or_default().push((n, id));
            }
        }
    }
    for (at, _, table, chain) in stack.chains() {
        let Some(uses) = entered.get(&at) else {
            let jumped = stack.chains().any(|(other, _, _, caller)| {
                (other.ruleset, other.table) == (at.ruleset, at.table)
                    && caller
                        .rules
                        .iter()
                        .any(|rule| crate::firewall::overview::called(rule, table).contains(&chain.name.as_str()))
            });
            if jumped && chain.base.is_none() && !chain.rules.is_empty() {
                let message =
                    format!("no packet comes to chain {}: the rules that jump to it are never matched", chain.name);
                let lines = callers(stack, at);
                found.push(
                    Finding::new("unreachable-chain", Severity::Warning, message).at(stack, at, None).because(lines),
                );
            }
            continue;
        };
        let alive: Vec<bool> = (0..chain.rules.len())
            .map(|index| {
                uses.iter().any(|(n, id)| {
                    let sight = &sights[*n];
                    let hit = sight.model.summaries[*id].seen[index].hit;
                    sight.model.space.bdd.meet(sight.entered[*id], hit)
                })
            })
            .collect();
        for (index, rule) in chain.rules.iter().enumerate().filter(|(index, _)| !alive[*index]) {
            found.extend(dead(stack, sights, uses, (at, index, rule)));
        }
        redundant(stack, sights, uses, at, &alive, found);
        if found.iter().filter(|own| own.code == "order-dependent").count() < MAX_ORDERED {
            order(stack, sights, uses, at, &alive, found);
        }
    }
}

fn callers(stack: &Stack, at: ChainAt) -> Vec<Option<u32>> {
    let Some((_, table, chain)) = stack.at(at) else { return Vec::new() };
    let calls = |rule: &&Rule| crate::firewall::overview::called(rule, table).contains(&chain.name.as_str());
    table.chains.iter().flat_map(|c| &c.rules).filter(calls).take(8).map(|rule| rule.line).collect()
}

/// Why a rule is dead.
fn dead(
    stack: &Stack,
    sights: &mut [Sight<'_, '_>],
    uses: &[(usize, usize)],
    (at, index, rule): (ChainAt, usize, &Rule),
) -> Vec<Finding> {
    let Some((_, _, chain)) = stack.at(at) else { return Vec::new() };
    let mut any_match = false;
    for (n, id) in uses {
        let sight = &mut sights[*n];
        let own = own_match(&mut sight.model, *id, index);
        any_match |= !own.is_none();
        let packets = sight.model.space.bdd.and(sight.entered[*id], own);
        if packets.is_none() {
            continue;
        }
        let by = coverers(&mut sight.model, *id, index, packets);
        let rules: Vec<&Rule> = by.iter().filter_map(|n| chain.rules.get(*n)).collect();
        let lines = rules.iter().map(|rule| rule.line);
        let places: Vec<String> = by.iter().zip(&rules).map(|(n, rule)| place(*n, rule)).collect();
        let same = !rules.is_empty() && rules.iter().all(|other| other.target == rule.target) && rule.target.is_some();
        let (code, says) = if same {
            ("redundant", "do the same with all its packets before")
        } else {
            ("shadowed", "take all its packets before")
        };
        let says = if places.len() == 1 {
            says.replacen("do ", "does ", 1).replacen("take ", "takes ", 1)
        } else {
            says.to_owned()
        };
        let message = format!("{} {says}: this rule never acts", joined(&places));
        let severity = if same { Severity::Warning } else { Severity::Error };
        let example = example(sight, packets);
        let mut out = vec![Finding {
            example,
            ..Finding::new(code, severity, message).at(stack, at, Some(index)).because(lines)
        }];
        let accepts = rules.iter().all(|rule| rule.target == Some(Target::Accept));
        if accepts && !rules.is_empty() && matches!(rule.target, Some(Target::Drop | Target::Reject(_))) {
            let message = format!(
                "{} more than was meant: the rule behind that blocks some of it, {}, never acts",
                if places.len() == 1 {
                    format!("{} accepts", places[0])
                } else {
                    format!("{} accept", joined(&places))
                },
                place(index, rule)
            );
            let finding =
                Finding::new("accept-before-drop", Severity::Error, message).at(stack, at, by.first().copied());
            out.push(Finding { example: out[0].example.clone(), ..finding.because([rule.line]) });
        }
        return out;
    }
    let message = if any_match {
        "no packet that comes to this chain can match the rule".to_owned()
    } else {
        "no packet can match the rule: what it asks for excludes itself, or cannot be here".to_owned()
    };
    let lines = if any_match { callers(stack, at) } else { Vec::new() };
    // Generated rulesets have rules for what may come yet, as another network of containers.
    let severity = if any_match { Severity::Warning } else { Severity::Error };
    vec![Finding::new("contradiction", severity, message).at(stack, at, Some(index)).because(lines)]
}

fn place(index: usize, rule: &Rule) -> String {
    let line = rule.line.map_or(String::new(), |line| format!(" (line {line})"));
    format!("rule {}{line}", index + 1)
}

fn joined(places: &[String]) -> String {
    match places {
        [] => "earlier rules".to_owned(),
        [one] => one.clone(),
        [many @ .., last] => format!("{} and {last}", many.join(", ")),
    }
}

/// A packet of a set, on any way.
pub(super) fn example(sight: &mut Sight<'_, '_>, packets: Set) -> Option<String> {
    for way in Way::EVERY {
        let narrow = sight.model.space.universe(way, false);
        let own = sight.model.space.bdd.and(packets, narrow);
        let came_in = own;
        if came_in.is_none() {
            continue;
        }
        if let Some((packet, _)) = sight.model.space.packet(own, way) {
            return Some(packet.to_string());
        }
    }
    None
}

/// What becomes of packets from one rule of a chain on, as far as the chain itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Then {
    Pass,
    End(Fate),
    Return,
    /// Something that differs with the rule that does it.
    Other,
}

#[derive(Clone)]
struct Suffix {
    parts: Vec<(Then, Set)>,
    /// Packets that something counts, logs or remembers.
    seen: Set,
}

/// Rules that act, and without which every packet would meet the same end.
fn redundant(
    stack: &Stack,
    sights: &mut [Sight<'_, '_>],
    uses: &[(usize, usize)],
    at: ChainAt,
    alive: &[bool],
    found: &mut Vec<Finding>,
) {
    let Some((_, _, chain)) = stack.at(at) else { return };
    // Jumps and what changes packets are never told: most chains of generated rulesets end here.
    let told =
        |rule: &Rule| matches!(rule.target, Some(Target::Accept | Target::Drop | Target::Reject(_) | Target::Return));
    if !chain.rules.iter().any(told) {
        return;
    }
    let start: Vec<Suffix> = uses
        .iter()
        .map(|_| {
            let then = match &chain.base {
                None => Then::Return,
                Some(base) if base.policy == Policy::Drop => Then::End(Fate::Drop),
                Some(_) => Then::Pass,
            };
            Suffix { parts: vec![(then, super::super::bdd::ALL)], seen: NONE }
        })
        .collect();
    // What is told must hold for each rule that is told alone, and for all of them together: one
    // suffix has every rule, the other none of those that are told.
    let (mut whole, mut kept) = (start.clone(), start);
    for (index, rule) in chain.rules.iter().enumerate().rev() {
        let goes =
            alive[index] && removable(sights, uses, &whole, index, rule) && removable(sights, uses, &kept, index, rule);
        for ((n, id), suffix) in uses.iter().zip(&mut whole) {
            before(&mut sights[*n], *id, index, rule, suffix);
        }
        if !alive[index] {
            continue;
        }
        if goes {
            let (n, id) = uses[0];
            let sight = &mut sights[n];
            let seen = sight.model.summaries[id].seen[index];
            let hit = sight.model.space.bdd.and(sight.entered[id], seen.hit);
            let lines = later(sight, id, index, hit, chain.rules.len());
            let base = match (lines.is_empty(), chain.base.is_some()) {
                (false, _) => "later rules do",
                (true, true) => "the policy does",
                (true, false) => "the end of the chain does",
            };
            let message = format!("{base} the same with all its packets: without this rule nothing changes");
            let example = example(sight, hit);
            let because = lines.iter().map(|n| chain.rules.get(*n).and_then(|rule| rule.line));
            let finding =
                Finding::new("redundant", Severity::Info, message).at(stack, at, Some(index)).because(because);
            found.push(Finding { example, ..finding });
            continue;
        }
        for ((n, id), suffix) in uses.iter().zip(&mut kept) {
            before(&mut sights[*n], *id, index, rule, suffix);
        }
    }
}

fn removable(
    sights: &mut [Sight<'_, '_>],
    uses: &[(usize, usize)],
    suffixes: &[Suffix],
    index: usize,
    rule: &Rule,
) -> bool {
    if !rule.statements.is_empty()
        || rule.matches.iter().any(|m| matches!(m.test, Test::Stateful { .. } | Test::Unknown { .. }))
    {
        return false;
    }
    uses.iter().zip(suffixes).all(|((n, id), suffix)| {
        let sight = &mut sights[*n];
        let v6 = sight.v6;
        let then = match &rule.target {
            Some(Target::Accept) => Then::Pass,
            Some(Target::Drop) => Then::End(Fate::Drop),
            Some(Target::Reject(with)) => Then::End(Fate::Reject(with.for_packet(v6))),
            Some(Target::Return) => Then::Return,
            _ => return false,
        };
        let then = if then == Then::Return && suffix.parts.iter().all(|(own, _)| *own != Then::Return) {
            return false;
        } else {
            then
        };
        let hit = sight.model.summaries[*id].seen[index].hit;
        // What comes to the chain is by far the largest set: it is asked last, and not intersected.
        let (entered, bdd) = (sight.entered[*id], &mut sight.model.space.bdd);
        let Some((_, same)) = suffix.parts.iter().find(|(own, _)| *own == then) else { return !bdd.meet(entered, hit) };
        let (others, seen) = (bdd.minus(hit, *same), bdd.and(hit, suffix.seen));
        !bdd.meet(entered, others) && !bdd.meet(entered, seen)
    })
}

/// The rules behind one that see its packets, were it not there.
fn later(sight: &mut Sight<'_, '_>, id: usize, index: usize, hit: Set, count: usize) -> Vec<usize> {
    let mut left = hit;
    let mut found = Vec::new();
    for next in index + 1..count {
        let own = sight.model.summaries[id].seen[next].matched;
        let taken = sight.model.space.bdd.and(left, own);
        if !taken.is_none() {
            found.push(next);
            left = sight.model.space.bdd.minus(left, own);
        }
        if left.is_none() || found.len() >= 8 {
            break;
        }
    }
    found
}

/// The suffix with one more rule before it.
fn before(sight: &mut Sight<'_, '_>, id: usize, index: usize, rule: &Rule, suffix: &mut Suffix) {
    let model = &mut sight.model;
    let matched = model.summaries[id].seen[index].matched;
    if matched.is_none() {
        return;
    }
    let tests = model.space.tests();
    let remembers = rule.matches.iter().any(|m| matches!(m.test, Test::Stateful { .. }));
    let only = |suffix: &mut Suffix, then: Then, set: Set, model: &mut super::super::model::Model<'_>| {
        for (_, own) in &mut suffix.parts {
            *own = model.space.bdd.minus(*own, set);
        }
        suffix.seen = model.space.bdd.minus(suffix.seen, set);
        put(suffix, then, set, model);
    };
    let then = match &rule.target {
        _ if !rule.statements.is_empty() => Some(Then::Other),
        Some(Target::Accept) => Some(Then::Pass),
        Some(Target::Drop) => Some(Then::End(Fate::Drop)),
        Some(Target::Reject(with)) => Some(Then::End(Fate::Reject(with.for_packet(sight.v6)))),
        Some(Target::Return) => Some(match model.stack.at(model.summaries[id].at) {
            Some((_, _, chain)) => match &chain.base {
                None => Then::Return,
                Some(base) if base.policy == Policy::Drop => Then::End(Fate::Drop),
                Some(_) => Then::Pass,
            },
            None => Then::Other,
        }),
        None => None,
        Some(target) if target.only_observes() => None,
        Some(Target::Jump(_) | Target::Goto(_)) => {
            let goes = matches!(rule.target, Some(Target::Goto(_)));
            let called = model.summaries[id].calls.iter().find(|(own, ..)| *own == index).map(|(_, _, called)| *called);
            called_chain(model, called, matched, goes, suffix);
            if remembers {
                suffix.seen = model.space.bdd.or(suffix.seen, matched);
            }
            return;
        }
        Some(_) => Some(Then::Other),
    };
    match then {
        Some(then) => only(suffix, then, matched, model),
        // What logs or counts sees its packets and lets them go on.
        None => suffix.seen = model.space.bdd.or(suffix.seen, matched),
    }
    if remembers {
        let asked = model.space.bdd.some(matched, &|level| tests.contains(&level));
        suffix.seen = model.space.bdd.or(suffix.seen, asked);
    }
}

fn put(suffix: &mut Suffix, then: Then, set: Set, model: &mut super::super::model::Model<'_>) {
    match suffix.parts.iter_mut().find(|(own, _)| *own == then) {
        Some((_, own)) => *own = model.space.bdd.or(*own, set),
        None => suffix.parts.push((then, set)),
    }
}

/// A jump: the called chain's own ends, and for what comes back the suffix.
fn called_chain(
    model: &mut super::super::model::Model<'_>,
    called: Option<usize>,
    matched: Set,
    goes: bool,
    suffix: &mut Suffix,
) {
    let Some(called) = called else {
        for (_, own) in &mut suffix.parts {
            *own = model.space.bdd.minus(*own, matched);
        }
        put(suffix, Then::Other, matched, model);
        return;
    };
    let summary = model.summaries[called].clone();
    // A chain that logs, counts or changes anything is not looked into further.
    let changes =
        summary.pass.iter().chain(&summary.ret).any(|(_, env)| summary.envs.first().is_some_and(|first| first != env));
    let quiet = model.stack.at(summary.at).is_some_and(|(_, _, chain)| {
        chain.rules.iter().all(|rule| {
            rule.statements.is_empty()
                && matches!(rule.target, Some(Target::Accept | Target::Drop | Target::Reject(_) | Target::Return))
                && !rule.matches.iter().any(|m| matches!(m.test, Test::Stateful { .. }))
        })
    });
    let mut fates: Vec<(Then, Set)> = Vec::new();
    for (set, _) in &summary.pass {
        fates.push((if changes { Then::Other } else { Then::Pass }, model.space.bdd.and(matched, *set)));
    }
    for (fate, set) in &summary.ends {
        fates.push((Then::End(fate.clone()), model.space.bdd.and(matched, *set)));
    }
    let back = summary.ret.map_or(NONE, |(set, _)| set);
    let back = model.space.bdd.and(matched, back);
    let gone = if goes { matched } else { model.space.bdd.minus(matched, back) };
    for (_, own) in &mut suffix.parts {
        *own = model.space.bdd.minus(*own, gone);
    }
    for (then, set) in fates {
        put(suffix, then, set, model);
    }
    if goes {
        put(suffix, Then::Other, back, model);
    }
    if changes {
        put(suffix, Then::Other, matched, model);
    }
    suffix.seen = model.space.bdd.minus(suffix.seen, gone);
    if !quiet {
        suffix.seen = model.space.bdd.or(suffix.seen, matched);
    }
}

/// Pairs of rules of opposite verdicts that share packets, neither about the other's alone: which
/// stands first decides.
fn order(
    stack: &Stack,
    sights: &mut [Sight<'_, '_>],
    uses: &[(usize, usize)],
    at: ChainAt,
    alive: &[bool],
    found: &mut Vec<Finding>,
) {
    let Some((_, _, chain)) = stack.at(at) else { return };
    let rules: Vec<(usize, &Rule)> = chain
        .rules
        .iter()
        .enumerate()
        .filter(|(index, rule)| alive[*index] && verdict(rule).is_some() && rule.statements.is_empty())
        .collect();
    if rules.len() > MAX_PAIRED {
        return;
    }
    let Some((n, id)) = uses.first().copied() else { return };
    let sight = &mut sights[n];
    let mut told = 0;
    for (later, (index, rule)) in rules.iter().enumerate() {
        for (first, other) in &rules[..later] {
            if verdict(rule) == verdict(other) || told >= MAX_PAIRS {
                continue;
            }
            let bdd = &mut sight.model.space.bdd;
            let (mine, theirs) =
                (sight.model.summaries[id].seen[*index].matched, sight.model.summaries[id].seen[*first].matched);
            let shared = bdd.and(mine, theirs);
            if shared.is_none() || bdd.within(mine, theirs) || bdd.within(theirs, mine) {
                continue;
            }
            let hit = sight.model.summaries[id].seen[*first].hit;
            let shared = bdd.and(shared, hit);
            let shared = bdd.and(shared, sight.entered[id]);
            if shared.is_none() {
                continue;
            }
            told += 1;
            let message = format!(
                "some packets are {} by {} and would be {} by this rule: which stands first decides",
                past(other),
                place(*first, other),
                past(rule)
            );
            let example = example(sight, shared);
            let finding = Finding::new("order-dependent", Severity::Info, message)
                .at(stack, at, Some(*index))
                .because([other.line]);
            found.push(Finding { example, ..finding });
        }
    }
}

/// Whether a rule lets pass or blocks.
fn verdict(rule: &Rule) -> Option<bool> {
    match &rule.target {
        Some(Target::Accept) => Some(true),
        Some(Target::Drop | Target::Reject(_)) => Some(false),
        _ => None,
    }
}

fn past(rule: &Rule) -> &'static str {
    match &rule.target {
        Some(Target::Accept) => "accepted",
        Some(Target::Reject(_)) => "rejected",
        _ => "dropped",
    }
}
