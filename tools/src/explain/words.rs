//! The words by which a frame is described, and those of Open vSwitch's `ofproto/trace`.

use std::io::Read;
use std::net::IpAddr;
use std::str::FromStr;

use trama_api::explain::{Described, Frame, Packet, Protocol, Request};
use trama_api::nearest::nearest;
use trama_api::transaction::VERSION;
use trama_frame::MacAddr;

/// The keys of a frame.
const KEYS: [&str; 8] = ["dst", "src", "vlan", "len", "type", "ip", "proto", "port"];
/// The fields of a flow of Open vSwitch, and the keys that they are here.
const FIELDS: [(&str, &str); 10] = [
    ("dl_dst", "dst"),
    ("eth_dst", "dst"),
    ("dl_src", "src"),
    ("eth_src", "src"),
    ("dl_vlan", "vlan"),
    ("vlan_vid", "vlan"),
    ("dl_type", "type"),
    ("eth_type", "type"),
    ("tp_dst", "port"),
    ("nw_proto", "proto"),
];
/// Most bytes that are read from standard input.
const MOST: u64 = 1 << 20;

/// A frame while its words are read.
#[derive(Default)]
struct Draft {
    dst: Option<[u8; 6]>,
    src: Option<[u8; 6]>,
    vlan: Option<u16>,
    len: Option<usize>,
    ethertype: Option<u16>,
    from: Option<IpAddr>,
    to: Option<IpAddr>,
    protocol: Option<Protocol>,
    port: Option<u16>,
}

/// Reads the arguments of `explain`: a port, then a frame in hexadecimal or `KEY=VALUE`.
pub(super) fn read(arguments: &[String]) -> Result<Request, String> {
    if let [option, port, reason @ ..] = arguments
        && option == "--last"
    {
        if reason.len() > 1 {
            return Err("'explain --last' takes a port and a drop reason".to_owned());
        }
        let frame = Frame::Last { reason: reason.first().cloned() };
        return Ok(Request { version: VERSION, port: port.clone(), network: None, frame });
    }
    let [port, words @ ..] = arguments else {
        return Err("'explain' takes a port and a frame: explain PORT dst=MAC".to_owned());
    };
    let frame = match words {
        [word] if word == "-" => Frame::Bytes(bytes(&standard_input()?)?),
        [word] if !word.contains('=') => Frame::Bytes(bytes(word)?),
        _ => {
            let mut draft = Draft::default();
            for word in words {
                let (key, value) = word.split_once('=').ok_or_else(|| no_pair(word))?;
                draft.set(key, value)?;
            }
            Frame::Described(draft.finish()?)
        }
    };
    Ok(Request { version: VERSION, port: port.clone(), network: None, frame })
}

/// Reads the arguments of `ofproto/trace`: a bridge, then a flow.
pub(super) fn read_flow(arguments: &[String]) -> Result<Request, String> {
    let [bridge, flow] = arguments else {
        return Err("'ofproto/trace' takes a bridge and a flow: in_port=vm1,dl_dst=MAC".to_owned());
    };
    let (mut port, mut draft) = (None, Draft::default());
    for word in flow.split(',').map(str::trim) {
        match word.split_once('=') {
            Some(("in_port", name)) => port = Some(name.trim_matches('"').to_owned()),
            Some(("nw_src" | "ip_src" | "ipv6_src", value)) => {
                draft.from = Some(parsed("nw_src", value, "10.0.0.1")?);
            }
            Some(("nw_dst" | "ip_dst" | "ipv6_dst", value)) => {
                draft.to = Some(parsed("nw_dst", value, "10.0.0.2")?);
            }
            Some(("tcp_dst" | "udp_dst", value)) => draft.set("port", value)?,
            Some((field, value)) => {
                let known = FIELDS.iter().find(|(name, _)| *name == field);
                let (_, key) = known.ok_or_else(|| no_field(field))?;
                draft.set(key, value)?;
            }
            None => draft.set_protocol(word)?,
        }
    }
    let port = port.ok_or("the flow has no in_port; give the port's name: in_port=vm1")?;
    let (network, frame) = (Some(bridge.clone()), Frame::Described(draft.finish()?));
    Ok(Request { version: VERSION, port, network, frame })
}

impl Draft {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let mac = || parsed::<MacAddr>(key, value, "52:54:00:00:00:02").map(|mac| mac.0);
        match key {
            "dst" => self.dst = Some(mac()?),
            "src" => self.src = Some(mac()?),
            "vlan" => self.vlan = Some(number(key, value, "10")?),
            "len" => self.len = Some(parsed(key, value, "1514")?),
            "type" => self.ethertype = Some(number(key, value, "0x0806")?),
            "port" => self.port = Some(number(key, value, "443")?),
            "proto" => self.set_protocol(value)?,
            "ip" => {
                let wrong = || format!("{key}={value}: give source and destination: ip=A>B");
                let (from, to) = value.split_once('>').ok_or_else(wrong)?;
                self.from = Some(parsed(key, from, "10.0.0.1")?);
                self.to = Some(parsed(key, to, "10.0.0.2")?);
            }
            _ => {
                let near = nearest(key, &KEYS).map(|near| format!("; did you mean {near}?"));
                let near = near.unwrap_or_else(|| format!("; it has {}", KEYS.join(", ")));
                return Err(format!("a frame has no {key}{near}"));
            }
        }
        Ok(())
    }

    fn set_protocol(&mut self, word: &str) -> Result<(), String> {
        self.protocol = Some(match word {
            "tcp" | "tcp6" | "6" => Protocol::Tcp,
            "udp" | "udp6" | "17" => Protocol::Udp,
            "icmp" | "icmp6" | "1" | "58" => Protocol::Icmp,
            // Says only what the addresses say, too.
            "ip" | "ipv6" => return Ok(()),
            "arp" => {
                self.ethertype = Some(0x0806);
                return Ok(());
            }
            _ => return Err(format!("proto={word}: use tcp, udp or icmp")),
        });
        Ok(())
    }

    fn finish(self) -> Result<Described, String> {
        let Draft { dst, src, vlan, len, ethertype, from, to, protocol, port } = self;
        let dst = dst.ok_or("the frame has no destination; give dst=MAC")?;
        let packet = match (from, to) {
            (Some(from), Some(to)) => {
                let of_port = if port.is_some() { Protocol::Tcp } else { Protocol::Icmp };
                let protocol = protocol.unwrap_or(of_port);
                Some(Packet { from, to, protocol, port: port.unwrap_or(0) })
            }
            (None, None) if protocol.is_some() || port.is_some() => {
                return Err("proto and port belong to a packet; give ip=SOURCE>DESTINATION".into());
            }
            (None, None) => None,
            _ => return Err("a packet has two addresses; give both".into()),
        };
        if packet.is_some() && ethertype.is_some() {
            return Err("type is that of the packet, which ip states; leave one out".into());
        }
        Ok(Described { dst, src, vlan, len, ethertype, packet })
    }
}

fn parsed<T: FromStr>(key: &str, value: &str, example: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{key}={value} is not valid; use one such as {example}"))
}

/// A number in decimal, or in hexadecimal with `0x`.
fn number(key: &str, value: &str, example: &str) -> Result<u16, String> {
    match value.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16)
            .map_err(|_| format!("{key}={value} is not valid; use one such as {example}")),
        None => parsed(key, value, example),
    }
}

fn no_pair(word: &str) -> String {
    format!("{word:?} is not KEY=VALUE; a frame has {}", KEYS.join(", "))
}

fn no_field(field: &str) -> String {
    let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    format!("a frame has no {field}; a flow may have in_port, nw_src, nw_dst, {}", known.join(", "))
}

fn standard_input() -> Result<String, String> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MOST).read_to_string(&mut text);
    read.map_err(|error| format!("standard input: {error}; give the frame in hexadecimal"))?;
    Ok(text)
}

/// The bytes of hexadecimal digits, between which white space may stand.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text.chars().filter(|it| !it.is_whitespace()).collect();
    let wrong = |at: usize| {
        format!("the frame's digit {} is not hexadecimal; give its bytes as 0011aabb", at + 1)
    };
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return Err(format!("the frame has {} hexadecimal digits, not two a byte", digits.len()));
    }
    let value = |(at, digit): (usize, &char)| digit.to_digit(16).ok_or_else(|| wrong(at));
    let values = digits.iter().enumerate().map(value).collect::<Result<Vec<u32>, _>>()?;
    Ok(values.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn described(request: Request) -> Described {
        match request.frame {
            Frame::Described(described) => described,
            _ => panic!("not described"),
        }
    }

    #[test]
    fn a_frame_is_described_in_either_language() {
        let line = "vm1 dst=52:54:00:00:00:02 src=52:54:00:00:00:01 vlan=10 ip=10.0.0.1>10.0.0.2 \
                    proto=udp port=53";
        let request = read(&words(line)).unwrap();
        assert_eq!(request.port, "vm1");
        let own = described(request);
        assert_eq!((own.dst, own.vlan), ([0x52, 0x54, 0, 0, 0, 2], Some(10)));
        let flow = "in_port=vm1,udp,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,dl_vlan=10,\
                    nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=53";
        let request = read_flow(&["lab".to_owned(), flow.to_owned()]).unwrap();
        assert_eq!((request.port.as_str(), described(request.clone())), ("vm1", own));
        let bytes = read(&words("vm1 0011AAbb")).unwrap().frame;
        assert_eq!(bytes, Frame::Bytes(vec![0x00, 0x11, 0xaa, 0xbb]));
        let ping = described(read(&words("vm1 dst=52:54:00:00:00:02 ip=::1>::2")).unwrap());
        assert_eq!(ping.packet.map(|packet| packet.protocol), Some(Protocol::Icmp));
        let last = read(&words("--last vm1 no_member")).unwrap();
        assert_eq!(last.frame, Frame::Last { reason: Some("no_member".to_owned()) });
        let arp = described(read(&words("vm1 dst=ff:ff:ff:ff:ff:ff type=0x806")).unwrap());
        assert_eq!(arp.ethertype, Some(0x806));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("", "give dst=MAC"),
            ("vm1 vlan=10", "give dst=MAC"),
            ("vm1 dst=x", "such as 52:54"),
            ("vm1 dts=52:54:00:00:00:02", "did you mean dst?"),
            ("vm1 dst=52:54:00:00:00:02 colour=red", "it has dst, src"),
            ("vm1 dst=52:54:00:00:00:02 loud", "not KEY=VALUE"),
            ("vm1 dst=52:54:00:00:00:02 port=80", "give ip=SOURCE>DESTINATION"),
            ("vm1 dst=52:54:00:00:00:02 ip=10.0.0.1", "ip=A>B"),
            ("vm1 dst=52:54:00:00:00:02 ip=10.0.0.1>10.0.0.2 type=0x806", "leave one out"),
            ("vm1 dst=52:54:00:00:00:02 ip=10.0.0.1>10.0.0.2 proto=sctp", "use tcp, udp or icmp"),
            ("--last vm1 no_member today", "takes a port and a drop reason"),
            ("vm1 001", "not two a byte"),
            ("vm1 0x", "digit 2 is not hexadecimal"),
        ] {
            let message = read(&words(line)).unwrap_err();
            assert!(message.contains(part), "{line}: {message}");
        }
        let flow = |text: &str| read_flow(&["lab".to_owned(), text.to_owned()]).unwrap_err();
        assert!(flow("dl_dst=52:54:00:00:00:02").contains("in_port=vm1"));
        assert!(flow("in_port=vm1,metadata=1").contains("a frame has no metadata"));
    }
}
