//! The walk against the kernel it runs on, packet for packet.
//!
//! Three private hosts in a line; random rulesets are loaded into the middle one by the real tools,
//! random packets sent through it over a cable or as its own. The kernel tells each rule that a
//! packet meets (nf_tables' trace notices; for x_tables the log of packets with the trace bit), and
//! what leaves is caught at the far ends. The walk must have named the same rules in the same order,
//! the same headers and the same answer to the sender.
//!
//! - REACHWHY_ORACLE_RULESETS: rulesets for each way of loading them (default 100); `endless` goes on
//!   until a mismatch is found
//! - REACHWHY_ORACLE_SEED: the first seed (default 1)
//! - REACHWHY_ORACLE_PACKETS: packets for each ruleset (default 80)
//! - REACHWHY_ORACLE_TEXTS, REACHWHY_ORACLE_SPOILED: texts that are read, written and spoiled
//!
//! - REACHWHY_ORACLE_SAVE: a folder into which the files of a mismatch are written
//! - REACHWHY_ORACLE_RECORD: take what the kernel does with the named cases now for what is expected
//!
//! A mismatch is shrunk and printed as files for `cases/`, which an ordinary test replays.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    clippy::unnecessary_wraps,
    clippy::match_same_arms,
    clippy::inconsistent_struct_constructor,
    clippy::single_match_else,
    clippy::too_many_arguments,
    reason = "generators are lists of texts, and read best as such"
)]
#![allow(clippy::print_stdout, reason = "seeds, what was skipped, and mismatches")]

mod cases;
mod check;
mod coverage;
mod generate;
mod history;
mod kernel;
mod line;
mod matches;
mod native;
mod packets;
mod random;
mod rare;
mod rules;
mod sets;
mod shrink;
mod stateful;
mod text;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use check::Fate;
use kernel::Kernel;
use line::Line;
use packets::Shot;
use random::Random;
use rules::{Kind, Rules};

/// One thread's work: rulesets of one kind in a namespace of their own. Flows and no flows do not
/// share one, since conntrack stays where it was once.
const JOBS: [(Kind, bool); 6] = [
    (Kind::Nft, false),
    (Kind::Legacy, false),
    (Kind::Native, false),
    (Kind::Nft, true),
    (Kind::Legacy, true),
    (Kind::Native, true),
];

/// What a job has done.
#[derive(Debug, Default)]
struct Tally {
    rulesets: u64,
    refused: Vec<String>,
    packets: BTreeMap<String, u64>,
    open: u64,
    again: u64,
    mismatches: Vec<String>,
}

/// Says why this test cannot run here; fails instead where it must.
fn skip(why: &str) {
    assert!(std::env::var("REACHWHY_REQUIRE_KERNEL").as_deref() != Ok("1"), "{why}");
    println!("SKIPPED: {why}");
}

fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the kernel oracle needs root".to_owned());
    }
    let tools = [
        "iptables-nft-restore",
        "iptables-legacy-restore",
        "ip6tables-nft-restore",
        "ip6tables-legacy-restore",
        "nft",
        "ipset",
    ];
    let absent = tools.iter().find(|tool| Command::new(tool).arg("--version").output().is_err());
    absent.map(|tool| format!("{tool} is not installed"))
}

fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if text == "endless" => u64::MAX,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

#[test]
fn the_walk_goes_where_the_kernel_goes() {
    if let Some(why) = missing() {
        return skip(&why);
    }
    let begun = Instant::now();
    let (seed, rulesets) = (from_env("REACHWHY_ORACLE_SEED", 1), from_env("REACHWHY_ORACLE_RULESETS", 100));
    println!("seed {seed}, {rulesets} rulesets of each kind");
    let mut jobs: Vec<_> =
        JOBS.iter().map(|(kind, nat)| std::thread::spawn(move || job(*kind, *nat, seed, rulesets))).collect();
    let told = [Kind::Nft, Kind::Legacy, Kind::Native];
    jobs.extend(told.map(|kind| std::thread::spawn(move || histories(kind, seed, rulesets))));
    let names = JOBS.iter().map(|(kind, nat)| format!("{kind:?}{}", if *nat { " with flows" } else { "" }));
    let names: Vec<String> = names.chain(told.map(|kind| format!("{kind:?} histories"))).collect();
    let mut failed = Vec::new();
    let (mut all, mut compared) = (0, 0);
    for (job, name) in jobs.into_iter().zip(names) {
        match job.join() {
            Ok(Ok(tally)) => {
                all += tally.rulesets;
                compared += tally.packets.values().sum::<u64>();
                println!(
                    "{name}: {} rulesets, {} refused, packets {:?}, {} left open, {} looked at again, {} mismatches",
                    tally.rulesets,
                    tally.refused.len(),
                    tally.packets,
                    tally.open,
                    tally.again,
                    tally.mismatches.len()
                );
                for refused in tally.refused.iter().take(3) {
                    println!("refused: {refused}");
                }
                if tally.refused.len() as u64 * 20 > tally.rulesets {
                    failed.push(format!("too many rulesets are refused, such as\n{}", tally.refused[0]));
                }
                failed.extend(tally.mismatches);
            }
            Ok(Err(why)) => return skip(&why),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    println!("{all} rulesets, {compared} packets compared in {:.1} s", begun.elapsed().as_secs_f32());
    // A share that shrinks unseen would prove less and less.
    let whole = std::env::var("REACHWHY_ORACLE_RULESETS").is_err() && std::env::var("REACHWHY_ORACLE_PACKETS").is_err();
    assert!(
        !whole || !failed.is_empty() || all >= 300 && compared >= 20_000,
        "{all} rulesets, {compared} packets are too few"
    );
    assert!(failed.is_empty(), "{} mismatches\n\n{}", failed.len(), failed.join("\n\n"));
}

/// Runs one kind's rulesets; an error is a reason to skip.
fn job(kind: Kind, nat: bool, seed: u64, rulesets: u64) -> Result<Tally, String> {
    let line = Line::new()?;
    let mut kernel = Kernel::listen()?;
    let mut tally = Tally::default();
    let packets = from_env("REACHWHY_ORACLE_PACKETS", 80);
    for n in 0..rulesets {
        let seed = seed.wrapping_add(n);
        let mut r = Random(seed ^ (kind as u64) << 60 ^ u64::from(nat) << 59);
        let rules = if kind == Kind::Native {
            native::ruleset(&mut r, nat, false)
        } else {
            generate::ruleset(&mut r, kind, nat, false)
        };
        let shots: Vec<Shot> = (0..packets).map(|_| packets::shot(&mut r, &rules)).collect();
        one(&line, &mut kernel, &rules, &shots, seed, &mut tally);
        tally.rulesets += 1;
        if tally.mismatches.len() >= 5 {
            break;
        }
    }
    Ok(tally)
}

fn one(line: &Line, kernel: &mut Kernel, rules: &Rules, shots: &[Shot], seed: u64, tally: &mut Tally) {
    if let Err(why) = kernel.load(rules) {
        tally.refused.push(format!("{why}\n{}{}", rules.sets_text(), rules.text()));
        return;
    }
    let dumps = match check::dumps(rules) {
        Ok(dumps) => dumps,
        // nft 1.0.6 breaks down over some of what it has loaded itself.
        Err(why) if why.contains("Assertion") => {
            tally.refused.push(format!("{why}\n{}", rules.text()));
            return;
        }
        Err(why) => panic!("{why}"),
    };
    let stack = match check::stack(&dumps) {
        Ok(stack) => stack,
        Err(why) => {
            tally.mismatches.push(format!("{why}\n{}{}", rules.sets_text(), rules.text()));
            return;
        }
    };
    for (n, shot) in shots.iter().enumerate() {
        let id = u32::try_from(n + 1).unwrap();
        let (ours, _) = check::ours(&stack, &check::asked(shot, id), &line.facts);
        let Some(ours) = ours else {
            tally.open += 1;
            continue;
        };
        let family = if rules.v6 { "IPv6" } else { "IPv4" };
        *tally.packets.entry(format!("{family} {:?}", rules.focus)).or_default() += 1;
        // The kernel may still be at work on what it was sent: the second look waits for it.
        for patience in [0, 30] {
            if patience > 0 {
                tally.again += 1;
            }
            let theirs = check::theirs(line, kernel, rules, shot, id, Duration::from_millis(patience));
            let (mut a, mut b) = (ours.clone(), theirs);
            check::level(rules, shot, &mut a, &mut b);
            if a == b {
                break;
            }
            if patience > 0 {
                let told = shrink::told(line, kernel, rules, shot, seed);
                let first = format!("packet {id}: the walk says {a:?}\nthe kernel {b:?}\n");
                tally.mismatches.push(if told.starts_with("a mismatch") { first + &told } else { told });
                return;
            }
        }
    }
}

/// Histories of both backends; an error is a reason to skip.
fn histories(kind: Kind, seed: u64, rulesets: u64) -> Result<Tally, String> {
    let line = Line::new()?;
    let mut kernel = Kernel::listen()?;
    let mut tally = Tally::default();
    let packets = from_env("REACHWHY_ORACLE_PACKETS", 80);
    for n in 0..rulesets {
        let seed = seed.wrapping_add(n);
        let mut r = Random(seed ^ (kind as u64) << 60 ^ 3 << 57);
        let rules = if kind == Kind::Native {
            native::ruleset(&mut r, true, true)
        } else {
            generate::ruleset(&mut r, kind, true, true)
        };
        tally.rulesets += 1;
        if let Err(why) = kernel.load(&rules) {
            tally.refused.push(format!("{why}\n{}{}", rules.sets_text(), rules.text()));
            continue;
        }
        let read = check::dumps(&rules).and_then(|dumps| check::stack(&dumps));
        let stack = match read {
            Ok(stack) => stack,
            Err(why) if why.contains("Assertion") => {
                tally.refused.push(format!("{why}\n{}", rules.text()));
                continue;
            }
            Err(why) => {
                tally.mismatches.push(format!("{why}\n{}{}", rules.sets_text(), rules.text()));
                continue;
            }
        };
        match history::run(&line, &mut kernel, &rules, &stack, &mut r, packets) {
            history::End::Agreed(count, open) => {
                let family = if rules.v6 { "IPv6" } else { "IPv4" };
                *tally.packets.entry(format!("{family} histories")).or_default() += count;
                tally.open += u64::from(open);
            }
            history::End::Differs(case) => {
                let found = history::told(&line, &mut kernel, &rules, &case, seed);
                tally.again += u64::from(found.is_none());
                tally.mismatches.extend(found);
            }
        }
        if tally.mismatches.len() >= 5 {
            break;
        }
    }
    Ok(tally)
}

/// What the walk makes of a case, and what both can say of it.
fn asked(read: &cases::Read, facts: &reachwhy::host::HostFacts, kernel: Fate) -> (Fate, Fate) {
    let stack = check::stack(&read.dumps).unwrap_or_else(|why| panic!("{}: {why}", read.name));
    let (ours, outcome) = check::ours(&stack, &check::asked(&read.shot(), 7), facts);
    let mut ours = ours.unwrap_or_else(|| panic!("{}: left open: {outcome:#?}", read.name));
    let mut kernel = kernel;
    check::level(&read.rules, &read.shot(), &mut ours, &mut kernel);
    (ours, kernel)
}

/// REACHWHY_ORACLE_SPOILED: texts with one word changed, for each ruleset (default 0): what only one of
/// the reader and the tool takes is printed.
#[test]
fn texts_are_read_and_written_as_the_tools_do() {
    if let Some(why) = missing() {
        return skip(&why);
    }
    let seed = from_env("REACHWHY_ORACLE_SEED", 1);
    let (rulesets, spoiled) = (from_env("REACHWHY_ORACLE_TEXTS", 60), from_env("REACHWHY_ORACLE_SPOILED", 0));
    let done = std::thread::spawn(move || text::run(seed, rulesets, spoiled)).join();
    match done {
        Ok(Ok(seen)) => {
            println!(
                "{} rulesets, {} spoiled texts, {} refused by the tools",
                seen.rulesets, seen.mutated, seen.refused
            );
            for differ in &seen.differ {
                println!("{differ}");
            }
            assert!(seen.bad.is_empty(), "{}", seen.bad.join("\n\n"));
        }
        Ok(Err(why)) => skip(&why),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[test]
fn what_is_compared_is_written_down() {
    if let Some(why) = missing() {
        return skip(&why);
    }
    match std::thread::spawn(coverage::run).join() {
        Ok(Ok((kept, now))) => {
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
            let (kept, now) = (lines(&kept), lines(&now));
            let (gone, new): (Vec<_>, Vec<_>) = (kept.difference(&now).collect(), now.difference(&kept).collect());
            assert!(gone.is_empty() && new.is_empty(), "coverage.txt says {gone:?}; now it is {new:?}");
        }
        Ok(Err(why)) => skip(&why),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[test]
fn named_cases_are_answered_as_the_kernel_did() {
    for read in cases::all() {
        let Some(kernel) = read.case.kernel.clone() else { panic!("{}: nothing is expected", read.name) };
        let (ours, kernel) = asked(&read, &cases::host(), kernel);
        assert_eq!(ours, kernel, "{}: the walk (left) and the kernel differ: {}", read.name, read.case.about);
    }
}

#[test]
fn named_histories_are_answered_as_the_kernel_did() {
    for read in cases::histories() {
        let stack = check::stack(&read.dumps).unwrap_or_else(|why| panic!("{}: {why}", read.name));
        let differs = history::replayed(&read.case, &stack, &cases::host());
        assert_eq!(differs, None, "{}: {}", read.name, read.case.about);
    }
}

/// The named histories of a kind, in a namespace of their own; how many.
fn histories_again(kind: Kind) -> Result<usize, String> {
    let line = Line::new()?;
    let mut kernel = Kernel::listen()?;
    let all: Vec<_> = cases::histories().into_iter().filter(|read| read.case.kind == kind).collect();
    for read in &all {
        kernel.load(&read.rules).unwrap_or_else(|why| panic!("{}: {why}", read.name));
        let now = history::recorded(&line, &mut kernel, &read.rules, &read.case);
        if std::env::var("REACHWHY_ORACLE_RECORD").is_ok() {
            cases::record_history(&read.name, &now);
            continue;
        }
        assert_eq!(read.case, now, "{}: what is kept (left) is not what the kernel does now", read.name);
    }
    Ok(all.len())
}

#[test]
fn the_kernel_still_answers_the_named_cases_so() {
    if let Some(why) = missing() {
        return skip(&why);
    }
    let done = std::thread::spawn(|| -> Result<usize, String> {
        let all = cases::all();
        let count = all.len();
        for (kind, flows) in JOBS {
            let line = Line::new()?;
            let mut kernel = Kernel::listen()?;
            if std::env::var("REACHWHY_ORACLE_RECORD").is_ok() {
                cases::record_host(&line.facts);
            }
            for read in all.iter().filter(|read| read.case.kind == kind && read.case.flows == flows) {
                kernel.load(&read.rules).unwrap_or_else(|why| panic!("{}: {why}", read.name));
                let theirs = check::theirs(&line, &mut kernel, &read.rules, &read.shot(), 7, Duration::from_millis(20));
                if std::env::var("REACHWHY_ORACLE_RECORD").is_ok() {
                    cases::record(read, &theirs);
                    continue;
                }
                let mut kept = read.case.kernel.clone().unwrap();
                let mut now = theirs;
                check::level(&read.rules, &read.shot(), &mut kept, &mut now);
                assert_eq!(kept, now, "{}: what is kept (left) is not what the kernel does now", read.name);
            }
        }
        Ok(count)
    });
    let told = std::thread::spawn(|| -> Result<usize, String> {
        let each =
            [Kind::Nft, Kind::Legacy, Kind::Native].map(|kind| std::thread::spawn(move || histories_again(kind)));
        each.into_iter().map(|kind| kind.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    });
    match done.join().and_then(|count| told.join().map(|told| count.and_then(|count| Ok((count, told?))))) {
        Ok(Ok((count, told))) => println!("{count} cases, {told} histories"),
        Ok(Err(why)) => skip(&why),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
