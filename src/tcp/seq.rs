//! Sequence numbers (RFC 9293 §3.4): 32 bits that wrap, compared by their distance.

/// Whether `a` comes after `b`.
#[inline]
pub fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a)).cast_signed() < 0
}

/// Whether `a` comes before `b`.
#[inline]
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b)).cast_signed() < 0
}

/// Whether `a` is `b` or comes before it.
#[inline]
pub fn at_most(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b)).cast_signed() <= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        assert!(after(1, 0xffff_fff0) && before(0xffff_fff0, 1) && at_most(5, 5));
        assert!(!after(5, 5) && !before(5, 5) && !after(0, 1));
    }
}
