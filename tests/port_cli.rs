//! What `reachwhy port` says to a person, and how it ends, where nothing is sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

fn told(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_reachwhy"))
        .arg("port")
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("COLUMNS")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program runs");
    format!(
        "exit: {}\n--- out\n{}--- err\n{}",
        output.status.code().expect("it ends by itself"),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn scratch(name: &str, text: &str) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn help() {
    insta::assert_snapshot!("port_help", told(&["--help"]));
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    let mut all = String::new();
    for arguments in [
        &["10.255.255.1"][..],
        &["10.255.255.1", "70000"],
        &["10.255.255.1", "80,"],
        &["10.255.255.1", "9-3"],
        &["10.255.255.1", "htpp"],
        &["10.255.255.1", "U:53"],
        &["10.255.255.1:80", "80"],
        &["10.0.0.0/8", "80"],
        &["10.0.0.300", "80"],
        &["fe80::1", "80"],
        &["224.0.0.1", "80"],
        &["0.0.0.0", "80"],
        &["@/nonexistent/list", "80"],
        &["10.255.255.1", "@/nonexistent/list"],
        &["--rate", "0", "10.255.255.1", "80"],
        &["--syn", "--udp", "10.255.255.1", "80"],
        &["--wait=0", "10.255.255.1", "80"],
    ] {
        let text = told(arguments);
        assert!(text.starts_with("exit: 2\n"), "{arguments:?}: {text}");
        let error = text.lines().skip_while(|line| *line != "--- err").skip(1).take(2).collect::<Vec<_>>().join("\n  ");
        writeln!(all, "{}\n  {error}", arguments.join(" ")).unwrap();
    }
    insta::assert_snapshot!("port_mistakes", all);
}

#[test]
fn a_mistake_in_a_list_is_named_by_its_line() {
    let file = scratch("hosts.txt", "# ours\n127.0.0.1\n10.0.0.999 # typo\n");
    let text = told(&[&format!("@{file}"), "80"]);
    assert!(text.contains("hosts.txt:3: `10.0.0.999` is no host"), "{text}");
    let empty = scratch("empty.txt", "# nothing\n");
    assert!(told(&["--hosts", &empty, "80"]).contains("the list of hosts is empty"));
}

#[test]
fn loopback_is_asked_by_connect_without_privilege_or_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port().to_string();
    let text = told(&["--connect", "127.0.0.1", &open]);
    assert!(text.starts_with("exit: 0\n") && text.contains("open"), "{text}");
    let ports = scratch("ports.txt", &format!("{open} # the one\n"));
    let text = told(&["--connect", "--json", "127.0.0.1", &format!("@{ports}")]);
    let json = text.split("--- out\n").nth(1).unwrap().split("--- err").next().unwrap();
    let report: serde_json::Value = serde_json::from_str(json).unwrap();
    for key in ["host", "address", "ports", "host_up"] {
        assert!(report.get(key).is_some(), "{key}");
    }
    for key in ["port", "proto", "service", "state", "reason", "by", "reply_ttl", "rtt_ms"] {
        assert!(report["ports"][0].get(key).is_some(), "{key}");
    }
    assert!(report["ports"][0]["rtt_ms"].as_f64().is_some());
    // Whoever reads has enough.
    let mut child = Command::new(env!("CARGO_BIN_EXE_reachwhy"))
        .args(["port", "--connect", "--json", "127.0.0.1", "1-3000"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut error = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut error).unwrap();
    assert!(child.wait().unwrap().success() && !error.contains("panic"), "{error}");
}
