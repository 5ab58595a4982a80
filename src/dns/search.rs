//! Which names are asked for, in which order, and when glibc stops: `__res_context_search` and
//! `__res_context_query` (resolv/res_query.c).

use super::conf::Conf;
use super::message::{Message, Question, RType, Rcode};
use super::name::DomainName;
use super::send::{Errno, Exchange, Replies, Sender};
use super::wire::Wire;

/// `h_errno`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostError {
    None,
    HostNotFound,
    TryAgain,
    NoRecovery,
    NoData,
    Internal,
}

/// One name that was tried, and how that ended.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// As it was asked for.
    pub name: String,
    /// The suffix that was put behind it; `None` where it was asked for as it is.
    pub suffix: Option<String>,
    /// What was asked for it: indices into the list of exchanges.
    pub exchanges: std::ops::Range<usize>,
    /// Whether it answered.
    pub answered: bool,
    /// What came of it.
    pub result: &'static str,
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Searched {
    pub(super) replies: Option<Replies>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) host_error: HostError,
    pub(super) errno: Errno,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) interrupted: bool,
    /// The name that HOSTALIASES put in place of the one asked for.
    pub(super) alias: Option<String>,
}

/// Looks `name` up for the types, with the search list.
pub(super) fn search<W: Wire>(wire: &mut W, conf: &Conf, name: &str, types: &[RType]) -> Searched {
    let mut state =
        Search { sender: Sender::new(wire, conf), types, candidates: Vec::new(), host_error: HostError::HostNotFound };
    let alias = host_alias(conf, name).map(str::to_owned);
    let replies = match &alias {
        Some(alias) => state.ask(alias, None),
        None => state.run(name),
    };
    Searched {
        replies,
        candidates: state.candidates,
        host_error: state.host_error,
        errno: state.sender.errno,
        exchanges: state.sender.log,
        interrupted: state.sender.interrupted,
        alias,
    }
}

/// A name without a dot may be an alias of the user's own.
fn host_alias<'a>(conf: &'a Conf, name: &str) -> Option<&'a str> {
    if name.contains('.') {
        return None;
    }
    conf.aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, target)| target.as_str())
}

struct Search<'a, W: Wire> {
    sender: Sender<'a, W>,
    types: &'a [RType],
    candidates: Vec<Candidate>,
    host_error: HostError,
}

impl<W: Wire> Search<'_, W> {
    fn run(&mut self, name: &str) -> Option<Replies> {
        let options = self.sender.conf.options().clone();
        let dots = u32::try_from(name.matches('.').count()).unwrap_or(u32::MAX);
        let trailing = name.len() > 1 && name.ends_with('.');
        let mut saved = None;
        if dots >= options.ndots || trailing {
            let found = self.ask(name, None);
            if found.is_some() || trailing || self.sender.interrupted {
                return found;
            }
            saved = Some(self.host_error);
        }
        let (mut no_data, mut failed, mut root_on_list, mut searched) = (false, false, false, false);
        if !trailing {
            for suffix in self.sender.conf.search.clone() {
                searched = true;
                let suffix = suffix.strip_prefix('.').unwrap_or(&suffix).to_owned();
                root_on_list |= suffix.is_empty();
                let found = self.ask(&format!("{name}.{suffix}"), Some(suffix));
                if found.is_some() || self.sender.interrupted {
                    return found;
                }
                if self.sender.errno == Errno::ConnRefused {
                    self.host_error = HostError::TryAgain;
                    return None;
                }
                match self.host_error {
                    HostError::NoData => no_data = true,
                    HostError::HostNotFound => {}
                    HostError::TryAgain if self.sender.buffer_rcode == Rcode::SERVFAIL => failed = true,
                    _ => break,
                }
            }
        }
        let barred = dots == 0 && searched && options.no_tld_query;
        if !barred && saved.is_none() && !root_on_list {
            let found = self.ask(name, None);
            if found.is_some() {
                return found;
            }
        }
        self.host_error = match saved {
            Some(error) => error,
            None if no_data => HostError::NoData,
            None if failed => HostError::TryAgain,
            None => self.host_error,
        };
        None
    }

    /// `__res_context_query`.
    fn ask(&mut self, name: &str, suffix: Option<String>) -> Option<Replies> {
        self.sender.buffer_rcode = Rcode::NOERROR;
        let begin = self.sender.log.len();
        let (replies, result) = self.query(name);
        self.candidates.push(Candidate {
            name: name.to_owned(),
            suffix,
            exchanges: begin..self.sender.log.len(),
            answered: replies.is_some(),
            result,
        });
        replies
    }

    fn query(&mut self, name: &str) -> (Option<Replies>, &'static str) {
        // MAXDNAME is the text's limit; the wire's is checked by the parser.
        let Some(domain) = DomainName::parse(name).ok().filter(|_| !name.is_empty() && name.len() < 1025) else {
            self.host_error = HostError::NoRecovery;
            self.sender.errno = Errno::Other;
            return (None, "no such name can be asked for");
        };
        let (mut types, mut hidden) = (self.types.to_vec(), false);
        if self.sender.conf.options().no_aaaa {
            types.retain(|rtype| *rtype != RType::AAAA);
            // `__res_handle_no_aaaa`: A is asked in its place, to learn whether the name exists at all.
            if types.is_empty() {
                hidden = true;
                types = vec![RType::A];
            }
        }
        let questions: Vec<Question> =
            types.iter().map(|rtype| Question { name: domain.clone(), rtype: *rtype }).collect();
        let Some(replies) = self.sender.send(&questions) else {
            self.host_error = HostError::TryAgain;
            return (None, "no server answered");
        };
        let (one, other) = match (&replies.first, &replies.second) {
            (Some(first), Some(second)) => (first.clone(), second.clone()),
            (Some(only), None) | (None, Some(only)) => (only.clone(), only.clone()),
            (None, None) => {
                self.host_error = HostError::TryAgain;
                return (None, "no server answered");
            }
        };
        if !hidden && (has_data(&one) || has_data(&other)) {
            return (Some(replies), "answered");
        }
        let rcode = if one.header_rcode() == Rcode::NOERROR { other.header_rcode() } else { one.header_rcode() };
        let (error, words) = match rcode {
            Rcode::NXDOMAIN => (HostError::HostNotFound, "NXDOMAIN"),
            Rcode::SERVFAIL => (HostError::TryAgain, "SERVFAIL"),
            Rcode::NOERROR if hidden => (HostError::NoData, "NODATA, by the option no-aaaa"),
            Rcode::NOERROR => (HostError::NoData, "NODATA"),
            Rcode::FORMERR => (HostError::NoRecovery, "FORMERR"),
            Rcode::NOTIMP => (HostError::NoRecovery, "NOTIMP"),
            Rcode::REFUSED => (HostError::NoRecovery, "REFUSED"),
            _ => (HostError::NoRecovery, "an unusual error"),
        };
        self.host_error = error;
        (None, words)
    }
}

fn has_data(message: &Message) -> bool {
    message.header_rcode() == Rcode::NOERROR && message.counts[1] > 0
}
