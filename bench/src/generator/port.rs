//! One port of the generator: a vhost-user frontend and the driver side of its two rings.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use trama_vhost_net_backend::{Role, features};
use trama_virtqueue::{
    ChainShape, DriverError, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN,
    RingAddresses, RingFeatures,
};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Error, Result};

/// Time limit for a backend to connect, listen or answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);
/// Size of a receive buffer, as common in network drivers.
const RECEIVE_BUFFER: usize = 2048;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// How the generator connects its ports.
#[derive(Clone, Debug)]
pub struct Options {
    /// Entries of each ring, a power of two.
    pub queue_size: u16,
    /// Size of the largest frame of any load, in bytes.
    pub largest_frame: usize,
    /// Virtio features to accept if offered (bits as in virtio 1.2).
    pub features: u64,
    /// Negotiate checksum and TCP segmentation offload in both directions. A load of large segments
    /// needs it.
    pub offloads: bool,
    /// The switch's side of the sockets: if it is a client, the generator listens.
    pub backend_role: Role,
    /// Sleep until the device's calls if no frame is due soon, instead of polling the rings.
    pub sleeping: bool,
}

impl Default for Options {
    /// Returns rings of 1024 entries, frames up to 1522 bytes, polling, and IN_ORDER and mergeable
    /// buffers if offered.
    fn default() -> Options {
        Options {
            queue_size: 1024,
            largest_frame: 1522,
            features: features::IN_ORDER | features::NET_F_MRG_RXBUF,
            offloads: false,
            backend_role: Role::Server,
            sleeping: false,
        }
    }
}

const OFFLOADS: u64 = features::NET_F_CSUM
    | features::NET_F_GUEST_CSUM
    | features::NET_F_HOST_TSO4
    | features::NET_F_GUEST_TSO4;
const NEEDED: u64 = features::VERSION_1 | features::VHOST_USER_PROTOCOL_FEATURES;

/// A connected port.
pub(super) struct Port {
    pub(super) rx: DriverRx,
    pub(super) tx: DriverTx,
    kicks: [EventFd; 2],
    calls: [EventFd; 2],
    /// Free receive buffers that make a batch to return.
    refill_at: usize,
    /// The connection; the rings stop when it closes.
    _frontend: Frontend,
}

impl Port {
    /// Runs the vhost-user handshake over `stream` until both rings are started.
    pub(super) fn start(path: &Path, stream: UnixStream, options: &Options) -> Result<Port> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut frontend = Frontend::from_stream(stream, 2);
        let ring_features = negotiate(path, &mut frontend, options)?;
        let tx_options = DriverOptions {
            size: options.queue_size,
            features: ring_features,
            shape: ChainShape::Single,
            buffer_size: HEADER_LEN + options.largest_frame,
        };
        let buffer_size = match ring_features.mergeable {
            true => RECEIVE_BUFFER,
            false => RECEIVE_BUFFER.max(tx_options.buffer_size),
        };
        let rx_options = DriverOptions { buffer_size, ..tx_options };
        let ring = |error| Error::Ring { port: 0, error };
        let memory = DriverMemory::new(tx_options.memory_size() + rx_options.memory_size());
        let memory = memory.map_err(ring)?;
        let mut rx = DriverRx::new(&memory, rx_options).map_err(ring)?;
        let mut tx = DriverTx::new(&memory, tx_options).map_err(ring)?;
        rx.refill();
        tx.disarm();
        if !options.sleeping {
            rx.disarm();
        }
        let events =
            || Ok::<_, io::Error>([EventFd::new(EFD_NONBLOCK)?, EventFd::new(EFD_NONBLOCK)?]);
        let (kicks, calls) = (events()?, events()?);
        share_memory(path, &frontend, &memory)?;
        for (index, addresses) in [(RECEIVE, rx.addresses()), (TRANSMIT, tx.addresses())] {
            let events = (&kicks[index], &calls[index]);
            describe_ring(path, &frontend, index, options.queue_size, addresses, events)?;
        }
        for index in [RECEIVE, TRANSMIT] {
            check(path, "SET_VRING_ENABLE", frontend.set_vring_enable(index, true))?;
        }
        let refill_at = usize::from(options.queue_size / 8).max(1);
        Ok(Port { rx, tx, kicks, calls, refill_at, _frontend: frontend })
    }

    /// Makes sent frames available, and kicks the device if requested.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.tx.publish() {
            signal(&self.kicks[TRANSMIT]);
        }
    }

    /// Returns free receive buffers once they make a batch.
    #[inline]
    pub(super) fn refill(&mut self) {
        if self.rx.free() >= self.refill_at && self.rx.refill() {
            signal(&self.kicks[RECEIVE]);
        }
    }

    /// Reclaims all transmit buffers, waiting until `deadline` at most.
    pub(super) fn settle(
        &mut self,
        size: u16,
        deadline: Instant,
    ) -> std::result::Result<bool, DriverError> {
        while self.tx.free() < usize::from(size) {
            if self.tx.reclaim()? == 0 {
                if Instant::now() > deadline {
                    return Ok(false);
                }
                std::hint::spin_loop();
            }
        }
        Ok(true)
    }

    /// Returns the eventfd that the device signals when a frame has arrived.
    pub(super) fn receive_call(&self) -> &EventFd {
        &self.calls[RECEIVE]
    }
}

/// Only a full counter can fail a non-blocking eventfd, which is then readable already.
fn signal(event: &EventFd) {
    let _ = event.write(1);
}

fn check<T>(path: &Path, step: &'static str, result: vhost::Result<T>) -> Result<T> {
    result.map_err(|error| Error::Protocol { path: path.into(), step, error })
}

fn negotiate(path: &Path, frontend: &mut Frontend, options: &Options) -> Result<RingFeatures> {
    check(path, "SET_OWNER", frontend.set_owner())?;
    let offered = check(path, "GET_FEATURES", frontend.get_features())?;
    let wanted = options.features | NEEDED | if options.offloads { OFFLOADS } else { 0 };
    let needed = if options.offloads { NEEDED | OFFLOADS } else { NEEDED };
    let missing = needed & !offered;
    if missing != 0 {
        let reason = format!("the backend does not offer the features {missing:#x}");
        return Err(Error::Socket { path: path.into(), reason });
    }
    let protocol = check(path, "GET_PROTOCOL_FEATURES", frontend.get_protocol_features())?;
    let acknowledged = protocol & VhostUserProtocolFeatures::REPLY_ACK;
    check(path, "SET_PROTOCOL_FEATURES", frontend.set_protocol_features(acknowledged))?;
    if !acknowledged.is_empty() {
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    let taken = offered & wanted;
    check(path, "SET_FEATURES", frontend.set_features(taken))?;
    Ok(features::ring_features(taken))
}

fn share_memory(path: &Path, frontend: &Frontend, memory: &DriverMemory) -> Result<()> {
    let spec = memory.spec();
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: spec.guest_phys,
        memory_size: spec.size,
        userspace_addr: spec.user_addr,
        mmap_offset: spec.file_offset,
        mmap_handle: spec.file.as_raw_fd(),
    };
    check(path, "SET_MEM_TABLE", frontend.set_mem_table(&[region])).map(|_| ())
}

fn describe_ring(
    path: &Path,
    frontend: &Frontend,
    index: usize,
    size: u16,
    at: RingAddresses,
    (kick, call): (&EventFd, &EventFd),
) -> Result<()> {
    let data = VringConfigData {
        queue_max_size: size,
        queue_size: size,
        flags: 0,
        desc_table_addr: at.desc,
        used_ring_addr: at.used,
        avail_ring_addr: at.avail,
        log_addr: None,
    };
    check(path, "SET_VRING_NUM", frontend.set_vring_num(index, size))?;
    check(path, "SET_VRING_BASE", frontend.set_vring_base(index, 0))?;
    check(path, "SET_VRING_ADDR", frontend.set_vring_addr(index, &data))?;
    check(path, "SET_VRING_CALL", frontend.set_vring_call(index, call))?;
    check(path, "SET_VRING_KICK", frontend.set_vring_kick(index, kick))
}

/// How a backend is reached: at its socket, or at a listener of this process.
pub(super) enum Endpoint {
    Connect(PathBuf),
    Listen(UnixListener, PathBuf),
}

impl Endpoint {
    /// Creates the listener, if the backend is a client, so that it can connect from now on.
    pub(super) fn bind(path: &Path, backend_role: Role) -> Result<Endpoint> {
        if backend_role == Role::Server {
            return Ok(Endpoint::Connect(path.into()));
        }
        // A socket without a listener was left behind by a killed generator.
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if UnixStream::connect(path).is_err_and(refused) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path).map_err(|error| {
            let reason = format!("cannot listen there: {error}; remove it or choose another path");
            Error::Socket { path: path.into(), reason }
        })?;
        listener.set_nonblocking(true)?;
        Ok(Endpoint::Listen(listener, path.into()))
    }

    /// Waits for the backend, and starts a port on the connection.
    pub(super) fn start(&self, options: &Options) -> Result<Port> {
        let (path, stream) = match self {
            Endpoint::Connect(path) => (path, connect(path)),
            Endpoint::Listen(listener, path) => (path, accept(listener)),
        };
        let stream = stream.map_err(|error| {
            let reason = format!("no backend within {} s: {error}", PATIENCE.as_secs());
            Error::Socket { path: path.into(), reason }
        })?;
        Port::start(path, stream, options)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Endpoint::Listen(_, path) = self {
            // It may be gone already, with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience))?;
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}
