//! Keys of the store, and the ranges of keys that a host reads and watches.
//!
//! | key | row | written by |
//! |---|---|---|
//! | `meta` | [`crate::row::Meta`] | the command that founds the cluster |
//! | `host/HOST` | [`crate::row::Host`] | the host |
//! | `live/HOST` | [`crate::row::Live`], with a lease | the host |
//! | `net/NETWORK` | [`crate::row::Net`] | operators |
//! | `vni/VNI` | the network's name, so that no VNI is used twice | operators |
//! | `port/PORT` | [`crate::row::Port`] | the host with the port |
//! | `n/VNI/h/HOST` | [`crate::row::Member`] | the host |
//! | `n/VNI/b/ADDRESS` | [`crate::row::Block`] | the host with the block |
//! | `n/VNI/m/VLAN.MAC` | [`crate::row::Station`] | the host with the station |
//!
//! A VNI has six hexadecimal digits. Keys are relative: a store puts the prefix of its cluster
//! before them ([`prefix`]). Keys of other families are ignored, so that hosts of a later version
//! can write them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use trama_frame::vxlan::Vni;
use trama_frame::{MacAddr, VlanId};

use crate::Name;

/// What stands before every key of a cluster, with a version of the layout in it.
pub fn prefix(cluster: &Name) -> String {
    format!("/trama/v1/{cluster}/")
}

/// A station of a network: its VLAN and MAC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StationKey {
    /// The VLAN; 0 is untagged.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
}

/// The key of a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// The format of the rows.
    Meta,
    /// A host.
    Host(Name),
    /// A host that is connected to the store.
    Live(Name),
    /// The definition of a network.
    Net(Name),
    /// The network of a VNI.
    Vni(Vni),
    /// The host of a port.
    Port(Name),
    /// A host with ports in a network.
    Member(Vni, Name),
    /// The host of a block of addresses, by the first of them.
    Block(Vni, Ipv4Addr),
    /// The host of a station.
    Station(Vni, StationKey),
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Meta => out.write_str("meta"),
            Key::Host(host) => write!(out, "host/{host}"),
            Key::Live(host) => write!(out, "live/{host}"),
            Key::Net(network) => write!(out, "net/{network}"),
            Key::Vni(vni) => write!(out, "vni/{:06x}", vni.get()),
            Key::Port(port) => write!(out, "port/{port}"),
            Key::Member(vni, host) => write!(out, "n/{:06x}/h/{host}", vni.get()),
            Key::Block(vni, first) => write!(out, "n/{:06x}/b/{first}", vni.get()),
            Key::Station(vni, StationKey { vlan, mac }) => {
                write!(out, "n/{:06x}/m/{}.{mac}", vni.get(), vlan.get())
            }
        }
    }
}

/// Why a text is not a [`Key`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The family is not known; another version may have written the key.
    #[error("a key of an unknown family")]
    Unknown,
    /// The family is known and the rest does not have its form.
    #[error("a key of the wrong form")]
    Form,
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Key, KeyError> {
        let (family, rest) = text.split_once('/').unwrap_or((text, ""));
        let key = match family {
            "meta" => rest.is_empty().then_some(Key::Meta),
            "host" => name(rest).map(Key::Host),
            "live" => name(rest).map(Key::Live),
            "net" => name(rest).map(Key::Net),
            "vni" => vni(rest).map(Key::Vni),
            "port" => name(rest).map(Key::Port),
            "n" => {
                let (number, rest) = rest.split_once('/').ok_or(KeyError::Form)?;
                let (family, rest) = rest.split_once('/').ok_or(KeyError::Form)?;
                let vni = vni(number).ok_or(KeyError::Form)?;
                match family {
                    "h" => name(rest).map(|host| Key::Member(vni, host)),
                    "b" => rest.parse().ok().map(|first| Key::Block(vni, first)),
                    "m" => station(rest).map(|station| Key::Station(vni, station)),
                    _ => return Err(KeyError::Unknown),
                }
            }
            _ => return Err(KeyError::Unknown),
        };
        // Each key has one text: "010.52:54:…" and capital digits are not what a host writes.
        key.filter(|key| key.to_string() == text).ok_or(KeyError::Form)
    }
}

fn name(text: &str) -> Option<Name> {
    text.parse().ok()
}

fn vni(text: &str) -> Option<Vni> {
    Vni::new(u32::from_str_radix(text, 16).ok()?)
}

fn station(text: &str) -> Option<StationKey> {
    let (vlan, mac) = text.split_once('.')?;
    // The standard reserves VLAN 4095 (IEEE 802.1Q-2022, table 9-2).
    let vlan = VlanId::new(vlan.parse().ok()?).filter(|vlan| *vlan != VlanId::MAX)?;
    Some(StationKey { vlan, mac: mac.parse().ok()? })
}

/// A range of keys that is read and watched as a whole.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// The row of a host: one key.
    Host(Name),
    /// The definition of a network: one key.
    Net(Name),
    /// The host of a port: one key.
    Port(Name),
    /// Everything of a network: the keys that begin with `n/VNI/`.
    Network(Vni),
}

impl Scope {
    /// Whether a key lies in the range.
    pub fn contains(&self, key: &Key) -> bool {
        match (self, key) {
            (Scope::Host(mine), Key::Host(host)) => mine == host,
            (Scope::Net(mine), Key::Net(network)) => mine == network,
            (Scope::Port(mine), Key::Port(port)) => mine == port,
            (
                Scope::Network(mine),
                Key::Member(vni, _) | Key::Block(vni, _) | Key::Station(vni, _),
            ) => mine == vni,
            _ => false,
        }
    }
}

/// The key of a host, network or port, or the prefix of the keys of a network.
impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Host(host) => write!(out, "host/{host}"),
            Scope::Net(network) => write!(out, "net/{network}"),
            Scope::Port(port) => write!(out, "port/{port}"),
            Scope::Network(vni) => write!(out, "n/{:06x}/", vni.get()),
        }
    }
}

impl FromStr for Scope {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Scope, KeyError> {
        let network = text.strip_prefix("n/").and_then(|rest| rest.strip_suffix('/'));
        if let Some(number) = network {
            return vni(number).map(Scope::Network).ok_or(KeyError::Form);
        }
        match text.parse()? {
            Key::Host(host) => Ok(Scope::Host(host)),
            Key::Net(network) => Ok(Scope::Net(network)),
            Key::Port(port) => Ok(Scope::Port(port)),
            _ => Err(KeyError::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_key, any_scope};

    proptest! {
        #[test]
        fn a_key_is_read_back_from_its_text(key in any_key()) {
            prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key));
        }

        #[test]
        fn a_scope_is_read_back_and_begins_its_keys(scope in any_scope(), key in any_key()) {
            prop_assert_eq!(scope.to_string().parse::<Scope>(), Ok(scope.clone()));
            let text = key.to_string();
            let begins = match scope {
                Scope::Network(_) => text.starts_with(&scope.to_string()),
                _ => text == scope.to_string(),
            };
            prop_assert_eq!(scope.contains(&key), begins);
        }

        #[test]
        fn a_text_is_the_key_that_it_is_read_as(
            text in "(n|vni|port|meta|host)(/[0-9a-fhbm.:]{0,20}){0,3}"
        ) {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }

    #[test]
    fn keys_of_other_families_are_not_malformed() {
        for text in ["policy/acl/web", "gc/leader", "n/00004d/l/10.0.0.1", "n/00004d/lb/a/b", ""] {
            assert_eq!(text.parse::<Key>(), Err(KeyError::Unknown), "{text}");
        }
        for text in [
            "port/",
            "port/a/b",
            "vni/77",
            "vni/1000000",
            "vni/+0004d",
            "n/00004d",
            "n/00004d/h/",
            "n/00004D/h/h1",
            "n/00004d/m/010.52:54:00:00:00:01",
            "n/00004d/m/4095.52:54:00:00:00:01",
            "n/00004d/m/52:54:00:00:00:01",
            "n/00004d/b/10.0.0",
            "meta/x",
        ] {
            assert_eq!(text.parse::<Key>(), Err(KeyError::Form), "{text}");
        }
    }
}
