//! What people see: each result type has one place where it is shown, here. Nothing else prints.

mod style;

pub use style::{ColorChoice, Paint, Style};
