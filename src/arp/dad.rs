//! Is an address free? Duplicate address detection as a host must do it before it uses an address:
//! RFC 5227 §2.1.1 for IPv4, RFC 4862 §5.4 for IPv6, with their times.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::conversation::{Conversation, Outgoing, Step};
use super::frame::{self, Heard, Reach, Speaker};
use crate::wire::{ArpOperation, MacAddr};

const SECOND: u64 = 1_000_000_000;

/// Who spoke up, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objection {
    /// The station.
    pub mac: MacAddr,
    /// What it did.
    pub how: Claim,
    /// Milliseconds after the last probe had been sent (or after the beginning).
    pub after_ms: u64,
}

/// How a station claims an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// It answered the probe.
    Answered,
    /// It spoke with the address as its own meanwhile.
    Used,
    /// It probes for the same address at the same time.
    Probes,
}

/// What duplicate detection came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DadReport {
    /// `free`, `in_use`, or `contested` (another probes for it as well).
    pub verdict: String,
    /// When the probes were sent, milliseconds after the beginning.
    pub probes_ms: Vec<u64>,
    /// Who spoke up.
    pub objections: Vec<Objection>,
    /// Which standard's times were kept.
    pub standard: String,
    /// How long was waited and listened in all, milliseconds.
    pub took_ms: u64,
}

/// A detection under way.
#[derive(Debug)]
pub struct Dad {
    mac: MacAddr,
    target: IpAddr,
    /// When each probe goes out, and the end, after the beginning.
    schedule: Vec<u64>,
    end: u64,
    begun: Option<u64>,
    now: u64,
    given: usize,
    sent: Vec<u64>,
    objections: Vec<Objection>,
}

impl Dad {
    /// Probes for `target`; `chance` decides the random parts of the times.
    pub fn new(mac: MacAddr, target: IpAddr, chance: u64) -> Self {
        // Three numbers below one second out of one.
        let part = |n: u32| (chance.rotate_left(n * 21) & 0x3f_ffff) * SECOND / 0x40_0000;
        let (schedule, end) = if target.is_ipv4() {
            // PROBE_WAIT 0-1 s, PROBE_NUM 3, PROBE_MIN 1 s to PROBE_MAX 2 s apart, ANNOUNCE_WAIT 2 s.
            let first = part(0);
            let second = first + SECOND + part(1);
            let third = second + SECOND + part(2);
            (vec![first, second, third], third + 2 * SECOND)
        } else {
            // MAX_RTR_SOLICITATION_DELAY 1 s, DupAddrDetectTransmits 1, RetransTimer 1 s.
            (vec![part(0)], part(0) + SECOND)
        };
        Self { mac, target, schedule, end, begun: None, now: 0, given: 0, sent: Vec::new(), objections: Vec::new() }
    }

    /// What it came to.
    pub fn report(&self) -> DadReport {
        let begun = self.begun.unwrap_or(self.now);
        let ms = |at: u64| at.saturating_sub(begun) / 1_000_000;
        let used = self.objections.iter().any(|one| one.how != Claim::Probes);
        let verdict = if used {
            "in_use"
        } else if self.objections.is_empty() {
            "free"
        } else {
            "contested"
        };
        DadReport {
            verdict: verdict.to_owned(),
            probes_ms: self.sent.iter().map(|at| ms(*at)).collect(),
            objections: self.objections.clone(),
            standard: if self.target.is_ipv4() { "RFC 5227" } else { "RFC 4862" }.to_owned(),
            took_ms: ms(self.now),
        }
    }

    fn claim(&self, heard: &Heard) -> Option<(MacAddr, Claim)> {
        match heard {
            Heard::Arp(ether, arp) => {
                if ether.src == self.mac || arp.sender_mac == self.mac {
                    return None;
                }
                if IpAddr::V4(arp.sender_ip) == self.target {
                    let answered = arp.operation == ArpOperation::Reply && ether.dst == self.mac;
                    return Some((arp.sender_mac, if answered { Claim::Answered } else { Claim::Used }));
                }
                let probe = arp.operation == ArpOperation::Request && arp.sender_ip.is_unspecified();
                (probe && IpAddr::V4(arp.target_ip) == self.target).then_some((arp.sender_mac, Claim::Probes))
            }
            Heard::Nd { ether, src, message } => {
                if ether.src == self.mac || IpAddr::V6(message.target) != self.target {
                    return None;
                }
                let mac = message.link_address.unwrap_or(ether.src);
                if message.advertisement {
                    return Some((mac, Claim::Answered));
                }
                src.is_unspecified().then_some((mac, Claim::Probes))
            }
            _ => None,
        }
    }
}

impl Conversation for Dad {
    fn poll(&mut self, now: u64, out: &mut Vec<Outgoing>) -> Step {
        self.now = now;
        let begun = *self.begun.get_or_insert(now);
        // One sure answer ends it (RFC 5227 §2.1.1); the echo of it may be with us for a moment.
        if self.objections.iter().any(|one| one.how != Claim::Probes) {
            return Step::Done;
        }
        while let Some(at) = self.schedule.get(self.given) {
            if now < begun + at {
                return Step::Until(begun + at);
            }
            self.given += 1;
            let nobody = Speaker { mac: self.mac, ip: None };
            out.push(Outgoing { token: self.given as u64, bytes: frame::request(nobody, self.target, Reach::All) });
        }
        if now < begun + self.end { Step::Until(begun + self.end) } else { Step::Done }
    }

    fn sent(&mut self, _token: u64, at: u64) {
        self.sent.push(at);
    }

    fn heard(&mut self, at: u64, bytes: &[u8]) {
        let Some((mac, how)) = frame::read(bytes).and_then(|heard| self.claim(&heard)) else { return };
        if self.objections.iter().any(|one| one.mac == mac && one.how == how) || self.objections.len() >= 64 {
            return;
        }
        let since = self.sent.last().copied().or(self.begun).unwrap_or(at);
        self.objections.push(Objection { mac, how, after_ms: at.saturating_sub(since) / 1_000_000 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Arp, EtherHeader, ethertype};

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const THEM: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn arp(operation: ArpOperation, src: MacAddr, sender: &str, target: &str) -> Vec<u8> {
        let packet = Arp {
            operation,
            sender_mac: src,
            sender_ip: sender.parse().unwrap(),
            target_mac: MacAddr::ZERO,
            target_ip: target.parse().unwrap(),
        };
        let ether = EtherHeader { dst: MacAddr::BROADCAST, src, vlans: vec![], ethertype: ethertype::ARP };
        [ether.emit(), packet.emit()].concat()
    }

    /// Runs to the end with `frames` heard at their times (seconds); gives the report.
    fn run(target: &str, chance: u64, frames: &[(u64, Vec<u8>)]) -> DadReport {
        let mut dad = Dad::new(US, target.parse().unwrap(), chance);
        let mut now = 0;
        let mut out = Vec::new();
        let mut frames = frames.iter().peekable();
        while let Step::Until(until) = dad.poll(now, &mut out) {
            for frame in out.drain(..) {
                assert_eq!(frame.bytes[28..32], [0; 4], "a probe names no sender");
                dad.sent(frame.token, now);
            }
            match frames.next_if(|(at, _)| at * SECOND <= until) {
                Some((at, bytes)) => {
                    now = at * SECOND;
                    dad.heard(now, bytes);
                }
                None => now = until,
            }
        }
        dad.report()
    }

    #[test]
    fn an_address_is_free_after_three_probes_and_two_seconds() {
        for chance in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            let report = run("10.0.0.5", chance, &[]);
            assert_eq!(report.verdict, "free");
            let [a, b, c] = report.probes_ms[..] else { panic!("{report:?}") };
            assert!(a <= 1000 && (1000..=2000).contains(&(b - a)) && (1000..=2000).contains(&(c - b)));
            assert!((1999..=2001).contains(&(report.took_ms - c)), "{report:?}");
        }
    }

    #[test]
    fn anyone_who_speaks_with_the_address_has_it() {
        let used = arp(ArpOperation::Request, THEM, "10.0.0.5", "10.0.0.9");
        let report = run("10.0.0.5", 0, &[(1, used)]);
        assert_eq!((report.verdict.as_str(), report.objections[0].how), ("in_use", Claim::Used));
        let probe = arp(ArpOperation::Request, THEM, "0.0.0.0", "10.0.0.5");
        let report = run("10.0.0.5", 0, &[(1, probe)]);
        assert_eq!((report.verdict.as_str(), report.probes_ms.len()), ("contested", 3));
    }

    #[test]
    fn others_addresses_and_our_own_echo_are_no_objection() {
        let own = arp(ArpOperation::Request, US, "0.0.0.0", "10.0.0.5");
        let asks = arp(ArpOperation::Request, THEM, "10.0.0.7", "10.0.0.5");
        assert_eq!(run("10.0.0.5", 0, &[(1, own), (2, asks)]).verdict, "free");
    }
}
