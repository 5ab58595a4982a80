//! `reachwhy fw flow`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

use super::packets;
use super::rules::{Loaded, RulesArgs, clean, load_files, warn};
use super::sim::{facts_of, live_facts};
use crate::cli::{Exit, Failure, Global, print_json};
use crate::firewall::fix::FixProposal;
use crate::firewall::flow::{self, FlowOutcome, Host, Way};
use crate::firewall::packet::To;
use crate::firewall::ruleset::CtStates;
use crate::firewall::walk::{Facts, Stack, Verdict};
use crate::firewall::{Hook, Packet, fix, walk};
use crate::host::HostFacts;
use crate::view::{Style, fw as view};

/// What `reachwhy fw flow` takes.
#[derive(Debug, Args)]
#[command(after_help = "--rules is the host of the packet's first hook: the client where the packet has no in=, a\n\
    router where it has in= and out= or to=forward, else the server.\n\
    A server alone:   --rules server.rules --packet 'in=eth0 tcp 192.168.1.2 > 192.168.1.3:8080'\n\
    Both ends:        --rules client.rules --to-rules server.rules --packet 'tcp 192.168.1.2 > 192.168.1.3:8080'\n\
    Exit: 0 every packet of the connection passes, 1 one is stopped, 2 bad usage or input,\n\
    3 it depends on what is not known")]
pub(super) struct FlowArgs {
    #[command(flatten)]
    rules: RulesArgs,
    /// What is known of this host besides: what `reachwhy facts --json` printed there
    #[arg(long, value_name = "FACTS.json")]
    host: Option<PathBuf>,
    /// The rulesets of the host at the other end, the server
    #[arg(long, value_name = "FILE")]
    to_rules: Vec<PathBuf>,
    /// What is known of the host at the other end
    #[arg(long, value_name = "FACTS.json", requires = "to_rules")]
    to_host: Option<PathBuf>,
    /// The packet that opens the connection
    #[arg(long, value_name = "EXPR")]
    packet: String,
}

/// Runs the connection and says which packet is stopped.
///
/// # Errors
/// Bad usage or input, rulesets that cannot be read, or a closed standard output.
pub(super) fn run(args: &FlowArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let near_facts = match &args.host {
        Some(file) => Some(facts_of(file)?),
        None => args.rules.is_live().then(live_facts),
    };
    let far_facts = args.to_host.as_deref().map(facts_of).transpose()?;
    let two = !args.to_rules.is_empty();
    let (first, assumed) = opening(&args.packet, near_facts.as_ref(), two)?;
    let near = args.rules.load()?;
    let far = if two { Some(load_files(&args.to_rules, &args.rules)?) } else { None };
    for Loaded { warnings, .. } in [Some(&near), far.as_ref()].into_iter().flatten() {
        warn(warnings, global.verbose, style);
    }
    let mut hosts = vec![Host {
        name: name(&first, two),
        stack: &near.stack,
        facts: near_facts.as_ref().map_or_else(Facts::none, Facts::of),
    }];
    if let Some(far) = &far {
        let facts = far_facts.as_ref().map_or_else(Facts::none, Facts::of);
        hosts.push(Host { name: "server", stack: &far.stack, facts });
    }
    let outcome = flow::run(&first, &hosts);
    let stack = outcome.first_blocked.as_ref().and_then(|blocked| hosts.iter().find(|host| host.name == blocked.host));
    let fix = stack.and_then(|host| cure(host.stack, &outcome));
    if global.json {
        print_json(&Document { outcome: &outcome, assumed: &assumed, fix: fix.as_ref() })?;
    } else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let fix = fix.as_ref().map(|fix| (fix.explain.as_str(), fix.command.as_str()));
        view::flow(&mut out, &first, &outcome, &assumed, fix, style)?;
        out.flush()?;
    }
    Ok(match &outcome.first_blocked {
        None => 0,
        Some(blocked) if blocked.verdict == Verdict::Unknown => Exit::Unknown.code(),
        Some(_) => Exit::Problem.code(),
    })
}

/// The answer as JSON: the contract's keys, and what was assumed of the question.
#[derive(serde::Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    outcome: &'a FlowOutcome,
    assumed: &'a [String],
    fix: Option<&'a FixProposal>,
}

/// What to call the first host.
fn name(first: &Packet, two: bool) -> &'static str {
    match (&first.in_, two) {
        (None, _) => "client",
        (Some(_), true) => "router",
        (Some(_), false) if first.out.is_some() || first.to == Some(To::Forward) => "router",
        (Some(_), false) => "server",
    }
}

/// The packet that opens the connection, with what a fresh one would have.
fn opening(text: &str, host: Option<&HostFacts>, two: bool) -> anyhow::Result<(Packet, Vec<String>)> {
    let bad = |error: &crate::firewall::ParseError| Failure::usage(clean(&error.to_string()), None);
    let line = text.replace(['\n', '\r'], " ");
    let packet = packets::line("--packet", 1, &line).map_err(|error| bad(&error))?;
    let Some(mut packet) = packet else {
        return Err(Failure::usage("--packet: there is no packet in it", None));
    };
    let mut assumed = Vec::new();
    let (proto, _) = packet.protocol();
    if matches!(proto, 6 | 17 | 33 | 132 | 136) {
        if packet.dport.is_none() {
            let hint = "write it behind the destination: 192.168.1.3:8080, or [fd00::3]:8080";
            return Err(Failure::usage("a connection needs a destination port", Some(hint)));
        }
        if packet.sport.is_none() {
            packet.sport = Some(40_000);
            assumed.push("source port 40000 (an ephemeral one)".to_owned());
        }
    }
    let own = host.and_then(|host| host.addresses.as_deref());
    let here = own.is_some_and(|own| own.iter().any(|address| address.address == packet.dst));
    let comes = matches!(packet.hook, Some(Hook::Prerouting | Hook::Input | Hook::Forward)) || packet.to.is_some();
    if packet.in_.is_none() && (comes || here && !two) {
        packet.in_ = Some("eth0".to_owned());
        assumed.push("it comes in by eth0 (in=IFACE says otherwise)".to_owned());
    }
    if packet.hook == Some(Hook::Forward) && packet.to.is_none() {
        packet.to = Some(To::Forward);
    }
    packet.hook = None;
    Ok((packet, assumed))
}

/// The rule that would let the stopped packet pass, where it is certain that the same rule stops it
/// when it is asked about alone.
fn cure(stack: &Stack, outcome: &FlowOutcome) -> Option<FixProposal> {
    let blocked = outcome.first_blocked.as_ref().filter(|blocked| blocked.verdict.blocks())?;
    let mut packet: Packet = blocked.packet.parse().ok()?;
    packet.ctstate =
        Some(if blocked.dir == Way::Reply || blocked.n > 1 { CtStates::ESTABLISHED } else { CtStates::NEW });
    let alone = walk(stack, &packet, &Facts::none());
    if alone.decided_by != blocked.decided_by {
        return None;
    }
    fix::allow(stack, &alone, &packet)
}
