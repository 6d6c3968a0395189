//! Events with `tramactl observe`: what guests do, what is dropped, who changes what.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value as Json;
use trama_tests::nat::{GATEWAY, listen, namespace, tap_port};
use trama_tests::process::tied_command;
use trama_tests::tramad::{binary, sum};
use trama_tests::{Host, Netns, Process, SOON, Tramad, wait_until};

/// An address of the host, at which it has a DNS server and another server.
const SERVER: &str = "192.0.2.1";
/// What the guest sends, and what it is answered, in bytes.
const SENT: usize = 5_000;
const ANSWERED: usize = 70_000;

/// The events of a kind that are kept.
fn kept(tramad: &Tramad, words: &str) -> Vec<Json> {
    let text = tramad.ctl(&format!("observe -o json {words}"));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Waits for an event among those that are kept.
#[track_caller]
fn wait_for(tramad: &Tramad, words: &str, is_it: impl Fn(&Json) -> bool) -> Json {
    wait_until(words, SOON, || kept(tramad, words).into_iter().find(&is_it))
}

/// Starts a DNS server on the host that knows one name.
fn dns_server(host: &Netns, dir: &Path) -> Process {
    host.run(&format!("ip address add {SERVER}/32 dev lo"));
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file"]);
    command.args(["--log-facility=-", "--bind-interfaces", "--no-resolv", "--no-hosts"]);
    command.arg(format!("--listen-address={SERVER}"));
    command.arg(format!("--address=/one.test/{SERVER}"));
    let mut server = Process::spawn("dnsmasq", command, &dir.join("dnsmasq.log"));
    server.wait_for_log("started", SOON);
    server
}

/// Asks the gateway for the name.
fn ask(vm: &Netns) {
    let command = format!("dig +short +tries=1 +time=2 @{} one.test", GATEWAY[0]);
    wait_until("an answer", SOON, || vm.try_run(&command).text.contains(SERVER).then_some(()));
}

#[test]
fn what_a_guest_does_is_told() {
    let [host, vm] = ["host", "vm"].map(namespace);
    let dir = tempfile::tempdir().expect("temporary directory");
    let _server = dns_server(&host, dir.path());
    let text = format!(
        "[[network]]\nname = \"home\"\nmode = \"nat-network\"\nsubnet = [\"10.7.0.0/24\"]\n{}",
        tap_port("home", "vm", &vm, "ifname = \"eth0\"")
    );
    let tramad = Tramad::start_inside(&host, &[SERVER], &text);
    vm.run("ip link set eth0 up");
    let lease = "busybox udhcpc -i eth0 -f -n -q -t 10 -T 1 -x hostname:printer -s /bin/true";
    wait_until("a lease", SOON, || (vm.try_run(lease).status == 0).then_some(()));
    let leased = wait_for(&tramad, "--type dhcp", |it| it["verdict"] == "leased");
    assert_eq!((&leased["name"], &leased["port"]), (&"printer".into(), &"vm".into()), "{leased}");

    vm.run("ip addr add 10.7.0.11/24 dev eth0; ip route add default via 10.7.0.1");
    ask(&vm);
    assert!(kept(&tramad, "--type dns").is_empty(), "names are told on request only");
    tramad.ctl("set Bridge home other_config:log-dns=true");
    tramad.wait_for_gateway("home");
    ask(&vm);
    let answer = wait_for(&tramad, "--type dns", |it| it["name"] == "one.test");
    assert_eq!((&answer["proto"], &answer["dst"]), (&"A".into(), &SERVER.into()), "{answer}");

    exchange(&host, &vm);
    let to = "--type flow --to one.test";
    let closed = wait_for(&tramad, to, |it| it["proto"] == "tcp" && it["verdict"] == "closed");
    assert_eq!(closed["bytes_up"], SENT, "{closed}");
    assert_eq!(closed["bytes_down"], ANSWERED, "{closed}");
    let opened = wait_for(&tramad, to, |it| it["proto"] == "tcp" && it["verdict"] == "opened");
    assert_eq!(opened["dst"], format!("{SERVER}:8080"));
    assert!(opened["src"].as_str().is_some_and(|it| it.starts_with("10.7.0.11:")), "{opened}");

    vm.try_run("bash -c 'echo >/dev/tcp/169.254.169.254/80'");
    let refused = wait_for(&tramad, "--type policy --port vm --network home", |_| true);
    assert_eq!(refused["reason"], "policy_metadata", "{refused}");
    let line = tramad.ctl("observe --type policy");
    assert!(line.contains("home/vm  policy refused tcp 10.7.0.11:"), "{line}");

    let total = |kind| tramad_metric(&host, &tramad, kind);
    assert!(total("flow") >= 2 && total("dhcp") >= 1 && total("policy") >= 1);
    tramad.stop();
}

/// Reads the count of a type of events where the daemon's metrics are reachable.
fn tramad_metric(host: &Netns, tramad: &Tramad, kind: &str) -> u64 {
    let text = host.run(&format!("curl -s {}/metrics", tramad.metrics_address()));
    let prefix = format!("trama_events_total{{type=\"{kind}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(prefix.as_str()));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

/// Has the guest send to the host's server, and the server answer.
fn exchange(host: &Netns, vm: &Netns) {
    let listener = listen(host, &format!("{SERVER}:8080"));
    let to: SocketAddr = format!("{SERVER}:8080").parse().expect("address");
    let client = vm.inside(move || {
        let mut stream = TcpStream::connect_timeout(&to, SOON).expect("connect");
        stream.write_all(&[7; SENT]).expect("send");
        stream.shutdown(std::net::Shutdown::Write).expect("end");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        answer.len()
    });
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).expect("what the guest sends");
    stream.write_all(&[9; ANSWERED]).expect("answer");
    drop(stream);
    assert_eq!((sent.len(), client.join().expect("a client")), (SENT, ANSWERED));
}

/// Two hosts on a network.
fn lab() -> ([Netns; 2], Tramad) {
    let hosts = ["left", "right"].map(Netns::new);
    let mut configuration = "[[network]]\nname = \"lab\"\n".to_owned();
    for (number, (name, netns)) in ["left", "right"].iter().zip(&hosts).enumerate() {
        let keys = format!("ifname = \"{name}\"\naddress = \"10.1.0.{}/24\"", number + 1);
        configuration += &tap_port("lab", name, netns, &keys);
    }
    let tramad = Tramad::start(&configuration);
    hosts[0].wait_for_ping("10.1.0.2", SOON);
    (hosts, tramad)
}

/// Starts `tramactl observe` with these words, and waits until it observes.
fn observe(tramad: &Tramad, words: &str, log: &Path) -> Process {
    let mut command = tied_command(binary("tramactl"));
    command.arg("--socket").arg(tramad.path("control.sock")).arg("observe");
    command.args(words.split_whitespace());
    let observer = Process::spawn("observe", command, log);
    let mut tries = 0;
    wait_until("it observes", SOON, || {
        tries += 1;
        tramad.ctl(&format!("set Port left external_ids:seen={tries}"));
        observer.log().contains("external-ids").then_some(())
    });
    observer
}

#[test]
fn drops_of_a_second_are_one_event_and_add_up_to_the_counter() {
    let ([left, _right], tramad) = lab();
    tramad.ctl("set Port left tag=10 -- set Port right tag=20");
    // The neighbour is known, so that each ping is a frame.
    left.run("ip neigh replace 10.1.0.2 lladdr 02:00:00:00:00:77 dev left");
    left.try_run("ping -f -c 300 -W 1 10.1.0.2");
    let dropped = || {
        sum(&tramad.metrics(), "trama_port_drops_total", &["port=\"left\"", "reason=\"no_member\""])
    };
    let told = || -> u64 {
        let drops = kept(&tramad, "--type drop --port left");
        let of_it = drops.iter().filter(|it| it["reason"] == "no_member");
        of_it.filter_map(|it| it["count"].as_u64()).sum()
    };
    wait_until("all drops are told", SOON, || (told() == dropped()).then_some(()));
    assert!(dropped() >= 300, "{}", dropped());
    let events = kept(&tramad, "--type drop --port left");
    let seconds = events.len() as u64;
    assert!(seconds < 100, "{seconds} events of {} drops", dropped());
    let first = tramad.ctl("observe --type drop --port left");
    assert!(first.contains(" lab/left drop   no_member ×"), "{first}");
    assert!(first.contains(" → 02:00:00:00:00:77"), "{first}");

    let user = format!("uid {}", rustix::process::getuid().as_raw());
    let change = wait_for(&tramad, "--type config", |it| it["verdict"] == "changed");
    assert_eq!(change["src"], user);
    assert_eq!(change["detail"], "set port left: tag; set port right: tag");
    tramad.ctl("link left down");
    wait_for(&tramad, "--type link --port left", |it| it["verdict"] == "down");
    tramad.signal(Signal::HUP);
    wait_for(&tramad, "--type config", |it| it["verdict"] == "reloaded" && it["src"] == "SIGHUP");

    let answer = tramad.try_ctl(&["observe", "--port", "lift"]);
    assert_eq!(answer.status, 1);
    assert!(answer.text.contains("there is no port lift; did you mean left?"), "{}", answer.text);
    tramad.stop();
}

#[test]
fn an_observer_goes_on_with_the_next_daemon() {
    let (_hosts, mut tramad) = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut observer = observe(&tramad, "-f --type config -o json", &dir.path().join("log"));
    tramad.ctl("set Port left tag=10");
    tramad.restart(Signal::TERM);
    wait_until("the next one is observed", SOON, || {
        tramad.ctl("set Port right tag=11");
        observer.log().contains("set port right: tag").then_some(())
    });
    let log = observer.log();
    for words in ["tramad has gone", "waits for it", "tramad is there again", "\"type\":\"lost\""] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let started = log.lines().filter(|line| line.contains("\"started\"")).count();
    assert_eq!(started, 1, "the next one is told from its start: {log}");
    let ids = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let ids: Vec<u64> = ids.filter_map(|it| it["id"].as_u64()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(observer.is_running());
    observer.kill();
    tramad.stop();
}
