//! `[network.dhcp]` read from a file and written back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::Ipv4Net;
use toml_edit::{Array, InlineTable, Value};
use trama_dhcp::config::{
    ClientMatch, Clients, Identity, LeaseTimes, Limits, Reservation, Service, Settings,
};
use trama_dhcp::prefix::Route;

use super::address;
use super::boot;
use super::field::put_list;
use super::reader::{Reader, SwitchOrTable};
use super::units::format_duration;
use crate::Fault;
use crate::config::model::dhcp::DhcpSetting;
use crate::config::rules::Place;

const KEYS: [&str; 19] = [
    "range",
    "lease",
    "lease-min",
    "lease-max",
    "domain",
    "search",
    "host-search",
    "dns",
    "router",
    "ntp",
    "routes",
    "boot-server",
    "boot-file",
    "boot-params",
    "identity",
    "leases-per-port",
    "ipv6",
    "ipv6-leases",
    "reservation",
];
const RESERVATION_KEYS: [&str; 4] = ["mac", "id", "address", "name"];

/// The key `dhcp` of the network with this number.
pub(super) fn read(reader: &mut Reader<'_, '_, '_>, index: usize) -> DhcpSetting {
    match reader.switch_or_table("dhcp", Place::Dhcp(index)) {
        None => DhcpSetting::ByMode,
        Some(SwitchOrTable::Switch(false)) => DhcpSetting::Off,
        Some(SwitchOrTable::Switch(true)) => DhcpSetting::On(Box::default()),
        Some(SwitchOrTable::Table(mut table)) => {
            DhcpSetting::On(Box::new(read_table(&mut table, index)))
        }
    }
}

fn read_table(reader: &mut Reader<'_, '_, '_>, index: usize) -> Service {
    reader.refuse_unknown(&KEYS, |_| None);
    let default = Service::default();
    let (ranges, ranges6) = read_ranges(reader);
    Service {
        settings: read_settings(reader, ranges),
        clients: read_clients(reader, index),
        host_search: reader.boolean("host-search").unwrap_or(default.host_search),
        ipv6: reader.boolean("ipv6").unwrap_or(default.ipv6),
        ipv6_leases: reader.boolean("ipv6-leases").unwrap_or(default.ipv6_leases),
        ranges6,
    }
}

fn read_settings(reader: &mut Reader<'_, '_, '_>, ranges: Ranges<Ipv4Addr>) -> Settings {
    let usual = LeaseTimes::default();
    Settings {
        ranges,
        lease: LeaseTimes {
            default: reader.duration("lease").unwrap_or(usual.default),
            min: reader.duration("lease-min").unwrap_or(usual.min),
            max: reader.duration("lease-max").unwrap_or(usual.max),
        },
        domain: parsed(reader, "domain", DOMAIN),
        search: parsed_list(reader, "search", DOMAIN),
        dns: reader.has("dns").then(|| parsed_list(reader, "dns", ADDRESS)),
        routers: parsed(reader, "router", ADDRESS).into_iter().collect(),
        ntp: parsed_list(reader, "ntp", ADDRESS),
        routes: read_routes(reader),
        boot: boot::read(reader),
    }
}

fn read_clients(reader: &mut Reader<'_, '_, '_>, index: usize) -> Clients {
    let default = Clients::default();
    let number = |at| Place::Reservation(index, at);
    Clients {
        identity: reader.word("identity", &IDENTITIES).unwrap_or(default.identity),
        limits: reader.integer("leases-per-port").map_or(default.limits, Limits::per_port),
        reservations: reader.each_table("reservation", number, read_reservation),
        ..Clients::default()
    }
}

/// What a value should be, and an example.
type Wanted = (&'static str, &'static str);
const ADDRESS: Wanted = ("an IPv4 address", "write it as in 10.1.0.7");
const DOMAIN: Wanted = ("a domain", "write it as in lab.example");

/// How clients are identified. The guest of a network of mode `nat` is alone, so that identity has
/// no word.
const IDENTITIES: [(&str, Identity); 2] =
    [("mac", Identity::Hardware), ("client-id", Identity::ClientId)];
fn parsed<T: FromStr>(
    reader: &mut Reader<'_, '_, '_>,
    key: &'static str,
    (what, remedy): Wanted,
) -> Option<T> {
    let text = reader.string(key)?;
    reader
        .converted(key, text.parse().ok(), || Fault::new(format!("{text:?} is not {what}"), remedy))
}

pub(super) fn parsed_list<T: FromStr>(
    reader: &mut Reader<'_, '_, '_>,
    key: &'static str,
    (what, remedy): Wanted,
) -> Vec<T> {
    let mut values = Vec::new();
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        match text.parse() {
            Ok(value) => values.push(value),
            Err(_) => {
                reader.fault(key, offset, Fault::new(format!("{text:?} is not {what}"), remedy))
            }
        }
    }
    values
}

type Ranges<A> = Vec<RangeInclusive<A>>;

fn read_ranges(reader: &mut Reader<'_, '_, '_>) -> (Ranges<Ipv4Addr>, Ranges<Ipv6Addr>) {
    let (mut ranges, mut ranges6) = (Vec::new(), Vec::new());
    for (offset, text) in reader.strings("range").unwrap_or_default() {
        let ends = text.split_once('-').map(|(a, b)| (a.trim().parse(), b.trim().parse()));
        match ends {
            Some((Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last)))) => ranges.push(first..=last),
            Some((Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last)))) => ranges6.push(first..=last),
            _ => {
                let remedy = "write it as in 10.1.0.50-10.1.0.99";
                reader.fault(
                    "range",
                    offset,
                    Fault::new(format!("{text:?} is not a range"), remedy),
                );
            }
        }
    }
    (ranges, ranges6)
}

fn read_routes(reader: &mut Reader<'_, '_, '_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for (to, via) in reader.map("routes").unwrap_or_default() {
        let ends = to.parse().ok().zip(via.parse().ok());
        let route = ends.map(|(to, via): (Ipv4Net, _)| Route { to: to.trunc(), via });
        routes.extend(reader.converted("routes", route, || {
            let remedy = r#"write it as in routes = { "10.9.0.0/16" = "10.1.0.7" }"#;
            Fault::new(format!("{to:?} = {via:?} is not a route"), remedy)
        }));
    }
    routes
}

fn read_reservation(reader: &mut Reader<'_, '_, '_>) -> Option<Reservation> {
    reader.refuse_unknown(&RESERVATION_KEYS, |_| None);
    let mac = parsed(reader, "mac", ("a MAC address", "write it as 52:54:00:12:34:56"));
    let id = reader.string("id").and_then(|text| {
        reader.converted("id", octets(&text), || {
            let remedy = "write its octets in hexadecimal, as in 01:52:54:00:12:34:56";
            Fault::new(format!("{text:?} is not a client identifier"), remedy)
        })
    });
    let client = match (reader.has("mac"), reader.has("id")) {
        (true, false) => mac.map(ClientMatch::Mac),
        (false, true) => id.map(ClientMatch::Id),
        (both, _) => reader.converted("mac", None, || {
            let message =
                if both { "a client has either mac or id, not both" } else { "is missing" };
            Fault::new(message, "write either mac or id")
        }),
    };
    let addresses = address::read_pair(reader, "address").and_then(|some| {
        reader.converted("address", Some(some).filter(|some| *some != (None, None)), || {
            Fault::new("is missing", "add the address to reserve")
        })
    });
    let name = parsed(reader, "name", ("a name", "use 1 to 63 letters, digits and hyphens"));
    let (address, address6) = addresses?;
    Some(Reservation { client: client?, address, address6, name })
}

fn octets(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect()
}

/// The value of the key; `None` if the key is absent.
pub(super) fn value(setting: &DhcpSetting) -> Option<Value> {
    match setting {
        DhcpSetting::ByMode => None,
        DhcpSetting::Off => Some(false.into()),
        DhcpSetting::On(dhcp) if **dhcp == Service::default() => Some(true.into()),
        DhcpSetting::On(dhcp) => Some(Value::InlineTable(table(dhcp))),
    }
}

/// The keys that differ from their defaults.
fn table(dhcp: &Service) -> InlineTable {
    let Service { settings, clients, host_search, ipv6, ipv6_leases, ranges6 } = dhcp;
    let default = Service::default();
    let mut table = InlineTable::new();
    let ranges = settings.ranges.iter().map(|range| format!("{}-{}", range.start(), range.end()));
    let ranges6 = ranges6.iter().map(|range| format!("{}-{}", range.start(), range.end()));
    put_list(&mut table, "range", ranges.chain(ranges6));
    put_settings(&mut table, settings);
    put_clients(&mut table, clients);
    for (key, value, usual) in [
        ("host-search", *host_search, default.host_search),
        ("ipv6", *ipv6, default.ipv6),
        ("ipv6-leases", *ipv6_leases, default.ipv6_leases),
    ] {
        if value != usual {
            table.insert(key, value.into());
        }
    }
    let rank = |key: &str| KEYS.iter().position(|known| *known == key);
    table.sort_values_by(|a, _, b, _| rank(a).cmp(&rank(b)));
    table
}

fn put_settings(table: &mut InlineTable, settings: &Settings) {
    let Settings { lease, routers, dns, domain, search, ntp, routes, boot, .. } = settings;
    let usual = LeaseTimes::default();
    for (key, time, usual) in [
        ("lease", lease.default, usual.default),
        ("lease-min", lease.min, usual.min),
        ("lease-max", lease.max, usual.max),
    ] {
        if time != usual {
            table.insert(key, format_duration(time).into());
        }
    }
    table.extend(domain.as_ref().map(|domain| ("domain", domain.as_str())));
    put_list(table, "search", search.iter().map(|domain| domain.as_str().to_owned()));
    if let Some(dns) = dns {
        table.insert("dns", Array::from_iter(dns.iter().map(Ipv4Addr::to_string)).into());
    }
    table.extend(routers.first().map(|address| ("router", address.to_string())));
    put_list(table, "ntp", ntp.iter().map(Ipv4Addr::to_string));
    if !routes.is_empty() {
        let routes = routes.iter().map(|route| (route.to.to_string(), route.via.to_string()));
        table.insert("routes", InlineTable::from_iter(routes).into());
    }
    boot::put(table, boot);
}

fn put_clients(table: &mut InlineTable, clients: &Clients) {
    let default = Clients::default();
    let Clients { identity, limits, reservations, .. } = clients;
    let word = IDENTITIES.iter().find(|(_, it)| it == identity);
    table.extend(word.filter(|_| *identity != default.identity).map(|it| ("identity", it.0)));
    if *limits != default.limits {
        table.insert("leases-per-port", i64::from(limits.addresses).into());
    }
    if !reservations.is_empty() {
        let list = reservations.iter().map(reservation);
        table.insert("reservation", Array::from_iter(list).into());
    }
}

fn reservation(reservation: &Reservation) -> InlineTable {
    let mut table = InlineTable::new();
    match &reservation.client {
        ClientMatch::Mac(mac) => table.insert("mac", mac.to_string().into()),
        ClientMatch::Id(id) => {
            let octets: Vec<String> = id.iter().map(|octet| format!("{octet:02x}")).collect();
            table.insert("id", octets.join(":").into())
        }
    };
    let address = address::pair_value(reservation.address, reservation.address6);
    table.extend(address.map(|value| ("address", value)));
    table.extend(reservation.name.as_ref().map(|name| ("name", name.as_str())));
    table
}
