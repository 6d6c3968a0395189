//! Faults and changes, chosen by the seed.

use trama_cluster::agent::Input;
use trama_cluster::key::{Key, Scope};
use trama_cluster::row::{self, Host as HostRow};
use trama_cluster::store::{Operation, Txn};

use crate::guest::Fault;
use crate::world::{BOUND, Event, World};

/// Milliseconds between two looks of the oracle.
const LOOK: u64 = 500;
/// A guest stays at least this long: one that moves more often is frozen, and rightly.
const STAY: u64 = 50_000;

impl World {
    /// Brings the cluster up, plays faults, heals them, and checks all along.
    ///
    /// # Errors
    /// The first fault that the oracle finds.
    pub fn play(&mut self) -> Result<(), Fault> {
        let mut until = 0;
        let end = self.setup.faults + BOUND;
        while until < end + 4 * BOUND {
            until += LOOK;
            self.run(until)?;
            if until == end {
                self.heal();
            } else if (BOUND..end).contains(&until) {
                for _ in 0..1 + self.hosts.len() / 50 {
                    self.disturb();
                }
            }
        }
        self.check_healed()
    }

    fn disturb(&mut self) {
        self.figures.faults += 1;
        let host = self.rng.index(self.hosts.len());
        match self.rng.below(100) {
            0..30 => self.migrate(),
            30..50 => self.cut(host),
            50..70 => self.mend(host),
            70..75 => {
                if self.hosts[host].agent.is_some() {
                    self.crash(host);
                }
            }
            75..85 => self.restart(host),
            85..89 => self.save(host),
            89..92 => self.store.compact(self.store.revision()),
            92..93 => self.stall(),
            93..96 => self.rival(host),
            96..98 => self.drain(host),
            _ => self.lease(host),
        }
    }

    fn migrate(&mut self) {
        let number = self.rng.index(self.guests.len());
        if self.now < self.guests[number].moved + STAY {
            return;
        }
        let hosts = self.hosts_of(number % self.setup.networks);
        let to = hosts[self.rng.index(hosts.len())];
        self.move_guest(number, to);
    }

    fn move_guest(&mut self, number: usize, to: usize) {
        let from = self.guests[number].host;
        if to == from || self.hosts[to].is_drained {
            return;
        }
        let port = self.guests[number].port.clone();
        self.port_down(from, &port);
        self.guests[number].host = to;
        self.plug(number);
    }

    fn cut(&mut self, host: usize) {
        let one = &mut self.hosts[host];
        if one.is_cut {
            return;
        }
        one.is_cut = true;
        one.cut_off(self.now, BOUND);
        if let Some(connection) = one.connection {
            let noticed = self.now + self.rng.below(15_000);
            self.at(noticed, Event::Lost(host, connection));
        }
    }

    /// The store is reached again. What the connection carried is lost with it.
    fn mend(&mut self, host: usize) {
        if !std::mem::take(&mut self.hosts[host].is_cut) {
            return;
        }
        if let Some(connection) = self.hosts[host].connection {
            self.at(self.now, Event::Lost(host, connection));
        }
    }

    fn restart(&mut self, host: usize) {
        if self.hosts[host].agent.is_none() && !self.hosts[host].is_drained {
            self.start(host);
        }
    }

    /// A host writes its cache: seldom, so that those that start with it are behind.
    fn save(&mut self, host: usize) {
        let informed = self.hosts[host].informed(self.now, BOUND);
        if let Some(agent) = &self.hosts[host].agent {
            self.hosts[host].saved = (agent.cache(), informed);
        }
    }

    fn stall(&mut self) {
        self.stalled_until = self.now + self.rng.below(10_000);
        for host in &mut self.hosts {
            host.cut_off(self.now, BOUND);
            if host.connection.is_some() && !host.is_cut {
                host.connected_since = Some(self.stalled_until);
            }
        }
    }

    /// A port of a guest's name on another host.
    fn rival(&mut self, host: usize) {
        let guest = self.guests[self.rng.index(self.guests.len())].clone();
        let has = self.hosts[host].ports.contains_key(&guest.port);
        if guest.host != host && !has && !self.hosts[host].is_drained {
            self.port_up(host, guest.port, guest.network);
        }
    }

    /// An operator gives a host up that is cut off or dead: it is killed, its rows go, and its
    /// guests start elsewhere.
    fn drain(&mut self, host: usize) {
        let one = &self.hosts[host];
        let few = self.hosts.iter().filter(|host| host.is_drained).count() * 10 < self.hosts.len();
        if one.is_drained || !few || one.connected_since.is_some() {
            return;
        }
        if one.agent.is_some() {
            self.crash(host);
        }
        self.hosts[host].is_drained = true;
        self.remove_rows(host);
        for number in 0..self.guests.len() {
            if self.guests[number].host == host {
                let hosts = self.hosts_of(number % self.setup.networks);
                let alive = hosts.into_iter().find(|other| !self.hosts[*other].is_drained);
                alive.into_iter().for_each(|other| self.move_guest(number, other));
            }
        }
    }

    fn remove_rows(&mut self, host: usize) {
        let name = self.hosts[host].config.host.clone();
        let key = Key::Host(name.clone());
        let value = self.store.get(&key.to_string()).value.unwrap_or_default();
        let Ok(before) = row::parse::<HostRow>(&value) else { return };
        let value = row::encode(&HostRow { epoch: before.epoch + 1, ..before });
        let mut operations = vec![Operation::Put { key, value, leased: false }];
        let text = format!("\"h\":\"{name}\"");
        let mut rows = Vec::new();
        for (_, vni) in self.networks.clone() {
            operations.push(Operation::Delete { key: Key::Member(vni, name.clone()) });
            let page = self.store.range(&Scope::Network(vni), None, None, usize::MAX);
            rows.extend(page.map(|page| page.rows).unwrap_or_default());
        }
        for guest in &self.guests {
            rows.push(self.store.get(&Key::Port(guest.port.clone()).to_string()));
        }
        for row in rows {
            let value = String::from_utf8_lossy(row.value.as_deref().unwrap_or_default());
            if let (true, Ok(key)) = (value.contains(&text), row.key.parse()) {
                operations.push(Operation::Delete { key });
            }
        }
        self.commit(0, &Txn { operations, ..Txn::default() });
    }

    fn lease(&mut self, host: usize) {
        let network = self.networks[self.rng.index(self.networks.len())].0.clone();
        let addresses = self.rng.below(40) as u32;
        self.input(host, Input::Used { network, addresses });
    }

    fn heal(&mut self) {
        for host in 0..self.hosts.len() {
            self.mend(host);
            self.restart(host);
            let strange: Vec<_> = self.hosts[host]
                .ports
                .keys()
                .filter(|port| {
                    !self.guests.iter().any(|one| one.host == host && one.port == **port)
                })
                .cloned()
                .collect();
            strange.iter().for_each(|port| self.port_down(host, port));
        }
    }
}
