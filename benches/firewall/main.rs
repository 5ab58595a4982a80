//! How fast rulesets are read and packets answered. `cargo bench --bench firewall [NAME…]`.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "no library")]
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement prints what it found")]

mod rulesets;

use nix::time::ClockId;
use reachwhy::firewall::ruleset::Family;
use reachwhy::firewall::symbolic::{diff, lint};
use reachwhy::firewall::{Compiled, Facts, Packet, Stack, parse, walk::walk as plain};
use reachwhy::host::Backend;
use std::hint::black_box;

/// Seconds of one core, so that what else the machine does counts little.
fn cpu() -> f64 {
    let now = ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap();
    now.tv_sec() as f64 + now.tv_nsec() as f64 * 1e-9
}

/// Seconds of the fastest of several runs.
fn fastest<T>(runs: usize, mut run: impl FnMut() -> T) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let start = cpu();
        black_box(run());
        best = best.min(cpu() - start);
    }
    best
}

fn stack(text: &str) -> Stack {
    Stack::from_rulesets([parse::iptables_save(text, Family::Ip, Backend::Nft, "bench").unwrap().ruleset])
}

fn reading() {
    for (name, text, rules) in [
        ("10,000 ports and addresses", rulesets::ports(10_000), 10_000),
        ("kube-proxy, 160,000 rules", rulesets::kube(160_000), 160_000),
    ] {
        let took = fastest(3, || parse::iptables_save(&text, Family::Ip, Backend::Nft, "bench").unwrap());
        println!("read  {name}: {:.0} rules/s", f64::from(rules) / took);
    }
    let text = rulesets::native(50_000);
    let took = fastest(2, || parse::nft_text(&text, "bench").unwrap());
    println!("read  nft text, 50,000 rules: {:.0} rules/s", 50_000.0 / took);
    let text = rulesets::ipset(1_000_000);
    let took = fastest(2, || parse::ipset_save(&text, "bench").unwrap());
    println!("read  ipset of 1,000,000: {:.0} elements/s", 1_000_000.0 / took);
}

fn walking() {
    for (name, text, packets) in [
        ("10,000 ports and addresses", rulesets::ports(10_000), rulesets::port_packets(10_000, 2_000)),
        ("10,000 networks", rulesets::networks(10_000), rulesets::network_packets(10_000, 2_000)),
        ("kube-proxy, 160,000 rules", rulesets::kube(160_000), rulesets::kube_packets(160_000, 200)),
    ] {
        let stack = stack(&text);
        let some: Vec<&Packet> = packets.iter().step_by(20).collect();
        let took = fastest(2, || some.iter().filter(|p| plain(&stack, p, &Facts::none()).decided_by.is_some()).count());
        println!("plain walk  {name}: {:.0} packets/s", some.len() as f64 / took);
        let took = fastest(1, || {
            let compiled = Compiled::eager(&stack);
            compiled.answer(&packets[0], &Facts::none(), None).verdict()
        });
        println!("compiling   {name}: {:.1} ms", took * 1e3);
        let compiled = Compiled::eager(&stack);
        let took =
            fastest(5, || packets.iter().filter(|p| compiled.answer(p, &Facts::none(), None).is_decided()).count());
        println!("compiled    {name}: {:.0} packets/s", packets.len() as f64 / took);
    }
}

/// The most memory that this process had, in MB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Questions about all packets: what they cost as rulesets grow.
fn analysing() {
    for rules in [625, 1_250, 2_500, 5_000] {
        let (old, new) = (stack(&rulesets::site(rules)), stack(&rulesets::site_changed(rules)));
        let mut count = 0;
        let took = fastest(2, || count = lint(&old, &[]).len());
        let mut regions = 0;
        let compared = fastest(2, || regions = diff(&old, &new, false, 100).regions.len());
        println!(
            "site  {rules:>7} rules: lint {took:.3} s ({count} findings), diff {compared:.3} s ({regions} regions), at most {} MB",
            peak()
        );
    }
    for rules in [10_000, 20_000, 40_000, 80_000, 160_000] {
        let old = stack(&rulesets::kube(rules));
        let took = fastest(1, || lint(&old, &[]).len());
        println!("kube  {rules:>7} rules: lint {took:.3} s, at most {} MB", peak());
    }
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    if wanted("read") {
        reading();
    }
    if wanted("analyse") {
        analysing();
    }
    if wanted("walk") {
        walking();
    }
}
