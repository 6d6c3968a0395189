//! What a host knows of a network: the members, the member with each station, and the host of each
//! block of addresses.
//!
//! Rows are taken one by one, from pages and from events alike ([`Replica::take`]); what that
//! changes for the data plane comes out as [`Change`]s. A row that is older than the known one is
//! ignored.
//!
//! After a compaction the range is read as a whole. Nothing is cleared first: [`Replica::mark`]
//! marks every row, a row that is read loses its mark, and [`Replica::sweep`] removes those that
//! still have one. A station that was there all the time is at no moment unknown.
//!
//! A station of a host without membership is kept without effect, and takes effect with the
//! membership: the order in which the two arrive does not matter.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use trama_frame::vxlan::Vni;

use crate::key::{Key, KeyError, Scope, StationKey};
use crate::row::{self, Block, Member, Station};
use crate::store::{Entry, Revision};
use crate::{Name, Refusal};

/// What a row changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A host joined the network, changed its membership, or left.
    Member(Name, Option<Member>),
    /// A station is at a member now, or at none.
    Station(StationKey, Option<Name>),
    /// A host leases the addresses of the block now, or none does.
    Block(Ipv4Addr, Option<Name>),
}

/// The row of a station, of a member or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known<'a> {
    /// Its host.
    pub host: &'a Name,
    /// Its sequence number: a host that takes the station over writes a higher one.
    pub seq: u32,
    /// Its revision, which such a host compares.
    pub revision: Revision,
    /// Whether frames of other ports leave the station where it is.
    pub sticky: bool,
}

#[derive(Debug)]
struct Slot {
    host: Name,
    revision: Revision,
    member: Option<Member>,
    is_marked: bool,
}

#[derive(Debug)]
struct Place {
    revision: Revision,
    seq: u32,
    /// Index of a slot.
    slot: u32,
    sticky: bool,
    is_marked: bool,
}

#[derive(Debug)]
struct Holder {
    revision: Revision,
    /// Index of a slot.
    slot: u32,
    is_marked: bool,
}

/// The rows of a network.
#[derive(Debug)]
pub struct Replica {
    scope: Scope,
    /// Hosts that are members, were, or are named by a station. A slot is never removed.
    slots: Vec<Slot>,
    by_host: BTreeMap<Name, u32>,
    stations: BTreeMap<StationKey, Place>,
    blocks: BTreeMap<Ipv4Addr, Holder>,
}

impl Replica {
    /// A network of which nothing is known.
    pub fn new(vni: Vni) -> Replica {
        Replica {
            scope: Scope::Network(vni),
            slots: Vec::new(),
            by_host: BTreeMap::new(),
            stations: BTreeMap::new(),
            blocks: BTreeMap::new(),
        }
    }

    /// The membership of a host, and the revision of the row.
    pub fn member(&self, host: &Name) -> Option<(&Member, Revision)> {
        let slot = &self.slots[*self.by_host.get(host)? as usize];
        Some((slot.member.as_ref()?, slot.revision))
    }

    /// The member with a station, as the data plane was told.
    pub fn host_of(&self, station: StationKey) -> Option<&Name> {
        self.effective(self.stations.get(&station)?)
    }

    /// The row of a station.
    pub fn station(&self, station: StationKey) -> Option<Known<'_>> {
        let Place { revision, seq, slot, sticky, .. } = *self.stations.get(&station)?;
        Some(Known { host: &self.slots[slot as usize].host, seq, revision, sticky })
    }

    /// The stations whose rows name a host.
    pub fn stations_at(&self, host: &Name) -> impl Iterator<Item = StationKey> {
        let slot = self.by_host.get(host).copied();
        self.stations
            .iter()
            .filter(move |(_, place)| Some(place.slot) == slot)
            .map(|(station, _)| *station)
    }

    /// The members.
    pub fn members(&self) -> impl Iterator<Item = (&Name, &Member)> {
        self.slots.iter().filter_map(|slot| Some((&slot.host, slot.member.as_ref()?)))
    }

    /// The host that leases the addresses of a block, and the revision of the row.
    pub fn block(&self, first: Ipv4Addr) -> Option<(&Name, Revision)> {
        let holder = self.blocks.get(&first)?;
        Some((&self.slots[holder.slot as usize].host, holder.revision))
    }

    /// Returns the rows as a cache keeps them.
    pub fn rows(&self) -> Vec<Entry> {
        let Scope::Network(vni) = self.scope else { return Vec::new() };
        let host = |slot: u32| self.slots[slot as usize].host.clone();
        let entry = |key: Key, value: Vec<u8>, revision| Entry {
            key: key.to_string().into(),
            value: Some(value.into()),
            revision,
        };
        let members = self.slots.iter().filter_map(|slot| {
            let value = row::encode(slot.member.as_ref()?);
            Some(entry(Key::Member(vni, slot.host.clone()), value, slot.revision))
        });
        let blocks = self.blocks.iter().map(|(first, holder)| {
            let value = row::encode(&Block { host: host(holder.slot) });
            entry(Key::Block(vni, *first), value, holder.revision)
        });
        let stations = self.stations.iter().map(|(station, place)| {
            let Place { seq, sticky, .. } = *place;
            let value = row::encode(&Station { host: host(place.slot), port: None, seq, sticky });
            entry(Key::Station(vni, *station), value, place.revision)
        });
        members.chain(blocks).chain(stations).collect()
    }

    /// Number of stations, with those of hosts without membership.
    pub fn stations(&self) -> usize {
        self.stations.len()
    }

    fn effective(&self, place: &Place) -> Option<&Name> {
        let slot = &self.slots[place.slot as usize];
        slot.member.is_some().then_some(&slot.host)
    }

    /// Takes a row, or its absence. Rows of unknown families are ignored.
    ///
    /// # Errors
    /// Why the row has no effect. A wrong row in place of a good one leaves the good one.
    pub fn take(&mut self, entry: &Entry, out: &mut Vec<Change>) -> Result<(), Refusal> {
        let key = match entry.key.parse::<Key>() {
            Err(KeyError::Unknown) => return Ok(()),
            Ok(key) if self.scope.contains(&key) => key,
            Ok(_) | Err(KeyError::Form) => return Err(Refusal::Key),
        };
        let value = entry.value.as_deref();
        match key {
            Key::Member(_, host) => {
                let member = value.map(row::parse).transpose()?;
                self.take_member(&host, member, entry.revision, out);
                Ok(())
            }
            Key::Station(_, station) => {
                let row = value.map(row::parse::<Station>).transpose()?;
                self.take_station(station, row, entry.revision, out)
            }
            Key::Block(_, first) => {
                let block = value.map(row::parse::<Block>).transpose()?;
                self.take_block(first, block, entry.revision, out);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn slot(&mut self, host: &Name) -> u32 {
        if let Some(index) = self.by_host.get(host) {
            return *index;
        }
        // As many as a store holds rows: far fewer than 2^32.
        let index = self.slots.len() as u32;
        let revision = Revision::ABSENT;
        let slot = Slot { host: host.clone(), revision, member: None, is_marked: false };
        self.slots.push(slot);
        self.by_host.insert(host.clone(), index);
        index
    }

    fn take_member(
        &mut self,
        host: &Name,
        member: Option<Member>,
        revision: Revision,
        out: &mut Vec<Change>,
    ) {
        let index = self.slot(host);
        let slot = &mut self.slots[index as usize];
        slot.is_marked = false;
        if revision <= slot.revision {
            return;
        }
        slot.revision = revision;
        self.set_member(index, member, out);
    }

    fn set_member(&mut self, index: u32, member: Option<Member>, out: &mut Vec<Change>) {
        let slot = &mut self.slots[index as usize];
        if slot.member == member {
            return;
        }
        let had_stations = slot.member.is_some();
        let has_stations = member.is_some();
        slot.member.clone_from(&member);
        let host = slot.host.clone();
        out.push(Change::Member(host.clone(), member));
        if had_stations != has_stations {
            let its = self.stations.iter().filter(|(_, place)| place.slot == index);
            let at = has_stations.then_some(host);
            out.extend(its.map(|(station, _)| Change::Station(*station, at.clone())));
        }
    }

    fn take_station(
        &mut self,
        station: StationKey,
        row: Option<Station>,
        revision: Revision,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        if let Some(place) = self.stations.get_mut(&station) {
            place.is_marked = false;
            if revision <= place.revision {
                return Ok(());
            }
        }
        let before = self.host_of(station).cloned();
        match row {
            None => drop(self.stations.remove(&station)),
            Some(Station { host, seq, sticky, .. }) => {
                let slot = self.slot(&host);
                let place = Place { revision, seq, slot, sticky, is_marked: false };
                self.stations.insert(station, place);
            }
        }
        let after = self.host_of(station).cloned();
        let is_refused = after.is_none() && self.stations.contains_key(&station);
        if before != after {
            out.push(Change::Station(station, after));
        }
        if is_refused { Err(Refusal::NotAMember) } else { Ok(()) }
    }

    fn take_block(
        &mut self,
        first: Ipv4Addr,
        row: Option<Block>,
        revision: Revision,
        out: &mut Vec<Change>,
    ) {
        if let Some(holder) = self.blocks.get_mut(&first) {
            holder.is_marked = false;
            if revision <= holder.revision {
                return;
            }
        }
        let before = self.block(first).map(|(host, _)| host.clone());
        let after = row.map(|block| block.host);
        match &after {
            None => drop(self.blocks.remove(&first)),
            Some(host) => {
                let slot = self.slot(host);
                self.blocks.insert(first, Holder { revision, slot, is_marked: false });
            }
        }
        if before != after {
            out.push(Change::Block(first, after));
        }
    }

    /// Marks every row, before the whole range is read.
    pub fn mark(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.is_marked = slot.member.is_some());
        self.stations.values_mut().for_each(|place| place.is_marked = true);
        self.blocks.values_mut().for_each(|holder| holder.is_marked = true);
    }

    /// Removes the rows that were not read since [`Replica::mark`]: they were deleted.
    pub fn sweep(&mut self, out: &mut Vec<Change>) {
        let is_gone = |(station, place): (&StationKey, &Place)| place.is_marked.then_some(*station);
        let gone: Vec<StationKey> = self.stations.iter().filter_map(is_gone).collect();
        for station in gone {
            let had_host = self.host_of(station).is_some();
            self.stations.remove(&station);
            if had_host {
                out.push(Change::Station(station, None));
            }
        }
        let gone = self.blocks.extract_if(.., |_, holder| holder.is_marked);
        out.extend(gone.map(|(first, _)| Change::Block(first, None)));
        for index in 0..self.slots.len() {
            if self.slots[index].is_marked {
                self.slots[index].is_marked = false;
                self.set_member(index as u32, None, out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
