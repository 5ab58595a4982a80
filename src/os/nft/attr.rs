//! Netlink attributes (`struct nlattr`, include/uapi/linux/netlink.h): writing and reading.
//!
//! Numbers inside nf_tables attributes are big-endian; data that goes through a register is in the
//! byte order that the expression gives it.

/// `NLA_F_NESTED`: the attribute holds attributes.
const NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK`: without the nested and byte-order flags.
const TYPE_MASK: u16 = 0x3fff;
/// Bytes of a `struct nlattr`.
const HEADER: usize = 4;

/// Attributes being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attrs(Vec<u8>);

impl Attrs {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The bytes so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn header(&mut self, kind: u16, length: usize) {
        // What cannot be said in 16 bits is refused by the kernel as a malformed attribute; the
        // callers' largest are set elements, which they split.
        let length = u16::try_from(length + HEADER).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
    }

    /// One attribute of raw bytes.
    pub(crate) fn bytes_attr(mut self, kind: u16, data: &[u8]) -> Self {
        self.header(kind, data.len());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A NUL-terminated string.
    pub(crate) fn string(self, kind: u16, text: &str) -> Self {
        let mut data = text.as_bytes().to_vec();
        data.push(0);
        self.bytes_attr(kind, &data)
    }

    /// A byte.
    pub(crate) fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes_attr(kind, &[value])
    }

    /// A big-endian 16-bit number.
    pub(crate) fn u16(self, kind: u16, value: u16) -> Self {
        self.bytes_attr(kind, &value.to_be_bytes())
    }

    /// A big-endian 32-bit number.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes_attr(kind, &value.to_be_bytes())
    }

    /// A big-endian 64-bit number.
    pub(crate) fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes_attr(kind, &value.to_be_bytes())
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes_attr(kind | NESTED, &inner.0)
    }
}

/// Attributes being read: every lookup is by kind, and what is malformed is absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Over the bytes of some attributes.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Every attribute in order: its kind without flags, and its data. Ends at the first that is malformed.
    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (kind, _) = tail.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_ne_bytes(*length));
            let data = rest.get(HEADER..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((u16::from_ne_bytes(*kind) & TYPE_MASK, data))
        })
    }

    /// The data of the last attribute of this kind (the kernel takes the last too).
    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().filter(|(found, _)| *found == kind).last().map(|(_, data)| data)
    }

    /// The attributes inside one; none where it is absent.
    pub(crate) fn nested(self, kind: u16) -> Option<View<'a>> {
        self.get(kind).map(View)
    }

    /// A byte.
    pub(crate) fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    /// A big-endian 16-bit number.
    pub(crate) fn u16(self, kind: u16) -> Option<u16> {
        self.get(kind)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// A big-endian 32-bit number.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// A big-endian 64-bit number.
    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// A string up to its NUL; bytes that are not UTF-8 are replaced, so that they show.
    pub(crate) fn string(self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }
}

/// A C string of a fixed or counted field.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let inner = Attrs::new().u32(1, 7).string(2, "abc");
        let attrs = Attrs::new().u8(1, 9).nest(4, &inner).u64(3, u64::MAX).u16(5, 80);
        let view = View::new(attrs.bytes());
        assert_eq!(view.u8(1), Some(9));
        assert_eq!(view.u64(3), Some(u64::MAX));
        assert_eq!(view.u16(5), Some(80));
        let nested = view.nested(4).unwrap();
        assert_eq!(nested.u32(1), Some(7));
        assert_eq!(nested.string(2).as_deref(), Some("abc"));
        assert_eq!(view.get(6), None);
    }

    #[test]
    fn the_bytes_are_the_kernels() {
        let attrs = Attrs::new().string(1, "ab").u32(2, 0x0102_0304);
        let mut want = Vec::new();
        want.extend_from_slice(&7u16.to_ne_bytes());
        want.extend_from_slice(&1u16.to_ne_bytes());
        want.extend_from_slice(b"ab\0\0");
        want.extend_from_slice(&8u16.to_ne_bytes());
        want.extend_from_slice(&2u16.to_ne_bytes());
        want.extend_from_slice(&[1, 2, 3, 4]);
        assert_eq!(attrs.bytes(), want);
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            let view = View::new(&bytes);
            for (kind, data) in view.iter() {
                let _ = (view.u8(kind), view.u16(kind), view.u32(kind), view.u64(kind), view.string(kind), data);
            }
        }
    }
}
