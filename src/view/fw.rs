//! What people see of rulesets and of packets' ways through them.

mod check;
mod diff;
mod explain;
mod flow;
mod lint;
mod query;
mod sarif;
mod show;
mod sim;

use std::io::{self, Write};

use super::{Paint, Style};
use crate::firewall::overview::{ChainView, TableView};
use crate::host::Backend;

pub use check::{check, coverage, junit, tap};
pub use diff::diff;
pub use explain::explain;
pub use flow::flow;
pub use lint::lint;
pub use query::query;
pub use sarif::sarif;
pub use show::show;
pub use sim::{Tally, brief, outcome, tally};

/// Text from a file without what a terminal would obey.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A rule's text without the counters that `iptables-save -c` puts before it.
fn bare(text: &str) -> &str {
    if text.starts_with('[') { text.split_once("] ").map_or(text, |(_, rest)| rest) } else { text }
}

/// Writes hanging text whose first appearance of `word` is painted.
fn painted(out: &mut dyn Write, text: &str, word: &str, paint: Paint, style: Style) -> io::Result<()> {
    write!(out, "{}", text.replacen(word, &style.paint(paint, word), 1))
}

/// What tells a table of iptables-legacy from one of the same name in `nf_tables`.
fn legacy(backend: Backend) -> &'static str {
    match backend {
        Backend::Legacy => " (legacy)",
        Backend::Nft => "",
    }
}

/// `Table ip filter (iptables-legacy) from rules.v4`
fn table_title(table: &TableView) -> String {
    let backend = legacy(table.backend);
    clean(&format!("Table {} {}{backend}, from {}", table.family, table.table, table.source))
}

/// `INPUT: packets for this host · priority 0 · policy drop (12 packets, 800 octets)`
fn chain_title(chain: &ChainView) -> (String, String) {
    let mut parts = Vec::new();
    match (chain.hook, chain.priority) {
        (Some(hook), Some(priority)) => {
            let kind = chain.kind.filter(|kind| *kind != "filter").map_or(String::new(), |kind| format!("{kind}, "));
            parts.push(format!("{hook} hook, {kind}priority {priority}"));
            let counters = chain.policy_counters.filter(|counters| counters.packets > 0);
            let counters = counters.map_or(String::new(), |c| format!(" ({} packets, {} octets)", c.packets, c.bytes));
            parts.push(format!("policy {}{counters}", chain.policy.unwrap_or("accept")));
        }
        _ if chain.called_by.is_empty() => parts.push("called by no rule".to_owned()),
        _ => {
            let more = chain.called_by.len().saturating_sub(6);
            let mut list = chain.called_by.iter().take(6).cloned().collect::<Vec<_>>().join(", ");
            if more > 0 {
                list = format!("{list} and {more} more");
            }
            parts.push(format!("called by {list}"));
        }
    }
    (clean(&chain.chain), clean(&parts.join(" · ")))
}
