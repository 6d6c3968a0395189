//! What the runtime says in environment variables (specification, section 2).

use std::collections::BTreeMap;

use super::failure::{ENVIRONMENT, Failure};

/// Most bytes of an interface's name (`IFNAMSIZ` without its end).
const MAX_IFNAME: usize = 15;

/// What the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

impl Command {
    const ALL: [(&str, Command); 6] = [
        ("ADD", Command::Add),
        ("DEL", Command::Del),
        ("CHECK", Command::Check),
        ("STATUS", Command::Status),
        ("GC", Command::Gc),
        ("VERSION", Command::Version),
    ];

    /// Whether it is about one container.
    fn has_container(self) -> bool {
        matches!(self, Command::Add | Command::Del | Command::Check)
    }

    /// Whether only version 1.1.0 has it.
    pub(super) fn is_new(self) -> bool {
        matches!(self, Command::Status | Command::Gc)
    }
}

/// The variables. Those that a command does not need are empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Environment {
    pub command: Command,
    pub container: String,
    /// The path of the network namespace.
    pub netns: String,
    pub ifname: String,
    /// The pairs of `CNI_ARGS`.
    pub args: BTreeMap<String, String>,
    /// Folders of other plug-ins, with colons between them.
    pub path: String,
}

impl Environment {
    /// Reads and checks them.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Environment, Failure> {
        let value = |name: &str| variable(name).unwrap_or_default();
        let stated = value("CNI_COMMAND");
        let found = Command::ALL.iter().find(|(name, _)| *name == stated);
        let Some((_, command)) = found else {
            let known = Command::ALL.map(|(name, _)| name).join(", ");
            return Err(wrong(format!("CNI_COMMAND is {stated:?}, and not one of {known}")));
        };
        let args = value("CNI_ARGS");
        let args = args.split(';').filter_map(|pair| pair.split_once('='));
        let environment = Environment {
            command: *command,
            container: value("CNI_CONTAINERID"),
            netns: value("CNI_NETNS"),
            ifname: value("CNI_IFNAME"),
            args: args.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            path: value("CNI_PATH"),
        };
        environment.check()?;
        Ok(environment)
    }

    fn check(&self) -> Result<(), Failure> {
        if !self.command.has_container() {
            return Ok(());
        }
        if !is_container(&self.container) {
            return Err(wrong(format!(
                "CNI_CONTAINERID is {:?}; it has letters, digits, '_', '.' and '-', and begins \
                 with a letter or digit",
                self.container
            )));
        }
        if !is_ifname(&self.ifname) {
            return Err(wrong(format!(
                "CNI_IFNAME is {:?}; a name has 1 to {MAX_IFNAME} printable ASCII characters \
                 without '/', ':' and '%'",
                self.ifname
            )));
        }
        if self.command != Command::Del && !self.netns.starts_with('/') {
            return Err(wrong(format!("CNI_NETNS is {:?}, and not an absolute path", self.netns)));
        }
        Ok(())
    }
}

fn wrong(details: String) -> Failure {
    Failure::new(ENVIRONMENT, details)
}

fn is_container(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.bytes().all(is_good) && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn is_ifname(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    (1..=MAX_IFNAME).contains(&text.len()) && text.bytes().all(is_good) && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Failure> {
        Environment::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_command_has_what_it_needs() {
        let container = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        let with = |command, netns| {
            let more = [("CNI_COMMAND", command), ("CNI_NETNS", netns)];
            read(&[container.as_slice(), &more].concat()).map(|it| it.command)
        };
        assert_eq!(with("ADD", "/run/netns/a"), Ok(Command::Add));
        assert_eq!(with("DEL", ""), Ok(Command::Del));
        assert!(with("ADD", "").unwrap_err().details.contains("CNI_NETNS"));
        assert!(with("CHECK", "").is_err());
        assert_eq!(read(&[("CNI_COMMAND", "GC")]).map(|it| it.command), Ok(Command::Gc));
        let args = [("CNI_COMMAND", "STATUS"), ("CNI_ARGS", "A=b;K8S_POD_NAME=web=1;;c")];
        let args = read(&args).unwrap().args;
        assert_eq!(args.get("K8S_POD_NAME").map(String::as_str), Some("web=1"));
        assert_eq!(args.len(), 2);
    }

    #[test]
    fn mistakes_name_the_variable() {
        for (variables, name) in [
            (vec![], "CNI_COMMAND"),
            (vec![("CNI_COMMAND", "add")], "CNI_COMMAND"),
            (vec![("CNI_COMMAND", "DEL")], "CNI_CONTAINERID"),
            (vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "-a")], "CNI_CONTAINERID"),
            (vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a/b")], "CNI_CONTAINERID"),
            (vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a")], "CNI_IFNAME"),
        ] {
            let failure = read(&variables).unwrap_err();
            assert_eq!(failure.code, ENVIRONMENT);
            assert!(failure.details.contains(name), "{failure:?}");
        }
        for name in ["", "a/b", "a b", ".", "eth0:1", "sixteen_letters_"] {
            assert!(!is_ifname(name), "{name}");
        }
    }
}
