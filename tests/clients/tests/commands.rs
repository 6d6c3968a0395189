//! `tramactl` with a running daemon: forms of output, exit statuses, and what is saved.

use std::collections::BTreeMap;

use trama_clients::RunningDaemon;

/// Two vhost-user ports, one of which is not attached; no privileges needed.
const LAB: &str = r#"# our lab
[[network]]
name = "lab"

[[port]]            # the first guest
name = "vm1"
network = "lab"
type = "vhost-user"
path = "{dir}/vm1.sock"
tag = 10

[[port]]
name = "vm2"
type = "vhost-user"
path = "{dir}/vm2.sock"
"#;

#[test]
fn show_prints_the_whole_lab() {
    let lab = RunningDaemon::start(LAB);
    let dir = lab.dir().display().to_string();
    let shown = lab.ok("show");
    let (uuid, rest) = shown.split_at(37);
    assert_eq!(uuid.matches('-').count(), 4);
    let expected = format!(
        "    Bridge lab
        Port vm1
            tag: 10
            Interface vm1
                type: vhost-user
                options: {{path=\"{dir}/vm1.sock\", queues=\"1\", role=server}}
    Not attached
        Port vm2
            Interface vm2
                type: vhost-user
                options: {{path=\"{dir}/vm2.sock\", queues=\"1\", role=server}}
    trama_version: \"{}\"\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(rest, expected);
    let oneline = lab.ok("--oneline show");
    assert_eq!(oneline.lines().count(), 1);
    assert_eq!(oneline.trim_end().replace("\\n", "\n") + "\n", shown);
}

#[test]
fn tables_take_every_form() {
    let lab = RunningDaemon::start(LAB);
    let ports = "--columns=name,tag,trunks list Port";
    assert_eq!(
        lab.ok(ports),
        "name                : vm1\ntag                 : 10\ntrunks              : []\n\n\
         name                : vm2\ntag                 : []\ntrunks              : []\n"
    );
    assert_eq!(lab.ok(&format!("--format=list {ports}")), lab.ok(ports));
    assert_eq!(
        lab.ok(&format!("-f table {ports}")),
        "name tag trunks\n---- --- ------\nvm1  10  []\nvm2  []  []\n"
    );
    assert_eq!(lab.ok(&format!("-f table --no-headings {ports}")), "vm1 10 []\nvm2 [] []\n");
    assert_eq!(
        lab.ok(&format!("-f json {ports}")),
        "{\"data\":[[\"vm1\",10,[\"set\",[]]],[\"vm2\",[\"set\",[]],[\"set\",[]]]],\
         \"headings\":[\"name\",\"tag\",\"trunks\"]}\n"
    );
    assert_eq!(lab.ok(&format!("--bare {ports}")), "vm1\n10\n\n\nvm2\n\n\n");
    assert_eq!(
        lab.ok("-f table -d json --columns=name,tag list Port vm1"),
        "name  tag\n----- ---\n\"vm1\" 10\n"
    );
    assert_eq!(
        lab.ok("--columns=name list Port vm1 -- --columns=name list Port vm2"),
        "name                : vm1\n\nname                : vm2\n"
    );
}

#[test]
fn every_column_of_every_table_can_be_listed_alone() {
    let lab = RunningDaemon::start(LAB);
    for (table, record) in [("Bridge", "lab"), ("Port", "vm1"), ("Interface", "vm1")] {
        let listed = lab.ok(&format!("list {table} {record}"));
        for line in listed.lines() {
            let (column, value) = line.split_once(':').unwrap();
            let column = column.trim_end();
            let alone = lab.ok(&format!("get {table} {record} {column}"));
            assert_eq!(alone.trim_end(), value.trim_start(), "{table} {column}");
        }
        assert_eq!(lab.ok(&format!("find {table} name={record}")), listed);
    }
}

#[test]
fn learnt_addresses_and_counters_have_their_shapes() {
    let lab = RunningDaemon::start(LAB);
    let heading = " port  VLAN  MAC                Age\n";
    assert_eq!(lab.ok("fdb/show lab"), heading);
    assert_eq!(lab.ok("--no-headings fdb/show"), "");
    assert_eq!(
        lab.ok("-f json fdb/show"),
        "{\"data\":[],\"headings\":[\"port\",\"VLAN\",\"MAC\",\"Age\"]}\n"
    );
    assert_eq!(lab.ok("fdb/flush lab"), "table successfully flushed\n");
    assert_eq!(lab.ok("fdb/flush"), "table successfully flushed\n");
    let counters = lab.ok("counters");
    assert!(
        counters.starts_with("port network rx_frames rx_bytes tx_frames tx_bytes dropped drops\n")
    );
    assert!(counters.contains("\nvm1  lab     0 "), "{counters}");
    assert!(counters.contains("\nvm2  []      0 "), "{counters}");
    let vm1: BTreeMap<String, String> = lab
        .ok("counters vm1")
        .lines()
        .map(|line| line.split_once(':').unwrap())
        .map(|(key, value)| (key.trim().into(), value.trim().into()))
        .collect();
    assert_eq!((vm1["port"].as_str(), vm1["drops"].as_str()), ("vm1", "{}"));
    assert_eq!(lab.refused("counters nope"), "tramactl: no port named nope\n");
    assert_eq!(
        lab.ok("get Interface vm1 ofport link_state status:state -- get Interface vm2 ofport"),
        "1\ndown\nlistening\n2\n"
    );
    lab.ok("set Interface vm2 ofport_request=7");
    assert_eq!(lab.ok("get Interface vm2 ofport -- get Interface vm1 ofport"), "7\n1\n");
}

#[test]
fn exit_statuses() {
    let lab = RunningDaemon::start(LAB);
    let status = |line: &str| lab.ctl(line).exit;
    assert_eq!(status("br-exists lab"), 0);
    let missing = lab.ctl("br-exists zoo");
    assert_eq!((missing.exit, missing.out.as_str(), missing.err.as_str()), (2, "", ""));
    assert_eq!(status("add-br lab"), 1);
    assert_eq!(status("dance"), 1);
    assert_eq!(status("--no-such-option show"), 1);
    assert_eq!(status("--format=html show"), 1);
    assert_eq!(status("-t 0 show"), 0, "without a limit");
    assert_eq!(status("-t 86401 show"), 1);
    assert_eq!(status(""), 0, "help");
    assert_eq!(status("--help"), 0);
    assert_eq!(status("--version"), 0);
    let odd = "add-port lab odd -- set Interface odd type=vhost-user \
               options:path={dir}/missing/odd.sock";
    let stored = lab.ctl(odd);
    assert_eq!(stored.exit, 65);
    assert!(
        stored.err.starts_with("tramactl: port odd is stored but does not run: "),
        "{stored:?}"
    );
    assert!(lab.file().contains("missing/odd.sock"), "it is stored");
    assert!(lab.ok("show").contains("                error: \""));
    assert_eq!(lab.ok("list-ports lab"), "odd\nvm1\n");
    assert_eq!(status("del-port odd"), 0);
}

#[test]
fn a_wait_ends_when_its_conditions_hold_or_its_time_is_over() {
    let lab = RunningDaemon::start(LAB);
    let line = "wait-until Bridge zoo -- set Bridge zoo external_ids:a=b";
    let late = lab.ctl(&format!("-t 1 {line}"));
    assert_eq!((late.exit, late.out.as_str()), (142, ""));
    assert!(late.err.contains("wait-until do not hold after 1 s"), "{}", late.err);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lab.ctl(line));
        lab.ok("add-br zoo");
        assert_eq!(waiting.join().unwrap().exit, 0);
    });
    assert_eq!(lab.ok("get Bridge zoo external_ids:a"), "b\n");
}

#[test]
fn records_of_their_own_are_saved() {
    let lab = RunningDaemon::start(LAB);
    let before = lab.file();
    let uuid = lab.ok("--id=@q create QoS type=linux-noop -- set Port vm1 qos=@q");
    let uuid = uuid.trim();
    let saved = lab.file();
    let table = format!("[[openvswitch]]\nname = \"{uuid}\"\ntable = \"QoS\"\n");
    assert!(saved.contains(&table) && saved.contains("qos = "), "{saved}");
    assert_eq!(lab.ok("reload"), "", "the file says what is in force");
    lab.refused("destroy QoS vm1");
    lab.ok("clear Port vm1 qos -- --all destroy QoS");
    assert_eq!(lab.file().trim_end(), before.trim_end());
}

#[test]
fn changes_are_saved_in_place_unless_told_otherwise() {
    let lab = RunningDaemon::start(LAB);
    lab.ok("set Port vm1 tag=20");
    let saved = lab.file();
    assert!(saved.starts_with("# our lab\n") && saved.contains("[[port]]            # the first"));
    assert!(saved.contains("tag = 20") && !saved.contains("tag = 10"), "{saved}");

    lab.ok("set Port vm1 external_ids:owner='\"a b\"' -- set Bridge lab mtu=9000");
    assert!(lab.file().contains("mtu = 9000") && lab.file().contains("a b"), "{}", lab.file());
    lab.ok("clear Port vm1 external_ids -- set Bridge lab mtu=1500");
    let saved = lab.file();

    lab.ok("--no-save set Port vm1 tag=30");
    assert_eq!(lab.file(), saved);
    assert_eq!(lab.ok("get Port vm1 tag"), "30\n");

    let dry = lab.ctl("--dry-run add-br zoo -- list-br");
    assert_eq!((dry.exit, dry.out.as_str()), (0, "lab\nzoo\n"));
    assert_eq!(dry.err, "tramactl: would add network zoo\n");
    assert_eq!(lab.ok("list-br"), "lab\n");
    assert_eq!(lab.file(), saved);
}

#[test]
fn a_transaction_happens_whole_or_not_at_all() {
    let lab = RunningDaemon::start(LAB);
    let before = (lab.file(), lab.ok("show"));
    for line in [
        "add-br zoo -- add-port zoo ape -- add-br lab",
        "del-port vm1 -- set Port vm2 network=zoo",
        // Each command is valid, but not the whole: two ports have one socket.
        "add-port lab vm3 -- set Interface vm3 type=vhost-user options:path={dir}/vm1.sock",
        "set Interface vm1 type=vhost-user -- set Interface vm1 options:queues=none",
        "fdb/flush -- br-exists lab -- link vm1 sideways",
    ] {
        lab.refused(line);
        assert_eq!((lab.file(), lab.ok("show")), before, "{line}");
    }
    assert_eq!(lab.ctl("del-port vm1 -- br-exists zoo").exit, 2);
    assert_eq!((lab.file(), lab.ok("show")), before);
}

#[test]
fn reload_applies_the_files_difference() {
    let lab = RunningDaemon::start(LAB);
    let file = lab.dir().join("trama.toml");
    std::fs::write(&file, lab.file().replace("tag = 10", "tag = 11")).unwrap();
    assert_eq!(lab.ok("get Port vm1 tag"), "10\n");
    assert_eq!(lab.ok("reload"), "set port vm1: tag\n");
    assert_eq!(lab.ok("get Port vm1 tag"), "11\n");
    assert_eq!(lab.ok("reload"), "");

    std::fs::write(&file, lab.file().replace("tag = 11", "tag = 5000\ncolour = 1")).unwrap();
    let complaint = lab.refused("reload");
    assert_eq!(complaint.lines().count(), 2, "{complaint}");
    assert!(complaint.lines().all(|line| line.contains("trama.toml:1")), "{complaint}");
    assert_eq!(lab.ok("get Port vm1 tag"), "11\n");

    // The next start would fail.
    let sound = lab.file().replace("tag = 5000\ncolour = 1", "tag = 12");
    std::fs::write(&file, sound + "\n[daemon]\ngroup = \"no-such-group\"\n").unwrap();
    let complaint = lab.refused("reload");
    assert!(complaint.contains("there is no group \"no-such-group\""), "{complaint}");
    assert_eq!(lab.ok("get Port vm1 tag"), "11\n");
    lab.refused("--dry-run reload");
    lab.refused("reload -- show");
}

#[test]
fn ports_are_plugged_and_moved() {
    let lab = RunningDaemon::start(LAB);
    lab.ok("link vm1 down");
    assert!(lab.file().contains("cable = false"));
    assert_eq!(lab.ok("get Interface vm1 admin_state -- get Port vm1 cable"), "down\nfalse\n");
    lab.ok("link vm1 up");
    assert_eq!(lab.ok("get Interface vm1 admin_state"), "up\n");
    lab.ok("set Port vm2 network=lab");
    assert_eq!(lab.ok("list-ports lab -- port-to-br vm2"), "vm1\nvm2\nlab\n");
    lab.ok("clear Port vm2 network");
    assert_eq!(lab.ok("list-ports lab"), "vm1\n");
    assert!(lab.refused("port-to-br vm2").contains("not attached"));
}

#[test]
fn ten_thousand_commands_are_one_transaction_and_more_are_refused() {
    let lab = RunningDaemon::start("");
    let mut line = "add-br lab".to_owned();
    for number in 0..2_000 {
        line.push_str(&format!(" -- set Bridge lab external_ids:k={number}"));
    }
    lab.ok(&line);
    assert_eq!(lab.ok("get Bridge lab external_ids:k"), "\"1999\"\n");
    let many = vec!["list-br"; 10_001].join(" -- ");
    assert!(lab.refused(&many).contains("more than 10000 commands"));
}

#[test]
fn the_daemon_says_its_version() {
    let lab = RunningDaemon::start("");
    assert_eq!(lab.ok("version"), format!("tramad (trama) {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_offer_what_can_follow() {
    let lab = RunningDaemon::start(LAB);
    lab.ok("add-port lab s1 -- set Interface s1 type=stream options:path={dir}/s.sock");
    lab.ok(
        "-- --id=@p get Port s1 -- --id=@m create Mirror name=m0 select_all=true output_port=@p \
            -- set Bridge lab mirrors=@m",
    );
    for (words, wanted) in [
        ("set Mirror ''", &["m0"][..]),
        ("set mirror m0 sna", &["snaplen="]),
        ("list sF", &["sFlow"]),
        ("create IPFIX obs_domain", &["obs_domain_id="]),
        ("qemu ''", &["s1", "vm1", "vm2"]),
        ("lima ''", &["s1"]),
        ("libvirt ''", &["vm1", "vm2"]),
        ("del-port lab ''", &["s1", "vm1"]),
        ("add-port lab ''", &[]),
        ("set Port vm1 network=", &["network=lab"]),
        ("set Port vm1 vlan_mode=tr", &["vlan_mode=trunk"]),
        ("set Interface vm1 type=str", &["type=stream"]),
    ] {
        let offered = lab.ok(&format!("complete {words}"));
        let offered: Vec<&str> = offered.lines().filter_map(|it| it.split('\t').next()).collect();
        assert_eq!(offered, wanted, "{words}");
    }
}
