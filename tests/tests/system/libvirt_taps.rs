//! Guests of a real libvirtd behind TAPs, which join as ports of type `system`: those that libvirt
//! makes and adds by `ovs-vsctl`, and one that exists before its guest.

use std::time::Duration;

use trama_tests::nat::tap_port;
use trama_tests::{Domain, Host, Libvirt, Netns, SOON, Tramad, wait_until};

/// A guest under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const MAC: &str = "52:54:00:00:00:01";
const OTHER_MAC: &str = "52:54:00:00:00:02";

fn interface(kind: &str, mac: &str, inside: &str) -> String {
    format!(
        "<interface type='{kind}'><mac address='{mac}'/>{inside}<model type='virtio'/></interface>"
    )
}

fn configure(guest: &Domain, interface: &str, address: &str) {
    guest.run(&format!("ip addr add {address} dev {interface}; ip link set {interface} up"));
}

/// The figures of `virsh domifstat`, by name.
fn figure(libvirt: &Libvirt, tap: &str, name: &str) -> u64 {
    let text = libvirt.virsh(&["domifstat", "guest", tap]);
    let found = text.lines().find_map(|line| line.split_once(name)?.1.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {name}:\n{text}"))
}

/// Asserts that libvirt's figures of a TAP grow with its guest's traffic, as the port's do.
#[track_caller]
fn assert_figures(libvirt: &Libvirt, tramad: &Tramad, station: &Netns, tap: &str, address: &str) {
    // libvirt's directions are the guest's.
    let both = [("rx_packets", "tx_packets"), ("tx_packets", "rx_packets")];
    let before = both.map(|(name, _)| figure(libvirt, tap, name));
    for ((name, ours), first) in both.into_iter().zip(before) {
        wait_until(&format!("{name} grows from {first}"), SOON, || {
            assert_eq!(station.ping_losses(address, 10), 0);
            (figure(libvirt, tap, name) >= first + 10).then_some(())
        });
        let counted = tramad.statistic(tap, ours);
        assert!(counted >= 10, "{ours}: {counted}");
    }
}

#[test]
fn guests_behind_taps_join_by_ovs_vsctl_and_by_name() {
    let [host, station] = ["host", "station"].map(Netns::new);
    let local = tap_port("br0", "s", &station, "ifname = \"eth0\"\naddress = \"10.1.0.9/24\"");
    let tramad = Tramad::start_in(&host, &("[[network]]\nname = \"br0\"\n".to_owned() + &local));
    // libvirt looks for an interface of the bridge's name, whose MTU its TAPs get.
    tramad.ctl("add-port br0 local -- set Interface local type=internal options:ifname=br0");
    host.run("ip tuntap add made mode tap vnet_hdr && ip link set made up");
    tramad.ctl("add-port br0 made");
    let libvirt = Libvirt::start(&host, &tramad);
    let made = interface("ethernet", MAC, "<target dev='made' managed='no'/>");
    let guest = libvirt.create("guest", &made);
    configure(&guest, "eth0", "10.1.0.1/24");
    station.wait_for_ping("10.1.0.1", PATIENCE);
    assert_figures(&libvirt, &tramad, &station, "made", "10.1.0.1");

    // A second one, live, which libvirt makes.
    let bridge = interface(
        "bridge",
        OTHER_MAC,
        "<source bridge='br0'/><virtualport type='openvswitch'/><target dev='web'/>",
    );
    libvirt.change_device("attach-device", "guest", &bridge);
    wait_until("the guest sees it", PATIENCE, || {
        (guest.try_run("ip link show eth1").status == 0).then_some(())
    });
    assert_eq!(tramad.ctl("get Interface web type"), "system\n", "{}", libvirt.calls());
    let ids = tramad.ctl("get Interface web external_ids");
    assert!(ids.contains(&format!("attached-mac=\"{OTHER_MAC}\"")), "{ids}");
    guest.run("ip addr del 10.1.0.1/24 dev eth0");
    configure(&guest, "eth1", "10.1.0.2/24");
    station.wait_for_ping("10.1.0.2", PATIENCE);
    assert_figures(&libvirt, &tramad, &station, "web", "10.1.0.2");
    let mtu = host.run("cat /sys/class/net/web/mtu");
    assert_eq!(mtu, host.run("cat /sys/class/net/br0/mtu"));

    libvirt.change_device("detach-device", "guest", &bridge);
    wait_until("the guest has lost it", PATIENCE, || {
        (guest.try_run("ip link show eth1").status != 0).then_some(())
    });
    wait_until("its port is removed", SOON, || {
        (tramad.ctl("list-ports br0") == "local\nmade\ns\n").then_some(())
    });
    configure(&guest, "eth0", "10.1.0.1/24");
    station.wait_for_ping("10.1.0.1", SOON);
    // The TAP that existed before is there after its guest.
    libvirt.virsh(&["destroy", "guest"]);
    host.run("ip link show made");
    tramad.stop();
}
