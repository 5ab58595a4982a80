//! `reachwhy fw …` as a person types it: what it prints, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use reachwhy::firewall::overview::{Only, overview};
use reachwhy::firewall::traps::traps;
use reachwhy::firewall::{Facts, Family, Packet, Stack, parse, walk};
use reachwhy::host::Backend;
use reachwhy::view::{Style, fw as view};
use reachwhy::wire::pcap::{RAW, Writer};
use reachwhy::wire::{Ipv4Header, TcpFlags, TcpHeader};

fn program(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_reachwhy"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("NO_COLOR", "1")
        .env_remove("COLUMNS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // A program that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Exit code, standard output and standard error in one text.
fn told_of(arguments: &[&str], input: &[u8]) -> String {
    let output = program(arguments, input);
    format!(
        "exit: {}\n--- out\n{}--- err\n{}",
        output.status.code().expect("it ends by itself"),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn told(arguments: &[&str]) -> String {
    told_of(arguments, b"")
}

fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, bytes).unwrap();
    file
}

const DNS: &str = "rules/exercise-a-dns.rules";
const ROUTER: &str = "tests/cli_fw/router.rules";
const SHOP: &str = "in=eth0 out=eth1 tcp 10.0.0.9:40000 > 10.0.0.1:80 syn";

#[test]
fn help() {
    for (name, arguments) in [
        ("help", &["fw", "--help"][..]),
        ("help_sim", &["fw", "sim", "--help"]),
        ("help_flow", &["fw", "flow", "--help"]),
        ("help_explain", &["fw", "explain", "--help"]),
        ("help_show", &["fw", "show", "--help"]),
    ] {
        insta::assert_snapshot!(name, told(arguments));
    }
}

#[test]
fn a_packet_s_verdict_comes_first_and_then_its_way() {
    for (name, arguments, exit) in [
        ("sim_dns", &["--rules", DNS, "--packet", "in=eth0 to=local udp 192.168.1.5:40000 > 192.168.1.2:53"][..], 0),
        (
            "sim_policy",
            &[
                "--rules",
                "rules/api-server-reply-missing.rules",
                "--packet",
                "out=eth0 tcp 192.168.1.3:8080 > 192.168.1.2:40000 syn,ack",
            ],
            0,
        ),
        ("sim_nat", &["--rules", ROUTER, "--packet", SHOP], 0),
        ("sim_limit", &["--rules", ROUTER, "--packet", "hook=input in=eth0 tcp 10.0.0.9:40000 > 10.0.0.1:22 syn"], 3),
        (
            "sim_set",
            &[
                "--rules",
                ROUTER,
                "--ipset",
                "tests/cli_fw/friends.ipset",
                "--packet",
                "hook=input in=eth0 tcp 10.0.0.9:40000 > 10.0.0.1:443 syn",
            ],
            0,
        ),
        ("sim_no_chain", &["--rules", DNS, "--packet", "hook=input tcp fd00::1 > fd00::2:443"], 0),
        (
            "sim_v6_by_name",
            &["--rules", "tests/cli_fw/rules.v6", "--packet", "hook=input tcp fd00::1 > [fd00::2]:443"],
            0,
        ),
        (
            "sim_near",
            &[
                "--rules",
                "rules/exercise-b-udp-range.rules",
                "--packet",
                "hook=input in=eth0 udp 10.1.1.7 > 10.1.1.1:9000",
            ],
            0,
        ),
        ("sim_many", &["--rules", DNS, "--packets", "tests/cli_fw/packets.jsonl"], 0),
        ("sim_many_json", &["--json", "--rules", DNS, "--packets", "tests/cli_fw/packets.jsonl"], 0),
    ] {
        let text = told(&[&["fw", "sim"], arguments].concat());
        assert!(text.starts_with(&format!("exit: {exit}\n")), "{name}: {text}");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn an_ipv6_port_without_brackets_is_pointed_out() {
    let text = told(&["fw", "sim", "--rules", DNS, "--packet", "tcp fd00::1 > fd00::2:443"]);
    assert!(text.contains("warning: `fd00::2:443` is an address; with a port it is `[fd00::2]:443`"), "{text}");
    let text = told(&["fw", "sim", "--rules", DNS, "--packet", "icmp fd00::1 > fd00::2:443"]);
    assert!(!text.contains("warning"), "{text}");
}

#[test]
fn json_has_the_keys_of_the_contract_on_every_line() {
    for (packet, verdict) in [(SHOP, "accept"), ("hook=input in=eth0 tcp 10.0.0.9 > 10.0.0.1:22 syn", "unknown")] {
        let output = program(&["fw", "sim", "--json", "--rules", ROUTER, "--packet", packet, "--packet", packet], b"");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 2, "a line a packet");
        for line in text.lines() {
            let answer: serde_json::Value = serde_json::from_str(line).unwrap();
            let keys = [
                "id",
                "verdict",
                "reject_with",
                "decided_by",
                "path",
                "packet_out",
                "assumed",
                "branches",
                "near_miss",
            ];
            for key in keys {
                assert!(answer.get(key).is_some(), "{key} in {line}");
            }
            assert_eq!(answer["verdict"], verdict);
            assert_eq!(answer["branches"].as_array().unwrap().is_empty(), verdict == "accept");
            if verdict == "accept" {
                let by = &answer["decided_by"];
                assert_eq!(
                    (&by["table"], &by["chain"], &by["rule"], &by["line"]),
                    (&"filter".into(), &"web".into(), &1.into(), &22.into())
                );
                assert_eq!(
                    (&answer["packet_out"]["dst"], &answer["packet_out"]["dport"]),
                    (&"10.9.9.9".into(), &8080.into())
                );
            }
        }
    }
}

#[test]
fn bad_input_is_told_with_its_place_and_exit_code_2() {
    let packet = ["--packet", "udp 10.0.0.1 > 10.0.0.2:53"];
    let with = |arguments: &[&'static str]| [&["fw", "sim"][..], arguments, &packet].concat();
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("err_no_rules", vec!["fw", "sim", "--packet", "udp 10.0.0.1 > 10.0.0.2:53"]),
        ("err_no_packet", vec!["fw", "sim", "--rules", DNS]),
        ("err_both_sources", with(&["--rules", DNS, "--live"])),
        ("err_missing", with(&["--rules", "rules/none.rules"])),
        ("err_directory", with(&["--rules", "rules"])),
        ("err_two_ports", with(&["--rules", "tests/cli_fw/two-ports.rules"])),
        ("err_twice", with(&["--rules", DNS, "--rules", "rules/api-server.rules"])),
        ("err_strict", with(&["--strict", "--rules", "tests/cli_fw/traps.rules"])),
        ("err_bad_expr", vec!["fw", "sim", "--rules", DNS, "--packet", "tpc 10.0.0.1 > 10.0.0.2:53"]),
        ("err_bad_line", vec!["fw", "sim", "--json", "--rules", DNS, "--packets", "tests/cli_fw/bad.jsonl"]),
        ("err_bad_facts", with(&["--rules", DNS, "--host", "tests/cli_fw/packets.jsonl"])),
        ("err_two_stdin", vec!["fw", "sim", "--rules", "-", "--packets", "-"]),
        ("err_no_chain", vec!["fw", "show", "--rules", DNS, "--chain", "NONE"]),
        ("err_explain_two_ports", vec!["fw", "explain", "--rules", "tests/cli_fw/two-ports.rules"]),
    ];
    for (name, arguments) in cases {
        let text = told(&arguments);
        assert!(text.starts_with("exit: 2\n--- out\n--- err\n"), "{name}: {text}");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn what_is_no_text_is_refused_by_name() {
    for (name, bytes, says) in [
        ("junk.rules", &b"\x7fELF\0\0\x01"[..], "a binary file"),
        ("packed.rules", b"\x1f\x8b\x08\x00", "compressed by gzip"),
        ("utf16.rules", b"\xff\xfe*\0f\0", "UTF-16"),
        ("cap.rules", b"\xd4\xc3\xb2\xa1\0\0", "a capture"),
    ] {
        let file = scratch(name, bytes);
        let text = told(&["fw", "show", "--rules", file.to_str().unwrap()]);
        assert!(text.starts_with("exit: 2\n") && text.contains(says), "{text}");
    }
    let empty = scratch("empty.rules", b"");
    let text = told(&["fw", "show", "--rules", empty.to_str().unwrap()]);
    assert!(text.contains("every packet passes"), "{text}");
}

#[test]
fn a_stream_is_answered_line_by_line_until_its_first_bad_one() {
    let good = "hook=input udp 192.168.1.5 > 192.168.1.2:53\n";
    let arguments = ["fw", "sim", "--json", "--rules", DNS, "--packets", "-"];
    let lines = |output: &Output| output.stdout.split(|byte| *byte == b'\n').count() - 1;
    let output = program(&arguments, good.repeat(3).as_bytes());
    assert_eq!((output.status.code(), lines(&output)), (Some(0), 3));
    let output = program(&arguments, format!("{good}{good}{{\"src\": 1}}\n{good}").as_bytes());
    assert_eq!((output.status.code(), lines(&output)), (Some(2), 2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("standard input:3:") && told.contains("2 packets before it are answered"), "{told}");
    assert_eq!(program(&arguments, b"").status.code(), Some(2), "no packet at all is no answer");
    assert_eq!(program(&arguments, b"\xff\xfe\n").status.code(), Some(2));
}

#[test]
fn rules_come_from_standard_input_too() {
    let rules = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(DNS)).unwrap();
    let arguments = ["fw", "sim", "--rules", "-", "--packet", "hook=input udp 192.168.1.5 > 192.168.1.2:53"];
    let text = told_of(&arguments, &rules);
    assert!(text.starts_with("exit: 0\n") && text.contains("dropped by rule 1"), "{text}");
}

#[test]
fn packets_are_one_history_only_when_asked() {
    let arguments = ["fw", "sim", "--json", "--rules", "tests/cli_fw/stateful.rules", "--packets"];
    let verdicts = |more: &[&str]| -> Vec<String> {
        let output = program(&[&arguments[..], &["tests/cli_fw/handshake.jsonl"], more].concat(), b"");
        let text = String::from_utf8(output.stdout).unwrap();
        let verdict = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["verdict"].as_str().unwrap().to_owned()
        };
        text.lines().map(verdict).collect()
    };
    assert_eq!(verdicts(&["--stateful"]), ["accept", "accept", "drop", "accept", "accept", "drop"]);
    assert_eq!(verdicts(&[]), ["accept", "drop", "drop", "unknown", "unknown", "unknown"]);
}

#[test]
fn a_connection_is_run_both_ways() {
    let lost = "rules/api-server-reply-missing.rules";
    let ask = "in=eth0 tcp 192.168.1.2 > 192.168.1.3:8080";
    for (name, arguments, exit) in [
        ("flow_lost_reply", &["--rules", lost, "--packet", ask][..], 1),
        ("flow_works", &["--rules", "rules/api-server.rules", "--packet", ask], 0),
        ("flow_nat", &["--rules", ROUTER, "--packet", "in=eth0 out=eth1 tcp 10.0.0.9:40000 > 10.0.0.1:80"], 0),
        (
            "flow_both_ends",
            &["--rules", DNS, "--to-rules", lost, "--packet", "out=eth0 tcp 192.168.1.2 > 192.168.1.3:8080"],
            1,
        ),
        ("flow_unknown", &["--rules", "tests/cli_fw/unknown.rules", "--packet", ask], 3),
        ("flow_no_port", &["--rules", lost, "--packet", "tcp 192.168.1.2 > 192.168.1.3"], 2),
    ] {
        let text = told(&[&["fw", "flow"], arguments].concat());
        assert!(text.starts_with(&format!("exit: {exit}\n")), "{name}: {text}");
        insta::assert_snapshot!(name, text);
    }
    let output = program(&["fw", "flow", "--json", "--rules", lost, "--packet", ask], b"");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["works"], &answer["first_blocked"]["n"]), (&false.into(), &2.into()));
    assert_eq!(answer["fix"]["command"], "iptables -A OUTPUT -p tcp --sport 8080 -j ACCEPT");
    for key in ["n", "dir", "flags", "host", "verdict", "decided_by"] {
        assert!(answer["packets"][0].get(key).is_some(), "{key}");
    }
}

#[test]
fn a_capture_is_replayed() {
    let (src, dst) = ("192.168.1.5".parse().unwrap(), "192.168.1.2".parse().unwrap());
    let mut file = Writer::new(RAW);
    for port in [53, 80] {
        let tcp = TcpHeader::new(40000, port, TcpFlags::SYN).segment(src, dst, &[]);
        let (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) = (src, dst) else { panic!("not IPv4") };
        let packet = Ipv4Header::new(from, to, 6).packet(&tcp);
        file.push(0, 40, &packet);
    }
    let bytes = file.finish();
    let whole = scratch("two.pcap", &bytes);
    let text = told(&["fw", "sim", "--in", "eth0", "--rules", DNS, "--packets", whole.to_str().unwrap()]);
    insta::assert_snapshot!("sim_pcap", text);
    let cut = scratch("cut.pcap", &bytes[..bytes.len() - 5]);
    let text = told(&["fw", "sim", "--rules", DNS, "--packets", cut.to_str().unwrap()]);
    assert!(text.starts_with("exit: 2\n--- out\n--- err\n") && text.contains("frame 2: the file ends"), "{text}");
}

#[test]
fn rules_are_said_in_sentences_with_their_traps() {
    let text = told(&["fw", "explain", "--rules", "tests/cli_fw/traps.rules"]);
    for says in ["shadowed: this DROP", "dns-udp-only: ", "accepts-all: ", "unused-chain: ", "not-known: "] {
        assert!(text.contains(says), "{says} in {text}");
    }
    insta::assert_snapshot!("explain_traps", text);
    let output = program(&["fw", "explain", "--json", "--rules", "tests/cli_fw/traps.rules"], b"");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["traps"][0]["code"], "shadowed");
    assert_eq!(answer["traps"][0]["because"], serde_json::json!([5]));
    assert!(answer["tables"][0]["chains"][0]["rules"][0]["sentence"].is_string());
    insta::assert_snapshot!(
        "explain_half_open",
        told(&["fw", "explain", "--rules", "rules/api-server-reply-missing.rules", "--chain", "INPUT"])
    );
    let text = told(&["fw", "explain", "--rules", DNS, "--chain", "INPUT"]);
    assert!(text.contains("port 53 (DNS)") && !text.contains("OUTPUT"), "{text}");
}

#[test]
fn rules_are_shown_as_tables() {
    insta::assert_snapshot!(
        "show_router",
        told(&["fw", "show", "--rules", ROUTER, "--ipset", "tests/cli_fw/friends.ipset"])
    );
    let output = program(&["fw", "show", "--json", "--rules", ROUTER, "--table", "filter", "--chain", "web"], b"");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let chain = &answer["tables"][0]["chains"][0];
    assert_eq!((&chain["chain"], &chain["called_by"]), (&"web".into(), &serde_json::json!(["FORWARD rule 2"])));
    assert_eq!(chain["rules"][0]["counters"]["packets"], 3);
}

fn router() -> Stack {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(ROUTER)).unwrap();
    Stack::from_rulesets([parse::iptables_save(&text, Family::Ip, Backend::Nft, ROUTER).unwrap().ruleset])
}

fn drawn(style: Style) -> String {
    let stack = router();
    let mut out = Vec::new();
    for text in [SHOP, "hook=input in=eth0 tcp 10.0.0.9:40000 > 10.0.0.1:22 syn"] {
        let packet: Packet = text.parse().unwrap();
        let outcome = walk(&stack, &packet, &Facts::none());
        view::outcome(&mut out, &stack, &packet, &outcome, style).unwrap();
        view::brief(&mut out, &packet, &outcome, style).unwrap();
    }
    let page = overview(&stack, Only::default());
    view::explain(&mut out, &page, &traps(&stack), style).unwrap();
    view::show(&mut out, &page, style).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_narrow_terminal_is_enough() {
    insta::assert_snapshot!("narrow", drawn(Style { color: false, width: 40 }));
}

#[test]
fn colour_adds_no_word() {
    let plain = drawn(Style { color: false, width: 80 });
    let colour = drawn(Style { color: true, width: 80 });
    assert_ne!(plain, colour);
    let mut bare = String::new();
    let mut rest = colour.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        bare += before;
        rest = after.split_once('m').unwrap().1;
    }
    bare += rest;
    assert_eq!(bare, plain);
    let output = program(&["--color", "always", "fw", "sim", "--rules", ROUTER, "--packet", SHOP], b"");
    assert!(String::from_utf8(output.stdout).unwrap().contains("\u{1b}[32m"));
}

#[test]
fn names_in_files_give_no_orders_to_the_terminal() {
    let file = scratch(
        "evil.rules",
        b"*filter\n:INPUT DROP [0:0]\n-A INPUT -m comment --comment \"\x1b]0;pwned\x07\" -j ACCEPT\nCOMMIT\n",
    );
    let file = file.to_str().unwrap();
    for command in [
        &["fw", "sim", "--packet", "hook=input tcp 10.0.0.1 > 10.0.0.2:1", "--rules", file][..],
        &["fw", "explain", "--rules", file],
        &["fw", "show", "--rules", file],
    ] {
        assert!(!told(command).contains('\u{1b}'), "{command:?}");
    }
}
