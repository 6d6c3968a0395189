//! Connections of clients: few at once, and none for long.
//!
//! A connection carries one request and ends with its answer, so there is no idle one to keep. A
//! client that is silent, slow or one of too many costs a bounded number of descriptors
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Least time between two log lines about that.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What the clients of one listener may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
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
pub trait Listen {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// What handlers are told of it, as an extension of the request.
    type Told: Clone + Send + Sync + 'static;

    /// Accepts a connection.
    fn accept(&self) -> impl Future<Output = io::Result<Accepted<Self::Stream, Self::Told>>>;
}

/// A connection.
pub struct Accepted<S, T> {
    /// Its stream.
    pub stream: S,
    /// The user at its other end, if known.
    pub user: Option<u32>,
    /// What handlers are told of it.
    pub told: T,
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    type Told = ();

    async fn accept(&self) -> io::Result<Accepted<TcpStream, ()>> {
        let (stream, _) = TcpListener::accept(self).await?;
        Ok(Accepted { stream, user: None, told: () })
    }
}

/// Serves `router` on `listener`; does not return.
pub async fn serve(listener: impl Listen, router: Router, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let users = Arc::new(Users::new(limits));
    let mut complained: Option<Instant> = None;
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok(Accepted { stream, user, told }) => {
                let router = router.clone().layer(Extension(told));
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
                    tracing::warn!("a client waits: it cannot be accepted: {error}");
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
        () = stay.hung_up.notified() => {}
    }
}

/// What a connection occupies, which it may give back to go on for as long as its client wants.
#[derive(Clone)]
pub struct Stay {
    /// The user at its other end, if known.
    pub user: Option<u32>,
    admitted: Arc<Mutex<Option<Admitted>>>,
    hung_up: Arc<Notify>,
}

impl Stay {
    fn new(user: Option<u32>, admitted: Admitted) -> Stay {
        Stay { user, admitted: Arc::new(Mutex::new(Some(admitted))), hung_up: Arc::default() }
    }

    /// Lets the connection go on, limited by something else than its time and its share of
    /// connections.
    pub fn stay(&self) {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Ends the connection at once, whatever it has not sent yet: its client does not read.
    pub fn hang_up(&self) {
        self.hung_up.notify_one();
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::Chunks;

    /// Answers with a body that does not end, and hangs up once its client does not read.
    async fn endless(
        Extension(stay): Extension<Stay>,
        Extension(hung_up): Extension<Arc<Notify>>,
    ) -> Result<Body, Infallible> {
        stay.stay();
        let (sender, receiver) = channel(1);
        tokio::spawn(async move {
            fill(&sender).await;
            stay.hang_up();
            hung_up.notify_one();
            sender.closed().await;
        });
        Ok(Chunks(receiver).into_body())
    }

    async fn fill(client: &Sender<Bytes>) {
        let piece = Bytes::from_static(&[0; 65536]);
        while timeout(Duration::from_millis(100), client.send(piece.clone())).await.is_ok() {}
    }

    #[tokio::test]
    async fn a_connection_that_is_hung_up_ends_although_its_client_does_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hung_up = Arc::new(Notify::new());
        let router = Router::new().route("/", get(endless)).layer(Extension(hung_up.clone()));
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            hung_up.notified().await;
            let mut read = Vec::new();
            // The body is cut off.
            let _ = stream.read_to_end(&mut read).await;
            assert!(!read.ends_with(b"0\r\n\r\n"));
        };
        tokio::select! {
            () = serve(listener, router, Limits::default()) => {}
            ended = timeout(Duration::from_secs(60), client) => ended.unwrap(),
        }
    }
}
