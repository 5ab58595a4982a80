//! What people see: each result type has one place where it is shown, here. Nothing else prints.

#[cfg(target_os = "linux")]
pub mod lab;
pub mod doctor;
mod progress;
mod facts;
mod style;
mod text;

pub use progress::Progress;

pub use facts::facts;
pub use style::{ColorChoice, Paint, Style};
