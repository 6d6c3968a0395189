//! The API as any HTTP client sees it, over a real socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

use super::*;

mod events;

/// A daemon without networks, with its API on a socket and on TCP.
struct Served {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    tcp: std::net::SocketAddr,
    daemon: Arc<Daemon>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Served {
    fn start() -> Served {
        Served::within(Limits::default())
    }

    fn within(limits: Limits) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trama.toml");
        std::fs::write(&file, "").unwrap();
        let daemon = Daemon::start(crate::state::Source::at(file)).unwrap();
        let socket = dir.path().join("control.sock");
        let unix = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        unix.set_nonblocking(true).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let address = tcp.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&daemon);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let unix = UnixListener::from_std(unix)?;
                let tcp = TcpListener::from_std(tcp)?;
                let shutdown = async {
                    let _ = stopped.await;
                };
                serve_within(limits, served, unix, Some(tcp), shutdown).await;
                Ok(())
            })
        });
        Served { _dir: dir, socket, tcp: address, daemon, stop: Some(stop), thread: Some(thread) }
    }

    fn request(&self, head: &str, body: &str) -> (u16, String) {
        ask(UnixStream::connect(&self.socket).unwrap(), head, body)
    }

    /// Posts a transaction; returns status and JSON of the answer.
    fn post(&self, body: &str) -> (u16, Json) {
        let (status, body) = self.request("POST /v1/transaction", body);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
    }

    fn refusal(&self, body: &str) -> (u16, String) {
        let (status, json) = self.post(body);
        assert_eq!(json["exit"], 1);
        (status, json["error"].as_str().unwrap().to_owned())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(|thread| thread.join().unwrap());
        self.daemon.stop();
        assert!(matches!(ended, Some(Ok(()))), "{ended:?}");
    }
}

fn ask(mut stream: impl Read + Write, head: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    // The server may refuse a large body before reading it.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn a_transaction_answers_with_data() {
    let api = Served::start();
    let commands =
        json!([["add-br", "lab"], ["--columns=name,mtu", "list", "bridge"], ["list-br"]]);
    let (status, answer) = api.post(&json!({ "commands": commands, "version": 1 }).to_string());
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        json!({
            "results": [
                { "kind": "text", "lines": [] },
                { "kind": "table", "headings": ["name", "mtu"], "rows": [["lab", 1500]],
                  "form": { "form": "list" } },
                { "kind": "text", "lines": ["lab"] },
            ],
            "exit": 0,
            "not_running": [],
            "steps": ["add network lab"],
        })
    );
    assert!(api.daemon.config().network("lab").is_some());
}

#[test]
fn refusals_say_why_and_change_nothing() {
    let api = Served::start();
    let before = api.daemon.config();
    for (body, expected, part) in [
        ("", 400, "not understood"),
        ("[]", 400, "not understood"),
        ("{}", 400, "missing field `commands`"),
        (r#"{"commands": [["add-br", "lab"]], "comands": 1}"#, 400, "unknown field `comands`"),
        (r#"{"commands": [["add-br", 7]]}"#, 400, "commands[0][1]: invalid type: integer"),
        (r#"{"commands": [["add-br", "lab"]]} {}"#, 400, "trailing characters"),
        (r#"{"commands": [["add-br", "lab"]], "version": 2}"#, 400, "speaks version 2"),
        (r#"{"version": 2, "other": "shape"}"#, 400, "use the tramactl that came with it"),
        (r#"{"commands": []}"#, 422, "missing command name"),
        (r#"{"commands": [["add-br", "lab"], ["dance"]]}"#, 422, "unknown command 'dance'"),
        (r#"{"commands": [["add-br", ""]]}"#, 422, "name"),
    ] {
        let (status, error) = api.refusal(body);
        assert_eq!(status, expected, "{body}: {error}");
        assert!(error.contains(part), "{body}: {error}");
        assert_eq!(api.daemon.config(), before, "{body}");
    }
    let large = format!(r#"{{"commands": [["add-br", "{}"]]}}"#, "x".repeat(MAX_BODY));
    let (status, error) = api.refusal(&large);
    assert!(status == 413 && error.contains("split the transaction"), "{error}");
}

#[test]
fn paths_of_other_versions_and_methods_are_explained() {
    let api = Served::start();
    for head in ["POST /v2/transaction", "GET /v1/transaction", "GET /", "DELETE /metrics"] {
        let (status, body) = api.request(head, "");
        assert_eq!(status, 404, "{head}");
        let body: Json = serde_json::from_str(&body).unwrap();
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(head) && error.contains("version 1 of the API"), "{error}");
    }
}

#[test]
fn the_state_has_all_that_is_configured_and_how_it_runs() {
    let api = Served::start();
    let commands = json!([
        ["add-br", "lab"],
        ["set", "Bridge", "lab", "mode=nat-network", "subnet=10.77.0.0/24"],
        ["forward", "add", "lab", "web,tcp,127.0.0.1,0,10.77.0.5,80"],
        ["add-port", "lab", "vm1", "tag=10"],
        ["add-port", "lab", "vm2", "vlan_mode=trunk"],
    ]);
    let dir = api.socket.parent().unwrap().display().to_string();
    let place = |port: &str| format!("options:path={dir}/{port}.sock");
    let typed = |port: &str| json!(["set", "Interface", port, "type=vhost-user", place(port)]);
    let mut commands = commands.as_array().unwrap().clone();
    commands[2][3] = "web,tcp,127.0.0.1,47807,10.77.0.5,80".into();
    commands.extend([typed("vm1"), typed("vm2")]);
    let (status, answer) = api.post(&json!({ "commands": commands, "version": 1 }).to_string());
    assert_eq!(status, 200, "{answer}");
    let (status, body) = api.request("GET /v1/state", "");
    assert_eq!(status, 200, "{body}");
    let state: trama_api::state::State = serde_json::from_str(&body).unwrap();
    let [network] = state.networks.as_slice() else { panic!("{body}") };
    assert_eq!((&*network.name, &*network.mode), ("lab", "nat-network"));
    assert_eq!(network.subnets[0], "10.77.0.0/24");
    let gateway = network.gateway.as_ref().unwrap();
    assert_eq!(gateway.addresses[0].to_string(), "10.77.0.1");
    let [forward] = network.forwards.as_slice() else { panic!("{body}") };
    assert_eq!((&*forward.host, &*forward.guest), ("127.0.0.1:47807", "10.77.0.5:80"));
    let names = ["vm1", "vm2"];
    assert_eq!(state.ports.iter().map(|port| &*port.name).collect::<Vec<_>>(), names);
    assert_eq!(state.numbers.ports.iter().map(|port| &*port.name).collect::<Vec<_>>(), names);
    let [vm1, vm2] = state.ports.as_slice() else { panic!("{body}") };
    assert_eq!((vm1.tag, &*vm1.vlan_mode, &*vm2.vlan_mode), (Some(10), "access", "trunk"));
    assert_eq!(vm1.state, trama_api::state::PortState::Waiting);
    assert_eq!(vm1.path, Some(format!("{dir}/vm1.sock")));
    assert!(vm1.ofport != vm2.ofport);
}

#[test]
fn flows_are_told_of_networks_with_nat_alone() {
    let api = Served::start();
    api.post(r#"{"commands": [["add-br", "lab"]], "version": 1}"#);
    for (query, expected, part) in [
        ("network=lab", 422, "network lab has no NAT"),
        ("network=x", 422, "there is no network"),
        ("", 400, "missing field `network`"),
        ("network=lab&port=x", 422, "network lab has no NAT"),
        ("network=lab&of=x", 400, "unknown field `of`"),
    ] {
        let (status, body) = api.request(&format!("GET /v1/flows?{query}"), "");
        assert!(status == expected && body.contains(part), "{query}: {body}");
    }
}

#[test]
fn without_a_page_there_is_no_link_to_it() {
    let api = Served::start();
    let (status, body) = api.request("POST /v1/web", "null");
    assert!(status == 422 && body.contains("the page is off; write web = "), "{body}");
    assert_eq!(api.request("GET /v1/web", "").0, 404, "its settings have the secret");
    assert_eq!(api.request("POST /v1/web/code", "{}").0, 404);
}

/// What the process that serves browsers may ask for.
#[test]
fn the_page_changes_nothing_unless_it_may() {
    let api = Served::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (overview, scrapes, readers) = Default::default();
    let daemon = Arc::clone(&api.daemon);
    let router = web::router(Arc::new(Api { daemon, overview, scrapes, readers }));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            let limit = Duration::from_secs(20);
            let served = trama_serve::serve(listener, router, Limits::default());
            let _ = tokio::time::timeout(limit, served).await;
        });
    });
    let ask =
        |head: &str, body: &str| ask(std::net::TcpStream::connect(address).unwrap(), head, body);
    let add = r#"{"commands": [["add-br", "lab"]], "version": 1}"#;
    let (status, body) = ask("POST /v1/transaction", add);
    assert!(status == 403 && body.contains("web-write = true"), "{body}");
    assert!(api.daemon.config().networks.is_empty());
    let mut config = api.daemon.config().daemon;
    config.web_write = true;
    api.daemon.web.configure(&config);
    // Something that it shows, and nothing else.
    let (status, body) = ask("POST /v1/transaction", add);
    assert!(status == 403 && body.contains("use tramactl for anything else"), "{body}");
    assert!(api.daemon.config().networks.is_empty());
    api.post(add);
    api.daemon.web.configure(&config);
    let tap = r#"["add-port", "lab", "t", "--", "set", "Interface", "t", "type=tap"]"#;
    for command in [
        r#"["link", "t", "down"]"#,
        r#"["set", "Port", "t", "tag=7"]"#,
        r#"["clear", "Port", "t", "network"]"#,
    ] {
        let body = format!(r#"{{"commands": [{command}], "version": 1}}"#);
        let (status, body) = ask("POST /v1/transaction", &body);
        assert!(status == 422 && body.contains('t'), "{body}");
    }
    for command in [
        tap,
        r#"["set", "Interface", "t", "tag=7"]"#,
        r#"["set", "Port", "t", "tag=7", "spoof=allow"]"#,
        r#"["set", "Port", "t", "path=/tmp/x"]"#,
        r#"["--", "link", "t", "down"]"#,
        r#"[]"#,
    ] {
        let body = format!(r#"{{"commands": [["link", "t", "up"], {command}], "version": 1}}"#);
        assert_eq!(ask("POST /v1/transaction", &body).0, 403, "{command}");
    }
    // Of a network that this host does not have, so that no process is started.
    config.web = "192.0.2.1:9478".parse().ok();
    api.daemon.web.configure(&config);
    let invitation = api.request("POST /v1/web", "null").1;
    let invitation: trama_api::state::Invitation = serde_json::from_str(&invitation).unwrap();
    let code = format!("{{\"code\":\"{}\"}}", invitation.code);
    assert_eq!(ask("POST /v1/web/code", &code).0, 200);
    let (status, body) = ask("POST /v1/web/code", &code);
    assert!(status == 422 && body.contains("was used"), "{body}");
    assert_eq!(ask("POST /v1/web/code", "{}").0, 400);
    for head in ["GET /v1/state", "GET /v1/web"] {
        assert_eq!(ask(head, "").0, 200, "{head}");
    }
    for head in ["POST /v1/attach", "POST /v1/web", "GET /metrics"] {
        assert_eq!(ask(head, "").0, 404, "{head}");
    }
    drop(served);
}

#[test]
fn tcp_serves_the_metrics_and_nothing_else() {
    let api = Served::start();
    let connect = || std::net::TcpStream::connect(api.tcp).unwrap();
    let (status, text) = ask(connect(), "GET /metrics", "");
    assert!(status == 200 && text.contains("trama_build_info"), "{text}");
    assert_eq!(api.request("GET /metrics", "").0, 200);
    let add = r#"{"commands": [["add-br", "lab"]]}"#;
    assert_eq!(ask(connect(), "POST /v1/transaction", add).0, 404);
    assert!(api.daemon.config().networks.is_empty());
}

/// Short times, so that tests need not wait long.
const SHORT: Limits = Limits {
    head: Duration::from_millis(300),
    request: Duration::from_secs(60),
    connections: 32,
    per_user: 8,
    waiting: 64,
    patience: Duration::from_millis(100),
};

/// Time limit for anything on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

const LIST: &str = r#"{"commands": [["list-br"]]}"#;

/// Returns the number of descriptors that this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Reads until the other side closes; returns what came.
fn rest(mut stream: impl Read) -> String {
    let mut answer = Vec::new();
    // A reset closes as well.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn silent_clients_do_not_block_others_and_are_closed() {
    let api = Served::within(SHORT);
    // Once it answers, it has all that it needs for itself.
    assert_eq!(api.post(LIST).0, 200);
    let before = descriptors();
    let silent: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(api.tcp).unwrap()).collect();
    // What was open before may have been closed meanwhile.
    let of_daemon = descriptors().saturating_sub(before + silent.len());
    assert!(of_daemon <= SHORT.connections + 2, "the daemon holds {of_daemon} of 200");
    assert_eq!(api.post(LIST).0, 200, "tramactl is served meanwhile");
    let began = Instant::now();
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE / 3)).unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0)), "closed without a word");
    }
    println!("200 silent clients were closed within {:?}", began.elapsed());
    assert_eq!(ask(std::net::TcpStream::connect(api.tcp).unwrap(), "GET /metrics", "").0, 200);
}

#[test]
fn a_head_that_never_ends_ends_the_connection() {
    let api = Served::within(SHORT);
    let mut stream = std::net::TcpStream::connect(api.tcp).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nx: ").unwrap();
    let began = Instant::now();
    // The client is never quiet for long, so only a limit on the whole head ends this. If none is
    // set, that of hyper is 30 s.
    while stream.write_all(b"y").is_ok() {
        match stream.read(&mut [0; 64]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(began.elapsed() < PATIENCE / 3, "it is still open");
    }
    assert!(began.elapsed() >= SHORT.head / 2, "not at once, either");
}

#[test]
fn a_connection_carries_one_request() {
    let api = Served::start();
    let mut stream = UnixStream::connect(&api.socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = rest(stream).to_ascii_lowercase();
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[test]
fn one_user_has_a_limited_number_of_connections() {
    let api = Served::within(Limits { head: PATIENCE, per_user: 3, waiting: 2, ..SHORT });
    let mut silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&api.socket).unwrap()).collect();
    let began = Instant::now();
    let (status, answer) = api.post(LIST);
    assert_eq!(status, 503, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("has 3 connections"), "{answer}");
    assert!(began.elapsed() >= SHORT.patience, "it waited for its turn");
    // Connections beyond those that may wait are refused at once.
    let crowd: Vec<_> = (0..40).map(|_| UnixStream::connect(&api.socket).unwrap()).collect();
    assert!(crowd.into_iter().all(|stream| rest(stream).starts_with("HTTP/1.1 503 ")));
    silent.pop();
    let deadline = Instant::now() + PATIENCE;
    while api.post(LIST).0 != 200 {
        assert!(Instant::now() < deadline, "one has left, and there is no room");
    }
}
