//! A Linux TAP device as a port.

use std::net::IpAddr;
use trama_frame::mac::MacAddr;

/// How a TAP device is made.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// Its name (1 to 15 bytes).
    pub ifname: String,
    /// The named network namespace (below `/run/netns`) it is created in; none: ours.
    pub netns: Option<String>,
    /// Addresses with prefix lengths for the host's side.
    pub address: Vec<(IpAddr, u8)>,
    /// The interface's MTU in bytes.
    pub mtu: u16,
    /// The interface's hardware address; none: the kernel draws one.
    pub mac: Option<MacAddr>,
    /// Whether frames carry a virtio-net header, so that large segments and checksums pass
    /// through unfinished. True unless something cannot take it.
    pub vnet_header: bool,
}

/// Why a TAP device could not be made: names the device, the failed step and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TapError {}

/// An open TAP device. It is not persistent: it is gone when this is dropped.
pub struct Tap {}

impl Tap {
    /// Creates (or attaches to) the device and sets it up.
    pub fn open(options: &TapOptions) -> Result<Tap, TapError> {
        let _ = options;
        Ok(Tap {})
    }

    /// Link up or down as the interface shows it (`TUNSETCARRIER`).
    pub fn set_carrier(&self, up: bool) -> Result<(), TapError> {
        let _ = up;
        Ok(())
    }
}
