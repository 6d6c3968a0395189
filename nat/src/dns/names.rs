//! The names that a network knows itself: those of its guests.

use std::collections::HashMap;
use std::net::IpAddr;

use super::message::{
    CLASS_IN, Message, NAME_ERROR, TYPE_A, TYPE_AAAA, TYPE_PTR, encode_name, reverse,
};
use crate::config::Config;
use crate::dhcp::Leases;

/// Names of hosts and their addresses, both ways.
#[derive(Default)]
pub(crate) struct Names {
    addresses: HashMap<String, Vec<IpAddr>>,
    names: HashMap<IpAddr, String>,
}

impl Names {
    /// The names of a configuration.
    pub fn new(config: &Config) -> Names {
        let mut names = Names::default();
        for (name, address) in &config.hosts {
            let name = name.to_ascii_lowercase();
            names.addresses.entry(name.clone()).or_default().push(*address);
            names.names.entry(*address).or_insert(name);
        }
        names
    }

    /// The answer, if the question is the network's own business: the name of a host or of a client
    /// with a lease, or whose an address of the network is (RFC 6303: nobody outside can know).
    pub fn answer(
        &self,
        (config, leases): (&Config, Option<&Leases>),
        question: &Message<'_>,
    ) -> Option<Vec<u8>> {
        let name = question.name().filter(|_| question.class == CLASS_IN)?;
        if let Some(address) = reverse(&name) {
            let ours = match address {
                IpAddr::V4(address) => config.ipv4.is_some_and(|subnet| subnet.is_host(address)),
                IpAddr::V6(address) => config.ipv6.is_some_and(|subnet| subnet.is_host(address)),
            };
            let leased = || match address {
                IpAddr::V4(address) => leases?.name_of(config, address),
                IpAddr::V6(_) => None,
            };
            let name = self.names.get(&address).cloned().or_else(leased);
            return match name.and_then(|name| encode_name(&name)) {
                Some(name) if question.kind == TYPE_PTR => Some(question.answer(&[name])),
                Some(_) => Some(question.answer(&[])),
                None => ours.then(|| question.reply(NAME_ERROR)),
            };
        }
        let of_kind = |address: &IpAddr| match (address, question.kind) {
            (IpAddr::V4(address), TYPE_A) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), TYPE_AAAA) => Some(address.octets().to_vec()),
            _ => None,
        };
        // A name that is there has no records of other types, rather than not being there.
        let leased = || leases?.address_of(config, &name).map(|address| vec![address.into()]);
        let addresses = self.addresses.get(&name).cloned().or_else(leased)?;
        Some(question.answer(&addresses.iter().filter_map(of_kind).collect::<Vec<_>>()))
    }
}
