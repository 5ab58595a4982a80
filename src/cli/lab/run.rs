//! `lab run`: the whole story of one fault.

use serde_json::{Value, json};

use super::doctor::{self, Report};
use super::{print, progress, stage};
use crate::lab::scenarios::Scenario;
use crate::lab::{Lab, faults::Step};
use crate::view::Style;
use crate::view::lab as view;

/// Runs inside the namespaces.
pub(super) fn inside(name: &str, style: Style, json: bool) -> anyhow::Result<u8> {
    if let Some(code) = stage::settle() {
        return Ok(code);
    }
    let scenario = super::scenario(name)?;
    progress("building the lab …");
    let lab = Lab::inside(&scenario.topology, &stage::program())?;
    scenario.make_healthy(&lab)?;
    progress("");
    let say = |text: String| if json { Ok(()) } else { print(&text) };

    say(view::opening(&scenario, style))?;
    say(view::services(&lab.services(), style))?;
    say(view::step(1, "All is well?", Some(&doctor::shown(&scenario)), style))?;
    let healthy = doctor::examine(&scenario, style, json)?;

    say(view::step(2, "Now something goes wrong", None, style))?;
    let firewalls_before = firewalls(&lab, &scenario);
    lab.inject(&scenario.fault)?;
    say(view::changes(&scenario.fault.inject, style))?;
    for (host, before) in &firewalls_before {
        let now = lab.firewall(host);
        say(view::rules_changed(host, before, now.text(false), style))?;
    }

    say(view::step(3, "What does the doctor say?", Some(&doctor::shown(&scenario)), style))?;
    let broken = doctor::examine(&scenario, style, json)?;

    say(view::step(4, "The fix", None, style))?;
    let fix = mend(&lab, &scenario, &broken)?;
    say(view::fixed(&fix, style))?;

    say(view::step(5, "Well again?", Some(&doctor::shown(&scenario)), style))?;
    let fixed = doctor::examine(&scenario, style, json)?;

    let named = broken.cause() == Some(scenario.fault.cause);
    let good = healthy.verdict() == Some("ok") && named && fixed.verdict() == Some("ok");
    if json {
        let document = json!({
            "scenario": scenario.name,
            "healthy": healthy.document,
            "fault": {
                "name": scenario.fault.name,
                "summary": scenario.fault.summary,
                "expected": scenario.fault.cause,
                "changes": scenario.fault.inject.iter().map(change_json).collect::<Vec<_>>(),
            },
            "broken": broken.document,
            "fix": fix,
            "fixed": fixed.document,
        });
        print(&format!("{document:#}\n"))?;
    } else {
        print(&view::closing(&scenario, broken.cause(), healthy.verdict(), fixed.verdict(), style))?;
    }
    drop(lab);
    Ok(u8::from(!good))
}

fn change_json(step: &Step) -> Value {
    json!({ "on": step.on, "command": step.describe() })
}

/// The rules of every host whose rules a fault replaces, before it does.
fn firewalls(lab: &Lab, scenario: &Scenario) -> Vec<(String, String)> {
    let hosts = scenario.fault.inject.iter().filter(|step| step.replaces_rules()).map(|step| step.on.clone());
    hosts.map(|host| (host.clone(), lab.firewall(&host).text(false).to_owned())).collect()
}

/// Carries out the doctor's first fix that the lab can, else takes the fault out as the lab put it in.
fn mend(lab: &Lab, scenario: &Scenario, broken: &Report) -> anyhow::Result<view::Fix> {
    let mut offered = Vec::new();
    let mut refused = None;
    for (on, command) in broken.fixes() {
        let host = match on.as_str() {
            "client" => &scenario.from,
            "server" => &scenario.to,
            other => other,
        };
        offered.push(format!("{host}# {command}"));
        match lab.fix(host, &command) {
            Ok(true) => {
                let steps = vec![view::Done { on: host.to_owned(), command }];
                return Ok(view::Fix { steps, by: view::By::Doctor, offered, refused });
            }
            Ok(false) => {}
            // A fix that fails is the doctor's mistake, and must be seen as that, not end the run.
            Err(error) => refused = Some(error.to_string()),
        }
    }
    lab.undo(&scenario.fault)?;
    let undone = scenario.fault.undo.iter().filter(|step| !step.only_waits());
    let steps = undone.map(|step| view::Done { on: step.on.clone(), command: step.describe() }).collect();
    Ok(view::Fix { steps, by: view::By::Lab, offered, refused })
}
