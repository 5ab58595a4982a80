//! Does the client's own packet filter let the request out and the answer in?

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Where};
use super::super::evidence::Direction;
use super::firewall::{Codes, Passage, at, note};
use super::{Finding, Round};

const OUT: Codes = Codes { drop: Code::FwClientOutputDrop, reject: Code::FwClientOutputReject };
const IN: Codes = Codes { drop: Code::FwClientInputDrop, reject: Code::FwClientInputDrop };

pub(super) fn output(round: &mut Round<'_>) {
    let id = "client.firewall.output";
    let known = round.known;
    if known.trial().is_none() || known.way().is_none() {
        return;
    }
    if known.reached() {
        round.pass(Layer::Firewall, id, "OUTPUT lets the request out");
        return;
    }
    for hook in ["output", "postrouting"] {
        match at(round, &known.client, hook, Direction::Request, &OUT) {
            Passage::Taken(finding) => {
                note(round, id, Passage::Taken(finding), "OUTPUT", &OUT);
                return;
            }
            passage @ Passage::Unwatched { .. } if hook == "output" => {
                if let Some(finding) = by_symptom(round) {
                    round.fail(id, finding);
                } else {
                    note(round, id, passage, "OUTPUT", &OUT);
                }
                return;
            }
            passage if hook == "postrouting" => {
                note(round, id, passage, "OUTPUT", &OUT);
            }
            _ => {}
        }
    }
}

/// Without the right to count: the signs that only a local filter leaves.
fn by_symptom(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    let exchange = known.exchange()?;
    let on_wire = known.on_wire(&known.client, Direction::Request);
    let answered = !known.icmp_errors().is_empty()
        || known
            .client
            .frames
            .as_ref()
            .is_some_and(|frames| frames.iter().any(|f| !f.outgoing && known.is_flow(f, Direction::Reply)));
    let nothing_left = on_wire == Some(0) && !answered;
    let refused = known.errno() == Some("ECONNREFUSED");
    let eperm = matches!(known.errno(), Some("EPERM" | "EACCES"));
    // TCPRetransFail: the kernel could not hand its own retransmission to the network.
    let fails = known.client.grew("TcpExtTCPRetransFail").filter(|n| *n > 0);
    let object = "OUTPUT rules of the client";
    let from_us = known.icmp_errors().iter().any(|(from, ..)| Some(*from) == known.source);
    if refused && (nothing_left || from_us) {
        return Some(
            Finding::new(Code::FwClientOutputReject, Where::Client, object, "A rule of the client's own firewall rejects the request: the refusal came without a packet on the wire.")
                .seen(format!("connect() gave ECONNREFUSED after {:.1} ms", exchange.connect_ms), "connect(2)")
                .seen_if(nothing_left.then(|| super::Observation::new("0 packets to the target left", "capture on the client")))
                .seen_if(from_us.then(|| super::Observation::new("the ICMP error came from the client's own address", "error queue of the socket")))
                .but(Confidence::Likely, &[], Some("sudo nft list ruleset; sudo iptables-save -c".to_owned())),
        );
    }
    if eperm {
        let errno = known.errno().unwrap_or("EPERM");
        return Some(
            Finding::new(
                Code::FwClientOutputDrop,
                Where::Client,
                object,
                "A local policy of the client (packet filter, cgroup or security module) forbids the request.",
            )
            .seen(format!("the system call gave {errno} at once"), "connect(2)/sendmsg(2)")
            .but(
                Confidence::Likely,
                &[Code::FwClientOutputReject],
                Some("sudo nft list ruleset; sudo iptables-save -c".to_owned()),
            ),
        );
    }
    let quiet = nothing_left && known.neighbour_macs().is_none_or(|macs| !macs.is_empty());
    if quiet || (on_wire.is_none() && fails.is_some()) {
        return Some(
            Finding::new(
                Code::FwClientOutputDrop,
                Where::Client,
                object,
                "A rule of the client's own firewall drops the request before it leaves.",
            )
            .seen_if(fails.map(|n| {
                super::Observation::new(
                    format!("TcpExtTCPRetransFail +{n}: the kernel could not send its own retransmission"),
                    "nstat on the client",
                )
            }))
            .seen_if(
                nothing_left.then(|| super::Observation::new("0 packets to the target left", "capture on the client")),
            )
            .but(
                Confidence::Likely,
                &[Code::FwFiltered],
                Some("sudo nft list ruleset; sudo iptables-save -c".to_owned()),
            ),
        );
    }
    None
}

pub(super) fn input(round: &mut Round<'_>) {
    let id = "client.firewall.input";
    let known = round.known;
    if known.trial().is_none() || known.way().is_none() {
        return;
    }
    if known.reached() {
        round.pass(Layer::Firewall, id, "INPUT lets the answer in");
        return;
    }
    let client = &known.client;
    if let (Some((n, last)), Some((0, _))) =
        (client.through("prerouting", Direction::Reply), client.through("input", Direction::Reply))
        && n > 0
        && last > 0
    {
        let interface = known.way().and_then(|(_, _, i)| i).unwrap_or("?");
        let filter = client.grew("TcpExtIPReversePathFilter").is_some_and(|n| n > 0);
        let code = if filter { Code::RouteRpFilter } else { Code::RoutePolicyRule };
        let finding = Finding::new(
            code,
            Where::Client,
            format!("routing of the answer on {interface}"),
            "The client's routing decision drops the answer before INPUT.",
        )
        .seen(
            format!("{} passed PREROUTING, 0 entered INPUT", super::several(n, "answer")),
            "hook ladder on the client",
        )
        .but(
            if filter { Confidence::Proven } else { Confidence::Likely },
            &[Code::RouteRpFilter],
            Some("ip route get SERVER; sysctl net.ipv4.conf.all.rp_filter".to_owned()),
        );
        round.fail(id, finding);
        return;
    }
    for hook in ["prerouting", "input"] {
        match at(round, client, hook, Direction::Reply, &IN) {
            taken @ Passage::Taken(_) => {
                note(round, id, taken, "INPUT", &IN);
                return;
            }
            Passage::Unwatched { why } if hook == "input" => {
                // The answer is on our wire and the kernel keeps asking: it never got it.
                let back = known.on_wire(client, Direction::Reply);
                let opened = client
                    .frames
                    .as_ref()
                    .is_some_and(|frames| frames.iter().any(|f| !f.outgoing && f.what.is_syn_ack()));
                if opened && known.exchange().is_some_and(|e| e.connect == crate::probe::exchange::Outcome::Timeout) {
                    let finding = Finding::new(Code::FwClientInputDrop, Where::Client, "INPUT rules of the client", "A rule of the client's own firewall drops the answer: it arrives and the kernel does not get it.")
                        .seen(format!("{} answers arrived", back.unwrap_or(0)), "capture on the client")
                        .seen("connect() timed out all the same", "connect(2)")
                        .but(Confidence::Likely, &[Code::RouteRpFilter], Some("sudo nft list ruleset; sudo iptables-save -c".to_owned()));
                    round.fail(id, finding);
                } else {
                    note(round, id, Passage::Unwatched { why }, "INPUT", &IN);
                }
                return;
            }
            passage if hook == "input" => {
                note(round, id, passage, "INPUT", &IN);
            }
            _ => {}
        }
    }
}
