//! A vhost-user session, from a frontend that sends anything. The rings only record; those of the
//! test kit panic if the session breaks their order.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

use trama_test_kit::{MockRings, RawFrontend, SharedMemory, eventfd};
use trama_vhost_net_backend::{Role, Session, SessionOptions};

use crate::input::Input;

/// The session is taken for hung after this time.
const SOON: Duration = Duration::from_secs(10);

/// Steps: bytes with some of three descriptors: memory, an event, `/dev/null`.
pub(super) fn vhost_user(bytes: &[u8]) {
    let mut input = Input(bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let options =
        SessionOptions { spacing: Duration::ZERO, ..SessionOptions::new(&path, Role::Server) };
    let session = Session::spawn(options, MockRings::new()).unwrap();
    let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
    let (event, null) = (eventfd(), std::fs::File::open("/dev/null").unwrap());
    let frontend = RawFrontend::connect(&path);
    while !input.is_empty() {
        let which = input.byte();
        let all = [memory.file.as_fd(), event.as_fd(), null.as_fd()];
        let fds: Vec<_> = (0..6).filter(|i| which >> i & 1 == 1).map(|i| all[i % 3]).collect();
        let bytes = input.piece();
        if !bytes.is_empty() && !frontend.send_raw(bytes, &fds) {
            break;
        }
    }
    // The session closes the connection once it has read all.
    let _ = frontend.stream.shutdown(Shutdown::Write);
    frontend.stream.set_read_timeout(Some(SOON)).unwrap();
    let end = (&frontend.stream).read_to_end(&mut Vec::new());
    let is_over = !end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(is_over, "the session does not close the connection");
    drop(session);
}

pub(super) mod seeds {
    use trama_test_kit::requests::*;

    use super::*;
    use crate::input::put_piece;

    pub(in super::super) fn vhost_user() -> Vec<Vec<u8>> {
        let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
        let (memory_fd, event) = (1, 2);
        let begin = [
            (0, GET_FEATURES, vec![]),
            (0, GET_PROTOCOL_FEATURES, vec![]),
            (0, SET_PROTOCOL_FEATURES, words(&[REPLY_ACK | MEM_SLOTS | PROTOCOL_MTU])),
            (0, SET_OWNER, vec![]),
            (0, SET_FEATURES, words(&[0x1_4000_0003])),
        ];
        let table = [(memory_fd, SET_MEM_TABLE, memory.table())];
        let slots = [(memory_fd, ADD_MEM_REG, memory.single()), (0, REM_MEM_REG, memory.single())];
        let ring = |index: u32| {
            [
                (0, SET_VRING_NUM, vring_state(index, 256).to_vec()),
                (0, SET_VRING_BASE, vring_state(index, 0).to_vec()),
                (0, SET_VRING_ADDR, memory.ring(index)),
                (event, SET_VRING_CALL, words(&[u64::from(index)])),
                (event, SET_VRING_KICK, words(&[u64::from(index)])),
                (0, SET_VRING_ENABLE, vring_state(index, 1).to_vec()),
            ]
        };
        let end = [
            (0, NET_SET_MTU, words(&[1500])),
            (0, GET_QUEUE_NUM, vec![]),
            (0, GET_CONFIG, vec![0; 24]),
            (0, GET_VRING_BASE, vring_state(1, 0).to_vec()),
            (0, RESET_OWNER, vec![]),
        ];
        let seed = |messages: &[&[(u8, u32, Vec<u8>)]]| {
            let mut seed = Vec::new();
            for (fds, request, body) in messages.concat() {
                seed.push(fds);
                put_piece(&mut seed, &message(request, 9, &body));
            }
            seed
        };
        vec![
            seed(&[&begin, &table, &ring(0), &ring(1), &end]),
            seed(&[&begin, &slots, &ring(0), &end]),
            seed(&[&begin, &table, &ring(1), &table, &ring(1), &slots]),
        ]
    }
}
