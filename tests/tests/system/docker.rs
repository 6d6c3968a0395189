//! The network driver for Docker, driven by dockerd itself where it is installed, and by requests
//! that dockerd has made, in `docker_requests.txt`, everywhere.

use std::io::Read;
use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};
use trama_structure::commands::{Way, blocks};
use trama_structure::tree;
use trama_tests::docker::{Docker, Plugin};
use trama_tests::nat::{HOST, NEIGHBOUR, NETWORK, host_and_server, listen};
use trama_tests::tramad::binary;
use trama_tests::{Host, Netns, SOON, Tramad, wait_until};

/// What dockerd has posted, in its order.
const RECORDED: &str = include_str!("docker_requests.txt");

/// Returns the recorded requests of a kind, with their bodies.
fn recorded(kind: &str) -> Vec<Value> {
    let lines = RECORDED.lines().filter_map(|line| line.split_once(' '));
    let bodies = lines.filter(|(path, _)| *path == format!("NetworkDriver.{kind}"));
    bodies.map(|(_, body)| serde_json::from_str(body).expect("JSON")).collect()
}

/// Posts a request, which must succeed.
#[track_caller]
fn post(plugin: &Plugin, kind: &str, body: &Value) -> Value {
    let (status, answer) =
        plugin.post(&format!("NetworkDriver.{kind}"), body.to_string().as_bytes());
    assert!(status == 200 && answer.get("Err").is_none(), "{kind}: {status} {answer}");
    answer
}

/// Posts one that must fail; returns why it does.
#[track_caller]
fn refused(plugin: &Plugin, kind: &str, body: &Value) -> String {
    let (status, answer) =
        plugin.post(&format!("NetworkDriver.{kind}"), body.to_string().as_bytes());
    assert_eq!(status, 200, "{kind}: {answer}");
    answer["Err"].as_str().unwrap_or_else(|| panic!("{kind}: {answer}")).to_owned()
}

/// Does with an interface what libnetwork does after Join.
fn move_in(host: &Netns, sandbox: &Netns, joined: &Value, created: &Value) {
    let name = joined["InterfaceName"]["SrcName"].as_str().expect("a name");
    assert!(host.run(&format!("ip -o link show {name}")).contains("state DOWN"), "it is not up");
    host.run(&format!("ip link set {name} netns {}", sandbox.name()));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let [v4, v6] = ["Address", "AddressIPv6"].map(|key| text(&created["Interface"][key]));
    sandbox.run(&format!(
        "ip link set {name} down && ip link set {name} name eth0 && ip addr add {v4} dev eth0 && \
         ip addr add {v6} dev eth0 nodad && ip link set eth0 up"
    ));
    for gateway in ["Gateway", "GatewayIPv6"].map(|key| text(&joined[key])) {
        // Not `add`: an advertisement of the gateway's may have made the one of IPv6.
        sandbox.run(&format!("ip route replace default via {gateway} dev eth0"));
    }
}

/// Does with it what libnetwork does before Leave.
fn move_out(host: &Netns, sandbox: &Netns, joined: &Value) {
    let name = joined["InterfaceName"]["SrcName"].as_str().expect("a name");
    sandbox.run(&format!(
        "ip link set eth0 down && ip link set eth0 name {name} && ip link set {name} netns {}",
        host.name()
    ));
}

#[test]
fn what_dockerd_asks_makes_two_containers_that_meet() {
    let [host, server] = host_and_server();
    let sandboxes = ["web", "other"].map(Netns::with_ipv6);
    let mut tramad = Tramad::start_in(&host, NETWORK);
    tramad.wait_for_gateway("home");
    let mut plugin = Plugin::start(&host, &tramad);
    assert_eq!(
        plugin.post("Plugin.Activate", b""),
        (200, json!({"Implements": ["NetworkDriver"]}))
    );
    let scopes = json!({"Scope": "local", "ConnectivityScope": "local"});
    assert_eq!(plugin.post("NetworkDriver.GetCapabilities", b""), (200, scopes));

    let network = &recorded("CreateNetwork")[0];
    post(&plugin, "CreateNetwork", network);
    post(&plugin, "CreateNetwork", network);
    let (created, joins) = (recorded("CreateEndpoint"), recorded("Join"));
    let mut joined = Vec::new();
    for (index, sandbox) in sandboxes.iter().enumerate() {
        // An answer that was lost is asked for again, perhaps of another process.
        let answer = post(&plugin, "CreateEndpoint", &created[index]);
        let mac = format!("02:42:0a:07:00:{:02x}", index + 2);
        assert_eq!(answer, json!({"Interface": {"MacAddress": mac}}));
        plugin.restart();
        assert_eq!(post(&plugin, "CreateEndpoint", &created[index]), answer);
        let join = post(&plugin, "Join", &joins[index]);
        assert_eq!(
            (&join["Gateway"], &join["GatewayIPv6"]),
            (&json!("10.7.0.1"), &json!("fd00:7::1"))
        );
        move_in(&host, sandbox, &join, &created[index]);
        post(
            &plugin,
            "ProgramExternalConnectivity",
            &recorded("ProgramExternalConnectivity")[index],
        );
        assert_eq!(post(&plugin, "EndpointOperInfo", &joins[index]), json!({"Value": {}}));
        joined.push(join);
    }
    let [web, other] = &sandboxes;
    for address in ["10.7.0.1", "fd00:7::1", "10.7.0.3", "fd00:7::3", NEIGHBOUR[0]] {
        web.wait_for_ping(address, SOON);
    }
    assert_eq!(other.run("dig +short web @10.7.0.1").trim(), "10.7.0.2");

    // A client of the published port is seen by its own address.
    let listener = listen(web, "10.7.0.2:80");
    let client = server.inside(|| {
        let address: SocketAddr = format!("{}:8080", HOST[0]).parse().expect("an address");
        let mut stream = std::net::TcpStream::connect(address).expect("the published port");
        stream.read_to_string(&mut String::new()).expect("the answer");
    });
    let (stream, peer) = listener.accept().expect("a client");
    assert_eq!(peer.ip().to_string(), NEIGHBOUR[0]);
    drop(stream);
    client.join().expect("the client");

    // The switch may crash, and dockerd goes on.
    tramad.kill_and_follow();
    other.wait_for_ping("10.7.0.2", SOON);
    for (revoke, leave) in recorded("RevokeExternalConnectivity").iter().zip(recorded("Leave")) {
        post(&plugin, "RevokeExternalConnectivity", revoke);
        post(&plugin, "Leave", &leave);
    }
    assert!(!tramad.ctl("forward list").contains("8080"));
    for (index, delete) in recorded("DeleteEndpoint").iter().enumerate() {
        move_out(&host, &sandboxes[index], &joined[index]);
        post(&plugin, "DeleteEndpoint", delete);
        post(&plugin, "DeleteEndpoint", delete);
    }
    assert_eq!(tramad.ctl("list-ports home"), "");
    for netns in [&host, web, other] {
        wait_until("no interface is left", SOON, || {
            (!netns.run("ip -o link").contains("trm")).then_some(())
        });
    }
    for _ in 0..2 {
        post(&plugin, "DeleteNetwork", &recorded("DeleteNetwork")[0]);
    }
    assert_eq!(tramad.ctl("get Bridge home external_ids"), "{}\n", "it was there before");
    assert!(plugin.end() && !plugin.socket().exists());
    tramad.start_again();
    tramad.stop();
}

#[test]
fn a_network_is_made_for_docker_or_is_as_it_is() {
    let host = Netns::new("host");
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}[[network]]\nname = \"plain\"\n"));
    let plugin = Plugin::start(&host, &tramad);
    let id = |digit: &str| digit.repeat(64);
    let network = |digit: &str, options: Value, pool: &str, gateway: &str| {
        json!({
            "NetworkID": id(digit), "Options": {"com.docker.network.generic": options},
            "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": pool, "Gateway": gateway}],
            "IPv6Data": null
        })
    };
    let wrong = |options: Value, pool: &str, gateway: &str, part: &str| {
        let said = refused(&plugin, "CreateNetwork", &network("a", options, pool, gateway));
        assert!(said.contains(part), "{said}");
    };
    let (pool, gateway) = ("10.9.0.0/24", "10.9.0.1/24");
    wrong(
        json!({"network": "home"}),
        pool,
        gateway,
        "has 10.7.0.0/24 and fd00:7::/64, and not 10.9",
    );
    wrong(json!({"mtu": "9000"}), pool, gateway, "no option mtu");
    wrong(json!({"vlan": "4095"}), pool, gateway, "one of 1 to 4094");
    wrong(json!({"vlan": 7}), pool, gateway, "invalid type");
    wrong(json!({}), pool, "10.9.0.2/24", "use --gateway 10.9.0.1");
    wrong(json!({"network": "not a name"}), pool, gateway, "not a name");
    assert_eq!(tramad.ctl("list-br"), "home\nplain\n", "nothing is left");

    // Two of Docker's networks on one of trama, which goes with the second.
    let made = format!("docker-{}", "a".repeat(12));
    let options = json!({"network": made, "vlan": "7"});
    post(&plugin, "CreateNetwork", &network("a", json!(null), pool, gateway));
    post(&plugin, "CreateNetwork", &network("b", options, pool, gateway));
    assert_eq!(tramad.ctl(&format!("get Bridge {made} mode")), "nat-network\n");
    post(&plugin, "DeleteNetwork", &json!({"NetworkID": id("a")}));
    assert!(tramad.ctl("list-br").contains(&made));
    // Nor does it go while it has other guests.
    tramad.ctl(&format!("add-port {made} vm"));
    post(&plugin, "DeleteNetwork", &json!({"NetworkID": id("b")}));
    assert_eq!(tramad.ctl(&format!("list-ports {made}")), "vm\n");
    assert_eq!(tramad.ctl(&format!("get Bridge {made} external_ids")), "{docker=made}\n");

    // On a network without subnets, a router among the guests is the gateway.
    let options = json!({"network": "plain", "vlan": "10"});
    post(&plugin, "CreateNetwork", &network("c", options, "192.0.2.0/24", "192.0.2.254/24"));
    let endpoint = |digit: &str, address: &str| {
        json!({
            "NetworkID": id("c"), "EndpointID": id(digit),
            "Interface": {"Address": address, "AddressIPv6": "", "MacAddress": "02:00:00:00:00:01"},
            "Options": null
        })
    };
    assert_eq!(post(&plugin, "CreateEndpoint", &endpoint("1", "192.0.2.7/24")), json!({}));
    let join = post(&plugin, "Join", &endpoint("1", ""));
    assert_eq!(join["Gateway"], "192.0.2.254");
    assert_eq!(tramad.ctl(&format!("get Port docker-{} tag", "1".repeat(16))), "10\n");
    let said =
        refused(&plugin, "CreateEndpoint", &json!({"NetworkID": id("d"), "EndpointID": id("1")}));
    assert!(said.contains("docker network rm"), "{said}");
    tramad.stop();
}

#[test]
fn an_address_that_docker_gives_again_is_free() {
    let host = Netns::new("host");
    let tramad = Tramad::start_in(&host, NETWORK);
    let plugin = Plugin::start(&host, &tramad);
    post(&plugin, "CreateNetwork", &recorded("CreateNetwork")[0]);
    let [first, mut again] = [0, 0].map(|index| recorded("CreateEndpoint")[index].clone());
    post(&plugin, "CreateEndpoint", &first);
    // Its end was not heard of.
    again["EndpointID"] = json!("5".repeat(64));
    post(&plugin, "CreateEndpoint", &again);
    assert_eq!(tramad.ctl("list-ports home"), format!("docker-{}\n", "5".repeat(16)));
    // A virtual machine's address is not Docker's to give.
    tramad.ctl("add-port home vm addresses=10.7.0.9 -- set Interface vm type=vhost-user");
    again["Interface"]["Address"] = json!("10.7.0.9/24");
    let said = refused(&plugin, "CreateEndpoint", &again);
    assert!(said.contains("10.7.0.9") && said.contains("vm"), "{said}");
    assert!(tramad.ctl("list-ports home").contains("vm"));
    tramad.stop();
}

#[test]
fn bad_requests_are_refused_and_many_are_served_at_once() {
    let host = Netns::new("host");
    let tramad = Tramad::start_in(&host, NETWORK);
    let plugin = Plugin::start(&host, &tramad);
    for (path, body, status, part) in [
        ("NetworkDriver.Dance", b"{}".to_vec(), 404, "no /NetworkDriver.Dance"),
        ("VolumeDriver.Create", b"{}".to_vec(), 404, "no /VolumeDriver.Create"),
        ("NetworkDriver.CreateNetwork", b"{\"NetworkID\":".to_vec(), 400, "body: EOF"),
        ("NetworkDriver.CreateEndpoint", b"[]".to_vec(), 400, "body: "),
        ("NetworkDriver.Join", vec![0xff; 64], 400, "body: "),
        ("NetworkDriver.Join", vec![b' '; 5 << 20], 413, "length limit"),
        (
            "NetworkDriver.DeleteEndpoint",
            br#"{"NetworkID":"","EndpointID":"../x"}"#.to_vec(),
            200,
            "no ID",
        ),
    ] {
        let (got, answer) = plugin.post(path, &body);
        assert!(
            got == status && answer["Err"].as_str().is_some_and(|it| it.contains(part)),
            "{answer}"
        );
    }
    post(&plugin, "CreateNetwork", &recorded("CreateNetwork")[0]);
    std::thread::scope(|scope| {
        for number in 10..40 {
            let plugin = &plugin;
            scope.spawn(move || {
                let mut endpoint = recorded("CreateEndpoint")[1].clone();
                endpoint["EndpointID"] = json!(format!("{number}").repeat(32));
                endpoint["Interface"]["Address"] = json!(format!("10.7.0.{number}/24"));
                endpoint["Interface"]["AddressIPv6"] = json!("");
                post(plugin, "CreateEndpoint", &endpoint);
                post(plugin, "Join", &endpoint);
            });
        }
    });
    assert_eq!(tramad.ctl("list-ports home").lines().count(), 30);
    tramad.stop();
    let said = refused(&plugin, "Join", &recorded("Join")[0]);
    assert!(said.contains("is tramad running?"), "{said}");
}

/// Says why a test with dockerd itself does nothing.
fn skip() {
    println!("skipped: there is no dockerd; install docker.io, or docker-ce and docker-ce-cli");
}

#[test]
fn dockerd_runs_containers_on_a_network() {
    let [host, server] = host_and_server();
    let mut tramad = Tramad::start_in(&host, NETWORK);
    tramad.wait_for_gateway("home");
    let mut plugin = Plugin::start(&host, &tramad);
    let Some(docker) = Docker::start(&host, &plugin) else { return skip() };
    docker.run(
        "network create -d trama -o network=home --ipv6 --subnet 10.7.0.0/24 \
         --subnet fd00:7::/64 pods",
    );
    let web = "busybox httpd -f -v -p 80 -h /www";
    docker.run(&format!(
        "run -d --name web --network name=pods,driver-opt=names=web -p 8080:80 box {web}"
    ));
    let other = "run -d --name other --network pods --dns 10.7.0.1 box busybox sleep 1000";
    docker.run(other);
    let inside = |command: &str| docker.run(&format!("exec other busybox {command}"));
    for address in ["10.7.0.1", "fd00:7::1", "10.7.0.2", "fd00:7::2", NEIGHBOUR[0], "web"] {
        wait_until(&format!("a ping of {address}"), SOON, || {
            let answer = docker.try_run(&format!("exec other busybox ping -c 1 -w 2 {address}"));
            (answer.status == 0).then_some(())
        });
    }
    assert!(inside("nslookup web 10.7.0.1").contains("10.7.0.2"), "by the network's own DNS");
    // Docker's resolver asks the gateway for what it does not know.
    tramad.ctl("add-port home vm addresses=10.7.0.9 names=vm -- set Interface vm type=vhost-user");
    tramad.wait_for_gateway("home");
    assert!(inside("nslookup vm").contains("10.7.0.9"));
    server.run(&format!("curl -sS --max-time 30 http://{}:8080/ | grep -q hello", HOST[0]));
    assert!(docker.run("logs web").contains(NEIGHBOUR[0]), "the client's own address");

    let taken = docker.try_run(&format!("run --rm --network pods -p 8080:80 box {web}"));
    assert!(
        taken.status != 0 && taken.text.contains("port 8080 of the host is taken"),
        "{}",
        taken.text
    );
    let chosen = docker.try_run(&format!("run --rm --network pods -p 80 box {web}"));
    assert!(chosen.text.contains("use -p HOSTPORT:80/tcp"), "{}", chosen.text);

    plugin.restart();
    tramad.kill_and_follow();
    inside("ping -c 1 -w 60 10.7.0.2");
    docker.run("restart -t 0 web");
    docker.run("network disconnect pods other");
    docker.run("network connect pods other");
    inside("ping -c 1 -w 60 web");
    assert_eq!(tramad.ctl("list-ports home").lines().count(), 3);

    docker.run("rm -f web other");
    docker.run("network rm pods");
    assert_eq!(tramad.ctl("list-ports home"), "vm\n");
    assert_eq!(tramad.ctl("get Bridge home external_ids"), "{}\n");
    assert!(!host.run("ip -o link").contains("trm"));
    drop(docker);
    tramad.start_again();
    tramad.end_process(Signal::TERM);
}

#[test]
fn the_commands_of_the_page_succeed() {
    let host = Netns::new("host");
    let tramad = Tramad::start_in(&host, "");
    let plugin = Plugin::start(&host, &tramad);
    let Some(docker) = Docker::start(&host, &plugin) else { return skip() };
    docker.run("tag box busybox");
    docker.shell(
        "docker export $(docker create box true) | docker import -c 'CMD [\"/bin/busybox\", \
                  \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]' - nginx",
    );
    let page = std::fs::read_to_string(tree::root().join("docs/docker.md")).expect("the page");
    let blocks = blocks("docs/docker.md", &page);
    let ways = [Some(Way::Run("docker")), Some(Way::Run("continued"))];
    let commands: Vec<String> = blocks
        .iter()
        .filter(|block| ways.contains(&block.way()))
        .flat_map(|block| block.commands())
        .map(|command| command.text)
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let text = command.replace("tramactl", &binary("tramactl").display().to_string());
        // A server that has just started may not listen yet.
        let again = text.starts_with("curl");
        wait_until(&command, SOON, || {
            let answer = docker.try_shell(&text);
            assert!(answer.status == 0 || again, "{command}: {}", answer.text);
            (answer.status == 0).then_some(())
        });
    }
    assert_eq!(tramad.ctl("list-br"), "", "nothing is left");
    drop(docker);
    tramad.stop();
}
