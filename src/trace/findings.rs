//! What a trace means, in words: each statement with the hop it rests on.

use std::net::IpAddr;

use serde::Serialize;

use super::Tracer;
use super::bucket::{self, Bucket};
use super::quote::Change;
use super::result::{Answer, Hop, ProbeResult, Said, Stopped, Trace};
use crate::probe::PathMethod;

/// One statement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What kind.
    pub code: &'static str,
    /// At which hop.
    pub ttl: Option<u8>,
    /// In words.
    pub says: String,
    /// The limit that was fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<Bucket>,
}

impl Finding {
    /// Without a bucket.
    pub fn new(code: &'static str, ttl: Option<u8>, says: impl Into<String>) -> Self {
        Self { code, ttl, says: says.into(), bucket: None }
    }
}

/// Hops on the way back, from the TTL an answer arrived with: systems begin at 64, 128 or 255.
pub fn return_length(answer: &Answer) -> Option<u8> {
    let left = answer.reply_ttl.filter(|ttl| *ttl > 0)?;
    let first = [64, 128, 255].into_iter().find(|first| *first >= left)?;
    Some(first - left + 1)
}

/// All that can be said.
pub fn findings(trace: &Trace, tracer: &Tracer) -> Vec<Finding> {
    let mut found = Vec::new();
    end(trace, tracer, &mut found);
    loops(trace, &mut found);
    silence(trace, &mut found);
    limits(trace, tracer, &mut found);
    rewriting(trace, &mut found);
    asymmetry(trace, &mut found);
    several(trace, &mut found);
    raised(trace, &mut found);
    if !trace.raw && trace.protocol == "tcp" && trace.hops.len() > 1 {
        let text = "without CAP_NET_RAW each TCP probe is a connection with a port of its own, and so a flow of its own: where \
                    routers spread flows, these hops may belong to several paths (reachwhy needs `setcap cap_net_raw+ep` to keep \
                    to one; --icmp and --udp keep to one without)";
        found.push(Finding::new("several_flows", None, text));
    }
    found
}

/// Routers that saw a probe with more than the one hop it had left: something on the way gives hops, or hides them.
fn raised(trace: &Trace, found: &mut Vec<Finding>) {
    let saw = |hop: &Hop| {
        let mut seen = hop.answers().filter(|answer| answer.said == Said::TimeExceeded).filter_map(|a| a.quoted_ttl);
        seen.find(|ttl| *ttl > 1)
    };
    if let Some((hop, ttl)) = trace.hops.iter().find_map(|hop| Some((hop, saw(hop)?))) {
        let who = sole(hop).map_or(String::new(), |router| format!(" ({router})"));
        let text = format!(
            "hop {}{who} reports a probe that expired with TTL {ttl} left, where 1 is the rule: a tunnel (MPLS) that hides \
             its hops, or a device that sets TTLs anew",
            hop.ttl
        );
        found.push(Finding::new("quoted_ttl", Some(hop.ttl), text));
    }
}

fn end(trace: &Trace, tracer: &Tracer, found: &mut Vec<Finding>) {
    let errno = trace.hops.first().and_then(|hop| match hop.probes.first() {
        Some(ProbeResult::NotSent(errno)) => Some(errno.clone()),
        _ => None,
    });
    if let Some(errno) = errno.filter(|_| trace.hops.len() == 1 && !trace.reached) {
        let why = match errno.as_str() {
            "ENETUNREACH" => "no route to it",
            "EHOSTUNREACH" => "its routes say unreachable",
            "EPERM" => "a local firewall drops what it sends",
            "EACCES" => "its routes prohibit it",
            "EMSGSIZE" => "the packet is larger than the interface takes",
            "EINVAL" => "a blackhole route, or an address that cannot be sent to",
            _ => "see the errno",
        };
        found.push(Finding::new("not_sent", None, format!("this host did not send a probe ({errno}): {why}")));
        return;
    }
    if let Some(refusal) = &trace.unreachable {
        let (by, says) = (refusal.by, &refusal.icmp.says);
        let text = if by == trace.address {
            format!("the destination itself refuses: {says}")
        } else {
            format!("{by} refuses at hop {}: {says}", refusal.ttl)
        };
        found.push(Finding::new("unreachable", Some(refusal.ttl), text));
    }
    let others: Vec<String> =
        tracer.side_answers().iter().filter_map(|(method, answer)| says_there(*method, answer)).collect();
    if trace.stopped == Stopped::Silent && !others.is_empty() {
        let text = format!("the destination does not answer {}, but {}", trace.protocol, others.join(", and "));
        found.push(Finding::new("other_protocol", None, text));
    } else if trace.stopped == Stopped::Silent {
        let last = trace.hops.iter().rev().find_map(|hop| Some((hop.ttl, *hop.addresses().first()?)));
        let text = match last {
            Some((ttl, router)) => format!(
                "nothing answers behind hop {ttl} ({router}): what comes after it drops the probes or its answers get lost"
            ),
            None => {
                "nothing answers at all, not even the first hop, and not when asked again after a second: the probes do not \
                 leave this network, or no answer gets back"
                    .to_owned()
            }
        };
        found.push(Finding::new("silent", last.map(|last| last.0), text));
    }
    if trace.stopped == Stopped::MaxTtl {
        let text = format!("the path goes on behind TTL {}: -m sets how far to look", tracer.request().max);
        found.push(Finding::new("max_ttl", None, text));
    }
}

fn says_there(method: PathMethod, answer: &Answer) -> Option<String> {
    let port = method.dport().unwrap_or(0);
    Some(match (method, answer.said) {
        (PathMethod::Icmp, Said::EchoReply) => "it answers ICMP echo (trace with --icmp)".to_owned(),
        (PathMethod::Tcp { .. }, Said::SynAck) => format!("TCP port {port} is open (trace with --tcp {port})"),
        (PathMethod::Tcp { .. }, Said::Rst) => {
            format!("TCP port {port} answers with a reset (trace with --tcp {port})")
        }
        (PathMethod::Udp { .. }, Said::PortUnreachable | Said::Data) => "it answers UDP (trace with --udp)".to_owned(),
        _ => return None,
    })
}

fn sole(hop: &Hop) -> Option<IpAddr> {
    hop.addresses().first().copied()
}

fn loops(trace: &Trace, found: &mut Vec<Finding>) {
    let routers: Vec<(u8, Option<IpAddr>)> = trace.hops.iter().map(|hop| (hop.ttl, sole(hop))).collect();
    for period in 2..=routers.len() / 2 {
        for start in 0..=routers.len() - 2 * period {
            let round = &routers[start..start + period];
            let again = &routers[start + period..start + 2 * period];
            let same = round.iter().zip(again).all(|((_, one), (_, two))| one.is_some() && one == two);
            let differs = round.iter().any(|(_, router)| *router != round[0].1);
            if same && differs {
                let names: Vec<String> =
                    round.iter().filter_map(|(_, router)| router.map(|ip| ip.to_string())).collect();
                let text =
                    format!("packets go round in a circle from hop {}: {} → and again", round[0].0, names.join(" → "));
                found.push(Finding::new("loop", Some(round[0].0), text));
                return;
            }
        }
    }
}

fn silence(trace: &Trace, found: &mut Vec<Finding>) {
    let silent: Vec<String> = trace
        .hops
        .iter()
        .filter(|hop| hop.answers().next().is_none() && hop.lost() > 0)
        .map(|hop| hop.ttl.to_string())
        .collect();
    if !silent.is_empty() {
        let (hops, verb) =
            if silent.len() == 1 { ("hop", "passes packets on but does") } else { ("hops", "pass packets on but do") };
        let text = format!(
            "{hops} {} {verb} not tell when a TTL runs out; hops behind answer, so nothing is lost there",
            silent.join(", ")
        );
        found.push(Finding::new("silent_hop", None, text));
    }
}

/// A limit in words.
pub fn limit_in_words(bucket: &Bucket) -> String {
    match bucket.rate {
        Some(rate) if bucket.burst > 1 => {
            format!("answers at most {} after a burst of {}", per_second(rate), bucket.burst)
        }
        Some(rate) => format!("answers at most {}", per_second(rate)),
        None => format!("answers {} at once and then stops for longer than was looked", bucket.burst),
    }
}

fn per_second(rate: f64) -> String {
    if rate >= 1.0 { format!("{rate} a second") } else { format!("one in {:.0} seconds", 1.0 / rate) }
}

/// Hops of which the same can be said, told together.
#[derive(PartialEq)]
struct Limited {
    code: &'static str,
    says: String,
    bucket: Option<Bucket>,
    hops: Vec<(u8, Option<IpAddr>)>,
}

fn limits(trace: &Trace, tracer: &Tracer, found: &mut Vec<Finding>) {
    let mut groups: Vec<Limited> = Vec::new();
    for (at, hop) in trace.hops.iter().enumerate() {
        if hop.lost() == 0 || hop.answers().next().is_none() {
            continue;
        }
        let one = limited(trace, at, &tracer.timeline(hop.ttl));
        match groups.iter_mut().find(|group| group.code == one.code && group.says == one.says) {
            Some(group) => group.hops.extend(one.hops),
            None => groups.push(one),
        }
    }
    for group in groups {
        let who: Vec<String> = group
            .hops
            .iter()
            .map(|(ttl, router)| match router {
                Some(router) if group.hops.len() <= 2 => format!("{ttl} ({router})"),
                _ => ttl.to_string(),
            })
            .collect();
        let (noun, ttl) = (if who.len() == 1 { "hop" } else { "hops" }, group.hops.first().map(|hop| hop.0));
        let mut finding = Finding::new(group.code, ttl, format!("{noun} {}: {}", who.join(", "), group.says));
        finding.bucket = group.bucket;
        found.push(finding);
    }
}

fn limited(trace: &Trace, at: usize, timeline: &[(std::time::Duration, bool)]) -> Limited {
    let hop = &trace.hops[at];
    // Loss on the way to a hop is loss for all behind it.
    let passes = trace.hops[at + 1..].iter().any(|later| later.lost() == 0 && later.answers().next().is_some());
    let (lost, all) = (hop.lost(), hop.probes.len());
    let bucket = bucket::fit(timeline);
    let is_last = at + 1 == trace.hops.len();
    let (code, says) = match &bucket {
        Some(bucket) if passes || !is_last || trace.reached => (
            "rate_limited",
            format!("{}: a limit on its answers, not loss on the path ({lost} of {all} unanswered)", limit_in_words(bucket)),
        ),
        _ if passes && timeline.last().is_some_and(|(sent, answered)| *answered && sent.as_millis() >= 900) => (
            "rate_limited",
            "answered only when asked again a second later: the limit on its answers had been used up before, nothing is \
             lost on the path"
                .to_owned(),
        ),
        _ if passes => (
            "limited_or_return_loss",
            format!(
                "{lost} of {all} unanswered, but hops behind answered all: its own answers are limited or lost on their way \
                 back, the traffic is not"
            ),
        ),
        _ => ("loss", format!("{lost} of {all} probes got no answer")),
    };
    Limited { code, says, bucket, hops: vec![(hop.ttl, sole(hop))] }
}

fn rewriting(trace: &Trace, found: &mut Vec<Finding>) {
    let mut known: Vec<(&str, &str)> = Vec::new();
    for hop in &trace.hops {
        for answer in hop.answers() {
            for change in &answer.changed {
                let key = (change.field, change.seen.as_str());
                let repeated =
                    if matches!(change.field, "IP identification" | "checksum" | "sequence" | "sequence number") {
                        known.iter().any(|(field, _)| *field == change.field)
                    } else {
                        known.contains(&key)
                    };
                if !repeated {
                    known.push(key);
                    found.push(changed(hop.ttl, answer, change));
                }
            }
        }
    }
}

fn changed(ttl: u8, answer: &Answer, change: &Change) -> Finding {
    let Change { field, sent, seen } = change;
    let by = format!("before hop {ttl} ({}) sees the probe", answer.address);
    let (code, text) = match *field {
        _ if change.is_rewriting() => {
            ("nat", format!("address translation: the {field} is {seen} instead of {sent} {by}"))
        }
        "DSCP" => ("dscp", format!("the DSCP is changed from {sent} to {seen} {by}")),
        "ECN" => ("ecn", format!("the ECN bits are changed from {sent} to {seen} {by}")),
        option if option.starts_with("TCP option") && seen == "none" => {
            ("tcp_option_stripped", format!("the {option} is stripped {by}"))
        }
        option if option.starts_with("TCP") => {
            ("tcp_changed", format!("the {option} is changed from {sent} to {seen} {by}"))
        }
        _ => ("changed", format!("the {field} is changed from {sent} to {seen} {by}")),
    };
    Finding::new(code, Some(ttl), text)
}

fn asymmetry(trace: &Trace, found: &mut Vec<Finding>) {
    // One hop more or less comes from where routers count; the first of several that agree is told.
    let mut before: Option<i16> = None;
    for hop in &trace.hops {
        let Some(back) = hop.answers().find_map(return_length) else { continue };
        let extra = i16::from(back) - i16::from(hop.ttl);
        let is_new = before.is_none_or(|before| before != extra);
        if extra.abs() >= 2 && is_new && before.is_none_or(|before| before.abs() < 2) {
            let hops = if back == 1 { "hop" } else { "hops" };
            let text = format!(
                "answers from hop {} come back over {back} {hops}: the way back differs from the way there ({})",
                hop.ttl, hop.ttl
            );
            found.push(Finding::new("asymmetric", Some(hop.ttl), text));
        }
        before = Some(extra);
    }
}

fn several(trace: &Trace, found: &mut Vec<Finding>) {
    let many: Vec<String> =
        trace.hops.iter().filter(|hop| hop.addresses().len() > 1).map(|hop| hop.ttl.to_string()).collect();
    if !many.is_empty() {
        let text = format!(
            "several routers answer at hop {} within one flow: packets are spread one by one, or the path changed meanwhile; \
             --paths finds all ways",
            many.join(", ")
        );
        found.push(Finding::new("several_routers", None, text));
    }
}
