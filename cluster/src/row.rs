//! Rows of the store: small JSON objects. Fields that are not known are ignored, so that a later
//! version can add some.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trama_frame::vxlan::Vni;

use crate::{Name, Refusal};

/// Longest value of a row, in octets.
pub const MAX_LEN: usize = 1024;
/// Most underlay addresses of a host.
const MAX_VTEPS: usize = 4;

/// `meta`: the gate for changes that older versions cannot read.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Meta {
    /// [`Meta::FORMAT`], or that of a later version.
    pub format: u32,
}

impl Meta {
    /// The format of these rows.
    pub const FORMAT: u32 = 1;
}

/// `host/HOST`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Host {
    /// Its addresses on the underlay.
    #[serde(deserialize_with = "vteps")]
    pub vtep: Vec<IpAddr>,
    /// Identifies the boot of the machine; another one is another machine of the same name, or the
    /// same after a reboot.
    pub boot: String,
    /// Rises with each start of the host's agent, and when its rows are removed for it
    /// (`cluster drain`): an agent with an older epoch has missed that.
    pub epoch: u64,
}

/// `live/HOST`, with the lease of the host's session: it goes when the host does.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Live {
    /// The epoch of the host.
    pub epoch: u64,
}

/// `net/NETWORK`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Net {
    /// Its VXLAN network identifier.
    #[serde(deserialize_with = "vni", serialize_with = "vni_number")]
    pub vni: Vni,
    /// The subnet whose addresses the hosts lease; `None` without DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
}

impl Net {
    /// The first addresses of the blocks that make up the subnet. A subnet smaller than a block is
    /// one.
    pub fn blocks(&self) -> impl Iterator<Item = Ipv4Addr> {
        let range = self.subnet.map(|subnet| {
            let (first, last) = (subnet.network().to_bits(), subnet.broadcast().to_bits());
            (first..=last).step_by(Block::LEN as usize).map(Ipv4Addr::from_bits)
        });
        range.into_iter().flatten()
    }
}

/// `port/PORT`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Port {
    /// The host on which it runs.
    #[serde(rename = "h")]
    pub host: Name,
    /// Its network.
    #[serde(rename = "n")]
    pub network: Name,
    /// Rises when the port moves to another host.
    #[serde(rename = "s")]
    pub seq: u32,
    /// The epoch of the host. A row of an older epoch than the host's is not the host's any more:
    /// an agent that starts writes the rows of all its ports.
    #[serde(rename = "e", default)]
    pub epoch: u64,
    /// The host to which it is moving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Name>,
}

/// `n/VNI/h/HOST`: the host has ports in the network.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Member {
    /// Its addresses on the underlay.
    #[serde(deserialize_with = "vteps")]
    pub vtep: Vec<IpAddr>,
    /// UDP port of its tunnels.
    pub port: u16,
    /// The epoch of the host.
    pub epoch: u64,
    /// Whether it wants frames to unknown stations: it has stations without a row.
    #[serde(rename = "u", default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

/// `n/VNI/b/ADDRESS`: the host leases the [`Block::LEN`] addresses from this one on.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Block {
    /// The host.
    #[serde(rename = "h")]
    pub host: Name,
}

impl Block {
    /// Addresses of a block. All blocks of a network have this size, so that one key for each is
    /// enough to keep two hosts from leasing one address.
    pub const LEN: u32 = 8;
}

/// `n/VNI/m/VLAN.MAC`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Station {
    /// The host.
    #[serde(rename = "h")]
    pub host: Name,
    /// The port there, for people; the cache of a host leaves it out.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Name>,
    /// Rises when the station moves to another host (as in RFC 7432, section 15).
    #[serde(rename = "s")]
    pub seq: u32,
    /// `s` in it: sticky, frames of other ports do not move it.
    #[serde(rename = "f", with = "flags", default, skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
}

/// Reads the value of a row.
///
/// # Errors
/// It is too long, or not such a row.
pub fn parse<T: DeserializeOwned>(value: &[u8]) -> Result<T, Refusal> {
    if value.len() > MAX_LEN {
        return Err(Refusal::TooLong);
    }
    serde_json::from_slice(value).map_err(|_| Refusal::Value)
}

/// Returns the value of a row. Those of this module always have one: their maps have texts as keys.
pub fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).unwrap_or_default()
}

fn vteps<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<IpAddr>, D::Error> {
    let vteps = Vec::<IpAddr>::deserialize(from)?;
    if (1..=MAX_VTEPS).contains(&vteps.len()) {
        Ok(vteps)
    } else {
        Err(serde::de::Error::custom("the number of addresses is wrong"))
    }
}

fn vni<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vni, D::Error> {
    Vni::new(u32::deserialize(from)?).ok_or_else(|| serde::de::Error::custom("not a VNI"))
}

fn vni_number<S: serde::Serializer>(vni: &Vni, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u32(vni.get())
}

mod flags {
    use serde::{Deserialize, Deserializer, Serializer};
    use smol_str::SmolStr;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        Ok(SmolStr::deserialize(from)?.contains('s'))
    }

    // By reference, as serde calls it.
    pub(super) fn serialize<S: Serializer>(sticky: &bool, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if *sticky { "s" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_host, any_member, any_port, any_station, name};

    fn is_read_back<T>(row: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let value = encode(row);
        assert!((2..=MAX_LEN).contains(&value.len()), "{} octets", value.len());
        assert_eq!(parse::<T>(&value).as_ref(), Ok(row));
    }

    proptest! {
        #[test]
        fn rows_are_read_back(
            host in any_host(), member in any_member(), port in any_port(), station in any_station()
        ) {
            is_read_back(&host);
            is_read_back(&member);
            is_read_back(&port);
            is_read_back(&station);
        }

        #[test]
        fn any_octets_are_a_row_or_refused(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse::<Member>(&value);
            let _ = parse::<Station>(&value);
        }
    }

    #[test]
    fn the_texts_are_those_of_the_design() {
        let station = Station { host: name("h1"), port: Some(name("vm1")), seq: 7, sticky: true };
        assert_eq!(encode(&station), br#"{"h":"h1","p":"vm1","s":7,"f":"s"}"#);
        let later = br#"{"h":"h1","p":"vm1","s":7,"ip":["10.1.0.5"],"f":"r","new":{"x":[1]}}"#;
        assert_eq!(parse(later), Ok(Station { sticky: false, ..station }));
        let (host, network) = (name("h1"), name("blue"));
        let port = Port { host, network, seq: 7, epoch: 3, to: Some(name("h2")) };
        assert_eq!(encode(&port), br#"{"h":"h1","n":"blue","s":7,"e":3,"to":"h2"}"#);
    }

    #[test]
    fn wrong_rows_are_refused() {
        let long = [br#"{"h":"h1"}"#.to_vec(), vec![b' '; MAX_LEN]].concat();
        assert_eq!(parse::<Block>(&long), Err(Refusal::TooLong));
        for value in [
            r#"{"vtep":[],"port":4789,"epoch":1}"#,
            r#"{"vtep":["10.0.0.1","10.0.0.2","10.0.0.3","10.0.0.4","::1"],"port":1,"epoch":1}"#,
            r#"{"vtep":["h1"],"port":4789,"epoch":1}"#,
            r#"{"vtep":["10.0.0.1"],"port":70000,"epoch":1}"#,
            "[]",
            "",
        ] {
            assert_eq!(parse::<Member>(value.as_bytes()), Err(Refusal::Value), "{value}");
        }
        assert_eq!(parse::<Block>(br#"{"h":"a/b"}"#), Err(Refusal::Value));
        assert_eq!(parse::<Net>(br#"{"vni":16777216}"#), Err(Refusal::Value));
    }
}
