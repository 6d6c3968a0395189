//! The running daemon: the one place where configuration, file and workers meet.
//!
//! [`Daemon::transact`] and [`Daemon::reload`] make all changes. Both validate, plan and apply in
//! the same way, under one lock that the data path never takes.

mod ephemeral;
mod explain;
pub(crate) mod exports;
mod follow;
mod hand_over;
pub(crate) mod overview;
mod questions;
mod start;
mod top;
pub(crate) mod watches;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use trama_api::folders::{self, Folders};
use trama_api::transaction::NotRunning;
use trama_helper::{ConfigFile, Rights, Setup, read_config_file};
use trama_switch::WorkerHandle;

use crate::Fault;
use crate::added_forwards::{Added, added};
use crate::apply::DataPlane;
use crate::captures::{Captures, Ring};
use crate::changes::Changes;
use crate::config::model::{Config, DaemonConfig};
use crate::config::{Diagnostic, Problem, Saved, parse_on, validate};
use crate::crashes::Crashes;
use crate::events::{By, Events};
use crate::export::Exports;
use crate::host;
use crate::moves::MoveError;
use crate::panics;
use crate::plan::{Step, daemon_keys, plan, restart};
use crate::port_numbers::Numbers;
use crate::status::{FdbRow, Status};
use crate::succession::keeper_socket;
use crate::upgrade::HandOver;
use crate::web::Web;

pub use questions::QueryError;
use start::Start;

/// How long a transaction that changes nothing waits for the end of the start. By then a small host
/// is built, and a client finds what is configured.
const SOON: Duration = Duration::from_millis(200);

/// How a transaction is carried out.
#[derive(Clone, Copy, Debug)]
pub struct TransactOptions {
    /// Only report the steps.
    pub dry_run: bool,
    /// Write the change into the configuration file.
    pub save: bool,
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct Committed<R> {
    /// What the edit returned.
    pub result: R,
    /// The steps taken; in a dry run, those that would be taken.
    pub steps: Vec<Step>,
    /// What this change touched and what does not run, or not as stored.
    pub not_running: Vec<NotRunning>,
    /// The forwards that it has added; whether they listen, the gateways are asked.
    pub forwards: Vec<Added>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TransactError<E> {
    /// The edit failed.
    #[error(transparent)]
    Edit(E),
    /// The edited configuration breaks a rule.
    #[error("{}", join_lines(.0))]
    Invalid(Vec<Problem>),
    /// The configuration file could not be written, or has changed since it was read.
    #[error("{0}")]
    Save(Fault),
}

fn join_lines<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file could not be read.
    #[error("{}: {error}; make it, or name another one with --config FILE", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The configuration breaks a rule.
    #[error("{}", join_lines(.0))]
    Invalid(Vec<Diagnostic>),
    /// A worker thread could not be started.
    #[error("worker thread: {0}")]
    Worker(io::Error),
}

/// Where a daemon's configuration comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// The folders of paths that the file does not state.
    pub folders: Folders,
    /// Whether the file may be missing and then counts as empty: the default file may, before the
    /// first change.
    pub may_be_missing: bool,
    /// What it said when it was last read without a fault.
    pub text: String,
}

impl Source {
    /// Returns the source of a system daemon; the file must exist.
    pub fn at(file: impl Into<PathBuf>) -> Source {
        let (folders, text) = (Folders::system(), String::new());
        Source { file: file.into(), folders, may_be_missing: false, text }
    }

    /// Reads and validates the configuration, with the rights of this process. Once read, the file
    /// must exist from then on.
    ///
    /// # Errors
    /// The file cannot be read, or it has faults; the error lists all of them.
    pub fn read(&mut self) -> Result<Config, StartError> {
        self.read_on(host::group)
    }

    /// As [`Source::read`], with what another process has read.
    ///
    /// # Errors
    /// The file could not be read, or it has faults; the error lists all of them.
    pub fn read_as(&mut self, text: io::Result<String>) -> Result<Config, StartError> {
        self.parse(text, host::group)
    }

    /// As [`Source::read`], with the problems that `look` finds.
    pub(crate) fn read_on(
        &mut self,
        look: impl FnOnce(&Config) -> Vec<Problem>,
    ) -> Result<Config, StartError> {
        let text = read_config_file(&self.file);
        self.parse(text, look)
    }

    /// What a helper must know of this source and its configuration. `is_process`: whether it is a
    /// process, at which root may approve more by a socket beside the control socket, and which
    /// removes that.
    pub fn helper_setup(&self, daemon: &DaemonConfig, is_process: bool) -> Setup {
        Setup {
            config: self.file.clone(),
            state: daemon.state.clone(),
            run: daemon.folders.run.clone(),
            sandbox: daemon.sandbox.name().to_owned(),
            keeper: is_process.then(|| keeper_socket(&daemon.control)),
            arguments: Vec::new(),
            bridges: None,
            program: PathBuf::new(),
            control: is_process.then(|| daemon.control.clone()),
            approvals: is_process.then(|| folders::approvals_socket(&daemon.control)),
        }
    }

    fn parse(
        &mut self,
        text: io::Result<String>,
        look: impl FnOnce(&Config) -> Vec<Problem>,
    ) -> Result<Config, StartError> {
        // What is wrong without a file has no place in it.
        let (name, text) = match text {
            Err(error) if self.may_be_missing && error.kind() == io::ErrorKind::NotFound => {
                (String::new(), String::new())
            }
            Err(error) => return Err(StartError::Read { file: self.file.clone(), error }),
            Ok(text) => {
                self.may_be_missing = false;
                (self.file.display().to_string(), text)
            }
        };
        let parsed = parse_on(&text, &name, &self.folders, look);
        let config = parsed.map_err(StartError::Invalid)?;
        self.text = text;
        Ok(config)
    }

    /// Takes a text in the place of the file's, which an earlier process has read.
    ///
    /// # Errors
    /// It has faults; the error lists all of them.
    pub fn read_from(&mut self, text: String) -> Result<Config, StartError> {
        self.parse(Ok(text), |_| Vec::new())
    }

    /// Writes the difference of two configurations into the file, of which `saved` is known. Once
    /// written, the file must exist from then on.
    fn save(
        &mut self,
        rights: &Rights,
        saved: &mut Saved,
        (from, to): (&Config, &Config),
    ) -> Result<(), Fault> {
        let name = self.file.display().to_string();
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let (text, how) = match rights.read_config() {
            Err(error) if self.may_be_missing && is_missing(&error) => {
                let is_private = from.daemon.folders.is_private;
                (Ok(String::new()), ConfigFile::Create { is_private })
            }
            text => (text, ConfigFile::Replace),
        };
        let is_written = saved.save(rights, (&name, text, how), from, to)?;
        if is_written && matches!(how, ConfigFile::Create { .. }) {
            tracing::info!("{name}: made, with the first change");
        }
        self.may_be_missing &= !is_written;
        Ok(())
    }
}

/// The running daemon. Shared as `Arc<Daemon>`.
pub struct Daemon {
    /// `[daemon]` as it was at start; it stays in force until the next start.
    started_with: DaemonConfig,
    started: Instant,
    event: UnixStream,
    inner: Mutex<Inner>,
    start: Start,
    crashes: Arc<Crashes>,
    /// The captures that run.
    pub(crate) captures: Arc<Captures>,
    /// The ring of the last frames.
    pub(crate) ring: Arc<Ring>,
    pub(crate) exports: Arc<Exports>,
    numbers: Mutex<Numbers>,
    /// What browsers are shown.
    pub(crate) web: Arc<Web>,
    /// What has happened.
    pub(crate) events: Arc<Events>,
    /// Set once if there is a keeper.
    hand_over: OnceLock<HandOver>,
    /// Threads that want the lock, which [`Daemon::build`] lets go first.
    waiting: AtomicUsize,
}

/// Where a daemon is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Steps of the start remain.
    Starting,
    Running,
    Stopping,
}

struct Inner {
    phase: Phase,
    source: Source,
    rights: Rights,
    config: Config,
    saved: Saved,
    data_plane: DataPlane,
    changes: Changes,
    exports: Arc<Exports>,
    ring: Arc<Ring>,
    web: Arc<Web>,
}

impl Daemon {
    /// Reads the configuration, starts the workers and builds what it describes, with the rights of
    /// this process. Ports that cannot be made are stored but do not run; [`Daemon::status`] has
    /// the reasons.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn start(mut source: Source) -> Result<Arc<Daemon>, StartError> {
        let config = source.read()?;
        let rights = Rights::own(source.helper_setup(&config.daemon, false), "/proc/self/exe");
        let daemon = Self::prepare(source, config, rights, Crashes::none())?;
        daemon.build();
        Ok(daemon)
    }

    /// Starts the workers, with the configuration already read from `source`; opens devices,
    /// sockets and the configuration by `rights`. [`Daemon::build`] makes the networks and ports,
    /// but for those that `crashes` leaves out.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn prepare(
        source: Source,
        mut config: Config,
        rights: Rights,
        crashes: Crashes,
    ) -> Result<Arc<Daemon>, StartError> {
        rights.keep_config(&source.text);
        let crashes = Arc::new(crashes);
        let started = DataPlane::start(&config.daemon, rights.clone(), crashes.clone());
        let (mut data_plane, event) = started.map_err(StartError::Worker)?;
        ephemeral::resume(&rights, &mut data_plane, &mut config);
        let started_with = config.daemon.clone();
        let phase = Phase::Starting;
        let saved = Saved::read(source.text.clone());
        let events = data_plane.events.clone();
        let (changes, exports) = (Changes::new(), Arc::<Exports>::default());
        let ring = Arc::<Ring>::default();
        ring.resize(config.daemon.capture_ring);
        let web = Arc::new(Web::new(&config.daemon, &rights));
        let inner = Inner {
            phase,
            source,
            rights,
            config,
            saved,
            data_plane,
            changes,
            exports: exports.clone(),
            ring: ring.clone(),
            web: web.clone(),
        };
        let inner = Mutex::new(inner);
        let (start, waiting) = (Start::default(), AtomicUsize::new(0));
        let started = Instant::now();
        let (captures, hand_over) = (Arc::default(), OnceLock::new());
        Ok(Arc::new(Daemon {
            started_with,
            started,
            event,
            inner,
            start,
            crashes,
            captures,
            ring,
            exports,
            numbers: Mutex::default(),
            web,
            events,
            hand_over,
            waiting,
        }))
    }

    /// Returns a copy of the configuration in force.
    pub fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// Returns `[daemon]` as it was at start.
    pub fn started_with(&self) -> &DaemonConfig {
        &self.started_with
    }

    /// Returns the path of the configuration file.
    pub fn file(&self) -> PathBuf {
        self.lock().source.file.clone()
    }

    /// Lets `edit` change a draft of the configuration, then validates, saves and applies the
    /// draft: all of it or nothing. A change waits until the start is over; what changes nothing
    /// waits no longer than 200 ms.
    ///
    /// # Errors
    /// Nothing has changed, neither in the file nor in what runs.
    pub fn transact<R, E>(
        &self,
        options: TransactOptions,
        mut edit: impl FnMut(&mut Config) -> Result<R, E>,
    ) -> Result<Committed<R>, TransactError<E>> {
        self.start.wait(SOON);
        let mut inner = self.lock();
        let (draft, result) = loop {
            let mut draft = inner.config.clone();
            let result = edit(&mut draft).map_err(TransactError::Edit)?;
            draft.follow_connections();
            if draft == inner.config || inner.phase != Phase::Starting {
                break (draft, result);
            }
            drop(inner);
            // Others that wait as well may change the configuration first.
            inner = self.lock_to_change();
        };
        if draft == inner.config {
            // It is valid, and runs.
            let (steps, not_running, forwards) = Default::default();
            return Ok(Committed { result, steps, not_running, forwards });
        }
        let problems = validate(&draft);
        if !problems.is_empty() {
            return Err(TransactError::Invalid(problems));
        }
        let mut steps = plan(&inner.config, &draft);
        steps.extend(restart(&self.started_with, &inner.config.daemon, &draft.daemon));
        let (mut not_running, mut forwards) = Default::default();
        if !options.dry_run {
            forwards = added(&inner.config, &steps);
            panics::commit();
            let Inner { source, rights, config, saved, .. } = &mut *inner;
            match options.save {
                true => {
                    let done = source.save(rights, saved, (config, &draft));
                    done.map_err(TransactError::Save)?;
                }
                false => saved.lack_change(),
            }
            not_running = inner.change_to(draft, &steps);
        }
        Ok(Committed { result, steps, not_running, forwards })
    }

    /// Reads the configuration file again, applies the changes, and tries again to start the ports
    /// that do not run.
    ///
    /// # Errors
    /// The file has faults; the error lists all of them. Nothing has changed.
    pub fn reload(&self, by: By) -> Result<Committed<()>, Vec<Diagnostic>> {
        // Locked before reading: otherwise a transaction that saves in between would be undone.
        let mut inner = self.lock_to_change();
        let reloaded = inner.reload(&self.started_with);
        inner.changes.record_reload(reloaded.is_ok());
        match &reloaded {
            Ok(done) => self.events.changed("reloaded", by, &done.steps),
            Err(faults) => self.events.changed("reload refused", by, faults),
        }
        reloaded
    }

    /// Returns whether [`Daemon::retry`] has ports to try: those that do not run as they are
    /// stored, but for those that wait for a change of their link or for a command.
    pub fn retries_by_time(&self) -> bool {
        self.lock().data_plane.retries_by_time()
    }

    /// Tries again to start the ports that do not run.
    pub fn retry(&self) {
        self.lock_to_change().retry();
    }

    /// Returns the time until [`Daemon::follow_floods`] must be called; `None` while there is
    /// neither a storm nor a sign of a loop.
    pub fn next_flood_check(&self) -> Option<Duration> {
        self.lock().data_plane.next_flood_check(self.started.elapsed())
    }

    /// Follows storms and loops: sends the probes that are due, blocks and opens ports.
    pub fn follow_floods(&self) {
        self.lock().data_plane.follow_floods(self.started.elapsed());
    }

    /// Returns a stream that becomes readable when a device has vanished, a port could not start, a
    /// storm has begun, there is a sign of a loop, or a worker is loaded. The caller empties it and
    /// calls [`Daemon::handle_events`].
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn event(&self) -> io::Result<UnixStream> {
        self.event.try_clone()
    }

    /// Moves a network to a worker, with its ports and their state; guests do not notice.
    ///
    /// # Errors
    /// There is no such network or worker; nothing has changed.
    pub fn move_network(&self, network: &str, worker: usize) -> Result<(), MoveError> {
        self.lock_to_change().data_plane.move_network(network, worker, |_| {})
    }

    /// Returns the workers; they stay the same while the daemon runs.
    pub fn workers(&self) -> Vec<WorkerHandle> {
        self.lock().data_plane.workers()
    }

    /// Notes the worker that stands still, by its number, in case that the process is ended for it;
    /// `None`: all go on.
    pub fn set_hung(&self, worker: Option<usize>) {
        self.crashes.set_hung(worker);
    }

    /// Stops everything and removes the sockets and devices that the daemon made.
    pub fn stop(&self) {
        self.exports.end();
        self.lock().data_plane.stop();
    }

    /// Returns a snapshot of everything that runs.
    pub fn status(&self) -> Status {
        let inner = self.lock();
        let needs_restart = daemon_keys(&self.started_with, &inner.config.daemon);
        let mut status = inner.data_plane.status(&inner.config, needs_restart);
        (status.changes, status.exports) = (inner.changes, self.exports.statuses());
        status
    }

    /// Returns the learnt MAC addresses of a network; `None` if there is no such network.
    pub fn fdb(&self, network: &str) -> Option<Vec<FdbRow>> {
        self.lock().data_plane.fdb(network)
    }

    /// Forgets the learnt MAC addresses of one network, or of all. Returns `false` if there is no
    /// such network.
    pub fn fdb_flush(&self, network: Option<&str>) -> bool {
        panics::commit();
        self.lock().data_plane.fdb_flush(network)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        inner
    }

    /// Locks once the start is over: a change of what is not built yet would be undone.
    fn lock_to_change(&self) -> MutexGuard<'_, Inner> {
        loop {
            let inner = self.lock();
            if inner.phase != Phase::Starting {
                return inner;
            }
            drop(inner);
            self.start.wait(Duration::MAX);
        }
    }
}

impl Inner {
    fn reload(&mut self, started_with: &DaemonConfig) -> Result<Committed<()>, Vec<Diagnostic>> {
        let text = self.rights.read_config();
        let rights = &self.rights;
        // The next start would fail for want of it.
        let group = |config: &Config| host::group_by(config, |name| rights.ids(None, Some(name)));
        let parsed = self.source.parse(text, group);
        let mut config = parsed.map_err(|error| error.diagnostics(&self.source.file))?;
        // What is not in the file stays while its port does.
        ephemeral::carry_over(&self.config, &mut config);
        config.ports.extend(self.config.ports.iter().filter(|it| it.is_connection()).cloned());
        config.follow_connections();
        self.rights.keep_config(&self.source.text);
        self.saved = Saved::read(self.source.text.clone());
        let mut steps = plan(&self.config, &config);
        steps.extend(restart(started_with, &self.config.daemon, &config.daemon));
        let forwards = added(&self.config, &steps);
        panics::commit();
        self.change_to(config, &steps);
        self.retry();
        self.try_waiting();
        let not_running = self.data_plane.troubles();
        Ok(Committed { result: (), steps, not_running, forwards })
    }

    /// Takes the steps and makes `config` the one in force. Returns what they have changed and what
    /// does not run, or not so.
    fn change_to(&mut self, config: Config, steps: &[Step]) -> Vec<NotRunning> {
        let in_trouble = self.data_plane.in_trouble();
        self.data_plane.apply(steps, &config.expanded());
        self.data_plane.release_blocks();
        if config != self.config {
            self.changes.record_change();
        }
        self.data_plane.events.set_capacity(config.daemon.events);
        self.ring.resize(config.daemon.capture_ring);
        self.web.configure(&config.daemon);
        let before = std::mem::replace(&mut self.config, config);
        self.data_plane.attached.retain(&self.config);
        self.exports.wake();
        self.keep_ephemeral(&before);
        self.data_plane.not_in_force(steps, &in_trouble)
    }
}

#[cfg(test)]
mod tests;
