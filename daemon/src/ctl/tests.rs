//! The commands on draft configurations, without a daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use trama_api::commands::COMMANDS;
use trama_api::transaction::Form;
use trama_api::value::{Atom, Value};
use trama_gateway::report::FlowRow;
use trama_gateway::report::{LeaseRow, LeaseState};

use super::*;
use crate::config::model::dhcp::DhcpSetting;
use crate::config::model::{Interface, Role, VhostUser, VlanModeName};
use crate::state::QueryError;
use crate::status::{FdbRow, Lease, NetworkStatus, PortCounts, PortStatus, Status, VhostStatus};

mod created;
mod exports;
mod kept;
mod mirrors;
mod scale;
mod typed;

/// Cuts `line` into commands at ` -- ` and into words at blanks.
fn commands(line: &str) -> Vec<Vec<String>> {
    let words = |command: &str| command.split_whitespace().map(str::to_owned).collect();
    line.split(" -- ").map(words).collect()
}

/// Runs `line` on `config`, with `snapshot` as what runs.
fn run_with(config: &Config, snapshot: &Snapshot, line: &str) -> Result<Outcome, Failure> {
    run(&parse(&commands(line))?, config.clone(), snapshot)
}

fn edit(config: &Config, line: &str) -> Config {
    match run_with(config, &Snapshot::default(), line) {
        Ok(outcome) => outcome.config,
        Err(failure) => panic!("{line}: {failure}"),
    }
}

fn refused(config: &Config, line: &str) -> String {
    let failure = run_with(config, &Snapshot::default(), line).expect_err(line);
    assert_eq!(failure.exit, 1, "{line}");
    failure.message
}

/// The lines of the last command of `line`.
fn said(config: &Config, snapshot: &Snapshot, line: &str) -> String {
    match run_with(config, snapshot, line).unwrap().results.pop() {
        Some(Output::Text { lines }) => lines.join("\n"),
        other => panic!("{line}: {other:?}"),
    }
}

/// The rows of the last command of `line`, in bare text.
fn rows(config: &Config, snapshot: &Snapshot, line: &str) -> Vec<String> {
    match run_with(config, snapshot, line).unwrap().results.pop() {
        Some(Output::Table { rows, .. }) => rows
            .iter()
            .map(|row| row.iter().map(Value::bare).collect::<Vec<_>>().join("|"))
            .collect(),
        other => panic!("{line}: {other:?}"),
    }
}

fn lab() -> Config {
    edit(&Config::default(), "add-br lab -- add-port lab vm1 tag=10 -- add-port lab vm2")
}

fn vhost(config: &Config, port: &str) -> VhostUser {
    match &config.port(port).unwrap().interface {
        Interface::VhostUser(vhost) => vhost.clone(),
        other => panic!("{other:?}"),
    }
}

fn running() -> Snapshot {
    let port = |name: &str, not_running: Option<&str>| PortStatus {
        name: name.into(),
        network: Some("lab".into()),
        not_running: not_running.map(str::to_owned),
        not_in_force: None,
        left_out: false,
        link: not_running.is_none(),
        vhost: None,
        socket: None,
        mac: None,
        storms: Vec::new(),
        loop_block: None,
        mark: 0,
        counters: PortCounts {
            rx_frames: 3,
            rx_bytes: 180,
            tx_frames: 2,
            tx_bytes: 120,
            drops: vec![("egress_full", 4), ("runt", 0)],
            gateway_drops: Vec::new(),
            others: vec![("kicks", 7)],
        },
    };
    let mut vm1 = port("vm1", None);
    vm1.vhost = Some(VhostStatus {
        path: "/x".into(),
        state: "connected",
        last_error: None,
        connects: 2,
        features: 0x1_0000_0000,
        queue_pairs: 1,
        peer: Some("pid 4711 uid 1000".into()),
        waiting: vec!["pid 4712 uid 0".into(), "pid 4713 uid 0".into()],
        memory_mapped: 8 << 20,
        memory_populated: 4096,
    });
    let mut vm2 = port("vm2", Some("no such directory"));
    vm2.mac = Some("52:54:00:00:00:02".into());
    let fdb = |network: &str, port: &str, vlan, mac: &str| FdbRow {
        network: network.into(),
        port: port.into(),
        vlan,
        mac: mac.into(),
        age: (vlan != 0).then_some(Duration::from_millis(2900)),
    };
    Snapshot {
        host: HostInterfaces::default(),
        status: Status::of(
            vec![NetworkStatus {
                name: "lab".into(),
                worker: 0,
                mac_entries: 2,
                mac_moves: 0,
                gateway_port: None,
                busy: Duration::ZERO,
                gateway: None,
            }],
            vec![vm1, vm2],
        ),
        fdb: vec![
            fdb("lab", "vm1", 10, "52:54:00:00:00:01"),
            fdb("zoo", "ape", 0, "52:54:00:00:00:03"),
        ],
        leases: Vec::new(),
        numbers: BTreeMap::from([("vm1".into(), 1), ("vm2".into(), 2)]),
        forwards: BTreeMap::new(),
        flows: Vec::new(),
        salt: 0,
    }
}

#[test]
fn a_port_gets_its_type_later_in_the_transaction() {
    let expected = VhostUser { path: "/x".into(), role: Role::Client, queues: 2 };
    for order in [
        "type=vhost-user options:path=/x options:role=client options:queues=2",
        "options:path=/x options:queues=2 options:role=client type=vhost-user",
    ] {
        let config = edit(&lab(), &format!("add-port lab vm3 tag=7 -- set Interface vm3 {order}"));
        assert_eq!(vhost(&config, "vm3"), expected);
        assert_eq!(config.port("vm3").unwrap().vlan.tag, Some(7));
    }
    let config = edit(
        &lab(),
        "set Interface vm1 type=dpdkvhostuserclient options:vhost-server-path=/x options:n_rxq=2",
    );
    assert_eq!(vhost(&config, "vm1"), expected);
    assert_eq!(
        said(&config, &running(), "get Interface vm1 type options"),
        "vhost-user\n{path=\"/x\", queues=\"2\", role=client}"
    );
}

#[test]
fn an_interface_that_makes_no_sense_at_the_end_refuses_the_transaction() {
    let message = refused(&lab(), "add-br new -- set Interface vm1 type=dpdkvhostuserclient");
    assert!(message.contains("needs options:vhost-server-path"), "{message}");
    let message = refused(&lab(), "set Interface vm1 options:colour=red");
    assert!(message.contains("known options: ifname, netns, address"), "{message}");
}

#[test]
fn a_port_can_be_detached_and_attached() {
    let config = edit(&lab(), "clear Port vm1 network");
    assert_eq!(config.port("vm1").unwrap().network, None);
    assert_eq!(config.port("vm1").unwrap().vlan.tag, Some(10), "its settings stay");
    assert_eq!(said(&config, &running(), "list-ports lab"), "vm2");
    assert!(refused(&config, "port-to-br vm1").contains("not attached"));
    assert!(refused(&config, "add-port lab vm1").contains("not attached"));
    assert!(refused(&config, "--may-exist add-port lab vm1").contains("set Port vm1 network=lab"));
    assert_eq!(edit(&config, "set Port vm1 network=lab"), lab());
    assert_eq!(refused(&config, "set Port vm1 network=zoo"), "no bridge named zoo");
    assert!(edit(&config, "del-port vm1").port("vm1").is_none());
}

#[test]
fn del_br_takes_its_ports_along_and_no_others() {
    let config = edit(&lab(), "add-br zoo -- add-port zoo ape -- clear Port vm2 network");
    let config = edit(&config, "del-br lab");
    let names: Vec<_> = config.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["vm2", "ape"]);
}

#[test]
fn br_exists_answers_with_its_exit_status_alone() {
    let failure = run_with(&lab(), &running(), "list-br -- br-exists zoo").unwrap_err();
    assert_eq!(failure, Failure { message: String::new(), exit: 2 });
    assert!(run_with(&lab(), &running(), "br-exists lab").is_ok());
}

#[test]
fn vlan_settings() {
    let config = edit(&lab(), "set Port vm2 vlan_mode=native-untagged tag=4 trunks=5,7-9");
    let vlan = &config.port("vm2").unwrap().vlan;
    assert_eq!(vlan.mode, Some(VlanModeName::NativeUntagged));
    assert_eq!((vlan.tag, vlan.trunks.as_slice()), (Some(4), &[5, 7, 8, 9][..]));
    let config = edit(&config, "clear Port vm2 tag trunks vlan_mode");
    assert_eq!(config, lab());
}

#[test]
fn settings_of_a_bridge() {
    let config = edit(
        &lab(),
        "set Bridge lab mtu=9000 other_config:mac-aging-time=60 other_config:mac-table-size=2048 \
         external_ids:owner=me mode=internal",
    );
    let network = config.network("lab").unwrap();
    assert_eq!((network.mtu, network.mac_table_size), (9000, 2048));
    assert_eq!(network.mac_aging, Duration::from_secs(60));
    assert_eq!(said(&config, &running(), "get Interface vm1 mtu"), "9000");
    let rules = "set Bridge lab forward=\":tcp:[]:80:[10.0.2.9]:81\" loopback=\"db,tcp,,5432,,5432\" \
                 -- set Port vm1 forward=\"ssh,tcp,,22,,22\"";
    let config = edit(&config, rules);
    assert_eq!(
        said(&config, &running(), "get br lab forward loopback -- get Port vm1 forward"),
        "[\"ssh,tcp,,22,,22\"]"
    );
    assert_eq!(config.network("lab").unwrap().forward[0].to_string(), ",tcp,,80,10.0.2.9,81");
    assert_eq!(config.network("lab").unwrap().loopback[0].label(), "db");
    let config = edit(&config, "clear Bridge lab forward loopback -- clear Port vm1 forward");
    let config = edit(&config, "clear Bridge lab other_config external_ids -- set br lab mtu=1500");
    assert_eq!(config, lab());
    for (line, part) in [
        ("set Bridge lab mtu=20", "not in the valid range 68 to 65521"),
        (
            "set Bridge lab mode=natted",
            "not one of the allowed values ([bridged, host-only, internal, nat, nat-network])",
        ),
        ("set Bridge lab other_config:mac-aging-time=soon", "number of seconds"),
        ("set Bridge lab forward=\"a,tcp\"", "\"a,tcp\" has 2 of 6 fields"),
        ("set Port vm1 forward=\"a,tcp,,0,,1\"", "host port: \"0\" is not a port; use 1 to"),
        ("clear Bridge lab mtu", "not allowed to be empty"),
        ("remove Bridge lab mtu 1500", "would put 0 values in column mtu"),
        ("add Bridge lab mtu 1400", "would put 2 values in column mtu"),
        ("clear Bridge lab ports", "read-only column ports"),
    ] {
        let message = refused(&lab(), line);
        assert!(message.contains(part), "{line}: {message}");
    }
}

#[test]
fn aging_that_is_no_whole_number_of_seconds_survives_other_edits() {
    let mut config = lab();
    config.networks[0].mac_aging = Duration::from_millis(1500);
    assert_eq!(said(&config, &running(), "get br lab other_config:mac-aging-time"), "\"1500ms\"");
    let edited = edit(&config, "set Bridge lab other_config:mac-table-size=64");
    assert_eq!(edited.networks[0].mac_aging, Duration::from_millis(1500));
}

#[test]
fn what_runs_is_shown_in_interface() {
    let (config, snapshot) = (edit(&lab(), "link vm2 down"), running());
    let line = "get Interface vm1 ofport link_state admin_state error mac_in_use status";
    assert_eq!(
        said(&config, &snapshot, line),
        "1\nup\nup\n[]\n[]\n\
         {connects=\"2\", features=\"0x100000000\", memory_mapped=\"8388608\", \
         memory_populated=\"4096\", path=\"/x\", \
         peer=\"pid 4711 uid 1000\", queue_pairs=\"1\", state=connected, waiting=\"2\", \
         waiting_peers=\"pid 4712 uid 0, pid 4713 uid 0\"}"
    );
    let line = "get Interface vm2 link_state admin_state error mac_in_use statistics";
    assert_eq!(
        said(&config, &snapshot, line),
        "down\ndown\n\"no such directory\"\n\"52:54:00:00:00:02\"\n\
         {dropped=4, kicks=7, rx_bytes=180, rx_dropped=0, rx_errors=0, rx_packets=3, tx_bytes=120, \
         tx_dropped=4, tx_errors=0, tx_packets=2}"
    );
    assert_eq!(
        rows(&config, &snapshot, "--columns=name find Interface statistics:kicks>6 error!=[]"),
        ["vm2"]
    );
    // Ports that are in the draft only run nowhere yet.
    let line = "add-port lab new -- get Interface new ofport link_state statistics";
    assert_eq!(said(&config, &snapshot, line), "[]\n[]\n{}");
}

#[test]
fn records_are_found_by_name_identity_and_beginning() {
    let (config, snapshot) = (lab(), running());
    let uuid = said(&config, &snapshot, "get Port vm1 _uuid");
    assert_eq!(said(&config, &snapshot, &format!("get Port {uuid} name")), "vm1");
    assert_eq!(said(&config, &snapshot, &format!("get Port {} name", &uuid[..8])), "vm1");
    assert!(refused(&config, &format!("get Port {} name", &uuid[..3])).contains("no row"));
    assert_eq!(said(&config, &snapshot, "get Bridge lab ports").matches('-').count(), 8);
    assert_eq!(
        rows(&config, &snapshot, &format!("--columns=name find Port _uuid={uuid}")),
        ["vm1"]
    );
}

#[test]
fn show_lists_networks_ports_and_what_is_not_attached() {
    let config = edit(
        &lab(),
        "add-br a.b -- add-port lab x -- clear Port x network -- link vm1 down -- set Interface \
         vm1 type=vhost-user options:path=/x",
    );
    let lines = said(&config, &running(), "show");
    let expected = "
    Bridge a.b
    Bridge lab
        Port vm1
            tag: 10
            cable: false
            Interface vm1
                type: vhost-user
                options: {path=\"/x\", queues=\"1\", role=server}
        Port vm2
            Interface vm2
                type: tap
                options: {ifname=vm2}
                error: \"no such directory\"
    Not attached
        Port x
            Interface x
                type: tap
                options: {ifname=x}
    trama_version:";
    let (_, after_uuid) = lines.split_at(36);
    assert!(after_uuid.starts_with(expected), "{lines}");
    let mut snapshot = running();
    let mut gateway = crate::gateway::GatewayStatus::default();
    gateway.counters.lease_store = Some("no DHCP: disk full".to_owned());
    snapshot.status.networks[0].gateway = Some(gateway);
    let lines = said(&config, &snapshot, "show");
    assert!(lines.contains("    Bridge lab\n        error: \"no DHCP: disk full\"\n"), "{lines}");
    let gateway = snapshot.status.networks[0].gateway.as_mut().unwrap();
    (gateway.restarts, gateway.last_error) = (2, Some("does not answer for 3 s".to_owned()));
    let lines = said(&config, &snapshot, "show");
    let expected =
        "    Bridge lab\n        gateway: \"replaced 2 times: does not answer for 3 s\"\n";
    assert!(lines.contains(expected), "{lines}");
    let counters = &mut snapshot.status.ports[0].counters;
    counters.gateway_drops = vec![("bad_ip".into(), 1), ("new_flow_share".into(), 5)];
    counters.drops.push(("gateway_share", 7));
    let lines = said(&config, &snapshot, "show");
    let lost: Vec<_> = lines.lines().filter(|line| line.trim().starts_with("lost: ")).collect();
    assert!(
        lost[0].starts_with("            lost: \"7 frames, gateway_share: The gateway was busy")
    );
    assert!(lost[1].contains("5 frames, new_flow_share: The port opened more"), "{lost:?}");
    assert_eq!(lost.len(), 2, "{lines}");
}

#[test]
fn learnt_addresses_by_number_or_name() {
    let (config, snapshot) = (edit(&lab(), "add-br zoo -- add-port zoo ape"), running());
    assert_eq!(rows(&config, &snapshot, "fdb/show lab"), ["1|10|52:54:00:00:00:01|2"]);
    assert_eq!(
        rows(&config, &snapshot, "--names fdb/show"),
        ["vm1|10|52:54:00:00:00:01|2", "ape|0|52:54:00:00:00:03|static"]
    );
    assert_eq!(refused(&config, "fdb/show nowhere"), "no bridge named nowhere");
    let outcome = run_with(&config, &snapshot, "fdb/flush lab -- fdb/flush").unwrap();
    assert_eq!(outcome.after, [After::FlushFdb(Some("lab".into())), After::FlushFdb(None)]);
    assert_eq!(outcome.config, config);
    assert_eq!(refused(&config, "fdb/flush nowhere"), "no bridge named nowhere");
}

/// `out` is of mode `nat` with the ports `a` and `b`, `shared` of mode `nat-network`.
fn natted() -> Config {
    edit(
        &Config::default(),
        "add-br out -- set Bridge out mode=nat -- add-port out a -- add-port out b \
         -- add-br shared -- set Bridge shared mode=nat-network",
    )
}

#[test]
fn forwards_are_added_and_removed_where_they_belong() {
    let config = edit(
        &natted(),
        "forward add a ssh,tcp,127.0.0.1,2222,,22 -- forward add a :udp:[]:53:[]:53 \
         -- forward add shared web,tcp,,8080,10.0.2.20,80",
    );
    let rules = |rules: &[crate::config::model::rule::Rule]| -> Vec<String> {
        rules.iter().map(ToString::to_string).collect()
    };
    let of_a = |config: &Config| rules(&config.port("a").unwrap().forward);
    assert_eq!(of_a(&config), ["ssh,tcp,127.0.0.1,2222,,22", ",udp,,53,,53"]);
    let shared = &config.network("shared").unwrap().forward;
    assert_eq!(rules(shared), ["web,tcp,,8080,10.0.2.20,80"]);
    assert_eq!(crate::config::validate(&config), vec![]);

    let fewer = edit(&config, "forward del a ssh");
    assert_eq!(of_a(&fewer), [",udp,,53,,53"]);
    assert!(of_a(&edit(&fewer, "forward del a udp-53")).is_empty());
    assert!(of_a(&edit(&fewer, "forward del a :udp:[]:53:[]:53")).is_empty());
    for (line, expected) in [
        ("forward add a ssh,tcp", "\"ssh,tcp\" has 2 of 6 fields"),
        ("forward add nowhere ,tcp,,1,,1", "no network or port named nowhere"),
        ("forward del a web", "a has no forward \"web\"; list them with: tramactl forward list a"),
        ("forward list nowhere", "no network or port named nowhere"),
        (
            "forward put a ,tcp,,1,,1",
            "'forward put' does not exist or takes other arguments; usage: forward add",
        ),
        ("forward del a", "'forward del' does not exist or takes other arguments"),
        ("forward list a b", "'forward list' does not exist or takes other arguments"),
        ("flows nowhere", "no bridge named nowhere"),
    ] {
        let message = refused(&config, line);
        assert!(message.starts_with(expected), "{line}: {message}");
    }
}

#[test]
fn forwards_are_listed_with_how_they_fare() {
    use trama_gateway::report::ForwardStatus;
    let config = edit(
        &natted(),
        "forward add a ssh,tcp,127.0.0.1,2222,,22 -- forward add b ,tcp,::1,80-81,,90-91,as-gateway \
         -- forward add shared web,tcp,,8080,10.0.2.20,80 -- forward add shared x,udp,,1,10.0.2.20,1",
    );
    let mut snapshot = running();
    let status = |name: &str, pending: Option<&str>| ForwardStatus {
        name: name.into(),
        pending: pending.map(str::to_owned),
    };
    let refused = Err(QueryError::NoGateway("out/b".to_owned()));
    snapshot.forwards = BTreeMap::from([
        ("out/a".into(), Ok(vec![status("ssh", None)])),
        ("out/b".into(), refused),
        ("shared".into(), Ok(vec![status("web", Some("port 8080 is in use"))])),
    ]);
    let [a, b, web, x] = [
        "out/a|ssh|tcp|127.0.0.1:2222|10.0.2.15:22|as-itself|listening",
        "out/b|tcp-80|tcp|[::1]:80-81|10.0.2.15:90-91|as-gateway|pending: network out/b has no gateway",
        "shared|web|tcp|*:8080|10.0.2.20:80|as-itself|pending: port 8080 is in use",
        "shared|x|udp|*:1|10.0.2.20:1|as-itself|pending: its gateway has not applied it yet",
    ];
    let listed = |line: &str| rows(&config, &snapshot, line);
    assert_eq!(listed("forward list"), [a, b, web, x]);
    assert_eq!(listed("forward list out"), [a, b]);
    assert_eq!(listed("forward list b"), [b]);
    assert_eq!(listed("forward list shared"), [web, x]);
    let idle = edit(&natted(), "del-port a -- del-port b -- forward add out ,tcp,,1,,2");
    assert_eq!(
        rows(&idle, &snapshot, "forward list"),
        ["out|tcp-1|tcp|*:1|10.0.2.15:2|as-itself|pending: its gateway is not running"]
    );
}

#[test]
fn flows_of_all_networks_and_of_one() {
    let flow = |network: &str, protocol: &str| {
        let row = FlowRow {
            protocol: protocol.into(),
            guest: "10.0.2.15:4000".parse().unwrap(),
            port: 0,
            remote: "[2001:db8::1]:80".parse().ok(),
            state: if protocol == "tcp" { "established".into() } else { String::new() },
            sent: 1,
            received: 2,
            idle: 3,
        };
        (network.to_owned(), row)
    };
    let mut snapshot = running();
    snapshot.flows = vec![flow("out/a", "tcp"), flow("shared", "udp")];
    let [a, shared] = [
        "out/a|tcp|10.0.2.15:4000|[2001:db8::1]:80|established|1|2|3",
        "shared|udp|10.0.2.15:4000|[2001:db8::1]:80||1|2|3",
    ];
    let listed = |line: &str| rows(&natted(), &snapshot, line);
    assert_eq!(listed("flows"), [a, shared]);
    assert_eq!(listed("flows out"), [a]);
    assert_eq!(listed("flows out/a"), [a]);
    assert_eq!(listed("flows shared"), [shared]);
}

#[test]
fn leases_name_the_port_that_they_are_charged_to() {
    let mut config = lab();
    config.networks[0].subnet = vec!["10.1.0.0/24".parse().unwrap()];
    assert_eq!(refused(&config, "leases lab"), "network lab leases no addresses; it has no dhcp");
    config.networks[0].dhcp = DhcpSetting::On(Box::default());
    let lease = |last, state, port, left| Lease {
        network: "lab".into(),
        row: LeaseRow {
            address: [10, 1, 0, last].into(),
            state,
            mac: [2, 0, 0, 0, 0, last],
            name: (port == 5).then(|| "web".into()),
            port,
            left,
        },
    };
    let mut snapshot = running();
    snapshot.status.ports[0].mark = 5;
    snapshot.leases = vec![
        lease(7, LeaseState::Bound, 5, Some(60)),
        // A port that is gone; a lease without a mark.
        lease(8, LeaseState::Idle, 6, None),
        lease(9, LeaseState::Conflict, 0, Some(9)),
    ];
    let expected = [
        "lab|10.1.0.7|bound|02:00:00:00:00:07|web|vm1|60",
        "lab|10.1.0.8|idle|02:00:00:00:00:08|||",
        "lab|10.1.0.9|conflict|02:00:00:00:00:09|||9",
    ];
    assert_eq!(rows(&config, &snapshot, "leases lab"), expected);
    assert_eq!(rows(&config, &snapshot, "leases"), expected);
    assert_eq!(refused(&config, "leases nowhere"), "no bridge named nowhere");
}

#[test]
fn counters_of_all_ports_and_of_one() {
    let (config, mut snapshot) = (lab(), running());
    snapshot.status.ports[0].counters.gateway_drops = vec![("new_flow_share".into(), 5)];
    let all = rows(&config, &snapshot, "counters");
    assert_eq!(all, ["vm1|lab|3|180|2|120|4|egress_full=4", "vm2|lab|3|180|2|120|4|egress_full=4"]);
    let why = rows(&config, &snapshot, "counters --why");
    assert_eq!(why.len(), 3, "both ports, and the gateway of one: {why:?}");
    assert!(why[0].starts_with("vm1|gateway_drops:new_flow_share|5|"), "the most first: {why:?}");
    assert!(why[1].starts_with("vm1|drops:egress_full|4|The receiver"), "{why:?}");
    let outcome = run_with(&config, &snapshot, "counters vm1").unwrap();
    let Output::Table { headings, rows, form } = &outcome.results[0] else { panic!() };
    assert_eq!((form, headings.last().unwrap().as_str()), (&Form::List, "kicks"));
    assert_eq!(rows[0].last(), Some(&Value::One(Atom::Integer(7))));
    let column = |name: &str| {
        let at = headings.iter().position(|heading| heading == name);
        rows[0][at.unwrap_or_else(|| panic!("no {name} in {headings:?}"))].to_string()
    };
    assert_eq!(column("drops"), "{egress_full=4}");
    assert!(column("drops:egress_full").contains("give it longer queues"));
    assert_eq!(column("gateway_drops"), "{new_flow_share=5}");
    assert!(column("gateway_drops:new_flow_share").contains("fewer source ports"));
    assert!(!headings.iter().any(|heading| heading.starts_with("drops:runt")), "{headings:?}");
    assert_eq!(refused(&config, "counters nope"), "no port named nope");
    assert!(refused(&config, "counters vm1").contains("is not running yet"));
}

#[test]
fn the_tables_are_those_that_clients_know() {
    let mut names: Vec<&str> = schema::TABLES.iter().map(|table| table.name).collect();
    names.sort_unstable();
    assert_eq!(names, trama_api::tables::TABLES);
    for table in schema::TABLES.iter() {
        for column in &table.columns {
            let (table, name) = (table.name, column.name);
            let is_read_only = trama_api::tables::is_read_only(table, name);
            assert_eq!(is_read_only, !column.is_free(), "{table}: {name}");
        }
    }
}
