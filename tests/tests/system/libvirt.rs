//! Guests of a real libvirtd, whose QEMU runs as a user of its own.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use trama_tests::libvirt::open_folder;
use trama_tests::nat::tap_port;
use trama_tests::{Domain, Host, Libvirt, Netns, SOON, Tramad, wait_until};

const MAC: &str = "52:54:00:00:00:01";
const OTHER_MAC: &str = "52:54:00:00:00:02";
/// A guest under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A network with vhost-user ports, whose sockets are in `dir`, and a host at 10.1.0.100.
fn lab(dir: &Path, ports: &[&str], keys: &str, host: &Netns) -> String {
    let mut text = "[[network]]\nname = \"lab\"\n".to_owned();
    for name in ports {
        text += &format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{}/{name}.sock\"\n{keys}\n",
            dir.display(),
        );
    }
    text + &tap_port("lab", "host", host, "address = \"10.1.0.100/24\"")
}

/// An `<interface>` on the socket of a port; `mode` is QEMU's.
fn vhost_user(dir: &Path, port: &str, mac: &str, mode: &str, more: &str) -> String {
    format!(
        "<interface type='vhostuser'><mac address='{mac}'/>\
         <source type='unix' path='{}/{port}.sock' mode='{mode}'>{more}</source>\
         <model type='virtio'/></interface>",
        dir.display()
    )
}

const RECONNECT: &str = "<reconnect enabled='yes' timeout='1'/>";

fn configure(guest: &Domain, interface: &str, address: &str) {
    guest.run(&format!("ip addr add {address} dev {interface}; ip link set {interface} up"));
}

/// The figure of a line of `virsh domifstat`.
fn figure(text: &str, name: &str) -> u64 {
    let found = text.lines().find_map(|line| line.split_once(name)?.1.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {name}:\n{text}"))
}

#[test]
fn a_guest_in_client_mode_connects_by_its_group_and_comes_back() {
    let (dir, host) = (open_folder(), Netns::new("host"));
    let config = lab(dir.path(), &["vm", "other"], "socket-group = \"kvm\"", &host);
    let mut tramad = Tramad::start(&config);
    let libvirt = Libvirt::start(&host, &tramad);
    let interface = vhost_user(dir.path(), "vm", MAC, "client", RECONNECT);
    let guest = libvirt.create("guest", &interface);
    configure(&guest, "eth0", "10.1.0.1/24");
    host.wait_for_ping("10.1.0.1", PATIENCE);
    tramad.restart(Signal::KILL);
    host.wait_for_ping("10.1.0.1", SOON);

    // libvirt asks which port has the socket, and for its figures.
    let list = libvirt.virsh(&["domiflist", "guest"]);
    assert!(list.lines().any(|line| line.contains("vhostuser") && line.contains(MAC)), "{list}");
    let before = libvirt.virsh(&["domifstat", "guest", "vm"]);
    assert_eq!(host.ping_losses("10.1.0.1", 10), 0);
    let after = libvirt.virsh(&["domifstat", "guest", "vm"]);
    // libvirt's directions are the guest's.
    for (name, ours) in [("rx_packets", "tx_packets"), ("tx_packets", "rx_packets")] {
        let (first, last) = (figure(&before, name), figure(&after, name));
        assert!(last >= first + 10, "{name}: {first}, then {last}\n{}", libvirt.calls());
        assert!(tramad.statistic("vm", ours) >= last, "{ours}");
    }

    // A second device, live.
    let other = vhost_user(dir.path(), "other", OTHER_MAC, "client", RECONNECT);
    libvirt.change_device("attach-device", "guest", &other);
    wait_until("the guest sees it", PATIENCE, || {
        (guest.try_run("ip link show eth1").status == 0).then_some(())
    });
    guest.run("ip addr del 10.1.0.1/24 dev eth0");
    configure(&guest, "eth1", "10.1.0.2/24");
    host.wait_for_ping("10.1.0.2", PATIENCE);
    libvirt.change_device("detach-device", "guest", &other);
    wait_until("the guest has lost it", PATIENCE, || {
        (guest.try_run("ip link show eth1").status != 0).then_some(())
    });
    wait_until("the port waits", SOON, || {
        (tramad.ctl("get Interface other link_state").trim() == "down").then_some(())
    });
    configure(&guest, "eth0", "10.1.0.1/24");
    host.wait_for_ping("10.1.0.1", SOON);
    tramad.stop();
}

#[test]
fn a_guest_in_server_mode_is_found_again_by_the_switch() {
    let (dir, host) = (open_folder(), Netns::new("host"));
    let mut tramad = Tramad::start(&lab(dir.path(), &["vm"], "role = \"client\"", &host));
    let libvirt = Libvirt::start(&host, &tramad);
    // QEMU makes the socket.
    std::os::unix::fs::chown(dir.path(), None, Some(group("kvm"))).expect("chown");
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o775))
        .expect("chmod");
    let interface = vhost_user(dir.path(), "vm", MAC, "server", "");
    for round in 0..2 {
        let guest = libvirt.create("guest", &interface);
        configure(&guest, "eth0", "10.1.0.1/24");
        host.wait_for_ping("10.1.0.1", PATIENCE);
        if round == 0 {
            tramad.restart(Signal::KILL);
            host.wait_for_ping("10.1.0.1", SOON);
            assert!(figure(&libvirt.virsh(&["domifstat", "guest", "vm"]), "rx_packets") > 0);
            libvirt.virsh(&["destroy", "guest"]);
        }
    }
    tramad.stop();
}

fn group(name: &str) -> u32 {
    trama_vhost_net_backend::access::group_id(name).expect("a group")
}
