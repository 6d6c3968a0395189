//! One request and its answer, over HTTP on the daemon's Unix socket.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use trama_api::transaction::{Refusal, VERSION};

use crate::{Daemon, Failed, shown};

/// Why there is no answer.
pub(crate) enum NoAnswer {
    /// The daemon has ended meanwhile.
    Lost(String),
    /// It serves as many connections of this user as it does at a time; nothing was carried out.
    Busy(Failed),
    /// Any other failure.
    Failed(Failed),
}

impl<F: Into<Failed>> From<F> for NoAnswer {
    fn from(failed: F) -> NoAnswer {
        NoAnswer::Failed(failed.into())
    }
}

impl NoAnswer {
    /// The failure to report.
    pub(crate) fn reported(self) -> Failed {
        match self {
            NoAnswer::Lost(message) => Failed::Unanswered(message),
            NoAnswer::Busy(failed) | NoAnswer::Failed(failed) => failed,
        }
    }
}

/// Between two attempts at a daemon that is busy.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes attempts until the daemon is not busy.
pub(crate) async fn patiently<R>(
    mut attempt: impl AsyncFnMut() -> Result<R, NoAnswer>,
) -> Result<R, NoAnswer> {
    loop {
        match attempt().await {
            Err(NoAnswer::Busy(_)) => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// More is not set aside for an answer before it is there, in bytes.
const MOST_EXPECTED: usize = 64 << 20;

/// A connection to the daemon.
pub(crate) struct Connection<'a> {
    /// Its socket's path.
    pub socket: &'a Path,
    stream: UnixStream,
}

/// Waits for work within the daemon's time; `late` says what it means if the time is over.
pub(crate) fn wait<R>(
    daemon: &Daemon,
    work: impl Future<Output = Result<R, Failed>>,
    late: impl FnOnce() -> Failed,
) -> Result<R, Failed> {
    run(async { tokio::time::timeout(daemon.timeout, work).await.unwrap_or_else(|_| Err(late())) })
}

/// Does work for as long as it takes.
pub(crate) fn run<R>(work: impl Future<Output = Result<R, Failed>>) -> Result<R, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot wait for answers: {error}"))?;
    runtime.block_on(work)
}

/// What it means if a request has no answer in time.
pub(crate) fn late(daemon: &Daemon) -> Failed {
    Failed::Unanswered(format!(
        "no answer from {} within {} s; whether the request was carried out is not known; check \
         with tramactl show, and use -t SECONDS to wait longer",
        shown(&daemon.sockets),
        daemon.timeout.as_secs()
    ))
}

/// Connects to the first socket that a daemon listens on. A daemon that was killed leaves its
/// socket's file.
pub(crate) async fn connect(daemon: &Daemon) -> Result<Connection<'_>, Failed> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for socket in &daemon.sockets {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(Connection { socket, stream }),
            Err(error) => last = error,
        }
    }
    Err(unreachable(&daemon.sockets, &last))
}

impl Connection<'_> {
    /// Posts a request to a path below that of the API's version, with a device's descriptor at its
    /// first byte; returns the answer.
    pub(crate) async fn post<R: DeserializeOwned>(
        self,
        path: &str,
        body: &impl Serialize,
        device: Option<OwnedFd>,
    ) -> Result<R, NoAnswer> {
        let socket = self.socket;
        let (answer, driver) = self.send(path, body, device).await?;
        let answer = read(socket, answer).await;
        driver.abort();
        answer
    }

    /// The same, without the body of the answer. What drives the connection ends with the runtime.
    pub(crate) async fn send(
        self,
        path: &str,
        body: &impl Serialize,
        device: Option<OwnedFd>,
    ) -> Result<(Response<Incoming>, AbortHandle), NoAnswer> {
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        let request = request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)));
        self.ask(request.map_err(|error| error.to_string())?, device).await
    }

    /// Gets what is at a path below that of the API's version. `after` is the last event that the
    /// caller has.
    pub(crate) async fn get(
        self,
        path: &str,
        after: Option<u64>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let mut request = request(Method::GET, path);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        Ok(self.ask(request, None).await?.0)
    }

    async fn ask(
        self,
        request: Request<Full<Bytes>>,
        device: Option<OwnedFd>,
    ) -> Result<(Response<Incoming>, AbortHandle), NoAnswer> {
        let Connection { socket, stream } = self;
        let lost = |error: &dyn Display| lost(socket, error);
        let stream = TokioIo::new(Passing { stream, device });
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(|error| lost(&error))?;
        // The request returns its errors, too.
        let driver = tokio::spawn(connection).abort_handle();
        let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
        Ok((response, driver))
    }
}

fn lost(socket: &Path, error: &dyn Display) -> NoAnswer {
    let socket = socket.display();
    NoAnswer::Lost(format!("lost the connection to {socket}: {error}; see the daemon's log"))
}

/// Reads the body of an answer.
pub(crate) async fn read<R: DeserializeOwned>(
    socket: &Path,
    answer: Response<Incoming>,
) -> Result<R, NoAnswer> {
    let status = answer.status();
    let body = whole(answer.into_body()).await.map_err(|error| lost(socket, &error))?;
    read_answer(socket, status, &body).map_err(|failed| match status {
        StatusCode::SERVICE_UNAVAILABLE => NoAnswer::Busy(failed),
        _ => failed.into(),
    })
}

/// Reads a body into one piece of memory: the pieces in which it comes are used again for others.
async fn whole(mut body: Incoming) -> hyper::Result<Vec<u8>> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    let mut whole = Vec::with_capacity(expected.min(MOST_EXPECTED));
    while let Some(frame) = body.frame().await {
        frame?.data_ref().into_iter().for_each(|data| whole.extend_from_slice(data));
    }
    Ok(whole)
}

fn request(method: Method, path: &str) -> Builder {
    let uri = format!("/v{VERSION}/{path}");
    Request::builder().method(method).uri(uri).header(header::HOST, "tramad")
}

fn read_answer<R: DeserializeOwned>(
    socket: &Path,
    status: StatusCode,
    body: &[u8],
) -> Result<R, Failed> {
    let socket = socket.display();
    if status.is_success() {
        return read_json(body).map_err(|error| {
            let version = env!("CARGO_PKG_VERSION");
            format!(
                "cannot read the answer from {socket} ({error}); does tramad have another version \
                 than this program ({version})?"
            )
            .into()
        });
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error, exit }) => Err(Failed::Refused { message: error, exit }),
        Err(_) => {
            Err(format!("{socket} answers {status}; is it the control socket of tramad?").into())
        }
    }
}

/// Reads JSON. That it is UTF-8 is looked at once, not for each text in it.
fn read_json<R: DeserializeOwned>(json: &[u8]) -> Result<R, Box<dyn Error>> {
    Ok(serde_json::from_str(str::from_utf8(json)?)?)
}

fn unreachable(sockets: &[PathBuf], error: &io::Error) -> Failed {
    let path = shown(sockets);
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run this as root or as a member of the socket's group".to_owned()
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is tramad running? Start it with: tramad; if it listens elsewhere, use --socket PATH \
             or set TRAMA_SOCKET"
                .to_owned()
        }
        _ => "give the path of tramad's control socket with --socket PATH".to_owned(),
    };
    Failed::Unreachable(format!("cannot reach tramad at {path}: {error}; {remedy}"))
}

/// A connection that passes a descriptor with the first byte it sends (SCM_RIGHTS).
struct Passing {
    stream: UnixStream,
    device: Option<OwnedFd>,
}

impl AsyncRead for Passing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Passing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        while let Some(device) = &self.device {
            ready!(self.stream.poll_write_ready(context))?;
            let send = || send_with(&self.stream, bytes, device.as_fd());
            match self.stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    self.device = None;
                    return Poll::Ready(sent);
                }
            }
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn send_with(stream: &UnixStream, bytes: &[u8], device: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [device];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}
