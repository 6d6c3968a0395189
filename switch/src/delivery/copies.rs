//! Delivers a mirror's copies.

use trama_frame::VlanTag;
use trama_frame::retag::{self, start_len};
use trama_frame::vnet::LEN as HEADER_LEN;

use super::rework::gather;
use super::{Batch, Scratch, refusal, refuse, select};
use crate::counters::MirrorCounters;
use crate::drop_reason::DropReason;
use crate::forward::{FrameSet, Plan, Reasons, Source, members};
use crate::mac_table::PortIndex;
use crate::ports::{Port, Sink};
use crate::watch::{Burst, NotingSink, Sight, Sighting, Watches, Way};

/// How a mirror's copies leave by a port.
#[derive(Clone, Copy)]
pub(crate) struct Copies<'a> {
    /// Whether it is the mirror's output, which takes frames of every VLAN.
    pub is_output: bool,
    /// Most bytes of a copy, if it is cut.
    pub snaplen: Option<usize>,
    /// The mirror's counters.
    pub counters: &'a MirrorCounters,
}

/// Delivers copies of `frames` to a port, and shows them to its watches.
pub(crate) fn deliver_copies<S: Source>(
    source: &S,
    plan: &Plan,
    frames: FrameSet,
    port: &mut Port,
    copies: Copies<'_>,
    (at, burst, watches): (PortIndex, Burst, &mut Watches),
    scratch: &mut Scratch,
) {
    let seen = Sighting { port: port.id, index: at, way: Way::Sent, seers: port.seers.sent };
    let mut show = |frames, reasons: &Reasons, tags| {
        if seen.seers != 0 && frames != 0 {
            watches.show(&Sight { source, plan, burst, seen, frames, reasons, tags, egress: None });
        }
    };
    let egress = match &port.output_mode {
        Some(mode) if copies.is_output => select(plan, frames, |vlan| mode.form(vlan)),
        _ => select(plan, frames, |vlan| port.settings.vlan.egress(vlan)),
    };
    if egress.carried == 0 {
        return;
    }
    if let Some(reason) = refusal_of_copies(port, copies.is_output) {
        refuse(source, plan, egress.carried, reason, port);
        copies.counters.lost.add(egress.carried.count_ones().into());
        let mut reasons = Reasons::NONE;
        reasons.add(egress.carried, reason);
        show(egress.carried, &reasons, None);
        return;
    }
    port.touched = true;
    let batch = Batch::new(source, plan, &egress, port.offloads, None, &port.counters);
    let mut sink = NotingSink::new(port.device.sink());
    scratch.segments_left = super::SEGMENT_BUDGET;
    match copies.snaplen {
        None => batch.deliver(egress.carried, &mut sink, scratch),
        Some(snaplen) => batch.deliver_cut(egress.carried, snaplen, &mut sink, scratch),
    }
    let len = |i| source.frame_len(i).min(copies.snaplen.unwrap_or(usize::MAX)) as u64;
    let (taken, unsent) = (u64::from(sink.taken.count_ones()), sink.unsent);
    let bytes = members(sink.taken).map(len).sum::<u64>();
    copies.counters.frames.add(taken.saturating_sub(unsent.frames));
    copies.counters.bytes.add(bytes.saturating_sub(unsent.bytes));
    let refused = sink.refused.dropped() & !sink.taken;
    copies.counters.lost.add(u64::from(refused.count_ones()) + unsent.frames);
    let tag = |i| batch.tag(i);
    let retags = batch.retagged(sink.taken) != 0;
    let tags = retags.then_some(&tag as &dyn Fn(usize) -> Option<VlanTag>);
    show(sink.taken, &Reasons::NONE, tags);
    show(sink.refused.dropped(), &sink.refused, None);
}

/// Returns why the port takes no copies now, if it does not.
fn refusal_of_copies(port: &Port, is_output: bool) -> Option<DropReason> {
    match is_output {
        true if !port.is_plugged() => Some(port.egress_refusal()),
        true => (!port.device.is_ready()).then_some(DropReason::EgressNotReady),
        false => refusal(port),
    }
}

impl<S: Source> Batch<'_, S> {
    /// Delivers frames, of longer ones the first `snaplen` bytes.
    fn deliver_cut(
        &self,
        frames: FrameSet,
        snaplen: usize,
        sink: &mut NotingSink<'_>,
        scratch: &mut Scratch,
    ) {
        for i in members(frames) {
            let was_tagged = self.plan.meta[i].tag.is_some();
            let before = start_len(was_tagged);
            let len = self.source.frame_len(i) - before + start_len(self.tag(i).is_some());
            if len <= snaplen {
                self.deliver(1 << i, sink, scratch);
                continue;
            }
            sink.begin(i);
            sink.expect(1);
            let Scratch { head: room, frame, .. } = scratch;
            let put = self.source.with_frame(i, |head, body| {
                let head = retag::write(head, was_tagged, self.tag(i), room);
                let frame = gather(&mut frame[..snaplen], head, body);
                // Nothing can finish the checksum of a part, or cut it.
                sink.put(&[0; HEADER_LEN], frame, &[])
            });
            if let Err(reason) = put {
                self.refused(i, reason, sink);
            }
            let unsent = sink.finish();
            unsent.count(self.counters);
            if put.is_ok() && unsent.frames == 0 {
                self.counters.tx_frames.add(1);
                self.counters.tx_bytes.add(snaplen as u64);
            }
        }
    }
}
