//! Does an address end at the station that answers for it? An echo request with TTL 1 tells.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::frame::Heard;
use crate::wire::MacAddr;

/// What came back from an echo request with TTL 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialOutcome {
    /// Nothing.
    Silent,
    /// The station has the address itself.
    Owns {
        /// By which hardware address it replied: another than was spoken to is another interface of the
        /// same host.
        reply_from: MacAddr,
        /// TTL on arrival.
        ttl: u8,
    },
    /// It would have passed the packet on: it answers ARP for another.
    Forwards {
        /// The router, by its own account.
        by: IpAddr,
        /// The error's frame came from here.
        reply_from: MacAddr,
    },
    /// Another error: it is reported in words.
    Refused {
        /// Who refused.
        by: IpAddr,
        /// Why.
        what: String,
    },
}

/// One echo request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// To which address.
    pub ip: IpAddr,
    /// Handed to which station.
    pub via: MacAddr,
    /// What came of it.
    pub outcome: TrialOutcome,
    /// When it was sent.
    #[serde(skip)]
    pub sent: Option<u64>,
}

impl Trial {
    /// Not yet sent.
    pub fn new(ip: IpAddr, via: MacAddr) -> Self {
        Self { ip, via, outcome: TrialOutcome::Silent, sent: None }
    }

    /// Takes a reply or error whose identifier and sequence number are this trial's.
    pub fn take(&mut self, heard: &Heard) {
        match heard {
            Heard::Echo { mac, from, ttl, .. } if *from == self.ip => {
                self.outcome = TrialOutcome::Owns { reply_from: *mac, ttl: *ttl };
            }
            Heard::Error { mac, from, expired: true, target, .. } if *target == self.ip => {
                self.outcome = TrialOutcome::Forwards { by: *from, reply_from: *mac };
            }
            Heard::Error { from, what, target, .. } if *target == self.ip => {
                self.outcome = TrialOutcome::Refused { by: *from, what: what.clone() };
            }
            _ => {}
        }
    }
}
