//! Tunnels in a file.

use super::*;
use crate::config::model::tunnel::Vxlan;

#[test]
fn tunnels_are_read_with_their_defaults() {
    let text = "[[port]]\nname = \"a\"\ntype = \"vxlan\"\nremote = \"10.0.0.2\"\nvni = 77\n\
                [[port]]\nname = \"b\"\ntype = \"vxlan\"\nremote = \"fd00::2\"\nvni = 0\n\
                port = 8472\nlocal = \"fd00::1\"\n";
    let config = parse(text, "").unwrap();
    let interface = |port: &str| config.port(port).unwrap().interface.clone();
    let tunnel = |remote: &str, vni, port, local: Option<&str>| {
        let (remote, local) = (remote.parse().unwrap(), local.map(|it| it.parse().unwrap()));
        Interface::Vxlan(Vxlan { remote, vni, port, local })
    };
    assert_eq!(interface("a"), tunnel("10.0.0.2", 77, 4789, None));
    assert_eq!(interface("b"), tunnel("fd00::2", 0, 8472, Some("fd00::1")));
}

#[test]
fn each_mistake_of_a_tunnel_is_named_with_its_remedy() {
    let good = "remote = \"10.0.0.2\"\nvni = 7";
    for (keys, refusal) in [
        (
            "vni = 7".to_owned(),
            "remote: is missing; add remote = \"ADDRESS\", that of the other host",
        ),
        (
            "remote = \"10.0.0.2\"".to_owned(),
            "vni: is missing; add vni, the number that the tunnel has at both ends",
        ),
        (
            "remote = \"there\"\nvni = 7".to_owned(),
            "remote: \"there\" is not an address; write it as 10.0.0.2 or fd00::2",
        ),
        (
            "remote = \"10.0.0.2\"\nvni = 16777216".to_owned(),
            "vni: 16777216 has more than 24 bits; use 0 to 16777215",
        ),
        (
            format!("{good}\nport = 0"),
            "port: 0 is not a UDP port; use one from 1 to 65535, such as 4789",
        ),
        (
            "remote = \"239.1.1.1\"\nvni = 7".to_owned(),
            "remote: 239.1.1.1 is a multicast address; use the unicast address of the other host; \
             flooded frames go to each tunnel of the network, so add a port for each host",
        ),
        (
            "remote = \"fe80::1\"\nvni = 7".to_owned(),
            "remote: fe80::1 is an address of one link, and names no interface; use the unicast \
             address of the other host; flooded frames go to each tunnel of the network, so add a \
             port for each host",
        ),
        (
            format!("{good}\nlocal = \"fd00::1\""),
            "local: fd00::1 is of another version of IP than remote; use two addresses of one \
             version",
        ),
        (
            format!("{good}\nlocal = \"10.0.0.2\""),
            "local: 10.0.0.2 is the remote address as well; use an address of this host, or \
             remove it",
        ),
        (
            format!("{good}\nlocal = \"0.0.0.0\""),
            "local: 0.0.0.0 is no address of one host; use an address of this host, or remove it",
        ),
        (
            format!("{good}\nmac = \"52:54:00:00:00:01\""),
            "mac: is that of one guest, and behind a tunnel are many; state it at the guest's port \
             on its own host",
        ),
        (
            format!("{good}\nnetwork = \"apart\""),
            "network: each port of a network of mode \"nat\" is alone behind its gateway, so a \
             tunnel would reach no guest; use a network of another mode, such as \"nat-network\"",
        ),
        (
            format!("{good}\npath = \"/x\""),
            "path: belongs to ports of type \"vhost-user\" or \"stream\" or \"dgram\"; remove it, \
             or set type = \"vhost-user\" or \"stream\" or \"dgram\"",
        ),
    ] {
        let text = format!(
            "[[network]]\nname = \"apart\"\nmode = \"nat\"\n[[port]]\nname = \"p\"\n\
             type = \"vxlan\"\n{keys}\n"
        );
        let faults = parse(&text, "lab.toml").unwrap_err();
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let is_named = |it: &String| it.ends_with(&format!(": port.p.{refusal}"));
        assert!(faults.iter().any(is_named), "{keys}: {faults:#?}");
    }
}

#[test]
fn two_ports_are_not_one_tunnel() {
    let port = |name: &str, keys: &str| {
        format!("[[port]]\nname = \"{name}\"\ntype = \"vxlan\"\nremote = \"10.0.0.2\"\n{keys}\n")
    };
    let faults = |keys: &str| {
        let text = [port("a", "vni = 7"), port("b", keys)].concat();
        parse(&text, "x.toml").map_err(|it| it[0].to_string()).err()
    };
    let twice = "x.toml:9:10: port.b.remote: the tunnel to 10.0.0.2:4789 VNI 7 is port.a already; \
                 give one of them another remote, vni or port";
    assert_eq!(faults("vni = 7").as_deref(), Some(twice));
    for other in ["vni = 8", "vni = 7\nport = 4790", "vni = 7\nport = 4790\nlocal = \"10.0.0.1\""] {
        assert_eq!(faults(other), None, "{other}");
    }
    let mixed = "port.a receives at UDP port 4789 as well, and only one of them states local; \
                 state it for all tunnels of a UDP port, or for none";
    assert!(faults("vni = 8\nlocal = \"10.0.0.1\"").unwrap().ends_with(mixed));
}
