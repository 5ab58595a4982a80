//! The kernel's own word on every packet it drops: a tracing instance of our own on `skb:kfree_skb`, in a mount
//! namespace of one thread, so that nothing is mounted for anybody else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::host::drops::{KernelDrop, parse};

/// Where tracing lives.
const PLACE: &str = "/sys/kernel/tracing";
/// The beginning of our instances' names; the rest is the process that made it.
const NAME: &str = "reachwhy-";
/// The most drops that are read.
const MOST: usize = 1000;

/// A watch that is up. It is taken down by [`DropWatch::finish`], or when this is dropped.
pub struct DropWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Vec<KernelDrop>>>,
    name: String,
}

impl DropWatch {
    /// Puts it up.
    ///
    /// # Errors
    /// Where tracing may not be used: it takes CAP_SYS_ADMIN in the machine's first user namespace, and a kernel with
    /// the tracepoint.
    pub fn start() -> io::Result<Self> {
        let name = format!("{NAME}{}", std::process::id());
        let (ready, begun) = channel();
        let (stop, stopped) = channel();
        let own = name.clone();
        let thread = std::thread::Builder::new().name("drops".to_owned()).spawn(move || {
            let instance = match open(&own) {
                Ok(instance) => instance,
                Err(error) => {
                    // Nobody hears it when the one who asked has gone.
                    let _ = ready.send(Err(error));
                    return Vec::new();
                }
            };
            let _ = ready.send(Ok(()));
            watch(&instance, &stopped)
        })?;
        match begun.recv() {
            Ok(Ok(())) => Ok(Self { stop: Some(stop), thread: Some(thread), name }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the watch on dropped packets ended by itself")),
        }
    }

    /// What it is called, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was dropped since, on the whole machine; takes the watch down.
    pub fn finish(mut self) -> Vec<KernelDrop> {
        self.stop = None;
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for DropWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Our instance, switched on.
fn open(name: &str) -> io::Result<PathBuf> {
    let events = |place: &Path| place.join("events/skb/kfree_skb").exists();
    let place = Path::new(PLACE);
    if !events(place) {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tracefs"), PLACE, Some("tracefs"), MsFlags::empty(), none)?;
        if !events(place) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "this kernel has no tracepoint skb:kfree_skb"));
        }
    }
    let instances = place.join("instances");
    sweep(&instances);
    let instance = instances.join(name);
    fs::create_dir(&instance)?;
    let event = instance.join("events/skb/kfree_skb");
    let on = fs::write(event.join("filter"), "protocol == 2048 || protocol == 34525 || protocol == 2054")
        .and_then(|()| fs::write(event.join("enable"), "1"));
    if let Err(error) = on {
        let _ = fs::remove_dir(&instance);
        return Err(error);
    }
    Ok(instance)
}

/// Takes away what a killed one of us left behind.
fn sweep(instances: &Path) {
    for entry in fs::read_dir(instances).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(NAME).and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            let _ = fs::write(entry.path().join("events/skb/kfree_skb/enable"), "0");
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn watch(instance: &Path, stopped: &Receiver<()>) -> Vec<KernelDrop> {
    // The sender sends nothing: it goes.
    while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_secs(3600)) {}
    let event = instance.join("events/skb/kfree_skb");
    let _ = fs::write(event.join("enable"), "0");
    let text = fs::read_to_string(instance.join("trace")).unwrap_or_default();
    let _ = fs::remove_dir(instance);
    text.lines().filter_map(parse).take(MOST).collect()
}
