//! What people see: each result type has one place where it is shown, here. Nothing else prints.

#[cfg(target_os = "linux")]
pub mod lab;
mod style;

pub use style::{ColorChoice, Paint, Style};
