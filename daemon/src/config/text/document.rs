//! Reads a text into a [`Config`], or reports everything that is wrong with it.
//!
//! There are three passes. The TOML parser finds syntax errors. The tables are read key by key; a
//! default replaces a value that cannot be read. [`validate`] checks the whole. Faults of one pass
//! do not hide those of the next, with one exception: text with syntax errors is not read further,
//! because guesses about its meaning would mislead.

use std::collections::HashSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use trama_api::folders::Folders;
use trama_api::nearest::nearest;

use super::diagnostic::Diagnostic;
use super::reader::{Reader, Report, type_name};
use super::{daemon, mirror, network, port, record};
use crate::Fault;
use crate::config::model::{Config, DaemonConfig, Port};
use crate::config::rules::problem::table_path;
use crate::config::rules::{Place, Problem, validate};

/// Reads the configuration of the system's daemon; `file` is the name shown in diagnostics.
///
/// # Errors
/// Everything that is wrong with the text, in its order.
pub fn parse(text: &str, file: &str) -> Result<Config, Vec<Diagnostic>> {
    parse_at(text, file, &Folders::system())
}

/// As [`parse`], for a daemon with these folders.
///
/// # Errors
/// Everything that is wrong with the text, in its order.
pub fn parse_at(text: &str, file: &str, folders: &Folders) -> Result<Config, Vec<Diagnostic>> {
    parse_on(text, file, folders, |_| Vec::new())
}

/// As [`parse_at`], with further problems that `look` finds, such as conflicts with the host.
///
/// # Errors
/// Everything that is wrong with the text, in its order.
pub fn parse_on(
    text: &str,
    file: &str,
    folders: &Folders,
    look: impl FnOnce(&Config) -> Vec<Problem>,
) -> Result<Config, Vec<Diagnostic>> {
    let mut report = Report::new(text, file);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut said = HashSet::new();
    for error in errors {
        // Each level of brackets that are not closed is an error of its own.
        if error.message() != DUPLICATE && !said.insert(error.message().to_owned()) {
            continue;
        }
        let offset = error.span().map_or(text.len(), |span| span.start);
        report.add(offset, "", syntax_fault(error.message()));
    }
    if !report.is_clean() {
        return Err(report.finish());
    }
    let config = read_document(document.get_ref(), folders, &mut report);
    report.add_problems(validate(&config));
    report.add_problems(look(&config));
    if report.is_clean() { Ok(config) } else { Err(report.finish()) }
}

/// Reads the `[[port]]` tables of a text that this program has written, without the networks that
/// they are on; empty if it has faults.
pub fn ports_of(text: &str, folders: &Folders) -> Vec<Port> {
    let mut report = Report::new(text, "");
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Vec::new();
    }
    let config = read_document(document.get_ref(), folders, &mut report);
    if report.is_clean() { config.ports } else { Vec::new() }
}

/// The parser's message for a key that is there twice.
const DUPLICATE: &str = "duplicate key";

fn syntax_fault(message: &str) -> Fault {
    match message {
        DUPLICATE => Fault::new(DUPLICATE, "keep one of the two"),
        other => Fault::new(format!("not TOML: {other}"), "see https://toml.io for its rules"),
    }
}

fn read_document<'d>(
    document: &'d DeTable<'d>,
    folders: &Folders,
    report: &mut Report<'_>,
) -> Config {
    let daemon = DaemonConfig::at(folders.clone());
    let mut config = Config { daemon, ..Config::default() };
    for (key, value) in document {
        let offset = key.span().start;
        match key.get_ref().as_ref() {
            "daemon" => {
                if let DeValue::Table(table) = value.get_ref() {
                    let start = value.span().start;
                    let path = table_path(Place::Daemon, "");
                    let mut reader = Reader::new(report, table, start, Place::Daemon, path);
                    config.daemon = daemon::read(&mut reader, config.daemon);
                } else {
                    let message = format!("is {}, not a table", type_name(value.get_ref()));
                    let remedy = "write [daemon] and its keys below";
                    report.add(offset, "daemon", Fault::new(message, remedy));
                }
            }
            "network" => {
                for (index, table, start) in tables(value, offset, "network", report) {
                    let place = Place::Network(index);
                    let path = table_path(place, name_of(table));
                    let mut reader = Reader::new(report, table, start, place, path);
                    config.networks.push(network::read(&mut reader, index));
                }
            }
            "port" => {
                for (index, table, start) in tables(value, offset, "port", report) {
                    let place = Place::Port(index);
                    let path = table_path(place, name_of(table));
                    let mut reader = Reader::new(report, table, start, place, path);
                    config.ports.push(port::read(&mut reader));
                }
            }
            "mirror" => {
                for (index, table, start) in tables(value, offset, "mirror", report) {
                    let place = Place::Mirror(index);
                    let path = table_path(place, name_of(table));
                    let mut reader = Reader::new(report, table, start, place, path);
                    config.mirrors.push(mirror::read(&mut reader));
                }
            }
            "openvswitch" => {
                for (index, table, start) in tables(value, offset, "openvswitch", report) {
                    let place = Place::Record(index);
                    let path = table_path(place, name_of(table));
                    let mut reader = Reader::new(report, table, start, place, path);
                    config.records.push(record::read(&mut reader));
                }
            }
            other => {
                let known = ["daemon", "network", "port", "mirror", "openvswitch"];
                let remedy = match nearest(other, &known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "remove it; known here: [daemon], [[network]], [[port]], [[mirror]], \
                             [[openvswitch]]"
                        .to_owned(),
                };
                report.add(offset, other, Fault::new("unknown key", remedy));
            }
        }
    }
    config
}

/// The tables of an array of tables, with their numbers and offsets; other items are faults.
fn tables<'d>(
    value: &'d Spanned<DeValue<'d>>,
    offset: usize,
    key: &str,
    report: &mut Report<'_>,
) -> Vec<(usize, &'d DeTable<'d>, usize)> {
    let DeValue::Array(items) = value.get_ref() else {
        let message = format!("is {}, not a list of tables", type_name(value.get_ref()));
        let fault = Fault::new(message, format!("write [[{key}]] with two brackets"));
        report.add(offset, key, fault);
        return Vec::new();
    };
    let mut tables = Vec::new();
    for item in items.iter() {
        match item.get_ref() {
            DeValue::Table(table) => tables.push((tables.len(), table, item.span().start)),
            other => {
                let message = format!("is {}, not a table", type_name(other));
                let remedy = format!("write [[{key}]] and its keys below");
                report.add(item.span().start, key, Fault::new(message, remedy));
            }
        }
    }
    tables
}

/// The name of a network or port; empty if it cannot be read.
fn name_of<'d>(table: &'d DeTable<'d>) -> &'d str {
    table.get("name").and_then(|name| name.get_ref().as_str()).unwrap_or_default()
}
