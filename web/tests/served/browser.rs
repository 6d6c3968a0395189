//! Browsers: what they send, and what they are answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait of a test that would fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    /// The error of a refusal.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    /// The cookie that it sets.
    pub(crate) fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap().to_owned()
    }
}

/// Sends a request; the answer's body is not read yet.
pub(crate) fn begin(address: SocketAddr, request: &str) -> (Answer, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may answer before it has read all.
    let _ = stream.write_all(request.as_bytes());
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines.first().map_or(0, |it| it.split(' ').nth(1).unwrap().parse().unwrap());
    let header = |line: &String| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let headers = lines.iter().skip(1).map(header).collect();
    (Answer { status, headers, body: Vec::new() }, stream)
}

/// Sends a request.
pub(crate) fn send(address: SocketAddr, request: &str) -> Answer {
    let (mut answer, mut stream) = begin(address, request);
    let mut body = Vec::new();
    let _ = stream.read_to_end(&mut body);
    answer.body =
        if answer.header("transfer-encoding") == "chunked" { unchunk(&body) } else { body };
    answer
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|it| it == b"\r\n") {
        let length = usize::from_str_radix(str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[at + 2..at + 2 + length]);
        rest = &rest[at + 4 + length..];
    }
    body
}

/// A stream of events.
pub(crate) struct Stream(BufReader<TcpStream>);

impl Stream {
    pub(crate) fn new(stream: BufReader<TcpStream>) -> Stream {
        Stream(stream)
    }

    /// Returns the next event: its type and its data.
    pub(crate) fn next(&mut self) -> (String, Value) {
        let mut kind = String::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if let Some(text) = line.strip_prefix("event: ") {
                kind = text.trim_end().to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (kind, serde_json::from_str(text).unwrap());
            }
        }
    }

    /// Returns the first change that is `wanted`.
    pub(crate) fn change(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..60 {
            let (kind, data) = self.next();
            if kind == "change" && wanted(&data) {
                return data;
            }
        }
        panic!("no such change");
    }
}
