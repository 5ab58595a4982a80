//! What the doctor is asked to reach.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far the walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// A host alone: does it answer an ICMP echo?
    Host,
    /// A TCP port: does the handshake complete?
    Tcp,
    /// A UDP port: does anything answer a datagram, or say that nobody is there?
    Udp,
    /// HTTP in clear.
    Http,
    /// HTTP over TLS.
    Https,
}

/// `HOST:PORT`, `tcp://…`, `udp://…`, `http://…`, `https://…` or `HOST`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// How far the walk goes.
    pub scheme: Scheme,
    /// A name or a numeric address, without brackets.
    pub host: String,
    /// The port; `None` for a host alone.
    pub port: Option<u16>,
    /// Path and query of the request, `/` at least; empty where there is no request.
    pub path: String,
}

/// The text was no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no target: {why}")]
pub struct BadTarget {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl Target {
    /// The host as an address, where it is one. A scoped IPv6 address (`fe80::1%eth0`) keeps its scope in `host`.
    pub fn numeric(&self) -> Option<IpAddr> {
        self.host.split('%').next().and_then(|host| host.parse().ok())
    }

    /// Whether a request is sent once the connection stands.
    pub fn is_http(&self) -> bool {
        matches!(self.scheme, Scheme::Http | Scheme::Https)
    }

    /// The `Host` header: the port is left out where it is the scheme's own (RFC 9110 §7.2).
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.scheme, self.port) {
            (Scheme::Http, Some(80)) | (Scheme::Https, Some(443)) | (_, None) => host,
            (_, Some(port)) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let scheme = match self.scheme {
            Scheme::Host => return f.write_str(&self.host),
            Scheme::Tcp => "tcp",
            Scheme::Udp => "udp",
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(
            f,
            "{scheme}://{}{}",
            if self.is_http() { self.authority() } else { host },
            if self.is_http() { "" } else { ":" }
        )?;
        if !self.is_http() {
            write!(f, "{}", self.port.unwrap_or(0))?;
        }
        f.write_str(&self.path)
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = |why: String| BadTarget { text: text.to_owned(), why };
        if text.is_empty() {
            return Err(bad("it is empty".to_owned()));
        }
        if let Some(odd) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad(format!("it contains {odd:?}")));
        }
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some((name, rest)) => (
                Some(match name.to_ascii_lowercase().as_str() {
                    "tcp" => Scheme::Tcp,
                    "udp" => Scheme::Udp,
                    "http" => Scheme::Http,
                    "https" => Scheme::Https,
                    _ => return Err(bad(format!("the scheme `{name}` is not one of tcp, udp, http, https"))),
                }),
                rest,
            ),
        };
        let http = matches!(scheme, Some(Scheme::Http | Scheme::Https));
        let cut = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        if !http && !path.is_empty() && path != "/" {
            return Err(bad(format!("`{path}` after the port needs http:// or https:// in front")));
        }
        let path = path.split('#').next().unwrap_or("");
        let path = match (http, path) {
            (false, _) => String::new(),
            (true, path) if path.starts_with('/') => path.to_owned(),
            (true, path) => format!("/{path}"),
        };
        if authority.contains('@') {
            return Err(bad("a user name in the target is not used; leave it out".to_owned()));
        }
        let (host, port) = split_authority(authority).map_err(&bad)?;
        let port = port.map(|port| parse_port(port).map_err(&bad)).transpose()?;
        check_host(&host).map_err(&bad)?;
        let (scheme, port) = match (scheme, port) {
            (None, None) => (Scheme::Host, None),
            (None, Some(port)) => (Scheme::Tcp, Some(port)),
            (Some(Scheme::Http), port) => (Scheme::Http, Some(port.unwrap_or(80))),
            (Some(Scheme::Https), port) => (Scheme::Https, Some(port.unwrap_or(443))),
            (Some(scheme), Some(port)) => (scheme, Some(port)),
            (Some(_), None) => return Err(bad("it names no port".to_owned())),
        };
        Ok(Self { scheme, host, port, path })
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, or a bare IPv6 address, which has no port.
fn split_authority(text: &str) -> Result<(String, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
        if host.split('%').next().is_none_or(|host| host.parse::<Ipv6Addr>().is_err()) {
            return Err(format!("`{host}` in brackets is no IPv6 address"));
        }
        return match rest {
            "" => Ok((host.to_owned(), None)),
            rest => match rest.strip_prefix(':') {
                Some(port) => Ok((host.to_owned(), Some(port))),
                None => Err(format!("`{rest}` after the bracket is no port")),
            },
        };
    }
    match text.matches(':').count() {
        0 => Ok((text.to_owned(), None)),
        1 => text.split_once(':').map(|(host, port)| (host.to_owned(), Some(port))).ok_or_else(String::new),
        _ if text.split('%').next().is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()) => Ok((text.to_owned(), None)),
        _ => Err("an IPv6 address with a port needs brackets: [fd00::3]:8080".to_owned()),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{text}` is no port number"));
    }
    match text.parse::<u32>() {
        Ok(port @ 1..=65535) => Ok(u16::try_from(port).unwrap_or(u16::MAX)),
        _ => Err(format!("port {text} is outside 1 to 65535")),
    }
}

/// A numeric address, or a name a resolver can be asked for (RFC 1035 §2.3.4: labels to 63 octets, 253 in all).
fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("it names no host".to_owned());
    }
    let bare = host.split('%').next().unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if host.contains('%') {
        return Err("only an IPv6 address has a scope (`%eth0`)".to_owned());
    }
    if bare.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(format!("`{bare}` is no IPv4 address: four numbers from 0 to 255 with dots between"));
    }
    let name = bare.strip_suffix('.').unwrap_or(bare);
    if name.len() > 253 {
        return Err("the name is longer than 253 octets".to_owned());
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(format!("`{label}` is no label of a name: 1 to 63 octets"));
        }
        if let Some(odd) = label.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_'))) {
            return Err(format!("{odd:?} cannot stand in a host name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        for (text, shown) in [
            ("192.168.1.3:8080", "tcp://192.168.1.3:8080"),
            ("tcp://api:22", "tcp://api:22"),
            ("udp://10.0.0.1:53", "udp://10.0.0.1:53"),
            ("http://192.168.1.3:8080/data?x=1#frag", "http://192.168.1.3:8080/data?x=1"),
            ("HTTP://api", "http://api/"),
            ("https://api.example", "https://api.example/"),
            ("https://[fd00::3]:8443/x", "https://[fd00::3]:8443/x"),
            ("[fd00::3]:80", "tcp://[fd00::3]:80"),
            ("fd00::3", "fd00::3"),
            ("[fe80::1%eth0]:80", "tcp://[fe80::1%eth0]:80"),
            ("api", "api"),
            ("http://api?q", "http://api/?q"),
        ] {
            let target: Target = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(target.to_string(), shown, "{text}");
            assert_eq!(shown.parse::<Target>().unwrap(), target, "{shown} reads back");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}", tail in "[a-z0-9.:/\\[\\]%?#@-]{0,40}") {
            for text in [text, tail] {
                if let Ok(target) = text.parse::<Target>() {
                    proptest::prop_assert_eq!(target.to_string().parse::<Target>().ok(), Some(target));
                }
            }
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            " ",
            "a b",
            "ftp://x:1",
            "x:0",
            "x:65536",
            "x:-1",
            "x:+1",
            "x:http",
            "tcp://x",
            "x:80/data",
            "[::1",
            "[x]:1",
            "[::1]80",
            "::1:zz",
            "1.2.3:80",
            "999.1.1.1:80",
            "a..b:80",
            "-:",
            "http://",
            "http://u@h/",
            "x%eth0:1",
            "a/b",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?} was read as {:?}", text.parse::<Target>());
        }
    }
}
