//! Datagrams from the network into a tunnel, over loopback.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt::UdpGroSegment};
use trama_frame::{Offloads, VnetHeader, gso, vnet, vxlan};
use trama_switch::{Device, Engine, PortSettings, Tunnel, Tunnels, Vtep, Vxlan};
use trama_test_kit::{Station, network, port, trunk};

use super::packets::mend_checksums;
use super::switch::settle;
use crate::input::Input;

/// The number of the tunnel.
const NUMBER: u32 = 77;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Steps: datagrams of the other host, or a frame of the station.
pub(super) fn tunnel(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut engine, mut clock) = (Engine::new(7), 0);
    let lab = network(&mut engine, 1500);
    let offloads = [Offloads::NONE, Offloads::ALL][usize::from(input.byte() % 2)];
    let station = Station::add(&mut engine, port(lab, trunk()), offloads);
    let (host, other) = (socket(), socket());
    setsockopt(&host, UdpGroSegment, &true).unwrap();
    let (at, to) = (host.local_addr().unwrap(), other.local_addr().unwrap());
    let vni = vxlan::Vni::new(NUMBER).unwrap();
    let device = Device::Vxlan(Box::new(Vxlan::new(vni, to, vec![socket().into()])));
    let (tunnel, _) = engine.add_port(port(lab, trunk()), device).unwrap();
    let vtep = Device::Vtep(Box::new(Vtep::of_socket(host.into(), 0)));
    let settings = PortSettings { network: None, ..port(lab, trunk()) };
    let (vtep, _) = engine.add_port(settings, vtep).unwrap();
    let tunnels = [((vni, to.ip()), Tunnel { port: tunnel, worker: 0 })];
    drop(engine.set_tunnels(vtep, Arc::new(Tunnels::new(tunnels, Vec::new()))).unwrap());
    while !input.is_empty() {
        let step = input.byte();
        if step & 7 == 7 {
            let header = VnetHeader::from_bytes(&input.array());
            let _ = station.handle.inject(header, input.piece());
            settle(&mut engine, &mut clock);
            check_sent(&other);
            continue;
        }
        let mut sent = Vec::new();
        for _ in 0..=step & 7 {
            let mut datagram = input.piece().to_vec();
            if step & 8 == 0 && datagram.len() > vxlan::LEN {
                mend_checksums(&mut datagram[vxlan::LEN..]);
            }
            let _ = other.send_to(&datagram, at);
            sent.push(datagram);
        }
        settle(&mut engine, &mut clock);
        check_received(&station, offloads, &sent);
    }
}

/// A station gets frames that it can take, each of which was in a datagram, in their order.
fn check_received(station: &Station, offloads: Offloads, sent: &[Vec<u8>]) {
    let mut waiting = sent.iter().filter_map(|it| it.get(vxlan::LEN..));
    let mut is_next = |frame: &[u8]| {
        assert!(waiting.any(|it| it == frame), "a frame that no datagram had: {frame:02x?}");
    };
    for got in station.handle.captured() {
        let (mut header, head) = (got.header, &got.bytes[..got.bytes.len().min(128)]);
        let needed = vnet::validate(&mut header, head, got.bytes.len());
        let needed = needed.expect("a frame with a wrong header leaves the switch");
        assert!(offloads.contains(needed), "a station gets what it cannot take");
        if header.is_gso() {
            let mut scratch = vec![0; 2 * 65536];
            gso::segment(&got.bytes, &header, &mut scratch, &mut is_next).expect("it is cut");
        } else {
            is_next(&got.bytes);
        }
    }
}

/// What leaves is a frame behind the header of the tunnel.
fn check_sent(other: &UdpSocket) {
    let mut room = vec![0; 65536];
    while let Ok(len) = other.recv(&mut room) {
        let parsed = vxlan::parse(&room[..len]);
        assert_eq!(parsed.map(vxlan::Vni::get), Ok(NUMBER), "another header");
        assert!(len >= vxlan::LEN + 14, "a frame of {} bytes", len - vxlan::LEN);
    }
}

pub(super) mod seeds {
    use super::super::frames::seeds::segments;
    use super::super::packets::{arp, tcp4, udp6};
    use super::*;
    use crate::input::put_piece;

    pub(in super::super) fn tunnel() -> Vec<Vec<u8>> {
        let header = vxlan::header(vxlan::Vni::new(NUMBER).unwrap());
        let datagrams = |frames: &[Vec<u8>]| {
            let mut bytes = vec![8 | (frames.len() as u8 - 1)];
            for frame in frames {
                put_piece(&mut bytes, &[&header[..], frame].concat());
            }
            bytes
        };
        let plain = [arp(1, [10, 0, 2, 1]), udp6([0xfd; 16], 53, b"plain")];
        let mut back = vec![7];
        back.extend_from_slice(&VnetHeader::default().to_bytes());
        put_piece(&mut back, &tcp4([10, 0, 2, 1], 80, (true, false, false)));
        let seed = |offloads: u8| {
            let mut seed = vec![offloads];
            seed.extend(datagrams(&plain));
            seed.extend(datagrams(&segments(true)[..4]));
            seed.extend(datagrams(&segments(false)[..4]));
            seed.extend_from_slice(&back);
            seed
        };
        vec![seed(0), seed(1)]
    }
}
