//! The daemon is killed, or replaced by another one: what it had open goes on.
//!
//! `TRAMA_KILLS` is the number of kills; if it is not set, there are 10.

use std::time::{Duration, Instant};

use trama_tests::{Guest, Host, Netns, Nic, Pinging, SOON, Tramad, wait_until};

/// How often the daemon is killed.
fn kills() -> u32 {
    std::env::var("TRAMA_KILLS").map_or(10, |text| text.parse().expect("a number"))
}

/// Three hosts on TAPs; the last one has its own in a bridge.
pub(crate) fn lab(hosts: [&Netns; 3]) -> String {
    let mut text = "[[network]]\nname = \"lab\"\n".to_owned();
    for (host, number) in hosts.iter().zip(1..) {
        let (name, netns) = (format!("host{number}"), host.name());
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
             ifname = \"eth0\"\nnetns = \"{netns}\"\n"
        );
        text += &match number {
            3 => String::new(),
            _ => format!("address = \"10.1.0.{number}/24\"\n"),
        };
    }
    text
}

/// What a user has done to a device, as the host shows it.
pub(crate) fn shown(host: &Netns) -> String {
    let parts = ["cat /sys/class/net/eth0/ifindex", "ip -o addr", "ip route", "bridge link"];
    parts.map(|command| host.run(command)).concat()
}

/// How long frames waited, in milliseconds.
#[derive(Default)]
struct Gaps {
    /// For the stand-in of a daemon that was killed.
    stand_in: Vec<f64>,
    /// For a daemon that took over from a stand-in.
    successor: Vec<f64>,
}

impl Gaps {
    fn print(self) {
        for (what, mut gaps) in [("stand-in", self.stand_in), ("take-over", self.successor)] {
            gaps.sort_by(f64::total_cmp);
            let worst = gaps.last().copied().unwrap_or_default();
            println!("gap, {what}: median {:.1} ms, worst {worst:.1} ms", gaps[gaps.len() / 2]);
        }
    }
}

/// A TCP connection from one host to another, which carries data for some seconds.
pub(crate) struct Transfer<'a> {
    host: &'a dyn Host,
    report: String,
    until: Instant,
}

impl<'a> Transfer<'a> {
    pub(crate) fn start(host: &'a Netns, to: &str, seconds: u32) -> Transfer<'a> {
        let report = format!("{}/transfer", host.scratch());
        host.run(&format!("iperf3 -J -c {to} -t {seconds} >{report} 2>&1 </dev/null &"));
        Transfer { host, report, until: Instant::now() + Duration::from_secs(seconds.into()) }
    }

    /// Waits for its end; it must not have broken.
    #[track_caller]
    pub(crate) fn finish(self) {
        let limit = self.until.saturating_duration_since(Instant::now()) + SOON;
        let text = wait_until("the transfer ends", limit, || {
            let text = self.host.run(&format!("cat {}", self.report));
            text.trim_end().ends_with("\n}").then_some(text)
        });
        let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
        let bytes = report["end"]["sum_received"]["bytes"].as_u64();
        assert!(bytes.is_some_and(|bytes| bytes > 10_000_000), "{text}");
    }
}

/// A guest with an iperf3 server, 10.1.0.1, and a host on a TAP, 10.1.0.2.
pub(crate) fn with_guest(host: &Netns) -> (Tramad, Guest) {
    let tramad = Tramad::start(&format!(
        "[[network]]\nname = \"lab\"\n\n[[port]]\nname = \"guest\"\nnetwork = \"lab\"\n\
         type = \"vhost-user\"\npath = \"{{dir}}/guest.sock\"\n\n[[port]]\nname = \"host\"\n\
         network = \"lab\"\ntype = \"tap\"\nifname = \"eth0\"\nnetns = \"{}\"\n\
         address = \"10.1.0.2/24\"\n",
        host.name()
    ));
    let nic = Nic::connecting(tramad.path("guest.sock"), "52:54:00:00:00:01");
    let guest = Guest::boot("guest", nic);
    guest.address("10.1.0.1/24");
    guest.start_iperf_server(5201);
    host.wait_for_ping("10.1.0.1", SOON);
    (tramad, guest)
}

#[test]
fn taps_go_on_after_a_kill_with_what_users_did_to_them() {
    let [left, right, bridged] = ["left", "right", "bridged"].map(Netns::new);
    let mut tramad = Tramad::start(&lab([&left, &right, &bridged]));
    left.run("ip addr add 10.7.7.7/32 dev eth0 && ip route add default via 10.1.0.2");
    right.run("ip route add 10.7.7.7/32 dev eth0");
    bridged.run("ip link add br0 type bridge && ip link set br0 up && ip link set eth0 master br0");
    bridged.run("ip addr add 10.1.0.3/24 dev br0");
    right.wait_for_ping("10.1.0.3", SOON);
    right.wait_for_ping("10.7.7.7", SOON);
    // A station that says nothing from now on.
    right.run(
        "ip link add link eth0 name mv type macvlan && ip link set mv address 02:00:00:00:00:77",
    );
    right.run("ip addr add 10.1.0.77/24 dev mv && ip link set mv up");
    left.wait_for_ping("10.1.0.77", SOON);
    right.run("ip link del mv");
    right.run("ping -c 500 -i 0.002 -q 10.1.0.1");
    let hosts = [&left, &right, &bridged];
    let before = hosts.map(shown);
    let packets = tramad.statistic("host2", "rx_packets");

    let mut gaps = Gaps::default();
    for _ in 0..kills() {
        let pings = Pinging::start(&left, "10.1.0.3", 0.005);
        tramad.kill_and_follow();
        gaps.stand_in.push(pings.longest());
        pings.stop_with_losses(1);
        assert_eq!(hosts.map(shown), before);
        right.wait_for_ping("10.7.7.7", SOON);

        let pings = Pinging::start(&left, "10.1.0.3", 0.005);
        tramad.start_again();
        gaps.successor.push(pings.longest());
        pings.stop_with_losses(1);
        assert_eq!(hosts.map(shown), before);
    }
    gaps.print();
    assert!(tramad.ctl("fdb/show lab").contains("02:00:00:00:00:77"), "what was learned");
    assert!(tramad.statistic("host2", "rx_packets") > packets, "what was counted");
    tramad.stop_and_look(|dir| {
        let files = std::fs::read_dir(dir).expect("a folder").flatten();
        let names = files.map(|file| file.file_name().into_string().expect("a name"));
        let sockets: Vec<_> = names.filter(|name| name.contains("sock")).collect();
        assert!(sockets.is_empty(), "{sockets:?}");
    });
    for host in hosts {
        assert!(!host.run("ip -o link").contains("eth0"), "an orderly end removes TAPs");
    }
}

#[test]
fn a_configuration_that_was_edited_meanwhile_is_applied_as_a_difference() {
    let [left, right, third] = ["left", "right", "third"].map(Netns::new);
    let mut tramad = Tramad::start(&lab([&left, &right, &third]));
    let addresses = |host: &Netns| host.run("ip -4 -br addr show dev eth0");
    let index = |host: &Netns| host.run("cat /sys/class/net/eth0/ifindex");
    left.run("ip addr add 10.7.7.7/32 dev eth0");
    let (first, unchanged) = (addresses(&left), index(&third));
    assert!(first.contains("10.1.0.1/24") && first.contains("10.7.7.7/32"), "{first}");

    let text = tramad.configuration().replace("10.1.0.1/24", "10.1.0.8/24");
    let (before, rest) = text.split_once("\n[[port]]\nname = \"host2\"").expect("a port");
    let (_, after) = rest.split_once("\n[[port]]").expect("a port");
    tramad.write_configuration(&format!("{before}\n[[port]]{after}"));
    tramad.kill_and_follow();
    let second = addresses(&left);
    assert!(second.contains("10.1.0.8/24") && !second.contains("10.7.7.7/32"), "{second}");
    assert!(!right.run("ip -o link").contains("eth0"), "its port was removed");
    assert_eq!(index(&third), unchanged);

    // A stand-in that is killed is followed by another, and both ways of a take-over work.
    tramad.kill_and_follow();
    tramad.start_again();
    tramad.take_over();
    tramad.take_over();
    assert_eq!((addresses(&left), index(&third)), (second, unchanged));
    tramad.stop();
    assert!(!left.run("ip -o link").contains("eth0"));
}

#[test]
fn a_guest_keeps_its_link_and_its_connections_over_kills() {
    let host = Netns::new("host");
    let (mut tramad, guest) = with_guest(&host);
    let link = || guest.run("cat /sys/class/net/eth0/carrier /sys/class/net/eth0/carrier_changes");
    let before = link();
    let transfer = Transfer::start(&host, "10.1.0.1", kills().max(8));

    let mut gaps = Gaps::default();
    for _ in 0..kills() / 2 {
        let pings = Pinging::start(&host, "10.1.0.1", 0.005);
        tramad.kill_and_follow();
        gaps.stand_in.push(pings.end());
        let pings = Pinging::start(&host, "10.1.0.1", 0.005);
        tramad.start_again();
        gaps.successor.push(pings.end());
    }
    gaps.print();

    transfer.finish();
    assert_eq!(link(), before, "the guest's link, and how often it has changed");
    assert!(tramad.log().contains("resumed the connection"), "{}", tramad.log());
}
