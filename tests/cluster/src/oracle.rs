//! What must hold, by someone who sees the whole cluster at once.

use std::collections::BTreeMap;

use trama_cluster::key::Scope;

use crate::guest::Fault;
use crate::host::Place;
use crate::world::{BOUND, World};

impl World {
    fn fault(&self, what: String) -> Fault {
        Fault { at: self.now, what }
    }

    /// Whether frames to each guest leave each host in the right direction.
    ///
    /// # Errors
    /// The first pair that does not reach although it could.
    pub(crate) fn check(&mut self) -> Result<(), Fault> {
        for number in 0..self.guests.len() {
            self.publish(number);
            self.check_guest(number)?;
        }
        Ok(())
    }

    /// Decides since when a row of a guest must be in the store.
    fn publish(&mut self, number: usize) {
        let guest = &self.guests[number];
        let host = &self.hosts[guest.host];
        let is_up = host.agent.is_some() && host.plane.ports.get(&guest.port) == Some(&true);
        let is_held = host.agent.is_some() && !is_up;
        let informed = host.connected_since.map(|_| host.informed(self.now, BOUND));
        let guest = &mut self.guests[number];
        guest.runs = guest.runs.or(Some(self.now)).filter(|_| is_up);
        if is_held {
            // Another host has the port's name, and the guest waits.
            guest.published = None;
        }
        if guest.runs.is_some() && guest.published.is_none() && informed >= guest.runs {
            guest.published = Some(self.now);
        }
    }

    fn check_guest(&mut self, number: usize) -> Result<(), Fault> {
        let guest = &self.guests[number];
        let Some(published) = guest.published else { return Ok(()) };
        let home = &self.hosts[guest.host];
        if home.agent.is_none() {
            return Ok(());
        }
        let key = (guest.network.clone(), guest.station);
        let mut pairs = 0;
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(entered) = host.entered.get(&guest.network) else { continue };
            let informed = host.informed(self.now, BOUND);
            let must = host.agent.is_some() && !host.plane.is_shut;
            if index == guest.host || !must || informed < published.max(*entered) {
                continue;
            }
            pairs += 1;
            let place = host.plane.places.get(&key);
            if place != Some(&Place::At(home.config.host.clone())) {
                return Err(self.fault(format!(
                    "{} takes {} ({}) to be at {place:?}, and it is at {} since {} ms",
                    host.config.host, guest.port, guest.network, home.config.host, guest.moved,
                )));
            }
        }
        self.figures.pairs += pairs;
        Ok(())
    }

    /// What must hold besides when all faults are over.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check_healed(&self) -> Result<(), Fault> {
        let (mut ports, mut blocks) = (BTreeMap::new(), BTreeMap::new());
        for host in self.hosts.iter().filter(|host| host.agent.is_some()) {
            let name = &host.config.host;
            for port in host.plane.ports.iter().filter(|(_, runs)| **runs).map(|(port, _)| port) {
                if let Some(other) = ports.insert(port, name) {
                    return Err(self.fault(format!("{other} and {name} both run {port}")));
                }
            }
            for block in host.plane.blocks.keys() {
                if let Some(other) = blocks.insert(block, name) {
                    return Err(self.fault(format!("{other} and {name} both lease {block:?}")));
                }
            }
        }
        for guest in &self.guests {
            let is_up = self.hosts[guest.host].agent.is_some();
            if is_up && !ports.contains_key(&guest.port) {
                return Err(self.fault(format!("no host runs {}", guest.port)));
            }
        }
        self.check_drained()
    }

    /// A host that is dead and was drained has no row in a network.
    fn check_drained(&self) -> Result<(), Fault> {
        let dead = self.hosts.iter().filter(|host| host.is_drained && host.agent.is_none());
        let texts: Vec<String> =
            dead.map(|host| format!("\"h\":\"{}\"", host.config.host)).collect();
        for (_, vni) in &self.networks {
            let rows = self.store.range(&Scope::Network(*vni), None, None, usize::MAX);
            for row in rows.map(|page| page.rows).unwrap_or_default() {
                let value = String::from_utf8_lossy(row.value.as_deref().unwrap_or_default());
                if texts.iter().any(|text| value.contains(text)) {
                    return Err(self.fault(format!("a drained host has {}: {value}", row.key)));
                }
            }
        }
        Ok(())
    }
}
