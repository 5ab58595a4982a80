//! Rulesets that we loaded, listed by iptables' own tools, and their effect on packets.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use reachwhy::os::nft::{NftError, dumps, load_iptables_save};

use super::read::{V4, V6, normal};
use super::world::{has, inside, run};

/// The rules that only iptables itself can load.
fn loadable(text: &str) -> String {
    let foreign = ["-m recent", "-m time", "-m hashlimit", "-m connlimit", "--queue-balance"];
    text.lines().filter(|line| !foreign.iter().any(|part| line.contains(part))).fold(String::new(), |mut all, line| {
        all.push_str(line);
        all.push('\n');
        all
    })
}

/// A match of ours for each option, where iptables has one for two.
fn split_options(line: &str) -> String {
    line.replace(" ! --dst-range", " -m iprange ! --dst-range").replace("-j NOTRACK", "-j CT --notrack")
}

#[test]
fn iptables_nft_lists_what_we_load() {
    inside(|| {
        for (v6, text) in [(false, V4), (true, V6)] {
            let text = loadable(text);
            load_iptables_save(&text, v6).unwrap();
            let mut want = normal(&text);
            want.values_mut().flatten().for_each(|line| *line = split_options(line));
            let (dumps, unseen) = dumps();
            assert_eq!(unseen, []);
            let ours = normal(&dumps[usize::from(v6)].text);
            for (table, lines) in &want {
                for (theirs, ours) in lines.iter().zip(&ours[table]) {
                    assert_eq!(ours, theirs, "{table}");
                }
            }
            assert_eq!(ours, want);
            let save = if v6 { "ip6tables-nft-save" } else { "iptables-nft-save" };
            if has(save) {
                let theirs = normal(&run(save, &[], ""));
                for (table, lines) in &want {
                    for (theirs, ours) in theirs[table].iter().zip(lines) {
                        assert_eq!(theirs, ours, "{table}");
                    }
                }
                assert_eq!(theirs, want);
            }
        }
    });
}

#[test]
fn loading_replaces_whole_tables_and_leaves_others() {
    inside(|| {
        load_iptables_save("*filter\n:INPUT DROP [0:0]\n:x - [0:0]\n-A INPUT -j x\n-A x -j ACCEPT\nCOMMIT\n*nat\n:OUTPUT ACCEPT\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n", false).unwrap();
        load_iptables_save("*filter\n:INPUT ACCEPT [5:300]\n[2:120] -A INPUT -i lo -j ACCEPT\nCOMMIT\n", false)
            .unwrap();
        let (dumps, _) = dumps();
        assert!(dumps[0].text.contains(":INPUT ACCEPT [5:300]\n"), "{}", dumps[0].text);
        assert!(dumps[0].text.contains("[2:120] -A INPUT -i lo -j ACCEPT\n"));
        assert!(dumps[0].text.contains("-j REDIRECT --to-ports 9\n"));
        assert!(!dumps[0].text.contains(":x"));
    });
}

#[test]
fn a_bad_ruleset_changes_nothing() {
    inside(|| {
        load_iptables_save("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n", false).unwrap();
        let before = dumps();
        for (text, word) in [
            ("*filter\n:INPUT DROP [0:0]\n-A INPUT -m set --match-set s src -j DROP\nCOMMIT\n", "--match-set"),
            ("*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport\nCOMMIT\n", "dport"),
            // A rule that only the kernel can judge: it has no NAT in filter chains.
            ("*filter\n:INPUT DROP [0:0]\n-A INPUT -j MASQUERADE\nCOMMIT\n", "rule 1"),
        ] {
            let error = load_iptables_save(text, false).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(dumps(), before);
        }
        let error =
            load_iptables_save("*filter\n:a - [0:0]\n:b - [0:0]\n-A INPUT -j a\n-A a -j b\n-A b -j a\nCOMMIT\n", false);
        assert!(matches!(error, Err(NftError::Refused { .. })), "{error:?}");
        assert_eq!(dumps(), before);
    });
}

#[test]
fn the_lessons_rules_work_on_packets() {
    inside(|| {
        // The exercise's fault: requests to the API are let in, its answers are not let out.
        let pair = |reply: &str| {
            format!(
                "*filter\n:INPUT DROP [0:0]\n:OUTPUT DROP [0:0]\n\
                 -A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT\n\
                 -A INPUT -p tcp -m tcp --sport 8080 -j ACCEPT\n\
                 -A OUTPUT -p tcp -m tcp --dport 8080 -j ACCEPT\n{reply}COMMIT\n"
            )
        };
        let _listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let connect =
            || TcpStream::connect_timeout(&"127.0.0.1:8080".parse().unwrap(), Duration::from_millis(300)).map(drop);
        load_iptables_save(&pair(""), false).unwrap();
        assert_eq!(connect().unwrap_err().kind(), ErrorKind::TimedOut);
        let (before, _) = dumps();
        assert!(before[0].text.contains("[1:60] -A INPUT -p tcp -m tcp --dport 8080"), "{}", before[0].text);
        // The policy counts what it drops: the SYN-ACK, once or more.
        assert!(!before[0].text.contains(":OUTPUT DROP [0:0]"), "{}", before[0].text);
        load_iptables_save(&pair("-A OUTPUT -p tcp -m tcp --sport 8080 -j ACCEPT\n"), false).unwrap();
        connect().unwrap();
        load_iptables_save("*filter\n-A INPUT -p udp -m multiport --dports 8888,9999 -j REJECT\nCOMMIT\n", false)
            .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _other = UdpSocket::bind("127.0.0.1:9999").unwrap();
        socket.connect("127.0.0.1:9999").unwrap();
        socket.send(b"x").unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}
