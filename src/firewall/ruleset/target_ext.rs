//! The rarer targets that change a packet or keep it.

use std::fmt;
use std::net::IpAddr;

use super::{Side, quote};

/// A rarer target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetExt {
    /// `-j ECN --ecn-tcp-remove`: clears ECE and CWR.
    EcnRemove,
    /// `-j TCPOPTSTRIP`: overwrites these TCP options, by number, with NOPs.
    Tcpoptstrip(Vec<u8>),
    /// `-j TPROXY`: hands the packet to a local socket, or drops it.
    Tproxy(Tproxy),
    /// `-j SYNPROXY`: answers handshakes in the server's stead; its options as written.
    Synproxy(String),
    /// `-j SET`: changes an ipset.
    Set(TargetSet),
    /// `-j HMARK`: marks the packet with a hash; its options as written.
    Hmark(String),
}

/// `-j TPROXY`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tproxy {
    /// `--on-port`; 0 for the packet's own.
    pub port: u16,
    /// `--on-ip`; unspecified for the incoming interface's own.
    pub addr: IpAddr,
    /// The bits to flip into the mark after clearing.
    pub value: u32,
    /// The bits to clear.
    pub mask: u32,
}

/// What `-j SET` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOp {
    /// `--add-set`
    Add,
    /// `--del-set`
    Delete,
    /// `--map-set`: takes the element's mark, priority or queue over.
    Map,
}

/// One change of `-j SET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSet {
    /// What it does.
    pub op: SetOp,
    /// The set's name.
    pub name: String,
    /// `src`/`dst` for each dimension.
    pub sides: Vec<Side>,
    /// `--exist`: refreshes an element that is there.
    pub exist: bool,
    /// `--timeout`, seconds.
    pub timeout: Option<u32>,
    /// `--map-mark`
    pub map_mark: bool,
    /// `--map-prio`
    pub map_prio: bool,
    /// `--map-queue`
    pub map_queue: bool,
}

impl fmt::Display for TargetExt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcnRemove => f.write_str("ECN --ecn-tcp-remove"),
            Self::Tcpoptstrip(options) => {
                let list: Vec<_> = options.iter().map(ToString::to_string).collect();
                write!(f, "TCPOPTSTRIP --strip-options {}", list.join(","))
            }
            Self::Tproxy(t) => {
                let Tproxy { port, addr, value, mask } = t;
                write!(f, "TPROXY --on-port {port} --on-ip {addr} --tproxy-mark {value:#x}/{mask:#x}")
            }
            Self::Synproxy(options) if options.is_empty() => f.write_str("SYNPROXY"),
            Self::Synproxy(options) => write!(f, "SYNPROXY {options}"),
            Self::Hmark(options) => write!(f, "HMARK {options}"),
            Self::Set(set) => {
                let op = match set.op {
                    SetOp::Add => "add-set",
                    SetOp::Delete => "del-set",
                    SetOp::Map => "map-set",
                };
                let sides: Vec<_> =
                    set.sides.iter().map(|side| if *side == Side::Source { "src" } else { "dst" }).collect();
                write!(f, "SET --{op} {} {}", quote(&set.name), sides.join(","))?;
                for (on, text) in [
                    (set.exist, " --exist"),
                    (set.map_mark, " --map-mark"),
                    (set.map_prio, " --map-prio"),
                    (set.map_queue, " --map-queue"),
                ] {
                    if on {
                        f.write_str(text)?;
                    }
                }
                set.timeout.map_or(Ok(()), |seconds| write!(f, " --timeout {seconds}"))
            }
        }
    }
}
