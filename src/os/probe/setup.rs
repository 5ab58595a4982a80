//! What is settled before the first packet: filters and limits.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::super::sys;
use super::ProbeError;
use super::sockets::Sockets;
use crate::probe::{ProbeKind, bpf};

/// Descriptors left for everything else.
const SPARE: usize = 64;

/// The source port that a caller named.
pub(super) fn fixed_port(kind: &ProbeKind) -> Option<u16> {
    if let ProbeKind::TcpSyn { sport, .. } = kind { *sport } else { None }
}

/// Attaches the kernel-side filters to the raw sockets of one family.
pub(super) fn attach_filters(
    sockets: &Sockets,
    v6: bool,
    echo_id: u16,
    tries: usize,
    fixed: &[u16],
) -> Result<(), ProbeError> {
    let ports = sockets.reserved_ports(v6).chain(fixed.iter().copied());
    let tcp_ports = ports.fold(None, |range: Option<(u16, u16)>, port| {
        Some(range.map_or((port, port), |(low, high)| (low.min(port), high.max(port))))
    });
    // Each 65536 tries take one identifier; a range that would wrap around is all of them.
    let last = u16::try_from(tries >> 16).ok().and_then(|more| echo_id.checked_add(more));
    let wanted = bpf::Wanted { echo_ids: last.map_or((0, u16::MAX), |last| (echo_id, last)), tcp_ports };
    let attach = |index: usize, program: &[bpf::Instruction]| {
        sys::attach_filter(&sockets.channels[index], program).map_err(ProbeError::system("attach a filter"))
    };
    if let Some(index) = sockets.icmp_channel(v6).filter(|_| sockets.kernel_echo_id[usize::from(v6)].is_none()) {
        attach(index, &if v6 { bpf::raw_icmp6(&wanted) } else { bpf::raw_icmp4(&wanted) })?;
    }
    if let (Some(index), Some(ports)) = (sockets.tcp_channel(v6), tcp_ports) {
        attach(index, &bpf::raw_tcp(v6, ports))?;
    }
    Ok(())
}

/// How many connections may be open at once; asks for more descriptors when that would help.
pub(super) fn descriptors(wanted: usize) -> usize {
    let count = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(SPARE).max(1);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 256 };
    if wanted <= count(soft) {
        return count(soft);
    }
    let raised = hard.min((wanted + 2 * SPARE) as u64);
    if raised > soft && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_ok() { count(raised) } else { count(soft) }
}
