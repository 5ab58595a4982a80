//! What the captures say of the octets on their way: lost, too large for the path, slow, or not taken.

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::super::evidence::{Direction, Evidence, Side};
use super::super::sightings::{Seen, Sighting};
use super::super::target::Scheme;
use super::{Finding, Observation, Round, several, with_both_ends};
use crate::host::RouteResult;
use crate::probe::exchange::HttpReport;
use crate::wire::TcpFlags;

const ID: &str = "transfer";

/// A round trip that takes longer is slow by any measure, milliseconds: twice what a satellite needs.
const SLOW_RTT_MS: f64 = 500.0;
/// An answer that begins later is slow, milliseconds.
const SLOW_ANSWER_MS: f64 = 1000.0;
/// A body that takes longer, at less than [`SLOW_RATE`], is slow, milliseconds.
const SLOW_BODY_MS: f64 = 2000.0;
/// Octets a second.
const SLOW_RATE: f64 = 64.0 * 1024.0;

/// A segment with data, or one that opens the connection.
#[derive(Debug, Clone, Copy)]
struct Segment {
    seq: u32,
    length: usize,
    syn: bool,
    at_ns: u64,
}

impl Segment {
    /// The sequence number behind it.
    fn end(&self) -> u32 {
        self.seq.wrapping_add(u32::try_from(self.length).unwrap_or(0)).wrapping_add(u32::from(self.syn))
    }

    /// Whether the other one carries this one's first octet (a SYN: is a SYN too).
    fn is_in(&self, other: &Self) -> bool {
        if self.syn || other.syn {
            return self.syn && other.syn;
        }
        let ahead = self.seq.wrapping_sub(other.seq);
        usize::try_from(ahead).is_ok_and(|ahead| ahead < other.length)
    }
}

/// Whether a sequence number comes after another (RFC 9293 §3.4).
const fn after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// The segments of a direction that a side sent (or got); `None` without a whole capture.
fn segments(known: &Evidence<'_>, side: &Side<'_>, direction: Direction) -> Option<Vec<Segment>> {
    if side.end.watch.frames_lost > 0 {
        return None;
    }
    let outgoing = (side.place == Where::Client) == (direction == Direction::Request);
    let segment = |frame: &Sighting| match &frame.what {
        Seen::Tcp { seq, length, flags, .. } => {
            let syn = flags.contains(TcpFlags::SYN);
            (syn || *length > 0).then_some(Segment { seq: *seq, length: *length, syn, at_ns: frame.at_ns })
        }
        _ => None,
    };
    let frames = side.frames.as_ref()?.iter();
    Some(frames.filter(|f| f.outgoing == outgoing && known.is_flow(f, direction)).filter_map(segment).collect())
}

/// What one direction's segments came to.
#[derive(Debug, Default)]
struct Tally {
    sent: usize,
    /// Sent again: its first octet had been sent before.
    again: usize,
    /// Sendings that did not arrive, where both ends were captured.
    lost: Option<usize>,
    /// Octets that the smallest of those carried whose data never arrived, and the largest that did arrive.
    never: Option<usize>,
    arrived_largest: usize,
    /// Data that was lost once and arrived when it was sent again: chance takes it, not a rule.
    recovered: usize,
}

fn tally(known: &Evidence<'_>, direction: Direction) -> Option<Tally> {
    let server = known.server.as_ref();
    let (from, to) = match direction {
        Direction::Request => (Some(&known.client), server),
        Direction::Reply => (server, Some(&known.client)),
    };
    let sent = segments(known, from?, direction)?;
    let mut tally = Tally { sent: sent.len(), ..Tally::default() };
    let acked = acknowledged(known, direction);
    let again = |(at, one): &(usize, &Segment)| {
        let repeated = sent[..*at].iter().any(|before| one.is_in(before));
        // What is never acknowledged, however often it is sent, is not lost by chance.
        repeated && (to.is_some() || one.syn || acked.is_some_and(|acked| !after(one.end(), acked)))
    };
    tally.again = sent.iter().enumerate().filter(again).count();
    if let Some(arrived) = to.and_then(|to| segments(known, to, direction)) {
        // Copies are counted, not matched: each sending of an octet needs an arrival of its own.
        let lost = |(at, one): (usize, &Segment)| {
            let sendings = sent[..=at].iter().filter(|other| one.is_in(other)).count();
            arrived.iter().filter(|other| one.is_in(other)).count() < sendings
        };
        tally.lost = Some(sent.iter().enumerate().filter(|one| lost(*one)).count());
        let never = sent.iter().filter(|one| !one.syn && !arrived.iter().any(|other| one.is_in(other)));
        tally.never = never.map(|one| one.length).min();
        let recovered =
            |(at, one): &(usize, &Segment)| lost((*at, one)) && arrived.iter().any(|other| one.is_in(other));
        tally.recovered = sent.iter().enumerate().filter(recovered).count();
        tally.arrived_largest = arrived.iter().map(|one| one.length).max().unwrap_or(0);
    }
    Some(tally)
}

/// The highest acknowledgement that the sender of this direction got, by the client's capture.
fn acknowledged(known: &Evidence<'_>, direction: Direction) -> Option<u32> {
    let acks = known.client.frames.iter().flatten().filter_map(|frame| match &frame.what {
        Seen::Tcp { ack, flags, .. }
            if flags.contains(TcpFlags::ACK)
                && frame.outgoing == (direction == Direction::Reply)
                && known.is_flow(
                    frame,
                    if direction == Direction::Request { Direction::Reply } else { Direction::Request },
                ) =>
        {
            Some(*ack)
        }
        _ => None,
    });
    acks.reduce(|highest, ack| if after(ack, highest) { ack } else { highest })
}

fn way(direction: Direction) -> (&'static str, &'static str) {
    match direction {
        Direction::Request => ("client", "server"),
        Direction::Reply => ("server", "client"),
    }
}

/// The handshake passed and the data did not: too large for the path, or taken for another reason.
pub(super) fn stopped(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    for direction in [Direction::Request, Direction::Reply] {
        // Where both ends were captured, only the direction whose data never arrived is in question.
        let arrived = known.server.is_some() && tally(known, direction).is_some_and(|tally| tally.never.is_none());
        if let Some(finding) = too_large(round, direction).filter(|_| !arrived) {
            return Some(finding);
        }
        let Some(Tally { sent, lost: Some(lost), never: Some(_), recovered, .. }) = tally(known, direction) else {
            continue;
        };
        let (from, to) = way(direction);
        if recovered > 0 {
            let says = resent(known).unwrap_or_default();
            return Some(loss(round, "and this answer never came to its end").seen(says, "captures on both ends"));
        }
        if lost < sent.min(2) {
            continue;
        }
        let finding = Finding::new(
            Code::FwPathDrop,
            Where::Path,
            format!("the path from the {from} to the {to}"),
            format!("Something between the hosts takes data from the {from} to the {to}, though the handshake passed."),
        )
        .seen(
            format!(
                "{} left the {from} with data, {lost} of them did not arrive at the {to}",
                several(sent as u64, "segment")
            ),
            "captures on both ends",
        )
        .but(
            Confidence::Class,
            &[Code::PathMtuBlackhole, Code::FwConntrackInvalid, Code::PathLoss],
            Some(format!("ping -M do -s 1472 {}", known.case.target.host)),
        );
        return Some(finding);
    }
    gap(round).filter(|_| resent(known).is_none() && !muddle(known))
}

/// Packets above a size vanish without a word.
fn too_large(round: &Round<'_>, direction: Direction) -> Option<Finding> {
    let known = round.known;
    let from_server = direction == Direction::Reply;
    let probes = &known.trial()?.sizes;
    let of = |side: bool| probes.iter().filter(move |probe| probe.from_server == side);
    // With the client alone its own probes stand for both directions: paths are alike more often than not.
    let measured = if from_server && of(true).next().is_none() { false } else { from_server };
    let fits = of(measured).filter(|probe| probe.answered).map(|probe| probe.length).max();
    let fails: Vec<_> =
        of(measured).filter(|probe| !probe.answered && fits.is_some_and(|fits| probe.length > fits)).collect();
    let smallest = fails.iter().map(|probe| probe.length).min();
    let silent = fails.iter().all(|probe| probe.told.is_none());
    let tally = tally(known, direction);
    let never = tally.as_ref().and_then(|tally| tally.never);
    let (from, to) = way(direction);
    let (Some(fits), Some(fails), true) = (fits, smallest, silent) else { return None };
    // Sizes that pass and sizes that do not lie in a muddle where packets are lost by chance.
    if of(measured).any(|probe| !probe.answered && probe.length <= fits) {
        return None;
    }
    // Headers of at least 40 octets came on top of the data.
    let seen_both = never.is_some_and(|octets| octets + 40 > usize::from(fits));
    if never.is_some() && !seen_both {
        return None;
    }
    let end = if from_server && known.server.is_some() { known.server.as_ref() } else { Some(&known.client) }?;
    let destination = if end.place == Where::Server { known.source } else { known.address };
    let mut finding = Finding::new(
        Code::PathMtuBlackhole,
        Where::Path,
        format!("the path from the {from} to the {to}"),
        format!("The path from the {from} to the {to} drops packets over {fits} octets, and nobody tells the sender."),
    )
    .seen(
        format!("an echo of {fits} octets that must not be fragmented was answered, one of {fails} was not, and no \"fragmentation needed\" came"),
        format!("probes from the {}", if measured { "server" } else { "client" }),
    )
    .seen_if(tally.as_ref().zip(never).map(|(tally, octets)| {
        let says = format!(
            "segments with {octets} octets of data and more left the {from} ({} sendings) and never arrived; the largest that did had {}",
            tally.sent, tally.arrived_largest
        );
        Observation::new(says, "captures on both ends")
    }));
    finding.place = end.place;
    if let (Some(to), Some(RouteResult::Found { gateway, interface: Some(device), .. })) =
        (destination, end.end.route.as_ref().map(|route| &route.result))
    {
        let v6 = to.is_ipv6();
        let via = gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let prefix = if v6 { 128 } else { 32 };
        let family = if v6 { "-6 " } else { "" };
        // Both: what this end sends is cut to size, and the other end is asked for no more (MSS).
        let mss = fits - if v6 { 60 } else { 40 };
        finding = finding.fix(
            "until the router between says \"fragmentation needed\" again (let ICMP type 3 code 4, ICMPv6 type 2, pass there, or clamp the MSS): keeps packets to this host small enough",
            format!("ip {family}route add {to}/{prefix}{via} dev {device} mtu lock {fits} advmss {mss}"),
            format!("ip {family}route del {to}/{prefix}{via} dev {device}"),
        );
    }
    finding.place = Where::Path;
    let confidence = if seen_both { Confidence::Proven } else { Confidence::Likely };
    let next = "tracepath, or: reachwhy trace --mtu, names the hop behind which large packets vanish".to_owned();
    Some(finding.but(confidence, &[], Some(next)))
}

/// A later segment came and those before it never did.
fn gap(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    if known.server.is_some() {
        return None;
    }
    let came = segments(known, &known.client, Direction::Reply)?;
    let first = came.iter().find(|one| one.syn)?;
    let next = first.seq.wrapping_add(1);
    let begun = came.iter().any(|one| !one.syn && one.seq == next);
    let later = came.iter().filter(|one| !one.syn && one.seq != next).map(|one| one.length).max()?;
    if begun {
        return None;
    }
    Some(
        Finding::new(
            Code::PathMtuBlackhole,
            Where::Path,
            "the path from the server to the client".to_owned(),
            "Large packets of the answer vanish on the way; a smaller one that was sent behind them arrived."
                .to_owned(),
        )
        .seen(format!("a segment with {later} octets of data came, those before it never did"), "capture on the client")
        .but(Confidence::Likely, &[Code::PathLoss, Code::FwPathDrop], Some(with_both_ends(known))),
    )
}

/// The server said that it can take no more.
pub(super) fn full(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    let frames = known.client.frames.as_ref()?;
    let windows: Vec<u16> = frames
        .iter()
        .filter(|f| !f.outgoing && known.is_flow(f, Direction::Reply))
        .filter_map(|f| match &f.what {
            Seen::Tcp { window, flags, .. } if !flags.contains(TcpFlags::RST) => Some(*window),
            _ => None,
        })
        .collect();
    if *windows.last()? != 0 {
        return None;
    }
    let zero = windows.iter().filter(|window| **window == 0).count();
    let target = known.address?;
    let port = known.port();
    let owner = known.server.as_ref().and_then(|server| {
        let sockets = super::server_socket::sockets(server)?;
        let local = known.exchange()?.local?;
        sockets.iter().find(|socket| socket.local_port == port && socket.remote_port == local.port())
    });
    let who = owner.map_or_else(
        || format!("Server {target}:{port}"),
        |socket| format!("Process {} on the server", super::server_socket::owner(socket)),
    );
    Some(
        Finding::new(
            Code::TcpZeroWindow,
            Where::Server,
            format!("the receive buffer of {target}:{port}"),
            format!("{who} does not read what it is sent: its receive buffer is full and stays full."),
        )
        .seen(
            format!("{} of the server had window 0, the last one too", several(zero as u64, "segment")),
            "capture on the client",
        )
        .seen_if(owner.map(|socket| {
            Observation::new(
                format!("Recv-Q {} of the connection is not read", socket.recv_queue),
                "sock_diag on the server",
            )
        }))
        .fix(
            "find out why the process does not read: what it waits for, or a reader that is too slow",
            String::new(),
            String::new(),
        ),
    )
}

/// It works; does it work as it should?
pub(super) fn check(round: &mut Round<'_>) {
    let known = round.known;
    if round.finding.is_some() || !known.reached() || known.case.target.scheme == Scheme::Udp {
        return;
    }
    let Some(exchange) = known.exchange() else { return };
    let http = exchange.http.as_ref();
    let found = lossy(round, exchange.connect_ms, http)
        .or_else(|| far(round, exchange.connect_ms))
        .or_else(|| http.and_then(|http| late(round, http, exchange.connect_ms)));
    if let Some(finding) = found {
        round.fail(ID, finding);
        return;
    }
    if let Some(again) = resent(known) {
        round.note(Status::Warn, Layer::Path, ID, format!("{again}; the connection bore it"));
    }
}

/// Loss in a sentence, where there was any.
fn resent(known: &Evidence<'_>) -> Option<String> {
    let told = [Direction::Request, Direction::Reply].into_iter().filter_map(|direction| {
        let tally = tally(known, direction)?;
        let (from, to) = way(direction);
        match (tally.lost, tally.again) {
            (Some(lost), _) if lost > 0 => Some(format!(
                "{lost} of {} from the {from} did not arrive at the {to}",
                several(tally.sent as u64, "segment")
            )),
            (None, again) if again > 0 => Some(format!("the {from} sent {} again", several(again as u64, "segment"))),
            _ => None,
        }
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// Losses that cost time.
fn lossy(round: &Round<'_>, connect_ms: f64, http: Option<&HttpReport>) -> Option<Finding> {
    let both = round.known.server.is_some();
    if connect_ms < 900.0 && http.is_none_or(|http| http.ms < SLOW_ANSWER_MS) && !heavy(round.known) {
        return None;
    }
    let says = resent(round.known).or_else(|| out_of_order(round.known).filter(|_| !both))?;
    let took = http.map_or(connect_ms, |http| http.ms + connect_ms);
    let finding = loss(round, &format!("which cost this connection time ({:.1} s in all)", took / 1e3));
    Some(finding.seen(says, if both { "captures on both ends" } else { "capture on the client" }))
}

/// An answer that stops while chance takes packets, by the client's own view: what it or the server sent again, what
/// came out of its order, echoes of some sizes unanswered and of others not.
pub(super) fn lossy_alone(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    let again = resent(known);
    let muddle = muddle(known);
    let odd = out_of_order(known);
    if again.is_none() && !muddle && odd.is_none() {
        return None;
    }
    let mut finding = loss(round, "and this answer never came to its end");
    for says in again.into_iter().chain(odd) {
        finding = finding.seen(says, "capture on the client");
    }
    if muddle {
        finding = finding.seen("echoes of some sizes were answered, smaller ones were not", "probes from the client");
    }
    Some(finding.but(Confidence::Likely, &[Code::AppSlow, Code::PathMtuBlackhole], Some(with_both_ends(known))))
}

/// Holes in what came from the server, and copies of what had come, in a sentence; `None` below two of them, which
/// may be a mere change of order.
fn out_of_order(known: &Evidence<'_>) -> Option<String> {
    let came = segments(known, &known.client, Direction::Reply)?;
    let holes = holes(&came);
    let copies = came.iter().enumerate().filter(|(at, one)| came[..*at].iter().any(|before| one.is_in(before))).count();
    (holes + copies >= 2).then(|| {
        let holes = several(holes as u64, "hole");
        format!("the server's data came with {holes} in it, {copies} of its segments came twice")
    })
}

/// How often something came that should have come after what had not come yet.
fn holes(came: &[Segment]) -> usize {
    let (mut next, mut holes): (Option<u32>, usize) = (None, 0);
    for one in came {
        let end = one.end();
        holes += usize::from(next.is_some_and(|next| after(one.seq, next)));
        next = Some(next.map_or(end, |next| if after(end, next) { end } else { next }));
    }
    holes
}

/// Whether one in twenty is lost, or more: a fault even where it once cost little.
fn heavy(known: &Evidence<'_>) -> bool {
    let much = |lost: usize, of: usize| lost >= 3 && lost * 20 >= of;
    // What was too large was lost too, until a router said so (ICMP type 3 code 4, ICMPv6 type 2).
    let too_large = |frame: &Sighting| {
        matches!(&frame.what, Seen::Icmp { src, kind, code, .. }
            if if src.is_ipv4() { (*kind, *code) == (3, 4) } else { *kind == 2 })
    };
    let sides = std::iter::once(&known.client).chain(&known.server);
    if sides.filter_map(|side| side.frames.as_ref()).flatten().any(too_large) {
        return false;
    }
    match &known.server {
        Some(_) => [Direction::Request, Direction::Reply]
            .into_iter()
            .filter_map(|direction| tally(known, direction))
            .any(|tally| much(tally.lost.unwrap_or(0), tally.sent)),
        None => segments(known, &known.client, Direction::Reply).is_some_and(|came| much(holes(&came), came.len())),
    }
}

/// Whether echoes of some sizes were answered and smaller ones were not.
fn muddle(known: &Evidence<'_>) -> bool {
    known.trial().is_some_and(|trial| {
        let fits = trial.sizes.iter().filter(|probe| probe.answered).map(|probe| probe.length).max();
        trial.sizes.iter().any(|probe| !probe.answered && fits.is_some_and(|fits| probe.length < fits))
    })
}

/// A path that loses packets.
fn loss(round: &Round<'_>, cost: &str) -> Finding {
    let known = round.known;
    let target = known.address.map_or_else(|| known.case.target.host.clone(), |target| target.to_string());
    let finding = Finding::new(
        Code::PathLoss,
        Where::Path,
        format!("the path to {target}"),
        format!("The path to {target} loses packets, {cost}."),
    )
    .fix(
        "find the hop: reachwhy trace --live shows where loss begins; `ip -s link` shows errors and drops of an interface",
        String::new(),
        String::new(),
    );
    if known.server.is_some() {
        finding
    } else {
        finding.but(Confidence::Likely, &[Code::PathSlow, Code::FwRateLimited], Some(with_both_ends(known)))
    }
}

/// A handshake that took its time without a packet being lost: the way is long, or a queue on it is.
fn far(round: &Round<'_>, connect_ms: f64) -> Option<Finding> {
    let known = round.known;
    if connect_ms < SLOW_RTT_MS {
        return None;
    }
    let captured = segments(known, &known.client, Direction::Request);
    let once = captured.as_ref().is_none_or(|sent| sent.iter().filter(|one| one.syn).count() == 1);
    if !once {
        return None;
    }
    let target = known.address?;
    let finding = Finding::new(
        Code::PathSlow,
        Where::Path,
        format!("the path to {target}"),
        format!("The path to {target} is slow: a round trip takes {connect_ms:.0} ms."),
    )
    .seen(format!("the handshake, which kernels answer at once, took {connect_ms:.0} ms"), "connect(2) on the client")
    .seen_if(held_by_server(known).map(|ms| {
        Observation::new(
            format!("the server's kernel answered the SYN {ms:.1} ms after it came"),
            "capture on the server",
        )
    }))
    .fix("find the hop where the time goes: reachwhy trace --live", String::new(), String::new());
    let confidence = if captured.is_some() { Confidence::Proven } else { Confidence::Likely };
    Some(finding.but(confidence, if captured.is_some() { &[] } else { &[Code::PathLoss] }, None))
}

/// From the SYN's arrival to the SYN-ACK's departure, milliseconds.
fn held_by_server(known: &Evidence<'_>) -> Option<f64> {
    let server = known.server.as_ref()?;
    let came = segments(known, server, Direction::Request)?.into_iter().find(|one| one.syn)?;
    let left = segments(known, server, Direction::Reply)?.into_iter().find(|one| one.syn)?;
    #[allow(clippy::cast_precision_loss, reason = "a capture of seconds, in nanoseconds, is far below 2^53")]
    Some(left.at_ns.saturating_sub(came.at_ns) as f64 / 1e6)
}

/// The answer began late, or went on at a crawl.
fn late(round: &Round<'_>, http: &HttpReport, rtt_ms: f64) -> Option<Finding> {
    let known = round.known;
    let first = http.first_octet_ms?;
    let target = &known.case.target;
    let who = format!("{}:{}", target.host, known.port());
    if first - rtt_ms >= SLOW_ANSWER_MS {
        let acked = known.client.frames.is_some();
        return Some(
            Finding::new(
                Code::AppSlow,
                Where::Server,
                format!("GET {} on {who}", target.path),
                format!(
                    "Service {who} takes {:.1} s to begin its answer to GET {}; the network is fine.",
                    first / 1e3,
                    target.path
                ),
            )
            .seen(
                format!("the first octet came {first:.0} ms after the request, with a round trip of {rtt_ms:.1} ms"),
                "HTTP answer",
            )
            .fix(
                "look at what the service does in that time: its log, its database, its own calls",
                String::new(),
                String::new(),
            )
            .but(if acked { Confidence::Proven } else { Confidence::Likely }, &[], None),
        );
    }
    let body_ms = http.ms - first;
    #[allow(clippy::cast_precision_loss, reason = "what is read is bounded")]
    let rate = http.body_received as f64 / (body_ms / 1e3).max(1e-3);
    if body_ms < SLOW_BODY_MS || rate >= SLOW_RATE {
        return None;
    }
    let says = format!("{} octets took {:.1} s: {:.1} kB/s", http.body_received, body_ms / 1e3, rate / 1e3);
    let paced = paced(known);
    let path = paced != Some(false);
    let (code, place, object, sentence) = if path {
        let sentence = format!("The path from {who} is slow: the answer crawls at {:.1} kB/s.", rate / 1e3);
        (Code::PathSlow, Where::Path, format!("the path from {who}"), sentence)
    } else {
        let sentence = format!("Service {who} writes its answer at {:.1} kB/s; the network is fine.", rate / 1e3);
        (Code::AppSlow, Where::Server, format!("GET {} on {who}", target.path), sentence)
    };
    let finding = Finding::new(code, place, object, sentence).seen(says, "HTTP answer").seen_if(paced.map(|paced| {
        let how = if paced {
            "full segments came one by one at an even pace, as a narrow link lets them through"
        } else {
            "it came in small segments, or in bursts with pauses between, as a writer sends it"
        };
        Observation::new(how, "capture on the client")
    }));
    let other = if path { Code::AppSlow } else { Code::PathSlow };
    Some(match paced {
        Some(_) => finding.but(Confidence::Likely, &[other], None),
        None => finding.but(Confidence::Class, &[other], Some(with_both_ends(known))),
    })
}

/// Whether the answer came as through a narrow link: in full segments, evenly spaced. `None` without enough of it.
fn paced(known: &Evidence<'_>) -> Option<bool> {
    let came = segments(known, &known.client, Direction::Reply)?;
    let data: Vec<&Segment> = came.iter().filter(|one| !one.syn).collect();
    if data.len() < 8 {
        return None;
    }
    let largest = data.iter().map(|one| one.length).max()?;
    let full = data.iter().filter(|one| one.length * 10 >= largest * 9).count();
    if largest < 400 || full * 2 < data.len() {
        return Some(false);
    }
    let mut gaps: Vec<u64> = data.windows(2).map(|pair| pair[1].at_ns.saturating_sub(pair[0].at_ns)).collect();
    let mean = gaps.iter().sum::<u64>() / u64::try_from(gaps.len()).unwrap_or(1).max(1);
    gaps.sort_unstable();
    Some(gaps[gaps.len() / 2] * 10 >= mean * 3)
}
