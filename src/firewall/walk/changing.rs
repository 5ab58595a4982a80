//! Sets that rules change: SET, and elements that expire.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::firewall::ruleset::{Element, ElementPart, Net, PortRange, Set, Side, Target};
use crate::firewall::state::{Key, SetChange, Value};

use super::flow::Run;
use super::live::IfaceName;

/// A set of the dump, and what has become of it.
pub(super) struct SetNow<'a> {
    pub(super) set: &'a Set,
    change: Option<Arc<SetChange>>,
    now: Duration,
    /// How long ago the set was as the dump has it.
    age: Duration,
}

impl SetNow<'_> {
    /// Whether an element of the dump is still there.
    pub(super) fn keeps(&self, element: &Element) -> bool {
        let lives = element.timeout.is_none_or(|t| t == 0 || self.age < Duration::from_secs(u64::from(t)));
        (lives || self.age.is_zero())
            && self.change.as_ref().is_none_or(|change| !change.removed.contains(&element.parts))
    }

    /// Elements that rules have added.
    pub(super) fn added(&self) -> impl Iterator<Item = &Element> {
        let added = self.change.iter().flat_map(|change| &change.added);
        added.filter(|(_, until)| until.is_none_or(|until| self.now < until)).map(|(element, _)| element)
    }

    /// All elements there are now.
    fn elements(&self) -> impl Iterator<Item = &Element> {
        self.set.elements.iter().filter(|element| self.keeps(element)).chain(self.added())
    }
}

impl<'a> Run<'a> {
    /// A set as it is now.
    pub(super) fn set_now(&self, name: &str) -> Option<SetNow<'a>> {
        let set = self.stack.set(name)?;
        let Some(session) = &self.session else {
            return Some(SetNow { set, change: None, now: Duration::ZERO, age: Duration::ZERO });
        };
        let change = match session.get(&Key::Set(name.to_owned())) {
            Some(Value::Set(change)) => Some(Arc::clone(change)),
            _ => None,
        };
        Some(SetNow { set, change, now: session.now(), age: session.age() })
    }

    /// Does what a SET target says, where there is a history; false where it is another target.
    pub(super) fn changes_set(&mut self, target: &Target) -> bool {
        let plain =
            matches!(target, Target::Accept | Target::Drop | Target::Return | Target::Jump(_) | Target::Goto(_));
        if plain || self.session.is_none() {
            return false;
        }
        let text = target.to_string();
        let mut words = text.split_ascii_whitespace().peekable();
        if words.peek() == Some(&"-j") {
            words.next();
        }
        if words.next() != Some("SET") {
            return false;
        }
        let words: Vec<&str> = words.collect();
        let after = |option: &str, n: usize| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + n).map(|word| word.trim_matches('"'))
        };
        let timeout = after("--timeout", 1).and_then(|t| t.parse().ok()).map(Duration::from_secs);
        let exist = words.contains(&"--exist");
        for (option, add) in [("--del-set", false), ("--add-set", true)] {
            if let (Some(name), Some(sides)) = (after(option, 1), after(option, 2)) {
                let sides = sides.split(',').map(|s| if s == "src" { Side::Source } else { Side::Destination });
                self.change_set(name, &sides.collect::<Vec<_>>(), add, exist, timeout);
            }
        }
        true
    }

    fn change_set(&mut self, name: &str, sides: &[Side], add: bool, exist: bool, timeout: Option<Duration>) {
        let Some(set) = self.set_now(name) else {
            self.live.assume(format!("set {name} is not given"));
            return;
        };
        let Some(parts) = self.element_of(&set, sides) else {
            self.live.assume(format!("what the rule does to set {name} is not modelled"));
            return;
        };
        let there = set.elements().any(|e| e.parts == parts);
        let Some(session) = &mut self.session else { return };
        let key = Key::Set(name.to_owned());
        let mut change = match session.get(&key) {
            Some(Value::Set(change)) => SetChange::clone(change),
            _ => SetChange::default(),
        };
        if add && there && !exist {
            return;
        }
        change.added.retain(|(e, _)| e.parts != parts);
        // One that the dump has is taken over, so that its time starts anew.
        if there && !change.removed.contains(&parts) {
            change.removed.push(parts.clone());
        }
        if add {
            let until = timeout.filter(|t| !t.is_zero()).map(|t| session.now().saturating_add(t));
            change.added.push((Element { parts, nomatch: false, timeout: None }, until));
        }
        session.put(key, Value::Set(Arc::new(change)));
    }

    /// The packet as an element of a set of this type (`ip_set_*.c`, `kadt`).
    fn element_of(&mut self, now: &SetNow<'_>, sides: &[Side]) -> Option<Vec<ElementPart>> {
        let set = now.set;
        let (_, kinds) = set.kind.split_once(':')?;
        let mut parts = Vec::new();
        for (index, kind) in kinds.split(',').enumerate() {
            let source = *sides.get(index)? == Side::Source;
            let addr: IpAddr = if source { self.live.packet.src } else { self.live.packet.dst };
            parts.push(match kind {
                "ip" => ElementPart::Net(Net::host(addr)),
                "net" => {
                    // The longest prefix that the set has.
                    let lengths = now.elements().filter_map(|e| match e.parts.get(index) {
                        Some(ElementPart::Net(net)) => net.prefix_len(),
                        _ => None,
                    });
                    let host = if addr.is_ipv6() { 128 } else { 32 };
                    ElementPart::Net(Net::prefix(addr, lengths.max().unwrap_or(host))?)
                }
                "port" => {
                    let proto = self.live.proto;
                    let port = match proto {
                        6 | 17 | 132 | 136 if source => self.live.sport(),
                        6 | 17 | 132 | 136 => self.live.packet.dport?,
                        1 | 58 => {
                            let (kind, code) = self.live.icmp();
                            u16::from(kind) << 8 | u16::from(code)
                        }
                        _ => 0,
                    };
                    let proto = if set.kind == "bitmap:port" { None } else { Some(proto) };
                    ElementPart::Port { proto, range: PortRange::one(port) }
                }
                "iface" => match if source { self.live.in_iface() } else { self.live.out_iface() } {
                    IfaceName::Known(name) => ElementPart::Iface(name),
                    IfaceName::NotLoopback => return None,
                },
                "mac" => ElementPart::Mac(self.live.packet.mac_src?),
                "mark" => ElementPart::Mark(self.live.mark),
                _ => return None,
            });
        }
        Some(parts)
    }
}
