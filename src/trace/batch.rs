//! A round of probes whose answers are wanted together: sent at once, lost ones again, silence waited for once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Patience;
use super::result::Answer;
use crate::probe::{Event, Moment, Outcome, PathProbe, Plan, ProbeKind, ProbeSpec};
use crate::wire::HexBytes;

/// Longer than anything waits.
const KEPT: Duration = Duration::from_secs(60);
/// Probes under way at a time.
const UNDER_WAY: usize = 256;

/// One probe of a round.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// What is sent.
    pub(super) probe: PathProbe,
    /// How often at most.
    pub(super) tries: u8,
    /// Not before this moment.
    pub(super) not_before: Moment,
    /// What came back.
    pub(super) answer: Option<Answer>,
    /// This host did not send it: the errno's name.
    pub(super) error: Option<String>,
    sent: u8,
    last_sent: Option<Moment>,
    waiting: bool,
}

impl Item {
    /// To be sent now, at most so often.
    pub(super) fn new(probe: PathProbe, tries: u8) -> Self {
        Self {
            probe,
            tries,
            not_before: Moment(0),
            answer: None,
            error: None,
            sent: 0,
            last_sent: None,
            waiting: false,
        }
    }

    fn is_over(&self) -> bool {
        self.answer.is_some() || self.error.is_some() || (self.sent >= self.tries && !self.waiting)
    }
}

/// A round.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its probes.
    pub(super) items: Vec<Item>,
    /// How long one is waited for.
    pub(super) patience: Patience,
    ids: HashMap<u32, usize>,
    packets: HashMap<u32, HexBytes>,
    next_id: u32,
    dst: IpAddr,
    raw: bool,
    via: Option<String>,
}

impl Batch {
    /// An empty round, which is over.
    pub(super) fn new(dst: IpAddr, raw: bool, via: Option<String>, patience: Patience) -> Self {
        Self { items: Vec::new(), patience, ids: HashMap::new(), packets: HashMap::new(), next_id: 0, dst, raw, via }
    }

    /// Ids of its probes count from here.
    pub(super) fn first_id(&mut self, id: u32) {
        self.next_id = id;
    }

    /// Begins another round; answers to the one before are strays from now on.
    pub(super) fn begin(&mut self, items: Vec<Item>) {
        self.ids.clear();
        self.packets.clear();
        self.items = items;
    }

    /// Whether every probe was answered, or waited for long enough.
    pub(super) fn is_over(&self) -> bool {
        self.items.iter().all(Item::is_over)
    }

    /// Something happened.
    pub(super) fn heard(&mut self, event: &Event, now: Moment) {
        let (Event::Sent { id, .. } | Event::Reply { id, .. } | Event::Done { id, .. }) = event;
        let Some(item) = self.ids.get(id).and_then(|index| self.items.get_mut(*index)) else { return };
        match event {
            Event::Sent { packet, .. } => {
                item.last_sent = Some(now);
                self.packets.extend(packet.clone().map(|packet| (*id, packet)));
            }
            Event::Reply { reply, .. } if reply.is_conclusive() && item.answer.is_none() => {
                let answer = super::answer(reply, self.dst, self.packets.get(id), self.raw);
                if let Some(rtt) = answer.as_ref().and_then(|answer| answer.rtt_ms) {
                    self.patience.add(Duration::from_secs_f64(rtt.clamp(0.0, 60_000.0) / 1000.0));
                }
                item.waiting &= answer.is_none();
                item.answer = answer;
            }
            Event::Done { outcome: Outcome::LocalError, local_error, .. } => {
                item.waiting = false;
                item.error = Some(local_error.clone().unwrap_or_default());
            }
            _ => {}
        }
    }

    /// What is to be sent now, and when to be asked again.
    pub(super) fn plan(&mut self, now: Moment) -> Plan {
        let mut plan = Plan::default();
        let wait = self.patience.hop();
        let mut under_way = 0;
        for item in self.items.iter_mut().filter(|item| item.waiting) {
            match item.last_sent {
                Some(sent) if now >= sent + wait => item.waiting = false,
                sent => {
                    under_way += 1;
                    plan.wake = [plan.wake, sent.map(|sent| sent + wait)].into_iter().flatten().min();
                }
            }
        }
        for (index, item) in self.items.iter_mut().enumerate() {
            if item.waiting || item.is_over() || under_way >= UNDER_WAY {
                continue;
            }
            if item.not_before > now {
                plan.wake = [plan.wake, Some(item.not_before)].into_iter().flatten().min();
                continue;
            }
            item.sent += 1;
            (item.waiting, item.last_sent) = (true, None);
            under_way += 1;
            self.ids.insert(self.next_id, index);
            let spec = ProbeSpec::new(self.next_id, ProbeKind::Path(item.probe)).timeout(KEPT);
            plan.send.push(ProbeSpec { via: self.via.clone(), ..spec });
            self.next_id = self.next_id.wrapping_add(1);
        }
        plan
    }
}
