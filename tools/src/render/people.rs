//! The forms for people, on a terminal: text without quotes where it is clear, numbers to the
//! right, headings that stand out, on request units. Scripts never see them.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use trama_api::value::{Atom, Value};

/// What people ask for.
#[derive(Clone, Copy)]
pub(crate) struct People {
    /// Whether counts and bytes have units.
    pub units: bool,
}

const HEADING: Style = Style::new().bold();
const KEY: Style = Style::new().dimmed();
const ERROR: Style = AnsiColor::Red.on_default();

/// How the line of a fault begins in the text of `show`.
const FAULT: &str = "error: ";

/// Counters other than those of bytes, by the end of their names.
const COUNTS: [&str; 7] = ["frames", "packets", "dropped", "errors", "drops", "kicks", "calls"];

impl People {
    /// Adds a line of a command's text.
    pub(super) fn push_line(self, text: &mut String, line: &str) {
        // Writing to a string does not fail.
        let _ = match line.trim_start().starts_with(FAULT) {
            true => writeln!(text, "{ERROR}{line}{ERROR:#}"),
            false => writeln!(text, "{line}"),
        };
    }

    /// Adds a line for each value, and a blank one between records.
    pub(super) fn push_list(
        self,
        text: &mut String,
        headings: &[String],
        rows: &[Vec<Value>],
        has_headings: bool,
    ) {
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            for (heading, value) in headings.iter().zip(row) {
                if has_headings {
                    let _ = write!(text, "{KEY}{heading:<20}:{KEY:#} ");
                }
                let cell = self.cell(heading, value);
                let is_fault = heading == FAULT.trim_end_matches(": ") && !value.is_empty();
                let _ = match is_fault {
                    true => writeln!(text, "{ERROR}{cell}{ERROR:#}"),
                    false => writeln!(text, "{cell}"),
                };
            }
        }
    }

    /// Adds a line for each record, in columns two blanks apart.
    pub(super) fn push_table(
        self,
        text: &mut String,
        headings: &[String],
        rows: &[Vec<Value>],
        has_headings: bool,
    ) {
        let columns: Vec<Column> = headings
            .iter()
            .enumerate()
            .map(|(place, heading)| {
                let values = || rows.iter().filter_map(|row| row.get(place));
                let cells: Vec<String> = values().map(|value| self.cell(heading, value)).collect();
                let shown =
                    cells.iter().map(String::as_str).chain(has_headings.then_some(&**heading));
                Column {
                    width: shown.map(|cell| cell.chars().count()).max().unwrap_or(0),
                    is_number: values().all(|value| matches!(value, Value::One(Atom::Integer(_)))),
                    cells,
                }
            })
            .collect();
        if has_headings {
            let line = headings.iter().zip(&columns).map(|(heading, column)| column.pad(heading));
            let line = line.collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "{HEADING}{}{HEADING:#}", line.trim_end());
        }
        for row in 0..rows.len() {
            let line = columns.iter().filter_map(|it| Some(it.pad(it.cells.get(row)?)));
            let _ = writeln!(text, "{}", line.collect::<Vec<_>>().join("  ").trim_end());
        }
    }

    fn cell(self, heading: &str, value: &Value) -> String {
        let list = |items: Vec<String>| items.join(", ");
        match value {
            // A sentence needs no quotes where it is alone.
            Value::One(Atom::String(text)) if is_printable(text) => text.to_string(),
            Value::One(atom) => self.atom(heading, heading, atom),
            Value::Set(atoms) => {
                let items = atoms.iter().map(|atom| self.atom(heading, heading, atom)).collect();
                format!("[{}]", list(items))
            }
            Value::Map(pairs) => {
                let pair = |(key, atom): &(Atom, Atom)| {
                    let name = key.bare();
                    format!("{}={}", self.atom("", "", key), self.atom(heading, &name, atom))
                };
                format!("{{{}}}", list(pairs.iter().map(pair).collect()))
            }
        }
    }

    fn atom(self, heading: &str, name: &str, atom: &Atom) -> String {
        match atom {
            Atom::Integer(number) if self.units => {
                let is_count = |name: &str| COUNTS.iter().any(|end| name.ends_with(end));
                match *number {
                    bytes if name.ends_with("bytes") => with_unit(bytes, 1024, &BYTES),
                    count if is_count(name) || is_count(heading) => with_unit(count, 1000, &SI),
                    other => other.to_string(),
                }
            }
            Atom::String(text) if is_clear(text) => text.to_string(),
            other => other.to_string(),
        }
    }
}

/// Multiples of a byte (IEC 80000-13), and of one (SI).
const BYTES: [&str; 6] = [" B", " KiB", " MiB", " GiB", " TiB", " PiB"];
const SI: [&str; 6] = ["", "k", "M", "G", "T", "P"];

/// The number with one digit behind the point, in the largest unit that it has one of.
fn with_unit(number: i64, step: u32, units: &[&str]) -> String {
    let mut value = number as f64;
    let mut left = units.iter();
    let mut unit = left.next();
    // What would be rounded up to the step belongs to the next unit.
    while value.abs() >= f64::from(step) - 0.05
        && let Some(next) = left.next()
    {
        value /= f64::from(step);
        unit = Some(next);
    }
    let digits = usize::from(unit != units.first());
    format!("{value:.digits$}{}", unit.copied().unwrap_or_default())
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// Whether a text can stand in a list without quotes.
fn is_clear(text: &str) -> bool {
    is_printable(text) && !text.contains(|c: char| c.is_whitespace() || "\"',=[]{}".contains(c))
}

/// A column of a table.
struct Column {
    cells: Vec<String>,
    width: usize,
    is_number: bool,
}

impl Column {
    fn pad(&self, cell: &str) -> String {
        let width = self.width;
        if self.is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: People = People { units: false };
    const UNITS: People = People { units: true };

    fn number(number: i64) -> Value {
        Value::One(Atom::Integer(number))
    }

    fn without_colours(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn numbers_stand_to_the_right_and_addresses_have_no_quotes() {
        let headings = ["port", "VLAN", "MAC", "Age"].map(str::to_owned);
        let row = |port: &str, vlan, age: Value| {
            vec![Value::string(port), number(vlan), Value::string("52:54:00:00:00:01"), age]
        };
        let rows = [row("1", 10, number(3)), row("longname", 4095, Value::string("static"))];
        let mut text = String::new();
        PLAIN.push_table(&mut text, &headings, &rows, true);
        assert!(text.starts_with("\u{1b}[1m"), "{text:?}");
        let lines = [
            "port      VLAN  MAC                Age",
            "1           10  52:54:00:00:00:01  3",
            "longname  4095  52:54:00:00:00:01  static",
        ];
        assert_eq!(without_colours(&text).lines().collect::<Vec<_>>(), lines);
        text.clear();
        PLAIN.push_table(&mut text, &headings[..2], &rows, false);
        assert_eq!(text, "1           10\nlongname  4095\n");
    }

    #[test]
    fn values_need_quotes_only_where_they_would_mislead() {
        let cell = |value| PLAIN.cell("a", &value);
        assert_eq!(
            cell(Value::string("a sentence, with \"quotes\"")),
            "a sentence, with \"quotes\""
        );
        assert_eq!(cell(Value::string("")), "\"\"");
        assert_eq!(cell(Value::string("a\nb")), "\"a\\nb\"");
        let map = Value::strings([("path", "/run/a.sock"), ("say", "a, b"), ("n", "1")]);
        assert_eq!(cell(map), "{n=1, path=/run/a.sock, say=\"a, b\"}");
        assert_eq!(cell(Value::NOTHING), "[]");
        assert_eq!(UNITS.cell("tag", &number(4000)), "4000");
    }

    #[test]
    fn units_of_bytes_and_of_counts() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_500_000, "1.4 MiB"),
            (i64::MAX, "8192.0 PiB"),
        ] {
            assert_eq!(UNITS.cell("rx_bytes", &number(bytes)), text);
            assert_eq!(PLAIN.cell("rx_bytes", &number(bytes)), bytes.to_string());
        }
        for (count, text) in
            [(999, "999"), (1000, "1.0k"), (999_950, "1.0M"), (12_345_678, "12.3M")]
        {
            assert_eq!(UNITS.cell("rx_frames", &number(count)), text);
        }
        let drops = Value::counts([("runt", 1_200)]);
        assert_eq!(UNITS.cell("drops", &drops), "{runt=1.2k}");
        let statistics = Value::counts([("calls", 2_000), ("rx_bytes", 2_048)]);
        assert_eq!(UNITS.cell("statistics", &statistics), "{calls=2.0k, rx_bytes=2.0 KiB}");
    }

    #[test]
    fn faults_stand_out() {
        let mut text = String::new();
        PLAIN.push_line(&mut text, "    error: \"no such group\"");
        PLAIN.push_line(&mut text, "    type: tap");
        assert!(text.starts_with("\u{1b}[31m    error"), "{text:?}");
        assert!(text.ends_with("\n    type: tap\n"), "{text:?}");
        text.clear();
        let headings = ["error".to_owned(), "name".to_owned()];
        let rows = [vec![Value::string("gone"), Value::string("a")]];
        PLAIN.push_list(&mut text, &headings, &rows, false);
        assert_eq!(without_colours(&text), "gone\na\n");
        assert!(text.starts_with("\u{1b}[31m"), "{text:?}");
    }
}
