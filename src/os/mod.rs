//! The only home of system calls, files, clocks, processes and `unsafe`.
//!
//! What the pure rooms ask for (facts, packets, the time) is gathered here and handed to them as
//! values. Called from `cli`, `lab` and `doctor::vantage` alone; `tests/architecture.rs` holds it so.

pub mod asn;
pub mod cable;
pub mod capture;
pub mod capture_file;
pub mod clock;
pub mod counters;
pub mod dns;
pub mod drops;
pub mod errno;
pub mod exchange;
pub mod files;
pub mod gather;
pub mod guard;
pub mod handoff;
pub mod interrupt;
pub mod labstate;
pub mod late;
pub mod links;
pub mod names;
pub mod neighbour;
pub mod neighbour_poke;
pub mod neighbour_table;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod peer;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod resolve;
mod ring;
pub mod route_get;
pub mod scan;
mod sys;
pub mod userns;
