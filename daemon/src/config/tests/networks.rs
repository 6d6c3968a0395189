//! Tests of `[[network]]`: mode, addresses, NAT.

use trama_gateway::Discovery;

use super::*;

/// As [`refused`], for a network of mode `nat-network` with these lines, which begin at line 4.
#[track_caller]
fn refused_in_nat_network(lines: &str, wanted: &[&str]) {
    refused(&format!("[[network]]\nname = \"n\"\nmode = \"nat-network\"\n{lines}\n"), wanted);
}

/// A `[[port]]` of type tap on the network `n`: four lines, then `lines`.
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
         \"d,tcp,224.0.0.1,4,10.0.2.15,4\", \"e,tcp,,5,10.0.2.255,5\", \
         \"f,udp,fe80::1,6,10.0.2.15,6\"]",
        &[
            "lab.toml:4:11: network.n.forward: a: the rule has no guest address; \
             add the guest's address",
            "lab.toml:4:11: network.n.forward: b: guest address 10.0.3.15 is not in the network's \
             subnet; use an address in 10.0.2.0/24 or fd17:625c:f037:2::/64",
            "lab.toml:4:11: network.n.forward: c: 10.0.2.1 is the gateway's; \
             use a guest's address",
            "lab.toml:4:11: network.n.forward: d: 224.0.0.1 is a multicast address; \
             use an address of the host, or leave it empty for all",
            "lab.toml:4:11: network.n.forward: e: guest address 10.0.2.255 is not in the network's \
             subnet; use an address in 10.0.2.0/24 or fd17:625c:f037:2::/64",
            "lab.toml:4:11: network.n.forward: f: fe80::1 is a link-local address, which \
             exists on every link; leave the host address empty: that covers the link-local ones",
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
fn forwards_of_the_versions_of_ip_do_not_clash() {
    let text = "[[network]]\nname = \"n\"\nmode = \"nat\"\n[[network]]\nname = \"m\"\n\
                mode = \"nat-network\"\n";
    let four =
        "forward = [\"a,tcp,0.0.0.0,80,10.0.2.20,80\", \"b,udp,127.0.0.1,80,10.0.2.20,80\"]\n";
    let six = "forward = [\"a,tcp,[::],80,,80\", \"b,udp,::,80,,80\", \"c,udp,127.0.0.2,80,,80\"]";
    let both = format!("{text}{four}{}", tap("t", six));
    assert!(parse(&both, "lab.toml").is_ok());
    let third = both.replace("\"c,udp,127.0.0.2,80,,80\"", "\"c,udp,,80,,80\"");
    refused(
        &third,
        &[
            "lab.toml:12:11: port.t.forward: c: port 80 of the host is taken by rule b of network.m; \
           choose another port, or another host address",
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
        &["lab.toml:4:11: network.n.forward: needs a network with one port, and this one has 2; \
           give each [[port]] a forward of its own"],
    );
    refused(
        &format!("{}{}", network("nat-network", ""), tap("a", rule)),
        &["lab.toml:9:11: port.a.forward: a: the port states no address; \
           give the port addresses, or the rule the guest's address"],
    );
    refused_in_tap(
        rule,
        &["lab.toml:4:11: port.t1.forward: belongs to ports on a network of mode \"nat\" or \
           \"nat-network\"; remove it, or put the port on such a network"],
    );
    // Keys that depend on an unknown mode get no message.
    refused(
        &format!("{}{}", network("nta", ""), tap("a", rule)),
        &["lab.toml:3:8: network.n.mode: unknown value \"nta\"; did you mean \"nat\"?"],
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
            "lab.toml:4:12: network.n.loopback: b: a loopback map has one port and no options; \
             write one for each port",
            "lab.toml:4:12: network.n.loopback: c: guest address 10.0.2.2 is not the gateway's; \
             use 10.0.2.1 or fd17:625c:f037:2::1, or leave it empty",
            "lab.toml:4:12: network.n.loopback: d: guest port 53 is used by the gateway itself; \
             choose another guest port",
            "lab.toml:4:12: network.n.loopback: f: another map has port 5 already; \
             choose another guest port",
        ],
    );
}

#[test]
fn reflection() {
    let network = |mode: &str, value: &str| {
        format!("[[network]]\nname = \"n\"\nmode = \"{mode}\"\nreflect = {value}\n")
    };
    let config = parse(&network("nat", "\"mdns\""), "").unwrap();
    assert_eq!(config.networks[0].reflect, [Discovery::Mdns]);
    let config = parse(&network("nat-network", "[\"ssdp\", \"mdns\"]"), "").unwrap();
    assert_eq!(config.networks[0].reflect, [Discovery::Ssdp, Discovery::Mdns]);
    refused(
        &network("nat-network", "[\"mdns\", \"llmnr\", \"mdns\"]"),
        &[
            "lab.toml:4:20: network.n.reflect: unknown value \"llmnr\"; use \"mdns\", \"ssdp\", or both",
            "lab.toml:4:29: network.n.reflect: \"mdns\" is listed twice; remove one",
        ],
    );
    refused(
        &network("internal", "[\"mdns\"]"),
        &["lab.toml:4:11: network.n.reflect: belongs to networks of mode \"nat\" and \
           \"nat-network\"; remove it, or set mode = \"nat-network\""],
    );
}

#[test]
fn subnets_of_nat() {
    // Guests of mode nat are alone: all may have the same addresses.
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
        &["lab.toml:4:10: network.a.subnet: 10.0.2.0/28 has no room for the guest, host 15; \
           use /24, or /8 to /27"],
    );
}

#[test]
fn modes_and_what_belongs_to_them() {
    refused(
        "[[network]]\nname = \"n\"\nmode = \"brigded\"\nuplink = \"eth0\"\n[[network]]\nname = \"m\"\n\
         subnet = \"10.0.0.0/24\"\nuplink = \"eth0\"\n",
        &[
            "lab.toml:3:8: network.n.mode: unknown value \"brigded\"; did you mean \"bridged\"?",
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
             15 bytes, and the host's interface has the same name; use 1 to 15 ASCII characters \
             without spaces, '/', ':' and '%'"],
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
fn mac_spoof_and_promiscuous_of_a_port() {
    refused_in_port(
        "promiscuous = \"allow\"\nmac = \"52:54\"\nspoof = \"no\"",
        &[
            "lab.toml:4:15: port.vm1.promiscuous: unknown value \"allow\"; use one of: deny, \
             allow-vms, allow-all",
            "lab.toml:5:7: port.vm1.mac: \"52:54\" is not a MAC address; write it as \
             52:54:00:12:34:56",
            "lab.toml:6:9: port.vm1.spoof: unknown value \"no\"; use one of: allow, deny",
        ],
    );
    refused_in_port(
        "spoof = \"deny\"",
        &["lab.toml:4:9: port.vm1.spoof: \"deny\" needs the guest's address; add mac, the only \
           address that the guest may send from"],
    );
    refused_in_port(
        "mac = \"01:00:00:00:00:00\"",
        &["lab.toml:4:7: port.vm1.mac: 01:00:00:00:00:00 is not a unicast address; \
           use one such as 52:54:00:12:34:56"],
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
            "lab.toml:3:9: network.a.hosts: only a network with a gateway has a DNS server; \
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
            "lab.toml:3:8: network.a.tftp: only a network with a gateway has a TFTP server; \
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
        let subnets = config.networks[0].subnet.iter().map(ToString::to_string);
        assert_eq!(subnets.collect::<Vec<_>>(), ["10.0.2.0/24", "fd00::/64"]);
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
                "10.0.3.0/24 is a second subnet of its IP version; \
                 keep one IPv4 and one IPv6 subnet at most",
            ),
            fault(8, "b", &format!("10.0.0.0/16 overlaps 10.0.2.0/24 of network a; {own}")),
            fault(
                12,
                "c",
                "10.9.2.1/24 is an address, not a subnet; write the subnet: 10.9.2.0/24",
            ),
            fault(12, "c", &format!("fd00:1::/64 overlaps fd00:1::/64 of network b; {own}")),
            fault(16, "d", "\"10.8.2.0\" has no prefix; add its length, as in 10.1.0.1/24"),
            fault(20, "e", "/31 is not a usable length for a network's subnet; use /8 to /30"),
            fault(20, "e", "/48 is not a usable length for a network's subnet; use /64"),
        ];
        refused(&text.concat(), &wanted.each_ref().map(String::as_str));
    }
    // The meaning is the same in other modes.
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
            "lab.toml:4:9: network.a.hosts: only a network with a gateway has a DNS server; \
             remove dhcp = false, or remove hosts",
            "lab.toml:10:10: network.b.subnet: a bridged network has the addresses of its LAN; \
             remove it, or set mode = \"internal\" or \"host-only\"",
            "lab.toml:11:8: network.b.tftp: only a network with a gateway has a TFTP server; \
             remove tftp, or set mode = \"internal\" with a subnet",
        ],
    );
}
