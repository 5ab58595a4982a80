//! Saved cases, judged again: no network, no privilege, no clock. Each was seen in a lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use reachwhy::doctor::{Case, Diagnosis, Verdict, judge};
use reachwhy::view::{self, Style};
use serde_json::Value;

/// The file's name, and the cause it must be judged as; `ok` where nothing is wrong.
const CASES: &[(&str, &str)] = &[
    ("client-output-drop.both", "fw.client_output_drop"),
    ("gateway-silent.alone", "route.gateway_silent"),
    ("gateway-silent.both", "route.gateway_silent"),
    ("healthy.both", "ok"),
    ("http-500.both", "app.http_server_error"),
    ("link-down.both", "link.down"),
    ("loopback-only.both", "tcp.loopback_only"),
    ("neighbour-silent.alone", "neigh.no_reply"),
    ("neighbour-silent.both", "neigh.arp_filtered"),
    ("no-response.alone", "app.no_response"),
    ("no-response.both", "app.no_response"),
    ("no-route.both", "route.missing"),
    ("port-closed.both", "tcp.not_listening"),
    ("reply-rule-missing.alone", "fw.filtered"),
    ("reply-rule-missing.both", "fw.reply_rule_missing"),
    ("router-forward-drop.both", "fw.path_drop"),
    ("server-input-drop.both", "fw.server_input_drop"),
    ("server-input-reset.alone", "tcp.port_closed"),
    ("server-input-reset.both", "fw.server_input_reject"),
    ("server-stuck.both", "tcp.server_stuck"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn case(name: &str) -> Case {
    serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn shown(diagnosis: &Diagnosis, width: usize) -> String {
    let mut out = Vec::new();
    view::doctor::diagnosis(&mut out, diagnosis, Style { color: false, width }, false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn every_case_is_judged_as_it_was_seen() {
    let files = std::fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, CASES.len(), "a case without an expectation, or one without its file");
    for (name, expected) in CASES {
        let diagnosis = judge(&case(name));
        let named = diagnosis.root_cause.as_ref().map_or("ok", |cause| cause.code.as_str());
        assert_eq!(named, *expected, "{name}");
        assert_eq!(diagnosis.verdict == Verdict::Ok, *expected == "ok", "{name}");
    }
}

#[test]
fn one_end_never_claims_more_than_it_saw() {
    for (name, _) in CASES.iter().filter(|(name, _)| name.rsplit_once('.').is_some_and(|(_, ends)| ends == "both")) {
        let mut alone = case(name);
        alone.server = None;
        let both = judge(&case(name)).root_cause.map(|cause| cause.code);
        let one = judge(&alone);
        let Some(cause) = one.root_cause else { continue };
        let open = Some(cause.code) == both || both.is_some_and(|both| one.also_possible.contains(&both));
        let named = cause.code;
        assert!(open, "{name}: from one end {named}, which leaves no room for {both:?}: {:?}", one.also_possible);
    }
}

#[test]
fn what_people_see() {
    for name in
        ["reply-rule-missing.both", "reply-rule-missing.alone", "healthy.both", "http-500.both", "no-route.both"]
    {
        insta::assert_snapshot!(name.replace('.', "_"), shown(&judge(&case(name)), 80));
    }
    let narrow = shown(&judge(&case("reply-rule-missing.both")), 40);
    insta::assert_snapshot!("reply-rule-missing_narrow", narrow);
}

#[test]
fn a_report_is_one_page_that_needs_nothing_besides_itself() {
    for (name, _) in CASES {
        let diagnosis = judge(&case(name));
        let page = view::doctor_html::page(&diagnosis);
        for tag in ["html", "body", "table", "svg", "ul", "td", "tr", "pre", "details"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{name}: <{tag}>");
        }
        for outside in ["<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(outside), "{name}: {outside}");
        }
        if let Some(cause) = &diagnosis.root_cause {
            assert!(page.contains(cause.code.as_str()), "{name}");
            assert!(
                cause.fix.iter().all(|fix| fix.command.contains(['<', '&', '"', '\'']) || page.contains(&fix.command))
            );
        }
    }
    let mut hostile = judge(&case("port-closed.both"));
    hostile.target = "<script>alert(1)</script>".to_owned();
    assert!(!view::doctor_html::page(&hostile).contains("<script"));
}

#[test]
fn the_answer_survives_its_own_json() {
    for (name, _) in CASES {
        let diagnosis = judge(&case(name));
        let text = serde_json::to_string(&diagnosis).unwrap();
        assert_eq!(serde_json::from_str::<Diagnosis>(&text).unwrap(), diagnosis, "{name}");
    }
}

/// Splitmix64: small, seeded, and good enough to choose what to break.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below.max(1) as u64).unwrap()
    }
}

/// Damages one value somewhere in a document: takes it away, empties it, or makes it absurd.
fn damage(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Object(map) if !map.is_empty() && dice.roll(8) > 0 => {
            let key = map.keys().nth(dice.roll(map.len())).unwrap().clone();
            match dice.roll(12) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(key, Value::Null)),
                _ => damage(map.get_mut(&key).unwrap(), dice),
            }
        }
        Value::Array(list) if !list.is_empty() && dice.roll(8) > 0 => {
            let at = dice.roll(list.len());
            if dice.roll(6) == 0 { drop(list.remove(at)) } else { damage(&mut list[at], dice) }
        }
        Value::Number(_) => *value = [Value::from(0), 255.into(), u64::MAX.into(), (-1).into()][dice.roll(4)].clone(),
        Value::String(text) => {
            let odd = ["", "0.0.0.0", "::1", "*filter\n-A INPUT -j DROP\n", "{\"nftables\":[{}]}", "💥"];
            odd[dice.roll(odd.len())].clone_into(text);
        }
        Value::Bool(truth) => *truth = !*truth,
        other => *other = Value::Array(Vec::new()),
    }
}

#[test]
fn a_damaged_case_is_refused_or_judged_and_never_a_panic() {
    let mut judged = 0;
    for (name, _) in CASES {
        let whole: Value = serde_json::from_str(&text(name)).unwrap();
        for seed in 0..300 {
            let mut dice = Dice(seed);
            let mut broken = whole.clone();
            for _ in 0..=dice.roll(6) {
                damage(&mut broken, &mut dice);
            }
            if let Ok(case) = serde_json::from_value::<Case>(broken) {
                let diagnosis = judge(&case);
                shown(&diagnosis, 40);
                judged += 1;
            }
        }
    }
    assert!(judged > 500, "only {judged} damaged cases could be read at all");
}
