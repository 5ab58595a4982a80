//! `/etc/resolv.conf` as glibc reads it (resolv.conf(5), `resolv/res_init.c` of 2.36).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::names::{Issue, NameFacts, c_lines};

/// `MAXNS`: further servers are not asked.
pub const MAX_SERVERS: usize = 3;

/// One `nameserver` line that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameServer {
    /// Line, from 1; `None` for the default server.
    pub line: Option<usize>,
    /// Its address.
    pub address: IpAddr,
    /// The interface of a link-local address (`fe80::1%eth0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// The `options` that bend how names are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// A name with as many dots is asked for as it is before any suffix is tried; at most 15.
    pub ndots: u32,
    /// Seconds until the first server is given up for the time being; at most 30.
    pub timeout: u32,
    /// Rounds over all servers; at most 5.
    pub attempts: u32,
    /// Starts at another server each time.
    pub rotate: bool,
    /// EDNS(0), RFC 6891.
    pub edns0: bool,
    /// A and AAAA one after the other.
    pub single_request: bool,
    /// A and AAAA by two sockets.
    pub single_request_reopen: bool,
    /// TCP always.
    pub use_vc: bool,
    /// Believes the AD bit.
    pub trust_ad: bool,
    /// Never asks for AAAA.
    pub no_aaaa: bool,
    /// Does not read a changed file again.
    pub no_reload: bool,
    /// A name without dots is never asked for as it is.
    pub no_tld_query: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ndots: 1,
            timeout: 5,
            attempts: 2,
            rotate: false,
            edns0: false,
            single_request: false,
            single_request_reopen: false,
            use_vc: false,
            trust_ad: false,
            no_aaaa: false,
            no_reload: false,
            no_tld_query: false,
        }
    }
}

/// A resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvConf {
    /// The servers that are asked, in order: the first three of the file.
    pub servers: Vec<NameServer>,
    /// Those beyond, which never are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<NameServer>,
    /// The suffixes of the last `search` or `domain` line; `None` without one.
    pub search: Option<Vec<String>>,
    /// That line, from 1; `None` where it stems from `LOCALDOMAIN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_line: Option<usize>,
    /// The options.
    pub options: Options,
    /// What is not read as it was meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
}

impl ResolvConf {
    /// Reads the text of a resolv.conf. Nothing in it is an error: what cannot be read is an issue
    /// with its line.
    ///
    /// ```
    /// let file = reachwhy::host::resolv::ResolvConf::parse("nameserver 10.0.0.53\noptions ndots:5\n");
    /// assert_eq!((file.servers().len(), file.options.ndots), (1, 5));
    /// ```
    pub fn parse(text: &str) -> Self {
        let mut file = Self::default();
        for (number, line) in c_lines(text) {
            if line.starts_with([';', '#']) || line.trim().is_empty() {
                continue;
            }
            file.line(number, line);
        }
        file
    }

    /// The file with the environment over it: `LOCALDOMAIN` replaces the search list, `RES_OPTIONS`
    /// is read after the file's options.
    pub fn of(names: &NameFacts) -> Self {
        let mut file = Self::parse(names.resolv_conf.text.as_deref().unwrap_or_default());
        if let Some(list) = names.environment.get("LOCALDOMAIN") {
            // glibc takes the beginning as a suffix even where it is empty: then the name is asked for as it is.
            let empty = (list.is_empty() || list.starts_with([' ', '\t'])).then(String::new);
            let list = list.split('\n').next().unwrap_or_default();
            file.search = Some(empty.into_iter().chain(words(list).map(str::to_owned)).collect());
            file.search_line = None;
        }
        if let Some(options) = names.environment.get("RES_OPTIONS") {
            for word in words(options) {
                // An unknown word there is no line of the file.
                let _ = file.option(word);
            }
        }
        file
    }

    /// The servers asked; 127.0.0.1 where the file names none.
    pub fn servers(&self) -> Vec<NameServer> {
        if self.servers.is_empty() {
            vec![NameServer { line: None, address: Ipv4Addr::LOCALHOST.into(), scope: None }]
        } else {
            self.servers.clone()
        }
    }

    /// The suffixes tried; without a line for them, the domain part of the host's own name.
    pub fn search(&self, hostname: Option<&str>) -> Vec<String> {
        match &self.search {
            Some(list) => list.clone(),
            None => hostname
                .and_then(|name| name.split_once('.'))
                .map(|(_, domain)| domain.to_owned())
                .filter(|domain| !domain.is_empty())
                .into_iter()
                .collect(),
        }
    }

    /// The names asked for, in order, when `name` is looked up (`res_search`): each next one after
    /// NXDOMAIN or an empty answer.
    pub fn candidates(&self, name: &str, hostname: Option<&str>) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let dots = u32::try_from(name.matches('.').count()).unwrap_or(u32::MAX);
        // RES_DEFNAMES without RES_DNSRCH never is: both are on by default.
        let suffixed = self.search(hostname).into_iter().map(|domain| {
            let domain = domain.trim_matches('.');
            if domain.is_empty() { name.to_owned() } else { format!("{name}.{domain}") }
        });
        let mut candidates = Vec::new();
        let first = dots >= self.options.ndots;
        if first {
            candidates.push(name.to_owned());
        }
        candidates.extend(suffixed);
        let tried = first || candidates.iter().any(|known| known == name);
        let barred = dots == 0 && self.options.no_tld_query;
        if !tried && !barred {
            candidates.push(name.to_owned());
        }
        candidates
    }

    fn line(&mut self, number: usize, line: &str) {
        // glibc wants the word at the very start, with a blank behind it.
        let (keyword, rest) = line.split_at(line.find([' ', '\t']).unwrap_or(line.len()));
        let value = words(rest).next();
        match (keyword, value) {
            ("", _) => {
                let message = "begins with a blank, so that glibc does not see it; the line is ignored";
                self.issues.push(Issue::at(number, line, line, message));
            }
            ("nameserver", Some(word)) => self.server(number, line, word),
            ("domain", Some(word)) => {
                self.search = Some(vec![word.to_owned()]);
                self.search_line = Some(number);
            }
            ("search", Some(_)) => {
                self.search = Some(words(rest).map(str::to_owned).collect());
                self.search_line = Some(number);
            }
            ("options", Some(_)) => {
                for word in words(rest) {
                    if let Err(message) = self.option(word) {
                        self.issues.push(Issue::at(number, line, word, message));
                    }
                }
            }
            ("sortlist", Some(_)) => {}
            ("nameserver" | "domain" | "search" | "options" | "sortlist", None) => {
                self.issues.push(Issue::at(number, line, line, format!("`{keyword}` without a value; it is ignored")));
            }
            _ => {
                self.issues.push(Issue::at(
                    number,
                    line,
                    line,
                    format!("`{keyword}` is not known; the line is ignored"),
                ));
            }
        }
        if line.ends_with('\r') && matches!(keyword, "domain" | "search") {
            let message = "a carriage return ends the line and becomes part of the last name";
            self.issues.push(Issue::at(number, line, &line[line.len() - 1..], message));
        }
    }

    fn server(&mut self, number: usize, line: &str, word: &str) {
        let (bare, scope) = word.split_once('%').map_or((word, None), |(bare, scope)| (bare, Some(scope)));
        let address = match inet_aton(word) {
            Some(v4) => Some(IpAddr::V4(v4)),
            None => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        };
        let Some(address) = address else {
            let why = if word.ends_with('\r') {
                "a carriage return ends the line, and glibc takes it as part of the address"
            } else if word.contains(':') && word.contains('.') || word.contains('#') {
                "a port cannot be given"
            } else {
                "only addresses are read, no names"
            };
            let message = format!("`{}` is not an address: {why}; the server is not asked", word.trim_end());
            self.issues.push(Issue::at(number, line, word, message));
            return;
        };
        let server = NameServer { line: Some(number), address, scope: scope.map(str::to_owned) };
        if self.servers.len() < MAX_SERVERS {
            self.servers.push(server);
        } else {
            let message = format!("more than {MAX_SERVERS} servers: {address} is never asked");
            self.issues.push(Issue::at(number, line, word, message));
            self.unused.push(server);
        }
    }

    /// One word of `options`; the message says why it counts less than it seems.
    fn option(&mut self, word: &str) -> Result<(), String> {
        let options = &mut self.options;
        for (name, most, value) in [
            ("ndots:", 15, &mut options.ndots),
            ("timeout:", 30, &mut options.timeout),
            ("attempts:", 5, &mut options.attempts),
        ] {
            let Some(number) = word.strip_prefix(name) else { continue };
            let asked = atoi(number);
            *value = asked.min(most);
            return if asked > most {
                Err(format!("`{word}` counts as {name}{most}, the most there is"))
            } else {
                Ok(())
            };
        }
        // glibc compares beginnings: `rotated` is `rotate` too. Of two that fit the longer one stands first.
        let flag = match word {
            _ if word.starts_with("rotate") => &mut options.rotate,
            _ if word.starts_with("edns0") => &mut options.edns0,
            _ if word.starts_with("single-request-reopen") => &mut options.single_request_reopen,
            _ if word.starts_with("single-request") => &mut options.single_request,
            _ if word.starts_with("no_tld_query") || word.starts_with("no-tld-query") => &mut options.no_tld_query,
            _ if word.starts_with("no-reload") => &mut options.no_reload,
            _ if word.starts_with("use-vc") => &mut options.use_vc,
            _ if word.starts_with("trust-ad") => &mut options.trust_ad,
            _ if word.starts_with("no-aaaa") => &mut options.no_aaaa,
            "debug" => return Ok(()),
            _ => return Err(format!("`{word}` is not known; it is ignored")),
        };
        *flag = true;
        Ok(())
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t']).filter(|word| !word.is_empty())
}

/// atoi(3) of what is not negative.
fn atoi(text: &str) -> u32 {
    let digits = &text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())];
    if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u32::MAX) }
}

/// inet_aton(3), which reads `10.1` and `0x7f.1` too, without anything behind the address.
pub fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts = text
        .split('.')
        .map(|part| match part.strip_prefix("0x").or(part.strip_prefix("0X")) {
            Some(hex) => from_digits(hex, 16),
            None if part.len() > 1 && part.starts_with('0') => from_digits(&part[1..], 8),
            None => from_digits(part, 10),
        })
        .collect::<Option<Vec<u32>>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 0xff) {
        return None;
    }
    // The last number fills all octets that are left.
    let left = 4 - u32::try_from(first.len()).ok()?;
    if left < 4 && *last >> (8 * left) != 0 {
        return None;
    }
    let high = first.iter().enumerate().fold(0, |bits, (at, part)| bits | part << (24 - 8 * at));
    Some(Ipv4Addr::from_bits(high | last))
}

fn from_digits(digits: &str, radix: u32) -> Option<u32> {
    if digits.starts_with('+') { None } else { u32::from_str_radix(digits, radix).ok() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::TextFile;

    #[test]
    fn three_servers_the_last_list_and_clamped_options() {
        let file = ResolvConf::parse(
            "; comment\n# comment\nnameserver 10.0.0.1\nnameserver\t10.1 trailing\nnameserver fe80::1%eth0\n\
             nameserver 10.0.0.4\ndomain a.example\nsearch b.example c.example\n\
             options ndots:99 timeout:1 attempts:0 rotate single-request-reopen foo\n",
        );
        let servers: Vec<_> =
            file.servers.iter().map(|server| (server.line.unwrap(), server.address.to_string())).collect();
        assert_eq!(servers, [(3, "10.0.0.1".to_owned()), (4, "10.0.0.1".to_owned()), (5, "fe80::1".to_owned())]);
        assert_eq!(file.servers[2].scope.as_deref(), Some("eth0"));
        assert_eq!(file.unused.len(), 1);
        assert_eq!(file.search(None), ["b.example", "c.example"]);
        assert_eq!(file.search_line, Some(8));
        let options = &file.options;
        assert_eq!((options.ndots, options.timeout, options.attempts), (15, 1, 0));
        assert!(options.rotate && options.single_request_reopen && !options.single_request);
        assert_eq!(
            file.issues.iter().map(|issue| (issue.line, issue.column)).collect::<Vec<_>>(),
            [(6, 12), (9, 9), (9, 68)]
        );
    }

    #[test]
    fn lines_that_look_right_and_do_not_count() {
        for (text, says) in [
            (" nameserver 10.0.0.1", "begins with a blank"),
            ("nameserver 10.0.0.1\r", "carriage return"),
            ("nameserver dns.example", "no names"),
            ("nameserver 10.0.0.1:53", "port"),
            ("nameserver 10.0.0.256", "not an address"),
            ("nameserver", "without a value"),
            ("nameservers 10.0.0.1", "not known"),
        ] {
            let file = ResolvConf::parse(text);
            assert_eq!(file.servers, [], "{text:?}");
            assert!(file.issues.iter().any(|issue| issue.message.contains(says)), "{text:?}: {:?}", file.issues);
            assert_eq!(file.servers()[0].address, IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
    }

    #[test]
    fn the_environment_wins() {
        let text = Some("search file.example\noptions ndots:2".to_owned());
        let names = NameFacts {
            resolv_conf: TextFile { text, ..TextFile::default() },
            environment: BTreeMap::from([
                ("LOCALDOMAIN".to_owned(), "env.example".to_owned()),
                ("RES_OPTIONS".to_owned(), "ndots:3 junk".to_owned()),
            ]),
            ..NameFacts::default()
        };
        let file = ResolvConf::of(&names);
        assert_eq!((file.search(None), file.options.ndots), (vec!["env.example".to_owned()], 3));
        assert_eq!(ResolvConf::default().search(Some("host.corp.example")), ["corp.example"]);
        assert_eq!(ResolvConf::default().search(Some("host")), [""; 0]);
    }

    #[test]
    fn the_order_in_which_names_are_asked_for() {
        let file = ResolvConf::parse("search corp lab\noptions ndots:2");
        assert_eq!(file.candidates("api", None), ["api.corp", "api.lab", "api"]);
        assert_eq!(file.candidates("a.b.c", None), ["a.b.c", "a.b.c.corp", "a.b.c.lab"]);
        assert_eq!(file.candidates("api.", None), ["api"]);
        let strict = ResolvConf::parse("search corp\noptions no-tld-query");
        assert_eq!(strict.candidates("api", None), ["api.corp"]);
    }

    #[test]
    fn addresses_as_inet_aton_reads_them() {
        for (text, address) in [
            ("127.1", Some("127.0.0.1")),
            ("0x7f000001", Some("127.0.0.1")),
            ("010.0.0.1", Some("8.0.0.1")),
            ("10.0.257", Some("10.0.1.1")),
            ("1.2.3.4.5", None),
            ("1.2.3.", None),
            ("", None),
            ("1..2", None),
            ("256.1", None),
            ("4294967296", None),
            ("0x", None),
        ] {
            assert_eq!(inet_aton(text), address.map(|a| a.parse().unwrap()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String, line in "(nameserver|search|options)[ \t][0-9a-fx:.% -]{0,30}\r?", name: String) {
            for text in [text, line] {
                let file = ResolvConf::parse(&text);
                let _ = (file.candidates(&name, Some(&name)), inet_aton(&text));
            }
        }
    }
}
