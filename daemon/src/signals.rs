//! What the daemon does at a signal, and what else makes it end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use trama_daemon::events::By;
use trama_daemon::notify::Notifier;
use trama_daemon::state::Daemon;
use trama_daemon::succession::Origin;
use trama_daemon::watchdog::Watchdog;

/// Period of the beat without a service manager, which would set it.
const IDLE: Duration = Duration::from_secs(5);
/// How often a stand-in checks that its control socket is still there.
const CONTROL_CHECK: Duration = Duration::from_secs(10);

/// The signals that the daemon handles.
pub(crate) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Takes them from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Handles signals and the watchdog until a signal ends the daemon.
pub(crate) async fn wait_for_end(
    mut signals: Signals,
    daemon: &Arc<Daemon>,
    notifier: &Notifier,
    linger: u64,
) {
    let period = notifier.watchdog.unwrap_or(IDLE);
    let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    let watchdog = notifier.watchdog.and_then(|period| watch(daemon, period));
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => reload(daemon),
            _ = signals.upgrade.recv() => upgrade(daemon.clone()),
            _ = signals.terminate.recv() => {
                // Another one may be about to take over already.
                if linger > 0 && !daemon.is_followed() {
                    hand_over(&mut signals, daemon, linger).await;
                }
                return;
            }
            _ = signals.interrupt.recv() => return,
            _ = alive.tick(), if notifier.watchdog.is_some() => {
                if watchdog.as_ref().is_none_or(Watchdog::is_well) {
                    notifier.send("WATCHDOG=1");
                }
            }
        }
    }
}

/// Watches the workers; what stands still is noted before the manager ends this process for it.
fn watch(daemon: &Arc<Daemon>, period: Duration) -> Option<Watchdog> {
    let noted = daemon.clone();
    let started = Watchdog::start(daemon.workers(), period / 2, move |hung| noted.set_hung(hung));
    let warn = |error: &io::Error| tracing::warn!("workers are not watched: {error}");
    started.inspect_err(warn).ok()
}

/// Waits until the control socket's file is gone, without which a stand-in cannot be steered.
pub(crate) async fn lose_control(daemon: &Daemon) {
    let control = &daemon.started_with().control;
    while control.exists() {
        tokio::time::sleep(CONTROL_CHECK).await;
    }
    tracing::info!("{} is gone; ends", control.display());
}

/// Has another process go on for some seconds. Returns if none does, or at another signal.
async fn hand_over(signals: &mut Signals, daemon: &Arc<Daemon>, seconds: u64) {
    let (failed, failure) = tokio::sync::oneshot::channel();
    let hands_over = daemon.clone();
    // Not one that the runtime waits for in the end.
    std::thread::spawn(move || failed.send(hands_over.upgrade(Some(seconds))));
    tokio::select! {
        fault = failure => {
            let fault = fault.map(|fault| fault.to_string()).unwrap_or_default();
            daemon.leave_without_helper();
            tracing::error!("guests are disconnected: {fault}");
        }
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
    }
}

/// Waits as long as this process may go on until the next one takes over.
pub(crate) async fn wait_in_vain(origin: &Origin) {
    let Some(limit) = origin.limit() else { return std::future::pending().await };
    tokio::time::sleep(limit).await;
    tracing::info!("no tramad has taken over within {} s; ends", limit.as_secs());
}

/// Has another `tramad` take over, on a thread that waits for it.
fn upgrade(daemon: Arc<Daemon>) {
    std::thread::spawn(move || {
        let fault = daemon.upgrade(None);
        tracing::error!("{fault}");
    });
}

fn reload(daemon: &Daemon) {
    match daemon.reload(By::Signal) {
        Ok(done) => tracing::info!("reloaded: {} steps", done.steps.len()),
        Err(faults) => {
            faults.iter().for_each(|fault| tracing::error!("{fault}"));
            tracing::error!("not reloaded: nothing has changed");
        }
    }
}
