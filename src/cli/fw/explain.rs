//! `reachwhy fw explain`.

use std::io::{BufWriter, Write};

use clap::Args;

use super::rules::{Loaded, RulesArgs, warn};
use super::show::OnlyArgs;
use crate::cli::{Global, print_json};
use crate::firewall::overview::overview;
use crate::firewall::traps::traps;
use crate::view::{Style, fw as view};

/// What `reachwhy fw explain` takes.
#[derive(Debug, Args)]
#[command(after_help = "Traps are told only where the rules alone prove them.\n\
    Exit: 0 the rules were read, whatever they say, 2 bad usage or input")]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    only: OnlyArgs,
}

/// Says every rule in a sentence.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &ExplainArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let Loaded { stack, warnings, .. } = args.rules.load()?;
    warn(&warnings, global.verbose, style);
    let page = overview(&stack, args.only.of());
    args.only.found(&page)?;
    let mut traps = traps(&stack);
    traps.retain(|trap| args.only.wants(&trap.table, &trap.chain));
    if global.json {
        print_json(&serde_json::json!({"tables": page.tables, "sets": page.sets, "traps": traps}))?;
    } else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        view::explain(&mut out, &page, &traps, style)?;
        out.flush()?;
    }
    Ok(0)
}
