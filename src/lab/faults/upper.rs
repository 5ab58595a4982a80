//! Faults of names, of what an application says, and of stations that claim what is another's.

use super::catalogue::{fault, restart, run};
use super::{Change, Fault, Step};
use crate::lab::ServiceSpec;

/// The hosts file of the lab with names.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
/// Its resolv.conf.
const RESOLV: &str = "nameserver 192.168.1.53\nsearch lab\n";
/// Its nsswitch.conf.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// Every one of them.
pub(super) fn all() -> Vec<Fault> {
    let mut all = names();
    all.extend(servers());
    all.extend(answers());
    all.extend(stations());
    all
}

fn dns(args: &[&str]) -> Vec<Step> {
    let records = ["dns", "--record", "api.lab. A 192.168.1.3", "--record", "business.lab. A 192.168.1.2"];
    let spec = ServiceSpec::new("dns", "dns", &[&records[..], args].concat());
    vec![
        Step { on: "dns".to_owned(), change: Change::Stop("dns".to_owned()) },
        Step { on: "dns".to_owned(), change: Change::Start(spec) },
    ]
}

/// Files of the client that decide how names resolve.
fn names() -> Vec<Fault> {
    let topology = "lan-with-dns";
    let write = |name: &'static str, text: &str| {
        vec![Step { on: "business".to_owned(), change: Change::File { name, text: text.to_owned() } }]
    };
    vec![
        fault(
            "hosts-override",
            "dns.hosts_override",
            &["dns.hosts_override"],
            topology,
            "an old line in the client's hosts file gives the name another address",
            "the hosts file is asked before the DNS, and nothing checks what it says",
            write("hosts", &format!("{HOSTS}192.168.1.77 api.lab\n")),
            write("hosts", HOSTS),
        ),
        fault(
            "no-resolver",
            "dns.no_resolver",
            &["dns.no_resolver"],
            topology,
            "the client's resolv.conf names no server",
            "without a server the C library asks 127.0.0.1, where nobody is",
            write("resolv.conf", "# nobody\n"),
            write("resolv.conf", RESOLV),
        ),
        fault(
            "resolver-gone",
            "dns.server_unreachable",
            &["dns.server_unreachable"],
            topology,
            "the client's resolv.conf names a server that is not there",
            "a name that cannot be asked for looks like one that is not there, seconds later",
            write("resolv.conf", "nameserver 192.168.1.99\noptions timeout:1 attempts:1\n"),
            write("resolv.conf", RESOLV),
        ),
        fault(
            "nsswitch-without-dns",
            "dns.nsswitch",
            &["dns.nsswitch"],
            topology,
            "the client's nsswitch.conf does not name the DNS for hosts",
            "dig finds the name and applications do not: dig does not read nsswitch.conf",
            write("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
            write("nsswitch.conf", NSSWITCH),
        ),
    ]
}

/// What the DNS server does.
fn servers() -> Vec<Fault> {
    let mode = |name, cause, alone, summary, lesson, mode: &'static str| {
        fault(name, cause, alone, "lan-with-dns", summary, lesson, dns(&["--mode", mode]), dns(&[]))
    };
    vec![
        mode(
            "name-unknown",
            "dns.nxdomain",
            &["dns.nxdomain"],
            "the DNS server says that the name does not exist",
            "NXDOMAIN is an answer: the server is well, and the name is not there",
            "nxdomain",
        ),
        mode(
            "name-servfail",
            "dns.servfail",
            &["dns.servfail"],
            "the DNS server fails",
            "SERVFAIL says nothing of the name: the server could not find out",
            "servfail",
        ),
        mode(
            "name-refused",
            "dns.refused",
            &["dns.refused"],
            "the DNS server refuses this client",
            "REFUSED is about who asks, not about what is asked for",
            "refused",
        ),
        mode(
            "name-slow",
            "dns.slow",
            &["dns.slow"],
            "the DNS server takes its time",
            "everything works, seconds late: the time goes before the first packet to the service",
            "delay=1500",
        ),
    ]
}

/// What the service says.
fn answers() -> Vec<Fault> {
    let http = |name, cause, alone, summary, lesson, answer: &'static str| {
        fault(name, cause, alone, "lan", summary, lesson, restart(&["--answer", answer]), restart(&[]))
    };
    vec![
        http(
            "slow-answer",
            "app.slow",
            &["app.slow"],
            "the service takes seconds to begin its answer",
            "the handshake is quick and the answer is not: the time goes in the program",
            "delay=1500",
        ),
        http(
            "misframed",
            "app.framing",
            &["app.framing"],
            "the service runs one answer into the next",
            "TCP carries octets, not messages: who cuts them wrong reads half of one and the beginning of another",
            "misframed",
        ),
        http(
            "bad-gateway",
            "app.bad_gateway",
            &["app.bad_gateway"],
            "the service is a gateway, and what is behind it failed",
            "502 is told by the gateway about another: go on from there",
            "502",
        ),
    ]
}

/// Stations that claim what is another's.
fn stations() -> Vec<Fault> {
    vec![fault(
        "duplicate-mac",
        "neigh.duplicate",
        &["neigh.no_reply"],
        "lan",
        "client and server have one hardware address (a machine was cloned)",
        "a switch gives frames to the port where it last saw the address: each station robs the other",
        vec![run("api", "ip link set eth0 address 02:00:c0:a8:01:02")],
        vec![run("api", "ip link set eth0 address 02:00:c0:a8:01:03")],
    )]
}
