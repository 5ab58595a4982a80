//! `reachwhy tcp compare A B`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Failure, Global, line, warn};
use crate::os::capture_file;
use crate::tcp::compare::{Fate, compare, pairs};
use crate::tcp::{Connection, Keep, Limits, Reading};
use crate::view::{self, Style};
use crate::wire::capture::CaptureReader;

/// Which captures.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit: 0 all arrived unchanged, 1 something was lost or changed, 2 bad usage or a damaged file, \
    3 the captures have no connection in common"
)]
pub(super) struct CompareArgs {
    /// A capture
    a: PathBuf,
    /// Another of the same traffic, from another place
    b: PathBuf,
    /// Write every segment, those that arrived unchanged too
    #[arg(long)]
    all: bool,
}

/// Reads both, matches, shows.
pub(super) fn run(args: &CompareArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let (a, whole_a) = load(&args.a)?;
    let (b, whole_b) = load(&args.b)?;
    let found = pairs(&a, &b);
    if found.is_empty() {
        let what = format!(
            "the captures have no TCP connection in common ({} in {}, {} in {})",
            a.len(),
            args.a.display(),
            b.len(),
            args.b.display()
        );
        return Err(Failure::unknown(what, Some("both must have been taken while the same traffic passed")));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut problem = false;
    for (one, other) in &found {
        let comparison = compare(one, other);
        problem |= comparison
            .segments
            .iter()
            .any(|pair| matches!(pair.fate, Fate::Lost | Fate::Duplicated | Fate::NotSent | Fate::Changed));
        if global.json {
            line(&mut out, &comparison)?;
        } else {
            view::tcp::compare(&mut out, &comparison, args.all, style)?;
        }
    }
    if !global.json {
        let (left_a, left_b) = (a.len() - found.len(), b.len() - found.len());
        if left_a + left_b > 0 {
            writeln!(out, "connections in one capture only: {left_a} in A, {left_b} in B")?;
        }
    }
    out.flush()?;
    Ok(if whole_a && whole_b { u8::from(problem) } else { crate::cli::Exit::Usage.code() })
}

/// A capture's connections with their segments; whether all of it could be read.
fn load(file: &Path) -> anyhow::Result<(Vec<Connection>, bool)> {
    let name = file.display();
    let source =
        capture_file::open(file).map_err(|error| Failure::usage(format!("cannot read {name}: {error}"), None))?;
    let mut reader = CaptureReader::new(source).map_err(|damage| Failure::usage(format!("{name}: {damage}"), None))?;
    let limits =
        Limits { keep: Keep { steps: 500_000, data: 64, octets: 64 << 20 }, steps: 4_000_000, ..Limits::default() };
    let mut reading = Reading::new(limits, super::seed());
    let whole = loop {
        match reader.next_packet() {
            Ok(Some(packet)) => {
                reading.packet(&packet);
            }
            Ok(None) => break true,
            Err(damage) => {
                warn(&format!("{name}: {damage}; {} frames were read, the result is partial", reading.tally.frames));
                break false;
            }
        }
    };
    Ok((reading.table.finish(), whole))
}
