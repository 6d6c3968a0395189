//! What needs attention, worst first. It follows from the view alone.

use trama_api::state::{Forward, Gateway, PortState};

use crate::view::{Attention, Kind, Network, Port, Severity, View};

/// Lines that are kept; the rest is less bad.
const MOST: usize = 100;
/// Drops a minute from which on they are bad.
const MANY_DROPS: u64 = 100;
/// The share of a pool, in percent, from which on leases are scarce.
const SCARCE: usize = 90;

/// A line, and by what lines of one kind are ordered: the larger comes first.
struct Line(Attention, u64);

/// Returns what needs attention in a view.
pub(crate) fn attention(view: &View) -> Vec<Attention> {
    let mut lines = Vec::new();
    view.networks.iter().for_each(|network| of_network(network, &mut lines));
    view.ports.iter().for_each(|port| of_port(port, view, &mut lines));
    // Stable: equal lines stay in the order of the configuration.
    lines.sort_by_key(|Line(line, weight)| (line.severity, line.kind, u64::MAX - weight));
    lines.truncate(MOST);
    lines.into_iter().map(|Line(line, _)| line).collect()
}

fn of_network(network: &Network, lines: &mut Vec<Line>) {
    let network = &network.network;
    let mut add = |severity, kind, text: String| {
        let object = format!("network:{}", network.name);
        lines.push(Line(Attention { severity, object, kind, text }, 0));
    };
    if let Some(error) = &network.error {
        add(Severity::Bad, Kind::Down, error.clone());
    } else if let Some(uplink) = network.uplink.as_ref().filter(|uplink| !uplink.running) {
        add(Severity::Bad, Kind::Down, format!("uplink {} is not joined", uplink.ifname));
    }
    if let Some(gateway) = &network.gateway {
        of_gateway(gateway, &mut add);
    }
    for Forward { name, status, port, .. } in &network.forwards {
        if status != "listening" {
            let of = port.as_ref().map(|port| format!(" of {port}")).unwrap_or_default();
            add(Severity::Warn, Kind::Forward, format!("forward {name}{of}: {status}"));
        }
    }
}

fn of_gateway(gateway: &Gateway, add: &mut impl FnMut(Severity, Kind, String)) {
    if !gateway.up {
        let why = gateway.last_error.as_ref().map(|error| format!(": {error}"));
        let text = format!("the gateway does not run{}", why.unwrap_or_default());
        add(Severity::Bad, Kind::Gateway, text);
    }
    if let Some(error) = &gateway.lease_error {
        add(Severity::Bad, Kind::Gateway, format!("no address is leased: {error}"));
    }
    // In mode `nat` each port has a pool of one address, which its machine leases.
    let Gateway { leases, pool, .. } = *gateway;
    if pool < 2 {
        return;
    }
    if leases >= pool {
        let text =
            format!("{leases} of {pool} addresses are leased; add a range, or shorten leases");
        add(Severity::Bad, Kind::Pool, text);
    } else if leases.saturating_mul(100) >= pool.saturating_mul(SCARCE) {
        add(Severity::Warn, Kind::Pool, format!("{leases} of {pool} addresses are leased"));
    }
}

fn of_port(port: &Port, view: &View, lines: &mut Vec<Line>) {
    let mut add = |severity, kind, text: String, weight| {
        let object = format!("port:{}", port.port.name);
        lines.push(Line(Attention { severity, object, kind, text }, weight));
    };
    let error = port.port.error.as_deref();
    match (port.port.state, error) {
        (PortState::NotRunning, _) => {
            add(Severity::Bad, Kind::Down, error.unwrap_or("does not run").to_owned(), 0);
        }
        (PortState::Blocked, _) => {
            let text = error.unwrap_or("blocked because of a loop: its frames came back");
            add(Severity::Bad, Kind::Blocked, text.to_owned(), 0);
        }
        (PortState::Waiting, Some(error)) => {
            add(Severity::Warn, Kind::Waiting, error.to_owned(), 0);
        }
        (_, Some(error)) => add(Severity::Warn, Kind::Down, error.to_owned(), 0),
        (_, None) => {}
    }
    let drops = || port.drops.iter().filter(|it| it.minute > 0 && !it.expected);
    if let Some(worst) = drops().max_by_key(|it| it.minute) {
        let minute: u64 = drops().fold(0, |sum, it| sum.saturating_add(it.minute));
        let severity = if minute < MANY_DROPS { Severity::Warn } else { Severity::Bad };
        let remedy = view.reasons.get(&worst.reason);
        let remedy = remedy.map(|remedy| format!(": {remedy}")).unwrap_or_default();
        let text = format!("{minute} dropped in a minute, {}{remedy}", worst.reason);
        add(severity, Kind::Drops, text, minute);
    }
    if !port.port.storms.is_empty() {
        let text = format!("sends more {} than it may", port.port.storms.join(" and "));
        add(Severity::Warn, Kind::Drops, text, 0);
    }
}

#[cfg(test)]
mod tests {
    use trama_api::state;

    use super::*;
    use crate::view::Drops;

    fn port(name: &str, state: PortState, minute: u64) -> Port {
        let port = state::Port { name: name.into(), state, ..state::Port::default() };
        let drops = Drops { reason: "egress_full".into(), minute, ..Drops::default() };
        Port { port, drops: vec![drops], ..Port::default() }
    }

    fn lines(view: &View) -> Vec<String> {
        let line =
            |it: Attention| format!("{:?} {} {:?} {}", it.severity, it.object, it.kind, it.text);
        attention(view).into_iter().map(line).collect()
    }

    #[test]
    fn nothing_needs_attention_where_all_is_well() {
        let mut quiet = port("vm3", PortState::Up, 0);
        quiet.drops[0].total = 4711;
        // What is flooded reaches no machine at a port without one.
        let absent = |name: &str, state| {
            let mut port = port(name, state, 4711);
            port.drops[0].expected = true;
            port
        };
        let absent = [absent("vm1", PortState::Waiting), absent("vm2", PortState::Cable)];
        let ports = absent.into_iter().chain([quiet]).collect();
        let network = state::Network {
            gateway: Some(Gateway { up: true, leases: 3, pool: 200, ..Gateway::default() }),
            uplink: Some(state::Uplink { ifname: "eth0".into(), running: true }),
            forwards: vec![Forward { status: "listening".into(), ..Forward::default() }],
            ..state::Network::default()
        };
        let networks = vec![Network { network, vlans: Vec::new() }];
        assert_eq!(lines(&View { ports, networks, ..View::default() }), [""; 0]);
    }

    #[test]
    fn the_worst_comes_first() {
        let network = state::Network {
            name: "lab".into(),
            gateway: Some(Gateway { last_error: Some("killed".into()), ..Gateway::default() }),
            forwards: vec![Forward {
                name: "web".into(),
                status: "port 80 is in use".into(),
                ..Forward::default()
            }],
            ..state::Network::default()
        };
        let view = View {
            ports: vec![
                port("few", PortState::Up, 99),
                port("many", PortState::Up, 100),
                port("more", PortState::Up, 4000),
                port("loops", PortState::Blocked, 0),
                port("dead", PortState::NotRunning, 0),
            ],
            networks: vec![Network { network, vlans: Vec::new() }],
            reasons: [("egress_full".into(), "the guest is slow".into())].into(),
            ..View::default()
        };
        let wanted = [
            "Bad port:loops Blocked blocked because of a loop: its frames came back",
            "Bad port:dead Down does not run",
            "Bad network:lab Gateway the gateway does not run: killed",
            "Bad port:more Drops 4000 dropped in a minute, egress_full: the guest is slow",
            "Bad port:many Drops 100 dropped in a minute, egress_full: the guest is slow",
            "Warn network:lab Forward forward web: port 80 is in use",
            "Warn port:few Drops 99 dropped in a minute, egress_full: the guest is slow",
        ];
        assert_eq!(lines(&view), wanted);
    }

    #[test]
    fn pools_are_scarce_before_they_are_empty() {
        for (leases, wanted) in [(179, ""), (180, "Warn"), (200, "Bad"), (999, "Bad")] {
            let gateway = Gateway { up: true, leases, pool: 200, ..Gateway::default() };
            let network = state::Network { gateway: Some(gateway), ..state::Network::default() };
            let networks = vec![Network { network, vlans: Vec::new() }];
            let found = lines(&View { networks, ..View::default() });
            assert_eq!(found.first().map_or("", |line| line.split(' ').next().unwrap()), wanted);
        }
        let gateway = Gateway { up: true, leases: 1, pool: 1, ..Gateway::default() };
        let network = state::Network { gateway: Some(gateway), ..state::Network::default() };
        let networks = vec![Network { network, vlans: Vec::new() }];
        assert_eq!(lines(&View { networks, ..View::default() }), [""; 0], "of mode nat");
    }

    #[test]
    fn the_list_ends() {
        let ports = (0..1000).map(|it| port(&it.to_string(), PortState::NotRunning, 0)).collect();
        assert_eq!(lines(&View { ports, ..View::default() }).len(), MOST);
    }
}
