//! The NAT modes with a hostile guest next to a well-behaved one; forwards that change under
//! traffic; DNS over TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::nice;
use rustix::thread::gettid;
use trama_tests::nat::{
    GATEWAY, HOST, NEIGHBOUR as SERVER, NETWORK, SOON, VM1, VM2, at, guest_port, host_and_server,
    listen, namespace, route,
};
use trama_tests::process::{processor_time, raise_file_limit};
use trama_tests::{Host, Netns, Process, Tramad, wait_until};

/// L4 ports of the server: one never accepts, one sends without end, one reads, one closes at once.
const PARKED: u16 = 9001;
const SOURCE: u16 = 9002;
const SINK: u16 = 9003;
const CLOSED: u16 = 9004;
/// Connects, of which the 99th percentile is reported.
const CONNECTS: usize = 2000;
/// Number of connects that may be slow because the machine was paused.
const STALLS: usize = 3;

/// Serves these L4 ports; the parked connections last as long as the returned listener.
fn serve(server: &Netns) -> TcpListener {
    let source = listen(server, &format!("[::]:{SOURCE}"));
    thread::spawn(move || {
        for mut client in source.incoming().flatten() {
            thread::spawn(move || while client.write_all(&[7; 65_536]).is_ok() {});
        }
    });
    let closed = listen(server, &format!("[::]:{CLOSED}"));
    thread::spawn(move || closed.incoming().for_each(drop));
    let sink = listen(server, &format!("[::]:{SINK}"));
    thread::spawn(move || {
        for mut client in sink.incoming().flatten() {
            thread::spawn(move || {
                let mut bytes = vec![0; 65_536];
                while client.read(&mut bytes).is_ok_and(|count| count > 0) {}
            });
        }
    });
    listen(server, &format!("[::]:{PARKED}"))
}

fn at_server(port: u16) -> SocketAddr {
    at(SERVER[0], port)
}

/// Measures a well-behaved guest: median and 99th percentile of connect times, and bytes received
/// for a second of trama's processor time. It has real-time priority, so that only the NAT can
/// delay it.
fn measure(vm: &Netns, tramad: &Tramad) -> ([Duration; 2], f64) {
    let processes = [tramad.id(), tramad.gateway_after(0).as_raw_pid() as u32];
    let spent = move || processes.map(processor_time).iter().sum::<f64>() / 1e9;
    let job = vm.inside(move || {
        let thread = gettid().as_raw_nonzero().to_string();
        // Where real-time priority is not permitted, it also waits for other threads.
        let _ = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).status();
        let mut times: Vec<Duration> = (0..CONNECTS)
            .map(|_| {
                let began = Instant::now();
                TcpStream::connect_timeout(&at_server(CLOSED), SOON).expect("connect");
                began.elapsed()
            })
            .collect();
        times.sort();
        // A lost SYN is retransmitted after a second. Connects are sequential, so a pause of the
        // machine delays only one.
        let slowest = times[CONNECTS - 1 - STALLS];
        assert!(slowest < Duration::from_secs(1), "{STALLS} connects and more took {slowest:?}");
        let mut stream = TcpStream::connect_timeout(&at_server(SOURCE), SOON).expect("connect");
        let (mut bytes, mut total, began) = (vec![0; 1 << 20], 0, Instant::now());
        let before = spent();
        while began.elapsed() < Duration::from_secs(2) {
            total += stream.read(&mut bytes).expect("read");
        }
        println!("{:.2} Gb/s", total as f64 * 8e-9 / began.elapsed().as_secs_f64());
        ([times[CONNECTS / 2], times[CONNECTS * 99 / 100]], total as f64 / (spent() - before))
    });
    job.join().expect("a machine that works")
}

/// Repeats `job` on a guest until `over`, with its kept connections and the number of
/// repetitions. It runs at idle priority, so that it costs others only the gateway's time.
fn repeat_until(
    vm: &Netns,
    over: &Arc<AtomicBool>,
    job: fn(&mut Vec<TcpStream>, u64),
) -> thread::JoinHandle<()> {
    let over = over.clone();
    vm.inside(move || {
        nice(19).expect("nice");
        let (mut kept, mut count) = (Vec::new(), 0);
        while !over.load(Ordering::Relaxed) {
            job(&mut kept, count);
            count += 1;
        }
    })
}

/// Downloads at full rate, as an ordinary guest does.
fn download(vm: &Netns, over: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    repeat_until(vm, over, |kept, _| {
        if kept.is_empty() {
            kept.push(TcpStream::connect_timeout(&at_server(SOURCE), SOON).expect("connect"));
        }
        let _ = kept[0].read(&mut [0; 65_536]).expect("read");
    })
}

/// Starts the jobs of a hostile guest, each until `over`.
fn start_hostile_jobs(vm: &Netns, over: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    let until = |job| repeat_until(vm, over, job);
    vec![
        // SYNs that are never answered.
        until(|_, count| {
            let octets = [192, 0, 2, (count % 250) as u8];
            let to = SocketAddr::from((octets, 1 + (count / 250 % 60_000) as u16));
            let _ = TcpStream::connect_timeout(&to, Duration::from_micros(200));
        }),
        // As many flows as possible.
        until(|kept, _| match TcpStream::connect_timeout(&at_server(PARKED), SOON) {
            Ok(stream) if kept.len() < 3000 => kept.push(stream),
            Ok(_) => kept.clear(),
            Err(_) => {}
        }),
        // Single bytes.
        until(|kept, _| {
            if kept.is_empty() {
                let stream = TcpStream::connect_timeout(&at_server(SINK), SOON);
                kept.extend(stream.inspect(|stream| stream.set_nodelay(true).expect("nodelay")));
            }
            if kept.iter().any(|mut stream| stream.write_all(b"x").is_err()) {
                kept.clear();
            }
        }),
        // Streams that are never read.
        until(|kept, _| {
            if kept.len() < 100 {
                kept.extend(TcpStream::connect_timeout(&at_server(SOURCE), SOON));
            } else {
                // The flows are held; sleeping leaves the processor to others.
                thread::sleep(Duration::from_millis(10));
            }
        }),
    ]
}

#[test]
fn a_hostile_machine_does_not_stop_another() {
    raise_file_limit(10_000);
    let [host, server] = host_and_server();
    // A route to nowhere.
    host.run("ip route add 192.0.2.0/24 via 203.0.113.2");
    server.run("ip route add blackhole 192.0.2.0/24; echo 1 >/proc/sys/net/ipv4/ip_forward");
    let [vm1, vm2] = ["vm1", "vm2"].map(namespace);
    let ports = [guest_port(&vm1, "vm1", &VM1), guest_port(&vm2, "vm2", &VM2)].concat();
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{ports}"));
    let _parked = serve(&server);
    route(&vm1, &GATEWAY);
    route(&vm2, &GATEWAY);
    let (alone, alone_rate) = measure(&vm1, &tramad);
    let over = Arc::new(AtomicBool::new(false));
    let polite = download(&vm2, &over);
    let (shared, share) = measure(&vm1, &tramad);
    over.store(true, Ordering::Relaxed);
    polite.join().expect("polite");
    let over = Arc::new(AtomicBool::new(false));
    let hostile = start_hostile_jobs(&vm2, &over);
    wait_until("the hostile machine has flows", SOON, || {
        (tramad.ctl("flows home").lines().count() > 500).then_some(())
    });
    let (beside, rate) = measure(&vm1, &tramad);
    over.store(true, Ordering::Relaxed);
    println!(
        "connects, 50th and 99th of 100: alone {alone:.2?}, beside a download {shared:.2?}, beside hostility {beside:.2?}"
    );
    let rates = [alone_rate, share, rate].map(|rate| rate * 8e-9);
    println!("Gb for a second of processor time: {rates:.2?}");
    assert!(rate > share / 4.0, "{rate} of {share} bytes for a second");
    hostile.into_iter().for_each(|job| job.join().expect("hostile"));
    tramad.stop();
}

/// Sends `text` to the first client of a guest's L4 port; returns the client's address.
fn send_to_client(vm: &Netns, port: u16, text: &'static str) -> thread::JoinHandle<SocketAddr> {
    let listener = listen(vm, &format!("[::]:{port}"));
    thread::spawn(move || {
        let (mut client, address) = listener.accept().expect("a client");
        client.write_all(text.as_bytes()).expect("send");
        address
    })
}

/// Returns what a TCP server sends; empty if there is none.
fn receive_from(from: &Netns, to: &str) -> String {
    let to: SocketAddr = to.parse().expect("address");
    let job = from.inside(move || {
        let mut text = String::new();
        let Ok(mut stream) = TcpStream::connect_timeout(&to, SOON) else { return text };
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        let _ = stream.read_to_string(&mut text);
        text
    });
    job.join().expect("a client")
}

#[test]
fn forwards_follow_their_rules() {
    let [host, server] = host_and_server();
    let [vm1, vm2] = ["vm1", "vm2"].map(namespace);
    let forwards = "forward = [\"web,tcp,,8080,10.7.0.11,80\", \"six,tcp,::,8180,fd00:7::11,80\", \
                    \"span,tcp,,8200-8209,10.7.0.11,8200-8209\", \"name,udp,,5300,10.7.0.11,5300\"]\n";
    let ports = [guest_port(&vm1, "vm1", &VM1), guest_port(&vm2, "vm2", &VM2)].concat();
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{forwards}{ports}"));
    route(&vm1, &GATEWAY);
    route(&vm2, &GATEWAY);

    // The guest sees the client's address, over IPv4 and IPv6.
    for (at, to) in [format!("{}:8080", HOST[0]), format!("[{}]:8180", HOST[1])].iter().enumerate()
    {
        let sender = send_to_client(&vm1, 80, "one");
        assert_eq!(receive_from(&server, to), "one", "{to}");
        let client = sender.join().expect("sender").ip().to_canonical();
        assert_eq!(client.to_string(), SERVER[at]);
    }
    // The last port of a range.
    let sender = send_to_client(&vm1, 8209, "last");
    assert_eq!(receive_from(&server, &format!("{}:8209", HOST[0])), "last");
    sender.join().expect("sender");

    // A UDP forward without an address accepts IPv4 and IPv6.
    let echo = vm1.inside(|| UdpSocket::bind("0.0.0.0:5300").expect("bind")).join();
    let echo = echo.expect("socket");
    echo.set_read_timeout(Some(SOON)).expect("timeout");
    for address in [format!("{}:5300", HOST[0]), format!("[{}]:5300", HOST[1])] {
        let to: SocketAddr = address.parse().expect("address");
        let client = server.inside(move || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("bind");
            socket.set_read_timeout(Some(SOON)).expect("timeout");
            socket.send_to(b"hello", to).expect("send");
            socket
        });
        let client = client.join().expect("client");
        let (count, from) =
            echo.recv_from(&mut [0; 100]).unwrap_or_else(|e| panic!("{address}: {e}"));
        echo.send_to(b"back", from).expect("answer");
        assert_eq!(count, 5);
        if to.is_ipv4() {
            assert_eq!(
                from,
                SocketAddr::new(
                    SERVER[0].parse().expect("ip"),
                    client.local_addr().expect("local").port()
                )
            );
        }
        let (count, from) = client.recv_from(&mut [0; 100]).expect("an answer");
        assert_eq!((count, from), (4, to));
    }

    // Another guest: new clients reach it at the same port of the host.
    let text = tramad.configuration();
    tramad.write_configuration(&text.replace("8080,10.7.0.11", "8080,10.7.0.12"));
    tramad.ctl("reload");
    tramad.wait_for_gateway("home");
    let sender = send_to_client(&vm2, 80, "two");
    assert_eq!(receive_from(&server, &format!("{}:8080", HOST[0])), "two");
    assert_eq!(sender.join().expect("sender").ip().to_canonical().to_string(), SERVER[0]);
    // Client address hidden: the guest sees its gateway's.
    let text = tramad.configuration();
    tramad.write_configuration(&text.replace("8080,10.7.0.12,80", "8080,10.7.0.12,80,as-gateway"));
    tramad.ctl("reload");
    tramad.wait_for_gateway("home");
    let sender = send_to_client(&vm2, 80, "hidden");
    assert_eq!(receive_from(&server, &format!("{}:8080", HOST[0])), "hidden");
    assert_eq!(sender.join().expect("sender").ip().to_canonical().to_string(), GATEWAY[0]);
    // A removed rule: the port is closed, and the guest receives nothing.
    let capture = vm2.capture("eth0", "tcp port 80");
    tramad.ctl("forward del home web");
    tramad.wait_for_gateway("home");
    assert_eq!(receive_from(&server, &format!("{}:8080", HOST[0])), "");
    assert!(!capture.text().contains(".80:"), "{}", capture.text());

    // Taken, then free.
    let taken = listen(&host, "0.0.0.0:8300");
    let late = tramad.try_ctl(&["forward", "add", "home", "late,tcp,,8300,10.7.0.12,80"]);
    assert_eq!(late.status, 65, "{}", late.text);
    let pending = || tramad.ctl("forward list home").lines().any(|l| l.contains("pending"));
    assert!(pending());
    drop(taken);
    wait_until("the port is had", SOON, || (!pending()).then_some(()));
    let sender = send_to_client(&vm2, 80, "late");
    assert_eq!(receive_from(&server, &format!("{}:8300", HOST[0])), "late");
    sender.join().expect("sender");
    tramad.stop();
}

#[test]
fn clients_that_found_no_descriptor_are_served_when_there_are_some() {
    let [host, server] = host_and_server();
    let vm = namespace("vm");
    let forward = "forward = [\"web,tcp,,8080,10.7.0.11,80\"]\n";
    let text = format!("{NETWORK}{forward}{}", guest_port(&vm, "vm", &VM1));
    let tramad = Tramad::start_in(&host, &text);
    route(&vm, &GATEWAY);
    let id = tramad.gateway_after(0).as_raw_nonzero();
    let sender = send_to_client(&vm, 80, "at last");
    // As the gateway's user, for which it takes no capability.
    let owner = host.run(&format!("awk '/^Uid/ {{ print $2 }}' /proc/{id}/status"));
    let owner = owner.trim();
    let limit = |count: &str| {
        host.run(&format!(
            "setpriv --reuid {owner} --regid {owner} --clear-groups \
             prlimit --pid {id} --nofile={count}:20000"
        ))
    };
    limit("3");
    let client = thread::scope(|scope| {
        let client = scope.spawn(|| receive_from(&server, &format!("{}:8080", HOST[0])));
        wait_until("the client is refused a descriptor", SOON, || {
            let metrics = host.run(&format!("curl -s {}/metrics", tramad.metrics_address()));
            let refused = metrics.lines().any(|line| {
                line.contains("file_limit") && !line.ends_with(" 0") && !line.starts_with('#')
            });
            refused.then_some(())
        });
        limit("20000");
        client.join().expect("client")
    });
    assert_eq!(client, "at last");
    sender.join().expect("sender");
    tramad.stop();
}

/// A DNS query for the IPv4 address of `one.test`, as TCP carries it (RFC 1035, 4.2.2).
const QUERY: [u8; 28] = *b"\0\x1a\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03one\x04test\0\0\x01\0\x01";

#[test]
fn dns_is_answered_over_tcp() {
    let [host, _server] = host_and_server();
    let vm = namespace("vm");
    host.run("ip address add 192.0.2.1/32 dev lo");
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file"]);
    command.args(["--log-facility=-", "--bind-interfaces", "--no-resolv", "--no-hosts"]);
    command.args(["--listen-address=192.0.2.1", "--address=/one.test/198.51.100.99"]);
    let mut dnsmasq = Process::spawn("dnsmasq", command, &dir.path().join("dnsmasq.log"));
    dnsmasq.wait_for_log("started", SOON);
    let text = format!("{NETWORK}{}", guest_port(&vm, "vm", &VM1));
    let tramad = Tramad::start_inside(&host, &["192.0.2.1"], &text);
    route(&vm, &GATEWAY);
    for gateway in [format!("{}:53", GATEWAY[0]), format!("[{}]:53", GATEWAY[1])] {
        let to: SocketAddr = gateway.parse().expect("address");
        let job = vm.inside(move || {
            let mut stream = TcpStream::connect_timeout(&to, SOON).expect("connect");
            stream.set_read_timeout(Some(SOON)).expect("timeout");
            // Two queries on one connection, the first in pieces.
            for byte in QUERY {
                stream.write_all(&[byte]).expect("ask");
            }
            stream.write_all(&QUERY).expect("ask");
            (0..2).map(|_| answer(&mut stream)).collect::<Vec<_>>()
        });
        for answer in job.join().expect("a client") {
            assert_eq!(answer[..2], QUERY[2..4], "{gateway}");
            assert!(answer.ends_with(&[198, 51, 100, 99]), "{gateway}: {answer:?}");
        }
    }
    tramad.stop();
}

fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).expect("an answer");
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut answer).expect("an answer");
    answer
}
