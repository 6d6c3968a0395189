//! Rules that lead from a port of the host to one of the network, or back: forwards and loopback
//! maps. Both have the same six fields, in either of VirtualBox's two spellings:
//!
//! ```text
//! [name],tcp|udp,[host address],host port,[guest address],guest port[,as-gateway]
//! name:tcp|udp:[host address]:host port:[guest address]:guest port[:as-gateway]
//! ```
//!
//! A port may be a range, `8000-8010`. Between colons an IPv6 address needs its brackets.

use std::net::IpAddr;

use toml_edit::{Array, Value};
use trama_gateway::Transport;

use super::reader::Reader;
use crate::Fault;
use crate::config::model::rule::{AS_GATEWAY, Rule};

/// Longest name of a rule.
const MAX_NAME: usize = 63;
/// An example, as a remedy.
const EXAMPLE: &str = r#"write it as in "ssh,tcp,127.0.0.1,2222,10.0.2.15,22""#;
const FIELDS: [&str; 6] =
    ["name", "protocol", "host address", "host port", "guest address", "guest port"];

/// Reads a rule in either spelling.
///
/// # Errors
/// Which field is wrong and why, and what to write.
pub fn parse(text: &str) -> Result<Rule, Fault> {
    let fields = split(text);
    let [name, transport, host, host_port, guest, guest_port, rest @ ..] = fields.as_slice() else {
        let message = format!("{text:?} has {} of {} fields", fields.len(), FIELDS.len());
        return Err(Fault::new(message, EXAMPLE));
    };
    let as_gateway = match rest {
        [] => false,
        [word] if *word == AS_GATEWAY => true,
        [word] => {
            let message = format!("{text:?}: {word:?} is not an option of a rule");
            return Err(Fault::new(message, format!("write {AS_GATEWAY}, or leave it out")));
        }
        _ => {
            let message = format!("{text:?} has {} fields", fields.len());
            let remedy = "between colons, write IPv6 addresses in brackets: [fd00::15]";
            return Err(Fault::new(message, remedy));
        }
    };
    let in_field = |index: usize| {
        move |Fault { message, remedy }| {
            Fault::new(format!("{text:?}: {}: {message}", FIELDS[index]), remedy)
        }
    };
    check_name(name).map_err(in_field(0))?;
    let transport = parse_transport(transport).map_err(in_field(1))?;
    let host = parse_host(host).map_err(in_field(2))?;
    let (host_port, count) = parse_ports(host_port).map_err(in_field(3))?;
    let guest = parse_host(guest).map_err(in_field(4))?;
    let (guest_port, guest_count) = parse_ports(guest_port).map_err(in_field(5))?;
    if count != guest_count {
        let message =
            format!("{text:?} has {count} ports on the host and {guest_count} on the guest");
        return Err(Fault::new(message, "give the same number on both sides"));
    }
    let name = (*name).to_owned();
    Ok(Rule { name, transport, host, host_port, guest, guest_port, count, as_gateway })
}

/// The rules of a key: one, or a list of them.
pub(super) fn read(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        match parse(&text) {
            Ok(rule) => rules.push(rule),
            Err(fault) => reader.fault(key, offset, fault),
        }
    }
    rules
}

/// The value of a key that holds rules; `None` if there are none.
pub(super) fn value(rules: &[Rule]) -> Option<Value> {
    let texts = rules.iter().map(ToString::to_string);
    (!rules.is_empty()).then(|| Value::Array(Array::from_iter(texts)))
}

/// The fields of a rule, without the spaces around them.
fn split(text: &str) -> Vec<&str> {
    if text.contains(',') {
        return text.split(',').map(str::trim).collect();
    }
    let mut depth = 0usize;
    let at_colon = |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ':' && depth == 0
    };
    text.split(at_colon).map(str::trim).collect()
}

fn check_name(name: &str) -> Result<(), Fault> {
    let bad = |c: char| c.is_control() || ",:[]".contains(c);
    if name.len() > MAX_NAME || name.contains(bad) {
        let remedy = format!("use at most {MAX_NAME} bytes without commas, colons and brackets");
        return Err(Fault::new(format!("{name:?} is not a usable name"), remedy));
    }
    Ok(())
}

fn parse_transport(text: &str) -> Result<Transport, Fault> {
    let known = [Transport::Tcp, Transport::Udp];
    let fault = || Fault::new(format!("{text:?} is neither tcp nor udp"), "write tcp or udp");
    known.into_iter().find(|transport| transport.name() == text).ok_or_else(fault)
}

/// An address with or without brackets; empty = `None`. The kernel treats an IPv4-mapped IPv6
/// address (RFC 4291, 2.5.5.2) as an IPv4 address, so it is read as one.
fn parse_host(text: &str) -> Result<Option<IpAddr>, Fault> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.is_empty() {
        return Ok(None);
    }
    bare.parse().map(|it: IpAddr| Some(it.to_canonical())).map_err(|_| {
        let remedy = "write it as in 10.0.2.15 or [fd00::15], or leave it empty";
        Fault::new(format!("{text:?} is not an address"), remedy)
    })
}

/// The first port of a range, and the number of ports.
fn parse_ports(text: &str) -> Result<(u16, u16), Fault> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last - first + 1)),
        _ => {
            let remedy = "use 1 to 65535, or a range as in 8000-8010";
            Err(Fault::new(format!("{text:?} is not a port"), remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Rule {
        parse(text).unwrap_or_else(|fault| panic!("{fault}"))
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let ssh = Rule {
            name: "ssh".into(),
            transport: Transport::Tcp,
            host: Some([127, 0, 0, 1].into()),
            host_port: 2222,
            guest: Some([10, 0, 2, 15].into()),
            guest_port: 22,
            count: 1,
            as_gateway: false,
        };
        for text in [
            "ssh,tcp,127.0.0.1,2222,10.0.2.15,22",
            "ssh, tcp, [127.0.0.1], 2222, [10.0.2.15], 22",
            "ssh:tcp:127.0.0.1:2222:10.0.2.15:22",
            "ssh:tcp:[127.0.0.1]:2222:[10.0.2.15]:22",
        ] {
            assert_eq!(rule(text), ssh, "{text}");
        }
        let bare = Rule { name: String::new(), host: None, guest: None, ..ssh.clone() };
        for text in [",tcp,,2222,,22", ":tcp:[]:2222:[]:22", ":tcp::2222::22"] {
            assert_eq!(rule(text), bare, "{text}");
        }
        assert_eq!(bare.label(), "tcp-2222");
        let v6 = Rule { host: Some("::1".parse().unwrap()), count: 3, as_gateway: true, ..ssh };
        for text in [
            "ssh,tcp,::1,2222-2224,10.0.2.15,22-24,as-gateway",
            "ssh:tcp:[::1]:2222-2224:10.0.2.15:22-24:as-gateway",
        ] {
            assert_eq!(rule(text), v6, "{text}");
        }
        assert_eq!(v6.to_string(), "ssh,tcp,::1,2222-2224,10.0.2.15,22-24,as-gateway");
    }

    #[test]
    fn each_fault_names_its_field_and_what_to_write() {
        for (text, wanted) in [
            ("", r#""" has 1 of 6 fields; write it as in "ssh,tcp,127.0.0.1,2222,10.0.2.15,22""#),
            (
                "ssh,tcp,2222,10.0.2.15,22",
                r#""ssh,tcp,2222,10.0.2.15,22" has 5 of 6 fields; write it as in "ssh,tcp,127.0.0.1,2222,10.0.2.15,22""#,
            ),
            (
                "ssh:tcp:::1:2222:10.0.2.15:22",
                r#""ssh:tcp:::1:2222:10.0.2.15:22" has 8 fields; between colons, write IPv6 addresses in brackets: [fd00::15]"#,
            ),
            (
                "s[h,tcp,,1,,1",
                r#""s[h,tcp,,1,,1": name: "s[h" is not a usable name; use at most 63 bytes without commas, colons and brackets"#,
            ),
            (
                "a,sctp,,1,,1",
                r#""a,sctp,,1,,1": protocol: "sctp" is neither tcp nor udp; write tcp or udp"#,
            ),
            (
                "a,tcp,localhost,1,,1",
                r#""a,tcp,localhost,1,,1": host address: "localhost" is not an address; write it as in 10.0.2.15 or [fd00::15], or leave it empty"#,
            ),
            (
                "a,tcp,,0,,1",
                r#""a,tcp,,0,,1": host port: "0" is not a port; use 1 to 65535, or a range as in 8000-8010"#,
            ),
            (
                "a,tcp,,9-8,,1",
                r#""a,tcp,,9-8,,1": host port: "9-8" is not a port; use 1 to 65535, or a range as in 8000-8010"#,
            ),
            (
                "a,tcp,,1,10.0.2,1",
                r#""a,tcp,,1,10.0.2,1": guest address: "10.0.2" is not an address; write it as in 10.0.2.15 or [fd00::15], or leave it empty"#,
            ),
            (
                "a,tcp,,1,,65536",
                r#""a,tcp,,1,,65536": guest port: "65536" is not a port; use 1 to 65535, or a range as in 8000-8010"#,
            ),
            (
                "a,tcp,,8000-8010,,80",
                r#""a,tcp,,8000-8010,,80" has 11 ports on the host and 1 on the guest; give the same number on both sides"#,
            ),
            (
                "a,tcp,,1,,1,hide",
                r#""a,tcp,,1,,1,hide": "hide" is not an option of a rule; write as-gateway, or leave it out"#,
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), wanted);
        }
    }

    #[test]
    fn two_rules_clash_on_a_port_of_an_address() {
        let clash = |a: &str, b: &str| {
            assert_eq!(rule(a).clashes(&rule(b)), rule(b).clashes(&rule(a)), "{a} and {b}");
            rule(a).clashes(&rule(b))
        };
        assert!(clash(",tcp,,80,,80", ",tcp,127.0.0.1,80,,81"));
        assert!(clash(",tcp,,80,,80", ",tcp,::1,80,,81"));
        assert!(clash(",tcp,0.0.0.0,80,,80", ",tcp,127.0.0.1,80,,81"));
        assert!(clash(",tcp,::,80,,80", ",tcp,::1,80,,81"));
        assert!(clash(",tcp,,80,,80", ",tcp,::,80,,81") && clash(",tcp,,80,,80", ",tcp,,80,,81"));
        assert!(clash(",tcp,0.0.0.0,80,,80", ",tcp,0.0.0.0,79-80,,81-82"));
        assert!(clash(",tcp,::ffff:127.0.0.1,80,,80", ",tcp,127.0.0.1,80,,81"));
        assert!(clash(",tcp,::ffff:0.0.0.0,80,,80", ",tcp,127.0.0.1,80,,81"));
        assert!(clash(",tcp,,80-90,,80-90", ",tcp,,90-95,,1-6"));
        assert!(!clash(",tcp,,80-89,,80-89", ",tcp,,90-95,,1-6"));
        assert!(!clash(",tcp,,80,,80", ",udp,,80,,80"));
        assert!(!clash(",tcp,127.0.0.1,80,,80", ",tcp,127.0.0.2,80,,80"));
        assert!(!clash(",tcp,0.0.0.0,80,,80", ",tcp,::1,80,,80"));
        assert!(!clash(",tcp,::,80,,80", ",tcp,127.0.0.1,80,,81"));
        assert!(!clash(",tcp,0.0.0.0,80,,80", ",tcp,::,80,,80"));
        assert!(!clash(",udp,0.0.0.0,80-90,,80-90", ",udp,::,80-90,,80-90"));
        assert!(!clash(",tcp,::ffff:0.0.0.0,80,,80", ",tcp,::,80,,81"));
    }

    /// Any rule that can be written.
    fn any_rule() -> impl Strategy<Value = Rule> {
        let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
        let address = || any::<Option<IpAddr>>().prop_map(|it| it.map(|it| it.to_canonical()));
        let addresses = (address(), address());
        let ports = (1u16.., 1u16.., 1u16..=u16::MAX);
        ("[a-zé][a-zé ]{0,6}[a-z]|", transport, addresses, ports, any::<bool>()).prop_map(
            |(name, transport, (host, guest), (host_port, guest_port, count), as_gateway)| {
                let most = (u16::MAX - host_port.max(guest_port)).saturating_add(1);
                let count = count.min(most);
                Rule { name, transport, host, host_port, guest, guest_port, count, as_gateway }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(wanted in any_rule()) {
            let text = wanted.to_string();
            prop_assert_eq!(&rule(&text), &wanted);
            // The form with colons.
            let fields: Vec<String> = text.split(',').map(|field| match field.contains(':') {
                true => format!("[{field}]"),
                false => field.to_owned(),
            }).collect();
            prop_assert_eq!(rule(&fields.join(":")), wanted);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "([a-z0-9.:\\[\\]-]{0,5}[,:]){0,8}.{0,3}") {
            if let Ok(rule) = parse(&text) {
                prop_assert!(rule.host_port > 0 && rule.guest_port > 0 && rule.count > 0);
                prop_assert!(u32::from(rule.host_port) + u32::from(rule.count) <= 65_536);
                prop_assert!(u32::from(rule.guest_port) + u32::from(rule.count) <= 65_536);
            }
        }
    }
}
