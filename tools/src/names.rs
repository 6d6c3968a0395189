//! The names under which the program runs: its own, and those of Open vSwitch's commands, for
//! software that calls these. The package has them in a folder for `PATH`.

use std::ffi::OsString;
use std::path::Path;

use trama_api::nearest::nearest;

use crate::explain::TRACE;
use crate::extcap;

/// The program's own name.
pub(crate) const OWN: &str = "tramactl";
/// That of Open vSwitch's command for its configuration.
pub(crate) const OVS_VSCTL: &str = "ovs-vsctl";

/// That of its command for captures.
const OVS_TCPDUMP: &str = "ovs-tcpdump";

/// The command line as that of `tramactl`.
pub(crate) struct Called {
    /// The name in messages.
    pub program: &'static str,
    /// The command line.
    pub arguments: Vec<OsString>,
}

/// What comes of a command line.
pub(crate) enum Call {
    /// It is one of `tramactl`.
    Run(Called),
    /// This text is the answer.
    Print(String),
    /// These are the words of Wireshark.
    Extcap(Vec<OsString>),
}

/// What is wrong with a command line under one of the names.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// The name.
    pub program: &'static str,
    /// What is wrong, and the remedy.
    pub message: String,
}

/// What answers a command of `ovs-appctl`.
#[derive(Clone, Copy)]
enum Answer {
    /// The command of `tramactl`.
    Command(&'static str),
    /// The list of these commands.
    List,
    /// Why it is refused, and what serves instead.
    Refused(&'static str),
}

const NO_SNOOPING: &str =
    "multicast snooping is disabled: multicast frames go to every port of their VLAN";
const NO_BONDS: &str = "a port has one interface; bond the host's interfaces in the kernel, which \
                        shows the bond in /proc/net/bonding";
const NO_FLOWS: &str = "frames are forwarded by VLAN and MAC address, not by flows of a datapath; see \
                        fdb/show, ofproto/trace, and tramactl top";
const NO_OPENFLOW: &str = "there is no OpenFlow: frames are forwarded by VLAN and MAC address; see \
                           fdb/show and ofproto/trace";
const NO_PROBES: &str = "trama does not probe links; link_state of Interface has the state of each";
const NO_STP: &str = "there is no spanning tree; set loop of Port";
const NO_TUNNELS: &str =
    "trama has no tunnels; make the tunnel's interface with ip link, and add that as a port";
const NO_STATIC: &str = "addresses are learnt; set mac of Port for one that stays";

/// What `ovs-appctl` may ask for, and what answers it.
const APPCTL: [(&str, Answer); 9] = [
    ("coverage/show", Answer::Command("counters")),
    ("exit", Answer::Refused("the service manager ends the daemon: systemctl stop trama")),
    ("fdb/flush", Answer::Command("fdb/flush")),
    ("fdb/show", Answer::Command("fdb/show")),
    ("list-commands", Answer::List),
    ("mdb/flush", Answer::Refused(NO_SNOOPING)),
    ("mdb/show", Answer::Refused(NO_SNOOPING)),
    (TRACE, Answer::Command(TRACE)),
    ("version", Answer::Command("version")),
];

/// Commands of Open vSwitch that trama does not have: the part before the slash, and why.
const MISSING: [(&str, &str); 22] = [
    ("autoattach", "there is no Auto Attach; set tag and trunks of Port"),
    ("bfd", NO_PROBES),
    ("bond", NO_BONDS),
    ("bridge", NO_OPENFLOW),
    ("cfm", NO_PROBES),
    ("dpctl", NO_FLOWS),
    ("dpif", NO_FLOWS),
    ("dpif-netdev", NO_FLOWS),
    ("fdb/add", NO_STATIC),
    ("fdb/del", "fdb/flush forgets all addresses that were learnt"),
    ("fdb/stats-clear", "counters count from the start of the daemon; see coverage/show"),
    ("fdb/stats-show", "fdb/show lists the addresses, and metrics count them"),
    ("lacp", NO_BONDS),
    ("memory", "metrics have the memory of the process"),
    ("ofproto", NO_OPENFLOW),
    ("ovs", NO_TUNNELS),
    ("qos", "trama does not shape; limit the guest in its VMM, or a TAP with tc"),
    ("rstp", NO_STP),
    ("stp", NO_STP),
    ("tnl", NO_TUNNELS),
    ("upcall", NO_FLOWS),
    ("vlog", "tramad reads which lines it logs from TRAMA_LOG as it starts: TRAMA_LOG=debug"),
];

/// Reads the name and, for `ovs-appctl` and `ovs-tcpdump`, their options.
///
/// # Errors
/// It is a command of `ovs-appctl` that the daemon does not have, or `ovs-tcpdump` without a port.
pub(crate) fn called(mut arguments: Vec<OsString>) -> Result<Call, Mistake> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    match name.and_then(|name| name.to_str()) {
        Some(OVS_VSCTL) => Ok(Call::Run(Called { program: OVS_VSCTL, arguments })),
        Some("ovs-appctl") => {
            let rest = arguments.split_off(1);
            let translated = appctl(rest);
            let mistake = |message| Mistake { program: "ovs-appctl", message };
            let Some(translated) = translated.map_err(mistake)? else {
                return Ok(Call::Print(commands()));
            };
            arguments.extend(translated);
            Ok(Call::Run(Called { program: "ovs-appctl", arguments }))
        }
        Some(OVS_TCPDUMP) => {
            let rest = arguments.split_off(1);
            let mistake = |message| Mistake { program: OVS_TCPDUMP, message };
            arguments.extend(ovs_tcpdump(rest).map_err(mistake)?);
            Ok(Call::Run(Called { program: OVS_TCPDUMP, arguments }))
        }
        Some(extcap::NAME) => Ok(Call::Extcap(arguments.split_off(1))),
        _ => Ok(Call::Run(Called { program: OWN, arguments })),
    }
}

/// Translates the arguments of `ovs-tcpdump`: the port of `-i`, then those of tcpdump. Where a
/// database is and what a mirror is called mean nothing here.
fn ovs_tcpdump(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let mut words = arguments.into_iter();
    let (mut port, mut rest) = (None, Vec::new());
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        match text.as_str() {
            "-i" | "--interface" => port = words.next(),
            "--db-sock" | "--mirror-to" => drop(words.next()),
            "--span" => {}
            _ if text.starts_with("--db-sock=") || text.starts_with("--mirror-to=") => {}
            _ if text.starts_with("--interface=") => {
                port = text.split_once('=').map(|(_, port)| port.into());
            }
            _ if is_glued(&text, "-i") => port = Some(text[2..].into()),
            _ => rest.push(word),
        }
    }
    let port = port.ok_or("the port is missing; name it with -i PORT")?;
    Ok(["tcpdump".into(), port].into_iter().chain(rest).collect())
}

/// Translates the arguments of `ovs-appctl`; `None` = the list of commands is asked for. There is
/// one daemon, so targets are left out.
fn appctl(arguments: Vec<OsString>) -> Result<Option<Vec<OsString>>, String> {
    let mut words = arguments.into_iter();
    let mut translated = Vec::new();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        match text.as_str() {
            "-t" | "--target" => drop(words.next()),
            "-T" | "--timeout" => {
                translated.extend(["-t".into(), words.next().unwrap_or_default()])
            }
            _ if text.starts_with("--target=") || is_glued(&text, "-t") => {}
            _ if is_glued(&text, "-T") => translated.extend(["-t".into(), text[2..].into()]),
            _ if text.starts_with("--timeout=") || text == "--help" || text == "--version" => {
                translated.push(word);
            }
            _ if text.starts_with('-') => return Err(format!("there is no option {text}")),
            _ => {
                let known = APPCTL.iter().find(|(name, _)| *name == text);
                match known.map(|(_, answer)| *answer).ok_or_else(|| unknown(&text))? {
                    Answer::Command(command) => translated.push(command.into()),
                    Answer::List => return Ok(None),
                    Answer::Refused(why) => return Err(format!("{text}: {why}")),
                }
                translated.extend(words);
                return Ok(Some(translated));
            }
        }
    }
    Ok(Some(translated))
}

/// Whether the value of this option of one letter is in the same word.
fn is_glued(word: &str, option: &str) -> bool {
    word.strip_prefix(option).is_some_and(|value| !value.is_empty())
}

/// The names of the commands, as `ovs-appctl` lists them.
fn commands() -> String {
    let mut text = "The available commands are:\n".to_owned();
    text.extend(APPCTL.iter().map(|(name, _)| format!("  {name}\n")));
    text
}

fn unknown(command: &str) -> String {
    let family = command.split_once('/').map_or(command, |(family, _)| family);
    let missing = MISSING.iter().find(|(name, _)| [command, family].contains(name));
    if let Some((_, why)) = missing {
        return format!("trama has no '{command}': {why}");
    }
    let known: Vec<&str> = APPCTL.iter().map(|(name, _)| *name).collect();
    let remedy = match nearest(command, &known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are {}", known.join(", ")),
    };
    format!("'{command}' is not a command of tramad; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(String, String), String> {
        let arguments = line.split(' ').map(OsString::from).collect();
        let call = called(arguments).map_err(|mistake| mistake.message)?;
        let Called { program, arguments } = match call {
            Call::Run(called) => called,
            Call::Print(text) => return Ok(("text".to_owned(), text)),
            Call::Extcap(words) => return Ok((extcap::NAME.to_owned(), words.len().to_string())),
        };
        let words = arguments.iter().map(|it| it.to_string_lossy().into_owned());
        Ok((program.to_owned(), words.skip(1).collect::<Vec<_>>().join(" ")))
    }

    #[test]
    fn names_of_open_vswitch_lead_to_the_same_commands() {
        for (line, program, words) in [
            ("/usr/bin/tramactl show", "tramactl", "show"),
            ("/usr/lib/trama/ovs/ovs-vsctl -t 5 list-br", "ovs-vsctl", "-t 5 list-br"),
            ("ovs-appctl fdb/show lab", "ovs-appctl", "fdb/show lab"),
            ("ovs-appctl -t ovs-vswitchd -T 3 coverage/show", "ovs-appctl", "-t 3 counters"),
            ("ovs-appctl --target=x --timeout=2 version", "ovs-appctl", "--timeout=2 version"),
            ("ovs-appctl -tovs-vswitchd -T3 coverage/show", "ovs-appctl", "-t 3 counters"),
            ("ovs-tcpdump -i vm1 -ne arp", "ovs-tcpdump", "tcpdump vm1 -ne arp"),
            ("ovs-tcpdump --db-sock x --span -w f -ivm1", "ovs-tcpdump", "tcpdump vm1 -w f"),
            ("/usr/lib/extcap/trama-extcap --extcap-interfaces", "trama-extcap", "1"),
        ] {
            assert_eq!(read(line), Ok((program.to_owned(), words.to_owned())), "{line}");
        }
        assert!(read("ovs-appctl exit").unwrap_err().contains("systemctl stop trama"));
        let bond = read("ovs-appctl bond/show").unwrap_err();
        assert!(bond.starts_with("trama has no 'bond/show': a port has one interface"), "{bond}");
        assert!(read("ovs-appctl vlog/set debug").unwrap_err().contains("TRAMA_LOG=debug"));
        assert!(read("ovs-appctl fdb/add lab vm1").unwrap_err().contains("set mac of Port"));
        assert!(read("ovs-appctl dance").unwrap_err().contains("there are coverage/show"));
        assert!(read("ovs-appctl fdb/shwo").unwrap_err().contains("did you mean fdb/show?"));
        assert!(read("ovs-appctl mdb/show lab").unwrap_err().contains("snooping is disabled"));
        let (_, trace) = read("ovs-appctl ofproto/trace lab in_port=vm1").unwrap();
        assert_eq!(trace, "ofproto/trace lab in_port=vm1");
        let (_, list) = read("ovs-appctl list-commands").unwrap();
        assert!(list.starts_with("The available commands are:\n  coverage/show\n"), "{list}");
        assert!(read("ovs-appctl --color fdb/show").is_err());
        assert!(read("ovs-tcpdump -e arp").unwrap_err().contains("-i PORT"));
    }
}
