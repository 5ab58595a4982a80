//! How this host really resolves a name: glibc's resolver replayed step by step, the source of every
//! answer, and who disagrees. Pure: the files come as [`ResolverFacts`], servers are behind [`Wire`].
//!
//! - [`lookup()`] is `getaddrinfo`: nsswitch.conf's services with their actions (`lookup.rs`), the search
//!   list (`search.rs`), the servers in turn (`send.rs`); [`records()`] and [`reverse()`] are its kin.
//! - [`order()`] sorts as RFC 6724 and gai.conf(5) have it, with the rule for each place.
//! - [`view()`] asks one server by itself, [`trace()`] from the roots down, [`Batch`] many names at once.
//! - [`report`] holds all that is told; [`judge()`] names the causes ([`code`]).
//! - [`dnssec`] tells the chain of keys behind an answer, and where it breaks.
//! - [`lint()`] and [`edit()`] are for the hosts file.
//!
//! The rules are glibc's of 2.36 to 2.42, read in its source; `tests/dns_oracle.rs` holds them to the C
//! library of the machine by random configurations.
mod batch;
mod cdn;
mod compare;
mod conf;
mod direct;
pub mod dnssec;
mod gai;
mod given;
mod hosts_file;
mod judge;
mod lookup;
mod message;
mod name;
mod order;
pub mod report;
pub mod resolved;
mod search;
mod send;
mod trace;
mod wire;

pub use batch::{Batch, BatchAnswer, BatchResult, Datagram, Ending};
pub use conf::{Conf, Paths, ResolverFacts};
pub use direct::{Dnssec, View, ask_for_validation, view};
pub use gai::GaiConf;
pub use given::GivenServer;
pub use hosts_file::{Addition, Edited, LineFinding, edit, lint};
pub use judge::{Extra, SLOW_MS, code, judge};
pub use lookup::{Eai, Family, Found, FoundRecord, Lookup, Origin, ServiceRun, literal, lookup, records, reverse};
pub use message::{Data, Malformed, Manner, Message, Question, RType, Rcode, Record};
pub use name::{DomainName, NameError};
pub use order::{Placed, Rule, SourceFact, order};
pub use search::Candidate;
pub use send::{Exchange, Outcome, STREAM_PATIENCE, patience};
pub use trace::{ROOTS, TraceOptions, TraceStep, Traced, trace};
pub use wire::{ModuleAnswer, NetError, NetErrorKind, Server, Transport, Wire};
