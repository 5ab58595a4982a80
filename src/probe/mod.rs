//! Probes.

pub mod exchange;
pub mod http;
