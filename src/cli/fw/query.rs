//! `reachwhy fw query`.

use std::io::{BufWriter, Write};

use clap::{ArgGroup, Args};

use super::rules::{Loaded, RulesArgs, clean, warn};
use crate::cli::{Exit, Failure, Global, print_json};
use crate::firewall::symbolic::{Packets, RuleName, Want, of_rule, query};
use crate::view::{Style, fw as view};

/// What `reachwhy fw query` takes.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("ask").required(true).args(["accept", "drop", "who_can_reach", "rule"])),
    after_help = "A SPACE is a packet expression with lists, ranges, networks and negations, and anything left out:\n\
    --accept 'in=eth0 tcp > 192.168.1.2'   --drop 'udp 10.0.0.0/8 > any:53,1024-2000 ctstate!=ESTABLISHED'\n\
    The answer is exact: every packet in it, and no other. What rests on limits, chance or time is told as `only when`.\n\
    Exit: 0 there are such packets, 1 there is none, 2 bad usage or input, 3 it is not known of some"
)]
pub(super) struct QueryArgs {
    #[command(flatten)]
    rules: RulesArgs,
    /// Which packets (of SPACE) pass
    #[arg(long, value_name = "SPACE", num_args = 0..=1, default_missing_value = "")]
    accept: Option<String>,
    /// Which packets (of SPACE) are dropped or rejected
    #[arg(long, value_name = "SPACE", num_args = 0..=1, default_missing_value = "")]
    drop: Option<String>,
    /// From where a new connection to this address and port gets through
    #[arg(long, value_name = "HOST:PORT")]
    who_can_reach: Option<String>,
    /// Which packets come to this rule and match it: `INPUT:3`, `nat/PREROUTING:1`, or `line:12`
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// With --rule: all packets that come as far as the rule, matched or not
    #[arg(long, requires = "rule")]
    reaching: bool,
}

/// Answers the question.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &QueryArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let (text, want) = match (&args.accept, &args.drop, &args.who_can_reach) {
        (Some(text), ..) => (spaced(text), Want::Accept),
        (_, Some(text), _) => (spaced(text), Want::Drop),
        (_, _, Some(target)) => (reaching(target)?, Want::Accept),
        _ => (String::new(), Want::Accept),
    };
    let packets = Packets::read(&text).map_err(|bad| Failure::usage(clean(&bad.to_string()), None))?;
    let rule = args.rule.as_deref().map(RuleName::read).transpose().map_err(|why| Failure::usage(clean(&why), None))?;
    let Loaded { stack, warnings, .. } = args.rules.load()?;
    warn(&warnings, global.verbose, style);
    let answer = match &rule {
        Some(rule) => {
            of_rule(&stack, &packets, rule, !args.reaching).map_err(|why| Failure::usage(clean(&why), None))?
        }
        None => query(&stack, &packets, want),
    };
    let asked = match (&rule, want) {
        (Some(_), _) if args.reaching => "come to the rule",
        (Some(_), _) => "match the rule",
        (None, Want::Accept) => "pass",
        (None, Want::Drop) => "are dropped",
    };
    if global.json {
        print_json(&answer)?;
    } else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        view::query(&mut out, &answer, asked, style)?;
        out.flush()?;
    }
    Ok(if !answer.regions.is_empty() {
        0
    } else if answer.notes.iter().any(|note| note.contains("not known")) {
        Exit::Unknown.code()
    } else {
        Exit::Problem.code()
    })
}

/// `tcp > 192.168.1.2` has no source: any.
fn spaced(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let arrow = words.iter().position(|word| matches!(*word, ">" | "->"));
    let Some(arrow) = arrow else { return text.to_owned() };
    let is_end = |word: &str| {
        word == "any"
            || word == "*"
            || word.starts_with(['[', '!'])
            || word.starts_with(|c: char| c.is_ascii_digit())
            || word.contains(':') && !word.contains('=')
    };
    let mut fixed: Vec<&str> = words.clone();
    if arrow == 0 || !is_end(words[arrow - 1]) {
        fixed.insert(arrow, "any");
    }
    let arrow = fixed.iter().position(|word| matches!(*word, ">" | "->")).unwrap_or(0);
    if fixed.get(arrow + 1).is_none_or(|word| !is_end(word)) {
        fixed.insert(arrow + 1, "any");
    }
    fixed.join(" ")
}

/// New connections to an address and port, by TCP and UDP.
fn reaching(target: &str) -> anyhow::Result<String> {
    let hint = Some("write it as 192.168.1.2:22, [2001:db8::1]:22, or :22 for any address");
    let (proto, target) = target.split_once("://").unwrap_or(("tcp,udp", target));
    let (host, port) =
        target.rsplit_once(':').ok_or_else(|| Failure::usage(format!("`{target}` has no port"), hint))?;
    let host = if host.is_empty() { "any" } else { host };
    let new = if proto == "tcp" { "syn new" } else { "new" };
    Ok(format!("{proto} any > {host}:{port} {new}"))
}
