//! Drops of a port in the four kinds that interfaces count: to or from it, as errors or not.

use trama_switch::DropReason;

/// A kind of dropped frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// From the port, and in order.
    FromPort,
    /// From the port, and not in order, or refused by a device.
    FromPortFaulty,
    /// To the port.
    ToPort,
    /// To the port, and refused by its device.
    ToPortFaulty,
}

/// Reasons for which frames to the port are dropped; for all others, frames from it.
const TO_PORT: [DropReason; 8] = [
    DropReason::EgressDown,
    DropReason::EgressFull,
    DropReason::EgressNotReady,
    DropReason::EgressTooLarge,
    DropReason::OffloadFailed,
    DropReason::TunnelMtu,
    DropReason::TunnelNoRoute,
    DropReason::DeviceError,
];

/// Reasons that are faults of frames, drivers or devices.
const ERRORS: [DropReason; 10] = [
    DropReason::Runt,
    DropReason::Giant,
    DropReason::Truncated,
    DropReason::HeaderMalformed,
    DropReason::ChainMalformed,
    DropReason::SourceInvalid,
    DropReason::MemoryHole,
    DropReason::OffloadFailed,
    DropReason::TunnelMalformed,
    DropReason::DeviceError,
];

/// Returns how many of the dropped frames are of a kind.
pub(crate) fn dropped(drops: &[(&'static str, u64)], kind: Kind) -> u64 {
    let wanted = drops.iter().filter(|(name, _)| {
        let reason = DropReason::ALL.iter().find(|reason| reason.name() == *name);
        reason.is_some_and(|reason| kind_of(*reason) == kind)
    });
    wanted.map(|(_, count)| count).sum()
}

fn kind_of(reason: DropReason) -> Kind {
    match (TO_PORT.contains(&reason), ERRORS.contains(&reason)) {
        (false, false) => Kind::FromPort,
        (false, true) => Kind::FromPortFaulty,
        (true, false) => Kind::ToPort,
        (true, true) => Kind::ToPortFaulty,
    }
}
