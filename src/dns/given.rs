//! A server as `--server` takes it.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::wire::Transport;

/// `192.168.1.53`, `192.168.1.53:5353`, `[fd00::53]:53`, `tcp://…`, `tls://dns.example`,
/// `https://dns.example/dns-query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenServer {
    /// How to ask it.
    pub transport: Transport,
    /// Its address or name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path of the HTTPS service.
    pub path: Option<String>,
    /// The name in its certificate, where given behind `#`.
    pub tls_name: Option<String>,
}

impl GivenServer {
    /// The address, where one was given.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for GivenServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("udp", text));
        let (transport, usual) = match scheme.to_ascii_lowercase().as_str() {
            "udp" | "dns" => (Transport::Udp, 53),
            "tcp" => (Transport::Tcp, 53),
            "tls" | "dot" => (Transport::Tls, 853),
            "https" | "doh" => (Transport::Https, 443),
            other => return Err(format!("`{other}` is no way to ask a server; there are udp, tcp, tls and https")),
        };
        let (rest, path) = match (transport, rest.find('/')) {
            (Transport::Https, Some(at)) => (&rest[..at], Some(rest[at..].to_owned())),
            (Transport::Https, None) => (rest, Some("/dns-query".to_owned())),
            (_, Some(_)) => return Err("only https:// takes a path".to_owned()),
            (_, None) => (rest, None),
        };
        if path.as_deref().is_some_and(|path| path.bytes().any(|octet| !octet.is_ascii_graphic())) {
            return Err("the path has characters that do not belong into a URL".to_owned());
        }
        let (rest, tls_name) = match rest.split_once('#') {
            Some((rest, name)) if !name.is_empty() => (rest, Some(name.to_owned())),
            Some(_) => return Err("nothing stands behind the `#`".to_owned()),
            None => (rest, None),
        };
        let (host, port) = host_and_port(rest)?;
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{port}` is no port"))?,
            None => usual,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("a server's address or name is missing".to_owned());
        }
        Ok(Self { transport, host: host.to_owned(), port, path, tls_name })
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, after) = inner.split_once(']').ok_or_else(|| "the `[` is not closed".to_owned())?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(format!("`{host}` is no IPv6 address"));
        }
        return match (after, after.strip_prefix(':')) {
            ("", _) => Ok((host, None)),
            (_, Some(port)) => Ok((host, Some(port))),
            _ => Err(format!("`{after}` behind the `]` is no port")),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(format!("`{text}` is no IPv6 address")),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, String, u16), String> {
        text.parse::<GivenServer>().map(|given| (given.transport.to_string(), given.host, given.port))
    }

    #[test]
    fn every_form() {
        let ok = |transport: &str, host: &str, port| Ok((transport.to_owned(), host.to_owned(), port));
        assert_eq!(read("192.168.1.53"), ok("udp", "192.168.1.53", 53));
        assert_eq!(read("192.168.1.53:5353"), ok("udp", "192.168.1.53", 5353));
        assert_eq!(read("fd00::53"), ok("udp", "fd00::53", 53));
        assert_eq!(read("[fd00::53]:54"), ok("udp", "fd00::53", 54));
        assert_eq!(read("tcp://[fd00::53]"), ok("tcp", "fd00::53", 53));
        assert_eq!(read("TLS://dns.example#other"), ok("tls", "dns.example", 853));
        assert_eq!(read("https://dns.example"), ok("https", "dns.example", 443));
        let doh: GivenServer = "https://dns.example:8443/q".parse().unwrap();
        assert_eq!((doh.port, doh.path.as_deref()), (8443, Some("/q")));
        for bad in [
            "",
            "ftp://x",
            "1.2.3.4:0",
            "1.2.3.4:x",
            "[::1",
            "[x]:1",
            "[::1]x",
            "a:b:c",
            "udp://a/b",
            "a#",
            "a b",
            "https://a/b c",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = read(&text);
        }
    }
}
