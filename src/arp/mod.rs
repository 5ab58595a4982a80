//! Who is on the link: ARP for IPv4, neighbour discovery for IPv6, by the same verbs. Pure.
//!
//! [`sweep`], [`lookup`] and [`inquiry`] are conversations: the time and frames go in, frames come out
//! ([`conversation`]); `os::neighbour` drives them. What they saw goes to [`judge`].

pub mod conversation;
pub mod dad;
pub mod discover;
pub mod filter;
pub mod frame;
pub mod inquiry;
pub mod judge;
pub mod lookup;
pub mod report;
pub mod sweep;
pub mod table;
pub mod targets;
pub mod trial;
pub mod vendor;
pub mod watch;
