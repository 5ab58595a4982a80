//! What a packet filter does with a packet: rulesets as data, one walk, and its words.
//!
//! Pure: no I/O, no clock, no panic. A ruleset is read from text by [`parse`], put together with
//! the host's other rulesets by [`Stack`], and asked about one [`Packet`] by [`walk()`]. The answer
//! carries its cause: the rule or policy that decided, the path of rules to it, and everything
//! that had to be assumed. What cannot be known is answered by both branches, never by a guess.

pub mod compile;
pub mod counters;
pub mod edit;
pub mod explain;
pub mod fix;
pub mod flow;
mod keyed;
pub mod names;
pub mod overview;
pub mod packet;
pub mod parse;
pub mod phases;
pub mod ruleset;
pub mod state;
pub mod symbolic;
pub mod traps;
pub mod walk;

pub use compile::Compiled;
pub use packet::{BadPacket, Packet};
pub use parse::{ParseError, Warning};
pub use ruleset::{Chain, Family, Hook, Match, Rule, Ruleset, Table, Target, Test};
pub use state::History;
pub use walk::{DecidedBy, Facts, Issue, Outcome, Stack, Step, Verdict, walk, walk_with};
