//! The configuration that a frontend can read by GET_CONFIG: `struct virtio_net_config` (virtio
//! 1.2, section 5.1.4).

use trama_frame::MacAddr;

/// Settings of the port that may change while a frontend is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceSettings {
    /// The largest packet, in bytes, that the guest may send.
    pub mtu: u16,
    /// The guest's address, if the port has one.
    pub mac: Option<MacAddr>,
}

/// Most bytes of configuration that VMMs let a driver read. A request for more gets an answer
/// without bytes, for which frontends of the `vhost` crate would wait without end.
const MAX_SIZE: usize = 4096;
/// Bytes of the fields that are known here.
const KNOWN: usize = 24;
/// VIRTIO_NET_S_LINK_UP.
const LINK_UP: u16 = 1;
/// Speed and duplex that the device does not know.
const UNKNOWN: [u8; 5] = [0xff; 5];

impl DeviceSettings {
    /// Returns `size` bytes of the configuration from `offset` on; `None` if they are not all in
    /// it. Bytes after the last known field read as zeros: the standard only adds fields, and each
    /// is valid only with its own feature.
    ///
    /// The link is always up: without a cable there is no connection.
    pub(crate) fn read(self, queue_pairs: u16, offset: u32, size: u32) -> Option<Vec<u8>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        let mut known = [0; KNOWN];
        known[..6].copy_from_slice(&self.mac.map_or([0; 6], |mac| mac.0));
        for (at, field) in [(6, LINK_UP), (8, queue_pairs), (10, self.mtu)] {
            known[at..at + 2].copy_from_slice(&field.to_le_bytes());
        }
        known[12..17].copy_from_slice(&UNKNOWN);
        let byte = |at: usize| known.get(at).copied().unwrap_or(0);
        (start < end && end <= MAX_SIZE).then(|| (start..end).map(byte).collect())
    }
}

/// Whether a write covers only the guest's address, as drivers before virtio 1.0 do without a
/// control queue. It has no effect here: a switch learns addresses from frames.
pub(crate) fn is_mac_write(offset: u32, size: u32) -> bool {
    offset.checked_add(size).is_some_and(|end| end <= 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceSettings =
        DeviceSettings { mtu: 0x1234, mac: Some(MacAddr([0x52, 0x54, 0, 1, 2, 3])) };

    #[test]
    fn fields_are_where_the_standard_has_them() {
        let whole = DEVICE.read(4, 0, 24).unwrap();
        assert_eq!(whole[..6], [0x52, 0x54, 0, 1, 2, 3]);
        assert_eq!(whole[6..12], [1, 0, 4, 0, 0x34, 0x12]);
        assert_eq!(whole[12..], [255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(DEVICE.read(4, 10, 2).unwrap(), [0x34, 0x12]);
        let unnamed = DeviceSettings { mac: None, ..DEVICE };
        assert_eq!(unnamed.read(1, 0, 6).unwrap(), [0; 6]);
    }

    #[test]
    fn what_is_not_in_the_configuration_is_refused() {
        assert_eq!(DEVICE.read(1, 0, 4096).unwrap().len(), 4096);
        assert_eq!(DEVICE.read(1, 4095, 1).unwrap(), [0]);
        let wrong =
            [(0, 4097), (4095, 2), (4096, 1), (0, 0), (24, 0), (u32::MAX, 1), (1, u32::MAX)];
        for (offset, size) in wrong {
            assert_eq!(DEVICE.read(1, offset, size), None, "{size} bytes at {offset}");
        }
    }

    #[test]
    fn only_the_address_may_be_written() {
        assert!(is_mac_write(0, 6) && is_mac_write(5, 1));
        assert!(!is_mac_write(5, 2) && !is_mac_write(6, 1) && !is_mac_write(u32::MAX, 1));
    }
}
