//! Routes and addresses of the host change, and the host is suspended: only affected flows end, and
//! those that can continue do.
//!
//! The host has two uplinks, each to an echo server. A change of one does not affect flows by the
//! other.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use trama_tests::nat::{
    GATEWAY, NEIGHBOUR as NEAR, NETWORK, SOON, VM1, guest_port, join, namespace, route, set_up,
};
use trama_tests::{Host, Netns, Tramad, wait_until};

const MOMENT: Duration = Duration::from_millis(500);
const PORT: u16 = 7000;
const REMOTE: [&str; 2] = ["198.51.100.2", "fd00:51::2"];

fn address(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse::<IpAddr>().expect("address"), PORT)
}

/// Echoes TCP and UDP until the namespace ends.
fn echo(netns: &Netns) {
    let streams = || {
        let listener = TcpListener::bind(("::", PORT)).expect("listener");
        for stream in listener.incoming().flatten() {
            let serve = move || {
                let mut room = [0; 4096];
                let mut stream = stream;
                while let Ok(length @ 1..) = stream.read(&mut room) {
                    if stream.write_all(&room[..length]).is_err() {
                        return;
                    }
                }
            };
            std::thread::spawn(serve);
        }
    };
    let datagrams = || {
        let socket = UdpSocket::bind(("::", PORT)).expect("socket");
        let mut room = [0; 4096];
        loop {
            let (length, from) = socket.recv_from(&mut room).expect("a datagram");
            // An answer without a route is lost.
            let _ = socket.send_to(&room[..length], from);
        }
    };
    let _: [JoinHandle<()>; 2] = [netns.inside(streams), netns.inside(datagrams)];
    wait_until("the server listens", SOON, || {
        let listening = "grep -qs ':1B58 0*:0000 0A' /proc/net/tcp6";
        (netns.try_run(listening).status == 0).then_some(())
    });
}

/// A TCP and a UDP flow of the guest to one server.
struct Flows {
    stream: TcpStream,
    socket: UdpSocket,
    said: u8,
}

impl Flows {
    #[track_caller]
    fn open(vm: &Netns, server: &str) -> Flows {
        let to = address(server);
        let connect = move || {
            let stream = TcpStream::connect_timeout(&to, SOON).expect("connect");
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((any, 0)).expect("socket");
            socket.connect(to).expect("a way");
            (stream, socket)
        };
        let (stream, socket) = vm.inside(connect).join().expect("flows");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        socket.set_read_timeout(Some(MOMENT)).expect("timeout");
        Flows { stream, socket, said: 0 }
    }

    /// Sends by TCP and receives the echo.
    #[track_caller]
    fn stream_goes_on(&mut self) {
        self.said = self.said.wrapping_add(1);
        self.stream.write_all(&[self.said; 100]).expect("the connection goes on");
        self.hear();
    }

    #[track_caller]
    fn hear(&mut self) {
        let mut heard = [0; 100];
        self.stream.read_exact(&mut heard).expect("the connection goes on");
        assert_eq!(heard, [self.said; 100]);
    }

    /// Sends by UDP, repeatedly, until the echo arrives.
    #[track_caller]
    fn socket_goes_on(&mut self) {
        self.said = self.said.wrapping_add(1);
        wait_until("the datagram comes back", SOON, || {
            // Errors of earlier datagrams are reported here.
            let _ = self.socket.send(&[self.said; 100]);
            let mut heard = [0; 100];
            let length = self.socket.recv(&mut heard).ok()?;
            (heard[..length] == [self.said; 100]).then_some(())
        });
    }

    #[track_caller]
    fn go_on(&mut self) {
        self.stream_goes_on();
        self.socket_goes_on();
    }
}

fn can_connect(vm: &Netns, server: &str) -> bool {
    let to = address(server);
    let connect = move || TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok();
    vm.inside(connect).join().expect("a client")
}

/// Returns the host, its two servers, and a guest behind it.
fn set_up_world() -> ([Netns; 4], Tramad) {
    let [host, near, far, vm] = ["host", "near", "far", "vm"].map(namespace);
    join(&host, "eth0", &near, "eth0");
    host.run(&format!("ip link add eth1 type veth peer name eth0 netns {}", far.name()));
    set_up(&host, "eth1", ["198.51.100.1", "fd00:51::1"]);
    set_up(&far, "eth0", REMOTE);
    NEAR.iter().chain(&REMOTE).for_each(|address| host.wait_for_ping(address, SOON));
    echo(&near);
    echo(&far);
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{}", guest_port(&vm, "vm", &VM1)));
    route(&vm, &GATEWAY);
    ([host, near, far, vm], tramad)
}

#[test]
fn a_route_that_goes_and_comes_costs_no_flow() {
    let ([host, _near, _far, vm], tramad) = set_up_world();
    for (near, far) in NEAR.into_iter().zip(REMOTE) {
        let (mut hit, mut other) = (Flows::open(&vm, near), Flows::open(&vm, far));
        hit.go_on();
        other.go_on();
        host.run(&format!("ip route add unreachable {near}"));
        assert!(!can_connect(&vm, near), "there is no way to {near}");
        hit.said = 77;
        hit.stream.write_all(&[77; 100]).expect("the connection waits");
        other.go_on();
        Flows::open(&vm, far).go_on();
        host.run(&format!("ip route del unreachable {near}"));
        Flows::open(&vm, near).go_on();
        // Data sent meanwhile arrives.
        hit.hear();
        hit.go_on();
        other.go_on();
    }
    tramad.stop();
}

#[test]
fn an_address_that_changes_ends_at_most_its_connections() {
    let ([host, _near, _far, vm], tramad) = set_up_world();
    let changes = [("203.0.113.1/24", "203.0.113.7/24"), ("fd00:13::1/64", "fd00:13::7/64")];
    for ((near, far), (old, new)) in NEAR.into_iter().zip(REMOTE).zip(changes) {
        let (mut hit, mut other) = (Flows::open(&vm, near), Flows::open(&vm, far));
        hit.go_on();
        other.go_on();
        host.run(&format!("ip addr del {old} dev eth0"));
        other.go_on();
        assert!(!can_connect(&vm, near), "there is no way to {near}");
        host.run(&format!("ip addr add {new} dev eth0"));
        host.wait_for_ping(near, SOON);
        // The same L4 port of the guest; the server sees another source address.
        hit.socket_goes_on();
        Flows::open(&vm, near).go_on();
        other.go_on();
    }
    tramad.stop();
}

#[test]
fn a_suspended_host_goes_on_where_it_was() {
    let ([_host, _near, _far, vm], tramad) = set_up_world();
    let servers = [NEAR, REMOTE].concat();
    let mut flows: Vec<_> = servers.iter().map(|server| Flows::open(&vm, server)).collect();
    flows.iter_mut().for_each(Flows::go_on);
    let (daemon, gateway) =
        (Pid::from_raw(tramad.id() as i32).expect("pid"), tramad.gateway_after(0));
    for process in [daemon, gateway] {
        kill_process(process, Signal::STOP).expect("stop");
    }
    for flow in &mut flows {
        flow.said = 99;
        flow.stream.write_all(&[99; 100]).expect("the connection waits");
    }
    // The test needs real time: guests retransmit, and timers expire.
    std::thread::sleep(Duration::from_secs(4));
    assert!(!vm.pings(GATEWAY[0], 1), "it is not suspended");
    for process in [daemon, gateway] {
        kill_process(process, Signal::CONT).expect("continue");
    }
    flows.iter_mut().for_each(Flows::hear);
    flows.iter_mut().for_each(Flows::go_on);
    for server in &servers {
        Flows::open(&vm, server).go_on();
    }
    assert_eq!(tramad.gateways(), [gateway], "another gateway has taken its place");
    tramad.stop();
}
