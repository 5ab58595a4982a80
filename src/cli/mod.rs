//! The commands: arguments → request → feature → view. One file per command.

pub mod lab;
