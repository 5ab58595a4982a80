//! systemd-resolved: whether it stands between this host and its servers, and to whom it sends a name.

use serde::{Deserialize, Serialize};

/// A link's servers and domains (`/run/systemd/resolve/netif/*`, `/run/systemd/netif/links/*`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDns {
    /// The interface.
    pub interface: String,
    /// Its servers.
    pub servers: Vec<String>,
    /// Its domains: search domains as they are, routing-only ones with `~` before them.
    pub domains: Vec<String>,
}

/// What can be seen of systemd-resolved without asking it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedFacts {
    /// The servers it has from everywhere (`/run/systemd/resolve/resolv.conf`).
    pub uplinks: Vec<String>,
    /// Those of each link.
    pub links: Vec<LinkDns>,
}

impl LinkDns {
    /// Reads a state file of systemd-networkd or -resolved: `DNS=` or `SERVERS=`, `DOMAINS=`, `ROUTE_DOMAINS=`.
    pub fn parse(interface: &str, text: &str) -> Self {
        let mut link = Self { interface: interface.to_owned(), ..Self::default() };
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let words = value.trim_matches('"').split_ascii_whitespace();
            match key {
                // An address may have a port and the name of its certificate behind it.
                "DNS" | "SERVERS" => link.servers.extend(words.map(str::to_owned)),
                "DOMAINS" => link.domains.extend(words.map(str::to_owned)),
                "ROUTE_DOMAINS" => {
                    link.domains.extend(words.map(|word| format!("~{}", word.trim_start_matches('~'))));
                }
                _ => {}
            }
        }
        link
    }
}

impl ResolvedFacts {
    /// The links it sends `name` to: those with the longest matching domain; without a match those that
    /// route everything (`~.`), else all that have servers (systemd-resolved.service(8), "Protocols and routing").
    pub fn route(&self, name: &str) -> Vec<(&LinkDns, Option<&str>)> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let fits = |domain: &str| {
            let domain = domain.trim_start_matches('~').trim_matches('.').to_ascii_lowercase();
            let below = name.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            (domain.is_empty() || below).then(|| domain.split('.').filter(|label| !label.is_empty()).count())
        };
        let mut best: Vec<(&LinkDns, Option<&str>, usize)> = Vec::new();
        for link in self.links.iter().filter(|link| !link.servers.is_empty()) {
            for domain in &link.domains {
                if let Some(labels) = fits(domain) {
                    best.push((link, Some(domain), labels));
                }
            }
        }
        let longest = best.iter().map(|(_, _, labels)| *labels).max();
        best.retain(|(_, _, labels)| Some(*labels) == longest);
        if best.is_empty() {
            return self.links.iter().filter(|link| !link.servers.is_empty()).map(|link| (link, None)).collect();
        }
        best.into_iter().map(|(link, domain, _)| (link, domain)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_domain_gets_the_name() {
        let facts = ResolvedFacts {
            uplinks: Vec::new(),
            links: vec![
                LinkDns::parse("eth0", "# x\nADMIN_STATE=configured\nDNS=192.168.1.1\nDOMAINS=home\n"),
                LinkDns::parse("tun0", "SERVERS=\"10.8.0.1 10.8.0.2\"\nROUTE_DOMAINS=corp.example\n"),
                LinkDns::parse("tun1", "DNS=10.9.0.1\nROUTE_DOMAINS=.\n"),
            ],
        };
        let to = |name: &str| facts.route(name).iter().map(|(link, _)| link.interface.clone()).collect::<Vec<_>>();
        assert_eq!(to("api.corp.example"), ["tun0"]);
        assert_eq!(to("xcorp.example"), ["tun1"]);
        assert_eq!(to("nas.home"), ["eth0"]);
        assert_eq!(facts.links[1].servers.len(), 2);
        assert_eq!(ResolvedFacts::default().route("a"), []);
    }
}
