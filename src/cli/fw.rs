//! `reachwhy fw …`: what a packet filter does with a packet, and what its rules say.

mod check;
mod diff;
mod explain;
mod flow;
mod lint;
mod packets;
mod pcap;
mod query;
mod read;
mod rules;
mod show;
mod sim;

use clap::{Args, Subcommand};

use super::Global;
use crate::view::Style;

/// Commands about packet filters.
#[derive(Debug, Args)]
pub(super) struct FwArgs {
    #[command(subcommand)]
    command: FwCommand,
}

#[derive(Debug, Subcommand)]
enum FwCommand {
    /// Say what a packet filter does with a packet, and by which rule
    Sim(Box<sim::SimArgs>),
    /// Run a whole connection, both ways, and say which packet is stopped by which rule
    Flow(Box<flow::FlowArgs>),
    /// Find rules that are dead, redundant or contradictory, and classic slips
    Lint(lint::LintArgs),
    /// Say exactly which packets two rulesets treat differently
    Diff(diff::DiffArgs),
    /// Say exactly which packets pass, are dropped, or come to a rule
    Query(query::QueryArgs),
    /// Prove or refute what a policy says of a ruleset, with counterexamples
    Check(check::CheckArgs),
    /// Say every rule in a sentence, and name the traps
    Explain(explain::ExplainArgs),
    /// Show rulesets as tables with their counters
    Show(show::ShowArgs),
}

/// Runs the command.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &FwArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    match &args.command {
        FwCommand::Sim(args) => sim::run(args, global, style),
        FwCommand::Flow(args) => flow::run(args, global, style),
        FwCommand::Lint(args) => lint::run(args, global, style),
        FwCommand::Diff(args) => diff::run(args, global, style),
        FwCommand::Query(args) => query::run(args, global, style),
        FwCommand::Check(args) => check::run(args, global, style),
        FwCommand::Explain(args) => explain::run(args, global, style),
        FwCommand::Show(args) => show::run(args, global, style),
    }
}
