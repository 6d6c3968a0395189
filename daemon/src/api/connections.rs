//! Connections of the API's clients: few at once, and none for long.
//!
//! A connection carries one request and ends with its answer, so there is no idle one to keep. A
//! client that is silent, slow or one of too many costs the daemon a bounded number of descriptors
//! for a bounded time, and others get their turn. Only captures and streams of events stay
//! ([`Stay`]).

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::passed::{Passed, PassedStream};

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Least time between two log lines about that.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What the clients of one listener may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Time until a request's head must be complete.
    pub head: Duration,
    /// Time of a whole connection.
    pub request: Duration,
    /// Connections served at once; more wait in the listener's queue.
    pub connections: usize,
    /// Connections of one user served at once, where the user is known.
    pub per_user: usize,
    /// Connections that wait because their users have `per_user` already; more are refused.
    pub waiting: usize,
    /// How long they wait before they are refused.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: Duration::from_secs(5),
            request: Duration::from_secs(60),
            connections: 32,
            per_user: 8,
            waiting: 64,
            patience: Duration::from_secs(1),
        }
    }
}

/// A listening socket.
pub(super) trait Listen {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Accepts a connection.
    fn accept(&self) -> impl Future<Output = io::Result<Accepted<Self::Stream>>>;
}

/// A connection.
pub(super) struct Accepted<S> {
    stream: S,
    /// The user at its other end, if known.
    user: Option<u32>,
    /// What that passes with its request.
    passed: Passed,
}

impl Listen for UnixListener {
    type Stream = PassedStream;

    async fn accept(&self) -> io::Result<Accepted<PassedStream>> {
        let (stream, _) = UnixListener::accept(self).await?;
        let user = stream.peer_cred().ok().map(|peer| peer.uid());
        let stream = PassedStream::new(stream);
        let passed = stream.passed();
        Ok(Accepted { stream, user, passed })
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<Accepted<TcpStream>> {
        let (stream, _) = TcpListener::accept(self).await?;
        Ok(Accepted { stream, user: None, passed: Passed::default() })
    }
}

/// Serves `router` on `listener`; does not return.
pub(super) async fn serve(listener: impl Listen, router: Router, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let users = Arc::new(Users::new(limits));
    let mut complained: Option<Instant> = None;
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok(Accepted { stream, user, passed }) => {
                let router = router.clone().layer(Extension(passed));
                let (slots, users) = (slots.clone(), users.clone());
                tokio::spawn(async move {
                    match users.admit(user, slot, slots).await {
                        Some(admitted) => {
                            let stay = Stay::new(user, admitted);
                            let router = router.layer(Extension(stay.clone()));
                            converse(stream, router, limits, stay).await;
                        }
                        None => refuse(stream, limits).await,
                    }
                });
            }
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() >= ACCEPT_LOG_INTERVAL) {
                    tracing::warn!("a client of the API waits: it cannot be accepted: {error}");
                    complained = Some(Instant::now());
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the request of one connection. Whatever ends it earlier concerns its client only.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    limits: Limits,
    stay: Stay,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        _ = connection => {}
        () = stay.late(limits.request) => {}
    }
}

/// What a connection occupies, which it may give back to go on for as long as its client wants.
#[derive(Clone)]
pub(super) struct Stay {
    /// The user at its other end, if known.
    pub user: Option<u32>,
    admitted: Arc<Mutex<Option<Admitted>>>,
}

impl Stay {
    fn new(user: Option<u32>, admitted: Admitted) -> Stay {
        Stay { user, admitted: Arc::new(Mutex::new(Some(admitted))) }
    }

    /// Lets the connection go on, limited by something else than its time and its share of
    /// connections.
    pub(super) fn stay(&self) {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Returns when the time of the connection is over.
    async fn late(&self, limit: Duration) {
        sleep(limit).await;
        let stays = self.admitted.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if stays {
            std::future::pending().await
        }
    }
}

/// Tells a client that its user has too many connections.
async fn refuse(mut stream: impl AsyncWrite + Unpin, limits: Limits) {
    let error = format!(
        "this user has {} connections to tramad already; let them end first",
        limits.per_user
    );
    let body = serde_json::json!({ "error": error, "exit": 1 }).to_string();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // It fits into the socket's buffer. An error means that the client has gone.
    let _ = timeout(limits.patience, stream.write_all(answer.as_bytes())).await;
    let _ = stream.shutdown().await;
}

/// Shares the connections among users.
struct Users {
    limits: Limits,
    /// How many more may wait.
    waiting: Semaphore,
    /// By user: how many more connections may be served.
    free: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// A connection that may be served: what it holds until its end.
struct Admitted {
    _slot: OwnedSemaphorePermit,
    _of_user: Option<OwnedSemaphorePermit>,
}

impl Users {
    fn new(limits: Limits) -> Users {
        let waiting = Semaphore::new(limits.waiting);
        Users { limits, waiting, free: Mutex::default() }
    }

    /// Waits for the user's turn, without a slot. Returns `None` if the user has too many
    /// connections.
    async fn admit(
        &self,
        user: Option<u32>,
        slot: OwnedSemaphorePermit,
        slots: Arc<Semaphore>,
    ) -> Option<Admitted> {
        let Some(user) = user else { return Some(Admitted { _slot: slot, _of_user: None }) };
        let free = self.of(user);
        if let Ok(permit) = free.clone().try_acquire_owned() {
            return Some(Admitted { _slot: slot, _of_user: Some(permit) });
        }
        drop(slot);
        let _place = self.waiting.try_acquire().ok()?;
        let permit = timeout(self.limits.patience, free.acquire_owned()).await.ok()?.ok()?;
        let slot = slots.acquire_owned().await.ok()?;
        Some(Admitted { _slot: slot, _of_user: Some(permit) })
    }

    fn of(&self, user: u32) -> Arc<Semaphore> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgets users without connections: then no permit and no connection has a clone.
        free.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        let new = || Arc::new(Semaphore::new(self.limits.per_user));
        free.entry(user).or_insert_with(new).clone()
    }
}
