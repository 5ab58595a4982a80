//! What people see: each result type has one place where it is shown, here. Nothing else prints.

pub mod doctor;
mod facts;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod port;
mod progress;
mod style;
mod text;

pub use progress::Progress;

pub use facts::facts;
pub use style::{ColorChoice, Paint, Style};
