//! The agent's side: reachwhy, run at a vantage, answering the doctor's questions.

use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::time::Duration;

use super::protocol::{Answer, Ask, TryPlan};
use super::remedy::Remedy;
use crate::doctor::case::{After, ByProxy, Trial, Watch};
use crate::doctor::{Scheme, Target};
use crate::host::{LadderSpec, LadderTransport, RouteAnswer, RouteKind, RouteResult};
use crate::os;
use crate::os::capture::Capture;
use crate::os::drops::DropWatch;
use crate::os::exchange::Held;
use crate::os::gather::Part;
use crate::os::netlink::NetlinkError;
use crate::os::nft::Ladder;
use crate::probe::{CapturedFrame, Flow, FlowFilter, ProbeReport, ProbeSpec};
use crate::wire::protocol;

/// Frames that are kept of a trial.
const FRAMES: usize = 2000;

/// When a conversation is not over by then, other addresses are tried beside it.
const HOPELESS: Duration = Duration::from_secs(1);
/// How long they are waited for.
const OTHERS: Duration = Duration::from_millis(600);

/// What an agent holds between two questions.
#[derive(Default)]
struct Desk {
    ladder: Option<Ladder>,
    capture: Option<Capture>,
    frames: Vec<CapturedFrame>,
    unseen: Vec<String>,
    changed: Vec<String>,
    held: Option<Held>,
    drops: Option<DropWatch>,
    traced: Vec<String>,
    remedy: Option<Remedy>,
    /// How this program came here, where it was copied.
    pushed: Option<String>,
}

/// Answers questions until the input ends.
///
/// # Errors
/// When the output closes under it, or the input cannot be read.
pub fn serve(input: impl BufRead, mut output: impl Write, pushed: Option<String>) -> std::io::Result<()> {
    let mut desk = Desk { pushed, ..Desk::default() };
    for line in input.lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(ask) => desk.answer(ask),
            Err(error) => Answer::Failed { why: format!("the question cannot be read: {error}") },
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        output.write_all(&line)?;
        output.flush()?;
    }
    Ok(())
}

/// An agent for a doctor that came from outside: it is told what there is and may watch one flow;
/// it changes nothing and sends nothing.
#[derive(Default)]
pub struct Guest {
    desk: Desk,
    agreed: Option<Target>,
}

impl Guest {
    /// With the target that was agreed on; `None`: any.
    pub fn new(agreed: Option<Target>) -> Self {
        Self { desk: Desk::default(), agreed }
    }

    /// Answers one line.
    pub fn answer(&mut self, line: &str) -> Vec<u8> {
        let answer = match serde_json::from_str(line) {
            Ok(ask) => match self.refusal(&ask) {
                None => self.desk.answer(ask),
                Some(why) => Answer::Failed { why: why.to_owned() },
            },
            Err(error) => Answer::Failed { why: format!("the question cannot be read: {error}") },
        };
        serde_json::to_vec(&answer).unwrap_or_else(|_| b"{}".to_vec())
    }

    fn refusal(&self, ask: &Ask) -> Option<&'static str> {
        match ask {
            Ask::Hello | Ask::Facts | Ask::Route { .. } | Ask::Seen | Ask::WatchDrops | Ask::Drops | Ask::Remove => {
                None
            }
            Ask::Watch { flow } => {
                let agreed = self.agreed.as_ref().is_none_or(|target| {
                    let transport = match target.scheme {
                        Scheme::Host => LadderTransport::Icmp,
                        Scheme::Udp => LadderTransport::Udp,
                        Scheme::Tcp | Scheme::Http | Scheme::Https => LadderTransport::Tcp,
                    };
                    transport == flow.transport
                        && target.port == flow.port
                        && target.numeric().is_none_or(|address| address == flow.server)
                });
                (!agreed).then_some("another target was agreed on")
            }
            _ => Some("a doctor that serves is looked at; it changes nothing and sends nothing"),
        }
    }
}

impl Desk {
    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Hello => Answer::Hello { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() },
            Ask::Facts => Answer::Facts(Box::new(os::gather::gather(&os::gather::GatherOptions::default()))),
            Ask::Route { to, from } => match route(to, from) {
                Ok(route) => Answer::Route(route),
                Err(error) => Answer::Failed { why: error.to_string() },
            },
            Ask::Resolve { name } => Answer::Resolved(super::names::resolve(name)),
            Ask::Watch { flow } => {
                self.watch(&flow);
                Answer::Done
            }
            Ask::Try(plan) => Answer::Trial(Box::new(self.try_it(*plan))),
            Ask::Probe { specs } => Answer::Probed(self.probe(&specs)),
            Ask::Seen => Answer::Seen(Box::new(self.seen())),
            Ask::WatchDrops => {
                // It takes more rights than anything else here, and other evidence stands in for it.
                self.drops = DropWatch::start().ok();
                Answer::Watching(self.drops.is_some())
            }
            Ask::Drops => {
                let watch = self.drops.take();
                self.traced.extend(watch.as_ref().map(|watch| watch.name().to_owned()));
                Answer::Dropped(watch.map(DropWatch::finish))
            }
            Ask::Remove => Answer::Removed { changed: self.remove() },
            Ask::Apply(order) if self.remedy.is_none() => {
                let (remedy, answer) = Remedy::apply(&order);
                self.remedy = remedy;
                answer
            }
            Ask::Apply(_) => Answer::Failed { why: "another change is on trial".to_owned() },
            Ask::Settle { keep } => match self.remedy.take() {
                Some(remedy) => remedy.settle(keep),
                None => Answer::Failed { why: "no change is on trial".to_owned() },
            },
        }
    }

    /// Each instrument stands alone: what cannot be put up is said, and the others still see.
    fn watch(&mut self, flow: &LadderSpec) {
        match Ladder::install(flow) {
            Ok(ladder) => {
                self.changed.push(format!("added the counting table {}", ladder.table()));
                self.ladder = Some(ladder);
            }
            Err(error) => self.unseen.push(format!("hook ladder: {error}")),
        }
        match Capture::open(None, &filter(flow)) {
            Ok(capture) => self.capture = Some(capture),
            Err(error) => self.unseen.push(format!("capture: {error}")),
        }
    }

    fn try_it(&mut self, plan: TryPlan) -> Trial {
        let exchange = plan.exchange;
        let side: Vec<ProbeSpec> = plan.neighbour.iter().chain(&plan.echo).cloned().collect();
        let proxy = plan.proxy.as_ref();
        let (held, mut reports, others, by_proxy) = std::thread::scope(|scope| {
            let by_proxy = proxy.map(|plan| scope.spawn(|| os::exchange::run(plan).report));
            let (tell, hear) = std::sync::mpsc::channel();
            let talk = exchange.as_ref().map(|plan| {
                scope.spawn(move || {
                    let held = os::exchange::run(plan);
                    // Nobody hears it where there are no other addresses.
                    let _ = tell.send(held.report.served());
                    held
                })
            });
            let others = exchange.as_ref().filter(|_| !plan.others.is_empty()).map(|talk| {
                let (port, addresses) = (talk.to.port(), &plan.others);
                scope.spawn(move || {
                    if hear.recv_timeout(HOPELESS) == Ok(true) {
                        return Vec::new();
                    }
                    os::dns::compare::connects_at_once(addresses, port, OTHERS)
                })
            });
            let reports = self.probe(&side);
            (
                talk.and_then(|talk| talk.join().ok()),
                reports,
                others.and_then(|others| others.join().ok()),
                by_proxy.and_then(|by| by.join().ok()),
            )
        });
        let by_proxy =
            by_proxy.map(|report| ByProxy { variable: String::new(), value: String::new(), report: Some(report) });
        let report = held.as_ref().map(|held| held.report.clone());
        self.held = held;
        let asked =
            plan.neighbour.as_ref().and_then(|spec| Some((spec, reports.iter().find(|one| one.id == spec.id)?)));
        let stations = asked.map(|(spec, report)| super::stations::look(spec, report)).unwrap_or_default();
        let mut take = |spec: &Option<ProbeSpec>| {
            let id = spec.as_ref()?.id;
            let at = reports.iter().position(|report| report.id == id)?;
            Some(reports.swap_remove(at))
        };
        let (neighbour, echo) = (take(&plan.neighbour), take(&plan.echo));
        let others = others.unwrap_or_default();
        Trial {
            exchange: report,
            neighbour,
            echo,
            again: None,
            hops: Vec::new(),
            others,
            by_proxy,
            stations,
            sizes: Vec::new(),
        }
    }

    fn probe(&mut self, specs: &[ProbeSpec]) -> Vec<ProbeReport> {
        if specs.is_empty() {
            return Vec::new();
        }
        // A second owner of an address answers within a link's round trip or two of the first.
        let options = os::probe::RunOptions { neighbour_grace: Duration::from_millis(25), ..Default::default() };
        // One kind that needs a privilege we lack must not take the others with it.
        let mut reports = Vec::new();
        match os::probe::run(specs.to_vec(), &options, &mut |_| {}) {
            Ok(run) => reports = run.probes,
            Err(_) => {
                for spec in specs {
                    match os::probe::run(vec![spec.clone()], &options, &mut |_| {}) {
                        Ok(run) => reports.extend(run.probes),
                        Err(error) => self.unseen.push(format!("probe: {error}")),
                    }
                }
            }
        }
        reports
    }

    fn seen(&mut self) -> Watch {
        let ladder = self.ladder.as_mut().and_then(|ladder| match ladder.read() {
            Ok(rungs) => Some(rungs),
            Err(error) => {
                self.unseen.push(format!("hook ladder: {error}"));
                None
            }
        });
        let mut frames_lost = 0;
        let frames = self.capture.as_mut().map(|capture| {
            self.frames.extend(capture.drain());
            frames_lost = capture.drops();
            // A download needs no more witnesses than this, and each travels to the doctor.
            let beyond = self.frames.len().saturating_sub(FRAMES);
            self.frames.truncate(FRAMES);
            frames_lost += beyond as u64;
            self.frames.clone()
        });
        let facts = os::gather::gather(&os::gather::GatherOptions::only([
            Part::Counters,
            Part::Sockets,
            Part::Neighbours,
            Part::Firewall,
        ]));
        Watch {
            ladder,
            frames,
            frames_lost,
            after: Some(After {
                counters: facts.counters,
                sockets: facts.sockets,
                neighbours: facts.neighbours,
                firewall: facts.firewall,
            }),
            drops: None,
            changed: Vec::new(),
            unseen: self.unseen.clone(),
        }
    }

    fn remove(&mut self) -> Vec<String> {
        self.held = None;
        self.drops = None;
        // The next round begins with nothing.
        self.frames.clear();
        self.unseen.clear();
        let mut changed = std::mem::take(&mut self.changed);
        let (capture, ladder) = (self.capture.take(), self.ladder.take());
        // Each waits for the kernel to be done with it (RCU), so they wait together.
        let removed = std::thread::scope(|scope| {
            scope.spawn(move || drop(capture));
            ladder.map(Ladder::remove)
        });
        if let Some(removed) = removed {
            let fate = match removed {
                Ok(()) => "removed again".to_owned(),
                Err(error) => format!("it could not be removed ({error}) and goes when the agent ends"),
            };
            for change in &mut changed {
                *change = format!("{change}; {fate}");
            }
        }
        changed.extend(self.traced.drain(..).map(|name| format!("added the tracing instance {name}; removed again")));
        changed.extend(self.pushed.clone());
        changed
    }
}

/// The flow itself, the ICMP errors about it, and the address requests around it.
fn filter(flow: &LadderSpec) -> FlowFilter {
    let protocol = match (flow.transport, flow.server.is_ipv4()) {
        (LadderTransport::Tcp, _) => protocol::TCP,
        (LadderTransport::Udp, _) => protocol::UDP,
        (LadderTransport::Icmp, true) => protocol::ICMP,
        (LadderTransport::Icmp, false) => protocol::ICMPV6,
    };
    let both = Flow { protocol: Some(protocol), b_port: flow.port, ..Flow::between(flow.client, flow.server) };
    FlowFilter { neighbours: true, ..FlowFilter::flow(both) }
}

/// As connect(2) looks: once for a source address, then again with it, when policy rules on the
/// source may decide otherwise (`ip_route_connect`, include/net/route.h).
fn route(to: IpAddr, from: Option<IpAddr>) -> Result<RouteAnswer, NetlinkError> {
    let get = |from| os::route_get::route_get(to, from, None, None, None, None);
    let first = get(from)?;
    match &first.result {
        RouteResult::Found { source: Some(source), kind, .. } if from.is_none() && *kind != RouteKind::Local => {
            let second = get(Some(*source))?;
            // The second answer names no source, having been given one: the first one stays, unless refused.
            Ok(if matches!(second.result, RouteResult::Refused { .. }) { second } else { first })
        }
        _ => Ok(first),
    }
}

/// How long a whole trial may take beyond its own limits before the agent is given up.
pub const SLACK: Duration = Duration::from_secs(10);
