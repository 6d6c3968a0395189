//! The network driver for podman, as netavark runs it.
//!
//! What netavark sends is played here, in the form in which netavark 2.1.0 sends it. With
//! `TRAMA_NETAVARK=/path/to/netavark` in the environment, that program runs the driver instead
//! (`cargo install netavark` makes one in ten minutes), with the same input that podman gives it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use trama_tests::nat::{HOST, NEIGHBOUR, NETWORK, host_and_server, listen};
use trama_tests::tramad::binary;
use trama_tests::{Guest, Host, Netns, Nic, Process, SOON, Tramad, wait_until};

use crate::access::Home;

/// How netavark is run, or played.
struct Engine<'a> {
    /// Returns a command that runs a program with the rights of podman.
    command: &'a dyn Fn(&str) -> Command,
    /// The driver's program.
    driver: String,
    /// The folder in which netavark finds it, and that of netavark's own state.
    folder: TempDir,
}

/// A container on one network.
struct Container<'a> {
    id: &'a str,
    name: &'a str,
    address: &'a str,
    /// Of `port_mappings`.
    published: Value,
}

impl<'a> Engine<'a> {
    fn new(command: &'a dyn Fn(&str) -> Command, driver: String) -> Engine<'a> {
        let folder = trama_tests::libvirt::open_folder();
        symlink(&driver, folder.path().join("trama")).expect("a link");
        Engine { command, driver, folder }
    }

    /// Runs a program with this input; returns its answer, or its error.
    fn run(&self, program: &str, arguments: &[&str], input: &Value) -> Result<Value, String> {
        let mut child = (self.command)(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run it");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.to_string().as_bytes()).expect("its input");
        drop(stdin);
        let output = child.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(serde_json::from_str(&text).unwrap_or(Value::Null)),
            false => Err(text),
        }
    }

    /// What `podman network create` does.
    #[track_caller]
    fn try_create(&self, more: Value) -> Result<Value, String> {
        let mut network = json!({
            "name": "pods", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
            "driver": "trama", "created": "2026-12-01T00:00:00Z", "internal": false,
            "ipv6_enabled": false, "dns_enabled": true, "options": {"network": "home"}
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            network[key] = value.clone();
        }
        self.run(&self.driver, &["create"], &network)
    }

    /// Lets a container join or leave; returns its status block.
    fn step(
        &self,
        step: &str,
        network: &Value,
        of: &Container,
        netns: &str,
    ) -> Result<Value, String> {
        let options = json!({
            "interface_name": "eth0", "static_ips": [of.address], "aliases": [of.id],
            "static_mac": null
        });
        let Ok(netavark) = std::env::var("TRAMA_NETAVARK") else {
            let exec = json!({
                "container_id": of.id, "container_name": of.name, "network": network,
                "port_mappings": of.published, "network_options": options
            });
            return self.run(&self.driver, &[step, netns], &exec);
        };
        let input = json!({
            "container_id": of.id, "container_name": of.name, "port_mappings": of.published,
            "networks": {"pods": options}, "network_info": {"pods": network}
        });
        let folder = self.folder.path().to_str().expect("a path in UTF-8");
        let arguments = [
            "--plugin-directory",
            folder,
            "--config",
            folder,
            "--firewall-driver",
            "none",
            step,
            netns,
        ];
        self.run(&netavark, &arguments, &input).map(|answer| answer["pods"].clone())
    }
}

#[test]
fn containers_and_a_vm_share_a_network_with_names_and_published_ports() {
    let [host, server] = host_and_server();
    let [a, b] = ["a", "b"].map(Netns::with_ipv6);
    let mut tramad = Tramad::start_in(&host, NETWORK);
    tramad.wait_for_gateway("home");
    let socket = tramad.path("control.sock");
    let command = |program: &str| {
        let mut command = Command::new(program);
        command.env("TRAMA_SOCKET", &socket);
        command
    };
    let engine = Engine::new(&command, binary("trama-netavark").display().to_string());
    let network = engine.try_create(json!({})).expect("a network");
    assert_eq!(network["subnets"][0], json!({"subnet": "10.7.0.0/24", "gateway": "10.7.0.1"}));
    assert_eq!((&network["dns_enabled"], &network["ipv6_enabled"]), (&json!(false), &json!(true)));
    assert_eq!(network["ipam_options"], json!({"driver": "host-local"}));

    let mapping = json!({
        "container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 2
    });
    let web =
        Container { id: "c1", name: "web", address: "10.7.0.51", published: json!([mapping]) };
    let other = Container { id: "c2", name: "db", address: "10.7.0.52", published: Value::Null };
    let status = engine.step("setup", &network, &web, &a.path()).expect("a container");
    let interface = &status["interfaces"]["eth0"];
    let address = json!([{"ipnet": "10.7.0.51/24", "gateway": "10.7.0.1"}]);
    assert_eq!(interface["subnets"], address, "{status}");
    assert_eq!(interface["mac_address"].as_str().map(str::len), Some(17));
    assert_eq!(status["dns_server_ips"], json!(["10.7.0.1"]));
    engine.step("setup", &network, &other, &b.path()).expect("another");
    a.wait_for_ping("10.7.0.52", SOON);
    a.wait_for_ping(NEIGHBOUR[0], SOON);

    // Names are answered to containers and guests alike.
    let nic = Nic::connecting(tramad.path("vm.sock"), "52:54:00:00:00:01");
    tramad.ctl(&format!(
        "add-port home vm -- set Interface vm type=vhost-user options:path={}",
        tramad.path("vm.sock").display()
    ));
    let guest = Guest::boot("guest", nic);
    guest.address("10.7.0.20/24");
    guest.wait_for_ping("10.7.0.51", SOON);
    for (name, answer) in [("web", "10.7.0.51"), ("c1", "10.7.0.51"), ("db", "10.7.0.52")] {
        let said = b.run(&format!("dig +short {name} @10.7.0.1"));
        assert_eq!(said.trim(), answer, "{name}");
    }

    let listener = listen(&a, "10.7.0.51:81");
    let client = server.inside(|| {
        let address: SocketAddr = format!("{}:8081", HOST[0]).parse().expect("an address");
        let mut stream = std::net::TcpStream::connect(address).expect("the published port");
        stream.read_to_string(&mut String::new()).expect("the answer");
    });
    let (stream, peer) = listener.accept().expect("a client");
    assert_eq!(peer.ip().to_string(), NEIGHBOUR[0], "the client's own address");
    drop(stream);
    client.join().expect("the client");

    for (container, netns) in [(&web, a.path()), (&other, b.path()), (&web, "/nonexistent".into())]
    {
        if netns != "/nonexistent" || std::env::var("TRAMA_NETAVARK").is_err() {
            engine.step("teardown", &network, container, &netns).expect("no error");
        }
    }
    assert_eq!(tramad.ctl("list-ports home"), "vm\n");
    assert!(!tramad.ctl("forward list").contains("8080"));
    for space in [&a, &b] {
        wait_until("no interface is left", SOON, || {
            (space.run("ip -o link").lines().count() == 1).then_some(())
        });
    }
    assert!(tramad.is_running());
    tramad.stop();
}

#[test]
fn a_network_is_made_or_is_as_it_is() {
    let host = Netns::new("host");
    let tramad = Tramad::start_in(&host, NETWORK);
    let socket = tramad.path("control.sock");
    let command = |program: &str| {
        let mut command = Command::new(program);
        command.env("TRAMA_SOCKET", &socket);
        command
    };
    let engine = Engine::new(&command, binary("trama-netavark").display().to_string());
    let other = json!({"subnets": [{"subnet": "10.9.0.0/24"}]});
    let refused = engine.try_create(other.clone()).unwrap_err();
    assert!(refused.contains("has 10.7.0.0/24 and fd00:7::/64, and not 10.9.0.0/24"), "{refused}");
    let refused = engine.try_create(json!({"options": {"mtu": "9000"}})).unwrap_err();
    assert!(refused.contains("no option mtu"), "{refused}");
    let refused = engine.try_create(json!({"options": {"network": "new"}})).unwrap_err();
    assert!(refused.contains("--subnet"), "{refused}");

    let mut new = other;
    new["options"] = json!({"network": "new", "vlan": "7"});
    let made = engine.try_create(new).expect("a new network");
    assert_eq!(made["subnets"][0]["gateway"], "10.9.0.1");
    assert_eq!(made["created"], "2026-12-01T00:00:00Z", "what is podman's stays");
    assert_eq!(tramad.ctl("get Bridge new mode"), "nat-network\n");
    assert!(tramad.ctl("get Bridge new subnet").contains("\"10.9.0.0/24\""));
    assert_eq!(tramad.ctl("get Bridge new external_ids:podman"), "pods\n");
    tramad.stop();
}

/// Starts a process with these words before it, as the user; also returns its number.
fn sleeper(home: &Home, host: &Netns, words: &[&str]) -> (Process, String) {
    let mut command = home.command(host, words[0]);
    command.args(&words[1..]).args(["sh", "-c", "echo $$ sleeps && exec sleep 1000"]);
    let log = format!("{}/sleeper-{}", host.scratch(), trama_tests::process::unique());
    let mut process = Process::spawn("a process", command, log.as_ref());
    process.wait_for_log("sleeps", SOON);
    let number = process.log().split_whitespace().next().expect("its number").to_owned();
    (process, number)
}

#[test]
fn a_user_without_privileges_attaches_containers() {
    let [host, _server] = host_and_server();
    let home = Home::new();
    let mut tramad = home.tramad(&host);
    let answer =
        home.ctl(&host, "add-br home -- set Bridge home mode=nat-network subnet=10.7.0.0/24");
    assert_eq!(answer.status, 0, "{}", answer.text);
    // The namespaces that podman makes for a user, and in them a container.
    let (_podman, podman) =
        sleeper(&home, &host, &["/usr/bin/unshare", "--user", "--map-root-user", "--net"]);
    let within = ["/usr/bin/nsenter", "--preserve-credentials", "--user", "--net", "--target"];
    let (_container, container) =
        sleeper(&home, &host, &[&within[..], &[&podman, "unshare", "--net"]].concat());
    let enter = |program: &str| {
        let mut command = home.command(&host, within[0]);
        command.args(&within[1..]).args([&podman, program]);
        command
    };
    let driver = home.dir.path().join("trama-netavark").display().to_string();
    let engine = Engine::new(&enter, driver);
    let network = engine.try_create(json!({})).expect("a network");
    let web = Container { id: "c1", name: "web", address: "10.7.0.51", published: Value::Null };
    let netns = format!("/proc/{container}/ns/net");
    let status = engine.step("setup", &network, &web, &netns).expect("a container");
    assert_eq!(status["interfaces"]["eth0"]["subnets"][0]["ipnet"], "10.7.0.51/24");
    host.run(&format!("nsenter --net={netns} ping -c 1 -W 10 {}", NEIGHBOUR[0]));
    engine.step("teardown", &network, &web, &netns).expect("no error");
    assert_eq!(home.ctl(&host, "list-ports home").text, "");
    tramad.end(rustix::process::Signal::TERM, SOON);
}
