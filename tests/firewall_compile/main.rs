//! The compiled walk against the plain one: the same answer to the word, whatever the rules and the
//! packet, with a history and without.
//!
//! - REACHWHY_COMPILE_SEED: the first seed (default 1)
//! - REACHWHY_COMPILE_RULESETS: how many rulesets of each kind (default 40)
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod generate;

use std::time::Duration;

use generate::{Random, Text};
use reachwhy::firewall::ruleset::Family;
use reachwhy::firewall::walk::{walk, walk_with};
use reachwhy::firewall::{Compiled, Facts, History, Outcome, Packet, Stack, parse};
use reachwhy::host::Backend;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn stack(text: &Text) -> Stack {
    let show = |error: &dyn std::fmt::Display| panic!("{error}\n{}\n{}", text.sets, text.rules);
    let family = if text.v6 { Family::Ip6 } else { Family::Ip };
    let rules = if text.native {
        parse::nft_text(&text.rules, "rules")
    } else {
        parse::iptables_save(&text.rules, family, text.backend, "rules")
    };
    let rules = rules.unwrap_or_else(|error| show(&error)).ruleset;
    let sets = parse::ipset_save(&text.sets, "sets").unwrap_or_else(|error| show(&error)).ruleset;
    Stack::from_rulesets([rules, sets])
}

/// The plain walk looks for the nearest miss, the compiled one only when asked.
fn bare(mut outcome: Outcome) -> Outcome {
    outcome.near_miss = None;
    outcome
}

#[track_caller]
fn same(plain: &Outcome, compiled: &Outcome, packet: &Packet, text: &Text, seed: u64, what: &str) {
    assert_eq!(
        plain,
        compiled,
        "seed {seed}, {what}: the plain walk (left) and the compiled one differ\n{}\n{}\n{}",
        serde_json::to_string(packet).unwrap(),
        text.sets,
        text.rules
    );
}

fn compare(make: impl Fn(&mut Random) -> Text) {
    let (first, count) = (from_env("REACHWHY_COMPILE_SEED", 1), from_env("REACHWHY_COMPILE_RULESETS", 40));
    let (mut branched, mut dropped, mut decided) = (0u32, 0u32, 0u32);
    for seed in first..first + count {
        let mut r = Random(seed);
        let text = make(&mut r);
        let stack = stack(&text);
        let compiled = Compiled::eager(&stack);
        let facts = if r.chance(30) { Facts::none().at(1_790_000_000) } else { Facts::none() };
        let (mut one, mut other) = (History::new(), History::new());
        for n in 0..60u64 {
            let packet = generate::packet(&mut r, text.v6);
            let plain = walk(&stack, &packet, &facts);
            let answer = compiled.answer(&packet, &facts, None);
            let written = serde_json::to_string(&answer).unwrap();
            let told = answer.outcome();
            same(&bare(plain.clone()), &told, &packet, &text, seed, "alone");
            assert_eq!(written, serde_json::to_string(&told).unwrap(), "an answer is written as its outcome");
            let explained = compiled.explain(&packet, &facts, None);
            same(&plain, &explained.outcome(), &packet, &text, seed, "with the nearest miss");
            branched += u32::from(!told.branches.is_empty());
            dropped += u32::from(told.verdict.blocks());
            decided += u32::from(told.decided_by.is_some_and(|by| by.rule.is_some_and(|rule| rule > 8)));
            let at = Duration::from_millis(n * 700);
            one.at(at);
            other.at(at);
            let plain = bare(walk_with(&stack, &packet, &facts, Some(&mut one)));
            let told = compiled.answer(&packet, &facts, Some(&mut other)).outcome();
            same(&plain, &told, &packet, &text, seed, "with a history");
        }
    }
    // A generator whose packets all end at the same place would prove nothing.
    assert!(branched > 0 && dropped > 0 && decided > 0, "{branched} {dropped} {decided}");
}

#[test]
fn rules_of_iptables_nft() {
    compare(|r| generate::iptables(r, Backend::Nft));
}

#[test]
fn rules_of_iptables_legacy() {
    compare(|r| generate::iptables(r, Backend::Legacy));
}

#[test]
fn rules_of_nft() {
    compare(generate::native);
}
