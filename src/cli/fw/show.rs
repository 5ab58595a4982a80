//! `reachwhy fw show`.

use std::io::{BufWriter, Write};

use clap::Args;

use super::rules::{Loaded, RulesArgs, warn};
use crate::cli::{Failure, Global, print_json};
use crate::firewall::overview::{Only, Overview, overview};
use crate::view::{Style, fw as view};

/// What `reachwhy fw show` takes.
#[derive(Debug, Args)]
#[command(after_help = "Exit: 0 the rules were read, 2 bad usage or input, 3 this host's could not be read")]
pub(super) struct ShowArgs {
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    only: OnlyArgs,
}

/// Which part of the rulesets.
#[derive(Debug, Args)]
pub(super) struct OnlyArgs {
    /// Only tables of this name
    #[arg(short = 't', long, value_name = "TABLE")]
    table: Option<String>,
    /// Only chains of this name
    #[arg(long, value_name = "CHAIN")]
    chain: Option<String>,
}

impl OnlyArgs {
    /// As the firewall room takes it.
    pub(super) fn of(&self) -> Only<'_> {
        Only { table: self.table.as_deref(), chain: self.chain.as_deref() }
    }

    /// Whether this chain is asked for.
    pub(super) fn wants(&self, table: &str, chain: &str) -> bool {
        self.table.as_deref().is_none_or(|name| name == table) && self.chain.as_deref().is_none_or(|name| name == chain)
    }

    /// Refuses names that nothing has.
    ///
    /// # Errors
    /// Usage.
    pub(super) fn found(&self, page: &Overview) -> anyhow::Result<()> {
        if !page.tables.is_empty() || (self.table.is_none() && self.chain.is_none()) {
            return Ok(());
        }
        let what = match (&self.table, &self.chain) {
            (Some(table), Some(chain)) => format!("there is no chain {chain} in a table {table} here"),
            (None, Some(chain)) => format!("there is no chain {chain} here"),
            (table, None) => format!("there is no table {} here", table.as_deref().unwrap_or_default()),
        };
        Err(Failure::usage(what, Some("`reachwhy fw show` without --table and --chain lists them all")))
    }
}

/// Shows the rulesets.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &ShowArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let Loaded { stack, warnings, .. } = args.rules.load()?;
    warn(&warnings, global.verbose, style);
    let page = overview(&stack, args.only.of());
    args.only.found(&page)?;
    if global.json {
        print_json(&page)?;
    } else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        view::show(&mut out, &page, style)?;
        out.flush()?;
    }
    Ok(0)
}
