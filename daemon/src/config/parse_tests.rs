//! Every kind of bad configuration and the exact message that it gets.

use super::{arbitrary, parse};
use proptest::prelude::*;

/// Checks that `text` gets exactly these messages, in this order.
#[track_caller]
fn refused(text: &str, wanted: &[&str]) {
    let faults = parse(text, "lab.toml").expect_err("it is wrong");
    let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(shown, wanted, "\n{}", shown.join("\n"));
}

/// As [`refused`], of one `[[port]]` of type vhost-user that is in order but for `lines`, which
/// begin at line 4.
#[track_caller]
fn refused_in_port(lines: &str, wanted: &[&str]) {
    let head = "[[port]]\nname = \"vm1\"\ntype = \"vhost-user\"\n";
    let path = if lines.contains("path") { "" } else { "path = \"/run/vm1.sock\"\n" };
    refused(&format!("{head}{lines}\n{path}"), wanted);
}

/// As [`refused`], of one `[[port]]` of type tap.
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
            "lab.toml:3:1: this key is there twice; keep one of the two",
            "lab.toml:8:2: this key is there twice; keep one of the two",
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
             known here: [daemon], [[network]], [[port]]",
        ],
    );
    refused_in_port(
        "speed = 10",
        &[
            "lab.toml:4:1: port.vm1.speed: unknown key; remove it; known here: name, network, type, \
           cable, promiscuous, mac, spoof, tag, trunks, vlan-mode, forward, external-ids, path, role, queues",
        ],
    );
    refused_in_port(
        "ifname = \"vm1\"",
        &["lab.toml:4:1: port.vm1.ifname: belongs to ports of type \"tap\"; \
           remove it, or set type = \"tap\""],
    );
}

/// As [`refused`], of a network of mode `nat-network` with these lines, which begin at line 4.
#[track_caller]
fn refused_in_nat_network(lines: &str, wanted: &[&str]) {
    refused(&format!("[[network]]\nname = \"n\"\nmode = \"nat-network\"\n{lines}\n"), wanted);
}

/// A `[[port]]` of type tap on the network `n`; four lines, then these.
fn tap(name: &str, lines: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\ntype = \"tap\"\nnetwork = \"n\"\n{lines}\n")
}

#[test]
fn forwards_that_lead_nowhere() {
    refused_in_nat_network(
        "forward = [\"a,tcp,,1,10.0.2.15,1\", \"b,tcp,,0,,1\"]\nloopback = \"c\"",
        &[
            "lab.toml:4:36: network.n.forward: \"b,tcp,,0,,1\": host port: \"0\" is not a port; \
             use 1 to 65535, or a range as in 8000-8010",
            "lab.toml:5:12: network.n.loopback: \"c\" has 1 of 6 fields; \
             write it as in \"ssh,tcp,127.0.0.1,2222,10.0.2.15,22\"",
        ],
    );
    refused_in_nat_network(
        "forward = [\"a,tcp,,1,,1\", \"b,tcp,,2,10.0.3.15,2\", \"c,tcp,,3,10.0.2.1,3\", \
         \"d,tcp,224.0.0.1,4,10.0.2.15,4\", \"e,tcp,,5,10.0.2.255,5\"]",
        &[
            "lab.toml:4:11: network.n.forward: a: which machine it leads to is not known; \
             name the guest's address",
            "lab.toml:4:11: network.n.forward: b: guest address 10.0.3.15 is not in the network's \
             subnet; use an address in 10.0.2.0/24 or fd17:625c:f037:2::/64",
            "lab.toml:4:11: network.n.forward: c: 10.0.2.1 is the gateway's; \
             name a machine's address",
            "lab.toml:4:11: network.n.forward: d: 224.0.0.1 is not an address of one host; \
             use an address of the host, or leave it empty for all",
            "lab.toml:4:11: network.n.forward: e: guest address 10.0.2.255 is not in the network's \
             subnet; use an address in 10.0.2.0/24 or fd17:625c:f037:2::/64",
        ],
    );
}

#[test]
fn forwards_that_clash() {
    let text = "[[network]]\nname = \"n\"\nmode = \"nat\"\n[[network]]\nname = \"m\"\n\
                mode = \"nat-network\"\nforward = \"web,tcp,,8000-8010,10.0.2.20,80-90\"\n";
    let text = format!(
        "{text}{}{}",
        tap("a", "forward = [\"x,tcp,127.0.0.1,8010,,80\", \"x,udp,,8010,,80\"]"),
        tap("b", "forward = [\":udp:[::1]:8010:[10.0.2.15]:80\"]")
    );
    refused(
        &text,
        &[
            "lab.toml:12:11: port.a.forward: x: port 8010 of the host is taken by rule web of \
             network.m; choose another port, or another host address",
            "lab.toml:12:11: port.a.forward: there are two rules x; give each a name of its own",
            "lab.toml:17:11: port.b.forward: udp-8010: port 8010 of the host is taken by rule x of \
             port.a; choose another port, or another host address",
        ],
    );
}

#[test]
fn forwards_where_none_can_be() {
    let network = |mode: &str, lines: &str| {
        format!("[[network]]\nname = \"n\"\nmode = \"{mode}\"\n{lines}\n")
    };
    let rule = "forward = [\"a,tcp,,1,,1\"]";
    refused(
        &network("internal", &format!("{rule}\nloopback = [\"b,tcp,,2,,2\"]")),
        &["lab.toml:4:11: network.n.forward: belongs to networks of mode \"nat\" and \
           \"nat-network\"; remove it, or set mode = \"nat-network\""],
    );
    refused(
        &format!("{}{}{}", network("nat", rule), tap("a", ""), tap("b", "")),
        &["lab.toml:4:11: network.n.forward: is for a network with one port, and this has 2; \
           give each [[port]] a forward of its own"],
    );
    refused(
        &format!("{}{}", network("nat-network", ""), tap("a", rule)),
        &["lab.toml:9:11: port.a.forward: network n has one gateway for all its ports; \
           move it to the [[network]]"],
    );
    refused_in_tap(
        rule,
        &["lab.toml:4:11: port.t1.forward: belongs to ports on a network of mode \"nat\"; \
           remove it, or put the port on such a network"],
    );
    // Nothing is said of what depends on a mode that nobody knows.
    refused(
        &format!("{}{}", network("nta", ""), tap("a", rule)),
        &["lab.toml:3:8: network.n.mode: \"nta\" is not known; did you mean \"nat\"?"],
    );
}

#[test]
fn loopback_maps() {
    refused_in_nat_network(
        "loopback = [\"a,tcp,192.168.0.1,1,,1\", \"b,tcp,,1-2,,1-2\", \"c,tcp,,3,10.0.2.2,3\", \
         \"d,udp,,4,,53\", \"e,tcp,,5,,5\", \"f,tcp,::1,6,10.0.2.1,5\"]",
        &[
            "lab.toml:4:12: network.n.loopback: a: 192.168.0.1 is not a loopback address; \
             use 127.0.0.1 or ::1, or leave it empty",
            "lab.toml:4:12: network.n.loopback: b: a map is of one port, and has no options; \
             write one for each port",
            "lab.toml:4:12: network.n.loopback: c: guest address 10.0.2.2 is not the gateway's; \
             use 10.0.2.1 or fd17:625c:f037:2::1, or leave it empty",
            "lab.toml:4:12: network.n.loopback: d: guest port 53 is the gateway's own service; \
             choose another guest port",
            "lab.toml:4:12: network.n.loopback: f: another map has port 5 already; \
             choose another guest port",
        ],
    );
}

#[test]
fn subnets_of_nat() {
    // Machines of mode nat are alone: all may have the same addresses.
    let nat = |name: &str, lines: &str| {
        format!("[[network]]\nname = \"{name}\"\nmode = \"nat\"\n{lines}\n")
    };
    let shared = |name: &str| format!("[[network]]\nname = \"{name}\"\nmode = \"nat-network\"\n");
    let text = format!("{}{}{}", nat("a", ""), nat("b", ""), shared("c"));
    assert!(parse(&text, "").is_ok());
    refused(
        &format!("{}{}", shared("c"), shared("d")),
        &["lab.toml:4:1: network.d.subnet: 10.0.2.0/24 overlaps 10.0.2.0/24 of network c; \
           give each network a subnet of its own"],
    );
    refused(
        &nat("a", "subnet = \"10.0.2.0/28\""),
        &["lab.toml:4:10: network.a.subnet: 10.0.2.0/28 has no room for the machine, host 15; \
           use /24, or /8 to /27"],
    );
}

#[test]
fn modes_and_what_belongs_to_them() {
    refused(
        "[[network]]\nname = \"n\"\nmode = \"brigded\"\nuplink = \"eth0\"\n[[network]]\nname = \"m\"\n\
         subnet = \"10.0.0.0/24\"\nuplink = \"eth0\"\n",
        &[
            "lab.toml:3:8: network.n.mode: \"brigded\" is not known; did you mean \"bridged\"?",
            "lab.toml:8:10: network.m.uplink: belongs to networks of mode \"bridged\"; \
             remove it, or set mode = \"bridged\"",
        ],
    );
    refused(
        "[[network]]\nname = \"a\"\nmode = \"bridged\"\n\
         [[network]]\nname = \"b\"\nmode = \"bridged\"\nuplink = \"eth 0\"\n\
         [[network]]\nname = \"c\"\nmode = \"bridged\"\nuplink = \"eth0\"\n\
         [[network]]\nname = \"d\"\nmode = \"bridged\"\nuplink = \"eth0\"\n\
         [[port]]\nname = \"c\"\ntype = \"tap\"\n",
        &[
            "lab.toml:1:1: network.a.uplink: is missing; add uplink = \"eth0\", an interface as \
             `ip link` shows it",
            "lab.toml:7:10: network.b.uplink: \"eth 0\" has characters that a device's name cannot \
             have; use 1 to 15 ASCII characters without spaces, '/', ':' and '%'",
            "lab.toml:15:10: network.d.uplink: \"eth0\" is the uplink of network c already; put the \
             ports of both on one network",
            "lab.toml:17:8: port.c.name: \"c\" is the name of the network's own port; \
             rename one of them",
        ],
    );
}

#[test]
fn networks_of_the_host() {
    refused(
        "[[network]]\nname = \"a-name-of-16-bytes\"\nmode = \"host-only\"\n",
        &["lab.toml:2:8: network.a-name-of-16-bytes.name: \"a-name-of-16-bytes\" is longer than \
             15 bytes, and the host's interface bears it; use 1 to 15 ASCII characters without \
             spaces, '/', ':' and '%'"],
    );
    let two_defaults = "[[network]]\nname = \"a\"\nmode = \"host-only\"\n\
                        [[network]]\nname = \"b\"\nmode = \"host-only\"\n\
                        [[port]]\nname = \"t\"\ntype = \"tap\"\nifname = \"a\"\n";
    refused(
        two_defaults,
        &[
            "lab.toml:4:1: network.b.subnet: 192.168.56.0/24 overlaps 192.168.56.0/24 of network a; \
             give each network a subnet of its own",
            "lab.toml:10:10: port.t.ifname: \"a\" is taken by network.a; give each port its own device",
        ],
    );
}

#[test]
fn who_a_port_is_and_what_it_hears() {
    refused_in_port(
        "promiscuous = \"allow\"\nmac = \"52:54\"\nspoof = \"no\"",
        &[
            "lab.toml:4:15: port.vm1.promiscuous: \"allow\" is not known; use one of: deny, \
             allow-vms, allow-all",
            "lab.toml:5:7: port.vm1.mac: \"52:54\" is not a MAC address; write it as \
             52:54:00:12:34:56",
            "lab.toml:6:9: port.vm1.spoof: \"no\" is not known; use one of: allow, deny",
        ],
    );
    refused_in_port(
        "spoof = \"deny\"",
        &["lab.toml:4:9: port.vm1.spoof: \"deny\" needs the port's address; add mac, the one \
           address that it may send from"],
    );
    refused_in_port(
        "mac = \"01:00:00:00:00:00\"",
        &["lab.toml:4:7: port.vm1.mac: 01:00:00:00:00:00 is not an address of one machine; \
           use a unicast one, such as 52:54:00:12:34:56"],
    );
    let tap = |name| {
        format!("[[port]]\nname = \"{name}\"\ntype = \"tap\"\nmac = \"52:54:00:00:00:01\"\n")
    };
    refused(
        &[tap("a"), tap("b")].concat(),
        &[
            "lab.toml:8:7: port.b.mac: 52:54:00:00:00:01 is taken by port.a.mac on the same network; \
           give each port its own",
        ],
    );
}

#[test]
fn hosts() {
    let text =
        "[[network]]\nname = \"n\"\nsubnet = \"10.0.2.0/24\"\nhosts = { web = \"10.0.2.7\" }\n";
    let config = parse(text, "").unwrap();
    assert_eq!(config.networks[0].hosts, [("web".into(), [10, 0, 2, 7].into())].into());
    refused(
        "[[network]]\nname = \"a\"\nhosts = { web = \"10.0.2.7\" }\n\
         [[network]]\nname = \"b\"\nsubnet = \"10.0.0.0/16\"\nhosts = { \"a b\" = \"10.0.2.7\" }\n\
         [[network]]\nname = \"c\"\nsubnet = \"10.1.0.0/16\"\nhosts = { a = \"10.0.2\" }\n",
        &[
            "lab.toml:3:9: network.a.hosts: only a network with a gateway answers names; \
             add subnet, or remove hosts",
            "lab.toml:7:9: network.b.hosts: \"a b\" is not a host's name; \
             use labels of 1 to 63 letters, digits, '-' and '_', joined by dots",
            "lab.toml:11:9: network.c.hosts: \"10.0.2\" of a is not an address; \
             write it as in hosts = { web = \"10.1.0.7\" }",
        ],
    );
}

#[test]
fn tftp() {
    let text = "[[network]]\nname = \"n\"\nsubnet = \"10.0.2.0/24\"\ntftp = \"/srv/tftp\"\n";
    let config = parse(text, "").unwrap();
    assert_eq!(config.networks[0].tftp.as_deref(), Some("/srv/tftp".as_ref()));
    refused(
        "[[network]]\nname = \"a\"\ntftp = \"srv\"\n",
        &[
            "lab.toml:3:8: network.a.tftp: only a network with a gateway has TFTP; \
             add subnet, or remove tftp",
            "lab.toml:3:8: network.a.tftp: \"srv\" is not an absolute path; start it with /",
        ],
    );
}

#[test]
fn subnets() {
    for mode in ["internal", "host-only"] {
        let network = |name: &str, subnet: &str| {
            format!("[[network]]\nname = \"{name}\"\nmode = \"{mode}\"\nsubnet = {subnet}\n")
        };
        let config = parse(&network("n", "[\"10.0.2.0/24\", \"fd00::/64\"]"), "").unwrap();
        let subnet = &config.networks[0].subnet;
        assert_eq!(
            *subnet,
            [([10, 0, 2, 0].into(), 24), ([0xfd00, 0, 0, 0, 0, 0, 0, 0].into(), 64)]
        );
        assert!(config.networks[0].has_gateway());
        let text = [
            network("a", "[\"10.0.2.0/24\", \"10.0.3.0/24\"]"),
            network("b", "[\"10.0.0.0/16\", \"fd00:1::/64\"]"),
            network("c", "[\"10.9.2.1/24\", \"fd00:1::/64\"]"),
            network("d", "\"10.8.2.0\""),
            network("e", "[\"10.9.0.0/31\", \"fd00::/48\"]"),
        ];
        let fault = |line, name: &str, rest: &str| {
            format!("lab.toml:{line}:10: network.{name}.subnet: {rest}")
        };
        let own = "give each network a subnet of its own";
        let wanted = [
            fault(
                4,
                "a",
                "10.0.3.0/24 is the second of its IP version; \
                 keep one IPv4 and one IPv6 subnet at most",
            ),
            fault(8, "b", &format!("10.0.0.0/16 overlaps 10.0.2.0/24 of network a; {own}")),
            fault(
                12,
                "c",
                "10.9.2.1/24 is an address within a subnet; write the subnet: 10.9.2.0/24",
            ),
            fault(12, "c", &format!("fd00:1::/64 overlaps fd00:1::/64 of network b; {own}")),
            fault(16, "d", "\"10.8.2.0\" has no prefix; add its length, as in 10.1.0.1/24"),
            fault(20, "e", "/31 is no length for a network's subnet; use /8 to /30"),
            fault(20, "e", "/48 is no length for a network's subnet; use /64"),
        ];
        refused(&text.concat(), &wanted.each_ref().map(String::as_str));
    }
    // Where the mode differs, the meaning is the same.
    refused(
        "[[network]]\nname = \"a\"\nsubnet = \"192.168.0.0/16\"\n\
         [[network]]\nname = \"b\"\nmode = \"host-only\"\n",
        &["lab.toml:4:1: network.b.subnet: 192.168.56.0/24 overlaps 192.168.0.0/16 of network a; \
           give each network a subnet of its own"],
    );
}

#[test]
fn what_needs_a_gateway() {
    refused(
        "[[network]]\nname = \"a\"\nmode = \"host-only\"\nhosts = { web = \"192.168.56.7\" }\ndhcp = false\n\
         [[network]]\nname = \"b\"\nmode = \"bridged\"\nuplink = \"eth0\"\n\
         subnet = \"10.1.0.0/24\"\ntftp = \"/srv/tftp\"\n",
        &[
            "lab.toml:4:9: network.a.hosts: only a network with a gateway answers names; \
             remove dhcp = false, or remove hosts",
            "lab.toml:10:10: network.b.subnet: a bridged network has the addresses of its LAN; \
             remove it, or set mode = \"internal\" or \"host-only\"",
            "lab.toml:11:8: network.b.tftp: only a network with a gateway has TFTP; \
             remove tftp, or set mode = \"internal\" with a subnet",
        ],
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
        "[[network]]\nmtu = 1500\n\n[[port]]\nname = \"vm1\"\n\n[[port]]\nname = \"vm2\"\n\
         type = \"vhost-user\"\n",
        &[
            "lab.toml:1:1: network[0].name: is missing; give the network a name",
            "lab.toml:4:1: port.vm1.type: is missing; add type = \"vhost-user\" or \"tap\"",
            "lab.toml:7:1: port.vm2.path: is missing; give the socket's absolute path",
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
             use a positive number in the range that docs/configuration.md gives",
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
            "lab.toml:5:8: port.p.type: \"vhost-usr\" is not known; did you mean \"vhost-user\"?",
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
        &["lab.toml:5:10: port.t1.trunks: an access port carries its tag's VLAN only; \
           remove trunks, or set vlan-mode to \"native-tagged\" or \"native-untagged\""],
    );
    refused_in_tap(
        "vlan-mode = \"native\"",
        &["lab.toml:4:13: port.t1.vlan-mode: \"native\" is not known; \
           use one of: access, trunk, native-tagged, native-untagged"],
    );
}

#[test]
fn bad_paths_and_devices() {
    refused_in_port(
        "path = \"vm1.sock\"",
        &["lab.toml:4:8: port.vm1.path: \"vm1.sock\" is not an absolute path; start it with /"],
    );
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
    let devices = [("sixteen-bytes-xx", "is longer than 15 bytes"), ("", "is empty")];
    let remedy = "use 1 to 15 ASCII characters without spaces, '/', ':' and '%'";
    for (name, fault) in devices.into_iter().chain([
        ("tap%d", "has characters that a device's name cannot have"),
        ("..", "begins with a dot"),
        ("té", "has characters that a device's name cannot have"),
    ]) {
        let wanted = format!("lab.toml:4:10: port.t1.ifname: \"{name}\" {fault}; {remedy}");
        refused_in_tap(&format!("ifname = \"{name}\""), &[&wanted]);
    }
    refused_in_tap(
        "netns = \"../x\"",
        &["lab.toml:4:9: port.t1.netns: \"../x\" is not a name; \
           use a name as `ip netns list` shows it"],
    );
    refused_in_tap(
        "address = [\"10.0.0.1\", \"10.0.0.1/24\", \"fd00::1/129\", \"host/24\"]",
        &[
            "lab.toml:4:12: port.t1.address: \"10.0.0.1\" has no prefix; \
             add its length, as in 10.1.0.1/24",
            "lab.toml:4:54: port.t1.address: \"host/24\" is not an address; \
             write it as in 10.1.0.1/24",
        ],
    );
    refused_in_tap(
        "address = [\"10.0.0.1/33\", \"10.0.0.1/24\"]",
        &[
            "lab.toml:4:11: port.t1.address: /33 is too long a prefix for 10.0.0.1; use /0 to /32",
            "lab.toml:4:11: port.t1.address: 10.0.0.1 is listed twice; list it once",
        ],
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
    /// Whatever a text holds, it is read or refused; it never panics.
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
        prop_assert_eq!(super::validate(&config), vec![]);
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
fn dhcp_is_read_and_reaches_the_gateway() {
    let config = parse(DHCP, "lab.toml").unwrap();
    let network = &config.networks[0];
    let gateway = crate::convert::gateway(network, std::path::Path::new("/state")).unwrap();
    let dhcp = gateway.dhcp.as_ref().unwrap();
    assert_eq!(dhcp.folder.to_str(), Some("/state/leases-lab"));
    assert_eq!((dhcp.limits.addresses, dhcp.limits.offers, dhcp.ipv6), (64, 16, false));
    let boot = dhcp.boot.as_ref().unwrap();
    assert_eq!(boot.server.to_string(), "10.1.0.1", "the gateway itself");
    let files: Vec<_> =
        boot.files.iter().map(|it| (it.ipxe, it.architecture, it.name.as_str())).collect();
    assert_eq!(
        files,
        [
            (Some(true), None, "menu.ipxe"),
            (None, Some(0), "undionly.kpxe"),
            (None, Some(7), "ipxe.efi"),
            (None, Some(9), "ipxe.efi"),
        ]
    );
    let server = gateway.dhcp_server().unwrap();
    assert_eq!(server.check(), Ok(()));
    let subnet = &server.subnets[0];
    assert_eq!((subnet.ranges.len(), subnet.lease.default, subnet.lease.min), (2, 43_200, 120));
    assert_eq!(subnet.settings.dns.len(), 2);
    assert_eq!(server.reservations.len(), 2);
}

#[test]
fn who_has_dhcp_without_saying_so() {
    let gateway = |keys: &str| {
        let text = format!("[[network]]\nname = \"lab\"\n{keys}\n");
        let network = parse(&text, "lab.toml").unwrap().networks.remove(0);
        crate::convert::gateway(&network, std::path::Path::new("/state"))
    };
    let host_only = gateway("mode = \"host-only\"").unwrap();
    assert_eq!(host_only.ipv4.unwrap().address.to_string(), "192.168.56.100");
    let dhcp = host_only.dhcp.unwrap();
    assert_eq!(dhcp.ranges[0].start().to_string(), "192.168.56.101");
    assert_eq!(dhcp.router, None, "there is no way out");
    assert!(gateway("mode = \"host-only\"\ndhcp = false").is_none());
    assert!(gateway("subnet = \"10.1.0.0/24\"").unwrap().dhcp.is_none());
    assert!(gateway("subnet = \"10.1.0.0/24\"\ndhcp = true").unwrap().dhcp.is_some());
    assert!(gateway("mode = \"bridged\"\nuplink = \"eth0\"").is_none());
}

#[test]
fn bad_dhcp() {
    let refused_dhcp = |keys: &str, wanted: &[&str]| {
        let text = format!(
            "[[network]]\nname = \"lab\"\nsubnet = \"10.1.0.0/24\"\n[network.dhcp]\n{keys}\n"
        );
        refused(&text, wanted);
    };
    refused_dhcp(
        "rang = 1\nlease = \"long\"\nrange = \"10.1.0.50\"",
        &[
            "lab.toml:5:1: network.lab.dhcp.rang: unknown key; did you mean \"range\"?",
            "lab.toml:6:9: network.lab.dhcp.lease: \"long\" is not a time; \
             use a whole number and a unit: \"20us\", \"300s\", \"12h\"",
            "lab.toml:7:9: network.lab.dhcp.range: \"10.1.0.50\" is not a range; \
             write it as in 10.1.0.50-10.1.0.99",
        ],
    );
    refused_dhcp(
        "lease = \"1h\"\nrange = \"10.2.0.50-10.2.0.99\"",
        &["lab.toml:6:9: network.lab.dhcp.range: range 10.2.0.50-10.2.0.99 is not a range of \
           host addresses of 10.1.0.0/24; choose one inside"],
    );
    refused_dhcp(
        "range = [\"10.1.0.50-10.1.0.99\", \"10.1.0.90-10.1.0.110\"]",
        &["lab.toml:5:9: network.lab.dhcp.range: range 10.1.0.90-10.1.0.110 overlaps another \
           range of its subnet; join them"],
    );
    refused_dhcp(
        "lease = \"10s\"",
        &["lab.toml:5:9: network.lab.dhcp.lease: lease times of 10.1.0.0/24 are not \
           60 <= min <= default <= max < 4294967295 seconds; change them"],
    );
    refused_dhcp(
        "leases-per-port = 0\nboot-file = { mac = \"x\" }",
        &[
            "lab.toml:5:19: network.lab.dhcp.leases-per-port: a port may take no address or no \
             offer; raise both limits to 1 or more",
            "lab.toml:6:13: network.lab.dhcp.boot-file: \"mac\" is no kind of client; \
             use ipxe, bios, uefi, arm64, any",
        ],
    );
    for prefix in [31, 32, 33, 255] {
        refused(
            &format!("[[network]]\nname = \"a\"\nsubnet = \"10.1.0.0/{prefix}\"\ndhcp = true\n"),
            &[&format!(
                "lab.toml:3:10: network.a.subnet: /{prefix} is no length for a network's subnet; \
                 use /8 to /30"
            )],
        );
    }
    let of = |address: &str, mac: u8| {
        format!(
            "[[network.dhcp.reservation]]\nmac = \"52:54:00:00:00:0{mac}\"\n\
             address = \"{address}\"\n"
        )
    };
    refused_dhcp(
        &(of("10.1.0.7", 1) + &of("10.1.0.7", 2)),
        &["lab.toml:10:11: network.lab.dhcp.reservation[1].address: address 10.1.0.7 is reserved \
           twice; remove one reservation"],
    );
    refused_dhcp(
        &(of("10.1.0.7", 1) + &of("10.1.0.8", 1)),
        &["lab.toml:9:7: network.lab.dhcp.reservation[1].mac: the client of reserved address \
           10.1.0.8 has another reservation in that subnet; remove one"],
    );
    refused_dhcp(
        &of("10.2.0.7", 1),
        &["lab.toml:7:11: network.lab.dhcp.reservation[0].address: reserved address 10.2.0.7 is \
           no host address of any subnet; choose one inside"],
    );
    refused_dhcp(
        "[[network.dhcp.reservation]]\naddress = \"10.1.0.7\"\n[[network.dhcp.reservation]]\n\
         mac = \"52:54:00:00:00:01\"\n",
        &[
            "lab.toml:5:1: network.lab.dhcp.reservation[0].mac: is missing; write either mac or id",
            "lab.toml:7:1: network.lab.dhcp.reservation[1].address: is missing; \
             add the address to reserve",
        ],
    );
    refused(
        "[[network]]\nname = \"a\"\ndhcp = true\n[[network]]\nname = \"b\"\nmode = \"bridged\"\n\
         uplink = \"eth0\"\ndhcp = true\n[[network]]\nname = \"c\"\ndhcp = 1\n",
        &[
            "lab.toml:3:8: network.a.dhcp: there is no subnet to take addresses from; \
             add subnet = \"10.1.0.0/24\", or remove dhcp",
            "lab.toml:8:8: network.b.dhcp: the machines of a bridged network ask the DHCP server \
             of its LAN; remove it",
            "lab.toml:11:8: network.c.dhcp: is an integer, not true, false or a table; \
             write true, false or a table",
        ],
    );
}
