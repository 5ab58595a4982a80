//! `reachwhy facts`: this host's snapshot, for people or as the document that doctor judges by.

use std::io::{BufWriter, Write, stdout};

use clap::Args;

use super::{Global, print_json};
use crate::host::HostFacts;
use crate::os::gather::{GatherOptions, Part, gather};
use crate::view::{Style, facts as show};

/// What `reachwhy facts` takes.
#[derive(Debug, Args)]
pub(super) struct FactsArgs {
    /// Only these parts, with commas between them
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    only: Vec<Part>,
    /// Do not search for the processes that hold the sockets: faster on a host with many
    #[arg(long)]
    no_owners: bool,
}

/// Gathers and shows the facts of the namespace this runs in.
///
/// The exit code is 0, or 3 where a part that was asked for by name could not be read.
///
/// # Errors
/// When standard output is closed.
pub(super) fn run(args: &FactsArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let mut options = GatherOptions::default();
    if !args.only.is_empty() {
        options = GatherOptions::only(args.only.iter().copied());
    }
    options.owners = !args.no_owners;
    let facts = gather(&options);
    if global.json {
        print_json(&facts)?;
    } else {
        let mut out = BufWriter::new(stdout().lock());
        show(&mut out, &facts, style)?;
        out.flush()?;
    }
    let missing = args.only.iter().any(|part| is_missing(&facts, *part));
    Ok(if missing { 3 } else { 0 })
}

fn is_missing(facts: &HostFacts, part: Part) -> bool {
    match part {
        Part::Links => facts.links.is_none(),
        Part::Addresses => facts.addresses.is_none(),
        Part::Routes => facts.routes.is_none(),
        Part::Rules => facts.rules.is_none(),
        Part::Neighbours => facts.neighbours.is_none(),
        Part::Sockets => facts.sockets.is_none(),
        Part::Firewall => facts.firewall.is_none(),
        Part::Sysctls => facts.sysctls.is_empty(),
        Part::Counters => facts.counters.is_empty(),
        // A missing file is a fact of its own.
        Part::Names => false,
    }
}
