//! `tramad probe-sandbox`: tries what a restricted process must not be able to do.

use std::io;

use clap::ValueEnum;
use trama_daemon::confinement;
use trama_sandbox::{CapabilitySet, Mode, Process, keep_only, restrict_calls};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// A kind of process that is restricted.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Confined {
    Switch,
    Gateway,
    Helper,
    Keeper,
}

impl Confined {
    /// Enters the sandbox of the process, tries something and prints the outcome.
    pub(crate) fn probe(self, attempt: &str) -> io::Result<()> {
        let missing = self.enter()?;
        let outcome = trama_sandbox::probe::attempt(attempt)
            .ok_or_else(|| io::Error::other(format!("{attempt:?} is not known")))?;
        missing.iter().for_each(|missing| println!("missing: {missing}"));
        match outcome {
            Ok(()) => println!("done"),
            Err(error) => println!("refused: {error}"),
        }
        Ok(())
    }

    /// Restricts this process. Returns what is not in force.
    fn enter(self) -> io::Result<Vec<String>> {
        match self {
            Confined::Gateway => {
                let user = rustix::process::geteuid().is_root().then_some((NOBODY, NOBODY));
                let options = trama_gateway::process::Options { user, ..Default::default() };
                trama_gateway::process::confine(options)
            }
            Confined::Switch => {
                confinement::enter(Mode::Enforce)?;
                Ok(confinement::missing())
            }
            Confined::Helper => {
                keep_only(CapabilitySet::empty())?;
                let missing = restrict_calls(Process::Helper, Mode::Enforce).err();
                Ok(missing.iter().map(ToString::to_string).collect())
            }
            Confined::Keeper => trama_keeper::confine(Mode::Enforce),
        }
    }
}
