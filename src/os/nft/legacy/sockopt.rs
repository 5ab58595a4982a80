//! The two socket options that read a table.
#![allow(unsafe_code, reason = "socket options of variable size have no safe wrapper")]

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::OwnedFd;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: i32 = 65;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// Bytes of `struct ipt_getinfo`.
const INFO: usize = NAME + 4 + 5 * 4 + 5 * 4 + 4 + 4;
/// Where the entries begin in `struct ipt_get_entries`: after the size, aligned to 8.
const HEAD: usize = 40;
/// No table is larger; a kernel that says so is not believed.
const LARGEST: usize = 1 << 30;

/// `struct ipt_getinfo`, without the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    /// A bit for each hook (`NF_INET_*`) that the table has a chain for.
    pub(super) valid_hooks: u32,
    /// Where each of those chains begins.
    pub(super) hook_entry: [u32; 5],
    /// Where its policy is.
    pub(super) underflow: [u32; 5],
    /// Bytes of all entries.
    pub(super) size: usize,
}

/// Any socket of the family does; a datagram one needs no privilege to open.
pub(super) fn open(v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Ok(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A table's layout and its entries.
pub(super) fn read(socket: &OwnedFd, v6: bool, table: &str) -> io::Result<(Info, Vec<u8>)> {
    let mut buffer = vec![0u8; INFO];
    let name = table.as_bytes();
    if name.len() >= NAME {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    buffer[..name.len()].copy_from_slice(name);
    get(socket, v6, GET_INFO, &mut buffer)?;
    let word = |index: usize| {
        let at = NAME + index * 4;
        buffer.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    };
    let info = Info {
        valid_hooks: word(0),
        hook_entry: std::array::from_fn(|hook| word(1 + hook)),
        underflow: std::array::from_fn(|hook| word(6 + hook)),
        size: word(12) as usize,
    };
    if info.size > LARGEST {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut entries = vec![0u8; HEAD + info.size];
    entries[..name.len()].copy_from_slice(name);
    let size = u32::try_from(info.size).unwrap_or(u32::MAX);
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    get(socket, v6, GET_ENTRIES, &mut entries)?;
    entries.drain(..HEAD);
    Ok((info, entries))
}

fn get(socket: &OwnedFd, v6: bool, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let level = if v6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer and the length describe `buffer`, which lives through the call; the kernel
    // writes at most `length` bytes, all of which are valid as u8.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
