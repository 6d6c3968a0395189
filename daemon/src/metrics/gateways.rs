//! The metrics of gateways: their processes, their ports, NAT and DHCP.

use prometheus::Result;
use trama_gateway::report::DhcpStatus;

use super::Families;
use crate::gateway::GatewayStatus;
use crate::status::{PortCounts, Status};

/// The family names of a DHCP server's metrics, and what it is called.
struct Server {
    title: &'static str,
    leases: &'static str,
    pool: &'static str,
    messages: &'static str,
    refused: &'static str,
}

const DHCP: Server = Server {
    title: "DHCP",
    leases: "trama_dhcp_leases",
    pool: "trama_dhcp_pool",
    messages: "trama_dhcp_messages_total",
    refused: "trama_dhcp_refused_total",
};

const DHCP6: Server = Server {
    title: "DHCPv6",
    leases: "trama_dhcp6_leases",
    pool: "trama_dhcp6_pool",
    messages: "trama_dhcp6_messages_total",
    refused: "trama_dhcp6_refused_total",
};

/// The networks with a gateway.
type Gateways<'a> = Vec<(&'a str, &'a GatewayStatus)>;

pub(super) fn add(families: &mut Families, status: &Status) -> Result<()> {
    let gateways: Gateways<'_> = status
        .networks
        .iter()
        .filter_map(|network| Some((network.name.as_str(), network.gateway.as_ref()?)))
        .collect();
    add_processes(families, &gateways)?;
    add_ports(families, status)?;
    add_nat(families, &gateways)?;
    add_dhcp(families, &gateways, &DHCP, |gateway| gateway.counters.dhcp.as_ref())?;
    add_dhcp(families, &gateways, &DHCP6, |gateway| gateway.counters.dhcp6.as_ref())?;
    families.gauges(
        "trama_dhcp_store_failed",
        "1 if no address is leased because the lease store cannot be written; `tramactl show` has \
         the reason.",
        ["network"],
        gateways.iter().filter_map(|(network, gateway)| {
            let counted = &gateway.counters;
            let failed = counted.lease_store.is_some();
            let has_store = counted.dhcp.is_some() || counted.dhcp6.is_some() || failed;
            has_store.then_some(([*network], u64::from(failed)))
        }),
    )
}

fn add_processes(families: &mut Families, gateways: &Gateways<'_>) -> Result<()> {
    families.gauges(
        "trama_gateway_up",
        "1 if the gateway answers; if not, `tramactl show` and the log have the reason.",
        ["network"],
        gateways.iter().map(|(network, it)| ([*network], u64::from(it.process.is_some()))),
    )?;
    families.counts(
        "trama_gateway_restarts_total",
        "Times that the gateway's process was replaced; the log has why it ended.",
        ["network"],
        gateways.iter().map(|(network, it)| ([*network], it.restarts)),
    )?;
    families.counts(
        "trama_gateway_frames_total",
        "Frames that the gateway's process took (rx) and sent (tx).",
        ["network", "direction"],
        gateways.iter().flat_map(|(network, it)| {
            [([*network, "rx"], it.counters.received), ([*network, "tx"], it.counters.sent)]
        }),
    )?;
    families.counts(
        "trama_gateway_drops_total",
        "Frames that the gateway's process refused, by reason; docs/troubleshooting.md has each \
         reason's remedy.",
        ["network", "reason"],
        gateways.iter().flat_map(|(network, it)| {
            let drops = it.counters.drops.iter();
            drops.map(|(reason, count)| ([*network, reason.as_str()], *count))
        }),
    )
}

/// Adds the counters of the switch ports of gateways.
fn add_ports(families: &mut Families, status: &Status) -> Result<()> {
    let ports: Vec<(&str, &PortCounts)> = status
        .networks
        .iter()
        .filter_map(|network| Some((network.name.as_str(), network.gateway_port.as_ref()?)))
        .collect();
    let directions = |rx: fn(&PortCounts) -> u64, tx: fn(&PortCounts) -> u64| {
        ports.iter().flat_map(move |(network, counts)| {
            [([*network, "rx"], rx(counts)), ([*network, "tx"], tx(counts))]
        })
    };
    families.counts(
        "trama_gateway_port_frames_total",
        "Frames that entered the switch from the gateway's port (rx), and that it was given (tx).",
        ["network", "direction"],
        directions(|counts| counts.rx_frames, |counts| counts.tx_frames),
    )?;
    families.counts(
        "trama_gateway_port_bytes_total",
        "Their bytes.",
        ["network", "direction"],
        directions(|counts| counts.rx_bytes, |counts| counts.tx_bytes),
    )?;
    families.counts(
        "trama_gateway_port_drops_total",
        "Frames from the gateway's port that the switch dropped, by reason.",
        ["network", "reason"],
        ports.iter().flat_map(|(network, counts)| {
            let counted = counts.drops.iter().filter(|(_, count)| *count > 0);
            counted.map(|(reason, count)| ([*network, *reason], *count))
        }),
    )
}

fn add_nat(families: &mut Families, gateways: &Gateways<'_>) -> Result<()> {
    let nats =
        || gateways.iter().filter_map(|(network, it)| Some((*network, it.counters.nat.as_ref()?)));
    families.gauges(
        "trama_nat_flows",
        "Flows through the NAT.",
        ["network", "protocol"],
        nats().flat_map(|(network, nat)| {
            nat.flows.iter().map(move |(protocol, count)| ([network, protocol.as_str()], *count))
        }),
    )?;
    families.gauges(
        "trama_nat_forwards",
        "Forwards, by whether they listen or are pending; `tramactl forward list` says why.",
        ["network", "state"],
        nats().flat_map(|(network, nat)| {
            [([network, "listening"], nat.listening), ([network, "pending"], nat.pending)]
        }),
    )
}

fn add_dhcp(
    families: &mut Families,
    gateways: &Gateways<'_>,
    server: &Server,
    of: fn(&GatewayStatus) -> Option<&DhcpStatus>,
) -> Result<()> {
    let Server { title, leases, pool, messages, refused } = *server;
    let servers = || gateways.iter().filter_map(|(network, it)| Some((*network, of(it)?)));
    families.gauges(
        leases,
        &format!("Leases that the gateway's {title} server has in force."),
        ["network"],
        servers().map(|(network, it)| ([network], it.leases as u64)),
    )?;
    families.gauges(
        pool,
        &format!("Addresses in the ranges of the gateway's {title} server."),
        ["network"],
        servers().map(|(network, it)| ([network], it.pool as u64)),
    )?;
    families.counts(
        messages,
        &format!("{title} messages of clients (rx) and of the gateway (tx), by type."),
        ["network", "direction", "type"],
        servers().flat_map(|(network, it)| {
            let received = it.received.iter().map(|by_type| ("rx", by_type));
            let both = received.chain(it.sent.iter().map(|by_type| ("tx", by_type)));
            both.map(move |(direction, (kind, count))| {
                ([network, direction, kind.as_str()], *count)
            })
        }),
    )?;
    families.counts(
        refused,
        &format!(
            "{title} messages that got no answer or no address, by reason; \
             docs/troubleshooting.md has each reason's remedy."
        ),
        ["network", "reason"],
        servers().flat_map(|(network, it)| {
            it.refused.iter().map(move |(reason, count)| ([network, reason.as_str()], *count))
        }),
    )
}
