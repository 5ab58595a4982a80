//! What the kernel itself says of the packets it dropped, beside a finding that says so by other evidence.

use super::super::causes::{Code, Layer};
use super::super::diagnosis::Where;
use super::super::evidence::Evidence;
use super::{Finding, Observation};
use crate::host::drops::{KernelDrop, counted};

/// Drops of a busy machine are many kinds; more than so many are no evidence for one packet.
const KINDS: usize = 3;

/// Adds the kernel's reason where it bears the finding out.
pub(crate) fn corroborate(known: &Evidence<'_>, finding: Finding) -> Finding {
    let side = match finding.place {
        Where::Client => Some(&known.client),
        Where::Server => known.server.as_ref(),
        Where::Path | Where::Dns => None,
    };
    let Some((side, drops)) = side.and_then(|side| Some((side, side.end.watch.drops.as_deref()?))) else {
        return finding;
    };
    let fitting: Vec<KernelDrop> = drops.iter().filter(|drop| fits(finding.code, &drop.reason)).cloned().collect();
    let list = counted(&fitting);
    if list.is_empty() || list.len() > KINDS {
        return finding;
    }
    let said: Vec<String> =
        list.iter().map(|(count, drop)| format!("{count} × {} in {}", drop.reason, drop.location)).collect();
    let says = format!("asked while one more packet was sent, the kernel says what it dropped: {}", said.join(", "));
    let source = format!("tracepoint skb:kfree_skb on the {}'s machine", side.place);
    Finding { evidence: [finding.evidence, vec![Observation::new(says, source)]].concat(), ..finding }
}

/// Whether a reason of the kernel (include/net/dropreason-core.h) is what the cause looks like from inside.
fn fits(code: Code, reason: &str) -> bool {
    match code {
        Code::RouteRpFilter => reason == "IP_RPFILTER",
        Code::FwConntrackFull | Code::FwConntrackInvalid | Code::FwRateLimited | Code::FwNatWrong => {
            reason == "NETFILTER_DROP"
        }
        Code::RouteReturnMissing | Code::RouteMissing => reason == "IP_OUTNOROUTES",
        Code::AddrNone | Code::RouteForwardingOff => matches!(reason, "IP_INADDRERRORS" | "IP_INNOROUTES"),
        Code::TcpNotListening
        | Code::TcpLoopbackOnly
        | Code::TcpWrongAddress
        | Code::TcpFamilyMismatch
        | Code::TcpPortClosed
        | Code::UdpPortClosed => reason == "NO_SOCKET",
        Code::TcpBacklogFull => matches!(reason, "TCP_LISTEN_OVERFLOW" | "SOCKET_BACKLOG" | "LISTEN_OVERFLOW"),
        Code::NeighWrongMac => matches!(reason, "OTHERHOST" | "IP_INADDRERRORS"),
        Code::LinkNoCarrier | Code::LinkDown => matches!(reason, "QDISC_DROP" | "DEV_READY" | "NEIGH_FAILED"),
        _ if code.layer() == Layer::Firewall => reason == "NETFILTER_DROP",
        _ if code.layer() == Layer::Neighbour => reason.starts_with("NEIGH_"),
        _ => false,
    }
}
