//! `trama-extcap`: this program, as Wireshark and tshark call it to capture at a port (extcap).
//!
//! They ask in turn for interfaces, for their link types and for their settings, and then have one
//! capture, into a FIFO. Without a daemon there are no interfaces, and that is no fault: Wireshark
//! asks at its start.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use trama_api::capture::{Direction, Request};
use trama_api::folders::control_sockets;
use trama_api::transaction::{Output as Answer, VERSION};
use trama_api::value::{Atom, Value};
use trama_client::{Daemon, Failed};

use crate::cli;
use crate::tcpdump::{Output, Place, capture};

/// The name that Wireshark calls.
pub(crate) const NAME: &str = "trama-extcap";
/// What the names of interfaces begin with.
const PREFIX: &str = "trama:";
/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// All ports.
const ANY: &str = "any";
/// The dropped frames of all ports.
const DROPS: &str = "drops";

/// The settings of an interface.
const SETTINGS: &str = "\
arg {number=0}{call=--direction}{display=Direction}{type=selector}\
{tooltip=In is what the machine behind the port sends}
value {arg=0}{value=inout}{display=Both}{default=true}
value {arg=0}{value=in}{display=From the machine}
value {arg=0}{value=out}{display=To the machine}
arg {number=1}{call=--drops}{display=Dropped frames, too}{type=boolflag}{default=false}
arg {number=2}{call=--snaplen}{display=Bytes of a frame}{type=integer}{range=0,262144}\
{default=262144}
arg {number=3}{call=--socket}{display=Control socket of tramad}{type=string}
";

/// Answers Wireshark; returns what is printed.
///
/// # Errors
/// The words are not understood, or the capture fails.
pub(crate) fn run(words: &[OsString]) -> Result<String, Failed> {
    let matches = command().try_get_matches_from(words).map_err(|error| cli::mistake(&error))?;
    let socket = matches.get_one::<PathBuf>("socket").filter(|path| !path.as_os_str().is_empty());
    let daemon = Daemon { sockets: control_sockets(socket.cloned()), timeout: PATIENCE };
    if matches.get_flag("extcap-interfaces") {
        return Ok(interfaces(&daemon));
    }
    if matches.get_flag("extcap-dlts") {
        return Ok("dlt {number=1}{name=EN10MB}{display=Ethernet}\n".to_owned());
    }
    if matches.get_flag("extcap-config") {
        return Ok(SETTINGS.to_owned());
    }
    if matches.get_flag("capture") {
        return fill(&daemon, &matches).map(|()| String::new());
    }
    Err("Wireshark calls this; to capture by hand, use tramactl tcpdump".to_owned().into())
}

fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let option = |name: &'static str| Arg::new(name).long(name).num_args(1);
    Command::new(NAME)
        .no_binary_name(true)
        .disable_help_flag(true)
        .args(["extcap-interfaces", "extcap-dlts", "extcap-config", "capture", "drops"].map(flag))
        .args(["extcap-interface", "extcap-version", "extcap-capture-filter"].map(option))
        .arg(option("fifo").value_parser(value_parser!(PathBuf)))
        .arg(option("socket").value_parser(value_parser!(PathBuf)))
        .arg(option("snaplen").value_parser(value_parser!(u32)))
        .arg(option("direction").value_parser(PossibleValuesParser::new(["in", "out", "inout"])))
}

/// The version, and each port.
fn interfaces(daemon: &Daemon) -> String {
    let mut text = format!(
        "extcap {{version={}}}{{help=file:///usr/share/doc/trama/docs/capture.md}}\n",
        env!("CARGO_PKG_VERSION")
    );
    let words = ["--columns=name,network,tag", "list", "Port"];
    let Ok(Answer::Table { rows, .. }) = daemon.run(words) else { return text };
    for row in rows {
        let cell = |index: usize| row.get(index).and_then(word).unwrap_or_default();
        let (port, network, tag) = (cell(0), cell(1), cell(2));
        let vlan = if tag.is_empty() { String::new() } else { format!(", VLAN {tag}") };
        text += &interface(&port, &format!("{network}/{port}{vlan}"));
    }
    text + &interface(ANY, "all ports") + &interface(DROPS, "dropped frames of all ports")
}

fn interface(name: &str, display: &str) -> String {
    format!("interface {{value={PREFIX}{name}}}{{display=trama: {display}}}\n")
}

/// A value of one word.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::One(Atom::String(text)) => Some(text.to_string()),
        Value::One(Atom::Integer(number)) => Some(number.to_string()),
        _ => None,
    }
}

/// Captures into the FIFO.
fn fill(daemon: &Daemon, matches: &ArgMatches) -> Result<(), Failed> {
    let text = |id: &str| matches.get_one::<String>(id).map(String::as_str);
    let name = text("extcap-interface").and_then(|name| name.strip_prefix(PREFIX));
    let name =
        name.ok_or("--extcap-interface must be one of trama's, such as trama:vm1".to_owned())?;
    let fifo: &PathBuf = matches.get_one("fifo").ok_or("--fifo is missing".to_owned())?;
    let is_drops = name == DROPS;
    let mut words = vec![if is_drops { ANY.to_owned() } else { name.to_owned() }];
    words.extend(text("extcap-capture-filter").filter(|text| !text.is_empty()).map(Into::into));
    let request = Request {
        version: VERSION,
        words,
        direction: text("direction").and_then(|word| match word {
            "in" => Some(Direction::In),
            "out" => Some(Direction::Out),
            _ => None,
        }),
        frames: !is_drops,
        drops: (is_drops || matches.get_flag("drops")).then(Vec::new),
        snaplen: matches.get_one("snaplen").copied().unwrap_or(0),
        count: None,
        last: None,
    };
    let output = Output::new(Place::File(fifo.clone()), false);
    // Wireshark has closed its end when it stops. It shows what a program says that fails.
    capture(daemon, &request, output)?.fault().map_or(Ok(()), |fault| Err(fault.into()))
}

/// The user's folders of extcap programs: of Wireshark from 4.2 on, and of earlier versions.
const FOLDERS: [&str; 2] = [".local/lib/wireshark/extcap", ".config/wireshark/extcap"];

/// Links this program into the user's folders of extcap programs; returns what is printed.
///
/// # Errors
/// A folder or link cannot be made.
pub(crate) fn install() -> Result<String, Failed> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let home = home.ok_or("HOME is not set; set it to the user's folder".to_owned())?;
    let program = env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let mut text = String::new();
    for folder in FOLDERS {
        let link = home.join(folder).join(NAME);
        make_link(&program, &link)
            .map_err(|error| format!("cannot make {}: {error}", link.display()))?;
        text += &format!("{} leads to {}\n", link.display(), program.display());
    }
    Ok(text)
}

/// Makes a link, in the place of an earlier one.
fn make_link(program: &Path, link: &Path) -> io::Result<()> {
    fs::create_dir_all(link.parent().unwrap_or(link))?;
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(program, link),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> Result<String, Failed> {
        run(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn without_a_daemon_there_are_no_interfaces_and_no_fault() {
        let text = answer("--extcap-interfaces --extcap-version=4.0 --socket /none/x").unwrap();
        assert!(text.starts_with("extcap {version=") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn link_types_and_settings_need_no_daemon() {
        let dlts = answer("--extcap-dlts --extcap-interface trama:vm1").unwrap();
        assert_eq!(dlts, "dlt {number=1}{name=EN10MB}{display=Ethernet}\n");
        let settings = answer("--extcap-config --extcap-interface trama:vm1").unwrap();
        assert_eq!(settings.lines().filter(|line| line.starts_with("arg ")).count(), 4);
    }

    #[test]
    fn what_is_not_asked_by_wireshark_is_explained() {
        assert!(answer("--capture --fifo x").unwrap_err().to_string().contains("trama:vm1"));
        assert!(answer("--drops").unwrap_err().to_string().contains("tramactl tcpdump"));
    }
}
