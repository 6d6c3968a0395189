//! Tests of what ports state of their guests: addresses and names.

use std::net::IpAddr;

use super::{refused, refused_in_port};
use crate::config::derived::gateway::gateway;
use crate::config::model::Config;
use crate::config::text::{edit, parse};

const LAB: &str = r#"
    [[network]]
    name = "lab"
    mode = "nat-network"
    subnet = ["10.1.0.0/24", "fd00:1::/64"]
    hosts = { printer = "10.1.0.9" }

    [network.dhcp]
    domain = "lab.example"

    [[network]]
    name = "plain"

    [[port]]
    name = "c1"
    network = "lab"
    type = "tap"
    addresses = ["fd00:1::7", "10.1.0.7"]
    names = ["web", "www.web"]
    forward = ["web,tcp,,8080,,80", "six,tcp,[::1],8081,,80"]

    [[port]]
    name = "c2"
    network = "plain"
    type = "tap"
    addresses = "10.1.0.7"
    names = "Web"
"#;

fn told(config: &Config) -> trama_gateway::Config {
    gateway(&config.expanded().networks[0], [2, 0, 0, 0, 0, 1], "/".as_ref(), 0).unwrap()
}

#[test]
fn a_gateway_is_told_of_the_guests_of_its_network() {
    let config = parse(LAB, "").unwrap();
    let lab = told(&config);
    let hosts: Vec<String> =
        lab.hosts.iter().map(|(name, address)| format!("{name} {address}")).collect();
    assert_eq!(
        hosts,
        [
            "printer 10.1.0.9",
            "web.lab.example fd00:1::7",
            "web.lab.example 10.1.0.7",
            "web fd00:1::7",
            "web 10.1.0.7",
            "www.web fd00:1::7",
            "www.web 10.1.0.7",
        ]
    );
    let taken: Vec<IpAddr> = lab.dhcp.unwrap().service.clients.taken;
    assert_eq!(taken, config.ports[0].addresses);
    let forwards: Vec<_> = lab
        .nat
        .unwrap()
        .forwards
        .iter()
        .map(|it| (it.name.clone(), it.guest.to_string()))
        .collect();
    assert_eq!(
        forwards,
        [("web".to_owned(), "10.1.0.7:80".to_owned()), ("six".into(), "[fd00:1::7]:80".into())]
    );
    let mut without = config.clone();
    without.ports.remove(0);
    let lab = told(&without);
    assert_eq!(
        (lab.hosts.len(), lab.nat.unwrap().forwards.len()),
        (1, 0),
        "they end with the port"
    );
    assert!(lab.dhcp.unwrap().service.clients.taken.is_empty());
}

#[test]
fn only_a_guest_of_the_network_is_a_change_for_its_gateway() {
    let from = parse(LAB, "").unwrap();
    let steps = |edit: fn(&mut Config)| {
        let mut to = from.clone();
        edit(&mut to);
        crate::plan::plan(&from, &to).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let wanted = ["set network lab: guests", "set port c1: names"];
    assert_eq!(steps(|config| config.ports[0].names.clear()), wanted);
    assert_eq!(steps(|config| config.ports[1].names.clear()), ["set port c2: names"]);
}

#[test]
fn a_guest_that_is_alone_on_its_network_may_have_what_others_have() {
    let port = |name: &str| {
        format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"out\"\ntype = \"tap\"\n\
             addresses = \"10.0.2.20\"\nnames = \"me\"\nforward = \"{name},tcp,,{},,22\"\n",
            2000 + name.len()
        )
    };
    let text = ["[[network]]\nname = \"out\"\nmode = \"nat\"\n", &port("a"), &port("bb")].concat();
    let config = parse(&text, "").unwrap();
    let lone = told(&config);
    assert_eq!(lone.nat.unwrap().forwards[0].guest.to_string(), "10.0.2.20:22");
    assert_eq!(lone.hosts, [("me".to_owned(), [10, 0, 2, 20].into())]);
}

#[test]
fn they_are_written_where_they_stand() {
    let mut config = parse(LAB, "").unwrap();
    let from = config.clone();
    config.ports[0].addresses.truncate(1);
    config.ports[1].names.push("w2".into());
    let text = edit(LAB, &from, &config).unwrap();
    assert!(text.contains("    addresses = [\"fd00:1::7\"]\n"), "{text}");
    assert!(text.contains("    names = [\"Web\", \"w2\"]\n"), "{text}");
    assert_eq!(parse(&text, "").unwrap(), config);
}

#[test]
fn mistakes_of_one_port() {
    refused_in_port(
        "addresses = \"10.1.0.7/24\"\nnames = \"a b\"",
        &[
            "lab.toml:4:13: port.vm1.addresses: \"10.1.0.7/24\" is not an address; \
             write it as in 10.1.0.7 or fd00::7",
            "lab.toml:5:9: port.vm1.names: a guest without addresses has no names; \
             add addresses, those that the names stand for",
            "lab.toml:5:9: port.vm1.names: \"a b\" is not a host's name; \
             use labels of 1 to 63 letters, digits, '-' and '_', joined by dots",
        ],
    );
    refused_in_port(
        "names = \"web\"",
        &["lab.toml:4:9: port.vm1.names: a guest without addresses has no names; \
           add addresses, those that the names stand for"],
    );
    refused(
        "[[network]]\nname = \"n\"\n[[port]]\nname = \"a\"\ntype = \"tap\"\nnetwork = \"n\"\n\
         addresses = [\"224.0.0.1\", \"10.1.0.8\", \"10.1.0.8\"]\nnames = [\"a b\", \"c\", \"C\"]\n\
         [[port]]\nname = \"s\"\ntype = \"stream\"\nconnections = 2\naddresses = \"10.1.0.9\"\n",
        &[
            "lab.toml:7:13: port.a.addresses: 224.0.0.1 is not the address of a host; \
             use one such as 10.1.0.7 or fd00::7",
            "lab.toml:7:13: port.a.addresses: 10.1.0.8 is listed twice; list it once",
            "lab.toml:8:9: port.a.names: \"a b\" is not a host's name; \
             use labels of 1 to 63 letters, digits, '-' and '_', joined by dots",
            "lab.toml:8:9: port.a.names: \"c\" is taken by port.a.names on the same network; \
             choose another",
            "lab.toml:13:13: port.s.addresses: are those of one guest, and each connection has one; \
             remove it, or set connections = 1",
        ],
    );
}

#[test]
fn what_is_given_away_on_a_network_is_not_given_twice() {
    let port = |name: &str, keys: &str| {
        format!("[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\n{keys}\n")
    };
    let network = "[[network]]\nname = \"lab\"\nsubnet = \"10.1.0.0/24\"\n\
                   hosts = { printer = \"10.1.0.9\" }\n[network.dhcp]\ndomain = \"lab.example\"\n\
                   [[network.dhcp.reservation]]\nmac = \"52:54:00:00:00:01\"\n\
                   address = \"10.1.0.50\"\nname = \"db\"\n";
    let text = [
        network,
        &port("a", "addresses = [\"10.1.0.1\", \"10.2.0.1\", \"fd00::1\", \"10.1.0.50\"]"),
        &port("b", "addresses = \"10.1.0.7\"\nnames = [\"printer\", \"DB.lab.example\", \"ok\"]"),
        &port("c", "addresses = [\"10.1.0.7\", \"10.1.0.8\"]\nnames = \"ok.lab.example\""),
    ];
    let outside = "is not in the network's subnet; use an address in 10.1.0.0/24";
    let taken = |by: &str| format!("is taken by {by} on the same network; choose another");
    let (gateway, reserved) =
        (taken("the network's gateway"), taken("network.lab.dhcp.reservation[0]"));
    let (hosts, address, name) =
        (taken("network.lab.hosts"), taken("port.b.addresses"), taken("port.b.names"));
    let wanted = [
        format!("lab.toml:15:13: port.a.addresses: 10.1.0.1 {gateway}"),
        format!("lab.toml:15:13: port.a.addresses: 10.2.0.1 {outside}"),
        format!("lab.toml:15:13: port.a.addresses: fd00::1 {outside}"),
        format!("lab.toml:15:13: port.a.addresses: 10.1.0.50 {reserved}"),
        format!("lab.toml:21:9: port.b.names: \"printer\" {hosts}"),
        format!("lab.toml:21:9: port.b.names: \"db\" {reserved}"),
        format!("lab.toml:26:13: port.c.addresses: 10.1.0.7 {address}"),
        format!("lab.toml:27:9: port.c.names: \"ok\" {name}"),
    ];
    refused(&text.concat(), &wanted.each_ref().map(String::as_str));
    refused(
        "[[network]]\nname = \"h\"\nmode = \"host-only\"\n[[port]]\nname = \"a\"\n\
         type = \"tap\"\nnetwork = \"h\"\naddresses = \"192.168.56.1\"\n",
        &[
            "lab.toml:8:13: port.a.addresses: 192.168.56.1 is taken by the host on the same network; \
           choose another",
        ],
    );
}

#[test]
fn a_forward_of_a_port_needs_the_ports_address() {
    let text = |keys: &str| {
        format!(
            "[[network]]\nname = \"n\"\nmode = \"nat-network\"\nforward = \"x,tcp,,90,10.0.2.9,9\"\n\
             [[port]]\nname = \"a\"\nnetwork = \"n\"\ntype = \"tap\"\n{keys}\n"
        )
    };
    let remedy = "give the port addresses, or the rule the guest's address";
    refused(
        &text("forward = \"ssh,tcp,,2222,,22\""),
        &[&format!("lab.toml:9:11: port.a.forward: ssh: the port states no address; {remedy}")],
    );
    refused(
        &text("addresses = \"10.0.2.20\"\nforward = \"ssh,tcp,[::1],2222,,22\""),
        &[&format!(
            "lab.toml:10:11: port.a.forward: ssh: the port states no address of IPv6; {remedy}"
        )],
    );
    refused(
        &text("addresses = \"10.0.2.20\"\nforward = [\"x,tcp,,91,,22\", \"y,tcp,,90,,1\"]"),
        &[
            "lab.toml:10:11: port.a.forward: there are two rules x; give each a name of its own",
            "lab.toml:10:11: port.a.forward: y: port 90 of the host is taken by rule x of network.n; \
             choose another port, or another host address",
        ],
    );
}
