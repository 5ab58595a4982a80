//! Conversations made by hand, as captures.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, Ipv4Addr};

use reachwhy::tcp::{Code, ConnectionReport, Keep, Limits, Reading};
use reachwhy::wire::capture::CaptureReader;
use reachwhy::wire::{Ipv4Header, TcpFlags, TcpHeader, TcpOptions, pcap};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Small pseudo-random numbers, the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(sides.max(1))).unwrap()
    }

    pub fn word(&mut self) -> u32 {
        self.roll(1 << 16) << 16 | self.roll(1 << 16)
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.roll(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(u32::try_from(from.len()).unwrap()) as usize]
    }
}

/// A segment to be written; what is not said has a usual value.
#[derive(Clone)]
pub struct Seg {
    pub up: bool,
    pub flags: TcpFlags,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
    pub ttl: u8,
}

/// A conversation of the client's port 40000 with the server's port 80, both beginning at number 1000 and 5000.
pub struct Talk {
    pub writer: pcap::Writer,
    pub now_ns: u64,
    pub client: Ipv4Addr,
    pub server: Ipv4Addr,
    pub ports: (u16, u16),
}

pub const C0: u32 = 1000;
pub const S0: u32 = 5000;

impl Default for Talk {
    fn default() -> Self {
        Self {
            writer: pcap::Writer::new(pcap::RAW),
            now_ns: 1_600_000_000_000_000_000,
            client: CLIENT,
            server: SERVER,
            ports: (40000, 80),
        }
    }
}

pub fn syn_options(scale: Option<u8>) -> Vec<u8> {
    TcpOptions { mss: Some(1460), window_scale: scale, sack_permitted: true, ..TcpOptions::default() }.emit()
}

impl Talk {
    pub fn wait(&mut self, ms: u64) -> &mut Self {
        self.now_ns += ms * 1_000_000;
        self
    }

    /// Sends a segment with numbers relative to the initial ones.
    pub fn send(&mut self, up: bool, flags: &str, seq: u32, ack: u32, data: &[u8]) -> &mut Self {
        let flags: TcpFlags = flags.parse().unwrap();
        let options = if flags.contains(TcpFlags::SYN) { syn_options(Some(7)) } else { Vec::new() };
        let (mine, theirs) = if up { (C0, S0) } else { (S0, C0) };
        let ack = if flags.contains(TcpFlags::ACK) { theirs.wrapping_add(ack) } else { 0 };
        let seg =
            Seg { up, flags, seq: mine.wrapping_add(seq), ack, window: 500, options, data: data.to_vec(), ttl: 64 };
        self.put(&seg)
    }

    pub fn up(&mut self, flags: &str, seq: u32, ack: u32, data: &[u8]) -> &mut Self {
        self.send(true, flags, seq, ack, data)
    }

    pub fn down(&mut self, flags: &str, seq: u32, ack: u32, data: &[u8]) -> &mut Self {
        self.send(false, flags, seq, ack, data)
    }

    pub fn put(&mut self, seg: &Seg) -> &mut Self {
        let (src, dst, sport, dport) = if seg.up {
            (self.client, self.server, self.ports.0, self.ports.1)
        } else {
            (self.server, self.client, self.ports.1, self.ports.0)
        };
        let mut header = TcpHeader::new(sport, dport, seg.flags);
        (header.seq, header.ack, header.window) = (seg.seq, seg.ack, seg.window);
        header.options = reachwhy::wire::HexBytes(seg.options.clone());
        let segment = header.segment(IpAddr::V4(src), IpAddr::V4(dst), &seg.data);
        let mut ip = Ipv4Header::new(src, dst, 6);
        ip.ttl = seg.ttl;
        self.raw(&ip.packet(&segment))
    }

    pub fn raw(&mut self, packet: &[u8]) -> &mut Self {
        self.writer.push(self.now_ns, u32::try_from(packet.len()).unwrap(), packet);
        self.now_ns += 100_000;
        self
    }

    /// The three steps, one millisecond each.
    pub fn open(&mut self) -> &mut Self {
        self.up("SYN", 0, 0, b"").wait(1).down("SYN,ACK", 0, 1, b"").wait(1).up("ACK", 1, 1, b"")
    }

    pub fn file(&self) -> Vec<u8> {
        self.writer.clone().finish()
    }

    pub fn reports(&self) -> Vec<ConnectionReport> {
        read(&self.file())
    }

    pub fn report(&self) -> ConnectionReport {
        let mut all = self.reports();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }
}

pub fn read(file: &[u8]) -> Vec<ConnectionReport> {
    let limits = Limits { keep: Keep { steps: 10_000, data: 2000, octets: 1 << 20 }, ..Limits::default() };
    let mut reading = Reading::new(limits, 1);
    let mut reader = CaptureReader::new(file).unwrap();
    while let Ok(Some(packet)) = reader.next_packet() {
        reading.packet(&packet);
    }
    reading.table.finish().iter().map(ConnectionReport::new).collect()
}

/// What tshark's fields would show: the shared codes of every TCP frame.
pub fn shared(file: &[u8]) -> Vec<(u64, u64, Vec<&'static str>)> {
    let mut reading = Reading::new(Limits::default(), 1);
    let mut reader = CaptureReader::new(file).unwrap();
    let mut all = Vec::new();
    while let Ok(Some(packet)) = reader.next_packet() {
        if let Some(heard) = reading.packet(&packet) {
            let mut codes: Vec<&str> =
                heard.judged.codes.iter().filter(|code| code.is_shared()).map(Code::name).collect();
            codes.sort_unstable();
            all.push((heard.at.frame, heard.connection.stream, codes));
        }
    }
    all
}
