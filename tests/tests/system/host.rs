//! Changes of the host around the daemon: namespaces deleted and recreated under their names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use trama_tests::nat::tap_port;
use trama_tests::{Host, Netns, Pinging, Tramad, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Runs a command on the test's own host, which must succeed.
#[track_caller]
fn run(words: &str) {
    let mut words = words.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect("run a program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A symbolic link below `/run/netns`, removed when dropped.
struct Link(PathBuf);

impl Link {
    fn new(of: &Netns) -> Link {
        Link(format!("{}-link", of.path()).into())
    }

    fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).expect("a name")
    }

    /// Replaces it atomically, as `ln -sfT` does.
    fn point_to(&self, netns: &Netns) {
        let draft = self.0.with_extension("new");
        symlink(netns.path(), &draft).expect("symbolic link");
        fs::rename(&draft, &self.0).expect("rename");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[track_caller]
fn wait_for_error(tramad: &Tramad, port: &str, text: &str) {
    wait_until(&format!("{port} says: {text}"), SOON, || {
        tramad.ctl(&format!("get Interface {port} error")).contains(text).then_some(())
    });
}

#[test]
fn a_port_follows_the_name_of_its_namespace() {
    let [lab, other, left, right] = ["lab", "other", "left", "right"].map(Netns::new);
    let link = Link::new(&lab);
    link.point_to(&other);
    let mut text = "[[network]]\nname = \"net\"\n".to_owned();
    for (port, netns, number) in [("a", &lab, 1), ("b", &lab, 2), ("l", &left, 3), ("r", &right, 4)]
    {
        text += &tap_port("net", port, netns, &format!("address = \"10.1.0.{number}/24\""));
    }
    text += &format!(
        "\n[[port]]\nname = \"s\"\nnetwork = \"net\"\ntype = \"tap\"\nnetns = \"{}\"\n\
         address = \"10.1.0.5/24\"\n",
        link.name()
    );
    let mut tramad = Tramad::start(&text);
    let bystanders = Pinging::start(&left, "10.1.0.4", 0.01);
    for address in ["10.1.0.1", "10.1.0.2", "10.1.0.5"] {
        right.wait_for_ping(address, SOON);
    }

    // Deleted: its ports report it, and come up when the name exists again.
    run(&format!("ip netns del {}", lab.name()));
    for port in ["a", "b"] {
        wait_for_error(&tramad, port, "create it first with `ip netns add`");
    }
    assert_eq!(tramad.ctl("get Interface a link_state").trim(), "down");
    run(&format!("ip netns add {}", lab.name()));
    for address in ["10.1.0.1", "10.1.0.2"] {
        right.wait_for_ping(address, SOON);
    }
    lab.run(
        "ip -o addr show dev a | grep -q 10.1.0.1/24 && \
         ip -o addr show dev b | grep -q 10.1.0.2/24",
    );

    // Deleted and recreated at once.
    run(&format!("ip netns del {}", lab.name()));
    run(&format!("ip netns add {}", lab.name()));
    wait_until("both are in the new one", SOON, || {
        (lab.try_run("ip link show a && ip link show b").status == 0).then_some(())
    });
    right.wait_for_ping("10.1.0.1", SOON);

    // Another namespace is mounted over it, and unmounted.
    run(&format!("mount --bind {} {}", other.path(), lab.path()));
    wait_until("both are in the other one", SOON, || {
        (other.try_run("ip link show a && ip link show b").status == 0).then_some(())
    });
    run(&format!("umount {}", lab.path()));
    wait_until("both are back", SOON, || {
        (lab.try_run("ip link show a && ip link show b").status == 0).then_some(())
    });
    right.wait_for_ping("10.1.0.2", SOON);

    // A symbolic link changes its target.
    link.point_to(&left);
    wait_until("the port is at the link's new end", SOON, || {
        (left.try_run("ip -o addr show dev s | grep 10.1.0.5/24").status == 0).then_some(())
    });

    // A device deleted in its namespace is recreated.
    lab.run("ip link del dev a");
    wait_until("the device is back", SOON, || {
        (lab.try_run("ip -o addr show dev a | grep 10.1.0.1/24").status == 0).then_some(())
    });
    right.wait_for_ping("10.1.0.1", SOON);
    bystanders.stop_without_loss(100);
    assert!(tramad.is_running());
    tramad.stop();
}

/// Returns the processor time of a process, in hundredths of a second.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let fields = stat.rsplit_once(')').expect("its name").1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_port_that_cannot_be_made_in_its_namespace_costs_nothing() {
    let lab = Netns::new("lab");
    lab.run("ip link add taken type bridge");
    let text = format!("[[network]]\nname = \"net\"\n{}", tap_port("net", "taken", &lab, ""));
    let tramad = Tramad::start(&text);
    wait_for_error(&tramad, "taken", "the name is taken by another kind of interface");
    let before = ticks(tramad.id());
    // The test measures the cost of time passing.
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks(tramad.id()) - before;
    assert!(spent < 30, "{spent} hundredths of a second");
    // Any change of names makes it check again.
    lab.run("ip link del taken");
    drop(Netns::new("other"));
    wait_until("the device is there", SOON, || {
        (lab.try_run("ip link show taken").status == 0).then_some(())
    });
    tramad.stop();
}

#[test]
fn a_port_is_tried_again_however_much_else_happens() {
    let [host, lab] = ["host", "lab"].map(Netns::new);
    host.run("ip link add taken type bridge");
    let text = format!(
        "[[network]]\nname = \"net\"\n{}\n[[port]]\nname = \"taken\"\nnetwork = \"net\"\n\
         type = \"tap\"\n",
        tap_port("net", "a", &lab, "")
    );
    let tramad = Tramad::start_in(&host, &text);
    wait_for_error(&tramad, "taken", "the name is taken by another kind of interface");
    host.run("ip link del taken");
    wait_until("the port runs", SOON, || {
        // Namespaces that come and go wake the daemon.
        drop(Netns::new("other"));
        (host.try_run("ip link show taken").status == 0).then_some(())
    });
    tramad.stop();
}
