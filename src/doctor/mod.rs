//! Names the one root cause of a connection that does not work.
//!
//! Facts → judgement → answer: [`examine()`] gathers a [`Case`] through agents at one or two
//! [`vantage`]s; [`judge()`] walks the checks over it, purely, and names the first break in
//! causal order as a [`Diagnosis`]. A case can be saved and judged again anywhere.

mod case;
mod causes;
mod checks;
mod delta;
mod diagnosis;
mod evidence;
mod examine;
mod fix_check;
mod judge;
pub mod lessons;
pub mod matrix;
mod plain;
mod ruling;
mod sightings;
mod target;
pub mod vantage;
mod verify;

pub use case::{After, CASE_SCHEMA, Case, End, Resolution, Trial, Watch};
pub use causes::{Code, Layer};
pub use diagnosis::{Check, Confidence, Diagnosis, Evidence, Fix, RootCause, RuledOut, Rung, Status, Verdict, Where};
pub use examine::{Patience, examine};
pub use fix_check::{FixCheck, fix_check};
pub use judge::judge;
pub use target::{BadTarget, Scheme, Target};
pub use verify::{Attempt, Ends, Outcome, Verification, verify};
