//! What a lab is made of, as data: hosts, switches, cables. No I/O.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::impair::Impairment;
use crate::wire::MacAddr;

/// A small network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// Its name.
    pub name: String,
    /// What it is, in a line.
    pub summary: String,
    /// The hosts and routers.
    pub hosts: Vec<Host>,
    /// The switches: each is a bridge in a namespace of its own, which no host sees.
    pub switches: Vec<String>,
    /// The cables.
    pub links: Vec<Link>,
}

/// A host, in its own network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name, which is its namespace's name too.
    pub name: String,
    /// What it is there for, in a few words.
    pub role: String,
    /// Whether it forwards packets between its links.
    #[serde(default)]
    pub router: bool,
    /// Its routes beside those of its addresses, in the words of `ip route add`.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Settings beside the lab's own, by sysctl(8) name.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Its `/etc/hosts`; none: all hosts of the lab by name.
    #[serde(default)]
    pub hosts_file: Option<String>,
    /// Its `/etc/resolv.conf`; none: no resolver.
    #[serde(default)]
    pub resolv_conf: Option<String>,
    /// Its `/etc/nsswitch.conf`; none: `hosts: files dns`.
    #[serde(default)]
    pub nsswitch_conf: Option<String>,
}

/// Where a cable ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The host or switch.
    pub node: String,
    /// The link's name there, at most 15 octets.
    pub dev: String,
    /// The addresses it has.
    #[serde(default)]
    pub addresses: Vec<IpNetwork>,
}

/// A cable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// One end.
    pub a: End,
    /// The other.
    pub b: End,
    /// Largest packet, in octets; none: 1500.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// What goes wrong on it, if anything.
    #[serde(default)]
    pub impair: Option<Impairment>,
}

/// A topology that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topology {topology}: {why}")]
pub struct BadTopology {
    /// Which.
    pub topology: String,
    /// What is wrong with it.
    pub why: String,
}

impl End {
    /// The link-layer address: locally administered, and readable: 192.168.1.3 has 02:00:c0:a8:01:03.
    /// Without an IPv4 address it comes from the names, so that it is the same in every run.
    pub fn mac(&self) -> MacAddr {
        let v4 = self.addresses.iter().find_map(|net| match net.ip() {
            IpAddr::V4(ip) => Some(ip.octets()),
            IpAddr::V6(_) => None,
        });
        let [a, b, c, d] = v4.unwrap_or_else(|| {
            // FNV-1a: short, and no more is asked of it than to differ.
            let name = self.node.bytes().chain([0]).chain(self.dev.bytes());
            name.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).to_be_bytes()
        });
        MacAddr([2, u8::from(v4.is_none()), a, b, c, d])
    }
}

impl Topology {
    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// All cable ends at a node.
    pub fn ends(&self, node: &str) -> impl Iterator<Item = &End> {
        self.links.iter().flat_map(|link| [&link.a, &link.b]).filter(move |end| end.node == node)
    }

    /// A host's addresses in the order of its links.
    pub fn addresses(&self, node: &str) -> Vec<IpNetwork> {
        self.ends(node).flat_map(|end| end.addresses.iter().copied()).collect()
    }

    /// A host's first IPv4 address, else its first address.
    pub fn address(&self, node: &str) -> Option<IpAddr> {
        let all = self.addresses(node);
        all.iter().find(|net| net.is_ipv4()).or(all.first()).map(IpNetwork::ip)
    }

    /// Whether a host has an IPv6 address anywhere.
    pub fn has_v6(&self, node: &str) -> bool {
        self.addresses(node).iter().any(IpNetwork::is_ipv6)
    }

    /// `/etc/hosts` of a host: its own file, or every host of the lab by name.
    pub fn hosts_file(&self, host: &Host) -> String {
        if let Some(text) = &host.hosts_file {
            return text.clone();
        }
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
        for other in &self.hosts {
            for net in self.addresses(&other.name) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{} {}", net.ip(), other.name);
            }
        }
        text
    }

    /// Refuses what cannot be built: names that are no file names or too long for the kernel, cables to
    /// nowhere, two ends of one name.
    pub fn check(&self) -> Result<(), BadTopology> {
        let bad = |why: String| Err(BadTopology { topology: self.name.clone(), why });
        let mut nodes: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        nodes.extend(self.switches.iter().map(String::as_str));
        for (index, name) in nodes.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || name.len() > 32 || !name.chars().all(plain) || name.starts_with('-') {
                return bad(format!("`{name}` is no name for a host: letters, digits, - and _, at most 32"));
            }
            if nodes[..index].contains(name) {
                return bad(format!("there are two nodes named {name}"));
            }
        }
        let mut ends: Vec<(&str, &str)> = Vec::new();
        for end in self.links.iter().flat_map(|link| [&link.a, &link.b]) {
            if !nodes.contains(&end.node.as_str()) {
                return bad(format!("a cable ends at {}, which is not there", end.node));
            }
            let place = (end.node.as_str(), end.dev.as_str());
            let plain = |c: char| !c.is_whitespace() && c != '/' && c != ':' && !c.is_control();
            if end.dev.is_empty() || end.dev.len() > 15 || !end.dev.chars().all(plain) || end.dev == "lo" {
                return bad(format!("`{}` is no name for a link", end.dev));
            }
            if ends.contains(&place) {
                return bad(format!("{} has two links named {}", end.node, end.dev));
            }
            if !end.addresses.is_empty() && self.switches.contains(&end.node) {
                return bad(format!("the switch {} has an address", end.node));
            }
            ends.push(place);
        }
        for host in &self.hosts {
            for route in &host.routes {
                if let Err(error) = route.parse::<crate::os::links::RouteSpec>() {
                    return bad(format!("{}: {error}", host.name));
                }
            }
        }
        Ok(())
    }
}

fn host(name: &str, role: &str) -> Host {
    Host { name: name.to_owned(), role: role.to_owned(), ..Host::default() }
}

fn with_routes(mut host: Host, routes: &[&str]) -> Host {
    host.routes = routes.iter().map(|route| (*route).to_owned()).collect();
    host
}

fn router(name: &str, routes: &[&str]) -> Host {
    Host { router: true, ..with_routes(host(name, "router"), routes) }
}

/// A cable end; every address here is written in this file, so one that does not parse is left out and
/// the tests below would see it missing.
fn end(node: &str, dev: &str, addresses: &[&str]) -> End {
    let addresses = addresses.iter().filter_map(|text| text.parse().ok()).collect();
    End { node: node.to_owned(), dev: dev.to_owned(), addresses }
}

fn cable(a: End, b: End) -> Link {
    Link { a, b, mtu: None, impair: None }
}

/// The two hosts of the lab's first story on one switch: the business server 192.168.1.2 and the data
/// API 192.168.1.3.
pub fn lan() -> Topology {
    Topology {
        name: "lan".to_owned(),
        summary: "two hosts on one switch: business 192.168.1.2, api 192.168.1.3".to_owned(),
        hosts: vec![host("business", "business server"), host("api", "data API")],
        switches: vec!["switch".to_owned()],
        links: vec![
            cable(end("business", "eth0", &["192.168.1.2/24"]), end("switch", "business", &[])),
            cable(end("api", "eth0", &["192.168.1.3/24"]), end("switch", "api", &[])),
        ],
    }
}

/// As [`lan`], with IPv6 addresses beside.
pub fn lan_dual() -> Topology {
    let mut lan = lan();
    lan.name = String::from("lan-dual");
    lan.summary = String::from("as lan, with fd00:1::2 and fd00:1::3 beside");
    lan.links[0].a.addresses.extend("fd00:1::2/64".parse::<IpNetwork>().ok());
    lan.links[1].a.addresses.extend("fd00:1::3/64".parse::<IpNetwork>().ok());
    lan
}

/// Two hosts with a router between.
pub fn routed_pair() -> Topology {
    Topology {
        name: "routed-pair".to_owned(),
        summary: "client 192.168.1.2 – router – server 192.168.2.3".to_owned(),
        hosts: vec![
            with_routes(host("client", "client"), &["default via 192.168.1.1 dev eth0"]),
            router("router", &[]),
            with_routes(host("server", "server"), &["default via 192.168.2.1 dev eth0"]),
        ],
        switches: vec![],
        links: vec![
            cable(end("client", "eth0", &["192.168.1.2/24"]), end("router", "eth0", &["192.168.1.1/24"])),
            cable(end("router", "eth1", &["192.168.2.1/24"]), end("server", "eth0", &["192.168.2.3/24"])),
        ],
    }
}

/// The most routers that [`chain`] makes.
pub const LONGEST_CHAIN: u8 = 30;

/// `routers` routers in a row between client and server, at least one, at most [`LONGEST_CHAIN`].
pub fn chain(routers: u8) -> Topology {
    let last = routers.clamp(1, LONGEST_CHAIN);
    let mut hosts = vec![with_routes(host("client", "client"), &["default via 192.168.1.1 dev eth0"])];
    let mut links = vec![cable(end("client", "eth0", &["192.168.1.2/24"]), end("r1", "eth0", &["192.168.1.1/24"]))];
    for n in 1..=last {
        let mut routes = Vec::new();
        if n > 1 {
            routes.push(format!("192.168.1.0/24 via 10.0.{}.1", n - 1));
        }
        if n < last {
            routes.push(format!("192.168.2.0/24 via 10.0.{n}.2"));
            links.push(cable(
                end(&format!("r{n}"), "eth1", &[&format!("10.0.{n}.1/24")]),
                end(&format!("r{}", n + 1), "eth0", &[&format!("10.0.{n}.2/24")]),
            ));
        }
        // The links between routers are reached along the row as well, so that every hop can be pinged.
        for other in 1..last {
            if other + 1 < n {
                routes.push(format!("10.0.{other}.0/24 via 10.0.{}.1", n - 1));
            } else if other > n {
                routes.push(format!("10.0.{other}.0/24 via 10.0.{n}.2"));
            }
        }
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        hosts.push(router(&format!("r{n}"), &routes));
    }
    hosts.push(with_routes(host("server", "server"), &["default via 192.168.2.1 dev eth0"]));
    links
        .push(cable(end(&format!("r{last}"), "eth1", &["192.168.2.1/24"]), end("server", "eth0", &["192.168.2.3/24"])));
    Topology {
        name: format!("chain-{last}"),
        summary: format!("client 192.168.1.2 – {last} routers in a row – server 192.168.2.3"),
        hosts,
        switches: vec![],
        links,
    }
}

/// Two paths of equal cost between client and server.
pub fn diamond() -> Topology {
    let two_ways = |mut host: Host| {
        // Ports count too, so that connections spread over both ways.
        host.sysctls.insert("net.ipv4.fib_multipath_hash_policy".to_owned(), "1".to_owned());
        host
    };
    let there = "192.168.2.0/24 nexthop via 10.0.1.2 weight 1 nexthop via 10.0.2.2 weight 1";
    let back = "192.168.1.0/24 nexthop via 10.0.3.1 weight 1 nexthop via 10.0.4.1 weight 1";
    Topology {
        name: "diamond".to_owned(),
        summary: "client 192.168.1.2 – two equal paths, by r2 and by r3 – server 192.168.2.3".to_owned(),
        hosts: vec![
            with_routes(host("client", "client"), &["default via 192.168.1.1 dev eth0"]),
            two_ways(router("r1", &[there, "10.0.3.0/24 via 10.0.1.2", "10.0.4.0/24 via 10.0.2.2"])),
            router("r2", &["192.168.1.0/24 via 10.0.1.1", "192.168.2.0/24 via 10.0.3.2"]),
            router("r3", &["192.168.1.0/24 via 10.0.2.1", "192.168.2.0/24 via 10.0.4.2"]),
            two_ways(router("r4", &[back, "10.0.1.0/24 via 10.0.3.1", "10.0.2.0/24 via 10.0.4.1"])),
            with_routes(host("server", "server"), &["default via 192.168.2.1 dev eth0"]),
        ],
        switches: vec![],
        links: vec![
            cable(end("client", "eth0", &["192.168.1.2/24"]), end("r1", "eth0", &["192.168.1.1/24"])),
            cable(end("r1", "eth1", &["10.0.1.1/24"]), end("r2", "eth0", &["10.0.1.2/24"])),
            cable(end("r1", "eth2", &["10.0.2.1/24"]), end("r3", "eth0", &["10.0.2.2/24"])),
            cable(end("r2", "eth1", &["10.0.3.1/24"]), end("r4", "eth1", &["10.0.3.2/24"])),
            cable(end("r3", "eth1", &["10.0.4.1/24"]), end("r4", "eth2", &["10.0.4.2/24"])),
            cable(end("r4", "eth0", &["192.168.2.1/24"]), end("server", "eth0", &["192.168.2.3/24"])),
        ],
    }
}

/// As [`lan`], where names come from a DNS server, 192.168.1.53, and not from `/etc/hosts`.
pub fn lan_with_dns() -> Topology {
    let mut lan = lan();
    lan.name = String::from("lan-with-dns");
    lan.summary = String::from("as lan, with a DNS server 192.168.1.53 for the zone lab.");
    lan.hosts.push(host("dns", "DNS server"));
    for host in &mut lan.hosts {
        host.hosts_file = Some("127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned());
        host.resolv_conf = Some("nameserver 192.168.1.53\nsearch lab\n".to_owned());
    }
    lan.links.push(cable(end("dns", "eth0", &["192.168.1.53/24"]), end("switch", "dns", &[])));
    lan
}

/// Every topology that has a name; `chain-N` is any [`chain`].
pub fn named(name: &str) -> Option<Topology> {
    if let Some(length) = name.strip_prefix("chain-") {
        let length: u8 = length.parse().ok()?;
        return (1..=LONGEST_CHAIN).contains(&length).then(|| chain(length));
    }
    all().into_iter().find(|topology| topology.name == name)
}

/// The topologies that are listed.
pub fn all() -> Vec<Topology> {
    vec![lan(), lan_dual(), routed_pair(), chain(3), diamond(), lan_with_dns()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topology_can_be_built_and_survives_json() {
        for topology in all().into_iter().chain((1..=LONGEST_CHAIN).map(chain)) {
            topology.check().unwrap();
            let json = serde_json::to_string(&topology).unwrap();
            assert_eq!(serde_json::from_str::<Topology>(&json).unwrap(), topology);
            for host in &topology.hosts {
                assert!(topology.address(&host.name).is_some(), "{} has no address", host.name);
            }
        }
        assert_eq!(lan_dual().addresses("api").len(), 2);
        assert_eq!(diamond().links.iter().flat_map(|l| [&l.a, &l.b]).map(|e| e.addresses.len()).sum::<usize>(), 12);
    }

    #[test]
    fn the_mac_shows_the_address() {
        assert_eq!(lan().ends("api").next().unwrap().mac().to_string(), "02:00:c0:a8:01:03");
        let switch = lan();
        let ports: Vec<_> = switch.ends("switch").map(End::mac).collect();
        assert_ne!(ports[0], ports[1]);
        assert!(ports.iter().all(|mac| mac.is_locally_administered() && !mac.is_multicast()));
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let broken = |change: fn(&mut Topology)| {
            let mut topology = lan();
            change(&mut topology);
            topology.check().unwrap_err().why
        };
        assert!(broken(|t| t.hosts[0].name = "../x".to_owned()).contains("no name"));
        assert!(broken(|t| t.hosts[0].name = "api".to_owned()).contains("two nodes"));
        assert!(broken(|t| t.links[0].b.node = "nowhere".to_owned()).contains("nowhere"));
        assert!(broken(|t| t.links[0].a.dev = "a-name-too-long-for-linux".to_owned()).contains("no name for a link"));
        assert!(broken(|t| t.links[1].b.dev = "business".to_owned()).contains("two links"));
        assert!(broken(|t| t.hosts[0].routes.push("over there".to_owned())).contains("business"));
        assert_eq!(named("chain-0"), None);
        assert_eq!(named("chain-7").unwrap().hosts.len(), 9);
    }
}
