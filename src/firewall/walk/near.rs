//! The rule that would have decided otherwise but for one field.

use serde::Serialize;

use crate::firewall::explain;
use crate::firewall::ruleset::{Match, Rule, Side, Target, Test};

use super::flow::{End, Run};
use super::live::{IfaceName, Truth};
use super::place::Place;
use super::stack::{ChainAt, Stack};
use super::{DecidedBy, Verdict};

/// A rule that missed the packet by one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// The rule.
    #[serde(flatten)]
    pub rule: DecidedBy,
    /// What it would have done: `accept`, `drop`, `reject`.
    pub would: String,
    /// The field, in words: `destination port`.
    pub field: String,
    /// What the rule asks of it.
    pub wanted: String,
    /// What the packet has.
    pub had: String,
}

impl NearMiss {
    /// The miss in a sentence.
    pub fn sentence(&self) -> String {
        let NearMiss { rule, would, field, wanted, had } = self;
        format!("{} would {would} it, but for the {field}: it wants {wanted}, the packet has {had}", rule.place())
    }
}

/// A miss, and how many of the rule's matches held.
#[derive(Debug)]
struct Miss {
    fitted: usize,
    /// In which order it was met.
    nth: usize,
    at: Place,
    would: &'static str,
    /// Field, wanted, had.
    differs: (String, String, String),
}

/// The misses of one walk: of each table, hook and verdict the nearest.
#[derive(Debug, Default)]
pub(super) struct Misses {
    found: Vec<Miss>,
    met: usize,
}

impl Misses {
    /// The miss so far of the same table, hook and kind of verdict.
    fn like(&mut self, at: Place, would: &str) -> Option<&mut Miss> {
        let same = |m: &&mut Miss| {
            (m.at.at.ruleset, m.at.at.table, m.at.hook) == (at.at.ruleset, at.at.table, at.hook)
                && (m.would == "accept") == (would == "accept")
        };
        self.found.iter_mut().find(same)
    }

    /// The nearest one that would have changed the end: the rule that fitted most.
    pub(super) fn nearest(&mut self, stack: &Stack, end: &End) -> Option<NearMiss> {
        if self.found.is_empty() {
            return None;
        }
        let passes = end.verdict == Verdict::Accept;
        let by = if passes { None } else { end.by.map(|by| stack.told(by)) };
        let mut best: Option<(Miss, DecidedBy)> = None;
        for miss in std::mem::take(&mut self.found) {
            let rule = stack.told(miss.at);
            // A rule of another table could not have saved a packet that this one drops.
            let same =
                by.as_ref().is_none_or(|by| by.table == rule.table && by.family == rule.family && by.hook == rule.hook);
            let nearer = best
                .as_ref()
                .is_none_or(|(old, _)| miss.fitted > old.fitted || miss.fitted == old.fitted && miss.nth < old.nth);
            if (miss.would == "accept") != passes && same && nearer {
                best = Some((miss, rule));
            }
        }
        best.map(|(miss, rule)| {
            let (field, wanted, had) = miss.differs;
            NearMiss { rule, would: miss.would.to_owned(), field, wanted, had }
        })
    }
}

impl Run<'_> {
    /// Remembers a rule that did not match, if it was by one field only.
    pub(super) fn note_miss(&mut self, at: ChainAt, number: usize, rule: &Rule) {
        let would = match &rule.target {
            Some(Target::Accept) => "accept",
            Some(Target::Drop) => "drop",
            Some(Target::Reject(_)) => "reject",
            _ => return,
        };
        let (mut failed, mut fitted): (Option<&Match>, usize) = (None, 0);
        // What a question assumes to find a near miss is not what the answer rests on.
        let assumed = self.live.assumed.len();
        for m in &rule.matches {
            match self.holds(at, m) {
                Truth::Yes => fitted += usize::from(!matches!(m.test, Test::Comment(_))),
                Truth::Maybe(_) => (),
                Truth::No | Truth::Absent if failed.is_none() => failed = Some(m),
                Truth::No | Truth::Absent => {
                    self.live.assumed.truncate(assumed);
                    (self.live.hotdrop, self.live.hot_but_matching) = (false, false);
                    return;
                }
            }
        }
        self.live.assumed.truncate(assumed);
        (self.live.hotdrop, self.live.hot_but_matching) = (false, false);
        let Some(m) = failed else { return };
        // A rule that has nothing in common with the packet (`-o lo -j ACCEPT`) is not near.
        let weak = matches!(m.test, Test::InInterface(_) | Test::OutInterface(_) | Test::Protocol(_));
        if fitted == 0 && (weak || matches!(&m.test, Test::Compare(c) if c.is_weak())) {
            return;
        }
        let at = self.place(at, number);
        self.misses.met += 1;
        if self.misses.like(at, would).is_some_and(|old| old.fitted >= fitted) {
            return;
        }
        let miss = Miss { fitted, nth: self.misses.met, at, would, differs: self.differs(m) };
        self.live.assumed.truncate(assumed);
        match self.misses.like(at, would) {
            Some(old) => *old = miss,
            None => self.misses.found.push(miss),
        }
    }

    /// The field that a failed match asks about, what it wants and what the packet has.
    fn differs(&mut self, m: &Match) -> (String, String, String) {
        let not = if m.negated { "anything but " } else { "" };
        let live = &mut self.live;
        let iface = |name: IfaceName| match name {
            IfaceName::Known(name) if name.is_empty() => "none here".to_owned(),
            IfaceName::Known(name) => name,
            IfaceName::NotLoopback => "another one".to_owned(),
        };
        let port = |port: Option<u16>| port.map_or("one not given".to_owned(), |p| p.to_string());
        let (field, wanted, had) = match &m.test {
            Test::Source(net) => ("source address", explain::net(net), live.packet.src.to_string()),
            Test::Destination(net) => ("destination address", explain::net(net), live.packet.dst.to_string()),
            Test::InInterface(want) => ("incoming interface", want.to_string(), iface(live.in_iface())),
            Test::OutInterface(want) => ("outgoing interface", want.to_string(), iface(live.out_iface())),
            Test::Protocol(number) => ("protocol", explain::protocol(*number), explain::protocol(live.proto)),
            Test::Port { side: Side::Source, range, .. } => ("source port", range.to_string(), port(live.packet.sport)),
            Test::Port { range, .. } => ("destination port", range.to_string(), port(live.packet.dport)),
            Test::Multiport { side, ranges } => {
                let list: Vec<_> = ranges.iter().map(ToString::to_string).collect();
                let list = format!("one of {}", list.join(", "));
                match side {
                    Side::Source => ("source port", list, port(live.packet.sport)),
                    Side::Destination => ("destination port", list, port(live.packet.dport)),
                    Side::Either => {
                        let both = format!("{} and {}", port(live.packet.sport), port(live.packet.dport));
                        ("source or destination port", list, both)
                    }
                }
            }
            Test::TcpFlags { set, mask } => {
                ("TCP flags", format!("{} of {}", set.names(), mask.names()), live.tcp_flags().names())
            }
            Test::Icmp { .. } => {
                let (kind, code) = live.icmp();
                ("ICMP type", explain::test(&m.test), format!("type {kind} code {code}"))
            }
            Test::Conntrack { .. } => {
                let seen = live.states_seen();
                ("connection state", explain::test(&m.test), seen.names())
            }
            Test::Mark { value, mask } => ("mark", format!("{value:#x}/{mask:#x}"), format!("{:#x}", live.mark)),
            Test::IpRange { side: Side::Source, from, to } => {
                ("source address", format!("{from}-{to}"), live.packet.src.to_string())
            }
            Test::IpRange { from, to, .. } => {
                ("destination address", format!("{from}-{to}"), live.packet.dst.to_string())
            }
            Test::Compare(comparison) => {
                let field: Vec<_> = comparison.fields.iter().map(crate::firewall::ruleset::Field::name).collect();
                let text = Match::is(m.test.clone()).to_string();
                let field = field.join(" . ");
                let wanted = text.strip_prefix(&field).unwrap_or(&text).trim().to_owned();
                let had = self.had(comparison);
                return (field, format!("{not}{wanted}"), had);
            }
            other => ("rest of it", explain::test(other), "something else".to_owned()),
        };
        (field.to_owned(), format!("{not}{wanted}"), had)
    }
}
