//! Serves the control socket on a runtime that handles no frames, until the daemon's end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use trama_daemon::api;
use trama_daemon::notify::Notifier;
use trama_daemon::state::Daemon;
use trama_daemon::succession::Origin;
use trama_daemon::take_over::TakeOver;

use crate::signals::{Signals, lose_control, wait_for_end, wait_in_vain};

/// How often ports that do not run are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Serves until a signal or another switch ends it.
///
/// # Errors
/// The runtime or the sockets fail.
pub(crate) fn serve(
    daemon: &Arc<Daemon>,
    (control, metrics): (std::os::unix::net::UnixListener, Option<std::net::TcpListener>),
    start: &Start,
    origin: &Origin,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    let served = runtime.block_on(async {
        let control = UnixListener::from_std(control)?;
        let metrics = metrics.map(TcpListener::from_std).transpose()?;
        let signals = Signals::install()?;
        let (serves, is_serving) = tokio::sync::oneshot::channel();
        let building = tokio::task::spawn_blocking({
            let (daemon, start) = (daemon.clone(), start.clone());
            move || start.build(&daemon, serves)
        });
        let maintenance = tokio::spawn({
            let (daemon, start) = (daemon.clone(), start.clone());
            async move {
                if building.await.is_ok() && daemon.is_running() {
                    announce(&daemon, &start);
                    maintain(daemon).await;
                }
            }
        });
        let mut ended = pin!(async {
            tokio::select! {
                () = wait_for_end(signals, daemon, &start.notifier, start.linger) => {}
                () = lose_control(daemon), if !matches!(origin, Origin::Started { .. }) => {}
                () = wait_in_vain(origin) => {}
            }
        });
        tokio::select! {
            _ = is_serving => api::serve(daemon.clone(), control, metrics, ended).await,
            () = &mut ended => {
                if start.take_over.as_ref().is_some_and(TakeOver::give_up) {
                    // Dropping anything would close what the other one has.
                    std::process::exit(0);
                }
            }
        }
        daemon.give_up_building();
        maintenance.abort();
        Ok(())
    });
    served.map_err(|error: io::Error| format!("control: {error}"))
}

/// How the start goes on once everything can be built.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) started: Instant,
    /// The way from a switch that still runs.
    pub(crate) take_over: Option<TakeOver>,
    /// For how many seconds another process goes on at SIGTERM; 0: for none.
    pub(crate) linger: u64,
}

impl Start {
    /// Builds everything; `serves` is told when this is the switch that users steer. A large
    /// configuration takes seconds, in which the control socket answers, unless another switch
    /// still does.
    fn build(&self, daemon: &Daemon, serves: tokio::sync::oneshot::Sender<()>) {
        // The receiver is gone if the daemon ends already.
        let Some(take_over) = &self.take_over else {
            let _ = serves.send(());
            return daemon.build();
        };
        match take_over.build(daemon, &self.notifier, self.started) {
            Ok(()) => drop(serves.send(())),
            Err(error) => {
                tracing::error!("does not take over: {error}");
                // Dropping anything would close what the other one has.
                std::process::exit(1);
            }
        }
    }
}

/// Says that the start is over.
fn announce(daemon: &Daemon, Start { notifier, started, .. }: &Start) {
    let config = daemon.config();
    tracing::info!(
        "ready after {:.1?}: {} networks, {} ports, {} workers, control socket {}",
        started.elapsed(),
        config.networks.len(),
        config.ports.len(),
        config.daemon.workers,
        config.daemon.control.display(),
    );
    daemon.announce();
    notifier.send("READY=1");
}

/// Handles vanished devices, loaded workers, storms and loops, and tries again to start ports that
/// do not run. Sleeps while every port runs and nothing is suspected.
async fn maintain(daemon: Arc<Daemon>) {
    let event = match daemon.event().and_then(UnixStream::from_std) {
        Ok(event) => event,
        Err(error) => {
            tracing::error!("vanished devices and load will not be noticed: {error}");
            return;
        }
    };
    let mut next = None;
    loop {
        // Events in between do not delay the retry.
        next = match daemon.retries_by_time() {
            false => None,
            true => next.or_else(|| Some(tokio::time::Instant::now() + RETRY)),
        };
        let retry = async {
            match next {
                None => std::future::pending().await,
                Some(at) => tokio::time::sleep_until(at).await,
            }
        };
        let flood_check = async {
            match daemon.next_flood_check() {
                None => std::future::pending().await,
                Some(wait) => tokio::time::sleep(wait).await,
            }
        };
        tokio::select! {
            _ = event.readable() => {
                while event.try_read(&mut [0; 256]).is_ok_and(|length| length > 0) {}
                daemon.handle_events();
            }
            () = retry => {
                daemon.retry();
                next = None;
            }
            () = flood_check => daemon.follow_floods(),
        }
    }
}
