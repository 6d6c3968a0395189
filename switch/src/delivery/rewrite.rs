//! Rewrites a frame's outermost tag at egress. Nearly always all frames of a burst need the same
//! change: it is chosen once for them all, and no decision is left for each.

use trama_frame::VlanTag;
use trama_frame::retag::{start, start_len};
use trama_frame::vnet::LEN as HEADER_LEN;
use trama_virtqueue::{NewStart, Segment};

use crate::drop_reason::DropReason;
use crate::ports::Sink;

/// One way of rewriting the tag.
pub(super) trait Rewrite: Copy {
    /// Change of the frame's length in bytes.
    const GROWTH: i16;

    /// Rewrites a frame and passes it to its receiver.
    fn put<K: Sink>(
        self,
        sink: &mut K,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason>;
}

/// Leaves the frame unchanged.
#[derive(Clone, Copy)]
pub(super) struct Keep;

impl Rewrite for Keep {
    const GROWTH: i16 = 0;

    #[inline(always)]
    fn put<K: Sink>(
        self,
        sink: &mut K,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        sink.put(header, head, body)
    }
}

/// A frame gets this tag, in place of its own if it `WAS_TAGGED`.
#[derive(Clone, Copy)]
pub(super) struct Tag<const WAS_TAGGED: bool>(pub VlanTag);

impl<const WAS_TAGGED: bool> Rewrite for Tag<WAS_TAGGED> {
    const GROWTH: i16 = start_len(true) as i16 - start_len(WAS_TAGGED) as i16;

    #[inline(always)]
    fn put<K: Sink>(
        self,
        sink: &mut K,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let rest = &head[start_len(WAS_TAGGED)..];
        sink.put_head(header, NewStart::<true>::new(start(head, Some(self.0)), rest), body)
    }
}

/// Pops the frame's tag.
#[derive(Clone, Copy)]
pub(super) struct Pop;

impl Rewrite for Pop {
    const GROWTH: i16 = start_len(false) as i16 - start_len(true) as i16;

    #[inline(always)]
    fn put<K: Sink>(
        self,
        sink: &mut K,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let rest = &head[start_len(true)..];
        sink.put_head(header, NewStart::<false>::new(start(head, None), rest), body)
    }
}
