//! `reachwhy agent`: the far end of a vantage. Not for people; the doctor starts it.

use crate::doctor::vantage::agent;
use crate::os::{files, netns};

use super::Failure;

/// What an agent is told.
#[derive(Debug, clap::Args)]
pub(super) struct AgentArgs {
    /// Enter this named network namespace first, as `ip netns exec` does
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Enter the namespaces of this process first
    #[arg(long, value_name = "PID", conflicts_with = "netns")]
    pid: Option<u32>,
    /// The folder this program was copied to for this run; it is removed at once
    #[arg(long, value_name = "FOLDER")]
    pushed: Option<std::path::PathBuf>,
}

/// Enters the namespace, then answers until the input ends.
pub(super) fn run(args: &AgentArgs) -> anyhow::Result<u8> {
    if let Some(name) = &args.netns {
        netns::become_host(name).map_err(|error| Failure::unknown(error, None))?;
    }
    if let Some(pid) = args.pid {
        netns::join_process(pid).map_err(|error| Failure::unknown(error, None))?;
    }
    let pushed = args.pushed.as_deref().map(files::remove_copy);
    agent::serve(std::io::stdin().lock(), std::io::stdout().lock(), pushed)?;
    Ok(0)
}
