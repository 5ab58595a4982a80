//! Which rulesets a command is about: files, or those in force here.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum};

use super::read;
use crate::cli::Failure;
use crate::firewall::walk::{Issue, Stack};
use crate::firewall::{ParseError, parse};
use crate::host::{Backend, DumpFormat, RulesetDump, Unseen};
use crate::os::nft;
use crate::view::{Paint, Style};

/// Warnings that are printed without `-v`.
const SHOWN: usize = 8;

/// Where the rules come from.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["rules", "live"])))]
pub(super) struct RulesArgs {
    /// A ruleset: iptables-save, ip6tables-save, nft, ipset save; the kind is detected. `-` is
    /// standard input. May be given several times: what one host has
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// The rulesets in force on this host instead of files
    #[arg(long)]
    live: bool,
    /// Sets that the rules name, as `ipset save` prints them
    #[arg(long, value_name = "FILE")]
    ipset: Vec<PathBuf>,
    /// Which iptables runs the rules: they differ on fragments and short headers. Default: what the
    /// dump's header says, else nft
    #[arg(long, value_enum, value_name = "nft|legacy", hide_possible_values = true)]
    backend: Option<BackendArg>,
    /// Refuse (exit 2) what iptables-restore would refuse, and matches and targets that are not known
    #[arg(long)]
    strict: bool,
}

/// `--backend`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum BackendArg {
    Nft,
    Legacy,
}

impl From<BackendArg> for Backend {
    fn from(backend: BackendArg) -> Self {
        match backend {
            BackendArg::Nft => Self::Nft,
            BackendArg::Legacy => Self::Legacy,
        }
    }
}

/// The rulesets of one host, read.
pub(super) struct Loaded {
    /// The rulesets.
    pub(super) stack: Stack,
    /// What was odd about them, each in a text of its own.
    pub(super) warnings: Vec<String>,
    /// The same, of their texts alone, with their places.
    pub(super) odd: Vec<crate::firewall::Warning>,
}

impl RulesArgs {
    /// Whether this host itself is meant.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Whether a ruleset is read from standard input.
    pub(super) fn reads_stdin(&self) -> bool {
        self.rules.iter().chain(&self.ipset).any(|file| file.as_os_str() == "-")
    }

    /// Reads them all.
    ///
    /// # Errors
    /// Usage where a file cannot be read or understood; unknown where this host's rulesets cannot.
    pub(super) fn load(&self) -> anyhow::Result<Loaded> {
        if self.rules.iter().chain(&self.ipset).filter(|file| file.as_os_str() == "-").count() > 1 {
            return Err(Failure::usage("standard input can be read once only", None));
        }
        let mut warnings = Vec::new();
        let dumps = if self.live { live(&mut warnings)? } else { Vec::new() };
        self.read(dumps, &self.rules, &self.ipset, warnings)
    }

    /// Reads these files and puts them together with the dumps that are there.
    fn read(
        &self,
        mut dumps: Vec<RulesetDump>,
        rules: &[PathBuf],
        ipset: &[PathBuf],
        mut warnings: Vec<String>,
    ) -> anyhow::Result<Loaded> {
        for file in rules {
            dumps.push(dump(file, None, &mut warnings)?);
        }
        for file in ipset {
            dumps.push(dump(file, Some(DumpFormat::IpsetSave), &mut warnings)?);
        }
        if let Some(backend) = self.backend {
            for dump in dumps.iter_mut().filter(|dump| dump.format != DumpFormat::NftJson) {
                dump.backend = backend.into();
            }
        }
        let (stack, issues) = Stack::from_dumps(&dumps);
        let unread: Vec<&ParseError> = issues
            .iter()
            .filter_map(|issue| if let Issue::Unread(error) = issue { Some(error) } else { None })
            .collect();
        if let Some(error) = unread.first() {
            return Err(Failure::usage(clean(&error.to_string()), None));
        }
        only_once(&stack)?;
        let told = issues.iter().map(|issue| clean(&issue.to_string()));
        if self.strict {
            strict(&issues, &stack)?;
        }
        warnings.extend(told);
        for ruleset in stack.rulesets().iter().filter(|r| r.tables.is_empty() && r.sets.is_empty()) {
            warnings.push(format!("{}: there is no table in it, so that every packet passes", ruleset.source));
        }
        if stack.rulesets().is_empty() {
            warnings.push("this host has no ruleset, so that every packet passes".to_owned());
        }
        let odd =
            issues.into_iter().filter_map(|issue| if let Issue::Odd(odd) = issue { Some(odd) } else { None }).collect();
        Ok(Loaded { stack, warnings, odd })
    }
}

/// A host has one table of a name, family and backend.
fn only_once(stack: &Stack) -> anyhow::Result<()> {
    let mut seen: Vec<(Backend, crate::firewall::Family, &str, &str)> = Vec::new();
    for ruleset in stack.rulesets() {
        for table in &ruleset.tables {
            let twice = seen
                .iter()
                .find(|(b, f, name, _)| (*b, *f, *name) == (ruleset.backend, table.family, table.name.as_str()));
            if let Some((.., first)) = twice {
                let what = format!(
                    "table {} {} is both in {first} and in {}; a host has only one",
                    table.family, table.name, ruleset.source
                );
                return Err(Failure::usage(what, Some("simulate one at a time, or put their rules into one file")));
            }
            seen.push((ruleset.backend, table.family, &table.name, &ruleset.source));
        }
    }
    Ok(())
}

/// Reads another host's rulesets by the same backend and strictness.
///
/// # Errors
/// Usage where a file cannot be read or understood.
pub(super) fn load_files(files: &[PathBuf], like: &RulesArgs) -> anyhow::Result<Loaded> {
    like.read(Vec::new(), files, &[], Vec::new())
}

/// Reads one host's rulesets from files.
///
/// # Errors
/// Usage where a file cannot be read or understood.
pub(super) fn files(rules: Vec<PathBuf>, ipset: Vec<PathBuf>, backend: Option<BackendArg>) -> anyhow::Result<Loaded> {
    RulesArgs { rules, live: false, ipset, backend, strict: false }.load()
}

/// Reads the rulesets in force here.
///
/// # Errors
/// Unknown where they cannot be read.
pub(super) fn in_force(ipset: Vec<PathBuf>) -> anyhow::Result<Loaded> {
    RulesArgs { rules: Vec::new(), live: true, ipset, backend: None, strict: false }.load()
}

/// What `--strict` refuses.
fn strict(issues: &[Issue], stack: &Stack) -> anyhow::Result<()> {
    let hint = Some("without --strict it is read, and told as a warning");
    for issue in issues {
        if let Issue::Odd(warning) = issue {
            return Err(Failure::usage(clean(&warning.to_string()), hint));
        }
    }
    for (_, ruleset, _, chain) in stack.chains() {
        for (number, rule) in (1..).zip(&chain.rules) {
            if let Some(part) = rule.unknown_parts().first() {
                let line = rule.line.map_or(String::new(), |line| format!(":{line}"));
                let what = format!("{}{line}: {} rule {number}: {part} is not known", ruleset.source, chain.name);
                return Err(Failure::usage(clean(&what), hint));
            }
        }
    }
    Ok(())
}

fn dump(file: &Path, format: Option<DumpFormat>, warnings: &mut Vec<String>) -> anyhow::Result<RulesetDump> {
    let (text, odd) = read::text(file)?;
    let source = read::name(file);
    if odd {
        warnings.push(format!("{source}: some octets are no UTF-8; they are read as \u{fffd}"));
    }
    let mut dump = parse::guess_of(text, &source);
    if let Some(format) = format {
        dump.format = format;
    } else if dump.format == DumpFormat::IptablesSave && named_v6(file) && !dump.text.contains("tables-save") {
        // Nothing in it says its family; Debian keeps ip6tables' rules in rules.v6.
        dump.format = DumpFormat::Ip6tablesSave;
    }
    Ok(dump)
}

fn named_v6(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    ["ip6tables", "rules6", "rules.v6", ".v6."].iter().any(|part| name.contains(part))
}

fn live(warnings: &mut Vec<String>) -> anyhow::Result<Vec<RulesetDump>> {
    let (dumps, unseen) = nft::dumps();
    let told = |unseen: &Unseen| format!("cannot read {}: {}", unseen.fact, unseen.why);
    // Without a ruleset that may be there no packet can be said to pass; without a set the rules
    // that name it are undecidable, and the walk says so.
    let (sets, rulesets): (Vec<_>, Vec<_>) = unseen.iter().partition(|unseen| unseen.fact.ends_with("ipset"));
    if let Some(first) = rulesets.first() {
        return Err(Failure::unknown(told(first), first.hint.as_deref()));
    }
    warnings.extend(sets.into_iter().map(told));
    Ok(dumps)
}

/// Text of a file without what a terminal would obey.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Tells warnings on standard error: the first few, or all with `-v`.
pub(super) fn warn(warnings: &[String], verbose: u8, style: Style) {
    use std::fmt::Write as _;

    let shown = if verbose > 0 { warnings.len() } else { SHOWN };
    let mut text = String::new();
    for warning in warnings.iter().take(shown) {
        let _ = writeln!(text, "{} {warning}", style.paint(Paint::Warn, "warning:"));
    }
    if warnings.len() > shown {
        let more = format!("… and {} more warnings (-v shows all)", warnings.len() - shown);
        let _ = writeln!(text, "{}", style.paint(Paint::Dim, more));
    }
    // A closed standard error is no reason to withhold the answer.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}
