//! `-m bpf`: classic BPF, run over what is known of a packet.

use std::fmt;

use super::matches_payload::{Bits, NotGiven, Octet};

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfOp {
    /// Operation code.
    pub code: u16,
    /// Instructions skipped where a test holds.
    pub jt: u8,
    /// Instructions skipped where it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `-m bpf --bytecode`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfProgram {
    /// Its instructions.
    pub ops: Vec<BpfOp>,
}

/// What a program can ask about a packet besides its octets (`SKF_AD_*`).
#[derive(Debug, Clone, Copy)]
pub struct BpfContext {
    /// Ethernet type.
    pub protocol: u16,
    /// `PACKET_*`.
    pub pkttype: u8,
    /// The packet's mark.
    pub mark: u32,
}

impl BpfProgram {
    /// Reads `N,code jt jf k,…`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.split(',');
        let count: usize =
            parts.next().and_then(|n| n.trim().parse().ok()).ok_or("the number of instructions is missing")?;
        if count == 0 || count > 64 {
            return Err("a program has 1 to 64 instructions"); // XT_BPF_MAX_NUM_INSTR
        }
        let mut ops = Vec::with_capacity(count);
        for part in parts.filter(|part| !part.trim().is_empty()) {
            let mut numbers = part.split_whitespace().map(str::parse::<u32>);
            let mut next = || numbers.next().and_then(Result::ok).ok_or("an instruction has four numbers");
            let (code, jt, jf, k) = (next()?, next()?, next()?, next()?);
            let small = |n: u32| u8::try_from(n).map_err(|_| "a jump is at most 255");
            let code = u16::try_from(code).map_err(|_| "an operation code has 16 bits")?;
            ops.push(BpfOp { code, jt: small(jt)?, jf: small(jf)?, k });
        }
        if ops.len() != count {
            return Err("the number of instructions is not what the first number says");
        }
        Ok(Self { ops })
    }

    /// Runs the program: whether it gives anything but 0. `Err` where what is not known decides, or
    /// the kernel would refuse the program.
    pub fn run(&self, octets: &[Octet], context: BpfContext) -> Result<bool, NotGiven> {
        let (mut a, mut x) = (Bits::known(0), Bits::known(0));
        let mut memory = [Bits::known(0); 16];
        let mut at = 0usize;
        // Jumps lead forwards only, so the program ends.
        loop {
            let op = *self.ops.get(at).ok_or(NotGiven)?;
            at += 1;
            let index = usize::try_from(op.k).map_err(|_| NotGiven)?;
            let by_x = op.code & 0x08 != 0;
            let length = u32::try_from(octets.len()).map_err(|_| NotGiven)?;
            match op.code & 0x07 {
                // BPF_LD
                0x00 => {
                    let width = match op.code & 0x18 {
                        0x00 => 4,
                        0x08 => 2,
                        0x10 => 1,
                        _ => return Err(NotGiven),
                    };
                    a = match op.code & 0xe0 {
                        0x00 => Bits::known(op.k),
                        0x20 | 0x40 => {
                            let base = if op.code & 0xe0 == 0x40 { x.value().ok_or(NotGiven)? } else { 0 };
                            match load(octets, base.wrapping_add(op.k), width, context)? {
                                Some(bits) => bits,
                                // A read past the packet's end ends the program with 0.
                                None => return Ok(false),
                            }
                        }
                        0x60 => *memory.get(index).ok_or(NotGiven)?,
                        0x80 => Bits::known(length),
                        _ => return Err(NotGiven),
                    };
                }
                // BPF_LDX
                0x01 => {
                    x = match op.code & 0xe0 {
                        0x00 => Bits::known(op.k),
                        0x60 => *memory.get(index).ok_or(NotGiven)?,
                        0x80 => Bits::known(length),
                        0xa0 => match load(octets, op.k, 1, context)? {
                            Some(bits) => bits.and(Bits::known(0x0f)).map(|n| n << 2),
                            None => return Ok(false),
                        },
                        _ => return Err(NotGiven),
                    };
                }
                0x02 => *memory.get_mut(index).ok_or(NotGiven)? = a,
                0x03 => *memory.get_mut(index).ok_or(NotGiven)? = x,
                // BPF_ALU
                0x04 => {
                    let operand = if by_x { x } else { Bits::known(op.k) };
                    match alu(op.code & 0xf0, a, operand)? {
                        Some(result) => a = result,
                        None => return Ok(false),
                    }
                }
                // BPF_JMP
                0x05 => {
                    if op.code & 0xf0 == 0 {
                        at = at.checked_add(index).ok_or(NotGiven)?;
                        continue;
                    }
                    let operand = if by_x { x } else { Bits::known(op.k) };
                    let jumps = match op.code & 0xf0 {
                        0x40 => match a.and(operand) {
                            bits if bits.set != 0 => true,
                            bits if bits.open == 0 => false,
                            _ => return Err(NotGiven),
                        },
                        kind => {
                            let (a, operand) = (a.value().ok_or(NotGiven)?, operand.value().ok_or(NotGiven)?);
                            match kind {
                                0x10 => a == operand,
                                0x20 => a > operand,
                                0x30 => a >= operand,
                                _ => return Err(NotGiven),
                            }
                        }
                    };
                    at += usize::from(if jumps { op.jt } else { op.jf });
                }
                // BPF_RET
                0x06 => {
                    let result = if op.code & 0x18 == 0x10 { a } else { Bits::known(op.k) };
                    return if result.set != 0 { Ok(true) } else { result.value().map(|n| n != 0).ok_or(NotGiven) };
                }
                // BPF_MISC: TAX, TXA
                _ => {
                    if op.code & 0xf8 == 0x80 {
                        a = x;
                    } else {
                        x = a;
                    }
                }
            }
        }
    }
}

/// `SKF_AD_OFF` and `SKF_NET_OFF`, as 32-bit numbers.
const ANCILLARY: u32 = 0xffff_f000;
const NETWORK: u32 = 0xfff0_0000;

/// Reads octets, or what lies at one of the kernel's negative offsets.
fn load(octets: &[Octet], at: u32, width: usize, context: BpfContext) -> Result<Option<Bits>, NotGiven> {
    if at >= ANCILLARY {
        return Ok(Some(Bits::known(match at - ANCILLARY {
            0 => u32::from(context.protocol),
            4 => u32::from(context.pkttype),
            20 => context.mark,
            _ => return Err(NotGiven),
        })));
    }
    if at >= NETWORK {
        return Ok(Bits::read(octets, at - NETWORK, width));
    }
    if at >= 0x8000_0000 {
        return Err(NotGiven);
    }
    Ok(Bits::read(octets, at, width))
}

/// `Ok(None)` for a division by zero, which ends the program with 0.
fn alu(op: u16, a: Bits, b: Bits) -> Result<Option<Bits>, NotGiven> {
    match op {
        0x40 => return Ok(Some(a.or(b))),
        0x50 => return Ok(Some(a.and(b))),
        0x60 | 0x70 => {
            let by = b.value().ok_or(NotGiven)?;
            let shift =
                |n: u32| if op == 0x60 { n.checked_shl(by).unwrap_or(0) } else { n.checked_shr(by).unwrap_or(0) };
            return Ok(Some(a.map(shift)));
        }
        _ => (),
    }
    let a = a.value().ok_or(NotGiven)?;
    if op == 0x80 {
        return Ok(Some(Bits::known(a.wrapping_neg())));
    }
    let b = b.value().ok_or(NotGiven)?;
    Ok(match op {
        0x00 => Some(a.wrapping_add(b)),
        0x10 => Some(a.wrapping_sub(b)),
        0x20 => Some(a.wrapping_mul(b)),
        0x30 => a.checked_div(b),
        0x90 => a.checked_rem(b),
        0xa0 => Some(a ^ b),
        _ => return Err(NotGiven),
    }
    .map(Bits::known))
}

impl fmt::Display for BpfProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--bytecode \"{}", self.ops.len())?;
        self.ops.iter().try_for_each(|op| write!(f, ",{} {} {} {}", op.code, op.jt, op.jf, op.k))?;
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(octets: &[u8]) -> Vec<Octet> {
        octets.iter().copied().map(Octet::known).collect()
    }

    #[test]
    fn bytecode_reads_and_runs() {
        // `tcpdump -ddd -y RAW tcp`: IP protocol 6.
        let program = BpfProgram::parse("4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0").unwrap();
        assert_eq!(program.to_string(), "--bytecode \"4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0\"");
        let context = BpfContext { protocol: 0x0800, pkttype: 0, mark: 7 };
        let mut packet = vec![0u8; 20];
        packet[9] = 6;
        assert_eq!(program.run(&known(&packet), context), Ok(true));
        packet[9] = 17;
        assert_eq!(program.run(&known(&packet), context), Ok(false));
        assert_eq!(program.run(&known(&packet[..5]), context), Ok(false), "a read past the end gives 0");
        let mark = BpfProgram::parse("4,32 0 0 4294963220,21 0 1 7,6 0 0 1,6 0 0 0").unwrap();
        assert_eq!(mark.run(&known(&packet), context), Ok(true));
        assert!(BpfProgram::parse("2,6 0 0 1").is_err());
        assert!(BpfProgram::parse("1,6 0 0").is_err());
    }
}
