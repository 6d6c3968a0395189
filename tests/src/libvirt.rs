//! A libvirtd of the test's own, and guests that it runs as the user `libvirt-qemu`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::agent::{Agent, Silence};
use crate::guest::{BOOT_LIMIT, CLOUD_KERNEL, copy_image, image};
use crate::host::{CommandResult, Host};
use crate::netns::Netns;
use crate::process::{Process, SOON, tied_command, wait_until};
use crate::tramad::{Tramad, binary};

/// The shell stays, as init of its PID namespace, and reaps orphans. libvirtd runs `ovs-vsctl` from
/// its search path.
const PRIVATE: &str = "mount --make-rprivate / && mkdir -p /run/libvirt && \
    for folder in /run /var/lib /var/log /var/cache /etc; do \
    mount -t tmpfs -o mode=755 tmpfs $folder/libvirt || exit 1; done; \
    cp \"$0/qemu.conf\" /etc/libvirt && export PATH=\"$0/bin:$PATH\" && \
    { libvirtd -f \"$0/libvirtd.conf\" --pid-file \"$0/pid\"; exit; }";

/// A private libvirtd: folders and sockets belong to the test alone.
pub struct Libvirt {
    _daemon: Process,
    dir: TempDir,
}

impl Libvirt {
    /// Starts it in a network namespace. Its `ovs-vsctl` is the daemon's client, whose command
    /// lines are noted in the file `calls`.
    #[track_caller]
    pub fn start(netns: &Netns, tramad: &Tramad) -> Libvirt {
        let dir = open_folder();
        let at = dir.path().display();
        let daemon = format!("unix_sock_dir = \"{at}\"\nauth_unix_rw = \"none\"\n");
        let qemu = "security_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\n\
                    stdio_handler = \"file\"\n";
        fs::write(dir.path().join("libvirtd.conf"), daemon).expect("libvirtd.conf");
        fs::write(dir.path().join("qemu.conf"), qemu).expect("qemu.conf");
        write_ovs_vsctl(dir.path(), tramad);
        let mut command = netns.command("unshare");
        // Kills QEMU, too, which is a separate process that libvirtd leaves running.
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", PRIVATE]).arg(dir.path());
        let daemon = Process::spawn("libvirtd", command, &dir.path().join("log"));
        let libvirt = Libvirt { _daemon: daemon, dir };
        wait_until("libvirtd answers", SOON, || {
            (libvirt.try_virsh(&["version"]).status == 0).then_some(())
        });
        libvirt
    }

    /// Runs a command of virsh.
    pub fn try_virsh(&self, arguments: &[&str]) -> CommandResult {
        let uri = format!("qemu:///system?socket={}/libvirt-sock", self.dir.path().display());
        let mut command = tied_command("timeout");
        command.args(["--kill-after=1", "60", "virsh", "-q", "-c", &uri]).args(arguments);
        let output = command.output().expect("run virsh");
        let text =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        CommandResult { status: output.status.code().unwrap_or(-1), text: text.concat() }
    }

    /// Runs a command of virsh that must succeed.
    #[track_caller]
    pub fn virsh(&self, arguments: &[&str]) -> String {
        let answer = self.try_virsh(arguments);
        assert_eq!(answer.status, 0, "virsh {arguments:?}: {}", answer.text);
        answer.text
    }

    /// Returns the command lines of `ovs-vsctl` so far.
    pub fn calls(&self) -> String {
        fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default()
    }

    /// Attaches an `<interface>` to a domain that runs, or detaches it.
    #[track_caller]
    pub fn change_device(&self, command: &str, domain: &str, interface: &str) {
        let file = self.write("device.xml", interface);
        self.virsh(&[command, domain, &file, "--live"]);
    }

    /// Starts a guest with an `<interface>`.
    #[track_caller]
    pub fn create(&self, name: &str, interface: &str) -> Domain {
        let at = self.dir.path();
        let agent = at.join(format!("{name}.agent"));
        copy_image(&image(CLOUD_KERNEL), at);
        // QEMU creates the agent's socket.
        fs::set_permissions(at, fs::Permissions::from_mode(0o777)).expect("chmod");
        let file = self.write(&format!("{name}.xml"), &domain(name, at, &agent, interface));
        self.virsh(&["create", &file]);
        let to = UnixStream::connect(agent).expect("the guest's agent");
        let from = to.try_clone().expect("the guest's agent");
        let domain = Domain { name: name.to_owned(), agent: Agent::at(to, from) };
        assert!(domain.agent.wait_until_ready(BOOT_LIMIT).is_ok(), "{name} did not boot");
        domain
    }

    #[track_caller]
    fn write(&self, file: &str, text: &str) -> String {
        let path = self.dir.path().join(file);
        fs::write(&path, text).expect("write");
        path.display().to_string()
    }
}

/// A program that notes its command line, and is the daemon's client.
fn write_ovs_vsctl(dir: &Path, tramad: &Tramad) {
    let folder = dir.join("bin");
    fs::create_dir(&folder).expect("a folder");
    let program = folder.join("ovs-vsctl");
    let text = format!(
        "#!/bin/bash\necho \"$*\" >>{}/calls\nTRAMA_SOCKET={} exec -a ovs-vsctl {} \"$@\"\n",
        dir.display(),
        tramad.path("control.sock").display(),
        binary("tramactl").display()
    );
    fs::write(&program, text).expect("ovs-vsctl");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// A guest whose serial controller comes first on the bus, with room for further devices.
fn domain(name: &str, at: &Path, agent: &Path, interface: &str) -> String {
    let (at, agent) = (at.display(), agent.display());
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>192</memory>\
         <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\
         <vcpu>1</vcpu><cpu mode='maximum'/><os><type arch='x86_64' machine='q35'>hvm</type>\
         <kernel>{at}/vmlinuz</kernel><initrd>{at}/initramfs</initrd>\
         <cmdline>console=ttyS0 quiet panic=-1 no_timer_check</cmdline></os>\
         <features><acpi/></features><devices>{interface}\
         <controller type='virtio-serial' index='0'>\
         <address type='pci' bus='0x00' slot='0x05' function='0x0'/></controller>\
         <controller type='pci' model='pcie-root'/>\
         <controller type='pci' model='pcie-root-port'/>\
         <controller type='pci' model='pcie-root-port'/>\
         <channel type='unix'><source mode='bind' path='{agent}'/>\
         <target type='virtio' name='agent'/></channel>\
         <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    )
}

/// A guest of libvirt.
pub struct Domain {
    name: String,
    agent: Agent,
}

impl Host for Domain {
    fn name(&self) -> &str {
        &self.name
    }

    fn scratch(&self) -> &str {
        "/tmp"
    }

    fn try_run_for(&self, command: &str, limit: Duration) -> CommandResult {
        self.agent.run(command, limit).unwrap_or_else(|silence| match silence {
            Silence::TooLate(text) => {
                panic!("{}: `{command}` not done after {limit:?}:\n{text}", self.name)
            }
            Silence::Ended => panic!("{}: QEMU ended", self.name),
        })
    }
}

/// Returns a folder that every user may enter.
pub fn open_folder() -> TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    dir
}
