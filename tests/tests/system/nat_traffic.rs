//! The NAT modes with real traffic: reachability, and common programs of a guest's user.
//!
//! The host is a namespace that tramad runs in. Between it and a server is a router, by a link with
//! a smaller MTU. Namespaces on TAPs take the place of guests.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use trama_tests::nat::{
    GATEWAY, HOST, NEIGHBOUR, NETWORK, SOON, VM1, VM2, at, guest_port, host_and_server, join,
    namespace, route, set_up, tap_port,
};
use trama_tests::{Host, Netns, Pinging, Tramad, assert_reaches, wait_until};

const SERVER: [&str; 2] = ["198.51.100.2", "fd00:51::2"];

/// Returns host, router and server in a row; the last link has an MTU of 1300.
fn set_up_world() -> [Netns; 3] {
    let [host, router, server] = ["host", "router", "server"].map(namespace);
    join(&host, "eth0", &router, "in");
    router.run(&format!("ip link add out type veth peer eth0 netns {}", server.name()));
    router.run("echo 1 | tee /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding");
    set_up(&router, "out", ["198.51.100.1", "fd00:51::1"]);
    set_up(&server, "eth0", SERVER);
    router.run("ip link set out mtu 1300");
    server.run("ip link set eth0 mtu 1300");
    host.run("ip route add default via 203.0.113.2; ip -6 route add default via fd00:13::2");
    server.run("ip route add default via 198.51.100.1; ip -6 route add default via fd00:51::1");
    SERVER.iter().for_each(|address| host.wait_for_ping(address, SOON));
    [host, router, server]
}

/// Returns an address in the form that URLs need.
fn in_url(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// Serves a folder by HTTP; the request log is `httpd.log` in its scratch directory.
fn serve(host: &Netns, port: u16, folder: &Path) {
    let (folder, log) = (folder.display(), host.scratch());
    host.run(&format!(
        "busybox httpd -f -v -p '[::]:{port}' -h {folder} >{log}/httpd.log 2>&1 </dev/null &"
    ));
    let listening = format!("grep -qs ':{port:04X} 0*:0000 0A' /proc/net/tcp6");
    wait_until("the server listens", SOON, || (host.try_run(&listening).status == 0).then_some(()));
}

fn fetch(from: &Netns, address: &str, port: u16, file: &str) -> (i32, String) {
    let url = format!("http://{}:{port}/{file}", in_url(address));
    let answer = from.try_run_for(&format!("curl -s -S --max-time 60 {url}"), 2 * SOON);
    (answer.status, answer.text)
}

/// Returns a folder with a page of this text.
fn page(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary directory");
    fs::write(folder.path().join("page"), text).expect("page");
    folder
}

fn state(host: &Netns) -> String {
    host.run(
        "ip -o addr | sed 's/valid_lft.*//'; ip -o link; ip route show table all; \
         ip -6 route show table all; ip rule; ip -6 rule; nft list ruleset; tc qdisc show",
    )
}

#[test]
fn a_nat_network_reaches_out_and_is_reached_by_forwards_alone() {
    let [host, router, server] = set_up_world();
    let [vm1, vm2] = ["vm1", "vm2"].map(namespace);
    let before = state(&host);
    let forwards =
        "forward = [\"web,tcp,,8080,10.7.0.11,80\", \"near,tcp,127.0.0.1,8081,10.7.0.12,80\"]\n";
    let ports = [guest_port(&vm1, "vm1", &VM1), guest_port(&vm2, "vm2", &VM2)].concat();
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{forwards}{ports}"));
    let (of_server, of_host, of_vm1, of_vm2) =
        (page("server"), page("host"), page("vm1"), page("vm2"));
    route(&vm1, &GATEWAY);
    route(&vm2, &GATEWAY);
    serve(&server, 80, of_server.path());
    serve(&host, 80, of_host.path());
    serve(&vm1, 80, of_vm1.path());
    serve(&vm2, 80, of_vm2.path());

    // From guest to guest, to the host, and to the server.
    assert_reaches(&vm1, VM2, true);
    assert_reaches(&vm2, VM1, true);
    assert_reaches(&vm1, HOST, true);
    assert_reaches(&vm2, SERVER, true);
    for (address, text) in [(SERVER, "server"), (HOST, "host"), (VM2, "vm2")] {
        for address in address {
            assert_eq!(fetch(&vm1, address, 80, "page"), (0, text.into()), "{address}");
        }
    }
    // The host's loopback addresses are unreachable under any name.
    for address in GATEWAY {
        assert_ne!(fetch(&vm1, address, 80, "page").0, 0, "{address}");
    }
    // Machines are reachable only by forwards, even if others have a route to them.
    router.run(
        "ip route add 10.7.0.0/24 via 203.0.113.1; ip -6 route add fd00:7::/64 via fd00:13::1",
    );
    assert_reaches(&server, VM1, false);
    assert_reaches(&host, VM1, false);
    assert_eq!(fetch(&server, HOST[0], 8080, "page"), (0, "vm1".into()));
    assert_eq!(fetch(&host, "127.0.0.1", 8081, "page"), (0, "vm2".into()));
    assert_ne!(fetch(&server, HOST[0], 8081, "page").0, 0, "that is for the host alone");
    let log = fs::read_to_string(Path::new(vm1.scratch()).join("httpd.log")).expect("log");
    assert!(log.contains(SERVER[0]), "the machine sees the client:\n{log}");

    // Changed live, and refused where impossible.
    tramad.ctl("forward add home more,tcp,,8090,10.7.0.12,80");
    tramad.wait_for_gateway("home");
    assert_eq!(fetch(&server, HOST[0], 8090, "page"), (0, "vm2".into()));
    let taken = tramad.try_ctl(&["forward", "add", "home", "taken,tcp,,80,10.7.0.12,80"]);
    assert_eq!(taken.status, 65, "{}", taken.text);
    assert!(taken.text.contains("forward taken does not listen: "), "{}", taken.text);
    let listed = tramad.ctl("forward list home");
    assert!(listed.lines().any(|l| l.contains("taken") && l.contains("pending")), "{listed}");
    tramad.ctl("forward del home more");
    tramad.wait_for_gateway("home");
    assert_ne!(fetch(&server, HOST[0], 8090, "page").0, 0);

    tramad.stop();
    let after = state(&host);
    assert_eq!(after, before, "the host is as before");
}

#[test]
fn machines_of_mode_nat_are_alone_and_alike() {
    let [host, _router, server] = set_up_world();
    let [vm1, vm2] = ["vm1", "vm2"].map(namespace);
    let text = "[[network]]\nname = \"home\"\nmode = \"nat\"\n";
    let address = ["10.0.2.15"];
    let forward = |port: u16| format!("forward = [\"web,tcp,,{port},,80\"]\n");
    let ports = [
        guest_port(&vm1, "vm1", &address) + &forward(8001),
        guest_port(&vm2, "vm2", &address) + &forward(8002),
    ];
    let tramad = Tramad::start_in(&host, &format!("{text}{}", ports.concat()));
    let (of_server, of_vm1, of_vm2) = (page("server"), page("vm1"), page("vm2"));
    serve(&server, 80, of_server.path());
    for (vm, folder) in [(&vm1, &of_vm1), (&vm2, &of_vm2)] {
        route(vm, &["10.0.2.2"]);
        for service in ["10.0.2.3", "10.0.2.4"] {
            vm.wait_for_ping(service, SOON);
        }
        serve(vm, 80, folder.path());
        assert_eq!(fetch(vm, SERVER[0], 80, "page"), (0, "server".into()));
        vm.wait_for_ping(HOST[0], SOON);
    }
    // Neither reaches the other, though they share the network's name.
    vm2.run("ip addr add 10.0.2.16/24 dev eth0");
    assert!(!vm1.pings("10.0.2.16", 3), "machines of mode nat reach each other");
    assert_eq!(fetch(&server, HOST[0], 8001, "page"), (0, "vm1".into()));
    assert_eq!(fetch(&server, HOST[0], 8002, "page"), (0, "vm2".into()));
    tramad.stop();
}

/// Creates a file without repeated content; returns its checksum.
fn large_file(folder: &Path, bytes: usize) -> String {
    let path = folder.join("large");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).expect("large file"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..bytes / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).expect("large file");
    }
    drop(file);
    checksum(&path)
}

fn checksum(path: &Path) -> String {
    let output = std::process::Command::new("cksum").arg(path).output().expect("cksum");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_gibibyte_arrives_exact_both_ways() {
    let [host, _router, server] = set_up_world();
    let vm = namespace("vm");
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{}", guest_port(&vm, "vm", &VM1)));
    let folder = tempfile::tempdir().expect("temporary directory");
    let wanted = large_file(folder.path(), 1 << 30);
    serve(&server, 80, folder.path());
    route(&vm, &GATEWAY);
    let began = Instant::now();
    let url = format!("http://{}/large", SERVER[0]);
    let got = vm.try_run_for(&format!("curl -s -S {url} | cksum"), Duration::from_secs(240)).text;
    println!("down: {:.1} Gb/s", 8.59 / began.elapsed().as_secs_f64());
    assert_eq!(got.trim(), wanted);
    let sum = format!("{}/sum", server.scratch());
    // At the end of its own input the server would close the connection.
    server.run(&format!("sleep 1000 | busybox nc -l -p 9000 | cksum >{sum} &"));
    wait_until("the server listens", SOON, || {
        (server.try_run("grep -qs ':2328 0*:0000 0A' /proc/net/tcp /proc/net/tcp6").status == 0)
            .then_some(())
    });
    let began = Instant::now();
    let path = folder.path().join("large");
    let send = format!("busybox nc {} 9000 <{}", SERVER[0], path.display());
    assert_eq!(vm.try_run_for(&send, Duration::from_secs(240)).status, 0);
    println!("up: {:.1} Gb/s", 8.59 / began.elapsed().as_secs_f64());
    wait_until("the checksum is there", SOON, || {
        fs::read_to_string(&sum).ok().filter(|text| text.trim() == wanted)
    });
    tramad.stop();
}

#[test]
fn ping_traceroute_and_path_mtu_tell_the_truth() {
    let [host, _router, _server] = set_up_world();
    let vm = namespace("vm");
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{}", guest_port(&vm, "vm", &VM1)));
    route(&vm, &GATEWAY);
    assert_eq!(vm.ping_losses(SERVER[0], 10), 0);
    assert_eq!(vm.ping_losses(SERVER[1], 10), 0);
    assert!(!vm.pings("198.51.100.77", 2), "an answer for a host that is not there");
    for kind in ["", "-I"] {
        let hops = vm.run(&format!("busybox traceroute {kind} -n -q 2 -w 20 -m 6 {}", SERVER[0]));
        let hop = |number: usize| hops.lines().nth(number).unwrap_or_default().to_owned();
        assert!(hop(1).contains(GATEWAY[0]), "{kind}\n{hops}");
        assert!(hop(2).contains("203.0.113.2"), "{kind}\n{hops}");
        assert!(hop(3).contains(SERVER[0]), "{kind}\n{hops}");
    }
    let told = vm.try_run(&format!("ping -c 3 -i 0.3 -W 20 -M do -s 1400 {}", SERVER[0])).text;
    assert!(told.contains("mtu=1300") || told.contains("mtu = 1300"), "{told}");
    tramad.stop();
}

// spec-test: rfc9293 MUST-4 MUST-6 MUST-64 MUST-68
#[test]
fn everyday_tools_work() {
    let [host, _router, server] = set_up_world();
    let vm = namespace("vm");
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().display().to_string();
    server.run(&format!(
        "cd {path} && git init -q -b main work && cd work && echo text >file && git add file && \
         git -c user.name=a -c user.email=a@b commit -q -m first && \
         git clone -q --bare . ../repo.git && cd ../repo.git && git update-server-info && \
         mkdir ../apt && : >../apt/Packages && \
         printf 'Origin: test\\nMD5Sum:\\nSHA256:\\n %s 0 Packages\\n' \
         $(sha256sum ../apt/Packages | cut -d' ' -f1) >../apt/Release"
    ));
    serve(&server, 80, folder.path());
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{}", guest_port(&vm, "vm", &VM1)));
    route(&vm, &GATEWAY);
    let scratch = vm.scratch();
    for (number, address) in SERVER.iter().map(|address| in_url(address)).enumerate() {
        vm.run(&format!("git clone -q http://{address}/repo.git {scratch}/clone{number}"));
        vm.run(&format!("grep -q text {scratch}/clone{number}/file"));
    }
    let dirs = format!("{scratch}/apt");
    vm.run(&format!(
        "mkdir -p {dirs}/lists/partial {dirs}/cache/archives/partial && \
         echo 'deb [trusted=yes] http://{}/apt ./' >{dirs}/sources.list && \
         apt-get update -o APT::Sandbox::User=root -o Dir::Etc::sourcelist={dirs}/sources.list \
         -o Dir::Etc::sourceparts=- -o Dir::State::lists={dirs}/lists -o Dir::Cache={dirs}/cache \
         -o Acquire::http::Proxy=false --error-on=any",
        SERVER[0]
    ));
    tramad.stop();
}

/// Returns the L4 ports of `address` that accept a connection from a namespace.
fn open_ports(from: &Netns, address: &str) -> Vec<u16> {
    let address: IpAddr = address.parse().expect("address");
    let scan = move || {
        let is_open = |port: &u16| {
            let to = SocketAddr::new(address, *port);
            // A closed port refuses at once.
            TcpStream::connect_timeout(&to, SOON).is_ok()
        };
        (1..=u16::MAX).filter(is_open).collect()
    };
    from.inside(scan).join().expect("scan")
}

#[test]
fn a_scan_of_the_gateway_finds_only_what_is_configured() {
    let [host, _router, _server] = set_up_world();
    let vm = namespace("vm");
    let loopback = "loopback = [\"near,tcp,127.0.0.1,7000,10.7.0.1,7001\"]\n";
    let text = format!("{NETWORK}{loopback}{}", guest_port(&vm, "vm", &VM1));
    let tramad = Tramad::start_inside(&host, &[], &text);
    let of_host = page("loopback");
    serve(&host, 7000, of_host.path());
    route(&vm, &GATEWAY);
    assert_eq!(fetch(&vm, GATEWAY[0], 7001, "page"), (0, "loopback".into()));
    // 53 is the gateway's DNS.
    assert_eq!(open_ports(&vm, GATEWAY[0]), [53, 7001]);
    for address in ["127.0.0.1", "169.254.169.254"] {
        vm.run(&format!("ip route replace {address}/32 via {} || true", GATEWAY[0]));
        assert_ne!(fetch(&vm, address, 7000, "page").0, 0, "{address}");
    }
    tramad.stop();
}

#[test]
fn a_gateway_that_is_killed_hangs_nobody() {
    let [host, _router, server] = set_up_world();
    let [vm1, vm2] = ["vm1", "vm2"].map(namespace);
    let ports = [guest_port(&vm1, "vm1", &VM1), guest_port(&vm2, "vm2", &VM2)].concat();
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{ports}"));
    let folder = page("server");
    fs::File::create(folder.path().join("endless"))
        .and_then(|file| file.set_len(1 << 40))
        .expect("sparse file");
    serve(&server, 80, folder.path());
    route(&vm1, &GATEWAY);
    let bystanders = Pinging::start(&vm1, VM2[0], 0.01);
    let status = format!("{}/status", vm1.scratch());
    let url = format!("http://{}/endless", SERVER[0]);
    vm1.run(&format!(
        "(curl -s -o /dev/null --max-time 240 {url}; echo $? >{status}) </dev/null >/dev/null 2>&1 &"
    ));
    wait_until("the download runs", SOON, || {
        (tramad.statistic("vm1", "tx_bytes") > 10_000_000).then_some(())
    });
    kill_process(tramad.gateway_after(0), Signal::KILL).expect("kill the gateway");
    let killed = Instant::now();
    wait_until("new connections are made", SOON, || {
        (fetch(&vm1, SERVER[0], 80, "page") == (0, "server".into())).then_some(())
    });
    println!("new connections after {:?}", killed.elapsed());
    let status = wait_until("the old connection ends", SOON, || {
        fs::read_to_string(&status).ok().filter(|text| text.ends_with('\n'))
    });
    assert_eq!(status.trim(), "56", "curl saw a reset");
    bystanders.stop_without_loss(20);
    tramad.stop();
}

/// Returns the pages of a guest on another network through the host's port 8080, over IPv4 and
/// IPv6.
fn pages(from: &Netns) -> [(i32, String); 2] {
    HOST.map(|address| fetch(from, address, 8080, "page"))
}

#[test]
fn forwards_of_the_versions_of_ip_stand_side_by_side() {
    let [host, server] = host_and_server();
    let [vm1, vm2] = ["vm1", "vm2"].map(namespace);
    let other = "[[network]]\nname = \"other\"\nmode = \"nat-network\"\n\
                 subnet = [\"10.8.0.0/24\", \"fd00:8::/64\"]\n\
                 forward = \"six,tcp,[::],8080,[fd00:8::12],80\"\n";
    let addresses = "ifname = \"eth0\"\naddress = [\"10.8.0.12/24\", \"fd00:8::12/64\"]";
    let ports = [guest_port(&vm1, "vm1", &VM1), tap_port("other", "vm2", &vm2, addresses)].concat();
    let home = format!("{NETWORK}forward = \"four,tcp,0.0.0.0,8080,10.7.0.11,80\"\n");
    let tramad = Tramad::start_in(&host, &format!("{home}{other}{ports}"));
    route(&vm1, &GATEWAY);
    route(&vm2, &["10.8.0.1", "fd00:8::1"]);
    let (of_vm1, of_vm2) = (page("vm1"), page("vm2"));
    serve(&vm1, 80, of_vm1.path());
    serve(&vm2, 80, of_vm2.path());
    let [one, two] = ["vm1", "vm2"].map(|text| (0, text.to_owned()));
    assert_eq!(pages(&server), [one.clone(), two.clone()]);

    // An occupied port is refused, and the error names both rules.
    for address in ["", "0.0.0.0", "203.0.113.1"] {
        let rule = format!("new,tcp,{address},8080,10.8.0.12,80");
        let refused = tramad.try_ctl(&["forward", "add", "other", &rule]);
        assert_ne!(refused.status, 0, "{rule}");
        assert!(refused.text.contains("new") && refused.text.contains("four"), "{}", refused.text);
    }
    // IPv4 and IPv6 are independent, and a forward for both replaces the two.
    let listening = |count: usize| {
        wait_until("all listen", SOON, || {
            let listed = tramad.ctl("forward list");
            (listed.matches("listening").count() == count).then_some(())
        });
    };
    // The one gateway may ask for the port before the other one has left it.
    let moves = |line: &str| {
        let moved = tramad.try_ctl(&line.split(' ').collect::<Vec<_>>());
        assert!([0, 65].contains(&moved.status), "{}", moved.text);
    };
    moves("forward del home four -- forward add other four,tcp,0.0.0.0,8080,10.8.0.12,80");
    listening(2);
    assert_eq!(pages(&server), [two.clone(), two.clone()]);
    moves("forward del other six -- forward add home six,tcp,::,8080,fd00:7::11,80");
    listening(2);
    assert_eq!(pages(&server), [two.clone(), one.clone()]);
    tramad.ctl("forward del home six -- forward del other four");
    moves("forward add home all,tcp,,8080,10.7.0.11,80");
    listening(1);
    assert_eq!(pages(&server), [one.clone(), one]);
    tramad.stop();
}

#[test]
fn a_host_without_ipv6_does_what_ipv4_can() {
    let [host, server] = host_and_server();
    let vm = namespace("vm");
    let daemon = "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\
                  metrics = \"[::]:9477\"\n";
    let forwards = "forward = [\"web,tcp,,8080,10.7.0.11,80\", \"say,udp,,5000,10.7.0.11,5000\", \
                    \"six,tcp,::,8081,fd00:7::11,80\"]\n";
    let text = format!("{daemon}{NETWORK}{forwards}{}", guest_port(&vm, "vm", &VM1[..1]));
    let tramad = Tramad::start_without_ipv6(&host, &text);
    route(&vm, &GATEWAY[..1]);
    vm.run(&format!("ip addr add {}/64 dev eth0", VM1[1]));
    route(&vm, &GATEWAY[1..]);
    let (of_server, of_vm) = (page("server"), page("vm"));
    serve(&server, 80, of_server.path());
    serve(&vm, 80, of_vm.path());
    assert_eq!(fetch(&vm, NEIGHBOUR[0], 80, "page"), (0, "server".into()));
    assert!(vm.pings(NEIGHBOUR[0], 5));
    assert_eq!(fetch(&server, HOST[0], 8080, "page"), (0, "vm".into()));
    let answering = vm.inside(|| {
        let socket = UdpSocket::bind("10.7.0.11:5000").expect("the machine's socket");
        socket.set_read_timeout(Some(SOON)).expect("timeout");
        let (_, from) = socket.recv_from(&mut [0; 9]).expect("a datagram");
        socket.send_to(b"welcome", from).expect("answer");
    });
    let asking = server.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a client's socket");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
        wait_until("an answer", SOON, || {
            socket.send_to(b"hello", at(HOST[0], 5000)).expect("ask");
            socket.recv(&mut [0; 9]).ok()
        })
    });
    assert_eq!(asking.join().expect("a client"), 7);
    answering.join().expect("the machine");
    // A forward for IPv6 reports why it is pending.
    let listed = tramad.ctl("forward list");
    let of = |name: &str| listed.lines().find(|line| line.contains(name)).unwrap_or_default();
    assert!(of("web").contains("listening") && of("say").contains("listening"), "{listed}");
    let reason = "pending: [::]:8081: the host does not have that IP version";
    assert!(of("six").contains(reason), "{listed}");
    let refused = vm.try_run(&format!("curl -s --max-time 20 http://[{}]/page", NEIGHBOUR[1]));
    assert_eq!(refused.status, 7, "refused at once: {}", refused.text);
    let ping = vm.try_run(&format!("ping -c 1 -W 20 {}", NEIGHBOUR[1]));
    assert!(ping.text.contains("nreachable"), "{}", ping.text);
    host.run("curl -s http://127.0.0.1:9477/metrics | grep trama_nat");
    tramad.stop();
}
