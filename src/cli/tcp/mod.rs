//! `reachwhy tcp …`: captures read, live traffic watched, flags explained, segments sent, captures compared.

mod compare;
mod flags;
mod read;
mod send;
mod watch;

use std::hash::{BuildHasher, Hasher};
use std::io::Write;

use clap::{Args, Subcommand};

use super::{Failure, Global};
use crate::tcp::filter::Filter;
use crate::view::Style;

/// `reachwhy tcp …`
#[derive(Debug, Args)]
pub(super) struct TcpArgs {
    #[command(subcommand)]
    command: TcpCommand,
}

#[derive(Debug, Subcommand)]
enum TcpCommand {
    /// Read a capture: every connection, what went wrong, and why
    Read(read::ReadArgs),
    /// Watch an interface: each connection as it ends, and what went wrong
    Watch(watch::WatchArgs),
    /// Lay two captures of the same traffic beside each other: sent, arrived, lost, changed
    Compare(compare::CompareArgs),
    /// Explain a set of flags: what it means, who sends it, what answers it
    Flags(flags::FlagsArgs),
    /// Send one crafted segment and judge the answer
    Send(send::SendArgs),
}

/// Does what `args` ask for.
pub(super) fn run(args: &TcpArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    match &args.command {
        TcpCommand::Read(args) => read::run(args, global, style),
        TcpCommand::Watch(args) => watch::run(args, global, style),
        TcpCommand::Compare(args) => compare::run(args, global, style),
        TcpCommand::Flags(args) => flags::run(args, global, style),
        TcpCommand::Send(args) => send::run(args, global, style),
    }
}

/// A filter of the command line.
fn filter(text: &str) -> Result<Filter, String> {
    text.parse().map_err(|error: crate::tcp::filter::BadFilter| error.to_string())
}

/// Writes a JSON line.
fn line(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Tells of something that does not stop the work.
fn warn(text: &str) {
    // Nobody to tell is no reason to fail.
    let _ = writeln!(std::io::stderr(), "warning: {text}");
}

/// A number that no capture's author knows.
fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
