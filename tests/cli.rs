//! Whole commands as a person types them: what they print, and how they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn reachwhy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reachwhy"))
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("COLUMNS")
        .output()
        .expect("the program runs")
}

/// Exit code, standard output and standard error in one text.
fn told(arguments: &[&str]) -> String {
    let output = reachwhy(arguments);
    format!(
        "exit: {}\n--- out\n{}--- err\n{}",
        output.status.code().expect("it ends by itself"),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn scratch(name: &str, text: &[u8]) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn help() {
    insta::assert_snapshot!("help", told(&["--help"]));
    insta::assert_snapshot!("help_doctor", told(&["doctor", "--help"]));
    insta::assert_snapshot!("help_lab", told(&["lab", "--help"]));
}

#[test]
fn the_catalogue_is_listed() {
    insta::assert_snapshot!("list_causes", told(&["doctor", "--list-causes"]));
    let output = reachwhy(&["--json", "doctor", "--list-causes"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<&str> = list.as_array().unwrap().iter().map(|entry| entry["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"fw.reply_rule_missing") && codes.contains(&"app.http_server_error"));
}

#[test]
fn bad_input_is_told_with_its_reason_and_exit_code_2() {
    for (name, arguments) in [
        ("no_command", &[][..]),
        ("no_target", &["doctor"]),
        ("bad_port", &["doctor", "192.168.1.3:70000"]),
        ("bad_address", &["doctor", "192.168.1.300:80"]),
        ("bad_scheme", &["doctor", "ftp://192.168.1.3"]),
        ("bad_vantage", &["doctor", "192.168.1.3:80", "--from", "vm:x"]),
        ("bad_timeout", &["--timeout", "0", "doctor", "192.168.1.3:80"]),
        ("no_such_case", &["doctor", "--replay", "/nonexistent/case.json"]),
        ("no_such_lab", &["lab", "run", "no-such-exercise"]),
    ] {
        let text = told(arguments);
        assert!(text.starts_with("exit: 2\n"), "{name}: {text}");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn a_damaged_case_file_is_refused_with_line_and_column() {
    let file = scratch("damaged.json", b"{\n  \"schema\": 1,\n  \"target\": ]\n}\n");
    let text = told(&["doctor", "--replay", file.to_str().unwrap()]);
    assert!(text.starts_with("exit: 2\n"), "{text}");
    assert!(text.contains("damaged.json:3:13: this is no case file"), "{text}");
    let newer = scratch("empty.json", b"");
    assert!(told(&["doctor", "--replay", newer.to_str().unwrap()]).starts_with("exit: 2\n"));
}

#[test]
fn a_replayed_case_ends_with_its_verdict() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for (case, exit) in [("healthy.both.json", 0), ("reply-rule-missing.both.json", 1)] {
        let file = folder.join(case);
        let output = reachwhy(&["doctor", "--replay", file.to_str().unwrap(), "--json"]);
        assert_eq!(output.status.code(), Some(exit), "{case}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for key in ["target", "verdict", "root_cause", "also_possible", "next", "changed", "checks"] {
            assert!(answer.get(key).is_some(), "{case}: no {key}");
        }
    }
}

#[test]
fn a_vantage_that_is_not_there_is_told_with_exit_code_3() {
    let text = told(&["doctor", "192.0.2.1:80", "--from", "netns:reachwhy-no-such-namespace"]);
    assert!(text.starts_with("exit: 3\n"), "{text}");
    assert!(text.contains("hint: "), "{text}");
}

#[test]
fn completions_and_the_manual_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let output = reachwhy(&["completions", shell]);
        assert!(output.status.success() && output.stdout.len() > 500, "{shell}");
    }
    let manual = reachwhy(&["man"]);
    assert!(String::from_utf8_lossy(&manual.stdout).contains(".TH reachwhy"));
}
