//! `reachwhy fw lint|diff|query|check` as people and pipelines run them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::process::{Command, Output};

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_reachwhy")).args(args).env("NO_COLOR", "1").output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn json(args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let (code, out, err) = run(args);
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")))
}

/// A file in a folder of its own.
fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn lint_names_rule_cause_and_packet() {
    let (code, found) = json(&["fw", "lint", "--json", "--rules", "tests/cli_fw/traps.rules"]);
    assert_eq!(code, Some(1));
    let of = |code: &str| found["findings"].as_array().unwrap().iter().find(|f| f["code"] == code).unwrap().clone();
    let shadowed = of("shadowed");
    assert_eq!((&shadowed["line"], &shadowed["because"]), (&6.into(), &serde_json::json!([5])));
    assert_eq!(shadowed["severity"], "error");
    assert!(shadowed["example"].as_str().unwrap().contains("tcp 10.66."));
    assert_eq!(of("unused-chain")["chain"], "forgotten");
    assert_eq!(of("dns-udp-only")["line"], 7);
    let (code, out, _) = run(&["fw", "lint", "--rules", "tests/cli_fw/traps.rules", "--only", "shadowed"]);
    assert_eq!(code, Some(1));
    insta::assert_snapshot!("lint_shadowed", out);
    let (code, sarif) = json(&["fw", "lint", "--format", "sarif", "--rules", "tests/cli_fw/traps.rules"]);
    assert_eq!((code, &sarif["version"]), (Some(1), &"2.1.0".into()));
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert!(
        results
            .iter()
            .any(|r| r["ruleId"] == "shadowed" && r["locations"][0]["physicalLocation"]["region"]["startLine"] == 6)
    );
    let (code, _, err) = run(&["fw", "lint", "--rules", "tests/cli_fw/traps.rules", "--only", "nonsense"]);
    assert_eq!(code, Some(2), "{err}");
}

#[test]
fn a_healthy_pair_has_nothing_but_notes() {
    let (code, out, _) = run(&["fw", "lint", "--rules", "rules/api-server.rules"]);
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn diff_tells_areas_rules_and_packets() {
    let (code, found) =
        json(&["fw", "diff", "--json", "rules/api-server.rules", "rules/api-server-reply-missing.rules"]);
    assert_eq!((code, &found["equal"]), (Some(1), &false.into()));
    let region = &found["regions"][0];
    assert_eq!((&region["hook"], &region["from"], &region["to"]), (&"output".into(), &"accept".into(), &"drop".into()));
    assert_eq!(region["match"], "out!=lo tcp any:8080 > any");
    assert_eq!(region["confirmed"], true);
    assert_eq!((&region["old_rule"]["line"], &region["new_rule"]["text"]), (&11.into(), &"policy DROP".into()));
    let (code, out, _) =
        run(&["fw", "diff", "--only-newly-accepted", "rules/api-server.rules", "rules/api-server-reply-missing.rules"]);
    assert_eq!((code, out.contains("Nothing opens up")), (Some(0), true));
    let (code, out, _) = run(&["fw", "diff", "rules/api-server-reply-missing.rules", "rules/api-server.rules"]);
    assert_eq!(code, Some(1));
    insta::assert_snapshot!("diff_opens", out);
}

#[test]
fn query_is_told_in_words_that_it_reads() {
    let (code, out, _) = run(&["fw", "query", "--rules", "rules/exercise-a-dns.rules", "--drop"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!("query_drop", out);
    let (code, found) = json(&[
        "fw",
        "query",
        "--json",
        "--rules",
        "rules/exercise-a-dns.rules",
        "--drop",
        "tcp,udp 192.168.1.5 > any:53 hook=input",
    ]);
    assert_eq!((code, &found["extent"]), (Some(0), &"all".into()));
    let (code, _, _) =
        run(&["fw", "query", "--rules", "rules/exercise-a-dns.rules", "--drop", "udp 192.168.1.6 > any:53"]);
    assert_eq!(code, Some(1));
    let (code, found) = json(&["fw", "query", "--json", "--rules", "tests/cli_fw/router.rules", "--rule", "line:18"]);
    assert_eq!((code, &found["regions"][0]["hook"]), (Some(0), &"input".into()));
    assert!(found["regions"][0]["when"][0].as_str().unwrap().contains("limit"));
    let (code, out, _) =
        run(&["fw", "query", "--rules", "tests/cli_fw/router.rules", "--who-can-reach", "10.9.9.9:8080"]);
    assert_eq!((code, out.contains("forward tcp any > 10.9.9.9:8080")), (Some(0), true), "{out}");
    let (code, _, err) =
        run(&["fw", "query", "--rules", "rules/api-server.rules", "--accept", "tcp 10.0.0.0/8 > any colour=red"]);
    assert_eq!((code, err.contains("is no field of a packet")), (Some(2), true), "{err}");
}

#[test]
fn policies_are_proved_and_refuted() {
    let (code, out, _) =
        run(&["fw", "check", "rules/exercise-a-dns.policy.toml", "rules/exercise-b-udp-range.policy.toml"]);
    assert_eq!(code, Some(0), "{out}");
    let folder = tempfile::tempdir().unwrap();
    let policy = file(
        &folder,
        "p.toml",
        "[[check]]\nname = \"no DNS <at> all\"\nexpect = \"drop\"\npackets = [\"hook=input udp any > any:53\"]\n\
         [[check]]\nname = \"someone has none\"\nexpect = \"drop\"\nfor = \"some\"\npackets = \"hook=input udp any > any:53\"\n",
    );
    let rules = ["--rules", "rules/exercise-a-dns.rules"];
    let (code, found) = json(&[&["fw", "check", "--json", &policy][..], &rules].concat());
    assert_eq!((code, &found["passed"], &found["failed"]), (Some(1), &1.into(), &1.into()));
    assert_eq!((&found["checks"][0]["ok"], &found["checks"][0]["verdict"]), (&false.into(), &"accept".into()));
    assert!(!found["checks"][0]["path"].as_array().unwrap().is_empty());
    let (_, tap, _) = run(&[&["fw", "check", "--format", "tap", &policy][..], &rules].concat());
    assert!(tap.starts_with("TAP version 14\n1..2\nnot ok 1 - no DNS <at> all\n  ---\n"), "{tap}");
    assert!(tap.ends_with("ok 2 - someone has none\n"), "{tap}");
    let (_, junit, _) = run(&[&["fw", "check", "--format", "junit", &policy][..], &rules].concat());
    assert!(junit.contains("tests=\"2\" failures=\"1\"") && junit.contains("no DNS &lt;at&gt; all"), "{junit}");
}

#[test]
fn flows_are_proved_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let flow = "[[check]]\nname = \"the API answers\"\nexpect = \"works\"\nflow = \"in=eth0 tcp any > any:8080\"\n";
    let policy = file(&folder, "p.toml", flow);
    let (code, out, _) = run(&["fw", "check", &policy, "--rules", "rules/api-server.rules"]);
    assert_eq!(code, Some(0), "{out}");
    let (code, out, _) = run(&["fw", "check", &policy, "--rules", "rules/api-server-reply-missing.rules"]);
    assert_eq!((code, out.contains("the answer does not get through")), (Some(1), true), "{out}");
}

#[test]
fn only_listed_changes_pass_and_a_first_policy_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (code, generated, _) = run(&["fw", "check", "--generate", "--rules", "tests/cli_fw/router.rules"]);
    assert_eq!(code, Some(0));
    let policy = file(&folder, "generated.toml", &generated);
    let (code, out, _) = run(&["fw", "check", &policy, "--rules", "tests/cli_fw/router.rules", "--coverage"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("Claims exercise"), "{out}");
    let allows = |text: &str| {
        let policy = file(&folder, "c.toml", &format!("[[change]]\npackets = \"{text}\"\nto = \"drop\"\n"));
        run(&[
            "fw",
            "check",
            &policy,
            "--rules",
            "rules/api-server-reply-missing.rules",
            "--old",
            "rules/api-server.rules",
        ])
        .0
    };
    assert_eq!(allows("hook=output tcp any:8080 > any"), Some(0));
    assert_eq!(allows("hook=output tcp any:8081 > any"), Some(1));
}
