//! The doctor, called as a user would call it.

use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::Value;

use super::stage;
use crate::lab::scenarios::Scenario;
use crate::view::Style;

/// What a run of the doctor gave.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Its document; none where it gave none.
    pub(super) document: Option<Value>,
}

impl Report {
    /// `ok`, `fault` or `unknown`.
    pub(super) fn verdict(&self) -> Option<&str> {
        self.document.as_ref()?.get("verdict")?.as_str()
    }

    /// The code of the root cause.
    pub(super) fn cause(&self) -> Option<&str> {
        self.document.as_ref()?.pointer("/root_cause/code")?.as_str()
    }

    /// The fixes it offers, best first: the end (`client`, `server`, or a name) and the command.
    pub(super) fn fixes(&self) -> Vec<(String, String)> {
        let fixes = self.document.as_ref().and_then(|document| document.pointer("/root_cause/fix"));
        let text = |fix: &Value, key: &str| fix.get(key).and_then(Value::as_str).map(str::to_owned);
        fixes
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|fix| Some((text(fix, "on")?, text(fix, "command").filter(|command| !command.is_empty())?)))
            .collect()
    }
}

fn command(scenario: &Scenario) -> Command {
    let mut command = Command::new(stage::program());
    command.args(["doctor", &scenario.target]);
    command.args(["--from", &format!("netns:{}", scenario.from), "--to", &format!("netns:{}", scenario.to)]);
    command.stdin(Stdio::null());
    command
}

/// The command line as a learner would type it.
pub(super) fn shown(scenario: &Scenario) -> String {
    format!("reachwhy doctor {} --from netns:{} --to netns:{}", scenario.target, scenario.from, scenario.to)
}

/// Runs the doctor. With `json` nothing is printed; else it prints for people, and what it measured is
/// judged once more for its document, without measuring again.
pub(super) fn examine(scenario: &Scenario, style: Style, json: bool) -> anyhow::Result<Report> {
    if json {
        return document(command(scenario).arg("--json"));
    }
    let case = stage::scratch("case.json");
    let _ = std::fs::remove_file(&case);
    let color = if style.color { "always" } else { "never" };
    let mut people = command(scenario);
    people.args(["--color", color, "--save"]).arg(&case);
    people.status().context("cannot run the doctor")?;
    if case.exists() {
        let mut again = Command::new(stage::program());
        again.args(["doctor", &scenario.target, "--json", "--replay"]).arg(&case).stdin(Stdio::null());
        let report = document(&mut again)?;
        if report.document.is_some() {
            return Ok(report);
        }
    }
    document(command(scenario).arg("--json"))
}

fn document(command: &mut Command) -> anyhow::Result<Report> {
    let output = command.stderr(Stdio::null()).output().context("cannot run the doctor")?;
    Ok(Report { document: serde_json::from_slice(&output.stdout).ok() })
}
