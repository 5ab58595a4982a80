//! `reachwhy tcp flags X`.

use std::io::Write;

use super::{Failure, Global};
use crate::cli::print_json;
use crate::tcp::flags::{FlagSet, NoFlags, explain};
use crate::view::{self, Style};

/// Which set.
#[derive(Debug, clap::Args)]
pub(super) struct FlagsArgs {
    /// 0x12, 18, SA, S., SYN,ACK, xmas, null
    flags: String,
}

/// A set of the command line.
pub(super) fn parse(text: &str) -> anyhow::Result<FlagSet> {
    text.parse().map_err(|error: NoFlags| Failure::usage(error, Some("0x12, 18, SA, S., SYN,ACK, xmas, null")))
}

/// Explains; 1 where no TCP sends such a set.
pub(super) fn run(args: &FlagsArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let report = explain(parse(&args.flags)?);
    if global.json {
        print_json(&report)?;
    } else {
        let mut out = std::io::stdout().lock();
        view::tcp::flags(&mut out, &report, style)?;
        out.flush()?;
    }
    Ok(u8::from(!report.legal))
}
