//! `doctor --serve`: lets another doctor look at this host, once, where there is no ssh.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::cli::{Exit, Failure, Global};
use crate::doctor::Target;
use crate::doctor::vantage::agent::Guest;
use crate::host::{AddressScope, HostFacts};
use crate::os::gather::{GatherOptions, Part, gather};
use crate::os::handoff::{Handoff, Waited};
use crate::os::interrupt;
use crate::view::Style;
use crate::view::doctor_runs::{Served, served};

/// What was asked for.
pub(super) struct Plan<'a> {
    pub(super) target: Option<&'a Target>,
    pub(super) bind: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) time: Duration,
}

/// What a client may learn, and nothing beyond it.
pub(super) const EXPOSES: [&str; 4] = [
    "this host's interfaces, addresses, routes, neighbours, sockets with their processes, network settings, hosts and resolver files, packet filter rules and counters",
    "the packets of the one flow that it names, while it tries it",
    "it may have one nftables table that only counts put in for that time (stated, and removed)",
    "it can change nothing else, run nothing, and have nothing sent",
];

/// Listens, serves one client, ends. 0 where one was served, 3 where none came.
pub(super) fn run(plan: &Plan<'_>, global: &Global, style: Style) -> anyhow::Result<u8> {
    interrupt::flag();
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let wanted = SocketAddr::new(plan.bind.unwrap_or(any), plan.port);
    let listen = |address| Handoff::listen(address).map_err(|error| (address, error));
    let handoff = match (listen(wanted), plan.bind) {
        (Ok(handoff), _) => handoff,
        // A kernel without IPv6.
        (Err(_), None) => {
            listen(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), plan.port)).map_err(no)?
        }
        (Err(error), Some(_)) => return Err(no(error)),
    };
    let at = handoff.address().map_err(|error| Failure::unknown(error, None))?;
    let hosts = if at.ip().is_unspecified() { own_addresses() } else { vec![at.ip()] };
    let vantages: Vec<String> = hosts
        .iter()
        .map(|host| format!("serve:{}#{}", SocketAddr::new(*host, at.port()), handoff.token().text()))
        .collect();
    let target = plan.target.map_or_else(|| "TARGET".to_owned(), ToString::to_string);
    let mut event = Served {
        event: "listening",
        listening: at.to_string(),
        to: vantages,
        target,
        seconds: plan.time.as_secs_f64(),
        exposes: EXPOSES.to_vec(),
        peer: None,
        questions: None,
        why: None,
    };
    tell(&event, global, style)?;
    let mut guest = Guest::new(plan.target.cloned());
    let waited = handoff.wait(plan.time).map_err(|error| Failure::unknown(error, None))?;
    event.event = "end";
    event.to.clear();
    event.exposes.clear();
    let code = match waited {
        Waited::Client(mut session) => {
            event.peer = Some(session.peer.to_string());
            let mut questions = 0_u32;
            let ended = loop {
                match session.hear() {
                    Ok(Some(question)) => {
                        questions += 1;
                        let answer = guest.answer(&question);
                        if let Err(error) = session.say(&answer) {
                            break Some(error);
                        }
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            drop(guest);
            session.close();
            event.questions = Some(questions);
            event.why = Some(match ended {
                None => "the client has what it asked for".to_owned(),
                Some(error)
                    if matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock) =>
                {
                    "the time is up".to_owned()
                }
                Some(error) => format!("the connection broke: {error}"),
            });
            0
        }
        Waited::Nobody => {
            event.why = Some("the time is up and nobody came with the token".to_owned());
            Exit::Unknown.code()
        }
        Waited::Stopped => {
            event.why = Some("it was stopped".to_owned());
            Exit::Unknown.code()
        }
    };
    tell(&event, global, style)?;
    Ok(code)
}

fn no((address, error): (SocketAddr, std::io::Error)) -> anyhow::Error {
    Failure::unknown(
        format!("cannot listen at {address}: {error}"),
        Some("--bind takes one of this host's addresses, --port a free port"),
    )
}

/// The addresses under which others may know this host.
fn own_addresses() -> Vec<IpAddr> {
    let facts: HostFacts = gather(&GatherOptions::only([Part::Links, Part::Addresses]));
    let mut found: Vec<IpAddr> = facts
        .addresses
        .iter()
        .flatten()
        .filter(|entry| entry.scope == AddressScope::Global && !entry.tentative && !entry.address.is_loopback())
        .map(|entry| entry.address)
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    if found.is_empty() {
        found.push(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    }
    found
}

fn tell(event: &Served, global: &Global, style: Style) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if global.json {
        serde_json::to_writer(&mut out, event)?;
        writeln!(out)?;
    } else {
        served(&mut out, event, style)?;
    }
    out.flush()?;
    Ok(())
}
