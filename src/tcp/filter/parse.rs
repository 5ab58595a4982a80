//! From text to tests.

use std::net::{IpAddr, Ipv4Addr};

use super::{BadFilter, Base, Direction, Operator, Proto, Relation, Sum, Test};

/// Brackets within brackets.
const DEPTH: usize = 64;
/// A filter longer than this is none.
const LONGEST: usize = 8192;

/// What a bare address or number after `or` repeats: `port 80 or 81`.
#[derive(Debug, Clone, Copy)]
struct Qualifiers {
    proto: Option<Proto>,
    direction: Direction,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    depth: usize,
    last: Option<Qualifiers>,
}

pub(super) fn parse(text: &str) -> Result<Test, BadFilter> {
    if text.len() > LONGEST {
        return Err(BadFilter { why: "the filter is too long".to_owned(), at: String::new() });
    }
    let mut parser = Parser { words: words(text), at: 0, depth: 0, last: None };
    if parser.words.is_empty() {
        return Ok(Test::Always);
    }
    let test = parser.either()?;
    match parser.peek() {
        None => Ok(test),
        Some(_) => Err(parser.error("something is left over")),
    }
}

/// Words and signs. What tcpdump takes as one word (`tcp-syn`, `10.0.0.0/8`, `80-90`) stays one.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let two = rest.get(..2).unwrap_or_default();
        let length = if matches!(two, "&&" | "||" | "!=" | "==" | "<=" | ">=" | "<<" | ">>") {
            2
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|letter: char| !(letter.is_alphanumeric() || "._-:/".contains(letter)));
            word_length(&rest[..end.unwrap_or(rest.len())])
        } else {
            first.len_utf8()
        };
        words.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    words
}

/// Within brackets `tcp[0:2]` a colon separates, in `fe80::1` it does not; a minus behind a number is one only if no
/// range is meant.
fn word_length(word: &str) -> usize {
    let number = word.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(word.len());
    if number > 0 && word[number..].starts_with(':') && word.parse::<IpAddr>().is_err() && !word.contains('/') {
        return number;
    }
    word.trim_end_matches(['-', '/', ':']).len().max(1)
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek();
        self.at += 1;
        word
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| words.contains(&word));
        self.at += usize::from(found);
        found
    }

    fn error(&self, why: &str) -> BadFilter {
        let at = self.words.get(self.at.min(self.words.len())..).unwrap_or_default();
        let at = if at.is_empty() { "the end".to_owned() } else { at[..at.len().min(4)].join(" ") };
        BadFilter { why: why.to_owned(), at }
    }

    fn either(&mut self) -> Result<Test, BadFilter> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error("too many brackets"));
        }
        // `and` and `or` have the same weight, from left to right (pcap-filter(7)).
        let mut test = self.one()?;
        loop {
            if self.take(&["or", "||"]) {
                test = Test::Or(Box::new(test), Box::new(self.one()?));
            } else if self.take(&["and", "&&"]) {
                test = Test::And(Box::new(test), Box::new(self.one()?));
            } else {
                break;
            }
        }
        self.depth -= 1;
        Ok(test)
    }

    fn one(&mut self) -> Result<Test, BadFilter> {
        if self.take(&["not", "!"]) {
            self.depth += 1;
            if self.depth > DEPTH {
                return Err(self.error("too many negations"));
            }
            let test = self.one()?;
            self.depth -= 1;
            return Ok(Test::Not(Box::new(test)));
        }
        let start = self.at;
        if self.peek() == Some("(") {
            // A bracket opens a test, or a sum: what follows it tells.
            self.at += 1;
            let kept = (self.last, self.depth);
            if let Ok(test) = self.either()
                && self.take(&[")"])
                && !self.peek().is_some_and(is_operator)
            {
                return Ok(test);
            }
            (self.last, self.depth) = kept;
            self.at = start;
            return self.comparison();
        }
        self.primitive()
    }

    fn primitive(&mut self) -> Result<Test, BadFilter> {
        let start = self.at;
        let Some(word) = self.peek() else { return Err(self.error("a test is missing")) };
        match word {
            "less" | "greater" => {
                self.at += 1;
                let number = self.number()?;
                let relation = if word == "less" { Relation::AtMost } else { Relation::AtLeast };
                return Ok(Test::Compare { left: Sum::Length, relation, right: Sum::Number(number) });
            }
            "vlan" => {
                self.at += 1;
                let id = self.peek().and_then(|word| word.parse().ok());
                self.at += usize::from(id.is_some());
                return Ok(Test::Vlan(id));
            }
            _ => {}
        }
        let mut proto = None;
        if let Some(found) = protocol(word) {
            self.at += 1;
            if self.peek() == Some("[") {
                self.at = start;
                return self.comparison();
            }
            if self.take(&["proto"]) {
                let number = self.next().and_then(proto_number).ok_or_else(|| self.error("a protocol is missing"))?;
                return Ok(Test::And(Box::new(Test::Is(found)), Box::new(Test::Is(Proto::Number(number)))));
            }
            proto = Some(found);
        } else if word == "proto" {
            self.at += 1;
            let number = self.next().and_then(proto_number).ok_or_else(|| self.error("a protocol is missing"))?;
            return Ok(Test::Is(Proto::Number(number)));
        } else if matches!(word, "len" | "ether" | "link") || word.parse::<u32>().is_ok() && self.last.is_none() {
            return self.comparison();
        }
        let direction = self.direction()?;
        let kind = match self.peek() {
            Some("host") => Some(Kind::Host),
            Some("net") => Some(Kind::Net),
            Some("port") => Some(Kind::Port),
            Some("portrange") => Some(Kind::PortRange),
            _ => None,
        };
        self.at += usize::from(kind.is_some());
        let qualifiers = match (kind, direction, self.last) {
            (None, None, _) if proto.is_some() => return Ok(Test::Is(proto.unwrap_or(Proto::Ip))),
            (None, None, Some(last)) => last,
            (kind, direction, _) => Qualifiers {
                proto,
                direction: direction.unwrap_or(Direction::Either),
                kind: kind.unwrap_or(Kind::Host),
            },
        };
        self.last = Some(qualifiers);
        let Some(value) = self.next() else {
            self.at -= 1;
            return Err(self.error("an address or a port is missing"));
        };
        let test = self.value(value, qualifiers);
        test.ok_or_else(|| {
            self.at = self.at.saturating_sub(1).max(start);
            let what = match qualifiers.kind {
                Kind::Port | Kind::PortRange => "this is no port",
                Kind::Host | Kind::Net if proto.is_none() && direction.is_none() && kind.is_none() => {
                    "this is no test that is known here (names are not looked up)"
                }
                Kind::Host | Kind::Net => "this is no address (names are not looked up)",
            };
            self.error(what)
        })
    }

    fn direction(&mut self) -> Result<Option<Direction>, BadFilter> {
        if !matches!(self.peek(), Some("src" | "dst")) {
            return Ok(None);
        }
        let first = self.next();
        let joint = matches!(self.peek(), Some("or" | "and"))
            && matches!(self.words.get(self.at + 1), Some(&("src" | "dst")))
            && self.words.get(self.at + 1).copied() != first;
        if joint {
            let both = self.next() == Some("and");
            self.at += 1;
            return Ok(Some(if both { Direction::Both } else { Direction::Either }));
        }
        if self.peek().is_none() {
            return Err(self.error("an address or a port is missing"));
        }
        Ok(Some(if first == Some("src") { Direction::Src } else { Direction::Dst }))
    }

    fn value(&mut self, value: &str, qualifiers: Qualifiers) -> Option<Test> {
        let Qualifiers { proto, direction, kind } = qualifiers;
        match kind {
            Kind::Port => {
                let port = port(value)?;
                Some(Test::Port { proto, direction, low: port, high: port })
            }
            Kind::PortRange => {
                let (low, high) = value.split_once('-')?;
                let (low, high) = (port(low)?, port(high)?);
                (low <= high).then_some(Test::Port { proto, direction, low, high })
            }
            Kind::Host => {
                let net: IpAddr = value.parse().ok()?;
                let bits = if net.is_ipv4() { 32 } else { 128 };
                Some(Test::Net { proto, direction, net, bits })
            }
            Kind::Net => {
                let (net, mut bits) = network(value)?;
                if self.take(&["mask"]) {
                    let mask: Ipv4Addr = self.next()?.parse().ok()?;
                    let ones = mask.to_bits().leading_ones();
                    if mask.to_bits().count_ones() != ones {
                        return None;
                    }
                    bits = u8::try_from(ones).ok()?;
                }
                Some(Test::Net { proto, direction, net, bits })
            }
        }
    }

    fn number(&mut self) -> Result<u32, BadFilter> {
        match self.peek().and_then(number) {
            Some(number) => {
                self.at += 1;
                Ok(number)
            }
            None => Err(self.error("a number is missing")),
        }
    }

    fn comparison(&mut self) -> Result<Test, BadFilter> {
        let left = self.sum(0)?;
        let relation = match self.peek() {
            Some("=" | "==") => Relation::Equal,
            Some("!=") => Relation::Unequal,
            Some("<") => Relation::Less,
            Some("<=") => Relation::AtMost,
            Some(">") => Relation::Greater,
            Some(">=") => Relation::AtLeast,
            _ => return Err(self.error("a comparison is missing")),
        };
        self.at += 1;
        let right = self.sum(0)?;
        Ok(Test::Compare { left, relation, right })
    }

    /// Precedence as in C: `|`, `^`, `&`, shifts, sums, products.
    fn sum(&mut self, level: usize) -> Result<Sum, BadFilter> {
        const LEVELS: [&[(&str, Operator)]; 6] = [
            &[("|", Operator::Or)],
            &[("^", Operator::Xor)],
            &[("&", Operator::And)],
            &[("<<", Operator::Left), (">>", Operator::Right)],
            &[("+", Operator::Plus), ("-", Operator::Minus)],
            &[("*", Operator::Times), ("/", Operator::Over), ("%", Operator::Modulo)],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.term() };
        let mut left = self.sum(level + 1)?;
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| Some(*sign) == self.peek()) {
            self.at += 1;
            left = Sum::Apply(Box::new(left), *operator, Box::new(self.sum(level + 1)?));
        }
        Ok(left)
    }

    fn term(&mut self) -> Result<Sum, BadFilter> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error("too many brackets"));
        }
        let found = self.bare_term();
        self.depth -= 1;
        found
    }

    fn bare_term(&mut self) -> Result<Sum, BadFilter> {
        if self.take(&["("]) {
            let inside = self.sum(0)?;
            return if self.take(&[")"]) { Ok(inside) } else { Err(self.error("a bracket is not closed")) };
        }
        if self.take(&["-"]) {
            let value = self.term()?;
            return Ok(Sum::Apply(Box::new(Sum::Number(0)), Operator::Minus, Box::new(value)));
        }
        if self.take(&["len"]) {
            return Ok(Sum::Length);
        }
        let Some(word) = self.peek() else { return Err(self.error("a number is missing")) };
        if let Some(value) = number(word).or_else(|| constant(word)) {
            self.at += 1;
            return Ok(Sum::Number(value));
        }
        let base = match (word, protocol(word)) {
            ("ether" | "link", _) => Base::Link,
            (_, Some(proto @ (Proto::Ip | Proto::Ip6 | Proto::Arp))) => Base::Network(proto),
            (_, Some(proto)) => Base::Transport(proto),
            _ => return Err(self.error("this is neither a number nor a protocol")),
        };
        self.at += 1;
        if !self.take(&["["]) {
            return Err(self.error("`[` is missing"));
        }
        let at = self.sum(0)?;
        let size = if self.take(&[":"]) {
            match self.number()? {
                size @ (1 | 2 | 4) => u8::try_from(size).unwrap_or(1),
                _ => return Err(self.error("a size is 1, 2 or 4")),
            }
        } else {
            1
        };
        if !self.take(&["]"]) {
            return Err(self.error("`]` is missing"));
        }
        Ok(Sum::Octets { base, at: Box::new(at), size })
    }
}

fn is_operator(word: &str) -> bool {
    matches!(
        word,
        "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "+" | "-" | "*" | "/" | "%" | "&" | "|" | "^" | "<<" | ">>"
    )
}

fn protocol(word: &str) -> Option<Proto> {
    Some(match word {
        "ip" => Proto::Ip,
        "ip6" => Proto::Ip6,
        "arp" => Proto::Arp,
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        "icmp" => Proto::Icmp,
        "icmp6" => Proto::Icmp6,
        _ => return None,
    })
}

fn proto_number(word: &str) -> Option<u8> {
    let word = word.trim_start_matches('\\');
    Some(match word {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "icmp6" => 58,
        other => other.parse().ok()?,
    })
}

fn port(word: &str) -> Option<u16> {
    let known = [
        ("ftp", 21),
        ("ssh", 22),
        ("telnet", 23),
        ("smtp", 25),
        ("domain", 53),
        ("http", 80),
        ("pop3", 110),
        ("imap", 143),
        ("ldap", 389),
        ("https", 443),
        ("mysql", 3306),
        ("postgresql", 5432),
        ("redis", 6379),
    ];
    word.parse().ok().or_else(|| known.iter().find(|(name, _)| *name == word).map(|(_, port)| *port))
}

/// `10.0.0.0/8`, `fd00::/8`, and the short forms `10`, `192.168`, `192.168.1`.
fn network(word: &str) -> Option<(IpAddr, u8)> {
    if let Some((address, bits)) = word.split_once('/') {
        let bits: u8 = bits.parse().ok()?;
        let address = match address.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => short_v4(address)?.0,
        };
        return (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits));
    }
    match word.parse::<IpAddr>() {
        Ok(address) => Some((address, if address.is_ipv4() { 32 } else { 128 })),
        Err(_) => short_v4(word),
    }
}

fn short_v4(word: &str) -> Option<(IpAddr, u8)> {
    let parts: Vec<u8> = word.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    if parts.is_empty() || parts.len() > 4 {
        return None;
    }
    let mut octets = [0; 4];
    octets[..parts.len()].copy_from_slice(&parts);
    Some((IpAddr::from(octets), u8::try_from(parts.len() * 8).ok()?))
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The names of offsets and values that pcap-filter(7) knows.
fn constant(word: &str) -> Option<u32> {
    Some(match word {
        "tcpflags" => 13,
        "tcp-fin" | "icmpcode" | "icmp6code" => 1,
        "tcp-syn" => 2,
        "tcp-rst" | "icmp-sourcequench" => 4,
        "tcp-push" | "icmp-echo" => 8,
        "tcp-ack" => 16,
        "tcp-urg" => 32,
        "tcp-ece" => 64,
        "tcp-cwr" => 128,
        "icmptype" | "icmp6type" | "icmp-echoreply" => 0,
        "icmp-unreach" => 3,
        "icmp-redirect" => 5,
        "icmp-timxceed" => 11,
        "icmp-paramprob" => 12,
        _ => return None,
    })
}
