//! How a VMM is told of a stream or datagram port.

use super::quoting::{commas, identifier, shell, yaml};
use super::{Asked, DIFFERS};

impl Asked {
    /// What QEMU is given for a stream port.
    pub(super) fn qemu_stream(&self) -> Result<String, String> {
        let side = if self.is_server() { "server=off" } else { "server=on" };
        let again = if self.is_server() { ",reconnect-ms=1000" } else { "" };
        let place = match self.option("address") {
            Some(address) => inet("addr", &address)?,
            None => format!("addr.type=unix,addr.path={}", commas(&self.path("location")?)),
        };
        Ok(self.qemu("stream", &format!("{side},{place}{again}")))
    }

    /// What QEMU is given for a datagram port. The two ends change sides: what is local to the
    /// switch is remote to QEMU.
    pub(super) fn qemu_dgram(&self) -> Result<String, String> {
        let ends = match (self.option("local"), self.option("remote")) {
            (Some(local), Some(remote)) => {
                format!("{},{}", inet("local", &remote)?, inet("remote", &local)?)
            }
            _ => {
                let ours = self.path("location")?;
                let theirs = self.option("peer").unwrap_or_else(|| format!("{ours}.{}", self.name));
                let [ours, theirs] = [ours, theirs].map(|path| commas(&path));
                format!("local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}")
            }
        };
        Ok(self.qemu("dgram", &ends))
    }

    /// A network device of QEMU whose netdev has these options.
    fn qemu(&self, kind: &str, options: &str) -> String {
        let (id, mac) = (identifier(&self.name), &self.mac);
        let netdev = shell(&format!("{kind},id=net-{id},{options}"));
        format!("-netdev {netdev}\n-device virtio-net-pci,netdev=net-{id},mac={mac}\n")
    }

    /// The lines of lima's configuration for a stream port.
    pub(super) fn lima(&self) -> Result<String, String> {
        let name = &self.name;
        if self.option("address").is_some() || !self.is_server() {
            return Err(format!(
                "lima connects to a Unix socket; let the daemon listen on one: set Interface \
                 {name} options={{}}"
            ));
        }
        Ok(format!("networks:\n- socket: {}\n", yaml(&self.path("location")?)))
    }
}

/// An address with a port, as QEMU's options.
fn inet(key: &str, address: &str) -> Result<String, String> {
    let parsed = address.parse::<std::net::SocketAddr>();
    let parsed = parsed.map_err(|_| DIFFERS.to_owned())?;
    let (host, port) = (parsed.ip(), parsed.port());
    Ok(format!("{key}.type=inet,{key}.host={host},{key}.port={port}"))
}

#[cfg(test)]
mod tests {
    use trama_api::value::Value;

    use super::*;

    fn port(kind: &str, options: &[(&str, &str)]) -> Asked {
        let map = |pairs: &[(&str, &str)]| Value::strings(pairs.iter().copied());
        Asked {
            name: "vm1".to_owned(),
            kind: kind.to_owned(),
            options: map(options),
            status: map(&[("location", "/run/trama/vm1.sock")]),
            mac: "52:54:00:ab:cd:ef".to_owned(),
        }
    }

    #[test]
    fn qemu_is_told_the_other_end_of_each_socket() {
        let device = "-device virtio-net-pci,netdev=net-vm1,mac=52:54:00:ab:cd:ef\n";
        for (kind, options, netdev) in [
            (
                "stream",
                &[][..],
                "stream,id=net-vm1,server=off,addr.type=unix,addr.path=/run/trama/vm1.sock,\
                 reconnect-ms=1000",
            ),
            (
                "stream",
                &[("address", "127.0.0.1:5555"), ("role", "client")][..],
                "stream,id=net-vm1,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=5555",
            ),
            (
                "dgram",
                &[("local", "127.0.0.1:1"), ("remote", "127.0.0.1:2")][..],
                "dgram,id=net-vm1,local.type=inet,local.host=127.0.0.1,local.port=2,\
                 remote.type=inet,remote.host=127.0.0.1,remote.port=1",
            ),
            (
                "dgram",
                &[("peer", "/a,b")][..],
                "dgram,id=net-vm1,local.type=unix,local.path=/a,,b,remote.type=unix,\
                 remote.path=/run/trama/vm1.sock",
            ),
            (
                "dgram",
                &[][..],
                "dgram,id=net-vm1,local.type=unix,local.path=/run/trama/vm1.sock.vm1,\
                 remote.type=unix,remote.path=/run/trama/vm1.sock",
            ),
        ] {
            let port = port(kind, options);
            let told = if kind == "dgram" { port.qemu_dgram() } else { port.qemu_stream() };
            assert_eq!(told.unwrap(), format!("-netdev {netdev}\n{device}"));
        }
    }

    #[test]
    fn lima_has_its_lines_and_others_what_serves_instead() {
        let lines = port("stream", &[]).lima().unwrap();
        assert_eq!(lines, "networks:\n- socket: /run/trama/vm1.sock\n");
        let lines = port("stream", &[("path", "/run/a #1.sock")]).lima().unwrap();
        assert_eq!(lines, "networks:\n- socket: \"/run/a #1.sock\"\n");
        let refused = port("stream", &[("role", "client")]).lima().unwrap_err();
        assert!(refused.contains("let the daemon listen"), "{refused}");
    }
}
