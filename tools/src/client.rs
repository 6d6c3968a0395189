//! Sends one request to the daemon over its Unix socket, and reads the answer.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request as HttpRequest, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use trama_api::folders::approvals_socket;
use trama_api::transaction::{NOT_YET, Refusal, Request, Response, VERSION};

use crate::cli::Invocation;

/// How long the helper may take to note words.
const APPROVAL: Duration = Duration::from_secs(2);

/// Between two looks at the conditions of `wait-until`: for each, the daemon gathers the state of
/// all ports.
const PAUSE: Duration = Duration::from_millis(100);

/// A failure: a message for the user, and the exit status.
pub(crate) struct Failed {
    /// Empty if the exit status is enough.
    pub message: String,
    /// The exit status.
    pub exit: u8,
}

impl From<String> for Failed {
    fn from(message: String) -> Failed {
        Failed { message, exit: 1 }
    }
}

/// Sends the transaction to the daemon.
///
/// # Errors
/// There is no daemon, it does not answer in time, or it refuses.
pub(crate) fn transact(invocation: &Invocation) -> Result<Response, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot wait for answers: {error}"))?;
    runtime.block_on(async {
        match tokio::time::timeout(invocation.timeout, exchange(invocation)).await {
            Ok(result) => result,
            Err(_) if waits(invocation) => Err(Failed {
                message: format!(
                    "the conditions of wait-until do not hold after {} s",
                    invocation.timeout.as_secs()
                ),
                exit: NOT_YET,
            }),
            Err(_) => Err(format!(
                "no answer from {} within {} s; whether the transaction was carried out is not \
                 known; check with tramactl show, and use -t SECONDS to wait longer",
                shown(&invocation.sockets),
                invocation.timeout.as_secs()
            )
            .into()),
        }
    })
}

/// Why there is no answer.
enum NoAnswer {
    /// The daemon has ended meanwhile.
    Lost(String),
    Failed(Failed),
}

impl<F: Into<Failed>> From<F> for NoAnswer {
    fn from(failed: F) -> NoAnswer {
        NoAnswer::Failed(failed.into())
    }
}

/// Whether one of the commands is `wait-until`.
fn waits(invocation: &Invocation) -> bool {
    let name = |words: &Vec<String>| words.iter().find(|word| !word.starts_with("--")).cloned();
    invocation.commands.iter().filter_map(name).any(|name| name == "wait-until")
}

/// Sends the commands, again and again while a `wait-until` among them does not hold.
async fn exchange(invocation: &Invocation) -> Result<Response, Failed> {
    loop {
        match exchange_once(invocation).await {
            Err(Failed { exit: NOT_YET, .. }) => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// Sends the commands. After an upgrade, the daemon that has taken over answers.
async fn exchange_once(invocation: &Invocation) -> Result<Response, Failed> {
    let is_upgrade = matches!(invocation.commands.as_slice(), [words] if words == &["upgrade"]);
    let mut answer = ask(invocation, &invocation.commands).await;
    if is_upgrade && matches!(answer, Err(NoAnswer::Lost(_))) {
        answer = ask(invocation, &[vec!["version".to_owned()]]).await;
    }
    answer.map_err(|error| match error {
        NoAnswer::Lost(message) => message.into(),
        NoAnswer::Failed(failed) => failed,
    })
}

async fn ask(invocation: &Invocation, commands: &[Vec<String>]) -> Result<Response, NoAnswer> {
    let (socket, stream) = connect(&invocation.sockets).await?;
    // Users other than root cannot, and have to do without.
    let _ = approve_at(socket, &commands.concat());
    let lost = |error: &dyn std::fmt::Display| {
        let socket = socket.display();
        NoAnswer::Lost(format!("lost the connection to {socket}: {error}; see the daemon's log"))
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| lost(&error))?;
    // The request returns its errors, too.
    let driver = tokio::spawn(connection);
    let request = request(invocation, commands)?;
    let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| lost(&error))?.to_bytes();
    driver.abort();
    Ok(read_answer(socket, status, &body)?)
}

/// Connects to the first socket that a daemon listens on. A daemon that was killed leaves its
/// socket's file.
async fn connect(sockets: &[PathBuf]) -> Result<(&Path, UnixStream), Failed> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for socket in sockets {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok((socket, stream)),
            Err(error) => last = error,
        }
    }
    Err(unreachable(sockets, &last))
}

/// Approves words: what the daemon asks of its helper may contain them. Only root may.
///
/// # Errors
/// The daemon has no helper, or the user is not root.
pub(crate) fn approve(sockets: &[PathBuf], words: &[String]) -> Result<Vec<u8>, Failed> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for socket in sockets {
        match approve_at(socket, words) {
            Ok(()) => {
                let names = words.join(" ");
                let then = "what waits for it is tried again within 5 s";
                return Ok(format!("approved until tramad ends: {names}; {then}\n").into_bytes());
            }
            Err(error) => last = error,
        }
    }
    Err(format!("cannot approve at {}: {last}; run it as root", shown(sockets)).into())
}

fn approve_at(control: &Path, words: &[String]) -> io::Result<()> {
    let mut stream = std::os::unix::net::UnixStream::connect(approvals_socket(control))?;
    stream.set_read_timeout(Some(APPROVAL))?;
    stream.set_write_timeout(Some(APPROVAL))?;
    stream.write_all(words.join("\0").as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}

fn shown(sockets: &[PathBuf]) -> String {
    let sockets: Vec<String> = sockets.iter().map(|path| path.display().to_string()).collect();
    sockets.join(" or ")
}

fn request(
    invocation: &Invocation,
    commands: &[Vec<String>],
) -> Result<HttpRequest<Full<Bytes>>, String> {
    let request = Request {
        version: VERSION,
        commands: commands.to_vec(),
        dry_run: invocation.dry_run,
        no_save: invocation.no_save,
    };
    let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    HttpRequest::builder()
        .method(Method::POST)
        .uri(format!("/v{VERSION}/transaction"))
        .header(header::HOST, "tramad")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())
}

fn read_answer(socket: &Path, status: StatusCode, body: &[u8]) -> Result<Response, Failed> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| {
            format!(
                "cannot read the answer from {} ({error}); does tramad have another version than \
                 this tramactl ({})?",
                socket.display(),
                env!("CARGO_PKG_VERSION")
            )
            .into()
        });
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error, exit }) => Err(Failed { message: error, exit }),
        Err(_) => Err(format!(
            "{} answers {status}; is it the control socket of tramad?",
            socket.display()
        )
        .into()),
    }
}

pub(crate) fn unreachable(sockets: &[PathBuf], error: &io::Error) -> Failed {
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
    format!("cannot reach tramad at {path}: {error}; {remedy}").into()
}
