//! Packets to NAT. Its flows have sockets of the host, so the target runs in a network namespace
//! that has no way out ([`isolated`]); elsewhere it does nothing.

use std::env;
use std::process::Command;
use std::time::Duration;

use mio::{Events, Poll};
use trama_frame::VnetHeader;
use trama_nat::{Cable, Config, Context, Counters, Discovery, DropReason, FlowEvents, Nat};
use trama_nat::{PortMark, Rules};

use super::gateway::{random, station};
use super::packets::mend_checksums;
use crate::input::Input;

/// Set inside the namespace.
const INSIDE: &str = "TRAMA_FUZZ_INSIDE";
/// What listens for the guest there, and answers its echo requests.
const SETUP: &str = "ip link set lo up; ip addr add 198.51.100.1/32 dev lo; \
                     ip addr add 2001:db8::1/128 dev lo nodad; \
                     echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range";
/// Most bytes of a frame that needs no offload.
const LONGEST: usize = 1514;

/// Returns the command that runs this program again, with these arguments, where the target `nat`
/// works; `None` inside.
pub fn isolated(arguments: &[&str]) -> Option<Command> {
    if env::var_os(INSIDE).is_some() {
        return None;
    }
    let program = env::current_exe().unwrap();
    let script = format!("set -e; {SETUP}; exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).arg(program).args(arguments).env(INSIDE, "1");
    Some(command)
}

/// A cable with little room.
#[derive(Default)]
struct Wire(Vec<(VnetHeader, Vec<u8>)>);

impl Cable for Wire {
    fn room(&mut self) -> usize {
        64 - self.0.len().min(64)
    }

    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason> {
        if self.0.len() >= 64 {
            return Err(DropReason::RingFull);
        }
        self.0.push((*header, parts.concat()));
        Ok(())
    }
}

/// Steps: a header and a frame, or time.
pub(super) fn nat(bytes: &[u8]) {
    if env::var_os(INSIDE).is_none() {
        return;
    }
    let mut input = Input(bytes);
    let station = station();
    let rules = Rules { reflect: Discovery::ALL.into(), ..Rules::default() };
    let (mut nat, mut poll) = (Nat::default(), Poll::new().unwrap());
    let (mut counters, mut events) = (Counters::default(), FlowEvents::default());
    let (mut wire, mut random, mut now) = (Wire::default(), random(), Duration::ZERO);
    let mut ready = Events::with_capacity(64);
    while !input.is_empty() {
        let step = input.byte();
        let registry = poll.registry().try_clone().unwrap();
        let mut context = Context {
            now,
            config: Config { station: &station, rules: Some(&rules) },
            registry: &registry,
            cable: &mut wire,
            counters: &mut counters,
            events: &mut events,
            random: &mut random,
        };
        if step & 1 == 0 {
            let header = if step & 2 == 0 {
                VnetHeader::default()
            } else {
                VnetHeader::from_bytes(&input.array())
            };
            let mut frame = input.piece().to_vec();
            if step & 4 == 0 {
                mend_checksums(&mut frame);
            }
            drop(nat.receive(PortMark(u64::from(step >> 6)), header, &frame, &mut context));
        } else {
            now += Duration::from_millis(10 * u64::from(input.short()));
            context.now = now;
        }
        nat.poll(&mut context);
        poll.poll(&mut ready, Some(Duration::ZERO)).unwrap();
        ready.iter().for_each(|event| nat.ready(event, &mut context));
        nat.poll(&mut context);
        check(&mut wire);
    }
    let _ = (nat.flow_rows(now), nat.deadline(now), counters.drops());
}

/// A frame to the guest fits its link, or has a header by which it is cut.
fn check(wire: &mut Wire) {
    for (mut header, frame) in wire.0.drain(..) {
        let head = &frame[..frame.len().min(128)];
        let needed = trama_frame::vnet::validate(&mut header, head, frame.len());
        assert!(needed.is_ok(), "a frame with a wrong header: {needed:?}");
        assert!(header.is_gso() || frame.len() <= LONGEST, "a frame of {} bytes", frame.len());
    }
}

pub(super) mod seeds {
    use super::super::packets::{fragments4, fragments6, pings, tcp4, udp4, udp6};
    use crate::input::put_piece;

    const PEER4: [u8; 4] = [198, 51, 100, 1];
    const PEER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn steps(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut seed = Vec::new();
        for frame in frames {
            seed.push(0);
            put_piece(&mut seed, frame);
            seed.extend_from_slice(&[1, 1, 0]);
        }
        seed
    }

    pub(in super::super) fn nat() -> Vec<Vec<u8>> {
        let [ping4, ping6] = pings(PEER4, PEER6);
        let (syn, ack, fin) = ((true, false, false), (false, true, false), (false, true, true));
        let tcp = |flags| tcp4(PEER4, 7000, flags);
        let query = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x05_http\x04_tcp\x05local\0\0\x0c\0\x01";
        let mut mdns = udp4([224, 0, 0, 251], 5353, query);
        mdns[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 0xfb]);
        mdns[34..36].copy_from_slice(&5353u16.to_be_bytes());
        let search = b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMX: 1\r\nST: a\r\n\r\n";
        let mut ssdp = udp4([239, 255, 255, 250], 1900, search);
        ssdp[..6].copy_from_slice(&[1, 0, 0x5e, 0x7f, 0xff, 0xfa]);
        let large = udp4(PEER4, 7000, &[5; 1200]);
        let mut error = pings(PEER4, PEER6)[0].clone();
        error.truncate(42);
        error[34..36].copy_from_slice(&[3, 4]);
        error[40..42].copy_from_slice(&1280u16.to_be_bytes());
        error.extend_from_slice(&udp4(PEER4, 7000, b"quoted")[14..]);
        let len = error.len() as u16 - 14;
        error[16..18].copy_from_slice(&len.to_be_bytes());
        vec![
            steps(&[udp4(PEER4, 7000, b"hello"), udp4(PEER4, 7000, b"again"), error]),
            steps(&[udp6(PEER6, 7000, b"hello"), ping4, ping6]),
            steps(&[tcp(syn), tcp(ack), tcp(fin), tcp(ack)]),
            steps(&fragments4(&large, 400)),
            steps(&fragments6(&udp6(PEER6, 7000, &[5; 1200]), 400)),
            steps(&[mdns, ssdp]),
        ]
    }
}
