//! `reachwhy trace`: the path to a host.

mod target;
mod watch;

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use target::{Means, cannot, means, request, target};

use super::{Failure, Global};
use crate::os::asn::AsnDatabase;
use crate::os::interrupt;
use crate::os::names::Names;
use crate::os::probe::{self, RunOptions};
use crate::probe::{Moment, PathNeeds};
use crate::trace::mtu::MtuSearch;
use crate::trace::paths::PathSearch;
use crate::trace::{Session, Stopped, Trace, TraceRequest, Tracer};
use crate::view::{self, Style, trace::Labels};

/// Late names are waited for so long when all else is done.
const NAME_GRACE: Duration = Duration::from_millis(150);
/// `--paths` asks no new questions after this time: routers that limit their answers may need it.
const PATHS_BUDGET: Duration = Duration::from_secs(20);

/// Which way, and how far.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without root: datagram ICMP sockets and error queues do the work; CAP_NET_RAW shows more.\n\
    Exit: 0 reached, 1 the path ends before the destination, 2 bad usage, 3 could not find out")]
pub(super) struct TraceArgs {
    /// Host names or addresses; several are traced at once
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
    /// Probe with ICMP echo requests (the default)
    #[arg(long, group = "method")]
    icmp: bool,
    /// Probe with UDP datagrams, to --port (default 33434)
    #[arg(long, group = "method")]
    udp: bool,
    /// Probe with TCP SYNs to this port
    #[arg(long, group = "method", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    tcp: Option<u16>,
    /// Destination port of --udp
    #[arg(long, value_name = "PORT", requires = "udp", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "six")]
    four: bool,
    /// IPv6 only
    #[arg(short = '6')]
    six: bool,
    /// Probes for each hop
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    queries: u8,
    /// Look no further than this many hops
    #[arg(short, long, value_name = "TTL", default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..))]
    max_ttl: u8,
    /// Begin at this TTL
    #[arg(short, long, value_name = "TTL", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    first_ttl: u8,
    /// Do not look up the names of addresses
    #[arg(short = 'n', long)]
    numeric: bool,
    /// Octets of each IP packet
    #[arg(long, value_name = "OCTETS", value_parser = clap::value_parser!(u16).range(28..))]
    length: Option<u16>,
    /// TOS (IPv6: traffic class) of the probes, to see what becomes of DSCP and ECN
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    tos: u8,
    /// Which flow: another number has other ports, and may take another of several equal ways
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u16).range(..512))]
    flow: u16,
    /// Send from this address
    #[arg(short, long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Find the largest packet that passes each hop, and who drops larger ones in silence
    #[arg(long)]
    mtu: bool,
    /// Find every equal way, drawn as text, svg or dot (--json: the graph as data)
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    paths: Option<Drawing>,
    /// How sure --paths is to be, at each router, that no way was missed, per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0, value_parser = percent, requires = "paths")]
    confidence: f64,
    /// Teach: show each probe, what every router did with it, what came back and why
    #[arg(long, conflicts_with_all = ["paths"])]
    explain: bool,
    /// Watch the path on the screen until q is pressed
    #[arg(long, conflicts_with_all = ["paths", "mtu", "explain", "report"])]
    live: bool,
    /// Watch for --count rounds, then report as text, json, csv or md
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text",
        conflicts_with_all = ["paths", "mtu", "explain"])]
    report: Option<Report>,
    /// Rounds of --live and --report (10 for a report)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        conflicts_with_all = ["paths", "mtu", "explain"])]
    count: Option<u32>,
    /// Time between two rounds, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Show autonomous systems from this MaxMind DB file
    #[arg(long, value_name = "FILE")]
    asn_db: Option<PathBuf>,
    /// Do without raw sockets even where they may be used
    #[arg(long)]
    unprivileged: bool,
}

/// How paths are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Drawing {
    Text,
    Svg,
    Dot,
}

/// How a watched path is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Report {
    Text,
    Json,
    Csv,
    Md,
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0.01 to 3600".to_owned()),
    }
}

/// From 50 up to, but not, 100.
fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (50.0..=99.99).contains(&percent) => Ok(percent),
        _ => Err("a number from 50 to 99.99".to_owned()),
    }
}

/// Names and systems, looked up beside the trace.
pub(super) struct Lookups {
    names: Option<Names>,
    systems: Option<AsnDatabase>,
}

impl Lookups {
    fn ask(&mut self, address: IpAddr) {
        if let Some(names) = &mut self.names {
            names.ask(address);
        }
    }

    fn wait(&mut self, patience: Duration) {
        if let Some(names) = &mut self.names {
            names.wait(patience);
        }
    }
}

impl Labels for Lookups {
    fn name(&mut self, address: IpAddr) -> Option<String> {
        self.names.as_mut()?.get(address)
    }

    fn asn(&mut self, address: IpAddr) -> Option<String> {
        self.systems.as_ref()?.of(address)
    }
}

fn lookups(args: &TraceArgs) -> anyhow::Result<Lookups> {
    let open = |file: &PathBuf| {
        AsnDatabase::open(file).map_err(|error| {
            let hint = "a MaxMind DB file, as GeoLite2-ASN.mmdb or dbip-asn-lite.mmdb";
            Failure::usage(format!("cannot read {} as a database of systems: {error}", file.display()), Some(hint))
        })
    };
    let systems = args.asn_db.as_ref().map(open).transpose()?;
    Ok(Lookups { names: (!args.numeric).then(Names::default), systems })
}

pub(super) fn run(args: &TraceArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    if args.first_ttl > args.max_ttl {
        return Err(Failure::usage("the first TTL is greater than the last", Some("-f sets the first, -m the last")));
    }
    probe::begin_stamps();
    let stop = interrupt::flag();
    let targets = args.hosts.iter().map(|host| target(host, args)).collect::<anyhow::Result<Vec<_>>>()?;
    let means = means(args, &targets);
    let requests = targets
        .into_iter()
        .zip(&args.hosts)
        .map(|((dst, via), host)| request(args, global, host, dst, via, means.method))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let single = requests.len() == 1;
    let mut looked = lookups(args)?;
    if args.live {
        return watch::live(args, &requests, &means, &mut looked, style);
    }
    if let Some(format) = args.report.or(args.count.map(|_| Report::Text)) {
        return watch::report(args, global, format, requests, &means, &mut looked, style);
    }
    if let Some(drawing) = args.paths {
        return all_paths(args, global, drawing, requests, &means, &mut looked, style);
    }
    let lookups = RefCell::new(looked);
    let shown = RefCell::new(Shown { hops: 0, nameless: Vec::new(), failed: None });
    let human = !global.json && !args.explain;
    if !global.json && single {
        print(&view::trace::header(&requests[0], means.raw, style))?;
    }
    let progress = |_: usize, tracer: &Tracer, now: Moment| {
        let certain = tracer.certain(now);
        let mut lookups = lookups.borrow_mut();
        if !args.numeric {
            tracer.addresses().into_iter().for_each(|address| lookups.ask(address));
        }
        if human && single {
            shown.borrow_mut().hops(tracer, certain, &mut lookups, style);
        }
    };
    let mut session = Session::new(requests, means.raw, &means.sides, Box::new(progress));
    let needs = session.needs(&means.sides);
    let options = RunOptions { cancel: Some(stop), unprivileged: !means.raw, ..RunOptions::default() };
    probe::conduct(&mut session, &needs, &options).map_err(|error| cannot(&error))?;
    let mut traces = session.finish();
    let tracers: Vec<Tracer> = session.tracers().to_vec();
    drop(session);
    if args.mtu {
        for (trace, tracer) in traces.iter_mut().zip(&tracers) {
            measure_mtu(trace, tracer, &needs, &options)?;
        }
    }
    if let Some(error) = shown.borrow_mut().failed.take() {
        return Err(error.into());
    }
    let mut lookups = lookups.into_inner();
    lookups.wait(NAME_GRACE);
    for trace in &mut traces {
        label(trace, &mut lookups);
    }
    if global.json {
        show_json(&traces)?;
    } else if args.explain {
        for (trace, tracer) in traces.iter().zip(&tracers) {
            let lesson = view::trace::explain::lesson(trace, tracer, style, global.verbose > 0);
            print(&(lesson + &view::trace::summary(trace, style)))?;
        }
    } else {
        let shown = shown.into_inner();
        show(&traces, shown.hops, single, &mut lookups, style)?;
        let late = |address: &IpAddr| Some(format!("{address} is {}", lookups.name(*address)?));
        let late: Vec<String> = shown.nameless.iter().filter_map(late).collect();
        if !late.is_empty() {
            print(&format!("names that came later: {}\n", late.join(", ")))?;
        }
    }
    Ok(traces.iter().map(exit_code).max().unwrap_or(0))
}

fn all_paths(
    args: &TraceArgs,
    global: &Global,
    drawing: Drawing,
    requests: Vec<TraceRequest>,
    means: &Means,
    lookups: &mut Lookups,
    style: Style,
) -> anyhow::Result<u8> {
    let budget = global.timeout.unwrap_or(PATHS_BUDGET);
    let (mut code, mut traces) = (0, Vec::new());
    for request in requests {
        if !global.json && drawing == Drawing::Text {
            print(&view::trace::header(&request, means.raw, style))?;
        }
        let needs = [PathNeeds { v6: request.dst.is_ipv6(), method: request.method }];
        let options = RunOptions { cancel: Some(interrupt::flag()), unprivileged: !means.raw, ..RunOptions::default() };
        let request = TraceRequest { wait: None, ..request };
        let mut search = PathSearch::new(request, means.raw, args.confidence / 100.0, budget);
        let conducted = probe::conduct(&mut search, &needs, &options).map_err(|error| cannot(&error))?;
        let (mut trace, mut graph) = (search.trace(), search.graph());
        graph.complete &= conducted.complete;
        trace.complete &= conducted.complete;
        if let Some(names) = &mut lookups.names {
            graph.nodes.iter().filter_map(|node| node.address).for_each(|address| names.ask(address));
            names.wait(NAME_GRACE);
        }
        label(&mut trace, lookups);
        code = code.max(exit_code(&trace));
        if global.json {
            trace.paths = Some(graph.paths().0);
            trace.graph = Some(graph);
            traces.push(trace);
            continue;
        }
        print(&match drawing {
            Drawing::Text => view::trace::paths::text(&graph, lookups, style) + &view::trace::summary(&trace, style),
            Drawing::Svg => view::trace::paths::svg(&graph, &trace.target, lookups),
            Drawing::Dot => view::trace::paths::dot(&graph, lookups),
        })?;
    }
    if global.json {
        show_json(&traces)?;
    }
    Ok(code)
}

fn measure_mtu(
    trace: &mut Trace,
    tracer: &Tracer,
    needs: &[PathNeeds],
    options: &RunOptions<'_>,
) -> anyhow::Result<()> {
    let link = probe::interface_mtu(trace.source, tracer.request().via.as_deref()).unwrap_or(1500);
    let mut search = MtuSearch::new(trace, tracer.request().clone(), *tracer.patience(), link);
    let conducted = probe::conduct(&mut search, needs, options).map_err(|error| cannot(&error))?;
    search.finish(trace);
    trace.complete &= conducted.complete;
    Ok(())
}

fn show_json(traces: &[Trace]) -> anyhow::Result<()> {
    if let [trace] = traces {
        return super::print_json(trace);
    }
    let mut out = std::io::stdout().lock();
    for trace in traces {
        let mut line = serde_json::to_vec(trace)?;
        line.push(b'\n');
        out.write_all(&line)?;
    }
    out.flush()?;
    Ok(())
}

fn show(traces: &[Trace], from: usize, single: bool, lookups: &mut Lookups, style: Style) -> anyhow::Result<()> {
    let mut text = String::new();
    for trace in traces {
        if !single {
            text.push_str(&view::trace::title(trace, style));
        }
        for hop in trace.hops.iter().skip(if single { from } else { 0 }) {
            text.push_str(&view::trace::hop(hop, lookups, style));
        }
        text.push_str(&view::trace::summary(trace, style));
    }
    print(&text)
}

/// What was printed while the trace ran.
struct Shown {
    hops: usize,
    /// Addresses whose names were not there yet.
    nameless: Vec<IpAddr>,
    failed: Option<std::io::Error>,
}

impl Shown {
    fn hops(&mut self, tracer: &Tracer, certain: usize, lookups: &mut Lookups, style: Style) {
        if certain <= self.hops || self.failed.is_some() {
            return;
        }
        let mut text = String::new();
        for at in self.hops..certain {
            let ttl = tracer.request().first.saturating_add(u8::try_from(at).unwrap_or(u8::MAX));
            text.push_str(&view::trace::hop(&tracer.hop(ttl), lookups, style));
        }
        for address in (self.hops..certain).flat_map(|at| {
            tracer.hop(tracer.request().first.saturating_add(u8::try_from(at).unwrap_or(u8::MAX))).addresses()
        }) {
            if lookups.name(address).is_none() && !self.nameless.contains(&address) {
                self.nameless.push(address);
            }
        }
        self.hops = certain;
        let mut out = std::io::stdout().lock();
        self.failed = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn label(trace: &mut Trace, lookups: &mut Lookups) {
    for hop in &mut trace.hops {
        let addresses = hop.addresses();
        hop.names = addresses.iter().filter_map(|address| lookups.name(*address)).collect();
        hop.asns = addresses.iter().filter_map(|address| lookups.asn(*address)).collect();
    }
}

fn exit_code(trace: &Trace) -> u8 {
    match trace.stopped {
        Stopped::Reached => 0,
        // Nothing is known of a path of which nothing answered.
        Stopped::Silent if trace.hops.iter().all(|hop| hop.answers().next().is_none()) => 3,
        _ if !trace.complete => 3,
        _ => 1,
    }
}
