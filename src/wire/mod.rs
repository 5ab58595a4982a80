//! Bytes ↔ typed headers. Pure: needs nothing but the packet types it is built on.

mod mac;

pub use mac::{BadMac, MacAddr};
