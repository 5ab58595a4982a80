//! Services of nsswitch.conf that live in libraries of their own: `getent -s` asks one of them alone.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::stop::{Stop, Waited};
use crate::dns::{ModuleAnswer, RType};
use crate::os::process::{Guarded, die_with_parent};

const PATIENCE: Duration = Duration::from_secs(15);

/// Libraries of glibc's own without a function for hosts.
const WITHOUT_HOSTS: [&str; 3] = ["compat", "db", "hesiod"];

/// Where the dynamic linker looks, for the architectures there are; `LD_LIBRARY_PATH` comes first.
fn folders() -> Vec<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let own = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&own).filter(|path| path.is_absolute()).collect();
    for root in ["/lib", "/usr/lib", "/usr/local/lib"] {
        folders.push(Path::new(root).join(&triple));
    }
    folders.extend(
        ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib", "/run/current-system/sw/lib"].map(PathBuf::from),
    );
    folders
}

/// Whether a service's library is installed.
pub(super) fn installed(service: &str) -> bool {
    // A path in the name would lead out of the folders.
    !service.contains('/') && folders().iter().any(|folder| folder.join(format!("libnss_{service}.so.2")).exists())
}

/// Asks one service about a name.
pub(super) fn ask(service: &str, name: &str, wanted: Option<RType>, stop: &Stop) -> ModuleAnswer {
    if !installed(service) {
        return ModuleAnswer::Missing;
    }
    if WITHOUT_HOSTS.contains(&service) {
        return ModuleAnswer::NoHosts;
    }
    let database = match wanted {
        Some(RType::A) => "ahostsv4",
        Some(_) => "ahostsv6",
        None => "ahosts",
    };
    let mut command = Command::new("getent");
    command.args(["-s", &format!("hosts:{service}"), database, "--", name]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    die_with_parent(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => Guarded::new(child),
        Err(error) => return ModuleAnswer::Unknown(format!("getent, which would ask it, cannot be run: {error}")),
    };
    let until = Instant::now() + PATIENCE;
    let code = loop {
        match child.child().try_wait() {
            Ok(Some(status)) => break status.code(),
            Ok(None) if Instant::now() >= until => return ModuleAnswer::TryAgain,
            Ok(None) => {
                if stop.wait(&[], nix::poll::PollFlags::empty(), Some(Duration::from_millis(2))) == Waited::Stopped {
                    return ModuleAnswer::Unknown("interrupted".to_owned());
                }
            }
            Err(error) => return ModuleAnswer::Unknown(error.to_string()),
        }
    };
    let mut text = String::new();
    if let Some(out) = child.child().stdout.take() {
        let _ = out.take(1 << 20).read_to_string(&mut text);
    }
    let mut found = Vec::new();
    for line in text.lines() {
        let address = line.split(' ').next().and_then(|word| word.split('%').next()?.parse().ok());
        if let Some(address) = address.filter(|address| !found.contains(address)) {
            found.push(address);
        }
    }
    match code {
        Some(0) if !found.is_empty() => ModuleAnswer::Found(found),
        Some(0 | 2) => ModuleAnswer::NotFound,
        other => ModuleAnswer::Unknown(format!("getent ended with {other:?}")),
    }
}
