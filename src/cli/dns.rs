//! `reachwhy dns NAME [TYPE]`, and `reachwhy dns hosts`.

mod batch;
mod hosts;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::{Failure, Global, print_json};
use crate::dns::dnssec::{TrustAnchors, read_anchors};
use crate::dns::{Conf, Family, GivenServer, RType, Server, TraceOptions};
use crate::os::dns::asked::{Asked, Wanted};
use crate::os::dns::{Stop, check, facts};
use crate::view::{self, Progress, Style};

/// What a host resolves a name to, and who says otherwise.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Servers: 192.168.1.53, 192.168.1.53:5353, [fd00::53]:53, tcp://…, tls://NAME, https://NAME/dns-query\n\
        Exit: 0 it resolves and nobody disagrees, 1 a problem was found, 2 bad usage or input, 3 could not find out"
)]
pub(super) struct DnsArgs {
    #[command(subcommand)]
    command: Option<DnsCommand>,
    #[command(flatten)]
    query: QueryArgs,
}

#[derive(Debug, clap::Subcommand)]
enum DnsCommand {
    /// List, check, look up and change the hosts file
    Hosts(hosts::HostsArgs),
}

#[derive(Debug, clap::Args)]
struct QueryArgs {
    /// The name, or an address for its names
    #[arg(required_unless_present = "batch")]
    name: Option<String>,
    /// The record type: A, AAAA, MX, TXT, …; without one both addresses, as applications ask
    #[arg(value_name = "TYPE")]
    rtype: Option<String>,
    /// Compare with this server too (with --batch: ask it instead); repeatable
    #[arg(short, long, value_name = "SERVER")]
    server: Vec<String>,
    /// Ask from the root servers down to the servers in charge
    #[arg(long)]
    trace: bool,
    /// Begin --trace at this root server; repeatable
    #[arg(long, value_name = "ADDRESS", requires = "trace")]
    root: Vec<String>,
    /// Connect to this TCP port of each address, to see whether the first one tried works
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    connect: Option<u16>,
    /// Check the DNSSEC signatures from the root down, even where no server shows any (else: where one does)
    #[arg(long)]
    dnssec: bool,
    /// Trust the DNSKEY records in this file instead of the root zone's keys
    #[arg(long, value_name = "FILE")]
    anchor: Option<std::path::PathBuf>,
    /// Do not ask each server by itself: only what an application would cause
    #[arg(long)]
    no_compare: bool,
    /// Resolve each line of this file (- for standard input), many at once; NAME is then the TYPE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "connect", "dnssec", "anchor"])]
    batch: Option<std::path::PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &DnsArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    match &args.command {
        Some(DnsCommand::Hosts(args)) => hosts::run(args, global, style),
        None => query(&args.query, global, style),
    }
}

/// What `reachwhy nss-module` prints for the one who started it.
pub(super) fn module(service: &str, family: u8, name: &str) -> anyhow::Result<u8> {
    let family = match family {
        4 => Family::V4,
        6 => Family::V6,
        _ => Family::Any,
    };
    let line = crate::os::dns::module::answer(service, family, name).unwrap_or_default();
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(0)
}

fn query(args: &QueryArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let given = servers(&args.server)?;
    let hint = Some("A, AAAA, CNAME, MX, NS, TXT, SOA, SRV, PTR, CAA, DS, DNSKEY, HTTPS, TYPE65, …");
    if let Some(file) = &args.batch {
        // Where the names are in a file, the word behind the options is the type.
        let types = match args.rtype.as_deref().or(args.name.as_deref()) {
            Some(text) => vec![text.parse().map_err(|error: String| Failure::usage(error, hint))?],
            None => vec![RType::A, RType::AAAA],
        };
        return batch::run(file, types, given, patience(global), global, style);
    }
    let Some(name) = &args.name else {
        return Err(Failure::usage("no name was given", Some("reachwhy dns www.example.com")));
    };
    let wanted = Wanted::read(name, args.rtype.as_deref()).map_err(|error| Failure::usage(error, hint))?;
    if name.is_empty() || name.contains(|c: char| c.is_control()) {
        return Err(Failure::usage("this is no name: it is empty, or has control characters in it", None));
    }
    let roots = roots(&args.root)?;
    let anchors = anchors(args.anchor.as_deref())?;
    let stop = Stop::watch();
    let facts = facts::resolver_facts();
    let word = if matches!(wanted, Wanted::Names(_)) { None } else { Some(name.as_str()) };
    let conf = Conf::read(&facts, word);
    let mut progress = Progress::new(std::io::stderr(), std::io::stderr().is_terminal() && !global.json);
    let asked = Asked {
        name,
        wanted,
        conf: &conf,
        facts: &facts,
        given,
        roots: roots.filter(|_| args.trace),
        anchors: Some(anchors),
        dnssec: args.dnssec,
        compare: !args.no_compare,
        connect: args.connect,
        stop,
        patience: patience(global),
        tries: 2,
    };
    let report = asked.report(&mut |what| progress.say(what));
    progress.clear();
    if global.json {
        print_json(&report)?;
    } else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        view::dns::report(&mut out, &report, style, global.verbose > 0)?;
        out.flush()?;
    }
    Ok(report.exit_code())
}

fn patience(global: &Global) -> Duration {
    global.timeout.unwrap_or(Duration::from_secs(1))
}

/// Reads the servers; one that is given by name is looked up as any other name.
fn servers(given: &[String]) -> anyhow::Result<Vec<Server>> {
    let hint =
        Some("192.168.1.53, [fd00::53]:53, tcp://192.168.1.53, tls://dns.example, https://dns.example/dns-query");
    let mut servers = Vec::new();
    for text in given {
        let server: GivenServer =
            text.parse().map_err(|error| Failure::usage(format!("--server {text}: {error}"), hint))?;
        let (address, name) = if let Some(address) = server.address() {
            (address, None)
        } else {
            let found = check::addresses(&server.host).map_err(|error| {
                Failure::unknown(format!("--server {text}: {}: {error}", server.host), Some("give its address"))
            })?;
            (found[0], Some(server.host.clone()))
        };
        servers.push(Server {
            transport: server.transport,
            tls_name: server.tls_name.or(name),
            path: server.path,
            ..Server::udp(SocketAddr::from((address, server.port)))
        });
    }
    Ok(servers)
}

/// The root zone's keys as IANA publishes them, or those of a file.
fn anchors(path: Option<&Path>) -> anyhow::Result<TrustAnchors> {
    let Some(path) = path else { return Ok(TrustAnchors::default()) };
    let octets = crate::os::files::read_whole(path)
        .map_err(|error| Failure::usage(format!("--anchor {}: {error}", path.display()), None))?;
    read_anchors(&String::from_utf8_lossy(&octets)).map_err(|error| {
        let hint = Some(". 3600 IN DNSKEY 257 3 8 AwEAAa…, as zone files have it");
        Failure::usage(format!("--anchor {}: {error}", path.display()), hint)
    })
}

fn roots(given: &[String]) -> anyhow::Result<Option<TraceOptions>> {
    let mut options = TraceOptions::default();
    if !given.is_empty() {
        options.roots.clear();
    }
    for text in given {
        let server: GivenServer =
            text.parse().map_err(|error| Failure::usage(format!("--root {text}: {error}"), None))?;
        let address = server
            .address()
            .ok_or_else(|| Failure::usage(format!("--root {text}: an address is needed"), Some("--root 198.41.0.4")))?;
        options.roots.push(SocketAddr::from((address, server.port)));
    }
    Ok(Some(options))
}
