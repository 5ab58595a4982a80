//! Which process holds a socket: `/proc/PID/fd/*` → `socket:[INODE]`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::{SocketFact, SocketOwner};

/// What the search could not see.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Processes whose descriptors this one may not list.
    pub(super) processes: usize,
    /// Sockets with an inode for which no owner was found.
    pub(super) orphans: usize,
}

/// Fills in [`SocketFact::owners`].
///
/// # Errors
/// When `/proc` cannot be listed at all.
pub(super) fn find(sockets: &mut [SocketFact]) -> io::Result<Hidden> {
    let mut hidden = Hidden::default();
    let mut wanted: HashMap<u64, Vec<usize>> = HashMap::new();
    for (position, socket) in sockets.iter().enumerate() {
        if socket.inode != 0 {
            wanted.entry(socket.inode).or_default().push(position);
        }
    }
    if wanted.is_empty() {
        return Ok(hidden);
    }
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        match inodes_of(&entry.path()) {
            Ok((inodes, open)) => {
                let mut held: Vec<usize> =
                    inodes.iter().filter_map(|inode| wanted.get(inode)).flatten().copied().collect();
                held.sort_unstable();
                held.dedup();
                if held.is_empty() {
                    continue;
                }
                let Some(owner) = owner(pid, &entry.path(), open) else { continue };
                for position in held {
                    sockets[position].owners.push(owner.clone());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden.processes += 1,
            // It ended while we looked.
            Err(_) => {}
        }
    }
    for socket in sockets.iter_mut() {
        socket.owners.sort_by_key(|owner| owner.pid);
        hidden.orphans += usize::from(socket.inode != 0 && socket.owners.is_empty());
    }
    Ok(hidden)
}

/// The socket inodes a process holds, and how many descriptors it has open in all.
fn inodes_of(process: &Path) -> io::Result<(Vec<u64>, u64)> {
    let mut inodes = Vec::new();
    let mut open = 0;
    for entry in fs::read_dir(process.join("fd"))? {
        let Ok(entry) = entry else { continue };
        open += 1;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        inodes.extend(socket_inode(&target));
    }
    Ok((inodes, open))
}

fn socket_inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn owner(pid: u32, process: &Path, open: u64) -> Option<SocketOwner> {
    let read = |file: &str| -> Option<String> {
        let path: PathBuf = process.join(file);
        fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let name = read("comm")?.trim_end_matches('\n').to_owned();
    let state = read("stat").and_then(|stat| state_letter(&stat)).unwrap_or('?');
    let limit = read("limits").and_then(|limits| descriptor_limit(&limits));
    Some(SocketOwner { pid, name, state, fds: limit.map(|limit| (open, limit)) })
}

/// The third field of proc_pid_stat(5); the second is a name in parentheses that may hold anything.
fn state_letter(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The soft limit of `Max open files`; `unlimited` counts as the largest number.
fn descriptor_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says() {
        assert_eq!(socket_inode(Path::new("socket:[4711]")), Some(4711));
        assert_eq!(socket_inode(Path::new("pipe:[4711]")), None);
        assert_eq!(state_letter("12 (a) R (b) T 1 2 3"), Some('T'));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(descriptor_limit(limits), Some(1024));
    }
}
