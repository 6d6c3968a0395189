//! How a VMM is told of a stream or datagram port.

use super::{Asked, Vmm};

impl Asked {
    /// What a VMM is given for a stream port.
    pub(super) fn stream(&self, vmm: Vmm) -> Result<String, String> {
        match vmm {
            Vmm::Qemu => self.qemu_stream(),
            Vmm::Lima => self.lima(),
            _ => Err(self.refusal(vmm)),
        }
    }

    /// What a VMM is given for a datagram port.
    pub(super) fn dgram(&self, vmm: Vmm) -> Result<String, String> {
        match vmm {
            Vmm::Qemu => self.qemu_dgram(),
            Vmm::Lima => Err(format!(
                "lima connects to ports of type stream: set Interface {} type=stream",
                self.name
            )),
            _ => Err(self.refusal(vmm)),
        }
    }

    fn refusal(&self, vmm: Vmm) -> String {
        let Asked { name, kind, .. } = self;
        let program = match vmm {
            Vmm::Libvirt => "libvirt",
            Vmm::CloudHypervisor => "cloud-hypervisor",
            Vmm::Crosvm => "crosvm",
            Vmm::Qemu | Vmm::Lima => "this VMM",
        };
        format!(
            "port {name} has type {kind}, which {program} has no setting for; use vhost-user: set \
             Interface {name} type=vhost-user"
        )
    }

    fn qemu_stream(&self) -> Result<String, String> {
        let side = if self.is_server() { "server=off" } else { "server=on" };
        let again = if self.is_server() { ",reconnect-ms=1000" } else { "" };
        let place = match self.option("address") {
            Some(address) => inet("addr", &address)?,
            None => format!("addr.type=unix,addr.path={}", doubled(&self.path("location")?)),
        };
        let Asked { name, mac, .. } = self;
        Ok(format!(
            "-netdev stream,id=net-{name},{side},{place}{again}\n\
             -device virtio-net-pci,netdev=net-{name},mac={mac}\n"
        ))
    }

    /// The two ends change sides: what is local to the switch is remote to QEMU.
    fn qemu_dgram(&self) -> Result<String, String> {
        let Asked { name, mac, .. } = self;
        let ends = match (self.option("local"), self.option("remote")) {
            (Some(local), Some(remote)) => {
                format!("{},{}", inet("local", &remote)?, inet("remote", &local)?)
            }
            _ => {
                let ours = self.path("location")?;
                let theirs = self.option("peer").unwrap_or_else(|| format!("{ours}.{name}"));
                let [ours, theirs] = [ours, theirs].map(|path| doubled(&path));
                format!("local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}")
            }
        };
        Ok(format!(
            "-netdev dgram,id=net-{name},{ends}\n\
             -device virtio-net-pci,netdev=net-{name},mac={mac}\n"
        ))
    }

    fn lima(&self) -> Result<String, String> {
        let name = &self.name;
        if self.option("address").is_some() || !self.is_server() {
            return Err(format!(
                "lima connects to a Unix socket; let the daemon listen on one: set Interface \
                 {name} options={{}}"
            ));
        }
        Ok(format!("networks:\n- socket: {}\n", self.path("location")?))
    }
}

/// An address with a port, as QEMU's options.
fn inet(key: &str, address: &str) -> Result<String, String> {
    let parsed = address.parse::<std::net::SocketAddr>();
    let parsed = parsed.map_err(|_| "the daemon is of another version".to_owned())?;
    let (host, port) = (parsed.ip(), parsed.port());
    Ok(format!("{key}.type=inet,{key}.host={host},{key}.port={port}"))
}

/// A comma ends a value, and two of them stand for one.
fn doubled(path: &str) -> String {
    path.replace(',', ",,")
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
            let told = if kind == "dgram" { port.dgram(Vmm::Qemu) } else { port.stream(Vmm::Qemu) };
            assert_eq!(told.unwrap(), format!("-netdev {netdev}\n{device}"));
        }
    }

    #[test]
    fn lima_has_its_lines_and_others_what_serves_instead() {
        let lines = port("stream", &[]).stream(Vmm::Lima).unwrap();
        assert_eq!(lines, "networks:\n- socket: /run/trama/vm1.sock\n");
        let refused = port("stream", &[("role", "client")]).stream(Vmm::Lima).unwrap_err();
        assert!(refused.contains("let the daemon listen"), "{refused}");
        for refused in
            [port("stream", &[]).stream(Vmm::Libvirt), port("dgram", &[]).dgram(Vmm::Crosvm)]
        {
            let refused = refused.unwrap_err();
            assert!(refused.ends_with("set Interface vm1 type=vhost-user"), "{refused}");
        }
    }
}
