//! A gateway with all services but NAT: ARP, neighbour discovery, echo, DHCP, DNS, TFTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use trama_dhcp::Time;
use trama_dhcp::config::{Service, Settings};
use trama_gateway::{Config, Dhcp, Gateway, Output, PortMark, Random, Station, Upstream};

use super::packets::{GATEWAY, GATEWAY4, GATEWAY6, mend_checksums};
use crate::input::Input;

/// Most bytes of a frame without tag and FCS at an MTU of 1500.
const LONGEST: usize = 1514;

/// The gateway's settings: addresses of both versions of IP, and every service.
pub(super) fn config() -> Config {
    let settings = Settings {
        ranges: vec![Ipv4Addr::new(10, 0, 2, 101)..=Ipv4Addr::new(10, 0, 2, 110)],
        dns: Some(vec![GATEWAY4.into()]),
        domain: "lab.example".parse().ok(),
        ..Settings::default()
    };
    let address6 = |last: u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    let service = Service {
        settings,
        host_search: false,
        ranges6: vec![address6(0x1000)..=address6(0x1009)],
        ..Service::default()
    };
    Config {
        station: station(),
        hosts: vec![("printer.lab.example".to_owned(), IpAddr::from([10, 0, 2, 9]))],
        // Its files are those of this crate, which is only read.
        tftp: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/src").into()),
        dhcp: Some(Dhcp { folder: "/nowhere".into(), seed: 1, service }),
        nat: None,
        tells_events: true,
        tells_answers: true,
    }
}

/// The gateway's addresses.
pub(super) fn station() -> Station {
    Station {
        mac: GATEWAY,
        mtu: 1500,
        ipv4: Some(Ipv4Net::new_assert(GATEWAY4.into(), 24)),
        ipv6: Some(Ipv6Net::new_assert(GATEWAY6.into(), 64)),
        service_addresses: Vec::new(),
    }
}

/// The same numbers in every run.
pub(super) fn random() -> Random {
    let mut state = 1u64;
    Box::new(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 16
    })
}

/// Steps: a frame, the answer of a DNS server, its failure, time.
pub(super) fn gateway(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut gateway = Gateway::new(config(), random());
    gateway.open_leases(Duration::ZERO, Time::from_secs(1_700_000_000), Vec::new());
    gateway.set_servers(vec![([192, 0, 2, 53], 53).into(), ([192, 0, 2, 54], 53).into()]);
    let (mut now, mut out, mut asked) =
        (Duration::ZERO, Output::default(), Vec::<(usize, [u8; 2])>::new());
    while !input.is_empty() {
        let step = input.byte();
        match step % 8 {
            0..=3 => {
                let mut frame = input.piece().to_vec();
                if step & 8 == 0 {
                    mend_checksums(&mut frame);
                }
                gateway.handle(now, PortMark(u64::from(step >> 4)), &frame, &mut out);
            }
            4 | 5 => {
                let mut answer = input.piece().to_vec();
                if let Some((slot, id)) = asked.last()
                    && answer.len() >= 2
                {
                    // Otherwise it is not read further.
                    if step & 8 == 0 {
                        answer[..2].copy_from_slice(id);
                    }
                    gateway.server_answered(now, *slot, &answer, &mut out);
                }
            }
            6 => {
                if let Some((slot, _)) = asked.pop() {
                    gateway.server_failed(now, slot, &mut out);
                }
            }
            _ => {
                now += Duration::from_millis(u64::from(input.short()));
                gateway.poll(now, &mut out);
            }
        }
        check(&mut out, &mut asked);
    }
    let _ = (gateway.status(), gateway.lease_rows(now), gateway.take_warnings());
}

/// Checks what the gateway sends, and notes what it asks DNS servers.
fn check(out: &mut Output, asked: &mut Vec<(usize, [u8; 2])>) {
    for frame in out.frames.drain(..).chain(out.confirmed.drain(..)) {
        assert!((14..=LONGEST).contains(&frame.len()), "a frame of {} bytes", frame.len());
        assert_eq!(frame[6..12], GATEWAY, "a frame from another station");
    }
    for request in out.upstream.drain(..) {
        if let Upstream::Ask { slot, message, .. } = request {
            asked.push((slot, *message.first_chunk().expect("a query without a header")));
        }
    }
}

pub(super) mod seeds {
    use super::super::dhcp::seeds::{message4, message6};
    use super::super::packets::{arp, discovery, fragments4, fragments6, pings, udp4, udp6};
    use super::*;
    use crate::input::put_piece;

    fn steps(steps: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut seed = Vec::new();
        for (step, bytes) in steps {
            seed.push(*step);
            put_piece(&mut seed, bytes);
        }
        seed
    }

    /// A DNS message with one question, and records behind it.
    fn dns(flags: u16, name: &[&str], kind: u16, records: &[u8]) -> Vec<u8> {
        let (answers, others) = if flags & 0x8000 != 0 { (1, 0) } else { (0, 1) };
        let others = if records.is_empty() { 0 } else { others };
        let mut message = [0x1234, flags, 1, answers, 0, others].map(u16::to_be_bytes).concat();
        for label in name {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message.extend_from_slice(records);
        message
    }

    pub(in super::super) fn gateway() -> Vec<Vec<u8>> {
        let name = ["www", "example", "org"];
        let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0];
        let address = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &[192, 0, 2, 7]].concat();
        let query = |bytes: &[u8]| udp4(GATEWAY4, 53, bytes);
        let [ping4, ping6] = pings(GATEWAY4, GATEWAY6);
        let large = udp4(GATEWAY4, 53, &dns(0x0100, &name, 1, &[7; 900]));
        let [first, second, third] = &fragments4(&large, 400)[..] else { unreachable!() };
        let large6 = udp6(GATEWAY6, 53, &dns(0x0100, &name, 1, &[7; 900]));
        let Ok(large6) = <[Vec<u8>; 3]>::try_from(fragments6(&large6, 400)) else { unreachable!() };
        let dhcp = |message: &[u8]| {
            let mut frame = udp4([255; 4], 67, message);
            frame[..6].fill(0xff);
            frame[26..30].fill(0);
            frame[34..36].copy_from_slice(&68u16.to_be_bytes());
            frame
        };
        let mut dhcp6 = udp6(
            [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2],
            547,
            &message6(
                1,
                &[(1, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 2]), (3, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])],
            ),
        );
        dhcp6[..6].copy_from_slice(&[0x33, 0x33, 0, 1, 0, 2]);
        let wait = (7, Vec::new());
        vec![
            steps(&[(0, arp(1, GATEWAY4)), (0, arp(2, GATEWAY4)), (0, ping4), (0, ping6)]),
            steps(&[
                (0, discovery(135, GATEWAY6)),
                (0, discovery(136, GATEWAY6)),
                (0, discovery(133, GATEWAY6)),
                wait.clone(),
            ]),
            steps(&[
                (0, query(&dns(0x0100, &name, 1, &opt))),
                (4, dns(0x8180, &name, 1, &address)),
                (0, query(&dns(0x0100, &["printer", "lab", "example"], 1, &[]))),
                (0, query(&dns(0x0100, &["9", "2", "0", "10", "in-addr", "arpa"], 12, &[]))),
            ]),
            steps(&[(0, query(&dns(0x0100, &name, 28, &[]))), (6, Vec::new()), wait.clone()]),
            steps(&[(0, first.clone()), (0, third.clone()), (0, second.clone())]),
            steps(&large6.map(|part| (0, part))),
            steps(&[
                (0, udp4(GATEWAY4, 69, b"\0\x01lib.rs\0octet\0blksize\x001024\0tsize\x000\0")),
                (0, udp4(GATEWAY4, 69, b"\0\x04\0\0")),
                (0, udp4(GATEWAY4, 69, b"\0\x02lib.rs\0octet\0")),
                (0, udp4(GATEWAY4, 69, b"\0\x01../Cargo.toml\0netascii\0windowsize\x004\0")),
                wait.clone(),
            ]),
            steps(&[
                (0, dhcp(&message4(1, 2, &[(55, &[1, 3, 6, 15, 119])]))),
                (7, vec![0; 0]),
                (0, dhcp(&message4(3, 2, &[(50, &[10, 0, 2, 101]), (54, &GATEWAY4)]))),
                (0, dhcp6),
                wait,
            ]),
        ]
    }
}
