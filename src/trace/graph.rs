//! The ways to a host as a graph.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

/// Paths listed one by one at most; the graph holds all.
const LISTED: usize = 1024;

/// A router at a TTL.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// Its place in the list.
    pub id: usize,
    /// TTL of the probes that it answered; the sending host has the one before the first.
    pub ttl: u8,
    /// Its address; `None`: something that does not answer.
    pub address: Option<IpAddr>,
    /// The destination, or what refused.
    pub end: bool,
    /// A round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Flows that were seen there.
    pub flows: u16,
}

/// Flows that went from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// From this node.
    pub from: usize,
    /// To that.
    pub to: usize,
    /// So many flows were seen at both.
    pub flows: u16,
}

/// How a router spreads packets over its ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// All packets of a flow go the same way.
    PerFlow,
    /// Packets of one flow go different ways.
    PerPacket,
    /// It lies behind a router that spreads packets one by one, so that its own way of choosing cannot be seen.
    Unknown,
}

/// A router with several ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Balancer {
    /// Which.
    pub node: usize,
    /// How many.
    pub ways: usize,
    /// How it chooses.
    pub spread: Spread,
}

/// All ways that were found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Graph {
    /// For each router: how sure it is that no way was missed.
    pub confidence: f64,
    /// Flows used.
    pub flows: u16,
    /// Probes sent.
    pub probes: u32,
    /// Whether every router was asked as often as the confidence needs.
    pub complete: bool,
    /// Hops whose answers are limited: they are known as a whole, and each router before them by one flow.
    pub one_sample_hops: Vec<u8>,
    /// Hops behind a router that spreads packets one by one: links into them are possible ones, not proven.
    pub blurred_hops: Vec<u8>,
    /// The routers, by TTL.
    pub nodes: Vec<Node>,
    /// Who leads to whom.
    pub edges: Vec<Edge>,
    /// Where flows part.
    pub balancers: Vec<Balancer>,
}

impl Graph {
    /// The nodes behind a node.
    pub fn after(&self, node: usize) -> impl Iterator<Item = usize> {
        self.edges.iter().filter(move |edge| edge.from == node).map(|edge| edge.to)
    }

    /// The nodes of each TTL, the sending host first.
    pub fn layers(&self) -> Vec<Vec<usize>> {
        let first = self.nodes.first().map_or(0, |node| node.ttl);
        let last = self.nodes.iter().map(|node| node.ttl).max().unwrap_or(first);
        let of = |ttl| self.nodes.iter().filter(|node| node.ttl == ttl).map(|node| node.id).collect();
        (first..=last).map(of).collect()
    }

    /// The paths one by one, as addresses from the first hop on (`None`: silent), and whether these are all.
    pub fn paths(&self) -> (Vec<Vec<Option<IpAddr>>>, bool) {
        let mut found = Vec::new();
        let mut open: Vec<Vec<usize>> = if self.nodes.is_empty() { Vec::new() } else { vec![vec![0]] };
        while let Some(path) = open.pop() {
            if found.len() >= LISTED {
                return (found, false);
            }
            let next: Vec<usize> = path.last().map(|last| self.after(*last).collect()).unwrap_or_default();
            if next.is_empty() {
                if path.len() > 1 {
                    found.push(path[1..].iter().map(|node| self.nodes[*node].address).collect());
                }
                continue;
            }
            for node in next.into_iter().rev() {
                let mut longer = path.clone();
                longer.push(node);
                open.push(longer);
            }
        }
        (found, true)
    }

    /// Most routers at one TTL.
    pub fn width(&self) -> usize {
        self.layers().iter().map(Vec::len).max().unwrap_or(0)
    }

    /// What is certain of it, in a sentence.
    pub fn says(&self) -> String {
        let (paths, all) = self.paths();
        let count = if all { paths.len().to_string() } else { format!("more than {}", paths.len()) };
        let plural = if paths.len() == 1 { "path" } else { "paths" };
        let sure = format!("{:.0} %", (self.confidence * 100.0).floor());
        let mut text = if paths.len() == 1 && all {
            format!("1 path; {sure} sure at each router that it has no other way")
        } else {
            format!(
                "{count} {plural}, at most {} wide; {sure} sure at each router that no way was missed",
                self.width()
            )
        };
        if !self.one_sample_hops.is_empty() {
            let hops: Vec<String> = self.one_sample_hops.iter().map(u8::to_string).collect();
            let _ = write!(
                text,
                "; answers of hop {} are limited: which routers are there is that sure, which leads to which rests on a flow each",
                hops.join(", ")
            );
        }
        if !self.blurred_hops.is_empty() {
            let hops: Vec<String> = self.blurred_hops.iter().map(u8::to_string).collect();
            let _ = write!(
                text,
                "; packets are spread one by one before hop {}, so that which router leads to which there cannot be told: all \
                 links that may be are drawn",
                hops.join(", ")
            );
        }
        if !self.complete {
            text.push_str("; not complete: the time was up before all limited routers had answered often enough");
        }
        text
    }
}
