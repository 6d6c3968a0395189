//! `tramactl top` on a terminal: its keys, its size, and that the terminal is as before whatever
//! ends it.
#![cfg(test)]

mod terminal;

use rustix::process::Signal;
use terminal::Terminal;
use trama_clients::RunningDaemon;

/// Twelve ports.
fn lab() -> RunningDaemon {
    let port = |number| {
        format!(
            "[[port]]\nname = \"port{number:02}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{number}.sock\"\n"
        )
    };
    let ports: String = (1..=12).map(port).collect();
    RunningDaemon::start(&format!("[[network]]\nname = \"lab\"\n{ports}"))
}

#[test]
fn keys_sort_pause_scroll_and_quit() {
    let lab = lab();
    let mut terminal = Terminal::run(&lab, "top -d 0.1", (100, 8));
    terminal.wait_for("kicks/s");
    terminal.wait_for("port05");
    terminal.wait_for("workers busy:");
    terminal.wait_for("sort (by rx)");
    assert!(!terminal.shown().contains("port06"), "there is no room: {}", terminal.shown());
    terminal.press("s");
    terminal.wait_for("sort (by tx)");
    terminal.press("p");
    terminal.wait_for("(paused)");
    // What scrolls is drawn while it is paused, too.
    terminal.press("\x1b[B");
    terminal.wait_for("port06");
    terminal.press("\x1b[F");
    terminal.wait_for("port12");
    terminal.resize((100, 20));
    terminal.press("\x1b[H");
    terminal.wait_for("port01");
    assert_eq!(terminal.end("q"), (0, true));
}

#[test]
fn the_terminal_is_as_before_whatever_ends_it() {
    let lab = lab();
    for keys in ["\x03", "\x1b"] {
        let mut terminal = Terminal::run(&lab, "top", (100, 30));
        terminal.wait_for("q quit");
        assert_eq!(terminal.end(keys), (0, true), "{keys:?}");
    }
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut terminal = Terminal::run(&lab, "top", (100, 30));
        terminal.wait_for("q quit");
        terminal.signal(signal);
        assert_eq!(terminal.end(""), (status, true), "{signal:?}");
    }
}

#[test]
fn a_daemon_that_is_gone_is_told_below_the_table() {
    let lab = lab();
    let mut terminal = Terminal::run(&lab, "top -d 0.1", (100, 30));
    terminal.wait_for("q quit");
    drop(lab);
    terminal.wait_for("cannot reach tramad");
    assert!(terminal.shown().contains("port01"), "{}", terminal.shown());
    assert_eq!(terminal.end("q"), (0, true));
}

#[test]
fn no_terminal_is_taken_for_a_mistake_or_a_pipe() {
    let lab = lab();
    let refusal = lab.refused("top lap");
    assert!(refusal.contains("no bridge named lap; did you mean lab?"), "{refusal}");
    assert!(lab.refused("top -s size").contains("size"));
    let text = lab.ok("top -b -n 2 -d 0.1");
    assert_eq!(text.matches("port12").count(), 2, "{text}");
    assert!(!text.contains('\u{1b}') && text.contains("\n\nport "), "{text}");
    // Not a terminal; and a reader that has seen enough.
    let line = "top -d 0.1 | head -n 3 | wc -l";
    assert_eq!(lab.shell(line), "3\n");
}
