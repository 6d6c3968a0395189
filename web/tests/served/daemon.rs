//! A daemon at the other end of the link, which answers what a test says.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use trama_api::state::{self, State, WebSettings};
use trama_api::top;
use trama_serve::{Chunks, Limits};
use trama_web::link::DaemonEnd;

/// What the daemon answers, and what it was asked.
#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) settings: WebSettings,
    pub(crate) state: State,
    /// It takes requests and does not answer.
    pub(crate) is_silent: bool,
    /// Codes that open a session, once each.
    pub(crate) codes: HashSet<String>,
    /// Bodies and queries of requests, with their paths.
    pub(crate) asked: Vec<(String, String)>,
    /// `Last-Event-ID` of each request for events.
    pub(crate) after: Vec<Option<String>>,
    pub(crate) events: Vec<mpsc::Sender<Bytes>>,
    pub(crate) captures: Vec<mpsc::Sender<Bytes>>,
}

/// The daemon, which ends with this.
pub(crate) struct Daemon {
    pub(crate) inner: Arc<Mutex<Inner>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Daemon {
    pub(crate) fn start(link: OwnedFd, inner: Inner) -> Daemon {
        let inner = Arc::new(Mutex::new(inner));
        let router = router(Arc::clone(&inner));
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let link = DaemonEnd::new(link).unwrap();
                tokio::select! {
                    () = trama_serve::serve(&link, router, Limits::default()) => {}
                    _ = ended => {}
                }
            });
        });
        Daemon { inner, end: Some(end), thread: Some(thread) }
    }

    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        change(&mut self.inner.lock().unwrap())
    }

    /// Sends an event to all that follow; returns to how many.
    pub(crate) fn event(&self, text: &str) -> usize {
        let text = text.to_owned();
        let sent = |reader: &mpsc::Sender<Bytes>| reader.try_send(text.clone().into()).is_ok();
        self.with(|inner| inner.events.iter().filter(|reader| sent(reader)).count())
    }

    /// Ends the streams of events.
    pub(crate) fn end_events(&self) {
        self.with(|inner| inner.events.clear());
    }
}

impl Inner {
    /// Adds a port on the network `lab`.
    pub(crate) fn add_port(&mut self, name: &str) {
        let (name, network) = (name.to_owned(), Some("lab".to_owned()));
        let counted =
            top::Port { name: name.clone(), network: network.clone(), ..Default::default() };
        self.state.numbers.ports.push(counted);
        self.state.ports.push(state::Port { name, network, ..Default::default() });
    }

    /// Lets a second pass in which each port has received so many bytes.
    fn pass(&mut self) {
        self.state.numbers.nanos += 1_000_000_000;
        self.state.uptime_s += 1;
        self.state.numbers.ports.iter_mut().for_each(|port| port.rx_bytes += 1000);
    }
}

type App = Arc<Mutex<Inner>>;

fn router(inner: App) -> Router {
    Router::new()
        .route(
            "/v1/web",
            get(async |Shared(app): Shared<App>| Json(app.lock().unwrap().settings.clone())),
        )
        .route("/v1/web/code", post(redeem))
        .route("/v1/state", get(answer_state))
        .route("/v1/flows", get(flows))
        .route("/v1/events", get(events))
        .route("/v1/explain", post(explain))
        .route("/v1/transaction", post(transaction))
        .route("/v1/capture", post(capture))
        .route("/v1/capture/end", post(end_capture))
        .with_state(inner)
}

fn refuse(error: &str) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": error, "exit": 1}))).into_response()
}

fn note(app: &App, path: &str, body: &[u8]) {
    let body = String::from_utf8(body.to_vec()).unwrap();
    app.lock().unwrap().asked.push((path.to_owned(), body));
}

async fn redeem(Shared(app): Shared<App>, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let is_good = app.lock().unwrap().codes.remove(asked["code"].as_str().unwrap());
    if is_good { Json(json!({})).into_response() } else { refuse("the code is not one") }
}

async fn answer_state(Shared(app): Shared<App>) -> Response {
    if app.lock().unwrap().is_silent {
        std::future::pending::<()>().await;
    }
    let mut inner = app.lock().unwrap();
    inner.pass();
    Json(&inner.state).into_response()
}

async fn flows(Shared(app): Shared<App>, RawQuery(query): RawQuery) -> Response {
    note(&app, "flows", query.unwrap_or_default().as_bytes());
    Json(json!({"flows": []})).into_response()
}

async fn events(Shared(app): Shared<App>, headers: HeaderMap) -> Response {
    let after = headers.get("last-event-id").map(|it| it.to_str().unwrap().to_owned());
    let (sender, receiver) = mpsc::channel(16);
    let mut inner = app.lock().unwrap();
    inner.after.push(after);
    inner.events.push(sender);
    Chunks(receiver).into_body().into_response()
}

async fn explain(Shared(app): Shared<App>, body: Bytes) -> Response {
    note(&app, "explain", &body);
    refuse("no frame was dropped")
}

async fn transaction(Shared(app): Shared<App>, body: Bytes) -> Response {
    note(&app, "transaction", &body);
    Json(json!({"steps": [], "results": [], "not_running": [], "exit": 0})).into_response()
}

async fn capture(Shared(app): Shared<App>, body: Bytes) -> Response {
    note(&app, "capture", &body);
    let (sender, receiver) = mpsc::channel(16);
    sender.try_send("frames;".into()).unwrap();
    app.lock().unwrap().captures.push(sender);
    ([("trama-capture", "7")], Chunks(receiver).into_body()).into_response()
}

async fn end_capture(Shared(app): Shared<App>, body: Bytes) -> Response {
    note(&app, "capture/end", &body);
    for capture in app.lock().unwrap().captures.drain(..) {
        capture.try_send("the end".into()).unwrap();
    }
    Json(()).into_response()
}
