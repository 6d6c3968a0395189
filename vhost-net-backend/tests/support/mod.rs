//! Both ends of a session under test: rings that only record requests, and a frontend
//! that sends any bytes it likes.
#![allow(dead_code, reason = "parts of several tests")]

pub(crate) mod card;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) use card::{PATIENCE, eventually};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use trama_vhost_net_backend::{RingFds, Rings, RingsError};
use trama_virtqueue::{GuestMemory, RegionSpec, RingSetup};

pub(crate) const GET_FEATURES: u32 = 1;
pub(crate) const SET_FEATURES: u32 = 2;
pub(crate) const SET_OWNER: u32 = 3;
pub(crate) const RESET_OWNER: u32 = 4;
pub(crate) const SET_MEM_TABLE: u32 = 5;
pub(crate) const SET_VRING_NUM: u32 = 8;
pub(crate) const SET_VRING_ADDR: u32 = 9;
pub(crate) const SET_VRING_BASE: u32 = 10;
pub(crate) const GET_VRING_BASE: u32 = 11;
pub(crate) const SET_VRING_KICK: u32 = 12;
pub(crate) const SET_VRING_CALL: u32 = 13;
pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
pub(crate) const GET_QUEUE_NUM: u32 = 17;
pub(crate) const SET_VRING_ENABLE: u32 = 18;
pub(crate) const NET_SET_MTU: u32 = 20;
pub(crate) const GET_CONFIG: u32 = 24;
pub(crate) const SET_CONFIG: u32 = 25;
pub(crate) const RESET_DEVICE: u32 = 34;
pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
pub(crate) const ADD_MEM_REG: u32 = 37;
pub(crate) const REM_MEM_REG: u32 = 38;

pub(crate) const REPLY_ACK: u64 = 1 << 3;
pub(crate) const PROTOCOL_MTU: u64 = 1 << 4;
pub(crate) const PROTOCOL_CONFIG: u64 = 1 << 9;
pub(crate) const MEM_SLOTS: u64 = 1 << 15;

const NEED_REPLY: u32 = 1 << 3;

/// The requests that the rings under test received.
#[derive(Default)]
pub(crate) struct Recorded {
    pub features: Option<u64>,
    pub memory: Option<Arc<GuestMemory>>,
    pub running: BTreeMap<usize, (RingSetup, RingFds)>,
    /// Every call, in order.
    pub log: Vec<String>,
    pub disconnects: usize,
    pub broken: Option<String>,
    /// How far each ring gets before it is stopped.
    pub used: u16,
}

/// Rings that only record requests.
#[derive(Clone)]
pub(crate) struct MockRings {
    pub recorded: Arc<Mutex<Recorded>>,
    fault: Arc<OwnedFd>,
}

impl MockRings {
    pub(crate) fn new() -> MockRings {
        let fault = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        MockRings { recorded: Arc::default(), fault: Arc::new(fault) }
    }

    pub(crate) fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap()
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        self.recorded().running.keys().copied().collect()
    }

    /// Takes the log of calls so far.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.recorded().log)
    }

    pub(crate) fn break_now(&self, why: &str) {
        self.recorded().broken = Some(why.to_owned());
        rustix::io::write(&self.fault, &1u64.to_ne_bytes()).unwrap();
    }
}

impl Rings for MockRings {
    fn set_features(&mut self, features: u64) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        assert!(recorded.running.is_empty(), "features change under running rings");
        recorded.features = Some(features);
        recorded.log.push("features".into());
        Ok(())
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        recorded.log.push(format!("memory {}", memory.specs().len()));
        recorded.memory = Some(memory);
        Ok(())
    }

    fn start(&mut self, index: usize, setup: RingSetup, fds: RingFds) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        recorded.log.push(format!("start {index} at {}", setup.next));
        let earlier = recorded.running.insert(index, (setup, fds));
        assert!(earlier.is_none(), "ring {index} started twice");
        Ok(())
    }

    fn stop(&mut self, index: usize) -> Result<u16, RingsError> {
        let mut recorded = self.recorded();
        let (setup, _) = recorded.running.remove(&index).expect("stopped a ring that does not run");
        recorded.log.push(format!("stop {index}"));
        let next = setup.next.wrapping_add(recorded.used);
        set_used(&setup, next);
        Ok(next)
    }

    fn set_call(&mut self, index: usize, call: Option<OwnedFd>) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        recorded.log.push(format!("call {index}"));
        recorded.running.get_mut(&index).expect("call for a stopped ring").1.call = call;
        Ok(())
    }

    fn set_kick(&mut self, index: usize, kick: Option<OwnedFd>) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        recorded.log.push(format!("kick {index}"));
        recorded.running.get_mut(&index).expect("kick for a stopped ring").1.kick = kick;
        Ok(())
    }

    fn disconnected(&mut self) {
        let mut recorded = self.recorded();
        recorded.running.clear();
        recorded.memory = None;
        recorded.features = None;
        recorded.disconnects += 1;
    }

    fn fault_event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fault.as_fd())
    }

    fn broken(&mut self) -> Option<RingsError> {
        self.recorded().broken.take().map(RingsError::new)
    }
}

/// Writes the ring's used index, as a device does, if the ring lies in its memory.
fn set_used(setup: &RingSetup, index: u16) {
    let offset = |region: &RegionSpec| setup.used.wrapping_sub(region.user_addr);
    let mut regions = setup.memory.specs().iter();
    if let Some(region) = regions.find(|region| offset(region) < region.size - 4) {
        let at = region.file_offset + offset(region) + 2;
        region.file.write_all_at(&index.to_le_bytes(), at).unwrap();
    }
}

/// A frontend that sends any bytes it likes.
pub(crate) struct Peer {
    pub stream: UnixStream,
}

impl Peer {
    pub(crate) fn connect(path: &Path) -> Peer {
        let mut stream = None;
        eventually("connection accepted", || {
            stream = UnixStream::connect(path).ok();
            stream.is_some()
        });
        Peer::new(stream.unwrap())
    }

    pub(crate) fn new(stream: UnixStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer { stream }
    }

    /// Sends bytes with descriptors; false: the session has closed the connection.
    pub(crate) fn send_raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let iov = [IoSlice::new(bytes)];
        sendmsg(&self.stream, &iov, &mut control, SendFlags::NOSIGNAL).is_ok()
    }

    pub(crate) fn send(
        &self,
        request: u32,
        flags: u32,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> bool {
        self.send_raw(&message(request, flags, body), fds)
    }

    /// Reads one answer's body; none: the connection is closed.
    pub(crate) fn answer(&self) -> Option<Vec<u8>> {
        let mut header = [0; 12];
        (&self.stream).read_exact(&mut header).ok()?;
        let size = u32::from_ne_bytes(header[8..].try_into().unwrap());
        let mut body = vec![0; size as usize];
        (&self.stream).read_exact(&mut body).ok()?;
        Some(body)
    }

    /// A request with an answer of its own.
    pub(crate) fn ask(&self, request: u32, body: &[u8]) -> u64 {
        assert!(self.send(request, 1, body, &[]));
        let answer = self.answer().expect("the session answers");
        u64::from_ne_bytes(answer[..8].try_into().unwrap())
    }

    /// A request, acknowledged; true: successful.
    pub(crate) fn tell(&self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.send(request, 1 | NEED_REPLY, body, fds)
            && self.answer().is_some_and(|answer| answer == 0u64.to_ne_bytes())
    }

    /// As [`Peer::tell`], must be successful.
    pub(crate) fn send_acknowledged(&self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) {
        assert!(self.tell(request, body, fds), "request {request} refused");
    }

    pub(crate) fn vring(&self, request: u32, index: u32, value: u32) {
        self.send_acknowledged(request, &state(index, value), &[]);
    }

    pub(crate) fn vring_fd(&self, request: u32, index: u64, fd: &OwnedFd) {
        self.send_acknowledged(request, &index.to_ne_bytes(), &[fd.as_fd()]);
    }

    pub(crate) fn base(&self, index: u32) -> u32 {
        (self.ask(GET_VRING_BASE, &state(index, 0)) >> 32) as u32
    }

    /// Protocol features first: from here on requests can be acknowledged.
    pub(crate) fn negotiate(&self) -> u64 {
        let features = self.ask(GET_FEATURES, &[]);
        let protocol = self.ask(GET_PROTOCOL_FEATURES, &[]);
        assert!(self.send(SET_PROTOCOL_FEATURES, 1, &protocol.to_ne_bytes(), &[]));
        self.send_acknowledged(SET_OWNER, &[], &[]);
        features
    }

    /// Greets, takes all features and shares `memory`.
    pub(crate) fn share_memory(&self, memory: &Memory) {
        let features = self.negotiate();
        self.send_acknowledged(SET_FEATURES, &features.to_ne_bytes(), &[]);
        self.send_acknowledged(SET_MEM_TABLE, &memory.table(), &[memory.file.as_fd()]);
    }

    /// Says all about a ring but its enabling.
    pub(crate) fn describe_ring(&self, index: u32, memory: &Memory, kick: &OwnedFd) {
        self.vring(SET_VRING_NUM, index, 256);
        self.vring(SET_VRING_BASE, index, 0);
        self.send_acknowledged(SET_VRING_ADDR, &memory.ring(index), &[]);
        self.vring_fd(SET_VRING_KICK, u64::from(index), kick);
    }

    /// Whether the session closes the connection.
    pub(crate) fn is_closed(&self) -> bool {
        // Reset: it had not read all that was sent.
        match (&self.stream).read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// A whole message.
pub(crate) fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let words = [request, flags, body.len() as u32];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(body);
    bytes
}

/// Two 32-bit words: `struct vhost_vring_state`.
pub(crate) fn state(index: u32, value: u32) -> [u8; 8] {
    (u64::from(index) | u64::from(value) << 32).to_ne_bytes()
}

pub(crate) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// How often an eventfd was written since last asked.
pub(crate) fn count(event: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    match rustix::io::read(event, &mut bytes) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

/// A shared region, at different addresses in the guest and in the frontend.
pub(crate) struct Memory {
    pub file: File,
    pub guest: u64,
    pub user: u64,
    pub size: u64,
}

impl Memory {
    pub(crate) fn new(guest: u64, user: u64, size: u64) -> Memory {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, size).unwrap();
        Memory { file, guest, user, size }
    }

    fn region(&self) -> [u64; 4] {
        [self.guest, self.size, self.user, 0]
    }

    /// The body of SET_MEM_TABLE with this one region.
    pub(crate) fn table(&self) -> Vec<u8> {
        words(&[&[1], &self.region()[..]].concat())
    }

    /// The body of ADD_MEM_REG and REM_MEM_REG.
    pub(crate) fn single(&self) -> Vec<u8> {
        words(&[&[0], &self.region()[..]].concat())
    }

    /// The body of SET_VRING_ADDR for a ring of at most 256 entries, one per 16 KiB.
    pub(crate) fn ring(&self, index: u32) -> Vec<u8> {
        let at = self.user + u64::from(index) * 0x4000;
        words(&[u64::from(index), at, at + 0x2000, at + 0x1000, 0])
    }
}
