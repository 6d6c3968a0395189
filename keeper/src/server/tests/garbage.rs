//! A switch that sends anything.

use proptest::test_runner::{RngAlgorithm, TestRng};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket_with};

use super::*;
use crate::wire::{receive, send_bytes};

/// How many datagrams are sent.
const DATAGRAMS: u32 = 100_000;

/// A datagram: random bytes, or a request that was changed, or one with random keys.
fn datagram(random: &mut impl FnMut(u64) -> u64) -> Vec<u8> {
    let keys = ["a", "b", "", "vm1"];
    let key = keys[random(4) as usize];
    let value = vec![random(256) as u8; random(40) as usize];
    let request = match random(10) {
        0 => Request::Attach { version: random(3) as u32, claim: Claim::TakeOver },
        1 | 2 => Request::Put { key, value: &value },
        3 => Request::Get { key },
        4 => Request::Remove { key },
        5 => Request::Go,
        6 => Request::Relay { key, value: &value },
        7 => Request::Resume { key },
        8 => Request::Done { key },
        _ => Request::Close { key },
    };
    let mut bytes = postcard::to_allocvec(&request).unwrap();
    match random(4) {
        0 => {
            let length = 1 + random(100) as usize;
            bytes = (0..length).map(|_| random(256) as u8).collect();
        }
        1 => {
            let at = random(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random(8);
        }
        _ => {}
    }
    bytes
}

/// Whether the datagram could be the end, or could name what the test relies on.
fn is_spared(bytes: &[u8]) -> bool {
    matches!(
        postcard::from_bytes(bytes),
        Ok(Request::End | Request::Settle | Request::Put { key: "kept", .. })
            | Ok(Request::Remove { key: "kept" } | Request::Close { key: "honest" })
    )
}

#[test]
fn any_datagrams_are_answered_or_end_the_channel() {
    let world = World::new(LONG);
    let honest = world.attach(Claim::Main);
    honest.put("kept", b"value", &[]).unwrap();
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut random = |below: u64| rand_core(&mut rng) % below;
    let mut socket = None;
    let event = descriptor();
    for count in 0..DATAGRAMS {
        let bytes = datagram(&mut random);
        if is_spared(&bytes) {
            continue;
        }
        let open = socket.get_or_insert_with(|| raw(&world, random(2) == 0));
        let fds = vec![event.as_fd(); [0, 0, 1, 3][random(4) as usize]];
        if send_bytes(&*open, &bytes, &fds).is_err() || random(500) == 0 {
            socket = None;
            continue;
        }
        // Most of the time it reads what it is told; sometimes it lets answers pile up.
        if random(50) != 0 {
            let mut buffer = vec![0; LONGEST];
            let flags = rustix::net::RecvFlags::DONTWAIT;
            while crate::wire::receive_bytes(&*open, &mut buffer, flags)
                .is_ok_and(|it| it.bytes > 0)
            {}
        }
        if count % 1000 == 0 {
            assert_eq!(honest.get("kept").unwrap().unwrap().value, b"value", "{count}");
        }
    }
    drop(socket);
    assert_eq!(honest.get("kept").unwrap().unwrap().value, b"value");
    world.end(&honest);
}

fn rand_core(rng: &mut TestRng) -> u64 {
    use proptest::prelude::Rng;
    rng.next_u64() >> 8
}

/// A channel without a client.
fn raw(world: &World, attaches: bool) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(&world.path).unwrap()).unwrap();
    if attaches {
        let attach = Request::Attach { version: VERSION, claim: Claim::TakeOver };
        send(&socket, &attach, &[], LONGEST).unwrap();
        let _ = receive::<Vec<u8>>(&socket, LONGEST);
    }
    socket
}
