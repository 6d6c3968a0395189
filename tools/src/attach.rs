//! `attach`: makes a TAP in a network namespace with the caller's rights, and hands it to the
//! daemon, which needs none.
//!
//! The device is set up first and handed over last: if this process is killed before, it goes with
//! the process, and once the daemon has it, it is whole.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use trama_api::attach::{Attached, Device, Request};
use trama_api::transaction::{Output, Refusal, VERSION};
use trama_frame::MacAddr;
use trama_tap::{TapOptions, open_apart};

use crate::cli::Invocation;
use crate::client::{self, Failed};

/// What the options say.
#[derive(Debug, PartialEq)]
struct Wanted {
    network: String,
    port: String,
    netns: Option<String>,
    ifname: String,
    address: Vec<(IpAddr, u8)>,
    mac: Option<MacAddr>,
    gateways: Vec<IpAddr>,
    /// `COLUMN=VALUE`.
    columns: Vec<String>,
}

/// Attaches a device; returns what is printed.
///
/// # Errors
/// The device cannot be made, or the daemon refuses it. Nothing is left.
pub(crate) fn attach(invocation: &Invocation, words: &[String]) -> Result<Vec<u8>, Failed> {
    let wanted = Wanted::read(words)?;
    let options = TapOptions {
        ifname: wanted.ifname.clone(),
        netns: wanted.netns.clone(),
        address: wanted.address.clone(),
        mtu: mtu_of(invocation, &wanted.network)?,
        mac: wanted.mac,
        vnet_header: true,
    };
    let (parts, link) =
        open_apart(&options, &wanted.gateways).map_err(|error| error.to_string())?;
    let request = Request {
        version: VERSION,
        network: wanted.network,
        port: wanted.port,
        columns: wanted.columns,
        lease: false,
        device: Device::Descriptor,
    };
    let attached = hand_over(invocation, &request, parts.fd.as_fd())?;
    let address = |(address, length): &(IpAddr, u8)| format!("{address}/{length}");
    let shown = Shown {
        port: attached.port,
        ifname: options.ifname,
        mac: link.mac.map(|mac| mac.to_string()),
        addresses: wanted.address.iter().map(address).collect(),
        gateway: wanted.gateways.first().copied(),
        dns: attached.dns,
    };
    let shown = serde_json::to_string(&shown).map_err(|error| error.to_string())?;
    Ok(format!("{shown}\n").into_bytes())
}

/// What is printed of an interface.
#[derive(Serialize)]
struct Shown {
    port: String,
    ifname: String,
    mac: Option<String>,
    addresses: Vec<String>,
    gateway: Option<IpAddr>,
    dns: Vec<IpAddr>,
}

impl Wanted {
    fn read(words: &[String]) -> Result<Wanted, String> {
        let mut names = Vec::new();
        let mut wanted = Wanted {
            network: String::new(),
            port: String::new(),
            netns: None,
            ifname: "eth0".to_owned(),
            address: Vec::new(),
            mac: None,
            gateways: Vec::new(),
            columns: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--") else {
                match names.len() {
                    0 | 1 => names.push(word.clone()),
                    _ => wanted.columns.push(word.clone()),
                }
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, words.next().cloned()),
            };
            let value = value.ok_or_else(|| format!("option '--{name}' needs a value"))?;
            wanted.set(name, value)?;
        }
        let [network, port] = <[String; 2]>::try_from(names)
            .map_err(|_| "'attach' takes a network and the name of the new port")?;
        Ok(Wanted { network, port, ..wanted })
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let wrong = |example: &str| format!("--{name} {value:?} is not valid; use {example}");
        match name {
            "netns" => self.netns = Some(namespace(value)),
            "ifname" => self.ifname = value,
            "address" => {
                let parsed = value.split_once('/').and_then(|(address, length)| {
                    Some((address.parse().ok()?, length.parse().ok()?))
                });
                self.address.push(parsed.ok_or_else(|| wrong("one such as 10.1.0.7/24"))?);
            }
            "mac" => {
                let mac = value.parse().ok();
                self.mac = Some(mac.ok_or_else(|| wrong("one such as 52:54:00:12:34:56"))?);
            }
            "gateway" => {
                let gateway = value.parse().ok();
                self.gateways.push(gateway.ok_or_else(|| wrong("one such as 10.1.0.1"))?);
            }
            _ => {
                return Err(format!(
                    "'attach' command has no '--{name}' option; it has --netns, --ifname, \
                     --address, --mac and --gateway"
                ));
            }
        }
        Ok(())
    }
}

/// A namespace by the number of a process, a name or a path.
fn namespace(text: String) -> String {
    match text.parse::<u32>() {
        Ok(process) => format!("/proc/{process}/ns/net"),
        Err(_) => text,
    }
}

fn mtu_of(invocation: &Invocation, network: &str) -> Result<u16, Failed> {
    let commands = vec![["get", "Bridge", network, "mtu"].map(str::to_owned).to_vec()];
    let answer = client::transact(&Invocation { commands, ..invocation.clone() })?;
    let mtu = answer.results.first().and_then(|output| match output {
        Output::Text { lines } => lines.first()?.parse().ok(),
        Output::Table { .. } => None,
    });
    mtu.ok_or_else(|| format!("the daemon does not say the MTU of {network}").into())
}

/// Sends the request, with the descriptor at its first byte, and reads the answer.
fn hand_over(
    invocation: &Invocation,
    request: &Request,
    device: BorrowedFd<'_>,
) -> Result<Attached, Failed> {
    let body = serde_json::to_string(request).map_err(|error| error.to_string())?;
    let message = format!(
        "POST /v{VERSION}/attach HTTP/1.1\r\nhost: tramad\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let lost = |error: std::io::Error| {
        format!("lost the connection to tramad: {error}; see the daemon's log")
    };
    let mut stream = connect(invocation)?;
    stream.set_read_timeout(Some(invocation.timeout)).map_err(lost)?;
    let sent = send_with(&stream, message.as_bytes(), device).map_err(lost)?;
    stream.write_all(&message.as_bytes()[sent..]).map_err(lost)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(lost)?;
    read_answer(&answer)
}

fn connect(invocation: &Invocation) -> Result<UnixStream, Failed> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for socket in &invocation.sockets {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(client::unreachable(&invocation.sockets, &last))
}

fn send_with(stream: &UnixStream, bytes: &[u8], fd: BorrowedFd<'_>) -> std::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn read_answer(answer: &str) -> Result<Attached, Failed> {
    let unknown = || "the daemon's answer is not understood; has it the same version?".to_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unknown)?;
    if head.split(' ').nth(1) == Some("200") {
        return serde_json::from_str(body).map_err(|_| unknown().into());
    }
    let Refusal { error, exit } = serde_json::from_str(body).map_err(|_| unknown())?;
    Err(Failed { message: error, exit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Wanted, String> {
        Wanted::read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_may_stand_anywhere_and_a_process_is_a_namespace() {
        let wanted = read(
            "lab web --netns 4711 --address=10.1.0.7/24 tag=10 --gateway 10.1.0.1 --address \
             fd00::7/64 --mac 52:54:00:00:00:07 cable=false",
        )
        .unwrap();
        assert_eq!((wanted.network.as_str(), wanted.port.as_str()), ("lab", "web"));
        assert_eq!(wanted.netns.as_deref(), Some("/proc/4711/ns/net"));
        assert_eq!(wanted.ifname, "eth0");
        assert_eq!(wanted.address.len(), 2);
        assert_eq!(wanted.columns, ["tag=10", "cable=false"]);
        assert_eq!(read("lab web --netns red").unwrap().netns.as_deref(), Some("red"));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("lab", "takes a network and the name"),
            ("lab web --address 10.1.0.7", "such as 10.1.0.7/24"),
            ("lab web --mac x", "such as 52:54"),
            ("lab web --gateway", "'--gateway' needs a value"),
            ("lab web --speed 7", "no '--speed' option"),
        ] {
            let message = read(line).unwrap_err();
            assert!(message.contains(part), "{line}: {message}");
        }
    }

    #[test]
    fn an_answer_is_a_device_or_a_refusal() {
        let ok = "HTTP/1.1 200 OK\r\na: b\r\n\r\n{\"port\":\"p\",\"ifname\":\"eth0\",\"mtu\":1500,\
                  \"dns\":[\"10.1.0.1\"]}";
        assert_eq!(read_answer(ok).map(|it| it.mtu).map_err(|it| it.message), Ok(1500));
        let refused = "HTTP/1.1 422 X\r\n\r\n{\"error\":\"taken\",\"exit\":1}";
        assert_eq!(read_answer(refused).map_err(|it| it.message), Err("taken".to_owned()));
        assert!(read_answer("").is_err() && read_answer("HTTP/1.1 200 OK\r\n\r\n{}").is_err());
    }
}
