//! Announces a guest that has moved to a port, as its VMM asks after a live migration.

use trama_frame::MacAddr;
use trama_frame::vnet::LEN as HEADER;

use super::{Engine, EngineError, PortId, PortLocation};
use crate::time::Time;

/// Length of an announcement in bytes: the shortest Ethernet frame without its check sequence.
const LEN: usize = 60;
/// EtherType 8035 (RARP), Ethernet and IPv4 addresses of 6 and 4 bytes, a "request reverse" (RFC
/// 903).
const REQUEST: [u8; 10] = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];

impl Engine {
    /// Broadcasts a RARP request from `station` as if the port had sent it, untagged. Every switch
    /// that it passes, this one first, learns where the station is now. Rules for the port's frames
    /// hold for it too. A held engine sends none.
    ///
    /// # Errors
    /// The port does not exist.
    pub fn announce(
        &mut self,
        port: PortId,
        station: MacAddr,
        now: Time,
    ) -> Result<(), EngineError> {
        let PortLocation { slot, index } = self.locate(port)?;
        let Engine { networks, pool, pipeline, .. } = self;
        let network = networks[slot].as_mut().ok_or(EngineError::NoSuchPort(port))?;
        if self.is_held {
            return Ok(());
        }
        pool.clear();
        let buffer = pool.buffer();
        buffer[..HEADER].fill(0);
        buffer[HEADER..HEADER + LEN].copy_from_slice(&frame(station));
        pool.commit(LEN);
        // A burst of its own, for the IDs of frames.
        pipeline.counters.bursts.add(1);
        pipeline.plan.now = now;
        pipeline.switch(network, &*pool, index, now);
        pool.clear();
        pipeline.flush(&mut network.ports);
        pipeline.finish_turn(&mut network.ports, Some(index));
        Ok(())
    }
}

fn frame(MacAddr(station): MacAddr) -> [u8; LEN] {
    let mut frame = [0; LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&station);
    frame[12..22].copy_from_slice(&REQUEST);
    // The sender and the target are the station, and neither has an IP address.
    frame[22..28].copy_from_slice(&station);
    frame[32..38].copy_from_slice(&station);
    frame
}
