//! The names of addresses, as an application gets them: the C library's own `getnameinfo`.
#![allow(unsafe_code, reason = "no safe crate in use here offers getnameinfo")]

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// The name of an address; `None` where it has none. It may take as long as resolv.conf's timeouts add up to.
pub fn name_of(address: IpAddr) -> Option<String> {
    let socket = socket2::SockAddr::from(std::net::SocketAddr::new(address, 0));
    let mut host = [0u8; 1025];
    let length = u32::try_from(host.len()).unwrap_or(0);
    // SAFETY: the address is valid for the length that goes with it; `host` has `length` octets to be written to;
    // no service is asked for, as its null pointer and length 0 say.
    let code = unsafe {
        libc::getnameinfo(
            socket.as_ptr().cast(),
            socket.len(),
            host.as_mut_ptr().cast(),
            length,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return None;
    }
    let end = host.iter().position(|octet| *octet == 0)?;
    let name = String::from_utf8_lossy(&host[..end]).into_owned();
    // A name server's answer must not move a terminal's cursor.
    (!name.is_empty() && !name.chars().any(char::is_control)).then_some(name)
}

/// Looks names up beside other work: a thread for each address, and nobody waits for it.
#[derive(Debug)]
pub struct Names {
    asked: HashMap<IpAddr, Lookup>,
    sender: Sender<(IpAddr, Option<String>)>,
    receiver: Receiver<(IpAddr, Option<String>)>,
}

/// More threads than this at a time are not started.
const MOST: usize = 64;

#[derive(Debug)]
enum Lookup {
    Asked,
    Done(Option<String>),
}

impl Default for Names {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { asked: HashMap::new(), sender, receiver }
    }
}

impl Names {
    /// Begins to look a name up, unless that was done.
    pub fn ask(&mut self, address: IpAddr) {
        self.gather();
        let busy = self.asked.values().filter(|state| matches!(state, Lookup::Asked)).count();
        if busy >= MOST || self.asked.contains_key(&address) {
            return;
        }
        self.asked.insert(address, Lookup::Asked);
        let sender = self.sender.clone();
        let worker = std::thread::Builder::new().name("names".to_owned());
        let started = worker.spawn(move || {
            let _ = sender.send((address, name_of(address)));
        });
        if started.is_err() {
            self.asked.insert(address, Lookup::Done(None));
        }
    }

    fn gather(&mut self) {
        while let Ok((address, name)) = self.receiver.try_recv() {
            self.asked.insert(address, Lookup::Done(name));
        }
    }

    /// The name, as far as known by now.
    pub fn get(&mut self, address: IpAddr) -> Option<String> {
        self.gather();
        match self.asked.get(&address) {
            Some(Lookup::Done(name)) => name.clone(),
            _ => None,
        }
    }

    /// Waits for what was asked, at most so long.
    pub fn wait(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        self.gather();
        while self.asked.values().any(|state| matches!(state, Lookup::Asked)) {
            let left = end.saturating_duration_since(Instant::now());
            let Ok((address, name)) = self.receiver.recv_timeout(left) else { return };
            self.asked.insert(address, Lookup::Done(name));
        }
    }
}
