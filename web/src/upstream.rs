//! Requests to the daemon, each over a stream of its own.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trama_api::transaction::Refusal;

use crate::link::WebEnd;

/// How long an answer may take, and one to a change: the daemon starts and ends processes for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of an answer that is read in one piece.
const LARGEST: usize = 16 << 20;
/// Requests for browsers at once. The daemon serves 32, and must have room for the follower's.
const AT_ONCE: usize = 16;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The daemon has refused the request.
    Refused(StatusCode, String),
    /// There is no answer, or none that can be read.
    Lost(String),
}

/// The daemon.
pub(crate) struct Upstream {
    link: Arc<WebEnd>,
    turns: Semaphore,
}

/// An answer that grows.
pub(crate) struct Growing {
    pub(crate) headers: HeaderMap,
    body: Incoming,
    _connection: Connection,
}

/// What drives a connection, which ends with this.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Growing {
    /// Returns the next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(piece) = frame.map_err(lost)?.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

impl Upstream {
    /// Requests go over this link.
    pub(crate) fn new(link: Arc<WebEnd>) -> Upstream {
        Upstream { link, turns: Semaphore::new(AT_ONCE) }
    }

    /// Gets what is at a path, for this process itself: without waiting for those of browsers.
    pub(crate) async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, NoAnswer> {
        let body = within(PATIENCE, self.read(Method::GET, path, Body::empty())).await?;
        parse(&body)
    }

    /// Gets JSON for a browser.
    pub(crate) async fn get_text(&self, path: &str) -> Result<Bytes, NoAnswer> {
        within(PATIENCE, self.in_turn(Method::GET, path, Body::empty())).await
    }

    /// Posts JSON for a browser; returns the answer's.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<Bytes, NoAnswer> {
        let body = serde_json::to_vec(body).map_err(lost)?;
        within(patience, self.in_turn(Method::POST, path, body.into())).await
    }

    /// Gets an answer that grows, after the event of this number.
    pub(crate) async fn follow(&self, path: &str, after: Option<u64>) -> Result<Growing, NoAnswer> {
        within(PATIENCE, self.ask(Method::GET, path, Body::empty(), after)).await
    }

    /// Posts JSON; the answer grows.
    pub(crate) async fn start(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Growing, NoAnswer> {
        let body = serde_json::to_vec(body).map_err(lost)?;
        within(PATIENCE, self.ask(Method::POST, path, body.into(), None)).await
    }

    async fn in_turn(&self, method: Method, path: &str, body: Body) -> Result<Bytes, NoAnswer> {
        let _turn = self.turns.acquire().await.map_err(lost)?;
        self.read(method, path, body).await
    }

    async fn read(&self, method: Method, path: &str, body: Body) -> Result<Bytes, NoAnswer> {
        whole(self.ask(method, path, body, None).await?).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Body,
        after: Option<u64>,
    ) -> Result<Growing, NoAnswer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "tramad")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let request = request.body(body).map_err(lost)?;
        let stream = TokioIo::new(self.link.connect().await.map_err(lost)?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(lost)?;
        // The request returns its errors, too.
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
        let (head, body) = sender.send_request(request).await.map_err(lost)?.into_parts();
        let answer = Growing { headers: head.headers, body, _connection: connection };
        if head.status.is_success() {
            return Ok(answer);
        }
        let text = whole(answer).await?;
        let error = match serde_json::from_slice::<Refusal>(&text) {
            Ok(refusal) => refusal.error,
            Err(_) => format!("tramad answers {}", head.status),
        };
        Err(NoAnswer::Refused(head.status, error))
    }
}

async fn within<R>(
    patience: Duration,
    work: impl Future<Output = Result<R, NoAnswer>>,
) -> Result<R, NoAnswer> {
    let late = || NoAnswer::Lost(format!("tramad has not answered in {} s", patience.as_secs()));
    timeout(patience, work).await.unwrap_or_else(|_| Err(late()))
}

async fn whole(answer: Growing) -> Result<Bytes, NoAnswer> {
    let Growing { body, _connection, .. } = answer;
    Ok(Limited::new(body, LARGEST).collect().await.map_err(lost)?.to_bytes())
}

/// Reads JSON.
pub(crate) fn parse<R: DeserializeOwned>(body: &[u8]) -> Result<R, NoAnswer> {
    serde_json::from_slice(body).map_err(lost)
}

fn lost(error: impl Display) -> NoAnswer {
    NoAnswer::Lost(format!("tramad does not answer: {error}"))
}
