//! What people see: each result type has one place where it is shown, here. Nothing else prints.

mod facts;
mod style;

pub use facts::facts;
pub use style::{ColorChoice, Paint, Style};
