//! What bytes mean (nft's data types), and how libnftables-json writes them.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::super::attr::text;
use super::super::save::protocol_name;

/// A data type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    Ether,
    EtherType,
    Protocol,
    NfProto,
    /// Big-endian, as in packets.
    Number,
    /// In the machine's byte order, as in registers of the kernel's own.
    HostNumber,
    IfName,
    IfIndex,
    CtState,
    CtStatus,
    CtDirection,
    IcmpType,
    Icmpv6Type,
    IcmpCode,
    Icmpv6Code,
    TcpFlags,
    PktType,
    AddrType,
    Boolean,
    Dscp,
    ArpOperation,
    Day,
    Text,
}

type Names = &'static [(u64, &'static str)];

const ETHER_TYPES: Names = &[(0x0800, "ip"), (0x0806, "arp"), (0x86dd, "ip6"), (0x8100, "8021q"), (0x88a8, "8021ad")];
const NF_PROTO: Names = &[(2, "ipv4"), (10, "ipv6")];
const CT_STATE: Names = &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
const CT_STATUS: Names =
    &[(1, "expected"), (2, "seen-reply"), (4, "assured"), (8, "confirmed"), (16, "snat"), (32, "dnat"), (512, "dying")];
const CT_DIRECTION: Names = &[(0, "original"), (1, "reply")];
const TCP_FLAGS: Names =
    &[(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack"), (32, "urg"), (64, "ecn"), (128, "cwr")];
const PKT_TYPE: Names = &[(0, "host"), (1, "broadcast"), (2, "multicast"), (3, "other")];
const ADDR_TYPE: Names = &[
    (0, "unspec"),
    (1, "unicast"),
    (2, "local"),
    (3, "broadcast"),
    (4, "anycast"),
    (5, "multicast"),
    (6, "blackhole"),
    (7, "unreachable"),
    (8, "prohibit"),
];
const ICMP_TYPE: Names = &[
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (9, "router-advertisement"),
    (10, "router-solicitation"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
    (15, "info-request"),
    (16, "info-reply"),
    (17, "address-mask-request"),
    (18, "address-mask-reply"),
];
const ICMPV6_TYPE: Names = &[
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (130, "mld-listener-query"),
    (131, "mld-listener-report"),
    (132, "mld-listener-done"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
    (138, "router-renumbering"),
    (141, "ind-neighbor-solicit"),
    (142, "ind-neighbor-advert"),
    (143, "mld2-listener-report"),
];
pub(super) const ICMP_CODE: Names = &[
    (0, "net-unreachable"),
    (1, "host-unreachable"),
    (2, "prot-unreachable"),
    (3, "port-unreachable"),
    (4, "frag-needed"),
    (9, "net-prohibited"),
    (10, "host-prohibited"),
    (13, "admin-prohibited"),
];
pub(super) const ICMPV6_CODE: Names = &[
    (0, "no-route"),
    (1, "admin-prohibited"),
    (3, "addr-unreachable"),
    (4, "port-unreachable"),
    (5, "policy-fail"),
    (6, "reject-route"),
];
const DSCP: Names = &[
    (0, "cs0"),
    (8, "cs1"),
    (10, "af11"),
    (12, "af12"),
    (14, "af13"),
    (16, "cs2"),
    (18, "af21"),
    (20, "af22"),
    (22, "af23"),
    (24, "cs3"),
    (26, "af31"),
    (28, "af32"),
    (30, "af33"),
    (32, "cs4"),
    (34, "af41"),
    (36, "af42"),
    (38, "af43"),
    (40, "cs5"),
    (46, "ef"),
    (48, "cs6"),
    (56, "cs7"),
];
const ARP_OPERATION: Names = &[(1, "request"), (2, "reply"), (3, "rrequest"), (4, "rreply")];
const DAYS: Names =
    &[(0, "Sunday"), (1, "Monday"), (2, "Tuesday"), (3, "Wednesday"), (4, "Thursday"), (5, "Friday"), (6, "Saturday")];

/// nft's data types by number (`enum datatypes`): name, length in a key, meaning.
const TYPES: &[(u32, &str, usize, Kind)] = &[
    (4, "integer", 4, Kind::Number),
    (5, "string", 16, Kind::Text),
    (7, "ipv4_addr", 4, Kind::Ipv4),
    (8, "ipv6_addr", 16, Kind::Ipv6),
    (9, "ether_addr", 6, Kind::Ether),
    (10, "ether_type", 2, Kind::EtherType),
    (11, "arp_op", 2, Kind::ArpOperation),
    (12, "inet_proto", 1, Kind::Protocol),
    (13, "inet_service", 2, Kind::Number),
    (14, "icmp_type", 1, Kind::IcmpType),
    (15, "tcp_flag", 1, Kind::TcpFlags),
    (18, "time", 8, Kind::HostNumber),
    (19, "mark", 4, Kind::HostNumber),
    (20, "iface_index", 4, Kind::IfIndex),
    (21, "iface_type", 2, Kind::HostNumber),
    (22, "realm", 4, Kind::HostNumber),
    (23, "classid", 4, Kind::HostNumber),
    (24, "uid", 4, Kind::HostNumber),
    (25, "gid", 4, Kind::HostNumber),
    (26, "ct_state", 4, Kind::CtState),
    (27, "ct_dir", 1, Kind::CtDirection),
    (28, "ct_status", 4, Kind::CtStatus),
    (29, "icmpv6_type", 1, Kind::Icmpv6Type),
    (31, "pkt_type", 1, Kind::PktType),
    (32, "icmp_code", 1, Kind::IcmpCode),
    (33, "icmpv6_code", 1, Kind::Icmpv6Code),
    (35, "devgroup", 4, Kind::HostNumber),
    (36, "dscp", 1, Kind::Dscp),
    (2, "nf_proto", 1, Kind::NfProto),
    (38, "fib_addrtype", 4, Kind::AddrType),
    (39, "boolean", 1, Kind::Boolean),
    (41, "ifname", 16, Kind::IfName),
    (44, "hour", 4, Kind::HostNumber),
    (45, "day", 1, Kind::Day),
];

/// A key's fields: names, lengths and kinds; a key of several types has six bits for each.
pub(super) fn key_types(code: u32, len: usize) -> Vec<(String, usize, Kind)> {
    let mut codes = Vec::new();
    let mut rest = code;
    while rest != 0 && codes.len() < 5 {
        codes.push(rest & 0x3f);
        rest >>= 6;
    }
    codes.reverse();
    let known = |code: u32| TYPES.iter().find(|(number, ..)| *number == code);
    let one = codes.len() == 1;
    if codes.is_empty() || codes.iter().any(|code| known(*code).is_none()) {
        return vec![("integer".to_owned(), len, Kind::Number)];
    }
    codes
        .into_iter()
        .filter_map(known)
        .map(|(_, name, width, kind)| ((*name).to_owned(), if one { len } else { *width }, *kind))
        .collect()
}

impl Kind {
    fn names(self) -> Option<Names> {
        Some(match self {
            Self::EtherType => ETHER_TYPES,
            Self::NfProto => NF_PROTO,
            Self::CtState => CT_STATE,
            Self::CtStatus => CT_STATUS,
            Self::CtDirection => CT_DIRECTION,
            Self::TcpFlags => TCP_FLAGS,
            Self::PktType => PKT_TYPE,
            Self::AddrType => ADDR_TYPE,
            Self::IcmpType => ICMP_TYPE,
            Self::Icmpv6Type => ICMPV6_TYPE,
            Self::IcmpCode => ICMP_CODE,
            Self::Icmpv6Code => ICMPV6_CODE,
            Self::Dscp => DSCP,
            Self::ArpOperation => ARP_OPERATION,
            Self::Day => DAYS,
            _ => return None,
        })
    }

    /// Whether each bit has a meaning of its own.
    pub(super) fn is_flags(self) -> bool {
        matches!(self, Self::CtState | Self::CtStatus | Self::TcpFlags)
    }

    /// Whether its numbers are in the machine's byte order.
    pub(super) fn is_host(self) -> bool {
        matches!(self, Self::HostNumber | Self::IfIndex | Self::CtState | Self::CtStatus | Self::AddrType)
    }

    /// The same after a byteorder expression: in network order.
    pub(super) fn swapped(self) -> Self {
        if self.is_host() { Self::Number } else { self }
    }

    /// The number in some bytes; `None` for more than eight.
    pub(super) fn number(self, bytes: &[u8]) -> Option<u64> {
        if bytes.len() > 8 {
            return None;
        }
        let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.is_host() && cfg!(target_endian = "little") {
            bytes.iter().rev().fold(0, fold)
        } else {
            bytes.iter().fold(0, fold)
        })
    }

    /// The value in JSON.
    pub(super) fn value(self, bytes: &[u8]) -> Value {
        match self {
            Self::Ipv4 => bytes.first_chunk::<4>().map(|b| json!(Ipv4Addr::from(*b).to_string())),
            Self::Ipv6 => bytes.first_chunk::<16>().map(|b| json!(Ipv6Addr::from(*b).to_string())),
            Self::Ether => Some(json!(bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"))),
            Self::Protocol => bytes.first().map(|number| {
                let name = protocol_name(*number);
                name.parse::<u8>().map_or(json!(name), |number| json!(number))
            }),
            Self::IfName | Self::Text => {
                let name = text(bytes);
                Some(json!(if bytes.contains(&0) || bytes.len() >= 16 { name } else { format!("{name}*") }))
            }
            Self::Boolean => bytes.first().map(|byte| json!(*byte != 0)),
            _ => None,
        }
        .unwrap_or_else(|| self.named(bytes))
    }

    fn named(self, bytes: &[u8]) -> Value {
        let Some(number) = self.number(bytes) else { return json!(super::super::xt::hex(bytes)) };
        if self == Self::IfIndex {
            return u32::try_from(number).ok().and_then(interface_name).map_or(json!(number), |name| json!(name));
        }
        if self.is_flags() {
            return self.flags(number);
        }
        let found = self.names().and_then(|names| names.iter().find(|(value, _)| *value == number));
        found.map_or(json!(number), |(_, name)| json!(name))
    }

    /// Flags by name: one as a string, several as a list; the number where one has no name.
    pub(super) fn flags(self, number: u64) -> Value {
        let names = self.names().unwrap_or_default();
        let set: Vec<_> = names.iter().filter(|(bit, _)| number & bit != 0).collect();
        if set.is_empty() || set.iter().fold(0, |all, (bit, _)| all | bit) != number {
            return json!(number);
        }
        match set.as_slice() {
            [(_, one)] => json!(one),
            many => json!(many.iter().map(|(_, name)| *name).collect::<Vec<_>>()),
        }
    }

    /// `address/len`, where the kind has prefixes.
    pub(super) fn prefix(self, bytes: &[u8], len: u32) -> Option<Value> {
        let width = match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
            _ => return None,
        };
        let mut address = bytes.to_vec();
        address.resize(width, 0);
        Some(json!({"prefix": {"addr": self.value(&address), "len": len}}))
    }
}

fn interface_name(index: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(index).ok()?;
    name.into_string().ok()
}

/// The length of a mask of leading ones; `None` for any other.
pub(super) fn prefix_len(mask: &[u8]) -> Option<u32> {
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let full = (ones / 8) as usize;
    let whole = mask.iter().enumerate().all(|(at, byte)| match at.cmp(&full) {
        std::cmp::Ordering::Less => *byte == u8::MAX,
        std::cmp::Ordering::Equal => byte.leading_ones() == ones % 8 && byte.count_ones() == ones % 8,
        std::cmp::Ordering::Greater => *byte == 0,
    });
    whole.then_some(ones)
}
