//! The daemon is killed while it moves as many frames as it can between the rings of testpmd, and
//! has a hundred ports: traffic goes on, and nothing is lost.
//!
//! `TRAMA_KILLS` is the number of kills; if it is not set, there are 4.

use trama_tests::{Host, Netns, Pinging, SOON, Testpmd, Tramad};

/// TAPs besides those of two hosts and two vhost-user ports.
const TAPS: usize = 96;
/// Frames that testpmd receives after each kill on each device.
const TRAFFIC: u64 = 50_000;
/// How long frames may wait in milliseconds; longer in a debug build, whose host is busy with other
/// tests.
const MOST: f64 = if cfg!(debug_assertions) { 3000.0 } else { 100.0 };

fn configuration(left: &Netns, right: &Netns, many: &Netns) -> String {
    let mut text = "[[network]]\nname = \"lab\"\n".to_owned();
    for name in ["pmd0", "pmd1"] {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{name}.sock\"\ntag = 10\n"
        );
    }
    for (host, number) in [(left, 1), (right, 2)] {
        text += &format!(
            "\n[[port]]\nname = \"host{number}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
             ifname = \"eth0\"\nnetns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
            host.name()
        );
    }
    for number in 0..TAPS {
        text += &format!(
            "\n[[port]]\nname = \"tap{number}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
             ifname = \"tap{number}\"\nnetns = \"{}\"\ntag = 20\n",
            many.name()
        );
    }
    text
}

fn print(what: &str, mut gaps: Vec<f64>) {
    gaps.sort_by(f64::total_cmp);
    let worst = gaps.last().copied().unwrap_or_default();
    println!("gap, {what}: median {:.1} ms, worst {worst:.1} ms", gaps[gaps.len() / 2]);
    assert!(worst < MOST, "{gaps:?}");
}

#[test]
fn a_hundred_ports_and_testpmd_go_on_after_kills() {
    let kills = std::env::var("TRAMA_KILLS").map_or(4, |text| text.parse().expect("a number"));
    let [left, right, many] = ["left", "right", "many"].map(Netns::new);
    let mut tramad = Tramad::start(&configuration(&left, &right, &many));
    let sockets = ["pmd0.sock", "pmd1.sock"].map(|name| tramad.path(name));
    let mut pmd = Testpmd::start([&sockets[0], &sockets[1]], "queue_size=1024");
    pmd.circulate(8, TRAFFIC, SOON);
    // A station that says nothing from now on.
    right.run(
        "ip link add link eth0 name mv type macvlan && ip link set mv address 02:00:00:00:00:77",
    );
    right.run("ip addr add 10.1.0.77/24 dev mv && ip link set mv up");
    left.wait_for_ping("10.1.0.77", SOON);
    right.run("ip link del mv");
    let devices = || many.run("ip -o link | cut -d: -f1,2");
    let before = devices();
    assert_eq!(before.matches("tap").count(), TAPS);

    let (mut stand_ins, mut take_overs) = (Vec::new(), Vec::new());
    let mut rates = Vec::new();
    for _ in 0..kills {
        let counted =
            [tramad.statistic("pmd0", "rx_packets"), tramad.statistic("host1", "rx_packets")];
        let pings = Pinging::start(&left, "10.1.0.2", 0.002);
        tramad.kill_and_follow();
        stand_ins.push(pings.end());
        rates.push(pmd.goes_on(TRAFFIC, SOON));
        let pings = Pinging::start(&left, "10.1.0.2", 0.002);
        tramad.start_again();
        take_overs.push(pings.end());
        rates.push(pmd.goes_on(TRAFFIC, SOON));
        assert_eq!(devices(), before, "each TAP");
        let now = [tramad.statistic("pmd0", "rx_packets"), tramad.statistic("host1", "rx_packets")];
        assert!(now[0] >= counted[0] && now[1] >= counted[1], "{counted:?}, then {now:?}");
        assert!(tramad.ctl("fdb/show lab").contains("02:00:00:00:00:77"), "what was learned");
    }
    print("stand-in", stand_ins);
    print("take-over", take_overs);
    rates.sort_by(f64::total_cmp);
    println!("testpmd: {:.2} Mpps in the median", rates[rates.len() / 2] / 1e6);
    pmd.kill();
    tramad.stop();
}
