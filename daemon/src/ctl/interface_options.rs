//! Converts an interface to its `type` and `options` columns, and back.
//!
//! Users of Open vSwitch set the two in any order, and know other types. So both stay text until
//! the end of a transaction, and only then become an [`Interface`].

use std::collections::BTreeMap;

use trama_vhost_net_backend::access::parse_mode;

use super::failure::Failure;
use crate::config::model::socket::{SocketAccess, SocketMode};
use crate::config::model::{Interface, MemoryLimits, Port, Role, Tap, VhostUser};
use crate::config::text::{self, AddressError};
use crate::config::too_long_prefix;

/// The `options` column.
pub(super) type Options = BTreeMap<String, String>;

/// The `type` and `options` of a port's interface.
pub(super) fn describe(port: &Port) -> (String, Options) {
    let mut options = Options::new();
    let mut put = |key: &str, value: String| options.insert(key.to_owned(), value);
    let kind = match &port.interface {
        Interface::VhostUser(vhost) => {
            let SocketAccess { owner, group, mode } = port.socket.clone();
            let path = vhost.path.display().to_string();
            let stated = [
                ("path", Some(path).filter(|path| !path.is_empty())),
                ("socket-owner", owner),
                ("socket-group", group),
                ("socket-mode", mode.map(|mode| mode.to_string())),
                ("memory-max", port.memory.max.map(text::format_bytes)),
                ("memory-populate", port.memory.populate.map(text::format_bytes)),
            ];
            for (key, value) in stated {
                value.map(|value| put(key, value));
            }
            put("role", vhost.role.to_string());
            put("queues", vhost.queues.to_string());
            "vhost-user"
        }
        Interface::Tap(tap) => {
            put("ifname", tap.ifname.clone());
            if let Some(netns) = &tap.netns {
                put("netns", netns.clone());
            }
            if !tap.address.is_empty() {
                let address = tap.address.iter().map(ToString::to_string);
                put("address", address.collect::<Vec<_>>().join(","));
            }
            "tap"
        }
        // The tables do not show it.
        Interface::Uplink(_) => "",
    };
    (kind.to_owned(), options)
}

/// What a port's `type` and `options` describe.
#[derive(Debug, PartialEq)]
pub(super) struct Described {
    pub(super) interface: Interface,
    /// The access to its socket.
    pub(super) socket: SocketAccess,
    pub(super) memory: MemoryLimits,
}

/// Reads a port's `type` and `options`.
///
/// # Errors
/// What is missing, unknown or malformed, and what to do.
pub(super) fn resolve(port: &str, kind: &str, options: Options) -> Result<Described, Failure> {
    let mut reader = Reader { port, kind, options };
    let mut socket = SocketAccess::default();
    let interface = match kind {
        "vhost-user" => {
            socket = reader.socket_access()?;
            Interface::VhostUser(reader.vhost_user()?)
        }
        "dpdkvhostuserclient" => {
            let path = reader.required("vhost-server-path", "/tmp/vm1.sock")?.into();
            let queues = reader.number("n_rxq")?.unwrap_or(1);
            Interface::VhostUser(VhostUser { path, role: Role::Client, queues })
        }
        "dpdkvhostuser" => {
            socket = reader.socket_access()?;
            let path = port.into();
            let queues = reader.number("n_rxq")?.unwrap_or(1);
            Interface::VhostUser(VhostUser { path, role: Role::Server, queues })
        }
        // In Open vSwitch, a port without a type, or of type `system`, is a device of the host.
        "" | "system" | "internal" | "tap" => Interface::Tap(reader.tap()?),
        _ if let Some((why, instead)) = reason(kind) => {
            let message = format!("Interface {port}: type \"{kind}\" is refused: {why}; {instead}");
            return Err(message.into());
        }
        _ => {
            return Err(format!(
                "Interface {port}: unknown type \"{kind}\"; use vhost-user or tap (or Open \
                 vSwitch's dpdkvhostuserclient, dpdkvhostuser, internal, system)"
            )
            .into());
        }
    };
    let is_vhost = matches!(interface, Interface::VhostUser(_));
    let memory = if is_vhost { reader.memory()? } else { MemoryLimits::default() };
    reader.finish()?;
    Ok(Described { interface, socket, memory })
}

/// Why trama has no interfaces of a type of Open vSwitch, and what serves instead.
fn reason(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "afxdp" | "afxdp-nonpmd" | "dpdk" => (
            "trama does not take interfaces from the kernel",
            "make it the uplink of a bridged network: set Bridge BRIDGE mode=bridged uplink=IFNAME",
        ),
        "bareudp" | "erspan" | "geneve" | "gre" | "gtpu" | "ip6erspan" | "ip6gre" | "lisp"
        | "srv6" | "stt" | "vxlan" => (
            "trama has no tunnels",
            "make the tunnel's interface with ip link, and that the uplink of a bridged network",
        ),
        "patch" => (
            "networks are not joined",
            "put the ports on one network, and give those of each part their own tag",
        ),
        _ => return None,
    })
}

/// Removes options one by one; those that remain are unknown.
struct Reader<'a> {
    port: &'a str,
    kind: &'a str,
    options: Options,
}

impl Reader<'_> {
    fn vhost_user(&mut self) -> Result<VhostUser, Failure> {
        let stated = self.options.remove("role").map(|text| {
            let remedy = "use server (the daemon listens) or client (the daemon connects)";
            text.parse().map_err(|_| self.problem("role", &text, remedy))
        });
        let stated: Option<Role> = stated.transpose()?;
        // Open vSwitch's name for a path that the daemon connects to.
        let server_path = self.options.remove("vhost-server-path");
        let role =
            if server_path.is_some() { Role::Client } else { stated.unwrap_or(Role::Server) };
        let path = match server_path {
            Some(path) => {
                self.options.remove("path");
                path
            }
            None => self.options.remove("path").unwrap_or_default(),
        };
        let queues = self.number("queues")?.unwrap_or(1);
        Ok(VhostUser { path: path.into(), role, queues })
    }

    fn socket_access(&mut self) -> Result<SocketAccess, Failure> {
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

    fn memory(&mut self) -> Result<MemoryLimits, Failure> {
        Ok(MemoryLimits { max: self.size("memory-max")?, populate: self.size("memory-populate")? })
    }

    fn size(&mut self, key: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.options.remove(key) else { return Ok(None) };
        match text::parse_size(&text) {
            Some(size) => Ok(Some(size)),
            None => Err(self.problem(key, &text, "use a size such as 64MiB or 8GiB").into()),
        }
    }

    fn tap(&mut self) -> Result<Tap, Failure> {
        let ifname = self.options.remove("ifname").unwrap_or_else(|| self.port.to_owned());
        let netns = self.options.remove("netns");
        let mut address = Vec::new();
        if let Some(text) = self.options.remove("address") {
            for one in text.split([',', ' ']).filter(|one| !one.is_empty()) {
                let parsed = text::parse_address(one).map_err(|error| match error {
                    AddressError::TooLong(address, length) => {
                        let fault = too_long_prefix(address, length);
                        Failure::from(format!("port.{}.address: {fault}", self.port))
                    }
                    AddressError::Malformed(_) => {
                        self.problem("address", one, "write it as 10.1.0.1/24 or fd00::1/64").into()
                    }
                })?;
                address.push(parsed);
            }
        }
        Ok(Tap { ifname, netns, address })
    }

    fn required(&mut self, key: &str, example: &str) -> Result<String, Failure> {
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

    fn number(&mut self, key: &str) -> Result<Option<u16>, Failure> {
        let Some(text) = self.options.remove(key) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.problem(key, &text, "use a whole number from 1").into()),
        }
    }

    fn problem(&self, key: &str, value: &str, remedy: &str) -> String {
        format!("Interface {}: options:{key}=\"{value}\" is not valid; {remedy}", self.port)
    }

    fn finish(self) -> Result<(), Failure> {
        let Some(key) = self.options.keys().next() else { return Ok(()) };
        let known = match self.kind {
            "vhost-user" => {
                "path, role, queues, socket-owner, socket-group, socket-mode, memory-max, \
                 memory-populate"
            }
            "dpdkvhostuserclient" => "vhost-server-path, n_rxq, memory-max, memory-populate",
            "dpdkvhostuser" => {
                "n_rxq, socket-owner, socket-group, socket-mode, memory-max, memory-populate"
            }
            _ => "ifname, netns, address",
        };
        let kind = if self.kind.is_empty() { "tap" } else { self.kind };
        Err(format!(
            "Interface {port}: type {kind} has no options:{key}; known options: {known}",
            port = self.port
        )
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn interface(kind: &str, options: Options) -> Result<Interface, Failure> {
        resolve("p", kind, options).map(|described| described.interface)
    }

    fn vhost(path: &str, role: Role, queues: u16) -> Interface {
        Interface::VhostUser(VhostUser { path: path.into(), role, queues })
    }

    fn tap(ifname: &str) -> Interface {
        Interface::Tap(Tap { ifname: ifname.into(), netns: None, address: vec![] })
    }

    #[test]
    fn types_of_ovs_have_their_counterparts() {
        let path = options(&[("vhost-server-path", "/tmp/a")]);
        assert_eq!(
            interface("dpdkvhostuserclient", path.clone()),
            Ok(vhost("/tmp/a", Role::Client, 1))
        );
        assert_eq!(interface("vhost-user", path), Ok(vhost("/tmp/a", Role::Client, 1)));
        assert_eq!(
            interface("dpdkvhostuser", options(&[("n_rxq", "2")])),
            Ok(vhost("p", Role::Server, 2))
        );
        for kind in ["", "system", "internal", "tap"] {
            assert_eq!(interface(kind, Options::new()), Ok(tap("p")), "{kind}");
        }
    }

    #[test]
    fn describing_and_resolving_are_inverse() {
        let full = Interface::Tap(Tap {
            ifname: "t0".into(),
            netns: Some("h1".into()),
            address: vec!["10.1.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()],
        });
        for interface in
            [vhost("/a b,c", Role::Client, 4), vhost("", Role::Server, 1), tap("t"), full]
        {
            let (kind, options) = describe(&Port::new("p", interface.clone()));
            let (socket, memory) = (SocketAccess::default(), MemoryLimits::default());
            let described = Described { interface, socket, memory };
            assert_eq!(resolve("p", &kind, options), Ok(described));
        }
        let socket = SocketAccess {
            owner: Some("libvirt-qemu".into()),
            group: Some("kvm".into()),
            mode: Some(SocketMode(0o620)),
        };
        let memory = MemoryLimits { max: Some(8 << 30), populate: Some(64 << 20) };
        let port = Port { socket, memory, ..Port::new("p", vhost("/x", Role::Server, 2)) };
        let (kind, options) = describe(&port);
        assert_eq!(options["socket-mode"], "0620");
        assert_eq!((&*options["memory-max"], &*options["memory-populate"]), ("8GiB", "64MiB"));
        let Port { interface, socket, memory, .. } = port;
        assert_eq!(resolve("p", &kind, options), Ok(Described { interface, socket, memory }));
    }

    #[test]
    fn mistakes_come_with_a_remedy() {
        for (kind, pairs, part) in [
            ("vhost-user", &[("socket-mode", "0777")][..], "use 0600 to 0666"),
            ("vhost-user", &[("memory-populate", "much")][..], "such as 64MiB"),
            ("tap", &[("memory-max", "1GiB")][..], "type tap has no options:memory-max"),
            (
                "dpdkvhostuserclient",
                &[("vhost-server-path", "/x"), ("socket-group", "kvm")][..],
                "has no options:socket-group",
            ),
            ("tap", &[("socket-group", "kvm")][..], "type tap has no options:socket-group"),
            ("vhost-user", &[("path", "/x"), ("role", "both")][..], "use server"),
            ("vhost-user", &[("path", "/x"), ("queues", "many")][..], "whole number"),
            (
                "vhost-user",
                &[("path", "/x"), ("ifname", "y")][..],
                "known options: path, role, queues",
            ),
            ("dpdkvhostuserclient", &[][..], "needs options:vhost-server-path"),
            ("tap", &[("address", "10.0.0.1")][..], "10.1.0.1/24"),
            ("", &[("path", "/x")][..], "type tap has no options:path"),
            ("nonsense", &[][..], "use vhost-user or tap"),
            ("geneve", &[("remote_ip", "10.0.0.2")][..], "trama has no tunnels; make the tunnel's"),
            ("dpdk", &[][..], "mode=bridged uplink=IFNAME"),
            ("patch", &[("peer", "p1")][..], "put the ports on one network"),
        ] {
            let message = resolve("p", kind, options(pairs)).unwrap_err();
            assert!(message.to_string().contains(part), "{message}");
        }
    }
}
