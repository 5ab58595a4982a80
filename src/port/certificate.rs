//! What a person asks of a certificate: for whom, by whom, until when (X.509, RFC 5280), read from its DER.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use crate::wire::calendar;

/// What is told of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The subject's common name, or its organisation.
    pub subject: Option<String>,
    /// The issuer's.
    pub issuer: Option<String>,
    /// Issuer and subject are the same.
    pub self_issued: bool,
    /// Names and addresses it is for.
    pub names: Vec<String>,
    /// First second of its validity, seconds since 1970-01-01 UTC.
    pub not_before: Option<i64>,
    /// Last second of its validity.
    pub not_after: Option<i64>,
}

/// One DER element: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, length) = (*bytes.first()?, *bytes.get(1)?);
    let (length, at) = if length < 0x80 {
        (usize::from(length), 2)
    } else {
        let count = usize::from(length & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let octets = bytes.get(2..2 + count)?;
        (octets.iter().fold(0usize, |sum, octet| (sum << 8) | usize::from(*octet)), 2 + count)
    };
    let end = at.checked_add(length)?;
    Some((tag, bytes.get(at..end)?, bytes.get(end..)?))
}

/// The elements of a constructed one.
fn elements(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(bytes)?;
        bytes = rest;
        Some((tag, content))
    })
}

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANISATION: &[u8] = &[0x55, 4, 10];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// More names than this are a CDN's; they are not all told.
const NAMES: usize = 64;

impl Certificate {
    /// Reads one; none when it is no certificate.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (0x30, certificate, _) = element(der)? else { return None };
        let (0x30, body, _) = element(certificate)? else { return None };
        let mut parts = elements(body).peekable();
        if parts.peek().is_some_and(|(tag, _)| *tag == 0xa0) {
            parts.next();
        }
        let (_serial, _algorithm) = (parts.next()?, parts.next()?);
        let (_, issuer) = parts.next()?;
        let (_, validity) = parts.next()?;
        let (_, subject) = parts.next()?;
        let mut times = elements(validity).map(|(tag, text)| time(tag, text));
        let extensions = parts.filter(|(tag, _)| *tag == 0xa3).filter_map(|(_, content)| Some(element(content)?.1));
        Some(Self {
            subject: name(subject),
            issuer: name(issuer),
            self_issued: issuer == subject,
            names: extensions.flat_map(elements).find_map(|(_, one)| alternatives(one)).unwrap_or_default(),
            not_before: times.next().flatten(),
            not_after: times.next().flatten(),
        })
    }
}

fn name(distinguished: &[u8]) -> Option<String> {
    let find = |wanted: &[u8]| {
        elements(distinguished).flat_map(|(_, set)| elements(set)).find_map(|(_, pair)| {
            let (6, oid, value) = element(pair)? else { return None };
            let (_, text, _) = element(value)?;
            (oid == wanted).then(|| super::banner::printable(text, 100))
        })
    };
    find(COMMON_NAME).or_else(|| find(ORGANISATION))
}

fn alternatives(extension: &[u8]) -> Option<Vec<String>> {
    let (6, oid, rest) = element(extension)? else { return None };
    if oid != ALTERNATIVE_NAMES {
        return None;
    }
    // Perhaps a BOOLEAN (critical), then an OCTET STRING with a SEQUENCE in it.
    let (_, content) = elements(rest).find(|(tag, _)| *tag == 4)?;
    let (_, names, _) = element(content)?;
    let one = |(tag, value): (u8, &[u8])| match (tag, value.len()) {
        (0x82, _) => Some(super::banner::printable(value, 253)),
        (0x87, 4) => Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)).to_string()),
        (0x87, 16) => Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)).to_string()),
        _ => None,
    };
    Some(elements(names).filter_map(one).take(NAMES).collect())
}

/// UTCTime and GeneralizedTime, both in UTC (RFC 5280 §4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = |from: usize, count: usize| -> Option<i64> {
        let part = text.get(from..from + count)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |sum, one| sum * 10 + i64::from(one - b'0')))
    };
    let (year, at) = match tag {
        0x17 => {
            let short = digits(0, 2)?;
            (if short < 50 { 2000 + short } else { 1900 + short }, 2)
        }
        0x18 => (digits(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (digits(at, 2)?, digits(at + 2, 2)?);
    let (hour, minute, second) = (digits(at + 4, 2)?, digits(at + 6, 2)?, digits(at + 8, 2).unwrap_or(0));
    Some(calendar::days(year, month, day) * calendar::DAY + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_for_whom_and_until_when() {
        let made = rcgen::generate_simple_self_signed(vec!["api.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        let read = Certificate::read(made.cert.der()).expect("it is one");
        assert_eq!(read.names, ["api.example", "10.0.0.1"]);
        assert!(read.self_issued && read.not_before < read.not_after, "{read:?}");
        assert!(read.subject.is_some_and(|name| name.contains("rcgen")));
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(time(0x17, b"261123235959Z"), Some(1_795_478_399));
        assert_eq!(time(0x18, b"20240229000000Z"), Some(1_709_164_800));
        assert_eq!(time(0x17, b"2x1123235959Z"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Certificate::read(&bytes);
            let mut nested = vec![0x30, 0x81, 200, 0x30, 0x81, 190];
            nested.extend(bytes);
            nested.resize(206, 0x30);
            let _ = Certificate::read(&nested);
        }
    }
}
