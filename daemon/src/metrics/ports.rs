//! The metrics of ports.

use prometheus::Result;

use super::Families;
use crate::config::model::{Config, Interface, Port};
use crate::status::{PortStatus, Status};

/// Name, help text and value of a port's counter.
type PortCounter = (&'static str, &'static str, fn(&PortStatus) -> u64);

/// Counters labelled by network and port.
const TRAFFIC: [PortCounter; 4] = [
    ("trama_port_rx_frames_total", "Frames that entered the switch from the port.", |p| {
        p.counters.rx_frames
    }),
    ("trama_port_rx_bytes_total", "Bytes that entered the switch from the port.", |p| {
        p.counters.rx_bytes
    }),
    ("trama_port_tx_frames_total", "Frames that the port was given.", |p| p.counters.tx_frames),
    ("trama_port_tx_bytes_total", "Bytes that the port was given.", |p| p.counters.tx_bytes),
];

/// The same; left out while zero.
const SPECIAL: [PortCounter; 5] = [
    (
        "trama_port_rx_gso_frames_total",
        "Frames beyond the MTU, to be cut later, from the port.",
        |p| p.counters.other("rx_gso_frames"),
    ),
    (
        "trama_port_tx_gso_frames_total",
        "Frames beyond the MTU that the port was given whole.",
        |p| p.counters.other("tx_gso_frames"),
    ),
    (
        "trama_port_software_gso_frames_total",
        "Frames cut in software for the port: its driver did not negotiate the offload.",
        |p| p.counters.other("software_gso_frames"),
    ),
    (
        "trama_port_software_checksum_frames_total",
        "Checksums made in software for the port: its driver did not negotiate the offload.",
        |p| p.counters.other("software_checksum_frames"),
    ),
    (
        "trama_port_flooded_frames_total",
        "Frames from the port that went to all of their VLAN.",
        |p| p.counters.other("flooded_frames"),
    ),
];

/// Counters of vhost-user ports, labelled by port.
const VHOST: [PortCounter; 3] = [
    ("trama_vhost_kicks_total", "Times the driver woke the switch.", |p| p.counters.other("kicks")),
    ("trama_vhost_calls_total", "Times the switch woke the driver.", |p| p.counters.other("calls")),
    (
        "trama_vhost_connects_total",
        "The same as `trama_port_connects_total`, for vhost-user ports alone.",
        |p| p.vhost.as_ref().map_or(0, |session| session.connects),
    ),
];

/// A port's labels.
const PORT: [&str; 2] = ["network", "port"];

pub(super) fn add(families: &mut Families, status: &Status, config: &Config) -> Result<()> {
    add_info(families, status, config)?;
    add_traffic(families, status)?;
    add_drops(families, status)?;
    add_state(families, status)?;
    add_connects(families, status)?;
    add_vhost(families, status)
}

fn of(port: &PortStatus) -> [&str; 2] {
    [port.network.as_deref().unwrap_or_default(), &port.name]
}

/// Adds the settings, to be joined with the other metrics by network and port.
fn add_info(families: &mut Families, status: &Status, config: &Config) -> Result<()> {
    let worker = |port: &Port| {
        let network = status.network(port.network.as_deref()?)?;
        Some(network.worker.to_string())
    };
    let texts = |port: &Port| {
        let tag = port.vlan.tag.map(|tag| tag.to_string());
        [tag.unwrap_or_default(), worker(port).unwrap_or_default()]
    };
    let shown = config.ports.iter().filter(|port| !matches!(port.interface, Interface::Uplink(_)));
    let ports: Vec<_> = shown.map(|port| (port, texts(port))).collect();
    families.gauges(
        "trama_port_info",
        "1; the labels tell the port's settings, and the worker of its network.",
        ["network", "port", "type", "vlan_mode", "tag", "worker"],
        ports.iter().map(|(port, [tag, worker])| {
            let network = port.network.as_deref().unwrap_or_default();
            let mode = port.vlan.mode_or_default().name();
            ([network, &port.name, port.interface.type_name(), mode, tag, worker], 1)
        }),
    )
}

fn add_traffic(families: &mut Families, status: &Status) -> Result<()> {
    for (name, help, value) in TRAFFIC {
        let rows = status.ports.iter().map(|port| (of(port), value(port)));
        families.counts(name, help, PORT, rows)?;
    }
    for (name, help, value) in SPECIAL {
        let rows = status.ports.iter().map(|port| (of(port), value(port)));
        families.counts(name, help, PORT, rows.filter(|(_, count)| *count > 0))?;
    }
    Ok(())
}

fn add_drops(families: &mut Families, status: &Status) -> Result<()> {
    let labels = ["network", "port", "reason"];
    families.counts(
        "trama_port_drops_total",
        "Frames dropped, by reason; those on the way out count at the port out. `tramactl counters \
         PORT` has each reason's remedy.",
        labels,
        status.ports.iter().flat_map(|port| {
            let [network, name] = of(port);
            let counted = port.counters.drops.iter().filter(|(_, count)| *count > 0);
            counted.map(move |(reason, count)| ([network, name, *reason], *count))
        }),
    )?;
    families.counts(
        "trama_port_gateway_drops_total",
        "Frames of the port that its network's gateway refused, by reason. `tramactl counters \
         PORT` has each reason's remedy.",
        labels,
        status.ports.iter().flat_map(|port| {
            let [network, name] = of(port);
            let counted = port.counters.gateway_drops.iter();
            counted.map(move |(reason, count)| ([network, name, reason.as_str()], *count))
        }),
    )
}

fn add_state(families: &mut Families, status: &Status) -> Result<()> {
    let ports = &status.ports;
    families.gauges(
        "trama_port_running",
        "1 if the port runs; if not, the interface's `error` has the reason and the remedy.",
        PORT,
        ports.iter().map(|port| (of(port), u64::from(port.not_running.is_none()))),
    )?;
    families.gauges(
        "trama_port_link",
        "1 if frames can pass the port: it runs, a machine is connected, its cable is in, and no \
         loop blocks it.",
        PORT,
        ports.iter().map(|port| (of(port), u64::from(port.link))),
    )?;
    families.gauges(
        "trama_port_up",
        "1 if the port runs, carries frames and is in force as it is stored; if not, `tramactl \
         show` has the reason.",
        PORT,
        ports.iter().map(|port| (of(port), u64::from(port.link && port.trouble().is_none()))),
    )?;
    families.gauges(
        "trama_port_storm",
        "1 for each kind of flooded frames of which the port sends more than it may; look for a \
         loop behind it, or raise its limits.",
        ["network", "port", "kind"],
        ports.iter().flat_map(|port| {
            let [network, name] = of(port);
            port.storms.iter().map(move |kind| ([network, name, *kind], 1))
        }),
    )?;
    families.gauges(
        "trama_port_loop_blocked",
        "1 if the port is blocked because of a loop; remove the loop that `tramactl show` names.",
        PORT,
        ports.iter().filter(|port| port.loop_block.is_some()).map(|port| (of(port), 1)),
    )?;
    families.gauges(
        "trama_port_left_out",
        "1 while the port is left out, because it has made the switch crash; the log has the crash.",
        ["port"],
        ports.iter().filter(|port| port.left_out).map(|port| ([port.name.as_str()], 1)),
    )
}

fn add_connects(families: &mut Families, status: &Status) -> Result<()> {
    let connects = |port: &PortStatus| {
        let of_socket = || port.socket.as_ref().and_then(|socket| socket.connects);
        port.vhost.as_ref().map(|session| session.connects).or_else(of_socket)
    };
    families.counts(
        "trama_port_connects_total",
        "Connections that the port's socket has had; if there are many, `last_error` of the \
         interface says why. Datagram ports have none.",
        PORT,
        status.ports.iter().filter_map(|port| Some((of(port), connects(port)?))),
    )
}

fn add_vhost(families: &mut Families, status: &Status) -> Result<()> {
    let sessions = || status.ports.iter().filter_map(|port| Some((port, port.vhost.as_ref()?)));
    families.gauges(
        "trama_port_memory_bytes",
        "Guest memory that is mapped, and what the daemon was the first to touch of it.",
        ["port", "kind"],
        sessions().flat_map(|(port, session)| {
            let kinds =
                [("mapped", session.memory_mapped), ("populated", session.memory_populated)];
            let used = kinds.into_iter().filter(|(_, bytes)| *bytes > 0);
            used.map(|(kind, bytes)| ([port.name.as_str(), kind], bytes))
        }),
    )?;
    for (name, help, value) in VHOST {
        let rows = sessions().map(|(port, _)| ([port.name.as_str()], value(port)));
        families.counts(name, help, ["port"], rows)?;
    }
    Ok(())
}
