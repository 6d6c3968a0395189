//! The stations of the network's machines, for flows that begin outside: asked for by ARP
//! (RFC 826) or neighbour solicitation (RFC 4861) when they are needed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use trama_frame::{MacAddr, VnetHeader};

use super::classify::is_machine;
use super::context::Context;
use crate::io::PortId;
use crate::packet::neighbour::{answer, question};

/// Addresses remembered at once.
const LIMIT: usize = 1024;
/// How long an answer is good for, and how long one is waited for before it is asked for again.
const LIFETIME: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Known { mac: MacAddr, port: PortId, until: Duration },
    Asked { again: Duration },
}

impl Entry {
    fn until(self) -> Duration {
        match self {
            Entry::Known { until, .. } => until,
            Entry::Asked { again } => again,
        }
    }
}

/// The machines' stations, as far as they are known.
#[derive(Default)]
pub(crate) struct Neighbours {
    entries: HashMap<IpAddr, Entry>,
}

impl Neighbours {
    /// The station of a machine and its port; `None` if it has to be asked first, which is done.
    pub(crate) fn station(
        &mut self,
        address: IpAddr,
        context: &mut Context<'_>,
    ) -> Option<(MacAddr, PortId)> {
        match self.entries.get(&address) {
            Some(Entry::Known { mac, port, until }) if *until > context.now => {
                return Some((*mac, *port));
            }
            Some(Entry::Asked { again }) if *again > context.now => return None,
            _ => {}
        }
        if self.entries.len() >= LIMIT {
            self.entries.retain(|_, entry| entry.until() > context.now);
        }
        if self.entries.len() < LIMIT {
            self.entries.insert(address, Entry::Asked { again: context.now + PATIENCE });
            if let Some(question) = question(context.config, address) {
                // One that is lost is asked again.
                let _ = context.send(&VnetHeader::default(), &[&question]);
            }
        }
        None
    }

    /// Takes a frame that may be an answer. True: it was.
    pub(crate) fn hear(&mut self, port: PortId, bytes: &[u8], context: &Context<'_>) -> bool {
        let Some((address, mac)) = answer(bytes) else { return false };
        let Some(entry @ Entry::Asked { .. }) = self.entries.get_mut(&address) else {
            return false;
        };
        if !is_machine(context.config, address) {
            return false;
        }
        *entry = Entry::Known { mac, port, until: context.now + LIFETIME };
        true
    }
}
