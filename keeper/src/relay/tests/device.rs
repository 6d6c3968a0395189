//! A device as the sessions of a switch have it: what messages make of it, and the replies.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::fs::fstat;

use crate::framing::{Message, NEED_REPLY, REPLY, VERSION, word};

const RINGS: u64 = 3;

/// A message of a frontend: the numbers of its files stand for descriptors.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    request: u32,
    wants_reply: bool,
    body: Vec<u8>,
    pub(super) files: Vec<usize>,
    /// Makes each message another one.
    index: u8,
}

impl Sent {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let flags = VERSION | if self.wants_reply { NEED_REPLY } else { 0 };
        // The upper bits of the flags mean nothing here, and tell messages apart.
        let flags = flags | u32::from(self.index) << 8;
        let words = [self.request, flags, self.body.len() as u32];
        let header = words.iter().flat_map(|word| word.to_ne_bytes());
        header.chain(self.body.iter().copied()).collect()
    }
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn region(number: u64) -> [u64; 4] {
    [number << 20, 1 << 20, number << 30, 0]
}

/// The request, its body and its files.
fn message() -> impl Strategy<Value = (u32, Vec<u8>, Vec<usize>)> {
    let (ring, value, file) = (0..RINGS, 0..4_u64, 0..4_usize);
    let of_ring = prop_oneof![Just(8), Just(10), Just(11), Just(18)];
    prop_oneof![
        // Questions, owner, resets; some that no device knows.
        prop_oneof![Just(1), Just(3), Just(15), Just(17), Just(4), Just(34), Just(60)]
            .prop_map(|request| (request, Vec::new(), Vec::new())),
        (prop_oneof![Just(2), Just(16), Just(20)], value.clone()).prop_map(|(request, value)| (
            request,
            numbers(&[value]),
            Vec::new()
        )),
        (of_ring, ring.clone(), value.clone()).prop_map(|(request, ring, value)| {
            (request, numbers(&[ring | value << 32]), Vec::new())
        }),
        (ring.clone(), value.clone()).prop_map(|(ring, value)| (
            9,
            numbers(&[ring, value, value, value, 0]),
            Vec::new()
        )),
        (prop_oneof![Just(12), Just(13)], ring.clone(), file.clone())
            .prop_map(|(request, ring, file)| (request, numbers(&[ring]), vec![file])),
        (prop_oneof![Just(12), Just(13)], ring).prop_map(|(request, ring)| (
            request,
            numbers(&[ring | 0x100]),
            Vec::new()
        )),
        prop::collection::btree_map(0..5_u64, file.clone(), 1..4).prop_map(|regions| {
            let mut body = vec![regions.len() as u64];
            body.extend(regions.keys().flat_map(|number| region(*number)));
            (5, numbers(&body), regions.into_values().collect())
        }),
        (0..5_u64, file).prop_map(|(number, file)| {
            (37, numbers(&[&[0], &region(number)[..]].concat()), vec![file])
        }),
        (0..5_u64).prop_map(|number| {
            (38, numbers(&[&[0], &region(number)[..]].concat()), Vec::new())
        }),
    ]
}

pub(super) fn conversation() -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec((message(), any::<bool>()), 0..60).prop_map(|messages| {
        let sent = |(index, ((request, body, files), wants_reply))| Sent {
            request,
            wants_reply,
            body,
            files,
            index: index as u8,
        };
        messages.into_iter().enumerate().map(sent).collect()
    })
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Ring {
    size: u32,
    base: u32,
    addresses: Vec<u8>,
    /// `Some(None)` without a descriptor.
    kick: Option<Option<u64>>,
    call: Option<u64>,
    is_enabled: bool,
}

#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Device {
    /// Of the requests that set a single value.
    values: BTreeMap<u32, Vec<u8>>,
    is_owned: bool,
    /// Whether protocol features were asked for before there was an owner.
    asked_unowned: Option<bool>,
    was_asked: bool,
    regions: BTreeSet<(Vec<u8>, u64)>,
    rings: [Ring; RINGS as usize],
}

fn identity(fd: &OwnedFd) -> u64 {
    fstat(fd).unwrap().st_ino
}

impl Device {
    /// Serves a message; returns the reply, if there is one.
    pub(super) fn serve(&mut self, message: &Message) -> Vec<u8> {
        let (request, body) = (message.request().unwrap(), message.body());
        let fds: Vec<u64> = message.fds.iter().map(identity).collect();
        let mut answer = None;
        match request {
            1 | 17 => {
                self.was_asked |= request == 1;
                answer = Some(numbers(&[7]));
            }
            15 => {
                let asked_unowned = *self.asked_unowned.get_or_insert(!self.is_owned);
                answer = Some(numbers(&[asked_unowned.into()]));
            }
            3 => self.is_owned = true,
            2 | 16 | 20 => drop(self.values.insert(request, body.to_vec())),
            4 | 34 => self.rings.iter_mut().for_each(|ring| {
                (ring.kick, ring.is_enabled) = (None, false);
            }),
            5 => {
                let regions = body[8..].chunks_exact(32).map(<[u8]>::to_vec);
                self.regions = regions.zip(fds).collect();
            }
            37 | 38 => {
                let region = &body[8..];
                self.regions.retain(|(other, _)| other[..24] != region[..24]);
                self.regions.extend(fds.first().map(|fd| (region.to_vec(), *fd)));
            }
            8..=13 | 18 => answer = self.serve_ring(request, body, fds.first().copied()),
            _ => {}
        }
        let wants_reply = word(&message.bytes, 4).unwrap() & NEED_REPLY != 0;
        let answer = answer.or_else(|| wants_reply.then(|| numbers(&[0])));
        let Some(answer) = answer else { return Vec::new() };
        let words = [request, VERSION | REPLY, answer.len() as u32];
        words.iter().flat_map(|word| word.to_ne_bytes()).chain(answer).collect()
    }

    fn serve_ring(&mut self, request: u32, body: &[u8], fd: Option<u64>) -> Option<Vec<u8>> {
        let number = word(body, 0)?;
        let index = if matches!(request, 12 | 13) { number & 0xff } else { number };
        let ring = self.rings.get_mut(index as usize)?;
        match request {
            8 => (ring.size, ring.kick) = (word(body, 4)?, None),
            9 => ring.addresses = body.to_vec(),
            10 => (ring.base, ring.kick) = (word(body, 4)?, None),
            11 => {
                // A ring that runs has come to some index, which only depends on its state here.
                if ring.kick.take().is_some() {
                    ring.base = ring.size * 7 + ring.addresses.len() as u32;
                }
                return Some(numbers(&[u64::from(index) | u64::from(ring.base) << 32]));
            }
            12 => ring.kick = Some(fd),
            13 => ring.call = fd,
            _ => ring.is_enabled = word(body, 4)? != 0,
        }
        None
    }
}
