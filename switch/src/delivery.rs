//! The third pass of a burst: frames to the ports they leave by.
//!
//! A frame whose tag stays and whose receiver takes what it needs goes straight from the sender's
//! memory to the receiver's: header and head from their private copy, the rest by segment. Where a tag
//! is pushed, popped or changed, the addresses and what follows them are new, and the rest goes from
//! where it is. What a receiver did not negotiate is done in software first, in preallocated scratch;
//! that is the one case of a second copy of it all.

use trama_frame::ethernet::{ETHERTYPE_VLAN, TAG_LEN};
use trama_frame::retag::Retagged;
use trama_frame::vnet::{DATA_VALID, LEN as HEADER_LEN, PRIVATE_HEAD, VnetHeader};
use trama_frame::{Offloads, VlanTag, checksum, gso};
use trama_virtqueue::Segment;

use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::forward::{FrameSet, MAX_FRAME, Plan, Source, Verdict, members};
use crate::ports::{Device, Port, Sink};
use crate::vlan::Egress;

/// Segments that software may cut for one port and burst: 64 frames of 64 KiB at an MTU of 1500
/// take 2900. A sender that asks for 65,535 one-byte segments gets no more of our time than that.
const SEGMENT_BUDGET: usize = 4096;

/// Buffers for frames that cannot go out as they came.
pub(crate) struct Scratch {
    /// A head with another tag.
    head: [u8; TAG_LEN + PRIVATE_HEAD],
    /// A whole frame, with room for a tag.
    frame: Box<[u8]>,
    /// One segment of it.
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

/// The outermost tag that a frame leaves with: that of its VLAN (`tagged`), or none. The priority
/// survives, the drop eligible indicator does not survive a rewrite, as in Open vSwitch.
#[inline]
fn tag_of(verdict: &Verdict, tagged: bool) -> Option<VlanTag> {
    let vid = verdict.vlan;
    match verdict.tag {
        _ if !tagged => None,
        None => Some(VlanTag { tpid: ETHERTYPE_VLAN, tci: vid.get() }),
        Some(tag) if tag.vid() == vid => Some(tag),
        Some(tag) => Some(VlanTag { tci: u16::from(tag.pcp()) << 13 | vid.get(), ..tag }),
    }
}

/// Delivers those of `frames` whose VLAN the port carries; returns them.
pub(crate) fn deliver<S: Source>(
    source: &S,
    plan: &Plan,
    frames: FrameSet,
    port: &mut Port,
    scratch: &mut Scratch,
) -> FrameSet {
    let (carried, tagged) = by_vlan(plan, frames, port);
    if carried == 0 {
        return 0;
    }
    let refused = if !port.settings.cable {
        Some(DropReason::EgressDown)
    } else if !port.device.is_ready() {
        Some(DropReason::EgressNotReady)
    } else {
        None
    };
    if let Some(reason) = refused {
        port.count_drops(reason, u64::from(carried.count_ones()));
        return carried;
    }
    port.touched = true;
    scratch.segments_left = SEGMENT_BUDGET;
    let mark = port.settings.is_told_marks.then_some(plan.mark);
    let batch = Batch { source, plan, offloads: port.offloads, mark, counters: &port.counters };
    match &mut port.device {
        Device::Vhost(vhost) => batch.deliver(carried, tagged, vhost, scratch),
        Device::Tap(tap) => batch.deliver(carried, tagged, tap, scratch),
        Device::Uplink(uplink) => batch.deliver(carried, tagged, &mut **uplink, scratch),
        Device::Dummy(dummy) => batch.deliver(carried, tagged, dummy, scratch),
    }
    carried
}

/// Those of `frames` whose VLAN the port carries.
pub(crate) fn carried_of(plan: &Plan, frames: FrameSet, port: &Port) -> FrameSet {
    by_vlan(plan, frames, port).0
}

/// Those of `frames` whose VLAN the port carries, and those of them that leave tagged.
#[inline]
fn by_vlan(plan: &Plan, frames: FrameSet, port: &Port) -> (FrameSet, FrameSet) {
    let (mut carried, mut tagged) = (0, 0);
    let mut last = None;
    for i in members(frames) {
        let vlan = plan.verdicts[i].vlan;
        let egress = match last {
            Some((other, egress)) if other == vlan => egress,
            _ => port.settings.vlan.egress(vlan),
        };
        last = Some((vlan, egress));
        match egress {
            Egress::NotMember => {}
            Egress::Untagged => carried |= 1 << i,
            Egress::Tagged => {
                carried |= 1 << i;
                tagged |= 1 << i;
            }
        }
    }
    (carried, tagged)
}

/// What a burst adds to its receiver's counters, in the end.
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

/// Frames of one burst on their way to one port.
struct Batch<'a, S> {
    source: &'a S,
    plan: &'a Plan,
    offloads: Offloads,
    /// What the device is told of where the frames came from.
    mark: Option<u16>,
    counters: &'a PortCounters,
}

impl<S: Source> Batch<'_, S> {
    fn deliver<K: Sink>(
        &self,
        frames: FrameSet,
        tagged: FrameSet,
        sink: &mut K,
        scratch: &mut Scratch,
    ) {
        let mut tally = Tally::default();
        for i in members(frames) {
            let verdict = &self.plan.verdicts[i];
            let tag = tag_of(verdict, tagged & (1 << i) != 0);
            if !self.offloads.contains(verdict.needs) {
                self.rework(i, tag, sink, scratch, &mut tally);
                continue;
            }
            if tag != verdict.tag {
                self.retag(i, tag, sink, scratch, &mut tally);
                continue;
            }
            let header = self.header_for(verdict);
            let head = self.source.head(i);
            match self.source.with_body(i, |body| sink.put(&self.on_ring(header), head, body)) {
                Ok(()) => tally.add(self.source.frame_len(i), header.is_gso()),
                Err(reason) => self.counters.drop(reason, 1),
            }
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

    /// A frame's head with this tag instead of its own, and the header that fits.
    #[inline(always)]
    fn retagged(&self, i: usize, tag: Option<VlanTag>) -> (Retagged<'_>, VnetHeader) {
        let verdict = &self.plan.verdicts[i];
        let head = Retagged::new(self.source.head(i), verdict.tag.is_some(), tag);
        let mut header = self.header_for(verdict);
        header.shift(head.growth());
        (head, header)
    }

    /// The header as this receiver may see it: without checksum offload it cannot be told that
    /// a checksum was verified.
    #[inline]
    fn header_for(&self, verdict: &Verdict) -> VnetHeader {
        let mut header = verdict.header;
        if !self.offloads.contains(Offloads::CSUM) {
            header.flags &= !DATA_VALID;
        }
        header
    }

    /// The header's form on the ring, with the mark for a device that is told it.
    #[inline]
    fn on_ring(&self, mut header: VnetHeader) -> [u8; HEADER_LEN] {
        if let Some(mark) = self.mark {
            header.hdr_len = mark;
        }
        header.to_bytes()
    }

    /// Delivers a frame with another tag. To edit a copy of the head, and copy that, is fewer
    /// instructions and, between two cores, some 3 % slower (docs/performance.md): the second copy reads
    /// again what small stores have just written.
    #[inline]
    fn retag<K: Sink>(
        &self,
        i: usize,
        tag: Option<VlanTag>,
        sink: &mut K,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) {
        let (head, header) = self.retagged(i, tag);
        let in_pieces = !sink.reads_heads();
        let put = |body: &[Segment<'_>]| {
            let (header, rest) = (self.on_ring(header), Segment::from(head.rest()));
            match *body {
                [] if in_pieces => sink.put(&header, head.start(), &[rest]),
                [only] if in_pieces => sink.put(&header, head.start(), &[rest, only]),
                _ => sink.put(&header, head.write(&mut scratch.head), body),
            }
        };
        let len = self.source.frame_len(i).saturating_add_signed(head.growth().into());
        match self.source.with_body(i, put) {
            Ok(()) => tally.add(len, header.is_gso()),
            Err(reason) => self.counters.drop(reason, 1),
        }
    }

    /// Delivers a frame that software has to finish first.
    fn rework<K: Sink>(
        &self,
        i: usize,
        tag: Option<VlanTag>,
        sink: &mut K,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) {
        let Scratch { head, frame, segment, segments_left } = scratch;
        let (retagged, header) = self.retagged(i, tag);
        let head = retagged.write(head);
        let result = self.source.with_body(i, |body| {
            let frame = gather(frame, head, body);
            if header.is_gso() {
                let wanted = header.segments(frame.len());
                *segments_left =
                    segments_left.checked_sub(wanted).ok_or(DropReason::OffloadFailed)?;
                self.cut(frame, &header, segment, sink, tally)
            } else {
                self.fill_checksum(frame, header, sink, tally)
            }
        });
        if let Err(reason) = result {
            self.counters.drop(reason, 1);
        }
    }

    /// Cuts a large frame into complete ones. One drop is counted for each segment without room.
    fn cut<K: Sink>(
        &self,
        frame: &[u8],
        header: &VnetHeader,
        scratch: &mut [u8],
        sink: &mut K,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        let plain = self.on_ring(VnetHeader::default());
        let emit = |segment: &[u8]| match sink.put(&plain, segment, &[]) {
            Ok(()) => tally.add(segment.len(), false),
            Err(reason) => self.counters.drop(reason, 1),
        };
        gso::segment(frame, header, scratch, emit).map_err(|_| DropReason::OffloadFailed)?;
        self.counters.software_gso_frames.add(1);
        Ok(())
    }

    fn fill_checksum<K: Sink>(
        &self,
        frame: &mut [u8],
        mut header: VnetHeader,
        sink: &mut K,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        checksum::complete(frame, &mut header);
        self.counters.software_checksum_frames.add(1);
        sink.put(&self.on_ring(VnetHeader::default()), frame, &[])?;
        tally.add(frame.len(), false);
        Ok(())
    }
}

/// Copies a frame into one piece. It was measured when it came in and is no longer than that.
fn gather<'a>(room: &'a mut [u8], head: &[u8], body: &[Segment<'_>]) -> &'a mut [u8] {
    room[..head.len()].copy_from_slice(head);
    let mut len = head.len();
    for segment in body {
        len += segment.copy_to(&mut room[len..]);
    }
    &mut room[..len]
}
