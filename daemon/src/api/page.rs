//! Has browsers served by a process of its own, as the configuration wants it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::net::sockopt::socket_acceptconn;
use tokio::time::{Instant, sleep};
use trama_helper::{Entry, Gateway, Rights};
use trama_serve::Limits;
use trama_vhost_net_backend::{SocketFile, Sockets};
use trama_web::link::{DaemonEnd, pair};

use crate::config::model::WebAddress;
use crate::confinement;
use crate::listeners::control_access;
use crate::state::Daemon;

/// The pause before a process is started again: first, and after several that have ended soon. One
/// that has run for longer than that begins with the first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a process may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(1);
/// What the process may have open at once. All browsers share the stream of events that it reads.
const LIMITS: Limits = Limits {
    head: Duration::from_secs(5),
    request: Duration::from_secs(60),
    connections: 32,
    per_user: 32,
    waiting: 0,
    patience: Duration::from_secs(1),
};

/// Has the page served as the configuration wants it; does not return. `router` is what its process
/// may ask for.
pub(super) async fn serve(daemon: Arc<Daemon>, router: Router) {
    let mut wanted = daemon.web.follow();
    let mut pause = FIRST_PAUSE;
    let mut complaint = String::new();
    let mut listener = None::<Arc<Listener>>;
    loop {
        let address = wanted.borrow_and_update().address.clone();
        // Another process goes on with it, so that browsers wait in its queue meanwhile; unless the
        // last one has shut it down.
        let is_good = |it: &Arc<Listener>| Some(&it.address) == address.as_ref() && it.listens();
        listener = listener.filter(is_good);
        let Some(address) = address else {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let fault = tokio::select! {
            fault = serve_once(&daemon, &address, &mut listener, router.clone()) => fault,
            changed = wanted.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let fault = format!("the page at {address}: {fault}");
        if complaint != fault {
            tracing::warn!("{fault}");
            complaint = fault;
        }
        pause = if began.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { pause };
        tokio::select! {
            () = sleep(pause) => pause = (2 * pause).min(LONGEST_PAUSE),
            _ = wanted.changed() => {}
        }
    }
}

/// Serves the page by one process, until that ends; returns why.
async fn serve_once(
    daemon: &Arc<Daemon>,
    address: &WebAddress,
    listener: &mut Option<Arc<Listener>>,
    router: Router,
) -> String {
    let socket = match listener {
        Some(listener) => listener.clone(),
        None => {
            let (daemon, address) = (daemon.clone(), address.clone());
            let made = blocking(move || Listener::open(&daemon, address)).await;
            match made {
                Ok(made) => listener.insert(Arc::new(made)).clone(),
                Err(fault) => return fault,
            }
        }
    };
    let rights = daemon.rights();
    let process = match blocking(move || Process::start(&rights, &socket)).await {
        Ok(process) => process,
        Err(fault) => return fault,
    };
    tracing::info!(
        "the page at {address} runs as process {}; tramactl web prints a link that opens it",
        process.number
    );
    let link = match process.link.try_clone().and_then(DaemonEnd::new) {
        Ok(link) => link,
        Err(error) => return error.to_string(),
    };
    tokio::select! {
        () = trama_serve::serve(&link, router, LIMITS) => {}
        () = link.ended() => {}
    }
    let ended = blocking(move || Ok(process.end())).await;
    let how = ended.unwrap_or_else(|fault| fault);
    format!("its process has ended ({how}); it is started again")
}

/// Does on a thread for it what waits for others.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, String> + Send + 'static,
) -> Result<R, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// The listening socket; closed and removed when this is dropped, unless a next switch has it.
struct Listener {
    address: WebAddress,
    socket: OwnedFd,
    _entry: Option<Entry>,
    _file: Option<Arc<dyn SocketFile>>,
}

impl Listener {
    fn listens(&self) -> bool {
        socket_acceptconn(&self.socket).unwrap_or(false)
    }

    fn open(daemon: &Daemon, address: WebAddress) -> Result<Listener, String> {
        let rights = daemon.rights();
        match &address {
            WebAddress::Tcp(at) => {
                let opened = rights.listen_tcp(*at)?;
                let (socket, _entry) = (opened.socket, opened.entry);
                Ok(Listener { address, socket, _entry, _file: None })
            }
            WebAddress::Unix(path) => {
                let opened = rights.listen(path, &control_access(daemon.started_with())?);
                let opened = opened.map_err(|error| error.to_string())?;
                let (socket, _file) = (opened.listener.into(), Some(opened.file));
                Ok(Listener { address, socket, _entry: None, _file })
            }
        }
    }
}

/// A process that serves browsers. It is told to end when this is dropped.
struct Process {
    link: OwnedFd,
    number: u32,
    process: Option<Gateway>,
}

impl Process {
    fn start(rights: &Rights, listener: &Listener) -> Result<Process, String> {
        let (link, its_end) = pair().map_err(|error| format!("a link: {error}"))?;
        let process = rights.start_web(&its_end, &listener.socket)?;
        confinement::note_missing(&process.missing);
        Ok(Process { link, number: process.process, process: Some(process) })
    }

    /// Waits for its end; returns how it has ended.
    fn end(mut self) -> String {
        let status = self.process.take().and_then(end);
        status.unwrap_or_else(|| "how is not known".to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of the link tells it to end. Waiting is for another thread: this one serves.
        let _ = rustix::net::shutdown(&self.link, rustix::net::Shutdown::Both);
        if let Some(process) = self.process.take() {
            let _ = std::thread::Builder::new().name("page".into()).spawn(|| end(process));
        }
    }
}

/// Waits for the end of a process that was told to end, and then kills it.
fn end(process: Gateway) -> Option<String> {
    if !process.ends_within(GRACE) {
        process.kill().ok()?;
    }
    process.status()
}
