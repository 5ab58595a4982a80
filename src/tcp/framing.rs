//! Where an application's messages begin and end, beside where TCP's segments do.
//!
//! TCP carries a stream of octets: a message may be split over segments, and a segment may carry several ("sticky
//! packets"). Nothing is wrong with that; a program that takes one `read` for one message is. This shows both.

use serde::Serialize;

use super::stream::Chunk;

/// Octets of a stream that are looked at.
const LOOKED_AT: usize = 4 << 20;
/// Messages listed.
const MOST: usize = 10_000;
/// A message longer than this is no sign of a length prefix.
const LONGEST: u64 = 16 << 20;

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// TLS records.
    Tls,
    /// Lines.
    Lines,
    /// A length of so many octets in front, big endian.
    LengthBig(u8),
    /// A length of so many octets in front, little endian.
    LengthLittle(u8),
}

impl Protocol {
    /// In words.
    pub fn describe(self) -> String {
        match self {
            Self::Http => "HTTP/1 messages".to_owned(),
            Self::Tls => "TLS records".to_owned(),
            Self::Lines => "lines".to_owned(),
            Self::LengthBig(octets) => format!("messages with a length of {octets} octets in front (big endian)"),
            Self::LengthLittle(octets) => format!("messages with a length of {octets} octets in front (little endian)"),
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Octets of the stream in front of it.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// All of it was captured.
    pub whole: bool,
    /// The frames that carry it.
    pub frames: Vec<u64>,
    /// How it begins, where that is text.
    pub begins: String,
}

/// One direction's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Framing {
    /// How they are told apart.
    pub protocol: Protocol,
    /// They.
    pub messages: Vec<Message>,
    /// Segments that carry more than one message, or parts of several: frame, how many.
    pub sticky: Vec<(u64, usize)>,
    /// Messages that are spread over several segments: which (from 0), how many.
    pub split: Vec<(usize, usize)>,
}

/// Finds the messages of one direction; `None` where no known form fits.
pub fn find(chunks: &[Chunk]) -> Option<Framing> {
    let mut bytes = Vec::new();
    let start = chunks.first()?.offset;
    for chunk in chunks {
        // Behind a hole nothing is certain.
        if chunk.missing > 0 || bytes.len() >= LOOKED_AT || (bytes.len() as u64) != chunk.offset - start {
            break;
        }
        bytes.extend_from_slice(&chunk.bytes);
    }
    let (protocol, bounds) = detect(&bytes)?;
    let mut messages = Vec::new();
    let mut at = 0u64;
    for end in bounds.into_iter().take(MOST) {
        let (from, to) = (start + at, start + end);
        let frames: Vec<u64> = chunks
            .iter()
            .filter(|chunk| chunk.offset < to && chunk.offset + chunk.len > from)
            .map(|chunk| chunk.frame)
            .collect();
        let head = bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        let head = &head[..head.len().min(usize::try_from(end - at).unwrap_or(48)).min(48)];
        messages.push(Message {
            offset: from,
            len: end - at,
            whole: end <= bytes.len() as u64,
            frames,
            begins: readable(head),
        });
        at = end;
    }
    let sticky = chunks
        .iter()
        .filter_map(|chunk| {
            let inside = messages
                .iter()
                .filter(|message| {
                    message.offset < chunk.offset + chunk.len && message.offset + message.len > chunk.offset
                })
                .count();
            (inside > 1).then_some((chunk.frame, inside))
        })
        .collect();
    let split = messages
        .iter()
        .enumerate()
        .filter_map(|(n, message)| (message.frames.len() > 1).then_some((n, message.frames.len())))
        .collect();
    Some(Framing { protocol, messages, sticky, split })
}

/// The first printable part of a message.
fn readable(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .take_while(|byte| !matches!(byte, b'\r' | b'\n'))
        .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '·' })
        .collect();
    text.trim_end().to_owned()
}

/// The form of a stream and the ends of its messages.
fn detect(bytes: &[u8]) -> Option<(Protocol, Vec<u64>)> {
    if let Some(bounds) = http(bytes) {
        return Some((Protocol::Http, bounds));
    }
    if let Some(bounds) = tls(bytes) {
        return Some((Protocol::Tls, bounds));
    }
    let printable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80;
    if bytes.contains(&b'\n') && bytes.iter().take(4096).all(printable) {
        return Some((Protocol::Lines, lines(bytes)));
    }
    for octets in [4u8, 2] {
        for big in [true, false] {
            // The length may count itself or not.
            for own in [0u64, u64::from(octets)] {
                if let Some(bounds) = prefixed(bytes, octets, big, own) {
                    let protocol = if big { Protocol::LengthBig(octets) } else { Protocol::LengthLittle(octets) };
                    return Some((protocol, bounds));
                }
            }
        }
    }
    None
}

fn lines(bytes: &[u8]) -> Vec<u64> {
    let mut ends: Vec<u64> =
        bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at as u64 + 1).collect();
    if ends.last().is_none_or(|end| *end < bytes.len() as u64) {
        ends.push(bytes.len() as u64);
    }
    ends
}

/// Lengths that lead from message to message and end where the stream ends, at least two of them.
fn prefixed(bytes: &[u8], octets: u8, big: bool, own: u64) -> Option<Vec<u64>> {
    let width = usize::from(octets);
    let mut ends = Vec::new();
    let mut at = 0usize;
    while at < bytes.len() {
        let head = bytes.get(at..at + width)?;
        let length = head.iter().enumerate().fold(0u64, |sum, (n, byte)| {
            let place = if big { width - 1 - n } else { n };
            sum | u64::from(*byte) << (8 * place)
        });
        let whole = length.checked_sub(own)?.checked_add(u64::from(octets))?;
        if length == 0 || whole > LONGEST {
            return None;
        }
        at = at.checked_add(usize::try_from(whole).ok()?)?;
        ends.push(at as u64);
    }
    (ends.len() >= 2 && at == bytes.len()).then_some(ends)
}

fn tls(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut ends = Vec::new();
    let mut at = 0usize;
    while let Some(head) = bytes.get(at..at + 5) {
        if !(20..=24).contains(&head[0]) || head[1] != 3 || head[2] > 4 {
            break;
        }
        at += 5 + usize::from(u16::from_be_bytes([head[3], head[4]]));
        ends.push(at as u64);
    }
    (!ends.is_empty()).then_some(ends)
}

/// HTTP/1 requests or answers, one behind the other.
fn http(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut ends = Vec::new();
    let mut at = 0usize;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let Some((head, length)) = http_head(rest) else { break };
        let end = match length {
            Length::Octets(octets) => at.saturating_add(head).saturating_add(octets),
            Length::Chunked => at + head + chunked(&rest[head..]),
            Length::UntilClose => bytes.len(),
        };
        ends.push(end as u64);
        at = end;
    }
    (!ends.is_empty()).then_some(ends)
}

enum Length {
    Octets(usize),
    Chunked,
    UntilClose,
}

fn http_head(bytes: &[u8]) -> Option<(usize, Length)> {
    let answer = bytes.starts_with(b"HTTP/1.");
    let word = bytes.split(|byte| *byte == b' ').next()?;
    let request = (3..=10).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
    if !answer && !request {
        return None;
    }
    let first = bytes.split(|byte| *byte == b'\n').next()?;
    if request && !first.trim_ascii_end().ends_with(b"HTTP/1.1") && !first.trim_ascii_end().ends_with(b"HTTP/1.0") {
        return None;
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let field = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
    };
    let status = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let empty = answer && (status.starts_with('1') || status == "204" || status == "304");
    let length = if empty {
        Length::Octets(0)
    } else if field("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        Length::Chunked
    } else if let Some(octets) = field("content-length").and_then(|value| value.parse().ok()) {
        Length::Octets(octets)
    } else if request {
        Length::Octets(0)
    } else {
        Length::UntilClose
    };
    Some((end, length))
}

/// Octets that a chunked body takes, as far as it is there.
fn chunked(bytes: &[u8]) -> usize {
    let mut at = 0usize;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else { return bytes.len() };
        let digits: String =
            rest[..line].iter().take_while(|byte| byte.is_ascii_hexdigit()).map(|byte| char::from(*byte)).collect();
        let Ok(size) = usize::from_str_radix(&digits, 16) else { return bytes.len() };
        if size == 0 {
            // Trailers end with an empty line.
            let tail = rest[line..].windows(4).position(|four| four == b"\r\n\r\n");
            return tail.map_or(bytes.len(), |end| at + line + end + 4);
        }
        at = at.saturating_add(line + 2).saturating_add(size).saturating_add(2);
        if at >= bytes.len() {
            return bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(frame: u64, offset: u64, bytes: &[u8]) -> Chunk {
        Chunk { side: 0, frame, offset, bytes: bytes.to_vec(), len: bytes.len() as u64, missing: 0, push: true }
    }

    /// `pieces` as the segments of one stream.
    fn framing(pieces: &[&[u8]]) -> Option<Framing> {
        let mut at = 0;
        let chunks: Vec<Chunk> = pieces
            .iter()
            .enumerate()
            .map(|(n, bytes)| {
                let one = chunk(n as u64 + 1, at, bytes);
                at += bytes.len() as u64;
                one
            })
            .collect();
        find(&chunks)
    }

    #[test]
    fn messages_stick_together_and_fall_apart() {
        let found = framing(&[b"\0\0\0\x03abc\0\0\0\x02d", b"e\0\0\0\x01f"]).unwrap();
        assert_eq!(found.protocol, Protocol::LengthBig(4));
        assert_eq!(found.messages.iter().map(|message| message.len).collect::<Vec<_>>(), [7, 6, 5]);
        assert_eq!((found.sticky, found.split), (vec![(1, 2), (2, 2)], vec![(1, 2)]));

        let found = framing(&[b"one\ntwo\nth", b"ree\n"]).unwrap();
        assert_eq!((found.protocol, found.messages.len()), (Protocol::Lines, 3));
        assert_eq!((found.sticky, found.split), (vec![(1, 3)], vec![(2, 2)]));

        let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let found = framing(&[&[&get[..], get].concat()]).unwrap();
        assert_eq!((found.protocol, found.messages.len()), (Protocol::Http, 2));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(framing(&[answer]).unwrap().messages.len(), 2);
        let cut = framing(&[b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhel"]).unwrap();
        assert!(!cut.messages[0].whole);
        assert_eq!(framing(&[b"\xff\xfe\x01random\x00\x01\x02"]), None);
    }

    proptest! {
        #[test]
        fn no_stream_makes_it_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = framing(&pieces);
        }

        #[test]
        fn every_octet_of_length_prefixed_messages_is_in_one(sizes in prop::collection::vec(1u32..300, 2..20), cut in 1usize..50) {
            let stream: Vec<u8> = sizes
                .iter()
                .flat_map(|size| size.to_be_bytes().into_iter().chain(std::iter::repeat_n(0xee, *size as usize)))
                .collect();
            let pieces: Vec<&[u8]> = stream.chunks(cut).collect();
            let found = framing(&pieces).unwrap();
            prop_assert_eq!(found.messages.len(), sizes.len());
            prop_assert_eq!(found.messages.iter().map(|message| message.len).sum::<u64>(), stream.len() as u64);
        }
    }
}
