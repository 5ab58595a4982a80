//! What the probe tests ask with.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use reachwhy::os::probe::{RunOptions, run};
use reachwhy::probe::{ProbeKind, ProbeReport, ProbeSpec, RttSource, RunReport};

use super::Sandbox;

pub const LO: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The other host of [`Sandbox::pair`].
pub const PEER4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

pub fn specs(kinds: impl IntoIterator<Item = ProbeKind>) -> Vec<ProbeSpec> {
    (0..).zip(kinds).map(|(id, kind)| ProbeSpec::new(id, kind).timeout(Duration::from_millis(300))).collect()
}

pub fn ask(sandbox: &Sandbox, kinds: impl IntoIterator<Item = ProbeKind>) -> RunReport {
    ask_with(sandbox, specs(kinds), &RunOptions::default())
}

pub fn ask_with(sandbox: &Sandbox, specs: Vec<ProbeSpec>, options: &RunOptions<'_>) -> RunReport {
    sandbox.assert_closed();
    run(specs, options, &mut |_| {}).unwrap()
}

pub fn icmp(report: &ProbeReport) -> Option<(u8, u8, IpAddr)> {
    let reply = report.deciding()?;
    report.icmp().map(|icmp| (icmp.icmp_type, icmp.code, reply.from))
}

/// A measured round trip that can be true on loopback or a veth pair.
pub fn assert_sane(report: &ProbeReport, source: RttSource) {
    let reply = report.deciding().unwrap();
    let rtt = reply.rtt_us.unwrap();
    assert!(rtt > 0.0 && rtt < 50_000.0, "{report:#?}");
    assert_eq!(reply.rtt_source, Some(source), "{report:#?}");
    assert!(reply.at_ns > report.sent[0].at_ns, "{report:#?}");
}

pub fn arp(target: Ipv4Addr) -> ProbeKind {
    ProbeKind::Arp { interface: "t0".into(), target, source: None }
}
