//! The names of the network itself.

use std::collections::HashMap;
use std::net::IpAddr;

use trama_nat::{is_host4, is_host6};

use super::message::{
    CLASS_IN, Message, NAME_ERROR, TYPE_A, TYPE_AAAA, TYPE_PTR, encode_name, reverse,
};
use crate::config::Config;
use crate::dhcp::Leases;

/// Host names and addresses, in both directions.
#[derive(Default)]
pub(crate) struct LocalNames {
    addresses: HashMap<String, Vec<IpAddr>>,
    names: HashMap<IpAddr, String>,
}

impl LocalNames {
    /// The names of the settings.
    pub(super) fn new(config: &Config) -> LocalNames {
        let mut names = LocalNames::default();
        for (name, address) in &config.hosts {
            let name = name.to_ascii_lowercase();
            names.addresses.entry(name.clone()).or_default().push(*address);
            names.names.entry(*address).or_insert(name);
        }
        names
    }

    /// Answers a query about the network: the name of a host or of a DHCP client, or the reverse
    /// name of one of the network's addresses (RFC 6303: no outside server knows it). `None` for
    /// any other query.
    pub(super) fn answer(
        &self,
        (config, leases): (&Config, Option<&Leases>),
        question: &Message<'_>,
    ) -> Option<Vec<u8>> {
        let name = question.name().filter(|_| question.class == CLASS_IN)?;
        if let Some(address) = reverse(&name) {
            let ours = match address {
                IpAddr::V4(address) => {
                    config.station.ipv4.is_some_and(|subnet| is_host4(subnet, address))
                }
                IpAddr::V6(address) => {
                    config.station.ipv6.is_some_and(|subnet| is_host6(subnet, address))
                }
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
        // An existing name without records of a type has an empty answer.
        let leased = || leases?.address_of(config, &name).map(|address| vec![address.into()]);
        let addresses = self.addresses.get(&name).cloned().or_else(leased)?;
        Some(question.answer(&addresses.iter().filter_map(of_kind).collect::<Vec<_>>()))
    }
}
