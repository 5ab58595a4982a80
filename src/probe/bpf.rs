//! Classic BPF programs for the kernel to run in front of a receive queue, so that a busy host's traffic
//! never reaches this program. Made here as data, attached by `os`.
//!
//! They may let through more than is wanted (user space looks again), never less.

use std::net::IpAddr;

/// One instruction (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

// Operations (include/uapi/linux/bpf_common.h, filter.h).
const LD_W: u16 = 0x20;
const LD_H: u16 = 0x28;
const LD_B: u16 = 0x30;
const LD_H_X: u16 = 0x48;
const LD_B_X: u16 = 0x50;
const LD_W_X: u16 = 0x40;
const LDX_IHL: u16 = 0xb1;
const TAX: u16 = 0x07;
const AND: u16 = 0x54;
const LSH: u16 = 0x64;
const ADD_X: u16 = 0x0c;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PROTOCOL`: the EtherType the kernel found.
const PROTOCOL: u32 = 0xffff_f000;
/// `SKF_NET_OFF`: offsets from here count from the IP header, whatever the link header's length.
pub(super) const NET: u32 = 0xfff0_0000;
/// Accept the whole packet.
const ALL: u32 = 0x4_0000;

/// Where a test leads: within a block, the next instruction or past the block's end.
struct Block {
    code: Vec<Instruction>,
    /// Instructions whose failing (or, with the flag, holding) jump leads past the end.
    exits: Vec<(usize, bool)>,
}

impl Block {
    fn new() -> Self {
        Self { code: Vec::new(), exits: Vec::new() }
    }

    fn op(&mut self, code: u16, k: u32) -> &mut Self {
        self.code.push(Instruction { code, jump_true: 0, jump_false: 0, k });
        self
    }

    /// Goes on only when the test holds.
    fn need(&mut self, code: u16, k: u32) -> &mut Self {
        self.exits.push((self.code.len(), false));
        self.op(code, k)
    }

    /// Goes on only when the test does not hold.
    fn need_not(&mut self, code: u16, k: u32) -> &mut Self {
        self.exits.push((self.code.len(), true));
        self.op(code, k)
    }

    /// Goes on only when the loaded value is in the range.
    fn need_range(&mut self, low: u16, high: u16) -> &mut Self {
        self.need(JGE, low.into()).need_not(JGT, high.into())
    }

    /// Goes on only when the loaded value is one of these (few).
    fn need_any(&mut self, values: &[u8]) -> &mut Self {
        for (at, value) in values.iter().enumerate() {
            if at + 1 == values.len() {
                self.need(JEQ, (*value).into());
            } else {
                let skip = u8::try_from(values.len() - at - 1).unwrap_or(u8::MAX);
                self.code.push(Instruction { code: JEQ, jump_true: skip, jump_false: 0, k: (*value).into() });
            }
        }
        self
    }

    /// The block's end: accepted. Whatever left it before goes on behind it.
    fn accept(&mut self) -> Vec<Instruction> {
        self.op(RET, ALL);
        self.end()
    }

    fn end(&mut self) -> Vec<Instruction> {
        let end = self.code.len();
        for (at, when_true) in std::mem::take(&mut self.exits) {
            let skip = u8::try_from(end - at - 1).unwrap_or(u8::MAX);
            let jump = &mut self.code[at];
            if when_true { jump.jump_true = skip } else { jump.jump_false = skip }
        }
        std::mem::take(&mut self.code)
    }
}

fn reject() -> Instruction {
    Instruction { code: RET, jump_true: 0, jump_false: 0, k: 0 }
}

/// For a packet socket bound to ARP (replies only) or IPv6 (neighbour advertisements only).
pub fn neighbours(ethertype: u16) -> Vec<Instruction> {
    let mut block = Block::new();
    if ethertype == crate::wire::ethertype::ARP {
        block.op(LD_H, NET + 6).need(JEQ, 2);
    } else {
        block.op(LD_B, NET + 6).need(JEQ, 58).op(LD_B, NET + 40).need(JEQ, 136);
    }
    let mut program = block.accept();
    program.push(reject());
    program
}

/// What a run's raw sockets listen for: ranges, since user space looks exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// First and last identifier of our echo requests.
    pub echo_ids: (u16, u16),
    /// First and last source port of our TCP segments; `None`: there are none.
    pub tcp_ports: Option<(u16, u16)>,
}

/// For a raw ICMP socket that serves path probes: echo replies and all errors. What they quote is looked at in user
/// space, since an address translator on the way may have changed it.
pub fn path_icmp(v6: bool) -> Vec<Instruction> {
    let mut block = Block::new();
    if v6 {
        block.op(LD_B, 0).need_any(&[1, 2, 3, 4, 129]);
    } else {
        block.op(LDX_IHL, 0).op(LD_B_X, 0).need_any(&[0, 3, 4, 5, 11, 12]);
    }
    let mut program = block.accept();
    program.push(reject());
    program
}

/// For a raw ICMP socket (which sees the IPv4 header first): our echo replies, and errors about our packets.
pub fn raw_icmp4(wanted: &Wanted) -> Vec<Instruction> {
    let mut program = Block::new()
        .op(LDX_IHL, 0)
        .op(LD_B_X, 0)
        .need(JEQ, 0)
        .op(LD_H_X, 4)
        .need_range(wanted.echo_ids.0, wanted.echo_ids.1)
        .accept();
    // The quoted packet begins 8 octets into the message, and its upper header behind its own options.
    let into_quote = |block: &mut Block, protocol: u32| {
        block.op(LDX_IHL, 0).op(LD_B_X, 0).need_any(&[3, 4, 5, 11, 12]).op(LD_B_X, 8 + 9).need(JEQ, protocol);
        block.op(LD_B_X, 8).op(AND, 0x0f).op(LSH, 2).op(ADD_X, 0).op(TAX, 0);
    };
    let mut echo = Block::new();
    into_quote(&mut echo, 1);
    program.extend(echo.op(LD_H_X, 8 + 4).need_range(wanted.echo_ids.0, wanted.echo_ids.1).accept());
    if let Some((low, high)) = wanted.tcp_ports {
        let mut tcp = Block::new();
        into_quote(&mut tcp, 6);
        program.extend(tcp.op(LD_H_X, 8).need_range(low, high).accept());
    }
    program.push(reject());
    program
}

/// For a raw ICMPv6 socket, which sees the ICMPv6 header first. Quotes with extension headers are let through.
pub fn raw_icmp6(wanted: &Wanted) -> Vec<Instruction> {
    let (low, high) = wanted.echo_ids;
    let mut program = Block::new().op(LD_B, 0).need(JEQ, 129).op(LD_H, 4).need_range(low, high).accept();
    let error = |protocols: &[u8]| {
        let mut block = Block::new();
        block.op(LD_B, 0).need_not(JGE, 128).op(LD_B, 8 + 6).need_any(protocols);
        block
    };
    program.extend(error(&[58]).op(LD_H, 48 + 4).need_range(low, high).accept());
    if let Some((low, high)) = wanted.tcp_ports {
        program.extend(error(&[6]).op(LD_H, 48).need_range(low, high).accept());
    }
    program.extend(error(&EXTENSIONS).accept());
    program.push(reject());
    program
}

/// For a raw TCP socket: segments to our ports. Over IPv4 the IP header comes first, over IPv6 it does not.
pub fn raw_tcp(v6: bool, ports: (u16, u16)) -> Vec<Instruction> {
    let mut block = Block::new();
    if v6 {
        block.op(LD_H, 2);
    } else {
        block.op(LDX_IHL, 0).op(LD_H_X, 2);
    }
    let mut program = block.need_range(ports.0, ports.1).accept();
    program.push(reject());
    program
}

/// Next-header values that are not the upper layer.
const EXTENSIONS: [u8; 6] = [0, 43, 44, 51, 60, 135];

/// Flows beyond this many are not told apart by the kernel: a program has at most 4096 instructions.
const MAX_FLOWS: usize = 24;

/// See [`super::FlowFilter::program`].
pub(super) fn flows(filter: &super::FlowFilter) -> Vec<Instruction> {
    use crate::wire::ethertype;
    let mut program = Vec::new();
    let of_type = |kind: u16| {
        let mut block = Block::new();
        block.op(LD_W, PROTOCOL).need(JEQ, kind.into());
        block
    };
    if filter.neighbours {
        program.extend(of_type(ethertype::ARP).accept());
    }
    // Tags that are still in the frame: user space will look.
    program.extend(of_type(ethertype::VLAN).accept());
    program.extend(of_type(ethertype::QINQ).accept());
    if filter.flows.is_empty() || filter.flows.len() > MAX_FLOWS {
        program.extend(of_type(ethertype::IPV4).accept());
        program.extend(of_type(ethertype::IPV6).accept());
    } else {
        let back = |flow: &super::Flow| super::Flow {
            a: flow.b,
            b: flow.a,
            a_port: flow.b_port,
            b_port: flow.a_port,
            ..*flow
        };
        let ways: Vec<super::Flow> = filter.flows.iter().flat_map(|flow| [*flow, back(flow)]).collect();
        let is = |way: &super::Flow, v6: bool| [way.a, way.b].iter().flatten().all(|end| end.is_ipv6() == v6);
        program.extend(ways.iter().filter(|way| is(way, false)).flat_map(flow4));
        program.extend(ways.iter().filter(|way| is(way, true)).flat_map(flow6));
        // Loading from beyond a packet's end rejects it, so what looks deepest comes last.
        if filter.icmp_errors {
            program.extend(ways.iter().filter(|way| is(way, false)).flat_map(error4));
            program.extend(ways.iter().filter(|way| is(way, true)).flat_map(error6));
        }
    }
    if filter.neighbours {
        let mut discovery = of_type(ethertype::IPV6);
        discovery.op(LD_B, NET + 6).need(JEQ, 58).op(LD_B, NET + 40).need(JGE, 133).need_not(JGT, 137);
        program.extend(discovery.accept());
    }
    program.push(reject());
    program
}

fn flow4(way: &super::Flow) -> Vec<Instruction> {
    let mut block = Block::new();
    block.op(LD_W, PROTOCOL).need(JEQ, crate::wire::ethertype::IPV4.into());
    for (address, at) in [(way.a, 12), (way.b, 16)] {
        if let Some(IpAddr::V4(address)) = address {
            block.op(LD_W, NET + at).need(JEQ, address.into());
        }
    }
    if let Some(protocol) = way.protocol {
        block.op(LD_B, NET + 9).need(JEQ, protocol.into());
    }
    if way.a_port.or(way.b_port).is_some() {
        ports4(&mut block, way);
    }
    block.accept()
}

/// Ports are looked at only in TCP and UDP, and only where there are some: not in later fragments.
fn ports4(block: &mut Block, way: &super::Flow) {
    let mut ports = Vec::new();
    for (port, at) in [(way.a_port, 0), (way.b_port, 2)] {
        if let Some(port) = port {
            ports.push((at, port));
        }
    }
    // Skipped instructions: the load of the length, and two for each port.
    let body = u8::try_from(1 + 2 * ports.len()).unwrap_or(0);
    block.op(LD_H, NET + 6);
    // Over the protocol tests as well: load, two tests.
    block.code.push(Instruction { code: JSET, jump_true: body + 3, jump_false: 0, k: 0x1fff });
    block.op(LD_B, NET + 9);
    block.code.push(Instruction { code: JEQ, jump_true: 1, jump_false: 0, k: 6 });
    block.code.push(Instruction { code: JEQ, jump_true: 0, jump_false: body, k: 17 });
    block.op(LDX_IHL, NET);
    for (at, port) in ports {
        block.op(LD_H_X, NET + at).need(JEQ, port.into());
    }
}

fn error4(way: &super::Flow) -> Vec<Instruction> {
    let mut block = Block::new();
    block.op(LD_W, PROTOCOL).need(JEQ, crate::wire::ethertype::IPV4.into());
    block.op(LD_B, NET + 9).need(JEQ, 1).op(LDX_IHL, NET).op(LD_B_X, NET).need_any(&[3, 4, 5, 11, 12]);
    for (address, at) in [(way.a, 12), (way.b, 16)] {
        if let Some(IpAddr::V4(address)) = address {
            block.op(LD_W_X, NET + 8 + at).need(JEQ, address.into());
        }
    }
    block.accept()
}

fn address6(block: &mut Block, address: Option<IpAddr>, at: u32) {
    let Some(IpAddr::V6(address)) = address else { return };
    for (word, offset) in address.octets().chunks_exact(4).zip([0, 4, 8, 12]) {
        block.op(LD_W, NET + at + offset).need(JEQ, u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
}

/// Packets with extension headers are let through by their addresses alone: the chain cannot be walked here.
fn flow6(way: &super::Flow) -> Vec<Instruction> {
    let start = |block: &mut Block| {
        block.op(LD_W, PROTOCOL).need(JEQ, crate::wire::ethertype::IPV6.into());
        address6(block, way.a, 8);
        address6(block, way.b, 24);
        block.op(LD_B, NET + 6);
    };
    let mut extended = Block::new();
    start(&mut extended);
    let mut program = extended.need_any(&EXTENSIONS).accept();
    let mut plain = Block::new();
    start(&mut plain);
    if let Some(protocol) = way.protocol {
        plain.need(JEQ, protocol.into());
    }
    let ports: Vec<_> =
        [(way.a_port, 0), (way.b_port, 2)].into_iter().filter_map(|(port, at)| Some((port?, at))).collect();
    let body = u8::try_from(2 * ports.len()).unwrap_or(0);
    plain.code.push(Instruction { code: JEQ, jump_true: 1, jump_false: 0, k: 6 });
    plain.code.push(Instruction { code: JEQ, jump_true: 0, jump_false: body, k: 17 });
    for (port, at) in ports {
        plain.op(LD_H, NET + 40 + at).need(JEQ, port.into());
    }
    program.extend(plain.accept());
    program
}

fn error6(way: &super::Flow) -> Vec<Instruction> {
    let mut block = Block::new();
    block.op(LD_W, PROTOCOL).need(JEQ, crate::wire::ethertype::IPV6.into());
    block.op(LD_B, NET + 6).need(JEQ, 58).op(LD_B, NET + 40).need_not(JGE, 128);
    address6(&mut block, way.a, 48 + 8);
    address6(&mut block, way.b, 48 + 24);
    block.accept()
}

#[cfg(test)]
pub(super) mod machine {
    //! The kernel's interpreter in small, to test programs without a kernel (net/core/filter.c).

    use super::*;

    /// How many octets are accepted of this IP packet; `link` is where the IP header is.
    pub(in crate::probe) fn run(program: &[Instruction], packet: &[u8], link: usize, ethertype: u16) -> u32 {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        let load = |offset: u32, size: usize| -> Option<u32> {
            let start = if offset >= NET { link + (offset - NET) as usize } else { offset as usize };
            let bytes = packet.get(start..start + size)?;
            Some(bytes.iter().fold(0, |value, octet| (value << 8) | u32::from(*octet)))
        };
        loop {
            let Instruction { code, jump_true, jump_false, k } = program[at];
            at += 1;
            let mut jump = |holds: bool| at += usize::from(if holds { jump_true } else { jump_false });
            let loaded = match code {
                LD_W if k == PROTOCOL => Some(ethertype.into()),
                LD_W => load(k, 4),
                LD_H => load(k, 2),
                LD_B => load(k, 1),
                LD_W_X => load(k.wrapping_add(x), 4),
                LD_H_X => load(k.wrapping_add(x), 2),
                LD_B_X => load(k.wrapping_add(x), 1),
                LDX_IHL => {
                    let Some(octet) = load(k, 1) else { return 0 };
                    x = (octet & 0xf) * 4;
                    continue;
                }
                JEQ => {
                    jump(a == k);
                    continue;
                }
                JGT => {
                    jump(a > k);
                    continue;
                }
                JGE => {
                    jump(a >= k);
                    continue;
                }
                JSET => {
                    jump(a & k != 0);
                    continue;
                }
                RET => return k,
                TAX => {
                    x = a;
                    continue;
                }
                AND => Some(a & k),
                LSH => Some(a << k),
                ADD_X => Some(a.wrapping_add(x)),
                other => panic!("no such operation: {other:x}"),
            };
            // A load outside the packet ends the program: reject.
            let Some(value) = loaded else { return 0 };
            a = value;
        }
    }
}
