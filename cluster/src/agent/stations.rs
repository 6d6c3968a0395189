//! Stations of this host's ports: claimed, lost to other hosts, withdrawn.

use trama_frame::vxlan::Vni;

use super::Agent;
use super::io::{Outcome, Step};
use super::network::{Local, Network};
use crate::key::{Key, StationKey};
use crate::replica::Known;
use crate::{Name, Time};

/// Most learned stations of a port that have a row.
const MOST_LEARNED: usize = 64;

impl Agent {
    pub(super) fn learned(
        &mut self,
        now: Time,
        port: &Name,
        station: StationKey,
        out: &mut Outcome,
    ) {
        if self.ports.get(port).is_some_and(super::Port::moves_frames) {
            self.claim(now, port, station, false, out);
        }
    }

    /// A port has a station, by a frame or by configuration.
    pub(super) fn claim(
        &mut self,
        now: Time,
        port: &Name,
        station: StationKey,
        sticky: bool,
        out: &mut Outcome,
    ) {
        let Some(name) = self.ports.get(port).map(|port| port.network.clone()) else { return };
        let Some(network) = self.networks.get(&name) else { return };
        let vni = network.vni();
        if network.local.contains_key(&station) {
            self.move_between_ports(&name, port, station);
            return;
        }
        let host = network.replica.as_ref().and_then(|replica| replica.host_of(station));
        if let (Some(host), Some(vni)) = (host.filter(|host| **host != self.config.host), vni) {
            let is_sticky = network.known(station).is_some_and(|known| known.sticky);
            if !sticky && (is_sticky || self.moves.is_frozen(now, vni, station)) {
                let (network, host) = (name.clone(), Some(host.clone()));
                return out.steps.push(Step::Station { network, station, host });
            }
            self.moves.count(now, vni, station);
        }
        if !sticky && !self.has_room(port) {
            return vni.into_iter().for_each(|vni| self.touch_member(vni));
        }
        let is_known = vni.is_some_and(|vni| self.knows(vni));
        let Some(network) = self.networks.get_mut(&name) else { return };
        let seq = is_known.then(|| next_seq(network.known(station), &self.config.host));
        let local = Local { port: port.clone(), seq, sticky, is_published: false };
        network.withdrawn.remove(&station);
        network.local.insert(station, local);
        self.touch_station(&name, station);
    }

    fn move_between_ports(&mut self, name: &Name, port: &Name, station: StationKey) {
        let Some(network) = self.networks.get_mut(name) else { return };
        let Some(local) = network.local.get_mut(&station) else { return };
        if local.port == *port || local.sticky {
            return;
        }
        let before = std::mem::replace(&mut local.port, port.clone());
        local.is_published = false;
        for (name, more) in [(&before, 0), (port, 1)] {
            if let Some(port) = self.ports.get_mut(name) {
                port.learned =
                    if more == 0 { port.learned.saturating_sub(1) } else { port.learned + 1 };
            }
        }
        self.touch_station(name, station);
    }

    /// Takes room for a learned station of a port.
    fn has_room(&mut self, port: &Name) -> bool {
        let Some(port) = self.ports.get_mut(port) else { return false };
        port.is_full |= port.learned >= MOST_LEARNED;
        port.learned += usize::from(!port.is_full);
        !port.is_full
    }

    pub(super) fn aged(&mut self, port: &Name, station: StationKey, out: &mut Outcome) {
        let Some(name) = self.ports.get(port).map(|port| port.network.clone()) else { return };
        let Some(network) = self.networks.get(&name) else { return };
        let local = network.local.get(&station);
        if local.is_some_and(|local| local.port == *port && !local.sticky) {
            self.drop_station(&name, station, out);
        }
    }

    /// Withdraws the stations of a port.
    pub(super) fn drop_stations(&mut self, port: &Name, out: &mut Outcome) {
        let Some(name) = self.ports.get(port).map(|port| port.network.clone()) else { return };
        for station in self.stations_of(&name, port) {
            self.drop_station(&name, station, out);
        }
    }

    fn stations_of(&self, network: &Name, port: &Name) -> Vec<StationKey> {
        let Some(network) = self.networks.get(network) else { return Vec::new() };
        let has = |(_, local): &(&StationKey, &Local)| local.port == *port;
        network.local.iter().filter(has).map(|(station, _)| *station).collect()
    }

    /// Compares the stations of a port with their rows.
    pub(super) fn compare_stations(&mut self, port: &Name) {
        let Some(name) = self.ports.get(port).map(|port| port.network.clone()) else { return };
        for station in self.stations_of(&name, port) {
            self.touch_station(&name, station);
        }
    }

    /// This host has the station no more; the switch is told who has.
    fn drop_station(&mut self, name: &Name, station: StationKey, out: &mut Outcome) {
        let Some(network) = self.networks.get_mut(name) else { return };
        let Some(local) = network.local.remove(&station) else { return };
        network.withdrawn.insert(station);
        if let Some(port) = self.ports.get_mut(&local.port).filter(|_| !local.sticky) {
            port.learned = port.learned.saturating_sub(1);
        }
        let host = network.replica.as_ref().and_then(|replica| replica.host_of(station));
        let host = host.filter(|host| **host != self.config.host).cloned();
        out.steps.push(Step::Station { network: name.clone(), station, host });
        self.touch_station(name, station);
    }

    /// The host of a station changed, by its row.
    pub(super) fn station_changed(
        &mut self,
        now: Time,
        name: &Name,
        station: StationKey,
        host: Option<Name>,
        out: &mut Outcome,
    ) {
        let Some(network) = self.networks.get_mut(name) else { return };
        let is_own = host.as_ref() == Some(&self.config.host);
        let Some(local) = network.local.get_mut(&station) else {
            if is_own {
                self.touch_station(name, station);
            } else {
                network.withdrawn.remove(&station);
            }
            let host = host.filter(|_| !is_own);
            return out.steps.push(Step::Station { network: name.clone(), station, host });
        };
        local.is_published &= is_own;
        if !local.is_published && !self.is_lost(now, name, station, out) {
            self.touch_station(name, station);
        }
    }

    /// Gives a station up whose row has a claim that counts more than this host's.
    pub(super) fn is_lost(
        &mut self,
        now: Time,
        name: &Name,
        station: StationKey,
        out: &mut Outcome,
    ) -> bool {
        let Some(network) = self.networks.get(name) else { return false };
        let (Some(local), Some(known)) = (network.local.get(&station), network.known(station))
        else {
            return false;
        };
        let Some(replica) = network.replica.as_ref() else { return false };
        let Some((member, _)) = replica.member(known.host) else { return false };
        let is_other = *known.host != self.config.host;
        let is_beaten = local
            .seq
            .is_some_and(|seq| (known.seq, self.config.vtep.first()) > (seq, member.vtep.first()));
        if is_other && is_beaten {
            network.vni().into_iter().for_each(|vni| self.moves.count(now, vni, station));
            self.drop_station(name, station, out);
        }
        is_other && is_beaten
    }

    /// Fixes the claims that were made before the rows were known.
    pub(super) fn fix_claims(&mut self, name: &Name) {
        let Some(Network { local, replica: Some(replica), .. }) = self.networks.get_mut(name)
        else {
            return;
        };
        for (station, local) in local {
            let next = || next_seq(replica.station(*station), &self.config.host);
            local.seq.get_or_insert_with(next);
        }
    }

    pub(super) fn touch_station(&mut self, name: &Name, station: StationKey) {
        let vni = self.networks.get(name).and_then(Network::vni);
        vni.into_iter().for_each(|vni| self.touch(Key::Station(vni, station)));
    }

    fn touch_member(&mut self, vni: Vni) {
        self.touch(Key::Member(vni, self.config.host.clone()));
    }
}

impl Network {
    /// The row of a station.
    pub(super) fn known(&self, station: StationKey) -> Option<Known<'_>> {
        self.replica.as_ref()?.station(station)
    }
}

/// The sequence number of a claim that is made now.
fn next_seq(known: Option<Known<'_>>, own: &Name) -> u32 {
    known.map_or(1, |known| known.seq.saturating_add(u32::from(known.host != own)))
}
