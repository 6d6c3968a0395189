//! Tests of `[network.dhcp]`: messages, and the settings that the gateway is sent.

use std::path::Path;

use trama_dhcp::config::{Identity, Service, Settings};

use super::*;
use crate::config::derived;
use crate::config::model::Network;

fn gateway(network: &Network) -> Option<trama_gateway::Config> {
    derived::gateway::gateway(network, [2, 0, 0, 0, 0, 1], Path::new("/state/leases"), 0)
}

#[test]
fn dhcp_is_read_and_reaches_the_gateway() {
    let config = parse(DHCP, "lab.toml").unwrap();
    let network = &config.networks[0];
    let gateway = gateway(network).unwrap();
    let dhcp = gateway.dhcp.as_ref().unwrap();
    assert_eq!(dhcp.folder.to_str(), Some("/state/leases"));
    let Service { settings, clients, ipv6, .. } = &dhcp.service;
    assert_eq!((clients.limits.addresses, clients.limits.offers, *ipv6), (64, 16, false));
    let boot = &settings.boot;
    assert_eq!(boot.server.unwrap().to_string(), "10.1.0.1", "the gateway itself");
    let files: Vec<_> =
        boot.files.iter().map(|it| (it.ipxe, &it.architectures[..], it.name.as_str())).collect();
    assert_eq!(
        files,
        [
            (Some(true), &[][..], "menu.ipxe"),
            (None, &[0], "undionly.kpxe"),
            (None, &[7, 9, 16], "ipxe.efi"),
        ]
    );
    let server = gateway.dhcp_server().unwrap();
    assert_eq!(server.check(), Ok(()));
    let subnet = &server.subnets[0];
    let Settings { ranges, lease, dns, .. } = &subnet.settings;
    assert_eq!((ranges.len(), lease.default.as_secs(), lease.min.as_secs()), (2, 43_200, 120));
    assert_eq!(dns.as_ref().unwrap().len(), 2);
    assert_eq!(server.clients.reservations.len(), 2);
}

#[test]
fn modes_that_have_dhcp_by_default() {
    let gateway = |keys: &str| {
        let text = format!("[[network]]\nname = \"lab\"\n{keys}\n");
        let network = parse(&text, "lab.toml").unwrap().networks.remove(0);
        gateway(&network)
    };
    let host_only = gateway("mode = \"host-only\"").unwrap();
    assert_eq!(host_only.station.ipv4.unwrap().addr().to_string(), "192.168.56.100");
    let settings = host_only.dhcp.unwrap().service.settings;
    assert_eq!(settings.ranges[0].start().to_string(), "192.168.56.101");
    assert!(settings.routers.is_empty(), "there is no way out");
    assert!(gateway("mode = \"host-only\"\ndhcp = false").is_none());
    assert!(gateway("subnet = \"10.1.0.0/24\"").unwrap().dhcp.is_none());
    assert!(gateway("subnet = \"10.1.0.0/24\"\ndhcp = true").unwrap().dhcp.is_some());
    assert!(gateway("mode = \"bridged\"\nuplink = \"eth0\"").is_none());
}

#[test]
fn dhcpv6_is_read_and_reaches_the_gateway() {
    let gateway = |keys: &str| {
        let text = format!(
            "[[network]]\nname = \"lab\"\nmode = \"nat-network\"\n\
             subnet = [\"10.1.0.0/24\", \"fd00:1::/64\"]\n[network.dhcp]\n{keys}\n"
        );
        let config = parse(&text, "lab.toml").unwrap();
        gateway(&config.networks[0]).unwrap()
    };
    let server = |keys: &str| gateway(keys).dhcp6_server().unwrap();
    let ranges = |keys: &str| -> Vec<String> {
        let ranges = server(keys).ranges;
        ranges.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect()
    };
    assert_eq!(ranges(""), ["fd00:1::1000-fd00:1::1fff"]);
    assert_eq!(ranges("ipv6-leases = false"), [""; 0]);
    let both = "range = [\"fd00:1::8-fd00:1::9\", \"10.1.0.50-10.1.0.60\"]";
    assert_eq!(ranges(both), ["fd00:1::8-fd00:1::9"]);
    assert_eq!(gateway(both).dhcp_server().unwrap().subnets[0].settings.ranges.len(), 1);
    let reserved = server(
        "[[network.dhcp.reservation]]\nmac = \"52:54:00:00:00:01\"\n\
         address = [\"10.1.0.7\", \"fd00:1::7\"]\nname = \"web\"",
    );
    assert_eq!(reserved.clients.reservations[0].address6, "fd00:1::7".parse().ok());
    let boot = |keys: &str| server(&format!("boot-file = \"a.efi\"\n{keys}")).settings.boot;
    let server_of = |keys: &str| boot(keys).server6.map(|address| address.to_string());
    assert_eq!(server_of("").as_deref(), Some("fd00:1::1"));
    assert_eq!(server_of("boot-server = \"10.1.0.9\""), None, "it is not there by IPv6");
    let two = "boot-server = [\"10.1.0.9\", \"fd00:1::9\"]\nboot-params = \"a b\"";
    assert_eq!(server_of(two).as_deref(), Some("fd00:1::9"));
    assert_eq!(boot(two).parameters, ["a b"]);
    // Search domains of the host are used only with NAT, and only if the network states none.
    let follows = |keys: &str| gateway(keys).dhcp.unwrap().service.host_search;
    assert!(follows(""));
    for keys in ["host-search = false", "domain = \"a.b\"", "search = \"a.b\""] {
        assert!(!follows(keys), "{keys}");
    }
    let identity = |keys: &str| gateway(keys).dhcp.unwrap().service.clients.identity;
    assert_eq!(identity(""), Identity::Hardware);
    assert_eq!(identity("identity = \"client-id\""), Identity::ClientId);
}

#[test]
fn bad_dhcpv6() {
    let refused_dhcp = |subnet: &str, keys: &str, wanted: &[&str]| {
        let text =
            format!("[[network]]\nname = \"lab\"\nsubnet = {subnet}\n[network.dhcp]\n{keys}\n");
        refused(&text, wanted);
    };
    let both = "[\"10.1.0.0/24\", \"fd00:1::/64\"]";
    refused_dhcp(
        both,
        "range = [\"10.1.0.9-fd00::9\"]\nidentity = \"duid\"\nboot-server = [\"x\", \"::1\", \"::2\"]",
        &[
            "lab.toml:5:10: network.lab.dhcp.range: \"10.1.0.9-fd00::9\" is not a range; \
             write it as in 10.1.0.50-10.1.0.99",
            "lab.toml:6:12: network.lab.dhcp.identity: unknown value \"duid\"; \
             use one of: mac, client-id",
            "lab.toml:7:16: network.lab.dhcp.boot-server: \"x\" is not an address; \
             write it as in 10.1.0.7 or fd00::7",
            "lab.toml:7:28: network.lab.dhcp.boot-server: \"::2\" is the second address of its \
             kind; write one IPv4 address, one IPv6 address, or both",
        ],
    );
    refused_dhcp(
        both,
        "range = \"fd00:2::8-fd00:2::9\"",
        &["lab.toml:5:9: network.lab.dhcp.range: range fd00:2::8-fd00:2::9 is not a range of the \
           IPv6 subnet; choose one inside"],
    );
    refused_dhcp(
        "\"10.1.0.0/24\"",
        "range = \"fd00:1::8-fd00:1::9\"",
        &["lab.toml:5:9: network.lab.dhcp.range: the network has no IPv6 subnet; add one to its \
           subnet, or remove range"],
    );
    let of = |address: &str, mac: u8| {
        format!(
            "[[network.dhcp.reservation]]\nmac = \"52:54:00:00:00:0{mac}\"\n\
             address = {address}\n"
        )
    };
    refused_dhcp(
        "\"10.1.0.0/24\"",
        &of("[\"10.1.0.7\", \"fd00:1::7\"]", 1),
        &["lab.toml:7:11: network.lab.dhcp.reservation[0].address: the network has no IPv6 \
           subnet; add one to its subnet, or remove the address"],
    );
    refused_dhcp(
        both,
        &of("[]", 1),
        &["lab.toml:7:11: network.lab.dhcp.reservation[0].address: is missing; \
           add the address to reserve"],
    );
    refused_dhcp(
        both,
        &(of("\"fd00:1::7\"", 1) + &of("\"fd00:1::7\"", 2)),
        &["lab.toml:10:11: network.lab.dhcp.reservation[1].address: address fd00:1::7 is \
           reserved twice; remove one reservation"],
    );
    refused_dhcp(
        both,
        &(of("\"fd00:1::7\"", 1) + &of("\"fd00:1::8\"", 1)),
        &["lab.toml:9:7: network.lab.dhcp.reservation[1].mac: the client of reserved address \
           fd00:1::8 has another reservation; remove one"],
    );
    refused_dhcp(
        both,
        &of("\"fd00:1::1\"", 1),
        &["lab.toml:7:11: network.lab.dhcp.reservation[0].address: reserved address fd00:1::1 is \
           the server's own; choose another"],
    );
    refused_dhcp(
        both,
        &format!("boot-params = \"{}\"", "x".repeat(256)),
        &["lab.toml:5:15: network.lab.dhcp.boot-params: is too long; \
           write at most 4 parameters of at most 255 bytes"],
    );
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
            "lab.toml:6:13: network.lab.dhcp.boot-file: \"mac\" is not a kind of client; \
             use ipxe, bios, uefi-http, arm64-http, uefi, arm64, any",
        ],
    );
    for prefix in [31, 32, 33, 255] {
        refused(
            &format!("[[network]]\nname = \"a\"\nsubnet = \"10.1.0.0/{prefix}\"\ndhcp = true\n"),
            &[&format!(
                "lab.toml:3:10: network.a.subnet: /{prefix} is not a usable length for a \
                 network's subnet; \
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
    for mac in ["00:00:00:00:00:00", "33:33:00:00:00:01"] {
        refused_dhcp(
            &of("10.1.0.7", 1).replace("52:54:00:00:00:01", mac),
            &[
                "lab.toml:6:7: network.lab.dhcp.reservation[0].mac: MAC address for 10.1.0.7 is zero \
               or a group's; give that of the client's interface",
            ],
        );
    }
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
            "lab.toml:8:8: network.b.dhcp: guests of a bridged network use the DHCP server \
             of its LAN; remove it",
            "lab.toml:11:8: network.c.dhcp: is an integer, not true, false or a table; \
             write true, false or a table",
        ],
    );
}
