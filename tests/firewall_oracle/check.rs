//! What the walk says beside what the kernel does.

use std::net::IpAddr;
use std::time::Duration;

use reachwhy::firewall::{Facts, Outcome, Packet, Stack, Verdict, parse, walk};
use reachwhy::host::{Backend, DumpFormat, HostFacts, RulesetDump};
use reachwhy::wire::{Decoded, Encapsulation, Network};
use serde::{Deserialize, Serialize};

use crate::kernel::{Kernel, Met, feed, packet_id};
use crate::line::{CLIENT_MAC, Line};
use crate::packets::{Shot, bytes, fragments, frame_to, hex};
use crate::rules::{Focus, Kind, Rules};

/// What became of a packet, as far as both sides can say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fate {
    /// `filter INPUT 3`, `filter INPUT policy`, in order.
    pub path: Vec<String>,
    /// The header fields that left on the other side.
    pub left: Option<String>,
    /// All octets of what left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
    /// ICMP type and code that the sender got, or `rst`.
    pub answer: Option<String>,
}

/// The ruleset as the walk reads it: the text that was loaded, or for nft's own what nft lists.
pub(crate) fn dumps(rules: &Rules) -> Result<Vec<RulesetDump>, String> {
    let text = match rules.kind {
        Kind::Native => without_ours(&feed("nft", &["-j", "list", "ruleset"], "")?),
        _ => rules.text(),
    };
    let sets = if rules.sets.is_empty() { String::new() } else { feed("ipset", &["save"], "")? };
    Ok(dumps_of(rules, &text, &sets))
}

pub(crate) fn dumps_of(rules: &Rules, text: &str, sets: &str) -> Vec<RulesetDump> {
    let dump =
        |format, backend, text: &str| RulesetDump { format, backend, via: "oracle".to_owned(), text: text.to_owned() };
    let mut out = vec![match (rules.kind, rules.v6) {
        (Kind::Native, _) => dump(DumpFormat::NftJson, Backend::Nft, text),
        (kind, v6) => {
            let format = if v6 { DumpFormat::Ip6tablesSave } else { DumpFormat::IptablesSave };
            dump(format, if kind == Kind::Nft { Backend::Nft } else { Backend::Legacy }, text)
        }
    }];
    if !sets.is_empty() {
        out.push(dump(DumpFormat::IpsetSave, Backend::Nft, sets));
    }
    out
}

/// The list without the tracing table.
fn without_ours(text: &str) -> String {
    let mut list: serde_json::Value = serde_json::from_str(text).unwrap();
    list["nftables"].as_array_mut().unwrap().retain(|item| {
        let body = item.as_object().and_then(|object| object.values().next());
        let ours = |key: &str| body.is_some_and(|body| body.get(key).is_some_and(|name| name == "oracle"));
        !(ours("table") || item.get("table").is_some() && ours("name"))
    });
    list.to_string()
}

/// Reads the dumps; a ruleset that the kernel has taken must be read without complaint.
pub(crate) fn stack(dumps: &[RulesetDump]) -> Result<Stack, String> {
    let mut rulesets = Vec::new();
    for dump in dumps {
        let parsed = parse::dump(dump).map_err(|e| e.to_string())?;
        if let Some(odd) = parsed.warnings.first() {
            return Err(format!("a warning of what the kernel takes: {odd}"));
        }
        rulesets.push(parsed.ruleset);
    }
    Ok(Stack::from_rulesets(rulesets))
}

/// The question to the walk with the octets that are sent.
pub(crate) fn asked(shot: &Shot, id: u32) -> Packet {
    if shot.split.is_some() {
        let (offset, more) = (Some(0), Some(true));
        let whole = shot.packet.clone();
        return Packet {
            frag_offset: offset,
            more_fragments: more,
            octets: None,
            payload: None,
            length: None,
            ..whole
        };
    }
    Packet { octets: Some(hex(&bytes(shot, id))), ..shot.packet.clone() }
}

/// What the walk says; `None` where it leaves the answer open.
pub(crate) fn ours(stack: &Stack, packet: &Packet, facts: &HostFacts) -> (Option<Fate>, Outcome) {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let outcome = walk(stack, packet, &Facts::of(facts).at(clock));
    (fate(&outcome, packet), outcome)
}

/// What an answer says that can be compared; `None` where it is open.
pub(crate) fn fate(outcome: &Outcome, packet: &Packet) -> Option<Fate> {
    let guessed = |what: &String| what.starts_with("a packet of") || what.contains("the first is taken");
    let maybe = outcome.path.iter().any(|step| step.action == "maybe") || outcome.assumed.iter().any(guessed);
    if maybe || !outcome.branches.is_empty() || outcome.verdict == Verdict::Unknown {
        return None;
    }
    let mut path: Vec<String> =
        outcome.path.iter().map(|step| place(&step.at.table, &step.at.chain, step.at.rule)).collect();
    // An nft rule of several statements takes a step for each.
    path.dedup();
    let out = &outcome.packet_out;
    let forwarded = outcome.verdict == Verdict::Accept && out.out.as_deref().is_some_and(|out| out != "lo");
    let left = forwarded.then(|| {
        let given = |field: Option<u8>, old: Option<u8>| field.or(old).unwrap_or(0);
        fields(out.src, out.dst, out.sport.zip(out.dport), given(out.ttl, packet.ttl), given(out.tos, packet.tos))
    });
    let answer = outcome.reply.as_ref().map(|reply| match reply.icmp {
        Some((kind, code)) => format!("{kind}/{code} from {}", said(reply.from)),
        None => {
            let (sport, dport) = reply.ports.unwrap_or_default();
            let flags = reply.tcp_flags.as_deref().unwrap_or("");
            let numbers = (said(reply.seq), said(reply.ack));
            format!(
                "{flags} {}:{} > {} seq {} ack {}",
                said(reply.from),
                said(sport),
                said(dport),
                numbers.0,
                numbers.1
            )
        }
    });
    let leaves = outcome.reply.as_ref().and_then(|reply| reply.verdict);
    let answer = match leaves {
        Some(Verdict::Accept) => answer,
        Some(Verdict::Unknown) => Some("?".to_owned()),
        _ => None,
    };
    let whole = left.as_ref().and_then(|_| out.octets.clone());
    Some(Fate { path, left, whole, answer })
}

fn said<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

fn place(table: &str, chain: &str, rule: Option<u32>) -> String {
    match rule {
        Some(rule) => format!("{table} {chain} {rule}"),
        None => format!("{table} {chain} policy"),
    }
}

fn fields(src: IpAddr, dst: IpAddr, ports: Option<(u16, u16)>, ttl: u8, tos: u8) -> String {
    let ports = ports.map_or(String::new(), |(from, to)| format!(" {from} > {to}"));
    format!("{src} > {dst}{ports} ttl {ttl} tos {tos:#04x}")
}

/// Sends the packet and tells what became of it.
pub(crate) fn theirs(
    line: &Line,
    kernel: &mut Kernel,
    rules: &Rules,
    shot: &Shot,
    id: u32,
    patience: Duration,
) -> Fate {
    if rules.nat {
        kernel.forget_flows();
    }
    let packet = &shot.packet;
    let raw = bytes(shot, id);
    line.drain();
    let pieces = match shot.split {
        Some(at) => fragments(&raw, at, id).to_vec(),
        None => vec![raw],
    };
    for raw in pieces {
        if rules.focus == Focus::Output {
            line.leave(packet.dst, packet.mark.unwrap_or(0), &raw);
        } else {
            line.arrive(frame_to(packet), packet.mac_src.unwrap_or(CLIENT_MAC), &raw);
        }
    }
    std::thread::sleep(patience);
    observed(line, kernel, rules, packet, id)
}

/// What became of the packet with this number, as far as both can say it.
pub(crate) fn observed(line: &Line, kernel: &mut Kernel, rules: &Rules, packet: &Packet, id: u32) -> Fate {
    let met = kernel.drain(id);
    let (client, server) = line.drain();
    let mut fate = Fate { path: met.iter().map(written).collect(), left: None, whole: None, answer: None };
    for (to_client, frame) in client.iter().map(|f| (true, f)).chain(server.iter().map(|f| (false, f))) {
        let decoded = Decoded::parse(Encapsulation::Ip, frame);
        if own_id(&decoded) == Some(id) && !(to_client && rules.focus == Focus::Input) {
            fate.left = Some(seen(&decoded, packet));
            fate.whole = Some(hex(frame));
        } else if let Some(quoted) = decoded.icmp().filter(|icmp| icmp.is_error()) {
            // The quoted header, behind eight octets of ICMP.
            let inner = if rules.v6 { 48 } else { 28 };
            if frame.get(inner..).is_some_and(|inner| packet_id(inner) == id) {
                fate.answer = Some(format!("{}/{} from {}", quoted.kind, quoted.code, said(decoded.src())));
            }
        } else if let Some(tcp) = decoded.tcp().filter(|tcp| tcp.flags.contains(reachwhy::wire::TcpFlags::RST))
            && own_id(&decoded) != Some(id)
        {
            let flags = if tcp.flags.contains(reachwhy::wire::TcpFlags::ACK) { "rst,ack" } else { "rst" };
            let (src, ports) = (said(decoded.src()), (tcp.sport, tcp.dport));
            let numbers = (tcp.seq, tcp.ack);
            fate.answer = Some(format!("{flags} {src}:{} > {} seq {} ack {}", ports.0, ports.1, numbers.0, numbers.1));
        }
    }
    if rules.focus == Focus::Input && rules.text().contains("-j TEE") {
        // The copy goes its own way.
        fate.left = None;
        fate.path.retain(|place| !place.contains(" OUTPUT ") && !place.contains(" POSTROUTING "));
    }
    fate
}

fn written(met: &Met) -> String {
    place(&met.table, &met.chain, met.rule)
}

fn own_id(decoded: &Decoded<'_>) -> Option<u32> {
    match &decoded.network {
        Some(Network::Ipv4(header)) => Some(header.id.into()),
        Some(Network::Ipv6(header, _)) => Some(header.flow_label),
        _ => None,
    }
}

fn seen(decoded: &Decoded<'_>, packet: &Packet) -> String {
    let (Some(src), Some(dst)) = (decoded.src(), decoded.dst()) else { return "nothing readable".to_owned() };
    let tos = match &decoded.network {
        Some(Network::Ipv4(header)) => header.tos,
        Some(Network::Ipv6(header, _)) => header.traffic_class,
        _ => 0,
    };
    // Of protocols that are not decoded here the ports are taken as they were sent.
    let ports = decoded.ports().or(packet.sport.zip(packet.dport));
    fields(src, dst, ports, decoded.ttl().unwrap_or(0), tos)
}

/// Leaves out of both what cannot be compared for this packet.
pub(crate) fn level(rules: &Rules, shot: &Shot, ours: &mut Fate, theirs: &mut Fate) {
    let packet = &shot.packet;
    let later = shot.split.is_some()
        || packet.frag_offset.is_some_and(|offset| offset > 0)
        || packet.more_fragments == Some(true);
    // A first fragment's checksum is that of all of them.
    let odd = packet.proto == Some(reachwhy::firewall::packet::Proto(33));
    let open = ours.answer.as_deref() == Some("?");
    if later || odd || open || rules.focus == Focus::Output {
        (ours.answer, theirs.answer) = (None, None);
    }
    // What a closed port of the host's own says is no reject of the rules.
    // The chain that keeps conntrack running is at input where packets are forwarded.
    let arrived = ours.path.iter().any(|place| place.contains(" INPUT ") || place.starts_with("t kept"));
    if ours.answer.is_none() && (rules.focus == Focus::Input || arrived) {
        theirs.answer = None;
    }
    if ours.whole.is_none() || theirs.whole.is_none() {
        (ours.whole, theirs.whole) = (None, None);
    }
    if later {
        (ours.whole, theirs.whole) = (None, None);
        // Its ports are not there to be read.
        for fate in [ours, theirs] {
            fate.left = fate.left.as_ref().map(|_| "a fragment".to_owned());
        }
    }
}
