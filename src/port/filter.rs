//! The kernel-side filter of a scan's packet sockets: answers to our source ports, our echoes, and ICMP errors.

use crate::probe::bpf::Instruction;

const LD_H: u16 = 0x28;
const LD_B: u16 = 0x30;
const LD_H_X: u16 = 0x48;
const LD_B_X: u16 = 0x50;
const LDX_IHL: u16 = 0xb1;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;
/// Octets that are kept: enough for the beginning of a datagram and for any quoted header.
const KEEP: u32 = 600;

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

/// For a socket that sees packets from their IP header on. `ports` are the first and last source port of the probes.
pub fn answers(v6: bool, ports: (u16, u16)) -> Vec<Instruction> {
    let (low, high) = (u32::from(ports.0), u32::from(ports.1));
    if v6 {
        return vec![
            op(LD_B, 6),
            jump(JEQ, 6, 5, 0),
            jump(JEQ, 17, 4, 0),
            // Extension headers are rare: user space looks.
            jump(JEQ, 58, 0, 7),
            // ICMPv6 errors are below 128; 129 is an echo reply.
            op(LD_B, 40),
            jump(JEQ, 129, 5, 0),
            jump(JGE, 128, 3, 4),
            // 7: TCP, UDP.
            op(LD_H, 42),
            jump(JGE, low, 0, 1),
            jump(JGT, high, 0, 1),
            op(RET, 0),
            op(RET, KEEP),
        ];
    }
    vec![
        // 0: later fragments have no ports.
        op(LD_H, 6),
        jump(JSET, 0x1fff, 11, 0),
        op(LDX_IHL, 0),
        op(LD_B, 9),
        // 4
        jump(JEQ, 6, 4, 0),
        jump(JEQ, 17, 3, 0),
        jump(JEQ, 1, 0, 6),
        // 7: ICMP.
        op(LD_B_X, 0),
        jump(JGT, 12, 4, 3),
        // 9: TCP, UDP.
        op(LD_H_X, 2),
        jump(JGE, low, 0, 2),
        jump(JGT, high, 1, 0),
        op(RET, KEEP),
        op(RET, 0),
    ]
}
