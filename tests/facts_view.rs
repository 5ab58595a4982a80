//! A host's facts as people see them.
#![allow(clippy::unwrap_used, missing_docs)]

use reachwhy::host::HostFacts;
use reachwhy::view::{self, Style};
use serde_json::json;

fn host() -> HostFacts {
    let whole = json!({
        "schema": 1,
        "hostname": "api.lab",
        "kernel": "6.1.0",
        "privileges": {
            "euid": 1000, "net_raw": false, "net_admin": false, "sys_admin": false, "sys_ptrace": false,
            "ping_socket": true, "grant": "sudo setcap cap_net_raw,cap_net_admin+ep /usr/bin/reachwhy"
        },
        "links": [
            {"index": 2, "name": "eth0", "kind": "veth", "mac": "02:00:c0:a8:01:03", "mtu": 1500, "up": true,
             "carrier": false, "oper": "down", "loopback": false, "noarp": false, "point_to_point": false}
        ],
        "addresses": [
            {"index": 2, "interface": "eth0", "address": "192.168.1.3", "prefix_len": 24, "scope": "global"},
            {"index": 2, "interface": "eth0", "address": "fd00::3", "prefix_len": 64, "scope": "global", "dad_failed": true}
        ],
        "routes": [
            {"table": 254, "kind": "unicast", "destination": "0.0.0.0/0", "gateway": "192.168.1.1", "interface": "eth0",
             "metric": 100, "protocol": "dhcp", "scope": "global", "linkdown": true},
            {"table": 7, "kind": "blackhole", "destination": "10.0.0.0/8", "metric": 0, "protocol": "static", "scope": "global"}
        ],
        "rules": [
            {"priority": 0, "v6": false, "action": {"table": 255}},
            {"priority": 100, "v6": false, "from": "192.168.1.3/32", "action": {"table": 7}}
        ],
        "neighbours": [{"interface": "eth0", "address": "192.168.1.1", "state": "failed"}],
        "sockets": [
            {"transport": "tcp", "state": "listen", "local": "127.0.0.1", "local_port": 8080, "remote": "0.0.0.0",
             "remote_port": 0, "recv_queue": 6, "send_queue": 5, "uid": 0, "inode": 7,
             "owners": [{"pid": 4711, "name": "bad\u{1b}[2Jname", "state": "T", "fds": [10, 1024]}]},
            {"transport": "tcp", "state": "time-wait", "local": "127.0.0.1", "local_port": 1, "remote": "127.0.0.1",
             "remote_port": 2, "recv_queue": 0, "send_queue": 0, "uid": 0, "inode": 0}
        ],
        "sysctls": {"net.ipv4.ip_forward": "1"},
        "names": {
            "hosts": {"path": "/etc/hosts", "text": "127.0.0.1 localhost\n192.168.1.300 api\n"},
            "resolv_conf": {"path": "/etc/resolv.conf", "text": null, "why": "No such file or directory (os error 2)"},
            "nsswitch": {"path": "/etc/nsswitch.conf", "text": "hosts: files mdns4_minimal [NOTFOUND=return] dns"},
            "gai_conf": {"path": "/etc/gai.conf", "text": null, "why": "No such file or directory (os error 2)"},
            "environment": {"RES_OPTIONS": "ndots:5"}
        },
        "firewall": [{"format": "iptables-save", "backend": "nft", "via": "netlink", "text": "*filter\nCOMMIT\n"}],
        "counters": {"TcpExtListenOverflows": 3, "IpInReceives": 100},
        "unseen": [{"fact": "firewall", "why": "not permitted", "hint": "sudo reachwhy facts"}]
    });
    serde_json::from_value(whole).unwrap()
}

fn shown(style: Style) -> String {
    let mut page = Vec::new();
    view::facts(&mut page, &host(), style).unwrap();
    String::from_utf8(page).unwrap()
}

#[test]
fn what_is_wrong_can_be_seen() {
    let page = shown(Style::PLAIN);
    for line in [
        "api.lab  Linux 6.1.0",
        "for more: sudo setcap cap_net_raw,cap_net_admin+ep /usr/bin/reachwhy",
        "  eth0  no carrier  veth  1500  02:00:c0:a8:01:03  192.168.1.3/24",
        "fd00::3/64 duplicate!",
        "  default via 192.168.1.1 dev eth0 proto dhcp metric 100 linkdown",
        "Routes, table 7\n  blackhole 10.0.0.0/8 proto static",
        "Policy rules\n  -4 100: from 192.168.1.3 lookup 7\n",
        "  192.168.1.1 dev eth0 FAILED",
        "  tcp  127.0.0.1:8080  6/5      bad\u{fffd}[2Jname(4711, stopped!)",
        "TCP connections: 1 time-wait",
        "files, then mdns4_minimal [NOTFOUND=return], then dns",
        "127.0.0.1 (none is named)",
        "/etc/hosts:2:1",
        "/etc/resolv.conf  No such file",
        "forwards IPv4  yes",
        "iptables-save",
        "TcpExtListenOverflows  3",
        "firewall  not permitted",
    ] {
        assert!(page.contains(line), "{line:?} is not in\n{page}");
    }
    assert!(!page.contains("gai.conf"), "{page}");
    assert!(!page.contains("IpInReceives"), "{page}");
}

#[test]
fn nothing_of_the_host_commands_the_terminal() {
    assert!(!shown(Style::PLAIN).contains('\u{1b}'));
    let coloured = shown(Style { color: true, width: 80 });
    assert!(coloured.contains('\u{1b}') && !coloured.contains("\u{1b}[2J"));
}

#[test]
fn tables_keep_to_the_width() {
    for width in [40, 60, 80, 120] {
        let page = shown(Style { color: false, width });
        // What can be copied (commands, routes, rules) stays on its line.
        let free = ["for more", "looked at", "  default", "  blackhole", "  -4", "  192.", "  TCP"];
        for line in page.lines().filter(|line| !free.iter().any(|free| line.starts_with(free))) {
            assert!(line.chars().count() <= width, "{width}: {line:?}");
        }
    }
}

#[test]
fn a_host_of_which_nothing_was_seen_is_shown_too() {
    let mut page = Vec::new();
    view::facts(&mut page, &HostFacts::default(), Style::PLAIN).unwrap();
    assert!(String::from_utf8(page).unwrap().contains("this host"));
}
