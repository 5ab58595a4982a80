//! Structures of x_tables, byte by byte.

use std::net::IpAddr;

/// A structure being written, in the machine's byte order.
#[derive(Debug, Clone, Default)]
pub(super) struct Blob(Vec<u8>);

impl Blob {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(super) fn be16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A string in a field of `len` bytes.
    pub(super) fn string(mut self, text: &str, len: usize) -> Self {
        let end = self.0.len() + len;
        self.0.extend_from_slice(text.as_bytes().get(..len.saturating_sub(1)).unwrap_or(text.as_bytes()));
        self.0.resize(end, 0);
        self
    }

    /// A `union nf_inet_addr`: 16 bytes, IPv4 in the first four.
    pub(super) fn addr(mut self, address: IpAddr) -> Self {
        let end = self.0.len() + 16;
        match address {
            IpAddr::V4(v4) => self.0.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => self.0.extend_from_slice(&v6.octets()),
        }
        self.0.resize(end, 0);
        self
    }

    /// Zeros up to `len` bytes.
    pub(super) fn pad_to(mut self, len: usize) -> Self {
        self.0.resize(self.0.len().max(len), 0);
        self
    }

    /// The bytes, padded as `XT_ALIGN` does.
    pub(super) fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0
    }
}

/// The words of a module's options as the parser keeps them: blanks between, `"` around, `\` before.
pub(super) fn words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unquoted() {
        assert_eq!(words("--log-prefix \"a \\\"b\\\" \" --x ! \"\""), ["--log-prefix", "a \"b\" ", "--x", "!", ""]);
    }

    #[test]
    fn blobs_are_aligned() {
        assert_eq!(Blob::new().u8(1).string("ab", 4).done(), [1, b'a', b'b', 0, 0, 0, 0, 0]);
    }
}
