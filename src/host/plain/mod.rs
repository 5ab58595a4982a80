//! Host facts from what plain tools print: ip(8), ss(8), iptables-save(8), nft(8), files. For hosts
//! where reachwhy itself does not run; a line that is not understood is left out.

pub mod ip;
pub mod ss;

use std::collections::BTreeMap;

use super::{FACTS_SCHEMA, HostFacts, Privileges, TextFile, Unseen, counters, sysctl};

/// The key of [`Unseen`] that says facts were read from tools' texts.
pub const BY_TOOLS: &str = "reachwhy";

/// What one tool printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// Its exit code.
    pub exit: i32,
    /// Its output, both streams.
    pub text: String,
}

impl Section {
    fn fine(&self) -> Option<&str> {
        (self.exit == 0).then_some(self.text.as_str())
    }
}

/// The sections of a session's output: `=== MARK NAME` begins one, `=== MARK = CODE` ends it.
pub fn sections<'a>(lines: impl Iterator<Item = &'a str>, mark: &str) -> BTreeMap<String, Section> {
    let prefix = format!("=== {mark} ");
    let mut found: BTreeMap<String, Section> = BTreeMap::new();
    let mut open: Option<String> = None;
    for line in lines {
        match line.strip_prefix(&prefix).map(|rest| (rest, rest.strip_prefix("= "))) {
            Some((_, Some(code))) => {
                if let Some(section) = open.take().and_then(|name| found.get_mut(&name)) {
                    section.exit = code.trim().parse().unwrap_or(-1);
                }
            }
            Some((name, None)) => {
                found.insert(name.to_owned(), Section { exit: -1, text: String::new() });
                open = Some(name.to_owned());
            }
            None => {
                if let Some(section) = open.as_ref().and_then(|name| found.get_mut(name)) {
                    section.text.push_str(line);
                    section.text.push('\n');
                }
            }
        }
    }
    found
}

/// The commands of a session, by section.
pub const COMMANDS: [(&str, &str); 20] = [
    ("uname", "uname -n; uname -r; id -u"),
    ("netstat", "cat /proc/net/snmp /proc/net/netstat"),
    ("snmp6", "cat /proc/net/snmp6"),
    ("links", "ip -o link show"),
    ("addresses", "ip -o addr show"),
    ("routes", "ip -4 route show table all"),
    ("routes6", "ip -6 route show table all"),
    ("rules", "ip -4 rule show"),
    ("rules6", "ip -6 rule show"),
    ("neighbours", "ip neigh show"),
    ("proxies", "ip neigh show proxy"),
    ("sockets", "ss -tuanpe"),
    (
        "stopped",
        "for f in /proc/[0-9]*/stat; do read -r l 2>/dev/null < $f || continue; case \"$l\" in *') T '*) echo \"${l%% *}\";; esac; done; true",
    ),
    ("hosts", "cat /etc/hosts"),
    ("resolv", "cat /etc/resolv.conf"),
    ("nsswitch", "cat /etc/nsswitch.conf"),
    ("iptables", "iptables-save -c"),
    ("ip6tables", "ip6tables-save -c"),
    (
        "legacy",
        "if command -v iptables-legacy-save >/dev/null && grep -qs . /proc/net/ip_tables_names; then iptables-legacy-save -c; fi",
    ),
    ("nft", "nft list ruleset"),
];

/// The files of the sysctls that are read, as patterns for a shell.
pub fn sysctl_patterns() -> String {
    let per = |v6: bool, key: &&str| sysctl::path(&sysctl::conf(v6, "ANY", key)).replace("ANY", "*");
    let mut words: Vec<String> = sysctl::GLOBAL.iter().map(|name| sysctl::path(name)).collect();
    words.extend(sysctl::PER_INTERFACE_V4.iter().map(|key| per(false, key)));
    words.extend(sysctl::PER_INTERFACE_V6.iter().map(|key| per(true, key)));
    words.join(" ")
}

/// All facts that the sections hold; the rulesets are for the caller to put in.
pub fn facts(found: &BTreeMap<String, Section>) -> HostFacts {
    let text = |name: &str| found.get(name).and_then(Section::fine);
    let mut facts = HostFacts { schema: FACTS_SCHEMA, ..HostFacts::default() };
    let mut names = text("uname").unwrap_or_default().lines();
    facts.hostname = names.next().map(str::to_owned);
    facts.kernel = names.next().map(str::to_owned);
    let euid = names.next().and_then(|id| id.trim().parse().ok());
    facts.privileges = Privileges { euid: euid.unwrap_or(u32::MAX), ..Privileges::default() };
    facts.counters = text("netstat").map(counters::parse_tables).unwrap_or_default();
    facts.counters.extend(text("snmp6").map(counters::parse_list).unwrap_or_default());
    facts.links = text("links").map(ip::links);
    let links = facts.links.clone().unwrap_or_default();
    facts.addresses = text("addresses").map(|text| ip::addresses(text, &links));
    facts.routes = text("routes").map(|text| ip::routes(text, false));
    if let (Some(routes), Some(v6)) = (&mut facts.routes, text("routes6")) {
        routes.extend(ip::routes(v6, true));
    }
    facts.rules = text("rules").map(|text| ip::rules(text, false));
    if let (Some(rules), Some(v6)) = (&mut facts.rules, text("rules6")) {
        rules.extend(ip::rules(v6, true));
    }
    facts.neighbours = text("neighbours").map(|text| ip::neighbours(text, false));
    if let (Some(table), Some(proxies)) = (&mut facts.neighbours, text("proxies")) {
        table.extend(ip::neighbours(proxies, true));
    }
    let stopped: Vec<u32> = text("stopped").unwrap_or_default().lines().filter_map(|pid| pid.parse().ok()).collect();
    facts.sockets = text("sockets").map(|text| ss::sockets(text, &stopped));
    for line in text("sysctls").unwrap_or_default().lines() {
        let Some((path, value)) = line.split_once(':') else { continue };
        let Some(name) = path.strip_prefix("/proc/sys/") else { continue };
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let swapped = |c: char| match c {
            '/' => '.',
            '.' => '/',
            other => other,
        };
        facts.sysctls.insert(name.chars().map(swapped).collect(), value);
    }
    let file = |section: &str, path: &str| TextFile {
        path: path.to_owned(),
        target: None,
        text: text(section).map(str::to_owned),
        why: found.get(section).filter(|section| section.exit != 0).map(|section| section.text.trim().to_owned()),
    };
    facts.names.hosts = file("hosts", "/etc/hosts");
    facts.names.resolv_conf = file("resolv", "/etc/resolv.conf");
    facts.names.nsswitch = file("nsswitch", "/etc/nsswitch.conf");
    facts.unseen.push(Unseen {
        fact: BY_TOOLS.to_owned(),
        why: "it is not installed there, so only what ip, ss, iptables-save and nft print was read: no hook ladder, no capture"
            .to_owned(),
        hint: Some("--push copies reachwhy there for the time of the look".to_owned()),
    });
    for (section, fact) in [
        ("links", "links"),
        ("addresses", "addresses"),
        ("routes", "routes"),
        ("rules", "rules"),
        ("neighbours", "neighbours"),
        ("sockets", "sockets"),
    ] {
        if let Some(failed) = found.get(section).filter(|section| section.exit != 0) {
            let why = failed.text.lines().next().unwrap_or("it failed").to_owned();
            facts.unseen.push(Unseen { fact: fact.to_owned(), why, hint: None });
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_end_with_their_exit_code() {
        let text = "noise\n=== m a\none\ntwo\n=== m = 0\n=== m b\n=== x = 0\n=== m = 3\n=== m c\ncut";
        let found = sections(text.lines(), "m");
        assert_eq!(found["a"], Section { exit: 0, text: "one\ntwo\n".to_owned() });
        assert_eq!(found["b"], Section { exit: 3, text: "=== x = 0\n".to_owned() });
        assert_eq!(found["c"].exit, -1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String, lines in "([a-z0-9 :./@<>,*%\\[\\]()=\"-]{0,60}\n){0,6}") {
            let all: BTreeMap<String, Section> = COMMANDS.iter().map(|(name, _)| *name).chain(["sysctls"])
                .flat_map(|name| [(name.to_owned(), Section { exit: 0, text: format!("{text}\n{lines}") })]).collect();
            let _ = facts(&all);
            let _ = ip::answer(&text, "10.0.0.1".parse().unwrap(), None);
            let _ = ip::answer(&lines, "10.0.0.1".parse().unwrap(), None);
            let _ = sections(text.lines(), "m");
        }
    }
}
