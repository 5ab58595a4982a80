//! The same boxes as trees for different things pending.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::guard::{ANYTHING, Guard};
use super::tree::{Boxes, Span, Tree};

/// Trees kept for different guards; all others share one that rests on nothing.
const KEPT: usize = 6;

/// One side of a box: its dimension, what must not be pending for it to count, and where it lies.
pub(super) type Side<'b> = (usize, Guard, &'b [Span]);

/// Trees over one list, each made when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Variants {
    /// What all sides together rest on.
    guards: OnceLock<Guard>,
    kept: [OnceLock<(Guard, Tree)>; KEPT],
    shared: OnceLock<Tree>,
}

/// A list's boxes: calls back with each thing's sides.
pub(super) trait Source {
    fn dims(&self) -> usize;
    fn each(&self, take: &mut dyn FnMut(&[Side<'_>]));
}

impl Variants {
    pub(super) fn guards(&self, source: &dyn Source) -> Guard {
        *self.guards.get_or_init(|| {
            let mut all = 0;
            source.each(&mut |sides| all = sides.iter().fold(all, |all, (_, guard, _)| all | guard));
            all
        })
    }

    /// The tree that uses no side which rests on something pending.
    pub(super) fn tree(&self, pending: Guard, source: &dyn Source) -> &Tree {
        for slot in &self.kept {
            let (guard, tree) = slot.get_or_init(|| (pending, plant(pending, source)));
            if *guard == pending {
                return tree;
            }
        }
        self.shared.get_or_init(|| plant(Guard::MAX, source))
    }
}

fn plant(pending: Guard, source: &dyn Source) -> Tree {
    let mut boxes = Boxes::new(source.dims());
    source.each(&mut |sides| {
        let counts = |guard: Guard| (guard & (pending | ANYTHING)) == 0;
        let counted = || sides.iter().filter(|(_, guard, _)| counts(*guard));
        let never = counted().any(|(.., spans)| spans.is_empty());
        boxes.push(counted().map(|(dim, _, spans)| (*dim, *spans)), never);
    });
    boxes.tree()
}

/// How often a list was asked. Its tree costs as much as asking every thing in it some times over.
#[derive(Debug, Default)]
pub(super) struct Uses(AtomicU32);

impl Uses {
    /// Whether a tree is worth it by now.
    pub(super) fn warm(&self, warm_up: u32) -> bool {
        self.0.load(Ordering::Relaxed) >= warm_up || self.0.fetch_add(1, Ordering::Relaxed) >= warm_up
    }
}
