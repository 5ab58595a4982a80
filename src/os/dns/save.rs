//! Changing a file so that nobody ever sees a part of it, with the old one kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Puts `text` in place of `old` at `path`: a new file beside it, on disk, with the owner and the rights of
/// the old one, then renamed over it. Gives the path of the copy kept.
///
/// # Errors
/// When the file is no longer what was read (nothing is written then), or the system refuses; a file that
/// is mounted on its own, as containers have it, cannot be replaced in one step and is left alone.
pub fn replace(path: &Path, old: &[u8], text: &[u8]) -> io::Result<PathBuf> {
    // A symbolic link stays one: what it leads to is replaced.
    let path = fs::canonicalize(path)?;
    if fs::read(&path)? != old {
        return Err(io::Error::other("it has changed in the meantime; nothing was written"));
    }
    let about = fs::metadata(&path)?;
    let backup = keep(&path, old, &about)?;
    let fresh = beside(&path, &format!(".{}.new", std::process::id()));
    let written = write(&fresh, text, &about).and_then(|()| fs::rename(&fresh, &path));
    if let Err(error) = written {
        let _ = fs::remove_file(&fresh);
        let _ = fs::remove_file(&backup);
        return Err(match error.raw_os_error() {
            Some(libc::EBUSY) => io::Error::other(
                "it is a mount of its own (a container's, most likely) and cannot be replaced in one step; nothing was written",
            ),
            _ => error,
        });
    }
    if let Some(folder) = path.parent() {
        // The rename itself is on disk once the folder is.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(backup)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A copy under the first free name of `hosts.bak`, `hosts.bak.1`, …: an older one is never lost.
fn keep(path: &Path, old: &[u8], about: &fs::Metadata) -> io::Result<PathBuf> {
    for number in 0..1000 {
        let suffix = if number == 0 { ".bak".to_owned() } else { format!(".bak.{number}") };
        let copy = beside(path, &suffix);
        match write(&copy, old, about) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(copy),
        }
    }
    Err(io::Error::other("there are a thousand backups beside it already"))
}

fn write(path: &Path, text: &[u8], about: &fs::Metadata) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let done = file
        .write_all(text)
        // Only root may give a file away; who is not has made it his own already.
        .and_then(|()| fchown(&file, Some(about.uid()), Some(about.gid())).or(Ok(())))
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(about.mode() & 0o7777)))
        .and_then(|()| file.sync_all());
    if done.is_err() {
        let _ = fs::remove_file(path);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_file_is_kept_and_rights_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("hosts", &link).unwrap();
        let backup = replace(&link, b"old", b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_to_string(&backup).unwrap(), "old");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(replace(&path, b"old", b"newer").unwrap_err().to_string().contains("changed"));
        let second = replace(&path, b"new", b"newer").unwrap();
        assert!(second.to_string_lossy().ends_with(".bak.1"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "nothing else is left behind");
    }
}
