//! The web process on a real socket, with a daemon of the test at the other end of its link.
#![cfg(test)]

mod browser;
mod confined;
mod daemon;
mod sessions;
mod slow;
mod views;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;

use browser::{Answer, Stream, begin, send};
use daemon::{Daemon, Inner};
use trama_web::link::pair;

/// A web process and its daemon.
struct Site {
    address: SocketAddr,
    daemon: Option<Daemon>,
    /// What the web process returned.
    ended: mpsc::Receiver<Result<(), String>>,
}

impl Site {
    fn start(inner: Inner) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (daemon, web) = pair().unwrap();
        let daemon = Some(Daemon::start(daemon, inner));
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = trama_web::process::serve_until_end(web, listener.into());
            let _ = sender.send(runtime.unwrap().block_on(served));
        });
        Site { address, daemon, ended }
    }

    /// With a session, whose cookie is returned.
    fn with_session(mut inner: Inner) -> (Site, String) {
        inner.codes.insert("good".to_owned());
        let site = Site::start(inner);
        let cookie = site.get("/?code=good", "").cookie();
        assert!(cookie.starts_with("trama-"), "{cookie}");
        (site, cookie)
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    fn head(&self, method: &str, path: &str, cookie: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n", self.address)
    }

    fn get(&self, path: &str, cookie: &str) -> Answer {
        send(self.address, &format!("{}\r\n", self.head("GET", path, cookie)))
    }

    fn post(&self, path: &str, cookie: &str, body: &str) -> Answer {
        let head = self.head("POST", path, cookie);
        let length = body.len();
        let request = format!(
            "{head}x-trama: 1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n\
             {body}"
        );
        send(self.address, &request)
    }

    fn stream(&self, cookie: &str) -> Stream {
        let request = format!("{}\r\n", self.head("GET", "/v1/events", cookie));
        let (answer, stream) = begin(self.address, &request);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert_eq!(answer.header("cache-control"), "no-store");
        Stream::new(stream)
    }
}
