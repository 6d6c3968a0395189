//! UEFI firmware that boots from the network: by HTTP, and over IPv6.
//!
//! The firmware is the only client of the field that asks for all of it: an answer under its vendor
//! class with a URI, a stateful address by DHCPv6 with a boot file URL, and TFTP over IPv6.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "nobody calls a test; one that cannot go on panics"
)]

use std::path::Path;
use std::time::Duration;

use tempfile::{TempDir, tempdir};
use trama_tests::nat::{SOON, tap_port};
use trama_tests::process::tied_command;
use trama_tests::{Host, Netns, Process, Tramad, wait_until};

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// A program that firmware loads: GRUB, whole.
const PROGRAM: &str = "/usr/lib/grub/x86_64-efi/monolithic/grubnetx64.efi";
const MAC: &str = "52:54:00:00:00:0c";
/// Without KVM, on a loaded machine.
const BOOT: Duration = Duration::from_secs(240);

/// The ways to boot that firmware tries; HTTP comes last, PXE over IPv4 first.
struct Pxe {
    ipv4: bool,
    ipv6: bool,
}

/// A machine whose firmware boots from the network, and what it says on its console.
struct Firmware {
    qemu: Process,
    dir: TempDir,
}

impl Firmware {
    fn start(socket: &Path, pxe: &Pxe) -> Firmware {
        let dir = tempdir().expect("temporary directory");
        let file = |name: &str| dir.path().join(name).display().to_string();
        std::fs::copy(VARIABLES, dir.path().join("variables")).expect("OVMF (package ovmf)");
        let answer = |way: bool| if way { "y" } else { "n" };
        let mut command = tied_command("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512"]);
        command.args(["-object", "memory-backend-memfd,id=mem,size=512M,share=on"]);
        command.args(["-numa", "node,memdev=mem"]);
        command.args(["-object", "rng-random,id=r,filename=/dev/urandom"]);
        command.args(["-device", "virtio-rng-pci,rng=r"]);
        command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={CODE}")]);
        command.args(["-drive", &format!("if=pflash,format=raw,file={}", file("variables"))]);
        command.args(["-serial", &format!("file:{}", file("console"))]);
        for (version, way) in [("IPv4", pxe.ipv4), ("IPv6", pxe.ipv6)] {
            let name = format!("name=opt/org.tianocore/{version}PXESupport");
            command.args(["-fw_cfg", &format!("{name},string={}", answer(way))]);
        }
        command.args(["-chardev", &format!("socket,id=c,path={}", socket.display())]);
        command.args(["-netdev", "vhost-user,id=n,chardev=c"]);
        let device = "virtio-net-pci,netdev=n,romfile=,bootindex=1,disable-legacy=on";
        command.args(["-device", &format!("{device},mac={MAC}")]);
        let qemu = Process::spawn("qemu", command, &dir.path().join("log"));
        Firmware { qemu, dir }
    }

    fn console(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[track_caller]
    fn wait_for_console(&mut self, text: &str) {
        wait_until(text, BOOT, || {
            assert!(self.qemu.is_running(), "QEMU ended: {}", self.qemu.log());
            self.console().contains(text).then_some(())
        });
    }
}

/// A network whose boot files are these, with a guest's port, and further ports.
fn network(keys: &str, ports: &str) -> String {
    format!(
        "[[network]]\nname = \"lab\"\nsubnet = [\"10.1.0.0/24\", \"fd00:1::/64\"]\n{keys}\n\n\
         [[port]]\nname = \"guest\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
         path = \"{{dir}}/guest.sock\"\n{ports}"
    )
}

/// A web server at .9 and ::9 of the network, with the program.
fn web(netns: &Netns) -> (Process, String) {
    let folder = format!("{}/www", netns.scratch());
    netns.run(&format!("mkdir {folder} && cp {PROGRAM} {folder}/boot.efi"));
    let mut command = netns.command("/usr/bin/python3");
    command.args(["-u", "-m", "http.server", "80", "--bind", "::", "--directory", &folder]);
    let mut server = Process::spawn("web", command, &Path::new(netns.scratch()).join("web.log"));
    server.wait_for_log("Serving HTTP", SOON);
    let keys = "ifname = \"web\"\naddress = [\"10.1.0.9/24\", \"fd00:1::9/64\"]";
    (server, tap_port("lab", "web", netns, keys))
}

/// Boots by HTTP from this host; returns the table of leases.
fn boot_by_http(host: &str) -> String {
    let netns = Netns::with_ipv6("web");
    let (mut server, port) = web(&netns);
    let keys = format!("dhcp = {{ boot-file = {{ uefi = \"http://{host}/boot.efi\" }} }}");
    let tramad = Tramad::start(&network(&keys, &port));
    let _firmware = Firmware::start(&tramad.path("guest.sock"), &Pxe { ipv4: false, ipv6: false });
    server.wait_for_log("\"GET /boot.efi HTTP/1.1\" 200", BOOT);
    let table = tramad.ctl("leases lab");
    tramad.stop();
    table
}

#[test]
fn firmware_boots_by_http_over_ipv4() {
    let table = boot_by_http("10.1.0.9");
    let bound = |address: &str| {
        table.lines().filter(|line| line.contains(address) && line.contains(MAC)).count()
    };
    assert_eq!(bound("10.1.0."), 1, "{table}");
}

#[test]
fn firmware_boots_by_http_over_ipv6() {
    let table = boot_by_http("[fd00:1::9]");
    assert!(table.lines().any(|it| it.contains("fd00:1::1") && it.contains(MAC)), "{table}");
}

#[test]
fn firmware_boots_by_pxe_over_ipv6() {
    let dir = tempdir().expect("temporary directory");
    std::fs::copy(PROGRAM, dir.path().join("boot.efi")).expect("GRUB (grub-efi-amd64-bin)");
    let keys = format!(
        "tftp = \"{}\"\ndhcp = {{ boot-file = {{ uefi = \"boot.efi\" }} }}",
        dir.path().display()
    );
    let tramad = Tramad::start(&network(&keys, ""));
    let mut firmware =
        Firmware::start(&tramad.path("guest.sock"), &Pxe { ipv4: false, ipv6: true });
    firmware.wait_for_console("NBP file downloaded successfully");
    let console = firmware.console();
    assert!(console.contains("PXE over IPv6"), "{console}");
    let table = tramad.ctl("leases lab");
    assert!(table.lines().any(|it| it.contains("fd00:1::1") && it.contains(MAC)), "{table}");
    tramad.stop();
}
