//! Network namespaces: naming them, entering them, coming back.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` and we keep named namespaces.
pub const NAMED: &str = "/run/netns";

/// An open network namespace; it lives at least as long as this handle.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

/// A namespace could not be opened, made or entered.
#[derive(Debug, thiserror::Error)]
#[error("network namespace {}: cannot {operation}: {source}", path.display())]
pub struct NetNsError {
    /// What was being done.
    pub operation: &'static str,
    /// Which namespace.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl NetNs {
    /// Opens the namespace file at `path` (`/proc/PID/ns/net`, `/run/netns/NAME`).
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let file = File::open(path).map_err(|source| NetNsError { operation: "open it", path: path.into(), source })?;
        Ok(Self { file, path: path.into() })
    }

    /// Opens the namespace that `ip netns` knows by this name.
    pub fn named(name: &str) -> Result<Self, NetNsError> {
        Self::open(&Path::new(NAMED).join(name))
    }

    /// The calling thread's own.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Makes a new one, entered by the calling thread. It has nothing but a loopback link that is down.
    pub fn unshare() -> Result<Self, NetNsError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NetNsError {
            operation: "make a new one",
            path: PathBuf::from("/proc/thread-self/ns/net"),
            source: errno.into(),
        })?;
        Self::current()
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> Result<(), NetNsError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| NetNsError {
            operation: "enter it",
            path: self.path.clone(),
            source: errno.into(),
        })
    }

    /// Runs `work` with the calling thread inside, and brings the thread back.
    ///
    /// # Errors
    /// When either way is barred. A thread that cannot come back is of no use to anyone, so that
    /// error is returned instead of what `work` gave.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetNsError> {
        let home = Self::current()?;
        self.enter()?;
        let done = work();
        home.enter()?;
        Ok(done)
    }

    /// The handle's file, to be kept across an exec or bound to a name.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Moves the whole process into a named namespace as `ip netns exec NAME` does: the network, a
/// `/sys` that shows it, and the files of `/etc/netns/NAME` in place of those in `/etc`.
///
/// Must be called while the process has one thread: a mount namespace is left by all or none.
///
/// # Errors
/// When the namespace does not exist or may not be entered. The mounts are done as far as they are
/// allowed: without them the network is still the right one.
pub fn become_host(name: &str) -> Result<(), NetNsError> {
    NetNs::named(name)?.enter()?;
    let own = std::fs::read_dir(Path::new("/etc/netns").join(name)).into_iter().flatten().flatten();
    let own = own.map(|entry| (entry.path(), Path::new("/etc").join(entry.file_name()))).collect::<Vec<_>>();
    dress(name, &own);
    Ok(())
}

/// Moves the whole process to where the process `pid` lives: its network, a `/sys` that shows it, and
/// its files that say how names resolve. The program stays this one, so that a container needs nothing.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// When that process does not exist or its namespace may not be entered.
pub fn join_process(pid: u32) -> Result<(), NetNsError> {
    let proc = Path::new("/proc").join(pid.to_string());
    NetNs::open(&proc.join("ns/net"))?.enter()?;
    let own = ["hosts", "resolv.conf", "nsswitch.conf", "gai.conf", "host.conf"]
        .map(|name| (proc.join("root/etc").join(name), Path::new("/etc").join(name)));
    dress("container", &own);
    Ok(())
}

/// Puts a `/sys` of this network namespace in place, and each first file over its second, for this
/// process alone. What is not allowed or not there is left as it is: the network is the right one.
fn dress(name: &str, files: &[(PathBuf, PathBuf)]) {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none: Option<&str> = None;
    if unshare(CloneFlags::CLONE_NEWNS).is_err()
        || mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).is_err()
    {
        return;
    }
    if umount2("/sys", MntFlags::MNT_DETACH).is_ok() {
        let _ = mount(Some(name), "/sys", Some("sysfs"), MsFlags::empty(), none);
    }
    for (own, over) in files {
        let _ = mount(Some(own), over, none, MsFlags::MS_BIND, none);
    }
}
