//! The edge of name resolution: sockets to name servers, the C library's own word, the files of the host.

pub mod asked;
mod batch;
pub mod check;
pub mod compare;
mod doh;
pub mod facts;
mod getaddrinfo;
mod http2;
pub mod module;
mod resolved;
pub mod save;
pub mod source;
mod stop;
pub mod validate;
mod wire;

pub use batch::{BatchOptions, BatchReport, run_batch};
pub use resolved::resolved;
pub use stop::Stop;
pub use wire::SocketWire;
