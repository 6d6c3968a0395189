//! Mirrors: control sets them, and bursts of mirrored ports come here.

use trama_frame::VlanId;
use trama_virtqueue::MAX_BURST;

use super::network::Onlookers;
use super::{Engine, EngineError, HdrLen, NetworkId, Pipeline};
use crate::delivery::{Copies, deliver_copies};
use crate::forward::{FrameSet, Source, members};
use crate::mac_table::PortIndex;
use crate::mirror::types::MirrorSet;
use crate::mirror::{MAX_MIRRORS, Mirror, MirrorOutput, Mirrors};
use crate::ports::Port;
use crate::watch::Watches;

impl Engine {
    /// Sets the mirrors of a network, in place of those that it has. Ports of them that are not on
    /// the network take part once they come.
    ///
    /// # Errors
    /// The network does not exist, or these are too many.
    pub fn set_mirrors(
        &mut self,
        network: NetworkId,
        mirrors: Vec<Mirror>,
    ) -> Result<(), EngineError> {
        if mirrors.len() > MAX_MIRRORS {
            return Err(EngineError::TooManyMirrors(MAX_MIRRORS));
        }
        let network = self.network_mut(network)?;
        network.onlookers.mirrors = Mirrors::new(mirrors);
        network.ports_changed();
        Ok(())
    }
}

impl Pipeline {
    /// Copies frames of the burst for these mirrors, unless they have had them. Out of line, so
    /// that it costs other ports nothing.
    #[inline(never)]
    pub(super) fn mirror<S: Source>(
        &mut self,
        ports: &mut [Option<Port>],
        onlookers: &mut Onlookers,
        source: &S,
        frames: FrameSet,
        by: MirrorSet,
    ) {
        // Of all engines' bursts, none has the same.
        let burst = self.burst().first_id;
        let Onlookers { watches, mirrors } = onlookers;
        for place in members(by.into()) {
            let taken = mirrors.take(place, burst, frames, (source, &self.plan));
            let Some((mirror, output)) = mirrors.get(place).filter(|_| taken != 0) else {
                continue;
            };
            match mirror.output {
                MirrorOutput::Port(_) => {
                    if let Some(index) = output {
                        self.copy_to(ports, watches, source, taken, index, mirror);
                    }
                }
                MirrorOutput::Vlan(vlan) => {
                    self.copy_on(ports, watches, source, taken, vlan, mirror);
                }
            }
        }
    }

    /// Copies frames to each port that carries a VLAN, as frames of it.
    fn copy_on<S: Source>(
        &mut self,
        ports: &mut [Option<Port>],
        watches: &mut Watches,
        source: &S,
        frames: FrameSet,
        vlan: VlanId,
        mirror: &Mirror,
    ) {
        let was: [VlanId; MAX_BURST] = std::array::from_fn(|i| self.plan.meta[i].vlan);
        self.plan.meta.iter_mut().for_each(|meta| meta.vlan = vlan);
        for index in (0..ports.len()).map(|index| PortIndex(index as u16)) {
            if index != self.plan.ingress {
                self.copy_to(ports, watches, source, frames, index, mirror);
            }
        }
        self.plan.meta.iter_mut().zip(was).for_each(|(meta, was)| meta.vlan = was);
    }

    fn copy_to<S: Source>(
        &mut self,
        ports: &mut [Option<Port>],
        watches: &mut Watches,
        source: &S,
        frames: FrameSet,
        index: PortIndex,
        mirror: &Mirror,
    ) {
        let Some(Some(port)) = ports.get_mut(usize::from(index.0)) else { return };
        // A gateway would take copies for its guests' frames.
        if port.settings.hdr_len == HdrLen::IngressMark {
            return;
        }
        self.note.deliver(port.id);
        let Mirror { output, snaplen, counters, .. } = mirror;
        let is_output = *output == MirrorOutput::Port(port.id);
        let copies = Copies { is_output, snaplen: *snaplen, counters };
        let was_touched = port.touched;
        let view = (index, self.burst(), watches);
        deliver_copies(source, &self.plan, frames, port, copies, view, &mut self.scratch);
        if port.touched && !was_touched {
            self.touched.push(index);
        }
    }
}
