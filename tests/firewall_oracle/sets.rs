//! Random ipsets.

use std::sync::OnceLock;

use crate::kernel::feed;
use crate::line::CLIENT_MAC;
use crate::matches::{self, OTHER_MAC};
use crate::random::Random;
use crate::rules::Focus;

/// The types that are drawn; the coverage list names them.
pub(crate) const TYPES: [&str; 16] = [
    "hash:ip",
    "hash:net",
    "hash:ip,port",
    "bitmap:port",
    "hash:net,port",
    "hash:ip,port,ip",
    "hash:net,iface",
    "hash:mac",
    "hash:ip,mac",
    "hash:ip,mark",
    "hash:net,net",
    "hash:ip,port,net",
    "hash:net,port,net",
    "bitmap:ip",
    "bitmap:ip,mac",
    // Drawn by the ruleset, of the sets before it.
    "list:set",
];

/// The types of addresses and ports that the running kernel has; asked in the calling thread's namespace.
pub(crate) fn here() -> &'static [&'static str] {
    static HERE: OnceLock<Vec<&'static str>> = OnceLock::new();
    HERE.get_or_init(|| {
        let range = |kind: &str| match kind {
            "bitmap:port" => " range 0-1",
            "bitmap:ip" | "bitmap:ip,mac" => " range 10.0.0.0/30",
            _ => "",
        };
        let has = |kind: &&str| {
            feed("ipset", &["restore"], &format!("create probe {kind}{}\ndestroy probe\n", range(kind))).is_ok()
        };
        TYPES[..TYPES.len() - 1].iter().copied().filter(has).collect()
    })
}

/// An ipset with its elements: the commands that make it.
pub(crate) fn set(r: &mut Random, name: &str, v6: bool, focus: Focus) -> (&'static str, Vec<String>) {
    let kind = r.pick(here());
    let kind =
        if v6 && (kind.starts_with("bitmap:ip") || kind == "hash:ip,mac" && r.chance(50)) { "hash:net" } else { kind };
    let side = r.pick(&[1, 2]);
    let family = if v6 { " family inet6" } else { "" };
    let mut create = match kind {
        "bitmap:port" => format!("create {name} bitmap:port range 0-65535"),
        "bitmap:ip" | "bitmap:ip,mac" => format!("create {name} {kind} range 10.{side}.0.0/24"),
        "hash:mac" => format!("create {name} hash:mac"),
        _ => format!("create {name} {kind}{family}"),
    };
    for option in [" timeout 3600", " counters", " comment", " skbinfo"] {
        if r.chance(12) {
            create += option;
        }
    }
    let commented = create.contains("comment");
    let mut lines = vec![create];
    for _ in 0..=r.below(5) {
        let element = element(r, kind, v6, focus, side);
        let comment = if commented && r.chance(50) { " comment \"a b\"" } else { "" };
        lines.push(format!("add {name} {element}{comment} -exist"));
    }
    (kind, lines)
}

fn element(r: &mut Random, kind: &str, v6: bool, focus: Focus, side: u8) -> String {
    let addr = |r: &mut Random| if r.chance(50) { matches::source(r, v6) } else { matches::destination(r, v6, focus) };
    let net = |r: &mut Random| {
        let length = if v6 { r.pick(&[128, 64, 48, 127]) } else { r.pick(&[32, 24, 16, 25, 31]) };
        format!("{}/{length}", addr(r))
    };
    let port = |r: &mut Random| {
        let proto = r.pick(&["tcp", "udp", "udplite", "sctp"]);
        match r.below(8) {
            0 if v6 => "icmpv6:echo-request".to_owned(),
            0 => "icmp:echo-request".to_owned(),
            1 => "47:0".to_owned(),
            _ => format!("{proto}:{}", matches::port(r)),
        }
    };
    let nomatch = if kind.contains("net") && r.chance(25) { " nomatch" } else { "" };
    let mac = r.pick(&[CLIENT_MAC, OTHER_MAC]);
    match kind {
        "hash:ip" => addr(r).to_string(),
        "hash:net" => format!("{}{nomatch}", net(r)),
        "hash:ip,port" => format!("{},{}", addr(r), port(r)),
        "bitmap:port" => matches::port(r).to_string(),
        "hash:net,port" => format!("{},{}{nomatch}", net(r), port(r)),
        "hash:ip,port,ip" => format!("{},{},{}", addr(r), port(r), addr(r)),
        "hash:net,iface" => format!("{},{}{nomatch}", net(r), r.pick(&["eth0", "eth1"])),
        "hash:mac" => mac.to_string(),
        "hash:ip,mac" => format!("{},{mac}", addr(r)),
        "hash:ip,mark" => format!("{},{:#x}", addr(r), r.pick(&[0, 1, 0x10])),
        "hash:net,net" => format!("{},{}{nomatch}", net(r), net(r)),
        "hash:ip,port,net" => format!("{},{},{}{nomatch}", addr(r), port(r), net(r)),
        "hash:net,port,net" => format!("{},{},{}{nomatch}", net(r), port(r), net(r)),
        "bitmap:ip" | "bitmap:ip,mac" => {
            let host = r.pick(&[2, 5, 6, 77, 128]);
            let mac = if kind == "bitmap:ip" { String::new() } else { format!(",{mac}") };
            format!("10.{side}.0.{host}{mac}")
        }
        _ => unreachable!("{kind}"),
    }
}
