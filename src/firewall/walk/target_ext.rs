//! What the rarer targets do.

use crate::firewall::packet::Packet;
use crate::firewall::ruleset::{TargetExt, TcpFlags, Tproxy};
use crate::host::fib::{Flow, explain_flow};

use super::flow::Run;
use super::place::Place;

/// How the walk goes on after one of them.
pub(super) enum Done {
    /// To the next rule.
    Goes,
    /// The packet passes the base chain.
    Passes,
    /// It is dropped, and why.
    Dropped(String),
}

impl Run<'_> {
    /// `net/netfilter/xt_TCPMSS.c`; `None` for what the path takes.
    pub(super) fn tcpmss(&mut self, size: Option<u16>) -> Done {
        if self.live.proto != 6 || self.live.is_later_fragment() {
            return Done::Goes;
        }
        let header = self.live.tcp_header().filter(|header| *header >= 20);
        let needs = u32::try_from(header.unwrap_or(20)).unwrap_or(20);
        if !self.live.has_octets(needs) || self.live.wire.is_some() && header.is_none() {
            return Done::Dropped("TCPMSS drops a segment whose header is cut short".to_owned());
        }
        let Some(new) = size.or_else(|| self.path_mss()) else {
            if self.live.packet.mss.take().is_some() || self.live.packet.tcp_options.is_none() {
                self.live.assume("the segment size becomes what the path takes, which is not known");
            }
            return Done::Goes;
        };
        let live = &mut self.live;
        let offered = live.packet.tcp_options.as_ref().map(|options| options.contains(&2));
        match (offered, live.packet.mss) {
            // Never increased.
            (_, Some(old)) => live.packet.mss = Some(old.min(new)),
            (Some(false), None) => {
                if live.packet.length.is_none() && live.packet.payload.is_none() {
                    // A fresh segment of a handshake carries no data.
                    live.length();
                }
                let whole = live.after_network().and_then(|n| usize::try_from(n).ok());
                let bare = live.packet.length.is_none() && live.packet.payload.is_none();
                if header.is_some_and(|header| header < 60) && (bare || whole == header) {
                    // RFC 1122 and RFC 8200 say what a segment without the option means.
                    live.packet.mss = Some(new.min(if live.v6 { 1220 } else { 536 }));
                    live.packet.tcp_options.get_or_insert_default().insert(0, 2);
                    live.packet.length = live.packet.length.map(|length| length + 4);
                }
            }
            (Some(true), None) => live.assume(format!("the segment size that it offers becomes {new} at most")),
            (None, None) => (),
        }
        Done::Goes
    }

    /// Whether surely no socket of this host takes the packet: none has its ends, none waits on the port.
    fn no_socket_for(&self, t: &Tproxy) -> bool {
        let Some(sockets) = self.facts.host.and_then(|host| host.sockets.as_deref()) else { return false };
        let packet = &self.live.packet;
        let ports = [Some(t.port).filter(|port| *port != 0), packet.dport];
        !sockets.iter().any(|socket| ports.contains(&Some(socket.local_port)))
    }

    /// The segment size that fits the links both ways.
    fn path_mss(&self) -> Option<u16> {
        let host = self.facts.host?;
        let mtu = |name: &str| host.links.iter().flatten().find(|link| link.name == name).map(|link| link.mtu);
        let out = mtu(self.live.packet.out.as_deref()?)?;
        let back = explain_flow(host, &Flow::to(self.live.packet.src)).route;
        let back = back.and_then(|route| mtu(route.interface.as_deref()?)).unwrap_or(u32::MAX);
        let headers = if self.live.v6 { 60 } else { 40 };
        u16::try_from(out.min(back).checked_sub(headers)?).ok()
    }

    pub(super) fn target_ext(&mut self, place: Place, ext: &TargetExt) -> Done {
        let live = &mut self.live;
        match ext {
            // net/ipv4/netfilter/ipt_ECN.c
            TargetExt::EcnRemove => {
                if live.proto == 6 && !live.is_later_fragment() && !live.has_octets(20) {
                    return Done::Dropped("ECN drops a segment whose header is cut short".to_owned());
                }
                if live.proto == 6 && !live.is_later_fragment() && live.packet.tcp_flags.is_some() {
                    let flags = live.tcp_flags().0 & !(TcpFlags::ECE.0 | TcpFlags::CWR.0);
                    live.packet.tcp_flags = Some(TcpFlags(flags));
                }
                Done::Goes
            }
            // net/netfilter/xt_TCPOPTSTRIP.c: fragments are left alone.
            TargetExt::Tcpoptstrip(strip) => {
                let whole = !live.is_later_fragment();
                let header = live.tcp_header().unwrap_or(20);
                if whole && (header < 20 || !live.has_octets(u32::try_from(header).unwrap_or(20))) {
                    return Done::Dropped("TCPOPTSTRIP drops a segment whose header is cut short".to_owned());
                }
                if whole && strip.contains(&2) {
                    live.packet.mss = None;
                    // An option that TCPMSS has added leaves its place filled.
                    let added = |octets: &Vec<u8>| Packet::from_octets(octets).is_some_and(|own| own.mss.is_none());
                    if live.wire.as_ref().is_some_and(|(octets, _)| added(octets)) {
                        let options = live.packet.tcp_options.iter_mut().flatten();
                        options.filter(|option| **option == 2).for_each(|option| *option = 1);
                    }
                }
                if let Some(options) = live.packet.tcp_options.as_mut().filter(|_| whole) {
                    options.retain(|option| !strip.contains(option));
                }
                Done::Goes
            }
            // net/netfilter/xt_TPROXY.c: without a socket the packet is dropped.
            TargetExt::Tproxy(t) => {
                if !matches!(live.proto, 6 | 17) {
                    return Done::Dropped("TPROXY drops what is neither TCP nor UDP".to_owned());
                }
                if self.no_socket_for(t) {
                    return Done::Dropped("no socket takes it from TPROXY".to_owned());
                }
                let told = self.stack.told(place).place();
                let what = format!("{told}: a socket listens for it on port {}", t.port);
                if self.choose(format!("tproxy {} {} {told}", t.addr, t.port), what) {
                    self.live.mark = (self.live.mark & !t.mask) ^ t.value;
                    Done::Passes
                } else {
                    Done::Dropped("no socket takes it from TPROXY".to_owned())
                }
            }
            // net/ipv4/netfilter/ipt_SYNPROXY.c: what it answers goes no further.
            TargetExt::Synproxy(_) => {
                if live.proto != 6 || live.is_later_fragment() {
                    return Done::Goes;
                }
                let flags = live.tcp_flags().0 & 0x17;
                match flags {
                    0x02 => Done::Dropped("SYNPROXY answers the handshake itself".to_owned()),
                    0x10 => Done::Dropped("SYNPROXY takes it for the end of a handshake".to_owned()),
                    _ => Done::Goes,
                }
            }
            TargetExt::Set(_) => Done::Goes,
            TargetExt::Hmark(_) => {
                live.mark_open = Some("HMARK made the packet's mark a hash, which is not computed".to_owned());
                Done::Goes
            }
        }
    }
}
