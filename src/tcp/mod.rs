//! TCP as it was captured: who opened, what was said, what went wrong, who closed.
//!
//! Segments go one by one into a [`Table`]; each [`Connection`] keeps what a verdict needs and no more, so that a
//! capture of any length is read in bounded memory. Two judgements stand side by side: [`analysis`] has Wireshark's
//! conditions and agrees with `tshark` frame by frame, [`ConnectionReport`] says in a sentence what became of the connection.

pub mod analysis;
mod code;
pub mod compare;
mod connection;
mod crowd;
mod end;
pub mod filter;
pub mod flags;
pub mod framing;
mod header;
mod judge;
pub mod ladder;
pub mod lesson;
mod reading;
mod report;
pub mod seq;
mod state;
pub mod stream;
mod table;
pub mod words;
pub mod zeek;

pub use code::{Code, Codes, Severity};
pub use connection::{Closing, Connection, IcmpNote, Keep, Noted, Step, is_illegal};
pub use crowd::Crowd;
pub use end::{End, Limits as TimeLimits, Mark, Repeats, Reset, Rtt, Syn};
pub use reading::{FrameReport, Heard, Reading, Tally};
pub use report::{
    Close, CloseBy, CloseKind, ConnectionReport, Finding, FlowReport, Handshake, IcmpReport, LimitReport,
    OptionsReport, Pair, SlowAnswer, ZeekReport,
};
pub use state::State;
pub use table::{Limits, Seeded, Table};
