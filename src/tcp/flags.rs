//! A set of flags explained: what it says, who sends it and when, and what a stack answers.

use serde::Serialize;

use crate::wire::TcpFlags;

/// AE, the ninth flag (draft-ietf-tcpm-accurate-ecn): bit 8 of the field.
const AE: u16 = 0x100;

/// A set that was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagSet {
    /// The eight flags.
    pub flags: TcpFlags,
    /// The ninth.
    pub ae: bool,
}

/// What was asked is no set of flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no set of TCP flags")]
pub struct NoFlags(pub String);

impl std::str::FromStr for FlagSet {
    type Err = NoFlags;

    /// `0x12`, `18`, `0b10010`, `SYN,ACK`, `SA`, tcpdump's `S.`, or nmap's names (`xmas`, `null`).
    fn from_str(text: &str) -> Result<Self, NoFlags> {
        let text = text.trim().trim_start_matches('[').trim_end_matches(']');
        let bad = || NoFlags(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let plain = |bits: u8| Ok(Self { flags: TcpFlags(bits), ae: false });
        match lower.as_str() {
            "" => return Err(bad()),
            "none" | "null" => return plain(0),
            "xmas" | "christmas" => return plain(0x29),
            _ => {}
        }
        let radix =
            [("0x", 16), ("0b", 2)].iter().find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, *radix)));
        let number = match radix {
            Some((digits, radix)) => Some(u16::from_str_radix(digits, radix).map_err(|_| bad())?),
            None if lower.bytes().all(|byte| byte.is_ascii_digit()) => Some(lower.parse::<u16>().map_err(|_| bad())?),
            None => None,
        };
        if let Some(number) = number {
            let low = u8::try_from(number & 0xff).unwrap_or(0);
            // The reserved bits above AE say nothing.
            return if number > 0x1ff { Err(bad()) } else { Ok(Self { flags: TcpFlags(low), ae: number & AE != 0 }) };
        }
        if let Ok(flags) = text.parse::<TcpFlags>() {
            return Ok(Self { flags, ae: false });
        }
        let mut set = Self { flags: TcpFlags(0), ae: false };
        for word in lower.split([',', '|', '+', ' ', '-']).filter(|word| !word.is_empty()) {
            match word {
                "ae" => set.ae = true,
                "psh" | "push" => set.flags = set.flags | TcpFlags::PSH,
                "reset" => set.flags = set.flags | TcpFlags::RST,
                word => match word.parse::<TcpFlags>() {
                    Ok(flag) => set.flags = set.flags | flag,
                    Err(_) => set.letters(word).ok_or_else(bad)?,
                },
            }
        }
        Ok(set)
    }
}

impl FlagSet {
    /// One letter each, as tcpdump and Wireshark write them.
    fn letters(&mut self, word: &str) -> Option<()> {
        for letter in word.chars() {
            let flag = match letter {
                'f' => TcpFlags::FIN,
                's' => TcpFlags::SYN,
                'r' => TcpFlags::RST,
                'p' => TcpFlags::PSH,
                'a' | '.' => TcpFlags::ACK,
                'u' => TcpFlags::URG,
                'e' => TcpFlags::ECE,
                'c' | 'w' => TcpFlags::CWR,
                'n' => {
                    self.ae = true;
                    continue;
                }
                '·' => continue,
                _ => return None,
            };
            self.flags = self.flags | flag;
        }
        Some(())
    }

    fn has(self, flag: TcpFlags) -> bool {
        self.flags.contains(flag)
    }
}

/// What a set means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlagsReport {
    /// The nine bits.
    pub value: u16,
    /// Hexadecimal.
    pub hex: String,
    /// The names.
    pub names: Vec<&'static str>,
    /// As tcpdump writes it.
    pub tcpdump: String,
    /// A filter of pcap-filter(7) that finds exactly this set.
    pub filter: String,
    /// Whether a TCP sends such a set.
    pub legal: bool,
    /// What it says, in a sentence.
    pub meaning: String,
    /// Who sends it, and when.
    pub sent_by: String,
    /// What receivers do, by their state.
    pub answers: Vec<Answer>,
    /// Each flag by itself.
    pub flags: Vec<Meaning>,
}

/// What a receiver does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// In which state.
    pub state: &'static str,
    /// What it does.
    pub does: &'static str,
}

/// One flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Meaning {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub says: &'static str,
}

/// Explains a set.
pub fn explain(set: FlagSet) -> FlagsReport {
    let flags = set.flags;
    let value = u16::from(flags.0) | if set.ae { AE } else { 0 };
    let mut names: Vec<&'static str> =
        super::lesson::FLAGS.iter().filter(|(flag, _, _)| flags.contains(*flag)).map(|(_, name, _)| *name).collect();
    let mut each: Vec<Meaning> = super::lesson::FLAGS
        .iter()
        .filter(|(flag, _, _)| flags.contains(*flag))
        .map(|(_, name, says)| Meaning { name, says })
        .collect();
    if set.ae {
        names.push("AE");
        each.push(Meaning {
            name: "AE",
            says: "accurate ECN: with CWR and ECE a counter of marked packets (on a SYN: an offer).",
        });
    }
    let (meaning, sent_by) = meaning(set);
    FlagsReport {
        value,
        hex: format!("0x{value:02x}"),
        names,
        tcpdump: tcpdump(set),
        filter: if set.ae {
            format!("tcp[12:2] & 0x1ff = 0x{value:x}")
        } else {
            format!("tcp[tcpflags] = 0x{:02x}", flags.0)
        },
        legal: !super::is_illegal(flags),
        meaning,
        sent_by,
        answers: answers(set),
        flags: each,
    }
}

fn tcpdump(set: FlagSet) -> String {
    let order = [
        (TcpFlags::FIN, 'F'),
        (TcpFlags::SYN, 'S'),
        (TcpFlags::RST, 'R'),
        (TcpFlags::PSH, 'P'),
        (TcpFlags::ACK, '.'),
        (TcpFlags::URG, 'U'),
        (TcpFlags::ECE, 'E'),
        (TcpFlags::CWR, 'W'),
    ];
    let mut text: String = order.iter().filter(|(flag, _)| set.has(*flag)).map(|(_, letter)| *letter).collect();
    if set.ae {
        text.push('e');
    }
    if text.is_empty() { "[none]".to_owned() } else { format!("[{text}]") }
}

fn meaning(set: FlagSet) -> (String, String) {
    let has = |flag: TcpFlags| set.has(flag);
    let (syn, fin, rst, ack) = (has(TcpFlags::SYN), has(TcpFlags::FIN), has(TcpFlags::RST), has(TcpFlags::ACK));
    let ecn = has(TcpFlags::ECE) && has(TcpFlags::CWR);
    let core = set.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0 | TcpFlags::ACK.0);
    let scan = |name: &str, what: &str| {
        (what.to_owned(), format!("no TCP; a scanner ({name}), a broken stack, or damage on the way"))
    };
    let pair = |meaning: &str, by: &str| (meaning.to_owned(), by.to_owned());
    match (syn, fin, rst, ack) {
        (true, true, _, _) => {
            scan("SYN+FIN", "open and close at once: contradicts itself; old filters let it pass, Linux drops it")
        }
        (true, _, true, _) => scan("SYN+RST", "open and abort at once: contradicts itself"),
        (_, true, true, _) => scan("FIN+RST", "close and abort at once: contradicts itself"),
        (true, false, false, false) => {
            let mut text = "a request to open a connection: the first step of the handshake".to_owned();
            if ecn && set.ae {
                text.push_str("; AE, CWR and ECE offer accurate ECN");
            } else if ecn {
                text.push_str("; ECE and CWR offer ECN (RFC 3168 §6.1.1)");
            }
            if has(TcpFlags::URG) {
                text.push_str("; URG makes no sense here");
            }
            (text, "the client, once, and again after 1, 3, 7 … seconds without an answer; also a SYN scan".to_owned())
        }
        (true, false, false, true) => {
            let mut text =
                "the answer to a SYN: I heard you, and here is my number; the second step of the handshake".to_owned();
            if has(TcpFlags::ECE) && !has(TcpFlags::CWR) {
                text.push_str("; ECE accepts ECN");
            }
            pair(&text, "the server, in SYN-RECEIVED; either end in a simultaneous open")
        }
        (false, false, true, true) => pair(
            "refused or aborted: the segment it acknowledges found no connection",
            "a host where nothing listens on the port, in answer to a SYN; an application that closes with data unread; a firewall that rejects",
        ),
        (false, false, true, false) => pair(
            "abort: the connection is not known here (any more)",
            "a host that got an ACK for a connection it does not know (after a reboot, a NAT that forgot); SO_LINGER 0",
        ),
        (false, true, false, true) => {
            let push = if has(TcpFlags::PSH) { " with the last of the data" } else { "" };
            pair(
                &format!("I have nothing more to send{push}, and I have all up to the acknowledgement number"),
                "either end when its application closes or shuts down writing: ESTABLISHED to FIN-WAIT-1, or CLOSE-WAIT to LAST-ACK",
            )
        }
        (false, false, false, true) => match (has(TcpFlags::PSH), has(TcpFlags::URG)) {
            (false, false) => pair(
                "an acknowledgement, alone or with data: I have everything before this number",
                "either end, all the time; the third step of the handshake; keep-alives; window updates; also an ACK scan",
            ),
            (true, false) => pair(
                "data that ends a write: hand it to the application now",
                "either end; most request and answer segments look like this",
            ),
            _ => pair("data with an urgent pointer", "telnet, rlogin, FTP's ABOR; hardly anything else"),
        },
        (false, false, false, false) if set.flags.0 == 0 && !set.ae => {
            scan("NULL scan", "no flag at all: it says nothing")
        }
        (false, true, false, false) if set.flags.0 & (TcpFlags::PSH.0 | TcpFlags::URG.0) == 0x28 => {
            scan("Xmas scan", "FIN, PSH and URG without ACK: lit like a Christmas tree")
        }
        (false, true, false, false) if core == TcpFlags::FIN.0 && set.flags.0 == 1 => {
            scan("FIN scan", "a FIN without ACK: every FIN of a real connection carries ACK")
        }
        _ => scan("odd flags", "neither SYN, RST nor ACK: no segment of a connection looks like this"),
    }
}

/// RFC 9293 §3.10.7, and where Linux is stricter.
fn answers(set: FlagSet) -> Vec<Answer> {
    let has = |flag: TcpFlags| set.has(flag);
    let (syn, fin, rst, ack) = (has(TcpFlags::SYN), has(TcpFlags::FIN), has(TcpFlags::RST), has(TcpFlags::ACK));
    let closed = if rst {
        "nothing: a RST is never answered"
    } else if ack {
        "RST, its number taken from the acknowledgement"
    } else {
        "RST,ACK, acknowledging what the segment took"
    };
    let listen = if rst {
        "nothing"
    } else if ack {
        "RST: it acknowledges what was never sent"
    } else if syn && fin {
        "SYN,ACK by the RFC; Linux drops it"
    } else if syn {
        "SYN,ACK"
    } else {
        "nothing: neither SYN, ACK nor RST"
    };
    let established = if rst {
        "the connection is gone, if the number is the very next one; else a challenge ACK (RFC 5961 §3.2)"
    } else if syn {
        "a challenge ACK (RFC 5961 §4.2): the SYN is not believed"
    } else if !ack {
        "nothing: after the handshake every segment must have ACK"
    } else if fin {
        "ACK; it goes to CLOSE-WAIT, and the application reads the end of the file"
    } else {
        "data is acknowledged; an acknowledgement alone is not answered"
    };
    vec![
        Answer { state: "CLOSED (nothing listens)", does: closed },
        Answer { state: "LISTEN", does: listen },
        Answer { state: "ESTABLISHED", does: established },
    ]
}

/// What came back to a segment out of the blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// A segment with these flags, and whether its numbers answer ours.
    Segment(TcpFlags, bool),
    /// An ICMP error: whether an administrator's filter says so.
    Icmp {
        /// "Administratively prohibited" of some kind.
        prohibited: bool,
    },
    /// Nothing.
    Nothing,
}

/// What the answer says of the port, and of the stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// `open`, `closed`, `filtered`, `unfiltered`, `open|filtered`, or `unknown`.
    pub port: &'static str,
    /// Whether RFC 9293 §3.10.7 has this answer; `None` where it does not say, or nothing came.
    pub conforms: Option<bool>,
    /// In words.
    pub says: String,
}

/// Judges the answer to a segment that belongs to no connection.
pub fn judge(sent: TcpFlags, came: Came) -> Judgement {
    let has = |flag: TcpFlags| sent.contains(flag);
    let (syn, rst, ack) = (has(TcpFlags::SYN), has(TcpFlags::RST), has(TcpFlags::ACK));
    let say =
        |port: &'static str, conforms: Option<bool>, says: &str| Judgement { port, conforms, says: says.to_owned() };
    let reply = match came {
        Came::Icmp { prohibited: true } => {
            return say("filtered", None, "a filter on the way says that it is forbidden");
        }
        Came::Icmp { prohibited: false } => {
            return say("filtered", None, "a router or host says that it cannot be delivered");
        }
        Came::Nothing if rst => return say("unknown", Some(true), "no answer, as it must be: a RST is never answered"),
        Came::Nothing if syn && !ack => {
            return say("filtered", None, "no answer: a host would accept or refuse, so something drops it");
        }
        Came::Nothing if ack => {
            return say(
                "filtered",
                None,
                "no answer: open or closed, a host answers this with RST; something drops it",
            );
        }
        Came::Nothing => {
            return say("open|filtered", None, "no answer: a listening port ignores it, and a filter drops it");
        }
        Came::Segment(flags, _) if flags == TcpFlags::ACK && (rst || syn) => {
            let says = "a challenge ACK: a connection with these ports exists there, and what came does not fit it \
                        exactly enough to end or replace it (RFC 5961 §3.2, §4.2)";
            return say("open", Some(true), says);
        }
        Came::Segment(flags, false) if flags == TcpFlags::ACK => {
            let says =
                "an ACK with other numbers: a connection with these ports exists there, and says what it waits for";
            return say("open", Some(true), says);
        }
        Came::Segment(_, false) => {
            return say("unknown", Some(false), "an answer whose numbers do not fit: an old connection, or forged");
        }
        Came::Segment(flags, true) => flags,
    };
    let (r_syn, r_ack, r_rst) =
        (reply.contains(TcpFlags::SYN), reply.contains(TcpFlags::ACK), reply.contains(TcpFlags::RST));
    if rst {
        return say("unknown", Some(false), "an answer to a RST: no TCP may do that");
    }
    if r_syn && r_ack {
        return if syn && !ack {
            say("open", Some(true), "SYN,ACK: something listens there")
        } else {
            say("open", Some(false), "SYN,ACK to a segment that asked for nothing")
        };
    }
    if r_rst {
        return match (syn, ack) {
            (_, true) => {
                let right = !r_ack;
                let says = if right {
                    "RST: the way is free; open or closed cannot be told by this"
                } else {
                    "RST,ACK where the RFC has RST alone; the way is free"
                };
                say("unfiltered", Some(right), says)
            }
            (true, false) if r_ack => {
                say("closed", Some(true), "RST,ACK: nothing listens there, or a firewall rejects")
            }
            (false, false) if r_ack => say(
                "closed",
                Some(true),
                "RST,ACK: nothing listens there; a listening port would be silent (Windows answers so in any case)",
            ),
            _ => say("closed", Some(false), "RST without ACK: not how a stack refuses; a middlebox may have sent it"),
        };
    }
    say("open", Some(true), "an ACK of what was sent: a connection with these ports exists there and took it")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sets_are_read_in_all_notations() {
        for text in ["0x12", "18", "0b10010", "SA", "S.", "[S.]", "SYN,ACK", "syn+ack", "SYN-ACK", "ack|syn", "SYN ACK"]
        {
            assert_eq!(text.parse::<FlagSet>().unwrap().flags, TcpFlags(0x12), "{text}");
        }
        assert_eq!("xmas".parse::<FlagSet>().unwrap().flags, TcpFlags(0x29));
        assert_eq!("none".parse::<FlagSet>().unwrap().flags, TcpFlags(0));
        assert!("0x1c2".parse::<FlagSet>().unwrap().ae);
        for bad in ["", "0x", "0x200", "512", "banana", "SYN,BANANA", "-1", "0xzz"] {
            assert!(bad.parse::<FlagSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn scans_are_named_and_real_sets_are_legal() {
        let report = |text: &str| explain(text.parse().unwrap());
        for legal in ["S", "SA", "A", "PA", "FA", "FPA", "R", "RA", "SEC", "U A".replace(' ', "").as_str()] {
            assert!(report(legal).legal, "{legal}");
        }
        for (illegal, name) in
            [("none", "NULL"), ("FPU", "Xmas"), ("F", "FIN scan"), ("SF", "SYN+FIN"), ("SR", "SYN+RST")]
        {
            let report = report(illegal);
            assert!(!report.legal && report.sent_by.contains(name), "{report:?}");
        }
        assert_eq!(report("SA").tcpdump, "[S.]");
    }

    #[test]
    fn answers_are_judged() {
        let judge = |sent: &str, came| judge(sent.parse::<FlagSet>().unwrap().flags, came);
        let segment = |flags: &str| Came::Segment(flags.parse().unwrap(), true);
        assert_eq!(judge("S", segment("SYN,ACK")).port, "open");
        assert_eq!(judge("S", segment("RST,ACK")).port, "closed");
        assert_eq!(judge("S", Came::Nothing).port, "filtered");
        assert_eq!(judge("A", segment("RST")).port, "unfiltered");
        assert_eq!(judge("FPU", Came::Nothing).port, "open|filtered");
        assert_eq!(judge("FPU", segment("RST,ACK")).port, "closed");
        assert_eq!(judge("R", Came::Nothing).conforms, Some(true));
        assert_eq!(judge("R", segment("RST")).conforms, Some(false));
    }

    proptest! {
        #[test]
        fn every_set_can_be_explained(value in 0u16..512) {
            let report = explain(format!("0x{value:x}").parse().unwrap());
            prop_assert_eq!(report.value, value);
            prop_assert!(!report.meaning.is_empty() && report.answers.len() == 3);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,20}") {
            let _ = text.parse::<FlagSet>();
        }
    }
}
