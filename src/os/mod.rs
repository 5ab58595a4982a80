//! The only home of system calls, files, clocks, processes and `unsafe`.
//!
//! What the pure rooms ask for (facts, packets, the time) is gathered here and handed to them as
//! values. Called from `cli`, `lab` and `doctor::vantage` alone; `tests/architecture.rs` holds it so.

pub mod errno;
pub mod exchange;
pub mod capture;
pub mod clock;
pub mod cable;
pub mod labstate;
pub mod links;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod peer;
pub mod resolve;
pub mod counters;
pub mod files;
pub mod gather;
pub mod privilege;
pub mod route_get;
pub mod probe;
mod ring;
mod sys;
pub mod process;
pub mod userns;
