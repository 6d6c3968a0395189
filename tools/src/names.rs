//! The names under which the program runs: its own, and those of Open vSwitch's commands, for
//! software that calls these. The package has them in a folder for `PATH`.

use std::ffi::OsString;
use std::path::Path;

/// The command line as that of `tramactl`.
pub(crate) struct Called {
    /// The name in messages.
    pub program: &'static str,
    /// The command line.
    pub arguments: Vec<OsString>,
}

/// What `ovs-appctl` may ask for, and what answers it.
const APPCTL: [(&str, &str); 5] = [
    ("coverage/show", "counters"),
    ("fdb/flush", "fdb/flush"),
    ("fdb/show", "fdb/show"),
    ("list-commands", "list-commands"),
    ("version", "version"),
];

/// Reads the name and, for `ovs-appctl`, its options.
///
/// # Errors
/// It is a command of `ovs-appctl` that the daemon does not have.
pub(crate) fn called(mut arguments: Vec<OsString>) -> Result<Called, String> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    match name.and_then(|name| name.to_str()) {
        Some("ovs-vsctl") => Ok(Called { program: "ovs-vsctl", arguments }),
        Some("ovs-appctl") => {
            let rest = arguments.split_off(1);
            arguments.extend(appctl(rest)?);
            Ok(Called { program: "ovs-appctl", arguments })
        }
        _ => Ok(Called { program: "tramactl", arguments }),
    }
}

/// Translates the arguments of `ovs-appctl`. There is one daemon, so targets are left out.
fn appctl(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let mut words = arguments.into_iter();
    let mut translated = Vec::new();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        match text.as_str() {
            "-t" | "--target" => drop(words.next()),
            "-T" | "--timeout" => {
                translated.extend(["-t".into(), words.next().unwrap_or_default()])
            }
            _ if text.starts_with("--target=") => {}
            _ if text.starts_with("--timeout=") || text == "--help" || text == "--version" => {
                translated.push(word);
            }
            _ if text.starts_with('-') => return Err(format!("there is no option {text}")),
            _ => {
                let known = APPCTL.iter().find(|(name, _)| *name == text);
                let (_, command) = known.ok_or_else(|| unknown(&text))?;
                translated.push(command.into());
                translated.extend(words);
                return Ok(translated);
            }
        }
    }
    Ok(translated)
}

fn unknown(command: &str) -> String {
    let known: Vec<&str> = APPCTL.iter().map(|(name, _)| *name).collect();
    let remedy = match command {
        "exit" => "stop the daemon with systemctl stop trama".to_owned(),
        _ => format!("there are {}", known.join(", ")),
    };
    format!("'{command}' is not a command of tramad; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(String, String), String> {
        let arguments = line.split(' ').map(OsString::from).collect();
        let Called { program, arguments } = called(arguments)?;
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
        ] {
            assert_eq!(read(line), Ok((program.to_owned(), words.to_owned())), "{line}");
        }
        assert!(read("ovs-appctl exit").unwrap_err().contains("systemctl stop trama"));
        assert!(read("ovs-appctl bond/show").unwrap_err().contains("there are coverage/show"));
        assert!(read("ovs-appctl --color fdb/show").is_err());
    }
}
