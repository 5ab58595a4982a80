//! A question by HTTPS (RFC 8484), over HTTP/1.1: the smallest thing that servers understand.

use std::io::{self, Read, Write};

use super::wire::net_error;
use crate::dns::{NetError, NetErrorKind};

/// No DNS message is larger, and no server's headers are.
const LARGEST: usize = 1 << 17;

/// Posts `message` and reads the answer.
pub(super) fn ask(
    stream: &mut (impl Read + Write),
    host: &str,
    path: &str,
    message: &[u8],
) -> Result<Vec<u8>, NetError> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/dns-message\r\n\
         Content-Type: application/dns-message\r\nContent-Length: {}\r\n\r\n",
        message.len()
    );
    let request = [head.as_bytes(), message].concat();
    stream.write_all(&request).and_then(|()| stream.flush()).map_err(|error| net_error(&error))?;
    let mut reader = Reader { stream, octets: Vec::new() };
    reader.answer()
}

fn http(says: impl Into<String>) -> NetError {
    NetError::new(NetErrorKind::Http, says)
}

struct Reader<'a, S> {
    stream: &'a mut S,
    octets: Vec<u8>,
}

impl<S: Read> Reader<'_, S> {
    /// Reads on; false at the end of the stream.
    fn more(&mut self) -> Result<bool, NetError> {
        if self.octets.len() > LARGEST {
            return Err(http("the answer is larger than any DNS message"));
        }
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.octets.extend_from_slice(&buffer[..length]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(net_error(&error)),
        }
    }

    fn answer(&mut self) -> Result<Vec<u8>, NetError> {
        let (status, length, chunked, kind, begin) = loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(&self.octets) {
                Ok(httparse::Status::Complete(begin)) => {
                    let header = |name: &str| {
                        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
                        found.map(|header| String::from_utf8_lossy(header.value).trim().to_ascii_lowercase())
                    };
                    let length = header("content-length").and_then(|value| value.parse::<usize>().ok());
                    let chunked = header("transfer-encoding").is_some_and(|value| value.ends_with("chunked"));
                    break (response.code.unwrap_or(0), length, chunked, header("content-type"), begin);
                }
                Ok(httparse::Status::Partial) => {
                    if !self.more()? {
                        return Err(http("the server closed the connection within its headers"));
                    }
                }
                Err(error) => return Err(http(format!("this is no HTTP/1.1 answer: {error}"))),
            }
        };
        if status != 200 {
            return Err(http(format!("the server answered HTTP {status}")));
        }
        if !kind.as_deref().is_some_and(|kind| kind.starts_with("application/dns-message")) {
            let kind = kind.unwrap_or_else(|| "nothing named".to_owned());
            return Err(http(format!("the server answered {kind}, not application/dns-message")));
        }
        self.octets.drain(..begin);
        if chunked {
            return self.chunks();
        }
        let length = length.filter(|length| *length <= LARGEST);
        while length.is_none_or(|length| self.octets.len() < length) && self.more()? {}
        match length {
            Some(length) if self.octets.len() < length => Err(http("the answer is shorter than announced")),
            Some(length) => Ok(self.octets[..length].to_vec()),
            None => Ok(std::mem::take(&mut self.octets)),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, NetError> {
        let mut body = Vec::new();
        let mut at = 0;
        loop {
            match httparse::parse_chunk_size(self.octets.get(at..).unwrap_or_default()) {
                Ok(httparse::Status::Complete((_, 0))) => return Ok(body),
                Ok(httparse::Status::Complete((head, size))) => {
                    let size = usize::try_from(size).ok().filter(|size| *size <= LARGEST);
                    let size = size.ok_or_else(|| http("a chunk is larger than any DNS message"))?;
                    let end = at + head + size;
                    while self.octets.len() < end + 2 {
                        if !self.more()? {
                            return Err(http("the server closed the connection within a chunk"));
                        }
                    }
                    body.extend_from_slice(&self.octets[at + head..end]);
                    at = end + 2;
                }
                Ok(httparse::Status::Partial) => {
                    if !self.more()? {
                        return Err(http("the server closed the connection between chunks"));
                    }
                }
                Err(_) => return Err(http("a chunk's size cannot be read")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Script(io::Cursor<Vec<u8>>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            // A few octets at a time, as a slow line has it.
            let most = buffer.len().min(7);
            self.0.read(&mut buffer[..most])
        }
    }

    impl Write for Script {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(text: &[u8]) -> Result<Vec<u8>, NetError> {
        ask(&mut Script(io::Cursor::new(text.to_vec())), "h", "/dns-query", b"q")
    }

    #[test]
    fn lengths_chunks_and_refusals() {
        let kind = "Content-Type: application/dns-message\r\n";
        let with = |head: &str, body: &str| answer(format!("HTTP/1.1 200 OK\r\n{kind}{head}\r\n{body}").as_bytes());
        assert_eq!(with("Content-Length: 3\r\n", "abcd").unwrap(), b"abc");
        assert_eq!(with("", "abc").unwrap(), b"abc");
        assert_eq!(with("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").unwrap(), b"abc");
        assert!(with("Content-Length: 9\r\n", "abc").unwrap_err().says.contains("shorter"));
        assert!(with("Transfer-Encoding: chunked\r\n", "ffffffffff\r\n").is_err());
        assert!(answer(b"HTTP/1.1 404 No\r\n\r\n").unwrap_err().says.contains("404"));
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<").unwrap_err().says.contains("text/html"));
        assert!(answer(b"SSH-2.0-x\r\n").is_err());
        assert!(answer(b"").is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(tail: Vec<u8>, chunked: bool) {
            let head = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/dns-message\r\n{head}\r\n");
            let _ = answer(&[head.as_bytes(), &tail].concat());
            let _ = answer(&tail);
        }
    }
}
