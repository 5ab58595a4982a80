//! Random matches that remember, for histories. Rates are so slow that no time passes in them.

use crate::matches::{Place, not};
use crate::random::Random;
use crate::rules::Part;

/// A match that remembers. `number` makes names that no other rule has.
pub(crate) fn any(r: &mut Random, place: Place<'_>) -> Part {
    let not = not(r);
    let small = r.pick(&[1, 2, 3, 5]);
    let text = match r.below(10) {
        0 => format!("-m limit --limit {} --limit-burst {small}", r.pick(&["1/hour", "2/day", "1/min"])),
        1 => {
            let mode =
                r.pick(&["srcip", "dstip", "srcip,dstport", "srcip,dstip", "srcport", "dstport", "dstip,srcport"]);
            let verb = r.pick(&["upto", "above"]);
            let mask = match r.below(3) {
                0 if mode.contains("srcip") => format!(" --hashlimit-srcmask {}", if place.v6 { 64 } else { 24 }),
                1 if mode.contains("dstip") => format!(" --hashlimit-dstmask {}", if place.v6 { 48 } else { 16 }),
                _ => String::new(),
            };
            format!(
                "-m hashlimit --hashlimit-{verb} 1/hour --hashlimit-burst {small} --hashlimit-mode {mode} --hashlimit-name h{}{mask}",
                r.below(100_000)
            )
        }
        2..5 => {
            let verb = r.pick(&["set", "set", "update", "rcheck", "update", "remove"]);
            let side = r.pick(&["--rsource", "--rdest"]);
            let mut text = format!("-m recent --name l{} {not}--{verb}", r.below(3));
            if matches!(verb, "update" | "rcheck") {
                if r.chance(60) {
                    text += " --seconds 600";
                }
                if r.chance(60) {
                    text += &format!(" --hitcount {}", r.pick(&[1, 2, 3, 4]));
                }
                if r.chance(20) {
                    text += " --rttl";
                }
                if text.contains("--seconds") && r.chance(20) {
                    text += " --reap";
                }
            }
            let mask = match r.below(4) {
                0 if place.v6 => " --mask ffff:ffff::",
                0 => " --mask 255.255.255.0",
                _ => "",
            };
            format!("{text}{mask} {side}")
        }
        5 => {
            let every = r.pick(&[2, 3, 4]);
            format!("-m statistic --mode nth {not}--every {every} --packet {}", r.below(every))
        }
        6 => format!("-m quota {not}--quota {}", r.pick(&[60, 100, 200, 500])),
        7 => {
            let verb = r.pick(&["upto", "above"]);
            let mask = if place.v6 { r.pick(&[128, 64, 0]) } else { r.pick(&[32, 24, 0]) };
            let side = r.pick(&["--connlimit-saddr", "--connlimit-daddr"]);
            // Of other packets the kernel counts as it comes by (net/netfilter/nf_conncount.c, count_tree).
            format!(
                "-m conntrack --ctstate NEW -m connlimit --connlimit-{verb} {} --connlimit-mask {mask} {side}",
                r.pick(&[0, 1, 2, 3])
            )
        }
        8 => {
            let mode = r.pick(&["packets", "bytes", "avgpkt"]);
            let (low, high) = if mode == "packets" { (r.pick(&[0, 1, 2, 3]), 4) } else { (r.pick(&[28, 41, 60]), 120) };
            let high = if r.chance(50) { high.to_string() } else { String::new() };
            let dir = r.pick(&["original", "reply", "both"]);
            format!("-m connbytes {not}--connbytes {low}:{high} --connbytes-mode {mode} --connbytes-dir {dir}")
        }
        _ => format!(
            "-m conntrack {not}--ctstate {}",
            r.pick(&["NEW", "ESTABLISHED", "RELATED", "ESTABLISHED,RELATED", "INVALID", "DNAT", "SNAT"])
        ),
    };
    Part { text, ..Part::default() }
}
