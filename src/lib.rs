//! reachwhy answers one question: *why can't this host reach that one, and what would change if I
//! touched the firewall?*
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(target_os = "linux")]
pub mod cli;
pub mod host;
#[cfg(target_os = "linux")]
pub mod lab;
#[cfg(target_os = "linux")]
pub mod os;
pub mod view;
pub mod wire;
