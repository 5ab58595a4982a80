//! The TCP state machine of conntrack (`net/netfilter/nf_conntrack_proto_tcp.c`). Where packets are
//! given by their octets, windows are compared ([`super::window`]); else segments are taken to be within.

use std::time::Duration;

use crate::firewall::ruleset::TcpFlags;

use super::tuple::Dir;
use super::window::{Action, Segment, Windows};

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

/// `tcp_conntracks[dir][kind][state]`, columns in the order of `TcpState`.
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
    /// The windows, as long as every segment was given by its octets.
    windows: Windows,
    /// One was not.
    blind: bool,
}

/// What is known of the flow beside its state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) seen_reply: bool,
    pub(crate) assured: bool,
    /// `nf_conntrack_tcp_loose`
    pub(crate) loose: bool,
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
    /// A connection whose beginning was not seen.
    pub(crate) fn midway() -> Self {
        Self { state: TcpState::Established, blind: true, ..Self::default() }
    }

    /// The next segment of the flow.
    pub(crate) fn packet(&mut self, dir: Dir, flags: TcpFlags, flow: Known, segment: Option<&Segment>) -> Fate {
        if let Some(segment) = segment.filter(|_| !self.blind) {
            return self.exact(dir, flags, flow, segment);
        }
        self.blind = true;
        self.within(dir, flags, flow)
    }

    /// `nf_conntrack_tcp_packet`
    fn exact(&mut self, dir: Dir, flags: TcpFlags, flow: Known, segment: &Segment) -> Fate {
        let kind = Kind::of(flags);
        let reply = dir == Dir::Reply;
        let Known { seen_reply, assured, loose } = flow;
        let mut old = self.state;
        if !valid_flags(flags) {
            return Fate::Invalid;
        }
        if old == TcpState::None && !self.windows.begun {
            // tcp_new
            match cell(Dir::Original, kind, TcpState::None) {
                Cell::To(TcpState::SynSent) => self.windows.begin(segment),
                Cell::To(_) if loose => self.windows.begin_midway(segment),
                _ => return Fate::Invalid,
            }
        }
        let keep = Fate::Belongs { timeout: None, assured: false, killed: false };
        let last_from_here = self.last_reply == reply;
        let mut to = match cell(dir, kind, old) {
            Cell::Invalid => return Fate::Invalid,
            Cell::To(TcpState::SynSent) if old >= TcpState::TimeWait => {
                if self.closing || self.last == Kind::Rst && last_from_here {
                    return Fate::Reopen;
                }
                None
            }
            Cell::To(to) => Some(to),
            Cell::Ignore => None,
        };
        let w = &mut self.windows;
        if to.is_none()
            && kind == Kind::SynAck
            && self.last == Kind::Syn
            && !last_from_here
            && segment.ack == w.last_end
        {
            // It answers a SYN that was let through: client and server agree, so does conntrack.
            (old, to) = (TcpState::SynSent, Some(TcpState::SynRecv));
            w.agree(self.last_reply, reply);
            (self.challenge, self.closing) = (false, false);
        }
        let Some(mut to) = to else {
            (self.last, self.last_reply) = (kind, reply);
            w.let_through(segment, kind == Kind::Syn && !reply);
            if kind == Kind::Syn && !reply {
                (self.challenge, self.simultaneous) = (old == TcpState::LastAck, false);
            }
            if old == TcpState::SynSent && kind == Kind::Ack && reply {
                w.last_ack = segment.ack;
            }
            return keep;
        };
        let mut compared = true;
        match to {
            TcpState::TimeWait
                if old == TcpState::LastAck
                    && kind == Kind::Ack
                    && !last_from_here
                    && self.last == Kind::Syn
                    && self.challenge =>
            {
                self.challenge = false;
                return keep;
            }
            TcpState::SynSent2 => self.simultaneous = true,
            TcpState::SynRecv if reply && kind == Kind::Ack && self.simultaneous => to = TcpState::Established,
            TcpState::Close if kind == Kind::Rst => {
                let established = old == TcpState::Established && assured;
                if (TcpState::FinWait..=TcpState::Close).contains(&old) {
                    compared = false;
                } else {
                    let acked = w.acked(!reply).filter(|_| self.last != Kind::Syn);
                    let train = self.last == Kind::Ack && last_from_here && segment.seq == w.last_end;
                    let mut answers = true;
                    match acked {
                        Some(_) if segment.seq == 0 && !established => answers = false,
                        Some(acked) if super::window::before(segment.seq, acked) => return Fate::Invalid,
                        Some(acked) if !established || segment.seq == acked || train => answers = false,
                        // A challenge may follow.
                        Some(_) => to = old,
                        None => (),
                    }
                    let through = seen_reply && self.last == Kind::Syn || !assured && self.last == Kind::Ack;
                    let challenged = old == TcpState::SynSent
                        && self.last == Kind::Ack
                        && self.last_reply
                        && segment.seq == w.last_ack;
                    compared = !(answers && (through && segment.ack == w.last_end || challenged));
                }
            }
            _ => (),
        }
        if compared {
            w.last_reply = self.last_reply;
            match w.compare(reply, flags, kind == Kind::Ack, segment, old) {
                Action::Accept => (),
                Action::Ignore => return keep,
                Action::Invalid => {
                    let ends = matches!(kind, Kind::Rst | Kind::Fin);
                    if assured && ends && (last_from_here || !matches!(self.last, Kind::Fin | Kind::Rst)) {
                        (self.last, self.last_reply) = (kind, reply);
                    }
                    return Fate::Invalid;
                }
            }
        }
        (self.last, self.last_reply) = (kind, reply);
        self.state = to;
        if old != to && to == TcpState::FinWait {
            self.closing = true;
        }
        let mut timeout = to.timeout();
        if kind == Kind::Rst {
            timeout = TcpState::Close.timeout();
        } else if w.waits() {
            timeout = timeout.min(UNACK);
        }
        if !seen_reply {
            if kind == Kind::Rst {
                return Fate::Belongs { timeout: Some(timeout), assured: false, killed: true };
            }
            if kind == Kind::Syn && old == TcpState::SynSent {
                return keep;
            }
            if to == TcpState::Established {
                timeout = timeout.min(UNACK);
            }
            return Fate::Belongs { timeout: Some(timeout), assured: false, killed: false };
        }
        let assured =
            !assured && matches!(old, TcpState::SynRecv | TcpState::Established) && to == TcpState::Established;
        Fate::Belongs { timeout: Some(timeout), assured, killed: false }
    }

    /// The same of a segment whose numbers are not given.
    fn within(&mut self, dir: Dir, flags: TcpFlags, flow: Known) -> Fate {
        let kind = Kind::of(flags);
        let reply = dir == Dir::Reply;
        let Known { seen_reply, assured, loose } = flow;
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
                return Fate::Belongs { timeout: Some(TcpState::Close.timeout()), assured: false, killed: true };
            }
            if kind == Kind::Syn && old == TcpState::SynSent {
                return keep;
            }
            let timeout = if to == TcpState::Established { UNACK } else { to.timeout() };
            return Fate::Belongs { timeout: Some(timeout), assured: false, killed: false };
        }
        let assured =
            !assured && matches!(old, TcpState::SynRecv | TcpState::Established) && to == TcpState::Established;
        Fate::Belongs { timeout: Some(to.timeout()), assured, killed: false }
    }
}
