//! Devices that can be plugged into a port, and what all ports have in common.
//!
//! A port is *active* (the engine polls it every round, its driver need not kick) or *armed* (it
//! costs nothing; a kick or a readable descriptor makes it active again).

pub(crate) mod calls;
pub mod dgram;
mod doorbell;
pub mod dummy;
pub(crate) mod hold_off;
mod messages;
pub mod packet;
pub(crate) mod pool;
pub(crate) mod ring_shares;
pub mod stream;
pub mod tap;
pub mod vhost;
pub mod vxlan;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use trama_frame::Offloads;
use trama_frame::ethernet::TAG_LEN;
use trama_frame::vnet::PRIVATE_HEAD;
use trama_virtqueue::{Head, Segment};

use crate::counters::{Lasting, PortCounters};
use crate::drop_reason::DropReason;
use crate::engine::{HdrLen, PortFault, PortId, PortSettings};
use crate::mirror::types::Mirrored;
use crate::sources::Sources;
use crate::storm::StormControl;
use crate::time::Time;
use crate::vlan::{VlanMode, VlanSet};
use crate::watch::types::Seers;
use calls::Calls;
use dgram::Dgram;
pub use doorbell::Doorbell;
pub(crate) use doorbell::{Watched, Watcher, signal};
use dummy::DummyDevice;
pub use messages::Address;
use packet::Uplink;
use stream::Stream;
use tap::Tap;
use vhost::VhostDevice;
use vxlan::{Vtep, Vxlan};

/// The device on a port.
pub enum Device {
    /// A virtio-net driver behind vhost-user, with rings in shared memory.
    Vhost(VhostDevice),
    /// A Linux TAP device.
    Tap(Tap),
    /// An existing interface of the host.
    Uplink(Box<Uplink>),
    /// A byte stream with each frame after its length.
    Stream(Stream),
    /// A socket with one frame a datagram.
    Dgram(Box<Dgram>),
    /// A tunnel to another host.
    Vxlan(Box<Vxlan>),
    /// A worker's receiving end of tunnels; only on a port that no network has.
    Vtep(Box<Vtep>),
    /// A pair of queues of this process, for tests and injection.
    Dummy(DummyDevice),
}

impl Device {
    /// Registers the descriptors of a newly added device to wake the worker.
    pub(crate) fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        match self {
            // Connections are watched when they come.
            Device::Vhost(_) | Device::Stream(_) | Device::Vxlan(_) => Ok(()),
            Device::Vtep(vtep) => vtep.watch(watcher),
            Device::Tap(tap) => tap.watch(watcher),
            Device::Uplink(uplink) => uplink.watch(watcher),
            Device::Dgram(dgram) => dgram.watch(watcher),
            Device::Dummy(dummy) => dummy.watch(watcher),
        }
    }

    /// Returns the descriptors that wake the worker.
    pub(crate) fn watched(&mut self) -> Vec<&mut Watched> {
        match self {
            Device::Vhost(vhost) => vhost.watched(),
            Device::Tap(tap) => tap.watched.iter_mut().collect(),
            Device::Uplink(uplink) => uplink.watched.iter_mut().collect(),
            Device::Stream(stream) => stream.watched().into_iter().collect(),
            Device::Dgram(dgram) => dgram.watched.iter_mut().collect(),
            Device::Vxlan(_) => Vec::new(),
            Device::Vtep(vtep) => vtep.watched.iter_mut().collect(),
            Device::Dummy(dummy) => dummy.watched.iter_mut().collect(),
        }
    }

    /// Shows the cable's state to the host, on a TAP. A kernel without the request (before 5.0)
    /// shows the link up; the switch drops the frames all the same.
    pub(crate) fn set_cable(&self, plugged: bool) {
        if let Device::Tap(tap) = self {
            let _ = tap.set_carrier(plugged);
        }
    }

    /// Returns it as a receiver of frames, for those that do not know its kind.
    pub(crate) fn sink(&mut self) -> &mut dyn Sink {
        match self {
            Device::Vhost(vhost) => vhost,
            Device::Tap(tap) => tap,
            Device::Uplink(uplink) => &mut **uplink,
            Device::Stream(stream) => stream,
            Device::Dgram(dgram) => &mut **dgram,
            Device::Vxlan(tunnel) => &mut **tunnel,
            Device::Vtep(vtep) => &mut **vtep,
            Device::Dummy(dummy) => dummy,
        }
    }

    /// Makes written frames visible; returns how many calls it added.
    pub(crate) fn flush(&mut self, calls: &mut Calls) -> u64 {
        match self {
            Device::Vhost(vhost) => vhost.flush(calls),
            Device::Tap(_)
            | Device::Uplink(_)
            | Device::Stream(_)
            | Device::Dgram(_)
            | Device::Vxlan(_)
            | Device::Vtep(_)
            | Device::Dummy(_) => 0,
        }
    }

    /// Requests a wake-up. Returns `false` if something waits already, or if nothing can wake the
    /// worker.
    pub(crate) fn arm(&mut self) -> bool {
        match self {
            Device::Vhost(vhost) => vhost.arm(),
            Device::Uplink(uplink) => uplink.arm(),
            // Their descriptors are edge-triggered and were found empty: new frames are an edge.
            Device::Tap(_) | Device::Stream(_) | Device::Dummy(_) => true,
            // It receives nothing by itself.
            Device::Vxlan(_) => true,
            Device::Dgram(dgram) => dgram.arm(),
            Device::Vtep(vtep) => vtep.arm(),
        }
    }

    /// Cancels the wake-up.
    pub(crate) fn disarm(&mut self) {
        if let Device::Vhost(vhost) = self {
            vhost.disarm();
        }
    }

    /// Returns whether it can take frames at all.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Device::Vhost(vhost) => vhost.is_ready(),
            Device::Tap(tap) => !tap.is_gone(),
            Device::Uplink(uplink) => !uplink.is_gone(),
            Device::Stream(stream) => stream.is_ready(),
            Device::Dgram(dgram) => dgram.is_ready(),
            Device::Dummy(_) | Device::Vxlan(_) => true,
            Device::Vtep(_) => false,
        }
    }

    /// Returns how many frames could not be read, as their senders' memory lacks pages, since the
    /// last call.
    pub(crate) fn take_holes(&mut self) -> u64 {
        match self {
            Device::Tap(tap) => tap.take_holes(),
            Device::Uplink(uplink) => uplink.take_holes(),
            Device::Vhost(_)
            | Device::Stream(_)
            | Device::Dgram(_)
            | Device::Vxlan(_)
            | Device::Vtep(_)
            | Device::Dummy(_) => 0,
        }
    }

    pub(crate) fn fault(&self) -> Option<PortFault> {
        match self {
            Device::Vhost(vhost) => vhost.fault(),
            Device::Tap(tap) => tap.is_gone().then_some(PortFault::DeviceGone),
            Device::Uplink(uplink) => uplink.is_gone().then_some(PortFault::UplinkGone),
            Device::Stream(stream) => stream.end().map(PortFault::StreamEnded),
            Device::Dgram(_) | Device::Vxlan(_) | Device::Vtep(_) | Device::Dummy(_) => None,
        }
    }
}

/// Frames that were taken but could not be sent, by reason.
#[derive(Clone, Copy, Default)]
pub(crate) struct Unsent {
    pub frames: u64,
    pub bytes: u64,
    pub large: u64,
    pub full: u64,
    pub too_large: u64,
    pub not_ready: u64,
    pub refused: u64,
    pub path_mtu: u64,
    pub no_route: u64,
}

impl Unsent {
    pub(crate) fn add(&mut self, reason: DropReason, len: usize, is_large: bool) {
        self.frames += 1;
        self.bytes += len as u64;
        self.large += u64::from(is_large);
        match reason {
            DropReason::EgressFull => self.full += 1,
            DropReason::EgressTooLarge => self.too_large += 1,
            DropReason::EgressNotReady => self.not_ready += 1,
            DropReason::TunnelMtu => self.path_mtu += 1,
            DropReason::TunnelNoRoute => self.no_route += 1,
            // Counted at the sender's port.
            DropReason::MemoryHole => {}
            _ => self.refused += 1,
        }
    }

    /// Adds those of another burst.
    pub(crate) fn merge(&mut self, other: &Unsent) {
        let Unsent { frames, bytes, large, .. } = other;
        let Unsent { full, too_large, not_ready, refused, path_mtu, no_route, .. } = other;
        self.frames += frames;
        self.bytes += bytes;
        self.large += large;
        self.full += full;
        self.too_large += too_large;
        self.not_ready += not_ready;
        self.refused += refused;
        self.path_mtu += path_mtu;
        self.no_route += no_route;
    }

    /// Adds them to the receiver's counters.
    pub(crate) fn count(&self, counters: &PortCounters) {
        counters.drop(DropReason::EgressFull, self.full);
        counters.drop(DropReason::EgressTooLarge, self.too_large);
        counters.drop(DropReason::EgressNotReady, self.not_ready);
        counters.drop(DropReason::DeviceError, self.refused);
        counters.drop(DropReason::TunnelMtu, self.path_mtu);
        counters.drop(DropReason::TunnelNoRoute, self.no_route);
    }
}

/// A receiver of finished frames.
pub(crate) trait Sink {
    /// Tells which frame of the burst the next calls are about.
    #[inline(always)]
    fn begin(&mut self, _frame: usize) {}

    /// Announces up to `_frames` frames.
    fn expect(&mut self, _frames: usize) {}

    /// Takes one frame: its virtio-net header, its first bytes, the rest. The bytes of the rest
    /// stay in place until [`Sink::finish`].
    fn put(
        &mut self,
        header: &[u8; trama_frame::vnet::LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason>;

    /// Does the same as [`Sink::put`] for a head in several pieces, that of a frame with a new tag.
    fn put_head<H: Head>(
        &mut self,
        header: &[u8; trama_frame::vnet::LEN],
        head: H,
        body: &[Segment<'_>],
    ) -> Result<(), DropReason>
    where
        Self: Sized,
    {
        self.put(header, head.copy_to(&mut [0; PRIVATE_HEAD + TAG_LEN]), body)
    }

    /// Returns where a frame that [`Sink::put`] refused is counted: at its `receiver`, unless the
    /// sender has to know.
    fn counted_at<'c>(&'c self, receiver: &'c PortCounters) -> &'c PortCounters {
        receiver
    }

    /// Notes why the frame was refused.
    #[inline(always)]
    fn note_refused(&mut self, _reason: DropReason) {}

    /// Returns the memory of the device, where the segments of large frames are written at once
    /// instead of put; `None` if it has none.
    fn slots(&mut self) -> Option<&mut dyn Slots> {
        None
    }

    /// Ends a burst; returns the frames that were taken but could not be sent.
    fn finish(&mut self) -> Unsent {
        Unsent::default()
    }
}

/// A receiver that copies frames into memory of its own.
pub(crate) trait Slots {
    /// Takes a frame of `len` bytes that `write` writes. `head` has the headers of its flow.
    fn put_with(
        &mut self,
        head: &[u8],
        len: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason>;
}

/// One port of an engine.
pub(crate) struct Port {
    pub id: PortId,
    pub settings: PortSettings,
    pub counters: Lasting<PortCounters>,
    pub device: Device,
    /// Offloads that the port's receiver takes.
    pub offloads: Offloads,
    /// Source addresses since it was plugged in; not recorded where there may be many.
    pub sources: Sources,
    /// The state of its storm limits.
    pub storm: StormControl,
    /// Whether frames may pass: its cable is in, it is not blocked and no mirror's output.
    pub is_open: bool,
    /// Whether it is blocked because of a loop.
    pub is_blocked: bool,
    /// The watches that see its frames.
    pub seers: Seers,
    /// The mirrors that copy its frames.
    pub mirrored: Mirrored,
    /// Its VLAN mode while it is a mirror's output. Its settings have one without VLANs then, so
    /// that no other frame finds a way to it.
    pub output_mode: Option<VlanMode>,
    /// Whether frames that it sends leave the straight path: it is not open, a tunnel, watched, or
    /// mirrored.
    pub is_ingress_special: bool,
    /// Whether frames for it leave the straight path: it is told marks, watched, or mirrored.
    pub is_egress_special: bool,
    /// Whether it is on its network's list of active ports.
    pub active: bool,
    /// When it last sent a frame.
    pub last_moved: Time,
    /// Whether it has frames that are not visible yet.
    pub touched: bool,
    /// What broke it; it neither sends nor receives until it is started again.
    pub fault: Option<PortFault>,
    /// Whether the fault is still to be reported.
    pub fault_unreported: bool,
    /// Written when the port breaks.
    pub fault_event: Option<Arc<OwnedFd>>,
}

impl Port {
    pub(crate) fn new(
        id: PortId,
        settings: PortSettings,
        counters: Lasting<PortCounters>,
        device: Device,
    ) -> Port {
        let offloads = match &device {
            // Nothing until the driver has negotiated its features.
            Device::Vhost(_) => Offloads::NONE,
            // There is no header on the way that could tell of them.
            Device::Stream(_) | Device::Dgram(_) | Device::Vxlan(_) | Device::Vtep(_) => {
                Offloads::NONE
            }
            Device::Tap(tap) => tap.offloads(),
            Device::Uplink(uplink) => uplink.offloads(),
            Device::Dummy(dummy) => dummy.offloads(),
        };
        Port {
            id,
            is_open: settings.cable,
            is_blocked: false,
            seers: Seers::default(),
            mirrored: Mirrored::default(),
            output_mode: None,
            is_ingress_special: !settings.cable || matches!(device, Device::Vxlan(_)),
            is_egress_special: settings.hdr_len == HdrLen::IngressMark,
            settings,
            counters,
            device,
            offloads,
            sources: Sources::default(),
            storm: StormControl::new(),
            active: false,
            last_moved: Time::ZERO,
            touched: false,
            fault: None,
            fault_unreported: false,
            fault_event: None,
        }
    }

    /// Counts `n` frames dropped here for `reason`.
    pub(crate) fn count_drops(&self, reason: DropReason, n: u64) {
        PortCounters::drop(&self.counters, reason, n);
    }

    /// Shares the rings among the senders, if the port is a gateway's. Done here, so that nothing
    /// is allocated while frames move.
    pub(crate) fn share_rings(&mut self) {
        if let Device::Vhost(vhost) = &mut self.device
            && self.settings.hdr_len == HdrLen::IngressMark
        {
            vhost.share_rings();
        }
    }

    /// Changes the settings.
    pub(crate) fn set(&mut self, mut settings: PortSettings) {
        if let Some(mode) = &mut self.output_mode {
            *mode = std::mem::replace(&mut settings.vlan, no_vlans());
        }
        self.settings = settings;
        self.update();
    }

    /// Sets the watches that see its frames.
    pub(crate) fn set_seers(&mut self, seers: Seers) {
        self.seers = seers;
        self.update();
    }

    /// Sets how mirrors take part in its frames. Returns whether it became the output of one, or
    /// ceased to be.
    pub(crate) fn set_mirrored(&mut self, mirrored: Mirrored) -> bool {
        let is_changed = mirrored.is_output != self.mirrored.is_output;
        self.mirrored = mirrored;
        if is_changed {
            let mode = self.output_mode.take();
            let was = std::mem::replace(&mut self.settings.vlan, mode.unwrap_or_else(no_vlans));
            self.output_mode = mirrored.is_output.then_some(was);
        }
        self.update();
        is_changed
    }

    /// Updates what depends on several of its fields.
    fn update(&mut self) {
        let Seers { received, sent } = self.seers;
        let Mirrored { received: copied, sent: copied_out, is_output } = self.mirrored;
        self.is_open = self.is_plugged() && !is_output;
        self.is_ingress_special = !self.is_open || received != 0 || copied != 0 || self.is_tunnel();
        let is_marked = self.settings.hdr_len == HdrLen::IngressMark;
        self.is_egress_special = is_marked || sent != 0 || copied_out != 0;
    }

    /// Returns whether its cable is in, and it is not blocked.
    pub(crate) fn is_plugged(&self) -> bool {
        self.settings.cable && !self.is_blocked
    }

    /// Returns whether it leads to another host, whose frames do not go to further hosts.
    pub(crate) fn is_tunnel(&self) -> bool {
        matches!(self.device, Device::Vxlan(_))
    }

    /// Blocks it, or opens it again.
    pub(crate) fn set_blocked(&mut self, blocked: bool) {
        self.is_blocked = blocked;
        self.update();
    }

    /// Returns why it takes no frames from its device while it is not open.
    pub(crate) fn ingress_refusal(&self) -> DropReason {
        match () {
            () if !self.settings.cable => DropReason::CableOut,
            () if self.mirrored.is_output => DropReason::MirrorOutput,
            () => DropReason::Loop,
        }
    }

    /// Returns why it is given no frames while it is not open.
    #[cold]
    #[inline(never)]
    pub(crate) fn egress_refusal(&self) -> DropReason {
        if self.settings.cable { DropReason::Loop } else { DropReason::EgressDown }
    }

    /// Clears the fault, as the device was set up again.
    pub(crate) fn clear_fault(&mut self) {
        self.fault = None;
        self.fault_unreported = false;
    }

    /// Records a fault of the device, if there is a new one.
    pub(crate) fn record_fault(&mut self) {
        if self.fault.is_some() {
            return;
        }
        let Some(fault) = self.device.fault() else { return };
        self.fault = Some(fault);
        self.fault_unreported = true;
        if let Device::Vhost(vhost) = &mut self.device {
            vhost.drop_rings();
        }
        if let Some(event) = &self.fault_event {
            signal(event.as_fd());
        }
    }
}

/// Returns the mode of a port that carries no VLAN.
fn no_vlans() -> VlanMode {
    VlanMode::Trunk { trunks: VlanSet::none() }
}
