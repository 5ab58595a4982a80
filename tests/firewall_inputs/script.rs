//! Shell scripts of `iptables …` commands.

use reachwhy::firewall::parse::shell_script;
use reachwhy::firewall::{Family, Ruleset};
use reachwhy::host::Backend;

fn script(text: &str) -> (Ruleset, Vec<String>) {
    let parsed = shell_script(text, Backend::Nft, "fw.sh").unwrap_or_else(|e| panic!("{e}"));
    (parsed.ruleset, parsed.warnings.into_iter().map(|w| w.to_string()).collect())
}

fn rules(ruleset: &Ruleset, family: Family, table: &str, chain: &str) -> Vec<String> {
    let chain = ruleset.table(family, table).and_then(|t| t.chain(chain)).unwrap_or_else(|| panic!("no {chain}"));
    chain.rules.iter().map(|rule| rule.text.clone()).collect()
}

#[test]
fn variables_loops_and_every_command() {
    let (ruleset, warnings) = script(
        "#!/bin/bash\n# The firewall\nset -e\nIPT=/sbin/iptables\nLAN='10.0.0.0/8'\nPORTS=\"22 80\"\nexport WAN=eth0\n\
         $IPT -F; $IPT -X\n$IPT -P INPUT DROP\n$IPT -N logdrop\n\
         for p in $PORTS 443; do\n  ${IPT} -A INPUT -i \"$WAN\" -p tcp --dport $p \\\n    -j ACCEPT\ndone\n\
         for net in $LAN 192.168.0.0/16; do for proto in tcp udp; do $IPT -A INPUT -s $net -p $proto --dport 53 -j ACCEPT; done; done\n\
         $IPT -I INPUT -i lo -j ACCEPT\n$IPT -I INPUT 2 -m state --state ESTABLISHED,RELATED -j ACCEPT\n\
         $IPT -A INPUT -p udp --dport 9 -j DROP # tail\n$IPT -D INPUT -p udp --dport 9 -j DROP\n$IPT -D INPUT 3\n\
         $IPT -R INPUT 3 -p tcp --dport 8080 -j logdrop\n\
         $IPT -A logdrop -m comment --comment \"a 'b' c\" -j DROP\n\
         sudo iptables -t nat -A POSTROUTING -o $WAN -j MASQUERADE >/dev/null 2>&1 || true\n\
         ip6tables -w 5 -t filter -A INPUT -p icmpv6 -j ACCEPT\necho \"done: $(date)\" >/dev/null\n",
    );
    let input = rules(&ruleset, Family::Ip, "filter", "INPUT");
    assert_eq!(
        input,
        [
            "-I INPUT -i lo -j ACCEPT",
            "-I INPUT 2 -m state --state ESTABLISHED,RELATED -j ACCEPT",
            "-R INPUT 3 -p tcp --dport 8080 -j logdrop",
            "-A INPUT -i eth0 -p tcp --dport 443 -j ACCEPT",
            "-A INPUT -s 10.0.0.0/8 -p tcp --dport 53 -j ACCEPT",
            "-A INPUT -s 10.0.0.0/8 -p udp --dport 53 -j ACCEPT",
            "-A INPUT -s 192.168.0.0/16 -p tcp --dport 53 -j ACCEPT",
            "-A INPUT -s 192.168.0.0/16 -p udp --dport 53 -j ACCEPT",
        ]
    );
    assert_eq!(rules(&ruleset, Family::Ip, "nat", "POSTROUTING").len(), 1);
    assert_eq!(rules(&ruleset, Family::Ip6, "filter", "INPUT").len(), 1);
    let logdrop = &ruleset.table(Family::Ip, "filter").unwrap().chain("logdrop").unwrap().rules[0];
    assert_eq!(logdrop.comment(), Some("a 'b' c"));
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn documents_and_sets() {
    let (ruleset, _) = script(
        "PORT=22\niptables-restore <<EOF\n*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport $PORT -j ACCEPT\nCOMMIT\nEOF\n\
         ipset create -exist bad hash:net\nipset add bad 10.0.0.0/8\nipset -N x hash:ip\niptables -A INPUT -m set --match-set bad src -j DROP\n",
    );
    assert_eq!(rules(&ruleset, Family::Ip, "filter", "INPUT")[0], "-A INPUT -p tcp --dport 22 -j ACCEPT");
    assert_eq!(ruleset.sets.len(), 2);
    assert_eq!(ruleset.sets[0].elements.len(), 1);
}

#[test]
fn what_is_typed_at_a_prompt() {
    for text in [
        "# iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n# iptables -P INPUT DROP\n",
        "$ sudo iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n$ sudo iptables -P INPUT DROP\n",
        "root@api:~# iptables -A INPUT -p tcp --dport 22 -j ACCEPT\nroot@api:~# iptables -P INPUT DROP\n",
    ] {
        let parsed = shell_script(text, Backend::Nft, "x").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(rules(&parsed.ruleset, Family::Ip, "filter", "INPUT").len(), 1);
        assert!(parsed.warnings.iter().any(|w| w.refused_by_restore && w.message.contains("prompt")), "{text}");
    }
    // A rule that is commented out in a script stays so.
    let (ruleset, _) = script("iptables -A INPUT -i lo -j ACCEPT\n# iptables -A INPUT -j DROP\n");
    assert_eq!(rules(&ruleset, Family::Ip, "filter", "INPUT").len(), 1);
}

#[test]
fn what_is_refused_and_where() {
    for (text, line, column, says) in [
        ("iptables -F\nif [ -x /sbin/iptables ]; then\niptables -A INPUT -j DROP\nfi\n", 2, 1, "`if` makes"),
        ("IP=$(hostname -i)\n", 1, 4, "output of a command"),
        ("IP=`hostname -i`\n", 1, 4, "output of a command"),
        ("iptables -A INPUT -s $NET -j DROP\n", 1, 22, "$NET has no value"),
        ("iptables -A INPUT -s 1.2.3.4 \\\n  --dport 5 -j DROP\n", 2, 3, "unknown option"),
        ("iptables -A INPUT -p tcp --dport 99999 -j DROP\n", 1, 34, "99999"),
        ("open() {\n iptables -A INPUT -j ACCEPT\n}\n", 1, 5, "`(` is not supported"),
        ("while true; do iptables -A INPUT -j DROP; done\n", 1, 1, "`while` makes"),
        ("iptables -C INPUT -j DROP || iptables -A INPUT -j DROP\n", 1, 27, "`||` makes"),
        ("ufw enable\n", 1, 1, "is not known here"),
        ("iptables-restore < /etc/rules.v4\n", 1, 18, "in another file"),
        ("for x in 1 2; do\niptables -A INPUT -j DROP\n", 1, 1, "no `done`"),
        ("iptables -A INPUT -p tcp -m multiport --dports {22,80} -j DROP\n", 1, 48, "lists are not supported"),
        ("iptables -A \"INPUT\n", 1, 13, "not closed"),
        ("cat <<EOF\nx\n", 1, 1, "ends the text"),
        ("iptables -t foo -A INPUT -j DROP\n", 1, 13, "no table `foo`"),
        ("iptables -D INPUT 7\n", 1, 19, "no rule 7"),
        ("iptables -A INPUT -s $1 -j DROP\n", 1, 22, "depends on how"),
    ] {
        let error = shell_script(text, Backend::Nft, "fw.sh").map(|_| text).unwrap_err();
        assert!(error.message.contains(says), "{error}");
        assert_eq!((error.line, error.column), (line, column), "{error}");
    }
}
