//! Which rules take the packets that a rule would match.

use crate::firewall::walk::ChainAt;

use super::super::bdd::{ALL, Set};
use super::super::condition::Asker;
use super::super::model::Model;

/// No more are named.
const MAX_NAMED: usize = 12;

/// The rules before `index` that take packets of the set out of the chain, first to last.
pub(super) fn coverers(model: &mut Model<'_>, id: usize, index: usize, packets: Set) -> Vec<usize> {
    let mut found = Vec::new();
    let reach: Vec<Set> = model.summaries[id].seen.iter().take(index + 1).map(|seen| seen.reach).collect();
    split(model, &reach, 0, index, packets, &mut found);
    found.truncate(MAX_NAMED);
    found
}

/// Between two places of the chain: halves, as long as packets are taken between them.
fn split(model: &mut Model<'_>, reach: &[Set], from: usize, to: usize, packets: Set, found: &mut Vec<usize>) {
    if from >= to || found.len() > MAX_NAMED {
        return;
    }
    let (Some(before), Some(after)) = (reach.get(from), reach.get(to)) else { return };
    let (before, after) = (model.space.bdd.and(packets, *before), model.space.bdd.and(packets, *after));
    if before == after {
        return;
    }
    if to - from == 1 {
        found.push(from);
        return;
    }
    let middle = from.midpoint(to);
    split(model, reach, from, middle, packets, found);
    split(model, reach, middle, to, packets, found);
}

/// Where a rule matches, worked out even where none of its packets is left.
pub(super) fn own_match(model: &mut Model<'_>, id: usize, index: usize) -> Set {
    let (at, env): (ChainAt, usize) = match model.summaries.get(id) {
        Some(summary) => (summary.at, summary.envs.get(index).copied().unwrap_or(0)),
        None => return ALL,
    };
    let stack = model.stack;
    let Some(rule) = stack.at(at).and_then(|(_, _, chain)| chain.rules.get(index)) else { return ALL };
    let world = model.envs[env].clone();
    model.matched(Asker { at, index, rule }, &world)
}
