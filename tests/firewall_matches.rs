//! Every option of every match and target: we read it, write it, and the kernel holds the same rule
//! whether it was given the text as people write it or as we write it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stdout, reason = "what was skipped, and how much was compared")]
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use reachwhy::firewall::ruleset::{Family, Hook, Rule};
use reachwhy::firewall::{Facts, Packet, Stack, Verdict, parse, walk::walk_hook};
use reachwhy::host::{Backend, DumpFormat, RulesetDump};
use reachwhy::os::netns::NetNs;

/// One line of the vocabulary.
struct Line {
    family: Family,
    table: &'static str,
    chain: &'static str,
    rule: &'static str,
}

fn vocabulary() -> Vec<Line> {
    let lines = include_str!("firewall/vocabulary.rules").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.splitn(4, ' ');
            let family = if parts.next().unwrap() == "6" { Family::Ip6 } else { Family::Ip };
            let mut next = || parts.next().unwrap();
            Line { family, table: next(), chain: next(), rule: next() }
        })
        .collect()
}

impl Line {
    fn text(&self, rule: &str) -> String {
        let Self { table, chain, .. } = self;
        format!("*{table}\n:{chain} ACCEPT [0:0]\n-A {chain} {rule}\nCOMMIT\n")
    }

    /// The rule as we read it.
    fn read(&self, rule: &str) -> Rule {
        let text = self.text(rule);
        let parsed = parse::iptables_save(&text, self.family, Backend::Nft, "vocabulary");
        let parsed = parsed.unwrap_or_else(|e| panic!("{e}"));
        assert!(parsed.warnings.is_empty(), "{rule}: {:?}", parsed.warnings);
        let ruleset = parsed.ruleset.without_places();
        ruleset.tables[0].chains[0].rules[0].clone()
    }
}

#[test]
fn every_option_is_known_and_written_as_it_is_read() {
    let lines = vocabulary();
    assert!(lines.len() > 230, "{}", lines.len());
    let mut faults = Vec::new();
    for line in lines {
        let rule = line.read(line.rule);
        let written = rule.to_string();
        if !rule.unknown_parts().is_empty() || line.read(&written) != rule {
            faults.push(format!("{}\n{written}", line.rule));
        }
        for m in &rule.matches {
            if let reachwhy::firewall::ruleset::Test::Stateful { .. } = m.test {
                let params = m.test.stateful().unwrap_or_else(|| panic!("{written}"));
                assert!(written.contains(&params.to_string()), "{written}\n{params}");
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What this kernel or its surroundings may lack: the beginning of a rule and why.
const LACKING: [(&str, &str); 6] = [
    ("-m nfacct", "its accounting object has to be made first"),
    ("-m cgroup --path", "there may be no cgroup2 tree"),
    ("-m cgroup ! --path", "there may be no cgroup2 tree"),
    ("-j SECMARK", "no security module is loaded"),
    ("-j ULOG", "gone from the kernel since 3.17"),
    ("-j QUEUE", "iptables-nft has no QUEUE"),
];

/// iptables-nft 1.8.9 forgets it: `libxt_NFLOG.c` leaves `--nflog-range` to the legacy backend.
fn differs(backend: Backend, rule: &str) -> bool {
    backend == Backend::Nft && rule.contains("--nflog-range")
}

fn run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn skip(why: &str) {
    assert!(std::env::var("REACHWHY_REQUIRE_KERNEL").as_deref() != Ok("1"), "{why}");
    println!("SKIPPED: {why}");
}

#[test]
fn the_kernel_holds_the_rule_as_we_write_it() {
    if !nix::unistd::geteuid().is_root() {
        return skip("loading rules needs root");
    }
    for tool in ["iptables-nft-restore", "iptables-legacy-restore", "ipset"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return skip(&format!("{tool} is not installed"));
        }
    }
    // A thread of its own: the namespace goes with it.
    let done = std::thread::spawn(|| {
        if let Err(error) = NetNs::unshare() {
            return skip(&format!("no network namespace: {error}"));
        }
        let sets = "create words hash:ip timeout 300 counters skbinfo\ncreate pairs hash:ip,port counters\n";
        run("ipset", &["restore"], sets).unwrap();
        let (mut compared, mut same) = (0, 0);
        let (mut lacking, mut faults) = (Vec::new(), Vec::new());
        for line in vocabulary() {
            for backend in [Backend::Nft, Backend::Legacy] {
                match compare(&line, backend, &mut faults) {
                    Ok(identical) => {
                        compared += 1;
                        same += usize::from(identical);
                    }
                    Err(why) => {
                        let known = LACKING.iter().find(|(begin, _)| line.rule.contains(begin));
                        let (_, reason) = known.unwrap_or_else(|| panic!("{}: {why}", line.rule));
                        lacking.push(format!("{backend:?} {}: {reason}", line.rule));
                    }
                }
            }
        }
        println!(
            "{compared} rules held by the kernel as we write them, {same} of them word for word as it prints them"
        );
        println!("not loadable here:\n{}", lacking.join("\n"));
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        assert!(compared > 450, "{compared}");
    });
    done.join().unwrap();
}

/// Whether the kernel's text and ours are the same word for word; the error is the kernel's refusal.
fn compare(line: &Line, backend: Backend, faults: &mut Vec<String>) -> Result<bool, String> {
    let family = if line.family == Family::Ip6 { "ip6tables" } else { "iptables" };
    let kind = if backend == Backend::Nft { "nft" } else { "legacy" };
    let (restore, save) = (format!("{family}-{kind}-restore"), format!("{family}-{kind}-save"));
    let load = |rule: &str| -> Result<String, String> {
        run(&restore, &[], &line.text(rule))?;
        let saved = run(&save, &["-t", line.table], "")?;
        let begin = format!("-A {} ", line.chain);
        let saved = saved.lines().find_map(|l| l.strip_prefix(&begin)).unwrap_or("");
        // The old name of the same target.
        Ok(saved.replace("-j NOTRACK", "-j CT --notrack"))
    };
    let theirs = load(line.rule)?;
    let rule = line.read(line.rule);
    let ours = rule.to_string();
    let again = load(&ours).unwrap_or_else(|why| format!("refused: {ours}: {why}"));
    if theirs != again {
        faults.push(format!("{kind}: `{}`\n  theirs {theirs}\n  ours   {again}", line.rule));
    }
    // What iptables-save prints means to us what the rule meant.
    if !differs(backend, line.rule) {
        let read = line.read(&theirs).to_string();
        if read != ours {
            faults.push(format!("{kind}: `{}`, saved as `{theirs}`\n  is to us {read}\n  not      {ours}", line.rule));
        }
    }
    run(&restore, &[], &format!("*{0}\n:{1} ACCEPT [0:0]\nCOMMIT\n", line.table, line.chain))?;
    Ok(theirs == ours)
}

/// Whether a rule drops the packet: its verdict. `Unknown` is a question left open.
fn verdict(family: Family, rule: &str, packet: &str, clock: Option<u64>) -> Verdict {
    let text = format!("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {rule} -j DROP\nCOMMIT\n");
    let format = if family == Family::Ip6 { DumpFormat::Ip6tablesSave } else { DumpFormat::IptablesSave };
    let dump = RulesetDump { format, backend: Backend::Legacy, via: "t".into(), text };
    let (stack, issues) = Stack::from_dumps(&[dump]);
    assert!(issues.is_empty(), "{}", issues[0]);
    let packet: Packet = packet.parse().unwrap_or_else(|e| panic!("{e}"));
    let facts = clock.map_or(Facts::none(), |now| Facts::none().at(now));
    walk_hook(&stack, &packet.at(Hook::Input), &facts).verdict
}

#[test]
fn ipv6_headers_clocks_and_open_questions() {
    use Verdict::{Accept, Drop, Unknown};
    let (four, six) = (Family::Ip, Family::Ip6);
    let plain = "in=eth0 tcp fd00::1:1000 > fd00::2:80 syn";
    let fragment = "in=eth0 udp fd00::1 > fd00::2 frag_offset=5";
    let tcp = "in=eth0 tcp 10.0.0.1:1000 > 10.0.0.2:80 syn";
    for (family, rule, packet, clock, expect) in [
        // net/ipv6/netfilter/ip6t_ipv6header.c
        (six, "-m ipv6header --header prot", plain, None, Drop),
        (six, "-m ipv6header --header frag,prot", plain, None, Accept),
        (six, "-m ipv6header --header frag --soft", fragment, None, Drop),
        (six, "-m ipv6header --header frag", fragment, None, Accept),
        (six, "-m ipv6header ! --header frag --soft", plain, None, Drop),
        // ip6t_frag.c, ip6t_rt.c, ip6t_hbh.c: no header, no match, negated or not.
        (six, "-m frag --fragfirst", fragment, None, Accept),
        (six, "-m frag --fraglast", fragment, None, Drop),
        (six, "-m frag ! --fragid 7", plain, None, Accept),
        (six, "-m rt ! --rt-type 0", plain, None, Accept),
        (six, "-m hbh ! --hbh-len 8", plain, None, Accept),
        // ip6t_eui64.c
        // xt_time.c; 1 March 2024 is a Friday.
        (four, "-m time --weekdays Fri", tcp, Some(1_709_294_400), Drop),
        (four, "-m time --weekdays Mon", tcp, Some(1_709_294_400), Accept),
        (four, "-m time --weekdays Mon", tcp, None, Unknown),
        (four, "-m time --timestart 11:00 --timestop 13:00 --kerneltz", tcp, Some(1_709_294_400), Unknown),
        // xt_physdev.c and xt_policy.c, without a bridge and without IPsec.
        (four, "-m physdev --physdev-is-bridged", tcp, None, Accept),
        (four, "-m physdev ! --physdev-in eth1", tcp, None, Drop),
        (four, "-m policy --dir in --pol ipsec", tcp, None, Accept),
        // What nobody said stays open.
        (four, "-m socket", tcp, None, Unknown),
        (four, "-m cpu --cpu 0", tcp, None, Unknown),
        (four, "-m devgroup --src-group 3", tcp, None, Unknown),
        (four, "-m rpfilter --invert", tcp, None, Unknown),
        (four, "-m statistic --mode random --probability 0.5", tcp, None, Unknown),
        (four, "-p tcp -m osf --genre Linux", tcp, None, Unknown),
        (four, "-m string --string x --algo bm", "in=eth0 udp 10.0.0.1:1 > 10.0.0.2:2 length=100", None, Unknown),
        (four, "-m u32 --u32 \"4>>16=7\"", tcp, None, Unknown),
        (four, "-m helper --helper ftp", tcp, None, Accept),
        (four, "-m helper --helper ftp", "in=eth0 tcp 10.0.0.1:1 > 10.0.0.2:2 ctstate=RELATED", None, Unknown),
    ] {
        assert_eq!(verdict(family, rule, packet, clock), expect, "{rule} {packet}");
    }
}
