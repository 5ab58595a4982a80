//! `reachwhy arp` as a person types it: help, bad input, captures, the vendor table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::{Command, Output};

use reachwhy::wire::pcap;

fn reachwhy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reachwhy"))
        .args(arguments)
        .env("NO_COLOR", "1")
        .env("XDG_DATA_HOME", "/nonexistent")
        .env_remove("COLUMNS")
        .output()
        .expect("the program runs")
}

fn told(arguments: &[&str]) -> String {
    let output = reachwhy(arguments);
    format!(
        "exit: {}\n--- out\n{}--- err\n{}",
        output.status.code().expect("it ends by itself"),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn help() {
    for verb in ["table", "lookup", "scan", "watch", "vendors"] {
        insta::assert_snapshot!(format!("help_{verb}"), told(&["arp", verb, "--help"]));
    }
    insta::assert_snapshot!("help", told(&["arp", "--help"]));
}

#[test]
fn bad_input_is_told_with_its_reason_and_exit_code_2() {
    for (name, arguments) in [
        ("no_verb", &["arp"][..]),
        ("lookup_name", &["arp", "lookup", "router.example"]),
        ("lookup_multicast", &["arp", "lookup", "224.0.0.1"]),
        ("lookup_loopback", &["arp", "lookup", "127.0.0.1"]),
        ("lookup_broadcast", &["arp", "lookup", "255.255.255.255"]),
        ("lookup_count", &["arp", "lookup", "10.0.0.1", "--count", "0"]),
        ("scan_word", &["arp", "scan", "10.0.0.0/33"]),
        ("scan_backwards", &["arp", "scan", "10.0.0.9-10.0.0.1"]),
        ("scan_large", &["arp", "scan", "10.0.0.0/8"]),
        ("scan_mixed", &["arp", "scan", "10.0.0.1", "fd00::1"]),
        ("scan_rate", &["arp", "scan", "10.0.0.0/24", "--rate", "0"]),
        ("watch_no_file", &["arp", "watch", "--read", "/nonexistent/file.pcap"]),
        ("vendors_mac", &["arp", "vendors", "00:00:0c"]),
        ("vendors_no_file", &["arp", "vendors", "--update", "/nonexistent/oui.csv"]),
    ] {
        let text = told(arguments);
        assert!(text.starts_with("exit: 2\n"), "{name}: {text}");
        insta::assert_snapshot!(name, text);
    }
}

/// A capture of a calm morning and a stolen gateway.
fn capture() -> Vec<u8> {
    let mut file = pcap::Writer::new(pcap::ETHERNET);
    let mut at = 1_700_000_000_000_000_000;
    let mut arp = |seconds: u64, operation: u8, src: u8, dst: [u8; 6], sender: [u8; 4], target: [u8; 4]| {
        at += seconds * 1_000_000_000;
        let mac = [0, 0, 0x0c, 0, 0, src];
        let frame = [&dst[..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &mac, &sender, &[0; 6], &target].concat();
        file.push(at, 42, &frame);
    };
    let all = [0xff; 6];
    let (gateway, victim, thief) = ([10, 0, 0, 1], [10, 0, 0, 3], [10, 0, 0, 66]);
    arp(0, 1, 1, all, gateway, victim);
    arp(1, 1, 3, all, victim, gateway);
    arp(1, 1, 66, all, thief, gateway);
    arp(9, 1, 3, all, [0; 4], [10, 0, 0, 4]);
    arp(1, 1, 4, all, [10, 0, 0, 4], [10, 0, 0, 4]);
    arp(20, 2, 66, [0, 0, 0x0c, 0, 0, 3], gateway, victim);
    file.finish()
}

#[test]
fn a_capture_is_read_like_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("morning.pcap");
    std::fs::write(&path, capture()).unwrap();
    let name = path.to_str().unwrap();
    insta::assert_snapshot!("watch_capture", told(&["arp", "watch", "--read", name, "--gateway", "10.0.0.1"]));
    let output = reachwhy(&["arp", "watch", "--read", name, "--gateway", "10.0.0.1", "--json", "--quiet"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let kinds: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["unasked_reply", "moved", "gateway_changed"]);
    assert_eq!(output.status.code(), Some(1));
    // Cut short: what stands before the damage is told, and then the damage.
    let whole = capture();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let text = told(&["arp", "watch", "--read", name]);
    assert!(text.starts_with("exit: 2\n") && text.contains("10.0.0.66") && text.contains("error:"), "{text}");
    std::fs::write(&path, b"no capture at all").unwrap();
    assert!(told(&["arp", "watch", "--read", name]).starts_with("exit: 2\n"));
}

/// The same as pcapng: a section, an interface, a packet a block; times in microseconds.
fn next_generation(file: &[u8]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let length = u32::try_from(12 + body.len()).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    };
    let mut bytes = block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    bytes.extend(block(1, &[1, 0, 0, 0, 0, 0, 4, 0]));
    for record in pcap::Reader::new(file).unwrap() {
        let record = record.unwrap();
        let at = (record.at_ns / 1000).to_le_bytes();
        let length = u32::try_from(record.bytes.len()).unwrap().to_le_bytes();
        let mut body = [&[0; 4], &at[4..], &at[..4], &length, &length, record.bytes].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        bytes.extend(block(6, &body));
    }
    bytes
}

#[test]
fn a_newer_capture_tells_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("morning.pcap"), folder.path().join("morning.pcapng"));
    std::fs::write(&old, capture()).unwrap();
    std::fs::write(&new, next_generation(&capture())).unwrap();
    let read = |path: &std::path::Path| told(&["arp", "watch", "--json", "--read", path.to_str().unwrap()]);
    assert_eq!(read(&old), read(&new));
    assert!(read(&new).contains("unasked_reply"));
}

#[test]
fn a_damaged_memory_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (file, memory) = (folder.path().join("x.pcap"), folder.path().join("stations.json"));
    std::fs::write(&file, capture()).unwrap();
    std::fs::write(&memory, "{\n  \"schema\": 1,\n  oops\n}").unwrap();
    let verb = ["arp", "watch", "--read", file.to_str().unwrap(), "--memory", memory.to_str().unwrap()];
    let text = told(&verb);
    assert!(text.starts_with("exit: 2\n") && text.contains("stations.json:3:3"), "{text}");
    assert!(std::fs::read_to_string(&memory).unwrap().contains("oops"));
    std::fs::remove_file(&memory).unwrap();
    assert!(told(&verb).contains("new:"));
    // Known by now.
    let again = told(&verb);
    assert!(!again.contains("10.0.0.3 is at"), "{again}");
}

#[test]
fn a_vendor_is_named() {
    let text = told(&["arp", "vendors", "00:00:0c:12:34:56", "02:42:ac:11:00:02", "00:00:5e:00:01:05"]);
    assert!(
        text.contains("Cisco Systems, Inc") && text.contains("Docker") && text.contains("virtual router 5"),
        "{text}"
    );
    let output = reachwhy(&["arp", "vendors", "--json"]);
    let about: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(about["blocks"].as_u64().unwrap() > 50_000);
}

#[test]
fn a_newer_listing_takes_the_place_of_the_embedded() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("oui.csv");
    std::fs::write(&csv, "Registry,Assignment,Organization Name,Organization Address\nMA-L,00000C,\"Newer, Inc\",x\n")
        .unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_reachwhy"))
            .args(arguments)
            .env("XDG_DATA_HOME", folder.path())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (exit, text) = run(&["arp", "vendors", "--update", csv.to_str().unwrap()]);
    assert!(exit == Some(0) && text.starts_with("1 blocks"), "{text}");
    let (_, text) = run(&["arp", "vendors", "00:00:0c:00:00:01"]);
    assert!(text.contains("Newer, Inc"), "{text}");
}
