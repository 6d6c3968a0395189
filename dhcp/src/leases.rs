//! The table of bindings and its indices.
//!
//! A binding is an address with its state and its client. Every look-up that an exchange needs
//! has an index, so its cost does not grow with the number of leases: by address and by client
//! (hash), by deadline, the longest unused per subnet and per port, the oldest offer per port
//! (ordered), and the fresh addresses, which no client has had (a bitmap, see [`pool`]).
//!
//! There is one way to change a binding: [`LeaseTable::take`] it out, which removes it from all
//! indices, and [`LeaseTable::put`] it back.

mod bitset;
pub(crate) mod policy;
pub(crate) mod pool;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};

use foldhash::quality::FixedState;
use trama_frame::MacAddr;

use crate::config::Limits;
use crate::dhcp6::Solicit;
use crate::name::HostName;
use crate::wire::Request;
use crate::{ClientKey, PortId, Time};
use pool::Pool;

/// An address of one version of IP.
pub trait Address: Copy + Eq + Hash + Ord + Debug {
    /// A client's message that waits for the end of a probe.
    type Pending: Clone + PartialEq + Eq + Debug;
    /// The lowest address.
    const LEAST: Self;
    /// As a number.
    fn number(self) -> u128;
    /// The address of a number; inverse of [`Address::number`].
    fn from_number(number: u128) -> Self;
}

impl Address for Ipv4Addr {
    type Pending = Request;
    const LEAST: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    fn number(self) -> u128 {
        self.to_bits().into()
    }

    fn from_number(number: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits(number as u32)
    }
}

impl Address for Ipv6Addr {
    type Pending = Solicit;
    const LEAST: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

    fn number(self) -> u128 {
        self.to_bits()
    }

    fn from_number(number: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(number)
    }
}

/// State of an address that is not fresh.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum State {
    /// Requested; offered once a probe has found no other user.
    Probing,
    /// Offered and held for the client.
    Offered,
    /// Leased.
    Bound,
    /// Free, but remembered for the client that had it last.
    Idle,
    /// In use by a host without a lease.
    Quarantined,
}

/// An address that is not fresh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding<A: Address = Ipv4Addr> {
    /// The address.
    pub address: A,
    /// The subnet's place in the configuration.
    pub subnet: usize,
    /// Its state.
    pub state: State,
    /// When the state ends; for `Idle`, when it began.
    pub until: Time,
    /// The client; `None` in quarantine.
    pub key: Option<ClientKey>,
    /// The client's hardware address.
    pub mac: MacAddr,
    /// The port that the address is charged to.
    pub port: PortId,
    /// The client's name.
    pub name: Option<HostName>,
    /// Whether the client had a lease on the address before this offer.
    pub known: bool,
    /// What to answer when probing ends.
    pub(crate) pending: Option<Box<A::Pending>>,
}

/// An ordered index of bindings: by group, then time, then address.
type Filed<Group, A> = BTreeSet<(Group, Time, A)>;

/// How many addresses of the pools a port occupies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Footprint {
    /// In any state.
    pub addresses: u32,
    /// Probing or offered.
    pub offers: u32,
}

/// All bindings of a server, and the fresh addresses of its subnets.
#[derive(Debug)]
pub(crate) struct LeaseTable<A: Address = Ipv4Addr> {
    pools: Vec<Pool<A>>,
    limits: Limits,
    hasher: FixedState,
    bindings: HashMap<A, Binding<A>, FixedState>,
    /// One index per subnet: a client that moves keeps its lease on the old one until it ends.
    by_client: Vec<HashMap<ClientKey, A, FixedState>>,
    by_name: HashMap<HostName, A, FixedState>,
    deadlines: Filed<(), A>,
    idle: Filed<usize, A>,
    idle_of_port: Filed<(PortId, usize), A>,
    offers_of_port: Filed<(PortId, usize), A>,
    footprints: HashMap<PortId, Footprint, FixedState>,
    bound: usize,
}

impl<A: Address> LeaseTable<A> {
    /// An empty table. The hash is seeded: clients choose their identifiers.
    pub(crate) fn new(pools: Vec<Pool<A>>, limits: Limits, seed: u64) -> LeaseTable<A> {
        let hasher = FixedState::with_seed(seed);
        LeaseTable {
            by_client: pools.iter().map(|_| HashMap::with_hasher(hasher.clone())).collect(),
            pools,
            limits,
            bindings: HashMap::with_hasher(hasher.clone()),
            by_name: HashMap::with_hasher(hasher.clone()),
            deadlines: BTreeSet::new(),
            idle: BTreeSet::new(),
            idle_of_port: BTreeSet::new(),
            offers_of_port: BTreeSet::new(),
            footprints: HashMap::with_hasher(hasher.clone()),
            hasher,
            bound: 0,
        }
    }

    /// The binding of an address that is not fresh.
    pub(crate) fn get(&self, address: A) -> Option<&Binding<A>> {
        self.bindings.get(&address)
    }

    /// The one binding of a client on a subnet.
    pub(crate) fn of_client(&self, subnet: usize, key: &ClientKey) -> Option<&Binding<A>> {
        self.bindings.get(self.by_client[subnet].get(key)?)
    }

    /// The leased address with this name.
    pub(crate) fn address_of(&self, name: &HostName) -> Option<A> {
        self.by_name.get(name).copied()
    }

    /// All bindings, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding<A>> {
        self.bindings.values()
    }

    /// How many leases are in force.
    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    /// The pool of a subnet.
    pub(crate) fn pool(&self, subnet: usize) -> &Pool<A> {
        &self.pools[subnet]
    }

    /// Returns how many addresses a port occupies.
    pub(crate) fn footprint(&self, port: PortId) -> Footprint {
        self.footprints.get(&port).copied().unwrap_or_default()
    }

    /// The earliest end of a state.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(_, until, _)| *until)
    }

    /// Returns an address whose state has ended by `now`.
    pub(crate) fn due(&self, now: Time) -> Option<A> {
        self.deadlines.first().filter(|(_, until, _)| *until <= now).map(|filed| filed.2)
    }

    /// The address of a subnet that has been idle for longest.
    pub(crate) fn oldest_idle(&self, subnet: usize) -> Option<A> {
        first_of(&self.idle, subnet)
    }

    /// The address of a subnet that has been idle for longest since a client of `port` had it.
    pub(crate) fn oldest_idle_of(&self, port: PortId, subnet: usize) -> Option<A> {
        first_of(&self.idle_of_port, (port, subnet))
    }

    /// The oldest offer to a client of `port`.
    pub(crate) fn oldest_offer_of(&self, port: PortId, subnet: usize) -> Option<A> {
        first_of(&self.offers_of_port, (port, subnet))
    }

    /// Takes a binding out. Its address is fresh until a binding is put back.
    pub(crate) fn take(&mut self, address: A) -> Option<Binding<A>> {
        let binding = self.bindings.remove(&address)?;
        self.pools[binding.subnet].release(address);
        if let Some(key) = &binding.key {
            self.by_client[binding.subnet].remove(key);
        }
        self.index(&binding, false);
        Some(binding)
    }

    /// Puts a binding in, in place of what its address had before, and its client on its subnet.
    pub(crate) fn put(&mut self, binding: Binding<A>) {
        self.take(binding.address);
        if let Some(key) = &binding.key {
            if let Some(other) = self.by_client[binding.subnet].get(key).copied() {
                self.take(other);
            }
            self.by_client[binding.subnet].insert(key.clone(), binding.address);
        }
        self.pools[binding.subnet].claim(binding.address);
        self.index(&binding, true);
        self.bindings.insert(binding.address, binding);
    }

    /// Leases the addresses of `now` to no client. Those of `before` alone are leased again, unless
    /// they are in `reserved`. A lease in force stays until its client renews it; what else such an
    /// address had is forgotten.
    pub(crate) fn withhold(
        &mut self,
        subnet: usize,
        before: &HashSet<A>,
        now: &HashSet<A>,
        reserved: &HashSet<A>,
    ) {
        let given_back = before.difference(now).filter(|it| !reserved.contains(it));
        let withheld = now.difference(before);
        for (address, is_leasable) in
            given_back.map(|it| (*it, true)).chain(withheld.map(|it| (*it, false)))
        {
            let binding = self.take(address);
            self.pools[subnet].set_leasable(address, is_leasable);
            if let Some(binding) = binding.filter(|it| is_leasable || it.state == State::Bound) {
                self.put(binding);
            }
        }
    }

    fn index(&mut self, binding: &Binding<A>, add: bool) {
        if binding.state == State::Bound {
            self.bound = if add { self.bound + 1 } else { self.bound - 1 };
            self.index_name(binding, add);
        }
        if binding.state != State::Idle {
            file(&mut self.deadlines, ((), binding.until, binding.address), add);
        }
        // A reserved address is neither charged to a port nor reused for other clients.
        if self.pools[binding.subnet].contains(binding.address) {
            self.index_shared(binding, add);
        }
    }

    fn index_shared(&mut self, binding: &Binding<A>, add: bool) {
        let Binding { address, subnet, until, port, .. } = *binding;
        let footprint = self.footprints.entry(port).or_default();
        step(&mut footprint.addresses, add);
        match binding.state {
            State::Idle => {
                file(&mut self.idle, (subnet, until, address), add);
                file(&mut self.idle_of_port, ((port, subnet), until, address), add);
            }
            State::Probing | State::Offered => {
                step(&mut footprint.offers, add);
                file(&mut self.offers_of_port, ((port, subnet), until, address), add);
            }
            State::Bound | State::Quarantined => {}
        }
        if self.footprints.get(&port) == Some(&Footprint::default()) {
            self.footprints.remove(&port);
        }
    }

    /// The first lease with a name keeps it.
    fn index_name(&mut self, binding: &Binding<A>, add: bool) {
        let Some(name) = &binding.name else { return };
        if add {
            self.by_name.entry(name.clone()).or_insert(binding.address);
        } else if self.by_name.get(name) == Some(&binding.address) {
            self.by_name.remove(name);
        }
    }
}

fn first_of<Group: Ord + Copy, A: Address>(index: &Filed<Group, A>, group: Group) -> Option<A> {
    let first = index.range((group, Time(0), A::LEAST)..).next()?;
    (first.0 == group).then_some(first.2)
}

fn file<Group: Ord, A: Address>(index: &mut Filed<Group, A>, entry: (Group, Time, A), add: bool) {
    if add {
        index.insert(entry);
    } else {
        index.remove(&entry);
    }
}

fn step(count: &mut u32, up: bool) {
    *count = if up { *count + 1 } else { *count - 1 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ip;
    use proptest::prelude::*;

    fn table() -> LeaseTable {
        LeaseTable::new(
            vec![Pool::new(&[ip("10.0.2.0")..=ip("10.0.2.31")], &[])],
            Limits::default(),
            7,
        )
    }

    fn binding(last: u8, client: u8, state: State, port: u64, until: u64) -> Binding {
        let mac = MacAddr([2, 0, 0, 0, 0, client]);
        Binding {
            address: Ipv4Addr::new(10, 0, 2, last),
            subnet: 0,
            state,
            until: Time(until),
            key: (state != State::Quarantined).then(|| ClientKey::from_mac(mac)),
            mac,
            port: PortId(port),
            name: HostName::from_client(format!("vm{}", client % 4).as_bytes()),
            known: false,
            pending: None,
        }
    }

    /// Every index agrees with a scan of all bindings.
    fn check(table: &LeaseTable) {
        let all: Vec<&Binding> = table.iter().collect();
        let of = |state: State| all.iter().filter(move |b| b.state == state);
        let is_offer = |b: &&&Binding| matches!(b.state, State::Probing | State::Offered);
        assert_eq!(table.bound(), of(State::Bound).count());
        assert_eq!(
            table.next_deadline(),
            all.iter().filter(|b| b.state != State::Idle).map(|b| b.until).min()
        );
        let oldest = of(State::Idle).map(|b| (b.until, b.address)).min();
        assert_eq!(table.oldest_idle(0), oldest.map(|b| b.1));
        for port in (0..3).map(PortId) {
            let mine = || all.iter().filter(move |b| b.port == port);
            let offers = mine().filter(is_offer).map(|b| (b.until, b.address)).min();
            assert_eq!(table.oldest_offer_of(port, 0), offers.map(|b| b.1));
            let idle = mine().filter(|b| b.state == State::Idle).map(|b| (b.until, b.address));
            assert_eq!(table.oldest_idle_of(port, 0), idle.min().map(|b| b.1));
            let footprint = Footprint {
                addresses: mine().count() as u32,
                offers: mine().filter(is_offer).count() as u32,
            };
            assert_eq!(table.footprint(port), footprint);
        }
        for binding in &all {
            if let Some(key) = &binding.key {
                assert_eq!(table.of_client(0, key), Some(*binding));
            }
            assert!(!table.pool(0).is_fresh(binding.address));
        }
        assert_eq!(table.by_client[0].len(), all.iter().filter(|b| b.key.is_some()).count());
        assert_eq!(table.pool(0).fresh(), 32 - all.len());
        for (name, address) in &table.by_name {
            let holder = table.get(*address).unwrap();
            assert_eq!((holder.state, holder.name.as_ref()), (State::Bound, Some(name)));
        }
    }

    proptest! {
        #[test]
        fn indices_agree_with_the_bindings(
            steps in prop::collection::vec((0..32u8, 0..12u8, 0..6u8, 0..3u64, 0..9u64), 0..80),
        ) {
            let mut table = table();
            for (last, client, action, port, until) in steps {
                let states = [
                    State::Probing, State::Offered, State::Bound, State::Idle, State::Quarantined,
                ];
                match states.get(usize::from(action)) {
                    Some(state) => table.put(binding(last, client, *state, port, until)),
                    None => drop(table.take(Ipv4Addr::new(10, 0, 2, last))),
                }
                check(&table);
            }
        }
    }

    #[test]
    fn the_first_lease_with_a_name_keeps_it() {
        let mut table = table();
        let name: HostName = "vm1".parse().unwrap();
        table.put(binding(1, 1, State::Bound, 0, 5));
        table.put(binding(2, 5, State::Bound, 0, 5));
        assert_eq!(table.address_of(&name), Some(ip("10.0.2.1")));
        table.take(ip("10.0.2.1"));
        assert_eq!(table.address_of(&name), None);
    }

    #[test]
    fn keys_of_different_kinds_differ() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let keys = [
            ClientKey::from_mac(mac),
            ClientKey::from_id(&mac.0),
            ClientKey::from_id_and_mac(&[], mac),
        ];
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
        assert_eq!(ClientKey::from_id_and_mac(&[0; 255], mac).0.len(), ClientKey::MAX_LEN);
    }
}
