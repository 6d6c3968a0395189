//! Addresses with their prefix lengths: `10.1.0.1/24`.

use std::net::IpAddr;

use toml_edit::{Array, Value};

use super::reader::Reader;
use crate::Fault;

/// The addresses of a key: one, or a list of them.
pub fn read(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Vec<(IpAddr, u8)> {
    let mut addresses = Vec::new();
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        match parse_address(&text) {
            Ok(pair) => addresses.push(pair),
            Err(fault) => reader.fault(key, offset, fault),
        }
    }
    addresses
}

/// The value of a key that holds addresses: absent, a string, or a list.
pub fn value(addresses: &[(IpAddr, u8)]) -> Option<Value> {
    let mut texts = addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}"));
    match addresses.len() {
        0 => None,
        1 => texts.next().map(Value::from),
        _ => Some(Value::Array(Array::from_iter(texts))),
    }
}

/// An address, or a subnet, with its prefix length: `10.1.0.1/24`.
///
/// # Errors
/// The text has no length, or one of its parts cannot be read.
pub fn parse_address(text: &str) -> Result<(IpAddr, u8), Fault> {
    let Some((address, prefix)) = text.split_once('/') else {
        let remedy = "add its length, as in 10.1.0.1/24";
        return Err(match text.parse::<IpAddr>() {
            Ok(_) => Fault::new(format!("{text:?} has no prefix"), remedy),
            Err(_) => not_an_address(text),
        });
    };
    match (address.parse(), prefix.parse()) {
        (Ok(address), Ok(prefix)) => Ok((address, prefix)),
        _ => Err(not_an_address(text)),
    }
}

fn not_an_address(text: &str) -> Fault {
    Fault::new(format!("{text:?} is not an address"), "write it as in 10.1.0.1/24")
}
