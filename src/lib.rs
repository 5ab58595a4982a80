//! reachwhy answers one question: *why can't this host reach that one, and what would change if I
//! touched the firewall?*
//!
//! # The map
//!
//! Every command runs the same three rooms in one direction: **facts → judgement → view**. The
//! modules are the rooms; arrows point down only:
//!
//! ```text
//! cli                       arguments → request → feature → view; exit codes
//!  ├─ view                  what people see; knows the result types, is known by none of them
//!  ├─ lab                   private hosts, services, faults
//!  ├─ doctor                facts of one or two hosts + probe results → the one root cause
//!  │   └─ vantage           the doctor's agents; with cli and lab the only caller of os
//!  ├─ firewall              rulesets, the walk of a packet or a connection, explanations; pure
//!  ├─ trace                 the path to a host: hops, limits, changes, equal ways; pure
//!  ├─ arp                   who is on the link: sweep, lookup, watch; pure
//!  ├─ port                  which ports answer, and who says no; pure
//!  ├─ dns                   what this host resolves a name to, as the C library does; pure
//!  ├─ tcp                   connections read from captures: states, findings, ladders; pure
//!  ├─ dns                   how this host resolves a name: glibc's resolver replayed; pure
//!  ├─ firewall              rulesets, the walk, explanations; pure
//!  ├─ probe                 one engine for every probe, sans-IO; what a conversation is
//!  ├─ host                  what a host is: serialisable facts, pure parsers of its files
//!  └─ wire                  bytes ↔ typed headers; pure
//! os                        system calls, files, clocks, processes, all `unsafe`; implements what
//!                           probe and host ask for
//! ```
//!
//! # Invariants
//!
//! - Outside `os` there is no I/O, no clock, no process, no `unsafe`; `cli` alone prints.
//! - Time and the network are arguments, so tests need no mocks and no sleeping.
//! - A verdict never comes without its cause, and what was not measured is `None`, never 0.
//! - Facts are data: they can be saved, sent and replayed.
//! - A judgement is a pure function; what could not be seen makes it unknown, never ok.
//!
//! `tests/architecture.rs` holds the arrows and the I/O ban.

pub mod arp;
#[cfg(target_os = "linux")]
pub mod cli;
pub mod dns;
#[cfg(target_os = "linux")]
pub mod doctor;
pub mod firewall;
pub mod host;
#[cfg(target_os = "linux")]
pub mod lab;
#[cfg(target_os = "linux")]
pub mod os;
pub mod port;
pub mod probe;
pub mod tcp;
pub mod trace;
pub mod view;
pub mod wire;
