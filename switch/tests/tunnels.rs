//! Tunnels: two ends on loopback, what is no datagram of theirs, and workers that share a socket.
#![cfg(test)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBuf, RxqOvfl, UdpGroSegment},
};
use proptest::prelude::*;
use trama_frame::vxlan::{self, Vni};
use trama_frame::{MacAddr, Offloads, VnetHeader};
use trama_switch::explain::Route;
use trama_switch::{
    Device, DropReason, Engine, Lasting, NetworkId, PortCounters, PortId, Spin, Time, Tunnel,
    Tunnels, Vtep, Vxlan, WorkerGroup,
};
use trama_test_kit::{
    Station, c_tag, eventually, frame, large_segment, mac, network, port, tagged, trunk,
};

const SENDERS: usize = 8;

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn socket(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn senders(ip: IpAddr) -> Vec<OwnedFd> {
    (0..SENDERS).map(|_| socket(ip).into()).collect()
}

/// The receiving socket of a host, and where it is.
struct Host {
    ip: IpAddr,
    at: SocketAddr,
    socket: UdpSocket,
}

impl Host {
    fn new(ip: &str, merges: bool) -> Host {
        let ip = ip.parse().unwrap();
        let socket = socket(ip);
        setsockopt(&socket, UdpGroSegment, &merges).unwrap();
        Host { ip, at: socket.local_addr().unwrap(), socket }
    }

    fn vtep(&self, engine: &mut Engine, worker: usize) -> PortId {
        let vtep = Vtep::of_socket(self.socket.try_clone().unwrap().into(), worker);
        // No network has it.
        let any = network(&mut Engine::new(0), 1500);
        let settings = trama_switch::PortSettings { network: None, ..port(any, trunk()) };
        engine.add_port(settings, Device::Vtep(Box::new(vtep))).unwrap().0
    }

    /// Adds the port of a tunnel to another host.
    fn tunnel(
        &self,
        engine: &mut Engine,
        network: NetworkId,
        number: u32,
        to: &Host,
    ) -> (PortId, Lasting<PortCounters>) {
        let device = Vxlan::new(vni(number), to.at, senders(self.ip));
        engine.add_port(port(network, trunk()), Device::Vxlan(Box::new(device))).unwrap()
    }
}

fn tunnels(all: &[(u32, &Host, PortId)]) -> Arc<Tunnels> {
    let tunnel = |port| Tunnel { port, worker: 0 };
    let all = all.iter().map(|(number, host, port)| ((vni(*number), host.ip), tunnel(*port)));
    Arc::new(Tunnels::new(all, Vec::new()))
}

/// Two hosts with a network each, joined by a tunnel; both in one engine.
struct Lab {
    engine: Engine,
    hosts: [Host; 2],
    stations: [Station; 2],
    networks: [NetworkId; 2],
    ports: [PortId; 2],
    vteps: [PortId; 2],
    counters: [Lasting<PortCounters>; 2],
    clock: u64,
}

impl Lab {
    fn new(addresses: [&str; 2], offloads: Offloads, merges: bool) -> Lab {
        let mut engine = Engine::new(1);
        let hosts = addresses.map(|ip| Host::new(ip, merges));
        let networks = [0; 2].map(|_| network(&mut engine, 9000));
        let stations = networks.map(|it| Station::add(&mut engine, port(it, trunk()), offloads));
        let [(a, of_a, at_a), (b, of_b, at_b)] =
            [(0, 1), (1, 0)].map(|(here, there): (usize, usize)| {
                let added = hosts[here].tunnel(&mut engine, networks[here], 77, &hosts[there]);
                let vtep = hosts[here].vtep(&mut engine, 0);
                engine.set_tunnels(vtep, tunnels(&[(77, &hosts[there], added.0)])).unwrap();
                (added.0, added.1, vtep)
            });
        Lab {
            engine,
            hosts,
            stations,
            networks,
            ports: [a, b],
            vteps: [at_a, at_b],
            counters: [of_a, of_b],
            clock: 0,
        }
    }

    fn run(&mut self) {
        self.clock += 1_000_000;
        while self.engine.poll(Time(self.clock)) {
            self.clock += 1_000_000;
        }
    }

    fn dropped(&self, end: usize, reason: DropReason) -> u64 {
        self.counters[end].snapshot().dropped(reason)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the lengths and however the kernel merges, frames arrive as they were sent.
    #[test]
    fn frames_arrive_in_order(
        lens in prop::collection::vec(prop_oneof![60..70usize, 1400..1500usize, 60..9000usize], 1..150),
        merges: bool,
        v6: bool,
    ) {
        let addresses = if v6 { ["::1", "::1"] } else { ["127.0.0.1", "127.0.0.2"] };
        let mut lab = Lab::new(addresses, Offloads::NONE, merges);
        let sent: Vec<Vec<u8>> = lens.iter().map(|len| frame(mac(2), mac(1), *len)).collect();
        let mut arrived = Vec::new();
        for some in sent.chunks(40) {
            some.iter().for_each(|frame| lab.stations[0].send(frame));
            lab.run();
            arrived.extend(lab.stations[1].frames());
        }
        prop_assert!(arrived == sent, "{} of {} frames", arrived.len(), sent.len());
        let [from, to] = lab.counters.each_ref().map(|it| it.snapshot());
        prop_assert_eq!((from.tx_frames, to.rx_frames), (sent.len() as u64, sent.len() as u64));
        prop_assert_eq!(from.dropped_total() + to.dropped_total(), 0);
    }
}

fn cut(bytes: &[u8], header: &VnetHeader) -> Vec<Vec<u8>> {
    let mut cut = Vec::new();
    trama_frame::gso::segment(bytes, header, &mut [0; 9000], |it| cut.push(it.to_vec())).unwrap();
    cut
}

#[test]
fn a_large_segment_is_cut_before_it_leaves() {
    let mut lab = Lab::new(["127.0.0.1", "127.0.0.2"], Offloads::NONE, true);
    let (header, bytes) = large_segment(mac(2), mac(1), 50_000);
    lab.stations[0].handle.inject(header, &bytes).unwrap();
    lab.run();
    let expected = cut(&bytes, &header);
    assert!(expected.len() > 30);
    assert!(lab.stations[1].frames() == expected);
    assert_eq!(lab.counters[0].snapshot().software_gso_frames, 1);
    assert_eq!(lab.counters[0].snapshot().tx_frames, expected.len() as u64);
}

#[test]
fn segments_become_large_for_a_receiver_that_takes_it() {
    for addresses in [["127.0.0.1", "127.0.0.2"], ["::1", "::1"]] {
        for tag in [None, Some(c_tag(7))] {
            let mut lab = Lab::new(addresses, Offloads::ALL, true);
            let (mut header, mut bytes) = large_segment(mac(2), mac(1), 50_000);
            if let Some(tag) = tag {
                bytes = tagged(tag, &bytes);
                header.shift(4);
            }
            // Others between two of the same flow, which end it.
            for i in 0..3 {
                lab.stations[0].handle.inject(header, &bytes).unwrap();
                lab.stations[0].send(&frame(mac(2), mac(1), 60 + i));
            }
            lab.run();
            let arrived = lab.stations[1].handle.captured();
            let large: Vec<_> = arrived.iter().filter(|it| it.header.is_gso()).collect();
            assert_eq!((arrived.len(), large.len()), (6, 3));
            for it in large {
                assert!(cut(&it.bytes, &it.header) == cut(&bytes, &header));
            }
            let counted = lab.counters[1].snapshot();
            assert_eq!((counted.rx_frames, counted.rx_gso_frames), (6, 3));
            assert_eq!(counted.dropped_total(), 0);
        }
    }
}

#[test]
fn what_the_kernel_drops_is_counted() {
    let mut lab = Lab::new(["127.0.0.1", "127.0.0.2"], Offloads::NONE, false);
    setsockopt(&lab.hosts[1].socket, RcvBuf, &4096).unwrap();
    setsockopt(&lab.hosts[1].socket, RxqOvfl, &1).unwrap();
    let peer = socket(lab.hosts[0].ip);
    let mut datagram = vxlan::header(vni(77)).to_vec();
    datagram.extend(frame(mac(2), mac(1), 1000));
    let mut sent = 0;
    for many in [1, 100, 1, 50, 1] {
        for _ in 0..many {
            peer.send_to(&datagram, lab.hosts[1].at).unwrap();
        }
        sent += many;
        lab.run();
    }
    let lost = lab.dropped(1, DropReason::TunnelOverflow);
    assert!(lost > 100, "{lost}");
    assert_eq!(lab.stations[1].frames().len() as u64 + lost, sent);
}

#[test]
fn datagrams_that_are_no_tunnels_are_counted_by_reason() {
    let mut lab = Lab::new(["127.0.0.1", "127.0.0.2"], Offloads::NONE, true);
    let good = |number| {
        let mut datagram = vxlan::header(vni(number)).to_vec();
        datagram.extend(frame(mac(2), mac(1), 60));
        datagram
    };
    let (peer, stranger) = (socket(lab.hosts[0].ip), socket("127.0.0.3".parse().unwrap()));
    let at = lab.hosts[1].at;
    let send = |from: &UdpSocket, bytes: &[u8]| from.send_to(bytes, at).unwrap();
    send(&peer, &[]);
    send(&peer, &good(77)[..7]);
    send(&peer, &[[0xf7].as_slice(), &good(77)[1..]].concat());
    send(&stranger, &[0xff; 3]);
    send(&peer, &good(78));
    send(&stranger, &good(77));
    send(&stranger, &good(79));
    // With a header, and no frame behind it.
    send(&peer, &good(77)[..8]);
    send(&peer, &good(77)[..20]);
    send(&peer, &good(77));
    lab.run();
    assert_eq!(lab.dropped(1, DropReason::TunnelMalformed), 4);
    assert_eq!(lab.dropped(1, DropReason::TunnelUnknown), 3);
    assert_eq!(lab.dropped(1, DropReason::Runt), 2);
    assert_eq!(lab.stations[1].frames(), [frame(mac(2), mac(1), 60)]);
    assert_eq!(lab.counters[1].snapshot().dropped_total(), 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Each datagram is one frame or one drop.
    #[test]
    fn any_bytes_are_a_frame_or_a_drop(
        all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40),
        merges: bool,
    ) {
        let mut lab = Lab::new(["127.0.0.1", "127.0.0.2"], Offloads::NONE, merges);
        let peer = socket(lab.hosts[0].ip);
        for (i, bytes) in all.iter().enumerate() {
            let mut bytes = bytes.clone();
            if i % 2 == 0 && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&vxlan::header(vni(77)));
            }
            peer.send_to(&bytes, lab.hosts[1].at).unwrap();
        }
        lab.run();
        let counted = lab.counters[1].snapshot();
        prop_assert_eq!(counted.rx_frames + counted.dropped_total(), all.len() as u64);
    }
}

#[test]
fn frames_do_not_go_from_tunnel_to_tunnel() {
    let mut lab = Lab::new(["127.0.0.1", "127.0.0.2"], Offloads::NONE, true);
    let third = Host::new("127.0.0.4", false);
    let station = lab.stations[1].id;
    let device = Vxlan::new(vni(77), third.at, senders(lab.hosts[1].ip));
    let joined = lab.networks[1];
    let (to_third, of_third) =
        lab.engine.add_port(port(joined, trunk()), Device::Vxlan(Box::new(device))).unwrap();
    let vtep = lab.vteps[1];
    let both = [(77, &lab.hosts[0], lab.ports[1]), (77, &third, to_third)];
    lab.engine.set_tunnels(vtep, tunnels(&both)).unwrap();
    let to_all = frame(MacAddr::BROADCAST, mac(1), 60);
    let explained = lab.engine.explain(lab.ports[1], &to_all, Time(1)).unwrap();
    assert_eq!(explained.exits.iter().map(|it| it.port).collect::<Vec<_>>(), [station]);
    // The third host has a station, which the second one learns.
    let mut datagram = vxlan::header(vni(77)).to_vec();
    datagram.extend(frame(MacAddr::BROADCAST, mac(3), 60));
    socket(third.ip).send_to(&datagram, lab.hosts[1].at).unwrap();
    lab.run();
    assert_eq!(lab.stations[1].frames().len(), 1);
    assert_eq!(of_third.snapshot().rx_frames, 1);
    assert_eq!(lab.stations[0].frames().len(), 0, "it came by a tunnel, and goes by none");

    lab.stations[0].send(&frame(MacAddr::BROADCAST, mac(1), 60));
    lab.stations[0].send(&frame(mac(3), mac(1), 60));
    lab.run();
    assert_eq!(lab.stations[1].frames().len(), 1);
    assert_eq!(lab.dropped(1, DropReason::TunnelLocal), 1);
    let explained = lab.engine.explain(lab.ports[1], &frame(mac(3), mac(1), 60), Time(lab.clock));
    let explained = explained.unwrap();
    assert_eq!(explained.dropped, Some(DropReason::TunnelLocal));
    assert!(matches!(explained.route, Some(Route::Port { port, .. }) if port == to_third));
    assert_eq!(lab.dropped(1, DropReason::TunnelLocal), 1, "nothing was counted by that");
    let mut room = [0; 100];
    assert!(third.socket.recv(&mut room).is_err(), "nothing was sent there");
    lab.stations[1].send(&frame(mac(3), mac(2), 60));
    lab.run();
    assert_eq!(third.socket.recv(&mut room).unwrap(), 68);
}

#[test]
fn what_another_worker_receives_is_lost_by_no_move() {
    let group = WorkerGroup::new(3);
    let workers = [0, 1].map(|i| group.spawn(Spin::Never, format!("worker{i}"), None).unwrap());
    let host = Host::new("127.0.0.2", true);
    let peer = Host::new("127.0.0.1", false);
    let ends = [0, 1].map(|i| Vtep::of_mailbox(i).unwrap());
    let (mailbox_ends, mailboxes): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let settings = trama_switch::NetworkSettings {
        name: "lab".into(),
        mtu: 1500,
        mac_table_size: 100,
        mac_aging: std::time::Duration::from_secs(300),
    };
    let (id, lab) = group.network(settings);
    let of_network = lab.counters();
    workers[0].0.take_network(lab).unwrap();
    let device = Vxlan::new(vni(77), peer.at, senders(host.ip));
    let (tunnel, counters, station) = workers[0]
        .0
        .call(move |engine, _| {
            let device = Device::Vxlan(Box::new(device));
            let (tunnel, counters) = engine.add_port(port(id, trunk()), device).unwrap();
            (tunnel, counters, Station::add(engine, port(id, trunk()), Offloads::NONE))
        })
        .unwrap();
    let reads = Vtep::of_socket(host.socket.try_clone().unwrap().into(), 0);
    let mut vteps = Vec::new();
    for (worker, vtep) in [(0, reads)].into_iter().chain([0, 1].into_iter().zip(mailbox_ends)) {
        let settings = trama_switch::PortSettings { network: None, ..port(id, trunk()) };
        let add = move |engine: &mut Engine, _| {
            engine.add_port(settings, Device::Vtep(Box::new(vtep))).unwrap().0
        };
        vteps.push((worker, workers[worker].0.call(add).unwrap()));
    }
    let tell = |worker: usize| {
        let to = ((vni(77), peer.ip), Tunnel { port: tunnel, worker });
        let all = Arc::new(Tunnels::new([to], mailboxes.clone()));
        for &(place, vtep) in &vteps {
            let all = all.clone();
            let told = workers[place].0.call(move |engine, _| engine.set_tunnels(vtep, all));
            told.unwrap().unwrap();
        }
    };
    tell(0);
    let mut datagram = vxlan::header(vni(77)).to_vec();
    datagram.extend(frame(mac(2), mac(1), 60));
    let sender = socket(peer.ip);
    let (mut at, mut sent, mut arrived) = (0, 0, 0);
    let taken = || {
        let counted = counters.snapshot();
        counted.rx_frames + counted.dropped_total()
    };
    for round in 0..60 {
        for _ in 0..50 {
            sender.send_to(&datagram, host.at).unwrap();
            sent += 1;
        }
        if round % 3 == 2 {
            let to = 1 - at;
            workers[at].0.move_network(id, &workers[to].0, |_| {}).unwrap();
            at = to;
            tell(at);
        }
        // What found no room is counted with the next datagram that is handed over.
        eventually("each is a frame or a drop", || {
            let is_all = taken() == sent;
            if !is_all {
                sender.send_to(&datagram, host.at).unwrap();
                sent += 1;
            }
            is_all
        });
        arrived += station.frames().len() as u64;
    }
    let counted = counters.snapshot();
    assert_eq!(arrived, counted.rx_frames);
    assert_eq!(counted.dropped_total(), counted.dropped(DropReason::TunnelBusy));
    // Nothing but the tunnel has sent into the network.
    assert!(of_network.snapshot().busy_nanos > 0);
    for (worker, thread) in workers {
        worker.stop();
        thread.join().unwrap();
    }
}
