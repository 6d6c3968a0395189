//! `trama-netavark`, the plug-in for podman: netavark runs it as the driver of a network.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use trama_api::folders::control_sockets;
use trama_containers::{netavark, read_input};

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    // A question without input must not wait for one.
    let has_input = arguments.first().is_some_and(|command| command != "info");
    let input = match has_input {
        true => read_input(std::io::stdin()).unwrap_or_default(),
        false => Vec::new(),
    };
    match netavark::run(control_sockets(None), &arguments, &input) {
        Ok(output) if output.is_empty() => ExitCode::SUCCESS,
        Ok(output) => {
            println!("{output}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
