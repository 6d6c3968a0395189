//! Columns of Open vSwitch that trama keeps, or refuses.

use super::*;
use crate::config::openvswitch;

#[test]
fn what_changes_nothing_is_taken_kept_and_shown() {
    let before = lab();
    let line = "set Bridge lab fail_mode=secure protocols=OpenFlow13,OpenFlow10 \
                datapath_type=netdev other_config:disable-in-band=true stp_enable=false \
                -- set Port vm1 bond_mode=active-backup lacp=off other_config:a=b \
                -- set Interface vm1 ofport_request=7 mtu_request=1400 other_config:c=d \
                -- set Open_vSwitch . external_ids:system-id=x other_config:dpdk-init=true";
    let config = edit(&before, line);
    let network = config.network("lab").unwrap();
    assert_eq!(network.openvswitch["protocols"], "[OpenFlow10, OpenFlow13]");
    assert_eq!(network.openvswitch.len(), 4, "a default needs no place: {:?}", network.openvswitch);
    assert_eq!(crate::config::validate(&config), vec![]);
    let line = "get Bridge lab fail_mode protocols stp_enable other_config:disable-in-band \
                -- get Port vm1 bond_mode lacp other_config -- get Interface vm1 ofport_request \
                mtu_request other_config";
    assert_eq!(said(&config, &running(), line), "7\n1400\n{c=d}");
    assert_eq!(
        said(&config, &running(), "get Open_vSwitch . external_ids other_config ovs_version"),
        format!("{{system-id=x}}\n{{dpdk-init=\"true\"}}\n\"trama {}\"", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(rows(&config, &running(), "--columns=name find Bridge fail_mode=secure"), ["lab"]);
    assert!(said(&config, &running(), "show").contains("lab\n        fail_mode: secure\n"));
    let line = "clear Bridge lab fail_mode protocols other_config -- set Bridge lab \
                datapath_type=\"\" -- remove Port vm1 other_config a -- clear Port vm1 bond_mode \
                lacp -- clear Interface vm1 ofport_request mtu_request other_config \
                -- clear Open_vSwitch . external_ids other_config";
    assert_eq!(edit(&config, line), before);
}

#[test]
fn what_is_kept_beside_settings_leaves_them_alone() {
    let line = "set Bridge lab other_config:mac-aging-time=60 other_config:hwaddr=\"x\"";
    let config = edit(&lab(), line);
    let network = config.network("lab").unwrap();
    assert_eq!(network.mac_aging, Duration::from_secs(60));
    assert_eq!(network.openvswitch["other_config"], "{hwaddr=x}");
    let shown = said(&config, &running(), "get Bridge lab other_config");
    assert_eq!(shown, "{hwaddr=x, mac-aging-time=\"60\"}");
}

#[test]
fn what_trama_cannot_do_is_refused_with_what_serves_instead() {
    let uuid = "5c458bc8-24e8-4a91-aebb-6870216ac44b";
    for (line, expected) in [
        (
            "set Bridge lab stp_enable=true",
            "stp_enable=true is refused: trama has no spanning tree; it finds loops by probes and \
             blocks their ports: see the column loop of Port",
        ),
        ("set Bridge lab mcast_snooping_enable=true", "storm_multicast of Port"),
        (&format!("set Bridge lab controller={uuid}"), "no OpenFlow controllers"),
        (&format!("set Bridge lab netflow={uuid}"), "by IPFIX, not by NetFlow"),
        ("set Bridge lab other_config:forward-bpdu=true", "do not pass"),
        ("set Bridge lab fail_mode=open", "not one of the allowed values ([secure, standalone])"),
        ("set Port vm1 lacp=active", "trama speaks no LACP"),
        ("set Port vm1 other_config:priority-tags=always", "leave without a tag"),
        ("set Port vm1 protected=true", "use a network of mode nat"),
        ("set Interface vm1 ingress_policing_rate=1000", "trama does not limit rates"),
        ("set Interface vm1 bfd:enable=true", "speaks no BFD"),
        ("set Interface vm1 ofport_request=70000", "not in the valid range 1 to 65279"),
        ("set Interface vm1 ifindex=3", "cannot modify read-only column ifindex"),
        ("set Open_vSwitch . ovs_version=3", "cannot modify read-only column ovs_version"),
        ("set Open_vSwitch . colour=red", "does not contain a column"),
    ] {
        let message = refused(&lab(), line);
        assert!(message.contains(expected), "{line}: {message}");
    }
    let config = edit(&lab(), "set Interface vm1 ingress_policing_rate=0 bfd:enable=false");
    assert_eq!(config.port("vm1").unwrap().openvswitch_interface.len(), 1);
}

#[test]
fn a_larger_mtu_than_the_networks_is_refused() {
    let config = edit(&lab(), "set Interface vm1 mtu_request=9000");
    let problems: Vec<String> =
        crate::config::validate(&config).iter().map(ToString::to_string).collect();
    let expected = "port.vm1.openvswitch-interface: mtu_request=9000 is more than the 1500 of lab; \
                    set Bridge lab mtu=9000, or clear mtu_request";
    assert_eq!(problems, [expected]);
    let config = edit(&config, "set Bridge lab mtu=9000");
    assert_eq!(crate::config::validate(&config), vec![]);
}

#[test]
fn a_list_leaves_out_kept_columns_that_tell_nothing() {
    let headings = |line: &str| match run_with(&lab(), &running(), line).unwrap().results.pop() {
        Some(Output::Table { headings, .. }) => headings,
        other => panic!("{other:?}"),
    };
    let has = |headings: Vec<String>, name: &str| headings.iter().any(|it| it == name);
    assert!(!has(headings("list Port vm1"), "lacp"));
    assert!(has(headings("set Port vm2 lacp=off -- list Port"), "lacp"));
    assert!(!has(headings("set Port vm2 lacp=off -- list Port vm1"), "lacp"));
    assert!(has(headings("--columns=lacp list Port vm1"), "lacp"));
}

#[test]
fn names_and_types_are_those_of_the_schema_of_open_vswitch() {
    let Ok(text) = std::fs::read_to_string("/usr/share/openvswitch/vswitch.ovsschema") else {
        println!("skipped: there is no schema (package openvswitch-common)");
        return;
    };
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, known) in [
        ("Bridge", openvswitch::BRIDGE.as_slice()),
        ("Port", openvswitch::PORT.as_slice()),
        ("Interface", openvswitch::INTERFACE.as_slice()),
        ("Open_vSwitch", openvswitch::ROOT.as_slice()),
    ] {
        let columns = schema["tables"][name]["columns"].as_object().unwrap();
        let table = lookup::find_table(name).unwrap();
        for column in columns.keys() {
            assert!(table.column(column).is_some(), "{name} has no {column}");
        }
        for column in known {
            let of = &columns.get(column.name).unwrap_or_else(|| panic!("{}", column.name))["type"];
            let word = |of: &serde_json::Value| {
                let of = if of["type"].is_string() { &of["type"] } else { of };
                of.as_str().unwrap_or_default().to_owned()
            };
            let key = if of["key"].is_null() { word(of) } else { word(&of["key"]) };
            let default = column.of.default();
            let is_map = matches!(default, Value::Map(_));
            assert_eq!(is_map, !of["value"].is_null(), "{}", column.name);
            let sample = match (word(&of["value"]).as_str(), key.as_str()) {
                ("", "boolean") => "true",
                ("", "integer") => "20",
                ("", "uuid") => "5c458bc8-24e8-4a91-aebb-6870216ac44b",
                ("integer", _) => "a=1",
                ("uuid", "integer") => "1=5c458bc8-24e8-4a91-aebb-6870216ac44b",
                ("uuid", _) => "a=5c458bc8-24e8-4a91-aebb-6870216ac44b",
                _ if is_map => "a=b",
                _ => of["key"]["enum"][1][0].as_str().unwrap_or("text"),
            };
            assert!(column.of.parse(sample).is_ok(), "{name} {}: {sample}", column.name);
        }
    }
}

#[test]
fn the_interface_of_a_bridge_has_its_mtu() {
    let config = edit(&lab(), "set interface lab mtu_req=1450");
    assert_eq!(config.network("lab").unwrap().mtu, 1450);
    let other = refused(&lab(), "set Interface lab mtu_request=1450 type=internal");
    assert!(other.contains("lab has no interface of its own"), "{other}");
    assert!(refused(&lab(), "set Interface lab mtu_request=9").contains("valid range 68 to 65521"));
    assert!(refused(&lab(), "get Interface lab name").starts_with("no row \"lab\""));
}
