//! Where to look from: this host, a network namespace, another machine, a container, a pod.
//!
//! At each vantage reachwhy runs itself ([`agent`]) and speaks with the doctor over that process's
//! standard input and output ([`protocol`]), one JSON document a line. This is the only part of
//! the doctor that touches the system.

pub mod agent;
mod link;
mod names;
mod plain;
mod plain_try;
pub mod protocol;
mod push;
mod remedy;
mod stations;

use std::fmt;
use std::str::FromStr;

pub use link::{Agent, AgentError};

/// Whether a signal has asked us to end.
pub fn stopped() -> bool {
    crate::os::interrupt::asked()
}

use crate::os::handoff::Token;

/// A host to look from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vantage {
    /// This process's own network namespace.
    Local,
    /// A namespace that `ip netns` knows, with `/etc/netns/NAME/*` in force.
    NetNs(String),
    /// Another machine, over the system's ssh with its configuration and keys.
    Ssh {
        /// `[USER@]HOST`, as ssh takes it.
        destination: String,
        /// `-p`.
        port: Option<u16>,
        /// Whether reachwhy may copy itself there where it is not installed.
        push: bool,
    },
    /// Another machine, where `reachwhy doctor --serve` waits for one client.
    Serve {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
        /// The token it printed; never shown again.
        token: String,
    },
    /// A container of this machine's Docker (or podman), by name or id. Its namespaces are entered from
    /// outside, so that nothing need be in the image.
    Docker(String),
    /// A pod of the cluster that `kubectl` is set up for.
    Kubectl {
        /// `-n`.
        namespace: Option<String>,
        /// The pod, or what `kubectl exec` takes for one (`deploy/api`).
        pod: String,
        /// Whether reachwhy may copy itself there where it is not in the image.
        push: bool,
    },
}

/// The text named no vantage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no vantage: {why}")]
pub struct BadVantage {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for Vantage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::NetNs(name) => write!(f, "netns:{name}"),
            Self::Ssh { destination, port: None, .. } => write!(f, "ssh:{destination}"),
            Self::Ssh { destination, port: Some(port), .. } => write!(f, "ssh:{destination}:{port}"),
            Self::Serve { host, port, .. } if host.contains(':') => write!(f, "serve:[{host}]:{port}"),
            Self::Serve { host, port, .. } => write!(f, "serve:{host}:{port}"),
            Self::Docker(name) => write!(f, "docker:{name}"),
            Self::Kubectl { namespace: None, pod, .. } => write!(f, "kubectl:{pod}"),
            Self::Kubectl { namespace: Some(namespace), pod, .. } => write!(f, "kubectl:{namespace}/{pod}"),
        }
    }
}

impl FromStr for Vantage {
    type Err = BadVantage;

    fn from_str(text: &str) -> Result<Self, BadVantage> {
        let bad = |why| BadVantage { text: text.to_owned(), why };
        if text == "local" {
            return Ok(Self::Local);
        }
        match text.split_once(':') {
            Some(("netns", name)) if name.is_empty() || name.contains('/') || name == "." || name == ".." => {
                Err(bad("a namespace has a plain name, as `ip netns list` shows it"))
            }
            Some(("netns", name)) => Ok(Self::NetNs(name.to_owned())),
            Some(("ssh", rest)) => {
                let (destination, port) = match rest.rsplit_once(':') {
                    Some((host, port)) if !host.contains(':') => {
                        (host, Some(port.parse().map_err(|_| bad("the port is no number from 1 to 65535"))?))
                    }
                    _ => (rest, None),
                };
                // A destination that begins with a dash would be read by ssh as an option.
                if destination.is_empty() || destination.starts_with('-') || port == Some(0) {
                    return Err(bad("ssh needs [USER@]HOST[:PORT]"));
                }
                Ok(Self::Ssh { destination: destination.to_owned(), port, push: false })
            }
            Some(("serve", rest)) => {
                let needs = "serve needs HOST:PORT#TOKEN, as `reachwhy doctor --serve` prints it";
                let (place, token) = rest.rsplit_once('#').ok_or_else(|| bad(needs))?;
                let (host, port) = place.rsplit_once(':').ok_or_else(|| bad(needs))?;
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let host = bare.unwrap_or(host);
                let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| bad(needs))?;
                if host.is_empty() || bare.is_none() && host.contains(':') || Token::parse(token).is_none() {
                    return Err(bad(needs));
                }
                Ok(Self::Serve { host: host.to_owned(), port, token: token.to_owned() })
            }
            // What begins with a dash would be read as an option by docker or kubectl.
            Some(("docker", name))
                if name.is_empty() || name.starts_with('-') || name.contains(char::is_whitespace) =>
            {
                Err(bad("docker needs the name or id of a container, as `docker ps` shows it"))
            }
            Some(("docker", name)) => Ok(Self::Docker(name.to_owned())),
            Some(("kubectl", rest)) => {
                let (namespace, pod) =
                    rest.split_once('/').map_or((None, rest), |(namespace, pod)| (Some(namespace.to_owned()), pod));
                let wrong = |name: &str| name.is_empty() || name.starts_with('-') || name.contains(char::is_whitespace);
                if wrong(pod) || namespace.as_deref().is_some_and(wrong) {
                    return Err(bad("kubectl needs [NAMESPACE/]POD"));
                }
                Ok(Self::Kubectl { namespace, pod: pod.to_owned(), push: false })
            }
            _ => Err(bad(
                "use local, netns:NAME, ssh:[USER@]HOST[:PORT], docker:NAME, kubectl:[NAMESPACE/]POD or serve:HOST:PORT#TOKEN",
            )),
        }
    }
}

impl Vantage {
    /// The same, where reachwhy may copy itself to the far side.
    #[must_use]
    pub fn with_push(mut self) -> Self {
        if let Self::Ssh { push, .. } | Self::Kubectl { push, .. } = &mut self {
            *push = true;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_itself() {
        for text in [
            "local",
            "netns:api",
            "ssh:api",
            "ssh:root@10.0.0.1:2222",
            "docker:web_1",
            "kubectl:api-0",
            "kubectl:prod/api-0",
        ] {
            assert_eq!(text.parse::<Vantage>().unwrap().to_string(), text);
        }
        let token = "0123456789abcdef".repeat(3);
        let served: Vantage = format!("serve:[fd00::3]:4000#{token}").parse().unwrap();
        assert_eq!(served.to_string(), "serve:[fd00::3]:4000", "the token is not shown");
        for text in ["serve:", "serve:h:1", "serve:h:0#TOKEN", "serve:h:1#xyz", "serve:fd00::3:1#TOKEN", "serve:#TOKEN"]
        {
            assert!(text.replace("TOKEN", &token).parse::<Vantage>().is_err(), "{text}");
        }
        let no = ["", "api", "netns:", "netns:../x", "ssh:", "ssh:-oProxyCommand=x", "ssh:h:0", "ssh:h:x", "vm:x"];
        for text in no.into_iter().chain(["docker:", "docker:--help", "kubectl:", "kubectl:/x", "kubectl:a/-x"]) {
            assert!(text.parse::<Vantage>().is_err(), "{text}");
        }
    }
}
