//! The difference between a row as it is wanted and as it is known.

use std::net::Ipv4Addr;

use trama_frame::vxlan::Vni;

use super::io::Outcome;
use super::network::Network;
use super::{Agent, Grace};
use crate::key::{Key, StationKey};
use crate::row::{self, Block, Member, Port as PortRow, Station};
use crate::store::{Operation, Revision};
use crate::{Name, Time};

/// The revision to compare, and what to do if it is right.
type Difference = (Revision, Operation);

fn put<T: serde::Serialize>(key: &Key, row: &T) -> Operation {
    Operation::Put { key: key.clone(), value: row::encode(row), leased: false }
}

fn delete(key: &Key) -> Operation {
    Operation::Delete { key: key.clone() }
}

impl Agent {
    /// Compares everything of this host.
    pub(super) fn compare_all(&mut self) {
        let ports: Vec<Name> = self.ports.keys().cloned().collect();
        ports.into_iter().for_each(|port| self.touch(Key::Port(port)));
        let networks: Vec<Name> = self.networks.keys().cloned().collect();
        networks.iter().for_each(|network| self.compare_network(network));
    }

    /// Compares the rows of this host in a network: those that are wanted and those that are there.
    pub(super) fn compare_network(&mut self, name: &Name) {
        let Some(network) = self.networks.get(name) else { return };
        let (Some(vni), Some(replica)) = (network.vni(), &network.replica) else { return };
        let wanted = network.local.keys().copied();
        let stations = wanted.chain(replica.stations_at(&self.config.host));
        let blocks = network.blocks.iter().map(|first| Key::Block(vni, *first));
        let member = Key::Member(vni, self.config.host.clone());
        let stations = stations.map(|station| Key::Station(vni, station));
        let keys: Vec<Key> = stations.chain(blocks).chain([member]).collect();
        keys.into_iter().for_each(|key| self.touch(key));
    }

    /// Returns what makes a row as it is wanted; `None` if it is.
    pub(super) fn difference(
        &mut self,
        now: Time,
        key: &Key,
        out: &mut Outcome,
    ) -> Option<Difference> {
        match key {
            Key::Port(name) => self.port_difference(now, key, name),
            Key::Member(vni, _) => self.member_difference(key, self.known_network(*vni)?),
            Key::Block(vni, first) => {
                block_difference(self, key, self.known_network(*vni)?, *first)
            }
            Key::Station(vni, station) => {
                self.known_network(*vni)?;
                let name = self.by_vni.get(vni)?.clone();
                if self.is_lost(now, &name, *station, out) {
                    return None;
                }
                self.station_difference(key, &name, *station)
            }
            _ => None,
        }
    }

    fn known_network(&self, vni: Vni) -> Option<&Network> {
        self.networks.get(self.by_vni.get(&vni)?).filter(|_| self.knows(vni))
    }

    fn port_difference(&mut self, now: Time, key: &Key, name: &Name) -> Option<Difference> {
        let own = &self.config.host;
        let epoch = self.session.epoch;
        let is_orphan = self.ports.get(name).is_some_and(|port| self.is_orphan(now, port));
        let port = self.ports.get_mut(name)?;
        let known = if port.row.is_some() { port.revision } else { Revision::ABSENT };
        let is_elsewhere = port.row.as_ref().is_some_and(|row| row.host != *own);
        if is_elsewhere && !is_orphan {
            return None;
        }
        if !port.is_wanted {
            return (port.row.is_some() || port.is_asked).then(|| (known, delete(key)));
        }
        let (host, network) = (own.clone(), port.network.clone());
        let is_move = |row: &PortRow| row.host != host || row.network != network;
        let next = |row: &PortRow| row.seq.saturating_add(u32::from(is_move(row)));
        let seq = port.row.as_ref().map_or(1, next);
        let wanted = PortRow { host, network, seq, epoch, to: None };
        if port.row.as_ref() == Some(&wanted) {
            return None;
        }
        port.is_asked = true;
        Some((known, put(key, &wanted)))
    }

    fn member_difference(&self, key: &Key, network: &Network) -> Option<Difference> {
        let known = network.replica.as_ref()?.member(&self.config.host);
        let revision = known.map_or(Revision::ABSENT, |(_, revision)| revision);
        if network.ports.is_empty() {
            return known.is_some().then(|| (revision, delete(key)));
        }
        let is_full = |name: &Name| self.ports.get(name).is_some_and(|port| port.is_full);
        let wanted = Member {
            vtep: self.config.vtep.clone(),
            port: self.config.port,
            epoch: self.session.epoch,
            unknown: network.ports.iter().any(is_full),
        };
        let is_there = known.is_some_and(|(member, _)| *member == wanted);
        (!is_there).then(|| (revision, put(key, &wanted)))
    }

    fn station_difference(
        &mut self,
        key: &Key,
        name: &Name,
        station: StationKey,
    ) -> Option<Difference> {
        let Agent { config, networks, ports, grace, .. } = self;
        let Network { local, withdrawn, replica: Some(replica), .. } = networks.get_mut(name)?
        else {
            return None;
        };
        let known = replica.station(station);
        let revision = known.map_or(Revision::ABSENT, |known| known.revision);
        let is_own = known.is_some_and(|known| *known.host == config.host);
        let is_claimed = |port: &Name| ports.get(port).is_some_and(super::Port::is_claimed);
        let Some(local) = local.get_mut(&station).filter(|local| is_claimed(&local.port)) else {
            let goes = withdrawn.contains(&station) || *grace == Grace::Over;
            return (is_own && goes).then(|| (revision, delete(key)));
        };
        if is_own && local.is_published {
            return None;
        }
        let least = known.map_or(1, |known| {
            let is_member = replica.member(known.host).is_some();
            // The row of a host that is no member does not count, and is replaced.
            known.seq.saturating_add(u32::from(!is_own && !is_member))
        });
        let seq = local.seq.map_or(least, |seq| seq.max(least));
        local.seq = Some(seq);
        let (host, port) = (config.host.clone(), Some(local.port.clone()));
        let row = Station { host, port, seq, sticky: local.sticky };
        Some((revision, put(key, &row)))
    }

    /// A row of a station was written.
    pub(super) fn is_published(&mut self, vni: Vni, station: StationKey, value: &[u8]) {
        let network = self.by_vni.get(&vni).and_then(|name| self.networks.get_mut(name));
        let local = network.and_then(|network| network.local.get_mut(&station));
        if let (Some(local), Ok(row)) = (local, row::parse::<Station>(value)) {
            local.is_published = row.port.as_ref() == Some(&local.port);
        }
    }
}

fn block_difference(
    agent: &Agent,
    key: &Key,
    network: &Network,
    first: Ipv4Addr,
) -> Option<Difference> {
    let is_free = network.replica.as_ref()?.block(first).is_none();
    let is_wanted = network.blocks.contains(&first) && is_free;
    let row = Block { host: agent.config.host.clone() };
    is_wanted.then(|| (Revision::ABSENT, put(key, &row)))
}
