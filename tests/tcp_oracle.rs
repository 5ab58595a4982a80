//! tshark as the oracle: the sequence analysis agrees with it frame by frame.
//!
//! Public captures whose licence allows it, and thousands of random segments that no stack would send in that order:
//! retransmissions, holes, probes, windows that close, ports that are used again, numbers that wrap.
//!
//! What is known to differ, and why: a packet of more than 65535 octets (`BIG TCP`, RFC 2675) is read here and is not
//! TCP for tshark 4.0; a segment whose TCP header the capture has cut is judged here, while tshark gives up on it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod tcp_support;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use reachwhy::tcp::Code;
use reachwhy::wire::{TcpFlags, TcpOptions};
use tcp_support::{Dice, Seg, Talk, shared};

/// The field that shows a code, and our name for it.
fn fields() -> Vec<(String, &'static str)> {
    Code::ALL.iter().filter_map(|code| Some((code.wireshark_field()?, code.name()))).collect()
}

fn tshark(file: &Path) -> Option<Vec<(u64, u64, Vec<&'static str>)>> {
    let fields = fields();
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-Y", "tcp", "-T", "fields", "-e", "frame.number", "-e", "tcp.stream"]);
    for (field, _) in &fields {
        command.args(["-e", field]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "tshark is required: {error}");
            eprintln!("SKIPPED: tshark cannot be run: {error}");
            return None;
        }
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let mut codes: Vec<&str> =
            fields.iter().zip(&columns[2..]).filter(|(_, seen)| !seen.is_empty()).map(|((_, name), _)| *name).collect();
        codes.sort_unstable();
        (columns[0].parse().unwrap(), columns[1].parse().unwrap(), codes)
    });
    Some(rows.collect())
}

/// Compares a capture frame by frame; false where there is no tshark.
fn agrees(name: &str, file: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture");
    std::fs::write(&path, file).unwrap();
    let Some(theirs) = tshark(&path) else { return false };
    let ours = shared(file);
    assert_eq!(ours.len(), theirs.len(), "{name}: TCP frames");
    let wrong: Vec<String> = ours
        .iter()
        .zip(&theirs)
        .filter(|(ours, theirs)| ours != theirs)
        .map(|(ours, theirs)| format!("frame {}: tshark {theirs:?}, here {ours:?}", ours.0))
        .collect();
    assert!(wrong.is_empty(), "{name}: {} differences:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    true
}

#[test]
fn public_captures_are_judged_as_tshark_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "pcap" || ext == "pcapng") {
            if !agrees(&path.display().to_string(), &std::fs::read(&path).unwrap()) {
                return;
            }
            count += 1;
        }
    }
    assert!(count >= 15, "only {count} captures were found");
}

/// A conversation of random segments around the numbers that matter.
struct Wild {
    isn: [u32; 2],
    high: [u32; 2],
    ack: [u32; 2],
    windows: [u16; 4],
}

impl Wild {
    fn new(dice: &mut Dice) -> Self {
        let isn = |dice: &mut Dice| {
            let random = dice.word();
            dice.pick(&[0, 1, 1000, 0xffff_fff0, 0x7fff_fff0, random])
        };
        let window = |dice: &mut Dice| u16::try_from(dice.roll(3000)).unwrap();
        Self {
            isn: [isn(dice), isn(dice)],
            high: [0; 2],
            ack: [0; 2],
            windows: [window(dice), window(dice), window(dice), 0],
        }
    }

    fn segment(&mut self, dice: &mut Dice, nth: usize) -> Seg {
        let mut side = dice.roll(2) as usize;
        let mut flags = match dice.roll(100) {
            0..3 => 0x02,
            3..5 => 0x12,
            5..8 => 0x11,
            8..10 => 0x04,
            10 => 0x14,
            11..13 => u8::try_from(dice.roll(64)).unwrap(),
            13..50 => 0x18,
            _ => 0x10,
        };
        let opening = nth < 3 && dice.chance(80);
        if opening {
            (flags, side) = [(0x02, 0), (0x12, 1), (0x10, 0)][nth];
        }
        let flags = TcpFlags(flags);
        let syn = flags.contains(TcpFlags::SYN);
        let len = if opening || dice.chance(50) { 0 } else { dice.pick(&[1, 1, 2, 10, 10, 50, 100, 100]) };
        let (mine, high) = (self.isn[side], self.high[side]);
        let mut seq = match dice.roll(10) {
            _ if opening && !syn => mine.wrapping_add(1),
            0..5 => mine.wrapping_add(high),
            5..8 => mine.wrapping_add(high).wrapping_sub(dice.pick(&[1, 1, 2, 10, 20, 100, 110, 200])),
            8 => mine.wrapping_add(high).wrapping_add(dice.pick(&[1, 10, 100])),
            _ => mine.wrapping_add(dice.roll(303)).wrapping_sub(3),
        };
        if syn {
            seq = if !opening && dice.chance(15) { dice.word() } else { mine };
        }
        let theirs = self.isn[1 - side];
        let ack = if !flags.contains(TcpFlags::ACK) {
            0
        } else if !opening && dice.chance(55) {
            self.ack[side]
        } else {
            let behind = dice.pick(&[0, 0, 0, 10, 100, u32::MAX - 9, u32::MAX - 99, 1]);
            theirs.wrapping_add(self.high[1 - side]).wrapping_sub(behind)
        };
        self.ack[side] = ack;
        let window = if dice.chance(30) { dice.pick(&self.windows) } else { self.windows[side] };
        let end = seq.wrapping_sub(mine).wrapping_add(len).wrapping_add(u32::from(flags.0 & 3 != 0));
        if end < 100_000 && end > high {
            self.high[side] = end;
        }
        let mut options = TcpOptions::default();
        if syn {
            options.mss = Some(1460);
            options.window_scale = dice.chance(70).then(|| dice.pick(&[0, 1, 2, 7, 14]));
        } else if dice.chance(25) {
            let left = theirs.wrapping_add(self.high[1 - side]).wrapping_sub(dice.pick(&[0, 10, 100, 200]));
            options.sack = vec![(left, left.wrapping_add(dice.pick(&[10, 50, 100])))];
        }
        Seg { up: side == 0, flags, seq, ack, window, options: options.emit(), data: vec![7; len as usize], ttl: 64 }
    }
}

#[test]
fn random_segments_are_judged_as_tshark_does() {
    let mut talk = Talk::default();
    for flow in 0u8..80 {
        let mut dice = Dice(u64::from(flow) * 7919 + 1);
        talk.client = Ipv4Addr::new(10, 0, 1, flow + 1);
        let mut wild = Wild::new(&mut dice);
        for nth in 0..150 {
            talk.now_ns += dice.pick(&[1, 100, 1000, 2500, 5000, 15_000, 25_000, 200_000, 1_000_000]) * 1000;
            let segment = wild.segment(&mut dice, nth);
            talk.put(&segment);
        }
    }
    agrees("random segments", &talk.file());
}

#[test]
fn a_retransmission_after_an_icmp_error_is_judged_as_tshark_does() {
    // The error quotes the whole SYN; tshark takes the quoted header as one that passed.
    let mut talk = Talk::default();
    talk.up("SYN", 0, 0, b"");
    let mut quote = reachwhy::wire::TcpHeader::new(40000, 80, TcpFlags::SYN);
    quote.seq = tcp_support::C0;
    let segment = quote.segment(talk.client.into(), talk.server.into(), b"");
    let inner = reachwhy::wire::Ipv4Header::new(talk.client, talk.server, 6).packet(&segment);
    let icmp = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &inner].concat();
    let router = Ipv4Addr::new(10, 0, 0, 254);
    let packet = reachwhy::wire::Ipv4Header::new(router, talk.client, 1).packet(&icmp);
    talk.wait(3).raw(&packet);
    talk.wait(1000).up("SYN", 0, 0, b"").wait(1).down("SYN,ACK", 0, 1, b"").wait(1).up("ACK", 1, 1, b"");
    talk.up("PSH,ACK", 1, 1, b"hello").wait(300).up("PSH,ACK", 1, 1, b"hello");
    // Of frame 2 tshark also counts the quoted segment as a TCP frame.
    let file = talk.file();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture");
    std::fs::write(&path, &file).unwrap();
    let Some(mut theirs) = tshark(&path) else { return };
    theirs.retain(|row| row.0 != 2);
    assert_eq!(shared(&file), theirs);
}
