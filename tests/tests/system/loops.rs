//! Loops outside the switch: found by probes, cut by blocking one port, and undone once they are
//! gone. Moves of addresses without a loop only cause a warning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use trama_frame::VnetHeader;
use trama_test_kit::{Card, connect};
use trama_tests::nat::{SOON, tap_port};
use trama_tests::{Host, Netns, Pinging, RawTap, Tramad, wait_until};
use trama_vhost_net_backend::features;

/// A loop is cut within this time.
const CUT: Duration = Duration::from_secs(3);
const NETWORK: &str = "[[network]]\nname = \"n\"\n";
const B: &str = "10.1.0.2";

/// Starts a daemon with two stations on TAPs and these ports.
fn start(a: &Netns, b: &Netns, ports: &str) -> Tramad {
    let station = |netns: &Netns, name, address: &str| {
        tap_port("n", name, netns, &format!("ifname = \"eth0\"\naddress = \"{address}/24\""))
    };
    let stations = station(a, "a", "10.1.0.1") + &station(b, "b", B);
    Tramad::start(&format!("{NETWORK}{stations}{ports}"))
}

/// Lets one broadcast into the loop; checks that it is cut in time, and that the others then lose
/// nothing. Returns which of `ports` is blocked.
fn expect_cut<'a>(tramad: &mut Tramad, a: &Netns, ports: [&'a str; 2]) -> &'a str {
    let began = Instant::now();
    a.try_run("ping -c 1 -W 1 10.1.0.77 &");
    let shown = wait_until("a port is blocked", SOON, || {
        let shown = tramad.ctl("show");
        shown.contains("loop: \"blocked for 30 s at a time: what is sent at port").then_some(shown)
    });
    let took = began.elapsed();
    println!("cut after {took:?}");
    assert!(took < CUT, "{took:?}");
    assert_eq!(shown.matches("loop:").count(), 1, "{shown}");
    expect_pings(a);

    let is_blocked =
        |port: &&str| tramad.metric("trama_port_loop_blocked", &[&format!("port=\"{port}\"")]) == 1;
    let blocked: Vec<&str> = ports.into_iter().filter(is_blocked).collect();
    let [blocked] = blocked[..] else { panic!("blocked: {blocked:?}") };
    assert_eq!(tramad.metric("trama_port_link", &[&format!("port=\"{blocked}\"")]), 0);
    tramad.wait_for_log(&format!("port {blocked}: a loop: what is sent at port"), SOON);
    assert_eq!(tramad.log().matches(": a loop: ").count(), 1, "{}", tramad.log());
    blocked
}

/// Checks that at least 95 % of what others send arrives.
fn expect_pings(a: &Netns) {
    let report = a.run(&format!("ping -q -c 200 -i 0.01 {B}"));
    let count = report.split(", ").find_map(|part| part.strip_suffix(" received"));
    let received: u32 = count.and_then(|count| count.parse().ok()).expect("ping's report");
    assert!(received >= 190, "{report}");
}

fn is_open(tramad: &Tramad) -> bool {
    tramad.metric("trama_port_loop_blocked", &[]) == 0 && !tramad.ctl("show").contains("loop:")
}

#[test]
fn a_loop_of_two_taps_is_cut_and_the_port_comes_back() {
    let [a, b, l] = ["a", "b", "l"].map(Netns::new);
    let tap = |name| tap_port("n", name, &l, &format!("ifname = \"{name}\""));
    let mut tramad = start(&a, &b, &(tap("l1") + &tap("l2")));
    l.run(
        "ip link add br0 type bridge stp_state 0 && ip link set br0 up && \
         for i in l1 l2; do ip link set $i up master br0 || exit; done",
    );
    let blocked = expect_cut(&mut tramad, &a, ["l1", "l2"]);
    l.run(&format!("ip link set {blocked} nomaster"));
    tramad.wait_for_log(&format!("port {blocked}: the loop is gone; it is open again"), SOON);
    wait_until("the port is open", SOON, || is_open(&tramad).then_some(()));
    expect_pings(&a);
    tramad.stop();
}

/// A guest that forwards each frame from one of its cards to the other, as a bridge does.
struct Bridging {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bridging {
    fn start(tramad: &Tramad, ports: [&str; 2]) -> Bridging {
        let plug = |port: &str| {
            let path = tramad.path(&format!("{port}.sock"));
            Card::plug(connect(&path), features::ALL, 1)
        };
        let mut cards = ports.map(plug);
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !is_stopped.load(Ordering::Relaxed) {
                let [left, right] = &mut cards;
                let moved = forward(left, right) + forward(right, left);
                if moved == 0 {
                    thread::sleep(Duration::from_micros(50));
                }
            }
        });
        Bridging { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the guest");
    }
}

/// Forwards what has arrived; frames without room are lost. Returns how many there were.
fn forward(from: &mut Card, to: &mut Card) -> usize {
    let (mut frame, mut count) = (Vec::new(), 0);
    let header = VnetHeader::default().to_bytes();
    to.tx[0].reclaim().expect("used buffers");
    while count < 256 && from.rx[0].recv(&mut frame).expect("a frame").is_some() {
        let _ = to.tx[0].send(&header, &[&frame]);
        count += 1;
    }
    from.rx[0].refill();
    if count > 0 && to.tx[0].publish() {
        to.kicks[1].write(1).expect("a kick");
    }
    count
}

#[test]
fn a_loop_of_two_guests_rings_is_cut_and_a_replugged_cable_opens_the_port() {
    let [a, b] = ["a", "b"].map(Netns::new);
    let card = |name| {
        format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"n\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{name}.sock\"\n"
        )
    };
    let mut tramad = start(&a, &b, &(card("g1") + &card("g2")));
    let guest = Bridging::start(&tramad, ["g1", "g2"]);
    let blocked = expect_cut(&mut tramad, &a, ["g1", "g2"]);
    guest.stop();
    tramad.ctl(&format!("set Port {blocked} cable=false"));
    // A text of the metrics is kept for a moment.
    wait_until("the port is open", SOON, || is_open(&tramad).then_some(()));
    tramad.ctl(&format!("set Port {blocked} cable=true"));
    tramad.stop();
}

#[test]
fn a_port_that_only_detects_loops_is_warned_of() {
    let [a, b] = ["a", "b"].map(Netns::new);
    let card = |name| {
        format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"n\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{name}.sock\"\nloop = \"detect\"\n"
        )
    };
    let mut tramad = start(&a, &b, &(card("g1") + &card("g2")));
    let guest = Bridging::start(&tramad, ["g1", "g2"]);
    a.try_run("ping -c 1 -W 1 10.1.0.77 &");
    tramad.wait_for_log("not blocked: remove the loop", SOON);
    assert!(is_open(&tramad));
    // From now on it is cut.
    tramad.ctl("set Port g1 loop=block");
    tramad.ctl("set Port g2 loop=block");
    wait_until("a port is blocked", SOON, || (!is_open(&tramad)).then_some(()));
    guest.stop();
    tramad.ctl("set Port g1 loop=off");
    tramad.ctl("set Port g2 loop=off");
    wait_until("the port is open", SOON, || is_open(&tramad).then_some(()));
    assert!(tramad.configuration().contains("loop = \"off\""), "{}", tramad.configuration());
    tramad.stop();
}

/// As with a bond in balance-rr: one address sends by two ports in turn.
#[test]
fn an_address_that_moves_all_the_time_is_warned_of_once_and_nothing_is_blocked() {
    let [a, b, x, y] = ["a", "b", "x", "y"].map(Netns::new);
    let tap = |name, netns: &Netns| tap_port("n", name, netns, "ifname = \"eth0\"");
    let mut tramad = start(&a, &b, &(tap("x", &x) + &tap("y", &y)));
    let sides = [RawTap::bridge(&x, "eth0"), RawTap::bridge(&y, "eth0")];
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0; 46]].concat();
    let is_probe = |bytes: &[u8]| bytes[12..14] == [0x88, 0xb7];
    let pinging = Pinging::start(&a, B, 0.01);
    let warning = "an address moves between them more than 50 times a second";
    let mut probes = 0;
    let began = Instant::now();
    // Two seconds beyond the warning, in which it could be repeated.
    let mut warned: Option<Instant> = None;
    while warned.is_none_or(|at| at.elapsed() < Duration::from_secs(2)) {
        assert!(began.elapsed() < SOON, "no warning: {}", tramad.log());
        for side in &sides {
            side.send(&frame);
        }
        let seen = sides[0].receive(Duration::from_millis(2), is_probe);
        probes += usize::from(seen.is_some());
        if warned.is_none() && tramad.log().contains(warning) {
            warned = Some(Instant::now());
        }
    }
    assert_eq!(tramad.log().matches(warning).count(), 1, "{}", tramad.log());
    assert!(is_open(&tramad));
    assert!(probes > 0, "a guest's port sends probes");
    pinging.stop_without_loss(50);

    // A guest that sends a probe back blocks its own port, and no other.
    let probe = wait_until("a probe arrives", SOON, || {
        sides.iter().for_each(|side| side.send(&frame));
        sides[0].receive(Duration::from_millis(2), is_probe)
    });
    let mut forged = probe.clone();
    forged[49] ^= 1;
    sides[1].send(&forged);
    sides[0].send(&probe);
    tramad.wait_for_log("port x: a loop: what is sent at port x comes back", SOON);
    assert_eq!(tramad.metric("trama_port_loop_blocked", &[]), 1);
    expect_pings(&a);
    tramad.stop();
}
