//! A decision tree over boxes: which of many things may fit a point.
//!
//! Each thing (a rule, an element of a set) is a box: for some dimensions a few intervals, for the
//! others everything. A node cuts one dimension into the elementary intervals of its boxes. A box
//! that covers few of them goes into each; one that covers many, or says nothing of this dimension,
//! goes to the node's rest, which is cut by another dimension, or by the same one once more when only
//! the wide boxes are left. So a point is in at most one interval and the rest of each node on its
//! way, and the tree stays linear in the number of boxes.

/// Lists shorter than this are not cut.
const LEAF: usize = 3;
/// Elementary intervals that a box may be repeated in.
const REPEATS: usize = 8;
/// Boxes looked at to choose a dimension.
const SAMPLE: usize = 768;
/// No tree is deeper.
const DEPTH: usize = 24;

/// An interval of one dimension, both ends included.
pub(super) type Span = (u128, u128);

/// The boxes of `count` things.
pub(super) struct Boxes {
    count: usize,
    dims: Vec<Column>,
    /// Things that fit no point.
    never: Vec<bool>,
}

/// One dimension: each thing's intervals.
#[derive(Default)]
struct Column {
    /// For each thing where its intervals begin; one more for the end.
    first: Vec<u32>,
    spans: Vec<Span>,
}

impl Column {
    fn of(&self, thing: u32) -> &[Span] {
        let thing = thing as usize;
        &self.spans[self.first[thing] as usize..self.first[thing + 1] as usize]
    }
}

impl Boxes {
    pub(super) fn new(dims: usize) -> Self {
        let column = || Column { first: vec![0], spans: Vec::new() };
        Self { count: 0, dims: (0..dims).map(|_| column()).collect(), never: Vec::new() }
    }

    /// Adds the next thing. Of two constraints on one dimension the first is taken.
    pub(super) fn push<'s>(&mut self, spans: impl Iterator<Item = (usize, &'s [Span])>, never: bool) {
        for (dim, spans) in spans {
            let column = &mut self.dims[dim];
            if spans.iter().any(|(low, high)| low > high) {
                continue;
            }
            if column.spans.len() == column.first[self.count] as usize {
                column.spans.extend_from_slice(spans);
            }
        }
        for column in &mut self.dims {
            column.first.push(number(column.spans.len()));
        }
        self.never.push(never);
        self.count += 1;
    }

    pub(super) fn tree(self) -> Tree {
        let all: Vec<u32> = (0..number(self.count)).filter(|thing| !self.never[*thing as usize]).collect();
        let mut build = Build { budget: 16 * self.count + 64, boxes: self, tree: Tree::default() };
        build.tree.root = build.node(all, 0);
        build.tree.entries.shrink_to_fit();
        build.tree.kids.shrink_to_fit();
        build.tree.small.shrink_to_fit();
        build.tree.large.shrink_to_fit();
        build.tree
    }
}

/// Numbers of things fit 32 bits: a text has fewer rules.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A subtree: a list of things, or a node.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    at: u32,
    /// The list's length; [`NODE`] for a node.
    len: u32,
}

const NODE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    dim: usize,
    /// Its bounds are among the large ones.
    wide: bool,
    /// Where the lower bounds of its intervals begin, and how many there are; the first is 0.
    bounds: u32,
    count: u32,
    kids: u32,
    rest: Part,
}

/// Finds what may fit a point.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Part,
    nodes: Vec<Node>,
    kids: Vec<Part>,
    entries: Vec<u32>,
    small: Vec<u32>,
    large: Vec<u128>,
}

impl Tree {
    /// The lists of things that may fit the point, each in rising order.
    pub(super) fn find<'t>(&'t self, point: &[u128], take: &mut dyn FnMut(&'t [u32])) {
        self.part(self.root, point, take);
    }

    fn part<'t>(&'t self, mut part: Part, point: &[u128], take: &mut dyn FnMut(&'t [u32])) {
        loop {
            if part.len != NODE {
                let list = &self.entries[part.at as usize..part.at as usize + part.len as usize];
                if !list.is_empty() {
                    take(list);
                }
                return;
            }
            let node = &self.nodes[part.at as usize];
            let bounds = node.bounds as usize..node.bounds as usize + node.count as usize;
            let value = point[node.dim];
            let above = if node.wide {
                self.large[bounds].partition_point(|bound| *bound <= value)
            } else {
                let value = u32::try_from(value).unwrap_or(u32::MAX);
                self.small[bounds].partition_point(|bound| *bound <= value)
            };
            let kid = self.kids[node.kids as usize + above.saturating_sub(1)];
            if kid.len != 0 {
                self.part(kid, point, take);
            }
            part = node.rest;
        }
    }

    /// Octets that it takes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.nodes.len() * size_of::<Node>()
            + self.kids.len() * size_of::<Part>()
            + self.entries.len() * 4
            + self.small.len() * 4
            + self.large.len() * 16
    }
}

struct Build {
    boxes: Boxes,
    tree: Tree,
    /// Entries that may still be made.
    budget: usize,
}

impl Build {
    fn leaf(&mut self, things: &[u32]) -> Part {
        let at = number(self.tree.entries.len());
        self.tree.entries.extend_from_slice(things);
        self.budget = self.budget.saturating_sub(things.len());
        Part { at, len: number(things.len()) }
    }

    fn node(&mut self, things: Vec<u32>, depth: usize) -> Part {
        if things.len() <= LEAF || depth >= DEPTH || self.budget < things.len() {
            return self.leaf(&things);
        }
        for (cost, dim) in self.costs(&things) {
            if cost > 800 {
                break;
            }
            if let Some(cut) = self.cut(&things, dim) {
                drop(things);
                return self.split(cut, dim, depth);
            }
        }
        self.leaf(&things)
    }

    /// How many in a thousand of the things would still have to be looked at after a cut by each dimension,
    /// for a point that fits one of them; the best dimension first.
    fn costs(&self, things: &[u32]) -> Vec<(usize, usize)> {
        let step = things.len().div_ceil(SAMPLE);
        let sample: Vec<u32> = things.iter().copied().step_by(step).collect();
        let mut costs = Vec::new();
        let (mut lows, mut highs) = (Vec::new(), Vec::new());
        for (dim, column) in self.boxes.dims.iter().enumerate() {
            lows.clear();
            highs.clear();
            let mut bound = 0usize;
            for thing in &sample {
                let spans = column.of(*thing);
                bound += usize::from(!spans.is_empty());
                lows.extend(spans.iter().map(|span| span.0));
                highs.extend(spans.iter().map(|span| span.1));
            }
            if bound == 0 {
                continue;
            }
            lows.sort_unstable();
            highs.sort_unstable();
            let covers: usize =
                lows.iter().map(|low| lows.partition_point(|l| l <= low) - highs.partition_point(|h| h < low)).sum();
            let covers = covers / lows.len();
            let cost = (sample.len() - bound + covers) * 1000 / sample.len();
            costs.push((cost, dim));
        }
        costs.sort_unstable();
        costs
    }

    /// Cuts a dimension; `None` where no box is narrow in it.
    fn cut(&self, things: &[u32], dim: usize) -> Option<Cut> {
        let column = &self.boxes.dims[dim];
        let bounds_of = |things: &mut dyn Iterator<Item = u32>| {
            let mut bounds: Vec<u128> = vec![0];
            for (low, high) in things.flat_map(|thing| column.of(thing)) {
                bounds.push(*low);
                bounds.extend(high.checked_add(1));
            }
            bounds.sort_unstable();
            bounds.dedup();
            bounds
        };
        let place = |bounds: &[u128], value: u128| bounds.partition_point(|bound| *bound <= value) - 1;
        let all = bounds_of(&mut things.iter().copied());
        let covered = |thing: u32| {
            let spans = column.of(thing);
            spans.iter().map(|(low, high)| place(&all, *high) - place(&all, *low) + 1).sum::<usize>()
        };
        let (mut narrow, mut rest) = (Vec::new(), Vec::new());
        for thing in things {
            let n = covered(*thing);
            if n == 0 || n > REPEATS { rest.push(*thing) } else { narrow.push(*thing) }
        }
        if narrow.is_empty() {
            return None;
        }
        let bounds = if rest.is_empty() { all } else { bounds_of(&mut narrow.iter().copied()) };
        // For each interval how many, then which.
        let mut ends = vec![0u32; bounds.len() + 1];
        let ranges: Vec<(u32, u32, u32)> = narrow
            .iter()
            .flat_map(|thing| column.of(*thing).iter().map(move |span| (*thing, span)))
            .map(|(thing, (low, high))| (thing, number(place(&bounds, *low)), number(place(&bounds, *high))))
            .collect();
        for (_, from, to) in &ranges {
            for at in *from..=*to {
                ends[at as usize + 1] += 1;
            }
        }
        for at in 1..ends.len() {
            ends[at] += ends[at - 1];
        }
        let mut lists = vec![0u32; ends.last().copied().unwrap_or(0) as usize];
        let mut next = ends.clone();
        for (thing, from, to) in &ranges {
            for at in *from..=*to {
                lists[next[at as usize] as usize] = *thing;
                next[at as usize] += 1;
            }
        }
        Some(Cut { bounds, ends, lists, rest })
    }

    fn split(&mut self, cut: Cut, dim: usize, depth: usize) -> Part {
        let Cut { bounds, ends, lists, rest } = cut;
        let wide = bounds.last().is_some_and(|last| *last > u128::from(u32::MAX));
        let at = number(self.tree.nodes.len());
        let kids = number(self.tree.kids.len());
        let count = number(bounds.len());
        let start = if wide { self.tree.large.len() } else { self.tree.small.len() };
        if wide {
            self.tree.large.extend_from_slice(&bounds);
        } else {
            self.tree.small.extend(bounds.iter().map(|bound| u32::try_from(*bound).unwrap_or(u32::MAX)));
        }
        drop(bounds);
        self.tree.kids.resize(self.tree.kids.len() + count as usize, Part::default());
        self.tree.nodes.push(Node { dim, wide, bounds: number(start), count, kids, rest: Part::default() });
        for interval in 0..count as usize {
            let list = &lists[ends[interval] as usize..ends[interval + 1] as usize];
            if !list.is_empty() {
                let part = if list.len() <= LEAF { self.leaf(list) } else { self.node(list.to_vec(), depth + 1) };
                self.tree.kids[kids as usize + interval] = part;
            }
        }
        drop(lists);
        self.tree.nodes[at as usize].rest = if rest.is_empty() { Part::default() } else { self.node(rest, depth + 1) };
        Part { at, len: NODE }
    }
}

/// One dimension cut into intervals.
struct Cut {
    bounds: Vec<u128>,
    /// Where each interval's list begins in `lists`; one more for the end.
    ends: Vec<u32>,
    lists: Vec<u32>,
    rest: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_that_fits_is_missed(
            boxes in proptest::collection::vec(proptest::collection::vec((0usize..3, 0u128..40, 0u128..20), 0..4), 0..80),
            points in proptest::collection::vec(proptest::array::uniform3(0u128..64), 1..20),
        ) {
            let mut builder = Boxes::new(3);
            let mut kept: Vec<Vec<(usize, Span)>> = Vec::new();
            for thing in boxes {
                let mut own: Vec<(usize, Span)> = Vec::new();
                for (dim, low, length) in thing {
                    if own.iter().all(|(d, _)| *d != dim) {
                        own.push((dim, (low, low + length)));
                    }
                }
                builder.push(own.iter().map(|(dim, span)| (*dim, std::slice::from_ref(span))), false);
                kept.push(own);
            }
            let tree = builder.tree();
            prop_assert!(tree.size() < 4096 + kept.len() * 800);
            for point in points {
                let mut found = Vec::new();
                tree.find(&point, &mut |list| {
                    assert!(list.is_sorted(), "lists rise");
                    found.extend_from_slice(list);
                });
                for (thing, own) in (0u32..).zip(&kept) {
                    let fits = own.iter().all(|(dim, (low, high))| (*low..=*high).contains(&point[*dim]));
                    prop_assert!(!fits || found.contains(&thing), "{thing} {own:?} {point:?}");
                }
                let mut once = found.clone();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), found.len(), "a thing comes once");
            }
        }
    }
}
