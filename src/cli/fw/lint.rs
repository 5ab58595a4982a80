//! `reachwhy fw lint`.

use std::io::{BufWriter, Write};

use clap::{Args, ValueEnum};

use super::rules::{Loaded, RulesArgs, clean, warn};
use crate::cli::{Exit, Failure, Global, print_json};
use crate::firewall::symbolic::{CODES, Finding, Severity, lint};
use crate::view::{Style, fw as view};

/// What `reachwhy fw lint` takes.
#[derive(Debug, Args)]
#[command(after_help = "A rule is called shadowed or redundant only where that is true for every packet.\n\
    Severities: error, warning, info.\n\
    Exit: 0 nothing but notes, 1 something is wrong, 2 bad usage or input")]
pub(super) struct LintArgs {
    #[command(flatten)]
    rules: RulesArgs,
    /// Tell only these codes
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    only: Vec<String>,
    /// Do not tell these codes
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    skip: Vec<String>,
    /// Tell nothing less than this: info, warning, error
    #[arg(long, value_enum, value_name = "SEVERITY", default_value = "info", hide_possible_values = true)]
    min: Min,
    /// How to print: text or sarif (for code scanning); --json is lint's own
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Min {
    Info,
    Warning,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Sarif,
}

/// Finds what is wrong with a ruleset.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &LintArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    for code in args.only.iter().chain(&args.skip) {
        if !CODES.iter().any(|(own, _)| own == code) {
            let all: Vec<&str> = CODES.iter().map(|(own, _)| *own).collect();
            return Err(Failure::usage(clean(&format!("`{code}` is no code; there are {}", all.join(", "))), None));
        }
    }
    let Loaded { stack, warnings, odd } = args.rules.load()?;
    if global.verbose > 0 {
        warn(&warnings, global.verbose, style);
    }
    let least = match args.min {
        Min::Info => Severity::Info,
        Min::Warning => Severity::Warning,
        Min::Error => Severity::Error,
    };
    let mut findings = lint(&stack, &odd);
    findings.retain(|finding| {
        finding.severity >= least
            && (args.only.is_empty() || args.only.iter().any(|code| code == finding.code))
            && !args.skip.iter().any(|code| code == finding.code)
    });
    let code = if findings.iter().any(|finding| finding.severity > Severity::Info) { Exit::Problem.code() } else { 0 };
    print(&findings, args.format, global, style)?;
    Ok(code)
}

fn print(findings: &[Finding], format: Format, global: &Global, style: Style) -> anyhow::Result<()> {
    if format == Format::Sarif {
        return print_json(&view::sarif(findings));
    }
    if global.json {
        return print_json(&serde_json::json!({ "findings": findings }));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    view::lint(&mut out, findings, style)?;
    out.flush()?;
    Ok(())
}
