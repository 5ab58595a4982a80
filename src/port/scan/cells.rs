//! What the scan remembers of each port.

use std::net::IpAddr;
use std::time::Duration;

use crate::probe::Moment;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// SYN-ACK: its window, and whether it had options.
    SynAck {
        /// Unscaled.
        window: u16,
        /// At least one.
        options: bool,
    },
    /// A reset.
    Reset {
        /// Unscaled.
        window: u16,
    },
    /// An ICMP error about the probe.
    Icmp {
        /// IPv6's protocol.
        v6: bool,
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// A datagram: its first octets.
    Data(Vec<u8>),
    /// The kernel's connection stands.
    Connected,
    /// The kernel's connection was refused; by whom it does not say.
    Refused,
    /// The kernel's connection failed with this errno, and nothing says who caused it.
    Failed(&'static str),
    /// An echo reply.
    Echo,
    /// This host did not send the probe.
    Local(&'static str),
}

impl Answer {
    /// Whether only a host that is there gives it; `own` is whether its own address did.
    pub(super) fn shows_life(&self, own: bool) -> bool {
        match self {
            Self::SynAck { .. } | Self::Reset { .. } | Self::Data(_) | Self::Connected | Self::Refused | Self::Echo => {
                true
            }
            Self::Icmp { .. } => own,
            Self::Failed(_) | Self::Local(_) => false,
        }
    }

    pub(super) fn says_host_unreachable(&self) -> bool {
        matches!(self, Self::Icmp { v6: false, kind: 3, code: 1 } | Self::Icmp { v6: true, kind: 1, code: 3 })
            || matches!(self, Self::Failed("EHOSTUNREACH"))
    }

    /// What an application would get in spite of an earlier answer: a SYN-ACK counts more than an ICMP error.
    pub(super) fn yields_to(&self, other: &Self) -> bool {
        let weight = |answer: &Self| match answer {
            Self::SynAck { .. } | Self::Connected | Self::Data(_) => 3,
            Self::Reset { .. } | Self::Refused => 2,
            Self::Icmp { .. } => 1,
            _ => 0,
        };
        weight(other) > weight(self)
    }
}

/// An answer and what came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What it said.
    pub answer: Answer,
    /// Who said it: the outer source address.
    pub by: IpAddr,
    /// TTL or hop limit on arrival.
    pub ttl: Option<u8>,
    /// Round trip; none where it cannot be told which try was answered.
    pub rtt: Option<Duration>,
    /// The try it answers.
    pub number: Option<u8>,
}

/// An answer as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The try it names; none where it cannot be told.
    pub number: Option<u8>,
    /// Who says it: the outer source address.
    pub by: IpAddr,
    /// TTL or hop limit on arrival.
    pub ttl: Option<u8>,
    /// What it says.
    pub answer: Answer,
}

/// How far a port is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Status {
    /// Not asked, or not to the end.
    #[default]
    Open,
    /// Asked in vain.
    Silent,
    /// Answered.
    Answered,
}

/// One port of one host.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cell {
    /// When the last two tries left, by the parity of their number.
    sent: [u64; 2],
    pub(super) answer: Option<u32>,
    pub(super) tries: u8,
    pub(super) slow_tries: u8,
    pub(super) in_flight: bool,
    pub(super) status: Status,
}

impl Cell {
    pub(super) fn send(&mut self, now: Moment) {
        // Fifteen tries can be named in a probe; no plan allows more.
        self.tries = (self.tries + 1).min(15);
        self.sent[usize::from(self.tries & 1)] = now.0;
    }

    pub(super) fn left(&mut self, number: u8, at: Moment) {
        self.sent[usize::from(number & 1)] = at.0;
    }

    /// When this try left, if it was one of the last two.
    pub(super) fn sent_at(&self, number: u8) -> Option<Moment> {
        (number >= 1 && number <= self.tries && number + 1 >= self.tries)
            .then(|| Moment(self.sent[usize::from(number & 1)]))
    }
}

/// Every number below `count` once, in an order that looks like chance: one host or port range is not hit in a row.
#[derive(Debug, Clone)]
pub(super) struct Order {
    count: u64,
    step: u64,
    at: u64,
    left: u64,
}

impl Order {
    pub(super) fn new(count: usize, secret: u64) -> Self {
        let count = count as u64;
        let gcd = |mut a: u64, mut b: u64| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        // A step that has no divisor in common with the count meets every number.
        let mut step = if count > 2 { ((secret >> 32) % count) | 1 } else { 1 };
        // Small steps would be ranges in a row again.
        if step < count / 3 {
            step += count / 3;
        }
        while count > 1 && gcd(step, count) != 1 {
            step += 1;
        }
        Self { count, step, at: if count == 0 { 0 } else { secret % count }, left: count }
    }

    pub(super) fn peek(&self) -> Option<u32> {
        (self.left > 0).then(|| u32::try_from(self.at).unwrap_or(0))
    }

    pub(super) fn pop(&mut self) {
        self.at = (self.at + self.step) % self.count.max(1);
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_number_comes_once(count in 0usize..3000, secret: u64) {
            let mut order = Order::new(count, secret);
            let mut seen = vec![false; count];
            while let Some(at) = order.peek() {
                proptest::prop_assert!(!std::mem::replace(&mut seen[at as usize], true));
                order.pop();
            }
            proptest::prop_assert!(seen.into_iter().all(|one| one));
        }
    }
}
