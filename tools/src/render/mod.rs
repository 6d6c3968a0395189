//! Renders answers as tables, lists and JSON like `ovs-vsctl`, and for people on a terminal.

mod people;

use serde::Serialize;
use trama_api::commands::{CommandId, Words, find};
use trama_api::transaction::{Form, Output};
use trama_api::value::{AsTools, Text, Value};

pub(crate) use people::People;

/// The form of tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line for each record under underlined headings.
    Table,
    /// A line for each value, a blank line between records.
    List,
    /// One line of JSON for each table, values as in RFC 7047.
    Json,
    /// A line of values separated by commas for each record.
    Csv,
}

/// The form of values in tables and lists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// `[10, 20]`, `{a="b c"}`.
    Text,
    /// `10 20`, `a=b c`.
    Bare,
    /// RFC 7047.
    Json,
}

/// The form of the output.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    /// `None` = the command's default.
    pub format: Option<Format>,
    /// The form of values.
    pub data: Data,
    /// Whether tables have headings.
    pub headings: bool,
    /// Whether a command's text is printed on one line.
    pub oneline: bool,
    /// The form for people, if it is wanted.
    pub people: Option<People>,
}

/// A cell of a table.
pub(crate) trait Cell: Sized {
    /// Adds its text.
    fn push(&self, text: &mut String, data: Data);

    /// Adds a table in a form; `None` = the one that the command asks for.
    fn push_rows(
        text: &mut String,
        table: Table<'_, Self>,
        format: Option<Format>,
        form: &Form,
        style: Style,
    );
}

/// The headings and the rows of a table.
pub(crate) type Table<'a, C> = (&'a [String], &'a [Vec<C>]);

impl Cell for Value {
    fn push(&self, text: &mut String, data: Data) {
        match data {
            // Writing to a string does not fail.
            Data::Text => drop(self.write_text(text)),
            Data::Bare => text.push_str(&self.bare()),
            Data::Json => push_as_json(text, &AsTools(self)),
        }
    }

    fn push_rows(
        text: &mut String,
        (headings, rows): Table<'_, Value>,
        format: Option<Format>,
        form: &Form,
        style: Style,
    ) {
        match (format, form, style.people) {
            (Some(Format::Json), ..) => push_json(text, headings, rows),
            (Some(Format::Csv), ..) => push_csv(text, headings, rows, style),
            (Some(Format::List), _, Some(people)) => {
                people.push_list(text, headings, rows, style.headings);
            }
            (Some(Format::List), ..) => push_list(text, headings, rows, style),
            (.., Some(people)) => people.push_table(text, headings, rows, style.headings),
            (None, Form::Fixed { widths }, None) => {
                push_fixed(text, headings, rows, widths, style);
            }
            _ => push_table(text, headings, rows, style),
        }
    }
}

/// Only for what [`Style::is_text`].
impl Cell for Text {
    fn push(&self, text: &mut String, _: Data) {
        text.push_str(&self.0);
    }

    fn push_rows(
        text: &mut String,
        (headings, rows): Table<'_, Text>,
        format: Option<Format>,
        _: &Form,
        style: Style,
    ) {
        match format {
            Some(Format::List) => push_list(text, headings, rows, style),
            Some(Format::Csv) => push_csv(text, headings, rows, style),
            _ => push_table(text, headings, rows, style),
        }
    }
}

impl Style {
    /// Whether the output of these commands is values in text notation and nothing else, so that
    /// their cells need be read only as [`Text`].
    pub(crate) fn is_text(&self, commands: &[Vec<String>]) -> bool {
        let lists = |words: &Vec<String>| {
            let command = Words::of(words).ok().and_then(|words| find(words.name));
            command.is_some_and(|it| matches!(it.id, CommandId::List | CommandId::Find))
        };
        self.people.is_none()
            && self.data == Data::Text
            && self.format != Some(Format::Json)
            && commands.iter().all(lists)
    }
}

/// The text of all answers of a transaction.
pub(crate) fn render<C: Cell>(results: &[Output<C>], style: Style) -> String {
    let mut text = String::new();
    let mut tables = 0;
    for result in results {
        match result {
            Output::Text { lines } if style.oneline => {
                let escaped: Vec<_> = lines.iter().map(|line| line.replace('\\', "\\\\")).collect();
                text.push_str(&escaped.join("\\n"));
                text.push('\n');
            }
            Output::Text { lines } => lines.iter().for_each(|line| match style.people {
                Some(people) => people.push_line(&mut text, line),
                None => push_line(&mut text, line),
            }),
            Output::Table { headings, rows, form } => {
                let format = style.format.or(match form {
                    Form::List => Some(Format::List),
                    Form::Table => Some(Format::Table),
                    Form::Fixed { .. } => None,
                });
                if tables > 0 && format != Some(Format::Json) {
                    text.push('\n');
                }
                tables += 1;
                C::push_rows(&mut text, (headings, rows), format, form, style);
            }
        }
    }
    text
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn cell(cell: &impl Cell, data: Data) -> String {
    let mut text = String::new();
    cell.push(&mut text, data);
    text
}

fn push_json(text: &mut String, headings: &[String], rows: &[Vec<Value>]) {
    #[derive(Serialize)]
    struct Table<'a> {
        data: Vec<Vec<AsTools<'a>>>,
        headings: &'a [String],
    }
    let data = rows.iter().map(|row| row.iter().map(AsTools).collect()).collect();
    push_as_json(text, &Table { data, headings });
    text.push('\n');
}

fn push_as_json(text: &mut String, what: &impl Serialize) {
    // What is printed has only keys that are texts, so nothing fails.
    text.push_str(&serde_json::to_string(what).unwrap_or_default());
}

fn push_csv<C: Cell>(text: &mut String, headings: &[String], rows: &[Vec<C>], style: Style) {
    let quoted = |cell: &str| match cell.contains(['"', ',', '\t', '\r', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    };
    if style.headings {
        push_line(text, &headings.join(","));
    }
    for row in rows {
        let cells = row.iter().map(|value| quoted(&cell(value, style.data)));
        push_line(text, &cells.collect::<Vec<_>>().join(","));
    }
}

fn push_list<C: Cell>(text: &mut String, headings: &[String], rows: &[Vec<C>], style: Style) {
    let padded = headings.iter().map(|heading| match style.headings {
        true => format!("{heading:<20}: "),
        false => String::new(),
    });
    let padded: Vec<String> = padded.collect();
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        for (heading, value) in padded.iter().zip(row) {
            text.push_str(heading);
            value.push(text, style.data);
            text.push('\n');
        }
    }
}

fn push_table<C: Cell>(text: &mut String, headings: &[String], rows: &[Vec<C>], style: Style) {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|value| cell(value, style.data)).collect()).collect();
    let mut lines: Vec<&[String]> = rows.iter().map(Vec::as_slice).collect();
    if style.headings {
        lines.insert(0, headings);
    }
    let columns = headings.len();
    let cells = |column: usize| lines.iter().filter_map(move |line| line.get(column));
    let widths: Vec<usize> = (0..columns)
        .map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    if style.headings {
        lines.insert(1, &rule);
    }
    for line in lines {
        let mut joined = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            if column + 1 < columns {
                joined.push_str(&format!("{cell:<width$} "));
            } else {
                joined.push_str(cell);
            }
        }
        push_line(text, &joined);
    }
}

/// Columns two blanks apart, of at least the given widths (negative = left-aligned).
fn push_fixed(
    text: &mut String,
    headings: &[String],
    rows: &[Vec<Value>],
    widths: &[i8],
    style: Style,
) {
    let line = |cells: Vec<String>| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| {
            let least = usize::from(width.unsigned_abs());
            if *width < 0 { format!("{cell:<least$}") } else { format!("{cell:>least$}") }
        });
        padded.collect::<Vec<_>>().join("  ")
    };
    if style.headings {
        push_line(text, &line(headings.to_vec()));
    }
    for row in rows {
        push_line(text, &line(row.iter().map(Value::bare).collect()));
    }
}

#[cfg(test)]
mod tests {
    use trama_api::value::Atom;

    use super::*;

    const PLAIN: Style =
        Style { format: None, data: Data::Text, headings: true, oneline: false, people: None };

    fn number(number: i64) -> Value {
        Value::One(Atom::Integer(number))
    }

    fn table(form: Form, rows: Vec<Vec<Value>>) -> Output {
        let headings = ["port", "VLAN", "MAC", "Age"].map(str::to_owned).to_vec();
        Output::Table { headings, rows, form }
    }

    #[test]
    fn learnt_addresses_stand_where_ovs_appctl_puts_them() {
        let row = |port: Value, vlan, age| {
            vec![port, number(vlan), Value::string("52:54:00:00:00:01"), number(age)]
        };
        let rows = vec![row(number(1), 10, 3), row(Value::string("longname"), 4095, 1000)];
        let fdb = table(Form::Fixed { widths: vec![5, 4, -17, 3] }, rows);
        assert_eq!(
            render(std::slice::from_ref(&fdb), PLAIN),
            " port  VLAN  MAC                Age\n    1    10  52:54:00:00:00:01    3\n\
             longname  4095  52:54:00:00:00:01  1000\n"
        );
        let listed = render(&[fdb], Style { format: Some(Format::Table), ..PLAIN });
        assert!(listed.contains("\n-------- ---- "), "{listed}");
    }

    #[test]
    fn tables_are_parted_by_a_blank_line_and_json_is_not() {
        let empty = || table(Form::Table, vec![]);
        let results = [empty(), Output::line("between"), empty()];
        let heading = "port VLAN MAC Age\n---- ---- --- ---\n";
        assert_eq!(render(&results, PLAIN), format!("{heading}between\n\n{heading}"));
        let json = "{\"data\":[],\"headings\":[\"port\",\"VLAN\",\"MAC\",\"Age\"]}\n";
        let style = Style { format: Some(Format::Json), ..PLAIN };
        assert_eq!(render(&results, style), format!("{json}between\n{json}"));
        let style = Style { headings: false, ..PLAIN };
        assert_eq!(render(&results, style), "between\n\n");
    }

    #[test]
    fn one_line_for_each_command_even_if_it_says_nothing() {
        let lines = vec!["a\\b".to_owned(), "c".to_owned()];
        let results = [Output::Text { lines }, Output::none(), Output::line("d")];
        let style = Style { oneline: true, ..PLAIN };
        assert_eq!(render(&results, style), "a\\\\b\\nc\n\nd\n");
        assert_eq!(render(&results, PLAIN), "a\\b\nc\nd\n");
    }
}
