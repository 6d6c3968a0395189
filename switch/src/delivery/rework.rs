//! Offloads that a receiver did not negotiate, in software.
//!
//! A frame is made whole in scratch memory and changed there. The segments of a large one for a
//! device that copies frames anyway are made in the memory of the device.

use trama_frame::checksum;
use trama_frame::ethernet::{MAX_TAGS, MIN_HEADER, TAG_LEN};
use trama_frame::gso::{self, Cutter};
use trama_frame::retag::{self, start_len};
use trama_frame::vnet::VnetHeader;
use trama_virtqueue::Segment;

use super::{Batch, Scratch, Tally};
use crate::drop_reason::DropReason;
use crate::forward::Source;
use crate::ports::Sink;

/// Room for the headers of a large frame: Ethernet with all tags and one more, IPv4 and TCP with
/// all options.
const HEADERS: usize = MIN_HEADER + (MAX_TAGS + 1) * TAG_LEN + 60 + 60;

/// What is left to copy of a frame.
struct Payload<'a> {
    current: Segment<'a>,
    rest: std::slice::Iter<'a, Segment<'a>>,
}

impl<'a> Payload<'a> {
    /// All of a frame but its first `skipped` bytes.
    fn new(head: &'a [u8], body: &'a [Segment<'a>], mut skipped: usize) -> Payload<'a> {
        let mut all = Payload { current: Segment::from(head), rest: body.iter() };
        while skipped > all.current.len()
            && let Some(next) = all.rest.next()
        {
            skipped -= all.current.len();
            all.current = *next;
        }
        all.current = all.current.skip(skipped);
        all
    }

    /// Copies what comes next.
    fn fill(&mut self, mut room: &mut [u8]) {
        while !room.is_empty() {
            let (now, later) = self.current.split_at(room.len());
            let copied = now.copy_to(room);
            room = &mut room[copied..];
            self.current = later;
            if later.is_empty() && !room.is_empty() {
                let Some(next) = self.rest.next() else { return };
                self.current = *next;
            }
        }
    }
}

impl<S: Source> Batch<'_, S> {
    /// Delivers a frame after completing it in software.
    pub(super) fn rework<K: Sink>(
        &self,
        i: usize,
        sink: &mut K,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) {
        let Scratch { head: room, frame, segment, segments_left } = scratch;
        let (meta, tag) = (&self.plan.meta[i], self.tag(i));
        let was_tagged = meta.tag.is_some();
        let growth = start_len(tag.is_some()) as i16 - start_len(was_tagged) as i16;
        let header = meta.header.shifted(growth);
        let result = self.source.with_frame(i, |head, body| {
            let head = retag::write(head, was_tagged, tag, room);
            if !header.is_gso() {
                return self.fill_checksum(gather(frame, head, body), header, sink, tally);
            }
            let len = head.len() + body.iter().map(Segment::len).sum::<usize>();
            let wanted = header.segments(len);
            *segments_left = segments_left.checked_sub(wanted).ok_or(DropReason::OffloadFailed)?;
            if sink.slots().is_some() {
                self.cut_in_place(i, (head, body), len, &header, sink, tally)
            } else {
                self.cut(i, gather(frame, head, body), &header, segment, sink, tally)
            }
        });
        if let Err(reason) = result {
            self.refused(i, reason, sink);
        }
    }

    /// Cuts a large frame into complete ones. Counts one drop for each segment without room.
    fn cut<K: Sink>(
        &self,
        i: usize,
        frame: &[u8],
        header: &VnetHeader,
        scratch: &mut [u8],
        sink: &mut K,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        let plain = self.edit.apply(&VnetHeader::default());
        let emit = |segment: &[u8]| match sink.put(&plain, segment, &[]) {
            Ok(()) => tally.add(segment.len(), false),
            Err(reason) => self.refused(i, reason, sink),
        };
        gso::segment(frame, header, scratch, emit).map_err(|_| DropReason::OffloadFailed)?;
        self.counters.software_gso_frames.add(1);
        Ok(())
    }

    /// Does the same as [`Batch::cut`] in the memory of the device, with one copy of each byte.
    fn cut_in_place<K: Sink>(
        &self,
        i: usize,
        (head, body): (&[u8], &[Segment<'_>]),
        len: usize,
        header: &VnetHeader,
        sink: &mut K,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        let mut start = [0; HEADERS];
        let start = gather(&mut start, head, body);
        let cutter = Cutter::new(start, len, header).map_err(|_| DropReason::OffloadFailed)?;
        let headers = cutter.headers();
        let mut payload = Payload::new(head, body, headers.len());
        for index in 0..cutter.count() {
            let len = headers.len() + cutter.payload_len(index);
            let mut write = |room: &mut [u8]| {
                room[..headers.len()].copy_from_slice(headers);
                payload.fill(&mut room[headers.len()..]);
                cutter.finish(index, room);
            };
            let slots = sink.slots().ok_or(DropReason::OffloadFailed)?;
            match slots.put_with(headers, len, &mut write) {
                Ok(()) => tally.add(len, false),
                Err(reason) => self.refused(i, reason, sink),
            }
        }
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
        sink.put(&self.edit.apply(&VnetHeader::default()), frame, &[])?;
        tally.add(frame.len(), false);
        Ok(())
    }
}

/// Copies a frame into one piece, as far as there is room. The length of a whole one was checked at
/// ingress.
pub(super) fn gather<'a>(room: &'a mut [u8], head: &[u8], body: &[Segment<'_>]) -> &'a mut [u8] {
    let mut len = Segment::from(head).copy_to(room);
    for segment in body {
        len += segment.copy_to(&mut room[len..]);
    }
    &mut room[..len]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_payload_is_all_behind_the_headers(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..8),
            skipped in 0..100usize,
            sizes in prop::collection::vec(0..40usize, 1..20),
        ) {
            let whole = parts.concat();
            let skipped = skipped.min(whole.len());
            let body: Vec<Segment<'_>> = parts[1..].iter().map(|it| it[..].into()).collect();
            let mut payload = Payload::new(&parts[0], &body, skipped);
            let mut rest = &whole[skipped..];
            for size in sizes {
                let (expected, later) = rest.split_at(size.min(rest.len()));
                let mut room = vec![0; expected.len()];
                payload.fill(&mut room);
                prop_assert_eq!(room, expected);
                rest = later;
            }
        }
    }
}
