//! `reachwhy trace` on real routers, in labs that lead nowhere: every hop and every path compared with the truth.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

mod trace_support;

use std::collections::BTreeSet;
use std::io::Read as _;

use reachwhy::lab::impair::Impairment;
use reachwhy::lab::rules::Firewall;
use serde_json::Value;
use trace_support::{
    REACHWHY, addresses, all_unlimited, codes, finding, in_lab, layered, reachwhy, router_address, trace,
};

/// What a row of routers has to show.
fn row(length: usize, v6: bool) -> Vec<String> {
    let widths = vec![1; length];
    (0..=length).map(|layer| router_address(&widths, layer, 0, 0, v6)).collect()
}

#[test]
fn every_hop_of_rows_from_one_to_thirty_routers_is_listed_by_every_method() {
    for length in [1, 2, 9, 29] {
        in_lab(&layered(&vec![1; length]), |lab| {
            // The kernel's own limit on errors stays as it is: six at once are enough for a trace.
            for (dst, v6) in [("192.168.2.3", false), ("fd02::3", true)] {
                let found = trace(lab, &[dst]);
                assert_eq!(addresses(&found), row(length, v6), "{found:#}");
                assert_eq!((&found["reached"], &found["stopped"]), (&true.into(), &"reached".into()));
                let lost: usize = found["hops"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .flat_map(|hop| hop["probes"].as_array().unwrap())
                    .filter(|probe| probe["lost"] == true)
                    .count();
                assert!(v6 || lost == 0, "{found:#}");
            }
            all_unlimited(lab);
            let methods: [&[&str]; 5] = [
                &["--udp"],
                &["--tcp", "80"],
                &["--unprivileged"],
                &["--unprivileged", "--udp"],
                &["--unprivileged", "--tcp", "80"],
            ];
            for method in methods {
                for (dst, v6) in [("192.168.2.3", false), ("fd02::3", true)] {
                    let found = trace(lab, &[method, &[dst]].concat());
                    assert_eq!(addresses(&found), row(length, v6), "{method:?} {found:#}");
                    assert_eq!(found["reached"], true, "{method:?} {found:#}");
                }
            }
        });
    }
}

fn paths_of(found: &Value) -> BTreeSet<Vec<String>> {
    let one =
        |path: &Value| path.as_array().unwrap().iter().map(|hop| hop.as_str().unwrap_or("*").to_owned()).collect();
    found["paths"].as_array().unwrap().iter().map(one).collect()
}

/// Every path through the layers.
fn truth(widths: &[usize], v6: bool) -> BTreeSet<Vec<String>> {
    let mut paths: Vec<(usize, Vec<String>)> = vec![(0, vec![router_address(widths, 0, 0, 0, v6)])];
    for layer in 1..widths.len() {
        let mut longer = Vec::new();
        for (from, path) in &paths {
            for to in (0..widths[layer]).filter(|to| widths[layer - 1] != widths[layer] || from == to) {
                longer.push((to, [path.clone(), vec![router_address(widths, layer, *from, to, v6)]].concat()));
            }
        }
        paths = longer;
    }
    paths.into_iter().map(|(_, path)| [path, vec![router_address(widths, widths.len(), 0, 0, v6)]].concat()).collect()
}

#[test]
fn every_path_of_diamonds_is_found() {
    for widths in [vec![1, 2, 1], vec![1, 4, 4, 1], vec![1, 16, 1], vec![1, 2, 4, 1, 3, 1]] {
        in_lab(&layered(&widths), |lab| {
            all_unlimited(lab);
            for (dst, v6) in [("192.168.2.3", false), ("fd02::3", true)] {
                // Sure at each router is not sure of all of them: once in some hundred runs one is missed, so one more try.
                let ask = || trace(lab, &["--paths", "--confidence", "99.99", dst]);
                let mut found = ask();
                if paths_of(&found) != truth(&widths, v6) {
                    found = ask();
                }
                let graph = &found["graph"];
                assert_eq!(graph["complete"], true, "{graph:#}");
                assert_eq!(paths_of(&found), truth(&widths, v6), "{widths:?} {graph:#}");
                let spreads = graph["balancers"].as_array().unwrap();
                assert!(!spreads.is_empty() && spreads.iter().all(|one| one["spread"] == "per-flow"), "{spreads:?}");
            }
        });
    }
}

#[test]
fn one_flow_stays_on_one_path() {
    in_lab(&layered(&[1, 4, 4, 1]), |lab| {
        all_unlimited(lab);
        for method in [["--udp", "-q", "9"].as_slice(), &["--tcp", "80", "-q", "9"], &["--icmp", "-q", "9"]] {
            let found = trace(lab, &[method, &["192.168.2.3"]].concat());
            assert!(addresses(&found).iter().all(|hop| !hop.contains('|')), "{method:?} {found:#}");
        }
        let flows: BTreeSet<String> = (0..24)
            .map(|flow| {
                addresses(&trace(lab, &["--udp", "-q", "1", "--flow", &flow.to_string(), "192.168.2.3"]))[1].clone()
            })
            .collect();
        assert!(flows.len() > 1, "{flows:?}");
    });
}

#[test]
fn bad_targets_are_told_from_bad_paths() {
    in_lab(&layered(&[1, 1]), |lab| {
        let ask = |args: &[&str]| reachwhy(lab, "client", &[&["trace", "-n"], args].concat());
        for args in [
            &["a b"][..],
            &["192.168.2.3/24"],
            &["fe80::1"],
            &["0.0.0.0"],
            &["224.0.0.1"],
            &["-4", "fd02::3"],
            &["-f", "9", "-m", "3", "192.168.2.3"],
            &[""],
        ] {
            let (code, out, err) = ask(args);
            assert_eq!(code, 2, "{args:?}: {out}{err}");
            assert!(err.starts_with("error: "), "{err}");
        }
        let (code, _, err) = ask(&["no-such-host.invalid"]);
        assert!(code == 3 && err.contains("no-such-host.invalid"), "{err}");
        let (code, out, _) = ask(&["192.168.9.9"]);
        assert!(code == 1 && out.contains("network unreachable"), "{out}");
        lab.links("client", |links| links.delete_route(&"default via 192.168.1.1".parse().unwrap())).unwrap();
        let (code, _, err) = ask(&["192.168.9.9"]);
        assert!(code == 3 && err.contains("no route"), "{err}");
    });
}

#[test]
fn a_dead_destination_is_told_with_the_last_router() {
    in_lab(&layered(&[1, 1, 1]), |lab| {
        all_unlimited(lab);
        let found = trace(lab, &["192.168.2.77"]);
        assert_eq!(addresses(&found), row(3, false)[..3], "{found:#}");
        assert_eq!((&found["reached"], &found["stopped"]), (&false.into(), &"silent".into()), "{found:#}");
        assert!(codes(&found).contains(&"silent"), "{found:#}");
        assert_eq!(finding(&found, "silent")["ttl"], 3);
    });
}

/// `r1x0` keeps its errors to itself.
const SILENT: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p icmp --icmp-type time-exceeded -j DROP\nCOMMIT\n";

#[test]
fn silent_hops_are_told_from_loss_and_cost_one_wait() {
    in_lab(&layered(&[1; 8]), |lab| {
        all_unlimited(lab);
        for host in ["r1x0", "r4x0", "r5x0"] {
            lab.set_firewall(host, Firewall::v4(SILENT)).unwrap();
        }
        let found = trace(lab, &["192.168.2.3"]);
        let mut wanted = row(8, false);
        for at in [1, 4, 5] {
            wanted[at] = "*".to_owned();
        }
        assert_eq!(addresses(&found), wanted, "{found:#}");
        assert_eq!(found["reached"], true);
        assert!(finding(&found, "silent_hop")["says"].as_str().unwrap().contains("2, 5, 6"), "{found:#}");
        assert!(!codes(&found).contains(&"loss"), "{found:#}");
    });
}

#[test]
fn a_limit_is_told_from_loss_and_used_up_limits_are_waited_for() {
    in_lab(&layered(&[1, 1, 1]), |lab| {
        let found = trace(lab, &["-q", "14", "192.168.2.3"]);
        let limit = finding(&found, "rate_limited");
        assert_eq!(limit["bucket"]["burst"], 6, "{found:#}");
        assert!(!codes(&found).contains(&"loss"), "{found:#}");
        // Nothing is left of the routers' limit: with patience all of them are found all the same.
        let found = trace(lab, &["192.168.2.3"]);
        assert_eq!(addresses(&found), row(3, false), "{found:#}");
        let report =
            reachwhy(lab, "client", &["trace", "-n", "--report=json", "-c", "45", "-i", "0.1", "192.168.2.3"]).1;
        let report: Value = serde_json::from_str(&report).unwrap();
        let second = &report["hops"][1];
        assert!((0.5..=2.0).contains(&second["rate_limit"]["rate"].as_f64().unwrap()), "{second:#}");
        assert!(second["verdict"].as_str().unwrap().contains("a limit, not loss"), "{second:#}");
        assert_eq!(report["hops"][3]["loss_percent"], 0.0, "{report:#}");
    });
}

#[test]
fn mtu_steps_and_black_holes_are_found_where_they_are() {
    in_lab(&layered(&[1; 6]), |lab| {
        all_unlimited(lab);
        let narrow = |from: &str, to: &str, mtu: u32| {
            lab.links(from, |links| links.set_mtu("down0", mtu)).unwrap();
            lab.links(to, |links| links.set_mtu("up0", mtu)).unwrap();
        };
        narrow("r1x0", "r2x0", 1400);
        narrow("r3x0", "r4x0", 1317);
        for args in [&["192.168.2.3"][..], &["fd02::3"], &["--unprivileged", "192.168.2.3"]] {
            let found = trace(lab, &[&["--mtu"], args].concat());
            assert_eq!(found["path_mtu"], 1317, "{args:?} {found:#}");
            let sizes: Vec<u64> =
                found["hops"].as_array().unwrap().iter().map(|hop| hop["mtu"].as_u64().unwrap()).collect();
            assert_eq!(sizes, [1500, 1500, 1400, 1400, 1317, 1317, 1317], "{args:?}");
        }
        let keeps = SILENT.replace("time-exceeded", "fragmentation-needed");
        lab.set_firewall("r3x0", Firewall::v4(&keeps)).unwrap();
        let found = trace(lab, &["--mtu", "192.168.2.3"]);
        assert_eq!(
            (&found["path_mtu"], &finding(&found, "mtu_blackhole")["ttl"]),
            (&1317.into(), &4.into()),
            "{found:#}"
        );
    });
}

#[test]
fn a_loop_is_named() {
    in_lab(&layered(&[1; 5]), |lab| {
        all_unlimited(lab);
        // What r3x0 should pass on goes back to r2x0.
        lab.links("r3x0", |links| links.replace_route(&"192.168.2.0/24 via 10.3.0.1".parse().unwrap())).unwrap();
        let found = trace(lab, &["192.168.2.3", "-m", "12"]);
        assert_eq!(found["reached"], false);
        assert_eq!(finding(&found, "loop")["ttl"], 3, "{found:#}");
    });
}

#[test]
fn a_refusal_is_told_with_who_refuses() {
    in_lab(&layered(&[1, 1, 1]), |lab| {
        all_unlimited(lab);
        let reject = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A FORWARD -d 192.168.2.3/32 -j REJECT --reject-with icmp-admin-prohibited\nCOMMIT\n";
        lab.set_firewall("r1x0", Firewall::v4(reject)).unwrap();
        let (code, out, _) = reachwhy(lab, "client", &["trace", "-n", "192.168.2.3"]);
        assert_eq!(code, 1);
        assert!(out.contains("communication administratively prohibited") || out.contains("prohibited"), "{out}");
        let found = trace(lab, &["192.168.2.3"]);
        assert_eq!(
            (&found["stopped"], &found["unreachable"]["by"]),
            (&"unreachable".into(), &"10.1.0.2".into()),
            "{found:#}"
        );
        assert_eq!(found["unreachable"]["icmp"]["code"], 13);
        // The destination drops echo and lets TCP through: said, not guessed.
        lab.set_firewall(
            "r1x0",
            Firewall::v4("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"),
        )
        .unwrap();
        lab.set_firewall("server", Firewall::v4("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p icmp -j DROP\nCOMMIT\n")).unwrap();
        let found = trace(lab, &["192.168.2.3"]);
        assert!(finding(&found, "other_protocol")["says"].as_str().unwrap().contains("--tcp"), "{found:#}");
    });
}

#[test]
fn lossy_and_reordering_links_do_not_make_hops_up() {
    let mut topology = layered(&[1; 5]);
    topology.links[2].impair = Some(Impairment { delay_ms: 20.0, jitter_ms: 15.0, loss: 0.2, ..Impairment::default() });
    in_lab(&topology, |lab| {
        all_unlimited(lab);
        for _ in 0..3 {
            let found = trace(lab, &["-q", "8", "192.168.2.3"]);
            assert_eq!(addresses(&found), row(5, false), "{found:#}");
        }
    });
}

#[test]
fn without_privilege_nothing_is_lost_to_pending_errors() {
    in_lab(&layered(&[1, 1, 1, 1]), |lab| {
        all_unlimited(lab);
        let ask = |args: &[&str]| {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
            command.arg(REACHWHY).args(["trace", "-n", "--json"]).args(args).arg("192.168.2.3");
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            let mut process = lab.spawn("client", command).unwrap();
            let (mut out, mut err) = (String::new(), String::new());
            process.child().stdout.take().unwrap().read_to_string(&mut out).unwrap();
            process.child().stderr.take().unwrap().read_to_string(&mut err).unwrap();
            (out, err)
        };
        lab.in_host("client", || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"))
            .unwrap()
            .unwrap();
        for args in [&[][..], &["--udp"], &["--icmp"]] {
            let (out, err) = ask(args);
            let found: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?} {out}{err}"));
            assert_eq!(addresses(&found), row(4, false), "{args:?} {found:#}");
            let lost = found["hops"].as_array().unwrap().iter().flat_map(|hop| hop["probes"].as_array().unwrap());
            assert_eq!(lost.filter(|probe| probe["lost"] == true).count(), 0, "{args:?} {found:#}");
            assert_eq!(found["raw"], false);
        }
        // Ping sockets closed: datagrams still work, echo says what is missing.
        lab.in_host("client", || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "1 0")).unwrap().unwrap();
        let (out, _) = ask(&[]);
        let found: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&found["protocol"], &found["reached"]), (&"udp".into(), &true.into()));
        let (_, err) = ask(&["--icmp"]);
        assert!(err.contains("setcap cap_net_raw"), "{err}");
    });
}
