//! `trama-docker`, the plug-in for Docker: dockerd finds it by its socket.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use trama_containers::docker::{Plugin, listen, serve};

/// Attaches containers of Docker to networks of trama: a network driver of dockerd.
///
/// It runs in the foreground until SIGTERM or SIGINT. tramad is found as tramactl finds it.
#[derive(Parser, Debug)]
#[command(name = "trama-docker", version)]
struct Arguments {
    /// The socket for dockerd; the driver's name is that of the file, without .sock
    #[arg(long, value_name = "PATH", default_value = "/run/docker/plugins/trama.sock")]
    socket: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trama-docker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let listener = listen(&arguments.socket)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        // Without a service manager, there is none to tell.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        serve(Plugin::new(), listener, shutdown).await
    });
    let _ = std::fs::remove_file(&arguments.socket);
    Ok(served?)
}
