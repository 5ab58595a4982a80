//! How the lab is shown: its lists, its network, the steps of a story.

use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use super::{Paint, Style};
use crate::lab::faults::Step;
use crate::lab::scenarios::Scenario;
use crate::lab::service::ServiceSpec;
use crate::lab::topology::Topology;

/// Who mended a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The doctor's fix was carried out.
    Doctor,
    /// The lab took its fault out itself.
    Lab,
}

/// Something that was done to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The host.
    pub on: String,
    /// As it would be typed, or in words.
    pub command: String,
}

/// What was done to mend a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What was carried out, in order.
    pub steps: Vec<Done>,
    /// Whose fix it was.
    pub by: By,
    /// What the doctor offered, as far as it was read.
    pub offered: Vec<String>,
    /// What was said against a fix of the doctor's that was tried.
    pub refused: Option<String>,
}

/// `text` in lines of at most `width` columns (characters; the lab's texts have no wide ones).
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Two columns: names, and what they are.
fn table(rows: &[(&str, &str)], style: Style) -> String {
    let names = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, what) in rows {
        let room = style.width.saturating_sub(names + 4).max(20);
        for (index, line) in wrap(what, room).iter().enumerate() {
            let name = if index == 0 { *name } else { "" };
            let pad = " ".repeat(names - name.chars().count());
            let _ = writeln!(out, "  {}{pad}  {line}", style.paint(Paint::Name, name));
        }
    }
    out
}

/// `lab list`; `lessons`: exercises without a fault, each with what it is about.
pub fn list(scenarios: &[Scenario], lessons: &[(&str, &str)], topologies: &[Topology], style: Style) -> String {
    let heading = |text: &str| style.paint(Paint::Bold, text);
    let mut out = format!("{}\n", heading("Exercises (reachwhy lab run NAME)"));
    let rows = scenarios.iter().map(|s| (s.name.as_str(), s.summary.as_str()));
    let rows: Vec<_> = rows.chain(lessons.iter().copied()).collect();
    out += &table(&rows, style);
    let _ = write!(out, "\n{}\n", heading("Topologies (reachwhy lab up NAME; any chain-N up to 30)"));
    let rows: Vec<_> = topologies.iter().map(|t| (t.name.as_str(), t.summary.as_str())).collect();
    out += &table(&rows, style);
    out
}

/// `lab list --json`.
pub fn list_json(scenarios: &[Scenario], topologies: &[Topology]) -> String {
    let scenarios: Vec<_> = scenarios
        .iter()
        .map(|s| {
            json!({
                "name": s.name, "summary": s.summary, "lesson": s.lesson, "topology": s.topology.name, "from": s.from,
                "to": s.to, "target": s.target, "layer": s.fault.layer, "cause": s.fault.cause,
                "cause_alone": s.fault.cause_alone,
            })
        })
        .collect();
    let topologies: Vec<_> = topologies.iter().map(|t| json!({ "name": t.name, "summary": t.summary })).collect();
    format!("{:#}\n", json!({ "scenarios": scenarios, "topologies": topologies }))
}

/// The nodes in a row from end to end, where the topology is one row: name and addresses (none for a switch).
fn row(topology: &Topology) -> Option<Vec<(String, Vec<String>)>> {
    let neighbours = |node: &str| -> Vec<&str> {
        topology
            .links
            .iter()
            .filter_map(|link| match (link.a.node == node, link.b.node == node) {
                (true, false) => Some(link.b.node.as_str()),
                (false, true) => Some(link.a.node.as_str()),
                _ => None,
            })
            .collect()
    };
    let mut here = topology.hosts.iter().map(|host| host.name.as_str()).find(|name| neighbours(name).len() == 1)?;
    let mut seen: Vec<&str> = vec![here];
    loop {
        let next: Vec<&str> = neighbours(here).into_iter().filter(|node| !seen.contains(node)).collect();
        match next.as_slice() {
            [] => break,
            [one] => {
                here = one;
                seen.push(here);
            }
            _ => return None,
        }
    }
    let all = topology.hosts.len() + topology.switches.len();
    (seen.len() == all).then(|| {
        let addresses = |node: &str| topology.addresses(node).iter().map(ToString::to_string).collect();
        seen.into_iter().map(|node| (node.to_owned(), addresses(node))).collect()
    })
}

/// The network, as boxes in a row where it is one and there is room, else link by link.
pub fn drawing(topology: &Topology, style: Style) -> String {
    if let Some(text) = row(topology).and_then(|nodes| boxes(topology, &nodes, style)) {
        return text;
    }
    let mut out = String::new();
    for host in &topology.hosts {
        let _ = writeln!(out, "  {} {}", style.paint(Paint::Name, &host.name), style.paint(Paint::Dim, &host.role));
        for end in topology.ends(&host.name) {
            let other = topology.links.iter().find_map(|link| match () {
                () if link.a == *end => Some(&link.b),
                () if link.b == *end => Some(&link.a),
                () => None,
            });
            let to = other.map_or("", |other| other.node.as_str());
            let addresses: Vec<String> = end.addresses.iter().map(ToString::to_string).collect();
            let _ = writeln!(out, "    {}  {}  ── {to}", end.dev, addresses.join(" "));
        }
    }
    out
}

fn boxes(topology: &Topology, nodes: &[(String, Vec<String>)], style: Style) -> Option<String> {
    let mut lines = vec![String::new(); 3];
    let mut width = 2;
    let tall = nodes.iter().map(|(_, addresses)| addresses.len()).max().unwrap_or(1).max(1);
    lines.resize(3 + tall, String::new());
    for (index, (name, addresses)) in nodes.iter().enumerate() {
        let switch = topology.switches.contains(name);
        if switch {
            let text = format!("──[ {name} ]──");
            let columns = text.chars().count();
            for (at, line) in lines.iter_mut().enumerate() {
                *line += &if at == 2 { text.clone() } else { " ".repeat(columns) };
            }
            width += columns;
            continue;
        }
        let after_host = index > 0 && !topology.switches.contains(&nodes[index - 1].0);
        if after_host {
            for (at, line) in lines.iter_mut().enumerate() {
                *line += if at == 2 { "────" } else { "    " };
            }
            width += 4;
        }
        let inner = addresses.iter().map(|text| text.chars().count()).chain([name.chars().count()]).max()?;
        let left = if index == 0 { '│' } else { '┤' };
        let right = if index + 1 == nodes.len() { '│' } else { '├' };
        let pad = |text: &str| " ".repeat(inner - text.chars().count());
        let _ = write!(lines[0], "┌{}┐", "─".repeat(inner + 2));
        let _ = write!(lines[1], "│ {}{} │", style.paint(Paint::Name, name), pad(name));
        for at in 0..tall {
            let text = addresses.get(at).map_or("", String::as_str);
            let (left, right) = if at == 0 { (left, right) } else { ('│', '│') };
            let _ = write!(lines[2 + at], "{left} {text}{} {right}", pad(text));
        }
        let _ = write!(lines[2 + tall], "└{}┘", "─".repeat(inner + 2));
        width += inner + 4;
    }
    (width <= style.width).then(|| indented(lines.iter().map(|line| line.trim_end())))
}

fn paragraph(text: &str, style: Style) -> String {
    indented(wrap(text, style.width.saturating_sub(2)).iter().map(String::as_str))
}

fn indented<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.fold(String::new(), |out, line| out + "  " + line + "\n")
}

/// The first words of a story, and its network.
pub fn opening(scenario: &Scenario, style: Style) -> String {
    let mut out = format!("{} {}\n", style.paint(Paint::Bold, "lab"), style.paint(Paint::Name, &scenario.name));
    out += &paragraph(&scenario.summary, style);
    out.push('\n');
    out += &drawing(&scenario.topology, style);
    let _ = writeln!(out, "\n  {} asks {} for {}", scenario.from, scenario.to, scenario.target);
    out
}

/// What runs where.
pub fn services(services: &[(ServiceSpec, u32)], style: Style) -> String {
    let mut out = String::new();
    for (spec, pid) in services {
        let line = format!("{} runs {} (pid {pid})", spec.host, spec.name);
        let _ = writeln!(out, "  {}", style.paint(Paint::Dim, line));
    }
    out
}

/// The head of a step.
pub fn step(number: u32, title: &str, command: Option<&str>, style: Style) -> String {
    let mut out = format!("\n{}\n", style.paint(Paint::Bold, format!("{number}. {title}")));
    if let Some(command) = command {
        let _ = writeln!(out, "   {}", style.paint(Paint::Command, format!("$ {command}")));
    }
    out.push('\n');
    out
}

/// What was changed, as it would be typed.
pub fn changes(steps: &[Step], style: Style) -> String {
    let mut out = String::new();
    for step in steps.iter().filter(|step| !step.only_waits()) {
        let command = style.paint(Paint::Command, step.describe());
        let _ = writeln!(out, "   {}# {command}", style.paint(Paint::Name, &step.on));
    }
    out
}

/// Which rules of a host went and came.
pub fn rules_changed(host: &str, before: &str, after: &str, style: Style) -> String {
    let mut out = String::new();
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    for line in old.iter().filter(|line| !new.contains(line)) {
        let _ = writeln!(out, "   {host}: {}", style.paint(Paint::Bad, format!("- {line}")));
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        let _ = writeln!(out, "   {host}: {}", style.paint(Paint::Good, format!("+ {line}")));
    }
    out
}

/// What was done to mend it.
pub fn fixed(fix: &Fix, style: Style) -> String {
    let mut out = String::new();
    if let Some(refused) = &fix.refused {
        let _ = writeln!(out, "   {} {refused}", style.paint(Paint::Warn, "the doctor's fix did not work:"));
    }
    if fix.by == By::Lab {
        for command in &fix.offered {
            let _ = writeln!(out, "   the doctor says: {}", style.paint(Paint::Command, command));
        }
        let why = if fix.offered.is_empty() { "no fix was offered" } else { "the lab cannot carry that out" };
        let _ = writeln!(out, "   {}", style.paint(Paint::Dim, format!("({why}; the lab takes its fault out itself)")));
    }
    for done in &fix.steps {
        let command = style.paint(Paint::Command, &done.command);
        let _ = writeln!(out, "   {}# {command}", style.paint(Paint::Name, &done.on));
    }
    out
}

/// The last words of a story.
pub fn closing(
    scenario: &Scenario,
    cause: Option<&str>,
    healthy: Option<&str>,
    fixed: Option<&str>,
    style: Style,
) -> String {
    let mut out = String::from("\n");
    let mut line = |good: bool, text: String| {
        let mark = if good { style.paint(Paint::Good, "✓") } else { style.paint(Paint::Bad, "✗") };
        let _ = writeln!(out, "{mark} {text}");
    };
    line(healthy == Some("ok"), format!("before: {}", healthy.unwrap_or("the doctor gave no verdict")));
    let expected = scenario.fault.cause;
    let found = cause.unwrap_or("no cause");
    line(
        found == expected,
        if found == expected {
            format!("named: {found}")
        } else {
            format!("named: {found}; the fault put in is {expected}")
        },
    );
    line(fixed == Some("ok"), format!("after the fix: {}", fixed.unwrap_or("the doctor gave no verdict")));
    out += &paragraph(&format!("To remember: {}.", scenario.lesson), style);
    out
}

/// What can be done with a lab that is up.
pub fn up(name: &str, first: &str, last: &str, style: Style) -> String {
    let command = |text: String| style.paint(Paint::Command, text);
    format!(
        "\n  the lab {} is up\n    {}   a shell on a host\n    {}\n    {}   ends it\n",
        style.paint(Paint::Name, name),
        command(format!("reachwhy lab shell {first}")),
        command(format!("reachwhy lab shell {first} -- reachwhy doctor … --from netns:{first} --to netns:{last}")),
        command(format!("reachwhy lab down {name}")),
    )
}

/// Which labs were ended.
pub fn down(names: &[&str], style: Style) -> String {
    if names.is_empty() {
        return "no lab is up\n".to_owned();
    }
    names.iter().fold(String::new(), |out, name| out + &style.paint(Paint::Name, name) + " is down\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{scenarios, topology};

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        for width in [40, 60, 80, 120] {
            let style = Style { color: false, width };
            let mut text = list(&scenarios::all(), &[("trace", "a lesson")], &topology::all(), style);
            for scenario in scenarios::all() {
                text += &drawing(&scenario.topology, style);
                text += &paragraph(&scenario.summary, style);
            }
            for topology in topology::all() {
                text += &drawing(&topology, style);
            }
            for line in text.lines() {
                // Names alone may be longer than a very narrow terminal leaves room for.
                assert!(line.chars().count() <= width.max(60), "{width}: {line}");
            }
        }
    }

    #[test]
    fn two_hosts_on_a_switch_are_drawn_side_by_side() {
        let text = drawing(&topology::lan(), Style::PLAIN);
        assert!(text.contains("│ 192.168.1.2/24 ├──[ switch ]──┤ 192.168.1.3/24 │"), "{text}");
    }
}
