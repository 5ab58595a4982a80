//! What a command line says, done to a host without the command: the few shapes of `ip`, `sysctl`,
//! `iptables` and `kill` that faults and fixes are written in. So a fault is shown exactly as a learner
//! could type it, and a machine without these programs can still do it.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::rules::{Firewall, words_of};
use super::{Lab, LabError};
use crate::firewall::edit::{EditError, edit_iptables};
use crate::os::links::{NeighbourSpec, RouteSpec, RuleSpec, SpecError, write_sysctl};
use crate::os::process;
use crate::wire::MacAddr;

/// How long a link that was set up is given to begin its work.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// A command that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `ip link set DEV …`
    Link {
        /// The link.
        dev: String,
        /// What is set, in order.
        set: Vec<LinkSetting>,
    },
    /// `ip address add|del|replace NET dev DEV`
    Address(Verb, ipnetwork::IpNetwork, String),
    /// `ip route add|replace|del …`
    Route(Verb, RouteSpec),
    /// `ip rule add|del …`
    Rule(Verb, RuleSpec),
    /// `ip neigh add|replace|del …`
    Neighbour(Verb, NeighbourSpec),
    /// `ip neigh flush dev DEV`
    ForgetNeighbours(String),
    /// `sysctl -w KEY=VALUE …`
    Sysctl(Vec<(String, String)>),
    /// `iptables …`, `ip6tables …`
    Firewall {
        /// The family.
        v6: bool,
        /// The arguments.
        args: Vec<String>,
    },
    /// `kill -SIGNAL PID`
    Kill(Signal, u32),
}

/// What `ip link set` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSetting {
    /// Up or down.
    Up(bool),
    /// The MTU, in octets.
    Mtu(u32),
    /// The link-layer address.
    Address(MacAddr),
    /// Address resolution.
    Arp(bool),
}

/// What is done with an entry of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It must not be there yet.
    Add,
    /// It may be there.
    Replace,
    /// It must be there.
    Delete,
}

/// A command that the lab cannot carry out by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It is none of the shapes that are known.
    #[error("the lab cannot carry out `{command}` by itself: {why}")]
    Unknown {
        /// The command line.
        command: String,
        /// What is not known about it.
        why: String,
    },
    /// A route, rule or neighbour that cannot be read.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A firewall command that does not fit the host's rules.
    #[error("`{command}`: {source}")]
    Edit {
        /// The command line.
        command: String,
        /// Why.
        source: EditError,
    },
}

fn verb(word: &str) -> Option<Verb> {
    Some(match word {
        "add" | "a" => Verb::Add,
        "replace" | "change" | "r" => Verb::Replace,
        "del" | "delete" | "d" => Verb::Delete,
        _ => return None,
    })
}

/// Reads a command line; `sudo` before it is passed over.
///
/// # Errors
/// [`ApplyError::Unknown`] for a command of another shape.
pub fn parse(command: &str) -> Result<Action, ApplyError> {
    let unknown = |why: &str| ApplyError::Unknown { command: command.to_owned(), why: why.to_owned() };
    if command.contains(['|', ';', '&', '`', '$', '<', '>', '\n']) {
        return Err(unknown("it is more than one plain command"));
    }
    let words = words_of(command);
    let mut rest: &[String] = &words;
    if rest.first().is_some_and(|word| word == "sudo") {
        rest = &rest[1..];
    }
    let Some((program, mut rest)) = rest.split_first() else { return Err(unknown("it is empty")) };
    match program.rsplit('/').next().unwrap_or(program) {
        name @ ("iptables" | "ip6tables" | "iptables-nft" | "ip6tables-nft") => {
            Ok(Action::Firewall { v6: name.starts_with("ip6"), args: rest.to_vec() })
        }
        "sysctl" => {
            let settings: Option<Vec<_>> = rest
                .iter()
                .filter(|word| !word.starts_with('-'))
                .map(|word| word.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())))
                .collect();
            let settings = settings.filter(|settings| !settings.is_empty());
            settings.map(Action::Sysctl).ok_or_else(|| unknown("it sets nothing"))
        }
        "kill" => {
            let [signal, pid] = rest else { return Err(unknown("only `kill -SIGNAL PID`")) };
            let name = signal.trim_start_matches('-').trim_start_matches("SIG");
            let signal = format!("SIG{name}").parse().map_err(|_| unknown("no such signal"))?;
            let pid = pid.parse::<u32>().ok().filter(|pid| *pid > 1 && i32::try_from(*pid).is_ok());
            Ok(Action::Kill(signal, pid.ok_or_else(|| unknown("no process id"))?))
        }
        "ip" => {
            while let Some((_, after)) = rest.split_first().filter(|(word, _)| *word == "-4" || *word == "-6") {
                rest = after;
            }
            ip(rest).ok_or_else(|| unknown("this use of `ip` is not known"))?.map_err(|error| match error {
                ApplyError::Unknown { why, .. } => unknown(&why),
                other => other,
            })
        }
        other => Err(unknown(&format!("`{other}` is not known"))),
    }
}

/// `None` for a use that is not known at all.
fn ip(words: &[String]) -> Option<Result<Action, ApplyError>> {
    let (object, rest) = words.split_first()?;
    let (word, rest) = rest.split_first()?;
    let text = rest.join(" ");
    Some(match object.as_str() {
        "link" | "l" if word == "set" => {
            let rest = if rest.first().is_some_and(|word| word == "dev") { &rest[1..] } else { rest };
            let (dev, rest) = rest.split_first()?;
            let set = link_settings(rest)?;
            Ok(Action::Link { dev: dev.clone(), set })
        }
        "address" | "addr" | "a" => {
            let verb = verb(word)?;
            let dev = rest.iter().position(|word| word == "dev").and_then(|at| rest.get(at + 1))?;
            let net = rest.iter().find(|word| word.contains(['.', ':']) && *word != dev)?.parse().ok()?;
            Ok(Action::Address(verb, net, dev.clone()))
        }
        "route" | "r" => {
            let verb = verb(word)?;
            text.parse().map(|spec| Action::Route(verb, spec)).map_err(ApplyError::from)
        }
        "rule" | "ru" => {
            let verb = verb(word)?;
            text.parse().map(|spec| Action::Rule(verb, spec)).map_err(ApplyError::from)
        }
        "neighbour" | "neighbor" | "neigh" | "n" if word == "flush" => match rest {
            [word, dev] if word == "dev" => Ok(Action::ForgetNeighbours(dev.clone())),
            _ => return None,
        },
        "neighbour" | "neighbor" | "neigh" | "n" => {
            let verb = verb(word)?;
            text.parse().map(|spec| Action::Neighbour(verb, spec)).map_err(ApplyError::from)
        }
        _ => return None,
    })
}

fn link_settings(mut words: &[String]) -> Option<Vec<LinkSetting>> {
    let mut set = Vec::new();
    while let Some((word, rest)) = words.split_first() {
        let (setting, used) = match word.as_str() {
            "up" => (LinkSetting::Up(true), 0),
            "down" => (LinkSetting::Up(false), 0),
            "mtu" => (LinkSetting::Mtu(rest.first()?.parse().ok()?), 1),
            "address" => (LinkSetting::Address(rest.first()?.parse().ok()?), 1),
            "arp" => (LinkSetting::Arp(rest.first()? == "on"), 1),
            _ => return None,
        };
        set.push(setting);
        words = &rest[used..];
    }
    (!set.is_empty()).then_some(set)
}

impl Lab {
    /// Does to `host` what `command` says.
    ///
    /// # Errors
    /// [`ApplyError::Unknown`] where it is none of the known shapes; else what the kernel says.
    pub fn apply(&self, host: &str, command: &str) -> Result<(), LabError> {
        match parse(command)? {
            Action::Link { dev, set } => self
                .links(host, |links| {
                    for setting in &set {
                        match *setting {
                            LinkSetting::Up(up) => links.set_up(&dev, up)?,
                            LinkSetting::Mtu(mtu) => links.set_mtu(&dev, mtu)?,
                            LinkSetting::Address(mac) => links.set_mac(&dev, mac)?,
                            LinkSetting::Arp(on) => links.set_arp(&dev, on)?,
                        }
                    }
                    Ok::<_, LabError>(())
                })
                .map(|()| {
                    if set.contains(&LinkSetting::Up(true)) {
                        // A link whose other end is down stays as it is; that is not this command's fault.
                        let _ = Self::wait_for(LINK_PATIENCE, || {
                            self.links(host, |links| links.works(&dev)).unwrap_or(false)
                        });
                    }
                }),
            Action::Address(verb, net, dev) => self.links(host, |links| match verb {
                Verb::Add => links.add_address(&dev, net),
                Verb::Delete => links.delete_address(&dev, net),
                Verb::Replace => {
                    let _ = links.delete_address(&dev, net);
                    links.add_address(&dev, net)
                }
            }),
            Action::Route(verb, spec) => self.links(host, |links| match verb {
                Verb::Add => links.add_route(&spec),
                Verb::Replace => links.replace_route(&spec),
                Verb::Delete => links.delete_route(&spec),
            }),
            Action::Rule(verb, spec) => self.links(host, |links| match verb {
                Verb::Add | Verb::Replace => links.add_rule(&spec),
                Verb::Delete => links.delete_rule(&spec),
            }),
            Action::Neighbour(verb, spec) => self.links(host, |links| match verb {
                Verb::Add | Verb::Replace => links.replace_neighbour(&spec),
                Verb::Delete => links.delete_neighbour(&spec),
            }),
            Action::ForgetNeighbours(dev) => self.links(host, |links| links.forget_neighbours(&dev)),
            Action::Sysctl(settings) => {
                for (key, value) in settings {
                    // Elsewhere than in net.*, a setting may be the whole machine's.
                    if !key.replace('/', ".").starts_with("net.") {
                        let why = format!("{key} is not the host's alone");
                        return Err(ApplyError::Unknown { command: command.to_owned(), why }.into());
                    }
                    self.in_host(host, || write_sysctl(&key, &value))?
                        .map_err(LabError::system(&format!("set {key} to {value} on {host}")))?;
                }
                Ok(())
            }
            Action::Firewall { v6, args } => {
                let now = self.firewall(host);
                let program = if v6 { "ip6tables" } else { "iptables" };
                let words: Vec<String> = std::iter::once(program.to_owned()).chain(args).collect();
                let text = edit_iptables(now.text(v6), &words)
                    .map_err(|source| ApplyError::Edit { command: command.to_owned(), source })?;
                self.set_firewall(host, if v6 { Firewall { v6: text, ..now } } else { Firewall { v4: text, ..now } })
            }
            Action::Kill(signal, pid) => {
                // Only what the lab started: a number from a report must not reach another process.
                if !self.services().iter().any(|(_, id)| *id == pid) {
                    let why = format!("process {pid} is no service of the lab");
                    return Err(ApplyError::Unknown { command: command.to_owned(), why }.into());
                }
                process::send(pid, signal).map_err(LabError::system("send the signal"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_shapes_of_fixes_are_understood() {
        for command in [
            "ip link set eth0 up",
            "ip link set dev eth0 mtu 1400",
            "sudo ip route add 192.168.2.0/24 via 192.168.1.1",
            "ip -6 route add default via fd00::1",
            "ip route del blackhole 192.168.2.3",
            "ip neigh del 192.168.1.3 dev eth0",
            "ip neigh flush dev eth0",
            "ip addr add 192.168.1.3/24 dev eth0",
            "ip rule del from 192.168.1.2 prohibit",
            "sysctl -w net.ipv4.ip_forward=1",
            "iptables -A OUTPUT -p tcp --sport 8080 -j ACCEPT",
            "kill -CONT 1234",
        ] {
            parse(command).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
        assert_eq!(
            parse("ip link set eth0 down mtu 1400").unwrap(),
            Action::Link { dev: "eth0".to_owned(), set: vec![LinkSetting::Up(false), LinkSetting::Mtu(1400)] }
        );
    }

    #[test]
    fn other_commands_are_refused_and_named() {
        for command in [
            "",
            "reboot",
            "ip link set eth0",
            "ip link set eth0 up; rm -rf x",
            "iptables -L | head",
            "kill -CONT 1",
            "kill -CONT -1",
            "kill -9 $(pidof x)",
            "sysctl net.ipv4.ip_forward",
            "systemctl start data-api",
        ] {
            let error = parse(command).unwrap_err().to_string();
            assert!(error.contains(command), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_command_makes_it_panic(command in "(ip|sysctl|kill|iptables) [ -~]{0,60}") {
            let _ = parse(&command);
        }
    }
}
