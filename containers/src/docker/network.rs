//! A network of Docker stands for one of trama, which is made if it is absent.
//!
//! Docker tells a driver of a network once, and later only the network's ID. What is needed then is
//! in the column `external_ids` of trama's network, so that it outlives this program.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trama_api::value::{Atom, Value as Cell};
use trama_client::{Daemon, Failed};

use super::types::{CreateNetwork, Pool};
use crate::names;
use crate::networks::{self, NETWORK, New, VLAN};
use crate::ports::rows;

/// Labels of Docker's options.
const GENERIC: &str = "com.docker.network.generic";
const INTERNAL: &str = "com.docker.network.internal";
/// How the keys of notes begin; Docker's ID of the network follows.
const NOTE: &str = "docker-network-";
/// The key of networks that were made for Docker.
const MADE: &str = "docker";
/// Digits of Docker's ID in the name of a network that has no other.
const SHORT_ID: usize = 12;

/// What is noted of a network of Docker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The default gateways of its containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
}

/// A network of trama that stands for one of Docker.
#[derive(Debug, PartialEq)]
pub(super) struct Known {
    pub name: String,
    pub note: Note,
    /// Whether it was made for Docker and has neither other networks of Docker nor ports.
    pub is_disposable: bool,
}

/// The key of a network's note.
fn note_key(id: &str) -> String {
    format!("{NOTE}{id}")
}

/// Carries out `CreateNetwork`.
pub(super) fn create(daemon: &Daemon, request: &CreateNetwork) -> Result<(), Failed> {
    super::check_id("NetworkID", &request.network)?;
    let options = options(request)?;
    let own = format!("docker-{}", &request.network[..SHORT_ID]);
    let name = options.get(NETWORK).map_or(own, Clone::clone);
    let vlan = options.get(VLAN).map(|text| networks::vlan(text)).transpose()?;
    let is_internal = request.options.get(INTERNAL) == Some(&Value::Bool(true));
    let pools: Vec<&Pool> = request.ipv4.iter().chain(&request.ipv6).collect();
    let subnets: Vec<IpNet> = pools.iter().map(|it| it.pool).collect();
    let found = networks::find(daemon, &name)?;
    let known = found.as_ref().map_or(&subnets, |found| &found.subnets);
    // A network without subnets leaves addresses, and a router among its guests, to Docker.
    if found.is_none() || !known.is_empty() {
        for pool in &pools {
            let gateway = pool.gateway.map(|it| it.addr());
            networks::check_subnet(pool.pool, gateway, &name, known)?;
        }
    }
    let leads_out = found.as_ref().is_none_or(|it| it.has_nat() || it.subnets.is_empty());
    let gateways = pools.iter().filter_map(|it| it.gateway).filter(|_| leads_out && !is_internal);
    let note = Note { vlan, gateways: gateways.map(|it| it.addr()).collect() };
    let note = serde_json::to_string(&note).map_err(|error| error.to_string())?;
    let noted = names::external_id(&note_key(&request.network), &note);
    if found.is_some() {
        return daemon.run(["set", "Bridge", &name, &noted]).map(drop);
    }
    let noted = vec![noted, names::external_id(MADE, "made")];
    networks::make(daemon, New { name: &name, is_internal, subnets: &subnets, noted })
}

/// The options of `docker network create -o`.
fn options(request: &CreateNetwork) -> Result<BTreeMap<String, String>, String> {
    let options = request.options.get(GENERIC).cloned().unwrap_or(Value::Null);
    let options: Option<BTreeMap<String, String>> =
        serde_json::from_value(options).map_err(|error| format!("Options.{GENERIC}: {error}"))?;
    let options = options.unwrap_or_default();
    networks::check_options(options.keys().map(String::as_str))?;
    Ok(options)
}

/// Finds the network that stands for one of Docker.
pub(super) fn find(daemon: &Daemon, id: &str) -> Result<Option<Known>, Failed> {
    let rows = rows(daemon.run(["--columns=name,external_ids,ports", "list", "Bridge"])?);
    let key = note_key(id);
    for row in rows {
        let Ok([Cell::One(Atom::String(name)), Cell::Map(map), ports]) = <[Cell; 3]>::try_from(row)
        else {
            continue;
        };
        let noted: BTreeMap<String, String> =
            map.iter().map(|(key, value)| (key.bare(), value.bare())).collect();
        if let Some(note) = noted.get(&key) {
            let wrong = |error| format!("external_ids:{key} of network {name}: {error}");
            let note = serde_json::from_str(note).map_err(wrong)?;
            let is_shared = noted.keys().any(|it| it.starts_with(NOTE) && *it != key);
            let is_disposable = noted.contains_key(MADE) && !is_shared && ports.is_empty();
            return Ok(Some(Known { name: name.to_string(), note, is_disposable }));
        }
    }
    Ok(None)
}

/// The same, for a network that has containers.
pub(super) fn get(daemon: &Daemon, id: &str) -> Result<Known, Failed> {
    find(daemon, id)?.ok_or_else(|| {
        format!(
            "no network of trama has the key {} in its external_ids, which docker network create \
             sets; make Docker's network again: docker network rm, docker network create",
            note_key(id)
        )
        .into()
    })
}

/// Carries out `DeleteNetwork`. A network that was made for Docker goes with it, unless other
/// guests are left.
pub(super) fn delete(daemon: &Daemon, id: &str) -> Result<(), Failed> {
    let Some(Known { name, is_disposable, .. }) = find(daemon, id)? else { return Ok(()) };
    let key = note_key(id);
    match is_disposable {
        true => daemon.run(["--if-exists", "del-br", &name]),
        false => daemon.run(["--if-exists", "remove", "Bridge", &name, "external_ids", &key]),
    }
    .map(drop)
}
