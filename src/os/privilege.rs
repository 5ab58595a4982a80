//! What this process may do, and the command that would allow the rest.

use std::fs;
use std::path::Path;

use nix::unistd::{getegid, geteuid, getgroups};

use crate::host::Privileges;

/// `include/uapi/linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;

/// The calling thread's privileges, now.
///
/// A capability held inside a user namespace counts: it holds for the network namespaces which that
/// user namespace owns.
pub fn privileges() -> Privileges {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = effective_capabilities(&status).unwrap_or(0);
    let has = |capability: u32| effective >> capability & 1 == 1;
    let (net_raw, net_admin) = (has(CAP_NET_RAW), has(CAP_NET_ADMIN));
    // A program that runs from a file that is gone (a copy for one look) can be granted nothing.
    let program = std::env::current_exe().ok().filter(|program| program.exists());
    Privileges {
        euid: geteuid().as_raw(),
        net_raw,
        net_admin,
        sys_admin: has(CAP_SYS_ADMIN),
        sys_ptrace: has(CAP_SYS_PTRACE),
        ping_socket: ping_socket(),
        grant: program.as_deref().and_then(|program| grant(net_raw, net_admin, program)),
    }
}

/// The `CapEff` line of proc_pid_status(5).
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// icmp(7): the effective group or one of the supplementary ones is within the range.
fn ping_socket() -> bool {
    let Ok(range) = fs::read_to_string("/proc/sys/net/ipv4/ping_group_range") else { return false };
    let mut groups: Vec<u32> = vec![getegid().as_raw()];
    groups.extend(getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
    within(&range, &groups)
}

fn within(range: &str, groups: &[u32]) -> bool {
    let mut ends = range.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else { return false };
    groups.iter().any(|group| (first..=last).contains(group))
}

/// The command that gives the program file what it lacks; `None` when nothing is lacking.
///
/// `setcap` replaces a file's whole set, so both are named though only one may be missing: the other
/// may stem from the file as well.
fn grant(net_raw: bool, net_admin: bool, program: &Path) -> Option<String> {
    let lacking = !(net_raw && net_admin);
    lacking.then(|| format!("sudo setcap cap_net_raw,cap_net_admin+ep {}", quoted(&program.to_string_lossy())))
}

/// A word for sh(1), quoted where it must be.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_capabilities_and_ranges() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t0000000000003000\n"), Some(0x3000));
        assert_eq!(effective_capabilities(""), None);
        assert!(within("0\t2147483647\n", &[1000]));
        assert!(!within("1\t0\n", &[0, 1]), "the kernel's default: nobody");
        assert!(!within("", &[0]));
    }

    #[test]
    fn names_the_exact_command() {
        assert_eq!(grant(true, true, Path::new("/x")), None);
        assert_eq!(
            grant(false, false, Path::new("/home/a b/reachwhy")).as_deref(),
            Some("sudo setcap cap_net_raw,cap_net_admin+ep '/home/a b/reachwhy'")
        );
    }
}
