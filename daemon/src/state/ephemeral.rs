//! Ephemeral ports: they are in no file, and outlive a switch but not the daemon.

use trama_helper::Rights;
use trama_switch::TapParts;

use super::{Committed, Daemon, Inner, TransactError, TransactOptions};
use crate::apply::DataPlane;
use crate::config::model::{Attached, Config, DaemonConfig, Interface, Port};
use crate::config::{edit, ports_of, validate};
use crate::plan::plan;

impl Daemon {
    /// Adds a port on a device whose descriptor was handed over. `edit` adds the port to a draft,
    /// with any interface, and returns its name.
    ///
    /// # Errors
    /// Nothing has changed, and the device is closed.
    pub fn attach<E>(
        &self,
        ifname: &str,
        parts: TapParts,
        mut edit: impl FnMut(&mut Config) -> Result<String, E>,
    ) -> Result<Committed<String>, TransactError<E>> {
        let id = self.lock().data_plane.attached.deposit(parts);
        let options = TransactOptions { dry_run: false, save: true };
        let done = self.transact(options, |config| {
            let name = edit(config)?;
            let port = config.ports.iter_mut().find(|port| port.name == name);
            if let Some(port) = port {
                port.interface = Interface::Attached(Attached { ifname: ifname.to_owned(), id });
                port.ephemeral = true;
            }
            Ok(name)
        });
        if done.is_err() {
            self.lock().data_plane.attached.discard(id);
        }
        done
    }

    /// Adds an ephemeral port whose device the daemon makes. `edit` adds the port to a draft, and
    /// returns its name.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn attach_socket<E>(
        &self,
        mut edit: impl FnMut(&mut Config) -> Result<String, E>,
    ) -> Result<Committed<String>, TransactError<E>> {
        let options = TransactOptions { dry_run: false, save: true };
        self.transact(options, |config| {
            let name = edit(config)?;
            if let Some(port) = config.ports.iter_mut().find(|port| port.name == name) {
                port.ephemeral = true;
            }
            Ok(name)
        })
    }

    /// Removes an ephemeral port, if it is there.
    pub fn detach(&self, name: &str) {
        self.lock_to_change().end_ports(&[name.to_owned()]);
    }
}

impl Inner {
    /// Removes those of these ports that are ephemeral.
    pub(super) fn end_ports(&mut self, names: &[String]) {
        let ends = |port: &Port| port.ephemeral && names.contains(&port.name);
        if !self.config.ports.iter().any(ends) {
            return;
        }
        let mut config = self.config.clone();
        config.ports.retain(|port| !ends(port));
        let steps = plan(&self.config, &config);
        self.change_to(config, &steps);
    }

    /// Gives the keeper the ephemeral ports, if they have changed since `before`.
    pub(super) fn keep_ephemeral(&self, before: &Config) {
        if !before.ephemeral().eq(self.config.ephemeral()) {
            keep(&self.rights, &self.config);
        }
    }
}

/// Adds the ephemeral ports of the configuration in force to one that was read, as far as they
/// still fit.
pub(super) fn carry_over(from: &Config, to: &mut Config) {
    add(to, from.ephemeral().cloned());
}

/// Adds those that an earlier switch had, with their devices.
pub(super) fn resume(rights: &Rights, data_plane: &mut DataPlane, config: &mut Config) {
    let text = rights.kept_ephemeral().unwrap_or_default();
    let ports = ports_of(&text, &config.daemon.folders).into_iter().map(|mut port| {
        port.ephemeral = true;
        if let (Interface::Tap(tap), Some((parts, entry))) =
            (&port.interface, rights.kept_attached(&port.name))
        {
            let id = data_plane.attached.adopt(parts, entry);
            port.interface = Interface::Attached(Attached { ifname: tap.ifname.clone(), id });
        }
        port
    });
    let ports: Vec<Port> = ports.collect();
    add(config, ports.into_iter());
    data_plane.attached.retain(config);
}

/// Adds ports one by one, if the whole breaks a rule with all of them.
fn add(config: &mut Config, ports: impl Iterator<Item = Port>) {
    let ports: Vec<Port> = ports.collect();
    let lasting = config.ports.len();
    config.ports.extend(ports.iter().cloned());
    if ports.is_empty() || validate(config).is_empty() {
        return;
    }
    config.ports.truncate(lasting);
    for port in ports {
        let name = port.name.clone();
        config.ports.push(port);
        if let Some(problem) = validate(config).first() {
            tracing::warn!("port {name}, which was ephemeral, ends: {problem}");
            config.ports.pop();
        }
    }
}

fn keep(rights: &Rights, config: &Config) {
    let daemon = DaemonConfig::at(config.daemon.folders.clone());
    let nothing = Config { daemon, ..Config::default() };
    // As if they belonged into a file.
    let ports = config.ephemeral().cloned().map(|port| Port { ephemeral: false, ..port }).collect();
    let ephemeral = Config { ports, ..nothing.clone() };
    match edit("", &nothing, &ephemeral) {
        Ok(text) => rights.keep_ephemeral(&text),
        Err(fault) => tracing::error!("ephemeral ports end with this switch: {fault}"),
    }
}
