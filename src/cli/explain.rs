//! `reachwhy explain CODE`: a cause of the catalogue, taught.

use std::io::Write;

use super::{Failure, Global, print_json};
use crate::doctor::{Code, lessons};
use crate::view::{self, Style};

/// Which cause.
#[derive(Debug, clap::Args)]
#[command(after_help = "`reachwhy doctor --list-causes` lists the codes.")]
pub(super) struct ExplainArgs {
    /// A code that the doctor names, such as fw.reply_rule_missing
    code: String,
}

/// Finds the lesson and shows it.
pub(super) fn run(args: &ExplainArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let found = Code::ALL.iter().find(|code| code.as_str().eq_ignore_ascii_case(args.code.trim()));
    let near = lessons::near(args.code.trim());
    let code = match (found, near.as_slice()) {
        (Some(code), _) => *code,
        (None, [one]) => *one,
        (None, near) => {
            let names: Vec<&str> = near.iter().map(|code| code.as_str()).collect();
            let hint = if names.is_empty() {
                "`reachwhy doctor --list-causes` lists the codes".to_owned()
            } else {
                format!("near it are {}", names.join(", "))
            };
            return Err(Failure::usage(format!("there is no cause `{}`", args.code), Some(&hint)));
        }
    };
    let Some(lesson) = lessons::lesson(code) else {
        return Err(Failure::unknown(format!("there is no lesson on {code}"), None));
    };
    if global.json {
        print_json(&serde_json::json!({
            "code": code, "layer": code.layer(), "meaning": code.meaning(),
            "looks": lesson.looks, "why": lesson.why, "tells": lesson.tells, "cure": lesson.cure,
        }))?;
        return Ok(0);
    }
    let mut out = std::io::stdout().lock();
    view::doctor::lesson(&mut out, lesson, style)?;
    out.flush()?;
    Ok(0)
}
