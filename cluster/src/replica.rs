//! What a host knows of a network: the members, and the member with each station.
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

use trama_frame::vxlan::Vni;

use crate::key::{Key, KeyError, Scope, StationKey};
use crate::row::{self, Member, Station};
use crate::store::{Entry, Revision};
use crate::{Name, Refusal};

/// What a row changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A host joined the network, changed its membership, or left.
    Member(Name, Option<Member>),
    /// A station is at a member now, or at none.
    Station(StationKey, Option<Name>),
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

/// The rows of a network.
#[derive(Debug)]
pub struct Replica {
    scope: Scope,
    /// Hosts that are members, were, or are named by a station. A slot is never removed.
    slots: Vec<Slot>,
    by_host: BTreeMap<Name, u32>,
    stations: BTreeMap<StationKey, Place>,
}

impl Replica {
    /// A network of which nothing is known.
    pub fn new(vni: Vni) -> Replica {
        Replica {
            scope: Scope::Network(vni),
            slots: Vec::new(),
            by_host: BTreeMap::new(),
            stations: BTreeMap::new(),
        }
    }

    /// The membership of a host.
    pub fn member(&self, host: &Name) -> Option<&Member> {
        self.slots[*self.by_host.get(host)? as usize].member.as_ref()
    }

    /// The member with a station, as the data plane was told.
    pub fn host_of(&self, station: StationKey) -> Option<&Name> {
        self.effective(self.stations.get(&station)?)
    }

    /// The sequence number and the revision with which a claim of this station must begin: a host
    /// that takes it over writes a higher number and compares the revision.
    pub fn known(&self, station: StationKey) -> (u32, Revision) {
        let known = self.stations.get(&station).map(|place| (place.seq, place.revision));
        known.unwrap_or((0, Revision::ABSENT))
    }

    /// Whether frames of other ports leave the station where it is.
    pub fn is_sticky(&self, station: StationKey) -> bool {
        self.stations.get(&station).is_some_and(|place| place.sticky)
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
            // For the server of addresses.
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

    /// Marks every row, before the whole range is read.
    pub fn mark(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.is_marked = slot.member.is_some());
        self.stations.values_mut().for_each(|place| place.is_marked = true);
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
