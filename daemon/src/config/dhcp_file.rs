//! `[network.dhcp]` read from a file and written back.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml_edit::{Array, InlineTable, Value};
use trama_dhcp::config::{ClientMatch, Reservation};
use trama_dhcp::prefix::{Prefix, Route};

use super::dhcp::{ANY_CLIENT, BOOT_CLIENTS, Dhcp, DhcpSetting};
use super::reader::{Reader, SwitchOrTable};
use super::units::format_duration;
use super::validate::Place;

const KEYS: [&str; 15] = [
    "range",
    "lease",
    "lease-min",
    "lease-max",
    "domain",
    "search",
    "dns",
    "router",
    "ntp",
    "routes",
    "boot-server",
    "boot-file",
    "leases-per-port",
    "ipv6",
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
    Dhcp {
        range: read_ranges(reader),
        lease: reader.duration("lease").unwrap_or(default.lease),
        lease_min: reader.duration("lease-min").unwrap_or(default.lease_min),
        lease_max: reader.duration("lease-max").unwrap_or(default.lease_max),
        domain: parsed(reader, "domain", DOMAIN),
        search: parsed_list(reader, "search", DOMAIN),
        dns,
        router: parsed(reader, "router", ADDRESS),
        ntp: parsed_list(reader, "ntp", ADDRESS),
        routes: read_routes(reader),
        boot_server: parsed(reader, "boot-server", ADDRESS),
        boot_file: read_boot_file(reader),
        leases_per_port: reader.integer("leases-per-port").unwrap_or(default.leases_per_port),
        ipv6: reader.boolean("ipv6").unwrap_or(default.ipv6),
        reservations: reader.each_table("reservation", number, read_reservation),
    }
}

/// What a value should be, and how it is written.
type Wanted = (&'static str, &'static str);
const ADDRESS: Wanted = ("an IPv4 address", "write it as in 10.1.0.7");
const DOMAIN: Wanted = ("a domain", "write it as in lab.example");

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

fn read_ranges(reader: &mut Reader<'_, '_, '_>) -> Vec<RangeInclusive<Ipv4Addr>> {
    let mut ranges = Vec::new();
    for (offset, text) in reader.strings("range").unwrap_or_default() {
        let ends = text.split_once('-').map(|(a, b)| (a.trim().parse(), b.trim().parse()));
        if let Some((Ok(first), Ok(last))) = ends {
            ranges.push(first..=last);
        } else {
            let remedy = "write it as in 10.1.0.50-10.1.0.99";
            reader.fault("range", offset, format!("{text:?} is not a range"), remedy);
        }
    }
    ranges
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

/// A string, or a table by kinds of clients.
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
                if both { "a client is known by mac or id, not both" } else { "is missing" };
            (message.to_owned(), "write either mac or id".to_owned())
        }),
    };
    let address = if reader.has("address") {
        parsed(reader, "address", ADDRESS)
    } else {
        let missing = || ("is missing".to_owned(), "add the address to reserve".to_owned());
        reader.converted("address", None, missing)
    };
    let name = parsed(reader, "name", ("a name", "use 1 to 63 letters, digits and hyphens"));
    Some(Reservation { client: client?, address: address?, name })
}

fn octets(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect()
}

/// The value of the key, if it is there.
pub fn value(setting: &DhcpSetting) -> Option<Value> {
    match setting {
        DhcpSetting::ByMode => None,
        DhcpSetting::Off => Some(false.into()),
        DhcpSetting::On(dhcp) if **dhcp == Dhcp::default() => Some(true.into()),
        DhcpSetting::On(dhcp) => Some(Value::InlineTable(table(dhcp))),
    }
}

/// The keys that are not as they would be without being there.
fn table(dhcp: &Dhcp) -> InlineTable {
    let default = Dhcp::default();
    let mut table = InlineTable::new();
    let ranges = dhcp.range.iter().map(|range| format!("{}-{}", range.start(), range.end()));
    put_list(&mut table, "range", ranges);
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
    if let Some(dns) = &dhcp.dns {
        table.insert("dns", Array::from_iter(dns.iter().map(Ipv4Addr::to_string)).into());
    }
    table.extend(dhcp.router.map(|address| ("router", address.to_string())));
    put_list(&mut table, "ntp", dhcp.ntp.iter().map(Ipv4Addr::to_string));
    if !dhcp.routes.is_empty() {
        let routes = dhcp.routes.iter().map(|route| (route.to.to_string(), route.via.to_string()));
        table.insert("routes", InlineTable::from_iter(routes).into());
    }
    table.extend(dhcp.boot_server.map(|address| ("boot-server", address.to_string())));
    let files = BOOT_CLIENTS.iter().filter_map(|(client, ..)| {
        dhcp.boot_file.get(*client).map(|name| (*client, name.as_str()))
    });
    let files = InlineTable::from_iter(files);
    if !files.is_empty() {
        table.insert("boot-file", files.into());
    }
    if dhcp.leases_per_port != default.leases_per_port {
        table.insert("leases-per-port", i64::from(dhcp.leases_per_port).into());
    }
    if dhcp.ipv6 != default.ipv6 {
        table.insert("ipv6", dhcp.ipv6.into());
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

fn reservation(reservation: &Reservation) -> InlineTable {
    let mut table = InlineTable::new();
    match &reservation.client {
        ClientMatch::Mac(mac) => table.insert("mac", mac.to_string().into()),
        ClientMatch::Id(id) => {
            let octets: Vec<String> = id.iter().map(|octet| format!("{octet:02x}")).collect();
            table.insert("id", octets.join(":").into())
        }
    };
    table.insert("address", reservation.address.to_string().into());
    table.extend(reservation.name.as_ref().map(|name| ("name", name.as_str())));
    table
}
