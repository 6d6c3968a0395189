//! Many flows through the NAT: the time and memory of each, and that the last costs no more than
//! the first.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;

use trama_tests::nat::{
    GATEWAY, NEIGHBOUR as SERVER, NETWORK, SOON, VM1, at, guest_port, host_and_server, listen,
    namespace, route,
};
use trama_tests::process::{processor_time, raise_file_limit};
use trama_tests::slope::Slope;
use trama_tests::{Netns, Tramad};

const TCP_FLOWS: usize = 10_000;
/// A port may use three eighths of the gateway's descriptors for UDP flows: 7500 of 20,000.
const UDP_FLOWS: usize = 7_000;
const PORT: u16 = 9001;
/// The guest's first source port for a UDP flow.
const FIRST: u16 = 20_000;

/// Returns the bytes of the gateway process's private memory.
fn gateway_memory(tramad: &Tramad) -> u64 {
    let file = format!("/proc/{}/status", tramad.gateway_after(0).as_raw_nonzero());
    let status = fs::read_to_string(file).expect("gateway's status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    let number = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    number.expect("a number") * 1024
}

/// Returns the host, its server, and a guest behind the NAT.
fn set_up_world() -> ([Netns; 3], Tramad) {
    let [host, server] = host_and_server();
    let vm = namespace("vm");
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{}", guest_port(&vm, "vm", &VM1)));
    route(&vm, &GATEWAY);
    ([host, server, vm], tramad)
}

/// Opens flows from a guest one after another, and returns them. The gateway's work for each must
/// not depend on their number: a cost proportional to it would show as several times the first
/// flow's.
#[track_caller]
fn open_flows<T: Send + 'static>(
    (tramad, vm): (&Tramad, &Netns),
    count: usize,
    flow: impl Fn(usize) -> T + Send + 'static,
) -> Vec<T> {
    let gateway = tramad.gateway_after(0).as_raw_pid() as u32;
    let beginning = vm.inside(move || {
        let (mut flows, mut costs) = (Vec::with_capacity(count), Vec::new());
        let part = count / 100;
        for number in (0..count).step_by(part) {
            let before = processor_time(gateway);
            flows.extend((number..number + part).map(&flow));
            costs.push((processor_time(gateway) - before) / part as f64 / 1000.0);
        }
        (flows, costs)
    });
    let (flows, costs) = beginning.join().expect("flows");
    let slope = Slope::of(&costs);
    println!(
        "a flow takes {:.1} us of the gateway's time, and {:+.2} us for each thousand that there are",
        slope.first,
        slope.growth / count as f64 * 1000.0
    );
    assert!(slope.growth < slope.first, "the later a flow, the dearer: {slope:?} {costs:.1?}");
    flows
}

#[test]
fn ten_thousand_tcp_flows_are_cheap_and_cost_the_same() {
    raise_file_limit(TCP_FLOWS as u64);
    let ([_host, server, vm], tramad) = set_up_world();
    let _parked = listen(&server, &format!("[::]:{PORT}"));
    let connect = |_| TcpStream::connect_timeout(&at(SERVER[0], PORT), SOON).expect("connect");
    let warm = vm.inside(move || (0..100).map(connect).collect::<Vec<_>>());
    let warm = warm.join().expect("connect");
    let before = gateway_memory(&tramad);
    let mut streams = open_flows((&tramad, &vm), TCP_FLOWS, connect);
    let kept = gateway_memory(&tramad).saturating_sub(before) / TCP_FLOWS as u64;
    println!("an idle flow keeps {kept} bytes");
    assert!(kept < 6 << 10, "an idle flow keeps {kept} bytes");
    let flows = tramad.ctl("flows home");
    assert!(flows.lines().filter(|line| line.contains("established")).count() >= TCP_FLOWS);
    for stream in &mut streams {
        stream.write_all(b"still here").expect("a flow that lives");
    }
    drop((warm, streams));
    tramad.stop();
}

/// Echoes every datagram, until its namespace ends.
fn echo(server: &Netns) {
    let socket = server.inside(|| UdpSocket::bind(("0.0.0.0", PORT)).expect("bind"));
    let socket = socket.join().expect("socket");
    thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..count], from);
        }
    });
}

#[test]
fn seven_thousand_udp_flows_cost_the_same() {
    raise_file_limit(19_000);
    let ([_host, server, vm], tramad) = set_up_world();
    echo(&server);
    open_flows((&tramad, &vm), UDP_FLOWS, |number| {
        let own = SocketAddr::from(([0, 0, 0, 0], FIRST + number as u16));
        let socket = UdpSocket::bind(own).expect("bind");
        socket.set_read_timeout(Some(SOON)).expect("timeout");
        socket.send_to(b"hello", at(SERVER[0], PORT)).expect("send");
        assert_eq!(socket.recv(&mut [0; 100]).expect("an answer"), 5);
    });
    let flows = tramad.ctl("flows home");
    let count = flows.lines().filter(|line| line.contains("udp")).count();
    assert!(count >= UDP_FLOWS, "{count} flows");
    tramad.stop();
}
