//! `tramactl` without a daemon: help, completions, manual page, and sockets that are no daemon's.
#![cfg(test)]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use trama_api::commands::COMMANDS;

/// What `tramactl` printed and how it ended.
#[derive(Debug)]
struct Outcome {
    out: String,
    err: String,
    /// Exit status; -1 = killed.
    exit: i32,
}

/// Runs `tramactl` with the words of `line` against this control socket.
fn tramactl(socket: &str, line: &str) -> Outcome {
    let mut command = Command::new(cargo_bin("tramactl"));
    let output =
        command.env("TRAMA_SOCKET", socket).args(line.split_whitespace()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        out: text(&output.stdout),
        err: text(&output.stderr),
        exit: output.status.code().unwrap_or(-1),
    }
}

#[test]
fn help_completions_and_manual_know_every_command() {
    let help = tramactl("/nonexistent", "--help");
    assert_eq!(help.exit, 0);
    assert_eq!(tramactl("/nonexistent", "help").exit, 0);
    let man = tramactl("/nonexistent", "man");
    assert!(man.exit == 0 && man.out.contains(".TH tramactl"), "{}", man.err);
    for command in &COMMANDS {
        assert!(help.out.contains(&command.usage()), "{}", command.name);
        assert!(help.out.contains(command.summary), "{}", command.name);
        let man = man.out.replace('\\', "");
        assert!(man.contains(command.name) && man.contains(command.id.help().text));
        for example in command.id.help().examples {
            assert!(man.contains(example), "{}: {example}", command.name);
        }
    }
    for shell in ["bash", "fish", "zsh"] {
        let script = tramactl("/nonexistent", &format!("completions {shell}"));
        assert_eq!(script.exit, 0, "{shell}");
        assert!(script.out.contains("tramactl complete"), "{shell}");
    }
    assert_eq!(tramactl("/nonexistent", "completions tcsh").exit, 1);
    assert_eq!(tramactl("/nonexistent", "completions").exit, 1);
    assert_eq!(
        tramactl("/nonexistent", "--version").out,
        format!("tramactl {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn each_command_has_a_page_of_its_own() {
    for command in &COMMANDS {
        let page = tramactl("/nonexistent", &format!("help {}", command.name));
        assert_eq!(page.exit, 0, "{}", page.err);
        let asked = tramactl("/nonexistent", &format!("{} --help", command.name));
        assert_eq!(asked.out, page.out);
        assert!(page.out.contains(&command.usage()), "{}", page.out);
        for option in command.options {
            assert!(page.out.contains(option.summary), "{}", page.out);
        }
        let after = page.out.split_once("Examples:\n").expect("examples").1;
        assert_eq!(after.matches("  tramactl ").count(), 3, "{after}");
        assert!(after.contains("\nSee also: "), "{after}");
    }
    let wrong = tramactl("/nonexistent", "help add-prot");
    assert_eq!(wrong.exit, 1);
    let meant = "tramactl: there is no command \"add-prot\"; did you mean add-port?\n";
    assert_eq!(wrong.err, meant);
    let joined = tramactl("/nonexistent", "list-br -- set --help");
    assert!(joined.exit == 0 && joined.out.contains("TABLE RECORD COLUMN"), "{joined:?}");
}

#[test]
fn under_a_name_of_open_vswitch_its_options_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, line: &str| {
        let path = dir.path().join(name);
        let _ = std::os::unix::fs::symlink(cargo_bin("tramactl"), &path);
        let words = line.split_whitespace();
        let output = Command::new(path).env("TRAMA_SOCKET", "/none").args(words).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let options = "--db=unix:/x --no-wait --no-syslog --verbose=off -v -vconsole:off --log-file \
                   --retry";
    let vsctl = run("ovs-vsctl", &format!("{options} --timeout=5 list-br"));
    assert!(vsctl.starts_with("ovs-vsctl: cannot reach tramad at /none"), "{vsctl}");
    let appctl = run("ovs-appctl", "-t ovs-vswitchd fdb/show lab");
    assert!(appctl.starts_with("ovs-appctl: cannot reach tramad at /none"), "{appctl}");
    assert!(run("ovs-appctl", "exit").contains("systemctl stop trama"));
}

#[test]
fn without_a_daemon_the_remedy_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let missing = tramactl("", &format!("--socket {} show", socket.display()));
    assert_eq!((missing.exit, missing.out.as_str()), (1, ""));
    for part in ["cannot reach tramad at", "is tramad running?", "--socket", "TRAMA_SOCKET"] {
        assert!(missing.err.contains(part), "{}", missing.err);
    }
    drop(UnixListener::bind(&socket).unwrap());
    let dead = tramactl(&socket.display().to_string(), "show");
    assert!(dead.exit == 1 && dead.err.contains("is tramad running?"), "{dead:?}");
}

#[test]
fn a_socket_that_answers_nothing_or_nonsense_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("other.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let path = socket.display().to_string();
    let silent = tramactl(&path, "-t 1 show");
    assert!(silent.exit == 1 && silent.err.contains("no answer from"), "{silent:?}");
    assert!(silent.err.contains("within 1 s"), "{silent:?}");
    drop(listener.accept());
    for (answer, part) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", "is it the control socket"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "another version"),
        ("SSH-2.0-OpenSSH\r\n", "lost the connection"),
    ] {
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]);
                stream.write_all(answer.as_bytes()).unwrap();
            });
            tramactl(&path, "show")
        });
        assert!(outcome.exit == 1 && outcome.err.contains(part), "{outcome:?}");
    }
}

#[test]
fn a_mistake_is_one_line_with_what_was_meant() {
    for (line, said) in [
        ("lst-br", "unknown command 'lst-br'; did you mean list-br?"),
        ("--if-exists del-prot lab", "unknown command 'del-prot'; did you mean del-port?"),
        ("--columns name lst Port", "unknown command 'lst'; did you mean list?"),
        ("list-br -- qmeu vm1", "unknown command 'qmeu'; did you mean qemu?"),
        ("dance", "unknown command 'dance'; use --help for help"),
        (
            "list-br -- qemu vm1",
            "'qemu' stands alone, without options of commands; write it as: qemu PORT",
        ),
        ("help dance", "there is no command \"dance\"; tramactl help lists all"),
        (
            "--format-of=json show",
            "unexpected argument '--format-of' found; a similar argument exists: '--format'",
        ),
        ("--zzz show", "unexpected argument '--zzz' found; tramactl --help lists the options"),
    ] {
        let outcome = tramactl("/nonexistent", line);
        assert_eq!((outcome.exit, outcome.err), (1, format!("tramactl: {said}\n")), "{line}");
    }
}
