//! Questions about all packets of one host: which are accepted, dropped, seen by a rule.

use serde::Serialize;

use crate::firewall::ruleset::Hook;
use crate::firewall::walk::{Facts, Outcome, Stack, Verdict, walk};

use super::bdd::{NONE, Set};
use super::expr::Packets;
use super::model::{Fate, Model};
use super::region::{Region, regions};
use super::space::Way;
use super::survey;

/// Boxes are told no more of than these.
pub const MAX_REGIONS: usize = 2_000;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Packets that pass.
    Accept,
    /// Packets that are dropped, with or without a word.
    Drop,
}

/// Some packets that are what was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Which.
    #[serde(flatten)]
    pub region: Region,
    /// What becomes of them.
    pub verdict: Verdict,
    /// The rule that decides for the example.
    pub decided_by: Option<crate::firewall::walk::DecidedBy>,
    /// Whether the walk of the example says the same.
    pub confirmed: bool,
}

/// The answer: boxes that hold exactly the packets asked for.
#[derive(Debug, Clone, Serialize)]
pub struct QueryAnswer {
    /// The packets asked about.
    pub space: String,
    /// `none`, `some` or `all` of them are what was asked for.
    pub extent: &'static str,
    /// Those that are.
    pub regions: Vec<Found>,
    /// Whether these are all; there may be too many to tell.
    pub complete: bool,
    /// What the answer does not look at.
    pub notes: Vec<String>,
}

/// The families that a host's rulesets see; IPv4 where there is none.
pub fn families(stacks: &[&Stack]) -> Vec<bool> {
    let seen: Vec<bool> = [false, true]
        .into_iter()
        .filter(|v6| stacks.iter().any(|stack| stack.chains().any(|(_, _, table, _)| table.family.sees(*v6))))
        .collect();
    if seen.is_empty() { vec![false] } else { seen }
}

/// The packets of one way that a set of packets is about, with what becomes of them.
pub(super) struct OfWay {
    pub(super) way: Way,
    /// All packets asked about.
    pub(super) asked: Set,
    pub(super) universe: Set,
    pub(super) fates: Vec<(Fate, Set)>,
}

/// What becomes of the packets asked about, way by way.
pub(super) fn of_packets(model: &mut Model<'_>, packets: &Packets) -> Vec<OfWay> {
    let own = packets.set(model.space);
    if own.is_none() {
        return Vec::new();
    }
    let ways: Vec<Way> = if packets.ways.is_empty() { Way::EVERY.to_vec() } else { packets.ways.clone() };
    let mut found = Vec::new();
    for (way, fates) in match packets.start {
        None => model.fates(packets.untracked),
        Some(hook) => from_hook(model, hook, packets.untracked),
    } {
        if !ways.contains(&way) {
            continue;
        }
        let universe = model.space.universe(way, packets.untracked);
        let asked = model.space.bdd.and(universe, own);
        let fates = fates.into_iter().map(|(fate, set)| (fate, model.space.bdd.and(set, asked))).collect();
        found.push(OfWay { way, asked, universe, fates });
    }
    found
}

fn from_hook(model: &mut Model<'_>, hook: Hook, untracked: bool) -> Vec<(Way, Vec<(Fate, Set)>)> {
    let way = if hook == Hook::Input { Way::Input } else { Way::Forward };
    let universe = model.space.universe(way, untracked);
    let answer = model.through(hook, universe);
    let mut fates = Vec::new();
    for (fate, set) in answer.fates {
        let set = model.as_they_came(set);
        model.end(&mut fates, fate, set);
    }
    vec![(way, fates)]
}

/// The packets asked about that are accepted, or dropped.
pub fn query(stack: &Stack, packets: &Packets, want: Want) -> QueryAnswer {
    let mut answer = QueryAnswer {
        space: packets.text.clone(),
        extent: "none",
        regions: Vec::new(),
        complete: true,
        notes: Vec::new(),
    };
    let (mut some, mut all) = (false, true);
    for v6 in families(&[stack]) {
        if packets.v6.is_some_and(|own| own != v6) {
            continue;
        }
        let mut space = survey::space(&[stack], v6, &packets.interfaces());
        let mut model = Model::new(stack, &mut space);
        for of in of_packets(&mut model, packets) {
            let mut not = NONE;
            for (fate, set) in &of.fates {
                let wanted = match want {
                    Want::Accept => *fate == Fate::Accept,
                    Want::Drop => fate.verdict().blocks(),
                };
                if !wanted {
                    not = model.space.bdd.or(not, *set);
                    if let Fate::Unknown(why) = fate
                        && !set.is_none()
                    {
                        answer.notes.push(format!("of some packets it is not known: {why}"));
                    }
                    continue;
                }
                let (found, whole) = regions(model.space, *set, of.universe, of.way, MAX_REGIONS);
                answer.complete &= whole;
                some |= !found.is_empty();
                for region in found {
                    answer.regions.push(confirm(stack, region, fate, packets.start));
                }
            }
            all &= not.is_none();
        }
    }
    if let Some(v6) = packets.v6
        && !families(&[stack]).contains(&v6)
    {
        let family = if v6 { "IPv6" } else { "IPv4" };
        answer.notes.push(format!("there is no {family} ruleset among those given: every such packet passes"));
    }
    answer.extent = match (some, all) {
        (false, _) => "none",
        (true, true) => "all",
        (true, false) => "some",
    };
    answer.notes.dedup();
    answer
}

/// Walks a region's example: it must become of it what its region says.
fn confirm(stack: &Stack, mut region: Region, fate: &Fate, start: Option<Hook>) -> Found {
    if start.is_some() {
        region.example.hook = start;
    }
    let outcome = walk(stack, &region.example, &Facts::none());
    let confirmed = agrees(&outcome, fate);
    let decided_by = decided(&outcome, fate);
    Found { region, verdict: fate.verdict(), decided_by, confirmed }
}

/// Whether a walk says of a packet what its set says: outright, or in one of its branches.
pub(super) fn agrees(outcome: &Outcome, fate: &Fate) -> bool {
    outcome.verdict == fate.verdict() || outcome.branches.iter().any(|branch| branch.verdict == fate.verdict())
}

/// The rule that decides so.
pub(super) fn decided(outcome: &Outcome, fate: &Fate) -> Option<crate::firewall::walk::DecidedBy> {
    let branch = outcome.branches.iter().find(|branch| branch.verdict == fate.verdict());
    outcome.decided_by.clone().or_else(|| branch.and_then(|branch| branch.decided_by.clone()))
}

/// The packets that come to a rule: `seen` all that reach it, else those that it matches.
///
/// # Errors
/// Where there is no such rule, in words.
pub fn of_rule(stack: &Stack, packets: &Packets, rule: &RuleName, matched: bool) -> Result<QueryAnswer, String> {
    let mut answer = QueryAnswer {
        space: packets.text.clone(),
        extent: "none",
        regions: Vec::new(),
        complete: true,
        notes: Vec::new(),
    };
    let places = rule.places(stack)?;
    let mut all_in = true;
    for v6 in families(&[stack]) {
        let mut space = survey::space(&[stack], v6, &packets.interfaces());
        let mut model = Model::new(stack, &mut space);
        let ways = of_packets(&mut model, packets);
        let entered = model.entered();
        let mut set = NONE;
        for (id, comes) in entered.into_iter().enumerate() {
            let at = model.summaries[id].at;
            for (chain, index) in &places {
                if *chain == at
                    && let Some(seen) = model.summaries[id].seen.get(*index)
                {
                    let own = if matched { seen.hit } else { seen.reach };
                    let own = model.space.bdd.and(comes, own);
                    set = model.space.bdd.or(set, own);
                }
            }
        }
        let set = model.as_they_came(set);
        for of in ways {
            let own = model.space.bdd.and(set, of.asked);
            all_in &= own == of.asked;
            let (found, whole) = regions(model.space, own, of.universe, of.way, MAX_REGIONS);
            answer.complete &= whole;
            for region in found {
                let outcome = walk(stack, &region.example, &Facts::none());
                let here = |step: &crate::firewall::walk::Step| rule.is(&step.at);
                let confirmed = !matched || outcome.path.iter().any(here) || !outcome.branches.is_empty();
                answer.regions.push(Found {
                    region,
                    verdict: outcome.verdict,
                    decided_by: outcome.decided_by,
                    confirmed,
                });
            }
        }
    }
    answer.extent = match (answer.regions.is_empty(), all_in) {
        (true, _) => "none",
        (false, true) => "all",
        (false, false) => "some",
    };
    Ok(answer)
}

/// A rule by its chain and number, or by its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleName {
    /// `filter/INPUT:3`, `INPUT:3`
    Place {
        /// The table, where it is named.
        table: Option<String>,
        /// The chain.
        chain: String,
        /// From 1.
        number: usize,
    },
    /// The line of the dump.
    Line(u32),
}

impl RuleName {
    /// Reads `filter/INPUT:3`, `INPUT:3`, or a line of the dump: `line:12`; a bare number is a rule of INPUT.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        let no = || format!("`{text}` names no rule: `INPUT:3`, `nat/PREROUTING:1`, or `line:12`");
        if let Ok(number) = text.parse::<usize>() {
            return if number > 0 {
                Ok(Self::Place { table: None, chain: "INPUT".to_owned(), number })
            } else {
                Err(no())
            };
        }
        let (place, number) = text.rsplit_once([':', ' ']).ok_or_else(no)?;
        let number: usize = number.parse().ok().filter(|n| *n > 0).ok_or_else(no)?;
        if place == "line" {
            return u32::try_from(number).map(Self::Line).map_err(|_| no());
        }
        let (table, chain) = place.rsplit_once('/').map_or((None, place), |(t, c)| (Some(t.to_owned()), c));
        Ok(Self::Place { table, chain: chain.to_owned(), number })
    }

    fn is(&self, at: &crate::firewall::walk::DecidedBy) -> bool {
        match self {
            Self::Place { table, chain, number } => {
                table.as_ref().is_none_or(|table| *table == at.table)
                    && *chain == at.chain
                    && at.rule.is_some_and(|rule| usize::try_from(rule) == Ok(*number))
            }
            Self::Line(line) => at.line == Some(*line) && at.rule.is_some(),
        }
    }

    fn places(&self, stack: &Stack) -> Result<Vec<(crate::firewall::walk::ChainAt, usize)>, String> {
        let mut found = Vec::new();
        for (at, _, table, chain) in stack.chains() {
            for (index, rule) in chain.rules.iter().enumerate() {
                let fits = match self {
                    Self::Place { table: wanted, chain: name, number } => {
                        wanted.as_ref().is_none_or(|wanted| *wanted == table.name)
                            && chain.name == *name
                            && index + 1 == *number
                    }
                    Self::Line(line) => rule.line == Some(*line),
                };
                if fits {
                    found.push((at, index));
                }
            }
        }
        // `INPUT:3` is the filter's where several tables have one.
        if let Self::Place { table: None, .. } = self
            && found.len() > 1
        {
            let filter: Vec<_> = found
                .iter()
                .copied()
                .filter(|(at, _)| stack.at(*at).is_some_and(|(_, table, _)| table.name == "filter"))
                .collect();
            if !filter.is_empty() {
                found = filter;
            }
        }
        if found.is_empty() { Err("there is no such rule".to_owned()) } else { Ok(found) }
    }
}
