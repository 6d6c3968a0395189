//! Ephemeral ports: they are in no file, and outlive a switch but not the daemon.

use trama_helper::{Entry, Rights};

use super::{Committed, Daemon, Inner, TransactError, TransactOptions};
use crate::apply::DataPlane;
use crate::config::model::{Config, DaemonConfig, Interface, Port};
use crate::config::{edit, ports_of, validate};
use crate::handed::{self, Handed, HandedDevice};
use crate::plan::plan;

impl Daemon {
    /// Adds a port on a device or socket that was handed over. `edit` adds the port to a draft,
    /// with any interface, and returns its name.
    ///
    /// # Errors
    /// Nothing has changed, and the device is closed.
    pub(crate) fn attach<E>(
        &self,
        handed: Handed,
        mut edit: impl FnMut(&mut Config) -> Result<String, E>,
    ) -> Result<Committed<String>, TransactError<E>> {
        let attached = self.lock().data_plane.attached.deposit(handed);
        let id = attached.id;
        let options = TransactOptions { dry_run: false, save: true };
        let done = self.transact(options, |config| {
            let name = edit(config)?;
            let port = config.ports.iter_mut().find(|port| port.name == name);
            if let Some(port) = port {
                port.interface = Interface::Attached(attached.clone());
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
    let ports = ports_of(&text, &config.daemon.folders).into_iter().filter_map(|mut port| {
        port.ephemeral = true;
        match kept(rights, &port) {
            Some(Ok((handed, entry))) => {
                port.interface = Interface::Attached(data_plane.attached.adopt(handed, entry));
            }
            Some(Err(reason)) => {
                tracing::warn!("port {}, which was ephemeral, ends: {reason}", port.name);
                return None;
            }
            None => {}
        }
        Some(port)
    });
    let ports: Vec<Port> = ports.collect();
    add(config, ports.into_iter());
    data_plane.attached.retain(config);
}

/// Returns the device or socket that an earlier switch was handed for a port.
fn kept(rights: &Rights, port: &Port) -> Option<Result<(Handed, Entry), String>> {
    match &port.interface {
        Interface::Tap(tap) => {
            let (parts, entry) = rights.kept_attached(&port.name)?;
            let (place, device) = (tap.ifname.clone(), HandedDevice::Tap(parts));
            Some(Ok((Handed { place, device }, entry)))
        }
        Interface::Dgram(_) | Interface::VhostUser(_) => {
            let (socket, entry) = rights.kept_attached_socket(&port.name)?;
            Some(handed::socket(socket).map(|handed| (handed, entry)))
        }
        _ => None,
    }
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
    let ports = config.ephemeral().filter(|port| !port.ends_with_connection());
    let ports = ports.cloned().map(|port| Port { ephemeral: false, ..port }).collect();
    let ephemeral = Config { ports, ..nothing.clone() };
    match edit("", &nothing, &ephemeral) {
        Ok(text) => rights.keep_ephemeral(&text),
        Err(fault) => tracing::error!("ephemeral ports end with this switch: {fault}"),
    }
}
