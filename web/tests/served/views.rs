//! What the page is told, and what it asks.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trama_api::state::WebSettings;

use crate::Site;
use crate::browser::PATIENCE;
use crate::daemon::Inner;

fn with_ports(names: &[&str]) -> Inner {
    let mut inner = Inner::default();
    inner.state.version = "0.1.0".into();
    inner.state.networks.push(trama_api::state::Network {
        name: "lab".into(),
        mode: "internal".into(),
        ..Default::default()
    });
    names.iter().for_each(|name| inner.add_port(name));
    inner
}

fn write() -> WebSettings {
    WebSettings { write: true, ..WebSettings::default() }
}

#[test]
fn a_page_is_told_all_and_then_what_changes() {
    let markup = "<img src=x onerror=alert(1)>";
    let (site, cookie) = Site::with_session(with_ports(&["vm1", markup]));
    let mut stream = site.stream(&cookie);
    let (kind, view) = stream.next();
    assert_eq!(kind, "state");
    assert_eq!((&view["write"], &view["version"]), (&json!(false), &json!("0.1.0")));
    assert_eq!(view["ports"][1]["name"], markup);
    assert_eq!(view["ports"][1]["slot"], 1);
    assert_eq!(view["ports"][0]["type"], "");
    assert_eq!(view["networks"][0]["vlans"], json!([]));
    let change = stream.change(|_| true);
    assert_eq!(change["sequence"].as_u64(), view["sequence"].as_u64().map(|it| it + 1));
    assert_eq!(change["lost_contact"], Value::Null);
    // 1000 bytes in a second.
    assert_eq!(site.get("/v1/state", &cookie).json()["ports"][0]["rate"]["rx_bps"], 8000);

    site.daemon().with(|inner| {
        inner.add_port("vm2");
        inner.state.numbers.ports[0].rx_bytes = 0;
        inner.state.numbers.ports[0].drops.push(("loop".into(), 3));
    });
    let change = stream.change(|change| change["ports"][0] != Value::Null);
    let names: Vec<_> = change["ports"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["vm1", "vm2"]);
    assert_eq!(change["ports"][0]["rate"]["rx_bps"], 0, "the counter has fallen");
    assert_eq!(change["ports"][0]["drops"][0]["total"], 3);
    assert_eq!(change["attention"][0]["object"], "port:vm1");
    assert_eq!(change["attention"][0]["kind"], "drops");

    site.daemon().with(|inner| {
        inner.state.ports.remove(0);
        inner.state.numbers.ports.remove(0);
    });
    let change = stream.change(|change| change["removed_ports"][0] != Value::Null);
    assert_eq!(change["removed_ports"], json!(["vm1"]));
    assert_eq!(site.get("/v1/history?port=vm1", &cookie).status, 404);
    let history = site.get("/v1/history?port=vm2", &cookie).json();
    assert_eq!(history["step"], 1);
    assert!(history["end"].as_u64().unwrap() > 1_700_000_000);
    let length = |key: &str| history[key].as_array().unwrap().len();
    assert!(length("rx") > 0 && length("rx") == length("tx") && length("rx") == length("drops"));
}

#[test]
fn events_come_with_the_next_change_and_go_on_behind_the_last() {
    let (site, cookie) = Site::with_session(with_ports(&[]));
    let mut stream = site.stream(&cookie);
    let event = "id: 41\ndata: {\"id\":41,\"time\":\"2025-11-24T16:00:00.120Z\",\"type\":\"link\",\
                 \"port\":\"vm1\",\"verdict\":\"up\"}\n\n";
    let begin = Instant::now();
    while site.daemon().event(event) == 0 {
        assert!(begin.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20));
    }
    let change = stream.change(|change| change["events"][0] != Value::Null);
    assert_eq!(
        (&change["events"][0]["id"], &change["events"][0]["port"]),
        (&json!(41), &json!("vm1"))
    );
    assert!(change["events"][0]["line"].as_str().unwrap().contains("vm1"));
    assert_eq!(site.get("/v1/state", &cookie).json()["events"][0]["id"], 41);
    site.daemon().end_events();
    while site.daemon().with(|inner| inner.after.len()) < 2 {
        assert!(begin.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20));
    }
    assert_eq!(site.daemon().with(|inner| inner.after.clone()), [None, Some("41".into())]);
}

#[test]
fn a_daemon_that_does_not_answer_is_told_within_three_seconds_and_the_page_goes_on() {
    let (site, cookie) = Site::with_session(with_ports(&["vm1"]));
    let mut stream = site.stream(&cookie);
    stream.change(|change| change["lost_contact"].is_null());
    site.daemon().with(|inner| inner.is_silent = true);
    let begin = Instant::now();
    let change = stream.change(|change| !change["lost_contact"].is_null());
    // Long before the request is given up, whatever the load of the machine.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert!(change["lost_contact"].as_str().unwrap().contains("tramad has not answered"));
    let next = stream.change(|_| true);
    assert_eq!(next["sequence"].as_u64(), change["sequence"].as_u64().map(|it| it + 1));
    assert_eq!(site.get("/v1/state", &cookie).json()["ports"][0]["name"], "vm1");
    site.daemon().with(|inner| inner.is_silent = false);
    // The request that has no answer is given up after ten seconds.
    stream.change(|change| change["lost_contact"].is_null());
}

#[test]
fn the_process_ends_with_the_daemon_and_tells_the_pages() {
    let (mut site, cookie) = Site::with_session(with_ports(&[]));
    let mut stream = site.stream(&cookie);
    stream.change(|_| true);
    drop(site.daemon.take());
    let end = loop {
        match stream.next() {
            (kind, data) if kind == "end" => break data,
            _ => {}
        }
    };
    assert!(end["reason"].as_str().unwrap().contains("tramad"));
    assert_eq!(site.ended.recv_timeout(PATIENCE).unwrap(), Ok(()));
}

#[test]
fn questions_go_to_the_daemon_and_its_refusals_come_back() {
    let (site, cookie) = Site::with_session(with_ports(&["vm1"]));
    let flows = site.get("/v1/flows?network=l%26a%C3%A4", &cookie);
    assert_eq!((flows.status, flows.json()), (200, json!({"flows": []})));
    let question = r#"{"port":"vm1","frame":{"last":{"reason":"loop"}}}"#;
    let refused = site.post("/v1/explain", &cookie, question);
    assert_eq!((refused.status, refused.error()), (422, "no frame was dropped".to_owned()));
    let asked = site.daemon().with(|inner| inner.asked.clone());
    assert_eq!(asked[0], ("flows".to_owned(), "network=l%26a%C3%A4".to_owned()));
    let asked: Value = serde_json::from_str(&asked[1].1).unwrap();
    assert_eq!(asked, json!({"version": 1, "port": "vm1", "frame": {"last": {"reason": "loop"}}}));
    for (body, status) in [("[]", 400), ("{", 400), ("", 400), (&*"x".repeat(1 << 21), 413)] {
        assert_eq!(site.post("/v1/explain", &cookie, body).status, status);
    }
    for path in ["/v1/flows", "/v1/flows?x=1", "/v1/history", "/v1/history?port=a&worker=0"] {
        assert_eq!(site.get(path, &cookie).status, 400, "{path}");
    }
    assert_eq!(site.get("/v1/explain", &cookie).status, 404);
}

#[test]
fn transactions_take_the_settings_leave() {
    let body = r#"{"commands":[["set","Port","vm1","tag=10"]],"dry_run":true}"#;
    let (site, cookie) = Site::with_session(with_ports(&[]));
    let refused = site.post("/v1/transaction", &cookie, body);
    assert_eq!(refused.status, 403);
    assert!(refused.error().contains("web-write"));
    let (site, cookie) = Site::with_session(Inner { settings: write(), ..with_ports(&[]) });
    assert_eq!(site.get("/v1/state", &cookie).json()["write"], true);
    assert_eq!(site.post("/v1/transaction", &cookie, body).json()["exit"], 0);
    assert_eq!(site.daemon().with(|inner| inner.asked.len()), 1);
}

#[test]
fn a_capture_is_a_file_that_ends_with_its_time() {
    let (site, cookie) = Site::with_session(with_ports(&["vm 1"]));
    let begin = Instant::now();
    let file = site.get("/v1/capture?port=vm%201&seconds=1", &cookie);
    assert_eq!((file.status, file.text()), (200, "frames;the end"));
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(file.header("content-disposition"), "attachment; filename=\"vm_1.pcapng\"");
    let asked = site.daemon().with(|inner| inner.asked.clone());
    let started: Value = serde_json::from_str(&asked[0].1).unwrap();
    assert_eq!((&started["words"], &started["version"]), (&json!(["vm 1"]), &json!(1)));
    assert_eq!(asked[1], ("capture/end".to_owned(), r#"{"version":1,"id":7}"#.to_owned()));
    for (query, status) in [
        ("port=any", 404),
        ("port=vm%201&seconds=0", 400),
        ("port=vm%201&seconds=601", 400),
        ("port=vm%201&seconds=-1", 400),
        ("seconds=1", 400),
    ] {
        assert_eq!(site.get(&format!("/v1/capture?{query}"), &cookie).status, status, "{query}");
    }
}
