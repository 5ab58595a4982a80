//! Proxy variables, as curl and its like read them (curl(1), ENVIRONMENT): who asks a proxy in the place of the target.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// The variables that programs look at. `HTTP_PROXY` in capitals is heeded by few, since CGI programs get it from
/// request headers.
pub const VARIABLES: [&str; 7] =
    ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

/// A proxy that a variable names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyChoice {
    /// The variable.
    pub variable: String,
    /// Its value, without a password.
    pub value: String,
    /// `http`, `https`, `socks5`, …
    pub scheme: String,
    /// The proxy's host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// The proxy that programs ask for a target; `None` where they go there themselves.
pub fn choose(environment: &BTreeMap<String, String>, https: bool, host: &str, port: u16) -> Option<ProxyChoice> {
    let first = |names: &[&'static str]| {
        names.iter().find_map(|name| {
            let value = environment.get(*name).filter(|value| !value.trim().is_empty())?;
            Some((*name, value))
        })
    };
    if first(&["no_proxy", "NO_PROXY"]).is_some_and(|(_, list)| excepted(list, host, port)) {
        return None;
    }
    let own: &[&str] = if https { &["https_proxy", "HTTPS_PROXY"] } else { &["http_proxy"] };
    let (variable, value) = first(own).or_else(|| first(&["all_proxy", "ALL_PROXY"]))?;
    let value = value.trim();
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
    let (name, own_port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    // curl takes 1080 where no port is given, for http proxies too.
    let port = match own_port {
        Some(text) => text.parse().ok()?,
        None if scheme.eq_ignore_ascii_case("https") => 443,
        None => 1080,
    };
    (!name.is_empty()).then(|| ProxyChoice {
        variable: variable.to_owned(),
        value: redacted(value),
        scheme: scheme.to_ascii_lowercase(),
        host: name.to_owned(),
        port,
    })
}

/// Without a user's name and password.
pub fn redacted(value: &str) -> String {
    let (scheme, rest) = value.split_once("://").map_or((None, value), |(scheme, rest)| (Some(scheme), rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let kept = match rest[..end].rfind('@') {
        Some(at) => format!("…@{}", &rest[at + 1..]),
        None => rest.to_owned(),
    };
    scheme.map_or(kept.clone(), |scheme| format!("{scheme}://{kept}"))
}

/// Whether the list of exceptions names the host: `*`, a name and all below it, an address, a network, each with a
/// port or without.
fn excepted(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, text)) if !name.contains(':') => match text.parse::<u16>() {
                Ok(wanted) => (name.to_owned(), Some(wanted)),
                Err(_) => return false,
            },
            _ => (entry.clone(), None),
        };
        if wanted.is_some_and(|wanted| wanted != port) {
            return false;
        }
        let name = name.trim_matches(['[', ']']).trim_start_matches("*.").trim_matches('.');
        match address {
            Some(address) => match name.parse::<IpNetwork>() {
                Ok(network) => network.contains(address),
                Err(_) => false,
            },
            None => host == name || host.strip_suffix(name).is_some_and(|front| front.ends_with('.')),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], https: bool, host: &str) -> Option<String> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        choose(&environment, https, host, 8080).map(|proxy| format!("{} {}:{}", proxy.variable, proxy.host, proxy.port))
    }

    #[test]
    fn variables_are_read_as_curl_reads_them() {
        for (variables, https, host, expect) in [
            (&[][..], false, "api", None),
            (&[("http_proxy", "http://p:3128")][..], false, "api", Some("http_proxy p:3128")),
            (&[("http_proxy", "http://p:3128")], true, "api", None),
            (&[("HTTPS_PROXY", "p:3128"), ("http_proxy", "q")], true, "api", Some("HTTPS_PROXY p:3128")),
            (&[("ALL_PROXY", "socks5://u:secret@[fd00::1]")], false, "api", Some("ALL_PROXY fd00::1:1080")),
            (&[("http_proxy", "p:1"), ("no_proxy", "corp.example")], false, "api.corp.example", None),
            (&[("http_proxy", "p:1"), ("no_proxy", "corp.example")], false, "notcorp.example", Some("http_proxy p:1")),
            (&[("http_proxy", "p:1"), ("no_proxy", "192.168.0.0/16, x")], false, "192.168.1.3", None),
            (&[("http_proxy", "p:1"), ("NO_PROXY", ".corp.example:8080")], false, "a.corp.example", None),
            (
                &[("http_proxy", "p:1"), ("NO_PROXY", "corp.example:80")],
                false,
                "a.corp.example",
                Some("http_proxy p:1"),
            ),
            (&[("http_proxy", "p:1"), ("no_proxy", "*")], false, "api", None),
            (&[("http_proxy", "  ")], false, "api", None),
            (&[("http_proxy", "p:port")], false, "api", None),
        ] {
            assert_eq!(chosen(variables, https, host).as_deref(), expect, "{variables:?} {host}");
        }
    }

    #[test]
    fn passwords_are_left_out() {
        assert_eq!(redacted("http://me:secret@p:3128/"), "http://…@p:3128/");
        assert_eq!(redacted("p:3128"), "p:3128");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(value: String, list: String, host: String) {
            let environment = BTreeMap::from([("http_proxy".to_owned(), value), ("no_proxy".to_owned(), list)]);
            choose(&environment, false, &host, 80);
        }
    }
}
