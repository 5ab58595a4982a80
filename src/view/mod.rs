//! What people see: each result type has one place where it is shown, here. Nothing else prints.

pub mod arp;
pub mod dns;
pub mod doctor;
pub mod doctor_html;
pub mod doctor_matrix;
pub mod doctor_runs;
mod facts;
pub mod fw;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod port;
mod progress;
mod style;
pub mod tcp;
pub(crate) mod text;
pub mod trace;

pub use progress::Progress;

pub use facts::facts;
pub use style::{ColorChoice, Paint, Style};
