//! Runs whose next probe depends on what came back.

use super::{Event, Moment, ProbeSpec};

/// What a conductor wants now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Probes to send, in this order.
    pub send: Vec<ProbeSpec>,
    /// When it wants to be asked again, whatever arrives; `None`: only events will bring it on.
    pub wake: Option<Moment>,
    /// Nothing more is wanted: the run ends, whatever is still open.
    pub done: bool,
}

impl Plan {
    /// Whether the run is over, given that the engine has (or has not) open probes.
    pub fn ends(&self, idle: bool) -> bool {
        self.done || (idle && self.send.is_empty() && self.wake.is_none())
    }
}

/// Decides, from what happens, what to send next. Pure: time is an argument, packets are the driver's.
///
/// The driver tells every event, then asks for a plan; this goes on until a plan is done, or is empty when
/// nothing is open any more.
pub trait Conductor {
    /// Something happened.
    fn heard(&mut self, event: &Event, now: Moment);

    /// What is wanted now.
    fn plan(&mut self, now: Moment) -> Plan;
}
