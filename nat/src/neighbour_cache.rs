//! The MAC addresses of guests, for flows that begin outside. They are resolved by ARP (RFC 826) or
//! neighbour discovery (RFC 4861) when they are needed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use trama_frame::{MacAddr, VnetHeader};

use crate::context::Context;
use crate::io::PortMark;
use crate::packet::neighbour::solicitation;

/// Most entries.
const CAPACITY: usize = 1024;
/// How long an entry is valid, and when an unanswered solicitation is repeated.
const LIFETIME: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Reachable { mac: MacAddr, port: PortMark, until: Duration },
    Incomplete { retry: Duration },
}

impl Entry {
    fn expiry(self) -> Duration {
        match self {
            Entry::Reachable { until, .. } => until,
            Entry::Incomplete { retry } => retry,
        }
    }
}

/// The neighbour cache.
#[derive(Default)]
pub(crate) struct NeighbourCache {
    entries: HashMap<IpAddr, Entry>,
}

impl NeighbourCache {
    /// The MAC address and port of a guest. `None`: a solicitation is sent unless one is under way.
    pub(crate) fn resolve(
        &mut self,
        address: IpAddr,
        context: &mut Context<'_>,
    ) -> Option<(MacAddr, PortMark)> {
        match self.entries.get(&address) {
            Some(Entry::Reachable { mac, port, until }) if *until > context.now => {
                return Some((*mac, *port));
            }
            Some(Entry::Incomplete { retry }) if *retry > context.now => return None,
            _ => {}
        }
        if self.entries.len() >= CAPACITY {
            self.entries.retain(|_, entry| entry.expiry() > context.now);
        }
        if self.entries.len() < CAPACITY {
            self.entries.insert(address, Entry::Incomplete { retry: context.now + RETRY });
            if let Some(solicitation) = solicitation(context.config.station, address) {
                // A lost solicitation is repeated.
                let _ = context.send(&VnetHeader::default(), &[&solicitation]);
            }
        }
        None
    }

    /// Learns from an advertisement. Returns whether it answered a solicitation.
    pub(crate) fn learn(
        &mut self,
        port: PortMark,
        (address, mac): (IpAddr, MacAddr),
        context: &Context<'_>,
    ) -> bool {
        let Some(entry @ Entry::Incomplete { .. }) = self.entries.get_mut(&address) else {
            return false;
        };
        if !context.config.station.is_guest(address) {
            return false;
        }
        *entry = Entry::Reachable { mac, port, until: context.now + LIFETIME };
        true
    }
}
