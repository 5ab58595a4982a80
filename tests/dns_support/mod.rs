//! Hosts for the name tests: namespaces that lead nowhere, files of `/etc` of their own, and a name server
//! that does whatever it is told.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "helpers of tests")]

pub mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::probe_support::Sandbox;

/// The files that decide how names resolve.
pub const FILES: [&str; 5] = ["hosts", "resolv.conf", "nsswitch.conf", "gai.conf", "host.conf"];

/// Files of `/etc` that the calling thread, and the programs it starts, have for themselves.
pub struct Etc {
    folder: tempfile::TempDir,
}

impl Etc {
    /// Puts empty files over those of the system, in a mount namespace of this thread.
    pub fn own(sandbox: &Sandbox) -> Self {
        sandbox.assert_closed();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in FILES {
            let (own, system) = (folder.path().join(name), Path::new("/etc").join(name));
            fs::write(&own, "").unwrap();
            if system.exists() {
                mount(Some(&own), &system, none, MsFlags::MS_BIND, none).unwrap();
            }
        }
        let etc = Self { folder };
        etc.set("nsswitch.conf", "hosts: files dns\n");
        etc.set("host.conf", "multi on\n");
        etc
    }

    /// What a file says from now on.
    pub fn set(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All of them, to be shown when a test fails.
    pub fn show(&self) -> String {
        let show = |name: &&str| format!("--- {name}\n{}", fs::read_to_string(self.path(name)).unwrap());
        FILES.iter().map(show).collect::<Vec<_>>().concat()
    }
}

/// What a run of reachwhy printed and how it ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }
}

/// Runs `reachwhy dns` here, whose resolver is that of the calling thread's files.
pub fn dns(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reachwhy"));
    command.arg("dns").args(arguments).stdin(Stdio::null());
    for variable in ["LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES", "RESOLV_MULTI", "RESOLV_HOST_CONF", "NO_COLOR"] {
        command.env_remove(variable);
    }
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Small numbers from a seed (xorshift64*): a failure is repeated with the same seed.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // SplitMix64's finalizer: neighbouring seeds give unrelated numbers.
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ mixed >> 31) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).unwrap()
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}
