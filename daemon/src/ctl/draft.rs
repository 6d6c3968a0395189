//! The configuration while a transaction edits it.
//!
//! A draft differs from a [`Config`] in one respect: an interface that was touched is kept as the
//! text of its `type` and `options`, because it may be incomplete within a transaction (`add-port
//! lab vm1 -- set Interface vm1 options:path=... -- set Interface vm1 type=...`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use trama_api::nearest::suggestion;
use trama_api::value::quoted;

use super::exports;
use super::failure::Failure;
use super::host_interfaces::HostInterfaces;
use super::identity;
use super::interface_options::{Described, describe, resolve};
use super::options_reader::{Options, ROLE, SERVER_PATH};
use crate::config::model::openvswitch::{Kept, Record, RecordTable};
use crate::config::model::{Config, Interface, Mirror, Network, Port, System, Tap};

/// A configuration under edit.
pub(super) struct Draft {
    config: Config,
    /// Where each network is in the configuration. A command on all records looks up each of them.
    network_places: Places,
    /// The same of ports.
    port_places: Places,
    host: HostInterfaces,
    /// The names of trama's own interfaces before the transaction.
    own: HashSet<String>,
    /// Interfaces that were touched, by port.
    interfaces: BTreeMap<String, InterfaceDraft>,
    /// UUIDs of mirrors that a network is to have, and which are created later, with that network.
    awaited: BTreeMap<String, String>,
}

/// Positions by name.
type Places = HashMap<String, usize>;

fn places<'a>(names: impl Iterator<Item = &'a String>) -> Places {
    names.enumerate().map(|(place, name)| (name.clone(), place)).collect()
}

/// Takes a name out, with its position; what comes after it moves up.
fn take_place(places: &mut Places, name: &str) -> Option<usize> {
    let gone = places.remove(name)?;
    places.values_mut().filter(|place| **place > gone).for_each(|place| *place -= 1);
    Some(gone)
}

/// The table whose columns of Open vSwitch are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Bridge.
    Bridge,
    /// Port.
    Port,
    /// Interface.
    Interface,
    /// Open_vSwitch.
    Root,
    /// A table of records of their own.
    Record,
    /// Mirror, which has no such columns.
    Mirror,
}

struct InterfaceDraft {
    kind: String,
    options: Options,
    /// Whether the transaction states the role, which is else that from before.
    states_role: bool,
    /// The type and options from before the transaction.
    before: (String, Options),
}

impl InterfaceDraft {
    /// The options as an interface of this type, without those from before that others replace.
    fn options_of(&self, kind: &str) -> Options {
        let mut options = self.options.clone();
        let (kind_before, before) = &self.before;
        if kind != kind_before {
            // Options of the old type do not carry over to the new one.
            options.retain(|key, value| before.get(key) != Some(value));
        }
        if options.contains_key(SERVER_PATH) && !self.states_role {
            options.retain(|key, value| *key != ROLE || before.get(key) != Some(value));
        }
        options
    }
}

impl Draft {
    /// Starts from the configuration in force.
    pub(super) fn new(mut config: Config, host: HostInterfaces) -> Draft {
        exports::expose(&mut config);
        let network_places = places(config.networks.iter().map(|network| &network.name));
        let port_places = places(config.ports.iter().map(|port| &port.name));
        let own = config.all_ports().filter_map(|port| match &port.interface {
            Interface::Tap(Tap { ifname, netns: None, .. }) => Some(ifname.clone()),
            _ => None,
        });
        let own = own.collect();
        let (interfaces, awaited) = Default::default();
        Draft { config, network_places, port_places, host, own, interfaces, awaited }
    }

    /// What an interface of this name is that is given no type: the one that the host has, as in
    /// Open vSwitch, else a new TAP.
    fn default_interface(&self, ifname: &str) -> Interface {
        let (ifname, netns) = (ifname.to_owned(), None);
        match !self.own.contains(&ifname) && (self.host.0)(&ifname) {
            true => Interface::System(System { ifname, netns, confirm_uplink: false }),
            false => Interface::Tap(Tap { ifname, netns, address: Vec::new() }),
        }
    }

    /// The configuration as edited so far.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The message for a bridge that does not exist.
    pub(super) fn no_bridge(&self, name: &str) -> Failure {
        let known: Vec<&str> = self.config.networks.iter().map(|it| it.name.as_str()).collect();
        format!("no bridge named {name}{}", suggestion(name, &known)).into()
    }

    /// The message for a port that does not exist.
    pub(super) fn no_port(&self, name: &str) -> Failure {
        self.no("port", name)
    }

    /// The message for an interface, which has its port's name, that does not exist.
    pub(super) fn no_interface(&self, name: &str) -> Failure {
        self.no("interface", name)
    }

    fn no(&self, kind: &str, name: &str) -> Failure {
        let known: Vec<&str> = self.config.ports.iter().map(|it| it.name.as_str()).collect();
        format!("no {kind} named {name}{}", suggestion(name, &known)).into()
    }

    /// The networks, in the file's order.
    pub(super) fn networks(&self) -> &[Network] {
        &self.config.networks
    }

    /// The ports, in the file's order.
    pub(super) fn ports(&self) -> &[Port] {
        &self.config.ports
    }

    /// The network of this name.
    pub(super) fn network(&self, name: &str) -> Option<&Network> {
        self.network_places.get(name).map(|place| &self.config.networks[*place])
    }

    /// The network of this name, to change it.
    pub(super) fn network_mut(&mut self, name: &str) -> Option<&mut Network> {
        self.network_places.get(name).map(|place| &mut self.config.networks[*place])
    }

    /// The port of this name.
    pub(super) fn port(&self, name: &str) -> Option<&Port> {
        self.port_places.get(name).map(|place| &self.config.ports[*place])
    }

    /// The port of this name, to change it.
    pub(super) fn port_mut(&mut self, name: &str) -> Option<&mut Port> {
        self.port_places.get(name).map(|place| &mut self.config.ports[*place])
    }

    /// The names of the ports on a network, sorted.
    pub(super) fn ports_of(&self, network: &str) -> Vec<&str> {
        let on = |port: &&Port| port.network.as_deref() == Some(network);
        let mut names: Vec<_> =
            self.config.ports.iter().filter(on).map(|port| port.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Adds a network with default settings.
    pub(super) fn add_network(&mut self, name: &str) {
        self.network_places.insert(name.to_owned(), self.config.networks.len());
        self.config.networks.push(Network::new(name.to_owned()));
    }

    /// Removes a network with its ports.
    pub(super) fn remove_network(&mut self, name: &str) {
        let ports: Vec<_> = self.ports_of(name).into_iter().map(str::to_owned).collect();
        for port in &ports {
            self.remove_port(port);
        }
        self.config.mirrors.retain(|mirror| mirror.network.as_deref() != Some(name));
        if let Some(place) = take_place(&mut self.network_places, name) {
            self.config.networks.remove(place);
        }
    }

    /// Adds a port to `network`. It is the host's interface of the port's name, or a TAP, until its
    /// interface is given a type.
    pub(super) fn add_port(&mut self, network: &str, name: &str) {
        let port = Port::new(name, self.default_interface(name));
        self.port_places.insert(name.to_owned(), self.config.ports.len());
        self.config.ports.push(Port { network: Some(network.to_owned()), ..port });
    }

    /// Removes a port. Mirrors copy its frames no more, as in Open vSwitch.
    pub(super) fn remove_port(&mut self, name: &str) {
        for mirror in &mut self.config.mirrors {
            mirror.select_src_port.remove(name);
            mirror.select_dst_port.remove(name);
        }
        if let Some(place) = take_place(&mut self.port_places, name) {
            self.config.ports.remove(place);
        }
        self.interfaces.remove(name);
    }

    /// The `type` and `options` of a port's interface.
    pub(super) fn interface(&self, port: &str) -> (String, Options) {
        if let Some(draft) = self.interfaces.get(port) {
            return (draft.kind.clone(), draft.options.clone());
        }
        self.port(port).map(describe).unwrap_or_default()
    }

    /// Sets the `type` of a port's interface.
    pub(super) fn set_kind(&mut self, port: &str, kind: String) {
        self.edit_interface(port).kind = kind;
    }

    /// Sets the `options` of a port's interface.
    pub(super) fn set_options(&mut self, port: &str, options: Options) {
        self.edit_interface(port).options = options;
    }

    /// Notes that the transaction states the role of a port's interface.
    pub(super) fn state_role(&mut self, port: &str) {
        self.edit_interface(port).states_role = true;
    }

    /// The file of a port's socket, if it has one.
    pub(super) fn socket_file(&self, port: &str) -> Option<PathBuf> {
        let folders = &self.config.daemon.folders;
        match self.interfaces.get(port) {
            None => self.port(port)?.interface.socket_file(port, folders),
            Some(draft) => {
                let described = resolve(port, &draft.kind, draft.options_of(&draft.kind)).ok()?;
                described.interface.socket_file(port, folders)
            }
        }
    }

    fn edit_interface(&mut self, port: &str) -> &mut InterfaceDraft {
        let (kind, options) = self.interface(port);
        self.interfaces.entry(port.to_owned()).or_insert_with(|| InterfaceDraft {
            before: (kind.clone(), options.clone()),
            kind,
            options,
            states_role: false,
        })
    }

    /// The mirrors.
    pub(super) fn mirrors(&self) -> &[Mirror] {
        &self.config.mirrors
    }

    /// The mirror of this UUID.
    pub(super) fn mirror(&self, uuid: &str) -> Option<&Mirror> {
        self.config.mirrors.iter().find(|mirror| identity::of_mirror(mirror) == uuid)
    }

    /// The mirror of this UUID, to change it.
    pub(super) fn mirror_mut(&mut self, uuid: &str) -> Option<&mut Mirror> {
        self.config.mirrors.iter_mut().find(|mirror| identity::of_mirror(mirror) == uuid)
    }

    /// Adds a mirror, on the network that awaits it, if one does.
    pub(super) fn add_mirror(&mut self, uuid: String) {
        let network = self.awaited.remove(&uuid);
        self.config.mirrors.push(Mirror { uuid: Some(uuid), network, ..Mirror::default() });
    }

    /// A network is to have a mirror of this UUID, which is not there yet.
    pub(super) fn await_mirror(&mut self, uuid: String, network: &str) {
        self.awaited.insert(uuid, network.to_owned());
    }

    /// Removes a mirror.
    pub(super) fn remove_mirror(&mut self, uuid: &str) {
        self.config.mirrors.retain(|mirror| identity::of_mirror(mirror) != uuid);
    }

    /// The record of this UUID.
    pub(super) fn record(&self, uuid: &str) -> Option<&Record> {
        self.config.records.iter().find(|record| record.name == uuid)
    }

    /// The UUIDs of a table's records, sorted.
    pub(super) fn records_of(&self, table: RecordTable) -> Vec<String> {
        let of_table = self.config.records.iter().filter(|record| record.table == table);
        let mut uuids: Vec<_> = of_table.map(|record| record.name.clone()).collect();
        uuids.sort_unstable();
        uuids
    }

    /// The UUIDs of a table's records that have this text in a column.
    pub(super) fn records_with(&self, table: RecordTable, column: &str, text: &str) -> Vec<String> {
        let text = quoted(text);
        let is_it = |it: &&Record| it.table == table && it.columns.get(column) == Some(&text);
        self.config.records.iter().filter(is_it).map(|record| record.name.clone()).collect()
    }

    /// Whether a bridge refers to the record of this UUID.
    pub(super) fn is_referred_to(&self, uuid: &str) -> bool {
        let mut networks = self.config.networks.iter();
        self.mirror(uuid).is_some_and(|mirror| mirror.network.is_some())
            || networks.any(|network| network.openvswitch.values().any(|value| value == uuid))
    }

    /// The record that a column of a bridge refers to.
    pub(super) fn referred_by(&self, bridge: &str, column: &str) -> Vec<String> {
        let uuid = self.network(bridge).and_then(|network| network.openvswitch.get(column));
        uuid.cloned().into_iter().collect()
    }

    /// Adds a record.
    pub(super) fn add_record(&mut self, record: Record) {
        self.config.records.push(record);
    }

    /// Removes a record.
    pub(super) fn remove_record(&mut self, uuid: &str) {
        self.config.records.retain(|record| record.name != uuid);
    }

    /// The kept columns of a record.
    pub(super) fn kept(&self, place: Place, record: &str) -> Option<&Kept> {
        match place {
            Place::Bridge => self.network(record).map(|it| &it.openvswitch),
            Place::Port => self.port(record).map(|it| &it.openvswitch),
            Place::Interface => self.port(record).map(|it| &it.openvswitch_interface),
            Place::Root => Some(&self.config.daemon.openvswitch),
            Place::Record => self.record(record).map(|it| &it.columns),
            Place::Mirror => None,
        }
    }

    /// The kept columns of a record, to change them.
    pub(super) fn kept_mut(&mut self, place: Place, record: &str) -> Option<&mut Kept> {
        match place {
            Place::Bridge => self.network_mut(record).map(|it| &mut it.openvswitch),
            Place::Port => self.port_mut(record).map(|it| &mut it.openvswitch),
            Place::Interface => self.port_mut(record).map(|it| &mut it.openvswitch_interface),
            Place::Root => Some(&mut self.config.daemon.openvswitch),
            Place::Mirror => None,
            Place::Record => {
                let mut records = self.config.records.iter_mut();
                records.find(|it| it.name == record).map(|it| &mut it.columns)
            }
        }
    }

    /// The edited configuration, not validated yet.
    ///
    /// # Errors
    /// An interface's type and options do not fit together, or a network is to have a mirror that
    /// there is not.
    pub(super) fn finish(mut self) -> Result<Config, Failure> {
        if let Some((uuid, network)) = self.awaited.pop_first() {
            return Err(format!(
                "there is no mirror {uuid}; create it in this transaction: -- --id=@m create \
                 Mirror name=m0 select_all=true output_port=@p -- add Bridge {network} mirrors @m"
            )
            .into());
        }
        self.config.mirrors.retain(|mirror| mirror.network.is_some());
        exports::take(&mut self.config)?;
        self.config.records.retain(|record| RecordTable::LASTING.contains(&record.table));
        for (name, draft) in std::mem::take(&mut self.interfaces) {
            let mut kind = draft.kind.clone();
            if self.port(&name).is_some_and(|it| matches!(it.interface, Interface::Attached(_))) {
                return Err(format!(
                    "Interface {name}: its device was attached by its descriptor, and has no type \
                     and options to set; detach {name} first"
                )
                .into());
            }
            if kind.is_empty() {
                let ifname = draft.options.get("ifname").unwrap_or(&name);
                kind = describe(&Port::new(&name, self.default_interface(ifname))).0;
            }
            let described = resolve(&name, &kind, draft.options_of(&kind))?;
            if let Some(port) = self.port_mut(&name) {
                let Described { interface, socket, memory } = described;
                (port.interface, port.socket, port.memory) = (interface, socket, memory);
            }
        }
        Ok(self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Role, VhostUser};

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn type_and_options_may_come_in_any_order() {
        let path = options(&[("path", "/x")]);
        let expected =
            Interface::VhostUser(VhostUser { path: "/x".into(), role: Role::Server, queues: 1 });
        for kind_first in [true, false] {
            let mut draft = Draft::new(Config::default(), HostInterfaces::default());
            draft.add_port("lab", "p");
            if kind_first {
                draft.set_kind("p", "vhost-user".into());
            }
            draft.set_options("p", path.clone());
            draft.set_kind("p", "vhost-user".into());
            assert_eq!(draft.finish().unwrap().ports[0].interface, expected);
        }
    }

    #[test]
    fn a_new_type_drops_the_old_types_options_but_a_restated_one_keeps_them() {
        let mut draft = Draft::new(Config::default(), HostInterfaces::default());
        draft.add_port("lab", "p");
        let (_, mut tap) = draft.interface("p");
        tap.insert("netns".into(), "h1".into());
        draft.set_options("p", tap);
        let config = draft.finish().unwrap();

        let mut draft = Draft::new(config.clone(), HostInterfaces::default());
        draft.set_kind("p", "tap".into());
        assert_eq!(draft.finish().unwrap(), config);

        let mut draft = Draft::new(config, HostInterfaces::default());
        let (_, mut both) = draft.interface("p");
        both.insert("path".into(), "/x".into());
        draft.set_options("p", both);
        draft.set_kind("p", "vhost-user".into());
        assert!(matches!(draft.finish().unwrap().ports[0].interface, Interface::VhostUser(_)));
    }

    #[test]
    fn an_interface_that_the_host_has_and_is_not_its_own_joins() {
        let host = HostInterfaces(|name| name != "new");
        let mut draft = Draft::new(Config::default(), host);
        let names = ["eth1", "new", "own", "typed", "unset"];
        names.iter().for_each(|name| draft.add_port("lab", name));
        draft.set_kind("own", "internal".into());
        draft.set_kind("typed", "internal".into());
        draft.set_kind("unset", String::new());
        let kinds = |config: &Config| -> Vec<String> {
            config.ports.iter().map(|port| describe(port).0).collect()
        };
        let config = draft.finish().unwrap();
        assert_eq!(kinds(&config), ["system", "tap", "tap", "tap", "system"]);
        // In the transaction that removes it, its device is still there.
        let mut draft = Draft::new(config, host);
        draft.remove_port("own");
        draft.add_port("lab", "own");
        assert_eq!(kinds(&draft.finish().unwrap()), ["system", "tap", "tap", "system", "tap"]);
    }

    #[test]
    fn a_port_removed_and_added_again_forgets_its_interface() {
        let mut draft = Draft::new(Config::default(), HostInterfaces::default());
        draft.add_port("lab", "p");
        draft.set_kind("p", "nonsense".into());
        draft.remove_port("p");
        draft.add_port("lab", "p");
        assert!(matches!(draft.finish().unwrap().ports[0].interface, Interface::Tap(_)));
    }
}
