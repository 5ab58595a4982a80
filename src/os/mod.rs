//! The only home of system calls, files, clocks, processes and `unsafe`.
//!
//! What the pure rooms ask for (facts, packets, the time) is gathered here and handed to them as
//! values. Called from `cli`, `lab` and `doctor::vantage` alone; `tests/architecture.rs` holds it so.

pub mod cable;
pub mod labstate;
pub mod links;
pub mod netlink;
pub mod netns;
pub mod process;
pub mod userns;
