//! No text makes a reader panic.

use proptest::prelude::*;
use reachwhy::firewall::Family;
use reachwhy::firewall::parse::{dump, guess, ipset_save, iptables_save, listing, nft_json, nft_text, shell_script};
use reachwhy::host::Backend;

fn all(text: &str) {
    let places = |line: u32, column: u32| assert!(line > 0 && column > 0, "{text:?}");
    let check = |result: Result<reachwhy::firewall::parse::Parsed, reachwhy::firewall::ParseError>| match result {
        Ok(parsed) => parsed.warnings.iter().for_each(|w| {
            places(w.line, w.column);
            let _ = w.to_string();
        }),
        Err(error) => {
            places(error.line, error.column);
            let _ = error.to_string();
        }
    };
    check(nft_text(text, "t"));
    check(nft_json(text, "t"));
    check(shell_script(text, Backend::Nft, "t"));
    check(listing(text, Family::Ip, Backend::Nft, "t"));
    check(listing(text, Family::Ip6, Backend::Nft, "t"));
    check(iptables_save(text, Family::Ip, Backend::Nft, "t"));
    check(ipset_save(text, "t"));
    check(dump(&guess(text, "t")));
}

/// Pieces of every format, in any order.
const PIECES: [&str; 96] = [
    "table",
    "inet",
    "ip",
    "t",
    "{",
    "}",
    "\n",
    ";",
    "chain",
    "c",
    "type filter hook input priority",
    "filter",
    "-",
    "+",
    "10",
    "policy",
    "drop",
    "tcp",
    "dport",
    "22",
    "vmap",
    "map",
    "@s",
    ":",
    ",",
    "accept",
    "set",
    "elements",
    "=",
    "ct",
    "state",
    "established",
    "&",
    "|",
    "(",
    ")",
    "==",
    "!=",
    "define",
    "x",
    "$x",
    "${x}",
    "\"",
    "\"a b\"",
    "'",
    "1.2.3.4",
    "10.0.0.0/8",
    "fe80::/10",
    "[::1]",
    ":80",
    "1-2",
    ".",
    "limit",
    "rate",
    "10/second",
    "log",
    "prefix",
    "reject",
    "with",
    "icmp",
    "dnat",
    "to",
    "counter",
    "packets",
    "add",
    "rule",
    "element",
    "# handle 4",
    "\\\n",
    "iptables",
    "-A",
    "INPUT",
    "-j",
    "ACCEPT",
    "-D",
    "-R",
    "-I",
    "-P",
    "-N",
    "-F",
    "-t",
    "nat",
    "for",
    "in",
    "do",
    "done",
    "<<EOF\n",
    "EOF\n",
    "$(",
    "`",
    "ipset",
    "create",
    "hash:net",
    "Chain INPUT (policy ACCEPT)",
    "target prot opt source destination",
    "--",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        all(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn pieces_in_any_order(parts in proptest::collection::vec((proptest::sample::select(PIECES.to_vec()), any::<bool>()), 0..60)) {
        let text: String = parts.iter().map(|(piece, blank)| format!("{piece}{}", if *blank { " " } else { "" })).collect();
        all(&text);
        all(&format!("table inet t {{\n chain c {{\n{text}"));
        all(&format!("iptables {text}"));
        all(&format!("Chain INPUT (policy ACCEPT 0 packets, 0 bytes)\npkts bytes target prot opt in out source destination\n1 2 {text}"));
    }
}

#[test]
fn deep_nests_are_refused() {
    for text in [
        format!("table ip t {{\n chain c {{\n tcp dport {}", "(".repeat(5_000)),
        format!("table ip t {{\n chain c {{\n tcp dport {}", "{".repeat(5_000)),
        format!("table ip t {{\n chain c {{\n meta mark {}", "1 | ".repeat(5_000)),
        "for x in 1 2 3 4 5 6 7 8 9; do ".repeat(40) + "iptables -F; " + &"done; ".repeat(40),
        "[".repeat(5_000),
        (0..40).fold("define a = 1\n".to_owned(), |text, n| {
            let name = |n: i32| if n == 0 { "a".to_owned() } else { format!("a{n}") };
            text + &format!("define {} = ${}, ${}\n", name(n + 1), name(n), name(n))
        }),
    ] {
        all(&text);
    }
}
