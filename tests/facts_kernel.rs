//! Links, addresses, neighbours, sockets, settings and counters of a live kernel, compared with what
//! iproute2 says of the same namespace. In fresh network namespaces without a way out.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::format_push_string, missing_docs)]

mod facts_support;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use facts_support::{furnish, in_namespace, ip, ip_json, lines, part};
use nix::sys::socket::{setsockopt, sockopt};
use reachwhy::host::{HostFacts, OperState, SocketState, Transport, counters};
use reachwhy::os::gather::{GatherOptions, Part, gather};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

#[test]
fn links_are_those_that_ip_lists() {
    in_namespace(|| {
        furnish();
        // `ip` says NO-CARRIER by the operational state, which follows the carrier a little later.
        let settled = || part(Part::Links).links.unwrap().iter().all(|link| !link.up || link.oper != OperState::Down);
        for _ in 0..100 {
            if settled() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let facts = part(Part::Links);
        let links = facts.links.as_ref().unwrap();
        let listed = ip_json("-d -s link");
        assert_eq!(links.len(), listed.len());
        for (link, theirs) in links.iter().zip(&listed) {
            let name = theirs["ifname"].as_str().unwrap();
            assert_eq!(link.name, name);
            assert_eq!(u64::from(link.index), theirs["ifindex"]);
            assert_eq!(u64::from(link.mtu), theirs["mtu"], "{name}");
            let flags: Vec<_> = theirs["flags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert_eq!(link.up, flags.contains(&"UP"), "{name}");
            assert_eq!(link.loopback, flags.contains(&"LOOPBACK"), "{name}");
            assert_eq!(link.noarp, flags.contains(&"NOARP"), "{name}");
            if link.up {
                assert_eq!(link.carrier, Some(!flags.contains(&"NO-CARRIER")), "{name}");
            }
            let state = theirs["operstate"].as_str().unwrap().to_lowercase();
            assert_eq!(serde_json::to_value(link.oper).unwrap(), state, "{name}");
            assert_eq!(link.kind.as_deref(), theirs["linkinfo"]["info_kind"].as_str(), "{name}");
            if !link.loopback {
                assert_eq!(link.mac.unwrap().to_string(), theirs["address"], "{name}");
            }
            let name_of = |index: Option<u32>| index.map(|i| facts.link_by_index(i).unwrap().name.as_str());
            assert_eq!(name_of(link.master), theirs["master"].as_str(), "{name}");
            assert_eq!(name_of(link.parent), theirs["link"].as_str(), "{name}");
            assert!(link.stats.is_some() && !link.xdp, "{name}");
        }
        ip("link set vb down");
        let facts = part(Part::Links);
        assert_eq!(facts.link("va").unwrap().carrier, Some(false));
        assert!(!facts.link("va").unwrap().usable());
        ip("link set va down");
        assert!(!part(Part::Links).link("va").unwrap().up);
    });
}

#[test]
fn addresses_are_those_that_ip_lists() {
    in_namespace(|| {
        furnish();
        // A link that is down: duplicate detection has not begun.
        ip("link add ve type veth peer name vf");
        ip("addr add fd00:2::1/64 dev ve");
        // Both looks must fall on the same side of the kernel's own duplicate detection.
        let theirs = loop {
            let before = listed();
            let ours = shown(&part(Part::Addresses));
            if before == listed() {
                assert_eq!(ours, before);
                break ours;
            }
        };
        let has = |line: &str| theirs.contains(line);
        assert!(has("10.9.9.1 peer 10.9.9.2/32 scope global dev vc"), "{theirs:?}");
        assert!(has("192.168.1.2/24 brd 192.168.1.255 scope global dev va"), "{theirs:?}");
        assert!(has("192.168.1.22/24 scope global dev va secondary"), "{theirs:?}");
        assert!(has("fd00::22/64 scope global dev va deprecated"), "{theirs:?}");
        assert!(has("fd00:2::1/64 scope global dev ve tentative"), "{theirs:?}");
    });
}

fn shown(facts: &HostFacts) -> BTreeSet<String> {
    facts.addresses.as_ref().unwrap().iter().map(ToString::to_string).collect()
}

/// What `ip` lists, in our words.
fn listed() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for link in ip_json("addr") {
        for info in link["addr_info"].as_array().unwrap() {
            let text = |key: &str| info[key].as_str().map(str::to_owned);
            let mut line = text("local").unwrap();
            if let Some(peer) = text("address") {
                line += &format!(" peer {peer}");
            }
            line += &format!("/{}", info["prefixlen"]);
            if let Some(broadcast) = text("broadcast") {
                line += &format!(" brd {broadcast}");
            }
            line += &format!(" scope {} dev {}", text("scope").unwrap(), link["ifname"].as_str().unwrap());
            for flag in ["secondary", "temporary", "tentative", "dadfailed", "deprecated"] {
                if info[flag] == true {
                    line += &format!(" {flag}");
                }
            }
            all.insert(line);
        }
    }
    all
}

#[test]
fn neighbours_are_those_that_ip_lists() {
    in_namespace(|| {
        furnish();
        for order in [
            "neigh add 192.168.1.7 lladdr 02:00:00:00:00:77 dev va nud permanent",
            "neigh add 192.168.1.8 lladdr 02:00:00:00:00:88 dev va nud stale",
            "neigh add 192.168.1.9 dev va nud failed",
            "-6 neigh add fd00::7 lladdr 02:00:00:00:00:77 dev va router nud permanent",
            "neigh add proxy 192.168.1.200 dev va",
            "-6 neigh add proxy fd00::200 dev vc",
        ] {
            ip(order);
        }
        let facts = part(Part::Neighbours);
        // The kernel's own entries (for groups, for routers it looks for) come and go.
        let lasting =
            |line: &&String| !line.starts_with("ff02:") && !line.starts_with("fe80:") && !line.starts_with("224.");
        let ours: BTreeSet<String> = facts.neighbours.as_ref().unwrap().iter().map(ToString::to_string).collect();
        let mut theirs = lines(&ip("neigh show nud all"));
        theirs.extend(lines(&ip("neigh show proxy")));
        let ours: BTreeSet<_> = ours.iter().filter(lasting).collect();
        assert_eq!(ours, theirs.iter().filter(lasting).collect());
        for line in ["192.168.1.9 dev va FAILED", "fd00::200 dev vc proxy", "192.168.1.200 dev va proxy"] {
            assert!(ours.contains(&line.to_owned()), "{ours:?}");
        }
    });
}

#[test]
fn sockets_are_those_that_ss_lists() {
    in_namespace(|| {
        ip("link set lo up");
        let listen = |domain, address: &str, v6only: bool, device: Option<&str>, backlog| {
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            if domain == Domain::IPV6 {
                socket.set_only_v6(v6only).unwrap();
            }
            if let Some(device) = device {
                setsockopt(&socket, sockopt::BindToDevice, &OsString::from(device)).unwrap();
            }
            socket.bind(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
            socket.listen(backlog).unwrap();
            socket
        };
        let _held = (
            listen(Domain::IPV4, "127.0.0.1:8080", false, None, 5),
            listen(Domain::IPV6, "[::]:8081", true, Some("lo"), 7),
            listen(Domain::IPV6, "[::]:8082", false, None, 9),
            listen(Domain::IPV4, "0.0.0.0:8083", false, None, 1),
            UdpSocket::bind("127.0.0.1:5353").unwrap(),
        );
        let queued: Vec<_> = (0..2).map(|_| TcpStream::connect("127.0.0.1:8083").unwrap()).collect();
        let connected = UdpSocket::bind("[::1]:5354").unwrap();
        connected.connect("[::1]:9").unwrap();

        let facts = gather(&GatherOptions::only([Part::Sockets]));
        let sockets = facts.sockets.as_ref().unwrap();
        let on = |port: u16| facts.open_on(Transport::Tcp, port).unwrap()[0];
        assert_eq!((on(8080).recv_queue, on(8080).send_queue), (0, 5));
        assert!(on(8081).v6only && on(8081).device.as_deref() == Some("lo") && !on(8082).v6only);
        assert_eq!((on(8083).recv_queue, on(8083).send_queue), (2, 1));
        assert!(on(8083).accept_queue_full() && !on(8080).accept_queue_full());
        let owner = on(8080).owners.iter().find(|owner| owner.pid == std::process::id()).unwrap();
        let (open, limit) = owner.fds.unwrap();
        assert!(open > 5 && limit >= open && "RSD".contains(owner.state), "{owner:?}");
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let takers = facts.takers(Transport::Tcp, here, 8082).unwrap();
        assert_eq!(takers.iter().map(|taker| taker.local).collect::<Vec<_>>(), [IpAddr::V6(Ipv6Addr::UNSPECIFIED)]);
        assert!(facts.takers(Transport::Tcp, here, 8081).unwrap().is_empty());
        let (local, remote) = (queued[0].local_addr().unwrap(), queued[0].peer_addr().unwrap());
        let found = facts.connections((local.ip(), local.port()), (remote.ip(), remote.port())).unwrap();
        assert_eq!(found[0].state, SocketState::Established);
        assert!(sockets.iter().any(|s| s.transport == Transport::Udp && s.local_port == 5354 && s.remote_port == 9));

        let Ok(output) = Command::new("ss").args(["-H", "-n", "-t", "-u", "-a"]).output() else {
            eprintln!("SKIPPED: there is no `ss` to compare with");
            return;
        };
        // Netid State Recv-Q Send-Q Local Peer
        let theirs: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                let port = |at: usize| words[at].rsplit(':').next().unwrap().replace('*', "0");
                format!("{} {} {} {} {} {}", words[0], words[1], words[2], words[3], port(4), port(5))
            })
            .collect();
        let ours = sockets.iter().map(|s| {
            let kind = if s.transport == Transport::Tcp { "tcp" } else { "udp" };
            let state = match s.state {
                SocketState::Listen => "LISTEN",
                SocketState::Established => "ESTAB",
                SocketState::Unconnected => "UNCONN",
                other => panic!("{other:?}"),
            };
            format!("{kind} {state} {} {} {} {}", s.recv_queue, s.send_queue, s.local_port, s.remote_port)
        });
        let sorted = |mut all: Vec<String>| {
            all.sort();
            all
        };
        assert_eq!(sorted(ours.collect()), sorted(theirs));
    });
}

#[test]
fn many_sockets_are_read_whole_with_their_owners() {
    in_namespace(|| {
        ip("link set lo up");
        let listeners: Vec<_> = (0..400).map(|at| TcpListener::bind(("127.0.0.1", 20_000 + at)).unwrap()).collect();
        // The inodes of other tests' sockets are of this process as well, and must not be mistaken.
        let before = Instant::now();
        let sockets = part(Part::Sockets).sockets.unwrap();
        eprintln!("{} sockets with owners in {:?}", sockets.len(), before.elapsed());
        assert_eq!(sockets.len(), listeners.len());
        assert!(sockets.iter().all(|socket| socket.owners.iter().any(|owner| owner.pid == std::process::id())));
    });
}

#[test]
fn a_whole_snapshot_survives_its_document() {
    in_namespace(|| {
        furnish();
        ip("route add default via 192.168.1.1");
        ip("rule add pref 10 fwmark 0x7 lookup 100");
        ip("neigh add 192.168.1.7 lladdr 02:00:00:00:00:77 dev va nud permanent");
        let _listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let facts = gather(&GatherOptions::default());
        assert_eq!(facts.schema, 1);
        assert!(facts.hostname.is_some() && facts.kernel.is_some() && facts.taken_at_ms.is_some());
        assert!(facts.privileges.net_admin && facts.privileges.net_raw);
        assert_eq!(facts.sysctl("net.ipv4.ip_forward"), Some(0));
        assert!(facts.sysctls.contains_key("net.ipv4.conf.mac/1.rp_filter"), "{:?}", facts.sysctls);
        assert!(facts.sysctls.contains_key("net.ipv6.conf.va.disable_ipv6"));
        for counter in ["IpOutNoRoutes", "TcpExtListenOverflows", "Ip6InDiscards"] {
            assert!(facts.counters.contains_key(counter), "{counter}");
        }
        assert_eq!(facts.names.hosts.path, "/etc/hosts");
        let document = serde_json::to_string_pretty(&facts).unwrap();
        assert_eq!(serde_json::from_str::<HostFacts>(&document).unwrap(), facts);
    });
}

#[test]
fn counters_are_the_namespaces_own() {
    in_namespace(|| {
        ip("link set lo up");
        let before = part(Part::Counters).counters;
        let lost = UdpSocket::bind("127.0.0.1:0").unwrap();
        lost.send_to(b"x", "127.0.0.1:9").unwrap();
        let after = part(Part::Counters).counters;
        let moved = counters::moved(&before, &after);
        assert_eq!((moved.get("UdpOutDatagrams"), moved.get("UdpNoPorts")), (Some(&1), Some(&1)), "{moved:?}");
    });
}
