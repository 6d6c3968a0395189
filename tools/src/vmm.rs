//! How a VMM is told of a port: its arguments, or the elements of its configuration.

mod sockets;

use trama_api::transaction::Output;
use trama_api::value::{Atom, Value};

/// A VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vmm {
    Qemu,
    Libvirt,
    CloudHypervisor,
    Crosvm,
    Lima,
}

/// The memory that a VMM is told to give its guest, where it must be told that it is shared.
const MEMORY: &str = "1G";

/// A vhost-user port.
#[derive(Clone, Debug)]
pub(crate) struct VhostUserPort {
    name: String,
    /// The socket's path.
    path: String,
    /// Whether the daemon listens on the socket; else the VMM does.
    is_server: bool,
    /// Queue pairs.
    queues: u32,
    /// The guest's address.
    mac: String,
}

impl Vmm {
    /// The one of this name, as a command.
    pub(crate) fn of_command(name: &str) -> Option<Vmm> {
        match name {
            "qemu" => Some(Vmm::Qemu),
            "libvirt" => Some(Vmm::Libvirt),
            "cloud-hypervisor" => Some(Vmm::CloudHypervisor),
            "crosvm" => Some(Vmm::Crosvm),
            "lima" => Some(Vmm::Lima),
            _ => None,
        }
    }

    /// The types of ports that it can use, as a set of the table Interface.
    pub(crate) fn types(self) -> &'static str {
        match self {
            Vmm::Qemu => "vhost-user,stream,dgram",
            Vmm::Libvirt | Vmm::CloudHypervisor | Vmm::Crosvm => "vhost-user",
            Vmm::Lima => "stream",
        }
    }

    /// What it must be given for a port; lines of text.
    ///
    /// # Errors
    /// It cannot use the port; the text has the remedy.
    pub(crate) fn attach(self, port: &VhostUserPort) -> Result<String, String> {
        match self {
            Vmm::Qemu => Ok(port.qemu()),
            Vmm::Libvirt => Ok(port.libvirt()),
            Vmm::CloudHypervisor => Ok(port.cloud_hypervisor()),
            Vmm::Crosvm => port.crosvm(),
            Vmm::Lima => Err(format!(
                "lima connects to ports of type stream: set Interface {} type=stream",
                port.name
            )),
        }
    }

    /// The answers to [`questions`], as what the VMM must be given.
    ///
    /// # Errors
    /// It cannot use the port; the text has the remedy.
    pub(crate) fn answer(self, name: &str, answers: &[Output]) -> Result<String, String> {
        let asked = Asked::read(name, answers)?;
        match &*asked.kind {
            "stream" => asked.stream(self),
            "dgram" => asked.dgram(self),
            _ => self.attach(&VhostUserPort::of(asked)?),
        }
    }
}

/// The commands whose answers [`Asked::read`] reads.
pub(crate) fn questions(port: &str) -> Vec<Vec<String>> {
    let interface = ["--columns=_uuid,type,options,status", "list", "Interface", port];
    let mac = ["get", "Port", port, "mac"];
    [interface, mac].map(|words| words.map(str::to_owned).to_vec()).to_vec()
}

/// A port of any type.
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) kind: String,
    options: Value,
    status: Value,
    /// The guest's address.
    pub(crate) mac: String,
}

impl Asked {
    /// Reads the answers to [`questions`].
    fn read(name: &str, answers: &[Output]) -> Result<Asked, String> {
        let (Some(Output::Table { rows, .. }), Some(Output::Text { lines })) =
            (answers.first(), answers.get(1))
        else {
            return Err("the daemon is of another version".to_owned());
        };
        let [uuid, kind, options, status] = rows.first().map(Vec::as_slice).unwrap_or_default()
        else {
            return Err("the daemon is of another version".to_owned());
        };
        let stated = lines.first().filter(|mac| mac.contains(':'));
        let mac = stated.map_or_else(|| mac_of(uuid), |mac| mac.trim_matches('"').to_owned());
        let (name, kind) = (name.to_owned(), kind.bare());
        Ok(Asked { name, kind, options: options.clone(), status: status.clone(), mac })
    }

    /// One of its options.
    pub(crate) fn option(&self, key: &str) -> Option<String> {
        self.options.at(key).map(Atom::bare)
    }

    /// Whether the daemon listens on its socket.
    pub(crate) fn is_server(&self) -> bool {
        self.option("role").as_deref() != Some("client")
    }

    /// The path of its socket. One that is left to the daemon, or is relative to a folder of the
    /// daemon's, is in the status only, under `key`.
    pub(crate) fn path(&self, key: &str) -> Result<String, String> {
        let stated = self.option("path").filter(|path| path.starts_with('/'));
        let path = stated.or_else(|| self.status.at(key).map(Atom::bare));
        let name = &self.name;
        path.ok_or_else(|| {
            format!("port {name} does not run, and so has no path; see get Interface {name} error")
        })
    }
}

impl VhostUserPort {
    /// The port, if it is one of type vhost-user.
    ///
    /// # Errors
    /// The port is of another type; the text has the remedy.
    fn of(port: Asked) -> Result<VhostUserPort, String> {
        let Asked { name, kind, .. } = &port;
        if kind != "vhost-user" {
            return Err(format!(
                "port {name} has type {kind}; a VMM needs vhost-user: set Interface {name} \
                 type=vhost-user"
            ));
        }
        Ok(VhostUserPort {
            path: port.path("path")?,
            is_server: port.is_server(),
            queues: port.option("queues").and_then(|it| it.parse().ok()).unwrap_or(1),
            name: port.name,
            mac: port.mac,
        })
    }

    fn qemu(&self) -> String {
        let Self { name, path, queues, mac, .. } = self;
        // A comma ends a value, and two of them stand for one.
        let path = path.replace(',', ",,");
        let side = if self.is_server { "reconnect-ms=1000" } else { "server=on,wait=off" };
        let vectors = 2 * queues + 2;
        let many = if *queues > 1 { format!(",mq=on,vectors={vectors}") } else { String::new() };
        format!(
            "-m {MEMORY} -object memory-backend-memfd,id=trama-mem,size={MEMORY},share=on\n\
             -machine memory-backend=trama-mem\n\
             -chardev socket,id=trama-{name},path={path},{side}\n\
             -netdev vhost-user,id=net-{name},chardev=trama-{name},queues={queues}\n\
             -device virtio-net-pci,netdev=net-{name},mac={mac}{many}\n"
        )
    }

    fn libvirt(&self) -> String {
        let path = escaped(&self.path);
        let source = if self.is_server {
            format!(
                "  <source type='unix' path='{path}' mode='client'>\n    \
                 <reconnect enabled='yes' timeout='1'/>\n  </source>\n"
            )
        } else {
            format!("  <source type='unix' path='{path}' mode='server'/>\n")
        };
        let driver = match self.queues {
            0 | 1 => String::new(),
            queues => format!("  <driver queues='{queues}'/>\n"),
        };
        format!(
            "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n\
             </memoryBacking>\n<interface type='vhostuser'>\n  <mac address='{}'/>\n{source}  \
             <model type='virtio'/>\n{driver}</interface>\n",
            self.mac
        )
    }

    fn cloud_hypervisor(&self) -> String {
        let mode = if self.is_server { "client" } else { "server" };
        format!(
            "--memory size={MEMORY},shared=on\n--net \
             vhost_user=true,socket={},vhost_mode={mode},num_queues={},queue_size=1024,mac={}\n",
            self.path,
            2 * self.queues,
            self.mac
        )
    }

    fn crosvm(&self) -> Result<String, String> {
        if !self.is_server {
            return Err(format!(
                "crosvm only connects; let the daemon listen: set Interface {} \
                 options:role=server",
                self.name
            ));
        }
        Ok(format!("--vhost-user net,socket={}\n", self.path))
    }
}

/// An address for the guest of a port that states none: that of the port's identity, since VMMs
/// give all their guests the same one.
fn mac_of(uuid: &Value) -> String {
    let text = uuid.bare().replace('-', "");
    let end = text.get(text.len().saturating_sub(6)..).unwrap_or_default();
    let byte = |at: usize| end.get(at..at + 2).unwrap_or("00");
    format!("52:54:00:{}:{}:{}", byte(0), byte(2), byte(4))
}

/// Text as an attribute of XML in apostrophes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(role: &str, queues: &str) -> VhostUserPort {
        read(&[("path", "/run/a,b'c.sock"), ("role", role), ("queues", queues)], &[])
    }

    fn read(options: &[(&str, &str)], status: &[(&str, &str)]) -> VhostUserPort {
        let map = |pairs: &[(&str, &str)]| Value::strings(pairs.iter().copied());
        let uuid = Value::string("01234567-89ab-cdef-0123-456789abcdef");
        let row = vec![uuid, Value::string("vhost-user"), map(options), map(status)];
        let table = Output::Table {
            headings: Vec::new(),
            rows: vec![row],
            form: trama_api::transaction::Form::List,
        };
        VhostUserPort::of(Asked::read("vm1", &[table, Output::line("[]")]).unwrap()).unwrap()
    }

    #[test]
    fn each_vmm_is_told_its_side_its_queues_and_an_address() {
        let (server, client) = (port("server", "1"), port("client", "4"));
        let qemu = Vmm::Qemu.attach(&server).unwrap();
        assert!(qemu.contains("path=/run/a,,b'c.sock,reconnect-ms=1000\n"), "{qemu}");
        assert!(qemu.ends_with("netdev=net-vm1,mac=52:54:00:ab:cd:ef\n"), "{qemu}");
        let qemu = Vmm::Qemu.attach(&client).unwrap();
        assert!(qemu.contains("server=on,wait=off\n") && qemu.contains("queues=4\n"), "{qemu}");
        assert!(qemu.ends_with("mq=on,vectors=10\n"), "{qemu}");
        let libvirt = Vmm::Libvirt.attach(&server).unwrap();
        assert!(libvirt.contains("path='/run/a,b&apos;c.sock' mode='client'"), "{libvirt}");
        assert!(!libvirt.contains("queues"), "{libvirt}");
        let libvirt = Vmm::Libvirt.attach(&client).unwrap();
        assert!(libvirt.contains("mode='server'/>") && libvirt.contains("queues='4'"), "{libvirt}");
        let cloud = Vmm::CloudHypervisor.attach(&client).unwrap();
        assert!(cloud.contains("vhost_mode=server,num_queues=8"), "{cloud}");
        let crosvm = Vmm::Crosvm.attach(&server).unwrap();
        assert_eq!(crosvm, "--vhost-user net,socket=/run/a,b'c.sock\n");
        assert!(Vmm::Crosvm.attach(&client).unwrap_err().contains("options:role=server"));
    }

    #[test]
    fn a_vmm_is_told_the_whole_path() {
        let status = [("path", "/run/trama/a.sock")];
        for options in [&[("path", "a.sock")][..], &[]] {
            assert_eq!(read(options, &status).path, "/run/trama/a.sock", "{options:?}");
        }
    }

    #[test]
    fn a_port_that_cannot_be_attached_is_refused_with_the_remedy() {
        for (kind, remedy) in [
            ("tap", "set Interface t type=vhost-user"),
            ("vhost-user", "see get Interface t error"),
        ] {
            let row = vec![Value::string("u"), Value::string(kind), Value::NOTHING, Value::NOTHING];
            let form = trama_api::transaction::Form::List;
            let table = Output::Table { headings: Vec::new(), rows: vec![row], form };
            let refused = Vmm::Qemu.answer("t", &[table, Output::line("[]")]).unwrap_err();
            assert!(refused.ends_with(remedy), "{refused}");
        }
        assert!(Vmm::Qemu.answer("t", &[]).is_err());
    }
}
