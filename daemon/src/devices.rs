//! Has the devices of ports on the host opened: TAPs and uplinks.

use trama_frame::MacAddr;
use trama_helper::{OpenedTap, OpenedUplink, Rights};
use trama_switch::TapOptions;

use crate::config::model::Tap as TapConfig;
use crate::convert;

/// Opens the TAP device of a port.
///
/// # Errors
/// The helper or the kernel refuses it; the text has a remedy.
pub(crate) fn open_tap(
    rights: &Rights,
    device: &TapConfig,
    mac: Option<MacAddr>,
    mtu: u16,
) -> Result<OpenedTap, String> {
    let options = TapOptions {
        ifname: device.ifname.clone(),
        netns: device.netns.clone(),
        address: device.address.iter().map(|it| (it.addr(), it.prefix_len())).collect(),
        mtu,
        mac: Some(mac.unwrap_or_else(|| convert::tap_mac(&convert::machine_id(), device))),
        vnet_header: true,
    };
    let opened = rights.tap(&options)?;
    note_refused(&device.ifname, opened.refused.as_deref());
    Ok(opened)
}

/// Says why a device is made again although an earlier switch has left one.
fn note_refused(ifname: &str, refused: Option<&str>) {
    if let Some(reason) = refused {
        tracing::warn!(
            "{ifname} is opened anew: what the last switch has kept is not used: {reason}"
        );
    }
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
) -> Result<OpenedUplink, String> {
    let opened = rights.uplink(ifname, mtu)?;
    note_refused(ifname, opened.refused.as_deref());
    if let Some(fault) = opened.uplink.to_host_fault() {
        tracing::warn!(
            "network {network}: its machines do not reach this host by {ifname}: {fault}"
        );
    }
    Ok(opened)
}
