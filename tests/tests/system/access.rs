//! Daemon and VMM as different users: ownership of sockets, and an unprivileged daemon.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use trama_tests::libvirt::open_folder;
use trama_tests::nat::{NEIGHBOUR, host_and_server, tap_port};
use trama_tests::tramad::binary;
use trama_tests::{
    CommandResult, Guest, GuestOptions, Host, Netns, Nic, Process, Tramad, User, wait_until,
};

const MAC: &str = "52:54:00:00:00:01";
const SOON: Duration = Duration::from_secs(30);
/// The user that runs QEMU under libvirt on Debian; its primary group is `kvm`.
const VMM: &str = "libvirt-qemu";

/// Returns a network with a vhost-user port, whose socket is in `dir`, and a host at 10.1.0.100.
fn lab(dir: &Path, keys: &str, host: &Netns) -> String {
    format!(
        "[[network]]\nname = \"lab\"\n[[port]]\nname = \"vm\"\nnetwork = \"lab\"\n\
         type = \"vhost-user\"\npath = \"{}/vm.sock\"\n{keys}\n{}",
        dir.display(),
        tap_port("lab", "host", host, "address = \"10.1.0.100/24\"")
    )
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a socket").mode() & 0o7777
}

#[test]
fn a_vmm_of_another_user_connects_once_its_group_may() {
    let (dir, host) = (open_folder(), Netns::new("host"));
    let socket = dir.path().join("vm.sock");
    let mut tramad = Tramad::start(&lab(dir.path(), "", &host));
    tramad.wait_for_log("others may not connect", SOON);
    let user = User::named(VMM);
    let nic = Nic::connecting(&socket, MAC);
    let options = GuestOptions { user: Some(user.clone()), ..GuestOptions::new("guest", [nic]) };
    let guest = Guest::launch(&options);
    wait_until("QEMU is refused", SOON, || {
        guest.qemu_log().contains("Permission denied").then_some(())
    });

    // A missing group is an error of the host, and the port recovers when it exists.
    let answer = tramad.try_ctl(&["set", "Interface", "vm", "options:socket-group=no-such-group"]);
    assert_eq!(answer.status, 65, "{}", answer.text);
    let wanted = "there is no group \"no-such-group\"; make it with groupadd";
    assert!(answer.text.contains(wanted), "{}", answer.text);
    assert!(tramad.ctl("get Interface vm error").contains("make it with groupadd"));

    tramad.ctl("set Interface vm options:socket-group=kvm");
    guest.wait_until_ready();
    guest.address("10.1.0.1/24");
    host.wait_for_ping("10.1.0.1", SOON);
    assert_eq!((mode(&socket), fs::metadata(&socket).unwrap().gid()), (0o660, user.group));
    assert!(!guest.qemu_log().contains("deprecated"), "{}", guest.qemu_log());

    // Live: the connection stays, and without the keys the socket has its former owner and mode.
    let connects = || tramad.ctl("get Interface vm status:connects");
    let before = connects();
    tramad.ctl(&format!(
        "set Interface vm options:socket-owner={} options:socket-mode=0600",
        user.id
    ));
    assert_eq!((mode(&socket), fs::metadata(&socket).unwrap().uid()), (0o600, user.id));
    // A missing group, or a socket removed by another process, is reported and has no other effect.
    for (group, wanted) in
        [("no-such-group", "there is no group"), ("root", "the socket was removed or replaced")]
    {
        if group == "root" {
            fs::rename(&socket, socket.with_extension("away")).expect("the socket");
        }
        let line = format!("options:socket-group={group}");
        let answer = tramad.try_ctl(&["set", "Interface", "vm", &line]);
        assert_eq!(answer.status, 65, "{}", answer.text);
        assert!(answer.text.contains(wanted), "{}", answer.text);
        assert_eq!(connects(), before);
    }
    fs::rename(socket.with_extension("away"), &socket).expect("the socket");
    tramad.ctl("set Interface vm options:socket-group=kvm");
    assert_eq!(tramad.ctl("get Interface vm error").trim(), "[]");
    tramad.ctl(
        "remove Interface vm options socket-owner -- remove Interface vm options socket-mode \
                -- remove Interface vm options socket-group",
    );
    let plain = fs::metadata(&socket).unwrap();
    assert_eq!((plain.uid(), plain.gid(), plain.mode() & 0o022), (0, 0, 0), "as the umask has it");
    assert_eq!(connects(), before);
    assert_eq!(host.ping_losses("10.1.0.1", 3), 0);

    // The default of all ports; it still holds after a restart of the daemon.
    let text = tramad.configuration();
    tramad.write_configuration(&text.replace("[daemon]\n", "[daemon]\nsocket-group = \"kvm\"\n"));
    tramad.ctl("reload");
    assert_eq!(mode(&socket), 0o660);
    tramad.restart(Signal::KILL);
    host.wait_for_ping("10.1.0.1", SOON);
    assert_eq!(mode(&socket), 0o660);
    for (line, refusal) in [
        (
            "set Interface vm options:role=client options:socket-group=kvm",
            "the VMM makes the socket",
        ),
        ("set Interface vm options:socket-mode=0777", "use 0600 to 0666"),
        ("set Interface host options:socket-group=kvm", "has no options:socket-group"),
    ] {
        let answer = tramad.try_ctl(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(answer.status, 1, "{line}: {}", answer.text);
        assert!(answer.text.contains(refusal), "{line}: {}", answer.text);
    }
    tramad.stop();
}

/// A daemon of an unprivileged user, with its default paths.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    user: User,
}

impl Home {
    /// Creates a home for the user without any privilege.
    pub(crate) fn new() -> Home {
        let home = Home { dir: open_folder(), user: User::named("nobody") };
        for folder in ["", "run"] {
            let path = home.dir.path().join(folder);
            fs::create_dir_all(&path).expect("home");
            home.user.own(&path);
        }
        for program in ["tramad", "tramactl", "trama-netavark"] {
            // The originals may be in a folder that is closed to other users.
            fs::copy(binary(program), home.dir.path().join(program)).expect("copy a program");
        }
        home
    }

    /// Returns a command that runs a program as the user in a namespace; its path may be absolute.
    pub(crate) fn command(&self, netns: &Netns, program: &str) -> Command {
        let at = self.dir.path();
        let mut command = netns.command("setpriv");
        let (id, group) = (self.user.id.to_string(), self.user.group.to_string());
        command.args(["--reuid", &id, "--regid", &group, "--clear-groups"]);
        command.args(["--pdeathsig", "KILL", "--", "env", "-i"]);
        command.arg(format!("HOME={}", at.display()));
        command.arg(format!("XDG_RUNTIME_DIR={}/run", at.display()));
        command.arg(at.join(program));
        command
    }

    pub(crate) fn tramad(&self, netns: &Netns) -> Process {
        let log = self.dir.path().join("log");
        let mut tramad = Process::spawn("tramad", self.command(netns, "tramad"), &log);
        wait_until("tramad answers", SOON, || {
            assert!(tramad.is_running(), "{}", tramad.log());
            (self.ctl(netns, "version").status == 0).then_some(())
        });
        tramad
    }

    pub(crate) fn ctl(&self, netns: &Netns, line: &str) -> CommandResult {
        let output =
            self.command(netns, "tramactl").args(line.split_whitespace()).output().unwrap();
        let text =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        CommandResult { status: output.status.code().unwrap_or(-1), text: text.concat() }
    }
}

#[test]
fn a_user_without_privileges_has_a_network_with_nat() {
    let [host, _server] = host_and_server();
    let home = Home::new();
    let state =
        || host.run("nft list ruleset; ip rule; ip route show table all; ip -br addr; ip -6 rule");
    let before = state();
    let run = home.dir.path().join("run/trama");
    let mut tramad = home.tramad(&host);
    let file = home.dir.path().join(".config/trama/trama.toml");
    tramad.wait_for_log(&format!("{} is not there", file.display()), SOON);
    assert!(!file.exists());
    assert_eq!(mode(&run.join("control.sock")), 0o600);

    let answer = home.ctl(
        &host,
        "add-br lab -- set Bridge lab mode=nat-network -- \
         add-port lab vm -- set Interface vm type=vhost-user",
    );
    assert_eq!(answer.status, 0, "{}", answer.text);
    let text = fs::read_to_string(&file).expect("the configuration");
    assert!(text.contains("nat-network") && !text.contains("path"), "{text}");
    let socket = run.join("vm.sock");
    let shown = home.ctl(&host, "get Interface vm status:path");
    assert_eq!(shown.text.trim().trim_matches('"'), socket.display().to_string());

    let nic = Nic::connecting(&socket, MAC);
    let user = Some(home.user.clone());
    let guest = Guest::start(&GuestOptions { user, ..GuestOptions::new("guest", [nic]) });
    guest.address("10.0.2.20/24");
    guest.run("ip route add default via 10.0.2.1");
    guest.wait_for_ping(NEIGHBOUR[0], SOON);
    assert_eq!(state(), before, "the host has been changed");
    let leases = home.dir.path().join(".local/state/trama/leases-lab");
    wait_until("the state is the user's", SOON, || leases.is_dir().then_some(()));

    // A lack of permission is reported with its reason.
    let closed = home.dir.path().join("closed.sock");
    let _vmm = UnixListener::bind(&closed).expect("a socket");
    let answer = home.ctl(
        &host,
        &format!(
            "add-port lab c -- set Interface c type=vhost-user options:role=client options:path={}",
            closed.display()
        ),
    );
    assert_eq!(answer.status, 0, "{}", answer.text);
    let wanted = format!(
        "permission denied on {}: its owner is root:root, mode {:04o}; the daemon (nobody of group \
         nogroup) needs write permission",
        closed.display(),
        mode(&closed)
    );
    wait_until("it says what it lacks", SOON, || {
        home.ctl(&host, "get Interface c status:last_error").text.contains(&wanted).then_some(())
    });
    let answer = home.ctl(&host, "add-port lab t");
    assert_eq!(answer.status, 65, "{}", answer.text);
    assert!(answer.text.contains("run with CAP_NET_ADMIN"), "{}", answer.text);

    // Everything is there again; a missing file must not pass for an empty one.
    tramad.end(Signal::TERM, SOON);
    let mut tramad = home.tramad(&host);
    guest.wait_for_ping(NEIGHBOUR[0], SOON);
    fs::remove_file(&file).expect("remove the configuration");
    let answer = home.ctl(&host, "reload");
    assert!(answer.status == 1 && answer.text.contains("cannot be read"), "{}", answer.text);
    tramad.end(Signal::TERM, SOON);
}
