//! The state machine of each end (RFC 9293 §3.3.2), as far as passing segments tell.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::wire::TcpFlags;

/// The state of one end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing was seen of it yet: it may listen, or not.
    #[default]
    Unknown,
    /// It has sent a SYN.
    SynSent,
    /// It has answered a SYN with a SYN of its own.
    SynReceived,
    /// Data may flow.
    Established,
    /// It has sent a FIN, not yet acknowledged.
    FinWait1,
    /// Its FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The peer has sent a FIN; this end may still send.
    CloseWait,
    /// Both have sent a FIN at once; its own is not yet acknowledged.
    Closing,
    /// It has sent its FIN after the peer's, not yet acknowledged.
    LastAck,
    /// All is done; it waits until nothing of this connection can come any more.
    TimeWait,
    /// Gone.
    Closed,
}

impl State {
    /// As RFC 9293 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        }
    }

    /// Whether both ends have agreed on a connection that is not over.
    pub fn is_synchronised(self) -> bool {
        !matches!(self, Self::Unknown | Self::SynSent | Self::SynReceived | Self::Closed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a segment means for the two machines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moves {
    /// Its flags.
    pub flags: TcpFlags,
    /// It acknowledges the SYN of its receiver.
    pub acks_syn: bool,
    /// It acknowledges the FIN of its receiver.
    pub acks_fin: bool,
    /// The RST is one that its receiver would take (in window, or the answer to its SYN).
    pub reset_counts: bool,
}

/// Moves both machines by a segment that `sender` sent and `receiver` got.
///
/// A capture sees a segment on its way. That it arrives is assumed, and taken back by nothing: what a peer did not
/// get, it asks for again, and the states stay as they are.
pub(super) fn step(sender: &mut State, receiver: &mut State, moves: Moves) {
    use State::{
        CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, SynReceived, SynSent, TimeWait, Unknown,
    };

    let has = |flags: TcpFlags| moves.flags.contains(flags);
    if has(TcpFlags::RST) {
        if moves.reset_counts {
            (*sender, *receiver) = (Closed, Closed);
        }
        return;
    }
    if has(TcpFlags::SYN) {
        match (*sender, has(TcpFlags::ACK)) {
            // A SYN to an end that has sent one itself: both open at once (figure 7 of the RFC).
            (Unknown | Closed, false) => *sender = SynSent,
            (Unknown | Closed | SynSent, true) => *sender = SynReceived,
            _ => {}
        }
        if *receiver == SynSent {
            *receiver = if has(TcpFlags::ACK) && moves.acks_syn { Established } else { SynReceived };
        }
    } else if *sender == SynSent && has(TcpFlags::ACK) && *receiver == SynReceived {
        // Its SYN was answered before the capture could see it.
        *sender = Established;
    }
    if has(TcpFlags::ACK) && !has(TcpFlags::SYN) && *sender == Unknown {
        // The capture began in the middle.
        *sender = Established;
    }
    if has(TcpFlags::ACK) {
        match *receiver {
            SynReceived if moves.acks_syn => *receiver = Established,
            FinWait1 if moves.acks_fin => *receiver = FinWait2,
            Closing if moves.acks_fin => *receiver = TimeWait,
            LastAck if moves.acks_fin => *receiver = Closed,
            _ => {}
        }
    }
    if has(TcpFlags::FIN) {
        match *sender {
            Established | SynReceived | Unknown => *sender = FinWait1,
            // A FIN that does not acknowledge the peer's was sent before that arrived: both close at once.
            CloseWait => *sender = if moves.acks_fin { LastAck } else { Closing },
            _ => {}
        }
        match *receiver {
            Established | SynReceived | Unknown => *receiver = CloseWait,
            FinWait1 => *receiver = Closing,
            FinWait2 => *receiver = TimeWait,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(segments: &[(bool, &str, bool, bool)]) -> (State, State) {
        let mut ends = (State::Unknown, State::Unknown);
        for (from_client, flags, acks_syn, acks_fin) in segments {
            let flags = flags.parse().unwrap();
            let moves = Moves { flags, acks_syn: *acks_syn, acks_fin: *acks_fin, reset_counts: true };
            let (client, server) = (&mut ends.0, &mut ends.1);
            if *from_client { step(client, server, moves) } else { step(server, client, moves) }
        }
        ends
    }

    const OPEN: [(bool, &str, bool, bool); 3] =
        [(true, "SYN", false, false), (false, "SYN,ACK", true, false), (true, "ACK", true, false)];

    #[test]
    fn the_handshake_and_the_ways_to_close() {
        assert_eq!(run(&OPEN[..1]), (State::SynSent, State::Unknown));
        assert_eq!(run(&OPEN[..2]), (State::Established, State::SynReceived));
        assert_eq!(run(&OPEN), (State::Established, State::Established));
        let with = |more: &[(bool, &'static str, bool, bool)]| run(&[&OPEN[..], more].concat());
        // Four segments, three segments, both at once, one half, aborted.
        let four = [
            (true, "FIN,ACK", true, false),
            (false, "ACK", true, true),
            (false, "FIN,ACK", true, true),
            (true, "ACK", true, true),
        ];
        assert_eq!(with(&four), (State::TimeWait, State::Closed));
        assert_eq!(with(&four[..2]), (State::FinWait2, State::CloseWait));
        assert_eq!(with(&[four[0], four[2], four[3]]), (State::TimeWait, State::Closed));
        let both = [
            (true, "FIN,ACK", true, false),
            (false, "FIN,ACK", true, false),
            (true, "ACK", true, true),
            (false, "ACK", true, true),
        ];
        assert_eq!(with(&both[..2]), (State::Closing, State::Closing));
        assert_eq!(with(&both), (State::TimeWait, State::TimeWait));
        assert_eq!(with(&[(false, "RST", false, false)]), (State::Closed, State::Closed));
    }

    #[test]
    fn both_may_open_at_once() {
        let both = [
            (true, "SYN", false, false),
            (false, "SYN", false, false),
            (true, "SYN,ACK", true, false),
            (false, "SYN,ACK", true, false),
        ];
        assert_eq!(run(&both), (State::Established, State::Established));
    }
}
