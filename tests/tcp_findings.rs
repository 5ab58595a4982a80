//! Each finding produced on purpose, by segments made by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod tcp_support;

use std::net::Ipv4Addr;

use reachwhy::tcp::compare::{Fate, compare, pairs};
use reachwhy::tcp::{CloseBy, CloseKind, Closing, Code, Connection, Crowd, Keep, Limits, Reading, State, lesson};
use reachwhy::wire::capture::CaptureReader;
use reachwhy::wire::{Ipv4Header, TcpFlags, TcpHeader};
use tcp_support::{C0, S0, Seg, Talk, syn_options};

fn codes(talk: &Talk) -> Vec<Code> {
    talk.report().findings.iter().map(|finding| finding.code).collect()
}

#[track_caller]
fn has(talk: &Talk, code: Code) {
    let found = codes(talk);
    assert!(found.contains(&code), "{code} is not among {found:?}: {}", talk.report().verdict);
}

#[track_caller]
fn has_not(talk: &Talk, code: Code) {
    let found = codes(talk);
    assert!(!found.contains(&code), "{code} is among {found:?}: {}", talk.report().verdict);
}

fn connections(file: &[u8]) -> Vec<Connection> {
    let keep = Keep { steps: 10_000, data: 2000, octets: 1 << 20 };
    let mut reading = Reading::new(Limits { keep, ..Limits::default() }, 1);
    let mut reader = CaptureReader::new(file).unwrap();
    while let Ok(Some(packet)) = reader.next_packet() {
        reading.packet(&packet);
    }
    reading.table.finish()
}

#[test]
fn a_whole_conversation() {
    let mut talk = Talk::default();
    talk.open().up("PSH,ACK", 1, 1, b"GET / HTTP/1.1\r\n\r\n").wait(1).down("ACK", 1, 19, b"");
    talk.wait(30)
        .down("PSH,ACK", 1, 19, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        .wait(1)
        .up("ACK", 19, 41, b"");
    talk.up("FIN,ACK", 19, 41, b"").wait(1).down("ACK", 41, 20, b"").down("FIN,ACK", 41, 20, b"").wait(1);
    talk.up("ACK", 20, 42, b"");
    let report = talk.report();
    assert!(report.findings.is_empty() && !report.has_problem(), "{report:#?}");
    assert_eq!((report.state, report.states.client, report.states.server), ("closed", State::TimeWait, State::Closed));
    assert_eq!((report.zeek.state, report.zeek.history.as_str()), ("SF", "ShADadFf"));
    let handshake = &report.handshake;
    assert_eq!((handshake.syn, handshake.syn_ack, handshake.ack), (Some(1), Some(2), Some(3)));
    assert_eq!(
        (handshake.server_side_ms, handshake.client_side_ms, handshake.rtt_ms),
        (Some(1.1), Some(1.1), Some(2.2))
    );
    assert_eq!((report.close.by, report.close.kind), (Some(CloseBy::Client), CloseKind::Fin));
    assert_eq!(report.close.how, Some(Closing::FourWay));
    assert_eq!((report.from_client.data, report.from_server.data, report.packets), (18, 40, 11));
    assert!(report.verdict.contains("closed by the client in four steps"), "{}", report.verdict);
    let connection = &connections(&talk.file())[0];
    let titles: Vec<&str> = lesson::lessons(connection, &report).iter().map(|lesson| lesson.title).collect();
    assert_eq!(titles, ["TCP and UDP", "The three-way handshake", "Data and acknowledgements", "Closing", "The flags"]);
}

#[test]
fn ways_to_close() {
    let how = |close: &dyn Fn(&mut Talk)| {
        let mut talk = Talk::default();
        close(talk.open());
        let report = talk.report();
        (report.close.how, report.states.client, report.states.server)
    };
    let three = how(&|talk| {
        talk.down("FIN,ACK", 1, 1, b"").wait(1).up("FIN,ACK", 1, 2, b"").wait(1).down("ACK", 2, 2, b"");
    });
    assert_eq!(three, (Some(Closing::ThreeWay), State::Closed, State::TimeWait));
    let both = how(&|talk| {
        talk.up("FIN,ACK", 1, 1, b"").down("FIN,ACK", 1, 1, b"").up("ACK", 2, 2, b"").down("ACK", 2, 2, b"");
    });
    assert_eq!(both, (Some(Closing::Simultaneous), State::TimeWait, State::TimeWait));
    let half = how(&|talk| {
        talk.up("FIN,ACK", 1, 1, b"").wait(1).down("ACK", 1, 2, b"").wait(1).down("PSH,ACK", 1, 2, b"more");
        talk.wait(1).up("ACK", 2, 5, b"").down("FIN,ACK", 5, 2, b"").up("ACK", 2, 6, b"");
    });
    assert_eq!(half.0, Some(Closing::HalfClosed));
    let open = how(&|talk| {
        talk.up("FIN,ACK", 1, 1, b"").wait(1).down("ACK", 1, 2, b"");
    });
    assert_eq!(open, (None, State::FinWait2, State::CloseWait));
}

#[test]
fn a_syn_that_nobody_answers_and_one_that_is_refused() {
    let mut silent = Talk::default();
    silent.up("SYN", 0, 0, b"").wait(1000).up("SYN", 0, 0, b"").wait(2000).up("SYN", 0, 0, b"");
    has(&silent, Code::SynUnanswered);
    let report = silent.report();
    assert_eq!((report.state, report.zeek.state, report.handshake.syns), ("unanswered", "S0", 3));

    let mut refused = Talk::default();
    refused.up("SYN", 0, 0, b"").wait(1).down("RST,ACK", 0, 1, b"");
    has(&refused, Code::SynRefused);
    has_not(&refused, Code::ResetByOtherHop);
    assert_eq!((refused.report().state, refused.report().zeek.state), ("refused", "REJ"));
}

fn segment(up: bool, flags: &str, seq: u32, ack: u32, ttl: u8) -> Seg {
    let flags: TcpFlags = flags.parse().unwrap();
    let (mine, theirs) = if up { (C0, S0) } else { (S0, C0) };
    let options = if flags.contains(TcpFlags::SYN) { syn_options(Some(7)) } else { Vec::new() };
    Seg { up, flags, seq: mine + seq, ack: theirs + ack, window: 500, options, data: Vec::new(), ttl }
}

#[test]
fn a_reset_from_the_middle_is_told_by_its_ttl_or_by_what_follows() {
    let mut after = Talk::default();
    after.open().up("PSH,ACK", 1, 1, b"GET /").put(&segment(false, "RST", 1, 6, 41));
    has(&after, Code::ResetByOtherHop);

    // A firewall refuses in the server's name, the server itself accepts.
    let mut before = Talk::default();
    before.up("SYN", 0, 0, b"").put(&segment(false, "RST,ACK", 0, 1, 61)).wait(1);
    before.put(&segment(false, "SYN,ACK", 0, 1, 61));
    has(&before, Code::ResetByOtherHop);
    has_not(&before, Code::SynRefused);

    let mut own = Talk::default();
    own.open().up("PSH,ACK", 1, 1, b"GET /").put(&segment(false, "RST", 1, 6, 64));
    has_not(&own, Code::ResetByOtherHop);
    has(&own, Code::ResetMidTransfer);
}

/// A server's packet with an IP identification of its own, and a checksum that may be wrong.
fn numbered(talk: &mut Talk, flags: &str, seq: u32, id: u16, data: &[u8], wrong: bool) {
    let mut header = TcpHeader::new(80, 40000, flags.parse().unwrap());
    (header.seq, header.ack, header.window) = (S0 + seq, C0 + 6, 500);
    let mut segment = header.segment(talk.server.into(), talk.client.into(), data);
    if wrong {
        segment[17] ^= 0x55;
    }
    let mut ip = Ipv4Header::new(talk.server, talk.client, 6);
    ip.id = id;
    talk.raw(&ip.packet(&segment));
}

#[test]
fn a_reset_from_the_middle_is_told_by_its_number_or_by_a_server_that_goes_on() {
    let talk = |ids: [u16; 5], reset: u16, after: bool| {
        let mut talk = Talk::default();
        talk.open().up("PSH,ACK", 1, 1, b"GET /");
        for (n, id) in (0..).zip(ids) {
            numbered(&mut talk, "ACK", 1 + n * 10, id, &[7; 10], false);
        }
        numbered(&mut talk, "RST", 51, reset, b"", false);
        if after {
            talk.wait(30);
            numbered(&mut talk, "PSH,ACK", 51, ids[4] + 1, &[7; 10], false);
        }
        talk
    };
    let counting = [700, 701, 703, 704, 705];
    has(&talk(counting, 54321, false), Code::ResetByOtherHop);
    has(&talk(counting, 706, true), Code::ResetByOtherHop);
    // The next number, 0 (as Linux resets what has no socket), or numbers that were never counted say nothing.
    has_not(&talk(counting, 706, false), Code::ResetByOtherHop);
    has_not(&talk(counting, 0, false), Code::ResetByOtherHop);
    has_not(&talk([700, 9000, 33, 60000, 5], 54321, false), Code::ResetByOtherHop);
    has_not(&talk([0; 5], 54321, false), Code::ResetByOtherHop);
}

#[test]
fn a_wrong_checksum_counts_where_the_others_are_right() {
    let talk = |wrong: [bool; 6]| {
        let mut talk = Talk::default();
        talk.open().up("PSH,ACK", 1, 1, b"GET /");
        for (n, wrong) in (0..).zip(wrong) {
            numbered(&mut talk, "ACK", 1 + n * 10, 0, &[7; 10], wrong);
        }
        talk
    };
    has(&talk([false, false, false, true, false, false]), Code::BadChecksum);
    has_not(&talk([false; 6]), Code::BadChecksum);
    // On the sender itself, whose card computes them.
    has_not(&talk([true; 6]), Code::BadChecksum);
    has_not(&talk([true, false, false, false, false, true]), Code::BadChecksum);
}

#[test]
fn half_open_connections() {
    let mut unfinished = Talk::default();
    unfinished.up("SYN", 0, 0, b"").wait(1).down("SYN,ACK", 0, 1, b"").wait(1000).down("SYN,ACK", 0, 1, b"");
    has(&unfinished, Code::HalfOpen);
    let mut forgotten = Talk::default();
    forgotten.up("PSH,ACK", 100, 100, b"still there?").wait(1).down("RST", 100, 0, b"");
    has(&forgotten, Code::HalfOpen);
    let mut old = Talk::default();
    old.up("SYN", 0, 0, b"").wait(1).down("ACK", 7000, 9000, b"");
    has(&old, Code::HalfOpen);
}

#[test]
fn both_may_open_at_once() {
    let mut talk = Talk::default();
    talk.up("SYN", 0, 0, b"").down("SYN", 0, 0, b"").wait(1);
    talk.up("SYN,ACK", 0, 1, b"").down("SYN,ACK", 0, 1, b"");
    has(&talk, Code::SimultaneousOpen);
    assert_eq!(talk.report().states.client, State::Established);
}

#[test]
fn illegal_flags_and_scans() {
    for flags in ["none", "FIN", "FIN,PSH,URG", "SYN,FIN", "SYN,RST"] {
        let mut talk = Talk::default();
        talk.up(flags, 0, 0, b"");
        has(&talk, Code::IllegalFlags);
    }
    let mut scan = Talk::default();
    for port in 1..=20 {
        scan.ports = (50_000, port);
        scan.up("FIN,PSH,URG", 0, 0, b"");
    }
    let mut flood = Talk::default();
    for n in 0..150u8 {
        flood.client = Ipv4Addr::new(10, 9, 0, n);
        flood.up("SYN", 0, 0, b"");
    }
    for (talk, code, says) in [(scan, Code::PortScan, "Xmas scan"), (flood, Code::SynFlood, "SYN flood")] {
        let all = connections(&talk.file());
        let mut crowd = Crowd::default();
        for connection in &all {
            crowd.add(connection);
        }
        assert!(all.iter().all(|connection| crowd.judge(connection).iter().any(|finding| finding.code == code)));
        assert!(crowd.all().iter().any(|text| text.contains(says)), "{:?}", crowd.all());
    }
}

#[test]
fn servers_that_never_answer_or_answer_late() {
    let mut silent = Talk::default();
    silent.open().up("PSH,ACK", 1, 1, b"GET /").wait(1).down("ACK", 1, 6, b"").wait(9000).up("FIN,ACK", 6, 1, b"");
    has(&silent, Code::ServerSilent);
    // The capture ends soon after the request: that is no silence.
    let mut cut = Talk::default();
    cut.open().up("PSH,ACK", 1, 1, b"GET /").wait(1).down("ACK", 1, 6, b"").wait(9);
    has_not(&cut, Code::ServerSilent);
    // The answer was missed by the capture: its numbers tell of it.
    let mut missed = Talk::default();
    missed.open().up("PSH,ACK", 1, 1, b"GET /").wait(1).down("ACK", 1, 6, b"").wait(9).down("FIN,ACK", 500, 6, b"");
    has_not(&missed, Code::ServerSilent);
    let mut slow = Talk::default();
    slow.open().up("PSH,ACK", 1, 1, b"GET /").wait(1).down("ACK", 1, 6, b"").wait(3000).down("PSH,ACK", 1, 6, b"ok");
    has(&slow, Code::ResponseSlow);
    has_not(&slow, Code::ServerSilent);
}

#[test]
fn a_closed_window_stalls_and_is_charged_to_the_receiver() {
    let mut talk = Talk::default();
    talk.open().down("PSH,ACK", 1, 1, &[1; 1000]).wait(1);
    let mut closed = segment(true, "ACK", 1, 1001, 64);
    closed.window = 0;
    talk.put(&closed).wait(2000).up("ACK", 1, 1001, b"").down("PSH,ACK", 1001, 1, &[2; 1000]);
    has(&talk, Code::ZeroWindow);
    has(&talk, Code::WindowStall);
    let report = talk.report();
    assert!(report.from_client.zero_window_ms > 1990.0, "{report:#?}");
    assert!(report.from_server.limited.receiver_ms > 1990.0, "{report:#?}");
}

#[test]
fn storms_and_black_holes() {
    let mut storm = Talk::default();
    storm.open();
    for n in 0..6 {
        storm.up("PSH,ACK", 1, 1, b"hello").wait(200 << n);
    }
    has(&storm, Code::RetransmissionStorm);
    has_not(&storm, Code::MtuBlackHole);

    let mut hole = Talk::default();
    hole.open().up("PSH,ACK", 1, 1, b"GET /big").wait(1).down("ACK", 1, 9, b"");
    for n in 0..4 {
        hole.down("ACK", 1, 9, &[7; 1460]).wait(200 << n);
    }
    has(&hole, Code::MtuBlackHole);

    // Full segments did arrive before: the way broke, whatever their size.
    let mut broken = Talk::default();
    broken
        .open()
        .up("PSH,ACK", 1, 1, b"GET /big")
        .wait(1)
        .down("ACK", 1, 9, &[7; 1460])
        .down("ACK", 1461, 9, &[7; 1460]);
    broken.up("ACK", 9, 1461, b"");
    for n in 0..4 {
        broken.wait(200 << n).down("ACK", 1461, 9, &[7; 1460]);
    }
    has_not(&broken, Code::MtuBlackHole);
    has(&broken, Code::RetransmissionStorm);
}

#[test]
fn small_writes_that_wait_for_delayed_acks() {
    let mut talk = Talk::default();
    talk.open();
    for n in 0..4 {
        let at = 1 + 20 * n;
        talk.up("PSH,ACK", at, 1, &[1; 10]).wait(40).down("ACK", 1, at + 10, b"");
        talk.up("PSH,ACK", at + 10, 1, &[2; 10]).wait(1).down("ACK", 1, at + 20, b"").wait(5);
    }
    has(&talk, Code::DelayedAckStall);
    let mut quick = Talk::default();
    quick.open();
    for n in 0..4 {
        quick.up("PSH,ACK", 1 + 10 * n, 1, &[1; 10]).wait(1).down("ACK", 1, 11 + 10 * n, b"").wait(50);
    }
    has_not(&quick, Code::DelayedAckStall);
}

#[test]
fn icmp_errors_are_joined_to_their_connection() {
    let mut talk = Talk::default();
    talk.up("SYN", 0, 0, b"").wait(1);
    // Only eight octets of the segment are quoted, as RFC 792 asks.
    let mut header = TcpHeader::new(40000, 80, TcpFlags::SYN);
    header.seq = C0;
    let inner = Ipv4Header::new(talk.client, talk.server, 6).packet(&header.emit());
    let icmp = [&[3, 13, 0, 0, 0, 0, 0, 0][..], &inner[..28]].concat();
    let router = Ipv4Addr::new(10, 0, 0, 254);
    let packet = Ipv4Header::new(router, talk.client, 1).packet(&icmp);
    talk.raw(&packet);
    has(&talk, Code::IcmpError);
    let report = talk.report();
    assert_eq!((report.icmp[0].from.as_str(), report.icmp[0].code), ("10.0.0.254", 13));
    assert!(report.verdict.contains("10.0.0.254"), "{}", report.verdict);
}

#[test]
fn offload_raises_no_alarm() {
    // A jumbo segment with a checksum that the card would have filled in.
    let mut talk = Talk::default();
    talk.open();
    let mut header = TcpHeader::new(80, 40000, TcpFlags::ACK);
    (header.seq, header.ack, header.window) = (S0 + 1, C0 + 1, 500);
    let mut segment = header.emit();
    segment.resize(segment.len() + 40_000, 9);
    let mut ip = Ipv4Header::new(talk.server, talk.client, 6).packet(&segment);
    // Total length 0: segmentation offload.
    ip[2..4].copy_from_slice(&[0, 0]);
    talk.raw(&ip).wait(1).up("ACK", 1, 40_001, b"").up("FIN,ACK", 1, 40_001, b"").down("FIN,ACK", 40_001, 2, b"");
    talk.up("ACK", 2, 40_002, b"");
    let report = talk.report();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.from_server.data, 40_000);
}

#[test]
fn reused_ports_begin_a_new_connection() {
    let mut talk = Talk::default();
    talk.open().up("RST", 1, 0, b"").wait(10);
    let mut again = segment(true, "SYN", 70_000, 0, 64);
    again.ack = 0;
    talk.put(&again);
    let reports = talk.reports();
    assert_eq!(reports.len(), 2);
    assert!(reports[1].findings.iter().any(|finding| finding.code == Code::PortReused));
}

#[test]
fn memory_is_bounded_by_what_is_open() {
    let mut talk = Talk::default();
    for n in 0..3000u16 {
        talk.ports = (10_000 + n, 80);
        talk.up("SYN", 0, 0, b"").down("RST,ACK", 0, 1, b"");
    }
    let mut reading = Reading::new(Limits { connections: 100, ..Limits::default() }, 1);
    let file = talk.file();
    let mut reader = CaptureReader::new(&file[..]).unwrap();
    let mut done = 0;
    while let Ok(Some(packet)) = reader.next_packet() {
        reading.packet(&packet);
        done += reading.table.take_done().len();
    }
    assert_eq!(done, 2900);
    assert_eq!(reading.table.finish().len(), 100);
}

#[test]
fn two_captures_are_laid_beside_each_other() {
    // Five hops apart, the clock of the second a second ahead; one segment is lost, one RST made up, the MSS lowered.
    let (mut a, mut b) = (Talk::default(), Talk::default());
    b.now_ns += 1_000_000_000;
    let both = |a: &mut Talk, b: &mut Talk, seg: &Seg, lost: bool, forged: bool| {
        let (mut near, mut far) = (seg.clone(), seg.clone());
        (near.ttl, far.ttl) = if seg.up { (64, 59) } else { (59, 64) };
        if seg.flags == TcpFlags::SYN {
            far.options = reachwhy::wire::TcpOptions { mss: Some(1360), ..near_options(&near) }.emit();
        }
        let (from, to, sent, came) = if seg.up { (a, b, near, far) } else { (b, a, far, near) };
        if forged {
            from.wait(10);
        } else {
            from.put(&sent).wait(10);
        }
        to.wait(5);
        if lost {
            to.wait(5);
        } else {
            to.put(&came).wait(5);
        }
    };
    let with = |mut seg: Seg, data: &[u8]| {
        seg.data = data.to_vec();
        seg
    };
    both(&mut a, &mut b, &Seg { ack: 0, ..segment(true, "SYN", 0, 0, 64) }, false, false);
    both(&mut a, &mut b, &segment(false, "SYN,ACK", 0, 1, 64), false, false);
    both(&mut a, &mut b, &segment(true, "ACK", 1, 1, 64), false, false);
    both(&mut a, &mut b, &with(segment(true, "PSH,ACK", 1, 1, 64), b"hello"), true, false);
    both(&mut a, &mut b, &with(segment(true, "PSH,ACK", 1, 1, 64), b"hello"), false, false);
    both(&mut a, &mut b, &segment(false, "RST", 1, 0, 64), false, true);
    let (a, b) = (connections(&a.file()), connections(&b.file()));
    let found = pairs(&a, &b);
    let comparison = compare(found[0].0, found[0].1);
    let fates: Vec<Fate> = comparison.segments.iter().map(|one| one.fate).collect();
    assert_eq!(
        fates,
        [Fate::Changed, Fate::Arrived, Fate::Arrived, Fate::Lost, Fate::Arrived, Fate::NotSent],
        "{comparison:#?}"
    );
    let offset = comparison.clock_offset_ms.unwrap();
    assert!((offset - 1000.0).abs() < 1.0, "{offset}");
    assert_eq!((comparison.client_side, comparison.segments[1].hops), ("a", Some(5)));
    assert!(comparison.segments[0].changes[0].contains("mss 1360"), "{comparison:#?}");
}

fn near_options(seg: &Seg) -> reachwhy::wire::TcpOptions {
    reachwhy::wire::TcpOptions::parse(&seg.options)
}

#[test]
fn a_segment_that_arrives_twice_was_copied_on_the_way() {
    let (mut a, mut b) = (Talk::default(), Talk::default());
    a.open().up("PSH,ACK", 1, 1, b"hello").wait(1).down("ACK", 1, 6, b"");
    b.open().up("PSH,ACK", 1, 1, b"hello").up("PSH,ACK", 1, 1, b"hello").wait(1).down("ACK", 1, 6, b"");
    let (a, b) = (connections(&a.file()), connections(&b.file()));
    let comparison = compare(&a[0], &b[0]);
    assert_eq!(comparison.counts.get("duplicated"), Some(&1), "{comparison:#?}");
    assert!(comparison.verdict.contains("arrived twice"), "{}", comparison.verdict);
}
