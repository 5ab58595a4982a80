//! Which packets a command is about: expressions, lines of JSON, captures.

use std::path::Path;

use crate::firewall::{Packet, ParseError};

/// Reads one line: a packet as JSON or as an expression; `None` for a blank line or a comment.
pub(super) fn line(source: &str, number: u32, line: &str) -> Result<Option<Packet>, Box<ParseError>> {
    let text = line.trim_end_matches(['\n', '\r']);
    let start = text.len() - text.trim_start().len();
    let trimmed = text[start..].trim_end();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(None);
    }
    let indent = text[..start].chars().count();
    let fault = |column: usize, message: String, hint: &str| {
        Box::new(ParseError {
            source: source.to_owned(),
            line: number,
            column: u32::try_from(indent + column).unwrap_or(u32::MAX),
            message,
            text: text.to_owned(),
            hint: Some(hint.to_owned()).filter(|hint| !hint.is_empty()),
        })
    };
    if trimmed.starts_with('[') {
        return Err(fault(1, "a list begins here, where each line is one packet".to_owned(), JSON_HINT));
    }
    let packet = if trimmed.starts_with('{') {
        Packet::from_json(trimmed).map_err(|error| {
            // serde_json counts octets, people count characters.
            let octets = error.column().saturating_sub(1).min(trimmed.len());
            let column = trimmed.as_bytes()[..octets].iter().filter(|byte| (**byte & 0xc0) != 0x80).count() + 1;
            let told = error.to_string();
            let message = told.split(" at line ").next().unwrap_or(&told).to_owned();
            if message.starts_with("EOF") {
                return fault(trimmed.chars().count() + 1, message, JSON_HINT);
            }
            fault(column, message, "")
        })?
    } else {
        trimmed.parse::<Packet>().map_err(|error| fault(error.column, error.message, EXPR_HINT))?
    };
    if let Err((key, message)) = check(&packet) {
        let at = trimmed.find(&format!("\"{key}\"")).unwrap_or(0);
        return Err(fault(trimmed[..at].chars().count() + 1, message, ""));
    }
    Ok(Some(packet))
}

const JSON_HINT: &str = "each line is one packet, such as {\"in\": \"eth0\", \"src\": \"192.168.1.5\", \"dst\": \"192.168.1.2\", \"proto\": \"udp\", \"dport\": 53}";
const EXPR_HINT: &str = "a packet looks like `in=eth0 tcp 192.168.1.5:40000 > 192.168.1.2:53 syn`";

/// Every line of a text.
pub(super) fn lines(source: &str, text: &str) -> Result<Vec<Packet>, Box<ParseError>> {
    let mut packets = Vec::new();
    for (number, text) in (1u32..).zip(text.split('\n')) {
        packets.extend(line(source, number, text)?);
    }
    Ok(packets)
}

/// What no packet can be, with the key that is to blame.
fn check(packet: &Packet) -> Result<(), (&'static str, String)> {
    if packet.src.is_ipv6() != packet.dst.is_ipv6() {
        return Err(("dst", format!("{} and {} are not of one family", packet.src, packet.dst)));
    }
    let (proto, _) = packet.protocol();
    let name = || packet.proto.map_or("tcp".to_owned(), |proto| proto.to_string());
    let ports = packet.sport.is_some() || packet.dport.is_some();
    if ports && !matches!(proto, 6 | 17 | 33 | 132 | 136) {
        let key = if packet.sport.is_some() { "sport" } else { "dport" };
        return Err((key, format!("{} has no ports", name())));
    }
    if packet.tcp_flags.is_some() && proto != 6 {
        return Err(("tcp_flags", format!("{} has no TCP flags", name())));
    }
    if packet.icmp_type.is_some() && !matches!(proto, 1 | 58) {
        return Err(("icmp_type", format!("{} has no ICMP type", name())));
    }
    if packet.frag_offset.is_some_and(|offset| offset > 0x1fff) {
        return Err(("frag_offset", "a fragment offset is at most 8191 (units of eight octets)".to_owned()));
    }
    if let Some(payload) = &packet.payload
        && (payload.len() % 2 != 0 || !payload.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(("payload", "a payload is an even number of hexadecimal digits".to_owned()));
    }
    if let Some(octets) = &packet.octets {
        if octets.len() % 2 != 0 || !octets.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(("octets", "octets are an even number of hexadecimal digits".to_owned()));
        }
        if !octets.starts_with(if packet.is_v6() { '6' } else { '4' }) {
            return Err(("octets", "the octets are no packet of the addresses' family".to_owned()));
        }
    }
    for (key, name) in [("in", &packet.in_), ("out", &packet.out)] {
        // IFNAMSIZ of linux/if.h, the closing 0 included.
        if name.as_ref().is_some_and(|name| name.len() > 15 || name.is_empty()) {
            return Err((key, "an interface has a name of 1 to 15 octets".to_owned()));
        }
    }
    Ok(())
}

/// What a file of packets is.
pub(super) enum Kind {
    /// Lines.
    Lines,
    /// A pcap file.
    Pcap,
    /// A pcapng file.
    Pcapng,
}

/// Tells a capture from text by its first four octets.
pub(super) fn kind(head: &[u8]) -> Kind {
    match head.get(..4) {
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => Kind::Pcapng,
        Some(
            [0xa1, 0xb2, 0xc3, 0xd4] | [0xd4, 0xc3, 0xb2, 0xa1] | [0xa1, 0xb2, 0x3c, 0x4d] | [0x4d, 0x3c, 0xb2, 0xa1],
        ) => Kind::Pcap,
        _ => Kind::Lines,
    }
}

/// What a pcapng file is answered.
pub(super) fn pcapng(file: &Path) -> anyhow::Error {
    crate::cli::Failure::usage(
        format!("{}: this is pcapng; only the classic pcap is read here", super::read::name(file)),
        Some("convert it: editcap -F pcap FILE OUT, or tcpdump -r FILE -w OUT"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_their_place() {
        for (text, column, says) in [
            ("{\"src\": \"10.0.0.1\", \"dst\": \"fd00::1\"}", 21, "not of one family"),
            ("  {\"src\": \"10.0.0.1\", \"dst\": }", 30, "expected value"),
            ("{\"src\": \"10.0.0.1\"", 19, "EOF"),
            ("{\"src\": \"1.1.1.1\", \"dst\": \"1.1.1.2\", \"proto\": \"icmp\", \"dport\": 3}", 55, "no ports"),
            ("{\"src\": \"1.1.1.1\", \"dst\": \"1.1.1.2\", \"payload\": \"abc\"}", 38, "hexadecimal"),
            ("[1]", 1, "a list"),
            ("tcp 1.1.1.1 > 1.1.1.300", 15, "no address"),
        ] {
            let error = line("p.jsonl", 7, text).unwrap_err();
            assert_eq!((error.line, error.column), (7, column), "{text}: {error}");
            assert!(error.message.contains(says), "{error}");
        }
        assert_eq!(line("p", 1, "  # a comment\r\n").unwrap(), None);
        assert!(line("p", 1, "udp 1.1.1.1 > 1.1.1.2:53\r\n").unwrap().is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(text in "\\PC*", json in "\\{[ -~]{0,80}") {
            let _ = line("p", 1, &text);
            let _ = line("p", 1, &json);
            let _ = lines("p", &format!("{text}\n{json}"));
        }
    }
}
