//! `-m srh` (segment routing headers) and `-m ipvs` (flows that the load balancer handles): modules whose
//! options are a list of independent tests.

use std::fmt;

use super::matches_header::not;
use super::values::Net;

/// One test of `-m srh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SrhPart {
    /// Anything but it.
    pub negated: bool,
    /// The option's name without `srh-`.
    pub option: &'static str,
    /// What the field is compared with.
    pub value: SrhValue,
}

/// The value of an option of `-m srh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrhValue {
    /// A number.
    Number(u32),
    /// A segment's address.
    Net(Net),
}

/// `-m srh`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SrhTest(pub Vec<SrhPart>);

impl SrhTest {
    /// The options in the order of ip6tables-save, without `srh-`, with the largest value; `None` for an
    /// address.
    pub const OPTIONS: [(&'static str, Option<u32>); 14] = [
        ("next-hdr", Some(255)),
        ("hdr-len-eq", Some(255)),
        ("hdr-len-gt", Some(255)),
        ("hdr-len-lt", Some(255)),
        ("segs-left-eq", Some(255)),
        ("segs-left-gt", Some(255)),
        ("segs-left-lt", Some(255)),
        ("last-entry-eq", Some(255)),
        ("last-entry-gt", Some(255)),
        ("last-entry-lt", Some(255)),
        ("tag", Some(65_535)),
        ("psid", None),
        ("nsid", None),
        ("lsid", None),
    ];
}

impl fmt::Display for SrhTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |part: &SrhPart| {
            let value = match part.value {
                SrhValue::Number(number) => number.to_string(),
                SrhValue::Net(net) => net.to_string(),
            };
            format!("{}--srh-{} {value}", not(part.negated), part.option)
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(" "))
    }
}

/// One option of `-m ipvs`: negated, name, value.
pub type IpvsPart = (bool, &'static str, Option<String>);

/// `-m ipvs`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpvsTest(pub Vec<IpvsPart>);

impl IpvsTest {
    /// The options in the order of iptables-save, and whether they take a value.
    pub const OPTIONS: [(&'static str, bool); 7] = [
        ("ipvs", false),
        ("vproto", true),
        ("vaddr", true),
        ("vport", true),
        ("vdir", true),
        ("vmethod", true),
        ("vportctl", true),
    ];
}

impl fmt::Display for IpvsTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(negated, name, value): &IpvsPart| {
            let value = value.as_ref().map_or(String::new(), |value| format!(" {value}"));
            format!("{}--{name}{value}", not(*negated))
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(" "))
    }
}
