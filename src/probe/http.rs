//! Reading an HTTP/1.x answer as its octets come: is it HTTP, which status, and is it whole?

use super::exchange::HttpEnd;

/// Heads larger than this are refused by every server and client in use.
const HEAD_LIMIT: usize = 64 << 10;

/// Follows an answer's framing (RFC 9112 §6) as its octets come.
#[derive(Debug, Default)]
pub struct AnswerReader {
    head: Vec<u8>,
    /// Octets received in all.
    pub received: u64,
    /// Octets of body.
    pub body: u64,
    /// The status, once the head is complete.
    pub status: Option<u16>,
    /// The fields worth keeping, names in lower case.
    pub headers: Vec<(String, String)>,
    /// What `Content-Length` promised.
    pub length: Option<u64>,
    chunked: Option<Chunks>,
    /// The first octets, made printable, where they are no HTTP.
    pub not_http: Option<String>,
    /// The first octets of the body.
    start: Vec<u8>,
    /// The first octets behind the end of the body, and how many there were.
    surplus: (Vec<u8>, u64),
    /// What the head says of the body's length that cannot be.
    torn_head: Option<String>,
}

/// Octets of a body, and of what follows it, that are kept for people to see.
const KEPT: usize = 2048;

/// Where we are in a chunked body (RFC 9112 §7.1).
#[derive(Debug, Default)]
struct Chunks {
    line: Vec<u8>,
    left: u64,
    trailer: bool,
    done: bool,
    broken: bool,
}

impl AnswerReader {
    /// Takes the next octets.
    pub fn take(&mut self, octets: &[u8]) {
        self.received += octets.len() as u64;
        if self.not_http.is_some() {
            return;
        }
        if self.status.is_some() {
            self.take_body(octets);
            return;
        }
        self.head.extend_from_slice(octets);
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut answer = httparse::Response::new(&mut fields);
            match answer.parse(&self.head) {
                Ok(httparse::Status::Complete(end)) => {
                    let status = answer.code.unwrap_or(0);
                    let fields: Vec<(String, String)> = answer
                        .headers
                        .iter()
                        .map(|f| (f.name.to_ascii_lowercase(), String::from_utf8_lossy(f.value).into_owned()))
                        .collect();
                    let rest = self.head.split_off(end);
                    if (100..200).contains(&status) && status != 101 {
                        // An interim answer: the real one follows.
                        self.head = rest;
                        continue;
                    }
                    self.begin_body(status, &fields);
                    self.take_body(&rest);
                }
                Ok(httparse::Status::Partial) if self.head.len() <= HEAD_LIMIT => {}
                _ => self.not_http = Some(printable(&self.head)),
            }
            return;
        }
    }

    fn begin_body(&mut self, status: u16, fields: &[(String, String)]) {
        self.status = Some(status);
        let field = |name: &str| fields.iter().find(|(have, _)| have == name).map(|(_, value)| value.trim());
        let lengths: Vec<&str> =
            fields.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value.trim()).collect();
        let distinct = lengths.windows(2).any(|pair| pair[0] != pair[1]);
        self.torn_head = match lengths.as_slice() {
            [first, ..] if distinct => {
                Some(format!("two values of Content-Length: {first} and {}", lengths[lengths.len() - 1]))
            }
            [first, ..] if first.parse::<u64>().is_err() => Some(format!("Content-Length is no number: {first}")),
            _ => None,
        };
        if field("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked")) {
            self.chunked = Some(Chunks::default());
        } else if matches!(status, 204 | 304) {
            self.length = Some(0);
        } else {
            self.length = field("content-length").and_then(|value| value.parse().ok());
        }
        let kept = ["server", "via", "location", "content-type", "date"];
        self.headers = fields.iter().filter(|(name, _)| kept.contains(&name.as_str())).cloned().collect();
    }

    fn take_body(&mut self, octets: &[u8]) {
        let (body, rest) = match (&mut self.chunked, self.length) {
            (Some(chunks), _) => {
                let (body, used) = chunks.take(octets, &mut self.start);
                self.body += body;
                (&[][..], &octets[used..])
            }
            (None, None) => (octets, &[][..]),
            (None, Some(length)) => {
                let left = usize::try_from(length.saturating_sub(self.body)).unwrap_or(usize::MAX);
                octets.split_at(left.min(octets.len()))
            }
        };
        self.body += body.len() as u64;
        keep(&mut self.start, body);
        keep(&mut self.surplus.0, rest);
        self.surplus.1 += rest.len() as u64;
    }

    /// What breaks the framing (RFC 9112 §6): a length that is none or stands twice, a chunk without its size,
    /// octets behind the end of the answer.
    pub fn misframed(&self) -> Option<String> {
        if self.torn_head.is_some() {
            return self.torn_head.clone();
        }
        if self.chunked.as_ref().is_some_and(|chunks| chunks.broken) {
            return Some(format!("a chunk of the body begins without its size, after {} octets", self.body));
        }
        let (octets, count) = &self.surplus;
        if *count == 0 {
            return None;
        }
        let what = if octets.starts_with(b"HTTP/1.") {
            "a second answer runs into the first"
        } else {
            "octets follow the end of the answer"
        };
        Some(format!("{what}: {count} more came behind the {} of the body, `{}`", self.body, printable(octets)))
    }

    /// The beginning of an error's page, as text.
    pub fn page(&self) -> Option<String> {
        self.status.filter(|status| *status >= 400)?;
        let text: String =
            String::from_utf8_lossy(&self.start).chars().filter(|c| !c.is_control() || *c == '\n').collect();
        (!text.is_empty()).then_some(text)
    }

    /// Whether the answer is whole by its own framing.
    pub fn complete(&self) -> bool {
        match (&self.chunked, self.length) {
            (Some(chunks), _) => chunks.done,
            (None, Some(length)) => self.status.is_some() && self.body >= length,
            (None, None) => false,
        }
    }

    /// The peer closed: complete if nothing framed the body, else cut off.
    pub fn at_close(&mut self) -> HttpEnd {
        if self.status.is_none() && self.not_http.is_none() && !self.head.is_empty() {
            self.not_http = Some(printable(&self.head));
        }
        let unframed = self.status.is_some() && self.chunked.is_none() && self.length.is_none();
        if unframed || self.complete() { HttpEnd::Complete } else { HttpEnd::Closed }
    }
}

impl Chunks {
    /// Takes octets; returns how many of them were body, and how many belonged to the answer at all.
    fn take(&mut self, octets: &[u8], start: &mut Vec<u8>) -> (u64, usize) {
        let (mut body, mut at) = (0, 0);
        while let (Some(first), false) = (octets.get(at), self.done || self.broken) {
            if self.left > 0 {
                let rest = octets.len() - at;
                let here = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                keep(start, &octets[at..at + here]);
                body += here as u64;
                self.left -= here as u64;
                at += here;
                continue;
            }
            at += 1;
            if *first != b'\n' {
                self.line.push(*first);
                self.broken = self.line.len() > HEAD_LIMIT;
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            match (self.trailer, line.is_empty()) {
                (true, done) => self.done = done,
                (false, true) => {}
                (false, false) => match u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16) {
                    Ok(0) => self.trailer = true,
                    Ok(size) => self.left = size,
                    Err(_) => self.broken = true,
                },
            }
        }
        (body, if self.broken { octets.len() } else { at })
    }
}

/// Keeps octets up to [`KEPT`].
fn keep(kept: &mut Vec<u8>, octets: &[u8]) {
    let room = KEPT.saturating_sub(kept.len()).min(octets.len());
    kept.extend_from_slice(&octets[..room]);
}

/// The first octets as text, for a person to recognise.
fn printable(octets: &[u8]) -> String {
    octets.iter().take(64).flat_map(|octet| std::ascii::escape_default(*octet)).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&str]) -> (AnswerReader, HttpEnd) {
        let mut reader = AnswerReader::default();
        for part in parts {
            reader.take(part.as_bytes());
        }
        let end = if reader.complete() { HttpEnd::Complete } else { reader.at_close() };
        (reader, end)
    }

    #[test]
    fn an_answer_is_complete_when_its_framing_says_so() {
        for (parts, status, body, end) in [
            (vec!["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"], Some(200), 5, HttpEnd::Complete),
            (vec!["HTTP/1.1 200 OK\r\nContent-", "Length: 5\r\n\r\nhel"], Some(200), 3, HttpEnd::Closed),
            (vec!["HTTP/1.0 200 OK\r\n\r\nto the end"], Some(200), 10, HttpEnd::Complete),
            (vec!["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"], Some(204), 0, HttpEnd::Complete),
            (
                vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "lo\r\n0\r\n\r\n"],
                Some(200),
                5,
                HttpEnd::Complete,
            ),
            (vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"], Some(200), 3, HttpEnd::Closed),
            (vec![], None, 0, HttpEnd::Closed),
        ] {
            let (reader, ended) = read(&parts);
            assert_eq!((reader.status, reader.body, ended), (status, body, end), "{parts:?}");
        }
        for (parts, says) in [
            (vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n"], "a second answer"),
            (vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "ok and more"], "octets follow the end"),
            (vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n"], "a chunk of the body"),
            (vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nxx"], "octets follow the end"),
            (vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"], "two values"),
            (vec!["HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"], "Content-Length is no number"),
        ] {
            let (reader, _) = read(&parts);
            assert!(reader.misframed().is_some_and(|why| why.starts_with(says)), "{parts:?}: {:?}", reader.misframed());
        }
        let (reader, _) = read(&["SSH-2.0-OpenSSH_9.2\r\n"]);
        assert_eq!(reader.not_http.as_deref(), Some("SSH-2.0-OpenSSH_9.2\\r\\n"));
    }
}
