//! What the comparisons with iproute2 share: a namespace to work in, and `ip` to ask.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, unreachable_pub)]

use std::collections::BTreeSet;
use std::process::Command;

use reachwhy::host::HostFacts;
use reachwhy::os::gather::{GatherOptions, Part, gather};
use reachwhy::os::netns::NetNs;
use serde_json::Value;

/// Runs a test on a thread of its own in a new namespace, where that and `ip` can be had.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let why = std::thread::spawn(move || {
        if Command::new("ip").arg("-V").output().is_err() {
            return Some("there is no `ip` to compare with".to_owned());
        }
        if let Err(error) = NetNs::unshare() {
            return Some(error.to_string());
        }
        test();
        None
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    if let Some(why) = why {
        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "kernel tests are required: {why}");
        eprintln!("SKIPPED: {why}");
    }
}

pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn ip_json(arguments: &str) -> Vec<Value> {
    let text = ip(&format!("-j {arguments}"));
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() }
}

/// Lines with single blanks; what is indented belongs to the line before.
pub fn lines(text: &str) -> BTreeSet<String> {
    let joined = text.replace("\n\t", " ");
    joined.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Two veth pairs, a bridge and a macvlan, addresses of both families.
pub fn furnish() {
    for order in [
        "link set lo up",
        "link add va address 02:00:00:00:00:0a type veth peer name vb address 02:00:00:00:00:0b",
        "link add vc type veth peer name vd",
        "link add br0 address 02:00:00:00:00:0f type bridge",
        "link set vd master br0",
        "link add link va name mac.1 type macvlan mode bridge",
        "link set va mtu 1400",
        "link set va up",
        "link set vb up",
        "link set vc up",
        "link set vd up",
        "link set br0 up",
        "addr add 192.168.1.2/24 brd + dev va",
        "addr add 192.168.1.22/24 dev va",
        "addr add 10.9.9.1 peer 10.9.9.2/32 dev vc",
        "addr add fd00::2/64 dev va nodad",
        "addr add fd00::22/64 dev va nodad preferred_lft 0 valid_lft 1000",
    ] {
        ip(order);
    }
}

/// One part of the facts, of which all must be seen.
pub fn part(part: Part) -> HostFacts {
    let facts = gather(&GatherOptions::only([part]));
    assert_eq!(facts.unseen, [], "{part:?}");
    facts
}
