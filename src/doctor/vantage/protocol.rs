//! What the doctor asks its agents, and what they answer: one JSON document a line.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::doctor::case::{Resolution, Trial, Watch};
use crate::host::drops::KernelDrop;
use crate::host::remedy::{Applied, RemedyOrder, Settled};
use crate::host::{HostFacts, LadderSpec, RouteAnswer};
use crate::probe::exchange::ExchangePlan;
use crate::probe::{ProbeReport, ProbeSpec};

/// A question or an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask", content = "with")]
pub enum Ask {
    /// Who is there? Answered by [`Answer::Hello`].
    Hello,
    /// Everything about the host. Answered by [`Answer::Facts`].
    Facts,
    /// The kernel's way to an address. Answered by [`Answer::Route`].
    Route {
        /// The address.
        to: IpAddr,
        /// The address it is sent from; `None`: the kernel's choice.
        from: Option<IpAddr>,
    },
    /// A name's addresses, as an application gets them. Answered by [`Answer::Resolved`].
    Resolve {
        /// The name.
        name: String,
    },
    /// Puts up the ladder and the capture. Answered by [`Answer::Done`].
    Watch {
        /// The flow to watch.
        flow: LadderSpec,
    },
    /// Tries the connection and the probes at once, and holds the connection. Answered by [`Answer::Trial`].
    Try(Box<TryPlan>),
    /// What the watch has seen so far, with the facts as they stand. Answered by [`Answer::Seen`].
    Seen,
    /// Sends probes, after what was to be counted has been read. Answered by [`Answer::Probed`].
    Probe {
        /// The probes.
        specs: Vec<ProbeSpec>,
    },
    /// Has the kernel name the packets it drops from now on. Answered by [`Answer::Watching`].
    WatchDrops,
    /// Which it dropped; ends the watch. Answered by [`Answer::Dropped`].
    Drops,
    /// Takes everything down. Answered by [`Answer::Removed`].
    Remove,
    /// Makes a change on trial: it is taken back when the agent ends, or the time is up, before it is
    /// told to keep it. Answered by [`Answer::Applied`].
    Apply(RemedyOrder),
    /// Ends the trial. Answered by [`Answer::Settled`].
    Settle {
        /// Whether the change stays.
        keep: bool,
    },
}

/// What to try.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TryPlan {
    /// The conversation; `None` for a host alone.
    pub exchange: Option<ExchangePlan>,
    /// The next hop's address request.
    pub neighbour: Option<ProbeSpec>,
    /// An echo, where that is all there is to try.
    pub echo: Option<ProbeSpec>,
    /// Other addresses for the same service: tried as clients do (RFC 8305), once the first is seen to fail or to
    /// take its time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<IpAddr>,
    /// The same request by way of the proxy that the client's variables name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ExchangePlan>,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer", content = "with")]
pub enum Answer {
    /// The agent is there.
    Hello {
        /// Its version.
        version: String,
        /// Its process id.
        pid: u32,
    },
    /// The host's facts.
    Facts(Box<HostFacts>),
    /// The way.
    Route(RouteAnswer),
    /// The addresses.
    Resolved(Resolution),
    /// The order was carried out.
    Done,
    /// What was tried.
    Trial(Box<Trial>),
    /// What was seen.
    Seen(Box<Watch>),
    /// What came of the probes; those that could not be sent are missing.
    Probed(Vec<ProbeReport>),
    /// Whether that could be done.
    Watching(bool),
    /// What the kernel dropped, all over the machine; `None` where it could not be asked.
    Dropped(Option<Vec<KernelDrop>>),
    /// What had been put up is gone.
    Removed {
        /// What it was.
        changed: Vec<String>,
    },
    /// What came of the change.
    Applied(Applied),
    /// How the trial ended.
    Settled(Settled),
    /// It could not be done.
    Failed {
        /// Why.
        why: String,
    },
}
