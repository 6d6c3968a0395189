//! What a user's shell offers after the words that were typed.

use std::process::Command;

use trama_tests::Tramad;
use trama_tests::tramad::binary;

const LAB: &str = "network = [{ name = \"lab\" }, { name = \"lan\" }]\n\
    port = [{ name = \"vm1\", network = \"lab\", type = \"vhost-user\", path = \"{dir}/1.sock\" },\n\
    { name = \"host1\", type = \"tap\", cable = false }]\n\
    [daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n";

/// How long a shell may take, in seconds.
const LIMIT: &str = "30";

/// Types into zsh on a terminal of its own, and prints what the terminal shows then.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -Uz compinit; compinit -u -D; source <(tramactl completions zsh); echo rea""dy'
zpty -r shell shown '*ready*'
zpty -w -n shell "$LINE"$'\t'
zpty -r shell shown "*$WANTED*"
print -r -- "$shown"
"#;

/// What a shell offers in place of the last word.
fn offered(tramad: &Tramad, shell: &str, line: &str, wanted: &str) -> String {
    let script = match shell {
        "bash" => {
            "source <(tramactl completions bash); COMP_LINE=$LINE COMP_POINT=${#LINE}; \
             _tramactl; printf '%s\\n' \"${COMPREPLY[@]}\""
        }
        "fish" => "source (tramactl completions fish | psub); complete -C $LINE",
        _ => ZSH,
    };
    let program = binary("tramactl");
    let folder = program.parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("timeout")
        .args([LIMIT, shell, "-c", script])
        .env("PATH", format!("{folder}:{path}"))
        .env("TRAMA_SOCKET", tramad.path("control.sock"))
        .envs([("LINE", line), ("WANTED", wanted), ("TERM", "dumb")])
        .output()
        .expect("run the shell");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shell}: {line}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn shells_offer_commands_and_the_daemons_names() {
    let tramad = Tramad::start(LAB);
    for shell in ["bash", "fish", "zsh"] {
        for (line, wanted) in [
            ("tramactl list-p", "list-ports"),
            ("tramactl del-br lab", "lab"),
            ("tramactl del-port v", "vm1"),
            ("tramactl completions z", "zsh"),
        ] {
            let offered = offered(&tramad, shell, line, wanted);
            assert!(offered.contains(wanted), "{shell}: {line}: {offered}");
        }
    }
    let networks = offered(&tramad, "bash", "tramactl del-br ", "");
    assert_eq!(networks, "lab\nlan\n");
    // What can follow: ports of the bridge, ports that a VMM can use, words of a column.
    for (line, wanted) in [
        ("tramactl del-port lan ", "\n"),
        ("tramactl del-port lab ", "vm1\n"),
        ("tramactl qemu ", "vm1\n"),
        ("tramactl set Port vm1 vlan_mode=tr", "trunk\n"),
        ("tramactl set Port vm1 network=", "lab\nlan\n"),
    ] {
        assert_eq!(offered(&tramad, "bash", line, ""), wanted, "{line}");
    }
    let modes = offered(&tramad, "fish", "tramactl set Port vm1 vlan_mode=tr", "");
    assert_eq!(modes, "vlan_mode=trunk\n");
    let columns = offered(&tramad, "fish", "tramactl set Port vm1 ta", "");
    assert_eq!(columns, "tag=\n");
    tramad.stop();
}
