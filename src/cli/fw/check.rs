//! `reachwhy fw check`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::read;
use super::rules::{BackendArg, Loaded, clean, files, in_force, warn};
use crate::cli::{Exit, Failure, Global, print_json};
use crate::firewall::symbolic::{Checked, Policy, Report, Unexercised, changes, check, coverage, generate};
use crate::view::{Style, fw as view};

/// What `reachwhy fw check` takes.
#[derive(Debug, Args)]
#[command(after_help = "A policy is TOML, see rules/README.md:\n\
    [[check]]\n\
    name = \"192.168.1.5 gets no DNS\"\n\
    expect = \"drop\"                       # accept, drop, reject; of a flow: works, fails\n\
    packets = [\"udp 192.168.1.5 > any:53\", \"tcp 192.168.1.5 > any:53\"]\n\
    Without --rules the rulesets are those the policy names (rules = [...]), or POLICY's NAME.rules.\n\
    Exit: 0 every claim is proved, 1 one is refuted, 2 bad usage or input, 3 rulesets cannot be read")]
pub(super) struct CheckArgs {
    /// Policies: TOML files
    #[arg(value_name = "POLICY", required_unless_present = "generate")]
    policies: Vec<PathBuf>,
    /// A ruleset to check instead of those that the policies name; may be given several times
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// Check the rulesets in force on this host
    #[arg(long, conflicts_with = "rules")]
    live: bool,
    /// Sets that the rules name, as `ipset save` prints them
    #[arg(long, value_name = "FILE")]
    ipset: Vec<PathBuf>,
    /// Which iptables runs the rules; default: what the dump's header says, else nft
    #[arg(long, value_enum, value_name = "nft|legacy", hide_possible_values = true)]
    backend: Option<BackendArg>,
    /// The ruleset as it was: only the changes that the policies list (`[[change]]`) are allowed
    #[arg(long, value_name = "OLD")]
    old: Vec<PathBuf>,
    /// Tell the rules that no claim exercises
    #[arg(long)]
    coverage: bool,
    /// Print a first policy of the ruleset instead
    #[arg(long, conflicts_with_all = ["coverage", "old"])]
    generate: bool,
    /// How to print: text, tap, junit (JUnit XML)
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Tap,
    Junit,
}

#[derive(serde::Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<Coverage<'a>>,
}

#[derive(serde::Serialize)]
struct Coverage<'a> {
    rules: usize,
    exercised: usize,
    unexercised: &'a [Unexercised],
}

/// Checks policies.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &CheckArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    if args.generate {
        let loaded = args.load(None, &[])?;
        warn(&loaded.warnings, global.verbose, style);
        std::io::stdout().lock().write_all(generate(&loaded.stack).as_bytes())?;
        return Ok(0);
    }
    let mut checks: Vec<Checked> = Vec::new();
    let mut groups: Vec<(Loaded, Vec<Policy>)> = Vec::new();
    for file in &args.policies {
        let (text, _) = read::text(file)?;
        let policy =
            Policy::read(&text, &read::name(file)).map_err(|bad| Failure::usage(clean(&bad.to_string()), None))?;
        if policy.claims.is_empty() && policy.changes.is_empty() {
            return Err(Failure::usage(clean(&format!("{}: there is no [[check]] in it", policy.source)), None));
        }
        if args.rules.is_empty() && !args.live || groups.is_empty() {
            let loaded = args.load(Some((file, &policy)), &policy.ipset)?;
            warn(&loaded.warnings, global.verbose, style);
            groups.push((loaded, Vec::new()));
        }
        if let Some((loaded, policies)) = groups.last_mut() {
            checks.extend(check(&loaded.stack, &policy));
            policies.push(policy);
        }
    }
    if !args.old.is_empty() {
        let old = files(args.old.clone(), args.ipset.clone(), args.backend)?;
        warn(&old.warnings, global.verbose, style);
        for (loaded, policies) in &groups {
            checks.extend(changes(&old.stack, &loaded.stack, policies));
        }
    }
    let failed = checks.iter().filter(|check| !check.ok).count();
    let report = Report { ok: failed == 0, passed: checks.len() - failed, failed, checks };
    let mut covered: (Vec<Unexercised>, usize) = (Vec::new(), 0);
    if args.coverage {
        for (loaded, policies) in &groups {
            let (missing, count) = coverage(&loaded.stack, policies);
            covered.0.extend(missing);
            covered.1 += count;
        }
    }
    print(args, &report, &covered, global, style)?;
    Ok(if report.ok { 0 } else { Exit::Problem.code() })
}

fn print(
    args: &CheckArgs,
    report: &Report,
    covered: &(Vec<Unexercised>, usize),
    global: &Global,
    style: Style,
) -> anyhow::Result<()> {
    if global.json {
        let unexercised = covered.0.as_slice();
        let coverage = args.coverage.then_some(Coverage {
            rules: covered.1,
            exercised: covered.1 - unexercised.len(),
            unexercised,
        });
        return print_json(&Document { report, coverage });
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    match args.format {
        Format::Text => view::check(&mut out, report, style)?,
        Format::Tap => view::tap(&mut out, report)?,
        Format::Junit => view::junit(&mut out, report)?,
    }
    if args.coverage && args.format == Format::Text {
        view::coverage(&mut out, &covered.0, covered.1, style)?;
    }
    out.flush()?;
    Ok(())
}

impl CheckArgs {
    /// The rulesets that a policy is about.
    fn load(&self, policy: Option<(&PathBuf, &Policy)>, sets: &[String]) -> anyhow::Result<Loaded> {
        if self.live {
            return in_force(self.ipset.clone());
        }
        if !self.rules.is_empty() {
            return files(self.rules.clone(), self.ipset.clone(), self.backend);
        }
        let Some((file, policy)) = policy else {
            return Err(Failure::usage("--generate needs --rules FILE or --live", None));
        };
        let beside = |name: &String| file.parent().unwrap_or(Path::new("")).join(name);
        let mut ipset = self.ipset.clone();
        ipset.extend(sets.iter().map(beside));
        let mut rules: Vec<PathBuf> = policy.rules.iter().map(beside).collect();
        if rules.is_empty() {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stem = name.strip_suffix(".policy.toml").or_else(|| name.strip_suffix(".toml")).unwrap_or(&name);
            let own = beside(&format!("{stem}.rules"));
            if !own.is_file() {
                let what = format!("{}: it names no ruleset, and there is no {stem}.rules beside it", policy.source);
                return Err(Failure::usage(clean(&what), Some("--rules FILE says what to check")));
            }
            rules.push(own);
        }
        files(rules, ipset, self.backend)
    }
}
