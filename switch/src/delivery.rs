//! The third pass of a burst: delivers frames to their egress ports.
//!
//! A frame whose tag stays and whose receiver takes its offloads goes straight from the sender's
//! memory to the receiver's: header and head from their private copy, the rest by segment. Where a
//! tag is pushed, popped or changed, the addresses and the bytes after them are new, and the rest
//! is copied from its place. Offloads that a receiver did not negotiate are done in software first,
//! in preallocated scratch; only then is the whole frame copied twice.

use trama_frame::ethernet::{ETHERTYPE_VLAN, TAG_LEN};
use trama_frame::vnet::{DATA_VALID, LEN as HEADER_LEN, PRIVATE_HEAD, VnetHeader};
use trama_frame::{Offloads, VlanId, VlanTag};
use trama_virtqueue::Segment;

use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::forward::{FrameMeta, FrameSet, MAX_FRAME, Plan, Reasons, Source, members};
use crate::mac_table::PortIndex;
use crate::ports::{Device, Port, Sink};
use crate::vlan::Egress;
use crate::watch::{Burst, NotingSink, Sight, Sighting, Watches, Way};

mod copies;
mod rework;
mod rewrite;

pub(crate) use copies::{Copies, deliver_copies};
use rewrite::{Keep, Pop, Rewrite, Tag};

/// Segments that software may cut for one port and burst: 64 frames of 64 KiB at an MTU of 1500
/// take 2900. It bounds the work for a sender that asks for 65,535 one-byte segments.
const SEGMENT_BUDGET: usize = 4096;

/// Buffers for frames that must be changed before they leave.
pub(crate) struct Scratch {
    /// A head with another tag.
    head: [u8; TAG_LEN + PRIVATE_HEAD],
    /// A whole frame, with room for a tag.
    frame: Box<[u8]>,
    /// One segment of the frame.
    segment: Box<[u8]>,
    segments_left: usize,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch {
            head: [0; TAG_LEN + PRIVATE_HEAD],
            frame: vec![0; MAX_FRAME + TAG_LEN].into_boxed_slice(),
            segment: vec![0; MAX_FRAME + TAG_LEN].into_boxed_slice(),
            segments_left: 0,
        }
    }
}

/// Returns the tag of a frame that leaves tagged with its VLAN. A rewrite keeps the priority and
/// clears the drop eligible indicator, as in Open vSwitch.
#[inline]
fn tag_of(meta: &FrameMeta) -> VlanTag {
    let vid = meta.vlan;
    match meta.tag {
        None => c_tag(vid),
        Some(tag) if tag.vid() == vid => tag,
        Some(tag) => VlanTag { tci: u16::from(tag.pcp()) << 13 | vid.get(), ..tag },
    }
}

/// Returns the tag to push on frames of a VLAN.
#[inline]
fn c_tag(vlan: VlanId) -> VlanTag {
    VlanTag { tpid: ETHERTYPE_VLAN, tci: vlan.get() }
}

/// Delivers those of `frames` whose VLAN the port carries, and returns them.
pub(crate) fn deliver<S: Source>(
    source: &S,
    plan: &Plan,
    frames: FrameSet,
    port: &mut Port,
    scratch: &mut Scratch,
) -> FrameSet {
    let egress = select_carried(plan, frames, port);
    if egress.carried == 0 {
        return 0;
    }
    if let Some(reason) = refusal(port) {
        refuse(source, plan, egress.carried, reason, port);
        return egress.carried;
    }
    port.touched = true;
    scratch.segments_left = SEGMENT_BUDGET;
    let batch = Batch::new(source, plan, &egress, port.offloads, None, &port.counters);
    batch.deliver_to(egress.carried, &mut port.device, scratch);
    egress.carried
}

/// Does the same as [`deliver`] for a port that is told marks, with those of the port `ingress`.
/// Its ring belongs to all senders, and no user sees its own counters: what it does not take is
/// counted at `ingress`.
#[inline(never)]
pub(crate) fn deliver_marked<S: Source>(
    source: &S,
    plan: &Plan,
    frames: FrameSet,
    port: &mut Port,
    (index, ingress): (PortIndex, &Port),
    scratch: &mut Scratch,
) -> FrameSet {
    let egress = select_carried(plan, frames, port);
    if egress.carried == 0 {
        return 0;
    }
    if let Some(reason) = refusal(port) {
        refuse(source, plan, egress.carried, reason, ingress);
        return egress.carried;
    }
    port.touched = true;
    scratch.segments_left = SEGMENT_BUDGET;
    let mark = Some(ingress.settings.mark);
    let batch = Batch::new(source, plan, &egress, port.offloads, mark, &port.counters);
    if let Device::Vhost(vhost) = &mut port.device
        && let Some(mut ring) = vhost.shared_ring(index, &ingress.counters)
    {
        batch.deliver(egress.carried, &mut ring, scratch);
        let broken = ring.ring.broken;
        vhost.record_broken(broken);
    } else {
        batch.deliver_to(egress.carried, &mut port.device, scratch);
    }
    egress.carried
}

/// Does the same as [`deliver`] for a port whose frames are watched, or as [`deliver_marked`] with
/// an ingress port `from`.
#[inline(never)]
pub(crate) fn deliver_watched<S: Source>(
    source: &S,
    plan: &Plan,
    frames: FrameSet,
    port: &mut Port,
    from: Option<(PortIndex, &Port)>,
    (at, burst, watches): (PortIndex, Burst, &mut Watches),
    scratch: &mut Scratch,
) -> FrameSet {
    let egress = select_carried(plan, frames, port);
    if egress.carried == 0 {
        return 0;
    }
    let sent = Sighting { port: port.id, index: at, way: Way::Sent, seers: port.seers.sent };
    // Where what the port does not take is counted.
    let dropped = from.map_or(sent, |(index, port)| Sighting {
        port: port.id,
        index,
        way: Way::Received,
        seers: port.seers.received,
    });
    let mut show = |seen, frames, reasons: &Reasons, tags| {
        watches.show(&Sight { source, plan, burst, seen, frames, reasons, tags, egress: None });
    };
    if let Some(reason) = refusal(port) {
        let counted_at = from.map_or(&*port, |(_, port)| port);
        refuse(source, plan, egress.carried, reason, counted_at);
        let mut reasons = Reasons::NONE;
        reasons.add(egress.carried, reason);
        show(dropped, egress.carried, &reasons, None);
        return egress.carried;
    }
    port.touched = true;
    scratch.segments_left = SEGMENT_BUDGET;
    let mark = from.map(|(_, port)| port.settings.mark);
    let batch = Batch::new(source, plan, &egress, port.offloads, mark, &port.counters);
    let (taken, refused);
    if let Some((index, ingress)) = from
        && let Device::Vhost(vhost) = &mut port.device
        && let Some(mut ring) = vhost.shared_ring(index, &ingress.counters)
    {
        let mut sink = NotingSink::new(&mut ring);
        batch.deliver(egress.carried, &mut sink, scratch);
        (taken, refused) = (sink.taken, sink.refused);
        let broken = ring.ring.broken;
        vhost.record_broken(broken);
    } else {
        let mut sink = NotingSink::new(port.device.sink());
        batch.deliver(egress.carried, &mut sink, scratch);
        (taken, refused) = (sink.taken, sink.refused);
    }
    let tag = |i| batch.tag(i);
    let retags = batch.retagged(taken) != 0;
    show(sent, taken, &Reasons::NONE, retags.then_some(&tag as &dyn Fn(usize) -> Option<VlanTag>));
    if refused.dropped() != 0 {
        show(dropped, refused.dropped(), &refused, None);
    }
    egress.carried
}

/// Counts frames that are not delivered, at the port `at`.
#[cold]
#[inline(never)]
fn refuse<S: Source>(source: &S, plan: &Plan, frames: FrameSet, reason: DropReason, at: &Port) {
    at.count_drops(reason, u64::from(frames.count_ones()));
    plan.note_dropped(source, frames, reason, &at.counters);
}

/// Returns why the port takes no frames now, if it does not.
#[inline(always)]
pub(crate) fn refusal(port: &Port) -> Option<DropReason> {
    if !port.is_open {
        Some(port.egress_refusal())
    } else if !port.device.is_ready() {
        Some(DropReason::EgressNotReady)
    } else {
        None
    }
}

/// Returns those of `frames` whose VLAN the port carries.
pub(crate) fn carried_frames(plan: &Plan, frames: FrameSet, port: &Port) -> FrameSet {
    select_carried(plan, frames, port).carried
}

/// Returns the tag with which frame `i` leaves by a port that carries its VLAN.
pub(crate) fn egress_tag(plan: &Plan, i: usize, port: &Port) -> Option<VlanTag> {
    let meta = &plan.meta[i];
    (port.settings.vlan.egress(meta.vlan) == Egress::Tagged).then(|| tag_of(meta))
}

/// Frames that leave by a port, and the tagged ones among them.
#[derive(Default)]
struct EgressFrames {
    carried: FrameSet,
    tagged: FrameSet,
    /// Their common VLAN, if they have one.
    only_vlan: Option<VlanId>,
}

/// Selects those of `frames` whose VLAN the port carries.
#[inline]
fn select_carried(plan: &Plan, frames: FrameSet, port: &Port) -> EgressFrames {
    select(plan, frames, |vlan| port.settings.vlan.egress(vlan))
}

/// Selects those of `frames` that leave, by how those of a VLAN do.
#[inline(always)]
fn select(plan: &Plan, frames: FrameSet, of: impl Fn(VlanId) -> Egress) -> EgressFrames {
    let mut selected = EgressFrames::default();
    for (run, vlan) in plan.runs() {
        let due = run & frames;
        if due == 0 {
            continue;
        }
        let egress = of(vlan);
        if egress == Egress::NotMember {
            continue;
        }
        let is_same = selected.carried == 0 || selected.only_vlan == Some(vlan);
        selected.only_vlan = is_same.then_some(vlan);
        selected.carried |= due;
        if egress == Egress::Tagged {
            selected.tagged |= due;
        }
    }
    selected
}

/// The change made to all frames' headers for one receiver.
#[derive(Clone, Copy)]
struct HeaderEdit {
    /// Bits of the first eight bytes to keep.
    keep: u64,
    /// Bits to set afterwards.
    set: u64,
}

impl HeaderEdit {
    /// Clears DATA_VALID for a receiver without checksum offload; writes the port's `mark` into
    /// `hdr_len` for a receiver that wants marks.
    fn new(offloads: Offloads, mark: Option<u16>) -> HeaderEdit {
        let unseen = if offloads.contains(Offloads::CSUM) { 0 } else { DATA_VALID };
        let hidden = VnetHeader {
            flags: unseen,
            hdr_len: mark.map_or(0, |_| u16::MAX),
            ..VnetHeader::default()
        };
        let set = VnetHeader { hdr_len: mark.unwrap_or(0), ..VnetHeader::default() };
        HeaderEdit { keep: !first_word(&hidden), set: first_word(&set) }
    }

    /// Returns the header as it is written to the ring.
    #[inline(always)]
    fn apply(self, header: &VnetHeader) -> [u8; HEADER_LEN] {
        // As whole words, as they are written to the ring.
        let mut bytes = header.to_bytes();
        let word = first_word(header) & self.keep | self.set;
        bytes[..8].copy_from_slice(&word.to_le_bytes());
        bytes
    }
}

impl HeaderEdit {
    /// Does the same for a header whose offsets a pushed or popped tag moves. Out of line, so that
    /// the common case stays in one piece.
    #[cold]
    #[inline(never)]
    fn apply_shifted(self, header: &VnetHeader, growth: i16) -> [u8; HEADER_LEN] {
        self.apply(&header.shifted(growth))
    }
}

/// Returns the first eight bytes of a header as on the ring.
#[inline(always)]
fn first_word(header: &VnetHeader) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = header.to_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Totals of a burst for its receiver's counters.
#[derive(Default)]
struct Tally {
    frames: u64,
    bytes: u64,
    large: u64,
}

impl Tally {
    #[inline]
    fn add(&mut self, len: usize, large: bool) {
        self.frames += 1;
        self.bytes += len as u64;
        self.large += u64::from(large);
    }
}

/// Frames of one burst for one port.
struct Batch<'a, S> {
    source: &'a S,
    plan: &'a Plan,
    /// Frames that leave tagged.
    tagged: FrameSet,
    only_vlan: Option<VlanId>,
    offloads: Offloads,
    edit: HeaderEdit,
    counters: &'a PortCounters,
}

impl<'a, S: Source> Batch<'a, S> {
    #[inline(always)]
    fn new(
        source: &'a S,
        plan: &'a Plan,
        egress: &EgressFrames,
        offloads: Offloads,
        mark: Option<u16>,
        counters: &'a PortCounters,
    ) -> Batch<'a, S> {
        Batch {
            source,
            plan,
            tagged: egress.tagged,
            only_vlan: egress.only_vlan,
            offloads,
            edit: HeaderEdit::new(offloads, mark),
            counters,
        }
    }

    /// Delivers to whatever device the port has.
    #[inline(always)]
    fn deliver_to(&self, frames: FrameSet, device: &mut Device, scratch: &mut Scratch) {
        match device {
            Device::Vhost(vhost) => {
                let Some(mut ring) = vhost.only_ring() else {
                    return self.deliver(frames, vhost, scratch);
                };
                self.deliver(frames, &mut ring, scratch);
                let broken = ring.broken;
                vhost.record_broken(broken);
            }
            Device::Tap(tap) => self.deliver(frames, tap, scratch),
            Device::Uplink(uplink) => self.deliver(frames, &mut **uplink, scratch),
            Device::Stream(stream) => self.deliver(frames, stream, scratch),
            Device::Dgram(dgram) => self.deliver(frames, &mut **dgram, scratch),
            Device::Dummy(dummy) => self.deliver(frames, dummy, scratch),
            Device::Vxlan(tunnel) => self.deliver_apart(frames, &mut **tunnel, scratch),
            // It is never ready.
            Device::Vtep(_) => {}
        }
    }

    /// Does the same as [`Batch::deliver`], out of line, so that it costs other devices nothing.
    #[inline(never)]
    fn deliver_apart<K: Sink>(&self, frames: FrameSet, sink: &mut K, scratch: &mut Scratch) {
        self.deliver(frames, sink, scratch);
    }

    fn deliver<K: Sink>(&self, frames: FrameSet, sink: &mut K, scratch: &mut Scratch) {
        sink.expect(frames.count_ones() as usize);
        let mut tally = Tally::default();
        let (before, after) = (self.plan.tagged & frames, self.tagged & frames);
        match (self.only_vlan, self.retagged(frames)) {
            (_, 0) => self.deliver_all(frames, Keep, sink, scratch, &mut tally),
            (_, all) if all == frames && after == 0 => {
                self.deliver_all(frames, Pop, sink, scratch, &mut tally);
            }
            (Some(vlan), all) if all == frames && before == 0 => {
                self.deliver_all(frames, Tag::<false>(c_tag(vlan)), sink, scratch, &mut tally);
            }
            (_, some) => self.deliver_each(frames, some, sink, scratch, &mut tally),
        }
        let unsent = sink.finish();
        if unsent.frames != 0 {
            unsent.count(self.counters);
            tally.frames -= unsent.frames;
            tally.bytes -= unsent.bytes;
            tally.large -= unsent.large;
        }
        self.counters.tx_frames.add(tally.frames);
        self.counters.tx_bytes.add(tally.bytes);
        if tally.large != 0 {
            self.counters.tx_gso_frames.add(tally.large);
        }
    }

    /// Returns those of `frames` that leave with another tag than they came with.
    #[inline(always)]
    fn retagged(&self, frames: FrameSet) -> FrameSet {
        let (before, after) = (self.plan.tagged & frames, self.tagged & frames);
        (before ^ after) | self.renumbered(before & after)
    }

    /// Returns those of `tagged` frames, which leave tagged, whose tag gets another VID: they came
    /// priority-tagged (IEEE 802.1Q, 6.9.1) and belong to the VLAN of their ingress port.
    #[inline]
    fn renumbered(&self, tagged: FrameSet) -> FrameSet {
        let meta = &self.plan.meta;
        let differs = |i: &usize| meta[*i].tag.is_some_and(|tag| tag.vid() != meta[*i].vlan);
        members(tagged).filter(differs).fold(0, |set, i| set | 1 << i)
    }

    /// Returns the tag that frame `i` leaves with.
    #[inline]
    fn tag(&self, i: usize) -> Option<VlanTag> {
        (self.tagged & (1 << i) != 0).then(|| tag_of(&self.plan.meta[i]))
    }

    /// Delivers frames of which only `some` are rewritten, or not all in the same way.
    fn deliver_each<K: Sink>(
        &self,
        frames: FrameSet,
        some: FrameSet,
        sink: &mut K,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) {
        for i in members(frames) {
            let one = 1 << i;
            match self.tag(i) {
                _ if some & one == 0 => self.deliver_all(one, Keep, sink, scratch, tally),
                None => self.deliver_all(one, Pop, sink, scratch, tally),
                Some(tag) if self.plan.tagged & one == 0 => {
                    self.deliver_all(one, Tag::<false>(tag), sink, scratch, tally);
                }
                Some(tag) => self.deliver_all(one, Tag::<true>(tag), sink, scratch, tally),
            }
        }
    }

    /// Delivers frames that are rewritten in the same way.
    #[inline(never)]
    fn deliver_all<K: Sink, R: Rewrite>(
        &self,
        frames: FrameSet,
        rewrite: R,
        sink: &mut K,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) {
        for i in members(frames) {
            sink.begin(i);
            let meta = &self.plan.meta[i];
            if !self.offloads.contains(meta.needs) {
                self.rework(i, sink, scratch, tally);
                continue;
            }
            let header = if R::GROWTH == 0 || meta.header.is_plain() {
                self.edit.apply(&meta.header)
            } else {
                self.edit.apply_shifted(&meta.header, R::GROWTH)
            };
            let len = self.source.frame_len(i).wrapping_add_signed(R::GROWTH.into());
            let put = |head: &[u8], body: &[Segment<'_>]| rewrite.put(sink, &header, head, body);
            match self.source.with_frame(i, put) {
                Ok(()) => tally.add(len, meta.header.is_gso()),
                Err(reason) => self.refused(i, reason, sink),
            }
        }
    }

    /// Counts a frame that the receiver did not take.
    #[cold]
    #[inline(never)]
    fn refused<K: Sink>(&self, i: usize, reason: DropReason, sink: &mut K) {
        sink.note_refused(reason);
        // If the sender's memory is at fault, its port counts the frame, as the device has noted.
        if reason != DropReason::MemoryHole {
            let counters = sink.counted_at(self.counters);
            counters.drop(reason, 1);
            self.plan.note_dropped(self.source, 1 << i, reason, counters);
        }
    }
}
