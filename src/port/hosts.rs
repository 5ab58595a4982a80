//! Which hosts are meant: addresses, CIDR blocks, nmap's octet ranges (`10.0.0.1-20`), names, lists from files.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

/// So many hosts are one task; more is a mistake more often than not.
pub const MOST: usize = 1 << 20;

/// One word of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostSpec {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// An address with the link it is on (`fe80::1%eth0`).
    Scoped(IpAddr, String),
    /// A name that somebody must look up.
    Name(String),
}

/// What cannot be a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no host: {why}")]
pub struct BadHost {
    /// The word.
    pub word: String,
    /// What is wrong with it.
    pub why: String,
}

impl HostSpec {
    /// Reads one word.
    ///
    /// # Errors
    /// When it is neither an address, nor a range of them, nor could be a name.
    pub fn parse(word: &str) -> Result<Self, BadHost> {
        let bad = |why: &str| BadHost { word: word.chars().take(80).collect(), why: why.to_owned() };
        let bare = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Addresses(vec![address]));
        }
        if let Some((address, link)) = bare.split_once('%') {
            let address: IpAddr = address.parse().map_err(|_| bad("before the % must stand an IPv6 address"))?;
            return if address.is_ipv6() && !link.is_empty() {
                Ok(Self::Scoped(address, link.to_owned()))
            } else {
                Err(bad("only an IPv6 address has a link, as in fe80::1%eth0"))
            };
        }
        if word.contains('/') {
            return Self::block(word).map_err(|why| bad(&why));
        }
        if word.is_empty() {
            return Err(bad("it is empty"));
        }
        let digits = |c: char| c.is_ascii_digit() || ".-,*".contains(c);
        if word.chars().all(digits) && word.contains('.') {
            return Self::octets(word).map_err(|why| bad(&why));
        }
        if let Some((host, port)) = word.rsplit_once(':').filter(|(host, _)| !host.contains(':')) {
            return Err(bad(&format!("ports are a word of their own: {host} {port}")));
        }
        if word.contains(':') {
            return Err(bad("it is no IPv6 address"));
        }
        let name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if word.len() > 253 || !word.chars().all(name) || word.starts_with(['-', '.']) {
            return Err(bad("it is neither an address nor could it be a name"));
        }
        if word.chars().all(|c| c.is_ascii_digit()) {
            return Err(bad("a number alone is no address; the ports come last"));
        }
        Ok(Self::Name(word.to_owned()))
    }

    fn block(word: &str) -> Result<Self, String> {
        let (address, _) = word.split_once('/').unwrap_or((word, ""));
        if address.parse::<IpAddr>().is_err() {
            return Err("before the slash must stand an address".to_owned());
        }
        let net: IpNetwork = word.parse().map_err(|_| "the prefix length is not one of its family".to_owned())?;
        let host_bits = if net.is_ipv4() { 32 } else { 128 } - u32::from(net.prefix());
        if host_bits > MOST.ilog2() {
            return Err(format!("a /{} has more than {MOST} addresses", net.prefix()));
        }
        let all: Vec<IpAddr> = match net {
            IpNetwork::V4(net) => {
                // The net's own and the broadcast address are no hosts, where there are such (RFC 3021).
                let edge = |ip: &Ipv4Addr| net.prefix() < 31 && (*ip == net.network() || *ip == net.broadcast());
                net.iter().filter(|ip| !edge(ip)).map(IpAddr::V4).collect()
            }
            IpNetwork::V6(net) => net.iter().map(IpAddr::V6).collect(),
        };
        Ok(Self::Addresses(all))
    }

    /// nmap's way: each octet a number, a range, a list, or `*`.
    fn octets(word: &str) -> Result<Self, String> {
        let parts: Vec<&str> = word.split('.').collect();
        if parts.len() != 4 {
            return Err("an IPv4 address has four numbers".to_owned());
        }
        let mut choices = Vec::new();
        for part in parts {
            let mut choice = Vec::new();
            for piece in part.split(',') {
                let number = |text: &str, open: u8| {
                    let number = if text.is_empty() { Some(u32::from(open)) } else { text.parse::<u32>().ok() };
                    number
                        .and_then(|number| u8::try_from(number).ok())
                        .ok_or_else(|| format!("`{text}` is no number from 0 to 255"))
                };
                let (low, high) = match piece.split_once('-') {
                    _ if piece == "*" => (0, 255),
                    None if piece.is_empty() => return Err("a number is missing".to_owned()),
                    None => (number(piece, 0)?, number(piece, 0)?),
                    Some((low, high)) => (number(low, 0)?, number(high, 255)?),
                };
                if low > high {
                    return Err(format!("the range {piece} runs backwards"));
                }
                choice.extend(low..=high);
            }
            choice.sort_unstable();
            choice.dedup();
            choices.push(choice);
        }
        let count: usize = choices.iter().map(Vec::len).product();
        if count > MOST {
            return Err(format!("that is more than {MOST} addresses"));
        }
        let mut all = Vec::with_capacity(count);
        for a in &choices[0] {
            for b in &choices[1] {
                for c in &choices[2] {
                    all.extend(choices[3].iter().map(|d| IpAddr::from([*a, *b, *c, *d])));
                }
            }
        }
        Ok(Self::Addresses(all))
    }
}

/// The words of a list file: one or several a line, `#` begins a comment. With each its line.
pub fn words(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .flat_map(|(number, line)| {
            line.split('#').next().unwrap_or_default().split_whitespace().map(move |word| (number + 1, word))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(word: &str) -> usize {
        match HostSpec::parse(word) {
            Ok(HostSpec::Addresses(all)) => all.len(),
            other => panic!("{word}: {other:?}"),
        }
    }

    #[test]
    fn blocks_and_ranges_have_their_hosts() {
        assert_eq!(count("10.0.0.1"), 1);
        assert_eq!(count("[fd00::1]"), 1);
        assert_eq!(count("10.0.0.0/24"), 254);
        assert_eq!(count("10.0.0.7/31"), 2);
        assert_eq!(count("10.0.0.7/32"), 1);
        assert_eq!(count("fd00::/124"), 16);
        assert_eq!(count("10.0.0-1.1-20"), 40);
        assert_eq!(count("10.0.0.1,5,9"), 3);
        assert_eq!(count("10.0.0.*"), 256);
        assert_eq!(count("10.0.0.250-"), 6);
        assert_eq!(HostSpec::parse("fe80::1%eth0"), Ok(HostSpec::Scoped("fe80::1".parse().unwrap(), "eth0".into())));
        assert_eq!(HostSpec::parse("db-1.example"), Ok(HostSpec::Name("db-1.example".into())));
    }

    #[test]
    fn mistakes_are_told() {
        for (word, says) in [
            ("10.0.0.300", "`300` is no number from 0 to 255"),
            ("10.0.0", "four numbers"),
            ("10.0.0.9-3", "runs backwards"),
            ("10.0.0.0/33", "prefix length"),
            ("web/24", "before the slash"),
            ("10.0.0.0/8", "more than 1048576 addresses"),
            ("fd00::/64", "more than 1048576 addresses"),
            ("10.0.0.1:80", "ports are a word of their own: 10.0.0.1 80"),
            ("80", "a number alone is no address"),
            ("a b", "neither an address"),
            ("fd00:::1", "no IPv6 address"),
            ("10.0.0.1%eth0", "only an IPv6 address has a link"),
            ("10..0.1", "a number is missing"),
            ("", "empty"),
        ] {
            let error = HostSpec::parse(word).expect_err(word).to_string();
            assert!(error.contains(says), "{word}: {error}");
        }
    }

    #[test]
    fn a_file_has_comments() {
        assert_eq!(words("# all\n10.0.0.1 10.0.0.2 # two\n\nweb\n"), [(2, "10.0.0.1"), (2, "10.0.0.2"), (4, "web")]);
    }

    proptest! {
        #[test]
        fn any_word_is_a_host_or_is_refused(word in "\\PC{0,40}") {
            let _ = HostSpec::parse(&word);
        }

        #[test]
        fn numbers_with_marks_are_no_panic(word in "[0-9.,*/-]{0,20}") {
            if let Ok(HostSpec::Addresses(all)) = HostSpec::parse(&word) {
                prop_assert!(!all.is_empty() && all.len() <= MOST);
            }
        }
    }
}
