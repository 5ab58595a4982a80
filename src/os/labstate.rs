//! Which labs are up: a file each, in a directory that is the user's alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::process::start_time;

/// A process for ever: its number may be used again, but not with the same start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since boot.
    pub start: u64,
}

impl ProcessId {
    /// The running process of this number.
    pub fn of(pid: u32) -> Option<Self> {
        start_time(pid).map(|start| Self { pid, start })
    }

    /// Whether it still runs.
    pub fn runs(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// A lab that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabState {
    /// What it is called.
    pub name: String,
    /// The process to end for the lab to end.
    pub holder: ProcessId,
    /// The process whose namespaces are the lab's; none until it is built.
    pub stage: Option<ProcessId>,
    /// Its hosts.
    pub hosts: Vec<String>,
}

/// The directory for the state of this user's labs: `$XDG_RUNTIME_DIR/reachwhy` as given, or
/// `/tmp/reachwhy-UID`.
///
/// # Errors
/// When it is not a directory of ours that nobody else may enter: someone else may have put it there.
pub fn directory(runtime: Option<&Path>) -> io::Result<PathBuf> {
    let path = match runtime.filter(|path| path.is_dir()) {
        Some(runtime) => runtime.join("reachwhy"),
        None => PathBuf::from(format!("/tmp/reachwhy-{}", geteuid())),
    };
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let seen = fs::symlink_metadata(&path)?;
    if !seen.is_dir() || seen.uid() != geteuid().as_raw() || seen.mode() & 0o077 != 0 {
        let why = format!("{} must be a directory of yours with mode 0700", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(path)
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.json"))
}

/// Where the lab's last words go.
pub fn log(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}

/// Takes the name for `state`; `Ok(false)` when a running lab has it.
pub fn claim(directory: &Path, state: &LabState) -> io::Result<bool> {
    let path = file(directory, &state.name);
    for _ in 0..2 {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut new) => {
                new.write_all(&serde_json::to_vec_pretty(state)?)?;
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if read(&path).is_some_and(|there| there.holder.runs()) {
                    return Ok(false);
                }
                fs::remove_file(&path)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Writes `state` over what is there, at once or not at all.
pub fn update(directory: &Path, state: &LabState) -> io::Result<()> {
    let path = file(directory, &state.name);
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(state)?)?;
    fs::rename(new, path)
}

/// Forgets a lab.
pub fn forget(directory: &Path, name: &str) {
    // It may be forgotten already: the one who ends it and the one who ordered that both do it.
    let _ = fs::remove_file(file(directory, name));
    let _ = fs::remove_file(log(directory, name));
}

fn read(path: &Path) -> Option<LabState> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The labs that are up, by name; those whose process is gone are forgotten.
pub fn all(directory: &Path) -> io::Result<Vec<LabState>> {
    let mut labs = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&entry.path()) {
            Some(state) if state.holder.runs() => labs.push(state),
            Some(state) => forget(directory, &state.name),
            None => {}
        }
    }
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_free_again_when_its_process_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let directory = directory(Some(home.path())).unwrap();
        let me = ProcessId::of(std::process::id()).unwrap();
        let state = LabState { name: "lan".to_owned(), holder: me, stage: None, hosts: vec![] };
        assert!(claim(&directory, &state).unwrap());
        assert!(!claim(&directory, &state).unwrap());
        assert_eq!(all(&directory).unwrap(), std::slice::from_ref(&state));
        let gone = LabState { holder: ProcessId { start: me.start + 1, ..me }, ..state.clone() };
        update(&directory, &gone).unwrap();
        assert!(claim(&directory, &state).unwrap());
        forget(&directory, "lan");
        assert!(all(&directory).unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let home = tempfile::tempdir().unwrap();
        DirBuilder::new().mode(0o755).create(home.path().join("reachwhy")).unwrap();
        assert!(directory(Some(home.path())).is_err());
    }
}
