//! What every exchange on a link is to the one who drives it: the time and frames go in, frames come out.

/// A frame to send. `token` comes back with the time at which it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Chosen by the conversation.
    pub token: u64,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send what was given out, and come again at this time or when a frame was heard.
    Until(u64),
    /// It is over.
    Done,
}

/// One exchange: a sweep, a lookup, an inquiry. Times are nanoseconds of one clock that only grows.
pub trait Conversation {
    /// Gives out frames that may be sent now (at most some dozens), and says what is next.
    fn poll(&mut self, now: u64, out: &mut Vec<Outgoing>) -> Step;

    /// A frame has left.
    fn sent(&mut self, token: u64, at: u64);

    /// A frame was heard.
    fn heard(&mut self, at: u64, frame: &[u8]);

    /// Frames were lost on arrival because nobody took them in time.
    fn overrun(&mut self, _frames: u64) {}

    /// The interface's queue was full: this frame was not sent, and will be tried again. Slower is better.
    fn congested(&mut self, _now: u64) {}
}
