//! Further connections of stream ports: each is a port of its own, with the settings of the port
//! whose socket it has come by.

use std::collections::HashSet;

use crate::config::model::{Config, Interface, Port};

impl Port {
    /// The port of a further connection, the `number`th.
    pub(crate) fn connection(&self, number: u16) -> Port {
        Port {
            name: connection_name(&self.name, number),
            connection_of: Some(self.name.clone()),
            // What one guest has, another one cannot have.
            addresses: Vec::new(),
            names: Vec::new(),
            forward: Vec::new(),
            ..self.clone()
        }
    }

    /// How many connections it may have at a time.
    pub(crate) fn connections(&self) -> u16 {
        match &self.interface {
            Interface::Stream(device) if self.connection_of.is_none() => device.connections,
            _ => 0,
        }
    }
}

/// The name of the port of a further connection.
pub(crate) fn connection_name(port: &str, number: u16) -> String {
    format!("{port}.{number}")
}

impl Config {
    /// The name and number of the next further connection of a port; `None` if there is no such
    /// port, or each name is taken.
    pub(crate) fn free_connection(&self, port: &str) -> Option<Port> {
        let parent = self.port(port)?;
        let names: HashSet<&str> = self.ports.iter().map(|port| port.name.as_str()).collect();
        let is_free = |number: &u16| {
            let name = connection_name(port, *number);
            !names.contains(name.as_str()) && self.network(&name).is_none()
        };
        let number = (2..=parent.connections()).find(is_free)?;
        Some(parent.connection(number))
    }

    /// Gives each further connection the settings of its port, and removes those whose port is gone
    /// or may have fewer.
    pub(crate) fn follow_connections(&mut self) {
        let parents: Vec<Port> =
            self.ports.iter().filter(|port| port.connections() > 1).cloned().collect();
        let followed = |port: &Port| {
            let parent = parents.iter().find(|it| Some(&it.name) == port.connection_of.as_ref())?;
            let number = port.name.rsplit('.').next()?.parse().ok()?;
            (number <= parent.connections()).then(|| parent.connection(number))
        };
        self.ports.retain_mut(|port| match port.is_connection().then(|| followed(port)) {
            None => true,
            Some(Some(new)) => {
                *port = new;
                true
            }
            Some(None) => false,
        });
    }
}
