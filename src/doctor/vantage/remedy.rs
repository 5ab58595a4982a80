//! The agent's part of a fix on trial: makes it, says what it changed, keeps it or takes it back.

use super::protocol::Answer;
use crate::doctor::delta;
use crate::host::remedy::{RemedyOrder, Settled};
use crate::os::gather::{GatherOptions, Part, gather};
use crate::os::guard::Guard;

/// A change on trial, and how the host was before it.
pub(super) struct Remedy {
    guard: Guard,
    before: Vec<String>,
}

/// The host's settings, a line each.
fn state() -> Vec<String> {
    delta::state(&gather(&GatherOptions {
        owners: false,
        ..GatherOptions::only([
            Part::Links,
            Part::Addresses,
            Part::Routes,
            Part::Rules,
            Part::Neighbours,
            Part::Sysctls,
            Part::Firewall,
        ])
    }))
}

impl Remedy {
    /// Makes a change.
    pub(super) fn apply(order: &RemedyOrder) -> (Option<Self>, Answer) {
        let before = state();
        match Guard::apply(order) {
            Ok((guard, mut applied)) => {
                applied.changed = delta::changes(&before, &state());
                (guard.map(|guard| Self { guard, before }), Answer::Applied(applied))
            }
            Err(error) => (None, Answer::Failed { why: format!("the fix could not be applied: {error}") }),
        }
    }

    /// Ends the trial.
    pub(super) fn settle(self, keep: bool) -> Answer {
        match self.guard.settle(keep) {
            Ok(settled) => {
                let left = if settled.kept { Vec::new() } else { delta::changes(&self.before, &state()) };
                Answer::Settled(Settled { left, ..settled })
            }
            Err(error) => Answer::Failed { why: error.to_string() },
        }
    }
}
