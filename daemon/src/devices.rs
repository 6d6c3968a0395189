//! Opens the devices of ports on the host: TAPs and uplinks.

use trama_frame::MacAddr;
use trama_switch::{Tap, TapOptions, Uplink};

use crate::config::model::Tap as TapConfig;
use crate::convert;

/// Opens the TAP device of a port.
///
/// # Errors
/// The kernel refuses it; the text has a remedy.
pub(crate) fn open_tap(device: &TapConfig, mac: Option<MacAddr>, mtu: u16) -> Result<Tap, String> {
    let options = TapOptions {
        ifname: device.ifname.clone(),
        netns: device.netns.clone(),
        address: device.address.iter().map(|it| (it.addr(), it.prefix_len())).collect(),
        mtu,
        mac: Some(mac.unwrap_or_else(|| convert::tap_mac(&convert::machine_id(), device))),
        vnet_header: true,
    };
    Tap::open(&options).map_err(|error| error.to_string())
}

/// Joins the uplink of a network, even if the host itself cannot be reached through it.
///
/// # Errors
/// The interface does not exist or cannot be joined.
pub(crate) fn join_uplink(ifname: &str, network: &str, mtu: u16) -> Result<Uplink, String> {
    let uplink = Uplink::open(ifname, mtu).map_err(|error| error.to_string())?;
    if let Some(fault) = uplink.to_host_fault() {
        tracing::warn!(
            "network {network}: its machines do not reach this host by {ifname}: {fault}"
        );
    }
    Ok(uplink)
}

/// Returns the hardware address of a TAP device: as the system shows it, since the device may have
/// existed before; in a namespace that the daemon cannot see, as it was set.
pub(crate) fn hardware_address(device: &TapConfig, wanted: Option<MacAddr>) -> MacAddr {
    let shown = || {
        let path = format!("/sys/class/net/{}/address", device.ifname);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let ours = device.netns.is_none();
    let shown = if ours { shown() } else { None };
    let made = || convert::tap_mac(&convert::machine_id(), device);
    shown.or(wanted).unwrap_or_else(made)
}
