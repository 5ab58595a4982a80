//! systemd-resolved: whether it stands between this host and its servers, and to whom it sends a name.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// What systemd-resolved itself says of a name, over its Varlink interface (`io.systemd.Resolve`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ResolvedAnswer {
    /// The addresses, each with the interface whose servers gave it.
    pub addresses: Vec<(IpAddr, Option<String>)>,
    /// `dns`, `mdns`, `llmnr`; `None` where it made the answer up itself (localhost, `_gateway`), or has none.
    pub protocol: Option<&'static str>,
    /// `cache`, `network`, `zone`, `trust anchor`, `synthetic`.
    pub from: Option<&'static str>,
    /// It has checked DNSSEC, or knows the answer for certain.
    pub authenticated: bool,
    /// The answer came over TLS, or never left this host.
    pub confidential: bool,
    /// Its error instead, in words.
    pub error: Option<String>,
}

impl ResolvedAnswer {
    /// Reads a reply of `ResolveHostname`; `interface` names an interface by its index.
    ///
    /// `None` when this is no such reply.
    pub fn parse(reply: &Value, interface: impl Fn(u32) -> Option<String>) -> Option<Self> {
        let parameters = reply.get("parameters").unwrap_or(&Value::Null);
        if let Some(error) = reply.get("error").and_then(Value::as_str) {
            return Some(Self { error: Some(in_words(error, parameters)), ..Self::default() });
        }
        let flags = parameters.get("flags").and_then(Value::as_u64)?;
        let has = |bit: u32| flags & 1 << bit != 0;
        // resolved-def.h of systemd.
        let protocol = [(0, "dns"), (1, "llmnr"), (2, "llmnr"), (3, "mdns"), (4, "mdns")];
        let from = [(19, "synthetic"), (20, "cache"), (21, "zone"), (22, "trust anchor"), (23, "network")];
        let first = |list: &[(u32, &'static str)]| list.iter().find(|(bit, _)| has(*bit)).map(|(_, word)| *word);
        let addresses = parameters.get("addresses").and_then(Value::as_array)?;
        let addresses = addresses.iter().filter_map(|one| {
            let octets = one.get("address")?.as_array()?.iter();
            let octets: Vec<u8> = octets.map(|octet| u8::try_from(octet.as_u64()?).ok()).collect::<Option<_>>()?;
            let address = <[u8; 4]>::try_from(octets.as_slice())
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(octets.as_slice()).map(IpAddr::from))
                .ok()?;
            let index = one.get("ifindex").and_then(Value::as_u64).and_then(|index| u32::try_from(index).ok());
            Some((address, index.filter(|index| *index > 0).and_then(&interface)))
        });
        Some(Self {
            addresses: addresses.take(64).collect(),
            protocol: first(&protocol),
            from: first(&from),
            authenticated: has(9),
            confidential: has(18),
            error: None,
        })
    }
}

/// An error of `io.systemd.Resolve` in words.
fn in_words(error: &str, parameters: &Value) -> String {
    let name = error.rsplit('.').next().unwrap_or_default();
    let says = match name {
        "NoNameServers" => "it has no server that this name may be put to",
        "NoSuchResourceRecord" => "the name has no record of the kind",
        "QueryTimedOut" => "no server answered in time",
        "MaxAttemptsReached" => "every attempt at a server failed",
        "InvalidReply" => "the server's answer was invalid",
        "QueryAborted" => "the query was aborted",
        "NoTrustAnchor" => "it has no trust anchor for the name",
        "NetworkDown" => "the network is down",
        "NoSource" => "it may not use any source for this name",
        "StubLoop" => "its server is itself: the stub's address stands where a server's should",
        "CNAMELoop" => "the aliases lead round in a circle",
        "ServiceNotProvided" => "the service is not provided",
        "DNSSECValidationFailed" => {
            let result = parameters.get("result").and_then(Value::as_str).unwrap_or("unknown");
            return format!("DNSSEC validation failed: {}", plain(result));
        }
        "DNSError" => {
            let code = parameters.get("rcode").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            return code.map_or("the server answered with an error".to_owned(), |code| {
                format!("the server answered {}", super::Rcode(code))
            });
        }
        _ => return plain(error),
    };
    says.to_owned()
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn its_own_word_is_read() {
        let name = |index: u32| Some(format!("if{index}"));
        let reply = json!({"parameters": {"name": "a.corp", "flags": 1 << 23 | 1 | 1 << 9, "addresses": [
            {"ifindex": 3, "family": 2, "address": [10, 8, 0, 5]}, {"ifindex": 0, "family": 2, "address": [1, 2, 3, 300]},
            {"family": 10, "address": [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]}]}});
        let answer = ResolvedAnswer::parse(&reply, name).unwrap();
        assert_eq!(answer.addresses[0], ("10.8.0.5".parse().unwrap(), Some("if3".to_owned())));
        assert_eq!(answer.addresses[1], ("fd00::1".parse().unwrap(), None));
        assert_eq!((answer.addresses.len(), answer.protocol, answer.from), (2, Some("dns"), Some("network")));
        assert!(answer.authenticated && !answer.confidential);
        let error = |error: &str, parameters: Value| {
            let reply = json!({"error": format!("io.systemd.Resolve.{error}"), "parameters": parameters});
            ResolvedAnswer::parse(&reply, name).unwrap().error.unwrap()
        };
        assert_eq!(error("DNSError", json!({"rcode": 3})), "the server answered NXDOMAIN");
        assert!(error("DNSSECValidationFailed", json!({"result": "no-signature"})).ends_with("no-signature"));
        assert!(error("NoNameServers", Value::Null).contains("no server"));
        assert_eq!(ResolvedAnswer::parse(&json!({"x": 1}), name), None);
    }

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
