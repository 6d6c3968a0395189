//! The keys of `[[port]]` for tunnels.

use std::net::{IpAddr, Ipv4Addr};

use trama_frame::vxlan::PORT;

use super::field::Field;
use super::reader::Reader;
use crate::Fault;
use crate::config::model::tunnel::Vxlan;

pub(super) const KEYS: [&str; 4] = ["remote", "vni", "port", "local"];

pub(super) fn read(reader: &mut Reader<'_, '_, '_>) -> Vxlan {
    let remote = read_address(reader, "remote");
    if !reader.has("remote") {
        missing(reader, "remote", "add remote = \"ADDRESS\", that of the other host");
    }
    if !reader.has("vni") {
        missing(reader, "vni", "add vni, the number that the tunnel has at both ends");
    }
    Vxlan {
        remote: remote.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        vni: reader.integer("vni").unwrap_or_default(),
        port: reader.integer("port").unwrap_or(PORT),
        local: read_address(reader, "local"),
    }
}

fn missing(reader: &mut Reader<'_, '_, '_>, key: &'static str, remedy: &str) {
    reader.converted::<()>(key, None, || Fault::new("is missing", remedy));
}

fn read_address(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Option<IpAddr> {
    let text = reader.string(key)?;
    reader.converted(key, text.parse().ok(), || {
        Fault::new(format!("{text:?} is not an address"), "write it as 10.0.0.2 or fd00::2")
    })
}

pub(super) fn fields(device: &Vxlan) -> [Field; 5] {
    [
        Field::new("type", "vxlan", false),
        Field::new("remote", device.remote.to_string(), false),
        Field::new("vni", i64::from(device.vni), false),
        Field::new("port", i64::from(device.port), device.port == PORT),
        Field::optional("local", device.local.map(|it| it.to_string())),
    ]
}
