//! An HTTP/1.1 server, std threads and httparse. `/data` is the API of the lab's stories; the other
//! paths each do one thing that goes wrong with HTTP.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::{ServiceError, listen, ready, serve};

/// Largest request head, in octets; a longer one is answered 431.
const LARGEST_HEAD: usize = 16 << 10;
/// What `/data` holds.
const DATA: &str = "{\"service\":\"data\",\"items\":[1,2,3]}\n";

/// How the HTTP service is started.
#[derive(Debug, Clone, clap::Args)]
pub struct HttpOptions {
    /// Address to listen on; repeatable
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: Vec<SocketAddr>,
    /// What /data answers: a status, ok, hang, deaf, close, reset, torn, truncated, misframed, chunked, garbage, delay=MS, octets=N
    #[arg(long, default_value = "ok")]
    pub answer: Answer,
    /// The process's name
    #[arg(long)]
    pub name: Option<String>,
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This status, with a body.
    Status(u16),
    /// 200, after so long.
    Delay(Duration),
    /// The request is read and never answered.
    Hang,
    /// The request is not even read.
    Deaf,
    /// The connection is closed in order, with no answer.
    Close,
    /// The connection is reset, without a word.
    Reset,
    /// The connection is reset in the middle of the answer.
    Torn,
    /// The body is shorter than announced.
    Truncated,
    /// The body is longer than announced: a second answer runs into the first.
    Misframed,
    /// 200, with a body of so many octets.
    Octets(usize),
    /// 200 in chunks.
    Chunked,
    /// Octets that are not HTTP.
    Garbage,
}

impl FromStr for Answer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(millis) = text.strip_prefix("delay=") {
            let millis = millis.parse().map_err(|_| format!("`{millis}` is no number of milliseconds"))?;
            return Ok(Self::Delay(Duration::from_millis(millis)));
        }
        if let Some(octets) = text.strip_prefix("octets=") {
            let octets = octets.parse().map_err(|_| format!("`{octets}` is no number of octets"))?;
            return Ok(Self::Octets(octets));
        }
        Ok(match text {
            "ok" => Self::Status(200),
            "hang" => Self::Hang,
            "deaf" => Self::Deaf,
            "close" => Self::Close,
            "reset" => Self::Reset,
            "torn" => Self::Torn,
            "truncated" => Self::Truncated,
            "misframed" => Self::Misframed,
            "chunked" => Self::Chunked,
            "garbage" => Self::Garbage,
            code => Self::Status(
                code.parse()
                    .ok()
                    .filter(|code| (100..1000).contains(code))
                    .ok_or_else(|| format!("`{code}` is no answer of this service"))?,
            ),
        })
    }
}

/// What a path gets: `/data` the chosen answer, `/status/N`, `/delay/MS`, `/hang`, … always their own.
fn route(path: &str, data: Answer) -> Answer {
    let path = path.split('?').next().unwrap_or(path);
    match path.strip_prefix('/').unwrap_or(path) {
        "data" => data,
        "" | "health" => Answer::Status(200),
        other => other
            .strip_prefix("status/")
            .map(str::to_owned)
            .or_else(|| other.strip_prefix("delay/").map(|millis| format!("delay={millis}")))
            .unwrap_or_else(|| other.to_owned())
            .parse()
            .unwrap_or(Answer::Status(404)),
    }
}

/// The reason phrase; the common ones, since people read them.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

/// Runs the service; returns only when it cannot begin.
pub fn run(options: &HttpOptions) -> Result<(), ServiceError> {
    let listeners = options.listen.iter().map(|address| listen(*address)).collect::<Result<Vec<_>, _>>()?;
    ready(options.name.as_deref())?;
    let answer = options.answer;
    let threads: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            thread::spawn(move || {
                serve(&listener, move |mut stream| {
                    if answer == Answer::Deaf {
                        forever();
                    }
                    converse(&mut stream, answer, |stream| SockRef::from(stream).set_linger(Some(Duration::ZERO)))
                });
            })
        })
        .collect();
    for thread in threads {
        // A listener's thread ends only by a panic, and then the others go on.
        let _ = thread.join();
    }
    Ok(())
}

fn forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Answers the requests of one connection, over TCP or TLS. `reset` makes the close a reset.
pub(super) fn converse<S: Read + Write>(
    stream: &mut S,
    data: Answer,
    reset: impl Fn(&S) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(path) = read_request(stream, &mut buffer)? else { return Ok(()) };
        let answer = match path {
            Ok(path) => route(&path, data),
            // Where the next request would begin is not known, so this is the last answer.
            Err(status) => return respond(stream, status),
        };
        match answer {
            Answer::Status(status) => respond(stream, status)?,
            Answer::Delay(time) => {
                thread::sleep(time);
                respond(stream, 200)?;
            }
            Answer::Hang | Answer::Deaf => forever(),
            Answer::Close => return Ok(()),
            Answer::Reset => return reset(stream),
            Answer::Torn => {
                announce_too_much(stream)?;
                stream.flush()?;
                // A reset takes back what the client has not yet been given.
                thread::sleep(Duration::from_millis(50));
                return reset(stream);
            }
            Answer::Truncated => return announce_too_much(stream),
            Answer::Misframed => {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{DATA}", DATA.len());
                stream.write_all(format!("{answer}{answer}").as_bytes())?;
            }
            Answer::Octets(octets) => {
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {octets}\r\n\r\n").as_bytes())?;
                let block = [b'x'; 4096];
                let mut left = octets;
                while left > 0 {
                    let here = left.min(block.len());
                    stream.write_all(&block[..here])?;
                    left -= here;
                }
            }
            Answer::Chunked => {
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
                )?;
                for piece in DATA.as_bytes().chunks(8) {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                    stream.write_all(piece)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            Answer::Garbage => return stream.write_all(b"\x00\x01\x02 this is not HTTP\r\n"),
        }
        stream.flush()?;
    }
}

/// The beginning of an answer that is said to be ten times as long.
fn announce_too_much(stream: &mut impl Write) -> io::Result<()> {
    let length = DATA.len() * 10;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{DATA}").as_bytes())
}

fn respond(stream: &mut impl Write, status: u16) -> io::Result<()> {
    let body = if status == 200 { DATA.to_owned() } else { format!("{{\"error\":\"{}\"}}\n", reason(status)) };
    // A 204 has no body (RFC 9110, 15.3.5).
    let body = if status == 204 { "" } else { &body };
    let head = format!(
        "HTTP/1.1 {status} {}\r\nServer: reachwhy-lab\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        reason(status),
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())
}

/// Reads one request with its body: its path, or the status that refuses it; none when the client closed.
fn read_request<S: Read>(stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<Option<Result<String, u16>>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(buffer) {
            Ok(httparse::Status::Complete(head)) => {
                let path = request.path.unwrap_or("/").to_owned();
                let body = request
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                    .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok())
                    .unwrap_or(0);
                let end = head.saturating_add(body);
                while buffer.len() < end {
                    if read_more(stream, buffer)? == 0 {
                        return Ok(None);
                    }
                    // The body is of no interest: only its end is.
                    if buffer.len() > LARGEST_HEAD * 64 {
                        return Ok(Some(Err(413)));
                    }
                }
                buffer.drain(..end);
                return Ok(Some(Ok(path)));
            }
            Ok(httparse::Status::Partial) if buffer.len() > LARGEST_HEAD => return Ok(Some(Err(431))),
            Ok(httparse::Status::Partial) => {
                if read_more(stream, buffer)? == 0 {
                    return Ok(None);
                }
            }
            Err(_) => return Ok(Some(Err(400))),
        }
    }
}

fn read_more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 4096];
    let read = stream.read(&mut piece)?;
    buffer.extend_from_slice(&piece[..read]);
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pipe(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Pipe {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.0.read(to)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.1.write(from)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ask(request: &str, data: Answer) -> String {
        let mut pipe = Pipe(io::Cursor::new(request.as_bytes().to_vec()), Vec::new());
        converse(&mut pipe, data, |_| Ok(())).unwrap();
        String::from_utf8_lossy(&pipe.1).into_owned()
    }

    #[test]
    fn each_path_does_its_thing() {
        let get = |path: &str| ask(&format!("GET {path} HTTP/1.1\r\nHost: api\r\n\r\n"), Answer::Status(200));
        assert!(get("/data").starts_with("HTTP/1.1 200 OK\r\n") && get("/data?x=1").ends_with(DATA));
        assert!(get("/status/503").starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(get("/nothing/here").starts_with("HTTP/1.1 404 "));
        assert!(get("/status/99999").starts_with("HTTP/1.1 404 "));
        assert!(get("/chunked").contains("chunked") && get("/chunked").ends_with("0\r\n\r\n"));
        assert_eq!(get("/close"), "");
        assert!(get("/truncated").len() < 400);
        assert!(ask("GET /data HTTP/1.1\r\n\r\n", Answer::Status(500)).starts_with("HTTP/1.1 500 "));
    }

    #[test]
    fn two_requests_on_one_connection_and_a_body_between() {
        let both = ask(
            "POST /data HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /status/404 HTTP/1.1\r\n\r\n",
            Answer::Status(200),
        );
        assert_eq!(both.matches("HTTP/1.1 ").count(), 2, "{both}");
        assert!(both.contains(" 404 "));
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert!(ask("\x16\x03\x01\x02\x00", Answer::Status(200)).starts_with("HTTP/1.1 400 "));
        assert!(
            ask(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(20000)), Answer::Status(200))
                .starts_with("HTTP/1.1 431 ")
        );
        assert!("soon".parse::<Answer>().is_err() && "delay=x".parse::<Answer>().is_err());
    }
}
