//! The attacks, each with honest work of the same pace.

use std::os::fd::AsFd;
use std::time::Duration;

use trama_frame::vnet::{GSO_TCPV4, NEEDS_CSUM};
use trama_test_kit::requests::{
    GET_VRING_BASE, SET_MEM_TABLE, SET_VRING_ADDR, SET_VRING_KICK, SET_VRING_NUM, vring_state,
};

use super::guest::{
    BUFFERS, Descriptor, FRAME, HEADER, HostileGuest, INDIRECT, NEXT, STRIDE, VERSION, VOLLEY,
    Volley,
};

/// Something that a guest does again and again; each time has a number.
pub(super) type Act = fn(&mut HostileGuest, u64);

/// An attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) act: Act,
    /// The work of an honest guest that is as busy.
    pub(super) honest: Act,
    /// Time from one act to the next.
    pub(super) pace: Duration,
}

const fn attack(name: &'static str, act: Act) -> Attack {
    Attack { name, act, honest: send_frames, pace: Duration::from_millis(1) }
}

/// An attack of which a session serves 100 a second, as each is much more work than a frame. In a
/// debug build on two cores, 500 connections a second cost others 5 % of their round trips, and
/// 1000 changes of the memory table 12 to 17 %.
const fn slow_attack(name: &'static str, act: Act) -> Attack {
    Attack { pace: Duration::from_millis(10), ..attack(name, act) }
}

/// Chains that are not as they should be.
pub(super) static RINGS: [Attack; 9] = [
    slow_attack("descriptor loop", loop_descriptors),
    slow_attack("jump of the available index", jump),
    attack("address outside of memory", name_addresses_outside),
    attack("length of 0 or 4 GiB", name_lengths),
    attack("nested or odd indirect table", nest_tables),
    attack("header of 1-byte descriptors", split_headers),
    attack("chain shorter than its header", shorten),
    attack("header that lies", lie),
    Attack { honest: kick_each_frame, ..attack("kicks without frames", kick) },
];

/// Requests that are not as they should be, or too many.
pub(super) static PROTOCOL: [Attack; 4] = [
    slow_attack("SET_MEM_TABLE storm", set_memory),
    slow_attack("connection storm", connect),
    slow_attack("malformed requests", send_malformed),
    attack("GET_VRING_BASE and SET_VRING_KICK storm", restart),
];

/// Frames that are not as they should be, or too many.
pub(super) static FLOODS: [Attack; 2] = [
    attack("MAC flood", flood_macs),
    Attack { pace: Duration::from_micros(250), ..attack("broadcast storm", broadcast) },
];

fn send_frames(guest: &mut HostileGuest, _: u64) {
    guest.send(&Volley::honest(guest));
}

fn kick_each_frame(guest: &mut HostileGuest, _: u64) {
    guest.send(&Volley { kick_after: 1, ..Volley::honest(guest) });
}

fn loop_descriptors(guest: &mut HostileGuest, _: u64) {
    guest.send(&Volley::honest(guest).with(|i, descriptor| {
        descriptor.flags = NEXT;
        descriptor.next = ((i + 1) % VOLLEY) as u16;
    }));
}

fn jump(guest: &mut HostileGuest, _: u64) {
    guest.send(&Volley { skipped: 0x4000, ..Volley::honest(guest) });
}

fn name_addresses_outside(guest: &mut HostileGuest, number: u64) {
    // Far beyond, at the end of the address space, and across the end of the memory.
    let address = [1 << 40, u64::MAX - 8, guest.memory.size - 8][number as usize % 3];
    guest.send(&Volley::honest(guest).with(|_, descriptor| descriptor.address = address));
}

fn name_lengths(guest: &mut HostileGuest, number: u64) {
    let length = [0, u32::MAX][number as usize % 2];
    guest.send(&Volley::honest(guest).with(|_, descriptor| descriptor.length = length));
}

fn nest_tables(guest: &mut HostileGuest, number: u64) {
    // A table that consists of itself, or ends within a descriptor.
    let length = [16, 17][number as usize % 2];
    let mut volley = Volley::honest(guest).with(|_, descriptor| {
        descriptor.flags = INDIRECT;
        descriptor.length = length;
    });
    for (buffer, descriptor) in volley.buffers.chunks_mut(STRIDE).zip(&volley.table) {
        buffer[..16].copy_from_slice(&descriptor.to_bytes());
    }
    guest.send(&volley);
}

fn split_headers(guest: &mut HostileGuest, _: u64) {
    let mut volley = Volley::honest(guest);
    let parts = HEADER + 1;
    volley.heads = (0..VOLLEY).map(|i| (i * parts) as u16).collect();
    let part = |at: usize| {
        let (frame, offset) = (at / parts, at % parts);
        let address = BUFFERS + (frame * STRIDE + offset) as u64;
        let (length, flags) = if offset < HEADER { (1, NEXT) } else { (FRAME as u32, 0) };
        Descriptor { address, length, flags, next: at as u16 + 1 }
    };
    volley.table = (0..VOLLEY * parts).map(part).collect();
    guest.send(&volley);
}

fn shorten(guest: &mut HostileGuest, _: u64) {
    guest.send(&Volley::honest(guest).with(|_, descriptor| descriptor.length = 5));
}

fn lie(guest: &mut HostileGuest, number: u64) {
    let mut header = [0; HEADER];
    header[0] = NEEDS_CSUM;
    match number % 2 {
        // Segments of no bytes.
        0 => header[1] = GSO_TCPV4,
        // A checksum beyond the frame.
        _ => header[6..8].copy_from_slice(&60_000u16.to_le_bytes()),
    }
    guest.send(&Volley::new(guest.sink, |_| [0x52, 0x54, 0, 0, 0, 7], header));
}

fn kick(guest: &mut HostileGuest, _: u64) {
    (0..VOLLEY).for_each(|_| guest.kick());
}

fn set_memory(guest: &mut HostileGuest, _: u64) {
    let frontend = guest.frontend.as_ref().expect("a connection");
    frontend.accepts(SET_MEM_TABLE, &guest.memory.table(), &[guest.memory.file.as_fd()]);
}

fn connect(guest: &mut HostileGuest, _: u64) {
    guest.unplug();
    guest.plug();
}

fn send_malformed(guest: &mut HostileGuest, number: u64) {
    let frontend = guest.frontend.as_ref().expect("a connection");
    let file = guest.memory.file.as_fd();
    match number % 6 {
        0 => frontend.send(99, VERSION, &[], &[]),
        1 => frontend.send(SET_VRING_NUM, VERSION, &[1; 3], &[]),
        2 => frontend.send(SET_VRING_ADDR, VERSION, &[0xff; 40], &[]),
        3 => frontend.send(SET_MEM_TABLE, VERSION, &[0xff; 40], &[file, file]),
        4 => frontend.send(SET_VRING_KICK, VERSION, &[1; 8], &[]),
        _ => frontend.send_raw(&[0xff; 12], &[]),
    };
    guest.unplug();
}

fn restart(guest: &mut HostileGuest, _: u64) {
    let frontend = guest.frontend.as_ref().expect("a connection");
    frontend.send(GET_VRING_BASE, VERSION, &vring_state(1, 0), &[]);
    if frontend.reply().is_some() {
        let (ring, kick) = (1u64.to_ne_bytes(), guest.kicks[1].as_fd());
        frontend.accepts(SET_VRING_KICK, &ring, &[kick]);
    }
}

fn flood_macs(guest: &mut HostileGuest, number: u64) {
    let source = |i: usize| {
        let [.., a, b, c, d] = (number * VOLLEY as u64 + i as u64).to_be_bytes();
        [2, 7, a, b, c, d]
    };
    guest.send(&Volley::new(guest.sink, source, [0; HEADER]));
}

fn broadcast(guest: &mut HostileGuest, _: u64) {
    guest.send(&Volley::new([0xff; 6], |_| [0x52, 0x54, 0, 0, 0, 7], [0; HEADER]));
}
