//! `reachwhy tcp` as a user calls it: forms of output, files that are damaged, arguments that are wrong.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod tcp_support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tcp_support::Talk;

fn reachwhy(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reachwhy")).args(args).env("NO_COLOR", "1").output().unwrap()
}

fn capture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name).display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A file in a folder that lives as long as the test.
fn file(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn talk() -> Talk {
    let mut talk = Talk::default();
    talk.open().up("PSH,ACK", 1, 1, b"one\ntwo\nthr").wait(1).up("PSH,ACK", 12, 1, b"ee\n").down("ACK", 1, 15, b"");
    talk.down("PSH,ACK", 1, 15, b"yes\x1b[31m\n").up("FIN,ACK", 15, 10, b"").down("FIN,ACK", 10, 16, b"");
    talk.up("ACK", 16, 11, b"");
    talk
}

#[test]
fn a_json_line_for_each_connection_has_the_contract_s_keys() {
    let output = reachwhy(&["tcp", "read", "--json", &capture("tcpdump__tfo-5c1fa7f9ae91.pcap")]);
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        for key in ["client", "server", "state", "handshake", "close", "packets", "bytes", "findings"] {
            assert!(line.get(key).is_some(), "no {key} in {line}");
        }
        for key in ["syn", "syn_ack", "ack", "rtt_ms"] {
            assert!(line["handshake"].get(key).is_some(), "no handshake.{key}");
        }
        assert!(line["close"].get("by").is_some() && line["close"]["kind"].is_string());
        for finding in line["findings"].as_array().unwrap() {
            assert!(finding["code"].is_string() && finding["frame"].as_u64().unwrap() >= 1);
            assert!(finding["message"].is_string());
        }
    }
    assert_eq!(output.status.code(), Some(1), "a SYN in it is not answered");
}

#[test]
fn every_view_of_a_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "talk.pcap", &talk().file());
    let path = path.to_str().unwrap();
    let told = |args: &[&str]| {
        let output = reachwhy(&[&["tcp", "read", path][..], args].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let list = told(&[]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(list.contains("closed by the client in three steps"), "{list}");
    let ladder = told(&["--ladder"]);
    assert!(ladder.contains("SYN-SENT") && ladder.contains("─▶") && ladder.contains("TIME-WAIT"), "{ladder}");
    assert!(told(&["--explain"]).contains("three-way handshake"));
    let detail = told(&["--stream", "0"]);
    assert!(detail.contains("3 lines") && detail.contains("split"), "{detail}");
    let follow = told(&["--follow", "0"]);
    assert!(follow.contains("two") && follow.contains("yes·[31m") && !follow.contains('\x1b'), "{follow}");
    assert!(told(&["--follow", "0", "--hex"]).contains("6f 6e 65 0a"));
    assert_eq!(told(&["--frames"]).lines().count(), 10);
    assert_eq!(told(&["--frames", "--filter", "tcp"]).lines().count(), 10);
    assert_eq!(told(&["--filter", "udp"]).lines().count(), 1);
    let (svg, html) = (folder.path().join("x.svg"), folder.path().join("x.html"));
    told(&["--svg", svg.to_str().unwrap()]);
    told(&["--report", html.to_str().unwrap()]);
    assert!(std::fs::read_to_string(svg).unwrap().contains("SYN-RECEIVED"));
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("round trip (ms)") && html.contains("throughput"), "{html}");
}

#[test]
fn packed_files_and_standard_input_read_alike() {
    let plain = talk().file();
    let folder = tempfile::tempdir().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
    let expected = reachwhy(&["tcp", "read", "--json", file(&folder, "a", &plain).to_str().unwrap()]).stdout;
    assert!(!expected.is_empty());
    for (name, bytes) in [("gzip", gzip), ("zstd", zstd)] {
        let path = file(&folder, name, &bytes);
        let output = reachwhy(&["tcp", "read", "--json", path.to_str().unwrap()]);
        assert_eq!(text(&output.stdout), text(&expected), "{name}: {}", text(&output.stderr));
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_reachwhy"))
        .args(["tcp", "read", "--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&plain).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, expected);
}

#[test]
fn damaged_files_give_what_they_have_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let whole = talk().file();
    let mut absurd = whole.clone();
    // The fourth record claims four gigabytes.
    let at = 24 + 3 * 16 + (40 + 12) * 2 + 40;
    absurd[at + 8..at + 12].copy_from_slice(&[0xff; 4]);
    let mut snaplen = whole.clone();
    snaplen[16..20].copy_from_slice(&[0xff; 4]);
    for (name, bytes, says) in [("cut", whole[..whole.len() - 7].to_vec(), "ends inside"), ("absurd", absurd, "claims")]
    {
        let path = file(&folder, name, &bytes);
        let output = reachwhy(&["tcp", "read", "--json", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(text(&output.stderr).contains(says) && text(&output.stderr).contains("partial"), "{name}: {output:?}");
        let line: Value = serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
        assert_eq!(line["partial"], true, "{name}");
    }
    let output = reachwhy(&["tcp", "read", file(&folder, "snaplen", &snaplen).to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "an absurd snaplen hurts nobody: {}", text(&output.stderr));
    for (name, bytes, says) in [
        ("empty", &b""[..], "empty"),
        ("text", b"hello, I am no capture at all", "text"),
        ("gz", b"\x1f\x8b\x08\0\0\0\0\0", "octet"),
    ] {
        let output = reachwhy(&["tcp", "read", file(&folder, name, bytes).to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(text(&output.stderr).contains(says), "{name}: {}", text(&output.stderr));
    }
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let path = capture("tcpdump__ssh.pcap");
    for args in [
        &["tcp"][..],
        &["tcp", "read"],
        &["tcp", "read", "/nonexistent/file"],
        &["tcp", "read", "/"],
        &["tcp", "read", &path, "--stream", "99"],
        &["tcp", "read", &path, "--stream", "-1"],
        &["tcp", "read", &path, "--filter", "port banana"],
        &["tcp", "read", &path, "--svg", "/nonexistent/x.svg"],
        &["tcp", "flags", "banana"],
        &["tcp", "flags", "0x200"],
        &["tcp", "send", "127.0.0.1"],
        &["tcp", "send", "127.0.0.1:0"],
        &["tcp", "send", "127.0.0.1:99999"],
        &["tcp", "send", "127.0.0.1:80", "--flags", "banana"],
        &["tcp", "send", "127.0.0.1:80", "--tries", "0"],
        &["tcp", "watch", "no-such-interface", "port", "banana"],
        &["tcp", "compare", &path],
        &["tcp", "compare", &path, "/nonexistent/file"],
    ] {
        let output = reachwhy(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty() && !text(&output.stderr).contains("panicked"), "{args:?}");
    }
}

#[test]
fn flags_are_explained() {
    let output = reachwhy(&["tcp", "flags", "S.", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["value"].as_u64(), report["legal"].as_bool()), (Some(0x12), Some(true)));
    let output = reachwhy(&["tcp", "flags", "xmas"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("Xmas scan"));
}

#[test]
fn a_capture_compared_with_itself_is_the_same() {
    let path = capture("zeek__http-vlan-0.pcap");
    let output = reachwhy(&["tcp", "compare", &path, &path, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(comparison["counts"], serde_json::json!({"arrived": 14}));
    let other = capture("tcpdump__ssh.pcap");
    assert_eq!(reachwhy(&["tcp", "compare", &path, &other]).status.code(), Some(3));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_reachwhy"))
        .args(["tcp", "read", "--frames", &capture("zeek__reassembly.pcap")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}
