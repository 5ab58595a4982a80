//! Text files, read whole, with what stood in the way.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::host::{NameFacts, TextFile, proxy};

/// No file that decides about names is larger; what is beyond is cut off, and `why` says so.
const LIMIT: u64 = 8 << 20;

/// Reads a text file. A missing or unreadable one is a fact too: `text` is `None` and `why` says why.
///
/// Octets that are not UTF-8 come as U+FFFD; the line structure stays.
pub fn read_text(path: &str) -> TextFile {
    let target = fs::read_link(path).ok().map(|_| {
        let resolved = fs::canonicalize(path).or_else(|_| fs::read_link(path));
        resolved.unwrap_or_default().to_string_lossy().into_owned()
    });
    let mut file = TextFile { path: path.to_owned(), target, text: None, why: None };
    match read_limited(Path::new(path)) {
        Ok((bytes, whole)) => {
            file.text = Some(String::from_utf8_lossy(&bytes).into_owned());
            file.why = (!whole).then(|| format!("only the first {} MiB were read", LIMIT >> 20));
        }
        Err(error) => file.why = Some(error.to_string()),
    }
    file
}

fn read_limited(path: &Path) -> std::io::Result<(Vec<u8>, bool)> {
    let file = File::open(path)?;
    // Opening a FIFO or a terminal in its place would wait for ever on reading.
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    let whole = bytes.len() as u64 <= LIMIT;
    bytes.truncate(usize::try_from(LIMIT).unwrap_or(usize::MAX));
    Ok((bytes, whole))
}

/// The files and variables that decide how a name resolves, as this process sees them.
pub fn name_facts() -> NameFacts {
    NameFacts {
        hosts: read_text("/etc/hosts"),
        resolv_conf: read_text("/etc/resolv.conf"),
        nsswitch: read_text("/etc/nsswitch.conf"),
        gai_conf: read_text("/etc/gai.conf"),
        environment: ["LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?.to_string_lossy().into_owned())))
            .collect(),
        proxies: proxy::VARIABLES
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), proxy::redacted(&std::env::var_os(name)?.to_string_lossy()))))
            .collect(),
    }
}

/// Case files and rulesets are text of at most this size; a larger file is not what it is said to be.
const WHOLE: u64 = 256 << 20;

/// Reads a whole file, at most 256 MiB of it.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read_whole(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    // A hint only: what is no regular file says 0.
    let size = file.metadata().map_or(0, |metadata| metadata.len()).min(WHOLE);
    let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
    file.take(WHOLE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > WHOLE {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 256 MiB"));
    }
    Ok(text)
}

/// Writes a whole file, or leaves what was there: the text goes to a new file beside it first.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_whole(path: &std::path::Path, text: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = std::path::PathBuf::from(beside);
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Makes a folder and those above it, where they are missing.
///
/// # Errors
/// When one cannot be made.
pub fn make_folder(path: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Removes the folder that this program was copied to, while it runs from there. Returns what was
/// done, in words; nothing but a folder of our own making is touched.
pub fn remove_copy(folder: &std::path::Path) -> String {
    let shown = folder.display();
    let ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("reachwhy."));
    let removed = if ours {
        std::fs::remove_file(folder.join("reachwhy")).and_then(|()| std::fs::remove_dir(folder))
    } else {
        Err(std::io::Error::other("it is no folder for a copy"))
    };
    match removed {
        Ok(()) => format!("copied reachwhy to {shown} for the time of the look; removed again"),
        Err(error) => format!("copied reachwhy to {shown}; it could not be removed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_text_from_absence() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("hosts");
        fs::write(&plain, b"127.0.0.1 a\xff\n").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("hosts", &link).unwrap();
        let read = read_text(link.to_str().unwrap());
        assert_eq!(read.text.as_deref(), Some("127.0.0.1 a\u{fffd}\n"));
        assert_eq!(read.target.as_deref(), fs::canonicalize(&plain).unwrap().to_str());
        let missing = read_text(folder.path().join("none").to_str().unwrap());
        assert_eq!((missing.text, missing.target), (None, None));
        assert!(missing.why.unwrap().contains("No such file"));
        assert!(read_text(folder.path().to_str().unwrap()).why.is_some());
    }
}
