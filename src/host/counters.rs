//! The kernel's counters by nstat(8)'s names (`IpOutNoRoutes`, `TcpExtListenOverflows`), and what
//! moved between two readings.

use std::collections::BTreeMap;

/// Reads `/proc/net/snmp` and `/proc/net/netstat`: pairs of lines, `Tcp: NAMES` and `Tcp: VALUES`.
///
/// Lines that do not pair up and values that are no counters (`Tcp: MaxConn -1`) are left out.
///
/// ```
/// let counters = reachwhy::host::counters::parse_tables("Ip: Forwarding OutNoRoutes\nIp: 1 7\n");
/// assert_eq!(counters["IpOutNoRoutes"], 7);
/// ```
pub fn parse_tables(text: &str) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    let mut names: Option<(&str, &str)> = None;
    for line in text.lines() {
        let Some((table, fields)) = line.split_once(':') else {
            names = None;
            continue;
        };
        match names.take() {
            Some((named, header)) if named == table => {
                for (name, value) in header.split_whitespace().zip(fields.split_whitespace()) {
                    if let Ok(value) = value.parse() {
                        counters.insert(format!("{table}{name}"), value);
                    }
                }
            }
            _ => names = Some((table, fields)),
        }
    }
    counters
}

/// Reads `/proc/net/snmp6`: a name and a value per line.
pub fn parse_list(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, value) = (words.next()?, words.next()?.parse().ok()?);
            Some((name.to_owned(), value))
        })
        .collect()
}

/// Which counters rose from `before` to `after`, and by how much.
///
/// Gauges that fell (`TcpCurrEstab`) and counters seen only once are not in it.
pub fn moved(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    after
        .iter()
        .filter_map(|(name, now)| {
            let rise = now.checked_sub(*before.get(name)?)?;
            (rise > 0).then(|| (name.clone(), rise))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let text = "Ip: Forwarding DefaultTTL InReceives\nIp: 1 64 5\nTcp: MaxConn CurrEstab\nTcp: -1 3\n\
                    TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 0 18446744073709551615\n";
        let counters = parse_tables(text);
        assert_eq!(counters["IpInReceives"], 5);
        assert_eq!(counters["TcpCurrEstab"], 3);
        assert_eq!(counters["TcpExtListenOverflows"], u64::MAX);
        assert!(!counters.contains_key("TcpMaxConn"));
        assert_eq!(parse_list("Ip6InReceives \t 9\nbroken\n")["Ip6InReceives"], 9);
    }

    #[test]
    fn a_lone_line_does_not_shift_the_rest() {
        let counters = parse_tables("Ip: A B\nTcp: C\nTcp: 4\n");
        assert_eq!(counters, BTreeMap::from([("TcpC".to_owned(), 4)]));
    }

    #[test]
    fn only_what_rose() {
        let before = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 5), ("c".to_owned(), 2)]);
        let after =
            BTreeMap::from([("a".to_owned(), 4), ("b".to_owned(), 3), ("c".to_owned(), 2), ("d".to_owned(), 9)]);
        assert_eq!(moved(&before, &after), BTreeMap::from([("a".to_owned(), 3)]));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = (parse_tables(&text), parse_list(&text));
        }
    }
}
