//! A real guest: QEMU without hardware acceleration, the distribution's kernel, and an agent that
//! runs commands from a virtio-serial port (`scripts/guest-init`).
//!
//! A guest boots in about three seconds. Kernel and initramfs come from `scripts/guest-image.sh`,
//! which caches what it has built.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, Silence};
use crate::host::{CommandResult, Host};
use crate::process::{POLL, Process, SOON, User, tied_command, tied_command_as, wait_until};

/// Time limit of a boot on a machine that is busy with other tests.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// A network device of a guest: virtio-net on a vhost-user socket, or an emulated one on a TAP.
#[derive(Clone, Debug)]
pub struct Nic {
    /// QEMU's name of the device.
    pub model: String,
    /// The socket's path, or the TAP's name.
    pub socket: PathBuf,
    /// Whether it is on a TAP.
    pub is_tap: bool,
    /// Whether QEMU listens on the socket and the backend connects.
    pub listens: bool,
    /// The device's MAC address.
    pub mac: String,
    /// More properties of `virtio-net-pci`, such as `csum=off`.
    pub properties: String,
    /// Queue pairs; the guest has as many processors as its largest device has pairs.
    pub queues: u16,
    /// QEMU's backend and its options, in place of the one that the model has: `stream,…`.
    pub netdev: Option<String>,
}

impl Nic {
    /// A device that connects to a backend listening on `socket`.
    pub fn connecting(socket: impl Into<PathBuf>, mac: &str) -> Nic {
        Nic {
            model: VIRTIO.into(),
            socket: socket.into(),
            is_tap: false,
            listens: false,
            mac: mac.into(),
            properties: String::new(),
            queues: 1,
            netdev: None,
        }
    }

    /// A virtio device on a TAP, which QEMU makes unless it exists.
    pub fn on_tap(tap: &str, mac: &str) -> Nic {
        Nic { is_tap: true, ..Nic::connecting(tap, mac) }
    }

    /// A virtio device on a backend of QEMU's own.
    pub fn over(netdev: &str, mac: &str) -> Nic {
        Nic { netdev: Some(netdev.to_owned()), ..Nic::connecting("", mac) }
    }

    /// An emulated device (`e1000`, …) on an existing TAP.
    pub fn emulated(model: &str, tap: &str, mac: &str) -> Nic {
        Nic { model: model.into(), ..Nic::on_tap(tap, mac) }
    }

    /// A device that listens on `socket` for the backend.
    pub fn listening(socket: impl Into<PathBuf>, mac: &str) -> Nic {
        Nic { listens: true, ..Nic::connecting(socket, mac) }
    }

    /// Changes the model, for example to `virtio-net-device`.
    pub fn of_model(mut self, model: &str) -> Nic {
        self.model = model.to_owned();
        self
    }

    /// Adds properties, separated by commas.
    pub fn with(mut self, properties: &str) -> Nic {
        self.properties = properties.to_owned();
        self
    }

    /// Sets the number of queue pairs.
    pub fn with_queues(mut self, queues: u16) -> Nic {
        self.queues = queues;
        self
    }

    /// Properties of a device that offers its driver no offload and no mergeable buffers.
    pub const PLAIN: &str = "csum=off,guest_csum=off,gso=off,host_tso4=off,host_tso6=off,\
        host_ecn=off,host_ufo=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,\
        mrg_rxbuf=off";
}

/// The default model.
const VIRTIO: &str = "virtio-net-pci";

const QEMU: &str = "qemu-system-x86_64";

/// The guest's own copies of UEFI firmware and its initial variables (package ovmf).
const UEFI: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];

pub(crate) const CLOUD_KERNEL: &str = "linux-image-cloud-amd64";
/// The package of a kernel with drivers of emulated devices. It takes longer to download and boot.
pub const FULL_KERNEL: &str = "linux-image-amd64";

/// How to start a [`Guest`].
#[derive(Clone, Debug)]
pub struct GuestOptions {
    /// A name for messages and files.
    pub name: String,
    /// The guest's devices: eth0, eth1…
    pub nics: Vec<Nic>,
    /// Whether the memory is shared with the backend, as vhost-user needs it.
    pub shared_memory: bool,
    /// Whether to boot from the device's ROM: then there is no agent, only iPXE.
    pub network_boot: bool,
    /// Whether UEFI firmware boots from the network, with its own driver and not the ROM's.
    pub uefi: bool,
    /// Options of that firmware as `NAME=VALUE`, below `opt/org.tianocore`.
    pub firmware: Vec<&'static str>,
    /// The package of its kernel; the cloud kernel has no drivers of emulated devices.
    pub kernel: &'static str,
    /// The user that runs QEMU; `None` for the test's own.
    pub user: Option<User>,
    /// The socket at which QEMU waits for a guest that migrates to it, instead of booting one.
    pub incoming: Option<PathBuf>,
}

impl GuestOptions {
    /// A Linux guest with these devices.
    pub fn new(name: &str, nics: impl IntoIterator<Item = Nic>) -> GuestOptions {
        GuestOptions {
            name: name.to_owned(),
            nics: nics.into_iter().collect(),
            shared_memory: true,
            network_boot: false,
            uefi: false,
            firmware: Vec::new(),
            kernel: CLOUD_KERNEL,
            user: None,
            incoming: None,
        }
    }

    /// Returns whether QEMU loads the kernel itself, without a network boot.
    fn boots_kernel(&self) -> bool {
        !self.network_boot && !self.uefi
    }
}

/// A running virtual machine; dropping it kills QEMU.
pub struct Guest {
    name: String,
    qemu: Process,
    agent: Agent,
    dir: TempDir,
}

impl Guest {
    /// Starts a guest with one device and waits for its agent.
    #[track_caller]
    pub fn boot(name: &str, nic: Nic) -> Guest {
        Guest::start(&GuestOptions::new(name, [nic]))
    }

    /// Starts a guest and, unless it boots from the network, waits for its agent.
    #[track_caller]
    pub fn start(options: &GuestOptions) -> Guest {
        let guest = Guest::launch(options);
        if options.boots_kernel() {
            guest.wait_until_ready();
        }
        guest
    }

    /// Starts QEMU and returns at once, so that several guests can boot together.
    #[track_caller]
    pub fn launch(options: &GuestOptions) -> Guest {
        let dir = tempfile::tempdir().expect("temporary directory");
        if let Some(user) = &options.user {
            user.own(dir.path());
        }
        let command = command_line(options, dir.path());
        let log = dir.path().join("qemu.log");
        let mut qemu = Process::spawn_piped(&format!("QEMU of {}", options.name), command, &log);
        let to = qemu.child().stdin.take().expect("piped");
        let from = qemu.child().stdout.take().expect("piped");
        Guest { name: options.name.clone(), qemu, agent: Agent::at(to, from), dir }
    }

    /// Waits until the agent reports that it is ready, after the start or a reset.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        if self.agent.wait_until_ready(BOOT_LIMIT).is_err() {
            panic!(
                "{} did not boot\nQEMU: {}\nconsole: {}",
                self.name,
                self.qemu.log(),
                self.console()
            );
        }
    }

    /// Sets eth0's address and waits for its link.
    #[track_caller]
    pub fn address(&self, address: &str) {
        self.configure("eth0", address);
    }

    /// Sets an interface's address and waits for its link.
    #[track_caller]
    pub fn configure(&self, interface: &str, address: &str) {
        self.run(&format!("ip addr add {address} dev {interface}; ip link set {interface} up"));
        self.wait_for_link(interface, true);
    }

    /// Waits until the interface's carrier is up or down.
    #[track_caller]
    pub fn wait_for_link(&self, interface: &str, up: bool) {
        let wanted = if up { "1" } else { "0" };
        wait_until(&format!("{}'s {interface} has carrier {wanted}", self.name), SOON, || {
            let carrier = self.try_run(&format!("cat /sys/class/net/{interface}/carrier"));
            (carrier.text.trim() == wanted).then_some(())
        });
    }

    /// Resets the machine and waits until the guest has booted again.
    #[track_caller]
    pub fn reset(&self) {
        self.command("system_reset", json!({}));
        self.wait_until_ready();
    }

    /// Kills QEMU as `kill -9` does.
    pub fn kill(mut self) {
        self.qemu.end(Signal::KILL, SOON);
    }

    /// Whether QEMU still runs.
    pub fn is_running(&mut self) -> bool {
        self.qemu.is_running()
    }

    /// Returns QEMU's error output.
    pub fn qemu_log(&self) -> String {
        self.qemu.log()
    }

    /// Waits until the guest's console shows `text`.
    #[track_caller]
    pub fn wait_for_console(&self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.console().contains(text) {
            assert!(
                Instant::now() < deadline,
                "{}: no \"{text}\" after {limit:?}\nQEMU: {}\nconsole: {}",
                self.name,
                self.qemu.log(),
                self.console()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Returns the console output of the guest's kernel or of iPXE.
    pub fn console(&self) -> String {
        std::fs::read(self.dir.path().join("console.log"))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// Runs a QEMU monitor command with these arguments (a JSON object); returns the answer, in
    /// which `return` is missing if the command failed.
    #[track_caller]
    pub fn monitor(&self, command: &str, arguments: Value) -> Value {
        let stream = UnixStream::connect(self.dir.path().join("monitor")).expect("QEMU's monitor");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        let mut from = BufReader::new(&stream);
        let mut next = || -> Value {
            let mut text = String::new();
            from.read_line(&mut text).expect("QEMU's monitor answers");
            serde_json::from_str(&text).expect("JSON")
        };
        next(); // the greeting
        let mut ask = |name: &str, arguments: Value| {
            let request = json!({ "execute": name, "arguments": arguments });
            writeln!(&stream, "{request}").expect("QEMU's monitor");
            loop {
                let answer = next();
                if answer.get("event").is_none() {
                    break answer;
                }
            }
        };
        ask("qmp_capabilities", json!({}));
        ask(command, arguments)
    }

    /// Runs a QEMU monitor command that must succeed; returns its result.
    #[track_caller]
    pub fn command(&self, command: &str, arguments: Value) -> Value {
        let mut answer = self.monitor(command, arguments);
        assert!(answer.get("return").is_some(), "QEMU's monitor, {command}: {answer}");
        answer["return"].take()
    }
}

impl Host for Guest {
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
            Silence::Ended => panic!("{}: QEMU ended:\n{}", self.name, self.qemu.log()),
        })
    }
}

fn command_line(options: &GuestOptions, dir: &Path) -> Command {
    let mut command = match &options.user {
        Some(user) => tied_command_as(user, QEMU),
        None => tied_command(QEMU),
    };
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    // Without graphics, the firmware (and so iPXE) uses the serial line as its screen.
    let screen = if options.network_boot { ",graphics=off" } else { "" };
    let machine = format!("q35,usb=off,vmport=off,sata=off,hpet=off,smm=off{screen}");
    command.args(["-machine", &machine]);
    command.args(["-accel", "tcg", "-cpu", "max"]);
    let processors = options.nics.iter().map(|nic| nic.queues).max().unwrap_or(1);
    command.args(["-smp", &processors.to_string()]);
    let size = if options.uefi { "512M" } else { "192M" };
    give_memory(&mut command, size, options.shared_memory);
    if options.uefi {
        flash(&mut command, dir);
    }
    for option in &options.firmware {
        let (name, value) = option.split_once('=').expect("NAME=VALUE");
        command.args(["-fw_cfg", &format!("name=opt/org.tianocore/{name},string={value}")]);
    }
    command.args(["-chardev", "stdio,id=agent,signal=off", "-device", "virtio-serial-pci"]);
    command.args(["-device", "virtserialport,chardev=agent"]);
    command.args(["-serial", &format!("file:{}", dir.join("console.log").display())]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", dir.join("monitor").display())]);
    for (index, nic) in options.nics.iter().enumerate() {
        let boot = match (options.network_boot, options.uefi) {
            (true, _) => "bootindex=1",
            (_, true) => "bootindex=1,romfile=",
            _ => "romfile=",
        };
        plug(&mut command, index, nic, boot);
    }
    if options.uefi {
        // Newer firmware has no network without a random number generator. It comes after the
        // agent's device, whose name depends on its position among the virtio devices.
        command.args(["-object", "rng-random,id=r,filename=/dev/urandom"]);
        command.args(["-device", "virtio-rng-pci,rng=r"]);
    }
    if let Some(socket) = &options.incoming {
        command.args(["-incoming", &format!("unix:{}", socket.display())]);
    }
    if options.boots_kernel() {
        let mut image = image(options.kernel);
        if options.user.is_some() {
            // That user may have no access to the project's folder.
            copy_image(&image, dir);
            image = dir.to_owned();
        }
        command.arg("-kernel").arg(image.join("vmlinuz"));
        command.arg("-initrd").arg(image.join("initramfs"));
        // Skips what a test guest does not need, to boot faster.
        command.args([
            // no_timer_check: under emulation on a busy machine, the kernel misses the ticks that
            // it checks for, and panics.
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests no_timer_check",
        ]);
    }
    command
}

/// Adds memory, which backends can share if `is_shared`.
pub(crate) fn give_memory(command: &mut Command, size: &str, is_shared: bool) {
    let share = if is_shared { "on" } else { "off" };
    let backend = format!("memory-backend-memfd,id=memory,size={size},share={share}");
    command.args(["-m", size, "-object", &backend, "-numa", "node,memdev=memory"]);
}

/// Adds UEFI firmware as flash, with a private copy of its variables.
fn flash(command: &mut Command, dir: &Path) {
    let [code, fresh] = UEFI;
    let variables = dir.join("variables.fd");
    let copied = std::fs::copy(fresh, &variables);
    copied.unwrap_or_else(|error| panic!("{fresh}: {error}; run scripts/install.sh test"));
    let variables = format!("if=pflash,format=raw,file={}", variables.display());
    let code = format!("if=pflash,format=raw,readonly=on,file={code}");
    command.args(["-drive", &code, "-drive", &variables]);
}

/// Adds a device and its network backend; `boot`, unless empty, is added to the device's
/// properties.
pub(crate) fn plug(command: &mut Command, index: usize, nic: &Nic, boot: &str) {
    let side = if nic.listens { "server=on,wait=off" } else { reconnect() };
    let (path, queues) = (nic.socket.display(), nic.queues);
    if let Some(netdev) = &nic.netdev {
        command.args(["-netdev", &format!("{netdev},id=n{index}")]);
    } else if !nic.is_tap {
        command.args(["-chardev", &format!("socket,id=c{index},path={path},{side}")]);
        let backend = format!("vhost-user,id=n{index},chardev=c{index},queues={queues}");
        command.args(["-netdev", &backend]);
    } else {
        let several = if queues > 1 { format!(",queues={queues}") } else { String::new() };
        let tap = format!("tap,id=n{index},ifname={path},script=no,downscript=no{several}");
        command.args(["-netdev", &tap]);
    }
    let mut device = format!("{},netdev=n{index},mac={}", nic.model, nic.mac);
    if queues > 1 {
        // An interrupt vector for each ring, one for the control queue, one for configuration
        // changes.
        device += &format!(",mq=on,vectors={}", 2 * queues + 2);
    }
    for more in [boot, &nic.properties] {
        if !more.is_empty() {
            device += &format!(",{more}");
        }
    }
    command.args(["-device", &device]);
}

/// Copies kernel and initramfs to a folder that others can read.
#[track_caller]
pub fn copy_image(image: &Path, dir: &Path) {
    for file in ["vmlinuz", "initramfs"] {
        std::fs::copy(image.join(file), dir.join(file)).expect("copy the guest's image");
    }
}

/// Returns QEMU's option for reconnecting. Before 9.2 the time was in seconds, under a name that is
/// now deprecated.
fn reconnect() -> &'static str {
    static KNOWS_MILLISECONDS: OnceLock<bool> = OnceLock::new();
    let knows = KNOWS_MILLISECONDS.get_or_init(|| {
        let output = Command::new(QEMU).arg("--version").output().expect("run QEMU");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        let version: [Option<u32>; 2] = [numbers.next(), numbers.next()];
        version >= [Some(9), Some(2)]
    });
    if *knows { "reconnect-ms=1000" } else { "reconnect=1" }
}

/// Returns the folder with kernel and initramfs; builds them if missing, which needs the internet.
#[track_caller]
pub fn image(kernel: &'static str) -> PathBuf {
    static IMAGES: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    images.entry(kernel).or_insert_with(|| build_image(kernel)).clone()
}

#[track_caller]
fn build_image(kernel: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/guest-image.sh");
    let output = Command::new(&script).arg(kernel).output().expect("scripts/guest-image.sh");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/guest-image.sh: {complaint}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
