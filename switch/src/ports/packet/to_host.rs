//! Passes frames from a bridged network to the uplink's own host.
//!
//! Frames sent by a packet socket leave the interface and never enter its host. So a short BPF
//! program runs at the interface's egress (tcx, Linux 6.6). It handles only frames of this socket,
//! which carry a mark. A frame for the interface's own address is redirected to ingress, as if it
//! had been received. A broadcast or multicast leaves and is redirected as well, with the token as
//! its hash, by which the socket's filter recognises it. Other frames are untouched, no address,
//! route, queue or rule of the host changes, and the program goes with the descriptor, even if this
//! process is killed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::raw::{c_int, c_long};

use trama_frame::MacAddr;

use super::option::set_option;

/// Commands and kinds of bpf(2) (`linux/bpf.h`).
const BPF_PROG_LOAD: c_int = 5;
const BPF_LINK_CREATE: c_int = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_EGRESS: u32 = 47;
/// The helpers that the program calls.
const CLONE_REDIRECT: i32 = 13;
const REDIRECT: i32 = 23;
const SET_HASH_INVALID: i32 = 41;
const SET_HASH: i32 = 48;
/// Towards the host.
const INGRESS: i32 = 1;
/// The verdict that passes a frame to the next program.
const NEXT: i32 = -1;
/// Fields of `struct __sk_buff`.
const MARK: i16 = 8;
const DATA: i16 = 76;
const DATA_END: i16 = 80;
/// Bytes of the kernel's `union bpf_attr` that are passed, as words.
const ATTRIBUTES: usize = 18;

/// Why the host cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}; it takes Linux 6.6 or later, and CAP_BPF with CAP_NET_ADMIN")]
pub(super) struct ToHostError {
    step: &'static str,
    error: io::Error,
}

/// Attaches the program for frames that `socket` sends through the interface. It is removed when
/// the returned descriptor is closed.
pub(super) fn attach(
    socket: &OwnedFd,
    index: c_int,
    mac: MacAddr,
    token: u32,
) -> Result<OwnedFd, ToHostError> {
    let failed = |step| move |error| ToHostError { step, error };
    let program = load(&program(index, mac, token)).map_err(failed("load a BPF program"))?;
    let mut words = [0u32; ATTRIBUTES];
    words[..3].copy_from_slice(&[program.as_raw_fd() as u32, index as u32, BPF_TCX_EGRESS]);
    let link = bpf(BPF_LINK_CREATE, &mut words).map_err(failed("attach it (tcx)"))?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_MARK, &token).map_err(failed("mark frames"))?;
    Ok(link)
}

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    value: i32,
}

const fn op(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, value }
}

const fn load_word(to: u8, from: u8, offset: i16) -> Instruction {
    op(0x61, to, from, offset, 0)
}

const fn set(to: u8, value: i32) -> Instruction {
    op(0xb7, to, 0, 0, value)
}

const fn copy(to: u8, from: u8) -> Instruction {
    op(0xbf, to, from, 0, 0)
}

/// Jumps if the lower half of a register is not `value`.
const fn unless(register: u8, value: i32, offset: i16) -> Instruction {
    op(0x56, register, 0, offset, value)
}

const fn call(helper: i32) -> Instruction {
    op(0x85, 0, 0, 0, helper)
}

const END: Instruction = op(0x95, 0, 0, 0, 0);

/// Returns the program for an interface and its address; register 6 holds the frame.
fn program(index: c_int, mac: MacAddr, token: u32) -> [Instruction; 32] {
    let [a, b, c, d, e, f] = mac.0;
    let (start, rest) = (u16::from_ne_bytes([a, b]), i32::from_ne_bytes([c, d, e, f]));
    let token = token as i32;
    [
        copy(6, 1),
        // Without the mark: leave the frame alone. With it: clear the mark.
        load_word(2, 6, MARK),
        unless(2, token, 27),
        set(3, 0),
        op(0x63, 6, 3, MARK, 0),
        // The destination address must be there.
        load_word(2, 6, DATA),
        load_word(3, 6, DATA_END),
        copy(4, 2),
        op(0x07, 4, 0, 0, 6),
        op(0x2d, 4, 3, 20, 0),
        // A group address?
        op(0x71, 4, 2, 0, 0),
        op(0x57, 4, 0, 0, 1),
        unless(4, 0, 8),
        // The interface's own address? Then to ingress only.
        op(0x69, 4, 2, 0, 0),
        unless(4, i32::from(start), 15),
        load_word(4, 2, 2),
        unless(4, rest, 13),
        set(1, index),
        set(2, INGRESS),
        call(REDIRECT),
        END,
        // A group address: egress and ingress.
        copy(1, 6),
        set(2, token),
        call(SET_HASH),
        copy(1, 6),
        set(2, index),
        set(3, INGRESS),
        call(CLONE_REDIRECT),
        copy(1, 6),
        call(SET_HASH_INVALID),
        set(0, NEXT),
        END,
    ]
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let licence = c"Apache-2.0 OR MIT";
    let mut words = [0u32; ATTRIBUTES];
    words[..2].copy_from_slice(&[BPF_PROG_TYPE_SCHED_CLS, program.len() as u32]);
    for (place, address) in [(2, program.as_ptr() as u64), (4, licence.as_ptr() as u64)] {
        let bytes = address.to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        words[place] = u32::from_ne_bytes([a, b, c, d]);
        words[place + 1] = u32::from_ne_bytes([e, f, g, h]);
    }
    bpf(BPF_PROG_LOAD, &mut words)
}

/// Calls bpf(2) with a command that creates a descriptor. The data that `attributes` point to must
/// have the lengths given there.
fn bpf(command: c_int, attributes: &mut [u32; ATTRIBUTES]) -> io::Result<OwnedFd> {
    let command = c_long::from(command);
    // SAFETY: the kernel reads the attributes and the data they point to, which the callers in this
    // file keep until the call returns.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes))
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}
