//! Answers for all packets at once: the set that each rule sees, accepts and drops.

mod bdd;
mod condition;
mod env;
mod model;
mod native;
mod rules;
mod sets;
mod space;
mod survey;

pub use bdd::{ALL, Bdd, NONE, Set};
pub use model::{Answer, Fate, Model};
pub use survey::space as variables;
pub use space::{Field, Names, Open, Space, Way};
