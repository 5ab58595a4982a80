//! The kernel's packet filters, without their tools: nf_tables over nfnetlink, and x_tables
//! (iptables-legacy) over socket options.
//!
//! [`dumps`] reads what is in force, [`load_iptables_save`] puts rules in force, [`Ladder`] counts one
//! flow's packets at every hook, [`Tracer`] names the nf_tables rules that a flow's packets meet.

mod attr;
mod conn;
mod dump;
mod error;
mod expr;
mod ipset;
mod iptables;
mod json;
mod ladder;
mod legacy;
mod load;

mod objects;
mod save;
mod trace;
mod xt;

pub use dump::dumps;
pub use error::NftError;
pub use ladder::Ladder;
pub use load::load_iptables_save;
pub use trace::{TraceEvent, TraceKind, Tracer};
