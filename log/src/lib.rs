#![doc = include_str!("../README.md")]

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Stat, fstat};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{self, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is printed where nothing is stated.
const DEFAULT: &str = "info";
const LEVELS: &str = "off, error, warn, info, debug, trace";

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, for people and for systemd's journal.
    Text,
    /// A JSON object.
    Json,
}

/// Starts the log of this process. The environment variable `variable` says which lines are
/// printed; without it, all but those of debugging.
pub fn start(variable: &str, format: Format) {
    let wanted = std::env::var(variable).unwrap_or_default();
    let (filter, fault) = match filter(&wanted) {
        Ok(filter) => (filter, None),
        Err(fault) => (EnvFilter::new(DEFAULT), Some(fault)),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Log);
    match format {
        Format::Json => log.json().init(),
        Format::Text if is_journal() => log.event_format(Prioritized::new()).init(),
        Format::Text => log.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
    }
    if let Some(fault) = fault {
        tracing::error!("{variable}: {fault}; {DEFAULT} is used instead");
    }
}

/// Prints an error of a process that has no log.
pub fn error(text: &str) {
    let _ = Log.write_all(lines(text, Level::ERROR, is_journal()).as_bytes());
}

/// Reads which lines are printed.
fn filter(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Ok(EnvFilter::new(DEFAULT));
    }
    // A word alone that is no level is a target, of which all is printed, and of others nothing.
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let words = text.split(',').map(str::trim);
    let is_typo = |word: &&str| !word.contains(['=', '[', ':', '_']) && !is_level(word);
    if let Some(word) = words.into_iter().find(is_typo) {
        return Err(format!("there is no level {word:?}; levels are {LEVELS}"));
    }
    let filter = EnvFilter::builder().parse(text);
    filter.map_err(|error| format!("{text:?}: {error}; write LEVEL or TARGET=LEVEL, of {LEVELS}"))
}

/// Standard error. What cannot be written, as on a full disk or to a pipe without a reader, is
/// lost: the process has other things to do than to log. The first line that can be written again
/// is preceded by one that says how many were lost.
struct Log;

/// How many lines were lost since one was written.
static LOST: AtomicU64 = AtomicU64::new(0);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(write_to(&mut io::stderr(), &LOST, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines, or counts them as lost; returns how many bytes are dealt with.
fn write_to(to: &mut impl Write, lost: &AtomicU64, bytes: &[u8]) -> usize {
    let before = lost.swap(0, Ordering::Relaxed);
    if before > 0 {
        let text = format!("{before} lines of this log were lost: it could not be written");
        if to.write_all(lines(&text, Level::WARN, is_journal()).as_bytes()).is_err() {
            lost.fetch_add(before, Ordering::Relaxed);
        }
    }
    to.write(bytes).unwrap_or_else(|_| {
        lost.fetch_add(1, Ordering::Relaxed);
        bytes.len()
    })
}

/// Whether standard error was systemd's journal when this was first asked.
pub fn is_journal() -> bool {
    static ANSWER: LazyLock<bool> = LazyLock::new(|| {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        fstat(rustix::stdio::stderr()).is_ok_and(|stderr| is_stream(&stream, &stderr))
    });
    *ANSWER
}

/// Whether `stream`, a value of `JOURNAL_STREAM`, means this open file.
fn is_stream(stream: &str, file: &Stat) -> bool {
    stream == format!("{}:{}", file.st_dev, file.st_ino)
}

/// The lines of a text, each with its priority if the journal reads them.
fn lines(text: &str, level: Level, is_journal: bool) -> String {
    let priority = if is_journal { priority(level) } else { "" };
    text.lines().map(|line| format!("{priority}{line}\n")).collect()
}

/// The priority of a level, in the manner of syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Text with a priority in front of each line.
struct Prioritized(format::Format<Full, ()>);

impl Prioritized {
    fn new() -> Prioritized {
        Prioritized(format::format().without_time().with_level(false).with_target(false))
    }
}

impl<S, N> FormatEvent<S, N> for Prioritized
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        writer.write_str(&lines(&text, *event.metadata().level(), true))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::{Command, Stdio};

    use super::*;

    /// Names the format that a child process of a test logs in.
    const FORMAT: &str = "TRAMA_TEST_LOG_FORMAT";

    /// What a child process of `what_a_process_logs` prints with this `JOURNAL_STREAM`.
    fn logged(format: &str, stream: impl Fn(&Stat) -> String) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = File::create(&path).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "tests::what_a_process_logs", "--nocapture"]);
        command.env(FORMAT, format).env("JOURNAL_STREAM", stream(&fstat(&file).unwrap()));
        assert!(command.stderr(file).stdout(Stdio::null()).status().unwrap().success());
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_a_process_logs() {
        let Ok(format) = std::env::var(FORMAT) else { return };
        start("TRAMA_TEST_LOG", if format == "json" { Format::Json } else { Format::Text });
        tracing::error!("one\ntwo");
        tracing::warn!(port = "vm1", "three");
        tracing::info!("four");
        tracing::debug!("five");
        error("six\nseven");
    }

    #[test]
    fn a_log_that_cannot_be_written_ends_nothing() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "tests::what_a_process_logs", "--nocapture"]);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let status = command.env(FORMAT, "text").stderr(full).stdout(Stdio::null()).status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn lines_that_were_lost_are_counted_once_the_log_works_again() {
        let (lost, mut full) = (AtomicU64::new(0), File::options().write(true).open("/dev/full"));
        let full = full.as_mut().unwrap();
        for line in ["one\n", "two\n"] {
            assert_eq!(write_to(full, &lost, line.as_bytes()), line.len());
        }
        let mut log = Vec::new();
        for line in ["three\n", "four\n"] {
            write_to(&mut log, &lost, line.as_bytes());
        }
        let text = String::from_utf8(log).unwrap();
        let expected = "2 lines of this log were lost: it could not be written\nthree\nfour\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn levels_and_targets_are_read_and_others_refused() {
        for text in ["", " ", "warn", "INFO", "trama_daemon=debug", "info,trama_nat=trace", "off"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["warning", "nolevel", "info,loud", "trama_daemon=loud", "=[bogus"] {
            assert!(filter(text).is_err_and(|fault| fault.contains("error, warn")), "{text}");
        }
    }

    #[test]
    fn the_journal_gets_priorities_and_no_times() {
        let journal = |file: &Stat| format!("{}:{}", file.st_dev, file.st_ino);
        let text = "<3>one\n<3>two\n<4>three port=\"vm1\"\n<6>four\n<3>six\n<3>seven\n";
        assert_eq!(logged("text", journal), text);
        assert!(logged("json", journal).starts_with('{'));
    }

    #[test]
    fn standard_error_that_is_another_file_gets_times() {
        for stream in ["", "1", "journal"] {
            let text = logged("text", |_| stream.to_owned());
            let first = text.lines().next().unwrap();
            assert!(first.starts_with("20") && first.ends_with(" ERROR one"), "{stream}: {text}");
            assert!(text.ends_with("\nsix\nseven\n"), "{stream}: {text}");
        }
        let next = |file: &Stat| format!("{}:{}", file.st_dev, file.st_ino + 1);
        assert!(logged("text", next).starts_with("20"));
    }
}
