//! The plug-in for CNI, as a runtime runs it: the specification's sequence in each version, with
//! addresses of the daemon and of another plug-in, and runtimes that die.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use trama_tests::nat::{HOST, NEIGHBOUR, NETWORK, host_and_server, listen};
use trama_tests::tramad::binary;
use trama_tests::{Host, Netns, SOON, Tramad, wait_until};

/// Where Debian has the plug-ins of the CNI project (package containernetworking-plugins).
const OTHERS: &str = "/usr/lib/cni";

/// A configuration for the daemon, with these keys besides.
fn config_of(tramad: &Tramad, version: &str, more: Value) -> Value {
    let mut config = json!({
        "cniVersion": version, "name": "pods", "type": "trama", "network": "home",
        "socket": tramad.path("control.sock"), "ipam": {"type": "trama"},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

/// Starts the plug-in for the interface `eth0` of a container.
fn start(command: &str, container: &str, netns: &str, config: &Value) -> Child {
    let mut child = Command::new(binary("trama-cni"))
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", OTHERS)
        .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run trama-cni");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(config.to_string().as_bytes()).expect("its input");
    child
}

/// Runs the plug-in; returns its answer, or its error.
fn try_run(command: &str, container: &str, netns: &str, config: &Value) -> Result<Value, Value> {
    let output = start(command, container, netns, config).wait_with_output().expect("its end");
    let answer = match output.stdout.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&output.stdout).expect("JSON"),
    };
    if output.status.success() { Ok(answer) } else { Err(answer) }
}

#[track_caller]
fn run(command: &str, container: &str, netns: &str, config: &Value) -> Value {
    let answer = try_run(command, container, netns, config);
    answer.unwrap_or_else(|error| panic!("{command} {container}: {error}"))
}

/// The first address of a result, without its prefix length.
fn address(result: &Value) -> String {
    let address = result["ips"][0]["address"].as_str().expect("an address");
    address.split('/').next().expect("an address").to_owned()
}

#[track_caller]
fn assert_nothing_is_left(tramad: &Tramad, spaces: &[&Netns]) {
    assert_eq!(tramad.ctl("list-ports home"), "");
    for space in spaces {
        wait_until("no interface is left", SOON, || {
            (space.run("ip -o link").lines().count() == 1).then_some(())
        });
    }
}

#[test]
fn the_sequence_of_a_runtime_works_in_each_version() {
    let [host, _server] = host_and_server();
    let [a, b] = ["a", "b"].map(Netns::with_ipv6);
    let tramad = Tramad::start_in(&host, NETWORK);
    tramad.wait_for_gateway("home");
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let config = config_of(&tramad, version, json!({}));
        let versions = run("VERSION", "", "", &json!({"cniVersion": version}));
        assert_eq!(versions["supportedVersions"], json!(["0.4.0", "1.0.0", "1.1.0"]));
        if version == "1.1.0" {
            assert_eq!(run("STATUS", "", "", &config), Value::Null);
        }
        let [first, second] = [&a, &b].map(|it| run("ADD", it.name(), &it.path(), &config));
        assert_eq!(first["cniVersion"], version);
        assert_eq!(first["interfaces"][0]["sandbox"], a.path().as_str());
        assert_eq!(first["ips"].as_array().map(Vec::len), Some(2), "{first}");
        assert_eq!(first["dns"]["nameservers"].as_array().map(Vec::len), Some(2), "{first}");
        let routes = a.run("ip route; ip -6 route");
        assert!(routes.contains("default via 10.7.0.1"), "{routes}");
        assert!(routes.contains("default via fd00:7::1"), "{routes}");
        a.wait_for_ping(&address(&second), SOON);
        b.wait_for_ping(NEIGHBOUR[0], SOON);
        let noted =
            tramad.ctl("--bare --columns=external_ids find Port external_ids:cni-network=pods");
        assert!(noted.contains("K8S_POD_NAME=web"), "{noted}");

        let with_result = |result: &Value| {
            let mut it = config.clone();
            it["prevResult"] = result.clone();
            it
        };
        run("CHECK", a.name(), &a.path(), &with_result(&first));
        a.run(&format!("ip addr del {}/24 dev eth0", address(&first)));
        let error = try_run("CHECK", a.name(), &a.path(), &with_result(&first)).unwrap_err();
        assert_eq!(error["code"], 102, "{error}");
        let error = try_run("ADD", b.name(), &b.path(), &config).unwrap_err();
        assert_eq!(error["code"], 101, "an interface of that name is there: {error}");

        // Twice, and without the namespace.
        for netns in [a.path().as_str(), "", "/nonexistent"] {
            assert_eq!(run("DEL", a.name(), netns, &with_result(&first)), Value::Null);
        }
        let error = try_run("CHECK", a.name(), &a.path(), &with_result(&first)).unwrap_err();
        assert_eq!(error["code"], 102, "{error}");
        if version == "1.1.0" {
            let mut valid = config.clone();
            valid["cni.dev/valid-attachments"] =
                json!([{"containerID": b.name(), "ifname": "eth0"}]);
            run("GC", "", "", &valid);
            b.wait_for_ping(NEIGHBOUR[0], SOON);
            valid["cni.dev/valid-attachments"] = json!([]);
            run("GC", "", "", &valid);
        } else {
            run("DEL", b.name(), &b.path(), &config);
        }
        assert_nothing_is_left(&tramad, &[&a, &b]);
    }
    // The list of the page, as a runtime takes it apart.
    let page = include_str!("../../../docs/cni.md");
    let (_, list) = page.split_once("```jsonc\n").expect("a list");
    let (list, _) = list.split_once("```").expect("its end");
    let list: Value = serde_json::from_str(list).expect("JSON");
    let plugin = &list["plugins"][0];
    let mut config = config_of(&tramad, "1.0.0", plugin.clone());
    config["network"] = json!("home");
    run("ADD", "page", &a.path(), &config);
    run("DEL", "page", &a.path(), &config);

    // A namespace that cannot have IPv6 does without, and what it cannot have is given back.
    let old = Netns::new("old");
    let config = config_of(&tramad, "1.0.0", json!({"runtimeConfig": {"aliases": ["old"]}}));
    let result = run("ADD", old.name(), &old.path(), &config);
    assert_eq!(result["ips"].as_array().map(Vec::len), Some(1), "{result}");
    let held = tramad.ctl("--bare --columns=addresses list Port");
    assert_eq!(held.trim(), address(&result));
    run("DEL", old.name(), &old.path(), &config);

    let gone = try_run("ADD", "c", "/nonexistent", &config_of(&tramad, "1.1.0", json!({})));
    assert_eq!(gone.unwrap_err()["code"], 3);
    let lost = config_of(&tramad, "1.1.0", json!({"network": "nosuch"}));
    assert_eq!(try_run("STATUS", "", "", &lost).unwrap_err()["code"], 50);
    let refused = try_run("ADD", "c", &a.path(), &lost).unwrap_err();
    assert!(refused["code"] == 100 && refused["details"].to_string().contains("nosuch"));
    assert_nothing_is_left(&tramad, &[&a, &b]);
    tramad.stop();
}

#[test]
fn published_ports_lead_to_the_container_and_it_sees_its_clients() {
    let [host, server] = host_and_server();
    let a = Netns::with_ipv6("a");
    let tramad = Tramad::start_in(&host, NETWORK);
    tramad.wait_for_gateway("home");
    let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
    let wanted = json!({
        "vlan": null, "runtimeConfig": {
            "portMappings": [mapping], "mac": "52:54:00:00:00:07", "ips": ["10.7.0.77/24"],
            "aliases": ["web"]
        }
    });
    let config = config_of(&tramad, "1.1.0", wanted);
    let result = run("ADD", "c1", &a.path(), &config);
    assert_eq!(address(&result), "10.7.0.77");
    assert_eq!(result["interfaces"][0]["mac"], "52:54:00:00:00:07");
    let listener = listen(&a, "10.7.0.77:80");
    let client = server.inside(|| {
        let address: SocketAddr = format!("{}:8080", HOST[0]).parse().expect("an address");
        let mut stream = std::net::TcpStream::connect(address).expect("the published port");
        stream.read_to_string(&mut String::new()).expect("the answer");
    });
    let (stream, peer) = listener.accept().expect("a client");
    assert_eq!(peer.ip().to_string(), NEIGHBOUR[0], "the client's own address");
    drop(stream);
    client.join().expect("the client");

    // Another container cannot have the same port, and nothing is left of the attempt.
    let b = Netns::new("b");
    let mut other = config.clone();
    other["runtimeConfig"] = json!({"portMappings": [mapping]});
    let error = try_run("ADD", "c2", &b.path(), &other).unwrap_err();
    assert!(error["details"].to_string().contains("8080"), "{error}");
    run("DEL", "c2", &b.path(), &other);
    assert_eq!(tramad.ctl("list-ports home").lines().count(), 1);
    tramad.ctl("add-br plain");
    other["network"] = json!("plain");
    let error = try_run("ADD", "c2", &b.path(), &other).unwrap_err();
    assert_eq!(error["code"], 7, "{error}");
    run("DEL", "c1", &a.path(), &config);
    assert!(!tramad.ctl("forward list").contains("8080"));
    assert_nothing_is_left(&tramad, &[&a, &b]);
    tramad.stop();
}

#[test]
fn a_vm_gets_a_socket_and_another_plugin_chooses_addresses() {
    let [host, _server] = host_and_server();
    let [a, b] = ["a", "b"].map(Netns::new);
    let tramad = Tramad::start_in(&host, NETWORK);
    tramad.wait_for_gateway("home");
    let vm = config_of(&tramad, "1.1.0", json!({"kind": "vhost-user"}));
    let result = run("ADD", "vm", &a.path(), &vm);
    let socket = result["interfaces"][0]["socketPath"].as_str().expect("a socket");
    assert!(Path::new(socket).exists(), "{result}");
    run("CHECK", "vm", &a.path(), &{
        let mut it = vm.clone();
        it["prevResult"] = result.clone();
        it
    });
    run("DEL", "vm", &a.path(), &vm);
    assert!(!Path::new(socket).exists());

    let store = tempfile::tempdir().expect("temporary directory");
    let ipam = json!({
        "type": "host-local", "dataDir": store.path(), "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.7.0.0/24", "gateway": "10.7.0.1", "rangeStart": "10.7.0.50"}]]
    });
    let config = config_of(&tramad, "1.0.0", json!({"ipam": ipam}));
    let reserved = || {
        let names = std::fs::read_dir(store.path().join("pods")).into_iter().flatten().flatten();
        let is_address = |name: &String| name.starts_with("10.");
        names.filter_map(|it| it.file_name().into_string().ok()).filter(is_address).count()
    };
    let [first, second] = [&a, &b].map(|it| run("ADD", it.name(), &it.path(), &config));
    assert_eq!((address(&first), address(&second)), ("10.7.0.50".into(), "10.7.0.51".into()));
    a.wait_for_ping("10.7.0.51", SOON);
    a.wait_for_ping(NEIGHBOUR[0], SOON);
    assert_eq!(reserved(), 2);
    // A container whose interface is there already: its address is given back.
    let error = try_run("ADD", "c3", &b.path(), &config).unwrap_err();
    assert_eq!((error["code"].as_u64(), reserved()), (Some(101), 2), "{error}");
    // One that has its address already: that is not given back.
    let twice = try_run("ADD", a.name(), &a.path(), &config).unwrap_err();
    assert_eq!(reserved(), 2, "{twice}");
    for it in [&a, &b] {
        run("DEL", it.name(), &it.path(), &config);
    }
    assert_eq!(reserved(), 0);
    assert_nothing_is_left(&tramad, &[&a, &b]);
    tramad.stop();
}

#[test]
fn two_hundred_containers_come_and_go() {
    let spaces: Vec<Netns> = (0..25).map(|_| Netns::with_ipv6("c")).collect();
    let tramad = Tramad::start(NETWORK);
    tramad.wait_for_gateway("home");
    let config = config_of(&tramad, "1.1.0", json!({}));
    std::thread::scope(|scope| {
        for space in &spaces {
            let config = &config;
            scope.spawn(move || {
                for round in 0..8 {
                    let container = format!("{}-{round}", space.name());
                    run("ADD", &container, &space.path(), config);
                    run("DEL", &container, &space.path(), config);
                    wait_until("the interface is gone", SOON, || {
                        (space.try_run("ip link show eth0").status != 0).then_some(())
                    });
                }
            });
        }
    });
    assert_nothing_is_left(&tramad, &spaces.iter().collect::<Vec<_>>());
    assert_eq!(tramad.ctl("--no-headings leases home"), "");
    tramad.stop();
}

#[test]
fn what_a_killed_runtime_leaves_is_collected() {
    let space = Netns::new("c");
    let tramad = Tramad::start(NETWORK);
    tramad.wait_for_gateway("home");
    let mut config = config_of(&tramad, "1.1.0", json!({}));
    // Under both names, as runtimes do, and null if there is none.
    config["cni.dev/valid-attachments"] = json!(null);
    config["cni.dev/attachments"] = json!(null);
    for round in 0..30 {
        let mut child = start("ADD", &format!("c{round}"), &space.path(), &config);
        // From before its first step to beyond its last one.
        std::thread::sleep(std::time::Duration::from_millis(round));
        let _ = child.kill();
        child.wait().expect("its end");
        run("GC", "", "", &config);
        wait_until("nothing is left", SOON, || {
            // A request that was on its way may be carried out after the first look.
            run("GC", "", "", &config);
            let has_port = !tramad.ctl("list-ports home").is_empty();
            let has_link = space.try_run("ip link show eth0").status == 0;
            (!has_port && !has_link).then_some(())
        });
    }
    tramad.stop();
}
