//! The replay against the C library itself: random hosts files, resolv.conf options, nsswitch lines, gai.conf
//! tables and servers that fail in every way. The same addresses in the same order, or the same error.
//!
//! A failure prints its seed; `DNS_SEED=n` repeats that case alone, `DNS_CASES=n` runs more of them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "a test")]

mod dns_support;
mod probe_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns_support::server::{AA, Asked, Build, Reply, TC, TO_QUESTION, serve, wire};
use dns_support::{Dice, Etc, dns};
use probe_support::{Sandbox, sandboxed};

const NAMES: [&str; 17] = [
    "localhost",
    "api",
    "api.lab",
    "www.api.lab",
    "a.b.c.lab",
    "dup",
    "API.Lab",
    "api.lab.",
    "-bad",
    "under_score.lab",
    "x",
    "deep.x.lab",
    "printer.local",
    "no.such",
    "x.",
    "a..b",
    "*.lab",
];

/// What the servers do, so that both who ask see the same.
#[derive(Clone, Copy, Default)]
struct Mood {
    seed: u64,
    /// All servers alike: with `rotate` either may be asked.
    alike: bool,
    /// Silence too, which costs seconds.
    patient: bool,
}

fn hash(mood: Mood, server: u8, asked: &Asked) -> Dice {
    let mut sum = mood.seed ^ 0x1234_5678 ^ u64::from(asked.rtype) << 32;
    if !mood.alike {
        sum ^= u64::from(server) << 48;
    }
    for octet in asked.name.bytes() {
        sum = (sum ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }
    Dice::new(sum)
}

fn address(dice: &mut Dice, rtype: u16) -> IpAddr {
    let low = u16::try_from(dice.below(250)).unwrap() + 1;
    if rtype == 1 {
        let octet = u8::try_from(low).unwrap();
        dice.pick(&[
            Ipv4Addr::new(10, 9, 0, octet),
            Ipv4Addr::new(10, 9, 7, octet),
            Ipv4Addr::new(192, 168, 1, octet),
            Ipv4Addr::new(169, 254, 1, octet),
            Ipv4Addr::new(127, 0, 0, octet),
        ])
        .into()
    } else {
        let v6 = |first, second| Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, low);
        dice.pick(&[v6(0xfd09, 0), v6(0xfd10, 1), v6(0x2001, 0xdb8), v6(0x2002, 0xa09), v6(0xfe80, 0), v6(0, 0)]).into()
    }
}

fn answer(mood: Mood, server: u8, asked: &Asked) -> Vec<Reply> {
    let mut dice = hash(mood, server, asked);
    let kind = dice.below(if mood.patient { 27 } else { 25 });
    let ok = || Build::reply(asked, 0);
    let mut full = |build: Build, owner: &[u8]| {
        (0..=dice.below(4)).fold(build, |build, _| build.address(owner, address(&mut dice, asked.rtype)))
    };
    let now = |build: Build| vec![(Duration::ZERO, build.octets())];
    match kind {
        9 | 10 => now(Build::reply(asked, 3)),
        11 => now(ok()),
        12 => now(Build::reply(asked, 2)),
        13 => now(Build::reply(asked, *[1, 4, 5].get(asked.name.len() % 3).unwrap())),
        // An alias and its addresses, or an alias alone.
        14 => {
            let target = wire("target.lab");
            now(full(ok().record(TO_QUESTION, 5, &target), &target))
        }
        15 => now(ok().record(TO_QUESTION, 5, &wire("target.lab"))),
        // More by TCP.
        16 | 17 if !asked.tcp => {
            let mut build = full(ok(), TO_QUESTION);
            build.flags |= TC;
            now(build)
        }
        // Neither an answer nor an authority nor one who asks.
        18 => {
            let mut build = ok();
            build.flags &= !0x80;
            now(build)
        }
        // A forged answer first.
        19 => {
            let mut forged = ok().address(TO_QUESTION, Ipv4Addr::new(6, 6, 6, 6).into());
            forged.id ^= 0x5555;
            let genuine = full(ok(), TO_QUESTION);
            vec![(Duration::ZERO, forged.octets()), (Duration::from_millis(2), genuine.octets())]
        }
        // Records of others, of other types, and of odd lengths among the right ones.
        20 => now(full(ok().address(&wire("other.lab"), address(&mut Dice::new(1), asked.rtype)), TO_QUESTION)),
        21 => {
            now(full(ok().record(TO_QUESTION, 16, b"\x02hi").record(TO_QUESTION, asked.rtype, &[1, 2, 3]), TO_QUESTION))
        }
        // A record that leads to itself; an answer that ends too early.
        22 => now(full(ok().record(&[0xc0, 0x40], asked.rtype, &[1; 4]), TO_QUESTION)),
        23 => {
            let mut octets = full(ok(), TO_QUESTION).octets();
            octets.truncate(octets.len() - 3);
            vec![(Duration::ZERO, octets)]
        }
        24 => {
            let mut build = full(ok(), TO_QUESTION);
            build.flags |= AA;
            build.question[1] ^= 0x20;
            now(build)
        }
        25 => vec![(Duration::ZERO, vec![0; 5])],
        26 => Vec::new(),
        _ => now(full(ok(), TO_QUESTION)),
    }
}

fn hosts(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..dice.below(8) {
        let rtype = dice.pick(&[1, 1, 28]);
        let mut words = vec![match dice.below(12) {
            0 => "::1".to_owned(),
            1 => "::ffff:10.9.0.77".to_owned(),
            2 => dice.pick(&["010.0.0.1", "1.2.3", "x", "fe80::1%lo", "#10.0.0.1"]).to_owned(),
            _ => address(dice, rtype).to_string(),
        }];
        for _ in 0..=dice.below(3) {
            words.push(dice.pick(&NAMES).to_owned());
        }
        if dice.one_in(6) {
            let at = 1 + dice.below(words.len() - 1);
            words.insert(at, "# and".to_owned());
        }
        text.push_str(dice.pick(&["", "  ", "\t"]));
        text.push_str(&words.join(dice.pick(&[" ", "\t", "   "])));
        text.push_str(dice.pick(&["\n", "\n", " \n", "\r\n", "\n\n"]));
    }
    text
}

/// resolv.conf, and whether servers must be alike.
fn resolv(dice: &mut Dice, patient: bool) -> (String, bool) {
    let mut lines = Vec::new();
    for _ in 0..dice.below(5) {
        lines.push(format!(
            "nameserver {}",
            dice.pick(&["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.9", "127.2", "::1", "bad"])
        ));
    }
    if !dice.one_in(3) {
        let mut list: Vec<&str> = Vec::new();
        for _ in 0..=dice.below(3) {
            list.push(dice.pick(&["lab", "x.lab", "example", ".", ".lab", "c.lab."]));
        }
        lines.push(format!("{} {}", dice.pick(&["search", "domain"]), list.join(" ")));
    }
    let mut options = vec!["timeout:1".to_owned(), format!("attempts:{}", dice.pick(&[1, 1, 2]))];
    if dice.one_in(2) {
        options.push(format!("ndots:{}", dice.below(4)));
    }
    let mut rotate = false;
    for option in [
        "rotate",
        "edns0",
        "single-request",
        "single-request-reopen",
        "use-vc",
        "trust-ad",
        "no-aaaa",
        "no-tld-query",
        "junk",
    ] {
        if dice.one_in(7) {
            rotate |= option == "rotate";
            options.push(option.to_owned());
        }
    }
    lines.push(format!("options {}", options.join(" ")));
    if dice.one_in(4) {
        let at = dice.below(lines.len());
        lines.insert(
            at,
            dice.pick(&["# comment", "; other", " nameserver 127.0.0.2", "nameserver", "foo bar", ""]).to_string(),
        );
    }
    let _ = patient;
    (lines.join("\n") + "\n", rotate)
}

fn nsswitch(dice: &mut Dice) -> String {
    if dice.one_in(3) {
        return "hosts: files dns\n".to_owned();
    }
    let mut words = Vec::new();
    for _ in 0..=dice.below(4) {
        words.push(
            dice.pick(&["files", "dns", "files", "dns", "files", "dns", "absent", "compat", "mdns4_minimal"])
                .to_owned(),
        );
        if dice.one_in(3) {
            let not = if dice.one_in(4) { "!" } else { "" };
            let status = dice.pick(&["NOTFOUND", "SUCCESS", "unavail", "TRYAGAIN"]);
            let action = dice.pick(&["return", "continue", "return", "continue", "merge"]);
            words.push(format!("[{not}{status}={action}]"));
        }
    }
    format!("passwd: files\nhosts: {}\n", words.join(" "))
}

fn gai(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..dice.below(4) {
        text.push_str(dice.pick(&[
            "precedence ::ffff:0:0/96 100\n",
            "precedence fd09::/16 7\n",
            "precedence ::/0 40\n",
            "label 2002::/16 2\n",
            "label ::/0 1\n",
            "label fd09::/64 1\n",
            "scopev4 ::ffff:169.254.0.0/112 2\n",
            "scopev4 ::ffff:10.9.0.0/112 5\n",
            "# precedence ::1/128 50\n",
        ]));
    }
    text
}

/// One worker: a host with files and servers of its own.
struct Bench {
    etc: Etc,
    mood: Arc<Mutex<Mood>>,
}

impl Bench {
    fn new(sandbox: &Sandbox) -> Self {
        std::mem::forget(sandbox.pair());
        let etc = Etc::own(sandbox);
        let mood = Arc::new(Mutex::new(Mood::default()));
        let servers: [(IpAddr, u8); 4] = [
            (Ipv4Addr::LOCALHOST.into(), 1),
            (Ipv4Addr::new(127, 0, 0, 2).into(), 2),
            (Ipv4Addr::new(127, 0, 0, 3).into(), 3),
            (Ipv6Addr::LOCALHOST.into(), 4),
        ];
        for (address, number) in servers {
            let mood = Arc::clone(&mood);
            serve((address, 53).into(), move |asked| answer(*mood.lock().unwrap(), number, asked));
        }
        Self { etc, mood }
    }

    fn case(&self, seed: u64, patient: bool) -> Result<(), String> {
        let mut dice = Dice::new(seed);
        let (resolv, alike) = resolv(&mut dice, patient);
        *self.mood.lock().unwrap() = Mood { seed, alike, patient };
        self.etc.set("hosts", &hosts(&mut dice));
        self.etc.set("resolv.conf", &resolv);
        let nsswitch = nsswitch(&mut dice);
        self.etc.set("nsswitch.conf", &nsswitch);
        self.etc.set("gai.conf", &gai(&mut dice));
        self.etc.set("host.conf", dice.pick(&["multi on\n", "multi on\n", "multi off\n", ""]));
        let name = dice.pick(&NAMES);
        let mut arguments = vec!["--no-compare", "--json", "--", name];
        // With "merge" the older functions, which serve IPv4 alone, give out memory nobody has written to.
        let v4 = if nsswitch.contains("merge") { None } else { Some("A") };
        arguments.extend(dice.pick(&[None, None, v4, Some("AAAA")]));
        let ran = dns(&arguments);
        let report = ran.json();
        let list = |value: &serde_json::Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
        };
        let mut ours: Vec<String> = Vec::new();
        for answer in report["answers"].as_array().unwrap() {
            let address = answer["address"].as_str().unwrap().to_owned();
            if !ours.contains(&address) {
                ours.push(address);
            }
        }
        let check = &report["check"];
        let theirs = list(&check["addresses"]);
        let errors = (report["error"]["eai"].clone(), check["error"].clone());
        // With `rotate` equal servers may still be asked by one and not by the other.
        let same = ours == theirs && (!ours.is_empty() || errors.0 == errors.1);
        if same && check["agrees"] == true {
            return Ok(());
        }
        let steps: Vec<String> = report["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| format!("{} {} {} → {}", step["source"], step["query"], step["server"], step["result"]))
            .collect();
        Err(format!(
            "DNS_SEED={seed}{}: {}: the replay says {ours:?} {}, getaddrinfo says {theirs:?} {}\n{}\n{}",
            if patient { " DNS_PATIENT=1" } else { "" },
            arguments[3..].join(" "),
            errors.0,
            errors.1,
            steps.join("\n"),
            self.etc.show()
        ))
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(first: u64, cases: u64, patient: bool, workers: usize) {
    let next = Arc::new(AtomicU64::new(first));
    let failures = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..workers)
        .map(|_| {
            let (next, failures) = (Arc::clone(&next), Arc::clone(&failures));
            std::thread::spawn(move || {
                sandboxed(move |sandbox| {
                    let bench = Bench::new(sandbox);
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + cases || failures.lock().unwrap().len() >= 5 {
                            return;
                        }
                        if let Err(failure) = bench.case(seed, patient) {
                            failures.lock().unwrap().push(failure);
                        }
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "{} of {cases} cases differ:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn the_replay_is_what_the_c_library_does() {
    if !glibc() {
        return;
    }
    match number("DNS_SEED") {
        Some(seed) => run(seed, 1, number("DNS_PATIENT").is_some(), 1),
        None => run(1, number("DNS_CASES").unwrap_or(400), false, 4),
    }
}

#[test]
fn silent_servers_cost_both_the_same() {
    if glibc() && number("DNS_SEED").is_none() {
        run(100_000, number("DNS_CASES").map_or(48, |cases| cases / 4), true, 12);
    }
}

/// Another C library resolves by other rules.
fn glibc() -> bool {
    let here = cfg!(target_env = "gnu");
    if !here {
        eprintln!("SKIPPED: this is not glibc");
    }
    here
}
