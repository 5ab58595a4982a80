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
}

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
        match &mut self.chunked {
            None => self.body += octets.len() as u64,
            Some(chunks) => self.body += chunks.take(octets),
        }
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
    /// Takes octets; returns how many of them were body.
    fn take(&mut self, mut octets: &[u8]) -> u64 {
        let mut body = 0;
        while let [first, rest @ ..] = octets {
            if self.done || self.broken {
                break;
            }
            if self.left > 0 {
                let here = usize::try_from(self.left).map_or(octets.len(), |left| left.min(octets.len()));
                body += here as u64;
                self.left -= here as u64;
                octets = &octets[here..];
                continue;
            }
            octets = rest;
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
        body
    }
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
        let (reader, _) = read(&["SSH-2.0-OpenSSH_9.2\r\n"]);
        assert_eq!(reader.not_http.as_deref(), Some("SSH-2.0-OpenSSH_9.2\\r\\n"));
    }
}
