//! The walk for large rulesets and many packets.
//!
//! The walk is the same. What is added is an index that tells it, for a packet's fields, which rule
//! of a chain can match next; the rules between would have failed without a trace and are passed
//! over. Each rule that is not passed over is judged by the walk's own code, so that jumps, state,
//! targets and what is not known keep their one meaning. Elements of sets and maps are found the
//! same way.
//!
//! An index is a `tree` over the outlines (`sketch`) of the rules, and is made when its chain has
//! been walked a few times. A rule is passed over only where the tests before the one that fails
//! leave nothing behind (`guard`): what an answer assumes stays the same to the word.

mod guard;
mod members;
mod sketch;
mod tree;
mod variants;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use super::packet::Packet;
use super::ruleset::{Element, Operand, Side, Target, Test};
use super::state::History;
use super::walk::{Answer, ChainAt, Facts, Live, Mode, Outcome, Stack, run};

use guard::{Guard, dim, pending, point};
use members::{Keys, Members};
use sketch::{Face, Scene};
use variants::{Side as BoxSide, Source, Uses, Variants};

pub(in crate::firewall) use members::Known;

/// Chains and sets that are not larger are quicker without an index.
const SMALL: usize = 12;
/// Walks after which an index is worth its making.
const WARM_UP: u32 = 8;

/// A stack of rulesets, made ready for many packets. It answers as [`walk()`](super::walk::walk)
/// does, but for the nearest miss, which is looked for only when asked.
#[derive(Debug)]
pub struct Compiled<'s> {
    stack: &'s Stack,
    index: Index,
}

impl<'s> Compiled<'s> {
    /// Makes a stack ready. Indexes are made as chains turn out to be walked often.
    pub fn new(stack: &'s Stack) -> Self {
        Self { stack, index: Index::new(stack, WARM_UP) }
    }

    /// The same with every index made when its chain is first met.
    pub fn eager(stack: &'s Stack) -> Self {
        Self { stack, index: Index::new(stack, 0) }
    }

    /// What becomes of the packet, in full.
    pub fn walk(&self, packet: &Packet, facts: &Facts<'_>) -> Outcome {
        self.answer(packet, facts, None).outcome()
    }

    /// What becomes of the packet, with what the host remembers where there is a history.
    pub fn answer(&self, packet: &Packet, facts: &Facts<'_>, history: Option<&mut History>) -> Answer<'_> {
        run(
            self.stack,
            packet,
            *facts,
            history,
            Mode { index: Some(&self.index), near: false, one_hook: false, about: None },
        )
    }

    /// The same with the nearest miss, for which every rule on the way is asked.
    pub fn explain(&self, packet: &Packet, facts: &Facts<'_>, history: Option<&mut History>) -> Answer<'_> {
        run(
            self.stack,
            packet,
            *facts,
            history,
            Mode { index: Some(&self.index), near: true, one_hook: false, about: None },
        )
    }
}

/// Takes an address for the number it is.
#[derive(Debug, Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_usize(&mut self, n: usize) {
        self.0 = (n as u64 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type ByPlace<T> = HashMap<usize, T, BuildHasherDefault<Plain>>;

/// Which rules of a chain, and which elements of a set, can be meant.
#[derive(Debug)]
pub(in crate::firewall) struct Index {
    /// Ruleset → table → chain → index into `large`; `u32::MAX` for small chains.
    chains: Vec<Vec<Vec<u32>>>,
    large: Vec<LargeChain>,
    /// Large lists of keys, by where the stack has them; looked for when the first is met.
    keys: OnceLock<ByPlace<Keys>>,
    /// Large ipsets, by where the stack has their elements.
    members: ByPlace<Members>,
    warm_up: u32,
}

#[derive(Debug, Default)]
struct LargeChain {
    uses: Uses,
    /// For IPv4 and IPv6.
    families: [Variants; 2],
}

/// The rules of one chain, for packets of one family.
struct Rules<'s> {
    scene: Scene<'s>,
    rules: &'s [super::ruleset::Rule],
}

impl Source for Rules<'_> {
    fn dims(&self) -> usize {
        dim::COUNT
    }

    fn each(&self, take: &mut dyn FnMut(&[BoxSide<'_>])) {
        for rule in self.rules {
            let faces: Vec<Face> = self.scene.sketch(rule).faces;
            let sides: Vec<BoxSide<'_>> = faces.iter().map(|f| (f.dim, f.guard, f.spans.as_slice())).collect();
            take(&sides);
        }
    }
}

impl Index {
    fn new(stack: &Stack, warm_up: u32) -> Self {
        let small = small(warm_up);
        let mut index =
            Self { chains: Vec::new(), large: Vec::new(), keys: OnceLock::new(), members: ByPlace::default(), warm_up };
        for ruleset in stack.rulesets() {
            let mut tables = Vec::with_capacity(ruleset.tables.len());
            for table in &ruleset.tables {
                let mut chains = Vec::with_capacity(table.chains.len());
                for chain in &table.chains {
                    chains.push(if chain.rules.len() > small {
                        index.large.push(LargeChain::default());
                        u32::try_from(index.large.len() - 1).unwrap_or(u32::MAX)
                    } else {
                        u32::MAX
                    });
                }
                tables.push(chains);
            }
            index.chains.push(tables);
            for set in ruleset.sets.iter().filter(|set| set.elements.len() > small) {
                index.members.insert(set.elements.as_ptr() as usize, Members::default());
            }
        }
        index
    }

    /// Aims at the rules of a chain from `from` on that can match the packet.
    pub(in crate::firewall) fn aim<'a>(
        &'a self,
        cursor: &mut Cursor<'a>,
        stack: &'a Stack,
        at: ChainAt,
        live: &Live,
        history: bool,
    ) {
        cursor.every = true;
        let slot = self.chains.get(at.ruleset).and_then(|t| t.get(at.table)).and_then(|c| c.get(at.chain));
        let Some(large) = slot.and_then(|slot| self.large.get(*slot as usize)) else { return };
        if !large.uses.warm(self.warm_up) {
            return;
        }
        let Some((ruleset, table, chain)) = stack.at(at) else { return };
        let scene = Scene { stack, table, backend: ruleset.backend, v6: live.v6 };
        let rules = Rules { scene, rules: &chain.rules };
        let variants = &large.families[usize::from(live.v6)];
        let guards = variants.guards(&rules);
        let open = pending(live, history, guards);
        cursor.every = false;
        cursor.pending = open;
        cursor.lists.clear();
        let point = point(live);
        variants.tree(open, &rules).find(&point, &mut |list| cursor.lists.push(list));
    }

    /// Whether these keys are many.
    pub(in crate::firewall) fn has_keys(&self, stack: &Stack, place: usize) -> bool {
        self.keys.get_or_init(|| many_keys(stack, small(self.warm_up))).contains_key(&place)
    }

    /// Aims at those of many keys that can equal the values.
    pub(in crate::firewall) fn keys<'a>(
        &'a self,
        cursor: &mut Cursor<'a>,
        place: usize,
        keys: &mut dyn Iterator<Item = &[Operand]>,
        values: &[Option<Known>],
    ) {
        cursor.every = true;
        let Some(list) = self.keys.get().and_then(|keys| keys.get(&place)).filter(|list| list.uses.warm(self.warm_up))
        else {
            return;
        };
        list.find(cursor, keys, values);
    }

    /// Aims at those elements of a large ipset that can hold the packet.
    pub(in crate::firewall) fn members<'a>(
        &'a self,
        cursor: &mut Cursor<'a>,
        elements: &[Element],
        first_only: bool,
        sides: &[Side],
        live: &Live,
    ) {
        cursor.every = true;
        let list = self.members.get(&(elements.as_ptr() as usize));
        let Some(list) = list.filter(|list| list.uses.warm(self.warm_up)) else { return };
        list.find(cursor, elements, first_only, sides, live);
    }
}

/// Lists that are not longer are not indexed.
fn small(warm_up: u32) -> usize {
    if warm_up == 0 { 1 } else { SMALL }
}

/// All lists of more than so many keys.
fn many_keys(stack: &Stack, small: usize) -> ByPlace<Keys> {
    let mut found = ByPlace::default();
    let mut add = |place: usize, count: usize| {
        if count > small {
            found.insert(place, Keys::default());
        }
    };
    for table in stack.rulesets().iter().flat_map(|ruleset| &ruleset.tables) {
        for set in &table.sets {
            add(set.keys.as_ptr() as usize, set.keys.len());
            add(set.verdicts.as_ptr() as usize, set.verdicts.len());
        }
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            for m in &rule.matches {
                if let Test::Compare(c) = &m.test {
                    add(c.operands.as_ptr() as usize, c.operands.len());
                }
            }
            for target in rule.statements.iter().chain(&rule.target) {
                if let Target::VerdictMap(map) = target {
                    add(map.elements.as_ptr() as usize, map.elements.len());
                }
            }
        }
    }
    found
}

/// What can be meant of a list, in its order.
#[derive(Debug)]
pub(in crate::firewall) struct Cursor<'a> {
    /// All of it.
    every: bool,
    lists: Vec<&'a [u32]>,
    pending: Guard,
}

impl Cursor<'_> {
    /// At all of a list.
    pub(in crate::firewall) fn every() -> Self {
        Self { every: true, lists: Vec::new(), pending: 0 }
    }

    /// The first at `from` or behind it; beyond the end of the list where there is none.
    pub(in crate::firewall) fn seek(&mut self, from: usize) -> usize {
        if self.every {
            return from;
        }
        let from = u32::try_from(from).unwrap_or(u32::MAX);
        let mut found = u32::MAX;
        for list in &mut self.lists {
            if list.first().is_some_and(|first| *first < from) {
                let behind = if list.len() <= 8 {
                    list.iter().take_while(|thing| **thing < from).count()
                } else {
                    list.partition_point(|thing| *thing < from)
                };
                *list = &list[behind..];
            }
            found = found.min(list.first().copied().unwrap_or(u32::MAX));
        }
        if found == u32::MAX { usize::MAX } else { found as usize }
    }

    /// Whether a look at a rule may change which ones can match.
    pub(in crate::firewall) fn may_change(&self) -> bool {
        !self.every && self.pending != 0
    }

    /// Whether it passes anything over.
    pub(in crate::firewall) fn chooses(&self) -> bool {
        !self.every
    }
}
