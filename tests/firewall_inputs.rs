//! Every kind of text that people keep their rules in.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::single_match_else,
    clippy::format_collect,
    reason = "tests fail by panicking"
)]

#[path = "firewall_inputs/listing.rs"]
mod listing;
#[path = "firewall_inputs/nft_text.rs"]
mod nft_text;
#[path = "firewall_inputs/props.rs"]
mod props;
#[path = "firewall_inputs/script.rs"]
mod script;
#[path = "firewall_inputs/speed.rs"]
mod speed;
