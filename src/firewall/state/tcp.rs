//! The TCP state machine of conntrack (`net/netfilter/nf_conntrack_proto_tcp.c`), for segments
//! that are within their windows: sequence numbers are not part of a packet here.

use std::time::Duration;

use crate::firewall::ruleset::TcpFlags;

use super::tuple::Dir;

/// `enum tcp_conntrack`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TcpState {
    /// Nothing seen.
    #[default]
    None,
    /// SYN seen.
    SynSent,
    /// SYN and ACK of the other side seen.
    SynRecv,
    /// ACK seen.
    Established,
    /// FIN seen.
    FinWait,
    /// ACK seen after FIN.
    CloseWait,
    /// FIN seen after FIN.
    LastAck,
    /// Last ACK seen.
    TimeWait,
    /// RST seen.
    Close,
    /// SYN seen both ways.
    SynSent2,
}

impl TcpState {
    /// The name in `conntrack -L`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }

    /// How long a flow in this state lives without a packet (`tcp_timeouts`).
    pub fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Close => 10,
            Self::LastAck => 30,
            Self::SynRecv | Self::CloseWait => 60,
            Self::Established => 5 * 24 * 3600,
            _ => 120,
        })
    }
}

/// `TCP_CONNTRACK_UNACK`: a flow picked up in the middle, while only one side was heard.
const UNACK: Duration = Duration::from_secs(300);

/// What conntrack looks at of a segment's flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    #[default]
    None,
}

impl Kind {
    fn of(flags: TcpFlags) -> Self {
        let has = |flag: TcpFlags| flags.0 & flag.0 != 0;
        match () {
            () if has(TcpFlags::RST) => Self::Rst,
            () if has(TcpFlags::SYN) && has(TcpFlags::ACK) => Self::SynAck,
            () if has(TcpFlags::SYN) => Self::Syn,
            () if has(TcpFlags::FIN) => Self::Fin,
            () if has(TcpFlags::ACK) => Self::Ack,
            () => Self::None,
        }
    }
}

/// Whether a flag combination is one that TCP sends (`tcp_valid_flags`); any other is INVALID.
/// PSH, ECE and CWR go with all.
pub(super) fn valid_flags(flags: TcpFlags) -> bool {
    let (fin, syn, rst, ack, urg) = (0x01, 0x02, 0x04, 0x10, 0x20);
    let looked_at = flags.0 & (fin | syn | rst | ack | urg);
    [syn, syn | urg, syn | ack, rst, rst | ack, fin | ack, fin | ack | urg, ack, ack | urg].contains(&looked_at)
}

/// A cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    To(TcpState),
    /// Let through, and the state stays.
    Ignore,
    Invalid,
}

/// `tcp_conntracks[dir][kind][state]`, columns in the order of [`TcpState`].
fn cell(dir: Dir, kind: Kind, state: TcpState) -> Cell {
    use TcpState::{Close, CloseWait, Established, FinWait, LastAck, SynRecv, SynSent, SynSent2, TimeWait};
    let reply = dir == Dir::Reply;
    match kind {
        Kind::None => Cell::Invalid,
        Kind::Rst if state == TcpState::None => Cell::Invalid,
        Kind::Rst => Cell::To(Close),
        Kind::Syn if reply => match state {
            SynSent | SynSent2 => Cell::To(SynSent2),
            // The server has switched roles.
            TimeWait => Cell::To(SynSent),
            _ => Cell::Invalid,
        },
        Kind::Syn => match state {
            TcpState::None | SynSent | TimeWait | Close => Cell::To(SynSent),
            SynSent2 => Cell::To(SynSent2),
            _ => Cell::Ignore,
        },
        Kind::SynAck if reply => match state {
            TcpState::None => Cell::Invalid,
            SynSent | SynSent2 => Cell::To(SynRecv),
            _ => Cell::Ignore,
        },
        Kind::SynAck => match state {
            SynRecv | SynSent2 => Cell::To(SynRecv),
            _ => Cell::Invalid,
        },
        Kind::Fin => match state {
            TcpState::None | SynSent | SynSent2 => Cell::Invalid,
            SynRecv | Established => Cell::To(FinWait),
            FinWait | CloseWait | LastAck => Cell::To(LastAck),
            TimeWait | Close => Cell::To(state),
        },
        Kind::Ack => match state {
            TcpState::None if !reply => Cell::To(Established),
            SynSent | SynSent2 if reply => Cell::Ignore,
            TcpState::None | SynSent | SynSent2 => Cell::Invalid,
            SynRecv if reply => Cell::To(SynRecv),
            SynRecv | Established => Cell::To(Established),
            FinWait | CloseWait => Cell::To(CloseWait),
            LastAck | TimeWait => Cell::To(TimeWait),
            Close => Cell::To(Close),
        },
    }
}

/// What conntrack keeps of a TCP connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Its state.
    pub state: TcpState,
    last: Kind,
    last_reply: bool,
    /// The last segment was let through and changed nothing.
    ignored: bool,
    /// One side began to close it (`IP_CT_TCP_FLAG_CLOSE_INIT`).
    closing: bool,
    /// The server's window is known.
    heard: bool,
    /// Windows are not compared: the connection was picked up in its middle.
    liberal: bool,
    /// Both sides sent SYN (`IP_CT_TCP_SIMULTANEOUS_OPEN`).
    simultaneous: bool,
    /// A SYN was let through in LAST_ACK, the answer to which may be an ACK (RFC 5961).
    challenge: bool,
}

/// What a segment does to its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It belongs to it; the flow then lives that long, or as long as it did.
    Belongs { timeout: Option<Duration>, assured: bool, killed: bool },
    /// No part of it.
    Invalid,
    /// The flow is over: it is forgotten, and the segment looked at again.
    Reopen,
}

impl Tcp {
    /// The next segment of the flow. `loose`: `nf_conntrack_tcp_loose`.
    pub(crate) fn packet(&mut self, dir: Dir, flags: TcpFlags, seen_reply: bool, assured: bool, loose: bool) -> Fate {
        let kind = Kind::of(flags);
        let reply = dir == Dir::Reply;
        let mut old = self.state;
        if !valid_flags(flags) || old == TcpState::None && kind == Kind::Ack && !loose {
            return Fate::Invalid;
        }
        if old == TcpState::None {
            // Picked up in its middle, its windows are not known (`IP_CT_TCP_FLAG_BE_LIBERAL`).
            self.liberal = kind == Kind::Ack;
        }
        let keep = Fate::Belongs { timeout: None, assured: false, killed: false };
        let mut to = match cell(dir, kind, old) {
            Cell::Invalid => return Fate::Invalid,
            Cell::To(TcpState::SynSent) if old >= TcpState::TimeWait => {
                if self.closing || self.last == Kind::Rst && self.last_reply == reply {
                    return Fate::Reopen;
                }
                None
            }
            Cell::To(to) => Some(to),
            Cell::Ignore => None,
        };
        if to.is_none() && kind == Kind::SynAck && self.last == Kind::Syn && self.last_reply != reply {
            // It answers a SYN that was let through: client and server agree, so does conntrack.
            (old, to) = (TcpState::SynSent, Some(TcpState::SynRecv));
            (self.closing, self.liberal) = (false, false);
        }
        let Some(mut to) = to else {
            (self.last, self.last_reply, self.ignored) = (kind, reply, true);
            if kind == Kind::Syn && !reply {
                self.challenge = old == TcpState::LastAck;
            }
            return keep;
        };
        match to {
            TcpState::TimeWait
                if old == TcpState::LastAck
                    && kind == Kind::Ack
                    && self.last_reply != reply
                    && self.last == Kind::Syn
                    && self.challenge =>
            {
                self.challenge = false;
                return keep;
            }
            TcpState::SynSent2 => self.simultaneous = true,
            TcpState::SynRecv if reply && kind == Kind::Ack && self.simultaneous => to = TcpState::Established,
            _ => (),
        }
        // A RST to what is closing, or that answers what was let through, is not compared with windows.
        let closing = (TcpState::FinWait..=TcpState::Close).contains(&old);
        let let_through = seen_reply && self.last == Kind::Syn && self.ignored || !assured && self.last == Kind::Ack;
        let answers = kind == Kind::Rst && (closing || self.last_reply != reply && let_through);
        // Whatever the client acknowledges: the server has sent nothing yet that counts.
        let acks = flags.0 & TcpFlags::ACK.0 != 0;
        if acks && !reply && !self.heard && !self.liberal && !answers && old != TcpState::None {
            return Fate::Invalid;
        }
        self.heard |= reply && !answers;
        (self.last, self.last_reply, self.ignored) = (kind, reply, false);
        self.state = to;
        if old != to && to == TcpState::FinWait {
            self.closing = true;
        }
        if !seen_reply {
            if kind == Kind::Rst {
                return Fate::Belongs { timeout: None, assured: false, killed: true };
            }
            if kind == Kind::Syn && old == TcpState::SynSent {
                return keep;
            }
            let timeout = if to == TcpState::Established { UNACK } else { to.timeout() };
            return Fate::Belongs { timeout: Some(timeout), assured: false, killed: false };
        }
        let assured = !assured
            && matches!(old, TcpState::SynRecv | TcpState::Established)
            && to == TcpState::Established;
        Fate::Belongs { timeout: Some(to.timeout()), assured, killed: false }
    }
}
