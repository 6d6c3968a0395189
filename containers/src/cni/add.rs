//! ADD: a container joins a network.

use std::path::Path;

use ipnet::IpNet;
use serde_json::Value;
use trama_api::attach::Device;
use trama_api::transaction::Output;
use trama_client::{Daemon, Interface as Wanted, Joined};

use super::config::{Config, Dns, Kind, NEWEST, PortMapping, RuntimeConfig, plain_address};
use super::delegate::Delegate;
use super::environment::Environment;
use super::failure::{CONFIG, DECODING, Failure, NO_CONTAINER};
use super::success::{Addresses, Interface, Ip, Route, Success};
use crate::forwards::{self, Published};
use crate::names;

/// How the columns of ports begin that belong to containers.
pub(super) const ENGINE: &str = "cni";
/// Columns `external_ids`.
pub(super) const NETWORK_ID: &str = "cni-network";
pub(super) const CONTAINER_ID: &str = "cni-container-id";
pub(super) const IFNAME_ID: &str = "cni-ifname";
/// Arguments of Kubernetes that are noted.
const NOTED: [&str; 2] = ["K8S_POD_NAME", "K8S_POD_NAMESPACE"];

/// Carries it out; returns the result.
pub(super) fn add(
    daemon: &Daemon,
    config: &Config,
    environment: &Environment,
    version: &str,
    ipam: Option<&Delegate<'_>>,
) -> Result<Value, Failure> {
    let mut wanted = wanted(config, environment, version)?;
    let runtime = config.runtime();
    let published = published(&runtime)?;
    if !published.is_empty() {
        check_nat(daemon, &wanted.network)?;
    }
    wanted.columns.extend(forwards::column(&published, ENGINE, &environment.container));
    let Some(ipam) = ipam else {
        return attach(daemon, config, environment, version, (wanted, published), None);
    };
    let chosen = ipam.run("ADD")?;
    let chosen = Addresses::read(&chosen, "the IPAM plug-in");
    let added = chosen.and_then(|chosen| {
        attach(daemon, config, environment, version, (wanted, published), Some(chosen))
    });
    added.inspect_err(|_| {
        // The error of ADD is the one to report.
        let _ = ipam.run("DEL");
    })
}

/// Attaches the container with the addresses that another plug-in has chosen, if one has.
fn attach(
    daemon: &Daemon,
    config: &Config,
    environment: &Environment,
    version: &str,
    (mut wanted, published): (Wanted, Vec<Published>),
    chosen: Option<Addresses>,
) -> Result<Value, Failure> {
    if let Some(chosen) = &chosen {
        wanted.addresses = chosen.ips.iter().map(|ip| ip.address).collect();
        let routes = chosen.routes.iter().map(|route| route.to_set(&chosen.ips));
        wanted.routes = Some(routes.collect::<Result<_, _>>()?);
    }
    let joined = daemon.join(&wanted)?;
    let rules = forwards::rule_names(&published, ENGINE, &environment.container);
    forwards::wait_or_leave(daemon, &wanted.network, &wanted.port, &rules)?;
    let success = success(&wanted, joined, chosen, environment, config);
    Ok(success.json(version, config.prev_result.as_ref()))
}

/// Checks that ports of a network can be published.
fn check_nat(daemon: &Daemon, network: &str) -> Result<(), Failure> {
    let mode = match daemon.run(["get", "Bridge", network, "mode"])? {
        Output::Text { lines } => lines.concat(),
        Output::Table { .. } => String::new(),
    };
    if ["nat", "nat-network"].contains(&mode.as_str()) {
        return Ok(());
    }
    let remedy = "use one of mode nat-network, or take the capability out";
    let details =
        format!("portMappings: network {network} is of mode {mode}, without NAT; {remedy}");
    Err(Failure::new(CONFIG, details))
}

/// What is asked of the daemon, as far as it is known before addresses are.
fn wanted(config: &Config, environment: &Environment, version: &str) -> Result<Wanted, Failure> {
    if config.kind == Kind::VhostUser && version != NEWEST {
        let details =
            format!("kind \"vhost-user\" needs cniVersion {NEWEST}, which has socketPath");
        return Err(Failure::new(CONFIG, details));
    }
    if !Path::new(&environment.netns).exists() {
        let details = format!("CNI_NETNS: there is no {}", environment.netns);
        return Err(Failure::new(NO_CONTAINER, details));
    }
    let runtime = config.runtime();
    refuse_bandwidth(&runtime)?;
    let mac = runtime.mac.as_deref().map(|text| {
        let wrong = || format!("runtimeConfig.mac {text:?} is not one such as 52:54:00:12:34:56");
        text.parse().map_err(|_| Failure::new(CONFIG, wrong()))
    });
    let mac = mac.transpose()?;
    let mut columns = columns(config, environment, &runtime)?;
    if let (Kind::VhostUser, Some(mac)) = (config.kind, mac) {
        columns.push(format!("mac=\"{mac}\""));
    }
    Ok(Wanted {
        network: config.network()?,
        port: port(environment),
        columns,
        netns: Some(environment.netns.clone()),
        ifname: environment.ifname.clone(),
        mac,
        addresses: stated_prefixes(config, &runtime),
        lease: config.leases(),
        routes: routes(config)?,
        device: match config.kind {
            Kind::Tap => Device::Descriptor,
            Kind::VhostUser => Device::VhostUser,
        },
    })
}

/// The name of a container's port.
pub(super) fn port(environment: &Environment) -> String {
    names::of_port(ENGINE, &environment.container, &environment.ifname)
}

fn columns(
    config: &Config,
    environment: &Environment,
    runtime: &RuntimeConfig,
) -> Result<Vec<String>, Failure> {
    let mut columns = vec![
        names::external_id(CONTAINER_ID, &environment.container),
        names::external_id(IFNAME_ID, &environment.ifname),
        names::external_id(NETWORK_ID, &config.name),
    ];
    let noted = NOTED.iter().filter_map(|key| Some((key, environment.args.get(*key)?)));
    columns.extend(noted.map(|(key, value)| names::external_id(key, value)));
    columns.extend(config.vlan.map(|vlan| format!("tag={vlan}")));
    // Another plug-in has been told of them, too. Those with prefixes are set by the client.
    if config.foreign_ipam().is_none() && stated_prefixes(config, runtime).is_empty() {
        let stated = runtime.ips.iter().flatten();
        let stated = stated.map(|text| {
            let wrong = || format!("runtimeConfig.ips {text:?} is not an address");
            plain_address(text).ok_or_else(|| Failure::new(CONFIG, wrong()))
        });
        let stated: Vec<_> = stated.collect::<Result<_, _>>()?;
        let stated: Vec<String> = stated.iter().map(ToString::to_string).collect();
        if !stated.is_empty() {
            columns.push(names::set("addresses", stated.iter().map(String::as_str)));
        }
    }
    if let Some(aliases) = runtime.aliases.as_ref().filter(|aliases| !aliases.is_empty()) {
        columns.push(names::set("names", aliases.iter().map(String::as_str)));
    }
    Ok(columns)
}

/// The addresses, if all are stated with the prefix of their subnet, which the network need not
/// know.
fn stated_prefixes(config: &Config, runtime: &RuntimeConfig) -> Vec<IpNet> {
    let stated = runtime.ips.iter().flatten().filter(|_| config.foreign_ipam().is_none());
    let read = |text: &String| text.parse().ok();
    let with_prefix = |net: &IpNet| net.prefix_len() < net.max_prefix_len();
    let all: Option<Vec<IpNet>> = stated.map(|text| read(text).filter(with_prefix)).collect();
    all.unwrap_or_default()
}

/// The routes: those of `ipam.routes`, else by the network's gateways; none without addresses.
fn routes(config: &Config) -> Result<Option<Vec<trama_tap::Route>>, Failure> {
    if !config.leases() && config.runtime().ips.is_none() {
        return Ok(Some(Vec::new()));
    }
    let stated = config.ipam.as_ref().and_then(|ipam| ipam.routes.clone());
    let Some(stated) = stated else { return Ok(None) };
    let stated: Vec<Route> = serde_json::from_value(stated)
        .map_err(|error| Failure::new(DECODING, format!("ipam.routes: {error}")))?;
    stated.iter().map(|route| route.to_set(&[])).collect::<Result<_, _>>().map(Some)
}

fn published(runtime: &RuntimeConfig) -> Result<Vec<Published>, Failure> {
    let wrong = |part: String| Failure::new(CONFIG, format!("runtimeConfig.portMappings: {part}"));
    let one = |mapping: &PortMapping| {
        let protocol = mapping.protocol.as_deref().unwrap_or("tcp").to_ascii_lowercase();
        if !["tcp", "udp"].contains(&protocol.as_str()) {
            return Err(wrong(format!("protocol {protocol:?} is neither tcp nor udp")));
        }
        let PortMapping { host_port, container_port, .. } = *mapping;
        if host_port == 0 || container_port == 0 {
            return Err(wrong(format!("a port is 0 in {host_port} to {container_port}")));
        }
        let host = mapping.host_ip.as_deref().filter(|text| !text.is_empty());
        let host = host.map(|text| {
            text.parse().map_err(|_| wrong(format!("hostIP {text:?} is not an address")))
        });
        let host = host.transpose()?;
        Ok(Published { protocol, host, host_port, container_port, count: 1 })
    };
    runtime.port_mappings.iter().flatten().map(one).collect()
}

fn refuse_bandwidth(runtime: &RuntimeConfig) -> Result<(), Failure> {
    let limits = runtime.bandwidth.iter().flatten();
    match limits.into_iter().find(|(_, value)| value.as_f64() != Some(0.0)) {
        None => Ok(()),
        Some((key, value)) => Err(Failure::new(
            CONFIG,
            format!(
                "runtimeConfig.bandwidth has {key} = {value}: trama has no rate limits yet; take \
                 the capability out, and add the plug-in \"bandwidth\" to the list"
            ),
        )),
    }
}

fn success(
    wanted: &Wanted,
    joined: Joined,
    chosen: Option<Addresses>,
    environment: &Environment,
    config: &Config,
) -> Success {
    let nameservers = joined.dns();
    let attached = joined.attached;
    let mac = joined.mac.or(wanted.mac).map(|mac| mac.to_string());
    let socket = attached.socket.map(|path| path.display().to_string());
    let interface = Interface {
        name: environment.ifname.clone(),
        mac,
        mtu: attached.mtu,
        sandbox: environment.netns.clone(),
        socket,
    };
    let mut addresses = chosen.unwrap_or_else(|| {
        let gateway_of = |address: &IpNet| {
            let is_inside = |gateway: &&std::net::IpAddr| address.contains(*gateway);
            attached.gateways.iter().find(is_inside).copied()
        };
        let ips = joined.addresses.iter();
        let ips: Vec<Ip> = ips.map(|it| Ip { address: *it, gateway: gateway_of(it) }).collect();
        let nameservers = nameservers.iter().map(ToString::to_string).collect();
        let dns = Dns { nameservers, ..Dns::default() };
        Addresses { ips, routes: joined.routes.iter().map(Route::of).collect(), dns }
    });
    if let Some(dns) = &config.dns {
        addresses.dns = dns.clone();
    }
    Success { interface, addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_count_if_all_addresses_have_one() {
        let of = |ips: &str| {
            let text = format!(
                "{{\"cniVersion\":\"1.1.0\",\"name\":\"lab\",\"runtimeConfig\":{{\"ips\":{ips}}}}}"
            );
            let config = Config::read(text.as_bytes()).unwrap();
            stated_prefixes(&config, &config.runtime())
        };
        let both: Vec<IpNet> = ["10.1.0.7/24", "fd00::7/64"].map(|it| it.parse().unwrap()).to_vec();
        assert_eq!(of("[\"10.1.0.7/24\",\"fd00::7/64\"]"), both);
        for some in ["[\"10.1.0.7/24\",\"fd00::7\"]", "[\"10.1.0.7/32\"]", "[\"x\"]", "[]"] {
            assert!(of(some).is_empty(), "{some}");
        }
    }
}
