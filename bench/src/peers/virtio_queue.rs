//! A two-port switch on the crates `vhost-user-backend` and `virtio-queue` in their intended use: a
//! backend for each port, woken by its driver's kicks, moves every frame to the other port without
//! a lookup. Runs as a hidden command of this program.

use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};

use trama_vhost_net_backend::Role;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use super::{End, Peer, Port, START, Setup, Switch};
use crate::process::{Process, Result, pinned, this_program, wait_until};

/// See the module.
pub(crate) const VIRTIO_QUEUE: Peer = Peer {
    name: "virtio-queue",
    about: "two ports on the crates vhost-user-backend and virtio-queue: no look-up",
    programs: &[],
    hugepages: false,
    start,
};

/// The hidden command that runs [`serve`].
pub(crate) const COMMAND: &str = "virtio-queue-peer";

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUE_SIZE: usize = 1024;
/// The virtio-net header and the largest frame supported.
const LARGEST: usize = 12 + 9728;

fn start(setup: &Setup) -> Result<Switch> {
    if !setup.all(Port::Vhost) || setup.ports.len() != 2 {
        return setup.refuse(&VIRTIO_QUEUE);
    }
    let sockets = [setup.socket(0), setup.socket(1)];
    let mut command = pinned(setup.core, this_program()?);
    command.arg(COMMAND).args(&sockets);
    let switch = Process::spawn("the virtio-queue switch", command)?;
    for socket in &sockets {
        wait_until("the virtio-queue switch listens", START, || socket.exists())?;
    }
    let ends = sockets.map(|socket| End::Vhost { socket, backend_role: Role::Server });
    Ok(Switch::of(vec![switch], ends.into()))
}

/// Serves both ports until terminated.
pub(crate) fn serve(sockets: [PathBuf; 2]) -> Result<()> {
    let rings: [Arc<Ports>; 2] = Default::default();
    let there = [Arc::clone(&rings[1]), Arc::clone(&rings[0])];
    let serving = sockets.into_iter().zip(rings).zip(there).map(|((socket, here), there)| {
        std::thread::spawn(move || serve_port(&socket, Arc::new(Backend { here, there })))
    });
    for port in serving.collect::<Vec<_>>() {
        port.join().map_err(|_| "a port's thread failed".to_owned())??;
    }
    Ok(())
}

fn serve_port(socket: &Path, backend: Arc<Backend>) -> Result<()> {
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("port".into(), backend, memory)
        .map_err(|e| format!("vhost-user-backend: {e}"))?;
    daemon.serve(socket).map_err(|e| format!("vhost-user-backend: {e}"))
}

/// A port's rings and memory, once its driver has set them up.
#[derive(Default)]
struct Ports {
    receive: OnceLock<VringRwLock>,
    memory: RwLock<Option<GuestMemoryAtomic<GuestMemoryMmap>>>,
}

struct Backend {
    here: Arc<Ports>,
    there: Arc<Ports>,
}

impl Backend {
    /// Moves frames from the transmit ring of this port into the receive ring of the other.
    fn forward(&self, transmit: &VringRwLock) -> Option<()> {
        let (from, to) = (memory(&self.here)?, memory(&self.there)?);
        let receive = self.there.receive.get()?;
        let mut frame = [0_u8; LARGEST];
        let (mut sent, mut received) = (false, false);
        loop {
            let chain = transmit.get_mut().get_queue_mut().pop_descriptor_chain(from.clone());
            let Some(chain) = chain else { break };
            let head = chain.head_index();
            let length = read(chain, &mut frame);
            let buffer = receive.get_mut().get_queue_mut().pop_descriptor_chain(to.clone());
            // Without a buffer the frame is lost, as in any switch.
            if let Some(buffer) = buffer {
                let index = buffer.head_index();
                let written = write(buffer, &frame[..length]);
                receive.add_used(index, written as u32).ok()?;
                received = true;
            }
            transmit.add_used(head, 0).ok()?;
            sent = true;
        }
        for (ring, used) in [(receive, received), (transmit, sent)] {
            if used && ring.needs_notification().ok()? {
                ring.signal_used_queue().ok()?;
            }
        }
        Some(())
    }
}

fn memory(port: &Ports) -> Option<impl Deref<Target = GuestMemoryMmap> + Clone> {
    port.memory.read().ok()?.as_ref().map(GuestAddressSpace::memory)
}

/// Copies a chain's bytes, including the header; returns their number.
fn read<M>(chain: DescriptorChain<M>, frame: &mut [u8]) -> usize
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    let memory = chain.memory().clone();
    let mut length = 0;
    for descriptor in chain {
        let end = (length + descriptor.len() as usize).min(frame.len());
        if memory.read_slice(&mut frame[length..end], descriptor.addr()).is_err() {
            break;
        }
        length = end;
    }
    length
}

/// Fills a chain, which is the frame's only buffer; returns the number of bytes written.
fn write<M>(chain: DescriptorChain<M>, frame: &[u8]) -> usize
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    let memory = chain.memory().clone();
    // num_buffers, at byte 10 of the header, is 1 with VERSION_1, whatever the sender wrote.
    let mut header = [0_u8; 12];
    let header_length = frame.len().min(header.len());
    header[..header_length].copy_from_slice(&frame[..header_length]);
    header[10..12].copy_from_slice(&1_u16.to_le_bytes());
    let mut length = 0;
    for descriptor in chain {
        let end = (length + descriptor.len() as usize).min(frame.len());
        if memory.write_slice(&frame[length..end], descriptor.addr()).is_err() {
            break;
        }
        if length == 0 && memory.write_slice(&header, descriptor.addr()).is_err() {
            break;
        }
        length = end;
    }
    length
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_NET_F_MRG_RXBUF
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        if let Ok(mut slot) = self.here.memory.write() {
            *slot = Some(memory);
        }
        Ok(())
    }

    fn handle_event(
        &self,
        ring: u16,
        _events: EventSet,
        rings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        self.here.receive.get_or_init(|| rings[RECEIVE].clone());
        if usize::from(ring) != TRANSMIT {
            return Ok(());
        }
        let transmit = &rings[TRANSMIT];
        // No kicks while there is work; check again after re-enabling them.
        let failed = |e| io::Error::other(format!("{e}"));
        loop {
            transmit.disable_notification().map_err(failed)?;
            self.forward(transmit);
            if !transmit.enable_notification().map_err(failed)?
                || self.there.receive.get().is_none()
            {
                return Ok(());
            }
        }
    }
}
