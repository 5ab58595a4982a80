//! Which frames the kernel hands over: programs for its packet filter, made here as data.

use crate::probe::bpf::Instruction;
use crate::wire::ethertype;

const LD_W: u16 = 0x20;
const LD_H: u16 = 0x28;
const LD_B: u16 = 0x30;
const LD_B_X: u16 = 0x50;
const LDX_IHL: u16 = 0xb1;
const JEQ: u16 = 0x15;
const RET: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PROTOCOL`: the EtherType the kernel found.
const PROTOCOL: u32 = 0xffff_f000;
/// `SKF_NET_OFF`: offsets count from the network header.
const NET: u32 = 0xfff0_0000;
const ALL: u32 = 0x4_0000;

/// What is listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ear {
    /// ARP replies.
    ArpReplies,
    /// Neighbour advertisements.
    Advertisements,
    /// All of ARP and neighbour discovery, echo replies and ICMP errors, VRRP, and (behind extension headers)
    /// multicast listener reports.
    Everything,
    /// The same, with what this host sends itself.
    Conversation,
}

impl Ear {
    /// The EtherType to bind to; `None`: all.
    pub fn ethertype(self) -> Option<u16> {
        match self {
            Self::ArpReplies => Some(ethertype::ARP),
            Self::Advertisements => Some(ethertype::IPV6),
            Self::Everything | Self::Conversation => None,
        }
    }

    /// The program; a frame it lets through is looked at again.
    pub fn program(self) -> Vec<Instruction> {
        let mut code = Vec::new();
        match self {
            Self::ArpReplies => {
                code.push(op(LD_H, NET + 6));
                code.push(test(2, 0, 1));
            }
            Self::Advertisements => {
                code.extend([op(LD_B, NET + 6), test(58, 0, 3), op(LD_B, NET + 40), test(136, 0, 1)]);
            }
            Self::Everything | Self::Conversation => return everything(),
        }
        code.extend([op(RET, ALL), op(RET, 0)]);
        code
    }
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

fn test(k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code: JEQ, jump_true, jump_false, k }
}

fn everything() -> Vec<Instruction> {
    vec![
        op(LD_W, PROTOCOL),
        test(ethertype::ARP.into(), 21, 0),
        test(ethertype::IPV4.into(), 0, 8),
        // IPv4: VRRP, ICMP of three types.
        op(LD_B, NET + 9),
        test(112, 18, 0),
        test(1, 0, 16),
        op(LDX_IHL, NET),
        op(LD_B_X, NET),
        test(0, 14, 0),
        test(3, 13, 0),
        test(11, 12, 11),
        // IPv6: VRRP, extension headers, ICMPv6 of some types.
        test(ethertype::IPV6.into(), 0, 10),
        op(LD_B, NET + 6),
        test(112, 9, 0),
        test(0, 8, 0),
        test(58, 0, 6),
        op(LD_B, NET + 40),
        test(1, 5, 0),
        test(3, 4, 0),
        test(4, 3, 0),
        // Echo replies, and 133 upwards: neighbour discovery, redirects, listener reports of version 2.
        test(129, 2, 0),
        Instruction { code: 0x35, jump_true: 1, jump_false: 0, k: 133 },
        op(RET, 0),
        op(RET, ALL),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's interpreter in small (net/core/filter.c).
    fn run(program: &[Instruction], frame: &[u8]) -> bool {
        let kind = u16::from_be_bytes([frame[12], frame[13]]);
        let (mut a, mut x, mut at) = (0u32, 0usize, 0usize);
        loop {
            let Instruction { code, jump_true, jump_false, k } = program[at];
            at += 1;
            let offset = |add: usize| 14 + (k.wrapping_sub(NET)) as usize + add;
            let load = |start: usize, size: usize| {
                frame.get(start..start + size).map(|bytes| bytes.iter().fold(0, |sum, b| (sum << 8) | u32::from(*b)))
            };
            let value = match code {
                LD_W => Some(u32::from(kind)),
                LD_H => load(offset(0), 2),
                LD_B => load(offset(0), 1),
                LD_B_X => load(offset(x), 1),
                LDX_IHL => {
                    x = (usize::from(frame[14]) & 15) * 4;
                    continue;
                }
                JEQ | 0x35 => {
                    let holds = if code == JEQ { a == k } else { a >= k };
                    at += usize::from(if holds { jump_true } else { jump_false });
                    continue;
                }
                RET => return k > 0,
                other => panic!("{other:x}"),
            };
            let Some(value) = value else { return false };
            a = value;
        }
    }

    fn frame(kind: u16, payload: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; 100];
        bytes[12..14].copy_from_slice(&kind.to_be_bytes());
        for (at, value) in payload {
            bytes[14 + at] = *value;
        }
        bytes
    }

    #[test]
    fn what_is_wanted_passes_and_nothing_else() {
        let all = Ear::Everything.program();
        let v4 = |protocol: u8, kind: u8| frame(0x800, &[(0, 0x45), (9, protocol), (20, kind)]);
        let v6 = |next: u8, kind: u8| frame(0x86dd, &[(0, 0x60), (6, next), (40, kind)]);
        for wanted in [
            frame(0x806, &[]),
            v4(112, 0),
            v4(1, 0),
            v4(1, 3),
            v4(1, 11),
            v6(112, 0),
            v6(0, 0),
            v6(58, 1),
            v6(58, 3),
            v6(58, 4),
            v6(58, 129),
            v6(58, 134),
            v6(58, 135),
            v6(58, 136),
        ] {
            assert!(run(&all, &wanted), "{wanted:?}");
        }
        for other in [v4(6, 0), v4(1, 8), v4(17, 0), v6(6, 0), v6(58, 128), v6(58, 2), frame(0x88cc, &[])] {
            assert!(!run(&all, &other), "{other:?}");
        }
        // With IPv4 options the ICMP header is further in.
        assert!(run(&all, &frame(0x800, &[(0, 0x46), (9, 1), (24, 11), (20, 8)])));
        let replies = Ear::ArpReplies.program();
        assert!(run(&replies, &frame(0x806, &[(7, 2)])) && !run(&replies, &frame(0x806, &[(7, 1)])));
        let advertisements = Ear::Advertisements.program();
        assert!(run(&advertisements, &v6(58, 136)));
        assert!(!run(&advertisements, &v6(58, 135)) && !run(&advertisements, &v6(17, 136)));
    }
}
