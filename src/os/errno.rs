//! The names of errors, as `errno(3)` has them.

/// `ECONNREFUSED` for 111; `errno 9999` for one without a name.
pub fn name(code: i32) -> String {
    match nix::errno::Errno::from_raw(code) {
        nix::errno::Errno::UnknownErrno => format!("errno {code}"),
        errno => format!("{errno:?}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_of_the_manual() {
        assert_eq!(super::name(libc::ECONNREFUSED), "ECONNREFUSED");
        assert_eq!(super::name(libc::EAGAIN), "EAGAIN");
        assert_eq!(super::name(99_999), "errno 99999");
    }
}
