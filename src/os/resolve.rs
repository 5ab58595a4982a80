//! A name's addresses as an application gets them: the C library's own `getaddrinfo`.

use std::net::{IpAddr, ToSocketAddrs};
use std::time::Instant;

/// What the C library said.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The addresses in its order (RFC 6724, gai.conf), each once.
    pub addresses: Vec<IpAddr>,
    /// Its error, in its own words.
    pub error: Option<String>,
    /// The error's name in `netdb.h`, where the words are those of one.
    pub eai: Option<&'static str>,
    /// How long it took, milliseconds.
    pub ms: f64,
}

/// The C locale's words for each error (`gai_strerror(3)`), which this program never changes.
const WORDS: [(&str, &str); 6] = [
    ("Name or service not known", "EAI_NONAME"),
    ("Temporary failure in name resolution", "EAI_AGAIN"),
    ("No address associated with hostname", "EAI_NODATA"),
    ("Non-recoverable failure in name resolution", "EAI_FAIL"),
    ("Address family for hostname not supported", "EAI_ADDRFAMILY"),
    ("System error", "EAI_SYSTEM"),
];

/// Asks. It may take as long as resolv.conf's timeouts add up to.
pub fn resolve(name: &str) -> Resolved {
    let start = Instant::now();
    let answer = (name, 0).to_socket_addrs();
    let ms = start.elapsed().as_secs_f64() * 1e3;
    match answer {
        Ok(found) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found.map(|socket| socket.ip()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Resolved { addresses, error: None, eai: None, ms }
        }
        Err(error) => {
            let said = error.to_string();
            let eai = WORDS.iter().find(|(words, _)| said.contains(words)).map(|(_, name)| *name);
            let error = said.rsplit_once(": ").map_or(said.clone(), |(_, words)| words.to_owned());
            Resolved { addresses: Vec::new(), error: Some(error), eai, ms }
        }
    }
}
