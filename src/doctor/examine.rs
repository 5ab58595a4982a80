//! Gathers a case: asks both ends for their facts, puts up the watch, tries the connection, takes
//! everything down. The judging comes after, from the case alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::case::{ByProxy, CASE_SCHEMA, Case, End, NameFinding, Resolution, SizeProbe, Watch};
use super::evidence::is_echo_reply;
use super::target::{Scheme, Target};
use super::vantage::protocol::{Answer, Ask, TryPlan};
use super::vantage::{Agent, AgentError, agent::SLACK};
use crate::host::drops::KernelDrop;
use crate::host::proxy::{self, ProxyChoice};
use crate::host::{HostFacts, LadderSpec, LadderTransport, RouteAnswer, RouteKind, RouteResult, Transport};
use crate::probe::exchange::{ExchangePlan, HttpEnd, HttpReport, HttpRequest, Outcome, udp_question};
use crate::probe::{PathMethod, PathProbe, ProbeKind, ProbeReport, ProbeSpec, ReplyKind};
use crate::wire::TcpFlags;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A handshake.
    pub connect: Duration,
    /// The answer to a request, and any gap in it.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // Three SYNs: since Linux 6.5 they go out at 0, 1 and 2 s (tcp_syn_linear_timeouts).
        Self { connect: Duration::from_millis(2200), answer: Duration::from_secs(5) }
    }
}

/// Ordinary questions are answered from tables; a host with a million routes may need a while.
const LOOK: Duration = Duration::from_secs(30);
/// The furthest hop that is asked for when nothing answers.
const MAX_TTL: u8 = 16;

/// Ids of the side probes in their plan.
const NEIGHBOUR: u32 = 1;
const ECHO: u32 = 2;
const AGAIN: u32 = 3;
const MORE: u32 = 4;
const FIRST_HOP: u32 = 100;

/// Gathers the case of `target`, from `client`, with `server` as the other end where it is given.
/// `progress` hears what is being done.
///
/// # Errors
/// When an agent dies or does not answer; a broken network is no error but what the case is about.
pub fn examine(
    target: &Target,
    client: &mut Agent,
    mut server: Option<&mut Agent>,
    patience: Patience,
    progress: &mut dyn FnMut(&str),
) -> Result<Case, AgentError> {
    progress("looking at the hosts");
    client.send(&Ask::Facts)?;
    if let Some(server) = server.as_deref_mut() {
        server.send(&Ask::Facts)?;
    }
    let mut client_end = End { vantage: client.vantage().to_string(), ..end(facts(client)?) };
    let mut server_end = match server.as_deref_mut() {
        Some(server) => Some(End { vantage: server.vantage().to_string(), ..end(facts(server)?) }),
        None => None,
    };
    let (name, address) = if let Some(address) = target.numeric() {
        (None, Some(address))
    } else {
        progress(&format!("resolving {}", target.host));
        let found = resolve(client, &target.host)?;
        let first = found.addresses.first().copied();
        (Some(found), first)
    };
    let mut case = Case {
        schema: CASE_SCHEMA,
        target: target.clone(),
        name,
        address,
        client: client_end,
        server: None,
        trial: None,
    };
    let Some(address) = address else {
        case.server = server_end;
        return Ok(case);
    };
    client_end = case.client;
    client_end.route = Some(route(client, address, None)?);
    let source = source_of(client_end.route.as_ref());
    if let (Some(server), Some(end), Some(source)) = (server.as_deref_mut(), server_end.as_mut(), source) {
        end.route = Some(route(server, source, Some(address))?);
    }

    progress("watching the packets");
    let flow = source.map(|client| LadderSpec {
        transport: match target.scheme {
            Scheme::Host => LadderTransport::Icmp,
            Scheme::Udp => LadderTransport::Udp,
            Scheme::Tcp | Scheme::Http | Scheme::Https => LadderTransport::Tcp,
        },
        client,
        server: address,
        port: target.port,
        devices: Vec::new(),
    });
    if let Some(flow) = flow {
        for (agent, end) in both(client, server.as_deref_mut(), &client_end, server_end.as_ref()) {
            let devices = end.ingress_devices();
            agent.send(&Ask::Watch { flow: LadderSpec { devices, ..flow.clone() } })?;
        }
        for (agent, _) in both(client, server.as_deref_mut(), &client_end, server_end.as_ref()) {
            agent.wait(LOOK)?;
        }
    }

    let proxy = proxy_plan(target, client, &client_end, patience)?;
    progress(&format!("trying {target}"));
    let plan = TryPlan {
        proxy: proxy.as_ref().map(|(_, plan)| plan.clone()),
        others: others(case.name.as_ref(), address),
        ..plan(target, address, source, &client_end, patience)
    };
    client.send(&Ask::Try(Box::new(plan.clone())))?;
    let mut trial = match client.wait(patience.connect + patience.answer * 6 + SLACK)? {
        Answer::Trial(trial) => *trial,
        other => return Err(unexpected(client, &other)),
    };

    trial.by_proxy = proxy
        .map(|(choice, _)| choice)
        .zip(trial.by_proxy.take().and_then(|by| by.report))
        .map(|(choice, report)| ByProxy { variable: choice.variable, value: choice.value, report: Some(report) });

    progress("reading what was seen");
    client.send(&Ask::Seen)?;
    if let Some(server) = server.as_deref_mut() {
        server.send(&Ask::Seen)?;
    }
    client_end.watch = seen(client)?;
    if let (Some(server), Some(end)) = (server.as_deref_mut(), server_end.as_mut()) {
        end.watch = seen(server)?;
    }
    // Routers say only so often that they have no way: a host that was told already is not asked about again.
    let silent = trial.exchange.as_ref().is_some_and(|exchange| match &exchange.connect {
        Outcome::Done => false,
        Outcome::Timeout => true,
        Outcome::Error { errno } => errno == "ECONNREFUSED",
    });
    let mut watched = false;
    if silent {
        for agent in std::iter::once(&mut *client).chain(server.as_deref_mut()) {
            watched |= matches!(agent.ask(&Ask::WatchDrops, LOOK)?, Answer::Watching(true));
        }
    }
    let refused = matches!(trial.exchange.as_ref().map(|exchange| &exchange.connect), Some(Outcome::Error { .. }));
    if let (true, None, Some(exchange)) = (refused, &client_end.watch.frames, &plan.exchange)
        && exchange.transport == Transport::Tcp
    {
        let specs = vec![ProbeSpec::new(AGAIN, ProbeKind::connect(exchange.to))];
        trial.again = probe(client, specs)?.pop();
    }
    // Only now: these probes would be counted and captured with the rest, and would use up what a
    // router is willing to say (ICMP rate limits) before the connection itself was tried.
    if trial.exchange.as_ref().is_some_and(|exchange| exchange.connect == Outcome::Timeout) {
        progress("asking how far packets come");
        let mut specs = hops(target, address, &client_end);
        specs.push(echo(address));
        specs.extend(one_more(target, address).filter(|_| watched));
        let mut reports = probe(client, specs)?;
        trial.echo = reports.iter().position(|report| report.id == ECHO).map(|at| reports.remove(at));
        reports.retain(|report| report.id != MORE);
        trial.hops = reports;
    }
    if watched {
        if trial.hops.is_empty() && trial.echo.is_none() {
            probe(client, one_more(target, address).into_iter().collect())?;
        }
        client_end.watch.drops = dropped(client)?;
        if let (Some(server), Some(end)) = (server.as_deref_mut(), server_end.as_mut()) {
            end.watch.drops = dropped(server)?;
        }
    }
    let stopped = |http: &HttpReport| http.end == HttpEnd::Timeout;
    if trial.exchange.as_ref().and_then(|exchange| exchange.http.as_ref()).is_some_and(stopped) {
        progress("trying which sizes pass");
        trial.sizes = sizes(client, source, address, &client_end, false)?;
        if let (Some(server), Some(end), Some(source)) = (server.as_deref_mut(), server_end.as_ref(), source) {
            // An end that may only look sends nothing.
            trial.sizes.extend(sizes(server, Some(address), source, end, true).unwrap_or_default());
        }
    }
    client.send(&Ask::Remove)?;
    if let Some(server) = server.as_deref_mut() {
        server.send(&Ask::Remove)?;
    }
    client_end.watch.changed = removed(client)?;
    if let (Some(server), Some(end)) = (server, server_end.as_mut()) {
        end.watch.changed = removed(server)?;
    }
    case.client = client_end;
    case.server = server_end;
    case.trial = Some(trial);
    Ok(case)
}

fn end(facts: HostFacts) -> End {
    End { vantage: String::new(), facts, route: None, watch: Watch::default() }
}

/// The ends that are there, each with its agent.
fn both<'a>(
    client: &'a mut Agent,
    server: Option<&'a mut Agent>,
    client_end: &'a End,
    server_end: Option<&'a End>,
) -> impl Iterator<Item = (&'a mut Agent, &'a End)> {
    std::iter::once((client, client_end)).chain(server.zip(server_end))
}

fn facts(agent: &mut Agent) -> Result<HostFacts, AgentError> {
    match agent.wait(LOOK)? {
        Answer::Facts(facts) => Ok(*facts),
        other => Err(unexpected(agent, &other)),
    }
}

fn resolve(agent: &mut Agent, name: &str) -> Result<Resolution, AgentError> {
    match agent.ask(&Ask::Resolve { name: name.to_owned() }, Duration::from_secs(120))? {
        Answer::Resolved(resolution) => Ok(resolution),
        other => Err(unexpected(agent, &other)),
    }
}

/// What an application does that heeds the proxy variables: it asks the proxy. `None` where none applies, or where
/// it is of a kind that cannot be spoken to.
fn proxy_plan(
    target: &Target,
    client: &mut Agent,
    end: &End,
    patience: Patience,
) -> Result<Option<(ProxyChoice, ExchangePlan)>, AgentError> {
    let https = target.scheme == Scheme::Https;
    let (true, Some(port)) = (target.is_http(), target.port) else { return Ok(None) };
    let Some(choice) = proxy::choose(&end.facts.names.proxies, https, &target.host, port) else { return Ok(None) };
    if choice.scheme != "http" {
        return Ok(None);
    }
    let address = match choice.host.parse::<IpAddr>() {
        Ok(address) => Some(address),
        Err(_) => resolve(client, &choice.host)?.addresses.first().copied(),
    };
    let Some(address) = address else { return Ok(None) };
    let authority = if https { format!("{}:{port}", target.host) } else { target.authority() };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let plan = ExchangePlan {
        to: SocketAddr::new(address, choice.port),
        transport: Transport::Tcp,
        tls_name: None,
        http: Some(HttpRequest { path: target.to_string(), host: authority, tunnel: https }),
        connect_ms: millis(patience.connect),
        answer_ms: millis(patience.answer),
    };
    Ok(Some((choice, plan)))
}

/// How many other addresses are tried.
const OTHERS: usize = 6;

/// The other addresses for the service: the name's own, and those that somebody else gives it.
fn others(name: Option<&Resolution>, tried: IpAddr) -> Vec<IpAddr> {
    let elsewhere = || name.into_iter().flat_map(|name| &name.findings).filter(|one| one.fault);
    let own = name.into_iter().flat_map(|name| &name.addresses).copied();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in own.chain(elsewhere().flat_map(NameFinding::mentions)) {
        if address != tried && !addresses.contains(&address) && addresses.len() < OTHERS {
            addresses.push(address);
        }
    }
    addresses
}

fn route(agent: &mut Agent, to: IpAddr, from: Option<IpAddr>) -> Result<RouteAnswer, AgentError> {
    match agent.ask(&Ask::Route { to, from }, LOOK)? {
        Answer::Route(route) => Ok(route),
        other => Err(unexpected(agent, &other)),
    }
}

fn seen(agent: &mut Agent) -> Result<Watch, AgentError> {
    match agent.wait(LOOK)? {
        Answer::Seen(watch) => Ok(*watch),
        other => Err(unexpected(agent, &other)),
    }
}

fn probe(agent: &mut Agent, specs: Vec<ProbeSpec>) -> Result<Vec<ProbeReport>, AgentError> {
    match agent.ask(&Ask::Probe { specs }, LOOK)? {
        Answer::Probed(reports) => Ok(reports),
        other => Err(unexpected(agent, &other)),
    }
}

/// The packet that opens the conversation, once more.
fn one_more(target: &Target, address: IpAddr) -> Option<ProbeSpec> {
    let port = target.port?;
    let kind = match target.scheme {
        Scheme::Udp => ProbeKind::udp(address, port, udp_question(port)),
        _ => ProbeKind::syn(address, port),
    };
    Some(ProbeSpec::new(MORE, kind).timeout(Duration::from_millis(250)))
}

fn dropped(agent: &mut Agent) -> Result<Option<Vec<KernelDrop>>, AgentError> {
    match agent.ask(&Ask::Drops, LOOK)? {
        Answer::Dropped(drops) => Ok(drops),
        other => Err(unexpected(agent, &other)),
    }
}

/// Sizes that borders lie between: Ethernet's, tunnels', the least that IPv6 allows, the least that IPv4 takes.
const SIZES: [u16; 7] = [1500, 1492, 1450, 1400, 1300, 1280, 576];

/// Asks which sizes pass from one end to the other.
fn sizes(
    agent: &mut Agent,
    src: Option<IpAddr>,
    dst: IpAddr,
    end: &End,
    from_server: bool,
) -> Result<Vec<SizeProbe>, AgentError> {
    let device = match end.route.as_ref().map(|route| &route.result) {
        Some(RouteResult::Found { interface: Some(interface), .. }) => end.facts.link(interface),
        _ => None,
    };
    let (Some(src), Some(mtu)) = (src, device.map(|link| link.mtu)) else { return Ok(Vec::new()) };
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    let mut lengths: Vec<u16> = SIZES.iter().copied().filter(|length| *length < mtu).collect();
    lengths.insert(0, mtu.min(9000));
    let sized = |length: u16| {
        let path = PathProbe { dst, src, ttl: 64, method: PathMethod::Icmp, flow: 1, length, tos: 0 };
        ProbeSpec::new(u32::from(length), ProbeKind::Path(path))
            .tries(2, Duration::from_millis(200))
            .timeout(Duration::from_millis(500))
    };
    let mut reports = probe(agent, lengths.iter().copied().map(sized).collect())?;
    let answered = |report: &ProbeReport| report.replies.iter().any(is_echo_reply);
    let border = reports.iter().filter(|report| !answered(report)).map(|report| report.id).min();
    // A loss is no border: what did not pass once is tried again, and thrice.
    if let Some(border) = border.filter(|_| reports.iter().any(answered)) {
        let length = u16::try_from(border).unwrap_or(0);
        let again = probe(agent, vec![sized(length), sized(length), sized(length)])?;
        if again.iter().any(answered) {
            reports.iter_mut().filter(|report| report.id == border).for_each(|report| report.replies.clear());
            reports.extend(again.into_iter().find(answered));
        }
    }
    Ok(reports
        .iter()
        .filter(|report| !report.sent.is_empty())
        .map(|report| SizeProbe {
            from_server,
            length: u16::try_from(report.id).unwrap_or(0),
            answered: answered(report),
            told: report.replies.iter().find_map(|reply| match &reply.kind {
                ReplyKind::IcmpError(icmp) => Some(format!("{} said: {}", reply.from, icmp.says)),
                _ => None,
            }),
        })
        .collect())
}

fn removed(agent: &mut Agent) -> Result<Vec<String>, AgentError> {
    match agent.wait(LOOK)? {
        Answer::Removed { changed } => Ok(changed),
        other => Err(unexpected(agent, &other)),
    }
}

fn unexpected(agent: &Agent, answer: &Answer) -> AgentError {
    let what = format!("gave an answer to another question: {answer:?}").chars().take(200).collect();
    AgentError::Gone { vantage: agent.vantage().to_string(), what }
}

/// The source address the kernel would take.
fn source_of(route: Option<&RouteAnswer>) -> Option<IpAddr> {
    match &route?.result {
        RouteResult::Found { source, .. } => *source,
        RouteResult::Refused { .. } => None,
    }
}

impl End {
    /// The interfaces on which the flow may enter: all that are up, loopback too (a host can be asked by itself).
    fn ingress_devices(&self) -> Vec<String> {
        self.facts.links.iter().flatten().filter(|link| link.up).map(|link| link.name.clone()).collect()
    }
}

fn plan(target: &Target, address: IpAddr, source: Option<IpAddr>, client: &End, patience: Patience) -> TryPlan {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let exchange = target.port.map(|port| ExchangePlan {
        to: scoped(target, SocketAddr::new(address, port), client),
        transport: if target.scheme == Scheme::Udp { Transport::Udp } else { Transport::Tcp },
        tls_name: (target.scheme == Scheme::Https).then(|| target.host.clone()),
        http: target.is_http().then(|| HttpRequest {
            path: target.path.clone(),
            host: target.authority(),
            tunnel: false,
        }),
        connect_ms: millis(patience.connect),
        answer_ms: millis(patience.answer),
    });
    let echo = (target.scheme == Scheme::Host).then(|| echo(address));
    let way = client.route.as_ref().map(|route| &route.result);
    let mut neighbour = None;
    if let Some(RouteResult::Found { kind: RouteKind::Unicast, gateway, interface: Some(interface), .. }) = way {
        let link = client.facts.link(interface);
        if link.is_some_and(|link| link.usable() && !link.loopback && !link.noarp && link.mac.is_some()) {
            let interface = interface.clone();
            let kind = match (gateway.unwrap_or(address), source) {
                (IpAddr::V4(target), Some(IpAddr::V4(source))) => {
                    Some(ProbeKind::Arp { interface, target, source: Some(source) })
                }
                (IpAddr::V4(target), _) => Some(ProbeKind::Arp { interface, target, source: None }),
                (IpAddr::V6(target), _) => Some(ProbeKind::Ndp { interface, target, source: None }),
            };
            neighbour = kind.map(|kind| {
                ProbeSpec::new(NEIGHBOUR, kind).tries(2, Duration::from_millis(400)).timeout(Duration::from_secs(1))
            });
        }
    }
    TryPlan { exchange, neighbour, echo, others: Vec::new(), proxy: None }
}

/// An echo to the target.
fn echo(address: IpAddr) -> ProbeSpec {
    let patience = Duration::from_millis(600);
    ProbeSpec::new(ECHO, ProbeKind::echo(address)).tries(2, Duration::from_millis(250)).timeout(patience)
}

/// Probes with rising TTL to the target's port, where a router is between.
fn hops(target: &Target, address: IpAddr, client: &End) -> Vec<ProbeSpec> {
    let way = client.route.as_ref().map(|route| &route.result);
    let routed = matches!(way, Some(RouteResult::Found { kind: RouteKind::Unicast, gateway: Some(_), .. }));
    let (true, Some(dport), false) = (routed, target.port, target.scheme == Scheme::Udp) else { return Vec::new() };
    let probe = |ttl| {
        let kind =
            ProbeKind::TcpSyn { dst: address, dport, src: None, sport: None, ttl: Some(ttl), flags: TcpFlags::SYN };
        ProbeSpec::new(FIRST_HOP + u32::from(ttl), kind).timeout(Duration::from_millis(600))
    };
    (1..=MAX_TTL).map(probe).collect()
}

/// An IPv6 link-local address needs the interface it is on: from the target's `%eth0`.
fn scoped(target: &Target, to: SocketAddr, client: &End) -> SocketAddr {
    match (to, target.host.split_once('%')) {
        (SocketAddr::V6(mut v6), Some((_, scope))) => {
            let index = client.facts.link(scope).map(|link| link.index).or_else(|| scope.parse().ok());
            v6.set_scope_id(index.unwrap_or(0));
            SocketAddr::V6(v6)
        }
        (to, _) => to,
    }
}
