//! Sets of assignments to boolean variables, as one shared, hash-consed decision diagram.
//!
//! Negation is a bit of the edge (the `hi` edge never carries it), so that complement and difference
//! cost no node. All walks use a stack of their own: a chain of ten thousand `limit` rules makes a
//! diagram ten thousand levels deep, and that must not overflow the thread's stack. Nothing is ever
//! freed: a diagram lives as long as one question.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A set; cheap to copy and to compare. Two equal sets are the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Set(u32);

/// Everything.
pub const ALL: Set = Set(0);
/// Nothing.
pub const NONE: Set = Set(1);

impl Set {
    /// Whether nothing is in it.
    pub fn is_none(self) -> bool {
        self == NONE
    }

    /// Whether everything is in it.
    pub fn is_all(self) -> bool {
        self == ALL
    }

    fn node(self) -> usize {
        (self.0 >> 1) as usize
    }
}

impl std::ops::Not for Set {
    type Output = Self;

    fn not(self) -> Self {
        Self(self.0 ^ 1)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Node {
    level: u32,
    lo: Set,
    hi: Set,
}

/// The level of the two constant sets: below all variables.
const BOTTOM: u32 = u32::MAX;
/// A task of `and` that visits; any other level combines.
const VISIT: u32 = u32::MAX;

/// A hash for small integer keys.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(n)).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.0 ^= self.0 >> 29;
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.0 ^= self.0 >> 29;
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

/// A map with that hash.
pub(super) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// The diagram.
pub struct Bdd {
    nodes: Vec<Node>,
    /// Indices of nodes by their hash, 0 for none (node 0 is the constant and never looked up). The
    /// bits that no index has hold some of the hash, so that few other nodes are looked at.
    table: Vec<u32>,
    /// Results of `and`, the newest of each place.
    cache: Vec<(Set, Set, Set)>,
    tasks: Vec<(u32, Set, Set)>,
    results: Vec<Set>,
}

impl Default for Bdd {
    fn default() -> Self {
        Self::new()
    }
}

impl Bdd {
    /// An empty diagram.
    pub fn new() -> Self {
        Self {
            nodes: vec![Node { level: BOTTOM, lo: ALL, hi: ALL }],
            table: vec![0; 1 << 12],
            cache: vec![(ALL, ALL, ALL); 1 << 12],
            tasks: Vec::new(),
            results: Vec::new(),
        }
    }

    /// How many nodes were made.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The set's topmost variable; `u32::MAX` for the two constants.
    pub(super) fn level(&self, set: Set) -> u32 {
        self.nodes[set.node()].level
    }

    /// The parts of the set where its topmost variable is false and true.
    pub(super) fn parts(&self, set: Set) -> (Set, Set) {
        let node = self.nodes[set.node()];
        let flip = set.0 & 1;
        (Set(node.lo.0 ^ flip), Set(node.hi.0 ^ flip))
    }

    /// Where one variable is true.
    pub(super) fn var(&mut self, level: u32) -> Set {
        self.make(level, NONE, ALL)
    }

    /// `hi` where the variable is true, else `lo`; both of variables below.
    pub(super) fn make(&mut self, level: u32, lo: Set, hi: Set) -> Set {
        if lo == hi {
            return lo;
        }
        let flip = hi.0 & 1;
        let node = Node { level, lo: Set(lo.0 ^ flip), hi: Set(hi.0 ^ flip) };
        Set(self.find(node) << 1 | flip)
    }

    fn find(&mut self, node: Node) -> u32 {
        let mask = self.table.len() - 1;
        let hash = hash(node.level, node.lo.0, node.hi.0);
        let (mut at, tag, own) = (hash & mask, tag(hash, mask), tag(0xffff_ffff, mask));
        loop {
            let entry = self.table[at];
            if entry == 0 {
                break;
            }
            if entry & own == tag && self.nodes[(entry & !own) as usize] == node {
                return entry & !own;
            }
            at = (at + 1) & mask;
        }
        // 2^31 nodes would be 24 GB: memory ends first.
        let index = u32::try_from(self.nodes.len()).unwrap_or(0);
        self.nodes.push(node);
        self.table[at] = index | tag;
        if self.nodes.len() * 8 > self.table.len() * 7 {
            self.grow();
        }
        index
    }

    fn grow(&mut self) {
        let size = self.table.len() * 2;
        let mut table = vec![0u32; size];
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            let hash = hash(node.level, node.lo.0, node.hi.0);
            let mut at = hash & (size - 1);
            while table[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            table[at] = u32::try_from(index).unwrap_or(0) | tag(hash, size - 1);
        }
        self.table = table;
        if self.cache.len() < size / 2 && self.cache.len() < 1 << 22 {
            let old = std::mem::replace(&mut self.cache, vec![(ALL, ALL, ALL); size / 2]);
            let mask = self.cache.len() - 1;
            for entry in old.into_iter().filter(|entry| entry.0 != ALL) {
                self.cache[hash(0, entry.0.0, entry.1.0) & mask] = entry;
            }
        }
    }

    /// What is in both.
    pub fn and(&mut self, f: Set, g: Set) -> Set {
        if let Some(done) = simple(f, g) {
            return done;
        }
        let mut tasks = std::mem::take(&mut self.tasks);
        let mut results = std::mem::take(&mut self.results);
        tasks.push((VISIT, f, g));
        while let Some((level, f, g)) = tasks.pop() {
            if level != VISIT {
                let hi = results.pop().unwrap_or(NONE);
                let lo = results.pop().unwrap_or(NONE);
                let made = self.make(level, lo, hi);
                let mask = self.cache.len() - 1;
                self.cache[hash(0, f.0, g.0) & mask] = (f, g, made);
                results.push(made);
                continue;
            }
            if let Some(done) = simple(f, g) {
                results.push(done);
                continue;
            }
            let (f, g) = if f.0 < g.0 { (f, g) } else { (g, f) };
            let entry = self.cache[hash(0, f.0, g.0) & (self.cache.len() - 1)];
            if entry.0 == f && entry.1 == g {
                results.push(entry.2);
                continue;
            }
            let (of_f, of_g) = (self.level(f), self.level(g));
            let level = of_f.min(of_g);
            let (f_lo, f_hi) = if of_f == level { self.parts(f) } else { (f, f) };
            let (g_lo, g_hi) = if of_g == level { self.parts(g) } else { (g, g) };
            tasks.push((level, f, g));
            tasks.push((VISIT, f_hi, g_hi));
            tasks.push((VISIT, f_lo, g_lo));
        }
        let made = results.pop().unwrap_or(NONE);
        self.tasks = tasks;
        self.results = results;
        made
    }

    /// What is in one or the other.
    pub fn or(&mut self, f: Set, g: Set) -> Set {
        !self.and(!f, !g)
    }

    /// What is in the first and not in the second.
    pub fn minus(&mut self, f: Set, g: Set) -> Set {
        self.and(f, !g)
    }

    /// Whether something is in both; no further looked into than that takes.
    pub(super) fn meet(&self, f: Set, g: Set) -> bool {
        let mut apart: HashSet<(u32, u32), BuildHasherDefault<Mix>> = HashSet::default();
        let mut stack = vec![(f, g)];
        while let Some((f, g)) = stack.pop() {
            if let Some(done) = simple(f, g) {
                if done.is_none() {
                    continue;
                }
                return true;
            }
            if !apart.insert((f.0, g.0)) {
                continue;
            }
            let level = self.level(f).min(self.level(g));
            let split = |set: Set| if self.level(set) == level { self.parts(set) } else { (set, set) };
            let ((f_lo, f_hi), (g_lo, g_hi)) = (split(f), split(g));
            stack.push((f_lo, g_lo));
            stack.push((f_hi, g_hi));
        }
        false
    }

    /// Whether the first lies within the second.
    pub fn within(&mut self, f: Set, g: Set) -> bool {
        self.and(f, !g).is_none()
    }

    /// What is in exactly one of the two.
    pub fn differ(&mut self, f: Set, g: Set) -> Set {
        if f == g {
            return NONE;
        }
        let (a, b) = (self.minus(f, g), self.minus(g, f));
        self.or(a, b)
    }

    /// `then` within the condition, `other` outside.
    pub fn choose(&mut self, condition: Set, then: Set, other: Set) -> Set {
        if then == other || condition.is_all() {
            return then;
        }
        if condition.is_none() {
            return other;
        }
        let level = self.level(condition);
        if self.parts(condition) == (NONE, ALL) && level < self.level(then).min(self.level(other)) {
            return self.make(level, other, then);
        }
        self.if_then_else(condition, then, other)
    }

    /// What needs but one operation of two sets, else nothing.
    fn two_sets(&mut self, f: Set, g: Set, h: Set) -> Option<Set> {
        if g == h || f.is_all() {
            return Some(g);
        }
        if f.is_none() {
            return Some(h);
        }
        if g.is_all() || g == f {
            return Some(self.or(f, h));
        }
        if g.is_none() || g == !f {
            return Some(self.minus(h, f));
        }
        if h.is_none() || h == f {
            return Some(self.and(f, g));
        }
        if h.is_all() || h == !f {
            return Some(self.or(!f, g));
        }
        None
    }

    fn if_then_else(&mut self, f: Set, g: Set, h: Set) -> Set {
        enum Task {
            Visit(Set, Set, Set),
            Make(u32, (Set, Set, Set)),
        }
        let mut done: FastMap<(u32, u32, u32), Set> = FastMap::default();
        let mut tasks = vec![Task::Visit(f, g, h)];
        let mut results: Vec<Set> = Vec::new();
        while let Some(task) = tasks.pop() {
            match task {
                Task::Visit(f, g, h) => {
                    if let Some(set) = self.two_sets(f, g, h).or_else(|| done.get(&(f.0, g.0, h.0)).copied()) {
                        results.push(set);
                        continue;
                    }
                    let level = self.level(f).min(self.level(g)).min(self.level(h));
                    let split = |set: Set| if self.level(set) == level { self.parts(set) } else { (set, set) };
                    let ((f0, f1), (g0, g1), (h0, h1)) = (split(f), split(g), split(h));
                    tasks.push(Task::Make(level, (f, g, h)));
                    tasks.push(Task::Visit(f1, g1, h1));
                    tasks.push(Task::Visit(f0, g0, h0));
                }
                Task::Make(level, (f, g, h)) => {
                    let hi = results.pop().unwrap_or(NONE);
                    let lo = results.pop().unwrap_or(NONE);
                    let made = self.make(level, lo, hi);
                    done.insert((f.0, g.0, h.0), made);
                    results.push(made);
                }
            }
        }
        results.pop().unwrap_or(NONE)
    }

    /// What is in one of them, joined in pairs so that the work is shared evenly.
    pub fn any_of(&mut self, mut sets: Vec<Set>) -> Set {
        while sets.len() > 1 {
            let pairs = sets.chunks(2).map(|pair| match *pair {
                [a, b] => (a, b),
                [a] => (a, NONE),
                _ => (NONE, NONE),
            });
            let pairs: Vec<_> = pairs.collect();
            sets = pairs.into_iter().map(|(a, b)| self.or(a, b)).collect();
        }
        sets.pop().unwrap_or(NONE)
    }

    /// The assignments that are in the set with some values of the variables that `gone` picks.
    pub fn some(&mut self, set: Set, gone: &dyn Fn(u32) -> bool) -> Set {
        let mut done: FastMap<u32, Set> = FastMap::default();
        let mut stack = vec![set];
        while let Some(&top) = stack.last() {
            if top.node() == 0 || done.contains_key(&top.0) {
                stack.pop();
                continue;
            }
            let (lo, hi) = self.parts(top);
            let known = |set: Set, done: &FastMap<u32, Set>| {
                if set.node() == 0 { Some(set) } else { done.get(&set.0).copied() }
            };
            match (known(lo, &done), known(hi, &done)) {
                (Some(lo), Some(hi)) => {
                    let level = self.level(top);
                    let made = if gone(level) { self.or(lo, hi) } else { self.make_any(level, lo, hi) };
                    done.insert(top.0, made);
                    stack.pop();
                }
                (lo_known, hi_known) => {
                    if lo_known.is_none() {
                        stack.push(lo);
                    }
                    if hi_known.is_none() {
                        stack.push(hi);
                    }
                }
            }
        }
        if set.node() == 0 { set } else { done.get(&set.0).copied().unwrap_or(set) }
    }

    /// What the set is where the variables have these values, sorted by variable: without them.
    pub(super) fn given(&mut self, set: Set, values: &[(u32, bool)]) -> Set {
        let Some((last, _)) = values.last() else { return set };
        let value = |level: u32| values.binary_search_by_key(&level, |(own, _)| *own).ok().map(|at| values[at].1);
        // What the top rests on needs no copies.
        let mut top = set;
        while let Some(up) = value(self.level(top)) {
            let (lo, hi) = self.parts(top);
            top = if up { hi } else { lo };
        }
        let mut done: FastMap<u32, Set> = FastMap::default();
        let mut stack = vec![top];
        while let Some(&next) = stack.last() {
            let level = self.level(next);
            if level > *last || done.contains_key(&next.0) {
                stack.pop();
                continue;
            }
            let (lo, hi) = self.parts(next);
            let (lo, hi) = match value(level) {
                Some(true) => (hi, hi),
                Some(false) => (lo, lo),
                None => (lo, hi),
            };
            let known = |set: Set| if self.level(set) > *last { Some(set) } else { done.get(&set.0).copied() };
            match (known(lo), known(hi)) {
                (Some(lo), Some(hi)) => {
                    let made = self.make(level, lo, hi);
                    done.insert(next.0, made);
                    stack.pop();
                }
                (None, _) => stack.push(lo),
                _ => stack.push(hi),
            }
        }
        done.get(&top.0).copied().unwrap_or(top)
    }

    /// The variables at the top of the set that have one value throughout, from the top, and what
    /// the set asks besides.
    pub(super) fn fixed(&self, set: Set) -> (Vec<(u32, bool)>, Set) {
        let (mut at, mut values) = (set, Vec::new());
        while at.node() != 0 {
            let (lo, hi) = self.parts(at);
            match (lo.is_none(), hi.is_none()) {
                (true, _) => {
                    values.push((self.level(at), true));
                    at = hi;
                }
                (_, true) => {
                    values.push((self.level(at), false));
                    at = lo;
                }
                _ => break,
            }
        }
        (values, at)
    }

    fn make_any(&mut self, level: u32, lo: Set, hi: Set) -> Set {
        if level < self.level(lo).min(self.level(hi)) {
            return self.make(level, lo, hi);
        }
        let var = self.var(level);
        self.choose(var, hi, lo)
    }

    /// The assignments that are in the set whatever the variables that `gone` picks.
    pub fn every(&mut self, set: Set, gone: &dyn Fn(u32) -> bool) -> Set {
        !self.some(!set, gone)
    }

    /// The variables that the set rests on, from the top.
    pub fn support(&self, set: Set) -> Vec<u32> {
        let mut seen: HashSet<usize, BuildHasherDefault<Mix>> = HashSet::default();
        let mut levels: Vec<u32> = Vec::new();
        let mut stack = vec![set.node()];
        while let Some(node) = stack.pop() {
            if node == 0 || !seen.insert(node) {
                continue;
            }
            let node = self.nodes[node];
            levels.push(node.level);
            stack.push(node.lo.node());
            stack.push(node.hi.node());
        }
        levels.sort_unstable();
        levels.dedup();
        levels
    }

    /// One assignment in the set, as the variables that it fixes; false where there is a choice.
    /// Nothing for the empty set.
    pub fn pick(&self, set: Set) -> Option<Vec<(u32, bool)>> {
        if set.is_none() {
            return None;
        }
        let (mut at, mut path) = (set, Vec::new());
        while at.node() != 0 {
            let (lo, hi) = self.parts(at);
            let level = self.level(at);
            let up = lo.is_none();
            path.push((level, up));
            at = if up { hi } else { lo };
        }
        Some(path)
    }

    /// Whether the assignment is in the set.
    pub fn holds(&self, set: Set, value: &dyn Fn(u32) -> bool) -> bool {
        let mut at = set;
        while at.node() != 0 {
            let (lo, hi) = self.parts(at);
            at = if value(self.level(at)) { hi } else { lo };
        }
        at.is_all()
    }
}

/// What needs no walk.
fn simple(f: Set, g: Set) -> Option<Set> {
    if f == g || g == ALL {
        return Some(f);
    }
    if f == ALL {
        return Some(g);
    }
    if f == NONE || g == NONE || f == !g {
        return Some(NONE);
    }
    None
}

/// The part of a hash that stands beside an index.
fn tag(hash: usize, mask: usize) -> u32 {
    u32::try_from(hash & !mask & 0xffff_ffff).unwrap_or(0)
}

fn hash(level: u32, lo: u32, hi: u32) -> usize {
    let n = (u64::from(lo) << 32 | u64::from(hi)) ^ u64::from(level).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = n.wrapping_mul(0xff51_afd7_ed55_8ccd);
    usize::try_from((n ^ (n >> 32)) & 0xffff_ffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A set over six variables as the truth table of its 64 assignments.
    fn table(bdd: &Bdd, set: Set) -> u64 {
        (0..64u64).filter(|n| bdd.holds(set, &|level| n >> level & 1 == 1)).fold(0, |all, n| all | 1 << n)
    }

    /// Any set over six variables, by the truth table.
    fn of_table(bdd: &mut Bdd, wanted: u64) -> Set {
        let rows: Vec<Set> = (0..64u64)
            .filter(|n| wanted >> n & 1 == 1)
            .map(|n| {
                (0..6).rev().fold(ALL, |set, level| {
                    if n >> level & 1 == 1 { bdd.make(level, NONE, set) } else { bdd.make(level, set, NONE) }
                })
            })
            .collect();
        bdd.any_of(rows)
    }

    proptest! {
        #[test]
        fn all_operations_agree_with_truth_tables(a: u64, b: u64, c: u64, gone in 0u32..64) {
            let mut bdd = Bdd::new();
            let (x, y, z) = (of_table(&mut bdd, a), of_table(&mut bdd, b), of_table(&mut bdd, c));
            prop_assert_eq!(table(&bdd, x), a);
            let and = bdd.and(x, y);
            prop_assert_eq!(table(&bdd, and), a & b);
            let or = bdd.or(x, y);
            prop_assert_eq!(table(&bdd, or), a | b);
            prop_assert_eq!(table(&bdd, !x), !a);
            let chosen = bdd.choose(x, y, z);
            prop_assert_eq!(table(&bdd, chosen), a & b | !a & c);
            let differ = bdd.differ(x, y);
            prop_assert_eq!(table(&bdd, differ), a ^ b);
            prop_assert_eq!(bdd.within(x, y), a & !b == 0);
            prop_assert_eq!(bdd.meet(x, y), a & b != 0);
            let values: Vec<(u32, bool)> = (0..6).filter(|n| gone >> n & 1 == 1).map(|n| (n, b >> n & 1 == 1)).collect();
            let given = bdd.given(x, &values);
            for n in 0..64u64 {
                let fixed = values.iter().fold(n, |n, (level, up)| if *up { n | 1 << level } else { n & !(1 << level) });
                prop_assert_eq!(table(&bdd, given) >> n & 1, a >> fixed & 1);
            }
            let (values, rest) = bdd.fixed(x);
            let cube = values.iter().rev().fold(ALL, |set, (level, up)| if *up { bdd.make(*level, NONE, set) } else { bdd.make(*level, set, NONE) });
            prop_assert_eq!(bdd.and(cube, rest), x);
            let some = bdd.some(x, &|level| gone >> level & 1 == 1);
            let want = (0..64u64).filter(|n| (0..64u64).any(|m| a >> m & 1 == 1 && (n ^ m) & !u64::from(gone) == 0)).fold(0, |all, n| all | 1 << n);
            prop_assert_eq!(table(&bdd, some), want);
            match bdd.pick(x) {
                None => prop_assert_eq!(a, 0),
                Some(path) => prop_assert!(bdd.holds(x, &|level| path.contains(&(level, true)))),
            }
        }
    }

    #[test]
    fn a_diagram_may_be_a_hundred_thousand_levels_deep() {
        let mut bdd = Bdd::new();
        let odd = (0..100_000).rev().fold(ALL, |set, level| bdd.make(level, NONE, set));
        let other = (0..100_000).rev().fold(NONE, |set, level| bdd.make(level, set, ALL));
        assert_eq!(bdd.and(odd, other), odd);
        assert_eq!(bdd.some(odd, &|level| level != 7), bdd.var(7));
        assert_eq!(bdd.support(odd).len(), 100_000);
    }
}
