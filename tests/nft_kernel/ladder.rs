//! The hook ladder on real packets.

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use reachwhy::host::{LadderSpec, LadderTransport, RungCount};
use reachwhy::os::nft::Ladder;

use super::world::{has, inside, run};

fn spec(transport: LadderTransport, address: &str, port: u16) -> LadderSpec {
    let address: IpAddr = address.parse().unwrap();
    LadderSpec { transport, client: address, server: address, port: Some(port), devices: Vec::new() }
}

/// Reads until `done`: what is on its way through the loopback's queue is counted a moment later.
fn settled(ladder: &mut Ladder, done: impl Fn(&[RungCount]) -> bool) -> Vec<RungCount> {
    for _ in 0..200 {
        let counts = ladder.read().unwrap();
        if done(&counts) {
            return counts;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    ladder.read().unwrap()
}

fn rung<'a>(counts: &'a [RungCount], hook: &str, priority: i32) -> &'a RungCount {
    counts.iter().find(|count| count.hook == hook && count.priority == priority).unwrap()
}

#[test]
fn a_handshake_climbs_every_rung() {
    inside(|| {
        for address in ["127.0.0.1", "::1"] {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut ladder = Ladder::install(&LadderSpec {
                devices: vec!["lo".to_owned(), "nosuch0".to_owned()],
                ..spec(LadderTransport::Tcp, address, port)
            })
            .unwrap();
            assert_eq!(ladder.missing(), ["nosuch0"]);
            let before = ladder.read().unwrap();
            assert!(before.iter().all(|count| count.request + count.reply + count.icmp_error == 0));
            drop(TcpStream::connect((address, port)).unwrap());
            let counts = settled(&mut ladder, |counts| rung(counts, "input", 500).request >= 3);
            for hook in ["output", "postrouting", "prerouting", "input"] {
                // Our SYN, the ACK and the FIN; the other's SYN-ACK.
                assert!(rung(&counts, hook, 500).request >= 3, "{address} {hook}: {counts:?}");
                assert!(rung(&counts, hook, 500).reply >= 1, "{address} {hook}: {counts:?}");
            }
            assert!(rung(&counts, "prerouting", -450).request >= 3);
            assert!(rung(&counts, "prerouting", -250).request >= 3);
            assert_eq!(rung(&counts, "forward", -500).request, 0);
            let ingress = rung(&counts, "ingress", -500);
            assert_eq!(ingress.device.as_deref(), Some("lo"));
            assert!(ingress.request >= 3 && ingress.reply >= 1);
            assert_eq!(counts.len(), 13);
        }
    });
}

#[test]
fn refusals_are_counted_as_errors_of_this_flow_only() {
    inside(|| {
        for address in ["127.0.0.1", "::1"] {
            let mut ladder = Ladder::install(&spec(LadderTransport::Udp, address, 9)).unwrap();
            let socket = UdpSocket::bind((address, 0)).unwrap();
            socket.connect((address, 9)).unwrap();
            socket.send(b"x").unwrap();
            assert!(socket.recv(&mut [0; 8]).is_err());
            let counts = ladder.read().unwrap();
            let input = rung(&counts, "input", 500);
            assert_eq!((input.request, input.reply), (1, 0), "{address}");
            // Client and server are one address here, so that both directions' rules see it.
            assert_eq!(input.icmp_error, 2, "{address}");
        }
        // 127.0.0.3 has nothing to do with the flow between .1 and .2.
        let mut ladder = Ladder::install(&LadderSpec {
            server: "127.0.0.2".parse().unwrap(),
            ..spec(LadderTransport::Udp, "127.0.0.1", 9)
        })
        .unwrap();
        for (server, errors) in [("127.0.0.3", 0), ("127.0.0.2", 1)] {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect((server, 9)).unwrap();
            socket.send(b"x").unwrap();
            assert!(socket.recv(&mut [0; 8]).is_err());
            assert_eq!(rung(&ladder.read().unwrap(), "output", 500).icmp_error, errors);
        }
    });
}

#[test]
fn a_drop_is_bracketed() {
    inside(|| {
        if !has("nft") {
            return;
        }
        run("nft", &["-f", "-"], "table inet t { chain c { type filter hook input priority 0; udp dport 77 drop; }; }");
        let mut ladder = Ladder::install(&spec(LadderTransport::Udp, "127.0.0.1", 77)).unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:77").unwrap();
        let counts = settled(&mut ladder, |counts| rung(counts, "input", -500).request == 1);
        assert_eq!(rung(&counts, "input", -500).request, 1);
        assert_eq!(rung(&counts, "input", 500).request, 0);
    });
}

/// What the child of the next test does: it is nothing by itself.
#[test]
fn child_that_holds_a_ladder() {
    if std::env::var_os("REACHWHY_TEST_HOLD_LADDER").is_none() {
        return;
    }
    let _ladder = Ladder::install(&spec(LadderTransport::Tcp, "127.0.0.1", 80)).unwrap();
    println!("installed");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_nothing() {
    inside(|| {
        if !has("nft") {
            return;
        }
        // A child of this thread is in this thread's network namespace.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "nft_kernel::ladder::child_that_holds_a_ladder", "--nocapture"])
            .env("REACHWHY_TEST_HOLD_LADDER", "1")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let there = || run("nft", &["list", "tables"], "").contains("reachwhy_ladder_");
        let becomes = |want: bool| {
            (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                there() == want
            })
        };
        assert!(becomes(true), "the child installed nothing");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(becomes(false), "the counting table outlived its process");
    });
}

#[test]
fn several_live_side_by_side_and_vanish() {
    inside(|| {
        let tables = |want: usize| {
            if has("nft") {
                let all = run("nft", &["list", "tables"], "");
                assert_eq!(all.matches("reachwhy_ladder_").count(), want, "{all}");
            }
        };
        let one = spec(LadderTransport::Udp, "127.0.0.1", 9);
        let mut first = Ladder::install(&one).unwrap();
        let mut second = Ladder::install(&one).unwrap();
        assert_ne!(first.table(), second.table());
        tables(2);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:9").unwrap();
        assert_eq!(rung(&first.read().unwrap(), "output", 500).request, 1);
        assert_eq!(rung(&second.read().unwrap(), "output", 500).request, 1);
        first.remove().unwrap();
        tables(1);
        assert_eq!(rung(&second.read().unwrap(), "output", 500).request, 1);
        drop(second);
        tables(0);
    });
}
