//! nft's text syntax: the same model as nft's JSON.

use std::process::{Command, Stdio};

use reachwhy::firewall::parse::{Parsed, nft_json, nft_text};
use reachwhy::firewall::{Family, Ruleset, Target};

/// Rules in each family, of which each line stands alone: what one nft does not know is left out.
const RULESETS: [&str; 5] = [
    include_str!("inet.nft"),
    "table ip a {\n chain c {\n type filter hook forward priority -5; policy accept;\n ip saddr 10.0.0.0/8 ip daddr 10.0.0.1-10.0.0.9 accept\n ip protocol icmp accept\n icmp type { echo-request, 3 } drop\n ip ttl 1-5 drop\n reject\n }\n}\n",
    "table ip6 b {\n chain c {\n type filter hook output priority security; policy drop;\n ip6 saddr fe80::/10 accept\n ip6 nexthdr 6 accept\n reject with icmpv6 type no-route\n ip6 daddr { ::1, 2001:db8::1-2001:db8::9, fd00::/8 } accept\n icmpv6 type nd-router-advert ip6 hoplimit 255 accept\n}\n}\n",
    "table arp c {\n chain c {\n type filter hook input priority filter; policy accept;\n arp operation request drop\n arp saddr ip 10.0.0.1 accept\n}\n}\ntable bridge d {\n chain c {\n type filter hook forward priority filter + 1; policy accept;\n ether type arp accept\n ether saddr 02:00:00:00:00:01 drop\n vlan id 5 drop\n}\n}\n",
    "table netdev e {\n chain c {\n type filter hook ingress device lo priority 0; policy accept;\n ip saddr 10.0.0.1 drop\n}\n}\n",
];

fn text(text: &str) -> Parsed {
    nft_text(text, "t").unwrap_or_else(|e| panic!("{e}"))
}

/// The rules of all chains, without places, and without devices: nft 1.0.6's JSON has none.
fn model(parsed: Parsed) -> Ruleset {
    let mut ruleset = parsed.ruleset.without_places();
    let chains = ruleset.tables.iter_mut().flat_map(|t| &mut t.chains);
    chains.filter_map(|c| c.base.as_mut()).for_each(|base| base.devices.clear());
    ruleset
}

/// Loads a ruleset in a namespace of its own and gives its two listings; lines that this nft or
/// kernel refuses are left out. `None` where there is no nft or no privilege.
fn listings(ruleset: &str) -> Option<(String, String, usize)> {
    let mut lines: Vec<&str> = ruleset.lines().collect();
    let dir = tempfile::tempdir().unwrap();
    for left_out in 0..lines.len() {
        let file = dir.path().join("r.nft");
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let script = "nft -f \"$0\" && nft -a list ruleset && echo =====JSON && nft -j list ruleset";
        let run =
            Command::new("unshare").args(["-n", "sh", "-c", script]).arg(&file).stdin(Stdio::null()).output().ok()?;
        if run.status.success() {
            let out = String::from_utf8(run.stdout).unwrap();
            let (text, json) = out.split_once("=====JSON\n")?;
            return Some((text.to_owned(), json.to_owned(), left_out));
        }
        let errors = String::from_utf8_lossy(&run.stderr).into_owned();
        let bad =
            errors.lines().filter_map(|l| l.split("r.nft:").nth(1)?.split(':').next()?.parse::<usize>().ok()).min();
        match bad {
            Some(bad) => {
                eprintln!("left out: {}", lines[bad - 1]);
                lines.remove(bad - 1);
            }
            None => {
                assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "{errors}");
                eprintln!("SKIPPED: {errors}");
                return None;
            }
        }
    }
    None
}

#[test]
fn text_and_json_of_one_ruleset_give_one_model() {
    for ruleset in RULESETS {
        let Some((plain, json, left_out)) = listings(ruleset) else { return };
        assert!(left_out < 30, "{left_out} lines");
        let from_text = text(&plain);
        let from_json = nft_json(&json, "t").unwrap();
        let (a, b) = (model(from_text), model(from_json));
        assert_eq!(a.tables.len(), b.tables.len());
        for (a, b) in a.tables.iter().zip(&b.tables) {
            assert_eq!((a.family, &a.name), (b.family, &b.name));
            assert_eq!(a.sets, b.sets);
            for (a, b) in a.chains.iter().zip(&b.chains) {
                let differ: Vec<_> = a.rules.iter().zip(&b.rules).filter(|(a, b)| a != b).collect();
                assert!(differ.is_empty(), "{differ:#?}");
                assert_eq!(a, b);
            }
        }
        assert_eq!(a, b);
        // The source that people write means what the kernel then lists, but for the order in sets.
        assert_eq!(text(ruleset).ruleset.tables.len(), a.tables.len());
    }
}

#[test]
fn handles_lines_and_words() {
    let parsed = text(
        "table inet t { # handle 4\n\tchain i { # handle 2\n\t\ttype filter hook input priority srcnat - 5; policy drop;\n\t\ttcp dport 22 counter packets 3 bytes 180 accept comment \"a b\" # handle 9\n\t}\n}\n",
    );
    let table = parsed.ruleset.table(Family::Inet, "t").unwrap();
    let chain = table.chain("i").unwrap();
    assert_eq!((table.handle, chain.handle, chain.line), (Some(4), Some(2), Some(2)));
    assert_eq!(chain.base.as_ref().unwrap().priority, 95);
    let rule = &chain.rules[0];
    assert_eq!((rule.handle, rule.line, rule.comment()), (Some(9), Some(4), Some("a b")));
    assert_eq!(rule.text, "tcp dport 22 counter packets 3 bytes 180 accept comment \"a b\"");
    assert_eq!(rule.counters.unwrap().bytes, 180);
}

#[test]
fn files_for_nft_f() {
    let parsed = text(
        "#!/usr/sbin/nft -f\nflush ruleset\ndefine lan = { 10.0.0.0/8, 192.168.0.0/16 }\ndefine ports = { 22, 80,\n  443 }\n\
         table inet f { chain i { type filter hook input priority 0; policy drop; ip saddr $lan tcp dport $ports accept; iif lo accept } }\n\
         add rule inet f i udp dport 53 accept\ninsert rule inet f i ct state invalid drop\n\
         table inet f { chain i { reject } ; set s { type ipv4_addr; } }\nadd element inet f s { 1.2.3.4, 5.6.7.8 }\n",
    );
    let table = parsed.ruleset.table(Family::Inet, "f").unwrap();
    let texts: Vec<_> = table.chain("i").unwrap().rules.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(texts.len(), 5, "{texts:?}");
    assert_eq!(texts[0], "ct state invalid drop");
    assert!(texts[1].starts_with("ip saddr { 10.0.0.0/8 , 192.168.0.0/16 }"), "{texts:?}");
    assert_eq!(table.sets[0].keys.len(), 2);
    assert!(table.chain("i").unwrap().base.is_some());
}

#[test]
fn what_is_not_known_is_kept() {
    let parsed = text(
        "table ip t {\n chain c {\n type filter hook input priority 0;\n frobnicate 7 accept\n ip saddr 1.1.1.1 xt target \"FOO\"\n }\n}\n",
    );
    let chain = parsed.ruleset.table(Family::Ip, "t").unwrap().chain("c").unwrap();
    assert!(chain.rules.iter().all(|rule| matches!(rule.target, Some(Target::Unknown { .. }))), "{chain:#?}");
    assert_eq!(parsed.warnings.len(), 2);
    assert_eq!(parsed.warnings[0].line, 4);
}

#[test]
fn faults_have_their_place() {
    for (input, line, column, says) in [
        ("table inet t {\n chain c {\n  tcp dport\n }\n}\n", 3, 12, "a value to compare with"),
        ("include \"x.nft\"\n", 1, 1, "other files are not read"),
        ("table inet t {\n chain c {\n  ip saddr $x accept\n }\n}\n", 3, 12, "$x is not defined"),
        ("table inet t {\n chain c {\n", 2, 2, "not closed"),
        ("table inet t {\n set s {\n  elements = 5\n }\n}\n", 3, 14, "`{` is expected"),
        ("table inet t {\n chain c {\n  type filter hook input priority big;\n", 3, 35, "a priority"),
        ("frob\n", 1, 1, "begins nothing"),
        ("table ip t {\n chain c {\n  tcp dport { 1, 2\n", 3, 19, "expected"),
        ("table ip t {\n chain c {\n  tcp dport { 1 2 }\n", 3, 17, "`,` or `}` is expected"),
        ("delete rule ip t c handle 4\n", 1, 1, "not carried out"),
    ] {
        let error = nft_text(input, "f").unwrap_err();
        assert!(error.message.contains(says), "{error}");
        assert_eq!((error.line, error.column), (line, column), "{error}");
        assert!(error.to_string().lines().nth(2).unwrap().ends_with('^'), "{error}");
    }
}
