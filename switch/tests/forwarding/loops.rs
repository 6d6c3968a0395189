//! Loops: suspicion, probes that come back, and blocked ports.

use std::io::Read;
use std::os::unix::net::UnixStream;

use trama_switch::LoopReport;

use trama_frame::VlanId;

use super::*;

const ETHERTYPE: [u8; 2] = [0x88, 0xb7];

fn lab() -> Lab {
    Lab::new(&[trunk(), trunk(), trunk()])
}

/// Sends a probe from each of these ports; returns the frame that each port received.
fn probe(lab: &mut Lab, vlan: VlanId, ports: &[usize]) -> Vec<Vec<Vec<u8>>> {
    let ids: Vec<_> = ports.iter().map(|port| lab.stations[*port].id).collect();
    lab.engine.send_probes(lab.network, vlan, &ids, Time(lab.clock));
    lab.stations.iter().map(Station::frames).collect()
}

/// Returns the frame of a probe sent at a port.
fn probe_of(lab: &mut Lab, port: usize) -> Vec<u8> {
    probe(lab, VlanId::NONE, &[port])[port].pop().expect("a probe")
}

fn returned(lab: &Lab, sent: usize, received: usize) -> LoopReport {
    let [sent, received] = [sent, received].map(|port| lab.stations[port].id);
    LoopReport::Returned { network: lab.network, vlan: VlanId::NONE, sent, received }
}

#[test]
fn a_probe_that_comes_back_is_reported_and_not_forwarded() {
    let mut lab = lab();
    let (alarm, mut seen) = UnixStream::pair().unwrap();
    seen.set_nonblocking(true).unwrap();
    lab.engine.set_alarm(alarm.into());
    let sent = probe(&mut lab, VlanId::NONE, &[0, 1]);
    let shapes: Vec<Vec<_>> = sent.iter().map(|at| at.iter().map(Vec::len).collect()).collect();
    assert_eq!(shapes, [vec![60], vec![60], vec![]]);
    assert_eq!(sent[0][0][12..14], ETHERTYPE);
    assert_ne!(sent[0], sent[1]);
    assert!(lab.engine.loop_reports().is_empty(), "nothing has come back");

    assert!(nothing(&lab.send(1, &sent[0][0])));
    assert!(nothing(&lab.send(2, &sent[0][0])));
    assert!(nothing(&lab.send(0, &sent[0][0])));
    assert!(nothing(&lab.send(1, &sent[0][0])), "once more");
    assert_eq!(seen.read(&mut [0; 64]).unwrap(), 3 * 8, "an alarm for each pair of ports");
    let reports = [1, 2, 0].map(|at| returned(&lab, 0, at));
    assert_eq!(lab.engine.loop_reports(), reports);
    assert!(lab.engine.loop_reports().is_empty());
    assert_eq!([0, 1, 2].map(|at| lab.dropped(at, DropReason::Loop)), [1, 2, 1]);
    assert!(lab.engine.fdb(lab.network, Time(lab.clock)).is_empty(), "its source is not kept");
}

#[test]
fn forged_and_old_probes_prove_nothing() {
    let mut lab = lab();
    let genuine = probe_of(&mut lab, 0);
    // Any change makes it a frame like others.
    for at in [14, 19, 30, 38, 44, 48, 49, 56] {
        let mut forged = genuine.clone();
        forged[at] ^= 1;
        assert_eq!(lab.send(1, &forged), [vec![forged.clone()], vec![], vec![forged.clone()]]);
    }
    // Another run's, too.
    let mut other = Lab::new(&[trunk(), trunk()]);
    other.engine = Engine::new(8);
    let network = network(&mut other.engine, 1500);
    let add = |engine: &mut Engine| Station::add(engine, port(network, trunk()), Offloads::ALL);
    other.stations = vec![add(&mut other.engine)];
    other.network = network;
    let foreign = probe_of(&mut other, 0);
    assert_eq!(lab.send(1, &foreign)[2], [foreign]);
    assert!(lab.engine.loop_reports().is_empty());
    // A copy of an old one is not forwarded while probes are out, and proves nothing.
    lab.clock += 2_200_000_000;
    probe_of(&mut lab, 2);
    assert!(nothing(&lab.send(1, &genuine)));
    assert!(lab.engine.loop_reports().is_empty());
    // Without probes out it is a frame like others.
    lab.clock += 2_200_000_000;
    assert_eq!(lab.send(1, &genuine)[2], [genuine]);
    assert!(lab.engine.loop_reports().is_empty());
}

#[test]
fn a_copied_probe_names_the_port_that_copies_it() {
    let mut lab = lab();
    let copy = probe_of(&mut lab, 0);
    // Its guest floods the network with the copy: only that one port is named.
    for _ in 0..100 {
        lab.send(2, &copy);
    }
    assert_eq!(lab.engine.loop_reports(), [returned(&lab, 0, 2)]);
}

#[test]
fn a_probe_leaves_as_a_frame_of_its_vlan_and_comes_back_in_any() {
    let modes = [access(10), trunk(), access(20)];
    let mut lab = Lab::new(&modes);
    let sent = probe(&mut lab, vid(10), &[0, 1, 2]);
    assert_eq!(sent[0][0][12..14], ETHERTYPE);
    assert_eq!((sent[1][0].len(), &sent[1][0][12..16]), (64, &[0x81, 0, 0, 10][..]));
    assert!(sent[2].is_empty(), "not a member");
    assert!(nothing(&lab.send(1, &sent[1][0])));
    assert!(nothing(&lab.send(2, &sent[0][0])));
    let at = |sent: usize, received: usize| LoopReport::Returned {
        network: lab.network,
        vlan: vid(10),
        sent: lab.stations[sent].id,
        received: lab.stations[received].id,
    };
    let wanted = [at(1, 1), at(0, 2)];
    assert_eq!(lab.engine.loop_reports(), wanted);
}

#[test]
fn another_network_forwards_a_probe() {
    let mut lab = lab();
    let other = network(&mut lab.engine, 1500);
    lab.set(1, |settings| settings.network = Some(other));
    lab.set(2, |settings| settings.network = Some(other));
    let sent = probe_of(&mut lab, 0);
    let there = lab.stations[1].id;
    lab.engine.send_probes(other, VlanId::NONE, &[there], Time(lab.clock));
    lab.stations[1].frames();
    assert_eq!(lab.send(1, &sent)[2], [sent], "so that a loop over two networks is found");
    assert!(lab.engine.loop_reports().is_empty());
}

#[test]
fn an_address_that_moves_often_is_reported_once_a_second() {
    let mut lab = lab();
    let broadcast = broadcast_of(9);
    let bounce = |lab: &mut Lab, times: usize| {
        for n in 0..times {
            lab.send(n % 2, &broadcast);
        }
        lab.engine.loop_reports()
    };
    // The first frame is new and moves nothing.
    assert_eq!(bounce(&mut lab, 51), []);
    let ports = [0, 1].map(|port: usize| lab.stations[port].id);
    let moves = LoopReport::Moves { network: lab.network, vlan: VlanId::NONE, ports };
    assert_eq!(bounce(&mut lab, 20), [moves]);
    assert_eq!(bounce(&mut lab, 20), []);
    // One that moves to another host is not suspected.
    lab.clock += 10_000_000_000;
    lab.send(2, &broadcast);
    assert_eq!(lab.engine.loop_reports(), []);
}

#[test]
fn a_blocked_port_neither_sends_nor_receives_but_returns_probes() {
    let mut lab = lab();
    let (there, back) = (frame(mac(2), mac(1), 60), frame(mac(1), mac(2), 60));
    lab.send(0, &there);
    lab.send(1, &back);
    let blocked = lab.stations[1].id;
    lab.engine.block_port(blocked, true).unwrap();
    let known: Vec<_> = lab.engine.fdb(lab.network, Time(lab.clock));
    assert!(known.iter().all(|(port, _)| *port != blocked), "{known:?}");
    assert!(nothing(&lab.send(1, &back)));
    let broadcast = broadcast_of(1);
    assert_eq!(lab.send(0, &broadcast), [vec![], vec![], vec![broadcast]]);
    assert_eq!(lab.dropped(1, DropReason::Loop), 2, "one each way");

    // Probes pass both ways.
    let sent = probe(&mut lab, VlanId::NONE, &[0, 1]);
    assert!(nothing(&lab.send(1, &sent[0][0])));
    assert!(nothing(&lab.send(0, &sent[1][0])));
    let wanted = [returned(&lab, 0, 1), returned(&lab, 1, 0)];
    assert_eq!(lab.engine.loop_reports(), wanted);
    // It stays blocked through a change of its settings.
    lab.set(1, |settings| settings.mark = 7);
    assert!(nothing(&lab.send(1, &back)));

    lab.send(2, &sent[0][0]);
    lab.engine.block_port(blocked, false).unwrap();
    assert!(lab.engine.loop_reports().is_empty(), "those of before do not count");
    assert_eq!(lab.send(1, &back)[0], [back]);
    // A pulled cable counts as such.
    lab.engine.block_port(blocked, true).unwrap();
    lab.set(1, |settings| settings.cable = false);
    lab.send(1, &broadcast_of(2));
    assert_eq!(lab.dropped(1, DropReason::CableOut), 1);
}

fn broadcast_of(station: u8) -> Vec<u8> {
    frame(MacAddr::BROADCAST, mac(station), 60)
}
