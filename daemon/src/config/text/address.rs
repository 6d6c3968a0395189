//! Addresses and subnets with their prefix lengths: `10.1.0.1/24`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use toml_edit::{Array, Value};

use super::reader::Reader;
use crate::Fault;

/// The addresses of a key: one, or a list of them. `too_long` says what is wrong with a prefix that
/// is longer than its address.
pub(super) fn read(
    reader: &mut Reader<'_, '_, '_>,
    key: &'static str,
    too_long: impl Fn(IpAddr, u8) -> Fault,
) -> Vec<IpNet> {
    let mut addresses = Vec::new();
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        match parse_address(&text) {
            Ok(address) => addresses.push(address),
            Err(AddressError::TooLong(address, length)) => {
                reader.fault(key, offset, too_long(address, length));
            }
            Err(AddressError::Malformed(fault)) => reader.fault(key, offset, fault),
        }
    }
    addresses
}

/// The addresses of a key without prefix lengths: one, or a list of them.
pub(super) fn read_plain(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        match parse_plain(&text) {
            Ok(address) => addresses.push(address),
            Err(fault) => reader.fault(key, offset, fault),
        }
    }
    addresses
}

/// An address without a prefix length: `10.1.0.7`.
///
/// # Errors
/// The text is something else.
pub fn parse_plain(text: &str) -> Result<IpAddr, Fault> {
    let remedy = "write it as in 10.1.0.7 or fd00::7";
    text.parse().map_err(|_| Fault::new(format!("{text:?} is not an address"), remedy))
}

/// The value of a key that holds several texts: absent, a string, or a list.
pub(super) fn list(items: &[impl ToString]) -> Option<Value> {
    let mut texts = items.iter().map(ToString::to_string);
    match items.len() {
        0 => None,
        1 => texts.next().map(Value::from),
        _ => Some(Value::Array(Array::from_iter(texts))),
    }
}

/// Why a text is not an address with its prefix length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It has no length, or one of its parts cannot be read.
    Malformed(Fault),
    /// The address has fewer bits than this.
    TooLong(IpAddr, u8),
}

/// An address, or a subnet, with its prefix length: `10.1.0.1/24`.
///
/// # Errors
/// The text has no length, one of its parts cannot be read, or the length is that of no prefix.
pub fn parse_address(text: &str) -> Result<IpNet, AddressError> {
    let not_an_address = || {
        let message = format!("{text:?} is not an address");
        AddressError::Malformed(Fault::new(message, "write it as in 10.1.0.1/24"))
    };
    let Some((address, length)) = text.split_once('/') else {
        text.parse::<IpAddr>().map_err(|_| not_an_address())?;
        let message = format!("{text:?} has no prefix");
        let fault = Fault::new(message, "add its length, as in 10.1.0.1/24");
        return Err(AddressError::Malformed(fault));
    };
    match (address.parse(), length.parse()) {
        (Ok(address), Ok(length)) => {
            IpNet::new(address, length).map_err(|_| AddressError::TooLong(address, length))
        }
        _ => Err(not_an_address()),
    }
}
/// An address of each IP version, where a key takes one of each.
pub(super) type Pair = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// At most one address of each IP version; `None` if a fault was noted.
pub(super) fn read_pair(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Option<Pair> {
    let (mut ipv4, mut ipv6, mut is_good) = (None, None, true);
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        let twice = match parse_plain(&text) {
            Ok(IpAddr::V4(address)) => ipv4.replace(address).is_some(),
            Ok(IpAddr::V6(address)) => ipv6.replace(address).is_some(),
            Err(fault) => {
                reader.fault(key, offset, fault);
                is_good = false;
                continue;
            }
        };
        if twice {
            let message = format!("{text:?} is the second address of its kind");
            reader.fault(
                key,
                offset,
                Fault::new(message, "write one IPv4 address, one IPv6 address, or both"),
            );
            is_good = false;
        }
    }
    is_good.then_some((ipv4, ipv6))
}

/// A string, or a list if there are addresses of both IP versions.
pub(super) fn pair_value(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Option<Value> {
    match (ipv4, ipv6) {
        (None, None) => None,
        (Some(one), None) => Some(one.to_string().into()),
        (None, Some(one)) => Some(one.to_string().into()),
        (Some(one), Some(two)) => Some(Array::from_iter([one.to_string(), two.to_string()]).into()),
    }
}
