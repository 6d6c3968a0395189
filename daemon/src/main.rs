//! `tramad`, the daemon.
//!
//! Reads the configuration, starts the workers, serves the control socket on a runtime that handles
//! no frames, and waits for signals. The same program is the process that a daemon starts for
//! itself: a helper, a keeper, a gateway.
#![forbid(unsafe_code)]

mod options;
mod place;
mod probe;
mod run;
mod serve;
mod signals;

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use trama_api::folders::Folders;
use trama_daemon::state::Source;
use trama_daemon::succession::Origin;
use trama_daemon::{describe, descriptors, panics, process_name};
use trama_helper::Service;

use options::{Options, Subcommand};
use run::Launch;

fn main() -> ExitCode {
    process_name::take();
    let mut options = Options::parse();
    let limit = options.bridge.map(Duration::from_secs);
    let origin = match options.command.take() {
        None => match limit {
            Some(limit) => Origin::Bridges { limit },
            None => Origin::Started { takes_over: options.take_over },
        },
        Some(Subcommand::StandIn { after, ended, by, control }) => {
            Origin::StandsIn { after, ended, by, control, limit }
        }
        Some(Subcommand::Gateway(options)) => {
            return ended(|| trama_gateway::process::run(options.into()));
        }
        Some(Subcommand::Web(options)) => {
            return ended(|| trama_web::process::run(options.into()));
        }
        Some(Subcommand::Helper { user, config }) => {
            let service = user.map(|user| service(user, config));
            return ended(|| trama_helper::run(service.as_ref()));
        }
        Some(Subcommand::Keeper { sandbox }) => return ended(|| trama_keeper::run(sandbox)),
        Some(Subcommand::ProbeSandbox { process, attempt }) => {
            return ended(|| process.probe(&attempt));
        }
    };
    let arguments = own_arguments(&options);
    let source = match source(&options) {
        Ok(source) => source,
        Err(message) => {
            trama_log::error(&message);
            return ExitCode::FAILURE;
        }
    };
    if options.check {
        return describe::check(&source);
    }
    trama_log::start("TRAMA_LOG", options.log_format.into());
    // Before anything is opened: each port takes some.
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    panics::end_process(|text| tracing::error!("{text}"));
    let Options { helper, linger, .. } = options;
    match run::run(source, Launch { origin, arguments, helper, linger }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| tracing::error!("{line}"));
            ExitCode::FAILURE
        }
    }
}

/// The service of a helper that a service manager has started.
fn service(user: String, config: Option<PathBuf>) -> Service {
    let folders = Folders::system();
    let control = folders.control();
    let Folders { config: default, run, state, .. } = folders;
    Service { user, config: config.unwrap_or(default), control, run, state }
}

/// The arguments with which a stand-in or a successor has the same files and log as this process.
fn own_arguments(options: &Options) -> Vec<OsString> {
    let format = options.log_format.to_possible_value();
    let format = format.map(|value| format!("--log-format={}", value.get_name()));
    let config = options.config.iter().flat_map(|file| ["--config".into(), file.into()]);
    let helper = options.helper.iter().flat_map(|socket| ["--helper".into(), socket.into()]);
    let user = options.user.then(|| "--user".into());
    let linger = (options.linger > 0).then(|| format!("--linger={}", options.linger).into());
    let others = user.into_iter().chain(format.map(OsString::from)).chain(linger);
    config.chain(helper).chain(others).collect()
}

/// Chooses the configuration file and the default folders.
fn source(options: &Options) -> Result<Source, String> {
    let folders = match options.helper {
        Some(_) => Folders::system(),
        None => Folders::of_process(options.user),
    };
    let may_be_missing = options.config.is_none();
    let file = options.config.clone().unwrap_or_else(|| folders.config.clone());
    if file.as_os_str().is_empty() {
        let message = "neither XDG_CONFIG_HOME nor HOME is set; name a configuration with --config";
        return Err(message.to_owned());
    }
    Ok(Source { file, folders, may_be_missing, text: String::new() })
}

/// Runs a process that a daemon has started, or a test; returns its exit status.
fn ended<E: Display>(run: impl FnOnce() -> Result<(), E>) -> ExitCode {
    // Asked before the process gives up what it takes to find out.
    trama_log::is_journal();
    panics::end_process(trama_log::error);
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            trama_log::error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
