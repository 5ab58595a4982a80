//! UDP behind a limit on ICMP errors: "port unreachable" is all that tells a closed port from an open one that
//! says nothing, and most systems send few of them. First it is found out whether there is such a limit.

use std::time::Duration;

use super::cells::{Answer, Cell};
use super::{Aim, GAP, Scan, Shot};
use crate::port::Technique;
use crate::probe::Moment;

/// Linux' limit on ICMP errors to one destination: six at once (`XRLIM_BURST_FACTOR`), then one a second.
const ICMP_BURST: u8 = 6;
/// Control questions, and how many answers to them show that there is no such limit.
const CONTROLS: (u8, u8) = (10, 8);
/// Slow asking goes a little below that.
const ICMP_SLOWEST: f64 = 0.95;

/// Whether a host limits its ICMP errors: a port that is known to be closed is asked more often at once than
/// Linux' limit lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Not asked yet.
    Unasked,
    /// This many are still to be sent to this cell; so many errors came.
    Asking { cell: u32, left: u8, heard: u8 },
    /// Until then errors are awaited.
    Waiting { cell: u32, heard: u8, until: Moment },
    /// It does, so what is silent is asked slowly.
    Limited,
    /// It does not: silence is silence.
    Free,
}

impl Scan {
    /// UDP: a host that sends ICMP errors may hold most of them back, so what is silent is asked once more at a
    /// pace that its limit allows.
    pub(super) fn slow_candidate(&mut self, now: Moment) -> Option<Shot> {
        if self.plan.technique != Technique::Udp {
            return None;
        }
        if self.slow == 0 {
            self.begin_slow();
        }
        let mut found = None;
        for index in 0..self.hosts.len() {
            if found.is_some() {
                break;
            }
            found = self.control_candidate(index, now);
            let host = &mut self.hosts[index];
            while found.is_none() && host.limit == Limit::Limited && now >= host.next_slow {
                let Some(cell) = host.slow.pop_front() else { break };
                if self.cells[cell as usize].answer.is_some() {
                    self.slow -= 1;
                    continue;
                }
                let seconds = host.first_sent.map_or(1.0, |first| now.since(first).as_secs_f64().max(0.5));
                let steady = f64::from(host.errors) - f64::from(ICMP_BURST);
                let rate = (steady / seconds * 0.5).clamp(ICMP_SLOWEST, 1000.0);
                host.next_slow = now + Duration::try_from_secs_f64(1.0 / rate).unwrap_or(GAP.1);
                self.cells[cell as usize].slow_tries += 1;
                found = Some(cell);
            }
        }
        let (host, port) = self.split(found?);
        Some(Shot { host, aim: Aim::Port(port), number: 0 })
    }

    /// Lines up what may have been hidden by a limit. As long as fewer errors came than Linux lets pass at once,
    /// none can have been.
    fn begin_slow(&mut self) {
        let mut kept = Vec::new();
        for cell in std::mem::take(&mut self.given_up) {
            let host = self.split(cell).0 as usize;
            let hidden = self.hosts[host].errors >= u32::from(ICMP_BURST) && self.hosts[host].limit != Limit::Free;
            if hidden && !self.is_over(cell) && self.cells[cell as usize].slow_tries < 2 {
                self.hosts[host].slow.push_back(cell);
                self.slow += 1;
            } else {
                kept.push(cell);
            }
        }
        self.given_up = kept;
    }

    /// The control questions to a host, and what follows from their answers.
    fn control_candidate(&mut self, index: usize, now: Moment) -> Option<u32> {
        let gap = self.gap(&self.hosts[index]);
        let ports = self.plan.ports.len();
        let host = &mut self.hosts[index];
        if host.slow.is_empty() {
            return None;
        }
        if host.limit == Limit::Unasked {
            let cells = self.cells.iter().enumerate().skip(index * ports).take(ports);
            let closed = |cell: &Cell| {
                let evidence = cell.answer.and_then(|at| self.evidence.get(at as usize));
                evidence.is_some_and(|evidence| matches!(evidence.answer, Answer::Icmp { .. }))
            };
            let found = cells.filter(|(_, cell)| closed(cell)).find_map(|(at, _)| u32::try_from(at).ok());
            host.limit = found.map_or(Limit::Limited, |cell| Limit::Asking { cell, left: CONTROLS.0, heard: 0 });
        }
        match host.limit {
            Limit::Asking { cell, left: 0, heard } => {
                host.limit = Limit::Waiting { cell, heard, until: now + gap * 3 / 2 };
                host.next_slow = now + gap * 3 / 2;
                None
            }
            Limit::Asking { cell, left, heard } => {
                host.limit = Limit::Asking { cell, left: left - 1, heard };
                Some(cell)
            }
            Limit::Waiting { heard, until, .. } if heard >= CONTROLS.1 || now >= until => {
                if heard >= CONTROLS.1 {
                    host.limit = Limit::Free;
                    self.slow -= host.slow.len();
                    self.given_up.extend(host.slow.drain(..));
                } else {
                    // The bucket is empty now: it gets its time.
                    host.limit = Limit::Limited;
                    host.next_slow = now + Duration::from_millis(1100);
                }
                None
            }
            _ => None,
        }
    }

    pub(super) fn slow_expired(&mut self, cell: u32) {
        let host = self.split(cell).0 as usize;
        if self.cells[cell as usize].slow_tries < 2 {
            self.hosts[host].slow.push_back(cell);
        } else {
            self.slow -= 1;
            self.given_up.push(cell);
        }
    }
}
