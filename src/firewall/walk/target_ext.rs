//! What the rarer targets do.

use crate::firewall::ruleset::{TargetExt, TcpFlags};

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
    pub(super) fn target_ext(&mut self, place: Place, ext: &TargetExt) -> Done {
        let live = &mut self.live;
        match ext {
            // net/ipv4/netfilter/ipt_ECN.c
            TargetExt::EcnRemove => {
                if live.proto == 6 && !live.is_later_fragment() && live.packet.tcp_flags.is_some() {
                    let flags = live.tcp_flags().0 & !(TcpFlags::ECE.0 | TcpFlags::CWR.0);
                    live.packet.tcp_flags = Some(TcpFlags(flags));
                }
                Done::Goes
            }
            // net/netfilter/xt_TCPOPTSTRIP.c: fragments are left alone.
            TargetExt::Tcpoptstrip(strip) => {
                let whole = !live.is_later_fragment();
                if let Some(options) = live.packet.tcp_options.as_mut().filter(|_| whole) {
                    options.retain(|option| !strip.contains(option));
                }
                Done::Goes
            }
            // net/netfilter/xt_TPROXY.c: without a socket the packet is dropped.
            TargetExt::Tproxy(t) => {
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
