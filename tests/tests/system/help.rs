//! The examples of `tramactl help COMMAND`, and what it prints for VMMs.

use std::process::Stdio;

use trama_api::commands::{COMMANDS, CommandId};
use trama_tests::process::tied_command;
use trama_tests::tramad::binary;
use trama_tests::{SOON, Tramad, wait_until};

/// What the examples refer to.
const LAB: &str = r#"
network = [
    { name = "lab" },
    { name = "out", mode = "nat-network", subnet = "10.0.2.0/24",
      forward = ["ssh,tcp,127.0.0.1,2222,10.0.2.15,22"] },
]
port = [
    { name = "vm1", network = "lab", type = "vhost-user", path = "{dir}/vm1.sock" },
    { name = "trunk", network = "lab", type = "vhost-user", path = "{dir}/t.sock", trunks = [10] },
]
[daemon]
control = "{dir}/control.sock"
state = "{dir}/state"
"#;

#[test]
fn each_example_of_the_help_is_taken() {
    let tramad = Tramad::start(LAB);
    tramad.wait_for_gateway("out");
    // What can be detached is in no file.
    tramad.ctl("add-port lab web ephemeral=true -- set Interface web type=vhost-user");
    let before = tramad.configuration();
    // An upgrade replaces the daemon; its own tests do that.
    let commands = COMMANDS.iter().filter(|command| command.id != CommandId::Upgrade);
    for example in commands.flat_map(|command| command.id.help().examples) {
        let words: Vec<&str> = example.split_whitespace().collect();
        // What an example adds may be there for another one.
        let first = match words.as_slice() {
            [.., "add-br", name] => vec!["--if-exists", "del-br", name, "--"],
            ["add-br", name, ..] => vec!["--if-exists", "del-br", name, "--"],
            ["add-port", _, name, ..] => vec!["--if-exists", "del-port", name, "--"],
            _ => Vec::new(),
        };
        let dry = if example.contains("reload") { [].as_slice() } else { &["--dry-run"] };
        let answer = tramad.try_ctl(&[dry, &first, &words].concat());
        assert_eq!(answer.status, 0, "{example}: {}", answer.text);
    }
    assert_eq!(tramad.configuration(), before);
    tramad.stop();
}

#[test]
fn what_qemu_is_given_attaches_it() {
    let tramad = Tramad::start(
        "network = [{ name = \"lab\" }]\n\
         port = [{ name = \"vm1\", network = \"lab\", type = \"vhost-user\", queues = 2, \
         path = \"{dir}/vm1.sock\" }]\n\
         [daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n",
    );
    let arguments = tramad.ctl("qemu vm1");
    let mut command = tied_command("qemu-system-x86_64");
    // Devices are made and connected, and the guest does not run.
    command.args(["-S", "-nodefaults", "-display", "none"]).args(arguments.split_whitespace());
    let mut qemu = command.stdin(Stdio::null()).spawn().expect("run QEMU");
    wait_until("QEMU is connected", SOON, || {
        let state = tramad.ctl("get Interface vm1 status:state");
        assert!(qemu.try_wait().expect("a child").is_none(), "QEMU refuses {arguments}");
        (state.trim() == "connected").then_some(())
    });
    qemu.kill().expect("its end");
    qemu.wait().expect("its end");
    tramad.stop();
}

#[test]
fn the_manual_has_each_option_of_the_programs() {
    let folder = trama_structure::tree::root().join("packaging/man");
    for program in ["tramad", "trama-vhost-net"] {
        let page = std::fs::read_to_string(folder.join(format!("{program}.8.md"))).expect("a page");
        let help = tied_command(binary(program)).arg("--help").output().expect("run it").stdout;
        let help = String::from_utf8_lossy(&help).into_owned();
        let options: Vec<&str> = help
            .split_whitespace()
            .map(|word| {
                word.trim_matches(|letter: char| !letter.is_alphanumeric() && letter != '-')
            })
            .filter(|word| word.starts_with("--") && word.len() > 2)
            .collect();
        assert!(options.len() > 3, "{help}");
        for option in options {
            assert!(page.contains(&format!("**{option}**")), "{program}.8.md lacks {option}");
        }
    }
}
