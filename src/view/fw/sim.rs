//! A packet's verdict and its way, phase by phase.

use std::io::{self, Write};

use super::{bare, clean, legacy, painted};
use crate::firewall::Packet;
use crate::firewall::phases::{ChainPhase, Phase, PhaseEnd, PhaseStep, phases};
use crate::firewall::walk::{Branch, DecidedBy, Outcome, Stack, Verdict};
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Steps of one phase, and branches, that are shown; the rest is counted, and is in the JSON.
const SHOWN: usize = 30;

/// How many packets got which verdict.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    counts: [u64; 5],
}

impl Tally {
    const ORDER: [Verdict; 5] = [Verdict::Accept, Verdict::Drop, Verdict::Reject, Verdict::Queue, Verdict::Unknown];

    /// Counts one packet.
    pub fn count(&mut self, verdict: Verdict) {
        for (known, count) in Self::ORDER.iter().zip(&mut self.counts) {
            *count += u64::from(*known == verdict);
        }
    }

    /// Packets with this verdict.
    pub fn of(&self, verdict: Verdict) -> u64 {
        Self::ORDER.iter().zip(self.counts).find(|(known, _)| **known == verdict).map_or(0, |(_, count)| count)
    }

    /// All packets.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Writes how many packets got which verdict.
///
/// # Errors
/// Those of `out`.
pub fn tally(out: &mut dyn Write, tally: &Tally, style: Style) -> io::Result<()> {
    let parts: Vec<String> = Tally::ORDER
        .iter()
        .filter(|verdict| tally.of(**verdict) > 0)
        .map(|verdict| style.paint(look(*verdict).1, format!("{} {}", tally.of(*verdict), past(*verdict))))
        .collect();
    writeln!(out, "\n{} packets: {}", tally.total(), parts.join(", "))
}

pub(super) fn look(verdict: Verdict) -> (&'static str, Paint) {
    match verdict {
        Verdict::Accept => ("✓", Paint::Good),
        Verdict::Drop | Verdict::Reject => ("✗", Paint::Bad),
        Verdict::Queue => ("→", Paint::Warn),
        Verdict::Unknown => ("?", Paint::Warn),
    }
}

pub(super) fn past(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accept => "accepted",
        Verdict::Drop => "dropped",
        Verdict::Reject => "rejected",
        Verdict::Queue => "queued",
        Verdict::Unknown => "unknown",
    }
}

/// `rule 2 of chain INPUT, table ip filter`
pub(super) fn place(by: &DecidedBy) -> String {
    let table = format!("table {} {}{}", by.family, by.table, legacy(by.backend));
    match by.rule {
        Some(rule) => format!("rule {rule} of chain {}, {table}", by.chain),
        None => format!("the policy of chain {}, {table}", by.chain),
    }
}

/// `rules.v4:12`; the source alone where a dump has no lines worth naming.
pub(super) fn source(by: &DecidedBy) -> String {
    match by.line {
        Some(line) => format!("{}:{line}", by.source),
        None => by.source.clone(),
    }
}

/// What to say where the branches agree on the verdict and not on the rule.
fn either_way(outcome: &Outcome) -> &'static str {
    let differ = outcome.branches.iter().any(|branch| branch.decided_by != outcome.decided_by);
    if differ { "whichever branch it takes, in the last one " } else { "" }
}

/// The verdict in one sentence, without its full stop.
fn sentence(packet: &Packet, outcome: &Outcome) -> String {
    let by = outcome.decided_by.as_ref().map(|by| format!("{}by {} ({})", either_way(outcome), place(by), source(by)));
    let reason = || outcome.reason.clone().unwrap_or_else(|| "no chain looks at this packet".to_owned());
    let by = by.unwrap_or_else(|| format!("by no rule: {}", reason()));
    match outcome.verdict {
        Verdict::Accept if outcome.decided_by.is_none() => format!("{packet} passes: {}", reason()),
        Verdict::Accept => format!("{packet} is accepted {by}"),
        Verdict::Drop => format!("{packet} is dropped {by}"),
        Verdict::Reject => {
            let with = outcome.reject_with.as_deref().unwrap_or("an error");
            format!("{packet} is rejected with {with} {by}")
        }
        Verdict::Queue => format!("{packet} is handed to a program {by}"),
        Verdict::Unknown => match &outcome.reason {
            Some(reason) => format!("{packet}: its verdict is unknown, because {reason}"),
            None => format!("{packet}: its verdict is unknown, the branches below differ"),
        },
    }
}

fn headline(out: &mut dyn Write, text: &str, verdict: Verdict, style: Style) -> io::Result<()> {
    let (mark, paint) = look(verdict);
    for line in hang(&format!("{mark} "), &clean(text), style.width).lines() {
        writeln!(out, "{}", style.paint(paint, line))?;
    }
    Ok(())
}

/// One packet of many: its verdict and what decides, without the way.
///
/// # Errors
/// Those of `out`.
pub fn brief(out: &mut dyn Write, packet: &Packet, outcome: &Outcome, style: Style) -> io::Result<()> {
    let (mark, paint) = look(outcome.verdict);
    // Fields that a capture fills in and people do not ask about.
    let mut asked = packet.clone();
    (asked.ttl, asked.tos, asked.length, asked.mac_src, asked.payload) = (None, None, None, None, None);
    let text = sentence(&asked, outcome).replace("the branches below differ", "its branches differ");
    let id = match &outcome.id {
        Some(serde_json::Value::String(id)) => format!("{id}: "),
        Some(id) => format!("{id}: "),
        None => String::new(),
    };
    let text = hang(&format!("{mark} "), &clean(&format!("{id}{text}")), style.width);
    painted(out, &text, mark, paint, style)
}

/// One packet: verdict first, then its way, what came near, what was assumed, what could be else.
///
/// # Errors
/// Those of `out`.
pub fn outcome(out: &mut dyn Write, stack: &Stack, packet: &Packet, outcome: &Outcome, style: Style) -> io::Result<()> {
    headline(out, &sentence(packet, outcome), outcome.verdict, style)?;
    if let Some(by) = outcome.decided_by.as_ref().filter(|by| by.rule.is_some()) {
        write!(out, "{}", hang("    ", &clean(bare(&by.text)), style.width))?;
    }
    branches(out, &outcome.branches, outcome.verdict, style)?;
    let way = phases(stack, packet, outcome);
    if !way.is_empty() {
        let title = if outcome.branches.len() > 1 { "The way, as the last branch has it" } else { "The way" };
        heading(out, title, style)?;
        for (number, phase) in (1..).zip(&way) {
            match phase {
                Phase::Routing { says, assumed } => routing(out, number, says, *assumed, style)?,
                Phase::Chain(phase) => chain(out, number, phase, style)?,
            }
        }
    }
    if let Some(reason) = outcome.reason.as_ref().filter(|_| outcome.verdict == Verdict::Drop && !way.is_empty()) {
        write!(out, "{}", hang("  → ", &clean(reason), style.width))?;
    }
    leaves(out, packet, outcome, style)?;
    if let Some(miss) = &outcome.near_miss {
        heading(out, "Nearest miss", style)?;
        let rule = format!("{} ({})", place(&miss.rule), source(&miss.rule));
        let text = format!(
            "{rule} would {} it, but for the {}: it wants {}, the packet has {}",
            miss.would, miss.field, miss.wanted, miss.had
        );
        write!(out, "{}", hang("  • ", &clean(&text), style.width))?;
    }
    if !outcome.assumed.is_empty() {
        heading(out, "Assumed", style)?;
        for what in &outcome.assumed {
            write!(out, "{}", hang("  • ", &clean(what), style.width))?;
        }
    }
    Ok(())
}

pub(super) fn heading(out: &mut dyn Write, text: &str, style: Style) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint(Paint::Bold, text))
}

fn routing(out: &mut dyn Write, number: usize, says: &str, assumed: bool, style: Style) -> io::Result<()> {
    let first = format!("{number:>3}  ");
    painted(out, &hang(&first, "routing", style.width), "routing", Paint::Name, style)?;
    let assumed = if assumed { " (assumed)" } else { "" };
    write!(out, "{}", hang("       → ", &clean(&format!("{says}{assumed}")), style.width))
}

fn chain(out: &mut dyn Write, number: usize, phase: &ChainPhase, style: Style) -> io::Result<()> {
    let first = format!("{number:>3}  ");
    let priority = phase.priority.map_or(String::new(), |priority| format!(", priority {priority}"));
    let name = clean(&phase.chain);
    let table = format!("{} {}{}", phase.family, clean(&phase.table), legacy(phase.backend));
    let title = format!("{}{priority} · table {table} · chain {name}", phase.hook);
    painted(out, &hang(&first, &title, style.width), phase.hook.name(), Paint::Name, style)?;
    let mut depth = Depth::new(&phase.chain);
    for step in phase.steps.iter().take(SHOWN) {
        let indent = depth.of(step);
        one_step(out, phase, step, indent, style)?;
    }
    if phase.steps.len() > SHOWN {
        let more = format!("… and {} more steps (--json has all)", phase.steps.len() - SHOWN);
        writeln!(out, "       {}", style.paint(Paint::Dim, more))?;
    }
    if let Some(rewrite) = &phase.rewrite {
        let text = format!("{} {} → {}", rewrite.what, rewrite.before, rewrite.after);
        painted(out, &hang("       ⇄ ", &text, style.width), "⇄", Paint::Warn, style)?;
    }
    match phase.end {
        PhaseEnd::Passes => writeln!(out, "       → passes"),
        PhaseEnd::Ends(verdict) => {
            writeln!(out, "       → {}", style.paint(look(verdict).1, past(verdict)))
        }
    }
}

/// How deep in called chains a step stands.
struct Depth {
    chains: Vec<String>,
}

impl Depth {
    fn new(base: &str) -> Self {
        Self { chains: vec![base.to_owned()] }
    }

    fn of(&mut self, step: &PhaseStep) -> usize {
        match self.chains.iter().position(|name| *name == step.at.chain) {
            Some(at) => self.chains.truncate(at + 1),
            None => self.chains.push(step.at.chain.clone()),
        }
        // Deep rulesets would leave no room for their words.
        (self.chains.len() - 1).min(4)
    }
}

fn one_step(out: &mut dyn Write, phase: &ChainPhase, step: &PhaseStep, depth: usize, style: Style) -> io::Result<()> {
    let chain = if step.at.chain == phase.chain { String::new() } else { format!("{} ", step.at.chain) };
    let what = step.at.rule.map_or("policy".to_owned(), |rule| format!("rule {rule}"));
    let line = step.at.line.map_or(String::new(), |line| format!(", line {line}"));
    let seen = step.counters.filter(|counters| counters.packets > 0);
    let seen = seen.map_or(String::new(), |c| format!(" [seen {} packets, {} octets]", c.packets, c.bytes));
    let action = clean(&step.action);
    let indent = " ".repeat(7 + 2 * depth);
    let text = hang(&indent, &clean(&format!("{chain}{what}{line}: {action}{seen}")), style.width);
    painted(out, &text, &action, action_paint(&action), style)?;
    if step.at.rule.is_some() {
        for line in hang(&format!("{indent}  "), &clean(&short(&step.at)), style.width).lines() {
            writeln!(out, "{}", style.paint(Paint::Dim, line))?;
        }
    }
    Ok(())
}

fn action_paint(action: &str) -> Paint {
    match action.split_whitespace().next() {
        Some("accept") => Paint::Good,
        Some("drop" | "reject") => Paint::Bad,
        Some("dnat" | "snat" | "masquerade" | "redirect" | "netmap" | "mark" | "connmark" | "maybe") => Paint::Warn,
        _ => Paint::Bold,
    }
}

/// The rule's text without the `-A CHAIN` that the place has said.
fn short(at: &DecidedBy) -> String {
    let text = bare(&at.text);
    let rest = text.strip_prefix("-A ").and_then(|rest| rest.strip_prefix(&at.chain));
    match rest.map(str::trim) {
        Some("") => "(every packet)".to_owned(),
        Some(rest) => rest.to_owned(),
        None => text.to_owned(),
    }
}

/// The packet as it leaves, where it is not what came.
fn leaves(out: &mut dyn Write, packet: &Packet, outcome: &Outcome, style: Style) -> io::Result<()> {
    if outcome.verdict.blocks() || outcome.verdict == Verdict::Unknown {
        return Ok(());
    }
    // A protocol that was filled in is no change.
    let given = Packet { proto: outcome.packet_out.proto, ..packet.clone() };
    if given == outcome.packet_out {
        return Ok(());
    }
    let title = if outcome.branches.len() > 1 { "As it leaves, in the last branch" } else { "As it leaves" };
    heading(out, title, style)?;
    write!(out, "{}", hang("  ", &clean(&outcome.packet_out.to_string()), style.width))
}

/// The alternatives as a small tree.
fn branches(out: &mut dyn Write, branches: &[Branch], verdict: Verdict, style: Style) -> io::Result<()> {
    if branches.is_empty() {
        return Ok(());
    }
    let title = if verdict == Verdict::Unknown { "It depends" } else { "Either way the same" };
    heading(out, title, style)?;
    let shown = branches.len().min(SHOWN);
    tree(out, &branches[..shown], 0, "  ", style)?;
    if branches.len() > shown {
        let more = format!("… and {} more (--json has all)", branches.len() - shown);
        writeln!(out, "  {}", style.paint(Paint::Dim, more))?;
    }
    Ok(())
}

/// Branches that agree in their first `depth` answers: the next question, and what follows from it.
fn tree(out: &mut dyn Write, branches: &[Branch], depth: usize, lead: &str, style: Style) -> io::Result<()> {
    let Some(first) = branches.first() else { return Ok(()) };
    let Some(given) = first.given.get(depth) else {
        return leaf(out, first, lead, style);
    };
    let question = given.strip_prefix("not: ").unwrap_or(given);
    hung(out, lead, lead, question, style)?;
    let holds = |branch: &Branch| branch.given.get(depth).is_some_and(|given| given == question);
    let split = branches.iter().position(|branch| !holds(branch)).unwrap_or(branches.len());
    let (yes, no) = branches.split_at(split);
    for (part, knee, bar, says) in [(yes, "├─ ", "│  ", "if so"), (no, "└─ ", "   ", "if not")] {
        if part.is_empty() {
            continue;
        }
        let (knee, bar) = if no.is_empty() { ("└─ ", "   ") } else { (knee, bar) };
        writeln!(out, "{lead}{knee}{}", style.paint(Paint::Bold, says))?;
        // However deep it gets, some room is left for words.
        let deeper = if depth < 5 { format!("{lead}{bar}") } else { lead.to_owned() };
        tree(out, part, depth + 1, &deeper, style)?;
    }
    Ok(())
}

fn leaf(out: &mut dyn Write, branch: &Branch, lead: &str, style: Style) -> io::Result<()> {
    let (mark, paint) = look(branch.verdict);
    let by = branch.decided_by.as_ref().map_or(String::new(), |by| format!(" by {}", place(by)));
    let with = branch.reject_with.as_deref().map_or(String::new(), |with| format!(" with {with}"));
    let mut text = Vec::new();
    let says = format!("{}{with}{by}", past(branch.verdict));
    hung(&mut text, &format!("{lead}{mark} "), &format!("{lead}  "), &says, style)?;
    let text = String::from_utf8_lossy(&text);
    painted(out, &text, mark, paint, style)
}

/// `text` wrapped, with a lead of its own for the first line and one for the others.
fn hung(out: &mut dyn Write, first: &str, others: &str, text: &str, style: Style) -> io::Result<()> {
    let room = style.width.saturating_sub(first.chars().count()).max(20);
    for (row, line) in crate::view::text::wrap(&clean(text), room).iter().enumerate() {
        writeln!(out, "{}{line}", if row == 0 { first } else { others })?;
    }
    Ok(())
}
