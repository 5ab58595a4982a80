//! `reachwhy arp vendors`: the table of vendors, and a fresher one.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::super::{Failure, Global, print_json};
use crate::arp::vendor::{self, Vendors, read_ieee_csv};
use crate::os::{clock, files};
use crate::view::Style;
use crate::wire::{MacAddr, calendar};

/// What to do with the table.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The IEEE's files are at https://standards-oui.ieee.org/ (oui/oui.csv, oui28/mam.csv, oui36/oui36.csv);\n\
    Debian's package ieee-data has them in /usr/share/ieee-data. Give all of them: the update replaces the table."
)]
pub(super) struct VendorsArgs {
    /// Hardware addresses to look up
    #[arg(value_name = "MAC", conflicts_with = "update")]
    macs: Vec<MacAddr>,
    /// Make a new table from the IEEE's CSV files
    #[arg(long, value_name = "FILE", num_args = 1..)]
    update: Vec<PathBuf>,
    /// Write the new table here instead of the user's own place
    #[arg(long, value_name = "FILE", requires = "update")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &VendorsArgs, global: &Global, _style: Style) -> anyhow::Result<u8> {
    if !args.update.is_empty() {
        return update(args, global);
    }
    let (vendors, from) = table()?;
    let mut out = std::io::stdout().lock();
    if args.macs.is_empty() {
        if global.json {
            drop(out);
            print_json(&serde_json::json!({"blocks": vendors.len(), "date": vendors.date(), "file": from}))?;
            return Ok(0);
        }
        let place = from.map_or_else(|| "embedded".to_owned(), |path| path.display().to_string());
        writeln!(out, "{} blocks of addresses ({place})", vendors.len())?;
        for line in vendors.head() {
            writeln!(out, "  {line}")?;
        }
        return Ok(0);
    }
    let found: Vec<(MacAddr, Option<&str>, Option<String>)> =
        args.macs.iter().map(|mac| (*mac, vendors.name(*mac), vendor::note(*mac))).collect();
    if global.json {
        drop(out);
        let list: Vec<_> = found
            .iter()
            .map(|(mac, vendor, note)| serde_json::json!({"mac": mac, "vendor": vendor, "note": note}))
            .collect();
        print_json(&list)?;
    } else {
        for (mac, vendor, note) in &found {
            let what = note.as_deref().or(*vendor).unwrap_or("not in the listing");
            writeln!(out, "{mac}  {what}")?;
        }
    }
    Ok(0)
}

fn update(args: &VendorsArgs, global: &Global) -> anyhow::Result<u8> {
    let mut entries = BTreeMap::new();
    for file in &args.update {
        let name = file.display();
        let bytes =
            files::read_whole(file).map_err(|error| Failure::usage(format!("cannot read {name}: {error}"), None))?;
        read_ieee_csv(&String::from_utf8_lossy(&bytes), &mut entries).map_err(|error| {
            Failure::usage(format!("{name}: {error}"), Some("give the IEEE's own files: oui.csv, mam.csv, oui36.csv"))
        })?;
    }
    let names: Vec<String> =
        args.update.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect();
    let today = i64::try_from(clock::wall_ns() / 1_000_000_000).unwrap_or(i64::MAX);
    let head = [
        format!("date: {}", calendar::date_of(today)),
        format!("source: the IEEE Registration Authority's public listing ({})", names.join(", ")),
        "licence: the IEEE does not assert any copyright in the OUI Public Listing or attempt to restrict its"
            .to_owned(),
        "  distribution; it asks those who use it to obtain it from the IEEE and to update it regularly".to_owned(),
    ];
    let path = match &args.output {
        Some(path) => path.clone(),
        None => own_table().ok_or_else(|| {
            Failure::usage("there is no home to keep the table in", Some("name a file: --output FILE"))
        })?,
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        files::make_folder(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    files::write_whole(&path, Vendors::write(&entries, &head).as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    if global.json {
        print_json(&serde_json::json!({"blocks": entries.len(), "file": path}))?;
    } else {
        writeln!(std::io::stdout(), "{} blocks of addresses written to {}", entries.len(), path.display())?;
    }
    Ok(0)
}

fn own_table() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")))?;
    Some(data.join("reachwhy").join("ieee-oui.txt"))
}

/// The table in force: the user's own where there is one, else the embedded. With its file.
pub(super) fn table() -> anyhow::Result<(Vendors, Option<PathBuf>)> {
    let Some(path) = own_table().filter(|path| path.exists()) else { return Ok((Vendors::embedded(), None)) };
    Ok((load(&path)?, Some(path)))
}

fn load(path: &Path) -> anyhow::Result<Vendors> {
    let bad = |why: String| {
        Failure::usage(
            format!("{}: {why}", path.display()),
            Some("write it anew with `reachwhy arp vendors --update`, or delete it"),
        )
    };
    let bytes = files::read_whole(path).map_err(|error| bad(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| bad("it is no text".to_owned()))?;
    Vendors::parse(text).map_err(|error| bad(error.to_string()))
}
