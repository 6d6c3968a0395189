//! What the daemon does at a signal, and what else makes it end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use trama_daemon::notify::Notifier;
use trama_daemon::state::Daemon;
use trama_daemon::watchdog::Watchdog;

/// How long a beat lasts that nobody waits for.
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
pub(crate) async fn wait_for_end(mut signals: Signals, daemon: &Arc<Daemon>, notifier: &Notifier) {
    let period = notifier.watchdog.unwrap_or(IDLE);
    let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    let mut watchdog = Watchdog::new(daemon.workers());
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => reload(daemon),
            _ = signals.upgrade.recv() => upgrade(daemon.clone()),
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = alive.tick(), if notifier.watchdog.is_some() => {
                if watchdog.beat() {
                    notifier.send("WATCHDOG=1");
                }
            }
        }
    }
}

/// Waits until the control socket's file is gone, without which nobody can steer a stand-in.
pub(crate) async fn lose_control(daemon: &Daemon) {
    let control = &daemon.started_with().control;
    while control.exists() {
        tokio::time::sleep(CONTROL_CHECK).await;
    }
    tracing::info!("{} is gone; ends", control.display());
}

/// Has another `tramad` take over, on a thread that waits for it.
fn upgrade(daemon: Arc<Daemon>) {
    tokio::task::spawn_blocking(move || {
        let fault = daemon.upgrade();
        tracing::error!("{fault}");
    });
}

fn reload(daemon: &Daemon) {
    match daemon.reload() {
        Ok(done) => tracing::info!("reloaded: {} steps", done.steps.len()),
        Err(faults) => {
            faults.iter().for_each(|fault| tracing::error!("{fault}"));
            tracing::error!("not reloaded: nothing has changed");
        }
    }
}
