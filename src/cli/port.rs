//! `reachwhy port HOST PORTS`.

mod rounds;
mod targets;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Exit, Failure, Global};
use crate::os::scan::near::{Standing, standings};
use crate::os::scan::{self, Request, ScanError};
use crate::os::{files, interrupt, probe};
use crate::port::Technique;
use crate::port::judge::HostCase;
use crate::port::list::PortList;
use crate::port::locate::Located;
use crate::port::report::{HostReport, State};
use crate::port::scan::{HostSeen, Progress as Done, Scan};
use crate::port::services::Services;
use crate::view::{self, Progress, Style};

use targets::Target;

/// Of more hosts than these, those that are down are only counted.
const FEW: usize = 8;

/// Which ports of which hosts, and how to ask.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "reachwhy port [OPTIONS] HOST... PORTS",
    after_help = "HOST: a name, an address, 10.0.0.0/24, 10.0.0.1-20, @FILE\n\
    PORTS: 22,80,8000-8100, - (all), -1024, 60000-, service names, http*, @FILE\n\
    Without a technique: SYN where raw sockets may be opened, else connect.\n\
    Exit: 0 all ports are open (ACK: unfiltered), 1 some are not, 2 bad usage or input, 3 could not find out"
)]
pub(super) struct PortArgs {
    /// The hosts, then the ports
    #[arg(required = true, num_args = 1.., allow_negative_numbers = true, value_name = "HOST... PORTS")]
    words: Vec<String>,
    /// SYN scan: half-open, needs raw sockets
    #[arg(long, group = "technique", help_heading = "Techniques")]
    syn: bool,
    /// Connect as an application does; needs no privilege
    #[arg(long, group = "technique", help_heading = "Techniques")]
    connect: bool,
    /// UDP, with a question that the usual service of the port answers
    #[arg(long, group = "technique", help_heading = "Techniques")]
    udp: bool,
    /// ACK: is there a stateful filter?
    #[arg(long, group = "technique", help_heading = "Techniques")]
    ack: bool,
    /// FIN alone
    #[arg(long, group = "technique", help_heading = "Techniques")]
    fin: bool,
    /// No flag at all
    #[arg(long, group = "technique", help_heading = "Techniques")]
    null: bool,
    /// FIN, PSH and URG
    #[arg(long, group = "technique", help_heading = "Techniques")]
    xmas: bool,
    /// Read hosts from a file (- is standard input), beside those named
    #[arg(long, value_name = "FILE")]
    hosts: Vec<PathBuf>,
    /// Use IPv4 addresses of names
    #[arg(short = '4', conflicts_with = "v6")]
    v4: bool,
    /// Use IPv6 addresses of names
    #[arg(short = '6')]
    v6: bool,
    /// Show open ports alone
    #[arg(long)]
    open: bool,
    /// Speak with open TCP ports: banner, TLS certificate, HTTP status
    #[arg(long, conflicts_with_all = ["udp", "ack", "fin", "null", "xmas"])]
    banner: bool,
    /// Do not look for the hop that refuses or drops
    #[arg(long)]
    no_locate: bool,
    /// Never send more probes a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Ask a silent port at most so often; by itself this follows the loss that is seen
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=15))]
    tries: u8,
    /// Wait until all the ports are open, at most so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "86400",
        value_parser = super::seconds,
        conflicts_with = "watch"
    )]
    wait: Option<Duration>,
    /// Ask again and again, and tell what changes
    #[arg(long)]
    watch: bool,
    /// Time between two rounds of --watch or --wait
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    interval: Option<Duration>,
    /// End --watch after so many rounds
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
}

/// The technique, and what to tell about its choice.
struct Choice {
    technique: Technique,
    note: Option<String>,
}

impl PortArgs {
    fn choice(&self) -> Choice {
        let named = [
            (self.syn, Technique::Syn),
            (self.connect, Technique::Connect),
            (self.udp, Technique::Udp),
            (self.ack, Technique::Ack),
            (self.fin, Technique::Fin),
            (self.null, Technique::Null),
            (self.xmas, Technique::Xmas),
        ];
        if let Some((_, technique)) = named.into_iter().find(|(given, _)| *given) {
            return Choice { technique, note: None };
        }
        if scan::may_send_raw() {
            return Choice { technique: Technique::Syn, note: None };
        }
        let note = "raw sockets need CAP_NET_RAW, so ports are asked by connect(): no TTLs, no TTL sweep";
        Choice { technique: Technique::Connect, note: Some(note.to_owned()) }
    }
}

/// Everything that a round needs.
struct Job<'a> {
    args: &'a PortArgs,
    targets: Vec<Target>,
    ports: Vec<u16>,
    technique: Technique,
    services: std::rc::Rc<Services>,
    timeout: Option<Duration>,
    stop: &'static AtomicBool,
}

/// Totals of one round.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    sent: u64,
    elapsed: Duration,
    loss: Option<f64>,
    partial: bool,
    wrong: bool,
    unknown: bool,
}

/// Reads the request, asks, shows.
pub(super) fn run(args: &PortArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let services = Services::with_file(files::read_text("/etc/services").text.as_deref().unwrap_or_default());
    let choice = args.choice();
    let (host_words, port_word) = targets::split(&args.words, !args.hosts.is_empty())?;
    let port_text = targets::port_text(port_word)?;
    let ports = PortList::parse(&port_text, choice.technique == Technique::Udp, &services)
        .map_err(|error| Failure::usage(&error, error.hint.as_deref()))?;
    let family = if args.v4 { Some(false) } else { args.v6.then_some(true) };
    let targets = targets::read(&host_words, &args.hosts, family)?;
    if let (Some(note), false) = (&choice.note, global.json) {
        std::io::stderr().write_all(format!("note: {note}\n").as_bytes())?;
    }
    let stop = interrupt::flag();
    let job = Job {
        args,
        targets,
        ports: ports.0,
        technique: choice.technique,
        services: services.into(),
        timeout: global.timeout,
        stop,
    };
    if args.watch {
        return rounds::watch(&job, global, style);
    }
    if let Some(limit) = args.wait {
        return rounds::wait(&job, limit, global, style);
    }
    let many = job.targets.len() > 1;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut first = true;
    let mut absent = 0usize;
    let sum = job.round(!global.json, &mut |report| {
        if global.json {
            if many {
                serde_json::to_writer(&mut out, &report)?;
            } else {
                serde_json::to_writer_pretty(&mut out, &report)?;
            }
            out.write_all(b"\n")?;
        } else if job.targets.len() > FEW && report.host_up == Some(false) && global.verbose == 0 {
            absent += 1;
        } else {
            if !std::mem::take(&mut first) {
                writeln!(out)?;
            }
            let options = view::port::Options { open_only: args.open, all: global.verbose > 0 };
            view::port::host(&mut out, &report, options, style)?;
        }
        out.flush()?;
        Ok(())
    })?;
    if !global.json {
        view::port::absent(&mut out, absent)?;
        view::port::sum(&mut out, sum.sent, sum.elapsed, sum.loss, sum.partial, style)?;
    }
    out.flush()?;
    Ok(sum.exit())
}

impl Sum {
    fn exit(self) -> u8 {
        if self.wrong {
            Exit::Problem.code()
        } else if self.unknown || self.partial {
            Exit::Unknown.code()
        } else {
            0
        }
    }

    fn add(&mut self, report: &HostReport) {
        use State::{Closed, Filtered, OpenOrFiltered};
        let down = report.host_up == Some(false);
        self.wrong |= down || report.ports.iter().any(|port| matches!(port.state, Closed | Filtered));
        self.unknown |= report.not_asked > 0 || report.ports.iter().any(|port| port.state == OpenOrFiltered);
    }
}

fn failed(error: &ScanError) -> anyhow::Error {
    match error {
        ScanError::Privilege { hint, .. } => {
            Failure::unknown(error, Some(&format!("{hint}, or --connect, which needs no privilege")))
        }
        ScanError::System { .. } => Failure::unknown(error, None),
    }
}

impl Job<'_> {
    fn copy(&self) -> Self {
        Self {
            targets: self.targets.clone(),
            ports: self.ports.clone(),
            services: std::rc::Rc::clone(&self.services),
            ..*self
        }
    }

    /// Asks all hosts once, in groups that fit into memory, and hands out each host's report.
    fn round(&self, show: bool, tell: &mut dyn FnMut(HostReport) -> anyhow::Result<()>) -> anyhow::Result<Sum> {
        let mut sum = Sum::default();
        let mut progress = Progress::new(std::io::stderr(), std::io::stderr().is_terminal() && show);
        let group = (Scan::MOST / self.ports.len().max(1)).clamp(1, 1024);
        let count = self.targets.len();
        for (at, targets) in self.targets.chunks(group).enumerate() {
            let before = at * group;
            let mut told = view::port::Pace::default();
            let mut say = |done: &Done, elapsed: Duration| {
                progress.say(&told.line(done, elapsed, before, targets.len(), count));
            };
            let reports = self.group(targets, &mut sum, &mut say)?;
            progress.clear();
            for report in reports {
                sum.add(&report);
                tell(report)?;
            }
            if self.stop.load(Ordering::Relaxed) {
                sum.partial = true;
                break;
            }
        }
        Ok(sum)
    }

    fn group(
        &self,
        targets: &[Target],
        sum: &mut Sum,
        say: &mut dyn FnMut(&Done, Duration),
    ) -> anyhow::Result<Vec<HostReport>> {
        let raw = self.technique != Technique::Connect && scan::may_send_raw();
        if !raw && !matches!(self.technique, Technique::Connect | Technique::Udp) {
            let hint = scan::setcap_hint();
            return Err(failed(&ScanError::Privilege { technique: self.technique.name(), hint }));
        }
        let addresses: Vec<_> = targets.iter().map(|target| (target.address, target.via.clone())).collect();
        let standing = standings(&addresses, raw, self.stop);
        // Who does not answer for its address on its own link cannot be sent anything.
        let asked: Vec<usize> = (0..targets.len()).filter(|at| standing[*at].neighbour != Some(false)).collect();
        let near = asked.iter().all(|at| standing[*at].nearness != crate::port::judge::Nearness::Routed);
        let request = Request {
            hosts: asked.iter().map(|at| (targets[*at].address, targets[*at].link)).collect(),
            ports: self.ports.clone(),
            technique: self.technique,
            rate: self.args.rate,
            tries: self.args.tries,
            timeout: self.timeout,
            near,
            present: asked.iter().map(|at| standing[*at].neighbour == Some(true)).collect(),
        };
        let start = crate::os::clock::monotonic_ns();
        let mut on_progress = |done: &Done| {
            say(done, Duration::from_nanos(crate::os::clock::monotonic_ns().saturating_sub(start)));
        };
        let outcome = scan::run(&request, self.stop, &mut on_progress).map_err(|error| failed(&error))?;
        sum.sent += outcome.sent;
        sum.elapsed += outcome.elapsed;
        sum.loss = outcome.loss.or(sum.loss);
        sum.partial |= outcome.partial;
        let mut seen: Vec<Option<HostSeen>> = targets.iter().map(|_| None).collect();
        for (at, one) in asked.iter().zip(outcome.hosts) {
            seen[*at] = Some(one);
        }
        let mut reports = Vec::with_capacity(targets.len());
        for ((target, standing), seen) in targets.iter().zip(standing).zip(seen) {
            let seen = seen.unwrap_or_else(|| HostSeen {
                silent: (0..u32::try_from(self.ports.len()).unwrap_or(0)).collect(),
                ..HostSeen::default()
            });
            reports.push(self.report(target, standing, &seen, outcome.partial, targets.len()));
        }
        Ok(reports)
    }

    fn report(&self, target: &Target, standing: Standing, seen: &HostSeen, partial: bool, hosts: usize) -> HostReport {
        let case = HostCase {
            name: &target.name,
            address: target.address,
            via: target.via.as_deref(),
            technique: self.technique,
            ports: &self.ports,
            seen,
            nearness: standing.nearness,
            neighbour: standing.neighbour,
            partial,
        };
        // Sweeps of many hosts would take longer than the scan.
        let wanted = !self.args.no_locate && hosts <= 8 && !self.stop.load(Ordering::Relaxed);
        let plan = if wanted && scan::may_send_raw() { case.sweep() } else { None };
        let located = plan.map_or_else(Located::default, |plan| {
            let options = probe::RunOptions { cancel: Some(self.stop), ..probe::RunOptions::default() };
            probe::run(plan.specs(), &options, &mut |_| {}).map_or_else(|_| Located::default(), |run| plan.read(&run))
        });
        let mut report = case.judge(&located, &self.services);
        if self.args.banner && !partial {
            scan::banner::ask(&mut report, target.address, target.link, &target.name, self.timeout, self.stop);
        }
        report
    }
}
