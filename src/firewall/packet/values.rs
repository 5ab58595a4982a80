//! Packet fields that are written by name.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::firewall::names;
use crate::firewall::ruleset::{CtStates, CtStatuses, TcpFlags};

/// An IP protocol: by name where it has one, else by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proto(pub u8);

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::protocol_name(self.0))
    }
}

impl Serialize for Proto {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NameOrNumber {
    Number(u8),
    Name(String),
}

impl<'de> Deserialize<'de> for Proto {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NameOrNumber::deserialize(deserializer)? {
            NameOrNumber::Number(number) => Ok(Self(number)),
            NameOrNumber::Name(name) => match names::protocol(&name) {
                Some(number) => Ok(Self(number)),
                None => Err(de::Error::custom(format!("`{name}` is no protocol"))),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Names as a list, or as one text with commas.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(Option::<OneOrMany>::deserialize(deserializer)?.map(|names| match names {
        OneOrMany::Many(list) => list,
        OneOrMany::One(text) => {
            text.split([',', '+', '|']).map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
        }
    }))
}

/// The bits of a TCP flag's name; the two ECN flags of RFC 3168 too.
pub(super) fn tcp_flag(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    TcpFlags::NAMES.iter().find(|(n, _)| *n == upper).map(|(_, bit)| *bit).or(match upper.as_str() {
        "ECE" => Some(0x40),
        "CWR" => Some(0x80),
        "PUSH" => Some(0x08),
        "NONE" => Some(0),
        _ => None,
    })
}

/// The bit of a conntrack state's name.
pub(super) fn ct_state(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    CtStates::NAMES.iter().find(|(n, _)| *n == upper).map(|(_, bit)| *bit)
}

/// The names of a packet's TCP flags, in small letters.
pub(super) fn flag_names(flags: TcpFlags) -> Vec<String> {
    let mut out: Vec<String> =
        TcpFlags::NAMES.iter().filter(|(_, bit)| flags.0 & bit != 0).map(|(n, _)| n.to_ascii_lowercase()).collect();
    for (name, bit) in [("ece", 0x40), ("cwr", 0x80)] {
        if flags.0 & bit != 0 {
            out.push(name.to_owned());
        }
    }
    out
}

macro_rules! bits {
    ($module:ident, $type:ident, $what:literal, $read:expr, $write:expr) => {
        pub(super) mod $module {
            use super::{Deserializer, Serialize, Serializer, de, $type};

            #[allow(clippy::ref_option, reason = "serde's signature")]
            pub(in super::super) fn serialize<S: Serializer>(value: &Option<$type>, s: S) -> Result<S::Ok, S::Error> {
                let write: fn($type) -> Vec<String> = $write;
                value.map(write).serialize(s)
            }

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<$type>, D::Error> {
                let Some(names) = super::names(d)? else { return Ok(None) };
                let read: fn(&str) -> Option<u8> = $read;
                let mut bits = 0;
                for name in names {
                    bits |= read(&name).ok_or_else(|| de::Error::custom(format!("`{name}` is no {}", $what)))?;
                }
                Ok(Some($type(bits)))
            }
        }
    };
}

bits!(tcp_flags, TcpFlags, "TCP flag", super::tcp_flag, super::flag_names);
bits!(ct_states, CtStates, "conntrack state", super::ct_state, |states| {
    states.names().split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
});
bits!(
    ct_statuses,
    CtStatuses,
    "conntrack status",
    |name| {
        let upper = name.to_ascii_uppercase();
        if upper == "NONE" {
            return Some(0);
        }
        CtStatuses::NAMES.iter().find(|(n, _)| *n == upper).map(|(_, bit)| *bit)
    },
    |statuses| statuses.names().split(',').map(str::to_owned).collect()
);
