//! `reachwhy trace`: the path to a host.

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::{Failure, Global};
use crate::os::names::Names;
use crate::os::probe::{self, ProbeError, RunOptions};
use crate::os::{interrupt, resolve};
use crate::probe::{Moment, PathMethod, PathNeeds};
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
}

impl Lookups {
    fn ask(&mut self, address: IpAddr) {
        if let Some(names) = &mut self.names {
            names.ask(address);
        }
    }
}

impl Labels for Lookups {
    fn name(&mut self, address: IpAddr) -> Option<String> {
        self.names.as_mut()?.get(address)
    }

    fn asn(&mut self, _: IpAddr) -> Option<String> {
        None
    }
}

/// How probes can be sent here.
struct Means {
    raw: bool,
    method: PathMethod,
    sides: Vec<PathMethod>,
}

pub(super) fn run(args: &TraceArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    if args.first_ttl > args.max_ttl {
        return Err(Failure::usage("the first TTL is greater than the last", Some("-f sets the first, -m the last")));
    }
    let stop = interrupt::flag();
    let targets = args.hosts.iter().map(|host| target(host, args)).collect::<anyhow::Result<Vec<_>>>()?;
    let means = means(args, &targets);
    let requests = targets
        .into_iter()
        .zip(&args.hosts)
        .map(|((dst, via), host)| request(args, global, host, dst, via, means.method))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let single = requests.len() == 1;
    if let Some(drawing) = args.paths {
        return all_paths(args, global, drawing, requests, &means, style);
    }
    let lookups = RefCell::new(Lookups { names: (!args.numeric).then(Names::default) });
    let shown = RefCell::new(Shown { hops: 0, failed: None });
    let human = !global.json;
    if human && single {
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
    if let Some(names) = &mut lookups.names {
        names.wait(NAME_GRACE);
    }
    for trace in &mut traces {
        label(trace, &mut lookups);
    }
    if global.json {
        show_json(&traces)?;
    } else {
        let from = shown.borrow().hops;
        show(&traces, from, single, &mut lookups, style)?;
    }
    Ok(traces.iter().map(exit_code).max().unwrap_or(0))
}

fn all_paths(
    args: &TraceArgs,
    global: &Global,
    drawing: Drawing,
    requests: Vec<TraceRequest>,
    means: &Means,
    style: Style,
) -> anyhow::Result<u8> {
    let mut lookups = Lookups { names: (!args.numeric).then(Names::default) };
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
        label(&mut trace, &mut lookups);
        code = code.max(exit_code(&trace));
        if global.json {
            trace.paths = Some(graph.paths().0);
            trace.graph = Some(graph);
            traces.push(trace);
            continue;
        }
        print(&match drawing {
            Drawing::Text => {
                view::trace::paths::text(&graph, &mut lookups, style) + &view::trace::summary(&trace, style)
            }
            Drawing::Svg => view::trace::paths::svg(&graph, &trace.target, &mut lookups),
            Drawing::Dot => view::trace::paths::dot(&graph, &mut lookups),
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

/// The address of a host, and the interface where the address needs one (`fe80::1%eth0`).
fn target(host: &str, args: &TraceArgs) -> anyhow::Result<(IpAddr, Option<String>)> {
    let hint = Some("a host name or an address: reachwhy trace 192.168.1.3");
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Failure::usage(format!("`{}` is no host", host.escape_debug()), hint));
    }
    let (bare, via) = match host.split_once('%') {
        Some((bare, via)) => (bare, Some(via.to_owned())),
        None => (host, None),
    };
    let bare = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(bare);
    let fits = |address: &IpAddr| !(args.four && address.is_ipv6() || args.six && address.is_ipv4());
    if let Ok(address) = bare.parse::<IpAddr>() {
        let address = address.to_canonical();
        if !fits(&address) {
            let family = if args.four { "IPv4" } else { "IPv6" };
            return Err(Failure::usage(format!("{address} is no {family} address"), None));
        }
        let of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if of_link && via.is_none() {
            let hint = format!("name the interface: {address}%eth0");
            return Err(Failure::usage(
                format!("{address} is an address of one link, and there may be several"),
                Some(&hint),
            ));
        }
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::from([255; 4]) {
            return Err(Failure::usage(format!("{address} is no host's address: there is no path to it"), None));
        }
        return Ok((address, via));
    }
    if host.contains('/') || host.contains(':') {
        return Err(Failure::usage(format!("`{host}` is no host"), hint));
    }
    let resolved = resolve::resolve(bare);
    let found = resolved.addresses.iter().find(|address| fits(address)).copied();
    match found {
        Some(address) => Ok((address, via)),
        None if !resolved.addresses.is_empty() => {
            let family = if args.four { "IPv4" } else { "IPv6" };
            Err(Failure::unknown(format!("{host} has no {family} address"), Some("leave -4 and -6 away to take any")))
        }
        None => {
            let why = resolved.error.unwrap_or_else(|| "it has no address".to_owned());
            Err(Failure::unknown(
                format!("cannot find the address of {host}: {why}"),
                Some("check the spelling and /etc/resolv.conf, or give an address"),
            ))
        }
    }
}

fn means(args: &TraceArgs, targets: &[(IpAddr, Option<String>)]) -> Means {
    let can = probe::abilities();
    let raw = can.raw && !args.unprivileged;
    let echo = targets.iter().all(|(dst, _)| if dst.is_ipv6() { can.echo6 } else { can.echo4 });
    let udp = PathMethod::Udp { dport: args.port.unwrap_or(33434) };
    let method = match args.tcp {
        Some(dport) => PathMethod::Tcp { dport },
        None if args.udp => udp,
        // Many routers spread ICMP by its addresses alone: all of it goes one way.
        None if args.paths.is_some() && !args.icmp => udp,
        None if raw || echo || args.icmp => PathMethod::Icmp,
        // Closed ping_group_range: datagrams need no privilege at all.
        None => udp,
    };
    let sides = if raw {
        vec![PathMethod::Icmp, PathMethod::Tcp { dport: 443 }, PathMethod::Tcp { dport: 80 }, udp]
    } else {
        Vec::new()
    };
    Means { raw, method, sides }
}

fn request(
    args: &TraceArgs,
    global: &Global,
    host: &str,
    dst: IpAddr,
    via: Option<String>,
    method: PathMethod,
) -> anyhow::Result<TraceRequest> {
    let src = match args.source {
        Some(source) if source.is_ipv6() != dst.is_ipv6() => {
            return Err(Failure::usage(format!("{source} cannot send to {dst}: they are of different families"), None));
        }
        Some(source) => source,
        None => probe::source_address(dst, via.as_deref()).map_err(|errno| no_route(dst, &errno))?,
    };
    Ok(TraceRequest {
        via,
        first: args.first_ttl,
        max: args.max_ttl,
        queries: args.queries,
        wait: global.timeout,
        length: args.length.unwrap_or(if dst.is_ipv6() { 80 } else { 60 }),
        tos: args.tos,
        flow: args.flow,
        ..TraceRequest::new(host, dst, src, method)
    })
}

fn no_route(dst: IpAddr, errno: &str) -> anyhow::Error {
    let why = match errno {
        "ENETUNREACH" => "this host has no route to it",
        "EHOSTUNREACH" => "this host's routes say it is unreachable",
        "EACCES" => "this host's routes prohibit it",
        "EINVAL" => "this host's routes throw it away (blackhole)",
        "ENODEV" => "there is no such interface",
        "EADDRNOTAVAIL" | "EAFNOSUPPORT" => "this host does not speak its address family",
        _ => "this host cannot send to it",
    };
    let hint = format!("`reachwhy doctor {dst}` says which route is missing");
    Failure::unknown(format!("cannot trace to {dst}: {why} ({errno})"), Some(&hint))
}

fn cannot(error: &ProbeError) -> anyhow::Error {
    match error {
        ProbeError::Privilege { hint, .. } => {
            Failure::unknown(error, Some(&format!("{hint}  (or trace with --udp, which needs no privilege)")))
        }
        ProbeError::System { .. } => Failure::unknown(error, None),
    }
}
