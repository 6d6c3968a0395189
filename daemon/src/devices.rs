//! Has the devices of ports on the host opened: TAPs, uplinks and other interfaces.

use std::fmt::Arguments;

use trama_frame::MacAddr;
use trama_helper::{NotJoined, OpenedTap, OpenedUplink, Rights};
use trama_switch::{TapOptions, UplinkOptions};

use crate::config::model::{System, Tap as TapConfig};
use crate::{convert, host};

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
        must_be_new: false,
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
) -> Result<OpenedUplink, NotJoined> {
    let options = UplinkOptions { ifname: ifname.to_owned(), netns: None, mtu };
    join(rights, &options, format_args!("network {network}"))
}

/// Joins the interface of a port, as [`join_uplink`] does.
///
/// # Errors
/// The interface does not exist or cannot be joined, or it is the host's own way to others and that
/// is not confirmed. What an earlier switch had joined is not asked about again.
pub(crate) fn join_system(
    rights: &Rights,
    device: &System,
    port: &str,
    mtu: u16,
) -> Result<OpenedUplink, NotJoined> {
    let System { ifname, netns, confirm_uplink } = device.clone();
    let options = UplinkOptions { ifname, netns, mtu };
    let is_of_host = options.netns.is_none();
    let inherits = rights.inherits_uplink(&options);
    if is_of_host && !confirm_uplink && !inherits {
        let checked = host::check_uplink(port, &options.ifname);
        checked.map_err(|fault| NotJoined::Refused(fault.to_string()))?;
    }
    let opened = join(rights, &options, format_args!("port {port}"))?;
    // Of this host by another name; its routes are then looked at as those of any other.
    if opened.uplink.namespace().is_some_and(|it| Some(it) == host::namespace())
        && !confirm_uplink
        && !inherits
    {
        let checked = host::check_uplink(port, &options.ifname);
        checked.map_err(|fault| NotJoined::Refused(fault.to_string()))?;
    }
    Ok(opened)
}

fn join(
    rights: &Rights,
    options: &UplinkOptions,
    place: Arguments<'_>,
) -> Result<OpenedUplink, NotJoined> {
    let opened = rights.uplink(options)?;
    let ifname = &options.ifname;
    note_refused(ifname, opened.refused.as_deref());
    if let Some(fault) = opened.uplink.to_host_fault() {
        tracing::warn!("{place}: guests do not reach the host of {ifname} by it: {fault}");
    }
    Ok(opened)
}
