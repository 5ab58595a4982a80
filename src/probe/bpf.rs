//! Classic BPF programs for the kernel to run in front of a receive queue, so that a busy host's traffic
//! never reaches this program. Made here as data, attached by `os`.
//!
//! They may let through more than is wanted (user space looks again), never less.

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
const LD_M: u16 = 0x60;
const ST: u16 = 0x02;
const TAX: u16 = 0x07;
const AND: u16 = 0x54;
const LSH: u16 = 0x64;
const ADD_X: u16 = 0x0c;
const JA: u16 = 0x05;
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
