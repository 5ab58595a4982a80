//! `--explain`: the exchange taught field by field.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};

use super::super::style::{Paint, Style};
use super::super::text::hang;
use crate::arp::frame::{self, Reach, Speaker};
use crate::wire::{Arp, ArpOperation, EtherHeader, MacAddr, ethertype, solicited_node};

fn heading(out: &mut dyn Write, text: &str, style: Style) -> io::Result<()> {
    writeln!(out, "{}", style.paint(Paint::Bold, text))
}

fn say(out: &mut dyn Write, text: &str, style: Style) -> io::Result<()> {
    write!(out, "{}", hang("  ", text, style.width))
}

/// A field: where it is, its octets, what it is called, what it means.
struct Field {
    at: usize,
    len: usize,
    name: &'static str,
    means: &'static str,
}

const ETHERNET: &[Field] = &[
    Field { at: 0, len: 6, name: "to", means: "" },
    Field { at: 6, len: 6, name: "from", means: "this host's own hardware address" },
    Field { at: 12, len: 2, name: "type", means: "" },
];

/// RFC 826, "Packet format".
const ARP: &[Field] = &[
    Field { at: 14, len: 2, name: "hardware type", means: "1: Ethernet" },
    Field { at: 16, len: 2, name: "protocol type", means: "0x0800: IPv4" },
    Field { at: 18, len: 1, name: "hardware length", means: "6 octets" },
    Field { at: 19, len: 1, name: "protocol length", means: "4 octets" },
    Field { at: 20, len: 2, name: "operation", means: "" },
    Field { at: 22, len: 6, name: "sender hardware", means: "" },
    Field { at: 28, len: 4, name: "sender protocol", means: "" },
    Field { at: 32, len: 6, name: "target hardware", means: "" },
    Field { at: 38, len: 4, name: "target protocol", means: "" },
];

/// RFC 8200 §3, RFC 4861 §4.3 and §4.4; the fields that matter.
const NDP: &[Field] = &[
    Field { at: 20, len: 1, name: "next header", means: "58: ICMPv6" },
    Field { at: 21, len: 1, name: "hop limit", means: "255: no router has passed it on, so it is from this link" },
    Field { at: 22, len: 16, name: "source", means: "" },
    Field { at: 38, len: 16, name: "destination", means: "" },
    Field { at: 54, len: 1, name: "type", means: "" },
    Field { at: 56, len: 2, name: "checksum", means: "over the message and the addresses" },
    Field { at: 58, len: 4, name: "flags", means: "" },
    Field { at: 62, len: 16, name: "target", means: "" },
    Field { at: 78, len: 8, name: "option", means: "" },
];

fn fields(
    out: &mut dyn Write,
    frame: &[u8],
    all: &[Field],
    means: &dyn Fn(&str) -> Option<String>,
    style: Style,
) -> io::Result<()> {
    for field in all {
        let Some(octets) = frame.get(field.at..field.at + field.len) else { continue };
        let hex: String = match field.len {
            16 => octets.chunks(2).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1])).collect::<Vec<_>>().join(":"),
            _ => octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" "),
        };
        let meaning = means(field.name).unwrap_or_else(|| field.means.to_owned());
        if hex.len() > 23 {
            writeln!(out, "  {:15}  {hex}", field.name)?;
            write!(out, "{}", hang(&" ".repeat(19), &meaning, style.width))?;
        } else {
            write!(out, "{}", hang(&format!("  {:15}  {hex:23}  ", field.name), &meaning, style.width))?;
        }
    }
    Ok(())
}

/// Teaches one exchange with the very octets that were sent and heard.
///
/// # Errors
/// Those of `out`.
pub fn lookup(
    out: &mut dyn Write,
    target: IpAddr,
    request: &[u8],
    reply: Option<&[u8]>,
    style: Style,
) -> io::Result<()> {
    heading(out, "Why ask at all", style)?;
    say(
        out,
        "A switch carries frames by hardware address (MAC), not by IP address. To send to a neighbour, a host must know which MAC has its IP address, so it asks the link.",
        style,
    )?;
    match target {
        IpAddr::V4(_) => v4(out, target, request, reply, style)?,
        IpAddr::V6(v6) => {
            heading(out, "Why a group and not all", style)?;
            say(
                out,
                &format!(
                    "IPv6 has no broadcast. Every host joins a group made of the last 24 bits of its address, here {}, so only those whose address ends alike are woken. The switch carries it to the Ethernet group 33:33:ff:…, flooded like a broadcast where it does not know who joined.",
                    solicited_node(v6)
                ),
                style,
            )?;
            heading(out, "The request: neighbour solicitation (RFC 4861)", style)?;
            fields(out, request, ETHERNET, &|name| ndp_ethernet(name, true), style)?;
            fields(out, request, NDP, &|name| ndp(name, true), style)?;
            if let Some(reply) = reply {
                heading(out, "The reply: neighbour advertisement", style)?;
                fields(out, reply, ETHERNET, &|name| ndp_ethernet(name, false), style)?;
                fields(out, reply, NDP, &|name| ndp(name, false), style)?;
            }
        }
    }
    heading(out, "What becomes of it", style)?;
    say(
        out,
        "The kernel keeps what it learns in its neighbour table (`reachwhy arp table`): reachable for about 30 s, then stale; a stale entry is used at once and checked by a unicast request (delay, probe); without an answer it becomes failed.",
        style,
    )?;
    say(out, "reachwhy asked by itself here, beside the kernel, so this host's own table did not change.", style)?;
    heading(out, "If the target were in another network", style)?;
    say(
        out,
        "A router does not pass ARP on: it ends at the edge of the link. The host would look into its routes, find the gateway, ask for the gateway's MAC instead, and put that into the frame; the IP packet inside keeps the final address. Each router on the way does the same again: the IP addresses stay, the MACs change at every hop. A switch changes neither: it only looks at the MACs.",
        style,
    )?;
    writeln!(out)
}

fn v4(out: &mut dyn Write, target: IpAddr, request: &[u8], reply: Option<&[u8]>, style: Style) -> io::Result<()> {
    heading(out, "Why to all (broadcast)", style)?;
    say(
        out,
        &format!(
            "Who has {target} is just what is not known, so the frame goes to ff:ff:ff:ff:ff:ff: the switch copies it to every port of the VLAN, every host reads it, and only the owner answers, straight to the one who asked."
        ),
        style,
    )?;
    heading(out, "The request: 14 octets of Ethernet, 28 of ARP (RFC 826), padded to 60", style)?;
    let nobody = request.get(28..32) == Some(&[0; 4]);
    fields(out, request, ETHERNET, &|name| ethernet(name, true), style)?;
    fields(out, request, ARP, &|name| arp(name, true, nobody), style)?;
    if let Some(reply) = reply {
        heading(out, "The reply: to us alone (unicast)", style)?;
        fields(out, reply, ETHERNET, &|name| ethernet(name, false), style)?;
        fields(out, reply, ARP, &|name| arp(name, false, nobody), style)?;
        let named = reply.get(22..28);
        if named.is_some() && named != reply.get(6..12) {
            say(
                out,
                "The frame's source and the sender hardware address differ: something answers for another.",
                style,
            )?;
        }
    }
    Ok(())
}

fn ethernet(name: &str, request: bool) -> Option<String> {
    Some(
        match (name, request) {
            ("to", true) => "broadcast: every station",
            ("to", false) => "this host, and no one else",
            ("from", false) => "who sent the frame",
            ("type", _) => "0x0806: ARP, a protocol of its own beside IP",
            _ => return None,
        }
        .to_owned(),
    )
}

fn arp(name: &str, request: bool, nobody: bool) -> Option<String> {
    Some(
        match (name, request) {
            ("operation", true) => "1: request, \"who has the target address?\"",
            ("operation", false) => "2: reply, \"the sender has it\"",
            ("sender hardware", true) => "who asks, so that the answer finds back",
            ("sender hardware", false) => "the answer: this is the MAC",
            ("sender protocol", true) if nobody => "0.0.0.0: nobody asks, so no cache learns from it (RFC 5227)",
            ("sender protocol", true) => "the asker's IP: the one who answers learns it on the way",
            ("sender protocol", false) => "the IP address that was asked for",
            ("target hardware", true) => "zero: this is what is asked",
            ("target hardware", false) => "this host",
            ("target protocol", true) => "the address that is asked for",
            ("target protocol", false) => "the address that asked",
            _ => return None,
        }
        .to_owned(),
    )
}

fn ndp_ethernet(name: &str, request: bool) -> Option<String> {
    Some(
        match (name, request) {
            ("to", true) => "33:33 and the last four octets of the group: an Ethernet multicast",
            ("to", false) => "this host (to all nodes, 33:33:00:00:00:01, where nobody asked)",
            ("from", false) => "who sent the frame",
            ("type", _) => "0x86dd: IPv6; neighbour discovery is part of ICMPv6, no protocol of its own",
            _ => return None,
        }
        .to_owned(),
    )
}

fn ndp(name: &str, request: bool) -> Option<String> {
    Some(
        match (name, request) {
            ("source", true) => "who asks; :: in a probe for a free address",
            ("source", false) => "who answers",
            ("destination", true) => "the solicited-node group of the target",
            ("destination", false) => "the asker",
            ("type", true) => "135: neighbour solicitation",
            ("type", false) => "136: neighbour advertisement",
            ("flags", true) => "reserved",
            ("flags", false) => "R 0x80 a router, S 0x40 solicited, O 0x20 replace what is known",
            ("target", true) => "the address that is asked for",
            ("target", false) => "the address that the answer is about",
            ("option", true) => "1: source link-layer address, in units of 8 octets, and the asker's MAC",
            ("option", false) => "2: target link-layer address, and the MAC that was asked for",
            _ => return None,
        }
        .to_owned(),
    )
}

/// What a lesson is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Request and reply.
    Exchange,
    /// The kernel's table.
    Table,
    /// A sweep.
    Scan,
    /// Listening.
    Watch,
}

/// Teaches without asking anyone: the exchange by an example, or what a command does.
///
/// # Errors
/// Those of `out`.
pub fn lesson(out: &mut dyn Write, topic: Topic, style: Style) -> io::Result<()> {
    match topic {
        Topic::Exchange => {
            let (asker, owner) = (MacAddr([2, 0, 192, 168, 1, 2]), MacAddr([2, 0, 192, 168, 1, 3]));
            let (source, target) = (Ipv4Addr::new(192, 168, 1, 2), Ipv4Addr::new(192, 168, 1, 3));
            say(
                out,
                &format!(
                    "An example, nothing is sent: {source} ({asker}) asks for {target}. With your own: reachwhy arp lookup IP --explain"
                ),
                style,
            )?;
            let speaker = Speaker { mac: asker, ip: Some(source.into()) };
            let request = frame::request(speaker, target.into(), Reach::All);
            let reply = Arp {
                operation: ArpOperation::Reply,
                sender_mac: owner,
                sender_ip: target,
                target_mac: asker,
                target_ip: source,
            };
            let reply = [
                EtherHeader { dst: asker, src: owner, vlans: Vec::new(), ethertype: ethertype::ARP }.emit(),
                reply.emit(),
            ]
            .concat();
            lookup(out, target.into(), &request, Some(&reply), style)
        }
        Topic::Table => {
            heading(out, "The states of a neighbour", style)?;
            for (state, means) in [
                ("incomplete", "asked for, no answer yet: packets wait"),
                ("reachable", "answered within about 30 s (base_reachable_time)"),
                ("stale", "answered once; used as it is, checked when used: this is normal"),
                ("delay", "used while stale: 5 s to see whether the other end answers by itself"),
                ("probe", "being asked by unicast, three times, a second apart"),
                ("failed", "did not answer: packets for it are refused with \"host unreachable\""),
                ("permanent", "set by hand: never asked for, never checked"),
            ] {
                write!(out, "{}", hang(&format!("  {state:10}  "), means, style.width))?;
            }
            writeln!(out)
        }
        Topic::Scan => {
            heading(out, "How a scan works", style)?;
            say(
                out,
                "Every address is asked for by broadcast (IPv6: its solicited-node group), at a steady rate; whoever has it must answer, firewall or not, or it could not be spoken to at all. In the second round some who answered are asked again: how many stay silent is the link's loss, and from that follows how many rounds it takes until nobody is likely to have been missed.",
                style,
            )?;
            say(
                out,
                "The requests are sent beside the kernel, so its neighbour table (1,024 entries by default) does not fill. Nothing is asked for but the addresses named; who answers oddly is handed an echo request with TTL 1 for the same address: the owner answers it, a router that only answers for another reports it expired.",
                style,
            )?;
            writeln!(out)
        }
        Topic::Watch => {
            heading(out, "What a watch hears", style)?;
            say(
                out,
                "ARP requests go to all, so everyone on the link hears who asks, and with which address and MAC. Replies go to the asker alone: through a switch only those to this host are heard. What is heard is believed by every cache on the link, without proof: that is what a forger uses, and why a change is told with its evidence.",
                style,
            )?;
            writeln!(out)
        }
    }
}

/// Teaches what happens to a packet for another network.
///
/// # Errors
/// Those of `out`.
pub fn behind(out: &mut dyn Write, target: IpAddr, gateway: IpAddr, interface: &str, style: Style) -> io::Result<()> {
    writeln!(out)?;
    heading(out, "Why the gateway's MAC", style)?;
    say(
        out,
        &format!(
            "ARP and NDP reach as far as the link. {target} is in none of the networks of {interface}, so this host does not ask for it: its route says {gateway}, and that address is asked for."
        ),
        style,
    )?;
    heading(out, "What the frame looks like", style)?;
    writeln!(out, "  Ethernet  to the MAC of {gateway}, from the MAC of {interface}")?;
    writeln!(out, "  IP        to {target}, from this host: unchanged to the end")?;
    heading(out, "Router against switch", style)?;
    say(
        out,
        "The switch between looks at the Ethernet header alone and changes nothing. The router is the frame's addressee: it takes the IP packet out, lowers the TTL by one, looks up its own route, asks for the MAC of the next hop on that link, and sends the packet on in a new frame. So the MACs change at every hop, and the last router is the one that asks for the target itself.",
        style,
    )
}

/// Teaches duplicate detection.
///
/// # Errors
/// Those of `out`.
pub fn dad(out: &mut dyn Write, target: IpAddr, style: Style) -> io::Result<()> {
    heading(out, "Duplicate address detection", style)?;
    let text = if target.is_ipv4() {
        "A host that wants an address asks for it as nobody: the sender address is 0.0.0.0, so that no cache learns a wrong pair while the address may be another's. After a random wait of up to 1 s it sends three probes, 1 to 2 s apart, and listens 2 s more (RFC 5227). Whoever answers, speaks with the address, or probes for it too, stops it."
    } else {
        "A host that wants an address solicits it from :: (nobody). After a random wait of up to 1 s it sends one probe and listens 1 s (RFC 4862). An advertisement, or another's probe for the same address, stops it."
    };
    say(out, text, style)?;
    writeln!(out)
}
