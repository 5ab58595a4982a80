//! Packet sockets closed by somebody who has time.
//!
//! Closing a packet socket waits until no processor can still be looking at it (`packet_release`,
//! `synchronize_net`): some 10 to 50 ms, which an ended command would spend with its answer long printed. A command
//! therefore leaves such sockets open until it ends, and then to a child process that holds them alone, does nothing,
//! and is ended by the kernel in the moment after its parent (`PR_SET_PDEATHSIG`).
#![allow(unsafe_code, reason = "fork, whose child makes but a few system calls")]

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, fork, getpid, getppid};
use socket2::Socket;

use crate::probe::bpf::Instruction;

static WANTED: AtomicBool = AtomicBool::new(false);
static KEPT: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());
/// More than these are closed where they are.
const MOST: usize = 64;

/// From here on sockets may be left for later: the caller promises to call [`leave`] as its last act.
pub fn allow() {
    WANTED.store(true, Ordering::Relaxed);
}

/// A packet socket that is closed late, where that was allowed.
#[derive(Debug)]
pub(super) struct PacketSocket(ManuallyDrop<Socket>);

impl From<Socket> for PacketSocket {
    fn from(socket: Socket) -> Self {
        Self(ManuallyDrop::new(socket))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        // SAFETY: this value is being dropped: nothing uses the field after this.
        let socket = unsafe { ManuallyDrop::take(&mut self.0) };
        if !WANTED.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(mut kept) = KEPT.lock()
            && kept.len() < MOST
        {
            // What still arrives is no longer wanted: "return 0" for every packet.
            let nothing = [Instruction { code: 0x06, jump_true: 0, jump_false: 0, k: 0 }];
            let _ = super::sys::attach_filter(&socket, &nothing);
            kept.push(socket.into());
        }
    }
}

/// Leaves what is still open to a child. To be called when all is said and the process is about to end.
pub fn leave() {
    let Ok(kept) = KEPT.lock() else { return };
    if kept.is_empty() {
        return;
    }
    let mut held: Vec<u32> = kept.iter().filter_map(|socket| u32::try_from(socket.as_raw_fd()).ok()).collect();
    held.sort_unstable();
    let parent = getpid();
    // SAFETY: the child makes system calls alone (close_range, prctl, getppid, pause, _exit) and reads `held`: no
    // allocation, no lock that another thread may have held, and it never returns.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            // Who waits for the end of our output must not wait for the child: it keeps the sockets alone.
            let mut from = 0;
            for held in &held {
                close_range(from, held.saturating_sub(1).max(from), from < *held);
                from = held + 1;
            }
            close_range(from, u32::MAX, true);
            // The parent may have been faster.
            if prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && getppid() == parent {
                // SAFETY: pause(2) has no preconditions.
                unsafe { libc::pause() };
            }
            // SAFETY: ends the child at once, without what the parent would do at its own end.
            unsafe { libc::_exit(0) }
        }
        // Without a child the end takes as long as it takes.
        Ok(ForkResult::Parent { .. }) | Err(_) => {}
    }
}

/// Closes descriptors from `first` to `last`, where there are `any` (close_range(2), Linux 5.9).
fn close_range(first: u32, last: u32, any: bool) {
    if any {
        // SAFETY: called in a child that uses none of these descriptors any more.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}
