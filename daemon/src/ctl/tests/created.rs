//! Records that are of their own, names within a transaction, and commands of Open vSwitch for
//! what trama does not have.

use trama_api::transaction::NOT_YET;

use super::*;

fn problems(config: &Config) -> Vec<String> {
    crate::config::validate(config).iter().map(ToString::to_string).collect()
}

#[test]
fn a_name_may_be_used_before_its_record_is_created() {
    let line = "set Port vm1 qos=@q -- --id=@q create QoS type=linux-noop queues:1=@u -- --id=@u \
                create Queue dscp=3";
    let config = edit(&lab(), line);
    assert_eq!(config.records.len(), 2);
    assert_eq!(config.port("vm1").unwrap().openvswitch["qos"], config.records[0].name);
    assert_eq!(config.records[0].columns["queues"], format!("{{1={}}}", config.records[1].name));
    assert_eq!(problems(&config), Vec::<String>::new());
    assert_eq!(said(&config, &running(), "get QoS vm1 type"), "linux-noop");
    for (line, expected) in [
        ("set Port vm1 qos=@q", "row id \"@q\" is referenced but never created"),
        ("--id=@q get Port vm1 -- --id=@q get Port vm2", "may only be specified on one --id"),
        ("set Port vm1 qos=@q -- --id=@q get Port vm2", "put the get first"),
        ("--id=q get Port vm1", "does not begin with \"@\""),
        (
            "create Mirror name=m output_port=@p -- --id=@p get Port vm1",
            "there is no Port @p; name one before its use: --id=@p get Port NAME",
        ),
        ("set Bridge lab sflow=@s -- --id=@s create Queue dscp=1", "sflow refers to @s, and"),
    ] {
        let message = refused(&lab(), line);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn records_stay_only_where_nothing_need_refer_to_them() {
    let line = "create QoS type=linux-htb -- create Queue dscp=1 -- create Mirror name=m0 \
                select_all=true -- create sFlow header=128 -- get Mirror m0 select_all";
    let config = edit(&lab(), line);
    let tables: Vec<_> = config.records.iter().map(|record| record.table.name()).collect();
    assert_eq!(tables, ["QoS", "Queue"]);
    assert_eq!((problems(&config), config.mirrors.len()), (Vec::new(), 0));
    assert_eq!(edit(&config, "--all destroy QoS -- --all destroy Queue"), lab());
}

#[test]
fn a_port_may_refer_to_what_does_not_shape() {
    let line = "--id=@q create QoS type=linux-htb -- set Port vm1 qos=@q";
    let [problem] = &problems(&edit(&lab(), line))[..] else { panic!() };
    let expected = "port.vm1.openvswitch: qos of type linux-htb is refused: trama does not limit";
    assert!(problem.starts_with(expected), "{problem}");
    assert!(problem.ends_with("or clear Port vm1 qos"), "{problem}");
    let config = edit(&lab(), "--id=@q create QoS type=linux-noop -- set Port vm1 qos=@q");
    let [problem] = &problems(&edit(&config, "--all destroy QoS"))[..] else { panic!() };
    assert!(problem.contains("there is no QoS") && problem.contains("clear Port vm1 qos"));
    let line =
        "--id=@u create Queue dscp=1 -- create QoS type=x queues:0=@u -- --all destroy Queue";
    let [problem] = &problems(&edit(&lab(), line))[..] else { panic!() };
    assert!(problem.contains("there is no Queue"), "{problem}");
}

#[test]
fn what_has_commands_of_its_own_is_not_created_or_destroyed() {
    for (line, expected) in [
        ("create Bridge name=zoo", "records of Bridge come and go with add-br"),
        ("destroy Bridge lab", "records of Bridge come and go with del-br"),
        ("create Interface name=x", "records of Interface come and go with add-port"),
        ("destroy Port vm1", "records of Port come and go with del-port"),
        ("destroy Open_vSwitch .", "has one record, \".\", which stays"),
        ("add-bond lab b0 eth1 eth2", "a port has one interface; bond the host's interfaces"),
        ("add-bond-iface vm1 eth1", "a port has one interface"),
        ("del-bond-iface vm1", "a port has one interface"),
        ("add-bond zoo b0 eth1 eth2", "no bridge named zoo"),
        ("set-fail-mode lab open", "fail-mode must be"),
        ("list Mirrors", "unknown table \"Mirrors\"; did you mean Mirror?"),
    ] {
        let message = refused(&lab(), line);
        assert!(message.contains(expected), "{line}: {message}");
    }
    assert_eq!(edit(&lab(), "--if-exists del-bond-iface eth1"), lab());
    assert!(edit(&lab(), "--with-iface del-port lab vm1").port("vm1").is_none());
}

#[test]
fn a_wait_is_answered_with_a_status_of_its_own_until_it_is_over() {
    let wait = |line: &str| run_with(&lab(), &running(), line).map(|outcome| outcome.results);
    for line in ["wait-until Bridge lab", "wait-until Port vm1 tag=10 name=vm1"] {
        assert!(wait(line).is_ok(), "{line}");
    }
    for line in ["wait-until Bridge zoo", "wait-until Port vm1 tag=11"] {
        assert_eq!(wait(&format!("add-br new -- {line}")).unwrap_err().exit, NOT_YET, "{line}");
    }
    assert!(wait("add-br zoo -- wait-until Bridge zoo").is_ok());
    assert_eq!(wait("wait-until Bridge lab nope=1").unwrap_err().exit, 1);
}

#[test]
fn interfaces_are_found_by_their_sockets() {
    let line = "set Interface vm1 type=dpdkvhostuserclient options:vhost-server-path=/run/a.sock";
    let config = edit(&lab(), line);
    let found = |line: &str| rows(&config, &running(), line);
    let by_path = "--columns=name find Interface options:vhost-server-path=/run/a.sock";
    assert_eq!(found(by_path), ["vm1"]);
    assert_eq!(found("--columns=name find Interface options:vhost-server-path=/run/b"), [""; 0]);
    let line = "get Interface a.sock name options:vhost-server-path options:n_rxq";
    assert_eq!(said(&config, &running(), line), "vm1\n\"/run/a.sock\"\n\"1\"");
    assert!(refused(&config, "get Interface b.sock name").contains("no row"));
    // Two ports with sockets of one name are ambiguous.
    let config = edit(&config, "set Interface vm2 type=vhost-user options:path=/tmp/a.sock");
    assert!(refused(&config, "get Interface a.sock name").contains("no row"));
}

#[test]
fn sockets_without_an_absolute_path_are_found_by_the_one_in_force() {
    let mut config = lab();
    config.daemon.folders.run = "/run/trama".into();
    let line = "set Interface vm1 type=vhost-user -- set Interface vm2 type=stream options:path=a";
    let found = |config: &Config, line: &str| {
        rows(config, &running(), &format!("{line} -- --columns=name list Interface vm1.sock"))
    };
    // Before the end of the transaction, too.
    assert_eq!(found(&config, line), ["vm1"]);
    let config = edit(&config, line);
    assert_eq!(found(&config, "list-br"), ["vm1"]);
    for (condition, port) in [
        ("options:path=/run/trama/vm1.sock", "vm1"),
        ("options:vhost-server-path=/run/trama/vm1.sock", "vm1"),
        ("options:path=/run/trama/a", "vm2"),
        ("options:path=a", "vm2"),
        ("options:path{in}/run/trama/a,/b", "vm2"),
        ("options:path!=/run/trama/a", "vm1"),
    ] {
        let line = format!("--columns=name find Interface {condition}");
        assert_eq!(rows(&config, &running(), &line), [port], "{condition}");
    }
    let line = "--columns=name find Interface options:path=/run/trama/vm2.sock";
    assert_eq!(rows(&config, &running(), line), [""; 0]);
}

#[test]
fn the_second_name_of_a_path_means_a_client() {
    let set = "set Interface vm1 type=vhost-user options:path=/run/a.sock";
    let config = edit(&lab(), set);
    let client = edit(&config, "set Interface vm1 options:vhost-server-path=/run/b.sock");
    let expected = VhostUser { path: "/run/b.sock".into(), role: Role::Client, queues: 1 };
    assert_eq!(vhost(&client, "vm1"), expected);
    for role in [
        "options:role=server options:vhost-server-path=/run/b.sock",
        "options:vhost-server-path=/run/b.sock options:role=server",
        "options={role=server,vhost-server-path=/run/b.sock}",
    ] {
        for before in [&config, &lab()] {
            let line = format!("set Interface vm1 type=vhost-user {role}");
            let message = refused(before, &line);
            assert!(message.contains("and options:role is server; state"), "{role}: {message}");
        }
    }
    for line in [
        "remove Interface vm1 options vhost-server-path",
        "remove Interface vm1 options vhost-server-path=/run/b.sock",
        "remove Interface vm1 options path",
    ] {
        let message = refused(&edit(&client, line), "get Interface vm1 options:path");
        assert!(message.contains("no key \"path\""), "{line}: {message}");
    }
    assert_eq!(edit(&client, "remove Interface vm1 options vhost-server-path=/other"), client);
}

#[test]
fn each_drop_is_counted_in_one_of_four_statistics() {
    let mut snapshot = running();
    let drops = trama_switch::DropReason::ALL.iter().map(|reason| (reason.name(), 1));
    snapshot.status.ports[0].counters.drops = drops.collect();
    let all = trama_switch::DropReason::COUNT as i64;
    let keys = ["rx_dropped", "rx_errors", "tx_dropped", "tx_errors", "dropped"];
    let line = keys.map(|key| format!("statistics:{key}")).join(" ");
    let shown = said(&lab(), &snapshot, &format!("get Interface vm1 {line}"));
    let counts: Vec<i64> = shown.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(counts[..4].iter().sum::<i64>(), all);
    assert_eq!((counts[4], counts[2], counts[3]), (all, 6, 2));
    assert!(counts[..4].iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_reset_forgets_what_a_controller_may_have_left() {
    let line = "set-fail-mode lab secure -- set Bridge lab other_config:hwaddr=x \
                other_config:mac-aging-time=60 -- set Port vm1 other_config:a=b -- emer-reset";
    let config = edit(&lab(), line);
    assert_eq!(config, edit(&lab(), "set Bridge lab other_config:hwaddr=x"));
}

#[test]
fn a_record_that_ends_with_the_transaction_is_warned_of() {
    let warnings = |line: &str| run_with(&lab(), &Snapshot::default(), line).unwrap().warnings;
    let none = warnings("create Mirror name=m");
    assert!(none[0].contains("table Mirror without --id option will have no effect"), "{none:?}");
    let named = warnings("--id=@m create sFlow targets=x");
    assert!(named[0].starts_with("row id \"@m\" was created but no reference"), "{named:?}");
    assert!(warnings("create QoS type=linux-noop -- list Mirror").is_empty());
}
