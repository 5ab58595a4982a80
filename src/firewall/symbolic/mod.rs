//! Answers for all packets at once: the set that each rule sees, accepts and drops.

mod bdd;
mod condition;
mod diff;
mod env;
mod expr;
mod lint;
mod model;
mod native;
mod query;
mod region;
mod rules;
mod sets;
mod space;
mod survey;

pub use bdd::{ALL, Bdd, NONE, Set};
pub use diff::{Change, Diff, diff};
pub use expr::{BadSpace, Packets};
pub use lint::{CODES, Finding, Severity, lint};
pub use model::{Answer, Fate, Model};
pub use survey::space as variables;
pub use query::{Found, MAX_REGIONS, QueryAnswer, RuleName, Want, families, of_rule, query};
pub use region::{Region, regions};
pub use space::{Field, Names, Open, Space, Way};
