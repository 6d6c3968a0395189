//! Tests of what runs of a network of mode `nat`, and of what its gateways are sent.

use crate::config::derived::gateway::gateway;
use crate::config::derived::running::is_part_of;
use crate::config::model::Vlan;
use crate::config::text::parse;

const TWO: &str = r#"
    [[network]]
    name = "out"
    mode = "nat"
    mtu = 1400
    loopback = "db,tcp,,5432,,5432"

    [[network]]
    name = "lab"

    [[port]]
    name = "vm1"
    network = "out"
    type = "tap"
    tag = 7
    forward = ["ssh,tcp,127.0.0.1,2222,,22", ":udp:[]:5000-5001:[fd17:625c:f037:2::9]:6000-6001:as-gateway"]

    [[port]]
    name = "vm2"
    network = "out"
    type = "tap"

    [[port]]
    name = "vm3"
    network = "lab"
    type = "tap"
    tag = 7
"#;

#[test]
fn each_port_of_a_nat_network_runs_on_one_of_its_own() {
    let config = parse(TWO, "").unwrap();
    let running = config.expanded();
    let names: Vec<_> = running.networks.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["out/vm1", "out/vm2", "lab"]);
    assert_eq!(config.running_names(), names);
    assert!(running.networks[..2].iter().all(|it| it.mtu == 1400 && it.loopback.len() == 1));
    assert_eq!(running.networks[0].forward, config.ports[0].forward);
    assert!(running.networks[1].forward.is_empty());
    let places: Vec<_> = running.ports.iter().map(|it| it.network.as_deref()).collect();
    assert_eq!(places, [Some("out/vm1"), Some("out/vm2"), Some("lab")]);
    assert_eq!(running.ports[0].vlan, Vlan::default());
    assert_eq!(running.ports[2], config.ports[2]);
    assert!(is_part_of("out/vm1", "out") && !is_part_of("outer", "out"));
    assert!(is_part_of("out/vm1", "out/vm1") && !is_part_of("out/vm1", "out/vm2"));
}

#[test]
fn a_gateway_is_told_what_virtualbox_users_expect() {
    let running = parse(TWO, "").unwrap().expanded();
    let config = gateway(&running.networks[0], [2, 0, 0, 0, 0, 1], "/".as_ref(), 0).unwrap();
    let subnet = config.station.ipv4.unwrap();
    assert_eq!((subnet.addr().to_string(), subnet.prefix_len()), ("10.0.2.2".into(), 24));
    assert_eq!(config.station.ipv6.unwrap().addr().to_string(), "fd17:625c:f037:2::2");
    let service_addresses: Vec<_> =
        config.station.service_addresses.iter().map(|(address, _)| address.to_string()).collect();
    let wanted = ["10.0.2.3", "10.0.2.4", "fd17:625c:f037:2::3", "fd17:625c:f037:2::4"];
    assert_eq!(service_addresses, wanted);
    let dhcp = config.dhcp.unwrap();
    let settings = dhcp.service.settings;
    assert_eq!(settings.ranges, [[10, 0, 2, 15].into()..=[10, 0, 2, 15].into()]);
    assert_eq!(settings.routers, [std::net::Ipv4Addr::new(10, 0, 2, 2)]);
    assert_eq!(settings.dns, Some(vec![[10, 0, 2, 3].into()]));
    let nat = config.nat.unwrap();
    let ends: Vec<_> = nat
        .forwards
        .iter()
        .map(|it| (it.name.as_str(), it.host, it.host_port, it.guest.to_string(), it.count))
        .collect();
    assert_eq!(
        ends,
        [
            ("ssh", Some([127, 0, 0, 1].into()), 2222, "10.0.2.15:22".into(), 1),
            ("udp-5000", None, 5000, "[fd17:625c:f037:2::9]:6000".into(), 2),
        ]
    );
    assert_eq!(nat.forwards.iter().map(|it| it.hides_client).collect::<Vec<_>>(), [false, true]);
    let map = nat.loopback[0];
    assert_eq!(
        (map.guest, map.host),
        ("10.0.2.2:5432".parse().unwrap(), "127.0.0.1:5432".parse().unwrap())
    );
}
