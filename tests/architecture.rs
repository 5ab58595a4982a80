//! The house rules, as a test: which room may know which, where I/O may stand, how long a file may grow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code (without blank lines, comments and test modules) that a file may have.
const FILE_LIMIT: usize = 600;

/// For each room, the rooms it may use. `os` under `doctor` is for `vantage` alone, see below.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("host", &["wire"]),
    ("firewall", &["wire", "host"]),
    ("probe", &["wire", "host"]),
    ("trace", &["probe", "host", "wire"]),
    ("arp", &["probe", "host", "wire"]),
    ("port", &["probe", "host", "wire"]),
    ("dns", &["probe", "host", "wire"]),
    ("tcp", &["probe", "host", "wire"]),
    ("doctor", &["trace", "arp", "port", "dns", "tcp", "firewall", "probe", "host", "wire"]),
    ("lab", &["os", "firewall", "host", "wire", "probe"]),
    ("os", &["trace", "arp", "port", "dns", "tcp", "probe", "host", "wire", "firewall"]),
    ("view", &["doctor", "lab", "trace", "arp", "port", "dns", "tcp", "firewall", "probe", "host", "wire"]),
    (
        "cli",
        &["view", "doctor", "lab", "trace", "arp", "port", "dns", "tcp", "firewall", "probe", "host", "wire", "os"],
    ),
];

/// What touches the world, and so may stand in `os` alone (and, for the terminal and the
/// environment of the program itself, in `cli` and `lab`).
const IO: &[&str] = &[
    "std::fs::",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::process::Command",
    "Instant::now",
    "SystemTime::now",
    "libc::",
    "nix::",
    "socket2::",
    "std::env::",
];

struct Source {
    path: PathBuf,
    room: String,
    code: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let room = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
                let code = code_of(&fs::read_to_string(&path).unwrap());
                found.push(Source { path: inside.to_path_buf(), room, code });
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// Numbered lines of code: no comments, no blank lines, no test modules.
fn code_of(text: &str) -> Vec<(usize, String)> {
    let all: Vec<&str> = text.lines().collect();
    let mut lines = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let opens = |at: usize| all.get(at).is_some_and(|line| line.contains("mod ") && line.ends_with('{'));
        if all[at] == "#[cfg(test)]" && (opens(at + 1) || opens(at + 2)) {
            // A module at the margin ends with a brace at the margin.
            at += all[at..].iter().position(|line| *line == "}").unwrap_or(all.len());
        }
        let line = all.get(at).map_or("", |line| line.trim());
        if !line.is_empty() && !line.starts_with("//") {
            lines.push((at + 1, line.to_owned()));
        }
        at += 1;
    }
    lines
}

fn is_test_file(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
        || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test_file(&source.path)) {
        let Some((_, allowed)) = ARROWS.iter().find(|(room, _)| *room == source.room) else {
            assert!(matches!(source.room.as_str(), "lib" | "main"), "{} is in no known room", source.path.display());
            continue;
        };
        let vantage = source.path.starts_with("doctor/vantage");
        for (line, text) in &source.code {
            for (room, _) in ARROWS {
                let named = text.contains(&format!("crate::{room}::")) || text.contains(&format!("crate::{room};"));
                let fine = *room == source.room || allowed.contains(room) || (vantage && *room == "os");
                if named && !fine {
                    wrong.push(format!(
                        "src/{}:{line}: {} must not use {room}: {text}",
                        source.path.display(),
                        source.room
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden arrows:\n{}", wrong.join("\n"));
}

#[test]
fn io_stands_in_os_alone() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test_file(&source.path)) {
        if matches!(source.room.as_str(), "os" | "lab" | "cli" | "main") {
            continue;
        }
        for (line, text) in &source.code {
            for io in IO.iter().filter(|io| text.contains(**io)) {
                wrong.push(format!("src/{}:{line}: {io} outside os: {text}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "I/O in a pure room:\n{}", wrong.join("\n"));
}

#[test]
fn nobody_prints_but_the_command_line() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.room != "cli") {
        for (line, text) in &source.code {
            if ["println!", "eprintln!", "print!(", "eprint!(", "dbg!("].iter().any(|print| text.contains(print)) {
                wrong.push(format!("src/{}:{line}: {text}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "prints outside cli:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_os_alone() {
    for source in sources().iter().filter(|source| source.room != "os") {
        for (line, text) in &source.code {
            let word = text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            assert!(!word, "src/{}:{line}: unsafe outside os: {text}", source.path.display());
        }
    }
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.code.len() > FILE_LIMIT)
        .map(|source| format!("src/{}: {} lines of code", source.path.display(), source.code.len()))
        .collect();
    assert!(long.is_empty(), "longer than {FILE_LIMIT} lines of code; split by noun:\n{}", long.join("\n"));
}
