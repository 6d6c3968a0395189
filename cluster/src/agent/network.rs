//! A network with ports on this host: what the agent knows of it, and what it wants in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use trama_frame::vxlan::Vni;

use super::Agent;
use super::feed::Feed;
use super::io::{Outcome, Step};
use crate::key::{Key, Scope, StationKey};
use crate::replica::{Change, Replica};
use crate::row::{self, Block, Net};
use crate::store::Entry;
use crate::{Name, Refusal, Time};

/// A station that a port of this host has.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) port: Name,
    /// The sequence number of the claim; `None` until the rows of the network are read.
    pub(super) seq: Option<u32>,
    pub(super) sticky: bool,
    /// Whether the row in the store says this, with the port.
    pub(super) is_published: bool,
}

#[derive(Default, Debug)]
pub(super) struct Network {
    /// Ports of this host; without any, the network is left.
    pub(super) ports: BTreeSet<Name>,
    pub(super) net: Option<Net>,
    /// The rows, since the VNI is known.
    pub(super) replica: Option<Replica>,
    pub(super) local: BTreeMap<StationKey, Local>,
    /// Stations that a port had, and whose rows of this host go.
    pub(super) withdrawn: BTreeSet<StationKey>,
    /// Addresses of own blocks that are in use.
    used: u32,
    own_blocks: BTreeSet<Ipv4Addr>,
    /// Blocks to claim.
    pub(super) blocks: BTreeSet<Ipv4Addr>,
}

impl Network {
    pub(super) fn vni(&self) -> Option<Vni> {
        self.net.as_ref().map(|net| net.vni)
    }

    /// Whether the store has rows of this host that go with its last port.
    fn has_rows(&self, host: &Name) -> bool {
        self.replica.as_ref().is_some_and(|replica| {
            replica.member(host).is_some() || replica.stations_at(host).next().is_some()
        })
    }

    /// Chooses a block to claim, if the own ones are almost used up.
    fn choose_block(&mut self, host: &Name) {
        let (Some(net), Some(replica)) = (&self.net, &self.replica) else { return };
        let size = self.own_blocks.len() as u32 * Block::LEN;
        let is_enough = size > 0 && size.saturating_sub(self.used) * 4 >= size;
        let Some(subnet) = net.subnet.filter(|_| !self.ports.is_empty() && !is_enough) else {
            return;
        };
        if !self.blocks.is_empty() {
            return;
        }
        // Hosts begin at different places, so that they seldom try for one block.
        let count = (1_u64 << (32 - subnet.prefix_len())).div_ceil(Block::LEN.into());
        let begin = u64::from(crc32fast::hash(host.as_str().as_bytes())) % count;
        let is_free = |first: &Ipv4Addr| replica.block(*first).is_none();
        let begin = begin as usize;
        self.blocks.extend(net.blocks().skip(begin).chain(net.blocks().take(begin)).find(is_free));
    }
}

fn is_known(feeds: &BTreeMap<Scope, Feed>, vni: Vni) -> bool {
    feeds.get(&Scope::Network(vni)).is_some_and(|feed| feed.known.is_some())
}

impl Agent {
    pub(super) fn replica_mut(&mut self, vni: Vni) -> Option<&mut Replica> {
        self.networks.get_mut(self.by_vni.get(&vni)?)?.replica.as_mut()
    }

    /// Whether the rows of a network have been read, now or by an earlier agent.
    pub(super) fn knows(&self, vni: Vni) -> bool {
        is_known(&self.feeds, vni)
    }

    /// Adds a port of this host.
    pub(super) fn enter(&mut self, now: Time, name: &Name, port: Name, out: &mut Outcome) {
        let network = self.networks.entry(name.clone()).or_default();
        network.ports.insert(port);
        if let Some(vni) = network.vni() {
            self.touch(Key::Member(vni, self.config.host.clone()));
            self.want_blocks(name);
        }
        self.follow(now, Scope::Net(name.clone()), out);
    }

    /// Removes a port of this host.
    pub(super) fn leave(&mut self, name: &Name, port: &Name, out: &mut Outcome) {
        let Some(network) = self.networks.get_mut(name) else { return };
        network.ports.remove(port);
        if let Some(vni) = network.vni() {
            self.touch(Key::Member(vni, self.config.host.clone()));
        }
        self.forget(name, out);
    }

    /// Forgets a network without ports and without rows of this host.
    fn forget(&mut self, name: &Name, out: &mut Outcome) {
        let Some(network) = self.networks.get(name) else { return };
        if !network.ports.is_empty() || network.has_rows(&self.config.host) {
            return;
        }
        self.close(name, out);
        self.networks.remove(name);
        self.unfollow(Scope::Net(name.clone()), out);
    }

    /// Ends the tunnels of a network, whose VNI is no longer known or wanted.
    fn close(&mut self, name: &Name, out: &mut Outcome) {
        let Some(network) = self.networks.get_mut(name) else { return };
        let Some(vni) = network.vni() else { return };
        network.net = None;
        let peers = network.replica.take();
        let peers = peers.iter().flat_map(Replica::members).map(|(host, _)| host);
        for host in peers.filter(|host| **host != self.config.host) {
            let (network, host) = (name.clone(), host.clone());
            out.steps.push(Step::Peer { network, host, member: None });
        }
        self.by_vni.remove(&vni);
        self.unfollow(Scope::Network(vni), out);
    }

    pub(super) fn take_net(&mut self, now: Time, name: &Name, entry: &Entry, out: &mut Outcome) {
        let net = match entry.value.as_deref().map(row::parse::<Net>).transpose() {
            Ok(net) => net,
            Err(refusal) => return out.refused.push((entry.key.clone(), refusal)),
        };
        let Some(network) = self.networks.get(name) else { return };
        if network.vni() != net.as_ref().map(|net| net.vni) {
            self.close(name, out);
        }
        let Some(net) = net else { return };
        let vni = net.vni;
        if self.by_vni.get(&vni).is_some_and(|other| other != name) {
            return out.refused.push((entry.key.clone(), Refusal::Value));
        }
        let Some(network) = self.networks.get_mut(name) else { return };
        network.net = Some(net);
        network.replica.get_or_insert_with(|| Replica::new(vni));
        self.by_vni.insert(vni, name.clone());
        self.follow(now, Scope::Network(vni), out);
        self.compare_network(name);
        self.want_blocks(name);
    }

    pub(super) fn take_row(&mut self, now: Time, vni: Vni, entry: &Entry, out: &mut Outcome) {
        let mut changes = Vec::new();
        let Some(replica) = self.replica_mut(vni) else { return };
        if let Err(refusal) = replica.take(entry, &mut changes) {
            out.refused.push((entry.key.clone(), refusal));
        }
        self.apply(now, vni, changes, out);
    }

    pub(super) fn network_is_read(&mut self, now: Time, vni: Vni, out: &mut Outcome) {
        let mut changes = Vec::new();
        let Some(replica) = self.replica_mut(vni) else { return };
        replica.sweep(&mut changes);
        self.apply(now, vni, changes, out);
        let Some(name) = self.by_vni.get(&vni).cloned() else { return };
        self.fix_claims(&name);
        self.compare_network(&name);
        self.want_blocks(&name);
        self.forget(&name, out);
    }

    fn apply(&mut self, now: Time, vni: Vni, changes: Vec<Change>, out: &mut Outcome) {
        for change in changes {
            let Some(name) = self.by_vni.get(&vni).cloned() else { return };
            match change {
                Change::Station(station, host) => {
                    self.station_changed(now, &name, station, host, out);
                }
                Change::Member(host, _) if host == self.config.host => {
                    self.touch(Key::Member(vni, host));
                }
                Change::Member(host, member) => {
                    out.steps.push(Step::Peer { network: name.clone(), host, member });
                }
                Change::Block(first, host) => self.block_changed(&name, first, host, out),
            }
            self.forget(&name, out);
        }
    }

    fn block_changed(
        &mut self,
        name: &Name,
        first: Ipv4Addr,
        host: Option<Name>,
        out: &mut Outcome,
    ) {
        let Some(network) = self.networks.get_mut(name) else { return };
        let is_own = host.as_ref() == Some(&self.config.host);
        let was_own = network.own_blocks.remove(&first);
        network.blocks.remove(&first);
        if is_own {
            network.own_blocks.insert(first);
        } else if was_own && host.is_none() {
            // Guests have leases of it.
            network.blocks.insert(first);
        }
        if is_own != was_own {
            out.steps.push(Step::Block { network: name.clone(), first, is_own });
        }
        self.want_blocks(name);
    }

    pub(super) fn used(&mut self, name: &Name, addresses: u32) {
        if let Some(network) = self.networks.get_mut(name) {
            network.used = addresses;
            self.want_blocks(name);
        }
    }

    fn want_blocks(&mut self, name: &Name) {
        let Some(network) = self.networks.get_mut(name) else { return };
        let Some(vni) = network.vni() else { return };
        if !is_known(&self.feeds, vni) {
            return;
        }
        network.choose_block(&self.config.host);
        let keys: Vec<Key> = network.blocks.iter().map(|first| Key::Block(vni, *first)).collect();
        keys.into_iter().for_each(|key| self.touch(key));
    }
}
