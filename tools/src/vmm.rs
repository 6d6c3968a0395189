//! How a VMM is told of a port: its arguments, or the elements of its configuration.

mod quoting;
mod sockets;

use quoting::{commas, identifier, option, shell, xml};
use trama_api::nearest::suggestion;
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
    const ALL: [Vmm; 5] = [Vmm::Qemu, Vmm::Libvirt, Vmm::CloudHypervisor, Vmm::Crosvm, Vmm::Lima];

    /// Its name, which is the command's.
    fn name(self) -> &'static str {
        match self {
            Vmm::Qemu => "qemu",
            Vmm::Libvirt => "libvirt",
            Vmm::CloudHypervisor => "cloud-hypervisor",
            Vmm::Crosvm => "crosvm",
            Vmm::Lima => "lima",
        }
    }

    /// The one of this name, as a command.
    pub(crate) fn of_command(name: &str) -> Option<Vmm> {
        Vmm::ALL.into_iter().find(|vmm| vmm.name() == name)
    }

    /// The types of ports that it can use, as a set of the table Interface.
    pub(crate) fn types(self) -> &'static str {
        match self {
            Vmm::Qemu => "vhost-user,stream,dgram",
            Vmm::Libvirt | Vmm::CloudHypervisor | Vmm::Crosvm => "vhost-user",
            Vmm::Lima => "stream",
        }
    }

    /// The answers to [`questions`], as what the VMM must be given: lines of text.
    ///
    /// # Errors
    /// It cannot use the port; the text has the remedy.
    pub(crate) fn answer(self, name: &str, answers: &[Output]) -> Result<String, String> {
        let asked = Asked::read(name, answers)?;
        let types: Vec<&str> = self.types().split(',').collect();
        if !types.contains(&&*asked.kind) {
            return Err(format!(
                "port {name} has type {}, and {} takes {}: set Interface {name} type={}",
                asked.kind,
                self.name(),
                types.join(" or "),
                types[0]
            ));
        }
        match (self, &*asked.kind) {
            (Vmm::Lima, _) => asked.lima(),
            (_, "stream") => asked.qemu_stream(),
            (_, "dgram") => asked.qemu_dgram(),
            _ => self.attach(&VhostUserPort::of(asked)?),
        }
    }

    /// What it must be given for a vhost-user port.
    fn attach(self, port: &VhostUserPort) -> Result<String, String> {
        match self {
            Vmm::Libvirt => Ok(port.libvirt()),
            Vmm::CloudHypervisor => port.cloud_hypervisor(),
            Vmm::Crosvm => port.crosvm(),
            Vmm::Qemu | Vmm::Lima => Ok(port.qemu()),
        }
    }
}

/// Says that there is no such port, and which one may be meant: one of those that `answer` to
/// [`ports`] has.
pub(crate) fn no_port(name: &str, answer: &[Output]) -> String {
    let Some(Output::Table { rows, .. }) = answer.first() else { return DIFFERS.to_owned() };
    let known: Vec<String> = rows.iter().flatten().map(Value::bare).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    format!("no port named {name}{}", suggestion(name, &known))
}

/// The command whose answer [`no_port`] reads.
pub(crate) fn ports() -> Vec<String> {
    ["--columns=name", "list", "Port"].map(str::to_owned).to_vec()
}

/// Says that an answer is not what was asked for.
const DIFFERS: &str = "the daemon is of another version";

/// The commands whose answers [`Asked::read`] reads. The first one has no row if there is no such
/// port.
pub(crate) fn questions(port: &str) -> Vec<Vec<String>> {
    let columns = "--columns=_uuid,type,options,status";
    let interface = ["--if-exists", columns, "list", "Interface", port];
    let mac = ["--if-exists", "get", "Port", port, "mac"];
    [interface, mac].map(|words| words.map(str::to_owned).to_vec()).to_vec()
}

/// Whether the answers to [`questions`] say that there is no such port.
pub(crate) fn is_missing(answers: &[Output]) -> bool {
    matches!(answers.first(), Some(Output::Table { rows, .. }) if rows.is_empty())
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
            return Err(DIFFERS.to_owned());
        };
        let [uuid, kind, options, status] = rows.first().map(Vec::as_slice).unwrap_or_default()
        else {
            return Err(DIFFERS.to_owned());
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
    /// Reads a port of type vhost-user.
    ///
    /// # Errors
    /// It does not run, and so has no path.
    fn of(port: Asked) -> Result<VhostUserPort, String> {
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
        let (id, path) = (identifier(name), commas(path));
        let side = if self.is_server { "reconnect-ms=1000" } else { "server=on,wait=off" };
        let socket = shell(&format!("socket,id=trama-{id},path={path},{side}"));
        let vectors = 2 * queues + 2;
        let many = if *queues > 1 { format!(",mq=on,vectors={vectors}") } else { String::new() };
        format!(
            "-m {MEMORY} -object memory-backend-memfd,id=trama-mem,size={MEMORY},share=on\n\
             -machine memory-backend=trama-mem\n\
             -chardev {socket}\n\
             -netdev vhost-user,id=net-{id},chardev=trama-{id},queues={queues}\n\
             -device virtio-net-pci,netdev=net-{id},mac={mac}{many}\n"
        )
    }

    fn libvirt(&self) -> String {
        let path = xml(&self.path);
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

    fn cloud_hypervisor(&self) -> Result<String, String> {
        let mode = if self.is_server { "client" } else { "server" };
        let net = format!(
            "vhost_user=true,socket={},vhost_mode={mode},num_queues={},queue_size=1024,mac={}",
            option(&self.path)?,
            2 * self.queues,
            self.mac
        );
        Ok(format!("--memory size={MEMORY},shared=on\n--net {}\n", shell(&net)))
    }

    fn crosvm(&self) -> Result<String, String> {
        if !self.is_server {
            return Err(format!(
                "crosvm only connects; let the daemon listen: set Interface {} \
                 options:role=server",
                self.name
            ));
        }
        Ok(format!("--vhost-user {}\n", shell(&format!("net,socket={}", option(&self.path)?))))
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
        let socket = r"'socket,id=trama-vm1,path=/run/a,,b'\''c.sock,reconnect-ms=1000'";
        assert!(qemu.contains(&format!("-chardev {socket}\n")), "{qemu}");
        assert!(qemu.ends_with("netdev=net-vm1,mac=52:54:00:ab:cd:ef\n"), "{qemu}");
        let qemu = Vmm::Qemu.attach(&client).unwrap();
        assert!(qemu.contains("server=on,wait=off'\n") && qemu.contains("queues=4\n"), "{qemu}");
        assert!(qemu.ends_with("mq=on,vectors=10\n"), "{qemu}");
        let libvirt = Vmm::Libvirt.attach(&server).unwrap();
        assert!(libvirt.contains("path='/run/a,b&apos;c.sock' mode='client'"), "{libvirt}");
        assert!(!libvirt.contains("queues"), "{libvirt}");
        let libvirt = Vmm::Libvirt.attach(&client).unwrap();
        assert!(libvirt.contains("mode='server'/>") && libvirt.contains("queues='4'"), "{libvirt}");
        let cloud = Vmm::CloudHypervisor.attach(&client).unwrap();
        assert!(cloud.contains("vhost_mode=server,num_queues=8"), "{cloud}");
        let crosvm = Vmm::Crosvm.attach(&server).unwrap();
        assert_eq!(crosvm, "--vhost-user 'net,socket=\"/run/a,b'\\''c.sock\"'\n");
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
        for (vmm, kind, remedy) in [
            (Vmm::Qemu, "tap", "set Interface t type=vhost-user"),
            (Vmm::Lima, "tap", "set Interface t type=stream"),
            (Vmm::Lima, "vhost-user", "set Interface t type=stream"),
            (Vmm::Crosvm, "stream", "set Interface t type=vhost-user"),
            (Vmm::Libvirt, "dgram", "set Interface t type=vhost-user"),
            (Vmm::Qemu, "vhost-user", "see get Interface t error"),
        ] {
            let row = vec![Value::string("u"), Value::string(kind), Value::NOTHING, Value::NOTHING];
            let form = trama_api::transaction::Form::List;
            let table = Output::Table { headings: Vec::new(), rows: vec![row], form };
            let refused = vmm.answer("t", &[table, Output::line("[]")]).unwrap_err();
            assert!(refused.ends_with(remedy), "{refused}");
        }
        assert!(Vmm::Qemu.answer("t", &[]).is_err());
    }

    #[test]
    fn a_port_that_is_misspelt_is_named() {
        let table = |rows| Output::Table {
            headings: Vec::new(),
            rows,
            form: trama_api::transaction::Form::List,
        };
        assert!(is_missing(&[table(Vec::new()), Output::none()]));
        let known = table(vec![vec![Value::string("vm1")], vec![Value::string("box")]]);
        assert!(!is_missing(std::slice::from_ref(&known)));
        assert_eq!(no_port("vm2", &[known]), "no port named vm2; did you mean vm1?");
    }
}
