//! `reachwhy tcp …`: captures read, live traffic watched, flags explained, segments sent, captures compared.

mod read;

use std::io::{IsTerminal, Write};

use clap::{Args, Subcommand};

use super::{Failure, Global, print_json};
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
}

/// Does what `args` ask for.
pub(super) fn run(args: &TcpArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    match &args.command {
        TcpCommand::Read(args) => read::run(args, global, style),
    }
}
