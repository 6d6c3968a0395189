//! Tests of bad configurations and their exact messages.

use crate::config::model::WebAddress;
use proptest::prelude::*;
use trama_api::folders::Folders;

use super::model::Interface;
use super::model::socket::SocketAccess;
use super::{parse, parse_at, validate};

pub(crate) mod arbitrary;
mod dhcp;
mod edit;
mod guests;
mod networks;
mod running;
mod tunnel;
mod wire;

/// Checks that `text` gets exactly these messages, in this order.
#[track_caller]
fn refused(text: &str, wanted: &[&str]) {
    let faults = parse(text, "lab.toml").expect_err("it is wrong");
    let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(shown, wanted, "\n{}", shown.join("\n"));
}

/// As [`refused`], for one `[[port]]` of type vhost-user that is valid except for `lines`, which
/// begin at line 4.
#[track_caller]
fn refused_in_port(lines: &str, wanted: &[&str]) {
    let head = "[[port]]\nname = \"vm1\"\ntype = \"vhost-user\"\n";
    let path = if lines.contains("path") { "" } else { "path = \"/run/vm1.sock\"\n" };
    refused(&format!("{head}{lines}\n{path}"), wanted);
}

/// As [`refused`], for one `[[port]]` of type tap.
#[track_caller]
fn refused_in_tap(lines: &str, wanted: &[&str]) {
    refused(&format!("[[port]]\nname = \"t1\"\ntype = \"tap\"\n{lines}\n"), wanted);
}

#[test]
fn text_that_is_not_toml() {
    refused(
        "[[network]\nname = \"lab\"\n",
        &["lab.toml:1:11: not TOML: unclosed array table, expected `]`; \
           see https://toml.io for its rules"],
    );
    refused(
        "[[network]]\nname = \"a\"\nname = \"b\"\n\n[daemon]\nworkers = 1\n\n[daemon]\n",
        &[
            "lab.toml:3:1: duplicate key; keep one of the two",
            "lab.toml:8:2: duplicate key; keep one of the two",
        ],
    );
}

#[test]
fn unknown_keys() {
    refused(
        "[[network]]\nname = \"lab\"\nmac_aging = \"300s\"\n[[prot]]\n[extra]\n",
        &[
            "lab.toml:3:1: network.lab.mac_aging: unknown key; did you mean \"mac-aging\"?",
            "lab.toml:4:3: prot: unknown key; did you mean \"port\"?",
            "lab.toml:5:2: extra: unknown key; remove it; \
             known here: [daemon], [[network]], [[port]], [[mirror]], \
             [[openvswitch]]",
        ],
    );
    refused_in_port(
        "speed = 10",
        &[
            "lab.toml:4:1: port.vm1.speed: unknown key; remove it; known here: name, network, type, \
             cable, promiscuous, mac, addresses, names, spoof, storm-broadcast, storm-multicast, \
             storm-unknown, loop, tag, trunks, vlan-mode, forward, external-ids, openvswitch, \
             openvswitch-interface, path, role, queues, socket-owner, socket-group, socket-mode, \
             memory-max, memory-populate",
        ],
    );
    refused_in_port(
        "ifname = \"vm1\"",
        &["lab.toml:4:1: port.vm1.ifname: belongs to ports of type \"tap\" or \"system\"; \
           remove it, or set type = \"tap\" \
           or \"system\""],
    );
}

#[test]
fn wrong_types() {
    refused(
        "port = 3\n[daemon]\nworkers = \"two\"\ncontrol = 1\nspin = true\n",
        &[
            "lab.toml:1:1: port: is an integer, not a list of tables; \
             write [[port]] with two brackets",
            "lab.toml:3:11: daemon.workers: is a string, not an integer; write an integer",
            "lab.toml:4:11: daemon.control: is an integer, not a string; write a string",
            "lab.toml:5:8: daemon.spin: is true or false, not a string; write a string",
        ],
    );
    refused(
        "[network]\nname = \"lab\"\n",
        &["lab.toml:1:2: network: is a table, not a list of tables; \
           write [[network]] with two brackets"],
    );
    refused_in_port(
        "trunks = 10\ncable = \"in\"\nexternal-ids = { a = 1 }",
        &[
            "lab.toml:4:10: port.vm1.trunks: is an integer, not a list of integers; \
             write a list of integers",
            "lab.toml:5:9: port.vm1.cable: is a string, not true or false; write true or false",
            "lab.toml:6:22: port.vm1.external-ids: is an integer, not a string; write a string",
        ],
    );
}

#[test]
fn missing_keys() {
    refused(
        "[[network]]\nmtu = 1500\n\n[[port]]\nname = \"vm1\"\n",
        &[
            "lab.toml:1:1: network[0].name: is missing; give the network a name",
            "lab.toml:4:1: port.vm1.type: is missing; add type = \"vhost-user\" or \"tap\" or \
             \"system\" or \"stream\" or \"dgram\" or \"vxlan\"",
        ],
    );
}

#[test]
fn values_out_of_range() {
    refused(
        "[daemon]\nworkers = 0\nspin = \"2s\"\nmetrics = \"here\"\n[[network]]\nname = \"lab\"\n\
         mtu = 67\nmac-table-size = 1\nmac-aging = \"2d\"\n",
        &[
            "lab.toml:2:11: daemon.workers: 0 is out of range; use 1 to 64",
            "lab.toml:3:8: daemon.spin: is out of range; use \"0us\" to \"1s\", or \"always\"",
            "lab.toml:4:11: daemon.metrics: \"here\" is not an address and port; \
             write \"127.0.0.1:9477\" or \"[::1]:9477\"",
            "lab.toml:7:7: network.lab.mtu: 67 is out of range; use 68 to 65521 bytes",
            "lab.toml:8:18: network.lab.mac-table-size: 1 is out of range; \
             use 16 to 1048576 entries",
            "lab.toml:9:13: network.lab.mac-aging: is out of range; use \"1s\" to \"24h\"",
        ],
    );
    refused(
        "[[network]]\nname = \"lab\"\nmtu = 70000\nmac-table-size = \"lots\"\nmac-aging = 300\n",
        &[
            "lab.toml:3:7: network.lab.mtu: 70000 is out of range; \
             use a number in the range that docs/configuration.md gives",
            "lab.toml:4:18: network.lab.mac-table-size: \"lots\" is not a size; \
             use a number such as 8192 or \"8Ki\"",
            "lab.toml:5:13: network.lab.mac-aging: is an integer, not a string; write a string",
        ],
    );
    refused(
        "[daemon]\nspin = \"20\"\n[[network]]\nname = \"lab\"\nmac-aging = \"5 minutes\"\n",
        &[
            "lab.toml:2:8: daemon.spin: \"20\" is not a time; \
             use \"20us\", \"0us\" for never, or \"always\"",
            "lab.toml:5:13: network.lab.mac-aging: \"5 minutes\" is not a time; \
             use a whole number and a unit: \"20us\", \"300s\", \"12h\"",
        ],
    );
    refused_in_port(
        "queues = 9",
        &["lab.toml:4:10: port.vm1.queues: 9 is out of range; use 1 to 8 queue pairs"],
    );
}

#[test]
fn a_ring_of_captures_has_bounds_and_needs_captures() {
    let refused_alone = |value: &str, fault: &str| {
        let fault = format!("lab.toml:2:16: daemon.capture-ring: {fault}");
        refused(&format!("[daemon]\ncapture-ring = {value}\n"), &[&fault]);
    };
    let out_of_range = |bytes: usize| {
        format!("{bytes} bytes are out of range; use \"64Ki\" to \"1Gi\", or remove it for no ring")
    };
    refused_alone("0", &out_of_range(0));
    refused_alone("\"63Ki\"", &out_of_range(63 << 10));
    refused_alone("\"1025Mi\"", &out_of_range(1025 << 20));
    refused_alone("\"much\"", "\"much\" is not a size; use a number such as 8192 or \"8Ki\"");
    refused_alone("true", "is true or false, not an integer; write an integer");
    refused(
        "[daemon]\ncapture = false\ncapture-ring = \"8Mi\"\n",
        &["lab.toml:3:16: daemon.capture-ring: keeps frames, which capture = false forbids; \
           remove one of the two"],
    );
    let read = |value| parse(&format!("[daemon]\ncapture-ring = {value}\n"), "").unwrap();
    for (value, bytes) in [("65536", 64 << 10), ("\"8Mi\"", 8 << 20), ("\"1Gi\"", 1 << 30)] {
        assert_eq!(read(value).daemon.capture_ring, Some(bytes));
    }
}

#[test]
fn the_page_is_for_this_machine_unless_names_are_stated() {
    let refused_alone = |value: &str, fault: &str| {
        let fault = format!("lab.toml:2:7: daemon.web: {fault}");
        refused(&format!("[daemon]\nweb = \"{value}\"\n"), &[&fault]);
    };
    let shape = r#"write "127.0.0.1:9478", "[::1]:9478" or "unix:/run/trama/web.sock""#;
    refused_alone("9478", &format!("\"9478\" is not an address and port; {shape}"));
    refused_alone("unix:web.sock", "\"web.sock\" is not an absolute path; start it with /");
    let remedy = "use an address of loopback; or state the names by which browsers come through a \
                  proxy with TLS, as web-hosts";
    for address in ["0.0.0.0:9478", "192.0.2.1:80", "[::]:80"] {
        refused_alone(address, &format!("{address} is reached by other machines; {remedy}"));
    }
    refused(
        "[daemon]\nweb-hosts = [\"lab.example:80\"]\n",
        &["lab.toml:2:13: daemon.web-hosts: \"lab.example:80\" is not a host name; write names \
           without a port, as \"lab.example\""],
    );
    let read = |text: &str| parse(&format!("[daemon]\n{text}\n"), "").unwrap().daemon;
    let page = read("web = \"[::]:80\"\nweb-hosts = [\"lab.example\"]\nweb-write = true");
    assert_eq!(page.web, Some(WebAddress::Tcp("[::]:80".parse().unwrap())));
    assert!(page.web_write && page.web_hosts == ["lab.example"]);
    let socket = read("web = \"unix:/run/trama/web.sock\"");
    assert_eq!(socket.web, Some(WebAddress::Unix("/run/trama/web.sock".into())));
    assert!(read("").web.is_none() && !socket.web_write);
}

#[test]
fn bad_names() {
    refused(
        "[[network]]\nname = \"my lab\"\n[[port]]\nname = \"-p\"\ntype = \"tap\"\nifname = \"t\"\n",
        &[
            "lab.toml:2:8: network.my lab.name: \"my lab\" is not a usable name; \
             use 1 to 63 letters, digits and any of -_.:@+ (no '-' at the start)",
            "lab.toml:4:8: port.-p.name: \"-p\" is not a usable name; \
             use 1 to 63 letters, digits and any of -_.:@+ (no '-' at the start)",
        ],
    );
    refused(
        "[[network]]\nname = 5\n[[port]]\nname = \"p\"\ntype = \"vhost-usr\"\nnetwork = \"5\"\n",
        &[
            "lab.toml:2:8: network[0].name: is an integer, not a string; write a string",
            "lab.toml:5:8: port.p.type: unknown value \"vhost-usr\"; did you mean \"vhost-user\"?",
        ],
    );
}

#[test]
fn clashes() {
    refused(
        "[daemon]\ncontrol = \"/run/c.sock\"\n[[network]]\nname = \"a\"\n[[network]]\nname = \"a\"\n\
         [[port]]\nname = \"p\"\ntype = \"vhost-user\"\npath = \"/run/c.sock\"\n\
         [[port]]\nname = \"p\"\ntype = \"vhost-user\"\npath = \"/run/p.sock\"\n\
         [[port]]\nname = \"q\"\ntype = \"vhost-user\"\npath = \"/run/p.sock\"\nrole = \"client\"\n",
        &[
            "lab.toml:6:8: network.a.name: there are two networks \"a\"; rename one of them",
            "lab.toml:10:8: port.p.path: \"/run/c.sock\" is taken by daemon.control; \
             give each its own socket",
            "lab.toml:12:8: port.p.name: there are two ports \"p\"; rename one of them",
            "lab.toml:18:8: port.q.path: \"/run/p.sock\" is taken by port.p.path; \
             give each its own socket",
        ],
    );
    refused(
        "[[port]]\nname = \"a\"\ntype = \"tap\"\nifname = \"t0\"\n\
         [[port]]\nname = \"b\"\ntype = \"tap\"\nifname = \"t0\"\nnetns = \"h1\"\n\
         [[port]]\nname = \"c\"\ntype = \"tap\"\nifname = \"t0\"\nnetns = \"h1\"\n",
        &["lab.toml:13:10: port.c.ifname: \"t0\" is taken by port.b.ifname in this netns; \
           give each port its own device"],
    );
}

#[test]
fn bad_vlans_and_networks() {
    refused(
        "[[network]]\nname = \"lab\"\n[[port]]\nname = \"t1\"\ntype = \"tap\"\nnetwork = \"lba\"\n\
         [[port]]\nname = \"t2\"\ntype = \"tap\"\nnetwork = \"elsewhere\"\n",
        &[
            "lab.toml:6:11: port.t1.network: there is no network \"lba\"; did you mean \"lab\"?",
            "lab.toml:10:11: port.t2.network: there is no network \"elsewhere\"; \
             add a [[network]] of that name, or leave the key out",
        ],
    );
    refused_in_tap("tag = 4096", &["lab.toml:4:7: port.t1.tag: 4096 is not a VLAN; use 0 to 4095"]);
    refused_in_tap("tag = -1", &["lab.toml:4:7: port.t1.tag: -1 is out of range; use 0 to 4095"]);
    refused_in_tap(
        "trunks = [10, 10, 5000]",
        &[
            "lab.toml:4:10: port.t1.trunks: 5000 is not a VLAN; use 0 to 4095",
            "lab.toml:4:10: port.t1.trunks: VLAN 10 is listed twice; list it once",
        ],
    );
    refused_in_tap(
        "vlan-mode = \"access\"",
        &["lab.toml:4:13: port.t1.vlan-mode: \"access\" needs a tag; \
           add tag = 0 to 4095, or remove vlan-mode"],
    );
    refused_in_tap(
        "vlan-mode = \"trunk\"\ntag = 1",
        &["lab.toml:5:7: port.t1.tag: a trunk has no tag of its own; remove the tag, \
           or set vlan-mode to \"native-tagged\" or \"native-untagged\""],
    );
    refused_in_tap(
        "tag = 1\ntrunks = [2]",
        &["lab.toml:5:10: port.t1.trunks: an access port carries only the VLAN of its tag; \
           remove trunks, or set vlan-mode to \"native-tagged\" or \"native-untagged\""],
    );
    refused_in_tap(
        "vlan-mode = \"native\"",
        &["lab.toml:4:13: port.t1.vlan-mode: unknown value \"native\"; \
           use one of: access, trunk, native-tagged, native-untagged"],
    );
}

#[test]
fn a_fault_is_one_line_whatever_the_name() {
    let faults = parse("[[network]]\nname = \"a\\nb\"\n", "lab.toml").unwrap_err();
    assert_eq!(faults.len(), 1);
    let fault = faults[0].to_string();
    assert!(fault.starts_with(r#"lab.toml:2:8: network.a\nb.name: "a\nb" is not"#), "{fault}");
}

#[test]
fn brackets_that_are_not_closed_are_one_mistake() {
    let faults = parse(&format!("a = {}", "[".repeat(50)), "lab.toml").unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    refused(
        "[daemon]\nevents = -1\n",
        &["lab.toml:2:10: daemon.events: -1 is out of range; use 1 to 65536, or 0 for none"],
    );
}

#[test]
fn bad_paths_and_devices() {
    refused_in_port(
        "path = \"/run/trama/\"",
        &["lab.toml:4:8: port.vm1.path: \"/run/trama/\" names a directory; \
           add the socket's file name"],
    );
    refused_in_port(
        &format!("path = \"/{}\"", "x".repeat(107)),
        &["lab.toml:4:8: port.vm1.path: 108 bytes are too long for a Unix socket's path; \
           use at most 107"],
    );
    refused_in_port(
        r#"path = "/run/a\nb.sock""#,
        &[
            "lab.toml:4:8: port.vm1.path: \"/run/a\\nb.sock\" has characters that cannot be printed; \
           leave out line ends, tabs and the like",
        ],
    );
    let devices = [("sixteen-bytes-xx", "is longer than 15 bytes"), ("", "is empty")];
    let remedy = "use 1 to 15 ASCII characters without spaces, '/', ':' and '%'";
    for (name, fault) in devices.into_iter().chain([
        ("tap%d", "has characters that a device's name cannot have"),
        ("..", "begins with a dot"),
        ("all", "is a name that the kernel keeps for itself"),
        ("té", "has characters that a device's name cannot have"),
    ]) {
        let wanted = format!("lab.toml:4:10: port.t1.ifname: \"{name}\" {fault}; {remedy}");
        refused_in_tap(&format!("ifname = \"{name}\""), &[&wanted]);
    }
    refused_in_tap(
        "netns = \"../x\"",
        &["lab.toml:4:9: port.t1.netns: \"../x\" is not the name of a network namespace; \
           use a name as `ip netns list` shows it, or an absolute path such as /proc/4711/ns/net"],
    );
    refused_in_tap(
        "address = [\"10.0.0.1\", \"10.0.0.1/24\", \"fd00::1/129\", \"host/24\"]",
        &[
            "lab.toml:4:12: port.t1.address: \"10.0.0.1\" has no prefix; \
             add its length, as in 10.1.0.1/24",
            "lab.toml:4:39: port.t1.address: /129 is too long a prefix for fd00::1; use /0 to /128",
            "lab.toml:4:54: port.t1.address: \"host/24\" is not an address; \
             write it as in 10.1.0.1/24",
        ],
    );
    refused_in_tap(
        "address = [\"10.0.0.1/33\", \"10.0.0.1/24\"]",
        &["lab.toml:4:12: port.t1.address: /33 is too long a prefix for 10.0.0.1; use /0 to /32"],
    );
    refused_in_tap(
        "address = [\"10.0.0.1/32\", \"10.0.0.1/24\"]",
        &["lab.toml:4:11: port.t1.address: 10.0.0.1 is listed twice; list it once"],
    );
}

#[test]
fn columns_count_characters() {
    refused(
        "[[network]]\nname = \"lab\" ; x\n",
        &["lab.toml:2:14: not TOML: unexpected key or value, expected newline, `#`; \
           see https://toml.io for its rules"],
    );
    refused(
        "network = [{ name = \"é\", mtu = 1 }]\n",
        &[
            "lab.toml:1:21: network.é.name: \"é\" is not a usable name; \
             use 1 to 63 letters, digits and any of -_.:@+ (no '-' at the start)",
            "lab.toml:1:32: network.é.mtu: 1 is out of range; use 68 to 65521 bytes",
        ],
    );
}

#[test]
fn the_shipped_examples_are_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let files = std::fs::read_dir(folder).expect("the examples are there");
    let files = files.map(|file| file.expect("a file").path());
    let mut known = 0;
    for file in files.filter(|file| file.extension().is_some_and(|it| it == "toml")) {
        let text = std::fs::read_to_string(&file).expect("the example is there");
        if let Err(faults) = parse(&text, &file.display().to_string()) {
            panic!("{}", faults.iter().map(|f| format!("{f}\n")).collect::<String>());
        }
        known += 1;
    }
    assert!(known >= 5);
}

proptest! {
    /// Any text is read or refused, without a panic.
    #[test]
    fn any_text_is_read_or_refused(
        text in "(\\[\\[port\\]\\]\n|\\[daemon\\]\n|(name|type|tag|trunks|path|spin|address|mtu) = \
                 (\"[a-z0-9/é]{0,9}\"|-?[0-9]{1,20}|\\[[0-9, ]{0,6}\\]|\\{.{0,5}\\}|.{0,3})\n|.{0,9}){0,12}"
    ) {
        if let Err(faults) = parse(&text, "x") {
            prop_assert!(!faults.is_empty());
            let lines = text.lines().count().max(1) + 1;
            prop_assert!(faults.iter().all(|fault| (1..=lines).contains(&fault.line)));
        }
    }

    #[test]
    fn random_configurations_are_valid(config in arbitrary::config()) {
        prop_assert_eq!(validate(&config), vec![]);
    }
}

const DHCP: &str = r#"
[[network]]
name = "lab"
subnet = "10.1.0.0/24"
[network.dhcp]
range = ["10.1.0.50-10.1.0.99", "10.1.0.150 - 10.1.0.199"]
lease = "12h"
lease-max = "24h"
domain = "lab.example"
search = "example"
dns = ["10.1.0.1", "10.1.0.2"]
router = "10.1.0.2"
ntp = "10.1.0.2"
routes = { "10.9.0.0/16" = "10.1.0.3" }
boot-file = { ipxe = "menu.ipxe", uefi = "ipxe.efi", bios = "undionly.kpxe" }
leases-per-port = 64
ipv6 = false
[[network.dhcp.reservation]]
mac = "52:54:00:12:34:56"
address = "10.1.0.7"
name = "web"
[[network.dhcp.reservation]]
id = "01:AB"
address = "10.1.0.60"
"#;

#[test]
fn a_sockets_path_may_be_left_to_the_daemon() {
    let text = "[[port]]\nname = \"a\"\ntype = \"vhost-user\"\n\
                [[port]]\nname = \"b\"\ntype = \"vhost-user\"\npath = \"sub/b.sock\"\n";
    let config = parse(text, "").unwrap().expanded();
    let path = |port: &str| match &config.port(port).unwrap().interface {
        Interface::VhostUser(device) => device.path.display().to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (path("a"), path("b")),
        ("/run/trama/a.sock".into(), "/run/trama/sub/b.sock".into())
    );
    refused(
        "[[port]]\nname = \"a\"\ntype = \"vhost-user\"\npath = \"/run/trama/b.sock\"\n\
         [[port]]\nname = \"b\"\ntype = \"vhost-user\"\n\
         [[port]]\nname = \"control\"\ntype = \"vhost-user\"\n",
        &[
            "lab.toml:5:1: port.b.path: \"/run/trama/b.sock\" is taken by port.a.path; \
             give each its own socket",
            "lab.toml:8:1: port.control.path: \"/run/trama/control.sock\" is taken by \
             daemon.control; give each its own socket",
        ],
    );
}

#[test]
fn a_user_without_folders_is_told_what_to_set() {
    let nowhere = Folders {
        config: Default::default(),
        run: Default::default(),
        state: Default::default(),
        is_private: true,
    };
    let faults = parse_at("", "trama.toml", &nowhere).unwrap_err();
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "trama.toml:1:1: daemon.control: has no default: XDG_RUNTIME_DIR is not set to an absolute \
             path; set it, or give the socket's absolute path",
            "trama.toml:1:1: daemon.state: has no default: neither XDG_STATE_HOME nor HOME is set; \
             set one of them, or give the folder's absolute path",
        ]
    );
    let stated = "[daemon]\ncontrol = \"/tmp/c.sock\"\nstate = \"/tmp/s\"\n";
    assert!(parse_at(stated, "", &nowhere).is_ok());
}

#[test]
fn a_socket_has_an_owner_if_we_make_it() {
    let text = "[daemon]\ngroup = \"trama\"\nsocket-group = 107\nsocket-mode = \"0666\"\n\
                [[port]]\nname = \"a\"\ntype = \"vhost-user\"\nsocket-owner = \"libvirt-qemu\"\n\
                socket-group = \"kvm\"\nsocket-mode = \"0620\"\n\
                [[port]]\nname = \"b\"\ntype = \"vhost-user\"\n\
                [[port]]\nname = \"c\"\ntype = \"vhost-user\"\nrole = \"client\"\n";
    let config = parse(text, "").unwrap();
    assert_eq!(config.daemon.group.as_deref(), Some("trama"));
    let config = config.expanded();
    let shown = |port: usize| {
        let SocketAccess { owner, group, mode } = config.ports[port].socket.clone();
        let mode = mode.map(|mode| mode.to_string());
        [owner, group, mode].map(Option::unwrap_or_default).join(" ")
    };
    assert_eq!(shown(0), "libvirt-qemu kvm 0620");
    assert_eq!(shown(1), " 107 0666");
    assert_eq!(shown(2), "  ");

    refused_in_port(
        "path = \"/x\"\nsocket-mode = \"0777\"",
        &["lab.toml:5:15: port.vm1.socket-mode: \"0777\" is not a socket's mode; \
           use \"0600\" to \"0666\""],
    );
    refused_in_port(
        "role = \"client\"\nsocket-group = \"kvm\"",
        &[
            "lab.toml:5:16: port.vm1.socket-group: with role = \"client\" the VMM makes the socket; \
           remove it, and let the daemon's user write the VMM's socket",
        ],
    );
    refused_in_tap(
        "socket-group = \"kvm\"",
        &["lab.toml:4:1: port.t1.socket-group: belongs to ports of type \"vhost-user\" or \
           \"stream\" or \"dgram\"; remove it, or set type = \"vhost-user\" or \"stream\" or \
           \"dgram\""],
    );
    for bad in ["\"\"", "\"a:b\"", "4294967295", "\"99999999999\""] {
        let text = format!("[[port]]\nname = \"a\"\ntype = \"vhost-user\"\nsocket-owner = {bad}\n");
        let faults = parse(&text, "").unwrap_err();
        assert!(faults[0].to_string().contains("is not the name of an account"), "{}", faults[0]);
    }
}

#[test]
fn kept_columns_of_open_vswitch_are_checked_as_well() {
    let text = "[daemon]\nopenvswitch = { external_ids = \"{a=b}\" }\n\
                [[network]]\nname = \"lab\"\nopenvswitch = { fail_mode = \"secure\" }\n\
                [[port]]\nname = \"p\"\ntype = \"tap\"\nopenvswitch = { lacp = \"off\" }\n\
                openvswitch-interface = { ofport_request = \"3\" }\n\
                [[openvswitch]]\nname = \"5c458bc8-24e8-4a91-aebb-6870216ac44b\"\n\
                table = \"QoS\"\ncolumns = { type = \"linux-noop\" }\n";
    let config = parse(text, "lab.toml").unwrap();
    assert_eq!(config.daemon.openvswitch["external_ids"], "{a=b}");
    assert_eq!(config.ports[0].openvswitch_interface["ofport_request"], "3");
    for (from, to, expected) in [
        (
            "secure",
            "open",
            "lab.toml:5:15: network.lab.openvswitch: fail_mode = \"open\": constraint",
        ),
        ("fail_mode", "fail-mod", "there is no column \"fail-mod\"; did you mean fail_mode?"),
        ("lacp = \"off\"", "lacp = \"active\"", "lacp=active is refused: trama speaks no LACP"),
        ("\"3\"", "3", "is an integer, not a string"),
        ("\"QoS\"", "\"QOS\"", "did you mean \"QoS\"?"),
        ("5c458bc8", "q", "openvswitch.q-24e8-4a91-aebb-6870216ac44b.name: is not a UUID"),
        ("{ type", "{ kind", "there is no column \"kind\""),
    ] {
        let faults = parse(&text.replace(from, to), "lab.toml").unwrap_err();
        assert!(faults[0].to_string().contains(expected), "{}", faults[0]);
    }
}
