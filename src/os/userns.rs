//! A private corner of the machine: mount and network namespaces of our own, and a user namespace
//! where we are not privileged enough without (user_namespaces(7)).

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getegid, geteuid};

/// Where the machine's own `/etc` is still found inside.
const ETC: &str = "/run/reachwhy/etc";
/// Files of `/etc` that every host has a version of its own of, so they are real files inside.
const OWN_FILES: [&str; 3] = ["hosts", "resolv.conf", "nsswitch.conf"];

/// How the privilege was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// The caller had it already.
    Own,
    /// By a user namespace in which the caller is root.
    UserNamespace,
}

/// Why no private corner could be made.
#[derive(Debug, thiserror::Error)]
pub enum IsolateError {
    /// The machine does not let this user make namespaces.
    #[error("this machine does not let {who} make namespaces: {why}")]
    Forbidden {
        /// The user.
        who: String,
        /// Which setting it is, as far as it can be told.
        why: String,
        /// The command that allows it, to be run as the machine's administrator.
        allow: String,
    },
    /// A process with several threads cannot enter a user namespace (unshare(2)).
    #[error("a user namespace can only be made by a process with a single thread")]
    Threads,
    /// A step failed that should not.
    #[error("cannot {step}: {source}")]
    Step {
        /// The step.
        step: String,
        /// What the system said.
        source: io::Error,
    },
}

impl IsolateError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Forbidden { allow, .. } => Some(allow),
            _ => None,
        }
    }
}

fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> IsolateError {
    let step = step.into();
    move |source| IsolateError::Step { step, source: source.into() }
}

/// Moves the calling thread into new mount and network namespaces, with `processes` also its future
/// children into a PID namespace, and a user namespace where that is needed. Its `/run` and `/etc` are
/// from then on private: nothing done there is seen outside.
///
/// # Errors
/// [`IsolateError::Forbidden`] where the machine's settings bar it.
pub fn isolate(processes: bool) -> Result<Privilege, IsolateError> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    if processes {
        flags |= CloneFlags::CLONE_NEWPID;
    }
    let (uid, gid) = (geteuid(), getegid());
    let own = if uid.is_root() { unshare(flags) } else { Err(Errno::EPERM) };
    let privilege = if own.is_ok() {
        Privilege::Own
    } else {
        // A binary with file capabilities is not "dumpable", and then its /proc/self belongs to root.
        let _ = prctl::set_dumpable(true);
        unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(|errno| refused(errno, uid))?;
        map_to_root(uid, gid)?;
        Privilege::UserNamespace
    };
    private_files().map_err(|error| disarmed(error, uid))?;
    Ok(privilege)
}

fn map_to_root(uid: Uid, gid: Gid) -> Result<(), IsolateError> {
    // Needed before gid_map may be written without privilege (user_namespaces(7)); absent before Linux 3.19.
    match fs::write("/proc/self/setgroups", "deny") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(disarmed(step("deny setgroups")(error), uid));
        }
        _ => {}
    }
    let maps = [("uid_map", uid.as_raw()), ("gid_map", gid.as_raw())];
    for (map, id) in maps {
        fs::write(format!("/proc/self/{map}"), format!("0 {id} 1"))
            .map_err(|error| disarmed(step(format!("write {map} of the user namespace"))(error), uid))?;
    }
    Ok(())
}

/// Ubuntu's AppArmor lets the namespace be made and then takes its rights away: a later step fails.
fn disarmed(error: IsolateError, uid: Uid) -> IsolateError {
    let denied = matches!(
        &error,
        IsolateError::Step { source, .. } if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES))
    );
    let barred = denied && setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1);
    if barred { refused(Errno::EPERM, uid) } else { error }
}

fn setting(path: &str) -> Option<i64> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().parse().ok()
}

/// Says which of the machine's settings it was.
fn refused(errno: Errno, uid: Uid) -> IsolateError {
    if errno == Errno::EINVAL && thread_count() > 1 {
        return IsolateError::Threads;
    }
    explain_refusal(errno, uid.as_raw(), setting)
}

fn thread_count() -> usize {
    fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

fn explain_refusal(errno: Errno, uid: u32, setting: impl Fn(&str) -> Option<i64>) -> IsolateError {
    let who = if uid == 0 { "root".to_owned() } else { format!("user {uid}") };
    let says = |why: &str, allow: &str| IsolateError::Forbidden {
        who: who.clone(),
        why: why.to_owned(),
        allow: allow.to_owned(),
    };
    if setting("user/max_user_namespaces") == Some(0) {
        return says("user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=10000");
    }
    if setting("kernel/unprivileged_userns_clone") == Some(0) {
        return says("kernel.unprivileged_userns_clone is 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1");
    }
    if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return says(
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        );
    }
    match errno {
        Errno::ENOSPC => says(
            "a limit of user.max_{user,net,mnt,pid}_namespaces is used up",
            "sudo sysctl -w user.max_user_namespaces=10000 user.max_net_namespaces=10000",
        ),
        Errno::EINVAL | Errno::ENOSYS => says(
            "its kernel is built without them (CONFIG_USER_NS)",
            "run it as root, or on a kernel with CONFIG_USER_NS=y",
        ),
        Errno::EPERM => says(
            "refused (EPERM) though no sysctl bars it: a container's seccomp profile, a chroot or a security module",
            "in a container: docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined \
             --security-opt apparmor=unconfined …",
        ),
        other => says(&format!("{} ({other:?})", other.desc()), "run it as root"),
    }
}

/// Makes every mount private, and `/run` and `/etc` our own.
fn private_files() -> Result<(), IsolateError> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(step("make the mounts private"))?;
    tmpfs(Path::new("/run"))?;
    let kept = Path::new(ETC);
    fs::create_dir_all(kept).map_err(step("make a directory in the private /run"))?;
    for name in ["netns", "lock"] {
        fs::create_dir_all(Path::new("/run").join(name)).map_err(step("make a directory in the private /run"))?;
    }
    mount(Some("/etc"), kept, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .map_err(step("keep the machine's /etc"))?;
    tmpfs(Path::new("/etc"))?;
    let entries = fs::read_dir(kept).map_err(step("read the machine's /etc"))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == "netns" || OWN_FILES.iter().any(|own| name == *own) {
            continue;
        }
        // A link is taken over as it reads: one that leads elsewhere relatively must still lead there.
        let target = fs::read_link(entry.path()).unwrap_or_else(|_| kept.join(&name));
        symlink(target, Path::new("/etc").join(&name)).map_err(step("fill the private /etc"))?;
    }
    let put =
        |name: &str, text: &str| fs::write(Path::new("/etc").join(name), text).map_err(step("fill the private /etc"));
    put("hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    put("resolv.conf", "# no resolver here\n")?;
    put("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")?;
    fs::create_dir("/etc/netns").map_err(step("make /etc/netns"))
}

fn tmpfs(over: &Path) -> Result<(), IsolateError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("reachwhy"), over, Some("tmpfs"), flags, Some("mode=755,size=64m"))
        .map_err(step(format!("mount a private {}", over.display())))
}

/// Shows the processes of the PID namespace we were born in as the first.
///
/// # Errors
/// EPERM where the machine's `/proc` is partly covered, as in many containers: the kernel then lets no
/// new one be mounted (mount_namespaces(7)). The lab does without the PID namespace there.
pub fn own_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).map_err(io::Error::from)
}

/// Moves this process into the namespaces of process `pid` (its children's, for processes), as its owner.
///
/// # Errors
/// EPERM where the namespaces are another user's; ENOENT where there is no such process.
pub fn join(pid: u32) -> io::Result<()> {
    let here = std::env::current_dir().ok();
    // Opened before the first is entered: after that, /proc may be another.
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("pid_for_children", CloneFlags::CLONE_NEWPID),
    ];
    let mut doors = Vec::new();
    for (name, kind) in kinds {
        let door = fs::File::open(format!("/proc/{pid}/ns/{name}"))?;
        let there = std::os::unix::fs::MetadataExt::ino(&door.metadata()?);
        let own = std::os::unix::fs::MetadataExt::ino(&fs::metadata(format!("/proc/self/ns/{name}"))?);
        // Entering one's own user namespace is refused (setns(2)).
        if there != own {
            doors.push((door, kind));
        }
    }
    for (door, kind) in doors {
        setns(door, kind)?;
    }
    // Entering a mount namespace leads to its root.
    here.map_or(Ok(()), |path| std::env::set_current_dir(path).or(Ok(())))
}

/// Binds the namespace file of the calling thread's network to `/run/netns/NAME`.
pub fn name_network(name: &str) -> io::Result<PathBuf> {
    let path = Path::new(crate::os::netns::NAMED).join(name);
    fs::File::create_new(&path)?;
    let none: Option<&str> = None;
    mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(errno: Errno, name: &str, value: i64) -> (String, String) {
        match explain_refusal(errno, 1000, |asked| (asked == name).then_some(value)) {
            IsolateError::Forbidden { why, allow, .. } => (why, allow),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_setting_that_bars_it_is_named_with_the_command_that_allows_it() {
        for (errno, name, value) in [
            (Errno::ENOSPC, "user/max_user_namespaces", 0),
            (Errno::EPERM, "kernel/unprivileged_userns_clone", 0),
            (Errno::EPERM, "kernel/apparmor_restrict_unprivileged_userns", 1),
        ] {
            let (why, allow) = why(errno, name, value);
            let dotted = name.replace('/', ".");
            assert!(why.contains(&dotted), "{why}");
            assert!(allow.starts_with("sudo sysctl -w ") && allow.contains(&dotted), "{allow}");
        }
        assert!(why(Errno::EPERM, "user/max_user_namespaces", 100).0.contains("seccomp"));
        assert!(why(Errno::ENOSPC, "user/max_user_namespaces", 100).0.contains("used up"));
    }
}
