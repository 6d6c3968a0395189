//! What becomes of a frame's outermost tag on its way out. Nearly always it is the same for all
//! frames of a burst: chosen once for them all, it leaves nothing to decide for each.

use trama_frame::VlanTag;
use trama_frame::retag::{start, start_len};
use trama_frame::vnet::LEN as HEADER_LEN;
use trama_virtqueue::{NewStart, Segment};

use crate::drop_reason::DropReason;
use crate::ports::Sink;

/// One way of rewriting the tag.
pub(super) trait Rewrite: Copy {
    /// Bytes that a frame is longer by than it was.
    const GROWTH: i16;

    /// Hands a frame, rewritten, to its receiver.
    fn put<K: Sink>(
        self,
        sink: &mut K,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason>;
}

/// The frame stays as it is.
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

/// A frame without a tag gets this one.
#[derive(Clone, Copy)]
pub(super) struct Push(pub VlanTag);

impl Rewrite for Push {
    const GROWTH: i16 = start_len(true) as i16 - start_len(false) as i16;

    #[inline(always)]
    fn put<K: Sink>(
        self,
        sink: &mut K,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let rest = &head[start_len(false)..];
        sink.put_head(header, NewStart::<true>::new(start(head, Some(self.0)), rest), body)
    }
}

/// A frame with a tag gets this one instead.
#[derive(Clone, Copy)]
pub(super) struct Change(pub VlanTag);

impl Rewrite for Change {
    const GROWTH: i16 = 0;

    #[inline(always)]
    fn put<K: Sink>(
        self,
        sink: &mut K,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let rest = &head[start_len(true)..];
        sink.put_head(header, NewStart::<true>::new(start(head, Some(self.0)), rest), body)
    }
}

/// A frame loses its tag.
#[derive(Clone, Copy)]
pub(super) struct Pop;

impl Rewrite for Pop {
    const GROWTH: i16 = -Push::GROWTH;

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
