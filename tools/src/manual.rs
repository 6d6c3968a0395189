//! The manual page, in roff: what clap knows of the options, and a section for each group of
//! commands.

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use trama_api::commands::{COMMANDS, CommandOption, Group, Help};

use crate::cli;
use crate::help::{EXIT_STATUS, LOCAL};

/// The files that matter, each with what it is.
const FILES: [(&str, &str); 4] = [
    ("/run/trama/control.sock", "the control socket of the system's daemon"),
    ("$XDG_RUNTIME_DIR/trama/control.sock", "that of the user's, which is looked for first"),
    ("/etc/trama/trama.toml", "the configuration, into which changes are written"),
    ("/usr/lib/trama/ovs", "this program under the names of Open vSwitch's commands, for PATH"),
];

/// Pages that say more, with their sections.
const SEE_ALSO: [(&str, &str); 3] = [("tramad", "8"), ("trama.toml", "5"), ("ovs-vsctl", "8")];

/// Returns the page.
pub(crate) fn page() -> String {
    let man = Man::new(cli::base()).manual("trama").date("");
    let mut head = Vec::new();
    // Writing to memory does not fail.
    let _ = man.render_title(&mut head);
    let _ = man.render_name_section(&mut head);
    let _ = man.render_synopsis_section(&mut head);
    let _ = man.render_description_section(&mut head);
    let mut options = Vec::new();
    let _ = man.render_options_section(&mut options);
    let mut rest = Roff::new();
    commands(&mut rest);
    section(&mut rest, "EXIT STATUS", &EXIT_STATUS);
    section(
        &mut rest,
        "ENVIRONMENT",
        &[("TRAMA_SOCKET", "the control socket, unless --socket names one")],
    );
    section(&mut rest, "FILES", &FILES);
    examples(&mut rest);
    rest.control("SH", ["SEE ALSO"]);
    for (index, (name, number)) in SEE_ALSO.into_iter().enumerate() {
        let end = if index + 1 < SEE_ALSO.len() { ", " } else { "" };
        rest.text([bold(name), roman(format!("({number}){end}"))]);
    }
    let parts = [head, options].map(|part| String::from_utf8_lossy(&part).into_owned());
    parts.concat() + &rest.to_roff()
}

/// A list of terms, each with its meaning.
fn section(page: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    page.control("SH", [heading]);
    for (term, meaning) in entries {
        entry(page, vec![bold(*term)]);
        page.text([roman(*meaning)]);
    }
}

fn entry(page: &mut Roff, term: Vec<Inline>) {
    page.control("TP", []);
    page.text(term);
}

/// All commands in their groups.
fn commands(page: &mut Roff) {
    page.control("SH", ["COMMANDS"]);
    page.text([roman(
        "Several commands joined by -- are one transaction, done as a whole or not at all. A \
         bridge is a network. Options of a command precede its name.",
    )]);
    for group in Group::ALL {
        page.control("SS", [group.heading()]);
        for command in COMMANDS.iter().filter(|it| it.id.help().group == group) {
            one(page, (command.name, command.arguments), command.options, command.id.help());
        }
        for local in LOCAL.iter().filter(|it| it.help.group == group) {
            one(page, (local.name, local.arguments), &[], local.help);
        }
    }
}

fn one(page: &mut Roff, (name, arguments): (&str, &str), options: &[CommandOption], help: Help) {
    let mut term = Vec::new();
    for option in options {
        let value = option.value.map(|value| format!("={value}")).unwrap_or_default();
        term.extend([roman("["), bold(option.name), italic(value), roman("] ")]);
    }
    term.extend([bold(name), roman(" "), italic(arguments)]);
    entry(page, term);
    page.text([roman(summary(name)), roman(". "), roman(help.text)]);
    for example in help.examples {
        page.control("br", []);
        page.text([roman("tramactl "), roman(example)]);
    }
}

fn summary(name: &str) -> &'static str {
    let of_daemon = COMMANDS.iter().map(|it| (it.name, it.summary));
    let mut all = of_daemon.chain(LOCAL.iter().map(|it| (it.name, it.summary)));
    all.find(|(known, _)| *known == name).map_or("", |(_, summary)| summary)
}

/// A network from its beginning, as several transactions.
fn examples(page: &mut Roff) {
    page.control("SH", ["EXAMPLES"]);
    for (what, line) in [
        (
            "A network with NAT, and a port for a virtual machine:",
            "tramactl add-br lab -- set Bridge lab mode=nat-network subnet=10.0.2.0/24 \
             -- add-port lab vm1 -- set Interface vm1 type=vhost-user",
        ),
        ("What QEMU is given for that port:", "tramactl qemu vm1"),
        ("The port in VLAN 10:", "tramactl set Port vm1 tag=10"),
        ("What there is:", "tramactl show"),
    ] {
        page.text([roman(what)]);
        page.control("PP", []);
        page.control("RS", ["4"]);
        page.text([roman(line)]);
        page.control("RE", []);
        page.control("PP", []);
    }
}
