//! `reachwhy dns` on hosts whose names go wrong in known ways: the cause is named, the exit code is right.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "a test")]

mod dns_support;
mod probe_support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dns_support::server::{AA, AD, Asked, Build, RA, Reply, TC, TO_QUESTION, record, serve, wire};
use dns_support::{Etc, Ran, dns};
use probe_support::{Sandbox, sandboxed};
use serde_json::Value;

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const THREE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

fn at(address: IpAddr) -> SocketAddr {
    (address, 53).into()
}

fn now(build: Build) -> Vec<Reply> {
    vec![(Duration::ZERO, build.octets())]
}

/// A zone: names (with a dot at the end), types and addresses; NXDOMAIN for other names.
fn zone(asked: &Asked, records: &[(&str, &str)]) -> Vec<Reply> {
    if !records.iter().any(|(name, _)| *name == asked.name) {
        return now(Build::reply(asked, 3));
    }
    let own = records.iter().filter(|(name, _)| *name == asked.name).map(|(_, value)| value.parse::<IpAddr>().unwrap());
    let kind = |address: &IpAddr| if address.is_ipv4() { 1 } else { 28 };
    now(own
        .filter(|address| kind(address) == asked.rtype)
        .fold(Build::reply(asked, 0), |build, address| build.address(TO_QUESTION, address)))
}

fn serve_zone(address: IpAddr, records: &'static [(&'static str, &'static str)]) {
    serve(at(address), move |asked| zone(asked, records));
}

fn host(test: impl FnOnce(&Sandbox, &Etc) + Send + 'static) {
    sandboxed(move |sandbox| {
        let etc = Etc::own(sandbox);
        etc.set("hosts", "127.0.0.1 localhost\n");
        etc.set("resolv.conf", "nameserver 127.0.0.1\n");
        test(sandbox, &etc);
    });
}

fn codes(report: &Value) -> Vec<String> {
    report["findings"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn expect(ran: &Ran, code: i32, first: &str) -> Value {
    let report = ran.json();
    assert_eq!(ran.code, code, "{report:#}");
    if !first.is_empty() {
        assert_eq!(codes(&report).first().map(String::as_str), Some(first), "{report:#}");
    }
    if report["check"].is_object() {
        assert_eq!(report["check"]["agrees"], true, "{report:#}");
    }
    report
}

#[test]
fn a_line_of_the_hosts_file_shadows_the_dns() {
    host(|_, etc| {
        serve_zone(ONE, &[("www.163.com.", "203.0.113.7"), ("same.example.", "10.0.0.1")]);
        etc.set("hosts", "127.0.0.1 localhost\n\n10.9.9.9 www.163.com # test\n10.0.0.1 same.example\n10.0.0.2 mine\n");
        let report = expect(&dns(&["www.163.com", "--json"]), 1, "dns.hosts_override");
        assert_eq!(report["answers"][0]["address"], "10.9.9.9");
        assert_eq!(report["answers"][0]["source"], "hosts");
        assert_eq!(report["answers"][0]["line"], 3);
        assert_eq!(report["disagreement"][0]["between"], "hosts");
        assert!(report["findings"][0]["object"].as_str().unwrap().ends_with("hosts:3"), "{report:#}");
        expect(&dns(&["same.example", "--json"]), 0, "");
        // What only this host calls so is not told to servers.
        assert_eq!(expect(&dns(&["mine", "--json"]), 0, "")["servers"], serde_json::json!([]));
        let text = dns(&["www.163.com"]);
        assert!(text.out.contains("hosts line 3") && text.out.contains("dns.hosts_override"), "{}", text.out);
        assert!(!text.out.contains('\u{1b}'));
    });
}

#[test]
fn every_failure_has_its_name() {
    host(|_, etc| {
        serve(at(ONE), |asked| {
            let code = match asked.name.as_str() {
                "fails.lab." => 2,
                "refused.lab." => 5,
                "empty.lab." => 0,
                "lame.lab." => {
                    let mut lame = Build::reply(asked, 0);
                    lame.flags &= !RA;
                    return now(lame);
                }
                "ring.lab." => {
                    let (ring, other) = (wire("ring.lab"), wire("other.lab"));
                    let reply = Build::reply(asked, 0).record(TO_QUESTION, 5, &other);
                    return now(reply.record(&other, 5, &ring));
                }
                "alias.lab." => return now(Build::reply(asked, 0).record(TO_QUESTION, 5, &wire("end.lab"))),
                "silent.lab." => return Vec::new(),
                "short.lab." => return vec![(Duration::ZERO, vec![1, 2, 3])],
                _ => 3,
            };
            now(Build::reply(asked, code))
        });
        etc.set("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        for (name, code) in [
            ("nope.lab", "dns.nxdomain"),
            ("empty.lab", "dns.nodata"),
            ("alias.lab", "dns.nodata"),
            ("ring.lab", "dns.alias_loop"),
            ("fails.lab", "dns.servfail"),
            ("refused.lab", "dns.refused"),
            ("lame.lab", "dns.lame"),
            ("silent.lab", "dns.server_unreachable"),
            ("short.lab", "dns.malformed"),
        ] {
            let report = expect(&dns(&[name, "--json", "--timeout", "0.2"]), 1, code);
            assert_eq!(report["answers"], serde_json::json!([]));
            assert!(report["error"]["eai"].as_str().unwrap().starts_with("EAI_"), "{report:#}");
        }
        etc.set("resolv.conf", "# empty\n");
        expect(&dns(&["localhost.localdomain.lab", "--json", "--timeout", "0.2"]), 1, "");
        etc.set("resolv.conf", "nameserver 127.0.0.9\n");
        expect(&dns(&["nope.lab", "--json"]), 1, "dns.server_unreachable");
    });
    host(|_, etc| {
        etc.set("resolv.conf", "options timeout:1\n");
        expect(&dns(&["api.lab", "--json"]), 1, "dns.no_resolver");
    });
}

#[test]
fn servers_that_disagree_and_those_asked_besides() {
    host(|_, etc| {
        serve_zone(ONE, &[("api.lab.", "10.0.0.1"), ("www.lab.", "10.0.0.5")]);
        serve_zone(TWO, &[("api.lab.", "10.0.0.2"), ("www.lab.", "10.0.0.5")]);
        serve_zone(THREE, &[("www.lab.", "10.0.0.6")]);
        etc.set("resolv.conf", "nameserver 127.0.0.1\nnameserver 127.0.0.2\n");
        let report = expect(&dns(&["api.lab", "--json"]), 1, "dns.servers_disagree");
        assert_eq!(report["disagreement"][0]["between"], "servers");
        assert_eq!(report["answers"][0]["server"], "127.0.0.1");
        let report = expect(&dns(&["www.lab", "--json"]), 0, "");
        assert_eq!(report["disagreement"], serde_json::json!([]));
        let report = expect(&dns(&["www.lab", "--json", "--server", "127.0.0.3"]), 1, "dns.servers_disagree");
        assert_eq!(report["disagreement"][0]["between"], "asked");
        assert_eq!(report["servers"].as_array().unwrap().len(), 3);
        let report = expect(&dns(&["www.lab", "--json", "--server", "tcp://127.0.0.2"]), 0, "");
        assert_eq!(report["servers"][2]["transport"], "tcp");
        expect(&dns(&["www.lab", "--json", "--server", "127.0.0.7", "--timeout", "0.2"]), 1, "dns.server_unreachable");
        assert_eq!(dns(&["www.lab", "--json", "--no-compare"]).json()["disagreement"], Value::Null);
    });
}

#[test]
fn the_search_list_and_nsswitch() {
    host(|_, etc| {
        serve(at(ONE), |asked| match asked.name.as_str() {
            // A wildcard below one suffix.
            name if name.ends_with(".wild.lab.") => zone(asked, &[(name, "10.6.6.6")]),
            _ => zone(asked, &[("api.lab.", "10.0.0.1"), ("www.example.", "10.0.0.2")]),
        });
        etc.set("resolv.conf", "nameserver 127.0.0.1\nsearch lab\n");
        let report = expect(&dns(&["api", "--json"]), 0, "");
        assert_eq!(report["answers"][0]["owner"], "api.lab");
        assert_eq!(report["steps"][1]["suffix"], "lab");
        etc.set("resolv.conf", "nameserver 127.0.0.1\nsearch wild.lab\noptions ndots:3\n");
        let report = expect(&dns(&["www.example", "--json"]), 1, "dns.search_domain");
        assert_eq!(report["answers"][0]["address"], "10.6.6.6");
        assert!(report["findings"][0]["object"].as_str().unwrap().ends_with("resolv.conf:2"));
        expect(&dns(&["www.example.", "--json"]), 0, "");
        etc.set("resolv.conf", "nameserver 127.0.0.1\nsearch typo.invalid\n");
        expect(&dns(&["api", "--json"]), 1, "dns.search_domain");
        etc.set("resolv.conf", "nameserver 127.0.0.1\n");
        etc.set("nsswitch.conf", "hosts: files\n");
        expect(&dns(&["api.lab", "--json"]), 1, "dns.nsswitch");
        etc.set("nsswitch.conf", "hosts: files [NOTFOUND=return] dns\n");
        let report = expect(&dns(&["api.lab", "--json"]), 1, "dns.nsswitch");
        assert_eq!(report["nsswitch"]["never_asked"], serde_json::json!(["dns"]));
        etc.set("nsswitch.conf", "hosts: dns\n");
        etc.set("hosts", "10.0.0.9 only.here\n");
        expect(&dns(&["only.here", "--json"]), 1, "dns.nsswitch");
    });
}

#[test]
fn a_dead_first_server_costs_its_time() {
    host(|_, etc| {
        serve(at(ONE), |_| Vec::new());
        serve_zone(TWO, &[("api.lab.", "10.0.0.2")]);
        etc.set("resolv.conf", "nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions timeout:1\n");
        let report = expect(&dns(&["api.lab", "--json", "--timeout", "0.2"]), 1, "dns.slow");
        assert!(codes(&report).contains(&"dns.server_unreachable".to_owned()), "{report:#}");
        assert!(report["ms"].as_f64().unwrap() >= 1000.0);
        assert_eq!(report["steps"][1]["result"].as_str().unwrap().split(' ').next(), Some("no"));
        assert_eq!(report["answers"][0]["server"], "127.0.0.2");
    });
}

#[test]
fn hostile_answers_are_survived_and_named() {
    host(|_, _| {
        serve(at(ONE), |asked| {
            let address = IpAddr::from([10, 0, 0, 1]);
            let good = || Build::reply(asked, 0).address(TO_QUESTION, address);
            if asked.rtype != 1 {
                return now(Build::reply(asked, 0));
            }
            match asked.name.as_str() {
                "forged.lab." => {
                    let mut forged = Build::reply(asked, 0).address(TO_QUESTION, [6, 6, 6, 6].into());
                    forged.id ^= 1;
                    vec![(Duration::ZERO, forged.octets()), (Duration::ZERO, good().octets())]
                }
                "loop.lab." => now(good().record(&[0xc0, 0x2a], 1, &[1; 4])),
                "huge.lab." if !asked.tcp => {
                    let mut build = good();
                    build.flags |= TC;
                    now(build)
                }
                "huge.lab." => now((0..3000_u16).fold(Build::reply(asked, 0), |build, n| {
                    let [high, low] = n.to_be_bytes();
                    build.address(TO_QUESTION, [10, 1, high, low].into())
                })),
                "escape.lab." => now(good().record(TO_QUESTION, 5, b"\x04\x1b[2J\x00")),
                "claims.lab." => {
                    let mut build = good();
                    build.counts = Some([1, 60_000, 0, 0]);
                    now(build)
                }
                _ => now(Build::reply(asked, 3)),
            }
        });
        let report = expect(&dns(&["forged.lab", "--json"]), 0, "dns.spoofed");
        assert_eq!(report["answers"][0]["address"], "10.0.0.1");
        let report = dns(&["loop.lab", "--json"]).json();
        assert!(codes(&report).contains(&"dns.malformed".to_owned()), "{report:#}");
        assert!(report.to_string().contains("loop"), "{report:#}");
        let report = expect(&dns(&["huge.lab", "--json"]), 0, "");
        assert_eq!(report["answers"].as_array().unwrap().len(), 3000);
        assert!(report["steps"].to_string().contains("truncated"));
        assert!(report["steps"].to_string().contains("\"tcp\""));
        assert!(!dns(&["huge.lab"]).out.is_empty());
        assert!(!dns(&["escape.lab"]).out.contains('\u{1b}'));
        let report = dns(&["claims.lab", "--json"]).json();
        assert!(codes(&report).contains(&"dns.malformed".to_owned()), "{report:#}");
        for name in ["a..b", "-x", "ä.lab", &"a".repeat(70), &"a.".repeat(200), "*", "a b", "..", "%"] {
            let ran = dns(&["--json", "--", name]);
            assert!(matches!(ran.code, 1 | 2), "{name}: {} {} {}", ran.code, ran.out, ran.err);
        }
        assert_eq!(dns(&["x.lab", "NOTYPE"]).code, 2);
        assert_eq!(dns(&[""]).code, 2);
        assert_eq!(dns(&[]).code, 2);
        assert_eq!(dns(&["x.lab", "--server", "ftp://x"]).code, 2);
    });
}

#[test]
fn records_of_all_kinds_and_names_of_addresses() {
    host(|_, etc| {
        serve(at(ONE), |asked| {
            let reply = Build::reply(asked, 0);
            now(match (asked.name.as_str(), asked.rtype) {
                ("lab.", 15) => reply.record(TO_QUESTION, 15, &[&[0, 10][..], &wire("mail.lab")].concat()),
                ("lab.", 16) => reply.record(TO_QUESTION, 16, b"\x06v=spf1"),
                ("_x._tcp.lab.", 33) => {
                    reply.record(TO_QUESTION, 33, &[&[0, 1, 0, 2, 1, 187][..], &wire("api.lab")].concat())
                }
                ("lab.", 257) => reply.record(TO_QUESTION, 257, b"\x00\x05issueca.lab"),
                ("lab.", 65280) => reply.record(TO_QUESTION, 65280, &[1, 2, 255]),
                ("1.0.0.10.in-addr.arpa.", 12) => reply.record(TO_QUESTION, 12, &wire("ten.lab")),
                ("www.lab.", 1) => {
                    let cdn = wire("e1.akamaiedge.net");
                    reply.record(TO_QUESTION, 5, &cdn).address(&cdn, [10, 0, 0, 8].into())
                }
                ("www.lab.", _) => reply,
                _ => Build::reply(asked, 3),
            })
        });
        for (name, rtype, shown) in [
            ("lab", "MX", "10 mail.lab."),
            ("lab", "txt", "v=spf1"),
            ("_x._tcp.lab", "SRV", "1 2 443 api.lab."),
            ("lab", "CAA", "0 issue \"ca.lab\""),
            ("lab", "TYPE65280", "\\# 3 0102ff"),
            ("10.0.0.1", "PTR", "ten.lab"),
        ] {
            let report = expect(&dns(&[name, rtype, "--json"]), 0, "");
            assert!(report["answers"][0]["data"].as_str().unwrap().contains(shown), "{report:#}");
            assert!(report["servers"][0]["answers"][0].as_str().unwrap().contains(shown), "{report:#}");
        }
        assert_eq!(dns(&["10.0.0.1", "--json"]).json()["answers"][0]["data"], "ten.lab");
        let report = dns(&["127.0.0.1", "--json"]).json();
        assert_eq!((&report["answers"][0]["data"], &report["answers"][0]["line"]), (&"localhost".into(), &1.into()));
        let report = expect(&dns(&["www.lab", "--json"]), 0, "");
        assert_eq!((&report["cdn"], &report["chain"][0]["to"]), (&"Akamai".into(), &"e1.akamaiedge.net".into()));
        let _ = etc;
    });
}

#[test]
fn from_the_root_down() {
    host(|_, etc| {
        let refer = |asked: &Asked, cut: &str, server: &str, glue: IpAddr| {
            let mut reply = Build::reply(asked, 0);
            reply.flags &= !RA;
            reply.sections[1].push(record(&wire(cut), 2, &wire(server)));
            if let IpAddr::V4(v4) = glue {
                reply.sections[2].push(record(&wire(server), 1, &v4.octets()));
            }
            now(reply)
        };
        serve(at(ONE), move |asked| match asked.name.as_str() {
            // Unasked for, whoever comes from this host gets an old answer: it is also the resolver.
            "api.corp.lab." if asked.section.is_empty() => Vec::new(),
            _ => refer(asked, "lab", "ns.lab", TWO),
        });
        serve(at(TWO), move |asked| match asked.name.as_str() {
            name if name.ends_with("corp.lab.") => refer(asked, "corp.lab", "ns.corp.lab", THREE),
            name if name.ends_with("lame.lab.") => refer(asked, "lame.lab", "ns.corp.lab", THREE),
            _ => {
                let mut no = Build::reply(asked, 3);
                no.flags |= AA;
                now(no)
            }
        });
        serve(at(THREE), |asked| {
            let mut reply = match asked.name.as_str() {
                "api.corp.lab." if asked.rtype == 1 => {
                    Build::reply(asked, 0).address(TO_QUESTION, [10, 0, 0, 9].into())
                }
                name if name.ends_with("lame.lab.") => return now(Build::reply(asked, 5)),
                _ => Build::reply(asked, 0),
            };
            reply.flags |= AA;
            now(reply)
        });
        // What this host is told is old.
        serve(at([127, 0, 0, 4].into()), |asked| {
            zone(asked, &[("api.corp.lab.", "10.0.0.8"), ("x.lame.lab.", "10.0.0.8")])
        });
        etc.set("resolv.conf", "nameserver 127.0.0.4\n");
        let report =
            expect(&dns(&["api.corp.lab", "--json", "--trace", "--root", "127.0.0.1"]), 1, "dns.servers_disagree");
        assert_eq!(report["trace"]["answers"], serde_json::json!(["10.0.0.9"]));
        assert_eq!(report["trace"]["zone"], "corp.lab");
        assert_eq!(report["trace"]["steps"].as_array().unwrap().len(), 3);
        assert_eq!(report["disagreement"][0]["between"], "authority");
        let report = dns(&["x.lame.lab", "--json", "--trace", "--root", "127.0.0.1"]).json();
        assert!(report["trace"]["lame"][0].as_str().unwrap().contains("REFUSED"), "{report:#}");
        let report = dns(&["nope.lab", "--json", "--trace", "--root", "127.0.0.1"]).json();
        assert_eq!(report["trace"]["rcode"], "NXDOMAIN", "{report:#}");
        assert_eq!(dns(&["nope.lab", "--trace", "--root", "x"]).code, 2);
    });
}

#[test]
fn dnssec_as_the_servers_see_it() {
    host(|_, _| {
        serve(at(ONE), |asked| {
            let checked = asked.name == "signed.lab.";
            // The CD bit is the fifth of the fourth octet, which is not in what the test server keeps: a bogus
            // name is told by its number of questions instead.
            let mut reply = match asked.name.as_str() {
                "signed.lab." | "plain.lab." if asked.rtype == 1 => {
                    Build::reply(asked, 0).address(TO_QUESTION, [10, 0, 0, 1].into())
                }
                _ => Build::reply(asked, 0),
            };
            if checked {
                reply.flags |= AD;
            }
            now(reply)
        });
        assert_eq!(dns(&["signed.lab", "--json"]).json()["servers"][0]["dnssec"], "validated");
        assert_eq!(dns(&["plain.lab", "--json"]).json()["servers"][0]["dnssec"], "unsigned");
    });
}

#[test]
fn servers_by_tls_and_https() {
    host(|_, etc| {
        let key = rcgen::generate_simple_self_signed(vec!["dns.lab".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, key.cert.pem()).unwrap();
        let secret = rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], secret)
            .unwrap();
        let config = Arc::new(config);
        for (port, http) in [(853, false), (443, true)] {
            let (listener, config) = (TcpListener::bind((ONE, port)).unwrap(), Arc::clone(&config));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                    let mut stream = rustls::StreamOwned::new(connection, stream);
                    while let Some(question) = secured_question(&mut stream, http) {
                        let mut answer = question.clone();
                        answer[2] |= 0x80;
                        // The question's OPT record would stand in the way of an answer behind it.
                        answer.truncate(question.len() - 11);
                        answer[11] = 0;
                        if question[question.len() - 11 - 3] == 1 {
                            answer[7] = 1;
                            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 5]);
                        }
                        let reply = if http {
                            let head = format!(
                                "HTTP/1.1 200 OK\r\nContent-Type: application/dns-message\r\nContent-Length: {}\r\n\r\n",
                                answer.len()
                            );
                            [head.as_bytes(), &answer].concat()
                        } else {
                            [&u16::try_from(answer.len()).unwrap().to_be_bytes()[..], &answer].concat()
                        };
                        if stream.write_all(&reply).and_then(|()| stream.flush()).is_err() {
                            break;
                        }
                    }
                }
            });
        }
        serve_zone(ONE, &[("api.lab.", "10.0.0.5")]);
        etc.set("hosts", "127.0.0.1 localhost dns.lab\n");
        let ask = |server: &str, believed: bool| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_reachwhy"));
            command.args(["dns", "api.lab", "--json", "--server", server]).stdin(Stdio::null());
            if believed {
                command.env("SSL_CERT_FILE", &ca);
            }
            let output = command.output().unwrap();
            (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
        };
        for server in ["tls://127.0.0.1", "tls://dns.lab", "https://dns.lab/dns-query", "https://127.0.0.1"] {
            let (code, report) = ask(server, true);
            assert_eq!(code, Some(0), "{server}: {report:#}");
            assert_eq!(report["servers"][1]["answers"], serde_json::json!(["10.0.0.5"]), "{report:#}");
            assert_eq!(report["servers"][1]["transport"], server.split(':').next().unwrap());
        }
        let (code, report) = ask("tls://127.0.0.1", false);
        assert_eq!(code, Some(1), "{report:#}");
        assert!(report["servers"][1]["failure"].as_str().unwrap().contains("certificate"), "{report:#}");
    });
}

fn secured_question(stream: &mut impl Read, http: bool) -> Option<Vec<u8>> {
    if !http {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question).ok()?;
        return Some(question);
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet).ok()?;
        head.push(octet[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("POST /dns-query HTTP/1.1\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    let mut question = vec![0; length];
    stream.read_exact(&mut question).ok()?;
    Some(question)
}

#[test]
fn the_first_address_that_does_not_work() {
    host(|sandbox, _| {
        let other = sandbox.pair();
        serve_zone(ONE, &[("both.lab.", "10.9.0.2"), ("both.lab.", "fd09::99")]);
        let listener = other.run(|| TcpListener::bind("10.9.0.2:8080").unwrap()).unwrap();
        let report = expect(
            &dns(&["both.lab", "--json", "--connect", "8080", "--timeout", "0.3"]),
            1,
            "dns.v6_preferred_broken",
        );
        assert_eq!(report["answers"][0]["address"], "fd09::99");
        assert_eq!(report["order"][0]["rule"], 6);
        assert!(report["connects"][1]["error"].is_null(), "{report:#}");
        drop(listener);
    });
}

#[test]
fn a_batch_in_the_order_of_its_lines() {
    host(|_, etc| {
        let lost = std::sync::atomic::AtomicUsize::new(0);
        let count = serve(at(ONE), move |asked| match asked.name.as_str() {
            "huge.lab." if asked.rtype == 1 && !asked.tcp => {
                let mut reply = Build::reply(asked, 0);
                reply.flags |= TC;
                now(reply)
            }
            "lost.lab." if lost.fetch_add(1, Ordering::Relaxed) < 2 => Vec::new(),
            name if name.starts_with('n') => now(Build::reply(asked, 3)),
            _ if asked.rtype == 1 => now(Build::reply(asked, 0).address(TO_QUESTION, [10, 0, 0, 1].into())),
            _ => now(Build::reply(asked, 0)),
        });
        etc.set("hosts", "10.0.0.7 known.lab\n");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("names");
        let many = (0..500).map(|n| format!("h{n}.lab\n")).collect::<Vec<_>>().concat();
        std::fs::write(&file, format!("# names\nknown.lab\n10.1.2.3\nhuge.lab\nn.lab\na..b\n\n{many}lost.lab\n"))
            .unwrap();
        let ran = dns(&["--batch", file.to_str().unwrap(), "--json", "--timeout", "0.3"]);
        assert_eq!(ran.code, 1, "{}", ran.err);
        let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 506);
        assert_eq!(lines[0]["answers"][0]["line"], 1);
        assert_eq!(lines[1]["answers"][0]["source"], "literal");
        assert_eq!(lines[2]["answers"][0]["address"], "10.0.0.1", "{}", lines[2]);
        assert_eq!(lines[3]["error"], "NXDOMAIN");
        assert!(lines[4]["error"].as_str().unwrap().starts_with("bad name"));
        assert_eq!((&lines[5]["name"], &lines[504]["name"]), (&"h0.lab".into(), &"h499.lab".into()));
        assert!(lines[5..].iter().all(|line| line["answers"][0]["address"] == "10.0.0.1"), "{}", ran.out);
        assert!(count.load(Ordering::Relaxed) >= 1000);
        let only = dns(&["--batch", file.to_str().unwrap(), "AAAA"]);
        assert!(only.out.lines().any(|line| line == "h0.lab\tNODATA"), "{}", only.out);
        assert_eq!(dns(&["--batch", "/nonexistent"]).code, 2);
    });
}

#[test]
fn the_hosts_file_is_listed_and_changed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "127.0.0.1 localhost\n10.0.0.1 api.lab api\n10.0.0.2 API\n").unwrap();
    let hosts = |arguments: &[&str]| dns(&[&["hosts", "--file", file], arguments].concat());
    let listed = hosts(&["--json"]);
    assert_eq!(listed.code, 1);
    assert_eq!(listed.json()["entries"].as_array().unwrap().len(), 3);
    assert_eq!(listed.json()["findings"][0]["code"], "conflict");
    let found = hosts(&["API", "--json"]).json();
    assert_eq!(found["entries"].as_array().unwrap().len(), 2);
    assert_eq!(hosts(&["nobody"]).code, 1);
    let shown = hosts(&["--add", "127.0.0.1=www.163.com"]);
    assert_eq!(shown.code, 0);
    assert!(shown.out.contains("+127.0.0.1\twww.163.com") && shown.out.contains("not written"), "{}", shown.out);
    assert!(!std::fs::read_to_string(&path).unwrap().contains("163"));
    let written = hosts(&["--add", "127.0.0.1=www.163.com", "--remove", "api", "--write", "--json"]).json();
    assert_eq!(written["written"], true);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "127.0.0.1 localhost\n10.0.0.1 api.lab\n127.0.0.1\twww.163.com\n");
    let backup = written["backup"].as_str().unwrap();
    assert!(std::fs::read_to_string(backup).unwrap().contains("10.0.0.2 API"));
    assert_eq!(hosts(&["--add", "nonsense"]).code, 2);
    assert_eq!(hosts(&["--write"]).code, 2);
    assert_eq!(dns(&["hosts", "--file", "/nonexistent"]).code, 3);
}
