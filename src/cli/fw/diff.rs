//! `reachwhy fw diff`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

use super::rules::{BackendArg, files, warn};
use crate::cli::{Exit, Failure, Global, print_json};
use crate::firewall::symbolic::diff;
use crate::view::{Style, fw as view};

/// What `reachwhy fw diff` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Rulesets that do the same compare as equal, whatever their shape: reordered, split into chains,\n\
    ipset instead of rules, iptables instead of nft. Counters, logs and comments are not compared.\n\
    Exit: 0 equal, 1 they differ (with --only-newly-accepted: something opens up), 2 bad usage or input"
)]
pub(super) struct DiffArgs {
    /// The ruleset as it was: iptables-save, ip6tables-save, nft; the kind is detected
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The ruleset as it will be
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// What the old host has besides: another ruleset, or sets
    #[arg(long, value_name = "FILE")]
    with_old: Vec<PathBuf>,
    /// What the new host has besides
    #[arg(long, value_name = "FILE")]
    with_new: Vec<PathBuf>,
    /// Sets that both sides' rules name, as `ipset save` prints them
    #[arg(long, value_name = "FILE")]
    ipset: Vec<PathBuf>,
    /// Which iptables runs the rules; default: what a dump's header says, else nft
    #[arg(long, value_enum, value_name = "nft|legacy", hide_possible_values = true)]
    backend: Option<BackendArg>,
    /// Tell only what was not accepted and now is
    #[arg(long)]
    only_newly_accepted: bool,
    /// Tell no more regions than this
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    limit: usize,
}

/// Compares two rulesets.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &DiffArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    if args.limit == 0 {
        return Err(Failure::usage("--limit 0 would tell nothing", None));
    }
    let side = |first: &PathBuf, more: &[PathBuf]| {
        let rules: Vec<PathBuf> = std::iter::once(first).chain(more).cloned().collect();
        files(rules, args.ipset.clone(), args.backend)
    };
    let old = side(&args.old, &args.with_old)?;
    let new = side(&args.new, &args.with_new)?;
    warn(&old.warnings, global.verbose, style);
    warn(&new.warnings, global.verbose, style);
    let found = diff(&old.stack, &new.stack, args.only_newly_accepted, args.limit);
    if global.json {
        print_json(&found)?;
    } else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        view::diff(&mut out, &found, args.only_newly_accepted, style)?;
        out.flush()?;
    }
    Ok(if found.equal { 0 } else { Exit::Problem.code() })
}
