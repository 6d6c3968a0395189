//! Reads the `options` column of an interface, key by key.

use std::collections::BTreeMap;

use trama_vhost_net_backend::access::parse_mode;

use super::failure::Failure;
use crate::config::model::Role;
use crate::config::model::socket::{SocketAccess, SocketMode};

/// The `options` column.
pub(super) type Options = BTreeMap<String, String>;

/// Which side listens.
pub(super) const ROLE: &str = "role";
/// Open vSwitch's name for a path that the daemon connects to.
pub(super) const SERVER_PATH: &str = "vhost-server-path";

/// Removes options one by one; those that remain are unknown.
pub(super) struct Reader<'a> {
    pub(super) port: &'a str,
    pub(super) kind: &'a str,
    pub(super) options: Options,
}

impl Reader<'_> {
    pub(super) fn role(&mut self) -> Result<Option<Role>, Failure> {
        let Some(text) = self.options.remove(ROLE) else { return Ok(None) };
        let remedy = "use server (the daemon listens) or client (the daemon connects)";
        let role = text.parse().map_err(|_| self.problem(ROLE, &text, remedy))?;
        Ok(Some(role))
    }

    pub(super) fn socket_access(&mut self) -> Result<SocketAccess, Failure> {
        let mode = self.options.remove("socket-mode").map(|text| {
            let mode = parse_mode(&text).map(SocketMode);
            mode.map_err(|_| self.problem("socket-mode", &text, "use 0600 to 0666"))
        });
        Ok(SocketAccess {
            owner: self.options.remove("socket-owner"),
            group: self.options.remove("socket-group"),
            mode: mode.transpose()?,
        })
    }

    pub(super) fn required(&mut self, key: &str, example: &str) -> Result<String, Failure> {
        let value = self.options.remove(key).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| {
            format!(
                "Interface {port}: type {kind} needs options:{key}; for example: set \
                 Interface {port} options:{key}={example}",
                port = self.port,
                kind = self.kind,
            )
        });
        Ok(value?)
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<u16>, Failure> {
        let Some(text) = self.options.remove(key) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.problem(key, &text, "use a whole number from 1").into()),
        }
    }

    pub(super) fn problem(&self, key: &str, value: &str, remedy: &str) -> String {
        format!("Interface {}: options:{key}=\"{value}\" is not valid; {remedy}", self.port)
    }
}
