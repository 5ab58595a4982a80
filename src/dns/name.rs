//! Domain names: text ↔ octets (RFC 1035 3.1), as glibc's `ns_name_pton` and `ns_name_ntop` do it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Octets a name may have on the wire, its root label among them (RFC 1035 2.3.4).
pub(super) const LONGEST: usize = 255;

/// A domain name in its uncompressed wire form. Two names are equal whatever their letter case.
#[derive(Clone)]
pub struct DomainName(Vec<u8>);

/// Why a text is no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label has more than 63 octets.
    #[error("a label is longer than 63 octets")]
    LongLabel,
    /// All of it has more than 255.
    #[error("the name is longer than 255 octets")]
    LongName,
    /// Two dots in a row, or one at the beginning.
    #[error("a label is empty")]
    EmptyLabel,
    /// A `\` without a character or three digits up to 255 behind it.
    #[error("a backslash escapes nothing")]
    Escape,
}

impl DomainName {
    /// The root.
    pub fn root() -> Self {
        Self(vec![0])
    }

    /// Reads a name; a dot at its end changes nothing. `\.` and `\046` are a dot within a label.
    ///
    /// ```
    /// use reachwhy::dns::DomainName;
    /// assert_eq!(DomainName::parse("API.Lab.").unwrap(), DomainName::parse("api.lab").unwrap());
    /// assert!(DomainName::parse("a..b").is_err());
    /// ```
    ///
    /// # Errors
    /// When no such name can be asked for; it never was sent.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label: Vec<u8> = Vec::new();
        let mut octets = text.bytes().peekable();
        if text == "." {
            return Ok(Self::root());
        }
        while let Some(octet) = octets.next() {
            match octet {
                b'.' => {
                    end_label(&mut wire, &mut label)?;
                    if octets.peek().is_none() {
                        break;
                    }
                }
                b'\\' => label.push(escaped(&mut octets)?),
                other => label.push(other),
            }
        }
        if !label.is_empty() {
            end_label(&mut wire, &mut label)?;
        }
        wire.push(0);
        if wire.len() > LONGEST { Err(NameError::LongName) } else { Ok(Self(wire)) }
    }

    /// From labels that a parser has checked: each 1 to 63 octets, at most 255 in all.
    pub(super) fn from_wire(wire: Vec<u8>) -> Self {
        Self(wire)
    }

    /// Its octets on the wire.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Its labels from the left, without the root's.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            if *length == 0 || after.len() < usize::from(*length) {
                return None;
            }
            let (label, next) = after.split_at(usize::from(*length));
            rest = next;
            Some(label)
        })
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.len() <= 1
    }

    /// Whether it looks like a host's (`res_hnok`): letters, digits, `-` and `_`, no `-` at the start.
    /// glibc neither asks for other names nor takes answers with them.
    pub fn is_host(&self) -> bool {
        let ok = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        self.0.get(1) != Some(&b'-') && self.labels().all(|label| label.iter().all(ok))
    }

    /// Whether it is `zone` or below it.
    pub fn is_under(&self, zone: &Self) -> bool {
        let (own, other) = (self.labels().count(), zone.labels().count());
        own >= other
            && self
                .labels()
                .skip(own - other)
                .zip(zone.labels())
                .all(|(mine, theirs)| mine.eq_ignore_ascii_case(theirs))
    }

    /// Without its first label; the root stays.
    #[must_use]
    pub fn parent(&self) -> Self {
        match self.0.split_first() {
            Some((length, rest)) if *length > 0 => Self(rest.get(usize::from(*length)..).unwrap_or(&[0]).to_vec()),
            _ => Self::root(),
        }
    }

    /// In small letters.
    pub fn lower(&self) -> Vec<u8> {
        self.0.to_ascii_lowercase()
    }

    /// The name that a reverse lookup of `address` asks for.
    pub fn reverse(address: std::net::IpAddr) -> Self {
        let mut wire = Vec::new();
        let mut push = |label: &[u8]| {
            wire.push(u8::try_from(label.len()).unwrap_or(0));
            wire.extend_from_slice(label);
        };
        match address {
            std::net::IpAddr::V4(v4) => {
                v4.octets().iter().rev().for_each(|octet| push(octet.to_string().as_bytes()));
                push(b"in-addr");
            }
            std::net::IpAddr::V6(v6) => {
                for octet in v6.octets().iter().rev() {
                    push(format!("{:x}", octet & 0xf).as_bytes());
                    push(format!("{:x}", octet >> 4).as_bytes());
                }
                push(b"ip6");
            }
        }
        push(b"arpa");
        wire.push(0);
        Self(wire)
    }
}

fn end_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), NameError> {
    let length = u8::try_from(label.len()).ok().filter(|length| *length < 64).ok_or(NameError::LongLabel)?;
    if length == 0 {
        return Err(NameError::EmptyLabel);
    }
    wire.push(length);
    wire.append(label);
    Ok(())
}

fn escaped(octets: &mut impl Iterator<Item = u8>) -> Result<u8, NameError> {
    let first = octets.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = octets.next().filter(u8::is_ascii_digit).ok_or(NameError::Escape)?;
        value = value * 10 + u32::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::Escape)
}

impl PartialEq for DomainName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for DomainName {}

impl std::hash::Hash for DomainName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for octet in &self.0 {
            state.write_u8(octet.to_ascii_lowercase());
        }
    }
}

/// Without a dot at the end (the root is `.`); what is not plain is escaped, so that it reads back.
impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for (at, label) in self.labels().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            for octet in label {
                match octet {
                    b'"' | b'.' | b';' | b'\\' | b'(' | b')' | b'@' | b'$' => write!(f, "\\{}", char::from(*octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(*octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DomainName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DomainName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_and_octets() {
        assert_eq!(DomainName::parse("a.bc.").unwrap().wire(), b"\x01a\x02bc\x00");
        assert_eq!(DomainName::parse("").unwrap(), DomainName::root());
        assert_eq!(DomainName::parse(".").unwrap().to_string(), ".");
        assert_eq!(DomainName::parse(r"a\.b\046c.d").unwrap().to_string(), r"a\.b\.c.d");
        assert_eq!(DomainName::parse("ä.lab").unwrap().to_string(), r"\195\164.lab");
        assert_eq!(DomainName::parse("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(DomainName::parse(".a"), Err(NameError::EmptyLabel));
        assert_eq!(DomainName::parse(r"a\"), Err(NameError::Escape));
        assert_eq!(DomainName::parse(r"a\256"), Err(NameError::Escape));
        assert_eq!(DomainName::parse(&"a".repeat(64)), Err(NameError::LongLabel));
        assert_eq!(DomainName::parse(&"a.".repeat(128)), Err(NameError::LongName));
        assert!(DomainName::parse(&"a.".repeat(127)).is_ok());
    }

    #[test]
    fn relations() {
        let name = |text| DomainName::parse(text).unwrap();
        assert!(name("www.API.lab").is_under(&name("api.LAB")));
        assert!(!name("xapi.lab").is_under(&name("api.lab")));
        assert!(name("lab").is_under(&DomainName::root()));
        assert_eq!(name("www.api.lab").parent(), name("api.lab"));
        assert_eq!(DomainName::root().parent(), DomainName::root());
        assert!(name("_x.a-b").is_host() && !name("-a.b").is_host() && !name("a*b").is_host());
        assert_eq!(DomainName::reverse([10, 0, 0, 1].into()), name("1.0.0.10.in-addr.arpa"));
        assert!(DomainName::reverse("fd00::1".parse().unwrap()).to_string().starts_with("1.0.0.0.0."));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(text: String) {
            if let Ok(name) = DomainName::parse(&text) {
                let again = DomainName::parse(&name.to_string()).unwrap();
                prop_assert_eq!(again.wire(), name.wire());
            }
        }
    }
}
