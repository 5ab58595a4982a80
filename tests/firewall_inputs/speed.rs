//! How fast rules are read. Run with `--release -- --ignored --nocapture speed`.

use std::fmt::Write as _;
use std::time::Instant;

use reachwhy::firewall::Family;
use reachwhy::firewall::parse::{iptables_save, nft_text};
use reachwhy::host::Backend;

#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut save = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n".to_owned();
    let mut nft = "table ip t {\n chain i {\n".to_owned();
    let count = 400_000u32;
    for n in 0..count {
        let (a, b) = (n >> 8 & 255, n & 255);
        let port = n % 60_000 + 1;
        let _ = match n % 4 {
            0 => writeln!(save, "-A INPUT -s 10.{a}.{b}.0/24 -p tcp -m tcp --dport {port} -j ACCEPT"),
            1 => writeln!(save, "-A FORWARD -s 10.{a}.{b}.1/32 -i eth0 -o eth1 -p udp -m udp --dport {port} -j DROP"),
            2 => writeln!(save, "-A FORWARD -d 10.1.{a}.{b}/32 -m state --state NEW -j ACCEPT"),
            _ => {
                writeln!(save, "-A FORWARD -m comment --comment \"service {n}\" -p tcp -m tcp --sport {port} -j RETURN")
            }
        };
        let _ = writeln!(nft, "  ip saddr 10.{a}.{b}.0/24 tcp dport {port} accept");
    }
    save.push_str("COMMIT\n");
    nft.push_str(" }\n}\n");
    for _ in 0..3 {
        let start = Instant::now();
        let parsed = iptables_save(&save, Family::Ip, Backend::Nft, "t").unwrap();
        let took = start.elapsed().as_secs_f64();
        assert!(parsed.warnings.is_empty());
        eprintln!("iptables-save: {:.0} rules/s", f64::from(count) / took);
    }
    let start = Instant::now();
    nft_text(&nft, "t").unwrap();
    eprintln!("nft text: {:.0} rules/s", f64::from(count) / start.elapsed().as_secs_f64());
}
