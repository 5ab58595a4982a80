//! Services of nsswitch.conf that live in libraries of their own (mdns4_minimal, resolve, sss, …): the C
//! library is asked about one of them alone, in a process of its own, because what `__nss_configure_lookup`
//! changes stays changed.
#![allow(unsafe_code, reason = "__nss_configure_lookup has no safe form")]

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::getaddrinfo::getaddrinfo;
use super::stop::{Stop, Waited};
use crate::dns::{Eai, Family, ModuleAnswer, RType};
use crate::host::nsswitch::Status;
use crate::os::process::{Guarded, die_with_parent};

const PATIENCE: Duration = Duration::from_secs(15);

/// Where the dynamic linker looks, for the architectures there are; `LD_LIBRARY_PATH` comes first.
fn folders() -> Vec<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let own = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&own).filter(|path| path.is_absolute()).collect();
    for root in ["/lib", "/usr/lib", "/usr/local/lib"] {
        folders.push(Path::new(root).join(&triple));
    }
    let others = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib", "/run/current-system/sw/lib"];
    folders.extend(others.map(PathBuf::from));
    folders
}

/// Whether a service's library is installed.
fn installed(service: &str) -> bool {
    // A path in the name would lead out of the folders.
    !service.contains('/') && folders().iter().any(|folder| folder.join(format!("libnss_{service}.so.2")).exists())
}

/// What the process that asks prints.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    addresses: Vec<IpAddr>,
    status: Status,
    eai: Option<String>,
}

/// Asks one service about a name, in a child.
pub(super) fn ask(service: &str, name: &str, wanted: Option<RType>, stop: &Stop) -> ModuleAnswer {
    if !installed(service) {
        return ModuleAnswer::Missing;
    }
    let family = match wanted {
        Some(RType::A) => "4",
        Some(_) => "6",
        None => "0",
    };
    let mut command = Command::new("/proc/self/exe");
    command.args(["nss-module", "--", service, family, name]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    die_with_parent(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => Guarded::new(child),
        Err(error) => return ModuleAnswer::Unknown(format!("the process that would ask it cannot be run: {error}")),
    };
    let until = Instant::now() + PATIENCE;
    loop {
        match child.child().try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() >= until => {
                return ModuleAnswer::Unknown(format!("it has not answered in {} s", PATIENCE.as_secs()));
            }
            Ok(None) => {
                if stop.wait(&[], nix::poll::PollFlags::empty(), Some(Duration::from_millis(2))) == Waited::Stopped {
                    return ModuleAnswer::Unknown("interrupted".to_owned());
                }
            }
            Err(error) => return ModuleAnswer::Unknown(error.to_string()),
        }
    }
    let mut text = String::new();
    if let Some(out) = child.child().stdout.take() {
        let _ = out.take(1 << 20).read_to_string(&mut text);
    }
    match serde_json::from_str::<Said>(&text) {
        Ok(said) if said.status == Status::Success => ModuleAnswer::Found(said.addresses),
        Ok(said) => {
            let known = [Eai::NoName, Eai::Again, Eai::NoData, Eai::System];
            let eai = known.into_iter().find(|eai| Some(eai.name()) == said.eai.as_deref());
            ModuleAnswer::Failed(said.status, eai.unwrap_or(Eai::NoName))
        }
        Err(_) => ModuleAnswer::Unknown("this C library has no modules, or the one asked has crashed".to_owned()),
    }
}

/// What the child does: asks, and gives the line to print; `None` where the C library has no nsswitch.
///
/// The status is told by what glibc does next: a service that is not there follows, which ends in
/// `EAI_SYSTEM`, unless an action ends the lookup first.
pub fn answer(service: &str, family: Family, name: &str) -> Option<String> {
    let ask = |line: String, family| configure(&line).then(|| getaddrinfo(name, family));
    if let Ok(addresses) = ask(service.to_owned(), family)? {
        return serde_json::to_string(&Said { addresses, status: Status::Success, eai: None }).ok();
    }
    // The older functions, which serve AF_INET alone, pass over what is not there: the status is asked for both.
    let both = Family::Any;
    let absent = "reachwhy_absent";
    let said = match ask(format!("{service} [NOTFOUND=return] {absent}"), both)? {
        Ok(_) => failed(Status::NotFound, libc::EAI_NONAME),
        Err(eai) if eai != libc::EAI_SYSTEM => failed(Status::NotFound, eai),
        Err(_) => {
            let again = ask(format!("{service} [TRYAGAIN=return] {absent}"), both)?.err();
            let status = if again == Some(libc::EAI_AGAIN) { Status::TryAgain } else { Status::Unavail };
            failed(status, ask(service.to_owned(), both)?.err().unwrap_or(libc::EAI_NONAME))
        }
    };
    serde_json::to_string(&said).ok()
}

fn failed(status: Status, eai: i32) -> Said {
    let eai = match eai {
        libc::EAI_AGAIN => Eai::Again,
        libc::EAI_NODATA => Eai::NoData,
        libc::EAI_SYSTEM => Eai::System,
        _ => Eai::NoName,
    };
    Said { addresses: Vec::new(), status, eai: Some(eai.name().to_owned()) }
}

#[cfg(target_env = "gnu")]
fn configure(line: &str) -> bool {
    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const libc::c_char, line: *const libc::c_char) -> libc::c_int;
    }
    let Ok(line) = std::ffi::CString::new(line) else { return false };
    // SAFETY: both are NUL-terminated strings that outlive the call, which copies what it keeps; no other
    // thread of this process resolves names.
    unsafe { __nss_configure_lookup(c"hosts".as_ptr(), line.as_ptr()) == 0 }
}

#[cfg(not(target_env = "gnu"))]
fn configure(_line: &str) -> bool {
    false
}
