//! The keeper, from a switch that sends anything and from frontends that do.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, connect, recv, sendmsg, shutdown, socket_with,
};

use crate::input::Input;

/// How long the keeper would wait for another switch.
const LINGER: Duration = Duration::from_secs(60);
/// The claim of a switch that replaces any other (`Claim::TakeOver` of `keeper/src/request.rs`).
const TAKE_OVER: u8 = 2;
/// The request by which the keeper ends.
const END: u8 = 10;

/// Steps: a datagram of the switch, with events or the connection of a frontend; bytes of the last
/// frontend; reads of the switch.
pub(super) fn keeper(bytes: &[u8]) {
    let mut input = Input(bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keeper");
    let listener = trama_keeper::listen_at(&path).unwrap();
    let switch = channel(&path).unwrap();
    let server = thread::spawn(move || trama_keeper::serve(listener, LINGER));
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let mut frontends: Vec<UnixStream> = Vec::new();
    while !input.is_empty() {
        let step = input.byte();
        let sent = match step % 8 {
            0..=3 => {
                let count = usize::from(step >> 4);
                send(&switch, input.piece(), &vec![event.as_fd(); count])
            }
            4 | 5 => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                ours.set_nonblocking(true).unwrap();
                frontends.push(ours);
                send(&switch, input.piece(), &[theirs.as_fd()])
            }
            6 => {
                if let Some(frontend) = frontends.last_mut() {
                    let _ = frontend.write(input.piece());
                    let _ = frontend.read(&mut [0; 4096]);
                }
                true
            }
            _ => {
                let _ = recv(&switch, &mut [0; 4096], RecvFlags::DONTWAIT);
                true
            }
        };
        if !sent {
            break;
        }
    }
    // All requests are read before the channel is closed.
    close(switch);
    drop(frontends);
    // Whatever that switch has said, the next one is served, unless the keeper has ended already.
    if let Ok(next) = channel(&path) {
        send(&next, &[0, 1, TAKE_OVER], &[]);
        send(&next, &[END], &[]);
        close(next);
    }
    server.join().expect("the keeper panics").expect("the keeper fails");
}

fn channel(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(path).unwrap())?;
    Ok(socket)
}

/// Ends a channel, and waits until the keeper has done the same.
fn close(switch: OwnedFd) {
    let _ = shutdown(&switch, Shutdown::Write);
    while recv(&switch, &mut [0; 4096], RecvFlags::empty()).is_ok_and(|(len, _)| len > 0) {}
}

/// Sends a datagram; returns `false` if the keeper has closed the channel or does not read.
fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let parts = [std::io::IoSlice::new(bytes)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &parts, &mut control, flags).is_ok()
}

pub(super) mod seeds {
    use trama_test_kit::requests::{
        GET_FEATURES, SET_FEATURES, SET_OWNER, SET_VRING_NUM, message, vring_state, words,
    };

    use crate::input::put_piece;

    /// Requests as `keeper/src/request.rs` has them: a number, then the fields.
    fn text(number: u8, key: &str, value: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = vec![number, key.len() as u8];
        bytes.extend_from_slice(key.as_bytes());
        if let Some(value) = value {
            bytes.push(value.len() as u8);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    fn steps(steps: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut seed = Vec::new();
        for (step, bytes) in steps {
            seed.push(*step);
            if *step != 7 {
                put_piece(&mut seed, bytes);
            }
        }
        seed
    }

    pub(in super::super) fn keeper() -> Vec<Vec<u8>> {
        let attach = |claim: u8| (0, vec![0, 1, claim]);
        let read = (7, Vec::new());
        let frontend = [
            message(GET_FEATURES, 1, &[]),
            message(SET_OWNER, 9, &[]),
            message(SET_FEATURES, 1, &words(&[1 << 32])),
            message(SET_VRING_NUM, 1, &vring_state(0, 256)),
        ]
        .concat();
        vec![
            steps(&[
                attach(0),
                read.clone(),
                (16, text(1, "tap/vm1", Some(b"request"))),
                (0, text(2, "tap/vm1", None)),
                read.clone(),
                (0, text(2, "tap/vm2", None)),
                (0, text(3, "tap/vm1", None)),
                (0, vec![4]),
                (0, vec![5]),
                (0, vec![10]),
            ]),
            steps(&[
                attach(2),
                (4, text(6, "vm1", Some(b"meta"))),
                (6, frontend),
                read.clone(),
                (0, text(8, "vm1", None)),
                (0, text(7, "vm1", None)),
                (6, message(GET_FEATURES, 1, &[])),
                (0, text(8, "vm1", None)),
                read.clone(),
                (0, text(9, "vm1", None)),
                (0, vec![11]),
                read,
                (0, vec![10]),
            ]),
        ]
    }
}
