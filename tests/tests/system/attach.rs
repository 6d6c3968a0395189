//! `attach`: a caller makes an interface in a namespace and hands its descriptor over. Such a port
//! is in no file, and ends with its interface, its namespace, `detach` or the daemon.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use trama_tests::nat::tap_port;
use trama_tests::tramad::binary;
use trama_tests::{Host, Netns, Pinging, Process, SOON, Tramad, wait_until};

const NETWORK: &str = "[[network]]\nname = \"lab\"\nmtu = 1400\n";

/// Returns `tramactl attach lab` with the words of a line.
fn command(tramad: &Tramad, line: &str) -> Command {
    let mut command = Command::new(binary("tramactl"));
    command.arg("--socket").arg(tramad.path("control.sock"));
    command.args(["attach", "lab"]).args(line.split_whitespace());
    command
}

/// Attaches an interface; returns what is printed.
#[track_caller]
pub(crate) fn attach(tramad: &Tramad, line: &str) -> String {
    let output = command(tramad, line).output().expect("run tramactl");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {said}\n{}", tramad.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A container: a process in a network namespace without a name.
fn container(host: &Netns) -> Process {
    let mut command = host.command("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && echo inside && exec sleep 1000"]);
    let log = format!("{}/container-{}", host.scratch(), trama_tests::process::unique());
    let mut process = Process::spawn("a container", command, log.as_ref());
    process.wait_for_log("inside", SOON);
    process
}

fn station(netns: &Netns) -> String {
    tap_port("lab", "s", netns, "ifname = \"tap0\"\naddress = \"10.1.0.9/24\"")
}

#[track_caller]
fn wait_for_no_port(tramad: &Tramad, port: &str) {
    wait_until(&format!("{port} ends"), SOON, || {
        (!tramad.ctl("list-ports lab").lines().any(|line| line == port)).then_some(())
    });
}

#[test]
fn a_container_is_attached_and_its_port_ends_with_it() {
    let [far, a] = ["far", "a"].map(Netns::new);
    let mut tramad = Tramad::start(&(NETWORK.to_owned() + &station(&far)));
    let file = tramad.configuration();
    let mut process = container(&far);
    let pid = process.id();
    let shown = attach(
        &tramad,
        &format!(
            "web --netns {pid} --address 10.1.0.7/24 --mac 52:54:00:00:00:07 --gateway \
                  10.1.0.9 tag=7 vlan_mode=native-untagged"
        ),
    );
    assert_eq!(
        shown,
        "{\"port\":\"web\",\"ifname\":\"eth0\",\"mac\":\"52:54:00:00:00:07\",\
         \"addresses\":[\"10.1.0.7/24\"],\"gateway\":\"10.1.0.9\",\"dns\":[]}\n"
    );
    tramad.ctl("clear Port web tag vlan_mode");
    far.wait_for_ping("10.1.0.7", SOON);
    let inside = |line: &str| far.run(&format!("nsenter --net=/proc/{pid}/ns/net sh -c '{line}'"));
    let link = inside("ip -o link show eth0; ip route");
    assert!(link.contains("mtu 1400") && link.contains("default via 10.1.0.9"), "{link}");
    assert!(tramad.ctl("show").contains("ephemeral: true"), "{}", tramad.ctl("show"));
    assert_eq!(tramad.ctl("get Port web ephemeral"), "true\n");
    assert_eq!(tramad.configuration(), file, "it is in no file");

    // The next switch goes on with it, and a reload keeps it.
    let pinging = Pinging::start(&far, "10.1.0.7", 0.01);
    tramad.kill_and_follow();
    pinging.stop_without_loss(5);
    tramad.ctl("reload");
    far.wait_for_ping("10.1.0.7", SOON);

    // Its namespace goes with the container, although the switch holds a descriptor.
    process.end(Signal::KILL, SOON);
    wait_for_no_port(&tramad, "web");
    // Deleted by hand, and detached.
    attach(&tramad, &format!("b --netns {} --ifname net0", a.name()));
    a.run("ip link del net0");
    wait_for_no_port(&tramad, "b");
    attach(&tramad, &format!("c --netns {}", a.path()));
    tramad.ctl("detach c");
    wait_until("the interface is gone", SOON, || {
        (a.try_run("ip link show eth0").status != 0).then_some(())
    });
    let refused = tramad.try_ctl(&["detach", "s"]);
    assert!(refused.text.contains("use del-port s"), "{}", refused.text);
    tramad.ctl("add-port lab d ephemeral=true -- set Interface d type=vhost-user");
    assert_eq!(tramad.configuration(), file);
    tramad.ctl("set Port d ephemeral=false");
    assert!(tramad.configuration().contains("name = \"d\""));
    drop(tramad);
}

#[test]
fn two_hundred_attaches_and_detaches_leave_nothing() {
    let spaces: Vec<Netns> = (0..8).map(|_| Netns::new("c")).collect();
    let tramad = Tramad::start(NETWORK);
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", tramad.id())).expect("descriptors").count();
    attach(&tramad, &format!("first --netns {}", spaces[0].name()));
    tramad.ctl("detach first");
    let before = descriptors();
    std::thread::scope(|scope| {
        for (number, space) in spaces.iter().enumerate() {
            let tramad = &tramad;
            scope.spawn(move || {
                for round in 0..25 {
                    let port = format!("p{number}-{round}");
                    attach(tramad, &format!("{port} --netns {} --ifname e{round}", space.name()));
                    if round % 2 == 0 {
                        tramad.ctl(&format!("detach {port}"));
                    } else {
                        space.run(&format!("ip link del e{round}"));
                    }
                }
            });
        }
    });
    wait_until("no port is left", SOON, || tramad.ctl("list-ports lab").is_empty().then_some(()));
    for space in &spaces {
        let links = space.run("ip -o link");
        assert_eq!(links.lines().count(), 1, "{links}");
    }
    wait_until("no descriptor is left", SOON, || (descriptors() <= before).then_some(()));
    tramad.stop();
}

#[test]
fn a_caller_that_is_killed_leaves_nothing_half_done() {
    let space = Netns::new("c");
    let tramad = Tramad::start(NETWORK);
    for round in 0..40 {
        let mut caller = command(&tramad, &format!("p --netns {} --ifname e0", space.name()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run tramactl");
        // From before its first step to beyond its last one.
        std::thread::sleep(std::time::Duration::from_micros(500 * round));
        let _ = caller.kill();
        let mut said = String::new();
        caller.stdout.take().expect("piped").read_to_string(&mut said).expect("its output");
        caller.wait().expect("its end");
        // Either there is neither port nor interface, or both, and the port has its device.
        wait_until("all or nothing", SOON, || {
            let has_port = !tramad.ctl("list-ports lab").is_empty();
            let has_link = space.try_run("ip link show e0").status == 0;
            (has_port == has_link).then_some(())
        });
        if !said.is_empty() {
            assert_eq!(tramad.ctl("list-ports lab"), "p\n");
        }
        tramad.ctl("--if-exists detach p");
        wait_until("it is gone", SOON, || {
            (space.try_run("ip link show e0").status != 0).then_some(())
        });
    }
    tramad.stop();
}

/// Sends a request with these descriptors; returns the answer.
pub(crate) fn ask(tramad: &Tramad, body: &str, fds: &[BorrowedFd<'_>]) -> String {
    let mut stream = UnixStream::connect(tramad.path("control.sock")).expect("the control socket");
    let text = format!(
        "POST /v1/attach HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let (first, rest) = text.as_bytes().split_at(1);
    sendmsg(&stream, &[IoSlice::new(first)], &mut ancillary, SendFlags::empty()).expect("send");
    stream.write_all(rest).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn what_is_no_device_or_has_no_place_is_refused_in_one_line() {
    let space = Netns::new("c");
    let tramad = Tramad::start(NETWORK);
    let body = "{\"version\":1,\"network\":\"lab\",\"port\":\"p\"}";
    let (stream, _peer) = UnixStream::pair().expect("a pair");
    let file = std::fs::File::open("/dev/null").expect("a file");
    let tun = std::fs::File::open("/dev/net/tun").expect("the driver");
    for (fds, part) in [
        (vec![], "no descriptor came with the request"),
        (vec![stream.as_fd(), file.as_fd()], "more than one descriptor"),
        (vec![file.as_fd()], "the descriptor is neither a TAP nor a socket"),
        (vec![tun.as_fd()], "without a device; attach it with TUNSETIFF"),
    ] {
        let answer = ask(&tramad, body, &fds);
        assert!(answer.contains(part), "{part}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for (body, part) in [
        ("{\"version\":7,\"network\":\"lab\",\"port\":\"p\"}", "speaks version 7"),
        ("{\"version\":1,\"network\":\"lab\"}", "missing field `port`"),
    ] {
        assert!(ask(&tramad, body, &[file.as_fd()]).contains(part));
    }
    attach(&tramad, &format!("p --netns {} --ifname e0", space.name()));
    for (line, part) in [
        (format!("p --netns {} --ifname e1", space.name()), "a port named p already exists"),
        (format!("q --netns {} --ifname e0", space.name()), "has an interface of that name"),
        (format!("q --netns {} --ifname e1 speed=7", space.name()), "speed"),
        ("q --netns nosuch".to_owned(), "ip netns add"),
        (format!("q --netns {} --gateway 10.9.0.1", space.name()), "default route by 10.9.0.1"),
    ] {
        let output = command(&tramad, &line).output().expect("run tramactl");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(space.run("ip -o link").lines().count(), 2, "lo and e0");
    let refused = tramad.try_ctl(&["set", "Port", "p", "ephemeral=false"]);
    assert!(refused.text.contains("an attached device ends with its descriptor"));
    let refused = tramad.try_ctl(&["set", "Interface", "p", "type=vhost-user"]);
    assert!(refused.text.contains("detach p first"), "{}", refused.text);
    let refused = tramad.try_ctl(&["attach", "nosuch", "p"]);
    assert!(refused.text.contains("nosuch"), "{}", refused.text);
    tramad.stop();
}
