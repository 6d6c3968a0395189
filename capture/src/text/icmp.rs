//! ICMP and ICMPv6: echo, errors with what they quote, and neighbour discovery.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::datagram::Datagram;
use crate::head::{TCP, UDP};

pub(super) fn write_v4(out: &mut String, datagram: &Datagram<'_>) -> fmt::Result {
    let Datagram { source, destination, bytes, len, .. } = datagram;
    let what = v4(bytes).unwrap_or_else(|| "[|icmp]".to_owned());
    write!(out, "{source} > {destination}: ICMP {what}, length {len}")
}

pub(super) fn write_v6(out: &mut String, datagram: &Datagram<'_>) -> fmt::Result {
    let Datagram { source, destination, bytes, len, .. } = datagram;
    let what = v6(bytes).unwrap_or_else(|| "[|icmp6]".to_owned());
    write!(out, "{source} > {destination}: ICMP6, {what}, length {len}")
}

/// What a message of ICMP says; `None` if it ends too early.
fn v4(message: &[u8]) -> Option<String> {
    let [kind, code] = *message.first_chunk()?;
    Some(match (kind, code) {
        (0, _) => echo("reply", message)?,
        (8, _) => echo("request", message)?,
        (3, _) => unreachable(code, message)?,
        (5, 1) => {
            let (router, host) = (address4(message, 4)?, address4(message, 24)?);
            format!("redirect {host} to host {router}")
        }
        (11, 0) => "time exceeded in-transit".to_owned(),
        (11, 1) => "ip reassembly time exceeded".to_owned(),
        _ => format!("type-#{kind}"),
    })
}

/// An error that says that a destination cannot be reached; it quotes the packet.
fn unreachable(code: u8, message: &[u8]) -> Option<String> {
    let host = address4(message, 24)?;
    Some(match code {
        0 => format!("net {host} unreachable"),
        1 => format!("host {host} unreachable"),
        2 => format!("{host} protocol {} unreachable", message.get(17)?),
        3 => {
            let header = usize::from(message.get(8)? & 0xf) * 4;
            let port = u16_at(message, 8 + header + 2)?;
            format!("{host} {} port {port} unreachable", protocol(*message.get(17)?))
        }
        4 => match u16_at(message, 6)? {
            0 => format!("{host} unreachable - need to frag"),
            mtu => format!("{host} unreachable - need to frag (mtu {mtu})"),
        },
        10 => format!("host {host} unreachable - admin prohibited"),
        13 => format!("host {host} unreachable - admin prohibited filter"),
        _ => format!("{host} unreachable - #{code}"),
    })
}

/// What a message of ICMPv6 says; `None` if it ends too early.
fn v6(message: &[u8]) -> Option<String> {
    let [kind, code] = *message.first_chunk()?;
    Some(match (kind, code) {
        (1, 4) => {
            let (host, protocol) = (address6(message, 32)?, protocol(*message.get(14)?));
            let port = u16_at(message, 50)?;
            format!("destination unreachable, unreachable port, {host} {protocol} port {port}")
        }
        (1, 0) => format!("destination unreachable, unreachable route {}", address6(message, 32)?),
        (1, 1) => {
            let host = address6(message, 32)?;
            format!("destination unreachable, unreachable prohibited {host}")
        }
        (1, 3) => {
            format!("destination unreachable, unreachable address {}", address6(message, 32)?)
        }
        (1, _) => format!("destination unreachable, unknown code ({code})"),
        (2, _) => format!("packet too big, mtu {}", u32_at(message, 4)?),
        (3, 0) => format!("time exceeded in-transit for {}", address6(message, 32)?),
        (128, _) => echo("request", message)?,
        (129, _) => echo("reply", message)?,
        (133, _) => "router solicitation".to_owned(),
        (134, _) => "router advertisement".to_owned(),
        (135, _) => format!("neighbor solicitation, who has {}", address6(message, 8)?),
        (136, _) => format!("neighbor advertisement, tgt is {}", address6(message, 8)?),
        (143, _) => {
            format!("multicast listener report v2, {} group record(s)", u16_at(message, 6)?)
        }
        _ => format!("type-#{kind}"),
    })
}

fn echo(which: &str, message: &[u8]) -> Option<String> {
    Some(format!("echo {which}, id {}, seq {}", u16_at(message, 4)?, u16_at(message, 6)?))
}

fn protocol(number: u8) -> &'static str {
    match number {
        TCP => "tcp",
        UDP => "udp",
        _ => "protocol",
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn address4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    Some(Ipv4Addr::from(u32_at(bytes, at)?).into())
}

fn address6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = *bytes.get(at..)?.first_chunk()?;
    Some(Ipv6Addr::from(octets).into())
}
