//! Which hosts there are: words on a command line, a list in a file, Ansible's inventories (INI and YAML).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use yaml_rust2::parser::{Event, Parser};

use crate::doctor::vantage::Vantage;

/// Hosts that one matrix may have.
const MOST: usize = 500;
/// How deep a document may be nested.
const DEEP: usize = 32;
/// How deep groups may be within groups.
const GROUPS: usize = 32;

/// A host of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it is called.
    pub name: String,
    /// How to look from it.
    pub vantage: Vantage,
    /// The address at which the others are to reach it; `None`: one of its own.
    pub address: Option<IpAddr>,
}

/// The text is no inventory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {why}")]
pub struct BadInventory {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub why: String,
}

/// Variables of a host or a group.
type Vars = BTreeMap<String, String>;

#[derive(Debug, Default)]
struct Group {
    hosts: Vec<String>,
    children: Vec<String>,
    vars: Vars,
}

/// What an inventory says before it is put together.
#[derive(Debug, Default)]
struct Inventory {
    groups: BTreeMap<String, Group>,
    /// Hosts in the order in which they are named first.
    order: Vec<String>,
    vars: BTreeMap<String, Vars>,
}

/// Reads one host: `web1`, `ssh:root@web1:2222`, `netns:a`, each perhaps with `=ADDRESS`.
///
/// # Errors
/// In words, what is wrong with it.
pub fn member(text: &str) -> Result<Member, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => {
            let address = address.parse().map_err(|_| format!("`{address}` behind the = is no address"))?;
            (name, Some(address))
        }
        None => (text, None),
    };
    let mut member = host(name, &Vars::new())?;
    member.address = address.or(member.address);
    Ok(member)
}

/// A host by its name and variables.
fn host(name: &str, vars: &Vars) -> Result<Member, String> {
    let var = |key: &str| vars.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let known = ["netns:", "ssh:", "docker:", "kubectl:", "serve:"];
    let address = |text: Option<&str>| text.and_then(|text| text.parse::<IpAddr>().ok());
    let given = match var("reachwhy_address") {
        Some(text) => Some(text.parse().map_err(|_| format!("reachwhy_address={text} is no address"))?),
        None => None,
    };
    let vantage = if let Some(text) = var("reachwhy_vantage") {
        text.parse::<Vantage>().map_err(|error| error.to_string())?
    } else if name == "local" || var("ansible_connection") == Some("local") {
        Vantage::Local
    } else if known.iter().any(|kind| name.starts_with(kind)) {
        name.parse::<Vantage>().map_err(|error| error.to_string())?
    } else if let Some("docker" | "community.docker.docker" | "podman" | "containers.podman.podman") =
        var("ansible_connection")
    {
        format!("docker:{}", var("ansible_host").unwrap_or(name))
            .parse::<Vantage>()
            .map_err(|error| error.to_string())?
    } else {
        // `badwolf.example.com:5309`; a bare IPv6 address has more colons.
        let (own, port) = match name.rsplit_once(':') {
            Some((own, port)) if !own.contains(':') => (own, Some(port)),
            _ => (name, None),
        };
        let user = var("ansible_user").or(var("ansible_ssh_user")).map(|user| format!("{user}@")).unwrap_or_default();
        let place = var("ansible_host").or(var("ansible_ssh_host")).unwrap_or(own);
        let port = var("ansible_port").or(var("ansible_ssh_port")).or(port);
        let port = match port {
            Some(text) => match text.parse::<u16>() {
                Ok(port @ 1..) => Some(port),
                _ => return Err(format!("`{text}` is no port")),
            },
            None => None,
        };
        let destination = format!("{user}{place}");
        if destination.starts_with('-') || place.is_empty() || destination.contains(char::is_whitespace) {
            return Err(format!("`{name}` is no host"));
        }
        Vantage::Ssh { destination, port, push: false }
    };
    let numeric = address(var("ansible_host")).or_else(|| address(Some(name)));
    Ok(Member { name: name.to_owned(), vantage, address: given.or(numeric) })
}

/// Reads an inventory: YAML where the file's name or its first line says so, else Ansible's INI, of
/// which a plain list of hosts is the simplest form.
///
/// # Errors
/// [`BadInventory`] with the place.
pub fn inventory(text: &str, file: &str) -> Result<Vec<Member>, BadInventory> {
    let yaml = [".yml", ".yaml"].iter().any(|end| file.to_ascii_lowercase().ends_with(end))
        || text.lines().any(|line| line.trim_end() == "---");
    let all = if yaml { of_yaml(text) } else { of_ini(text) };
    let bad = |(line, column, why): (usize, usize, String)| BadInventory { file: file.to_owned(), line, column, why };
    all.and_then(|all| all.members()).map_err(bad)
}

type Fault = (usize, usize, String);

impl Inventory {
    fn host(&mut self, group: &str, name: &str) {
        if !self.order.iter().any(|known| known == name) {
            self.order.push(name.to_owned());
        }
        let group = self.groups.entry(group.to_owned()).or_default();
        if !group.hosts.iter().any(|known| known == name) {
            group.hosts.push(name.to_owned());
        }
    }

    /// How deep each group lies, by the longest way down to it.
    fn depths(&self) -> BTreeMap<&str, usize> {
        let mut depths: BTreeMap<&str, usize> =
            self.groups.keys().map(|name| (name.as_str(), usize::from(name != "all"))).collect();
        for _ in 0..GROUPS {
            let mut moved = false;
            for (name, group) in &self.groups {
                let below = depths.get(name.as_str()).copied().unwrap_or(0) + 1;
                for child in &group.children {
                    if let Some(depth) = depths.get_mut(child.as_str()).filter(|depth| **depth < below) {
                        *depth = below;
                        moved = true;
                    }
                }
            }
            if !moved {
                break;
            }
        }
        depths
    }

    /// Whether a host is in a group or in one below it.
    fn within(&self, group: &str, host: &str, seen: &mut BTreeSet<String>) -> bool {
        if !seen.insert(group.to_owned()) || seen.len() > MOST {
            return false;
        }
        self.groups.get(group).is_some_and(|found| {
            found.hosts.iter().any(|name| name == host)
                || found.children.iter().any(|child| self.within(child, host, seen))
        })
    }

    /// The hosts with what their groups say of them; the deeper group has the last word.
    fn members(&self) -> Result<Vec<Member>, Fault> {
        let mut groups: Vec<(usize, &str)> = self.depths().into_iter().map(|(name, depth)| (depth, name)).collect();
        groups.sort_unstable();
        let mut members = Vec::new();
        for name in &self.order {
            let mut vars = Vars::new();
            for (_, group) in &groups {
                if *group == "all" || self.within(group, name, &mut BTreeSet::new()) {
                    vars.extend(self.groups.get(*group).map(|group| group.vars.clone()).unwrap_or_default());
                }
            }
            vars.extend(self.vars.get(name).cloned().unwrap_or_default());
            members.push(host(name, &vars).map_err(|why| (1, 1, format!("host {name}: {why}")))?);
        }
        Ok(members)
    }
}

fn of_ini(text: &str) -> Result<Inventory, Fault> {
    let mut all = Inventory::default();
    let (mut group, mut part) = ("ungrouped".to_owned(), "hosts".to_owned());
    for (number, line) in text.lines().enumerate() {
        let at = |column: usize, why: String| (number + 1, column, why);
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[')
            && let Some((head, tail)) = rest.split_once(']')
            && (tail.trim().is_empty() || tail.trim_start().starts_with('#'))
        {
            let (name, kind) = head.split_once(':').unwrap_or((head, "hosts"));
            if name.trim().is_empty() || !matches!(kind, "hosts" | "vars" | "children") {
                return Err(at(1, format!("[{head}] is no section: [GROUP], [GROUP:vars] or [GROUP:children]")));
            }
            (group, part) = (name.trim().to_owned(), kind.to_owned());
            all.groups.entry(group.clone()).or_default();
            continue;
        }
        match part.as_str() {
            "vars" => {
                let (key, value) =
                    trimmed.split_once('=').ok_or_else(|| at(1, "a variable is KEY=VALUE".to_owned()))?;
                let vars = &mut all.groups.entry(group.clone()).or_default().vars;
                vars.insert(key.trim().to_owned(), unquoted(value.trim()));
            }
            "children" => {
                let child = trimmed.split_whitespace().next().unwrap_or_default().to_owned();
                all.groups.entry(child.clone()).or_default();
                all.groups.entry(group.clone()).or_default().children.push(child);
            }
            _ => {
                let mut words = quoted_words(trimmed).into_iter();
                let pattern = words.next().unwrap_or_default();
                let (pattern, address) = match pattern.split_once('=') {
                    Some((pattern, address)) => (pattern.to_owned(), Some(address.to_owned())),
                    None => (pattern, None),
                };
                let mut vars = Vars::new();
                if let Some(address) = address {
                    vars.insert("reachwhy_address".to_owned(), address);
                }
                for word in words {
                    if word.starts_with(['#', ';']) {
                        break;
                    }
                    let (key, value) = word
                        .split_once('=')
                        .ok_or_else(|| at(1, format!("`{word}` behind the host is no KEY=VALUE")))?;
                    vars.insert(key.to_owned(), value.to_owned());
                }
                for name in expand(&pattern).map_err(|why| at(1, why))? {
                    all.host(&group, &name);
                    all.vars.entry(name).or_default().extend(vars.clone());
                }
                if all.order.len() > MOST {
                    return Err(at(1, format!("more than {MOST} hosts")));
                }
            }
        }
    }
    Ok(all)
}

fn unquoted(text: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)) {
            return inner.to_owned();
        }
    }
    text.to_owned()
}

/// Words, of which a part may stand in quotes.
fn quoted_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, _) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// `web[01:03].example` as web01.example, web02.example, web03.example; letters and steps too.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let range = pattern.find('[').and_then(|open| {
        let close = pattern[open..].find(']')? + open;
        pattern[open..close].contains(':').then_some((open, close))
    });
    let Some((open, close)) = range else { return Ok(vec![pattern.to_owned()]) };
    let bad = || format!("`{}` is no range: [1:9], [01:09], [a:f] or [1:9:2]", &pattern[open..=close]);
    let parts: Vec<&str> = pattern[open + 1..close].split(':').collect();
    let (first, last, step) = match parts.as_slice() {
        [first, last] => (*first, *last, 1),
        [first, last, step] => (*first, *last, step.parse::<usize>().ok().filter(|step| *step > 0).ok_or_else(bad)?),
        _ => return Err(bad()),
    };
    let middles: Vec<String> = if let (Ok(from), Ok(to)) = (first.parse::<u32>(), last.parse::<u32>()) {
        if from > to {
            return Err(bad());
        }
        let width = if first.len() > 1 && first.starts_with('0') { first.len() } else { 0 };
        (from..=to).step_by(step).take(MOST + 1).map(|n| format!("{n:0width$}")).collect()
    } else {
        let letter = |text: &str| match text.as_bytes() {
            [c] if c.is_ascii_alphabetic() => Ok(*c),
            _ => Err(bad()),
        };
        let (from, to) = (letter(first)?, letter(last)?);
        if from > to {
            return Err(bad());
        }
        (from..=to).step_by(step).map(|c| char::from(c).to_string()).collect()
    };
    let tails = expand(&pattern[close + 1..])?;
    if middles.len().saturating_mul(tails.len()) > MOST {
        return Err(format!("`{pattern}` is more than {MOST} hosts"));
    }
    Ok(middles
        .iter()
        .flat_map(|middle| tails.iter().map(move |tail| format!("{}{middle}{tail}", &pattern[..open])))
        .collect())
}

/// A YAML document as far as an inventory needs it.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    fn map(&self) -> &[(Node, Node)] {
        if let Self::Map(pairs) = self { pairs } else { &[] }
    }

    fn text(&self) -> &str {
        if let Self::Scalar(text) = self { text } else { "" }
    }
}

fn of_yaml(text: &str) -> Result<Inventory, Fault> {
    let root = yaml(text)?;
    let mut all = Inventory::default();
    if !matches!(root, Node::Map(_)) {
        return Err((1, 1, "an inventory is a mapping: `all:` with `hosts:` or `children:` below it".to_owned()));
    }
    for (name, group) in root.map() {
        take_group(&mut all, name.text(), group, 0)?;
    }
    if all.order.len() > MOST {
        return Err((1, 1, format!("more than {MOST} hosts")));
    }
    Ok(all)
}

fn take_group(all: &mut Inventory, name: &str, node: &Node, depth: usize) -> Result<(), Fault> {
    if depth > GROUPS {
        return Err((1, 1, "the groups are nested too deeply".to_owned()));
    }
    all.groups.entry(name.to_owned()).or_default();
    for (key, value) in node.map() {
        match key.text() {
            "hosts" => {
                let hosts: Vec<(&str, &[(Node, Node)])> = match value {
                    Node::Map(pairs) => pairs.iter().map(|(host, vars)| (host.text(), vars.map())).collect(),
                    Node::List(names) => names.iter().map(|host| (host.text(), &[][..])).collect(),
                    Node::Scalar(_) => Vec::new(),
                };
                for (pattern, vars) in hosts {
                    for host in expand(pattern).map_err(|why| (1, 1, why))? {
                        all.host(name, &host);
                        let own = all.vars.entry(host).or_default();
                        own.extend(vars.iter().map(|(key, value)| (key.text().to_owned(), value.text().to_owned())));
                    }
                }
            }
            "vars" => {
                let vars = value.map().iter().map(|(key, value)| (key.text().to_owned(), value.text().to_owned()));
                all.groups.entry(name.to_owned()).or_default().vars.extend(vars);
            }
            "children" => {
                for (child, group) in value.map() {
                    all.groups.entry(name.to_owned()).or_default().children.push(child.text().to_owned());
                    take_group(all, child.text(), group, depth + 1)?;
                }
            }
            other => {
                return Err((1, 1, format!("group {name} has `{other}`: known are hosts, vars and children")));
            }
        }
    }
    Ok(())
}

/// Reads one document, event by event, so that no nesting can exhaust the stack.
fn yaml(text: &str) -> Result<Node, Fault> {
    let mut parser = Parser::new_from_str(text);
    // What is open: the node, and a key that waits for its value.
    let mut open: Vec<(Node, Option<Node>)> = Vec::new();
    loop {
        let (event, mark) = parser
            .next_token()
            .map_err(|error| (error.marker().line(), error.marker().col() + 1, error.info().to_owned()))?;
        let fault = |why: &str| (mark.line(), mark.col() + 1, why.to_owned());
        let done = match event {
            Event::Alias(_) => return Err(fault("aliases are not read: write the value out")),
            Event::Scalar(text, ..) => Node::Scalar(text),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEEP => {
                return Err(fault("it is nested too deeply"));
            }
            Event::SequenceStart(..) => {
                open.push((Node::List(Vec::new()), None));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((Node::Map(Vec::new()), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((node, _)) => node,
                None => return Err(fault("it is not well-formed")),
            },
            Event::StreamEnd | Event::DocumentEnd => return Ok(Node::Scalar(String::new())),
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(done),
            Some((Node::List(list), _)) => list.push(done),
            Some((Node::Map(pairs), key)) => match key.take() {
                Some(key) => pairs.push((key, done)),
                None => *key = Some(done),
            },
            Some((Node::Scalar(_), _)) => return Err(fault("it is not well-formed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(members: &[Member]) -> Vec<String> {
        members
            .iter()
            .map(|member| {
                let address = member.address.map(|address| format!(" at {address}")).unwrap_or_default();
                format!("{} by {}{address}", member.name, member.vantage)
            })
            .collect()
    }

    #[test]
    fn words_name_hosts() {
        let one = |text: &str| member(text).map(|member| shown(&[member]).remove(0));
        assert_eq!(one("web1").as_deref(), Ok("web1 by ssh:web1"));
        assert_eq!(one("netns:a=10.0.0.1").as_deref(), Ok("netns:a by netns:a at 10.0.0.1"));
        assert_eq!(one("ssh:root@h:22").as_deref(), Ok("ssh:root@h:22 by ssh:root@h:22"));
        assert_eq!(one("10.0.0.7").as_deref(), Ok("10.0.0.7 by ssh:10.0.0.7 at 10.0.0.7"));
        assert_eq!(one("local").as_deref(), Ok("local by local"));
        for bad in ["netns:", "web1=x", "-oProxyCommand=x", "h:0", ""] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ansible_ini() {
        let text = "# a comment\nmail.example.com ansible_port=2222\n\n[web]\nweb[01:02].example ansible_user=deploy\n\
            badwolf:5309\n[db]\none ansible_host=10.0.0.5 # here\n[all:vars]\nansible_user=root\n\
            [site:children]\nweb\n[site:vars]\nansible_port=22\n[web:vars]\nansible_port=\"2200\"\n";
        assert_eq!(
            shown(&inventory(text, "hosts").unwrap()),
            [
                "mail.example.com by ssh:root@mail.example.com:2222",
                "web01.example by ssh:deploy@web01.example:2200",
                "web02.example by ssh:deploy@web02.example:2200",
                "badwolf:5309 by ssh:root@badwolf:2200",
                "one by ssh:root@10.0.0.5 at 10.0.0.5",
            ]
        );
        let error = inventory("a\n[x:y]\n", "hosts").unwrap_err();
        assert!(error.to_string().starts_with("hosts:2:1: [x:y]"), "{error}");
        assert!(inventory("a b", "hosts").is_err());
        assert!(inventory("web[3:1]", "hosts").is_err());
        assert!(inventory("web[1:100000]", "hosts").is_err());
    }

    #[test]
    fn ansible_yaml() {
        let text = "all:\n  vars: {ansible_user: root}\n  hosts:\n    mail:\n  children:\n    web:\n      hosts:\n\
            \x20       web[1:2]:\n          ansible_port: 2222\n    db:\n      hosts:\n        one: {ansible_host: 10.0.0.5}\n\
            \x20       here: {ansible_connection: local}\n";
        assert_eq!(
            shown(&inventory(text, "inventory.yml").unwrap()),
            [
                "mail by ssh:root@mail",
                "web1 by ssh:root@web1:2222",
                "web2 by ssh:root@web2:2222",
                "one by ssh:root@10.0.0.5 at 10.0.0.5",
                "here by local",
            ]
        );
        let error = inventory("all:\n  hosts: [a\n", "i.yaml").unwrap_err();
        assert!(error.line >= 2, "{error}");
        assert!(inventory("all:\n  host: {}\n", "i.yaml").unwrap_err().why.contains("known are"));
        assert!(inventory("a: &x [1]\nb: *x\n", "i.yaml").is_err());
        assert!(inventory(&"[".repeat(100_000), "i.yaml").is_err());
        assert!(inventory("- a\n", "i.yaml").is_err());
    }

    #[test]
    fn groups_that_hold_each_other_end() {
        let text = "[a:children]\nb\n[b:children]\na\n[a]\nh\n";
        assert_eq!(inventory(text, "hosts").unwrap().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String, lines in "([a-z0-9\\[\\]:=#{}, \"-]{0,20}\n){0,8}") {
            let _ = member(&text);
            for name in ["hosts", "hosts.yml"] {
                let _ = inventory(&text, name);
                let _ = inventory(&lines, name);
            }
        }
    }
}
