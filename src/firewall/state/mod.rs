//! What a host remembers between packets: flows and their translation, and what rules count.
//!
//! Without a history a packet stands alone with its given state. With one, [`History::step`] walks
//! packet after packet, and conntrack, NAT bindings, `recent` lists, limits, quotas and counters
//! live on. Time is what [`History::at`] says; it never runs by itself.
//!
//! TCP segments that are given by their octets are compared with their windows; others are taken to be
//! within.

mod conntrack;
mod memory;
mod nat;
mod options;
mod rules;
mod session;
mod tcp;
mod tuple;
mod window;

use std::collections::HashMap;
use std::time::Duration;

use super::packet::Packet;
use super::walk::{self, Facts, Outcome, Stack};

pub use conntrack::{Flow, Status};
pub use tcp::{Tcp, TcpState};
pub use tuple::{Dir, Tuple};

pub(crate) use memory::{Key, SetChange, Value};
pub(crate) use nat::{Chosen, Manip, Wanted};
pub(crate) use rules::{Ask, Look};
pub(crate) use session::{Seen, Session, Tracked, is_icmp_error};
pub(crate) use window::Segment;

use session::Draft;

/// What one host remembers. It begins with nothing, as after a reboot.
#[derive(Debug, Clone, Default)]
pub struct History {
    now: Duration,
    /// When the first packet came.
    began: Option<Duration>,
    table: conntrack::Table,
    memory: HashMap<Key, Value>,
}

impl History {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next packets come at this time, measured from any fixed moment. Time does not run
    /// backwards: an earlier one changes nothing.
    pub fn at(&mut self, time: Duration) {
        if time > self.now {
            self.now = time;
            self.table.expire(time);
        }
    }

    /// What time it is.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Walks the host's next packet.
    pub fn step(&mut self, stack: &Stack, packet: &Packet, facts: &Facts<'_>) -> Outcome {
        walk::walk_with(stack, packet, facts, Some(self))
    }

    /// The flows that conntrack knows now, oldest first.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.table.iter().map(|(_, flow)| flow).filter(|flow| flow.expires > self.now)
    }

    /// Keeps what a packet changed. `passed`: it left the host or arrived, so that a flow which it
    /// began is one (`nf_conntrack_confirm`).
    pub(crate) fn keep(&mut self, draft: Draft, passed: bool) {
        self.began.get_or_insert(self.now);
        for id in draft.killed {
            self.table.remove(id);
        }
        self.memory.extend(draft.values);
        let Some(mut current) = draft.current else { return };
        match current.id {
            Some(id) if current.killed => self.table.remove(id),
            Some(id) => self.table.update(id, current.flow),
            None if passed && !current.killed => {
                current.flow.status.set(Status::CONFIRMED);
                self.table.insert(current.flow);
            }
            None => (),
        }
    }
}
