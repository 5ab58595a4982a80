//! `--push`: reachwhy copies itself to a temporary place at the far side, and is gone from there as
//! soon as it runs. What is left half-way, by whatever crash, a watchdog at the far side removes.

use std::time::Duration;

use crate::os::files;
use crate::os::peer::{Peer, Silence};

/// How long the copy may take to travel.
const TRAVEL: Duration = Duration::from_secs(300);
/// How long the far side may take to answer.
const REPLY: Duration = Duration::from_secs(30);

/// What a program file needs to run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Needs {
    /// As `uname -m` has it; `None` for a machine that is not known.
    machine: Option<&'static str>,
    /// The dynamic loader; `None` for a static program.
    loader: Option<String>,
    /// The newest version of the GNU C library that it names.
    glibc: Option<(u32, u32)>,
}

/// Copies this program through the shell that `peer` speaks with, and has it run there in the shell's
/// place, as an agent.
///
/// # Errors
/// Why it cannot be, in words.
pub(super) fn push(peer: &mut Peer) -> Result<(), String> {
    let program = files::read_whole(std::path::Path::new("/proc/self/exe"))
        .map_err(|error| format!("this program's own file cannot be read: {error}"))?;
    let needs = needs(&program).ok_or("this program's own file is no 64-bit ELF file")?;
    let loader = needs.loader.clone().unwrap_or_else(|| "/".to_owned());
    say(
        peer,
        &format!(
            "echo \"push-host $(uname -s) $(uname -m)\"; if [ -e '{loader}' ]; then echo push-loader yes; else echo push-loader no; fi; \
         echo \"push-libc $(getconf GNU_LIBC_VERSION 2>/dev/null)\""
        ),
    )?;
    let host = answer(peer, "push-host ", REPLY)?;
    let has_loader = answer(peer, "push-loader ", REPLY)? == "yes";
    let libc = answer(peer, "push-libc", REPLY)?;
    fits(&needs, &host, has_loader, &libc)?;
    say(peer, &script(program.len()))?;
    let folder = answer(peer, "push-ready ", REPLY)?;
    // The write fails where the far side has given up; then it has said why.
    let sent = peer.pour(&program);
    match answer(peer, "push-done", TRAVEL) {
        Ok(_) => Ok(()),
        Err(why) => Err(match sent {
            Ok(()) => why,
            Err(error) => format!("{why} ({error}, to {folder})"),
        }),
    }
}

/// What the far side's shell is told. It is one command, so that it is read as a whole before the
/// program comes over the same pipe.
fn script(size: usize) -> String {
    format!(
        "{{ t=; for d in \"${{TMPDIR:-/tmp}}\" /var/tmp /dev/shm \"$HOME\"; do \
         t=$(mktemp -d \"$d/reachwhy.XXXXXXXX\" 2>/dev/null) || {{ t=; continue; }}; \
         printf '#!/bin/sh\\n' > \"$t/x\" && chmod 700 \"$t/x\" && \"$t/x\" && rm \"$t/x\" && break; \
         rm -rf \"$t\"; t=; done; \
         if [ -z \"$t\" ]; then echo 'push-failed there is no folder where a program may be put and run'; exit 1; fi; \
         trap 'rm -rf \"$t\"' EXIT; trap 'exit 1' HUP INT TERM; trap '' PIPE; \
         ( trap '' HUP INT; n=0; while [ -d \"$t\" ] && [ $n -lt 330 ] && kill -0 $$ 2>/dev/null; do sleep 1; n=$((n+1)); done; rm -rf \"$t\" ) \
         </dev/null >/dev/null 2>&1 & \
         echo \"push-ready $t\"; head -c {size} > \"$t/reachwhy\"; n=$(wc -c < \"$t/reachwhy\"); \
         if [ \"$n\" -ne {size} ]; then rm -rf \"$t\"; echo \"push-failed only $n of {size} octets could be put into $t\"; exit 1; fi; \
         chmod 700 \"$t/reachwhy\"; \
         if ! v=$(\"$t/reachwhy\" --version 2>&1 </dev/null); then rm -rf \"$t\"; echo \"push-failed it does not run there: $(echo $v)\"; exit 1; fi; \
         echo push-done; exec \"$t/reachwhy\" agent --pushed \"$t\"; }}"
    )
}

fn say(peer: &mut Peer, line: &str) -> Result<(), String> {
    peer.say(line.as_bytes()).map_err(|error| format!("the shell there has ended: {error}"))
}

/// The rest of the line that begins with `word`; a failure that the far side tells ends the wait.
fn answer(peer: &mut Peer, word: &str, patience: Duration) -> Result<String, String> {
    loop {
        match peer.hear(patience) {
            Ok(line) => {
                if let Some(why) = line.strip_prefix("push-failed ") {
                    return Err(why.to_owned());
                }
                if let Some(rest) = line.strip_prefix(word) {
                    return Ok(rest.trim().to_owned());
                }
            }
            Err(Silence::Late) => return Err("the shell there does not answer".to_owned()),
            Err(Silence::Ended) => return Err("the shell there has ended".to_owned()),
        }
    }
}

/// Whether the program can run there.
fn fits(needs: &Needs, host: &str, has_loader: bool, libc: &str) -> Result<(), String> {
    let (system, machine) = host.split_once(' ').unwrap_or((host, ""));
    if system != "Linux" {
        return Err(format!("the host runs {system}, reachwhy runs on Linux"));
    }
    if needs.machine.is_none_or(|own| own != machine) {
        let own = needs.machine.unwrap_or("another processor");
        return Err(format!("the host is a {machine}, this program is for {own}: install reachwhy there"));
    }
    let Some(loader) = &needs.loader else { return Ok(()) };
    let theirs = libc.trim().strip_prefix("glibc ").and_then(version);
    let own = needs.glibc.map(|(major, minor)| format!("{major}.{minor}")).unwrap_or_default();
    if !has_loader {
        return Err(format!(
            "the host has no {loader} (another C library?), which this program needs: build it static (target {machine}-unknown-linux-musl), or install reachwhy there"
        ));
    }
    match (needs.glibc, theirs) {
        (Some(need), Some(have)) if have < need => Err(format!(
            "the host's GNU C library is {}.{}, this program needs {own}: build it static (target {machine}-unknown-linux-musl), or install reachwhy there",
            have.0, have.1
        )),
        _ => Ok(()),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// Reads what a 64-bit little-endian ELF file needs (`man 5 elf`).
fn needs(file: &[u8]) -> Option<Needs> {
    let half = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| {
        let octets = file.get(at..at.checked_add(8)?)?;
        usize::try_from(u64::from_le_bytes(octets.try_into().ok()?)).ok()
    };
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let machine = match half(18)? {
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        243 => Some("riscv64"),
        21 => Some("ppc64le"),
        _ => None,
    };
    let (table, size, count) = (long(32)?, usize::from(half(54)?), usize::from(half(56)?));
    // (type, offset, address, octets in the file)
    let segments: Vec<(u32, usize, usize, usize)> = (0..count)
        .filter_map(|n| {
            let at = table.checked_add(n.checked_mul(size)?)?;
            let kind = u32::from_le_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?);
            Some((kind, long(at + 8)?, long(at + 16)?, long(at + 32)?))
        })
        .collect();
    let part = |offset: usize, octets: usize| file.get(offset..offset.checked_add(octets)?);
    let loader = segments.iter().find(|segment| segment.0 == 3).and_then(|segment| {
        let text = part(segment.1, segment.3)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    });
    let names = segments.iter().find(|segment| segment.0 == 2).and_then(|segment| {
        let (mut address, mut octets) = (None, None);
        for entry in part(segment.1, segment.3)?.chunks_exact(16) {
            let tag = u64::from_le_bytes(entry[..8].try_into().ok()?);
            let value = usize::try_from(u64::from_le_bytes(entry[8..].try_into().ok()?)).ok()?;
            match tag {
                5 => address = Some(value),
                10 => octets = Some(value),
                _ => {}
            }
        }
        let (address, octets) = (address?, octets?);
        let load = segments
            .iter()
            .find(|(kind, _, start, size)| *kind == 1 && address >= *start && address - start < *size)?;
        part(load.1.checked_add(address - load.2)?, octets)
    });
    let glibc = names.and_then(|names| {
        names
            .split(|octet| *octet == 0)
            .filter_map(|name| version(std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?))
            .max()
    });
    // A loader without its quotes is put into a shell's line.
    let loader = loader.filter(|loader| loader.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)));
    Some(Needs { machine, loader, glibc })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_read_as_what_it_is() {
        let needs = needs(&std::fs::read("/proc/self/exe").unwrap()).unwrap();
        assert_eq!(needs.machine, Some(std::env::consts::ARCH));
        if cfg!(target_env = "gnu") && !cfg!(target_feature = "crt-static") {
            assert!(needs.loader.unwrap().contains("ld-linux"));
            assert!(needs.glibc.unwrap() >= (2, 2));
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let needs = Needs { machine: Some("x86_64"), loader: Some("/lib64/ld.so".to_owned()), glibc: Some((2, 34)) };
        assert_eq!(fits(&needs, "Linux x86_64", true, "glibc 2.36"), Ok(()));
        assert_eq!(fits(&needs, "Linux x86_64", true, ""), Ok(()));
        assert!(fits(&needs, "Linux x86_64", true, "glibc 2.31").unwrap_err().contains("needs 2.34"));
        assert!(fits(&needs, "Linux x86_64", false, "").unwrap_err().contains("static"));
        assert!(fits(&needs, "Linux aarch64", true, "").unwrap_err().contains("aarch64"));
        assert!(fits(&needs, "FreeBSD amd64", true, "").unwrap_err().contains("FreeBSD"));
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(mut file: Vec<u8>) {
            let _ = needs(&file);
            let mut elf = b"\x7fELF\x02\x01".to_vec();
            elf.append(&mut file);
            let _ = needs(&elf);
        }
    }
}
