//! doctor
mod causes;
mod diagnosis;
mod target;

pub use causes::{Code, Layer};
pub use diagnosis::{Check, Confidence, Diagnosis, Evidence, Fix, RootCause, RuledOut, Rung, Status, Verdict, Where};
pub use target::{BadTarget, Scheme, Target};
