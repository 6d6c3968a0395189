//! The web process: what it is given, what it gives up, and when it ends.
//!
//! Descriptor 0 is its end of the link to the daemon, descriptor 3 the listening socket. Both are
//! open when it starts, so it needs no right to make them. It ends with the link, whatever browsers
//! do; another daemon starts another one with the same listening socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGUSR1, SIGUSR2};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use trama_api::state::WebSettings;
use trama_sandbox::inherited_descriptor;
use trama_serve::{Limits, serve};

use crate::app::{App, CAPTURES, READERS};
use crate::assets::Assets;
pub use crate::confinement::{Options, confine};
use crate::follow;
use crate::hub::Hub;
use crate::link::WebEnd;
use crate::listener::Listener;
use crate::routes::router;
use crate::session::Key;
use crate::upstream::{NoAnswer, Upstream};

/// The number of the descriptor of the listening socket.
pub const LISTENER: RawFd = 3;

/// What browsers may occupy. Streams of changes and captures have limits of their own.
const LIMITS: Limits = Limits {
    head: Duration::from_secs(5),
    request: Duration::from_secs(60),
    connections: 64,
    // Users are not known.
    per_user: 64,
    waiting: 0,
    patience: Duration::from_secs(1),
};

/// How long readers have to be told that the process ends.
const GOODBYE: Duration = Duration::from_millis(200);
/// How long browsers wait for the daemon's first answer.
const FIRST: Duration = Duration::from_secs(3);
/// Between two attempts to ask for the settings.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the web process until the link ends. The caller has started the log.
///
/// # Errors
/// The descriptors are not those that it needs, or its rights cannot be given up.
pub fn run(options: Options) -> Result<(), String> {
    ignore_signals().map_err(|error| format!("cannot ignore signals: {error}"))?;
    let link = io::stdin().as_fd().try_clone_to_owned();
    let link = link.map_err(|error| format!("descriptor 0, the link to tramad: {error}"))?;
    let socket = inherited_descriptor(LISTENER)
        .map_err(|error| format!("descriptor {LISTENER}, the listening socket: {error}"))?;
    let missing = confine(options).map_err(|error| format!("cannot give up rights: {error}"))?;
    for missing in missing {
        tracing::warn!("the web process is not restricted in full: {missing}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot wait for browsers: {error}"))?;
    runtime.block_on(serve_until_end(link, socket))
}

/// Serves browsers on a listening socket until the link ends, in this process and with its rights,
/// as [`run`] does.
///
/// # Errors
/// The descriptors are not those that it needs.
pub async fn serve_until_end(link: OwnedFd, socket: OwnedFd) -> Result<(), String> {
    let link = WebEnd::new(link);
    let link = Arc::new(link.map_err(|error| format!("the link to tramad: {error}"))?);
    let listener = Listener::new(socket).map_err(|error| format!("listening socket: {error}"))?;
    let upstream = Arc::new(Upstream::new(Arc::clone(&link)));
    let served = async {
        let settings = settings(&upstream).await;
        let hub = Arc::new(Hub::new(settings.write));
        let router = router(Arc::new(app(settings, &hub, &upstream)));
        let mut first = hub.read().1;
        let browsers = async move {
            // No page shows nothing because it was faster than the daemon's first answer.
            let _ = timeout(FIRST, first.recv()).await;
            drop(first);
            match listener {
                Listener::Tcp(listener) => serve(listener, router, LIMITS).await,
                Listener::Unix(listener) => serve(listener, router, LIMITS).await,
            }
        };
        tokio::select! {
            () = browsers => {}
            () = follow::states(&upstream, &hub) => {}
            () = follow::events(&upstream, &hub) => {}
            () = link.ended() => {
                hub.end("tramad has ended, or another one goes on");
                sleep(GOODBYE).await;
            }
        }
    };
    tokio::select! {
        () = served => {}
        () = async { link.ended().await; sleep(GOODBYE * 2).await } => {}
    }
    Ok(())
}

/// Asks the daemon for the settings until it answers. Browsers wait meanwhile.
async fn settings(upstream: &Upstream) -> WebSettings {
    let mut has_complained = false;
    loop {
        match upstream.get("/v1/web").await {
            Ok(settings) => return settings,
            Err(NoAnswer::Refused(_, error) | NoAnswer::Lost(error)) => {
                if !has_complained {
                    tracing::warn!("the page is not served yet: no settings: {error}");
                    has_complained = true;
                }
            }
        }
        sleep(PAUSE).await;
    }
}

fn app(settings: WebSettings, hub: &Arc<Hub>, upstream: &Arc<Upstream>) -> App {
    let WebSettings { hosts, key, .. } = settings;
    App {
        hub: Arc::clone(hub),
        upstream: Arc::clone(upstream),
        key: Key::new(&key),
        hosts,
        assets: Assets::new(),
        readers: Arc::new(Semaphore::new(READERS)),
        captures: Arc::new(Semaphore::new(CAPTURES)),
    }
}

/// Ignores signals that are sent to many processes at once, such as a terminal's interrupt: the
/// daemon ends the process.
fn ignore_signals() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGUSR1, SIGUSR2] {
        // A handler, because ignoring a signal takes `unsafe`; the flag is not read.
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}
