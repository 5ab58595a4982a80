//! Connections for people: the list, one in detail, the drawing.

mod list;

pub use list::{List, list};
