//! Rulesets that iptables itself loaded, read back and compared with what its own save command says.

use std::collections::BTreeMap;

use reachwhy::host::{Backend, DumpFormat};
use reachwhy::os::nft::dumps;

use super::world::{has, inside, run};

/// Rules of every kind that we claim to read, IPv4.
pub(crate) const V4: &str = r#"
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -i lo -j CT --notrack
-A PREROUTING -s 10.9.0.0/16 -j DROP
-A OUTPUT -p udp -m udp --dport 53 -j NOTRACK
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -m mark --mark 0x1/0x3 -j MARK --set-xmark 0x10/0xff
-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A OUTPUT -m connmark --mark 0x2 -j RETURN
-A POSTROUTING -m ttl --ttl-gt 3 -j TTL --ttl-set 64
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080
-A PREROUTING -p udp -m udp --dport 81 -j DNAT --to-destination 10.0.0.1-10.0.0.4:1000-1100 --random --persistent
-A OUTPUT -p tcp -m tcp --dport 82 -j REDIRECT --to-ports 3128
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -o eth1 -j SNAT --to-source 192.0.2.1-192.0.2.9
-A POSTROUTING -p tcp -j MASQUERADE --to-ports 1024-2048 --random
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:empty - [0:0]
:user - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT ! -s 10.1.1.0/24 -d 192.168.1.3/32 -i eth+ -p udp -m multiport --dports 8888,9999 -j ACCEPT
-A INPUT -p tcp -m multiport ! --sports 1:5,80,443:445 -j user
-A INPUT -p tcp -m multiport --ports 7,9 -g user
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m state --state INVALID -j DROP
-A INPUT -m conntrack ! --ctstate NEW --ctproto 6 --ctorigsrc 10.0.0.0/8 --ctorigdstport 80:90 --ctstatus ASSURED --ctdir REPLY -j ACCEPT
-A INPUT -p tcp -m tcp --sport 1024:65535 --dport 22 --tcp-flags FIN,SYN,RST,ACK SYN -m comment --comment "let me \"in\"" -j ACCEPT
-A INPUT -p tcp -m tcp ! --dport 1:5 -j REJECT --reject-with tcp-reset
-A INPUT -p icmp -m icmp --icmp-type 8 -m limit --limit 5/min --limit-burst 10 -j ACCEPT
-A INPUT -p icmp -m icmp --icmp-type 3/1 -j ACCEPT
-A INPUT -p icmp -m icmp --icmp-type any -j ACCEPT
-A INPUT -p esp -j ACCEPT
-A INPUT ! -p udp -j ACCEPT
-A INPUT -f -j DROP
-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 ! --dst-range 1.1.1.1-1.1.1.2 -j DROP
-A INPUT -m mac --mac-source 02:00:00:00:00:01 -j DROP
-A INPUT -m length --length 100:200 -j DROP
-A INPUT -m pkttype --pkt-type broadcast -j DROP
-A INPUT -m statistic --mode random --probability 0.50000000000 -j DROP
-A INPUT -m statistic --mode nth --every 3 --packet 1 -j DROP
-A INPUT -m recent --set --name ssh --mask 255.255.255.255 --rsource
-A INPUT -m recent --update --seconds 60 --hitcount 4 --name ssh --mask 255.255.255.255 --rsource -j DROP
-A INPUT -s 10.0.7.0/255.0.255.0 -j DROP
-A INPUT -j LOG --log-prefix "dropped: " --log-level 6 --log-tcp-options
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A INPUT -m time --timestart 08:00:00 --timestop 18:00:00 -j ACCEPT
-A INPUT -m hashlimit --hashlimit-upto 5/sec --hashlimit-burst 7 --hashlimit-mode srcip,dstport --hashlimit-name web -j ACCEPT
-A INPUT -p tcp -m connlimit --connlimit-above 3 --connlimit-mask 24 --connlimit-saddr -j DROP
-A OUTPUT -m owner --uid-owner 0 -j ACCEPT
-A OUTPUT -m owner ! --gid-owner 0 -j ACCEPT
-A OUTPUT -o lo -p udp -m udp --sport 53 -j ACCEPT
-A OUTPUT -j NFLOG --nflog-prefix out --nflog-group 3
-A OUTPUT -p udp -j NFQUEUE --queue-balance 0:3 --queue-bypass
-A OUTPUT
-A user -j RETURN
COMMIT
"#;

/// The same, IPv6.
pub(crate) const V6: &str = r"
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00::1]:8080
-A POSTROUTING -s fd00::/64 ! -o br0 -j MASQUERADE
-A POSTROUTING -j SNAT --to-source fd00::5
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT
-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 1/4 -m hl --hl-eq 255 -j ACCEPT
-A INPUT ! -s fe80::/10 -d 2001:db8::1/128 -i eth+ -p tcp -m tcp --dport 80 -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -j REJECT --reject-with icmp6-adm-prohibited
COMMIT
";

/// A save text as table → lines, the chains' own lines sorted; without comments and counters.
pub(crate) fn normal(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
            tables.entry(table.clone()).or_default();
        } else if !line.is_empty() && !line.starts_with('#') && line != "COMMIT" {
            let line = match line.strip_prefix('[') {
                Some(counted) => counted.split_once("] ").unwrap().1,
                None => line.split(" [").next().filter(|_| line.starts_with(':')).unwrap_or(line),
            };
            tables.get_mut(&table).unwrap().push(line.to_owned());
        }
    }
    for lines in tables.values_mut() {
        // Chains may be printed in any order; rules within one may not.
        lines.sort_by_key(|line| match line.strip_prefix("-A ") {
            Some(rule) => (1, rule.split(' ').next().unwrap().to_owned()),
            None => (0, line.clone()),
        });
    }
    tables
}

/// The `time` match is one that we do not read: its bytes stand for it.
fn without_unknown(mut tables: BTreeMap<String, Vec<String>>) -> (BTreeMap<String, Vec<String>>, usize) {
    let mut unknown = 0;
    for line in tables.values_mut().flatten() {
        if line.contains("--reachwhy-unknown") || line.contains("-m time") {
            unknown += 1;
            *line = line.split(" -m time").next().unwrap().to_owned();
        }
    }
    (tables, unknown)
}

fn same(variant: &str, backend: Backend) {
    for (v6, text) in [("", V4), ("6", V6)] {
        let (restore, save) = (format!("ip{v6}tables-{variant}-restore"), format!("ip{v6}tables-{variant}-save"));
        if !has(&restore) {
            return;
        }
        run(&restore, &[], text);
        let (dumps, unseen) = dumps();
        assert_eq!(unseen, []);
        let format = if v6.is_empty() { DumpFormat::IptablesSave } else { DumpFormat::Ip6tablesSave };
        let ours = dumps.iter().find(|dump| dump.format == format && dump.backend == backend).unwrap();
        let parsed = reachwhy::firewall::parse::dump(ours).unwrap();
        let unknown = |rule: &reachwhy::firewall::Rule| !rule.unknown_parts().is_empty();
        let rules = parsed.ruleset.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
        assert_eq!(rules.filter(|rule| unknown(rule)).count(), usize::from(v6.is_empty()));
        let theirs = run(&save, &["-c"], "");
        let (ours, unknown) = without_unknown(normal(&ours.text));
        assert_eq!(unknown, usize::from(v6.is_empty()));
        let (theirs, _) = without_unknown(normal(&theirs));
        for (table, lines) in &theirs {
            let pairs = lines.iter().zip(ours.get(table).unwrap_or_else(|| panic!("{table} in {ours:?}")));
            for (theirs, ours) in pairs {
                assert_eq!(ours, theirs, "{variant}{v6} {table}");
            }
        }
        assert_eq!(ours, theirs);
    }
}

#[test]
fn what_iptables_nft_loaded_reads_back() {
    inside(|| same("nft", Backend::Nft));
}

#[test]
fn what_iptables_legacy_loaded_reads_back() {
    inside(|| same("legacy", Backend::Legacy));
}

#[test]
fn ipsets_are_named_and_listed() {
    inside(|| {
        if !has("ipset") || !has("iptables-nft-restore") {
            return;
        }
        let sets = "create bad hash:net family inet hashsize 1024 maxelem 65536 timeout 600 counters comment\n\
            add bad 10.0.0.0/8 timeout 0 packets 0 bytes 0 comment \"a net\"\n\
            create web hash:ip,port family inet hashsize 1024 maxelem 65536\n\
            add web 192.0.2.1,tcp:80\n\
            create ports bitmap:port range 0-1023\n\
            add ports 22\n\
            create six hash:net family inet6 hashsize 1024 maxelem 65536\n\
            add six fd00::/8\n\
            create all list:set size 8\n\
            add all bad\n";
        run("ipset", &["restore"], sets);
        let rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m set --match-set bad src -j DROP\n\
            -A INPUT -p tcp -m set ! --match-set web dst,dst -j DROP\nCOMMIT\n";
        for (variant, backend) in [("nft", Backend::Nft), ("legacy", Backend::Legacy)] {
            run(&format!("iptables-{variant}-restore"), &[], rules);
            let (dumps, unseen) = dumps();
            assert_eq!(unseen, []);
            let text = &dumps.iter().find(|dump| dump.backend == backend).unwrap().text;
            for line in rules.lines().filter(|line| line.starts_with("-A")) {
                assert!(text.contains(line), "{line} in {text}");
            }
            let listed = dumps.iter().find(|dump| dump.format == DumpFormat::IpsetSave).unwrap();
            reachwhy::firewall::parse::dump(listed).unwrap();
            // ipset's own listing adds hashing parameters, which decide nothing.
            let mut ours: Vec<_> = listed.text.lines().collect();
            let mut want: Vec<_> = sets.lines().collect();
            ours.sort_unstable();
            want.sort_unstable();
            assert_eq!(ours, want);
        }
    });
}

#[test]
fn counters_and_policies_are_read() {
    inside(|| {
        for (tool, backend) in [("iptables-nft-restore", Backend::Nft), ("iptables-legacy-restore", Backend::Legacy)] {
            if !has(tool) {
                continue;
            }
            run(
                tool,
                &["-c"],
                "*filter\n:INPUT DROP [3:180]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n[7:420] -A INPUT -i lo -j ACCEPT\nCOMMIT\n",
            );
            let (dumps, _) = dumps();
            let dump = dumps.iter().find(|dump| dump.backend == backend).unwrap();
            assert!(dump.text.contains("[7:420] -A INPUT -i lo -j ACCEPT"), "{}", dump.text);
            assert!(dump.text.contains(":INPUT DROP [3:180]"), "{}", dump.text);
        }
    });
}

#[test]
fn nothing_there_is_nothing_read() {
    inside(|| {
        let (dumps, unseen) = dumps();
        assert_eq!((dumps, unseen), (vec![], vec![]));
    });
}
