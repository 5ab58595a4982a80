//! All that decides how a name resolves on this host, read from its files.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use super::gai::GaiConf;
use super::wire::Server;
use crate::host::hosts::HostsFile;
use crate::host::nsswitch::{NsSwitch, Service};
use crate::host::resolv::{MAX_SERVERS, Options, ResolvConf};
use crate::host::{Issue, NameFacts, TextFile};

/// What a host says about how it resolves names, verbatim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverFacts {
    /// hosts, resolv.conf, nsswitch.conf, gai.conf and the environment.
    pub names: NameFacts,
    /// `/etc/host.conf`.
    pub host_conf: TextFile,
    /// The file that `HOSTALIASES` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aliases: Option<TextFile>,
    /// `uname -n`.
    pub hostname: Option<String>,
    /// Indices of interfaces by name, for link-local servers.
    #[serde(default)]
    pub interfaces: BTreeMap<String, u32>,
    /// Whether nscd listens: its cache is asked before anything else.
    #[serde(default)]
    pub nscd: bool,
    /// What systemd-resolved would do with names, where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<super::resolved::ResolvedFacts>,
}

/// The same, read.
#[derive(Debug, Clone)]
pub struct Conf {
    /// Whether nsswitch.conf has a line for hosts, and which.
    pub services_line: Option<usize>,
    /// What is asked, in order.
    pub services: Vec<Service>,
    /// `/etc/hosts`; `None` where it cannot be read.
    pub hosts: Option<HostsFile>,
    /// `multi on` in host.conf: all lines of the hosts file count, not the first alone.
    pub multi: bool,
    /// `/etc/resolv.conf` with the environment over it.
    pub resolv: ResolvConf,
    /// The servers that are asked, in file order.
    pub servers: Vec<Server>,
    /// The suffixes, in order.
    pub search: Vec<String>,
    /// Lines of the file that `HOSTALIASES` names: alias and name.
    pub aliases: Vec<(String, String)>,
    /// The tables for sorting.
    pub gai: GaiConf,
    /// Path of each file, for citing.
    pub paths: Paths,
    /// What its readers do not take as the writer meant it: file and place.
    pub issues: Vec<(String, Issue)>,
}

/// Where the files are.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// The hosts file.
    pub hosts: String,
    /// resolv.conf.
    pub resolv: String,
    /// nsswitch.conf.
    pub nsswitch: String,
}

impl Conf {
    /// Reads the facts. `wanted`: only the lines of the hosts file that have this word in them need be
    /// read (a hosts file that blocks a hundred thousand names is no rarity).
    pub fn read(facts: &ResolverFacts, wanted: Option<&str>) -> Self {
        let names = &facts.names;
        let text = |file: &TextFile| file.text.clone().unwrap_or_default();
        let nsswitch = NsSwitch::parse(&text(&names.nsswitch));
        let resolv = ResolvConf::of(names);
        let hosts = names.hosts.text.as_deref().map(|text| match wanted {
            Some(word) => HostsFile::parse_lines_with(text, word),
            None => HostsFile::parse(text),
        });
        let servers = resolv
            .servers()
            .iter()
            .take(MAX_SERVERS)
            .map(|server| {
                let scope = server.scope.as_deref().map_or(0, |scope| {
                    facts.interfaces.get(scope).copied().or_else(|| scope.parse().ok()).unwrap_or(0)
                });
                let address = match server.address {
                    IpAddr::V4(v4) => SocketAddr::from((v4, 53)),
                    IpAddr::V6(v6) => SocketAddrV6::new(v6, 53, 0, scope).into(),
                };
                Server { line: server.line, ..Server::udp(address) }
            })
            .collect();
        let path =
            |file: &TextFile, usual: &str| if file.path.is_empty() { usual.to_owned() } else { file.path.clone() };
        let paths = Paths {
            hosts: path(&names.hosts, "/etc/hosts"),
            resolv: path(&names.resolv_conf, "/etc/resolv.conf"),
            nsswitch: path(&names.nsswitch, "/etc/nsswitch.conf"),
        };
        let gai = GaiConf::parse(&text(&names.gai_conf));
        let mut issues = Vec::new();
        let mut note =
            |path: &str, list: &[Issue]| issues.extend(list.iter().map(|one| (path.to_owned(), one.clone())));
        note(&paths.resolv, &resolv.issues);
        note(&paths.nsswitch, &nsswitch.issues);
        note("/etc/gai.conf", &gai.issues);
        Self {
            services_line: nsswitch.databases.get("hosts").map(|database| database.line),
            services: nsswitch.hosts(),
            hosts,
            multi: multi(&text(&facts.host_conf), names.environment.get("RESOLV_MULTI").map(String::as_str)),
            search: resolv.search(facts.hostname.as_deref()),
            servers,
            resolv,
            aliases: facts.aliases.as_ref().map(|file| aliases(&text(file))).unwrap_or_default(),
            gai,
            paths,
            issues,
        }
    }

    /// The options of resolv.conf.
    pub fn options(&self) -> &Options {
        &self.resolv.options
    }
}

/// host.conf(5): the last `multi` that is `on` or `off` counts; without one it is off.
fn multi(text: &str, environment: Option<&str>) -> bool {
    let starts = |text: &str, word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let read = |value: &str, before: bool| {
        if starts(value, "on") {
            true
        } else if starts(value, "off") {
            false
        } else {
            before
        }
    };
    let space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let mut on = false;
    for line in text.lines() {
        let line = line.trim_start_matches(space);
        let end = line.find(|c| space(c) || c == '#' || c == ',').unwrap_or(line.len());
        if line[..end].eq_ignore_ascii_case("multi") {
            on = read(line[end..].trim_start_matches(space), on);
        }
    }
    environment.map_or(on, |value| read(value, on))
}

/// hostname(7): an alias and a name on each line; a line without both ends the reading.
fn aliases(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map_while(|line| {
            let mut words = line.split_ascii_whitespace();
            if line.starts_with(|c: char| c.is_ascii_whitespace()) {
                return None;
            }
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_conf_and_aliases() {
        assert!(multi("order hosts,bind\nmulti on\n", None));
        assert!(!multi("multi off", None) && !multi("", None));
        assert!(!multi("multi on\nmulti off", None));
        assert!(multi("# multi on", Some("on")) && !multi("multi on", Some("off")));
        assert_eq!(aliases("api api.lab\nx\ny z"), [("api".to_owned(), "api.lab".to_owned())]);
    }

    #[test]
    fn without_any_file_glibc_asks_this_host() {
        let conf = Conf::read(&ResolverFacts::default(), None);
        assert_eq!(conf.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["files", "dns"]);
        assert_eq!(conf.servers[0].to_string(), "127.0.0.1");
        assert!(conf.hosts.is_none() && conf.search.is_empty());
    }
}
