//! The commands in the documentation do what it says: each block that a page marks as run
//! ([`trama_structure::commands`]) runs in a namespace of its own, with the programs of this tree.

use trama_structure::commands::{Block, Command, Way, blocks, head};
use trama_structure::tree;
use trama_tests::tramad::binary;
use trama_tests::{Host, Netns};

/// Configurations of the daemons that blocks expect.
const DAEMON: &str = "[daemon]\ncontrol = \"/run/trama/control.sock\"\n";
const NETWORKS: &str = r#"
network = [
    { name = "lab", mode = "internal" },
    { name = "office", mode = "bridged", uplink = "eth0" },
]
port = [{ name = "vm1", network = "lab", type = "vhost-user" }]
"#;
const UPLINK: &str = "ip link add eth0 type veth peer name lan\nip link set eth0 up\n";
const NAT: &str = r#"
network = [{ name = "out", mode = "nat" }]
port = [{ name = "guest1", network = "out", type = "vhost-user" }]
"#;

/// Hides the folders of the machine's own daemon behind empty ones, for this script alone, and lets
/// curl show no progress.
const PREPARE: &str = "set -e\nmount -t tmpfs tmpfs /run\nmount -t tmpfs tmpfs /var/lib\ncd /run\n\
                       echo silent >.curlrc\nexport CURL_HOME=/run\n\
                       trap '[ $? = 0 ] || { echo \"failed: $command\"; cat log; }' EXIT\n";
const WAIT_FOR_DAEMON: &str =
    "for i in $(seq 600); do tramactl version >/dev/null 2>&1 && break; sleep 0.1; done\n";

/// Starts a daemon with this configuration.
fn daemon(configuration: &str) -> String {
    format!(
        "cat >trama.toml <<'END'\n{configuration}{DAEMON}END\ncommand=tramad\ntramad --config \
         trama.toml >log 2>&1 &\n{WAIT_FOR_DAEMON}"
    )
}

/// The script that a setup begins with.
fn begin(setup: &str, page: &[Block]) -> String {
    match setup {
        "page" => {
            let toml = page.iter().find(|block| block.language == "toml").expect("a TOML block");
            format!("cat >trama.toml <<'END'\n{}\nEND\n", toml.lines.join("\n"))
        }
        "empty" => daemon(""),
        "networks" => format!("command=eth0\n{UPLINK}{}", daemon(NETWORKS)),
        "nat" => daemon(NAT),
        "example" => format!("cd {}\n", tree::root().display()),
        "service" => String::new(),
        other => panic!("no setup {other}"),
    }
}

/// The script of one command.
fn run(block: &Block, command: &Command, setup: &str) -> String {
    let Command { line, text } = command;
    if command.is_outline() {
        return String::new();
    }
    let text = text.replace("sudo ", "").replace("target/release/", "");
    let place = format!("command={}:{line}\n", block.file);
    match setup {
        "service" => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let socket = words.windows(2).find(|pair| pair[0] == "--socket").expect("a socket")[1];
            format!(
                "{place}{text} &\nfor i in $(seq 600); do [ -S {socket} ] && break; sleep 0.1; \
                 done\n[ -S {socket} ]\nkill -0 $!\n"
            )
        }
        _ if text.ends_with('&') => format!("{place}{text}\n{WAIT_FOR_DAEMON}"),
        _ => format!("{place}{text}\n"),
    }
}

/// What the script prints before the output of each block.
const MARK: &str = "=== ";

/// Runs blocks one after another, and returns the output of each.
fn output(page: &[Block], session: &[&Block]) -> Vec<String> {
    let mut script = PREPARE.to_owned();
    for (index, block) in session.iter().enumerate() {
        let Some(Way::Run(setup)) = block.way() else { panic!("{block:?}") };
        if index == 0 {
            script += &begin(setup, page);
        }
        script += &format!("echo '{MARK}'\n");
        block.commands().iter().for_each(|command| script += &run(block, command, setup));
    }
    let path = binary("tramad");
    let folder = path.parent().expect("the folder of the programs").display();
    let netns = Netns::new("docs");
    let text = netns.run(&format!("PATH={folder}:$PATH\n{script}"));
    text.split(&format!("{MARK}\n")).skip(1).map(String::from).collect()
}

#[test]
fn the_commands_of_the_pages_succeed() {
    let (mut count, mut answers) = (0, 0);
    for (file, text) in tree::files("md") {
        let page = blocks(&file, &text);
        let runs = |block: &&Block| block.is_shell() && matches!(block.way(), Some(Way::Run(_)));
        let shell: Vec<&Block> = page.iter().filter(runs).collect();
        let sessions = shell.chunk_by(|_, next| next.way() == Some(Way::Run("continued")));
        let with_docker = |session: &&[&Block]| session[0].way() == Some(Way::Run("docker"));
        for session in sessions.filter(|session| !with_docker(session)) {
            for (block, output) in session.iter().zip(output(&page, session)) {
                count += block.commands().len();
                let after = page.iter().find(|other| other.line > block.line);
                let Some(answer) = after.filter(|other| other.language == "json") else { continue };
                let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
                let expected = json(&answer.lines.join("\n")).expect("JSON on the page");
                assert_eq!(json(&output), Some(expected), "{file}:{}: {output}", answer.line);
                answers += 1;
            }
        }
    }
    assert!(count >= 10 && answers >= 1, "{count} commands, {answers} answers");
}

#[test]
fn the_commands_of_the_examples_succeed() {
    let mut count = 0;
    for (file, text) in tree::files("toml") {
        let block = head(&file, &text);
        if file.starts_with("examples/") && !block.commands().is_empty() {
            output(&[], &[&block]);
            count += block.commands().len();
        }
    }
    assert!(count > 0);
}

#[test]
fn programs_know_the_options_of_the_pages() {
    let mut count = 0;
    for (file, text) in tree::files("md") {
        for block in blocks(&file, &text) {
            if block.way() != Some(Way::Parsed) {
                continue;
            }
            for command in block.commands().iter().filter(|command| command.program() != "make") {
                let text = command.text.split(" # ").next().expect("a command");
                let words = text.split_whitespace().skip_while(|word| !word.contains("trama"));
                let mut program = std::process::Command::new(binary(command.program()));
                let output = program.args(words.skip(1)).arg("--help").output().expect("a run");
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{file}:{}: {error}", command.line);
                count += 1;
            }
        }
    }
    assert!(count > 0);
}
