//! Other plug-ins that choose addresses (specification, section 4).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use super::failure::{CONFIG, Failure, INPUT};

/// The program of another plug-in, and what it is given.
pub(super) struct Delegate<'a> {
    /// The value of `ipam.type`.
    name: &'a str,
    program: PathBuf,
    /// The input of this plug-in.
    input: &'a [u8],
}

impl<'a> Delegate<'a> {
    /// Finds the program in the folders of `CNI_PATH`.
    pub(super) fn find(
        name: &'a str,
        path: &str,
        input: &'a [u8],
    ) -> Result<Delegate<'a>, Failure> {
        let mut programs = path.split(':').map(|folder| Path::new(folder).join(name));
        let is_name = !name.contains('/') && !name.starts_with('.');
        let found = programs.find(|program| is_name && program.is_file());
        let program = found.ok_or_else(|| {
            let known = "install that plug-in, or use \"trama\"";
            let details = format!("ipam.type is {name:?}, and no folder of CNI_PATH ({path})");
            Failure::new(CONFIG, format!("{details} has such a program; {known}"))
        })?;
        Ok(Delegate { name, program, input })
    }

    /// Runs it with the environment of this plug-in; returns what it says.
    ///
    /// # Errors
    /// Its own error, or that it cannot run.
    pub(super) fn run(&self, command: &str) -> Result<Vec<u8>, Failure> {
        let program = self.program.display();
        let failed = |error| Failure::new(INPUT, format!("{program}: {error}"));
        let mut child = Program::new(&self.program)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read ends with a message.
            let _ = input.write_all(self.input);
        }
        let output = child.wait_with_output().map_err(failed)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
                let status = output.status;
                Failure::new(INPUT, format!("{program} ({}): {status}", self.name))
            })),
        }
    }
}
