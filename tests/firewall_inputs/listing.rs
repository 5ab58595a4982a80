//! Listings, the detection of formats, and what iptables-restore refuses.

use std::io::Write;
use std::process::{Command, Stdio};

use reachwhy::firewall::parse::{dump, guess, iptables_save, listing};
use reachwhy::firewall::{Family, Ruleset, Test};
use reachwhy::host::{Backend, DumpFormat};

const SAVE: &str = "*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:user - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -s 10.0.0.0/8 ! -i eth0 -p tcp -m tcp --dport 22 -m comment --comment \"a tcp dpt:9 b\" -j ACCEPT
-A INPUT -p tcp -m tcp ! --sport 1:1023 --dport 80:90 -j ACCEPT
-A INPUT -p udp -m multiport --dports 53,123,500:510 -j ACCEPT
-A INPUT -p tcp -m multiport ! --sports 53,123 -j ACCEPT
-A INPUT -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A INPUT -p icmp -m icmp --icmp-type 3/4 -j ACCEPT
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -m conntrack ! --ctstate NEW -j DROP
-A INPUT ! -s 192.168.0.0/16 -d 192.168.1.1/32 -j user
-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j user
-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j user
-A INPUT -m mark --mark 0x10/0xff -j RETURN
-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT
-A INPUT -m addrtype --dst-type LOCAL -j ACCEPT
-A INPUT -m pkttype --pkt-type broadcast -j DROP
-A INPUT -m mac --mac-source 02:00:00:00:00:01 -j ACCEPT
-A INPUT -m length --length 100:200 -j ACCEPT
-A INPUT -m limit --limit 5/min -j LOG --log-prefix \"in: x \"
-A INPUT -p udp
-A INPUT -f -j DROP
-A INPUT -g user
-A INPUT -p tcp -j REJECT --reject-with tcp-reset
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A OUTPUT -m owner --uid-owner 0 -j ACCEPT
-A OUTPUT -o eth+ -j ACCEPT
-A user -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080
-A PREROUTING -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 8081
-A POSTROUTING -o eth0 -j MASQUERADE
-A POSTROUTING -s 10.0.0.0/8 -j SNAT --to-source 192.0.2.1
COMMIT
";

/// Runs a shell script with a text as input in a network namespace of its own: its success, output
/// and errors. `None` where that is not allowed here.
fn inside(script: &str, input: &str) -> Option<(bool, String, String)> {
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let run = child.wait_with_output().ok()?;
    let errors = String::from_utf8_lossy(&run.stderr).into_owned();
    if errors.contains("unshare") || errors.contains("not found") || errors.contains("you must be root") {
        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "{errors}");
        eprintln!("SKIPPED: {errors}");
        return None;
    }
    Some((run.status.success(), String::from_utf8_lossy(&run.stdout).into_owned(), errors))
}

/// The rules without places, counters, and words that a listing does not have: a LOG's level.
fn plain(ruleset: Ruleset) -> Ruleset {
    let mut ruleset = ruleset.without_places();
    for chain in ruleset.tables.iter_mut().flat_map(|t| &mut t.chains) {
        chain.base.iter_mut().for_each(|base| base.counters = None);
        for rule in &mut chain.rules {
            rule.counters = None;
            rule.matches.sort_by_key(|m| (matches!(m.test, Test::Comment(_)), format!("{:?}", m.test)));
        }
    }
    ruleset.tables.iter_mut().for_each(|t| t.chains.sort_by(|a, b| a.name.cmp(&b.name)));
    ruleset
}

#[test]
fn listings_of_the_real_iptables_give_the_saved_model() {
    let want = plain(iptables_save(SAVE, Family::Ip, Backend::Nft, "t").unwrap().ruleset);
    for tool in ["iptables-nft", "iptables-legacy"] {
        for flags in ["-L -n -v --line-numbers", "-L -n -v", "-S"] {
            let script = format!(
                "{tool}-restore && {tool} {flags} && echo '# iptables -t nat {flags}' && {tool} -t nat {flags}"
            );
            let Some((ok, text, errors)) = inside(&script, SAVE) else { return };
            assert!(ok, "{errors}");
            assert_eq!(guess(&text, "t").format, DumpFormat::Listing, "{text}");
            let parsed = listing(&text, Family::Ip, Backend::Nft, "t").unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert!(parsed.warnings.is_empty(), "{}\n{text}", parsed.warnings[0]);
            let got = plain(parsed.ruleset);
            for (want, got) in want.tables.iter().zip(&got.tables) {
                for (want, got) in want.chains.iter().zip(&got.chains) {
                    for (want, got) in want.rules.iter().zip(&got.rules) {
                        assert_eq!(format!("{got:?}"), format!("{want:?}"), "{tool} {flags}\n{text}");
                    }
                    assert_eq!(got, want, "{tool} {flags}\n{text}");
                }
            }
            assert_eq!(got.tables, want.tables);
        }
    }
}

#[test]
fn without_v_an_open_rule_is_not_believed() {
    let text = "Chain INPUT (policy DROP)\ntarget     prot opt source               destination         \nACCEPT     all  --  anywhere             anywhere            \nACCEPT     tcp  --  10.0.0.0/8           anywhere             tcp dpt:ssh\n";
    let parsed = listing(text, Family::Ip, Backend::Nft, "t").unwrap();
    let rules = &parsed.ruleset.tables[0].chains[0].rules;
    assert_eq!((rules[0].unknown_parts().len(), rules[1].unknown_parts().len()), (1, 0), "{rules:#?}");
    assert!(parsed.warnings.iter().any(|w| w.message.contains("without -v")));
    let odd = "Chain INPUT (policy DROP 0 packets, 0 bytes)\n pkts bytes target prot opt in out source destination\n 1K 2M ACCEPT tcp -- * * 0.0.0.0/0 0.0.0.0/0 frob 7\n";
    let parsed = listing(odd, Family::Ip, Backend::Nft, "t").unwrap();
    let rule = &parsed.ruleset.tables[0].chains[0].rules[0];
    assert_eq!((rule.unknown_parts().len(), rule.counters.unwrap().bytes), (1, 2_000_000));
}

#[test]
fn every_kind_is_told_from_the_others() {
    for (text, format) in [
        (SAVE, DumpFormat::IptablesSave),
        ("# Generated by ip6tables-save v1.8.9 (nf_tables)\n*filter\nCOMMIT\n", DumpFormat::Ip6tablesSave),
        ("*filter\n-A INPUT -s fe80::1 -j DROP\nCOMMIT\n", DumpFormat::Ip6tablesSave),
        ("table inet filter {\n}\n", DumpFormat::NftText),
        ("#!/usr/sbin/nft -f\n\nflush ruleset\n", DumpFormat::NftText),
        ("define x = 1\ntable ip t {}\n", DumpFormat::NftText),
        ("add table inet x\nadd rule inet x y accept\n", DumpFormat::NftText),
        ("{\"nftables\": []}", DumpFormat::NftJson),
        ("create a hash:ip family inet\nadd a 1.2.3.4\n", DumpFormat::IpsetSave),
        ("-N a hash:ip family inet\n", DumpFormat::IpsetSave),
        ("#!/bin/sh\niptables -F\n", DumpFormat::Script),
        ("# rules\nIPT=iptables\n$IPT -F\n", DumpFormat::Script),
        ("iptables -A INPUT -j DROP\n", DumpFormat::Script),
        ("$ sudo iptables -A INPUT -j DROP\n", DumpFormat::Script),
        ("Chain INPUT (policy ACCEPT)\ntarget prot opt source destination\n", DumpFormat::Listing),
        ("root@x:~# iptables -L -n\nChain INPUT (policy ACCEPT)\n", DumpFormat::Listing),
        ("-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n", DumpFormat::Listing),
    ] {
        let guessed = guess(text, "t");
        assert_eq!(guessed.format, format, "{text}");
        dump(&guessed).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// What we say iptables-restore refuses, it refuses; and where we say nothing, it takes the file.
#[test]
fn iptables_restore_refuses_what_we_say_it_refuses() {
    let file = |body: &str| format!("*filter\n:INPUT ACCEPT [0:0]\n:user - [0:0]\n{body}COMMIT\n");
    for (text, says) in [
        (file("-A INPUT -j ACCEPT\n"), false),
        (file("-A INPUT -j ACCEPT\n").replace('\n', "\r\n"), true),
        (file("-A INPUT -s ! 10.0.0.1 -j ACCEPT\n"), true),
        (file("-A INPUT -j ACCEPT   \n"), false),
        (file("  -A INPUT -j ACCEPT\n"), false),
        (file("-A INPUT -j ACCEPT\n").replace("COMMIT\n", "COMMIT"), true),
        (file("-A INPUT -j ACCEPT\n").replace("COMMIT\n", ""), true),
        (file("-A INPUT -j ACCEPT\n").replace("COMMIT\n", "COMMIT \n"), true),
        (file("-A INPUT -j ACCEPT\n").replace(" [0:0]", ""), false),
        (file("-A nowhere -j ACCEPT\n"), true),
        (file("-A INPUT -j nowhere\n"), true),
        (file("# a note\n\n-A INPUT -j ACCEPT\n"), false),
        (file("  # a note\n-A INPUT -j ACCEPT\n"), true),
        (file("[5:60] -A INPUT -j ACCEPT\n"), false),
        (file("-A INPUT -m comment --comment 'it is' -j ACCEPT\n"), true),
        (file("-A INPUT -j ACCEPT\n").replace(":INPUT ACCEPT [0:0]", ":INPUT"), true),
        (format!("root@x:~# iptables-save\n{}", file("")), true),
        (file("-N other\n-A other -j DROP\n"), false),
        (file("-t filter -A INPUT -j DROP\n"), true),
    ] {
        let ours = iptables_save(&text, Family::Ip, Backend::Nft, "t")
            .map_or(true, |parsed| parsed.warnings.iter().any(|w| w.refused_by_restore));
        assert_eq!(ours, says, "{text}");
        let mut theirs = false;
        for tool in ["iptables-nft-restore", "iptables-legacy-restore"] {
            let Some((ok, _, _)) = inside(&format!("{tool} --test"), &text) else { return };
            theirs |= !ok;
        }
        assert_eq!(ours, theirs, "{text}");
    }
}
