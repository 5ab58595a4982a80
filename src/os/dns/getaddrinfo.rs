//! The C library's `getaddrinfo` with an address family, which the standard library cannot be told.
#![allow(unsafe_code, reason = "getaddrinfo with hints has no safe form")]

use std::net::IpAddr;

use crate::dns::Family;

/// Its addresses, each once and in its order, or its error number (`EAI_…`).
pub(super) fn getaddrinfo(name: &str, family: Family) -> Result<Vec<IpAddr>, i32> {
    let name = std::ffi::CString::new(name).map_err(|_| libc::EAI_NONAME)?;
    // SAFETY: addrinfo is a plain C structure for which all zeroes is a valid value (no hints).
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_family = match family {
        Family::Any => libc::AF_UNSPEC,
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let mut list: *mut libc::addrinfo = std::ptr::null_mut();
    // SAFETY: the name is NUL-terminated, the hints are initialised, and `list` is a place for the result.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(code);
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: getaddrinfo gave a list of valid entries ended by NULL, whose addresses are of the size that
    // their family says; it is freed once, after the last use.
    unsafe {
        while let Some(entry) = next.as_ref() {
            let address = match entry.ai_family {
                libc::AF_INET => {
                    let v4 = entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes())
                }
                _ => IpAddr::from(entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned().sin6_addr.s6_addr),
            };
            if !found.contains(&address) {
                found.push(address);
            }
            next = entry.ai_next;
        }
        libc::freeaddrinfo(list);
    }
    Ok(found)
}
