//! DNS messages (RFC 1035 4, RFC 6891): a question written, a reply read as far as it can be.
//!
//! glibc takes from a damaged reply what stands before the damage, and so does this parser: it never
//! fails as a whole but says where it had to stop and why. What a record holds is put into words by
//! `hickory_proto`; the frame is read here, because a decoder that refuses the whole message
//! cannot show what an application would have seen.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hickory_proto::rr::{Record as ProtoRecord, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use serde::{Serialize, Serializer};

use super::name::{DomainName, LONGEST};

const HEADER: usize = 12;

/// A record type by its number (IANA's list).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RType(pub u16);

impl RType {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Alias.
    pub const CNAME: Self = Self(5);
    /// Start of authority.
    pub const SOA: Self = Self(6);
    /// Name of an address.
    pub const PTR: Self = Self(12);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Alias of all below a name.
    pub const DNAME: Self = Self(39);
    /// EDNS(0).
    pub const OPT: Self = Self(41);
    /// DNSSEC signature.
    pub const RRSIG: Self = Self(46);
    /// DNSSEC's digest of a child's key.
    pub const DS: Self = Self(43);
}

/// `A`, `mx`, `TYPE65534`.
impl FromStr for RType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        if let Some(number) = upper.strip_prefix("TYPE").and_then(|number| number.parse().ok()) {
            return Ok(Self(number));
        }
        match RecordType::from_str(&upper) {
            Ok(RecordType::Unknown(_)) | Err(_) => Err(format!("`{text}` is no record type")),
            Ok(known) => Ok(Self(known.into())),
        }
    }
}

impl fmt::Display for RType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RecordType::from(self.0) {
            RecordType::Unknown(number) => write!(f, "TYPE{number}"),
            known => write!(f, "{known}"),
        }
    }
}

impl Serialize for RType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A response code (RFC 1035 4.1.1, RFC 6895 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The question could not be read.
    pub const FORMERR: Self = Self(1);
    /// The server failed.
    pub const SERVFAIL: Self = Self(2);
    /// There is no such name.
    pub const NXDOMAIN: Self = Self(3);
    /// The server does not do this.
    pub const NOTIMP: Self = Self(4);
    /// The server does not want to.
    pub const REFUSED: Self = Self(5);
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
            "NOTAUTH", "NOTZONE",
        ];
        match known.get(usize::from(self.0)) {
            Some(word) => f.write_str(word),
            None if self.0 == 16 => f.write_str("BADVERS"),
            None => write!(f, "RCODE{}", self.0),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The name.
    pub name: DomainName,
    /// The type of record.
    #[serde(rename = "type")]
    pub rtype: RType,
}

/// How a question is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// RD: have the server ask others.
    pub recurse: bool,
    /// AD: say that its word on DNSSEC is believed (RFC 6840 5.7).
    pub authentic: bool,
    /// CD: do not check DNSSEC (RFC 4035 3.2.2).
    pub unchecked: bool,
    /// EDNS(0) with this receive buffer.
    pub edns: Option<u16>,
    /// DO: send DNSSEC records too.
    pub dnssec: bool,
}

impl Question {
    /// The octets of the question.
    pub fn encode(&self, id: u16, manner: Manner) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.name.wire().len() + 15);
        let flags =
            u16::from(manner.recurse) << 8 | u16::from(manner.authentic) << 5 | u16::from(manner.unchecked) << 4;
        for word in [id, flags, 1, 0, 0, u16::from(manner.edns.is_some())] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(self.name.wire());
        out.extend_from_slice(&self.rtype.0.to_be_bytes());
        out.extend_from_slice(&1_u16.to_be_bytes());
        if let Some(size) = manner.edns {
            // RFC 6891 6.1.2: root, OPT, size, extended code, version, flags, no data.
            out.extend_from_slice(&[0, 0, 41]);
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(&[0, 0, if manner.dnssec { 0x80 } else { 0 }, 0, 0, 0]);
        }
        out
    }
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// CNAME, DNAME, NS or PTR.
    Name(DomainName),
    /// Any other, as zone files write it.
    Text(String),
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A resource record of class IN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub owner: DomainName,
    /// Its type.
    pub rtype: RType,
    /// Seconds it may be kept.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// Why a reply could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer than 12 octets.
    #[error("it has {0} octets, a header alone has 12")]
    Short(usize),
    /// Compression pointers that lead back to themselves.
    #[error("compression pointers in the {0} go round in a loop")]
    Loop(&'static str),
    /// A name of more than 255 octets.
    #[error("a name in the {0} is longer than 255 octets")]
    LongName(&'static str),
    /// A label that is neither text nor a pointer (RFC 1035 4.1.4).
    #[error("a label in the {0} is of an unknown kind")]
    Label(&'static str),
    /// The message ends within a section that its header announces.
    #[error("it ends within the {0}")]
    Cut(&'static str),
    /// An address that is not 4 or 16 octets.
    #[error("an {kind} record in the {section} has {octets} octets of data")]
    Address {
        /// A or AAAA.
        kind: RType,
        /// Where.
        section: &'static str,
        /// How many it has.
        octets: usize,
    },
}

/// A message as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number, which must be the question's.
    pub id: u16,
    /// The 16 bits after it.
    pub flags: u16,
    /// What the header announces: questions, answers, authority, additional.
    pub counts: [u16; 4],
    /// The questions.
    pub questions: Vec<Question>,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authorities: Vec<Record>,
    /// The additional section without OPT.
    pub additionals: Vec<Record>,
    /// The upper bits of the code, from OPT.
    extended: u16,
    /// Whether there is an OPT record, and the size it allows.
    pub edns: Option<u16>,
    /// Why the server failed, in its own words (RFC 8914).
    pub extended_errors: Vec<String>,
    /// Octets.
    pub size: usize,
    /// What is wrong with it: what ended the reading early, or a record that makes no sense.
    pub malformed: Option<Malformed>,
    odd: Option<Malformed>,
    answers_cut: bool,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// When it does not even have a header.
    pub fn parse(octets: &[u8]) -> Result<Self, Malformed> {
        if octets.len() < HEADER {
            return Err(Malformed::Short(octets.len()));
        }
        let word = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
        let mut message = Self {
            id: word(0),
            flags: word(2),
            counts: [word(4), word(6), word(8), word(10)],
            questions: Vec::new(),
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            extended: 0,
            edns: None,
            extended_errors: Vec::new(),
            size: octets.len(),
            malformed: None,
            odd: None,
            answers_cut: true,
        };
        let cut = message.sections(octets).err();
        message.malformed = cut.or(message.odd.take());
        Ok(message)
    }

    fn sections(&mut self, octets: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader { octets, at: HEADER, section: "question" };
        for _ in 0..self.counts[0] {
            let name = reader.name()?;
            let rtype = RType(reader.word()?);
            reader.word()?;
            self.questions.push(Question { name, rtype });
        }
        for (index, section) in [(1, "answer section"), (2, "authority section"), (3, "additional section")] {
            reader.section = section;
            for _ in 0..self.counts[index] {
                let Some(record) = self.record(&mut reader)? else { continue };
                let list = match index {
                    1 => &mut self.answers,
                    2 => &mut self.authorities,
                    _ => &mut self.additionals,
                };
                list.push(record);
            }
            self.answers_cut &= index != 1;
        }
        Ok(())
    }

    /// Whether the damage is in the question or the answer section, where glibc looks.
    pub const fn answers_cut(&self) -> bool {
        self.answers_cut
    }

    /// The next record; `None` for OPT and for classes other than IN.
    fn record(&mut self, reader: &mut Reader<'_>) -> Result<Option<Record>, Malformed> {
        let start = reader.at;
        let owner = reader.name()?;
        let (rtype, class) = (RType(reader.word()?), reader.word()?);
        let ttl = u32::from(reader.word()?) << 16 | u32::from(reader.word()?);
        let length = usize::from(reader.word()?);
        let data_at = reader.at;
        let data = reader.take(length)?;
        if rtype == RType::OPT {
            self.edns = Some(class);
            self.extended = u16::try_from(ttl >> 24).unwrap_or(0);
            self.extended_errors = extended_errors(data);
            return Ok(None);
        }
        if class != 1 {
            return Ok(None);
        }
        let data = match rtype {
            RType::A | RType::AAAA => {
                let four = <[u8; 4]>::try_from(data).ok().filter(|_| rtype == RType::A);
                let sixteen = <[u8; 16]>::try_from(data).ok().filter(|_| rtype == RType::AAAA);
                let address = four.map(|a| Ipv4Addr::from(a).into()).or(sixteen.map(|a| Ipv6Addr::from(a).into()));
                let Some(address) = address else {
                    // Such a record is passed over; what follows it still counts.
                    let wrong = Malformed::Address { kind: rtype, section: reader.section, octets: length };
                    self.odd.get_or_insert(wrong);
                    return Ok(None);
                };
                Data::Address(address)
            }
            RType::CNAME | RType::DNAME | RType::NS | RType::PTR => {
                let mut inner = Reader { octets: reader.octets, at: data_at, section: reader.section };
                Data::Name(inner.name()?)
            }
            _ => Data::Text(in_words(reader.octets, start, data)),
        };
        Ok(Some(Record { owner, rtype, ttl, data }))
    }

    const fn flag(&self, bit: u16) -> bool {
        self.flags & bit != 0
    }

    /// QR: it is a reply.
    pub const fn is_reply(&self) -> bool {
        self.flag(0x8000)
    }

    /// AA: the server is an authority for the name.
    pub const fn authoritative(&self) -> bool {
        self.flag(0x0400)
    }

    /// TC: there was no room for all of it.
    pub const fn truncated(&self) -> bool {
        self.flag(0x0200)
    }

    /// RA: the server asks others.
    pub const fn recursion_available(&self) -> bool {
        self.flag(0x0080)
    }

    /// AD: the server has checked DNSSEC signatures.
    pub const fn authentic(&self) -> bool {
        self.flag(0x0020)
    }

    /// How it ended, without what EDNS adds: what glibc looks at.
    pub const fn header_rcode(&self) -> Rcode {
        Rcode(self.flags & 0xf)
    }

    /// How it ended.
    pub const fn rcode(&self) -> Rcode {
        Rcode(self.extended << 4 | self.flags & 0xf)
    }

    /// The header's flags in dig's words.
    pub fn flag_words(&self) -> Vec<&'static str> {
        [("qr", 0x8000), ("aa", 0x400), ("tc", 0x200), ("rd", 0x100), ("ra", 0x80), ("ad", 0x20), ("cd", 0x10)]
            .into_iter()
            .filter(|(_, bit)| self.flag(*bit))
            .map(|(word, _)| word)
            .collect()
    }

    /// Whether it answers this question: the same number and the same question, in any letter case.
    pub fn answers_to(&self, id: u16, question: &Question) -> bool {
        self.id == id && self.counts[0] == 1 && self.questions.first() == Some(question)
    }

    /// The addresses in the answer section, whoever owns them, with their TTL.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        self.answers.iter().filter_map(|record| match record.data {
            Data::Address(address) => Some((address, record.ttl)),
            _ => None,
        })
    }

    /// How long "no" may be kept: the smaller of the SOA's TTL and its last number (RFC 2308 5).
    pub fn negative_ttl(&self) -> Option<u32> {
        self.authorities.iter().filter(|record| record.rtype == RType::SOA).find_map(|record| {
            let minimum = record.data.to_string().split_whitespace().last()?.parse().ok()?;
            Some(record.ttl.min(minimum))
        })
    }
}

/// EDE options: code and text.
fn extended_errors(mut options: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let [code_high, code_low, length_high, length_low, rest @ ..] = options {
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        let Some((value, next)) = rest.split_at_checked(length) else { break };
        if let (15, [high, low, text @ ..]) = (u16::from_be_bytes([*code_high, *code_low]), value) {
            let code = u16::from_be_bytes([*high, *low]);
            let text = String::from_utf8_lossy(text);
            let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            let word = extended_error_word(code);
            found.push(if text.is_empty() { format!("{code} {word}") } else { format!("{code} {word}: {text}") });
        }
        options = next;
    }
    found
}

/// RFC 8914 4.
fn extended_error_word(code: u16) -> &'static str {
    let words = [
        "Other Error",
        "Unsupported DNSKEY Algorithm",
        "Unsupported DS Digest Type",
        "Stale Answer",
        "Forged Answer",
        "DNSSEC Indeterminate",
        "DNSSEC Bogus",
        "Signature Expired",
        "Signature Not Yet Valid",
        "DNSKEY Missing",
        "RRSIGs Missing",
        "No Zone Key Bit Set",
        "NSEC Missing",
        "Cached Error",
        "Not Ready",
        "Blocked",
        "Censored",
        "Filtered",
        "Prohibited",
        "Stale NXDOMAIN Answer",
        "Not Authoritative",
        "Not Supported",
        "No Reachable Authority",
        "Network Error",
        "Invalid Data",
    ];
    words.get(usize::from(code)).copied().unwrap_or("unknown")
}

/// The data of a record as zone files write it; octets that make no sense as their type in the form of RFC 3597.
fn in_words(octets: &[u8], start: usize, data: &[u8]) -> String {
    let mut decoder = BinDecoder::new(octets);
    let whole = decoder.read_slice(start).ok().and_then(|_| ProtoRecord::read(&mut decoder).ok());
    match whole.map(|record| record.data) {
        Some(known) if !matches!(known, hickory_proto::rr::RData::Unknown { .. }) => {
            // Control characters of a hostile record must not reach a terminal.
            known.to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        }
        _ => {
            use fmt::Write as _;
            let mut text = format!("\\# {}", data.len());
            for (at, octet) in data.iter().enumerate() {
                let gap = if at == 0 { " " } else { "" };
                let _ = write!(text, "{gap}{octet:02x}");
            }
            text
        }
    }
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
    section: &'static str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.octets.len());
        let end = end.ok_or(Malformed::Cut(self.section))?;
        let taken = &self.octets[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u16, Malformed> {
        let two = self.take(2)?;
        Ok(u16::from_be_bytes([two[0], two[1]]))
    }

    /// RFC 1035 4.1.4. A name that visits more octets than the message has goes round in a loop.
    fn name(&mut self) -> Result<DomainName, Malformed> {
        let cut = Malformed::Cut(self.section);
        let mut wire = Vec::with_capacity(32);
        let (mut at, mut visited, mut end) = (self.at, 0, None);
        loop {
            let length = *self.octets.get(at).ok_or(cut.clone())?;
            at += 1;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.octets.get(at..at + usize::from(length)).ok_or(cut.clone())?;
                    wire.push(length);
                    wire.extend_from_slice(label);
                    if wire.len() >= LONGEST {
                        return Err(Malformed::LongName(self.section));
                    }
                    at += label.len();
                    visited += label.len() + 1;
                }
                0xc0.. => {
                    let low = *self.octets.get(at).ok_or(cut.clone())?;
                    end.get_or_insert(at + 1);
                    at = usize::from(length & 0x3f) << 8 | usize::from(low);
                    visited += 2;
                }
                _ => return Err(Malformed::Label(self.section)),
            }
            if visited >= self.octets.len() {
                return Err(Malformed::Loop(self.section));
            }
        }
        wire.push(0);
        self.at = end.unwrap_or(at);
        Ok(DomainName::from_wire(wire))
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message as Proto, Query};
    use hickory_proto::rr::{Name, RData};
    use proptest::prelude::*;

    use super::*;

    fn reply(kind: RecordType, value: &str) -> Vec<u8> {
        let mut message = Proto::response(7, hickory_proto::op::OpCode::Query);
        let name = Name::from_ascii("api.lab.").unwrap();
        message.add_query(Query::query(name.clone(), kind));
        message.add_answer(ProtoRecord::from_rdata(name, 60, RData::try_from_str(kind, value).unwrap()));
        message.to_vec().unwrap()
    }

    #[test]
    fn a_question_is_read_by_others() {
        let question = Question { name: DomainName::parse("api.lab").unwrap(), rtype: RType::AAAA };
        let manner = Manner { recurse: true, edns: Some(1200), dnssec: true, ..Manner::default() };
        let octets = question.encode(9, manner);
        let read = Proto::from_vec(&octets).unwrap();
        assert_eq!(read.metadata.id, 9);
        assert!(read.metadata.recursion_desired);
        assert_eq!(read.queries[0].query_type(), RecordType::AAAA);
        assert_eq!(read.max_payload(), 1200);
        assert!(Message::parse(&octets).unwrap().answers_to(9, &question));
    }

    #[test]
    fn records_of_many_types_are_put_into_words() {
        for (kind, value, shown) in [
            (RecordType::A, "192.168.1.3", "192.168.1.3"),
            (RecordType::AAAA, "fd00::1", "fd00::1"),
            (RecordType::CNAME, "www.lab.", "www.lab"),
            (RecordType::MX, "10 mail.lab.", "10 mail.lab."),
            (RecordType::TXT, "\"v=spf1 -all\"", "v=spf1 -all"),
            (RecordType::SRV, "1 2 443 api.lab.", "1 2 443 api.lab."),
            (RecordType::CAA, "0 issue \"ca.lab\"", "0 issue \"ca.lab\""),
        ] {
            let message = Message::parse(&reply(kind, value)).unwrap();
            assert_eq!(message.malformed, None);
            let record = &message.answers[0];
            assert_eq!((record.rtype.to_string(), record.ttl), (kind.to_string(), 60));
            assert!(record.data.to_string().contains(shown), "{record:?}");
        }
        assert_eq!("type65534".parse::<RType>().unwrap().to_string(), "TYPE65534");
        assert_eq!("HTTPS".parse::<RType>().unwrap(), RType(65));
        assert!("nope".parse::<RType>().is_err());
    }

    #[test]
    fn damage_is_named_and_what_stands_before_it_kept() {
        let good = reply(RecordType::A, "192.168.1.3");
        assert_eq!(Message::parse(&good[..11]), Err(Malformed::Short(11)));
        let cut = Message::parse(&good[..good.len() - 1]).unwrap();
        assert_eq!(cut.malformed, Some(Malformed::Cut("answer section")));
        assert_eq!(cut.questions.len(), 1);
        let mut header = [0_u8; 12];
        header[7] = 1;
        let with = |tail: &[u8]| Message::parse(&[&header[..], tail].concat()).unwrap().malformed;
        assert_eq!(with(&[0xc0, 12]), Some(Malformed::Loop("answer section")));
        assert_eq!(with(&[0x40, 1]), Some(Malformed::Label("answer section")));
        let long: Vec<u8> = std::iter::repeat_n([1, b'a'], 200).flatten().collect();
        assert_eq!(with(&long), Some(Malformed::LongName("answer section")));
        let bad = with(&[0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 3, 1, 2, 3]);
        assert_eq!(bad, Some(Malformed::Address { kind: RType::A, section: "answer section", octets: 3 }));
    }

    #[test]
    fn why_a_server_failed_is_read() {
        let opt = [0, 15, 0, 5, 0, 6, b'b', b'a', b'd', 0, 15, 0, 2, 0, 22];
        assert_eq!(extended_errors(&opt), ["6 DNSSEC Bogus: bad", "22 No Reachable Authority"]);
        assert_eq!(extended_errors(&opt[..7]), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets: Vec<u8>, counts in any::<[u8; 4]>(), tail: Vec<u8>) {
            let _ = Message::parse(&octets);
            let mut message = vec![0, 0, 0x80, 0];
            message.extend(counts.iter().flat_map(|count| [0, *count]));
            message.extend(tail);
            let _ = Message::parse(&message);
        }
    }
}
