//! Port lists as nmap writes them: `22,80,8000-8100`, `-` for all, `-1024`, `60000-`, names, names with `*`.

use super::services::Services;

/// Ports, ascending, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortList(pub Vec<u16>);

/// A list that cannot be read: the piece of it, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub struct BadPorts {
    /// The piece.
    pub piece: String,
    /// What is wrong with it.
    pub why: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl BadPorts {
    fn words(&self) -> String {
        if self.piece.is_empty() { self.why.clone() } else { format!("`{}` {}", self.piece, self.why) }
    }
}

fn bad(piece: &str, why: impl Into<String>, hint: Option<String>) -> BadPorts {
    // A whole file may have been given by mistake.
    let piece: String = piece.chars().take(60).collect();
    BadPorts { piece, why: why.into(), hint }
}

impl PortList {
    /// Reads a list; `udp` says whose names are meant.
    ///
    /// # Errors
    /// With the piece that could not be read.
    pub fn parse(text: &str, udp: bool, services: &Services) -> Result<Self, BadPorts> {
        let mut wanted = vec![false; 1 << 16];
        let mut any = false;
        if text.contains(',') && text.split(',').any(|one| one.trim().is_empty()) {
            return Err(bad(text.trim(), "has an empty place between commas", None));
        }
        for piece in text.split(|c: char| c == ',' || c.is_whitespace()) {
            let piece = piece.trim();
            if piece.is_empty() {
                continue;
            }
            any = true;
            for (low, high) in Self::piece(piece, udp, services)? {
                wanted[usize::from(low)..=usize::from(high)].fill(true);
            }
        }
        if !any {
            return Err(bad("", "the list of ports is empty", Some("22,80,8000-8100, or - for all".to_owned())));
        }
        let ports = (0..=u16::MAX).filter(|port| wanted[usize::from(*port)]).collect();
        Ok(Self(ports))
    }

    fn piece(piece: &str, udp: bool, services: &Services) -> Result<Vec<(u16, u16)>, BadPorts> {
        if let Some((kind, rest)) = piece.split_once(':') {
            return match (kind, udp) {
                ("T", false) | ("U", true) => Self::piece(rest, udp, services),
                ("U", false) => Err(bad(piece, "is a UDP port", Some("ask for UDP ports with --udp".to_owned()))),
                ("T", true) => Err(bad(piece, "is a TCP port", Some("leave --udp out for TCP ports".to_owned()))),
                _ => Err(bad(piece, "is no port: before the colon only T or U may stand", None)),
            };
        }
        if let Some((rest, proto @ ("tcp" | "udp"))) = piece.split_once('/') {
            let fits = (proto == "udp") == udp;
            let hint = if udp { "leave --udp out for TCP ports" } else { "ask for UDP ports with --udp" };
            return if fits {
                Self::piece(rest, udp, services)
            } else {
                Err(bad(piece, format!("is a {} port", proto.to_uppercase()), Some(hint.to_owned())))
            };
        }
        let numeric = piece.bytes().all(|octet| octet.is_ascii_digit() || octet == b'-');
        if !numeric {
            return Self::named(piece, udp, services);
        }
        let number = |text: &str| {
            text.parse::<u32>().ok().and_then(|number| u16::try_from(number).ok()).ok_or_else(|| {
                let why = if text == piece {
                    "is no port: the largest is 65535".to_owned()
                } else {
                    format!("is no range of ports: {text} is above 65535")
                };
                bad(piece, why, None)
            })
        };
        Ok(vec![match piece.split_once('-') {
            None => {
                let port = number(piece)?;
                (port, port)
            }
            // As nmap: an open end is 1 or 65535; port 0 must be named.
            Some(("", "")) => (1, u16::MAX),
            Some((_, high)) if high.contains('-') => {
                return Err(bad(piece, "is no range of ports: it has more than one dash", None));
            }
            Some(("", high)) => (1.min(number(high)?), number(high)?),
            Some((low, "")) => (number(low)?, u16::MAX),
            Some((low, high)) => {
                let (low, high) = (number(low)?, number(high)?);
                if low > high {
                    return Err(bad(piece, "is a range that runs backwards", Some(format!("{high}-{low}"))));
                }
                (low, high)
            }
        }])
    }

    fn named(piece: &str, udp: bool, services: &Services) -> Result<Vec<(u16, u16)>, BadPorts> {
        let found = services.ports(udp, piece);
        if !found.is_empty() {
            return Ok(found.into_iter().map(|port| (port, port)).collect());
        }
        let (proto, other) = if udp { ("UDP", "TCP") } else { ("TCP", "UDP") };
        let hint = if services.ports(!udp, piece).is_empty() {
            services.near(udp, piece).map(|near| format!("did you mean {near}?"))
        } else {
            Some(format!("there is a {other} service of that name"))
        };
        Err(bad(piece, format!("is neither a port nor a known {proto} service"), hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<u16>, String> {
        PortList::parse(text, false, &Services::default()).map(|list| list.0).map_err(|error| error.to_string())
    }

    #[test]
    fn what_nmap_takes_is_taken() {
        assert_eq!(read("22,80,8000-8003").unwrap(), [22, 80, 8000, 8001, 8002, 8003]);
        assert_eq!(read("-").unwrap().len(), 65535);
        assert_eq!(read("-3").unwrap(), [1, 2, 3]);
        assert_eq!(read("0-").unwrap().len(), 65536);
        assert_eq!(read("65534-").unwrap(), [65534, 65535]);
        assert_eq!(read("ssh,https,22").unwrap(), [22, 443]);
        assert_eq!(read("T:443").unwrap(), [443]);
        assert_eq!(read("80/tcp").unwrap(), [80]);
        assert_eq!(read("0").unwrap(), [0]);
        assert_eq!(read("80 443\n22").unwrap(), [22, 80, 443]);
        assert_eq!(read("1-5,3-7").unwrap(), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn what_it_cannot_be_is_told() {
        for (text, says) in [
            ("65536", "`65536` is no port: the largest is 65535"),
            ("99999999999999999999", "the largest is 65535"),
            ("10-5", "`10-5` is a range that runs backwards"),
            ("1-70000", "70000 is above 65535"),
            ("1-2-3", "more than one dash"),
            ("80,,443", "empty place between commas"),
            ("80,", "empty place between commas"),
            ("", "the list of ports is empty"),
            ("htpp", "`htpp` is neither a port nor a known TCP service"),
            ("U:53", "`U:53` is a UDP port"),
            ("53/udp", "`53/udp` is a UDP port"),
            ("X:1", "before the colon only T or U"),
            ("--", "more than one dash"),
            ("80;443", "is neither a port nor a known"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        let error = PortList::parse("htpp", false, &Services::default()).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean http?"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_is_refused(text in "\\PC{0,40}", udp: bool) {
            if let Ok(list) = PortList::parse(&text, udp, &Services::default()) {
                prop_assert!(!list.0.is_empty());
                prop_assert!(list.0.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }

        #[test]
        fn numbers_and_ranges_are_what_they_say(a: u16, b: u16) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert_eq!(read(&format!("{low}-{high}")).unwrap(), (low..=high).collect::<Vec<_>>());
            prop_assert_eq!(read(&format!("{a},{b}")).unwrap().len(), if a == b { 1 } else { 2 });
        }
    }
}
