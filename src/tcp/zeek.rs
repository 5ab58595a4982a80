//! Zeek's short language for a connection: `conn_state` and `history`
//! (<https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html>).
//!
//! The letters are kept as the packets pass; upper case is the originator's.

use crate::wire::TcpFlags;

/// Zeek's view of an end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Endpoint {
    #[default]
    Inactive,
    SynSent,
    SynAckSent,
    Partial,
    Established,
    Closed,
    Reset,
}

#[derive(Debug, Clone, Copy, Default)]
struct Side {
    state: Endpoint,
    before: Endpoint,
    /// Letters of which one is enough, as bits.
    told: u8,
    last_syn: Option<u32>,
    last_fin: Option<u32>,
    last_rst: Option<u32>,
    gaps: u32,
    repeats: u32,
    zero_windows: u32,
    size: bool,
}

impl Side {
    fn set(&mut self, state: Endpoint) {
        self.before = self.state;
        self.state = state;
    }
}

/// Letters kept at most.
const LONGEST: usize = 40;

/// One connection in Zeek's eyes. Sides are the connection's: the originator may turn out to be either.
#[derive(Debug, Clone)]
pub struct Zeek {
    sides: [Side; 2],
    origin: u8,
    length: u8,
    letters: [u8; LONGEST],
}

/// What Zeek looks at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Which side sent it.
    pub side: usize,
    /// Its flags.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: u32,
    /// Octets of data.
    pub len: u32,
    /// Window as sent.
    pub window: u16,
    /// All its data had been sent before.
    pub repeated: bool,
    /// It acknowledges what was not captured.
    pub gap: bool,
}

const SYN: u8 = 1;
const FIN: u8 = 2;
const RST: u8 = 4;
const DATA: u8 = 8;
const ACK: u8 = 16;
const FIN_RST: u8 = 32;
const MULTI: u8 = 64;

impl Zeek {
    /// A connection whose first packet comes from side 0; `flipped` where ports say that side 0 is the server.
    pub fn new(flipped: bool) -> Self {
        let mut zeek =
            Self { sides: [Side::default(); 2], origin: u8::from(flipped), length: 0, letters: [0; LONGEST] };
        if flipped {
            zeek.push(b'^');
        }
        zeek
    }

    fn push(&mut self, letter: u8) {
        if let Some(place) = self.letters.get_mut(usize::from(self.length)) {
            *place = letter;
            self.length += 1;
        }
    }

    fn add(&mut self, side: usize, letter: u8) {
        let origin = side == usize::from(self.origin);
        self.push(if origin { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() });
    }

    /// The letter once; whether it had been there.
    fn once(&mut self, side: usize, bit: u8, letter: u8) -> bool {
        if self.sides[side].told & bit != 0 {
            return true;
        }
        self.sides[side].told |= bit;
        self.add(side, letter);
        false
    }

    /// The letter at the 1st, 10th, 100th … time.
    fn scaled(&mut self, side: usize, count: u32, letter: u8) {
        if matches!(count, 1 | 10 | 100 | 1000 | 10_000 | 100_000 | 1_000_000) {
            self.add(side, letter);
        }
    }

    /// Takes note of a packet.
    pub fn look(&mut self, look: Look) {
        let side = look.side;
        let has = |flags: TcpFlags| look.flags.contains(flags);
        let (syn, fin, rst, ack) = (has(TcpFlags::SYN), has(TcpFlags::FIN), has(TcpFlags::RST), has(TcpFlags::ACK));
        match u8::from(syn) + u8::from(fin) + u8::from(rst) {
            0 if look.len > 0 => {
                self.once(side, DATA, b'd');
            }
            0 if ack => {
                self.once(side, ACK, b'a');
            }
            0 => {}
            1 => {
                // A second one with another number is told as well.
                let end = look.seq.wrapping_add(look.len);
                let (bit, letter, at) = match (syn, fin) {
                    (true, _) => (SYN, if ack { b'h' } else { b's' }, look.seq),
                    (_, true) => (FIN, b'f', end),
                    _ => (RST, b'r', look.seq),
                };
                let there = self.once(side, bit, letter);
                let one = &mut self.sides[side];
                let last = match bit {
                    SYN => &mut one.last_syn,
                    FIN => &mut one.last_fin,
                    _ => &mut one.last_rst,
                };
                if there && *last != Some(at) {
                    self.add(side, letter);
                }
                let one = &mut self.sides[side];
                match bit {
                    SYN => one.last_syn = Some(at),
                    FIN => one.last_fin = Some(at),
                    _ => one.last_rst = Some(at),
                }
            }
            _ if fin && rst => {
                self.once(side, FIN_RST, b'i');
            }
            _ => {
                self.once(side, MULTI, b'q');
            }
        }
        let peer = self.sides[1 - side].state;
        if look.window == 0 && !rst && peer != Endpoint::Closed && self.sides[side].state != Endpoint::Reset {
            self.sides[side].zero_windows += 1;
            self.scaled(side, self.sides[side].zero_windows, b'w');
        }
        if look.len > 0 && look.repeated && self.sides[side].state != Endpoint::Reset {
            self.sides[side].repeats += 1;
            self.scaled(side, self.sides[side].repeats, b't');
        }
        if look.gap && !fin && !rst {
            let other = 1 - side;
            self.sides[other].gaps += 1;
            self.scaled(other, self.sides[other].gaps, b'g');
        }
        self.sides[side].size |= look.len > 0;
        self.transit(side, &look, [syn, fin, rst, ack]);
    }

    fn transit(&mut self, side: usize, look: &Look, [syn, fin, rst, ack]: [bool; 4]) {
        use Endpoint::{Closed, Established, Inactive, Partial, Reset, SynAckSent, SynSent};

        let is_origin = side == usize::from(self.origin);
        let peer = self.sides[1 - side].state;
        let peer_before = self.sides[1 - side].before;
        let state = self.sides[side].state;
        match state {
            Inactive => {
                if syn {
                    if is_origin {
                        self.sides[side].set(if ack { SynAckSent } else { SynSent });
                    } else {
                        if peer == SynSent {
                            self.sides[1 - side].set(Established);
                        }
                        self.sides[side].set(Established);
                    }
                }
                if fin {
                    self.sides[side].set(Closed);
                }
                if rst {
                    self.sides[side].set(Reset);
                }
                if self.sides[side].state == Inactive && !(!is_origin && look.len == 0 && peer == SynSent) {
                    self.sides[side].set(if ack && peer == Established { Established } else { Partial });
                }
            }
            SynSent | SynAckSent => {
                if fin {
                    self.sides[side].set(Closed);
                }
                if rst {
                    self.sides[side].set(Reset);
                }
            }
            Established | Partial => {
                if syn && state == Partial && peer == Inactive && !ack {
                    self.sides[side].set(SynSent);
                }
                if fin && !rst {
                    self.sides[side].set(Closed);
                    if peer == Reset && peer_before == Closed {
                        self.sides[1 - side].set(Closed);
                    }
                }
                if rst {
                    self.sides[side].set(Reset);
                }
            }
            Closed => {
                if rst && peer != Closed {
                    self.sides[side].set(Reset);
                }
            }
            Reset => {}
        }
    }

    /// The letters.
    pub fn history(&self) -> &str {
        std::str::from_utf8(&self.letters[..usize::from(self.length)]).unwrap_or_default()
    }

    /// `S0`, `SF`, `REJ` ….
    pub fn conn_state(&self) -> &'static str {
        use Endpoint::{Closed, Established, Inactive, Partial, Reset, SynAckSent, SynSent};

        let origin = usize::from(self.origin);
        let (orig, resp) = (&self.sides[origin], &self.sides[1 - origin]);
        let quiet = |side: &Side| matches!(side.state, Inactive | Partial);
        match (orig.state, resp.state) {
            (SynSent | SynAckSent, Reset) => "REJ",
            (Reset, Reset) if !orig.size && !resp.size => "REJ",
            (_, Reset) if quiet(orig) => "RSTRH",
            (_, Reset) => "RSTR",
            (Reset, _) if quiet(resp) => {
                // A SYN and then a RST of the originator, and nothing in between that would say more.
                let said = self.history();
                let said = said.strip_prefix('^').unwrap_or(said);
                let reset = said.starts_with('S') && said.find('R').is_some_and(|at| !said[..at].contains(is_more));
                if reset { "RSTOS0" } else { "OTH" }
            }
            (Reset, _) => "RSTO",
            (Closed, Closed) => "SF",
            (Closed, _) => {
                if quiet(resp) {
                    "SH"
                } else {
                    "S2"
                }
            }
            (_, Closed) => {
                if quiet(orig) {
                    "SHR"
                } else {
                    "S3"
                }
            }
            (SynSent, Inactive) => "S0",
            (Established, Established) => "S1",
            _ => "OTH",
        }
    }
}

fn is_more(letter: char) -> bool {
    matches!(letter, 'H' | 'A' | 'F' | 'G' | 'I' | 'Q')
}

/// What a `conn_state` means.
pub fn meaning(state: &str) -> &'static str {
    match state {
        "S0" => "attempt, no answer",
        "S1" => "established, not closed",
        "SF" => "opened and closed normally",
        "REJ" => "attempt refused",
        "S2" => "established, the originator closed, the responder did not",
        "S3" => "established, the responder closed, the originator did not",
        "RSTO" => "established, the originator reset it",
        "RSTR" => "the responder reset it",
        "RSTOS0" => "SYN, then a reset by the originator; no answer was seen",
        "RSTRH" => "SYN-ACK, then a reset by the responder; no SYN was seen",
        "SH" => "SYN, then FIN; no answer was seen",
        "SHR" => "SYN-ACK, then FIN of the responder; no SYN was seen",
        _ => "no SYN was seen: the middle of a connection",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(packets: &[(usize, &str, u32)]) -> (String, &'static str) {
        let mut zeek = Zeek::new(false);
        for (side, flags, len) in packets {
            let flags = flags.parse().unwrap();
            zeek.look(Look { side: *side, flags, seq: 1, len: *len, window: 100, repeated: false, gap: false });
        }
        (zeek.history().to_owned(), zeek.conn_state())
    }

    #[test]
    fn the_well_known_histories() {
        let open = [(0, "SYN", 0), (1, "SYN,ACK", 0), (0, "ACK", 0)];
        let with = |more: &[(usize, &'static str, u32)]| run(&[&open[..], more].concat());
        assert_eq!(run(&open[..1]), ("S".into(), "S0"));
        assert_eq!(run(&[(0, "SYN", 0), (1, "RST,ACK", 0)]), ("Sr".into(), "REJ"));
        assert_eq!(with(&[]), ("ShA".into(), "S1"));
        let exchange = [(0, "PSH,ACK", 5), (1, "ACK", 0), (1, "PSH,ACK", 9)];
        let close = [(0, "FIN,ACK", 0), (1, "FIN,ACK", 0), (0, "ACK", 0)];
        assert_eq!(with(&[&exchange[..], &close].concat()), ("ShADadFf".into(), "SF"));
        assert_eq!(with(&[(1, "RST", 0)]), ("ShAr".into(), "RSTR"));
        assert_eq!(with(&[(0, "RST", 0)]), ("ShAR".into(), "RSTO"));
        assert_eq!(run(&[(0, "SYN", 0), (0, "RST", 0)]), ("SR".into(), "RSTOS0"));
        assert_eq!(run(&[(0, "ACK", 3), (1, "ACK", 3)]), ("Dd".into(), "OTH"));
    }
}
