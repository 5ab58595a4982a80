//! Rules in, rules out; and what is said about what is wrong.

use super::*;
use crate::firewall::ruleset::{Family, Ruleset};
use crate::host::Backend;

fn read(family: Family, rules: &str) -> Result<Parsed, ParseError> {
    let text = format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:user - [0:0]\n{rules}\nCOMMIT\n"
    );
    iptables_save(&text, family, Backend::Nft, "t")
}

/// The rules as they are written back.
fn written(ruleset: &Ruleset) -> Vec<String> {
    ruleset.to_string().lines().filter(|line| line.contains("-A ")).map(str::to_owned).collect()
}

#[track_caller]
fn check(rule: &str, expect: &str) {
    let parsed = read(Family::Ip, &format!("-A INPUT {rule}")).unwrap_or_else(|e| panic!("{e}"));
    let lines = written(&parsed.ruleset);
    let got: Vec<_> = lines.iter().map(|line| line.strip_prefix("-A INPUT").unwrap().trim()).collect();
    assert_eq!(got.join(" | "), expect, "{rule}");
    let text = parsed.ruleset.to_string();
    let again = iptables_save(&text, Family::Ip, Backend::Nft, "t").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.ruleset.without_places(), parsed.ruleset.without_places(), "{text}");
}

#[track_caller]
fn refuse(rule: &str, column: u32, message: &str, hint: &str) {
    let error = read(Family::Ip, rule).unwrap_err();
    assert_eq!((error.line, error.column), (6, column), "{error}");
    assert!(error.message.contains(message), "{error}");
    assert!(error.hint.as_deref().unwrap_or("").contains(hint), "{error}");
    assert!(error.to_string().lines().nth(2).unwrap().ends_with('^'), "{error}");
}

#[test]
fn rules_are_read_as_iptables_writes_them_back() {
    for (rule, expect) in [
        ("", ""),
        ("-s 192.168.1.5 -p tcp --dport 53 -j DROP", "-s 192.168.1.5/32 -p tcp -m tcp --dport 53 -j DROP"),
        ("-s ! 10.0.0.0/255.0.0.0 -j DROP", "! -s 10.0.0.0/8 -j DROP"),
        ("-s 10.0.2.0/255.0.255.0 -j DROP", "-s 10.0.2.0/255.0.255.0 -j DROP"),
        ("-s 10/8 -d 0/0 -j DROP", "-s 10.0.0.0/8 -j DROP"),
        ("! -s 0/0 -j DROP", "! -s 0.0.0.0/0 -j DROP"),
        (
            "-s 1.1.1.1,2.2.2.2 -d 3.3.3.3,4.4.4.4",
            "-s 1.1.1.1/32 -d 3.3.3.3/32 | -s 1.1.1.1/32 -d 4.4.4.4/32 | -s 2.2.2.2/32 -d 3.3.3.3/32 | -s 2.2.2.2/32 -d 4.4.4.4/32",
        ),
        ("--source 1.1.1.1 --in-interface eth+ --jump DROP", "-s 1.1.1.1/32 -i eth+ -j DROP"),
        ("-p tcp --syn -j ACCEPT", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"),
        ("-p tcp ! --syn -m tcp --dport ssh", "-p tcp -m tcp --dport 22 ! --tcp-flags FIN,SYN,RST,ACK SYN"),
        ("-p tcp --tcp-flags ALL NONE", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE"),
        ("-p 17 -m udp --sport :1023 --dport 1024:", "-p udp -m udp --sport 0:1023 --dport 1024:65535"),
        ("-p udp -m multiport --dports 8888,9999,53:60", "-p udp -m multiport --dports 8888,9999,53:60"),
        ("-p udp -m multiport ! --source-ports www", "-p udp -m multiport ! --sports 80"),
        ("-p icmp --icmp-type echo-request -j ACCEPT", "-p icmp -m icmp --icmp-type 8 -j ACCEPT"),
        ("-p icmp -m icmp --icmp-type 3/4", "-p icmp -m icmp --icmp-type 3/4"),
        ("-p 1 -m icmp --icmp-type any", "-p icmp -m icmp --icmp-type any"),
        ("-m state --state RELATED,ESTABLISHED -j ACCEPT", "-m state --state RELATED,ESTABLISHED -j ACCEPT"),
        (
            "-m conntrack ! --ctstate NEW --ctproto tcp --ctorigdstport 80",
            "-m conntrack ! --ctstate NEW --ctproto 6 --ctorigdstport 80",
        ),
        ("-m mark --mark 0x10/0xf0", "-m mark --mark 0x10/0xf0"),
        ("-m mark ! --mark 16", "-m mark ! --mark 0x10"),
        (r#"-m comment --comment "a \"b\" 'c' \\ d""#, r#"-m comment --comment "a \"b\" \'c\' \\ d""#),
        ("-m comment --comment one -m comment --comment two", "-m comment --comment one -m comment --comment two"),
        ("-m iprange --src-range 1.1.1.1-1.1.1.9", "-m iprange --src-range 1.1.1.1-1.1.1.9"),
        ("-m mac --mac 02:00:00:00:00:0A", "-m mac --mac-source 02:00:00:00:00:0a"),
        ("-m addrtype --dst-type LOCAL,BROADCAST", "-m addrtype --dst-type LOCAL,BROADCAST"),
        (
            "-m limit --limit 5/min -j LOG --log-prefix \"a b: \"",
            "-m limit --limit 5/min -j LOG --log-prefix \"a b: \"",
        ),
        (
            "-m recent ! --rcheck --seconds 60",
            "-m recent ! --rcheck --seconds 60 --name DEFAULT --mask 255.255.255.255 --rsource",
        ),
        ("-m set --match-set blocked src,dst -j DROP", "-m set --match-set blocked src,dst -j DROP"),
        ("-m set ! --match-set blocked src", "-m set ! --match-set blocked src"),
        ("-j REJECT", "-j REJECT --reject-with icmp-port-unreachable"),
        ("-p tcp -j REJECT --reject-with tcp-reset", "-p tcp -j REJECT --reject-with tcp-reset"),
        ("-j MARK --set-mark 5", "-j MARK --set-xmark 0x5/0xffffffff"),
        ("-j MARK --or-mark 0x8", "-j MARK --set-xmark 0x8/0x8"),
        ("-j CONNMARK --save-mark", "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff"),
        ("-j DNAT --to-destination 10.0.0.1:80-90 --random", "-j DNAT --to-destination 10.0.0.1:80-90 --random"),
        ("-p tcp -j REDIRECT --to-ports 8080", "-p tcp -j REDIRECT --to-ports 8080"),
        ("-j MASQUERADE", "-j MASQUERADE"),
        ("-j user", "-j user"),
        ("-g user", "-g user"),
        ("-m geoip --src-cc DE,AT ! --x -j DROP", "-m geoip --src-cc DE,AT ! --x -j DROP"),
        ("-j NOTRACK", "-j CT --notrack"),
        ("-p 47 -j ACCEPT", "-p 47 -j ACCEPT"),
        ("! -f -p all", "! -f"),
        ("-m length --length 100:", "-m length --length 100:65535"),
        ("-m tos --tos 0x10/0x3f", "-m tos --tos 0x10/0x3f"),
        ("-m dscp --dscp-class EF", "-m dscp --dscp 0x2e"),
        ("-m ttl --ttl 5", "-m ttl --ttl-eq 5"),
        ("-m owner --uid-owner 1000-1005", "-m owner --uid-owner 1000-1005"),
        ("-p tcp -m tcp", "-p tcp -m tcp"),
        ("-j TOS --set-tos 0x10", "-j TOS --set-tos 0x10/0xff"),
        ("-j NFQUEUE --queue-num 3 --queue-bypass", "-j NFQUEUE --queue-num 3 --queue-bypass"),
    ] {
        check(rule, expect);
    }
}

#[test]
fn faults_name_their_place_and_the_cure() {
    for (rule, column, message, hint) in [
        ("-A INPUT -p udp --dport 8888 9999 -j ACCEPT", 30, "`9999` is no option", "-m multiport --dports"),
        ("-A INPUT -p udp --dport 8888,9999 -j ACCEPT", 25, "no port", "-p udp -m multiport --dports 8888,9999"),
        ("-A INPUT --dport 53 -j DROP", 10, "unknown option", "-p tcp"),
        ("-A INPUT -p tcp --dports 53 -j DROP", 17, "unknown option", "-m multiport"),
        ("-A INPUT -p tcp --dport 70000", 25, "too large", ""),
        ("-A INPUT -p tcp --dport 20-30", 25, "no port", "20:30"),
        ("-A INPUT -s 10.0.0.0/33", 22, "prefix length", ""),
        ("-A INPUT -s 10.0.0.300", 13, "no address", ""),
        ("-A INPUT -s fd00::1", 13, "IPv6", "ip6tables"),
        ("-A INPUT -p tpc", 13, "no protocol", "tcp"),
        ("-A INPUT -j", 12, "needs a value", ""),
        ("-A INPUT -j DROP -j ACCEPT", 18, "one target", ""),
        ("-A INPUT -m state --state NEW,FOO", 31, "`FOO`", "ESTABLISHED"),
        ("-A INPUT -m tcp --dport 1", 13, "needs `-p tcp`", ""),
        ("-A INPUT -m comment --comment \"x", 31, "not closed", ""),
        ("-A INPUT -m comment --comment two words", 35, "no option", "quotes"),
        ("-Z INPUT", 1, "begins no rule", "-A CHAIN"),
        ("-A INPUT ! -s 1.1.1.1,2.2.2.2", 15, "cannot be negated", "RETURN"),
        ("hello", 1, "begins no line", "COMMIT"),
        ("[1:x] -A INPUT", 1, "counters", ""),
        ("-A INPUT -J DROP", 10, "no option", "`-j`"),
        ("-A INPUT -j REJECT --reject-with icmp6-no-route", 34, "no reject type", ""),
    ] {
        refuse(rule, column, message, hint);
    }
}

#[test]
fn a_dump_with_counters_policies_and_oddities() {
    let text = "# Generated by iptables-save v1.8.9 on Mon\r\n*filter\r\n:INPUT DROP [7:420]\r\n[3:180] -A INPUT -s 10.0.0.1 -j ACCEPT\r\n-A INPUT -c 5 6 -j nowhere\r\nCOMMIT\r\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n";
    let parsed = iptables_save(text, Family::Ip, Backend::Legacy, "f").unwrap();
    let filter = parsed.ruleset.table(Family::Ip, "filter").unwrap();
    let input = filter.chain("INPUT").unwrap();
    assert_eq!(input.base.as_ref().unwrap().counters.unwrap().packets, 7);
    assert_eq!(input.rules[0].counters.unwrap().bytes, 180);
    assert_eq!(input.rules[0].line, Some(4));
    assert_eq!(input.rules[1].counters.unwrap().packets, 5);
    assert!(matches!(&input.rules[1].target, Some(crate::firewall::Target::Unknown { name, .. }) if name == "nowhere"));
    let messages: Vec<_> = parsed.warnings.iter().map(|w| w.message.as_str()).collect();
    assert!(messages[0].contains("CR LF") && messages[1].contains("`nowhere`"), "{messages:?}");
    assert!(parsed.ruleset.table(Family::Ip, "nat").is_some());
    assert_eq!(guess(text, "f").backend, Backend::Legacy);
}

#[test]
fn ip6tables_has_its_own_addresses_and_names() {
    let parsed = read(
        Family::Ip6,
        "-A INPUT -s fd00::/8 -p ipv6-icmp -m icmp6 --icmpv6-type neighbor-solicitation -j ACCEPT\n-A INPUT -j REJECT\n-A INPUT -p tcp -j DNAT --to-destination [fd00::1]:80",
    )
    .unwrap();
    assert_eq!(
        written(&parsed.ruleset),
        [
            "-A INPUT -s fd00::/8 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT",
            "-A INPUT -j REJECT --reject-with icmp6-port-unreachable",
            "-A INPUT -p tcp -j DNAT --to-destination [fd00::1]:80",
        ]
    );
}
