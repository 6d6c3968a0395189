//! Probes: the frames by which a loop is proved.
//!
//! A probe leaves a port and names it. If it comes back at another port of the same network, these
//! two are joined outside the switch; if it comes back where it left, there is a loop behind that
//! port. Bridges forward it, as its destination is a group address that is not reserved.
//!
//! ```text
//!  0 destination   03:74:72:00:00:01, group, local
//!  6 source        02:74:72:00:00:01
//! 12 EtherType     88b7, "OUI extended" (IEEE 802, 9.2.4)
//! 14 protocol      02 74 72 00 01
//! 19 host          8 bytes, random for each run
//! 27 network, port 8 bytes each
//! 43 VLAN          2 bytes
//! 45 sent          4 bytes, tenths of a second
//! 49 tag           8 bytes: SipHash-2-4 of bytes 14 to 48 under the run's key
//! 57 padding       to 60 bytes
//! ```
//!
//! Numbers are big-endian. Nobody else can make a probe, and one that was sent more than
//! [`LIFETIME`] ago proves nothing. So a station can only return a probe that has reached it, and
//! that blocks a port behind which the station is.

use std::time::Duration;

use siphasher::sip::SipHasher24;
use trama_frame::ethernet::{MIN_HEADER, behind_tags};
use trama_frame::{MacAddr, VlanId};

use crate::time::Time;
use crate::types::{NetworkId, PortId};

/// The destination of probes.
pub(crate) const DESTINATION: MacAddr = MacAddr([0x03, 0x74, 0x72, 0, 0, 1]);
/// The source of probes.
pub(crate) const SOURCE: MacAddr = MacAddr([0x02, 0x74, 0x72, 0, 0, 1]);
/// Length of a probe in bytes: the shortest Ethernet frame without its check sequence.
pub(crate) const LEN: usize = 60;
/// How long after it was sent a probe proves something.
pub(crate) const LIFETIME: Duration = Duration::from_secs(2);

const ETHERTYPE: u16 = 0x88b7;
const PROTOCOL: [u8; 5] = [0x02, 0x74, 0x72, 0, 1];
/// Nanoseconds in the unit of `sent`.
const TENTH: u64 = 100_000_000;

// Offsets from the protocol on.
const HOST: usize = 5;
const NETWORK: usize = 13;
const PORT: usize = 21;
const VLAN: usize = 29;
const SENT: usize = 31;
const TAG: usize = 35;
const END: usize = 43;
const _: () = assert!(MIN_HEADER + END <= LEN);

/// What a probe says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LoopProbe {
    pub network: NetworkId,
    pub port: PortId,
    pub vlan: VlanId,
    sent: u32,
}

impl LoopProbe {
    pub(crate) fn new(network: NetworkId, port: PortId, vlan: VlanId, now: Time) -> LoopProbe {
        LoopProbe { network, port, vlan, sent: tenths(now) }
    }

    /// Returns whether it was sent within [`LIFETIME`].
    pub(crate) fn is_fresh(&self, now: Time) -> bool {
        let age = tenths(now).checked_sub(self.sent);
        age.is_some_and(|age| Duration::from_nanos(u64::from(age) * TENTH) <= LIFETIME)
    }
}

fn tenths(time: Time) -> u32 {
    u32::try_from(time.0 / TENTH).unwrap_or(u32::MAX)
}

/// Makes probes and checks those that come back.
pub(crate) struct ProbeKey {
    hasher: SipHasher24,
    host: u64,
}

impl ProbeKey {
    /// Makes the key of a run; `seed` must be unknown to guests.
    pub(crate) fn new(seed: u64) -> ProbeKey {
        let hasher = SipHasher24::new_with_keys(seed, u64::from_le_bytes(*b"loop key"));
        ProbeKey { host: hasher.hash(b"host"), hasher }
    }

    /// Returns the frame of a probe.
    pub(crate) fn frame(&self, probe: &LoopProbe) -> [u8; LEN] {
        let mut frame = [0; LEN];
        frame[..6].copy_from_slice(&DESTINATION.0);
        frame[6..12].copy_from_slice(&SOURCE.0);
        frame[12..MIN_HEADER].copy_from_slice(&ETHERTYPE.to_be_bytes());
        let body = &mut frame[MIN_HEADER..];
        body[..HOST].copy_from_slice(&PROTOCOL);
        body[HOST..NETWORK].copy_from_slice(&self.host.to_be_bytes());
        body[NETWORK..PORT].copy_from_slice(&probe.network.0.to_be_bytes());
        body[PORT..VLAN].copy_from_slice(&probe.port.0.to_be_bytes());
        body[VLAN..SENT].copy_from_slice(&probe.vlan.get().to_be_bytes());
        body[SENT..TAG].copy_from_slice(&probe.sent.to_be_bytes());
        let tag = self.hasher.hash(&body[..TAG]);
        body[TAG..END].copy_from_slice(&tag.to_be_bytes());
        frame
    }

    /// Returns the probe that a frame is, if this run has made it. `head` are its first bytes.
    pub(crate) fn read(&self, head: &[u8]) -> Option<LoopProbe> {
        let (start, ethertype) = behind_tags(head)?;
        let body: &[u8; END] = head.get(start..)?.first_chunk()?;
        if ethertype != ETHERTYPE || !body.starts_with(&PROTOCOL) {
            return None;
        }
        let tag = self.hasher.hash(&body[..TAG]);
        let is_ours = body[TAG..] == tag.to_be_bytes();
        let number = |at: usize| body[at..].first_chunk().map(|n| u64::from_be_bytes(*n));
        let vlan = body[VLAN..].first_chunk().map(|n| u16::from_be_bytes(*n));
        let sent = body[SENT..].first_chunk().map(|n| u32::from_be_bytes(*n));
        is_ours.then_some(LoopProbe {
            network: NetworkId(number(NETWORK)?),
            port: PortId(number(PORT)?),
            vlan: VlanId::new(vlan?)?,
            sent: sent?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> LoopProbe {
        let vlan = VlanId::new(10).unwrap();
        LoopProbe::new(NetworkId(7), PortId(1 << 40), vlan, Time(5 * TENTH))
    }

    #[test]
    fn a_probe_is_read_with_and_without_a_tag() {
        let key = ProbeKey::new(42);
        let frame = key.frame(&probe());
        assert!(!DESTINATION.is_reserved_group() && DESTINATION.is_multicast());
        assert_eq!(key.read(&frame), Some(probe()));
        let tag = [0x81, 0x00, 0x20, 0x14];
        let tagged = [&frame[..12], &tag, &frame[12..]].concat();
        assert_eq!(key.read(&tagged), Some(probe()));
        // From a shorter head nothing is read.
        for len in 0..MIN_HEADER + END {
            assert_eq!(key.read(&frame[..len]), None, "{len}");
        }
    }

    #[test]
    fn no_changed_bit_and_no_other_key_passes() {
        let key = ProbeKey::new(42);
        let frame = key.frame(&probe());
        for bit in 12 * 8..(MIN_HEADER + END) * 8 {
            let mut forged = frame;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.read(&forged), None, "bit {bit}");
        }
        assert_eq!(ProbeKey::new(43).read(&frame), None);
    }

    #[test]
    fn a_probe_is_fresh_for_two_seconds() {
        let at = |tenths: u64| Time(tenths * TENTH);
        assert!(probe().is_fresh(at(5)) && probe().is_fresh(at(25)));
        assert!(!probe().is_fresh(at(26)) && !probe().is_fresh(at(4)), "old, or of another clock");
    }
}
