//! Packets as lines of JSON, the plain ones read without a general reader.
//!
//! A flat object of known keys, numbers, and texts without escapes. Everything else gives `None` and
//! goes the long way, which alone says what is wrong. Both ways give the same packet (tested against
//! each other).

use serde_json::Value;

use crate::firewall::names;
use crate::firewall::ruleset::{CtStates, Hook, TcpFlags};

use super::{Packet, Proto, To, values};

impl Packet {
    /// Reads a packet from JSON.
    ///
    /// # Errors
    /// Those of its JSON.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        read(text).map_or_else(|| serde_json::from_str(text), Ok)
    }
}

/// What stands for a key.
enum Token<'t> {
    Text(&'t str),
    Number(u64),
    True,
    False,
    List(Vec<&'t str>),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn blank(&mut self) {
        while matches!(self.text.as_bytes().get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, mark: u8) -> bool {
        self.blank();
        let found = self.text.as_bytes().get(self.at) == Some(&mark);
        self.at += usize::from(found);
        found
    }

    fn quoted(&mut self) -> Option<&'t str> {
        if !self.take(b'"') {
            return None;
        }
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20))?;
        let text = self.text.get(self.at..self.at + length)?;
        self.at += length;
        self.take(b'"').then_some(text)
    }

    fn value(&mut self) -> Option<Token<'t>> {
        self.blank();
        let rest = &self.text[self.at..];
        match rest.as_bytes().first()? {
            b'"' => Some(Token::Text(self.quoted()?)),
            b'0'..=b'9' => {
                let length = rest.bytes().take_while(u8::is_ascii_digit).count();
                let digits = &rest[..length];
                let more = matches!(rest.as_bytes().get(length), Some(b'.' | b'e' | b'E'));
                if more || digits.len() > 15 || digits.len() > 1 && digits.starts_with('0') {
                    return None;
                }
                self.at += length;
                Some(Token::Number(digits.parse().ok()?))
            }
            b't' if rest.starts_with("true") => {
                self.at += 4;
                Some(Token::True)
            }
            b'f' if rest.starts_with("false") => {
                self.at += 5;
                Some(Token::False)
            }
            b'[' => {
                self.at += 1;
                let mut list = Vec::new();
                if self.take(b']') {
                    return Some(Token::List(list));
                }
                loop {
                    list.push(self.quoted()?);
                    if self.take(b']') {
                        return Some(Token::List(list));
                    }
                    if !self.take(b',') {
                        return None;
                    }
                }
            }
            _ => None,
        }
    }
}

fn read(text: &str) -> Option<Packet> {
    let mut reader = Reader { text, at: 0 };
    if !reader.take(b'{') {
        return None;
    }
    let (mut src, mut dst, mut seen) = (None, None, 0u32);
    let unknown = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    let mut packet = Packet::new(unknown, unknown);
    loop {
        let key = reader.quoted()?;
        if !reader.take(b':') {
            return None;
        }
        let bit = field(&mut packet, key, reader.value()?, &mut src, &mut dst)?;
        if seen & 1 << bit != 0 {
            return None;
        }
        seen |= 1 << bit;
        if reader.take(b'}') {
            break;
        }
        if !reader.take(b',') {
            return None;
        }
    }
    reader.blank();
    if reader.at != text.len() {
        return None;
    }
    (packet.src, packet.dst) = (src?, dst?);
    Some(packet)
}

/// Sets a field; a number of its own for each.
fn field(
    packet: &mut Packet,
    key: &str,
    value: Token<'_>,
    src: &mut Option<std::net::IpAddr>,
    dst: &mut Option<std::net::IpAddr>,
) -> Option<u8> {
    Some(match (key, value) {
        ("id", Token::Number(n)) => {
            packet.id = Some(Value::from(n));
            0
        }
        ("id", Token::Text(text)) => {
            packet.id = Some(Value::from(text));
            0
        }
        ("in", Token::Text(text)) => {
            packet.in_ = Some(text.to_owned());
            1
        }
        ("out", Token::Text(text)) => {
            packet.out = Some(text.to_owned());
            2
        }
        ("src", Token::Text(text)) => {
            *src = Some(text.parse().ok()?);
            3
        }
        ("dst", Token::Text(text)) => {
            *dst = Some(text.parse().ok()?);
            4
        }
        ("proto", Token::Text(text)) => {
            packet.proto = Some(Proto(match text {
                "tcp" => 6,
                "udp" => 17,
                name => names::protocol(name)?,
            }));
            5
        }
        ("proto", Token::Number(n)) => {
            packet.proto = Some(Proto(u8::try_from(n).ok()?));
            5
        }
        ("sport", Token::Number(n)) => {
            packet.sport = Some(u16::try_from(n).ok()?);
            6
        }
        ("dport", Token::Number(n)) => {
            packet.dport = Some(u16::try_from(n).ok()?);
            7
        }
        ("tcp_flags", Token::List(list)) => {
            packet.tcp_flags = Some(TcpFlags(bits(&list, values::tcp_flag)?));
            8
        }
        ("ctstate", Token::List(list)) => {
            packet.ctstate = Some(CtStates(bits(&list, values::ct_state)?));
            9
        }
        ("ctstate", Token::Text(text)) if text.bytes().all(|b| b.is_ascii_alphabetic()) && !text.is_empty() => {
            packet.ctstate = Some(CtStates(values::ct_state(text)?));
            9
        }
        ("to", Token::Text("local")) => {
            packet.to = Some(To::Local);
            10
        }
        ("to", Token::Text("forward")) => {
            packet.to = Some(To::Forward);
            10
        }
        ("hook", Token::Text(text)) => {
            packet.hook = Some(match text {
                "prerouting" => Hook::Prerouting,
                "input" => Hook::Input,
                "forward" => Hook::Forward,
                "output" => Hook::Output,
                "postrouting" => Hook::Postrouting,
                _ => return None,
            });
            11
        }
        ("ttl", Token::Number(n)) => {
            packet.ttl = Some(u8::try_from(n).ok()?);
            12
        }
        ("tos", Token::Number(n)) => {
            packet.tos = Some(u8::try_from(n).ok()?);
            13
        }
        ("length", Token::Number(n)) => {
            packet.length = Some(u32::try_from(n).ok()?);
            14
        }
        ("mark", Token::Number(n)) => {
            packet.mark = Some(u32::try_from(n).ok()?);
            15
        }
        ("icmp_type", Token::Number(n)) => {
            packet.icmp_type = Some(u8::try_from(n).ok()?);
            16
        }
        ("icmp_code", Token::Number(n)) => {
            packet.icmp_code = Some(u8::try_from(n).ok()?);
            17
        }
        ("more_fragments", value @ (Token::True | Token::False)) => {
            packet.more_fragments = Some(matches!(value, Token::True));
            18
        }
        _ => return None,
    })
}

fn bits(list: &[&str], read: fn(&str) -> Option<u8>) -> Option<u8> {
    list.iter().try_fold(0, |all, name| Some(all | read(name)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn same(text: &str) -> bool {
        let Some(packet) = read(text) else { return false };
        let long = serde_json::from_str::<Packet>(text);
        assert_eq!(long.ok(), Some(packet), "{text}");
        true
    }

    #[test]
    fn plain_packets_go_the_quick_way() {
        for text in [
            r#"{"src":"10.0.0.1","dst":"10.0.0.2"}"#,
            r#"{"id": 7, "in": "eth0", "out":"eth1","to":"forward","src": "fd00::1", "dst":"fd00::2","proto":"tcp","sport":1,"dport":65535,"tcp_flags":["syn","ACK"],"ctstate":["NEW"]}"#,
            r#" {"id":"a","src":"1.1.1.1","dst":"1.1.1.2","proto":17,"ctstate":"ESTABLISHED","hook":"input","ttl":1,"more_fragments":false} "#,
        ] {
            assert!(same(text), "{text}");
        }
        for text in [r#"{"src":"1.1.1.1"}"#, r#"{"src":"1.1.1.1","dst":"1.1.1.1","src":"1.1.1.2"}"#, "{}", "[]", "{"] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_agree(parts in proptest::collection::vec((
            proptest::sample::select(vec![
                "id", "in", "out", "src", "dst", "proto", "sport", "dport", "tcp_flags", "ctstate", "to", "hook", "ttl", "tos",
                "length", "mark", "icmp_type", "icmp_code", "more_fragments", "payload", "nonsense", "uid", "pkttype",
            ]),
            proptest::sample::select(vec![
                "\"eth0\"", "\"10.0.0.1\"", "\"fd00::1\"", "7", "0", "007", "70000", "1.5", "1e3", "-1", "\"tcp\"", "\"icmp\"",
                "[\"syn\"]", "[\"NEW\",\"related\"]", "[]", "\"NEW\"", "\"new,established\"", "true", "false", "null",
                "\"forward\"", "\"input\"", "\"a\\\"b\"", "\"é\"", "{}", "\"\"", "18446744073709551615", "[1]", "\"17\"", "17",
            ]),
        ), 0..6), blank in "[ \t]{0,2}", tail in "[ ,}x]{0,1}") {
            let mut all = vec![("src", "\"1.2.3.4\""), ("dst", "\"1.2.3.5\"")];
            all.extend(parts);
            let pairs: Vec<String> = all.iter().map(|(key, value)| format!("\"{key}\":{blank}{value}")).collect();
            same(&format!("{{{}{blank}}}{tail}", pairs.join(",")));
        }
    }
}
