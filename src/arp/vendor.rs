//! Who made a station's hardware: the IEEE's public listing of address blocks, embedded and updatable.
//!
//! The table is text: a head of `#` lines, then one line a block, `PREFIX NAME`, sorted by prefix. A
//! prefix has 6 (MA-L), 7 (MA-M) or 9 (MA-S) hexadecimal digits; the longest that fits wins. It is
//! searched as it stands, so that starting costs nothing. `reachwhy arp vendors --update FILE…` writes
//! the same form from the IEEE's own files.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::wire::MacAddr;

/// What ships with the program; its head names source, date and licence.
const EMBEDDED: &str = include_str!("../../data/ieee-oui.txt");
/// Lengths of a prefix in hexadecimal digits, longest first.
const LENGTHS: [usize; 3] = [9, 7, 6];
/// First line of every table.
const MAGIC: &str = "# reachwhy vendor table 1";

/// A table of vendors.
#[derive(Debug, Clone)]
pub struct Vendors {
    text: Cow<'static, str>,
    /// Where the entries begin.
    body: usize,
}

impl Default for Vendors {
    fn default() -> Self {
        Self::embedded()
    }
}

/// Why a file is no vendor table, or no IEEE listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVendors {
    /// Not the form that `arp vendors --update` writes.
    #[error("line {line}: {why}")]
    Table {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// Not the IEEE's CSV.
    #[error("line {line}: {why}")]
    Csv {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
}

impl Vendors {
    /// The table that ships with the program.
    pub fn embedded() -> Self {
        Self { text: Cow::Borrowed(EMBEDDED), body: body_of(EMBEDDED) }
    }

    /// Reads a table that [`Self::write`] wrote.
    ///
    /// # Errors
    /// When it was not, or is not sorted (then a search would miss).
    pub fn parse(text: String) -> Result<Self, BadVendors> {
        let bad = |line: usize, why| BadVendors::Table { line: line + 1, why };
        if text.lines().next() != Some(MAGIC) {
            return Err(bad(0, "this is no vendor table of reachwhy"));
        }
        let mut last = "";
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
            let (prefix, _) = line.split_once(' ').ok_or(bad(number, "no name after the prefix"))?;
            if !is_prefix(prefix) {
                return Err(bad(number, "the prefix is not 6, 7 or 9 hexadecimal digits in capitals"));
            }
            if prefix <= last {
                return Err(bad(number, "the prefixes are not in order"));
            }
            last = prefix;
        }
        let body = body_of(&text);
        Ok(Self { text: Cow::Owned(text), body })
    }

    /// The head's lines without their mark: source, date, licence.
    pub fn head(&self) -> impl Iterator<Item = &str> {
        self.text[..self.body].lines().skip(1).map(|line| line.trim_start_matches('#').trim())
    }

    /// When the listing was taken, as the head says.
    pub fn date(&self) -> Option<&str> {
        self.head().find_map(|line| line.strip_prefix("date: "))
    }

    /// How many blocks are known.
    pub fn len(&self) -> usize {
        self.text[self.body..].lines().count()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of whoever was assigned the block that `mac` is in. Addresses set by software have no
    /// vendor; see [`note`].
    pub fn name(&self, mac: MacAddr) -> Option<&str> {
        if mac.is_locally_administered() || mac.is_multicast() {
            return None;
        }
        let digits = mac.to_string().replace(':', "").to_ascii_uppercase();
        LENGTHS.iter().find_map(|length| self.find(&digits[..*length]))
    }

    /// Binary search over lines.
    fn find(&self, prefix: &str) -> Option<&str> {
        let body = self.text[self.body..].as_bytes();
        let (mut low, mut high) = (0, body.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let start = body[low..middle].iter().rposition(|octet| *octet == b'\n').map_or(low, |at| low + at + 1);
            let end = body[start..].iter().position(|octet| *octet == b'\n').map_or(body.len(), |at| start + at);
            let line = self.text[self.body..].get(start..end)?;
            let (found, name) = line.split_once(' ')?;
            match found.cmp(prefix) {
                std::cmp::Ordering::Equal => return Some(name),
                std::cmp::Ordering::Less => low = (end + 1).min(high),
                std::cmp::Ordering::Greater => high = start,
            }
        }
        None
    }

    /// A table's text from entries, with what its head says (one line each).
    pub fn write(entries: &BTreeMap<String, String>, head: &[String]) -> String {
        let mut text = format!("{MAGIC}\n");
        for line in head {
            text.extend(["# ", line, "\n"]);
        }
        for (prefix, name) in entries {
            text.extend([prefix, " ", name, "\n"]);
        }
        text
    }
}

fn is_prefix(text: &str) -> bool {
    LENGTHS.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

fn body_of(text: &str) -> usize {
    text.split_inclusive('\n').take_while(|line| line.starts_with('#')).map(str::len).sum()
}

/// Reads one of the IEEE's files (`oui.csv`, `mam.csv`, `oui36.csv`, `iab.csv`: columns Registry,
/// Assignment, Organization Name, Organization Address; RFC 4180 quoting) into `entries`; how many
/// blocks it had.
///
/// # Errors
/// With the line, where it is no such file.
pub fn read_ieee_csv(text: &str, entries: &mut BTreeMap<String, String>) -> Result<usize, BadVendors> {
    let text = text.trim_start_matches('\u{feff}');
    let mut count = 0;
    let mut rows = Rows { rest: text, line: 1 };
    let head = rows.next().transpose()?.map(|(_, fields)| fields).unwrap_or_default();
    if head.first().map(String::as_str) != Some("Registry") || head.get(1).map(String::as_str) != Some("Assignment") {
        return Err(BadVendors::Csv { line: 1, why: "not the IEEE's CSV: it begins with Registry,Assignment,…" });
    }
    for row in rows {
        let (line, fields) = row?;
        if fields.len() == 1 && fields[0].is_empty() {
            continue;
        }
        let prefix = fields.get(1).map(|text| text.trim().to_ascii_uppercase()).unwrap_or_default();
        if !is_prefix(&prefix) {
            return Err(BadVendors::Csv { line, why: "the assignment is not 6, 7 or 9 hexadecimal digits" });
        }
        let name: Vec<&str> = fields.get(2).map_or("", String::as_str).split_whitespace().collect();
        if !name.is_empty() {
            entries.insert(prefix, name.join(" ").chars().filter(|c| !c.is_control()).collect());
            count += 1;
        }
    }
    if count == 0 {
        return Err(BadVendors::Csv { line: 1, why: "it holds no assignment" });
    }
    Ok(count)
}

/// Records of a CSV text: the line each begins on, and its fields.
struct Rows<'a> {
    rest: &'a str,
    line: usize,
}

impl Iterator for Rows<'_> {
    type Item = Result<(usize, Vec<String>), BadVendors>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let begun = self.line;
        let mut fields = vec![String::new()];
        let mut quoted = false;
        let mut chars = self.rest.char_indices().peekable();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' if quoted && chars.peek().is_some_and(|(_, next)| *next == '"') => {
                    chars.next();
                    push(&mut fields, '"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                '\n' if !quoted => {
                    self.line += 1;
                    end = at + 1;
                    break;
                }
                '\r' if !quoted => {}
                other => {
                    self.line += usize::from(other == '\n');
                    push(&mut fields, other);
                }
            }
        }
        self.rest = if quoted { "" } else { &self.rest[end..] };
        Some(if quoted {
            Err(BadVendors::Csv { line: begun, why: "a quotation mark is not closed" })
        } else {
            Ok((begun, fields))
        })
    }
}

fn push(fields: &mut [String], c: char) {
    if let Some(field) = fields.last_mut() {
        field.push(c);
    }
}

/// What an address says of itself where no vendor can be named: virtual routers and machines, random
/// addresses, groups.
pub fn note(mac: MacAddr) -> Option<String> {
    let o = mac.0;
    Some(match o {
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => "broadcast".to_owned(),
        [0, 0, 0, 0, 0, 0] => "no address".to_owned(),
        [0x00, 0x00, 0x5e, 0x00, 0x01, id] => format!("VRRP or CARP virtual router {id}"),
        [0x00, 0x00, 0x5e, 0x00, 0x02, id] => format!("VRRP virtual router {id} (IPv6)"),
        [0x00, 0x00, 0x0c, 0x07, 0xac, id] => format!("HSRP group {id}"),
        [0x00, 0x00, 0x0c, 0x9f, high, low] if high & 0xf0 == 0xf0 => {
            format!("HSRP version 2 group {}", u16::from(high & 0x0f) << 8 | u16::from(low))
        }
        [0x00, 0x05, 0x73, 0xa0, high, low] if high & 0xf0 == 0 => {
            format!("HSRP group {} (IPv6)", u16::from(high & 0x0f) << 8 | u16::from(low))
        }
        [0x00, 0x07, 0xb4, 0x00, group, forwarder] => format!("GLBP group {group} forwarder {forwarder}"),
        [0x02, 0x42, ..] => "Docker container (locally set)".to_owned(),
        [0x52, 0x54, 0x00, ..] => "QEMU/KVM machine (locally set)".to_owned(),
        [0x02 | 0x03, 0xbf, ..] => "Microsoft NLB cluster".to_owned(),
        [0x0a, 0x00, 0x27, ..] => "VirtualBox host (locally set)".to_owned(),
        [first, ..] if first & 1 == 1 => "a group address: no station may use it".to_owned(),
        [first, ..] if first & 2 == 2 => "locally set (software or random)".to_owned(),
        _ => return None,
    })
}

/// The VRRP virtual router identifier in a virtual router's own address (RFC 9568 §7.3).
pub fn vrrp_router(mac: MacAddr) -> Option<u8> {
    match mac.0 {
        [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, id] => Some(id),
        _ => None,
    }
}

/// Whether the address belongs to a group of routers that share it on purpose (VRRP, CARP, HSRP, GLBP).
pub fn is_virtual_router(mac: MacAddr) -> bool {
    matches!(
        mac.0,
        [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, _] | [0x00, 0x00, 0x0c, 0x07, 0xac, _] | [0x00, 0x07, 0xb4, 0x00, ..]
    ) || matches!(mac.0, [0x00, 0x00, 0x0c, 0x9f, high, _] if high & 0xf0 == 0xf0)
        || matches!(mac.0, [0x00, 0x05, 0x73, 0xa0, high, _] if high & 0xf0 == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mac(text: &str) -> MacAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_embedded_table_is_sound() {
        let table = Vendors::parse(EMBEDDED.to_owned()).unwrap();
        assert!(table.len() > 50_000 && table.date().is_some());
        assert!(table.head().any(|line| line.contains("does not assert any copyright")));
        for (text, name) in [
            ("00:00:00:11:22:33", "XEROX CORPORATION"),
            ("00:00:0c:11:22:33", "Cisco Systems, Inc"),
            // Blocks of 28 and 36 bits within one of 24.
            ("00:55:da:01:22:33", "Shinko Technos co.,ltd."),
        ] {
            assert_eq!(table.name(mac(text)), Some(name), "{text}");
        }
        assert_eq!(table.name(mac("02:00:00:11:22:33")), None);
    }

    #[test]
    fn every_entry_is_found_by_the_search() {
        let table = Vendors::embedded();
        for line in EMBEDDED.lines().filter(|line| !line.starts_with('#')) {
            let (prefix, name) = line.split_once(' ').unwrap();
            assert_eq!(table.find(prefix), Some(name));
        }
        assert_eq!(table.find("FFFFFF"), None);
        assert_eq!(table.find("000"), None);
    }

    #[test]
    fn the_ieee_file_is_read_with_its_quotes() {
        let text = "\u{feff}Registry,Assignment,Organization Name,Organization Address\r\n\
            MA-L,00aabb,\"Acme,  \"\"Best\"\" Ltd\",\"1 Road\nTown\"\r\nMA-S,70B3D5F2F,Tele,\"x\"\r\n\r\nMA-L,AABBCC,,\n";
        let mut entries = BTreeMap::new();
        assert_eq!(read_ieee_csv(text, &mut entries), Ok(2));
        assert_eq!(entries["00AABB"], "Acme, \"Best\" Ltd");
        let table = Vendors::parse(Vendors::write(&entries, &["date: 2026-01-01".to_owned()])).unwrap();
        assert_eq!(table.name(mac("70:b3:d5:f2:f1:23")), Some("Tele"));
        assert_eq!(table.date(), Some("2026-01-01"));
    }

    #[test]
    fn other_files_are_refused_with_the_line() {
        let read = |text: &str| read_ieee_csv(text, &mut BTreeMap::new()).unwrap_err().to_string();
        assert!(read("").starts_with("line 1"));
        assert!(read("Registry,Assignment,Organization Name\nMA-L,XYZ,a\n").starts_with("line 2"));
        assert!(read("Registry,Assignment,N\nMA-L,00AABB,\"a\n").starts_with("line 2"));
        assert!(Vendors::parse(format!("{MAGIC}\nBB0000 b\nAA0000 a\n")).unwrap_err().to_string().contains("line 3"));
        assert!(Vendors::parse("x".to_owned()).is_err());
    }

    #[test]
    fn virtual_routers_are_known_by_their_address() {
        assert_eq!(vrrp_router(mac("00:00:5e:00:01:33")), Some(0x33));
        assert!(note(mac("00:00:0c:9f:f0:01")).unwrap().contains("group 1"));
        assert!(is_virtual_router(mac("00:00:0c:07:ac:05")) && !is_virtual_router(mac("00:00:0c:07:ad:05")));
        assert_eq!(note(mac("00:1b:21:00:00:01")), None);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "\\PC{0,200}", more in "(Registry,Assignment,N\n)?([A-Z0-9,\"\n]{0,80})") {
            let _ = read_ieee_csv(&text, &mut BTreeMap::new());
            let _ = read_ieee_csv(&more, &mut BTreeMap::new());
            let _ = Vendors::parse(text.clone());
            let _ = Vendors::parse(format!("{MAGIC}\n{text}"));
        }

        #[test]
        fn any_address_can_be_looked_up(octets: [u8; 6]) {
            let _ = (Vendors::embedded().name(MacAddr(octets)), note(MacAddr(octets)));
        }
    }
}
