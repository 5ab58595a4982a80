//! ipsets (include/uapi/linux/netfilter/ipset/ip_set.h), read as `ipset save` writes them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::attr::{Attrs, View};
use super::conn::{Answer, Conn, Subsystem};
use super::error::NftError;
use super::save::protocol_name;
use super::xt::word;

/// `IPSET_CMD_LIST`.
const LIST: u8 = 7;
/// `IPSET_PROTOCOL`, the first that tells a set's index (Linux 5.0).
const PROTOCOL: u8 = 7;

/// `IPSET_ATTR_*` of a message.
mod command {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const SETNAME: u16 = 2;
    pub(super) const TYPENAME: u16 = 3;
    pub(super) const FAMILY: u16 = 5;
    pub(super) const DATA: u16 = 7;
    pub(super) const ADT: u16 = 8;
    pub(super) const INDEX: u16 = 11;
}

/// `IPSET_ATTR_*` of a set and of an element.
mod data {
    pub(super) const IP: u16 = 1;
    pub(super) const IP_TO: u16 = 2;
    pub(super) const CIDR: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const PORT_TO: u16 = 5;
    pub(super) const TIMEOUT: u16 = 6;
    pub(super) const PROTO: u16 = 7;
    pub(super) const FLAGS: u16 = 8;
    pub(super) const MARK: u16 = 10;
    pub(super) const HASHSIZE: u16 = 18;
    pub(super) const MAXELEM: u16 = 19;
    pub(super) const NETMASK: u16 = 20;
    pub(super) const SIZE: u16 = 23;
    pub(super) const ETHER: u16 = 17;
    pub(super) const NAME: u16 = 18;
    pub(super) const IP2: u16 = 20;
    pub(super) const CIDR2: u16 = 21;
    pub(super) const IFACE: u16 = 23;
    pub(super) const BYTES: u16 = 24;
    pub(super) const PACKETS: u16 = 25;
    pub(super) const COMMENT: u16 = 26;
}

/// All sets of the namespace.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    names: Vec<(u16, String)>,
    /// As `ipset save` prints it.
    pub(crate) text: String,
}

impl Sets {
    /// The name of the set with this index.
    pub(crate) fn name(&self, index: u16) -> Option<String> {
        self.names.iter().find(|(number, _)| *number == index).map(|(_, name)| name.clone())
    }

    /// Reads them. To be asked only where a rule names a set: the question loads the kernel's module.
    pub(crate) fn read() -> Result<Self, NftError> {
        let attrs = Attrs::new().u8(command::PROTOCOL, PROTOCOL);
        let answers = Conn::open()?.dump("list the ipsets", Subsystem::Ipset, LIST, 2, &attrs)?;
        let mut sets = Self::default();
        for answer in &answers {
            sets.add(answer);
        }
        Ok(sets)
    }

    /// One message: a set's head, or some of its elements, or both.
    fn add(&mut self, answer: &Answer) -> Option<()> {
        let a = View::new(&answer.body);
        let name = a.string(command::SETNAME)?;
        let kind = a.string(command::TYPENAME)?;
        if let Some(index) = a.u16(command::INDEX)
            && !self.names.iter().any(|(number, _)| *number == index)
        {
            self.names.push((index, name.clone()));
        }
        let name = word(&name);
        if let Some(head) = a.nested(command::DATA) {
            let v6 = a.u8(command::FAMILY) == Some(10);
            let _ = writeln!(self.text, "create {name} {}{}", word(&kind), head_options(&kind, v6, head));
        }
        for (_, bytes) in a.nested(command::ADT).into_iter().flat_map(View::iter) {
            let element = View::new(bytes);
            let entry = entry(&kind, element).unwrap_or_else(|| "?".to_owned());
            let _ = writeln!(self.text, "add {name} {entry}{}", element_options(element));
        }
        Some(())
    }
}

fn address(a: View<'_>, kind: u16) -> Option<String> {
    let nested = a.nested(kind)?;
    match (nested.get(1), nested.get(2)) {
        (Some(v4), _) => Some(Ipv4Addr::from(*v4.first_chunk::<4>()?).to_string()),
        (None, Some(v6)) => Some(Ipv6Addr::from(*v6.first_chunk::<16>()?).to_string()),
        (None, None) => None,
    }
}

fn head_options(kind: &str, v6: bool, a: View<'_>) -> String {
    let mut out = String::new();
    if kind.starts_with("hash:") {
        let _ = write!(out, " family {}", if v6 { "inet6" } else { "inet" });
        for (key, option) in [(data::HASHSIZE, "hashsize"), (data::MAXELEM, "maxelem")] {
            if let Some(value) = a.u32(key) {
                let _ = write!(out, " {option} {value}");
            }
        }
    } else if let (Some(from), Some(to)) = (address(a, data::IP), address(a, data::IP_TO)) {
        let _ = write!(out, " range {from}-{to}");
    } else if let (Some(from), Some(to)) = (a.u16(data::PORT), a.u16(data::PORT_TO)) {
        let _ = write!(out, " range {from}-{to}");
    } else if let Some(size) = a.u32(data::SIZE) {
        let _ = write!(out, " size {size}");
    }
    if let Some(mask) = a.u8(data::NETMASK).filter(|mask| *mask != if v6 { 128 } else { 32 }) {
        let _ = write!(out, " netmask {mask}");
    }
    if let Some(timeout) = a.u32(data::TIMEOUT) {
        let _ = write!(out, " timeout {timeout}");
    }
    let flags = a.u32(data::FLAGS).unwrap_or(0);
    for (bit, option) in [(8, " counters"), (16, " comment"), (32, " forceadd"), (64, " skbinfo")] {
        if flags & bit != 0 {
            out.push_str(option);
        }
    }
    out
}

/// The element itself, a part for each dimension of the set's type.
fn entry(kind: &str, a: View<'_>) -> Option<String> {
    let (method, dimensions) = kind.split_once(':')?;
    let mut addresses = 0;
    let parts: Option<Vec<String>> = dimensions
        .split(',')
        .map(|dimension| match dimension {
            "ip" | "net" => {
                addresses += 1;
                let (ip, cidr) = if addresses == 1 { (data::IP, data::CIDR) } else { (data::IP2, data::CIDR2) };
                let mut text = address(a, ip)?;
                if let Some(to) = address(a, data::IP_TO).filter(|to| addresses == 1 && *to != text) {
                    let _ = write!(text, "-{to}");
                } else if let Some(cidr) = a.u8(cidr).filter(|_| dimension == "net") {
                    let full = if text.contains(':') { 128 } else { 32 };
                    if cidr != full {
                        let _ = write!(text, "/{cidr}");
                    }
                }
                Some(text)
            }
            "port" => {
                let port = a.u16(data::PORT)?;
                let range = match a.u16(data::PORT_TO).filter(|to| *to != port) {
                    Some(to) => format!("{port}-{to}"),
                    None => port.to_string(),
                };
                Some(match (method, a.u8(data::PROTO)) {
                    ("bitmap", _) | (_, None) => range,
                    (_, Some(proto @ (1 | 58))) => {
                        let [kind, code] = port.to_be_bytes();
                        format!("{}:{kind}/{code}", if proto == 1 { "icmp" } else { "icmpv6" })
                    }
                    (_, Some(proto)) => format!("{}:{range}", protocol_name(proto)),
                })
            }
            "mac" => {
                let mac: Vec<_> = a.get(data::ETHER)?.iter().map(|byte| format!("{byte:02X}")).collect();
                Some(mac.join(":"))
            }
            "iface" => {
                let physical = if a.u32(data::FLAGS).unwrap_or(0) & 2 != 0 { "physdev:" } else { "" };
                Some(format!("{physical}{}", word(&a.string(data::IFACE)?)))
            }
            "mark" => Some(format!("{:#010x}", a.u32(data::MARK)?)),
            "set" => Some(word(&a.string(data::NAME)?)),
            _ => None,
        })
        .collect();
    Some(parts?.join(","))
}

fn element_options(a: View<'_>) -> String {
    let mut out = String::new();
    if let Some(timeout) = a.u32(data::TIMEOUT) {
        let _ = write!(out, " timeout {timeout}");
    }
    if let (Some(packets), Some(bytes)) = (a.u64(data::PACKETS), a.u64(data::BYTES)) {
        let _ = write!(out, " packets {packets} bytes {bytes}");
    }
    if let Some(comment) = a.string(data::COMMENT) {
        let _ = write!(out, " comment \"{}\"", comment.replace(['"', '\n', '\r'], " "));
    }
    if a.u32(data::FLAGS).unwrap_or(0) & 4 != 0 {
        out.push_str(" nomatch");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(body: Vec<u8>, which in 0usize..6) {
            let kinds = ["hash:ip,port,net", "bitmap:port", "hash:net,iface", "list:set", "hash:mac", "hash:ip,mark"];
            let _ = entry(kinds[which], View::new(&body));
            let _ = element_options(View::new(&body));
            let _ = head_options(kinds[which], true, View::new(&body));
            let _ = Sets::default().add(&Answer { kind: 0, family: 0, body });
        }
    }
}
