//! `[network.dhcp]` read from a file and written back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml_edit::{Array, InlineTable, Value};
use trama_dhcp::config::{ClientMatch, Identity};
use trama_dhcp::prefix::{Prefix, Route};

use super::reader::{Reader, SwitchOrTable};
use super::units::format_duration;
use crate::config::model::dhcp::{ANY_CLIENT, BOOT_CLIENTS, Dhcp, DhcpSetting, Reservation};
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
pub fn read(reader: &mut Reader<'_, '_, '_>, index: usize) -> DhcpSetting {
    match reader.switch_or_table("dhcp", Place::Dhcp(index)) {
        None => DhcpSetting::ByMode,
        Some(SwitchOrTable::Switch(false)) => DhcpSetting::Off,
        Some(SwitchOrTable::Switch(true)) => DhcpSetting::On(Box::default()),
        Some(SwitchOrTable::Table(mut table)) => {
            DhcpSetting::On(Box::new(read_table(&mut table, index)))
        }
    }
}

fn read_table(reader: &mut Reader<'_, '_, '_>, index: usize) -> Dhcp {
    reader.refuse_unknown(&KEYS, |_| None);
    let default = Dhcp::default();
    let number = |at| Place::Reservation(index, at);
    let dns = reader.has("dns").then(|| parsed_list(reader, "dns", ADDRESS));
    let (range, range6) = read_ranges(reader);
    let (boot_server, boot_server6) = addresses(reader, "boot-server").unwrap_or_default();
    Dhcp {
        range,
        range6,
        lease: reader.duration("lease").unwrap_or(default.lease),
        lease_min: reader.duration("lease-min").unwrap_or(default.lease_min),
        lease_max: reader.duration("lease-max").unwrap_or(default.lease_max),
        domain: parsed(reader, "domain", DOMAIN),
        search: parsed_list(reader, "search", DOMAIN),
        host_search: reader.boolean("host-search").unwrap_or(default.host_search),
        dns,
        router: parsed(reader, "router", ADDRESS),
        ntp: parsed_list(reader, "ntp", ADDRESS),
        routes: read_routes(reader),
        boot_server,
        boot_server6,
        boot_file: read_boot_file(reader),
        boot_params: read_boot_params(reader),
        identity: reader.word("identity", &IDENTITIES).unwrap_or(default.identity),
        leases_per_port: reader.integer("leases-per-port").unwrap_or(default.leases_per_port),
        ipv6: reader.boolean("ipv6").unwrap_or(default.ipv6),
        ipv6_leases: reader.boolean("ipv6-leases").unwrap_or(default.ipv6_leases),
        reservations: reader.each_table("reservation", number, read_reservation),
    }
}

/// What a value should be, and an example.
type Wanted = (&'static str, &'static str);
const ADDRESS: Wanted = ("an IPv4 address", "write it as in 10.1.0.7");
const DOMAIN: Wanted = ("a domain", "write it as in lab.example");
const IP: Wanted = ("an address", "write it as in 10.1.0.7 or fd00::7");

/// How clients are identified. The guest of a network of mode `nat` is alone, so that identity has
/// no word.
const IDENTITIES: [(&str, Identity); 2] =
    [("mac", Identity::Hardware), ("client-id", Identity::ClientId)];
/// Longest parameter for a boot file in bytes: an answer is one packet.
const MAX_PARAMETER: usize = 255;
const MAX_PARAMETERS: usize = 4;

fn parsed<T: FromStr>(
    reader: &mut Reader<'_, '_, '_>,
    key: &'static str,
    (what, remedy): Wanted,
) -> Option<T> {
    let text = reader.string(key)?;
    reader.converted(key, text.parse().ok(), || {
        (format!("{text:?} is not {what}"), remedy.to_owned())
    })
}

fn parsed_list<T: FromStr>(
    reader: &mut Reader<'_, '_, '_>,
    key: &'static str,
    (what, remedy): Wanted,
) -> Vec<T> {
    let mut values = Vec::new();
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        match text.parse() {
            Ok(value) => values.push(value),
            Err(_) => reader.fault(key, offset, format!("{text:?} is not {what}"), remedy),
        }
    }
    values
}

/// At most one address of each IP version; `None` if a fault was noted.
fn addresses(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Option<Addresses> {
    let (mut ipv4, mut ipv6, mut is_good) = (None, None, true);
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        let twice = match text.parse() {
            Ok(IpAddr::V4(address)) => ipv4.replace(address).is_some(),
            Ok(IpAddr::V6(address)) => ipv6.replace(address).is_some(),
            Err(_) => {
                let (what, remedy) = IP;
                reader.fault(key, offset, format!("{text:?} is not {what}"), remedy);
                is_good = false;
                continue;
            }
        };
        if twice {
            let message = format!("{text:?} is the second address of its kind");
            reader.fault(key, offset, message, "write one IPv4 address, one IPv6 address, or both");
            is_good = false;
        }
    }
    is_good.then_some((ipv4, ipv6))
}

type Addresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);
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
                reader.fault("range", offset, format!("{text:?} is not a range"), remedy);
            }
        }
    }
    (ranges, ranges6)
}

fn read_boot_params(reader: &mut Reader<'_, '_, '_>) -> Vec<String> {
    let mut parameters = Vec::new();
    for (offset, text) in reader.strings("boot-params").unwrap_or_default() {
        if text.len() > MAX_PARAMETER || parameters.len() == MAX_PARAMETERS {
            let message = "is too long".to_owned();
            let remedy = "write at most 4 parameters of at most 255 bytes";
            reader.fault("boot-params", offset, message, remedy);
            break;
        }
        parameters.push(text);
    }
    parameters
}

fn read_routes(reader: &mut Reader<'_, '_, '_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for (to, via) in reader.map("routes").unwrap_or_default() {
        let ends = to.split_once('/').map(|(address, length)| (address.parse(), length.parse()));
        let prefix = match ends {
            Some((Ok(address), Ok(length))) => Prefix::new(address, length),
            _ => None,
        };
        let route = prefix.zip(via.parse().ok()).map(|(to, via)| Route { to, via });
        routes.extend(reader.converted("routes", route, || {
            let remedy = r#"write it as in routes = { "10.9.0.0/16" = "10.1.0.7" }"#;
            (format!("{to:?} = {via:?} is not a route"), remedy.to_owned())
        }));
    }
    routes
}

/// A string, or a table by kind of client.
fn read_boot_file(reader: &mut Reader<'_, '_, '_>) -> std::collections::BTreeMap<String, String> {
    if reader.is_string("boot-file") {
        let name = reader.string("boot-file").unwrap_or_default();
        return [(ANY_CLIENT.to_owned(), name)].into();
    }
    reader.map("boot-file").unwrap_or_default().into_iter().collect()
}

fn read_reservation(reader: &mut Reader<'_, '_, '_>) -> Option<Reservation> {
    reader.refuse_unknown(&RESERVATION_KEYS, |_| None);
    let mac = parsed(reader, "mac", ("a MAC address", "write it as 52:54:00:12:34:56"));
    let id = reader.string("id").and_then(|text| {
        reader.converted("id", octets(&text), || {
            let remedy = "write its octets in hexadecimal, as in 01:52:54:00:12:34:56";
            (format!("{text:?} is not a client identifier"), remedy.to_owned())
        })
    });
    let client = match (reader.has("mac"), reader.has("id")) {
        (true, false) => mac.map(ClientMatch::Mac),
        (false, true) => id.map(ClientMatch::Id),
        (both, _) => reader.converted("mac", None, || {
            let message =
                if both { "a client has either mac or id, not both" } else { "is missing" };
            (message.to_owned(), "write either mac or id".to_owned())
        }),
    };
    let addresses = addresses(reader, "address").and_then(|some| {
        reader.converted("address", Some(some).filter(|some| *some != (None, None)), || {
            ("is missing".to_owned(), "add the address to reserve".to_owned())
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
pub fn value(setting: &DhcpSetting) -> Option<Value> {
    match setting {
        DhcpSetting::ByMode => None,
        DhcpSetting::Off => Some(false.into()),
        DhcpSetting::On(dhcp) if **dhcp == Dhcp::default() => Some(true.into()),
        DhcpSetting::On(dhcp) => Some(Value::InlineTable(table(dhcp))),
    }
}

/// The keys that differ from their defaults.
fn table(dhcp: &Dhcp) -> InlineTable {
    let default = Dhcp::default();
    let mut table = InlineTable::new();
    let ranges = dhcp.range.iter().map(|range| format!("{}-{}", range.start(), range.end()));
    let ranges6 = dhcp.range6.iter().map(|range| format!("{}-{}", range.start(), range.end()));
    put_list(&mut table, "range", ranges.chain(ranges6));
    for (key, time, usual) in [
        ("lease", dhcp.lease, default.lease),
        ("lease-min", dhcp.lease_min, default.lease_min),
        ("lease-max", dhcp.lease_max, default.lease_max),
    ] {
        if time != usual {
            table.insert(key, format_duration(time).into());
        }
    }
    table.extend(dhcp.domain.as_ref().map(|domain| ("domain", domain.as_str())));
    put_list(&mut table, "search", dhcp.search.iter().map(|domain| domain.as_str().to_owned()));
    if dhcp.host_search != default.host_search {
        table.insert("host-search", dhcp.host_search.into());
    }
    if let Some(dns) = &dhcp.dns {
        table.insert("dns", Array::from_iter(dns.iter().map(Ipv4Addr::to_string)).into());
    }
    table.extend(dhcp.router.map(|address| ("router", address.to_string())));
    put_list(&mut table, "ntp", dhcp.ntp.iter().map(Ipv4Addr::to_string));
    if !dhcp.routes.is_empty() {
        let routes = dhcp.routes.iter().map(|route| (route.to.to_string(), route.via.to_string()));
        table.insert("routes", InlineTable::from_iter(routes).into());
    }
    table.extend(
        address_value(dhcp.boot_server, dhcp.boot_server6).map(|value| ("boot-server", value)),
    );
    let files = BOOT_CLIENTS.iter().filter_map(|(client, ..)| {
        dhcp.boot_file.get(*client).map(|name| (*client, name.as_str()))
    });
    let files = InlineTable::from_iter(files);
    if !files.is_empty() {
        table.insert("boot-file", files.into());
    }
    put_list(&mut table, "boot-params", dhcp.boot_params.iter().cloned());
    let identity = IDENTITIES.iter().find(|(_, identity)| *identity == dhcp.identity);
    if let Some((word, _)) = identity.filter(|_| dhcp.identity != default.identity) {
        table.insert("identity", (*word).into());
    }
    if dhcp.leases_per_port != default.leases_per_port {
        table.insert("leases-per-port", i64::from(dhcp.leases_per_port).into());
    }
    if dhcp.ipv6 != default.ipv6 {
        table.insert("ipv6", dhcp.ipv6.into());
    }
    if dhcp.ipv6_leases != default.ipv6_leases {
        table.insert("ipv6-leases", dhcp.ipv6_leases.into());
    }
    if !dhcp.reservations.is_empty() {
        let list = dhcp.reservations.iter().map(reservation);
        table.insert("reservation", Array::from_iter(list).into());
    }
    table
}

fn put_list(table: &mut InlineTable, key: &str, texts: impl Iterator<Item = String>) {
    let list = Array::from_iter(texts);
    if !list.is_empty() {
        table.insert(key, list.into());
    }
}

/// A string, or a list if there are addresses of both IP versions.
fn address_value(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Option<Value> {
    match (ipv4, ipv6) {
        (None, None) => None,
        (Some(one), None) => Some(one.to_string().into()),
        (None, Some(one)) => Some(one.to_string().into()),
        (Some(one), Some(two)) => Some(Array::from_iter([one.to_string(), two.to_string()]).into()),
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
    let address = address_value(reservation.address, reservation.address6);
    table.extend(address.map(|value| ("address", value)));
    table.extend(reservation.name.as_ref().map(|name| ("name", name.as_str())));
    table
}
