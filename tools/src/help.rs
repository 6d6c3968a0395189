//! Help: an overview of the commands, and a page for each.

use trama_api::commands::{self, COMMANDS, Command, Group, Help, Words};
use trama_api::nearest::suggestion;

/// What the exit statuses mean.
pub(crate) const EXIT_STATUS: [(&str, &str); 6] = [
    ("0", "success"),
    ("1", "refused; nothing has changed"),
    ("2", "br-exists: no such bridge"),
    ("4", "explain: no port would get the frame"),
    ("65", "stored, but does not run, or not as stored"),
    ("142", "wait-until: the conditions did not hold in time"),
];

/// A command that tramactl carries out itself.
pub(crate) struct Local {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, as shown in help.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    pub help: Help,
}

/// Commands that need no transaction.
pub(crate) const LOCAL: [Local; 18] = [
    Local {
        name: "qemu",
        arguments: "PORT",
        summary: "Print the arguments by which QEMU attaches a guest to a port",
        help: Help {
            group: Group::Vmms,
            text: "A vhost-user port needs the guest's memory to be shared: change both sizes alike. Ports of type stream and dgram need no shared memory. QEMU before 9.2 has reconnect=1 in place of reconnect-ms=1000.",
            examples: ["qemu vm1", "-t 1 qemu vm1", "--socket /run/trama/control.sock qemu vm1"],
            see_also: &["libvirt", "add-port"],
        },
    },
    Local {
        name: "libvirt",
        arguments: "PORT",
        summary: "Print the elements of a libvirt domain that attach it to a port",
        help: Help {
            group: Group::Vmms,
            text: "memoryBacking belongs below domain, interface below devices. The domain's user needs access to the socket.",
            examples: [
                "libvirt vm1",
                "-t 1 libvirt vm1",
                "--socket /run/trama/control.sock libvirt vm1",
            ],
            see_also: &["qemu", "add-port"],
        },
    },
    Local {
        name: "cloud-hypervisor",
        arguments: "PORT",
        summary: "Print the arguments by which Cloud Hypervisor attaches a guest",
        help: Help {
            group: Group::Vmms,
            text: "The guest's memory must be shared; change its size to what the guest needs.",
            examples: [
                "cloud-hypervisor vm1",
                "-t 1 cloud-hypervisor vm1",
                "--socket /run/trama/control.sock cloud-hypervisor vm1",
            ],
            see_also: &["qemu", "add-port"],
        },
    },
    Local {
        name: "crosvm",
        arguments: "PORT",
        summary: "Print the arguments by which crosvm attaches a guest to a port",
        help: Help {
            group: Group::Vmms,
            text: "crosvm shares its guest's memory by itself, and chooses the address of the device.",
            examples: [
                "crosvm vm1",
                "-t 1 crosvm vm1",
                "--socket /run/trama/control.sock crosvm vm1",
            ],
            see_also: &["qemu", "add-port"],
        },
    },
    Local {
        name: "lima",
        arguments: "PORT",
        summary: "Print the lines by which lima attaches a guest to a stream port",
        help: Help {
            group: Group::Vmms,
            text: "They belong into the file of an instance with the VM type qemu.",
            examples: ["lima vm1", "-t 1 lima vm1", "--socket /run/trama/control.sock lima vm1"],
            see_also: &["qemu", "add-port"],
        },
    },
    Local {
        name: "attach",
        arguments: "NETWORK PORT [--netns PATH|PID] [--ifname NAME] [--address A/N]... [--lease] [--name NAME]... [--mac M] [--gateway A]... [COLUMN=VALUE]...",
        summary: "Make an interface in a network namespace, with the caller's rights, and attach it",
        help: Help {
            group: Group::Networks,
            text: "The interface is called eth0 unless --ifname is given. With --lease the daemon chooses the addresses that no --address gives; the network's DNS answers each --name with them. The port is in no file, and ends with the interface, its namespace, or the daemon.",
            examples: [
                "attach lab web --netns 4711 --address 10.1.0.7/24 --gateway 10.1.0.1",
                "attach lab web --netns red --lease --name web --name db tag=20",
                "attach lab web --netns /run/docker/netns/1a2b3c --mac 52:54:00:00:00:07",
            ],
            see_also: &["detach", "add-port"],
        },
    },
    Local {
        name: "approve",
        arguments: "NAME...",
        summary: "Allow the daemon interfaces, sockets and addresses of these names; for root",
        help: Help {
            group: Group::Daemon,
            text: "What a user of the control socket configures and what reaches other people's \
                   traffic does not run before root approves it.",
            examples: ["approve eth0", "approve /run/vms/vm1.sock", "approve 192.0.2.7/24"],
            see_also: &["show", "reload"],
        },
    },
    Local {
        name: "explain",
        arguments: "PORT dst=MAC [src=MAC] [vlan=N] [len=N] [type=N] [ip=A>B] [proto=tcp|udp|icmp] [port=N] | PORT HEX|- | --last PORT [REASON]",
        summary: "Say what would happen to a frame that a port's machine sends",
        help: Help {
            group: Group::State,
            text: "The code that switches frames is asked, and the rules of the network's gateway; nothing is sent, learned or counted. With --last it says which frame was dropped last at the port. Exit 4 if no port would get the frame.",
            examples: [
                "explain vm1 dst=52:54:00:00:00:02",
                "explain vm1 dst=ff:ff:ff:ff:ff:ff vlan=20 type=0x0806",
                "explain --last vm1 vlan_not_allowed",
            ],
            see_also: &["counters", "fdb/show"],
        },
    },
    Local {
        name: "doctor",
        arguments: "[--fix]",
        summary: "Look for what keeps networks from working, on the host and in the daemon",
        help: Help {
            group: Group::State,
            text: "Prints a line for each check: ok, note, warn or FAIL, with a remedy; exits with 1 \
                   after a FAIL. Changes nothing; --fix runs the commands of those remedies that are \
                   a setting of the kernel. Works without a daemon, too.",
            examples: ["doctor", "doctor --fix", "-f json doctor"],
            see_also: &["show", "counters"],
        },
    },
    Local {
        name: "tcpdump",
        arguments: "[PORT|BRIDGE|any]... [FILTER]... [-w FILE] [-c N] [-s SNAPLEN] [-Q in|out|inout] [--drops[=REASON,...]] [--no-frames] [--last TIME] [-e] [-n]",
        summary: "Show or save the frames that pass ports, and why frames were dropped",
        help: Help {
            group: Group::State,
            text: "A port is seen from its machine: in is what that sends. Of a bridge and of any, \
                   each frame is seen once, where it enters. Without -w a line is printed for each \
                   frame, in tcpdump's words; -w writes pcapng, -w - to standard output. --drops \
                   adds dropped frames with their reason, --no-frames leaves out the others. \
                   --last begins with the frames of the last TIME, such as 30s or 5m, if the \
                   daemon keeps them (capture-ring). The filter has the words of tcpdump, and \
                   drop REASON. ^C ends it.",
            examples: [
                "tcpdump vm1 -e tcp port 80",
                "tcpdump lab -w lab.pcapng --drops --last 30s",
                "tcpdump any --drops --no-frames -c 10",
            ],
            see_also: &["extcap", "counters"],
        },
    },
    Local {
        name: "top",
        arguments: "[BRIDGE] [-d SECONDS] [-b [-n N]] [-s rx|tx|drops|name]",
        summary: "Show what passes each port now, again and again",
        help: Help {
            group: Group::State,
            text: "A line for each port: bits and frames a second, drops with the reason of most of \
                   them, how often its driver woke the switch (kicks) and was woken (calls). The \
                   last line has the time that workers are busy, and the flows of NAT. Keys: q \
                   quits, s sorts, p pauses, arrows scroll. -b prints text, as does a pipe; -n ends \
                   it after N tables.",
            examples: ["top", "top lab -s drops", "top -b -n 2 -d 5"],
            see_also: &["counters", "tcpdump"],
        },
    },
    Local {
        name: "web",
        arguments: "",
        summary: "Print a link that opens the page of the networks in a browser",
        help: Help {
            group: Group::State,
            text: "The page shows who is where, who talks, and what is wrong. It is off unless web \
                   is set in [daemon]; with web-write it can also change ports and forwards. The \
                   link opens one session, within two minutes.",
            examples: ["web", "-t 5 web", "--socket /run/trama/control.sock web"],
            see_also: &["top", "observe"],
        },
    },
    Local {
        name: "observe",
        arguments: "[-f] [--since TIME] [--type TYPE,...] [--port PORT] [--network NETWORK] [--to CIDR|NAME] [-n COUNT] [-o text|json]",
        summary: "Print what happens: flows, drops, names, leases, links, refusals, changes",
        help: Help {
            group: Group::State,
            text: "Prints the events that are kept, and with -f those that follow; -f alone begins \
                   now. TYPE is flow, drop, dns, dhcp, link, policy or config, TIME such as 5m. -n \
                   prints the last COUNT of those that are kept. If tramad is restarted, -f goes on \
                   with the next one. A line says how many events were missed, if some were.",
            examples: [
                "observe -f --port vm1",
                "observe --since 5m --type drop,policy",
                "observe -f --to example.com -o json",
            ],
            see_also: &["tcpdump", "flows"],
        },
    },
    Local {
        name: "extcap",
        arguments: "install",
        summary: "Let this user's Wireshark capture at ports",
        help: Help {
            group: Group::State,
            text: "Links this program as trama-extcap into the user's folders of Wireshark. The \
                   package has done so for all users.",
            examples: ["extcap install", "help tcpdump", "extcap --help"],
            see_also: &["tcpdump"],
        },
    },
    Local {
        name: "completions",
        arguments: "SHELL",
        summary: "Print completions for bash, fish or zsh",
        help: Help {
            group: Group::Daemon,
            text: "They know the names of networks and ports. Packages install them; this is for a copy that was built by hand.",
            examples: ["completions bash", "completions zsh", "completions fish"],
            see_also: &["man"],
        },
    },
    Local {
        name: "help",
        arguments: "[COMMAND]",
        summary: "Print all commands, or what one does, with examples",
        help: Help {
            group: Group::Daemon,
            text: "Needs no daemon. COMMAND --help prints the same.",
            examples: ["help", "help add-port", "add-port --help"],
            see_also: &["man"],
        },
    },
    Local {
        name: "list-commands",
        arguments: "",
        summary: "Print the usage of each command, for scripts",
        help: Help {
            group: Group::Compatibility,
            text: "Needs no daemon.",
            examples: ["list-commands", "help", "help add-port"],
            see_also: &["help", "man"],
        },
    },
    Local {
        name: "man",
        arguments: "",
        summary: "Print the manual page, for man -l -",
        help: Help {
            group: Group::Daemon,
            text: "Packages install it; this is for a copy that was built by hand.",
            examples: ["man", "man --help", "help"],
            see_also: &["help", "completions"],
        },
    },
];

impl Local {
    /// Name and arguments, as typed.
    pub(crate) fn usage(&self) -> String {
        format!("{} {}", self.name, self.arguments).trim_end().to_owned()
    }
}

/// All commands in groups, with a line for each.
pub(crate) fn overview() -> String {
    let mut text = String::from(
        "Commands; several joined by -- are one transaction, done as a whole or not at all. A \
         bridge is a network. `tramactl help COMMAND` prints options and examples.\n",
    );
    for group in Group::ALL {
        text.push_str(&format!("\n{}:\n", group.heading()));
        let of_daemon = COMMANDS.iter().filter(|it| it.id.help().group == group);
        let local = LOCAL.iter().filter(|it| it.help.group == group);
        let lines = of_daemon
            .map(|it| (it.usage(), it.summary))
            .chain(local.map(|it| (it.usage(), it.summary)));
        for (usage, summary) in lines {
            text.push_str(&format!("  {usage}\n          {summary}\n"));
        }
    }
    text.push_str("\nExit status:");
    for (status, meaning) in EXIT_STATUS {
        text.push_str(&format!("\n  {status:<4}{meaning}"));
    }
    text
}

/// The usage of each command, one a line.
pub(crate) fn names() -> String {
    let all = COMMANDS.iter().map(Command::usage).chain(LOCAL.iter().map(Local::usage));
    all.map(|usage| usage + "\n").collect()
}

/// The help of the command of this name.
///
/// # Errors
/// There is no such command.
pub(crate) fn page(name: &str) -> Result<String, String> {
    if let Some(command) = COMMANDS.iter().find(|command| command.name == name) {
        return Ok(render(&command.usage(), command.summary, &options(command), command.id.help()));
    }
    if let Some(local) = LOCAL.iter().find(|local| local.name == name) {
        return Ok(render(&local.usage(), local.summary, "", local.help));
    }
    let names = COMMANDS.iter().map(|command| command.name);
    let known: Vec<&str> = names.chain(LOCAL.iter().map(|local| local.name)).collect();
    Err(match suggestion(name, &known) {
        near if near.is_empty() => {
            format!("there is no command {name:?}; tramactl help lists all")
        }
        near => format!("there is no command {name:?}{near}"),
    })
}

/// Checks that the daemon has a command.
///
/// # Errors
/// It has none of this name, and perhaps one of a similar name.
pub(crate) fn check_name(words: &[String]) -> Result<(), String> {
    // The daemon says what is wrong with words that have no name.
    let Ok(Words { name, .. }) = Words::of(words) else { return Ok(()) };
    if commands::find(name).is_some() {
        return Ok(());
    }
    let local: Vec<&str> = LOCAL.iter().map(|local| local.name).collect();
    match LOCAL.iter().find(|local| local.name == name) {
        Some(local) => Err(format!(
            "'{name}' stands alone, without options of commands; write it as: {}",
            local.usage()
        )),
        None => Err(commands::unknown(name, &local)),
    }
}

fn options(command: &Command) -> String {
    let lines = command.options.iter().map(|option| {
        let value = option.value.map(|value| format!("={value}")).unwrap_or_default();
        format!("  {}{value}\n          {}\n", option.name, option.summary)
    });
    lines.collect()
}

fn render(usage: &str, summary: &str, options: &str, help: Help) -> String {
    let mut text = format!("Usage: tramactl [OPTIONS] {usage}\n\n{summary}.\n{}\n", help.text);
    if !options.is_empty() {
        text.push_str(&format!("\nOptions, before the command's name:\n{options}"));
    }
    text.push_str("\nExamples:\n");
    for example in help.examples {
        text.push_str(&format!("  tramactl {example}\n"));
    }
    text.push_str(&format!("\nSee also: {}\n", help.see_also.join(", ")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_refers_to_exists() {
        let commands = COMMANDS.iter().map(|it| (it.name, it.id.help()));
        for (name, help) in commands.chain(LOCAL.iter().map(|it| (it.name, it.help))) {
            for other in help.see_also {
                assert!(page(other).is_ok() && *other != name, "{name}: {other}");
            }
            assert!(page(name).unwrap().contains(help.text), "{name}");
            assert!(help.text.ends_with('.'), "{name}");
        }
    }
}
