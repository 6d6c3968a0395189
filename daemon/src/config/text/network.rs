//! The keys of a `[[network]]`, read and written.

use std::collections::BTreeMap;
use std::net::IpAddr;

use toml_edit::{Array, Value};
use trama_gateway::Discovery;

use super::field::{Field, map_field, number, path};
use super::reader::Reader;
use super::units::format_duration;
use super::{address, dhcp, export, rule};
use crate::Fault;
use crate::config::model::{Mode, Network};
use crate::config::rules::subnet::unusable_length;

const KEYS: [&str; 18] = [
    "name",
    "mode",
    "subnet",
    "uplink",
    "mtu",
    "mac-table-size",
    "mac-aging",
    "hosts",
    "tftp",
    "dhcp",
    "forward",
    "loopback",
    "reflect",
    "sflow",
    "ipfix",
    "log-dns",
    "external-ids",
    "openvswitch",
];

/// Reads the table of the network with this number.
pub(super) fn read(reader: &mut Reader<'_, '_, '_>, index: usize) -> Network {
    reader.refuse_unknown(&KEYS, |_| None);
    let default = Network::new(String::new());
    Network {
        name: reader.string("name").unwrap_or_default(),
        mode: read_mode(reader),
        subnet: address::read(reader, "subnet", unusable_length),
        uplink: reader.string("uplink"),
        mtu: reader.size("mtu").unwrap_or(default.mtu),
        mac_table_size: reader.size("mac-table-size").unwrap_or(default.mac_table_size),
        mac_aging: reader.duration("mac-aging").unwrap_or(default.mac_aging),
        hosts: read_hosts(reader),
        tftp: reader.string("tftp").map(Into::into),
        dhcp: dhcp::read(reader, index),
        forward: rule::read(reader, "forward"),
        loopback: rule::read(reader, "loopback"),
        reflect: read_reflect(reader),
        sflow: export::read_sflow(reader, index),
        ipfix: export::read_ipfix(reader, index),
        log_dns: reader.boolean("log-dns").unwrap_or(default.log_dns),
        external_ids: reader.map("external-ids").unwrap_or_default().into_iter().collect(),
        openvswitch: reader.map("openvswitch").unwrap_or_default().into_iter().collect(),
        ..default
    }
}

fn read_mode(reader: &mut Reader<'_, '_, '_>) -> Mode {
    if !reader.has("mode") {
        return Mode::Internal;
    }
    let modes = Mode::ALL.map(|mode| (mode.name(), mode));
    let mode = reader.word("mode", &modes);
    if mode.is_none() {
        // These keys depend on the mode, which is unknown.
        ["subnet", "uplink", "hosts", "tftp", "dhcp", "forward", "loopback", "reflect", "log-dns"]
            .iter()
            .for_each(|key| reader.mark_broken(key));
    }
    mode.unwrap_or(Mode::Internal)
}

fn read_reflect(reader: &mut Reader<'_, '_, '_>) -> Vec<Discovery> {
    let mut protocols = Vec::new();
    for (offset, text) in reader.strings("reflect").unwrap_or_default() {
        match Discovery::ALL.into_iter().find(|known| known.name() == text) {
            Some(known) if protocols.contains(&known) => {
                reader.fault(
                    "reflect",
                    offset,
                    Fault::new(format!("{text:?} is listed twice"), "remove one"),
                );
            }
            Some(known) => protocols.push(known),
            None => {
                let remedy = r#"use "mdns", "ssdp", or both"#;
                reader.fault(
                    "reflect",
                    offset,
                    Fault::new(format!("unknown value {text:?}"), remedy),
                );
            }
        }
    }
    protocols
}

/// A table of names and their addresses.
fn read_hosts(reader: &mut Reader<'_, '_, '_>) -> BTreeMap<String, IpAddr> {
    let mut hosts = BTreeMap::new();
    for (name, text) in reader.map("hosts").unwrap_or_default() {
        let address = reader.converted("hosts", text.parse().ok(), || {
            let remedy = r#"write it as in hosts = { web = "10.1.0.7" }"#;
            Fault::new(format!("{text:?} of {name} is not an address"), remedy)
        });
        hosts.extend(address.map(|address| (name, address)));
    }
    hosts
}

/// The keys of a `[[network]]`.
pub(super) fn fields(network: &Network) -> Vec<Field> {
    let default = Network::new(String::new());
    let size = network.mac_table_size;
    let aging = network.mac_aging;
    vec![
        Field::new("name", network.name.as_str(), false),
        Field::new("mode", network.mode.name(), false),
        Field::optional("subnet", address::list(&network.subnet)),
        Field::optional("uplink", network.uplink.as_deref()),
        Field::new("mtu", i64::from(network.mtu), network.mtu == default.mtu),
        Field::new("mac-table-size", number(size), size == default.mac_table_size),
        Field::new("mac-aging", format_duration(aging), aging == default.mac_aging),
        map_field("hosts", &network.hosts),
        Field::optional("tftp", network.tftp.as_deref().map(path)),
        Field::optional("dhcp", dhcp::value(&network.dhcp)),
        Field::optional("forward", rule::value(&network.forward)),
        Field::optional("loopback", rule::value(&network.loopback)),
        Field::optional("reflect", names(&network.reflect)),
        Field::optional("sflow", export::sflow(network.sflow.as_ref())),
        Field::optional("ipfix", export::ipfix(network.ipfix.as_ref())),
        Field::new("log-dns", network.log_dns, network.log_dns == default.log_dns),
        map_field("external-ids", &network.external_ids),
        map_field("openvswitch", &network.openvswitch),
    ]
}

fn names(protocols: &[Discovery]) -> Option<Value> {
    let names = protocols.iter().map(|protocol| protocol.name());
    (!protocols.is_empty()).then(|| Value::Array(Array::from_iter(names)))
}
