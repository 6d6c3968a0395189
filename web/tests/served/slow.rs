//! Browsers that are slow, silent or many.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Site;
use crate::browser::{begin, send};
use crate::daemon::Inner;

#[test]
fn the_33rd_page_is_refused_and_a_closed_one_makes_room() {
    let (site, cookie) = Site::with_session(Inner::default());
    let mut streams: Vec<_> = (0..32).map(|_| site.stream(&cookie)).collect();
    let refused = site.get("/v1/events", &cookie);
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("close one of them"));
    streams.truncate(31);
    for _ in 0..600 {
        let request = format!("{}\r\n", site.head("GET", "/v1/events", &cookie));
        if begin(site.address, &request).0.status == 200 {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no room");
}

#[test]
fn the_fifth_capture_is_refused() {
    let mut inner = Inner::default();
    inner.add_port("vm1");
    let (site, cookie) = Site::with_session(inner);
    let request = format!("{}\r\n", site.head("GET", "/v1/capture?port=vm1", &cookie));
    let captures: Vec<_> = (0..4).map(|_| begin(site.address, &request)).collect();
    assert!(captures.iter().all(|(answer, _)| answer.status == 200));
    let refused = site.get("/v1/capture?port=vm1", &cookie);
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("4 captures"));
}

#[test]
fn a_thousand_silent_clients_delay_others_by_seconds() {
    let (site, cookie) = Site::with_session(Inner::default());
    let mut page = site.stream(&cookie);
    let mut silent = Vec::new();
    for client in 0..1000 {
        // The queue of the listening socket is full at some time; a browser would try again.
        let timeout = Duration::from_millis(if client < 64 { 1000 } else { 5 });
        let Ok(mut stream) = TcpStream::connect_timeout(&site.address, timeout) else { continue };
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
        silent.push(stream);
    }
    assert!(silent.len() > 64, "{}", silent.len());
    // A page that is open does not notice.
    page.change(|_| true);
    page.change(|_| true);
    drop(silent);
    assert_eq!(site.get("/v1/state", &cookie).status, 200);
}

#[test]
fn readers_that_do_not_read_do_not_keep_others_waiting() {
    let mut inner = Inner::default();
    (0..1000).for_each(|port| inner.add_port(&format!("port-with-a-rather-long-name-{port}")));
    let (site, cookie) = Site::with_session(inner);
    let idle: Vec<_> = (0..31).map(|_| site.stream(&cookie)).collect();
    let mut page = site.stream(&cookie);
    let (kind, view) = page.next();
    assert_eq!((kind.as_str(), view["ports"].as_array().unwrap().len()), ("state", 1000));
    for _ in 0..3 {
        assert_eq!(page.change(|_| true)["lost_contact"], serde_json::Value::Null);
    }
    drop(idle);
}

#[test]
fn what_is_no_request_harms_nothing() {
    let (site, cookie) = Site::with_session(Inner::default());
    let long = "x".repeat(70_000);
    let many = "x: y\r\n".repeat(5000);
    let texts = [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}",
        &format!("{long} / HTTP/1.1\r\n\r\n"),
        &format!("GET / HTTP/1.1\r\nhost: {long}\r\n\r\n"),
        &format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"),
        "POST /v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n{",
        "OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "CONNECT localhost:1 HTTP/1.1\r\nhost: localhost:1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\ncookie: trama=\u{ff}\r\n\r\n",
    ];
    for text in texts {
        let mut stream = TcpStream::connect(site.address).unwrap();
        let _ = stream.write_all(text.as_bytes());
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{text:.40}: {answer}");
    }
    assert_eq!(site.get("/v1/state", &cookie).status, 200);
}

#[test]
fn a_thousand_requests_at_once_are_all_answered() {
    let (site, cookie) = Site::with_session(Inner::default());
    let (address, request) = (site.address, site.head("GET", "/v1/state", &cookie) + "\r\n");
    let status = |_| send(address, &request).status;
    let of_thread = || (0..32).map(status).filter(|status| *status == 200).count();
    let answered: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(of_thread)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(answered, 1024);
}
