//! Files that people hand to `fw`: read whole, and refused by name where they cannot be text.

use std::io::Read;
use std::path::Path;

use crate::cli::Failure;
use crate::os::files;

/// The name of standard input.
const STDIN: &str = "-";
/// No input is larger; what is beyond is not what it is said to be.
const LIMIT: u64 = 256 << 20;

/// How a file is called in messages.
pub(super) fn name(file: &Path) -> String {
    if file.as_os_str() == STDIN { "standard input".to_owned() } else { file.display().to_string() }
}

/// The whole file; `-` is standard input.
///
/// # Errors
/// Usage: it cannot be read, is a folder, or is larger than 256 MiB.
pub(super) fn whole(file: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = |why: String| Failure::usage(format!("cannot read {}: {why}", name(file)), None);
    if file.as_os_str() == STDIN {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes).map_err(|error| cannot(error.to_string()))?;
        if bytes.len() as u64 > LIMIT {
            return Err(cannot("it is larger than 256 MiB".to_owned()));
        }
        return Ok(bytes);
    }
    if file.is_dir() {
        return Err(Failure::usage(
            format!("cannot read {}: it is a directory", name(file)),
            Some("name the files in it one by one"),
        ));
    }
    files::read_whole(file).map_err(|error| cannot(error.to_string()))
}

/// The whole file as text.
///
/// Octets that are no UTF-8 (comments in an older encoding) come as U+FFFD; the second value says
/// whether there were any.
///
/// # Errors
/// Those of [`whole`], and usage where the content is no text.
pub(super) fn text(file: &Path) -> anyhow::Result<(String, bool)> {
    let bytes = whole(file)?;
    let binary = |what: &str, hint: &str| {
        Err(Failure::usage(format!("{}: this is {what}, no ruleset", name(file)), Some(hint).filter(|h| !h.is_empty())))
    };
    match bytes.get(..4).unwrap_or_default() {
        [0x1f, 0x8b, ..] => return binary("compressed by gzip", "gunzip it first"),
        [0xfd, b'7', b'z', b'X'] => return binary("compressed by xz", "unxz it first"),
        [0xd4, 0xc3, 0xb2, 0xa1] | [0xa1, 0xb2, 0xc3, 0xd4] | [0x0a, 0x0d, 0x0d, 0x0a] => {
            return binary("a capture", "a capture is what `fw sim --packets` reads");
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            return binary("UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE");
        }
        _ => (),
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let at = format!("a binary file (octet {at} is 0)");
        return binary(&at, "a ruleset is the text that iptables-save, ip6tables-save or nft print");
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((text, false)),
        Err(error) => Ok((String::from_utf8_lossy(error.as_bytes()).into_owned(), true)),
    }
}
