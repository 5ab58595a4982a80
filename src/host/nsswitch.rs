//! `/etc/nsswitch.conf` as glibc reads it (nsswitch.conf(5), `nss/nss_database.c`,
//! `nss/nss_action_parse.c`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::{Issue, c_lines, is_space};

/// How a service's lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It found the name.
    Success,
    /// It works, and does not know the name.
    NotFound,
    /// It is not there or not set up.
    Unavail,
    /// It is busy: it may know later.
    TryAgain,
}

impl Status {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Success, Self::NotFound, Self::Unavail, Self::TryAgain];
}

/// What follows from a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The lookup ends with this service's answer.
    Return,
    /// The next service is asked.
    Continue,
    /// The next service is asked, and what both found is put together.
    Merge,
}

/// A service and what follows from its answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `files`, `dns`, `mdns4_minimal`, `resolve`, …
    pub name: String,
    /// The actions for success, not found, unavailable, try again.
    actions: [Action; 4],
}

impl Service {
    /// A service with the default actions: return on success, else go on.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), actions: [Action::Return, Action::Continue, Action::Continue, Action::Continue] }
    }

    /// What follows when its lookup ends so.
    pub fn action(&self, status: Status) -> Action {
        self.actions[status as usize]
    }
}

/// `files`, or `mdns4_minimal [NOTFOUND=return]`.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let default = Self::new("").actions;
        let special: Vec<String> = Status::ALL
            .into_iter()
            .filter(|status| self.action(*status) != default[*status as usize])
            .map(|status| {
                let action = format!("{:?}", self.action(status)).to_ascii_lowercase();
                format!("{}={action}", format!("{status:?}").to_ascii_uppercase())
            })
            .collect();
        if special.is_empty() { Ok(()) } else { write!(f, " [{}]", special.join(" ")) }
    }
}

/// The line of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Line, from 1.
    pub line: usize,
    /// The services, in the order they are asked.
    pub services: Vec<Service>,
}

/// An nsswitch.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NsSwitch {
    /// Its databases; of several lines for one the last counts.
    pub databases: BTreeMap<String, Database>,
    /// What is not read as it was meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
}

impl NsSwitch {
    /// Reads the text of an nsswitch.conf. Nothing in it is an error: what cannot be read is an
    /// issue with its line.
    pub fn parse(text: &str) -> Self {
        let mut file = Self::default();
        for (number, line) in c_lines(text) {
            let content = line.split('#').next().unwrap_or_default().trim_matches(is_space);
            if content.is_empty() {
                continue;
            }
            let end = content.find(|c| is_space(c) || c == ':').unwrap_or(content.len());
            let (name, rest) = content.split_at(end);
            if name.is_empty() || rest.is_empty() {
                file.issues.push(Issue::at(number, line, content, "no `database: services`; the line is ignored"));
                continue;
            }
            let (services, trouble) = parse_services(rest.trim_start_matches(|c| is_space(c) || c == ':'));
            if let Some((place, why)) = trouble {
                let message = format!("{why}; the rest of the line is ignored");
                file.issues.push(Issue::at(number, line, place, message));
            }
            if let Some(earlier) = file.databases.insert(name.to_owned(), Database { line: number, services }) {
                let message = format!("a second line for `{name}`: line {} does not count", earlier.line);
                file.issues.push(Issue::at(number, line, content, message));
            }
        }
        file
    }

    /// The services asked for host names, in order; without a `hosts` line glibc's own `files dns`.
    ///
    /// ```
    /// use reachwhy::host::nsswitch::{Action, NsSwitch, Status};
    /// let file = NsSwitch::parse("hosts: files mdns4_minimal [NOTFOUND=return] dns\n");
    /// assert_eq!(file.hosts()[1].action(Status::NotFound), Action::Return);
    /// ```
    pub fn hosts(&self) -> Vec<Service> {
        match self.databases.get("hosts") {
            Some(database) => database.services.clone(),
            None => vec![Service::new("files"), Service::new("dns")],
        }
    }
}

/// What stopped the reading, and where.
type Trouble<'a> = (&'a str, String);

fn parse_services(text: &str) -> (Vec<Service>, Option<Trouble<'_>>) {
    let mut services = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let (name, after) = split(rest, |c| is_space(c) || c == '[');
        if name.is_empty() {
            return (services, Some((rest, "a `[` without a service before it".to_owned())));
        }
        let mut service = Service::new(name);
        rest = after.trim_start_matches(is_space);
        if let Some(criteria) = rest.strip_prefix('[') {
            match parse_criteria(criteria, &mut service) {
                Ok(after) => rest = after,
                // glibc drops the service whose criteria it cannot read, too.
                Err(trouble) => return (services, Some(trouble)),
            }
        }
        services.push(service);
        rest = rest.trim_start_matches(is_space);
    }
    (services, None)
}

/// `[!]STATUS=ACTION …]`; returns what follows the bracket.
fn parse_criteria<'a>(text: &'a str, service: &mut Service) -> Result<&'a str, Trouble<'a>> {
    let mut rest = text.trim_start_matches(is_space);
    loop {
        let (not, after) = match rest.strip_prefix('!') {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let (word, after) = split(after, |c| is_space(c) || c == '=' || c == ']');
        let status = match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => Status::Success,
            "NOTFOUND" => Status::NotFound,
            "UNAVAIL" => Status::Unavail,
            "TRYAGAIN" => Status::TryAgain,
            _ => return Err((rest, format!("`{word}` is not SUCCESS, NOTFOUND, UNAVAIL or TRYAGAIN"))),
        };
        let after = after.trim_start_matches(is_space);
        let Some(after) = after.strip_prefix('=') else {
            return Err((after, format!("`=` is missing after `{word}`")));
        };
        let after = after.trim_start_matches(is_space);
        let (word, next) = split(after, |c| is_space(c) || c == '=' || c == ']');
        let action = match word.to_ascii_uppercase().as_str() {
            "RETURN" => Action::Return,
            "CONTINUE" => Action::Continue,
            "MERGE" => Action::Merge,
            _ => return Err((after, format!("`{word}` is not return, continue or merge"))),
        };
        for other in Status::ALL {
            if (other == status) != not {
                service.actions[other as usize] = action;
            }
        }
        rest = next.trim_start_matches(is_space);
        if let Some(after) = rest.strip_prefix(']') {
            return Ok(after);
        }
    }
}

fn split(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        NsSwitch::parse(line).hosts().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn services_and_their_actions() {
        assert_eq!(shown("hosts:files dns"), "files dns");
        assert_eq!(shown("  hosts :\tfiles  dns # x"), "files dns");
        assert_eq!(shown("# nothing"), "files dns");
        assert_eq!(shown("hosts: "), "");
        assert_eq!(shown("hosts: mdns4_minimal [NOTFOUND=return] dns"), "mdns4_minimal [NOTFOUND=return] dns");
        assert_eq!(
            shown("hosts: resolve[ !unavail = RETURN ]dns"),
            "resolve [NOTFOUND=return TRYAGAIN=return] dns",
            "SUCCESS already returns, UNAVAIL keeps its default"
        );
        assert_eq!(
            shown("hosts: files [SUCCESS=merge UNAVAIL=return] dns"),
            "files [SUCCESS=merge UNAVAIL=return] dns"
        );
        assert_eq!(shown("hosts: files\nhosts: dns"), "dns", "the last line counts");
    }

    #[test]
    fn what_cannot_be_read_ends_the_line_and_is_said() {
        for (line, column, kept) in [
            ("hosts: files [NOTFOUND] dns", 23, ""),
            ("hosts: files dns [LOST=return]", 19, "files"),
            ("hosts: files [NOTFOUND=leave]", 24, ""),
            ("hosts: [NOTFOUND=return] dns", 8, ""),
            ("hosts: a [NOTFOUND=return] [UNAVAIL=return] b", 28, "a [NOTFOUND=return]"),
        ] {
            let file = NsSwitch::parse(line);
            let places: Vec<_> = file.issues.iter().map(|issue| (issue.line, issue.column)).collect();
            assert_eq!(places, [(1, column)], "{line}");
            assert_eq!(shown(line), kept, "{line}");
        }
        assert_eq!(NsSwitch::parse("\nhosts").issues[0].line, 2);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String, line in "hosts: [a-z \\[\\]!=A-Z]{0,40}") {
            let _ = (NsSwitch::parse(&text), NsSwitch::parse(&line));
        }
    }
}
