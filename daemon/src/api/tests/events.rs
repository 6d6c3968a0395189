//! The stream of events, as any HTTP client sees it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;

use trama_gateway::event::{Event, FlowChange, FlowEvent, Protocol};

use super::*;
use crate::events::Limit;

/// Events that are kept by default.
const KEPT: u64 = 4096;

/// An answer that goes on.
struct Stream(BufReader<UnixStream>);

impl Stream {
    fn open(api: &Served, query: &str, after: Option<u64>) -> Stream {
        let mut stream = UnixStream::connect(&api.socket).unwrap();
        let after = after.map(|after| format!("last-event-id: {after}\r\n")).unwrap_or_default();
        // Version 1.0 has no chunks in the body.
        write!(stream, "GET /v1/events?{query} HTTP/1.0\r\nhost: x\r\n{after}\r\n").unwrap();
        let mut stream = Stream(BufReader::new(stream));
        assert!(stream.line().unwrap().contains(" 200 "));
        while stream.line().is_some_and(|line| !line.is_empty()) {}
        // The first piece says where it begins.
        assert_eq!(stream.line().as_deref(), Some(": still here"));
        stream
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).unwrap();
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Option<Json> {
        loop {
            let line = self.line()?;
            if let Some(json) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(json).unwrap());
            }
        }
    }

    fn all(mut self) -> Vec<Json> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn add(api: &Served, number: u64) {
    api.daemon.events.link("vm1", None, "up", &number.to_string());
}

fn number(event: &Json) -> u64 {
    event["detail"].as_str().unwrap().parse().unwrap()
}

fn id(event: &Json) -> u64 {
    event["id"].as_u64().unwrap()
}

#[test]
fn a_reader_goes_on_where_it_was_cut_off() {
    let api = Served::start();
    let mut stream = Stream::open(&api, "", None);
    (0..5).for_each(|it| add(&api, it));
    let read: Vec<Json> = (0..3).filter_map(|_| stream.next()).collect();
    drop(stream);
    (5..9).for_each(|it| add(&api, it));
    let mut stream = Stream::open(&api, "type=link", Some(id(&read[2])));
    let rest: Vec<Json> = (0..6).filter_map(|_| stream.next()).collect();
    let numbers: Vec<u64> = read.iter().chain(&rest).map(number).collect();
    assert_eq!(numbers, (0..9).collect::<Vec<_>>());
    // What another daemon had is not known.
    let mut stream = Stream::open(&api, "", Some(7));
    let lost = stream.next().unwrap();
    assert_eq!((&lost["type"], lost.get("count")), (&json!("lost"), None));
    assert_eq!(id(&lost) + 1, id(&read[0]));
    assert_eq!(number(&stream.next().unwrap()), 0);
}

#[test]
fn what_is_asked_for_is_answered_and_what_there_is_not_is_refused() {
    let api = Served::start();
    let flow = |to: &str, name: Option<&str>| {
        let to: SocketAddr = to.parse().unwrap();
        let from: SocketAddr = "10.0.2.15:4000".parse().unwrap();
        let change = FlowChange::Closed { up: 41, down: 88, millis: 360 };
        let (port, mac, protocol) = (7, [2; 6], Protocol::Tcp);
        let flow = FlowEvent { port, mac, protocol, from, to, change };
        Event::Flow { flow, name: name.map(str::to_owned) }
    };
    let flows = vec![
        flow("192.0.2.7:443", Some("www.example.com")),
        flow("[2001:db8::7]:443", None),
        flow("198.51.100.1:53", Some("notexample.com")),
    ];
    let mut limit = Limit::new(Instant::now());
    api.daemon.events.of_gateway("lab", flows, 0, &mut limit);
    (0..3).for_each(|it| add(&api, it));
    let count =
        |query: &str| Stream::open(&api, &format!("{query}&follow=false"), None).all().len();
    for (query, wanted) in [
        ("", 6),
        ("type=flow", 3),
        ("type=flow,link&last=4", 4),
        ("since=1h", 6),
        ("since=0s&type=drop", 0),
        ("to=example.com", 1),
        ("to=192.0.2.0/24", 1),
        ("to=2001:db8::7", 1),
        ("to=0.0.0.0/0", 2),
        ("last=2", 2),
    ] {
        assert_eq!(count(query), wanted, "{query}");
    }
    let closed = Stream::open(&api, "follow=false&to=example.com", None).next().unwrap();
    assert_eq!((&closed["bytes_up"], &closed["duration"]), (&json!(41), &json!(0.36)));
    for (query, words) in [
        ("type=flew", "did you mean flow?"),
        ("type=weather", "there are flow, drop, dns"),
        ("port=vm9", "there is no port vm9"),
        ("network=lab", "there is no network lab"),
        ("since=soon", r#"write it as "90s""#),
        ("to=a/b", "neither an address, a prefix nor a name"),
        ("last=many", "the query is not understood"),
        ("color=red", "the query is not understood"),
    ] {
        let (status, body) = api.request(&format!("GET /v1/events?{query}"), "");
        assert_eq!(status, 422, "{query}: {body}");
        let refusal: Json = serde_json::from_str(&body).unwrap();
        assert!(refusal["error"].as_str().unwrap().contains(words), "{query}: {refusal}");
    }
}

#[test]
fn a_thousand_events_a_second_lose_nothing() {
    const EVENTS: u64 = 1500;
    let api = Served::start();
    let mut stream = Stream::open(&api, "", None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            for it in 0..EVENTS {
                let due = start + Duration::from_millis(it);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                add(&api, it);
            }
        });
        for it in 0..EVENTS {
            assert_eq!(number(&stream.next().unwrap()), it);
        }
    });
    assert_eq!(api.daemon.events.totals().lost, 0);
}

/// Memory of this process in bytes.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn readers_that_stall_cost_nothing_and_are_told_what_they_have_missed() {
    const EVENTS: u64 = 1_000_000;
    let api = Served::start();
    let mut stalled: Vec<_> = (0..8).map(|_| Stream::open(&api, "", None)).collect();
    let before = memory();
    (0..EVENTS).for_each(|it| add(&api, it));
    let grown = memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    // One that reads on has each event once, or is told that it is gone.
    let mut stream = stalled.remove(0);
    let (mut seen, mut lost) = (0, 0);
    while seen + lost < EVENTS {
        let event = stream.next().unwrap();
        match event["type"].as_str() {
            Some("lost") => lost += event["count"].as_u64().unwrap(),
            _ => {
                assert_eq!(number(&event), seen + lost);
                seen += 1;
            }
        }
    }
    assert_eq!(seen + lost, EVENTS);
    assert!(seen >= KEPT && lost > 0, "{seen} {lost}");
    assert!(api.daemon.events.totals().lost >= lost);
}

#[test]
fn without_a_ring_there_is_nothing_to_read() {
    let api = Served::start();
    let file = api.daemon.file();
    std::fs::write(&file, "[daemon]\nevents = 0\n").unwrap();
    assert_eq!(api.post(r#"{"version":1,"commands":[["reload"]]}"#).0, 200);
    let (status, body) = api.request("GET /v1/events", "");
    assert!(status == 422 && body.contains("events = 0 in [daemon] of"), "{body}");
    std::fs::write(&file, "[daemon]\nevents = 2\n").unwrap();
    assert_eq!(api.post(r#"{"version":1,"commands":[["reload"]]}"#).0, 200);
    (0..4).for_each(|it| add(&api, it));
    let kept = Stream::open(&api, "follow=false", None).all();
    assert_eq!(kept.iter().map(number).collect::<Vec<_>>(), [2, 3]);
}
