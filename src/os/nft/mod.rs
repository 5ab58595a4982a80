//! The kernel's packet filters, without their tools: nf_tables over nfnetlink, and x_tables
//! (iptables-legacy) over socket options.
//!
//! [`Ladder`] counts one flow's packets at every hook.

mod attr;
mod conn;
mod error;
mod expr;
mod ladder;
mod objects;

pub use error::NftError;
pub use ladder::Ladder;
