//! systemd-resolved asked over its Varlink socket: the one way to learn which link's servers a name went to.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dns::Family;
use crate::dns::resolved::ResolvedAnswer;

/// Where it listens (systemd 246 and later).
const SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve";
/// No honest answer is longer.
const LARGEST: usize = 1 << 20;

/// What it says of `name`; `None` where it does not run, does not answer within `patience`, or speaks otherwise.
pub fn resolved(name: &str, family: Family, patience: Duration) -> Option<ResolvedAnswer> {
    let mut stream = UnixStream::connect(SOCKET).ok()?;
    let until = Instant::now() + patience;
    let mut parameters = json!({"name": name});
    let number = match family {
        Family::V4 => Some(libc::AF_INET),
        Family::V6 => Some(libc::AF_INET6),
        Family::Any => None,
    };
    if let (Some(number), Some(object)) = (number, parameters.as_object_mut()) {
        object.insert("family".to_owned(), number.into());
    }
    let call = json!({"method": "io.systemd.Resolve.ResolveHostname", "parameters": parameters});
    let mut message = call.to_string().into_bytes();
    message.push(0);
    stream.set_write_timeout(Some(patience)).ok()?;
    stream.write_all(&message).ok()?;
    let mut octets = Vec::new();
    let mut buffer = [0; 4096];
    while !octets.contains(&0) {
        let left = until.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left).filter(|left| !left.is_zero())).ok()?;
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(length) => octets.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        if octets.len() > LARGEST || left.is_zero() {
            return None;
        }
    }
    let end = octets.iter().position(|octet| *octet == 0)?;
    let reply: Value = serde_json::from_slice(&octets[..end]).ok()?;
    ResolvedAnswer::parse(&reply, |index| {
        Some(nix::net::if_::if_indextoname(index).ok()?.to_string_lossy().into_owned())
    })
}
