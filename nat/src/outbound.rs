//! Sends packets to guests.

use trama_frame::VnetHeader;

use crate::context::Context;
use crate::drop_reason::DropReason;
use crate::packet::MIN_FRAME;
use crate::packet::outbound::{MAX_HEAD, Outbound};

impl Outbound {
    /// Sends a packet with the payload `head` and `body`, which fits the MTU or is segmented as
    /// `offload` says.
    pub(crate) fn send(
        &self,
        context: &mut Context<'_>,
        offload: &VnetHeader,
        (head, body): (&[u8], &[u8]),
    ) -> Result<(), DropReason> {
        let mut room = [0; MAX_HEAD];
        let src_mac = context.config.station.mac();
        let front = self.front(src_mac, &mut room, head.len() + body.len(), None)?;
        send(context, offload, &[front, head, body])
    }

    /// Sends a packet with the payload `head` (a multiple of 8 bytes) and `body` in fragments of at
    /// most `mtu` bytes.
    pub(crate) fn send_fragments(
        &self,
        context: &mut Context<'_>,
        mtu: u16,
        payload: (&[u8], &[u8]),
    ) -> Result<(), DropReason> {
        let (src_mac, id) = (context.config.station.mac(), (context.random)() as u32);
        self.cut(src_mac, (mtu, id), payload, |parts| send(context, &VnetHeader::default(), parts))
    }
}

/// Sends a frame of three parts, padded to Ethernet's minimum.
fn send(
    context: &mut Context<'_>,
    offload: &VnetHeader,
    [front, head, body]: &[&[u8]; 3],
) -> Result<(), DropReason> {
    let padding = MIN_FRAME.saturating_sub(front.len() + head.len() + body.len());
    match padding {
        0 => context.send(offload, &[front, head, body]),
        padding => context.send(offload, &[front, head, body, &[0; MIN_FRAME][..padding]]),
    }
}
