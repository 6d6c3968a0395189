//! The page as any client of HTTP sees it: who may open it, what goes on after a restart, and what
//! clients that are slow, many or foreign cost others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value as Json;
use trama_tests::process::raise_file_limit;
use trama_tests::tramad::free_address;
use trama_tests::{Host, Netns, SOON, Tramad, nat, wait_until};

/// What is answered to a request.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The cookie of a session that has begun.
    fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").unwrap_or_else(|| panic!("{}", self.head));
        cookie.split(';').next().expect("a value").to_owned()
    }
}

/// A page, and what its browser says of itself.
#[derive(Clone)]
struct Page {
    address: SocketAddr,
    headers: String,
}

impl Page {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the page listens");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        stream
    }

    fn send(&self, stream: &mut impl Write, head: &str, body: &str) {
        let Page { address, headers } = self;
        let host =
            if headers.contains("host:") { String::new() } else { format!("host: {address}\r\n") };
        let length = body.len();
        let text =
            format!("{head} HTTP/1.1\r\n{host}{headers}content-length: {length}\r\n\r\n{body}");
        // A server that refuses may have closed the connection.
        let _ = stream.write_all(text.as_bytes());
    }

    fn ask(&self, head: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        self.send(&mut stream, head, body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "")
    }

    /// Asks for the state where the process may have ended, or may be about to.
    fn try_state(&self) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        self.send(&mut stream, "GET /v1/state", "");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    }

    /// The same page, asked with more headers.
    fn with(&self, headers: &str) -> Page {
        Page { headers: format!("{}{headers}\r\n", self.headers), ..self.clone() }
    }

    /// The same page in a session that begins with a code of `tramactl web`.
    fn open(&self, tramad: &Tramad) -> Page {
        let link = link(tramad);
        let path = link.strip_prefix(&format!("http://{}", self.address));
        let opened = self.get(path.unwrap_or_else(|| panic!("{link}")));
        assert_eq!(opened.status, 303, "{}", opened.body);
        self.with(&format!("cookie: {}", opened.cookie()))
    }
}

/// Returns the link that `tramactl web` prints, without what it says of it.
fn link(tramad: &Tramad) -> String {
    let text = tramad.ctl("web");
    let link = text.lines().find(|line| line.starts_with("http"));
    link.unwrap_or_else(|| panic!("{text}")).to_owned()
}

const NETWORK: &str = "[[network]]\nname = \"lab\"\n";

/// Adds the page to a daemon that runs.
fn add_page(tramad: &Tramad, keys: &str) -> Page {
    let address = free_address();
    let keys = format!("[daemon]\nweb = \"{address}\"\n{keys}");
    tramad.write_configuration(&tramad.configuration().replace("[daemon]\n", &keys));
    tramad.ctl("reload");
    wait_until("the page listens", SOON, || TcpStream::connect(address).ok().map(drop));
    Page { address, headers: String::new() }
}

fn port(netns: &Netns, number: u8) -> String {
    format!(
        "[[port]]\nname = \"vm{number}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"eth0\"\n\
         netns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
        netns.name()
    )
}

#[test]
fn a_code_opens_one_session_and_nothing_opens_without() {
    let tramad = Tramad::start(NETWORK);
    let off = tramad.try_ctl(&["web"]);
    assert!(off.status == 1 && off.text.contains("the page is off; write web = "), "{}", off.text);
    let page = add_page(&tramad, "");
    for path in ["/v1/state", "/v1/events", "/v1/history?port=x", "/v1/flows?network=lab"] {
        let refused = page.get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.body.contains("tramactl web"), "{path}: {}", refused.body);
    }
    let link = link(&tramad);
    let (_, code) = link.split_once("/?code=").expect("a code");
    let wrong = page.get("/?code=0123456789abcdef0123456789abcdef");
    assert!(wrong.status == 403 && wrong.header("set-cookie").is_none());
    let opened = page.get(&format!("/?code={code}"));
    assert_eq!((opened.status, opened.header("location")), (303, Some("/")));
    let set = opened.header("set-cookie").expect("a cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let used = page.get(&format!("/?code={code}"));
    assert!(used.status == 403 && used.header("set-cookie").is_none(), "{}", used.head);

    let inside = page.with(&format!("cookie: {}", opened.cookie()));
    let state = inside.get("/v1/state");
    assert_eq!(state.json()["networks"][0]["name"], "lab");
    let forged = opened.cookie() + "0";
    assert_eq!(page.with(&format!("cookie: {forged}")).get("/v1/state").status, 401);
    for header in ["content-security-policy", "x-content-type-options", "referrer-policy"] {
        assert!(inside.get("/").header(header).is_some(), "{header}");
    }
}

#[test]
fn other_names_and_other_sites_are_refused() {
    let tramad = Tramad::start(NETWORK);
    let page = add_page(&tramad, "web-hosts = [\"lab.example\"]\n");
    let inside = page.open(&tramad);
    let refused = |page: &Page, what: &str| {
        let answer = page.get("/v1/state");
        assert!([400, 403].contains(&answer.status), "{what}: {}", answer.body);
        assert!(!answer.body.contains("networks"), "{what}");
    };
    for host in ["evil.example", "127.0.0.1.evil.example", "lab.example.evil", "", "[::1"] {
        refused(&inside.with(&format!("host: {host}")), host);
    }
    for origin in ["http://evil.example", "https://lab.example.evil", "null", "http://127.0.0.1:1"]
    {
        refused(&inside.with(&format!("origin: {origin}")), origin);
    }
    refused(&inside.with("sec-fetch-site: cross-site"), "cross-site");
    for host in ["lab.example", "localhost:80"] {
        assert_eq!(inside.with(&format!("host: {host}")).get("/v1/state").status, 200, "{host}");
    }
    let through = inside.with("host: lab.example").with("origin: https://lab.example");
    assert_eq!(through.get("/v1/state").status, 200);
}

#[test]
fn the_page_changes_what_it_may_and_each_change_is_told() {
    let a = Netns::new("a");
    let tramad = Tramad::start(&format!("{NETWORK}{}", port(&a, 1)));
    let page = add_page(&tramad, "");
    let inside = page.open(&tramad).with("x-trama: 1").with("content-type: application/json");
    let pull = r#"{"commands": [["link", "vm1", "down"]]}"#;
    let refused = inside.ask("POST /v1/transaction", pull);
    assert!(refused.status == 403 && refused.body.contains("web-write = true"), "{}", refused.body);
    let text = tramad.configuration().replace("[daemon]\n", "[daemon]\nweb-write = true\n");
    tramad.write_configuration(&text);
    tramad.ctl("reload");
    wait_until("the page may write", SOON, || {
        // The process is another one, and the session is the same.
        inside.try_state()?.contains("\"write\":true").then_some(())
    });
    // A form of another site has no such header.
    let form = page.open(&tramad).with("content-type: application/json");
    assert_eq!(form.ask("POST /v1/transaction", pull).status, 403);
    let done = inside.ask("POST /v1/transaction", pull);
    assert_eq!(done.status, 200, "{}", done.body);
    assert!(tramad.configuration().contains("cable = false"), "{}", tramad.configuration());
    assert!(tramad.ctl("observe --type config").contains("a browser"));
    let wrong = inside.ask("POST /v1/transaction", &pull.replace("vm1", "vm2"));
    assert!(wrong.status == 422 && wrong.body.contains("vm2"), "{}", wrong.body);
    let other = inside.ask("POST /v1/transaction", r#"{"commands": [["add-br", "other"]]}"#);
    assert!(other.status == 403 && other.body.contains("use tramactl"), "{}", other.body);
}

#[test]
fn a_session_goes_on_with_the_next_daemon_and_the_next_process() {
    let mut tramad = Tramad::start(NETWORK);
    let page = add_page(&tramad, "");
    let inside = page.open(&tramad);
    let goes_on = |what: &str| {
        wait_until(what, SOON, || {
            let answer = inside.try_state()?;
            assert!(!answer.contains(" 401 "), "{what}: {answer}");
            answer.contains("\"lab\"").then_some(())
        });
    };
    goes_on("the page");
    let [process] = tramad.pages()[..] else { panic!("{}", tramad.log()) };
    kill_process(process, Signal::KILL).expect("kill");
    wait_until("another process", SOON, || (tramad.pages().len() > 1).then_some(()));
    goes_on("after the end of its process");
    tramad.kill_and_follow();
    goes_on("after a kill");
    tramad.start_again();
    goes_on("after a start");
    tramad.upgrade(|tramad| drop(tramad.ctl("upgrade")));
    goes_on("after an upgrade");
}

/// Slow, silent and many clients: `tramactl` answers, and no ping is lost.
#[test]
fn clients_that_misbehave_cost_nobody_else_anything() {
    raise_file_limit(5000);
    let [a, b] = ["a", "b"].map(Netns::new);
    let tramad = Tramad::start(&format!("{NETWORK}{}{}", port(&a, 1), port(&b, 2)));
    let page = add_page(&tramad, "");
    let inside = page.open(&tramad);
    a.wait_for_ping("10.1.0.2", SOON);
    let pinging = trama_tests::host::Pinging::start(&a, "10.1.0.2", 0.01);
    let mut clients: Vec<TcpStream> = Vec::new();
    for number in 0..1000 {
        let mut stream = page.connect();
        match number % 4 {
            // Never reads.
            0 => inside.send(&mut stream, "GET /v1/events", ""),
            // Never ends its head.
            1 => drop(stream.write_all(b"GET / HTTP/1.1\r\nx-slow: ")),
            // Is no HTTP.
            2 => drop(stream.write_all(&[0xff; 300])),
            // Says nothing.
            _ => {}
        }
        clients.push(stream);
        if number % 100 == 0 {
            assert!(tramad.ctl("show").contains("lab"), "{number}");
        }
    }
    assert!(tramad.ctl("show").contains("lab"));
    pinging.stop_without_loss(50);
    drop(clients);
    wait_until("the page answers again", SOON, || {
        (inside.get("/v1/state").status == 200).then_some(())
    });
    let long = format!("/v1/history?port={}", "x".repeat(100_000));
    let refused = inside.get(&long);
    assert!((400..500).contains(&refused.status), "{}", refused.status);
    for head in ["DELETE /v1/state", "POST /", "GET /assets/../Cargo.toml", "GET /v1/nothing"] {
        let refused =
            inside.with("x-trama: 1").with("content-type: application/json").ask(head, "");
        assert!((400..500).contains(&refused.status), "{head}: {}", refused.status);
    }
}

#[test]
fn a_unix_socket_is_for_the_users_of_the_control_socket() {
    use std::os::unix::fs::PermissionsExt;
    let tramad = Tramad::start(NETWORK);
    let path = tramad.path("web.sock");
    let keys = format!("[daemon]\nweb = \"unix:{}\"\n", path.display());
    tramad.write_configuration(&tramad.configuration().replace("[daemon]\n", &keys));
    tramad.ctl("reload");
    wait_until("the page listens", SOON, || path.exists().then_some(()));
    let mode =
        |path: &Path| std::fs::metadata(path).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode(&path), mode(&tramad.path("control.sock")));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
    stream.write_all(b"GET /v1/state HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(link(&tramad).starts_with("http://localhost:9478/?code="));
    tramad.stop_and_look(|dir| assert!(!dir.join("web.sock").exists()));
}

#[test]
fn the_process_has_no_more_than_it_needs() {
    let tramad = Tramad::start(NETWORK);
    let page = add_page(&tramad, "");
    let inside = page.open(&tramad);
    assert_eq!(inside.get("/v1/state").status, 200);
    let process = tramad.pages()[0].as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    for line in
        ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        assert!(status.contains(line), "{line}: {status}");
    }
    let uids = status.lines().find(|line| line.starts_with("Uid:")).expect("users");
    assert!(!uids.split_whitespace().any(|uid| uid == "0"), "{uids}");
    // The page is off again: its process ends, and nothing listens.
    let off: String = tramad
        .configuration()
        .lines()
        .filter(|line| !line.starts_with("web"))
        .map(|line| format!("{line}\n"))
        .collect();
    tramad.write_configuration(&off);
    tramad.ctl("reload");
    wait_until("the page is off", SOON, || {
        let runs = Path::new(&format!("/proc/{process}")).exists();
        (!runs && TcpStream::connect(page.address).is_err()).then_some(())
    });
}

/// Flows of a network with NAT, and of one of its ports.
#[test]
fn flows_are_told_by_network_and_by_port_and_those_that_moved_most_come_first() {
    raise_file_limit(10_000);
    let [host, server] = nat::host_and_server();
    let [one, two] = ["vm1", "vm2"].map(nat::namespace);
    let ports =
        [nat::guest_port(&one, "vm1", &nat::VM1), nat::guest_port(&two, "vm2", &nat::VM2)].concat();
    let tramad = Tramad::start_in(&host, &format!("{}{ports}", nat::NETWORK));
    let sink = format!("{}:9", nat::NEIGHBOUR[0]);
    let _sink = server.inside({
        let sink = sink.clone();
        move || std::net::UdpSocket::bind(sink).expect("sink")
    });
    for (guest, flows) in [(&one, 3_usize), (&two, 1)] {
        nat::route(guest, &nat::GATEWAY);
        let to = sink.clone();
        let sent = guest.inside(move || {
            for flow in 1..=flows {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("socket");
                socket.send_to(&vec![0; 100 * flow], &to).expect("sent");
            }
        });
        sent.join().expect("a guest that sends");
    }
    let flows = |query: &str| -> Json {
        let text = host.run(&format!(
            "curl -s --unix-socket {} 'http://tramad/v1/flows?network=home{query}'",
            tramad.path("control.sock").display()
        ));
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    };
    let all = wait_until("the flows", SOON, || Some(flows("")).filter(|all| all["total"] == 4));
    assert_eq!(
        (&all["flows"][0]["port"], &all["flows"][0]["bytes_up"]),
        (&"vm1".into(), &300.into())
    );
    assert_eq!(all["unanswered"], serde_json::json!([]));
    let of_two = flows("&port=vm2");
    assert_eq!((&of_two["total"], &of_two["flows"][0]["bytes_up"]), (&1.into(), &100.into()));
    assert_eq!(flows("&port=vm9")["total"], 0);
    tramad.stop();
}
