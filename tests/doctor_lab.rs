//! The lab is the doctor's oracle: every fault is really injected, the doctor really run from both
//! ends and from the client alone, and its cause compared. The printed fix is applied and must help.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::path::Path;
use std::sync::Mutex;

use reachwhy::doctor::{Confidence, Diagnosis, Verdict, Where};
use reachwhy::lab::scenarios::{self, Scenario};
use reachwhy::lab::{Lab, LabError};

const REACHWHY: &str = env!("CARGO_BIN_EXE_reachwhy");
/// The doctor mostly waits for silence, so a few labs fit on one processor.
const AT_ONCE: usize = 6;

fn skip(why: &str) {
    assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "required, but: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Runs the doctor as a person would, inside the lab.
fn doctor(lab: &Lab, scenario: &Scenario, both: bool) -> Diagnosis {
    let mut command = lab.program();
    command.args(["--json", "doctor", &scenario.target, "--from", &format!("netns:{}", scenario.from)]);
    if both {
        command.args(["--to", &format!("netns:{}", scenario.to)]);
    }
    let output = command.output().expect("the doctor runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let diagnosis: Diagnosis = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{}: {error}\n{text}\n{}", scenario.name, String::from_utf8_lossy(&output.stderr));
    });
    let code = output.status.code();
    assert_eq!(code, Some(i32::from(diagnosis.exit_code())), "{}: exit code", scenario.name);
    diagnosis
}

fn code(diagnosis: &Diagnosis) -> &'static str {
    diagnosis.root_cause.as_ref().map_or("none", |cause| cause.code.as_str())
}

/// What is wrong with how one exercise went; empty when nothing is.
fn exercise(scenario: &Scenario) -> Result<Vec<String>, LabError> {
    let lab = Lab::build_with(&scenario.topology, Path::new(REACHWHY))?;
    scenario.make_healthy(&lab)?;
    let mut wrong = Vec::new();
    let mut expect = |what: &str, fine: bool, diagnosis: &Diagnosis| {
        if !fine {
            let cause = serde_json::to_string(&diagnosis.root_cause).unwrap();
            wrong.push(format!("{}: {what}: {:?} {cause}", scenario.name, diagnosis.verdict));
        }
    };
    let before = doctor(&lab, scenario, true);
    expect("healthy, both ends", before.verdict == Verdict::Ok && before.root_cause.is_none(), &before);
    let before = doctor(&lab, scenario, false);
    expect("healthy, client alone", before.verdict == Verdict::Ok, &before);

    lab.inject(&scenario.fault)?;
    let alone = doctor(&lab, scenario, false);
    let named = code(&alone);
    expect(&format!("client alone named {named}"), scenario.fault.cause_alone.contains(&named), &alone);
    // From one end, silence beyond that end is never proven to be one thing.
    let sure = alone.root_cause.as_ref().map(|cause| cause.confidence);
    let whole = named == scenario.fault.cause || !alone.also_possible.is_empty() || sure == Some(Confidence::Likely);
    expect("client alone claims too much", whole, &alone);

    let both = doctor(&lab, scenario, true);
    expect(&format!("both ends named {}", code(&both)), code(&both) == scenario.fault.cause, &both);
    let left = both.changed.iter().filter(|change| !change.contains("removed again")).count();
    expect("something was left in a host", left == 0, &both);

    let mut fixed = false;
    for fix in both.root_cause.iter().flat_map(|cause| &cause.fix) {
        let host = if fix.on == Where::Server { &scenario.to } else { &scenario.from };
        let concrete = !fix.command.is_empty() && !fix.command.contains("GATEWAY") && !fix.command.contains("ADDRESS");
        if concrete && !fixed {
            fixed = lab.fix(host, &fix.command)?;
            if !fixed {
                eprintln!("{}: the lab cannot carry out `{}`", scenario.name, fix.command);
            }
        }
    }
    if fixed {
        let after = doctor(&lab, scenario, true);
        expect("the printed fix does not help", after.verdict == Verdict::Ok, &after);
    }
    Ok(wrong)
}

#[test]
fn every_fault_is_named_from_both_ends_and_from_one() {
    let queue = Mutex::new(scenarios::all());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(scenario) = { queue.lock().unwrap().pop() } {
                    // A lab takes its thread's namespaces with it, so each gets a thread of its own.
                    let done = std::thread::scope(|scope| scope.spawn(|| exercise(&scenario)).join());
                    match done {
                        Ok(Ok(found)) => wrong.lock().unwrap().extend(found),
                        Ok(Err(LabError::Isolate(error))) => return skip(&error.to_string()),
                        Ok(Err(error)) => wrong.lock().unwrap().push(format!("{}: {error}", scenario.name)),
                        Err(_) => wrong.lock().unwrap().push(format!("{}: panicked", scenario.name)),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} things went wrong:\n{}", wrong.len(), wrong.join("\n"));
}
