//! Firmware boots from trama's own DHCP and TFTP. Its virtio-net drivers negotiate fewer features
//! than Linux's, and take over from each other on one connection: UEFI (whose driver GRUB uses)
//! before Linux, and U-Boot.

use std::fs::{copy, create_dir_all, write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::{TempDir, tempdir};
use trama_tests::guest::image;
use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Tramad, UBoot};

/// GRUB with all modules for network boot (package grub-efi-amd64-bin).
const GRUB: &str = "/usr/lib/grub/x86_64-efi/monolithic/grubnetx64.efi";
const MAC: &str = "52:54:00:00:09:01";

/// From UEFI's start to GRUB's end takes a minute on an idle machine. GRUB requests 22,000 blocks
/// one by one, each of which may wait for a processor.
const FIRMWARE_LIMIT: Duration = Duration::from_secs(480);

/// A network with a gateway that serves the boot files, a guest's port, and a host's port.
struct Lab {
    tramad: Tramad,
    host: Netns,
    _files: TempDir,
}

impl Lab {
    fn new(files: TempDir) -> Lab {
        let host = Netns::new("host");
        let configuration = format!(
            "[[network]]\nname = \"lab\"\nsubnet = \"10.1.0.0/24\"\ntftp = \"{}\"\n\
             dhcp = {{ boot-file = {{ uefi = \"grub.efi\", arm64 = \"blob\" }} }}\n\n\
             [[port]]\nname = \"guest\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/guest.sock\"\n\n\
             [[port]]\nname = \"host\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"host\"\n\
             netns = \"{}\"\naddress = \"10.1.0.100/24\"\n",
            files.path().display(),
            host.name()
        );
        Lab { tramad: Tramad::start(&configuration), host, _files: files }
    }

    fn nic(&self) -> Nic {
        Nic::connecting(self.tramad.path("guest.sock"), MAC)
    }

    /// Stops the daemon, which must have logged no warning.
    fn end(self) {
        let log = self.tramad.log();
        // A host that lacks the gateways' user is told so.
        let is_warning =
            |line: &str| line.contains(" WARN ") && !line.contains("useradd -r trama-gateway");
        assert!(!log.lines().any(is_warning), "{log}");
        self.tramad.stop();
    }
}

/// Returns boot files for UEFI: GRUB, which boots the guests' kernel from its own server.
fn grub_files() -> TempDir {
    let dir = tempdir().expect("temporary directory");
    let kernel = image(GuestOptions::new("", []).kernel);
    copy(GRUB, dir.path().join("grub.efi")).expect("GRUB; run scripts/install.sh test");
    copy(kernel.join("vmlinuz"), dir.path().join("vmlinuz")).expect("kernel");
    compress(&kernel.join("initramfs"), &dir.path().join("initramfs"));
    create_dir_all(dir.path().join("grub")).expect("GRUB's directory");
    let menu = "serial --unit=0 --speed=115200\nterminal_output serial\n\
                linux /vmlinuz console=ttyS0 quiet panic=-1 no_timer_check booted-by=grub\n\
                initrd /initramfs\necho GRUB has loaded Linux\nboot\n";
    write(dir.path().join("grub/grub.cfg"), menu).expect("GRUB's menu");
    dir
}

/// Compresses the file: fewer blocks to request.
fn compress(from: &Path, to: &Path) {
    let output = Command::new("gzip").args(["-1", "-c"]).arg(from).output().expect("gzip");
    assert!(output.status.success(), "gzip: {}", String::from_utf8_lossy(&output.stderr));
    write(to, output.stdout).expect("initramfs");
}

/// Boots UEFI, GRUB and Linux on a device with these properties.
fn boot_by_uefi(properties: &str) {
    let lab = Lab::new(grub_files());
    let nic = lab.nic().with(properties);
    let guest = Guest::launch(&GuestOptions { uefi: true, ..GuestOptions::new("guest", [nic]) });
    guest.wait_for_console("GRUB has loaded Linux", FIRMWARE_LIMIT);
    guest.wait_until_ready();
    assert!(guest.run("cat /proc/cmdline").contains("booted-by=grub"));
    // The last driver carries frames of all sizes in both directions.
    guest.address("10.1.0.7/24");
    guest.wait_for_ping("10.1.0.100", Duration::from_secs(20));
    lab.host.start_iperf_server(5201);
    for options in ["-n 4M", "-n 4M -R"] {
        // A run ends when its sender does: frames in flight do not count.
        let bytes = guest.iperf_received("10.1.0.100", 5201, options);
        assert!(bytes >= 1_000_000, "{options}: {bytes} bytes");
    }
    assert!(lab.tramad.ctl("leases").contains(MAC));
    lab.end();
}

/// QEMU's default device: UEFI drives it as legacy, Linux as virtio 1.0.
#[test]
fn uefi_boots_linux_on_a_transitional_device() {
    boot_by_uefi("");
}

/// The short header for all three.
#[test]
fn uefi_boots_linux_on_a_legacy_device() {
    boot_by_uefi("disable-modern=on,mrg_rxbuf=off");
}

#[test]
fn uboot_loads_a_file_on_pci_and_mmio() {
    let files = tempdir().expect("temporary directory");
    // Not a multiple of the block size, and more blocks than a ring has entries.
    let blob: Vec<u8> = (0..1_000_001u32).map(|i| (i * 7 + i / 251) as u8).collect();
    write(files.path().join("blob"), &blob).expect("boot file");
    let lab = Lab::new(files);
    for model in ["virtio-net-pci", "virtio-net-device"] {
        let mut uboot = UBoot::start(&lab.nic().of_model(model));
        let limit = Duration::from_secs(60);
        uboot.run("setenv autoload no", limit);
        let bound = uboot.run("dhcp", limit);
        assert!(bound.contains("DHCP client bound to address 10.1.0."), "{model}: {bound}");
        uboot.run("tftpboot 0x42000000 10.1.0.1:blob", limit);
        let sum = uboot.run("crc32 0x42000000 0x${filesize}", limit);
        assert!(sum.contains(&format!("==> {:08x}", crc32(&blob))), "{model}: {sum}");
    }
    lab.end();
}

/// Computes the CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}
