//! What has become of the packets at one place of the walk: which variables their fields are now.

use crate::firewall::ruleset::Hook;

use super::bdd::{ALL, NONE, Set};
use super::space::{Field, Space};

/// Where an address is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Addr {
    /// As it came.
    Kept,
    /// In the variables of translated fields.
    New,
    /// As it came, but for these bits (value, mask).
    Mapped(u128, u128),
}

/// The packets' fields as functions of what they were when they entered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Env {
    pub(super) hook: Hook,
    /// The chain runs before conntrack.
    pub(super) early: bool,
    pub(super) came_in: bool,
    pub(super) dst: Addr,
    pub(super) src: Addr,
    pub(super) new_dport: bool,
    pub(super) new_sport: bool,
    /// REDIRECT sent them to this host itself.
    pub(super) redirected: bool,
    /// They were routed again, and by which interface they leave is not known.
    pub(super) rerouted: bool,
    /// MASQUERADE gave them the interface's address.
    pub(super) masked: bool,
    /// A hash that is not computed became their mark.
    pub(super) mark_open: bool,
    pub(super) mark: Vec<Set>,
    pub(super) connmark: Vec<Set>,
    pub(super) ct: Vec<Set>,
    pub(super) snat: Set,
    pub(super) dnat: Set,
    pub(super) ttl: Vec<Set>,
    pub(super) tos: Vec<Set>,
}

impl Env {
    /// Packets as they enter at a hook.
    pub(super) fn entering(space: &mut Space, hook: Hook) -> Self {
        Self {
            hook,
            early: false,
            came_in: hook != Hook::Output,
            dst: Addr::Kept,
            src: Addr::Kept,
            new_dport: false,
            new_sport: false,
            redirected: false,
            rerouted: false,
            masked: false,
            mark_open: false,
            mark: space.word(Field::Mark),
            connmark: space.word(Field::Connmark),
            ct: space.word(Field::Ct),
            snat: NONE,
            dnat: NONE,
            ttl: space.word(Field::Ttl),
            tos: space.word(Field::Tos),
        }
    }

    /// Whether the two place their addresses and ports alike, so that they can be joined.
    pub(super) fn same_shape(&self, other: &Self) -> bool {
        (self.dst, self.src, self.new_dport, self.new_sport) == (other.dst, other.src, other.new_dport, other.new_sport)
            && (self.redirected, self.rerouted, self.masked) == (other.redirected, other.rerouted, other.masked)
    }

    /// This within the set, the other elsewhere; both of one shape.
    pub(super) fn join(&self, within: Set, other: &Self, space: &mut Space) -> Self {
        let mut joined = other.clone();
        let mut words = |mine: &[Set], to: &mut Vec<Set>| {
            for (mine, to) in mine.iter().zip(to.iter_mut()) {
                if mine != to {
                    *to = space.bdd.choose(within, *mine, *to);
                }
            }
        };
        words(&self.mark, &mut joined.mark);
        words(&self.connmark, &mut joined.connmark);
        words(&self.ct, &mut joined.ct);
        words(&self.ttl, &mut joined.ttl);
        words(&self.tos, &mut joined.tos);
        joined.mark_open |= self.mark_open;
        joined.snat = space.bdd.choose(within, self.snat, other.snat);
        joined.dnat = space.bdd.choose(within, self.dnat, other.dnat);
        joined
    }

    /// Where the conntrack state is one of these, as numbers of [`super::space::STATES`].
    pub(super) fn state(&self, space: &mut Space, codes: &[u128]) -> Set {
        space.ask(Field::Ct);
        let sets: Vec<Set> = codes.iter().map(|code| space.word_masked(&self.ct, *code, 7)).collect();
        space.bdd.any_of(sets)
    }

    /// Where the packets belong to a flow that conntrack knows, as this chain sees it.
    pub(super) fn has_flow(&self, space: &mut Space) -> Set {
        let mut flow = self.state(space, &[0, 1, 2]);
        if self.early {
            let lo = self.by_lo(space);
            flow = space.bdd.and(flow, lo);
        }
        flow
    }

    /// Where the packets come by `lo`, whose state is known before conntrack looks.
    pub(super) fn by_lo(&self, space: &mut Space) -> Set {
        if !self.came_in {
            return NONE;
        }
        let lo = space.names.ranges(|name| name == "lo");
        space.within(Field::In, &lo)
    }

    /// Whether nothing but the fields as they came stands behind the state: marks and all.
    pub(super) fn moved(&self) -> bool {
        self.dst != Addr::Kept || self.src != Addr::Kept || self.new_dport || self.new_sport
    }

    /// A set for "the field is there".
    pub(super) fn there(there: bool) -> Set {
        if there { ALL } else { NONE }
    }
}
