//! The options of tunnels in Open vSwitch's words, and back.

use std::net::IpAddr;

use trama_frame::vxlan::PORT;

use super::failure::Failure;
use super::options_reader::{Options, Reader};
use crate::config::model::tunnel::Vxlan;

/// The options that a tunnel may have, in the order of help texts.
pub(super) const VXLAN: &str = "remote_ip, key, dst_port, local_ip";

/// Options of Open vSwitch that trama refuses, and what serves instead.
const REFUSED: [(&str, &str); 8] = [
    ("in_key", "a tunnel has one VNI for both directions: use options:key"),
    ("out_key", "a tunnel has one VNI for both directions: use options:key"),
    ("csum", "the outer checksum is always on: leave it out"),
    ("df_default", "outer packets are never fragmented: leave it out"),
    ("ttl", "it is the host's: set sysctl net.ipv4.ip_default_ttl"),
    ("tos", "outer packets have none: leave it out"),
    ("exts", "extensions of VXLAN are not carried: leave it out"),
    (
        "psk",
        "trama does not encrypt tunnels: let remote_ip be an address behind WireGuard or IPsec",
    ),
];

pub(super) fn describe(device: &Vxlan, options: &mut Options) {
    let mut put = |key: &str, value: String| options.insert(key.to_owned(), value);
    put("remote_ip", device.remote.to_string());
    put("key", device.vni.to_string());
    if device.port != PORT {
        put("dst_port", device.port.to_string());
    }
    if let Some(local) = device.local {
        put("local_ip", local.to_string());
    }
}

impl Reader<'_> {
    pub(super) fn vxlan(&mut self) -> Result<Vxlan, Failure> {
        for (key, instead) in REFUSED {
            if self.options.contains_key(key) {
                return Err(format!(
                    "Interface {}: options:{key} is refused: {instead}",
                    self.port
                )
                .into());
            }
        }
        let remote = self.required("remote_ip", "10.0.0.2")?;
        let remote = self.end("remote_ip", &remote)?;
        let key = self.required("key", "77")?;
        let vni = key.parse().map_err(|_| self.problem("key", &key, of_flow(&key)))?;
        let local = self.options.remove("local_ip");
        let local = local.map(|text| self.end("local_ip", &text)).transpose()?;
        Ok(Vxlan { remote, vni, port: self.number("dst_port")?.unwrap_or(PORT), local })
    }

    fn end(&self, key: &str, text: &str) -> Result<IpAddr, Failure> {
        let parsed = text.parse();
        Ok(parsed.map_err(|_| match text {
            "flow" => self.problem(key, text, of_flow(text)),
            _ => self.problem(key, text, "write it as 10.0.0.2 or fd00::2"),
        })?)
    }
}

/// What to do instead of leaving a value to flows.
fn of_flow(text: &str) -> &'static str {
    match text {
        "flow" => "there are no flow tables: add a port for each remote host and VNI",
        _ => "use a number of 24 bits, such as 77",
    }
}
