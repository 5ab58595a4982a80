//! Answers for all packets at once: the set that each rule sees, accepts and drops.

mod bdd;
mod check;
mod condition;
mod diff;
mod env;
mod expr;
mod interfaces;
mod lint;
mod model;
mod native;
mod policy;
mod query;
mod region;
mod rules;
mod sets;
mod space;
mod survey;

pub use bdd::{ALL, Bdd, NONE, Set};
pub use check::{Checked, Report, Unexercised, check, coverage, generate};
pub use diff::{Change, Diff, changes, diff};
pub use expr::{BadSpace, Packets};
pub use interfaces::Names;
pub use lint::{CODES, Finding, Severity, lint};
pub use model::{Answer, Fate, Fates, Model};
pub use policy::{BadPolicy, Claim, Expect, Policy, Quantifier};
pub use query::{Found, MAX_REGIONS, QueryAnswer, RuleName, Want, families, of_rule, query};
pub use region::{Region, regions};
pub use space::{Field, Open, Space, Way};
pub use survey::space as variables;
