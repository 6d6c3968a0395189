//! iPXE's independent virtio driver, in both directions: a guest boots from the network and gets
//! its address by DHCP and its programs by TFTP from a host on the same network.
//!
//! iPXE's console output proves that frames arrived: the first script names the second, whose last
//! line comes after more frames than a ring has entries.

use std::fs::write;
use std::path::Path;
use std::time::Duration;

use tempfile::tempdir;
use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Process, SOON, Tramad};

/// QEMU's default queue size, and the payload of a full TFTP frame as iPXE asks for it.
const RING: usize = 256;
const BLOCK: usize = 1432;

/// Port, its role, and MAC address and properties of its guest's device.
type Device = (&'static str, &'static str, &'static str, &'static str);
const DEVICES: [Device; 4] = [
    ("server", "server", "52:54:00:00:00:09", ""),
    ("client", "client", "52:54:00:00:00:0a", ""),
    // Legacy, for which iPXE uses the short header with every buffer layout.
    ("legacy", "server", "52:54:00:00:00:0c", "disable-modern=on"),
    ("plain", "server", "52:54:00:00:00:0d", "disable-modern=on,mrg_rxbuf=off"),
];

#[test]
fn ipxe_boots_from_a_host_on_the_network() {
    let host = Netns::new("host");
    let mut configuration = format!(
        "[[network]]\nname = \"lab\"\n\n[[port]]\nname = \"host\"\nnetwork = \"lab\"\n\
         type = \"tap\"\nifname = \"host\"\nnetns = \"{}\"\naddress = \"10.1.0.100/24\"\n\
         tag = 10\n",
        host.name()
    );
    for (name, role, ..) in DEVICES {
        configuration += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{name}.sock\"\nrole = \"{role}\"\ntag = 10\n"
        );
    }
    let tramad = Tramad::start(&configuration);
    let dir = tempdir().expect("temporary directory");
    let server = boot_server(&host, dir.path());
    let capture = host.capture("host", "inbound and udp");

    let guests = DEVICES.map(|(name, role, mac, properties)| {
        let socket = tramad.path(&format!("{name}.sock"));
        let end = if role == "server" { Nic::connecting } else { Nic::listening };
        let nic = end(socket, mac).with(properties);
        Guest::launch(&GuestOptions { network_boot: true, ..GuestOptions::new(name, [nic]) })
    });
    for (guest, (name, _, mac, _)) in guests.iter().zip(DEVICES) {
        let limit = Duration::from_secs(120);
        guest.wait_for_console(&format!("second script heard by {mac} at 10.1.0."), limit);
        assert!(tramad.ctl("fdb/show lab").contains(mac));
        assert!(tramad.statistic(name, "tx_packets") > RING as u64, "{name}: the ring went round");
    }
    // The guests' frames arrived, too: each block of the second script was acknowledged.
    capture.wait_for("the acknowledgements", SOON, |text| {
        text.matches("[udp sum ok]").count() > DEVICES.len() * RING
    });
    let seen = capture.stop();
    assert_eq!(seen.wrong_checksums, 0, "{}", seen.excerpt);
    for (_, _, mac, _) in DEVICES {
        for word in ["DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK"] {
            let log = server.log();
            let said = log.lines().any(|line| line.contains(word) && line.contains(mac));
            assert!(said, "no {word} of {mac} in:\n{log}");
        }
    }
    tramad.stop();
}

/// Starts dnsmasq as the host's DHCP and TFTP server, with two scripts to boot, the second a large
/// one.
fn boot_server(host: &Netns, dir: &Path) -> Process {
    let tftp = dir.join("tftp");
    std::fs::create_dir(&tftp).expect("TFTP directory");
    write(tftp.join("first.ipxe"), "#!ipxe\nchain second.ipxe\n").expect("script");
    let comment = format!("# {}\n", "-".repeat(97));
    let filling = comment.repeat((RING + 50) * BLOCK / comment.len());
    let last = "echo second script heard by ${net0/mac} at ${net0/ip}\nshell\n";
    write(tftp.join("second.ipxe"), format!("#!ipxe\n{filling}{last}")).expect("script");

    host.run("echo 0 >/proc/sys/net/ipv6/conf/host/disable_ipv6");
    host.run("ip address add fd00::1/64 dev host nodad");
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0"]);
    command.args(["--log-facility=-", "--log-dhcp", "--pid-file", "--leasefile-ro", "--no-ping"]);
    command.args(["--interface=host", "--bind-interfaces", "--dhcp-range=10.1.0.50,10.1.0.99"]);
    command.args(["--dhcp-boot=first.ipxe", "--enable-tftp"]);
    // Without a router advertisement, iPXE waits a quarter of a minute for one.
    command.args(["--enable-ra", "--dhcp-range=fd00::,ra-only"]);
    command.arg(format!("--tftp-root={}", tftp.display()));
    let mut server = Process::spawn("dnsmasq", command, &dir.join("dnsmasq.log"));
    server.wait_for_log("TFTP root is", SOON);
    server
}
