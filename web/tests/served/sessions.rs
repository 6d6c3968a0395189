//! Who is let in.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use trama_api::state::WebSettings;

use crate::Site;
use crate::browser::send;
use crate::daemon::{Daemon, Inner};

#[test]
fn a_code_opens_one_session() {
    let codes = HashSet::from(["good".to_owned()]);
    let site = Site::start(Inner { codes, ..Inner::default() });
    let opened = site.get("/?code=good", "");
    assert_eq!((opened.status, opened.header("location")), (303, "/"));
    let set = opened.header("set-cookie");
    assert!(set.ends_with("; HttpOnly; SameSite=Strict; Path=/; Max-Age=43200"), "{set}");
    let page = site.get("/", &opened.cookie());
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    for code in ["good", "wrong", "", "%00", &"x".repeat(3000)] {
        let refused = site.get(&format!("/?code={code}"), "");
        assert_eq!((refused.status, refused.header("set-cookie")), (403, ""), "{code}");
        assert!(refused.text().contains("<body data-reason=\"used\""), "{}", refused.text());
    }
    // A browser with a session is brought to the page by any link, and keeps its session.
    let again = site.get("/?code=good", &opened.cookie());
    let answered = (again.status, again.header("location"), again.header("set-cookie"));
    assert_eq!(answered, (303, "/", ""));
}

#[test]
fn without_a_session_there_are_only_assets_and_the_login_page() {
    let (site, cookie) = Site::with_session(Inner::default());
    let changed = format!("{cookie}0");
    for cookie in ["", "trama-00000000=1.2.3", changed.as_str()] {
        let login = site.get("/", cookie);
        assert_eq!(login.status, 401);
        assert!(login.text().contains("tramactl web") && !login.text().contains("data-reason"));
        for route in trama_web::ROUTES.iter().filter(|route| route.session) {
            let answer = match route.method {
                "GET" => site.get(route.path, cookie),
                _ => site.post(route.path, cookie, "{}"),
            };
            assert_eq!(answer.status, 401, "{}", route.path);
            assert!(answer.error().contains("tramactl web"));
        }
    }
    let style = site.get("/assets/style.css", "");
    assert_eq!((style.status, style.header("content-type")), (200, "text/css; charset=utf-8"));
    assert_eq!(style.header("cache-control"), "no-cache");
    let head = site.head("GET", "/assets/style.css", "");
    let again = format!("{head}if-none-match: {}\r\n\r\n", style.header("etag"));
    let again = send(site.address, &again);
    assert_eq!((again.status, again.body.len()), (304, 0));
    for path in ["/assets/../Cargo.toml", "/assets/..%2fCargo.toml", "/assets/", "/etc", "/v1/web"]
    {
        assert_eq!(site.get(path, &cookie).status, 404, "{path}");
    }
}

#[test]
fn a_session_goes_on_with_the_next_daemon() {
    let settings = WebSettings { key: [7; 32], ..WebSettings::default() };
    let inner = || Inner { settings: settings.clone(), ..Inner::default() };
    let (_, cookie) = Site::with_session(inner());
    assert_eq!(Site::start(inner()).get("/v1/state", &cookie).status, 200);
    assert_eq!(Site::start(Inner::default()).get("/v1/state", &cookie).status, 401);
}

#[test]
fn other_sites_are_kept_out_and_every_answer_has_the_headers() {
    let settings = WebSettings { hosts: vec!["lab.example.org".into()], ..Default::default() };
    let (site, cookie) = Site::with_session(Inner { settings, ..Inner::default() });
    let ask = |path: &str, host: &str, more: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n{more}\r\n");
        send(site.address, &head)
    };
    let evil = ask("/v1/state", "evil.example:80", "");
    assert_eq!(evil.status, 403);
    assert!(evil.error().contains("web-hosts"));
    assert_eq!(evil.header("access-control-allow-origin"), "");
    let page = ask("/", "<script>alert(1)</script>", "");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.status >= 400 && !page.text().contains("alert"));
    assert_eq!(ask("/v1/state", "lab.example.org", "").status, 200);
    assert_eq!(ask("/v1/state", "localhost", "origin: http://evil.example\r\n").status, 403);
    assert_eq!(ask("/v1/state", "localhost", "sec-fetch-site: cross-site\r\n").status, 403);
    let csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
               connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let long = format!("/v1/flows?network={}", "x".repeat(60_000));
    for path in ["/", "/nothing", "/v1/state", "/assets/style.css", "/v1/history?port=x", &long] {
        let answer = ask(path, "localhost", "");
        assert!(answer.header("content-security-policy") == csp, "{path:.40}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        assert_ne!(answer.header("cache-control"), "");
    }
    assert_eq!(ask(&long, "localhost", "").status, 414);
    for (length, status) in [(100_000, 414), (1_000_000, 431)] {
        let longer = format!("/?code={}", "x".repeat(length));
        assert_eq!(ask(&longer, "localhost", "").status, status, "{length}");
    }
}

#[test]
fn a_unix_socket_is_served_as_well() {
    let path = std::env::temp_dir().join(format!("trama-web-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let (daemon, web) = trama_web::link::pair().unwrap();
    let _daemon = Daemon::start(daemon, Inner::default());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = trama_web::process::serve_until_end(web, listener.into());
        runtime.unwrap().block_on(served).unwrap();
    });
    for (host, wanted) in [("localhost", "HTTP/1.1 401 "), ("evil.example", "HTTP/1.1 403 ")] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(wanted), "{answer}");
    }
    std::fs::remove_file(&path).unwrap();
}
