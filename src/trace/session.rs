//! Several traces over one engine.

use super::{Trace, TraceRequest, Tracer};
use crate::probe::{Conductor, Event, Moment, Outcome, PathMethod, PathNeeds, Plan, ProbeKind, ProbeSpec};

/// Longer than anything waits: what comes later still finds its probe.
const KEPT: std::time::Duration = std::time::Duration::from_secs(60);
/// Probes under way at a time, over all traces.
const UNDER_WAY: usize = 768;

/// Is told when a trace has news: its number, and the trace.
pub type Progress<'a> = dyn FnMut(usize, &Tracer, Moment) + 'a;

/// Conducts traces over the probe engine.
pub struct Session<'a> {
    tracers: Vec<Tracer>,
    /// Which probe of which trace an id is.
    ids: Vec<(usize, usize)>,
    progress: Box<Progress<'a>>,
    now: Moment,
}

impl<'a> Session<'a> {
    /// One trace for each request, all at once.
    pub fn new(requests: Vec<TraceRequest>, raw: bool, sides: &[PathMethod], progress: Box<Progress<'a>>) -> Self {
        let window = (UNDER_WAY / requests.len().max(1)).clamp(4, 24);
        let tracer = |request: TraceRequest| {
            let others = sides.iter().filter(|side| side.name() != request.method.name()).copied().collect();
            Tracer::new(request, raw, others, window)
        };
        Self { tracers: requests.into_iter().map(tracer).collect(), ids: Vec::new(), progress, now: Moment(0) }
    }

    /// Which sockets the probes need.
    pub fn needs(&self, sides: &[PathMethod]) -> Vec<PathNeeds> {
        let mut needs = Vec::new();
        for request in self.tracers.iter().map(Tracer::request) {
            for method in std::iter::once(request.method).chain(sides.iter().copied()) {
                let need = PathNeeds { v6: request.dst.is_ipv6(), method };
                if !needs.contains(&need) {
                    needs.push(need);
                }
            }
        }
        needs
    }

    /// The traces.
    pub fn tracers(&self) -> &[Tracer] {
        &self.tracers
    }

    /// Ends all that are still under way; gives all results.
    pub fn finish(&mut self) -> Vec<Trace> {
        let now = self.now;
        self.tracers.iter_mut().for_each(|tracer| tracer.stop(now));
        self.tracers.iter().map(|tracer| tracer.result(now)).collect()
    }
}

impl Conductor for Session<'_> {
    fn heard(&mut self, event: &Event, now: Moment) {
        self.now = self.now.max(now);
        let (Event::Sent { id, .. } | Event::Reply { id, .. } | Event::Done { id, .. }) = event;
        let Some((trace, number)) = self.ids.get(*id as usize).copied() else { return };
        let tracer = &mut self.tracers[trace];
        match event {
            Event::Sent { packet, .. } => tracer.sent(number, packet.clone(), now),
            Event::Reply { reply, .. } => tracer.heard(number, reply, now),
            Event::Done { outcome: Outcome::LocalError, local_error, .. } => {
                tracer.not_sent(number, local_error.as_deref().unwrap_or("unknown"), now);
            }
            Event::Done { .. } => {}
        }
        if !matches!(event, Event::Sent { .. }) {
            (self.progress)(trace, &self.tracers[trace], now);
        }
    }

    fn plan(&mut self, now: Moment) -> Plan {
        self.now = self.now.max(now);
        let mut plan = Plan::default();
        for (index, tracer) in self.tracers.iter_mut().enumerate() {
            let was_done = tracer.is_done();
            for (number, probe) in tracer.plan(now) {
                let Ok(id) = u32::try_from(self.ids.len()) else { continue };
                self.ids.push((index, number));
                let via = tracer.request().via.clone();
                plan.send.push(ProbeSpec { via, ..ProbeSpec::new(id, ProbeKind::Path(probe)).timeout(KEPT) });
            }
            plan.wake = [plan.wake, tracer.wake()].into_iter().flatten().min();
            if tracer.is_done() && !was_done {
                (self.progress)(index, tracer, now);
            }
        }
        plan.done = self.tracers.iter().all(Tracer::is_done);
        plan
    }
}
