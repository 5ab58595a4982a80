//! An agent's work without an agent: a shell at the far side, and the tools that are there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::plain_try;
use super::protocol::{Answer, Ask};
use crate::doctor::case::{After, Watch};
use crate::firewall::parse::guess_of;
use crate::host::plain::{self, COMMANDS, Section};
use crate::host::{Backend, DumpFormat, HostFacts, RulesetDump, Unseen};

/// What a trial moves.
const AFTER: [&str; 9] =
    ["netstat", "snmp6", "neighbours", "sockets", "stopped", "iptables", "ip6tables", "legacy", "nft"];

/// A session with a shell.
#[derive(Debug)]
pub(super) struct Plain {
    mark: String,
    asked: Option<Ask>,
}

impl Plain {
    /// A session whose sections are marked by `mark`, a word that nothing else prints.
    pub(super) fn new(mark: String) -> Self {
        Self { mark, asked: None }
    }

    /// What the shell is to run for a question.
    pub(super) fn script(&mut self, ask: &Ask) -> String {
        self.asked = Some(ask.clone());
        let mut script = String::from("PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin\"; LC_ALL=C; export PATH LC_ALL; ");
        let mut run = |name: &str, command: &str| {
            let _ = write!(
                script,
                "echo '=== {0} {name}'; {{ {command}; }} 2>&1 </dev/null; echo \"=== {0} = $?\"; ",
                self.mark
            );
        };
        match ask {
            Ask::Facts => {
                for (name, command) in COMMANDS {
                    run(name, command);
                }
                run("sysctls", &format!("grep -Hs '' {}; true", plain::sysctl_patterns()));
            }
            Ask::Seen => COMMANDS.iter().filter(|(name, _)| AFTER.contains(name)).for_each(|(name, c)| run(name, c)),
            // Addresses print themselves without anything a shell would read.
            Ask::Route { to, from } => {
                let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
                run("route", &format!("ip route get {to}{from}"));
            }
            Ask::Resolve { name } => run("resolve", &plain_try::resolve(name)),
            Ask::Try(plan) => {
                for (name, command) in plain_try::commands(plan).unwrap_or_default() {
                    run(&name, &command);
                }
            }
            Ask::Probe { specs } => {
                for (name, command) in specs.iter().filter_map(plain_try::ping) {
                    run(&name, &command);
                }
            }
            _ => {}
        }
        script + &format!("echo '=== {} end'", self.mark)
    }

    /// Whether this line is the answer's last.
    pub(super) fn is_last(&self, line: &str) -> bool {
        line.strip_prefix("=== ").and_then(|rest| rest.strip_prefix(self.mark.as_str())) == Some(" end")
    }

    /// The answer that the shell's lines hold.
    pub(super) fn answer(&mut self, lines: &[String]) -> Answer {
        let found = plain::sections(lines.iter().map(String::as_str), &self.mark);
        match self.asked.take() {
            Some(Ask::Hello) => Answer::Hello { version: env!("CARGO_PKG_VERSION").to_owned(), pid: 0 },
            Some(Ask::Facts) => Answer::Facts(Box::new(facts(&found))),
            Some(Ask::Route { to, from }) => route(&found, to, from),
            Some(Ask::Watch { .. }) => Answer::Done,
            Some(Ask::Seen) => {
                let facts = facts(&found);
                let after = After {
                    counters: facts.counters,
                    sockets: facts.sockets,
                    neighbours: facts.neighbours,
                    firewall: facts.firewall,
                };
                Answer::Seen(Box::new(Watch { after: Some(after), ..Watch::default() }))
            }
            Some(Ask::Resolve { name }) => plain_try::resolved(&found, &name),
            Some(Ask::Try(plan)) if plain_try::commands(&plan).is_some() => plain_try::trial(&found, &plan),
            Some(Ask::Try(_)) => Answer::Failed {
                why: "plain tools try TCP and echo alone; UDP, HTTP and TLS need reachwhy there: --push copies it for the time of the look".to_owned(),
            },
            Some(Ask::Probe { specs }) => {
                Answer::Probed(specs.iter().filter_map(|spec| plain_try::echoed(&found, spec)).collect())
            }
            Some(Ask::WatchDrops) => Answer::Watching(false),
            Some(Ask::Drops) => Answer::Dropped(None),
            Some(Ask::Remove) => Answer::Removed { changed: Vec::new() },
            _ => Answer::Failed {
                why: "this needs reachwhy there: --push copies it for the time of the look".to_owned(),
            },
        }
    }
}

fn route(found: &BTreeMap<String, Section>, to: IpAddr, from: Option<IpAddr>) -> Answer {
    let said = found.get("route").map_or("", |section| section.text.as_str());
    match plain::ip::answer(said, to, from) {
        Some(answer) => Answer::Route(answer),
        None => Answer::Failed { why: format!("`ip route get {to}` says {:?}", said.trim()) },
    }
}

fn facts(found: &BTreeMap<String, Section>) -> HostFacts {
    let mut facts = plain::facts(found);
    let fine = |name: &str| found.get(name).filter(|section| section.exit == 0);
    let mut dumps = Vec::new();
    for (name, format, via) in [
        ("iptables", DumpFormat::IptablesSave, "iptables-save"),
        ("ip6tables", DumpFormat::Ip6tablesSave, "ip6tables-save"),
        ("legacy", DumpFormat::IptablesSave, "iptables-legacy-save"),
        ("nft", DumpFormat::NftText, "nft list ruleset"),
    ] {
        let Some(text) = fine(name).map(|section| section.text.clone()).filter(|text| !text.trim().is_empty()) else {
            continue;
        };
        let guessed = guess_of(text, via);
        let backend = if name == "legacy" { Backend::Legacy } else { guessed.backend };
        // `iptables` may itself be the legacy one.
        if dumps.iter().any(|dump: &RulesetDump| (dump.format, dump.backend) == (format, backend)) {
            continue;
        }
        dumps.push(RulesetDump { format, backend, via: via.to_owned(), text: guessed.text });
    }
    let seen = ["iptables", "nft"].iter().any(|name| fine(name).is_some());
    facts.firewall = seen.then_some(dumps);
    for (name, fact) in [("iptables", "firewall.iptables"), ("nft", "firewall.nft")] {
        if let Some(failed) = found.get(name).filter(|section| section.exit != 0) {
            let why = failed.text.lines().next().unwrap_or("it failed").to_owned();
            let root = facts.privileges.euid != 0;
            let hint = root.then(|| "log in there as root".to_owned());
            facts.unseen.push(Unseen { fact: fact.to_owned(), why, hint });
        }
    }
    facts
}
