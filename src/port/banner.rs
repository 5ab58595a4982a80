//! What a service says of itself, and what it therefore probably is.

use serde::Serialize;

use super::certificate::Certificate;
use crate::wire::calendar::date_of;

/// A service's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Banner {
    /// The protocol that it speaks, where that could be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// Its first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// What its TLS shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFacts>,
    /// Its answer to `GET /`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpFacts>,
    /// Why nothing could be learnt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A TLS handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TlsFacts {
    /// `TLSv1_3`.
    pub version: Option<String>,
    /// The server's certificate.
    pub certificate: Option<Certificate>,
    /// Whole days until it ends; negative when it has.
    pub days_left: Option<i64>,
    /// Why an application would refuse it; none where it would be trusted.
    pub fault: Option<String>,
}

/// An HTTP answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HttpFacts {
    /// Status code.
    pub status: u16,
    /// Its words.
    pub reason: String,
    /// `Server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// `Location`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// A text of a stranger's, made harmless for a terminal: what is not printable is written as an escape.
pub fn printable(octets: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(&octets[..octets.len().min(most)]);
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Directional marks could make a line read other than it is.
        let steers = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || steers {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// What greets first, by how it begins: where in the greeting, what, and what it is.
const GREETINGS: [(&[u8], &str); 17] = [
    (b"SSH-", "ssh"),
    (b"* OK", "imap"),
    (b"* PREAUTH", "imap"),
    (b"+OK", "pop3"),
    (b"RFB ", "vnc"),
    (b"@RSYNCD:", "rsync"),
    (b"-ERR unknown command", "redis"),
    (b"-ERR wrong number", "redis"),
    (b"-DENIED Redis", "redis"),
    (b"-NOAUTH", "redis"),
    (b"AMQP", "amqp"),
    (b"ERROR\r\n", "memcache"),
    (b"INFO {", "nats"),
    (b"( success", "svn"),
    (b"\x05\x00\x00\x00", "x11"),
    (b"HTTP/", "http"),
    (b"\x16\x03", "tls"),
];

/// What a greeting, or an answer to a request that was not understood, tells.
pub fn greeting(octets: &[u8]) -> Banner {
    let line = octets.split(|octet| matches!(octet, b'\r' | b'\n')).find(|line| !line.is_empty()).unwrap_or_default();
    let says = (!line.is_empty()).then(|| printable(line, 120));
    let mut protocol = GREETINGS.iter().find(|(start, _)| octets.starts_with(start)).map(|(_, name)| *name);
    let lower = octets.to_ascii_lowercase();
    let has = |word: &[u8]| lower.windows(word.len()).any(|part| part == word);
    if protocol.is_none() && (octets.starts_with(b"220 ") || octets.starts_with(b"220-")) {
        protocol = if has(b"smtp") || has(b"mail") || has(b"postfix") || has(b"exim") {
            Some("smtp")
        } else if has(b"ftp") {
            Some("ftp")
        } else {
            None
        };
    }
    // MySQL's and MariaDB's handshake packet: length (3), sequence 0, protocol version 10, version as text.
    if octets.len() > 6 && octets[3] == 0 && octets[4] == 10 {
        let version: Vec<u8> = octets[5..].iter().take_while(|octet| **octet != 0).copied().collect();
        if version.iter().all(u8::is_ascii_graphic) && version.first().is_some_and(u8::is_ascii_digit) {
            return Banner { protocol: Some("mysql"), says: Some(printable(&version, 80)), ..Banner::default() };
        }
    }
    // Telnet: negotiation (RFC 854).
    if octets.first() == Some(&255) && octets.get(1).is_some_and(|command| *command >= 250) {
        return Banner { protocol: Some("telnet"), ..Banner::default() };
    }
    Banner { protocol, says, http: http(octets), ..Banner::default() }
}

/// Reads an HTTP answer's head.
pub fn http(octets: &[u8]) -> Option<HttpFacts> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer.parse(octets);
    let status = answer.code.filter(|_| parsed.is_ok() || answer.version.is_some())?;
    let header = |name: &str| {
        let found = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.filter(|header| !header.value.is_empty()).map(|header| printable(header.value, 120))
    };
    let reason = printable(answer.reason.unwrap_or_default().as_bytes(), 60);
    Some(HttpFacts { status, reason, server: header("server"), location: header("location") })
}

/// Whether an answer in clear says that TLS is spoken here: an alert, or a web server's words.
pub fn wants_tls(octets: &[u8]) -> bool {
    let words: [&[u8]; 3] = [b"HTTPS port", b"HTTP request to an HTTPS server", b"SSL-enabled server port"];
    octets.starts_with(&[0x15, 3]) || words.iter().any(|word| octets.windows(word.len()).any(|part| part == *word))
}

/// Ports on which TLS is spoken from the first octet.
pub fn usually_tls(port: u16) -> bool {
    matches!(
        port,
        443 | 465 | 563 | 636 | 853 | 989 | 990 | 992
            ..=995 | 2376 | 5061 | 5671 | 5986 | 6443 | 6697 | 8443 | 8883 | 9443 | 10250
    )
}

/// Ports on which the client speaks first, in HTTP.
pub fn usually_http(port: u16) -> bool {
    matches!(port, 80 | 81 | 591 | 3000 | 5000 | 5984 | 5985 | 8000..=8010 | 8080..=8090 | 8888 | 9090 | 9200)
}

impl Banner {
    /// The line beside the port.
    pub fn line(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        if let Some(tls) = &self.tls {
            parts.push(tls.version.as_deref().unwrap_or("TLS").replace('_', "."));
        }
        match (&self.http, &self.says) {
            (Some(http), _) => {
                parts.push(format!("HTTP {} {}", http.status, http.reason).trim_end().to_owned());
                parts.extend(http.server.clone());
                parts.extend(http.location.as_ref().map(|to| format!("to {to}")));
            }
            (None, Some(says)) => {
                let named = self.protocol.filter(|name| !says.to_ascii_lowercase().contains(*name));
                parts.extend(named.map(str::to_owned));
                parts.push(says.clone());
            }
            (None, None) => parts.extend(self.protocol.filter(|_| self.tls.is_none()).map(str::to_owned)),
        }
        if parts.is_empty() {
            parts.extend(self.failure.clone());
        }
        parts.join(", ")
    }

    /// What else is to be told, a line each.
    pub fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        let Some(tls) = &self.tls else { return facts };
        if let Some(certificate) = &tls.certificate {
            let names = certificate.names.iter().take(6).cloned().collect::<Vec<_>>().join(", ");
            let more = if certificate.names.len() > 6 { ", …" } else { "" };
            let subject = certificate.subject.clone().unwrap_or_default();
            let whom = if names.is_empty() { subject } else { format!("{names}{more}") };
            let issuer = if certificate.self_issued {
                "signed by itself".to_owned()
            } else {
                format!("signed by {}", certificate.issuer.as_deref().unwrap_or("nobody named"))
            };
            let until = match (certificate.not_after, tls.days_left) {
                (Some(at), Some(days)) if days < 0 => format!(", expired on {} ({} days ago)", date_of(at), -days),
                (Some(at), Some(days)) => format!(", valid until {} ({days} days)", date_of(at)),
                _ => String::new(),
            };
            facts.push(format!("certificate for {whom}, {issuer}{until}"));
        }
        facts.extend(tls.fault.as_ref().map(|fault| format!("an application would refuse it: {fault}")));
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_their_words() {
        for (octets, protocol, line) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], Some("ssh"), "SSH-2.0-OpenSSH_9.2"),
            (b"220 mx.example ESMTP Postfix\r\n", Some("smtp"), "220 mx.example ESMTP Postfix"),
            (b"220 (vsFTPd 3.0.3)\r\n", Some("ftp"), "220 (vsFTPd 3.0.3)"),
            (b"J\0\0\0\n8.0.36\0abc", Some("mysql"), "mysql, 8.0.36"),
            (b"\xff\xfd\x18\xff\xfd\x20", Some("telnet"), "telnet"),
            (
                b"HTTP/1.1 301 Moved\r\nServer: nginx\r\nLocation: https://x/\r\n\r\n",
                Some("http"),
                "HTTP 301 Moved, nginx, to https://x/",
            ),
            (b"hello\n", None, "hello"),
            (b"", None, ""),
        ] {
            let banner = greeting(octets);
            assert_eq!((banner.protocol, banner.line().as_str()), (protocol, line), "{octets:?}");
        }
        assert!(
            wants_tls(b"\x15\x03\x01\0\x02\x02\x16")
                && wants_tls(b"HTTP/1.1 400 x\r\n\r\nThe plain HTTP request was sent to HTTPS port")
        );
    }

    #[test]
    fn a_hostile_greeting_does_not_reach_the_terminal() {
        let line = greeting(b"\x1b]0;owned\x07\x1b[2J\xe2\x80\xaeevil").line();
        assert_eq!(line, "\\u{1b}]0;owned\\u{7}\\u{1b}[2J\\u{202e}evil");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let banner = greeting(&octets);
            proptest::prop_assert!(!banner.line().chars().any(char::is_control));
            let _ = wants_tls(&octets);
        }
    }
}
