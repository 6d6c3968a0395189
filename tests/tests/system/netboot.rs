//! UEFI firmware boots from the network: by HTTP, and over IPv6.
//!
//! No other real client needs all of this: an answer with a URI under its vendor class, a stateful
//! DHCPv6 address with a boot file URL, and TFTP over IPv6.

use std::path::Path;
use std::time::Duration;

use tempfile::tempdir;
use trama_tests::nat::{SOON, tap_port};
use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Process, Tramad};

/// A program for the firmware: the complete GRUB.
const PROGRAM: &str = "/usr/lib/grub/x86_64-efi/monolithic/grubnetx64.efi";
const MAC: &str = "52:54:00:00:00:0c";
/// Time limit without KVM on a loaded machine.
const BOOT: Duration = Duration::from_secs(240);

/// Starts a guest whose firmware boots from the network: by PXE over IPv4, then IPv6, then by HTTP,
/// as far as `options` allow.
fn boot(tramad: &Tramad, options: &[&'static str]) -> Guest {
    let nic = Nic::connecting(tramad.path("guest.sock"), MAC);
    let firmware = options.to_vec();
    Guest::launch(&GuestOptions { uefi: true, firmware, ..GuestOptions::new("guest", [nic]) })
}

/// Returns a network with these boot settings, a guest's port, and further ports.
fn network(keys: &str, ports: &str) -> String {
    format!(
        "[[network]]\nname = \"lab\"\nsubnet = [\"10.1.0.0/24\", \"fd00:1::/64\"]\n{keys}\n\n\
         [[port]]\nname = \"guest\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
         path = \"{{dir}}/guest.sock\"\n{ports}"
    )
}

/// Starts a web server with the program at .9 and ::9 of the network.
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
    let _guest = boot(&tramad, &["IPv4PXESupport=n", "IPv6PXESupport=n"]);
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
    let guest = boot(&tramad, &["IPv4PXESupport=n"]);
    guest.wait_for_console("PXE over IPv6", BOOT);
    guest.wait_for_console("NBP file downloaded successfully", BOOT);
    let table = tramad.ctl("leases lab");
    assert!(table.lines().any(|it| it.contains("fd00:1::1") && it.contains(MAC)), "{table}");
    tramad.stop();
}
