//! Captures of what passes between namespaces that lead nowhere.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::panic, reason = "a test")]
#![allow(clippy::items_after_statements, clippy::enum_glob_use, reason = "tables near their use")]

mod probe_support;

use std::net::TcpListener;
use std::time::Duration;

use probe_support::ask::{LO, PEER4, ask};
use probe_support::sandboxed;
use reachwhy::os::capture::{Capture, CaptureError};
use reachwhy::probe::{Flow, FlowFilter, ProbeKind};

#[test]
fn a_capture_keeps_the_flow_and_nothing_else() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let filter = FlowFilter {
            flows: vec![Flow::with_server(PEER4.into(), 6, 8080), Flow::with_server(PEER4.into(), 17, 53)],
            icmp_errors: true,
            neighbours: true,
        };
        let mut here = Capture::open(Some("t0"), &filter).unwrap();
        let mut there = other
            .run(|| Capture::open(None, &FlowFilter::flow(Flow::with_server(PEER4.into(), 6, 8080))))
            .unwrap()
            .unwrap();
        let listener = other.run(|| TcpListener::bind("10.9.0.2:8080").unwrap()).unwrap();
        ask(
            sandbox,
            [
                ProbeKind::connect((PEER4, 8080).into()),
                ProbeKind::connect((PEER4, 8081).into()),
                ProbeKind::udp(PEER4.into(), 53, b"x"),
                ProbeKind::udp(PEER4.into(), 54, b"x"),
                ProbeKind::echo(PEER4.into()),
            ],
        );
        assert!(there.wait(Duration::from_secs(1)));
        let lines = |capture: &mut Capture| -> Vec<String> {
            capture
                .drain()
                .iter()
                .map(|frame| format!("{} {}", if frame.outgoing { ">" } else { "<" }, frame.decode()))
                .collect()
        };
        let frames = here.drain();
        let seen: Vec<String> = frames.iter().map(|frame| frame.decode().to_string()).collect();
        let count = |needle: &str| seen.iter().filter(|line| line.contains(needle)).count();
        assert_eq!((count("arp who has 10.9.0.2"), count("arp 10.9.0.2 is at")), (1, 1), "{seen:#?}");
        assert_eq!((count("tcp SYN"), count("tcp SYN,ACK")), (2, 1), "{seen:#?}");
        assert_eq!(
            (count("port unreachable"), count("10.9.0.2:54 "), count(":8081"), count("echo")),
            (1, 0, 0, 0),
            "{seen:#?}"
        );
        // Stamped by the kernel as it happened.
        assert!(frames.windows(2).all(|two| two[0].at_ns <= two[1].at_ns), "{frames:#?}");
        let now = reachwhy::os::clock::wall_ns();
        assert!(frames.iter().all(|frame| now - frame.at_ns < 5_000_000_000));
        let syn = frames.iter().find(|frame| frame.decode().tcp().is_some()).unwrap();
        assert!(syn.outgoing && syn.interface == "t0" && syn.orig_len as usize == syn.bytes.len());
        let saved = serde_json::to_string(&frames).unwrap();
        assert_eq!(serde_json::from_str::<Vec<reachwhy::probe::CapturedFrame>>(&saved).unwrap(), frames);
        let theirs = lines(&mut there);
        assert!(theirs.iter().all(|line| line.contains(":8080")) && theirs[0].starts_with("< "), "{theirs:#?}");
        assert!(theirs[1].starts_with("> ") && theirs[1].ends_with("tcp SYN,ACK"), "{theirs:#?}");
        assert_eq!((here.drops(), there.drops()), (0, 0));
        drop(listener);
    });
}

#[test]
fn a_capture_that_nobody_reads_loses_nothing_for_a_while() {
    sandboxed(|sandbox| {
        let mut capture = Capture::open(Some("lo"), &FlowFilter::all()).unwrap();
        ask(sandbox, (1..=500u16).map(|port| ProbeKind::syn(LO, port)));
        let frames = capture.drain();
        // SYN and reset, each seen twice on loopback.
        assert_eq!((frames.len(), capture.drops()), (2000, 0));
        let file = reachwhy::probe::CapturedFrame::to_pcap(&frames);
        assert_eq!(reachwhy::wire::pcap::Reader::new(&file).unwrap().filter_map(Result::ok).count(), 2000);
        // More than the ring holds: what is lost is counted.
        for _ in 0..3 {
            ask(sandbox, (1..=500u16).map(|port| ProbeKind::syn(LO, port)));
        }
        let kept = capture.drain().len() as u64;
        assert_eq!((kept + capture.drops(), kept), (6000, 4096));
        assert!(matches!(Capture::open(Some("none0"), &FlowFilter::all()), Err(CaptureError::NoInterface(_))));
    });
}
