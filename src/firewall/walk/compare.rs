//! Native nf_tables comparisons.

use std::net::IpAddr;

use crate::firewall::compile::{Cursor, Known};
use crate::firewall::ruleset::{Bits, CompareOp, Comparison, CtStates, Field, Hook, Iface, Operand, PktType};

use super::flow::Run;
use super::live::{IfaceName, Live, Truth};
use super::matching::in_range;
use super::stack::ChainAt;

/// What a field holds.
enum Value {
    Number(u64),
    Addr(IpAddr),
    Name(IfaceName),
    /// The packet has no such field: the rule does not match (NFT_BREAK).
    Absent,
    Unknown(String),
}

impl<'a> Run<'a> {
    /// Whether the comparison holds, before negation.
    pub(super) fn compare(&mut self, at: ChainAt, comparison: &Comparison) -> Truth {
        let mut maybe = None;
        if comparison.op == CompareOp::Eq {
            match self.any_key(at, &comparison.fields, comparison.mask, &comparison.operands) {
                Truth::Maybe(why) => maybe = Some(why),
                Truth::No => (),
                truth => return truth,
            }
        } else {
            for key in &comparison.operands {
                match self.order(comparison.op, comparison, key) {
                    Truth::Maybe(why) => maybe = Some(why),
                    Truth::No => (),
                    truth => return truth,
                }
            }
        }
        if comparison.operands.is_empty() {
            // An empty set still needs the field to be there.
            let absent = comparison.fields.iter().any(|field| matches!(self.value(field), Value::Absent));
            return if absent { Truth::Absent } else { Truth::No };
        }
        maybe.map_or(Truth::No, Truth::Maybe)
    }

    /// Whether the fields equal one of the keys.
    fn any_key(&mut self, at: ChainAt, fields: &[Field], mask: Option<u64>, keys: &[Vec<Operand>]) -> Truth {
        let mut maybe = None;
        let mut next = 0;
        let mut cursor = Cursor::every();
        while let Some(key) = keys.get(next) {
            match self.key_matches(at, fields, mask, key) {
                Truth::Maybe(why) => maybe = Some(why),
                Truth::No => (),
                truth => return truth,
            }
            if next == 0 {
                let all = &mut keys.iter().map(Vec::as_slice);
                self.aim_at_keys(&mut cursor, keys.as_ptr() as usize, all, fields, mask);
            }
            next = cursor.seek(next + 1);
        }
        maybe.map_or(Truth::No, Truth::Maybe)
    }

    /// Passes keys over that cannot equal the fields. The first key was looked at, so that what
    /// reading the fields leaves behind is left behind.
    pub(super) fn aim_at_keys<'k>(
        &mut self,
        cursor: &mut Cursor<'a>,
        place: usize,
        keys: &mut dyn Iterator<Item = &'k [Operand]>,
        fields: &[Field],
        mask: Option<u64>,
    ) {
        let Some(index) = self.index.filter(|index| index.has_keys(self.stack, place)) else { return };
        let values: Vec<Option<Known>> = fields
            .iter()
            .map(|field| match self.value(field) {
                Value::Number(n) => Some(Known::Number(n & mask.unwrap_or(u64::MAX))),
                Value::Addr(addr) => Some(Known::Addr(addr)),
                Value::Name(IfaceName::Known(name)) => Some(Known::name(&name)),
                Value::Name(IfaceName::NotLoopback) | Value::Absent | Value::Unknown(_) => None,
            })
            .collect();
        index.keys(cursor, place, keys, &values);
    }

    fn order(&mut self, op: CompareOp, comparison: &Comparison, key: &[Operand]) -> Truth {
        let (Some(field), Some(operand)) = (comparison.fields.first(), key.first()) else {
            return Truth::Maybe("nothing to compare".to_owned());
        };
        let number = match self.value(field) {
            Value::Number(number) => number & comparison.mask.unwrap_or(u64::MAX),
            Value::Absent => return Truth::Absent,
            Value::Unknown(why) => return Truth::Maybe(why),
            Value::Addr(addr) => {
                return match operand {
                    Operand::AddrRange(from, to) => Truth::of(match op {
                        CompareOp::Lt => addr < *from,
                        CompareOp::Gt => addr > *to,
                        CompareOp::Le => addr <= *to,
                        _ => addr >= *from,
                    }),
                    _ => Truth::Maybe("this comparison is not evaluated".to_owned()),
                };
            }
            Value::Name(_) => return Truth::Maybe("this comparison is not evaluated".to_owned()),
        };
        let Operand::Number(with) = operand else {
            return Truth::Maybe("this comparison is not evaluated".to_owned());
        };
        Truth::of(match op {
            CompareOp::Eq => number == *with,
            CompareOp::Flags => number & with != 0,
            CompareOp::Lt => number < *with,
            CompareOp::Gt => number > *with,
            CompareOp::Le => number <= *with,
            CompareOp::Ge => number >= *with,
        })
    }

    /// Whether the fields equal one key: each of its parts.
    pub(super) fn key_matches(&mut self, at: ChainAt, fields: &[Field], mask: Option<u64>, key: &[Operand]) -> Truth {
        if let [Operand::Set(name)] = key {
            return self.named_set(at, fields, mask, name);
        }
        if let [Operand::Any] = key {
            return Truth::Yes;
        }
        if fields.len() != key.len() {
            return Truth::Maybe("a key of another shape".to_owned());
        }
        let (mut all, mut absent) = (Truth::Yes, false);
        for (field, operand) in fields.iter().zip(key) {
            match self.part_matches(field, mask, operand) {
                Truth::Absent => absent = true,
                Truth::No => all = Truth::No,
                Truth::Maybe(why) if all == Truth::Yes => all = Truth::Maybe(why),
                Truth::Yes | Truth::Maybe(_) => (),
            }
        }
        if absent { Truth::Absent } else { all }
    }

    fn named_set(&mut self, at: ChainAt, fields: &[Field], mask: Option<u64>, name: &str) -> Truth {
        let set = self.stack.at(at).and_then(|(_, table, _)| table.sets.iter().find(|set| set.name == name));
        let Some(set) = set else { return Truth::Maybe(format!("set @{name} is not in the dump")) };
        let mut maybe = set.unreliable.clone().map(|why| format!("set @{name}: {why}"));
        match self.any_key(at, fields, mask, &set.keys) {
            Truth::Maybe(why) => maybe = Some(why),
            Truth::No => (),
            truth => return truth,
        }
        if maybe.is_none() && fields.iter().any(|field| matches!(self.value(field), Value::Absent)) {
            return Truth::Absent;
        }
        maybe.map_or(Truth::No, Truth::Maybe)
    }

    fn part_matches(&mut self, field: &Field, mask: Option<u64>, operand: &Operand) -> Truth {
        let value = self.value(field);
        match (value, operand) {
            (Value::Absent, _) => Truth::Absent,
            (Value::Unknown(why), _) => Truth::Maybe(why),
            (_, Operand::Any) => Truth::Yes,
            (_, Operand::Unknown(text)) => Truth::Maybe(format!("`{text}` is not evaluated")),
            (Value::Number(n), Operand::Number(with)) => Truth::of(n & mask.unwrap_or(u64::MAX) == *with),
            (Value::Number(n), Operand::NumberRange(from, to)) => {
                Truth::of((*from..=*to).contains(&(n & mask.unwrap_or(u64::MAX))))
            }
            (Value::Addr(addr), Operand::AddrRange(from, to)) => Truth::of(in_range(addr, *from, *to)),
            (Value::Addr(addr), Operand::AddrMasked(net)) => Truth::of(net.contains(addr)),
            (Value::Name(name), Operand::Name(pattern)) => {
                let iface = match pattern.strip_suffix('*') {
                    Some(begin) => Iface { name: begin.to_owned(), prefix: true },
                    None => Iface { name: pattern.clone(), prefix: false },
                };
                let (verb, key) = if *field == Field::Iifname { ("arrives", "in") } else { ("leaves", "out") };
                self.iface(&iface, &name, verb, key)
            }
            _ => Truth::Maybe(format!("`{} {operand}` is not evaluated", field.name())),
        }
    }

    /// What the packet has where the comparison looks, in words.
    pub(super) fn had(&mut self, comparison: &Comparison) -> String {
        let assumed = self.live.assumed.len();
        let parts: Vec<String> = comparison
            .fields
            .iter()
            .map(|field| match self.value(field) {
                Value::Number(number) if *field == Field::CtState => format!("state {number:#x}"),
                Value::Number(number) => number.to_string(),
                Value::Addr(addr) => addr.to_string(),
                Value::Name(IfaceName::Known(name)) if !name.is_empty() => name,
                Value::Name(IfaceName::Known(_)) | Value::Absent => "none".to_owned(),
                Value::Name(IfaceName::NotLoopback) => "another one".to_owned(),
                Value::Unknown(_) => "one not given".to_owned(),
            })
            .collect();
        self.live.assumed.truncate(assumed);
        parts.join(" . ")
    }

    fn value(&mut self, field: &Field) -> Value {
        let live = &mut self.live;
        let v6 = live.v6;
        match field {
            Field::Saddr { v6: six } if *six == v6 => Value::Addr(live.packet.src),
            Field::Daddr { v6: six } if *six == v6 => Value::Addr(live.packet.dst),
            Field::Protocol { v6: six } if *six == v6 => Value::Number(live.proto.into()),
            Field::Saddr { .. } | Field::Daddr { .. } | Field::Protocol { .. } => Value::Absent,
            Field::L4Proto => Value::Number(live.proto.into()),
            Field::NfProto => Value::Number(if v6 { 10 } else { 2 }),
            Field::EtherType => Value::Number(if v6 { 0x86dd } else { 0x0800 }),
            Field::Sport(proto) | Field::Dport(proto) => {
                let has_ports = matches!(live.proto, 6 | 17 | 33 | 132 | 136);
                if proto.is_some_and(|proto| proto != live.proto) {
                    return Value::Absent;
                }
                let place = if matches!(field, Field::Sport(_)) { 0 } else { 2 };
                if !has_ports || live.is_later_fragment() || !live.has_octets(place + 2) {
                    return raw(live, place, 2);
                }
                if matches!(field, Field::Sport(_)) {
                    return Value::Number(live.sport().into());
                }
                match live.packet.dport {
                    Some(port) => Value::Number(port.into()),
                    None => Value::Unknown("the destination port is not given".to_owned()),
                }
            }
            Field::TcpFlags if live.proto != 6 => Value::Absent,
            Field::TcpFlags if live.is_later_fragment() || !live.has_octets(14) => raw(live, 13, 1),
            Field::TcpFlags => Value::Number(live.tcp_flags().0.into()),
            Field::IcmpType { v6: six } | Field::IcmpCode { v6: six } => {
                if *six != v6 || live.proto != if v6 { 58 } else { 1 } {
                    return Value::Absent;
                }
                let place = u32::from(matches!(field, Field::IcmpCode { .. }));
                if live.is_later_fragment() || !live.has_octets(place + 1) {
                    return raw(live, place, 1);
                }
                let (kind, code) = live.icmp();
                Value::Number(if matches!(field, Field::IcmpType { .. }) { kind } else { code }.into())
            }
            Field::Iifname | Field::Oifname => {
                let name = if *field == Field::Iifname { live.in_iface() } else { live.out_iface() };
                // Without the device the register holds the empty name (nft_meta.c, nft_meta_store_ifname).
                Value::Name(name)
            }
            Field::Mark => {
                if live.packet.mark.is_none() && live.mark == 0 {
                    live.assume("packet mark 0");
                }
                Value::Number(live.mark.into())
            }
            Field::CtState => Value::Number(nft_states(live.states_seen())),
            Field::CtMark | Field::CtStatus | Field::CtDirection if !live.has_flow() => Value::Absent,
            Field::CtMark => Value::Number(live.connmark.into()),
            Field::CtStatus => ct_status(live.state),
            Field::CtDirection if live.state.intersects(CtStates::NEW) => Value::Number(0),
            Field::CtDirection => Value::Unknown("the direction of its flow is not known".to_owned()),
            Field::Ttl => Value::Number(live.ttl.into()),
            Field::Dscp => Value::Number((live.tos >> 2).into()),
            Field::Length => Value::Number(live.length().into()),
            Field::Skuid | Field::Skgid => {
                if live.came_in || !matches!(live.hook, Hook::Output | Hook::Postrouting) {
                    return Value::Absent;
                }
                let id = if *field == Field::Skuid { live.packet.uid } else { live.packet.gid };
                id.map_or_else(
                    || Value::Unknown("the sending socket's owner is not given".to_owned()),
                    |id| Value::Number(id.into()),
                )
            }
            Field::PktType => Value::Number(match self.pkttype() {
                PktType::Unicast => 0,
                PktType::Broadcast => 1,
                PktType::Multicast => 2,
            }),
            Field::EtherSaddr => match live.packet.mac_src {
                Some(mac) => Value::Number(mac.0.iter().fold(0, |n, octet| n << 8 | u64::from(*octet))),
                None => Value::Unknown("the source hardware address is not given".to_owned()),
            },
            Field::FibType { destination } => {
                let addr = if *destination { live.packet.dst } else { live.packet.src };
                match self.addr_type(addr, None) {
                    Some(bit) => Value::Number(bit.trailing_zeros().into()),
                    None => Value::Unknown(format!("the type of {addr} needs this host's addresses")),
                }
            }
            Field::Other(text) => Value::Unknown(format!("`{text}` is not evaluated")),
        }
    }
}

/// The octets that stand where the header would be: nf_tables compares whatever it finds
/// (`net/netfilter/nft_payload.c`), and breaks the rule off where the packet ends before.
fn raw(live: &mut Live, place: u32, width: u8) -> Value {
    match live.transport(place, width).map(Bits::value) {
        None => Value::Absent,
        Some(Some(value)) => Value::Number(value.into()),
        Some(None) => Value::Unknown("the octets that stand where the header would be are not given".to_owned()),
    }
}

/// Conntrack states as nft numbers them (`NF_CT_STATE_BIT`): invalid 1, established 2, related 4,
/// new 8, untracked 64.
pub(in crate::firewall) fn nft_states(states: CtStates) -> u64 {
    let mut bits = u64::from(states.0 & 0x0f);
    if states.intersects(CtStates::UNTRACKED) {
        bits |= 64;
    }
    bits
}

/// The status bits that the walk itself knows: snat and dnat (`IPS_SRC_NAT` 16, `IPS_DST_NAT` 32).
fn ct_status(states: CtStates) -> Value {
    if states.intersects(CtStates(CtStates::SNAT.0 | CtStates::DNAT.0)) || states.intersects(CtStates::NEW) {
        let mut bits = 0;
        if states.intersects(CtStates::SNAT) {
            bits |= 16;
        }
        if states.intersects(CtStates::DNAT) {
            bits |= 32;
        }
        return Value::Number(bits);
    }
    Value::Unknown("the status of its flow is not known".to_owned())
}
