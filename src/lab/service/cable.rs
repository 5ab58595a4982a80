//! An impaired cable, run as a service in a namespace between two ends.

use super::{ServiceError, ready};
use crate::lab::impair::{Direction, Impairment};
use crate::os::cable::{Fate, carry};
use crate::os::links::Links;

/// How the cable is started.
#[derive(Debug, Clone, clap::Args)]
pub struct CableOptions {
    /// The two links to join
    #[arg(num_args = 2, required = true)]
    pub ends: Vec<String>,
    /// What goes wrong, as JSON: {"delay_ms":5,"loss":0.01,"seed":1}
    #[arg(long, value_parser = impairment)]
    pub impair: Impairment,
    /// The process's name
    #[arg(long)]
    pub name: Option<String>,
}

fn impairment(text: &str) -> Result<Impairment, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Runs the cable; returns only when it breaks.
pub fn run(options: &CableOptions) -> Result<(), ServiceError> {
    let io = |operation| move |source| ServiceError::Io { operation, source };
    let mut links = Links::open().map_err(|error| io("ask for the links")(std::io::Error::other(error)))?;
    let mut indices = [0; 2];
    for (index, name) in indices.iter_mut().zip(&options.ends) {
        *index = links.find(name).map_err(|error| io("find the cable's end")(std::io::Error::other(error)))?.index;
    }
    let fate = |number| -> Fate {
        let mut direction = Direction::new(options.impair.clone(), number);
        Box::new(move |now, length| direction.send(now, length))
    };
    let name = options.name.clone();
    carry(indices, [fate(0), fate(1)], move || ready(name.as_deref()).map_err(std::io::Error::other))
        .map_err(io("carry frames"))
}
