//! A guest and its VMM in one, which may write anything into its rings and send any request.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use trama_test_kit::requests::{
    GET_FEATURES, SET_FEATURES, SET_MEM_TABLE, SET_OWNER, SET_PROTOCOL_FEATURES, SET_VRING_ADDR,
    SET_VRING_BASE, SET_VRING_ENABLE, SET_VRING_KICK, SET_VRING_NUM, vring_state,
};
use trama_test_kit::{RawFrontend, SharedMemory, eventfd};
use trama_vhost_net_backend::features::{
    NET_F_CSUM, NET_F_HOST_TSO4, NET_F_MRG_RXBUF, RING_INDIRECT_DESC, VERSION_1,
    VHOST_USER_PROTOCOL_FEATURES,
};

/// Chains of a volley.
pub(super) const VOLLEY: usize = 16;
/// Where the buffers of a volley are, and how far one is from the next.
pub(super) const BUFFERS: u64 = 0x10_000;
pub(super) const STRIDE: usize = 128;
/// Descriptor flags.
pub(super) const NEXT: u16 = 1;
pub(super) const INDIRECT: u16 = 4;
/// Version 1 of the protocol, without a request for a reply.
pub(super) const VERSION: u32 = 1;
/// Length of a frame, and of its header.
pub(super) const FRAME: usize = 64;
pub(super) const HEADER: usize = 12;
/// The address of an honest guest.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 7];

const SIZE: u32 = 256;
const MEMORY: u64 = 1 << 20;
const TX: u32 = 1;
/// The transmit ring's parts, as [`SharedMemory::ring`] places them.
const TABLE: u64 = 0x4000;
const AVAILABLE: u64 = TABLE + 0x1000;
const USED: u64 = TABLE + 0x2000;
/// Longest wait for a volley to be used: some never are.
const USE: Duration = Duration::from_millis(2);
const FEATURES: u64 = NET_F_CSUM
    | NET_F_HOST_TSO4
    | NET_F_MRG_RXBUF
    | RING_INDIRECT_DESC
    | VHOST_USER_PROTOCOL_FEATURES
    | VERSION_1;

/// A descriptor of a ring.
#[derive(Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

impl Descriptor {
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// Chains that are made available together.
pub(super) struct Volley {
    /// What is written to [`BUFFERS`].
    pub(super) buffers: Vec<u8>,
    pub(super) table: Vec<Descriptor>,
    pub(super) heads: Vec<u16>,
    /// Chains of a kick.
    pub(super) kick_after: usize,
    /// By how much the index is larger than it should be.
    pub(super) skipped: u16,
}

impl Volley {
    /// Frames of these source addresses, with a header.
    pub(super) fn new(
        destination: [u8; 6],
        source: impl Fn(usize) -> [u8; 6],
        header: [u8; HEADER],
    ) -> Volley {
        let mut buffers = vec![0; VOLLEY * STRIDE];
        for (i, buffer) in buffers.chunks_mut(STRIDE).enumerate() {
            let start = [&header[..], &destination, &source(i), &[0x88, 0xb5]].concat();
            buffer[..start.len()].copy_from_slice(&start);
        }
        let place = |i: usize| BUFFERS + (i * STRIDE) as u64;
        let length = (HEADER + FRAME) as u32;
        let table =
            (0..VOLLEY).map(|i| Descriptor { address: place(i), length, flags: 0, next: 0 });
        let (table, heads) = (table.collect(), (0..VOLLEY as u16).collect());
        Volley { buffers, table, heads, kick_after: VOLLEY, skipped: 0 }
    }

    /// Frames of one station to another, each in a descriptor.
    pub(super) fn honest(guest: &HostileGuest) -> Volley {
        Volley::new(guest.sink, |_| MAC, [0; HEADER])
    }

    /// Changes each descriptor, which has a number.
    pub(super) fn with(mut self, change: impl Fn(usize, &mut Descriptor)) -> Volley {
        self.table.iter_mut().enumerate().for_each(|(i, descriptor)| change(i, descriptor));
        self
    }
}

/// A guest that may do anything.
pub(super) struct HostileGuest {
    path: PathBuf,
    pub(super) frontend: Option<RawFrontend>,
    pub(super) memory: SharedMemory,
    pub(super) kicks: [OwnedFd; 2],
    /// The address of the station that receives honest frames.
    pub(super) sink: [u8; 6],
    /// Chains made available so far.
    made: u16,
}

impl HostileGuest {
    /// Makes a guest for a port; it is not connected yet.
    pub(super) fn new(path: &Path, sink: &str) -> HostileGuest {
        let octets = sink.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("an octet"));
        HostileGuest {
            path: path.to_owned(),
            frontend: None,
            memory: SharedMemory::new(0, 0x7f00_0000_0000, MEMORY),
            kicks: [eventfd(), eventfd()],
            sink: octets.collect::<Vec<_>>().try_into().expect("six octets"),
            made: 0,
        }
    }

    /// Connects and starts both rings, unless that is done.
    pub(super) fn plug(&mut self) {
        while !self.is_open() {
            let frontend = RawFrontend::connect(&self.path);
            frontend.send(SET_PROTOCOL_FEATURES, VERSION, &0x8u64.to_ne_bytes(), &[]);
            frontend.send(SET_OWNER, VERSION, &[], &[]);
            frontend.send(SET_FEATURES, VERSION, &FEATURES.to_ne_bytes(), &[]);
            let file = self.memory.file.as_fd();
            frontend.send(SET_MEM_TABLE, VERSION, &self.memory.table(), &[file]);
            frontend.send(GET_FEATURES, VERSION, &[], &[]);
            // The connection before this one is gone once this one is served.
            if frontend.reply().is_none() {
                continue;
            }
            self.write(TABLE, &[0; 0x4000]);
            self.made = 0;
            for ring in 0..2 {
                let state = |value| vring_state(ring, value);
                frontend.send(SET_VRING_NUM, VERSION, &state(SIZE), &[]);
                frontend.send(SET_VRING_ADDR, VERSION, &self.memory.ring(ring), &[]);
                frontend.send(SET_VRING_BASE, VERSION, &state(0), &[]);
                let (body, kick) = (u64::from(ring).to_ne_bytes(), &self.kicks[ring as usize]);
                frontend.send(SET_VRING_KICK, VERSION, &body, &[kick.as_fd()]);
                frontend.send(SET_VRING_ENABLE, VERSION, &state(1), &[]);
            }
            frontend.send(GET_FEATURES, VERSION, &[], &[]);
            self.frontend = frontend.reply().map(|_| frontend);
        }
    }

    /// Hangs up.
    pub(super) fn unplug(&mut self) {
        self.frontend = None;
    }

    fn is_open(&self) -> bool {
        self.frontend.as_ref().is_some_and(|frontend| {
            let mut bytes = [0; 64];
            let received = recv(&frontend.stream, &mut bytes[..], RecvFlags::DONTWAIT);
            received.map_or_else(|error| error == rustix::io::Errno::AGAIN, |(_, count)| count > 0)
        })
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.file.write_all_at(bytes, at).expect("shared memory");
    }

    /// Kicks the transmit ring.
    pub(super) fn kick(&self) {
        rustix::io::write(&self.kicks[TX as usize], &1u64.to_ne_bytes()).expect("a kick");
    }

    /// Makes chains available, and waits a short time until they are used.
    pub(super) fn send(&mut self, volley: &Volley) {
        self.write(BUFFERS, &volley.buffers);
        let table: Vec<u8> = volley.table.iter().flat_map(|entry| entry.to_bytes()).collect();
        self.write(TABLE, &table);
        for heads in volley.heads.chunks(volley.kick_after) {
            for head in heads {
                let slot = u64::from(self.made % SIZE as u16);
                self.write(AVAILABLE + 4 + 2 * slot, &head.to_le_bytes());
                self.made = self.made.wrapping_add(1);
            }
            self.write(AVAILABLE + 2, &self.made.wrapping_add(volley.skipped).to_le_bytes());
            self.kick();
        }
        let began = Instant::now();
        while !self.is_used() && self.is_open() && began.elapsed() < USE {
            thread::sleep(Duration::from_micros(50));
        }
    }

    fn is_used(&self) -> bool {
        let mut used = [0; 2];
        self.memory.file.read_exact_at(&mut used, USED + 2).expect("shared memory");
        u16::from_le_bytes(used) == self.made
    }
}
