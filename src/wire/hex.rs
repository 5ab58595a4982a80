//! Bytes that are saved as hexadecimal text, so that a case file stays readable and diffable.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes whose serialised form is a string of hexadecimal digits.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HexBytes(pub Vec<u8>);

/// The text was not an even number of hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an even number of hexadecimal digits")]
pub struct BadHex;

impl fmt::Display for HexBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HexBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HexBytes({self})")
    }
}

impl From<HexBytes> for String {
    fn from(bytes: HexBytes) -> Self {
        bytes.to_string()
    }
}

impl TryFrom<String> for HexBytes {
    type Error = BadHex;

    fn try_from(text: String) -> Result<Self, BadHex> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(BadHex);
        if !text.len().is_multiple_of(2) {
            return Err(BadHex);
        }
        text.as_bytes()
            .chunks_exact(2)
            .map(|pair| Ok((digit(pair[0])? << 4) | digit(pair[1])?))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl From<Vec<u8>> for HexBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for HexBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
