//! Converts an interface to its `type` and `options` columns, and back.
//!
//! Users of Open vSwitch set the two in any order, and know other types. So both stay text until
//! the end of a transaction, and only then become an [`Interface`].

use super::failure::Failure;
use super::options_reader::{Options, Reader, SERVER_PATH};
use super::{tunnel_options, wire_options};
use crate::config::model::socket::SocketAccess;
use crate::config::model::{
    Attached, AttachedKind, Interface, MemoryLimits, Port, Role, System, Tap, VhostUser,
};
use crate::config::text::{self, AddressError};
use crate::config::too_long_prefix;

/// The `type` and `options` of a port's interface.
pub(super) fn describe(port: &Port) -> (String, Options) {
    let mut options = Options::new();
    let mut put = |key: &str, value: String| options.insert(key.to_owned(), value);
    let SocketAccess { owner, group, mode } = port.socket.clone();
    let stated = [
        ("socket-owner", owner),
        ("socket-group", group),
        ("socket-mode", mode.map(|mode| mode.to_string())),
        ("memory-max", port.memory.max.map(text::format_bytes)),
        ("memory-populate", port.memory.populate.map(text::format_bytes)),
    ];
    for (key, value) in stated {
        value.map(|value| put(key, value));
    }
    match &port.interface {
        Interface::VhostUser(vhost) => {
            let path = vhost.path.display().to_string();
            if !path.is_empty() {
                put("path", path);
            }
            put("role", vhost.role.to_string());
            put("queues", vhost.queues.to_string());
        }
        Interface::Stream(device) => wire_options::describe_stream(device, &mut options),
        Interface::Dgram(device) => wire_options::describe_dgram(device, &mut options),
        Interface::Vxlan(device) => tunnel_options::describe(device, &mut options),
        Interface::Tap(tap) => {
            put("ifname", tap.ifname.clone());
            if let Some(netns) = &tap.netns {
                put("netns", netns.clone());
            }
            if !tap.address.is_empty() {
                let address = tap.address.iter().map(ToString::to_string);
                put("address", address.collect::<Vec<_>>().join(","));
            }
        }
        Interface::System(device) => {
            put("ifname", device.ifname.clone());
            if let Some(netns) = &device.netns {
                put("netns", netns.clone());
            }
            if device.confirm_uplink {
                put("confirm-uplink", "true".to_owned());
            }
        }
        Interface::Attached(Attached { kind, place, .. }) => match kind {
            AttachedKind::Tap => drop(put("ifname", place.clone())),
            AttachedKind::VhostUser => drop(put("path", place.clone())),
            AttachedKind::Stream | AttachedKind::Dgram => {}
        },
        // The tables do not show it.
        Interface::Uplink(_) => {}
    }
    (port.interface.type_name().to_owned(), options)
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
            let path = reader.required(SERVER_PATH, "/tmp/vm1.sock")?.into();
            let queues = reader.number("n_rxq")?.unwrap_or(1);
            Interface::VhostUser(VhostUser { path, role: Role::Client, queues })
        }
        "dpdkvhostuser" => {
            socket = reader.socket_access()?;
            let path = port.into();
            let queues = reader.number("n_rxq")?.unwrap_or(1);
            Interface::VhostUser(VhostUser { path, role: Role::Server, queues })
        }
        "stream" => {
            socket = reader.socket_access()?;
            Interface::Stream(reader.stream()?)
        }
        "dgram" => {
            socket = reader.socket_access()?;
            Interface::Dgram(reader.dgram()?)
        }
        "vxlan" => Interface::Vxlan(reader.vxlan()?),
        // Open vSwitch's word for an interface that it makes.
        "internal" | "tap" => Interface::Tap(reader.tap()?),
        "system" => Interface::System(reader.system()?),
        _ if let Some((why, instead)) = reason(kind) => {
            let message = format!("Interface {port}: type \"{kind}\" is refused: {why}; {instead}");
            return Err(message.into());
        }
        _ => {
            return Err(format!(
                "Interface {port}: unknown type \"{kind}\"; use vhost-user, tap, system, stream, \
                 dgram or vxlan (or Open vSwitch's dpdkvhostuserclient, dpdkvhostuser, internal)"
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
            "join it as it is, with type=system, or as the uplink of a bridged network: set Bridge \
             BRIDGE mode=bridged uplink=IFNAME",
        ),
        "bareudp" | "erspan" | "geneve" | "gre" | "gtpu" | "ip6erspan" | "ip6gre" | "lisp"
        | "srv6" | "stt" => (
            "the only tunnels are of type vxlan",
            "use that, or make the tunnel's interface with ip link, and join it with type=system",
        ),
        "patch" => (
            "a port is no cable to another network",
            "put the ports on one network, or add each end of a veth pair as a port of type system",
        ),
        _ => return None,
    })
}

impl Reader<'_> {
    fn vhost_user(&mut self) -> Result<VhostUser, Failure> {
        let stated = self.role()?;
        let server_path = self.options.remove(SERVER_PATH);
        if server_path.is_some() && stated == Some(Role::Server) {
            return Err(format!(
                "Interface {}: options:{SERVER_PATH} is a path that the daemon connects to, and \
                 options:role is server; state options:path instead, or leave out the role",
                self.port
            )
            .into());
        }
        let path = self.options.remove("path");
        let (path, role) = match server_path {
            Some(path) => (path, Role::Client),
            None => (path.unwrap_or_default(), stated.unwrap_or(Role::Server)),
        };
        let queues = self.number("queues")?.unwrap_or(1);
        Ok(VhostUser { path: path.into(), role, queues })
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

    fn system(&mut self) -> Result<System, Failure> {
        let ifname = self.options.remove("ifname").unwrap_or_else(|| self.port.to_owned());
        let confirmed = self.options.remove("confirm-uplink");
        let confirm_uplink = match confirmed.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(self.problem("confirm-uplink", other, "use true or false").into());
            }
        };
        Ok(System { ifname, netns: self.options.remove("netns"), confirm_uplink })
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
            "stream" => wire_options::STREAM,
            "dgram" => wire_options::DGRAM,
            "vxlan" => tunnel_options::VXLAN,
            "system" => "ifname, netns, confirm-uplink",
            _ => "ifname, netns, address",
        };
        Err(format!(
            "Interface {port}: type {kind} has no options:{key}; known options: {known}",
            port = self.port,
            kind = self.kind,
        )
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::socket::SocketMode;
    use crate::config::model::tunnel::Vxlan;
    use crate::config::model::wire::{Dgram, Place, Stream};

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn interface(kind: &str, options: Options) -> Result<Interface, Failure> {
        resolve("p", kind, options).map(|described| described.interface)
    }

    fn vhost(path: &str, role: Role, queues: u16) -> Interface {
        Interface::VhostUser(VhostUser { path: path.into(), role, queues })
    }

    fn stream(path: &str, connections: u16) -> Interface {
        let place = Place::Path(path.into());
        Interface::Stream(Stream { place, role: Role::Server, connections })
    }

    fn tap(ifname: &str) -> Interface {
        Interface::Tap(Tap { ifname: ifname.into(), netns: None, address: vec![] })
    }

    fn system(ifname: &str, netns: Option<&str>, confirm_uplink: bool) -> Interface {
        let netns = netns.map(str::to_owned);
        Interface::System(System { ifname: ifname.into(), netns, confirm_uplink })
    }

    fn tunnel(remote: &str, port: u16, local: Option<&str>) -> Interface {
        let (remote, local) = (remote.parse().unwrap(), local.map(|it| it.parse().unwrap()));
        Interface::Vxlan(Vxlan { remote, vni: 77, port, local })
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
        for kind in ["internal", "tap"] {
            assert_eq!(interface(kind, Options::new()), Ok(tap("p")), "{kind}");
        }
        assert_eq!(interface("system", Options::new()), Ok(system("p", None, false)));
    }

    #[test]
    fn describing_and_resolving_are_inverse() {
        let full = Interface::Tap(Tap {
            ifname: "t0".into(),
            netns: Some("h1".into()),
            address: vec!["10.1.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()],
        });
        let place = Place::Address("[::1]:5555".parse().unwrap());
        let (path, peer) = ("/a".into(), Some("/b".into()));
        for interface in [
            vhost("/a b,c", Role::Client, 4),
            vhost("", Role::Server, 1),
            tap("t"),
            full,
            Interface::Stream(Stream { place, role: Role::Client, connections: 1 }),
            stream("", 64),
            stream("/a b.sock", 1),
            Interface::Dgram(Dgram::Unix { path, peer }),
            Interface::Dgram(Dgram::Unix { path: "".into(), peer: None }),
            Interface::Dgram(Dgram::Udp {
                local: "127.0.0.1:1".parse().unwrap(),
                remote: "10.0.0.1:2".parse().unwrap(),
            }),
            tunnel("10.0.0.2", 4789, None),
            tunnel("fd00::2", 8472, Some("fd00::1")),
            system("eth1", None, false),
            system("eth1", Some("/proc/4711/ns/net"), true),
        ] {
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
                &[("vhost-server-path", "/x"), ("role", "server")][..],
                "and options:role is server; state options:path instead",
            ),
            (
                "vhost-user",
                &[("path", "/x"), ("ifname", "y")][..],
                "known options: path, role, queues",
            ),
            ("dpdkvhostuserclient", &[][..], "needs options:vhost-server-path"),
            ("tap", &[("address", "10.0.0.1")][..], "10.1.0.1/24"),
            ("internal", &[("path", "/x")][..], "type internal has no options:path"),
            ("system", &[("address", "10.0.0.1/8")][..], "known options: ifname, netns, confirm"),
            ("system", &[("confirm-uplink", "yes")][..], "use true or false"),
            ("stream", &[("path", "/x"), ("address", "[::1]:1")][..], "exclude each other"),
            ("stream", &[("address", "here:1")][..], "write it as 127.0.0.1:5555"),
            ("stream", &[("role", "both")][..], "use server"),
            ("stream", &[("queues", "2")][..], "known options: path, address, role, connections"),
            ("dgram", &[("local", "127.0.0.1:1")][..], "needs options:remote as well"),
            ("dgram", &[("remote", "127.0.0.1:1")][..], "needs options:local as well"),
            (
                "dgram",
                &[("peer", "/x"), ("local", "127.0.0.1:1"), ("remote", "127.0.0.1:2")][..],
                "options:local and options:peer exclude each other",
            ),
            ("dgram", &[("role", "client")][..], "known options: path, peer, local, remote"),
            ("nonsense", &[][..], "use vhost-user, tap, system, stream, dgram or vxlan"),
            (
                "geneve",
                &[("remote_ip", "10.0.0.2")][..],
                "the only tunnels are of type vxlan; use that, or make",
            ),
            ("vxlan", &[("key", "77")][..], "needs options:remote_ip"),
            ("vxlan", &[("remote_ip", "10.0.0.2")][..], "needs options:key"),
            (
                "vxlan",
                &[("remote_ip", "flow"), ("key", "7")][..],
                "add a port for each remote host and VNI",
            ),
            (
                "vxlan",
                &[("remote_ip", "10.0.0.2"), ("key", "flow")][..],
                "add a port for each remote host and VNI",
            ),
            (
                "vxlan",
                &[("remote_ip", "here"), ("key", "7")][..],
                "write it as 10.0.0.2 or fd00::2",
            ),
            ("vxlan", &[("remote_ip", "10.0.0.2"), ("key", "x")][..], "use a number of 24 bits"),
            ("vxlan", &[("csum", "true")][..], "the outer checksum is always on"),
            (
                "vxlan",
                &[("remote_ip", "10.0.0.2"), ("key", "7"), ("dst_mac", "x")][..],
                "known options: remote_ip, key, dst_port, local_ip",
            ),
            ("dpdk", &[][..], "mode=bridged uplink=IFNAME"),
            ("patch", &[("peer", "p1")][..], "each end of a veth pair"),
        ] {
            let message = resolve("p", kind, options(pairs)).unwrap_err();
            assert!(message.to_string().contains(part), "{message}");
        }
    }
}
