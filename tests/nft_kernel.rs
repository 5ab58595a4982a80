//! The kernel's packet filters, spoken to in fresh network namespaces that have a loopback and
//! nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "helpers of tests, which fail by panicking and say why they are skipped"
)]

mod nft_kernel {
    pub(crate) mod ladder;
    pub(crate) mod load;
    pub(crate) mod native;
    pub(crate) mod read;
    pub(crate) mod trace;
    pub(crate) mod world;
}
