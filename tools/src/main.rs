//! `tramactl`, the control command: `ovs-vsctl` for trama.
//!
//! It reads the command line, sends the commands to the daemon as one transaction, and prints the
//! answer in the form that the user chose. The table of commands is in [`trama_api::commands`],
//! their code in the daemon; only help, completions and the manual page are made here.
#![forbid(unsafe_code)]

/// Prints a line on standard error. One that cannot be written is lost, and changes no exit status:
/// what was asked for may be done.
macro_rules! tell {
    ($($format:tt)*) => {{
        let line = format!($($format)*);
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
    }};
}

mod attach;
mod cli;
mod complete;
mod doctor;
mod explain;
mod extcap;
mod help;
mod manual;
mod names;
mod observe;
mod render;
mod tcpdump;
mod top;
mod vmm;
mod web;

use std::io::Write;
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use names::{Call, Mistake};
use render::Cell;
use serde::de::DeserializeOwned;
use trama_api::transaction::STORED_NOT_RUNNING;
use trama_api::value::{Text, Value};
use trama_client::Failed;
use vmm::Vmm;

fn main() -> ExitCode {
    let called = match names::called(std::env::args_os().collect()) {
        Ok(Call::Run(called)) => called,
        Ok(Call::Print(text)) => return print("ovs-appctl", text.as_bytes(), 0),
        Ok(Call::Extcap(words)) => {
            return match extcap::run(&words) {
                Ok(text) => print(extcap::NAME, text.as_bytes(), 0),
                Err(failed) => fail(extcap::NAME, &failed.to_string(), failed.exit()),
            };
        }
        Err(Mistake { program, message }) => return fail(program, &message, 1),
    };
    let program = called.program;
    // Before the words are read: they need not make a whole command yet.
    if let [_, command, words @ ..] = called.arguments.as_slice()
        && command == "complete"
    {
        return print(program, complete::print(words).as_bytes(), 0);
    }
    let mut invocation = match cli::parse(called.arguments) {
        Ok(invocation) => invocation,
        Err(error) if error.use_stderr() => return fail(program, &cli::mistake(&error), 1),
        Err(help) => {
            // A closed pipe is not reported.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    // Under its names, the forms are those of Open vSwitch.
    invocation.style.people = invocation.style.people.filter(|_| program == names::OWN);
    let result = match local(program, &invocation) {
        Some(local) => local,
        None => remote(program, &invocation),
    };
    match result {
        Ok((text, exit)) => print(program, &text, exit),
        Err(failed) => fail(program, &failed.to_string(), failed.exit()),
    }
}

fn fail(program: &str, message: &str, exit: u8) -> ExitCode {
    message.lines().for_each(|line| tell!("{program}: {line}"));
    ExitCode::from(exit)
}

fn print(program: &str, text: &[u8], exit: u8) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(exit),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(exit),
        Err(error) => {
            tell!("{program}: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

fn remote(program: &str, invocation: &cli::Invocation) -> Result<(Vec<u8>, u8), Failed> {
    // Needs no daemon.
    invocation.commands.iter().try_for_each(|words| help::check_name(words))?;
    match invocation.style.is_text(&invocation.commands) {
        true => answered::<Text>(program, invocation),
        false => answered::<Value>(program, invocation),
    }
}

/// Asks the daemon; returns what is printed, from cells that are read as `C`.
fn answered<C: Cell + DeserializeOwned>(
    program: &str,
    invocation: &cli::Invocation,
) -> Result<(Vec<u8>, u8), Failed> {
    let response = invocation.daemon.transact::<C>(&invocation.request())?;
    response.warnings.iter().for_each(|warning| tell!("{program}: {warning}"));
    response.not_running.iter().for_each(|it| tell!("{program}: {it}"));
    if invocation.dry_run {
        response.steps.iter().for_each(|step| tell!("{program}: would {step}"));
    }
    // Open vSwitch's callers take any other status for a refusal, and undo what they have done.
    let exit = match response.exit {
        STORED_NOT_RUNNING if program == names::OVS_VSCTL => 0,
        exit => exit,
    };
    let mut text = render::render(&response.results, invocation.style);
    let has_colours = AutoStream::choice(&std::io::stdout()) != ColorChoice::Never;
    if invocation.style.people.is_some() && !has_colours {
        text = anstream::adapter::strip_str(&text).to_string();
    }
    // A table of a thousand ports has fifty thousand values, and the process ends.
    std::mem::forget(response);
    Ok((text.into_bytes(), exit))
}

/// Asks the daemon about a port, and prints what a VMM is given for it.
fn print_for(invocation: &cli::Invocation, vmm: Vmm, port: &str) -> Result<Vec<u8>, Failed> {
    let commands = vmm::questions(port);
    let questions = cli::Invocation { commands, ..invocation.clone() };
    let answer = invocation.daemon.transact(&questions.request())?;
    if vmm::is_missing(&answer.results) {
        let known = invocation.daemon.run(vmm::ports())?;
        return Err(vmm::no_port(port, &[known]).into());
    }
    Ok(vmm.answer(port, &answer.results)?.into_bytes())
}

/// Carries out a command that is not the daemon's; returns its output and exit status.
fn local(program: &str, invocation: &cli::Invocation) -> Option<Result<(Vec<u8>, u8), Failed>> {
    if let [words] = invocation.commands.as_slice()
        && let Some((name, arguments)) = words.split_first().map(|(name, it)| (&**name, it))
        && !arguments.contains(&"--help".to_owned())
    {
        match name {
            "doctor" => return Some(doctor::run(invocation, arguments)),
            "explain" | explain::TRACE => return Some(explain::run(invocation, name, arguments)),
            "observe" => {
                let ended = observe::run(program, &invocation.daemon, arguments);
                return Some(ended.map(|()| (Vec::new(), 0)));
            }
            "tcpdump" => {
                let ended = tcpdump::run(program, &invocation.daemon, arguments);
                return Some(ended.map(|exit| (Vec::new(), exit)));
            }
            "top" => {
                let ended = top::run(program, &invocation.daemon, arguments);
                return Some(ended.map(|exit| (Vec::new(), exit)));
            }
            _ => {}
        }
    }
    Some(printed(program, invocation)?.map(|text| (text, 0)))
}

/// What the other ones print.
fn printed(program: &str, invocation: &cli::Invocation) -> Option<Result<Vec<u8>, Failed>> {
    let base = || Some(Ok(cli::base().render_help().to_string().into_bytes()));
    if invocation.commands.is_empty() && program == names::OWN {
        return base();
    }
    let page = |name: &str| help::page(name).map(String::into_bytes).map_err(Failed::from);
    let asks = |words: &&Vec<String>| words.iter().skip(1).any(|word| word == "--help");
    if let Some(words) = invocation.commands.iter().find(asks) {
        return words.iter().find(|word| !word.starts_with("--")).map(|name| page(name));
    }
    let [words] = invocation.commands.as_slice() else { return None };
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["help"] => base(),
        ["help", name] => Some(page(name)),
        ["help", ..] => Some(Err("'help' takes one command".to_owned().into())),
        ["list-commands"] => Some(Ok(help::names().into_bytes())),
        ["man"] => Some(Ok(manual::page().into_bytes())),
        ["completions", shell] => Some(completions(shell)),
        ["approve"] => Some(Err("'approve' takes the names to approve".to_owned().into())),
        ["approve", words @ ..] if words.iter().any(|word| word.trim().is_empty()) => {
            Some(Err("'approve' takes names, and one of these is empty".to_owned().into()))
        }
        ["approve", ..] => Some(approve(invocation, &words[1..])),
        ["extcap", "install"] => Some(extcap::install().map(String::into_bytes)),
        ["extcap", ..] => Some(Err("'extcap' takes the word install".to_owned().into())),
        ["web", ..] => Some(web::run(program, &invocation.daemon, &words[1..])),
        ["attach", ..] => Some(attach::attach(&invocation.daemon, &words[1..])),
        [name, port] if Vmm::of_command(name).is_some() => {
            Vmm::of_command(name).map(|vmm| print_for(invocation, vmm, port))
        }
        [name, ..] if Vmm::of_command(name).is_some() => {
            Some(Err(format!("'{name}' takes one port").into()))
        }
        ["completions", ..] => Some(completions("")),
        _ => None,
    }
}

/// Approves words; returns what is printed.
fn approve(invocation: &cli::Invocation, words: &[String]) -> Result<Vec<u8>, Failed> {
    invocation.daemon.approve(words)?;
    let names = words.join(" ");
    let then = "what waits for it is tried again within 5 s";
    Ok(format!("approved until tramad ends: {names}; {then}\n").into_bytes())
}

/// The script of a shell.
fn completions(shell: &str) -> Result<Vec<u8>, Failed> {
    let found = complete::SHELLS.iter().find(|(name, _)| *name == shell);
    let names = complete::SHELLS.map(|(name, _)| name).join(", ");
    match found {
        Some((_, script)) => Ok(script.as_bytes().to_vec()),
        None => Err(format!("'completions' takes one shell, of {names}").into()),
    }
}
