//! `explain`: what the switch would do with a frame that a port's machine sends.

mod words;

use trama_api::explain::Answer;
use trama_client::Failed;

use crate::cli::Invocation;
use crate::render::Format;

/// The exit status if no port would get the frame.
const DROPPED: u8 = 4;

/// The command under which Open vSwitch has it.
pub(crate) const TRACE: &str = "ofproto/trace";

/// What is printed, and the exit status: 4 if no port would get the frame.
///
/// # Errors
/// The words are not understood, or the daemon does not answer.
pub(crate) fn run(
    invocation: &Invocation,
    name: &str,
    arguments: &[String],
) -> Result<(Vec<u8>, u8), Failed> {
    let request = match name {
        TRACE => words::read_flow(arguments)?,
        _ => words::read(arguments)?,
    };
    let answer = invocation.daemon.explain(&request)?;
    let text = match invocation.style.format {
        Some(Format::Json) => {
            serde_json::to_string(&answer).map_err(|error| error.to_string())? + "\n"
        }
        _ => lines(&answer),
    };
    Ok((text.into_bytes(), if answer.is_dropped() { DROPPED } else { 0 }))
}

/// One line for each step, what it is about in a column of its own.
fn lines(answer: &Answer) -> String {
    let width = answer.steps.iter().map(|step| step.about.chars().count()).max().unwrap_or(0);
    let line = |step: &trama_api::explain::Step| format!("{:width$}  {}\n", step.about, step.text);
    answer.steps.iter().map(line).collect()
}
