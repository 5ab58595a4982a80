//! The real stack, captured: what it does is told rightly, and as tshark tells it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::panic, reason = "a test")]

mod probe_support;
mod tcp_support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use probe_support::sandboxed;
use reachwhy::os::capture::Tap;
use reachwhy::tcp::{CloseKind, Code, ConnectionReport};
use reachwhy::wire::pcap;
use tcp_support::read;

/// What passed on loopback while `work` was done.
fn captured(work: impl FnOnce()) -> Vec<ConnectionReport> {
    let mut tap = Tap::open(Some("lo")).unwrap();
    work();
    let mut writer = pcap::Writer::new(pcap::ETHERNET);
    for _ in 0..20 {
        while tap.next(&mut |packet| writer.push(packet.at_ns, packet.orig_len, packet.bytes)) {}
        tap.wait(None, Duration::from_millis(20));
    }
    assert_eq!(tap.drops(), 0);
    read(&writer.finish())
}

/// A listener and a connection to it.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn codes(report: &ConnectionReport) -> Vec<Code> {
    report.findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn a_conversation_is_heard_once_and_told_rightly() {
    sandboxed(|_| {
        let reports = captured(|| {
            let (mut client, mut server) = pair();
            let mut buffer = [0; 100];
            client.write_all(b"question").unwrap();
            assert_eq!(server.read(&mut buffer).unwrap(), 8);
            server.write_all(b"answer").unwrap();
            assert_eq!(client.read(&mut buffer).unwrap(), 6);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(server.read(&mut buffer).unwrap(), 0);
            drop(server);
            assert_eq!(client.read(&mut buffer).unwrap(), 0);
        });
        let [report] = &reports[..] else { panic!("{reports:#?}") };
        assert_eq!((report.state, report.zeek.state, report.close.kind), ("closed", "SF", CloseKind::Fin));
        assert_eq!((report.from_client.data, report.from_server.data), (8, 6));
        assert!(report.handshake.rtt_ms.is_some() && report.findings.is_empty(), "{report:#?}");
    });
}

#[test]
fn refusals_and_resets_of_the_kernel() {
    sandboxed(|_| {
        let reports = captured(|| {
            let closed: SocketAddr = "127.0.0.1:9".parse().unwrap();
            assert!(TcpStream::connect(closed).is_err());
            // Closing with data unread is answered by RST.
            let (mut client, server) = pair();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            std::thread::sleep(Duration::from_millis(20));
            drop(server);
            std::thread::sleep(Duration::from_millis(20));
        });
        assert_eq!(reports.len(), 2, "{reports:#?}");
        assert_eq!(reports[0].state, "refused");
        assert!(codes(&reports[0]).contains(&Code::SynRefused));
        assert_eq!((reports[1].state, reports[1].close.kind), ("reset", CloseKind::Rst));
        assert!(codes(&reports[1]).contains(&Code::ResetMidTransfer), "{:#?}", reports[1]);
        assert!(!codes(&reports[1]).contains(&Code::ResetByOtherHop));
    });
}

#[test]
fn a_reader_that_does_not_read_closes_the_window() {
    sandboxed(|_| {
        let reports = captured(|| {
            let (mut client, mut server) = pair();
            client.set_nonblocking(true).unwrap();
            let block = vec![7; 60_000];
            // Until both buffers are full and stay so.
            let mut full = 0;
            while full < 15 {
                let taken = client.write(&block).unwrap_or(0);
                full = if taken > 0 { 0 } else { full + 1 };
                if taken == 0 {
                    std::thread::sleep(Duration::from_millis(30));
                }
            }
            let mut sink = vec![0; 1 << 20];
            server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            while server.read(&mut sink).is_ok_and(|count| count > 0) {}
        });
        let [report] = &reports[..] else { panic!("{} connections", reports.len()) };
        let codes = codes(report);
        assert!(codes.contains(&Code::ZeroWindow) && codes.contains(&Code::WindowStall), "{codes:?}");
        assert!(report.from_server.zero_window_ms > 100.0, "{}", report.verdict);
    });
}

#[test]
fn crafted_segments_are_answered_as_the_rfc_says() {
    sandboxed(|_| {
        let send = |target: &str, more: &[&str]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_reachwhy"));
            command.args(["tcp", "send", target, "--json", "--tries", "1", "--timeout", "0.5"]).args(more);
            let output = command.output().unwrap();
            serde_json::from_slice::<serde_json::Value>(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
        };
        let (client, server) = pair();
        let (to, from) = (server.local_addr().unwrap().to_string(), client.local_addr().unwrap().port().to_string());
        // In the name of a connection that is there: neither a SYN nor an acknowledgement of nothing changes it.
        for flags in ["SYN", "ACK"] {
            let report = send(&to, &["--flags", flags, "--sport", &from, "--seq", "7", "--ack", "9"]);
            assert_eq!(report["answers"][0]["flags"], "ACK", "{report:#}");
            assert_eq!(
                (&report["judgement"]["port"], &report["judgement"]["conforms"]),
                (&"open".into(), &true.into())
            );
        }
        // Where nobody listens the reset takes its number from the acknowledgement, or counts the data.
        let report = send("127.0.0.1:9", &["--flags", "ACK", "--seq", "5", "--ack", "4242"]);
        assert_eq!(report["answers"][0]["acknowledges"], true, "{report:#}");
        let report = send("127.0.0.1:9", &["--flags", "SYN", "--seq", "4294967290", "--data", "GET /\\r\\n\\x41"]);
        assert_eq!(
            (&report["data_len"], &report["answers"][0]["acknowledges"]),
            (&8.into(), &true.into()),
            "{report:#}"
        );
        assert_eq!(report["judgement"]["port"], "closed");
    });
}
