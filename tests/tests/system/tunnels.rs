//! Tunnels between hosts: two switches in namespaces that a veth pair joins, and the kernel's own
//! vxlan device as the other end.

use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use rustix::process::Signal;
use trama_tests::process::tied_command;
use trama_tests::tramad::binary;
use trama_tests::{CommandResult, Guest, Host, Netns, Nic, Process, SOON, Tramad, wait_until};

/// Bytes of a checked transfer.
const TRANSFER: usize = 20 << 20;

/// Two hosts, `10.9.0.1` and `10.9.0.2`, also `fd09::1` and `fd09::2`.
pub(crate) fn hosts() -> [Netns; 2] {
    let [a, b] = ["a", "b"].map(Netns::with_ipv6);
    a.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", b.name()));
    for (number, host) in [(1, &a), (2, &b)] {
        host.run(&format!(
            "ip addr add 10.9.0.{number}/24 dev eth0; ip addr add fd09::{number}/64 dev eth0; \
             ip link set eth0 up"
        ));
    }
    a.wait_for_ping("10.9.0.2", SOON);
    a.wait_for_ping("fd09::2", SOON);
    [a, b]
}

/// A network with a tunnel and a guest behind a TAP, `10.1.0.NUMBER`.
pub(crate) fn lab(number: u8, guest: &Netns, tunnel: &str, mtu: u16) -> String {
    format!(
        "[[network]]\nname = \"blue\"\nmtu = {mtu}\n\
         [[port]]\nname = \"vx0\"\nnetwork = \"blue\"\ntype = \"vxlan\"\n{tunnel}\n\
         [[port]]\nname = \"guest\"\nnetwork = \"blue\"\ntype = \"tap\"\nifname = \"eth0\"\n\
         netns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
        guest.name()
    )
}

/// Sends pseudo-random bytes by TCP, and checks that they arrive.
#[track_caller]
fn transfer(from: &Netns, to: &Netns, address: &'static str) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let receiver = to.inside(move || {
        let listener = TcpListener::bind((address, 7007)).expect("listen");
        ready.send(()).expect("the test");
        let (mut stream, _) = listener.accept().expect("accept");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("read");
        (bytes.len(), digest(&bytes))
    });
    is_ready.recv().expect("a listener");
    let sender = from.inside(move || {
        let bytes = noise(TRANSFER);
        let mut stream = TcpStream::connect((address, 7007)).expect("connect");
        stream.write_all(&bytes).expect("write");
        digest(&bytes)
    });
    let sent = sender.join().expect("the sender");
    assert_eq!(receiver.join().expect("the receiver"), (TRANSFER, sent));
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A ping whose packet has this length and must not be fragmented.
fn whole_ping(from: &impl Host, address: &str, packet: usize) -> CommandResult {
    from.try_run(&format!("ping -c 3 -i 0.2 -W 5 -M do -s {} {address}", packet - 28))
}

#[track_caller]
fn pings_whole(from: &impl Host, address: &str, packet: usize) {
    let answer = whole_ping(from, address, packet);
    assert_eq!(answer.status, 0, "{}", answer.text);
}

/// Frames that the tunnel `vx0` of a switch in a namespace has dropped for a reason.
#[track_caller]
fn drops(host: &Netns, tramad: &Tramad, reason: &str) -> u64 {
    let address = tramad.metrics_address();
    let metrics = host.inside(move || {
        let mut stream = TcpStream::connect(address).expect("metrics address");
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("ask for metrics");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read metrics");
        text
    });
    let text = metrics.join().expect("metrics");
    let labels = ["trama_port_drops_total{", "port=\"vx0\"", &format!("reason=\"{reason}\"")];
    let line = text.lines().find(|line| labels.iter().all(|label| line.contains(label)));
    line.and_then(|line| line.rsplit_once(' '))
        .map_or(0, |(_, count)| count.parse().expect("a count"))
}

#[test]
fn guests_of_two_hosts_talk_through_a_tunnel() {
    for (remotes, extra, mtu) in [
        (["10.9.0.2", "10.9.0.1"], ["", ""], 1450),
        (["fd09::2", "fd09::1"], ["port = 8472\nlocal = \"fd09::1\"", "port = 8472"], 1430),
    ] {
        let hosts = hosts();
        let guests = ["ga", "gb"].map(Netns::new);
        let [a, b] = [0, 1].map(|i| {
            let tunnel = format!("remote = \"{}\"\nvni = 77\n{}", remotes[i], extra[i]);
            let text = lab(i as u8 + 1, &guests[i], &tunnel, mtu);
            Tramad::start_in(&hosts[i], &text)
        });
        guests[0].wait_for_ping("10.1.0.2", SOON);
        pings_whole(&guests[0], "10.1.0.2", mtu.into());
        transfer(&guests[0], &guests[1], "10.1.0.2");
        transfer(&guests[1], &guests[0], "10.1.0.1");
        let state = a.ctl("get Interface vx0 status:state link_state type");
        assert_eq!(state.split_whitespace().collect::<Vec<_>>(), ["connected", "up", "vxlan"]);
        // Large segments of the guest were cut, and its checksums made.
        assert!(a.statistic("vx0", "software_gso_frames") > 100);
        assert!(a.statistic("vx0", "tx_packets") > 10_000);
        // They became large again, so that the other guest received fewer.
        let rx_packets = b.statistic("vx0", "rx_packets");
        assert!(b.statistic("vx0", "rx_gso_frames") > 100);
        assert!(rx_packets < a.statistic("vx0", "tx_packets") / 2, "{rx_packets}");
        for end in [&a, &b] {
            assert_eq!(end.statistic("vx0", "rx_errors"), 0);
            assert_eq!(end.statistic("vx0", "rx_dropped"), 0);
        }
        a.stop();
        b.stop();
    }
}

#[test]
fn tunnels_of_several_networks_and_vlans_stay_apart() {
    let hosts = hosts();
    let guests: Vec<[Netns; 2]> = (0..4).map(|_| ["ga", "gb"].map(Netns::new)).collect();
    let text = |end: usize| {
        let mut text = "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\
                        metrics = \"{metrics}\"\nworkers = 2\n"
            .to_owned();
        for (number, pair) in guests.iter().enumerate() {
            // The first two share a network, in VLANs of their own.
            let (network, tag) = (number.max(1), 10 * (number + 1));
            if number != 1 {
                text += &format!(
                    "[[network]]\nname = \"n{network}\"\nmtu = 1446\n[[port]]\n\
                     name = \"vx{network}\"\nnetwork = \"n{network}\"\ntype = \"vxlan\"\n\
                     remote = \"10.9.0.{}\"\nvni = {network}\n",
                    2 - end
                );
            }
            text += &format!(
                "[[port]]\nname = \"g{number}\"\nnetwork = \"n{network}\"\ntype = \"tap\"\n\
                 tag = {tag}\nifname = \"eth0\"\nnetns = \"{}\"\naddress = \"10.1.0.{}/24\"\n",
                pair[end].name(),
                end + 1
            );
        }
        text
    };
    let [a, b] = [0, 1].map(|end| Tramad::start_in(&hosts[end], &text(end)));
    for pair in &guests {
        pair[0].wait_for_ping("10.1.0.2", SOON);
        pings_whole(&pair[0], "10.1.0.2", 1446);
    }
    // One after the other, so that each is in all switches' workers once.
    for pair in &guests {
        transfer(&pair[0], &pair[1], "10.1.0.2");
    }
    for number in 1..4 {
        for end in [&a, &b] {
            assert_eq!(end.statistic(&format!("vx{number}"), "rx_errors"), 0);
        }
    }
    // What one network has, no other one sees.
    guests[0][1].run("ip link set eth0 down");
    assert!(!guests[0][0].pings("10.1.0.2", 3));
    guests[3][0].wait_for_ping("10.1.0.2", SOON);
}

#[test]
fn the_kernels_vxlan_device_is_the_other_end() {
    for (remotes, options, tunnel) in [
        (["10.9.0.2", "10.9.0.1"], "local 10.9.0.2", ""),
        (["10.9.0.2", "10.9.0.1"], "local 10.9.0.2 noudpcsum", "local = \"10.9.0.1\""),
        (["fd09::2", "fd09::1"], "local fd09::2", ""),
    ] {
        let [a, b] = hosts();
        let guest = Netns::new("guest");
        let tunnel = format!("remote = \"{}\"\nvni = 77\n{tunnel}", remotes[0]);
        let tramad = Tramad::start_in(&a, &lab(1, &guest, &tunnel, 1430));
        b.run(&format!(
            "ip link add vx0 type vxlan id 77 remote {} dstport 4789 {options}; \
             ip link add br0 type bridge; ip link set vx0 master br0; ip link set vx0 mtu 1430; \
             ip addr add 10.1.0.2/24 dev br0; ip link set vx0 up; ip link set br0 up",
            remotes[1]
        ));
        // Over veth the kernel leaves inner checksums and large segments to a card that is none.
        b.run(
            "for dev in vx0 br0 eth0; do ethtool -K $dev tx off tso off gso off \
             tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off >/dev/null 2>&1; done; \
             true",
        );
        guest.wait_for_ping("10.1.0.2", SOON);
        pings_whole(&guest, "10.1.0.2", 1430);
        transfer(&guest, &b, "10.1.0.2");
        transfer(&b, &guest, "10.1.0.1");
        assert_eq!(tramad.statistic("vx0", "rx_errors"), 0, "{options}");
        tramad.stop();
    }
}

#[test]
fn what_is_no_tunnels_datagram_is_named_and_nothing_else_stops() {
    let hosts = hosts();
    let guests = ["ga", "gb"].map(Netns::new);
    let [_a, b] = [0, 1].map(|i| {
        let tunnel = format!("remote = \"10.9.0.{}\"\nvni = 77", 2 - i);
        Tramad::start_in(&hosts[i], &lab(i as u8 + 1, &guests[i], &tunnel, 1450))
    });
    guests[0].wait_for_ping("10.1.0.2", SOON);
    hosts[0].run("ip addr add 10.9.0.3/24 dev eth0");
    let sent = hosts[0].inside(|| {
        let bytes = noise(4096);
        let [peer, other] = ["10.9.0.1:0", "10.9.0.3:0"].map(|it| UdpSocket::bind(it).unwrap());
        let to = "10.9.0.2:4789";
        let send = |from: &UdpSocket, bytes: &[u8]| assert!(from.send_to(bytes, to).is_ok());
        for i in 0..200 {
            // Too short, without a VNI, of another VNI, from elsewhere.
            send(&peer, &bytes[..i % 8]);
            send(&peer, &[&[0xf7, 0, 0, 0, 0, 0, 77, 0], &bytes[i..i + 200]].concat());
            send(&peer, &[&[8, 0, 0, 0, 0, 0, 78, 0], &bytes[i..i + 200]].concat());
            send(&other, &[&[8, 0, 0, 0, 0, 0, 77, 0], &bytes[i..i + 200]].concat());
        }
    });
    sent.join().expect("the sender");
    wait_until("all are counted", SOON, || {
        let counted =
            ["tunnel_malformed", "tunnel_unknown"].map(|reason| drops(&hosts[1], &b, reason));
        (counted == [400, 400]).then_some(())
    });
    guests[0].wait_for_ping("10.1.0.2", SOON);
    // Of the tunnel, and not frames.
    let sent = hosts[0].inside(|| {
        let bytes = noise(70_000);
        let peer = UdpSocket::bind("10.9.0.1:0").unwrap();
        for i in 0..200 {
            let datagram = [&[8, 0, 0, 0, 0, 0, 77, 0], &bytes[i * 300..][..i * 40]].concat();
            assert!(peer.send_to(&datagram, "10.9.0.2:4789").is_ok());
        }
    });
    sent.join().expect("the sender");
    guests[0].wait_for_ping("10.1.0.2", SOON);
    transfer(&guests[0], &guests[1], "10.1.0.2");
    b.stop();
}

#[test]
fn a_path_that_shrinks_is_named() {
    let hosts = hosts();
    let guests = ["ga", "gb"].map(Netns::new);
    let [a, _b] = [0, 1].map(|i| {
        let tunnel = format!("remote = \"10.9.0.{}\"\nvni = 77", 2 - i);
        Tramad::start_in(&hosts[i], &lab(i as u8 + 1, &guests[i], &tunnel, 1450))
    });
    guests[0].wait_for_ping("10.1.0.2", SOON);
    pings_whole(&guests[0], "10.1.0.2", 1450);
    assert_eq!(drops(&hosts[0], &a, "tunnel_mtu"), 0);
    hosts[0].run("ip link set eth0 mtu 1400");
    hosts[1].run("ip link set eth0 mtu 1400");
    assert_ne!(whole_ping(&guests[0], "10.1.0.2", 1450).status, 0);
    pings_whole(&guests[0], "10.1.0.2", 1350);
    assert_eq!(drops(&hosts[0], &a, "tunnel_mtu"), 3);
    let error = a.ctl("get Interface vx0 status:last_error");
    assert!(error.contains("Message too long"), "{error}");
    assert_eq!(a.statistic("vx0", "tx_dropped"), 3);
    a.ctl("set Bridge blue mtu=1350");
    guests[0].run("ip link set eth0 mtu 1350");
    guests[1].run("ip link set eth0 mtu 1350");
    transfer(&guests[0], &guests[1], "10.1.0.2");
    hosts[0].run("ip link set eth0 down");
    guests[0].try_run("ping -c 1 -W 1 10.1.0.2");
    assert!(drops(&hosts[0], &a, "tunnel_no_route") > 0);
}

#[test]
fn a_reload_changes_tunnels_and_leaves_others_alone() {
    let hosts = hosts();
    let guests = ["ga", "gb"].map(Netns::new);
    let tunnel = |remote: u8, vni: u32| format!("remote = \"10.9.0.{remote}\"\nvni = {vni}");
    let [a, b] = [0, 1].map(|i| {
        let text = lab(i as u8 + 1, &guests[i], &tunnel(2 - i as u8, 77), 1450);
        Tramad::start_in(&hosts[i], &text)
    });
    let is_reached = || guests[0].wait_for_ping("10.1.0.2", SOON);
    is_reached();
    // One more, which disturbs the first one not.
    let second = "[[port]]\nname = \"vx1\"\nnetwork = \"blue\"\ntype = \"vxlan\"\n\
                  remote = \"10.9.0.7\"\nvni = 77\n";
    let before = a.configuration();
    let sent = a.statistic("vx0", "tx_packets");
    a.write_configuration(&(before.clone() + second));
    a.ctl("reload");
    is_reached();
    assert!(a.statistic("vx0", "tx_packets") > sent, "its counters go on");
    assert_eq!(a.ctl("get Interface vx1 status:state").trim(), "connected");
    // Another VNI at one end, then at both.
    a.write_configuration(&before.replace("vni = 77", "vni = 78"));
    a.ctl("reload");
    assert!(!guests[0].pings("10.1.0.2", 2));
    wait_until("the other VNI is named", SOON, || {
        guests[0].pings("10.1.0.2", 1);
        (drops(&hosts[1], &b, "tunnel_unknown") > 0).then_some(())
    });
    b.write_configuration(&b.configuration().replace("vni = 77", "vni = 78"));
    b.ctl("reload");
    is_reached();
    // What is wrong changes nothing.
    a.write_configuration(&before.replace("vni = 77", "vni = 16777216"));
    let refused = a.try_ctl(&["reload"]);
    assert!(refused.status != 0 && refused.text.contains("vni"), "{}", refused.text);
    is_reached();
}

#[test]
fn a_virtual_machine_is_reached_through_a_tunnel() {
    let hosts = hosts();
    let guest = Netns::new("guest");
    let vm = "[[network]]\nname = \"blue\"\nmtu = 1450\n\
              [[port]]\nname = \"vx0\"\nnetwork = \"blue\"\ntype = \"vxlan\"\n\
              remote = \"10.9.0.2\"\nvni = 77\n\
              [[port]]\nname = \"vm\"\nnetwork = \"blue\"\ntype = \"vhost-user\"\n\
              path = \"{dir}/vm.sock\"\n";
    let a = Tramad::start_in(&hosts[0], vm);
    let b = Tramad::start_in(&hosts[1], &lab(2, &guest, "remote = \"10.9.0.1\"\nvni = 77", 1450));
    let machine = Guest::boot("vm", Nic::connecting(a.path("vm.sock"), "52:54:00:00:00:01"));
    machine.address("10.1.0.1/24");
    machine.run("ip link set eth0 mtu 1450");
    machine.wait_for_ping("10.1.0.2", SOON);
    guest.start_iperf_server(5201);
    for options in ["-n 20M", "-n 20M -R"] {
        let bytes = machine.iperf_received("10.1.0.2", 5201, options);
        assert!(bytes > 10_000_000, "{options}: only {bytes} bytes");
    }
    for end in [&a, &b] {
        assert!(end.statistic("vx0", "rx_gso_frames") > 100);
        assert_eq!(end.statistic("vx0", "rx_errors"), 0);
    }
    // The machine takes large segments.
    assert_eq!(a.statistic("vm", "software_gso_frames"), 0);
    assert!(a.statistic("vm", "tx_gso_frames") > 100);
}

#[test]
fn a_tunnels_frames_are_captured() {
    let hosts = hosts();
    let guests = ["ga", "gb"].map(Netns::new);
    let [a, _b] = [0, 1].map(|i| {
        let tunnel = format!("remote = \"10.9.0.{}\"\nvni = 77", 2 - i);
        Tramad::start_in(&hosts[i], &lab(i as u8 + 1, &guests[i], &tunnel, 1450))
    });
    guests[0].wait_for_ping("10.1.0.2", SOON);
    let mut command = tied_command(binary("tramactl"));
    command.arg("--socket").arg(a.path("control.sock"));
    command.args("tcpdump vx0 icmp -c 4".split(' '));
    let mut capture = Process::spawn("tcpdump", command, &a.path("capture.log"));
    wait_until("four frames are captured", SOON, || {
        guests[0].pings("10.1.0.2", 1);
        capture.status()
    });
    for line in ["vx0 Out IP 10.1.0.1 > 10.1.0.2", "vx0 In  IP 10.1.0.2 > 10.1.0.1"] {
        assert!(capture.log().contains(line), "{}", capture.log());
    }
}

#[test]
fn tunnels_outlive_the_switch() {
    let hosts = hosts();
    let guests = ["ga", "gb"].map(Netns::new);
    let [mut a, mut b] = [0, 1].map(|i| {
        let tunnel = format!("remote = \"10.9.0.{}\"\nvni = 77", 2 - i);
        Tramad::start_in(&hosts[i], &lab(i as u8 + 1, &guests[i], &tunnel, 1450))
    });
    guests[0].wait_for_ping("10.1.0.2", SOON);
    a.upgrade(|it| drop(it.ctl("upgrade")));
    guests[0].wait_for_ping("10.1.0.2", SOON);
    b.kill_and_follow();
    guests[0].wait_for_ping("10.1.0.2", SOON);
    transfer(&guests[0], &guests[1], "10.1.0.2");
    transfer(&guests[1], &guests[0], "10.1.0.1");
    a.signal_current(Signal::TERM);
}

#[test]
fn tunnels_are_made_and_removed_in_open_vswitchs_words() {
    let hosts = hosts();
    let guests = ["ga", "gb"].map(Netns::new);
    let guest = |i: usize| {
        format!(
            "[[network]]\nname = \"blue\"\nmtu = 1450\n[[port]]\nname = \"guest\"\n\
             network = \"blue\"\ntype = \"tap\"\nifname = \"eth0\"\nnetns = \"{}\"\n\
             address = \"10.1.0.{}/24\"\n",
            guests[i].name(),
            i + 1
        )
    };
    let [a, b] = [0, 1].map(|i| Tramad::start_in(&hosts[i], &guest(i)));
    let add = |port: &str, remote: &str, key: u32| {
        format!(
            "add-port blue {port} -- set Interface {port} type=vxlan options:remote_ip={remote} \
             options:key={key}"
        )
    };
    for _ in 0..3 {
        a.ctl(&add("vx0", "10.9.0.2", 77));
        b.ctl(&add("vx0", "10.9.0.1", 77));
        guests[0].wait_for_ping("10.1.0.2", SOON);
        let taken = a.try_ctl(&add("vx1", "10.9.0.2", 77).split(' ').collect::<Vec<_>>());
        assert!(taken.status != 0 && taken.text.contains("is port.vx0 already"), "{}", taken.text);
        a.ctl(&add("vx1", "10.9.0.7", 77));
        a.ctl(&add("vx2", "10.9.0.2", 78));
        guests[0].wait_for_ping("10.1.0.2", SOON);
        assert!(a.ctl("show").contains("vxlan"), "{}", a.ctl("show"));
        assert!(a.configuration().contains("vni = 78"), "{}", a.configuration());
        for port in ["vx2", "vx1", "vx0"] {
            a.ctl(&format!("del-port {port}"));
        }
        b.ctl("del-port vx0");
        assert!(!guests[0].pings("10.1.0.2", 1));
        // Its socket is closed.
        let bound = hosts[0].inside(|| UdpSocket::bind("0.0.0.0:4789").map(drop));
        bound.join().expect("a socket").expect("the port is free");
    }
    let taken = hosts[0].inside(|| UdpSocket::bind("0.0.0.0:4789").expect("the port is free"));
    let taken = taken.join().expect("a socket");
    let refused = a.try_ctl(&add("vx0", "10.9.0.2", 77).split(' ').collect::<Vec<_>>());
    let error = a.ctl("get Interface vx0 error");
    assert!(error.contains("another socket has it"), "{} {error}", refused.text);
    drop(taken);
    b.ctl(&add("vx0", "10.9.0.1", 77));
    a.ctl("del-port vx0");
    a.ctl(&add("vx0", "10.9.0.2", 77));
    guests[0].wait_for_ping("10.1.0.2", SOON);
}
