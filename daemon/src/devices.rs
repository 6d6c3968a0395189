//! Has the devices of ports on the host opened: TAPs and uplinks.

use trama_frame::MacAddr;
use trama_helper::Rights;
use trama_switch::{Tap, TapOptions, Uplink};

use crate::config::model::Tap as TapConfig;
use crate::convert;

/// Opens the TAP device of a port; also returns its hardware address.
///
/// # Errors
/// The helper or the kernel refuses it; the text has a remedy.
pub(crate) fn open_tap(
    rights: &Rights,
    device: &TapConfig,
    mac: Option<MacAddr>,
    mtu: u16,
) -> Result<(Tap, Option<MacAddr>), String> {
    let options = TapOptions {
        ifname: device.ifname.clone(),
        netns: device.netns.clone(),
        address: device.address.iter().map(|it| (it.addr(), it.prefix_len())).collect(),
        mtu,
        mac: Some(mac.unwrap_or_else(|| convert::tap_mac(&convert::machine_id(), device))),
        vnet_header: true,
    };
    rights.tap(&options)
}

/// Joins the uplink of a network, even if the host itself cannot be reached through it.
///
/// # Errors
/// The interface does not exist or cannot be joined.
pub(crate) fn join_uplink(
    rights: &Rights,
    ifname: &str,
    network: &str,
    mtu: u16,
) -> Result<Uplink, String> {
    let uplink = rights.uplink(ifname, mtu)?;
    if let Some(fault) = uplink.to_host_fault() {
        tracing::warn!(
            "network {network}: its machines do not reach this host by {ifname}: {fault}"
        );
    }
    Ok(uplink)
}
